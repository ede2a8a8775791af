//! Event streams (WHATWG HTML §9.2): taken apart at event boundaries, kept byte for byte.
//!
//! The events' raw bytes, in order, are the stream: comments, ids, retry times and multi-line data included. Where
//! chunks are cut makes no difference to the events.

mod field;
mod skip;
#[cfg(test)]
mod tests;

use crate::text::line_run;
use bytes::{Bytes, BytesMut};
pub use field::{Beside, encode, prefix_id, replace_beside, replace_data};
pub use skip::Skip;

/// One event, or what stands between two: comments, a retry time, blank lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Its bytes as sent, the blank line included.
    pub raw: Bytes,
    /// Its data lines joined with line feeds; `None` without one. Empty data, which announces an id (2025-11-25,
    /// basic/transports, "Sending Messages"), is no message.
    pub data: Option<Bytes>,
    /// Its id, for resumption.
    pub id: Option<Bytes>,
    /// Its type.
    pub event: Option<Bytes>,
    /// How long to wait before reconnecting, in milliseconds.
    pub retry: Option<u64>,
    /// It begins with the stream's byte order mark. Further on that is a letter of a field name.
    marked: bool,
    /// It has lines that are neither data nor the usual type.
    has_beside: bool,
}

impl Event {
    /// An event of our own around a message.
    pub fn of(message: Bytes) -> Self {
        Self { raw: encode(&message, None), data: Some(message), ..Self::default() }
    }

    /// The JSON-RPC text it carries, if any. Clients hear no other type than `message`, which is also that of an event
    /// without one, or with an empty one (§9.2.6).
    pub fn message(&self) -> Option<&Bytes> {
        let is_message = matches!(self.event.as_deref(), None | Some(b"" | b"message"));
        self.data.as_ref().filter(|data| is_message && !data.is_empty())
    }

    /// Whether something stands beside its data that could say anything: a comment, an id, a type of its own.
    pub const fn has_beside(&self) -> bool {
        self.has_beside
    }

    /// Whether it has no field at all: a keep-alive.
    pub const fn is_comment_only(&self) -> bool {
        self.data.is_none() && self.id.is_none() && self.event.is_none() && self.retry.is_none()
    }
}

/// An event that is longer than the decoder's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {limit} bytes")]
pub struct TooBig {
    limit: usize,
}

/// Takes a stream apart. Copies only events that cross a border between chunks.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    /// The begun event.
    pending: BytesMut,
    boundary: Boundary,
    /// Nothing was given out yet: a byte order mark may stand at the start.
    at_start: bool,
}

impl Decoder {
    /// Events longer than `limit` bytes end the stream.
    pub fn new(limit: usize) -> Self {
        Self { limit, pending: BytesMut::new(), boundary: Boundary::default(), at_start: true }
    }

    /// Takes the next chunk and appends the events that it completes. After a fault the decoder is good for [`Self::unread`]
    /// alone.
    pub fn push(&mut self, chunk: Bytes, out: &mut impl Extend<Event>) -> Result<(), TooBig> {
        let mut rest = chunk;
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(&rest);
            let Some(end) = self.boundary.find(&self.pending) else { return self.bounded(self.pending.len()) };
            let all = self.pending.split().freeze();
            rest = all.slice(end..);
            self.give(&all, end, out)?;
        }
        while let Some(end) = self.boundary.find(&rest) {
            let all = rest.clone();
            rest = all.slice(end..);
            self.give(&all, end, out)?;
        }
        self.pending.extend_from_slice(&rest);
        self.bounded(self.pending.len())
    }

    /// What was taken and not given, after a fault: it begins with the event that is too long.
    pub fn unread(mut self) -> Bytes {
        self.pending.split().freeze()
    }

    /// The stream ended. What was held back because a line feed might have followed is the last event; an event without
    /// its blank line is given as the second part, which by §9.2.6 is to be thrown away.
    pub fn finish(mut self) -> (Option<Event>, Option<Bytes>) {
        let rest = self.pending.split().freeze();
        if rest.is_empty() {
            return (None, None);
        }
        if self.boundary.ends_here(&rest) {
            (Some(field::parse(rest, self.at_start)), None)
        } else {
            (None, Some(rest))
        }
    }

    /// Gives the event that ends at `end`, which `all` begins with.
    fn give(&mut self, all: &Bytes, end: usize, out: &mut impl Extend<Event>) -> Result<(), TooBig> {
        if let Err(fault) = self.bounded(end) {
            self.pending = BytesMut::from(all.as_ref());
            return Err(fault);
        }
        let first = std::mem::replace(&mut self.at_start, false);
        out.extend(Some(field::parse(all.slice(..end), first)));
        Ok(())
    }

    fn bounded(&self, length: usize) -> Result<(), TooBig> {
        if length > self.limit { Err(TooBig { limit: self.limit }) } else { Ok(()) }
    }
}

/// Looks for the blank line that ends an event. Remembers how far it looked.
#[derive(Debug, Default)]
struct Boundary {
    /// Everything before is read.
    at: usize,
    /// Bytes in the line that `at` stands in.
    line: usize,
    /// The last line ended in a carriage return alone.
    bare: bool,
}

impl Boundary {
    /// Where the first event in `text` ends; looks at what is new since the last call.
    fn find(&mut self, text: &[u8]) -> Option<usize> {
        loop {
            let rest = text.get(self.at..).unwrap_or_default();
            let length = line_run(rest);
            if length == rest.len() {
                self.at += length;
                self.line += length;
                return None;
            }
            let blank = self.line + length == 0;
            let ending = match rest.get(length..).unwrap_or_default() {
                // After a line that ended in a bare CR, a blank line does too: waiting for the next byte would hold
                // every event of such a stream back until the next one begins.
                [b'\r', ..] if blank && self.bare => 1,
                [b'\r', b'\n', ..] => 2,
                [b'\r'] => {
                    self.at += length;
                    self.line += length;
                    return None;
                }
                _ => 1,
            };
            let bare = ending == 1 && rest.get(length) == Some(&b'\r');
            let end = self.at + length + ending;
            *self = Self { at: end, line: 0, bare };
            if blank {
                self.at = 0;
                self.bare = false;
                return Some(end);
            }
        }
    }

    /// At the end of the stream: whether a held-back carriage return ends the event.
    fn ends_here(&self, text: &[u8]) -> bool {
        self.line == 0 && text.get(self.at..) == Some(b"\r")
    }
}
