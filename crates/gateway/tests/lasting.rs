//! Servers of the transport of 2024-11-05: a stream that lasts, and POSTs beside it.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use audit::Tree;
use gateway::settings::{Bounds, CredentialSettings, EraSettings, Place};
use http::StatusCode;
use identity::{ClaimPath, IssuerSetting, JwksSource};
use inside::{Inside, Plan, outcome, told};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use testkit::{Answer, Ask, Feed, Issuer, Kind, Received, Streamer, Upstream, soon};
use vocab::IssuerName;

/// The streams of a server by number, as long as they are open.
type Streams = Arc<Mutex<Vec<Option<Feed>>>>;

/// A server that names `endpoint` with a session on its streams, and says there what it would otherwise answer.
async fn server(endpoint: &str) -> (Upstream, Streams) {
    let upstream = Upstream::start().await;
    let streams = goes_back(&upstream, endpoint);
    (upstream, streams)
}

/// From now on it is such a server.
fn goes_back(upstream: &Upstream, endpoint: &str) -> Streams {
    upstream.speaks("2024-11-05");
    let (streams, endpoint) = (Streams::default(), endpoint.to_owned());
    let opened = Arc::clone(&streams);
    upstream.always("GET", move |_| {
        let (answer, feed) = Answer::events();
        let mut opened = opened.lock().unwrap();
        let said = format!("event: endpoint\ndata: {endpoint}?sessionId={}\n\n", opened.len());
        opened.push(Some(feed.clone()));
        tokio::spawn(async move { feed.raw(said).await });
        answer
    });
    for method in ["initialize", "tools/list", "ping"] {
        say(upstream, &streams, method, |received| {
            let result = match received.name().as_str() {
                "initialize" => json!({
                    "protocolVersion": "2024-11-05", "capabilities": {"tools": {"listChanged": true}},
                    "serverInfo": {"name": "old", "version": "1"},
                }),
                "tools/list" => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
                _ => json!({}),
            };
            vec![json!({"jsonrpc": "2.0", "id": received.id(), "result": result})]
        });
    }
    for method in ["notifications/initialized", "notifications/cancelled", "response"] {
        say(upstream, &streams, method, |_| Vec::new());
    }
    say(upstream, &streams, "tools/call", |received| vec![answer_to(received)]);
    upstream.always("server/discover", |_| Answer::status(StatusCode::NOT_FOUND));
    streams
}

fn answer_to(received: &Received) -> Value {
    let arguments = received.json()["params"]["arguments"].to_string();
    json!({"jsonrpc": "2.0", "id": received.id(), "result": {"content": [{"type": "text", "text": arguments}]}})
}

/// What the server says to each request of this name, on the stream that its address names.
fn say(
    upstream: &Upstream,
    streams: &Streams,
    name: &str,
    what: impl Fn(&Received) -> Vec<Value> + Send + Sync + 'static,
) {
    let streams = Arc::clone(streams);
    upstream.always(name, move |received| {
        let Some((_, session)) = received.path.split_once("sessionId=") else {
            return Answer::status(StatusCode::METHOD_NOT_ALLOWED);
        };
        let number: usize = session.split('&').next().unwrap().parse().unwrap();
        let Some(feed) = streams.lock().unwrap()[number].clone() else {
            return Answer::status(StatusCode::NOT_FOUND);
        };
        let said = what(received);
        tokio::spawn(async move {
            for message in said {
                feed.message(&message).await;
            }
        });
        Answer::status(StatusCode::ACCEPTED)
    });
}

fn old(upstream: &Upstream) -> Plan {
    Plan { lasting: true, ..Plan::of(upstream) }
}

fn unknown(upstream: &Upstream) -> Plan {
    Plan { probed: true, ..Plan::of(upstream) }
}

