//! How a stream ends, and what its record says of that.

use super::Flow;
use crate::{session::Errand, state::State, stop::Stop, upstream::UpstreamFault};
use std::sync::Arc;

/// Why a flow ended.
pub(super) enum End {
    /// The server said all it had to say.
    Complete,
    /// The gateway says that it was all: a client that wants more listens again.
    Concluded,
    /// The same, and the server is another by now: its client looks anew.
    Moved,
    /// The client is gone, and its era says that this cancels the call.
    Cancelled,
    /// Something stopped it.
    Stopped(Box<Stop>),
}

impl Flow {
    pub(super) fn complete(&self) -> End {
        if self.is_taken_back() {
            return self.taken_back();
        }
        let answered = self.exchange.answered;
        let is_free = self.listens() || self.reads_call();
        // SPEC: a server may close a stream it gave an id for; the client asks for the rest with `Last-Event-ID`.
        if is_free || answered || self.resumable || !self.exchange.call.wants_answer() {
            End::Complete
        } else {
            self.broken(&UpstreamFault::Cut("the stream ended without a response".to_owned()))
        }
    }

    pub(super) fn broken(&self, fault: &UpstreamFault) -> End {
        if matches!(fault, UpstreamFault::Cut(_)) && self.is_taken_back() {
            return self.taken_back();
        }
        match self.exchange.target.one() {
            Some(one) => End::Stopped(Box::new(fault.stop(&one.server.name))),
            None => End::Complete,
        }
    }

    /// The session is over: its client left it, or the right to it has ended, as the record says then, and whoever waits for
    /// an answer is told.
    pub(super) fn without_session(&mut self, state: &Arc<State>, is_free: bool) -> End {
        match self.still_allowed(&state.line()) {
            Err(stop) if !self.exchange.answered => End::Stopped(Box::new(stop)),
            Ok(()) | Err(_) => self.left(is_free),
        }
    }

    /// SPEC: a server owes no answer to a call that was taken back, and may end its stream without one.
    fn is_taken_back(&self) -> bool {
        self.exchange.errand.as_ref().is_some_and(Errand::is_taken_back)
    }

    /// The client took the call back. One that was answered has nothing more to say.
    pub(super) fn taken_back(&self) -> End {
        if self.exchange.answered { End::Complete } else { End::Stopped(Box::new(Stop::taken_back())) }
    }

    /// The client let go: of a stream that it may leave, and of an answer that it has, that is the normal end.
    pub(super) const fn left(&self, is_free: bool) -> End {
        if is_free || self.exchange.answered { End::Complete } else { End::Cancelled }
    }
}
