//! Which task is whose, and what is known of it.
//!
//! A principal has so many tasks that may be under way. One that has ended keeps its place until another needs it.

use mcp::Member;
use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use vocab::{Digest, PrincipalId, ServerName};

/// Tasks of one principal that are remembered.
pub(super) const MOST: usize = 256;
/// Tasks of one principal in any case: calls that found room begin theirs at once, and their answers are not withheld.
const HARD: usize = 2 * MOST;
/// How long a task is remembered after it was last used.
const LIFE: Duration = Duration::from_hours(24);
/// How long one whose `ttl` is over must have been left alone before its place is another's: servers differ in when a `ttl`
/// begins, and some repeat whatever the client wished for.
const GRACE: Duration = Duration::from_mins(10);
/// Parts of each table, each with a lock of its own.
const SHARDS: usize = 64;

/// A task of a server, by the digest of its id: ids may be long.
pub(super) type Id = (ServerName, Digest);
/// The tool whose call became a task, by the server's own name. `None` where an answer that was given again began it: nobody
/// knows then to which call.
pub(super) type Tool = Option<Arc<str>>;

/// All of them.
///
/// INVARIANT: who holds a lock of `ids` may take one of `owners`, and never the other way round.
pub(super) struct Table {
    owners: Vec<Mutex<HashMap<PrincipalId, Own>>>,
    /// Who was given an id. Whether it still is a task, its owner's part says.
    ids: Vec<Mutex<HashMap<Id, PrincipalId>>>,
    spread: RandomState,
}

/// The tasks of a principal.
#[derive(Default)]
struct Own {
    tasks: HashMap<Id, Kept>,
    /// So many of which nobody said that they have ended.
    under_way: usize,
}

/// What is known of a task. Times are in ticks.
struct Kept {
    tool: Tool,
    begun: u64,
    /// When it was last used.
    used: u64,
    /// When its server said that it has ended.
    ended: Option<u64>,
    /// How long its server keeps it, where it said so.
    ttl: Option<u64>,
}

/// Why a place is free, in the order in which places are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Free {
    Ended,
    Forgotten,
    Outlived,
}

/// What a server says of a task.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct News {
    has_ended: bool,
    ttl: Option<u64>,
}

/// Why a task is not remembered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its principal has as many as it may have.
    TooMany,
    /// Another principal has one of this id.
    Foreign,
}

impl News {
    /// What the members of a task say.
    pub(super) fn of<'m>(member: impl Fn(&'static str) -> Option<Member<'m>>) -> Self {
        let has_ended = member("status").and_then(|status| status.text().map(|status| ends(&status)));
        let ttl = ["ttl", "ttlMs"].iter().find_map(|name| member(name)?.value().ok()?.as_f64());
        Self { has_ended: has_ended.unwrap_or_default(), ttl: ttl.map(ticks) }
    }

    /// The same of an entry of a list.
    pub(super) fn of_entry(task: &serde_json::Value) -> Self {
        let has_ended = task.get("status").and_then(serde_json::Value::as_str).is_some_and(ends);
        Self { has_ended, ttl: task.get("ttl").and_then(serde_json::Value::as_f64).map(ticks) }
    }

    /// The server has no more to say of it.
    pub(super) const fn end() -> Self {
        Self { has_ended: true, ttl: None }
    }
}

/// Whether nothing follows this status.
fn ends(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "cancelled")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates, and less than nothing is none"
)]
fn ticks(milliseconds: f64) -> u64 {
    (milliseconds * 1000.0) as u64
}

impl Kept {
    fn is_over(&self, now: u64) -> bool {
        now.saturating_sub(self.used) >= micros(LIFE)
    }

    /// Whether its place is free for another, and if so which are given up before: those that have ended come first, then
    /// those that nobody used for a day, and last those that their server might not keep any longer.
    fn is_free(&self, now: u64) -> Option<(Free, u64)> {
        let ended = self.ended.map(|ended| (Free::Ended, ended));
        let forgotten = || self.is_over(now).then_some((Free::Forgotten, self.used));
        let outlived = || self.outlived(now).map(|since| (Free::Outlived, since));
        ended.or_else(forgotten).or_else(outlived)
    }

