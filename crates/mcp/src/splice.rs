//! Changes parts of a text and keeps every other byte.

use crate::{Span, text::write_quoted};
use bytes::Bytes;

/// Replaces ranges of `bytes`. Siblings keep their bytes.
///
/// Edits may come in any order and are sorted here. They must lie in `bytes` and not overlap; one that breaks
/// this is left out, which a caller that takes its spans from one scan of `bytes` cannot see happen.
pub fn splice(bytes: &[u8], edits: &mut [(Span, Vec<u8>)]) -> Bytes {
    edits.sort_by_key(|(span, _)| (span.start, span.end));
    let grown: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(bytes.len() + grown);
    let mut done = 0;
    for (span, text) in edits.iter() {
        if span.end < span.start || span.end > bytes.len() {
            continue;
        }
        let Some(kept) = bytes.get(done..span.start) else { continue };
        out.extend_from_slice(kept);
        out.extend_from_slice(text);
        done = span.end;
    }
    out.extend_from_slice(bytes.get(done..).unwrap_or_default());
    Bytes::from(out)
}

/// `text` as a JSON string literal, quotes included.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    write_quoted(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_apply_in_any_order_and_siblings_keep_their_bytes() {
        let mut edits = vec![(7..8, b"three".to_vec()), (1..2, b"one".to_vec()), (4..4, b"+".to_vec())];
        assert_eq!(splice(b"[1, 2, 3]", &mut edits), "[one, +2, three]");
    }

    #[test]
    fn an_edit_that_overlaps_or_lies_outside_is_left_out() {
        let mut edits = vec![(0..2, b"x".to_vec()), (1..3, b"y".to_vec()), (4..9, b"z".to_vec())];
        assert_eq!(splice(b"abcd", &mut edits), "xcd");
    }

    #[test]
    fn quoting_escapes_what_must_be() {
        assert_eq!(quote("a\"\\\n\u{1}\u{1f}ü"), "\"a\\\"\\\\\\n\\u0001\\u001fü\"");
    }
}
