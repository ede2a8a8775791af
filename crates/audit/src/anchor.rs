//! The newest checkpoints, kept beside the log and not in it: whoever can change the log alone cannot set it back unseen.
//!
//! INVARIANT: written after the checkpoints that it holds are on disk, so it is never ahead of a log that nobody touched.

use crate::{
    disk::Disk,
    grow::Growth,
    note::{Checkpoint, NoteFault},
    tile,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Why an anchor says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnchorFault {
    #[error("it cannot be read")]
    Disk(#[source] io::Error),
    #[error("it holds no whole checkpoints")]
    Torn,
    #[error(transparent)]
    Note(#[from] NoteFault),
}

/// The checkpoints that are kept at `path`. `None` if there is no such file.
pub(crate) fn read(path: &Path, public: &[u8; 32]) -> Result<Option<Vec<Checkpoint>>, AnchorFault> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(AnchorFault::Disk(cause)),
    };
    let (notes, whole) = tile::notes_of(&text);
    if notes.is_empty() || whole != text.len() as u64 {
        return Err(AnchorFault::Torn);
    }
    Ok(Some(notes.iter().map(|note| Checkpoint::open(note, public)).collect::<Result<_, _>>()?))
}

/// Where the newest checkpoints are kept.
pub(crate) struct Anchor {
    path: PathBuf,
    disk: Disk,
    /// What it is known to hold.
    written: String,
}

impl Anchor {
    pub(crate) const fn new(path: PathBuf, disk: Disk) -> Self {
        Self { path, disk, written: String::new() }
    }

    /// Keeps what was signed last of these trees, unless it is kept already.
    pub(crate) fn keep(&mut self, trees: &[Growth]) -> io::Result<()> {
        let text: String = trees.iter().filter_map(Growth::newest).map(Checkpoint::note).collect();
        if text == self.written {
            return Ok(());
        }
        // Mostly one of them has grown: each sync waits for the disk.
        for tree in trees {
            if tree.newest().is_some_and(|newest| !self.written.contains(newest.note())) {
                tree.settle()?;
            }
        }
        self.disk.replace(&self.path, text.as_bytes(), true)?;
        // That there is one must last. After a power cut it may be the one of a moment before.
        if self.written.is_empty()
            && let Some(dir) = self.path.parent()
        {
            self.disk.sync_dir(dir)?;
        }
        self.written = text;
        Ok(())
    }
}
