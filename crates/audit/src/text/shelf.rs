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
use crate::disk::Disk;
use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};
use vocab::{CallId, Day, Side, TenantId};

/// What is longer is cut.
pub(super) const LONGEST: usize = 64 << 10;
/// Buffered bytes that are written before more is taken.
const BATCH: usize = 1 << 20;
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
    open: Option<Open>,
}

/// The day that is written to.
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
    dirty: bool,
}

/// A day as it is read.
pub(super) struct Found {
    path: PathBuf,
    label: Label,
    key: Option<Result<DayKey, super::SealFault>>,
}

impl Shelf {
    pub(super) fn new(dir: &Path, tenant: &TenantId, sealer: Sealer, disk: Disk) -> Self {
        Self { dir: dir.join("text").join(tenant.as_str()), tenant: tenant.clone(), sealer, disk, open: None }
    }

    /// Whether anything is written and may be in the memory of the system alone.
    pub(super) fn dirty(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.dirty)
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

    /// Writes what is buffered, if it is `all` there is for now or much. Gives how many texts; on failure, how many were
    /// lost.
    pub(super) fn flush(&mut self, all: bool) -> Result<u64, (u64, io::Error)> {
        let Some(open) = &mut self.open else { return Ok(0) };
        if open.buffered == 0 || (!all && open.buffer.len() < BATCH) {
            return Ok(0);
        }
        let buffered = std::mem::take(&mut open.buffered);
        let written = self.disk.write_at(&open.file, &open.buffer, open.end);
        let length = open.buffer.len() as u64;
        open.buffer.clear();
        written.map_err(|cause| (buffered, cause))?;
        open.end += length;
        open.dirty = true;
        Ok(buffered)
    }

    /// Returns when what was written is on the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        match &mut self.open {
            Some(open) if open.dirty => {
                open.dirty = false;
                self.disk.sync(&open.file)
            }
            _ => Ok(()),
        }
    }

    /// The day to read from.
    pub(super) fn find(&self, day: Day) -> io::Result<Found> {
        let path = self.path(day);
        let label = Label::new(&self.tenant, day);
        let key = match fs::read(path.join(KEY)) {
            Ok(sealed) => Some((self.sealer.open)(&label.day, &sealed)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
            Err(cause) => return Err(cause),
        };
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
            let path = self.path(day);
            if path.join(KEY).exists() || !segments(&path)?.is_empty() {
                days.push(day);
            }
        }
        days.sort_unstable();
        Ok(days)
    }

    /// Destroys the key and the texts of a day. `over`: nothing is kept for it any more. A crash at any point leaves
    /// what a second attempt ends.
    pub(super) fn erase(&mut self, day: Day, over: bool) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|open| open.day == day) {
            self.open = None;
        }
        let path = self.path(day);
        self.disk.create_dir(&path)?;
        File::create(path.join(if over { ERASED } else { EMPTIED }))?;
        destroy(&path.join(KEY))?;
        self.disk.sync_dir(&path)?;
        for (_, segment) in segments(&path)? {
            fs::remove_file(segment)?;
        }
        self.disk.sync_dir(&path)
    }

    /// Whether the file of another day is open: what is buffered belongs to that one.
    pub(super) fn is_elsewhere(&self, day: Day) -> bool {
        self.open.as_ref().is_some_and(|open| open.day != day)
    }

    /// The day, open for writing. `None` if it was erased.
    fn of(&mut self, day: Day) -> io::Result<Option<&mut Open>> {
        match &mut self.open {
            Some(open) if open.day == day => {}
            _ => {
                self.sync()?;
                self.open = None;
                if self.path(day).join(ERASED).exists() {
                    return Ok(None);
                }
                self.open = Some(self.begin(day)?);
            }
        }
        Ok(self.open.as_mut())
    }

    fn begin(&self, day: Day) -> io::Result<Open> {
        let dir = self.path(day);
        self.disk.create_dir(&dir)?;
        let label = Label::new(&self.tenant, day).day;
        let kept = dir.join(KEY);
        let sealed = match fs::read(&kept) {
            Ok(sealed) => sealed,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                // Without their key they are nothing.
                for (_, segment) in segments(&dir)? {
                    fs::remove_file(segment)?;
                }
                let sealed = (self.sealer.make)(&label).map_err(io::Error::other)?;
                self.disk.replace(&kept, &sealed, true)?;
                self.disk.sync_dir(&dir)?;
                sealed
            }
            Err(cause) => return Err(cause),
        };
        let key = (self.sealer.open)(&label, &sealed).map_err(io::Error::other)?;
        let segments = segments(&dir)?;
        let mut before = 0;
        for (_, segment) in &segments {
            before += fs::metadata(segment)?.len();
        }
        let number = segments.last().map_or(0, |(number, _)| number + 1);
        let path = dir.join(format!("{number:04}"));
        let file = self.disk.open(&path, false)?;
        self.disk.write_at(&file, &MAGIC, 0)?;
        let end = MAGIC.len() as u64;
        Ok(Open { day, key, file, end, before, buffer: Vec::new(), buffered: 0, dirty: true })
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

/// Writes over a file before its name goes: what the file system makes of that is its own affair.
fn destroy(path: &Path) -> io::Result<()> {
    let mut file = match File::options().write(true).open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(4096);
    file.write_all(&vec![0; length])?;
    file.sync_all()?;
    fs::remove_file(path)
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
