//! Addresses of resources on `/mcp`: each is one server's, and leads to that server alone.

use super::{relayed, tool};
use crate::world::{World, http, records};
use http::StatusCode;
use serde_json::{Value, json};
use testkit::{Agent, Answer, Upstream, soon};

/// What both servers list.
const LISTED: [&str; 4] = ["ui://view/main.html", "file:///both", "https://example.com/page", "memo:both"];

fn listed(name: &str, entries: &Value) -> Value {
    json!({name: entries, "ttlMs": 0, "cacheScope": "public", "resultType": "complete"})
}

/// A server that lists [`LISTED`] and answers with its name, by the addresses that it was asked for.
async fn scripted(name: &'static str) -> Upstream {
    let upstream = Upstream::start().await;
    let resources: Value = LISTED.iter().map(|uri| json!({"uri": uri, "name": name, "size": 1.0})).collect();
    upstream.always("resources/list", move |request| Answer::result(&request.id(), &listed("resources", &resources)));
    upstream.always("resources/templates/list", move |request| {
        let templates = json!([{"uriTemplate": "db://{table}/{+row}", "name": name}]);
        Answer::result(&request.id(), &listed("resourceTemplates", &templates))
    });
    upstream.always("resources/read", move |request| {
        let uri = &request.json()["params"]["uri"];
        let contents = json!([{"uri": uri, "text": name}]);
        Answer::result(&request.id(), &listed("contents", &contents))
    });
    for method in ["completion/complete", "resources/subscribe", "resources/unsubscribe"] {
        upstream.always(method, move |request| {
            let values = json!({"completion": {"values": [name]}, "resultType": "complete"});
            Answer::result(&request.id(), &values)
        });
    }
    upstream
}

async fn two() -> (Upstream, Upstream, World) {
    let (a, b) = (scripted("a").await, scripted("b").await);
    let world = World::start(&format!("{}{}", http("a", &a), http("b", &b))).await;
    (a, b, world)
}

async fn ask(agent: &Agent, method: &str, params: Value) -> Value {
    agent.request(method, params).await.json().await
}

