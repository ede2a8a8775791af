//! Tasks: whoever began one may manage it, and nobody else.
//!
//! Servers hand out task ids, and many take whoever knows one for its owner. Here an id belongs to the principal whose
//! call began the task, for a day after it was last used, as long as it may call the tool that was called. To everybody
//! else it is unknown, as it is after a restart of the gateway. On the aggregate ids are sealed, and carry their server; across a bridge there are no tasks.

mod seal;
mod table;

use crate::{
    authenticate::Caller,
    bridge::Crossing,
    call::{Call, Route, header},
    forward::Exchange,
    label,
    pipeline::Line,
    resolve::{One, Target},
    server::Server,
    stop::{Stage, Stop},
};
use bytes::Bytes;
use mcp::{Era, Kind, Message, error};
use memchr::memmem::Finder;
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use table::{Id, Lost, MOST, News, Table};
use vocab::{Action, Digest, PrincipalId, ServerName};

/// The extension of the modern era.
pub(crate) const EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// Where messages say which task they belong to.
const RELATED: [&str; 3] = ["_meta", "io.modelcontextprotocol/related-task", "taskId"];

/// Whose tasks are whose.
#[derive(Default)]
pub(crate) struct Tasks {
    table: Table,
    seal: seal::Seal,
}

fn id_of(server: &Server, task: &str) -> Id {
    (server.name.clone(), Digest::of(task.as_bytes()))
}

impl Tasks {
    /// Forgets what nobody used for a day.
    pub(crate) fn sweep(&self, now: u64) {
        self.table.sweep(now);
    }
}

