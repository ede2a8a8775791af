//! Whoever listens: by GET and by `subscriptions/listen`, to one server and to all, in one era and over either bridge.

use super::news;
use crate::{
    cell::{Cell, Next, Open, Rest, Script},
    table::{
        Fault::{Cut, Disabled, Gone, Killed, Moved, Removed, Revoked, Silent},
        Flow, Row, Speaks,
    },
};
use serde_json::{Value, json};
use testkit::Answer;

const MOMENTS: &[&str] = &["sent", "begun", "one word"];

pub(crate) const LISTEN_LEGACY: Flow =
    Flow { name: "listening, legacy", server: Speaks::Both, method: "GET", moments: MOMENTS, rows: ONE_LEGACY };

pub(crate) const LISTEN_MODERN: Flow = Flow {
    name: "listening, modern",
    server: Speaks::Both,
    method: "subscriptions/listen",
    moments: MOMENTS,
    rows: ONE_MODERN,
};

pub(crate) const ALL_LEGACY: Flow = Flow {
    name: "listening to all, legacy",
    server: Speaks::Both,
    method: "GET",
    moments: &["begun", "one word"],
    rows: MERGED_LEGACY,
};

pub(crate) const ALL_MODERN: Flow = Flow {
    name: "listening to all, modern",
    server: Speaks::Both,
    method: "subscriptions/listen",
    moments: &["begun", "one word"],
    rows: MERGED_MODERN,
};

pub(crate) const LISTEN_UPWARD: Flow = Flow {
    name: "listening over the bridge upward",
    server: Speaks::Modern,
    method: "GET",
    moments: MOMENTS,
    rows: UPWARD,
};

pub(crate) const LISTEN_DOWNWARD: Flow = Flow {
    name: "listening over the bridge downward",
    server: Speaks::Legacy,
    method: "subscriptions/listen",
    moments: MOMENTS,
    rows: DOWNWARD,
};

const ONE_LEGACY: &[Row] = &[
    Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
    Row(Killed, &["begun", "one word"], "the end", "faulted upstream-cut forward"),
    Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
    Row(Cut, &["begun", "one word"], "the end", "faulted upstream-cut forward"),
    Row(Silent, &[], "stays open", "answered"),
    Row(Gone, &[], "gone", "answered"),
    Row(Removed, &[], "the end", "refused denied authorize"),
    Row(Moved, &[], "the end", "answered"),
    Row(Revoked, &[], "the end", "answered"),
    Row(Disabled, &[], "the end", "answered"),
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
    Row(Removed, &[], "error -31001", "refused denied authorize"),
    Row(Moved, &[], "the end", "answered"),
    Row(Revoked, &[], "error -32600", "refused revoked authenticate"),
    Row(Disabled, &[], "error -32600", "refused revoked authenticate"),
];

// The stream is the gateway's: it lasts, and the servers that it is made of are listened to again.
const MERGED_LEGACY: &[Row] = &[
    Row(Killed, &[], "stays open", "answered"),
    Row(Cut, &[], "stays open", "answered"),
    Row(Silent, &[], "stays open", "answered"),
    Row(Gone, &[], "gone", "answered"),
    Row(Removed, &[], "stays open", "answered"),
    Row(Moved, &[], "stays open", "answered"),
    Row(Revoked, &[], "the end", "answered"),
    Row(Disabled, &[], "the end", "answered"),
];

const MERGED_MODERN: &[Row] = &[
    Row(Killed, &[], "stays open", "answered"),
    Row(Cut, &[], "stays open", "answered"),
    Row(Silent, &[], "stays open", "answered"),
    Row(Gone, &[], "gone", "answered"),
    Row(Removed, &[], "stays open", "answered"),
    Row(Moved, &[], "stays open", "answered"),
    Row(Revoked, &[], "error -32600", "refused revoked authenticate"),
    Row(Disabled, &[], "error -32600", "refused revoked authenticate"),
];

const UPWARD: &[Row] = &[
    Row(Killed, &[], "stays open", "answered"),
    Row(Cut, &[], "stays open", "answered"),
    Row(Silent, &[], "stays open", "answered"),
    Row(Gone, &[], "gone", "answered"),
    Row(Removed, &[], "the end", "refused denied authorize"),
    Row(Moved, &[], "stays open", "answered"),
    Row(Revoked, &[], "the end", "answered"),
    Row(Disabled, &[], "the end", "answered"),
];

