//! What a server says as the caller of the aggregate knows it, and what that caller says as the server does: ids of tasks
//! and of pages to visit, and addresses of resources carry their server. On the door of one server nothing is touched.
//!
//! Policy, detectors and records know the server's own words alone: what a client says is put into them before anything
//! judges, what a server says is put into the aggregate's after everything that does.

use crate::{
    authenticate::Caller,
    call::{Call, Operation, Route},
    forward::Exchange,
    pipeline::Line,
    promise,
    resolve::{self, One},
    server::Server,
    stop::{Stage, Stop},
    task,
    upstream::exchange,
};
use bytes::Bytes;
use mcp::{Message, address, error, page};

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
        let has_pages = page::may_be_named(read);
        if !has_tasks && !has_addresses && !has_pages {
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
            let offers = |uri: &str| {
                catalog.as_ref().is_some_and(|catalog| catalog.offers().any(|offer| offer.has_resource(uri)))
            };
            edits.extend(address::said(&message, server.name.as_str(), &offers));
        }
        if has_pages {
            edits.extend(page::said(&message, server.name.as_str()));
        }
        Ok(if edits.is_empty() { message.bytes().clone() } else { mcp::splice(message.bytes(), &mut edits) })
    }

    /// Puts what a client of the aggregate says into the words of the one server it is for.
    ///
    /// INVARIANT: once, and before anything judges: detectors, rules and the permit's digest see what the server gets.
    pub(crate) fn to_own(&self, caller: &Caller, one: &One, call: &mut Call) -> Result<(), Stop> {
        let (Route::All, Operation::Message(message)) = (&call.route, &mut call.operation) else { return Ok(()) };
        let mut edits = self.with_own_tasks(caller, one, message);
        edits.extend(self.own_promises(caller, one, message));
        edits.extend(promise::own_progress(one, message));
        edits.extend(address::heard(message, one.server.name.as_str()));
        let name = &*one.resource.id.name;
        if one.shown.as_deref().is_some_and(|shown| shown != name)
            && let Some(member) = resolve::named_member(message)
        {
            edits.push((member.span, mcp::quote(name).into_bytes()));
        }
        if !edits.is_empty() {
            // The body was within its bound as it came; a name that was shortened may be longer than what stands for it.
            let limits = mcp::Limits { body: usize::MAX, ..self.snapshot.request_limits() };
            *message = exchange::one(mcp::splice(message.bytes(), &mut edits), &limits)
                .map_err(|fault| Stop::failed(Stage::Resolve, "names", error::INTERNAL, fault.to_string()))?;
        }
        Ok(())
    }
}
