use super::*;
use crate::fixture::{at, call, call_id, tenant};
use proptest::prelude::*;
use serde_json::Value;
use std::fmt::Write as _;
use vocab::Side;

/// RFC 8785, written from the specification and used nowhere else.
fn canonical(value: &Value, to: &mut String) {
    match value {
        Value::Null | Value::Bool(_) => write!(to, "{value}").unwrap(),
        Value::Number(number) => {
            let number = number.as_i64().expect("integers only");
            assert!(number.unsigned_abs() < 1 << 53, "{number} is not one number for every reader");
            write!(to, "{number}").unwrap();
        }
        Value::String(text) => quote(text, to),
        Value::Array(items) => {
            to.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    to.push(',');
                }
                canonical(item, to);
            }
            to.push(']');
        }
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_by_key(|name| name.encode_utf16().collect::<Vec<_>>());
            to.push('{');
            for (place, name) in names.into_iter().enumerate() {
                if place > 0 {
                    to.push(',');
                }
                quote(name, to);
                to.push(':');
                canonical(&members[name], to);
            }
            to.push('}');
        }
    }
}

fn quote(text: &str, to: &mut String) {
    to.push('"');
    for character in text.chars() {
        match character {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\u{8}' => to.push_str("\\b"),
            '\t' => to.push_str("\\t"),
            '\n' => to.push_str("\\n"),
            '\u{c}' => to.push_str("\\f"),
            '\r' => to.push_str("\\r"),
            c if c < ' ' => write!(to, "\\u{:04x}", u32::from(c)).unwrap(),
            c => to.push(c),
        }
    }
    to.push('"');
}

fn text_of(leaf: &mut Leaf, index: u64) -> String {
    let mut text = Vec::new();
    write_leaf(&mut text, index, &leaf.encode().unwrap());
    String::from_utf8(text).unwrap()
}

fn assert_canonical(leaf: &mut Leaf) -> Value {
    let text = text_of(leaf, 7);
    assert!(text.len() <= LONGEST, "{} bytes", text.len());
    let value: Value = serde_json::from_str(&text).unwrap();
    let mut again = String::new();
    canonical(&value, &mut again);
    assert_eq!(text, again);
    value
}

/// Every field filled.
fn whole(text: &str) -> CallRecord {
    let finding =
        Finding { detector: "secrets".into(), kind: "aws-access-key".into(), pointer: text.into(), side: Side::Result };
    CallRecord {
        action: Some(Action::ToolExecute),
        arguments: Some(Commitment { bytes: u64::MAX, digest: Digest::of(b"a") }),
        class: Some(Class::Read),
        credential: Some(SecretName::new("github-token").unwrap()),
        duration_us: u64::MAX,
        era: Some("2025-11-25".into()),
        error: Some(text.into()),
        findings: vec![finding; 3],
        http_status: Some(200),
        identity: Some(format!("token:sha256:{}", "0".repeat(64)).into()),
        intent: Some(3),
        issuer: Some(IssuerName::new("https://idp.example.com/a\\b").unwrap()),
        bridge: Some("modern".into()),
        method: Some(text.to_owned().into()),
        outcome: Outcome::Withheld { reason: text.to_owned().into(), stage: "release".into() },
        parent: Some(call_id(9)),
        peer: Some(IpAddr::from([192, 0, 2, 10])),
        policy: Some(Digest::of(b"p")),
        result: Some(Commitment { bytes: 0, digest: Digest::of(b"") }),
        rules: [RuleId::new("base#1").unwrap()].into(),
        session: Some(Digest::of(b"s")),
        stages: vec![Stage { name: "policy", us: 4 }],
        target: Some(text.into()),
        trace: Some(text.into()),
        user: Some(UserId::new("ü@example.com").unwrap()),
        ..call(1)
    }
}

#[test]
fn a_call_says_what_happened_and_where_it_stands() {
    let value = assert_canonical(&mut Leaf::Call(call(1)));
    assert_eq!(value["index"], 7);
    assert_eq!(value["kind"], "call");
    assert_eq!(value["v"], 1);
    assert_eq!(value["record"]["outcome"]["is"], "answered");
    assert_eq!(value["record"]["agent"], "ci");
    assert!(value["record"].get("error").is_none(), "absent things are left out");
}

