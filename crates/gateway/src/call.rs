//! One call as it came in: who sent it is not known yet, what it says has been read.

use crate::absent::Presence;
use http::{HeaderMap, HeaderValue, header::ACCEPT};
use mcp::{Era, Message};
use std::{cell::RefCell, fmt, net::IpAddr, sync::Arc};
use tokio::sync::watch;
use vocab::{CallId, ServerName};

/// Which door the call came through.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Route {
    /// `/mcp`: everything the caller may see.
    All,
    /// `/mcp/{server}`: that server and nothing else.
    One(ServerName),
}

/// What HTTP asks for.
#[derive(Clone)]
pub enum Operation {
    /// POST with one message.
    Message(Message),
    /// GET: the stream of what servers say unasked (legacy).
    Listen,
    /// DELETE: the end of a session (legacy).
    End,
    /// A request that could not be read. It is refused and recorded, never served.
    Unread,
}

/// The same value in memory of its own. A header holds the whole buffer that it was read into, for as long as it lives.
pub(crate) fn alone(value: &HeaderValue) -> HeaderValue {
    let mut own = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
    own.set_sensitive(value.is_sensitive());
    own
}

/// Random bytes for the next call ids of this thread: asking for many at once costs what asking for one does.
struct Supply {
    bytes: [[u8; 16]; 64],
    left: usize,
}

thread_local! {
    static SUPPLY: RefCell<Supply> = const { RefCell::new(Supply { bytes: [[0; 16]; 64], left: 0 }) };
}

/// A new call id: 128 random bits.
pub fn new_id() -> CallId {
    SUPPLY.with_borrow_mut(|supply| {
        if supply.left == 0 {
            if aws_lc_rs::rand::fill(supply.bytes.as_flattened_mut()).is_err() {
                // The generator seeds itself from the system and cannot run dry; an id that can be guessed harms nobody.
                tracing::error!("no random bytes for call ids");
            }
            supply.left = supply.bytes.len();
        }
        supply.left -= 1;
        CallId::from_bytes(supply.bytes.get(supply.left).copied().unwrap_or_default())
    })
}

/// Says to the others of its batch that a call is on its way to its server, and can be taken back; or that it is over, when
/// it is dropped.
pub(crate) struct Departure(watch::Sender<bool>);

impl Departure {
    /// One that has not begun, and what waits for it.
    pub(crate) fn new() -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (departure, mut departed) = watch::channel(false);
        let waiting = async move {
            let _ = departed.wait_for(|departed| *departed).await;
        };
        (Self(departure), waiting)
    }

    /// It is on its way.
    pub(crate) fn begins(&self) {
        self.0.send_replace(true);
    }
}

/// One call. Headers and body are as received.
pub struct Call {
    /// Our id of it.
    pub id: CallId,
    /// The call in whose course a server asked for this one.
    pub parent: Option<CallId>,
    /// It is one of several, whose answers come on one stream.
    pub(crate) batch: Option<Departure>,
    /// Whether its client still waits, where it goes on without.
    pub(crate) presence: Option<Arc<Presence>>,
    /// The door.
    pub route: Route,
    /// What is asked.
    pub operation: Operation,
    /// The era its body is written in.
    pub era: Era,
    /// Request headers.
    pub headers: HeaderMap,
    /// Where it came from.
    pub peer: IpAddr,
}

impl Call {
    /// A call of a client, alone and under an id of its own.
    pub(crate) fn new(route: Route, operation: Operation, era: Era, headers: HeaderMap, peer: IpAddr) -> Self {
        Self { id: new_id(), parent: None, batch: None, presence: None, route, operation, era, headers, peer }
    }

    /// The method for records: the JSON-RPC method, or the HTTP one where there is no message.
    pub fn method(&self) -> &str {
        match &self.operation {
            Operation::Message(message) => match message.kind() {
                mcp::Kind::Request | mcp::Kind::Notification => message.method(),
                mcp::Kind::Response => "response",
            },
            Operation::Listen => "GET",
            Operation::End => "DELETE",
            Operation::Unread => "unread",
        }
    }

