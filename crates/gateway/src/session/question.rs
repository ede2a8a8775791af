//! What servers asked in a session, until the client has answered.

use super::{Session, lock, promise::Promise};
use crate::origin::Origin;
use policy::Permit;
use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::Ordering,
};
use vocab::{Digest, ServerName};

/// Questions of servers that may wait for their answer, per session.
const ASKED: usize = 256;

/// Questions without an answer, and the order in which they came.
#[derive(Default)]
pub(super) struct Questions {
    waiting: HashMap<String, Asked>,
    order: VecDeque<String>,
    /// What the client answers with a task, the oldest first.
    pub(super) promises: VecDeque<Promise>,
}

/// A question of a server that the client has not answered yet.
pub struct Asked {
    /// The server that asked.
    pub server: ServerName,
    /// Which of its processes or sessions. `None`: whoever waits for the answer waits here.
    pub origin: Option<Origin>,
    /// It was taken back: nobody waits for its answer any more.
    pub is_withdrawn: bool,
    /// The id that the client knows.
    pub shown: Box<str>,
    /// The id under which it asked, as it wrote it.
    pub id: Box<str>,
    /// The progress token that it gave with it, as it wrote it. On the aggregate the client knows it as `shown`.
    pub token: Option<Box<str>>,
    /// What it asked.
    pub method: Box<str>,
    /// The permit for asking: the answer travels back under it.
    pub permit: Permit,
    /// The digest of what was asked.
    pub digest: Digest,
}

impl Questions {
    /// What was asked under an id of the server's: the newest, should it use one twice.
    fn of(&mut self, server: &ServerName, origin: Option<Origin>, id: &str) -> Option<&mut Asked> {
        let key = mcp::id_key(id);
        let is_meant =
            |asked: &Asked| asked.server == *server && asked.origin == origin && mcp::id_key(&asked.id) == key;
        let newest = self.order.iter().rev().find(|shown| self.waiting.get(*shown).is_some_and(is_meant))?;
        self.waiting.get_mut(newest)
    }

    fn keep(&mut self, key: String, asked: Asked) -> Option<Asked> {
        let Self { waiting, order, .. } = self;
        if waiting.insert(key.clone(), asked).is_some() {
            // Asked once more under the same id, it is the newest.
            order.retain(|known| *known != key);
        }
        order.push_back(key);
        if order.len() <= ASKED {
            return None;
        }
        let is_withdrawn = |known: &String| waiting.get(known).is_some_and(|asked| asked.is_withdrawn);
        let withdrawn = order.iter().position(is_withdrawn);
        let gone = order.remove(withdrawn.unwrap_or_default())?;
        waiting.remove(&gone).filter(|gone| !gone.is_withdrawn)
    }

    /// The same for one whose answer could not be decided. Where another waits under its id by now, that stays, and this one is
    /// given back, unless whoever asked means the other by that id.
    fn keep_again(&mut self, key: String, asked: Asked) -> Option<Asked> {
        match self.waiting.get(&key).map(|other| other.origin) {
            None => self.keep(key, asked),
            Some(origin) => Some(asked).filter(|asked| asked.origin != origin),
        }
    }
}

impl Session {
    /// Remembers a question. Where too many wait, the oldest is forgotten, and given back: many are never answered. One that
    /// was taken back goes first.
    #[must_use = "a server waits for the answer to what is forgotten"]
    pub fn ask(&self, client_id: &str, asked: Asked) -> Option<Asked> {
        lock(&self.asked).keep(mcp::id_key(client_id), asked)
    }

    /// Remembers a question again whose answer could not be decided.
    #[must_use = "a server waits for the answer to what is forgotten"]
    pub(crate) fn ask_again(&self, client_id: &str, asked: Asked) -> Option<Asked> {
        lock(&self.asked).keep_again(mcp::id_key(client_id), asked)
    }

    /// The question that the client answers with this id. It can be answered once.
    pub fn answered(&self, client_id: &str) -> Option<Asked> {
        let mut questions = lock(&self.asked);
        let key = mcp::id_key(client_id);
        let found = questions.waiting.remove(&key)?;
        questions.order.retain(|known| *known != key);
        Some(found)
    }

    /// The id that the client knows of a question that waits, given the id under which it was asked.
    pub(crate) fn shown_question(&self, server: &ServerName, origin: Option<Origin>, id: &str) -> Option<String> {
        let mut questions = lock(&self.asked);
        let found = questions.of(server, origin, id).filter(|asked| !asked.is_withdrawn)?;
        Some(found.shown.to_string())
    }

    /// Whoever asked under this id takes the question back. The id that the client knows.
    pub(crate) fn withdraw(&self, server: &ServerName, origin: Option<Origin>, id: &str) -> Option<String> {
        let mut questions = lock(&self.asked);
        let found = questions.of(server, origin, id)?;
        found.is_withdrawn = true;
        Some(found.shown.to_string())
    }

