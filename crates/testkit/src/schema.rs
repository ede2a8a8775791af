//! Whether a message is what its reader's revision says, by the JSON schema of that revision.
//!
//! Once a test asks for it with [`judge`], everything that a client or a server of this crate is told by the gateway is
//! looked at as it comes; what was wrong fails the test in the end. A test whose messages are wrong on purpose says so
//! with [`overlook`].

use crate::{client::Event, upstream::Received};
use http::HeaderMap;
use jsonschema::Validator;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

const REVISIONS: [&str; 5] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

/// The schema's words for a method: what comes before `Request` and `Result`.
const REQUESTS: [(&str, &str); 21] = [
    ("initialize", "Initialize"),
    ("server/discover", "Discover"),
    ("subscriptions/listen", "SubscriptionsListen"),
    ("tools/list", "ListTools"),
    ("tools/call", "CallTool"),
    ("prompts/list", "ListPrompts"),
    ("prompts/get", "GetPrompt"),
    ("resources/list", "ListResources"),
    ("resources/templates/list", "ListResourceTemplates"),
    ("resources/read", "ReadResource"),
    ("resources/subscribe", "Subscribe"),
    ("resources/unsubscribe", "Unsubscribe"),
    ("completion/complete", "Complete"),
    ("logging/setLevel", "SetLevel"),
    ("sampling/createMessage", "CreateMessage"),
    ("elicitation/create", "Elicit"),
    ("roots/list", "ListRoots"),
    ("tasks/get", "GetTask"),
    ("tasks/result", "GetTaskPayload"),
    ("tasks/list", "ListTasks"),
    ("tasks/cancel", "CancelTask"),
];

/// What a result may be whose request nobody remembers: a client's answer to a question.
const ANSWERS: [&str; 7] = [
    "CreateMessageResult",
    "ElicitResult",
    "ListRootsResult",
    "CreateTaskResult",
    "GetTaskResult",
    "CancelTaskResult",
    "ListTasksResult",
];

const NOTIFICATIONS: [(&str, &str); 12] = [
    ("notifications/initialized", "InitializedNotification"),
    ("notifications/cancelled", "CancelledNotification"),
    ("notifications/progress", "ProgressNotification"),
    ("notifications/message", "LoggingMessageNotification"),
    ("notifications/roots/list_changed", "RootsListChangedNotification"),
    ("notifications/tools/list_changed", "ToolListChangedNotification"),
    ("notifications/prompts/list_changed", "PromptListChangedNotification"),
    ("notifications/resources/list_changed", "ResourceListChangedNotification"),
    ("notifications/resources/updated", "ResourceUpdatedNotification"),
    ("notifications/subscriptions/acknowledged", "SubscriptionsAcknowledgedNotification"),
    ("notifications/elicitation/complete", "ElicitationCompleteNotification"),
    ("notifications/tasks/status", "TaskStatusNotification"),
];

/// Whether a method belongs to an extension, of which the schema of the revision knows nothing: tasks of 2026-07-28 are one.
fn is_extension(revision: &str, method: &str) -> bool {
    revision >= "2026-07-28" && matches!(method, "tasks/get" | "tasks/cancel")
}

/// What is wrong with a message in `revision`. `answers`: the method of the request that a response answers, if known.
/// Of methods that no revision knows, only the envelope is looked at.
pub fn faults(revision: &str, message: &Value, answers: Option<&str>) -> Vec<String> {
    let is_recent = revision >= "2025-11-25";
    let check = |definition: &str, tree: &Value| definition_faults(revision, definition, tree);
    let named = |method: &str, end: &str| {
        let found = REQUESTS.iter().find(|(known, _)| *known == method && !is_extension(revision, method));
        found.map(|(_, word)| format!("{word}{end}"))
    };
    match message.get("method").and_then(Value::as_str) {
        Some(method) if message.get("id").is_some() => {
            let mut faults = check("JSONRPCRequest", message);
            faults.extend(named(method, "Request").map(|name| check(&name, message)).unwrap_or_default());
            faults
        }
        Some(method) => {
            let mut faults = check("JSONRPCNotification", message);
            let found = NOTIFICATIONS.iter().find(|(known, _)| *known == method);
            faults.extend(found.map(|(_, name)| check(name, message)).unwrap_or_default());
            faults
        }
        None if message.get("error").is_some() => {
            check(if is_recent { "JSONRPCErrorResponse" } else { "JSONRPCError" }, message)
        }
        None => {
            let mut faults = check(if is_recent { "JSONRPCResultResponse" } else { "JSONRPCResponse" }, message);
            let result = message.get("result").unwrap_or(&Value::Null);
            let is_input_wanted = result.get("resultType").is_some_and(|kind| kind == "input_required");
            match answers {
                _ if is_input_wanted => faults.extend(check("InputRequiredResult", result)),
                Some("ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe") => {
                    faults.extend(check("EmptyResult", result));
                }
                Some("tools/call") if result.get("task").is_some() && has_definition(revision, "CreateTaskResult") => {
                    faults.extend(check("CreateTaskResult", result));
                }
                // Tasks of 2026-07-28 are an extension: its schema does not know what a call gives there.
                Some("tools/call") if result.get("resultType").is_some_and(|kind| kind == "task") => {}
                Some(method) => {
                    faults.extend(named(method, "Result").map(|name| check(&name, result)).unwrap_or_default());
                }
                // The answer to a server's `ping`.
                None if *result == json!({}) => {}
                None => {
                    let tried: Vec<Vec<String>> = ANSWERS
                        .iter()
                        .filter(|name| has_definition(revision, name))
                        .map(|name| check(name, result))
                        .collect();
                    if tried.iter().all(|faults| !faults.is_empty()) {
                        faults.extend(tried.into_iter().flatten());
                    }
                }
            }
            faults
        }
    }
}

