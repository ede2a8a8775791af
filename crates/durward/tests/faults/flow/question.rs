//! Calls in whose course the server asks the client something, in either era and over either bridge.

use super::{
    answer,
    call::{called, prepared},
    echo_at,
};
use crate::{
    cell::{Cell, Next, Open, Rest, answers, arrives},
    script::{Answers, Script},
    table::{
        Client, Door,
        Fault::{Cut, Disabled, Gone, Killed, Moved, Removed, Revoked, Silent},
        Flow, Row, Speaks, What,
    },
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use testkit::{Upstream, soon};
use tokio::time::timeout;

const MOMENTS: &[&str] = &["sent", "question", "answered"];

pub(crate) const QUESTION_LEGACY: Flow = Flow {
    name: "a question, legacy",
    what: What::Question,
    client: Client::Legacy,
    door: Door::One,
    server: Speaks::Both,
    method: "tools/call",
    moments: MOMENTS,
    rows: &[
        Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Killed, &["question", "answered"], "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &["question", "answered"], "error -31006", "faulted upstream-cut forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &[], "gone", "answered"),
        Row(Removed, &[], "error -31001", "refused denied authorize"),
        Row(Moved, &[], "the answer", "answered"),
        Row(Revoked, &[], "error -32600", "refused revoked authenticate"),
        Row(Disabled, &[], "error -32600", "refused revoked authenticate"),
    ],
};

pub(crate) const QUESTION_MODERN: Flow = Flow {
    name: "a question, modern",
    what: What::Question,
    client: Client::Modern,
    door: Door::One,
    server: Speaks::Both,
    method: "tools/call",
    moments: MOMENTS,
    rows: &[
        Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Killed, &["question", "answered"], "error -31006", "answered, faulted upstream-down forward"),
        Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &["question", "answered"], "error -31006", "answered, faulted upstream-down forward"),
        Row(Silent, &["sent"], "error -31007", "faulted upstream-timeout forward"),
        Row(Silent, &["question", "answered"], "error -31007", "answered, faulted upstream-timeout forward"),
        Row(Gone, &["sent"], "gone", "abandoned"),
        Row(Gone, &["question"], "gone", "answered"),
        Row(Gone, &["answered"], "gone", "answered, abandoned"),
        Row(Removed, &["sent"], "the answer", "answered"),
        Row(Removed, &["question"], "error -32600", "answered, refused unknown-server resolve"),
        Row(Removed, &["answered"], "the answer", "answered, answered"),
        Row(Moved, &["sent"], "the answer", "answered"),
        Row(Moved, &["question", "answered"], "the answer", "answered, answered"),
        Row(Revoked, &["sent"], "the answer", "answered"),
        Row(Revoked, &["question"], "error -32600", "answered, refused revoked authenticate"),
        Row(Revoked, &["answered"], "the answer", "answered, answered"),
        Row(Disabled, &["sent"], "the answer", "answered"),
        Row(Disabled, &["question"], "error -32600", "answered, refused disabled_agent authenticate"),
        Row(Disabled, &["answered"], "the answer", "answered, answered"),
    ],
};

pub(crate) const ALL_LEGACY: Flow = Flow {
    name: "a question to all, legacy",
    what: What::Question,
    client: Client::Legacy,
    door: Door::All,
    server: Speaks::Both,
    method: "tools/call",
    moments: MOMENTS,
    rows: QUESTION_LEGACY.rows,
};

