//! A server's session ends before the client's: what the client asked for and lasts is asked for again, and heard.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use http::StatusCode;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use testkit::{Agent, Answer, Ask, Feed, LEGACY, Reply, Upstream, soon};

/// A legacy server that takes subscriptions and levels.
async fn server() -> Upstream {
    let upstream = Upstream::start().await;
    for method in ["resources/subscribe", "resources/unsubscribe", "logging/setLevel"] {
        upstream.always(method, |request| Answer::result(&request.id(), &json!({})));
    }
    upstream
}

/// What many servers say while they start or stop.
fn busy() -> Answer {
    Answer::error(&Value::Null, -32603, "try again").with_status(StatusCode::SERVICE_UNAVAILABLE)
}

fn stream(upstream: &Upstream) -> Feed {
    let (events, feed) = Answer::events();
    upstream.next("GET", events);
    feed
}

async fn told(listener: &mut Reply) -> Value {
    soon(listener.event()).await.unwrap().json()
}

async fn update(feed: &Feed, uri: &str) {
    feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}})).await;
}

async fn ok(agent: &Agent, method: &str, params: Value) {
    let answer = agent.request(method, params).await.json().await;
    assert!(answer["result"].is_object(), "{method}: {answer}");
}

#[tokio::test]
async fn what_a_session_asked_for_is_asked_for_again_when_its_server_forgot_it() {
    let upstream = server().await;
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let feed = stream(&upstream);
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let mut listener = alice.listen().await;
    for file in ["a", "b"] {
        ok(&alice, "resources/subscribe", json!({"uri": format!("durward://files/file:///{file}")})).await;
    }
    ok(&alice, "resources/unsubscribe", json!({"uri": "durward://files/file:///b"})).await;
    ok(&alice, "logging/setLevel", json!({"level": "warning"})).await;
    let first = upstream.arrived("resources/subscribe", 2).await;
    // The server begins anew: it knows the session no longer, says so as many do, and its stream is gone. Nobody calls.
    upstream.next("GET", Answer::status(StatusCode::BAD_REQUEST)).next("ping", Answer::status(StatusCode::NOT_FOUND));
    // It has no time for one of them at first.
    upstream.next("resources/subscribe", busy());
    let again = stream(&upstream);
    feed.cut().await;
    let followed = upstream.arrived("resources/subscribe", 4).await;
    assert_eq!(followed.json()["params"], json!({"uri": "file:///a"}), "what was given up is not asked for");
    assert_ne!(followed.header("mcp-session-id"), first.header("mcp-session-id"));
    let level = upstream.arrived("logging/setLevel", 2).await;
    assert_eq!(level.json()["params"], json!({"level": "warning"}));
    update(&again, "file:///a").await;
    assert_eq!(told(&mut listener).await["params"]["uri"], "durward://files/file:///a");
}

#[tokio::test]
async fn a_server_that_hangs_holds_up_neither_the_level_of_the_others_nor_the_client() {
    let (hangs, other) = (server().await, server().await);
    hangs.always("logging/setLevel", |_| Answer::hang());
    let servers = vec![("a", hangs.url()), ("b", hangs.url()), ("z", other.url())];
    let inside = Inside::start(Plan { servers, era: EraSettings::Legacy, ..Plan::of(&hangs) }).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    for tool in ["a__echo", "b__echo", "z__echo"] {
        ok(&alice, "tools/call", json!({"name": tool, "arguments": {}})).await;
    }
    soon(ok(&alice, "logging/setLevel", json!({"level": "warning"}))).await;
    assert_eq!(other.seen("logging/setLevel").len(), 1);
    assert_eq!(hangs.seen("logging/setLevel").len(), 2);
}

