//! What becomes of those whose server does not end when it is told to, and of those before whom it does not even say who
//! it is.

use super::{answering, goes, process};
use crate::{
    cell::{Cell, Open},
    process::honest,
    server::Server,
    table::{
        Client, Door,
        Fault::{Cut, Disabled, Gone, Killed, Moved, Removed, Revoked, Silent, Unbridged},
        Flow, Manner, Row, Speaks, What,
    },
};
use serde_json::json;
use testkit::{Ask, LEGACY as REVISION};

const LEGACY: Speaks = Speaks::Process("legacy", Manner::Stubborn);
const MODERN: Speaks = Speaks::Process("modern", Manner::Stubborn);
const CALL: &[&str] = &["sent", "one word"];
// They wait longest: a moment for each of the flows, in which something is under way.
const WORD: &[&str] = &["one word"];
const ASKED: &[&str] = &["question"];

pub(crate) const CALL_LEGACY: Flow =
    Flow { name: "a call of a stubborn process, legacy", server: LEGACY, moments: CALL, ..process::CALL_LEGACY };

pub(crate) const CALL_MODERN: Flow =
    Flow { name: "a call of a stubborn process, modern", server: MODERN, moments: CALL, ..process::CALL_MODERN };

pub(crate) const CALL_UPWARD: Flow = Flow {
    name: "a call of a stubborn process over the bridge upward",
    server: MODERN,
    moments: CALL,
    ..process::CALL_UPWARD
};

pub(crate) const CALL_DOWNWARD: Flow = Flow {
    name: "a call of a stubborn process over the bridge downward",
    server: LEGACY,
    moments: CALL,
    ..process::CALL_DOWNWARD
};

pub(crate) const CALL_ALL_LEGACY: Flow = Flow {
    name: "a call to all, of a stubborn process, legacy",
    server: LEGACY,
    moments: WORD,
    ..process::CALL_ALL_LEGACY
};

pub(crate) const CALL_ALL_MODERN: Flow = Flow {
    name: "a call to all, of a stubborn process, modern",
    server: MODERN,
    moments: WORD,
    ..process::CALL_ALL_MODERN
};

pub(crate) const CALL_ALL_UPWARD: Flow = Flow {
    name: "a call to all, of a stubborn process over the bridge upward",
    server: MODERN,
    moments: WORD,
    ..process::CALL_ALL_UPWARD
};

pub(crate) const CALL_ALL_DOWNWARD: Flow = Flow {
    name: "a call to all, of a stubborn process over the bridge downward",
    server: LEGACY,
    moments: WORD,
    ..process::CALL_ALL_DOWNWARD
};

pub(crate) const QUESTION_LEGACY: Flow = Flow {
    name: "a question of a stubborn process, legacy",
    server: LEGACY,
    moments: ASKED,
    ..process::QUESTION_LEGACY
};

pub(crate) const QUESTION_ALL_LEGACY: Flow = Flow {
    name: "a question to all, of a stubborn process, legacy",
    server: LEGACY,
    moments: ASKED,
    ..process::QUESTION_ALL_LEGACY
};

pub(crate) const QUESTION_MODERN: Flow = Flow {
    name: "a question of a stubborn process, modern",
    server: MODERN,
    moments: ASKED,
    ..process::QUESTION_MODERN
};

pub(crate) const QUESTION_ALL_MODERN: Flow = Flow {
    name: "a question to all, of a stubborn process, modern",
    server: MODERN,
    moments: ASKED,
    ..process::QUESTION_ALL_MODERN
};

pub(crate) const QUESTION_UPWARD: Flow = Flow {
    name: "a question of a stubborn process over the bridge upward",
    server: MODERN,
    moments: ASKED,
    ..process::QUESTION_UPWARD
};

pub(crate) const QUESTION_ALL_UPWARD: Flow = Flow {
    name: "a question to all, of a stubborn process over the bridge upward",
    server: MODERN,
    moments: ASKED,
    ..process::QUESTION_ALL_UPWARD
};

pub(crate) const QUESTION_DOWNWARD: Flow = Flow {
    name: "a question of a stubborn process over the bridge downward",
    server: LEGACY,
    moments: ASKED,
    ..process::QUESTION_DOWNWARD
};

pub(crate) const QUESTION_ALL_DOWNWARD: Flow = Flow {
    name: "a question to all, of a stubborn process over the bridge downward",
    server: LEGACY,
    moments: ASKED,
    ..process::QUESTION_ALL_DOWNWARD
};

