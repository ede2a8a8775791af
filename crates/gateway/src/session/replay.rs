//! What was said on the streams of a session, kept for a client that comes back for the rest of one.
//!
//! SPEC: basic/transports, "Resumability and Redelivery": ids are unique in the session, and only messages of the stream
//! that was cut are given again. Judges nothing: whoever reads judges each message by the rights of that moment.

mod call;
mod listen;
mod reader;

pub(crate) use call::{About, Keeper, Watch};
pub(crate) use reader::Reader;

use super::{Session, lock};
use crate::{call::Call, origin::Origin};
use bytes::Bytes;
use http::HeaderValue;
use listen::Listening;
use mcp::Revision;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;
use vocab::ServerName;

/// Events that a session keeps. The oldest leave first.
const EVENTS: usize = 512;
/// Bytes that a session keeps, besides its newest event.
const BYTES: usize = 1 << 20;
/// Bytes that all sessions of a principal keep together: an answer as large as answers may be, and a little more.
const OWNER_BYTES: usize = 20 << 20;
/// Bytes that all sessions keep together.
const ALL_BYTES: usize = 128 << 20;
/// Streams of which a session knows what they were.
const STREAMS: usize = 64;
/// What an event costs besides its text, about.
const OVERHEAD: usize = 128;

/// What a session keeps.
pub(super) struct Replay {
    kept: Mutex<Kept>,
    /// Something was said, or a stream is over, or somebody else reads it.
    changed: Notify,
}

struct Kept {
    streams: VecDeque<Stream>,
    events: VecDeque<Event>,
    bytes: usize,
    pot: Pot,
    last_stream: u64,
    listening: Option<Listening>,
}

/// What is kept beside a session's own.
pub(super) struct Pot {
    /// Bytes of all sessions.
    pub(super) all: Arc<AtomicUsize>,
    /// Bytes of all sessions of the principal: what one hoards is not taken from the others.
    pub(super) owners: Arc<AtomicUsize>,
}

/// One stream.
struct Stream {
    number: u64,
    /// The call that it answers. None: it is one that listens.
    about: Option<Arc<About>>,
    /// The number of its last event.
    last: u64,
    /// The number of the event with the answer.
    answer: Option<u64>,
    /// Who reads it: the first client, or whoever resumed it last.
    turn: u64,
    /// Nothing will be said on it any more.
    over: bool,
}

/// One event. Its text holds its id.
struct Event {
    stream: u64,
    number: u64,
    server: Option<ServerName>,
    /// Who asks, where it is a question.
    origin: Option<Origin>,
    text: Bytes,
}

/// The place in a stream that a client has reached.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    stream: u64,
    after: u64,
}

/// What the id of an event names.
pub(crate) enum Found {
    /// A place in a stream that listens.
    Listening(Place),
    /// A place in the stream of a call.
    Call(Place, Arc<About>),
    /// Nothing that is known here, or known any more.
    Nothing,
}

impl Replay {
    pub(super) fn new(pot: Pot) -> Self {
        let kept =
            Kept { streams: VecDeque::new(), events: VecDeque::new(), bytes: 0, pot, last_stream: 0, listening: None };
        Self { kept: Mutex::new(kept), changed: Notify::new() }
    }

    /// Forgets everything: the session is over.
    pub(super) fn clear(&self) {
        let mut kept = lock(&self.kept);
        kept.listening = None;
        kept.streams = VecDeque::new();
        while kept.forget(0) {}
        kept.events = VecDeque::new();
        drop(kept);
        self.changed.notify_waiters();
    }
}

impl Session {
    /// What the id of an event names in this session.
    pub(crate) fn find_event(&self, id: &HeaderValue) -> Found {
        let kept = lock(&self.replay.kept);
        let Some(place) = id.to_str().ok().and_then(Place::read) else { return Found::Nothing };
        match kept.streams.iter().find(|stream| stream.number == place.stream) {
            Some(stream) if place.after <= stream.last => match &stream.about {
                None => Found::Listening(place),
                Some(about) => Found::Call(place, Arc::clone(about)),
            },
            Some(_) | None => Found::Nothing,
        }
    }

    /// Whether a client asks for the rest of a stream that is not of this session's own making: its server has it, or nobody.
    pub(crate) fn is_asked_of_its_server(&self, call: &Call) -> bool {
        call.last_event().is_some_and(|id| matches!(self.find_event(id), Found::Nothing))
    }
}

