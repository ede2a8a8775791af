//! Sessions of ours with legacy servers, for modern clients, who have none: opened when they are needed, shared by the
//! calls of one principal whose clients introduce themselves alike, and ended when nobody uses them.
//!
//! A server does not say in the course of which call it asks. Where a client can be asked, calls that it makes at the same time
//! have therefore a session each, as long as there is room for them.
//!
//! SECURITY: two principals never share one. Servers keep what they like in a session.

mod room;

use super::audience::{Audience, Stream};
use crate::{
    authenticate::Caller,
    server::Carriage,
    session::{Leg, Way, to_its_end},
    upstream::{
        UpstreamFault,
        exchange::{self, Hop},
        pipe::{Heard, Word},
        wish::Wishes,
    },
};
use bytes::Bytes;
use identity::Principal;
use mcp::{
    Kind, Message,
    bridge::{Client, LogLevel, downward as translate},
};
use room::{at, room, which};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use vocab::{Digest, PrincipalId, ServerName};

/// How long a session beside the first one of a client is kept when nobody uses it.
const IDLE_BESIDE: Duration = Duration::from_mins(5);
/// So many sessions in a row may turn out to be lost where a server is asked for its listening stream.
pub(super) const LOST: u32 = 2;

/// Whose session with whom: server, principal, what clients say of themselves, and which of theirs it is. All but calls are in
/// the first one.
type Key = (ServerName, PrincipalId, Digest, u8);

/// A session that is to be ended, and on which server.
type Leaving = (ServerName, Arc<Leg>);

/// Room for them, by whose they are.
type Slots = BTreeMap<Key, Arc<Slot>>;

/// All of them. In this order the sessions of a principal with a server lie side by side.
#[derive(Default)]
pub(crate) struct Legs(Mutex<Slots>);

/// Room for one session.
struct Slot {
    /// One opens it, the others wait.
    opening: Arc<tokio::sync::Mutex<()>>,
    link: Mutex<Option<Arc<Link>>>,
    /// When it was last asked for, in ticks.
    used: AtomicU64,
    /// Calls under way in it, or waiting for their client.
    calls: Arc<AtomicUsize>,
    /// How many sessions in a row turned out to be lost where their stream was asked for.
    lost: Arc<AtomicU32>,
}

/// A call has its turn in a session until this is dropped.
pub(super) struct Turn(Arc<AtomicUsize>);

impl Turn {
    fn take(slot: &Slot) -> Self {
        slot.calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&slot.calls))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A session with a legacy server.
pub(crate) struct Link {
    pub(crate) leg: Arc<Leg>,
    /// What the server answered to `initialize`.
    pub(crate) answer: Message,
    key: Key,
    next: AtomicU64,
    /// What the server is to tell: those of all who share its process.
    pub(super) wishes: Arc<Wishes>,
    /// The credential it was last used with.
    holder: Arc<Mutex<Principal>>,
    used: AtomicU64,
    /// Who hears what the server says beside its answers.
    pub(super) audience: Arc<Audience>,
    /// How many sessions in a row turned out to be lost where their stream was asked for.
    pub(super) lost: Arc<AtomicU32>,
    ended: watch::Sender<bool>,
}

