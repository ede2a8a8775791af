//! Streams of the gateway's own that are cut, and taken up where they were.

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan};
use serde_json::{Value, json};
use testkit::{Agent, Answer, Ask, Feed, Reply, Upstream, soon};

/// A client of 2025 and a server of 2026, whose call of a tool lasts.
struct Scene {
    upstream: Upstream,
    inside: Inside,
    alice: Agent,
    path: &'static str,
}

impl Scene {
    async fn start(path: &'static str) -> Self {
        let upstream = Upstream::start().await;
        let resources = json!({"resources": [{"uri": "a:b", "name": "b"}], "ttlMs": 0, "cacheScope": "private", "resultType": "complete"});
        upstream.always("resources/list", move |request| Answer::result(&request.id(), &resources));
        let inside = Inside::start(plan(&upstream, json!("*"))).await;
        let alice = inside.legacy(path, &inside.alice).await;
        Self { upstream, inside, alice, path }
    }

    /// A call under way, and what the server says on its stream.
    async fn call(&self) -> (Reply, Feed, Value) {
        let (answer, feed) = Answer::events();
        self.upstream.next("tools/call", answer);
        let count = self.upstream.seen("tools/call").len();
        let tool = if self.path == "/mcp" { "files__echo" } else { "echo" };
        let params = json!({"name": tool, "arguments": {}, "_meta": {"progressToken": 1}});
        let stream = self.alice.request("tools/call", params).await;
        let id = self.upstream.arrived("tools/call", count + 1).await.id();
        (stream, feed, id)
    }

    /// The rest of a stream, as its client asks for it.
    fn resume(&self, token: &str, session: &str, last: &str) -> Ask {
        let ask = Ask::get(&self.inside.url(self.path)).bearer(token).header("accept", "text/event-stream");
        let ask = ask.header("mcp-session-id", session).header("mcp-protocol-version", testkit::LEGACY);
        ask.header("last-event-id", last)
    }

    async fn again(&self, last: &str) -> Reply {
        self.resume(&self.inside.alice, self.alice.session().unwrap_or_default(), last).send().await
    }
}

fn plan(upstream: &Upstream, target: Value) -> Plan {
    let rules = json!([
        {"id": "tools", "action": "tool.execute", "target": if target == "*" { json!("*/*") } else { target }, "effect": "allow"},
        {"id": "rest", "action": "resource.read", "target": "*/*", "effect": "allow"},
        {"id": "follow", "action": "resource.subscribe", "target": "*/*", "effect": "allow"},
    ]);
    Plan { era: EraSettings::Modern, policy: json!({"policy": "test", "rules": rules}), ..Plan::of(upstream) }
}

fn progress(n: u64) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": n}})
}

fn result(id: &Value, text: &str) -> Value {
    let content = json!([{"type": "text", "text": text}, {"type": "resource_link", "uri": "a:b", "name": "b"}]);
    json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete", "content": content}})
}

async fn rest(mut stream: Reply) -> Vec<Value> {
    let mut rest = Vec::new();
    while let Some(event) = soon(stream.event()).await {
        rest.push(event.json());
    }
    rest
}

#[tokio::test]
async fn a_call_whose_stream_is_cut_loses_nothing_and_repeats_nothing() {
    for path in ["/mcp/files", "/mcp"] {
        let scene = Scene::start(path).await;
        let (mut stream, feed, id) = scene.call().await;
        let primer = soon(stream.any_event()).await.unwrap();
        assert!(primer.data.is_empty() && primer.raw.contains("retry:"), "{primer:?}");
        feed.message(&progress(1)).await;
        let first = soon(stream.event()).await.unwrap();
        assert_eq!(first.json()["params"]["progress"], 1);
        drop(stream);

        // What is said while nobody reads is kept; what comes after, too.
        feed.message(&progress(2)).await;
        let mut again = scene.again(first.id.as_deref().unwrap()).await;
        assert_eq!(again.status, 200);
        let second = soon(again.event()).await.unwrap();
        assert_eq!(second.json()["params"]["progress"], 2);
        feed.message(&progress(3)).await;
        assert_eq!(soon(again.event()).await.unwrap().json()["params"]["progress"], 3);
        drop(again);
        feed.message(&result(&id, "done")).await;
        drop(feed);
        let left = rest(scene.again(second.id.as_deref().unwrap()).await).await;
        assert_eq!(left[0]["params"]["progress"], 3);
        assert_eq!((&left[1]["id"], &left[1]["result"]["content"][0]["text"]), (&id, &json!("done")));
        assert_eq!(left.len(), 2, "{left:?}");
        // From the beginning it is all there, in order.
        let all = rest(scene.again(primer.id.as_deref().unwrap()).await).await;
        assert_eq!(all.len(), 4, "{all:?}");
        // What was shown is not shown anew.
        let link = if path == "/mcp" { "durward://files/a:b" } else { "a:b" };
        assert_eq!((&left[1]["result"]["content"][1]["uri"], &all[3]["result"]), (&json!(link), &left[1]["result"]));
        assert_eq!(scene.upstream.seen("tools/call").len(), 1, "the server was called once");
    }
}

