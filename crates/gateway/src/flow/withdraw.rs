//! What takes back questions of a call that ends before the client has answered them.

use super::{End, Flow};
use crate::upstream::{Source, exchange};
use bytes::Bytes;

impl Flow {
    /// What tells the client that nobody waits for its answers any more, as events.
    pub(super) fn withdrawals(&mut self, end: &End) -> Vec<Bytes> {
        // Whoever left is told nothing, and what ended by itself has nothing open.
        let (End::Stopped(_), Source::Bridged(rounds)) = (end, &mut self.source) else { return Vec::new() };
        let withdrawn = rounds.withdrawn();
        let texts = withdrawn.into_iter().filter_map(|text| self.as_shown(text));
        texts.map(|text| mcp::sse::encode(&text, None)).collect()
    }

    /// The client may know a question by another id.
    fn as_shown(&self, text: Bytes) -> Option<Bytes> {
        let message = exchange::one(text.clone(), &mcp::Limits::default()).ok()?;
        self.renamed(None, &message, text).ok()?
    }
}
