//! Who may still call, from one message to the next; how often; and that lists and calls agree.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod inside;

use bytes::Bytes;
use gateway::{
    limit::{Allowance, LimitSetting, LimitSettings, Rate},
    settings::EraSettings,
};
use identity::{AgentSetting, ClaimPath, IssuerSetting, JwksSource};
use inside::{Inside, Plan};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use testkit::{Agent, Answer, Issuer, Kind, SigningKey, Upstream, compact, soon};
use vocab::{AgentId, IssuerName};

fn per_minute(burst: u32) -> LimitSettings {
    let rate = Rate { count: 10, per: Duration::from_mins(1) };
    let rule = LimitSetting {
        agent: Some("*".to_owned()),
        tool: Some("files/*".to_owned()),
        server: None,
        tenant: None,
        allowance: Allowance { rate, burst },
        concurrency: None,
    };
    LimitSettings { rules: vec![rule], ..LimitSettings::default() }
}

async fn status(inside: &Inside, token: &str) -> u16 {
    inside.call(token, "echo", &json!({})).send().await.status.as_u16()
}

async fn admitted(inside: &Inside, token: &str, clients: usize) -> usize {
    let calls = (0..clients).map(|_| {
        let ask = inside.call(token, "echo", &json!({}));
        tokio::spawn(async move { ask.send().await.json().await["error"].is_null() })
    });
    let calls: Vec<_> = calls.collect();
    let mut count = 0;
    for call in calls {
        count += usize::from(call.await.unwrap());
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_share_a_burst_of_ten_and_then_one_each_six_seconds() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan { limits: per_minute(10), ..Plan::of(&upstream) }).await;
    assert_eq!(admitted(&inside, &inside.alice, 64).await, 10);
    assert_eq!(upstream.seen("tools/call").len(), 10);
    inside.clock.advance(Duration::from_millis(5_990));
    assert_eq!(admitted(&inside, &inside.alice, 8).await, 0);
    inside.clock.advance(Duration::from_millis(10));
    assert_eq!(admitted(&inside, &inside.alice, 8).await, 1);
    inside.clock.advance(Duration::from_secs(30));
    assert_eq!(admitted(&inside, &inside.alice, 16).await, 5);
    // Another agent has a bucket of its own.
    assert_eq!(admitted(&inside, &inside.bob, 16).await, 10);
    // A reload forgives nobody.
    inside.swap(Plan { limits: per_minute(10), ..Plan::of(&upstream) });
    assert_eq!(admitted(&inside, &inside.bob, 4).await, 0);
}

#[tokio::test]
async fn another_spelling_of_an_address_is_no_way_around_a_limit() {
    let upstream = Upstream::start().await;
    upstream.always("resources/read", |request| {
        let read = json!({"contents": [], "ttlMs": 0, "cacheScope": "private", "resultType": "complete"});
        Answer::result(&request.id(), &read)
    });
    let inside = Inside::start(Plan { limits: per_minute(2), ..Plan::of(&upstream) }).await;
    let agent = inside.modern("/mcp/files", &inside.alice);
    let mut codes = Vec::new();
    for uri in ["file:///a", "file:///./a", "file:///%61", "FILE:///a"] {
        codes.push(agent.request("resources/read", json!({"uri": uri})).await.json().await["error"]["code"].clone());
    }
    assert_eq!(codes, [Value::Null, Value::Null, json!(-31002), json!(-31002)]);
    assert_eq!(upstream.seen("resources/read").len(), 2);
    assert_eq!(status(&inside, &inside.alice).await, 200, "a tool has a bucket of its own");
}

#[tokio::test]
async fn what_is_refused_later_gives_back_what_it_took() {
    let upstream = Upstream::start().await;
    let rules = json!([
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "no", "action": "tool.execute", "target": "files/echo", "effect": "deny", "when": "has(args.no)"},
    ]);
    let policy = json!({"policy": "test", "rules": rules});
    let inside = Inside::start(Plan { limits: per_minute(2), policy, ..Plan::of(&upstream) }).await;
    for _ in 0..5 {
        let denied = inside.call(&inside.alice, "echo", &json!({"no": 1})).send().await.json().await;
        assert_eq!(denied["error"]["code"], -31001, "{denied}");
    }
    assert_eq!(admitted(&inside, &inside.alice, 4).await, 2);
    let limited = inside.call(&inside.alice, "echo", &json!({})).send().await;
    assert_eq!(limited.header("retry-after"), Some("6"));
    assert!(limited.header("ratelimit").unwrap().contains("r=0"), "{limited:?}");
    assert!(limited.header("ratelimit-policy").unwrap().contains("q=2"), "{limited:?}");
}

