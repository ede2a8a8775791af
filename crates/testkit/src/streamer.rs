//! A client of the transport of 2024-11-05: hears everything on one stream, says everything in POSTs beside it.

use crate::{
    client::{Ask, Event, Reply},
    soon,
};
use serde_json::{Value, json};

const REVISION: &str = "2024-11-05";

/// The client, with its stream open. Dropping it closes the stream.
#[derive(Debug)]
pub struct Streamer {
    address: String,
    token: Option<String>,
    stream: Reply,
    last_id: u64,
}

impl Streamer {
    /// Opens the stream at `url` and waits for the address to post to.
    pub async fn open(url: &str, token: Option<&str>) -> Self {
        let ask = Ask::get(url).header("accept", "text/event-stream");
        let mut stream = dressed(ask, token).send().await;
        stream.hearing.speaks(REVISION);
        assert_eq!(stream.status, 200, "the stream was refused");
        let first = soon(stream.event()).await.expect("an event");
        assert_eq!(first.name.as_deref(), Some("endpoint"), "{first:?}");
        let scheme = url.find("://").map_or(0, |at| at + 3);
        let host = url.get(scheme..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| scheme + at);
        let address = format!("{}{}", url.get(..host).unwrap_or(url), first.data);
        Self { address, token: token.map(str::to_owned), stream, last_id: 0 }
    }

    /// The same, introduced: gives the result of `initialize`, too.
    pub async fn begin(url: &str, token: Option<&str>) -> (Self, Value) {
        let mut client = Self::open(url, token).await;
        let hello = json!({
            "protocolVersion": REVISION,
            "capabilities": {"sampling": {}, "roots": {"listChanged": true}},
            "clientInfo": {"name": "testkit", "version": "1.0.0"},
        });
        let answer = client.request("initialize", hello).await;
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(client.post(&ready).await.status, 202);
        (client, answer)
    }

    /// Where it posts to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The POST of one message, ready to be spoilt. It is answered on the stream.
    pub fn ask(&self, message: &Value) -> Ask {
        self.stream.hearing.expects(message);
        let ask = Ask::new(http::Method::POST, &self.address).header("content-type", "application/json");
        dressed(ask.body(message.to_string()), self.token.as_deref())
    }

    /// Posts one message.
    pub async fn post(&self, message: &Value) -> Reply {
        soon(self.ask(message).send()).await
    }

    /// Posts a request and gives its id.
    pub async fn send(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let reply = self.post(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        let status = reply.status;
        assert_eq!(status, 202, "{}", reply.text().await);
        id
    }

    /// Posts a request and waits for its answer, which must come next.
    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params).await;
        let answer = self.message().await;
        assert!(answer.get("id").is_some_and(|named| *named == id), "{answer}");
        answer
    }

    /// The next event of the stream; none at its end.
    pub async fn event(&mut self) -> Option<Event> {
        soon(self.stream.event()).await
    }

    /// The next message of the stream.
    pub async fn message(&mut self) -> Value {
        let event = self.event().await.expect("the stream goes on");
        assert_eq!((event.name.as_deref(), event.id.as_deref()), (Some("message"), None), "{event:?}");
        event.json()
    }
}

fn dressed(ask: Ask, token: Option<&str>) -> Ask {
    match token {
        Some(token) => ask.bearer(token),
        None => ask,
    }
}
