//! Verifies a log with nothing but its directory and the public key, and names the first bad record.
//!
//! Recomputes every hash from the records. Hash tiles, the journal's copies, earlier checkpoints and the index inside
//! each record only help to say where and what; what decides is the signature. Never writes.

mod calls;
mod journal;

use crate::{
    anchor,
    disk::Disk,
    note::Checkpoint,
    record::Outline,
    tile::{Store, Tree, WIDTH},
    tree::{self, Edge, Hash, items},
};
use calls::Calls;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};
use vocab::{CallId, TenantId, Timestamp};

/// What was done to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A record is not the one that was signed.
    Edited,
    /// A record is missing.
    Deleted,
    /// A record was put in.
    Inserted,
    /// Records changed places.
    Reordered,
    /// The log ends before what was signed.
    Truncated,
    /// A checkpoint is missing, malformed, or not signed by the key.
    BadSignature,
    /// The records are right, a tile or the journal beside them is not.
    Copy,
    /// A closed call cites an intent that does not exist.
    MissingIntent,
    /// Two closed calls cite one intent.
    CitedTwice,
    /// The disk refuses, or a newer version wrote the record.
    Unreadable,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {index} of `{tree}`: {explanation}")]
pub struct Broken {
    /// Which tree, as a directory: `tenant/default`, `system`.
    pub tree: String,
    /// The first bad record.
    pub index: u64,
    /// What was done.
    pub what: What,
    /// The same in words.
    pub explanation: String,
}

/// A log that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its trees, the tenant's first.
    pub trees: Vec<VerifiedTree>,
    /// Whether there were checkpoints beside the log, which agree.
    pub anchored: bool,
}

impl Verified {
    /// How many records are signed, in all trees.
    pub fn records(&self) -> u64 {
        self.trees.iter().map(|tree| tree.size).sum()
    }
}

/// A tree that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedTree {
    /// The tree.
    pub tree: Tree,
    /// Its origin; empty if nothing is signed yet.
    pub origin: String,
    /// How many records are signed.
    pub size: u64,
    /// Their root.
    pub root: Hash,
    /// Earlier checkpoints that agree.
    pub checkpoints: u64,
    /// Records that are durable and not signed yet: at most those of the last second.
    pub unsigned: u64,
    /// Intents that no closed call cites: calls under way, or cut off by a crash that nothing has recovered yet.
    pub open: Vec<(u64, CallId)>,
    /// How many records of each kind: intents, calls, admin, system.
    pub kinds: [u64; 4],
}

/// Verifies the log at `dir`. `against` is a checkpoint kept elsewhere, `anchor` the file in which the newest ones are kept
/// beside the log: a log that was set back behind them shows.
pub fn verify(
    dir: &Path,
    public: &[u8; 32],
    against: Option<&Checkpoint>,
    anchor: Option<&Path>,
) -> Result<Verified, Broken> {
    // INVARIANT: read before the log itself, which a gateway may be writing: it is then ahead, never behind.
    let beside = anchor.map(|path| anchor::read(path, public)).transpose();
    let beside = beside.map_err(|fault| {
        broken(dir, 0, What::BadSignature, format!("the checkpoints kept beside the log cannot be trusted: {fault}"))
    })?;
    let beside = beside.flatten();
    let anchored = beside.is_some();
    let elsewhere = against.map(|checkpoint| (checkpoint, "the checkpoint kept elsewhere"));
    let beside = beside.iter().flatten().map(|checkpoint| (checkpoint, "the checkpoint kept beside the log"));
    let kept: Vec<Kept<'_>> = elsewhere.into_iter().chain(beside).collect();
    let mut trees = Vec::new();
    for name in tenants(dir)? {
        trees.push(Tree::Tenant(name));
    }
    if trees.is_empty() {
        // Its directory is missing; the journal may still hold its records.
        trees.push(Tree::Tenant(TenantId::default_tenant()));
    }
    trees.push(Tree::System);
    // INVARIANT: the checkpoints are read before the journal: a log that is being written is then ahead, never behind.
    let mut checks = Vec::new();
    for tree in trees {
        checks.push(Check::start(dir, tree, public, &kept)?);
    }
    let is_there = |origin: &str| {
        checks.iter().any(|check| check.checkpoint.as_ref().is_some_and(|newest| newest.origin() == origin))
    };
    if let Some((lost, _)) = kept.iter().find(|(kept, _)| !is_there(kept.origin())) {
        let explanation = format!("there is no tree of `{}`, which was signed", lost.origin());
        return Err(broken(dir, 0, What::Truncated, explanation));
    }
    for check in &mut checks {
        check.records()?;
    }
    journal::check(dir, &mut checks)?;
    Ok(Verified { trees: checks.into_iter().map(Check::finish).collect(), anchored })
}