#[tokio::test]
async fn what_may_not_be_followed_any_more_is_not_asked_for_again() {
    let upstream = server().await;
    let plan = |denied: &str| {
        let rules = json!([
            {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
            {"id": "no", "action": "resource.subscribe", "target": denied, "effect": "deny"},
        ]);
        Plan { policy: json!({"policy": "test", "rules": rules}), era: EraSettings::Legacy, ..Plan::of(&upstream) }
    };
    let inside = Inside::start(plan("none/*")).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    for file in ["a", "b"] {
        ok(&alice, "resources/subscribe", json!({"uri": format!("durward://files/file:///{file}")})).await;
    }
    inside.swap(plan("files/file:///a"));
    let lost = Answer::status(StatusCode::NOT_FOUND);
    upstream.next("tools/list", lost);
    alice.tools().await;
    let followed = upstream.arrived("resources/subscribe", 3).await;
    assert_eq!(followed.json()["params"]["uri"], "file:///b");
    assert_eq!(upstream.seen("resources/subscribe").len(), 3);
}

#[tokio::test]
async fn what_is_given_up_while_it_is_asked_for_again_is_taken_back_until_the_server_knows() {
    let upstream = server().await;
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let uri = json!({"uri": "durward://files/file:///a"});
    ok(&alice, "resources/subscribe", uri.clone()).await;
    let (answer, release) = Answer::result(&json!("any"), &json!({})).held();
    upstream.next("tools/list", Answer::status(StatusCode::NOT_FOUND)).next("resources/subscribe", answer);
    alice.tools().await;
    upstream.arrived("resources/subscribe", 2).await;
    ok(&alice, "resources/unsubscribe", uri).await;
    upstream.next("resources/unsubscribe", busy());
    release.send(()).unwrap();
    let taken_back = upstream.arrived("resources/unsubscribe", 3).await;
    assert_eq!(taken_back.json()["params"], json!({"uri": "file:///a"}));
    assert_eq!(upstream.seen("resources/subscribe").len(), 2, "it is not asked for again");
}

#[tokio::test]
async fn a_server_that_has_no_listening_stream_keeps_its_session() {
    let upstream = server().await;
    upstream.always("GET", |_| Answer::status(StatusCode::NOT_FOUND));
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let _listener = alice.listen().await;
    alice.tools().await;
    upstream.arrived("ping", 1).await;
    let session = |name: &str| upstream.seen(name).last().unwrap().header("mcp-session-id").map(str::to_owned);
    let asked = session("ping");
    alice.call("files__echo", json!({})).await;
    assert_eq!(session("tools/call"), asked);
}

#[tokio::test]
async fn a_server_that_knows_neither_its_stream_nor_pings_keeps_the_next_session() {
    let upstream = server().await;
    for name in ["GET", "ping"] {
        upstream.always(name, |_| Answer::status(StatusCode::BAD_REQUEST));
    }
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let _listener = alice.listen().await;
    // Each of two sessions is asked twice: before it is used, and where it is listened to.
    upstream.arrived("ping", 4).await;
    let call = async || {
        ok(&alice, "tools/call", json!({"name": "files__echo", "arguments": {}})).await;
        upstream.seen("tools/call").pop().unwrap().header("mcp-session-id").unwrap().to_owned()
    };
    // The last word to the last ping may still be on its way.
    let mut turns = tokio::time::interval(std::time::Duration::from_millis(50));
    for _ in 0..4 {
        call().await;
        turns.tick().await;
    }
    let session = call().await;
    for _ in 0..4 {
        turns.tick().await;
        assert_eq!(call().await, session);
    }
    assert_eq!(upstream.seen("GET").len(), 4);
}

#[tokio::test]
async fn a_refusal_that_names_no_request_says_nothing_of_the_session() {
    let upstream = server().await;
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let refusal = || Answer::error(&Value::Null, -32600, "not read").with_status(StatusCode::BAD_REQUEST);
    // What the server says to a ping in it does.
    for (ping, keeps) in
        [(None, true), (Some(StatusCode::SERVICE_UNAVAILABLE), true), (Some(StatusCode::BAD_REQUEST), false)]
    {
        upstream.next("tools/call", refusal());
        if let Some(status) = ping {
            upstream.next("ping", Answer::status(status));
        }
        let before = upstream.seen("tools/call").len();
        let refused = alice.call("files__echo", json!({})).await;
        assert_eq!(refused["error"]["code"], -31006, "{refused}");
        ok(&alice, "tools/call", json!({"name": "files__echo", "arguments": {}})).await;
        let calls = upstream.seen("tools/call").split_off(before);
        let same = calls[0].header("mcp-session-id") == calls[1].header("mcp-session-id");
        assert_eq!(same, keeps, "{ping:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_busy_when_it_is_listened_to_is_asked_again() {
    for era in [EraSettings::Legacy, EraSettings::Modern] {
        let upstream = server().await;
        let method = if era == EraSettings::Legacy { "GET" } else { "subscriptions/listen" };
        let inside = Inside::start(Plan { era, ..Plan::of(&upstream) }).await;
        // The second is what the official SDKs say of a stream that broke on one side only.
        for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::CONFLICT] {
            upstream.next(method, Answer::status(status));
        }
        let (events, feed) = Answer::events();
        upstream.next(method, events);
        let mut listener = if era == EraSettings::Legacy {
            let alice = inside.legacy("/mcp", &inside.alice).await;
            let listener = alice.listen().await;
            alice.tools().await;
            listener
        } else {
            let wanted = json!({"notifications": {"toolsListChanged": true}});
            let mut listener = inside.modern("/mcp", &inside.alice).request("subscriptions/listen", wanted).await;
            assert_eq!(told(&mut listener).await["method"], "notifications/subscriptions/acknowledged");
            listener
        };
        let heard = upstream.arrived(method, 3).await;
        let params =
            json!({"_meta": {"io.modelcontextprotocol/subscriptionId": heard.id()}, "level": "info", "data": 1});
        feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params})).await;
        assert_eq!(told(&mut listener).await["params"]["data"], 1, "{era:?}");
    }
}

