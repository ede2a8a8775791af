//! What a collector, a scraper and whoever reads standard error learn of calls, and what they must not.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what a collector was sent and cannot be read fails the test"
)]

mod world;

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value as Attribute},
    metrics::v1::{Metric, metric::Data},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message;
use serde_json::json;
use testkit::{Answer, Ask, Upstream};
use world::{World, http};

const CANARY: &str = "canary-3f9a1c77d2";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const RULES: &str = r#"{"policy": "test", "rules": [
    {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
    {"id": "no-root", "action": "tool.execute", "target": "files/echo", "effect": "deny",
     "when": "has(args.path) && args.path == '/'"}]}"#;

/// What a collector got.
#[derive(Default)]
struct Exported {
    spans: Vec<Span>,
    metrics: Vec<Metric>,
    bytes: Vec<u8>,
}

impl Exported {
    fn of(collector: &Upstream) -> Self {
        let mut exported = Self::default();
        for request in collector.requests() {
            assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
            exported.bytes.extend_from_slice(&request.body);
            match &*request.path {
                "/base/v1/traces" => {
                    let traces = ExportTraceServiceRequest::decode(request.body).unwrap();
                    let scopes = traces.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
                    exported.spans.extend(scopes.flat_map(|scope| scope.spans));
                }
                "/base/v1/metrics" => {
                    let metrics = ExportMetricsServiceRequest::decode(request.body).unwrap();
                    let scopes = metrics.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
                    exported.metrics.extend(scopes.flat_map(|scope| scope.metrics));
                }
                other => panic!("the collector was asked for {other}"),
            }
        }
        exported
    }

    fn named(&self, name: &str, kind: SpanKind) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.name == name && span.kind == i32::from(kind)).collect()
    }

    fn has(&self, text: &str) -> bool {
        self.bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Attribute> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    match attribute(&span.attributes, key)? {
        Attribute::StringValue(text) => Some(text),
        _ => None,
    }
}

fn configuration(upstream: &Upstream, collector: &str) -> String {
    let servers = http("files", upstream);
    format!("servers:\n{servers}telemetry: {{ otlp: {{ endpoint: \"{collector}\" }} }}\n")
}

fn base(collector: &Upstream) -> String {
    format!("http://{}/base/", collector.address())
}

fn call(id: i64, arguments: &serde_json::Value) -> serde_json::Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "echo", "arguments": arguments}})
}

