//! The log as the gateway sees it: open, append, ask for health, close.
//!
//! Appending never blocks and takes no lock: leaves are encoded on the caller's thread and queued. One writer thread
//! puts them on disk in groups (`writer.rs`); whoever must know waits on a [`Pending`].

mod fault;
mod shared;

pub use fault::{LogFault, OpenFault};
pub(crate) use shared::{Job, Shared};

use crate::{
    anchor,
    commit::{Salt, Salts, SaltsFault},
    disk::Disk,
    journal::{JournalFault, Remains},
    note::{Checkpoint, Signer},
    record::{Leaf, SystemRecord},
    text::{Sealer, Texts},
    tile::{Store, Tree},
    writer::{Left, Writer},
};
use rustix::fs::{FlockOperation, flock};
use shared::wake;
use std::{
    fs::File,
    path::PathBuf,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{JoinHandle, Thread},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use vocab::{CallId, TenantId, Timestamp};

/// The tenant's tree in the journal and in the writer.
pub(crate) const TENANT: usize = 0;
/// The system tree.
pub(crate) const SYSTEM: usize = 1;

/// How many bytes of leaves may wait, however many leaves that is.
const QUEUE_BYTES: usize = 64 << 20;

/// How often whoever waits for the disk looks whether it fails.
const LOOK: Duration = Duration::from_millis(100);

/// Requests without a principal that get a record of their own: this many at once, and one more each tenth of a second.
const SYSTEM_BURST: u64 = 100;
const SYSTEM_EVERY: u64 = 100_000;

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the log lives. Created if missing.
    pub dir: PathBuf,
    /// The origin line of the tenant's checkpoints, which ends with the tenant: `NAME/TENANT`. The system tree's is this and
    /// `/system`.
    pub origin: String,
    /// Whose log it is.
    pub tenant: TenantId,
    /// The time of opening: this crate reads no clock. Intents closed at recovery carry it.
    pub opened: Timestamp,
    /// A leaf that nobody waits for is on disk after about this long: 50 ms.
    pub reads_within: Duration,
    /// How many leaves may wait for the disk before intents are refused; other leaves get as much again.
    pub queue: usize,
    /// A file outside `dir` in which the newest checkpoints are kept. A log that is behind it does not open.
    pub anchor: Option<PathBuf>,
    /// How large a journal segment grows before its leaves live in full tiles alone.
    pub segment_bytes: u64,
}

impl Options {
    /// The stated defaults: 50 ms, 16,384 leaves, segments of 64 MiB.
    pub const fn new(dir: PathBuf, origin: String, tenant: TenantId, opened: Timestamp) -> Self {
        Self {
            dir,
            origin,
            tenant,
            opened,
            reads_within: Duration::from_millis(50),
            queue: 16_384,
            anchor: None,
            segment_bytes: 64 << 20,
        }
    }
}

/// Figures of a log, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Leaves of the tenant's tree that are on disk.
    pub size: u64,
    /// Leaves of the system tree that are on disk.
    pub system_size: u64,
    /// Leaves that wait for the disk.
    pub queued: usize,
    /// How long the last group took to reach the disk, in microseconds.
    pub last_commit_us: u64,
    /// How many leaves the last group had.
    pub last_group: u64,
    /// Groups written since opening.
    pub commits: u64,
    /// Requests without a principal that were only counted, since opening.
    pub surplus: u64,
    /// Intents that recovery closed as unknown when the log was opened.
    pub recovered: u64,
}

/// An open log. Dropping it closes it.
pub struct Log {
    shared: Arc<Shared>,
    salts: Salts,
    /// The last salt that was asked for could not be had, and this was said.
    saltless: AtomicBool,
    dir: PathBuf,
    texts: Option<Texts>,
    thread: Thread,
    writer: Option<JoinHandle<Result<(), LogFault>>>,
    tenant: TenantId,
    queue: usize,
    recovered: u64,
    started: Instant,
    /// When the system tree has paid for its records, in microseconds since `started` (GCRA).
    system_due: AtomicU64,
    anchor: Option<PathBuf>,
    _lock: File,
}

impl Log {
    /// Opens the log: takes its lock, cuts a torn tail off the journal, rebuilds what follows from it, and closes the
    /// intents that a crash left open.
    pub fn open(options: Options, signer: Signer) -> Result<Self, OpenFault> {
        Self::open_on(options, signer, Disk::default())
    }

