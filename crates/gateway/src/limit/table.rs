//! Finds the bucket of a rule and the names it is for. Bounded: full buckets that nobody holds make room.

use super::bucket::Bucket;
use foldhash::{fast, quality::RandomState};
use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Parts of the table with a lock each, so that workers rarely meet. A power of two.
const SHARDS: usize = 256;
/// Buckets per part: 131,072 in all.
const PER_SHARD: usize = 512;
/// Time between two searches for idle buckets in a part that is full, in nanoseconds.
const SEARCH: u64 = 1_000_000_000;

/// What a bucket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    pub(super) rule: u64,
    pub(super) of: Of<'a>,
}

/// Whom a bucket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Of<'a> {
    /// Tenant, agent, server or user, tool or issuer: those that the rule names.
    Names([Option<&'a str>; 4]),
    /// A source address.
    Address(u64),
    /// All addresses, or all names of this tenant and agent, that came when the table was full: whoever fills it is not
    /// in the way of others. SECURITY: of a rule that names neither it is one for everybody. With one for each agent they
    /// would have more together than the rule allows.
    Rest([Option<&'a str>; 2]),
}

impl Of<'_> {
    fn rest(self) -> Self {
        match self {
            Self::Names([tenant, agent, _, _]) | Self::Rest([tenant, agent]) => Self::Rest([tenant, agent]),
            Self::Address(_) => Self::STRANGERS,
        }
    }

    /// The addresses that came when the table was full.
    pub(super) const STRANGERS: Of<'static> = Of::Rest([None, None]);
}

#[derive(Debug)]
struct Entry {
    rule: u64,
    whose: Whose,
    bucket: Arc<Bucket>,
}

/// [`Of`], kept.
#[derive(Debug)]
enum Whose {
    Names([Option<Box<str>>; 4]),
    Address(u64),
    Rest([Option<Box<str>>; 2]),
}

#[derive(Debug, Default)]
struct Shard {
    /// By hash; the few that share one are told apart by their keys.
    entries: HashMap<u64, Vec<Entry>, fast::RandomState>,
    count: usize,
    search_at: u64,
}

/// Buckets by key.
#[derive(Debug)]
pub(super) struct Table {
    hasher: RandomState,
    shards: Vec<RwLock<Shard>>,
    per_shard: usize,
    /// Something was put in: before that nothing is looked for. Of guesses there are none for as long as nobody fails.
    used: AtomicBool,
}

impl Default for Table {
    fn default() -> Self {
        Self::bounded(PER_SHARD)
    }
}

impl Table {
    pub(super) fn bounded(per_shard: usize) -> Self {
        let shards = std::iter::repeat_with(RwLock::default).take(SHARDS).collect();
        Self { hasher: RandomState::default(), shards, per_shard, used: AtomicBool::new(false) }
    }

    /// A number for whatever tells one rule from another, the same for the life of the table.
    pub(super) fn id(&self, what: impl Hash) -> u64 {
        self.hasher.hash_one(what)
    }

    /// The bucket, if there is one.
    pub(super) fn find(&self, key: &Key<'_>) -> Option<Arc<Bucket>> {
        if !self.used.load(Ordering::Acquire) {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash)?.read().unwrap_or_else(PoisonError::into_inner);
        shard.find(hash, key)
    }

    /// The bucket, a new one if need be. When there is no room, what is new of an agent shares one: too strict for it,
    /// but no bucket is ever forgotten, and so refilled, before its time. Agents and rules are configured, so what comes
    /// beyond the bound is bounded, too.
    pub(super) fn bucket(&self, key: &Key<'_>, now: u64) -> Arc<Bucket> {
        if let Some(bucket) = self.find(key) {
            return bucket;
        }
        let rest = Key { rule: key.rule, of: key.of.rest() };
        self.insert(key, now, false).or_else(|| self.insert(&rest, now, true)).unwrap_or_default()
    }

    fn insert(&self, key: &Key<'_>, now: u64, beyond: bool) -> Option<Arc<Bucket>> {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash)?.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = shard.find(hash, key) {
            return Some(bucket);
        }
        if shard.count >= self.per_shard && !beyond {
            shard.evict(now);
            if shard.count >= self.per_shard {
                return None;
            }
        }
        let entry = Entry::new(key);
        let bucket = Arc::clone(&entry.bucket);
        shard.entries.entry(hash).or_default().push(entry);
        shard.count += 1;
        self.used.store(true, Ordering::Release);
        Some(bucket)
    }

    fn shard(&self, hash: u64) -> Option<&RwLock<Shard>> {
        // The upper half: the map inside uses the lower.
        let at = usize::try_from(hash >> 32).unwrap_or_default() & (SHARDS - 1);
        self.shards.get(at)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap().count).sum()
    }
}

impl Shard {
    fn find(&self, hash: u64, key: &Key<'_>) -> Option<Arc<Bucket>> {
        let found = self.entries.get(&hash)?.iter().find(|entry| entry.is(key))?;
        Some(Arc::clone(&found.bucket))
    }

    /// Drops buckets that are full and that nobody holds.
    fn evict(&mut self, now: u64) {
        if now < self.search_at {
            return;
        }
        self.search_at = now.saturating_add(SEARCH);
        self.entries.retain(|_, entries| {
            // The only handle is ours, and the table is locked: nobody can be about to take from it.
            entries.retain_mut(|entry| !Arc::get_mut(&mut entry.bucket).is_some_and(|bucket| bucket.is_idle(now)));
            !entries.is_empty()
        });
        self.count = self.entries.values().map(Vec::len).sum();
    }
}

impl Entry {
    fn new(key: &Key<'_>) -> Self {
        let whose = match key.of {
            Of::Names(names) => Whose::Names(names.map(|name| name.map(Box::from))),
            Of::Address(address) => Whose::Address(address),
            Of::Rest(names) => Whose::Rest(names.map(|name| name.map(Box::from))),
        };
        Self { rule: key.rule, whose, bucket: Arc::default() }
    }

    fn is(&self, key: &Key<'_>) -> bool {
        let same = |names: &[Option<Box<str>>], wanted: &[Option<&str>]| {
            names.iter().map(Option::as_deref).eq(wanted.iter().copied())
        };
        self.rule == key.rule
            && match (&self.whose, key.of) {
                (Whose::Names(names), Of::Names(wanted)) => same(names, &wanted),
                (Whose::Address(address), Of::Address(wanted)) => *address == wanted,
                (Whose::Rest(names), Of::Rest(wanted)) => same(names, &wanted),
                (Whose::Names(_) | Whose::Address(_) | Whose::Rest(_), _) => false,
            }
    }
}
