//! Policy sees the arguments that the server sees: whatever they are, however they are spelled, and with what is masked in
//! them.
//!
//! Each call is made at each door, up to three times. What arrived at the server the first time is written into a rule as a
//! constant of the rule language; by it the second call is allowed, and the third is refused by the same with another
//! constant. The record of the first commits to the bytes that arrived.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod inside;

use audit::Commitment;
use inside::{Inside, Plan};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write;
use testkit::{Agent, Upstream};
use vocab::{CallId, Side, Timestamp};

/// A secret that is masked on its way to the server.
const SECRET: &str = "ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb";

/// The longest constant that fits into a rule. What is longer is held against its record alone.
const LONGEST: usize = 3900;

/// Numbers in odd spellings.
const NUMBERS: [&str; 13] = [
    "0",
    "-0",
    "1.0",
    "1e3",
    "1E+2",
    "2.50",
    "-7",
    "1e-7",
    "0.1",
    "9007199254740993",
    "9223372036854775808",
    "18446744073709551615",
    "1e300",
];

/// Pieces of texts, as they stand in JSON.
const PIECES: [&str; 14] = [
    "a",
    "\\u0061",
    "é",
    "\\u00e9",
    "😀",
    "\\ud83d\\ude00",
    "\\n",
    "\\/",
    "\\\"",
    "\\u0000",
    " = ",
    " ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb ",
    " ghp\\u005fA7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb ",
    " AKIAQ3EGRV5TZKXN2WLP ",
];

/// A text of JSON, as somebody may spell it.
fn text() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..5);
    (pieces, prop::sample::select(vec![1, 1, 1, 200])).prop_map(|(pieces, times)| pieces.concat().repeat(times))
}

/// A value of JSON, as somebody may spell it.
fn spelled() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(NUMBERS.to_vec()).prop_map(str::to_owned),
        prop::sample::select(vec!["true", "false", "null"]).prop_map(str::to_owned),
        text().prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        let members =
            prop::collection::vec((prop::sample::select(vec!["k", "\\u006b", "é", "_"]), inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[ {} ]", items.join(" ,"))),
            members.prop_map(|members| {
                let member = |(place, (name, value))| format!("\n\t\"{name}{place}\" : {value}");
                format!("{{{}}}", members.into_iter().enumerate().map(member).collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

#[test]
fn policy_sees_the_arguments_that_the_server_sees_whatever_they_are() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (upstream, inside, doors) = runtime.block_on(async {
        let upstream = Upstream::start().await;
        let inside = Inside::start(Plan::of(&upstream)).await;
        let one = inside.legacy("/mcp/files", &inside.alice).await;
        let all = inside.legacy("/mcp", &inside.alice).await;
        (upstream, inside, [(one, "echo"), (all, "files__echo")])
    });
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(value in spelled())| {
        for (door, tool) in &doors {
            runtime.block_on(agree(&upstream, &inside, door, tool, &value));
        }
    });
}

async fn agree(upstream: &Upstream, inside: &Inside, door: &Agent, tool: &str, value: &str) {
    let text = format!(
        r#"{{"jsonrpc":"2.0","params":{{"arguments": {{"v" :{value}}},"name":"{tool}"}},"id":1,"method":"tools/call"}}"#
    );
    let send = async |when: Option<String>| {
        inside.swap(plan(upstream, when));
        let before = upstream.seen("tools/call").len();
        let answer = door.ask("tools/call", &json!({})).body(text.clone()).send().await.json().await;
        let arrived: Vec<_> = upstream.seen("tools/call").into_iter().skip(before).collect();
        assert_eq!(answer["error"].is_null(), arrived.len() == 1, "{text} {answer}");
        arrived.into_iter().next().ok_or(answer)
    };
    let first = send(None).await.unwrap_or_else(|answer| unreachable!("{text} {answer}"));
    let arguments = first.json()["params"]["arguments"].clone();
    assert!(!arguments.to_string().contains(SECRET), "it is masked: {arguments}");
    // What is recorded of it is what arrived, byte for byte.
    let record = inside.records().await.pop().unwrap();
    let judged: Commitment = serde_json::from_value(record["arguments"].clone()).unwrap();
    let call: CallId = record["call"].as_str().unwrap().parse().unwrap();
    let at = Timestamp::from_micros(record["at"].as_i64().unwrap());
    let Ok(mcp::Body::Single(message)) = mcp::scan(first.body.clone(), &mcp::Limits::default()) else {
        unreachable!("{:?}", first.body)
    };
    let salts = inside.state.journal.log().salts();
    assert!(salts.matches(&judged, &call, at, Side::Arguments, message.params().unwrap()).unwrap(), "{record:#}");
    let constant = constant(&arguments);
    if constant.len() > LONGEST {
        return;
    }
    let again = send(Some(format!("args == {constant}"))).await;
    let again = again.unwrap_or_else(|answer| unreachable!("policy saw something else than {constant}: {answer}"));
    assert_eq!(again.json()["params"], first.json()["params"], "the same twice");
    let refused = send(Some(format!("args == {{'v': [{constant}]}}"))).await.unwrap_err();
    assert_eq!(refused["error"]["code"], -31001, "{refused}");
}

/// Everything is allowed that fits, and what is a secret in arguments is masked.
fn plan(upstream: &Upstream, when: Option<String>) -> Plan {
    let mut rule = json!({"id": "all", "action": "*", "target": "files/*", "effect": "allow"});
    if let Some(when) = when {
        rule["when"] = json!(when);
    }
    let guards = guard::Guards::new(guard::Setting { results: guard::Mode::Off, arguments: guard::Mode::Mask });
    Plan { policy: json!({"policy": "test", "rules": [rule]}), guards, ..Plan::of(upstream) }
}

/// A value as a constant of the rule language.
fn constant(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) => value.to_string(),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.to_string(),
            (None, Some(number)) => format!("{number}u"),
            (None, None) => format!("{:?}", number.as_f64().unwrap()),
        },
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(constant).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| format!("{}: {}", quoted(name), constant(value));
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("'");
    for character in text.chars() {
        match character {
            character if !character.is_control() && !matches!(character, '\'' | '"' | '\\') => quoted.push(character),
            character => write!(quoted, "\\U{:08x}", u32::from(character)).unwrap(),
        }
    }
    quoted + "'"
}
