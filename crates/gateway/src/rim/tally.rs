//! What was ended at the rim because of the other end: counted each time, said in the log once in a while.

use std::sync::atomic::{AtomicU64, Ordering};

/// How long one line of a kind is the last one, in microseconds: a stranger cannot fill the log.
const AGAIN: u64 = 60_000_000;

/// What was ended, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A connection: too many are open.
    Full,
    /// A connection: it comes from nobody whose word counts.
    Stranger,
    /// A connection: the header of the PROXY protocol is missing.
    HeaderMissing,
    /// A connection: that header is malformed.
    HeaderMalformed,
    /// A connection: it broke, or went silent, within that header.
    HeaderCut,
    /// A connection: the client does not read.
    StalledConnection,
    /// An answer on a connection of HTTP/2: the client takes nothing of it.
    StalledAnswer,
}

impl Ended {
    const ALL: [Self; 7] = [
        Self::Full,
        Self::Stranger,
        Self::HeaderMissing,
        Self::HeaderMalformed,
        Self::HeaderCut,
        Self::StalledConnection,
        Self::StalledAnswer,
    ];

    const fn reason(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Stranger => "stranger",
            Self::HeaderMissing => "header-missing",
            Self::HeaderMalformed => "header-malformed",
            Self::HeaderCut => "header-cut",
            Self::StalledConnection => "stalled-connection",
            Self::StalledAnswer => "stalled-answer",
        }
    }
}

/// How often each happened.
#[derive(Debug, Default)]
pub(crate) struct Tally([Line; Ended::ALL.len()]);

/// One kind.
#[derive(Debug, Default)]
struct Line {
    count: AtomicU64,
    /// How many of them were said of, by a line of their own or in the count of a later one.
    said: AtomicU64,
    /// When the next line may be said, in ticks.
    due: AtomicU64,
}

impl Tally {
    /// Counts one.
    pub(crate) fn count(&self, ended: Ended) {
        if let Some(line) = self.0.get(ended as usize) {
            line.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts one. If it is time for a line, how many were not said of before, this one among them.
    pub(crate) fn note(&self, ended: Ended, ticks: u64) -> Option<u64> {
        let line = self.0.get(ended as usize)?;
        let count = line.count.fetch_add(1, Ordering::AcqRel) + 1;
        let due = line.due.load(Ordering::Acquire);
        let next = ticks.saturating_add(AGAIN);
        // Whoever loses the race has been counted by whoever won it, or will be.
        let won = ticks >= due && line.due.compare_exchange(due, next, Ordering::AcqRel, Ordering::Acquire).is_ok();
        won.then(|| count.saturating_sub(line.said.swap(count, Ordering::AcqRel)).max(1))
    }

    /// All counts, by reason.
    pub(crate) fn counts(&self) -> impl Iterator<Item = ([&'static str; 1], u64)> {
        Ended::ALL.iter().zip(&self.0).map(|(ended, line)| ([ended.reason()], line.count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::{AGAIN, Ended, Tally};

    #[test]
    fn everything_is_counted_and_little_is_said() {
        let tally = Tally::default();
        assert_eq!(tally.note(Ended::Stranger, 5), Some(1), "the first one at once");
        let said: Vec<u64> = (0..1000).filter_map(|n| tally.note(Ended::Stranger, 6 + n)).collect();
        assert_eq!(said, [] as [u64; 0]);
        assert_eq!(tally.note(Ended::HeaderMissing, 7), Some(1), "another kind has lines of its own");
        assert_eq!(tally.note(Ended::Stranger, 5 + AGAIN), Some(1001));
        let counts: Vec<u64> = tally.counts().map(|(_, count)| count).collect();
        assert_eq!(counts, [0, 1002, 1, 0, 0, 0, 0]);
    }
}