impl Line {
    /// Looks whose task a message is about, before anything is sent, and gives the server's id of it. Policy has allowed the
    /// method already.
    pub(crate) fn own_task(&self, caller: &Caller, server: &Server, call: &Call) -> Result<Option<Box<str>>, Stop> {
        let Some(message) = call.message() else { return Ok(None) };
        match message.method() {
            "tasks/list" => Ok(None),
            "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => {
                let shown = named(message)?;
                let task = match call.route {
                    Route::One(_) => Some(shown.clone()),
                    Route::All => {
                        self.task_of(caller, &shown).and_then(|(of, task)| (of == server.name).then_some(task))
                    }
                };
                let task = task.filter(|task| self.has_task(caller, server, task));
                Ok(Some(task.ok_or_else(|| unknown(&shown))?.into_boxed_str()))
            }
            // What it would do with which task nobody can tell.
            method => Err(crate::resolve::missing(Action::TaskManage, method, message.era(), "unknown-method")),
        }
    }

    /// The server that a message about a task goes to in the aggregate: the id says it.
    pub(crate) fn server_of_task(&self, caller: &Caller, message: &Message) -> Result<ServerName, Stop> {
        match message.method() {
            "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => {
                let shown = named(message)?;
                self.task_of(caller, &shown).map(|(server, _)| server).ok_or_else(|| unknown(&shown))
            }
            method => Err(crate::resolve::missing(Action::TaskManage, method, message.era(), "unknown-method")),
        }
    }

    /// The answer about a task whose server is not there any more.
    #[expect(clippy::unused_self, reason = "asked where the other answers about tasks are")]
    pub(crate) fn gone_task(&self, message: &Message) -> Stop {
        named(message).map_or_else(|stop| stop, |shown| unknown(&shown))
    }

    /// The server and its id of a task that the caller knows from the aggregate.
    pub(crate) fn task_of(&self, caller: &Caller, shown: &str) -> Option<(ServerName, String)> {
        self.state.tasks.seal.open(caller.principal.id(), shown)
    }

    /// Whether the call may become a task, as far as it depends on how many there are. A call that asks for one and cannot have
    /// it is refused; one whose client merely knows tasks is made without.
    pub(crate) fn room_for_task(&self, caller: &Caller, server: &Server, call: &Call) -> Result<bool, Stop> {
        if !call.message().is_some_and(asks_for_task) {
            return Ok(true);
        }
        if call.route == Route::All && call.era == Era::Legacy && Crossing::between(call.era, server) != Crossing::None
        {
            let why = format!(
                "server `{}` speaks the modern protocol, and tasks are not carried over to it; call the tool without `task`",
                server.name
            );
            return Err(Stop::refused(Stage::Resolve, "task", error::INVALID_PARAMS, why));
        }
        let may_begin = Crossing::between(call.era, server) == Crossing::None;
        let (owner, now) = (caller.principal.id(), self.state.clock.ticks());
        let has_room = !may_begin || self.state.tasks.table.has_room(owner, now);
        match call.era {
            Era::Legacy if !has_room => Err(Stop::refused(Stage::Limit, "tasks", error::REFUSED_LIMIT, too_many())),
            // SPEC: a server begins none for a client that did not declare the extension, and -32021 says that it must.
            Era::Legacy | Era::Modern => Ok(has_room),
        }
    }

    /// Remembers whose the task is that an answer begins.
    pub(crate) fn keep_task(&self, message: &Message, exchange: &Exchange) -> Result<(), Stop> {
        let Target::One(one) = &exchange.target else { return Ok(()) };
        if message.kind() != Kind::Response {
            return Ok(());
        }
        let Some(request) = exchange.call.message() else {
            self.keep_resumed(message, exchange, one);
            return Ok(());
        };
        if one.lacks_room && needs_tasks(message) {
            // The client has the capability, and would not know what it lacks.
            return Err(Stop::withheld(
                "tasks",
                error::REFUSED_LIMIT,
                format!("this tool makes a task of the call, and {}", too_many()),
            ));
        }
        if message.is_task()
            && exchange.call.route == Route::All
            && request.era() == Era::Modern
            && !knows_tasks(request)
        {
            // SPEC: who did not declare an extension takes its results for broken ones. On the door of one server they pass, as
            // all that this says.
            let why = "the call was made, but the server made a task of it, which is not handed to a client that does not \
                       declare the extension `io.modelcontextprotocol/tasks`";
            return Err(Stop::withheld("task", error::WITHHELD, why));
        }
        if let Some(task) = &one.task {
            self.hear_of_task(&exchange.caller, &one.server, task, told(request.method(), message));
        }
        if !asks_for_task(request) {
            return Ok(());
        }
        let Some(task) = begun(message) else { return Ok(()) };
        let (owner, now) = (exchange.caller.principal.id(), self.state.clock.ticks());
        let (id, tool) = (id_of(&one.server, &task), Some(Arc::clone(&one.resource.id.name)));
        self.state.tasks.table.keep(owner, id, tool, news_of_begun(message), now).map_err(|lost| match lost {
            Lost::TooMany => Stop::withheld("tasks", error::WITHHELD, format!("the call was made, but {}", too_many())),
            Lost::Foreign => {
                let why = "the call was made, but the server gave its task an id that it gave to somebody else before";
                Stop::withheld("task", error::WITHHELD, why)
            }
        })?;
        // SPEC: a task goes on with the token of the request that it was made of. On the door of one server nobody else could
        // name it.
        if exchange.call.route == Route::All
            && let Some((session, token)) = one.session.as_ref().zip(request.progress_token())
        {
            session.goes_on(&one.server.name, token);
        }
        Ok(())
    }

    /// An answer that a server gives again may begin a task, too, where it did not arrive the first time. Only the session in which
    /// the call was made is given it, so the task is its owner's, unless somebody has it already.
    fn keep_resumed(&self, message: &Message, exchange: &Exchange, one: &One) {
        let resumes = exchange.call.headers.contains_key(&header::LAST_EVENT);
        // What the gateway gives again was kept with its task when it was said, and may name it by the sealed id.
        let Some(session) = one.session.as_ref().filter(|_| resumes && one.resumes.is_none()) else { return };
        let Some(task) = begun(message) else { return };
        let (id, now) = (id_of(&one.server, &task), self.state.clock.ticks());
        let kept = self.state.tasks.table.keep(&session.owner, id, None, news_of_begun(message), now);
        if kept.is_err() {
            tracing::debug!(server = %one.server.name, "a task of a resumed stream has another owner, or its owner too many");
        }
    }

    /// What is another in what a server says, with the ids of tasks as the caller of the aggregate knows them.
    pub(crate) fn shown_tasks(
        &self,
        message: &Message,
        exchange: &Exchange,
        server: &Server,
    ) -> Result<Vec<(mcp::Span, Vec<u8>)>, Stop> {
        let asked = exchange.call.message().map(Message::method);
        let members = match message.kind() {
            Kind::Response => {
                let begun = match asked {
                    Some("tools/call") | None => begun_member(message),
                    Some("tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update") => {
                        message.outcome_member(&["taskId"])
                    }
                    Some(_) => None,
                };
                [begun, message.outcome_member(&RELATED)]
            }
            Kind::Notification | Kind::Request => {
                let own = matches!(message.method(), "notifications/tasks" | "notifications/tasks/status");
                [message.param(&["taskId"]).filter(|_| own), message.param(&RELATED)]
            }
        };
        let mut edits = Vec::new();
        for member in members.into_iter().flatten() {
            let Some(task) = member.text() else { continue };
            let shown = self.shown_task(exchange.caller.principal.id(), server, &task)?;
            edits.push((member.span.clone(), mcp::quote(&shown).into_bytes()));
        }
        Ok(edits)
    }

    /// The id under which the caller knows a task of a server.
    pub(crate) fn shown_task(&self, owner: &PrincipalId, server: &Server, task: &str) -> Result<String, Stop> {
        self.state.tasks.seal.close(owner, &server.name, task).ok_or_else(|| {
            let why = "it was done, but the server gave its task an id of more than 1024 bytes";
            Stop::withheld("task", error::WITHHELD, why)
        })
    }

    /// What a client on the aggregate says, with the server's own ids of its tasks.
    pub(crate) fn with_own_tasks(&self, caller: &Caller, one: &One, message: &Message) -> Vec<(mcp::Span, Vec<u8>)> {
        let mut edits = Vec::new();
        if let Some((task, member)) = one.task.as_deref().zip(message.subject_member()) {
            edits.push((member.span, mcp::quote(task).into_bytes()));
        }
        let related = match message.kind() {
            Kind::Response => message.outcome_member(&RELATED),
            Kind::Notification | Kind::Request => message.param(&RELATED),
        };
        if let Some(member) = related
            && let Some((server, task)) = member.text().and_then(|shown| self.task_of(caller, &shown))
            && server == one.server.name
        {
            edits.push((member.span.clone(), mcp::quote(&task).into_bytes()));
        }
        edits
    }

    /// A list of tasks without those of others. `None` where it holds none, or is no such list.
    pub(crate) fn own_tasks(&self, message: &Message, exchange: &Exchange) -> Option<Bytes> {
        let one = exchange.target.one()?;
        let listed = message.outcome_member(&["tasks"])?;
        let Ok(Value::Array(tasks)) = listed.value() else {
            // SECURITY: what is no list cannot be narrowed.
            return Some(mcp::splice(message.bytes(), &mut [(listed.span.clone(), b"[]".to_vec())]));
        };
        let own: Vec<&Value> = tasks.iter().filter(|task| self.is_own(&exchange.caller, &one.server, task)).collect();
        if own.len() == tasks.len() {
            return None;
        }
        let text = serde_json::to_vec(&own).unwrap_or_else(|_| b"[]".to_vec());
        Some(mcp::splice(message.bytes(), &mut [(listed.span.clone(), text)]))
    }

    /// Whether news of a task are for this caller. `is_shown`: they name it as the caller of the aggregate knows it.
    pub(crate) fn hears_of_task(
        &self,
        exchange: &Exchange,
        server: &Server,
        message: &Message,
        is_shown: bool,
    ) -> bool {
        let Some(task) = message.param(&["taskId"]).and_then(|task| task.text().map(std::borrow::Cow::into_owned))
        else {
            return false;
        };
        let task = if is_shown {
            self.task_of(&exchange.caller, &task).and_then(|(of, task)| (of == server.name).then_some(task))
        } else {
            Some(task)
        };
        let Some(task) = task.filter(|task| self.has_task(&exchange.caller, server, task)) else { return false };
        self.hear_of_task(&exchange.caller, server, &task, News::of(|name| message.param(&[name])));
        true
    }

    fn hear_of_task(&self, caller: &Caller, server: &Server, task: &str, news: News) {
        let (owner, now) = (caller.principal.id(), self.state.clock.ticks());
        self.state.tasks.table.hear(owner, &id_of(server, task), news, now);
    }

    /// Whether an entry of a list of tasks is the caller's.
    pub(crate) fn is_own(&self, caller: &Caller, server: &Server, task: &Value) -> bool {
        let Some(id) = task.get("taskId").and_then(Value::as_str) else { return false };
        let is_own = self.has_task(caller, server, id);
        if is_own {
            self.hear_of_task(caller, server, id, News::of_entry(task));
        }
        is_own
    }

    /// Whether the caller began this task, and may see today what it gives.
    ///
    /// SECURITY: a result outlives its call, and must not outlive the right to it. Where the tool is not known, no tool of
    /// the server may be hidden.
    pub(crate) fn has_task(&self, caller: &Caller, server: &Server, task: &str) -> bool {
        let policies = &self.snapshot.policies;
        let may_call = |tool: Option<&str>| match tool {
            Some(tool) => policies.visible(&caller.subject, Action::ToolExecute, &server.resource(tool)),
            None => policies.sees_all(&caller.subject, Action::ToolExecute, server.root()),
        };
        self.state.tasks.table.belongs(caller.principal.id(), &id_of(server, task), self.state.clock.ticks(), may_call)
    }
}

