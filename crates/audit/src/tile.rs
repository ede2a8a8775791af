//! Files of a tiled log (C2SP tlog-tiles): their names, and reading hashes and entries back.
//!
//! Only the writer writes (`grow.rs`). What is read here is checked by whoever holds a root.

use crate::{
    disk::Disk,
    tree::{self, Hash},
};
use std::{
    fmt, fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::SystemTime,
};
use vocab::TenantId;

/// Hashes in a full tile, entries in a full bundle.
pub(crate) const WIDTH: u64 = 256;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Hashes of a level; level 0 are leaves.
    Hashes(u32),
    /// Entries.
    Entries,
}

/// The path of tile `n`, partial if it has fewer than [`WIDTH`] items.
pub(crate) fn path(kind: Kind, n: u64, width: u64) -> PathBuf {
    let mut path = PathBuf::from("tile");
    match kind {
        Kind::Hashes(level) => path.push(level.to_string()),
        Kind::Entries => path.push("entries"),
    }
    let mut groups = vec![n % 1000];
    let mut rest = n / 1000;
    while rest > 0 {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    while let Some(group) = groups.pop() {
        let last = groups.is_empty();
        path.push(match (last, width < WIDTH) {
            (false, _) => format!("x{group:03}"),
            (true, false) => format!("{group:03}"),
            (true, true) => format!("{group:03}.p"),
        });
    }
    if width < WIDTH {
        path.push(width.to_string());
    }
    path
}

/// The partial tiles that a tree of `size` has.
pub(crate) fn partials(size: u64) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if !size.is_multiple_of(WIDTH) {
        paths.push(path(Kind::Entries, size / WIDTH, size % WIDTH));
    }
    for level in 0..8 {
        let hashes = size >> (8 * level);
        if !hashes.is_multiple_of(WIDTH) {
            paths.push(path(Kind::Hashes(level), hashes / WIDTH, hashes % WIDTH));
        }
    }
    paths
}

/// The first and the last full tile of each kind and level that a tree of `size` has. The last are gone where somebody removes
/// what is new; the first, which nobody writes again, where all is removed and new ones follow.
pub(crate) fn outer_full(size: u64) -> Vec<PathBuf> {
    let kinds =
        [(Kind::Entries, size)].into_iter().chain((0..8).map(|level| (Kind::Hashes(level), size >> (8 * level))));
    let outer = |(kind, items): (Kind, u64)| {
        let last = (items / WIDTH).checked_sub(1);
        let first = last.filter(|last| *last > 0).map(|_| 0);
        [first, last].into_iter().flatten().map(move |n| path(kind, n, WIDTH))
    };
    kinds.flat_map(outer).collect()
}

/// Which tree of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// What a tenant's calls and managers did.
    Tenant(TenantId),
    /// What happened without a principal, and to the gateway itself.
    System,
}

impl Tree {
    /// The tree's directory in the log at `dir`: what an HTTP server would publish as the tiled log.
    pub fn path(&self, dir: &Path) -> PathBuf {
        match self {
            Self::Tenant(tenant) => dir.join("tenant").join(tenant.as_str()),
            Self::System => dir.join("system"),
        }
    }

    /// The origin that a checkpoint of this tree has, where it is not the one it names: `NAME/TENANT`, and for the system tree
    /// `NAME/TENANT/system`. SECURITY: the key signs for every tree, so that only this tells one from a copy of another.
    pub(crate) fn other_than(&self, origin: &str) -> Option<String> {
        let (named, is_system) = match origin.strip_suffix("/system") {
            Some(named) => (named, true),
            None => (origin, false),
        };
        let (name, tenant) = named.rsplit_once('/').unwrap_or(("", named));
        match self {
            Self::Tenant(own) if is_system || own.as_str() != tenant => Some(format!("{name}/{own}")),
            Self::System if !is_system => Some(format!("{origin}/system")),
            Self::Tenant(_) | Self::System => None,
        }
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant/{tenant}"),
            Self::System => f.write_str("system"),
        }
    }
}

/// One tree's directory.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) disk: Disk,
}

impl Store {
    pub(crate) const fn new(dir: PathBuf, disk: Disk) -> Self {
        Self { dir, disk }
    }

