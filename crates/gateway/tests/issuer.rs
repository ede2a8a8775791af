//! One name from two issuers is two users: nothing that belongs to one is there for the other.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::EraSettings;
use http::Method;
use identity::{ClaimPath, IssuerSetting, JwksSource};
use inside::{Inside, Plan};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use testkit::{Agent, Answer, Ask, Issuer, Kind, Upstream, meta, soon};
use vocab::IssuerName;

/// A gateway that takes the tokens of two issuers.
struct Both {
    inside: Inside,
    issuers: [Issuer; 2],
}

impl Both {
    async fn start(plan: Plan) -> Self {
        let issuers = [Issuer::start(Kind::Ed25519).await, Issuer::start(Kind::Ed25519).await];
        let claim = |path: &str| path.parse::<ClaimPath>().unwrap();
        let setting = |issuer: &Issuer| IssuerSetting {
            internal: true,
            jwks: JwksSource::Url(issuer.jwks_url().parse().unwrap()),
            user: Some(claim("claim:sub")),
            ..IssuerSetting::new(IssuerName::new(&issuer.url()).unwrap(), vec!["here".to_owned()], claim("claim:azp"))
        };
        let inside = Inside::start(Plan { issuers: issuers.iter().map(setting).collect(), ..plan }).await;
        Self { inside, issuers }
    }

    /// A token of the first issuer or of the second, for the same agent and the same user.
    fn token(&self, of: usize, number: u32) -> String {
        let exp = self.inside.now().as_micros() / 1_000_000 + 3600;
        let claims = json!({"aud": "here", "azp": "alice", "sub": "u1", "exp": exp, "jti": number});
        self.issuers[of].token(claims)
    }

    /// The first and the second, as modern clients.
    fn modern(&self, path: &str) -> [Agent; 2] {
        [0, 1].map(|of| self.inside.modern(path, &self.token(of, 1)))
    }

    /// The issuers that the records of a kind name for this agent and user.
    fn named<'a>(&self, records: impl IntoIterator<Item = &'a Value>) -> Vec<usize> {
        let of = |record: &Value| {
            assert_eq!((&record["agent"], &record["user"]), (&json!("alice"), &json!("u1")), "{record:#}");
            self.issuers.iter().position(|issuer| record["issuer"] == issuer.url()).unwrap()
        };
        records.into_iter().map(of).collect()
    }
}

fn legacy(upstream: &Upstream) -> Plan {
    Plan { era: EraSettings::Legacy, ..Plan::of(upstream) }
}

#[tokio::test]
async fn a_session_is_unknown_to_the_same_user_of_another_issuer() {
    let upstream = Upstream::start().await;
    let both = Both::start(Plan::of(&upstream)).await;
    for path in ["/mcp/files", "/mcp"] {
        let first = both.inside.legacy(path, &both.token(0, 1)).await;
        let (url, session) = (both.inside.url(path), first.session().unwrap());
        let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {}}).to_string();
        let get = || Ask::get(&url).header("accept", "text/event-stream");
        let asks = || [Ask::post(&url, call.clone()), get(), Ask::new(Method::DELETE, &url)];
        let before = [upstream.seen("tools/list").len(), upstream.seen("DELETE").len()];
        for ask in asks() {
            let reply = ask.bearer(&both.token(1, 1)).header("mcp-session-id", session).send().await;
            assert_eq!(reply.status, 404);
        }
        assert_eq!([upstream.seen("tools/list").len(), upstream.seen("DELETE").len()], before);
        // It is there for whose it is, with the next token of the same issuer as with the first.
        for number in [1, 2] {
            let ask = Ask::post(&url, call.clone()).bearer(&both.token(0, number)).header("mcp-session-id", session);
            let answer = ask.send().await.json().await;
            assert!(answer["result"]["tools"].is_array(), "{answer}");
        }
        let gone = Ask::new(Method::DELETE, &url).bearer(&both.token(0, 2)).header("mcp-session-id", session);
        assert!(gone.send().await.status.is_success());
    }
}

#[tokio::test]
async fn records_name_the_issuer_of_who_called() {
    let upstream = Upstream::start().await;
    let both = Both::start(Plan::of(&upstream)).await;
    for agent in both.modern("/mcp/files") {
        assert!(agent.call("echo", json!({})).await["result"].is_object());
    }
    // Also of whom the registry does not know.
    let stray = both.issuers[1].token(json!({"aud": "here", "azp": "mallory", "sub": "u1", "exp": 4_000_000_000_u64}));
    assert_eq!(both.inside.call(&stray, "echo", &json!({})).send().await.status, 403);
    both.inside.call(&both.inside.alice, "echo", &json!({})).send().await.json().await;
    let (intents, records) = (both.inside.intents().await, both.inside.records().await);
    assert_eq!(both.named(&intents[..2]), [0, 1]);
    assert_eq!(both.named(&records[..2]), [0, 1]);
    assert_eq!((&records[2]["agent"], &records[2]["issuer"]), (&json!("mallory"), &json!(both.issuers[1].url())));
    // Nobody vouches for a key.
    for record in [&intents[2], &records[3]] {
        assert_eq!((&record["agent"], record.get("issuer")), (&json!("alice"), None));
    }
}

