//! How long a pipe is held up for a client that has no room for what was said.
//!
//! Who reads hears all of a burst: the server is read no faster than it does. Who reads nothing costs the others on the
//! pipe a moment, once; who reads slowly, a moment for each of their calls.

use super::NoRoomYet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the pipe is held up at most for a client that reads nothing.
const WHOLE: Duration = Duration::from_millis(100);
/// What a message that found room at once gives back.
const BACK: Duration = Duration::from_millis(1);
/// How long until it is tried again.
pub(super) const NAP: Duration = Duration::from_millis(1);

/// Tries until there is room, or what has none is waited for no longer. Between two tries whoever reads can make room, and
/// everybody else on this worker goes on.
pub(super) async fn in_time<T>(mut attempt: impl FnMut() -> Result<T, NoRoomYet>) -> T {
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(NoRoomYet) => sleep(NAP).await,
        }
    }
}

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
    use super::{NAP, NoRoomYet, Patience, WHOLE, in_time};
    use std::cell::Cell;
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

    /// Tries no more often than somebody who naps in between: whoever does not holds the worker until the test ends it.
    fn counted<T>(
        tries: &Cell<u32>,
        mut attempt: impl FnMut() -> Result<T, NoRoomYet>,
    ) -> impl FnMut() -> Result<T, NoRoomYet> {
        move || {
            tries.set(tries.get() + 1);
            assert!(tries.get() < 1000, "nobody else gets a turn");
            attempt()
        }
    }

    #[tokio::test]
    async fn who_reads_nothing_is_waited_for_by_napping_and_not_by_spinning() {
        let (mut patience, tries) = (Patience::default(), Cell::new(0));
        in_time(counted(&tries, || if patience.is_left() { Err(NoRoomYet) } else { Ok(()) })).await;
        // A nap is never shorter than it is said.
        let naps = u32::try_from(WHOLE.as_millis() / NAP.as_millis()).unwrap();
        assert!((2..=naps + 2).contains(&tries.get()), "{}", tries.get());
    }

    #[tokio::test]
    async fn who_reads_on_the_same_worker_makes_room_while_it_is_waited_for() {
        let (room, tries) = (Cell::new(false), Cell::new(0));
        let reads = async {
            tokio::task::yield_now().await;
            room.set(true);
        };
        let waits = in_time(counted(&tries, || if room.get() { Ok(()) } else { Err(NoRoomYet) }));
        tokio::join!(waits, reads);
        assert!(tries.get() > 1, "there was no room at first");
    }
}
