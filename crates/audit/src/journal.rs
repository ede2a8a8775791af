//! The durable edge of the log: segments of framed records, one sync per group, for all trees.
//!
//! A segment begins with the trees' sizes that are in full tiles, the intents that are open, and the leaves of
//! unfinished bundles: with the full tiles it is a complete place to restart from, so all older segments can go.
//! Never looks into a leaf.

use crate::{
    disk::{self, Disk},
    tree::{self, Hash},
};
use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use vocab::{CallId, Digest};

/// How many trees share a journal.
pub(crate) const TREES: usize = 2;

/// What a frame holds: a leaf of the tree with this number, or [`OPEN`].
const OPEN: u8 = 255;

const MAGIC: [u8; 8] = *b"durward1";
const HEADER: usize = 8 + 8 * TREES + CHECK;
const CHECK: usize = 8;

/// Why a journal does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalFault {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error("{0}")]
    Damaged(String),
}

/// What one frame says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A leaf of a tree.
    Leaf { tree: usize, leaf: &'a [u8], hash: Hash },
    /// The intents that were open when the segment began, with their leaves' indexes.
    Open(Vec<(CallId, u64)>),
}

/// A segment as read.
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    /// Leaves of each tree below this are in full tiles.
    pub(crate) bases: [u64; TREES],
    bytes: Vec<u8>,
    frames: Vec<(u8, Range<usize>, Hash)>,
    /// Where the last whole frame ends.
    end: usize,
}

impl Segment {
    /// Reads the whole frames of a segment; none if not even its header is whole.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        let bytes = fs::read(path)?;
        let Some(bases) = read_header(&bytes) else { return Ok(None) };
        let mut frames = Vec::new();
        let mut end = HEADER;
        while let Some((kind, body, hash)) = read_frame(&bytes, end) {
            end = body.end + CHECK;
            frames.push((kind, body, hash));
        }
        Ok(Some(Self { path: path.to_owned(), bases, bytes, frames, end }))
    }

    /// What it says, in order.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.frames.iter().filter_map(|(kind, body, hash)| {
            let body = self.bytes.get(body.clone())?;
            if *kind == OPEN {
                let open = body.chunks_exact(24).filter_map(|chunk| {
                    let (call, index) = chunk.split_first_chunk::<16>()?;
                    Some((CallId::from_bytes(*call), u64::from_be_bytes(index.try_into().ok()?)))
                });
                return Some(Frame::Open(open.collect()));
            }
            let tree = usize::from(*kind);
            (tree < TREES).then_some(Frame::Leaf { tree, leaf: body, hash: *hash })
        })
    }

    /// Whether bytes follow the last whole frame.
    pub(crate) const fn torn(&self) -> bool {
        self.end < self.bytes.len()
    }
}

/// The segments in `dir`, oldest first. One without a whole header is no segment: it was being made when time ended.
pub(crate) fn segments(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if number(&path).is_some() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The journal as former processes left it.
pub(crate) struct Remains {
    dir: PathBuf,
    pub(crate) segments: Vec<Segment>,
    /// A segment that was being made when time ended.
    unmade: Option<PathBuf>,
}

impl Remains {
    /// Reads it, and changes nothing: whether it can be gone on with is not known yet.
    pub(crate) fn read(dir: PathBuf) -> Result<Self, JournalFault> {
        let mut remains = Self { dir, segments: Vec::new(), unmade: None };
        let paths = match segments(&remains.dir) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Vec::new(),
            paths => paths?,
        };
        for (place, path) in paths.iter().enumerate() {
            match Segment::read(path)? {
                Some(segment) => remains.segments.push(segment),
                // The first group of a segment never reached the disk; what it carried is in the one before.
                None if place + 1 == paths.len() && (!remains.segments.is_empty() || blank(path)?) => {
                    remains.unmade = Some(path.clone());
                }
                None => return Err(JournalFault::Damaged(format!("{} has no header", path.display()))),
            }
        }
        Ok(remains)
    }
}

/// The journal, open for writing.
pub(crate) struct Journal {
    dir: PathBuf,
    disk: Disk,
    file: File,
    path: PathBuf,
    number: u64,
    end: u64,
    segment_bytes: u64,
    rotate_at: u64,
}

impl Journal {
    /// Goes on with the journal, and cuts off what a crash tore.
    pub(crate) fn open(remains: &Remains, disk: Disk, segment_bytes: u64) -> io::Result<Self> {
        let dir = remains.dir.clone();
        disk.create_dir(&dir)?;
        if let Some(unmade) = &remains.unmade {
            fs::remove_file(unmade)?;
        }
        let Some(last) = remains.segments.last() else {
            let (file, path) = create(&dir, &disk, 0, [0; TREES], &[])?;
            let end = HEADER as u64;
            return Ok(Self { dir, disk, file, path, number: 0, end, segment_bytes, rotate_at: segment_bytes });
        };
        let file = disk.open(&last.path, true)?;
        if last.torn() {
            tracing::warn!(
                segment = %last.path.display(),
                bytes = last.bytes.len() - last.end,
                "a group that was being written when the gateway stopped is cut off; nobody was told it is durable"
            );
            file.set_len(last.end as u64)?;
            disk.sync(&file)?;
        }
        let path = last.path.clone();
        let number = number(&path).unwrap_or_default();
        let end = last.end as u64;
        Ok(Self { dir, disk, file, path, number, end, segment_bytes, rotate_at: segment_bytes })
    }

