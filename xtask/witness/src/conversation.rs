//! What two who speak with each other have agreed on, and what is asked between them.

use crate::plan::Direction;
use serde_json::Value;
use std::collections::HashMap;
use testkit::schema;

/// A session, a program's pipes, or a request that has neither.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// The revision of its `initialize`.
    agreed: Option<&'static str>,
    /// The revision of the newest message.
    latest: Option<&'static str>,
    /// The client that it is about, by what that calls itself.
    pub(crate) client: Option<String>,
    asked: HashMap<(Direction, String), Question>,
}

#[derive(Debug, Clone)]
struct Question {
    method: String,
    revision: Option<&'static str>,
    /// How many answers to it have not come: more than one where an id was used again too soon.
    open: usize,
}

/// What has to be known of a message to judge it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sense {
    pub(crate) revision: Option<&'static str>,
    /// The method that it answers.
    pub(crate) answers: Option<String>,
    /// That was answered before.
    pub(crate) is_repeated: bool,
    /// What it is, in words.
    pub(crate) what: String,
}

impl Conversation {
    /// Takes note of a message. `header` is the revision that HTTP names.
    pub(crate) fn hear(&mut self, direction: Direction, header: Option<&str>, message: &Value) -> Sense {
        let id = message.get("id").map(ToString::to_string);
        let method = message.get("method").and_then(Value::as_str);
        let question = id.as_ref().filter(|_| method.is_none());
        let asked = question.and_then(|id| self.asked.get_mut(&(direction.back(), id.clone())));
        let question = asked.map(|asked| {
            let before = asked.clone();
            asked.open = asked.open.saturating_sub(1);
            before
        });
        let is_repeated = question.as_ref().is_some_and(|question| question.open == 0);
        if let Some(Question { method, .. }) = &question
            && method == "initialize"
        {
            let agreed = message.pointer("/result/protocolVersion").and_then(Value::as_str);
            self.agreed = agreed.and_then(schema::known).or(self.agreed);
        }
        // INVARIANT: what was agreed on counts, whatever a message says of itself.
        let revision = self.agreed.or_else(|| match &question {
            Some(question) => question.revision,
            None => schema::named(message).or_else(|| header.and_then(schema::known)).or(self.latest),
        });
        self.latest = revision.or(self.latest);
        if let Some(method) = method {
            self.client = client(message).or_else(|| self.client.take());
            if let Some(id) = id {
                let key = (direction, id);
                let open = self.asked.get(&key).map_or(0, |asked| asked.open) + 1;
                self.asked.insert(key, Question { method: method.to_owned(), revision, open });
            }
        }
        let answers = question.map(|question| question.method);
        let what = match (method, &answers) {
            (Some(method), _) => method.to_owned(),
            (None, Some(method)) => format!("answer to {method}"),
            (None, None) => "answer to nothing".to_owned(),
        };
        Sense { revision, answers, is_repeated, what }
    }
}

/// What the client that a message comes from calls itself.
fn client(message: &Value) -> Option<String> {
    let introduced = message.pointer("/params/clientInfo/name");
    let named = || message.pointer("/params/_meta/io.modelcontextprotocol~1clientInfo/name");
    introduced.or_else(named).and_then(Value::as_str).map(str::to_owned)
}
