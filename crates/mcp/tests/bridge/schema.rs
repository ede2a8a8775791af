//! Whether a message is valid in a revision, by the JSON schema of that revision.

use jsonschema::Validator;
use mcp::{Body, Kind, Limits, Message, Revision, scan};
use serde_json::{Value, json};
use std::{cell::RefCell, collections::HashMap, rc::Rc};

/// Both sides' words for a method: the request, the result.
const NAMES: [(&str, &str); 17] = [
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

const NOTIFICATIONS: [(&str, &str); 9] = [
    ("notifications/initialized", "InitializedNotification"),
    ("notifications/cancelled", "CancelledNotification"),
    ("notifications/progress", "ProgressNotification"),
    ("notifications/message", "LoggingMessageNotification"),
    ("notifications/tools/list_changed", "ToolListChangedNotification"),
    ("notifications/prompts/list_changed", "PromptListChangedNotification"),
    ("notifications/resources/list_changed", "ResourceListChangedNotification"),
    ("notifications/resources/updated", "ResourceUpdatedNotification"),
    ("notifications/subscriptions/acknowledged", "SubscriptionsAcknowledgedNotification"),
];

/// What is wrong with a message in `revision`. `method` is what a response answers.
pub(crate) fn faults(revision: Revision, text: &[u8], method: &str) -> Vec<String> {
    let message = message(text);
    let tree = mcp::value(text).unwrap();
    let recent = revision >= Revision::V2025_11_25;
    let mut faults = Vec::new();
    let mut check = |definition: &str, tree: &Value| faults.extend(definition_faults(revision, definition, tree));
    match message.kind() {
        Kind::Request => {
            check("JSONRPCRequest", &tree);
            check(&format!("{}Request", name(message.method())), &tree);
        }
        Kind::Notification => {
            check("JSONRPCNotification", &tree);
            let found = NOTIFICATIONS.iter().find(|(known, _)| *known == message.method());
            check(found.unwrap_or_else(|| panic!("no schema for {}", message.method())).1, &tree);
        }
        Kind::Response if message.error().is_some() => {
            check(if recent { "JSONRPCErrorResponse" } else { "JSONRPCError" }, &tree);
        }
        Kind::Response => {
            check(if recent { "JSONRPCResultResponse" } else { "JSONRPCResponse" }, &tree);
            let asks = tree["result"]["resultType"] == "input_required";
            let result = if asks { "InputRequiredResult".to_owned() } else { format!("{}Result", name(method)) };
            check(&result, &tree["result"]);
        }
    }
    faults
}

pub(crate) fn message(text: &[u8]) -> Message {
    match scan(bytes::Bytes::copy_from_slice(text), &Limits::default()) {
        Ok(Body::Single(message)) => message,
        other => panic!("{} scans as {other:?}", String::from_utf8_lossy(text)),
    }
}

fn name(method: &str) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == method).unwrap_or_else(|| panic!("no schema for {method}")).1
}

thread_local! {
    static SCHEMAS: RefCell<HashMap<(Revision, String), Rc<Validator>>> = RefCell::default();
}

/// What is wrong with a value that is to be a `definition` of the revision's schema.
pub(crate) fn definition_faults(revision: Revision, definition: &str, tree: &Value) -> Vec<String> {
    let validator = SCHEMAS.with_borrow_mut(|schemas| {
        let make = || Rc::new(validator(revision, definition));
        Rc::clone(schemas.entry((revision, definition.to_owned())).or_insert_with(make))
    });
    let describe = |fault: jsonschema::ValidationError<'_>| format!("{definition} {}: {fault}", fault.instance_path());
    validator.iter_errors(tree).map(describe).collect()
}

fn validator(revision: Revision, definition: &str) -> Validator {
    let text = match revision {
        Revision::V2024_11_05 => include_str!("../schema/2024-11-05.json"),
        Revision::V2025_03_26 => include_str!("../schema/2025-03-26.json"),
        Revision::V2025_06_18 => include_str!("../schema/2025-06-18.json"),
        Revision::V2025_11_25 => include_str!("../schema/2025-11-25.json"),
        Revision::V2026_07_28 => include_str!("../schema/2026-07-28.json"),
    };
    let mut schema: Value = serde_json::from_str(text).unwrap();
    let holder = if schema.get("$defs").is_some() { "$defs" } else { "definitions" };
    assert!(schema[holder].get(definition).is_some(), "{revision} has no {definition}");
    schema["allOf"] = json!([{ "$ref": format!("#/{holder}/{definition}") }]);
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn a_schema_refuses_what_is_of_another_revision() {
    let plain = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#;
    assert_eq!(faults(Revision::V2025_06_18, plain, ""), Vec::<String>::new());
    assert!(!faults(Revision::V2026_07_28, plain, "").is_empty());
    let array = br#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[],"structuredContent":[1]}}"#;
    assert_eq!(faults(Revision::V2026_07_28, array, "tools/call"), Vec::<String>::new());
    assert!(!faults(Revision::V2025_11_25, array, "tools/call").is_empty());
}