pub(crate) const ALL_MODERN: Flow = Flow {
    name: "a question to all, modern",
    what: What::Question,
    client: Client::Modern,
    door: Door::All,
    server: Speaks::Both,
    method: "tools/call",
    moments: MOMENTS,
    rows: &[
        Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Killed, &["question", "answered"], "error -31006", "answered, faulted upstream-down forward"),
        Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &["question", "answered"], "error -31006", "answered, faulted upstream-down forward"),
        Row(Silent, &["sent"], "error -31007", "faulted upstream-timeout forward"),
        Row(Silent, &["question", "answered"], "error -31007", "answered, faulted upstream-timeout forward"),
        Row(Gone, &["sent"], "gone", "abandoned"),
        Row(Gone, &["question"], "gone", "answered"),
        Row(Gone, &["answered"], "gone", "answered, abandoned"),
        Row(Removed, &["sent"], "the answer", "answered"),
        // Of a server that is gone this address has no tools any more; the address itself stays.
        Row(Removed, &["question"], "error -32602", "answered, refused unknown resolve"),
        Row(Removed, &["answered"], "the answer", "answered, answered"),
        Row(Moved, &["sent"], "the answer", "answered"),
        Row(Moved, &["question", "answered"], "the answer", "answered, answered"),
        Row(Revoked, &["sent"], "the answer", "answered"),
        Row(Revoked, &["question"], "error -32600", "answered, refused revoked authenticate"),
        Row(Revoked, &["answered"], "the answer", "answered, answered"),
        Row(Disabled, &["sent"], "the answer", "answered"),
        Row(Disabled, &["question"], "error -32600", "answered, refused disabled_agent authenticate"),
        Row(Disabled, &["answered"], "the answer", "answered, answered"),
    ],
};

pub(crate) const QUESTION_UPWARD: Flow = Flow {
    name: "a question over the bridge upward",
    what: What::Question,
    client: Client::Legacy,
    door: Door::One,
    server: Speaks::Modern,
    method: "tools/call",
    moments: MOMENTS,
    rows: &[
        Row(Killed, &[], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &[], "error -31006", "faulted upstream-down forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &["sent", "answered"], "gone", "answered"),
        Row(Gone, &["question"], "gone", "faulted upstream-timeout forward"),
        Row(Removed, &["sent"], "the answer", "answered"),
        Row(Removed, &["question", "answered"], "error -31001", "refused denied authorize"),
        Row(Moved, &["sent", "answered"], "the answer", "answered"),
        Row(Moved, &["question"], "error -31006", "faulted round forward"),
        Row(Revoked, &["sent"], "the answer", "answered"),
        Row(Revoked, &["question", "answered"], "error -32600", "refused revoked authenticate"),
        Row(Disabled, &["sent"], "the answer", "answered"),
        Row(Disabled, &["question", "answered"], "error -32600", "refused revoked authenticate"),
    ],
};

pub(crate) const QUESTION_DOWNWARD: Flow = Flow {
    name: "a question over the bridge downward",
    what: What::Question,
    client: Client::Modern,
    door: Door::One,
    server: Speaks::Legacy,
    method: "tools/call",
    moments: MOMENTS,
    rows: &[
        Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Killed, &["question"], "error -31006", "answered, faulted upstream-down forward"),
        Row(Killed, &["answered"], "error -31006", "answered, faulted upstream-cut forward"),
        Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &["question", "answered"], "error -31006", "answered, faulted upstream-cut forward"),
        Row(Silent, &["sent"], "error -31007", "faulted upstream-timeout forward"),
        Row(Silent, &["question", "answered"], "error -31007", "answered, faulted upstream-timeout forward"),
        Row(Gone, &["sent"], "gone", "abandoned"),
        Row(Gone, &["question"], "gone", "answered"),
        Row(Gone, &["answered"], "gone", "answered, abandoned"),
        Row(Removed, &["sent"], "the answer", "answered"),
        Row(Removed, &["question"], "error -32600", "answered, refused unknown-server resolve"),
        Row(Removed, &["answered"], "error -31001", "answered, refused denied authorize"),
        Row(Moved, &["sent"], "the answer", "answered"),
        Row(Moved, &["question"], "error -32602", "answered, refused request-state forward"),
        Row(Moved, &["answered"], "the answer", "answered, answered"),
        Row(Revoked, &["sent"], "the answer", "answered"),
        Row(Revoked, &["question", "answered"], "error -32600", "answered, refused revoked authenticate"),
        Row(Disabled, &["sent"], "the answer", "answered"),
        Row(Disabled, &["question"], "error -32600", "answered, refused disabled_agent authenticate"),
        Row(Disabled, &["answered"], "error -32600", "answered, refused revoked authenticate"),
    ],
};

