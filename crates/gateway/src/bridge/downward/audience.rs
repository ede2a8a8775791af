//! Who hears what a legacy server says beside its answers: those who listen, and calls under way. A server may ask and log
//! on its listening stream in the course of a call, and does not say of which.
//!
//! SECURITY: all of it is one session's, and so one principal's. Where a server gives no session ids, what it says there may
//! be about anybody's call, and no call hears it.

use crate::upstream::{
    pipe::UNCLEAR,
    turn::{Kept, Turns},
};
use bytes::Bytes;
use mcp::{Kind, Limits, Message};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

/// News that wait for one who listens. The stream of one who is slower ends.
const NEWS: usize = 256;
/// Bytes of them, unless one alone is longer.
const BYTES: usize = 1 << 20;
/// Messages that wait for one call, half of them questions in any case.
const BACKLOG: usize = 64;
/// The longest log message or progress that is kept for a call, in bytes.
const LONGEST: usize = 64 << 10;
/// How long the stream stays open behind the last call: the next one is often near.
const LINGER: Duration = Duration::from_secs(30);

/// What is known of a server's listening stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Nobody reads it.
    Closed,
    /// It is asked for, and may be worth waiting for.
    Opening,
    /// Somebody reads it.
    Open,
    /// It was not to be had at once: nobody waits for it.
    Late,
    /// The server has none.
    Absent,
    /// It loses the session of whoever asks for one, in words of its own: it is asked no more, by ping neither.
    Renounced,
}

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It was not sent yet: the server cannot mean it.
    Coming,
    /// The server works on it.
    Running,
    /// It waits for its client, who was asked: the server asks in its course no more until it is answered.
    Resting,
}

/// A call in whose course its client can be asked.
struct Open {
    stage: Stage,
    said: mpsc::Sender<Bytes>,
}

#[derive(Default)]
struct Calls {
    /// By the number that the server knows.
    open: BTreeMap<u64, Open>,
    /// When the last one ended.
    ended: Option<Instant>,
}

/// Where news for one who listens go in.
struct Listens {
    news: mpsc::Sender<News>,
    waits: Arc<AtomicUsize>,
}

/// One of them. It waits, and is counted, until it is dropped.
pub(super) struct News {
    pub(super) text: Bytes,
    waits: Arc<AtomicUsize>,
}

impl Listens {
    /// Hands it over. `false` if there is no room for it.
    fn say(&self, text: Bytes) -> bool {
        let waits = self.waits.load(Ordering::Relaxed);
        if waits > 0 && waits + text.len() > BYTES {
            return false;
        }
        self.waits.fetch_add(text.len(), Ordering::Relaxed);
        self.news.try_send(News { text, waits: Arc::clone(&self.waits) }).is_ok()
    }
}

impl Drop for News {
    fn drop(&mut self) {
        self.waits.fetch_sub(self.text.len(), Ordering::Relaxed);
    }
}

/// Everybody, of one session.
pub(super) struct Audience {
    pub(super) turns: Arc<Turns>,
    /// Most sessions never have one.
    news: Mutex<Vec<Listens>>,
    calls: Mutex<Calls>,
    stream: watch::Sender<Stream>,
    /// Whether somebody reads the server's stream.
    is_followed: Mutex<bool>,
}

impl Audience {
    pub(super) fn new(turns: Arc<Turns>) -> Self {
        let stream = watch::Sender::new(Stream::Closed);
        Self { turns, news: Mutex::default(), calls: Mutex::default(), stream, is_followed: Mutex::default() }
    }

    /// Listens from now on, until nobody reads the stream any more, or what waits is too much: what came before that is read
    /// to its end.
    pub(super) fn listen(&self) -> mpsc::Receiver<News> {
        let (sender, news) = mpsc::channel(NEWS);
        let mut all = lock(&self.news);
        // A server may say nothing for as long as it lives: who left is not kept until it does.
        all.retain(|listens| !listens.news.is_closed());
        all.push(Listens { news: sender, waits: Arc::default() });
        news
    }

    /// A call is about to be sent. It is there until [`Audience::leave`].
    pub(super) fn join(&self, number: u64) -> mpsc::Receiver<Bytes> {
        let (sender, said) = mpsc::channel(BACKLOG);
        lock(&self.calls).open.insert(number, Open { stage: Stage::Coming, said: sender });
        said
    }

    /// A call is so far now.
    pub(super) fn turn(&self, number: u64, stage: Stage) {
        let mut calls = lock(&self.calls);
        let Some(call) = calls.open.get_mut(&number) else { return };
        let before = std::mem::replace(&mut call.stage, stage);
        if stage == Stage::Running && before != stage {
            self.turns.comes_in();
        }
    }

