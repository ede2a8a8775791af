//! Which resources a stream may tell of: what its client follows, and may follow at this moment.

use super::Flow;
use crate::{
    aggregate::narrow,
    authenticate::Caller,
    bridge::upward::rights::{Open, Rights},
    call::{Call, Route},
    forward::Exchange,
    pipeline::Line,
    server::Server,
};
use mcp::{Era, Message};
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
}

impl Follows {
    fn on(&mut self, line: &Line, exchange: &Exchange, server: &Server) -> (&mut Follow, Arc<Open>) {
        let follow = self.0.entry(server.name.clone()).or_insert_with(|| {
            let request = exchange.call.message().filter(|_| exchange.call.era == Era::Modern);
            let uris = request.map(|request| narrow::followed(request, server, &exchange.call.route));
            Follow { uris: uris.unwrap_or_default(), rights: Rights::on(&server.name) }
        });
        let open = match exchange.target.session() {
            Some(session) => follow.rights.now(line, session),
            None => follow.rights.of_listener(line, &exchange.caller.principal, &follow.uris),
        };
        (follow, open)
    }
}

/// What a modern client that listens to one server may follow there by this snapshot, which also decides what the server is
/// asked for.
pub(crate) fn asked(line: &Line, caller: &Caller, call: &Call, server: &Server) -> Option<Arc<Open>> {
    let is_asked = |request: &&Message| call.era == Era::Modern && request.method() == "subscriptions/listen";
    let uris = narrow::followed(call.message().filter(is_asked)?, server, &call.route);
    Some(Rights::on(&server.name).of_listener(line, &caller.principal, &uris))
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
        // A stream of several servers is asked for by what is followed on each. What one server says alone stays its own, and
        // a session may hear of a resource before it is answered that it follows it.
        let is_asked_for = self.exchange.call.route == Route::All && self.exchange.call.message().is_some();
        if is_asked_for && open.is_empty() {
            return false;
        }
        match line.may_subscribe(&self.exchange.caller, server, uri, &json!({ "uri": uri }), &[]) {
            Ok(()) => true,
            // It may be a part of what is followed, under an address that does not say so.
            Err(refusal) => refusal.reason == Reason::NoMatch && !open.uris.is_empty(),
        }
    }

    /// Whether a modern client that listens to one server may follow others there by now than the server was asked for. It is
    /// told which when it listens again.
    pub(super) fn follows_others(&mut self, line: &Line) -> bool {
        let (Some(begun), Some(one)) = (&self.exchange.may_follow, self.exchange.target.one()) else { return false };
        let (_, open) = self.follows.get_or_insert_default().on(line, &self.exchange, &one.server);
        begun.uris != open.uris
    }
}
