//! Tokens whose signature was verified, so that it is verified once and not on every call.

use crate::{principal::Principal, token::Validity};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use vocab::{Digest, Timestamp};

const SHARDS: usize = 64;
/// Per shard, so that the whole holds 8,192 tokens and an insertion copies at most 128 pointers.
const MOST: usize = 128;

/// A token that passed every check that does not change with time.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) principal: Principal,
    pub(crate) validity: Validity,
    /// Position of the issuer in the snapshot.
    pub(crate) issuer: usize,
    /// Version of the issuer's key set that verified it: a key that is withdrawn takes its tokens along.
    pub(crate) keys: u64,
}

/// Something about each of the tokens that were verified, and until when each is good. Bounded, read without a lock, keyed
/// by the digest of the token.
#[derive(Debug)]
pub(crate) struct Tokens<T> {
    shards: [Shard<T>; SHARDS],
}

type Shard<T> = ArcSwap<HashMap<Digest, (Timestamp, T)>>;

impl<T> Default for Tokens<T> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| ArcSwap::default()) }
    }
}

impl<T: Clone> Tokens<T> {
    fn shard(&self, token: &Digest) -> Option<&Shard<T>> {
        let [first, ..] = token.as_bytes();
        self.shards.get(usize::from(*first) % SHARDS)
    }

    pub(crate) fn get(&self, token: &Digest) -> Option<T> {
        self.shard(token)?.load().get(token).map(|(_, known)| known.clone())
    }

    pub(crate) fn insert(&self, token: Digest, until: Timestamp, known: &T, now: Timestamp) {
        let Some(shard) = self.shard(&token) else { return };
        shard.rcu(|entries| {
            let mut entries = HashMap::clone(entries);
            if entries.len() >= MOST {
                entries.retain(|_, (until, _)| *until > now);
            }
            if entries.len() >= MOST
                && let Some(first) = entries.iter().min_by_key(|(_, (until, _))| *until).map(|(token, _)| *token)
            {
                entries.remove(&first);
            }
            entries.insert(token, (until, known.clone()));
            entries
        });
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.load().len()).sum()
    }
}
