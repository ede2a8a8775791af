//! What servers ask their clients: one answer reaches them, or a no. Nothing leaves them waiting for ever.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::{
    limit::{Allowance, LimitSetting, LimitSettings, Rate},
    settings::EraSettings,
};
use guard::{Detector, Guards, Match, Mode, Setting};
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use testkit::{Agent, Answer, Feed, Reply, Upstream, soon};

const SECRET: &str = "ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb";

/// Breaks when it sees the word.
struct Brittle;

impl Detector for Brittle {
    fn family(&self) -> &'static str {
        "brittle"
    }

    fn find(&self, text: &str, _: &mut Vec<Match>) {
        assert!(!text.contains("boom"), "the detector breaks, as the test wants");
    }
}

/// A gateway that refuses secrets in what clients say, and cannot look at all of it.
async fn strict(upstream: &Upstream) -> Inside {
    let setting = Setting { results: Mode::Off, arguments: Mode::Refuse };
    let guards = Guards::new(setting).with(Arc::new(Brittle), setting).unwrap();
    Inside::start(Plan { guards, ..Plan::of(upstream) }).await
}

/// The server asks in the course of a call; what the client is asked.
async fn asked(feed: &Feed, reply: &mut Reply, id: u64) -> Value {
    let params = json!({"messages": [], "maxTokens": 1});
    feed.message(&json!({"jsonrpc": "2.0", "id": id, "method": "sampling/createMessage", "params": params})).await;
    soon(reply.event()).await.unwrap().json()["id"].clone()
}

async fn answer(agent: &Agent, id: &Value, text: &str) -> Reply {
    let result = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": text}});
    agent.ask("", &json!({"jsonrpc": "2.0", "id": id, "result": result})).send().await
}

/// A client takes an error with an id for the answer to its own request with that id.
fn answers_nothing(refusal: &Value, code: i64) {
    assert_eq!((refusal.get("id"), &refusal["error"]["code"]), (None, &json!(code)), "{refusal}");
}

#[tokio::test]
async fn a_refused_answer_is_a_no_and_a_late_one_is_still_an_answer() {
    let upstream = Upstream::start().await;
    let inside = strict(&upstream).await;
    for (round, (path, tool)) in [("/mcp/files", "echo"), ("/mcp", "files__echo")].into_iter().enumerate() {
        let before = round * 3;
        inside.clock.advance(Duration::from_mins(1));
        let agent = inside.legacy(path, &inside.alice).await;
        let (stream, feed) = Answer::events();
        upstream.next("tools/call", stream);
        let mut reply = agent.request("tools/call", json!({"name": tool})).await;
        // What must not pass does not, and the server does not wait for it.
        let id = asked(&feed, &mut reply, 7).await;
        let refusal = answer(&agent, &id, SECRET).await;
        assert_eq!(refusal.status, 400);
        answers_nothing(&refusal.json().await, -31003);
        let no = upstream.arrived("response", before + 1).await.json();
        assert_eq!((&no["id"], &no["error"]["code"]), (&json!(7), &json!(-31003)), "{no}");
        assert!(!no.to_string().contains("ghp_"));
        let again = answer(&agent, &id, "fine").await;
        assert_eq!(again.status, 400, "it was answered");
        answers_nothing(&again.json().await, -32600);
        let id = asked(&feed, &mut reply, 8).await;
        assert_eq!(answer(&agent, &id, "first").await.status, 202);
        assert_eq!(upstream.arrived("response", before + 2).await.json()["result"]["content"]["text"], "first");
        // What did not get through for a reason of ours may come again.
        let id = asked(&feed, &mut reply, 9).await;
        let fault = answer(&agent, &id, "boom").await;
        assert_eq!(fault.status, 502);
        answers_nothing(&fault.json().await, -32603);
        assert_eq!(answer(&agent, &id, "second").await.status, 202);
        let heard = upstream.arrived("response", before + 3).await.json();
        assert_eq!((&heard["id"], &heard["result"]["content"]["text"]), (&json!(9), &json!("second")));
        assert_eq!(upstream.seen("response").len(), before + 3);
        // The record says what the client was told.
        let records = inside.records().await;
        let told: Vec<_> = records.iter().filter(|record| record["method"] == "response").collect();
        let told: Vec<&Value> = told.iter().skip(round * 5).map(|record| &record["http_status"]).collect();
        assert_eq!(told, [400, 400, 202, 502, 202]);
    }
}

