//! How long a pipe is held up for a client that has no room for what was said.
//!
//! Who reads hears all of a burst: the server is read no faster than it does. Who reads nothing costs the others on the
//! pipe a moment, once; who reads slowly, a moment for each of their calls.

use std::time::Duration;
use tokio::time::Instant;

/// How long the pipe is held up at most for a client that reads nothing.
const WHOLE: Duration = Duration::from_millis(100);
/// What a message that found room at once gives back.
const BACK: Duration = Duration::from_millis(1);
/// How long until it is tried again.
pub(super) const NAP: Duration = Duration::from_millis(1);

/// What is left of it for one client.
#[derive(Debug)]
pub(super) struct Patience {
    left: Duration,
    /// Since when a message of this client's holds up the pipe.
    since: Option<Instant>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { left: WHOLE, since: None }
    }
}

impl Patience {
    /// There was no room. Whether it is worth trying again after a nap.
    pub(super) fn is_left(&mut self) -> bool {
        self.count();
        if self.left.is_zero() {
            return false;
        }
        self.since = Some(Instant::now());
        true
    }

    /// There was room. `is_alone`: nobody else is held up, and whoever reads at all is waited for.
    pub(super) fn taken(&mut self, is_alone: bool) {
        if self.since.is_none() {
            self.left = (self.left + BACK).min(WHOLE);
            return;
        }
        self.count();
        if is_alone {
            self.left = WHOLE;
        }
    }

    /// What was held up is heard of no more.
    pub(super) fn over(&mut self) {
        self.count();
    }

    fn count(&mut self) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NAP, Patience, WHOLE};
    use tokio::time::{Duration, Instant, sleep};

    /// How long somebody holds up a pipe who takes a message after so many naps, for so many messages.
    async fn held(naps: u32, messages: usize, is_alone: bool) -> Duration {
        let (mut patience, began) = (Patience::default(), Instant::now());
        for _ in 0..messages {
            for _ in 0..naps {
                if !patience.is_left() {
                    break;
                }
                sleep(NAP).await;
            }
            patience.taken(is_alone);
        }
        began.elapsed()
    }

    #[tokio::test]
    async fn who_hardly_reads_is_waited_for_no_longer_than_is_said_where_others_are_held_up() {
        let (naps, messages) = (5, 100);
        let alone = held(naps, messages, true).await;
        assert!(alone >= NAP * 500, "{alone:?}: nobody is the worse for it");
        let among_others = held(naps, messages, false).await;
        assert!((WHOLE..alone).contains(&among_others), "{among_others:?}");
    }
}
