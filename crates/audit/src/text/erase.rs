//! Destroys what was kept of whole days: the key of their texts, the texts, and the salt key of their digests.
//!
//! The tree is not touched and verifies as before. What is a record of it is for the caller to write.

use super::{Texts, lock};
use crate::log::Log;
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

impl Log {
    /// Destroys what was kept of these days. `now` tells whether a day is over: of one that is not, what comes later is
    /// kept again. Blocks on the disk.
    pub fn erase(&self, days: Days, now: Timestamp) -> io::Result<Vec<Erased>> {
        let mut wanted = match days {
            Days::One(day) => vec![day],
            Days::Before(before) => {
                let mut known = self.salts().days().map_err(io::Error::other)?;
                if let Some(texts) = self.texts() {
                    known.extend(texts.days()?);
                }
                known.retain(|day| *day < before);
                known
            }
        };
        wanted.sort_unstable();
        wanted.dedup();
        wanted.into_iter().map(|day| self.erase_day(day, day < Day::of(now))).collect()
    }

    /// Destroys what was kept longer than it is to be. Blocks on the disk.
    pub fn expire(&self, now: Timestamp) -> io::Result<Vec<Erased>> {
        let Some(texts) = self.texts() else { return Ok(Vec::new()) };
        let Some(keeping) = texts.keeping() else { return Ok(Vec::new()) };
        let mut days = texts.days()?;
        days.retain(|day| day.end().plus(keeping.time) <= now);
        days.into_iter().map(|day| self.erase_day(day, true)).collect()
    }

    fn erase_day(&self, day: Day, over: bool) -> io::Result<Erased> {
        if let Some(texts) = self.texts() {
            texts.erase(day, over)?;
        }
        // INVARIANT: salts go when no call of that day makes digests any more, or a text that is kept would not be the
        // one its digest names.
        if over {
            self.salts().forget(day.begin()).map_err(io::Error::other)?;
        }
        Ok(Erased { day, digests: over })
    }
}

impl Texts {
    fn erase(&self, day: Day, over: bool) -> io::Result<()> {
        // What was handed over before is erased with the rest.
        self.shared.write();
        lock(&self.shared.shelf).erase(day, over)
    }
}
