//! One token bucket, and what was taken from several at once.
//!
//! The bucket is GCRA: a single point in time says how full it is. What is taken is *reserved* first and spent or given
//! back later; a reservation counts against the burst but leaves the point in time alone, so giving back is exact.

use super::{Allowance, Rate};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a bucket's rule allows, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) rate: Rate,
    pub(super) burst: u32,
    pub(super) concurrency: Option<u32>,
    /// Time in which one token comes back.
    interval: u64,
    /// Time in which an empty bucket fills up.
    pub(super) depth: u64,
}

impl Terms {
    /// None if they would refuse everything.
    pub(super) fn new(allowance: Allowance, concurrency: Option<u32>) -> Option<Self> {
        let Allowance { rate, burst } = allowance;
        if rate.count == 0 || rate.per.is_zero() || burst == 0 || concurrency == Some(0) {
            return None;
        }
        let per = u64::try_from(rate.per.as_nanos()).ok()?;
        let count = u64::from(rate.count);
        let interval = (per.saturating_add(count / 2) / count).max(1);
        let depth = interval.saturating_mul(u64::from(burst));
        Some(Self { rate, burst, concurrency, interval, depth })
    }

    /// The same for what is under way already.
    pub(super) const fn without_concurrency(self) -> Self {
        Self { concurrency: None, ..self }
    }
}

/// Why a bucket gives nothing, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Short {
    pub(super) retry_in: u64,
    pub(super) reset: u64,
    pub(super) remaining: u32,
    pub(super) concurrency: bool,
}

/// How long a caller is asked to wait for somebody else's call to end.
const GUESS: u64 = 1_000_000_000;

/// One bucket. Its lock is held for a few instructions and shared only by those whom it limits.
#[derive(Debug, Default)]
pub(super) struct Bucket(Mutex<Level>);

#[derive(Debug, Default)]
pub(super) struct Level {
    /// When the bucket will be full, as far as spent tokens go.
    full_at: u64,
    /// Taken, neither spent nor given back.
    reserved: u32,
    /// Spent, and still under way. Counted only for rules that bound concurrency.
    running: u32,
}

impl Bucket {
    fn lock(&self) -> MutexGuard<'_, Level> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a new bucket would be no different. Wants the only handle, so that nobody is about to take from it.
    pub(super) fn is_idle(&mut self, now: u64) -> bool {
        let level = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        level.full_at <= now && level.reserved == 0 && level.running == 0
    }

    /// Whether there is a token.
    pub(super) fn check(&self, terms: &Terms, now: u64) -> Result<(), Short> {
        self.lock().check(terms, now)
    }

    /// Takes and spends a token.
    pub(super) fn take(&self, terms: &Terms, now: u64) -> Result<(), Short> {
        let mut level = self.lock();
        level.check(terms, now)?;
        level.charge(terms, now);
        Ok(())
    }

    /// Spends a token that may not be there. The debt is at most one more bucket, so that everybody is forgiven in time.
    pub(super) fn force(&self, terms: &Terms, now: u64) {
        let mut level = self.lock();
        level.charge(terms, now);
        level.full_at = level.full_at.min(now.saturating_add(terms.depth.saturating_mul(2)));
    }
}

impl Level {
    /// INVARIANT: spent and reserved tokens together never exceed the burst.
    fn check(&self, terms: &Terms, now: u64) -> Result<(), Short> {
        let used =
            self.full_at.saturating_sub(now).saturating_add(terms.interval.saturating_mul(u64::from(self.reserved)));
        let wanted = used.saturating_add(terms.interval);
        let short = |retry_in, concurrency| {
            let remaining = u32::try_from(terms.depth.saturating_sub(used) / terms.interval).unwrap_or(u32::MAX);
            Short { retry_in, reset: used, remaining, concurrency }
        };
        if wanted > terms.depth {
            return Err(short(wanted.saturating_sub(terms.depth), false));
        }
        match terms.concurrency {
            Some(most) if self.reserved.saturating_add(self.running) >= most => Err(short(GUESS, true)),
            Some(_) | None => Ok(()),
        }
    }

    fn charge(&mut self, terms: &Terms, taken_at: u64) {
        self.full_at = self.full_at.max(taken_at).saturating_add(terms.interval);
    }
}

/// One token of one bucket.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) bucket: Arc<Bucket>,
    pub(super) terms: Terms,
    /// Position of the rule, for the refusal.
    pub(super) rule: usize,
}

/// Reserves one token of each bucket, or none. The refusal is the one with the longest wait.
pub(super) fn reserve(taken: Vec<Taken>, now: u64) -> Result<Slot, (usize, Short)> {
    reserve_each(&taken, now, None)?;
    Ok(Slot { taken, at: now })
}

/// Every bucket stays locked until the last one has answered: that makes it all or none, also for parallel callers.
/// No two of them wait for each other, because everybody locks in the order of rule ids.
fn reserve_each(taken: &[Taken], now: u64, worst: Option<(usize, Short)>) -> Result<(), (usize, Short)> {
    let Some((first, rest)) = taken.split_first() else { return worst.map_or(Ok(()), Err) };
    let mut level = first.bucket.lock();
    let worst = match (level.check(&first.terms, now), worst) {
        (Ok(()), worst) => worst,
        (Err(short), Some(worst)) if worst.1.retry_in >= short.retry_in => Some(worst),
        (Err(short), Some(_) | None) => Some((first.rule, short)),
    };
    reserve_each(rest, now, worst)?;
    level.reserved += 1;
    Ok(())
}

/// Proof that no limit is exceeded by one call. Dropped unspent, it gives everything back.
#[must_use]
#[derive(Debug)]
pub struct Slot {
    taken: Vec<Taken>,
    at: u64,
}

impl Slot {
    /// The call is being sent: its tokens are gone, counted from the time they were taken.
    pub fn spend(mut self) -> Held {
        let mut taken = std::mem::take(&mut self.taken);
        for one in &taken {
            let mut level = one.bucket.lock();
            level.reserved = level.reserved.saturating_sub(1);
            level.charge(&one.terms, self.at);
            level.running += u32::from(one.terms.concurrency.is_some());
        }
        taken.retain(|one| one.terms.concurrency.is_some());
        Held { taken }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        for one in &self.taken {
            let mut level = one.bucket.lock();
            level.reserved = level.reserved.saturating_sub(1);
        }
    }
}

/// A call under way. Dropped when its answer has ended, it makes room for the next.
#[must_use]
#[derive(Debug)]
pub struct Held {
    taken: Vec<Taken>,
}

impl Drop for Held {
    fn drop(&mut self) {
        for one in &self.taken {
            let mut level = one.bucket.lock();
            level.running = level.running.saturating_sub(1);
        }
    }
}
