//! Calls that ask for nothing: in one piece, in many, of a process, and as a task.

use super::{answer, answering, echo, echo_at, goes, news};
use crate::{
    cell::{Cell, Next, Open},
    table::{
        Client, Door,
        Fault::{Cut, Disabled, Flipped, Gone, Killed, Moved, Removed, Revoked, Silent, Unbridged},
        Flow, Row, Speaks, What,
    },
};
use serde_json::{Value, json};
use std::sync::Arc;
use testkit::{Agent, meta};

pub(crate) const PLAIN_MODERN: Flow = Flow {
    name: "a call, modern",
    what: What::Plain,
    client: Client::Modern,
    door: Door::One,
    server: Speaks::Both,
    method: "tools/call",
    moments: &["sent", "half"],
    rows: &[
        Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Killed, &["half"], "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &["half"], "error -31006", "faulted upstream-cut forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &[], "gone", "abandoned"),
        // What was judged goes on as it was judged.
        Row(Removed, &[], "the answer", "answered"),
        Row(Moved, &[], "the answer", "answered"),
        Row(Revoked, &[], "the answer", "answered"),
        Row(Disabled, &[], "the answer", "answered"),
    ],
    but: &[],
};

pub(crate) const PLAIN_LEGACY: Flow = Flow {
    name: "a call, legacy",
    what: What::Plain,
    client: Client::Legacy,
    door: Door::One,
    server: Speaks::Both,
    method: "tools/call",
    moments: &["sent", "half"],
    rows: &[
        Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Killed, &["half"], "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &["half"], "error -31006", "faulted upstream-cut forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        // In the legacy era a client that goes away cancels nothing.
        Row(Gone, &[], "gone", "answered"),
        Row(Removed, &[], "the answer", "answered"),
        Row(Moved, &[], "the answer", "answered"),
        Row(Revoked, &[], "the answer", "answered"),
        Row(Disabled, &[], "the answer", "answered"),
    ],
    but: &[],
};

const STREAM: &[&str] = &["sent", "begun", "one word", "two words"];
const LATER: &[&str] = &["begun", "one word", "two words"];

pub(crate) const STREAM_MODERN: Flow = Flow {
    name: "a streamed call, modern",
    what: What::Streamed,
    client: Client::Modern,
    door: Door::One,
    server: Speaks::Both,
    method: "tools/call",
    moments: STREAM,
    rows: &[
        Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Killed, LATER, "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Cut, LATER, "error -31006", "faulted upstream-cut forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &[], "gone", "abandoned"),
        Row(Removed, &[], "the answer", "answered"),
        Row(Moved, &[], "the answer", "answered"),
        Row(Revoked, &[], "error -32600", "withheld revoked authenticate"),
        Row(Disabled, &[], "error -32600", "withheld revoked authenticate"),
        Row(Flipped, &[], "the answer", "answered"),
        Row(Unbridged, &[], "the answer", "answered"),
    ],
    but: &[],
};

pub(crate) const STREAM_LEGACY: Flow = Flow {
    name: "a streamed call, legacy",
    what: What::Streamed,
    client: Client::Legacy,
    door: Door::One,
    server: Speaks::Both,
    method: "tools/call",
    moments: STREAM,
    rows: &[
        Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Killed, LATER, "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Cut, LATER, "error -31006", "faulted upstream-cut forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &[], "gone", "answered"),
        Row(Removed, &[], "the answer", "answered"),
        Row(Moved, &[], "the answer", "answered"),
        Row(Revoked, &[], "error -32600", "withheld revoked authenticate"),
        Row(Disabled, &[], "error -32600", "withheld revoked authenticate"),
        Row(Flipped, &[], "the answer", "answered"),
        Row(Unbridged, &[], "the answer", "answered"),
    ],
    but: &[],
};

const ALL: &[&str] = &["sent", "one word"];

pub(crate) const ALL_MODERN: Flow = Flow {
    name: "a call to all, modern",
    what: What::Streamed,
    client: Client::Modern,
    door: Door::All,
    server: Speaks::Both,
    method: "tools/call",
    moments: ALL,
    rows: STREAM_MODERN.rows,
    but: &[],
};

pub(crate) const ALL_LEGACY: Flow = Flow {
    name: "a call to all, legacy",
    what: What::Streamed,
    client: Client::Legacy,
    door: Door::All,
    server: Speaks::Both,
    method: "tools/call",
    moments: ALL,
    rows: STREAM_LEGACY.rows,
    but: &[],
};

pub(crate) const STREAM_UPWARD: Flow = Flow {
    name: "a streamed call over the bridge upward",
    what: What::Streamed,
    client: Client::Legacy,
    door: Door::One,
    server: Speaks::Modern,
    method: "tools/call",
    moments: STREAM,
    rows: STREAM_LEGACY.rows,
    but: &[],
};

