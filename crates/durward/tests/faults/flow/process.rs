//! What becomes of calls, questions and listeners whose server is a process.

use super::{call, listen, question};
use crate::table::{
    Client, Door,
    Fault::{Cut, Disabled, Gone, Killed, Moved, Removed, Revoked, Silent, Unbridged},
    Flow, Manner, Row, Speaks, What,
};

const LEGACY: Speaks = Speaks::Process("legacy", Manner::Own);
const MODERN: Speaks = Speaks::Process("modern", Manner::Own);

const CALL: &[&str] = &["sent", "one word", "two words"];
const CALL_ALL: &[&str] = &["sent", "one word"];
const QUESTION: &[&str] = &["sent", "question", "answered"];
const BEGUN: &[&str] = &["begun", "one word"];

pub(crate) const CALL_MODERN: Flow = Flow {
    name: "a call of a process, modern",
    what: What::Streamed,
    client: Client::Modern,
    door: Door::One,
    server: MODERN,
    method: "tools/call",
    moments: CALL,
    rows: &[
        Row(Killed, &[], "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &[], "error -31006", "faulted upstream-cut forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &[], "gone", "abandoned"),
        Row(Removed, &[], "the answer", "answered"),
        Row(Moved, &[], "the answer", "answered"),
        Row(Revoked, &[], "error -32600", "withheld revoked authenticate"),
        Row(Disabled, &[], "error -32600", "withheld revoked authenticate"),
        Row(Unbridged, &[], "the answer", "answered"),
    ],
    but: &[],
};

pub(crate) const CALL_LEGACY: Flow = Flow {
    name: "a call of a process, legacy",
    what: What::Streamed,
    client: Client::Legacy,
    door: Door::One,
    server: LEGACY,
    method: "tools/call",
    moments: CALL,
    rows: &[
        Row(Killed, &[], "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &[], "error -31006", "faulted upstream-cut forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &[], "gone", "answered"),
        Row(Removed, &[], "the answer", "answered"),
        Row(Moved, &[], "the answer", "answered"),
        Row(Revoked, &[], "error -32600", "withheld revoked authenticate"),
        Row(Disabled, &[], "error -32600", "withheld revoked authenticate"),
        Row(Unbridged, &[], "the answer", "answered"),
    ],
    but: &[],
};

pub(crate) const CALL_UPWARD: Flow =
    Flow { name: "a call of a process over the bridge upward", server: MODERN, ..CALL_LEGACY };

pub(crate) const CALL_DOWNWARD: Flow =
    Flow { name: "a call of a process over the bridge downward", server: LEGACY, ..CALL_MODERN };

pub(crate) const CALL_ALL_LEGACY: Flow =
    Flow { name: "a call to all, of a process, legacy", door: Door::All, moments: CALL_ALL, ..CALL_LEGACY };

pub(crate) const CALL_ALL_MODERN: Flow =
    Flow { name: "a call to all, of a process, modern", door: Door::All, moments: CALL_ALL, ..CALL_MODERN };

pub(crate) const CALL_ALL_UPWARD: Flow = Flow {
    name: "a call to all, of a process over the bridge upward",
    door: Door::All,
    moments: CALL_ALL,
    ..CALL_UPWARD
};

pub(crate) const CALL_ALL_DOWNWARD: Flow = Flow {
    name: "a call to all, of a process over the bridge downward",
    door: Door::All,
    moments: CALL_ALL,
    ..CALL_DOWNWARD
};