/// A checkpoint that does not lie in the log, and whose it is.
type Kept<'c> = (&'c Checkpoint, &'static str);

/// One tree under verification.
struct Check {
    tree: Tree,
    store: Store,
    checkpoint: Option<Checkpoint>,
    /// What roots must come out, by size, and who says so.
    marks: BTreeMap<u64, (Hash, &'static str)>,
    earlier: u64,
    edge: Edge,
    /// The size at which a mark was last met.
    good: u64,
    /// A record that differs from its hash tile, until a mark says which of the two is right.
    suspect: Option<u64>,
    calls: Calls,
    kinds: [u64; 4],
    signed: u64,
    /// The leaf at which the journal is expected to go on.
    journal_next: Option<u64>,
    /// Between which times the journal's records of this tree were written.
    written: Option<(Timestamp, Timestamp)>,
    /// The hash tile that was read last.
    tile: Option<(u64, Vec<Hash>)>,
}

impl Check {
    fn start(dir: &Path, tree: Tree, public: &[u8; 32], kept: &[Kept<'_>]) -> Result<Self, Broken> {
        let store = Store::new(tree.path(dir), Disk::default());
        let fail = |what, explanation: String| Broken { tree: tree.to_string(), index: 0, what, explanation };
        let unreadable = |cause: io::Error| fail(What::Unreadable, cause.to_string());
        // The history first: it never runs ahead of a checkpoint that is read later.
        let history = store.history().map_err(unreadable)?;
        if history.damaged {
            return Err(fail(What::BadSignature, "the earlier checkpoints were edited".into()));
        }
        let history = history.notes;
        let note = store.checkpoint().map_err(unreadable)?;
        let mut marks = BTreeMap::new();
        let Some(note) = note else {
            if !history.is_empty() || store.entries(0, 1).is_ok() {
                return Err(fail(What::BadSignature, "the checkpoint is missing".into()));
            }
            return Ok(Self::new(tree, store, None, marks, 0));
        };
        let newest = Checkpoint::open(&note, public)
            .map_err(|fault| fail(What::BadSignature, format!("the checkpoint cannot be trusted: {fault}")))?;
        if let Some(own) = tree.other_than(newest.origin()) {
            let explanation = format!("the checkpoint is that of `{}`, not of `{own}`", newest.origin());
            return Err(fail(What::BadSignature, explanation));
        }
        let mut expect = |checkpoint: &Checkpoint, whose: &'static str| {
            if checkpoint.size() > newest.size() {
                let (index, signed) = (newest.size(), checkpoint.size());
                let explanation = format!("the log ends here, but {whose} covers {signed} records");
                return Err(Broken { tree: tree.to_string(), index, what: What::Truncated, explanation });
            }
            match marks.insert(checkpoint.size(), (*checkpoint.root(), whose)) {
                Some((root, other)) if root != *checkpoint.root() => Err(Broken {
                    tree: tree.to_string(),
                    index: 0,
                    what: What::Edited,
                    explanation: format!("{whose} and {other} disagree about the first {} records", checkpoint.size()),
                }),
                _ => Ok(()),
            }
        };
        expect(&newest, "the checkpoint")?;
        for (kept, whose) in kept.iter().filter(|(kept, _)| kept.origin() == newest.origin()) {
            expect(kept, whose)?;
        }
        let earlier = history.len() as u64;
        for note in history {
            let checkpoint = Checkpoint::open(&note, public).map_err(|fault| {
                fail(What::BadSignature, format!("an earlier checkpoint cannot be trusted: {fault}"))
            })?;
            expect(&checkpoint, "an earlier checkpoint")?;
        }
        Ok(Self::new(tree, store, Some(newest), marks, earlier))
    }

