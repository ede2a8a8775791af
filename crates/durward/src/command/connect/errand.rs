//! The client's requests under way: each gets one answer.
//!
//! INVARIANT: an errand is answered by whoever takes it from the table, and only one can.

use mcp::{Message, id_key};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// How it stands with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It was not sent yet.
    Waiting,
    /// It was sent.
    Sent,
    /// It was sent, and its answer is no longer wanted.
    Unwanted,
    /// Somebody has its answer.
    Answered,
    /// Nobody is to answer it any more.
    Closed,
}

/// One request.
pub(super) struct Errand {
    /// The request.
    pub(super) message: Message,
    id: Box<str>,
    fate: watch::Sender<Fate>,
}

impl Errand {
    /// The raw id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether it is a stream that ends only when the client wants it to.
    pub(super) fn listens(&self) -> bool {
        self.message.method() == "subscriptions/listen"
    }

    /// It leaves now.
    pub(super) fn sent(&self) {
        self.fate.send_if_modified(|fate| {
            let is_first = *fate == Fate::Waiting;
            if is_first {
                *fate = Fate::Sent;
            }
            is_first
        });
    }

    /// Whether somebody has its answer.
    pub(super) fn is_answered(&self) -> bool {
        *self.fate.borrow() == Fate::Answered
    }

    /// Waits until somebody has its answer.
    pub(super) async fn answered(&self) {
        // The sender is here, so this ends only with the fate.
        let _ = self.fate.subscribe().wait_for(|fate| *fate == Fate::Answered).await;
    }

    /// Waits until nobody is to answer it any more.
    pub(super) async fn closed(&self) {
        let _ = self.fate.subscribe().wait_for(|fate| *fate == Fate::Closed).await;
    }
}

/// What a cancellation means for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// It is over here: it was never sent, or its stream is closed by that.
    Here,
    /// The gateway must be told.
    There,
    /// No such request is under way.
    Unknown,
}

/// All of them.
pub(super) struct Errands {
    under_way: Mutex<HashMap<String, Arc<Errand>>>,
    /// How many wait for an answer that will come.
    count: watch::Sender<usize>,
}

impl Default for Errands {
    fn default() -> Self {
        Self { under_way: Mutex::default(), count: watch::Sender::new(0) }
    }
}

impl Errands {
    /// Begins one, unless its id is in use.
    pub(super) fn begin(&self, message: &Message) -> Option<Arc<Errand>> {
        let id = message.id()?;
        let errand =
            Arc::new(Errand { message: message.clone(), id: Box::from(id), fate: watch::Sender::new(Fate::Waiting) });
        let mut under_way = self.lock();
        let key = id_key(id);
        if under_way.contains_key(&key) {
            return None;
        }
        under_way.insert(key, Arc::clone(&errand));
        self.tally(&under_way);
        Some(errand)
    }

    /// Takes the request with this id, to answer it.
    pub(super) fn take(&self, id: &str) -> Option<Arc<Errand>> {
        self.end(id, Fate::Answered)
    }

    /// Takes the request that this answers, if the client is to hear it. SPEC: what was cancelled is not answered. An error
    /// says no more than that, and the gateway ends the call's stream with one.
    pub(super) fn answered_by(&self, answer: &Message) -> Option<Arc<Errand>> {
        let id = answer.id()?;
        let fate = self.lock().get(&id_key(id)).map(|errand| *errand.fate.borrow());
        let errand = self.take(id)?;
        (fate != Some(Fate::Unwanted) || answer.error().is_none()).then_some(errand)
    }

    /// Takes this very request, to say why it has no answer. `None` if it has one, or if none is wanted.
    pub(super) fn give_up(&self, errand: &Errand) -> Option<Arc<Errand>> {
        let was = *errand.fate.borrow();
        match was {
            Fate::Answered | Fate::Closed => None,
            Fate::Unwanted => {
                self.end(errand.id(), Fate::Closed);
                None
            }
            Fate::Waiting | Fate::Sent => self.take(errand.id()),
        }
    }

