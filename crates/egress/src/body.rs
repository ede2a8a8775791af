//! The body of an answer, streamed. Gives its connection back at the end, closes it when dropped before.

use crate::{Broken, http2::Room, pool::Lease};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

/// The body of an answer, frame by frame as it arrives.
///
/// Dropping it early closes the connection, or the stream on a shared one, which tells the server that nobody waits.
#[derive(Debug)]
pub struct Body(Way);

#[derive(Debug)]
enum Way {
    /// A connection of its own, HTTP/1.1.
    Own { incoming: Incoming, lease: Option<Lease> },
    /// A stream of a shared connection, HTTP/2.
    Shared { stream: h2::RecvStream, room: Option<Room> },
}

impl Body {
    pub(crate) fn new(incoming: Incoming, lease: Option<Lease>) -> Self {
        let mut way = Way::Own { incoming, lease };
        way.park_at_end();
        Self(way)
    }

    pub(crate) fn shared(stream: h2::RecvStream, room: Room) -> Self {
        Self(Way::Shared { stream, room: Some(room) })
    }
}

impl Way {
    fn park_at_end(&mut self) {
        match self {
            Self::Own { incoming, .. } if incoming.is_end_stream() => self.park(),
            Self::Shared { stream, .. } if stream.is_end_stream() => self.park(),
            Self::Own { .. } | Self::Shared { .. } => {}
        }
    }

    fn park(&mut self) {
        match self {
            Self::Own { lease, .. } => {
                if let Some(lease) = lease.take() {
                    lease.park();
                }
            }
            Self::Shared { room, .. } => *room = None,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self {
            Self::Own { incoming, .. } => {
                Pin::new(incoming).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(Broken::One)))
            }
            Self::Shared { stream, .. } => {
                let data = ready!(stream.poll_data(context));
                Poll::Ready(data.map(|data| {
                    let data = data.map_err(Broken::Two)?;
                    stream.flow_control().release_capacity(data.len()).map_err(Broken::Two)?;
                    Ok(Frame::data(data))
                }))
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = ready!(self.0.poll(context));
        match &frame {
            Some(Ok(_)) => self.0.park_at_end(),
            None => self.0.park(),
            Some(Err(_)) => match &mut self.0 {
                Way::Own { lease, .. } => *lease = None,
                Way::Shared { room, .. } => *room = None,
            },
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Way::Own { incoming, .. } => incoming.is_end_stream(),
            Way::Shared { stream, .. } => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Way::Own { incoming, .. } => incoming.size_hint(),
            Way::Shared { .. } => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lease")
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Room")
    }
}