    pub(crate) fn open_on(options: Options, signer: Signer, disk: Disk) -> Result<Self, OpenFault> {
        let name = options.tenant.as_str();
        if name.starts_with('.') {
            return Err(OpenFault::Name(name.to_owned()));
        }
        if options.origin.is_empty()
            || options.origin.chars().any(|c| c.is_whitespace() || c == '+')
            || Tree::Tenant(options.tenant.clone()).other_than(&options.origin).is_some()
        {
            return Err(OpenFault::Name(options.origin));
        }
        let at = |path: &PathBuf| {
            let path = path.clone();
            move |cause| OpenFault::Disk { path, cause }
        };
        let kept = anchored(&options, &signer)?;
        // Where a log was, none is begun.
        if let Some(lost) = kept.iter().flatten().find(|kept| kept.size() > 0)
            && !options.dir.exists()
        {
            return Err(OpenFault::SetBack { origin: lost.origin().to_owned(), size: 0, signed: lost.size() });
        }
        disk.create_dir(&options.dir).map_err(at(&options.dir))?;
        let lock = lock(&options.dir)?;

        let stores = [
            Store::new(Tree::Tenant(options.tenant.clone()).path(&options.dir), disk.clone()),
            Store::new(Tree::System.path(&options.dir), disk.clone()),
        ];
        let origins = [options.origin.clone(), format!("{}/system", options.origin)];
        let journal_dir = options.dir.join("journal");
        let remains = Remains::read(journal_dir.clone()).map_err(|fault| match fault {
            JournalFault::Disk(cause) => OpenFault::Disk { path: journal_dir, cause },
            JournalFault::Damaged(what) => OpenFault::Damaged(what),
        })?;

        let shared = Arc::new(Shared::new());
        let left = Left { journal: &remains, anchored: kept.as_deref().unwrap_or_default() };
        let mut writer = Writer::recover(&options, Arc::clone(&shared), signer, origins, stores, disk, left)?;
        drop(remains);
        let salts = Salts::open(&options.dir).map_err(OpenFault::Salts)?;
        // A new log has nothing that anybody could vouch for.
        let unanchored = options.anchor.is_some()
            && kept.is_none()
            && shared.sizes.iter().any(|size| size.load(Ordering::Acquire) > 0);
        if unanchored {
            writer.note_unanchored(options.opened)?;
        }
        let recovered = writer.close_orphans(options.opened)?;
        let path = options.dir.clone();
        let handle = std::thread::Builder::new()
            .name("audit-writer".into())
            .spawn(move || writer.run())
            .map_err(|cause| OpenFault::Disk { path, cause })?;
        Ok(Self {
            shared,
            salts,
            saltless: AtomicBool::new(false),
            dir: options.dir,
            texts: None,
            thread: handle.thread().clone(),
            writer: Some(handle),
            tenant: options.tenant,
            queue: options.queue,
            recovered,
            started: Instant::now(),
            system_due: AtomicU64::new(0),
            anchor: options.anchor,
            _lock: lock,
        })
    }

    /// Also knows of texts that are kept beside the tree, sealed so. None are kept until [`Texts::set`] says so.
    #[must_use]
    pub fn with_texts(mut self, sealer: Sealer) -> Self {
        self.texts = Some(Texts::new(&self.dir, &self.tenant, sealer, Disk::default()));
        self
    }

    /// The texts that are kept beside the tree.
    pub const fn texts(&self) -> Option<&Texts> {
        self.texts.as_ref()
    }