    /// Whether `server` waits for the answer to the question that the client knows by this id.
    pub(crate) fn is_asked_by(&self, server: &ServerName, client_id: &str) -> bool {
        let questions = lock(&self.asked);
        let asked = questions.waiting.get(&mcp::id_key(client_id));
        asked.is_some_and(|asked| asked.server == *server && !asked.is_withdrawn)
    }

    /// Whether the client owes `server` an answer to what it asked there.
    pub(crate) fn is_asked_over(&self, server: &ServerName, origin: Option<Origin>) -> bool {
        let questions = lock(&self.asked);
        let is_owed = |asked: &Asked| asked.server == *server && asked.origin == origin && !asked.is_withdrawn;
        questions.waiting.values().any(is_owed)
    }

    /// Whether the client knows a question of somebody else by this id.
    pub(crate) fn is_taken(&self, client_id: &str, origin: Option<Origin>) -> bool {
        let questions = lock(&self.asked);
        questions.waiting.get(&mcp::id_key(client_id)).is_some_and(|asked| asked.origin != origin)
    }

    /// The question of which the client tells progress by this token: who asked, by which token, and what.
    pub fn progressing(&self, client_token: &str) -> Option<(ServerName, Box<str>, Box<str>)> {
        let key = mcp::id_key(client_token);
        let questions = lock(&self.asked);
        if let Some(asked) = questions.waiting.get(&key) {
            let token = asked.token.clone().filter(|_| self.still_uses(&asked.server, asked.origin))?;
            return Some((asked.server.clone(), token, asked.method.clone()));
        }
        // SPEC: a task goes on with the token of the request that it was made of.
        let promise = questions.promises.iter().find(|promise| promise.is_told_by(&key))?;
        self.still_uses(&promise.server, promise.origin).then(|| promise.progressing())?
    }

    /// An id for a question, unique in this session whatever the servers choose.
    pub fn question_id(&self) -> u64 {
        self.next_question.fetch_add(1, Ordering::Relaxed)
    }

    /// Who asked the question that the client answers with this id.
    pub fn asker(&self, client_id: &str) -> Option<ServerName> {
        lock(&self.asked).waiting.get(&mcp::id_key(client_id)).map(|asked| asked.server.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Origin, Questions};
    use policy::{Policies, Resource, Source, Subject};
    use std::sync::Arc;
    use vocab::{AgentId, Digest, PrincipalId, ServerName, TargetId, TenantId};

    fn asked(origin: Origin, method: &str) -> Asked {
        let tenant = TenantId::default_tenant();
        let server = ServerName::new("files").unwrap();
        let rule = r#"{"policy": "test", "rules": [{"id": "all", "action": "*", "target": "*/*", "effect": "allow"}]}"#;
        let policies = Policies::compile(&[Source { name: "test.json".to_owned(), text: rule.to_owned() }]).unwrap();
        let id =
            PrincipalId { tenant: tenant.clone(), agent: AgentId::new("alice").unwrap(), user: None, issuer: None };
        let subject =
            Subject { id, roles: Vec::new(), groups: Vec::new(), scopes: Vec::new(), environments: Vec::new() };
        let id = TargetId { name: Arc::from(""), server: server.clone(), tenant };
        let resource = Resource { id, environment: None, class: vocab::Class::default(), labels: Vec::new() };
        Asked {
            server,
            origin: Some(origin),
            is_withdrawn: false,
            shown: Box::from("1"),
            id: Box::from("1"),
            token: None,
            method: Box::from(method),
            permit: policies.authorize_open(&subject, "ping", &[resource]).unwrap(),
            digest: Digest::of(b""),
        }
    }

    #[test]
    fn a_question_that_waits_again_takes_no_other_its_place() {
        let key = || "1".to_owned();
        let waits = |questions: &Questions| questions.waiting.get("1").map(|asked| asked.method.to_string());
        let (old, new) = (Origin::new(), Origin::new());
        let mut questions = Questions::default();
        assert!(questions.keep_again(key(), asked(old, "first")).is_none());
        assert_eq!(waits(&questions).as_deref(), Some("first"), "its place is free");
        // That of the process in its place stays, and whoever asked is told.
        questions = Questions::default();
        assert!(questions.keep(key(), asked(new, "second")).is_none());
        let given_back = questions.keep_again(key(), asked(old, "first")).unwrap();
        assert_eq!((&*given_back.method, waits(&questions).as_deref()), ("first", Some("second")));
        // One that means another question by the same id now is told nothing: it would take it for an answer to that.
        assert!(questions.keep_again(key(), asked(new, "first")).is_none());
        assert_eq!(waits(&questions).as_deref(), Some("second"));
        assert_eq!(questions.order.len(), 1);
    }
}
