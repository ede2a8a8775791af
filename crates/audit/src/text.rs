//! Texts of arguments and results, where they are kept: beside the tree, sealed, for a while.
//!
//! A call hands a text over and goes on. A thread of its own seals it and puts it into the file of the call's day, under
//! a key of that day alone; with the key destroyed the day's texts are gone, and the tree still verifies.
//!
//! INVARIANT: nothing here holds up or stops a record. What does not fit, or cannot be written, is let go and counted.

pub(crate) mod erase;
mod shelf;

pub use shelf::Kept;

use crate::disk::Disk;
use bytes::Bytes;
use crossbeam_queue::SegQueue;
use shelf::{Placed, Shelf};
use std::{
    error::Error,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use vocab::{CallId, Day, Side, TenantId, Timestamp};

/// Texts that may wait for the disk.
const QUEUED: usize = 4096;
/// Their bytes.
const QUEUED_BYTES: usize = 32 << 20;
/// Texts that are written before others may have the files.
const PORTION: usize = 256;
/// Their bytes.
const PORTION_BYTES: usize = 1 << 20;
/// What comes within this time goes to the disk together.
const GATHER: Duration = Duration::from_millis(50);
/// How long what was written may be in the memory of the system alone.
const SYNC: Duration = Duration::from_secs(5);

/// Why a key cannot be made or opened.
pub type SealFault = Box<dyn Error + Send + Sync>;

/// Draws a key, and gives it sealed under a label.
pub type Make = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, SealFault> + Send + Sync>;

/// Opens a key that was made under a label.
pub type Unlock = Box<dyn Fn(&[u8], &[u8]) -> Result<DayKey, SealFault> + Send + Sync>;

/// Seals or opens a text; the first argument is a label that must be the same on both ways.
pub type Seal = Box<dyn Fn(&[u8], &[u8]) -> Result<Vec<u8>, SealFault> + Send + Sync>;

/// Makes and opens the keys of days, through functions that it is handed: this crate sees no key of theirs.
pub struct Sealer {
    /// Makes one.
    pub make: Make,
    /// Opens one.
    pub open: Unlock,
}

/// The key of a day, in use.
pub struct DayKey {
    /// Seals a text.
    pub seal: Seal,
    /// Opens one.
    pub open: Seal,
}

/// How texts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// How long: a day's texts go when all of that day is older.
    pub time: Duration,
    /// Bytes of one day on disk; what comes after them is not kept.
    pub per_day: u64,
}

/// A text on its way.
#[derive(Clone)]
pub struct Text {
    /// The call it belongs to.
    pub call: CallId,
    /// When the call arrived: the day it is kept with.
    pub at: Timestamp,
    /// Which of its texts.
    pub side: Side,
    /// All of it; what is longer than 64 KiB is cut when it is written.
    pub text: Bytes,
}

/// What became of the texts that were handed over, since the log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TextStats {
    /// Written. One that was, and of which the disk then says that it may not be safe, is in `failed` as well.
    pub kept: u64,
    /// Let go because more waited than may.
    pub crowded: u64,
    /// Let go because their day has as much as it may.
    pub full: u64,
    /// Let go because the disk, or the sealing, failed.
    pub failed: u64,
    /// Let go because their day was erased meanwhile.
    pub late: u64,
}

/// Keeps texts. Off until it is told how.
pub struct Texts {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    on: AtomicBool,
    keeping: Mutex<Option<Keeping>>,
    jobs: SegQueue<Text>,
    queued: AtomicUsize,
    queued_bytes: AtomicUsize,
    /// The writer waits for a text, and wants to be woken for it.
    idle: AtomicBool,
    closing: AtomicBool,
    thread: OnceLock<thread::Thread>,
    shelf: Mutex<Shelf>,
    kept: AtomicU64,
    crowded: AtomicU64,
    full: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    /// Writing failed, and this was said.
    failing: AtomicBool,
}

