//! `/mcp`: every server as one, and none of them costs the others anything.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod address;

#[path = "../world/mod.rs"]
mod world;

use http::StatusCode;
use serde_json::{Value, json};
use testkit::{Answer, Received, Upstream, soon};
use world::{World, http};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

fn relayed(upstream: &Upstream, name: &str) -> Vec<Received> {
    upstream.seen(name).into_iter().filter(|request| request.header("durward-call-id").is_some()).collect()
}

fn tool(name: &str) -> Value {
    json!({"name": name, "inputSchema": {"type": "object"}, "annotations": {"title": "T"}, "x": 1})
}

/// Two servers, `a` and `b`, and `c` which nobody runs.
async fn three() -> (Upstream, Upstream, World) {
    let (a, b) = (Upstream::with_tools(["read", "erase"]).await, Upstream::with_tools(["read"]).await);
    let gone = Upstream::start().await;
    let servers = format!("{}{}{}", http("a", &a), http("b", &b), http("c", &gone));
    drop(gone);
    (a, b, World::start(&servers).await)
}

#[tokio::test]
async fn one_server_down_costs_its_own_entries() {
    let (_a, _b, world) = three().await;
    for agent in [world.legacy("/mcp").await, world.modern("/mcp")] {
        let answer = agent.request("tools/list", json!({})).await.json().await;
        let names: Vec<&str> =
            answer["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["a__read", "a__erase", "b__read"], "{answer}");
        let missing = &answer["result"]["_meta"]["durward/unavailable"];
        assert_eq!(missing[0]["server"], "c", "{answer}");
        assert!(missing[0]["reason"].as_str().unwrap().contains("cannot be reached"), "{answer}");
        let answer = agent.call("c__x", json!({})).await;
        assert!(answer["error"]["message"].is_string(), "{answer}");
        assert!(agent.call("b__read", json!({"x": 1})).await.get("result").is_some());
    }
}

#[tokio::test]
async fn every_page_is_read() {
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    a.always("tools/list", |request| {
        let cursor = request.json().pointer("/params/cursor").cloned();
        let (tools, next) = match cursor.as_ref().and_then(Value::as_str) {
            None => (vec![tool("one")], Some("")),
            Some("") => (vec![tool("two"), tool("three")], Some("p3 \"x\"")),
            Some("p3 \"x\"") => (vec![], Some("p4")),
            Some("p4") => (vec![tool("four")], None),
            Some(_) => panic!("a cursor that was never given"),
        };
        let mut result = json!({"tools": tools, "ttlMs": 0, "cacheScope": "public", "resultType": "complete"});
        if let Some(next) = next {
            result["nextCursor"] = json!(next);
        }
        Answer::result(&request.id(), &result)
    });
    // A server that turns in circles is left out rather than followed for ever.
    b.always("tools/list", |request| {
        Answer::result(&request.id(), &json!({"tools": [tool("x")], "nextCursor": "same"}))
    });
    // So is one that says that there is more, and not where. `null` says that there is none.
    let (c, d) = (Upstream::start().await, Upstream::start().await);
    for (server, next) in [(&c, json!(7)), (&d, Value::Null)] {
        server.always("tools/list", move |request| {
            let result = json!({"tools": [tool("x")], "nextCursor": next, "resultType": "complete"});
            Answer::result(&request.id(), &result)
        });
    }
    let servers = [("a", &a), ("b", &b), ("c", &c), ("d", &d)].map(|(name, server)| http(name, server));
    let world = World::start(&servers.concat()).await;
    for agent in [world.legacy("/mcp").await, world.modern("/mcp")] {
        assert_eq!(agent.tools().await, ["a__one", "a__two", "a__three", "a__four", "d__x"]);
    }
    let list = world.modern("/mcp").request("tools/list", json!({})).await.json().await;
    assert_eq!(list["result"]["cacheScope"], "private");
    assert_eq!(list["result"]["tools"][0]["annotations"], json!({"title": "T"}));
    assert_eq!(list["result"]["tools"][0]["x"], 1);
}

#[tokio::test]
async fn names_are_short_and_lead_back() {
    let long = "a_very_long_tool_name_that_no_model_api_would_take_as_it_is_because_it_is_long";
    let odd = "read page/é";
    let a = Upstream::start().await;
    a.set_tools(vec![tool(long), tool(odd), tool("plain")]);
    // Two of one kind: only where a call arrives says which is which.
    let (x, y) = (Upstream::with_tools(["b__c", "c"]).await, Upstream::with_tools(["b__c", "c"]).await);
    let all = [&a, &x, &y];
    let leads = [(0, long), (0, odd), (0, "plain"), (1, "b__c"), (1, "c"), (2, "b__c"), (2, "c")];
    let calls = || all.map(|upstream| relayed(upstream, "tools/call").len());
    let servers = format!("{}{}{}", http("a", &a), http("x", &x), http("y", &y));
    let world = World::start(&servers).await;
    for agent in [world.legacy("/mcp").await, world.modern("/mcp")] {
        let names = agent.tools().await;
        assert_eq!(names.len(), leads.len(), "{names:?}");
        assert!(
            names
                .iter()
                .all(|name| name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))),
            "{names:?}"
        );
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), names.len());
        for (shown, (server, real)) in names.iter().zip(leads) {
            let call = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": shown, "arguments": {"n": 1.0, "a": "\u{e9}"}}});
            let modern = agent.session().is_none();
            let call = if modern { with_meta(call) } else { call };
            let mut expected = calls();
            expected[server] += 1;
            let answer = agent.ask("tools/call", &call).send().await.json().await;
            assert!(answer.get("result").is_some(), "{shown}: {answer}");
            assert_eq!(calls(), expected, "{shown} leads to one server");
            let seen = relayed(all[server], "tools/call").pop().unwrap();
            assert_eq!(seen.json()["params"]["name"], real);
            assert_eq!(seen.json()["params"]["arguments"], call["params"]["arguments"]);
            if modern {
                let header = seen.header("mcp-name").unwrap();
                assert!(header == real || header.starts_with("=?base64?"), "{header}");
            }
        }
    }
}

