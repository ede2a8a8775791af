//! Opens the sessions that clients have with the gateway, within the bound of each principal.

use super::Passage;
use crate::{
    authenticate::Caller,
    call::{Call, header},
    pipeline::Line,
    session::{Leg, Session, Way},
    stop::{Stage, Stop},
    upstream::{Arrival, UpstreamFault, exchange},
};
use ::http::HeaderValue;
use bytes::Bytes;
use mcp::{Kind, Message, Revision};
use std::sync::Arc;

/// The longest introduction of a client that opens a session, in bytes.
const INTRODUCTION: usize = 64 << 10;

impl Passage<'_> {
    /// Whether an answer to `initialize` begins a session. One that comes on a stream does so before it is there: what a
    /// server says and asks ahead of it is said and asked in that session, which ends if it is none (`Line::agree`).
    pub(super) fn begins(&self, arrival: &Arrival) -> bool {
        match arrival {
            Arrival::Whole { body, .. } => is_result(body, &self.hop().limits),
            Arrival::Stream { .. } => true,
            Arrival::Bare { .. } => false,
        }
    }

    /// Opens a session of ours around the one that the client just began.
    pub(super) fn open(&self, introduction: &Message, way: Way) -> Result<Arc<Session>, UpstreamFault> {
        let asked = introduction.param(&["protocolVersion"]).and_then(|member| member.text());
        let revision = asked.and_then(|text| Revision::parse(&text)).unwrap_or(Revision::ASSUMED);
        let session = self.line.open_session(self.caller, self.call, introduction, revision)?;
        let leg = Arc::new(Leg::new(self.one.server.fingerprint, revision, way, false));
        let name = &self.one.server.name;
        if !session.keep_leg(name, &leg) {
            self.line.state.part(vec![(name.clone(), leg)]);
        }
        Ok(session)
    }
}

impl Line {
    /// Looks whether the caller may have another session, before a server hears of it.
    pub(crate) fn room_for_session(&self, caller: &Caller, introduction: &Message) -> Result<(), UpstreamFault> {
        if introduction.bytes().len() > INTRODUCTION {
            // A session keeps it, to introduce the client to servers later.
            let why = format!("an `initialize` may be {INTRODUCTION} bytes long, no more");
            return Err(UpstreamFault::Stopped(Stop::refused(
                Stage::Limit,
                "sessions",
                mcp::error::REFUSED_LIMIT,
                why,
            )));
        }
        let most = self.snapshot.settings.bounds.sessions_per_principal;
        let room = self.state.sessions.room(caller.principal.id(), most);
        room.map_err(|fault| UpstreamFault::Sessions(fault.to_string()))
    }

    /// Opens a session for the caller, within its bound.
    pub(crate) fn open_session(
        &self,
        caller: &Caller,
        call: &Call,
        introduction: &Message,
        revision: Revision,
    ) -> Result<Arc<Session>, UpstreamFault> {
        self.room_for_session(caller, introduction)?;
        let most = self.snapshot.settings.bounds.sessions_per_principal;
        let now = self.state.clock.ticks();
        // A copy of its own: the message is part of a larger buffer, which would stay as long as the session.
        let introduction =
            exchange::one(Bytes::copy_from_slice(introduction.bytes()), &self.snapshot.request_limits())?;
        self.state
            .sessions
            .open(&caller.principal, call.route.clone(), introduction, revision, most, now)
            .map_err(|fault| UpstreamFault::Sessions(fault.to_string()))
    }
}

fn is_result(body: &Bytes, limits: &mcp::Limits) -> bool {
    exchange::one(body.clone(), limits)
        .is_ok_and(|message| message.kind() == Kind::Response && message.result().is_some())
}

/// The header that names a session.
pub(crate) fn session_header(session: &Session) -> (::http::HeaderName, HeaderValue) {
    let mut value = session.handle().clone();
    value.set_sensitive(true);
    (header::SESSION.clone(), value)
}