#[tokio::test]
async fn keys_expire_are_revoked_and_agents_switched_off_on_the_next_message() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let (short, _) = inside.key("alice", Some(inside.now().plus(Duration::from_mins(1))));
    assert_eq!(status(&inside, &short).await, 200);
    inside.clock.advance(Duration::from_mins(1));
    assert_eq!(status(&inside, &short).await, 401);

    let (key, id) = inside.key("alice", None);
    let agent = inside.legacy("/mcp/files", &key).await;
    assert!(inside.registry.revoke_key(&id));
    let reply = agent.request("ping", json!({})).await;
    assert_eq!(reply.status, 401);
    // Revoked, expired and unknown look alike from outside.
    let unknown = inside.call("dwk_aaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "echo", &json!({}));
    let (unknown, revoked) = (unknown.send().await, inside.call(&key, "echo", &json!({})).send().await);
    assert_eq!(unknown.header("www-authenticate"), revoked.header("www-authenticate"));
    let shape = |mut answer: Value| {
        answer["error"]["data"]["call"] = Value::Null;
        answer
    };
    assert_eq!(shape(unknown.json().await), shape(revoked.json().await));

    assert_eq!(status(&inside, &inside.alice).await, 200);
    inside.registry.disable_agent(&AgentId::new("alice").unwrap());
    assert_eq!(status(&inside, &inside.alice).await, 403);
    assert_eq!(status(&inside, &inside.bob).await, 200);
    inside.registry.enable_agent(&AgentId::new("alice").unwrap());
    assert_eq!(status(&inside, &inside.alice).await, 200);

    // A key of an agent that nobody registered.
    let (stray, _) = inside.key("mallory", None);
    assert_eq!(status(&inside, &stray).await, 403);
    // All of them are known by name but the one whose key is unknown.
    assert_eq!(inside.strangers().await.len(), 1);
    let records = inside.records().await;
    let refused: Vec<_> = records.iter().filter(|record| record["outcome"]["stage"] == "authenticate").collect();
    let said: Vec<_> = refused.iter().map(|record| [&record["agent"], &record["outcome"]["reason"]]).collect();
    let reasons = ["expired", "revoked", "revoked", "disabled_agent"].map(|reason| ["alice", reason]);
    assert_eq!(said, [&reasons[..], &[["mallory", "unregistered_agent"]]].concat(), "{refused:#?}");
}

#[tokio::test]
async fn a_flood_with_a_key_that_is_refused_is_on_record_by_name_so_many_times() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let alice = AgentId::new("alice").unwrap();
    let (other, _) = inside.key("alice", None);
    let (stray, _) = inside.key("mallory", None);
    let named = async || {
        let records = inside.records().await;
        let of = |agent: &str| records.iter().filter(|record| record["agent"] == agent).count();
        (of("alice"), of("mallory"))
    };
    inside.registry.disable_agent(&alice);
    for _ in 0..20 {
        assert_eq!(status(&inside, &inside.alice).await, 403);
        assert_eq!(status(&inside, &stray).await, 403);
    }
    for _ in 0..5 {
        let reply = inside.call(&inside.alice, "echo", &json!({})).send().await;
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, Some("3")));
        let answer = reply.json().await;
        assert_eq!((&answer["error"]["code"], &answer["error"]["data"]["retryAfter"]), (&json!(-31002), &json!(3)));
        assert_eq!(status(&inside, &stray).await, 429);
    }
    assert_eq!(named().await, (20, 20));
    // What is beyond is recorded as a stranger's, whose flood has a bound, and the record says whose it was.
    let strangers = inside.strangers().await;
    assert_eq!(strangers.len(), 10);
    let said = strangers[0]["detail"].as_str().unwrap();
    assert!(said.contains("key:") && said.ends_with("of agent `alice`: agent `alice` is disabled"), "{said}");
    // Another credential has a bound of its own, and time forgives.
    assert_eq!(status(&inside, &other).await, 403);
    inside.clock.advance(Duration::from_secs(3));
    let said = [status(&inside, &inside.alice).await, status(&inside, &inside.alice).await];
    assert_eq!(said, [403, 429]);
    assert_eq!(named().await, (22, 20));
    // Whoever may call again need not wait.
    inside.registry.enable_agent(&alice);
    assert_eq!(status(&inside, &inside.alice).await, 200);
    // One that is revoked or has expired counts for its address, too, and is told as an unknown one is.
    let (key, id) = inside.key("bob", None);
    assert!(inside.registry.revoke_key(&id));
    let mut told = Vec::new();
    for _ in 0..22 {
        told.push(status(&inside, &key).await);
    }
    assert_eq!(told, [[401; 20].as_slice(), &[429; 2]].concat());
    let records = inside.records().await;
    assert_eq!(records.iter().filter(|record| record["agent"] == "bob").count(), 20);
    assert_eq!(upstream.seen("tools/call").len(), 1);
}

#[tokio::test]
async fn what_a_stranger_calls_a_method_is_not_looked_through() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let stranger = Agent::modern(&inside.url("/mcp/files"), None);
    let long = "__key=".repeat(100);
    for (method, shown) in [("made/up", "made/up"), (long.as_str(), "[too long]"), ("tools/list", "tools/list")] {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method});
        // Refused for want of a key; refused before anybody asks for one.
        let asked = testkit::Ask::post(&inside.url("/mcp/files"), message.to_string());
        assert_eq!(asked.send().await.status, 401);
        let mut modern = message;
        modern["params"] = json!({"_meta": testkit::meta()});
        assert_eq!(stranger.ask("another", &modern).send().await.status, 400);
        let strangers = inside.strangers().await;
        let told: Vec<&Value> = strangers.iter().rev().take(2).map(|record| &record["method"]).collect();
        assert_eq!(told, [shown, shown], "{strangers:#?}");
    }
}

