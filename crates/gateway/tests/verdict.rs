//! Which eras a server speaks: asked, dated, kept per credential, and asked again when it does not fit any more.
#![expect(clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::{CredentialSettings, Place};
use inside::{Inside, Plan};
use mcp::Era;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use testkit::{Answer, Ask, Received, Upstream, soon};
use vocab::{Secret, SecretName};

fn is_modern(received: &Received) -> bool {
    received.header("mcp-protocol-version") == Some("2026-07-28")
}

fn refused(received: &Received, code: i64) -> Answer {
    Answer::error(&received.id(), code, "no").with_status(http::StatusCode::BAD_REQUEST)
}

/// Makes a server one of the old era, as its SDKs are.
fn of_2025(upstream: &Upstream) {
    upstream.honestly("initialize");
    upstream.always("server/discover", |received| refused(received, -32000));
    upstream.always("tools/call", |received| {
        if is_modern(received) {
            refused(received, -32000)
        } else {
            Answer::result(&received.id(), &json!({"content": [], "old": true}))
        }
    });
}

/// Makes a server one of the new era.
fn of_2026(upstream: &Upstream) {
    upstream.honestly("server/discover");
    upstream.always("initialize", |received| refused(received, -32022));
    upstream.always("tools/call", |received| {
        if is_modern(received) {
            Answer::result(&received.id(), &json!({"content": [], "resultType": "complete", "old": false}))
        } else {
            refused(received, -32020)
        }
    });
}

fn server(inside: &Inside) -> Arc<gateway::server::Server> {
    inside.state.line().servers().next().cloned().unwrap()
}

/// Waits until it is known whether the server speaks an era.
async fn learned(inside: &Inside, era: Era, speaks: bool) {
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    soon(async {
        while server(inside).speaks(era) != Some(speaks) {
            turns.tick().await;
        }
    })
    .await;
}

async fn probed(upstream: &Upstream) -> Inside {
    probed_by(Plan::of(upstream)).await
}

async fn probed_by(plan: Plan) -> Inside {
    let inside = Inside::start(Plan { probed: true, ..plan }).await;
    inside.state.line().look(&server(&inside)).await;
    inside
}

async fn call(inside: &Inside) -> Value {
    inside.call(&inside.alice, "echo", &json!({})).send().await.json().await
}

#[tokio::test]
async fn an_old_server_that_became_new_is_asked_again_when_it_says_so() {
    let upstream = Upstream::start().await;
    of_2025(&upstream);
    let inside = probed(&upstream).await;
    assert_eq!([Era::Legacy, Era::Modern].map(|era| server(&inside).speaks(era)), [Some(true), Some(false)]);
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    assert_eq!(agent.call("echo", json!({})).await["result"]["old"], true);
    let before = server(&inside).state.verdict.load().legacy.unwrap();
    inside.clock.advance(Duration::from_secs(10));
    of_2026(&upstream);
    // This one is lost, and says what is wrong.
    assert!(agent.call("echo", json!({})).await["result"].is_null());
    learned(&inside, Era::Legacy, false).await;
    assert!(server(&inside).state.verdict.load().legacy.unwrap().at > before.at, "a verdict has a date");
    // From now on a bridge leads there.
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    assert_eq!(agent.call("echo", json!({})).await["result"]["old"], false);
    assert_eq!(call(&inside).await["result"]["old"], false);
}

#[tokio::test]
async fn a_new_server_that_became_old_is_asked_again_when_it_does_not_understand() {
    let upstream = Upstream::start().await;
    of_2026(&upstream);
    let inside = probed(&upstream).await;
    assert_eq!(call(&inside).await["result"]["old"], false);
    of_2025(&upstream);
    assert!(call(&inside).await["result"].is_null());
    learned(&inside, Era::Modern, false).await;
    assert_eq!(call(&inside).await["result"]["old"], true);
    // A call that a bridge carries over is held against what is known, too.
    inside.clock.advance(Duration::from_secs(10));
    of_2026(&upstream);
    inside.state.line().look(&server(&inside)).await;
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    assert_eq!(agent.call("echo", json!({})).await["result"]["old"], false);
    of_2025(&upstream);
    assert!(agent.call("echo", json!({})).await["result"].is_null());
    learned(&inside, Era::Legacy, true).await;
}

