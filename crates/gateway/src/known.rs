//! Lists that detectors have looked into and found clean. Servers send the same list again and again.
//!
//! Holds digests, never texts. Belongs to one snapshot: what detectors look for does not change under it.

use arc_swap::ArcSwap;
use std::sync::Arc;
use vocab::Digest;

/// Lists kept per server: tools, prompts, resources, templates, a few pages each.
const KEPT: usize = 16;

/// What was found clean on one server.
#[derive(Default)]
pub(crate) struct Clean(ArcSwap<Vec<Digest>>);

impl Clean {
    /// Whether this very text was found clean before.
    pub(crate) fn knows(&self, digest: &Digest) -> bool {
        self.0.load().contains(digest)
    }

    /// Remembers a text, and forgets the oldest one for it.
    pub(crate) fn keep(&self, digest: Digest) {
        self.0.rcu(|known| {
            let mut known = Vec::clone(known);
            known.retain(|one| *one != digest);
            known.push(digest);
            let surplus = known.len().saturating_sub(KEPT);
            known.drain(..surplus);
            Arc::new(known)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let clean = Clean::default();
        let texts: Vec<Digest> = (0..=KEPT).map(|number| Digest::of(&[u8::try_from(number).unwrap()])).collect();
        for text in &texts {
            clean.keep(*text);
            assert!(clean.knows(text));
        }
        assert!(!clean.knows(&texts[0]));
        assert!(clean.knows(&texts[1]));
    }
}
