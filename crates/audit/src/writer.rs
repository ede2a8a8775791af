//! The one thread that writes: groups into the journal, then tiles, then checkpoints.
//!
//! INVARIANT: a leaf is in a tile or under a checkpoint only after the journal holds it durably; whoever waits hears of
//! it then and not before. A failing disk is tried again for ever, with everything kept, unless the log is closing; whoever
//! waits is told meanwhile that it fails.

mod recovery;

use crate::{
    anchor::Anchor,
    disk::Disk,
    grow::Growth,
    journal::{self, Frame, Journal, Remains, TREES},
    log::{Job, LogFault, OpenFault, Options, SYSTEM, Shared, TENANT},
    note::{Checkpoint, Signer},
    record::{self, CallRecord, Effect, Leaf, SystemRecord},
    tile::{Store, WIDTH},
    tree::{self, Hash},
};
use recovery::Recovery;
use std::{
    borrow::Cow,
    collections::HashMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use vocab::{CallId, TenantId, Timestamp};

/// How long a failing disk is left alone.
const RETRY: Duration = Duration::from_millis(500);
/// The shortest time between two checkpoints that nobody asked for.
const CHECKPOINT: Duration = Duration::from_secs(1);
/// The shortest time between two looks for tiles.
const LOOK: Duration = Duration::from_secs(1);
/// The shortest time between two records that count surplus requests.
const SURPLUS: Duration = Duration::from_secs(1);
/// Bytes in a group after which the rest waits for the next.
const GROUP: usize = 8 << 20;

/// Room for frames and for leaves that is kept when nothing comes.
const FRAMES: usize = 64 << 10;
const LEAVES: usize = 128;

/// Waiting leaves that do not wait for the tick.
const CROWDED: usize = 4096;

/// Everything the writer owns.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    signer: Signer,
    journal: Journal,
    trees: [Growth; TREES],
    open: HashMap<CallId, u64>,
    tenant: TenantId,
    anchor: Option<Anchor>,
    dir: PathBuf,
    tick: Duration,
    checkpoint_at: Option<Instant>,
    surplus_at: Option<Instant>,
    looked_at: Option<Instant>,
    group: Group,
}

/// Leaves on their way to the disk together.
#[derive(Default)]
struct Group {
    /// The frames, as they go into the journal.
    frames: Vec<u8>,
    leaves: Vec<Placed>,
    flushes: Vec<oneshot::Sender<()>>,
    taken_bytes: usize,
}

impl Group {
    /// Makes it empty. The next one is as large as this, or else what a flood took is given back then.
    fn clear(&mut self) {
        let (frames, leaves) = (self.frames.len(), self.leaves.len());
        self.frames.clear();
        self.leaves.clear();
        self.taken_bytes = 0;
        self.keep_room(2 * frames, 2 * leaves);
    }

    /// Gives back what room there is beyond this, and beyond the least.
    fn keep_room(&mut self, frames: usize, leaves: usize) {
        self.frames.shrink_to(frames.max(FRAMES));
        self.leaves.shrink_to(leaves.max(LEAVES));
    }
}

/// A leaf with its place.
struct Placed {
    tree: usize,
    index: u64,
    leaf: Range<usize>,
    hash: Hash,
    effect: Effect,
    done: Option<oneshot::Sender<u64>>,
}

/// What former processes left.
pub(crate) struct Left<'l> {
    pub(crate) journal: &'l Remains,
    /// Beside the log.
    pub(crate) anchored: &'l [Checkpoint],
}

