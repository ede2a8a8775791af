//! Talking to servers: one request out, one arrival back. Decides nothing about calls.

pub(crate) mod child;
pub(crate) mod exchange;
pub(crate) mod http;
pub(crate) mod lasting;
pub(crate) mod pipe;
pub(crate) mod resume;
pub(crate) mod turn;
pub(crate) mod wish;

use crate::{
    bridge::{downward::Talk, upward::Rounds},
    session::replay::Reader,
    stop::{Stage, Stop},
};
use ::http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use bytes::Bytes;
use mcp::sse::Event;
use std::time::Duration;
use tokio::sync::mpsc;
use vocab::ServerName;

/// What came back for a request. Headers are boxed: it is handed on from step to step.
pub(crate) enum Arrival {
    /// A status without a message: 202 for notifications, 405 where there is no stream.
    Bare {
        /// The status.
        status: StatusCode,
        /// Headers that may travel on, and the type of whatever was there instead of a message.
        headers: Box<HeaderMap>,
        /// What an error says of itself, where that is a text.
        text: Bytes,
    },
    /// One JSON body.
    Whole {
        /// The status.
        status: StatusCode,
        /// Headers that may travel on.
        headers: Box<HeaderMap>,
        /// The body.
        body: Bytes,
    },
    /// A stream of events.
    Stream {
        /// Headers that may travel on.
        headers: Box<HeaderMap>,
        /// The events.
        source: Source,
    },
}

impl Arrival {
    /// A status and nothing else.
    pub(crate) fn bare(status: StatusCode) -> Self {
        Self::Bare { status, headers: Box::default(), text: Bytes::new() }
    }

    /// The HTTP status; streams begin with 200.
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::Bare { status, .. } | Self::Whole { status, .. } => *status,
            Self::Stream { .. } => StatusCode::OK,
        }
    }
}

/// The longest type of a body that is told, in characters.
const TYPE: usize = 100;

/// What is told of a status without a message: with what came instead.
pub(crate) fn no_message(status: StatusCode, headers: &HeaderMap) -> String {
    match headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) {
        Some(kind) => format!("HTTP {status} without a message ({})", kind.chars().take(TYPE).collect::<String>()),
        None => format!("HTTP {status} without a message, and without a `Content-Type`"),
    }
}

/// Where the events of a stream come from.
pub(crate) enum Source {
    /// An HTTP body.
    Http(Box<http::Events>),
    /// One that is gone on with where it ended early.
    Resumed(Box<resume::Resumed>),
    /// A process.
    Pipe(Box<pipe::Replies>),
    /// A server of the other era, in rounds.
    Bridged(Box<Rounds>),
    /// A legacy server that a modern client calls.
    Talked(Box<Talk>),
    /// What is kept of a stream of a session, and what comes to it.
    Kept(Reader),
    /// What a server tells a modern client unasked.
    Told(mpsc::Receiver<(Option<ServerName>, Bytes)>),
    /// Events made here, from several servers.
    Made {
        /// The events, with the server they come from.
        events: mpsc::Receiver<(Option<ServerName>, Event)>,
        /// Keeps the stream open while nobody has anything to say.
        _open: mpsc::Sender<(Option<ServerName>, Event)>,
    },
}

impl Source {
    /// The next event, and the server it comes from where that is not the one the call went to; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<(Option<ServerName>, Event)>, UpstreamFault> {
        match self {
            Self::Http(events) => Ok(events.next().await?.map(|event| (None, event))),
            Self::Resumed(stream) => Ok(stream.next().await?.map(|event| (None, event))),
            Self::Pipe(replies) => Ok(replies.next().await?.map(|message| (None, event(message)))),
            Self::Bridged(rounds) => Ok(rounds.next().await?.map(|event| (None, event))),
            Self::Talked(talk) => Ok(talk.next().await?.map(|event| (None, event))),
            Self::Kept(reader) => Ok(reader.next().await),
            Self::Told(told) => Ok(told.recv().await.map(|(server, message)| (server, event(message)))),
            Self::Made { events, _open: _ } => Ok(events.recv().await),
        }
    }
}

