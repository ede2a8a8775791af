//! Streams of the gateway: their events, where one stands when it breaks, and how long to wait before the next try.
//!
//! Sends nothing.

use super::bridge::LIMITS;
use bytes::Bytes;
use egress::Body;
use http_body_util::BodyExt;
use mcp::sse::{Decoder, Event};
use std::{collections::VecDeque, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// How long the gateway may take to begin an answer. A person may have to approve a call first; a client that wants to
/// wait less cancels.
pub(super) const ANSWER: Duration = Duration::from_hours(1);
/// How long a body may take to go on. Streams of the gateway are never silent for longer than 15 seconds.
pub(super) const STALLED: Duration = Duration::from_mins(1);

/// Where a stream stands.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The last id.
    pub(super) last: Option<Bytes>,
    retry: Option<Duration>,
}

impl Cursor {
    /// Notes where an event leaves the stream.
    pub(super) fn note(&mut self, event: &Event) {
        if let Some(id) = &event.id {
            // An empty id takes the last one back (WHATWG HTML §9.2.6).
            self.last = Some(id.clone()).filter(|id| !id.is_empty());
        }
        if let Some(retry) = event.retry {
            self.retry = Some(Duration::from_millis(retry).clamp(Pause::LEAST, Pause::LONGEST));
        }
    }

    /// How long the gateway wants to be left alone.
    pub(super) fn wait(&self) -> Duration {
        self.retry.unwrap_or(Pause::FIRST)
    }
}

/// The events of a body.
pub(super) struct Stream {
    body: Body,
    decoder: Decoder,
    ready: VecDeque<Event>,
    /// How long it may be silent.
    silence: Duration,
}

impl Stream {
    /// One that ends with an answer. Servers need not say that they are still there.
    pub(super) fn of_call(body: Body) -> Self {
        Self { body, decoder: Decoder::new(LIMITS.body), ready: VecDeque::new(), silence: ANSWER }
    }

    /// One that may say nothing for ever: what shows that it is alive are the gateway's comments.
    pub(super) fn unasked(body: Body) -> Self {
        Self { body, decoder: Decoder::new(LIMITS.body), ready: VecDeque::new(), silence: STALLED }
    }

    /// The next event; `None` at the end. Nothing is lost if this is dropped before it ends.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, String> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let frame = timeout(self.silence, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| format!("silent for {:?}", self.silence))? else { return Ok(None) };
            let Ok(chunk) = frame.map_err(|cause| cause.to_string())?.into_data() else { continue };
            let mut events = Vec::new();
            self.decoder.push(chunk, &mut events).map_err(|fault| fault.to_string())?;
            self.ready.extend(events);
        }
    }
}

/// Ever longer pauses between tries.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(250);
    /// What is left alone for no time at all is asked without end.
    const LEAST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);
    /// What lasted as long as this was worth its while.
    const LASTED: Duration = Duration::from_secs(5);

    /// Pauses after what began at `begun` came to nothing.
    pub(super) async fn after(&mut self, begun: Instant) {
        if begun.elapsed() > Self::LASTED {
            self.0 = Self::FIRST;
        }
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(Self::LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Pause};
    use mcp::sse::Decoder;

    #[test]
    fn a_gateway_says_how_long_to_leave_it_alone_within_bounds() {
        for (said, wait) in [
            ("retry: 0", Pause::LEAST.as_millis()),
            ("retry: 99", Pause::LEAST.as_millis()),
            ("retry: 1000", 1000),
            ("retry: 86400000", Pause::LONGEST.as_millis()),
            ("retry: soon", Pause::FIRST.as_millis()),
        ] {
            let (mut cursor, mut events) = (Cursor::default(), Vec::new());
            Decoder::new(1024).push(format!("{said}\ndata:\n\n").into(), &mut events).unwrap();
            for event in &events {
                cursor.note(event);
            }
            assert_eq!(cursor.wait().as_millis(), wait, "{said}");
        }
    }
}
