//! What becomes of those whose server is one process for everybody, by its own address and by that of all: the same as if it were theirs alone.

use super::process;
use crate::table::{Flow, Manner, Speaks};

const LEGACY: Speaks = Speaks::Process("legacy", Manner::Shared);
const MODERN: Speaks = Speaks::Process("modern", Manner::Shared);
// By the address of all, where each has a moment: every other one is that of a process of one's own.
const WORD: &[&str] = &["one word"];
const ASKED: &[&str] = &["question"];

pub(crate) const CALL_LEGACY: Flow =
    Flow { name: "a call of a shared process, legacy", server: LEGACY, ..process::CALL_LEGACY };

pub(crate) const CALL_MODERN: Flow =
    Flow { name: "a call of a shared process, modern", server: MODERN, ..process::CALL_MODERN };

pub(crate) const CALL_UPWARD: Flow =
    Flow { name: "a call of a shared process over the bridge upward", server: MODERN, ..process::CALL_UPWARD };

pub(crate) const CALL_DOWNWARD: Flow =
    Flow { name: "a call of a shared process over the bridge downward", server: LEGACY, ..process::CALL_DOWNWARD };

pub(crate) const QUESTION_LEGACY: Flow =
    Flow { name: "a question of a shared process, legacy", server: LEGACY, ..process::QUESTION_LEGACY };

pub(crate) const QUESTION_MODERN: Flow =
    Flow { name: "a question of a shared process, modern", server: MODERN, ..process::QUESTION_MODERN };

pub(crate) const QUESTION_UPWARD: Flow =
    Flow { name: "a question of a shared process over the bridge upward", server: MODERN, ..process::QUESTION_UPWARD };

pub(crate) const QUESTION_DOWNWARD: Flow = Flow {
    name: "a question of a shared process over the bridge downward",
    server: LEGACY,
    ..process::QUESTION_DOWNWARD
};

pub(crate) const LISTEN_LEGACY: Flow =
    Flow { name: "listening to a shared process, legacy", server: LEGACY, ..process::LISTEN_LEGACY };

pub(crate) const LISTEN_MODERN: Flow =
    Flow { name: "listening to a shared process, modern", server: MODERN, ..process::LISTEN_MODERN };

pub(crate) const LISTEN_UPWARD: Flow =
    Flow { name: "listening to a shared process over the bridge upward", server: MODERN, ..process::LISTEN_UPWARD };

pub(crate) const LISTEN_DOWNWARD: Flow =
    Flow { name: "listening to a shared process over the bridge downward", server: LEGACY, ..process::LISTEN_DOWNWARD };

pub(crate) const CALL_ALL_LEGACY: Flow = Flow {
    name: "a call to all, of a shared process, legacy",
    server: LEGACY,
    moments: WORD,
    ..process::CALL_ALL_LEGACY
};

pub(crate) const CALL_ALL_MODERN: Flow = Flow {
    name: "a call to all, of a shared process, modern",
    server: MODERN,
    moments: WORD,
    ..process::CALL_ALL_MODERN
};

pub(crate) const CALL_ALL_UPWARD: Flow = Flow {
    name: "a call to all, of a shared process over the bridge upward",
    server: MODERN,
    moments: WORD,
    ..process::CALL_ALL_UPWARD
};

pub(crate) const CALL_ALL_DOWNWARD: Flow = Flow {
    name: "a call to all, of a shared process over the bridge downward",
    server: LEGACY,
    moments: WORD,
    ..process::CALL_ALL_DOWNWARD
};

pub(crate) const QUESTION_ALL_LEGACY: Flow = Flow {
    name: "a question to all, of a shared process, legacy",
    server: LEGACY,
    moments: ASKED,
    ..process::QUESTION_ALL_LEGACY
};

pub(crate) const QUESTION_ALL_MODERN: Flow = Flow {
    name: "a question to all, of a shared process, modern",
    server: MODERN,
    moments: ASKED,
    ..process::QUESTION_ALL_MODERN
};

pub(crate) const QUESTION_ALL_UPWARD: Flow = Flow {
    name: "a question to all, of a shared process over the bridge upward",
    server: MODERN,
    moments: ASKED,
    ..process::QUESTION_ALL_UPWARD
};

pub(crate) const QUESTION_ALL_DOWNWARD: Flow = Flow {
    name: "a question to all, of a shared process over the bridge downward",
    server: LEGACY,
    moments: ASKED,
    ..process::QUESTION_ALL_DOWNWARD
};

pub(crate) const LISTEN_ALL_LEGACY: Flow = Flow {
    name: "listening to all, to a shared process, legacy",
    server: LEGACY,
    moments: WORD,
    ..process::LISTEN_ALL_LEGACY
};

pub(crate) const LISTEN_ALL_MODERN: Flow = Flow {
    name: "listening to all, to a shared process, modern",
    server: MODERN,
    moments: WORD,
    ..process::LISTEN_ALL_MODERN
};

pub(crate) const LISTEN_ALL_UPWARD: Flow = Flow {
    name: "listening to all, to a shared process over the bridge upward",
    server: MODERN,
    moments: WORD,
    ..process::LISTEN_ALL_UPWARD
};

pub(crate) const LISTEN_ALL_DOWNWARD: Flow = Flow {
    name: "listening to all, to a shared process over the bridge downward",
    server: LEGACY,
    moments: WORD,
    ..process::LISTEN_ALL_DOWNWARD
};
