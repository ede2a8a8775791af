//! A call waits for the roots: a modern client's session is opened by its first call, and a server that asks for roots as soon
//! as that is open would serve the call without them. Legacy clients decide for themselves what they wait for.

use mcp::Message;
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// How long after its session was opened a server has asked that means to ask at once.
const AT_ONCE: Duration = Duration::from_millis(100);

/// What is known of the roots.
#[derive(Clone, PartialEq, Eq)]
enum Stage {
    /// There are none, the server was answered, or did not ask at once.
    Settled,
    /// The client has some. The server is not to ask yet.
    Declared,
    /// It may ask until then.
    Awaited(Instant),
    /// It asked.
    Asked,
}

#[derive(Clone, PartialEq, Eq)]
struct State {
    stage: Stage,
    /// Under which id it asked, until that is answered.
    asked: Option<String>,
    /// A call waits whose client can be asked. Of several nobody could tell whose question it is.
    is_claimed: bool,
}

/// Whether a server that asks for roots at once knows them.
pub(super) struct Roots(watch::Sender<State>);

impl Default for Roots {
    fn default() -> Self {
        Self(watch::Sender::new(State { stage: Stage::Settled, asked: None, is_claimed: false }))
    }
}

impl Roots {
    /// A client is introduced that has some.
    pub(super) fn declared(&self) {
        self.turn(|stage| Some(Stage::Declared).filter(|declared| declared != stage));
    }

    /// The server learns that its session is open, or has just learned it.
    pub(super) fn awaited(&self) {
        let until = Instant::now() + AT_ONCE;
        self.turn(|stage| matches!(stage, Stage::Declared | Stage::Awaited(_)).then_some(Stage::Awaited(until)));
    }

    /// The server asks something: it may be for them.
    pub(super) fn asked(&self, question: &Message) {
        let Some(id) = question.id().filter(|_| question.method() == "roots/list") else { return };
        self.0.send_if_modified(|state| {
            let is_awaited = matches!(state.stage, Stage::Awaited(_));
            if is_awaited {
                (state.stage, state.asked) = (Stage::Asked, Some(id.to_owned()));
            }
            is_awaited
        });
    }

    /// The server is answered a question, or takes it back: it may be that one.
    pub(super) fn answered(&self, id: &str) {
        self.0.send_if_modified(|state| {
            let is_meant = state.asked.as_deref().is_some_and(|asked| mcp::id_key(asked) == mcp::id_key(id));
            if is_meant {
                (state.stage, state.asked) = (Stage::Settled, None);
            }
            is_meant
        });
    }

    /// The id of the question, where it was put to a call, which `was_asked` tells, and is not answered.
    pub(super) fn owed(&self, was_asked: impl FnOnce(&str) -> bool) -> Option<String> {
        self.0.borrow().asked.clone().filter(|id| was_asked(id))
    }

    /// The server asks nothing more.
    pub(super) fn are_over(&self) {
        self.turn(|_| Some(Stage::Settled));
    }

    fn turn(&self, to: impl FnOnce(&Stage) -> Option<Stage>) {
        self.0.send_if_modified(|state| to(&state.stage).map(|to| state.stage = to).is_some());
    }

    pub(super) fn is_settled(&self) -> bool {
        self.0.borrow().stage == Stage::Settled
    }

    /// The call that could be asked is no more, and was not sent.
    pub(super) fn are_let_go(&self) {
        self.0.send_if_modified(|state| std::mem::replace(&mut state.is_claimed, false));
    }

    fn claim(&self) -> bool {
        self.0.send_if_modified(|state| !std::mem::replace(&mut state.is_claimed, true))
    }

    /// Waits until a call can be made: the first at once, the others when that was sent. For a while, see [`Roots::settled`].
    pub(super) async fn claimed(&self, most: Duration) {
        self.wait(most, false, || self.claim()).await;
    }

    /// Waits until a call can be sent, and no longer than this: a server may ask for what nobody answers.
    pub(super) async fn settled(&self, most: Duration) {
        self.wait(most, true, || false).await;
    }

    /// `settles`: who waits in vain waits for all.
    async fn wait(&self, most: Duration, settles: bool, is_enough: impl Fn() -> bool) {
        let until = Instant::now() + most;
        let mut changes = self.0.subscribe();
        loop {
            let seen = changes.borrow_and_update().clone();
            if seen.stage == Stage::Settled || is_enough() {
                return;
            }
            let until = match &seen.stage {
                Stage::Awaited(awaited) => until.min(*awaited),
                Stage::Settled | Stage::Declared | Stage::Asked => until,
            };
            if timeout_at(until, changes.changed()).await.is_err() {
                let is_vain = settles || matches!(seen.stage, Stage::Awaited(_));
                self.turn(|stage| (is_vain && *stage == seen.stage).then_some(Stage::Settled));
                if !is_vain {
                    return;
                }
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
        assert!(is_open(&roots) && roots.owed(|_| true).is_some_and(|id| id == "\"a\""), "nobody answered");
        roots.answered("\"a\"");
        assert!(roots.owed(|_| true).is_none());
    }

    #[tokio::test]
    async fn the_client_of_one_call_is_asked() {
        let roots = opened();
        let comes = || roots.claimed(LONG).now_or_never().is_some();
        assert!(comes() && !comes());
        roots.are_let_go();
        assert!(comes() && !comes(), "it was not sent");
        roots.are_over();
        assert!(comes() && comes());
    }
}
