//! The resources that a legacy session follows, each with what was said when it was asked for: by that
//! its right is judged again, for as long as it is followed. Bounded.

use crate::{authenticate::Caller, forward::Judged, pipeline::Line, server::Server};
use mcp::Message;
use serde_json::json;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};
use vocab::{Finding, RuleId, ServerName};

/// Resources that one session may follow.
const MOST: usize = 1024;
/// The longest address that is followed, in bytes.
const LONGEST: usize = 2048;
/// What is kept beside the addresses of one session, in bytes.
const BESIDE: usize = 256 << 10;

/// Resources that are followed.
#[derive(Default)]
pub(crate) struct Followed {
    /// How often it changed.
    version: u64,
    /// Each by the server that it was asked of, for others do not hear of it.
    all: BTreeMap<ServerName, BTreeMap<Arc<str>, Subscription>>,
    /// Of all of them.
    beside: usize,
}

/// A resource that is followed.
#[derive(Clone)]
pub(crate) struct Subscription {
    /// The version that it came with.
    pub(super) since: u64,
    pub(crate) asked: Arc<Asked>,
}

/// A resource that was just asked for.
pub(crate) struct Taken {
    /// The version that it came with.
    pub(super) since: u64,
    asked: Arc<Asked>,
    before: Before,
}

/// What was there when a resource was asked for.
enum Before {
    Nothing,
    /// It was followed, and asked for in these words.
    Same,
    /// It was followed, and asked for in others.
    Words(Arc<Asked>),
}

/// What policy was asked about a subscription, beside its address.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// All parameters, where there are others. A text: a tree of it can be many times as large.
    params: Option<Box<[u8]>>,
    findings: Vec<Finding>,
}

impl Asked {
    /// Of `resources/subscribe`, as it was judged.
    pub(crate) fn of(message: &Message, judged: &Judged) -> Self {
        let is_bare = judged.arguments.as_object().is_some_and(|members| members.len() == 1);
        let params = message.params().filter(|_| !is_bare).map(Box::from);
        Self { params, findings: judged.findings.clone() }
    }

    /// Whether policy lets the caller follow the resource at this moment; if not, by which rules.
    pub(crate) fn judge(&self, line: &Line, caller: &Caller, server: &Server, uri: &str) -> Result<(), Vec<RuleId>> {
        let arguments = match &self.params {
            None => Ok(json!({ "uri": uri })),
            Some(params) => mcp::value(params),
        };
        // They were read once, so they can be read again; if not, nobody knows what was asked.
        let arguments = arguments.map_err(|_| Vec::new())?;
        line.may_subscribe(caller, server, uri, &arguments, &self.findings).map_err(|refusal| refusal.rules)
    }

    /// The request that asks a legacy server for it again.
    pub(crate) fn request(&self, id: &str, uri: &str) -> Vec<u8> {
        let bare = json!({ "uri": uri }).to_string();
        let params = self.params.as_deref().unwrap_or(bare.as_bytes());
        let head = format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"resources/subscribe","params":"#);
        [head.as_bytes(), params, b"}"].concat()
    }

    fn size(&self) -> usize {
        let findings = self.findings.iter().map(|finding| size_of::<Finding>() + finding.pointer.len());
        self.params.as_ref().map_or(0, |params| params.len()) + findings.sum::<usize>()
    }
}

impl Followed {
    /// How often it changed.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Those on a server. A copy: they are judged while others come and go.
    pub(super) fn on(&self, server: &ServerName) -> Vec<(Arc<str>, Subscription)> {
        self.all.get(server).into_iter().flatten().map(|(uri, one)| (Arc::clone(uri), one.clone())).collect()
    }

    /// What was said when one was asked for. `None` if it is not followed.
    pub(super) fn asked(&self, server: &ServerName, uri: &str) -> Option<Arc<Asked>> {
        self.all.get(server)?.get(uri).map(|one| Arc::clone(&one.asked))
    }

    /// One more, or one that is asked for in other words; unless there are too many, its address is too long, or too much
    /// came with it.
    pub(super) fn follow(&mut self, server: &ServerName, uri: &str, asked: Asked) -> Option<Taken> {
        let is_full = self.all.values().map(BTreeMap::len).sum::<usize>() >= MOST;
        let before = self.asked(server, uri);
        let beside = self.beside - before.as_ref().map_or(0, |asked| asked.size()) + asked.size();
        if uri.len() > LONGEST || beside > BESIDE || (is_full && before.is_none()) {
            return None;
        }
        let (next, asked) = (self.version + 1, Arc::new(asked));
        let (since, before) = match self.all.entry(server.clone()).or_default().entry(Arc::from(uri)) {
            Entry::Occupied(known) if known.get().asked == asked => {
                let Subscription { since, asked } = known.get().clone();
                return Some(Taken { since, asked, before: Before::Same });
            }
            Entry::Occupied(mut known) => {
                let words = std::mem::replace(&mut known.get_mut().asked, Arc::clone(&asked));
                (known.get().since, Before::Words(words))
            }
            Entry::Vacant(new) => {
                (new.insert(Subscription { since: next, asked: Arc::clone(&asked) }).since, Before::Nothing)
            }
        };
        (self.version, self.beside) = (next, beside);
        Some(Taken { since, asked, before })
    }