#[tokio::test]
async fn open_streams_end_within_a_second_of_revocation_even_endless_ones() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let (key, id) = inside.key("alice", None);
    let agent = inside.legacy("/mcp/files", &key).await;
    let (quiet, feed) = Answer::events();
    upstream.next("GET", quiet);
    let mut listening = agent.listen().await;
    assert_eq!(listening.status, 200);
    let progress =
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}});
    upstream.next("tools/call", Answer::endless(format!("data: {progress}\n\n")));
    let mut endless = agent.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
    assert!(soon(endless.chunk()).await.is_some());

    let revoked = tokio::time::Instant::now();
    inside.registry.revoke_key(&id);
    soon(async { while listening.chunk().await.is_some() {} }).await;
    soon(async { while endless.chunk().await.is_some() {} }).await;
    soon(feed.closed()).await;
    assert!(revoked.elapsed() < Duration::from_millis(1500), "{:?}", revoked.elapsed());
    let records = inside.records().await;
    let revoked = records.iter().filter(|record| record["outcome"]["reason"] == "revoked").count();
    assert_eq!(revoked, 2, "{records:#?}");
}

#[tokio::test]
async fn a_stream_has_the_rights_of_its_moment() {
    let upstream = Upstream::start().await;
    let rules = |roles: Value| json!({"policy": "test", "rules": [{"id": "r", "action": "*", "target": "files/*", "effect": "allow", "roles": roles}]});
    let role =
        |name: &str| AgentSetting { roles: vec![vocab::RoleName::new(name).unwrap()], ..AgentSetting::default() };
    let plan = |of_alice: &str| Plan {
        policy: rules(json!(["staff"])),
        agents: vec![("alice", role(of_alice)), ("bob", role("staff"))],
        ..Plan::of(&upstream)
    };
    let inside = Inside::start(plan("staff")).await;
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    let (answer, feed) = Answer::events();
    upstream.next("GET", answer);
    let mut listening = agent.listen().await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "a://b"}});
    feed.message(&note).await;
    assert!(soon(listening.event()).await.is_some());
    // The policy is the same; the agent has lost its role.
    inside.swap(plan("guest"));
    soon(async { while listening.chunk().await.is_some() {} }).await;
    assert_eq!(agent.request("ping", json!({})).await.status, 404);
}

#[tokio::test]
async fn a_merged_stream_loses_the_servers_whose_rights_are_withdrawn() {
    let (kept, lost) = (Upstream::start().await, Upstream::start().await);
    let plan = |target: &str| Plan {
        servers: vec![("kept", kept.url()), ("lost", lost.url())],
        policy: json!({"policy": "test", "rules": [{"id": "r", "action": "*", "target": target, "effect": "allow"}]}),
        ..Plan::of(&kept)
    };
    let inside = Inside::start(plan("*/*")).await;
    let note = |meta: &Value| json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1, "_meta": meta}});
    let mut streams = Vec::new();
    for request in ["GET", "subscriptions/listen"] {
        let ((of_kept, from_kept), (of_lost, from_lost)) = (Answer::events(), Answer::events());
        kept.next(request, of_kept);
        lost.next(request, of_lost);
        let stream = if request == "GET" {
            inside.legacy("/mcp", &inside.alice).await.listen().await
        } else {
            let wanted = json!({"notifications": {"toolsListChanged": true}});
            let id = json!({"io.modelcontextprotocol/subscriptionId": 1});
            let agent = inside.modern("/mcp", &inside.alice);
            let (stream, ()) = tokio::join!(agent.request(request, wanted), async {
                for (upstream, feed) in [(&kept, &from_kept), (&lost, &from_lost)] {
                    upstream.arrived(request, 1).await;
                    let begun = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {"_meta": id}});
                    feed.message(&begun).await;
                }
            });
            stream
        };
        kept.arrived(request, 1).await;
        lost.arrived(request, 1).await;
        streams.push((stream, from_kept, from_lost));
    }
    for (stream, _, from_lost) in &mut streams {
        from_lost.message(&note(&json!({"from": "lost"}))).await;
        while !soon(stream.event()).await.unwrap().json().to_string().contains("lost") {}
    }
    inside.swap(plan("kept/*"));
    for (stream, from_kept, from_lost) in &mut streams {
        from_lost.message(&note(&json!({"from": "lost"}))).await;
        soon(from_lost.closed()).await;
        from_kept.message(&note(&json!({"from": "kept"}))).await;
        while soon(stream.event()).await.unwrap().json()["params"]["_meta"]["from"] != "kept" {}
    }
}

#[tokio::test]
async fn guessing_is_bounded_per_address_and_harms_no_neighbour() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let mut seen = BTreeSet::new();
    for _ in 0..30 {
        seen.insert(status(&inside, "dwk_aaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").await);
    }
    assert_eq!(seen, BTreeSet::from([401, 429]));
    let limited = inside.call("not.a.token", "echo", &json!({})).send().await;
    assert_eq!(limited.status, 429);
    assert!(limited.header("retry-after").is_some());
    // Whoever holds a key calls from the same address as before.
    assert_eq!(status(&inside, &inside.alice).await, 200);
    inside.clock.advance(Duration::from_mins(1));
    assert_eq!(status(&inside, "not.a.token").await, 401);
}

