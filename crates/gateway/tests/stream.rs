//! Clients of the transport of 2024-11-05: HTTP with SSE on two addresses.

mod inside;

use audit::Tree;
use gateway::settings::EraSettings;
use http::{Method, StatusCode};
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use testkit::{Answer, Ask, Streamer, Upstream, soon};

async fn started() -> (Upstream, Inside) {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    (upstream, inside)
}

async fn begun(inside: &Inside, path: &str) -> Streamer {
    Streamer::begin(&inside.url(path), Some(&inside.alice)).await.0
}

/// Waits until it holds.
async fn until(holds: impl Fn() -> bool) {
    soon(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn call(id: u64, tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {"n": 1}}})
}

/// What the server hears from clients, without what the gateway asks for itself.
fn relayed(upstream: &Upstream, name: &str) -> usize {
    upstream.seen(name).iter().filter(|seen| seen.header("durward-call-id").is_some()).count()
}

#[tokio::test]
async fn a_client_of_2024_uses_any_server_on_one_lasting_stream() {
    for era in [EraSettings::Legacy, EraSettings::Modern] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(Plan { era, ..Plan::of(&upstream) }).await;
        for (path, tool) in [("/sse/files", "echo"), ("/sse", "files__echo")] {
            let (mut alice, hello) = Streamer::begin(&inside.url(path), Some(&inside.alice)).await;
            assert!(alice.address().starts_with(&inside.url("/messages?sessionId=")), "{}", alice.address());
            assert_eq!(hello["result"]["protocolVersion"], "2024-11-05", "{hello}");
            let listed = alice.request("tools/list", json!({})).await;
            assert_eq!(listed["result"]["tools"][0]["name"], tool, "{listed}");
            let answer = alice.request("tools/call", json!({"name": tool, "arguments": {"n": 1.0}})).await;
            assert_eq!(answer["result"]["content"][0]["text"], r#"{"n":1.0}"#, "{answer}");
            assert_eq!(alice.request("ping", json!({})).await["result"], json!({}));
            let unknown = alice.request("tools/call", json!({"name": "none"})).await;
            assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
        }
        until(|| inside.state.mailbox_count() == 0 && inside.state.sessions.count() == 0).await;
        // Each message is a call of its own in the session, and so are the two streams, this one and the one below it.
        let of = |records: &[Value], method: &str| records.iter().filter(|record| record["method"] == method).count();
        let records = soon(async {
            loop {
                let records = inside.records().await;
                if of(&records, "GET") == 4 {
                    return records;
                }
            }
        })
        .await;
        let of = |method: &str| of(&records, method);
        assert_eq!((of("initialize"), of("notifications/initialized"), of("tools/list")), (2, 2, 2));
        assert_eq!((of("tools/call"), of("ping"), of("GET")), (4, 2, 4));
        assert!(records.iter().all(|record| record["agent"] == "alice"));
        let sessions: std::collections::BTreeSet<_> =
            records.iter().filter_map(|record| record["session"].as_str()).collect();
        assert_eq!(sessions.len(), 2, "{records:#?}");
    }
}

#[tokio::test]
async fn a_server_of_the_same_era_is_heard_byte_for_byte() {
    let (upstream, inside) = started().await;
    let mut alice = begun(&inside, "/sse/files").await;
    let text = r#"{"jsonrpc":"2.0", "id":2,"result":{ "content":[],"x":1.0,"\u0061":[ 1 ] }}"#;
    upstream.next("tools/call", Answer::json(text));
    alice.send("tools/call", json!({"name": "echo"})).await;
    let event = alice.event().await.unwrap();
    assert_eq!(event.raw, format!("event: message\ndata: {text}\n\n"));
}