fn texts<'v>(answer: &'v Value, list: &str, member: &str) -> Vec<&'v str> {
    let entries = answer["result"][list].as_array().unwrap();
    entries.iter().map(|entry| entry[member].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_address_is_one_servers_and_leads_to_it_alone() {
    let (a, b, world) = two().await;
    for agent in [world.legacy("/mcp").await, world.modern("/mcp")] {
        let list = ask(&agent, "resources/list", json!({})).await;
        let shown = texts(&list, "resources", "uri");
        assert_eq!(
            shown,
            [
                "ui://a/view/main.html",
                "durward://a/file:///both",
                "durward://a/https://example.com/page",
                "durward://a/memo:both",
                "ui://b/view/main.html",
                "durward://b/file:///both",
                "durward://b/https://example.com/page",
                "durward://b/memo:both",
            ]
        );
        assert_eq!(list["result"]["resources"][0]["size"], 1.0);
        let templates = ask(&agent, "resources/templates/list", json!({})).await;
        assert_eq!(
            texts(&templates, "resourceTemplates", "uriTemplate"),
            ["durward://a/db://{table}/{+row}", "durward://b/db://{table}/{+row}"]
        );
        let listed = shown.iter().zip(LISTED.iter().chain(&LISTED)).map(|(shown, own)| (*shown, *own));
        let expanded = [("durward://a/db://users/7/x", "db://users/7/x"), ("durward://b/db://users/7", "db://users/7")];
        // Links may lead to what is not listed.
        let linked = [("durward://b/file:///linked#part", "file:///linked#part")];
        for (shown, own) in listed.chain(expanded).chain(linked) {
            let (name, server) = if shown.contains("://a/") { ("a", &a) } else { ("b", &b) };
            let answer = ask(&agent, "resources/read", json!({"uri": shown})).await;
            assert_eq!(answer["result"]["contents"], json!([{"uri": shown, "text": name}]), "{answer}");
            let seen = relayed(server, "resources/read").pop().unwrap();
            assert_eq!(seen.json()["params"]["uri"], own);
            if agent.session().is_none() {
                assert_eq!(seen.header("mcp-name"), Some(own));
            }
            let asked = json!({"ref": {"type": "ref/resource", "uri": shown}, "argument": {"name": "x", "value": "y"}});
            let answer = ask(&agent, "completion/complete", asked).await;
            assert_eq!(answer["result"]["completion"]["values"], json!([name]), "{answer}");
            let seen = relayed(server, "completion/complete").pop().unwrap();
            assert_eq!(seen.json()["params"]["ref"], json!({"type": "ref/resource", "uri": own}));
        }
        // Without its server, or spelled in another way, an address is nobody's, however few list it.
        let before = (a.received(), b.received());
        for nobodys in
            LISTED.into_iter().chain(["db://users/7", "durward://a/ui://view/main.html", "durward://c/x:y", "ui://c/x"])
        {
            let answer = ask(&agent, "resources/read", json!({"uri": nobodys})).await;
            let code = if agent.session().is_some() { -32002 } else { -32602 };
            assert_eq!(answer["error"]["code"], code, "{answer}");
            assert_eq!(answer["error"]["data"]["uri"], nobodys);
        }
        assert_eq!((a.received(), b.received()), before, "nobody was asked");
    }
    // On its own door a server keeps its addresses.
    let own = ask(&world.modern("/mcp/b"), "resources/list", json!({})).await;
    assert_eq!(texts(&own, "resources", "uri"), LISTED);
}

#[tokio::test]
async fn what_a_server_lists_never_becomes_anothers() {
    let (a, b, world) = two().await;
    let agent = world.modern("/mcp");
    let read = async || ask(&agent, "resources/read", json!({"uri": "durward://a/memo:both"})).await;
    assert_eq!(read().await["result"]["contents"][0]["text"], "a");
    // It lists the address no more; then it is down; then it is not there at all.
    a.always("resources/list", |request| Answer::result(&request.id(), &listed("resources", &json!([]))));
    assert_eq!(read().await["result"]["contents"][0]["text"], "a");
    a.always("resources/read", |_| Answer::status(StatusCode::INTERNAL_SERVER_ERROR));
    assert!(read().await.get("result").is_none());
    world.reload(&format!("servers:\n{}", http("b", &b))).await;
    assert_eq!(read().await["error"]["code"], -32602);
    assert!(b.seen("resources/read").is_empty(), "the other server was never asked");
}

/// A tool's result with its app, a link, what is embedded, and words of its own.
fn shown_by_tool() -> Value {
    json!({
        "content": [
            {"type": "text", "text": "see file:///both"},
            {"type": "resource_link", "uri": "file:///both", "name": "both", "vendor": 1.0},
            {"type": "resource_link", "uri": "https://example.com/page", "name": "listed"},
            {"type": "resource_link", "uri": "https://example.com/elsewhere", "name": "linked"},
            {"type": "resource", "resource": {"uri": "ui://view/main.html", "text": "<p>"}},
        ],
        "structuredContent": {"uri": "file:///both"},
        "_meta": {"ui": {"resourceUri": "ui://view/main.html"}},
        "resultType": "complete",
    })
}

#[tokio::test]
async fn an_app_is_found_by_the_address_that_its_tool_names() {
    let (a, b, world) = two().await;
    for upstream in [&a, &b] {
        let mut shows = tool("show");
        shows["_meta"] = json!({
            "ui": {"resourceUri": "ui://view/main.html", "visibility": ["model"]}, "ui/resourceUri": "ui://view/main.html",
            "openai/outputTemplate": "ui://view/main.html",
        });
        upstream.set_tools(vec![shows]);
    }
    a.always("prompts/get", |request| {
        let content = json!({"type": "resource", "resource": {"uri": "memo:both", "text": "m"}});
        let messages = json!([{"role": "user", "content": content}]);
        Answer::result(&request.id(), &json!({"messages": messages, "resultType": "complete"}))
    });
    for agent in [world.legacy("/mcp").await, world.modern("/mcp")] {
        let tools = ask(&agent, "tools/list", json!({})).await;
        let resources = ask(&agent, "resources/list", json!({})).await;
        for (at, name) in [(0, "a"), (1, "b")] {
            let meta = &tools["result"]["tools"][at]["_meta"];
            let app = format!("ui://{name}/view/main.html");
            assert_eq!(meta["ui"], json!({"resourceUri": app, "visibility": ["model"]}));
            assert_eq!((&meta["ui/resourceUri"], &meta["openai/outputTemplate"]), (&json!(app), &json!(app)));
            assert!(texts(&resources, "resources", "uri").contains(&&*app), "hosts compare them as they are");
            let answer = ask(&agent, "resources/read", json!({"uri": app})).await;
            assert_eq!(answer["result"]["contents"], json!([{"uri": app, "text": name}]));
        }
        // The same comes of an answer that streams.
        let expected = json!([
            {"type": "text", "text": "see file:///both"},
            {"type": "resource_link", "uri": "durward://b/file:///both", "name": "both", "vendor": 1.0},
            {"type": "resource_link", "uri": "durward://b/https://example.com/page", "name": "listed"},
            {"type": "resource_link", "uri": "https://example.com/elsewhere", "name": "linked"},
            {"type": "resource", "resource": {"uri": "ui://b/view/main.html", "text": "<p>"}},
        ]);
        for streams in [false, true] {
            b.always("tools/call", move |request| {
                let answer = json!({"jsonrpc": "2.0", "id": request.id(), "result": shown_by_tool()});
                if streams {
                    Answer::event_text(format!(": hello\n\nevent: message\ndata: {answer}\n\n"))
                } else {
                    Answer::json(answer.to_string())
                }
            });
            let mut reply = agent.request("tools/call", json!({"name": "b__show", "arguments": {}})).await;
            let answer = if streams { soon(reply.event()).await.unwrap().json() } else { reply.json().await };
            assert_eq!(answer["result"]["content"], expected, "{answer}");
            assert_eq!(answer["result"]["structuredContent"], json!({"uri": "file:///both"}), "its own words stay");
            assert_eq!(answer["result"]["_meta"]["ui"]["resourceUri"], "ui://b/view/main.html");
        }
        let prompt = ask(&agent, "prompts/get", json!({"name": "a__p"})).await;
        assert_eq!(prompt["result"]["messages"][0]["content"]["resource"]["uri"], "durward://a/memo:both");
        // What a host says about an app in its metadata reaches the server by the server's own address.
        let mut params = json!({"name": "b__show", "arguments": {"uri": "ui://b/view/main.html"}});
        let meta = if agent.session().is_none() { testkit::meta() } else { json!({}) };
        params["_meta"] = meta;
        params["_meta"]["ui"] = json!({"resourceUri": "ui://b/view/main.html"});
        let call = json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params});
        drop(agent.ask("tools/call", &call).send().await.text().await);
        let seen = relayed(&b, "tools/call").pop().unwrap().json()["params"].clone();
        assert_eq!(seen["_meta"]["ui"]["resourceUri"], "ui://view/main.html", "{seen}");
        assert_eq!(seen["arguments"]["uri"], "ui://b/view/main.html", "arguments are the tool's");
    }
}