async fn with_issuer(issuer: &Issuer, upstream: &Upstream) -> Inside {
    Inside::start(issued(issuer, upstream)).await
}

fn issued(issuer: &Issuer, upstream: &Upstream) -> Plan {
    let mut setting = IssuerSetting::new(
        IssuerName::new(&issuer.url()).unwrap(),
        vec!["here".to_owned()],
        "claim:azp".parse::<ClaimPath>().unwrap(),
    );
    setting.internal = true;
    setting.jwks = JwksSource::Url(issuer.jwks_url().parse().unwrap());
    Plan { issuers: vec![setting], ..Plan::of(upstream) }
}

/// Claims that the issuer's next token for alice may hold, good for an hour and told apart by `number`.
fn claims(issuer: &Issuer, inside: &Inside, number: u32) -> Value {
    let now = inside.now().as_micros() / 1_000_000;
    json!({"iss": issuer.url(), "aud": "here", "azp": "alice", "sub": "ann", "exp": now + 3600, "jti": number})
}

#[tokio::test]
async fn a_token_that_was_good_passes_beside_a_guesser() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start(Kind::Ed25519).await;
    let inside = with_issuer(&issuer, &upstream).await;
    let token = |number| issuer.token(claims(&issuer, &inside, number));
    let (known, fresh) = (token(1), token(2));
    assert_eq!(status(&inside, &known).await, 200);
    for number in 0..30 {
        assert!(matches!(status(&inside, &format!("not.a.token{number}")).await, 401 | 429));
    }
    assert_eq!(status(&inside, &fresh).await, 429, "nobody looks at a signature that nobody has seen");
    assert_eq!(status(&inside, &known).await, 200);
    // Neither does a reload make strangers of those who were let in.
    inside.swap(issued(&issuer, &upstream));
    assert_eq!(status(&inside, &known).await, 200);
    inside.clock.advance(Duration::from_mins(1));
    assert_eq!(status(&inside, &fresh).await, 200);
}

#[tokio::test]
async fn who_brings_nothing_or_a_token_that_was_good_does_not_guess() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start(Kind::Ed25519).await;
    let inside = with_issuer(&issuer, &upstream).await;
    let nobody = Agent::modern(&inside.url("/mcp/files"), None);
    let old = issuer.token(claims(&issuer, &inside, 1));
    assert_eq!(status(&inside, &old).await, 200);
    inside.clock.advance(Duration::from_hours(2));
    for _ in 0..30 {
        assert_eq!(nobody.request("ping", json!({})).await.status, 401);
        assert_eq!(status(&inside, &old).await, 401);
    }
    // All of these are answered so, and the records of one token have their bound like those of a key.
    let records = inside.records().await;
    assert_eq!(records.iter().filter(|record| record["outcome"]["reason"] == "expired").count(), 20);
    assert_eq!(inside.strangers().await.len(), 30 + 10);
    assert_eq!(status(&inside, &issuer.token(claims(&issuer, &inside, 2))).await, 200);
    // Where somebody else guessed, a client still learns where to sign in.
    for _ in 0..30 {
        status(&inside, "not.a.token").await;
    }
    assert_eq!(status(&inside, "not.a.token").await, 429);
    let reply = nobody.request("ping", json!({})).await;
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate").unwrap().contains("resource_metadata="));
}