#[tokio::test]
async fn every_client_uses_a_server_of_2024_told_or_found_out() {
    for plan in [old, unknown] {
        for path in ["/mcp/files", "/mcp"] {
            let (upstream, _streams) = server("/messages").await;
            let inside = Inside::start(plan(&upstream)).await;
            let tool = if path == "/mcp" { "files__echo" } else { "echo" };
            let alice = inside.legacy(path, &inside.alice).await;
            assert_eq!(alice.tools().await, [tool]);
            let answer = alice.call(tool, json!({"n": 1})).await;
            assert_eq!(answer["result"]["content"][0]["text"], r#"{"n":1}"#, "{answer}");
            let modern = inside.modern(path, &inside.alice);
            let answer = modern.call(tool, json!({"n": 2})).await;
            assert_eq!(answer["result"]["content"][0]["text"], r#"{"n":2}"#, "{answer}");
            assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
            let old = if path == "/mcp" { "/sse" } else { "/sse/files" };
            let mut bob = Streamer::begin(&inside.url(old), Some(&inside.bob)).await.0;
            let answer = bob.request("tools/call", json!({"name": tool, "arguments": {"n": 3}})).await;
            assert_eq!(answer["result"]["content"][0]["text"], r#"{"n":3}"#, "{answer}");
            let called = upstream.seen("tools/call");
            assert!(called.iter().all(|seen| seen.path.starts_with("/messages?sessionId=")), "{called:?}");
        }
    }
}

#[tokio::test]
async fn whatever_an_old_server_says_before_it_names_its_address_is_passed_over() {
    for before in [
        "event: ping\ndata: 1\n\n",
        ": hello\n\nretry: 100\n\n",
        "event: endpoints\nid: 1\ndata: /elsewhere\n\n",
        "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}\n\n",
    ] {
        let (upstream, streams) = server("/messages").await;
        upstream.always("GET", move |_| {
            let (answer, feed) = Answer::events();
            let mut opened = streams.lock().unwrap();
            let said = format!("{before}event: endpoint\ndata: /messages?sessionId={}\n\n", opened.len());
            opened.push(Some(feed.clone()));
            tokio::spawn(async move { feed.raw(said).await });
            answer
        });
        let inside = Inside::start(old(&upstream)).await;
        let alice = inside.legacy("/mcp/files", &inside.alice).await;
        let answer = alice.call("echo", json!({"n": 1})).await;
        assert_eq!(answer["result"]["content"][0]["text"], r#"{"n":1}"#, "{before}: {answer}");
    }
}

#[tokio::test]
async fn a_call_on_a_server_of_2024_whose_stream_is_cut_is_taken_up_again() {
    for (plan, path, tool, agreed) in [
        (old as fn(&Upstream) -> Plan, "/mcp/files", "echo", "2024-11-05"),
        (unknown, "/mcp/files", "echo", "2024-11-05"),
        (old, "/mcp", "files__echo", testkit::LEGACY),
    ] {
        let (upstream, streams) = server("/messages").await;
        say(&upstream, &streams, "tools/call", |received| {
            let token = &received.json()["params"]["_meta"]["progressToken"];
            vec![
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}),
            ]
        });
        let inside = Inside::start(plan(&upstream)).await;
        let alice = inside.legacy(path, &inside.alice).await;
        let params = json!({"name": tool, "arguments": {}, "_meta": {"progressToken": "mine"}});
        let mut stream = alice.request("tools/call", params).await;
        let primer = soon(stream.any_event()).await.unwrap();
        assert!(primer.data.is_empty() && primer.id.is_some() && primer.raw.contains("retry:"), "{path}: {primer:?}");
        let first = soon(stream.event()).await.unwrap();
        assert_eq!(first.json()["params"]["progress"], 1);
        drop(stream);
        let called = upstream.arrived("tools/call", 1).await;
        let number: usize = called.path.split_once("sessionId=").unwrap().1.parse().unwrap();
        let feed = streams.lock().unwrap()[number].clone().unwrap();
        feed.message(&answer_to(&called)).await;
        let again = Ask::get(&inside.url(path)).bearer(&inside.alice).header("accept", "text/event-stream");
        let again = again.header("mcp-session-id", alice.session().unwrap()).header("mcp-protocol-version", agreed);
        let mut again = again.header("last-event-id", first.id.as_deref().unwrap()).send().await;
        assert_eq!(again.status, 200, "{path}");
        let answer = soon(again.event()).await.unwrap().json();
        assert_eq!(answer["result"]["content"][0]["text"], "{}", "{path}: {answer}");
        assert_eq!(upstream.seen("tools/call").len(), 1, "the server was called once");
    }
}

#[tokio::test]
async fn progress_and_questions_find_the_call_and_the_answer_its_server() {
    let (upstream, streams) = server("/messages").await;
    say(&upstream, &streams, "tools/call", |received| {
        let params = json!({"progressToken": received.json()["params"]["_meta"]["progressToken"], "progress": 1});
        let question = json!({"messages": [], "maxTokens": 1});
        vec![
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}),
            json!({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": question}),
        ]
    });
    let inside = Inside::start(old(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let params = json!({"name": "echo", "arguments": {}, "_meta": {"progressToken": "mine"}});
    let mut stream = alice.request("tools/call", params).await;
    assert_eq!(soon(stream.event()).await.unwrap().json()["params"]["progressToken"], "mine");
    let question = soon(stream.event()).await.unwrap().json();
    assert_eq!(question["method"], "sampling/createMessage");
    let said = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "y"}});
    let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": said});
    assert_eq!(alice.ask("response", &reply).send().await.status, 202);
    assert_eq!(upstream.arrived("response", 1).await.id(), "q");
    let known = upstream.seen("tools/call").pop().unwrap().id();
    // Its first request was `initialize`.
    assert_eq!(alice.notify("notifications/cancelled", json!({"requestId": 2})).await.status, 202);
    assert_eq!(upstream.arrived("notifications/cancelled", 1).await.json()["params"]["requestId"], known);
    // It does not answer any more, and is not waited for.
    let end = soon(stream.event()).await.unwrap().json();
    assert_eq!(end["error"]["message"], "the client cancelled the request", "{end}");
    let last = inside.records().await.pop().unwrap();
    assert_eq!(outcome(&last), "abandoned", "{last:#}");
    assert_eq!(upstream.seen("notifications/cancelled").len(), 1, "it is told once");
}

#[tokio::test]
async fn a_stream_that_breaks_fails_its_calls_and_the_next_message_opens_another() {
    for (path, tool) in [("/mcp", "files__echo"), ("/mcp/files", "echo")] {
        let (upstream, streams) = server("/messages").await;
        let inside = Inside::start(old(&upstream)).await;
        let alice = inside.legacy(path, &inside.alice).await;
        let answer = alice.call(tool, json!({})).await;
        assert_eq!(answer["error"], Value::Null, "{answer}");
        say(&upstream, &streams, "tools/call", |_| Vec::new());
        let calls = upstream.seen("tools/call").len();
        let (answer, ()) = tokio::join!(alice.call(tool, json!({})), async {
            upstream.arrived("tools/call", calls + 1).await;
            streams.lock().unwrap().fill(None);
        });
        assert_eq!(answer["error"]["code"], -31006, "{answer}");
        let last = inside.records().await.pop().unwrap();
        assert_eq!(outcome(&last), "faulted upstream-cut forward", "{last:#}");
        let opened = streams.lock().unwrap().len();
        say(&upstream, &streams, "tools/call", |received| vec![answer_to(received)]);
        let answer = alice.call(tool, json!({"again": true})).await;
        assert_eq!(answer["result"]["content"][0]["text"], r#"{"again":true}"#, "{answer}");
        assert!(streams.lock().unwrap().len() > opened);
    }
}

#[tokio::test]
async fn an_address_of_another_origin_is_never_posted_to() {
    let elsewhere = Upstream::start().await;
    let (upstream, _streams) = server(&elsewhere.url()).await;
    let inside = Inside::start(old(&upstream)).await;
    let known = inside.state.line().servers().next().cloned().unwrap();
    inside.state.line().look(&known).await;
    let why = known.state.fault.load_full().unwrap().to_string();
    assert!(why.contains("another origin"), "{why}");
    assert_eq!(elsewhere.received(), 0);
    assert!(upstream.requests().iter().all(|seen| seen.name() == "GET"));

    // Where nobody said which transport it is, the operator reads the same.
    let (upstream, _streams) = server(&elsewhere.url()).await;
    upstream.always("initialize", |_| Answer::status(StatusCode::METHOD_NOT_ALLOWED));
    let inside = Inside::start(unknown(&upstream)).await;
    let known = inside.state.line().servers().next().cloned().unwrap();
    inside.state.line().look(&known).await;
    let why = known.state.fault.load_full().unwrap().to_string();
    assert!(why.contains("another origin"), "{why}");
    assert_eq!(elsewhere.received(), 0);
}

#[tokio::test]
async fn who_may_see_a_server_is_told_that_its_stream_names_another_origin() {
    for (told, plan) in [(true, old as fn(&Upstream) -> Plan), (false, unknown)] {
        let elsewhere = Upstream::start().await;
        let (upstream, _streams) = server(&elsewhere.url()).await;
        if !told {
            upstream.always("initialize", |_| Answer::status(StatusCode::METHOD_NOT_ALLOWED));
        }
        let inside = Inside::start(plan(&upstream)).await;
        // As a gateway does that starts.
        let known = inside.state.line().servers().next().cloned().unwrap();
        inside.state.line().look(&known).await;
        let mut said = Vec::new();
        let alice = inside.modern("/mcp", &inside.alice);
        let listed = alice.request("tools/list", json!({})).await.json().await;
        said.push(("list, modern", listed["result"]["_meta"]["durward/unavailable"][0]["reason"].clone()));
        let called = alice.call("files__echo", json!({})).await;
        said.push(("call, modern", called["error"]["message"].clone()));
        let called = inside.modern("/mcp/files", &inside.alice).call("echo", json!({})).await;
        said.push(("call at its door, modern", called["error"]["message"].clone()));
        let bob = inside.legacy("/mcp", &inside.bob).await;
        let listed = bob.request("tools/list", json!({})).await.json().await;
        said.push(("list, legacy", listed["result"]["_meta"]["durward/unavailable"][0]["reason"].clone()));
        let called = bob.call("files__echo", json!({})).await;
        said.push(("call, legacy", called["error"]["message"].clone()));
        let hello = json!({
            "protocolVersion": testkit::LEGACY, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"},
        });
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello});
        let fresh = Ask::post(&inside.url("/mcp/files"), hello.to_string()).bearer(&inside.bob).send().await;
        said.push(("initialize, legacy", fresh.json().await["error"]["message"].clone()));
        for (what, why) in &said {
            let why = why.as_str().unwrap_or_default();
            assert!(why.contains("`files`") && why.contains("another origin"), "{what}, told: {told}: {why}");
            assert!(!why.contains("127.0.0.1"), "{why}");
        }
        assert_eq!(elsewhere.received(), 0);
    }
}

