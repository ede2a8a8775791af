//! A connection whose other end must read: what is written to it moves on in time, or it ends.

use super::{
    lasting::Leaving,
    tally::{Ended, Tally},
};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// A connection that waits so long and no longer for whoever reads it.
pub(super) struct Patient<S> {
    stream: S,
    patience: Duration,
    tally: Arc<Tally>,
    /// Learns whether all that was written has gone.
    leaving: Arc<Leaving>,
    /// Since nothing moves. On the heap: most connections never wait.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) const fn new(stream: S, patience: Duration, tally: Arc<Tally>, leaving: Arc<Leaving>) -> Self {
        Self { stream, patience, tally, leaving, waiting: None }
    }

    /// What became of a write, or the end of patience.
    fn moved<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        if waiting.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.tally.count(Ended::StalledConnection);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.leaving.flushed(false);
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.moved(written, context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        // hyper flushes what is below it when its own buffer is empty, and at no other time unless `pipeline_flush` is set.
        this.leaving.flushed(matches!(flushed, Poll::Ready(Ok(()))));
        this.moved(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(context);
        this.moved(shut, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.leaving.flushed(false);
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.moved(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
