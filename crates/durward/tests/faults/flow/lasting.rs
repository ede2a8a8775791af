//! HTTP with SSE, of 2024-11-05: a client of it, and a server of it.

use super::{
    answer, echo, goes,
    listen::{AGAIN_BY_GET, says, updated},
    news, process,
};
use crate::{
    cell::{Cell, Open},
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
        // The stream on which its answer would come leads to that server alone.
        Row(Removed, &["sent", "one word"], "the end", "answered"),
        Row(Moved, &["opened", "introduced"], "stays open", ""),
        Row(Moved, &["sent", "one word"], "the answer", "answered"),
        Row(Revoked, &["opened", "introduced"], "the end", ""),
        // Whichever looks first: the call, or the stream.
        Row(Revoked, &["sent", "one word"], "error -32600 or the end", "withheld revoked authenticate"),
        Row(Disabled, &["opened", "introduced"], "the end", ""),
        Row(Disabled, &["sent", "one word"], "error -32600 or the end", "withheld revoked authenticate"),
    ],
    but: &[],
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
    if moment == "opened" {
        return Open::new(hearing, None, goes(|_| async {}));
    }
    let client = json!({"name": "old", "version": "1"});
    let params = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": client});
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    assert_eq!(cell.posts(post(hello)).await, 202);
    hearing.message(2).await;
    cell.is_listened_for = true;
    let listened = cell.server.prepared("GET", "text/event-stream");
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(cell.posts(post(ready)).await, 202);
    let (_, mut listened) = cell.asked("GET", 1, listened).await;
    listened.begin();
    if moment == "introduced" {
        listened.say(&news(1)).await;
        hearing.message(3).await;
        return Open { again: Some(AGAIN_BY_GET), ..Open::new(hearing, Some(listened), says(news(2))) };
    }
    // It goes on, whatever becomes of the call.
    tokio::spawn(async move { listened.stay().await });
    let prepared = cell.server.prepared("tools/call", "text/event-stream");
    let call = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": echo()});
    assert_eq!(cell.posts(post(call)).await, 202);
    let (id, mut script) = cell.asked("tools/call", 1, prepared).await;
    if moment == "one word" {
        script.say(&news(1)).await;
        hearing.message(3).await;
    }
    let rest = goes(move |script| async move {
        if let Some(mut script) = script {
            script.say(&news(2)).await;
            script.say(&answer(&id)).await;
        }
    });
    Open::new(hearing, Some(script), rest)
}

pub(crate) const CALL_LEGACY: Flow = Flow {
    name: "a call of a server of 2024-11-05",
    door: Door::One,
    server: Speaks::Lasting,
    ..process::CALL_ALL_LEGACY
};

pub(crate) const CALL_DOWNWARD: Flow = Flow {
    name: "a call of a server of 2024-11-05 over the bridge downward",
    door: Door::One,
    server: Speaks::Lasting,
    ..process::CALL_ALL_DOWNWARD
};

pub(crate) const CALL_ALL_LEGACY: Flow =
    Flow { name: "a call to all, of a server of 2024-11-05", door: Door::All, ..CALL_LEGACY };

pub(crate) const CALL_ALL_DOWNWARD: Flow = Flow {
    name: "a call to all, of a server of 2024-11-05 over the bridge downward",
    door: Door::All,
    ..CALL_DOWNWARD
};

pub(crate) const QUESTION_LEGACY: Flow =
    Flow { name: "a question of a server of 2024-11-05", server: Speaks::Lasting, ..process::QUESTION_LEGACY };

pub(crate) const QUESTION_DOWNWARD: Flow = Flow {
    name: "a question of a server of 2024-11-05 over the bridge downward",
    server: Speaks::Lasting,
    ..process::QUESTION_DOWNWARD
};

pub(crate) const QUESTION_ALL_LEGACY: Flow = Flow {
    name: "a question to all, of a server of 2024-11-05",
    server: Speaks::Lasting,
    ..process::QUESTION_ALL_LEGACY
};

pub(crate) const QUESTION_ALL_DOWNWARD: Flow = Flow {
    name: "a question to all, of a server of 2024-11-05 over the bridge downward",
    server: Speaks::Lasting,
    ..process::QUESTION_ALL_DOWNWARD
};

pub(crate) const LISTEN_LEGACY: Flow =
    Flow { name: "listening to a server of 2024-11-05", server: Speaks::Lasting, ..process::LISTEN_LEGACY };

pub(crate) const LISTEN_DOWNWARD: Flow = Flow {
    name: "listening to a server of 2024-11-05 over the bridge downward",
    server: Speaks::Lasting,
    ..process::LISTEN_DOWNWARD
};

pub(crate) const LISTEN_ALL_LEGACY: Flow =
    Flow { name: "listening to all, to a server of 2024-11-05", server: Speaks::Lasting, ..process::LISTEN_ALL_LEGACY };

pub(crate) const LISTEN_ALL_DOWNWARD: Flow = Flow {
    name: "listening to all, to a server of 2024-11-05 over the bridge downward",
    server: Speaks::Lasting,
    ..process::LISTEN_ALL_DOWNWARD
};

/// The streams of a server by number.
pub(crate) type Streams = Arc<Mutex<Vec<Feed>>>;

/// What comes to a server of this kind.
const SERVED: [&str; 12] = [
    "server/discover",
    "initialize",
    "notifications/initialized",
    "notifications/cancelled",
    "tools/list",
    "tools/call",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/subscribe",
    "resources/unsubscribe",
    "response",
];

/// Makes a server one of 2024-11-05: it names an address on its streams, and says there what it would otherwise answer.
pub(crate) fn serve(upstream: &Upstream) -> Streams {
    upstream.speaks("2024-11-05");
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
    for method in SERVED {
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

/// The stream beside which a request came.
pub(crate) fn stream_of(request: &Received, streams: &Streams) -> Option<Feed> {
    let (_, number) = request.path.split_once("sessionId=")?;
    streams.lock().unwrap().get(number.parse::<usize>().ok()?).cloned()
}

/// What an honest server of this kind says. Calls without arguments are the test's to answer.
fn said_by(request: &Received) -> Option<Value> {
    match request.name().as_str() {
        "initialize" => Some(
            json!({"protocolVersion": "2024-11-05", "capabilities": {"tools": {}, "resources": {"subscribe": true}},
            "serverInfo": {"name": "old", "version": "1"}}),
        ),
        "tools/list" => Some(json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})),
        "prompts/list" => Some(json!({"prompts": []})),
        "resources/list" => Some(json!({"resources": []})),
        "resources/templates/list" => Some(json!({"resourceTemplates": []})),
        "resources/subscribe" | "resources/unsubscribe" => Some(json!({})),
        "tools/call" if !request.json()["params"]["arguments"]["n"].is_null() => Some(json!({"content": []})),
        _ => None,
    }
}

/// Whoever follows a resource hears of it at once.
pub(crate) fn greets(upstream: &Upstream, streams: &Streams) {
    let streams = Arc::clone(streams);
    upstream.always("resources/subscribe", move |request| {
        let Some(feed) = stream_of(request, &streams) else { return Answer::status(StatusCode::NOT_FOUND) };
        let message = json!({"jsonrpc": "2.0", "id": request.id(), "result": {}});
        tokio::spawn(async move {
            feed.message(&message).await;
            feed.message(&updated()).await;
        });
        Answer::status(StatusCode::ACCEPTED)
    });
}