#[tokio::test]
async fn the_credential_goes_with_the_stream_and_with_every_message() {
    let (upstream, _streams) = server("/messages").await;
    let secret = vocab::SecretName::new("token").unwrap();
    let credentials = vec![
        CredentialSettings { secret: secret.clone(), place: Place::Bearer },
        CredentialSettings { secret: secret.clone(), place: Place::Query("key".to_owned()) },
    ];
    let inside = Inside::start(Plan { credentials, ..old(&upstream) }).await;
    inside.state.vault.set(&secret, &vocab::Secret::new("s3cret".to_owned()), inside.now()).unwrap();
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    assert_eq!(alice.call("echo", json!({})).await["error"], Value::Null);
    for seen in upstream.requests() {
        assert_eq!(seen.header("authorization"), Some("Bearer s3cret"), "{seen:?}");
        assert!(seen.path.ends_with("key=s3cret"), "{seen:?}");
    }
}

#[tokio::test]
async fn what_is_asked_while_nobody_listens_is_answered_and_recorded() {
    let (upstream, streams) = server("/messages").await;
    let inside = Inside::start(old(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    assert_eq!(alice.call("echo", json!({})).await["error"], Value::Null);
    // Its session has no listening stream, and no call is under way.
    let called = upstream.seen("tools/call").pop().unwrap();
    let number: usize = called.path.split_once("sessionId=").unwrap().1.parse().unwrap();
    let feed = streams.lock().unwrap()[number].clone().unwrap();
    feed.message(&json!({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})).await;
    let no = upstream.arrived("response", 1).await.json();
    assert_eq!((&no["id"], &no["error"]["code"]), (&json!("q"), &json!(-32601)), "{no}");
    feed.message(&json!({"jsonrpc": "2.0", "id": "p", "method": "ping"})).await;
    assert_eq!(upstream.arrived("response", 2).await.json()["result"], json!({}), "a ping is no question");
    inside.state.sweep();
    let leaves = inside.leaves(&Tree::System).await;
    let unheard: Vec<_> = leaves.iter().filter(|(_, record)| record["event"] == "unheard").collect();
    assert_eq!(unheard.len(), 1, "{leaves:#?}");
    assert_eq!(unheard[0].1["method"], "roots/list", "{unheard:#?}");
}

#[tokio::test]
async fn what_is_followed_is_followed_over_the_next_stream_too() {
    let (upstream, streams) = server("/messages").await;
    for method in ["resources/subscribe", "logging/setLevel"] {
        say(&upstream, &streams, method, |received| vec![json!({"jsonrpc": "2.0", "id": received.id(), "result": {}})]);
    }
    let inside = Inside::start(old(&upstream)).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    for (method, params) in
        [("resources/subscribe", json!({"uri": "file:///a"})), ("logging/setLevel", json!({"level": "error"}))]
    {
        let answer = alice.request(method, params).await.json().await;
        assert!(answer["result"].is_object(), "{answer}");
    }
    streams.lock().unwrap().fill(None);
    // The first call may still find the broken stream.
    while alice.call("echo", json!({})).await["error"].is_object() {}
    assert_eq!(upstream.arrived("resources/subscribe", 2).await.json()["params"], json!({"uri": "file:///a"}));
    assert_eq!(upstream.arrived("logging/setLevel", 2).await.json()["params"], json!({"level": "error"}));
}

#[tokio::test]
async fn a_server_of_2024_that_logs_before_it_answers_opens_a_session() {
    for plan in [old, unknown] {
        let (upstream, streams) = server("/messages").await;
        let inside = Inside::start(plan(&upstream)).await;
        // What it speaks is known.
        let known = inside.state.line().servers().next().cloned().unwrap();
        inside.state.line().look(&known).await;
        let log =
            json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "hello"}});
        let logged = log.clone();
        say(&upstream, &streams, "initialize", move |received| {
            let result = json!({
                "protocolVersion": "2024-11-05", "capabilities": {"logging": {}, "tools": {}},
                "serverInfo": {"name": "old", "version": "1"},
            });
            vec![logged.clone(), json!({"jsonrpc": "2.0", "id": received.id(), "result": result})]
        });
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}});
        let url = inside.url("/mcp/files");
        let mut reply = Ask::post(&url, hello.to_string()).bearer(&inside.alice).send().await;
        let session = reply.header("mcp-session-id").unwrap().to_owned();
        assert_eq!(soon(reply.event()).await.unwrap().json(), log);
        assert_eq!(soon(reply.event()).await.unwrap().json()["result"]["serverInfo"]["name"], "old");
        let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
        let list =
            Ask::post(&url, list.to_string()).bearer(&inside.alice).header("mcp-session-id", &session).send().await;
        let list = list.json().await;
        assert_eq!(list["result"]["tools"][0]["name"], "echo", "{list}");

        let mut bob = Streamer::open(&inside.url("/sse/files"), Some(&inside.bob)).await;
        let hello =
            json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
        bob.send("initialize", hello).await;
        assert_eq!(bob.message().await, log);
        assert_eq!(bob.message().await["result"]["serverInfo"]["name"], "old");
        let list = bob.request("tools/list", json!({})).await;
        assert_eq!(list["result"]["tools"][0]["name"], "echo", "{list}");
    }
}

