//! Lists that were read before and found clean. Servers send the same list again and again: what comes again, byte for
//! byte, is neither scanned nor looked into again.
//!
//! Belongs to one snapshot: what detectors look for does not change under it.

use arc_swap::ArcSwap;
use audit::Fingerprint;
use bytes::Bytes;
use mcp::{Known, Limits, Message};
use std::sync::Arc;

/// Lists kept per server: tools, prompts, resources, templates, some of them in pages.
const KEPT: usize = 16;
/// All of them together, in bytes.
pub(crate) const BYTES: usize = 2 << 20;

/// A list that is known.
pub(crate) struct KnownList {
    result: Known,
    pub(crate) fingerprint: Fingerprint,
}

/// What is known of one server's lists, oldest first.
#[derive(Default)]
pub(crate) struct KnownLists(ArcSwap<Vec<Arc<KnownList>>>);

impl KnownLists {
    /// Reads a body whose result is known. `None` if it is not: then it is to be scanned.
    pub(crate) fn read(&self, body: &Bytes, limits: &Limits) -> Option<(Message, Arc<KnownList>)> {
        let known = self.0.load();
        known.iter().find_map(|list| Some((list.result.find_in(body, limits)?, Arc::clone(list))))
    }

    /// The list with this very text.
    pub(crate) fn find(&self, result: &[u8]) -> Option<Arc<KnownList>> {
        self.0.load().iter().find(|list| list.result.text() == result).map(Arc::clone)
    }

    /// Remembers a list that is clean, and forgets the oldest ones for it. `None` if it is too large.
    pub(crate) fn keep(&self, message: &Message) -> Option<Arc<KnownList>> {
        let result = Known::of(message).filter(|result| result.text().len() <= BYTES)?;
        let list = Arc::new(KnownList { fingerprint: Fingerprint::of(result.text()), result });
        self.0.rcu(|known| {
            let mut known = Vec::clone(known);
            known.retain(|one| one.result.text() != list.result.text());
            known.push(Arc::clone(&list));
            let mut room = BYTES;
            let fits = |list: &&Arc<KnownList>| {
                let left = room.checked_sub(list.result.text().len());
                room = left.unwrap_or_default();
                left.is_some()
            };
            let fitting = known.iter().rev().take(KEPT).take_while(fits).count();
            known.drain(..known.len() - fitting);
            Arc::new(known)
        });
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(number: usize, padding: usize) -> Message {
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[],"x":"{number}{}"}}}}"#, "-".repeat(padding));
        match mcp::scan(text.into(), &Limits::default()).unwrap() {
            mcp::Body::Single(message) => message,
            mcp::Body::Batch(_) => panic!("one message"),
        }
    }

    #[test]
    fn the_oldest_are_forgotten_first_by_number_and_by_size() {
        let lists = KnownLists::default();
        let knows = |list: &Message| lists.read(list.bytes(), &Limits::default()).is_some();
        let small: Vec<Message> = (0..=KEPT).map(|number| list(number, 0)).collect();
        for list in &small {
            assert!(lists.keep(list).is_some());
            assert!(knows(list));
        }
        assert!(!knows(&small[0]));
        assert!(knows(&small[1]));

        let large: Vec<Message> = (0..3).map(|number| list(number, BYTES * 2 / 5)).collect();
        for list in &large {
            assert!(lists.keep(list).is_some());
        }
        assert_eq!([&large[0], &large[1], &large[2], &small[KEPT]].map(knows), [false, true, true, false]);
    }
}
