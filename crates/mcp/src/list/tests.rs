//! Lists lose what they must and nothing else.

use super::*;
use crate::{Body, Limits, scan};
use proptest::{collection::vec, prelude::*};

fn message(text: &str) -> Message {
    match scan(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()) {
        Ok(Body::Single(message)) => message,
        other => panic!("{text} scans as {other:?}"),
    }
}

fn narrowed(array: &str, keep: &[&str]) -> String {
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"a" : [1], "tools": {array} ,"nextCursor":""}}}}"#);
    let message = message(&text);
    let out = narrow(&message, ListKind::Tools, |entry| keep.contains(&&*entry.name)).unwrap();
    let out = String::from_utf8(out.to_vec()).unwrap();
    let out = out.strip_prefix(r#"{"jsonrpc":"2.0","id":1,"result":{"a" : [1], "tools": "#).unwrap();
    out.strip_suffix(r#" ,"nextCursor":""}}"#).unwrap().to_owned()
}

#[test]
fn removing_takes_the_right_comma() {
    let array = r#"[ {"name":"a","x":1.0} , {"x":{"name":"b"},"name":"\u0062"},{"name":"c"} ]"#;
    assert_eq!(narrowed(array, &["a", "b", "c"]), array);
    assert_eq!(narrowed(array, &["b", "c"]), r#"[ {"x":{"name":"b"},"name":"\u0062"},{"name":"c"} ]"#);
    assert_eq!(narrowed(array, &["a", "c"]), r#"[ {"name":"a","x":1.0},{"name":"c"} ]"#);
    assert_eq!(narrowed(array, &["a"]), r#"[ {"name":"a","x":1.0} ]"#);
    assert_eq!(narrowed(array, &["c"]), r#"[ {"name":"c"} ]"#);
    assert_eq!(narrowed(array, &[]), "[  ]");
    assert_eq!(narrowed("[]", &[]), "[]");
}

#[test]
fn an_element_without_a_name_never_passes() {
    assert_eq!(narrowed(r#"[1,{"name":"a"},{"name":7},{},"name"]"#, &["a", "name", ""]), r#"[{"name":"a"}]"#);
}

#[test]
fn what_is_no_list_is_said_so() {
    let error = message(r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#);
    assert_eq!(entries(&error, ListKind::Tools).unwrap_err(), ListFault::NoResult);
    let other = message(r#"{"jsonrpc":"2.0","id":1,"result":{"tools":{}}}"#);
    assert_eq!(entries(&other, ListKind::Tools).unwrap_err(), ListFault::NoArray("tools"));
    assert_eq!(next_cursor(&other), Ok(None));
    for (cursor, expected) in [
        ("null", Ok(None)),
        (r#""""#, Ok(Some(""))),
        ("7", Err(ListFault::Cursor)),
        ("false", Err(ListFault::Cursor)),
        (r#"{"cursor":"a"}"#, Err(ListFault::Cursor)),
        (r#"["a"]"#, Err(ListFault::Cursor)),
    ] {
        let page = message(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[],"nextCursor": {cursor} }}}}"#));
        assert_eq!(
            next_cursor(&page).map(|cursor| cursor.map(Cow::into_owned)),
            expected.map(|text| text.map(str::to_owned)),
            "{cursor}"
        );
    }
}

#[test]
fn lists_are_composed_from_entries_of_others() {
    let upstream = message(
        r#"{"jsonrpc":"2.0","id":1,"result":{"resourceTemplates":[{"n":1.0,"uriTemplate":"a\/{b}"}],"nextCursor":""}}"#,
    );
    let entries = entries(&upstream, ListKind::Templates).unwrap();
    assert_eq!((entries[0].name.as_ref(), next_cursor(&upstream)), ("a/{b}", Ok(Some("".into()))));
    let elements = [Bytes::from_static(br#"{"x":1.0}"#), Bytes::copy_from_slice(entries[0].raw)];
    let text = compose("\"q\"", ListKind::Templates, elements, Some("n\"1"), Some("\"ttlMs\":0"));
    assert_eq!(
        text,
        r#"{"jsonrpc":"2.0","id":"q","result":{"resourceTemplates":[{"x":1.0},{"n":1.0,"uriTemplate":"a\/{b}"}],"nextCursor":"n\"1","ttlMs":0}}"#
    );
}

proptest! {
    #[test]
    fn a_narrowed_list_has_exactly_what_was_kept(
        names in vec(("[a-f]", "[ \n]{0,2}", "[ \n]{0,2}"), 0..8),
        kept in vec("[a-f]", 0..4),
    ) {
        let items: Vec<String> = names.iter().map(|(name, before, after)| {
            format!(r#"{before}{{"k":[{{}}],"name":"{name}"}}{after}"#)
        }).collect();
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{}]}}}}"#, items.join(","));
        let out = narrow(&message(&text), ListKind::Tools, |entry| kept.contains(&entry.name.to_string())).unwrap();
        let out = message(std::str::from_utf8(&out).unwrap());
        let left: Vec<String> = entries(&out, ListKind::Tools).unwrap().iter().map(|entry| entry.name.to_string()).collect();
        let wanted: Vec<String> = names.into_iter().map(|(name, ..)| name).filter(|name| kept.contains(name)).collect();
        prop_assert_eq!(left, wanted);
    }
}

#[test]
fn spans_of_a_batch_member_lie_in_its_own_bytes() {
    let member = r#"{"jsonrpc":"2.0","id":"x","result":{"tools":[{"name":"a"},{"name":"b"}]}}"#;
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t","arguments":{"k":[1]}}}"#;
    let body = Bytes::from(format!("[ {call} , {member} ]"));
    let Ok(Body::Batch(messages)) = scan(body.clone(), &Limits::default()) else { panic!("must be a batch") };
    assert_eq!((&messages[0].bytes()[..], &messages[1].bytes()[..]), (call.as_bytes(), member.as_bytes()));
    assert!(messages.iter().all(|message| body.as_ptr_range().contains(&message.bytes().as_ptr())));
    for found in [messages[0].arguments(), messages[0].param(&["arguments", "k"]), messages[0].subject_member()] {
        let found = found.unwrap();
        assert_eq!(&messages[0].bytes()[found.span.clone()], found.raw);
    }
    let kept = narrow(&messages[1], ListKind::Tools, |entry| entry.name == "b").unwrap();
    assert_eq!(kept, member.replace(r#"{"name":"a"},"#, ""));
}