#[tokio::test]
async fn an_answer_to_what_a_server_took_back_is_taken_and_goes_nowhere() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        let agent = inside.legacy(path, &inside.alice).await;
        let (stream, feed) = Answer::events();
        upstream.next("tools/call", stream);
        let mut reply = agent.request("tools/call", json!({"name": tool, "arguments": {}})).await;
        let id = asked(&feed, &mut reply, 7).await;
        let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
        feed.message(&cancelled).await;
        assert_eq!(soon(reply.event()).await.unwrap().json()["params"]["requestId"], id);
        let call = upstream.seen("tools/call").pop().unwrap().id();
        feed.message(&json!({"jsonrpc": "2.0", "id": call, "result": {"content": []}})).await;
        assert!(soon(reply.event()).await.unwrap().json()["result"].is_object());
        // They may have crossed on the way.
        assert_eq!(answer(&agent, &id, "late").await.status, 202);
        assert_eq!(answer(&agent, &id, "again").await.status, 400);
        let records = inside.records().await;
        let outcomes = records.iter().filter(|record| record["method"] == "response").map(outcome);
        let outcomes: Vec<String> = outcomes.collect();
        assert!(outcomes.ends_with(&["abandoned".to_owned(), "refused unknown-question resolve".to_owned()]));
    }
    assert_eq!(upstream.seen("response").len(), 0);
}

/// One call at a time and one an hour, however it is counted, on a server that serves one at a time.
fn one_at_a_time(tool: Option<&str>, server: Option<&str>, agent: Option<&str>) -> LimitSettings {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let rule = LimitSetting {
        agent: text(agent),
        tool: text(tool),
        server: text(server),
        tenant: None,
        allowance: Allowance { rate: Rate { count: 1, per: Duration::from_hours(1) }, burst: 1 },
        concurrency: Some(1),
    };
    LimitSettings { rules: vec![rule], ..LimitSettings::default() }
}

#[tokio::test]
async fn an_answer_is_no_call_more_and_what_answers_nothing_is_none() {
    let rules = [(Some("files/*"), None, None), (None, Some("files"), None), (None, None, Some("*"))];
    for (tool, server, agent) in rules {
        for (path, prompt) in [("/mcp/files", "greet"), ("/mcp", "files__greet")] {
            let upstream = Upstream::start().await;
            upstream.always("prompts/list", |request| {
                Answer::result(&request.id(), &json!({"prompts": [{"name": "greet"}]}))
            });
            let limits = one_at_a_time(tool, server, agent);
            let inside = Inside::start(Plan { limits, calls_in_flight: 1, ..Plan::of(&upstream) }).await;
            let agent = inside.legacy(path, &inside.alice).await;
            let (stream, feed) = Answer::events();
            upstream.next("prompts/get", stream);
            let mut reply = agent.request("prompts/get", json!({"name": prompt})).await;
            for id in [7, 8] {
                let asked = asked(&feed, &mut reply, id).await;
                assert_eq!(answer(&agent, &asked, "yes").await.status, 202, "what the call holds is in nobody's way");
                assert_eq!(answer(&agent, &asked, "again").await.status, 400, "a question is answered once");
            }
            assert_eq!(upstream.arrived("response", 2).await.json()["id"], 8);
            assert_eq!(answer(&agent, &json!("made up"), "yes").await.status, 400);
            assert_eq!(upstream.seen("response").len(), 2, "nobody gets in as an answer");
            let other = agent.request("prompts/get", json!({"name": prompt})).await;
            assert_eq!(other.json().await["error"]["code"], -31002, "calls are counted");
        }
    }
}

/// A server of today that asks for two things before it answers, or says what a task of its own waits for.
async fn asking() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
        let form = json!({"method": "elicitation/create", "params": {"mode": "form", "message": "Who?", "requestedSchema": schema}});
        let roots = json!({"method": "roots/list"});
        let result =
            json!({"resultType": "input_required", "inputRequests": {"who": form, "where": roots}, "requestState": "s"});
        Answer::result(&request.id(), &result)
    });
    upstream
}

