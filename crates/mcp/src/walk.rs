//! Finds members and elements in a text that a scan accepted.
//!
//! Skips values without checking them again. Total on any bytes: a text that is no JSON yields nothing or nonsense
//! ranges inside it, never a panic.

use crate::{Span, text::unescape};
use std::borrow::Cow;

/// A reader of scanned text. Positions are relative to the text it was given, moved by `base`.
#[derive(Debug, Clone)]
pub(crate) struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    base: usize,
}

impl<'a> Walk<'a> {
    /// Walks the elements or members of the value `text`, which stands at `base` in the whole.
    pub(crate) const fn new(text: &'a [u8], base: usize) -> Self {
        Self { text, at: 0, base }
    }

    /// The next element of an array.
    pub(crate) fn element(&mut self) -> Option<Span> {
        if self.at == 0 && !self.skip_to(b'[') {
            return None;
        }
        self.separator(b']')?;
        let start = self.at;
        self.skip_value();
        (self.at > start).then(|| self.place(start, self.at))
    }

    /// The next member of an object: its key unescaped (`None` where the text is no JSON), and its value.
    pub(crate) fn member(&mut self) -> Option<(Cow<'a, str>, Span)> {
        self.whole_member().map(|(_, key, value)| (key, value))
    }

    /// The next member of an object, and where its key begins.
    pub(crate) fn whole_member(&mut self) -> Option<(usize, Cow<'a, str>, Span)> {
        if self.at == 0 && !self.skip_to(b'{') {
            return None;
        }
        self.separator(b'}')?;
        let key_at = self.at;
        let key = self.key_here()?;
        let start = self.at;
        self.skip_value();
        Some((self.base + key_at, key, self.place(start, self.at)))
    }

    /// Goes into the object that comes next: [`key`](Self::key) gives its members until they are over.
    pub(crate) fn open(&mut self) {
        self.skip_to(b'{');
    }

    /// The key of the next member of the object that was gone into, before its value. `None` behind the object's end.
    pub(crate) fn key(&mut self) -> Option<Cow<'a, str>> {
        if self.separator(b'}').is_none() {
            self.at = (self.at + 1).min(self.text.len());
            return None;
        }
        self.key_here()
    }

    /// Goes into the list that comes next: [`item`](Self::item) says of each element that it comes, until they are over.
    pub(crate) fn open_list(&mut self) {
        self.skip_to(b'[');
    }

    /// Whether another element comes next in the list that was gone into. Otherwise the list's end is behind.
    pub(crate) fn item(&mut self) -> bool {
        // Where neither an element nor the end comes, the text is no JSON: over, or nobody would get any further.
        let comes = self.separator(b']').is_some() && !matches!(self.peek(), Some(b',' | b'}'));
        if !comes {
            self.at = (self.at + 1).min(self.text.len());
        }
        comes
    }

    /// How the value that comes next begins.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The value that comes next, passed.
    pub(crate) fn value(&mut self) -> &'a [u8] {
        let start = self.at;
        self.skip_value();
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn key_here(&mut self) -> Option<Cow<'a, str>> {
        let key_at = self.at;
        self.skip_string();
        let key = unescape(self.text.get(key_at + 1..self.at.checked_sub(1)?)?)?;
        self.blank();
        if self.text.get(self.at) != Some(&b':') {
            return None;
        }
        self.at += 1;
        self.blank();
        Some(key)
    }

    /// The next member of any object in the text, however deep. Goes on in its value.
    pub(crate) fn deep_member(&mut self) -> Option<Cow<'a, str>> {
        loop {
            let rest = self.text.get(self.at..)?;
            self.at += rest.iter().position(|byte| *byte == b'"')?;
            let start = self.at + 1;
            self.skip_string();
            let end = self.at.checked_sub(1)?;
            self.blank();
            if self.text.get(self.at) == Some(&b':') {
                self.at += 1;
                self.blank();
                return unescape(self.text.get(start..end)?);
            }
        }
    }

    /// Passes the value of that member.
    pub(crate) fn deep_value(&mut self) -> Span {
        let start = self.at;
        self.skip_value();
        self.place(start, self.at)
    }

    fn place(&self, start: usize, end: usize) -> Span {
        self.base + start..self.base + end
    }

    /// Reads blanks and the opening bracket.
    fn skip_to(&mut self, bracket: u8) -> bool {
        self.blank();
        let found = self.text.get(self.at) == Some(&bracket);
        if found {
            self.at += 1;
        }
        found
    }

    /// Reads up to the next item; `None` at the closing bracket.
    fn separator(&mut self, close: u8) -> Option<()> {
        self.blank();
        if self.text.get(self.at) == Some(&b',') {
            self.at += 1;
            self.blank();
        }
        (*self.text.get(self.at)? != close).then_some(())
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn skip_value(&mut self) {
        match self.text.get(self.at) {
            Some(b'"') => self.skip_string(),
            Some(b'{' | b'[') => self.skip_brackets(),
            _ => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
    }

    fn skip_brackets(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    self.skip_string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    /// Reads a string, both quotes included.
    fn skip_string(&mut self) {
        self.at = (self.at + 1).min(self.text.len());
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            self.at += crate::text::plain_run(rest);
            match self.text.get(self.at) {
                None => return,
                Some(b'"') => {
                    self.at += 1;
                    return;
                }
                Some(b'\\') => self.at = (self.at + 2).min(self.text.len()),
                Some(_) => self.at += 1,
            }
        }
    }
}

/// The value at `path` under the object `text`, which stands at `base`.
pub(crate) fn find(text: &[u8], base: usize, path: &[&str]) -> Option<Span> {
    let mut place = 0..text.len();
    for name in path {
        let mut walk = Walk::new(text.get(place.clone())?, place.start);
        place = loop {
            let (key, value) = walk.member()?;
            if key == *name {
                break value;
            }
        };
    }
    Some(base + place.start..base + place.end)
}