    fn outlived(&self, now: u64) -> Option<u64> {
        let end = self.begun.saturating_add(self.ttl?).max(self.used).saturating_add(micros(GRACE));
        (end <= now).then_some(end)
    }
}

impl Own {
    /// Whether fewer are under way than may be.
    fn has_room(&self, now: u64) -> bool {
        let free = |kept: &Kept| kept.ended.is_none() && kept.is_free(now).is_some();
        self.under_way < MOST || self.under_way - self.tasks.values().filter(|kept| free(kept)).count() < MOST
    }

    fn insert(&mut self, id: Id, kept: Kept) {
        self.remove(&id);
        self.under_way += usize::from(kept.ended.is_none());
        self.tasks.insert(id, kept);
    }

    fn remove(&mut self, id: &Id) -> Option<Kept> {
        let kept = self.tasks.remove(id)?;
        self.under_way -= usize::from(kept.ended.is_none());
        Some(kept)
    }

    fn hear(&mut self, id: &Id, news: News, now: u64) {
        let Some(kept) = self.tasks.get_mut(id) else { return };
        if news.has_ended && kept.ended.is_none() {
            kept.ended = Some(now);
            self.under_way -= 1;
        }
        kept.ttl = news.ttl.or(kept.ttl);
    }

    /// Takes out those whose places are free, until there is one or none is.
    fn make_room(&mut self, now: u64) -> Vec<Id> {
        let mut gone = Vec::new();
        while self.tasks.len() >= MOST {
            let free = self.tasks.iter().filter_map(|(id, kept)| Some((kept.is_free(now)?, id)));
            let Some(first) = free.min_by_key(|(free, _)| *free).map(|(_, id)| id.clone()) else { break };
            self.remove(&first);
            gone.push(first);
        }
        gone
    }

    /// Takes out those that nobody used for a day.
    fn forget(&mut self, now: u64) -> Vec<Id> {
        let over = self.tasks.iter().filter(|(_, kept)| kept.is_over(now));
        let over: Vec<Id> = over.map(|(id, _)| id.clone()).collect();
        for id in &over {
            self.remove(id);
        }
        over
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            owners: (0..SHARDS).map(|_| Mutex::default()).collect(),
            ids: (0..SHARDS).map(|_| Mutex::default()).collect(),
            spread: RandomState::new(),
        }
    }
}

impl Table {
    /// Whether the task is this principal's, who may still call its tool. Using it keeps it.
    pub(super) fn belongs(
        &self,
        owner: &PrincipalId,
        id: &Id,
        now: u64,
        may_call: impl FnOnce(Option<&str>) -> bool,
    ) -> bool {
        let alive = |kept: &mut Kept| (!kept.is_over(now)).then(|| kept.tool.clone());
        let Some(tool) = self.with(owner, id, alive).flatten() else { return false };
        // Policy takes its time, and is asked while nobody else waits.
        may_call(tool.as_deref())
            && self
                .with(owner, id, |kept| {
                    // SECURITY: the id may have become that of a call of another tool meanwhile.
                    let is_same = kept.tool == tool;
                    if is_same {
                        kept.used = now;
                    }
                    is_same
                })
                .unwrap_or_default()
    }

    /// Whether another task of this principal may begin.
    pub(super) fn has_room(&self, owner: &PrincipalId, now: u64) -> bool {
        self.part(&self.owners, owner).get(owner).is_none_or(|own| own.has_room(now))
    }

