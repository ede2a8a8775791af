//! Whoever listens: by GET and by `subscriptions/listen`, to one server and to all, in one era and over either bridge.

use super::{goes, news};
use crate::{
    cell::{Again, Cell, Goes, Open},
    hear::Hearing,
    script::Script,
    server::Server,
    table::{
        Client, Door,
        Fault::{Cut, Disabled, Flipped, Gone, Killed, Moved, Removed, Revoked, Silent, Unbridged},
        Flow, Row, Speaks, What,
    },
};
use serde_json::{Value, json};
use testkit::{Answer, Upstream};

const MOMENTS: &[&str] = &["sent", "begun", "one word"];

pub(crate) const LISTEN_LEGACY: Flow = Flow {
    name: "listening, legacy",
    what: What::Listening,
    client: Client::Legacy,
    door: Door::One,
    server: Speaks::Both,
    method: "GET",
    moments: MOMENTS,
    rows: ONE_LEGACY,
    but: &[],
};

pub(crate) const LISTEN_MODERN: Flow = Flow {
    name: "listening, modern",
    what: What::Listening,
    client: Client::Modern,
    door: Door::One,
    server: Speaks::Both,
    method: "subscriptions/listen",
    moments: MOMENTS,
    rows: ONE_MODERN,
    but: &[],
};

pub(crate) const ALL_LEGACY: Flow = Flow {
    name: "listening to all, legacy",
    what: What::Listening,
    client: Client::Legacy,
    door: Door::All,
    server: Speaks::Both,
    method: "GET",
    moments: &["begun", "one word"],
    rows: MERGED_LEGACY,
    but: &[],
};

pub(crate) const ALL_MODERN: Flow = Flow {
    name: "listening to all, modern",
    what: What::Listening,
    client: Client::Modern,
    door: Door::All,
    server: Speaks::Both,
    method: "subscriptions/listen",
    moments: &["begun", "one word"],
    rows: MERGED_MODERN,
    but: &[],
};

pub(crate) const LISTEN_UPWARD: Flow = Flow {
    name: "listening over the bridge upward",
    what: What::Listening,
    client: Client::Legacy,
    door: Door::One,
    server: Speaks::Modern,
    method: "GET",
    moments: MOMENTS,
    rows: UPWARD,
    but: &[],
};

pub(crate) const LISTEN_DOWNWARD: Flow = Flow {
    name: "listening over the bridge downward",
    what: What::Listening,
    client: Client::Modern,
    door: Door::One,
    server: Speaks::Legacy,
    method: "subscriptions/listen",
    moments: MOMENTS,
    rows: DOWNWARD,
    but: &[],
};

pub(crate) const ALL_UPWARD: Flow = Flow {
    name: "listening to all over the bridge upward",
    what: What::Listening,
    client: Client::Legacy,
    door: Door::All,
    server: Speaks::Modern,
    method: "GET",
    moments: &["begun", "one word"],
    rows: MERGED_LEGACY,
    but: &[],
};

pub(crate) const ALL_DOWNWARD: Flow = Flow {
    name: "listening to all over the bridge downward",
    what: What::Listening,
    client: Client::Modern,
    door: Door::All,
    server: Speaks::Legacy,
    method: "subscriptions/listen",
    moments: &["begun", "one word"],
    rows: MERGED_MODERN,
    but: &[],
};

const ONE_LEGACY: &[Row] = &[
    Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
    Row(Killed, &["begun", "one word"], "the end", "faulted upstream-cut forward"),
    Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
    Row(Cut, &["begun", "one word"], "the end", "faulted upstream-cut forward"),
    Row(Silent, &[], "stays open", "answered"),
    Row(Gone, &[], "gone", "answered"),
    Row(Removed, &[], "the end", "withheld denied authorize"),
    Row(Moved, &[], "the end", "answered"),
    Row(Revoked, &[], "the end", "withheld revoked authenticate"),
    Row(Disabled, &[], "the end", "withheld revoked authenticate"),
];

const ONE_MODERN: &[Row] = &[
    Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
    Row(Killed, &["begun", "one word"], "error -31006", "faulted upstream-cut forward"),
    Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
    Row(Cut, &["begun", "one word"], "error -31006", "faulted upstream-cut forward"),
    Row(Silent, &["sent"], "stays open", "abandoned"),
    Row(Silent, &["begun", "one word"], "stays open", "answered"),
    Row(Gone, &["sent"], "gone", "abandoned"),
    Row(Gone, &["begun", "one word"], "gone", "answered"),
    Row(Removed, &[], "error -31001", "withheld denied authorize"),
    Row(Moved, &[], "the answer", "answered"),
    Row(Revoked, &[], "error -32600", "withheld revoked authenticate"),
    Row(Disabled, &[], "error -32600", "withheld revoked authenticate"),
];