#[tokio::test]
async fn what_a_modern_server_asks_in_a_result_is_judged_as_what_others_ask_on_a_stream() {
    let rules = |denied: &str| {
        json!({"policy": "test", "rules": [
            {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
            {"id": "no", "action": denied, "target": "files/*", "effect": "deny"},
        ]})
    };
    for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        for (denied, passes) in [("server.elicit", false), ("server.roots", false), ("server.sample", true)] {
            let upstream = asking().await;
            let inside = Inside::start(Plan { policy: rules(denied), ..Plan::of(&upstream) }).await;
            let alice = inside.modern(path, &inside.alice);
            let answer = alice.request("tools/call", json!({"name": tool, "arguments": {}})).await.json().await;
            let records = inside.records().await;
            let call = records.iter().find(|record| record["method"] == "tools/call").unwrap();
            let asked: Vec<&Value> = records.iter().filter(|record| record["parent"] == call["call"]).collect();
            if passes {
                assert_eq!(answer["result"]["inputRequests"]["who"]["method"], "elicitation/create", "{answer}");
                assert_eq!(asked.len(), 2, "each question is a call of its own: {records:#?}");
                assert!(asked.iter().all(|record| record["outcome"]["is"] == "answered"), "{asked:#?}");
            } else {
                assert_eq!(answer["error"]["code"], -31004, "{denied}: {answer}");
                assert!(!answer.to_string().contains("Who?"), "{answer}");
                assert_eq!(outcome(call), "withheld question release", "{call:#}");
                let of = |outcome: &str| asked.iter().filter(|record| inside::outcome(record) == outcome).count();
                let refused = asked.iter().find(|record| record["outcome"]["is"] == "refused").unwrap();
                assert_eq!(outcome(refused), "refused denied authorize", "{refused:#}");
                assert_eq!(refused["rules"], json!(["no"]), "{refused:#}");
                // The other one was not put to the client either, whether it was found good before or never looked at.
                assert_eq!((asked.len(), of("withheld question release")), (2, 1), "{asked:#?}");
            }
        }
    }
}

/// A server that wants two pages visited before it does anything.
async fn sending_away() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        let page = |id: &str| json!({"mode": "url", "elicitationId": id, "url": format!("https://{id}.example/"), "message": "go"});
        let error = json!({"code": -32042, "message": "visit", "data": {"elicitations": [page("good"), page("bad")]}});
        Answer::json(json!({"jsonrpc": "2.0", "id": request.id(), "error": error}).to_string())
    });
    upstream
}

#[tokio::test]
async fn pages_that_an_error_wants_visited_are_judged_as_questions() {
    let policy = |when: Option<&str>| {
        let mut no = json!({"id": "no", "action": "server.elicit", "target": "files/*", "effect": "deny"});
        if let Some(when) = when {
            no["when"] = json!(when);
        }
        json!({"policy": "test", "rules": [{"id": "all", "action": "*", "target": "*/*", "effect": "allow"}, no]})
    };
    // In either era, and over either bridge.
    let ways = [
        (true, EraSettings::Both),
        (true, EraSettings::Modern),
        (false, EraSettings::Both),
        (false, EraSettings::Legacy),
    ];
    for (is_legacy, era) in ways {
        for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
            let cases = [
                (policy(Some("args.url == 'https://none.example/'")), vec!["answered", "answered"]),
                (
                    policy(Some("args.url == 'https://bad.example/'")),
                    vec!["refused denied authorize", "withheld question release"],
                ),
                (policy(None), vec!["refused denied authorize", "withheld question release"]),
            ];
            for (policy, expected) in cases {
                let upstream = sending_away().await;
                let inside = Inside::start(Plan { policy, era, ..Plan::of(&upstream) }).await;
                let alice = if is_legacy {
                    inside.legacy(path, &inside.alice).await
                } else {
                    inside.modern(path, &inside.alice)
                };
                let answer = alice.call(tool, json!({})).await;
                let records = inside.records().await;
                let asked = records.iter().filter(|record| record["action"] == "server.elicit");
                let outcomes: Vec<_> = asked.map(outcome).collect();
                let what = format!("legacy client: {is_legacy}, server {era:?}, {path}: {answer} {records:#?}");
                assert_eq!(outcomes, expected, "{what}");
                let call = records.iter().rfind(|record| record["method"] == "tools/call").unwrap();
                if expected.len() == 2 && expected[0] == "answered" {
                    assert!(answer.to_string().contains("https://bad.example/"), "{what}");
                    assert_ne!(call["outcome"]["is"], "withheld", "{what}");
                } else {
                    assert_eq!(answer["error"]["code"], -31004, "{what}");
                    assert!(!answer.to_string().contains("example"), "{what}");
                    assert_eq!(
                        (outcome(call).as_str(), &call["rules"]),
                        ("withheld question release", &json!(["all", "no"])),
                        "{what}"
                    );
                    assert_eq!(answer["error"]["data"]["call"], call["call"], "{what}");
                }
            }
        }
    }
}

