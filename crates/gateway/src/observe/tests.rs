//! Metrics of calls that never were, and what operators are told of them.

use super::{
    instruments::{ALL, UNEXPORTED},
    line::Lines,
    meter::{Kind, Names, OTHER, Value},
    metrics::{Metrics, error_type},
    text,
};
use crate::{
    journal::Closed,
    label::Label,
    stop::Stage,
    trail::{Facts, Mark},
};
use audit::Outcome;
use serde_json::Value as Json;
use std::{collections::BTreeSet, fmt::Write, net::IpAddr, sync::Arc};
use tracing_subscriber::layer::SubscriberExt;
use vocab::{Action, AgentId, CallId, Class, Finding, PrincipalId, RuleId, ServerName, Side, TenantId, Timestamp};

const PAGE: &str = include_str!("../../../../docs/observability.md");
const DASHBOARD: &str = include_str!("../../../../deploy/grafana/durward.json");

fn facts(agent: &str, server: &str, tool: &str) -> Facts {
    let tenant = TenantId::default_tenant();
    let mut facts = Facts::new(CallId::from_bytes([7; 16]), tenant.clone(), IpAddr::from([127, 0, 0, 1]));
    facts.method = "tools/call".into();
    facts.principal = Some(PrincipalId { agent: AgentId::new(agent).unwrap(), tenant, user: None, issuer: None });
    facts.server = Some(ServerName::new(server).unwrap());
    facts.target = Some(Label::of(&Arc::from(tool), None));
    facts.action = Some(Action::ToolExecute);
    facts.class = Some(Class::Read);
    facts.stages = vec![
        Mark { stage: Stage::Authenticate, verdict: "ok", us: 40 },
        Mark { stage: Stage::Forward, verdict: "ok", us: 30_000 },
    ];
    facts.duration_us = 30_100;
    facts
}

fn refused(stage: Stage, reason: &'static str) -> Outcome {
    Outcome::Refused { reason: reason.into(), stage: stage.as_str().into() }
}

/// What the calls say when everybody listens, without the time.
fn said(calls: impl IntoIterator<Item = Closed>) -> String {
    let everything = tracing_subscriber::registry().with(tracing::level_filters::LevelFilter::TRACE);
    tracing::subscriber::with_default(everything, || {
        let mut lines = Lines::at(Timestamp::from_seconds(1_764_403_200)).expect("somebody listens");
        for closed in calls {
            lines.add(&closed);
        }
        lines.text().replace("2025-11-29T08:00:00.000000Z  INFO durward::call: ", "")
    })
}

/// The samples of a metric, with their values, as a scraper reads them.
fn samples(metrics: &Metrics, name: &str) -> Vec<String> {
    let text = text::render(&metrics.counted());
    text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
}