pub(crate) const LISTEN_LEGACY: Flow =
    Flow { name: "listening to a stubborn process, legacy", server: LEGACY, moments: WORD, ..process::LISTEN_LEGACY };

pub(crate) const LISTEN_ALL_LEGACY: Flow = Flow {
    name: "listening to all, to a stubborn process, legacy",
    server: LEGACY,
    moments: WORD,
    ..process::LISTEN_ALL_LEGACY
};

pub(crate) const LISTEN_MODERN: Flow =
    Flow { name: "listening to a stubborn process, modern", server: MODERN, moments: WORD, ..process::LISTEN_MODERN };

pub(crate) const LISTEN_ALL_MODERN: Flow = Flow {
    name: "listening to all, to a stubborn process, modern",
    server: MODERN,
    moments: WORD,
    ..process::LISTEN_ALL_MODERN
};

pub(crate) const LISTEN_UPWARD: Flow = Flow {
    name: "listening to a stubborn process over the bridge upward",
    server: MODERN,
    moments: WORD,
    ..process::LISTEN_UPWARD
};

pub(crate) const LISTEN_ALL_UPWARD: Flow = Flow {
    name: "listening to all, to a stubborn process over the bridge upward",
    server: MODERN,
    moments: WORD,
    ..process::LISTEN_ALL_UPWARD
};

pub(crate) const LISTEN_DOWNWARD: Flow = Flow {
    name: "listening to a stubborn process over the bridge downward",
    server: LEGACY,
    moments: WORD,
    ..process::LISTEN_DOWNWARD
};

pub(crate) const LISTEN_ALL_DOWNWARD: Flow = Flow {
    name: "listening to all, to a stubborn process over the bridge downward",
    server: LEGACY,
    moments: WORD,
    ..process::LISTEN_ALL_DOWNWARD
};

pub(crate) const OPENING_LEGACY: Flow = Flow {
    name: "a stubborn process that does not say who it is, legacy",
    what: What::Opening,
    client: Client::Legacy,
    door: Door::One,
    server: LEGACY,
    method: "initialize",
    moments: &["sent"],
    rows: &[
        Row(Killed, &[], "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &[], "error -31006", "faulted upstream-cut forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &[], "gone", "answered"),
        Row(Removed, &[], "the answer", "answered"),
        Row(Moved, &[], "the answer", "answered"),
        Row(Revoked, &[], "the answer", "answered"),
        Row(Disabled, &[], "the answer", "answered"),
    ],
    but: &[],
};

pub(crate) const OPENING_DOWNWARD: Flow = Flow {
    name: "a stubborn process that does not say who it is, over the bridge downward",
    what: What::Opening,
    client: Client::Modern,
    door: Door::One,
    server: LEGACY,
    method: "tools/call",
    moments: &["sent"],
    rows: &[
        Row(Killed, &[], "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &[], "error -31006", "faulted upstream-cut forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &[], "gone", "abandoned"),
        Row(Removed, &[], "the answer", "answered"),
        Row(Moved, &[], "the answer", "answered"),
        Row(Revoked, &[], "the answer", "answered"),
        Row(Disabled, &[], "the answer", "answered"),
        Row(Unbridged, &[], "the answer", "answered"),
    ],
    but: &[],
};

/// What a client asks for first, of a server that has to be introduced to it.
pub(crate) async fn opening(cell: &mut Cell, door: &str, legacy: bool) -> Open {
    if let Server::Process(processes) = &cell.server {
        processes.holds();
    }
    let hearing = if legacy {
        let params =
            json!({"protocolVersion": REVISION, "capabilities": {}, "clientInfo": {"name": "new", "version": "1"}});
        let hello = json!({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": params});
        cell.sends(Ask::post(&cell.url(door), hello.to_string()).bearer(&cell.key), json!(7))
    } else {
        let agent = cell.modern(door);
        cell.asks(&agent, 7, "tools/call", super::echo_at(cell, door))
    };
    let (id, script) = cell.asked("initialize", 1, None).await;
    let calls = answering(cell.server.clone(), "tools/call", 1);
    let rest = goes(move |script| async move {
        let Some(mut said) = script else { return };
        let asked = json!({"id": id, "params": {"protocolVersion": REVISION}});
        for message in honest("initialize", &asked, false) {
            said.say(&message).await;
        }
        if !legacy {
            calls(Some(said)).await;
        }
    });
    Open::new(hearing, Some(script), rest)
}