impl Link {
    /// A number that no other request of the session has.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// How long nobody has asked for it, in ticks.
    pub(crate) fn idle(&self, now: u64) -> u64 {
        now.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// How long nobody need ask for it until it is over, in ticks, where that is so long for others.
    pub(crate) fn patience(&self, idle: u64) -> u64 {
        if self.is_first() { idle } else { idle.min(u64::try_from(IDLE_BESIDE.as_micros()).unwrap_or(u64::MAX)) }
    }

    /// Whether it is its client's first one, in which all is done that is no call.
    const fn is_first(&self) -> bool {
        self.key.3 == 0
    }

    /// The server knows it no more, or whoever used it may not any longer.
    fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Waits until it is over, or nobody has it any more.
    pub(super) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.subscribe();
        async move {
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// Whether it is over.
    pub(super) fn is_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Whether the server tells it from other sessions.
    ///
    /// SECURITY: what one that does not says beside its answers may be about anybody's call.
    pub(super) fn is_told_apart(&self) -> bool {
        matches!(self.leg.way, Way::Http(Some(_)))
    }

    /// The credential it was last used with.
    pub(crate) fn holder(&self) -> Principal {
        lock(&self.holder).clone()
    }

    /// The same for whoever has no hand in the session, looked at whenever it is asked for.
    pub(super) fn watch_holder(&self) -> impl Fn() -> Principal + Send + Sync + use<> {
        let holder = Arc::clone(&self.holder);
        move || lock(&holder).clone()
    }

    /// Whether the server said that it has this.
    pub(crate) fn can(&self, path: &[&str]) -> bool {
        let path: Vec<&str> = std::iter::once("capabilities").chain(path.iter().copied()).collect();
        self.answer.outcome_member(&path).is_some_and(|member| !matches!(member.raw, b"false" | b"null"))
    }

    /// Sees to it that the server sends log messages from this level on.
    pub(crate) async fn hear_from(&self, hop: &Hop<'_>, level: LogLevel) -> Result<(), UpstreamFault> {
        if !self.can(&["logging"]) {
            return Ok(());
        }
        let deadline = hop.server.deadline;
        let locking = tokio::time::timeout(deadline, self.wishes.level.lock());
        let mut least = locking.await.map_err(|_| UpstreamFault::Timeout(deadline))?;
        if least.is_some_and(|least| least <= level) {
            return Ok(());
        }
        let request = translate::set_level(&self.number().to_string(), level);
        let asked = hop.ask(Some(&self.leg), &exchange::one(request, &hop.limits)?).await;
        // A server that never answers it is not waited for by every call.
        if matches!(asked, Ok(_) | Err(UpstreamFault::Timeout(_))) {
            *least = Some(level);
        }
        asked.map(drop)
    }

    fn touch(&self, now: u64, caller: &Caller) {
        self.used.store(now, Ordering::Relaxed);
        let mut holder = lock(&self.holder);
        if holder.credential_id() != caller.principal.credential_id() {
            *holder = caller.principal.clone();
        }
    }

    /// Whether it leads where a new one would.
    fn fits(&self, hop: &Hop<'_>) -> bool {
        let fits = match &self.leg.way {
            Way::Http(_) => true,
            Way::Pipe(pipe) => hop.fits(pipe),
        };
        fits && !self.is_ended() && self.leg.fingerprint == hop.server.fingerprint
    }
}

impl Slot {
    fn fitting(&self, hop: &Hop<'_>) -> Option<Arc<Link>> {
        lock(&self.link).clone().filter(|link| link.fits(hop))
    }

    /// Whether this is its session.
    fn holds(&self, link: &Weak<Link>) -> bool {
        lock(&self.link).as_ref().is_some_and(|kept| std::ptr::eq(Arc::as_ptr(kept), link.as_ptr()))
    }

    /// Whether a call has it.
    fn is_taken(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    /// Nobody has a hand in it.
    fn is_free(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && lock(&self.link).as_ref().is_none_or(|link| Arc::strong_count(link) == 1)
    }
}

impl Legs {
    /// The session in which this client of the caller speaks to a server.
    pub(crate) async fn link(
        &self,
        hop: &Hop<'_>,
        caller: &Caller,
        client: &Client,
    ) -> Result<Arc<Link>, UpstreamFault> {
        let (key, now) = (first(hop, caller, client), hop.state.clock.ticks());
        let (slot, evicted) = room(&mut lock(&self.0), &key, now)?;
        hop.state.part(evicted.into_iter().collect());
        link_of(hop, caller, client, (key, slot)).await
    }

    /// The session for a call in whose course the client may be asked. There is no other such call in it, unless there are too
    /// many at the same time, or the client can be asked nothing.
    pub(super) async fn link_for_call(
        &self,
        hop: &Hop<'_>,
        caller: &Caller,
        client: &Client,
    ) -> Result<(Arc<Link>, Turn), UpstreamFault> {
        let key = first(hop, caller, client);
        if client.can_be_asked() && !matches!(hop.server.carriage(), Carriage::Pipe { shared: true }) {
            let (place, turn) = self.take_turn(hop, &key)?;
            let is_first = place.0.3 == 0;
            match link_of(hop, caller, client, place).await {
                Ok(link) => return Ok((link, turn)),
                Err(fault) if is_first => return Err(fault),
                // Nothing was sent yet, and the first one may do.
                Err(fault) => {
                    tracing::debug!(server = %hop.server.name, %fault, "calls at the same time share a session");
                }
            }
        }
        let now = hop.state.clock.ticks();
        let (slot, evicted) = room(&mut lock(&self.0), &key, now)?;
        hop.state.part(evicted.into_iter().collect());
        let turn = Turn::take(&slot);
        Ok((link_of(hop, caller, client, (key, slot)).await?, turn))
    }

    /// The room for a call's session, and its turn there.
    fn take_turn(&self, hop: &Hop<'_>, first: &Key) -> Result<((Key, Arc<Slot>), Turn), UpstreamFault> {
        let now = hop.state.clock.ticks();
        let mut slots = lock(&self.0);
        let (number, made_room) = which(&mut slots, hop, first);
        let key = at(first, number);
        let (slot, evicted) = room(&mut slots, &key, now)?;
        let turn = Turn::take(&slot);
        drop(slots);
        hop.state.part(made_room.into_iter().chain(evicted).collect());
        Ok(((key, slot), turn))
    }

    /// Tells those who listen in a session, or in the first one of its client. `false` if there are none.
    pub(super) fn announce(&self, link: &Link, text: &Bytes) -> bool {
        // Both are told.
        let here = link.audience.announce(text);
        self.tell_first(link, text) || here
    }

    /// The same for those who listen in the first one alone, where this is another.
    pub(super) fn tell_first(&self, link: &Link, text: &Bytes) -> bool {
        if link.is_first() {
            return false;
        }
        let slot = lock(&self.0).get(&at(&link.key, 0)).map(Arc::clone);
        let first = slot.and_then(|slot| lock(&slot.link).clone());
        first.is_some_and(|first| first.audience.announce(text))
    }

    /// Forgets a session that the server does not know any more. Whoever listens in it learns that it is over.
    pub(crate) fn forget(&self, link: &Arc<Link>) {
        if let Some(slot) = lock(&self.0).get(&link.key) {
            lock(&slot.link).take_if(|kept| Arc::ptr_eq(kept, link));
        }
        link.end();
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.0).values().filter(|slot| lock(&slot.link).is_some()).count()
    }

    /// Takes out those that nobody uses and `keep` does not hold for, and hands them back. Whether it holds takes looks
    /// at keys and policies: nobody who asks for a session waits for those.
    pub(crate) fn sweep(&self, keep: impl Fn(&ServerName, &Link) -> bool) -> Vec<Leaving> {
        // Not held while they are judged: that would make them look used.
        let mut idle: Vec<(Key, Weak<Link>)> = Vec::new();
        lock(&self.0).retain(|key, slot| {
            if !slot.is_free() {
                return true;
            }
            let link = lock(&slot.link);
            idle.extend(link.as_ref().map(|link| (key.clone(), Arc::downgrade(link))));
            link.is_some()
        });
        idle.retain(|((server, ..), link)| link.upgrade().is_some_and(|link| !keep(server, &link)));
        let mut slots = lock(&self.0);
        let mut over = Vec::new();
        for (key, link) in idle {
            // Somebody may have taken it up since.
            let is_free = slots.get(&key).is_some_and(|slot| slot.is_free() && slot.holds(&link));
            if is_free && let Some(link) = link.upgrade() {
                slots.remove(&key);
                over.push((key.0, Arc::clone(&link.leg)));
            }
        }
        over
    }

    /// Lets go of those that lead to a server as it was once. Whoever uses one goes on with it, and nobody else will.
    pub(crate) fn let_go(&self, is_current: impl Fn(&ServerName, &Leg) -> bool) {
        for ((server, ..), slot) in lock(&self.0).iter() {
            drop(lock(&slot.link).take_if(|link| !is_current(server, &link.leg)));
        }
    }
}

/// The session that there is room for, which is opened where there is none that leads to the server as it is.
async fn link_of(
    hop: &Hop<'_>,
    caller: &Caller,
    client: &Client,
    (key, slot): (Key, Arc<Slot>),
) -> Result<Arc<Link>, UpstreamFault> {
    let now = hop.state.clock.ticks();
    if let Some(link) = slot.fitting(hop) {
        link.touch(now, caller);
        return Ok(link);
    }
    let one = Arc::clone(&slot.opening).lock_owned().await;
    if let Some(link) = slot.fitting(hop) {
        link.touch(now, caller);
        return Ok(link);
    }
    let (kept, caller, client) = (hop.kept(), caller.clone(), client.clone());
    // A client that goes away meanwhile leaves a session that the next one uses.
    to_its_end(async move {
        let _one = one;
        let link = open(&kept.hop(), &caller, &client, key, now, &slot.lost).await?;
        if slot.lost.load(Ordering::Relaxed) >= LOST {
            // Sessions do not get lost that fast: the server has no such stream, and says so in words of its own.
            slot.lost.store(0, Ordering::Relaxed);
            link.audience.note(Stream::Renounced);
        }
        *lock(&slot.link) = Some(Arc::clone(&link));
        Ok(link)
    })
    .await
}

/// A client's first session.
fn first(hop: &Hop<'_>, caller: &Caller, client: &Client) -> Key {
    (hop.server.name.clone(), caller.principal.id().clone(), Digest::of(client.key().as_bytes()), 0)
}

/// Introduces the client to the server.
async fn open(
    hop: &Hop<'_>,
    caller: &Caller,
    client: &Client,
    key: Key,
    now: u64,
    lost: &Arc<AtomicU32>,
) -> Result<Arc<Link>, UpstreamFault> {
    let pipe = match hop.server.carriage() {
        Carriage::Pipe { shared: true } => Some(hop.state.shared_pipe(hop).await?),
        Carriage::Pipe { shared: false } => Some(hop.start(Some(caller.principal.id())).await?),
        Carriage::Requests => None,
    };
    let wishes = pipe.as_ref().map(|pipe| Arc::clone(pipe.wishes())).unwrap_or_default();
    let introduction = exchange::one(translate::initialize("0", client), &hop.limits)?;
    let (leg, answer) = hop.open(&introduction, pipe).await?;
    if let Err(fault) = translate::negotiated(&answer) {
        hop.state.part(vec![(hop.server.name.clone(), Arc::new(leg))]);
        return Err(fault.into());
    }
    let link = Arc::new(Link {
        leg: Arc::new(leg),
        answer,
        key,
        next: AtomicU64::new(1),
        wishes,
        holder: Arc::new(Mutex::new(caller.principal.clone())),
        used: AtomicU64::new(now),
        audience: Arc::default(),
        lost: Arc::clone(lost),
        ended: watch::Sender::new(false),
    });
    if let Way::Pipe(pipe) = &link.leg.way {
        let listener = Arc::downgrade(&link);
        let (limits, state) = (hop.limits, Arc::downgrade(hop.state));
        pipe.hear(move |word| {
            let Some(link) = listener.upgrade() else { return Heard::Gone };
            let heard = match word {
                Word::Said(text) => {
                    let message = exchange::one(text.clone(), &limits);
                    let is_news = message.is_ok_and(|message| message.kind() == Kind::Notification);
                    is_news && state.upgrade().is_some_and(|state| state.legs.announce(&link, &text))
                }
                // Whoever listens looks whether the process is alive.
                Word::Nothing | Word::Over => false,
            };
            if heard { Heard::Taken } else { Heard::Missed }
        });
    }
    Ok(link)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
