//! Addresses in the aggregate, in both directions.

use bytes::Bytes;
use mcp::{Body, Limits, ListKind, Message, address, scan, splice};
use proptest::prelude::*;

#[test]
fn addresses_in_messages_are_what_the_cases_say() {
    for case in include_str!("cases/address.case").split("\n---\n") {
        let mut lines = case.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let what = lines.next().expect("a case says what is done");
        let lines: Vec<&str> = lines.collect();
        let all = |name: &str| -> Vec<&str> { lines.iter().filter_map(|line| line.strip_prefix(name)).collect() };
        let (text, offered) = (all("in: ").concat(), all("offers: "));
        let message = message(&text);
        let found: Vec<Bytes> = match what.split_once(' ') {
            None if what == "said" => vec![said(&message, &offered)],
            None if what == "heard" => vec![splice(message.bytes(), &mut address::heard(&message, "s"))],
            Some(("list", kind)) => {
                let kind = ListKind::ALL.into_iter().find(|known| format!("{known:?}").to_lowercase() == kind);
                let kind = kind.expect("a kind of list");
                let entries = mcp::list::entries(&message, kind).expect("a list");
                entries.iter().map(|entry| address::entry(entry, kind, "s").1).collect()
            }
            _ => panic!("`{what}` is nothing that is done here"),
        };
        let expected = if lines.contains(&"same") { vec![text.as_str()] } else { all("out: ") };
        assert_eq!(found, expected, "{case}");
        // What may be left out is only what has nothing in it.
        assert!(address::may_occur(text.as_bytes()) || expected == [text.as_str()], "{case}");
    }
}

fn said(message: &Message, offered: &[&str]) -> Bytes {
    splice(message.bytes(), &mut address::said(message, "s", &|address| offered.contains(&address)))
}

fn message(text: &str) -> Message {
    let Ok(Body::Single(message)) = scan(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()) else {
        unreachable!("not a message: {text}")
    };
    message
}

/// Values in which what looks like an address stands at places that have one, and at others.
fn tree() -> impl Strategy<Value = serde_json::Value> {
    let key = prop::sample::select(vec![
        "uri",
        "resource",
        "content",
        "contents",
        "messages",
        "_meta",
        "result",
        "inputRequests",
        "params",
        "ui",
        "x",
    ]);
    let text = prop::sample::select(vec!["ui://a/b", "file:///a", "https://a", "ui://", "", "durward://s/x"]);
    let leaf = prop_oneof![text.prop_map(Into::into), Just(serde_json::json!(1)), Just(serde_json::Value::Null)];
    leaf.prop_recursive(6, 48, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// The same value with every address that carries the server without it.
fn bare(value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::String(text) => match address::split(text) {
            Some(("s", own)) => own.into_owned().into(),
            _ => value.clone(),
        },
        serde_json::Value::Array(items) => items.iter().map(bare).collect(),
        serde_json::Value::Object(members) => {
            members.iter().map(|(key, value)| (key.clone(), bare(value))).collect::<serde_json::Map<_, _>>().into()
        }
        _ => value.clone(),
    }
}

proptest! {
    #[test]
    fn only_addresses_change_and_each_leads_back(result in tree()) {
        let text = serde_json::json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string();
        let before = message(&text);
        let after = said(&before, &[]);
        let after = message(std::str::from_utf8(&after).unwrap());
        // An address that looks like a shown one is shown like any other, and must lead back to itself.
        let doubled = text.contains("durward://");
        if !doubled {
            let read = |message: &Message| serde_json::from_slice(message.bytes()).unwrap();
            prop_assert_eq!(bare(&read(&after)), read(&before));
        }
        for edit in address::said(&before, "s", &|_| true) {
            let was: String = serde_json::from_slice(&before.bytes()[edit.0]).unwrap();
            let is: String = serde_json::from_slice(&edit.1).unwrap();
            prop_assert_eq!(address::split(&is), Some(("s", was.into())));
        }
    }
}