// The stream is the gateway's: it lasts, and the servers that it is made of are listened to again.
const MERGED_LEGACY: &[Row] = &[
    Row(Killed, &[], "stays open", "answered"),
    Row(Cut, &[], "stays open", "answered"),
    Row(Silent, &[], "stays open", "answered"),
    Row(Gone, &[], "gone", "answered"),
    Row(Removed, &[], "stays open", "answered"),
    Row(Moved, &[], "stays open", "answered"),
    Row(Revoked, &[], "the end", "withheld revoked authenticate"),
    Row(Disabled, &[], "the end", "withheld revoked authenticate"),
    Row(Flipped, &[], "stays open", "answered"),
    Row(Unbridged, &[], "stays open", "answered"),
];

const MERGED_MODERN: &[Row] = &[
    Row(Killed, &[], "stays open", "answered"),
    Row(Cut, &[], "stays open", "answered"),
    Row(Silent, &[], "stays open", "answered"),
    Row(Gone, &[], "gone", "answered"),
    Row(Removed, &[], "stays open", "answered"),
    Row(Moved, &[], "stays open", "answered"),
    Row(Revoked, &[], "error -32600", "withheld revoked authenticate"),
    Row(Disabled, &[], "error -32600", "withheld revoked authenticate"),
    Row(Flipped, &[], "stays open", "answered"),
    Row(Unbridged, &[], "stays open", "answered"),
];

const UPWARD: &[Row] = &[
    Row(Killed, &[], "stays open", "answered"),
    Row(Cut, &[], "stays open", "answered"),
    Row(Silent, &[], "stays open", "answered"),
    Row(Gone, &[], "gone", "answered"),
    Row(Removed, &[], "the end", "withheld denied authorize"),
    Row(Moved, &[], "stays open", "answered"),
    Row(Revoked, &[], "the end", "withheld revoked authenticate"),
    Row(Disabled, &[], "the end", "withheld revoked authenticate"),
    Row(Flipped, &[], "stays open", "answered"),
    Row(Unbridged, &[], "the end", "answered"),
];

const DOWNWARD: &[Row] = &[
    Row(Killed, &[], "stays open", "answered"),
    Row(Cut, &[], "stays open", "answered"),
    Row(Silent, &[], "stays open", "answered"),
    Row(Gone, &[], "gone", "answered"),
    Row(Removed, &[], "error -31001", "withheld denied authorize"),
    Row(Moved, &[], "the answer", "answered"),
    Row(Revoked, &[], "error -32600", "withheld revoked authenticate"),
    Row(Disabled, &[], "error -32600", "withheld revoked authenticate"),
    Row(Flipped, &[], "the answer", "answered"),
    Row(Unbridged, &[], "the answer", "answered"),
];

pub(crate) fn updated() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "file:///a"}})
}

fn wanted(uri: &str) -> Value {
    json!({"notifications": {"resourceSubscriptions": [uri]}})
}

/// The resource as it is called at this door.
fn address(cell: &Cell, door: &str) -> String {
    if door == "/mcp" { format!("durward://{}/file:///a", cell.name) } else { "file:///a".to_owned() }
}

/// Says this, and leaves the stream open.
pub(super) fn says(word: Value) -> Goes {
    goes(move |script| async move {
        if let Some(mut script) = script {
            script.say(&word).await;
            script.stay().await;
        }
    })
}

/// The server can be asked to tell of resources.
fn followed(upstream: &Upstream) {
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        upstream.always(method, |request| Answer::result(&request.id(), &json!({})));
    }
}

/// Whoever opens the stream of a session hears this at once.
fn greets_on_get(upstream: &Upstream, word: fn() -> Value) {
    upstream.always("GET", move |_| {
        let (answer, feed) = Answer::events();
        tokio::spawn(says(word())(Some(Script::of_stream(feed))));
        answer
    });
}

/// Whoever listens to a server hears of a resource at once.
fn greets(server: &Server) {
    match server {
        Server::Http(upstream, _) => {
            followed(upstream);
            greets_on_get(upstream, updated);
            upstream.always("subscriptions/listen", |request| {
                let (answer, feed) = Answer::events();
                let id = request.id();
                tokio::spawn(async move {
                    feed.message(&told(&id, acknowledged())).await;
                    says(told(&id, updated()))(Some(Script::of_stream(feed))).await;
                });
                answer
            });
        }
        Server::Lasting(upstream, streams) => super::lasting::greets(upstream, streams),
        Server::Process(processes) => processes.greets(),
    }
}

