//! Tasks: whoever began one may manage it, and nobody else.
//!
//! Servers hand out task ids, and many take whoever knows one for its owner. Here an id belongs to the principal whose
//! call began the task, for a day after it was last used. To everybody else it is unknown, as it is after a restart of
//! the gateway. Carried on the door of one server only.

use crate::{
    authenticate::Caller,
    call::{Call, Route, header},
    forward::Exchange,
    pipeline::Line,
    resolve::{One, Target},
    server::Server,
    stop::{Stage, Stop},
    upstream::{UpstreamFault, exchange},
};
use bytes::Bytes;
use mcp::{Era, Kind, Message, error};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use vocab::{Digest, PrincipalId, ServerName};

/// Tasks of one principal that are remembered.
const MOST: usize = 256;
/// How long a task is remembered after it was last used.
const LIFE: Duration = Duration::from_hours(24);
/// The extension of the modern era.
const EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// Parts of the table, each with a lock of its own.
const SHARDS: usize = 64;

/// Whose tasks are whose.
pub(crate) struct Tasks {
    shards: Vec<Mutex<HashMap<Id, Kept>>>,
    per_owner: Mutex<HashMap<PrincipalId, usize>>,
}

/// A task of a server, by the digest of its id: ids may be long.
type Id = (ServerName, Digest);

/// Whose a task is.
struct Kept {
    owner: PrincipalId,
    /// When it was last used, in ticks.
    used: u64,
}

impl Kept {
    fn is_over(&self, now: u64) -> bool {
        now.saturating_sub(self.used) >= life()
    }
}

/// Why a task is not remembered.
enum Lost {
    /// Its principal has as many as it may have.
    TooMany,
    /// Another principal has one of this id.
    Foreign,
}

fn id_of(server: &Server, task: &str) -> Id {
    (server.name.clone(), Digest::of(task.as_bytes()))
}

impl Default for Tasks {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), per_owner: Mutex::default() }
    }
}

impl Tasks {
    /// Whether the task is this principal's. Using it keeps it.
    fn belongs(&self, owner: &PrincipalId, id: &Id, now: u64) -> bool {
        let Some(mut tasks) = self.shard(id) else { return false };
        match tasks.get_mut(id) {
            Some(kept) if kept.owner == *owner && !kept.is_over(now) => {
                kept.used = now;
                true
            }
            Some(_) | None => false,
        }
    }

    fn has_room(&self, owner: &PrincipalId) -> bool {
        lock(&self.per_owner).get(owner).is_none_or(|count| *count < MOST)
    }

    fn keep(&self, owner: &PrincipalId, id: Id, now: u64) -> Result<(), Lost> {
        let Some(mut tasks) = self.shard(&id) else { return Err(Lost::TooMany) };
        match tasks.get_mut(&id) {
            Some(kept) if kept.owner == *owner => {
                kept.used = now;
                return Ok(());
            }
            Some(kept) if !kept.is_over(now) => return Err(Lost::Foreign),
            Some(_) | None => {}
        }
        self.enter(owner)?;
        if let Some(over) = tasks.insert(id, Kept { owner: owner.clone(), used: now }) {
            self.leave(&over.owner);
        }
        Ok(())
    }

    /// Forgets what nobody used for a day.
    pub(crate) fn sweep(&self, now: u64) {
        for tasks in &self.shards {
            lock(tasks).retain(|_, kept| {
                let over = kept.is_over(now);
                if over {
                    self.leave(&kept.owner);
                }
                !over
            });
        }
    }

    fn enter(&self, owner: &PrincipalId) -> Result<(), Lost> {
        let mut owners = lock(&self.per_owner);
        let count = owners.entry(owner.clone()).or_default();
        if *count >= MOST {
            return Err(Lost::TooMany);
        }
        *count += 1;
        Ok(())
    }

    fn leave(&self, owner: &PrincipalId) {
        let mut owners = lock(&self.per_owner);
        if let Some(count) = owners.get_mut(owner) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                owners.remove(owner);
            }
        }
    }

    fn shard(&self, id: &Id) -> Option<MutexGuard<'_, HashMap<Id, Kept>>> {
        let [first, ..] = id.1.as_bytes();
        self.shards.get(usize::from(*first) % SHARDS).map(lock)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn life() -> u64 {
    u64::try_from(LIFE.as_micros()).unwrap_or(u64::MAX)
}

