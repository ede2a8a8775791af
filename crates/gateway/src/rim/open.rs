//! Answers of a connection of HTTP/2 that are not sent to the end, and how long each waits for its client.
//!
//! In HTTP/2 a client says how much it will take, of each answer and of all. One that says nothing keeps what was made
//! for it, for as long as the connection lives: pings are answered all the same. So each answer is handed over in
//! pieces, and one of which no piece moves for too long is ended.

use crate::reply::{Reply, Sending};
use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

/// Bytes of an answer that are handed over at one time.
pub(super) const PIECE: usize = 16 << 10;
/// Answers that are remembered before those that are over are forgotten.
const REMEMBERED: usize = 256;

tokio::task_local! {
    /// The answer that the task of a stream makes.
    static OWN: Arc<Answer>;
}

/// Requests of a connection that are not answered to the end.
pub(super) struct Open {
    count: AtomicUsize,
    changed: Notify,
    began: Instant,
    answers: Mutex<Vec<(Weak<Answer>, AbortHandle)>>,
}

impl Open {
    pub(super) fn begin() -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            changed: Notify::new(),
            began: Instant::now(),
            answers: Mutex::default(),
        })
    }

    /// Waits until there was no request for so long, at first and then after the last one.
    pub(super) async fn quiet(&self, first: Duration, then: Duration) {
        let mut patience = first;
        loop {
            if self.count.load(Ordering::Acquire) > 0 {
                self.changed.notified().await;
                patience = then;
            } else if timeout(patience, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Ends answers that have not moved for so long, and says `each` time how many. Comes back when the connection must
    /// end for one: all of it was handed over, and nothing but the end of the connection takes it back.
    pub(super) async fn stuck(&self, patience: Duration, each: impl Fn(usize)) {
        loop {
            sleep(patience / 4).await;
            let mut ended = 0;
            let mut is_stuck = false;
            self.answers.lock().unwrap_or_else(PoisonError::into_inner).retain(|(answer, task)| {
                let Some(answer) = answer.upgrade() else { return false };
                if answer.waits() > patience {
                    is_stuck |= task.is_finished();
                    // Its stream is reset as its task lets go of it.
                    task.abort();
                    ended += 1;
                }
                true
            });
            if ended > 0 {
                each(ended);
            }
            if is_stuck {
                return;
            }
        }
    }

    /// Milliseconds since the connection began, and one: zero means something else.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// Runs the streams of a connection, each on a task of its own.
#[derive(Clone)]
pub(super) struct Streams(pub(super) Arc<Open>);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let answer = Answer::begin(&self.0);
        let known = Arc::downgrade(&answer);
        let task = tokio::spawn(OWN.scope(answer, stream)).abort_handle();
        let mut answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= REMEMBERED {
            answers.retain(|(answer, _)| answer.strong_count() > 0);
        }
        answers.push((known, task));
    }
}

/// One answer, from the arrival of its request until the last of it was sent.
struct Answer {
    open: Arc<Open>,
    /// Pieces that were handed over and not sent.
    out: AtomicUsize,
    /// When one of them moved last.
    moved: AtomicU64,
    /// Wakes whoever waits for all of them to be sent.
    sent: AtomicWaker,
}

impl Answer {
    fn begin(open: &Arc<Open>) -> Arc<Self> {
        open.count.fetch_add(1, Ordering::AcqRel);
        open.changed.notify_one();
        Arc::new(Self {
            open: Arc::clone(open),
            out: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            sent: AtomicWaker::new(),
        })
    }

    /// How long it has waited for its client.
    fn waits(&self) -> Duration {
        if self.out.load(Ordering::Acquire) == 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(self.open.now().saturating_sub(self.moved.load(Ordering::Acquire)))
    }

    fn moves(&self) {
        self.moved.store(self.open.now(), Ordering::Release);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::AcqRel);
        self.open.changed.notify_one();
    }
}

/// The answer as it is sent.
pub(super) fn answering(reply: Reply<Sending>) -> Reply<Answering> {
    reply.map(|body| {
        let is_small = body.whole().is_some_and(|bytes| bytes <= PIECE);
        Answering { body, is_small, rest: Bytes::new(), answer: OWN.try_with(Arc::clone).ok() }
    })
}

/// Its body.
pub(super) struct Answering {
    body: Sending,
    /// It is one piece.
    is_small: bool,
    /// What was taken of the body and not handed over.
    rest: Bytes,
    answer: Option<Arc<Answer>>,
}

impl Answering {
    /// Whether a piece was handed over and is not sent. Whoever asks is woken when all are.
    fn is_out(&self, context: &Context<'_>) -> bool {
        let Some(answer) = &self.answer else { return false };
        answer.sent.register(context.waker());
        answer.out.load(Ordering::Acquire) > 0
    }
}

impl Body for Answering {
    type Data = Piece;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Infallible>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            this.rest = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                // Whoever handed over the last piece keeps its stream until that was sent: only so can it be ended.
                Poll::Ready(None) if this.is_out(context) => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
            };
        }
        let next = this.rest.split_to(PIECE.min(this.rest.len()));
        Poll::Ready(Some(Ok(Frame::data(Piece::of(next, this.answer.clone())))))
    }

    /// An answer of one small piece ends with it: what is left of one costs no more than what a client may send unread.
    fn is_end_stream(&self) -> bool {
        self.is_small && self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of an answer on its way.
pub(super) struct Piece {
    bytes: Bytes,
    answer: Option<Arc<Answer>>,
}

impl Piece {
    fn of(bytes: Bytes, answer: Option<Arc<Answer>>) -> Self {
        if let Some(answer) = &answer {
            answer.moves();
            answer.out.fetch_add(1, Ordering::AcqRel);
        }
        Self { bytes, answer }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(answer) = &self.answer {
            answer.moves();
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(answer) = &self.answer
            && answer.out.fetch_sub(1, Ordering::AcqRel) == 1
        {
            answer.sent.wake();
        }
    }
}