fn with_meta(mut message: Value) -> Value {
    message["params"]["_meta"] = testkit::meta();
    message
}

#[tokio::test]
async fn prompts_find_their_server() {
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    b.always("prompts/list", |request| {
        Answer::result(
            &request.id(),
            &json!({"prompts": [{"name": "greet", "title": "G"}], "ttlMs": 0, "cacheScope": "public"}),
        )
    });
    for (name, upstream) in [("a", &a), ("b", &b)] {
        for (method, member, given) in
            [("prompts/get", "messages", json!([])), ("completion/complete", "completion", json!({"values": []}))]
        {
            upstream.always(method, move |request| {
                let saw = &request.json()["params"];
                let result = json!({member: given, "from": name, "saw": saw, "resultType": "complete"});
                Answer::result(&request.id(), &result)
            });
        }
    }
    let world = World::start(&format!("{}{}", http("a", &a), http("b", &b))).await;
    for agent in [world.legacy("/mcp").await, world.modern("/mcp")] {
        let prompts = agent.request("prompts/list", json!({})).await.json().await;
        assert_eq!(prompts["result"]["prompts"], json!([{"name": "b__greet", "title": "G"}]));
        let answer = agent.request("prompts/get", json!({"name": "b__greet"})).await.json().await;
        assert_eq!((&answer["result"]["from"], &answer["result"]["saw"]["name"]), (&json!("b"), &json!("greet")));
        let reference = json!({"type": "ref/prompt", "name": "b__greet"});
        let asked = json!({"ref": reference, "argument": {"name": "x", "value": "y"}});
        let answer = agent.request("completion/complete", asked).await.json().await;
        let seen = json!({"type": "ref/prompt", "name": "greet"});
        assert_eq!((&answer["result"]["from"], &answer["result"]["saw"]["ref"]), (&json!("b"), &seen), "{answer}");
    }
}

