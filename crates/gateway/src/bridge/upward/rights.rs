//! Which of the resources that a client follows on a server it may hear of at this moment: judged anew when something is
//! other than it was, and not otherwise.

use super::followed::{Asked, Subscription};
use crate::{pipeline::Line, session::Session};
use identity::{CredentialId, Principal};
use mcp::bridge::is_at_or_below;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};
use vocab::{Action, ServerName};

/// Resources that a client follows, by what it may hear.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// Of those that are followed.
    pub(super) version: u64,
    /// Addresses that may be told of, each with the version that it came with: one that was given up and asked for again is
    /// another.
    pub(crate) uris: BTreeMap<Arc<str>, u64>,
    /// Addresses that may not.
    shut: BTreeSet<Arc<str>>,
}

impl Open {
    /// Whether of this address may be told on a stream that was asked for others. What lies below a resource is told with
    /// it, and is none that anybody asked for: the closest of those above that are followed decides.
    pub(super) fn tells(&self, uri: &str, asked: &Self) -> bool {
        let is_open = |known: &Arc<str>| self.uris.contains_key(known);
        let is_shut = |known: &Arc<str>| self.shut.contains(known);
        self.decides(uri).unwrap_or_else(|| {
            // What the client gave up is over. SECURITY: what lies below nothing, a server may see below any of them.
            let mut all = asked.uris.keys();
            // Who follows nothing is told nothing.
            let of_any = if asked.uris.is_empty() { !self.is_empty() } else { asked.uris.keys().any(is_open) };
            of_any && !all.any(|known| is_at_or_below(uri, known) || is_shut(known))
        })
    }

    /// Whether nothing is followed, be it allowed or not.
    pub(crate) fn is_empty(&self) -> bool {
        self.uris.is_empty() && self.shut.is_empty()
    }

    /// What those decide of an address that it lies at or below. `None`: it lies below nothing.
    pub(crate) fn decides(&self, uri: &str) -> Option<bool> {
        match (closest(uri, self.uris.keys()), closest(uri, self.shut.iter())) {
            (Some(open), shut) => Some(shut.is_none_or(|shut| shut < open)),
            (None, Some(_)) => Some(false),
            (None, None) => None,
        }
    }
}

/// How long the closest of those is that an address lies at or below.
fn closest<'a>(uri: &str, all: impl Iterator<Item = &'a Arc<str>>) -> Option<usize> {
    all.filter(|known| is_at_or_below(uri, known)).map(|known| known.len()).max()
}

/// What a judgement rests on. It stands for as long as this is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    /// Of the snapshot: policies, servers, and what agents are.
    generation: u64,
    /// What a token says of its bearer.
    credential: CredentialId,
    /// Of those that are followed. What a request names stays the same.
    version: u64,
    /// Where a rule reads the time. It sees no less than a second.
    second: Option<i64>,
}

/// What a caller may hear of on one server, as it was judged last.
pub(crate) struct Rights {
    server: ServerName,
    judged: Mutex<Option<(Basis, Arc<Open>)>>,
}

impl Rights {
    pub(crate) fn on(server: &ServerName) -> Self {
        Self { server: server.clone(), judged: Mutex::default() }
    }

    /// What a session may hear of at this moment. No server hears what is followed on another.
    pub(crate) fn now(&self, line: &Line, session: &Session) -> Arc<Open> {
        let version = session.upward.version();
        self.of(line, &session.holder(), version, || session.upward.followed_on(&self.server))
    }

    /// What a listener of the modern era may hear of at this moment of these: of each it said no more than the address.
    pub(crate) fn of_listener(&self, line: &Line, listener: &Principal, uris: &[Arc<str>]) -> Arc<Open> {
        self.of(line, listener, 0, || {
            let asked = Arc::new(Asked::default());
            let bare = |uri: &Arc<str>| (Arc::clone(uri), Subscription { since: 0, asked: Arc::clone(&asked) });
            (0, uris.iter().map(bare).collect())
        })
    }

    fn of(
        &self,
        line: &Line,
        holder: &Principal,
        version: u64,
        followed: impl FnOnce() -> (u64, Vec<(Arc<str>, Subscription)>),
    ) -> Arc<Open> {
        let Some((caller, server)) = line.may_hear(holder, &self.server) else { return Arc::default() };
        let basis = Basis {
            generation: line.snapshot.identity.generation(),
            credential: holder.credential_id().clone(),
            version,
            second: line
                .snapshot
                .policies
                .reads_clock(Action::ResourceSubscribe)
                .then(|| line.state.clock.now().as_seconds()),
        };
        self.by(basis, || {
            let (version, all) = followed();
            let mut open = Open { version, ..Open::default() };
            for (uri, one) in all {
                match one.asked.judge(line, &caller, server, &uri) {
                    Ok(()) => drop(open.uris.insert(uri, one.since)),
                    Err(_) => drop(open.shut.insert(uri)),
                }
            }
            open
        })
    }