#[tokio::test]
async fn progress_questions_and_answers_share_the_stream() {
    let (upstream, inside) = started().await;
    for (path, tool) in [("/sse/files", "echo"), ("/sse", "files__echo")] {
        let mut alice = begun(&inside, path).await;
        let (answer, feed) = Answer::events();
        upstream.next("tools/call", answer);
        let id =
            alice.send("tools/call", json!({"name": tool, "arguments": {}, "_meta": {"progressToken": "p"}})).await;
        assert_eq!(alice.request("ping", json!({})).await["result"], json!({}), "others are not held up");
        let params = json!({"progressToken": "p", "progress": 1});
        feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})).await;
        assert_eq!(alice.message().await["params"], params);
        let params = json!({"messages": [], "maxTokens": 1});
        feed.message(&json!({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": params})).await;
        let question = alice.message().await;
        assert_eq!((&question["method"], &question["params"]), (&json!("sampling/createMessage"), &params));
        let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"role": "assistant", "model": "m", "content": {"type": "text", "text": "yes"}}});
        let before = upstream.seen("response").len();
        assert_eq!(alice.post(&reply).await.status, 202);
        assert_eq!(upstream.arrived("response", before + 1).await.id(), "q");
        assert_eq!(alice.post(&reply).await.status, 400, "it is answered once");
        let sent = upstream.seen("tools/call").pop().unwrap().id();
        feed.message(&json!({"jsonrpc": "2.0", "id": sent, "result": {"content": []}})).await;
        assert_eq!(alice.message().await["id"], id);
        // What is said of a call goes where the call went.
        let (held, release) = Answer::result(&json!(0), &json!({})).held();
        upstream.next("tools/call", held);
        let calls = upstream.seen("tools/call").len();
        let id = alice.send("tools/call", json!({"name": tool, "arguments": {}})).await;
        let known = upstream.arrived("tools/call", calls + 1).await.id();
        let cancels = upstream.seen("notifications/cancelled").len();
        let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
        assert_eq!(alice.post(&cancelled).await.status, 202);
        let heard = upstream.arrived("notifications/cancelled", cancels + 1).await.json();
        assert_eq!(heard["params"]["requestId"], known);
        drop(release);
    }
}

#[tokio::test]
async fn what_servers_say_unasked_is_heard_on_the_same_stream() {
    let (upstream, inside) = started().await;
    for path in ["/sse/files", "/sse"] {
        let (answer, feed) = Answer::events();
        upstream.next("GET", answer);
        let gets = upstream.seen("GET").len();
        let mut alice = begun(&inside, path).await;
        alice.request("tools/list", json!({})).await;
        upstream.arrived("GET", gets + 1).await;
        let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}});
        upstream.set_tools(vec![tool("echo"), tool(path)]);
        let news = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
        assert!(feed.message(&news).await);
        assert_eq!(alice.message().await["method"], news["method"]);
        drop(alice);
        soon(feed.closed()).await;
    }
}

