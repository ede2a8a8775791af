//! Inputs that were made to break readers.

use bytes::Bytes;
use mcp::{Limits, Why, scan, scan_value, value};
use serde_json::json;

/// Bodies as large as the default limit allows.
const LARGE: usize = 4 << 20;

fn why(body: Vec<u8>) -> Option<Why> {
    scan(Bytes::from(body), &Limits::default()).err().map(|fault| fault.why)
}

#[test]
fn nesting_is_bounded_however_the_limit_is_set() {
    assert_eq!(why(b"[".repeat(1 << 20)), Some(Why::TooDeep));
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    let boundless = Limits { depth: usize::MAX, ..Limits::default() };
    assert_eq!(scan_value(&deep, &boundless).unwrap_err().why, Why::TooDeep);
    assert_eq!(value(&deep).unwrap_err().why, Why::TooDeep);
    for (levels, fits) in [(64, true), (65, false)] {
        let text = [b"[".repeat(levels), b"]".repeat(levels)].concat();
        assert_eq!(scan_value(&text, &Limits::default()).is_ok(), fits, "{levels}");
    }
    let objects = b"{\"a\":".repeat(100_000);
    assert_eq!(scan_value(&objects, &Limits::default()).unwrap_err().why, Why::TooDeep);
}

#[test]
fn length_and_batches_are_bounded() {
    assert_eq!(why(vec![b' '; LARGE + 1]), Some(Why::TooLong));
    let one = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_vec();
    let batch = |count| [b"[".to_vec(), vec![one.clone(); count].join(&b','), b"]".to_vec()].concat();
    assert!(scan(batch(64).into(), &Limits::default()).is_ok());
    assert!(matches!(why(batch(65)), Some(Why::NotMessage(_))));
}

#[test]
fn keys_chosen_to_be_alike_cost_no_more_than_others() {
    // All pairs would be 10¹⁰ comparisons.
    let keys = (0..100_000).map(|n| format!("\"{n:032}\":0")).collect::<Vec<_>>().join(",");
    assert_eq!(scan_value(format!("{{{keys}}}").as_bytes(), &Limits::default()), Ok(()));
    let twin = format!("{{{keys},\"{:032}\":1}}", 77);
    assert_eq!(scan_value(twin.as_bytes(), &Limits::default()).unwrap_err().why, Why::DuplicateKey);
    assert_eq!(scan_value(twin.as_bytes(), &Limits::default()).unwrap_err().at, twin.rfind('"').unwrap() - 33);
}

#[test]
fn magic_keys_are_keys_like_others() {
    for key in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
        let text = format!(r#"{{"a":{{"{key}":"[1,2]"}}}}"#);
        assert_eq!(value(text.as_bytes()).unwrap()["a"][key], "[1,2]");
    }
}

#[test]
fn numbers_keep_what_a_tree_can_hold() {
    assert_eq!(
        value(b" [18446744073709551615, -9223372036854775808, 1.5e3, 0] ").unwrap(),
        json!([u64::MAX, i64::MIN, 1500.0, 0])
    );
    assert_eq!(value(b"123456789012345678901234567890").unwrap(), json!(1.234_567_890_123_456_8e29));
    assert_eq!(value(b"-0").unwrap().to_string(), "-0.0");
    assert_eq!(value(b"[1,1e400]").unwrap_err().why, Why::NumberRange);
    assert_eq!(value(b"[1,1e400]").unwrap_err().at, 3);
    let deep = br#" { "a": [1], "b/~": { "c": [ [], {"d": "]"}, -1e400 ] } }"#;
    assert_eq!(mcp::pointer(deep, value(deep).unwrap_err().at), "/b~1~0/c/2");
    assert_eq!(mcp::pointer(b"1e400", 0), "");
    assert_eq!(mcp::pointer(b"[1,2]", 7), "");
}