impl Writer {
    /// Rebuilds the trees from what the journal says. Nothing is written before all of it agrees with what was signed: a
    /// log that is refused stays the evidence that it is.
    pub(crate) fn recover(
        options: &Options,
        shared: Arc<Shared>,
        signer: Signer,
        origins: [String; TREES],
        stores: [Store; TREES],
        disk: Disk,
        Left { journal: remains, anchored }: Left<'_>,
    ) -> Result<Self, OpenFault> {
        let segments = remains.segments.as_slice();
        let bases = segments.first().map_or([0; TREES], |first| first.bases);
        let [tenant_store, system_store] = stores;
        let [tenant_origin, system_origin] = origins;
        let [tenant_base, system_base] = bases;
        let name = &options.tenant;
        let anchor = options.anchor.clone().map(|path| Anchor::new(path, tenant_store.disk.clone()));
        let mut tenant = Recovery::start(tenant_store, tenant_origin, tenant_base, &signer, anchored)?;
        let mut system = Recovery::start(system_store, system_origin, system_base, &signer, anchored)?;
        let mut open = HashMap::new();
        for (place, segment) in segments.iter().enumerate() {
            for frame in segment.frames() {
                match frame {
                    Frame::Leaf { tree, leaf, hash } => {
                        let recovery = if tree == TENANT { &mut tenant } else { &mut system };
                        match recovery.replay(leaf, hash, name)? {
                            (index, Effect::Opens(call)) => drop(open.insert(call, index)),
                            (_, Effect::Closes(call)) => drop(open.remove(&call)),
                            (_, Effect::None) => {}
                        }
                    }
                    // Later segments repeat what was open when they began; the frames before say it too.
                    Frame::Open(calls) if place == 0 => open.extend(calls),
                    Frame::Open(_) => {}
                }
            }
        }
        let mut trees = [tenant.finish()?, system.finish()?];
        let at = |path: &Path| {
            let path = path.to_owned();
            move |cause| OpenFault::Disk { path, cause }
        };
        let journal = Journal::open(remains, disk, options.segment_bytes).map_err(at(&options.dir.join("journal")))?;
        for (tree, _) in &mut trees {
            let written = tree.settle_in().and_then(|()| tree.write_full());
            written.map_err(at(&tree.store().dir))?;
        }
        for (size, tree) in shared.sizes.iter().zip(&trees) {
            size.store(tree.0.size(), Ordering::Release);
        }
        let [(tenant, tenant_checkpoint), (system, system_checkpoint)] = trees;
        *shared.checkpoints.lock().unwrap_or_else(PoisonError::into_inner) =
            [tenant_checkpoint.map(Arc::new), system_checkpoint.map(Arc::new)];
        Ok(Self {
            shared,
            signer,
            journal,
            trees: [tenant, system],
            open,
            tenant: options.tenant.clone(),
            anchor,
            dir: options.dir.clone(),
            tick: options.reads_within,
            checkpoint_at: None,
            surplus_at: None,
            looked_at: None,
            group: Group::default(),
        })
    }

    /// Records that nothing told how long the log was before it was opened.
    ///
    /// INVARIANT: on disk before what is kept beside the log is written anew. Whatever ends the process in between, the
    /// next one finds that missing, or this record.
    pub(crate) fn note_unanchored(&mut self, at: Timestamp) -> Result<(), OpenFault> {
        let [size, system_size] = self.trees.each_ref().map(Growth::size);
        let detail = format!(
            "the log had {size} records and {system_size} of the system, and beside it nothing said how many were signed"
        );
        tracing::warn!("{detail}: it is new here, or was restored");
        let mut record = Leaf::System(SystemRecord {
            detail: Some(detail),
            ..SystemRecord::new(Cow::Borrowed("unanchored"), self.tenant.clone(), at)
        });
        let body = record.encode().map_err(|cause| OpenFault::Damaged(cause.to_string()))?;
        self.place(SYSTEM, &body, Effect::None, None);
        self.commit_once()
    }