#[tokio::test]
async fn a_server_of_which_an_era_is_not_known_is_asked_when_its_answer_does_not_fit() {
    let upstream = Upstream::start().await;
    of_2025(&upstream);
    // It gave no answer when it was asked about the new era.
    upstream.always("server/discover", |_| Answer::hang());
    let mut plan = Plan { probed: true, ..Plan::of(&upstream) };
    plan.bounds.deadline = Duration::from_millis(300);
    let inside = Inside::start(plan).await;
    inside.state.line().look(&server(&inside)).await;
    assert_eq!([Era::Legacy, Era::Modern].map(|era| server(&inside).speaks(era)), [Some(true), None]);
    let asked = upstream.seen("server/discover").len();
    of_2025(&upstream);
    // What may be spoken is tried, and this call is lost.
    assert!(call(&inside).await["result"].is_null());
    learned(&inside, Era::Modern, false).await;
    assert_eq!(upstream.seen("server/discover").len(), asked + 1);
    assert_eq!(call(&inside).await["result"]["old"], true, "a bridge leads there");
}

#[tokio::test]
async fn what_clients_can_make_a_server_be_asked_is_bounded() {
    let upstream = Upstream::start().await;
    of_2026(&upstream);
    let inside = probed(&upstream).await;
    assert_eq!(upstream.seen("server/discover").len(), 1);
    // It answers calls as if it did not know the era, and says that it speaks it when it is asked.
    upstream.always("tools/call", |received| refused(received, -32000));
    for _ in 0..8 {
        assert!(call(&inside).await["result"].is_null());
    }
    upstream.arrived("resources/templates/list", 2).await;
    assert!(call(&inside).await["result"].is_null());
    assert_eq!(upstream.seen("server/discover").len(), 2, "the clock stands: once");
    inside.clock.advance(Duration::from_secs(3));
    assert!(call(&inside).await["result"].is_null());
    upstream.arrived("server/discover", 3).await;
}

#[tokio::test]
async fn silence_on_http_is_an_outage_and_changes_no_verdict() {
    let upstream = Upstream::start().await;
    of_2025(&upstream);
    let mut plan = Plan { probed: true, ..Plan::of(&upstream) };
    plan.bounds.deadline = Duration::from_millis(300);
    let inside = Inside::start(plan).await;
    inside.state.line().look(&server(&inside)).await;
    let first = **server(&inside).state.verdict.load();
    upstream.always("server/discover", |_| Answer::hang());
    inside.clock.advance(Duration::from_mins(10));
    inside.state.line().look(&server(&inside)).await;
    let second = **server(&inside).state.verdict.load();
    assert_eq!(second.modern, first.modern, "under the date of the answer");
    assert!(second.legacy.unwrap().at > first.legacy.unwrap().at);
    assert_eq!(call(&inside).await["result"]["old"], true, "the bridge stands");
    // Not for ever.
    inside.clock.advance(Duration::from_mins(51));
    inside.state.line().look(&server(&inside)).await;
    assert_eq!(server(&inside).speaks(Era::Modern), None);
}

#[tokio::test]
async fn a_verdict_holds_for_the_credential_it_was_asked_with() {
    let upstream = Upstream::start().await;
    of_2026(&upstream);
    // Whoever has the second token is led to the old server.
    let first = |received: &Received| received.header("authorization") == Some("Bearer first");
    upstream.always("initialize", move |received| if first(received) { refused(received, -32022) } else { Answer::result(
            &received.id(),
            &json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "old", "version": "1"}}),
        ) });
    upstream.always("server/discover", move |received| if first(received) { Answer::result(
            &received.id(),
            &json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private", "resultType": "complete"}),
        ) } else { refused(received, -32000) });
    upstream.always("tools/call", |received| {
        Answer::result(&received.id(), &json!({"content": [], "resultType": "complete"}))
    });
    let inside = Inside::start(Plan { probed: true, ..Plan::of(&upstream) }).await;
    let secret = SecretName::new("token").unwrap();
    inside.state.vault.set(&secret, &Secret::new("first".to_owned()), inside.now()).unwrap();
    let credentials = vec![CredentialSettings { secret: secret.clone(), place: Place::Bearer }];
    inside.swap(Plan { probed: true, credentials, ..Plan::of(&upstream) });
    assert!(call(&inside).await["result"].is_object());
    assert_eq!(server(&inside).speaks(Era::Modern), Some(true));
    let asked = upstream.seen("server/discover").len();
    inside.state.vault.set(&secret, &Secret::new("second".to_owned()), inside.now()).unwrap();
    assert!(call(&inside).await["result"].is_object());
    learned(&inside, Era::Modern, false).await;
    assert_eq!(server(&inside).speaks(Era::Legacy), Some(true));
    assert!(call(&inside).await["result"].is_object());
    assert_eq!(upstream.seen("server/discover").len(), asked + 1, "once for each credential");
}