    /// A call is there no more. `is_over`: the server has answered it.
    pub(super) fn leave(&self, number: u64, is_over: bool) {
        let mut calls = lock(&self.calls);
        if let Some(call) = calls.open.remove(&number) {
            if call.stage == Stage::Running && !is_over {
                self.turns.broke_off();
            }
            calls.ended = Some(Instant::now());
        }
    }

    /// Tells those who listen. `false` if there are none. One who reads too slowly is told nothing more.
    pub(super) fn announce(&self, text: &Bytes) -> bool {
        let mut news = lock(&self.news);
        news.retain(|listens| !listens.news.is_closed());
        let is_heard = !news.is_empty();
        news.retain(|listens| listens.say(text.clone()));
        is_heard
    }

    /// Hands on one message of the listening stream. A question that nobody hears is refused with that reason.
    pub(super) fn hand(&self, message: &Message) -> Result<(), &'static str> {
        match message.kind() {
            Kind::Request => self.ask(message.bytes()),
            Kind::Notification => {
                self.tell(message);
                Ok(())
            }
            // Nobody asked anything on this stream.
            Kind::Response => Ok(()),
        }
    }

    /// Log messages, progress and what takes back a question are for calls, each of which takes its own. One that reads too
    /// slowly loses some, and no question for them.
    fn tell(&self, message: &Message) {
        if !matches!(message.method(), "notifications/message" | "notifications/progress" | "notifications/cancelled") {
            self.announce(message.bytes());
            return;
        }
        if message.bytes().len() > LONGEST {
            return;
        }
        let calls = lock(&self.calls);
        let hears = |call: &&Open| call.stage != Stage::Coming && call.said.capacity() > BACKLOG / 2;
        for call in calls.open.values().filter(hears) {
            let _ = call.said.try_send(message.bytes().clone());
        }
    }

    /// Whether a message of the listening stream is held, or is about one that is.
    pub(super) fn keep(&self, message: &Message, limits: &Limits) -> Kept {
        let calls = lock(&self.calls);
        let is_unclear = calls.open.values().filter(|call| call.stage == Stage::Running).nth(1).is_some();
        self.turns.keep(message, is_unclear, limits)
    }

    /// Puts what is held to the one call that is left.
    pub(super) fn put(&self) -> Option<Vec<Message>> {
        let calls = lock(&self.calls);
        let left = calls.open.values().filter(|call| call.stage == Stage::Running);
        self.turns.put(left, |call, question| call.said.try_send(question.bytes().clone()).is_ok())
    }

    /// Asks the client of the one call that may be meant: one that runs, before any that waits.
    fn ask(&self, question: &Bytes) -> Result<(), &'static str> {
        let calls = lock(&self.calls);
        let at = |stage: Stage| calls.open.values().filter(move |call| call.stage == stage);
        let is_running = at(Stage::Running).next().is_some();
        let mut meant = at(if is_running { Stage::Running } else { Stage::Resting });
        match (meant.next(), meant.next()) {
            (None, _) => Err("nobody can be asked outside of a call: the client has no session"),
            (Some(_), Some(_)) => Err(UNCLEAR),
            (Some(only), None) => {
                let full = "the client was asked more than it can answer at once";
                only.said.try_send(question.clone()).map_err(|_| full)
            }
        }
    }

    /// Whether anybody is there, or was until a moment ago.
    pub(super) fn is_there(&self) -> bool {
        let listens = lock(&self.news).iter().any(|listens| !listens.news.is_closed());
        let calls = lock(&self.calls);
        listens || !calls.open.is_empty() || calls.ended.is_some_and(|ended| ended.elapsed() < LINGER)
    }

    /// Whoever is told yes reads the stream, until [`Audience::may_stop`].
    pub(super) fn follow(&self) -> bool {
        let first = !std::mem::replace(&mut *lock(&self.is_followed), true);
        if first {
            self.stream.send_if_modified(|stream| turn(stream, Stream::Closed, Stream::Opening));
        }
        first
    }

    /// Whether whoever reads the stream, and has let go of it, may stop. Must it stop, it may, and those who listen learn that
    /// nobody reads it any more.
    pub(super) fn may_stop(&self, must: bool) -> bool {
        // Locked meanwhile: who comes now either is seen, or finds that nobody reads.
        let mut is_followed = lock(&self.is_followed);
        let stops = must || !self.is_there();
        if must {
            lock(&self.news).clear();
        }
        *is_followed = !stops;
        let left = if stops { Stream::Closed } else { Stream::Opening };
        self.stream.send_if_modified(|stream| turn(stream, Stream::Open, left) || turn(stream, Stream::Opening, left));
        stops
    }

    /// What became known of the stream.
    pub(super) fn note(&self, stream: Stream) {
        self.stream.send_replace(stream);
    }

    pub(super) fn has_no_stream(&self) -> bool {
        matches!(*self.stream.borrow(), Stream::Absent | Stream::Renounced)
    }

    /// Whether a ping tells a session that is gone from a stream that is not there.
    pub(super) fn knows_pings(&self) -> bool {
        *self.stream.borrow() != Stream::Renounced
    }

    /// Waits until the stream is open, or is not worth it any more: only the first who waits does so in vain.
    pub(super) async fn opened(&self, patience: Duration) {
        let mut stream = self.stream.subscribe();
        if tokio::time::timeout(patience, stream.wait_for(|stream| *stream != Stream::Opening)).await.is_err() {
            self.stream.send_if_modified(|stream| turn(stream, Stream::Opening, Stream::Late));
        }
    }
}

