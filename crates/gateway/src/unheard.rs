//! Questions of servers that nobody is there to answer. They are answered at once and counted: a server can ask without
//! end, so what it asked of nobody since the last sweep is one record.

use crate::{journal::Journal, label};
use audit::SystemRecord;
use bytes::Bytes;
use mcp::{Message, error};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use vocab::ServerName;

/// The longest name of a method that is recorded, in characters: a server chooses it.
const LONGEST: usize = 64;

/// What was asked of nobody since the last record, by server and reason.
#[derive(Default)]
pub(crate) struct Unheard(Mutex<BTreeMap<(ServerName, &'static str), Questions>>);

/// How often something was asked, and by which method last.
#[derive(Default)]
struct Questions {
    count: u64,
    last: String,
}

impl Unheard {
    fn note(&self, server: &ServerName, method: &str, why: &'static str) {
        // Looked through before the lock is taken: a server chooses what is looked through.
        let last = label::method(method).chars().take(LONGEST).collect();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let questions = all.entry((server.clone(), why)).or_default();
        questions.count += 1;
        questions.last = last;
    }
}

impl Journal {
    /// The answer to a question that nobody hears, which is noted. A ping asks for nobody in particular.
    pub(crate) fn unheard(&self, server: &ServerName, question: &Message, why: &'static str) -> Bytes {
        if question.method() == "ping" {
            return error::result_text(question.id().unwrap_or("null"), b"{}");
        }
        self.forgotten(server, question.method(), why);
        error::error_text(question.id(), error::METHOD_NOT_FOUND, why, None)
    }

    /// Notes a question that was put to its client and will have no answer all the same.
    pub(crate) fn forgotten(&self, server: &ServerName, method: &str, why: &'static str) {
        self.questions().note(server, method, why);
    }

    /// Records what was asked of nobody.
    pub fn record_unheard(&self) {
        let all = std::mem::take(&mut *self.questions().0.lock().unwrap_or_else(PoisonError::into_inner));
        for ((server, why), Questions { count, last }) in all {
            self.event(SystemRecord {
                count: (count > 1).then_some(count),
                detail: Some(format!("server `{server}` asked: {why}")),
                method: Some(last),
                ..self.system_record(Cow::Borrowed("unheard"))
            });
        }
    }
}
