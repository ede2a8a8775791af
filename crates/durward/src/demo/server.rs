//! The two servers of the demo: their tools, and what they answer.
//!
//! Ordinary MCP servers of both eras that know nothing of a gateway. How they are reached is in `web` and `pipe`.

use serde_json::{Map, Value, json};
use vocab::Digest;

/// What marks a request of the modern era.
const MODERN: &str = "2026-07-28";
/// The revisions with an introduction.
const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

/// What somebody left in a file: no real secrets, and put together here so that no scanner takes them for some.
pub(super) const LEFT_IN_FILE: [&str; 2] =
    [concat!("AKIA", "QX3T7M2VJ5NR8WKD"), concat!("sk_live_", "4bT9xQ2mLr7VdWz6KpY3hN8s")];

/// One tool.
pub(super) struct Tool {
    pub(super) name: &'static str,
    says: &'static str,
    /// Its one argument, with its JSON type.
    takes: Option<(&'static str, &'static str)>,
    does: fn(&Visit<'_>) -> Result<String, String>,
}

/// What a tool sees of a call.
pub(super) struct Visit<'a> {
    arguments: &'a Map<String, Value>,
    /// The bearer token that came with the request.
    token: Option<&'a str>,
}

/// A server.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) tools: &'static [Tool],
}

/// Customer records, over HTTP.
pub(super) static CUSTOMERS: Server = Server {
    name: "customers",
    tools: &[
        Tool { name: "find_customer", says: "Finds a customer.", takes: Some(("id", "integer")), does: find },
        Tool { name: "export_customers", says: "Exports every customer.", takes: None, does: export },
        Tool { name: "delete_customer", says: "Deletes a customer.", takes: Some(("id", "integer")), does: delete },
        Tool { name: "show_connection", says: "Says how the caller is connected.", takes: None, does: connection },
        Tool { name: "run_sql", says: "Runs any SQL.", takes: Some(("query", "string")), does: never },
    ],
};

/// Files, on stdio.
pub(super) static FILES: Server = Server {
    name: "files",
    tools: &[
        Tool { name: "list_files", says: "Lists files.", takes: None, does: list },
        Tool { name: "read_file", says: "Reads a file.", takes: Some(("path", "string")), does: read },
        Tool { name: "delete_file", says: "Deletes a file.", takes: Some(("path", "string")), does: never },
        Tool { name: "run_command", says: "Runs a command.", takes: Some(("command", "string")), does: never },
    ],
};

const PEOPLE: [(i64, &str); 3] = [(1, "Ada Lovelace, London"), (7, "Grace Hopper, New York"), (9001, "Test Person")];

fn find(visit: &Visit<'_>) -> Result<String, String> {
    let id = visit.arguments.get("id").and_then(Value::as_i64);
    let found = PEOPLE.iter().find(|(known, _)| Some(*known) == id);
    found.map(|(_, who)| (*who).to_owned()).ok_or_else(|| "there is no such customer".to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "every tool may fail")]
fn export(_: &Visit<'_>) -> Result<String, String> {
    Ok(PEOPLE.map(|(id, who)| format!("{id}: {who}")).join("\n"))
}

fn delete(visit: &Visit<'_>) -> Result<String, String> {
    find(visit).map(|who| format!("{who} would be gone now, but this is a demo"))
}

fn connection(visit: &Visit<'_>) -> Result<String, String> {
    let token = visit.token.ok_or_else(|| "got the credential: no".to_owned())?;
    Ok(format!("got the credential: yes, {}", Digest::of(token.as_bytes())))
}

#[expect(clippy::unnecessary_wraps, reason = "every tool may fail")]
fn list(_: &Visit<'_>) -> Result<String, String> {
    Ok("readme.txt\nsettings.env".to_owned())
}

fn read(visit: &Visit<'_>) -> Result<String, String> {
    let [aws, stripe] = LEFT_IN_FILE;
    match visit.arguments.get("path").and_then(Value::as_str) {
        Some("readme.txt") => Ok("Nothing to see here.".to_owned()),
        Some("settings.env") => Ok(format!("REGION=eu-west-1\nACCESS={aws}\nPAYMENTS={stripe}\n")),
        _ => Err("there is no such file".to_owned()),
    }
}

fn never(_: &Visit<'_>) -> Result<String, String> {
    Err("this is a demo: it does nothing of the kind".to_owned())
}