    fn by(&self, basis: Basis, judge: impl FnOnce() -> Open) -> Arc<Open> {
        let judged = || self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let known = judged().as_ref().filter(|(before, _)| *before == basis).map(|(_, open)| Arc::clone(open));
        known.unwrap_or_else(|| {
            let open = Arc::new(judge());
            *judged() = Some((basis, Arc::clone(&open)));
            open
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Basis, Open, Rights};
    use identity::CredentialId;
    use std::{cell::Cell, sync::Arc};
    use vocab::{Digest, ServerName};

    fn rights(open: &[&str], shut: &[&str]) -> Open {
        let (uris, shut) = (open.iter().map(|uri| (Arc::from(*uri), 1)), shut.iter().map(|uri| Arc::from(*uri)));
        Open { version: 1, uris: uris.collect(), shut: shut.collect() }
    }

    #[test]
    fn what_lies_below_a_resource_goes_with_it() {
        let all = ["file:///a", "file:///a/b", "file:///c/", "db:t"];
        for (told, shut, is_told) in [
            ("other:x", &[][..], true),
            ("file:///a/x", &["file:///a/b", "db:t"], true),
            ("file:///c/x", &["file:///a/b", "db:t"], true),
            ("file:///a/b", &["file:///a/b", "db:t"], false),
            ("file:///a/b/x", &["file:///a/b", "db:t"], false),
            ("file:///a", &["file:///a"], false),
            ("file:///a?x", &["file:///a"], false),
            ("file:///a/b/x", &["file:///a"], true),
            // It may belong to what was withdrawn.
            ("db:t:row", &["db:t"], false),
            ("file:///ab", &["file:///c/"], false),
            ("file:///a/x", &all, false),
        ] {
            let open: Vec<_> = all.into_iter().filter(|uri| !shut.contains(uri)).collect();
            assert_eq!(rights(&open, shut).tells(told, &rights(&all, &[])), is_told, "{told}, {shut:?}");
        }
        assert!(!Open::default().tells("other:x", &Open::default()), "nobody asked for anything");
    }

    #[test]
    fn what_the_client_gives_up_takes_nothing_else_with_it() {
        let asked = rights(&["file:///a", "file:///a/b", "db:t"], &[]);
        for (left, told, is_told) in [
            (&["file:///a", "db:t"][..], "file:///a/b", true),
            (&["file:///a", "db:t"], "view:of-either", true),
            (&["file:///a", "file:///a/b"], "db:t", false),
            (&["file:///a", "file:///a/b"], "db:t/row", false),
            (&[], "view:of-either", false),
        ] {
            assert_eq!(rights(left, &[]).tells(told, &asked), is_told, "{told} of {left:?}");
        }
    }

    #[test]
    fn a_stream_that_is_asked_for_less_tells_nothing_of_what_may_not_be_followed() {
        let now = rights(&["file:///a"], &["file:///a/b"]);
        let asked = rights(&["file:///a"], &["file:///a/b"]);
        for (told, is_told) in [("file:///a/b", false), ("file:///a/b/x", false), ("file:///a/x", true)] {
            assert_eq!(now.tells(told, &asked), is_told, "{told}");
        }
    }

    #[test]
    fn nothing_is_judged_again_unless_something_is_other_than_it_was() {
        let (rights, times) = (Rights::on(&ServerName::new("files").unwrap()), Cell::new(0));
        let judge = |basis: &Basis| {
            rights.by(basis.clone(), || {
                times.set(times.get() + 1);
                Open::default()
            });
            times.get()
        };
        let basis = Basis { generation: 1, credential: CredentialId::Anonymous, version: 1, second: None };
        assert_eq!((judge(&basis), judge(&basis)), (1, 1));
        let others = [
            Basis { generation: 2, ..basis.clone() },
            Basis { credential: CredentialId::Token(Digest::of(b"")), ..basis.clone() },
            Basis { version: 2, ..basis.clone() },
            Basis { second: Some(1), ..basis.clone() },
        ];
        for (before, other) in others.iter().enumerate() {
            assert_eq!((judge(other), judge(other)), (before + 2, before + 2), "{other:?}");
        }
        assert_eq!(judge(&basis), 6, "only the last is known");
    }
}