#[tokio::test]
async fn what_servers_say_comes_on_one_stream_and_once() {
    let (a, b, world) = three().await;
    let agent = world.legacy("/mcp").await;
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    let (from_a, feed_a) = Answer::events();
    let (from_b, feed_b) = Answer::events();
    a.next("GET", from_a);
    b.next("GET", from_b);
    let first = agent.listen().await;
    a.arrived("GET", 1).await;
    b.arrived("GET", 1).await;
    // A newer stream replaces the older one; the servers are followed once all the same.
    let mut stream = agent.listen().await;
    drop(first);
    for (upstream, feed) in [(&a, &feed_a), (&b, &feed_b)] {
        upstream.set_tools(vec![tool("new")]);
        feed.message(&changed).await;
        assert_eq!(soon(stream.event()).await.unwrap().json(), changed);
    }
    // Two servers ask under the same id: the client can tell them apart, and each gets its own answer.
    let question = json!({"jsonrpc": "2.0", "id": 1, "method": "roots/list"});
    feed_a.message(&question).await;
    let one = soon(stream.event()).await.unwrap().json();
    feed_b.message(&question).await;
    let two = soon(stream.event()).await.unwrap().json();
    assert_ne!(one["id"], two["id"]);
    for (asked, upstream) in [(&two, &b), (&one, &a)] {
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}}).to_string();
        let sent = world.post("/mcp", &answer).header("mcp-session-id", agent.session().unwrap()).send().await;
        assert_eq!(sent.status, 202);
        assert_eq!(upstream.arrived("response", 1).await.id(), json!(1));
    }
    assert_eq!((a.seen("GET").len(), b.seen("GET").len()), (1, 1));
    // A server that takes its question back names it as the client knows it.
    feed_a.message(&json!({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})).await;
    let asked = soon(stream.event()).await.unwrap().json();
    feed_a.message(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q"}})).await;
    assert_eq!(soon(stream.event()).await.unwrap().json()["params"]["requestId"], asked["id"]);
}

#[tokio::test]
async fn no_server_speaks_for_another() {
    let (a, _b, world) = three().await;
    let agent = world.legacy("/mcp").await;
    let (from_a, feed_a) = Answer::events();
    a.next("GET", from_a);
    let mut stream = agent.listen().await;
    a.arrived("GET", 1).await;
    // An answer to what the client asks of `b`, and the end of a question that `a` never put.
    feed_a.message(&json!({"jsonrpc": "2.0", "id": 7, "result": {"content": []}})).await;
    feed_a.message(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}})).await;
    let said = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}});
    feed_a.message(&said).await;
    assert_eq!(soon(stream.event()).await.unwrap().json(), said);
}

#[tokio::test]
async fn modern_listeners_hear_all_servers_under_their_own_id() {
    let (a, b, world) = three().await;
    let agent = world.modern("/mcp");
    let (from_a, feed_a) = Answer::events();
    let (from_b, feed_b) = Answer::events();
    a.next("subscriptions/listen", from_a);
    b.next("subscriptions/listen", from_b);
    let wanted = json!({"notifications": {"toolsListChanged": true, "unknown": true}});
    let mut stream = agent.request("subscriptions/listen", wanted).await;
    let first = soon(stream.event()).await.unwrap().json();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(first["params"]["notifications"], json!({"toolsListChanged": true}));
    let id = first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"].clone();
    for (feed, upstream) in [(&feed_a, &a), (&feed_b, &b)] {
        let asked = upstream.arrived("subscriptions/listen", 1).await;
        let meta = json!({"io.modelcontextprotocol/subscriptionId": asked.id()});
        feed.message(
            &json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {"_meta": meta}}),
        )
        .await;
        upstream.set_tools(vec![tool("new")]);
        feed.message(
            &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"_meta": meta}}),
        )
        .await;
        let event = soon(stream.event()).await.unwrap().json();
        assert_eq!(event["method"], "notifications/tools/list_changed", "one acknowledgement is enough");
        assert_eq!(event["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], id);
    }
    drop(stream);
    soon(feed_a.closed()).await;
    soon(feed_b.closed()).await;
}

