//! Changes members of objects in a scanned text. Everything else keeps its bytes, commas aside.

use crate::{Span, splice, splice::quote, walk::Walk};
use bytes::Bytes;
use std::borrow::Cow;

/// What becomes of a member.
pub(super) enum Fate {
    /// It stays; what lies in it may be changed on its own.
    Keep,
    /// It goes, with one of the commas beside it.
    Drop,
    /// It stays at its place with another value.
    Become(Vec<u8>),
}

/// A text and what is to be changed in it.
pub(super) struct Rewrite<'a> {
    text: &'a [u8],
    edits: Vec<(Span, Vec<u8>)>,
}

impl<'a> Rewrite<'a> {
    /// INVARIANT: `text` was scanned.
    pub(super) const fn new(text: &'a [u8]) -> Self {
        Self { text, edits: Vec::new() }
    }

    /// What lies at `span`.
    pub(super) fn raw(&self, span: &Span) -> &'a [u8] {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The whole text's place.
    pub(super) const fn whole(&self) -> Span {
        0..self.text.len()
    }

    /// Another value for the one at `span`.
    pub(super) fn replace(&mut self, span: Span, text: impl Into<Vec<u8>>) {
        self.edits.push((span, text.into()));
    }

    /// Decides each member of the object at `span` and puts `add` behind those that stay. What is no object stays as it
    /// is.
    pub(super) fn object(
        &mut self,
        span: &Span,
        mut fate: impl FnMut(&mut Self, &str, &Span) -> Fate,
        add: &[(&str, &[u8])],
    ) {
        let raw = self.raw(span);
        if !raw.trim_ascii_start().starts_with(b"{") {
            return;
        }
        let mut walk = Walk::new(raw, span.start);
        let mut kept_to = None;
        let mut dropped: Option<Span> = None;
        while let Some((start, key, value)) = walk.whole_member() {
            match fate(self, &key, &value) {
                Fate::Drop => {
                    let from = dropped.map_or_else(|| kept_to.unwrap_or(start), |run| run.start);
                    dropped = Some(from..value.end);
                    continue;
                }
                Fate::Keep => {}
                Fate::Become(text) => self.replace(value.clone(), text),
            }
            if let Some(run) = dropped.take() {
                // The comma before the run goes with it; where nothing stands before it, the one behind it.
                let end = if kept_to.is_some() { run.end } else { start };
                self.replace(run.start..end, Vec::new());
            }
            kept_to = Some(value.end);
        }
        if let Some(run) = dropped {
            self.replace(run, Vec::new());
        }
        if !add.is_empty() {
            let comma: &[u8] = if kept_to.is_some() { b"," } else { b"" };
            let opening = span.start + raw.len() - raw.trim_ascii_start().len() + 1;
            let at = kept_to.unwrap_or(opening);
            self.replace(at..at, [comma, members(add).as_slice()].concat());
        }
    }

    /// Goes through the elements of the array at `span`.
    pub(super) fn array(&mut self, span: &Span, mut each: impl FnMut(&mut Self, Span)) {
        let mut walk = Walk::new(self.raw(span), span.start);
        while let Some(element) = walk.element() {
            each(self, element);
        }
    }

    /// The changed text.
    pub(super) fn finish(mut self) -> Bytes {
        splice(self.text, &mut self.edits)
    }

    /// The changed text of a message; the same bytes where nothing was changed. INVARIANT: `bytes` are this text.
    pub(super) fn finish_in(self, bytes: &Bytes) -> Bytes {
        if self.edits.is_empty() { bytes.clone() } else { self.finish() }
    }
}

/// Takes members out of metadata and puts others in. Metadata of which nothing is left goes.
pub(super) fn without(rewrite: &mut Rewrite<'_>, meta: &Span, names: &[&str], add: &[(&str, &[u8])]) -> Fate {
    let raw = rewrite.raw(meta);
    if !is_object(raw) {
        return if add.is_empty() { Fate::Keep } else { Fate::Become(object(add)) };
    }
    let goes = |name: &str| names.contains(&name) || add.iter().any(|(added, _)| *added == name);
    let (mut any, mut all) = (false, true);
    for (name, _) in each(raw) {
        any |= goes(&name);
        all &= goes(&name);
    }
    if any && all && add.is_empty() {
        return Fate::Drop;
    }
    if any || !add.is_empty() {
        rewrite.object(meta, |_, name, _| if goes(name) { Fate::Drop } else { Fate::Keep }, add);
    }
    Fate::Keep
}