/// Of a server of sessions, which is asked for a stream.
pub(super) const AGAIN_BY_GET: Again =
    Again { prepare: |server| greets_on_get(&server.upstream(), || news(99)), word: "notifications/message" };
const AGAIN: Again = Again { prepare: greets, word: "notifications/resources/updated" };

pub(crate) fn acknowledged() -> Value {
    let params = wanted("file:///a");
    json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params})
}

/// A message of the stream that was asked for with this id.
pub(crate) fn told(id: &Value, mut message: Value) -> Value {
    message["params"]["_meta"] = json!({"io.modelcontextprotocol/subscriptionId": id});
    message
}

pub(crate) async fn legacy(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let prepared = cell.server.prepared("GET", "text/event-stream");
    let agent = cell.legacy(door).await;
    let hearing = cell.sends(agent.to_listen(), Value::Null);
    let (_, mut script) = cell.asked("GET", 1, prepared).await;
    if moment != "sent" {
        script.begin();
        hearing.head().await;
    }
    if moment == "one word" {
        script.say(&news(1)).await;
        hearing.message(1).await;
    }
    Open { again: Some(AGAIN_BY_GET), ..Open::new(hearing, Some(script), says(news(2))) }
}

/// Follows the resource, and listens.
async fn follows(cell: &mut Cell, door: &str) -> Hearing {
    let agent = cell.legacy(door).await;
    let subscribed = cell.asks(&agent, 6, "resources/subscribe", json!({"uri": address(cell, door)}));
    subscribed.answer().await;
    cell.knows(&subscribed);
    cell.sends(agent.to_listen(), Value::Null)
}

/// A client that hears what its server says on the connection of the session. The next connection is asked for it again.
pub(crate) async fn on_connection(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let hearing = follows(cell, door).await;
    hearing.head().await;
    let (_, mut script) = cell.asked("resources/subscribe", 1, None).await;
    if moment == "one word" {
        script.say(&updated()).await;
        hearing.message(1).await;
    }
    Open { again: Some(AGAIN), ..Open::new(hearing, Some(script), says(updated())) }
}

pub(crate) async fn modern(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let prepared = cell.server.prepared("subscriptions/listen", "text/event-stream");
    let agent = cell.modern(door);
    let hearing = cell.asks(&agent, 7, "subscriptions/listen", wanted(&address(cell, door)));
    let (id, mut script) = cell.asked("subscriptions/listen", 1, prepared).await;
    if moment != "sent" {
        script.say(&told(&id, acknowledged())).await;
        hearing.message(1).await;
    }
    if moment == "one word" {
        script.say(&told(&id, updated())).await;
        hearing.message(2).await;
    }
    Open { again: Some(AGAIN), ..Open::new(hearing, Some(script), says(told(&id, updated()))) }
}

/// A legacy client that listens to a modern server: the stream is the gateway's.
pub(crate) async fn upward(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let prepared = cell.server.prepared("subscriptions/listen", "text/event-stream");
    let hearing = follows(cell, door).await;
    let (id, mut script) = cell.asked("subscriptions/listen", 1, prepared).await;
    if moment != "sent" {
        script.say(&told(&id, acknowledged())).await;
        hearing.head().await;
    }
    if moment == "one word" {
        script.say(&told(&id, updated())).await;
        hearing.message(1).await;
    }
    Open { again: Some(AGAIN), ..Open::new(hearing, Some(script), says(told(&id, updated()))) }
}

/// A modern client that listens to a legacy server: the session is the gateway's.
pub(crate) async fn downward(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let prepared = cell.server.prepared("GET", "text/event-stream");
    if let Server::Http(upstream, _) = &cell.server {
        followed(upstream);
    }
    let agent = cell.modern(door);
    let hearing = cell.asks(&agent, 7, "subscriptions/listen", wanted(&address(cell, door)));
    hearing.message(1).await;
    // Where nothing is prepared, what the server says comes by the connection on which it was asked.
    let asked = if prepared.is_some() { "GET" } else { "resources/subscribe" };
    let (_, mut script) = cell.asked(asked, 1, prepared).await;
    if moment != "sent" {
        script.begin();
    }
    if moment == "one word" {
        script.say(&updated()).await;
        hearing.message(2).await;
    }
    Open { again: Some(AGAIN), ..Open::new(hearing, Some(script), says(updated())) }
}
