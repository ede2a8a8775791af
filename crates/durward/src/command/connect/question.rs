//! What servers asked the client, until it has answered. Where no answer can reach them any more, the client is told that
//! nobody waits: a person may sit before a question.
//!
//! Sends nothing.

use super::errand::Errand;
use bytes::Bytes;
use mcp::{Kind, Message, id_key};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// Questions that are remembered, the newest: as many as a gateway lets wait in a session.
const MOST: usize = 256;

/// A question without an answer.
struct Question {
    /// The raw id.
    id: Box<str>,
    /// The request in the course of which it was asked; nothing where it came unasked.
    of: Weak<Errand>,
}

/// All of them, in the order in which they came.
#[derive(Default)]
pub(super) struct Questions(Mutex<VecDeque<Question>>);

impl Questions {
    /// Notes what the client hears, in the course of a request where there is one: a question, or that one is taken back.
    pub(super) fn hear(&self, message: &Message, of: Option<&Arc<Errand>>) {
        match message.kind() {
            Kind::Request => {
                let Some(id) = message.id() else { return };
                // One that is put again is the same.
                self.forget(id);
                let mut open = self.lock();
                open.push_back(Question { id: Box::from(id), of: of.map(Arc::downgrade).unwrap_or_default() });
                if open.len() > MOST {
                    open.pop_front();
                }
            }
            Kind::Notification if message.method() == "notifications/cancelled" => {
                if let Some(id) = message.param(&["requestId"]) {
                    self.forget(&String::from_utf8_lossy(id.raw));
                }
            }
            Kind::Notification | Kind::Response => {}
        }
    }

    /// The client has answered it, or need not any more.
    pub(super) fn forget(&self, id: &str) {
        let key = id_key(id);
        self.lock().retain(|question| id_key(&question.id) != key);
    }

    /// Takes back what was asked in the course of a request that is over. What the client is told.
    pub(super) fn withdraw_of(&self, errand: &Arc<Errand>) -> Vec<Bytes> {
        self.withdraw(|question| std::ptr::eq(question.of.as_ptr(), Arc::as_ptr(errand)))
    }

    /// Takes back all that was asked in a session that is over. What the client is told.
    pub(super) fn withdraw_all(&self) -> Vec<Bytes> {
        self.withdraw(|_| true)
    }

    fn withdraw(&self, is_over: impl Fn(&Question) -> bool) -> Vec<Bytes> {
        let mut open = self.lock();
        let (over, kept): (VecDeque<_>, VecDeque<_>) = open.drain(..).partition(is_over);
        *open = kept;
        over.iter().map(|question| withdrawn(&question.id)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Question>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The notification that takes back the question with this raw id.
fn withdrawn(id: &str) -> Bytes {
    let why = "the connection over which it was asked is lost";
    let params = format!(r#"{{"requestId":{id},"reason":"{why}"}}"#);
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::connect::{errand::Errands, mirror::single};
    use serde_json::{Value, json};

    fn message(value: &Value) -> Message {
        single(&Bytes::from(value.to_string()), &mcp::Limits::default()).unwrap()
    }

    fn asked(id: &Value) -> Message {
        message(&json!({"jsonrpc": "2.0", "id": id, "method": "roots/list"}))
    }

    fn taken_back(told: &[Bytes]) -> Vec<Value> {
        let told = told.iter().map(|text| serde_json::from_slice::<Value>(text).unwrap());
        told.map(|told| told["params"]["requestId"].clone()).collect()
    }

    #[test]
    fn what_is_open_is_taken_back_once_with_its_request_or_with_all() {
        let (questions, errands) = (Questions::default(), Errands::default());
        let call =
            |id: u64| errands.begin(&message(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call"}))).unwrap();
        let (first, second) = (call(1), call(2));
        for (id, of) in
            [("a", Some(&first)), ("b", Some(&second)), ("c", None), ("d", Some(&first)), ("e", Some(&first))]
        {
            questions.hear(&asked(&json!(id)), of);
        }
        // Put again, answered, taken back by whoever asked.
        questions.hear(&asked(&json!("a")), Some(&first));
        questions.forget(r#""\u0064""#);
        let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "e"}});
        questions.hear(&message(&cancelled), Some(&first));
        assert_eq!(taken_back(&questions.withdraw_of(&first)), ["a"]);
        assert!(questions.withdraw_of(&first).is_empty());
        assert_eq!(taken_back(&questions.withdraw_all()), ["b", "c"]);
        assert!(questions.withdraw_all().is_empty());
    }

    #[test]
    fn of_many_the_newest_are_remembered() {
        let questions = Questions::default();
        for id in 0..=MOST {
            questions.hear(&asked(&json!(id)), None);
        }
        let told = taken_back(&questions.withdraw_all());
        assert_eq!((told.len(), &told[0]), (MOST, &json!(1)));
    }
}
