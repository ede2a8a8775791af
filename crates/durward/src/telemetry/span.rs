//! A closed call as OpenTelemetry spans: one under which it was served, one per stage below it, and the one that its
//! server knows as its parent. Names and attributes follow the MCP conventions.
//!
//! SECURITY: ids, names and verdicts only. Never arguments, results, credentials or the session's handle.

use super::{attribute, attribute_of, nanos, scope};
use gateway::{
    journal::Closed,
    observe::metrics::{error_type, method, outcome_name},
    server::{Server, Transport},
    snapshot::Snapshot,
    stop::Stage,
    trace::{self, SpanId},
    trail::{Facts, Mark},
};
use mcp::{Era, Revision};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};
use vocab::Action;

/// The caller records the trace (W3C flag).
const SAMPLED: u32 = 0x01;
/// The next flag is known.
const REMOTE_KNOWN: u32 = 0x100;
/// The parent is another process.
const REMOTE: u32 = 0x200;

/// A request with these spans.
pub(super) fn request(spans: Vec<Span>, resource: &Resource) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

/// The spans of a call. None if its caller does not record the trace.
pub(super) fn of(closed: &Closed, snapshot: &Snapshot) -> Vec<Span> {
    let facts = &closed.facts;
    if facts.trace.as_ref().is_some_and(|parent| !parent.sampled) {
        return Vec::new();
    }
    let mut spans = Vec::with_capacity(facts.stages.len() + 1);
    spans.push(served(closed));
    let mut at = nanos(facts.at);
    for (index, mark) in facts.stages.iter().enumerate() {
        let end = at + u64::from(mark.us) * 1000;
        let server = facts.server.as_ref().and_then(|server| snapshot.servers.get(server));
        let span = match server {
            Some(server) if mark.stage == Stage::Forward => forwarded(closed, server, mark, at, end),
            _ => stage(facts, index, mark, at, end),
        };
        spans.push(span);
        at = end;
    }
    spans
}

fn begin(facts: &Facts, id: SpanId, kind: SpanKind, name: String) -> Span {
    Span {
        trace_id: trace::trace_of(facts.call, facts.trace.as_ref()).to_vec(),
        span_id: id.to_vec(),
        trace_state: facts.trace.as_ref().and_then(|parent| parent.state.as_deref()).unwrap_or_default().to_owned(),
        parent_span_id: trace::served(facts.call).to_vec(),
        flags: SAMPLED | REMOTE_KNOWN,
        name,
        kind: kind.into(),
        ..Span::default()
    }
}

/// The span under which the call was served.
fn served(closed: &Closed) -> Span {
    let Closed { facts, outcome } = closed;
    let mut span = begin(facts, trace::served(facts.call), SpanKind::Server, name(facts));
    match &facts.trace {
        Some(parent) => {
            span.parent_span_id = parent.span.to_vec();
            span.flags |= REMOTE;
        }
        None => span.parent_span_id = Vec::new(),
    }
    span.start_time_unix_nano = nanos(facts.at);
    span.end_time_unix_nano = nanos(facts.at) + facts.duration_us * 1000;
    span.attributes = common(facts, facts.revision);
    let attributes = &mut span.attributes;
    attributes.push(attribute("network.transport", "tcp"));
    attributes.push(attribute("network.protocol.name", "http"));
    attributes.push(attribute("client.address", facts.peer.to_string()));
    if facts.status != 0 {
        attributes.push(attribute_of("http.response.status_code", Value::IntValue(facts.status.into())));
    }
    if let Some(code) = facts.code {
        attributes.push(attribute("rpc.response.status_code", code.to_string()));
    }
    attributes.push(attribute("durward.call", facts.call.to_string()));
    if let Some(parent) = facts.parent {
        attributes.push(attribute("durward.call.parent", parent.to_string()));
    }
    attributes.push(attribute("durward.era", facts.era.as_str()));
    attributes.extend(facts.bridged.map(|era| attribute("durward.bridge", era.as_str())));
    attributes.push(attribute("durward.outcome", outcome_name(outcome)));
    if let Some(principal) = &facts.principal {
        attributes.push(attribute("durward.agent", principal.agent.as_str()));
        if let Some(user) = &principal.user {
            attributes.push(attribute("user.id", user.to_string()));
        }
        if let Some(issuer) = &principal.issuer {
            attributes.push(attribute("durward.issuer", issuer.to_string()));
        }
    }
    if let Some(class) = facts.class {
        attributes.push(attribute("durward.class", class.as_str()));
    }
    if !facts.rules.is_empty() {
        let values = facts.rules.iter().map(|rule| AnyValue { value: Some(Value::StringValue(rule.to_string())) });
        attributes.push(attribute_of("durward.rules", Value::ArrayValue(ArrayValue { values: values.collect() })));
    }
    if !facts.findings.is_empty() {
        let findings = i64::try_from(facts.findings.len()).unwrap_or(i64::MAX);
        attributes.push(attribute_of("durward.findings", Value::IntValue(findings)));
    }
    if let audit::Outcome::Refused { stage, reason }
    | audit::Outcome::Withheld { stage, reason }
    | audit::Outcome::Faulted { stage, reason } = outcome
    {
        attributes.push(attribute("durward.stage", &**stage));
        attributes.push(attribute("durward.reason", &**reason));
    }
    fail(&mut span, &error_type(facts, outcome));
    span
}