fn turn(stream: &mut Stream, from: Stream, to: Stream) -> bool {
    let turns = *stream == from;
    if turns {
        *stream = to;
    }
    turns
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Audience, BACKLOG, BYTES, NEWS, Stage, lock};
    use crate::upstream::{exchange, turn::Turns};
    use bytes::Bytes;
    use mcp::{Limits, Message};
    use std::sync::Arc;

    fn message(text: &'static str) -> Message {
        exchange::one(Bytes::from_static(text.as_bytes()), &Limits::default()).unwrap()
    }

    fn audience() -> Audience {
        Audience::new(Arc::new(Turns::new(&Arc::default())))
    }

    #[test]
    fn what_is_logged_takes_no_question_its_place() {
        let audience = audience();
        let logged =
            message(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#);
        let question = message(r#"{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{}}"#);
        let mut said = audience.join(1);
        audience.turn(1, Stage::Running);
        for _ in 0..2 * BACKLOG {
            audience.hand(&logged).unwrap();
        }
        audience.hand(&question).unwrap();
        assert_eq!(said.len(), BACKLOG / 2 + 1);
        while said.len() > 1 {
            assert_eq!(said.try_recv().unwrap(), logged.bytes());
        }
        assert_eq!(said.try_recv().unwrap(), question.bytes());
    }

    #[test]
    fn what_waits_for_a_listener_is_bounded_and_one_that_is_slow_costs_no_other() {
        for (length, expected) in [(1, NEWS), (BYTES / 4, 4), (BYTES / 4 + 1, 3), (16 * BYTES, 1)] {
            let audience = audience();
            let text: Bytes = vec![b'x'; length].into();
            let (mut slow, mut quick) = (audience.listen(), audience.listen());
            for _ in 0..2 * NEWS {
                assert!(audience.announce(&text));
                // What was read makes room.
                assert_eq!(quick.try_recv().unwrap().text, text);
            }
            let mut waited = 0;
            while slow.try_recv().is_ok() {
                waited += 1;
            }
            assert_eq!((waited, slow.is_closed()), (expected, true), "{length}");
            assert!(audience.is_there() && !quick.is_closed());
            drop(quick);
            assert!(!audience.announce(&text), "nobody listens");
        }
    }

    #[test]
    fn who_listened_and_left_is_not_kept_until_the_server_says_something() {
        let audience = audience();
        let stays = audience.listen();
        (0..1000).for_each(|_| drop(audience.listen()));
        assert_eq!(lock(&audience.news).len(), 2, "one who is there, and the last who left");
        assert!(!stays.is_closed());
    }

    #[test]
    fn a_question_is_never_put_to_a_call_that_was_not_sent_yet() {
        let audience = audience();
        let question = Bytes::from_static(b"?");
        let mut said = audience.join(1);
        assert!(audience.is_there());
        assert!(audience.ask(&question).is_err());
        audience.turn(1, Stage::Running);
        let mut other = audience.join(2);
        assert_eq!(audience.ask(&question), Ok(()));
        audience.turn(1, Stage::Resting);
        assert_eq!(audience.ask(&question), Ok(()), "the one that waits is the only one that the server knows");
        audience.leave(1, true);
        assert!(audience.ask(&question).is_err());
        assert_eq!((said.try_recv().ok(), said.try_recv().ok()), (Some(question.clone()), Some(question)));
        assert!(other.try_recv().is_err());
    }
}
