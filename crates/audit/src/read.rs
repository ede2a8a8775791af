//! Reading records back: one, a page in either direction, those of a call, those that match.
//!
//! Reads what the newest checkpoint covers and verifies nothing: that is `verify.rs`. Never writes.

use crate::{
    disk::Disk,
    note::Checkpoint,
    tile::{Store, Tree, WIDTH, entries_of},
    tree::items,
};
use memchr::memmem;
use serde_json::Value;
use std::{
    io,
    ops::Range,
    path::Path,
    time::{Duration, SystemTime},
};
use vocab::{CallId, Timestamp};

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFault {
    /// The disk refused, or a file is missing.
    #[error("the log cannot be read")]
    Disk(#[from] io::Error),
    /// There is a checkpoint that is not one.
    #[error("the checkpoint of `{0}` is not one")]
    Checkpoint(Tree),
    /// Another tree lies in this one's place.
    #[error(
        "the checkpoint of `{tree}` is that of `{origin}`: another tree lies in its place; `audit verify` says more"
    )]
    Other {
        /// Which was to be read.
        tree: Tree,
        /// Which it is.
        origin: String,
    },
    /// A record is not JSON.
    #[error("record {index} cannot be read")]
    Record {
        /// Which.
        index: u64,
        /// Why not.
        #[source]
        cause: serde_json::Error,
    },
}

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place in the tree.
    pub index: u64,
    /// Its text, as hashed.
    pub leaf: Vec<u8>,
    /// The same, parsed: `index`, `kind`, `record`, `v`.
    pub value: Value,
}

/// Which records are wanted. What is absent matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// `intent`, `call`, `admin` or `system`.
    pub kind: Option<String>,
    /// The agent.
    pub agent: Option<String>,
    /// The user.
    pub user: Option<String>,
    /// The issuer of the token.
    pub issuer: Option<String>,
    /// The server.
    pub server: Option<String>,
    /// The tool, prompt, resource or method.
    pub target: Option<String>,
    /// The outcome: `answered`, `refused`, …
    pub outcome: Option<String>,
    /// The call id.
    pub call: Option<CallId>,
    /// The caller's trace id.
    pub trace: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// Which way a page goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Oldest,
    /// Newest first.
    Newest,
}

/// Which page is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Which records.
    pub filter: Filter,
    /// Which way.
    pub order: Order,
    /// The first index to look at; absent means the first in order. A cursor stays valid for ever.
    pub from: Option<u64>,
    /// How many records at most.
    pub limit: usize,
    /// How many records to look at, at most: bounds the work of a page.
    pub scan: u64,
}

/// A page.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The records, in order.
    pub entries: Vec<Entry>,
    /// Where the next page begins; absent at the end.
    pub next: Option<u64>,
}

/// Reads one tree, as far as it was signed when this was opened.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    note: Option<String>,
    size: u64,
}

impl Reader {
    /// Opens a tree of the log at `dir`.
    pub fn open(dir: &Path, tree: &Tree) -> Result<Self, ReadFault> {
        let store = Store::new(tree.path(dir), Disk::default());
        let note = store.checkpoint()?;
        let size = match &note {
            Some(note) => {
                let (origin, size) = Checkpoint::said_in(note).ok_or_else(|| ReadFault::Checkpoint(tree.clone()))?;
                if tree.other_than(&origin).is_some() {
                    return Err(ReadFault::Other { tree: tree.clone(), origin });
                }
                size
            }
            None => 0,
        };
        Ok(Self { store, note, size })
    }

    /// How many records there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The signed note that covers them, if there is one.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// One record.
    pub fn get(&self, index: u64) -> Result<Option<Entry>, ReadFault> {
        if index >= self.size {
            return Ok(None);
        }
        let leaf = self.store.entry(index, self.size)?;
        parse(index, leaf).map(Some)
    }

