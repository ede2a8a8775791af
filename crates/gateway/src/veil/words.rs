//! The credentials of one server as they are usually written, and where in a text they stand.
//!
//! Base64 and what stands behind a scheme are words of their own. What may be written in many ways, as it is
//! percent-encoded or escaped, is undone in the text.

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_STANDARD_NO_PAD, prelude::BASE64_URL_SAFE_NO_PAD};
use guard::{Detector, Match};
use memchr::{memchr, memmem};
use std::{cmp::Reverse, ops::Range};
use vocab::Secret;

pub(super) const KIND: &str = "credential";
/// How often a text may be percent-encoded.
const LAYERS: usize = 3;
/// How many bytes at most stand for one, escaped in whatever way.
const WIDEST: usize = 8;

/// The longest first: one that contains another is hidden whole.
#[derive(Debug)]
pub(crate) struct Words {
    list: Vec<Secret<String>>,
    /// JSON writes some letter of them with an escape.
    escaped: bool,
}

impl Words {
    /// Each line of each secret that is not shorter than `least`. None where there is none.
    pub(crate) fn of<'a>(secrets: impl IntoIterator<Item = &'a Secret<String>>, least: usize) -> Option<Self> {
        let mut list = Vec::new();
        for secret in secrets {
            for line in secret.expose().lines().map(str::trim).filter(|line| line.len() >= least) {
                spell(line, least, &mut list);
            }
        }
        list.sort_by(|a, b| (Reverse(a.expose().len()), a.expose()).cmp(&(Reverse(b.expose().len()), b.expose())));
        list.dedup_by(|a, b| a.expose() == b.expose());
        let escaped =
            list.iter().any(|word| word.expose().contains(|c: char| !c.is_ascii_graphic() || "\"\\/".contains(c)));
        (!list.is_empty()).then_some(Self { list, escaped })
    }

    /// How long one of them may be where it is written with escapes.
    pub(crate) fn widest(&self) -> usize {
        self.list.first().map_or(0, |word| word.expose().len().saturating_mul(WIDEST))
    }

    /// Whether one of them is in a text, as it is or percent-encoded.
    pub(super) fn are_in(&self, text: &[u8]) -> bool {
        self.list.iter().any(|word| memmem::find(text, word.expose().as_bytes()).is_some())
            || (memchr(b'%', text).is_some() && !self.spans(text).is_empty())
    }

    /// Whether they may be in a JSON text, in whatever way that is written.
    pub(super) fn may_be_in(&self, json: &[u8]) -> bool {
        self.are_in(json)
            || memmem::find(json, b"\\u00").is_some()
            || memmem::find(json, b"\"blob\"").is_some()
            || (self.escaped && memchr(b'\\', json).is_some())
    }

    /// Where they stand in a text, in order: as they are and percent-encoded. None lies within another.
    pub(super) fn spans(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut spans = self.verbatim(text);
        let mut layers: Vec<Decoded> = Vec::new();
        while layers.len() < LAYERS
            && let Some(layer) = Decoded::of(layers.last().map_or(text, |layer| layer.text.as_slice()))
        {
            let found = self.verbatim(&layer.text);
            layers.push(layer);
            let written = |span| layers.iter().rev().fold(span, |span, layer| layer.written(&span));
            spans.extend(found.into_iter().map(written));
        }
        spans.sort_by_key(|span| (span.start, Reverse(span.end)));
        let mut reached = 0;
        spans.retain(|span| {
            let new = span.end > reached;
            reached = reached.max(span.end);
            new
        });
        spans
    }

    fn verbatim(&self, text: &[u8]) -> Vec<Range<usize>> {
        let words = self.list.iter().map(|word| word.expose().as_bytes());
        words.flat_map(|word| memmem::find_iter(text, word).map(|start| start..start + word.len())).collect()
    }
}

impl Detector for Words {
    fn family(&self) -> &'static str {
        KIND
    }

    fn may_find(&self, json: &str) -> bool {
        self.may_be_in(json.as_bytes())
    }

    // A word is whole characters, and an escape begins and ends between two: so do the spans.
    fn find(&self, text: &str, found: &mut Vec<Match>) {
        found.extend(self.spans(text.as_bytes()).into_iter().map(|span| Match { kind: KIND, span }));
    }
}

/// A value, what its scheme is followed by, and each of them in base64, alone and within more, and with the plus that forms
/// write for a space.
fn spell(value: &str, least: usize, list: &mut Vec<Secret<String>>) {
    let mut values = vec![Secret::new(value.to_owned())];
    if let Some((scheme, rest)) =
        value.split_once(' ').filter(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphabetic()))
    {
        values.push(Secret::new(rest.to_owned()));
        let pair = if scheme.eq_ignore_ascii_case("basic") { BASE64_STANDARD.decode(rest).ok() } else { None };
        if let Some(pair) = pair.and_then(|pair| String::from_utf8(pair).ok()) {
            values.extend(pair.split_once(':').map(|(_, password)| Secret::new(password.to_owned())));
            values.push(Secret::new(pair));
        }
    }
    values.retain(|value| value.expose().len() >= least);
    for value in values {
        if value.expose().contains(' ') {
            list.push(Secret::new(value.expose().replace(' ', "+")));
        }
        for engine in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
            // Without padding it is found with it, too.
            list.push(Secret::new(engine.encode(value.expose())));
            list.extend((0..3).filter_map(|before| encoded_within(&engine, value.expose(), before)));
        }
        list.push(value);
    }
}

/// What a value alone says in the base64 of a longer text: with something behind it, and with as many bytes before it as
/// `before`, or three more any number of times. A letter that says something of its neighbour too is another each time.
fn encoded_within(engine: &impl Engine, value: &str, before: usize) -> Option<Secret<String>> {
    let whole = Secret::new([" ".repeat(before).as_str(), value].concat());
    let code = Secret::new(engine.encode(whole.expose()));
    let own = (before * 8).div_ceil(6)..whole.expose().len() * 8 / 6;
    code.expose().get(own).map(|own| Secret::new(own.to_owned()))
}

/// A text with its percent-encoding undone.
struct Decoded {
    text: Vec<u8>,
    /// Where in it stands what was written with three bytes.
    escapes: Vec<usize>,
}

impl Decoded {
    /// None if nothing is encoded.
    fn of(source: &[u8]) -> Option<Self> {
        let (mut text, mut escapes, mut rest) = (Vec::new(), Vec::new(), source);
        while let Some((before, escape)) = memchr(b'%', rest).and_then(|at| rest.split_at_checked(at)) {
            text.extend_from_slice(before);
            let byte = escape.get(1..3).and_then(byte);
            if byte.is_some() {
                escapes.push(text.len());
            }
            text.push(byte.unwrap_or(b'%'));
            rest = escape.get(if byte.is_some() { 3 } else { 1 }..).unwrap_or_default();
        }
        if escapes.is_empty() {
            return None;
        }
        text.extend_from_slice(rest);
        Some(Self { text, escapes })
    }

    /// Where a range of the text stands in the source.
    fn written(&self, span: &Range<usize>) -> Range<usize> {
        let written = |at| at + 2 * self.escapes.partition_point(|escape| *escape < at);
        written(span.start)..written(span.end)
    }
}

/// The byte of two hexadecimal digits.
fn byte(digits: &[u8]) -> Option<u8> {
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}
