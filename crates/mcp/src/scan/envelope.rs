//! The JSON-RPC envelope, and the members under `params` that decide what a call is.
//!
//! A fault of shape does not end the scan: a text that is no JSON is reported as that, whatever else is wrong.

use super::{Body, ScanFault, Scanner, Span, Why};
use crate::{
    Limits,
    message::Message,
    method::ListKind,
    parts::{Item, List, Parts, Spot},
    version::key,
};
use bytes::Bytes;

pub(super) fn read(body: Bytes, limits: &Limits) -> Result<Body, ScanFault> {
    let mut envelope = Envelope { scanner: Scanner::new(&body, limits)?, lists: Vec::new(), misshapen: None };
    envelope.scanner.blank();
    if envelope.scanner.peek() != Some(b'[') {
        let (parts, _) = envelope.message()?;
        let lists = std::mem::take(&mut envelope.lists);
        envelope.finish()?;
        return Ok(Body::Single(Message::new(body, parts, lists)));
    }
    let mut members = Vec::new();
    let start = envelope.scanner.at;
    envelope.scanner.enter(false)?;
    while envelope.scanner.next_element()? {
        let (parts, span) = envelope.message()?;
        if members.len() == limits.batch {
            return Err(ScanFault { at: span.start, why: Why::NotMessage("the batch has too many members") });
        }
        members.push((parts, std::mem::take(&mut envelope.lists), span));
    }
    if members.is_empty() {
        envelope.misshape(start, "the batch is empty");
    }
    envelope.finish()?;
    let message = |(parts, lists, span): (Parts, Vec<List>, Span)| {
        Message::new(body.slice(span.clone()), parts.moved_back(span.start), lists)
    };
    Ok(Body::Batch(members.into_iter().map(message).collect()))
}

/// What is judged of `ref` of a completion, and the same in lower case.
const REFERENCE: [(&[u8], &[u8]); 3] = [(b"type", b"type"), (b"name", b"name"), (b"uri", b"uri")];
/// What is judged of `notifications` of a subscription.
const FILTER: [(&[u8], &[u8]); 5] = [
    (b"toolsListChanged", b"toolslistchanged"),
    (b"promptsListChanged", b"promptslistchanged"),
    (b"resourcesListChanged", b"resourceslistchanged"),
    (b"resourceSubscriptions", b"resourcesubscriptions"),
    (b"taskIds", b"taskids"),
];

/// The scanner, and what it found in the message it reads.
struct Envelope<'a> {
    scanner: Scanner<'a>,
    lists: Vec<List>,
    /// What is wrong with the body apart from its JSON.
    misshapen: Option<ScanFault>,
}