    /// The records of a call, oldest first: its intent and its closing, or one of them.
    pub fn find(&self, call: &CallId) -> Result<Vec<Entry>, ReadFault> {
        let filter = Filter { call: Some(*call), ..Filter::default() };
        let query = Query { filter, order: Order::Newest, from: None, limit: 8, scan: u64::MAX };
        let mut entries = Vec::new();
        let mut query = Some(query);
        while let Some(asked) = query.take() {
            let page = self.page(&asked)?;
            entries.extend(page.entries);
            // A call's closing comes after its intent, which it cites: newest first, the intent ends the search, and a
            // closing without one too.
            let begun = entries.iter().any(|entry| {
                text(&entry.value, &["kind"]) != Some("call") || entry.value.pointer("/record/intent").is_none()
            });
            query = page.next.filter(|_| !begun).map(|next| Query { from: Some(next), ..asked });
        }
        entries.reverse();
        Ok(entries)
    }

    /// A page of the records that match.
    pub fn page(&self, query: &Query) -> Result<Page, ReadFault> {
        let mut page = Page::default();
        let Some(last) = self.size.checked_sub(1) else { return Ok(page) };
        let start = match (query.order, query.from) {
            (Order::Oldest, from) => from.unwrap_or(0),
            (Order::Newest, from) => from.unwrap_or(last).min(last),
        };
        let mut at = Some(start).filter(|start| *start < self.size);
        let mut looked = 0;
        let sieve = Sieve::of(&query.filter);
        let mut bundle: Option<Bundle> = None;
        while let Some(index) = at {
            if page.entries.len() >= query.limit || looked >= query.scan {
                page.next = Some(index);
                return Ok(page);
            }
            let n = index / WIDTH;
            let current = match bundle.take().filter(|bundle| bundle.n == n) {
                Some(current) => current,
                None => self.bundle(n, &sieve, query.filter.since)?,
            };
            let step = if current.leaves.is_some() {
                let leaf = current.leaf(index)?;
                if sieve.lets(leaf) && in_time(&query.filter, leaf) {
                    let entry = parse(index, leaf.to_vec())?;
                    if query.filter.matches(&entry.value) {
                        page.entries.push(entry);
                    }
                }
                1
            } else {
                // Nothing in it fits: all of it was looked at.
                match query.order {
                    Order::Oldest => WIDTH - index % WIDTH,
                    Order::Newest => index % WIDTH + 1,
                }
            };
            bundle = Some(current);
            looked += step;
            at = match query.order {
                Order::Oldest => Some(index + step).filter(|next| *next < self.size),
                Order::Newest => index.checked_sub(step),
            };
        }
        Ok(page)
    }

    /// Bundle `n`, unless nothing in it can fit.
    fn bundle(&self, n: u64, sieve: &Sieve, since: Option<Timestamp>) -> Result<Bundle, ReadFault> {
        let nothing = Bundle { n, bytes: Vec::new(), leaves: None };
        if let Some(since) = since
            && self.store.written(n).is_some_and(|written| is_before(written, since))
        {
            return Ok(nothing);
        }
        let bytes = self.store.bundle(n, (self.size - n * WIDTH).min(WIDTH))?;
        if !sieve.lets(&bytes) {
            return Ok(nothing);
        }
        let mut leaves = Vec::with_capacity(items(WIDTH));
        let mut end = 0;
        for leaf in entries_of(&bytes) {
            let length = leaf?.len();
            leaves.push(end + 2..end + 2 + length);
            end += 2 + length;
        }
        Ok(Bundle { n, bytes, leaves: Some(leaves) })
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }
}

