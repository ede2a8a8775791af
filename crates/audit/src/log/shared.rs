//! What appenders and the writer share: the queue between them, and how far the disk is.

use super::fault::LogFault;
use crate::{journal::TREES, note::Checkpoint, record::Effect};
use crossbeam_queue::SegQueue;
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    thread::Thread,
};
use tokio::sync::oneshot;

/// What the writer takes from the queue.
pub(crate) enum Job {
    Leaf { tree: usize, body: Vec<u8>, effect: Effect, done: Option<oneshot::Sender<u64>> },
    Flush(oneshot::Sender<()>),
}

/// What appenders and the writer share.
pub(crate) struct Shared {
    pub(crate) jobs: SegQueue<Job>,
    pub(crate) queued: AtomicUsize,
    pub(crate) queued_bytes: AtomicUsize,
    pub(crate) urgent: AtomicBool,
    pub(crate) closing: AtomicBool,
    pub(crate) failing: AtomicBool,
    /// Why writing fails. Read only while it does.
    pub(crate) cause: Mutex<Arc<str>>,
    pub(crate) sizes: [AtomicU64; TREES],
    pub(crate) last_commit_us: AtomicU64,
    pub(crate) last_group: AtomicU64,
    pub(crate) commits: AtomicU64,
    /// Counted and not yet recorded requests without a principal, and the time of the last of them.
    pub(crate) surplus: AtomicU64,
    pub(crate) surplus_at: AtomicI64,
    pub(super) surplus_total: AtomicU64,
    pub(crate) checkpoints: Mutex<[Option<Arc<Checkpoint>>; TREES]>,
}

impl Shared {
    /// Nothing waits yet.
    pub(super) fn new() -> Self {
        Self {
            jobs: SegQueue::new(),
            queued: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            urgent: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            cause: Mutex::new(Arc::from("")),
            sizes: [const { AtomicU64::new(0) }; TREES],
            last_commit_us: AtomicU64::new(0),
            last_group: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            surplus: AtomicU64::new(0),
            surplus_at: AtomicI64::new(0),
            surplus_total: AtomicU64::new(0),
            checkpoints: Mutex::new([const { None }; TREES]),
        }
    }

    pub(crate) fn fail(&self, cause: &io::Error) {
        let cause: Arc<str> = cause.to_string().into();
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
        self.failing.store(true, Ordering::Release);
    }

    pub(super) fn fault(&self) -> LogFault {
        LogFault::Disk(Arc::clone(&self.cause.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("queued", &self.queued).finish_non_exhaustive()
    }
}

/// Wakes the writer before its time.
pub(super) fn wake(shared: &Shared, thread: &Thread) {
    // Many calls at once need one wake-up.
    if !shared.urgent.swap(true, Ordering::AcqRel) {
        thread.unpark();
    }
}
