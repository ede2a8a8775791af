//! What a server says in the course of a request and its client has not read: bounded for each request, and for all of them
//! together. The answer always has its place.

use crate::upstream::UpstreamFault;
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::mpsc;

/// Messages that wait for one client.
const MESSAGES: usize = 256;
/// Bytes of them, unless one alone is longer.
const BYTES: usize = 1 << 20;
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

/// Where the server's words go in.
pub(super) struct Speaker {
    messages: mpsc::Sender<Said>,
    own: Arc<AtomicUsize>,
    all: Arc<Backlogs>,
}

/// A backlog for one request, and where its client reads it.
pub(super) fn backlog(all: &Arc<Backlogs>) -> (Speaker, mpsc::Receiver<Said>) {
    let (messages, reads) = mpsc::channel(MESSAGES);
    (Speaker { messages, own: Arc::default(), all: Arc::clone(all) }, reads)
}

impl Speaker {
    /// Hands over a message. A client that is gone has dropped its end, and one that reads too slowly loses what it did
    /// not read rather than holding up everybody else on the pipe.
    pub(super) fn say(&self, text: Bytes) -> bool {
        // One place is the answer's.
        if self.messages.capacity() <= 1 || !self.has_room(text.len()) {
            return false;
        }
        let held = Some(Held::new(self, text.len()));
        self.messages.try_send(Said { text: Ok(text), last: false, _held: held }).is_ok()
    }

    /// Hands over the response, or why there is none. For that there is always room. `false` if the client is gone.
    pub(super) fn end(self, text: Result<Bytes, UpstreamFault>) -> bool {
        self.messages.try_send(Said { text, last: true, _held: None }).is_ok()
    }

    /// Whether the client could hear something if it had room for it.
    pub(super) fn is_there(&self) -> bool {
        !self.messages.is_closed()
    }

    fn has_room(&self, bytes: usize) -> bool {
        let own = self.own.load(Ordering::Relaxed);
        if self.all.0.load(Ordering::Relaxed) + bytes > ALL {
            return own + bytes <= SHARE;
        }
        own == 0 || own + bytes <= BYTES
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

    fn text(length: usize) -> Bytes {
        vec![b'x'; length].into()
    }

    fn said(speaker: &Speaker, length: usize) -> usize {
        (0..1000).take_while(|_| speaker.say(text(length))).count()
    }

    #[tokio::test]
    async fn what_waits_for_one_client_is_bounded_and_the_answer_comes_all_the_same() {
        let all = Arc::default();
        for (length, expected) in [(1, MESSAGES - 1), (BYTES / 4, 4), (BYTES / 4 + 1, 3), (16 * BYTES, 1)] {
            let (speaker, mut reads) = backlog(&all);
            assert_eq!(said(&speaker, length), expected);
            // What was read makes room.
            assert!(reads.recv().await.is_some_and(|said| !said.last));
            assert!(speaker.say(text(length)) && !speaker.say(text(length)));
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
        let hoarders: Vec<_> = (0..100).map(|_| backlog(&all)).collect();
        let kept: usize = hoarders.iter().map(|(speaker, _)| said(speaker, BYTES / 2)).sum();
        assert_eq!(kept * BYTES / 2, ALL);
        let (speaker, mut reads) = backlog(&all);
        assert!(!speaker.say(text(SHARE + 1)));
        for _ in 0..10 {
            assert!(speaker.say(text(SHARE)) && !speaker.say(text(1)));
            assert!(reads.recv().await.is_some());
        }
        // A client that leaves takes along what it did not read.
        drop(hoarders);
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
        assert!(speaker.say(text(16 * BYTES)));
    }
}
