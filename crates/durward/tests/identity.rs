//! Who calls, through the binary: what the line itself is asked in `gateway/tests/rights.rs`.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod rig;
mod world;

use audit::Tree;
use rig::call_of;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use testkit::{Agent, Answer, Ask, MODERN, Upstream, soon};
use vocab::TenantId;
use world::{ALL, World, http};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

#[tokio::test]
async fn a_trusted_proxy_names_the_peer_however_it_writes_addresses() {
    let upstream = Upstream::start().await;
    let body = format!("trusted_proxies: [\"127.0.0.0/8\", \"192.0.2.0/24\"]\nservers:\n{}", http("files", &upstream));
    let world = World::with(&body, ALL).await;
    for (forwarded, peer) in [
        ("198.51.100.1", "198.51.100.1"),
        ("198.51.100.2:5678", "198.51.100.2"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        // The last that no proxy of ours wrote counts, whatever stands before it.
        ("203.0.113.9, 198.51.100.3:1, 192.0.2.7:80", "198.51.100.3"),
        ("203.0.113.9, unknown", "127.0.0.1"),
    ] {
        let reply = Ask::post(&world.url("/mcp/files"), PING).header("x-forwarded-for", forwarded).send().await;
        assert_eq!(reply.status, 401);
        assert_eq!(world.record(&call_of(&reply)).await["peer"], peer, "{forwarded}");
    }
}

#[tokio::test]
async fn every_leg_of_both_doors_wants_a_credential() {
    let upstream = Upstream::start().await;
    let world = World::start(&http("files", &upstream)).await;
    let before = upstream.received();
    let session = world.legacy("/mcp/files").await.session().unwrap().to_owned();
    for path in ["/mcp", "/mcp/files", "/mcp/none"] {
        let url = world.url(path);
        let legs = [
            Ask::post(&url, PING.to_owned()),
            Ask::get(&url).header("accept", "text/event-stream"),
            Ask::new(http::Method::DELETE, &url),
        ];
        for leg in legs {
            for leg in [leg.clone(), leg.clone().header("mcp-session-id", &session), leg.clone().bearer("dwk_wrong")] {
                let reply = leg.send().await;
                // So many failures of one address are soon told nothing at all.
                if reply.status != 429 {
                    assert_eq!(reply.status, 401, "{path}");
                    assert_eq!(reply.header("www-authenticate").map(|text| text.contains("metadata")), Some(false));
                }
            }
            // Two credentials are refused, not chosen from.
            let two = leg.clone().bearer(&world.alice).header("x-api-key", &world.bob).send().await;
            assert!(matches!(two.status.as_u16(), 401 | 429), "{}", two.status);
            let twice =
                leg.bearer(&world.alice).header("authorization", &format!("Bearer {}", world.alice)).send().await;
            assert!(matches!(twice.status.as_u16(), 401 | 429), "{}", twice.status);
        }
    }
    // Only the handshake of the one session above arrived.
    for method in ["ping", "GET", "DELETE"] {
        assert!(rig::relayed(&upstream, method).is_empty(), "{method}");
    }
    assert!(upstream.received() > before);
    // A key in the other header is as good.
    let reply = Ask::post(&world.url("/mcp/files"), PING.to_owned()).header("x-api-key", &world.alice).send().await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_session_is_nobody_elses() {
    let upstream = Upstream::start().await;
    let world = World::start(&http("files", &upstream)).await;
    for path in ["/mcp/files", "/mcp"] {
        let session = world.legacy(path).await.session().unwrap().to_owned();
        // What callers caused; the gateway looks at the server by itself at about the same time.
        let count = || ["ping", "GET", "DELETE"].map(|method| rig::relayed(&upstream, method).len());
        let before = count();
        let url = world.url(path);
        for leg in [
            Ask::post(&url, PING.to_owned()),
            Ask::get(&url).header("accept", "text/event-stream"),
            Ask::new(http::Method::DELETE, &url),
        ] {
            for foreign in [session.as_str(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
                let reply = leg.clone().bearer(&world.bob).header("mcp-session-id", foreign).send().await;
                assert_eq!(reply.status, 404, "{path}");
            }
        }
        assert_eq!(count(), before);
        let own = Ask::post(&url, PING.to_owned()).bearer(&world.alice).header("mcp-session-id", &session).send().await;
        assert_eq!(own.status, 200);
    }
}

#[tokio::test]
async fn an_agent_switched_off_in_the_file_is_off_with_its_streams() {
    let upstream = Upstream::start().await;
    let servers = format!("servers:\n{}", http("files", &upstream));
    let world = World::with(&format!("agents: {{ alice: {{}}, bob: {{}} }}\n{servers}"), ALL).await;
    let agent = world.legacy("/mcp/files").await;
    let (answer, feed) = Answer::events();
    upstream.next("GET", answer);
    let mut listening = agent.listen().await;
    world.reload(&format!("agents: {{ alice: {{ disabled: true }}, bob: {{}} }}\n{servers}")).await;
    soon(async { while listening.chunk().await.is_some() {} }).await;
    soon(feed.closed()).await;
    let reply = agent.request("ping", json!({})).await;
    assert_eq!(reply.status, 403);
    let call = call_of(&reply);
    assert!(world.record(&call).await["error"].as_str().unwrap().contains("disabled"));
    let bob = Agent::legacy(&world.url("/mcp/files"), Some(&world.bob)).await;
    assert_eq!(bob.request("ping", json!({})).await.status, 200);
}

#[tokio::test]
async fn whoever_is_known_and_refused_is_on_record_by_name_each_time() {
    let upstream = Upstream::start().await;
    let agents = "agents: { alice: { disabled: true }, bob: {} }\n";
    let world = World::with(&format!("{agents}servers:\n{}", http("files", &upstream)), ALL).await;
    let (mut calls, mut beyond) = (BTreeSet::new(), Vec::new());
    // More than are recorded one by one of those who are nobody.
    for _ in 0..300 {
        let reply = Ask::post(&world.url("/mcp/files"), PING).bearer(&world.alice).send().await;
        match reply.status.as_u16() {
            403 => assert!(calls.insert(call_of(&reply))),
            status => {
                assert_eq!(status, 429);
                assert!(reply.header("retry-after").is_some());
                beyond.push(call_of(&reply));
            }
        }
    }
    assert!(calls.len() >= 20 && beyond.len() >= 100, "one credential has a bound: {} {}", calls.len(), beyond.len());
    let log = world.data().join("log");
    let tenant = || {
        let leaves = rig::leaves(&log, &Tree::Tenant(TenantId::default_tenant())).into_iter();
        leaves.filter(|(kind, _)| kind == "call").map(|(_, record)| record).collect::<Vec<_>>()
    };
    world.until(|| tenant().len() >= calls.len()).await;
    let (_, rest) = world.alice.split_once('_').unwrap();
    let (public, secret) = rest.split_once('_').unwrap();
    for record in tenant() {
        assert!(calls.remove(record["call"].as_str().unwrap()), "{record}");
        assert_eq!([&record["agent"], &record["identity"]], ["alice", format!("key:{public}").as_str()]);
        let refused = json!({"is": "refused", "stage": "authenticate", "reason": "disabled_agent"});
        assert_eq!((&record["outcome"], &record["http_status"]), (&refused, &json!(403)));
        assert!(record["error"].as_str().unwrap().contains("disabled") && !record.to_string().contains(secret));
    }
    assert!(calls.is_empty(), "each of them is on record: {calls:?}");
    // What is beyond is nobody's, but for what stands beside it; of many the rest is counted.
    let record = world.record(&beyond[0]).await;
    assert_eq!([&record["event"], &record["agent"]], [&json!("unauthenticated"), &Value::Null]);
    let (detail, whose) = (record["detail"].as_str().unwrap(), format!("key:{public} of agent `alice`"));
    assert!(detail.contains(&whose) && !detail.contains(secret), "{record}");
    world.until(|| rig::leaves(&log, &Tree::System).iter().any(|(_, record)| record["event"] == "surplus")).await;
    let line = world.says("reason=\"disabled_agent\"").await;
    assert!(line.contains("agent=\"alice\"") && !line.contains(secret), "{line}");

    // Who knows no more than what everybody may see of a key is nobody.
    let guess = format!("dwk_{public}_{}", "A".repeat(secret.len()));
    let reply = Ask::post(&world.url("/mcp/files"), PING).bearer(&guess).send().await;
    assert_eq!(reply.status, 401);
    let record = world.record(&call_of(&reply)).await;
    assert_eq!(
        [&record["event"], &record["agent"], &record["identity"]],
        [&json!("unauthenticated"), &Value::Null, &Value::Null]
    );
}

#[tokio::test]
async fn anonymous_is_loud_and_has_no_more_than_its_agent() {
    let upstream = Upstream::start().await;
    let servers = format!("servers:\n{}", http("files", &upstream));
    let world = World::with(&format!("danger_allow_anonymous: bob\n{servers}"), ALL).await;
    world.says("danger_allow_anonymous").await;
    let reply = Agent::modern(&world.url("/mcp/files"), None).request("ping", json!({})).await;
    assert_eq!(reply.status, 200);
    let record = world.record(&call_of(&reply)).await;
    assert_eq!([&record["agent"], &record["identity"]], ["bob", "anonymous"]);
    // A wrong credential is wrong all the same.
    let wrong = Agent::modern(&world.url("/mcp/files"), Some("dwk_wrong")).request("ping", json!({})).await;
    assert_eq!(wrong.status, 401);
}

/// What can be named: how it is asked for, and by which member.
const THINGS: [(&str, &str); 3] = [("tools/call", "name"), ("prompts/get", "name"), ("resources/read", "uri")];

/// A server with a tool, a prompt and a resource of each of the names `shown` and `hidden`, which says in the words of the
/// protocol that it has no other.
async fn keeper() -> Upstream {
    let upstream = Upstream::with_tools(["shown", "hidden"]).await;
    for (method, member, entry) in [
        ("prompts/list", "prompts", json!([{"name": "shown"}, {"name": "hidden"}])),
        (
            "resources/list",
            "resources",
            json!([{"uri": "file:///shown", "name": "s"}, {"uri": "file:///hidden", "name": "h"}]),
        ),
    ] {
        upstream.always(method, move |request| {
            let list = json!({member: entry, "ttlMs": 0, "cacheScope": "private", "resultType": "complete"});
            Answer::result(&request.id(), &list)
        });
    }
    upstream.always("prompts/get", |request| {
        let name = request.json()["params"]["name"].as_str().unwrap().to_owned();
        if ["shown", "hidden"].contains(&&*name) {
            return Answer::result(&request.id(), &json!({"messages": [], "resultType": "complete"}));
        }
        Answer::error(&request.id(), -32602, &format!("Unknown prompt: {name}"))
    });
    upstream.always("resources/read", |request| {
        let uri = request.json()["params"]["uri"].as_str().unwrap().to_owned();
        if ["file:///shown", "file:///hidden"].contains(&&*uri) {
            let contents = json!({"contents": [], "ttlMs": 0, "cacheScope": "private", "resultType": "complete"});
            return Answer::result(&request.id(), &contents);
        }
        let is_modern = request.header("mcp-protocol-version") == Some(MODERN);
        let code = if is_modern { -32602 } else { -32002 };
        let error = json!({"code": code, "message": format!("Unknown resource: {uri}"), "data": {"uri": uri}});
        Answer::json(json!({"jsonrpc": "2.0", "id": request.id(), "error": error}).to_string())
    });
    upstream
}

/// What somebody who asks for a thing of this name gets, with the name and the call taken out.
async fn asked(agent: &Agent, path: &str, (method, member): (&str, &str), name: &str) -> (u16, Vec<String>, String) {
    let own = if member == "uri" { format!("file:///{name}") } else { name.to_owned() };
    let shown = match (path, member) {
        ("/mcp", "uri") => format!("durward://files/{own}"),
        ("/mcp", _) => format!("files__{own}"),
        _ => own.clone(),
    };
    let mut params = json!({member: shown});
    if agent.session().is_none() {
        params["_meta"] = testkit::meta();
    }
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let reply = agent.ask(method, &message).send().await;
    let (call, status) = (call_of(&reply), reply.status.as_u16());
    let mut names: Vec<_> = reply.headers.keys().map(ToString::to_string).collect();
    names.sort();
    let text = reply.text().await.replace(&call, "CALL");
    // The longer one first: the other is a part of it.
    (status, names, text.replace(&shown, "NAME").replace(&own, "NAME"))
}

#[tokio::test]
async fn hidden_and_missing_look_alike_to_the_byte() {
    let upstream = keeper().await;
    let servers = format!(
        "servers:\n{}{}  secret: {{ command: [\"/bin/cat\"] }}\n",
        http("files", &upstream),
        http("other", &upstream),
    );
    let rules = json!([
        {"id": "all", "action": "*", "target": "files/*", "effect": "allow"},
        {"id": "no", "action": "*", "target": "files/*hidden*", "effect": "deny"},
    ]);
    let world = World::with(&servers, &rig::policy(&rules)).await;
    for path in ["/mcp/files", "/mcp"] {
        for agent in [world.legacy(path).await, world.modern(path)] {
            for thing in THINGS {
                let shown = asked(&agent, path, thing, "shown").await;
                assert!(shown.2.contains("\"result\""), "{path} {thing:?}: {shown:?}");
                let before = rig::relayed(&upstream, thing.0).len();
                let hidden = asked(&agent, path, thing, "hidden").await;
                // Whether it is there makes no difference to whoever may not see it.
                let neither = asked(&agent, path, thing, "hidden_and_missing").await;
                assert_eq!(hidden, neither, "{path} {thing:?}");
                assert_eq!(rig::relayed(&upstream, thing.0).len(), before, "{path} {thing:?}");
                // Nor does it whether one may see what is not there.
                let missing = asked(&agent, path, thing, "nobody").await;
                if thing.0 == "tools/call" {
                    assert_eq!(hidden, missing, "{path} {thing:?}");
                } else {
                    // There the server says it, who can say all but what the gateway calls the call.
                    assert_eq!((hidden.0, hidden.1), (missing.0, missing.1), "{path} {thing:?}");
                    assert_eq!(without_call(&hidden.2), without_call(&missing.2), "{path} {thing:?}");
                }
            }
        }
    }
    // Servers: hidden ones of either kind, and none.
    let session = world.legacy("/mcp/files").await.session().unwrap().to_owned();
    let mut answers = Vec::new();
    for server in ["other", "secret", "nothing"] {
        for handle in [None, Some(session.as_str())] {
            let mut ask = world.post(&format!("/mcp/{server}"), PING);
            if let Some(handle) = handle {
                ask = ask.header("mcp-session-id", handle);
            }
            let reply = ask.send().await;
            let (call, status) = (call_of(&reply), reply.status);
            answers.push((status, reply.text().await.replace(&call, "CALL").replace(server, "NAME")));
        }
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(world.modern("/mcp").tools().await, ["files__shown"]);
}

/// An error without what the gateway adds to its own: the id of the call.
fn without_call(text: &str) -> Value {
    let mut message: Value = serde_json::from_str(text).unwrap();
    let error = message["error"].as_object_mut().unwrap();
    if let Some(data) = error.get_mut("data").and_then(Value::as_object_mut) {
        data.remove("call");
        if data.is_empty() {
            error.remove("data");
        }
    }
    message
}

#[tokio::test]
async fn nothing_to_see_has_a_reason() {
    let upstream = Upstream::start().await;
    let servers = format!(
        "agents: {{ alice: {{}}, bob: {{}} }}\nservers:\n{}  down: {{ url: \"http://127.0.0.1:9/mcp\", internal: true, era: both }}\n",
        http("files", &upstream)
    );
    let rules = json!([
        {"id": "a", "action": "*", "target": "down/*", "effect": "allow", "agents": ["alice"]},
    ]);
    let world = World::with(&servers, &rig::policy(&rules)).await;
    let params = json!({"_meta": testkit::meta()});
    let ask = |token: &str| {
        Agent::modern(&world.url("/mcp"), Some(token))
            .ask("tools/list", &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}))
    };
    let down = ask(&world.alice).send().await.json().await;
    assert_eq!(down["result"]["tools"], json!([]), "{down}");
    assert_eq!(down["result"]["_meta"]["durward/unavailable"][0]["server"], "down", "{down}");
    let nothing = ask(&world.bob).send().await.json().await;
    assert!(nothing["error"]["message"].is_string(), "no right is not an empty list: {nothing}");
    assert!(!nothing.to_string().contains("files") && !nothing.to_string().contains("down"), "{nothing}");
}
