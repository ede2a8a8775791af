//! Case files: each holds inputs and what comes of them, and goes through one `check`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use mcp::{Body, Kind, Limits, Message, scan};

#[test]
fn bodies_are_what_the_cases_say() {
    let mut wrong = Vec::new();
    for line in include_str!("cases/scan.case").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (expected, body) = line.split_once(" <=").expect("a case is `verdict <= body`");
        let found = verdict(&bytes_of(body.strip_prefix(' ').unwrap_or(body)));
        if found != expected {
            wrong.push(format!("{found} <={body}"));
        }
    }
    assert!(wrong.is_empty(), "these came out otherwise:\n{}", wrong.join("\n"));
}

#[test]
fn headers_go_with_their_bodies_as_the_cases_say() {
    for case in include_str!("cases/header.case").split("\n---\n") {
        let lines = || case.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let expected = lines().find_map(|line| line.strip_prefix("=> ")).expect("a case says what comes of it");
        let mut headers = HeaderMap::new();
        let mut body = None;
        for line in lines().filter(|line| !line.starts_with("=> ")) {
            match line.split_once(": ").filter(|(name, _)| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
            {
                Some((name, value)) => {
                    let value = if value == "LONG" { "x".repeat(8193) } else { value.to_owned() };
                    let name: HeaderName = name.parse().expect("a header name");
                    headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
                }
                None => body = Some(line.to_owned()),
            }
        }
        let Ok(Body::Single(message)) = scan(body_of(&body.expect("a case has a body")), &Limits::default()) else {
            panic!("not a message:\n{case}");
        };
        let found = match mcp::check(&headers, &message) {
            Ok(()) => "ok".to_owned(),
            Err(fault) => {
                assert_eq!(fault.status(), 400);
                assert_eq!(fault.requested().is_some(), fault.code() == -32022, "{case}");
                format!("{} {fault}", fault.code())
            }
        };
        assert_eq!(found, expected, "{case}");
    }
}

fn body_of(line: &str) -> Bytes {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let text = match line {
        "OLD" => r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}"#.to_owned(),
        "NOTE" => r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#.to_owned(),
        _ => match line.strip_prefix("TOOL(").and_then(|rest| rest.strip_suffix(')')) {
            Some(name) => {
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{name},{meta}}}}}"#)
            }
            None => line.to_owned(),
        },
    };
    Bytes::from(text)
}

/// What the scan says about a body, in one line.
fn verdict(body: &[u8]) -> String {
    match scan(Bytes::copy_from_slice(body), &Limits::default()) {
        Ok(Body::Single(message)) => describe(&message),
        Ok(Body::Batch(messages)) => format!("[{}]", messages.iter().map(describe).collect::<Vec<_>>().join("; ")),
        Err(fault) => format!("{} {fault}", fault.code()),
    }
}

fn describe(message: &Message) -> String {
    let kind = match message.kind() {
        Kind::Request => "request",
        Kind::Notification => "notification",
        Kind::Response => "response",
    };
    let method = Some(message.method()).filter(|method| !method.is_empty()).unwrap_or("-");
    let subject = message.subject().unwrap_or("-".into());
    format!("{kind} {} {method} {} {subject}", message.id().unwrap_or("-"), message.era())
}

/// Resolves `\xNN`.
fn bytes_of(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        // No verdict expects the byte that stands for a mistyped one.
        bytes.push(u8::from_str_radix(digits, 16).unwrap_or(0xff));
        bytes.extend_from_slice(rest.as_bytes());
    }
    bytes
}
