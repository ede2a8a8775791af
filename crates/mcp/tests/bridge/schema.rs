//! Messages of the cases, and whether they are valid in a revision.

use mcp::{Body, Limits, Message, Revision, scan};

/// What is wrong with a message in `revision`. `method` is what a response answers.
pub(crate) fn faults(revision: Revision, text: &[u8], method: &str) -> Vec<String> {
    testkit::schema::faults(revision.as_str(), &mcp::value(text).unwrap(), Some(method))
}

pub(crate) fn message(text: &[u8]) -> Message {
    match scan(bytes::Bytes::copy_from_slice(text), &Limits::default()) {
        Ok(Body::Single(message)) => message,
        other => panic!("{} scans as {other:?}", String::from_utf8_lossy(text)),
    }
}

#[test]
fn a_schema_refuses_what_is_of_another_revision() {
    let plain = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#;
    assert_eq!(faults(Revision::V2025_06_18, plain, ""), Vec::<String>::new());
    assert!(!faults(Revision::V2026_07_28, plain, "").is_empty());
    let array = br#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[],"structuredContent":[1]}}"#;
    assert_eq!(faults(Revision::V2026_07_28, array, "tools/call"), Vec::<String>::new());
    assert!(!faults(Revision::V2025_11_25, array, "tools/call").is_empty());
    let modern =
        br#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{}}}"#;
    assert!(!faults(Revision::V2025_11_25, modern, "").is_empty());
}