/// By revision and definition.
type Validators = HashMap<(String, String), Arc<Validator>>;

/// For all threads: some come and go with the servers that they play.
static VALIDATORS: LazyLock<Mutex<Validators>> = LazyLock::new(Mutex::default);

/// What is wrong with a value that is to be a `definition` of the revision's schema.
pub fn definition_faults(revision: &str, definition: &str, tree: &Value) -> Vec<String> {
    let validator = {
        let mut validators = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(validator(revision, definition));
        Arc::clone(validators.entry((revision.to_owned(), definition.to_owned())).or_insert_with(make))
    };
    let describe = |fault: jsonschema::ValidationError<'_>| format!("{definition} {}: {fault}", fault.instance_path());
    validator.iter_errors(tree).map(describe).collect()
}

fn schema(revision: &str) -> Value {
    let text = match revision {
        "2024-11-05" => include_str!("../schema/2024-11-05.json"),
        "2025-03-26" => include_str!("../schema/2025-03-26.json"),
        "2025-06-18" => include_str!("../schema/2025-06-18.json"),
        "2025-11-25" => include_str!("../schema/2025-11-25.json"),
        _ => include_str!("../schema/2026-07-28.json"),
    };
    serde_json::from_str(text).expect("a schema")
}

fn holder(schema: &Value) -> &'static str {
    if schema.get("$defs").is_some() { "$defs" } else { "definitions" }
}

fn has_definition(revision: &str, definition: &str) -> bool {
    let schema = schema(revision);
    schema.get(holder(&schema)).is_some_and(|all| all.get(definition).is_some())
}

fn validator(revision: &str, definition: &str) -> Validator {
    let mut schema = schema(revision);
    let holder = holder(&schema);
    // A message that the revision has no word for must not be said in it.
    let whole = if has_definition(revision, definition) {
        json!([{ "$ref": format!("#/{holder}/{definition}") }])
    } else {
        json!([{ "description": format!("{revision} has no {definition}"), "not": {} }])
    };
    let members = schema.as_object_mut().expect("an object");
    members.insert("allOf".to_owned(), whole);
    jsonschema::validator_for(&schema).expect("a schema that compiles")
}

/// Whether what is said is looked at, and what was wrong with it.
enum State {
    /// Nobody has asked for it.
    Unasked,
    /// With what was wrong since it was asked last.
    Judged(Vec<String>),
    Overlooked,
}

static STATE: Mutex<State> = Mutex::new(State::Unasked);

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody who wants messages to be valid. Dropping it fails the test where one was not.
#[must_use = "it judges when it is dropped"]
#[derive(Debug)]
pub struct Judge(());

impl Drop for Judge {
    fn drop(&mut self) {
        let faults = verdict();
        assert!(faults.is_empty() || std::thread::panicking(), "{}", faults.join("\n"));
    }
}

/// From now on, whatever the gateway says to the fakes of this process is looked at. Each test is a process of its own.
pub fn judge() -> Judge {
    let mut state = state();
    if matches!(*state, State::Unasked) {
        *state = State::Judged(Vec::new());
    }
    Judge(())
}

/// Looks at nothing in this test, whoever asks for it: its messages are wrong on purpose, for a reason that is given.
pub fn overlook(_because: &str) {
    *state() = State::Overlooked;
}

/// What was wrong since it was asked last.
fn verdict() -> Vec<String> {
    match &mut *state() {
        State::Judged(found) => std::mem::take(found),
        State::Unasked | State::Overlooked => Vec::new(),
    }
}

