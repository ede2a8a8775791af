//! Destroys what was kept of whole days: the key of their texts, the texts, and the salt key of their digests.
//!
//! The tree is not touched and verifies as before. What is a record of it is for the caller to write.

use super::{Keeping, Texts, lock};
use crate::{commit::SaltsFault, log::Log};
use std::io;
use vocab::{Day, Timestamp};

/// Which days are to be erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Days {
    /// This one.
    One(Day),
    /// Every one before this.
    Before(Day),
}

/// One day whose texts are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// Which.
    pub day: Day,
    /// The digests of its texts say nothing any more either. Not so while the day lasts: they are still being made.
    pub digests: bool,
}

/// What came of erasing.
#[derive(Debug, Default)]
pub struct Erasure {
    /// What is gone.
    pub days: Vec<Erased>,
    /// Why not all of it is, or why something of it could not be cleared up. Erasing again ends it.
    pub fault: Option<io::Error>,
}

impl Log {
    /// Destroys what was kept of these days. `now` tells whether a day is over: of one that is not, what comes later is
    /// kept again. Days of which there is nothing are passed over. Blocks on the disk.
    pub fn erase(&self, days: Days, now: Timestamp) -> Erasure {
        let wanted = match days {
            Days::One(day) => Ok(vec![day]),
            Days::Before(before) => self.known_before(before),
        };
        self.erase_each(wanted, Day::of(now))
    }

    /// Destroys what was kept longer than it is to be, and ends what was cut short. Blocks on the disk.
    pub fn expire(&self, now: Timestamp) -> Erasure {
        let Some(texts) = self.texts() else { return Erasure::default() };
        let Some(keeping) = texts.keeping() else { return Erasure::default() };
        let today = Day::of(now);
        self.erase_each(self.due(texts, keeping, now), today)
    }

    fn known_before(&self, before: Day) -> io::Result<Vec<Day>> {
        let mut known = self.salts().days().map_err(io::Error::other)?;
        if let Some(texts) = self.texts() {
            known.extend(texts.days()?);
        }
        known.retain(|day| *day < before);
        Ok(known)
    }

    fn due(&self, texts: &Texts, keeping: Keeping, now: Timestamp) -> io::Result<Vec<Day>> {
        let today = Day::of(now);
        let mut due = texts.days()?;
        due.retain(|day| day.end().plus(keeping.time) <= now);
        // Salts of days without texts are nobody's business here, but of those that were erased they should be gone.
        let salted = self.salts().days().map_err(io::Error::other)?;
        due.extend(salted.into_iter().filter(|day| *day < today && lock(&texts.shared.shelf).is_erased(*day)));
        Ok(due)
    }

    /// Goes on after a day that cannot be erased: the others are no less due.
    fn erase_each(&self, days: io::Result<Vec<Day>>, today: Day) -> Erasure {
        let mut erasure = Erasure::default();
        let mut days = days.unwrap_or_else(|cause| {
            erasure.fault = Some(cause);
            Vec::new()
        });
        days.sort_unstable();
        days.dedup();
        for day in days {
            let fault = match self.erase_day(day, day < today) {
                Ok(None) => None,
                Ok(Some((erased, left))) => {
                    erasure.days.push(erased);
                    left
                }
                Err(cause) => Some(cause),
            };
            if let (Some(cause), None) = (fault, &erasure.fault) {
                erasure.fault = Some(io::Error::new(cause.kind(), format!("{day}: {cause}")));
            }
        }
        erasure
    }

    /// Gives nothing if there was nothing, and what could not be cleared up.
    fn erase_day(&self, day: Day, over: bool) -> io::Result<Option<(Erased, Option<io::Error>)>> {
        let kept = self.texts().map_or(Ok(false), |texts| texts.hold(day))?;
        // INVARIANT: salts go when no call of that day makes digests any more, or a text that is kept would not be the
        // one its digest names.
        let salted = over && self.salts().has(day).map_err(io::Error::other)?;
        if !kept && !salted {
            return Ok(None);
        }
        // The salt goes first: a crash after it leaves texts, by which the next attempt finds the day.
        if salted {
            self.salts().forget(day.begin()).map_err(|fault| match fault {
                SaltsFault::Disk { cause, .. } => cause,
                SaltsFault::Gone => io::Error::other(fault),
            })?;
        }
        let left = self.texts().map_or(Ok(None), |texts| texts.erase(day, over))?;
        Ok(Some((Erased { day, digests: over }, left)))
    }
}

impl Texts {
    fn hold(&self, day: Day) -> io::Result<bool> {
        // What was handed over before is erased with the rest.
        self.shared.write();
        lock(&self.shared.shelf).holds(day)
    }

    fn erase(&self, day: Day, over: bool) -> io::Result<Option<io::Error>> {
        self.shared.write();
        lock(&self.shared.shelf).erase(day, over)
    }
}
