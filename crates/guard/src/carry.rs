//! The ends of the texts that a stream has already sent.
//!
//! A secret may be split over two events. What went out cannot be called back; the part in the later event can be
//! masked if the end of the earlier text is still known. Bounded: `PLACES` tails of `TAIL` bytes.

const TAIL: usize = 512;
const PLACES: usize = 32;
/// How much of the beginning of an overlong match is kept: enough for any keyword that starts one.
const HEAD: usize = 96;

/// Tails of the texts of one stream, by place. Start with `Carry::default()` and hand the same one to every message.
#[derive(Default)]
pub struct Carry {
    tails: Vec<(u64, String)>,
}

impl std::fmt::Debug for Carry {
    // SECURITY: the tails may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Carry({} places)", self.tails.len())
    }
}

impl Carry {
    /// What went before at this place.
    pub(crate) fn tail(&self, place: u64) -> Option<&str> {
        self.tails.iter().rev().find(|(known, _)| *known == place).map(|(_, tail)| tail.as_str())
    }

    /// Remembers the end of `text`. `open` is where a match starts that ran to the very end: its beginning is kept
    /// even when the match is longer than a tail, so that a third event is still understood.
    pub(crate) fn remember(&mut self, place: u64, text: &str, open: Option<usize>) {
        if text.is_empty() {
            return;
        }
        let known = self.tails.iter().rposition(|(known, _)| *known == place);
        let mut tail = known.map(|at| self.tails.remove(at).1).unwrap_or_default();
        if known.is_none() && self.tails.len() >= PLACES {
            self.tails.remove(0);
        }
        let before = tail.len();
        tail.push_str(last(text, TAIL + HEAD));
        if let Some(open) = open.filter(|open| before + text.len() - open > TAIL) {
            let whole = if open < before { tail.get(open..) } else { text.get(open - before..) }.unwrap_or_default();
            let mut kept = String::from(first(whole, HEAD));
            kept.push_str(last(text, TAIL - HEAD));
            tail = kept;
        } else if tail.len() > TAIL {
            tail = String::from(last(&tail, TAIL));
        }
        self.tails.push((place, tail));
    }
}

/// At most `count` bytes from the start.
pub(crate) fn first(text: &str, count: usize) -> &str {
    text.get(..text.floor_char_boundary(count)).unwrap_or_default()
}

/// At most `count` bytes from the end.
pub(crate) fn last(text: &str, count: usize) -> &str {
    text.get(text.ceil_char_boundary(text.len().saturating_sub(count))..).unwrap_or_default()
}
