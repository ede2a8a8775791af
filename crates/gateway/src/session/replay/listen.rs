//! The stream on which a session hears what servers say unasked. It is written whether its client is there or on its
//! way back, and judged where it is read.

use super::{Event, Place, Reader, Session, lock};
use crate::{origin::Origin, upstream::exchange};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use vocab::ServerName;

/// How long a client whose stream was cut is expected back: as long servers are followed for it.
const BACK: Duration = Duration::from_mins(1);
/// Messages that wait for a client that reads slowly.
const BACKLOG: u64 = 256;

/// The stream that listens.
pub(super) struct Listening {
    pub(super) stream: u64,
    /// The number of the last event that was given to its reader.
    pub(super) read: u64,
    /// The number of the last event that was ever given to one.
    pub(super) furthest: u64,
    /// When its client left.
    pub(super) left: Option<Instant>,
}

impl Listening {
    fn is_over(&self) -> bool {
        self.left.is_some_and(|left| left.elapsed() > BACK)
    }
}

impl Session {
    /// Listens to what servers say unasked, from now on or from the place where a stream was cut. A newer stream replaces
    /// an older one.
    pub(crate) fn listen(self: &Arc<Self>, from: Option<Place>) -> Reader {
        let mut kept = lock(&self.replay.kept);
        let place = from.unwrap_or_else(|| Place { stream: kept.begin(None), after: 0 });
        let current = kept.listening.as_ref().map(|listening| (listening.stream, listening.left.is_none()));
        // What was cut and replaced by another stream since is read to its end, and heard no more.
        let is_replaced = from.is_some() && current.is_some_and(|(stream, heard)| stream != place.stream && heard);
        let known = kept.listening.as_ref().filter(|listening| listening.stream == place.stream);
        let known = known.map(|listening| listening.furthest);
        // Of a stream that another one replaced nobody knows any more how far it was read: all the way, for what is asked
        // once must not be asked twice.
        let furthest = known.or_else(|| kept.stream(place.stream).map(|stream| stream.last)).unwrap_or_default();
        if !is_replaced {
            if let Some((before, _)) = current.filter(|(stream, _)| *stream != place.stream)
                && let Some(before) = kept.stream(before)
            {
                before.over = true;
            }
            kept.listening = Some(Listening { stream: place.stream, read: place.after, furthest, left: None });
        }
        let mut turn = 0;
        if let Some(stream) = kept.stream(place.stream) {
            stream.turn += 1;
            turn = stream.turn;
            stream.over &= is_replaced;
        }
        drop(kept);
        self.replay.changed.notify_waiters();
        Reader::new(self, place, turn, false, from.is_some()).read_before(furthest)
    }

    /// Says something on the stream that listens: of a server, or of the gateway's own. `false` if nobody listens or the
    /// listener is too slow.
    pub(crate) fn say(&self, server: Option<ServerName>, origin: Option<Origin>, message: &Bytes) -> bool {
        let mut kept = lock(&self.replay.kept);
        let Some(Listening { stream, read, left, .. }) = kept.listening else { return false };
        match left {
            Some(_) if !is_notification(message) || kept.listening.as_ref().is_some_and(Listening::is_over) => {
                return false;
            }
            Some(_) => {}
            None => {
                let unread = kept.events.iter().filter(|event| event.stream == stream && event.number > read);
                let (count, bytes) = unread.fold((0, 0), |(count, bytes), event| (count + 1, bytes + event.text.len()));
                // What nobody has read yet does not leave for what is new.
                let is_hoard = count > 0 && kept.pot.is_hoarded(message.len());
                if count >= BACKLOG || bytes > super::BYTES || is_hoard {
                    return false;
                }
            }
        }
        let Some(known) = kept.stream(stream) else { return false };
        known.last += 1;
        let number = known.last;
        let text = mcp::sse::encode(message, Some(&Place { stream, after: number }.id()));
        kept.push(Event { stream, number, server, origin, text });
        drop(kept);
        self.replay.changed.notify_waiters();
        true
    }

    /// Whether anybody listens, or is expected back.
    pub fn is_heard(&self) -> bool {
        lock(&self.replay.kept).listening.as_ref().is_some_and(|listening| !listening.is_over())
    }

    /// Whether somebody who listens is there at this moment: what is lost is lost for reading slowly.
    pub(crate) fn is_read(&self) -> bool {
        lock(&self.replay.kept).listening.as_ref().is_some_and(|listening| listening.left.is_none())
    }

    /// The reader of a stream lets go. Where it knows no place to come back to, nobody is waited for.
    pub(super) fn let_go(&self, stream: u64, turn: u64, knows_place: bool) {
        let mut kept = lock(&self.replay.kept);
        let is_last = kept.stream(stream).is_some_and(|known| known.turn == turn);
        match &mut kept.listening {
            Some(listening) if listening.stream == stream && is_last => {
                if knows_place {
                    listening.left = Some(Instant::now());
                } else {
                    kept.listening = None;
                }
            }
            Some(_) | None => {}
        }
    }
}

/// Whether nobody has to answer it. Who is not there cannot, and the server is told so at once.
fn is_notification(message: &Bytes) -> bool {
    exchange::one(message.clone(), &mcp::Limits::default())
        .is_ok_and(|message| message.kind() == mcp::Kind::Notification)
}
