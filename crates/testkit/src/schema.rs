//! Whether a message is what its reader's revision says, by the JSON schema of that revision.
//!
//! Once a test asks for it with [`judge`], everything that a client or a server of this crate is told by the gateway is
//! looked at as it comes; [`verdict`] says what was wrong.

use crate::{client::Event, upstream::Received};
use http::HeaderMap;
use jsonschema::Validator;
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The schema's words for a method: what comes before `Request` and `Result`.
const REQUESTS: [(&str, &str); 17] = [
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
];

/// What a result may be whose request nobody remembers: a client's answer to a question.
const ANSWERS: [&str; 3] = ["CreateMessageResult", "ElicitResult", "ListRootsResult"];

const NOTIFICATIONS: [(&str, &str); 10] = [
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
];

/// What is wrong with a message in `revision`. `answers`: the method of the request that a response answers, if known.
/// Of methods that no revision knows, only the envelope is looked at.
pub fn faults(revision: &str, message: &Value, answers: Option<&str>) -> Vec<String> {
    let is_recent = revision >= "2025-11-25";
    let check = |definition: &str, tree: &Value| definition_faults(revision, definition, tree);
    let named = |method: &str, end: &str| {
        let found = REQUESTS.iter().find(|(known, _)| *known == method);
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

thread_local! {
    static VALIDATORS: RefCell<HashMap<(String, String), Rc<Validator>>> = RefCell::default();
}

/// What is wrong with a value that is to be a `definition` of the revision's schema.
pub fn definition_faults(revision: &str, definition: &str, tree: &Value) -> Vec<String> {
    let validator = VALIDATORS.with_borrow_mut(|validators| {
        let make = || Rc::new(validator(revision, definition));
        Rc::clone(validators.entry((revision.to_owned(), definition.to_owned())).or_insert_with(make))
    });
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

/// What was wrong so far; none where nobody judges.
static FOUND: Mutex<Option<Vec<String>>> = Mutex::new(None);

fn found() -> MutexGuard<'static, Option<Vec<String>>> {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, whatever the gateway says in this process is looked at.
pub fn judge() {
    found().get_or_insert_default();
}

/// What was wrong since it was asked last.
pub fn verdict() -> Vec<String> {
    found().as_mut().map(std::mem::take).unwrap_or_default()
}

fn note(reader: &str, revision: &str, message: &Value, answers: Option<&str>) {
    if found().is_none() {
        return;
    }
    let faults = faults(revision, message, answers);
    if let (false, Some(found)) = (faults.is_empty(), found().as_mut()) {
        found.push(format!("a {reader} of {revision} was told {message}: {}", faults.join("; ")));
    }
}

/// A request that reached a server.
pub(crate) fn note_request(received: &Received) {
    let message = received.json();
    if message.is_object()
        && let Some(revision) = revision(&received.headers, &message)
    {
        note("server", &revision, &message, None);
    }
}

/// The revision that the sender speaks.
fn revision(headers: &HeaderMap, message: &Value) -> Option<String> {
    let offered = message.pointer("/params/protocolVersion").and_then(Value::as_str);
    let agreed = || headers.get("mcp-protocol-version").and_then(|value| value.to_str().ok());
    offered.or_else(agreed).map(str::to_owned)
}

/// What a client waits for, and in which revision.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    revision: Option<String>,
    id: Value,
    method: String,
}

impl Hearing {
    /// Of a request that a client sends.
    pub(crate) fn of(headers: &HeaderMap, body: &[u8]) -> Self {
        let message: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        Self {
            revision: revision(headers, &message),
            id: message.get("id").cloned().unwrap_or(Value::Null),
            method: message.get("method").and_then(Value::as_str).unwrap_or_default().to_owned(),
        }
    }

    /// An event that the client got.
    pub(crate) fn note_event(&self, event: &Event) {
        self.note(&event.json());
    }

    /// A message that the client got.
    pub(crate) fn note(&self, message: &Value) {
        let Some(revision) = self.revision.as_ref().filter(|_| message.is_object()) else { return };
        let is_answer = message.get("id").is_some_and(|id| *id == self.id) && message.get("method").is_none();
        note("client", revision, message, is_answer.then_some(self.method.as_str()));
    }
}