#[tokio::test]
async fn the_first_call_of_all_is_told_as_the_second_that_no_bridge_leads_there() {
    let (old, both) = (Upstream::start().await, Upstream::start().await);
    of_2025(&old);
    for path in ["/mcp", "/mcp/files"] {
        let inside = Inside::start(Plan { probed: true, bridged: false, ..Plan::of(&old) }).await;
        let alice = inside.modern(path, &inside.alice);
        for _ in 0..2 {
            let tool = if path == "/mcp" { "files__echo" } else { "echo" };
            let answer = alice.call(tool, json!({})).await;
            assert_eq!(answer["error"]["code"], -32022, "{path}: {answer}");
        }
    }
    // Beside others, too.
    let servers = vec![("files", old.url()), ("more", both.url())];
    let inside = Inside::start(Plan { servers, probed: true, bridged: false, ..Plan::of(&old) }).await;
    let alice = inside.modern("/mcp", &inside.alice);
    for _ in 0..2 {
        assert_eq!(alice.call("files__echo", json!({})).await["error"]["code"], -32022);
    }
    assert!(old.seen("tools/call").is_empty());
}

#[tokio::test]
async fn a_server_of_the_other_era_is_told_with_the_revision_of_the_session() {
    let (new, both) = (Upstream::start().await, Upstream::start().await);
    of_2026(&new);
    let servers = vec![("files", new.url()), ("more", both.url())];
    let inside = Inside::start(Plan { servers, probed: true, bridged: false, ..Plan::of(&new) }).await;
    let agent = inside.legacy("/mcp", &inside.alice).await;
    let refused = agent.call("files__echo", json!({})).await;
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["data"]["requested"]),
        (&json!(-32022), &json!(testkit::LEGACY))
    );
    // Also where no header says it: the session has agreed on it.
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "files__echo"}});
    let ask = Ask::post(&inside.url("/mcp"), body.to_string()).bearer(&inside.alice);
    let refused = ask.header("mcp-session-id", agent.session().unwrap()).send().await.json().await;
    assert_eq!(refused["error"]["data"]["requested"], testkit::LEGACY, "{refused}");
}

/// What listens before the server is there: it answers nothing that says what it speaks.
fn starting(upstream: &Upstream) {
    for method in ["initialize", "server/discover", "tools/list", "subscriptions/listen", "GET"] {
        upstream.always(method, |_| Answer::status(http::StatusCode::SERVICE_UNAVAILABLE));
    }
}

/// A gateway that looked at its server when that was not there yet.
async fn before(upstream: &Upstream) -> Inside {
    starting(upstream);
    let inside = probed(upstream).await;
    assert_eq!([Era::Legacy, Era::Modern].map(|era| server(&inside).speaks(era)), [None, None]);
    inside.clock.advance(Duration::from_secs(2));
    inside
}

#[tokio::test]
async fn a_server_that_was_down_when_it_was_looked_at_is_looked_at_by_whoever_comes() {
    let listed = |received: &Received| {
        if is_modern(received) {
            refused(received, -32000)
        } else {
            Answer::result(&received.id(), &json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}))
        }
    };
    // Modern clients before an old server, by each request that needs no look for itself.
    for method in ["tools/list", "server/discover", "subscriptions/listen"] {
        let upstream = Upstream::start().await;
        let inside = before(&upstream).await;
        let discovered = upstream.seen("server/discover").len();
        of_2025(&upstream);
        upstream.always("tools/list", listed);
        upstream.always("GET", |_| Answer::events().0);
        let agent = inside.modern("/mcp/files", &inside.alice);
        let wanted = json!({"notifications": {"toolsListChanged": true}});
        let params = if method == "subscriptions/listen" { wanted } else { json!({}) };
        let ask = || agent.request(method, params.clone());
        let (mut one, mut other) = soon(async { tokio::join!(ask(), ask()) }).await;
        for reply in [&mut one, &mut other] {
            let heard =
                if method == "subscriptions/listen" { soon(reply.event()).await.unwrap().json() } else { Value::Null };
            match method {
                "subscriptions/listen" => {
                    assert_eq!(heard["method"], "notifications/subscriptions/acknowledged", "{heard}");
                }
                _ => assert_eq!(reply.status, 200, "{method}"),
            }
        }
        assert_eq!(upstream.seen("server/discover").len(), discovered + 1, "{method}: one look for both");
        assert_eq!(server(&inside).speaks(Era::Modern), Some(false), "{method}");
    }
    // And a legacy client before a new one.
    let upstream = Upstream::start().await;
    let inside = before(&upstream).await;
    of_2026(&upstream);
    upstream.always("tools/list", |received| {
        Answer::result(
            &received.id(),
            &json!({"tools": [], "ttlMs": 0, "cacheScope": "private", "resultType": "complete"}),
        )
    });
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    assert_eq!(agent.tools().await, Vec::<String>::new());
    assert_eq!(server(&inside).speaks(Era::Legacy), Some(false));
}