    /// Puts a group of frames on disk. After an error the same group can be given again: it goes to the same place.
    pub(crate) fn append(&mut self, group: &[u8]) -> io::Result<()> {
        // Writing again before syncing again matters: after a failed sync the kernel may hold pages for clean that
        // never reached the disk.
        self.disk.write_at(&self.file, group, self.end)?;
        self.disk.sync(&self.file)?;
        // What is on the disk without a name is on no disk.
        self.in_place()?;
        self.end += group.len() as u64;
        Ok(())
    }

    /// Whether the segment that is written stands where the next process will look for it.
    pub(crate) fn in_place(&self) -> io::Result<()> {
        disk::in_place(&self.file, &self.path)
    }

    /// Whether nothing can bring the segment that is written back: it has no name left.
    pub(crate) fn removed(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() == 0)
    }

    /// Makes its directory where that was removed too, and returns when everything beside it is on the disk.
    pub(crate) fn settle_in(&self) -> io::Result<()> {
        self.disk.create_dir(&self.dir)?;
        self.disk.sync_all(&self.dir)
    }

    /// Whether the segment is as large as it should get.
    pub(crate) const fn full(&self) -> bool {
        self.end >= self.rotate_at
    }

    /// Goes on in a new segment that begins with `carried`. The older ones stay until [`Self::retire`].
    pub(crate) fn rotate(&mut self, bases: [u64; TREES], carried: &[u8]) -> io::Result<()> {
        self.rotate_at = self.end + self.segment_bytes;
        (self.file, self.path) = create(&self.dir, &self.disk, self.number + 1, bases, carried)?;
        self.number += 1;
        self.end = (HEADER + carried.len()) as u64;
        self.rotate_at = self.end + self.segment_bytes;
        Ok(())
    }

    /// Removes the segments before this one, once all tiles are on disk.
    pub(crate) fn retire(&self) -> io::Result<()> {
        self.disk.sync_all(&self.dir)?;
        for path in segments(&self.dir)? {
            if number(&path).is_some_and(|number| number < self.number) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Adds a frame to a group: `write` puts the leaf's text there. Gives where the leaf lies and its hash.
pub(crate) fn frame(group: &mut Vec<u8>, tree: usize, write: impl FnOnce(&mut Vec<u8>)) -> (Range<usize>, Hash) {
    framed(group, u8::try_from(tree).unwrap_or(OPEN), write)
}

/// Adds the open intents to a group.
pub(crate) fn frame_open<'a>(group: &mut Vec<u8>, open: impl Iterator<Item = (&'a CallId, &'a u64)>) {
    framed(group, OPEN, |group| {
        for (call, index) in open {
            group.extend_from_slice(call.as_bytes());
            group.extend_from_slice(&index.to_be_bytes());
        }
    });
}

/// Length, kind, body, and the first bytes of the body's leaf hash: the tree needs that hash anyway.
fn framed(group: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> (Range<usize>, Hash) {
    let start = group.len();
    // Where the kind will stand is room for what goes before a leaf that is hashed: so it is hashed where it lies.
    group.extend_from_slice(&[0, 0, 0, 0, tree::LEAF]);
    let body = group.len();
    write(group);
    let end = group.len();
    let hash = *Digest::of(group.get(start + 4..end).unwrap_or_default()).as_bytes();
    let [a, b, c, d] = u32::try_from(end - body).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(head) = group.get_mut(start..body) {
        head.copy_from_slice(&[a, b, c, d, kind]);
    }
    group.extend_from_slice(check(&hash));
    (body..end, hash)
}

fn check(hash: &Hash) -> &[u8] {
    hash.get(..CHECK).unwrap_or_default()
}

/// A new segment that begins with `carried`, and where it lies.
fn create(dir: &Path, disk: &Disk, number: u64, bases: [u64; TREES], carried: &[u8]) -> io::Result<(File, PathBuf)> {
    let mut bytes = MAGIC.to_vec();
    for base in bases {
        bytes.extend_from_slice(&base.to_be_bytes());
    }
    let hash = tree::leaf_hash(&bytes);
    bytes.extend_from_slice(check(&hash));
    bytes.extend_from_slice(carried);
    let path = dir.join(format!("{number:020}"));
    let file = disk.open(&path, false)?;
    disk.write_at(&file, &bytes, 0)?;
    disk.sync(&file)?;
    disk.sync_dir(dir)?;
    Ok((file, path))
}

/// Whether a segment was only being made when time ended.
fn blank(path: &Path) -> io::Result<bool> {
    let bytes = fs::read(path)?;
    Ok(bytes.len() < HEADER || bytes.iter().all(|byte| *byte == 0))
}

fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    (name.len() == 20).then(|| name.parse().ok()).flatten()
}

fn read_header(bytes: &[u8]) -> Option<[u64; TREES]> {
    let (header, check_bytes) = bytes.get(..HEADER)?.split_at_checked(HEADER - CHECK)?;
    if !header.starts_with(&MAGIC) || check(&tree::leaf_hash(header)) != check_bytes {
        return None;
    }
    let mut bases = [0; TREES];
    for (base, chunk) in bases.iter_mut().zip(header.get(MAGIC.len()..)?.chunks_exact(8)) {
        *base = u64::from_be_bytes(chunk.try_into().ok()?);
    }
    Some(bases)
}

fn read_frame(bytes: &[u8], start: usize) -> Option<(u8, Range<usize>, Hash)> {
    let rest = bytes.get(start..)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (kind, _) = rest.split_first()?;
    let length = u32::from_be_bytes(*length) as usize;
    let body = start + 5..start.checked_add(5)?.checked_add(length)?;
    let hash = tree::leaf_hash(bytes.get(body.clone())?);
    let whole = bytes.get(body.end..body.end + CHECK)? == check(&hash);
    (whole && (usize::from(*kind) < TREES || *kind == OPEN)).then_some((*kind, body, hash))
}