#[tokio::test]
async fn whoever_does_not_wait_to_hear_that_it_was_taken_is_listened_for() {
    let (upstream, inside) = started().await;
    let mut alice = Streamer::open(&inside.url("/sse/files"), Some(&inside.alice)).await;
    let params =
        json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
    alice.request("initialize", params).await;
    let (taken, release) = Answer::status(StatusCode::ACCEPTED).held();
    upstream.next("notifications/initialized", taken);
    let saying = alice.ask(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).send();
    tokio::select! {
        _ = saying => panic!("it is held"),
        _ = upstream.arrived("notifications/initialized", 1) => {}
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    release.send(()).unwrap();
    upstream.arrived("GET", 1).await;
}

#[tokio::test]
async fn a_foreign_stream_looks_like_a_missing_one() {
    let (upstream, inside) = started().await;
    let alice = begun(&inside, "/sse/files").await;
    let before = upstream.received();
    let missing = inside.url("/messages?sessionId=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let mut told = Vec::new();
    for address in [alice.address(), &missing, &inside.url("/messages")] {
        let ask = Ask::post(address, call(7, "echo").to_string()).bearer(&inside.bob);
        let reply = ask.send().await;
        assert_eq!(reply.status, 404);
        let mut body: Value = reply.json().await;
        assert!(body["error"]["data"]["call"].take().is_string());
        told.push(body);
    }
    assert!(told.iter().all(|body| *body == told[0]), "{told:?}");
    assert_eq!(Ask::post(alice.address(), call(7, "echo").to_string()).send().await.status, 401);
    assert_eq!(upstream.received(), before, "nothing went out");
    let records = inside.records().await;
    let refused: Vec<&Value> = records.iter().filter(|record| record["agent"] == "bob").collect();
    assert_eq!(refused.len(), 3);
    assert!(refused.iter().all(|record| outcome(record) == "refused unknown-session resolve"), "{refused:#?}");
    let strangers = inside.leaves(&Tree::System).await;
    assert!(!format!("{strangers:?}{records:?}").contains(alice.address().rsplit('=').next().unwrap()));
}

#[tokio::test]
async fn what_does_not_belong_on_this_transport_is_refused() {
    let upstream = Upstream::start().await;
    let mut plan = Plan::of(&upstream);
    plan.bounds.body = 20_000;
    let inside = Inside::start(plan).await;
    for (path, status) in [("/sse/none", 404), ("/sse/", 404), ("/ssefiles", 404), ("/messages/", 404)] {
        let reply = Ask::get(&inside.url(path)).bearer(&inside.alice).send().await;
        assert_eq!(reply.status, status, "{path}");
    }
    assert_eq!(Ask::get(&inside.url("/sse")).send().await.status, 401);
    let page = |url: &str| Ask::get(url).bearer(&inside.alice).header("origin", "https://evil.example");
    assert_eq!(page(&inside.url("/sse")).send().await.status, 403);
    assert_eq!(page(&inside.url("/sse")).without("origin").replace("host", "evil.example").send().await.status, 403);
    // A newer client learns from this that the transport is an older one.
    let hello = call(1, "echo").to_string();
    let newer = Ask::post(&inside.url("/sse"), hello.clone()).bearer(&inside.alice).send().await;
    assert_eq!((newer.status, newer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("GET")));
    let get = Ask::get(&inside.url("/messages")).bearer(&inside.alice).send().await;
    assert_eq!((get.status, get.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("POST")));

    let mut alice = begun(&inside, "/sse/files").await;
    let before = upstream.received();
    let raw = |body: String| alice.ask(&json!({})).body(body);
    let initialize =
        json!({"jsonrpc": "2.0", "id": 9, "method": "initialize", "params": {"protocolVersion": "2024-11-05"}});
    let modern = json!({"jsonrpc": "2.0", "id": 9, "method": "ping", "params": {"_meta": testkit::meta()}});
    for (body, status) in [
        ("{".to_owned(), 400),
        (json!([call(9, "echo")]).to_string(), 400),
        (initialize.to_string(), 400),
        (modern.to_string(), 400),
        (format!("\"{}\"", "x".repeat(20_000)), 413),
    ] {
        let shown: String = body.chars().take(40).collect();
        assert_eq!(raw(body).send().await.status, status, "{shown}");
    }
    assert_eq!(raw(hello).replace("content-type", "text/plain").send().await.status, 415);
    assert_eq!(upstream.received(), before, "nothing went out");
    assert_eq!(alice.request("ping", json!({})).await["result"], json!({}), "the session goes on");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_session_and_not_its_calls() {
    let (upstream, inside) = started().await;
    let mut alice = begun(&inside, "/sse/files").await;
    let (answer, release) = Answer::result(&json!(2), &json!({"content": []})).held();
    upstream.next("tools/call", answer);
    alice.send("tools/call", json!({"name": "echo", "arguments": {}})).await;
    upstream.arrived("tools/call", 1).await;
    let address = alice.address().to_owned();
    drop(alice);
    until(|| inside.state.mailbox_count() == 0).await;
    assert_eq!(inside.state.sessions.count(), 1, "a call is under way");
    assert_eq!(Ask::post(&address, call(3, "echo").to_string()).bearer(&inside.alice).send().await.status, 404);
    release.send(()).unwrap();
    until(|| inside.state.sessions.count() == 0).await;
    upstream.arrived("DELETE", 1).await;
    let records = inside.records().await;
    let called = records.iter().find(|record| record["method"] == "tools/call" && record["server"] == "files").unwrap();
    assert_eq!(outcome(called), "answered", "{called:#}");
    assert_eq!(relayed(&upstream, "tools/call"), 1);
}

#[tokio::test]
async fn calls_whose_client_left_its_stream_are_bounded_on_one_server_and_on_all() {
    const MOST_OF_ONE: usize = 32;
    const MOST: usize = 128;
    const FEW: usize = 4;
    const MOST_OF_ALL: usize = 256;
    let upstream = Upstream::start().await;
    let names = ["files", "notes", "mail", "maps", "last", "more", "most", "all", "other"];
    let inside =
        Inside::start(Plan { servers: names.map(|name| (name, upstream.url())).to_vec(), ..Plan::of(&upstream) });
    let inside = inside.await;
    let mut releases = Vec::new();
    let mut leaves = async |name: &str, calls: usize, why: &str| {
        let mut alice = begun(&inside, &format!("/sse/{name}")).await;
        for _ in 0..calls {
            let (answer, release) = Answer::result(&json!(0), &json!({"content": []})).held();
            upstream.next("tools/call", answer);
            releases.push(release);
            alice.send("tools/call", json!({"name": "echo", "arguments": {}})).await;
            upstream.arrived("tools/call", releases.len()).await;
        }
        drop(alice);
        until(|| inside.state.mailbox_count() == 0).await;
        // This server has had enough of her, and of her alone, once all of them know that she left.
        soon(async {
            loop {
                let said = introduced(&inside, name, &inside.alice).await;
                let told = said["error"]["message"].as_str().unwrap_or_default();
                if said["error"]["code"] == -31002 && told.starts_with(why) && told.contains("run on") {
                    return;
                }
            }
        })
        .await;
        assert!(introduced(&inside, name, &inside.bob).await["result"].is_object());
    };
    let of_all = |most: usize| format!("{most} calls of yours run on");
    let of_this = |name: &str| format!("{MOST_OF_ONE} calls of yours on server `{name}`");
    for name in &names[..4] {
        leaves(name, MOST_OF_ONE, &of_this(name)).await;
        let other = introduced(&inside, "last", &inside.alice).await;
        assert!(other["result"].is_object(), "other servers serve her: {other}");
    }
    // Those that hang have what there is for all of them, and the others a little each.
    leaves("last", FEW, &of_all(MOST)).await;
    assert!(introduced(&inside, "more", &inside.alice).await["result"].is_object());
    // She may have more under way than that when she leaves, but not without end.
    for name in ["more", "most", "all"] {
        leaves(name, MOST_OF_ONE, &of_this(name)).await;
    }
    leaves("other", MOST_OF_ALL - MOST - FEW - 3 * MOST_OF_ONE, &of_all(MOST_OF_ALL)).await;
    for release in releases {
        let _ = release.send(());
    }
    soon(async { while introduced(&inside, "files", &inside.alice).await.get("result").is_none() {} }).await;
}

/// What a client is answered that opens a stream on this server and introduces itself.
async fn introduced(inside: &Inside, server: &str, key: &str) -> Value {
    let mut client = Streamer::open(&inside.url(&format!("/sse/{server}")), Some(key)).await;
    let hello =
        json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    client.request("initialize", hello).await
}

#[tokio::test]
async fn an_answer_that_a_server_gives_in_pieces_is_fetched_to_its_end() {
    let (upstream, inside) = started().await;
    let mut alice = begun(&inside, "/sse/files").await;
    until(|| relayed(&upstream, "GET") == 1).await;
    upstream.next("tools/call", Answer::event_text("id: 7\nretry: 1\ndata:\n\n"));
    upstream
        .next("GET", Answer::event_text("id: 8\ndata: {\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"content\":[]}}\n\n"));
    let answer = alice.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
    assert_eq!(answer["result"], json!({"content": []}), "{answer}");
    assert_eq!(upstream.seen("GET").pop().unwrap().header("last-event-id"), Some("7"));
    // One that cannot be had is no answer, and the client hears that.
    upstream.next("tools/call", Answer::event_text("id: 9\nretry: 1\ndata:\n\n"));
    let answer = alice.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
    assert_eq!(answer["error"]["code"], -31006, "{answer}");
}

#[tokio::test]
async fn an_error_that_names_no_request_answers_the_one_that_was_made() {
    for era in [EraSettings::Legacy, EraSettings::Modern] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(Plan { era, ..Plan::of(&upstream) }).await;
        let mut alice = begun(&inside, "/sse/files").await;
        for text in [
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"not read"}}"#,
            r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"not read"}}"#,
            // As servers made with the Python SDK say it.
            r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"not read"}}"#,
        ] {
            upstream.next("tools/call", Answer::json(text).with_status(StatusCode::BAD_REQUEST));
            let answer = alice.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
            assert_eq!(answer["error"]["message"], "not read", "{answer}");
        }
    }
}

