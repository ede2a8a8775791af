//! W3C trace context, in and out.
//!
//! A call has two spans that others can name: the one under which it was served and the one under which its server
//! was called. Their ids follow from the call id, so that what is sent and what is exported agree without a table.

use crate::call::{Call, header};
use http::{HeaderMap, HeaderValue};
use mcp::Message;
use std::{borrow::Cow, fmt};
use vocab::CallId;

/// The longest `tracestate` that travels on.
const STATE: usize = 512;
/// The flag that says that the caller records this trace.
const SAMPLED: u8 = 1;

/// A span of W3C trace context.
pub type SpanId = [u8; 8];

/// The span of the caller in which a call was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: [u8; 16],
    /// The span.
    pub span: SpanId,
    /// Whether the caller records the trace.
    pub sampled: bool,
    /// What tracing systems pass along.
    pub state: Option<Box<str>>,
}

impl fmt::Display for Parent {
    /// The id of the trace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trace.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Parent {
    /// The caller's span, if the call names one: in the body's `_meta`, else in HTTP headers.
    pub fn of(headers: &HeaderMap, message: Option<&Message>) -> Option<Self> {
        if let Some(text) = message.and_then(Message::traceparent) {
            // The body's word counts for both: a state without its parent means nothing.
            return Self::parse(&text, message.and_then(Message::tracestate));
        }
        let text = header::get(headers, &header::TRACEPARENT)?.to_str().ok()?;
        let states: Vec<&str> =
            headers.get_all(&header::TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
        Self::parse(text, (!states.is_empty()).then(|| Cow::Owned(states.join(","))))
    }

    /// The span of ours in whose course a server asks something: the one under which it was called.
    pub(crate) fn caused(id: CallId, call: &Call) -> Self {
        let span = forwarded(id);
        match Self::of(&call.headers, call.message()) {
            Some(parent) => Self { span, ..parent },
            None => Self { trace: trace_of(id, None), span, sampled: true, state: None },
        }
    }

    /// A `traceparent` of version 00, or what a later one has in common with it.
    fn parse(text: &str, state: Option<Cow<'_, str>>) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version] = hex::<1>(version)?;
        let more = parts.next().is_some();
        if version == 0xff || (version == 0 && more) {
            return None;
        }
        let (trace, span, [flags]) = (hex::<16>(trace)?, hex::<8>(span)?, hex::<1>(flags)?);
        let state = state.filter(|state| sound(state)).map(|state| Box::from(&*state));
        let sampled = flags & SAMPLED != 0;
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, sampled, state })
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn sound(state: &str) -> bool {
    !state.is_empty() && state.len() <= STATE && state.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The trace of a call: the caller's, or one of its own that is named by the call id.
pub fn trace_of(call: CallId, parent: Option<&Parent>) -> [u8; 16] {
    parent.map_or(*call.as_bytes(), |parent| parent.trace)
}

/// The span under which a call is served.
pub fn served(call: CallId) -> SpanId {
    call.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// The span under which the server of a call is called.
pub fn forwarded(call: CallId) -> SpanId {
    call.as_bytes().last_chunk().copied().unwrap_or_default()
}

/// Puts trace context on the request to a server. Where spans are exported it names ours; where they are not, the
/// caller's passes as it came and nothing is invented: a span nobody ever sees would only break the trace.
pub(crate) fn propagate(call: &Call, exported: bool, headers: &mut HeaderMap) {
    let parent = Parent::of(&call.headers, call.message());
    put(call.id, parent, exported, headers);
}

/// The same for what was made in the course of a call whose context is on the request already.
pub(crate) fn propagate_caused(id: CallId, cause: &Parent, exported: bool, headers: &mut HeaderMap) {
    if exported {
        put(id, Some(cause.clone()), exported, headers);
    }
}

fn put(call: CallId, parent: Option<Parent>, exported: bool, headers: &mut HeaderMap) {
    headers.remove(&header::TRACEPARENT);
    headers.remove(&header::TRACESTATE);
    let (span, sampled) = match (&parent, exported) {
        (None, false) => return,
        (Some(parent), false) => (parent.span, parent.sampled),
        (Some(parent), true) => (forwarded(call), parent.sampled),
        (None, true) => (forwarded(call), true),
    };
    let trace = u128::from_be_bytes(trace_of(call, parent.as_ref()));
    let text = format!("00-{trace:032x}-{:016x}-{:02x}", u64::from_be_bytes(span), u8::from(sampled));
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(header::TRACEPARENT.clone(), value);
    }
    if let Some(value) = parent.and_then(|parent| HeaderValue::from_str(&parent.state?).ok()) {
        headers.insert(header::TRACESTATE.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Operation, Route};
    use mcp::Era;
    use std::net::IpAddr;

    const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn call(headers: &[(&'static str, &str)], body: Option<&str>) -> Call {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let message = body.map(|body| match mcp::scan(body.to_owned().into(), &mcp::Limits::default()).unwrap() {
            mcp::Body::Single(message) => message,
            mcp::Body::Batch(_) => panic!("one message"),
        });
        Call {
            id: CallId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
            parent: None,
            batch: None,
            presence: None,
            route: Route::All,
            operation: message.map_or(Operation::Listen, Operation::Message),
            era: Era::Legacy,
            headers: map,
            peer: IpAddr::from([127, 0, 0, 1]),
        }
    }

    fn sent(call: &Call, exported: bool) -> (Option<String>, Option<String>) {
        let mut headers = call.headers.clone();
        propagate(call, exported, &mut headers);
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned());
        (text(&header::TRACEPARENT), text(&header::TRACESTATE))
    }

    #[test]
    fn context_is_read_as_the_recommendation_says() {
        let cases: [(&str, bool); 11] = [
            (THEIRS, true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false),
            ("", false),
        ];
        for (text, good) in cases {
            assert_eq!(Parent::parse(text, None).is_some(), good, "{text}");
        }
    }

    #[test]
    fn body_wins_over_header_with_its_own_state() {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","_meta":
            {"traceparent":"00-11111111111111111111111111111111-2222222222222222-01","tracestate":"a=1"}}}"#;
        let call = call(&[("traceparent", THEIRS), ("tracestate", "b=2")], Some(body));
        let parent = Parent::of(&call.headers, call.message()).unwrap();
        assert_eq!(parent.to_string(), "1".repeat(32));
        assert_eq!(parent.state.as_deref(), Some("a=1"));
        let (traceparent, tracestate) = sent(&call, true);
        assert_eq!(traceparent.unwrap(), format!("00-{}-08090a0b0c0d0e0f-01", "1".repeat(32)));
        assert_eq!(tracestate.unwrap(), "a=1");
    }

