//! Calls that run on although nobody waits for their answer: whose they are, and how many.
//!
//! SPEC: in the legacy era a client that goes away does not end its call. So whoever asks and leaves, again and again,
//! has more under way than its connections carry, and that needs a bound of its own.

use crate::{
    authenticate::Caller,
    call::{Call, Operation},
    pipeline::Line,
    resolve::Target,
    stop::{About, Stop},
};
use mcp::Kind;
use std::{
    collections::{HashMap, hash_map::Entry},
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
/// So many have room on each server beyond that: neither are a few that hang.
const FEW: usize = 4;
/// With those. Whoever is over it is let in nowhere.
const MOST_OF_ALL: usize = 256;

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
    /// By the one server that they go to; none for those that go to all, or nobody knows where yet.
    on: HashMap<Option<ServerName>, usize>,
}

impl Count {
    fn add(&mut self, server: Option<ServerName>) {
        *self.on.entry(server).or_default() += 1;
    }

    fn take(&mut self, server: Option<ServerName>) {
        if let Entry::Occupied(mut on) = self.on.entry(server) {
            *on.get_mut() = on.get().saturating_sub(1);
            if *on.get() == 0 {
                on.remove();
            }
        }
    }
}

/// What there is no room in.
#[derive(Debug, PartialEq, Eq)]
enum Full {
    /// In so many of all servers.
    All(usize),
    /// In those of this server.
    One(ServerName),
}

impl Absences {
    /// How many calls run on.
    pub(crate) fn count(&self) -> usize {
        self.all.load(Ordering::Acquire)
    }

    fn of(&self, principal: &PrincipalId) -> usize {
        if self.count() == 0 { 0 } else { lock(&self.of).get(principal).map_or(0, |count| count.all) }
    }

    /// Whether one more may begin, on this server or on all of them.
    fn room(&self, principal: &PrincipalId, server: Option<&ServerName>) -> Result<(), Full> {
        if self.count() == 0 {
            return Ok(());
        }
        let of = lock(&self.of);
        let Some(count) = of.get(principal) else { return Ok(()) };
        let server = server.cloned();
        let on = count.on.get(&server).copied().unwrap_or_default();
        match server {
            Some(server) if on >= MOST_OF_ONE => Err(Full::One(server)),
            Some(_) | None if count.all >= MOST && on >= FEW => Err(Full::All(MOST)),
            Some(_) | None => Ok(()),
        }
    }

    fn begin(self: &Arc<Self>, principal: PrincipalId, server: Option<ServerName>) -> Absence {
        let mut of = lock(&self.of);
        let count = of.entry(principal.clone()).or_default();
        count.all += 1;
        count.add(server.clone());
        self.all.fetch_add(1, Ordering::AcqRel);
        Absence { absences: Arc::clone(self), principal, server }
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
            count.take(None);
            count.add(Some(server.clone()));
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
        count.take(self.server.take());
        if count.all == 0 {
            of.remove(&self.principal);
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
        if message.kind() == Kind::Request && absences.of(principal) >= MOST_OF_ALL {
            return Err(refused(&Full::All(MOST_OF_ALL)));
        }
        presence.is_of(absences, principal);
        Ok(())
    }

    /// The same for the one server that a call goes to, or for all, once that is known.
    pub(crate) fn attend_at(&self, caller: &Caller, target: &Target, call: &Call) -> Result<(), Stop> {
        let (Some(presence), Operation::Message(message)) = (&call.presence, &call.operation) else { return Ok(()) };
        let one = target.one();
        let server = one.map(|one| &one.server.name);
        if message.kind() == Kind::Request {
            let room = self.state.absences.room(caller.principal.id(), server);
            let about = one.map(|one| About {
                server: one.server.name.clone(),
                name: Arc::clone(&one.resource.id.name),
                action: one.action,
            });
            room.map_err(|full| refused(&full).about(about))?;
        }
        if let Some(server) = server {
            presence.goes_to(server);
        }
        Ok(())
    }
}

fn refused(full: &Full) -> Stop {
    let which = match full {
        Full::All(most) => format!("{most} calls of yours"),
        Full::One(server) => format!("{MOST_OF_ONE} calls of yours on server `{server}`"),
    };
    let why = format!("{which} run on, whose client went away; try again when they have ended");
    Stop::full("absent", why)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Absences, FEW, Full, Here, MOST, MOST_OF_ONE, Presence};
    use std::sync::Arc;
    use vocab::{AgentId, PrincipalId, ServerName, TenantId};

    impl Absences {
        fn on(&self, principal: &PrincipalId, server: &ServerName) -> usize {
            let server = Some(server.clone());
            super::lock(&self.of).get(principal).and_then(|count| count.on.get(&server).copied()).unwrap_or_default()
        }
    }

    fn who(agent: &str) -> PrincipalId {
        PrincipalId {
            agent: AgentId::new(agent).unwrap(),
            tenant: TenantId::default_tenant(),
            user: None,
            issuer: None,
        }
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
    #[test]
    fn servers_that_hang_leave_room_on_the_others() {
        let (absences, ann, bob) = (Arc::new(Absences::default()), who("ann"), who("bob"));
        let [hangs, slow, swift] = ["hangs", "slow", "swift"].map(|name| ServerName::new(name).unwrap());
        let runs_on = |server: Option<&ServerName>, count: usize| {
            (0..count).map(|_| absences.begin(ann.clone(), server.cloned())).collect::<Vec<_>>()
        };
        let mut all = runs_on(Some(&hangs), MOST_OF_ONE);
        assert_eq!(absences.room(&ann, Some(&hangs)), Err(Full::One(hangs.clone())));
        assert_eq!(absences.room(&ann, None), Ok(()));
        all.extend(runs_on(Some(&slow), FEW));
        all.extend(runs_on(None, MOST - MOST_OF_ONE - FEW - 1));
        assert_eq!(absences.room(&ann, Some(&slow)), Ok(()), "there is one place left of all");
        all.extend(runs_on(Some(&slow), 1));
        for server in [Some(&slow), None] {
            assert_eq!(absences.room(&ann, server), Err(Full::All(MOST)), "it has had its share, {server:?}");
        }
        assert_eq!(absences.room(&bob, Some(&slow)), Ok(()));
        let few = runs_on(Some(&swift), FEW - 1);
        assert_eq!(absences.room(&ann, Some(&swift)), Ok(()));
        let last = runs_on(Some(&swift), 1);
        assert_eq!(absences.room(&ann, Some(&swift)), Err(Full::All(MOST)));
        drop((few, last));
        assert_eq!(absences.room(&ann, Some(&swift)), Ok(()));
        drop(all);
        assert!(super::lock(&absences.of).is_empty());
    }
}