impl Source {
    /// Whether the first word of a server is waited for, with a deadline of its own.
    pub(crate) fn is_due(&self) -> bool {
        match self {
            Self::Pipe(replies) => replies.is_due(),
            Self::Bridged(rounds) => rounds.is_due(),
            Self::Talked(talk) => talk.is_due(),
            Self::Http(_) | Self::Resumed(_) | Self::Kept(_) | Self::Told(_) | Self::Made { .. } => false,
        }
    }
}

/// A message as an event of ours.
pub(crate) fn event(message: Bytes) -> Event {
    Event::of(message)
}

/// Why a server gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum UpstreamFault {
    /// It cannot be reached.
    #[error("{0}")]
    Down(String),
    /// Its process fell of late, and is not started for a while.
    #[error("{why}")]
    Resting {
        /// Why not.
        why: String,
        /// When it may be tried again.
        retry_in: Duration,
    },
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// Its turn did not come: what may be asked something has it alone.
    #[error("not sent: for {} s there were others that the server may ask something", .0.as_secs())]
    Turn(Duration),
    /// The same of a client's answer: the call waits on.
    #[error("the client's answer was not passed on: for {} s there were others that the server may ask something", .0.as_secs())]
    Unheard(Duration),
    /// It said too much.
    #[error("the answer is larger than {0} bytes")]
    TooBig(usize),
    /// It stopped in the middle.
    #[error("the connection ended before the answer was complete: {0}")]
    Cut(String),
    /// It does not accept the credential of the gateway.
    #[error("the server answered HTTP {0} to the gateway's credential")]
    Credential(u16),
    /// It answers with a status that says no, where only a message is handed on.
    #[error("HTTP {0}")]
    Status(StatusCode),
    /// It has forgotten the session.
    #[error("the server has forgotten the session")]
    Lost,
    /// What it said is not MCP.
    #[error("{0}")]
    Protocol(String),
    /// It answers `initialize`, and not as servers of the legacy era do.
    #[error("{why}")]
    Strange {
        /// What it answers, bounded. Untrusted.
        why: String,
        /// It says that it speaks the modern era.
        is_modern: bool,
    },
    /// It answers a request for a list with an error.
    #[error("`{method}` was answered with error {code}: {said}")]
    List {
        /// The request.
        method: &'static str,
        /// The code.
        code: i64,
        /// What it says, bounded. Untrusted.
        said: String,
    },
    /// Its stream of 2024-11-05 begins with an address that is none, or is not its own. SECURITY: callers read why, so that
    /// it names no address.
    #[error("{0}")]
    Endpoint(String),
    /// What it says has no words in the client's era.
    #[error("{0}")]
    Bridge(String),
    /// A later round of the call was not sent.
    #[error("{why}")]
    Round {
        /// The code that the client reads.
        code: i64,
        /// Why.
        why: String,
        /// When it could be sent, in seconds.
        retry_after: Option<u64>,
    },
    /// It is decided here, whatever a server says.
    #[error("{}", .0.message)]
    Stopped(Stop),
    /// It has as many calls in flight as it may have.
    #[error("too many calls are in flight")]
    Busy,
    /// The caller has too many sessions.
    #[error("{0}")]
    Sessions(String),
}

impl From<mcp::bridge::BridgeFault> for UpstreamFault {
    fn from(fault: mcp::bridge::BridgeFault) -> Self {
        Self::Bridge(fault.to_string())
    }
}

