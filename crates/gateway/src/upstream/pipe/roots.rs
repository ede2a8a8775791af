//! A call waits for the roots: a modern client's session is opened by its first call, and a server that asks for roots as soon
//! as that is open would serve the call without them. Legacy clients decide for themselves what they wait for.

use mcp::Message;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// How long after its session was opened a server has asked that means to ask at once.
const AT_ONCE: Duration = Duration::from_millis(100);

/// What is known of the roots.
#[derive(Clone, PartialEq, Eq)]
enum Stage {
    /// There are none, the server knows them, or it did not ask at once.
    Settled,
    /// The client has some. The server is not to ask yet.
    Declared,
    /// It may ask until then.
    Awaited(Instant),
    /// It asked, under this id.
    Asked(String),
}

/// Whether a server that asks for roots at once knows them.
pub(super) struct Roots {
    stage: watch::Sender<Stage>,
    /// A call waits whose client can be asked.
    is_claimed: AtomicBool,
}

impl Default for Roots {
    fn default() -> Self {
        Self { stage: watch::Sender::new(Stage::Settled), is_claimed: AtomicBool::new(false) }
    }
}

impl Roots {
    /// The gateway introduces a client that has some.
    pub(super) fn declared(&self) {
        self.stage.send_replace(Stage::Declared);
    }

    /// The session is about to be open.
    pub(super) fn awaited(&self) {
        self.turn(|stage| (*stage == Stage::Declared).then(|| Stage::Awaited(Instant::now() + AT_ONCE)));
    }

    /// The server asks something: it may be for them.
    pub(super) fn asked(&self, question: &Message) {
        let id = question.id().filter(|_| question.method() == "roots/list").map(mcp::id_key);
        let Some(id) = id else { return };
        self.turn(|stage| matches!(stage, Stage::Awaited(_)).then_some(Stage::Asked(id)));
    }

    /// The server is answered a question: it may be that one.
    pub(super) fn answered(&self, id: &str) {
        self.turn(|stage| match stage {
            Stage::Asked(asked) if *asked == mcp::id_key(id) => Some(Stage::Settled),
            _ => None,
        });
    }

    fn turn(&self, to: impl FnOnce(&Stage) -> Option<Stage>) {
        self.stage.send_if_modified(|stage| to(stage).map(|to| *stage = to).is_some());
    }

    pub(super) fn is_settled(&self) -> bool {
        *self.stage.borrow() == Stage::Settled
    }

    /// Whether a call is the first that waits, and so the one whose client is asked. Of several nobody could tell whose
    /// question it is.
    pub(super) fn is_first(&self) -> bool {
        !self.is_claimed.swap(true, Ordering::Relaxed)
    }

    /// Waits until a call can be sent, and no longer than this: a server may ask for what nobody answers.
    pub(super) async fn settled(&self, most: Duration) {
        let until = Instant::now() + most;
        let mut changes = self.stage.subscribe();
        loop {
            let seen = changes.borrow_and_update().clone();
            let until = match &seen {
                Stage::Settled => return,
                Stage::Awaited(until) => *until,
                Stage::Declared | Stage::Asked(_) => until,
            };
            if timeout_at(until, changes.changed()).await.is_err() {
                self.turn(|stage| (*stage == seen).then_some(Stage::Settled));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Roots;
    use crate::upstream::exchange;
    use futures_util::FutureExt;
    use mcp::{Limits, Message};
    use std::time::Duration;

    /// Longer than any server takes here.
    const LONG: Duration = Duration::from_mins(1);

    fn question(method: &str) -> Message {
        let text = format!(r#"{{"jsonrpc":"2.0","id":"a","method":"{method}"}}"#);
        exchange::one(text.into(), &Limits::default()).unwrap()
    }

    fn opened() -> Roots {
        let roots = Roots::default();
        roots.declared();
        roots.awaited();
        roots
    }

    /// Whether a call can be sent at once.
    fn is_open(roots: &Roots) -> bool {
        roots.settled(LONG).now_or_never().is_some()
    }

    #[tokio::test]
    async fn a_call_waits_for_an_answer_where_the_server_asked_at_once() {
        let roots = opened();
        roots.asked(&question("roots/list"));
        roots.answered("\"b\"");
        assert!(!is_open(&roots));
        let answering = async { roots.answered("\"a\"") };
        tokio::join!(roots.settled(LONG), answering);
        assert!(is_open(&roots));
    }

    #[tokio::test]
    async fn a_call_waits_for_no_server_that_asks_for_nothing_or_is_not_answered() {
        let roots = Roots::default();
        roots.awaited();
        roots.asked(&question("roots/list"));
        assert!(is_open(&roots), "there are none");
        let roots = opened();
        roots.asked(&question("sampling/createMessage"));
        assert!(!is_open(&roots));
        roots.settled(LONG).await;
        roots.asked(&question("roots/list"));
        assert!(is_open(&roots), "it did not ask at once");
        let roots = opened();
        roots.asked(&question("roots/list"));
        roots.settled(Duration::from_millis(10)).await;
        assert!(is_open(&roots), "nobody answered");
    }

    #[test]
    fn the_client_of_one_call_is_asked() {
        let roots = Roots::default();
        assert!(roots.is_first() && !roots.is_first());
    }
}
