//! Which resources a stream may tell of: what its client follows, and may follow at this moment.

use super::Flow;
use crate::{
    aggregate::narrow,
    bridge::upward::rights::{Open, Rights},
    forward::Exchange,
    pipeline::Line,
    server::Server,
};
use mcp::Era;
use policy::Reason;
use serde_json::json;
use std::{collections::HashMap, sync::Arc};
use vocab::ServerName;

/// What a client follows on each server that has told it of something, or that it listens to alone.
#[derive(Default)]
pub(super) struct Follows(HashMap<ServerName, Follow>);

struct Follow {
    /// What a request of the modern era names. A session knows what it follows.
    uris: Vec<Arc<str>>,
    rights: Rights,
    /// What might be told when a listener began.
    begun: Option<Arc<Open>>,
}

impl Follows {
    fn on(&mut self, line: &Line, exchange: &Exchange, server: &Server) -> (&mut Follow, Arc<Open>) {
        let follow = self.0.entry(server.name.clone()).or_insert_with(|| {
            let request = exchange.call.message().filter(|_| exchange.call.era == Era::Modern);
            let uris = request.map(|request| narrow::followed(request, server, &exchange.call.route));
            Follow { uris: uris.unwrap_or_default(), rights: Rights::on(&server.name), begun: None }
        });
        let open = match exchange.target.session() {
            Some(session) => follow.rights.now(line, session),
            None => follow.rights.of_listener(line, &exchange.caller.principal, &follow.uris),
        };
        (follow, open)
    }
}

impl Flow {
    /// Whether the client may follow what it is told of, by the address that the server knows.
    ///
    /// SECURITY: a server may go on telling what it was not asked for, or is asked for no longer.
    pub(super) fn may_follow(&mut self, line: &Line, server: &Server, uri: &str) -> bool {
        let (_, open) = self.follows.get_or_insert_default().on(line, &self.exchange, server);
        if let Some(is_told) = open.decides(uri) {
            return is_told;
        }
        match line.may_subscribe(&self.exchange.caller, server, uri, &json!({ "uri": uri }), &[]) {
            Ok(()) => true,
            // It may be a part of what is followed, under an address that does not say so.
            Err(refusal) => refusal.reason == Reason::NoMatch && !open.uris.is_empty(),
        }
    }

    /// Keeps in mind what a modern client that listens to one server may follow there: it was told which.
    pub(super) fn begin_to_follow(&mut self, line: &Line) {
        if let Some((follow, open)) = self.listened_to(line) {
            follow.begun = Some(open);
        }
    }

    /// Whether it may follow others by now. It is told which when it listens again.
    pub(super) fn follows_others(&mut self, line: &Line) -> bool {
        let other = |(follow, open): (&mut Follow, Arc<Open>)| Some(follow.begun.as_ref()?.uris != open.uris);
        self.listened_to(line).and_then(other).unwrap_or_default()
    }

    fn listened_to(&mut self, line: &Line) -> Option<(&mut Follow, Arc<Open>)> {
        if self.exchange.call.era != Era::Modern || !self.listens() {
            return None;
        }
        let server = Arc::clone(&self.exchange.target.one()?.server);
        Some(self.follows.get_or_insert_default().on(line, &self.exchange, &server))
    }
}
