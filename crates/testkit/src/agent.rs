//! An MCP client of either era, as thin as it can be: it says what the revision demands and hides nothing.

use crate::client::{Ask, Reply};
use http::Method;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// The last revision with sessions.
pub const LEGACY: &str = "2025-11-25";
/// The first revision without.
pub const MODERN: &str = "2026-07-28";

/// The `_meta` that every modern request carries.
pub fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "testkit", "version": "1.0.0"},
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "sampling": {}, "roots": {}},
    })
}

/// A client. Legacy ones hold a session, modern ones nothing.
#[derive(Debug)]
pub struct Agent {
    url: String,
    token: Option<String>,
    session: Option<String>,
    version: String,
    last_id: AtomicU64,
}

impl Agent {
    /// A modern client. Sends nothing yet.
    pub fn modern(url: &str, token: Option<&str>) -> Self {
        Self::new(url, token, MODERN)
    }

    /// A legacy client that has shaken hands.
    pub async fn legacy(url: &str, token: Option<&str>) -> Self {
        Self::of(LEGACY, url, token).await
    }

    /// The same of another revision than the last one.
    pub async fn of(revision: &str, url: &str, token: Option<&str>) -> Self {
        Self::tried(revision, url, token).await.expect("initialize failed")
    }

    /// The same, where it may be refused.
    ///
    /// # Errors
    /// What was answered in place of a result.
    pub async fn tried(revision: &str, url: &str, token: Option<&str>) -> Result<Self, Value> {
        let mut agent = Self::new(url, token, revision);
        let hello = json!({
            "protocolVersion": revision,
            "capabilities": {"elicitation": {}, "sampling": {}, "roots": {"listChanged": true}},
            "clientInfo": {"name": "testkit", "version": "1.0.0"},
        });
        let reply = agent.request("initialize", hello).await;
        let status = reply.status;
        agent.session = reply.header("mcp-session-id").map(str::to_owned);
        let answer = reply.json().await;
        if answer.get("result").is_none() {
            return Err(answer);
        }
        assert_eq!(status, 200, "initialize was refused");
        // What was agreed on is said from now on.
        if let Some(agreed) = answer.pointer("/result/protocolVersion").and_then(Value::as_str) {
            agreed.clone_into(&mut agent.version);
        }
        let ready = agent.notify("notifications/initialized", json!({})).await;
        if ready.status == 202 { Ok(agent) } else { Err(ready.json().await) }
    }

    fn new(url: &str, token: Option<&str>, version: &str) -> Self {
        Self {
            url: url.to_owned(),
            token: token.map(str::to_owned),
            session: None,
            version: version.to_owned(),
            last_id: AtomicU64::new(0),
        }
    }

    /// The session's id, once there is one.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// Sends a request with the next free id.
    pub async fn request(&self, method: &str, params: Value) -> Reply {
        let id = self.last_id.fetch_add(1, Ordering::SeqCst) + 1;
        let params = self.params(params);
        self.ask(method, &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).send().await
    }

    /// Sends a notification.
    pub async fn notify(&self, method: &str, params: Value) -> Reply {
        self.ask(method, &json!({"jsonrpc": "2.0", "method": method, "params": self.params(params)})).send().await
    }

    /// Calls a tool and gives the whole JSON-RPC answer.
    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({"name": tool, "arguments": arguments})).await.json().await
    }

    /// The names in `tools/list`, first page.
    pub async fn tools(&self) -> Vec<String> {
        let answer = self.request("tools/list", json!({})).await.json().await;
        let tools = answer.pointer("/result/tools").and_then(Value::as_array).cloned().unwrap_or_default();
        tools.iter().filter_map(|tool| tool.get("name")?.as_str().map(str::to_owned)).collect()
    }

    /// The POST of one message with every header that the era asks for, ready to be spoilt.
    pub fn ask(&self, method: &str, message: &Value) -> Ask {
        let mut ask = self.dressed(Ask::post(&self.url, message.to_string()));
        if self.version == MODERN {
            ask = ask.header("mcp-method", method);
            let named = message.pointer("/params/name").or_else(|| message.pointer("/params/uri"));
            if let Some(name) = named.and_then(Value::as_str).filter(|_| carries_name(method)) {
                ask = ask.header("mcp-name", name);
            }
        }
        ask
    }

    /// Opens the GET stream of a session.
    pub async fn listen(&self) -> Reply {
        self.to_listen().send().await
    }

    /// The GET of that stream, ready to be sent.
    pub fn to_listen(&self) -> Ask {
        self.dressed(Ask::get(&self.url)).header("accept", "text/event-stream")
    }

    /// Ends the session.
    pub async fn leave(&self) -> Reply {
        self.dressed(Ask::new(Method::DELETE, &self.url)).send().await
    }

    fn dressed(&self, mut ask: Ask) -> Ask {
        if let Some(token) = &self.token {
            ask = ask.bearer(token);
        }
        if let Some(session) = &self.session {
            ask = ask.header("mcp-session-id", session);
        }
        if self.session.is_some() || self.version == MODERN {
            ask = ask.header("mcp-protocol-version", &self.version);
        }
        ask
    }

    fn params(&self, mut params: Value) -> Value {
        if self.version == MODERN
            && let Some(members) = params.as_object_mut()
        {
            members.entry("_meta").or_insert_with(meta);
        }
        params
    }
}

fn carries_name(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}