#[tokio::test]
async fn news_of_a_resource_come_by_the_address_that_is_followed() {
    let (a, b, world) = two().await;
    let updated =
        |uri: &str| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}});
    let legacy = world.legacy("/mcp").await;
    for (shown, own) in [("durward://b/file:///both", "file:///both"), ("ui://b/view/main.html", "ui://view/main.html")]
    {
        let answer = ask(&legacy, "resources/subscribe", json!({"uri": shown})).await;
        assert!(answer["result"].is_object(), "{answer}");
        assert_eq!(b.seen("resources/subscribe").pop().unwrap().json()["params"]["uri"], own);
    }
    let (events, feed) = Answer::events();
    b.next("GET", events);
    let mut stream = legacy.listen().await;
    b.arrived("GET", 1).await;
    feed.message(&updated("file:///both")).await;
    assert_eq!(soon(stream.event()).await.unwrap().json(), updated("durward://b/file:///both"));
    let answer = ask(&legacy, "resources/unsubscribe", json!({"uri": "ui://b/view/main.html"})).await;
    assert!(answer["result"].is_object(), "{answer}");
    assert_eq!(b.seen("resources/unsubscribe").pop().unwrap().json()["params"]["uri"], "ui://view/main.html");
    assert!(a.seen("resources/subscribe").is_empty() && a.seen("resources/unsubscribe").is_empty());

    let ((events, feed), (events_of_a, _feed_of_a)) = (Answer::events(), Answer::events());
    b.next("subscriptions/listen", events);
    a.next("subscriptions/listen", events_of_a);
    let followed = json!(["durward://b/memo:both", "memo:both", "durward://c/memo:both"]);
    let wanted = json!({"notifications": {"resourceSubscriptions": followed}});
    let mut stream = world.modern("/mcp").request("subscriptions/listen", wanted).await;
    let of = |received: testkit::Received| received.json()["params"]["notifications"]["resourceSubscriptions"].clone();
    assert_eq!(of(b.arrived("subscriptions/listen", 1).await), json!(["memo:both"]));
    assert_eq!(of(a.arrived("subscriptions/listen", 1).await), json!([]), "what is followed is the other's");
    let begun = soon(stream.event()).await.unwrap().json();
    assert_eq!(begun["params"]["notifications"], json!({"resourceSubscriptions": ["durward://b/memo:both"]}));
    feed.message(&updated("memo:both")).await;
    let told = soon(stream.event()).await.unwrap().json();
    assert_eq!(told["params"]["uri"], "durward://b/memo:both", "{told}");
}