impl Envelope<'_> {
    /// The text ends here, and its shape was right.
    fn finish(mut self) -> Result<(), ScanFault> {
        self.scanner.end()?;
        self.misshapen.map_or(Ok(()), Err)
    }

    fn misshape(&mut self, at: usize, why: &'static str) {
        self.misshapen.get_or_insert(ScanFault { at, why: Why::NotMessage(why) });
    }

    /// Reads one member of the body and says where it lies.
    fn message(&mut self) -> Result<(Parts, Span), ScanFault> {
        self.scanner.blank();
        let start = self.scanner.at;
        let mut parts = Parts::default();
        if self.scanner.peek() != Some(b'{') {
            let span = self.scanner.value()?;
            self.misshape(start, "it is not an object");
            return Ok((parts, span));
        }
        let mut jsonrpc = Spot::NONE;
        self.scanner.enter(true)?;
        while let Some(key) = self.scanner.next_key()? {
            let at = self.scanner.at;
            match self.scanner.spelling(key) {
                b"jsonrpc" => jsonrpc = self.spot()?,
                b"id" => parts.id = self.spot()?,
                b"method" => parts.method = self.spot()?,
                b"params" => self.params(&mut parts)?,
                b"result" => self.result(&mut parts)?,
                b"error" => parts.error = self.spot()?,
                other => {
                    // SECURITY: some readers ignore case in member names and let the last one win.
                    if is_variant(other, &[b"jsonrpc", b"id", b"method", b"params", b"result", b"error"]) {
                        self.misshape(at, "a member differs from a known one only in case");
                    }
                    self.scanner.value()?;
                    parts.more = true;
                }
            }
        }
        let has_outcome = parts.result != Spot::NONE || parts.error != Spot::NONE;
        parts.more |= has_outcome && parts.params != Spot::NONE;
        let span = start..self.scanner.at;
        if let Err(why) = parts.judge(self.scanner.text, jsonrpc) {
            self.misshape(start, why);
        }
        Ok((parts, span))
    }

    fn params(&mut self, parts: &mut Parts) -> Result<(), ScanFault> {
        self.scanner.blank();
        let start = self.scanner.at;
        if self.scanner.peek() != Some(b'{') {
            parts.params = self.spot()?;
            return Ok(());
        }
        self.scanner.enter(true)?;
        while let Some(key) = self.scanner.next_key()? {
            match self.scanner.spelling(key) {
                b"name" => parts.name = self.spot()?,
                b"uri" => parts.uri = self.spot()?,
                b"taskId" => parts.task_id = self.spot()?,
                b"arguments" => parts.arguments = self.spot()?,
                b"_meta" => self.meta(parts)?,
                b"ref" => parts.variant_reference |= self.has_variant(&REFERENCE)?,
                b"notifications" => parts.variant_filter |= self.has_variant(&FILTER)?,
                other => {
                    // SECURITY: as above; whether it matters depends on the method.
                    parts.variant |= is_variant(other, &[b"name", b"uri", b"taskid", b"arguments", b"_meta"]);
                    parts.variant_reference |= is_variant(other, &[b"ref"]);
                    parts.variant_filter |= is_variant(other, &[b"notifications"]);
                    self.scanner.value()?;
                }
            }
        }
        parts.params = Spot::new(start, self.scanner.at);
        Ok(())
    }

    /// Reads a value. Whether it is an object with a member that differs from one of `known` only in case.
    fn has_variant(&mut self, known: &[(&[u8], &[u8])]) -> Result<bool, ScanFault> {
        self.scanner.blank();
        if self.scanner.peek() != Some(b'{') {
            self.scanner.value()?;
            return Ok(false);
        }
        let mut found = false;
        self.scanner.enter(true)?;
        while let Some(key) = self.scanner.next_key()? {
            let spelling = self.scanner.spelling(key);
            found |= known.iter().any(|(exact, lower)| spelling != *exact && folds_to(spelling, lower));
            self.scanner.value()?;
        }
        Ok(found)
    }

    fn meta(&mut self, parts: &mut Parts) -> Result<(), ScanFault> {
        self.scanner.blank();
        if self.scanner.peek() != Some(b'{') {
            self.scanner.value()?;
            return Ok(());
        }
        self.scanner.enter(true)?;
        while let Some(key) = self.scanner.next_key()? {
            let spelling = self.scanner.spelling(key);
            if spelling == key::PROTOCOL_VERSION.as_bytes() {
                parts.version = self.spot()?;
            } else if spelling == key::CLIENT_CAPABILITIES.as_bytes() {
                parts.capabilities = self.spot()?;
            } else if spelling == key::PROGRESS_TOKEN.as_bytes() {
                parts.progress_token = self.spot()?;
            } else if spelling == key::TRACEPARENT.as_bytes() {
                parts.traceparent = self.spot()?;
            } else if spelling == key::TRACESTATE.as_bytes() {
                parts.tracestate = self.spot()?;
            } else {
                self.scanner.value()?;
            }
        }
        Ok(())
    }

    /// Results of list methods are narrowed and renamed: their entries are noted on the way.
    fn result(&mut self, parts: &mut Parts) -> Result<(), ScanFault> {
        self.scanner.blank();
        let start = self.scanner.at;
        if self.scanner.peek() != Some(b'{') {
            parts.result = self.spot()?;
            return Ok(());
        }
        self.scanner.enter(true)?;
        while let Some(key) = self.scanner.next_key()? {
            let spelling = self.scanner.spelling(key);
            let kind = ListKind::ALL.into_iter().find(|kind| kind.member().as_bytes() == spelling);
            self.scanner.blank();
            if let Some(kind) = kind.filter(|_| self.scanner.peek() == Some(b'[')) {
                self.list(kind, start)?;
            } else {
                let value = self.scanner.value()?;
                let value = self.scanner.text.get(value).unwrap_or_default();
                parts.outcome.note(self.scanner.spelling(key), value);
            }
        }
        parts.result = Spot::new(start, self.scanner.at);
        Ok(())
    }

    /// Reads a list. Where its elements lie is noted from the result's start at `result`, so that the same result in
    /// another message has them at the same places.
    fn list(&mut self, kind: ListKind, result: usize) -> Result<(), ScanFault> {
        let mut items = Vec::new();
        self.scanner.enter(false)?;
        while self.scanner.next_element()? {
            self.scanner.blank();
            let start = self.scanner.at;
            let mut name = Spot::NONE;
            if self.scanner.peek() == Some(b'{') {
                self.scanner.enter(true)?;
                while let Some(key) = self.scanner.next_key()? {
                    let named = self.scanner.spelling(key) == kind.name_member().as_bytes();
                    let spot = self.spot()?;
                    if named {
                        name = spot;
                    }
                }
            } else {
                self.scanner.value()?;
            }
            items.push(Item {
                whole: Spot::new(start - result, self.scanner.at - result),
                name: name.moved_back(result),
            });
        }
        self.lists.push(List { kind, items });
        Ok(())
    }

    /// Reads a value and says where it lies.
    fn spot(&mut self) -> Result<Spot, ScanFault> {
        let span = self.scanner.value()?;
        Ok(Spot::new(span.start, span.end))
    }
}

/// Whether `key` is one of `known` to a reader that folds case as Unicode does: besides A to Z, `ſ` is an s and the
/// Kelvin sign is a k. `known` is lower case; exact matches were taken before.
fn is_variant(key: &[u8], known: &[&[u8]]) -> bool {
    known.iter().any(|known| folds_to(key, known))
}

pub(crate) fn folds_to(key: &[u8], known: &[u8]) -> bool {
    let mut rest = key;
    for letter in known {
        rest = match (rest, letter) {
            ([0xc5, 0xbf, rest @ ..], b's') | ([0xe2, 0x84, 0xaa, rest @ ..], b'k') => rest,
            ([byte, rest @ ..], letter) if byte.to_ascii_lowercase() == *letter => rest,
            _ => return false,
        };
    }
    rest.is_empty()
}
