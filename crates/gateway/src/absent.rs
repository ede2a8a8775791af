//! Calls that run on although nobody waits for their answer: whose they are, and how many.
//!
//! SPEC: in the legacy era a client that goes away does not end its call. So whoever asks and leaves, again and again,
//! has more under way than its connections carry, and that needs a bound of its own.

use crate::{
    authenticate::Caller,
    call::{Call, Operation},
    pipeline::Line,
    stop::{Stage, Stop},
};
use http::{HeaderValue, header::RETRY_AFTER};
use mcp::{Kind, error::REFUSED_LIMIT};
use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};
use vocab::PrincipalId;

/// Calls of one principal that may run on without a client before it is served again.
pub(crate) const MOST: usize = 128;

/// Whose calls run on.
#[derive(Default)]
pub(crate) struct Absences {
    /// Of all principals: while there are none, which is the rule, nothing is locked.
    all: AtomicUsize,
    of: Mutex<HashMap<PrincipalId, usize>>,
}

impl Absences {
    /// How many calls run on.
    pub(crate) fn count(&self) -> usize {
        self.all.load(Ordering::Acquire)
    }

    fn of(&self, principal: &PrincipalId) -> usize {
        if self.count() == 0 { 0 } else { lock(&self.of).get(principal).copied().unwrap_or_default() }
    }

    fn begin(self: &Arc<Self>, principal: PrincipalId) -> Absence {
        *lock(&self.of).entry(principal.clone()).or_default() += 1;
        self.all.fetch_add(1, Ordering::AcqRel);
        Absence { absences: Arc::clone(self), principal }
    }
}

/// One such call, until it is over.
struct Absence {
    absences: Arc<Absences>,
    principal: PrincipalId,
}

impl Drop for Absence {
    fn drop(&mut self) {
        self.absences.all.fetch_sub(1, Ordering::AcqRel);
        let mut of = lock(&self.absences.of);
        if let Some(count) = of.get_mut(&self.principal) {
            *count -= 1;
            if *count == 0 {
                of.remove(&self.principal);
            }
        }
    }
}

/// Whether somebody waits for the answer of a call. Lives as long as the call.
#[derive(Default)]
pub(crate) struct Presence(Mutex<Standing>);

#[derive(Default)]
enum Standing {
    /// Somebody waits; who, is not known yet.
    #[default]
    Unknown,
    /// Somebody waits.
    Here(Arc<Absences>, PrincipalId),
    /// Nobody waits any more; whose call it is, is not known yet.
    Left,
    /// Nobody waits any more.
    Gone { _absence: Absence },
}

impl Presence {
    /// It is known now whose call it is.
    fn is_of(&self, absences: &Arc<Absences>, principal: &PrincipalId) {
        let mut standing = lock(&self.0);
        *standing = match mem::take(&mut *standing) {
            Standing::Left => Standing::Gone { _absence: absences.begin(principal.clone()) },
            Standing::Unknown => Standing::Here(Arc::clone(absences), principal.clone()),
            known @ (Standing::Here(..) | Standing::Gone { .. }) => known,
        };
    }

    fn leave(&self) {
        let mut standing = lock(&self.0);
        *standing = match mem::take(&mut *standing) {
            Standing::Here(absences, principal) => Standing::Gone { _absence: absences.begin(principal) },
            Standing::Unknown => Standing::Left,
            left @ (Standing::Left | Standing::Gone { .. }) => left,
        };
    }
}

/// Whoever waits, until this is dropped: it is in the answer, and in what waits for it before.
pub(crate) struct Here(Weak<Presence>);

impl Here {
    pub(crate) fn beside(presence: &Arc<Presence>) -> Self {
        Self(Arc::downgrade(presence))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        // A call that is over is nobody's concern.
        if let Some(presence) = self.0.upgrade() {
            presence.leave();
        }
    }
}

impl Line {
    /// Lets a call in unless too many of the same principal run on without a client.
    pub(crate) fn attend(&self, caller: &Caller, call: &Call) -> Result<(), Stop> {
        // Only a call that goes on without its client has a presence. Streams that listen end with it.
        let (Some(presence), Operation::Message(message)) = (&call.presence, &call.operation) else { return Ok(()) };
        let (absences, principal) = (&self.state.absences, caller.principal.id());
        // What takes something back must always come through, as does what ends a session.
        if message.kind() == Kind::Request && absences.of(principal) >= MOST {
            let why = format!("{MOST} calls of yours run on, whose client went away; try again when they have ended");
            return Err(Stop::refused(Stage::Limit, "absent", REFUSED_LIMIT, why)
                .data("retryAfter", 1)
                .header(RETRY_AFTER, HeaderValue::from(1)));
        }
        presence.is_of(absences, principal);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Absences, Here, Presence};
    use std::sync::Arc;
    use vocab::{AgentId, PrincipalId, TenantId};

    fn who(agent: &str) -> PrincipalId {
        PrincipalId { agent: AgentId::new(agent).unwrap(), tenant: TenantId::default_tenant(), user: None }
    }

    #[test]
    fn a_call_counts_from_when_its_client_leaves_until_it_ends() {
        let (absences, ann, bob) = (Arc::new(Absences::default()), who("ann"), who("bob"));
        let call = Arc::new(Presence::default());
        let here = Here::beside(&call);
        call.is_of(&absences, &ann);
        assert_eq!(absences.of(&ann), 0, "somebody waits for it");
        drop(here);
        assert_eq!((absences.of(&ann), absences.of(&bob)), (1, 0));
        // Who left before it was known who it was counts as well.
        let early = Arc::new(Presence::default());
        drop(Here::beside(&early));
        early.is_of(&absences, &ann);
        assert_eq!((absences.of(&ann), absences.count()), (2, 2));
        // A call that is over before its client leaves never counts.
        let over = Arc::new(Presence::default());
        let here = Here::beside(&over);
        over.is_of(&absences, &bob);
        drop(over);
        drop(here);
        assert_eq!(absences.count(), 2);
        drop((call, early));
        assert_eq!((absences.of(&ann), absences.count()), (0, 0));
    }
}
