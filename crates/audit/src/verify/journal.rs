//! The journal beside the trees: copies of what is signed, and what is not signed yet.

use super::{Broken, Check, What, broken};
use crate::{
    journal::{self, Frame, Segment, TREES},
    record::Outline,
    tile::WIDTH,
    tree::{Hash, items},
};
use std::{io, path::Path, time::Duration};
use vocab::Timestamp;

/// A record is signed a second after it was written; so much later it was, and its signature is gone.
const SIGNED_WITHIN: Duration = Duration::from_secs(10);

/// Compares the journal with the trees, and takes from it what is not signed yet.
pub(super) fn check(dir: &Path, checks: &mut [Check]) -> Result<(), Broken> {
    let journal = dir.join("journal");
    let paths = match journal::segments(&journal) {
        Ok(paths) => paths,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(cause) => return Err(broken(dir, 0, What::Unreadable, cause.to_string())),
    };
    let system = checks.len() - 1;
    let mut first = true;
    for path in paths {
        let segment = match Segment::read(&path) {
            Ok(Some(segment)) => segment,
            Ok(None) => continue,
            // The log is being written and has just let go of it.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                first = true;
                continue;
            }
            Err(cause) => return Err(broken(dir, 0, What::Unreadable, cause.to_string())),
        };
        if first {
            for (tree, base) in segment.bases.into_iter().enumerate().take(TREES) {
                let place = if tree == 0 { 0 } else { system };
                if let Some(check) = checks.get_mut(place) {
                    check.journal_next = Some(base);
                }
            }
            first = false;
        }
        for frame in segment.frames() {
            if let Frame::Leaf { tree, leaf, hash } = frame {
                let place = if tree == 0 { 0 } else { system };
                if let Some(check) = checks.get_mut(place) {
                    check.journal_leaf(leaf, hash)?;
                }
            }
        }
    }
    if first && let Some(check) = checks.iter().find(|check| check.signed > 0) {
        return Err(check.broken(0, What::Copy, "the journal is missing or has lost its header"));
    }
    // Time here is that of the records: this reads no clock, and a log that a crash cut short stays as it is for years.
    let newest = checks.iter().filter_map(|check| check.written).map(|(_, newest)| newest).max();
    for check in checks {
        check.never_signed(newest)?;
        if let Some(next) = check.journal_next.filter(|next| *next < check.signed) {
            return Err(check.broken(next, What::Copy, "the journal's copy of this record was edited or cut off"));
        }
    }
    Ok(())
}

impl Check {
    /// Whether a tree of which nothing is signed can be as young as that.
    fn never_signed(&self, newest: Option<Timestamp>) -> Result<(), Broken> {
        let (None, Some((oldest, _)), Some(newest)) = (&self.checkpoint, self.written, newest) else { return Ok(()) };
        if newest.since(oldest) <= SIGNED_WITHIN {
            return Ok(());
        }
        Err(self.broken(
            0,
            What::BadSignature,
            "the journal has its records, but its checkpoint is missing: all were signed",
        ))
    }

    /// A leaf of the journal: a copy of a signed one, or one that is not signed yet.
    fn journal_leaf(&mut self, leaf: &[u8], hash: Hash) -> Result<(), Broken> {
        let expected = self.journal_next.unwrap_or_default();
        let outline = Outline::read(leaf)
            .map_err(|cause| self.broken(expected, What::Edited, format!("the journal holds no record: {cause}")))?;
        let (index, at) = (outline.index, outline.written());
        let (oldest, newest) = self.written.unwrap_or((at, at));
        self.written = Some((oldest.min(at), newest.max(at)));
        if index > self.journal_next.unwrap_or(index) {
            return Err(self.broken(expected, What::Deleted, "the record is missing in the journal"));
        }
        if index < self.signed {
            if self.leaf_hash(index) != Some(hash) {
                return Err(self.broken(index, What::Copy, "the record is right, the journal's copy of it was edited"));
            }
        } else if index == self.edge.size() {
            self.edge.push(hash, |_, _, _| {});
            self.note(index, &outline)?;
        } else if index > self.edge.size() {
            return Err(self.broken(self.edge.size(), What::Deleted, "the record is missing in the journal"));
        }
        self.journal_next = Some(expected.max(index + 1));
        Ok(())
    }

    /// The hash of a signed record, from its tile, which was found right.
    fn leaf_hash(&mut self, index: u64) -> Option<Hash> {
        let n = index / WIDTH;
        if self.tile.as_ref().is_none_or(|(of, _)| *of != n) {
            let width = (self.signed - n * WIDTH).min(WIDTH);
            self.tile = Some((n, self.store.hashes(0, n, width).ok()?));
        }
        self.tile.as_ref()?.1.get(items(index % WIDTH)).copied()
    }
}
