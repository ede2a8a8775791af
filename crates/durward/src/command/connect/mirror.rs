//! What of a message a 2026-07-28 request repeats in its headers.
//!
//! Which arguments of a tool that takes is learned from the lists that pass by, and from those that are asked for here.

use super::bridge::LIMITS;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use mcp::{
    Kind, ListKind, Message,
    header::{METHOD, NAME, PROTOCOL_VERSION, name_value},
    key,
    param::{self, Binding},
};
use serde_json::{Map, json};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Tools with mirrored arguments that are remembered. What a longer list has beyond that is called without them, and the
/// gateway says so.
const TOOLS: usize = 4096;

/// What was learned.
#[derive(Default)]
pub(super) struct Mirror {
    tools: Mutex<HashMap<String, Vec<Binding>>>,
    /// The version of the last request: cancellations and other notifications need not name one.
    version: Mutex<Option<HeaderValue>>,
    /// One at a time asks.
    pub(super) learning: tokio::sync::Mutex<()>,
}

impl Mirror {
    /// Learns from an answer to `tools/list`.
    pub(super) fn learn(&self, answer: &Message) {
        let Ok(entries) = mcp::list::entries(answer, ListKind::Tools) else { return };
        let mut tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            let schema = member(entry.raw, "inputSchema");
            // A schema that cannot be followed mirrors nothing; the gateway keeps such tools out of its lists.
            let bindings = schema.and_then(|schema| param::bindings(&schema).ok()).unwrap_or_default();
            if bindings.is_empty() {
                tools.remove(entry.name.as_ref());
            } else if tools.len() < TOOLS || tools.contains_key(entry.name.as_ref()) {
                tools.insert(entry.name.into_owned(), bindings);
            }
        }
    }

    /// Adds the headers of a message (2026-07-28, streamable-http, "Standard Request Headers" and "Custom Headers from
    /// Tool Parameters").
    pub(super) fn dress(&self, headers: &mut HeaderMap, message: &Message) {
        if let Some(version) = self.version(message) {
            headers.insert(PROTOCOL_VERSION, version);
        }
        // What no header can hold is no method either, and is refused as one.
        if let Ok(method) = HeaderValue::from_str(message.method()) {
            headers.insert(METHOD, method);
        }
        let Some(subject) = message.subject() else { return };
        headers.insert(NAME, name_value(&subject));
        if message.method() != "tools/call" || message.kind() != Kind::Request {
            return;
        }
        let tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bindings) = tools.get(subject.as_ref()) else { return };
        let Some(Ok(arguments)) = message.arguments().map(|arguments| arguments.value()) else { return };
        headers.extend(param::headers(bindings, &arguments));
    }

    fn version(&self, message: &Message) -> Option<HeaderValue> {
        let mut last = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = message.modern_version() {
            *last = HeaderValue::from_str(&version).ok();
        }
        last.clone()
    }
}

/// The request for a page of the list of tools, in the name of the client that made this call.
pub(super) fn question(call: &Message, cursor: Option<&str>) -> Option<Message> {
    let said = call.param(&["_meta"])?.value().ok()?;
    let about = [key::PROTOCOL_VERSION, key::CLIENT_CAPABILITIES, key::CLIENT_INFO];
    let meta: Map<_, _> = about.into_iter().filter_map(|key| Some((key.to_owned(), said.get(key)?.clone()))).collect();
    let params = match cursor {
        Some(cursor) => json!({ "_meta": meta, "cursor": cursor }),
        None => json!({ "_meta": meta }),
    };
    let text = json!({ "jsonrpc": "2.0", "id": "durward-connect", "method": "tools/list", "params": params });
    single(&Bytes::from(text.to_string()), &LIMITS)
}

/// A member of an object that was scanned.
fn member(object: &[u8], name: &str) -> Option<serde_json::Value> {
    let mut object = mcp::value(object).ok()?;
    object.get_mut(name).map(serde_json::Value::take)
}

/// A message that was scanned; `None` where it is none.
pub(super) fn single(text: &Bytes, limits: &mcp::Limits) -> Option<Message> {
    match mcp::scan(text.clone(), limits) {
        Ok(mcp::Body::Single(message)) => Some(message),
        Ok(mcp::Body::Batch(_)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcp::Limits;

    fn message(value: &serde_json::Value) -> Message {
        single(&Bytes::from(value.to_string()), &Limits::default()).unwrap()
    }

    fn call(tool: &str, arguments: &serde_json::Value) -> Message {
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        let params = json!({ "name": tool, "arguments": arguments, "_meta": meta });
        message(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
    }

    fn list(schema: &serde_json::Value) -> Message {
        let tools = json!([{ "name": "töol", "inputSchema": schema }, { "name": "plain" }]);
        message(&json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": tools } }))
    }

    #[test]
    fn a_call_carries_what_its_schema_wants() {
        let mirror = Mirror::default();
        let dressed = |message: &Message| {
            let mut headers = HeaderMap::new();
            mirror.dress(&mut headers, message);
            headers
        };
        let call = call("töol", &json!({ "region": "eu", "n": 1 }));
        assert!(dressed(&call).get("mcp-param-region").is_none(), "nobody listed it yet");

        let region = json!({ "type": "string", "x-mcp-header": "Region" });
        mirror.learn(&list(&json!({ "type": "object", "properties": { "region": region, "n": {} } })));
        let headers = dressed(&call);
        assert_eq!(headers["mcp-param-region"], "eu");
        assert_eq!(headers[METHOD], "tools/call");
        assert_eq!(headers[PROTOCOL_VERSION], "2026-07-28");
        assert_eq!(mcp::header::decode(NAME, &headers[NAME]).unwrap(), "töol");
        assert_eq!(mcp::check(&headers, &call).err(), Some(mcp::HeaderFault::MissingMeta(key::CLIENT_CAPABILITIES)));

        mirror.learn(&list(&json!({ "type": "object" })));
        assert!(dressed(&call).get("mcp-param-region").is_none(), "the tool has changed");
        let cancelled = message(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {} }));
        assert_eq!(dressed(&cancelled)[PROTOCOL_VERSION], "2026-07-28");
    }
}