    /// Closes the intents that nothing closed: nobody knows what became of those calls. Gives how many.
    pub(crate) fn close_orphans(&mut self, at: Timestamp) -> Result<u64, OpenFault> {
        let mut orphans: Vec<u64> = self.open.values().copied().collect();
        orphans.sort_unstable();
        for index in &orphans {
            let leaf = self.leaf(*index).map_err(|cause| self.disk_fault(cause))?;
            let intent = record::read_intent(&leaf)
                .map_err(|cause| OpenFault::Damaged(format!("record {index} is no intent: {cause}")))?;
            let mut closing = Leaf::Call(CallRecord::unknown(intent, *index, at));
            let body = closing.encode().map_err(|cause| OpenFault::Damaged(cause.to_string()))?;
            self.place(TENANT, &body, closing.effect(), None);
        }
        if !orphans.is_empty() {
            tracing::warn!(
                intents = orphans.len(),
                "calls were under way when the gateway stopped; they are closed as unknown"
            );
            self.commit_once()?;
        }
        Ok(orphans.len() as u64)
    }

    /// Puts the group on disk, or says why the log does not open.
    fn commit_once(&mut self) -> Result<(), OpenFault> {
        self.journal.append(&self.group.frames).map_err(|cause| self.disk_fault(cause))?;
        self.settle();
        Ok(())
    }

    /// Writes until the log is closed.
    pub(crate) fn run(mut self) -> Result<(), LogFault> {
        let _exit = Exit(Arc::clone(&self.shared));
        loop {
            self.shared.urgent.store(false, Ordering::Release);
            let closing = self.shared.closing.load(Ordering::Acquire);
            self.count_surplus(closing);
            self.take();
            if self.group.leaves.is_empty() {
                self.group.keep_room(0, 0);
            } else {
                self.commit()?;
            }
            let flushes = std::mem::take(&mut self.group.flushes);
            if let Err(fault) = self.follow(closing || !flushes.is_empty(), closing) {
                self.take_all()?;
                return Err(fault);
            }
            for flushed in flushes {
                // Whoever asked may have stopped waiting.
                let _unheard = flushed.send(());
            }
            if closing && self.shared.jobs.is_empty() {
                return Ok(());
            }
            // One group per tick, however many leaves come: a sync costs the same for one and for a thousand.
            let crowded = self.shared.jobs.len() >= CROWDED;
            if !closing && !crowded && !self.shared.urgent.load(Ordering::Acquire) {
                thread::park_timeout(self.tick);
            }
        }
    }

    /// Takes what is queued, up to a group.
    fn take(&mut self) {
        while self.group.frames.len() < GROUP
            && let Some(job) = self.shared.jobs.pop()
        {
            match job {
                Job::Leaf { tree, body, effect, done } => {
                    self.group.taken_bytes += body.len();
                    self.place(tree, &body, effect, done);
                }
                Job::Flush(done) => {
                    self.group.flushes.push(done);
                    return;
                }
            }
        }
    }

    /// Takes whatever is queued still: what the journal can hold is not lost because tiles or checkpoints cannot follow.
    fn take_all(&mut self) -> Result<(), LogFault> {
        while !self.shared.jobs.is_empty() {
            self.take();
            if !self.group.leaves.is_empty() {
                self.commit()?;
            }
        }
        Ok(())
    }

    /// Gives a leaf the next index of its tree and adds it to the group.
    fn place(&mut self, tree: usize, body: &[u8], effect: Effect, done: Option<oneshot::Sender<u64>>) {
        let waiting = self.group.leaves.iter().rev().find(|placed| placed.tree == tree).map(|placed| placed.index + 1);
        let index = waiting.or_else(|| self.trees.get(tree).map(Growth::size)).unwrap_or_default();
        let (leaf, hash) = journal::frame(&mut self.group.frames, tree, |to| record::write_leaf(to, index, body));
        self.group.leaves.push(Placed { tree, index, leaf, hash, effect, done });
    }

    /// Puts the group on disk, however often that takes, and tells whoever waits.
    fn commit(&mut self) -> Result<(), LogFault> {
        let began = Instant::now();
        let mut tries = 0_u32;
        while let Err(cause) = self.try_commit(tries > 0) {
            tries += 1;
            self.failed(&cause, tries)?;
        }
        self.healed(tries);
        let shared = &self.shared;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.last_commit_us.store(micros, Ordering::Relaxed);
        shared.last_group.store(self.group.leaves.len() as u64, Ordering::Relaxed);
        shared.commits.fetch_add(1, Ordering::Relaxed);
        self.settle();
        Ok(())
    }

