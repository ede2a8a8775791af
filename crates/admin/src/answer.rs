//! What a route answers, and what it tells the record.

use axum::{
    body::{Body, Bytes},
    extract::FromRequest,
    response::{IntoResponse, Response},
};
use gateway::label;
use http::{
    HeaderName, HeaderValue, Request, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Value, json};
use std::{fmt, marker::PhantomData};

/// The header that carries the id under which an action is recorded.
pub const CALL: HeaderName = HeaderName::from_static("durward-call-id");

/// What the record says beside who and when. SECURITY: never a secret.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memo {
    /// What it was done to.
    pub(crate) target: Option<String>,
    /// What changed.
    pub(crate) detail: Option<String>,
    /// Why it was not done, as a short word.
    pub(crate) reason: Option<&'static str>,
}

/// Something was done.
#[derive(Debug)]
pub(crate) struct Done {
    body: Content,
    memo: Memo,
}

#[derive(Debug)]
enum Content {
    Json(Value),
    Text(&'static str, String),
}

impl Done {
    /// Answers a JSON value.
    pub(crate) fn json(value: Value) -> Self {
        Self { body: Content::Json(value), memo: Memo::default() }
    }

    /// Answers a text.
    pub(crate) fn text(text: String) -> Self {
        Self { body: Content::Text("text/plain; charset=utf-8", text), memo: Memo::default() }
    }

    /// Answers a text of another type.
    pub(crate) fn typed(kind: &'static str, text: String) -> Self {
        Self { body: Content::Text(kind, text), memo: Memo::default() }
    }

    /// It was done to this.
    pub(crate) fn to(mut self, target: &impl ToString) -> Self {
        self.memo.target = Some(target.to_string());
        self
    }

    /// This changed.
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.memo.detail = Some(detail.into());
        self
    }
}

/// Something was not done, and why.
#[derive(Debug)]
pub(crate) struct Fault {
    status: StatusCode,
    reason: &'static str,
    message: String,
    target: Option<String>,
}

impl Fault {
    pub(crate) fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into(), target: None }
    }

    /// The request is not one.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    /// There is no such thing.
    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "missing", message)
    }

    /// It does not fit what is there.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// Our failure: the cause goes to the log of the program, and the answer says as much as is safe.
    pub(crate) fn ours(what: &'static str, cause: &dyn std::error::Error) -> Self {
        let mut chain = cause.to_string();
        let mut next = cause.source();
        while let Some(cause) = next {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            next = cause.source();
        }
        tracing::error!(fault = %chain, "{what}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", format!("{what}: {chain}"))
    }

    /// It would have been done to this.
    pub(crate) fn to(mut self, target: &impl ToString) -> Self {
        self.target = Some(target.to_string());
        self
    }
}

/// Reads a body. SECURITY: the cause of a fault is not told, it may quote a secret.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8], expected: &'static str) -> Result<T, Fault> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let read = serde_json::from_slice(body).map(|Table(value)| value);
    read.map_err(|cause| {
        let (line, column) = (cause.line(), cause.column());
        Fault::bad(format!("the body does not fit at line {line}, column {column}: send {expected}"))
    })
}

/// A JSON object. A derived reader takes a list, too, whose members it gives to the keys in their order: `["value"]`.
#[derive(Debug)]
pub(crate) struct Table<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Table<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Table<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Table)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// What a route that takes nothing takes: no body, or an object without members.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

impl<S: Send + Sync> FromRequest<S> for Nothing {
    type Rejection = Fault;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Fault> {
        let body = Bytes::from_request(request, state).await.map_err(|fault| Fault::bad(fault.body_text()))?;
        read(&body, "no body: nothing is read from it here")
    }
}

/// Reads a name out of a path.
pub(crate) fn name<T: std::str::FromStr<Err: fmt::Display>>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(|fault: T::Err| Fault::bad(fault.to_string()))
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        let (kind, text) = match self.body {
            Content::Json(value) => ("application/json", value.to_string()),
            Content::Text(kind, text) => (kind, text),
        };
        respond(StatusCode::OK, kind, text, self.memo)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        // SECURITY: a fault may say what was sent, as long as that was. Whoever asked reads all of it.
        let detail = label::shown(&self.message).into_owned();
        let memo = Memo { target: self.target, detail: Some(detail), reason: Some(self.reason) };
        let body = json!({ "error": { "reason": self.reason, "message": self.message } });
        respond(self.status, "application/json", body.to_string(), memo)
    }
}

fn respond(status: StatusCode, kind: &'static str, text: String, memo: Memo) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Keys are shown once, and never from a cache.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(memo);
    response
}
