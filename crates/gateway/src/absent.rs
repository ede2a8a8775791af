//! Calls that run on although nobody waits for their answer: whose they are, and how many.
//!
//! SPEC: in the legacy era a client that goes away does not end its call. So whoever asks and leaves, again and again,
//! has more under way than its connections carry, and that needs a bound of its own.

use crate::{
    authenticate::Caller,
    call::{Call, Operation},
    pipeline::Line,
    resolve::Target,
    stop::{About, Stage, Stop},
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
use vocab::{PrincipalId, ServerName};

/// Calls of one principal that may run on without a client before it is served again.
const MOST: usize = 128;
/// The same on one server: one that hangs is not to use up what there is for all of them.
const MOST_OF_ONE: usize = 32;

/// Whose calls run on, and where.
#[derive(Default)]
pub(crate) struct Absences {
    /// Of all principals: while there are none, which is the rule, nothing is locked.
    all: AtomicUsize,
    of: Mutex<HashMap<PrincipalId, Count>>,
}

/// The calls of one principal.
#[derive(Default)]
struct Count {
    all: usize,
    /// Those that go to one server.
    on: HashMap<ServerName, usize>,
}

impl Absences {
    /// How many calls run on.
    pub(crate) fn count(&self) -> usize {
        self.all.load(Ordering::Acquire)
    }

    fn of(&self, principal: &PrincipalId) -> usize {
        if self.count() == 0 { 0 } else { lock(&self.of).get(principal).map_or(0, |count| count.all) }
    }

    fn on(&self, principal: &PrincipalId, server: &ServerName) -> usize {
        if self.count() == 0 {
            return 0;
        }
        lock(&self.of).get(principal).and_then(|count| count.on.get(server).copied()).unwrap_or_default()
    }

    fn begin(self: &Arc<Self>, principal: PrincipalId, server: Option<ServerName>) -> Absence {
        lock(&self.of).entry(principal.clone()).or_default().all += 1;
        self.all.fetch_add(1, Ordering::AcqRel);
        let mut absence = Absence { absences: Arc::clone(self), principal, server: None };
        if let Some(server) = server {
            absence.goes_to(server);
        }
        absence
    }
}

/// One such call, until it is over.
struct Absence {
    absences: Arc<Absences>,
    principal: PrincipalId,
    server: Option<ServerName>,
}

impl Absence {
    /// It is known now where it goes. Once.
    fn goes_to(&mut self, server: ServerName) {
        if let Some(count) = lock(&self.absences.of).get_mut(&self.principal)
            && self.server.is_none()
        {
            *count.on.entry(server.clone()).or_default() += 1;
            self.server = Some(server);
        }
    }
}

impl Drop for Absence {
    fn drop(&mut self) {
        self.absences.all.fetch_sub(1, Ordering::AcqRel);
        let mut of = lock(&self.absences.of);
        let Some(count) = of.get_mut(&self.principal) else { return };
        count.all = count.all.saturating_sub(1);
        if count.all == 0 {
            of.remove(&self.principal);
            return;
        }
        if let Some(server) = &self.server
            && let Some(on) = count.on.get_mut(server)
        {
            *on = on.saturating_sub(1);
            if *on == 0 {
                count.on.remove(server);
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
    /// Somebody waits for what goes to this server, if to one and that is known yet.
    Here(Arc<Absences>, PrincipalId, Option<ServerName>),
    /// Nobody waits any more; whose call it is, is not known yet.
    Left,
    /// Nobody waits any more.
    Gone(Absence),
}

impl Presence {
    /// It is known now whose call it is.
    fn is_of(&self, absences: &Arc<Absences>, principal: &PrincipalId) {
        let mut standing = lock(&self.0);
        *standing = match mem::take(&mut *standing) {
            Standing::Left => Standing::Gone(absences.begin(principal.clone(), None)),
            Standing::Unknown => Standing::Here(Arc::clone(absences), principal.clone(), None),
            known @ (Standing::Here(..) | Standing::Gone(_)) => known,
        };
    }

    /// It is known now which server it goes to.
    fn goes_to(&self, server: &ServerName) {
        match &mut *lock(&self.0) {
            Standing::Here(_, _, to) => *to = Some(server.clone()),
            Standing::Gone(absence) => absence.goes_to(server.clone()),
            Standing::Unknown | Standing::Left => {}
        }
    }

    fn leave(&self) {
        let mut standing = lock(&self.0);
        *standing = match mem::take(&mut *standing) {
            Standing::Here(absences, principal, server) => Standing::Gone(absences.begin(principal, server)),
            Standing::Unknown => Standing::Left,
            left @ (Standing::Left | Standing::Gone(_)) => left,
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
            return Err(refused(why));
        }
        presence.is_of(absences, principal);
        Ok(())
    }

    /// The same for the one server that a call goes to, once that is known.
    pub(crate) fn attend_at(&self, caller: &Caller, target: &Target, call: &Call) -> Result<(), Stop> {
        let (Some(presence), Operation::Message(message), Some(one)) = (&call.presence, &call.operation, target.one())
        else {
            return Ok(());
        };
        let (server, principal) = (&one.server.name, caller.principal.id());
        if message.kind() == Kind::Request && self.state.absences.on(principal, server) >= MOST_OF_ONE {
            let why = format!(
                "{MOST_OF_ONE} calls of yours on server `{server}` run on, whose client went away; try again when they have \
                 ended"
            );
            let about = About { server: server.clone(), name: Arc::clone(&one.resource.id.name), action: one.action };
            return Err(refused(why).about(Some(about)));
        }
        presence.goes_to(server);
        Ok(())
    }
}

fn refused(why: String) -> Stop {
    Stop::refused(Stage::Limit, "absent", REFUSED_LIMIT, why)
        .data("retryAfter", 1)
        .header(RETRY_AFTER, HeaderValue::from(1))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Absences, Here, Presence};
    use std::sync::Arc;
    use vocab::{AgentId, PrincipalId, ServerName, TenantId};

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

    #[test]
    fn a_call_counts_on_its_server_whenever_that_is_known() {
        let (absences, ann, files) = (Arc::new(Absences::default()), who("ann"), ServerName::new("files").unwrap());
        let call = || {
            let call = Arc::new(Presence::default());
            call.is_of(&absences, &ann);
            (Here::beside(&call), call)
        };
        let ((here, known), (other, late), (third, nowhere)) = (call(), call(), call());
        known.goes_to(&files);
        drop(here);
        drop(other);
        assert_eq!((absences.of(&ann), absences.on(&ann, &files)), (2, 1));
        late.goes_to(&files);
        drop(third);
        assert_eq!((absences.of(&ann), absences.on(&ann, &files)), (3, 2));
        drop((known, late));
        assert_eq!((absences.of(&ann), absences.on(&ann, &files)), (1, 0), "it waits for several servers, or for none");
        drop(nowhere);
        assert_eq!((absences.count(), absences.on(&ann, &files)), (0, 0));
    }
}
