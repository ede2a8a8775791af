//! Sessions of ours with legacy servers, for modern clients, who have none: opened when they are needed, shared by the
//! calls of one principal whose clients introduce themselves alike, and ended when nobody uses them.
//!
//! SECURITY: two principals never share one. Servers keep what they like in a session.

use super::audience::{Audience, Stream};
use crate::{
    authenticate::Caller,
    server::Carriage,
    session::{Leg, Way, to_its_end},
    upstream::{
        UpstreamFault,
        exchange::{self, Hop},
        pipe::{Heard, Word},
        turn::{Turn, Turns},
        wish::Wishes,
    },
};
use identity::Principal;
use mcp::{
    Kind, Message,
    bridge::{self, Client, LogLevel, downward as translate},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use vocab::{Digest, PrincipalId, ServerName};

/// Sessions in all. Idle ones take a few KiB each, and processes have a bound of their own.
const MOST: usize = 16_384;
/// Sessions of one principal with one server: so many clients of its can differ in what they say of themselves.
const MOST_ALIKE: usize = 8;
/// So many sessions in a row may turn out to be lost where a server is asked for its listening stream.
pub(super) const LOST: u32 = 2;

/// Whose session with whom: server, principal, and what clients say of themselves.
type Key = (ServerName, PrincipalId, Digest);

/// A session that is to be ended, and on which server.
type Leaving = (ServerName, Arc<Leg>);

/// All of them. In this order the sessions of a principal with a server lie side by side.
#[derive(Default)]
pub(crate) struct Legs(Mutex<BTreeMap<Key, Arc<Slot>>>);

/// Room for one session.
struct Slot {
    /// One opens it, the others wait.
    opening: Arc<tokio::sync::Mutex<()>>,
    link: Mutex<Option<Arc<Link>>>,
    /// When it was last asked for, in ticks.
    used: AtomicU64,
    /// How many sessions in a row turned out to be lost where their stream was asked for.
    lost: Arc<AtomicU32>,
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

    /// Waits until a request may be sent, where the server may ask in its course without saying so.
    pub(super) async fn turn(&self, request: &Message, deadline: Duration) -> Result<Option<Turn>, UpstreamFault> {
        let Some(what) = self.may_ask_for(request) else { return Ok(None) };
        self.audience.turns.enter(what, deadline).await.map(Some)
    }

    /// Waits until such a request may go on whose client has answered.
    pub(super) async fn turn_again(
        &self,
        request: &Message,
        deadline: Duration,
    ) -> Result<Option<Turn>, UpstreamFault> {
        let Some(what) = self.may_ask_for(request) else { return Ok(None) };
        self.audience.turns.enter_again(what, deadline).await.map(Some)
    }

    /// What it is that is asked for, where the server may ask in its course without saying so.
    fn may_ask_for(&self, request: &Message) -> Option<Digest> {
        let is_clear = matches!(self.leg.way, Way::Http(None));
        if is_clear || !bridge::may_ask(request.method()) {
            return None;
        }
        let name = request.param(&["name"]).or_else(|| request.param(&["uri"])).and_then(|name| name.text());
        Some(Digest::of(format!("{} {}", request.method(), name.unwrap_or_default()).as_bytes()))
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
        let now = hop.state.clock.ticks();
        let key = key(hop, caller, client);
        let (slot, evicted) = self.slot(&key, now)?;
        hop.state.part(evicted.into_iter().collect());
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

    /// The session in which it does already, if there is one.
    pub(crate) fn known(&self, hop: &Hop<'_>, caller: &Caller, client: &Client) -> Option<Arc<Link>> {
        let slot = lock(&self.0).get(&key(hop, caller, client)).cloned()?;
        slot.fitting(hop)
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

    /// Takes out all of them, and hands them back: nobody is served any more.
    pub(crate) fn close(&self) -> Vec<Leaving> {
        let slots = std::mem::take(&mut *lock(&self.0));
        let end = |(key, slot): (Key, Arc<Slot>)| {
            let link = lock(&slot.link).take()?;
            link.end();
            Some((key.0, Arc::clone(&link.leg)))
        };
        slots.into_iter().filter_map(end).collect()
    }

    /// Lets go of those that lead to a server as it was once. Whoever uses one goes on with it, and nobody else will.
    pub(crate) fn let_go(&self, is_current: impl Fn(&ServerName, &Leg) -> bool) {
        for ((server, ..), slot) in lock(&self.0).iter() {
            drop(lock(&slot.link).take_if(|link| !is_current(server, &link.leg)));
        }
    }

    /// The room for a session. Where all is taken, the one that was not used for longest makes room, if it is free; it is
    /// handed back, to be ended on its server.
    fn slot(&self, key: &Key, now: u64) -> Result<(Arc<Slot>, Option<Leaving>), UpstreamFault> {
        let mut slots = lock(&self.0);
        if let Some(slot) = slots.get(key) {
            slot.used.store(now, Ordering::Relaxed);
            return Ok((Arc::clone(slot), None));
        }
        let of = |digest: [u8; 32]| (key.0.clone(), key.1.clone(), Digest::from_bytes(digest));
        let own = || slots.range(of([0; 32])..=of([u8::MAX; 32]));
        let crowded = own().count() >= MOST_ALIKE;
        let mut evicted = None;
        if crowded || slots.len() >= MOST {
            let Some(leaving) = (if crowded { oldest(own()) } else { oldest(slots.iter()) }) else {
                let why = format!(
                    "too many sessions with legacy servers are in use ({MOST_ALIKE} of a principal with one server, {MOST} \
                     in all); wait until a call or a listening stream ends"
                );
                return Err(UpstreamFault::Sessions(why));
            };
            let link = slots.remove(&leaving).and_then(|slot| lock(&slot.link).take());
            evicted = link.map(|link| (leaving.0, Arc::clone(&link.leg)));
        }
        let slot = Arc::new(Slot {
            opening: Arc::default(),
            link: Mutex::default(),
            used: AtomicU64::new(now),
            lost: Arc::default(),
        });
        slots.insert(key.clone(), Arc::clone(&slot));
        Ok((slot, evicted))
    }
}

fn key(hop: &Hop<'_>, caller: &Caller, client: &Client) -> Key {
    (hop.server.name.clone(), caller.principal.id().clone(), Digest::of(client.key().as_bytes()))
}

/// The one that was not used for longest, of those that nobody has a hand in.
fn oldest<'a>(slots: impl Iterator<Item = (&'a Key, &'a Arc<Slot>)>) -> Option<Key> {
    let free = slots.filter(|(_, slot)| slot.is_free());
    free.min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed)).map(|(key, _)| key.clone())
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
    // Those who share a process wait for nobody else's calls.
    let own = pipe.as_ref().filter(|_| hop.server.carriage() == Carriage::Pipe { shared: false });
    let turns = own.map_or_else(|| Arc::new(Turns::new(&hop.server.state.asking)), |pipe| Arc::clone(pipe.turns()));
    let wishes = pipe.as_ref().map(|pipe| Arc::clone(pipe.wishes())).unwrap_or_default();
    let introduction = exchange::one(translate::initialize("0", client), &hop.limits)?;
    if let Some(pipe) = &pipe {
        pipe.will_be_heard();
    }
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
        audience: Arc::new(Audience::new(turns)),
        lost: Arc::clone(lost),
        ended: watch::Sender::new(false),
    });
    if let Way::Pipe(pipe) = &link.leg.way {
        let listener = Arc::downgrade(&link);
        let limits = hop.limits;
        pipe.hear(move |word| {
            let Some(link) = listener.upgrade() else { return Heard::Gone };
            let heard = match word {
                Word::Said(text) => {
                    let message = exchange::one(text.clone(), &limits);
                    let is_news = message.is_ok_and(|message| message.kind() == Kind::Notification);
                    is_news && link.audience.announce(&text)
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