/// Members as text, without braces.
fn members(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in members {
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(quote(key).as_bytes());
        out.push(b':');
        out.extend_from_slice(value);
    }
    out
}

/// An object of these members.
pub(super) fn object(list: &[(&str, &[u8])]) -> Vec<u8> {
    [b"{", members(list).as_slice(), b"}"].concat()
}

/// A request, or without an id a notification.
pub(super) fn message_text(id: Option<&str>, method: &str, params: Option<&[u8]>) -> Bytes {
    let method = quote(method);
    let mut parts: Vec<(&str, &[u8])> = vec![("jsonrpc", b"\"2.0\"")];
    parts.extend(id.map(|id| ("id", id.as_bytes())));
    parts.push(("method", method.as_bytes()));
    parts.extend(params.map(|params| ("params", params)));
    Bytes::from(object(&parts))
}

/// Whether a raw value is an object.
pub(super) fn is_object(raw: &[u8]) -> bool {
    raw.starts_with(b"{")
}

/// Whether a raw value is a string.
pub(super) fn is_string(raw: &[u8]) -> bool {
    raw.starts_with(b"\"")
}

/// The value at `path` in a raw value.
pub(super) fn at<'a>(raw: &'a [u8], path: &[&str]) -> Option<&'a [u8]> {
    raw.get(crate::walk::find(raw, 0, path)?)
}

/// What the string at `path` in a raw value says.
pub(super) fn text_at<'a>(raw: &'a [u8], path: &[&str]) -> Option<Cow<'a, str>> {
    match at(raw, path)? {
        [b'"', inner @ .., b'"'] => crate::text::unescape(inner),
        _ => None,
    }
}

/// The members of a raw object.
pub(super) fn each(raw: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, &[u8])> {
    let mut walk = Walk::new(raw, 0);
    std::iter::from_fn(move || {
        let (key, value) = walk.member()?;
        Some((key, raw.get(value)?))
    })
}

/// The elements of a raw array.
pub(super) fn elements(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut walk = Walk::new(raw, 0);
    std::iter::from_fn(move || raw.get(walk.element()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str, drop: &[&str], add: &[(&str, &[u8])]) -> String {
        let mut rewrite = Rewrite::new(text.as_bytes());
        let fate = |_: &mut Rewrite<'_>, key: &str, _: &Span| match key {
            key if drop.contains(&key) => Fate::Drop,
            "new" => Fate::Become(b"2".to_vec()),
            _ => Fate::Keep,
        };
        rewrite.object(&rewrite.whole(), fate, add);
        String::from_utf8(rewrite.finish().to_vec()).unwrap()
    }

    #[test]
    fn members_go_with_the_right_comma() {
        let text = r#" { "a" : 1.0 , "b":[ ] , "c" : {"b":1} , "new":1 } "#;
        assert_eq!(rewritten(text, &[], &[]), text.replace(r#""new":1"#, r#""new":2"#));
        assert_eq!(rewritten(text, &["a"], &[]), r#" { "b":[ ] , "c" : {"b":1} , "new":2 } "#);
        assert_eq!(rewritten(text, &["a", "b"], &[]), r#" { "c" : {"b":1} , "new":2 } "#);
        assert_eq!(rewritten(text, &["b", "new"], &[]), r#" { "a" : 1.0 , "c" : {"b":1} } "#);
        assert_eq!(rewritten(text, &["c", "new"], &[("x", b"7")]), r#" { "a" : 1.0 , "b":[ ],"x":7 } "#);
        assert_eq!(rewritten(text, &["a", "b", "c", "new"], &[]), " {  } ");
        assert_eq!(rewritten(text, &["a", "b", "c", "new"], &[("x", b"7"), ("y", b"8")]), r#" {"x":7,"y":8  } "#);
        assert_eq!(rewritten("{}", &[], &[("x\"", b"7")]), r#"{"x\"":7}"#);
        assert_eq!(rewritten("[1]", &[], &[("x", b"7")]), "[1]");
    }
}