pub(crate) const QUESTION_LEGACY: Flow = Flow {
    name: "a question of a process, legacy",
    what: What::Question,
    client: Client::Legacy,
    door: Door::One,
    server: LEGACY,
    method: "tools/call",
    moments: QUESTION,
    rows: &[
        Row(Killed, &[], "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &[], "error -31006", "faulted upstream-cut forward"),
        Row(Silent, &[], "error -31007", "faulted upstream-timeout forward"),
        Row(Gone, &[], "gone", "answered"),
        // Until something is said beside the answer there is no stream whose right is looked at.
        Row(Removed, &["sent"], "the answer", "answered"),
        Row(Removed, &["question"], "error -31001", "withheld denied authorize"),
        Row(Removed, &["answered"], "the answer", "answered"),
        Row(Moved, &[], "the answer", "answered"),
        Row(Revoked, &["sent"], "the answer", "answered"),
        Row(Revoked, &["question", "answered"], "error -32600", "withheld revoked authenticate"),
        Row(Disabled, &["sent"], "the answer", "answered"),
        Row(Disabled, &["question", "answered"], "error -32600", "withheld revoked authenticate"),
    ],
    but: &[],
};

pub(crate) const QUESTION_DOWNWARD: Flow = Flow {
    name: "a question of a process over the bridge downward",
    what: What::Question,
    client: Client::Modern,
    door: Door::One,
    server: LEGACY,
    method: "tools/call",
    moments: QUESTION,
    rows: &[
        Row(Killed, &["sent"], "error -31006", "faulted upstream-cut forward"),
        Row(Killed, &["question"], "error -31006", "answered, faulted upstream-down forward"),
        Row(Killed, &["answered"], "error -31006", "answered, faulted upstream-cut forward"),
        Row(Cut, &["sent"], "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &["question"], "error -31006", "answered, faulted upstream-down forward"),
        Row(Cut, &["answered"], "error -31006", "answered, faulted upstream-cut forward"),
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
        Row(Unbridged, &["sent"], "the answer", "answered"),
        Row(Unbridged, &["question"], "error -32022", "answered, refused era resolve"),
        Row(Unbridged, &["answered"], "the answer", "answered, answered"),
    ],
    but: &[],
};

pub(crate) const QUESTION_MODERN: Flow = Flow {
    name: "a question of a process, modern",
    what: What::Question,
    client: Client::Modern,
    door: Door::One,
    server: MODERN,
    method: "tools/call",
    moments: QUESTION,
    rows: &[
        Row(Killed, &["sent"], "error -31006", "faulted upstream-cut forward"),
        // Its successor ends, or is not started so soon.
        Row(
            Killed,
            &["question"],
            "error -31006",
            "answered, faulted upstream-cut forward or answered, faulted upstream-down forward",
        ),
        Row(Killed, &["answered"], "error -31006", "answered, faulted upstream-cut forward"),
        Row(Cut, &["sent"], "error -31006", "faulted upstream-cut forward"),
        // Its successor answers, or is not started so soon.
        Row(
            Cut,
            &["question"],
            "the answer or error -31006",
            "answered, answered or answered, faulted upstream-down forward",
        ),
        Row(Cut, &["answered"], "error -31006", "answered, faulted upstream-cut forward"),
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

pub(crate) const QUESTION_UPWARD: Flow = Flow {
    name: "a question of a process over the bridge upward",
    server: MODERN,
    but: &[
        Row(Killed, &["sent", "answered"], "error -31006", "faulted upstream-cut forward"),
        Row(Killed, &["question"], "error -31006", "faulted upstream-cut forward or faulted upstream-down forward"),
        Row(Cut, &["sent", "answered"], "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &["question"], "the answer or error -31006", "answered or faulted upstream-down forward"),
    ],
    ..question::QUESTION_UPWARD
};

pub(crate) const QUESTION_ALL_LEGACY: Flow =
    Flow { name: "a question to all, of a process, legacy", door: Door::All, ..QUESTION_LEGACY };

pub(crate) const QUESTION_ALL_MODERN: Flow = Flow {
    name: "a question to all, of a process, modern",
    door: Door::All,
    but: question::ALL_MODERN.but,
    ..QUESTION_MODERN
};

pub(crate) const QUESTION_ALL_UPWARD: Flow =
    Flow { name: "a question to all, of a process over the bridge upward", door: Door::All, ..QUESTION_UPWARD };

pub(crate) const QUESTION_ALL_DOWNWARD: Flow = Flow {
    name: "a question to all, of a process over the bridge downward",
    door: Door::All,
    but: question::ALL_DOWNWARD.but,
    ..QUESTION_DOWNWARD
};

pub(crate) const LISTEN_LEGACY: Flow = Flow {
    name: "listening to a process, legacy",
    what: What::Listening,
    client: Client::Legacy,
    door: Door::One,
    server: LEGACY,
    method: "GET",
    moments: BEGUN,
    // The stream is the session's, whose next process speaks on it.
    rows: &[
        Row(Killed, &[], "stays open", "answered"),
        Row(Cut, &[], "stays open", "answered"),
        Row(Silent, &[], "stays open", "answered"),
        Row(Gone, &[], "gone", "answered"),
        Row(Removed, &[], "the end", "withheld denied authorize"),
        Row(Moved, &[], "stays open", "answered"),
        Row(Revoked, &[], "the end", "withheld revoked authenticate"),
        Row(Disabled, &[], "the end", "withheld revoked authenticate"),
    ],
    but: &[],
};

pub(crate) const LISTEN_MODERN: Flow = Flow {
    name: "listening to a process, modern",
    server: MODERN,
    but: &[
        Row(Killed, &[], "error -31006", "faulted upstream-cut forward"),
        Row(Cut, &[], "error -31006", "faulted upstream-cut forward"),
    ],
    ..listen::LISTEN_MODERN
};

pub(crate) const LISTEN_UPWARD: Flow =
    Flow { name: "listening to a process over the bridge upward", server: MODERN, ..listen::LISTEN_UPWARD };

pub(crate) const LISTEN_DOWNWARD: Flow = Flow {
    name: "listening to a process over the bridge downward",
    what: What::Listening,
    client: Client::Modern,
    door: Door::One,
    server: LEGACY,
    method: "subscriptions/listen",
    moments: BEGUN,
    rows: &[
        // The session is over with its process, and the client is told to listen again.
        Row(Killed, &[], "the answer", "answered"),
        Row(Cut, &[], "the answer", "answered"),
        Row(Silent, &[], "stays open", "answered"),
        Row(Gone, &[], "gone", "answered"),
        Row(Removed, &[], "error -31001", "withheld denied authorize"),
        Row(Moved, &[], "the answer", "answered"),
        Row(Revoked, &[], "error -32600", "withheld revoked authenticate"),
        Row(Disabled, &[], "error -32600", "withheld revoked authenticate"),
        Row(Unbridged, &[], "the answer", "answered"),
    ],
    but: &[],
};

pub(crate) const LISTEN_ALL_LEGACY: Flow =
    Flow { name: "listening to all, to a process, legacy", server: LEGACY, ..listen::ALL_LEGACY };

pub(crate) const LISTEN_ALL_MODERN: Flow =
    Flow { name: "listening to all, to a process, modern", server: MODERN, ..listen::ALL_MODERN };

pub(crate) const LISTEN_ALL_UPWARD: Flow =
    Flow { name: "listening to all, to a process over the bridge upward", server: MODERN, ..listen::ALL_UPWARD };

pub(crate) const LISTEN_ALL_DOWNWARD: Flow =
    Flow { name: "listening to all, to a process over the bridge downward", server: LEGACY, ..listen::ALL_DOWNWARD };

pub(crate) const TASK: Flow = Flow {
    name: "a task of a process",
    server: LEGACY,
    but: &[
        // Its successor ends, or is not started so soon.
        Row(Killed, &["begun"], "error -31006", "faulted upstream-cut forward or faulted upstream-down forward"),
        Row(Killed, &["awaited"], "error -31006", "faulted upstream-cut forward"),
        // Its successor answers, or is not started so soon.
        Row(Cut, &["begun"], "the answer or error -31006", "answered or faulted upstream-down forward"),
        Row(Cut, &["awaited"], "error -31006", "faulted upstream-cut forward"),
    ],
    ..call::TASK
};

pub(crate) const TASK_MODERN: Flow =
    Flow { name: "a task of a process, modern", server: MODERN, but: TASK.but, ..call::TASK_MODERN };

pub(crate) const TASK_ALL: Flow =
    Flow { name: "a task of all, of a process", server: LEGACY, but: TASK.but, ..call::TASK_ALL };

pub(crate) const TASK_ALL_MODERN: Flow =
    Flow { name: "a task of all, of a process, modern", server: MODERN, but: TASK.but, ..call::TASK_ALL_MODERN };