#[tokio::test]
async fn a_token_that_runs_out_ends_what_is_heard_and_not_the_connection_of_the_session() {
    let (upstream, _streams) = server("/messages").await;
    let issuer = Issuer::start(Kind::Ed25519).await;
    let name = IssuerName::new(&issuer.url()).unwrap();
    let mut setting = IssuerSetting::new(name, vec!["here".to_owned()], "claim:azp".parse::<ClaimPath>().unwrap());
    setting.internal = true;
    setting.jwks = JwksSource::Url(issuer.jwks_url().parse().unwrap());
    let inside = Inside::start(Plan { issuers: vec![setting], ..old(&upstream) }).await;
    let token = |number: u32, life: i64| {
        let exp = inside.now().as_micros() / 1_000_000 + life;
        issuer
            .token(json!({"iss": issuer.url(), "aud": "here", "azp": "alice", "sub": "ann", "exp": exp, "jti": number}))
    };
    let (short, long) = (token(1, 600), token(2, 7200));
    let alice = inside.legacy("/mcp/files", &short).await;
    alice.call("echo", json!({})).await;
    let mut listener = alice.listen().await;
    inside.clock.advance(Duration::from_mins(20));
    while soon(listener.event()).await.is_some() {}
    let call = json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "echo", "arguments": {}}});
    let ask = Ask::post(&inside.url("/mcp/files"), call.to_string()).bearer(&long);
    let answer = ask.header("mcp-session-id", alice.session().unwrap()).send().await.json().await;
    assert!(answer["result"].is_object(), "{answer}");
    // It came by the same connection.
    let calls = upstream.seen("tools/call");
    assert_eq!(calls[0].path, calls[1].path);
}

