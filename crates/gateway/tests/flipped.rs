//! A server that comes back in the other era, or to which no bridge leads any more, while clients listen to it.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use http::StatusCode;
use inside::{Inside, Plan};
use mcp::Era;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use testkit::{Agent, Answer, Feed, Received, Reply, Upstream, soon};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
/// Longer than a server is left alone whose stream broke off.
const AGAIN: Duration = Duration::from_millis(2500);
/// A door, and a resource as it is named there.
const DOORS: [(&str, &str); 2] = [("/mcp/files", "file:///a"), ("/mcp", "durward://files/file:///a")];

/// A server that can become one of the other era. Streams that it left behind stay open, as behind a proxy.
struct Turning {
    upstream: Upstream,
    /// The newest stream, and the subscription that it is of.
    newest: Arc<Mutex<Option<(Feed, Value)>>>,
    /// Those before.
    left: Arc<Mutex<Vec<(Feed, Value)>>>,
}

fn refused(received: &Received, code: i64) -> Answer {
    Answer::error(&received.id(), code, "no").with_status(StatusCode::BAD_REQUEST)
}

impl Turning {
    async fn start() -> Self {
        Self { upstream: Upstream::start().await, newest: Arc::default(), left: Arc::default() }
    }

    /// What opens a stream.
    fn opens(&self, method: &str, begins: bool) {
        let (newest, left) = (Arc::clone(&self.newest), Arc::clone(&self.left));
        self.upstream.always(method, move |received| {
            let (answer, feed) = Answer::events();
            let id = received.id();
            if begins {
                let (feed, meta) = (feed.clone(), json!({SUBSCRIPTION: id}));
                let params = json!({"_meta": meta, "notifications": received.json()["params"]["notifications"]});
                tokio::spawn(async move {
                    feed.message(&json!({"jsonrpc": "2.0", "method": ACKNOWLEDGED, "params": params})).await
                });
            }
            left.lock().unwrap().extend(newest.lock().unwrap().replace((feed, id)));
            answer
        });
    }

    fn becomes(&self, era: Era, has_stream: bool) {
        left(&self.newest, &self.left);
        let upstream = &self.upstream;
        match era {
            Era::Legacy => {
                upstream.honestly("initialize").honestly("GET");
                upstream.always("resources/subscribe", |received| Answer::result(&received.id(), &json!({})));
                upstream.always("resources/unsubscribe", |received| Answer::result(&received.id(), &json!({})));
                for method in ["server/discover", "subscriptions/listen"] {
                    upstream.always(method, |received| refused(received, -32000));
                }
                if has_stream {
                    self.opens("GET", false);
                }
            }
            Era::Modern => {
                upstream.honestly("server/discover").honestly("GET");
                for method in ["initialize", "resources/subscribe", "ping"] {
                    upstream.always(method, |received| refused(received, -32022));
                }
                self.opens("subscriptions/listen", true);
            }
        }
    }

    /// Says on the newest stream that the resource has changed, once there is one.
    async fn tell(&self) {
        let mut turns = tokio::time::interval(Duration::from_millis(5));
        soon(async {
            loop {
                turns.tick().await;
                let newest = self.newest.lock().unwrap().clone();
                let Some((feed, id)) = newest else { continue };
                let mut params = json!({"uri": "file:///a"});
                if !id.is_null() {
                    params["_meta"] = json!({SUBSCRIPTION: id});
                }
                let update = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params});
                if feed.message(&update).await {
                    return;
                }
            }
        })
        .await;
    }
}

fn left(newest: &Mutex<Option<(Feed, Value)>>, left: &Mutex<Vec<(Feed, Value)>>) {
    left.lock().unwrap().extend(newest.lock().unwrap().take());
}

async fn look(inside: &Inside, era: Era) {
    let server = inside.state.line().servers().next().cloned().unwrap();
    inside.state.line().look(&server).await;
    assert_eq!(
        [Era::Legacy, Era::Modern].map(|asked| server.speaks(asked)),
        [era == Era::Legacy, era == Era::Modern].map(Some)
    );
}

async fn started(server: &Turning, era: Era, has_stream: bool) -> Inside {
    server.becomes(era, has_stream);
    let inside = Inside::start(Plan { probed: true, ..Plan::of(&server.upstream) }).await;
    look(&inside, era).await;
    inside
}

async fn listen(agent: &Agent, uri: &str) -> Reply {
    let wanted = json!({"toolsListChanged": true, "resourceSubscriptions": [uri]});
    let mut listener = agent.request("subscriptions/listen", json!({"notifications": wanted})).await;
    assert_eq!(soon(listener.event()).await.unwrap().json()["method"], ACKNOWLEDGED);
    listener
}

async fn subscribe(agent: &Agent, uri: &str) {
    let answer = soon(agent.request("resources/subscribe", json!({"uri": uri}))).await.json().await;
    assert!(answer["result"].is_object(), "{answer}");
}

/// Waits for the word that the resource has changed.
async fn told(listener: &mut Reply, uri: &str) {
    soon(async { while listener.event().await.unwrap().json()["params"]["uri"] != uri {} }).await;
}

/// The last word of a stream that ends.
async fn last(listener: &mut Reply) -> Value {
    let mut last = Value::Null;
    while let Some(event) = soon(listener.event()).await {
        last = event.json();
    }
    last
}

const fn other(era: Era) -> Era {
    match era {
        Era::Legacy => Era::Modern,
        Era::Modern => Era::Legacy,
    }
}