    /// The method, if it is one that the protocol or HTTP has.
    pub(crate) fn known_method(&self) -> Option<&'static str> {
        match &self.operation {
            Operation::Message(message) if message.kind() == mcp::Kind::Response => Some("response"),
            Operation::Message(message) => message.known_method(),
            Operation::Listen => Some("GET"),
            Operation::End => Some("DELETE"),
            Operation::Unread => Some("unread"),
        }
    }

    /// The message, where there is one.
    pub fn message(&self) -> Option<&Message> {
        match &self.operation {
            Operation::Message(message) => Some(message),
            Operation::Listen | Operation::End | Operation::Unread => None,
        }
    }

    /// The protocol revision that the call names: in its body, else in its header.
    pub fn revision(&self) -> Option<mcp::Revision> {
        let message = self.message();
        let body = message.and_then(|message| match self.era {
            Era::Modern => message.modern_version(),
            Era::Legacy if message.method() == "initialize" => message.param(&["protocolVersion"])?.text(),
            Era::Legacy => None,
        });
        match body {
            Some(text) => mcp::Revision::parse(&text),
            None => mcp::header::version(&self.headers).ok().flatten().and_then(mcp::Revision::parse),
        }
    }

    /// The legacy session the caller names. Proves nothing yet. Modern calls have none, whatever their headers say.
    pub fn session_handle(&self) -> Option<&HeaderValue> {
        match self.era {
            Era::Legacy => self.headers.get(&header::SESSION),
            Era::Modern => None,
        }
    }

    /// Makes ready for a stream that may last for days.
    pub(crate) fn last(&mut self) {
        for value in self.headers.values_mut() {
            *value = alone(value);
        }
    }

    /// Whether the client takes an answer as a stream of events.
    pub(crate) fn reads_streams(&self) -> bool {
        reads_streams(&self.headers)
    }

    /// Whether it lasts as long as the client wants to listen.
    pub(crate) fn listens(&self) -> bool {
        match &self.operation {
            Operation::Listen => true,
            Operation::Message(message) => message.method() == "subscriptions/listen",
            Operation::End | Operation::Unread => false,
        }
    }

    /// Whether it asks for a stream, and says that it takes none.
    pub(crate) fn contradicts_itself(&self) -> bool {
        self.listens() && refuses_streams(&self.headers)
    }

    /// The last event that a client has of a stream that was cut.
    pub fn last_event(&self) -> Option<&HeaderValue> {
        let Operation::Listen = self.operation else { return None };
        self.headers.get(&header::LAST_EVENT).filter(|id| !id.is_empty())
    }

    /// The same, to be named as the cause of what is asked in its course.
    pub(crate) fn as_cause(&self, message: &Message) -> Self {
        Self {
            id: self.id,
            parent: self.parent,
            batch: None,
            presence: None,
            route: self.route.clone(),
            operation: Operation::Message(message.clone()),
            era: self.era,
            headers: self.headers.clone(),
            peer: self.peer,
        }
    }

    /// Whether an answer is expected.
    pub fn wants_answer(&self) -> bool {
        match &self.operation {
            Operation::Message(_) => self.is_request(),
            Operation::Listen | Operation::End | Operation::Unread => true,
        }
    }

    /// Whether it is a request of JSON-RPC, which only a message answers.
    pub fn is_request(&self) -> bool {
        self.message().is_some_and(|message| message.kind() == mcp::Kind::Request)
    }
}

fn reads_streams(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        ["text/event-stream", "text/*", "*/*"].iter().any(|read| kind.eq_ignore_ascii_case(read))
    })
}

/// Whether a client says that it takes no stream. Who says nothing takes anything (RFC 9110, 12.5.1).
pub(crate) fn refuses_streams(headers: &HeaderMap) -> bool {
    headers.contains_key(ACCEPT) && !reads_streams(headers)
}

impl fmt::Debug for Call {
    // SECURITY: headers and bodies stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("id", &self.id)
            .field("route", &self.route)
            .field("method", &self.method())
            .finish_non_exhaustive()
    }
}

/// Header names of MCP and ours.
pub mod header {
    use http::HeaderName;
    pub use mcp::header::{get, put};

    /// Legacy session handle.
    pub static SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
    /// Protocol revision of the hop.
    pub static VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
    /// Mirror of the body's method (modern).
    pub static METHOD: HeaderName = HeaderName::from_static("mcp-method");
    /// Mirror of the body's subject (modern).
    pub static NAME: HeaderName = HeaderName::from_static("mcp-name");
    /// Resumption point of a legacy stream.
    pub static LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
    /// The id of the call, on every answer and on every upstream request.
    pub static CALL: HeaderName = HeaderName::from_static("durward-call-id");
    /// W3C trace context.
    pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    /// W3C trace context, vendor part.
    pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
    /// Tells proxies in between not to collect a stream.
    pub static ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
    /// Prefix of mirrored arguments.
    pub const PARAM_PREFIX: &str = "mcp-param-";
}
