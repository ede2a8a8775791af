//! What a modern client of the aggregate wants to be told, and what of it is acknowledged: what policy lets it follow, less
//! what the server concerned says that it does not tell of.

use super::{answer::Hand, by_address, narrow::may_subscribe};
use crate::bridge::Crossing;
use mcp::Era;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use vocab::ServerName;

/// The wishes of one `subscriptions/listen`.
pub(super) struct Wishes {
    /// Which lists. The gateway itself sees them change.
    lists: Map<String, Value>,
    /// Resources and tasks; the lists of them are acknowledged, empty or not.
    named: Vec<Named>,
    kinds: Vec<&'static str>,
}

/// One resource, or one task.
struct Named {
    kind: &'static str,
    /// As the client knows it.
    shown: Value,
    server: ServerName,
    /// As its server does.
    own: String,
}

const RESOURCES: &str = "resourceSubscriptions";
const TASKS: &str = "taskIds";

impl Wishes {
    /// What of the filter may be carried.
    pub(super) fn of(hand: &Hand<'_>, filter: &Value) -> Self {
        let mut wishes = Self { lists: Map::new(), named: Vec::new(), kinds: Vec::new() };
        for (key, wanted) in filter.as_object().into_iter().flatten() {
            match (key.as_str(), wanted) {
                ("toolsListChanged" | "promptsListChanged" | "resourcesListChanged", Value::Bool(true)) => {
                    wishes.lists.insert(key.clone(), Value::Bool(true));
                }
                (RESOURCES, Value::Array(uris)) => wishes.add(RESOURCES, uris, |shown| {
                    let (server, uri) = by_address(&hand.many.members, shown)?;
                    may_subscribe(hand.line, hand.caller, &server, &uri).then(|| (server.name.clone(), uri))
                }),
                (TASKS, Value::Array(tasks)) => wishes.add(TASKS, tasks, |task| {
                    let (server, task) = hand.line.task_of(hand.caller, task)?;
                    let member = hand.many.members.iter().find(|member| member.name == server)?;
                    let is_own = Crossing::between(Era::Modern, member) == Crossing::None
                        && hand.line.has_task(hand.caller, member, &task);
                    is_own.then_some((server, task))
                }),
                _ => {}
            }
        }
        wishes
    }

    fn add(&mut self, kind: &'static str, all: &[Value], place: impl Fn(&str) -> Option<(ServerName, String)>) {
        self.kinds.push(kind);
        for shown in all {
            if let Some((server, own)) = shown.as_str().and_then(&place) {
                self.named.push(Named { kind, shown: shown.clone(), server, own });
            }
        }
    }

    /// Without what a server leaves out of its own acknowledgement.
    pub(super) fn narrow(&mut self, server: &ServerName, acknowledged: &Value) {
        let told = |kind| -> HashSet<&str> {
            let told = acknowledged.get(kind).and_then(Value::as_array);
            told.into_iter().flatten().filter_map(Value::as_str).collect()
        };
        let (resources, tasks) = (told(RESOURCES), told(TASKS));
        self.named.retain(|named| {
            let told = if named.kind == RESOURCES { &resources } else { &tasks };
            named.server != *server || told.contains(named.own.as_str())
        });
    }

    /// The message that begins the stream.
    pub(super) fn acknowledgement(&self, id: &str) -> String {
        let mut honoured = self.lists.clone();
        for kind in &self.kinds {
            let told = self.named.iter().filter(|named| named.kind == *kind).map(|named| named.shown.clone());
            honoured.insert((*kind).to_owned(), told.collect());
        }
        let (key, honoured) = (mcp::key::SUBSCRIPTION_ID, json!(honoured));
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"{key}":{id}}},"notifications":{honoured}}}}}"#
        )
    }
}
