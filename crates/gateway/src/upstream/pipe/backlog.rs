//! What a server says in the course of a request and its client has not read: bounded for each request, and for all of them
//! together. The answer always has its place, and a question has room where progress has none any more.

use super::patience::Patience;
use crate::upstream::UpstreamFault;
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::mpsc;

/// Bytes that wait for one client, unless one message alone is longer.
const BYTES: usize = 1 << 20;
/// What a message costs besides its text, about.
const OVERHEAD: usize = 256;
/// Bytes that wait for the clients of all requests together.
const ALL: usize = 64 << 20;
/// Beyond that each request has room for so many: who reads misses little because of others who do not.
const SHARE: usize = 64 << 10;

/// The bytes that wait for the clients of all requests.
#[derive(Debug, Default)]
pub(crate) struct Backlogs(AtomicUsize);

/// One message for a request under way.
pub(super) struct Said {
    /// The message, or why none comes.
    pub(super) text: Result<Bytes, UpstreamFault>,
    /// It is the response, or there will be none: nothing follows.
    pub(super) last: bool,
    /// Counted until it is read.
    _held: Option<Held>,
}

/// What is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// What its client can do without.
    News,
    /// What the server waits for an answer to: there is twice as much room for it.
    Question,
}

/// Why something was not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsaid {
    /// There may be room for it in a moment.
    Yet,
    /// There is none.
    Lost,
    /// The client is gone.
    Gone,
}

/// Where the server's words go in.
pub(super) struct Speaker {
    messages: mpsc::UnboundedSender<Said>,
    own: Arc<AtomicUsize>,
    all: Arc<Backlogs>,
    patience: Patience,
}

/// A backlog for one request, and where its client reads it.
pub(super) fn backlog(all: &Arc<Backlogs>) -> (Speaker, mpsc::UnboundedReceiver<Said>) {
    // INVARIANT: what waits in it is bounded in bytes, and each message counts some.
    let (messages, reads) = mpsc::unbounded_channel();
    (Speaker { messages, own: Arc::default(), all: Arc::clone(all), patience: Patience::default() }, reads)
}

impl Speaker {
    /// Hands over a message. A client that is gone has dropped its end. One that reads is waited for a little, and one that
    /// does not loses what it did not read rather than holding up everybody else on the pipe. `is_alone`: nobody else is.
    pub(super) fn say(&mut self, text: Bytes, weight: Weight, is_alone: bool) -> Result<(), Unsaid> {
        if self.messages.is_closed() {
            return Err(Unsaid::Gone);
        }
        let bytes = text.len() + OVERHEAD;
        if !self.has_room(bytes, weight) {
            return Err(if self.patience.is_left() { Unsaid::Yet } else { Unsaid::Lost });
        }
        self.patience.taken(is_alone);
        let held = Some(Held::new(self, bytes));
        self.messages.send(Said { text: Ok(text), last: false, _held: held }).map_err(|_| Unsaid::Gone)
    }

    /// Hands over the response, or why there is none. For that there is always room. `false` if the client is gone.
    pub(super) fn end(self, text: Result<Bytes, UpstreamFault>) -> bool {
        self.messages.send(Said { text, last: true, _held: None }).is_ok()
    }

    fn has_room(&self, bytes: usize, weight: Weight) -> bool {
        let own = self.own.load(Ordering::Relaxed);
        let times = match weight {
            Weight::News => 1,
            Weight::Question => 2,
        };
        if self.all.0.load(Ordering::Relaxed) + bytes > ALL {
            return own + bytes <= times * SHARE;
        }
        own == 0 || own + bytes <= times * BYTES
    }
}

/// The bytes of one message. Dropped when it is read, or is not to be read any more.
struct Held {
    bytes: usize,
    own: Arc<AtomicUsize>,
    all: Arc<Backlogs>,
}

impl Held {
    fn new(speaker: &Speaker, bytes: usize) -> Self {
        speaker.own.fetch_add(bytes, Ordering::Relaxed);
        speaker.all.0.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, own: Arc::clone(&speaker.own), all: Arc::clone(&speaker.all) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.own.fetch_sub(self.bytes, Ordering::Relaxed);
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A message that counts so many bytes.
    fn text(length: usize) -> Bytes {
        vec![b'x'; length - OVERHEAD].into()
    }

    fn say(speaker: &mut Speaker, length: usize) -> Result<(), Unsaid> {
        speaker.say(text(length), Weight::News, true)
    }

    fn said(speaker: &mut Speaker, length: usize) -> usize {
        (0..10_000).take_while(|_| say(speaker, length).is_ok()).count()
    }

    #[tokio::test]
    async fn what_waits_for_one_client_is_bounded_and_the_answer_comes_all_the_same() {
        let all = Arc::default();
        let small = BYTES / OVERHEAD;
        for (length, expected) in [(OVERHEAD, small), (BYTES / 4, 4), (BYTES / 4 + 1, 3), (16 * BYTES, 1)] {
            let (mut speaker, mut reads) = backlog(&all);
            assert_eq!(said(&mut speaker, length), expected);
            // What was read makes room.
            assert!(reads.recv().await.is_some_and(|said| !said.last));
            assert!(say(&mut speaker, length).is_ok() && say(&mut speaker, length).is_err());
            assert!(speaker.end(Ok(text(BYTES))));
            let mut lasts = Vec::new();
            while let Some(said) = reads.recv().await {
                lasts.push(said.last);
            }
            assert_eq!((lasts.len(), lasts.last()), (expected + 1, Some(&true)), "{length}");
            assert_eq!(all.0.load(Ordering::Relaxed), 0);
        }
    }

    #[tokio::test]
    async fn what_waits_for_all_is_bounded_and_nobody_loses_a_little_because_of_others() {
        let all = Arc::default();
        let mut hoarders: Vec<_> = (0..100).map(|_| backlog(&all)).collect();
        let kept: usize = hoarders.iter_mut().map(|(speaker, _)| said(speaker, BYTES / 2)).sum();
        assert_eq!(kept * BYTES / 2, ALL);
        let (mut speaker, mut reads) = backlog(&all);
        assert!(say(&mut speaker, SHARE + 1).is_err());
        for _ in 0..10 {
            assert!(say(&mut speaker, SHARE).is_ok() && say(&mut speaker, OVERHEAD).is_err());
            assert!(reads.recv().await.is_some());
        }
        // A client that leaves takes along what it did not read.
        drop(hoarders);
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
        assert!(say(&mut speaker, 16 * BYTES).is_ok());
    }

    #[tokio::test]
    async fn whoever_does_not_read_is_waited_for_once_and_asked_all_the_same() {
        let (mut speaker, reads) = backlog(&Arc::default());
        said(&mut speaker, BYTES / 4);
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            assert!(say(&mut speaker, BYTES / 4).is_err());
        }
        assert_eq!(say(&mut speaker, BYTES / 4), Err(Unsaid::Lost));
        let question = |speaker: &mut Speaker| speaker.say(text(BYTES / 4), Weight::Question, true);
        for _ in 0..4 {
            assert_eq!(question(&mut speaker), Ok(()));
        }
        assert!(question(&mut speaker).is_err(), "that is bounded, too");
        drop(reads);
        assert_eq!(question(&mut speaker), Err(Unsaid::Gone));
    }
}