    /// Queues a leaf; admin and call leaves go to the tenant's tree, system leaves to the system tree.
    ///
    /// Costs no system call. While writing fails, or too much waits, intents are refused: calls stop. What has already
    /// happened is still taken, up to twice the bound.
    pub fn append(&self, mut leaf: Leaf) -> Result<Pending, LogFault> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(&mut leaf, Some(sender))?;
        Ok(Pending { receiver, shared: Arc::clone(&self.shared), thread: self.thread.clone() })
    }

    /// Queues a leaf that nobody will wait for.
    pub fn append_unwatched(&self, mut leaf: Leaf) -> Result<(), LogFault> {
        self.enqueue(&mut leaf, None)
    }

    /// Records a request without a principal in the system tree, at a bounded rate; the surplus is counted, and the
    /// count becomes one record each second. A flood cannot fill the disk.
    pub fn append_system(&self, record: SystemRecord) -> Result<(), LogFault> {
        if self.admit_system() {
            return self.enqueue(&mut Leaf::System(record), None);
        }
        self.shared.surplus.fetch_add(1, Ordering::Relaxed);
        self.shared.surplus_total.fetch_add(1, Ordering::Relaxed);
        self.shared.surplus_at.store(record.at.as_micros(), Ordering::Relaxed);
        Ok(())
    }

    /// Records what the gateway itself did in the system tree, at once: no flood of requests hides it.
    pub fn append_event(&self, record: SystemRecord) -> Result<(), LogFault> {
        self.enqueue(&mut Leaf::System(record), None)
    }

    /// Whether the log can be written; if not, why. Heals by itself when the disk does.
    pub fn healthy(&self) -> Result<(), LogFault> {
        if self.shared.failing.load(Ordering::Acquire) {
            return Err(self.shared.fault());
        }
        let queued = self.shared.queued.load(Ordering::Relaxed);
        if queued >= self.queue || self.shared.queued_bytes.load(Ordering::Relaxed) >= QUEUE_BYTES {
            return Err(LogFault::Full(queued));
        }
        if self.shared.closing.load(Ordering::Relaxed) {
            return Err(LogFault::Closed);
        }
        Ok(())
    }

    /// Whether a call that arrives now can have a record of all it says: the log can be written and the day has a salt
    /// key. One that is missing is made. Heals by itself, too.
    pub fn takes_calls(&self, now: Timestamp) -> Result<(), LogFault> {
        self.healthy()?;
        self.salted(self.salts.ready(now))
    }

    /// What the commitments of a call are salted with. Without it nothing of the call may happen.
    pub fn salt(&self, call: &CallId, at: Timestamp) -> Result<Salt, LogFault> {
        self.salted(self.salts.of(call, at))
    }

    /// Says once that there is no salt key, and once that there is.
    fn salted<T>(&self, had: Result<T, SaltsFault>) -> Result<T, LogFault> {
        match had {
            Ok(had) => {
                if self.saltless.load(Ordering::Relaxed) && self.saltless.swap(false, Ordering::Relaxed) {
                    tracing::info!("the salt key of the day can be had again; calls go on");
                }
                Ok(had)
            }
            Err(fault) => {
                let cause = std::error::Error::source(&fault).map(|cause| format!("{fault}: {cause}"));
                let fault = LogFault::Salt(cause.unwrap_or_else(|| fault.to_string()).into());
                if !self.saltless.swap(true, Ordering::Relaxed) {
                    tracing::error!(%fault, "calls stop: their records could not commit to what they say");
                }
                Err(fault)
            }
        }
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        let [tenant, system] = &shared.sizes;
        Stats {
            size: tenant.load(Ordering::Acquire),
            system_size: system.load(Ordering::Acquire),
            queued: shared.queued.load(Ordering::Relaxed),
            last_commit_us: shared.last_commit_us.load(Ordering::Relaxed),
            last_group: shared.last_group.load(Ordering::Relaxed),
            commits: shared.commits.load(Ordering::Relaxed),
            surplus: shared.surplus_total.load(Ordering::Relaxed),
            recovered: self.recovered,
        }
    }

    /// The newest signed checkpoint of the tenant's tree, if there is one yet.
    pub fn checkpoint(&self) -> Option<Arc<Checkpoint>> {
        let [tenant, _] = &*self.shared.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        tenant.clone()
    }

    /// Commitments to arguments and results.
    pub const fn salts(&self) -> &Salts {
        &self.salts
    }

    /// Where its newest checkpoints are kept beside it.
    pub fn anchor(&self) -> Option<&std::path::Path> {
        self.anchor.as_deref()
    }

    /// Whose log it is.
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Waits until everything appended before is on disk, in tiles, and under a signed checkpoint.
    pub async fn flush(&self) -> Result<(), LogFault> {
        let (sender, receiver) = oneshot::channel();
        self.shared.jobs.push(Job::Flush(sender));
        self.wake();
        receiver.await.map_err(|_| LogFault::Closed)
    }

    /// The same for the last time: whoever calls it has seen to it that nothing is appended after it. If the disk fails it is tried once more, then what could not
    /// be written is reported.
    pub async fn flush_at_last(&self) -> Result<(), LogFault> {
        let (sender, receiver) = oneshot::channel();
        self.shared.jobs.push(Job::Flush(sender));
        self.shared.closing.store(true, Ordering::Release);
        self.wake();
        let is_failing = || self.shared.failing.load(Ordering::Acquire);
        receiver.await.map_err(|_| if is_failing() { self.shared.fault() } else { LogFault::Closed })
    }

    /// Writes what is queued, signs the last checkpoint, and lets go of the directory. Blocks. If the disk fails it is
    /// tried once more, then what could not be written is reported.
    pub fn close(mut self) -> Result<(), LogFault> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), LogFault> {
        if let Some(texts) = &self.texts {
            texts.close();
        }
        self.shared.closing.store(true, Ordering::Release);
        self.wake();
        match self.writer.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(LogFault::Disk(Arc::from("the writer panicked"))),
            None => Ok(()),
        }
    }

    fn wake(&self) {
        wake(&self.shared, &self.thread);
    }

    fn enqueue(&self, leaf: &mut Leaf, done: Option<oneshot::Sender<u64>>) -> Result<(), LogFault> {
        let shared = &self.shared;
        if shared.closing.load(Ordering::Acquire) {
            return Err(LogFault::Closed);
        }
        let (tree, ahead) = match leaf {
            Leaf::Intent(_) => (TENANT, true),
            Leaf::Call(_) | Leaf::Admin(_) => (TENANT, false),
            Leaf::System(_) => (SYSTEM, false),
        };
        if ahead && shared.failing.load(Ordering::Acquire) {
            return Err(shared.fault());
        }
        let body = leaf.encode().map_err(|fault| LogFault::Encode(fault.to_string().into()))?;
        let room = if ahead { 1 } else { 2 };
        let waiting = shared.queued.fetch_add(1, Ordering::Relaxed);
        let bytes = shared.queued_bytes.fetch_add(body.len(), Ordering::Relaxed);
        if waiting >= self.queue.saturating_mul(room) || bytes >= QUEUE_BYTES * room {
            shared.queued.fetch_sub(1, Ordering::Relaxed);
            shared.queued_bytes.fetch_sub(body.len(), Ordering::Relaxed);
            return Err(LogFault::Full(waiting));
        }
        shared.jobs.push(Job::Leaf { tree, body, effect: leaf.effect(), done });
        Ok(())
    }

    fn admit_system(&self) -> bool {
        let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let admitted = self.system_due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| {
            let due = due.max(now);
            (due - now < SYSTEM_BURST * SYSTEM_EVERY).then_some(due + SYSTEM_EVERY)
        });
        admitted.is_ok()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.writer.is_some()
            && let Err(fault) = self.finish()
        {
            tracing::error!(%fault, "the log was not closed in order");
        }
    }
}

