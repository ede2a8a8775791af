//! The flows, each as far as a moment: what client and server have said by then, and what they would say next.

pub(crate) mod call;
pub(crate) mod lasting;
pub(crate) mod listen;
pub(crate) mod process;
pub(crate) mod question;
pub(crate) mod shared;
pub(crate) mod stubborn;

use crate::{
    cell::{Cell, Goes, Open},
    script::Script,
    server::Server,
    table::{Bridge, Client, Door, Flow, Speaks, What},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// Goes as far as this moment.
pub(crate) async fn reach(cell: &mut Cell, flow: &Flow, moment: &str) -> Open {
    let door = door_of(flow, cell);
    let is_legacy = flow.client != Client::Modern;
    match (flow.what, flow.client, flow.bridge()) {
        (_, Client::Old, _) => lasting::client(cell, moment).await,
        (What::Plain, ..) => call::plain(cell, is_legacy, moment).await,
        (What::Streamed, ..) => call::streamed(cell, &door, is_legacy, moment).await,
        (What::Task, Client::Legacy, _) => call::task(cell, &door, moment).await,
        (What::Task, Client::Modern, _) => call::task_modern(cell, &door, moment).await,
        (What::Opening, ..) => stubborn::opening(cell, &door, is_legacy).await,
        (What::Question, _, Bridge::Upward) => question::upward(cell, &door, moment).await,
        (What::Question, _, Bridge::Downward) => question::downward(cell, &door, moment).await,
        (What::Question, Client::Legacy, Bridge::None) => question::legacy(cell, &door, moment).await,
        (What::Question, Client::Modern, Bridge::None) => question::modern(cell, &door, moment).await,
        (What::Listening, _, Bridge::Upward) => listen::upward(cell, &door, moment).await,
        (What::Listening, _, Bridge::Downward) => listen::downward(cell, &door, moment).await,
        (What::Listening, Client::Legacy, Bridge::None)
            if matches!(flow.server, Speaks::Process(..) | Speaks::Lasting) =>
        {
            listen::on_connection(cell, &door, moment).await
        }
        (What::Listening, Client::Legacy, Bridge::None) => listen::legacy(cell, &door, moment).await,
        (What::Listening, Client::Modern, Bridge::None) => listen::modern(cell, &door, moment).await,
    }
}

/// Whether a call waits, after this moment, for a client that is not there.
pub(crate) fn waits_for_client(flow: &Flow, moment: &str) -> bool {
    flow.what == What::Question && flow.bridge() == Bridge::Downward && moment == "question"
}

/// Where the client of a flow has its session.
pub(crate) fn door_of(flow: &Flow, cell: &Cell) -> String {
    match flow.door {
        Door::One => cell.door(),
        Door::All => "/mcp".to_owned(),
    }
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

/// What the server does next.
pub(crate) fn goes<F: Future<Output = ()> + Send + 'static>(
    on: impl FnOnce(Option<Script>) -> F + Send + 'static,
) -> Goes {
    Box::new(move |script| Box::pin(on(script)))
}

/// Answers the request of this method with this number, from 1, when it comes, unless it is clear that none comes.
pub(crate) fn answering(server: Server, method: &'static str, count: usize) -> Goes {
    goes(move |script| async move {
        let asked = timeout(Duration::from_secs(2), server.asked(method, count, script)).await;
        if let Ok(Some((id, mut script))) = asked {
            script.say(&answer(&id)).await;
        }
    })
}