pub(crate) const ALL_UPWARD: Flow = Flow {
    name: "a question to all over the bridge upward",
    what: What::Question,
    client: Client::Legacy,
    door: Door::All,
    server: Speaks::Modern,
    method: "tools/call",
    moments: MOMENTS,
    rows: QUESTION_UPWARD.rows,
};

pub(crate) const ALL_DOWNWARD: Flow = Flow {
    name: "a question to all over the bridge downward",
    what: What::Question,
    client: Client::Modern,
    door: Door::All,
    server: Speaks::Legacy,
    method: "tools/call",
    moments: MOMENTS,
    rows: &[
        Row(Killed, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Killed, &["question"], "error -31006", "answered, faulted upstream-down forward"),
        Row(Killed, &["answered"], "error -31006", "answered, faulted upstream-cut forward"),
        Row(Cut, &["sent"], "error -31006", "faulted upstream-down forward"),
        Row(Cut, &["question", "answered"], "error -31006", "answered, faulted upstream-cut forward"),
        Row(Silent, &["sent"], "error -31007", "faulted upstream-timeout forward"),
        Row(Silent, &["question", "answered"], "error -31007", "answered, faulted upstream-timeout forward"),
        Row(Gone, &["sent"], "gone", "abandoned"),
        Row(Gone, &["question"], "gone", "answered"),
        Row(Gone, &["answered"], "gone", "answered, abandoned"),
        Row(Removed, &["sent"], "the answer", "answered"),
        Row(Removed, &["question"], "error -32602", "answered, refused unknown resolve"),
        Row(Removed, &["answered"], "error -31001", "answered, refused denied authorize"),
        Row(Moved, &["sent"], "the answer", "answered"),
        Row(Moved, &["question"], "error -32602", "answered, refused request-state forward"),
        Row(Moved, &["answered"], "the answer", "answered, answered"),
        Row(Revoked, &["sent"], "the answer", "answered"),
        Row(Revoked, &["question", "answered"], "error -32600", "answered, refused revoked authenticate"),
        Row(Disabled, &["sent"], "the answer", "answered"),
        Row(Disabled, &["question"], "error -32600", "answered, refused disabled_agent authenticate"),
        Row(Disabled, &["answered"], "error -32600", "answered, refused revoked authenticate"),
    ],
};

fn question() -> Value {
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    json!({"mode": "form", "message": "Who?", "requestedSchema": schema})
}

