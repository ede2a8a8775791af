//! What servers tell a session unasked: who follows them, and who listens.

use super::{Session, lock};
use crate::{
    call::{Call, Operation},
    origin::Origin,
    server::Server,
    upstream::Source,
};
use bytes::Bytes;
use http::HeaderMap;
use mcp::Era;
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};
use vocab::ServerName;

/// A listening stream that was opened before anybody followed it.
pub(crate) enum Ahead {
    /// Here it is.
    Open(Box<Source>),
    /// The server has none.
    Absent,
}

impl Session {
    /// Remembers the call that listens.
    pub(crate) fn is_listened_by(&self, call: &Call) {
        *lock(&self.listener) = Some((call.id, call.peer));
    }

    /// A call of the gateway's own in the course of the one that listens.
    pub(crate) fn listening_call(&self) -> Call {
        let listener = *lock(&self.listener);
        let peer = listener.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |(_, peer)| peer);
        let call = Call::new(self.route.clone(), Operation::Listen, Era::Legacy, HeaderMap::new(), peer);
        Call { parent: listener.map(|(id, _)| id), ..call }
    }

    /// Says something of a server on the listening stream. `false` if nobody listens or the listener is too slow.
    /// `origin`: who would be answered.
    pub fn tell(&self, server: &ServerName, origin: Option<Origin>, message: &Bytes) -> bool {
        self.say(Some(server.clone()), origin, message)
    }

    /// Follows what a server says unasked, unless somebody does already: nothing is to be told twice.
    pub fn follow(self: &Arc<Self>, server: &ServerName) -> Option<Following> {
        let first = lock(&self.followed).insert(server.clone());
        first.then(|| Following { session: Arc::clone(self), server: server.clone() })
    }

    /// Whether somebody follows it.
    pub(crate) fn is_followed(&self, server: &ServerName) -> bool {
        lock(&self.followed).contains(server)
    }

    /// Keeps the listening stream of a leg for whoever will follow it.
    pub(crate) fn keep_stream(&self, server: &ServerName, stream: Option<Source>) {
        lock(&self.streams_ahead)
            .insert(server.clone(), stream.map_or(Ahead::Absent, |stream| Ahead::Open(Box::new(stream))));
    }

    /// Does not ask a server for its listening stream any more: it forgets each session in which it is asked.
    pub(crate) fn renounce_stream(&self, server: &Server) {
        lock(&self.streamless).insert(server.name.clone(), server.fingerprint);
    }

    /// Whether that was renounced.
    pub(crate) fn has_renounced_stream(&self, server: &Server) -> bool {
        lock(&self.streamless).get(&server.name) == Some(&server.fingerprint)
    }

    /// The stream kept by [`Session::keep_stream`], once.
    pub(crate) fn take_stream(&self, server: &ServerName) -> Option<Ahead> {
        lock(&self.streams_ahead).remove(server)
    }
}

/// Somebody follows a server for a session, until this is dropped.
pub struct Following {
    session: Arc<Session>,
    server: ServerName,
}

impl Drop for Following {
    fn drop(&mut self) {
        lock(&self.session.followed).remove(&self.server);
    }
}