impl Filter {
    fn matches(&self, value: &Value) -> bool {
        let says = |wanted: Option<&str>, path: &[&str]| wanted.is_none_or(|wanted| text(value, path) == Some(wanted));
        let at = value.get("record").and_then(|record| record.get("at")?.as_i64()).map(Timestamp::from_micros);
        says(self.kind.as_deref(), &["kind"])
            && says(self.agent.as_deref(), &["record", "agent"])
            && says(self.user.as_deref(), &["record", "user"])
            && says(self.issuer.as_deref(), &["record", "issuer"])
            && says(self.server.as_deref(), &["record", "server"])
            && says(self.target.as_deref(), &["record", "target"])
            && says(self.outcome.as_deref(), &["record", "outcome", "is"])
            && says(self.trace.as_deref(), &["record", "trace"])
            && says(self.call.map(|call| call.to_string()).as_deref(), &["record", "call"])
            && self.since.is_none_or(|since| at.is_some_and(|at| at >= since))
            && self.until.is_none_or(|until| at.is_some_and(|at| at < until))
    }
}

/// The text at a path of members.
fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(value, |value, member| value.get(member))?.as_str()
}

fn parse(index: u64, leaf: Vec<u8>) -> Result<Entry, ReadFault> {
    let value = serde_json::from_slice(&leaf).map_err(|cause| ReadFault::Record { index, cause })?;
    Ok(Entry { index, leaf, value })
}

/// One bundle while a page is read.
struct Bundle {
    n: u64,
    bytes: Vec<u8>,
    /// Where its leaves lie. None if nothing in it can fit.
    leaves: Option<Vec<Range<usize>>>,
}

impl Bundle {
    fn leaf(&self, index: u64) -> io::Result<&[u8]> {
        let range = self.leaves.as_ref().and_then(|leaves| leaves.get(items(index % WIDTH)));
        let leaf = range.and_then(|range| self.bytes.get(range.clone()));
        leaf.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("record {index} is missing")))
    }
}

/// What the text of a record must contain to fit: most need not be parsed. Leaves are canonical, so that a member has
/// one spelling; and a quote inside a text is escaped, so that no text can look like a member.
struct Sieve(Vec<memmem::Finder<'static>>);

impl Sieve {
    fn of(filter: &Filter) -> Self {
        let members = [
            ("kind", &filter.kind),
            ("agent", &filter.agent),
            ("user", &filter.user),
            ("issuer", &filter.issuer),
            ("server", &filter.server),
            ("target", &filter.target),
            ("is", &filter.outcome),
            ("trace", &filter.trace),
            ("call", &filter.call.map(|call| call.to_string())),
        ];
        let finder = |(name, wanted): (&str, &Option<String>)| {
            let member = format!("\"{name}\":{}", Value::from(wanted.as_deref()?));
            Some(memmem::Finder::new(&member).into_owned())
        };
        Self(members.into_iter().filter_map(finder).collect())
    }

    fn lets(&self, text: &[u8]) -> bool {
        self.0.iter().all(|finder| finder.find(text).is_some())
    }
}

/// Whether the time that stands in a leaf may be one that is asked for. `at` is the first member of that name in every
/// kind of record.
fn in_time(filter: &Filter, leaf: &[u8]) -> bool {
    if filter.since.is_none() && filter.until.is_none() {
        return true;
    }
    let found = memmem::find(leaf, b"\"at\":").and_then(|place| leaf.get(place + 5..));
    let digits = found.map(|rest| rest.split(|byte| !byte.is_ascii_digit()).next().unwrap_or_default());
    let at = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).map(Timestamp::from_micros);
    // What cannot be read so is parsed.
    at.is_none_or(|at| filter.since.is_none_or(|since| at >= since) && filter.until.is_none_or(|until| at < until))
}

/// How much the clock may have been set back between a record and the writing of its bundle.
const CLOCK: Duration = Duration::from_hours(1);

fn is_before(written: SystemTime, since: Timestamp) -> bool {
    let micros = written.duration_since(SystemTime::UNIX_EPOCH).ok().and_then(|it| i64::try_from(it.as_micros()).ok());
    micros.is_some_and(|micros| Timestamp::from_micros(micros).plus(CLOCK) < since)
}

#[cfg(test)]
mod tests;