#[tokio::test]
async fn an_http_error_that_is_no_message_is_told_by_its_status() {
    let (upstream, inside) = started().await;
    let mut alice = begun(&inside, "/sse/files").await;
    for (status, answer) in [
        (503, Answer::json(r#"{"detail":"the pool is empty"}"#)),
        (503, Answer::json(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"down"}}"#)),
        (400, Answer::text("not like this").header("content-type", "text/plain")),
        (500, Answer::status(StatusCode::OK)),
    ] {
        upstream.next("tools/call", answer.with_status(StatusCode::from_u16(status).unwrap()));
        let answer = alice.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
        assert_eq!(answer["error"]["code"], -31006, "{answer}");
        let told = answer["error"]["message"].as_str().unwrap();
        assert!(told.contains(&format!("HTTP {status}")), "{answer}");
    }
}

/// The first piece of an answer, which says that there is more.
fn first_piece() -> Answer {
    Answer::event_text("id: 7\nretry: 1\ndata:\n\n")
}

#[tokio::test]
async fn the_rest_of_an_answer_is_let_go_once_it_is_there_or_nobody_waits_for_it() {
    let (upstream, inside) = started().await;
    let mut alice = begun(&inside, "/sse/files").await;
    until(|| relayed(&upstream, "GET") == 1).await;
    // The server leaves its stream open after the answer.
    upstream.next("tools/call", first_piece());
    let (rest, feed) = Answer::events();
    upstream.next("GET", rest);
    let id = alice.send("tools/call", json!({"name": "echo", "arguments": {}})).await;
    until(|| relayed(&upstream, "GET") == 2).await;
    assert!(feed.message(&json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}})).await);
    assert_eq!(alice.message().await["id"], id);
    soon(feed.closed()).await;
    // It never answers, and the client does not wait for it.
    upstream.next("tools/call", first_piece());
    let (rest, feed) = Answer::events();
    upstream.next("GET", rest);
    alice.send("tools/call", json!({"name": "echo", "arguments": {}})).await;
    until(|| relayed(&upstream, "GET") == 3).await;
    drop(alice);
    soon(feed.closed()).await;
    until(|| inside.state.sessions.count() == 0).await;
}