#[tokio::test]
async fn one_stream_is_given_again_and_never_another_nor_that_of_another_session() {
    let scene = Scene::start("/mcp/files").await;
    let (mut one, of_one, id_one) = scene.call().await;
    let (mut two, of_two, id_two) = scene.call().await;
    let places = [soon(one.any_event()).await.unwrap(), soon(two.any_event()).await.unwrap()];
    let places = places.map(|event| event.id.unwrap());
    assert_ne!(places[0], places[1]);
    drop((one, two));
    for (feed, id, text) in [(of_two, id_two, "two"), (of_one, id_one, "one")] {
        feed.message(&result(&id, text)).await;
    }
    for (place, text) in places.iter().zip(["one", "two"]) {
        let left = rest(scene.again(place).await).await;
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0]["result"]["content"][0]["text"], text);
    }
    // What names nothing is refused, and so is what names something to somebody else.
    for unknown in ["99-0", "files/1-0", "x"] {
        let refused = scene.again(unknown).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.json().await["error"]["code"], -32600);
    }
    let bob = scene.inside.legacy("/mcp/files", &scene.inside.bob).await;
    let foreign = scene.resume(&scene.inside.bob, scene.alice.session().unwrap(), &places[0]).send().await;
    assert_eq!(foreign.status, 404, "the session is not his");
    let own = scene.resume(&scene.inside.bob, bob.session().unwrap(), &places[0]).send().await;
    assert_eq!(own.status, 400, "and in his own there is no such stream");
}

#[tokio::test]
async fn what_the_caller_may_not_see_any_more_is_not_given_again() {
    let scene = Scene::start("/mcp/files").await;
    let (mut stream, feed, id) = scene.call().await;
    let place = soon(stream.any_event()).await.unwrap().id.unwrap();
    drop(stream);
    feed.message(&result(&id, "secret")).await;
    drop(feed);
    assert_eq!(rest(scene.again(&place).await).await.len(), 1);
    scene.inside.swap(plan(&scene.upstream, json!("files/other")));
    let refused = scene.again(&place).await;
    assert_eq!(refused.status, 400);
    assert!(!refused.text().await.contains("secret"));
    scene.inside.registry.revoke_key(&scene.inside.alice_key);
    assert_eq!(scene.again(&place).await.status, 401);
}

#[tokio::test]
async fn who_comes_back_takes_the_stream_over_from_a_connection_that_only_seems_to_live() {
    let scene = Scene::start("/mcp/files").await;
    let (mut stalled, feed, id) = scene.call().await;
    let place = soon(stalled.any_event()).await.unwrap().id.unwrap();
    let mut again = scene.again(&place).await;
    assert_eq!(soon(stalled.event()).await, None, "a message goes out on one stream");
    let last = scene.again(&place).await;
    assert_eq!(soon(again.event()).await, None, "whoever came back may be gone, too");
    feed.message(&result(&id, "done")).await;
    drop(feed);
    assert_eq!(rest(last).await.len(), 1);
}