    /// The bytes of the tile at `n` with at least `width` items (the full one, the exact one, or any wider one), and how
    /// many items it is meant to have.
    fn read(&self, kind: Kind, n: u64, width: u64) -> io::Result<(Vec<u8>, u64)> {
        match fs::read(self.dir.join(path(kind, n, WIDTH))) {
            Err(cause) if cause.kind() == ErrorKind::NotFound && width < WIDTH => {}
            result => return result.map(|bytes| (bytes, WIDTH)),
        }
        match fs::read(self.dir.join(path(kind, n, width))) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => {}
            result => return result.map(|bytes| (bytes, width)),
        }
        let partials = self.dir.join(path(kind, n, width));
        let missing = || io::Error::new(ErrorKind::NotFound, format!("{} is missing", partials.display()));
        let parent = partials.parent().ok_or_else(missing)?;
        let widest = fs::read_dir(parent)
            .map_err(|_| missing())?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok())
            .filter(|found| *found > width)
            .max();
        let widest = widest.ok_or_else(missing)?;
        Ok((fs::read(parent.join(widest.to_string()))?, widest))
    }

    /// The first `width` hashes of a tile.
    pub(crate) fn hashes(&self, level: u32, n: u64, width: u64) -> io::Result<Vec<Hash>> {
        let (bytes, _) = self.read(Kind::Hashes(level), n, width)?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(io::Error::new(ErrorKind::InvalidData, "a tile is not a sequence of hashes"));
        }
        let hashes: Vec<Hash> = hashes.iter().take(tree::items(width)).copied().collect();
        if (hashes.len() as u64) < width {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "a tile is too short"));
        }
        Ok(hashes)
    }

    /// All entries of a bundle that should have at least `width`, and how many it is meant to have.
    /// SECURITY: it may hold more, or fewer.
    pub(crate) fn entries(&self, n: u64, width: u64) -> io::Result<(Vec<Vec<u8>>, u64)> {
        let (bytes, meant) = self.read(Kind::Entries, n, width)?;
        let entries: io::Result<_> = entries_of(&bytes).map(|entry| entry.map(<[u8]>::to_vec)).collect();
        Ok((entries?, meant))
    }

    /// The bytes of a bundle that should have at least `width` entries.
    pub(crate) fn bundle(&self, n: u64, width: u64) -> io::Result<Vec<u8>> {
        self.read(Kind::Entries, n, width).map(|(bytes, _)| bytes)
    }

    /// When a full bundle was written: nothing in it happened after that. `None` if it is not full, or nobody knows.
    pub(crate) fn written(&self, n: u64) -> Option<SystemTime> {
        fs::metadata(self.dir.join(path(Kind::Entries, n, WIDTH))).ok()?.modified().ok()
    }

    /// The entry at `index` of a tree of `size`.
    pub(crate) fn entry(&self, index: u64, size: u64) -> io::Result<Vec<u8>> {
        let n = index / WIDTH;
        let (mut entries, _) = self.entries(n, (size - n * WIDTH).min(WIDTH))?;
        let at = tree::items(index % WIDTH);
        if at < entries.len() {
            return Ok(entries.swap_remove(at));
        }
        Err(io::Error::new(ErrorKind::UnexpectedEof, format!("record {index} is missing")))
    }

    /// The root over the leaves `low..high`, where `low` is a multiple of the largest power of two below the width.
    pub(crate) fn root(&self, low: u64, high: u64) -> io::Result<Hash> {
        let width = high - low;
        if width == 0 {
            return Ok(tree::root_of(&[]));
        }
        if !width.is_power_of_two() {
            let middle = low + tree::split(width);
            return Ok(tree::node_hash(&self.root(low, middle)?, &self.root(middle, high)?));
        }
        let level = width.trailing_zeros() / 8;
        let first = low >> (8 * level);
        let count = width >> (8 * level);
        let (n, start) = (first / WIDTH, first % WIDTH);
        let hashes = self.hashes(level, n, start + count)?;
        Ok(tree::root_of(hashes.get(tree::items(start)..).unwrap_or_default()))
    }

    /// The hashes on the right edge of the tree of `size`, level by level, computed from full tiles alone where
    /// `size` is a multiple of [`WIDTH`].
    pub(crate) fn edge(&self, size: u64) -> io::Result<Vec<Vec<Hash>>> {
        let mut levels = Vec::new();
        let leaves = size % WIDTH;
        levels.push(if leaves == 0 { Vec::new() } else { self.hashes(0, size / WIDTH, leaves)? });
        let mut level = 0;
        let mut full = size / WIDTH;
        while full > 0 {
            let mut hashes = Vec::new();
            for n in full - full % WIDTH..full {
                hashes.push(tree::root_of(&self.hashes(level, n, WIDTH)?));
            }
            levels.push(hashes);
            full /= WIDTH;
            level += 1;
        }
        Ok(levels)
    }

    /// The text of the newest checkpoint, if there is one.
    pub(crate) fn checkpoint(&self) -> io::Result<Option<String>> {
        optional(fs::read_to_string(self.dir.join("checkpoint")))
    }

    /// Earlier checkpoints.
    pub(crate) fn history(&self) -> io::Result<History> {
        let text = optional(fs::read_to_string(self.dir.join("history")))?.unwrap_or_default();
        let (notes, whole) = notes_of(&text);
        // A write that a crash cut short has no end of line.
        let rest = text.get(usize::try_from(whole).unwrap_or(usize::MAX)..).unwrap_or_default();
        Ok(History { notes, whole, damaged: rest.ends_with('\n') })
    }

    /// Writes a tile unless it is there already, byte for byte.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let path = self.dir.join(path);
        match fs::read(&path) {
            Ok(there) if there == bytes => return Ok(()),
            Ok(_) => tracing::warn!(path = %path.display(), "a tile was damaged and is written again from the journal"),
            Err(_) => {}
        }
        match self.disk.replace(&path, bytes, false) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    self.disk.create_dir(parent)?;
                }
                self.disk.replace(&path, bytes, false)
            }
            result => result,
        }
    }
}

