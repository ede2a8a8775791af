//! Where server processes live: how many there may be, when a crashed one may start again, and the end of them all.

use super::{ChildFault, memory::Looks};
use std::{
    collections::HashMap,
    ffi::OsString,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};
use vocab::{PrincipalId, ServerName};

/// The shortest wait after a crash; the next ones are twice as long each.
pub(crate) const FIRST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(30);
/// How long a process may take to end, before each next measure.
const PATIENCE: Duration = Duration::from_secs(2);

/// All server processes of the gateway.
pub struct Room {
    most: usize,
    /// How many of one principal there may be.
    most_each: usize,
    /// How many of each principal there are.
    held: Arc<Mutex<HashMap<PrincipalId, usize>>>,
    places: Arc<Semaphore>,
    environment: Vec<(OsString, OsString)>,
    crashes: Arc<Mutex<HashMap<ServerName, Crashes>>>,
    closing: watch::Sender<bool>,
    patience: Duration,
    looks: Arc<Looks>,
}

#[derive(Debug, Clone, Copy)]
struct Crashes {
    count: u32,
    until: Instant,
}

impl Room {
    /// A room for `most` processes, of which `most_each` for one principal. `environment` is what each of them inherits: `PATH`, `HOME`, `LANG` and no more,
    /// for the rest of ours is none of their business.
    pub fn new(most: usize, most_each: usize, environment: Vec<(OsString, OsString)>) -> Self {
        Self {
            most,
            most_each,
            held: Arc::default(),
            places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            environment,
            crashes: Arc::default(),
            closing: watch::Sender::new(false),
            patience: PATIENCE,
            looks: Arc::default(),
        }
    }

    /// With another patience, in tests that meet stubborn processes.
    #[cfg(test)]
    pub(super) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How many processes run.
    pub fn running(&self) -> usize {
        self.most.saturating_sub(self.places.available_permits())
    }

    /// Stops every process and waits until all have ended. Nothing starts here any more. To be awaited before the runtimes
    /// on which the processes were started are shut down.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        let all = u32::try_from(self.most).unwrap_or(u32::MAX);
        drop(self.places.acquire_many(all).await);
    }

    pub(super) fn environment(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.environment.iter().map(|(name, value)| (name, value))
    }

    /// A place for one process of `server`, unless there is none, it crashed just now, or `holder` has its share. One that
    /// serves everybody, and one that is only looked at, has no holder.
    pub(super) fn enter(&self, server: &ServerName, holder: Option<&PrincipalId>) -> Result<Place, ChildFault> {
        if *self.closing.borrow() {
            return Err(ChildFault::Ended);
        }
        let now = Instant::now();
        if let Some(crashes) = lock(&self.crashes).get(server)
            && crashes.until > now
        {
            let retry_in = crashes.until.duration_since(now);
            return Err(ChildFault::Backoff { server: server.clone(), crashes: crashes.count, retry_in });
        }
        let share = holder.map(|holder| self.share(holder)).transpose()?;
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| ChildFault::Full(self.most))?;
        Ok(Place {
            crashes: Arc::clone(&self.crashes),
            closing: self.closing.subscribe(),
            patience: self.patience,
            looks: Arc::clone(&self.looks),
            _share: share,
            _permit: permit,
        })
    }

    /// Counts one more process of `holder`, if it may have one.
    fn share(&self, holder: &PrincipalId) -> Result<Share, ChildFault> {
        let mut held = lock(&self.held);
        let count = held.entry(holder.clone()).or_default();
        // With a bound of at least one, an entry that was just made is counted.
        if *count >= self.most_each.max(1) {
            return Err(ChildFault::Share(self.most_each));
        }
        *count += 1;
        Ok(Share { held: Arc::clone(&self.held), holder: holder.clone() })
    }
}

/// One of the processes that a principal has. Dropped with its place.
struct Share {
    held: Arc<Mutex<HashMap<PrincipalId, usize>>>,
    holder: PrincipalId,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(count) = held.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

/// One process's place, free again when dropped.
pub(super) struct Place {
    crashes: Arc<Mutex<HashMap<ServerName, Crashes>>>,
    closing: watch::Receiver<bool>,
    patience: Duration,
    looks: Arc<Looks>,
    _share: Option<Share>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Waits until the room closes or is gone.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + use<> {
        let mut closing = self.closing.clone();
        async move {
            // An error says that the room is gone, and the gateway with it.
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }

    pub(super) const fn patience(&self) -> Duration {
        self.patience
    }

    /// The looks at what processes take.
    pub(super) fn looks(&self) -> Arc<Looks> {
        Arc::clone(&self.looks)
    }

    /// Delays the next start. A process that never said a word is broken, and each attempt doubles the wait; one that
    /// worked and then fell is worth starting again soon: nobody shall lock others out by making it fall.
    pub(super) fn crashed(&self, server: &ServerName, spoke: bool) {
        let mut crashes = lock(&self.crashes);
        let before = if spoke { 0 } else { crashes.get(server).map_or(0, |crashes| crashes.count) };
        let wait = FIRST.saturating_mul(1_u32.checked_shl(before).unwrap_or(u32::MAX)).min(LONGEST);
        let now = Crashes { count: before.saturating_add(1), until: Instant::now() + wait };
        crashes.insert(server.clone(), now);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