    #[test]
    fn the_span_that_is_sent_is_the_one_that_is_exported() {
        let call = call(&[("traceparent", THEIRS), ("tracestate", "a=1"), ("tracestate", "b=2")], None);
        let (traceparent, tracestate) = sent(&call, true);
        assert_eq!(traceparent.unwrap(), "00-4bf92f3577b34da6a3ce929d0e0e4736-08090a0b0c0d0e0f-01");
        assert_eq!(tracestate.unwrap(), "a=1,b=2");
        assert_eq!(forwarded(call.id), [8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(served(call.id), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn what_a_server_asks_belongs_to_the_call_that_caused_it() {
        let traced = call(&[("traceparent", THEIRS)], None);
        let asked = Parent::caused(traced.id, &traced);
        assert_eq!(
            (asked.to_string().as_str(), asked.span),
            ("4bf92f3577b34da6a3ce929d0e0e4736", forwarded(traced.id))
        );
        let untraced = call(&[], None);
        let asked = Parent::caused(untraced.id, &untraced);
        assert_eq!((asked.trace, asked.span), (trace_of(untraced.id, None), forwarded(untraced.id)));
    }

    #[test]
    fn what_the_caller_does_not_record_stays_unrecorded() {
        let call = call(&[("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")], None);
        assert!(sent(&call, true).0.unwrap().ends_with("-00"));
    }

    #[test]
    fn without_export_the_context_passes_as_it_came() {
        let known = call(&[("traceparent", THEIRS), ("tracestate", "a=1")], None);
        assert_eq!(sent(&known, false), (Some(THEIRS.to_owned()), Some("a=1".to_owned())));
        assert_eq!(sent(&call(&[], None), false), (None, None));
        // A state without a parent means nothing.
        assert_eq!(sent(&call(&[("tracestate", "a=1")], None), false), (None, None));
        assert_eq!(sent(&call(&[("traceparent", "nonsense"), ("tracestate", "a=1")], None), false), (None, None));
    }

    #[test]
    fn a_call_without_context_begins_a_trace_named_by_its_id() {
        let (traceparent, _) = sent(&call(&[], None), true);
        assert_eq!(traceparent.unwrap(), "00-000102030405060708090a0b0c0d0e0f-08090a0b0c0d0e0f-01");
    }
}
