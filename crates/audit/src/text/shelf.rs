//! Where kept texts lie: a folder for each day, with its key, its texts, and a mark once something of it was erased.
//!
//! ```text
//! text/<tenant>/2026-11-20/key      the day's key, sealed
//!                          0000     texts as they came, each sealed; every start of the gateway begins a file
//!                          erased   the day's texts were destroyed (`emptied`: so far, while the day lasted)
//! ```
//!
//! A file is only ever appended to, and what a crash tore off its end is passed over. Knows nothing of time.

use super::{DayKey, Sealer, Text};
use crate::disk::{Disk, destroy, is_blank};
use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};
use vocab::{CallId, Day, Side, TenantId};

/// What is longer is cut.
pub(super) const LONGEST: usize = 64 << 10;
/// Buffered bytes that are written before more is taken.
const BATCH: usize = 1 << 20;
/// Days that are open at once: around midnight calls of two come and go.
const OPEN: usize = 2;
/// The largest sealed text: more is no text of ours.
const LARGEST: usize = LONGEST + 64;

const MAGIC: [u8; 8] = *b"durtext1";
const KEY: &str = "key";
/// The day is over, and its texts were destroyed: nothing is kept for it any more.
const ERASED: &str = "erased";
/// The day's texts were destroyed while it lasted.
const EMPTIED: &str = "emptied";

/// What is kept of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// This.
    Text {
        /// The text, or its beginning.
        text: Vec<u8>,
        /// How long all of it was.
        whole: u64,
    },
    /// Nothing any more: the day's texts were destroyed.
    Erased,
    /// Nothing: it never was, or was not to be.
    Absent,
    /// Something that is not what was written, or whose key does not open.
    Damaged,
}

/// What became of a text that was put here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Buffered,
    /// The day has as much as it may.
    Full,
    /// The day was erased.
    Late,
}

/// All days of one tenant.
pub(super) struct Shelf {
    dir: PathBuf,
    tenant: TenantId,
    sealer: Sealer,
    disk: Disk,
    /// The one that was used last comes last.
    open: Vec<Open>,
}

/// A day that is written to.
struct Open {
    day: Day,
    key: DayKey,
    file: File,
    /// Where the next text goes: a failed write is written over.
    end: u64,
    /// Bytes of the day in other files.
    before: u64,
    buffer: Vec<u8>,
    buffered: u64,
    /// Texts that were written and may be in the memory of the system alone.
    unsynced: u64,
    dirty: bool,
}

/// What became of what was buffered.
#[derive(Default)]
pub(super) struct Flushed {
    pub(super) written: u64,
    pub(super) lost: u64,
    /// Why some were lost.
    pub(super) cause: Option<io::Error>,
}

/// A day as it is read.
pub(super) struct Found {
    path: PathBuf,
    label: Label,
    key: Option<Result<DayKey, super::SealFault>>,
}

impl Shelf {
    pub(super) fn new(dir: &Path, tenant: &TenantId, sealer: Sealer, disk: Disk) -> Self {
        Self { dir: dir.join("text").join(tenant.as_str()), tenant: tenant.clone(), sealer, disk, open: Vec::new() }
    }

    /// Whether anything is written and may be in the memory of the system alone.
    pub(super) fn dirty(&self) -> bool {
        self.open.iter().any(|open| open.dirty)
    }

