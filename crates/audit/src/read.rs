//! Reading records back: one, a page in either direction, those of a call, those that match.
//!
//! Reads what the newest checkpoint covers and verifies nothing: that is `verify.rs`. Never writes.

use crate::{
    disk::Disk,
    note::Checkpoint,
    tile::{Store, Tree, WIDTH},
    tree::items,
};
use serde_json::Value;
use std::{io, path::Path};
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
            Some(note) => Checkpoint::size_of(note).ok_or_else(|| ReadFault::Checkpoint(tree.clone()))?,
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
            // A call's closing comes after its intent: newest first, the intent ends the search.
            let begun = entries.iter().any(|entry| text(&entry.value, &["kind"]) != Some("call"));
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
        let needle = query.filter.call.map(|call| format!("\"call\":\"{call}\""));
        let mut bundle: Option<(u64, Vec<Vec<u8>>)> = None;
        while let Some(index) = at {
            if page.entries.len() >= query.limit || looked >= query.scan {
                page.next = Some(index);
                return Ok(page);
            }
            looked += 1;
            let n = index / WIDTH;
            if bundle.as_ref().is_none_or(|(of, _)| *of != n) {
                bundle = Some((n, self.store.entries(n, (self.size - n * WIDTH).min(WIDTH))?.0));
            }
            let leaf = bundle.as_ref().and_then(|(_, entries)| entries.get(items(index % WIDTH)));
            let leaf =
                leaf.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("record {index} is missing")))?;
            // Most records of a search for one call need not be parsed.
            if needle.as_ref().is_none_or(|needle| contains(leaf, needle)) {
                let entry = parse(index, leaf.clone())?;
                if query.filter.matches(&entry.value) {
                    page.entries.push(entry);
                }
            }
            at = match query.order {
                Order::Oldest => Some(index + 1).filter(|next| *next < self.size),
                Order::Newest => index.checked_sub(1),
            };
        }
        Ok(page)
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

fn contains(leaf: &[u8], needle: &str) -> bool {
    std::str::from_utf8(leaf).is_ok_and(|leaf| leaf.contains(needle))
}

#[cfg(test)]
mod tests;
