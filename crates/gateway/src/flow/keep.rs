//! What of a stream is kept for a client that comes back for the rest.

use super::{Flow, Passed};
use crate::{
    call::Route,
    resolve::reference,
    session::replay::{About, Keeper, Reader},
    upstream::Source,
};
use bytes::Bytes;
use mcp::{Era, Kind};
use std::sync::Arc;
use vocab::Action;

/// The longest id and name of a call whose stream is kept, in bytes, together.
const KNOWN_BY: usize = 4096;

impl Flow {
    /// Keeps the stream of a call that goes on, where the gateway is its origin.
    pub(super) fn keeper(&self) -> Option<Keeper> {
        let call = &self.exchange.call;
        let request = call.message().filter(|message| call.era == Era::Legacy && message.kind() == Kind::Request)?;
        let one = self.exchange.target.one()?;
        let session = one.session.as_ref().filter(|session| session.knows_ids(call))?;
        // A web server's stream of this very call. One of 2024-11-05 has none: what it says of calls comes on its one stream.
        let is_servers = matches!(call.route, Route::One(_)) && self.passes();
        // The server's own ids pass, and lead back to it; the id of one answer of a batch would lead to that one alone.
        // What a stream is known by is kept as long as its session: nobody is to keep megabytes there.
        let known_by = request.id()?.len() + one.resource.id.name.len();
        if is_servers || self.resumable || call.batch.is_some() || known_by > KNOWN_BY {
            return None;
        }
        // Completions tell of what they complete.
        let completed = reference(request).filter(|_| one.action == Some(Action::CompletionComplete));
        let actions = one.action.into_iter().chain(completed.map(|(action, _)| action)).collect();
        let about = About {
            server: one.server.name.clone(),
            actions,
            name: Arc::clone(&one.resource.id.name),
            id: Box::from(request.id()?),
        };
        Some(session.keep_call(about))
    }

    /// What tells a client where it is before anything was said.
    pub(super) fn primer(&mut self) -> Option<Bytes> {
        let call = &self.exchange.call;
        self.exchange.target.session().filter(|session| session.knows_primers(call))?;
        match (&self.keeper, &mut self.source) {
            (Some(keeper), _) => Some(keeper.primer()),
            (None, Source::Kept(reader)) => reader.primer(),
            (None, _) => None,
        }
    }

    /// An event as it is sent, once it is kept.
    pub(super) fn keep(&self, event: Bytes, passed: Passed) -> Bytes {
        match (&self.keeper, passed) {
            (None, _) | (_, Passed::Comment) => event,
            (Some(keeper), passed) => keeper.keep(event, passed == Passed::Answer, self.resumable),
        }
    }

    /// What is read again, or at last, and has an id of ours.
    pub(super) const fn reader(&self) -> Option<&Reader> {
        match &self.source {
            Source::Kept(reader) => Some(reader),
            Source::Http(_)
            | Source::Resumed(_)
            | Source::Pipe(_)
            | Source::Bridged(_)
            | Source::Talked(_)
            | Source::Told(_)
            | Source::Made { .. } => None,
        }
    }

    /// Whether what came last was put to the client before: what a call's stream holds, and what was read once already.
    pub(super) fn reads_again(&self) -> bool {
        self.reader().is_some_and(|reader| reader.is_of_call() || reader.reads_again())
    }

    /// Whether what is read was said on the stream of a call, and judged then.
    pub(super) fn reads_call(&self) -> bool {
        self.reader().is_some_and(Reader::is_of_call)
    }
}
