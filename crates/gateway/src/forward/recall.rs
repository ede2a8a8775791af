//! Requests of a session that their client may take back, and what it takes back.

use super::{Passage, Sent};
use crate::{
    bridge::Crossing,
    call::Call,
    resolve::One,
    session::{Errand, Session, taken_back},
    stop::Stop,
    upstream::{Arrival, UpstreamFault},
};
use http::StatusCode;
use mcp::Kind;
use std::{borrow::Cow, pin::pin, sync::Arc};

/// Remembers where a request of a session goes.
pub(super) fn errand(one: &One, call: &Call) -> Option<Errand> {
    let message = call.message().filter(|message| message.kind() == Kind::Request)?;
    let (session, id) = one.session.as_ref().zip(message.id())?;
    Some(session.errand(id, message.progress_token(), &one.server.name))
}

/// The request of its session that a call takes back, by the client's id.
fn named<'a>(one: &'a One, call: &'a Call) -> Option<(&'a Arc<Session>, Cow<'a, str>)> {
    let message = call.message().filter(|message| message.method() == "notifications/cancelled")?;
    let (session, id) = one.session.as_ref().zip(message.param(&["requestId"]))?;
    Some((session, String::from_utf8_lossy(id.raw)))
}

/// Whether a call takes back one that is under way on its server, and is the first to do so.
pub(crate) fn takes_back(one: &One, call: &Call) -> bool {
    named(one, call).is_some_and(|(session, id)| session.takes_back(&one.server.name, &id))
}

/// Whether a server ended a call without a word. SPEC: one that was told of it owes no answer to a call that was taken back.
fn is_silent(sent: &Result<Sent, UpstreamFault>) -> bool {
    match sent {
        Ok((Arrival::Bare { status, .. }, _)) => status.is_success(),
        Err(fault) => matches!(fault, UpstreamFault::Down(_) | UpstreamFault::Cut(_)),
        Ok(_) => false,
    }
}

impl Passage<'_> {
    /// Sends the call, and lets go of it where the client has taken it back.
    pub(super) async fn send_until(&self, errand: Option<&Errand>) -> Result<Sent, UpstreamFault> {
        if let Some(session) = self.take_back()
            && self.one.crossing == Crossing::None
            && self.hop().leg_of(session).is_none()
        {
            // The server has no session in which it could know the call, and none is opened to tell it.
            return Ok((Arrival::bare(StatusCode::ACCEPTED), None));
        }
        let (sending, taken_back) = (pin!(self.send()), pin!(taken_back(errand)));
        tokio::select! {
            biased;
            sent = sending => match errand {
                Some(errand) if is_silent(&sent) && errand.is_taken_back() => {
                    Err(UpstreamFault::Stopped(Stop::taken_back()))
                }
                _ => sent,
            },
            // A bridge lets go by itself, at once and with care for what it holds.
            () = taken_back, if self.one.crossing == Crossing::None => {
                Err(UpstreamFault::Stopped(Stop::taken_back()))
            }
        }
    }

    /// Where the client takes back a call of its session, that call is not waited for much longer. Nor is the server's word
    /// that it was told: one that hangs does not give it.
    fn take_back(&self) -> Option<&Arc<Session>> {
        let (session, id) = named(self.one, self.call)?;
        session.take_back(&self.one.server.name, &id);
        Some(session)
    }
}
