//! Tasks of both eras: whoever wants one gets it, and it has ended when it is asked after. Keeps none of them.

use super::{Era, Message, Params, Server};
use std::sync::atomic::Ordering;

/// The extension that a modern client names.
const EXTENSION: &str = "io.modelcontextprotocol/tasks";
const AT: &str = r#""createdAt":"2026-07-28T00:00:00Z","lastUpdatedAt":"2026-07-28T00:00:00Z""#;
/// What a task has come to.
const DONE: &str = r#""content":[{"type":"text","text":"a"}]"#;

impl Params<'_> {
    /// Whether its client wants a task of the call, or can do with one.
    pub(super) fn wants_task(&self, era: Era) -> bool {
        match era {
            Era::Legacy => self.task.is_some(),
            Era::Modern => self.meta.as_ref().is_some_and(|meta| meta.can.extensions.contains_key(EXTENSION)),
        }
    }
}

impl Message<'_> {
    /// Whether a header names what it should beside the method.
    pub(super) fn is_named(&self, header: Option<&str>) -> bool {
        if self.method.starts_with("tasks/") {
            // Clients that know the extension by its text alone leave it out.
            return header.is_none() || header == self.params.task_id.as_deref();
        }
        header == self.params.name.as_deref()
    }
}

impl Server {
    /// A call that has become a task.
    pub(super) fn begun(&self, era: Era, id: &str) -> String {
        let task = self.tasks.fetch_add(1, Ordering::Relaxed);
        let task = format!(r#""taskId":"bench-task-{task}","status":"working",{AT}"#);
        match era {
            Era::Legacy => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"task":{{{task},"ttl":60000}}}}}}"#),
            Era::Modern => {
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"task",{task},"ttlMs":60000}}}}"#)
            }
        }
    }
}

/// What has become of a task.
pub(super) fn told(era: Era, id: &str, message: &Message<'_>) -> String {
    let task = message.params.task_id.as_deref().unwrap_or_default();
    let status = if message.method == "tasks/cancel" { "cancelled" } else { "completed" };
    let task = format!(r#""taskId":"{task}","status":"{status}",{AT}"#);
    let result = match (&*message.method, era) {
        ("tasks/result", _) => DONE.to_owned(),
        ("tasks/cancel", Era::Modern) => r#""resultType":"complete""#.to_owned(),
        (_, Era::Modern) => format!(r#""resultType":"complete",{task},"ttlMs":60000,"result":{{{DONE}}}"#),
        (_, Era::Legacy) => format!(r#"{task},"ttl":60000"#),
    };
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{{result}}}}}"#)
}