#[tokio::test]
async fn a_session_forgotten_by_one_server_is_opened_anew() {
    let (a, _b, world) = three().await;
    let agent = world.legacy("/mcp").await;
    assert!(agent.call("a__read", json!({})).await.get("result").is_some());
    let forgotten = || {
        Answer::json(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}"#)
            .with_status(StatusCode::NOT_FOUND)
    };
    // Nobody knows that `read` only reads: it is not sent twice.
    a.next("tools/call", forgotten());
    let answer = agent.call("a__read", json!({"again": 1})).await;
    assert_eq!(answer["error"]["code"], -31006, "{answer}");
    assert!(agent.call("a__read", json!({"again": 2})).await.get("result").is_some());
    a.always("prompts/get", |request| Answer::result(&request.id(), &json!({"messages": []})));
    a.next("prompts/get", forgotten());
    let prompt = agent.request("prompts/get", json!({"name": "a__p"})).await.json().await;
    assert!(prompt.get("result").is_some(), "the client never hears of it: {prompt}");
    let session = |call: &Received| call.header("mcp-session-id").map(str::to_owned);
    let sessions: Vec<_> = relayed(&a, "tools/call").iter().map(session).collect();
    assert_eq!(sessions.len(), 3);
    assert_eq!(sessions[0], sessions[1]);
    assert_ne!(sessions[1], sessions[2]);
    // What is no word about the session leaves it as it is.
    a.next("tools/call", Answer::status(StatusCode::INTERNAL_SERVER_ERROR));
    a.next("tools/call", Answer::error(&json!(null), -32000, "no").with_status(StatusCode::TOO_MANY_REQUESTS));
    for _ in 0..3 {
        drop(agent.call("a__read", json!({})).await);
    }
    let sessions: Vec<_> = relayed(&a, "tools/call").iter().skip(3).map(session).collect();
    assert_eq!(sessions.len(), 3);
    assert!(sessions.iter().all(|other| *other == sessions[0]), "{sessions:?}");
    a.next("tools/list", forgotten());
    assert!(agent.tools().await.contains(&"a__read".to_owned()));
    // Others say 400, also to a ping: the call fails, with 200 and an error, and the next one works.
    a.next("tools/call", Answer::status(StatusCode::BAD_REQUEST)).next("ping", Answer::status(StatusCode::BAD_REQUEST));
    let reply = agent.request("tools/call", json!({"name": "a__read"})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json().await["error"]["code"], -31006);
    assert!(agent.call("a__read", json!({})).await.get("result").is_some());
    // It never answers the session at all: the client's own session lives on.
    a.always("tools/call", move |_| forgotten());
    assert_eq!(agent.request("tools/call", json!({"name": "a__read"})).await.status, 200);
    assert!(agent.call("b__read", json!({})).await.get("result").is_some());
}

#[tokio::test]
async fn a_server_that_does_not_hear_the_end_of_a_session_in_time_is_named_in_the_log() {
    let (a, b, world) = three().await;
    let agent = world.legacy("/mcp").await;
    for tool in ["a__read", "b__read"] {
        assert!(agent.call(tool, json!({})).await.get("result").is_some());
    }
    a.always("DELETE", |_| Answer::hang());
    let before = b.seen("DELETE").len();
    assert_eq!(soon(agent.leave()).await.status, 200);
    let said = world.says("did not hear in time that its session is over").await;
    assert!(said.contains("WARN") && said.contains("server=a"), "{said}");
    assert_eq!(b.seen("DELETE").len(), before + 1, "it holds up nobody else");
}

