//! What is said wrongly is found, wherever it is said and however it comes; what is said rightly is counted.

use crate::{
    events::{Event, Events, Lines},
    expected::{Expected, Speaker},
    judge::Judge,
    pipe::Listener,
    plan::{Cell, Direction, Leg, Plan, Server},
    relay::Relays,
    seen::{About, Content, End, Exchange, Seen},
};
use http::StatusCode;
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::mpsc};
use testkit::{Answer, Ask, Upstream, soon};
use tokio::{io::AsyncWriteExt, net::TcpStream};

const CLIENT: Leg = Leg::Client(0);
const SERVER: Leg = Leg::Server(0);

fn plan() -> Plan {
    let cell =
        Cell { name: "a > b at /mcp".to_owned(), client: "a".to_owned(), server: "b".to_owned(), is_piped: false };
    let server = Server { name: "b".to_owned(), address: None };
    let gateway = "127.0.0.1:1".parse().unwrap();
    Plan { gateway, cells: vec![cell], servers: vec![server], is_whole: true }
}

/// A request over HTTP and its answer, which come in one piece each.
fn exchange(judge: &mut Judge, leg: Leg, session: Option<&str>, request: &Value, content: Content, answer: &str) {
    let exchange = Exchange::new();
    let about = About { session: session.map(str::to_owned), revision: None, path: "/mcp".to_owned() };
    judge.see(Seen::Asked { exchange, leg, about, body: request.to_string().into() });
    judge.see(Seen::Answered { exchange, session: session.map(str::to_owned), content, status: StatusCode::OK });
    judge.see(Seen::Piece { exchange, bytes: answer.to_owned().into() });
    judge.see(Seen::Ended { exchange, end: End::Whole });
}