#[tokio::test]
async fn tokens_are_taken_only_as_they_were_meant() {
    let upstream = Upstream::start().await;
    let mut issuer = Issuer::start(Kind::Rsa).await;
    let inside = with_issuer(&issuer, &upstream).await;
    let now = inside.now().as_micros() / 1_000_000;
    let good =
        json!({"iss": issuer.url(), "aud": "here", "azp": "alice", "sub": "ann", "exp": now + 600, "nbf": now - 1});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    assert_eq!(status(&inside, &issuer.token(good.clone())).await, 200);

    let header = |alg: &str| json!({"alg": alg, "typ": "JWT", "kid": issuer.key().id()});
    let confused = |alg: &str| {
        compact(&header(alg), &good, |text| {
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &issuer.key().public_bytes());
            aws_lc_rs::hmac::sign(&key, text).as_ref().to_vec()
        })
    };
    let other = SigningKey::generate(Kind::Rsa, issuer.key().id());
    let unknown = SigningKey::generate(Kind::Rsa, "nobody-knows");
    let attacks = [
        ("unsigned", compact(&header("none"), &good, |_| Vec::new())),
        ("unsigned, claiming RS256", compact(&header("RS256"), &good, |_| Vec::new())),
        ("public key as HMAC key", confused("HS256")),
        ("the same, claiming RS256", confused("RS256")),
        ("another key under the same id", other.token(&good)),
        ("a key nobody knows", unknown.token(&good)),
        ("another audience", issuer.token(with("aud", json!("there")))),
        ("no audience", issuer.token(with("aud", Value::Null))),
        ("another issuer", issuer.token(with("iss", json!("https://evil.example")))),
        ("expired", issuer.token(with("exp", json!(now - 600)))),
        ("without expiry", issuer.token(with("exp", Value::Null))),
        ("not yet", issuer.token(with("nbf", json!(now + 600)))),
        (
            "an id token",
            compact(&json!({"alg": "RS256", "typ": "id+jwt", "kid": issuer.key().id()}), &good, |text| {
                issuer.key().sign(text)
            }),
        ),
    ];
    for (what, token) in attacks {
        // Each from an address that has not failed yet.
        inside.clock.advance(Duration::from_secs(5));
        assert_eq!(status(&inside, &token).await, 401, "{what}");
    }
    assert_eq!(upstream.seen("tools/call").len(), 1, "only the honest one arrived");

    // Unregistered, and registered but another one.
    assert_eq!(status(&inside, &issuer.token(with("azp", json!("mallory")))).await, 403);
    // Rotation: the new key is found, the withdrawn one refused once its set has been fetched again.
    let before = issuer.token(good.clone());
    issuer.rotate(Kind::P256, "key-2", false);
    inside.clock.advance(Duration::from_secs(31));
    assert_eq!(status(&inside, &issuer.token(good.clone())).await, 200);
    assert_eq!(status(&inside, &before).await, 401);
    // Revocation of one token.
    let token = issuer.token(good.clone());
    assert_eq!(status(&inside, &token).await, 200);
    let digest = identity::Identity::token_digest(&token).unwrap();
    inside.registry.revoke_token(digest, inside.now().plus(Duration::from_mins(10)), inside.now());
    assert_eq!(status(&inside, &token).await, 401);
}

#[tokio::test]
async fn a_stream_ends_when_it_is_learnt_that_an_address_withdrew_its_key() {
    let upstream = Upstream::start().await;
    let mut issuer = Issuer::start(Kind::Ed25519).await;
    let inside = with_issuer(&issuer, &upstream).await;
    let token = issuer.token(claims(&issuer, &inside, 1));
    let (answer, feed) = Answer::events();
    upstream.next("GET", answer);
    let agent = Agent::legacy(&inside.url("/mcp/files"), Some(&token)).await;
    let mut stream = agent.listen().await;
    issuer.rotate(Kind::P256, "key-2", false);
    inside.clock.advance(Duration::from_mins(1));
    feed.message(&json!({"jsonrpc": "2.0", "method": "notifications/said"})).await;
    assert!(soon(stream.event()).await.unwrap().data.contains("said"), "nobody asked for the keys since");
    assert_eq!(status(&inside, &issuer.token(claims(&issuer, &inside, 2))).await, 200);
    soon(async { while stream.chunk().await.is_some() {} }).await;
    assert_eq!(status(&inside, &token).await, 401);
}

#[tokio::test]
async fn metadata_is_named_only_where_a_sign_in_can_succeed() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start(Kind::Ed25519).await;
    let (keys, tokens) = (Inside::start(Plan::of(&upstream)).await, with_issuer(&issuer, &upstream).await);
    for (inside, named) in [(&keys, false), (&tokens, true)] {
        let agent = Agent::modern(&inside.url("/mcp/files"), None);
        let reply = agent.request("ping", json!({})).await;
        assert_eq!(reply.status, 401);
        let challenge = reply.header("www-authenticate").unwrap().to_owned();
        assert!(challenge.starts_with("Bearer"), "{challenge}");
        assert_eq!(challenge.contains("resource_metadata="), named, "{challenge}");
        let document = testkit::Ask::get(&inside.url("/.well-known/oauth-protected-resource/mcp/files")).send().await;
        if named {
            let address = challenge.split('"').find(|part| part.starts_with("http")).unwrap().to_owned();
            assert_eq!(address, inside.url("/.well-known/oauth-protected-resource/mcp/files"));
            let document = document.json().await;
            assert_eq!(document["resource"], inside.url("/mcp/files"));
            assert_eq!(document["authorization_servers"], json!([issuer.url()]));
        } else {
            assert_eq!(document.status, 404);
        }
        // An address that is none says so, where there is an issuer.
        let unknown = testkit::Ask::get(&inside.url("/.well-known/oauth-protected-resource/x")).send().await;
        assert_eq!(unknown.status, 404);
        let said = unknown.text().await;
        assert_eq!(said.contains("no token issuer is configured"), !named, "{said}");
    }
}