#[tokio::test]
async fn the_rest_of_an_answer_is_not_waited_for_for_ever() {
    let upstream = Upstream::start().await;
    let mut plan = Plan::of(&upstream);
    plan.bounds.stream_idle = std::time::Duration::from_millis(300);
    let inside = Inside::start(plan).await;
    let mut alice = begun(&inside, "/sse/files").await;
    until(|| relayed(&upstream, "GET") == 1).await;
    upstream.next("tools/call", first_piece());
    let (rest, feed) = Answer::events();
    upstream.next("GET", rest);
    let id = alice.send("tools/call", json!({"name": "echo", "arguments": {}})).await;
    let answer = alice.message().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(-31006)), "{answer}");
    soon(feed.closed()).await;
}

#[tokio::test]
async fn the_rest_of_an_answer_is_asked_for_by_the_rules_of_the_moment() {
    let (upstream, inside) = started().await;
    let mut alice = begun(&inside, "/sse/files").await;
    until(|| relayed(&upstream, "GET") == 1).await;
    let (answer, feed) = Answer::events();
    upstream.next("tools/call", answer);
    let id = alice.send("tools/call", json!({"name": "echo", "arguments": {}})).await;
    upstream.arrived("tools/call", 1).await;
    assert!(feed.raw("id: 7\ndata:\n\n").await);
    let (rest, silent) = Answer::events();
    upstream.next("GET", rest);
    let mut stricter = Plan::of(&upstream);
    stricter.bounds.stream_idle = std::time::Duration::from_millis(300);
    inside.swap(stricter);
    let ended = std::time::Instant::now();
    drop(feed);
    let answer = alice.message().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(-31006)), "{answer}");
    assert!(ended.elapsed() >= std::time::Duration::from_secs(1), "a server that names no pause has one all the same");
    soon(silent.closed()).await;
}

#[tokio::test]
async fn whoever_listens_listens_again_after_a_failure() {
    let (upstream, inside) = started().await;
    let (answer, feed) = Answer::events();
    upstream
        .next("GET", Answer::status(StatusCode::SERVICE_UNAVAILABLE))
        .next("GET", Answer::event_text("id: 5\nretry: 1\ndata:\n\n"))
        .next("GET", Answer::status(StatusCode::BAD_REQUEST))
        .next("GET", answer);
    let mut alice = begun(&inside, "/sse/files").await;
    until(|| relayed(&upstream, "GET") == 4).await;
    let events: Vec<_> = upstream
        .seen("GET")
        .iter()
        .filter(|seen| seen.header("durward-call-id").is_some())
        .map(|seen| seen.header("last-event-id").map(str::to_owned))
        .collect();
    assert_eq!(
        events,
        [None, None, Some("5".to_owned()), None],
        "an event that is not known there is not asked for twice"
    );
    let news = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}});
    assert!(feed.message(&news).await);
    assert_eq!(alice.message().await["params"], news["params"]);
    drop(alice);
    soon(feed.closed()).await;
}