/// A server that asks who calls, and answers with its process.
const PROCESS: &str = r#"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  case "$line" in
    *'"initialize"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}}';;
    *'"tools/list"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}}';;
    *'"tools/call"'*) call=$id; echo '{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"message":"Who?","requestedSchema":{"type":"object","properties":{}}}}';;
    *'"id":"q"'*) echo '{"jsonrpc":"2.0","id":'$call',"result":{"content":[],"pid":'$$'}}';;
  esac
done
"#;

/// A call that goes on where it was asked.
fn retry(state: &Value) -> Value {
    let answer = json!({"question": {"action": "accept", "content": {}}});
    json!({"name": "echo", "arguments": {}, "requestState": state, "inputResponses": answer})
}

#[tokio::test]
async fn each_has_a_process_and_goes_on_with_its_own_calls_alone() {
    let upstream = Upstream::start().await;
    let command = Some(["/bin/sh", "-c", PROCESS].map(str::to_owned).to_vec());
    let both = Both::start(Plan { command, ..legacy(&upstream) }).await;
    let agents = both.modern("/mcp/files");
    let mut pids = Vec::new();
    for (own, other) in [(0, 1), (1, 0), (0, 1)] {
        let asked = soon(agents[own].call("echo", json!({}))).await;
        let state = &asked["result"]["requestState"];
        assert!(state.is_string(), "{asked}");
        let refused = soon(agents[other].request("tools/call", retry(state))).await.json().await;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("same caller"), "{refused}");
        let end = soon(agents[own].request("tools/call", retry(state))).await.json().await;
        pids.push(end["result"]["pid"].as_u64().unwrap());
    }
    assert_eq!(pids[0], pids[2]);
    assert_ne!(pids[0], pids[1]);
    assert_eq!(both.inside.state.leg_count(), 2);
}

/// A server that speaks the modern era, and answers with its process.
const MODERN: &str = r#"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  result() { echo '{"jsonrpc":"2.0","id":'"$id"',"result":{"resultType":"complete",'"$1"'"ttlMs":0,"cacheScope":"private"}}'; }
  case "$line" in
    *'"server/discover"'*) result '"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},' ;;
    *'"tools/list"'*) result '"tools":[{"name":"echo","inputSchema":{"type":"object"}}],' ;;
    *'"id"'*) result '"content":[],"pid":'$$',' ;;
  esac
done
"#;

#[tokio::test]
async fn each_has_a_process_of_either_era() {
    let upstream = Upstream::start().await;
    let command = Some(["/bin/sh", "-c", MODERN].map(str::to_owned).to_vec());
    let both = Both::start(Plan { command, era: EraSettings::Modern, ..Plan::of(&upstream) }).await;
    let mut pids = Vec::new();
    for of in [0, 1, 0] {
        let agent = both.inside.modern("/mcp/files", &both.token(of, 1));
        let answer = soon(agent.call("echo", json!({}))).await;
        pids.push(answer["result"]["pid"].as_u64().unwrap());
    }
    assert_eq!(pids[0], pids[2]);
    assert_eq!(pids.into_iter().collect::<BTreeSet<_>>().len(), 2);
}

#[tokio::test]
async fn a_task_is_unknown_to_the_same_user_of_another_issuer() {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        Answer::result(&request.id(), &json!({"resultType": "task", "taskId": "t", "status": "working"}))
    });
    upstream.always("tasks/get", |request| {
        let at = "2026-11-25T00:00:00Z";
        let task = json!({"resultType": "complete", "taskId": "t", "status": "working", "createdAt": at, "lastUpdatedAt": at, "ttl": 60000});
        Answer::result(&request.id(), &task)
    });
    let both = Both::start(Plan::of(&upstream)).await;
    // On the path of all servers ids are sealed; on that of one they are the server's.
    for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        let [first, second] = both.modern(path);
        let mut meta = meta();
        meta["io.modelcontextprotocol/clientCapabilities"]["extensions"] = json!({"io.modelcontextprotocol/tasks": {}});
        let begun = first.request("tools/call", json!({"name": tool, "arguments": {}, "_meta": meta})).await;
        let begun = begun.json().await;
        let id = begun["result"]["taskId"].as_str().unwrap().to_owned();
        let get = async |agent: &Agent| agent.request("tasks/get", json!({"taskId": id})).await.json().await;
        let before = upstream.seen("tasks/get").len();
        assert_eq!(get(&second).await["error"]["message"], format!("Unknown task: {id}"));
        assert_eq!(upstream.seen("tasks/get").len(), before, "the server was not asked");
        assert_eq!(get(&first).await["result"]["taskId"], json!(id));
    }
}
