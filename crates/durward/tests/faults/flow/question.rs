//! Calls in whose course the server asks the client something, in either era and over either bridge.

use super::{answer, answering, echo_at, goes};
use crate::{
    cell::{Cell, Goes, Next, Open, answers},
    script::Script,
    server::Server,
    table::{
        Client, Door,
        Fault::{Cut, Disabled, Flipped, Gone, Killed, Moved, Removed, Revoked, Silent, Unbridged},
        Flow, Row, Speaks, What,
    },
};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::soon;
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
        Row(Removed, &["sent", "answered"], "the answer", "answered"),
        // The answer would find no way there.
        Row(Removed, &["question"], "error -31001", "withheld denied authorize"),
        Row(Moved, &[], "the answer", "answered"),
        Row(Revoked, &[], "error -32600", "withheld revoked authenticate"),
        Row(Disabled, &[], "error -32600", "withheld revoked authenticate"),
    ],
    but: &[],
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
    but: &[],
};

pub(crate) const ALL_LEGACY: Flow = Flow { name: "a question to all, legacy", door: Door::All, ..QUESTION_LEGACY };

pub(crate) const ALL_MODERN: Flow = Flow {
    name: "a question to all, modern",
    door: Door::All,
    // Of a server that is gone this address has no tools any more; the address itself stays.
    but: &[Row(Removed, &["question"], "error -32602", "answered, refused unknown resolve")],
    ..QUESTION_MODERN
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
        Row(Removed, &["question"], "error -31001", "withheld denied authorize"),
        Row(Removed, &["answered"], "the answer", "answered"),
        Row(Moved, &["sent", "answered"], "the answer", "answered"),
        Row(Moved, &["question"], "error -31006", "faulted round forward"),
        Row(Revoked, &["sent"], "the answer", "answered"),
        Row(Revoked, &["question", "answered"], "error -32600", "withheld revoked authenticate"),
        Row(Disabled, &["sent"], "the answer", "answered"),
        Row(Disabled, &["question", "answered"], "error -32600", "withheld revoked authenticate"),
        Row(Flipped, &["sent", "answered"], "the answer", "answered"),
        // What its client would answer could not reach the server.
        Row(Flipped, &["question"], "error -31006", "faulted round forward"),
        Row(Unbridged, &["sent", "answered"], "the answer", "answered"),
        Row(Unbridged, &["question"], "error -31006", "faulted round forward"),
    ],
    but: &[],
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
        Row(Removed, &["answered"], "the answer", "answered, answered"),
        Row(Moved, &["sent"], "the answer", "answered"),
        Row(Moved, &["question"], "error -32602", "answered, refused request-state forward"),
        Row(Moved, &["answered"], "the answer", "answered, answered"),
        Row(Revoked, &["sent"], "the answer", "answered"),
        Row(Revoked, &["question"], "error -32600", "answered, refused revoked authenticate"),
        Row(Revoked, &["answered"], "error -32600", "answered, withheld revoked authenticate"),
        Row(Disabled, &["sent"], "the answer", "answered"),
        Row(Disabled, &["question"], "error -32600", "answered, refused disabled_agent authenticate"),
        Row(Disabled, &["answered"], "error -32600", "answered, withheld revoked authenticate"),
        Row(Flipped, &["sent"], "the answer", "answered"),
        Row(Flipped, &["question", "answered"], "the answer", "answered, answered"),
        Row(Unbridged, &["sent"], "the answer", "answered"),
        Row(Unbridged, &["question"], "error -32022", "answered, refused era resolve"),
        Row(Unbridged, &["answered"], "the answer", "answered, answered"),
    ],
    but: &[],
};

pub(crate) const ALL_UPWARD: Flow =
    Flow { name: "a question to all over the bridge upward", door: Door::All, ..QUESTION_UPWARD };

pub(crate) const ALL_DOWNWARD: Flow = Flow {
    name: "a question to all over the bridge downward",
    door: Door::All,
    but: ALL_MODERN.but,
    ..QUESTION_DOWNWARD
};

/// What a server asks: of 2024-11-05 it knows no other question.
fn question(speaks: Speaks) -> Value {
    if speaks == Speaks::Lasting {
        let messages = json!([{"role": "user", "content": {"type": "text", "text": "Who?"}}]);
        return json!({"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": 9}});
    }
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    let params = json!({"mode": "form", "message": "Who?", "requestedSchema": schema});
    json!({"method": "elicitation/create", "params": params})
}

/// The question as it is asked in the course of a call.
fn asks(speaks: Speaks) -> Value {
    let mut asked = question(speaks);
    asked["jsonrpc"] = "2.0".into();
    asked["id"] = "q".into();
    asked
}

