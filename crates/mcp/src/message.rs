//! One JSON-RPC message: its bytes, and where the members lie that decide what happens to it.
//!
//! Made by [`scan`](crate::scan()) only, so a message in hand is valid. Never changes its bytes.

use crate::{
    Era, ScanFault, Span,
    method::{self, ListKind, Subject},
    parts::{Item, List, Outcome, Parts, ResultKind, Spot},
    splice::splice,
    text::unescape,
    walk,
};
use bytes::Bytes;
use std::{borrow::Cow, fmt, sync::Arc};

/// What a message is (JSON-RPC 2.0 §4, §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has a result or an error.
    Response,
}

/// One message: shared bytes and ranges into them. Cheap to clone.
#[derive(Clone)]
pub struct Message {
    text: Bytes,
    parts: Parts,
    kind: Kind,
    method: Method,
    /// Entries of list results.
    lists: Option<Arc<[List]>>,
}

/// What the method is. It is asked for at every stage, so the known ones are looked up once.
#[derive(Clone)]
enum Method {
    /// One that [`method`] knows; empty for responses.
    Known(&'static str),
    /// Another, as it was sent.
    Sent,
    /// Another that was sent with escapes.
    Unescaped(Arc<str>),
}

/// A value inside a message. INVARIANT: it was scanned with the message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member<'a> {
    /// Where it lies in [`Message::bytes`].
    pub span: Span,
    /// Its text as sent.
    pub raw: &'a [u8],
}

impl<'a> Member<'a> {
    /// What it says, if it is a string.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        string(self.raw)
    }

    /// It as a tree.
    pub fn value(&self) -> Result<serde_json::Value, ScanFault> {
        crate::value::scanned(self.raw)
    }
}

impl Message {
    /// INVARIANT: `parts` were judged; they and `lists` lie in `text`.
    pub(crate) fn new(text: Bytes, parts: Parts, lists: Vec<List>) -> Self {
        let kind = if parts.method.is_none() {
            Kind::Response
        } else if parts.id.is_none() {
            Kind::Notification
        } else {
            Kind::Request
        };
        let method = match parts.method.of(&text).and_then(string) {
            None => Method::Known(""),
            Some(sent) => match (method::known(&sent), sent) {
                (Some(known), _) => Method::Known(known),
                (None, Cow::Borrowed(_)) => Method::Sent,
                (None, Cow::Owned(method)) => Method::Unescaped(Arc::from(method)),
            },
        };
        let lists = if lists.is_empty() { None } else { Some(Arc::from(lists)) };
        Self { text, parts, kind, method, lists }
    }

    /// A message whose result was judged in another one. INVARIANT: as for [`Message::new`].
    pub(crate) fn read_again(text: Bytes, parts: Parts, lists: Option<Arc<[List]>>) -> Self {
        Self { text, parts, kind: Kind::Response, method: Method::Known(""), lists }
    }

    pub(crate) const fn parts(&self) -> Parts {
        self.parts
    }

    /// The entries of its result, and what that says at its top.
    pub(crate) fn shape(&self) -> (Option<Arc<[List]>>, Outcome) {
        (self.lists.clone(), self.parts.outcome)
    }

    /// What it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its whole text as sent. All spans are relative to this.
    pub const fn bytes(&self) -> &Bytes {
        &self.text
    }

    /// The raw text of the id, exactly as sent: `1`, `"1"`, or `null` in an error response. `None` for notifications.
    pub fn id(&self) -> Option<&str> {
        self.raw_text(self.parts.id)
    }

