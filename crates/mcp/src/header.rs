//! What HTTP headers claim about a message, checked against its body.
//!
//! The body decides; a header that disagrees is a fault, never a second opinion (2026-07-28, streamable-http,
//! "Server Validation").

use crate::{Era, Kind, Message, Revision, error, key, method};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::borrow::Cow;

/// The revision a request speaks.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// The body's method.
pub const METHOD: &str = "mcp-method";
/// The name, URI or task id the body acts on.
pub const NAME: &str = "mcp-name";
/// The session of a legacy client.
pub const SESSION_ID: &str = "mcp-session-id";
/// What headers of mirrored arguments begin with.
pub const PARAM_PREFIX: &str = "mcp-param-";

// The names that are looked up for every request: as text each would be read and checked again.
static VERSION: HeaderName = HeaderName::from_static(PROTOCOL_VERSION);
static MIRRORED_METHOD: HeaderName = HeaderName::from_static(METHOD);
static MIRRORED_NAME: HeaderName = HeaderName::from_static(NAME);

/// The longest value of an `Mcp-*` header, in bytes.
const LONGEST: usize = 8 << 10;

/// Why headers and body do not go together. All are answered with 400 and a JSON-RPC body: clients read a bare 400 as
/// "this server is of the other era".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// A header occurs twice.
    #[error("header `{0}` occurs more than once")]
    Duplicate(String),
    /// A header is too long.
    #[error("header `{0}` is longer than 8 KiB")]
    TooLong(String),
    /// A required header is missing.
    #[error("header `{0}` is missing")]
    Missing(String),
    /// A header has bytes or an encoding it must not have.
    #[error("header `{0}` is malformed")]
    Malformed(String),
    /// A header and the body disagree.
    #[error("header `{0}` does not match the body")]
    Mismatch(String),
    /// A required `_meta` field is missing or of the wrong type.
    #[error("`_meta` lacks a valid `{0}`")]
    MissingMeta(&'static str),
    /// A response was posted in a revision in which clients send none.
    #[error("clients post no responses in this revision")]
    Response,
    /// The version is none that is spoken here.
    #[error("unsupported protocol version")]
    Unsupported {
        /// What was asked for.
        requested: String,
    },
}

impl HeaderFault {
    /// The HTTP status (2026-07-28, streamable-http, "Server Validation").
    pub const fn status(&self) -> StatusCode {
        StatusCode::BAD_REQUEST
    }

    /// The JSON-RPC code.
    pub const fn code(&self) -> i64 {
        match self {
            Self::Duplicate(_) | Self::TooLong(_) | Self::Missing(_) | Self::Malformed(_) | Self::Mismatch(_) => {
                error::HEADER_MISMATCH
            }
            Self::MissingMeta(_) => error::INVALID_PARAMS,
            Self::Response => error::INVALID_REQUEST,
            Self::Unsupported { .. } => error::UNSUPPORTED_VERSION,
        }
    }

    /// The version that was asked for and is not spoken.
    pub fn requested(&self) -> Option<&str> {
        match self {
            Self::Unsupported { requested } => Some(requested),
            Self::Duplicate(_)
            | Self::TooLong(_)
            | Self::Missing(_)
            | Self::Malformed(_)
            | Self::Mismatch(_)
            | Self::MissingMeta(_)
            | Self::Response => None,
        }
    }
}

/// Checks the `Mcp-*` headers of a POST against its message.
///
/// Modern: the version header must be there and equal the one in `_meta`, and be spoken; `_meta` must hold the client's
/// capabilities; `Mcp-Method` and `Mcp-Name` must mirror the body. Legacy: a version header must name a legacy revision;
/// other mirrors prove nothing and are not read. Notifications need no mirrors (2026-07-28, "Sending Messages").
/// `Mcp-Param-*` is checked by [`param`](crate::param), where the tool's schema is at hand.
pub fn check(headers: &HeaderMap, message: &Message) -> Result<(), HeaderFault> {
    check_shape(headers)?;
    match message.era() {
        Era::Modern => check_modern(headers, message),
        Era::Legacy => check_legacy(headers, message),
    }
}

/// What holds for every request, whatever its era and body: no `Mcp-*` header twice, none too long.
pub fn check_shape(headers: &HeaderMap) -> Result<(), HeaderFault> {
    // SECURITY: two readers that pick different ones of two headers see different calls.
    let mut before = None;
    for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with("mcp-")) {
        // All values of a name follow each other.
        if before == Some(name) {
            return Err(HeaderFault::Duplicate(name.as_str().to_owned()));
        }
        if value.len() > LONGEST {
            return Err(HeaderFault::TooLong(name.as_str().to_owned()));
        }
        before = Some(name);
    }
    Ok(())
}

/// Checks the version header of a request without a body.
pub fn check_version(headers: &HeaderMap) -> Result<(), HeaderFault> {
    match version(headers)? {
        Some(claimed) if Revision::parse(claimed).is_none() => Err(unsupported(claimed)),
        Some(_) | None => Ok(()),
    }
}