pub(crate) const STREAM_DOWNWARD: Flow = Flow {
    name: "a streamed call over the bridge downward",
    what: What::Streamed,
    client: Client::Modern,
    door: Door::One,
    server: Speaks::Legacy,
    method: "tools/call",
    moments: STREAM,
    rows: STREAM_MODERN.rows,
    but: &[],
};

pub(crate) const ALL_UPWARD: Flow = Flow {
    name: "a call to all over the bridge upward",
    what: What::Streamed,
    client: Client::Legacy,
    door: Door::All,
    server: Speaks::Modern,
    method: "tools/call",
    moments: ALL,
    rows: STREAM_LEGACY.rows,
    but: &[],
};

pub(crate) const ALL_DOWNWARD: Flow = Flow {
    name: "a call to all over the bridge downward",
    what: What::Streamed,
    client: Client::Modern,
    door: Door::All,
    server: Speaks::Legacy,
    method: "tools/call",
    moments: ALL,
    rows: STREAM_MODERN.rows,
    but: &[],
};

pub(crate) const TASK: Flow = Flow {
    name: "a task",
    what: What::Task,
    client: Client::Legacy,
    door: Door::One,
    server: Speaks::Both,
    method: "tasks/result",
    moments: &["begun", "awaited"],
    rows: &[
        Row(Killed, &[], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &[], "error -31006", "faulted upstream-down forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &["begun"], "gone", ""),
        Row(Gone, &["awaited"], "gone", "answered"),
        Row(Removed, &["begun"], "error -32600", "refused unknown-server resolve"),
        Row(Removed, &["awaited"], "the answer", "answered"),
        // The other server has no tasks.
        Row(Moved, &["begun"], "error -32601", "failed"),
        Row(Moved, &["awaited"], "the answer", "answered"),
        Row(Revoked, &["begun"], "error -32600", "refused revoked authenticate"),
        Row(Revoked, &["awaited"], "the answer", "answered"),
        Row(Disabled, &["begun"], "error -32600", "refused disabled_agent authenticate"),
        Row(Disabled, &["awaited"], "the answer", "answered"),
    ],
    but: &[],
};

pub(crate) const TASK_MODERN: Flow = Flow {
    name: "a task, modern",
    what: What::Task,
    client: Client::Modern,
    door: Door::One,
    server: Speaks::Both,
    method: "tasks/get",
    moments: &["begun", "awaited"],
    rows: &[
        Row(Killed, &[], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &[], "error -31006", "faulted upstream-down forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &["begun"], "gone", ""),
        // Whoever waits for word of a task and leaves takes the question back, and not the task.
        Row(Gone, &["awaited"], "gone", "abandoned"),
        Row(Removed, &["begun"], "error -32600", "refused unknown-server resolve"),
        Row(Removed, &["awaited"], "the answer", "answered"),
        Row(Moved, &["begun"], "error -32601", "failed"),
        Row(Moved, &["awaited"], "the answer", "answered"),
        Row(Revoked, &["begun"], "error -32600", "refused revoked authenticate"),
        Row(Revoked, &["awaited"], "the answer", "answered"),
        Row(Disabled, &["begun"], "error -32600", "refused disabled_agent authenticate"),
        Row(Disabled, &["awaited"], "the answer", "answered"),
    ],
    but: &[],
};

pub(crate) const TASK_ALL: Flow = Flow {
    name: "a task of all",
    what: What::Task,
    client: Client::Legacy,
    door: Door::All,
    server: Speaks::Both,
    method: "tasks/result",
    moments: TASK.moments,
    rows: &[
        Row(Killed, &[], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &[], "error -31006", "faulted upstream-down forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &["begun"], "gone", ""),
        Row(Gone, &["awaited"], "gone", "answered"),
        // A task of a server that is gone is none, like one that never was.
        Row(Removed, &["begun"], "error -32602", "refused unknown resolve"),
        Row(Removed, &["awaited"], "the answer", "answered"),
        Row(Moved, &["begun"], "error -32601", "failed"),
        Row(Moved, &["awaited"], "the answer", "answered"),
        Row(Revoked, &["begun"], "error -32600", "refused revoked authenticate"),
        Row(Revoked, &["awaited"], "the answer", "answered"),
        Row(Disabled, &["begun"], "error -32600", "refused disabled_agent authenticate"),
        Row(Disabled, &["awaited"], "the answer", "answered"),
    ],
    but: &[],
};

pub(crate) const TASK_ALL_MODERN: Flow = Flow {
    name: "a task of all, modern",
    what: What::Task,
    client: Client::Modern,
    door: Door::All,
    server: Speaks::Both,
    method: "tasks/get",
    moments: TASK_MODERN.moments,
    rows: &[
        Row(Killed, &[], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &[], "error -31006", "faulted upstream-down forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &["begun"], "gone", ""),
        Row(Gone, &["awaited"], "gone", "abandoned"),
        Row(Removed, &["begun"], "error -32602", "refused unknown resolve"),
        Row(Removed, &["awaited"], "the answer", "answered"),
        Row(Moved, &["begun"], "error -32601", "failed"),
        Row(Moved, &["awaited"], "the answer", "answered"),
        Row(Revoked, &["begun"], "error -32600", "refused revoked authenticate"),
        Row(Revoked, &["awaited"], "the answer", "answered"),
        Row(Disabled, &["begun"], "error -32600", "refused disabled_agent authenticate"),
        Row(Disabled, &["awaited"], "the answer", "answered"),
    ],
    but: &[],
};

async fn client(cell: &mut Cell, door: &str, legacy: bool) -> Arc<Agent> {
    if legacy { cell.legacy(door).await } else { cell.modern(door) }
}

/// A call that is answered in one piece.
pub(crate) async fn plain(cell: &mut Cell, legacy: bool, moment: &str) -> Open {
    let prepared = cell.server.prepared("tools/call", "application/json");
    let door = cell.door();
    let agent = client(cell, &door, legacy).await;
    let hearing = cell.asks(&agent, 7, "tools/call", echo());
    let (id, mut script) = cell.asked("tools/call", 1, prepared).await;
    let mut text = answer(&id).to_string();
    if moment == "half" {
        let rest = text.split_off(text.len() / 2);
        script.raw(&text).await;
        text = rest;
    }
    let rest = goes(move |script| async move {
        if let Some(mut script) = script {
            script.raw(&text).await;
        }
    });
    Open::new(hearing, Some(script), rest)
}

/// A call that is answered in several words, by whatever server there is.
pub(crate) async fn streamed(cell: &mut Cell, door: &str, legacy: bool, moment: &str) -> Open {
    let prepared = cell.server.prepared("tools/call", "text/event-stream");
    let agent = client(cell, door, legacy).await;
    let mut call = echo_at(cell, door);
    if !legacy {
        // Over the bridge a client hears what it wants to hear.
        call["_meta"] = meta();
        call["_meta"]["io.modelcontextprotocol/logLevel"] = "debug".into();
    }
    let hearing = cell.asks(&agent, 7, "tools/call", call);
    let (id, mut script) = cell.asked("tools/call", 1, prepared).await;
    if moment == "begun" {
        script.begin();
        hearing.head().await;
    }
    let said = match moment {
        "one word" => 1,
        "two words" => 2,
        _ => 0,
    };
    for number in 1..=said {
        script.say(&news(number)).await;
        hearing.message(usize::try_from(number).unwrap()).await;
    }
    let rest = goes(move |script| async move {
        if let Some(mut script) = script {
            for number in said + 1..=2 {
                script.say(&news(number)).await;
            }
            script.say(&answer(&id)).await;
        }
    });
    Open::new(hearing, Some(script), rest)
}

/// A task of 2025-11-25, begun by a call, whose result is waited for.
pub(crate) async fn task(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let agent = cell.legacy(door).await;
    let task = json!({"task": {"taskId": "t", "status": "working", "ttl": 60_000}});
    let mut call = echo_at(cell, door);
    call["task"] = json!({"ttl": 60_000});
    awaited(cell, &agent, moment, ("tasks/result", call, task)).await
}

/// A task of the extension of 2026-07-28, begun by a call, which is asked after.
pub(crate) async fn task_modern(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let agent = cell.modern(door);
    let task = json!({"resultType": "task", "taskId": "t", "status": "working", "ttlMs": 60_000});
    let mut meta = meta();
    meta["io.modelcontextprotocol/clientCapabilities"]["extensions"] = json!({"io.modelcontextprotocol/tasks": {}});
    let mut call = echo_at(cell, door);
    call["_meta"] = meta;
    awaited(cell, &agent, moment, ("tasks/get", call, task)).await
}

/// A call that begins a task, and the method that its client waits with.
async fn awaited(
    cell: &mut Cell,
    agent: &Agent,
    moment: &str,
    (method, call, task): (&'static str, Value, Value),
) -> Open {
    let prepared = cell.server.prepared("tools/call", "application/json");
    let mut hearing = cell.asks(agent, 7, "tools/call", call);
    let (id, mut script) = cell.asked("tools/call", 1, prepared).await;
    script.say(&json!({"jsonrpc": "2.0", "id": id, "result": task})).await;
    // With what it was said by, a body is at its end.
    let script = cell.server.prepared(method, "application/json").unwrap_or(script);
    let begun = hearing.answer().await;
    let id = begun.pointer("/result/task/taskId").or_else(|| begun.pointer("/result/taskId"));
    let named = json!({"taskId": id.expect("it has an id")});
    let next = if moment == "begun" {
        Next::Asks(method, named)
    } else {
        cell.knows(&hearing);
        hearing = cell.asks(agent, 8, method, named);
        cell.server.arrived(method, 1).await;
        Next::Nothing
    };
    Open { next, ..Open::new(hearing, Some(script), answering(cell.server.clone(), method, 1)) }
}