/// Two servers, each of which asks in the course of a call of one client of both.
struct Both {
    inside: Inside,
    agent: Agent,
    files: Asker,
    notes: Asker,
}

/// One of them, and the stream of its call.
struct Asker {
    upstream: Upstream,
    feed: Feed,
    reply: Reply,
}

impl Asker {
    async fn of(upstream: Upstream, agent: &Agent, tool: &str) -> Self {
        let (stream, feed) = Answer::events();
        upstream.next("tools/call", stream);
        let params = json!({"name": tool, "arguments": {}, "_meta": {"progressToken": tool}});
        let reply = agent.request("tools/call", params).await;
        Self { upstream, feed, reply }
    }

    /// Asks, and gives what the client hears next on the stream of the call.
    async fn ask(&mut self, id: u64, method: &str, params: &Value) -> Value {
        self.feed.message(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        soon(self.reply.event()).await.unwrap().json()
    }

    /// Asks, and gives what it is answered so many answers later. The client is asked nothing.
    async fn refused(&self, id: u64, method: &str, params: &Value, answers: usize) -> Value {
        self.feed.message(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        let no = self.heard(answers).await;
        assert_eq!(no["id"], id, "{no}");
        no
    }

    async fn heard(&self, answers: usize) -> Value {
        self.upstream.arrived("response", answers).await.json()
    }
}

async fn both() -> Both {
    let (files, notes) = (Upstream::start().await, Upstream::start().await);
    let inside = Inside::start(plan_of_both(&files, &notes, "none")).await;
    let agent = inside.legacy("/mcp", &inside.alice).await;
    let files = Asker::of(files, &agent, "files__echo").await;
    let notes = Asker::of(notes, &agent, "notes__echo").await;
    Both { inside, agent, files, notes }
}

/// `denied` may not ask for samples.
fn plan_of_both(files: &Upstream, notes: &Upstream, denied: &str) -> Plan {
    let rules = json!([
        {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
        {"id": "no", "action": "server.sample", "target": format!("{denied}/*"), "effect": "deny"},
    ]);
    let servers = vec![("files", files.url()), ("notes", notes.url())];
    Plan { servers, policy: json!({"policy": "test", "rules": rules}), ..Plan::of(files) }
}

fn task(id: &str) -> Value {
    let now = "2026-11-25T00:00:00Z";
    json!({"taskId": id, "status": "working", "createdAt": now, "lastUpdatedAt": now, "ttl": 60000})
}

fn as_task() -> Value {
    json!({"messages": [], "maxTokens": 1, "task": {"ttl": 60000}})
}

async fn give(agent: &Agent, asked: &Value, result: &Value) {
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
    assert_eq!(agent.ask("", &answer).send().await.status, 202, "{asked}");
}

#[tokio::test]
async fn a_server_names_the_tasks_that_answer_it_and_no_others_of_its_client() {
    let Both { inside, agent, mut files, mut notes } = both().await;
    for (asker, id) in [(&mut files, "of files"), (&mut notes, "of notes")] {
        let asked = asker.ask(1, "sampling/createMessage", &as_task()).await;
        give(&agent, &asked, &json!({"task": task(id)})).await;
        assert_eq!(asker.heard(1).await["result"]["task"]["taskId"], id);
    }
    // Those of another are like none.
    for (answers, (method, id)) in [
        ("tasks/get", "of files"),
        ("tasks/result", "of files"),
        ("tasks/cancel", "of files"),
        ("tasks/get", "of nobody"),
    ]
    .into_iter()
    .enumerate()
    {
        let no = notes.refused(2, method, &json!({"taskId": id}), answers + 2).await;
        assert_eq!(no["error"]["code"], -32602, "{method} {no}");
        assert_eq!(no["error"]["message"], format!("Unknown task: {id}"));
    }
    assert_eq!(notes.refused(3, "tasks/peek", &json!({"taskId": "of notes"}), 6).await["error"]["code"], -32601);
    // Its own it may follow to the end, and of a list it is given no others.
    let all = json!({"tasks": [task("of files"), task("of notes"), task("of nobody")], "nextCursor": "more"});
    for (asker, id, answers) in [(&mut files, "of files", 1), (&mut notes, "of notes", 6)] {
        let asked = asker.ask(4, "tasks/get", &json!({"taskId": id})).await;
        assert_eq!((&asked["method"], &asked["params"]["taskId"]), (&json!("tasks/get"), &json!(id)));
        give(&agent, &asked, &task(id)).await;
        assert_eq!(asker.heard(answers + 1).await["result"]["taskId"], id);
        let asked = asker.ask(5, "tasks/list", &json!({})).await;
        give(&agent, &asked, &all).await;
        let listed = asker.heard(answers + 2).await;
        assert_eq!(listed["result"], json!({"tasks": [task(id)], "nextCursor": "more"}), "{listed}");
    }
    // What the client says of a task is for the server whose it is.
    for id in ["of nobody", "of files"] {
        assert_eq!(agent.notify("notifications/tasks/status", task(id)).await.status, 202);
    }
    assert_eq!(files.upstream.arrived("notifications/tasks/status", 1).await.json()["params"]["taskId"], "of files");
    assert_eq!(files.upstream.seen("notifications/tasks/status").len(), 1);
    assert!(notes.upstream.seen("notifications/tasks/status").is_empty());
    // Whoever may not ask any more may not fetch the answer either.
    inside.swap(plan_of_both(&files.upstream, &notes.upstream, "files"));
    let no = files.refused(6, "tasks/result", &json!({"taskId": "of files"}), 4).await;
    assert_eq!(no["error"]["message"], "Unknown task: of files");
    let asked = files.ask(7, "tasks/list", &json!({})).await;
    give(&agent, &asked, &all).await;
    assert_eq!(files.heard(5).await["result"]["tasks"], json!([]));
    agent.notify("notifications/tasks/status", task("of files")).await;
    assert_eq!(files.upstream.seen("notifications/tasks/status").len(), 1);
}

#[tokio::test]
async fn on_its_own_door_a_server_asks_its_client_for_any_task() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    let mut files = Asker::of(upstream, &agent, "echo").await;
    let asked = files.ask(1, "tasks/get", &json!({"taskId": "of before"})).await;
    assert_eq!((&asked["id"], &asked["params"]["taskId"]), (&json!(1), &json!("of before")));
    let asked = files.ask(2, "tasks/list", &json!({})).await;
    give(&agent, &asked, &json!({"tasks": [task("of before")]})).await;
    assert_eq!(files.heard(1).await["result"]["tasks"], json!([task("of before")]));
}

#[tokio::test]
async fn an_answer_in_a_session_that_a_server_forgot_is_not_for_the_next_one() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan { era: EraSettings::Legacy, ..Plan::of(&upstream) }).await;
    let agent = inside.legacy("/mcp", &inside.alice).await;
    let Asker { upstream, feed, mut reply } = Asker::of(upstream, &agent, "files__echo").await;
    let old = asked(&feed, &mut reply, 1).await;
    upstream.next("tools/call", Answer::status(http::StatusCode::NOT_FOUND));
    let lost = soon(agent.call("files__echo", json!({}))).await;
    assert_eq!(lost["error"]["code"], -31006, "{lost}");
    // It may ask something else there under the same id.
    let mut after = Asker::of(upstream, &agent, "files__echo").await;
    let new = asked(&after.feed, &mut after.reply, 1).await;
    for (id, text) in [(&old, "old"), (&new, "new")] {
        assert_eq!(answer(&agent, id, text).await.status, 202, "{text}");
    }
    assert_eq!(after.heard(1).await["result"]["content"]["text"], "new");
    let Asker { upstream, .. } = after;
    assert_eq!(upstream.seen("response").len(), 1);
    let sessions: Vec<_> =
        upstream.seen("tools/call").iter().map(|call| call.header("mcp-session-id").map(str::to_owned)).collect();
    assert!(sessions[0] == sessions[1] && sessions[1] != sessions[2], "{sessions:?}");
    let records = inside.records().await;
    let outcomes: Vec<_> = records.iter().filter(|record| record["method"] == "response").map(outcome).collect();
    assert_eq!(outcomes, ["abandoned", "answered"]);
}

