//! What goes back to the client: a whole body or a stream of events.

use crate::absent::Here;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// An HTTP answer.
pub type Reply<B = ReplyBody> = http::Response<B>;

/// Its body.
pub enum ReplyBody {
    /// All of it at once; `None` when it has been taken.
    Whole(Option<Bytes>),
    /// Piece by piece. Dropping it tells the other end that the client is gone.
    Stream(mpsc::Receiver<Bytes>),
}

impl ReplyBody {
    /// No body.
    pub const fn empty() -> Self {
        Self::Whole(None)
    }
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::empty() } else { Self::Whole(Some(bytes)) }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(pieces) => pieces.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A body on its way to a client, which is there until this is dropped.
pub(crate) struct Sending {
    body: ReplyBody,
    _here: Here,
}

impl Sending {
    pub(crate) const fn new(body: ReplyBody, here: Here) -> Self {
        Self { body, _here: here }
    }

    /// All of it, if it is there at once.
    pub(crate) fn whole(&self) -> Option<usize> {
        match &self.body {
            ReplyBody::Whole(bytes) => Some(bytes.as_ref().map_or(0, Bytes::len)),
            ReplyBody::Stream(_) => None,
        }
    }
}

impl Body for Sending {
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
