//! Events of a stream that many calls share: one that is too long costs the call it answers, and no other.

use super::{Events, UpstreamFault};
use bytes::Bytes;
use mcp::{
    Skim,
    sse::{Decoder, Event, Skip},
};
use std::mem;

/// What came on the stream.
pub(crate) enum Heard {
    /// An event.
    Event(Event),
    /// One that is too long and not over yet, but it is known already whom it answers.
    Cut(Skim),
    /// The message of one that was too long, to its end.
    Over(Skim),
}

/// Reads them. Of an event that is too long nothing is held.
pub(crate) struct Spoken {
    events: Events,
    /// Has come, and is not read yet.
    rest: Bytes,
    skip: Option<Skip>,
    /// Bytes that were passed over of it.
    passed: usize,
    /// It was said already whom the event that is passed over answers.
    is_told: bool,
}

impl Spoken {
    pub(crate) fn new(events: Events) -> Self {
        Self { events, rest: Bytes::new(), skip: None, passed: 0, is_told: false }
    }

    /// The next of them.
    pub(crate) async fn next(&mut self) -> Result<Option<Heard>, UpstreamFault> {
        loop {
            if let Some(event) = self.events.ready() {
                return Ok(Some(Heard::Event(event)));
            }
            if self.rest.is_empty() {
                match self.events.chunk().await? {
                    Some(chunk) => self.rest = chunk,
                    None if self.events.ready.is_empty() => return Ok(self.over()),
                    None => continue,
                }
            }
            if let Some(heard) = self.read()? {
                return Ok(Some(heard));
            }
        }
    }

    /// Reads what has come: events to be given first, or a piece of what is passed over.
    fn read(&mut self) -> Result<Option<Heard>, UpstreamFault> {
        let rest = mem::take(&mut self.rest);
        let Some(skip) = &mut self.skip else {
            let Some(decoder) = &mut self.events.decoder else { return Ok(None) };
            if decoder.push(rest, &mut self.events.ready).is_err() {
                self.rest = mem::replace(decoder, Decoder::new(self.events.limit)).unread();
                self.skip = Some(Skip::default());
                (self.passed, self.is_told) = (0, false);
            }
            return Ok(None);
        };
        if let Some(end) = skip.push(&rest) {
            self.rest = rest.slice(end..);
            return Ok(self.over());
        }
        self.passed = self.passed.saturating_add(rest.len());
        // Its own end may never come.
        let whose = skip.message().filter(|skim| skim.is_answer() && skim.only_id().is_some());
        match whose {
            Some(skim) if !self.is_told => {
                self.is_told = true;
                Ok(Some(Heard::Cut(skim.clone())))
            }
            // Nor may it ever say whom it answers.
            None if self.passed / 2 > self.events.limit => Err(UpstreamFault::TooBig(self.events.limit)),
            Some(_) | None => Ok(None),
        }
    }

    /// What was passed over is over.
    fn over(&mut self) -> Option<Heard> {
        let skip = self.skip.take()?;
        Some(Heard::Over(skip.message().cloned().unwrap_or_default()))
    }
}