/// The notes that stand one after the other in a text, and how many bytes of it they are.
pub(crate) fn notes_of(text: &str) -> (Vec<String>, u64) {
    let mut notes = Vec::new();
    let (mut note, mut whole) = (String::new(), 0_u64);
    for line in text.split_inclusive('\n') {
        note.push_str(line);
        if line.starts_with('—') && line.ends_with('\n') {
            whole += note.len() as u64;
            notes.push(std::mem::take(&mut note));
        }
    }
    (notes, whole)
}

/// Earlier checkpoints of a tree.
pub(crate) struct History {
    /// The notes, oldest first.
    pub(crate) notes: Vec<String>,
    /// How many bytes of the file they are.
    pub(crate) whole: u64,
    /// Whether something else follows them than what a crash leaves.
    pub(crate) damaged: bool,
}

/// The entries of a bundle: big-endian 16-bit lengths, each with so many bytes.
pub(crate) fn entries_of(bytes: &[u8]) -> impl Iterator<Item = io::Result<&[u8]>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let entry = rest.split_first_chunk::<2>().and_then(|(length, after)| {
            let (entry, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            rest = after;
            Some(entry)
        });
        Some(entry.ok_or_else(|| {
            rest = &[];
            io::Error::new(ErrorKind::InvalidData, "a bundle ends inside an entry")
        }))
    })
}

fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let printed = |kind, n, width| path(kind, n, width).display().to_string();
        assert_eq!(printed(Kind::Hashes(0), 1_234_067, WIDTH), "tile/0/x001/x234/067");
        assert_eq!(printed(Kind::Hashes(2), 0, 1), "tile/2/000.p/1");
        assert_eq!(printed(Kind::Entries, 273, 112), "tile/entries/273.p/112");
        assert_eq!(printed(Kind::Entries, 1000, WIDTH), "tile/entries/x001/000");
    }

    #[test]
    fn the_outer_full_tiles_are_the_first_and_the_last_of_each_kind() {
        let printed = |size| outer_full(size).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert!(printed(255).is_empty());
        assert_eq!(printed(256), ["tile/entries/000", "tile/0/000"]);
        let outer = ["tile/entries/000", "tile/entries/257", "tile/0/000", "tile/0/257", "tile/1/000"];
        assert_eq!(printed(65_536 + 512), outer);
    }

    #[test]
    fn a_bundle_that_ends_inside_an_entry_says_so_once() {
        let read: Vec<_> = entries_of(&[0, 1, b'a', 0, 3, b'b']).map(|entry| entry.map(<[u8]>::to_vec).ok()).collect();
        assert_eq!(read, [Some(b"a".to_vec()), None]);
    }
}