    fn try_commit(&mut self, again: bool) -> io::Result<()> {
        if again {
            self.restore()?;
        }
        self.journal.append(&self.group.frames)
    }

    /// Puts a new segment in the place of one that was removed: its leaves are in full tiles or in memory still. One that
    /// was only moved away is waited for.
    fn restore(&mut self) -> io::Result<()> {
        if !self.journal.removed()? {
            return Ok(());
        }
        for tree in &mut self.trees {
            tree.write_full()?;
            tree.readable()?;
        }
        // There is no older segment to fall back on.
        self.journal.settle_in()?;
        self.rotate()?;
        tracing::warn!("the journal was removed while it was written; what it held is written again");
        Ok(())
    }

    /// What a durable group changes: the trees, the open intents, the figures, and those who wait.
    fn settle(&mut self) {
        let mut group = std::mem::take(&mut self.group);
        let taken = group.leaves.len();
        for placed in &mut group.leaves {
            if let Some(tree) = self.trees.get_mut(placed.tree) {
                tree.push(group.frames.get(placed.leaf.clone()).unwrap_or_default(), placed.hash);
            }
            match placed.effect {
                Effect::Opens(call) => drop(self.open.insert(call, placed.index)),
                // Calls that only read have no intent.
                Effect::Closes(_) if self.open.is_empty() => {}
                Effect::Closes(call) => drop(self.open.remove(&call)),
                Effect::None => {}
            }
            if let Some(done) = placed.done.take() {
                // Whoever asked may have stopped waiting.
                let _unheard = done.send(placed.index);
            }
        }
        for (size, tree) in self.shared.sizes.iter().zip(&self.trees) {
            size.store(tree.size(), Ordering::Release);
        }
        if group.taken_bytes > 0 {
            self.shared.queued.fetch_sub(taken, Ordering::Relaxed);
            self.shared.queued_bytes.fetch_sub(group.taken_bytes, Ordering::Relaxed);
        }
        group.clear();
        self.group = group;
    }

    /// Lets tiles, checkpoints and segments follow the journal.
    fn follow(&mut self, now: bool, last: bool) -> Result<(), LogFault> {
        let mut tries = 0_u32;
        while let Err(cause) = self.try_follow(tries > 0, now, last) {
            tries += 1;
            self.failed(&cause, tries)?;
        }
        self.healed(tries);
        if self.journal.full()
            && let Err(cause) = self.rotate()
        {
            // The old segment goes on growing, and this is tried again when it has grown by another segment.
            tracing::warn!(%cause, "the journal cannot begin a new segment");
        }
        Ok(())
    }

    fn try_follow(&mut self, again: bool, now: bool, last: bool) -> io::Result<()> {
        if again {
            self.restore()?;
        }
        for tree in &mut self.trees {
            tree.write_full()?;
        }
        if !now && self.checkpoint_at.is_some_and(|at| at.elapsed() < CHECKPOINT) {
            return Ok(());
        }
        // Also while nothing is written: who asks whether it can be is not told yes.
        self.journal.in_place()?;
        self.look_for_tiles()?;
        let done = self.checkpoint(last);
        if done.is_err() {
            // One tree may be done: the other must not wait for the next second, or it would count as healed.
            self.checkpoint_at = None;
        }
        done
    }

    /// Looks now and then whether the newest tiles are where they were written.
    fn look_for_tiles(&mut self) -> io::Result<()> {
        if self.looked_at.is_some_and(|at| at.elapsed() < LOOK) {
            return Ok(());
        }
        // Where one is missing, the next try looks again.
        self.looked_at = None;
        self.trees.iter().try_for_each(Growth::look_for_tiles)?;
        self.looked_at = Some(Instant::now());
        Ok(())
    }