    /// Ends what is done for this request, if it was not answered. Whether an answer is owed for it.
    pub(super) fn close(&self, errand: &Errand) -> bool {
        let was = *errand.fate.borrow();
        match was {
            Fate::Answered | Fate::Closed => false,
            Fate::Unwanted | Fate::Waiting | Fate::Sent => {
                self.end(errand.id(), Fate::Closed);
                was != Fate::Unwanted
            }
        }
    }

    /// The client no longer wants an answer.
    pub(super) fn cancel(&self, id: &str) -> Cancelled {
        let Some(errand) = self.lock().get(&id_key(id)).cloned() else { return Cancelled::Unknown };
        let was = *errand.fate.borrow();
        match (was, errand.message.era()) {
            (Fate::Waiting, _) | (_, mcp::Era::Modern) => {
                self.end(id, Fate::Closed);
                Cancelled::Here
            }
            (Fate::Sent | Fate::Unwanted | Fate::Answered | Fate::Closed, mcp::Era::Legacy) => {
                errand.fate.send_replace(Fate::Unwanted);
                Cancelled::There
            }
        }
    }

    fn end(&self, id: &str, fate: Fate) -> Option<Arc<Errand>> {
        let mut under_way = self.lock();
        let errand = under_way.remove(&id_key(id))?;
        errand.fate.send_replace(fate);
        self.tally(&under_way);
        Some(errand)
    }

    /// Waits until every request is answered, streams aside.
    pub(super) async fn settled(&self) {
        // The sender is here, so this ends only with the last request.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Errand>> {
        self.lock().values().cloned().collect()
    }

    fn tally(&self, under_way: &HashMap<String, Arc<Errand>>) {
        self.count.send_replace(under_way.values().filter(|errand| !errand.listens()).count());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Errand>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcp::{Body, Limits, scan};

    fn message(text: &'static str) -> Message {
        let Ok(Body::Single(message)) = scan(text.into(), &Limits::default()) else { panic!("{text}") };
        message
    }

    #[test]
    fn each_request_is_answered_once() {
        let errands = Errands::default();
        let errand = errands.begin(&message(r#"{"jsonrpc":"2.0","id":"\u0061","method":"ping"}"#)).unwrap();
        assert!(errands.begin(&message(r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#)).is_none(), "it is in use");
        assert!(errands.take("1").is_none());
        assert_eq!(errands.take("\"a\"").unwrap().id(), "\"\\u0061\"");
        assert!(errands.take("\"a\"").is_none() && errands.give_up(&errand).is_none() && errand.is_answered());
    }

    #[test]
    fn an_error_is_no_answer_to_what_was_cancelled() {
        let errands = Errands::default();
        let begin = || errands.begin(&message(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)).unwrap();
        let error = message(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"cancelled"}}"#);
        begin().sent();
        assert!(errands.answered_by(&error).is_some());
        for (answer, is_heard) in [(error, false), (message(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), true)] {
            let errand = begin();
            errand.sent();
            errands.cancel("1");
            assert_eq!(errands.answered_by(&answer).is_some(), is_heard);
            assert!(errand.is_answered() && errands.all().is_empty(), "nobody waits for it any more");
        }
    }

    #[test]
    fn what_is_cancelled_is_not_answered_by_us() {
        const MODERN: &str = r#"{"jsonrpc":"2.0","id":2,"method":"ping","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        let errands = Errands::default();
        let legacy = errands.begin(&message(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)).unwrap();
        let modern = errands.begin(&message(MODERN)).unwrap();
        legacy.sent();
        modern.sent();
        assert_eq!(errands.cancel("1"), Cancelled::There);
        assert!(errands.give_up(&legacy).is_none());
        assert_eq!(errands.cancel("2"), Cancelled::Here);
        assert!(!errands.close(&modern), "nothing is owed for it");
        assert_eq!(errands.cancel("1"), Cancelled::Unknown);
        let waiting = errands.begin(&message(r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#)).unwrap();
        assert_eq!(errands.cancel("3"), Cancelled::Here);
        assert!(!errands.close(&waiting));
        let last = errands.begin(&message(r#"{"jsonrpc":"2.0","id":4,"method":"ping"}"#)).unwrap();
        assert!(errands.close(&last) && !errands.close(&last) && errands.all().is_empty());
    }
}