impl Line {
    /// Looks whose task a message is about, before anything is sent. Policy has allowed the method already.
    pub(crate) fn own_task(&self, caller: &Caller, server: &Server, message: &Message) -> Result<(), Stop> {
        match message.method() {
            "tasks/list" => Ok(()),
            "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => {
                let task = message.subject().ok_or_else(|| {
                    let why = format!("`{}` must name its task, as text: `taskId`", message.method());
                    Stop::refused(Stage::Resolve, "no-name", error::INVALID_PARAMS, why)
                })?;
                let now = self.state.clock.ticks();
                if self.state.tasks.belongs(caller.principal.id(), &id_of(server, &task), now) {
                    return Ok(());
                }
                // SECURITY: a foreign task answers like one that never was.
                let shown: String = task.chars().take(128).collect();
                Err(Stop::refused(Stage::Resolve, "unknown", error::INVALID_PARAMS, format!("Unknown task: {shown}")))
            }
            // What it would do with which task nobody can tell.
            method => Err(crate::resolve::missing(vocab::Action::TaskManage, method, message.era(), "unknown-method")),
        }
    }

    /// Whether the caller may begin another task, where the call asks for one.
    pub(crate) fn room_for_task(&self, caller: &Caller, call: &Call) -> Result<(), Stop> {
        let Some(message) = call.message().filter(|message| asks_for_task(message)) else { return Ok(()) };
        if call.route == Route::All {
            return match call.era {
                Era::Legacy => {
                    let why = "tasks are not carried here; call the tool at /mcp/SERVER";
                    Err(Stop::refused(Stage::Resolve, "task", error::INVALID_PARAMS, why))
                }
                // The server is not told that the client could have one.
                Era::Modern => Ok(()),
            };
        }
        // A modern server need not begin one: it is found out when it does.
        let full = message.era() == Era::Legacy && !self.state.tasks.has_room(caller.principal.id());
        if full { Err(Stop::refused(Stage::Limit, "tasks", error::REFUSED_LIMIT, too_many())) } else { Ok(()) }
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
        if !asks_for_task(request) {
            return Ok(());
        }
        let Some(task) = begun(message) else { return Ok(()) };
        if exchange.call.route == Route::All {
            let why =
                "the call was made, but the server began a task, which is not carried here; call it at /mcp/SERVER";
            return Err(Stop::withheld("task", error::WITHHELD, why));
        }
        let (owner, now) = (exchange.caller.principal.id(), self.state.clock.ticks());
        self.state.tasks.keep(owner, id_of(&one.server, &task), now).map_err(|lost| match lost {
            Lost::TooMany => Stop::withheld("tasks", error::WITHHELD, format!("the call was made, but {}", too_many())),
            Lost::Foreign => {
                let why = "the call was made, but the server gave its task an id that it gave to somebody else before";
                Stop::withheld("task", error::WITHHELD, why)
            }
        })
    }

    /// An answer that is given again may begin a task, too, where it did not arrive the first time. Only the session in which
    /// the call was made is given it, so the task is its owner's, unless somebody has it already.
    fn keep_resumed(&self, message: &Message, exchange: &Exchange, one: &One) {
        let resumes = exchange.call.headers.contains_key(&header::LAST_EVENT) && exchange.call.route != Route::All;
        let Some(session) = one.session.as_ref().filter(|_| resumes) else { return };
        let Some(task) = begun(message) else { return };
        let kept = self.state.tasks.keep(&session.owner, id_of(&one.server, &task), self.state.clock.ticks());
        if kept.is_err() {
            tracing::debug!(server = %one.server.name, "a task of a resumed stream has another owner, or its owner too many");
        }
    }

    /// A list of tasks without those of others. `None` where it holds none, or is no such list.
    pub(crate) fn own_tasks(&self, message: &Message, exchange: &Exchange) -> Option<Bytes> {
        let one = exchange.target.one()?;
        let listed = message.outcome_member(&["tasks"])?;
        let Ok(Value::Array(tasks)) = listed.value() else {
            // SECURITY: what is no list cannot be narrowed.
            return Some(mcp::splice(message.bytes(), &mut [(listed.span.clone(), b"[]".to_vec())]));
        };
        let own: Vec<&Value> = tasks.iter().filter(|task| self.is_own(exchange, &one.server, task)).collect();
        if own.len() == tasks.len() {
            return None;
        }
        let text = serde_json::to_vec(&own).unwrap_or_else(|_| b"[]".to_vec());
        Some(mcp::splice(message.bytes(), &mut [(listed.span.clone(), text)]))
    }

    /// Whether news of a task are for this caller.
    pub(crate) fn hears_of_task(&self, exchange: &Exchange, server: &Server, message: &Message) -> bool {
        let task = message.param(&["taskId"]).and_then(|task| task.text().map(std::borrow::Cow::into_owned));
        task.is_some_and(|task| self.has_task(exchange.caller.principal.id(), server, &task))
    }

    fn is_own(&self, exchange: &Exchange, server: &Server, task: &Value) -> bool {
        let id = task.get("taskId").and_then(Value::as_str);
        id.is_some_and(|id| self.has_task(exchange.caller.principal.id(), server, id))
    }

    /// Whether a principal began this task.
    pub(crate) fn has_task(&self, owner: &PrincipalId, server: &Server, task: &str) -> bool {
        self.state.tasks.belongs(owner, &id_of(server, task), self.state.clock.ticks())
    }
}

