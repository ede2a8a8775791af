//! Every check says yes to the right answer and no to each wrong one that a broken gateway could give.

use super::*;
use serde_json::json;

fn answer(message: Value) -> Answer {
    Answer { message, ..Answer::default() }
}

fn result(text: &str) -> Answer {
    answer(
        json!({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": text}], "isError": false}}),
    )
}

#[expect(clippy::needless_pass_by_value, reason = "every caller makes the data on the spot")]
fn error(code: i64, data: Value) -> Answer {
    answer(json!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "no", "data": data}}))
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

fn tools<const N: usize>(names: [&str; N]) -> Answer {
    let tools: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    answer(json!({"result": {"tools": tools}}))
}

#[test]
fn a_list_must_hold_what_is_visible_and_nothing_else() {
    let (visible, hidden) = (names(["a__read", "a__write"]), names(["a__drop"]));
    let shown = listed(&tools(["a__write", "a__read"]), &visible, &hidden).unwrap();
    assert_eq!(shown, ["it sees 2 of 3 tools; not there for it: drop", "read, write"]);

    assert!(listed(&tools(["a__write", "a__read", "a__drop"]), &visible, &hidden).is_err(), "a hidden one shows");
    assert!(listed(&tools(["a__write"]), &visible, &hidden).is_err(), "one is missing");
    assert!(listed(&error(-32603, json!({})), &visible, &hidden).is_err(), "no list at all");
}

#[test]
fn an_allowed_call_needs_its_result_and_its_rule() {
    let record = json!({"record": {"rules": ["p/one"]}});
    assert!(allowed(&result("yes"), "call", "yes", &record, "p/one").is_ok());

    assert!(allowed(&result("other"), "call", "yes", &record, "p/one").is_err());
    assert!(allowed(&result("yes"), "call", "yes", &record, "p/two").is_err());
    assert!(allowed(&result("yes"), "call", "yes", &Value::Null, "p/one").is_err());
    let failed = answer(json!({"result": {"content": [{"type": "text", "text": "yes"}], "isError": true}}));
    assert!(allowed(&failed, "call", "yes", &record, "p/one").is_err());
}

#[test]
fn a_denied_call_names_its_rule_and_goes_nowhere() {
    let no = error(REFUSED_POLICY, json!({"rules": ["p/no"]}));
    assert!(denied(&no, "call", "p/no", 0).is_ok());

    assert!(denied(&no, "call", "p/no", 1).is_err(), "the server was asked");
    assert!(denied(&no, "call", "p/other", 0).is_err());
    assert!(denied(&error(INVALID_PARAMS, json!({"rules": ["p/no"]})), "call", "p/no", 0).is_err());
    assert!(denied(&result("done"), "call", "p/no", 0).is_err());
}

#[test]
fn a_limited_call_says_when_to_come_again() {
    let limit = |data, header: Option<&'static str>| {
        let mut last = error(REFUSED_LIMIT, data);
        if let Some(header) = header {
            last.headers.insert("retry-after", http::HeaderValue::from_static(header));
        }
        vec![result("1"), result("2"), last]
    };
    let right = limit(json!({"retryAfter": 30}), Some("30"));
    assert!(limited(&right, "call", 2, 2).is_ok());

    assert!(limited(&right, "call", 2, 3).is_err(), "the third one reached the server");
    assert!(limited(&right, "call", 3, 2).is_err(), "too few came before");
    assert!(limited(&limit(json!({"retryAfter": 30}), Some("31")), "call", 2, 2).is_err());
    assert!(limited(&limit(json!({"retryAfter": 30}), None), "call", 2, 2).is_err());
    assert!(limited(&limit(json!({}), Some("0")), "call", 2, 2).is_err());
    assert!(limited(&[result("1"), result("2"), result("3")], "call", 2, 2).is_err(), "no limit at all");
    assert!(limited(&[], "call", 0, 0).is_err());
}

#[test]
fn a_masked_result_keeps_the_rest() {
    let text = "REGION=eu-west-1\nACCESS=[redacted:aws-access-key]\nPAYMENTS=[redacted:stripe-key]\n";
    assert!(masked(&result(text), "call", false).is_ok());

    assert!(masked(&result(text), "call", true).is_err(), "the secret is somewhere else in the answer");
    assert!(masked(&result("[redacted:aws-access-key] [redacted:stripe-key]"), "call", false).is_err());
    assert!(masked(&result("REGION=eu-west-1 [redacted:aws-access-key]"), "call", false).is_err());
    assert!(masked(&error(-31004, json!({})), "call", false).is_err());
}

#[test]
fn a_credential_arrives_unseen() {
    let due = Digest::of(b"token");
    let said = result(&format!("got the credential: yes, {due}"));
    assert!(injected(&said, &due, false).is_ok());

    assert!(injected(&said, &due, true).is_err(), "the agent saw it");
    assert!(injected(&said, &Digest::of(b"another"), false).is_err());
    assert!(injected(&result("got the credential: no"), &due, false).is_err());
}

#[test]
fn unfit_arguments_are_pointed_at() {
    let data = json!({"faults": [{"pointer": "/id", "problem": "no integer"}]});
    assert!(unfit(&error(INVALID_PARAMS, data.clone()), "call", "/id", false).is_ok());

    assert!(unfit(&error(INVALID_PARAMS, data.clone()), "call", "/id", true).is_err(), "the server was asked");
    assert!(unfit(&error(INVALID_PARAMS, data.clone()), "call", "/name", false).is_err());
    assert!(unfit(&error(-32603, data), "call", "/id", false).is_err());
    assert!(unfit(&error(INVALID_PARAMS, json!({})), "call", "/id", false).is_err());
}

fn holds(calls: u64, open: usize) -> Verified {
    let call = vocab::CallId::from_bytes([1; 16]);
    Verified {
        trees: vec![audit::VerifiedTree {
            tree: audit::Tree::System,
            origin: String::new(),
            size: calls,
            root: audit::Hash::default(),
            checkpoints: 0,
            unsigned: 0,
            open: vec![(0, call); open],
            kinds: [0, calls, 0, 0],
        }],
        anchored: false,
    }
}

fn broken(index: u64, what: What) -> Broken {
    Broken { tree: "tenant/default".to_owned(), index, what, explanation: "it is not the one".to_owned() }
}

#[test]
fn a_log_must_hold_and_know_every_call() {
    assert!(verified(Ok(holds(11, 0)), 11).is_ok());

    assert!(verified(Ok(holds(10, 0)), 11).is_err(), "a call is missing");
    assert!(verified(Ok(holds(11, 1)), 11).is_err(), "an intent is open");
    assert!(verified(Err(broken(3, What::Edited)), 0).is_err());
}

#[test]
fn the_changed_record_and_no_other_must_be_named() {
    assert!(found_out(Err(broken(7, What::Edited)), 7, "edit").is_ok());

    assert!(found_out(Err(broken(8, What::Edited)), 7, "edit").is_err());
    assert!(found_out(Err(broken(7, What::Truncated)), 7, "edit").is_err());
    assert!(found_out(Ok(holds(11, 0)), 7, "edit").is_err(), "the change went unnoticed");
}
