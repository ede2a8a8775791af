//! Why a request has no answer of the gateway's, and the answer it gets instead.

use bytes::Bytes;
use mcp::error::{INTERNAL, UPSTREAM_DOWN, UPSTREAM_TIMEOUT};
use serde_json::json;

/// Why.
#[derive(Debug)]
pub(super) enum Failure {
    /// The gateway was not reached, or it was lost before it answered.
    Lost {
        /// What happened.
        what: String,
        /// Whether the request may have been carried out.
        may_have_happened: bool,
    },
    /// The gateway gave no answer in time.
    Late(String),
    /// The gateway answered with something that is no answer, or refused.
    Unfit(String),
    /// The gateway said why, without saying to whom: its error object.
    Theirs(Bytes),
}

impl Failure {
    /// The answer to the request with this raw id.
    pub(super) fn answer(&self, id: &str) -> Bytes {
        let (code, text, data) = match self {
            Self::Lost { what, may_have_happened: false } => {
                (UPSTREAM_DOWN, what.clone(), json!({ "mayHaveHappened": false }))
            }
            Self::Lost { what, may_have_happened: true } => (
                UPSTREAM_DOWN,
                format!("{what}; whether the request was carried out is not known"),
                json!({ "mayHaveHappened": true }),
            ),
            Self::Late(text) => (UPSTREAM_TIMEOUT, text.clone(), json!({ "mayHaveHappened": true })),
            Self::Unfit(text) => return mcp::error_text(Some(id), INTERNAL, text, None),
            Self::Theirs(error) => {
                let parts: [&[u8]; 5] = [b"{\"jsonrpc\":\"2.0\",\"id\":", id.as_bytes(), b",\"error\":", error, b"}"];
                return Bytes::from(parts.concat());
            }
        };
        mcp::error_text(Some(id), code, &text, Some(&data))
    }

    /// The same for the person at stderr.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Lost { what, .. } => what.clone(),
            Self::Late(text) | Self::Unfit(text) => text.clone(),
            Self::Theirs(error) => message_of(error).unwrap_or_else(|| "the gateway refused".to_owned()),
        }
    }
}

/// The `message` of an error object.
pub(super) fn message_of(error: &[u8]) -> Option<String> {
    mcp::value(error).ok()?.get("message")?.as_str().map(str::to_owned)
}
