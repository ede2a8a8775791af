//! Reads one stream from a place on, to its end.

use super::{Place, Session, lock};
use crate::origin::Origin;
use bytes::Bytes;
use mcp::sse::{Decoder, Event};
use std::{pin::pin, sync::Arc};
use vocab::ServerName;

/// What reads a kept stream, until it is dropped or somebody else reads it.
pub(crate) struct Reader {
    session: Arc<Session>,
    place: Place,
    turn: u64,
    /// It is the stream of a call.
    of_call: bool,
    /// Its client knows a place that it could come back to.
    knows_place: bool,
    /// Its client knows nothing of ids.
    plain: bool,
    /// The number of the last event that was given to a reader before this one.
    before: u64,
    /// Who said the event that came last.
    origin: Option<Origin>,
}

/// What is said next, and by whom.
type Said = Option<(Option<ServerName>, Event)>;

impl Session {
    /// Reads on in the stream of a call, in place of whoever reads it now.
    pub(crate) fn resume(self: &Arc<Self>, place: Place) -> Reader {
        let mut turn = 0;
        if let Some(stream) = lock(&self.replay.kept).stream(place.stream) {
            stream.turn += 1;
            turn = stream.turn;
        }
        self.replay.changed.notify_waiters();
        Reader::new(self, place, turn, true, true)
    }
}

impl Reader {
    pub(super) fn new(session: &Arc<Session>, place: Place, turn: u64, of_call: bool, is_resumed: bool) -> Self {
        Self {
            session: Arc::clone(session),
            place,
            turn,
            of_call,
            knows_place: is_resumed,
            plain: false,
            before: 0,
            origin: None,
        }
    }

    /// Events up to this one were given to a reader before.
    pub(super) const fn read_before(mut self, last: u64) -> Self {
        self.before = last;
        self
    }

    /// Whether the event that came last was given to a reader before.
    pub(crate) const fn reads_again(&self) -> bool {
        self.place.after <= self.before
    }

    /// Who asks, if the event that came last is a question.
    pub(crate) const fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// Whether what is read was judged when it was said: it is the stream of a call.
    pub(crate) const fn is_of_call(&self) -> bool {
        self.of_call
    }

    /// For a client of a revision that knows nothing of ids.
    pub(crate) const fn without_ids(&mut self) {
        self.plain = true;
    }

    /// The event that comes before all others, for a client that begins to listen.
    pub(crate) fn primer(&mut self) -> Option<Bytes> {
        let is_new = !std::mem::replace(&mut self.knows_place, true);
        is_new.then(|| self.place.primer())
    }

    /// The next event; `None` at the end of the stream, or when somebody else reads it.
    pub(crate) async fn next(&mut self) -> Said {
        let session = Arc::clone(&self.session);
        loop {
            let mut changed = pin!(session.replay.changed.notified());
            // In line before the look: what is said in between is heard of.
            changed.as_mut().enable();
            match self.look() {
                Look::Said(said) => return Some(said),
                Look::Over => return None,
                Look::Silent => {}
            }
            changed.await;
        }
    }

    fn look(&mut self) -> Look {
        let mut kept = lock(&self.session.replay.kept);
        let Place { stream: number, after } = self.place;
        let Some(stream) = kept.stream(number) else { return Look::Over };
        if stream.turn != self.turn {
            return Look::Over;
        }
        let (is_over, last) = (stream.over, stream.last);
        // The answer was said, and is not kept any more.
        let lost = stream.answer.filter(|answer| *answer > after).and(stream.about.clone());
        let next = kept.events.iter().find(|event| event.stream == number && event.number > after);
        let next = next.map(|event| (event.number, event.server.clone(), event.origin, event.text.clone()));
        match next {
            Some((at, server, origin, text)) => {
                self.place.after = at;
                self.origin = origin;
                self.knows_place = !self.plain;
                if let Some(listening) = kept.listening.as_mut().filter(|listening| listening.stream == number) {
                    listening.read = at;
                    listening.furthest = listening.furthest.max(at);
                }
                Look::Said((server, self.event(text)))
            }
            None if is_over => {
                self.place.after = last;
                lost.map_or(Look::Over, |about| {
                    let why = "the call was made, but its answer is not kept any more; ask again if that harms nothing";
                    let text = mcp::error_text(Some(&about.id), mcp::error::WITHHELD, why, None);
                    Look::Said((None, Event::of(text)))
                })
            }
            None => Look::Silent,
        }
    }

    fn event(&self, text: Bytes) -> Event {
        let mut events = Vec::new();
        // A decoder of its own has room for one event, whatever its size.
        let _ = Decoder::new(usize::MAX).push(text, &mut events);
        let event = events.pop().unwrap_or_default();
        if self.plain { event.message().cloned().map(Event::of).unwrap_or(event) } else { event }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.of_call {
            self.session.let_go(self.place.stream, self.turn, self.knows_place);
        }
    }
}

/// What there is to read.
enum Look {
    Said((Option<ServerName>, Event)),
    Silent,
    Over,
}
