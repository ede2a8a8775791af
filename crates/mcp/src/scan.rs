//! Decides what a text is, in one pass: JSON or not, and which JSON-RPC messages.
//!
//! Checks UTF-8, the grammar of RFC 8259, nesting, surrogates in escapes and duplicate keys at every level of every
//! object, and notes where the members lie that decide a call. Never builds a tree, never asks serde: its raw values
//! accept duplicates, lone surrogates and any depth, and what two readers understand differently is how a call gets
//! past a policy.

mod envelope;
mod key;

use crate::{
    Limits, Message,
    text::{hex4, plain_run, short_escape},
};
use bytes::Bytes;
pub(crate) use envelope::folds_to;
use key::{Key, first_twin, spelling};

/// A range of bytes.
pub type Span = std::ops::Range<usize>;

/// What a body holds.
#[derive(Debug, Clone)]
pub enum Body {
    /// One message.
    Single(Message),
    /// A batch (revision 2025-03-26 only), in order. The members share the body's bytes.
    Batch(Vec<Message>),
}

/// Why a text was refused, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why} at byte {at}")]
pub struct ScanFault {
    /// Offset of the first byte that is wrong.
    pub at: usize,
    /// What is wrong there.
    pub why: Why,
}

/// What was wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The body is longer than the limit.
    #[error("the body is too long")]
    TooLong,
    /// The nesting is deeper than the limit.
    #[error("arrays and objects nest too deeply")]
    TooDeep,
    /// The bytes are not UTF-8.
    #[error("invalid UTF-8")]
    NotUtf8,
    /// The text breaks the grammar of RFC 8259.
    #[error("expected {0}")]
    Expected(&'static str),
    /// Half of a surrogate pair stands alone in an escape.
    #[error("lone surrogate in an escape")]
    LoneSurrogate,
    /// An object names a member twice.
    #[error("duplicate key")]
    DuplicateKey,
    /// A number cannot be represented.
    #[error("number out of range")]
    NumberRange,
    /// The JSON is no JSON-RPC message.
    #[error("not a JSON-RPC message: {0}")]
    NotMessage(&'static str),
}

impl ScanFault {
    /// The JSON-RPC code: -32700 where the text is not JSON, -32600 where it is JSON that is no message.
    pub const fn code(&self) -> i64 {
        match self.why {
            Why::NotUtf8 | Why::Expected(_) | Why::LoneSurrogate => crate::error::PARSE,
            Why::TooLong | Why::TooDeep | Why::DuplicateKey | Why::NumberRange | Why::NotMessage(_) => {
                crate::error::INVALID_REQUEST
            }
        }
    }
}

/// Reads a body as one JSON-RPC message or a batch of them (JSON-RPC 2.0 §4 to §6).
pub fn scan(body: Bytes, limits: &Limits) -> Result<Body, ScanFault> {
    envelope::read(body, limits)
}

/// Checks any JSON value as [`scan`] checks a body.
pub fn scan_value(text: &[u8], limits: &Limits) -> Result<(), ScanFault> {
    let mut scanner = Scanner::new(text, limits)?;
    scanner.value()?;
    scanner.end()
}

/// An array or object that is open.
#[derive(Clone, Copy)]
struct Frame {
    object: bool,
    /// Nothing was read in it yet.
    fresh: bool,
    /// Where its keys begin in [`Scanner::keys`].
    keys: usize,
    /// Where its unescaped keys begin in [`Scanner::unescaped`].
    unescaped: usize,
}

/// One pass over a text. Every method leaves `at` behind what it read. Those that read whole things are not inlined: the
/// envelope asks for them at many places, and a call pays for each line of code that it touches.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
    open: Vec<Frame>,
    /// Keys of all open objects.
    keys: Vec<Key>,
    /// Keys that had escapes, unescaped.
    unescaped: Vec<u8>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a [u8], limits: &Limits) -> Result<Self, ScanFault> {
        let longest = limits.body.min(u32::MAX as usize - 1);
        if text.len() > longest {
            return Err(ScanFault { at: longest, why: Why::TooLong });
        }
        std::str::from_utf8(text).map_err(|fault| ScanFault { at: fault.valid_up_to(), why: Why::NotUtf8 })?;
        let depth = limits.depth.min(Limits::DEEPEST);
        Ok(Self {
            text,
            at: 0,
            depth,
            open: Vec::with_capacity(16),
            keys: Vec::with_capacity(32),
            unescaped: Vec::new(),
        })
    }

    /// Reads one value of any kind and says where it lies. Needs no recursion: open frames are a list.
    #[inline(never)]
    fn value(&mut self) -> Result<Span, ScanFault> {
        self.blank();
        let start = self.at;
        let outer = self.open.len();
        loop {
            self.blank();
            match self.peek() {
                Some(b'{') => self.enter(true)?,
                Some(b'[') => self.enter(false)?,
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => return self.expected("a value"),
            }
            // Goes on until some open frame wants another value.
            loop {
                let Some(frame) = self.open.get(outer..).and_then(<[Frame]>::last) else {
                    return Ok(start..self.at);
                };
                let more = if frame.object { self.next_key()?.is_some() } else { self.next_element()? };
                if more {
                    break;
                }
            }
        }
    }

    /// Reads the opening bracket that is next.
    fn enter(&mut self, object: bool) -> Result<(), ScanFault> {
        if self.open.len() >= self.depth {
            return self.fault(Why::TooDeep);
        }
        self.at += 1;
        self.open.push(Frame { object, fresh: true, keys: self.keys.len(), unescaped: self.unescaped.len() });
        Ok(())
    }

    /// In an object: reads up to the next member's value, or the end of the object.
    #[inline(never)]
    fn next_key(&mut self) -> Result<Option<Key>, ScanFault> {
        self.blank();
        let Some(frame) = self.open.last_mut() else { return self.expected("an object") };
        let fresh = std::mem::replace(&mut frame.fresh, false);
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                self.leave_object()?;
                return Ok(None);
            }
            Some(b',') if !fresh => {
                self.at += 1;
                self.blank();
            }
            _ if fresh => {}
            _ => return self.expected("`,` or `}`"),
        }
        if self.peek() != Some(b'"') {
            return self.expected("a key");
        }
        let at = self.at;
        let (inner, escaped) = self.string()?;
        let key = if escaped { self.unescape_key(at, inner)? } else { Key::plain(at, inner) };
        self.keys.push(key);
        self.blank();
        if self.peek() != Some(b':') {
            return self.expected("`:`");
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// In an array: reads up to the next element, or the end of the array.
    fn next_element(&mut self) -> Result<bool, ScanFault> {
        self.blank();
        let Some(frame) = self.open.last_mut() else { return self.expected("an array") };
        let fresh = std::mem::replace(&mut frame.fresh, false);
        match self.peek() {
            Some(b']') => {
                self.at += 1;
                self.open.pop();
                Ok(false)
            }
            Some(b',') if !fresh => {
                self.at += 1;
                Ok(true)
            }
            _ if fresh => Ok(true),
            _ => self.expected("`,` or `]`"),
        }
    }

    /// Closes the innermost object: none of its keys may occur twice.
    #[inline(never)]
    fn leave_object(&mut self) -> Result<(), ScanFault> {
        let Some(frame) = self.open.pop() else { return self.expected("an object") };
        let keys = self.keys.get_mut(frame.keys..).unwrap_or_default();
        if let Some(at) = first_twin(self.text, &self.unescaped, keys) {
            return Err(ScanFault { at, why: Why::DuplicateKey });
        }
        self.keys.truncate(frame.keys);
        self.unescaped.truncate(frame.unescaped);
        Ok(())
    }

    fn unescape_key(&mut self, at: usize, inner: Span) -> Result<Key, ScanFault> {
        let raw = self.text.get(inner).unwrap_or_default();
        let Some(key) = crate::text::unescape(raw) else { return self.fault(Why::LoneSurrogate) };
        let start = self.unescaped.len();
        self.unescaped.extend_from_slice(key.as_bytes());
        Ok(Key::unescaped(at, start..self.unescaped.len()))
    }

    /// What a key says.
    fn spelling(&self, key: Key) -> &[u8] {
        spelling(self.text, &self.unescaped, key)
    }

    /// Reads a string; gives what is between the quotes, and whether it has escapes.
    #[inline(never)]
    fn string(&mut self) -> Result<(Span, bool), ScanFault> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_run(self.text.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((start..self.at - 1, escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return self.expected("a character of a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), ScanFault> {
        match self.text.get(self.at + 1) {
            Some(b'u') => self.unicode_escape(),
            Some(letter) if short_escape(*letter).is_some() => {
                self.at += 2;
                Ok(())
            }
            _ => self.expected("an escape"),
        }
    }

    fn unicode_escape(&mut self) -> Result<(), ScanFault> {
        let digits = self.text.get(self.at + 2..).unwrap_or_default();
        let Some(first) = hex4(digits) else { return self.expected("four hexadecimal digits") };
        match first {
            0xd800..0xdc00 => {
                let second = match digits.get(4..) {
                    Some([b'\\', b'u', digits @ ..]) => match hex4(digits) {
                        Some(second) => second,
                        None => return self.expected("four hexadecimal digits"),
                    },
                    _ => 0,
                };
                if !(0xdc00..0xe000).contains(&second) {
                    return self.fault(Why::LoneSurrogate);
                }
                self.at += 12;
            }
            0xdc00..0xe000 => return self.fault(Why::LoneSurrogate),
            _ => self.at += 6,
        }
        Ok(())
    }

    /// Reads a number: `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`.
    fn number(&mut self) -> Result<(), ScanFault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return self.expected("a digit"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ScanFault> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return self.expected("a digit");
        }
        self.at += count;
        Ok(())
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), ScanFault> {
        if !self.text.get(self.at..).unwrap_or_default().starts_with(word) {
            return self.expected("a value");
        }
        self.at += word.len();
        Ok(())
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Nothing but blanks may follow.
    fn end(&mut self) -> Result<(), ScanFault> {
        self.blank();
        if self.at == self.text.len() { Ok(()) } else { self.expected("the end of the text") }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn expected<T>(&self, what: &'static str) -> Result<T, ScanFault> {
        self.fault(Why::Expected(what))
    }

    fn fault<T>(&self, why: Why) -> Result<T, ScanFault> {
        Err(ScanFault { at: self.at, why })
    }
}
