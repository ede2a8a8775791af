//! Sessions of ours with legacy servers, for modern clients, who have none: opened when they are needed, shared by the
//! calls of one principal whose clients introduce themselves alike, and ended when nobody uses them.
//!
//! SECURITY: two principals never share one. Servers keep what they like in a session.

use crate::{
    authenticate::Caller,
    server::Carriage,
    session::{Leg, Way},
    upstream::{
        UpstreamFault,
        exchange::{self, Hop},
    },
};
use bytes::Bytes;
use identity::Principal;
use mcp::{
    Kind, Message,
    bridge::{Client, LogLevel, downward as translate},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::broadcast;
use vocab::{Digest, PrincipalId, ServerName};

/// Sessions in all, and of one principal.
const MOST: (usize, usize) = (256, 16);
/// News of a server that wait for the streams of its listeners. One that is slower misses some.
const NEWS: usize = 256;

/// Whose session with whom: server, principal, and what clients say of themselves.
type Key = (ServerName, PrincipalId, Digest);

/// All of them.
#[derive(Default)]
pub(crate) struct Legs(Mutex<HashMap<Key, Arc<Slot>>>);

/// Room for one session.
struct Slot {
    /// One opens it, the others wait.
    opening: tokio::sync::Mutex<()>,
    link: Mutex<Option<Arc<Link>>>,
    /// When it was last asked for, in ticks.
    used: AtomicU64,
}

/// A session with a legacy server.
pub(crate) struct Link {
    pub(crate) leg: Arc<Leg>,
    /// What the server answered to `initialize`.
    pub(crate) answer: Message,
    next: AtomicU64,
    /// The least level that was asked for. It holds for the whole session.
    level: tokio::sync::Mutex<Option<LogLevel>>,
    /// The credential it was last used with.
    holder: Mutex<Principal>,
    used: AtomicU64,
    /// What the server says unasked, for whoever listens.
    pub(super) news: broadcast::Sender<Bytes>,
    /// Whether somebody reads the server's stream.
    pub(super) is_followed: Mutex<bool>,
    ended: AtomicBool,
    /// Resources that are followed, and by how many listeners.
    pub(super) followed: tokio::sync::Mutex<HashMap<String, usize>>,
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
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether it is over.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The credential it was last used with.
    pub(crate) fn holder(&self) -> Principal {
        lock(&self.holder).clone()
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
        let mut least = self.level.lock().await;
        if least.is_some_and(|least| least <= level) {
            return Ok(());
        }
        let request = translate::set_level(&self.number().to_string(), level);
        hop.ask(Some(&self.leg), &exchange::one(request, &hop.limits)?).await?;
        *least = Some(level);
        Ok(())
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
        let key = (hop.server.name.clone(), caller.principal.id().clone(), Digest::of(client.key().as_bytes()));
        let (slot, evicted) = self.slot(key, now)?;
        if let Some(leg) = evicted {
            hop.end(&leg).await;
        }
        if let Some(link) = slot.fitting(hop) {
            link.touch(now, caller);
            return Ok(link);
        }
        let _one = slot.opening.lock().await;
        if let Some(link) = slot.fitting(hop) {
            link.touch(now, caller);
            return Ok(link);
        }
        let link = open(hop, caller, client, now).await?;
        *lock(&slot.link) = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Forgets a session that the server does not know any more.
    pub(crate) fn forget(&self, link: &Arc<Link>) {
        for slot in lock(&self.0).values() {
            let mut kept = lock(&slot.link);
            if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, link)) {
                *kept = None;
            }
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.0).values().filter(|slot| lock(&slot.link).is_some()).count()
    }

    /// Takes out those that nobody uses and `keep` does not hold for, and hands them back.
    pub(crate) fn sweep(&self, keep: impl Fn(&ServerName, &Link) -> bool) -> Vec<(ServerName, Arc<Leg>)> {
        let mut over = Vec::new();
        lock(&self.0).retain(|(server, _, _), slot| {
            if !slot.is_free() {
                return true;
            }
            let link = lock(&slot.link).clone();
            let Some(link) = link else { return false };
            let keeps = keep(server, &link);
            if !keeps {
                over.push((server.clone(), Arc::clone(&link.leg)));
            }
            keeps
        });
        over
    }

    /// The room for a session. Where all is taken, the one that was not used for longest makes room, if it is free; its leg
    /// is handed back where it leads to the same server.
    fn slot(&self, key: Key, now: u64) -> Result<(Arc<Slot>, Option<Arc<Leg>>), UpstreamFault> {
        let mut slots = lock(&self.0);
        if let Some(slot) = slots.get(&key) {
            slot.used.store(now, Ordering::Relaxed);
            return Ok((Arc::clone(slot), None));
        }
        let own = slots.keys().filter(|(_, owner, _)| *owner == key.1).count();
        let mut evicted = None;
        if own >= MOST.1 || slots.len() >= MOST.0 {
            let free = slots.iter().filter(|((_, owner, _), slot)| (own < MOST.1 || *owner == key.1) && slot.is_free());
            let oldest = free.min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed)).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else {
                let why = format!(
                    "too many sessions with legacy servers are in use ({} of a principal, {} in all); wait until a call ends",
                    MOST.1, MOST.0
                );
                return Err(UpstreamFault::Sessions(why));
            };
            let link = slots.remove(&oldest).and_then(|slot| lock(&slot.link).take());
            evicted = link.filter(|_| oldest.0 == key.0).map(|link| Arc::clone(&link.leg));
        }
        let slot = Arc::new(Slot {
            opening: tokio::sync::Mutex::default(),
            link: Mutex::default(),
            used: AtomicU64::new(now),
        });
        slots.insert(key, Arc::clone(&slot));
        Ok((slot, evicted))
    }
}

/// Introduces the client to the server.
async fn open(hop: &Hop<'_>, caller: &Caller, client: &Client, now: u64) -> Result<Arc<Link>, UpstreamFault> {
    let pipe = match hop.server.carriage() {
        Carriage::Pipe { shared: true } => Some(hop.state.shared_pipe(hop)?),
        Carriage::Pipe { shared: false } => Some(hop.start()?),
        Carriage::Requests => None,
    };
    let introduction = exchange::one(translate::initialize("0", client), &hop.limits)?;
    let (leg, answer) = hop.open(&introduction, pipe).await?;
    translate::negotiated(&answer)?;
    let link = Arc::new(Link {
        leg: Arc::new(leg),
        answer,
        next: AtomicU64::new(1),
        level: tokio::sync::Mutex::default(),
        holder: Mutex::new(caller.principal.clone()),
        used: AtomicU64::new(now),
        news: broadcast::channel(NEWS).0,
        is_followed: Mutex::default(),
        ended: AtomicBool::new(false),
        followed: tokio::sync::Mutex::default(),
    });
    if let Way::Pipe(pipe) = &link.leg.way {
        let listener = Arc::downgrade(&link);
        let limits = hop.limits;
        pipe.hear(move |text| {
            use crate::upstream::pipe::Heard;
            let Some(link) = listener.upgrade() else { return Heard::Gone };
            let text = text.filter(|text| {
                exchange::one(text.clone(), &limits).is_ok_and(|message| message.kind() == Kind::Notification)
            });
            if text.is_some_and(|text| link.news.send(text).is_ok()) { Heard::Taken } else { Heard::Missed }
        });
    }
    Ok(link)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
