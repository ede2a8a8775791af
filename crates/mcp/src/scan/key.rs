//! Keys of open objects, and whether two of them are the same.

use super::Span;

/// A key of an object that is being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Where its quote stands in the text.
    at: u32,
    start: u32,
    end: u32,
    /// `start` and `end` are in the unescaped keys, not in the text.
    unescaped: bool,
}

impl Key {
    pub(super) fn plain(at: usize, inner: Span) -> Self {
        Self { at: narrow(at), start: narrow(inner.start), end: narrow(inner.end), unescaped: false }
    }

    pub(super) fn unescaped(at: usize, place: Span) -> Self {
        Self { unescaped: true, ..Self::plain(at, place) }
    }

    const fn length(self) -> u32 {
        self.end - self.start
    }
}

/// Texts are shorter than 4 GiB: the scanner refuses longer ones before it makes a key.
fn narrow(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// What a key says, escapes resolved.
pub(super) fn spelling<'a>(text: &'a [u8], unescaped: &'a [u8], key: Key) -> &'a [u8] {
    let place = key.start as usize..key.end as usize;
    if key.unescaped { unescaped.get(place) } else { text.get(place) }.unwrap_or_default()
}

/// Up to here every pair is compared; beyond, the keys are sorted. Neither way can be made slow by chosen keys, as a
/// hash table could.
const FEW: usize = 12;

/// Where the second of two equal keys stands. May reorder `keys`.
pub(super) fn first_twin(text: &[u8], unescaped: &[u8], keys: &mut [Key]) -> Option<usize> {
    let say = |key: &Key| spelling(text, unescaped, *key);
    if keys.len() <= FEW {
        let mut rest: &[Key] = keys;
        while let [first, others @ ..] = rest {
            let twin = others.iter().find(|other| other.length() == first.length() && say(other) == say(first));
            if let Some(twin) = twin {
                return Some(twin.at as usize);
            }
            rest = others;
        }
        return None;
    }
    keys.sort_unstable_by(|a, b| say(a).cmp(say(b)).then(a.at.cmp(&b.at)));
    let twins = keys.windows(2).filter_map(|pair| match pair {
        [a, b] if a.length() == b.length() && say(a) == say(b) => Some(b.at as usize),
        _ => None,
    });
    twins.min()
}
