//! Processes, and streams of 2024-11-05, that may ask in a session: those that it uses, and those that it has left for others
//! while calls under way there go on.

use super::{Leg, Session, Way, lock};
use crate::{origin::Origin, upstream::pipe::Pipe};
use std::sync::{Arc, Weak};
use vocab::ServerName;

/// One of them. It lives no longer for being known here.
pub(super) struct Asker {
    origin: Origin,
    /// The target that it is, or was.
    fingerprint: u64,
    pipe: Weak<Pipe>,
}

impl Session {
    /// Remembers whoever may ask over a leg.
    pub(super) fn may_be_asked_over(&self, leg: &Leg) {
        let Way::Pipe(pipe) = &leg.way else { return };
        let mut askers = lock(&self.askers);
        askers.retain(|known| known.origin != leg.origin && known.pipe.strong_count() > 0);
        let (origin, fingerprint) = (leg.origin, leg.fingerprint);
        askers.push(Asker { origin, fingerprint, pipe: Arc::downgrade(pipe) });
    }

    /// Whoever asks as `origin`, with its target, if it lives.
    pub(crate) fn living(&self, origin: Origin) -> Option<(Arc<Pipe>, u64)> {
        let askers = lock(&self.askers);
        let asker = askers.iter().find(|asker| asker.origin == origin)?;
        let pipe = asker.pipe.upgrade().filter(|pipe| pipe.is_alive())?;
        Some((pipe, asker.fingerprint))
    }

    /// Whether the session still uses whoever asked. `None`: whoever asked waits here.
    pub(crate) fn still_uses(&self, server: &ServerName, origin: Option<Origin>) -> bool {
        origin.is_none_or(|origin| self.is_served_by(server) && self.origin_of(server) == Some(origin))
    }
}