#[tokio::test]
async fn policy_judges_what_the_server_will_see() {
    let upstream = Upstream::at(
        "127.0.0.1:0".parse().unwrap(),
        vec![json!({"name": "echo", "inputSchema": {"type": "object", "properties": {"token": {"type": "string", "x-mcp-header": "Token"}}}})],
    )
    .await;
    let rules = json!([
        {"id": "masked", "action": "*", "target": "files/*", "effect": "allow"},
        {"id": "raw", "action": "tool.execute", "target": "files/echo", "effect": "deny", "when": "has(args.token) && args.token.startsWith(\"ghp_\")"},
        {"id": "found", "action": "tool.execute", "target": "files/echo", "effect": "deny",
         "when": "has(args.strictly) && findings.exists(f, f.detector == \"secrets\")"},
    ]);
    let guards = guard::Guards::new(guard::Setting { results: guard::Mode::Off, arguments: guard::Mode::Mask });
    let plan = Plan { policy: json!({"policy": "test", "rules": rules}), guards, ..Plan::of(&upstream) };
    let inside = Inside::start(plan).await;
    let ask = |arguments: &Value| inside.call(&inside.alice, "echo", arguments).header("mcp-param-token", SECRET);
    let answer = ask(&json!({"token": SECRET})).send().await.json().await;
    assert_eq!(answer["error"], Value::Null, "{answer}");
    let sent = upstream.seen("tools/call").remove(0);
    let token = sent.json().pointer("/params/arguments/token").and_then(Value::as_str).unwrap().to_owned();
    assert!(token.starts_with("[redacted:"), "{token}");
    assert_eq!(sent.header("mcp-param-token"), Some(token.as_str()), "the mirror follows the rewrite");
    assert!(!format!("{:?}", sent.headers).contains(SECRET));
    let denied = ask(&json!({"token": SECRET, "strictly": true})).send().await.json().await;
    assert_eq!(denied["error"]["data"]["rules"], json!(["found"]), "{denied}");
    assert_eq!(upstream.seen("tools/call").len(), 1);
}

/// A secret that is masked on its way to the server.
const SECRET: &str = "ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb";

/// A gateway that masks what it finds in what agents send.
async fn masking(upstream: &Upstream) -> Inside {
    let guards = guard::Guards::new(guard::Setting { results: guard::Mode::Off, arguments: guard::Mode::Mask });
    Inside::start(Plan { guards, ..Plan::of(upstream) }).await
}

#[tokio::test]
async fn a_mask_moves_neither_names_nor_ids() {
    let upstream = Upstream::start().await;
    let inside = masking(&upstream).await;
    for (path, tool) in [("/mcp", "files__echo"), ("/mcp/files", "echo")] {
        let agent = inside.legacy(path, &inside.alice).await;
        let before = upstream.seen("tools/call").len();
        // What is renamed comes after what is masked.
        let text = format!(
            r#"{{"jsonrpc":"2.0","method":"tools/call","params":{{"arguments":{{"a":"{SECRET}","b":["{SECRET}"]}},"name":"{tool}"}},"id":"slow"}}"#
        );
        let (answer, feed) = Answer::events();
        upstream.next("tools/call", answer);
        let mut reply = agent.ask("tools/call", &json!({})).body(text).send().await;
        let sent = upstream.arrived("tools/call", before + 1).await.json();
        assert_eq!((&sent["params"]["name"], &sent["id"]), (&json!("echo"), &json!("slow")), "{sent}");
        assert!(!sent.to_string().contains(SECRET), "{sent}");

        let params = json!({"messages": [], "maxTokens": 1});
        let question = json!({"jsonrpc": "2.0", "id": "question-of-the-server", "method": "sampling/createMessage", "params": params});
        feed.message(&question).await;
        let shown = soon(reply.event()).await.unwrap().json()["id"].clone();
        let answered = upstream.seen("response").len();
        let said = format!(r#""role":"assistant","model":"m","content":{{"type":"text","text":"{SECRET}"}}"#);
        let text = format!(r#"{{"jsonrpc":"2.0","result":{{{said},"also":"{SECRET}"}},"id":{shown}}}"#);
        assert_eq!(agent.ask("", &json!({})).body(text).send().await.status, 202);
        let seen = upstream.arrived("response", answered + 1).await.json();
        assert_eq!(seen["id"], "question-of-the-server", "{seen}");
        let text = seen["result"]["content"]["text"].as_str().unwrap();
        assert!(text.starts_with("[redacted:"), "{text}");
    }
}

/// The parameters of a message, byte for byte.
fn params_of(body: &Bytes) -> Bytes {
    let Ok(mcp::Body::Single(message)) = mcp::scan(body.clone(), &mcp::Limits::default()) else {
        unreachable!("{body:?}")
    };
    Bytes::copy_from_slice(message.params().unwrap())
}

#[tokio::test]
async fn what_is_judged_on_the_aggregate_is_what_the_server_gets() {
    let upstream = Upstream::start().await;
    upstream.always("resources/read", |request| {
        Answer::result(
            &request.id(),
            &json!({"contents": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}),
        )
    });
    let own = "has(args._meta) && has(args._meta.ui) && args._meta.ui.resourceUri == 'ui://secret'";
    let rules = json!([
        {"id": "all", "action": "*", "target": "files/*", "effect": "allow"},
        {"id": "own", "action": "resource.read", "target": "files/*", "effect": "deny", "when": own},
    ]);
    let guards = guard::Guards::new(guard::Setting { results: guard::Mode::Off, arguments: guard::Mode::Mask });
    let policy = json!({"policy": "test", "rules": rules});
    let inside = Inside::start(Plan { policy, guards, ..Plan::of(&upstream) }).await;
    for agent in [inside.legacy("/mcp", &inside.alice).await, inside.modern("/mcp", &inside.alice)] {
        let with = |method: &str, mut params: Value, app: &str| {
            params["_meta"] = if agent.session().is_none() { testkit::meta() } else { json!({}) };
            params["_meta"]["ui"] = json!({"resourceUri": app});
            agent.ask(method, &json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}))
        };
        // A rule knows the address by which the server knows it, in metadata as elsewhere.
        let uri = json!({"uri": "durward://files/file:///a"});
        let before = upstream.seen("resources/read").len();
        let denied = with("resources/read", uri.clone(), "ui://files/secret").send().await.json().await;
        assert_eq!(denied["error"]["code"], -31001, "{denied}");
        assert_eq!(upstream.seen("resources/read").len(), before);
        let allowed = with("resources/read", uri, "ui://files/files/secret").send().await.json().await;
        assert!(allowed["result"].is_object(), "{allowed}");
        // What is masked is read again, and not put into the server's words a second time.
        for (method, params) in [
            ("tools/call", json!({"name": "files__echo", "arguments": {"a": SECRET}})),
            ("tools/call", json!({"name": "files__echo", "arguments": {"a": "no secret"}})),
            ("resources/read", json!({"uri": "durward://files/file:///a"})),
        ] {
            let answer = with(method, params, "ui://files/files/app").send().await.json().await;
            assert_eq!(answer["error"], Value::Null, "{answer}");
            let got = upstream.seen(method).pop().unwrap();
            assert_eq!(got.json()["params"]["_meta"]["ui"]["resourceUri"], "ui://files/app");
            assert!(!got.json().to_string().contains(SECRET));
            let records = inside.records().await;
            let sent = params_of(&got.body).len();
            assert_eq!(records.last().unwrap()["arguments"]["bytes"], sent, "the record is of what was sent");
        }
    }
}

