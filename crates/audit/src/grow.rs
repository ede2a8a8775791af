//! A tree that grows: the right edge in memory, full tiles on disk, partial tiles with each checkpoint.
//!
//! Everything here follows from the journal and can be made again from it, so nothing here is synced but checkpoints.

use crate::{
    disk,
    note::{Checkpoint, Signer},
    tile::{self, Kind, Store, WIDTH},
    tree::{Edge, Hash},
};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A history entry is kept at least this often while the tree grows, and whenever a bundle fills.
const HISTORY_EVERY: Duration = Duration::from_mins(1);

/// A growing tree.
pub(crate) struct Growth {
    store: Store,
    origin: String,
    /// Its directory, once it is written.
    home: Option<File>,
    edge: Edge,
    /// The entries that are not yet in a full bundle, framed as in one.
    entries: Vec<u8>,
    /// Full tiles that are not written yet.
    unwritten: VecDeque<(PathBuf, Vec<u8>)>,
    /// The partial tiles that the newest checkpoint stands on.
    partials: Vec<PathBuf>,
    newest: Option<Checkpoint>,
    /// How long the history is, and the size of the tree in its last note.
    history: u64,
    history_size: u64,
    history_at: Option<Instant>,
}

impl Growth {
    /// The tree of `base` leaves, a multiple of [`WIDTH`], read from its full tiles.
    pub(crate) fn at(store: Store, origin: String, base: u64) -> io::Result<Self> {
        let edge = Edge::of(base, store.edge(base)?);
        let history = store.history()?;
        let history_size = history.notes.last().and_then(|note| Checkpoint::said_in(note)).map_or(0, |(_, size)| size);
        Ok(Self {
            store,
            origin,
            home: None,
            edge,
            entries: Vec::new(),
            unwritten: VecDeque::new(),
            partials: Vec::new(),
            newest: None,
            history: history.whole,
            history_size,
            history_at: None,
        })
    }

    /// Makes its directory, and holds on to it.
    pub(crate) fn settle_in(&mut self) -> io::Result<()> {
        self.store.disk.create_dir(&self.store.dir)?;
        self.home = Some(File::open(&self.store.dir)?);
        Ok(())
    }

    /// Whether its directory is still the one that the full tiles were written into.
    pub(crate) fn in_place(&self) -> io::Result<()> {
        self.home.as_ref().map_or(Ok(()), |home| disk::in_place(home, &self.store.dir))
    }

    /// Whether what was signed, and what is in full tiles since, can be read from the disk: with the leaves in memory
    /// that is all of the tree.
    pub(crate) fn readable(&self) -> io::Result<()> {
        self.in_place()?;
        if let Some(newest) = &self.newest
            && self.store.root(0, newest.size())? != *newest.root()
        {
            return Err(io::Error::other(format!("the tiles of `{}` are not those that were signed", self.origin)));
        }
        self.store.edge(self.base()).map(drop)
    }