    /// Seals a text for its day. [`Self::flush`] writes it.
    pub(super) fn put(&mut self, text: &Text, per_day: u64) -> io::Result<Placed> {
        let day = Day::of(text.at);
        let label = Label::new(&self.tenant, day);
        let Some(open) = self.of(day)? else { return Ok(Placed::Late) };
        let cut = cut(&text.text);
        let whole = text.text.len() as u64;
        if open.before + open.end + (open.buffer.len() + HEADER + cut.len() + 64) as u64 > per_day {
            return Ok(Placed::Full);
        }
        let sealed = (open.key.seal)(&label.of(&text.call, text.side, whole), cut).map_err(io::Error::other)?;
        let length = u32::try_from(sealed.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        open.buffer.extend_from_slice(&length.to_be_bytes());
        open.buffer.extend_from_slice(text.call.as_bytes());
        open.buffer.push(side(text.side));
        open.buffer.extend_from_slice(&whole.to_be_bytes());
        open.buffer.extend_from_slice(&sealed);
        open.buffered += 1;
        Ok(Placed::Buffered)
    }

    /// Writes what is buffered, if it is `all` there is for now or much.
    pub(super) fn flush(&mut self, all: bool) -> Flushed {
        let mut flushed = Flushed::default();
        for open in &mut self.open {
            if open.buffered == 0 || (!all && open.buffer.len() < BATCH) {
                continue;
            }
            let buffered = std::mem::take(&mut open.buffered);
            let written = self.disk.write_at(&open.file, &open.buffer, open.end);
            let length = open.buffer.len() as u64;
            open.buffer.clear();
            match written {
                Ok(()) => {
                    open.end += length;
                    open.unsynced += buffered;
                    open.dirty = true;
                    flushed.written += buffered;
                }
                Err(cause) => {
                    flushed.lost += buffered;
                    flushed.cause = Some(cause);
                }
            }
        }
        flushed
    }

    /// Returns when what was written is on the disk. On failure, how many texts may not be: the system may have thrown
    /// them away, and a later attempt would not say so.
    pub(super) fn sync(&mut self) -> Result<(), (u64, io::Error)> {
        let (mut lost, mut failed) = (0, None);
        for open in self.open.iter_mut().filter(|open| open.dirty) {
            match self.disk.sync(&open.file) {
                Ok(()) => {
                    open.unsynced = 0;
                    open.dirty = false;
                }
                Err(cause) => {
                    lost += std::mem::take(&mut open.unsynced);
                    failed = Some(cause);
                }
            }
        }
        failed.map_or(Ok(()), |cause| Err((lost, cause)))
    }

    /// The day to read from.
    pub(super) fn find(&self, day: Day) -> io::Result<Found> {
        let path = self.path(day);
        let label = Label::new(&self.tenant, day);
        let key = sealed(&path.join(KEY))?.map(|sealed| (self.sealer.open)(&label.day, &sealed));
        Ok(Found { path, label, key })
    }

    /// The days of which anything is kept.
    pub(super) fn days(&self) -> io::Result<Vec<Day>> {
        let mut days = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(days),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(day) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if self.holds(day)? {
                days.push(day);
            }
        }
        days.sort_unstable();
        Ok(days)
    }

    /// Whether anything of a day is kept.
    pub(super) fn holds(&self, day: Day) -> io::Result<bool> {
        let path = self.path(day);
        Ok(path.join(KEY).exists() || !segments(&path)?.is_empty())
    }

    /// Whether a day is marked as over and erased.
    pub(super) fn is_erased(&self, day: Day) -> bool {
        self.path(day).join(ERASED).exists()
    }

    /// Destroys the key of a day, which needs no room on the disk, and with it the texts; then clears up after them.
    /// `over`: nothing is kept for it any more. Fails with the key in place, or gives what could not be cleared up. A
    /// crash at any point leaves what a second attempt ends.
    pub(super) fn erase(&mut self, day: Day, over: bool) -> io::Result<Option<io::Error>> {
        self.open.retain(|open| open.day != day);
        let path = self.path(day);
        destroy(&path.join(KEY))?;
        destroy(&path.join(KEY).with_extension("draft"))?;
        Ok(self.clear(&path, if over { ERASED } else { EMPTIED }).err())
    }

    fn clear(&self, path: &Path, mark: &str) -> io::Result<()> {
        self.disk.create_dir(path)?;
        let marked = self.disk.open(&path.join(mark), false);
        for (_, segment) in segments(path)? {
            fs::remove_file(segment)?;
        }
        if marked.is_err() {
            // Now there is room.
            self.disk.open(&path.join(mark), false)?;
        }
        self.disk.sync_dir(path)
    }

    /// Whether a day can only be opened when another is closed: what is buffered of that one is to be written first.
    pub(super) fn is_crowded_for(&self, day: Day) -> bool {
        self.open.len() >= OPEN && self.open.iter().all(|open| open.day != day)
    }

    /// The day, open for writing. `None` if it was erased.
    fn of(&mut self, day: Day) -> io::Result<Option<&mut Open>> {
        if let Some(at) = self.open.iter().position(|open| open.day == day) {
            let open = self.open.remove(at);
            self.open.push(open);
        } else {
            if self.is_erased(day) {
                return Ok(None);
            }
            if self.open.len() >= OPEN {
                self.open.remove(0);
            }
            let open = self.begin(day)?;
            self.open.push(open);
        }
        Ok(self.open.last_mut())
    }