#[tokio::test]
async fn progress_goes_to_the_server_that_asked_by_its_own_token() {
    let Both { inside, agent, mut files, mut notes } = both().await;
    let with = |token: Value, mut params: Value| {
        params["_meta"] = json!({"progressToken": token});
        params
    };
    let plain = json!({"messages": [], "maxTokens": 1});
    let of_files = files.ask(1, "sampling/createMessage", &with(json!(1), as_task())).await;
    let of_notes = notes.ask(1, "sampling/createMessage", &with(json!("1"), plain)).await;
    let token = |asked: &Value| asked["params"]["_meta"]["progressToken"].clone();
    let told = |asked: &Value, progress: f64| json!({"progressToken": token(asked), "progress": progress});
    assert_ne!(token(&of_files), token(&of_notes));
    for (asked, asker, own) in [(&of_files, &files, json!(1)), (&of_notes, &notes, json!("1"))] {
        assert_eq!(agent.notify("notifications/progress", told(asked, 0.5)).await.status, 202);
        let heard = asker.upstream.arrived("notifications/progress", 1).await.json();
        assert_eq!(heard["params"], json!({"progressToken": own, "progress": 0.5}));
    }
    for own in [json!(1), json!("1"), json!("made up")] {
        let told = json!({"progressToken": own, "progress": 0.6});
        assert_eq!(agent.notify("notifications/progress", told).await.status, 202);
    }
    // A server speaks of its own calls, and not of another's.
    for (of, progress) in [("files__echo", 0.1), ("notes__echo", 0.2)] {
        let told = json!({"progressToken": of, "progress": progress});
        let told = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": told});
        notes.feed.message(&told).await;
    }
    assert_eq!(soon(notes.reply.event()).await.unwrap().json()["params"]["progressToken"], "notes__echo");
    // What the client tells ends with the answer, unless that is a task.
    give(&agent, &of_files, &json!({"task": task("of files")})).await;
    let said = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "yes"}});
    give(&agent, &of_notes, &said).await;
    for asked in [&of_files, &of_notes] {
        assert_eq!(agent.notify("notifications/progress", told(asked, 0.7)).await.status, 202);
    }
    let heard = files.upstream.arrived("notifications/progress", 2).await.json();
    assert_eq!(heard["params"], json!({"progressToken": 1, "progress": 0.7}));
    // And with the right to ask.
    inside.swap(plan_of_both(&files.upstream, &notes.upstream, "files"));
    agent.notify("notifications/progress", told(&of_files, 0.8)).await;
    assert_eq!(files.upstream.seen("notifications/progress").len(), 2);
    assert_eq!(notes.upstream.seen("notifications/progress").len(), 1);
}