impl Session {
    /// The revision whose streams a call in this session knows: that which it speaks. 2024-11-05 has no such streams: a client that
    /// asked for a newer one, and got a server of that, knows those of the one that it asked for.
    fn spoken(&self, call: &Call) -> Revision {
        let spoken = call.revision().unwrap_or_else(|| self.revision());
        if spoken >= Revision::V2025_03_26 {
            return spoken;
        }
        let asked = self.introduction.param(&["protocolVersion"]).and_then(|member| member.text());
        asked.and_then(|asked| Revision::parse(&asked)).map_or(spoken, |asked| asked.max(spoken))
    }

    /// Whether the client knows that a stream can be taken up where it was cut.
    pub(crate) fn knows_ids(&self, call: &Call) -> bool {
        self.spoken(call) >= Revision::V2025_03_26
    }

    /// Whether the client takes an event without a message: older ones read empty data as one that is broken.
    pub(crate) fn knows_primers(&self, call: &Call) -> bool {
        self.spoken(call) >= Revision::V2025_11_25
    }
}

impl Place {
    fn read(id: &str) -> Option<Self> {
        let (stream, after) = id.split_once('-')?;
        let place = Self { stream: stream.parse().ok()?, after: after.parse().ok()? };
        // As it was written, and in no other way.
        (place.id() == id).then_some(place)
    }

    fn id(self) -> String {
        format!("{}-{}", self.stream, self.after)
    }

    /// An event without a message, which tells a client where it is before anything was said.
    fn primer(self) -> Bytes {
        // SPEC: 2025-11-25: an id and empty data, and how long to wait before coming back.
        Bytes::from(format!("id: {}\nretry: 1000\ndata:\n\n", self.id()))
    }
}

impl Pot {
    /// Whether more is kept than may be.
    fn is_full(&self) -> bool {
        self.is_hoarded(0) || self.all.load(Ordering::Relaxed) > ALL_BYTES
    }

    /// Whether the principal's own share would overflow with `more` bytes.
    fn is_hoarded(&self, more: usize) -> bool {
        self.owners.load(Ordering::Relaxed).saturating_add(more) > OWNER_BYTES
    }

    fn grow(&self, bytes: usize) {
        self.all.fetch_add(bytes, Ordering::Relaxed);
        self.owners.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrink(&self, bytes: usize) {
        self.all.fetch_sub(bytes, Ordering::Relaxed);
        self.owners.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Kept {
    fn stream(&mut self, number: u64) -> Option<&mut Stream> {
        self.streams.iter_mut().rev().find(|stream| stream.number == number)
    }

    /// Begins a stream, and says which.
    fn begin(&mut self, about: Option<About>) -> u64 {
        self.last_stream += 1;
        let number = self.last_stream;
        let about = about.map(Arc::new);
        self.streams.push_back(Stream { number, about, last: 0, answer: None, turn: 0, over: false });
        while self.streams.len() > STREAMS {
            let listening = self.listening.as_ref().map(|listening| listening.stream);
            let oldest = self.streams.iter().position(|stream| stream.over);
            let oldest = oldest.or_else(|| self.streams.iter().position(|stream| Some(stream.number) != listening));
            let Some(gone) = oldest.and_then(|oldest| self.streams.remove(oldest)) else { break };
            while let Some(at) = self.events.iter().position(|event| event.stream == gone.number) {
                self.forget(at);
            }
        }
        number
    }

    /// Keeps an event. The oldest leave, but for those that somebody is about to read.
    fn push(&mut self, event: Event) {
        self.grow(event.text.len());
        self.events.push_back(event);
        while self.is_full() {
            let unread = self.listening.as_ref().filter(|listening| listening.left.is_none());
            let unread = unread.map(|listening| (listening.stream, listening.read));
            let may_leave =
                |event: &Event| unread.is_none_or(|(stream, read)| event.stream != stream || event.number <= read);
            let Some(oldest) = self.events.iter().position(may_leave) else { return };
            // What came last may be the answer that its client waits for.
            if oldest + 1 == self.events.len() && !self.pot.is_full() {
                return;
            }
            self.forget(oldest);
        }
    }

    fn is_full(&self) -> bool {
        self.events.len() > EVENTS || self.bytes > BYTES || self.pot.is_full()
    }

    fn grow(&mut self, text: usize) {
        self.bytes += text + OVERHEAD;
        self.pot.grow(text + OVERHEAD);
    }

    /// Forgets the event at a position. `false` if there is none.
    fn forget(&mut self, at: usize) -> bool {
        let Some(gone) = self.events.remove(at) else { return false };
        self.bytes = self.bytes.saturating_sub(gone.text.len() + OVERHEAD);
        self.pot.shrink(gone.text.len() + OVERHEAD);
        true
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        while self.forget(0) {}
    }
}

#[cfg(test)]
mod tests;