#[tokio::test]
async fn a_server_that_stays_down_is_not_looked_at_by_every_request() {
    let upstream = Upstream::start().await;
    let inside = before(&upstream).await;
    let discovered = upstream.seen("server/discover").len();
    let agent = inside.modern("/mcp/files", &inside.alice);
    for _ in 0..8 {
        assert_eq!(agent.request("tools/list", json!({})).await.status, 503, "its own word, as before");
    }
    assert_eq!(upstream.seen("server/discover").len(), discovered + 1, "the clock stands: once");
}

/// A process that answers `initialize` as `$1` says. One of the new era says nothing to what it hears first, as one does
/// that is not up yet.
const PROCESS: &str = r#"
first=yes
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  answer() { printf '%s\n' '{"jsonrpc":"2.0","id":'"$id,$1"'}'; }
  case $line in
    *'"initialize"'*) answer "$1" ;;
    *'"server/discover"'*) [ $first ] ||
      answer '"result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private"}' ;;
    *'"tools/list"'*)
      answer '"result":{"resultType":"complete","tools":[{"name":"echo","inputSchema":{"type":"object"}}],"ttlMs":0,"cacheScope":"private"}' ;;
    *'"tools/call"'*) answer '"result":{"resultType":"complete","content":[]}' ;;
  esac
  first=
done"#;

/// A gateway before a process of which nobody says what it speaks.
async fn looked_at(introduced: &str) -> Inside {
    let upstream = Upstream::start().await;
    let command = ["/bin/sh", "-c", PROCESS, "server", introduced].map(str::to_owned).to_vec();
    // The silence lasts as long as the deadline.
    let bounds = gateway::settings::Bounds { deadline: Duration::from_secs(2), ..Plan::of(&upstream).bounds };
    probed_by(Plan { command: Some(command), bounds, ..Plan::of(&upstream) }).await
}

#[tokio::test]
async fn a_process_that_starts_slowly_is_of_the_era_that_it_names_itself() {
    let refusal = |supported: Value| {
        let data = json!({"supported": supported, "requested": "2025-11-25"});
        format!(r#""error":{}"#, json!({"code": -32022, "message": "no", "data": data}))
    };
    let inside = looked_at(&refusal(json!(["2026-07-28"]))).await;
    assert_eq!([Era::Legacy, Era::Modern].map(|era| server(&inside).speaks(era)), [Some(false), Some(true)]);
    let agent = inside.modern("/mcp/files", &inside.alice);
    assert_eq!(agent.tools().await, ["echo"]);
    assert_eq!(agent.call("echo", json!({})).await["result"]["content"], json!([]));
    // One that names nothing that is known here is of no era, and the operator reads what it said.
    let inside = looked_at(&refusal(json!(["2030-01-01"]))).await;
    assert!(why(&inside).ends_with("; `initialize` was answered with error -32022: no"), "{}", why(&inside));
}

#[tokio::test]
async fn a_server_of_no_known_revision_is_said_to_answer_what_it_answered() {
    let inside = looked_at(r#""result":{"protocolVersion":"2030-01-01","capabilities":{},"serverInfo":{}}"#).await;
    let expected = "it speaks no revision that it is asked in: `server/discover`: no answer within 2 s; `initialize` was \
                    answered with version `2030-01-01`, which is not known here";
    assert_eq!(why(&inside), expected);
    // The same over HTTP, where one refuses to be asked in the new era, and gives no version in the old one.
    let upstream = Upstream::start().await;
    upstream.always("server/discover", |received| Answer::error(&received.id(), -32601, "no such method"));
    upstream.always("initialize", |received| Answer::result(&received.id(), &json!({"capabilities": {}})));
    let expected = "it speaks no revision that it is asked in: `server/discover` was answered with error -32601: no such \
                    method; `initialize` was answered without a protocol version";
    assert_eq!(why(&probed(&upstream).await), expected);
}

/// Why the last look failed, as the operator reads it.
fn why(inside: &Inside) -> String {
    server(inside).state.fault.load().as_ref().map(ToString::to_string).unwrap_or_default()
}