#[tokio::test]
async fn progress_of_a_task_comes_from_the_server_that_holds_it() {
    let Both { inside: _inside, agent, files, notes } = both().await;
    let mut streams = Vec::new();
    for asker in [&files, &notes] {
        let (answer, feed) = Answer::events();
        asker.upstream.next("GET", answer);
        streams.push(feed);
    }
    let mut listening = agent.listen().await;
    for asker in [&files, &notes] {
        asker.upstream.arrived("GET", 1).await;
    }
    let begin = |request: &testkit::Received| Answer::result(&request.id(), &json!({"task": task("of files")}));
    files.upstream.always("tools/call", begin);
    let params =
        json!({"name": "files__echo", "arguments": {}, "task": {"ttl": 60000}, "_meta": {"progressToken": "t"}});
    let begun = agent.request("tools/call", params).await.json().await;
    assert_eq!(begun["result"]["task"]["status"], "working", "{begun}");
    // The call is over, and its token is that of the task.
    let said = |method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params});
    let told = |progress: f64| said("notifications/progress", json!({"progressToken": "t", "progress": progress}));
    let word = said("notifications/message", json!({"level": "info", "data": "notes"}));
    for feed in [&streams[1], &notes.feed] {
        feed.message(&told(0.1)).await;
        feed.message(&word).await;
    }
    let mut reply = notes.reply;
    for stream in [&mut listening, &mut reply] {
        assert_eq!(soon(stream.event()).await.unwrap().json()["params"]["data"], "notes");
    }
    streams[0].message(&told(0.2)).await;
    assert_eq!(soon(listening.event()).await.unwrap().json()["params"]["progress"], 0.2);
}