    /// What was asked for is refused: all is as before. `false` if nothing changes by that.
    pub(super) fn take_back(&mut self, server: &ServerName, uri: &str, taken: &Taken) -> bool {
        let words = match &taken.before {
            Before::Nothing => return self.unfollow(server, uri),
            Before::Same => return false,
            Before::Words(words) => words,
        };
        let known = self.all.get_mut(server).and_then(|on| on.get_mut(uri));
        // Others may have come since.
        let Some(known) = known.filter(|known| Arc::ptr_eq(&known.asked, &taken.asked)) else { return false };
        known.asked = Arc::clone(words);
        self.beside = self.beside - taken.asked.size() + words.size();
        self.version += 1;
        true
    }

    /// One less. `false` if it was not followed.
    pub(super) fn unfollow(&mut self, server: &ServerName, uri: &str) -> bool {
        let Some(on) = self.all.get_mut(server) else { return false };
        let Some(known) = on.remove(uri) else { return false };
        if on.is_empty() {
            self.all.remove(server);
        }
        self.beside -= known.asked.size();
        self.version += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, BESIDE, Followed, LONGEST, MOST};
    use vocab::ServerName;

    fn with(beside: usize) -> Asked {
        Asked { params: Some(vec![b' '; beside].into()), findings: Vec::new() }
    }

    /// The version that a resource came with.
    fn since(followed: &mut Followed, server: &ServerName, uri: &str, beside: usize) -> Option<u64> {
        followed.follow(server, uri, with(beside)).map(|taken| taken.since)
    }

    #[test]
    fn what_a_session_follows_is_bounded_and_given_back() {
        let (files, mut followed) = (ServerName::new("files").unwrap(), Followed::default());
        assert!(followed.follow(&files, &"x".repeat(LONGEST + 1), Asked::default()).is_none());
        assert_eq!(since(&mut followed, &files, "a", BESIDE), Some(1));
        assert!(followed.follow(&files, "b", with(1)).is_none(), "nothing more is kept beside the addresses");
        // The same in fewer words came with the same version, and leaves room.
        assert_eq!(since(&mut followed, &files, "a", BESIDE - 1), Some(1));
        assert_eq!(since(&mut followed, &files, "b", 1), Some(3));
        assert!(followed.unfollow(&files, "a") && !followed.unfollow(&files, "a"));
        assert_eq!(since(&mut followed, &files, "c", BESIDE - 1), Some(5));
        for number in 2..MOST {
            assert!(followed.follow(&files, &number.to_string(), Asked::default()).is_some());
        }
        assert!(followed.follow(&files, "one more", Asked::default()).is_none());
        assert_eq!(followed.on(&files).len(), MOST);
        assert!(followed.follow(&files, "2", Asked::default()).is_some(), "it is followed already");
    }

    #[test]
    fn only_what_changes_something_makes_a_version() {
        let (files, mut followed) = (ServerName::new("files").unwrap(), Followed::default());
        followed.follow(&files, "a", with(1));
        followed.follow(&files, "a", with(1));
        assert_eq!(followed.version(), 1);
        followed.follow(&files, "a", with(2));
        assert_eq!(followed.version(), 2, "it is judged by other words from now on");
    }

    #[test]
    fn what_is_refused_leaves_all_as_it_was() {
        let (files, mut followed) = (ServerName::new("files").unwrap(), Followed::default());
        let new = followed.follow(&files, "b", with(9)).unwrap();
        assert!(followed.take_back(&files, "b", &new) && followed.asked(&files, "b").is_none());
        followed.follow(&files, "a", with(1)).unwrap();
        let same = followed.follow(&files, "a", with(1)).unwrap();
        assert!(!followed.take_back(&files, "a", &same), "it was followed already");
        let other = followed.follow(&files, "a", with(BESIDE)).unwrap();
        assert!(followed.take_back(&files, "a", &other));
        assert_eq!(followed.asked(&files, "a").unwrap().size(), 1, "it is judged by the words that were taken");
        assert_eq!(
            since(&mut followed, &files, "c", BESIDE - 1),
            Some(followed.version()),
            "what they took is given back"
        );
        let (older, newer) = (followed.follow(&files, "a", with(0)).unwrap(), followed.follow(&files, "a", with(1)));
        assert!(newer.is_some() && !followed.take_back(&files, "a", &older), "others came since");
        assert_eq!(followed.asked(&files, "a").unwrap().size(), 1);
    }
}