#[tokio::test]
async fn nothing_beside_the_arguments_is_a_way_around() {
    // Known by its shape: names such as `cursor` and `uri` may be random.
    const KEY: &str = "AKIAQ3EGRV5TZKXN2WLP";
    let upstream = Upstream::start().await;
    let inside = masking(&upstream).await;
    let agent = inside.modern("/mcp/files", &inside.alice);
    let mut meta = testkit::meta();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let token = "Zx8Qm2Kp9Rt4Vw7Yb1Nc6Hd3Jf5";
    meta["progressToken"] = json!(token);
    meta["traceparent"] = json!(trace);
    meta["com.example/note"] = json!(KEY);
    let params =
        json!({"name": "echo", "arguments": {"cursor": KEY}, "vendor": [KEY], "requestState": token, "_meta": meta});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let answer = agent.ask("tools/call", &message).send().await.json().await;
    assert_eq!(answer["error"], Value::Null, "{answer}");
    let sent = upstream.seen("tools/call").remove(0).json()["params"].clone();
    assert!(!sent.to_string().contains(KEY), "{sent}");
    assert_eq!((&sent["_meta"]["progressToken"], &sent["requestState"]), (&json!(token), &json!(token)), "{sent}");
    assert_eq!(sent["_meta"]["traceparent"], trace, "{sent}");
    assert_eq!(sent["_meta"]["io.modelcontextprotocol/clientInfo"], meta["io.modelcontextprotocol/clientInfo"]);
    let records = inside.records().await;
    let found = records.last().unwrap()["findings"].as_array().unwrap();
    let places: BTreeSet<&str> = found.iter().filter_map(|finding| finding["pointer"].as_str()).collect();
    assert_eq!(places, BTreeSet::from(["/arguments/cursor", "/vendor/0", "/_meta/com.example~1note"]));
    // What is named is what is judged: it is not masked, so it is refused.
    let uri = format!("file:///{KEY}");
    let refused = agent.request("resources/read", json!({"uri": uri})).await.json().await;
    assert_eq!(refused["error"]["code"], -31003, "{refused}");
    assert_eq!(refused["error"]["data"]["findings"][0]["pointer"], "/uri", "{refused}");
    assert!(upstream.seen("resources/read").is_empty());
}

