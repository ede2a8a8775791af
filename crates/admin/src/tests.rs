//! Every route as every role, and what management may never do.

use super::*;
use crate::route::{Access, routes};
use audit::{Filter, Options, Order, Query, Reader, Signer, Tree};
use egress::Egress;
use gateway::{
    Room,
    clock::{Clock, SystemClock},
    limit::{Allowance, LimitSettings, Limits, Rate},
    settings::{Bounds, Settings},
    snapshot::Snapshot,
    state::{Parts, State},
};
use guard::{Guards, Mode, Setting};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::service::TowerToHyperService;
use identity::{AdminRole, AgentSetting, AuthFault, Credential, Identity, JwksCache, Registry};
use policy::{Policies, Source};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use store::Store;
use vault::{KeySource, Vault};
use vocab::{AgentId, TenantId};

/// A desk over a gateway that knows two agents.
struct World {
    desk: Arc<Desk>,
    router: Router,
    folder: tempfile::TempDir,
}

/// What a route answered.
struct Reply {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

impl Reply {
    fn value(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }
}

const PEER: &str = "127.0.0.1:4000";
const CANARY: &str = "canary-7391-plain-text";

impl World {
    async fn start() -> Self {
        Self::with_failures(1000).await
    }

    async fn with_failures(failures: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let tenant = TenantId::default_tenant();
        let store = Store::open(data).await.expect("a store");
        let key = KeySource::File(data.join("master.key")).load(data).expect("a key");
        let vault = Arc::new(Vault::open(data, key, tenant.clone(), clock.now()).expect("a vault"));
        let signer = vault.audit_signer().expect("a signer");
        let public = signer.public;
        let options = Options::new(data.join("log"), "test/default".into(), tenant.clone(), clock.now());
        let log = audit::Log::open(options, Signer { name: "test/default".into(), public, sign: signer.sign });
        let log = Arc::new(log.expect("a log"));
        let registry = Arc::new(Registry::default());
        let agents: BTreeMap<AgentId, AgentSetting> =
            ["alice", "bob"].map(|name| (AgentId::new(name).expect("a name"), AgentSetting::default())).into();
        let egress = Arc::new(Egress::new(egress::Settings::default()).expect("an egress"));
        let identity = Identity::new(
            identity::Settings { tenant: tenant.clone(), agents: agents.clone(), issuers: Vec::new(), anonymous: None },
            Arc::clone(&registry),
            Arc::new(JwksCache::new(Arc::clone(&egress))),
        );
        let rules = json!({ "policy": "p", "rules": [
            { "id": "reads", "action": "tool.execute", "target": "files/*", "effect": "allow" },
        ]});
        let policies = Policies::compile(&[Source { name: "p.json".into(), text: rules.to_string() }]);
        let settings = Settings {
            tenant: tenant.clone(),
            public_url: None,
            tls: false,
            hosts: vec!["gateway.example".into()],
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            servers: BTreeMap::new(),
            strict: false,
            bounds: Bounds::default(),
            issuers: Vec::new(),
            traces: false,
        };
        let limits = Limits::new(&LimitSettings::default(), None).map_or_else(|_| panic!("limits"), Arc::new);
        let guards = Guards::new(Setting { results: Mode::Mask, arguments: Mode::Report });
        let snapshot = Snapshot::build(
            settings,
            identity.unwrap_or_else(|faults| panic!("{faults:?}")),
            policies.expect("policies"),
            limits,
            guards,
            None,
        );
        let state = Arc::new(State::new(Parts {
            snapshot: snapshot.unwrap_or_else(|_| panic!("a snapshot")),
            clock: Arc::clone(&clock),
            log: Arc::clone(&log),
            vault: Arc::clone(&vault),
            egress,
            children: Room::new(4, 4, Vec::new()),
        }));
        let per = Rate { count: 1, per: Duration::from_mins(1) };
        let own = LimitSettings {
            rules: Vec::new(),
            attempts: Allowance { rate: per, burst: 1000 },
            failures: Allowance { rate: per, burst: failures },
        };
        let plane = Plane {
            state,
            reload: Box::new(|| Ok(Reloaded { changes: vec!["listen".to_owned()], still: Vec::new() })),
            metrics: Box::new(|| "# EOF\n".to_owned()),
            limits: Limits::new(&own, None).unwrap_or_else(|_| panic!("limits")),
        };
        let desk = Arc::new(Desk {
            tenant,
            store,
            vault,
            registry,
            log,
            log_dir: data.join("log"),
            log_key: audit::verifier_key("test/default", &public),
            log_public: public,
            clock,
            agents: Box::new(move || agents.clone()),
            plane: Some(plane),
        });
        Self { router: router(&desk), desk, folder }
    }