fn too_many() -> String {
    format!("you have {MOST} tasks under way; ask how they are, for one that has ended makes room, or cancel one")
}

/// What the answer of a server to a request about a task says of it.
fn told(method: &str, message: &Message) -> News {
    match (method, message.error_code()) {
        // Its server knows it no more; or it has a result, for which one waits until the end.
        ("tasks/get", Some(error::INVALID_PARAMS)) | ("tasks/result", None) => News::end(),
        // SPEC: in the modern era the answer to this says nothing of the task. It was taken back, whenever it ends.
        ("tasks/cancel", None) if message.outcome_member(&["status"]).is_none() => News::end(),
        _ => News::of(|name| message.outcome_member(&[name])),
    }
}

/// What an answer that begins a task says of it.
fn news_of_begun(message: &Message) -> News {
    News::of(|name| message.outcome_member(&[name]).or_else(|| message.outcome_member(&["task", name])))
}

/// Whether a call can become a task: legacy clients ask for one, modern ones say that they know what a task is.
fn asks_for_task(message: &Message) -> bool {
    message.method() == "tools/call"
        && match message.era() {
            Era::Legacy => message.params().is_some_and(may_name_one) && message.param(&["task"]).is_some(),
            Era::Modern => knows_tasks(message),
        }
}

/// Whether a modern client declares the extension.
fn knows_tasks(message: &Message) -> bool {
    // Most clients can do little: what they say of it is far shorter than what they call with.
    message.client_capabilities().is_some_and(may_name_one)
        && extensions(message).is_some_and(|member| declares(&member))
}

