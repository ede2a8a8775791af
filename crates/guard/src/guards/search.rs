//! Looks at one string the ways a reader might: as written, with escapes undone, and as the value of its name.

use crate::carry::first;
use crate::detector::{Detector, HIGH_ENTROPY, Match};
use crate::escape::Plain;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::ops::Range;

/// How often a text may be escaped within itself.
const LAYERS: usize = 3;
/// The longest name that a value is read with.
const LONGEST_NAME: usize = 64;
/// How much of the next text is read together with the end of the last one.
const JOINT: usize = 2048;

/// One string with its readings.
pub(super) struct Seen<'t> {
    raw: &'t str,
    /// The outermost escapes belong to the JSON text, not to the string.
    escaped: bool,
    layers: Vec<Plain>,
}

impl<'t> Seen<'t> {
    pub(super) fn of(raw: &'t str, escaped: bool) -> Self {
        let mut layers: Vec<Plain> = Vec::new();
        let most = LAYERS + usize::from(escaped);
        while layers.len() < most {
            let outer = layers.last().map_or(raw, |layer| layer.text.as_str());
            if !outer.contains('\\') {
                break;
            }
            let plain = Plain::of(outer);
            if plain.text == outer {
                break;
            }
            layers.push(plain);
        }
        Self { raw, escaped, layers }
    }

    /// The string as the receiver of the JSON text reads it.
    pub(super) fn plain(&self) -> &str {
        self.layers.first().filter(|_| self.escaped).map_or(self.raw, |layer| layer.text.as_str())
    }

    /// Where a byte of the written string lies in the plain one.
    pub(super) fn plain_offset(&self, raw: usize) -> usize {
        let Some(layer) = self.layers.first().filter(|_| self.escaped) else { return raw };
        layer.text.char_indices().map(|(at, _)| at).find(|at| layer.origin(*at) >= raw).unwrap_or(layer.text.len())
    }

    /// Everything in all readings, in ranges of the written string.
    pub(super) fn search(&self, detector: &dyn Detector, name: Option<&str>) -> Vec<Match> {
        let mut found = Vec::new();
        match name.filter(|name| !name.is_empty() && name.len() <= LONGEST_NAME) {
            Some(name) => named(detector, name, self.plain(), &mut found),
            None => detector.find(self.plain(), &mut found),
        }
        let base = usize::from(self.escaped);
        for found in &mut found {
            found.span = self.written(found.span.clone(), base);
        }
        for depth in base + 1..=self.layers.len() {
            let Some(layer) = self.layers.get(depth - 1) else { break };
            let mut deeper = Vec::new();
            detector.find(&layer.text, &mut deeper);
            found.extend(deeper.into_iter().map(|m| Match { kind: m.kind, span: self.written(m.span, depth) }));
        }
        // The outer reading names what several have found.
        found.sort_by_key(|m| m.span.start);
        let mut reached = 0;
        found.retain(|m| {
            let new = m.span.end > reached;
            reached = reached.max(m.span.end);
            new
        });
        found
    }

    /// What begins in `tail` and ends in this string: the parts in this string, and where such a match begins in the
    /// two together if it runs to the end of the string.
    pub(super) fn search_across(&self, detector: &dyn Detector, tail: &str) -> (Vec<Match>, Option<usize>) {
        let head = first(self.plain(), JOINT);
        let (mut across, joined) = (Vec::new(), [tail, head].concat());
        detector.find(&joined, &mut across);
        // Two texts that say little each may look random together.
        across.retain(|m| m.kind != HIGH_ENTROPY && m.span.start < tail.len() && m.span.end > tail.len());
        let whole = tail.len() + self.plain().len();
        let open = across.iter().find(|m| m.span.end == whole).map(|m| m.span.start);
        // It is no open match: what it may become is told by its last bytes, all of which are kept.
        if open.is_none() && joined.len() == whole {
            let begun = detector.begun(&joined);
            across.extend(begun.filter(|m| m.span.start < tail.len() && m.span.end > tail.len()));
        }
        for m in &mut across {
            m.span = self.written(0..m.span.end - tail.len(), usize::from(self.escaped));
        }
        (across, open)
    }

    /// A range of the reading at `depth` as a range of the written string.
    fn written(&self, span: Range<usize>, depth: usize) -> Range<usize> {
        let outward = self.layers.iter().take(depth).rev();
        outward.fold(span, |span, layer| layer.origin(span.start)..layer.origin(span.end))
    }
}

/// Reads a value together with its name, so that `"password": "…"` is understood in structured content too.
fn named(detector: &dyn Detector, name: &str, value: &str, found: &mut Vec<Match>) {
    let text = ["\"", name, "\": \"", value, "\""].concat();
    let start = name.len() + 5;
    let end = start + value.len();
    detector.find(&text, found);
    found.retain_mut(|m| {
        let span = m.span.start.max(start)..m.span.end.min(end);
        let inside = !span.is_empty();
        if inside {
            m.span = span.start - start..span.end - start;
        }
        inside
    });
}

/// The text in a blob, if it is one.
pub(super) fn blob(raw: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(raw).ok()?).ok()
}

/// The blob of a text.
pub(super) fn to_blob(text: &str) -> String {
    STANDARD.encode(text)
}