/// A server of 2024-11-05 that tells of the resource in each session in which it is followed.
async fn telling(by: &'static str) -> (Upstream, Streams) {
    let (upstream, streams) = server("/messages").await;
    say(&upstream, &streams, "resources/subscribe", move |received| {
        let params = json!({"uri": "file:///a", "_meta": {"by": by}});
        vec![
            json!({"jsonrpc": "2.0", "id": received.id(), "result": {}}),
            json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params}),
        ]
    });
    (upstream, streams)
}

/// A web server of later revisions that does the same.
async fn web() -> Upstream {
    let upstream = Upstream::start().await;
    let feed = Arc::<Mutex<Option<Feed>>>::default();
    let opened = Arc::clone(&feed);
    upstream.always("GET", move |_| {
        let (answer, feed) = Answer::events();
        *opened.lock().unwrap() = Some(feed);
        answer
    });
    upstream.always("resources/subscribe", move |received| {
        let feed = feed.lock().unwrap().clone().unwrap();
        let params = json!({"uri": "file:///a", "_meta": {"by": "web"}});
        let told = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params});
        tokio::spawn(async move { feed.message(&told).await });
        Answer::result(&received.id(), &json!({}))
    });
    upstream
}

#[tokio::test]
async fn who_listens_hears_a_server_that_a_reload_moved_however_long_it_takes_to_find_out_what_it_is() {
    for (door, uri) in [("/mcp/files", "file:///a"), ("/mcp", "durward://files/file:///a")] {
        let ((first, _one), (second, _two)) = (telling("one").await, telling("two").await);
        let inside = Inside::start(unknown(&first)).await;
        let alice = inside.legacy(door, &inside.alice).await;
        alice.tools().await;
        let mut listener = alice.listen().await;
        let answer = alice.request("resources/subscribe", json!({"uri": uri})).await.json().await;
        assert!(answer["result"].is_object(), "{answer}");
        assert_eq!(told(&mut listener, uri).await, "one");

        // What the second speaks takes a while to find out.
        let (late, found_out) = Answer::status(StatusCode::NOT_FOUND).held();
        second.next("server/discover", late);
        inside.swap(unknown(&second));
        inside.state.sweep();
        second.arrived("server/discover", 1).await;
        let early = tokio::time::timeout(Duration::from_millis(500), told(&mut listener, uri)).await;
        assert!(early.is_err(), "{door}: {early:?}");
        found_out.send(()).unwrap();
        assert_eq!(told(&mut listener, uri).await, "two", "{door}");
        let refused = second.seen("initialize").iter().filter(|seen| !seen.path.contains("sessionId=")).count();
        assert_eq!(refused, 1, "{door}: nobody but the look took it for another server");

        let third = web().await;
        inside.swap(unknown(&third));
        inside.state.sweep();
        assert_eq!(told(&mut listener, uri).await, "web", "{door}");
        if door == "/mcp" {
            // The way back, from a stream that is asked for.
            inside.swap(unknown(&second));
            inside.state.sweep();
            assert_eq!(told(&mut listener, uri).await, "two", "{door}");
        }
    }
}