#[tokio::test]
async fn a_listening_stream_goes_on_where_it_broke() {
    let upstream = server().await;
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let feed = stream(&upstream);
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let mut listener = alice.listen().await;
    alice.tools().await;
    upstream.arrived("GET", 1).await;
    let said = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}});
    feed.raw(format!("id: seven\ndata: {said}\n\n")).await;
    assert_eq!(told(&mut listener).await["params"]["data"], 1);
    let _rest = stream(&upstream);
    feed.cut().await;
    assert_eq!(upstream.arrived("GET", 2).await.header("last-event-id"), Some("seven"));
}

#[tokio::test]
async fn who_listens_on_the_aggregate_gets_the_rest_of_a_stream_of_a_server_from_there() {
    let upstream = server().await;
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let _feed = stream(&upstream);
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let _listener = alice.listen().await;
    alice.tools().await;
    upstream.arrived("GET", 1).await;
    let resume = async || {
        let rest = Ask::get(&inside.url("/mcp")).bearer(&inside.alice).header("accept", "text/event-stream");
        let rest = rest.header("mcp-session-id", alice.session().unwrap()).header("mcp-protocol-version", LEGACY);
        rest.header("last-event-id", "files/7").send().await
    };
    upstream.next("GET", Answer::event_text("id: 8\ndata: {\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}\n\n"));
    let mut rest = resume().await;
    let event = soon(rest.event()).await.unwrap();
    assert_eq!(event.id.as_deref(), Some("files/8"), "{event:?}");
    assert_eq!(upstream.arrived("GET", 2).await.header("last-event-id"), Some("7"));
    upstream.next("GET", Answer::status(StatusCode::NOT_FOUND));
    let refused = resume().await;
    assert_eq!(refused.status, 400, "as for an event that nobody knows");
    let told = refused.json().await;
    assert!(told["error"]["message"].as_str().unwrap().contains("Last-Event-ID"), "{told}");
}

#[tokio::test]
async fn what_no_server_tells_of_is_not_acknowledged() {
    let modern = Upstream::start().await;
    modern.always("subscriptions/listen", |request| {
        let key = "io.modelcontextprotocol/subscriptionId";
        let params = json!({"_meta": {key: request.id()}, "notifications": {"resourceSubscriptions": ["file:///a"]}});
        let said = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params});
        let (events, feed) = Answer::events();
        tokio::spawn(async move {
            feed.message(&said).await;
            feed.closed().await;
        });
        events
    });
    let deaf = Upstream::start().await;
    deaf.always("subscriptions/listen", |request| Answer::error(&request.id(), -32601, "no"));
    let servers = vec![("files", modern.url()), ("deaf", deaf.url())];
    let inside = Inside::start(Plan { servers, era: EraSettings::Modern, ..Plan::of(&modern) }).await;
    let uris = ["durward://files/file:///a", "durward://files/file:///b", "durward://deaf/file:///c"];
    let wanted = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": uris}});
    let mut listener = inside.modern("/mcp", &inside.alice).request("subscriptions/listen", wanted).await;
    let acknowledged = told(&mut listener).await;
    let expected = json!({"toolsListChanged": true, "resourceSubscriptions": [uris[0]]});
    assert_eq!(acknowledged["params"]["notifications"], expected, "{acknowledged}");
}

#[tokio::test]
async fn a_session_speaks_the_revision_that_was_agreed() {
    for is_stream in [false, true] {
        let upstream = server().await;
        upstream.always("initialize", move |request| {
            let result = json!({
                "protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                "serverInfo": {"name": "old", "version": "1"},
            });
            let message = json!({"jsonrpc": "2.0", "id": request.id(), "result": result});
            let answer = if is_stream {
                Answer::event_text(format!("data: {message}\n\n"))
            } else {
                Answer::json(message.to_string())
            };
            answer.header("mcp-session-id", "s")
        });
        let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
        // It asks for 2025-11-25.
        let _alice = inside.legacy("/mcp/files", &inside.alice).await;
        let sessions = inside.state.sessions.every(|_| true);
        assert_eq!(sessions[0].revision(), mcp::Revision::V2025_06_18);
        inside.state.end_sessions(|_| true);
        let ended = upstream.arrived("DELETE", 1).await;
        assert_eq!(ended.header("mcp-protocol-version"), Some("2025-06-18"), "stream: {is_stream}");
    }
}