    /// Remembers a task that begins. The place of one that has ended is given up where there is no other, of the one that
    /// ended first.
    pub(super) fn keep(&self, owner: &PrincipalId, id: Id, tool: Tool, news: News, now: u64) -> Result<(), Lost> {
        let ended = news.has_ended.then_some(now);
        let mut kept = Kept { tool, begun: now, used: now, ended, ttl: news.ttl };
        let mut ids = self.part(&self.ids, &id);
        if let Some(other) = ids.get(&id).filter(|other| *other != owner) {
            if self.with(other, &id, |kept| !kept.is_over(now)).unwrap_or_default() {
                return Err(Lost::Foreign);
            }
            self.forget(other, &id);
        }
        let gone = {
            let mut owners = self.part(&self.owners, owner);
            let own = owners.entry(owner.clone()).or_default();
            // An id that is given anew is that of another call.
            let before = own.remove(&id);
            kept.tool = kept.tool.or_else(|| before.and_then(|before| before.tool));
            let gone = own.make_room(now);
            if own.tasks.len() >= HARD {
                return Err(Lost::TooMany);
            }
            own.insert(id.clone(), kept);
            gone
        };
        ids.insert(id, owner.clone());
        drop(ids);
        self.release(owner, &gone);
        Ok(())
    }

    /// Notes what a server says of a task.
    pub(super) fn hear(&self, owner: &PrincipalId, id: &Id, news: News, now: u64) {
        if let Some(own) = self.part(&self.owners, owner).get_mut(owner) {
            own.hear(id, news, now);
        }
    }

    /// Forgets what nobody used for a day.
    pub(super) fn sweep(&self, now: u64) {
        for part in &self.owners {
            let mut gone: Vec<(PrincipalId, Vec<Id>)> = Vec::new();
            lock(part).retain(|owner, own| {
                let over = own.forget(now);
                if !over.is_empty() {
                    gone.push((owner.clone(), over));
                }
                !own.tasks.is_empty()
            });
            for (owner, ids) in gone {
                self.release(&owner, &ids);
            }
        }
    }

    fn with<T>(&self, owner: &PrincipalId, id: &Id, look: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        self.part(&self.owners, owner).get_mut(owner)?.tasks.get_mut(id).map(look)
    }

    fn forget(&self, owner: &PrincipalId, id: &Id) {
        if let Some(own) = self.part(&self.owners, owner).get_mut(owner) {
            own.remove(id);
        }
    }

    /// Ids that were this principal's are anybody's, unless one was given anew meanwhile.
    fn release(&self, owner: &PrincipalId, gone: &[Id]) {
        for id in gone {
            let mut ids = self.part(&self.ids, id);
            if ids.get(id) == Some(owner) && self.with(owner, id, |_| ()).is_none() {
                ids.remove(id);
            }
        }
    }

