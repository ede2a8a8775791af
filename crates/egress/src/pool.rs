//! Connections to be used again, one pool per thread: idle ones of HTTP/1.1, shared ones of HTTP/2. Never opens one and
//! never sends.

use crate::http2::{Room, Shared};
use bytes::Bytes;
use foldhash::fast::RandomState;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The sending half of a connection.
pub(crate) type Sender = SendRequest<Full<Bytes>>;

/// Idle connections kept per key: half of the room, so that one server leaves some to others. Calls beyond it open a
/// connection each, and close it.
const PER_KEY: usize = PER_THREAD / 2;
/// Shared connections kept per key.
const SHARED_PER_KEY: usize = 8;
/// Idle connections kept per thread.
const PER_THREAD: usize = 1024;
/// How long a connection stays idle where the server promised to keep it for longer.
const IDLE: Duration = Duration::from_mins(1);
/// How long where the server promised nothing: less than the five seconds after which Node and uvicorn drop theirs. Event
/// streams of the official SDKs promise nothing, whatever their server does.
const UNPROMISED: Duration = Duration::from_secs(4);
/// How often idle connections are looked through.
const SWEEP: Duration = UNPROMISED;

/// Who may use a connection: connector, endpoint, credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) egress: u64,
    pub(crate) endpoint: u64,
    pub(crate) credential: u64,
}

/// The idle connections of one thread. The lock is only ever contended when a body ends on another thread.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    sweeping: AtomicBool,
}

#[derive(Default)]
struct Idle {
    by_key: HashMap<Key, Kept, RandomState>,
    count: usize,
}

/// What is kept for one key.
#[derive(Default)]
struct Kept {
    parked: Vec<Parked>,
    shared: Vec<Common>,
}

/// A shared connection, and until when it is kept without a request.
struct Common {
    connection: Shared,
    until: Instant,
}

/// What a request may be sent over.
pub(crate) enum Taken {
    /// A connection of its own.
    Own(Lease),
    /// A stream of a shared one.
    Shared(Room),
}

struct Parked {
    sender: Sender,
    until: Instant,
}

thread_local! {
    static POOL: Arc<Pool> = Arc::default();
}

/// A connection in use. Dropping it closes the connection; [`Lease::park`] keeps it for the next request.
pub(crate) struct Lease {
    pub(crate) sender: Sender,
    home: Arc<Pool>,
    key: Key,
    idle: Duration,
}

impl Lease {
    /// A connection of this thread that can take a request now.
    pub(crate) fn take(key: Key, now: Instant) -> Option<Taken> {
        POOL.with(|pool| match pool.lock().take(key, now)? {
            Found::Idle(sender) => Some(Taken::Own(Self { sender, home: Arc::clone(pool), key, idle: UNPROMISED })),
            Found::Room(room) => Some(Taken::Shared(room)),
        })
    }

    /// A new connection, to be parked in this thread's pool.
    pub(crate) fn new(sender: Sender, key: Key) -> Self {
        Self { sender, home: POOL.with(Arc::clone), key, idle: UNPROMISED }
    }

    /// Leaves an idle connection before the server drops it: a request that meets a closing
    /// connection is lost and must not be repeated.
    pub(crate) fn expect_close_after(&mut self, promised: Duration) {
        self.idle = IDLE.min(promised.saturating_sub(Duration::from_secs(1)));
    }

    /// Makes the connection available again. To be called when the answer has been read to its end.
    pub(crate) fn park(self) {
        if self.sender.is_closed() || self.idle.is_zero() {
            return;
        }
        let Self { sender, home, key, idle } = self;
        home.lock().put(key, Parked { sender, until: Instant::now() + idle });
        look_after(&home);
    }
}

/// Shares a new connection with the other requests of this thread.
pub(crate) fn share(connection: Shared, key: Key) {
    POOL.with(|pool| {
        pool.lock().share(key, Common { connection, until: Instant::now() + IDLE });
        look_after(pool);
    });
}

fn look_after(pool: &Arc<Pool>) {
    // Read first: a sweeper that is there already need not be claimed for every request.
    if !pool.sweeping.load(Ordering::Relaxed) && !pool.sweeping.swap(true, Ordering::Relaxed) {
        tokio::spawn(sweep(Sweeping(Arc::downgrade(pool))));
    }
}

