//! Promises of `mcp::bridge`: whatever comes across is a message that any reader takes, says the same of itself, and holds
//! nothing that the other era would take for its own.

use bytes::Bytes;
use mcp::{
    Body, Era, Kind, Limits, Message, Revision,
    bridge::{
        Client, Filter, LogLevel, downward,
        upward::{self, InputRequired, Introduction},
    },
};
use serde_json::Value;
use std::borrow::Cow;

/// A client that can be asked everything, where the input introduces none.
const HELLO: &str = concat!(
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":"#,
    r#"{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"roots":{}},"#,
    r#""clientInfo":{"name":"c","version":"1"}}}"#
);

/// What of a request both eras must read the same: requests that ask are those whose answers may.
const METHODS: [&str; 4] = ["tools/call", "tools/list", "resources/read", "prompts/get"];

/// The first line chooses a revision, each line after it is a message that comes to both bridges.
pub fn bridge(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let Some(&revision) = Revision::LEGACY.iter().cycle().nth(usize::from(*first)) else { return };
    let messages: Vec<Message> = rest.split(|byte| *byte == b'\n').take(8).filter_map(scanned).collect();
    let hello = one(HELLO.as_bytes()).expect("our own introduction is a message");
    let own = messages.iter().find_map(|message| Introduction::of(message).ok());
    let mut introduction = own.unwrap_or_else(|| Introduction::of(&hello).expect("our own introduction is one"));
    if let Some(level) = messages.iter().find_map(LogLevel::named) {
        introduction.set_level(level);
    }
    for message in &messages {
        match message.kind() {
            Kind::Request => request(message, &introduction),
            Kind::Notification => notification(message),
            Kind::Response => METHODS.iter().for_each(|method| response(message, method, revision, &introduction)),
        }
    }
}

/// A request goes up and comes down, and is what it was.
fn request(message: &Message, introduction: &Introduction) {
    if let Ok(up) = upward::request(message, introduction) {
        let up = carried(&up);
        assert_eq!(
            (up.era(), up.kind()),
            (Era::Modern, Kind::Request),
            "a modern server would take it for another era's"
        );
        same(message, &up);
        let down = carried(&downward::request(&up).expect("what went up comes down"));
        assert_eq!(down.era(), Era::Legacy, "a legacy server would read metadata of the modern era");
        same(message, &down);
    }
    if let Ok(down) = downward::request(message) {
        let down = carried(&down);
        assert_eq!(down.era(), Era::Legacy, "a legacy server would read metadata of the modern era");
        same(message, &down);
    }
    if let Ok(client) = Client::of_request(message) {
        carried(&downward::initialize("0", &client));
        asked(message, &client);
    }
    asked(message, introduction.client());
    if let Ok(wanted) = Filter::of(message) {
        let listen = carried(&upward::listen("1", introduction, &wanted));
        assert_eq!(Filter::of(&listen).as_ref(), Ok(&wanted), "a listener is to hear of something else");
        if let Ok(acknowledged) = downward::acknowledged(message, &wanted) {
            assert_eq!(Filter::of(&carried(&acknowledged)), Ok(wanted), "something else is acknowledged");
        }
    }
}

/// A question of a legacy server becomes one that a modern client reads as the same question.
fn asked(question: &Message, client: &Client) {
    let Ok(asking) = downward::input_required("1", "question", question, client, "\"sealed\"") else { return };
    let asking = carried(&asking);
    let wanted = InputRequired::of(&asking).expect("our own question is well-formed").expect("it asks");
    let [asked] = wanted.requests.as_slice() else { panic!("one question became {}", wanted.requests.len()) };
    assert_eq!((asked.method.as_ref(), wanted.state), (question.method(), Some("\"sealed\"")), "another question");
}

fn notification(message: &Message) {
    let up = upward::notification(message);
    let tagged = downward::notification(message, Some("\"l\""));
    for text in [up, downward::notification(message, None), tagged].into_iter().flatten() {
        let carried = carried(&text);
        assert_eq!((carried.kind(), carried.method()), (Kind::Notification, message.method()), "another notification");
    }
}