#[tokio::test]
async fn rules_and_records_know_a_resource_by_the_servers_own_address() {
    let (a, b) = (scripted("a").await, scripted("b").await);
    let policy = r#"{"policy": "t", "rules": [
        {"id": "a", "action": "*", "target": "a/*", "effect": "allow"},
        {"id": "no", "action": "resource.read", "target": "a/file:///both", "effect": "deny"},
        {"id": "not", "action": "resource.read", "target": "a/*", "effect": "deny", "when": "has(args.uri) && args.uri == 'memo:both'"}]}"#;
    let world = World::with(&format!("servers:\n{}{}", http("a", &a), http("b", &b)), policy).await;
    for agent in [world.legacy("/mcp").await, world.modern("/mcp")] {
        let list = ask(&agent, "resources/list", json!({})).await;
        let shown = ["ui://a/view/main.html", "durward://a/https://example.com/page", "durward://a/memo:both"];
        assert_eq!(texts(&list, "resources", "uri"), shown);
        let reads = (a.seen("resources/read").len(), b.received());
        // Hidden by a rule, on a hidden server, on no server: all the same, whatever the address.
        let mut answers = Vec::new();
        for (server, address) in
            [("a", "file:///both"), ("b", "file:///both"), ("c", "file:///both"), ("b", "memo:both")]
        {
            let uri = format!("durward://{server}/{address}");
            let reply = agent.request("resources/read", json!({"uri": uri})).await;
            let status = reply.status;
            let mut answer: Value = serde_json::from_str(&reply.text().await.replace(&uri, "URI")).unwrap();
            (answer["id"], answer["error"]["data"]["call"]) = (json!(0), json!(0));
            answers.push((status, answer));
        }
        assert!(answers.iter().all(|other| *other == answers[0]), "{answers:?}");
        let refused = ask(&agent, "resources/read", json!({"uri": "durward://a/memo:both"})).await;
        assert_eq!(refused["error"]["code"], -31001, "{refused}");
        assert_eq!((a.seen("resources/read").len(), b.received()), reads, "nobody was asked");
        let read = ask(&agent, "resources/read", json!({"uri": "ui://a/view/main.html"})).await;
        assert_eq!(read["result"]["contents"][0]["text"], "a");
        let log = world.data().join("log");
        let own = |record: &Value| record["action"] == "resource.read" && record["target"] == "ui://view/main.html";
        world.until(|| records(&log).iter().any(|record| own(record) && record["server"] == "a")).await;
    }
}