    async fn send(&self, door: Door, request: http::request::Builder, body: &str) -> Reply {
        let mut request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
        request.extensions_mut().insert(door);
        let service = TowerToHyperService::new(self.router.clone());
        let Ok(response) = hyper::service::Service::call(&service, request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(bytes.into()).expect("text");
        Reply { status: parts.status, headers: parts.headers, text }
    }

    /// From the network, with a key if there is one.
    async fn ask(&self, method: &str, path: &str, key: Option<&str>, body: &str) -> Reply {
        let peer: SocketAddr = PEER.parse().expect("an address");
        let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:7421");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        self.send(Door::Network { peer }, request, body).await
    }

    /// Over the socket.
    async fn local(&self, method: Method, path: &str, body: Value) -> Reply {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        self.send(Door::Local { uid: 1000 }, request, &body.to_string()).await
    }

    async fn key(&self, role: AdminRole) -> String {
        let made = self.local(Method::POST, "/api/admin-keys", json!({ "role": role.as_str() })).await;
        made.value()["key"].as_str().expect("a key").to_owned()
    }

    async fn agent_key(&self, agent: &str) -> (String, String) {
        let made = self.local(Method::POST, &format!("/api/agents/{agent}/keys"), json!({})).await.value();
        (made["id"].as_str().expect("an id").to_owned(), made["key"].as_str().expect("a key").to_owned())
    }

    async fn authenticates(&self, key: &str) -> Result<(), AuthFault> {
        let state = &self.desk.plane.as_ref().expect("a plane").state;
        let identity = &state.snapshot.load_full().identity;
        identity
            .authenticate(Credential::ApiKey(key), state.clock.now())
            .await
            .map(drop)
            .map_err(|refused| refused.fault)
    }

    /// Every record of a tree, as it is on disk.
    async fn records(&self, tree: Tree) -> Vec<Value> {
        self.desk.log.flush().await.expect("a log that can be written");
        let query =
            Query { filter: Filter::default(), order: Order::Oldest, from: None, limit: 10_000, scan: u64::MAX };
        let page = Reader::open(&self.desk.log_dir, &tree).expect("a log").page(&query).expect("records");
        page.entries.into_iter().map(|entry| entry.value["record"].clone()).collect()
    }

    fn tenant() -> Tree {
        Tree::Tenant(TenantId::default_tenant())
    }
}

/// What each route asks for, written down a second time: a new route fails here until somebody decides.
const EXPECTED: [(&str, &str, &str); 32] = [
    ("GET", "/healthz", "open"),
    ("GET", "/readyz", "open"),
    ("GET", "/metrics", "open"),
    ("GET", "/api/status", "viewer"),
    ("POST", "/api/reload", "operator"),
    ("GET", "/api/agents", "viewer"),
    ("POST", "/api/agents/{agent}/disable", "operator"),
    ("POST", "/api/agents/{agent}/enable", "operator"),
    ("POST", "/api/agents/{agent}/keys", "owner"),
    ("GET", "/api/agent-keys", "viewer"),
    ("DELETE", "/api/agent-keys/{id}", "operator"),
    ("POST", "/api/revoked-tokens", "operator"),
    ("GET", "/api/admin-keys", "viewer"),
    ("POST", "/api/admin-keys", "owner"),
    ("DELETE", "/api/admin-keys/{id}", "owner"),
    ("GET", "/api/secrets", "viewer"),
    ("PUT", "/api/secrets/{name}", "owner"),
    ("POST", "/api/secrets/{name}/rotate", "owner"),
    ("DELETE", "/api/secrets/{name}", "owner"),
    ("POST", "/api/vault/import-fernet", "owner"),
    ("POST", "/api/vault/rotate-master", "owner"),
    ("GET", "/api/servers", "viewer"),
    ("POST", "/api/servers/look", "operator"),
    ("POST", "/api/policy/explain", "viewer"),
    ("GET", "/api/audit/records", "viewer"),
    ("GET", "/api/audit/calls/{call}", "viewer"),
    ("GET", "/api/audit/calls/{call}/proof", "viewer"),
    ("GET", "/api/audit/calls/{call}/texts", "operator"),
    ("POST", "/api/audit/erase", "owner"),
    ("POST", "/api/audit/verify", "operator"),
    ("GET", "/api/audit/checkpoint", "viewer"),
    ("GET", "/api/audit/key", "viewer"),
];

fn filled(path: &str) -> String {
    path.replace("{agent}", "alice")
        .replace("{id}", "abcdefgh")
        .replace("{name}", "token")
        .replace("{call}", "4bf92f3577b34da6a3ce929d0e0e4736")
}

#[test]
fn every_route_is_in_the_matrix() {
    let ours: BTreeSet<_> = routes().iter().map(|(rule, _)| (rule.method, rule.path)).collect();
    let expected: BTreeSet<_> = EXPECTED.iter().map(|(method, path, _)| (*method, *path)).collect();
    assert_eq!(ours, expected);
    assert_eq!(routes().len(), EXPECTED.len(), "a route is there twice");
    for (rule, _) in routes() {
        let least = EXPECTED.iter().find(|(method, path, _)| (*method, *path) == (rule.method, rule.path));
        let stated = match rule.access {
            Access::Open => "open",
            Access::Least(role) => role.as_str(),
        };
        assert_eq!(Some(stated), least.map(|(.., least)| *least), "{} {}", rule.method, rule.path);
    }
}

#[tokio::test]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    let world = World::start().await;
    let roles = [AdminRole::Viewer, AdminRole::Operator, AdminRole::Owner];
    let mut keys = Vec::new();
    for role in roles {
        keys.push((role, world.key(role).await));
    }
    let (_, of_agent) = world.agent_key("bob").await;
    let mut refused = 0;
    for (method, path, least) in EXPECTED {
        let path = filled(path);
        for stranger in [None, Some(of_agent.as_str()), Some("dwa_abcdefgh_AAAA"), Some("a.b.c")] {
            let reply = world.ask(method, &path, stranger, "{}").await;
            let expected = least != "open";
            assert_eq!(
                reply.status == StatusCode::UNAUTHORIZED,
                expected,
                "{method} {path} {stranger:?}: {}",
                reply.status
            );
            assert!(!expected || reply.headers.contains_key("www-authenticate"));
        }
        if least == "open" {
            continue;
        }
        let least: AdminRole = least.parse().expect("a role");
        for (role, key) in &keys {
            let reply = world.ask(method, &path, Some(key), "{}").await;
            assert_ne!(reply.status, StatusCode::UNAUTHORIZED, "{method} {path} as {role}");
            assert_eq!(
                reply.status == StatusCode::FORBIDDEN,
                *role < least,
                "{method} {path} as {role}: {}",
                reply.text
            );
            assert!(reply.headers.contains_key(CALL));
            refused += usize::from(*role < least);
        }
    }
    let records = world.records(World::tenant()).await;
    let forbidden = records.iter().filter(|record| record["outcome"]["reason"] == "role").count();
    assert_eq!(forbidden, refused, "each refusal has its record");
}

#[tokio::test]
async fn requests_without_a_key_reach_the_systems_tree_at_a_bounded_rate() {
    let world = World::start().await;
    for _ in 0..300 {
        world.ask("POST", "/api/reload", None, "").await;
    }
    let records = world.records(Tree::System).await;
    let refused: Vec<_> = records.iter().filter(|record| record["event"] == "admin-refused").collect();
    assert!((100..200).contains(&refused.len()), "{}", refused.len());
    assert_eq!(refused[0]["method"], "reload");
    assert_eq!(refused[0]["peer"], "127.0.0.1");
}

#[tokio::test]
async fn whoever_guesses_keys_is_slowed_down() {
    let world = World::with_failures(3).await;
    let owner = world.key(AdminRole::Owner).await;
    for _ in 0..3 {
        assert_eq!(world.ask("GET", "/api/status", Some("guess"), "").await.status, StatusCode::UNAUTHORIZED);
    }
    let limited = world.ask("GET", "/api/status", Some("guess"), "").await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(limited.headers.contains_key("retry-after"));
    // Others at the same address are not.
    assert_eq!(world.ask("GET", "/api/status", Some(&owner), "").await.status, StatusCode::OK);
    assert_eq!(world.ask("GET", "/api/status", None, "").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn pages_and_names_from_elsewhere_are_not_taken() {
    let world = World::start().await;
    let key = world.key(AdminRole::Viewer).await;
    let door = Door::Network { peer: PEER.parse().expect("an address") };
    for (host, origin, expected) in [
        ("127.0.0.1:7421", None, StatusCode::OK),
        ("[::1]:7421", None, StatusCode::OK),
        ("LOCALHOST:7421", None, StatusCode::OK),
        ("gateway.example:7421", None, StatusCode::OK),
        ("127.0.0.1:7421", Some("http://127.0.0.1:7421"), StatusCode::OK),
        ("evil.example:7421", None, StatusCode::FORBIDDEN),
        ("127.0.0.1.evil.example", None, StatusCode::FORBIDDEN),
        ("127.0.0.1:7421", Some("http://evil.example"), StatusCode::FORBIDDEN),
        ("127.0.0.1:7421", Some("null"), StatusCode::FORBIDDEN),
        ("127.0.0.1:7421", Some("http://127.0.0.1:9999"), StatusCode::FORBIDDEN),
    ] {
        let mut request = Request::builder().uri("/api/status").header("host", host);
        request = request.header("authorization", format!("Bearer {key}"));
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let reply = world.send(door, request, "").await;
        assert_eq!(reply.status, expected, "{host} {origin:?}");
        assert!(!reply.headers.contains_key("access-control-allow-origin"));
        let metrics = Request::builder().uri("/metrics").header("host", host);
        let metrics = world.send(door, metrics, "").await;
        assert_eq!(metrics.status == StatusCode::FORBIDDEN, host.contains("evil"), "{host}");
    }
}

#[tokio::test]
async fn secrets_go_in_and_never_come_out() {
    let world = World::start().await;
    let owner = world.key(AdminRole::Owner).await;
    let mut said = String::new();
    for (method, path, body) in [
        ("PUT", "/api/secrets/token", json!({ "value": CANARY })),
        ("POST", "/api/secrets/token/rotate", json!({ "value": CANARY })),
        ("POST", "/api/secrets/nothing/rotate", json!({ "value": CANARY })),
        ("PUT", "/api/secrets/token", json!({ "value": [CANARY] })),
        ("PUT", "/api/secrets/token", json!({ CANARY: 1 })),
        ("PUT", "/api/secrets/token", json!(CANARY)),
        ("POST", "/api/vault/import-fernet", json!({ "key": CANARY, "tokens": [{ "name": "a", "token": CANARY }] })),
        ("POST", "/api/vault/import-fernet", json!({ "key": CANARY, "tokens": [{ "name": CANARY }] })),
        ("POST", "/api/vault/rotate-master", json!({ "key": CANARY })),
        ("GET", "/api/secrets", json!({})),
        ("GET", "/api/audit/records", json!({})),
    ] {
        let reply = world.ask(method, path, Some(&owner), &body.to_string()).await;
        said.push_str(&reply.text);
        said = format!("{said}{:?}", reply.headers);
    }
    assert!(said.contains("\"version\":2"), "it was stored: {said}");
    assert!(!said.contains(CANARY), "{said}");
    world.desk.log.flush().await.expect("a log");
    assert!(!holds(world.folder.path(), CANARY.as_bytes()), "a file holds the secret");
    let secret = world.desk.vault.get(&"token".parse().expect("a name")).expect("a secret");
    assert_eq!(secret.expose(), CANARY);
}

/// Whether any file below `folder` holds `needle`.
fn holds(folder: &std::path::Path, needle: &[u8]) -> bool {
    fs::read_dir(folder).expect("a folder").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return holds(&path, needle);
        }
        fs::read(&path).expect("a file").windows(needle.len()).any(|window| window == needle)
    })
}