#[test]
fn a_call_is_counted_by_all_it_is_divided_by() {
    let mut metrics = Metrics::default();
    metrics.count(&Closed { facts: Box::new(facts("ci", "files", "read")), outcome: Outcome::Answered });
    for (name, line) in [
        ("durward_calls_total", r#"{server="files",method="tools/call",outcome="answered",era="legacy"} 1"#),
        ("durward_agent_calls_total", r#"{agent="ci",outcome="answered"} 1"#),
        ("durward_tool_calls_total", r#"{server="files",tool="read",outcome="answered"} 1"#),
        ("durward_stage_duration_seconds_count", r#"{stage="authenticate"} 1"#),
        ("durward_stage_duration_seconds_sum", r#"{stage="forward"} 0.03"#),
        ("durward_added_duration_seconds_sum", " 0.0001"),
        ("mcp_client_operation_duration_seconds_count", r#"{mcp_method_name="tools/call",durward_server="files"} 1"#),
        (
            "mcp_server_operation_duration_seconds_bucket",
            r#"{mcp_method_name="tools/call",gen_ai_tool_name="read",le="0.05"} 1"#,
        ),
    ] {
        assert!(samples(&metrics, name).contains(&format!("{name}{line}")), "{:#?}", samples(&metrics, name));
    }
    assert!(samples(&metrics, "durward_stops_total").is_empty());
    // A stage that nothing passed has no series.
    assert_eq!(samples(&metrics, "durward_stage_duration_seconds_count").len(), 2);
}

#[test]
fn a_name_that_moves_the_cursor_is_counted_as_no_other() {
    let mut metrics = Metrics::default();
    for tool in ["ok", "ok\u{1b}[2J\n\u{202e}\"\\"] {
        metrics.count(&Closed { facts: Box::new(facts("ci", "files", tool)), outcome: Outcome::Answered });
    }
    let evil =
        r#"durward_tool_calls_total{server="files",tool="ok\\u{1b}[2J\\n\\u{202e}\\\"\\\\",outcome="answered"} 1"#;
    let plain = r#"durward_tool_calls_total{server="files",tool="ok",outcome="answered"} 1"#;
    assert_eq!(samples(&metrics, "durward_tool_calls_total"), [plain, evil]);
}

#[test]
fn a_user_is_one_field_of_the_line() {
    let mut facts = facts("ci", "files", "read");
    let principal = facts.principal.as_mut().unwrap();
    principal.user = Some(vocab::UserId::new("eve agent=\"root\"\u{202e}").unwrap());
    let line = said([Closed { facts: Box::new(facts), outcome: Outcome::Answered }]);
    assert!(line.contains(r#" user="eve agent=\"root\"\u{202e}" "#), "{line}");
}

#[test]
fn refusals_name_stage_and_reason() {
    let mut metrics = Metrics::default();
    metrics.count(&Closed { facts: Box::new(facts("ci", "files", "read")), outcome: refused(Stage::Limit, "rate") });
    metrics
        .count(&Closed { facts: Box::new(facts("ci", "files", "read")), outcome: refused(Stage::Authorize, "denied") });
    assert_eq!(
        samples(&metrics, "durward_stops_total"),
        [
            r#"durward_stops_total{outcome="refused",stage="authorize",reason="denied"} 1"#,
            r#"durward_stops_total{outcome="refused",stage="limit",reason="rate"} 1"#,
        ]
    );
    assert_eq!(samples(&metrics, "durward_limited_total"), [r#"durward_limited_total{agent="ci"} 1"#]);
}

#[test]
fn findings_are_counted_by_kind_and_side() {
    let mut metrics = Metrics::default();
    let mut facts = facts("ci", "files", "read");
    let finding = Finding {
        detector: Arc::from("secrets"),
        kind: Arc::from("aws-access-key"),
        pointer: Arc::from("/text"),
        side: Side::Result,
    };
    facts.findings = vec![finding.clone(), finding];
    metrics.count(&Closed { facts: Box::new(facts), outcome: Outcome::Answered });
    assert_eq!(
        samples(&metrics, "durward_findings_total"),
        [r#"durward_findings_total{kind="aws-access-key",side="result"} 2"#]
    );
}

#[test]
fn labels_stay_bounded_whatever_comes() {
    let mut metrics = Metrics::default();
    for at in 0..10_000 {
        let mut facts = facts(&format!("agent-{at}"), &format!("server-{at}"), &format!("tool-{at}"));
        facts.method = format!("made/up-{at}").into();
        facts.code = Some(at);
        metrics.count(&Closed { facts: Box::new(facts), outcome: Outcome::Failed });
    }
    for (name, most) in [
        ("durward_agent_calls_total", 501),
        ("durward_tool_calls_total", 1201),
        ("durward_calls_total", 201),
        ("mcp_server_operation_duration_seconds_count", 1201),
        ("mcp_client_operation_duration_seconds_count", 301),
    ] {
        let count = samples(&metrics, name).len();
        assert!((2..=most).contains(&count), "{name} has {count} series");
    }
    let counted = metrics.counted();
    let calls = counted.iter().find(|family| family.instrument.name == "durward.agent.calls").unwrap();
    let other = calls.series.iter().find(|series| *series.labels[0] == *OTHER).unwrap();
    assert_eq!(other.value, Value::Count(9_500));
    assert!(samples(&metrics, "durward_calls_total").iter().all(|line| !line.contains("made/up")));
}

#[test]
fn what_is_not_there_or_not_shown_names_no_tool() {
    let mut metrics = Metrics::default();
    let mut missing = facts("ci", "files", "made-up");
    missing.class = None;
    metrics.count(&Closed { facts: Box::new(missing), outcome: refused(Stage::Resolve, "unknown") });
    metrics
        .count(&Closed { facts: Box::new(facts("ci", "files", "kept")), outcome: refused(Stage::Authorize, "hidden") });
    assert!(samples(&metrics, "durward_tool_calls_total").is_empty());
    assert_eq!(
        samples(&metrics, "mcp_server_operation_duration_seconds_count").iter().find(|line| line.contains("tool_name")),
        None
    );
    assert_eq!(samples(&metrics, "durward_calls_total").len(), 1, "they are counted as calls");
}

#[test]
fn agents_that_nobody_registered_take_no_label() {
    let mut metrics = Metrics::default();
    let refused = |agent: &str, reason| Closed {
        facts: Box::new(facts(agent, "files", "read")),
        outcome: refused(Stage::Authenticate, reason),
    };
    for stranger in 0..2_000 {
        metrics.count(&refused(&format!("stranger-{stranger}"), "unregistered_agent"));
    }
    metrics.count(&refused("ci", "disabled_agent"));
    let counted = samples(&metrics, "durward_agent_calls_total");
    assert_eq!(counted.len(), 2, "{counted:?}");
    assert!(counted.iter().any(|line| line.contains("\"ci\"") && line.ends_with(" 1")), "{counted:?}");
    assert!(counted.iter().any(|line| line.contains(OTHER) && line.ends_with(" 2000")), "{counted:?}");
}

#[test]
fn a_label_keeps_what_it_knew_and_takes_nothing_long() {
    let mut names = Names::new(2);
    assert_eq!(names.bound("", "a"), "a");
    assert_eq!(names.bound("files", "a"), "a");
    assert_eq!(names.bound("", "b"), OTHER);
    assert_eq!(names.bound("", "a"), "a");
    assert_eq!(names.bound("", ""), "");
    assert_eq!(Names::new(9).bound("", &"x".repeat(200)), OTHER);
}

#[test]
fn errors_are_named_as_the_conventions_say() {
    let mut facts = facts("ci", "files", "read");
    assert_eq!(error_type(&facts, &Outcome::Answered), "");
    assert_eq!(error_type(&facts, &Outcome::Failed), "tool_error");
    assert_eq!(error_type(&facts, &Outcome::Abandoned), "abandoned");
    assert_eq!(error_type(&facts, &refused(Stage::Limit, "rate")), "rate");
    facts.code = Some(-32602);
    assert_eq!(error_type(&facts, &Outcome::Failed), "-32602");
    assert_eq!(error_type(&facts, &refused(Stage::Validate, "schema")), "-32602");
}

#[test]
fn text_is_open_metrics() {
    let mut metrics = Metrics::default();
    let mut odd = facts("ci", "files", "a\"b\\c\nd");
    odd.duration_us = 400_000_000;
    metrics.count(&Closed { facts: Box::new(odd), outcome: Outcome::Answered });
    let text = text::render(&metrics.counted());
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains(r#"tool="a\\\"b\\\\c\\nd""#), "{text}");
    assert!(text.contains("# UNIT mcp_server_operation_duration_seconds seconds\n"));
    assert!(text.contains("# TYPE durward_calls counter\n"));
    // Buckets are cumulative, and the last one holds everything.
    let buckets = samples(&metrics, "mcp_server_operation_duration_seconds_bucket");
    assert!(buckets.first().unwrap().ends_with("le=\"0.01\"} 0"), "{buckets:?}");
    assert!(buckets.last().unwrap().ends_with("le=\"+Inf\"} 1"), "{buckets:?}");
    assert!(buckets.iter().any(|line| line.contains("le=\"1.0\"")));
}

#[test]
fn the_page_lists_every_metric() {
    let mut table = String::from("| Metric | Kind | Labels | What it says |\n|---|---|---|---|\n");
    for instrument in ALL {
        let kind = match instrument.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels: Vec<String> = instrument.labels.iter().map(|name| format!("`{}`", text::label(name))).collect();
        let name = match instrument.kind {
            Kind::Counter => format!("{}_total", text::name(instrument)),
            Kind::Gauge | Kind::Histogram(_) => text::name(instrument),
        };
        writeln!(table, "| `{name}` | {kind} | {} | {} |", labels.join(", "), instrument.help).unwrap();
    }
    assert!(PAGE.contains(&table), "docs/observability.md must contain this table:\n\n{table}");
    assert!(ALL.iter().any(|instrument| std::ptr::eq(*instrument, &raw const UNEXPORTED)));
}

#[test]
fn the_dashboard_asks_only_for_what_exists() {
    let known: BTreeSet<String> = ALL.iter().flat_map(|instrument| text::samples(instrument)).collect();
    let dashboard: Json = serde_json::from_str(DASHBOARD).unwrap();
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            asked.extend(words.filter(|word| is_ours(word)).map(str::to_owned));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let query = variable["query"].as_str().unwrap_or_default();
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        asked.extend(words.filter(|word| is_ours(word)).map(str::to_owned));
    }
    assert!(asked.len() > 10, "the dashboard shows next to nothing: {asked:?}");
    let labels: BTreeSet<String> =
        ALL.iter().flat_map(|instrument| instrument.labels.iter().map(|name| text::label(name))).collect();
    let unknown: Vec<&String> = asked.iter().filter(|name| !known.contains(*name) && !labels.contains(*name)).collect();
    assert!(unknown.is_empty(), "the dashboard asks for what nobody counts: {unknown:?}");
}

fn is_ours(word: &str) -> bool {
    ["durward_", "mcp_", "gen_ai_"].iter().any(|prefix| word.starts_with(prefix))
}

#[test]
fn a_call_says_one_line_whatever_its_names_are() {
    let refused =
        Closed { facts: Box::new(facts("ci", "files", "erase")), outcome: refused(Stage::Authorize, "denied") };
    let mut odd = facts("ci", "files", "a \"quoted\" tool\n\u{1b}[31mINFO");
    odd.rules = ["no-erase", "no-write"].map(|rule| RuleId::new(rule).unwrap()).into();
    odd.status = 200;
    let odd = Closed { facts: Box::new(odd), outcome: Outcome::Answered };
    let call = "07".repeat(16);
    assert_eq!(
        said([refused, odd]),
        format!(
            "call={call} agent=\"ci\" peer=127.0.0.1 server=\"files\" target=\"erase\" method=\"tools/call\" era=\"legacy\" \
             outcome=\"refused\" stage=\"authorize\" reason=\"denied\" status=0 duration_us=30100\n\
             call={call} agent=\"ci\" peer=127.0.0.1 server=\"files\" target=\"a \\\"quoted\\\" tool\\n\\u{{1b}}[31mINFO\" method=\"tools/call\" \
             era=\"legacy\" outcome=\"answered\" rule=\"no-erase,no-write\" status=200 duration_us=30100\n"
        )
    );
}