impl Texts {
    /// The texts of the log in `dir`. Touches nothing until a text is kept.
    pub(crate) fn new(dir: &Path, tenant: &TenantId, sealer: Sealer, disk: Disk) -> Self {
        let shared = Shared {
            on: AtomicBool::new(false),
            keeping: Mutex::new(None),
            jobs: SegQueue::new(),
            queued: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            idle: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            thread: OnceLock::new(),
            shelf: Mutex::new(Shelf::new(dir, tenant, sealer, disk)),
            kept: AtomicU64::new(0),
            crowded: AtomicU64::new(0),
            full: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            late: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), writer: Mutex::new(None) }
    }

    /// From now on keeps texts like this, or none.
    pub fn set(&self, keeping: Option<Keeping>) -> io::Result<()> {
        if keeping.is_some() {
            self.begin()?;
        }
        *lock(&self.shared.keeping) = keeping;
        self.shared.on.store(keeping.is_some(), Ordering::Release);
        Ok(())
    }

    /// How texts are kept now.
    pub fn keeping(&self) -> Option<Keeping> {
        *lock(&self.shared.keeping)
    }

    /// Hands a text over. Waits for nothing; says nothing of whether it is kept in the end.
    pub fn keep(&self, text: Text) {
        let shared = &self.shared;
        if !shared.on.load(Ordering::Acquire) {
            return;
        }
        let length = text.text.len();
        let waiting = shared.queued.fetch_add(1, Ordering::Relaxed);
        let bytes = shared.queued_bytes.fetch_add(length, Ordering::Relaxed);
        if waiting >= QUEUED || bytes.saturating_add(length) > QUEUED_BYTES {
            shared.queued.fetch_sub(1, Ordering::Relaxed);
            shared.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            shared.crowded.fetch_add(1, Ordering::Relaxed);
            return;
        }
        shared.jobs.push(text);
        if shared.idle.swap(false, Ordering::AcqRel)
            && let Some(thread) = shared.thread.get()
        {
            thread.unpark();
        }
    }

    /// What is kept of a text. Blocks on the disk.
    pub fn read(&self, call: &CallId, at: Timestamp, side: Side) -> io::Result<Kept> {
        self.shared.write();
        // The files are read without the lock: calls go on meanwhile.
        let found = lock(&self.shared.shelf).find(Day::of(at))?;
        found.read(call, side)
    }

    /// Puts on disk what was handed over so far. Blocks.
    pub fn flush(&self) {
        self.shared.write();
        self.shared.sync();
    }

    /// The days of which anything is kept.
    pub fn days(&self) -> io::Result<Vec<Day>> {
        lock(&self.shared.shelf).days()
    }

    /// What became of what was handed over.
    pub fn stats(&self) -> TextStats {
        let shared = &self.shared;
        TextStats {
            kept: shared.kept.load(Ordering::Relaxed),
            crowded: shared.crowded.load(Ordering::Relaxed),
            full: shared.full.load(Ordering::Relaxed),
            failed: shared.failed.load(Ordering::Relaxed),
            late: shared.late.load(Ordering::Relaxed),
        }
    }

    /// Writes what is left and ends the thread.
    pub(crate) fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        let writer = lock(&self.writer).take();
        if let Some(writer) = writer {
            writer.thread().unpark();
            if writer.join().is_err() {
                tracing::error!("the thread that keeps texts panicked");
            }
        }
    }

    /// Starts the thread unless it runs.
    fn begin(&self) -> io::Result<()> {
        let mut writer = lock(&self.writer);
        if writer.is_none() {
            let shared = Arc::clone(&self.shared);
            let handle = thread::Builder::new().name("audit-texts".into()).spawn(move || shared.run())?;
            let _first = self.shared.thread.set(handle.thread().clone());
            *writer = Some(handle);
        }
        Ok(())
    }
}

impl Shared {
    fn run(&self) {
        let mut synced = Instant::now();
        loop {
            let closing = self.closing.load(Ordering::Acquire);
            self.write();
            if closing || synced.elapsed() >= SYNC {
                self.sync();
                synced = Instant::now();
            }
            if closing {
                return;
            }
            self.idle.store(true, Ordering::Release);
            if self.jobs.is_empty() && !self.closing.load(Ordering::Acquire) {
                let dirty = lock(&self.shelf).dirty();
                if dirty { thread::park_timeout(SYNC) } else { thread::park() }
            }
            self.idle.store(false, Ordering::Release);
            if !self.closing.load(Ordering::Acquire) {
                thread::park_timeout(GATHER);
            }
        }
    }

    /// Seals and writes what was queued when this began; what comes meanwhile is for the next time. Between portions
    /// whoever erases or reads gets the files.
    fn write(&self) {
        let mut left = self.queued.load(Ordering::Relaxed);
        while left > 0 {
            let taken = self.write_some(left.min(PORTION));
            if taken == 0 {
                return;
            }
            left = left.saturating_sub(taken);
        }
    }

    /// Seals and writes so many texts at most, and no more than a portion. Gives how many there were.
    fn write_some(&self, most: usize) -> usize {
        let per_day = lock(&self.keeping).map_or(u64::MAX, |keeping| keeping.per_day);
        let mut shelf = lock(&self.shelf);
        let (mut taken, mut bytes) = (0, 0);
        while taken < most
            && bytes < PORTION_BYTES
            && let Some(text) = self.jobs.pop()
        {
            taken += 1;
            bytes += text.text.len();
            self.queued.fetch_sub(1, Ordering::Relaxed);
            self.queued_bytes.fetch_sub(text.text.len(), Ordering::Relaxed);
            if shelf.is_crowded_for(Day::of(text.at)) {
                self.settle(&mut shelf, true);
                self.sync_all(&mut shelf);
            }
            match shelf.put(&text, per_day) {
                Ok(Placed::Buffered) => {}
                Ok(Placed::Full) => count(&self.full, 1),
                Ok(Placed::Late) => count(&self.late, 1),
                Err(cause) => self.fail(1, &cause),
            }
            self.settle(&mut shelf, false);
        }
        self.settle(&mut shelf, true);
        taken
    }

    /// Writes what is buffered, and counts what became of it.
    fn settle(&self, shelf: &mut Shelf, all: bool) {
        let flushed = shelf.flush(all);
        if flushed.written > 0 {
            count(&self.kept, flushed.written);
            if self.failing.swap(false, Ordering::Relaxed) {
                tracing::info!("texts are kept again");
            }
        }
        if let Some(cause) = flushed.cause {
            self.fail(flushed.lost, &cause);
        }
    }

    fn sync(&self) {
        self.sync_all(&mut lock(&self.shelf));
    }

    fn sync_all(&self, shelf: &mut Shelf) {
        if let Err((lost, cause)) = shelf.sync() {
            self.fail(lost, &cause);
        }
    }

    /// Counts what was lost; says so once, until writing works again.
    fn fail(&self, lost: u64, cause: &io::Error) {
        count(&self.failed, lost);
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%cause, "texts of calls cannot be kept; calls and their records go on");
        }
    }
}

impl Drop for Texts {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Texts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Texts").field("keeping", &self.keeping()).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("call", &self.call).field("side", &self.side).finish_non_exhaustive()
    }
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
