//! The only place that reads the wall clock.

use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};
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

/// The clock of the machine. Its ticks started with that.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the room of the clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn ticks(&self) -> u64 {
        // Read at every stage: what `Instant` reads on Linux, without the difference to another one.
        let now = clock_gettime(ClockId::Monotonic);
        let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
        seconds.unwrap_or_default().saturating_mul(1_000_000).saturating_add(nanos.unwrap_or_default() / 1_000)
    }
}