    fn part<'t, K: Hash, T>(&self, parts: &'t [Mutex<T>], key: &K) -> MutexGuard<'t, T> {
        let number = usize::try_from(self.spread.hash_one(key) % SHARDS as u64).unwrap_or_default();
        #[expect(clippy::indexing_slicing, reason = "there are as many parts as shards")]
        lock(&parts[number])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> Id {
        (ServerName::new("files").unwrap(), Digest::of(number.to_string().as_bytes()))
    }

    #[test]
    fn what_ended_first_gives_up_its_place_and_what_is_under_way_none() {
        let owner: PrincipalId = serde_json::from_str(r#"{"agent":"a","tenant":"default"}"#).unwrap();
        let table = Table::default();
        let keep = |number, news, now| table.keep(&owner, id(number), None, news, now);
        let has = |number| table.belongs(&owner, &id(number), 1000, |_| true);
        for number in 0..MOST {
            assert!(table.has_room(&owner, 1000));
            keep(number, News::default(), 1000).unwrap();
        }
        assert!(!table.has_room(&owner, 1000));
        table.hear(&owner, &id(7), News::end(), 1002);
        table.hear(&owner, &id(5), News::end(), 1001);
        table.hear(&owner, &id(7), News::end(), 1000);
        assert!(table.has_room(&owner, 1003));
        keep(1000, News::default(), 1003).unwrap();
        assert!(!has(5) && has(7) && has(1000));
        keep(1001, News::default(), 1003).unwrap();
        assert!(!has(7));
        // Of those whose calls found room each is remembered, within bounds.
        for number in 2000..2000 + MOST {
            assert!(!table.has_room(&owner, 1003));
            keep(number, News::default(), 1003).unwrap();
        }
        assert_eq!(keep(9999, News::default(), 1003), Err(Lost::TooMany));
        assert!((0..MOST).filter(|number| has(*number)).count() == MOST - 2, "none under way is forgotten");
    }

    #[test]
    fn what_its_server_might_not_keep_gives_up_its_place_last() {
        let owner: PrincipalId = serde_json::from_str(r#"{"agent":"a","tenant":"default"}"#).unwrap();
        let table = Table::default();
        // Some servers repeat what the client wished for, and work on.
        let short = News { has_ended: false, ttl: Some(ticks(1.0)) };
        for number in 0..MOST {
            table.keep(&owner, id(number), None, short, 0).unwrap();
        }
        let grace = micros(GRACE);
        let after = grace + ticks(1.0);
        assert!(!table.has_room(&owner, after - 1), "it may still work");
        assert!(table.has_room(&owner, after));
        // Whoever asks for it keeps it, and nobody else's place is free before its own.
        for number in 0..MOST {
            assert!(table.belongs(&owner, &id(number), after, |_| true));
        }
        assert!(!table.has_room(&owner, after + grace - 1));
        table.hear(&owner, &id(7), News::end(), after);
        assert!(table.has_room(&owner, after));
        // One that has ended goes before all of those, though it ended after them.
        let late = after + grace;
        table.hear(&owner, &id(8), News::end(), late);
        for (number, gone) in [(1000, 7), (1001, 8)] {
            table.keep(&owner, id(number), None, News::default(), late).unwrap();
            let lost = |number: &usize| !table.belongs(&owner, &id(*number), late - grace, |_| true);
            assert!(lost(&gone), "{gone}");
        }
        assert_eq!((0..MOST).filter(|number| !table.belongs(&owner, &id(*number), late, |_| true)).count(), 2);
    }

    #[test]
    fn a_task_that_became_another_while_it_was_judged_is_not_judged_as_that() {
        let owner: PrincipalId = serde_json::from_str(r#"{"agent":"a","tenant":"default"}"#).unwrap();
        let table = Table::default();
        let keep = |tool: &str| table.keep(&owner, id(1), Some(tool.into()), News::default(), 1).unwrap();
        keep("read");
        // Whoever judges may use the table: nothing of it is held.
        let judge = |tool: Option<&str>| {
            keep("erase");
            tool == Some("read")
        };
        assert!(!table.belongs(&owner, &id(1), 1, judge));
        assert!(table.belongs(&owner, &id(1), 1, |tool| tool == Some("erase")));
    }

    #[test]
    fn those_under_way_are_counted_whatever_becomes_of_them() {
        let owner: PrincipalId = serde_json::from_str(r#"{"agent":"a","tenant":"default"}"#).unwrap();
        let table = Table::default();
        let count = || {
            let owners = table.part(&table.owners, &owner);
            let Some(own) = owners.get(&owner) else { return 0 };
            let counted = own.tasks.values().filter(|kept| kept.ended.is_none()).count();
            assert_eq!(own.under_way, counted);
            counted
        };
        let keep = |number, news, now| table.keep(&owner, id(number), None, news, now).unwrap();
        for number in 0..3 {
            keep(number, News::default(), 0);
        }
        keep(3, News::end(), 0);
        assert_eq!(count(), 3);
        // Said twice it has ended once; an id that is given anew is another task.
        table.hear(&owner, &id(0), News::end(), 1);
        table.hear(&owner, &id(0), News::end(), 2);
        table.hear(&owner, &id(9), News::end(), 2);
        assert_eq!(count(), 2);
        keep(0, News::default(), 3);
        keep(1, News::end(), 3);
        assert_eq!(count(), 2);
        table.sweep(micros(LIFE) + 1);
        assert_eq!(count(), 1);
        table.sweep(micros(LIFE) * 2);
        assert_eq!(count(), 0);
    }
}