    pub(crate) const fn size(&self) -> u64 {
        self.edge.size()
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    /// The leaves below this are in full bundles.
    pub(crate) const fn base(&self) -> u64 {
        self.size() - self.size() % WIDTH
    }

    /// What was signed last.
    pub(crate) const fn newest(&self) -> Option<&Checkpoint> {
        self.newest.as_ref()
    }

    /// Returns when the newest checkpoint is the one that a crash leaves.
    pub(crate) fn settle(&self) -> io::Result<()> {
        self.store.disk.sync_dir(&self.store.dir)
    }

    /// Takes over from the checkpoint that a former process signed.
    pub(crate) fn follow(&mut self, checkpoint: Checkpoint) {
        self.partials = tile::partials(checkpoint.size());
        self.newest = Some(checkpoint);
    }

    /// The leaves from [`Self::base`] on, with their hashes.
    pub(crate) fn rest(&self) -> impl Iterator<Item = (&[u8], &Hash)> {
        let hashes = self.edge.leaves();
        tile::entries_of(&self.entries).filter_map(Result::ok).zip(hashes)
    }

    /// Adds a leaf, at most 65,535 bytes.
    pub(crate) fn push(&mut self, leaf: &[u8], hash: Hash) {
        let length = u16::try_from(leaf.len()).unwrap_or(u16::MAX);
        self.entries.extend_from_slice(&length.to_be_bytes());
        self.entries.extend_from_slice(leaf);
        if (self.size() + 1).is_multiple_of(WIDTH) {
            let path = tile::path(Kind::Entries, self.size() / WIDTH, WIDTH);
            // The next bundle will be about as long.
            let next = Vec::with_capacity(self.entries.len());
            self.unwritten.push_back((path, std::mem::replace(&mut self.entries, next)));
        }
        self.edge.push(hash, |level, n, hashes| {
            self.unwritten.push_back((tile::path(Kind::Hashes(level), n, WIDTH), hashes.as_flattened().to_vec()));
        });
    }

    /// The root of the tree as it is.
    pub(crate) fn root(&self) -> Hash {
        self.edge.root()
    }

    /// Writes the full tiles that wait. What cannot be written waits on.
    pub(crate) fn write_full(&mut self) -> io::Result<()> {
        if !self.unwritten.is_empty() {
            self.in_place()?;
        }
        while let Some((path, bytes)) = self.unwritten.front() {
            self.store.write(path, bytes)?;
            self.unwritten.pop_front();
        }
        Ok(())
    }

    /// Writes the tiles that are not full.
    fn write_partials(&self) -> io::Result<()> {
        let size = self.size();
        if !self.entries.is_empty() {
            self.store.write(&tile::path(Kind::Entries, size / WIDTH, size % WIDTH), &self.entries)?;
        }
        for (level, hashes) in self.edge.levels() {
            if !hashes.is_empty() {
                let path = tile::path(Kind::Hashes(level), size >> (8 * (level + 1)), hashes.len() as u64);
                self.store.write(&path, hashes.as_flattened())?;
            }
        }
        Ok(())
    }

    /// Whether the newest tiles are there, and the oldest: for those between nobody looks before they are read. Those of the
    /// checkpoint that are not full are written again; the full ones are in memory no more.
    pub(crate) fn look_for_tiles(&self) -> io::Result<()> {
        self.in_place()?;
        let there = |path: &Path| {
            let there = self.store.dir.join(path).try_exists();
            there.map_err(|cause| disk::displaced(path.display(), &cause.to_string()))
        };
        for path in tile::outer_full(self.size()) {
            if !there(&path)? {
                return Err(disk::displaced(path.display(), "it is not there"));
            }
        }
        // A tree that has grown gets other ones with its next checkpoint.
        if self.unsigned() {
            return Ok(());
        }
        for path in &self.partials {
            if !there(path)? {
                tracing::warn!(tile = %path.display(), tree = self.origin, "a tile is missing; it is written again");
                return self.write_partials();
            }
        }
        Ok(())
    }

    /// Whether the newest checkpoint is older than the tree.
    pub(crate) fn unsigned(&self) -> bool {
        self.size() != self.newest.as_ref().map_or(0, Checkpoint::size)
    }

    /// Writes what a checkpoint of this size stands on, signs it, and puts it in place.
    pub(crate) fn checkpoint(&mut self, signer: &Signer) -> io::Result<Checkpoint> {
        self.in_place()?;
        self.write_full()?;
        self.write_partials()?;
        let size = self.size();
        let checkpoint = Checkpoint::sign(&self.origin, size, &self.root(), signer);
        self.store.disk.replace(&self.store.dir.join("checkpoint"), checkpoint.note().as_bytes(), true)?;
        let filled = size / WIDTH != self.history_size / WIDTH;
        if filled || self.history_at.is_none_or(|at| at.elapsed() >= HISTORY_EVERY) {
            self.remember(&checkpoint)?;
        }
        self.newest = Some(checkpoint.clone());
        for old in std::mem::replace(&mut self.partials, tile::partials(size)) {
            if !self.partials.contains(&old) {
                self.remove(&old);
            }
        }
        Ok(checkpoint)
    }

    /// Keeps the newest checkpoint in the history, however young the one before is: the log is closing.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        match self.newest.clone() {
            Some(newest) => self.remember(&newest),
            None => Ok(()),
        }
    }

    /// Keeps a checkpoint in the history, from which a verifier learns between which two a change lies.
    fn remember(&mut self, checkpoint: &Checkpoint) -> io::Result<()> {
        if checkpoint.size() == self.history_size {
            return Ok(());
        }
        let file = self.store.disk.open(&self.store.dir.join("history"), true)?;
        // A crash may have torn the last note.
        file.set_len(self.history)?;
        self.store.disk.write_at(&file, checkpoint.note().as_bytes(), self.history)?;
        self.history += checkpoint.note().len() as u64;
        self.history_size = checkpoint.size();
        self.history_at = Some(Instant::now());
        Ok(())
    }

    /// Removes a partial tile that a wider one replaces. A leftover does no harm.
    fn remove(&self, path: &Path) {
        let path = self.store.dir.join(path);
        if let Err(cause) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %cause, "an old partial tile stays");
        }
        if let Some(parent) = path.parent() {
            // Fails while wider partial tiles live in it, which is right.
            drop(fs::remove_dir(parent));
        }
    }
}