fn input_required(id: &Value) -> Value {
    let asked = json!({"who": {"method": "elicitation/create", "params": question()}});
    let result = json!({"resultType": "input_required", "inputRequests": asked, "requestState": "s"});
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// The same call with the answer to what was asked.
fn retry(mut call: Value, state: &Value, name: &str) -> Value {
    call["requestState"] = state.clone();
    call["inputResponses"] = json!({name: {"action": "accept", "content": {"name": "Ada"}}});
    call
}

/// Answers the call with this number when it comes.
fn answering(upstream: Arc<Upstream>, count: usize) -> Box<dyn FnOnce(Option<Script>) -> Rest + Send> {
    Box::new(move |script| {
        Box::pin(async move {
            let Some(mut script) = script else { return };
            if let Some(request) = arrives(&upstream, "tools/call", count).await {
                script.raw(&answer(&request.id()).to_string()).await;
            }
        })
    })
}

/// Goes on once the client's answer has come, or it is clear that none comes.
fn once_answered(mut answers: Answers, id: Value) -> Box<dyn FnOnce(Option<Script>) -> Rest + Send> {
    Box::new(move |script| {
        Box::pin(async move {
            let Some(mut script) = script else { return };
            let _none = timeout(Duration::from_millis(500), answers.come()).await;
            script.say(&answer(&id)).await;
        })
    })
}

/// The server asks in the course of its stream, and is answered beside it.
pub(crate) async fn legacy(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let prepared = prepared(cell);
    let agent = cell.legacy(door).await;
    let hearing = cell.asks(&agent, 7, "tools/call", echo_at(cell, door));
    let (id, mut script) = called(cell, prepared).await;
    let mut next = Next::Nothing;
    if moment != "sent" {
        cell.counts(1);
        script.say(&json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": question()})).await;
        let asked = hearing.message(1).await;
        if moment == "question" {
            next = Next::Answers(asked);
        } else {
            answers(cell, &agent, &asked).await;
            cell.answers().come().await;
        }
    }
    Open { next, ..Open::new(hearing, Some(script), once_answered(cell.answers(), id)) }
}

/// The server asks in its answer, and is answered in the next call.
pub(crate) async fn modern(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let mut script = cell.script("tools/call", "application/json");
    let agent = cell.modern(door);
    let mut hearing = cell.asks(&agent, 7, "tools/call", echo_at(cell, door));
    let upstream = cell.upstream();
    let id = upstream.arrived("tools/call", 1).await.id();
    if moment == "sent" {
        return Open::new(hearing, Some(script), answering(upstream, 1));
    }
    // What is asked in an answer is judged and recorded like any question.
    cell.counts(1);
    script.raw(&input_required(&id).to_string()).await;
    drop(script);
    let asked = hearing.answer().await;
    let again = retry(echo_at(cell, door), &asked["result"]["requestState"], "who");
    let script = cell.script("tools/call", "application/json");
    let mut next = Next::Asks("tools/call", again.clone());
    if moment == "answered" {
        cell.knows(&hearing);
        hearing = cell.asks(&agent, 8, "tools/call", again);
        upstream.arrived("tools/call", 2).await;
        next = Next::Nothing;
    }
    Open { next, ..Open::new(hearing, Some(script), answering(upstream, 2)) }
}

/// The server asks in its answer, the client is asked on the stream of its call.
pub(crate) async fn upward(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let mut script = cell.script("tools/call", "application/json");
    let agent = cell.legacy(door).await;
    let hearing = cell.asks(&agent, 7, "tools/call", echo_at(cell, door));
    let upstream = cell.upstream();
    let id = upstream.arrived("tools/call", 1).await.id();
    if moment == "sent" {
        return Open::new(hearing, Some(script), answering(upstream, 1));
    }
    cell.counts(1);
    script.raw(&input_required(&id).to_string()).await;
    drop(script);
    let asked = hearing.message(1).await;
    let script = cell.script("tools/call", "application/json");
    let mut next = Next::Nothing;
    if moment == "question" {
        next = Next::Answers(asked);
    } else {
        answers(cell, &agent, &asked).await;
        upstream.arrived("tools/call", 2).await;
    }
    Open { next, ..Open::new(hearing, Some(script), answering(upstream, 2)) }
}

/// The server asks in the course of its stream; the client is asked in the answer, and the call waits.
pub(crate) async fn downward(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let prepared = prepared(cell);
    let agent = cell.modern(door);
    let mut hearing = cell.asks(&agent, 7, "tools/call", echo_at(cell, door));
    let (id, mut script) = called(cell, prepared).await;
    let mut next = Next::Nothing;
    if moment != "sent" {
        cell.counts(1);
        script.say(&json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": question()})).await;
        let asked = soon(hearing.answer()).await;
        let again = retry(echo_at(cell, door), &asked["result"]["requestState"], "question");
        if moment == "question" {
            next = Next::Asks("tools/call", again);
        } else {
            cell.knows(&hearing);
            hearing = cell.asks(&agent, 8, "tools/call", again);
            cell.answers().come().await;
        }
    }
    Open { next, ..Open::new(hearing, Some(script), once_answered(cell.answers(), id)) }
}