#[tokio::test]
async fn a_web_server_that_is_found_to_be_one_of_2024_by_now_is_called_in_the_same_session() {
    for (door, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        let upstream = Upstream::start().await;
        upstream.always("server/discover", |_| Answer::status(StatusCode::NOT_FOUND));
        let inside = Inside::start(unknown(&upstream)).await;
        let alice = inside.legacy(door, &inside.alice).await;
        let answer = alice.call(tool, json!({"n": 1})).await;
        assert!(answer["result"].is_object(), "{answer}");
        let _streams = goes_back(&upstream, "/messages");
        let known = inside.state.line().servers().next().cloned().unwrap();
        inside.state.line().look(&known).await;
        assert!(known.lasts());
        let answer = alice.call(tool, json!({"n": 2})).await;
        assert_eq!(answer["result"]["content"][0]["text"], r#"{"n":2}"#, "{door}: {answer}");
    }
}

/// What each client reads of a call that the server answers so: status, text or error.
async fn refused(plan: Plan, upstream: &Upstream, answer: fn() -> Answer) -> Vec<(StatusCode, String)> {
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..plan }).await;
    let mut told = Vec::new();
    for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        for agent in [inside.legacy(path, &inside.alice).await, inside.modern(path, &inside.alice)] {
            assert!(agent.call(tool, json!({})).await.get("result").is_some());
            upstream.next("tools/call", answer());
            let reply = agent.request("tools/call", json!({"name": tool, "arguments": {}})).await;
            let status = reply.status;
            let text = match reply.header("content-type") {
                Some("text/plain; charset=utf-8") | None => reply.text().await,
                Some(_) => reply.json().await["error"].to_string(),
            };
            told.push((status, text));
            assert!(agent.call(tool, json!({})).await.get("result").is_some(), "the session goes on");
        }
    }
    let (mut old, _) = Streamer::begin(&inside.url("/sse/files"), Some(&inside.alice)).await;
    upstream.next("tools/call", answer());
    let answer = old.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
    told.push((StatusCode::OK, answer["error"].to_string()));
    for (_, text) in &mut told {
        // Each call has an id of its own.
        if let Ok(mut error) = serde_json::from_str::<Value>(text)
            && let Some(data) = error["data"].as_object_mut()
        {
            data.remove("call");
            *text = error.to_string();
        }
    }
    told
}

#[tokio::test]
async fn a_status_that_refuses_a_message_reads_as_that_of_a_server_of_streamable_http() {
    let answers: [fn() -> Answer; 7] = [
        || Answer::text("bad session").with_status(StatusCode::BAD_REQUEST),
        || Answer::error(&json!(99), -32000, "own error").with_status(StatusCode::BAD_REQUEST),
        || Answer::status(StatusCode::PAYLOAD_TOO_LARGE),
        || Answer::text("slower").with_status(StatusCode::TOO_MANY_REQUESTS).header("retry-after", "7"),
        || Answer::text("boom").with_status(StatusCode::INTERNAL_SERVER_ERROR),
        || Answer::status(StatusCode::UNAUTHORIZED),
        || Answer::status(StatusCode::TEMPORARY_REDIRECT),
    ];
    for answer in answers {
        let web = Upstream::start().await;
        let expected = refused(Plan::of(&web), &web, answer).await;
        let (upstream, _streams) = server("/messages").await;
        assert_eq!(refused(old(&upstream), &upstream, answer).await, expected);
    }
}

#[tokio::test]
async fn a_refusal_of_a_server_of_2024_names_the_request_as_its_client_did() {
    let (upstream, streams) = server("/messages").await;
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..old(&upstream) }).await;
    for (path, tool, expected) in [("/mcp/files", "echo", 400), ("/mcp", "files__echo", 200)] {
        for agent in [inside.legacy(path, &inside.alice).await, inside.modern(path, &inside.alice)] {
            upstream.always("tools/call", |received| {
                Answer::error(&received.id(), -32000, "own error").with_status(StatusCode::BAD_REQUEST)
            });
            let mut params = json!({"name": tool, "arguments": {}});
            if agent.session().is_none() {
                params["_meta"] = testkit::meta();
            }
            let call = json!({"jsonrpc": "2.0", "id": "mine", "method": "tools/call", "params": params});
            let reply = agent.ask("tools/call", &call).send().await;
            let status = reply.status;
            let answer = reply.json().await;
            let read = (&answer["id"], &answer["error"]["code"], &answer["error"]["message"]);
            assert_eq!(read, (&json!("mine"), &json!(-32000), &json!("own error")), "{path}: {answer}");
            assert!(status == expected || agent.session().is_none(), "{path}: {status} {answer}");
            assert_ne!(upstream.seen("tools/call").pop().unwrap().id(), "mine");
            say(&upstream, &streams, "tools/call", |received| vec![answer_to(received)]);
            assert!(agent.call(tool, json!({})).await.get("result").is_some(), "the session goes on");
        }
    }
}

