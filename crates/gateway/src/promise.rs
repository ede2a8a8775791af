//! Tasks and progress of the client, on the aggregate: a server hears of those that answer its own questions, and no others.
//!
//! The client takes all servers for one, and gives whoever asks the tasks and results of any. SECURITY: what one server
//! asked, and what it was answered, is nobody else's to list, read or cancel. On the door of one server all tasks are its own.

use crate::{
    authenticate::Caller,
    call::Route,
    origin::Origin,
    pipeline::Line,
    resolve::One,
    server::Server,
    session::Session,
    stop::{Stage, Stop},
    task,
};
use mcp::{Message, Span, error};
use serde_json::Value;
use vocab::Action;

impl Line {
    /// Whether a server may ask this about a task of the client.
    pub(crate) fn judge_promise(
        &self,
        caller: &Caller,
        (server, origin): (&Server, Option<Origin>),
        session: &Session,
        message: &Message,
    ) -> Result<(), Stop> {
        let method = message.method();
        if session.route != Route::All || mcp::method::action(method) != Some(Action::TaskManage) {
            return Ok(());
        }
        match method {
            // What is listed is narrowed when it comes.
            "tasks/list" => Ok(()),
            "tasks/get" | "tasks/result" | "tasks/cancel" => {
                let task = task::named(message)?;
                let is_own = self.has_promise(caller, (server, origin), session, &task);
                if is_own { Ok(()) } else { Err(task::unknown(&task)) }
            }
            // What it would do with which task nobody can tell.
            _ => {
                let why = format!("Unknown method: {}", crate::label::shown(method));
                Err(Stop::refused(Stage::Resolve, "unknown-method", error::METHOD_NOT_FOUND, why))
            }
        }
    }

    /// Whether the client made this task of an answer to this very process or session of the server, which may ask for such
    /// answers still.
    ///
    /// SECURITY: an answer that is a task is as little for whoever comes in the place of who asked as any other.
    fn has_promise(
        &self,
        caller: &Caller,
        (server, origin): (&Server, Option<Origin>),
        session: &Session,
        task: &str,
    ) -> bool {
        session.promised(task).is_some_and(|(of, asker, asked)| {
            of == server.name && asker == origin && self.may_still_ask(caller, server, &asked)
        })
    }

    /// Whether the client tells the server of a task that it made of an answer to it, and whoever asked is still there.
    pub(crate) fn is_told_of(&self, caller: &Caller, server: &Server, session: &Session, task: &str) -> bool {
        session.promised(task).is_some_and(|(of, asker, asked)| {
            of == server.name && session.still_uses(&of, asker) && self.may_still_ask(caller, server, &asked)
        })
    }

    /// Whether the server may ask this of the caller's client today, as far as its arguments do not decide.
    pub(crate) fn may_still_ask(&self, caller: &Caller, server: &Server, asked: &str) -> bool {
        let action = mcp::method::action(asked).unwrap_or(Action::MethodCall);
        self.snapshot.policies.visible(&caller.subject, action, &server.resource(asked))
    }

    /// The client's answer to `tasks/list` without the tasks that are not for the server that asked.
    pub(crate) fn own_promises(&self, caller: &Caller, one: &One, answer: &Message) -> Option<(Span, Vec<u8>)> {
        let session = one.session.as_ref()?;
        let question = one.answers.as_ref().filter(|question| question.method() == "tasks/list")?;
        let asker = (&*one.server, question.origin);
        let listed = answer.outcome_member(&["tasks"])?;
        let Ok(Value::Array(tasks)) = listed.value() else {
            // SECURITY: what is no list cannot be narrowed.
            return Some((listed.span.clone(), b"[]".to_vec()));
        };
        let is_own = |task: &&Value| {
            let id = task.get("taskId").and_then(Value::as_str);
            id.is_some_and(|id| self.has_promise(caller, asker, session, id))
        };
        let own: Vec<&Value> = tasks.iter().filter(is_own).collect();
        if own.len() == tasks.len() {
            return None;
        }
        let text = serde_json::to_vec(&own).unwrap_or_else(|_| b"[]".to_vec());
        Some((listed.span.clone(), text))
    }
}

/// Progress of what a server asked, by the token that it gave.
pub(crate) fn own_progress(one: &One, said: &Message) -> Option<(Span, Vec<u8>)> {
    let session = one.session.as_ref().filter(|_| said.method() == "notifications/progress")?;
    let shown = said.param(&["progressToken"])?;
    let (server, token, _) = session.progressing(&String::from_utf8_lossy(shown.raw))?;
    (server == one.server.name).then(|| (shown.span, token.into_string().into_bytes()))
}

/// The id of the task that a client's answer is.
pub(crate) fn promised(answer: &Message) -> Option<String> {
    let task = answer.may_begin_task().then(|| answer.outcome_member(&["task", "taskId"])).flatten()?;
    task.text().map(std::borrow::Cow::into_owned)
}
