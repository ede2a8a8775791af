//! Results of list methods: their entries, narrowed or renamed without touching another byte.

#[cfg(test)]
mod tests;

use crate::{ListKind, Message, Span, error::result_text, splice, splice::quote, text::unescape, walk};
use bytes::Bytes;
use std::borrow::Cow;

/// Why a message is no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListFault {
    /// It has no result: an error, or no response.
    #[error("the message has no result")]
    NoResult,
    /// The result lacks the array.
    #[error("the result has no array `{0}`")]
    NoArray(&'static str),
}

/// One element of a list.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Where the element lies in [`Message::bytes`].
    pub span: Span,
    /// Where its `name`, `uri` or `uriTemplate` lies there, quotes included.
    pub name_span: Span,
    /// What that says.
    pub name: Cow<'a, str>,
    /// The element as sent.
    pub raw: &'a [u8],
}

impl Entry<'_> {
    /// The element under another name, every other byte kept.
    pub fn renamed(&self, name: &str) -> Bytes {
        let start = self.name_span.start - self.span.start;
        splice(self.raw, &mut [(start..start + self.name_span.len(), quote(name).into_bytes())])
    }
}

/// The entries of a list result. An element that has no name, which the specification does not allow, is left out:
/// nothing can be decided about it.
pub fn entries(message: &Message, kind: ListKind) -> Result<Vec<Entry<'_>>, ListFault> {
    let elements = elements(message, kind)?;
    Ok(elements.into_iter().filter_map(|span| entry(message, kind, span)).collect())
}

/// The cursor of the next page. The empty string is one.
pub fn next_cursor(message: &Message) -> Option<Cow<'_, str>> {
    message.outcome_member(&["nextCursor"])?.text()
}

/// The message without the entries that `keep` refuses, and without elements that have no name; every other byte is
/// kept, commas aside. Shares the message's bytes where nothing is removed.
pub fn narrow(message: &Message, kind: ListKind, mut keep: impl FnMut(&Entry<'_>) -> bool) -> Result<Bytes, ListFault> {
    let elements = elements(message, kind)?;
    let mut edits = Vec::new();
    let mut any_kept = false;
    let mut before = None;
    for (index, span) in elements.iter().enumerate() {
        if entry(message, kind, span.clone()).is_some_and(|entry| keep(&entry)) {
            any_kept = true;
        } else {
            // The comma before it goes with it, or, as long as nothing stands before it, the one behind it.
            let from = before.filter(|_| any_kept).unwrap_or(span.start);
            let next = elements.get(index + 1).filter(|_| !any_kept);
            edits.push((from..next.map_or(span.end, |next| next.start), Vec::new()));
        }
        before = Some(span.end);
    }
    if edits.is_empty() {
        return Ok(message.bytes().clone());
    }
    Ok(splice(message.bytes(), &mut edits))
}

/// A list response of our own, from elements that are JSON text already (as sent, or [`Entry::renamed`]). `members` are
/// further members of the result, `"ttlMs":0,"cacheScope":"private"` for one, without a comma at either end.
pub fn compose<T: AsRef<[u8]>>(
    id: &str,
    kind: ListKind,
    elements: impl IntoIterator<Item = T>,
    next_cursor: Option<&str>,
    members: Option<&str>,
) -> Bytes {
    let mut result = Vec::with_capacity(1024);
    result.extend_from_slice(b"{\"");
    result.extend_from_slice(kind.member().as_bytes());
    result.extend_from_slice(b"\":[");
    let mut first = true;
    for element in elements {
        if !std::mem::replace(&mut first, false) {
            result.push(b',');
        }
        result.extend_from_slice(element.as_ref());
    }
    result.push(b']');
    if let Some(cursor) = next_cursor {
        result.extend_from_slice(b",\"nextCursor\":");
        result.extend_from_slice(quote(cursor).as_bytes());
    }
    if let Some(members) = members {
        result.push(b',');
        result.extend_from_slice(members.as_bytes());
    }
    result.push(b'}');
    result_text(id, &result)
}

fn elements(message: &Message, kind: ListKind) -> Result<Vec<Span>, ListFault> {
    message.result().ok_or(ListFault::NoResult)?;
    let array = message.outcome_member(&[kind.member()]).filter(|member| member.raw.starts_with(b"["));
    let array = array.ok_or(ListFault::NoArray(kind.member()))?;
    let mut walk = walk::Walk::new(array.raw, array.span.start);
    Ok(std::iter::from_fn(|| walk.element()).collect())
}

fn entry(message: &Message, kind: ListKind, span: Span) -> Option<Entry<'_>> {
    let raw = message.bytes().get(span.clone())?;
    let name_span = walk::find(raw, span.start, &[kind.name_member()])?;
    let name = match message.bytes().get(name_span.clone())? {
        [b'"', inner @ .., b'"'] => unescape(inner)?,
        _ => return None,
    };
    Some(Entry { span, name_span, name, raw })
}
