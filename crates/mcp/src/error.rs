//! JSON-RPC error codes and the text of an error.
//!
//! | code | says | HTTP |
//! |---|---|---|
//! | -31001 | policy denied it, by a rule that is named | 200 |
//! | -31002 | a limit is reached; `data.retryAfter` says how long to wait | 200 |
//! | -31003 | a guard refused the arguments | 200 |
//! | -31004 | it happened, and its result is withheld | 200 |
//! | -31005 | the log cannot be written, so nothing is done | 200 |
//! | -31006 | the server cannot be reached | 200 |
//! | -31007 | the server did not answer in time | 200 |
//! | -31008 | a person must approve it first | 200 |
//! | -31009 | the server's definition of the tool cannot be used | 200 |
//!
//! Ours lie outside -32768 … -32000: the specification keeps that range (2026-07-28, basic/index, "Error Codes").
//! What a caller may not see answers as [`INVALID_PARAMS`], as what does not exist does.

use crate::text::write_quoted;
use bytes::Bytes;
use std::fmt::Write;

/// The text is not JSON (JSON-RPC 2.0 §5.1).
pub const PARSE: i64 = -32700;
/// The JSON is no request (JSON-RPC 2.0 §5.1).
pub const INVALID_REQUEST: i64 = -32600;
/// No such method (JSON-RPC 2.0 §5.1). Modern: with HTTP 404.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// Bad parameters, an unknown tool, a missing `_meta` field (JSON-RPC 2.0 §5.1).
pub const INVALID_PARAMS: i64 = -32602;
/// Something broke (JSON-RPC 2.0 §5.1).
pub const INTERNAL: i64 = -32603;
/// The session is not known: begin a new one (legacy servers answer it with HTTP 404).
pub const SESSION_NOT_FOUND: i64 = -32001;
/// The resource is not known (legacy; the modern era uses [`INVALID_PARAMS`]).
pub const RESOURCE_NOT_FOUND: i64 = -32002;
/// A header is missing, malformed or differs from the body (2026-07-28, streamable-http, "Server Validation").
pub const HEADER_MISMATCH: i64 = -32020;
/// The client lacks a capability the request needs (2026-07-28, schema, `MissingRequiredClientCapabilityError`).
pub const MISSING_CAPABILITY: i64 = -32021;
/// The version or era is not spoken here (2026-07-28, schema, `UnsupportedProtocolVersionError`).
pub const UNSUPPORTED_VERSION: i64 = -32022;

/// Policy denied it.
pub const REFUSED_POLICY: i64 = -31001;
/// A limit is reached.
pub const REFUSED_LIMIT: i64 = -31002;
/// A guard refused the arguments.
pub const REFUSED_GUARD: i64 = -31003;
/// It happened; the result is withheld.
pub const WITHHELD: i64 = -31004;
/// The log cannot be written.
pub const LOG_UNAVAILABLE: i64 = -31005;
/// The server cannot be reached.
pub const UPSTREAM_DOWN: i64 = -31006;
/// The server did not answer in time.
pub const UPSTREAM_TIMEOUT: i64 = -31007;
/// A person must approve it first.
pub const APPROVAL_PENDING: i64 = -31008;
/// The server's definition of the tool cannot be used, so its calls are refused.
pub const DEFINITION_UNUSABLE: i64 = -31009;

/// The text of an error response. `id` is the raw id of the request; without one the response has none
/// (2025-11-25 and later; JSON-RPC 2.0 §5 wants `null`, which is what `Some("null")` writes).
pub fn error_text(id: Option<&str>, code: i64, message: &str, data: Option<&serde_json::Value>) -> Bytes {
    let mut out = String::with_capacity(96 + message.len());
    out.push_str("{\"jsonrpc\":\"2.0\",");
    if let Some(id) = id {
        out.push_str("\"id\":");
        out.push_str(id);
        out.push(',');
    }
    // Writing to a string cannot fail.
    let _ = write!(out, "\"error\":{{\"code\":{code},\"message\":");
    write_quoted(&mut out, message);
    if let Some(data) = data {
        let _ = write!(out, ",\"data\":{data}");
    }
    out.push_str("}}");
    Bytes::from(out)
}

/// The text of a successful response with a result that is JSON text already.
pub fn result_text(id: &str, result: &[u8]) -> Bytes {
    let parts: [&[u8]; 5] = [b"{\"jsonrpc\":\"2.0\",\"id\":", id.as_bytes(), b",\"result\":", result, b"}"];
    Bytes::from(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, Limits, scan};

    #[test]
    fn an_error_reads_back_with_its_id_and_code() {
        let data = serde_json::json!({"rule": "p#1", "text": "\"\n"});
        let text = error_text(Some("\"a\\u0062\""), REFUSED_POLICY, "no \"\\\u{2}", Some(&data));
        let Ok(Body::Single(message)) = scan(text, &Limits::default()) else { panic!("must scan") };
        assert_eq!((message.id(), message.error_code()), (Some("\"a\\u0062\""), Some(-31001)));
        let error = crate::value(message.error().unwrap()).unwrap();
        assert_eq!(error, serde_json::json!({"code": -31001, "message": "no \"\\\u{2}", "data": data}));
    }
}
