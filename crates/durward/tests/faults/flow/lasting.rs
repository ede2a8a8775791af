//! HTTP with SSE, of 2024-11-05: a client of it, and a server of it.

use super::{
    answer, echo,
    listen::{AGAIN_LEGACY, says},
    news,
};
use crate::{
    cell::{Cell, Open, Rest},
    script::Script,
    table::{
        Client, Door,
        Fault::{Cut, Disabled, Gone, Killed, Moved, Removed, Revoked, Silent},
        Flow, Row, Speaks, What,
    },
};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use testkit::{Answer, Ask, Feed, Received, Upstream};

pub(crate) const CLIENT_OF_2024: Flow = Flow {
    name: "a client of 2024-11-05",
    what: What::Streamed,
    client: Client::Old,
    door: Door::One,
    server: Speaks::Both,
    method: "tools/call",
    moments: &["opened", "introduced", "sent", "one word"],
    rows: &[
        Row(Killed, &["opened", "introduced"], "stays open", ""),
        Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Killed, &["one word"], "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &["opened", "introduced"], "stays open", ""),
        Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &["one word"], "error -31006", "faulted upstream-cut forward"),
        Row(Silent, &["opened", "introduced"], "stays open", ""),
        Row(Silent, &["sent", "one word"], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &["opened", "introduced"], "gone", ""),
        Row(Gone, &["sent", "one word"], "gone", "answered"),
        Row(Removed, &["opened", "introduced"], "the end", ""),
        // Whichever looks first: the call, or the stream.
        Row(Removed, &["sent", "one word"], "error -31001 or the end", "refused denied authorize"),
        Row(Moved, &["opened", "introduced"], "stays open", ""),
        Row(Moved, &["sent", "one word"], "the answer", "answered"),
        Row(Revoked, &["opened", "introduced"], "the end", ""),
        Row(Revoked, &["sent", "one word"], "error -32600 or the end", "refused revoked authenticate"),
        Row(Disabled, &["opened", "introduced"], "the end", ""),
        Row(Disabled, &["sent", "one word"], "error -32600 or the end", "refused revoked authenticate"),
    ],
};

/// A client that hears everything on one stream.
pub(crate) async fn client(cell: &mut Cell, moment: &str) -> Open {
    let url = cell.url(&format!("/sse/{}", cell.name));
    let stream = Ask::get(&url).header("accept", "text/event-stream").bearer(&cell.key);
    let hearing = cell.sends(stream, json!(3));
    let endpoint = hearing.until(|heard| !heard.events.is_empty()).await.events.remove(0).data;
    let to = cell.url(&endpoint);
    let post = |message: Value| {
        let ask = Ask::new(http::Method::POST, &to).header("content-type", "application/json");
        ask.body(message.to_string()).bearer(&cell.key)
    };
    let nothing = |_: Option<Script>| Box::pin(async {}) as Rest;
    if moment == "opened" {
        return Open::new(hearing, None, Box::new(nothing));
    }
    let client = json!({"name": "old", "version": "1"});
    let params = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": client});
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    assert_eq!(cell.posts(post(hello)).await, 202);
    hearing.message(2).await;
    cell.is_listened_for = true;
    let listened = cell.script("GET", "text/event-stream");
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(cell.posts(post(ready)).await, 202);
    cell.upstream().arrived("GET", 1).await;
    let mut listened = listened;
    listened.begin();
    if moment == "introduced" {
        listened.say(&news(1)).await;
        hearing.message(3).await;
        return Open { again: Some(AGAIN_LEGACY), ..Open::new(hearing, Some(listened), says(news(2))) };
    }
    // It goes on, whatever becomes of the call.
    tokio::spawn(async move { listened.stay().await });
    let mut script = cell.script("tools/call", "text/event-stream");
    let call = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": echo()});
    assert_eq!(cell.posts(post(call)).await, 202);
    let id = cell.upstream().arrived("tools/call", 1).await.id();
    if moment == "one word" {
        script.say(&news(1)).await;
        hearing.message(3).await;
    }
    let rest = move |script: Option<Script>| {
        Box::pin(async move {
            if let Some(mut script) = script {
                script.say(&news(2)).await;
                script.say(&answer(&id)).await;
            }
        }) as Rest
    };
    Open::new(hearing, Some(script), Box::new(rest))
}

pub(crate) const SERVER_OF_2024: Flow = Flow {
    name: "a call of a server of 2024-11-05",
    what: What::Streamed,
    client: Client::Legacy,
    door: Door::One,
    server: Speaks::Lasting,
    method: "tools/call",
    moments: &["sent", "one word"],
    rows: super::process::CALL_LEGACY.rows,
};

/// The streams of a server by number.
pub(crate) type Streams = Arc<Mutex<Vec<Feed>>>;

/// Makes a server one of 2024-11-05: it names an address on its streams, and says there what it would otherwise answer.
pub(crate) fn serve(upstream: &Upstream) -> Streams {
    let streams = Streams::default();
    let opened = Arc::clone(&streams);
    upstream.always("GET", move |_| {
        let (answer, feed) = Answer::events();
        let mut opened = opened.lock().unwrap();
        let said = format!("event: endpoint\ndata: /messages?sessionId={}\n\n", opened.len());
        opened.push(feed.clone());
        tokio::spawn(async move { feed.raw(said).await });
        answer
    });
    for method in ["server/discover", "initialize", "tools/list", "tools/call", "notifications/initialized", "response"]
    {
        let streams = Arc::clone(&streams);
        upstream.always(method, move |request| {
            let Some(feed) = stream_of(request, &streams) else { return Answer::status(StatusCode::NOT_FOUND) };
            if let Some(result) = said_by(request) {
                let message = json!({"jsonrpc": "2.0", "id": request.id(), "result": result});
                tokio::spawn(async move { feed.message(&message).await });
            }
            Answer::status(StatusCode::ACCEPTED)
        });
    }
    streams
}

fn stream_of(request: &Received, streams: &Streams) -> Option<Feed> {
    let (_, number) = request.path.split_once("sessionId=")?;
    streams.lock().unwrap().get(number.parse::<usize>().ok()?).cloned()
}

/// What an honest server of this kind says. Calls without arguments are the test's to answer.
fn said_by(request: &Received) -> Option<Value> {
    match request.name().as_str() {
        "initialize" => Some(json!({"protocolVersion": "2024-11-05", "capabilities": {"tools": {}},
            "serverInfo": {"name": "old", "version": "1"}})),
        "tools/list" => Some(json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})),
        "tools/call" if !request.json()["params"]["arguments"]["n"].is_null() => Some(json!({"content": []})),
        _ => None,
    }
}

/// Waits for the call: its id, and the stream on which it is answered.
pub(crate) async fn called(upstream: &Upstream, streams: &Streams) -> (Value, Script) {
    let request = upstream.arrived("tools/call", 1).await;
    let feed = stream_of(&request, streams).expect("it came by its stream");
    (request.id(), Script::of_stream(feed))
}
