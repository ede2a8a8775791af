//! Whose turn it is on a connection of HTTP/1, and how long the client may take for its own: from the first moment, and from
//! the end of each answer, until the head of a request is there.
//!
//! hyper would make a timer for each head and throw it away. Here a connection has one, which moves on when it has run out.

use crate::reply::Sending;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// Requests of one connection, which are counted where it is served, by one task.
#[derive(Default)]
pub(super) struct Requests {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Requests {
    /// The head of one is there.
    pub(super) fn begin(self: &Arc<Self>) -> Served {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Served(Arc::clone(self))
    }
}

/// One request, until the last of its answer is handed over.
pub(super) struct Served(Arc<Requests>);

impl Served {
    /// Its answer, with which it is over.
    pub(super) const fn by(self, body: Sending) -> Serving {
        Serving { body, _request: self }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// The body of an answer.
pub(super) struct Serving {
    body: Sending,
    _request: Served,
}

impl Body for Serving {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The time that a client has for its turn.
pub(super) struct Turn {
    requests: Arc<Requests>,
    patience: Duration,
    /// The requests before it.
    after: usize,
    /// Its end.
    until: Instant,
    /// Runs until then, or until the end of an earlier turn. On the heap, as a connection that waits is moved about.
    timer: Pin<Box<Sleep>>,
}

impl Turn {
    /// The first one of a connection.
    pub(super) fn first(requests: &Arc<Requests>, patience: Duration) -> Self {
        let until = Instant::now() + patience;
        Self { requests: Arc::clone(requests), patience, after: 0, until, timer: Box::pin(sleep_until(until)) }
    }

    /// Whether the client has let its turn go by. To be asked after the connection, whenever that was: it has taken what
    /// there is of a request by then, and sent what it could of an answer. A turn begins when all of that `is_sent`, and
    /// stands still while something is not: hyper itself answers what is no request.
    pub(super) fn poll_over(&mut self, is_sent: bool, context: &mut Context<'_>) -> Poll<()> {
        let begun = self.requests.begun.load(Ordering::Relaxed);
        let is_next = begun != self.after;
        if self.requests.ended.load(Ordering::Relaxed) != begun || !is_sent {
            return Poll::Pending;
        }
        if is_next {
            self.after = begun;
            self.until = Instant::now() + self.patience;
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            if self.timer.deadline() >= self.until {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.until);
        }
    }
}
