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

type Own = HashMap<Id, Kept>;

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
        now.saturating_sub(self.used) >= life()
    }

    /// Since when its place is free for another, if it is.
    fn free_since(&self, now: u64) -> Option<u64> {
        let outlived = self.ttl.map(|ttl| self.begun.saturating_add(ttl)).filter(|end| *end <= now);
        let forgotten = self.is_over(now).then_some(self.used);
        [self.ended, outlived, forgotten].into_iter().flatten().min()
    }

    fn hear(&mut self, news: News, now: u64) {
        if news.has_ended {
            self.ended.get_or_insert(now);
        }
        self.ttl = news.ttl.or(self.ttl);
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
        self.with(owner, id, |kept| {
            let belongs = !kept.is_over(now) && may_call(kept.tool.as_deref());
            if belongs {
                kept.used = now;
            }
            belongs
        })
        .unwrap_or_default()
    }

    /// Whether another task of this principal may begin.
    pub(super) fn has_room(&self, owner: &PrincipalId, now: u64) -> bool {
        let owners = self.part(&self.owners, owner);
        let under_way = |own: &Own| own.values().filter(|kept| kept.free_since(now).is_none()).count();
        owners.get(owner).is_none_or(|own| own.len() < MOST || under_way(own) < MOST)
    }

    /// Remembers a task that begins. The place of one that has ended is given up where there is no other, of the one that
    /// ended first.
    pub(super) fn keep(&self, owner: &PrincipalId, id: Id, tool: Tool, news: News, now: u64) -> Result<(), Lost> {
        let mut kept = Kept { tool, begun: now, used: now, ended: None, ttl: None };
        kept.hear(news, now);
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
            let gone = make_room(own, now);
            if own.len() >= HARD {
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
        self.with(owner, id, |kept| kept.hear(news, now));
    }

    /// Forgets what nobody used for a day.
    pub(super) fn sweep(&self, now: u64) {
        for part in &self.owners {
            let mut gone: Vec<(PrincipalId, Vec<Id>)> = Vec::new();
            lock(part).retain(|owner, own| {
                let over: Vec<Id> =
                    own.iter().filter(|(_, kept)| kept.is_over(now)).map(|(id, _)| id.clone()).collect();
                own.retain(|_, kept| !kept.is_over(now));
                if !over.is_empty() {
                    gone.push((owner.clone(), over));
                }
                !own.is_empty()
            });
            for (owner, ids) in gone {
                self.release(&owner, &ids);
            }
        }
    }

    fn with<T>(&self, owner: &PrincipalId, id: &Id, look: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        self.part(&self.owners, owner).get_mut(owner)?.get_mut(id).map(look)
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

/// Takes out those that ended first, until there is a place or none has ended.
fn make_room(own: &mut Own, now: u64) -> Vec<Id> {
    let mut gone = Vec::new();
    while own.len() >= MOST {
        let ended = own.iter().filter_map(|(id, kept)| Some((kept.free_since(now)?, id)));
        let Some(first) = ended.min_by_key(|(since, _)| *since).map(|(_, id)| id.clone()) else { break };
        own.remove(&first);
        gone.push(first);
    }
    gone
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn life() -> u64 {
    u64::try_from(LIFE.as_micros()).unwrap_or(u64::MAX)
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
    fn a_task_is_over_when_its_server_keeps_it_no_longer() {
        let owner: PrincipalId = serde_json::from_str(r#"{"agent":"a","tenant":"default"}"#).unwrap();
        let table = Table::default();
        let minute = News { has_ended: false, ttl: Some(ticks(60_000.0)) };
        for number in 0..MOST {
            table.keep(&owner, id(number), None, minute, 0).unwrap();
        }
        assert!(!table.has_room(&owner, 59_999_999));
        assert!(table.has_room(&owner, 60_000_000));
        // It is its owner's as long as nobody needs its place.
        assert!(table.belongs(&owner, &id(0), 60_000_000, |_| true));
    }
}