#[tokio::test]
async fn an_answer_as_deep_as_may_be_is_one_answer() {
    let upstream = Upstream::start().await;
    let mut plan = Plan::of(&upstream);
    plan.bounds.depth = 128;
    let inside = Inside::start(plan).await;
    let mut alice = begun(&inside, "/sse/files").await;
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let text = format!(r#"{{"jsonrpc":"2.0","id":2,"result":{{"content":[],"x":{deep}}}}}"#);
    upstream.next("tools/call", Answer::json(text.clone()));
    alice.send("tools/call", json!({"name": "echo", "arguments": {}})).await;
    assert_eq!(alice.event().await.unwrap().raw, format!("event: message\ndata: {text}\n\n"));
    let id = alice.send("ping", json!({})).await;
    assert_eq!(alice.message().await["id"], id, "nothing came after the answer");
}

#[tokio::test]
async fn a_stream_ends_with_the_key_the_session_and_the_gateway() {
    let (upstream, inside) = started().await;
    let body = r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":2}"#;
    let mut alice = begun(&inside, "/sse/files").await;
    upstream.next("tools/call", Answer::json(body).with_status(StatusCode::NOT_FOUND));
    let answer = alice.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
    assert_eq!(answer["error"]["code"], -32001, "the answer comes before the end: {answer}");
    assert_eq!(alice.event().await, None, "the server has forgotten the session");

    let mut alice = begun(&inside, "/sse").await;
    inside.registry.revoke_key(&inside.alice_key);
    assert_eq!(alice.event().await, None, "the key is gone");
    let last = inside.records().await.into_iter().rfind(|record| record["method"] == "GET").unwrap();
    assert_eq!(outcome(&last), "refused revoked authenticate", "{last:#}");

    let mut bob = Streamer::begin(&inside.url("/sse"), Some(&inside.bob)).await.0;
    inside.state.stopping.send_replace(true);
    assert_eq!(bob.event().await, None, "the gateway stops");
}

#[tokio::test]
async fn streams_of_a_principal_are_bounded_and_so_are_their_requests() {
    let upstream = Upstream::start().await;
    let mut plan = Plan::of(&upstream);
    plan.bounds.sessions_per_principal = 2;
    let inside = Inside::start(plan).await;
    let mut alice = begun(&inside, "/sse/files").await;
    let second = Streamer::open(&inside.url("/sse"), Some(&inside.alice)).await;
    let third = Ask::get(&inside.url("/sse")).bearer(&inside.alice).send().await;
    assert_eq!(third.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(third.text().await.contains("2 sessions are open"));
    drop(second);
    until(|| inside.state.mailbox_count() == 1).await;
    let mut releases = Vec::new();
    for _ in 0..64 {
        let (answer, release) = Answer::result(&json!(0), &json!({})).held();
        upstream.next("tools/call", answer);
        releases.push(release);
        alice.send("tools/call", json!({"name": "echo", "arguments": {}})).await;
    }
    assert_eq!(alice.post(&call(99, "echo")).await.status, StatusCode::TOO_MANY_REQUESTS);
    drop(releases);
    for _ in 0..64 {
        alice.message().await;
    }
    assert!(alice.request("tools/call", json!({"name": "echo", "arguments": {}})).await["result"].is_object());
}

#[tokio::test]
async fn behind_a_prefix_the_address_for_posts_has_it_too() {
    let upstream = Upstream::start().await;
    let inside =
        Inside::start(Plan { public_url: Some("https://mcp.example.com/gateway/"), ..Plan::of(&upstream) }).await;
    let alice = Streamer::open(&inside.url("/sse"), Some(&inside.alice)).await;
    assert!(alice.address().starts_with(&inside.url("/gateway/messages?sessionId=")), "{}", alice.address());
    let silent = Streamer::open(&inside.url("/sse"), Some(&inside.alice)).await;
    drop((alice, silent));
    let gone = Ask::new(Method::DELETE, &inside.url("/messages")).bearer(&inside.alice).send().await;
    assert_eq!(gone.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_server_whose_streams_end_at_once_is_not_asked_without_end() {
    let (upstream, inside) = started().await;
    upstream.always("GET", |_| Answer::event_text("id: 1\nretry: 0\ndata:\n\n"));
    let began = std::time::Instant::now();
    let _alice = begun(&inside, "/sse/files").await;
    until(|| relayed(&upstream, "GET") >= 3).await;
    assert!(began.elapsed() >= std::time::Duration::from_secs(2), "{:?}", began.elapsed());
}