impl UpstreamFault {
    /// A short, bounded word for records and metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Down(_) | Self::Resting { .. } => "upstream-down",
            Self::Timeout(_) | Self::Turn(_) | Self::Unheard(_) => "upstream-timeout",
            Self::TooBig(_) => "upstream-too-big",
            Self::Cut(_) => "upstream-cut",
            Self::Credential(_) => "upstream-credential",
            Self::Lost => "upstream-session",
            Self::Status(_) | Self::Protocol(_) | Self::Strange { .. } | Self::Endpoint(_) => "upstream-protocol",
            Self::List { .. } => "upstream-list",
            Self::Bridge(_) => "bridge",
            Self::Round { .. } => "round",
            Self::Stopped(stop) => stop.reason,
            Self::Busy => "busy",
            Self::Sessions(_) => "sessions",
        }
    }

    /// The stop it makes of a call that concerns no single server.
    pub(crate) fn stop_here(&self) -> Stop {
        match self {
            Self::Sessions(_) => Stop::full(self.reason(), self.to_string()),
            Self::Stopped(stop) => stop.clone(),
            _ => Stop::failed(Stage::Forward, self.reason(), mcp::error::INTERNAL, "a server failed")
                .detail(self.to_string()),
        }
    }

    /// The stop it makes of a call. Names the server, keeps addresses and causes for the log.
    pub(crate) fn stop(&self, server: &ServerName) -> Stop {
        let (code, what) = match self {
            Self::Down(_) | Self::Resting { .. } => (mcp::error::UPSTREAM_DOWN, "cannot be reached"),
            Self::Timeout(_) => (mcp::error::UPSTREAM_TIMEOUT, "did not answer in time"),
            Self::Turn(_) => {
                let what = "was at other calls for as long as this one could wait: what it may ask in the course of both would be \
                            unclear, so it was not sent";
                (mcp::error::UPSTREAM_TIMEOUT, what)
            }
            Self::Unheard(_) => {
                let what = "was at other calls for as long as this answer could wait: it was not passed on, the call waits, and its \
                            client may give it again";
                (mcp::error::UPSTREAM_TIMEOUT, what)
            }
            Self::TooBig(_) => (mcp::error::UPSTREAM_DOWN, "answered more than the gateway takes"),
            Self::Cut(_) => (mcp::error::UPSTREAM_DOWN, "broke off in the middle of its answer"),
            Self::Credential(_) => (mcp::error::UPSTREAM_DOWN, "does not accept the gateway's credential"),
            Self::Lost => (mcp::error::UPSTREAM_DOWN, "has forgotten the session"),
            Self::Protocol(_) | Self::Strange { .. } => (mcp::error::UPSTREAM_DOWN, "gave an answer that is not MCP"),
            // SECURITY: its own words are for the log, and for answers that detectors look at.
            Self::List { method, code, .. } => {
                let why = format!("server `{server}` answered `{method}` with error {code}");
                let stop = Stop::failed(Stage::Forward, self.reason(), mcp::error::UPSTREAM_DOWN, why);
                return stop.detail(self.to_string());
            }
            Self::Status(status) => {
                let why = format!("server `{server}` answered HTTP {status}");
                return Stop::failed(Stage::Forward, self.reason(), mcp::error::UPSTREAM_DOWN, why);
            }
            Self::Endpoint(why) => {
                let why = format!("server `{server}` cannot be used: {why}");
                return Stop::failed(Stage::Forward, self.reason(), mcp::error::UPSTREAM_DOWN, why);
            }
            Self::Bridge(why) => {
                let why = format!("server `{server}` speaks another protocol era than this client: {why}");
                return Stop::failed(Stage::Forward, self.reason(), mcp::error::UPSTREAM_DOWN, why);
            }
            Self::Round { code, why, retry_after } => {
                // What was sent before has happened: this is no refusal.
                let why = format!("server `{server}` asked, and was not told the answer: {why}");
                let stop = Stop::failed(Stage::Forward, self.reason(), *code, why);
                return match retry_after {
                    Some(seconds) => stop.again_in(*seconds),
                    None => stop,
                };
            }
            Self::Busy => (mcp::error::REFUSED_LIMIT, "has too many calls in flight"),
            Self::Sessions(_) | Self::Stopped(_) => return self.stop_here(),
        };
        let stop = Stop::failed(Stage::Forward, self.reason(), code, format!("server `{server}` {what}"));
        let stop = if matches!(self, Self::Busy) { stop.again_in(1) } else { stop };
        stop.detail(self.to_string())
    }
}