/// What the pool has for a request.
enum Found {
    Idle(Sender),
    Room(Room),
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    /// The connection used last, so that the surplus ages.
    fn take(&mut self, key: Key, now: Instant) -> Option<Found> {
        let Kept { parked, shared } = self.by_key.get_mut(&key)?;
        if !shared.is_empty() {
            let before = shared.len();
            shared.retain_mut(|one| !one.connection.is_over());
            self.count -= before - shared.len();
            for one in shared.iter_mut().rev() {
                if let Some(room) = one.connection.enter() {
                    one.until = now + IDLE;
                    return Some(Found::Room(room));
                }
            }
        }
        let mut at = parked.len();
        while at > 0 {
            at -= 1;
            let Some(candidate) = parked.get(at) else { break };
            if candidate.sender.is_closed() || candidate.until <= now {
                parked.swap_remove(at);
                self.count -= 1;
            } else if candidate.sender.is_ready() {
                self.count -= 1;
                return Some(Found::Idle(parked.remove(at).sender));
            }
            // Neither: its driver has not yet seen the end of the last answer.
        }
        None
    }

    fn put(&mut self, key: Key, parked: Parked) {
        let of_key = &mut self.by_key.entry(key).or_default().parked;
        if of_key.len() < PER_KEY && self.count < PER_THREAD {
            of_key.push(parked);
            self.count += 1;
        }
    }

    fn share(&mut self, key: Key, common: Common) {
        let of_key = &mut self.by_key.entry(key).or_default().shared;
        // One that is full of streams makes room for one that is not; its streams keep it as long as they last.
        if of_key.len() == SHARED_PER_KEY {
            of_key.remove(0);
            self.count = self.count.saturating_sub(1);
        }
        if self.count < PER_THREAD {
            of_key.push(common);
            self.count += 1;
        }
    }

    /// Drops what is closed or too old. Returns whether anything is left.
    fn sweep(&mut self, now: Instant) -> bool {
        self.by_key.retain(|_, Kept { parked, shared }| {
            parked.retain(|one| !one.sender.is_closed() && one.until > now);
            shared.retain_mut(|one| {
                if !one.connection.is_idle() {
                    one.until = now + IDLE;
                }
                !one.connection.is_over() && one.until > now
            });
            !parked.is_empty() || !shared.is_empty()
        });
        self.count = self.by_key.values().map(|kept| kept.parked.len() + kept.shared.len()).sum();
        self.count > 0
    }
}

/// Looks after one pool until it is empty or gone.
async fn sweep(sweeping: Sweeping) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pool) = sweeping.0.upgrade() else { return };
        if !pool.lock().sweep(Instant::now()) {
            return;
        }
    }
}

/// Lets the next sweeper start, also when a runtime ends and takes this one with it.
struct Sweeping(Weak<Pool>);

impl Drop for Sweeping {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.sweeping.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Lease, POOL};
    use hyper_util::rt::TokioIo;
    use std::time::Duration;
    use tokio::time::Instant;

    /// Whether a connection that is parked now is taken again in that time.
    async fn is_reused(endpoint: u64, promised: Option<u64>, after: Duration) -> bool {
        let (near, _far) = tokio::io::duplex(64);
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        let driver = tokio::spawn(connection);
        let key = Key { egress: 0, endpoint, credential: 0 };
        let mut lease = Lease::new(sender, key);
        if let Some(seconds) = promised {
            lease.expect_close_after(Duration::from_secs(seconds));
        }
        lease.sender.ready().await.unwrap();
        lease.park();
        let is_reused = POOL.with(|pool| pool.lock().take(key, Instant::now() + after)).is_some();
        driver.abort();
        is_reused
    }

    #[tokio::test]
    async fn a_server_that_promises_nothing_is_not_trusted_to_keep_a_connection() {
        let soon = Duration::from_secs(3);
        let as_node_drops_it = Duration::from_secs(5);
        assert!(is_reused(1, None, soon).await);
        assert!(!is_reused(2, None, as_node_drops_it).await);
        assert!(is_reused(3, Some(65), as_node_drops_it).await);
        assert!(!is_reused(4, Some(5), as_node_drops_it).await);
    }
}