#[tokio::test]
async fn levels_and_cancellations_go_where_they_belong() {
    let (a, b, world) = three().await;
    let agent = world.legacy("/mcp").await;
    for upstream in [&a, &b] {
        upstream.always("logging/setLevel", |request| Answer::result(&request.id(), &json!({})));
    }
    assert!(agent.call("a__read", json!({})).await.get("result").is_some());
    let answer = agent.request("logging/setLevel", json!({"level": "debug"})).await.json().await;
    assert_eq!(answer["result"], json!({}));
    assert_eq!(a.arrived("logging/setLevel", 1).await.json()["params"]["level"], "debug");
    // A session opened later has the level, too.
    assert!(b.seen("logging/setLevel").is_empty());
    assert!(agent.call("b__read", json!({})).await.get("result").is_some());
    assert_eq!(b.arrived("logging/setLevel", 1).await.json()["params"]["level"], "debug");

    let (answer, feed) = Answer::events();
    a.next("tools/call", answer);
    let call = json!({"jsonrpc": "2.0", "id": "slow", "method": "tools/call", "params": {"name": "a__read"}});
    let mut reply = agent.ask("tools/call", &call).send().await;
    let cancel = |id: &str| {
        let agent = &agent;
        let params = json!({"requestId": id, "reason": "r"});
        async move { agent.notify("notifications/cancelled", params).await.status }
    };
    assert_eq!(cancel("slow").await, 202);
    let seen = a.arrived("notifications/cancelled", 1).await;
    assert_eq!(seen.json()["params"], json!({"requestId": "slow", "reason": "r"}));
    feed.message(&json!({"jsonrpc": "2.0", "id": "slow", "result": {"content": []}})).await;
    drop(feed);
    assert!(soon(reply.event()).await.is_some());
    assert!(soon(reply.event()).await.is_none());
    assert_eq!(cancel("slow").await, 202, "what is over cannot be cancelled, and that is no error");
    assert_eq!(cancel("never").await, 202);
    assert_eq!(a.seen("notifications/cancelled").len(), 1);
    assert!(b.seen("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn an_introduction_says_what_can_be_delivered() {
    let (a, b, world) = three().await;
    let hello = r#"{"jsonrpc":"2.0","id":"h","method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
    let reply = world.post("/mcp", hello).send().await;
    assert!(reply.header("mcp-session-id").is_some());
    let answer = reply.json().await;
    assert_eq!(answer["id"], "h");
    assert_eq!(answer["result"]["protocolVersion"], "2025-06-18");
    // One server is down: nobody knows what it would have. When it is back, the gateway says so itself.
    assert_eq!(
        answer["result"]["capabilities"],
        json!({
            "tools": {"listChanged": true}, "prompts": {"listChanged": true},
            "resources": {"listChanged": true, "subscribe": true}
        })
    );
    let answer = world.modern("/mcp").request("server/discover", json!({})).await.json().await;
    assert_eq!(answer["result"]["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(answer["result"]["cacheScope"], "private");
    let hidden = world.modern("/mcp").call("a__nothing", json!({})).await;
    assert_eq!(hidden["error"]["code"], -32602);
    drop((a, b));
}

#[tokio::test]
async fn servers_to_which_no_bridge_may_lead_are_left_out_and_said_so() {
    let (a, b) = (Upstream::with_tools(["old"]).await, Upstream::with_tools(["new"]).await);
    let servers = format!(
        "servers:\n  a: {{ url: \"{}\", internal: true, era: legacy, bridge: false }}\n  b: {{ url: \"{}\", internal: true, era: modern, bridge: false }}\n",
        a.url(),
        b.url()
    );
    let world = World::with(&servers, world::ALL).await;
    assert_eq!(world.legacy("/mcp").await.tools().await, ["a__old"]);
    assert_eq!(world.modern("/mcp").tools().await, ["b__new"]);
    // A list says whom it leaves out, and whoever names such a server is told, whatever that has.
    for (agent, left, name) in [(world.legacy("/mcp").await, "b", "b__new"), (world.modern("/mcp"), "a", "a__none")] {
        let list = agent.request("tools/list", json!({})).await.json().await;
        let missing = &list["result"]["_meta"]["durward/unavailable"];
        assert_eq!((missing.as_array().unwrap().len(), &missing[0]["server"]), (1, &json!(left)), "{list}");
        let answer = agent.call(name, json!({})).await;
        assert_eq!(answer["error"]["code"], -32022, "{answer}");
        for told in [&missing[0]["reason"], &answer["error"]["message"]] {
            let told = told.as_str().unwrap();
            assert!(told.contains("legacy") && told.contains("modern"), "{told}");
        }
        assert_eq!(agent.call("c__none", json!({})).await["error"]["code"], -32602);
    }
    let answer = world.modern("/mcp/a").request("tools/list", json!({})).await;
    assert_eq!(answer.status, 400);
    let answer = answer.json().await;
    assert_eq!(answer["error"]["code"], -32022, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("legacy"), "{answer}");
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let reply = world.post("/mcp/b", &hello.to_string()).send().await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json().await["error"]["data"]["supported"], json!(["2026-07-28"]));
}

const BROKEN: [&str; 3] = ["server/discover", "initialize", "tools/list"];

#[tokio::test]
async fn the_bound_of_a_server_counts_on_both_doors() {
    let (a, b) = (Upstream::with_tools(["read"]).await, Upstream::with_tools(["read"]).await);
    let servers =
        format!("servers:\n  a: {{ url: \"{}\", internal: true, calls_in_flight: 1 }}\n{}", a.url(), http("b", &b));
    let world = World::with(&servers, world::ALL).await;
    let agent = world.modern("/mcp");
    assert_eq!(agent.tools().await, ["a__read", "b__read"]);
    let (answer, feed) = Answer::events();
    a.next("tools/call", answer);
    let call = world.modern("/mcp/a");
    let mut reply = call.request("tools/call", json!({"name": "read", "arguments": {}})).await;
    let lists = a.seen("tools/list").len();
    let list = agent.request("tools/list", json!({})).await.json().await;
    assert_eq!(list["result"]["tools"][0]["name"], "b__read", "{list}");
    let missing = &list["result"]["_meta"]["durward/unavailable"][0];
    assert_eq!((&missing["server"], missing["reason"].as_str().unwrap().contains("in flight")), (&json!("a"), true));
    assert_eq!(a.seen("tools/list").len(), lists, "it is not asked beyond its bound");
    let id = a.arrived("tools/call", 1).await.id();
    feed.message(&json!({"jsonrpc": "2.0", "id": id, "result": {"content": [], "resultType": "complete"}})).await;
    drop(feed);
    while soon(reply.event()).await.is_some() {}
    let mut turns = tokio::time::interval(std::time::Duration::from_millis(5));
    soon(async {
        while agent.tools().await.len() < 2 {
            turns.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_comes_back_is_announced() {
    let (a, b) = (Upstream::with_tools(["read"]).await, Upstream::with_tools(["late"]).await);
    for method in BROKEN {
        b.always(method, |_| Answer::status(StatusCode::INTERNAL_SERVER_ERROR));
    }
    let world = World::start(&format!("{}{}", http("a", &a), http("b", &b))).await;
    let (legacy, modern) = (world.legacy("/mcp").await, world.modern("/mcp"));
    assert_eq!(legacy.tools().await, ["a__read"]);
    let mut stream = legacy.listen().await;
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut merged = modern.request("subscriptions/listen", wanted).await;
    let id = soon(merged.event()).await.unwrap().json()["params"]["_meta"][SUBSCRIPTION].clone();
    for method in BROKEN {
        b.honestly(method);
    }
    // Whoever asks next causes the look. A look that failed a moment ago is not repeated at once.
    let mut turns = tokio::time::interval(std::time::Duration::from_millis(100));
    let asking = async {
        loop {
            turns.tick().await;
            drop(modern.request("server/discover", json!({})).await.json().await);
        }
    };
    let told = tokio::select! {
        told = soon(async { (stream.event().await.unwrap(), merged.event().await.unwrap()) }) => told,
        () = asking => unreachable!("it asks for ever"),
    };
    for event in [&told.0, &told.1] {
        assert_eq!(event.json()["method"], "notifications/tools/list_changed");
    }
    assert_eq!(told.1.json()["params"]["_meta"][SUBSCRIPTION], id);
    assert_eq!(modern.tools().await, ["a__read", "b__late"]);
}

#[tokio::test]
async fn the_end_of_a_session_reaches_every_server() {
    let (a, b, world) = three().await;
    let agent = world.legacy("/mcp").await;
    assert_eq!(agent.tools().await.len(), 3);
    let sessions: Vec<_> = [&a, &b].map(|upstream| upstream.seen("notifications/initialized").pop().unwrap()).into();
    assert_eq!(agent.leave().await.status, 200);
    for (upstream, ready) in [&a, &b].into_iter().zip(&sessions) {
        let ended = |end: &Received| {
            end.header("mcp-session-id").is_some() && end.header("mcp-session-id") == ready.header("mcp-session-id")
        };
        world.until(|| upstream.seen("DELETE").iter().any(ended)).await;
    }
    assert_eq!(agent.request("ping", json!({})).await.status, 404);
}
