//! Error codes of one era in the other. Messages and data keep their bytes; where the modern era wants the address of a
//! resource that is not there, it is added.
//!
//! | modern server says | legacy client hears | why |
//! |---|---|---|
//! | -32602 to `resources/read`, with the address in `data.uri` | -32002 | the legacy code of a resource that is not there |
//! | -32020 | -32603 | the headers were written here |
//! | -32021 | -32600 | the client cannot do what the call needs; it declared once and for all |
//! | -32022 | -32602 | what `initialize` answers to a version that is not spoken |
//!
//! | legacy server says | modern client hears | why |
//! |---|---|---|
//! | -32002 to `resources/read` | -32602 with `data.uri` | the modern code of a resource that is not there |
//! | -32020 … -32099 | -32603 | the modern era gives these a meaning that the server did not mean |

use super::rewrite::{Fate, Rewrite, at, is_object, is_string, object};
use crate::{Message, error, walk};

/// What a legacy client hears in place of `code`.
fn upward(code: i64, is_missing: bool) -> i64 {
    match code {
        error::INVALID_PARAMS if is_missing => error::RESOURCE_NOT_FOUND,
        error::HEADER_MISMATCH => error::INTERNAL,
        error::MISSING_CAPABILITY => error::INVALID_REQUEST,
        error::UNSUPPORTED_VERSION => error::INVALID_PARAMS,
        other => other,
    }
}

/// What a modern client hears in place of `code`.
fn downward(code: i64, method: &str) -> i64 {
    match code {
        error::RESOURCE_NOT_FOUND if method == "resources/read" => error::INVALID_PARAMS,
        -32099..=error::HEADER_MISMATCH => error::INTERNAL,
        other => other,
    }
}

/// Changes the code of an error of a modern server.
pub(super) fn raise(message: &Message, method: &str, rewrite: &mut Rewrite<'_>) {
    // SPEC: 2026-07-28, server/resources, "Error Handling": whoever means a missing resource names it. Other parameters of
    // `resources/read` can be wrong, too, and every legacy revision has -32602 for those.
    let named = message.error().and_then(|error| at(error, &["data", "uri"])).is_some_and(is_string);
    let is_missing = method == "resources/read" && named;
    change(message, rewrite, |code| upward(code, is_missing));
}

/// Changes the code of an error of a legacy server. `uri` is the raw address that was asked for.
pub(super) fn lower(message: &Message, method: &str, uri: Option<&[u8]>, rewrite: &mut Rewrite<'_>) {
    change(message, rewrite, |code| downward(code, method));
    if let Some(uri) = uri.filter(|uri| is_string(uri))
        && method == "resources/read"
        && message.error_code() == Some(error::RESOURCE_NOT_FOUND)
    {
        name(message, uri, rewrite);
    }
}

/// SPEC: SEP-2164 wants the address of a resource that is not there in the error's data. What the server says of it stays.
fn name(message: &Message, uri: &[u8], rewrite: &mut Rewrite<'_>) {
    let Some(error) = message.error_member() else { return };
    let Some(data) = walk::find(error.raw, error.span.start, &["data"]) else {
        let data = object(&[("uri", uri)]);
        rewrite.object(&error.span, |_, _, _| Fate::Keep, &[("data", &data)]);
        return;
    };
    let raw = rewrite.raw(&data);
    // What is no object says something of its own. `null` says nothing.
    if raw == b"null" {
        rewrite.replace(data, object(&[("uri", uri)]));
    } else if is_object(raw) && at(raw, &["uri"]).is_none() {
        rewrite.object(&data, |_, _, _| Fate::Keep, &[("uri", uri)]);
    }
}

fn change(message: &Message, rewrite: &mut Rewrite<'_>, to: impl Fn(i64) -> i64) {
    let (Some(error), Some(code)) = (message.error_member(), message.error_code()) else { return };
    let Some(place) = walk::find(error.raw, error.span.start, &["code"]) else { return };
    if to(code) != code {
        rewrite.replace(place, to(code).to_string());
    }
}
