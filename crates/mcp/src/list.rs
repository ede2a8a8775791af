//! Results of list methods: their entries, narrowed without touching another byte. How the aggregate shows them is the
//! business of [`address`](crate::address).

mod misfit;
#[cfg(test)]
mod tests;

use crate::{ListKind, Member, Message, Span, error::result_text, parts::Item, splice, splice::quote};
use bytes::Bytes;
use std::borrow::Cow;

pub use misfit::{Misfit, misfit};

/// Why a message is no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListFault {
    /// It has no result: an error, or no response.
    #[error("the message has no result")]
    NoResult,
    /// The result lacks the array.
    #[error("the result has no array `{0}`")]
    NoArray(&'static str),
    /// The result says that there is more, and not where.
    #[error("its `nextCursor` is no text")]
    Cursor,
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

/// The entries of a list result. An element that has no name, which the specification does not allow, is left out:
/// nothing can be decided about it.
pub fn entries(message: &Message, kind: ListKind) -> Result<Vec<Entry<'_>>, ListFault> {
    Ok(elements(message, kind)?.iter().filter_map(|item| entry(message, *item)).collect())
}

/// The cursor of the next page. The empty string is one, and `null`, which servers write for none, is none. What is neither would
/// end the list early, and nobody would know.
pub fn next_cursor(message: &Message) -> Result<Option<Cow<'_, str>>, ListFault> {
    match message.outcome_member(&["nextCursor"]) {
        None => Ok(None),
        Some(cursor) if cursor.raw == b"null" => Ok(None),
        Some(cursor) => cursor.text().map(Some).ok_or(ListFault::Cursor),
    }
}

/// The message without the entries that `keep` refuses, and without elements that have no name; every other byte is
/// kept, commas aside. Shares the message's bytes where nothing is removed.
pub fn narrow(message: &Message, kind: ListKind, mut keep: impl FnMut(&Entry<'_>) -> bool) -> Result<Bytes, ListFault> {
    let elements = elements(message, kind)?;
    let mut edits = Vec::new();
    let mut any_kept = false;
    let mut before = None;
    for (index, item) in elements.iter().enumerate() {
        let Some(span) = message.in_result(item.whole).map(|whole| whole.span) else { continue };
        if entry(message, *item).is_some_and(|entry| keep(&entry)) {
            any_kept = true;
        } else {
            // The comma before it goes with it, or, as long as nothing stands before it, the one behind it.
            let from = before.filter(|_| any_kept).unwrap_or(span.start);
            let next = elements.get(index + 1).filter(|_| !any_kept).and_then(|next| message.in_result(next.whole));
            edits.push((from..next.map_or(span.end, |next| next.span.start), Vec::new()));
        }
        before = Some(span.end);
    }
    if edits.is_empty() {
        return Ok(message.bytes().clone());
    }
    Ok(splice(message.bytes(), &mut edits))
}

/// A list response of our own, from elements that are JSON text already. `members` are further members of the result,
/// `"ttlMs":0,"cacheScope":"private"` for one, without a comma at either end.
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

fn elements(message: &Message, kind: ListKind) -> Result<&[Item], ListFault> {
    message.result().ok_or(ListFault::NoResult)?;
    message.items(kind).ok_or(ListFault::NoArray(kind.member()))
}

fn entry(message: &Message, item: Item) -> Option<Entry<'_>> {
    let Member { span, raw } = message.in_result(item.whole)?;
    let name = message.in_result(item.name)?;
    Some(Entry { span, name: name.text()?, name_span: name.span, raw })
}
