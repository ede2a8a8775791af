//! How calls are refused that are about nothing here: what does not exist, what the caller may not see, what does not fit.

use crate::{
    call::Call,
    label,
    server::Server,
    session::Session,
    stop::{Stage, Stop},
};
use http::{HeaderMap, StatusCode};
use mcp::{Era, error};
use vocab::Action;

/// The one answer for what does not exist and for what the caller may not see.
pub(crate) fn missing(action: Action, name: &str, era: Era, reason: &'static str) -> Stop {
    let shown: String = label::shown(name).chars().take(128).collect();
    let (code, what) = match action {
        Action::ToolExecute => (error::INVALID_PARAMS, "tool"),
        Action::PromptGet => (error::INVALID_PARAMS, "prompt"),
        Action::ResourceRead | Action::ResourceSubscribe => match era {
            Era::Legacy => (error::RESOURCE_NOT_FOUND, "resource"),
            Era::Modern => (error::INVALID_PARAMS, "resource"),
        },
        Action::CompletionComplete => (error::INVALID_PARAMS, "reference"),
        Action::TaskManage | Action::ServerSample | Action::ServerElicit | Action::ServerRoots | Action::MethodCall => {
            (error::METHOD_NOT_FOUND, "method")
        }
    };
    let stop = Stop::refused(Stage::Resolve, reason, code, format!("Unknown {what}: {shown}"));
    // SPEC: SEP-2164 wants the URI in the data.
    let stop = if what == "resource" { stop.data("uri", name) } else { stop };
    // SPEC: 2026-07-28 answers an unknown method with 404.
    if code == error::METHOD_NOT_FOUND && era == Era::Modern { stop.status(StatusCode::NOT_FOUND) } else { stop }
}

pub(crate) fn no_such_server() -> Stop {
    Stop::refused(Stage::Resolve, "unknown-server", error::INVALID_REQUEST, "there is no such server here")
        .status(StatusCode::NOT_FOUND)
}

pub(crate) fn no_such_session() -> Stop {
    // SPEC: 404 makes the client begin a new session.
    Stop::refused(Stage::Resolve, "unknown-session", error::SESSION_NOT_FOUND, "Session not found")
        .status(StatusCode::NOT_FOUND)
}

/// SPEC: a version that was not agreed on is answered with 400. Clients of revisions before the header say none.
pub(crate) fn contradiction(session: &Session, headers: &HeaderMap) -> Option<Stop> {
    let (said, agreed) = (mcp::header::version(headers).ok().flatten()?, session.revision());
    if said == agreed.as_str() {
        return None;
    }
    let why = format!("the header `mcp-protocol-version` says {said}, and this session agreed on {agreed}");
    Some(Stop::refused(Stage::Resolve, "header", error::HEADER_MISMATCH, why).status(StatusCode::BAD_REQUEST))
}

pub(crate) fn no_session_named() -> Stop {
    Stop::refused(
        Stage::Resolve,
        "no-session",
        error::INVALID_REQUEST,
        "there is no session; begin with `initialize`, and over Streamable HTTP name the session that it opens in `Mcp-Session-Id`",
    )
    .status(StatusCode::BAD_REQUEST)
}

pub(crate) fn no_such_event() -> Stop {
    Stop::refused(
        Stage::Resolve,
        "unknown-event",
        error::INVALID_REQUEST,
        "no stream of this session has an event with this id, or it is not kept any more; leave out `Last-Event-ID`",
    )
    .status(StatusCode::BAD_REQUEST)
}

pub(crate) fn no_such_question() -> Stop {
    Stop::refused(
        Stage::Resolve,
        "unknown-question",
        error::INVALID_REQUEST,
        "no server waits for an answer with this id",
    )
    .status(StatusCode::BAD_REQUEST)
}

/// How much of a revision is told, in characters.
const REVISION: usize = 64;

/// A server of the other era to which no bridge leads. What was requested is what the call says, or else what its session agreed on.
pub(crate) fn other_era(server: &Server, call: &Call, session: Option<&Session>) -> Stop {
    let speaks = match call.era {
        Era::Legacy => Era::Modern,
        Era::Modern => Era::Legacy,
    };
    let supported: &[mcp::Revision] = match speaks {
        Era::Legacy => &mcp::Revision::LEGACY,
        Era::Modern => &mcp::Revision::MODERN,
    };
    let supported: Vec<&str> = supported.iter().map(|revision| revision.as_str()).collect();
    let requested = call.message().and_then(|message| {
        message.modern_version().or_else(|| message.param(&["protocolVersion"]).and_then(|member| member.text()))
    });
    let requested = requested.map(std::borrow::Cow::into_owned).or_else(|| {
        let revision = call.revision().or_else(|| session.map(Session::revision))?;
        Some(revision.as_str().to_owned())
    });
    let requested = requested.unwrap_or_default();
    // Bounded: a client may name anything.
    let named: String = requested.chars().filter(|letter| !letter.is_control()).take(REVISION).collect();
    let named = if named.is_empty() { named } else { format!(" ({named})") };
    Stop::refused(
        Stage::Resolve,
        "era",
        error::UNSUPPORTED_VERSION,
        format!(
            "server `{}` speaks the {speaks} protocol ({}), this request the {} one{named}, and its setting `bridge: false` \
             forbids carrying one over to the other",
            server.name,
            supported.join(", "),
            call.era
        ),
    )
    .status(StatusCode::BAD_REQUEST)
    .data("supported", supported)
    .data("requested", requested)
}