    fn checkpoint(&mut self, last: bool) -> io::Result<()> {
        for (place, tree) in self.trees.iter_mut().enumerate() {
            if tree.unsigned() {
                let checkpoint = Arc::new(tree.checkpoint(&self.signer)?);
                let mut newest = self.shared.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(newest) = newest.get_mut(place) {
                    *newest = Some(checkpoint);
                }
                self.checkpoint_at = Some(Instant::now());
            }
            if last {
                tree.close()?;
            }
        }
        self.keep_anchor()
    }

    /// Keeps the newest checkpoints beside the log, too.
    fn keep_anchor(&mut self) -> io::Result<()> {
        let Some(anchor) = &mut self.anchor else { return Ok(()) };
        anchor.keep(&self.trees)
    }

    /// Begins a new journal segment and removes the old ones, whose leaves are all in tiles or in the new one.
    fn rotate(&mut self) -> io::Result<()> {
        let mut carried = Vec::new();
        journal::frame_open(&mut carried, self.open.iter());
        for (place, tree) in self.trees.iter().enumerate() {
            for (leaf, _) in tree.rest() {
                journal::frame(&mut carried, place, |to| to.extend_from_slice(leaf));
            }
        }
        let [tenant, system] = &self.trees;
        self.journal.rotate([tenant.base(), system.base()], &carried)?;
        self.journal.retire()
    }

    /// Turns what was only counted into one record.
    fn count_surplus(&mut self, closing: bool) {
        let due = closing || self.surplus_at.is_none_or(|at| at.elapsed() >= SURPLUS);
        if !due || self.shared.surplus.load(Ordering::Relaxed) == 0 {
            return;
        }
        let count = self.shared.surplus.swap(0, Ordering::Relaxed);
        let at = Timestamp::from_micros(self.shared.surplus_at.load(Ordering::Relaxed));
        let mut record = Leaf::System(SystemRecord {
            count: Some(count),
            ..SystemRecord::new(Cow::Borrowed("surplus"), self.tenant.clone(), at)
        });
        match record.encode() {
            Ok(body) => {
                self.shared.queued.fetch_add(1, Ordering::Relaxed);
                self.shared.queued_bytes.fetch_add(body.len(), Ordering::Relaxed);
                self.group.taken_bytes += body.len();
                self.place(SYSTEM, &body, Effect::None, None);
            }
            Err(cause) => tracing::error!(%cause, count, "surplus requests cannot be recorded"),
        }
        self.surplus_at = Some(Instant::now());
    }

    /// Says that the disk fails and waits before the next try; gives up only when the log is closing.
    fn failed(&self, cause: &io::Error, tries: u32) -> Result<(), LogFault> {
        self.shared.fail(cause);
        if tries == 1 {
            tracing::error!(%cause, "the log cannot be written; calls stop until it can");
        }
        if self.shared.closing.load(Ordering::Acquire) && tries > 1 {
            return Err(LogFault::Disk(cause.to_string().into()));
        }
        thread::park_timeout(RETRY);
        Ok(())
    }

    fn healed(&self, tries: u32) {
        if tries > 0 {
            self.shared.failing.store(false, Ordering::Release);
            tracing::info!("the log can be written again");
        }
    }

    /// The leaf at `index` of the tenant's tree.
    fn leaf(&self, index: u64) -> io::Result<Vec<u8>> {
        let [tenant, _] = &self.trees;
        if index < tenant.base() {
            return tenant.store().entry(index, tenant.base());
        }
        let place = tree::items(index % WIDTH);
        let leaf = tenant.rest().nth(place).map(|(leaf, _)| leaf.to_vec());
        leaf.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("record {index} is missing")))
    }

    fn disk_fault(&self, cause: io::Error) -> OpenFault {
        OpenFault::Disk { path: self.dir.clone(), cause }
    }
}

/// Whatever ends the writer: nobody waits for it any more.
struct Exit(Arc<Shared>);

impl Drop for Exit {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::Release);
        if thread::panicking() {
            self.0.fail(&io::Error::other("its writer panicked"));
        }
        while self.0.jobs.pop().is_some() {}
    }
}
