//! Which of the resources that a session follows on a server its caller may hear of at this moment: judged anew when
//! something is other than it was, and not otherwise.

use crate::{pipeline::Line, session::Session};
use identity::CredentialId;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use vocab::{Action, ServerName};

/// Resources that a caller may hear of.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Of those that are followed.
    pub(super) version: u64,
    /// Addresses, each with the version that it came with: one that was given up and asked for again is another.
    pub(super) uris: BTreeMap<Arc<str>, u64>,
}

impl Open {
    /// Whether of this address may be told on a stream that was asked for others. What lies below a resource is told with
    /// it, and is none that anybody asked for: the closest of those above decides.
    pub(super) fn tells(&self, uri: &str, asked: &Self) -> bool {
        let is_open = |known: &Arc<str>| self.uris.contains_key(known);
        match asked.uris.keys().filter(|known| is_at_or_below(uri, known)).max_by_key(|known| known.len()) {
            Some(closest) => is_open(closest),
            // SECURITY: a server may see it below any of them.
            None => asked.uris.keys().all(is_open),
        }
    }
}

fn is_at_or_below(uri: &str, above: &str) -> bool {
    let ends = ['/', '?', '#'];
    uri.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(ends) || above.ends_with(ends))
}

/// What a judgement rests on. It stands for as long as this is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    /// Of the snapshot: policies, servers, and what agents are.
    generation: u64,
    /// What a token says of its bearer.
    credential: CredentialId,
    /// Of those that are followed.
    version: u64,
    /// Where a rule reads the time. It sees no less than a second.
    second: Option<i64>,
}

/// What a caller may hear of on one server, as it was judged last.
pub(super) struct Rights {
    server: ServerName,
    judged: Mutex<Option<(Basis, Arc<Open>)>>,
}

impl Rights {
    pub(super) fn on(server: &ServerName) -> Self {
        Self { server: server.clone(), judged: Mutex::default() }
    }

    /// What it may hear of at this moment. No server hears what is followed on another.
    pub(super) fn now(&self, line: &Line, session: &Session) -> Arc<Open> {
        let holder = session.holder();
        let Some((caller, server)) = line.may_hear(&holder, &self.server) else { return Arc::default() };
        let basis = Basis {
            generation: line.snapshot.identity.generation(),
            credential: holder.credential_id().clone(),
            version: session.upward.version(),
            second: line
                .snapshot
                .policies
                .reads_clock(Action::ResourceSubscribe)
                .then(|| line.state.clock.now().as_seconds()),
        };
        self.by(basis, || {
            let (version, all) = session.upward.followed_on(&self.server);
            let open = all.into_iter().filter(|(uri, one)| one.asked.judge(line, &caller, server, uri).is_ok());
            Open { version, uris: open.map(|(uri, one)| (uri, one.since)).collect() }
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

    fn open(uris: &[&str]) -> Open {
        Open { version: 1, uris: uris.iter().map(|uri| (Arc::from(*uri), 1)).collect() }
    }

    #[test]
    fn what_lies_below_a_resource_goes_with_it() {
        let asked = open(&["file:///a", "file:///a/b", "file:///c/", "db:t"]);
        for (left, told, is_told) in [
            (&["file:///a", "file:///a/b", "file:///c/", "db:t"][..], "other:x", true),
            (&["file:///a", "file:///c/"], "file:///a/x", true),
            (&["file:///a", "file:///c/"], "file:///c/x", true),
            (&["file:///a", "file:///c/"], "file:///a/b", false),
            (&["file:///a", "file:///c/"], "file:///a/b/x", false),
            (&["file:///a/b", "file:///c/"], "file:///a", false),
            (&["file:///a/b", "file:///c/"], "file:///a?x", false),
            (&["file:///a/b", "file:///c/"], "file:///a/b/x", true),
            // It may belong to what was withdrawn.
            (&["file:///a", "file:///a/b", "file:///c/"], "db:t:row", false),
            (&["file:///a", "file:///a/b", "db:t"], "file:///ab", false),
            (&[], "file:///a/x", false),
        ] {
            assert_eq!(open(left).tells(told, &asked), is_told, "{told} of {left:?}");
        }
        assert!(Open::default().tells("other:x", &Open::default()), "no right to anything was withdrawn");
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
