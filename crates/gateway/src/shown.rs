//! What a server says as the caller of the aggregate knows it, and what that caller says as the server does: ids of tasks
//! and addresses of resources carry their server. On the door of one server nothing is touched.
//!
//! Comes after everything that judges: policy, detectors and records know the server's own words alone.

use crate::{
    authenticate::Caller, call::Route, forward::Exchange, pipeline::Line, resolve::One, server::Server, stop::Stop,
    task, upstream::exchange,
};
use bytes::Bytes;
use mcp::{Message, Span, address};

impl Line {
    /// What a server says, as the caller knows it. `read` is the message that `text` was made of: most often it still is
    /// that text, and is not read again.
    pub(crate) fn as_shown(
        &self,
        text: Bytes,
        read: &Message,
        exchange: &Exchange,
        server: &Server,
    ) -> Result<Bytes, Stop> {
        if exchange.call.route != Route::All {
            return Ok(text);
        }
        let (has_tasks, has_addresses) = (task::may_name_one(&text), address::may_occur(&text));
        if !has_tasks && !has_addresses {
            return Ok(text);
        }
        let message = if std::ptr::eq::<[u8]>(text.as_ref(), read.bytes().as_ref()) {
            read.clone()
        } else {
            exchange::one(text, &self.snapshot.answer_limits()).map_err(|fault| fault.stop(&server.name))?
        };
        let mut edits = if has_tasks { self.shown_tasks(&message, exchange, server)? } else { Vec::new() };
        if has_addresses {
            let catalog = server.state.catalog.load();
            let offers = |uri: &str| catalog.as_ref().is_some_and(|catalog| catalog.has_resource(uri));
            edits.extend(address::said(&message, server.name.as_str(), &offers));
        }
        Ok(if edits.is_empty() { message.bytes().clone() } else { mcp::splice(message.bytes(), &mut edits) })
    }

    /// What is another in what a client of the aggregate says, beside the name of what it is about.
    pub(crate) fn as_own(&self, caller: &Caller, one: &One, message: &Message) -> Vec<(Span, Vec<u8>)> {
        let mut edits = self.with_own_tasks(caller, one, message);
        edits.extend(address::heard(message, one.server.name.as_str()));
        edits
    }
}