    fn new(
        tree: Tree,
        store: Store,
        checkpoint: Option<Checkpoint>,
        marks: BTreeMap<u64, (Hash, &'static str)>,
        earlier: u64,
    ) -> Self {
        let signed = checkpoint.as_ref().map_or(0, Checkpoint::size);
        Self {
            tree,
            store,
            checkpoint,
            marks,
            earlier,
            edge: Edge::default(),
            good: 0,
            suspect: None,
            calls: Calls::default(),
            kinds: [0; 4],
            signed,
            journal_next: None,
            written: None,
            tile: None,
        }
    }

    fn broken(&self, index: u64, what: What, explanation: impl Into<String>) -> Broken {
        Broken { tree: self.tree.to_string(), index, what, explanation: explanation.into() }
    }

    /// Every signed record, in order.
    fn records(&mut self) -> Result<(), Broken> {
        for n in 0..self.signed.div_ceil(WIDTH) {
            if let Err(broken) = self.bundle(n) {
                return Err(match self.suspect.filter(|index| *index < broken.index) {
                    Some(index) => self.broken(index, What::Edited, "the record is not the one that was signed"),
                    None => broken,
                });
            }
        }
        self.tiles()
    }

    fn bundle(&mut self, n: u64) -> Result<(), Broken> {
        let first = n * WIDTH;
        let width = (self.signed - first).min(WIDTH);
        let (entries, meant) = match self.store.entries(n, width) {
            Ok(read) => read,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Err(self.gone(n)),
            Err(cause) if cause.kind() == io::ErrorKind::InvalidData => {
                let what = format!("the bundle that begins here was edited: {cause}");
                return Err(self.broken(first, What::Edited, what));
            }
            Err(cause) => return Err(self.broken(first, What::Unreadable, cause.to_string())),
        };
        // Without the tile nothing is lost but the place of an edit; `tiles` reports it.
        let hashes = self.store.hashes(0, n, width).ok();
        for place in 0..width {
            let index = first + place;
            let Some(leaf) = entries.get(items(place)) else {
                return Err(self.missing(n, index));
            };
            let hash = tree::leaf_hash(leaf);
            let tiled = hashes.as_ref().and_then(|hashes| hashes.get(items(place)));
            match Outline::read(leaf) {
                Ok(outline) if outline.index != index => {
                    return Err(self.displaced(n, index, outline.index, &entries));
                }
                Ok(_) if tiled.is_some_and(|tiled| *tiled != hash) => {
                    if index_of(entries.get(items(place) + 1)) == Some(index) {
                        return Err(self.broken(index, What::Inserted, "a record was put in here"));
                    }
                    self.suspect.get_or_insert(index);
                }
                Ok(outline) => self.note(index, &outline)?,
                Err(cause) => {
                    return Err(self.broken(index, What::Edited, format!("the record was edited: {cause}")));
                }
            }
            self.edge.push(hash, |_, _, _| {});
            self.mark()?;
        }
        if entries.len() as u64 > meant {
            return Err(self.broken(first + meant, What::Inserted, "records were put in after the bundle's last"));
        }
        Ok(())
    }

    /// Compares the root with what was signed at this size, if anything was.
    fn mark(&mut self) -> Result<(), Broken> {
        let size = self.edge.size();
        let Some((root, whose)) = self.marks.get(&size) else { return Ok(()) };
        if self.edge.root() == *root {
            self.good = size;
            return match self.suspect {
                Some(index) => {
                    Err(self.broken(index, What::Copy, "the record is right, its hash in the tile was edited"))
                }
                None => Ok(()),
            };
        }
        if let Some(index) = self.suspect {
            return Err(self.broken(index, What::Edited, "the record is not the one that was signed"));
        }
        let range = if self.good + 1 == size {
            "the record is not the one that was signed".to_owned()
        } else {
            format!(
                "a record from here to {} is not the one that was signed ({whose} at {size} records disagrees); its tiles were made anew",
                size - 1
            )
        };
        Err(self.broken(self.good, What::Edited, range))
    }

    /// A record stands where another should.
    fn displaced(&self, n: u64, index: u64, found: u64, entries: &[Vec<u8>]) -> Broken {
        let rest = entries.iter().skip(items(index - n * WIDTH) + 1);
        let next = self.store.entries(n + 1, 1).map(|(entries, _)| entries).unwrap_or_default();
        let later = rest.chain(&next).any(|leaf| index_of(Some(leaf)) == Some(index));
        let (what, explanation) = match (found > index, later) {
            (true, true) => (What::Reordered, format!("record {found} stands here, and {index} comes later")),
            (true, false) => (What::Deleted, format!("the record is missing; {found} stands in its place")),
            (false, true) => (What::Inserted, format!("a copy of record {found} was put in here")),
            (false, false) => (What::Edited, format!("record {found} stands here a second time")),
        };
        self.broken(index, what, explanation)
    }

    /// The bundle ends before the record.
    fn missing(&self, n: u64, index: u64) -> Broken {
        if (n + 1) * WIDTH < self.signed {
            return self.broken(index, What::Deleted, "the record is missing at the end of its bundle");
        }
        self.broken(index, What::Truncated, format!("the log ends here, but {} records were signed", self.signed))
    }

    /// A whole bundle is gone.
    fn gone(&self, n: u64) -> Broken {
        let index = n * WIDTH;
        let later = (n + 1..self.signed.div_ceil(WIDTH)).any(|later| self.store.entries(later, 1).is_ok());
        if later {
            return self.broken(index, What::Deleted, "the bundle that begins here is missing");
        }
        self.broken(index, What::Truncated, format!("the log ends here, but {} records were signed", self.signed))
    }

    /// Whether the hash tiles say what the records say. Proofs are made from them.
    fn tiles(&self) -> Result<(), Broken> {
        let mut width = self.signed;
        for level in 0.. {
            if width == 0 {
                return Ok(());
            }
            for n in 0..width.div_ceil(WIDTH) {
                let index = (n * WIDTH) << (8 * level);
                let hashes = self.store.hashes(level, n, (width - n * WIDTH).min(WIDTH)).map_err(|cause| {
                    self.broken(index, What::Copy, format!("a hash tile from here on cannot be used: {cause}"))
                })?;
                for (place, hash) in (0_u64..).zip(hashes) {
                    // Level 0 was compared with the records; each level is made of the one below.
                    if level > 0 {
                        let child = n * WIDTH + place;
                        let below = self.store.hashes(level - 1, child, WIDTH).map(|below| tree::root_of(&below));
                        if below.ok() != Some(hash) {
                            let first = child << (8 * level);
                            return Err(self.broken(
                                first,
                                What::Copy,
                                "the hash tile over the records from here on was edited",
                            ));
                        }
                    }
                }
            }
            width /= WIDTH;
        }
        Ok(())
    }

    /// What one record says about calls.
    fn note(&mut self, index: u64, outline: &Outline) -> Result<(), Broken> {
        if outline.v != 1 {
            return Err(self.broken(index, What::Unreadable, "a newer version wrote this record"));
        }
        let kind = match outline.kind.as_str() {
            "intent" => 0,
            "call" => 1,
            "admin" => 2,
            "system" => 3,
            _ => return Err(self.broken(index, What::Unreadable, "a newer version wrote this record")),
        };
        if let Some(count) = self.kinds.get_mut(kind) {
            *count += 1;
        }
        match self.calls.follow(index, outline) {
            Ok(()) => Ok(()),
            Err((what, explanation)) => Err(self.broken(index, what, explanation)),
        }
    }

    fn finish(self) -> VerifiedTree {
        let mut open: Vec<_> = self.calls.open.into_iter().map(|(call, index)| (index, call)).collect();
        open.sort_unstable();
        let unsigned = self.edge.size() - self.signed;
        let (origin, root) = match &self.checkpoint {
            Some(newest) => (newest.origin().to_owned(), *newest.root()),
            None => (String::new(), tree::root_of(&[])),
        };
        VerifiedTree {
            tree: self.tree,
            origin,
            size: self.signed,
            root,
            checkpoints: self.earlier,
            unsigned,
            open,
            kinds: self.kinds,
        }
    }
}

fn index_of(leaf: Option<&Vec<u8>>) -> Option<u64> {
    Outline::read(leaf?).ok().map(|outline| outline.index)
}

fn broken(dir: &Path, index: u64, what: What, explanation: String) -> Broken {
    Broken { tree: dir.display().to_string(), index, what, explanation }
}

/// The tenants that have a tree: one, for all records share a journal.
fn tenants(dir: &Path) -> Result<Vec<TenantId>, Broken> {
    let unreadable = |cause: io::Error| broken(dir, 0, What::Unreadable, cause.to_string());
    let entries = match fs::read_dir(dir.join("tenant")) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && dir.join("journal").exists() => return Ok(Vec::new()),
        Err(cause) => return Err(unreadable(cause)),
    };
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in entries {
        names.push(entry.map_err(unreadable)?.file_name().into());
    }
    names.sort();
    Ok(names.iter().filter_map(|name| TenantId::new(name.to_str()?).ok()).collect())
}

#[cfg(test)]
mod tests;
