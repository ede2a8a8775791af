//! Whoever listens: by GET and by `subscriptions/listen`, to one server and to all, in one era and over either bridge.

use super::news;
use crate::{
    cell::{Again, Cell, Open, Rest, Server},
    script::Script,
    table::{
        Client, Door,
        Fault::{Cut, Disabled, Gone, Killed, Moved, Removed, Revoked, Silent},
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
    Row(Revoked, &[], "the end", "refused revoked authenticate"),
    Row(Disabled, &[], "the end", "refused revoked authenticate"),
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
    Row(Moved, &[], "the answer", "answered"),
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
    Row(Revoked, &[], "the end", "refused revoked authenticate"),
    Row(Disabled, &[], "the end", "refused revoked authenticate"),
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
    Row(Revoked, &[], "the end", "refused revoked authenticate"),
    Row(Disabled, &[], "the end", "refused revoked authenticate"),
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

/// The resource as it is called at this door.
fn address(cell: &Cell, door: &str) -> String {
    if door == "/mcp" { format!("durward://{}/file:///a", cell.name) } else { "file:///a".to_owned() }
}

/// Says this, and leaves the stream open.
pub(super) fn says(word: Value) -> Box<dyn FnOnce(Option<Script>) -> Rest + Send> {
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
fn followed(upstream: &Upstream) {
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        upstream.always(method, |request| Answer::result(&request.id(), &json!({})));
    }
}

/// Whoever listens to a server of sessions hears this at once.
fn greets(upstream: &Upstream, word: fn() -> Value) {
    followed(upstream);
    upstream.always("GET", move |_| {
        let (answer, feed) = Answer::events();
        tokio::spawn(says(word())(Some(Script::of_stream(feed))));
        answer
    });
}

/// Whoever listens to a server without sessions is told so, and hears of a resource at once.
fn greets_modern(upstream: &Upstream) {
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

pub(super) const AGAIN_LEGACY: Again =
    Again { prepare: |upstream| greets(upstream, || news(99)), word: "notifications/message" };
const AGAIN_DOWNWARD: Again =
    Again { prepare: |upstream| greets(upstream, updated), word: "notifications/resources/updated" };
const AGAIN_MODERN: Again = Again { prepare: greets_modern, word: "notifications/resources/updated" };

fn acknowledged() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": wanted()})
}

/// A message of the stream that was asked for with this id.
fn told(id: &Value, mut message: Value) -> Value {
    message["params"]["_meta"] = json!({"io.modelcontextprotocol/subscriptionId": id});
    message
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
    Open { again: Some(AGAIN_LEGACY), ..Open::new(hearing, Some(script), says(news(2))) }
}

/// A client that hears what its process says.
pub(crate) async fn process(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let agent = cell.legacy(door).await;
    let hearing = cell.sends(agent.to_listen(), Value::Null);
    hearing.head().await;
    let Server::Process(processes) = &cell.server else { panic!("it is no process") };
    let mut script = Script::of_process(processes.newest());
    if moment == "one word" {
        script.say(&news(1)).await;
        hearing.message(1).await;
    }
    let rest = |script: Option<Script>| {
        Box::pin(async move {
            if let Some(mut script) = script {
                script.say(&news(2)).await;
            }
        }) as Rest
    };
    Open::new(hearing, Some(script), Box::new(rest))
}

pub(crate) async fn modern(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let mut script = cell.script("subscriptions/listen", "text/event-stream");
    let agent = cell.modern(door);
    let hearing = cell.asks(&agent, 7, "subscriptions/listen", wanted());
    let id = cell.upstream().arrived("subscriptions/listen", 1).await.id();
    if moment != "sent" {
        script.say(&told(&id, acknowledged())).await;
        hearing.message(1).await;
    }
    if moment == "one word" {
        script.say(&told(&id, updated())).await;
        hearing.message(2).await;
    }
    Open { again: Some(AGAIN_MODERN), ..Open::new(hearing, Some(script), says(told(&id, updated()))) }
}

/// A legacy client that listens to a modern server: the stream is the gateway's.
pub(crate) async fn upward(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let mut script = cell.script("subscriptions/listen", "text/event-stream");
    let agent = cell.legacy(door).await;
    let params = json!({"uri": address(cell, door)});
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
    Open { again: Some(AGAIN_MODERN), ..Open::new(hearing, Some(script), says(updated())) }
}

/// A modern client that listens to a legacy server: the session is the gateway's.
pub(crate) async fn downward(cell: &mut Cell, door: &str, moment: &str) -> Open {
    followed(&cell.upstream());
    let wanted = json!({"notifications": {"resourceSubscriptions": [address(cell, door)]}});
    let mut script = cell.script("GET", "text/event-stream");
    let agent = cell.modern(door);
    let hearing = cell.asks(&agent, 7, "subscriptions/listen", wanted);
    hearing.message(1).await;
    cell.upstream().arrived("GET", 1).await;
    if moment != "sent" {
        script.begin();
    }
    if moment == "one word" {
        script.say(&updated()).await;
        hearing.message(2).await;
    }
    Open { again: Some(AGAIN_DOWNWARD), ..Open::new(hearing, Some(script), says(updated())) }
}
