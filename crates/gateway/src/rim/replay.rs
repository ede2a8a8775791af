//! Looks at the first bytes of a connection, and gives them back to whoever reads it.

use bytes::{Buf, Bytes};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 says first (RFC 9113, 3.4). No request of HTTP/1 begins so.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// HTTP/1.1 or 1.0
    One,
    /// HTTP/2
    Two,
}

/// A connection of which something was read already.
#[derive(Debug)]
pub(super) struct Replay<S> {
    head: Bytes,
    stream: S,
}

/// Reads until it is sure which HTTP it is. That needs one read unless the client sends byte by byte.
pub(super) async fn version<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(Version, Replay<S>)> {
    let mut bytes = [0; PREFACE.len()];
    let mut filled = 0;
    let version = loop {
        let read = stream.read(bytes.get_mut(filled..).unwrap_or_default()).await?;
        filled += read;
        if read == 0 || !PREFACE.starts_with(bytes.get(..filled).unwrap_or_default()) {
            break Version::One;
        }
        if filled == PREFACE.len() {
            break Version::Two;
        }
    };
    let head = Bytes::copy_from_slice(bytes.get(..filled).unwrap_or_default());
    Ok((version, Replay { head, stream }))
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.head.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let count = this.head.len().min(buffer.remaining());
        buffer.put_slice(this.head.get(..count).unwrap_or_default());
        this.head.advance(count);
        if buffer.remaining() > 0 {
            // What is there already comes in one piece: whoever reads needs no second buffer for it. A stream that is
            // broken says so again when nothing else is left to give.
            let _ = Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::{PREFACE, Version, version};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_came_at_once_is_read_at_once() {
        let said = b"GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(said).await.unwrap();
        let (_, mut stream) = version(server).await.unwrap();
        let mut buffer = [0; 1024];
        assert_eq!(stream.read(&mut buffer).await.unwrap(), said.len());
    }

    #[tokio::test]
    async fn the_first_bytes_tell_the_version_and_are_read_again() {
        let whole = [&PREFACE[..], b"more"].concat();
        for (said, expected) in [
            (&whole[..], Version::Two),
            (b"POST /mcp HTTP/1.1\r\n\r\n", Version::One),
            (b"PRI * HTTP/1.1\r\n\r\n", Version::One),
            (b"PRI", Version::One),
            (b"", Version::One),
            (b"\x16\x03\x01", Version::One),
        ] {
            // Byte by byte: no read may decide too early, and none may lose what was read.
            for step in [1, 7, 64] {
                let (mut client, server) = tokio::io::duplex(step);
                let bytes = said.to_vec();
                let saying = tokio::spawn(async move { client.write_all(&bytes).await });
                let (found, mut stream) = version(server).await.unwrap();
                let mut read = Vec::new();
                stream.read_to_end(&mut read).await.unwrap();
                saying.await.unwrap().unwrap();
                assert_eq!((found, &read[..]), (expected, said), "in steps of {step}");
            }
        }
    }
}