fn response(message: &Message, method: &str, revision: Revision, introduction: &Introduction) {
    if let Ok(up) = upward::answer(message, method, revision) {
        let up = carried(&up);
        assert_eq!((up.kind(), up.id()), (Kind::Response, message.id()), "an answer to something else");
        assert_eq!(up.error().is_some(), message.error().is_some(), "an error is one in both eras");
        assert!(up.outcome_member(&["resultType"]).is_none(), "a legacy client reads what is of the modern era");
    }
    if let Ok(down) = downward::answer(message, method, Some(b"\"x:y\""), None) {
        let down = carried(&down);
        assert_eq!(down.error().is_some(), message.error().is_some(), "an error is one in both eras");
        let kind = down.outcome_member(&["resultType"]).and_then(|kind| kind.text().map(Cow::into_owned));
        assert!(down.error().is_some() || kind.as_deref() == Some("complete"), "a modern result without a type");
        let code = down.error_code().unwrap_or(0);
        assert!(!(-32099..=-32020).contains(&code), "{code} means something that no legacy server meant");
    }
    if let Ok(text) = upward::initialize_result(message, introduction, "1") {
        carried(&text);
    }
    if let Ok(text) = downward::discover_result(message, "1") {
        carried(&text);
    }
    if let Ok(Some(text)) = downward::pages_required("1", message, introduction.client()) {
        assert!(
            InputRequired::of(&carried(&text)).is_ok_and(|wanted| wanted.is_some()),
            "pages that nobody is asked for"
        );
    }
    if let Ok(Some(wanted)) = InputRequired::of(message) {
        rounds(&wanted, method, introduction);
    }
    for asked in ["elicitation/create", "sampling/createMessage"] {
        if let Ok(answer) = upward::input_response(message, asked) {
            carried(&downward::answer_to("1", asked, &answer, revision));
        }
    }
}

/// Questions of a modern server, and the round that brings the answers.
fn rounds(wanted: &InputRequired<'_>, method: &str, introduction: &Introduction) {
    for asked in &wanted.requests {
        if let Ok(question) = upward::question("\"q\"", asked, introduction) {
            let question = carried(&question);
            assert_eq!((question.method(), question.id()), (asked.method.as_ref(), Some("\"q\"")), "another question");
        }
    }
    let call = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"t","uri":"a:b"}}}}"#);
    let call = one(call.as_bytes()).expect("our own call is a message");
    let call = carried(&upward::request(&call, introduction).expect("our own call goes up"));
    let answers: Vec<(&str, &[u8])> =
        wanted.requests.iter().map(|asked| (asked.key.as_ref(), &br#"{"action":"cancel"}"#[..])).collect();
    let Ok(retry) = upward::retry(&call, "2", &answers, wanted.state) else { return };
    let retry = carried(&retry);
    assert_eq!((retry.id(), retry.subject()), (Some("2"), call.subject()), "another call");
    let state = retry.param(&["requestState"]).map(|state| state.raw);
    assert_eq!(state, wanted.state.map(str::as_bytes), "another state than the server gave");
}

/// Both say the same of themselves.
fn same(one: &Message, other: &Message) {
    assert_eq!(
        (one.method(), one.id(), one.subject()),
        (other.method(), other.id(), other.subject()),
        "another request"
    );
    let arguments = [one, other].map(|message| message.arguments().map(|arguments| arguments.raw.to_vec()));
    let [own, theirs] = &arguments;
    assert_eq!(own, theirs, "other arguments");
}

/// What a bridge made is one message, and JSON to everybody.
fn carried(text: &Bytes) -> Message {
    let whole: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(text);
    assert!(whole.is_ok(), "no JSON: {}", text.escape_ascii());
    one(text).unwrap_or_else(|| panic!("no message: {}", text.escape_ascii()))
}

fn one(text: &[u8]) -> Option<Message> {
    // Deeper and longer than what comes in: translations add a few levels.
    let limits = Limits { body: 1 << 20, depth: 64, batch: 1 };
    match mcp::scan(Bytes::copy_from_slice(text), &limits) {
        Ok(Body::Single(message)) => Some(message),
        Ok(Body::Batch(_)) | Err(_) => None,
    }
}

fn scanned(line: &[u8]) -> Option<Message> {
    let limits = Limits { body: 1 << 16, depth: 32, batch: 1 };
    // What some readers cannot read is refused before it comes to a bridge.
    serde_json::from_slice::<Value>(line).ok()?;
    match mcp::scan(Bytes::copy_from_slice(line), &limits) {
        Ok(Body::Single(message)) => Some(message),
        Ok(Body::Batch(_)) | Err(_) => None,
    }
}
