//! What a server says before it answers `initialize`, and what becomes of the session.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Answer, Ask, Received, Reply, Streamer, Upstream, soon};

/// A process that logs twice before it answers `initialize` as `$1` says.
const LOGS_FIRST: &str = r#"
say() { echo '{"jsonrpc":"2.0",'"$1"'}'; }
introduce() { say '"id":'"$1"',"result":{"protocolVersion":"2025-11-25","capabilities":{"logging":{},"tools":{}},"serverInfo":{"name":"s","version":"1"}}'; }
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  case $line in
    *'"initialize"'*)
      say '"method":"notifications/message","params":{"level":"info","data":"one"}'
      say '"method":"notifications/message","params":{"level":"info","data":"two"}'
      case $1 in
        answers) introduce "$id" ;;
        asks) asked=$id; say '"id":"q","method":"ping"' ;;
        refuses) say '"id":'"$id"',"error":{"code":-32603,"message":"not today"}' ;;
        ends) exit ;;
      esac ;;
    *'"id":"q"'*) introduce "$asked" ;;
    *'"tools/list"'*) say '"id":'"$id"',"result":{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}' ;;
  esac
done"#;

/// A gateway before such a process.
async fn before_a_process(how: &str, shared: bool) -> Inside {
    let command = ["/bin/sh", "-c", LOGS_FIRST, "server", how].map(str::to_owned).to_vec();
    let upstream = Upstream::start().await;
    Inside::start(Plan { command: Some(command), shared, era: EraSettings::Legacy, ..Plan::of(&upstream) }).await
}

fn logged(data: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": data}})
}

/// The same over HTTP: an event stream that opens a session.
fn logs_first(request: &Received, answer: &str) -> Answer {
    let id = request.id();
    let said = [logged("one").to_string(), logged("two").to_string(), answer.replace("ID", &id.to_string())];
    let events = said.map(|message| format!("data: {message}\n\n"));
    Answer::event_text(events.concat()).header("mcp-session-id", "theirs")
}

const WELCOME: &str = r#"{"jsonrpc":"2.0","id":ID,"result":{"protocolVersion":"2025-11-25","capabilities":{"logging":{},"tools":{}},"serverInfo":{"name":"s","version":"1"}}}"#;
const REFUSAL: &str = r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32603,"message":"not today"}}"#;

/// The answer to `initialize`, and the session that comes with it.
async fn introduced(inside: &Inside) -> (Reply, String) {
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}});
    let reply = Ask::post(&inside.url("/mcp/files"), hello.to_string()).bearer(&inside.alice).send().await;
    let session = reply.header("mcp-session-id").unwrap_or("none").to_owned();
    (reply, session)
}

async fn next(reply: &mut Reply) -> Value {
    soon(reply.event()).await.unwrap().json()
}

fn saying(inside: &Inside, session: &str, message: &Value) -> Ask {
    let ask = Ask::post(&inside.url("/mcp/files"), message.to_string()).bearer(&inside.alice);
    ask.header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25")
}

/// Whether the server is reached in this session.
async fn works(inside: &Inside, session: &str) {
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let list = saying(inside, session, &list).send().await.json().await;
    assert_eq!(list["result"]["tools"][0]["name"], "echo", "{list}");
}

async fn hears_all_and_has_a_session(inside: &Inside) {
    let (mut reply, session) = introduced(inside).await;
    let said = [next(&mut reply).await, next(&mut reply).await];
    assert_eq!(said, [logged("one"), logged("two")]);
    assert_eq!(next(&mut reply).await["result"]["serverInfo"]["name"], "s");
    works(inside, &session).await;
}

#[tokio::test]
async fn a_process_that_logs_before_it_answers_opens_a_session() {
    for shared in [false, true] {
        let inside = before_a_process("answers", shared).await;
        hears_all_and_has_a_session(&inside).await;
        let mut old = Streamer::open(&inside.url("/sse/files"), Some(&inside.alice)).await;
        let hello =
            json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
        old.send("initialize", hello).await;
        assert_eq!([old.message().await, old.message().await], [logged("one"), logged("two")]);
        assert_eq!(old.message().await["result"]["serverInfo"]["name"], "s");
        let list = old.request("tools/list", json!({})).await;
        assert_eq!(list["result"]["tools"][0]["name"], "echo", "{list}");
    }
}