/// A status of the server's hop is no word about the session on `/mcp`.
#[tokio::test]
async fn a_refused_answer_to_a_question_of_a_server_of_2024_stays_off_the_session_of_several() {
    for (path, tool, expected) in
        [("/mcp/files", "echo", StatusCode::NOT_ACCEPTABLE), ("/mcp", "files__echo", StatusCode::BAD_GATEWAY)]
    {
        let (upstream, streams) = server("/messages").await;
        say(&upstream, &streams, "tools/call", |_| {
            let question = json!({"messages": [], "maxTokens": 1});
            vec![json!({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": question})]
        });
        let inside = Inside::start(old(&upstream)).await;
        let alice = inside.legacy(path, &inside.alice).await;
        let mut stream = alice.request("tools/call", json!({"name": tool, "arguments": {}})).await;
        let question = soon(stream.event()).await.unwrap().json();
        upstream.always("response", |_| Answer::text("not this").with_status(StatusCode::NOT_ACCEPTABLE));
        let said = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "y"}});
        let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": said});
        let reply = alice.ask("response", &reply).send().await;
        assert_eq!(reply.status, expected, "{path}");
        let text = reply.text().await;
        assert_eq!(text.contains("not this"), path != "/mcp", "{path}: {text}");
    }
}

#[tokio::test]
async fn a_server_of_2024_that_knows_the_stream_no_more_is_told_from_one_that_is_down() {
    for status in [StatusCode::NOT_FOUND, StatusCode::GONE] {
        let (upstream, streams) = server("/messages").await;
        let inside = Inside::start(old(&upstream)).await;
        let alice = inside.legacy("/mcp/files", &inside.alice).await;
        upstream.next("tools/call", Answer::text("no session").with_status(status));
        let answer = alice.call("echo", json!({})).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(answer["error"]["code"] == -31006 && message.contains(status.as_str()), "{answer}");
        let record = inside.records().await.into_iter().rfind(|record| record["method"] == "tools/call").unwrap();
        assert_eq!(outcome(&record), "faulted upstream-protocol forward", "{record:#}");
        soon(async { while !alice.call("echo", json!({})).await["error"].is_null() {} }).await;
        assert!(streams.lock().unwrap().len() > 1, "another stream was opened");
    }
}