#[tokio::test]
async fn a_call_that_is_taken_up_again_is_waited_for_when_the_gateway_stops() {
    for path in ["/mcp/files", "/mcp"] {
        let scene = Scene::start(path).await;
        let (mut stream, feed, id) = scene.call().await;
        let place = soon(stream.any_event()).await.unwrap().id.unwrap();
        drop(stream);
        feed.message(&progress(1)).await;
        let mut again = scene.again(&place).await;
        assert_eq!(soon(again.event()).await.unwrap().json()["params"]["progress"], 1);
        let mut listener = scene.alice.listen().await;
        scene.inside.state.stopping.send_replace(true);
        assert_eq!(soon(listener.event()).await, None, "whoever listens is let go");
        feed.message(&result(&id, "done")).await;
        drop(feed);
        let left = rest(again).await;
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0]["result"]["content"][0]["text"], "done");
    }
}

#[tokio::test]
async fn what_servers_say_while_a_listening_client_is_away_is_told_when_it_is_back() {
    for path in ["/mcp/files", "/mcp"] {
        let scene = Scene::start(path).await;
        let uri = if path == "/mcp" { "durward://files/a:b" } else { "a:b" };
        let subscribed = scene.alice.request("resources/subscribe", json!({"uri": uri})).await.json().await;
        assert_eq!(subscribed["result"], json!({}), "{subscribed}");
        let (answer, feed) = Answer::events();
        scene.upstream.next("subscriptions/listen", answer);
        let mut stream = scene.alice.listen().await;
        let heard = scene.upstream.arrived("subscriptions/listen", 1).await.id();
        let meta = json!({"io.modelcontextprotocol/subscriptionId": heard});
        let note = |number: u64| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "a:b", "number": number, "_meta": meta}});
        feed.message(&note(1)).await;
        let first = soon(stream.event()).await.unwrap();
        assert_eq!(first.json()["params"]["number"], 1, "{first:?}");
        drop(stream);
        feed.message(&note(2)).await;
        let mut again = scene.again(first.id.as_deref().unwrap()).await;
        let kept = soon(again.event()).await.unwrap().json();
        assert_eq!((&kept["params"]["number"], &kept["params"]["uri"]), (&json!(2), &json!(uri)));
        feed.message(&note(3)).await;
        assert_eq!(soon(again.event()).await.unwrap().json()["params"]["number"], 3);
        // Who has only the first one is given what came after it once more, in order.
        let mut more = scene.again(first.id.as_deref().unwrap()).await;
        for number in [2, 3] {
            assert_eq!(soon(more.event()).await.unwrap().json()["params"]["number"], number);
        }
        assert_eq!(scene.upstream.seen("subscriptions/listen").len(), 1, "the server was followed all the time");
        // A session that ends keeps nothing, and nobody.
        assert_eq!(scene.alice.leave().await.status, 200);
        soon(feed.closed()).await;
        assert_eq!(scene.again(first.id.as_deref().unwrap()).await.status, 404);
    }
}

#[tokio::test]
async fn a_word_of_the_gateways_own_is_given_again_like_any_other() {
    for path in ["/mcp/files", "/mcp"] {
        let scene = Scene::start(path).await;
        // A change is one of what was known.
        let line = scene.inside.state.line();
        let server = line.servers().next().cloned().unwrap();
        line.look(&server).await;
        let (answer, feed) = Answer::events();
        scene.upstream.next("subscriptions/listen", answer);
        let mut stream = scene.alice.listen().await;
        // From 2025-11-25 a stream begins with a place in it.
        let begin = soon(stream.any_event()).await.unwrap();
        scene.upstream.arrived("subscriptions/listen", 1).await;
        scene.inside.swap(plan(&scene.upstream, json!("files/none")));
        let word = soon(stream.event()).await.unwrap();
        assert_eq!(word.json()["method"], "notifications/tools/list_changed", "{word:?}");
        // The connection broke before the client had read it.
        drop(stream);
        let mut again = scene.again(begin.id.as_deref().unwrap()).await;
        let second = soon(again.event()).await.unwrap();
        assert_eq!((&second.id, second.json()), (&word.id, word.json()), "{path}");
        drop(feed);
    }
}