fn request(id: u8, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn answer(id: u8, result: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
}

fn initialize(revision: &str) -> (Value, String) {
    let info = json!({"name": "a", "version": "1"});
    let asked = json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": info});
    let agreed = json!({"protocolVersion": revision, "capabilities": {}, "serverInfo": info});
    (request(0, "initialize", &asked), answer(0, &agreed))
}

/// A judge who has heard how a session of that revision began on both legs.
fn begun(revision: &str) -> Judge {
    let mut judge = Judge::new(plan());
    let (request, answer) = initialize(revision);
    for leg in [CLIENT, SERVER] {
        exchange(&mut judge, leg, Some("s"), &request, Content::Json, &answer);
    }
    judge
}

fn call(judge: &mut Judge, leg: Leg, result: &Value) {
    let call = request(1, "tools/call", &json!({"name": "t"}));
    exchange(judge, leg, Some("s"), &call, Content::Events, &format!("data: {}\n\n", answer(1, result)));
}

#[test]
fn what_is_valid_is_counted_and_a_member_that_is_missing_is_named() {
    let mut judge = begun("2025-11-25");
    call(&mut judge, CLIENT, &json!({"content": []}));
    let verdict = judge.verdict(&[]);
    assert!(verdict.is_clean(), "{verdict}");
    assert!(verdict.to_string().starts_with("6 messages of 2 legs in 1 of 1 cells held against schemas"), "{verdict}");

    let mut judge = begun("2025-11-25");
    call(&mut judge, CLIENT, &json!({"content": [{"type": "text"}]}));
    let verdict = judge.verdict(&[]);
    assert!(!verdict.is_clean());
    let told = verdict.to_string();
    for part in ["gateway → client", "2025-11-25", "answer to tools/call", "CallToolResult /content/0", "a > b at /mcp"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn what_was_agreed_on_is_what_counts() {
    let link = json!({"content": [{"type": "resource_link", "uri": "test://a", "name": "a"}]});
    let mut judge = begun("2025-06-18");
    call(&mut judge, SERVER, &link);
    assert!(judge.verdict(&[]).is_clean());

    let mut judge = begun("2025-03-26");
    call(&mut judge, SERVER, &link);
    let told = judge.verdict(&[]).to_string();
    assert!(told.contains("server → gateway b, 2025-03-26"), "{told}");

    // What a message says of itself changes nothing: tasks came later.
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2025-11-25"});
    let mut judge = begun("2025-06-18");
    let tasks = request(1, "tasks/get", &json!({"taskId": "t", "_meta": meta}));
    exchange(&mut judge, CLIENT, Some("s"), &tasks, Content::Other, "");
    let told = judge.verdict(&[]).to_string();
    assert!(told.contains("client → gateway, 2025-06-18, tasks/get"), "{told}");
}

#[test]
fn nothing_passes_for_want_of_being_understood() {
    let (mut judge, tools) = (begun("2025-11-25"), request(1, "tools/list", &json!({})));
    // In no session and of no revision; an answer to nothing; no message; what cannot be read.
    exchange(&mut judge, SERVER, None, &tools, Content::Other, "");
    exchange(&mut judge, CLIENT, Some("s"), &tools, Content::Json, &answer(7, &json!({"tools": []})));
    let error = json!({"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": "no session"}});
    exchange(&mut judge, CLIENT, Some("s"), &tools, Content::Json, &error.to_string());
    exchange(&mut judge, CLIENT, Some("s"), &tools, Content::Json, "<html>");
    exchange(&mut judge, CLIENT, Some("s"), &tools, Content::Sealed, "");
    let told = judge.verdict(&[]).to_string();
    assert!(told.contains("2 times in: a > b"), "the result and the error answer nothing: {told}");
    for part in
        ["nothing says in which revision", "answers nothing that was asked", "cannot be read: expected", "compressed"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn what_has_no_id_may_be_refused_without_one_and_nothing_else() {
    let error = json!({"jsonrpc": "2.0", "error": {"code": -32001, "message": "Session not found"}});
    let refused = |message: &Value, error: &Value| {
        let (mut judge, exchange) = (begun("2025-03-26"), Exchange::new());
        let about = About { session: Some("s".to_owned()), ..About::default() };
        judge.see(Seen::Asked { exchange, leg: CLIENT, about, body: message.to_string().into() });
        judge.see(Seen::Answered { exchange, session: None, content: Content::Json, status: StatusCode::NOT_FOUND });
        judge.see(Seen::Piece { exchange, bytes: error.to_string().into() });
        judge.see(Seen::Ended { exchange, end: End::Whole });
        judge.verdict(&[])
    };
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    let verdict = refused(&notification, &error);
    assert!(verdict.is_clean(), "{verdict}");
    let mut of_nothing = error.clone();
    of_nothing["id"] = Value::Null;
    assert!(refused(&notification, &of_nothing).is_clean(), "as SDKs write it");
    assert!(!refused(&notification, &json!({"jsonrpc": "2.0", "error": {"code": -32001}})).is_clean());
    assert!(!refused(&request(1, "ping", &json!({})), &error).is_clean());
}

#[test]
fn a_second_answer_is_found_and_an_id_that_is_used_again_is_another_question() {
    let tools = request(1, "tools/list", &json!({}));
    let told = answer(1, &json!({"tools": []}));
    let events = |count: usize| format!("data: {told}\n\n").repeat(count);
    let mut judge = begun("2025-11-25");
    for _ in 0..2 {
        exchange(&mut judge, CLIENT, Some("s"), &tools, Content::Events, &events(1));
    }
    let verdict = judge.verdict(&[]);
    assert!(verdict.is_clean(), "{verdict}");

    let mut judge = begun("2025-11-25");
    exchange(&mut judge, CLIENT, Some("s"), &tools, Content::Events, &events(2));
    let told = judge.verdict(&[]).to_string();
    assert!(told.contains("it answers what was answered before") && told.contains("1 times in"), "{told}");
}

#[test]
fn a_body_is_a_message_unless_its_status_says_that_there_is_none() {
    let told = |message: &Value, status: StatusCode, content: Content, text: &str, end: End| {
        let (mut judge, exchange) = (begun("2025-11-25"), Exchange::new());
        let about = About { session: Some("s".to_owned()), ..About::default() };
        let body = if message.is_null() { String::new() } else { message.to_string() };
        judge.see(Seen::Asked { exchange, leg: CLIENT, about, body: body.into() });
        judge.see(Seen::Answered { exchange, session: None, content, status });
        judge.see(Seen::Piece { exchange, bytes: text.to_owned().into() });
        judge.see(Seen::Ended { exchange, end });
        let verdict = judge.verdict(&[]);
        if verdict.is_clean() { String::new() } else { verdict.to_string() }
    };
    let call = request(1, "tools/call", &json!({"name": "t"}));
    let word = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let half = r#"{"jsonrpc":"2.0","id":1,"res"#;
    for (message, status, content, text, end) in [
        (&word, StatusCode::ACCEPTED, Content::Other, "", End::Whole),
        (&word, StatusCode::ACCEPTED, Content::Other, "Accepted", End::Whole),
        (&word, StatusCode::ACCEPTED, Content::Json, "", End::Whole),
        // The end of a session.
        (&Value::Null, StatusCode::OK, Content::Json, "", End::Whole),
        (&call, StatusCode::NOT_FOUND, Content::Other, "no such session", End::Whole),
        (&call, StatusCode::OK, Content::Json, half, End::Left),
        (&call, StatusCode::OK, Content::Events, "data: {", End::Broken),
    ] {
        assert_eq!(told(message, status, content, text, end), "");
    }
    for (status, content, text, end, why) in [
        (StatusCode::OK, Content::Other, "hello", End::Whole, "neither JSON nor events"),
        (StatusCode::OK, Content::Other, "", End::Whole, "neither JSON nor events"),
        (StatusCode::OK, Content::Json, "", End::Whole, "cannot be read: EOF"),
        (StatusCode::OK, Content::Json, half, End::Broken, "it broke off"),
        (StatusCode::NOT_FOUND, Content::Json, half, End::Broken, "it broke off"),
        (StatusCode::OK, Content::Json, half, End::Whole, "cannot be read: EOF"),
    ] {
        let told = told(&call, status, content, text, end);
        assert!(told.contains(why), "{status} {text}: {told}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a test dials what it started")]
async fn dial(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

#[tokio::test]
async fn who_comes_late_is_heard_out() {
    let (seen, told) = mpsc::channel();
    let mut pipes = Listener::open(seen, &plan()).await.unwrap();
    let mut late = dial(pipes.address()).await;
    late.write_all(b"b\n").await.unwrap();
    let speaks = async {
        tokio::task::yield_now().await;
        late.write_all(b"<\0\0\0\x04{}\n{").await.unwrap();
        drop(late);
    };
    let (finished, ()) = tokio::join!(pipes.finish(&[]), speaks);
    finished.unwrap();
    let mut judge = Judge::new(plan());
    for seen in told.try_iter() {
        judge.see(seen);
    }
    let told = judge.verdict(&[]).to_string();
    assert!(told.contains("nothing says in which revision"), "{told}");
    assert!(told.contains("it broke off"), "{told}");
}

#[test]
fn a_cell_in_which_nobody_was_heard_fails() {
    let told = Judge::new(plan()).verdict(&[]).to_string();
    for part in ["client → gateway", "gateway → client", "gateway → server", "server → gateway"] {
        assert!(told.contains(&format!("a > b at /mcp: nothing was heard {part}")), "{told}");
    }
    // What the gateway asks for itself is no part of a cell.
    let mut judge = Judge::new(plan());
    let (mut request, answer) = initialize("2025-11-25");
    exchange(&mut judge, CLIENT, Some("s"), &request, Content::Json, &answer);
    request["params"]["clientInfo"]["name"] = json!("durward");
    exchange(&mut judge, SERVER, Some("s"), &request, Content::Json, &answer);
    let verdict = judge.verdict(&[]);
    assert!(!verdict.is_clean() && verdict.to_string().contains("nothing was heard gateway → server"), "{verdict}");
}

const EXPECTED: &[Expected] = &[Expected {
    speaker: Speaker::Server,
    revisions: &["2025-11-25"],
    what: "answer to tools/call",
    fault: "CallToolResult /content/0: ",
    quoting: r#""type":"text""#,
    because: "this one forgets texts",
}];

#[test]
fn what_is_expected_of_a_server_may_be_passed_on_and_nobody_else_may_say_it() {
    let wrong = json!({"content": [{"type": "text"}]});
    let mut judge = begun("2025-11-25");
    call(&mut judge, SERVER, &wrong);
    call(&mut judge, CLIENT, &wrong);
    let verdict = judge.verdict(EXPECTED);
    assert!(verdict.is_clean(), "{verdict}");

    let mut judge = begun("2025-11-25");
    call(&mut judge, CLIENT, &wrong);
    let told = judge.verdict(EXPECTED).to_string();
    assert!(told.contains("invalid, gateway → client"), "the server did not say it: {told}");

    let mut judge = begun("2025-11-25");
    call(&mut judge, SERVER, &json!({"content": [{"type": "image"}]}));
    assert!(!judge.verdict(EXPECTED).is_clean(), "it is another block that is forgotten");

    let mut judge = begun("2025-11-25");
    call(&mut judge, SERVER, &json!({"content": [{"type": "text"}], "isError": 1}));
    let told = judge.verdict(EXPECTED).to_string();
    assert!(told.contains("/isError"), "one fault excuses no other: {told}");
}

#[test]
fn what_is_expected_and_not_said_fails_where_all_was_heard() {
    let told = begun("2025-11-25").verdict(EXPECTED);
    assert!(!told.is_clean() && told.to_string().contains("nobody says it any more: answer to tools/call"), "{told}");

    let mut part = begun("2025-11-25");
    part.plan.is_whole = false;
    assert!(part.verdict(EXPECTED).is_clean());
}

#[test]
fn a_stream_of_2024_and_what_is_posted_to_it_are_one_conversation() {
    let (mut judge, stream) = (Judge::new(plan()), Exchange::new());
    let about = |path: &str| About { path: path.to_owned(), ..About::default() };
    judge.see(Seen::Asked { exchange: stream, leg: CLIENT, about: about("/sse"), body: "".into() });
    judge.see(Seen::Answered { exchange: stream, session: None, content: Content::Events, status: StatusCode::OK });
    let (request, answer) = initialize("2024-11-05");
    judge.see(Seen::Piece { exchange: stream, bytes: "event: endpoint\ndata: /messages?s=1\n\n".into() });
    let post = Exchange::new();
    judge.see(Seen::Asked {
        exchange: post,
        leg: CLIENT,
        about: about("/messages?s=1"),
        body: request.to_string().into(),
    });
    judge.see(Seen::Piece { exchange: stream, bytes: format!("event: message\ndata: {answer}\n\n").into() });
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1}});
    judge.see(Seen::Piece { exchange: stream, bytes: format!("data: {progress}\n\n").into() });
    let told = judge.verdict(&[]).to_string();
    assert!(told.contains("gateway → client, 2024-11-05, notifications/progress"), "{told}");
    assert!(!told.contains("answer to"), "{told}");
}

#[test]
fn the_lines_of_a_program_are_one_conversation_and_its_clients() {
    let mut judge = begun("2025-11-25");
    let exchange = Exchange::new();
    let (request, answer) = initialize("2025-11-25");
    judge.see(Seen::Started { exchange, leg: SERVER });
    for (direction, text) in [(Direction::Up, request.to_string()), (Direction::Down, answer)] {
        let (begin, end) = text.split_at(9);
        judge.see(Seen::Spoken { exchange, direction, bytes: begin.to_owned().into() });
        judge.see(Seen::Spoken { exchange, direction, bytes: format!("{end}\n").into() });
    }
    judge.see(Seen::Spoken { exchange, direction: Direction::Down, bytes: "{}\n".into() });
    let told = judge.verdict(&[]).to_string();
    assert!(told.contains("server → gateway b, 2025-11-25"), "{told}");
    assert!(told.contains("1 times in: a > b at /mcp"), "{told}");
}

#[test]
fn lines_and_events_are_whole_however_they_come() {
    let event = |name: &str, data: &str| Event { name: name.to_owned(), data: data.into() };
    for end in ["\n", "\r\n", "\r"] {
        let text =
            [": idle", "", "id: 1", "data:", "", "event: message", "data: a", "data:b", "", "data: c", "", "data: cut"];
        let text = text.join(end);
        for cut in 0..text.len() {
            let (begin, rest) = text.as_bytes().split_at(cut);
            let mut events = Events::default();
            let mut found = events.take(begin);
            found.extend(events.take(rest));
            assert_eq!(found, [event("message", "a\nb"), event("", "c")], "{end:?}, cut at {cut}");
        }
    }
    let (mut lines, mut found) = (Lines::default(), Vec::new());
    lines.take(b"a\n\nb", |line| found.push(line.to_vec()));
    assert_eq!(found, [b"a".to_vec(), Vec::new()]);
}

#[tokio::test]
async fn pieces_pass_as_they_come_and_whoever_leaves_is_gone_on_the_other_side() {
    let upstream = Upstream::start().await;
    let (events, feed) = Answer::events();
    upstream.next("tools/call", events);
    let (seen, told) = mpsc::channel();
    let plan = Plan { gateway: upstream.address(), ..plan() };
    let mut relays = Relays::open(&plan, seen).await.unwrap();
    let door = relays.addresses(plan.gateway).doors[0];
    tokio::spawn(async move { relays.accept().await });

    let call = request(1, "tools/call", &json!({"name": "echo"}));
    let mut reply = Ask::post(&format!("http://{door}/mcp?a=b"), call.to_string()).send().await;
    feed.raw("data: {\"a\":1}\n\n").await;
    // The answer is not at its end, and never will be.
    assert_eq!(soon(reply.event()).await.unwrap().json(), json!({"a": 1}));
    assert_eq!(upstream.requests()[0].path, "/mcp?a=b");
    assert_eq!(upstream.requests()[0].header("host"), Some(upstream.address().to_string().as_str()));
    drop(reply);
    soon(feed.closed()).await;
    upstream.abandoned(1).await;

    upstream.next("tools/call", Answer::hang());
    let ask = Ask::post(&format!("http://{door}/mcp"), call.to_string());
    let waiting = tokio::spawn(ask.send());
    upstream.arrived("tools/call", 2).await;
    waiting.abort();
    upstream.abandoned(2).await;

    let told: Vec<Seen> = told.try_iter().collect();
    assert!(matches!(&told[0], Seen::Asked { leg: CLIENT, body, .. } if *body == call.to_string()), "{told:?}");
    assert!(
        told.iter().any(|seen| matches!(seen, Seen::Piece { bytes, .. } if bytes.starts_with(b"data:"))),
        "{told:?}"
    );
}