#[tokio::test]
async fn an_answer_of_a_server_of_2024_that_cannot_be_read_ends_its_call_at_once() {
    let (upstream, streams) = server("/messages").await;
    let bounds = Bounds { answer: 256 << 10, ..old(&upstream).bounds };
    let inside = Inside::start(Plan { bounds, ..old(&upstream) }).await;
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(300 << 10)).into_bytes();
    let deep = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
    for (result, expected) in [
        (deep, "upstream-protocol"),
        (br#"{"content":[],"a":1,"a":2}"#.to_vec(), "upstream-protocol"),
        (br#"{"content":[],"a":"\ud800"}"#.to_vec(), "upstream-protocol"),
        (br#"{"content":[],"a":NaN}"#.to_vec(), "upstream-protocol"),
        (large, "upstream-too-big"),
    ] {
        for agent in [inside.legacy("/mcp/files", &inside.alice).await, inside.modern("/mcp/files", &inside.alice)] {
            let (opened, result) = (Arc::clone(&streams), result.clone());
            upstream.always("tools/call", move |received| {
                let start = format!("event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":", received.id());
                let said = [start.as_bytes(), &result, b"}\n\n"].concat();
                let number: usize = received.path.split_once("sessionId=").unwrap().1.parse().unwrap();
                let feed = opened.lock().unwrap()[number].clone().unwrap();
                tokio::spawn(async move { feed.raw(said).await });
                Answer::status(StatusCode::ACCEPTED)
            });
            let answer = soon(agent.call("echo", json!({}))).await;
            assert_eq!(answer["error"]["code"], -31006, "{answer}");
            let record = inside.records().await.pop().unwrap();
            assert_eq!(outcome(&record), format!("faulted {expected} forward"), "{record}");
            say(&upstream, &streams, "tools/call", |received| vec![answer_to(received)]);
            let answer = soon(agent.call("echo", json!({}))).await;
            assert!(answer["result"].is_object(), "{answer}");
        }
    }
}

/// What is too long costs whoever waits for it. The others, the stream and the session on it go on.
#[tokio::test]
async fn an_answer_of_a_server_of_2024_that_is_too_long_costs_its_own_call_alone() {
    let (upstream, streams) = server("/messages").await;
    let bounds = Bounds { answer: 256 << 10, ..old(&upstream).bounds };
    let inside = Inside::start(Plan { bounds, ..old(&upstream) }).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    assert!(alice.call("echo", json!({})).await["result"].is_object());
    say(&upstream, &streams, "tools/call", |_| Vec::new());
    let opened = streams.lock().unwrap().len();
    let calls = upstream.seen("tools/call").len();
    let long = "x".repeat(400 << 10);
    let (first, second, ()) =
        tokio::join!(alice.call("echo", json!({"n": 1})), alice.call("echo", json!({"n": 2})), async {
            upstream.arrived("tools/call", calls + 2).await;
            let seen = upstream.seen("tools/call");
            let (lost, kept) = (&seen[calls], &seen[calls + 1]);
            let number: usize = lost.path.split_once("sessionId=").unwrap().1.parse().unwrap();
            let feed = streams.lock().unwrap()[number].clone().unwrap();
            // What nobody waits for costs nobody anything: a notification, a question, an event of another kind.
            feed.raw(format!(
                "data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":\"{long}\"}}\n\n"
            ))
            .await;
            feed.raw(format!("event: other\ndata: {{\"id\":{},\"result\":\"{long}\"}}\n\n", kept.id())).await;
            // Its end does not come before the other call has its answer.
            feed.raw(format!("data: {{\"jsonrpc\":\"2.0\",\"result\":{{\"text\":\"{long}\"}},\"id\":{},\n", lost.id()))
                .await;
            feed.raw(format!("data: \"more\":\"{long}\"}}\n\n")).await;
            feed.message(&answer_to(kept)).await;
        });
    let (failed, answered) = if first.get("error").is_some() { (first, second) } else { (second, first) };
    assert_eq!(failed["error"]["code"], -31006, "{failed}");
    assert!(answered["result"].is_object(), "{answered}");
    say(&upstream, &streams, "tools/call", |received| vec![answer_to(received)]);
    assert!(alice.call("echo", json!({})).await["result"].is_object());
    assert_eq!(streams.lock().unwrap().len(), opened, "it is the same stream");
    let outcomes: Vec<_> = inside.records().await.iter().rev().take(3).map(outcome).collect();
    assert!(outcomes.contains(&"faulted upstream-too-big forward".to_owned()), "{outcomes:?}");
}

/// An answer whose id is not in it: everybody may be waiting for it.
#[tokio::test]
async fn an_answer_that_is_too_long_and_nobodys_ends_the_stream() {
    let (upstream, streams) = server("/messages").await;
    let bounds = Bounds { answer: 256 << 10, ..old(&upstream).bounds };
    let inside = Inside::start(Plan { bounds, ..old(&upstream) }).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let opened = Arc::clone(&streams);
    upstream.always("tools/call", move |received| {
        let number: usize = received.path.split_once("sessionId=").unwrap().1.parse().unwrap();
        let feed = opened.lock().unwrap()[number].clone().unwrap();
        let said = format!("data: {{\"jsonrpc\":\"2.0\",\"result\":\"{}\"}}\n\n", "x".repeat(300 << 10));
        tokio::spawn(async move { feed.raw(said).await });
        Answer::status(StatusCode::ACCEPTED)
    });
    let (first, second) = tokio::join!(alice.call("echo", json!({"n": 1})), alice.call("echo", json!({"n": 2})));
    for answer in [first, second] {
        assert_eq!(answer["error"]["code"], -31006, "{answer}");
    }
}

#[tokio::test]
async fn a_server_of_2024_that_says_nothing_meets_its_deadline_on_a_stream_too() {
    let (upstream, streams) = server("/messages").await;
    say(&upstream, &streams, "tools/call", |_| Vec::new());
    let deadline = Duration::from_secs(6);
    let bounds = Bounds { deadline, ..old(&upstream).bounds };
    let inside = Inside::start(Plan { bounds, ..old(&upstream) }).await;
    let (legacy, modern) = (inside.legacy("/mcp/files", &inside.alice).await, inside.modern("/mcp/files", &inside.bob));
    let called = async |agent: testkit::Agent| {
        let began = tokio::time::Instant::now();
        let answer = agent.call("echo", json!({})).await;
        assert_eq!(answer["error"]["code"], -31007, "{answer}");
        assert!(began.elapsed() >= deadline);
    };
    let both = async { tokio::join!(called(legacy), called(modern)) };
    tokio::time::timeout(Duration::from_secs(40), both).await.expect("the deadline holds");
}

/// Not all answer POST when they have read it: some do when the request is done with, and some never.
#[tokio::test]
async fn a_post_that_a_server_of_2024_leaves_open_holds_up_no_answer() {
    let (upstream, streams) = server("/messages").await;
    let inside = Inside::start(old(&upstream)).await;
    let opened = Arc::clone(&streams);
    upstream.always("tools/call", move |received| {
        let number: usize = received.path.split_once("sessionId=").unwrap().1.parse().unwrap();
        let feed = opened.lock().unwrap()[number].clone().unwrap();
        let answer = answer_to(received);
        tokio::spawn(async move { feed.message(&answer).await });
        Answer::hang()
    });
    for agent in [inside.legacy("/mcp/files", &inside.alice).await, inside.modern("/mcp/files", &inside.bob)] {
        let answer = soon(agent.call("echo", json!({"n": 1}))).await;
        assert_eq!(answer["result"]["content"][0]["text"], r#"{"n":1}"#, "{answer}");
    }
}