    /// The id and where it lies.
    pub fn id_member(&self) -> Option<Member<'_>> {
        self.member(self.parts.id)
    }

    /// Its text under another raw id, also where it has none: an error about what could not be read names no request.
    pub fn under_id(&self, id: &str) -> Bytes {
        let edit = if let Some(own) = self.id_member() {
            (own.span, id.as_bytes().to_vec())
        } else {
            // A message is an object with members.
            let start = self.text.iter().position(|byte| *byte == b'{').map_or(0, |brace| brace + 1);
            (start..start, format!("\"id\":{id},").into_bytes())
        };
        splice(&self.text, &mut [edit])
    }

    /// The method; empty for responses.
    pub fn method(&self) -> &str {
        match &self.method {
            Method::Known(method) => method,
            Method::Unescaped(method) => method,
            Method::Sent => {
                let raw = self.raw_text(self.parts.method).unwrap_or_default();
                raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default()
            }
        }
    }

    /// The method, if the protocol has it.
    pub const fn known_method(&self) -> Option<&'static str> {
        match self.method {
            Method::Known(method) if !method.is_empty() => Some(method),
            Method::Known(_) | Method::Sent | Method::Unescaped(_) => None,
        }
    }

    /// The raw params.
    pub fn params(&self) -> Option<&[u8]> {
        self.parts.params.of(&self.text)
    }

    /// The raw result.
    pub fn result(&self) -> Option<&[u8]> {
        self.parts.result.of(&self.text)
    }

    /// What the message says to the other side: its result, its error or its params. An answer with params is an answer.
    pub fn said_member(&self) -> Option<Member<'_>> {
        [self.parts.result, self.parts.error, self.parts.params].into_iter().find_map(|part| self.member(part))
    }

    /// The same, sharing its bytes.
    pub fn said(&self) -> Bytes {
        self.said_member().map(|part| self.text.slice(part.span)).unwrap_or_default()
    }

    /// Where the members of vendors lie, and params beside an outcome, each with its key: all that is neither of the
    /// envelope nor what the message says.
    pub fn beside(&self) -> impl Iterator<Item = Span> {
        let said = self.said_member().map(|part| part.span.start);
        let mut walk = walk::Walk::new(&self.text, 0);
        let next = move || {
            loop {
                let (start, key, value) = walk.whole_member()?;
                if !matches!(&*key, "jsonrpc" | "id" | "method") && Some(value.start) != said {
                    return Some(start..value.end);
                }
            }
        };
        self.has_more().then(|| std::iter::from_fn(next)).into_iter().flatten()
    }

    /// Whether it holds more than its envelope and what it says: members of vendors, or params beside an outcome.
    pub const fn has_more(&self) -> bool {
        self.parts.more
    }

    /// The params and where they lie.
    pub fn params_member(&self) -> Option<Member<'_>> {
        self.member(self.parts.params)
    }

    /// The result and where it lies.
    pub fn result_member(&self) -> Option<Member<'_>> {
        self.member(self.parts.result)
    }

    /// The error object and where it lies.
    pub fn error_member(&self) -> Option<Member<'_>> {
        self.member(self.parts.error)
    }

    /// The raw error object.
    pub fn error(&self) -> Option<&[u8]> {
        self.parts.error.of(&self.text)
    }

    /// `error.code`, where it is an integer.
    pub fn error_code(&self) -> Option<i64> {
        let error = self.error()?;
        let code = error.get(walk::find(error, 0, &["code"])?)?;
        std::str::from_utf8(code).ok()?.parse().ok()
    }

    /// The value at `path` under `params`, looked up on demand.
    pub fn param(&self, path: &[&str]) -> Option<Member<'_>> {
        self.under(self.parts.params, path)
    }

    /// The value at `path` under `result`, looked up on demand.
    pub fn outcome_member(&self, path: &[&str]) -> Option<Member<'_>> {
        self.under(self.parts.result, path)
    }

    /// `params.arguments`.
    pub fn arguments(&self) -> Option<Member<'_>> {
        self.member(self.parts.arguments)
    }

    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`, if it is a string
    /// (2026-07-28, basic/index, `_meta`).
    pub fn modern_version(&self) -> Option<Cow<'_, str>> {
        self.parts.version.of(&self.text).and_then(string)
    }

    /// The era, by the body alone: modern where the version key is present, whatever its value
    /// (2026-07-28, basic/versioning, "Backward Compatibility").
    pub fn era(&self) -> Era {
        if self.parts.version.is_none() { Era::Legacy } else { Era::Modern }
    }

    /// Whether `params._meta` holds client capabilities that are an object.
    pub fn has_client_capabilities(&self) -> bool {
        self.client_capabilities().is_some_and(|raw| raw.starts_with(b"{"))
    }

    /// The raw capabilities of a modern client, `params._meta["io.modelcontextprotocol/clientCapabilities"]`.
    pub fn client_capabilities(&self) -> Option<&[u8]> {
        self.parts.capabilities.of(&self.text)
    }

    /// The value at `path` under them, looked up on demand.
    pub fn client_capability(&self, path: &[&str]) -> Option<Member<'_>> {
        self.under(self.parts.capabilities, path)
    }

    /// The raw `params._meta.progressToken` of a request, a string or a number.
    pub fn progress_token(&self) -> Option<&str> {
        self.raw_text(self.parts.progress_token)
    }

    /// The progress token and where it lies.
    pub fn progress_token_member(&self) -> Option<Member<'_>> {
        self.member(self.parts.progress_token)
    }

    /// `params._meta.traceparent`: the sender's span (W3C Trace Context).
    pub fn traceparent(&self) -> Option<Cow<'_, str>> {
        self.parts.traceparent.of(&self.text).and_then(string)
    }

    /// `params._meta.tracestate`.
    pub fn tracestate(&self) -> Option<Cow<'_, str>> {
        self.parts.tracestate.of(&self.text).and_then(string)
    }

    /// Whether it says that something failed: an error, or a tool's result with `isError`.
    pub fn is_failure(&self) -> bool {
        !self.parts.error.is_none() || self.parts.outcome.is_error
    }

    /// Whether its result is a task (`resultType`).
    pub const fn is_task(&self) -> bool {
        matches!(self.parts.outcome.kind, ResultKind::Task)
    }

    /// Whether its result can be that of a request that began a task, in any revision.
    pub const fn may_begin_task(&self) -> bool {
        match self.parts.outcome.kind {
            ResultKind::Task => true,
            ResultKind::Other => false,
            ResultKind::Unsaid => self.parts.outcome.has_task,
        }
    }

    /// Whether its result may ask the client something: it has a member that some reader takes for `inputRequests`.
    pub(crate) const fn may_ask(&self) -> bool {
        self.parts.outcome.may_ask
    }

    /// What the method acts on: the tool or prompt name, the resource's URI, the task's id.
    /// For the methods that have one in `Mcp-Name`, this is it (2026-07-28, streamable-http, "Standard Request Headers").
    pub fn subject(&self) -> Option<Cow<'_, str>> {
        self.subject_member()?.text()
    }

    /// The subject and where it lies.
    pub fn subject_member(&self) -> Option<Member<'_>> {
        self.member(match method::subject(self.method())? {
            Subject::Name => self.parts.name,
            Subject::Uri => self.parts.uri,
            Subject::TaskId => self.parts.task_id,
        })
    }

    /// A value inside the result, by its place from the result's start.
    pub(crate) fn in_result(&self, spot: Spot) -> Option<Member<'_>> {
        let start = self.parts.result.start as usize;
        let raw = spot.of(self.result()?)?;
        Some(Member { raw, span: start + spot.start as usize..start + spot.end as usize })
    }

    /// The elements of the array in the result that holds entries of `kind`.
    pub(crate) fn items(&self, kind: ListKind) -> Option<&[Item]> {
        self.lists.as_deref()?.iter().find(|list| list.kind == kind).map(|list| list.items.as_slice())
    }

    fn under(&self, spot: Spot, path: &[&str]) -> Option<Member<'_>> {
        let outer = spot.of(&self.text)?;
        let span = walk::find(outer, spot.start as usize, path)?;
        Some(Member { raw: self.text.get(span.clone())?, span })
    }

    fn member(&self, spot: Spot) -> Option<Member<'_>> {
        Some(Member { raw: spot.of(&self.text)?, span: spot.start as usize..spot.end as usize })
    }

    fn raw_text(&self, spot: Spot) -> Option<&str> {
        spot.of(&self.text).and_then(|raw| std::str::from_utf8(raw).ok())
    }
}

impl fmt::Debug for Message {
    // SECURITY: arguments and results hold secrets; only what routes the message is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("kind", &self.kind)
            .field("method", &self.method())
            .field("length", &self.text.len())
            .finish_non_exhaustive()
    }
}

/// A key under which equal ids meet and different ones do not: `1` and `"1"` differ, `"a"` and `"\u0061"` are one.
///
/// Ids are strings or plain integers (others are refused by the scan), so an integer's text is its key; `-0` is `0`.
pub fn id_key(raw: &str) -> String {
    match string(raw.as_bytes()) {
        Some(text) => format!("s{text}"),
        None if raw == "-0" => "n0".to_owned(),
        None => format!("n{raw}"),
    }
}

/// What a raw JSON string says.
pub(crate) fn string(raw: &[u8]) -> Option<Cow<'_, str>> {
    match raw {
        [b'"', inner @ .., b'"'] => unescape(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::{Body, Limits, Message};

    fn message(text: &str) -> Message {
        match crate::scan(text.to_owned().into(), &Limits::default()) {
            Ok(Body::Single(message)) => message,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_a_result_says_at_its_top_is_noted_by_the_scan() {
        let of =
            |message: &Message| (message.is_failure(), message.is_task(), message.may_begin_task(), message.may_ask());
        let told = |result: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
            let Ok(Body::Batch(batch)) = crate::scan(format!("[{text}]").into(), &Limits::default()) else {
                panic!("{text}")
            };
            assert_eq!(of(&batch[0]), of(&message(&text)), "{text}");
            of(&batch[0])
        };
        for (result, failed, is_task, may_begin_task, may_ask) in [
            ("{}", false, false, false, false),
            (r#"{"isError":true}"#, true, false, false, false),
            (
                r#"{"isError":"true","content":[{"isError":true,"task":1,"inputRequests":{}}]}"#,
                false,
                false,
                false,
                false,
            ),
            (r#"{"resultType":"task"}"#, false, true, true, false),
            (r#"{"result\u0054ype":"t\u0061sk"}"#, false, true, true, false),
            (r#"{"task":{"taskId":"a"},"resultType":"complete"}"#, false, false, false, false),
            (r#"{"resultType":7,"task":{}}"#, false, false, false, false),
            (r#"{"tools":[],"task":{"taskId":"a"}}"#, false, false, true, false),
            (r#"{"inputRequests":null}"#, false, false, false, true),
            (r#"{"INPUTREQUESTS":{}}"#, false, false, false, true),
            (r#"{"input\u0052eque\u017ft\u017f":{}}"#, false, false, false, true),
            (r#"["inputRequests"]"#, false, false, false, false),
        ] {
            assert_eq!(told(result), (failed, is_task, may_begin_task, may_ask), "{result}");
        }
    }

    #[test]
    fn an_answer_is_put_under_an_id_whatever_it_named() {
        for (text, under) in [
            (r#" {"error":{},"jsonrpc":"2.0" , "id" : null}"#, r#" {"error":{},"jsonrpc":"2.0" , "id" : "a"}"#),
            (r#"{ "jsonrpc":"2.0","error":{"id":1}}"#, r#"{"id":"a", "jsonrpc":"2.0","error":{"id":1}}"#),
            (r#"{"id":7,"jsonrpc":"2.0","result":{}}"#, r#"{"id":"a","jsonrpc":"2.0","result":{}}"#),
        ] {
            let under_id = message(text).under_id("\"a\"");
            assert_eq!(under_id, under);
            assert_eq!(message(under).id(), Some("\"a\""));
        }
    }

    #[test]
    fn an_answer_says_its_outcome_and_all_else_stands_beside_it() {
        for (text, said, beside) in [
            (r#"{"jsonrpc":"2.0","id":1,"params":[2], "result":{"a":1}}"#, r#"{"a":1}"#, &[r#""params":[2]"#][..]),
            (r#"{"x":{"id":7},"jsonrpc":"2.0","id":1,"error":{"code":1}}"#, r#"{"code":1}"#, &[r#""x":{"id":7}"#]),
            (r#"{"jsonrpc":"2.0","method":"a","params":{},"y" : 1 }"#, "{}", &[r#""y" : 1"#]),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#, "", &[]),
        ] {
            let message = message(text);
            assert_eq!(message.said(), said, "{text}");
            let found: Vec<_> = message.beside().map(|span| text.get(span).unwrap()).collect();
            assert_eq!(found, beside, "{text}");
        }
    }
}
