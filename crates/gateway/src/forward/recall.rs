//! Requests of a session that their client may take back, and what it takes back.

use super::{Passage, Sent};
use crate::{bridge::Crossing, call::Call, resolve::One, session::Errand, stop::Stop, upstream::UpstreamFault};
use mcp::Kind;

/// Remembers where a request of a session goes.
pub(super) fn errand(one: &One, call: &Call) -> Option<Errand> {
    let message = call.message().filter(|message| message.kind() == Kind::Request)?;
    one.session.as_ref().zip(message.id()).map(|(session, id)| session.errand(id, &one.server.name))
}

impl Passage<'_> {
    /// Sends the call, and lets go of it where the client has taken it back.
    pub(super) async fn send_until(&self, taken_back: impl Future<Output = ()>) -> Result<Sent, UpstreamFault> {
        let sent = tokio::select! {
            biased;
            sent = self.send() => sent,
            // A bridge lets go by itself, at once and with care for what it holds.
            () = taken_back, if self.one.crossing == Crossing::None => {
                Err(UpstreamFault::Stopped(Stop::taken_back()))
            }
        };
        self.take_back();
        sent
    }

    /// Where the client takes back a call, that call is waited for no longer, now that the server was told: or could not
    /// be, which is no reason to wait.
    fn take_back(&self) {
        let message = self.call.message().filter(|message| message.method() == "notifications/cancelled");
        let id = message.and_then(|message| message.param(&["requestId"]));
        if let (Some(session), Some(id)) = (&self.one.session, id) {
            session.take_back(&self.one.server.name, &String::from_utf8_lossy(id.raw));
        }
    }
}