    fn begin(&self, day: Day) -> io::Result<Open> {
        let dir = self.path(day);
        self.disk.create_dir(&dir)?;
        let label = Label::new(&self.tenant, day).day;
        let kept = dir.join(KEY);
        let sealed = if let Some(sealed) = sealed(&kept)? {
            sealed
        } else {
            // Without their key they are nothing.
            for (_, segment) in segments(&dir)? {
                fs::remove_file(segment)?;
            }
            let sealed = (self.sealer.make)(&label).map_err(io::Error::other)?;
            self.disk.replace(&kept, &sealed, true)?;
            self.disk.sync_dir(&self.dir)?;
            sealed
        };
        let key = (self.sealer.open)(&label, &sealed).map_err(io::Error::other)?;
        let (mut number, mut before) = (0, 0);
        for (at, segment) in segments(&dir)? {
            let length = fs::metadata(segment)?.len();
            // One that was only begun is begun again: a disk that fails makes no file for each text.
            number = if length > MAGIC.len() as u64 { at.saturating_add(1) } else { at };
            before += length;
        }
        let file = self.disk.open(&dir.join(format!("{number:04}")), false)?;
        self.disk.write_at(&file, &MAGIC, 0)?;
        self.disk.sync_dir(&dir)?;
        let end = MAGIC.len() as u64;
        Ok(Open { day, key, file, end, before, buffer: Vec::new(), buffered: 0, unsynced: 0, dirty: true })
    }

    fn path(&self, day: Day) -> PathBuf {
        self.dir.join(day.to_string())
    }
}

impl Found {
    /// What the day holds of a text. The last one counts: an answer may come in parts.
    pub(super) fn read(&self, call: &CallId, side: Side) -> io::Result<Kept> {
        let nothing = if [ERASED, EMPTIED].iter().any(|mark| self.path.join(mark).exists()) {
            Kept::Erased
        } else {
            Kept::Absent
        };
        let key = match &self.key {
            None => return Ok(nothing),
            Some(Err(_)) => return Ok(Kept::Damaged),
            Some(Ok(key)) => key,
        };
        let mut last = None;
        for (_, segment) in segments(&self.path)? {
            match File::open(segment) {
                Ok(file) => last = look(file, call, side)?.or(last),
                // Erased while this was read.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(cause),
            }
        }
        let Some((whole, sealed)) = last else { return Ok(nothing) };
        Ok(match (key.open)(&self.label.of(call, side, whole), &sealed) {
            Ok(text) => Kept::Text { text, whole },
            Err(_) => Kept::Damaged,
        })
    }
}

/// What stands before a sealed text: its length, the call, the side, the length of the whole text.
const HEADER: usize = 4 + 16 + 1 + 8;

/// The last text of that call in a file: the length of the whole, and what is sealed.
fn look(file: File, call: &CallId, wanted: Side) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut magic = [0; MAGIC.len()];
    let mut header = [0; HEADER];
    let mut found = None;
    if !whole(reader.read_exact(&mut magic))? || magic != MAGIC {
        return Ok(None);
    }
    // What a crash tore off ends the file.
    while whole(reader.read_exact(&mut header))? {
        let Some((length, rest)) = header.split_first_chunk::<4>() else { break };
        let Some((of, rest)) = rest.split_first_chunk::<16>() else { break };
        let Some((which, rest)) = rest.split_first() else { break };
        let Some(all) = rest.first_chunk::<8>() else { break };
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || length > LARGEST {
            break;
        }
        if of == call.as_bytes() && *which == side(wanted) {
            let mut sealed = vec![0; length];
            if !whole(reader.read_exact(&mut sealed))? {
                break;
            }
            found = Some((u64::from_be_bytes(*all), sealed));
        } else {
            reader.seek_relative(i64::try_from(length).unwrap_or(i64::MAX))?;
        }
    }
    Ok(found)
}

/// Whether all was read; an end too early is no fault.
fn whole(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// The files of a day, oldest first.
fn segments(dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if let Some(number) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// A day's key, sealed. What a cut short erasure left of one is none.
fn sealed(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(sealed) => Ok(Some(sealed).filter(|sealed| !is_blank(sealed))),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// The beginning of a text that is kept, cut between characters.
fn cut(text: &[u8]) -> &[u8] {
    let mut end = text.len().min(LONGEST);
    while end > 0 && text.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

const fn side(side: Side) -> u8 {
    match side {
        Side::Arguments => 0,
        Side::Result => 1,
    }
}

/// What a key or a text is for: it opens in no other place.
struct Label {
    day: Vec<u8>,
}

impl Label {
    fn new(tenant: &TenantId, day: Day) -> Self {
        Self { day: format!("durward/text/1\0{tenant}\0{day}").into_bytes() }
    }

    fn of(&self, call: &CallId, which: Side, whole: u64) -> Vec<u8> {
        let mut label = self.day.clone();
        label.push(0);
        label.extend_from_slice(call.as_bytes());
        label.push(side(which));
        label.extend_from_slice(&whole.to_be_bytes());
        label
    }
}