/// Whether an answer says that the client must know tasks.
fn needs_tasks(message: &Message) -> bool {
    let needed = || {
        let told: Value = serde_json::from_slice(message.error()?).ok()?;
        told.pointer("/data/requiredCapabilities/extensions")?.get(EXTENSION).cloned()
    };
    message.error_code() == Some(error::MISSING_CAPABILITY) && needed().is_some()
}

/// Whether a text could name a task. Most do not, which is cheaper to see than where; an escape could spell anything.
pub(crate) fn may_name_one(text: &[u8]) -> bool {
    static TASK: LazyLock<Finder> = LazyLock::new(|| Finder::new("task"));
    TASK.find(text).is_some() || memchr::memchr(b'\\', text).is_some()
}

fn extensions(message: &Message) -> Option<mcp::Member<'_>> {
    message.client_capability(&["extensions"])
}

fn declares(extensions: &mcp::Member<'_>) -> bool {
    // Most clients have no extensions, and few that are large.
    extensions.value().is_ok_and(|extensions| extensions.get(EXTENSION).is_some())
}

/// What a server of the other era must not hear of a client: that it could have tasks.
pub(crate) fn without_tasks(message: &Message) -> Option<(mcp::Span, Vec<u8>)> {
    let member = extensions(message)?;
    let Ok(Value::Object(mut extensions)) = member.value() else { return None };
    extensions.remove(EXTENSION)?;
    Some((member.span.clone(), Value::Object(extensions).to_string().into_bytes()))
}

/// The id that a message about a task names.
pub(crate) fn named(message: &Message) -> Result<String, Stop> {
    message.subject().map(std::borrow::Cow::into_owned).ok_or_else(|| {
        let why = format!("`{}` must name its task, as text: `taskId`", message.method());
        Stop::refused(Stage::Resolve, "no-name", error::INVALID_PARAMS, why)
    })
}

/// SECURITY: a foreign task answers like one that never was.
pub(crate) fn unknown(shown: &str) -> Stop {
    let shown: String = label::shown(shown).chars().take(128).collect();
    Stop::refused(Stage::Resolve, "unknown", error::INVALID_PARAMS, format!("Unknown task: {shown}"))
}

/// The id of the task that an answer begins.
fn begun(message: &Message) -> Option<String> {
    begun_member(message)?.text().map(Into::into)
}

/// Where it stands.
fn begun_member(message: &Message) -> Option<mcp::Member<'_>> {
    let at = |path: &[&str]| message.outcome_member(path).filter(|member| member.text().is_some());
    // Most results begin none: nobody walks through them.
    let own = if message.is_task() { at(&["taskId"]) } else { None };
    own.or_else(|| message.may_begin_task().then(|| at(&["task", "taskId"])).flatten())
}