#[tokio::test]
async fn a_question_is_put_again_by_the_same_id_until_it_is_answered_and_as_long_as_it_may_be() {
    let upstream = Upstream::start().await;
    let all = || vec![json!({"id": "all", "action": "*", "target": "*/*", "effect": "allow"})];
    let guards = || guard::Guards::new(guard::Setting { results: guard::Mode::Mask, arguments: guard::Mode::Off });
    let plan = |rules: Vec<Value>| Plan {
        guards: guards(),
        policy: json!({"policy": "test", "rules": rules}),
        ..Plan::of(&upstream)
    };
    let inside = Inside::start(plan(all())).await;
    let alice = inside.legacy("/mcp", &inside.alice).await;
    let (answer, feed) = Answer::events();
    upstream.next("GET", answer);
    let mut stream = alice.listen().await;
    let place = soon(stream.any_event()).await.unwrap().id.unwrap();
    let message = "is ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb yours?";
    let params = json!({"message": message, "requestedSchema": {"type": "object", "properties": {}}, "_meta": {"progressToken": 5}});
    feed.message(&json!({"jsonrpc": "2.0", "id": 5, "method": "elicitation/create", "params": params})).await;
    let asked = soon(stream.event()).await.unwrap().json();
    assert!(!asked.to_string().contains("ghp_"), "{asked}");
    assert_eq!(asked["params"]["_meta"]["progressToken"], asked["id"], "both are the gateway's");
    let again = || {
        let ask = Ask::get(&inside.url("/mcp")).bearer(&inside.alice).header("accept", "text/event-stream");
        ask.header("mcp-session-id", alice.session().unwrap()).header("last-event-id", &place)
    };
    let mut stream = again().send().await;
    assert_eq!(soon(stream.event()).await.unwrap().json(), asked);
    // What came after the question tells that it was left out.
    let note =
        json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "after"}});
    feed.message(&note).await;
    assert_eq!(soon(stream.event()).await.unwrap().json(), note);
    let careful = json!({"id": "no", "action": "server.elicit", "target": "*/*", "effect": "deny", "when": "findings.exists(f, f.detector == \"secrets\")"});
    inside.swap(plan([all(), vec![careful]].concat()));
    let mut stream = again().send().await;
    assert_eq!(soon(stream.event()).await.unwrap().json(), note, "with what it holds it may not be asked any more");
    inside.swap(plan(all()));
    let mut stream = again().send().await;
    assert_eq!(soon(stream.event()).await.unwrap().json(), asked);
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}});
    assert_eq!(alice.ask("response", &answer).send().await.status, 202);
    assert_eq!(upstream.arrived("response", 1).await.json()["id"], 5);
    let mut stream = again().send().await;
    assert_eq!(soon(stream.event()).await.unwrap().json(), note, "it is answered");
}

#[tokio::test]
async fn a_completion_is_given_again_to_whom_may_see_what_it_completes() {
    let upstream = Upstream::start().await;
    let plan = |prompts: &str| {
        let rules = json!([
            {"id": "complete", "action": "completion.complete", "target": "*/*", "effect": "allow"},
            {"id": "prompts", "action": "prompt.get", "target": prompts, "effect": "allow"},
        ]);
        Plan { era: EraSettings::Modern, policy: json!({"policy": "test", "rules": rules}), ..Plan::of(&upstream) }
    };
    let inside = Inside::start(plan("*/*")).await;
    let alice = inside.legacy("/mcp/files", &inside.alice).await;
    let (answer, feed) = Answer::events();
    upstream.next("completion/complete", answer);
    let argument = json!({"name": "a", "value": "b"});
    let params = json!({"ref": {"type": "ref/prompt", "name": "greet"}, "argument": argument});
    let mut stream = alice.request("completion/complete", params).await;
    let id = upstream.arrived("completion/complete", 1).await.id();
    let place = soon(stream.any_event()).await.unwrap().id.unwrap();
    drop(stream);
    let completion = json!({"resultType": "complete", "completion": {"values": ["bob"]}});
    feed.message(&json!({"jsonrpc": "2.0", "id": id, "result": completion})).await;
    drop(feed);
    let again = || {
        let ask = Ask::get(&inside.url("/mcp/files")).bearer(&inside.alice).header("accept", "text/event-stream");
        ask.header("mcp-session-id", alice.session().unwrap()).header("last-event-id", &place).send()
    };
    assert_eq!(rest(again().await).await[0]["result"]["completion"]["values"], json!(["bob"]));
    inside.swap(plan("files/other"));
    assert_eq!(again().await.status, 400);
}