/// A leaf on its way to the disk. Dropping it is not waiting.
#[derive(Debug)]
#[must_use = "a leaf whose durability nobody awaits is written with the next group; drop it on purpose"]
pub struct Pending {
    receiver: oneshot::Receiver<u64>,
    shared: Arc<Shared>,
    thread: Thread,
}

impl Pending {
    /// Wakes the writer and waits until the leaf is on disk. Gives its index in its tree.
    ///
    /// When the disk fails, whoever waits is told at once. The leaf stays queued and is written when it can be. A disk that
    /// is only slow is waited for: bound that by the call's deadline.
    pub async fn durable(mut self) -> Result<u64, LogFault> {
        wake(&self.shared, &self.thread);
        loop {
            match tokio::time::timeout(LOOK, &mut self.receiver).await {
                Ok(stored) => return stored.map_err(|_| LogFault::Closed),
                Err(_) if self.shared.failing.load(Ordering::Acquire) => return Err(self.shared.fault()),
                Err(_) => {}
            }
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("tenant", &self.tenant).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// What is kept beside the log. `None` where nothing is.
fn anchored(options: &Options, signer: &Signer) -> Result<Option<Vec<Checkpoint>>, OpenFault> {
    let Some(path) = &options.anchor else { return Ok(None) };
    anchor::read(path, &signer.public).map_err(|cause| OpenFault::Anchor { path: path.clone(), cause: cause.into() })
}

/// Takes the directory's lock for as long as the file lives.
fn lock(dir: &std::path::Path) -> Result<File, OpenFault> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|cause| OpenFault::Disk { path: path.clone(), cause })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenFault::Locked { dir: dir.to_owned() }),
        Err(cause) => Err(OpenFault::Disk { path, cause: cause.into() }),
    }
}

#[cfg(test)]
mod tests;