#[tokio::test]
async fn a_body_is_what_its_route_takes_or_refused() {
    let world = World::start().await;
    let owner = world.key(AdminRole::Owner).await;
    let stored = world.ask("PUT", "/api/secrets/kept", Some(&owner), &json!({ "value": "first" }).to_string()).await;
    assert_eq!(stored.status, StatusCode::OK);
    for (method, path, bodies) in [
        (
            "PUT",
            "/api/secrets/kept",
            &[r#"["second"]"#, r#"{"value":"a","value":"b"}"#, r#"{"value":1}"#, "", "null"][..],
        ),
        ("POST", "/api/secrets/kept/rotate", &[r#"["second"]"#, r#""second""#, r#"{"value":"a","more":1}"#]),
        ("POST", "/api/vault/import-fernet", &[r#"["k",[]]"#, r#"{"key":"k","tokens":[["kept","t"]]}"#, "[]"]),
        ("POST", "/api/vault/rotate-master", &["[null]", "[]"]),
        ("POST", "/api/agents/alice/keys", &["[60]", "[]", "null"]),
        ("POST", "/api/admin-keys", &[r#"[60,"label","owner"]"#]),
        ("POST", "/api/agents/alice/disable", &[r#"["why"]"#]),
        ("POST", "/api/agents/alice/enable", &[r#"{"reason":"x"}"#, "[]", "no json"]),
        ("POST", "/api/revoked-tokens", &[r#"["sha256:0"]"#]),
        ("POST", "/api/servers/look", &[r#"{"server":"one"}"#, "[]"]),
        ("POST", "/api/reload", &[r#"{"file":"x"}"#]),
        ("POST", "/api/policy/explain", &[r#"["alice","files/read"]"#]),
        ("POST", "/api/audit/erase", &[r#"["2026-11-20"]"#]),
        ("POST", "/api/audit/verify", &["[null]"]),
        ("DELETE", "/api/secrets/kept", &[r#"{"version":1}"#]),
        ("DELETE", "/api/agent-keys/0a1b2c3d", &[r#"{"id":1}"#]),
        ("DELETE", "/api/admin-keys/0a1b2c3d", &[r#"{"id":1}"#]),
    ] {
        for body in bodies {
            let reply = world.ask(method, path, Some(&owner), body).await;
            assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{method} {path} {body}: {}", reply.text);
            assert!(reply.text.contains("send "), "{method} {path} {body}: {}", reply.text);
        }
    }
    let secret = world.desk.vault.get(&"kept".parse().expect("a name")).expect("a secret");
    assert_eq!(secret.expose(), "first", "nothing of that was stored");
    for (method, path) in
        [("POST", "/api/agents/alice/enable"), ("POST", "/api/servers/look"), ("DELETE", "/api/secrets/kept")]
    {
        let reply = world.ask(method, path, Some(&owner), "{}").await;
        assert_eq!(reply.status, StatusCode::OK, "{method} {path}: {}", reply.text);
    }
}

#[tokio::test]
async fn a_key_is_shown_once_and_only_its_digest_is_kept() {
    let world = World::start().await;
    let (id, key) = world.agent_key("alice").await;
    let listed = world.local(Method::GET, "/api/agent-keys", json!({})).await;
    assert!(listed.text.contains(&id) && !listed.text.contains(&key));
    world.desk.log.flush().await.expect("a log");
    assert!(!holds(world.folder.path(), key.as_bytes()));
}

#[tokio::test]
async fn nothing_lasts_longer_than_a_time_can_say() {
    let world = World::start().await;
    let token = format!("sha256:{}", "0".repeat(64));
    for (path, body) in [
        ("/api/agents/alice/keys", json!({ "expires_in": 3_153_600_001_u64 })),
        ("/api/revoked-tokens", json!({ "token": token, "expires_in": u64::MAX })),
    ] {
        let refused = world.local(Method::POST, path, body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(refused.text.contains("at most 3153600000 seconds"), "{}", refused.text);
    }
    let longest = world.local(Method::POST, "/api/agents/alice/keys", json!({ "expires_in": 3_153_600_000_u64 })).await;
    assert!(longest.value()["expires"].as_str().expect("a time").ends_with('Z'), "{}", longest.text);
}

#[tokio::test]
async fn revoking_and_disabling_act_on_the_next_message_of_that_agent_alone() {
    let world = World::start().await;
    let (first, one) = world.agent_key("alice").await;
    let (_, two) = world.agent_key("alice").await;
    let (_, other) = world.agent_key("bob").await;
    assert_eq!(world.authenticates(&one).await, Ok(()));

    let revoked = world.local(Method::DELETE, &format!("/api/agent-keys/{first}"), json!({})).await;
    assert_eq!(revoked.status, StatusCode::OK);
    assert_eq!(world.authenticates(&one).await, Err(AuthFault::Revoked));
    assert_eq!(world.authenticates(&two).await, Ok(()));

    world.local(Method::POST, "/api/agents/alice/disable", json!({ "reason": "leaked" })).await;
    assert!(matches!(world.authenticates(&two).await, Err(AuthFault::DisabledAgent(_))));
    assert_eq!(world.authenticates(&other).await, Ok(()));

    world.local(Method::POST, "/api/agents/alice/enable", json!({})).await;
    assert_eq!(world.authenticates(&two).await, Ok(()));
    assert_eq!(world.authenticates(&one).await, Err(AuthFault::Revoked), "revoked is for good");
}

#[tokio::test]
async fn a_revoked_management_key_opens_nothing() {
    let world = World::start().await;
    let key = world.key(AdminRole::Operator).await;
    assert_eq!(world.ask("GET", "/api/status", Some(&key), "").await.status, StatusCode::OK);
    let id = key.split('_').nth(1).expect("an id").to_owned();
    assert_eq!(world.local(Method::DELETE, &format!("/api/admin-keys/{id}"), json!({})).await.status, StatusCode::OK);
    assert_eq!(world.ask("GET", "/api/status", Some(&key), "").await.status, StatusCode::UNAUTHORIZED);
    let wrong = world.local(Method::DELETE, &format!("/api/agent-keys/{id}"), json!({})).await;
    assert_eq!(wrong.status, StatusCode::NOT_FOUND, "an operator cannot end management keys by the other route");
}

#[tokio::test]
async fn records_name_who_did_what_to_whom() {
    let world = World::start().await;
    let owner = world.key(AdminRole::Owner).await;
    let id = owner.split('_').nth(1).expect("an id");
    let reply = world.ask("POST", "/api/agents/alice/disable", Some(&owner), r#"{"reason":"leaked"}"#).await;
    world.ask("POST", "/api/agents/nobody/disable", Some(&owner), "").await;
    let records = world.records(World::tenant()).await;
    let call = reply.headers[CALL].to_str().expect("text");
    let done = records.iter().find(|record| record["call"] == call).expect("a record");
    assert_eq!(done["action"], "agent.disable");
    assert_eq!(done["actor"], format!("admin:{id}"));
    assert_eq!(done["target"], "alice");
    assert_eq!(done["detail"], "leaked");
    assert_eq!(done["peer"], "127.0.0.1");
    assert_eq!(done["outcome"]["is"], "answered");
    let not_done = records.last().expect("a record");
    assert_eq!((&not_done["target"], &not_done["outcome"]["is"]), (&json!("nobody"), &json!("refused")));
    let made = &records[0];
    assert_eq!((&made["action"], &made["actor"]), (&json!("admin.key.create"), &json!("local:1000")));
}

#[tokio::test]
async fn looking_leaves_no_record_and_reading_the_log_does() {
    let world = World::start().await;
    let viewer = world.key(AdminRole::Viewer).await;
    for path in ["/api/status", "/api/agents", "/api/secrets", "/api/servers", "/api/audit/records?limit=5"] {
        assert_eq!(world.ask("GET", path, Some(&viewer), "").await.status, StatusCode::OK, "{path}");
    }
    let actions: Vec<Value> =
        world.records(World::tenant()).await.iter().map(|record| record["action"].clone()).collect();
    assert_eq!(actions, ["admin.key.create", "audit.search"]);
}

#[tokio::test]
async fn what_a_fault_says_in_the_log_is_bounded_and_tells_no_secret() {
    const TOKEN: &str = "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";
    let world = World::start().await;
    let viewer = world.key(AdminRole::Viewer).await;
    for sent in ["a".repeat(5000), TOKEN.to_owned()] {
        let refused = world.ask("GET", &format!("/api/audit/records?{sent}=1"), Some(&viewer), "").await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.text.contains(&sent), "whoever asks is told all: {}", refused.text);
        let records = world.records(World::tenant()).await;
        let detail = records.last().expect("a record")["detail"].as_str().expect("why").to_owned();
        assert!(
            detail.starts_with("Failed to deserialize query") && detail.len() < 2100 && !detail.contains(&sent),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn what_no_record_can_be_is_a_fault_and_finds_no_empty_answer() {
    let world = World::start().await;
    let viewer = world.key(AdminRole::Viewer).await;
    for (asked, fault) in [
        ("outcome=bogus", "`outcome` is one of answered, failed"),
        ("kind=bogus", "`kind` is one of intent, call"),
        ("limit=0", "`limit` is from 1 to 1000"),
    ] {
        let refused = world.ask("GET", &format!("/api/audit/records?{asked}"), Some(&viewer), "").await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{asked}");
        assert!(refused.text.contains(fault), "{}", refused.text);
    }
    let found = world.ask("GET", "/api/audit/records?outcome=refused&kind=admin&limit=9999", Some(&viewer), "").await;
    assert_eq!(found.status, StatusCode::OK);
}

#[tokio::test]
async fn a_call_is_shown_and_proven_in_whichever_tree_it_is() {
    let world = World::start().await;
    let viewer = world.key(AdminRole::Viewer).await;
    let call = |reply: &Reply| reply.headers[CALL].to_str().expect("text").to_owned();
    let own = call(&world.ask("POST", "/api/agents/alice/disable", Some(&viewer), "").await);
    // Nobody is known to have sent this.
    let unknown = call(&world.ask("POST", "/api/agents/alice/disable", None, "").await);
    for (call, tree) in [(own, World::tenant()), (unknown, Tree::System)] {
        assert!(world.records(tree).await.iter().any(|record| record["call"] == call.as_str()), "{call}");
        let path = format!("/api/audit/calls/{call}");
        let shown = world.ask("GET", &path, Some(&viewer), "").await.value();
        assert_eq!(shown["records"][0]["record"]["call"], call.as_str());
        let proof = world.ask("GET", &format!("{path}/proof"), Some(&viewer), "").await;
        assert_eq!(proof.status, StatusCode::OK, "{}", proof.text);
        let proven = audit::verify_proof(&proof.text, None, &world.desk.log_public).expect("a proof");
        let record: Value = serde_json::from_slice(&proven.leaf).expect("a record");
        assert_eq!(record["record"]["call"], call.as_str());
        // What never was a call has no texts; that is another answer than that nothing is known of it.
        assert_eq!(world.local(Method::GET, &format!("{path}/texts"), json!({})).await.status, StatusCode::OK);
    }
    let nothing = format!("/api/audit/calls/{}/proof", "0".repeat(32));
    assert_eq!(world.ask("GET", &nothing, Some(&viewer), "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn explaining_asks_the_policies_in_force() {
    let world = World::start().await;
    let ask = |tool: &str| json!({ "agent": "alice", "tool": tool, "arguments": { "path": "/" } });
    let known = world.local(Method::POST, "/api/policy/explain", ask("files/read")).await.value();
    assert_eq!(known["policy"]["decision"], "allow");
    assert_eq!(known["policy"]["rules"], json!(["reads"]));
    assert_eq!(known["obstacles"], json!(["server `files` is not in the configuration"]));
    let other = world.local(Method::POST, "/api/policy/explain", ask("mail/send")).await.value();
    assert_eq!(other["policy"]["decision"], "deny");
    for bad in ["files", "/x", "files/"] {
        let reply = world.local(Method::POST, "/api/policy/explain", ask(bad)).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn a_request_that_came_through_no_door_is_not_served() {
    let world = World::start().await;
    let request = Request::builder().uri("/api/status").body(Full::new(Bytes::new())).expect("a request");
    let service = TowerToHyperService::new(world.router.clone());
    let Ok(response) = hyper::service::Service::call(&service, request).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}