#[tokio::test]
async fn what_is_agreed_on_a_stream_that_was_taken_up_again_counts() {
    let upstream = Upstream::start().await;
    upstream
        .always("initialize", |_| Answer::event_text("id: a\nretry: 10\ndata:\n\n").header("mcp-session-id", "one"));
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let (reply, session) = introduced(&inside).await;
    reply.bytes().await;
    let answer = WELCOME.replace("ID", "1").replace("2025-11-25", "2025-06-18");
    upstream.next("GET", Answer::event_text(format!("id: b\ndata: {answer}\n\n")));
    let resume = Ask::get(&inside.url("/mcp/files")).bearer(&inside.alice).header("accept", "text/event-stream");
    let resume = resume.header("mcp-session-id", &session).header("last-event-id", "a");
    assert!(resume.send().await.text().await.contains("2025-06-18"));
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let said = async |version: &str| {
        saying(&inside, &session, &list).replace("mcp-protocol-version", version).send().await.status
    };
    assert_eq!((said("2025-06-18").await.as_u16(), said("2025-11-25").await.as_u16()), (200, 400));
}

#[tokio::test]
async fn a_web_server_that_logs_before_it_answers_opens_a_session() {
    let upstream = Upstream::start().await;
    upstream.always("initialize", |request| logs_first(request, WELCOME));
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    hears_all_and_has_a_session(&inside).await;
}

#[tokio::test]
async fn a_server_that_asks_before_it_answers_is_answered_in_the_session_that_it_opens() {
    let inside = before_a_process("asks", false).await;
    let (mut reply, session) = introduced(&inside).await;
    for _ in ["one", "two"] {
        next(&mut reply).await;
    }
    assert_eq!(next(&mut reply).await["method"], "ping");
    let answer = json!({"jsonrpc": "2.0", "id": "q", "result": {}});
    assert_eq!(saying(&inside, &session, &answer).send().await.status, 202);
    assert_eq!(next(&mut reply).await["result"]["serverInfo"]["name"], "s");
    works(&inside, &session).await;
}

#[tokio::test]
async fn a_server_that_says_something_and_then_refuses_or_ends_leaves_no_session() {
    for (how, code) in [("refuses", -32603), ("ends", -31006)] {
        let inside = before_a_process(how, false).await;
        let (mut reply, session) = introduced(&inside).await;
        assert_eq!([next(&mut reply).await, next(&mut reply).await], [logged("one"), logged("two")]);
        assert_eq!(next(&mut reply).await["error"]["code"], code, "{how}");
        assert_eq!(inside.state.sessions.count(), 0, "{how}");
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(saying(&inside, &session, &ready).send().await.status, 404, "{how}");
    }
}

#[tokio::test]
async fn a_web_server_that_says_something_and_then_refuses_leaves_no_session_and_is_looked_at() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan { probed: true, ..Plan::of(&upstream) }).await;
    let known = inside.state.line().servers().next().cloned().unwrap();
    inside.state.line().look(&known).await;
    let looked = upstream.seen("server/discover").len();
    upstream.always("initialize", |request| logs_first(request, REFUSAL));
    let (mut reply, _) = introduced(&inside).await;
    assert_eq!([next(&mut reply).await, next(&mut reply).await], [logged("one"), logged("two")]);
    assert_eq!(next(&mut reply).await["error"]["code"], -32603);
    assert_eq!(inside.state.sessions.count(), 0);
    // The server keeps none either, and may speak the other era by now.
    let ended = |upstream: &Upstream| {
        upstream.seen("DELETE").iter().any(|ended| ended.header("mcp-session-id") == Some("theirs"))
    };
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    soon(async {
        while !ended(&upstream) {
            turns.tick().await;
        }
    })
    .await;
    upstream.arrived("server/discover", looked + 1).await;
}

#[tokio::test]
async fn a_session_whose_answer_broke_off_waits_a_minute_for_its_client_and_no_longer() {
    for comes_back in [false, true] {
        let upstream = Upstream::start().await;
        // The server gives a place to go on from, and breaks off.
        upstream.always("initialize", |_| {
            Answer::event_text(format!("id: 7\ndata: {}\n\n", logged("one"))).header("mcp-session-id", "theirs")
        });
        let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
        let (mut reply, session) = introduced(&inside).await;
        assert_eq!(next(&mut reply).await, logged("one"));
        assert!(soon(reply.event()).await.is_none());
        inside.clock.advance(Duration::from_secs(59));
        inside.state.sweep();
        assert_eq!(inside.state.sessions.count(), 1, "it may still come back");
        if comes_back {
            let rest = Ask::get(&inside.url("/mcp/files")).bearer(&inside.alice).header("accept", "text/event-stream");
            let rest = rest.header("mcp-session-id", &session).header("mcp-protocol-version", "2025-11-25");
            rest.header("last-event-id", "7").send().await;
            assert_eq!(upstream.arrived("GET", 1).await.header("last-event-id"), Some("7"));
        }
        inside.clock.advance(Duration::from_secs(90));
        inside.state.sweep();
        assert_eq!(inside.state.sessions.count(), usize::from(comes_back));
        if !comes_back {
            assert_eq!(upstream.arrived("DELETE", 1).await.header("mcp-session-id"), Some("theirs"));
        }
    }
}