#[tokio::test]
async fn spans_say_what_happened_and_nothing_else() {
    let (upstream, collector) = (Upstream::start().await, Upstream::start().await);
    let world = World::with(&configuration(&upstream, &base(&collector)), RULES).await;
    let agent = world.legacy("/mcp/files").await;
    let traced = agent
        .ask("tools/call", &call(71, &json!({"text": CANARY})))
        .header("traceparent", &format!("00-{TRACE}-{SPAN}-01"))
        .header("tracestate", "vendor=1")
        .header("baggage", &format!("user={CANARY}"));
    assert!(traced.send().await.json().await["result"].is_object());
    let denied = agent.ask("tools/call", &call(72, &json!({"path": "/"}))).send().await.json().await;
    let denied_id = denied.pointer("/error/data/call").unwrap().as_str().unwrap().to_owned();
    let silent = format!("00-{}-{SPAN}-00", "5".repeat(32));
    let unrecorded = agent.ask("tools/call", &call(73, &json!({}))).header("traceparent", &silent);
    assert!(unrecorded.send().await.json().await["result"].is_object());

    let handle = agent.session().unwrap().to_owned();
    let key = world.alice.clone();
    let sent = upstream.seen("tools/call");
    let line = world.says("reason=\"denied\"").await;
    let said = world.said().join("\n");
    assert!(world.stop().await.0.success());
    let exported = Exported::of(&collector);

    // The trace: caller, served, forwarded, server.
    let served = exported.named("tools/call echo", SpanKind::Server);
    let served = served.iter().find(|span| hex(&span.trace_id) == TRACE).expect("the traced call");
    assert_eq!(hex(&served.parent_span_id), SPAN);
    assert_eq!(served.trace_state, "vendor=1");
    let forwarded = exported.named("tools/call echo", SpanKind::Client);
    let forwarded = forwarded.iter().find(|span| hex(&span.trace_id) == TRACE).expect("its forwarding");
    assert_eq!(forwarded.parent_span_id, served.span_id);
    assert_eq!(
        sent[0].header("traceparent"),
        Some(&*format!("00-{TRACE}-{}-01", hex(&forwarded.span_id))),
        "the server must be told the span that is exported"
    );
    assert_eq!(sent[0].header("tracestate"), Some("vendor=1"));
    assert_eq!(sent[0].header("baggage"), None);

    // The stages, inside the span and one after the other.
    let stages: Vec<&Span> = exported.spans.iter().filter(|span| span.parent_span_id == served.span_id).collect();
    let names: Vec<&str> = stages.iter().map(|span| &*span.name).collect();
    assert_eq!(
        names,
        [
            "authenticate",
            "resolve",
            "limit",
            "validate",
            "screen",
            "authorize",
            "settle",
            "intend",
            "inject",
            "tools/call echo",
            "release"
        ]
    );
    assert!(stages.is_sorted_by_key(|span| span.start_time_unix_nano));
    for span in &stages {
        assert!(span.start_time_unix_nano >= served.start_time_unix_nano);
        assert!(
            span.end_time_unix_nano <= served.end_time_unix_nano
                && span.end_time_unix_nano >= span.start_time_unix_nano
        );
    }
    let mut ids: Vec<&[u8]> = exported.spans.iter().map(|span| &*span.span_id).collect();
    ids.sort_unstable();
    assert!(ids.is_sorted_by(|one, next| one < next), "two spans have one id");

    // What they say.
    for span in [served, forwarded] {
        assert_eq!(text(span, "mcp.method.name"), Some("tools/call"));
        assert_eq!(text(span, "gen_ai.tool.name"), Some("echo"));
        assert_eq!(text(span, "gen_ai.operation.name"), Some("execute_tool"));
        assert_eq!(text(span, "network.transport"), Some("tcp"));
        assert_eq!(text(span, "mcp.protocol.version"), Some(testkit::LEGACY));
        assert_eq!(text(span, "error.type"), None);
    }
    assert_eq!(text(served, "durward.agent"), Some("alice"));
    assert_eq!(text(forwarded, "server.address"), Some("127.0.0.1"));

    // The refusal.
    let refused =
        exported.spans.iter().find(|span| text(span, "durward.call") == Some(&denied_id)).expect("the refusal");
    assert_eq!(text(refused, "durward.stage"), Some("authorize"));
    assert!(text(refused, "error.type").unwrap().starts_with('-'), "the JSON-RPC code");
    assert_eq!(refused.status.as_ref().unwrap().code, i32::from(StatusCode::Error));
    let rules = attribute(&refused.attributes, "durward.rules");
    let Some(Attribute::ArrayValue(rules)) = rules else { panic!("no rules in {refused:?}") };
    assert_eq!(rules.values, [AnyValue { value: Some(Attribute::StringValue("no-root".to_owned())) }]);
    let below = |span: &&Span| span.trace_id == refused.trace_id && span.kind == i32::from(SpanKind::Client);
    assert!(exported.spans.iter().find(below).is_none(), "nothing was forwarded");

    // What the caller does not record is not recorded here.
    assert!(exported.spans.iter().all(|span| hex(&span.trace_id) != "5".repeat(32)));
    assert!(sent[1].header("traceparent").unwrap().ends_with("-00"));

    // The metrics of the same calls.
    let operation =
        exported.metrics.iter().rev().find(|metric| metric.name == "mcp.server.operation.duration").unwrap();
    let Some(Data::Histogram(histogram)) = &operation.data else { panic!("{operation:?}") };
    let calls: Vec<_> = histogram
        .data_points
        .iter()
        .filter(|point| attribute(&point.attributes, "gen_ai.tool.name").is_some())
        .collect();
    assert_eq!(calls.iter().map(|point| point.count).sum::<u64>(), 3);
    assert_eq!(operation.unit, "s");

    // The line names identity and rule.
    for part in [
        "agent=\"alice\"",
        "server=\"files\"",
        "target=\"echo\"",
        "rule=\"no-root\"",
        "outcome=\"refused\"",
        &denied_id,
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }

    // What nobody may learn.
    let secret = key.rsplit('_').next().unwrap();
    for hidden in [CANARY, &handle, &key, secret] {
        assert!(!exported.has(hidden), "the collector was told {hidden}");
        assert!(!said.contains(hidden), "stderr was told {hidden}");
    }
}

