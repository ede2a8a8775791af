//! What clients do while a gateway is soaked: calls of each era and across, streams, questions, tasks, sessions that end in
//! order and otherwise.

use crate::churn::{self, Tally};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use testkit::{Agent, Ask, LEGACY, Reply, meta};
use tokio::time::timeout;

/// How long one step may take. Nothing here waits for more than an answer.
pub(crate) const STEP: Duration = Duration::from_secs(20);
/// How often, at most, a question is left without an answer: a principal has room for sixteen calls that wait, and the
/// clients, who are one, have questions of their own.
const LEAVES: Duration = Duration::from_mins(1);
/// How many different turns there are.
pub(crate) const TURNS: usize = 27;

/// One thing that a client does.
pub(crate) async fn go(turn: usize, base: &str, tally: &Tally) -> Result<()> {
    timeout(STEP, step(turn % TURNS, base, tally)).await.context("it takes too long")?
}

async fn step(turn: usize, base: &str, tally: &Tally) -> Result<()> {
    let modern = |path: &str| Agent::modern(&format!("{base}{path}"), None);
    let url = |path: &str| format!("{base}{path}");
    match turn {
        // Calls of each era, and across.
        0 => called(&modern("/mcp/json"), "echo").await,
        1 => called(&modern("/mcp/legacy"), "echo").await,
        2 => session(&Agent::legacy(&url("/mcp/json"), None).await, "echo").await,
        3 => session(&Agent::legacy(&url("/mcp/modern"), None).await, "echo").await,
        // Everything at once, with a stream that is left open when the session ends.
        4 => {
            let agent = Agent::legacy(&url("/mcp"), None).await;
            let stream = agent.listen().await;
            called(&agent, "events__echo").await?;
            drop(stream);
            session(&agent, "json__echo").await
        }
        // Whoever goes without a word.
        5 => {
            let agent = Agent::legacy(&url("/mcp"), None).await;
            drop(agent.listen().await);
            called(&agent, "modern__echo").await
        }
        6 => {
            let listen = json!({"notifications": {"toolsListChanged": true}});
            drop(modern("/mcp").request("subscriptions/listen", listen).await);
            Ok(())
        }
        // A stream that is left in the middle.
        7 => {
            let mut stream = streamed(&modern("/mcp/json")).await;
            ensure!(stream.event().await.is_some(), "no event");
            drop(stream);
            Ok(())
        }
        8 => {
            let agent = Agent::legacy(&url("/mcp/json"), None).await;
            let mut stream = streamed(&agent).await;
            ensure!(stream.event().await.is_some(), "no event");
            drop(stream);
            left(&agent).await
        }
        // A server that asks over the bridge, and is answered; or its client goes and never comes back.
        10 if may_leave() => asked(&modern("/mcp/legacy")).await.map(drop),
        9 | 10 => answered(&modern("/mcp/legacy")).await,
        // Servers that something happens to meanwhile.
        12..19 => {
            let (server, era) = match turn {
                12 => ("frail", Some(LEGACY)),
                13 => ("common", Some(LEGACY)),
                14 => ("common", None),
                15 => ("mortal", Some(LEGACY)),
                16 => ("mortal", None),
                17 => ("changing", Some(LEGACY)),
                _ => ("changing", None),
            };
            let echo = json!({"text": "a"});
            let files = json!({});
            let tool = if turn < 15 { ("list_files", &files) } else { ("echo", &echo) };
            churn::disturbed(&url(&format!("/mcp/{server}")), era, tool, tally).await
        }
        // Tasks of each era.
        19 => task(&Agent::legacy(&url("/mcp/json"), None).await, "echo", tally).await,
        20 => task(&modern("/mcp/json"), "echo", tally).await,
        21 => task(&Agent::legacy(&url("/mcp"), None).await, "json__echo", tally).await,
        22 => task(&modern("/mcp"), "json__echo", tally).await,
        // HTTP with SSE, of 2024-11-05, on either side.
        23 => old(base, "json", tally).await,
        24 => old(base, "modern", tally).await,
        25 => {
            tally.note(churn::OLD_SERVERS, 1);
            session(&Agent::legacy(&url("/mcp/lasting"), None).await, "echo").await
        }
        26 => {
            tally.note(churn::OLD_SERVERS, 1);
            called(&modern("/mcp/lasting"), "echo").await
        }
        // A process of its own.
        _ => {
            let agent = Agent::legacy(&url("/mcp/pipe"), None).await;
            ensure!(!agent.tools().await.is_empty(), "no tools");
            left(&agent).await
        }
    }
}

async fn session(agent: &Agent, tool: &str) -> Result<()> {
    ensure!(!agent.tools().await.is_empty(), "no tools");
    called(agent, tool).await?;
    left(agent).await
}

