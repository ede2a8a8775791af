//! The only place that reads the wall clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use vocab::Timestamp;

/// Where time comes from. Tests hold their own.
pub trait Clock: Send + Sync {
    /// The time of day, for records and expiry.
    fn now(&self) -> Timestamp;
    /// Microseconds since some fixed point, never going back: for limits and durations.
    fn ticks(&self) -> u64;
}

/// One moment on both of its faces.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time of day.
    pub at: Timestamp,
    /// The ticks.
    pub ticks: u64,
}

impl Moment {
    /// This one.
    pub fn now(clock: &dyn Clock) -> Self {
        let ticks = clock.ticks();
        Self { at: clock.now(), ticks }
    }
}

/// The clock of the machine.
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose ticks start now.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the room of the clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn ticks(&self) -> u64 {
        // Read at every stage: the library counts micros in 128 bits.
        let since = self.started.elapsed();
        since.as_secs().saturating_mul(1_000_000).saturating_add(since.subsec_micros().into())
    }
}