impl Tool {
    fn definition(&self) -> Value {
        let properties: Map<String, Value> =
            self.takes.iter().map(|(name, kind)| ((*name).to_owned(), json!({ "type": kind }))).collect();
        let required: Vec<&str> = self.takes.iter().map(|(name, _)| *name).collect();
        json!({
            "name": self.name,
            "description": self.says,
            "inputSchema": {
                "type": "object", "properties": properties, "required": required, "additionalProperties": false,
            },
        })
    }
}

/// The tool that a message calls, if it calls one.
pub(super) fn called(message: &Value) -> Option<&str> {
    message.get("method").filter(|method| *method == "tools/call")?;
    message.pointer("/params/name")?.as_str()
}

impl Server {
    /// The answer to one message; none to what asks nothing.
    pub(super) fn answer(&self, message: &Value, token: Option<&str>) -> Option<Value> {
        let id = message.get("id")?;
        let method = message.get("method").and_then(Value::as_str)?;
        let is_modern = message.pointer("/params/_meta/io.modelcontextprotocol~1protocolVersion").is_some();
        let outcome = match (method, is_modern) {
            ("initialize", false) => Ok(self.introduction(message)),
            ("ping", false) => Ok(json!({})),
            ("server/discover", true) => Ok(self.discovery()),
            ("tools/list", _) => {
                let tools: Vec<Value> = self.tools.iter().map(Tool::definition).collect();
                Ok(json!({ "tools": tools }))
            }
            ("tools/call", _) => self.call(message, token),
            _ => Err((-32601, format!("Unknown method: {method}"))),
        };
        Some(match outcome {
            Ok(mut result) => {
                if let (true, Some(members)) = (is_modern, result.as_object_mut()) {
                    members.insert("resultType".to_owned(), json!("complete"));
                    if method != "tools/call" {
                        members.insert("ttlMs".to_owned(), json!(60_000));
                        members.insert("cacheScope".to_owned(), json!("public"));
                    }
                }
                json!({ "jsonrpc": "2.0", "id": id, "result": result })
            }
            Err((code, message)) => {
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
            }
        })
    }

    fn introduction(&self, message: &Value) -> Value {
        let asked = message.pointer("/params/protocolVersion").and_then(Value::as_str);
        let version = LEGACY.into_iter().find(|known| Some(*known) == asked).unwrap_or(LEGACY[0]);
        json!({ "protocolVersion": version, "capabilities": { "tools": {} }, "serverInfo": self.identity() })
    }

    fn discovery(&self) -> Value {
        json!({
            "supportedVersions": [MODERN],
            "capabilities": { "tools": {} },
            "_meta": { "io.modelcontextprotocol/serverInfo": self.identity() },
        })
    }

    fn identity(&self) -> Value {
        json!({ "name": format!("demo-{}", self.name), "version": env!("CARGO_PKG_VERSION") })
    }

    fn call(&self, message: &Value, token: Option<&str>) -> Result<Value, (i64, String)> {
        let name = called(message).unwrap_or_default();
        let tool = self.tools.iter().find(|tool| tool.name == name);
        let tool = tool.ok_or_else(|| (-32602, format!("Unknown tool: {name}")))?;
        let none = Map::new();
        let arguments = message.pointer("/params/arguments").and_then(Value::as_object).unwrap_or(&none);
        let (text, is_error) = match (tool.does)(&Visit { arguments, token }) {
            Ok(text) => (text, false),
            Err(text) => (text, true),
        };
        Ok(json!({ "content": [{ "type": "text", "text": text }], "isError": is_error }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modern(method: &str, mut params: Value) -> Value {
        params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": MODERN });
        json!({ "jsonrpc": "2.0", "id": "a", "method": method, "params": params })
    }

    #[test]
    fn both_eras_are_spoken() {
        let hello =
            json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}});
        let answer = FILES.answer(&hello, None).unwrap();
        assert_eq!(answer["result"]["protocolVersion"], "2025-06-18");

        let answer = FILES.answer(&modern("server/discover", json!({})), None).unwrap();
        assert_eq!(answer["id"], "a");
        assert_eq!(answer["result"]["supportedVersions"], json!([MODERN]));
        assert_eq!(answer["result"]["resultType"], "complete");

        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(FILES.answer(&ready, None), None);
        let answer = FILES.answer(&modern("initialize", json!({})), None).unwrap();
        assert_eq!(answer["error"]["code"], -32601);
    }

    #[test]
    fn a_server_says_what_it_was_given() {
        let call = modern("tools/call", json!({"name": "show_connection"}));
        let text = |token| CUSTOMERS.answer(&call, token).unwrap()["result"]["content"][0]["text"].to_string();
        assert!(text(None).contains("no"));
        assert!(text(Some("t")).contains(&Digest::of(b"t").to_string()));
    }
}