/// A call that becomes a task, which is asked after until its result is there, and another one that is taken back.
async fn task(agent: &Agent, tool: &str, tally: &Tally) -> Result<()> {
    let is_legacy = agent.session().is_some();
    let with = |id: &str| if is_legacy { json!({"taskId": id}) } else { json!({"taskId": id, "_meta": can_tasks()}) };
    let ask = async |method: &str, params| agent.request(method, params).await.json().await;
    for ends in [&["tasks/get", "tasks/result"][..], &["tasks/cancel"]] {
        let call = if is_legacy {
            json!({"name": tool, "arguments": {"text": "a"}, "task": {"ttl": 60_000}})
        } else {
            json!({"name": tool, "arguments": {"text": "a"}, "_meta": can_tasks()})
        };
        let begun = ask("tools/call", call).await;
        let id = begun.pointer("/result/task/taskId").or_else(|| begun.pointer("/result/taskId"));
        let id = id.and_then(Value::as_str).with_context(|| format!("no task: {begun}"))?;
        // What has become of it says the modern era with the task itself.
        for method in ends.iter().filter(|method| is_legacy || **method != "tasks/result") {
            let told = ask(method, with(id)).await;
            ensure!(told.get("result").is_some(), "{method}: {told}");
        }
        tally.note(churn::TASKS, 1);
    }
    if is_legacy { left(agent).await } else { Ok(()) }
}

/// What a client says that knows tasks of 2026-07-28.
fn can_tasks() -> Value {
    let extensions = json!({"io.modelcontextprotocol/tasks": {}});
    let mut meta = meta();
    if let Some(members) = meta.as_object_mut() {
        members.insert("io.modelcontextprotocol/clientCapabilities".to_owned(), json!({"extensions": extensions}));
    }
    meta
}

/// A client of 2024-11-05: hears everything on one stream, says everything beside it, and goes without a word.
async fn old(base: &str, server: &str, tally: &Tally) -> Result<()> {
    let opens = Ask::get(&format!("{base}/sse/{server}")).header("accept", "text/event-stream");
    let mut stream = opens.send().await;
    let to = format!("{base}{}", stream.event().await.context("no endpoint")?.data);
    let client = json!({"name": "old", "version": "1"});
    let hello = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": client});
    let call = json!({"name": "echo", "arguments": {"text": "a"}});
    let said = [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}),
        json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": call}),
    ];
    for message in said {
        let status = Ask::post(&to, message.to_string()).send().await.status;
        ensure!(status == 202, "{message} was refused with {status}");
        while message.get("id").is_some() {
            let heard = stream.event().await.context("the stream ended")?.json();
            if heard.get("id") == message.get("id") {
                ensure!(heard.get("result").is_some(), "{heard}");
                break;
            }
        }
    }
    tally.note(churn::OLD_CLIENTS, 1);
    Ok(())
}

async fn left(agent: &Agent) -> Result<()> {
    let status = agent.leave().await.status;
    // A server need not let its sessions be ended; then they end when they have been idle long enough.
    ensure!(status.is_success() || status == 405, "the session was left with {status}");
    Ok(())
}

async fn called(agent: &Agent, tool: &str) -> Result<()> {
    let answer = agent.call(tool, json!({"text": "a"})).await;
    match answer.pointer("/result/content/0/text").and_then(Value::as_str) {
        Some("a") => Ok(()),
        _ => bail!("{tool}: {answer}"),
    }
}

/// Calls a tool that asks first, and gives the question: what the client gets in place of an answer.
async fn asked(agent: &Agent) -> Result<Value> {
    let answer = agent.call("ask", json!({"text": "a"})).await;
    let is_question = answer.pointer("/result/resultType").is_some_and(|kind| kind == "input_required");
    ensure!(is_question, "no question: {answer}");
    Ok(answer)
}

/// The same, and answers.
async fn answered(agent: &Agent) -> Result<()> {
    let question = asked(agent).await?;
    let requests = question.pointer("/result/inputRequests").and_then(Value::as_object);
    let name = requests.and_then(|requests| requests.keys().next()).context("nothing is asked")?;
    let said = json!({"action": "accept", "content": {"name": "a"}});
    let state = question.pointer("/result/requestState");
    let again =
        json!({"name": "ask", "arguments": {"text": "a"}, "requestState": state, "inputResponses": {name: said}});
    let answer = agent.request("tools/call", again).await.json().await;
    match answer.pointer("/result/content/0/text").and_then(Value::as_str) {
        Some("answered") => Ok(()),
        _ => bail!("ask: {answer}"),
    }
}

/// Whether the last question that was left without an answer is long enough ago, or the beginning: a call that waits for
/// its client is given up after minutes, which a short run need not wait for.
fn may_leave() -> bool {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let is_time = last.get_or_insert_with(Instant::now).elapsed() > LEAVES;
    if is_time {
        *last = Some(Instant::now());
    }
    is_time
}

async fn streamed(agent: &Agent) -> Reply {
    agent.request("tools/call", json!({"name": "stream", "arguments": {"events": 5}})).await
}
