//! What a client is told after a gap, when it may have missed that lists changed: of each that it was to hear of, once.
//!
//! Compares nothing: whoever is told asks for the list again and sees.

use bytes::Bytes;
use mcp::{Message, bridge::Filter, key::SUBSCRIPTION_ID};
use serde_json::{Value, json};

const LISTS: [&str; 3] = ["tools", "prompts", "resources"];

/// For a session: the lists whose changes the gateway promised to tell in its answer to `initialize`.
pub(super) fn of_session(answer: &Message) -> Vec<Bytes> {
    let is_promised = |list: &&str| {
        answer.outcome_member(&["capabilities", list, "listChanged"]).is_some_and(|member| member.raw == b"true")
    };
    LISTS.into_iter().filter(is_promised).map(|list| changed(list, None)).collect()
}

/// For a stream of subscriptions: the lists that the gateway acknowledged.
pub(super) fn of_subscription(acknowledged: &Message) -> Vec<Bytes> {
    let Ok(filter) = Filter::of(acknowledged) else { return Vec::new() };
    let id = acknowledged.param(&["_meta", SUBSCRIPTION_ID]).and_then(|id| id.value().ok());
    let is_on = [filter.tools, filter.prompts, filter.resources];
    LISTS.into_iter().zip(is_on).filter(|(_, is_on)| *is_on).map(|(list, _)| changed(list, id.as_ref())).collect()
}

fn changed(list: &str, subscription: Option<&Value>) -> Bytes {
    let method = format!("notifications/{list}/list_changed");
    let message = match subscription {
        Some(id) => json!({ "jsonrpc": "2.0", "method": method, "params": { "_meta": { SUBSCRIPTION_ID: id } } }),
        None => json!({ "jsonrpc": "2.0", "method": method }),
    };
    Bytes::from(message.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::connect::mirror::single;

    fn message(value: &Value) -> Message {
        single(&Bytes::from(value.to_string()), &mcp::Limits::default()).unwrap()
    }

    fn told(said: &[Bytes]) -> Vec<Value> {
        said.iter().map(|text| serde_json::from_slice(text).unwrap()).collect()
    }

    #[test]
    fn of_what_was_not_promised_nothing_is_told() {
        let changes = json!({ "listChanged": true });
        let capabilities = json!({ "tools": changes, "prompts": {}, "resources": { "listChanged": false } });
        let result = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities });
        let answer = message(&json!({ "jsonrpc": "2.0", "id": 1, "result": result }));
        let expected = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
        assert_eq!(told(&of_session(&answer)), [expected]);

        let meta = json!({ SUBSCRIPTION_ID: "s" });
        let wanted = json!({ "promptsListChanged": true, "resourcesListChanged": true, "toolsListChanged": false });
        let acknowledged = |params: &Value| {
            let method = "notifications/subscriptions/acknowledged";
            message(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
        };
        let expected = ["prompts", "resources"].map(|list| {
            let method = format!("notifications/{list}/list_changed");
            json!({ "jsonrpc": "2.0", "method": method, "params": { "_meta": meta } })
        });
        let said = acknowledged(&json!({ "notifications": wanted, "_meta": meta }));
        assert_eq!(told(&of_subscription(&said)), expected);
        assert!(of_subscription(&acknowledged(&json!({}))).is_empty());
    }
}