/// One stage of the line.
fn stage(facts: &Facts, index: usize, mark: &Mark, start: u64, end: u64) -> Span {
    let id = below(trace::served(facts.call), index);
    let mut span = begin(facts, id, SpanKind::Internal, mark.stage.as_str().to_owned());
    (span.start_time_unix_nano, span.end_time_unix_nano) = (start, end);
    span.attributes.push(attribute("durward.verdict", mark.verdict));
    fail(&mut span, if mark.verdict == "ok" { "" } else { mark.verdict });
    span
}

/// The call of the server. Its id is the one that the server was told.
fn forwarded(closed: &Closed, server: &Server, mark: &Mark, start: u64, end: u64) -> Span {
    let Closed { facts, outcome } = closed;
    let mut span = begin(facts, trace::forwarded(facts.call), SpanKind::Client, name(facts));
    // A stream is answered when it ends.
    let streamed = nanos(facts.at) + facts.duration_us * 1000;
    span.start_time_unix_nano = start;
    span.end_time_unix_nano = if facts.streamed { end.max(streamed) } else { end };
    span.attributes = common(facts, spoken(facts));
    let attributes = &mut span.attributes;
    match &server.transport {
        Transport::Http(endpoint) => {
            attributes.push(attribute("network.transport", "tcp"));
            attributes.push(attribute("network.protocol.name", "http"));
            attributes.push(attribute("server.address", endpoint.host()));
            attributes.push(attribute_of("server.port", Value::IntValue(endpoint.port().into())));
        }
        Transport::Stdio(_) => attributes.push(attribute("network.transport", "pipe")),
    }
    let error = match (mark.verdict, outcome) {
        ("ok", audit::Outcome::Failed) => {
            // The server said it: what went wrong here has a verdict, or another outcome.
            attributes.extend(facts.code.map(|code| attribute("rpc.response.status_code", code.to_string())));
            error_type(facts, outcome)
        }
        ("ok", _) => "".into(),
        (verdict, _) => verdict.into(),
    };
    fail(&mut span, &error);
    span
}

/// The revision that the server is spoken to in, as far as it is known. Over a bridge to the legacy era that is the session's
/// matter, and no call tells.
fn spoken(facts: &Facts) -> Option<Revision> {
    match facts.bridged {
        None => facts.revision,
        Some(Era::Modern) => Some(Revision::V2026_07_28),
        Some(Era::Legacy) => None,
    }
}

/// What the conventions say of every operation.
fn common(facts: &Facts, revision: Option<Revision>) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(24);
    match &*facts.method {
        http @ ("GET" | "DELETE") => attributes.push(attribute("http.request.method", http)),
        "response" | "unread" => {}
        _ => attributes.push(attribute("mcp.method.name", method(facts))),
    }
    if let Some(revision) = revision {
        attributes.push(attribute("mcp.protocol.version", revision.as_str()));
    }
    if let Some(server) = &facts.server {
        attributes.push(attribute("durward.server", server.as_str()));
    }
    if let (Some(action), Some(target)) = (facts.action, &facts.target) {
        match action {
            Action::ToolExecute => {
                attributes.push(attribute("gen_ai.tool.name", &**target));
                attributes.push(attribute("gen_ai.operation.name", "execute_tool"));
            }
            Action::PromptGet => attributes.push(attribute("gen_ai.prompt.name", &**target)),
            Action::ResourceRead | Action::ResourceSubscribe => {
                attributes.push(attribute("mcp.resource.uri", place(target)));
            }
            Action::CompletionComplete
            | Action::TaskManage
            | Action::ServerSample
            | Action::ServerElicit
            | Action::ServerRoots
            | Action::MethodCall => {}
        }
    }
    attributes
}

/// `{mcp.method.name} {target}`; addresses of resources are too many for a name.
fn name(facts: &Facts) -> String {
    let method = method(facts);
    match (facts.action, &facts.target) {
        (Some(Action::ToolExecute | Action::PromptGet), Some(target)) => format!("{method} {target}"),
        _ => method.to_owned(),
    }
}

/// The place an address names, without what is asked of it: that part may carry credentials.
fn place(uri: &str) -> &str {
    uri.split(['?', '#']).next().unwrap_or_default()
}

fn fail(span: &mut Span, error: &str) {
    if !error.is_empty() {
        span.attributes.push(attribute("error.type", error));
        span.status = Some(Status { code: StatusCode::Error.into(), ..Status::default() });
    }
}

/// The id of a stage's span. Ids of one call stay apart from each other; from those of others the call id keeps them.
fn below(served: SpanId, index: usize) -> SpanId {
    let index = u64::try_from(index).unwrap_or_default() + 1;
    u64::from_be_bytes(served).wrapping_add(index.rotate_right(8)).max(1).to_be_bytes()
}