#[tokio::test]
async fn a_modern_listener_hears_a_server_that_comes_back_in_the_other_era() {
    for (door, uri) in DOORS {
        for (era, has_stream) in [(Era::Legacy, true), (Era::Legacy, false), (Era::Modern, true)] {
            let server = Turning::start().await;
            let inside = started(&server, era, has_stream).await;
            let alice = inside.modern(door, &inside.alice);
            let mut listener = listen(&alice, uri).await;
            if has_stream {
                server.tell().await;
                told(&mut listener, uri).await;
            }
            server.becomes(other(era), true);
            look(&inside, other(era)).await;
            if door != "/mcp" {
                // It is told to listen again, and finds the server as it is.
                assert_eq!(last(&mut listener).await["result"]["resultType"], "complete", "{era:?}");
                listener = listen(&alice, uri).await;
            }
            server.tell().await;
            told(&mut listener, uri).await;
            if era == Era::Legacy {
                // A session that leads nowhere is not kept.
                legs_end(&inside).await;
            }
        }
    }
}

#[tokio::test]
async fn a_legacy_listener_hears_a_server_that_comes_back_in_the_other_era() {
    for (door, uri) in DOORS {
        for (era, has_stream) in [(Era::Modern, true), (Era::Legacy, true), (Era::Legacy, false)] {
            let server = Turning::start().await;
            let inside = started(&server, era, has_stream).await;
            let alice = inside.legacy(door, &inside.alice).await;
            let mut listener = alice.listen().await;
            subscribe(&alice, uri).await;
            if has_stream {
                server.tell().await;
                told(&mut listener, uri).await;
            }
            for (now, has_stream) in [(other(era), true), (era, has_stream)] {
                server.becomes(now, has_stream);
                look(&inside, now).await;
                if door != "/mcp" && era == Era::Legacy && now == Era::Modern {
                    // What passed through ends, or never was.
                    last(&mut listener).await;
                    listener = alice.listen().await;
                }
                subscribe(&alice, uri).await;
                if has_stream {
                    server.tell().await;
                    told(&mut listener, uri).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_has_no_stream_any_more_is_looked_at() {
    for (door, uri) in DOORS {
        let server = Turning::start().await;
        let inside = started(&server, Era::Legacy, true).await;
        let mut modern = listen(&inside.modern(door, &inside.alice), uri).await;
        server.tell().await;
        told(&mut modern, uri).await;
        // Its old streams end, and nobody calls it.
        server.becomes(Era::Modern, true);
        let streams = std::mem::take(&mut *server.left.lock().unwrap());
        for (feed, _) in streams {
            feed.cut().await;
        }
        if door == "/mcp" {
            server.tell().await;
            told(&mut modern, uri).await;
        } else {
            assert_eq!(last(&mut modern).await["result"]["resultType"], "complete");
        }
    }
}

#[tokio::test]
async fn a_bridge_that_a_reload_takes_away_ends_what_went_over_it() {
    for (door, uri) in DOORS {
        for era in [Era::Legacy, Era::Modern] {
            let server = Turning::start().await;
            let inside = started(&server, era, true).await;
            let plan = |bridged| Plan { probed: true, bridged, ..Plan::of(&server.upstream) };
            let (agent, mut listener) = if era == Era::Legacy {
                let agent = inside.modern(door, &inside.alice);
                let listener = listen(&agent, uri).await;
                (agent, listener)
            } else {
                let agent = inside.legacy(door, &inside.alice).await;
                let listener = agent.listen().await;
                subscribe(&agent, uri).await;
                (agent, listener)
            };
            server.tell().await;
            told(&mut listener, uri).await;
            let (feed, _) = server.newest.lock().unwrap().clone().unwrap();
            let waits = if era == Era::Legacy { Some(parked(&server.upstream, &agent, door).await) } else { None };
            inside.swap(plan(false));
            inside.state.sweep();
            soon(feed.closed()).await;
            if door != "/mcp" {
                last(&mut listener).await;
            }
            if let Some(call) = waits {
                let told = server.upstream.arrived("notifications/cancelled", 1).await.json();
                assert_eq!(told["params"]["requestId"], call);
                assert_eq!(inside.state.parked_count(), 0);
                legs_end(&inside).await;
                server.upstream.arrived("DELETE", 2).await;
            }
            // The server is left alone.
            let asked = ["GET", "initialize", "subscriptions/listen"].map(|method| server.upstream.seen(method).len());
            tokio::time::sleep(AGAIN).await;
            let now = ["GET", "initialize", "subscriptions/listen"].map(|method| server.upstream.seen(method).len());
            assert_eq!(now, asked, "{door} {era:?}");
            // And it is there again.
            inside.swap(plan(true));
            if door != "/mcp" {
                listener = if era == Era::Legacy { listen(&agent, uri).await } else { agent.listen().await };
            }
            let (wanted, before) =
                if era == Era::Legacy { ("GET", asked[0]) } else { ("subscriptions/listen", asked[2]) };
            server.upstream.arrived(wanted, before + 1).await;
            server.tell().await;
            told(&mut listener, uri).await;
        }
    }
}

/// A call that waits for its client. Gives the id that the server knows.
async fn parked(upstream: &Upstream, agent: &Agent, door: &str) -> Value {
    let (events, feed) = Answer::events();
    upstream.next("tools/call", events);
    let tool = if door == "/mcp" { "files__echo" } else { "echo" };
    let mut reply = agent.request("tools/call", json!({"name": tool, "arguments": {}})).await;
    let params = json!({"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}});
    feed.message(&json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": params})).await;
    let asked = soon(reply.event()).await.unwrap().json();
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    upstream.seen("tools/call").pop().unwrap().id()
}

/// Waits until no session with the server is left.
async fn legs_end(inside: &Inside) {
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    soon(async {
        while inside.state.leg_count() > 0 {
            turns.tick().await;
            inside.state.sweep();
        }
    })
    .await;
}