/// What a header says, the first where there are several. [`HeaderMap::get`] is long where it is inlined, and a call asks for a
/// dozen of headers.
#[inline(never)]
pub fn get<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    headers.get(name)
}

/// Sets a header, in place of what it said before. Not inlined, as [`get`].
#[inline(never)]
pub fn put(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    headers.insert(name, value);
}

/// The version header of a request, if it has one that can be read.
pub fn version(headers: &HeaderMap) -> Result<Option<&str>, HeaderFault> {
    get(headers, &VERSION).map(|value| plain(PROTOCOL_VERSION, value)).transpose()
}

fn check_modern(headers: &HeaderMap, message: &Message) -> Result<(), HeaderFault> {
    let claimed = version(headers)?;
    let Some(spoken) = message.modern_version() else {
        return Err(HeaderFault::MissingMeta(key::PROTOCOL_VERSION));
    };
    match claimed {
        Some(claimed) if claimed == spoken => {}
        Some(_) => return Err(HeaderFault::Mismatch(PROTOCOL_VERSION.to_owned())),
        None => return Err(HeaderFault::Missing(PROTOCOL_VERSION.to_owned())),
    }
    if Revision::parse(&spoken).is_none_or(|revision| revision.era() != Era::Modern) {
        return Err(unsupported(&spoken));
    }
    let required = message.kind() == Kind::Request;
    if required && !message.has_client_capabilities() {
        return Err(HeaderFault::MissingMeta(key::CLIENT_CAPABILITIES));
    }
    match get(headers, &MIRRORED_METHOD) {
        Some(value) if plain(METHOD, value)? == message.method() => {}
        Some(_) => return Err(HeaderFault::Mismatch(METHOD.to_owned())),
        None if required => return Err(HeaderFault::Missing(METHOD.to_owned())),
        None => {}
    }
    check_name(headers, message)
}

fn check_name(headers: &HeaderMap, message: &Message) -> Result<(), HeaderFault> {
    if method::subject(message.method()).is_none() {
        return Ok(());
    }
    match (get(headers, &MIRRORED_NAME), message.subject()) {
        (Some(value), Some(subject)) if decode(NAME, value)? == subject => Ok(()),
        (Some(_), _) => Err(HeaderFault::Mismatch(NAME.to_owned())),
        (None, Some(_)) if method::needs_name_header(message.method()) => Err(HeaderFault::Missing(NAME.to_owned())),
        (None, _) => Ok(()),
    }
}

fn check_legacy(headers: &HeaderMap, message: &Message) -> Result<(), HeaderFault> {
    let Some(claimed) = version(headers)? else { return Ok(()) };
    match (Revision::parse(claimed).map(Revision::era), message.kind()) {
        // A modern notification may come without `_meta`.
        (Some(Era::Legacy), _) | (Some(Era::Modern), Kind::Notification) => Ok(()),
        (Some(Era::Modern), Kind::Request) => Err(HeaderFault::MissingMeta(key::PROTOCOL_VERSION)),
        (Some(Era::Modern), Kind::Response) => Err(HeaderFault::Response),
        (None, _) => Err(unsupported(claimed)),
    }
}

fn unsupported(requested: &str) -> HeaderFault {
    HeaderFault::Unsupported { requested: requested.chars().take(64).collect() }
}

/// `text` as the value of `Mcp-Name` or `Mcp-Param-*` (2026-07-28, streamable-http, "Value Encoding").
pub fn name_value(text: &str) -> HeaderValue {
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let padded = text.starts_with(' ') || text.ends_with(' ');
    let plain = printable && !padded && sentinel(text).is_none();
    if let Some(value) = plain.then(|| HeaderValue::from_str(text).ok()).flatten() {
        return value;
    }
    let encoded = format!("{SENTINEL_START}{}{SENTINEL_END}", BASE64_STANDARD.encode(text));
    // Base64 and the marks are visible ASCII, which every header value may hold.
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What an `Mcp-Name` or `Mcp-Param-*` value says.
pub fn decode<'a>(name: &str, value: &'a HeaderValue) -> Result<Cow<'a, str>, HeaderFault> {
    let malformed = || HeaderFault::Malformed(name.to_owned());
    let text = plain(name, value)?;
    let Some(encoded) = sentinel(text) else { return Ok(Cow::Borrowed(text)) };
    let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| malformed())?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| malformed())
}

const SENTINEL_START: &str = "=?base64?";
const SENTINEL_END: &str = "?=";

/// What stands between the marks, if the text has them.
fn sentinel(text: &str) -> Option<&str> {
    text.strip_prefix(SENTINEL_START)?.strip_suffix(SENTINEL_END)
}

/// A value of visible ASCII, spaces and tabs.
fn plain<'a>(name: &str, value: &'a HeaderValue) -> Result<&'a str, HeaderFault> {
    value.to_str().map_err(|_| HeaderFault::Malformed(name.to_owned()))
}