#[test]
fn every_kind_is_canonical() {
    assert_canonical(&mut Leaf::Call(whole("a\u{1}\"\\/é\u{10ffff}")));
    assert_canonical(&mut crate::fixture::intent(4));
    assert_canonical(&mut Leaf::Admin(AdminRecord {
        action: "agent.disable".into(),
        actor: "root".into(),
        at: at(1),
        call: call_id(1),
        detail: Some("x\ny".into()),
        outcome: Outcome::Refused { reason: "role".into(), stage: "authorize".into() },
        peer: Some("p".into()),
        target: Some("ci".into()),
        tenant: tenant(),
    }));
    assert_canonical(&mut Leaf::System(SystemRecord {
        call: Some(call_id(1)),
        count: Some(u64::MAX),
        detail: Some("d".into()),
        http_status: Some(401),
        method: Some("m".into()),
        outcome: Some(Outcome::Faulted { reason: "r".into(), stage: "s".into() }),
        peer: Some("p".into()),
        ..SystemRecord::new("unauthenticated".into(), tenant(), at(0))
    }));
}

#[test]
fn what_is_too_long_is_cut_and_says_so() {
    for text in ["x".repeat(100_000), "\u{1}".repeat(100_000), "é".repeat(100_000)] {
        let mut record = whole(&text);
        record.findings = vec![record.findings[0].clone(); 100];
        record.stages = vec![record.stages[0]; 100];
        record.rules = vec![RuleId::new(&"\"".repeat(256)).unwrap(); 100].into();
        let value = assert_canonical(&mut Leaf::Call(record));
        assert_eq!(value["record"]["cut"], true);
        assert!(value["record"]["error"].as_str().unwrap().ends_with("…[cut]"));
        assert_eq!(value["record"]["agent"], "ci", "who called is never cut");
    }
    let mut record = whole("x");
    record.error = Some("y".repeat(60_000));
    let value = assert_canonical(&mut Leaf::Call(record));
    assert_eq!(value["record"]["error"].as_str().unwrap().len(), 60_000, "what fits stays whole");
}

#[test]
fn what_is_cut_still_says_who_decided_and_where_it_ended() {
    let mut record = whole(&"\u{1}".repeat(2000));
    let names = ["authenticate", "authorize", "forward", "inject", "intend", "limit", "receive", "release", "resolve"];
    record.stages = names.map(|name| Stage { name, us: 1 }).to_vec();
    record.rules = (0..300).map(|n| RuleId::new(&format!("{n}#{}", "\"".repeat(250))).unwrap()).collect();
    record.findings = (0..500).map(|n| Finding { kind: n.to_string().into(), ..record.findings[0].clone() }).collect();
    record.outcome = Outcome::Withheld { reason: "policy".into(), stage: "release".into() };
    let value = assert_canonical(&mut Leaf::Call(record));
    let record = &value["record"];
    assert_eq!(record["cut"], true);
    assert_eq!(record["call"], call_id(1).to_string());
    assert_eq!(record["identity"], format!("token:sha256:{}", "0".repeat(64)));
    assert_eq!(record["outcome"], serde_json::json!({"is": "withheld", "reason": "policy", "stage": "release"}));
    assert_eq!(record["stages"].as_object().unwrap().len(), names.len());
    let rules = record["rules"].as_array().unwrap();
    for (rule, name) in [(rules.first(), "0#"), (rules.last(), "299#")] {
        assert!(rule.unwrap().as_str().unwrap().starts_with(name), "{rules:?}");
    }
    let kinds = record["findings"].as_array().unwrap();
    assert_eq!((&kinds[0]["kind"], &kinds[kinds.len() - 1]["kind"]), (&"0".into(), &"499".into()));
}

#[test]
fn stages_are_written_by_name_in_whatever_order_they_come() {
    let stages = [("resolve", 3), ("authenticate", 1), ("forward", 2)].map(|(name, us)| Stage { name, us });
    let mut sorted = stages;
    sorted.sort_by_key(|stage| stage.name);
    for stages in [stages.to_vec(), sorted.to_vec(), [stages, sorted].concat()] {
        let value = assert_canonical(&mut Leaf::Call(CallRecord { stages, ..call(1) }));
        let written = serde_json::json!({ "authenticate": 1, "forward": 2, "resolve": 3 });
        assert_eq!(value["record"]["stages"], written);
    }
}

#[test]
fn an_intent_is_read_back_as_written() {
    let Leaf::Intent(written) = crate::fixture::intent(5) else { unreachable!() };
    let text = text_of(&mut Leaf::Intent(written.clone()), 3);
    assert_eq!(read_intent(text.as_bytes()).unwrap(), written);
    let outline = Outline::read(text.as_bytes()).unwrap();
    assert_eq!((outline.index, outline.effect()), (3, Effect::Opens(call_id(5))));
}

proptest! {
    #[test]
    fn any_text_stays_canonical(text in any::<String>()) {
        assert_canonical(&mut Leaf::Call(whole(&text)));
    }
}