fn note(reader: &str, revision: &str, message: &Value, answers: Option<&str>) {
    if let State::Judged(found) = &mut *state() {
        let faults = faults(revision, message, answers);
        if !faults.is_empty() {
            found.push(format!("a {reader} of {revision} was told {message}: {}", faults.join("; ")));
        }
    }
}

/// A request that reached a server, which speaks `spoken` where the request does not say what it is written in.
pub(crate) fn note_request(received: &Received, spoken: Option<&str>) {
    let whole = received.json();
    for message in each(&whole) {
        let said = revision(&received.headers, message).or_else(|| spoken.and_then(known));
        if let Some(revision) = said {
            note("server", revision, message, None);
        }
    }
}

/// What a server is told that has only lines.
#[derive(Debug, Default)]
pub struct Told(Option<&'static str>);

impl Told {
    /// A line that the server got: a message, of the revision that was named last.
    pub fn line(&mut self, line: &str) {
        let whole = line.parse().unwrap_or(Value::Null);
        let mut is_read = false;
        for message in each(&whole) {
            self.0 = named(message).or(self.0);
            is_read = self.0.is_some();
            if let Some(revision) = self.0 {
                note("server", revision, message, None);
            }
        }
        if let State::Judged(found) = &mut *state()
            && !is_read
        {
            found.push(format!("a server was told what is no message, or of no revision: {line}"));
        }
    }
}

/// The messages of a batch, or the one that is none.
fn each(whole: &Value) -> impl Iterator<Item = &Value> {
    let messages = whole.as_array().map_or(std::slice::from_ref(whole), Vec::as_slice);
    messages.iter().filter(|message| message.is_object())
}

/// The revision that the sender speaks.
fn revision(headers: &HeaderMap, message: &Value) -> Option<&'static str> {
    let agreed = || headers.get("mcp-protocol-version").and_then(|value| value.to_str().ok());
    named(message).or_else(|| agreed().and_then(known))
}

/// The revision that a message names, if it does.
pub fn named(message: &Value) -> Option<&'static str> {
    let offered = message.pointer("/params/protocolVersion");
    let carried = || message.pointer("/params/_meta/io.modelcontextprotocol~1protocolVersion");
    offered.or_else(carried).and_then(Value::as_str).and_then(known)
}

/// The revision of this name, if there is one.
pub fn known(name: &str) -> Option<&'static str> {
    REVISIONS.into_iter().find(|known| *known == name)
}

/// What a client waits for, and in which revision.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    revision: Option<&'static str>,
    /// Id and method of each request.
    asked: Mutex<Vec<(Value, String)>>,
}

impl Hearing {
    /// Of a request that a client sends.
    pub(crate) fn of(headers: &HeaderMap, body: &[u8]) -> Self {
        let whole: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let revision = each(&whole).find_map(|message| revision(headers, message));
        let hearing =
            Self { revision: revision.or_else(|| self::revision(headers, &Value::Null)), asked: Mutex::default() };
        each(&whole).for_each(|message| hearing.expects(message));
        hearing
    }

    /// Of a client that speaks this revision and says so nowhere.
    pub(crate) fn speaks(&mut self, revision: &str) {
        self.revision = known(revision);
    }

    /// The answer to this request is heard here, too.
    pub(crate) fn expects(&self, request: &Value) {
        if let (Some(id), Some(method)) = (request.get("id"), request.get("method").and_then(Value::as_str)) {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).push((id.clone(), method.to_owned()));
        }
    }

    /// An event that the client got.
    pub(crate) fn note_event(&self, event: &Event) {
        self.note(&event.json());
    }

    /// A message that the client got, or a batch of them.
    pub(crate) fn note(&self, whole: &Value) {
        let Some(revision) = self.revision else { return };
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for message in each(whole) {
            // The last request of an id is the one that it still means.
            let answered = asked.iter().rev().find(|(id, _)| message.get("id") == Some(id));
            // What was asked elsewhere, as where a stream goes on, could be any result.
            let method = answered.map_or("", |(_, method)| method.as_str());
            note("client", revision, message, Some(method));
        }
    }
}

/// What a client hears that has only lines: what it says tells what that must be.
#[derive(Debug, Default)]
pub struct Lines(Hearing);

impl Lines {
    /// A line of the client's.
    pub fn said(&mut self, line: &str) {
        let Ok(message) = serde_json::from_str(line) else { return };
        self.0.revision = named(&message).or(self.0.revision);
        self.0.expects(&message);
    }

    /// A line that the client got.
    pub fn heard(&self, line: &str) {
        self.0.note(&serde_json::from_str(line).unwrap_or(Value::Null));
    }
}
