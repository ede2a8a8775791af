//! Refusals of what never comes to the line: what cannot be read, or whose head does not fit. Each is on record all the
//! same, by name where the credential in the head shows whose it is. What is answered is not about the credential.

use super::receive::modern_version;
use crate::{
    authenticate::Caller,
    bridge::Crossing,
    call::{Call, Operation, Route},
    pipeline::Line,
    reply::Reply,
    respond::{self, Asked},
    stop::{Stage, Stop},
    trail::Trail,
};
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use identity::CredentialId;
use mcp::{Era, Revision, header::HeaderFault};
use std::net::IpAddr;

/// A request of which nobody reads more than its head.
pub(super) fn unread(route: Route, headers: &HeaderMap, peer: IpAddr) -> Call {
    let era = if modern_version(headers) { Era::Modern } else { Era::Legacy };
    Call::new(route, Operation::Unread, era, headers.clone(), peer)
}

/// Refuses what nobody has looked at. Boxed, as below: what is read pays nothing for what is not.
pub(super) fn refuse(line: &Line, call: Call, stop: Stop) -> BoxFuture<'_, Reply> {
    Box::pin(async move {
        let mut refusal = Refusal::of(line, call);
        // Whose credential is refused was looked at before.
        if stop.stage != Stage::Authenticate {
            refusal.look().await;
        }
        refusal.say(stop)
    })
}

/// Refuses somebody who is known.
pub(super) fn refuse_known(line: &Line, call: Call, caller: Caller, stop: Stop) -> Reply {
    let mut refusal = Refusal::of(line, call);
    refusal.shown = Some(Ok(caller));
    refusal.say(stop)
}

/// Refuses what headers say, whoever says it. With it goes what a client needs to try again.
pub(super) fn misfit(line: &Line, call: Call, known: Option<Caller>, fault: HeaderFault) -> BoxFuture<'_, Reply> {
    Box::pin(async move {
        let mut refusal = Refusal::of(line, call);
        match known {
            Some(caller) => refusal.shown = Some(Ok(caller)),
            None => refusal.look().await,
        }
        let stop =
            Stop::refused(Stage::Receive, "header", fault.code(), fault.to_string()).status(StatusCode::BAD_REQUEST);
        let stop = match fault.requested() {
            Some(requested) => stop.data("supported", refusal.supported()).data("requested", requested),
            None => stop,
        };
        refusal.say(stop)
    })
}

/// A refusal that is not said yet.
struct Refusal<'l> {
    line: &'l Line,
    call: Call,
    trail: Trail,
    /// What the head shows of its sender. None: nobody has looked.
    shown: Option<Result<Caller, Stop>>,
}

impl<'l> Refusal<'l> {
    fn of(line: &'l Line, call: Call) -> Self {
        let trail = Trail::open(&call, &line.state);
        Self { line, call, trail, shown: None }
    }

    /// Looks at the credential in the head, as the line would have done.
    async fn look(&mut self) {
        self.shown = Some(self.line.authenticate(&self.call, self.trail.arrived()).await);
    }

    /// The revisions that are spoken at the door, newest first. SECURITY: which of them a server has is told to whoever may
    /// see it; of any other door all are named, whether there is something behind it or not.
    fn supported(&self) -> Vec<&'static str> {
        let server = match (&self.call.route, &self.shown) {
            (Route::One(name), Some(Ok(caller))) => self.line.door(caller, name).ok(),
            _ => None,
        };
        let is_spoken =
            |revision: &Revision| server.is_none_or(|server| Crossing::to(revision.era(), server).is_some());
        let mut supported: Vec<_> = Revision::ALL.into_iter().rev().filter(is_spoken).collect();
        // SPEC: the list is that of `server/discover`, where the request is one of that era and the door speaks it.
        if self.call.message().is_some_and(|message| message.era() == Era::Modern) {
            let modern = |revision: &Revision| revision.era() == Era::Modern;
            if supported.iter().any(modern) {
                supported.retain(modern);
            }
        }
        supported.into_iter().map(Revision::as_str).collect()
    }

    /// Says no, and closes the record.
    fn say(mut self, mut stop: Stop) -> Reply {
        match self.shown {
            // Who is let in without a credential has shown nothing, and says nothing either that could be read.
            Some(Ok(caller))
                if self.call.message().is_some() || *caller.principal.credential_id() != CredentialId::Anonymous =>
            {
                // Counted as every request is: the log grows no faster by what cannot be read.
                if let Err(limited) = self.line.attempt(&caller, self.trail.arrived()) {
                    stop = limited;
                }
                let _ = self.trail.note(Ok(caller));
            }
            // Whom a credential shows though it lets nobody in. Why it does not, only the log may know.
            Some(Err(refused)) => {
                stop.proven.clone_from(&refused.proven);
                stop.detail = refused.detail.clone().or(stop.detail.take());
            }
            Some(Ok(_)) | None => {}
        }
        respond::refuse(&stop, self.trail, &Asked::of(&self.call))
    }
}