const DOWNWARD: &[Row] = &[
    Row(Killed, &[], "stays open", "answered"),
    Row(Cut, &[], "stays open", "answered"),
    Row(Silent, &[], "stays open", "answered"),
    Row(Gone, &[], "gone", "answered"),
    Row(Removed, &[], "error -31001", "refused denied authorize"),
    Row(Moved, &[], "the answer", "answered"),
    Row(Revoked, &[], "error -32600", "refused revoked authenticate"),
    Row(Disabled, &[], "error -32600", "refused revoked authenticate"),
];

fn updated() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "file:///a"}})
}

fn wanted() -> Value {
    json!({"notifications": {"resourceSubscriptions": ["file:///a"]}})
}

/// Says this, and leaves the stream open.
fn says(word: Value) -> Box<dyn FnOnce(Option<Script>) -> Rest + Send> {
    Box::new(move |script| {
        Box::pin(async move {
            if let Some(mut script) = script {
                script.say(&word).await;
                script.stay().await;
            }
        })
    })
}

/// The server can be asked to tell of resources.
fn followed(cell: &Cell) {
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        cell.upstream().always(method, |request| Answer::result(&request.id(), &json!({})));
    }
}

pub(crate) async fn legacy(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let mut script = cell.script("GET", "text/event-stream");
    let agent = cell.legacy(door).await;
    let hearing = cell.sends(agent.to_listen(), Value::Null);
    cell.upstream().arrived("GET", 1).await;
    if moment != "sent" {
        script.begin();
        hearing.head().await;
    }
    if moment == "one word" {
        script.say(&news(1)).await;
        hearing.message(1).await;
    }
    Open { hearing, script: Some(script), rest: says(news(2)), next: Next::Nothing }
}

pub(crate) async fn modern(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let mut script = cell.script("subscriptions/listen", "text/event-stream");
    let agent = cell.modern(door);
    let hearing = cell.asks(&agent, 7, "subscriptions/listen", wanted());
    let id = cell.upstream().arrived("subscriptions/listen", 1).await.id();
    let told = |mut message: Value| {
        message["params"]["_meta"] = json!({"io.modelcontextprotocol/subscriptionId": id});
        message
    };
    if moment != "sent" {
        let params = wanted();
        let begun = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params});
        script.say(&told(begun)).await;
        hearing.message(1).await;
    }
    if moment == "one word" {
        script.say(&told(updated())).await;
        hearing.message(2).await;
    }
    Open { hearing, script: Some(script), rest: says(told(updated())), next: Next::Nothing }
}

/// A legacy client that listens to a modern server: the stream is the gateway's.
pub(crate) async fn upward(cell: &mut Cell, moment: &str) -> Open {
    let mut script = cell.script("subscriptions/listen", "text/event-stream");
    let door = cell.door();
    let agent = cell.legacy(&door).await;
    let params = json!({"uri": "file:///a"});
    let subscribed = cell.asks(&agent, 6, "resources/subscribe", params);
    subscribed.answer().await;
    cell.knows(&subscribed);
    let hearing = cell.sends(agent.to_listen(), Value::Null);
    cell.upstream().arrived("subscriptions/listen", 1).await;
    if moment != "sent" {
        script.begin();
        hearing.head().await;
    }
    if moment == "one word" {
        script.say(&updated()).await;
        hearing.message(1).await;
    }
    Open { hearing, script: Some(script), rest: says(updated()), next: Next::Nothing }
}

/// A modern client that listens to a legacy server: the session is the gateway's.
pub(crate) async fn downward(cell: &mut Cell, moment: &str) -> Open {
    followed(cell);
    let mut script = cell.script("GET", "text/event-stream");
    let agent = cell.modern(&cell.door());
    let hearing = cell.asks(&agent, 7, "subscriptions/listen", wanted());
    hearing.message(1).await;
    cell.upstream().arrived("GET", 1).await;
    if moment != "sent" {
        script.begin();
    }
    if moment == "one word" {
        script.say(&updated()).await;
        hearing.message(2).await;
    }
    Open { hearing, script: Some(script), rest: says(updated()), next: Next::Nothing }
}