/// The question as it is asked in an answer.
fn input_required(id: &Value, speaks: Speaks) -> Value {
    let asked = json!({"who": question(speaks)});
    let result = json!({"resultType": "input_required", "inputRequests": asked, "requestState": "s"});
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// The same call with the answer to what was asked.
fn retry(mut call: Value, asked: &Value, name: &str) -> Value {
    let asked = &asked["result"];
    call["requestState"] = asked["requestState"].clone();
    call["inputResponses"] = json!({name: crate::cell::answer_to(&asked["inputRequests"][name])["result"]});
    call
}

/// Goes on once the client's answer has come, or it is clear that none comes.
fn once_answered(server: Server, id: Value) -> Goes {
    goes(move |script| async move {
        let Some(mut script) = script else { return };
        let _none = timeout(Duration::from_millis(500), server.answered()).await;
        script.say(&answer(&id)).await;
    })
}

/// The server asks in the course of its stream, and is answered beside it.
pub(crate) async fn legacy(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let prepared = cell.server.prepared("tools/call", "text/event-stream");
    let agent = cell.legacy(door).await;
    let hearing = cell.asks(&agent, 7, "tools/call", echo_at(cell, door));
    let (id, mut script) = cell.asked("tools/call", 1, prepared).await;
    let mut next = Next::Nothing;
    if moment != "sent" {
        cell.counts(1);
        script.say(&asks(cell.speaks)).await;
        let asked = hearing.message(1).await;
        if moment == "question" {
            next = Next::Answers(asked);
        } else {
            answers(cell, &agent, &asked).await;
            cell.server.answered().await;
        }
    }
    Open { next, ..Open::new(hearing, Some(script), once_answered(cell.server.clone(), id)) }
}

/// The server asks in its answer, and is answered in the next call. What breaks meanwhile is that which follows.
async fn asks_in_answer(cell: &Cell, prepared: Option<Script>) -> Script {
    let (id, mut script) = cell.asked("tools/call", 1, prepared).await;
    // What is asked in an answer is judged and recorded like any question.
    cell.counts(1);
    script.say(&input_required(&id, cell.speaks)).await;
    cell.server.prepared("tools/call", "application/json").unwrap_or(script)
}

/// The client is asked in the answer.
pub(crate) async fn modern(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let prepared = cell.server.prepared("tools/call", "application/json");
    let agent = cell.modern(door);
    let mut hearing = cell.asks(&agent, 7, "tools/call", echo_at(cell, door));
    if moment == "sent" {
        let (_, script) = cell.asked("tools/call", 1, prepared).await;
        return Open::new(hearing, Some(script), answering(cell.server.clone(), "tools/call", 1));
    }
    let script = asks_in_answer(cell, prepared).await;
    let asked = hearing.answer().await;
    let again = retry(echo_at(cell, door), &asked, "who");
    let mut next = Next::Asks("tools/call", again.clone());
    if moment == "answered" {
        cell.knows(&hearing);
        hearing = cell.asks(&agent, 8, "tools/call", again);
        cell.server.arrived("tools/call", 2).await;
        next = Next::Nothing;
    }
    Open { next, ..Open::new(hearing, Some(script), answering(cell.server.clone(), "tools/call", 2)) }
}

/// The server asks in its answer, the client is asked on the stream of its call.
pub(crate) async fn upward(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let prepared = cell.server.prepared("tools/call", "application/json");
    let agent = cell.legacy(door).await;
    let hearing = cell.asks(&agent, 7, "tools/call", echo_at(cell, door));
    if moment == "sent" {
        let (_, script) = cell.asked("tools/call", 1, prepared).await;
        return Open::new(hearing, Some(script), answering(cell.server.clone(), "tools/call", 1));
    }
    let script = asks_in_answer(cell, prepared).await;
    let asked = hearing.message(1).await;
    let mut next = Next::Nothing;
    if moment == "question" {
        next = Next::Answers(asked);
    } else {
        answers(cell, &agent, &asked).await;
        cell.server.arrived("tools/call", 2).await;
    }
    Open { next, ..Open::new(hearing, Some(script), answering(cell.server.clone(), "tools/call", 2)) }
}

/// The server asks in the course of its stream; the client is asked in the answer, and the call waits.
pub(crate) async fn downward(cell: &mut Cell, door: &str, moment: &str) -> Open {
    let prepared = cell.server.prepared("tools/call", "text/event-stream");
    let agent = cell.modern(door);
    let mut hearing = cell.asks(&agent, 7, "tools/call", echo_at(cell, door));
    let (id, mut script) = cell.asked("tools/call", 1, prepared).await;
    let mut next = Next::Nothing;
    if moment != "sent" {
        cell.counts(1);
        script.say(&asks(cell.speaks)).await;
        let asked = soon(hearing.answer()).await;
        let again = retry(echo_at(cell, door), &asked, "question");
        if moment == "question" {
            next = Next::Asks("tools/call", again);
        } else {
            cell.knows(&hearing);
            hearing = cell.asks(&agent, 8, "tools/call", again);
            cell.server.answered().await;
        }
    }
    Open { next, ..Open::new(hearing, Some(script), once_answered(cell.server.clone(), id)) }
}
