//! What a server says first on a connection without TLS: an alert of TLS tells that the port wants it. Changes nothing
//! of what is said.

use crate::EgressFault;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How an alert of TLS begins, by which a server answers whoever does not speak it. No HTTP begins so.
const ALERT: u8 = 0x15;

/// Whether the server answered in TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct InTls(Arc<AtomicBool>);

impl InTls {
    /// Why there is no answer, where that is the reason.
    pub(crate) fn or(&self, fault: EgressFault, host: &str) -> EgressFault {
        if self.0.load(Ordering::Acquire) { EgressFault::InTls { host: host.to_owned() } } else { fault }
    }
}

/// A connection whose first byte is looked at.
pub(crate) struct First<S> {
    stream: S,
    is_heard: bool,
    in_tls: InTls,
}

impl<S> First<S> {
    pub(crate) fn of(stream: S, in_tls: &InTls) -> Self {
        Self { stream, is_heard: false, in_tls: in_tls.clone() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for First<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        if !self.is_heard
            && let Some(first) = into.filled().get(before)
        {
            self.is_heard = true;
            self.in_tls.0.store(*first == ALERT, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for First<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, text: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, text)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        texts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, texts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