fn too_many() -> String {
    format!("you have {MOST} tasks already; one that nobody asks for is forgotten after a day")
}

/// Whether a call can become a task: legacy clients ask for one, modern ones say that they know what a task is.
fn asks_for_task(message: &Message) -> bool {
    message.method() == "tools/call"
        && message.params().is_some_and(may_name_one)
        && match message.era() {
            Era::Legacy => message.param(&["task"]).is_some(),
            Era::Modern => extensions(message).is_some_and(|member| declares(&member)),
        }
}

/// Whether a text could name a task. Most do not, which is cheaper to see than where; an escape could spell anything.
fn may_name_one(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"task").is_some() || memchr::memchr(b'\\', text).is_some()
}

fn extensions(message: &Message) -> Option<mcp::Member<'_>> {
    message.param(&["_meta", mcp::key::CLIENT_CAPABILITIES, "extensions"])
}

fn declares(extensions: &mcp::Member<'_>) -> bool {
    // Most clients have no extensions, and few that are large.
    extensions.value().is_ok_and(|extensions| extensions.get(EXTENSION).is_some())
}

/// What a server must not hear of a client on the aggregate: that it could have tasks.
pub(crate) fn without_tasks(message: &Message) -> Option<(mcp::Span, Vec<u8>)> {
    let member = extensions(message)?;
    let Ok(Value::Object(mut extensions)) = member.value() else { return None };
    extensions.remove(EXTENSION)?;
    Some((member.span.clone(), Value::Object(extensions).to_string().into_bytes()))
}

/// A request as servers are to hear it on the aggregate: of no task, and of no client that could have one.
pub(crate) fn untold(request: &Message, limits: &mcp::Limits) -> Result<Message, UpstreamFault> {
    let mut edits: Vec<_> = without_tasks(request).into_iter().chain(without_ids(request)).collect();
    if edits.is_empty() { Ok(request.clone()) } else { exchange::one(mcp::splice(request.bytes(), &mut edits), limits) }
}

/// The filter of a listener without tasks.
fn without_ids(message: &Message) -> Option<(mcp::Span, Vec<u8>)> {
    let member = message.param(&["notifications"])?;
    let Ok(Value::Object(mut filter)) = member.value() else { return None };
    filter.remove("taskIds")?;
    Some((member.span.clone(), Value::Object(filter).to_string().into_bytes()))
}

/// The id of the task that an answer begins.
fn begun(message: &Message) -> Option<String> {
    let text = |path: &[&str]| message.outcome_member(path).and_then(|member| member.text().map(Into::into));
    match message.outcome_member(&["resultType"]) {
        Some(kind) if kind.text().as_deref() == Some("task") => text(&["taskId"]).or_else(|| text(&["task", "taskId"])),
        Some(_) => None,
        None => text(&["task", "taskId"]),
    }
}