#[tokio::test]
async fn a_completion_needs_one_reference_that_the_caller_may_see() {
    let upstream = Upstream::start().await;
    upstream
        .always("completion/complete", |request| Answer::result(&request.id(), &json!({"completion": {"values": []}})));
    let rules = json!([
        {"id": "all", "action": "*", "target": "files/*", "effect": "allow"},
        {"id": "prompts", "action": "prompt.get", "target": "files/hidden", "effect": "deny"},
        {"id": "resources", "action": "resource.read", "target": "files/x:hidden", "effect": "deny"},
    ]);
    let inside = Inside::start(Plan { policy: json!({"policy": "test", "rules": rules}), ..Plan::of(&upstream) }).await;
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    for (reference, message) in [
        (json!({"type": "ref/prompt", "name": "seen"}), None),
        (json!({"type": "ref/resource", "uri": "x:seen"}), None),
        (json!({"type": "ref/prompt", "name": "hidden"}), Some("Unknown reference: hidden")),
        (json!({"type": "ref/resource", "uri": "x:hidden"}), Some("Unknown reference: x:hidden")),
        (json!({"type": "ref/resource", "name": "seen", "uri": "x:hidden"}), Some("must name what it acts on")),
        (json!({"type": "ref/prompt", "name": "seen", "uri": "x:seen"}), Some("must name what it acts on")),
        (json!({"type": "ref/resource", "name": "seen"}), Some("must name what it acts on")),
        (json!({"name": "seen"}), Some("must name what it acts on")),
    ] {
        let before = upstream.seen("completion/complete").len();
        let params = json!({"ref": reference, "argument": {"name": "a", "value": ""}});
        let answer = agent.request("completion/complete", params).await.json().await;
        let passed = upstream.seen("completion/complete").len() > before;
        assert_eq!(passed, message.is_none(), "{answer}");
        if let Some(message) = message {
            assert_eq!(answer["error"]["code"], -32602, "{answer}");
            assert!(answer["error"]["message"].as_str().unwrap().contains(message), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_list_is_read_within_a_budget() {
    let upstream = Upstream::start().await;
    let filler = "x".repeat(15 * 1024 * 1024);
    upstream.always("tools/list", move |request| {
        let number = request.json()["params"]["cursor"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut result = json!({"tools": [{"name": "echo", "description": filler, "inputSchema": {}}]});
        if number < 5 {
            result["nextCursor"] = json!((number + 1).to_string());
        }
        Answer::result(&request.id(), &result)
    });
    let inside = Inside::start(Plan { era: EraSettings::Modern, ..Plan::of(&upstream) }).await;
    let answer = inside.call(&inside.alice, "echo", &json!({})).send().await.json().await;
    assert!(answer["error"].is_object(), "{answer}");
    assert_eq!(upstream.seen("tools/list").len(), 5, "it stops at the page that is too much");
    assert!(upstream.seen("tools/call").is_empty());
}

/// Tools, and patterns that meet them in every way.
const TOOLS: [&str; 6] = ["read", "read_all", "write", "erase", "é/ü", "a__b"];
const TARGETS: [&str; 9] =
    ["files/*", "files/read*", "files/write", "files/e*", "*/erase", "*/*", "other/*", "files/a__b", "files/é*"];

fn rule() -> impl Strategy<Value = Value> {
    let target = prop::sample::select(TARGETS.to_vec());
    let effect = prop::sample::select(vec!["allow", "allow", "deny"]);
    let agents = prop::option::of(prop::sample::select(vec!["alice", "bob", "a*"]));
    let when = prop::option::of(prop::sample::select(vec!["has(args.n)", "!has(args.n)", "1 == 2", "1 == 1"]));
    let action = prop::sample::select(vec!["tool.execute", "*", "prompt.get"]);
    (target, effect, agents, when, action).prop_map(|(target, effect, agents, when, action)| {
        let mut rule = json!({"action": action, "target": target, "effect": effect});
        if let Some(agents) = agents {
            rule["agents"] = json!([agents]);
        }
        if let Some(when) = when {
            rule["when"] = json!(when);
        }
        rule
    })
}

#[test]
fn what_is_listed_is_what_can_be_called_whatever_the_policy() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (upstream, inside) = runtime.block_on(async {
        let upstream = Upstream::with_tools(TOOLS).await;
        let inside = Inside::start(Plan::of(&upstream)).await;
        (Arc::new(upstream), Arc::new(inside))
    });
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(rules in prop::collection::vec(rule(), 0..6))| {
        let policy = json!({"policy": "test", "rules": rules});
        runtime.block_on(agree(&upstream, &inside, policy));
    });
}

/// The lists of both doors and every call, for both agents.
async fn agree(upstream: &Upstream, inside: &Inside, policy: Value) {
    inside.swap(Plan { policy: policy.clone(), ..Plan::of(upstream) });
    for token in [&inside.alice, &inside.bob] {
        let one: BTreeSet<String> = inside.modern("/mcp/files", token).tools().await.into_iter().collect();
        let all = inside.modern("/mcp", token).tools().await;
        let all: BTreeSet<String> = all.into_iter().collect();
        let mut callable = BTreeSet::new();
        for tool in TOOLS {
            let mut answers = Vec::new();
            for arguments in [json!({}), json!({"n": 1})] {
                let before = upstream.seen("tools/call").len();
                let params = json!({"name": tool, "arguments": arguments});
                let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
                let ask = testkit::Ask::post(&inside.url("/mcp/files"), body.to_string()).bearer(token);
                let answer = ask.send().await.json().await;
                let arrived = upstream.seen("tools/call").len() - before;
                assert_eq!(answer["error"].is_null(), arrived == 1, "{policy} {tool} {answer}");
                answers.push(answer["error"].is_null());
                let unknown = answer["error"]["message"] == format!("Unknown tool: {tool}")
                    || answer["error"]["message"] == "there is no such server here";
                assert_eq!(unknown, !one.contains(tool), "{policy} {tool} {answer}");
            }
            if answers.contains(&true) {
                callable.insert(tool.to_owned());
            }
        }
        // What can be called under some arguments is listed, and nothing that no call could reach.
        assert!(callable.is_subset(&one), "{policy}: {callable:?} {one:?}");
        let named: BTreeSet<String> = one.iter().map(|tool| mcp::name::join("files", tool)).collect();
        assert_eq!(named, all, "both doors list the same: {policy}");
    }
}