/// A page that a server wants visited.
fn page(id: &str) -> Value {
    json!({"mode": "url", "elicitationId": id, "url": "https://a.example/", "message": "go"})
}

fn complete(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/elicitation/complete", "params": {"elicitationId": id}})
}

#[tokio::test]
async fn a_server_says_of_its_own_pages_alone_that_they_were_dealt_with() {
    let Both { inside, agent, mut files, mut notes } = both().await;
    let id = |said: &Value| said["params"]["elicitationId"].clone();
    for (asker, shown) in [(&mut files, "files/a"), (&mut notes, "notes/a")] {
        // Both choose the same id.
        assert_eq!(id(&asker.ask(1, "elicitation/create", &page("a")).await), shown);
    }
    for (own, shown) in [(json!("a"), "notes/a"), (json!("files/a"), "notes/files/a"), (json!(1), "notes/1")] {
        notes.feed.message(&complete(&own)).await;
        assert_eq!(id(&soon(notes.reply.event()).await.unwrap().json()), shown);
    }
    // On the common stream, too.
    let (answer, feed) = Answer::events();
    notes.upstream.next("GET", answer);
    let mut listening = agent.listen().await;
    feed.message(&complete(&json!("a"))).await;
    assert_eq!(id(&soon(listening.event()).await.unwrap().json()), "notes/a");
    // And where a call is refused until they were visited.
    let call = files.upstream.seen("tools/call").pop().unwrap();
    let error = json!({"code": -32042, "message": "visit", "data": {"elicitations": [page("a"), page("b")]}});
    files.feed.message(&json!({"jsonrpc": "2.0", "id": call.id(), "error": error})).await;
    let answer = soon(files.reply.event()).await.unwrap().json();
    let ids: Vec<_> = answer["error"]["data"]["elicitations"].as_array().unwrap().iter().collect();
    assert_eq!(ids, [&page("files/a"), &page("files/b")]);
    // Whoever speaks to one server alone hears its own words.
    let alone = inside.legacy("/mcp/files", &inside.alice).await;
    let mut files = Asker::of(files.upstream, &alone, "echo").await;
    assert_eq!(files.ask(2, "elicitation/create", &page("a")).await["params"], page("a"));
}

#[tokio::test]
async fn a_page_of_a_modern_server_has_an_id_that_carries_its_server_too() {
    let upstream = Upstream::start().await;
    upstream.always("tools/call", |request| {
        let asked = json!({"visit": {"method": "elicitation/create", "params": page("a")}});
        Answer::result(&request.id(), &json!({"resultType": "input_required", "inputRequests": asked}))
    });
    let inside = Inside::start(Plan { era: EraSettings::Modern, ..Plan::of(&upstream) }).await;
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {"elicitation": {"url": {}}}, "clientInfo": {"name": "c", "version": "1"}}});
    for (path, tool, is_shown) in [("/mcp/files", "echo", false), ("/mcp", "files__echo", true)] {
        let agent = inside.legacy(path, &inside.alice).await;
        // One that can show pages.
        let opened = agent.ask("initialize", &hello).without("mcp-session-id").send().await;
        let session = opened.header("mcp-session-id").unwrap();
        let call =
            json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": {}}});
        let mut reply = agent.ask("tools/call", &call).replace("mcp-session-id", session).send().await;
        let asked = soon(reply.event()).await.unwrap().json();
        let id = asked["params"]["elicitationId"].as_str().unwrap();
        assert_eq!(id.starts_with("files/"), is_shown, "{asked}");
    }
}
