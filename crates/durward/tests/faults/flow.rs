//! The flows, each as far as a moment: what client and server have said by then, and what they would say next.

mod call;
mod lasting;
mod listen;
mod question;

use crate::{
    cell::{Cell, Open},
    table::Flow,
};
use serde_json::{Value, json};

pub(crate) use call::{
    ALL_LEGACY as CALL_ALL_LEGACY, ALL_MODERN as CALL_ALL_MODERN, PLAIN_LEGACY, PLAIN_MODERN, PROCESS_LEGACY,
    PROCESS_MODERN, STREAM_LEGACY, STREAM_MODERN, TASK, TASK_MODERN,
};
pub(crate) use lasting::{CLIENT_OF_2024, SERVER_OF_2024, Streams, serve};
pub(crate) use listen::{ALL_LEGACY, ALL_MODERN, LISTEN_DOWNWARD, LISTEN_LEGACY, LISTEN_MODERN, LISTEN_UPWARD};
pub(crate) use question::{
    ALL_LEGACY as QUESTION_ALL_LEGACY, ALL_MODERN as QUESTION_ALL_MODERN, QUESTION_DOWNWARD, QUESTION_LEGACY,
    QUESTION_MODERN, QUESTION_UPWARD,
};

/// Goes as far as this moment.
pub(crate) async fn reach(cell: &mut Cell, flow: &Flow, moment: &str) -> Open {
    let door = door_of(flow, cell);
    match flow.name {
        "a call, modern" => call::plain(cell, false, moment).await,
        "a call, legacy" => call::plain(cell, true, moment).await,
        "a streamed call, modern" | "a call to all, modern" | "a call of a process, modern" => {
            call::streamed(cell, &door, false, moment).await
        }
        "a streamed call, legacy"
        | "a call to all, legacy"
        | "a call of a process, legacy"
        | "a call of a server of 2024-11-05" => call::streamed(cell, &door, true, moment).await,
        "a task" => call::task(cell, moment).await,
        "a task, modern" => call::task_modern(cell, moment).await,
        "a question, legacy" | "a question to all, legacy" => question::legacy(cell, &door, moment).await,
        "a question, modern" | "a question to all, modern" => question::modern(cell, &door, moment).await,
        "a question over the bridge upward" => question::upward(cell, moment).await,
        "a question over the bridge downward" => question::downward(cell, moment).await,
        "listening, legacy" | "listening to all, legacy" => listen::legacy(cell, &door, moment).await,
        "listening, modern" | "listening to all, modern" => listen::modern(cell, &door, moment).await,
        "listening over the bridge upward" => listen::upward(cell, moment).await,
        "listening over the bridge downward" => listen::downward(cell, moment).await,
        "a client of 2024-11-05" => lasting::client(cell, moment).await,
        other => panic!("nobody knows how {other:?} goes"),
    }
}

/// Whether a call waits, after this moment, for a client that is not there.
pub(crate) fn waits_for_client(flow: &Flow, moment: &str) -> bool {
    flow.name == "a question over the bridge downward" && moment == "question"
}

/// Where the client of a flow has its session.
pub(crate) fn door_of(flow: &Flow, cell: &Cell) -> String {
    if flow.name.contains(" to all, ") { "/mcp".to_owned() } else { cell.door() }
}

/// A word in the course of a call.
pub(crate) fn news(number: u64) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": number}})
}

/// The answer to a request as both eras know it.
pub(crate) fn answer(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete", "content": [{"type": "text", "text": "done"}]}})
}

/// What a tool is called with, where a test answers the call.
pub(crate) fn echo() -> Value {
    json!({"name": "echo", "arguments": {}})
}

/// The same at this door.
pub(crate) fn echo_at(cell: &Cell, door: &str) -> Value {
    let tool = if door == "/mcp" { format!("{}__echo", cell.name) } else { "echo".to_owned() };
    json!({"name": tool, "arguments": {}})
}