#[tokio::test]
async fn metrics_can_be_scraped_without_a_key() {
    let upstream = Upstream::start().await;
    let world = World::with(&format!("servers:\n{}", http("files", &upstream)), RULES).await;
    let agent = world.legacy("/mcp/files").await;
    agent.call("echo", json!({"text": CANARY})).await;
    agent.call("echo", json!({"path": "/"})).await;
    world.says("reason=\"denied\"").await;
    let management = world.says("management").await;
    let (_, rest) = management.split_once("http://").unwrap();
    let scraped = Ask::get(&format!("http://{}/metrics", rest.split_whitespace().next().unwrap())).send().await;
    assert!(scraped.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = scraped.text().await;
    for line in [
        "durward_tool_calls_total{server=\"files\",tool=\"echo\",outcome=\"answered\"} 1\n",
        "durward_stops_total{outcome=\"refused\",stage=\"authorize\",reason=\"denied\"} 1\n",
        "durward_server_up{server=\"files\"} 1\n",
        "durward_sessions 1\n",
        "durward_log_healthy 1\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert!(!text.contains(CANARY) && !text.contains(agent.session().unwrap()) && !text.contains(&world.alice));
}

#[tokio::test]
async fn without_a_collector_the_context_passes_as_it_came() {
    let upstream = Upstream::start().await;
    let world = World::start(&http("files", &upstream)).await;
    let agent = world.modern("/mcp/files");
    let theirs = format!("00-{TRACE}-{SPAN}-01");
    agent
        .ask(
            "tools/list",
            &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta(&theirs)}}),
        )
        .send()
        .await
        .json()
        .await;
    agent.request("tools/list", json!({})).await.json().await;
    let sent: Vec<_> =
        upstream.seen("tools/list").into_iter().filter(|list| list.header("durward-call-id").is_some()).collect();
    assert_eq!(sent[0].header("traceparent"), Some(&*theirs));
    assert_eq!(sent[1].header("traceparent"), None, "nobody would ever see that span");
}

fn meta(traceparent: &str) -> serde_json::Value {
    let mut meta = testkit::meta();
    meta["traceparent"] = json!(traceparent);
    meta
}

#[tokio::test]
async fn a_collector_that_fails_disturbs_no_call() {
    let (upstream, collector) = (Upstream::start().await, Upstream::start().await);
    collector.always("POST", |_| Answer::status(hyper::StatusCode::BAD_REQUEST));
    let world = World::with(&configuration(&upstream, &base(&collector)), RULES).await;
    let agent = world.legacy("/mcp/files").await;
    for _ in 0..20 {
        assert!(agent.call("echo", json!({"text": "x"})).await["result"].is_object());
    }
    world.says("the telemetry collector takes no spans or metrics").await;
    assert!(agent.call("echo", json!({"text": "x"})).await["result"].is_object());
    let warnings = world.said().iter().filter(|line| line.contains("takes no spans")).count();
    assert_eq!(warnings, 1);
    assert!(world.stop().await.0.success());
}

#[tokio::test]
async fn export_begins_with_a_reload() {
    let (upstream, collector) = (Upstream::start().await, Upstream::start().await);
    let servers = format!("servers:\n{}", http("files", &upstream));
    let world = World::with(&servers, RULES).await;
    world.reload(&configuration(&upstream, &base(&collector))).await;
    let agent = world.legacy("/mcp/files").await;
    assert!(agent.call("echo", json!({"text": "x"})).await["result"].is_object());
    assert!(world.stop().await.0.success());
    assert_eq!(Exported::of(&collector).named("tools/call echo", SpanKind::Client).len(), 1);
}

#[tokio::test]
async fn the_span_of_a_bridged_hop_says_what_was_spoken_and_answered_there() {
    let (upstream, collector) = (Upstream::start().await, Upstream::start().await);
    upstream.always("tools/call", |received| Answer::error(&received.id(), -32099, "boom"));
    let endpoint = format!("telemetry: {{ otlp: {{ endpoint: \"{}\" }} }}\n", base(&collector));
    let server = format!("servers:\n  files: {{ url: \"{}\", internal: true, era: modern }}\n", upstream.url());
    let world = World::with(&(server + &endpoint), RULES).await;
    let agent = world.legacy("/mcp/files").await;
    assert_eq!(agent.call("echo", json!({"text": "x"})).await["error"]["code"], -32099);
    assert!(world.stop().await.0.success());
    let exported = Exported::of(&collector);
    for (kind, revision) in [(SpanKind::Server, testkit::LEGACY), (SpanKind::Client, testkit::MODERN)] {
        let spans = exported.named("tools/call echo", kind);
        assert_eq!(text(spans[0], "mcp.protocol.version"), Some(revision), "{kind:?}");
        assert_eq!(text(spans[0], "rpc.response.status_code"), Some("-32099"), "{kind:?}");
    }
}
