//! The agent of the tour: a small MCP client that reaches the gateway as every agent does, over HTTP with its key.
//!
//! Keeps everything it sent and received, so that the tour can tell what it never saw.

use anyhow::{Context, Result, bail};
use egress::{Egress, Endpoint};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::{fmt::Write, time::Duration};
use vocab::Secret;

/// The revision it speaks: the one that most clients speak today.
const REVISION: &str = "2025-11-25";
const SESSION: &str = "mcp-session-id";
const PATIENCE: Duration = Duration::from_secs(20);

/// The agent.
pub(super) struct Agent {
    egress: Egress,
    gateway: Endpoint,
    authorization: HeaderValue,
    session: Option<HeaderValue>,
    last_id: u64,
    traffic: String,
}

/// What came back for one request.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The id of the call in the log.
    pub(super) call: String,
    pub(super) headers: HeaderMap,
    /// The JSON-RPC response.
    pub(super) message: Value,
}

impl Agent {
    /// Introduces the agent to the gateway.
    pub(super) async fn connect(url: &str, key: &Secret<String>) -> Result<Self> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.expose()))?;
        authorization.set_sensitive(true);
        let mut agent = Self {
            egress: Egress::new(egress::Settings::default())?,
            gateway: Endpoint::parse(url, true, None)?,
            authorization,
            session: None,
            last_id: 0,
            traffic: String::new(),
        };
        let hello = json!({
            "protocolVersion": REVISION,
            "capabilities": {},
            "clientInfo": { "name": "durward-tour", "version": env!("CARGO_PKG_VERSION") },
        });
        let answer = agent.request("initialize", hello).await?;
        if answer.message.get("result").is_none() {
            bail!("the gateway did not accept the agent: {}", answer.message);
        }
        agent.session = answer.headers.get(SESSION).cloned();
        agent.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await?;
        Ok(agent)
    }

    /// Calls a tool.
    pub(super) async fn call(&mut self, tool: &str, arguments: Value) -> Result<Answer> {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Sends a request and reads its response.
    pub(super) async fn request(&mut self, method: &str, params: Value) -> Result<Answer> {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await
    }

    /// Whether a text was in anything it sent or received, headers included.
    pub(super) fn has_seen(&self, text: &str) -> bool {
        self.traffic.contains(text)
    }

    async fn send(&mut self, message: &Value) -> Result<Answer> {
        let text = message.to_string();
        let mut request = Request::new(Full::new(Bytes::from(text.clone())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.gateway.uri().clone();
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(session) = &self.session {
            headers.insert(SESSION, session.clone());
            headers.insert("mcp-protocol-version", HeaderValue::from_static(REVISION));
        }
        self.traffic.push_str(&text);
        let response = self.egress.send(&self.gateway, 0, Box::new(request), PATIENCE).await?;
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.context("the answer does not end")??.to_bytes();
        let body = String::from_utf8_lossy(&body);
        // Writing to a string cannot fail.
        let _ = write!(self.traffic, "{:?}{body}", head.headers);
        let call = head.headers.get("durward-call-id").and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Answer { call: call.to_owned(), message: response_in(&body), headers: head.headers })
    }
}

/// The JSON-RPC response in a body: the body itself, or the event of a stream that is one.
fn response_in(body: &str) -> Value {
    if let Ok(message) = serde_json::from_str(body) {
        return message;
    }
    let mut events = body.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data:")?).ok());
    events.rfind(|event| event.get("id").is_some() && event.get("method").is_none()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_found_whole_or_in_a_stream() {
        assert_eq!(response_in(r#"{"id":1,"result":{}}"#)["id"], 1);
        let stream = "data: {\"method\":\"notifications/message\"}\n\ndata: {\"id\":2,\"result\":{}}\n\n";
        assert_eq!(response_in(stream)["id"], 2);
        assert_eq!(response_in(""), Value::Null);
    }
}
