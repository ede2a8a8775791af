//! Requests that the gateway makes itself on the way to an answer: introductions, lists, discovery.

use super::{
    Arrival, Source, UpstreamFault,
    child::{FIRST, Purpose},
    http::{self, Heading, Outbound},
    no_message,
    pipe::{Asker, Hears, Pipe, Taken},
    resume::Resumed,
};
use crate::{
    call::header,
    inject::Injected,
    server::{Carriage, Server, Transport},
    session::{Leg, Session, Way},
    state::State,
};
use ::http::{HeaderValue, Method, StatusCode};
use bytes::Bytes;
use mcp::{Body, Era, Kind, Limits, Message, Revision};
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use vocab::{Digest, PrincipalId};

/// One server, as one call reaches it.
pub(crate) struct Hop<'a> {
    pub(crate) state: &'a Arc<State>,
    pub(crate) server: &'a Arc<Server>,
    pub(crate) injected: &'a Injected,
    pub(crate) limits: Limits,
}

/// The same for a task of its own.
pub(crate) struct Kept {
    state: Arc<State>,
    server: Arc<Server>,
    injected: Injected,
    limits: Limits,
}

impl Kept {
    pub(crate) const fn hop(&self) -> Hop<'_> {
        Hop { state: &self.state, server: &self.server, injected: &self.injected, limits: self.limits }
    }
}

impl Hop<'_> {
    /// The same for a task of its own.
    pub(crate) fn kept(&self) -> Kept {
        let (state, server) = (Arc::clone(self.state), Arc::clone(self.server));
        Kept { state, server, injected: self.injected.clone(), limits: self.limits }
    }

    /// Sends a request and waits for its response; what comes before it is let go, questions are answered with a no.
    pub(crate) async fn ask(&self, leg: Option<&Leg>, message: &Message) -> Result<Message, UpstreamFault> {
        let deadline = self.server.deadline;
        tokio::time::timeout(deadline, self.ask_in_time(leg, message))
            .await
            .map_err(|_| UpstreamFault::Timeout(deadline))?
    }

    /// The same, where a server that is not itself at this moment is to be asked again: an error with a status that says so is
    /// no answer.
    pub(crate) async fn ask_for_answer(&self, leg: &Leg, message: &Message) -> Result<Message, UpstreamFault> {
        let deadline = self.server.deadline;
        let asking = async {
            let (arrival, _) = self.send(Some(leg), message).await?;
            match arrival.status() {
                status if is_passing(status) => Err(UpstreamFault::Down(format!("HTTP {status}"))),
                _ => self.response(Some(leg), arrival).await,
            }
        };
        tokio::time::timeout(deadline, asking).await.map_err(|_| UpstreamFault::Timeout(deadline))?
    }

    async fn ask_in_time(&self, leg: Option<&Leg>, message: &Message) -> Result<Message, UpstreamFault> {
        let (arrival, _) = self.send(leg, message).await?;
        self.response(leg, arrival).await
    }

    /// Sends any message.
    pub(crate) async fn send(&self, leg: Option<&Leg>, message: &Message) -> Result<Heading, UpstreamFault> {
        if let Some(Leg { way: Way::Pipe(pipe), .. }) = leg {
            // `ask` has the deadline.
            let arrival = on_pipe(pipe, message, Asker::Gateway, Hears::Nothing, Wait::Long).await?;
            return Ok((arrival, None));
        }
        let mut headers = http::own();
        if let Some(leg) = leg {
            address(leg, &mut headers);
        }
        if let Some(version) = message.modern_version() {
            headers.insert(header::VERSION.clone(), HeaderValue::from_str(&version).map_err(bad_header)?);
            headers.insert(header::METHOD.clone(), HeaderValue::from_str(message.method()).map_err(bad_header)?);
        }
        let outbound = Outbound::new(Method::POST, headers, message.bytes().clone());
        http::send(self.state, self.server, self.injected, outbound, self.limits.body).await
    }

    /// The response in what arrived.
    async fn response(&self, leg: Option<&Leg>, arrival: Arrival) -> Result<Message, UpstreamFault> {
        match arrival {
            // SPEC: 404 to a request that names a session says that the session is gone.
            Arrival::Bare { status, .. } | Arrival::Whole { status, .. } if is_lost(leg, status) => {
                Err(UpstreamFault::Lost)
            }
            // A server that is not itself today says nothing of what it speaks.
            Arrival::Bare { status, .. } if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(UpstreamFault::Down(format!("HTTP {status}")))
            }
            Arrival::Bare { status, headers, .. } => Err(UpstreamFault::Protocol(no_message(status, &headers))),
            Arrival::Whole { body, .. } => one(body, &self.limits),
            Arrival::Stream { source, .. } => {
                let mut source = match leg {
                    Some(leg) => Resumed::around(&Arc::downgrade(self.state), self.server, leg, source),
                    None => source,
                };
                while let Some((_, event)) = source.next().await? {
                    let Some(data) = event.message() else { continue };
                    let message = one(data.clone(), &self.limits)?;
                    match message.kind() {
                        Kind::Response => return Ok(message),
                        Kind::Request => self.decline(leg, &message, "the gateway asks for itself").await?,
                        Kind::Notification => {}
                    }
                }
                Err(UpstreamFault::Cut("no response in the stream".to_owned()))
            }
        }
    }

    /// Answers a question that nobody hears.
    pub(crate) async fn decline(
        &self,
        leg: Option<&Leg>,
        question: &Message,
        why: &'static str,
    ) -> Result<(), UpstreamFault> {
        let text = self.state.journal.unheard(&self.server.name, question, why);
        self.send(leg, &one(text, &self.limits)?).await.map(drop)
    }

    /// Opens a legacy session: introduces the client as it introduced itself, and says that it is ready.
    pub(crate) async fn open(
        &self,
        introduction: &Message,
        pipe: Option<Arc<Pipe>>,
    ) -> Result<(Leg, Message), UpstreamFault> {
        let way = match &pipe {
            Some(pipe) => Way::Pipe(Arc::clone(pipe)),
            None => Way::Http(None),
        };
        let mut leg = Leg::new(self.server.fingerprint, Revision::ASSUMED, way, true);
        match self.agree(&mut leg, introduction).await {
            Ok(answer) => Ok((leg, answer)),
            Err(fault) => {
                // What it opened by then, nobody uses.
                self.state.part(vec![(self.server.name.clone(), Arc::new(leg))]);
                Err(fault)
            }
        }
    }

    async fn agree(&self, leg: &mut Leg, introduction: &Message) -> Result<Message, UpstreamFault> {
        let deadline = self.server.deadline;
        let opening = async {
            let is_pipe = matches!(leg.way, Way::Pipe(_));
            let (arrival, session) = self.send(is_pipe.then_some(&*leg), introduction).await?;
            if !is_pipe {
                // The rest of an answer in pieces is asked for in the session that it opens.
                leg.way = Way::http(session.as_ref());
            }
            self.response(Some(leg), arrival).await
        };
        let answer = tokio::time::timeout(deadline, opening).await.map_err(|_| UpstreamFault::Timeout(deadline))??;
        let version = answer.outcome_member(&["protocolVersion"]).and_then(|member| member.text());
        let known = version.as_deref().and_then(Revision::parse).filter(|revision| revision.era() == Era::Legacy);
        let Some(revision) = known else {
            self.state.look_at_misfit(self.server, Era::Legacy);
            return Err(UpstreamFault::Strange { why: answered(&answer, version), is_modern: names_modern(&answer) });
        };
        leg.revision = revision;
        let ready =
            one(Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), &self.limits)?;
        self.send(Some(leg), &ready).await?;
        Ok(answer)
    }

    /// Starts the server's process, or opens a stream of 2024-11-05. A process for one principal counts as that one's.
    pub(crate) async fn start(&self, holder: Option<&PrincipalId>) -> Result<Arc<Pipe>, UpstreamFault> {
        self.in_a_moment(|| self.start_now(holder)).await
    }

    /// The same, or a fault where a process fell just now.
    pub(crate) fn start_now(&self, holder: Option<&PrincipalId>) -> Result<Arc<Pipe>, UpstreamFault> {
        self.start_for(Purpose::Serve, holder)
    }

    /// Gets a process. Where one fell just now and the next may start in a moment that is waited for, once: nothing was sent
    /// yet, and whoever calls is none the worse for what another did. Where the wait is longer it is for the caller.
    pub(crate) async fn in_a_moment(
        &self,
        get: impl Fn() -> Result<Arc<Pipe>, UpstreamFault>,
    ) -> Result<Arc<Pipe>, UpstreamFault> {
        match get() {
            Err(UpstreamFault::Resting { retry_in, .. }) if retry_in <= FIRST.min(self.server.deadline) => {
                Box::pin(tokio::time::sleep(retry_in)).await;
                get()
            }
            got => got,
        }
    }

    /// Starts a sibling of the process that serves, to be asked what it may not know: old servers exit on anything
    /// before `initialize`.
    pub(crate) fn probe(&self) -> Result<Arc<Pipe>, UpstreamFault> {
        self.start_for(Purpose::Probe, None)
    }

    fn start_for(&self, purpose: Purpose, holder: Option<&PrincipalId>) -> Result<Arc<Pipe>, UpstreamFault> {
        let Transport::Stdio(program) = &self.server.transport else {
            return Pipe::open(self.state, self.server, self.dressed(), self.limits);
        };
        let secrets = self.injected.env.iter().map(|(name, secret)| (name.clone(), secret.clone())).collect();
        let what = (&**self.server, program);
        let dress = (self.dressed(), self.injected.veil.clone());
        Pipe::start(what, holder, secrets, dress, self.state, self.limits, purpose)
    }

    /// Whether a process runs and has the credentials that it would be started with now.
    pub(crate) fn fits(&self, pipe: &Pipe) -> bool {
        pipe.is_alive() && pipe.dressed() == self.dressed()
    }

    /// Tells sets of credentials for processes apart. Stays in memory.
    fn dressed(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (name, secret) in &self.injected.env {
            (name, secret.expose()).hash(&mut hasher);
        }
        for (name, value) in &self.injected.headers {
            (name, value.as_bytes()).hash(&mut hasher);
        }
        if let Transport::Http(endpoint) = &self.server.transport
            && let Ok(address) = self.injected.uri(endpoint.uri())
        {
            address.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The session's leg to this server, unless it leads to yesterday's target or credential, or is of a transport that
    /// the server was found not to speak since.
    pub(crate) fn leg_of(&self, session: &Session) -> Option<Arc<Leg>> {
        let leg = session.leg(self.server)?;
        let fits = match (&leg.way, self.server.carriage()) {
            (Way::Pipe(pipe), Carriage::Pipe { .. }) => self.fits(pipe),
            (Way::Http(_), Carriage::Requests) => true,
            (Way::Pipe(_), Carriage::Requests) | (Way::Http(_), Carriage::Pipe { .. }) => false,
        };
        fits.then_some(leg)
    }

    /// Ends a legacy session.
    pub(crate) async fn end(&self, leg: &Leg) {
        if let Way::Http(Some(_)) = &leg.way {
            let mut headers = http::own_stream();
            address(leg, &mut headers);
            let outbound = Outbound::new(Method::DELETE, headers, Bytes::new());
            // Many servers do not let clients end sessions; then they expire there.
            let _ = http::send(self.state, self.server, self.injected, outbound, self.limits.body).await;
        }
    }

    /// Every page of a list, within one budget for all of them.
    pub(crate) async fn pages(
        &self,
        leg: Option<&Leg>,
        kind: mcp::ListKind,
        era: Era,
        meta: Option<&str>,
    ) -> Result<Vec<Message>, UpstreamFault> {
        let time = LIST_TIME.max(self.server.deadline);
        tokio::time::timeout(time, self.pages_in_time(leg, kind, era, meta))
            .await
            .map_err(|_| UpstreamFault::Timeout(time))?
    }

    async fn pages_in_time(
        &self,
        leg: Option<&Leg>,
        kind: mcp::ListKind,
        era: Era,
        meta: Option<&str>,
    ) -> Result<Vec<Message>, UpstreamFault> {
        let mut pages = Vec::new();
        let mut size = 0;
        let (mut cursor, mut before): (Option<String>, HashSet<Digest>) = (None, HashSet::new());
        for _ in 0..PAGES {
            let text = request(kind.method(), cursor.as_deref(), era, meta);
            let page = self.ask(leg, &one(text, &self.limits)?).await?;
            if let Some(code) = page.error_code() {
                // A server that has none of a kind may say so this way; one that has begun a list has some.
                if code == mcp::error::METHOD_NOT_FOUND && pages.is_empty() {
                    return Ok(pages);
                }
                return Err(UpstreamFault::List { method: kind.method(), code, said: said(&page) });
            }
            size += page.bytes().len();
            if size > LIST_SIZE {
                return Err(UpstreamFault::TooBig(LIST_SIZE));
            }
            let next = mcp::list::next_cursor(&page).map(|cursor| cursor.map(Cow::into_owned));
            let next = next.map_err(|fault| UpstreamFault::Protocol(format!("`{}`: {fault}", kind.method())))?;
            pages.push(page);
            match next {
                None => return Ok(pages),
                // Whatever lies between, the list begins again.
                Some(next) if !before.insert(Digest::of(next.as_bytes())) => {
                    return Err(UpstreamFault::Protocol(format!("`{}` gives the same cursor again", kind.method())));
                }
                Some(next) => cursor = Some(next),
            }
        }
        Err(UpstreamFault::Protocol(format!("`{}` has more than {PAGES} pages", kind.method())))
    }
}

/// What of a server's own words for an error is told, in characters.
const SAID: usize = 200;
/// Pages of one list.
const PAGES: usize = 1000;
/// All pages of one list together.
pub(crate) const LIST_SIZE: usize = 64 * 1024 * 1024;
/// How long all pages of one list may take. A server that may take longer for one answer may take that long.
const LIST_TIME: Duration = Duration::from_secs(30);

/// Numbers requests for lists: many calls share a session with a server, and ids must differ within one.
static LISTED: AtomicU64 = AtomicU64::new(1);

fn request(method: &str, cursor: Option<&str>, era: Era, meta: Option<&str>) -> Bytes {
    let cursor = cursor.map(|cursor| format!("\"cursor\":{}", mcp::quote(cursor)));
    let meta = match era {
        Era::Legacy => None,
        Era::Modern => Some(format!("\"_meta\":{}", meta.unwrap_or(&OWN_META))),
    };
    let params: Vec<String> = meta.into_iter().chain(cursor).collect();
    let id = LISTED.fetch_add(1, Ordering::Relaxed);
    Bytes::from(format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":\"durward-list-{id}\",\"method\":\"{method}\",\"params\":{{{}}}}}",
        params.join(",")
    ))
}

/// What the gateway says it can where it asks for itself: everything that a client behind it may be able to. Servers
/// offer some of their things only to clients that can be asked back; the catalog must know those too.
const OWN_CAPABILITIES: &str = concat!(
    r#"{"elicitation":{"form":{},"url":{}},"sampling":{"context":{},"tools":{}},"roots":{"listChanged":true},"#,
    r#""tasks":{"list":{},"cancel":{},"requests":{"sampling":{"createMessage":{}},"elicitation":{"create":{}}}},"#,
    r#""extensions":{"io.modelcontextprotocol/tasks":{},"#,
    r#""io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]}}}"#
);

/// How the gateway introduces itself where it asks for itself.
pub(crate) static OWN_META: LazyLock<String> = LazyLock::new(|| {
    format!(
        r#"{{"{}":"{}","{}":{OWN_CAPABILITIES},"{}":{{"name":"durward","version":"{}"}}}}"#,
        mcp::key::PROTOCOL_VERSION,
        Revision::V2026_07_28.as_str(),
        mcp::key::CLIENT_CAPABILITIES,
        mcp::key::CLIENT_INFO,
        env!("CARGO_PKG_VERSION")
    )
});

/// The gateway's own `initialize`.
pub(crate) static OWN_INTRODUCTION: LazyLock<String> = LazyLock::new(|| {
    format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{}","capabilities":{OWN_CAPABILITIES},"clientInfo":{{"name":"durward","version":"{}"}}}}}}"#,
        Revision::V2025_11_25.as_str(),
        env!("CARGO_PKG_VERSION")
    )
});

/// What a server says to `initialize` that is no agreement on a legacy revision.
fn answered(answer: &Message, version: Option<Cow<'_, str>>) -> String {
    match (answer.error_code(), version) {
        (Some(code), _) => format!("`initialize` was answered with error {code}: {}", said(answer)),
        (None, Some(version)) => {
            format!("`initialize` was answered with version `{}`, which is not known here", in_one_line(&version))
        }
        (None, None) => "`initialize` was answered without a protocol version".to_owned(),
    }
}

/// Whether a server refuses a version, and names the one that the gateway asks in as one that it speaks.
pub(crate) fn names_modern(answer: &Message) -> bool {
    answer.error_code() == Some(mcp::error::UNSUPPORTED_VERSION)
        && answer.error_member().and_then(|error| error.value().ok()).is_some_and(|error| {
            has_modern(error.get("data").and_then(|data| data.get("supported")).unwrap_or(&Value::Null))
        })
}

/// Whether a list of versions holds the one that the gateway asks in.
pub(crate) fn has_modern(versions: &Value) -> bool {
    versions.as_array().is_some_and(|versions| versions.iter().any(|version| version == Revision::V2026_07_28.as_str()))
}

/// What an error says of itself, in one line.
pub(crate) fn said(answer: &Message) -> String {
    let error = answer.error_member().and_then(|error| error.value().ok()).unwrap_or_default();
    in_one_line(error.get("message").and_then(Value::as_str).unwrap_or_default())
}

/// The beginning of a server's own words.
fn in_one_line(words: &str) -> String {
    words.chars().take(SAID).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Reads one message.
pub(crate) fn one(text: Bytes, limits: &Limits) -> Result<Message, UpstreamFault> {
    match mcp::scan(text, limits) {
        Ok(Body::Single(message)) => Ok(message),
        Ok(Body::Batch(_)) => Err(UpstreamFault::Protocol("a batch where one message was due".to_owned())),
        Err(fault) => Err(UpstreamFault::Protocol(fault.to_string())),
    }
}

/// One of the messages that a server says unasked. What cannot be read costs that message, and not the stream.
pub(crate) fn unasked(text: &Bytes, limits: &Limits, server: &Server) -> Option<Message> {
    let read = one(text.clone(), limits);
    read.inspect_err(
        |fault| tracing::debug!(server = %server.name, %fault, "a message is left out of a listening stream"),
    )
    .ok()
}

/// Session and version of a leg.
pub(crate) fn address(leg: &Leg, headers: &mut ::http::HeaderMap) {
    if let Way::Http(Some(handle)) = &leg.way {
        headers.insert(header::SESSION.clone(), handle.clone());
    }
    // The header came with 2025-06-18.
    if leg.revision >= Revision::V2025_06_18 {
        headers.insert(header::VERSION.clone(), HeaderValue::from_static(leg.revision.as_str()));
    }
}

/// Whether a status says that the server has no time at this moment, or is not itself.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    // 409 is what the official SDKs say while they take an earlier stream, which broke on our side alone, for open.
    let is_busy = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
    );
    is_busy || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
}

/// Whether the server has forgotten the session of this leg.
pub(crate) fn is_lost(leg: Option<&Leg>, status: StatusCode) -> bool {
    status == StatusCode::NOT_FOUND && matches!(leg, Some(Leg { way: Way::Http(Some(_)), .. }))
}

/// How long a process may take to begin its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    /// As long as the caller of this function waits.
    Long,
    /// So long; then the request fails.
    Fail(Duration),
    /// So long; then an answer of unknown length begins, which can be kept alive.
    Stream {
        /// How long until then.
        patience: Duration,
        /// How long until the process must have said something all the same. None where it may have nothing to say.
        deadline: Option<Duration>,
    },
}

impl Wait {
    /// What is left of it, where so much is over.
    pub(crate) fn after(self, over: Duration) -> Self {
        match self {
            Self::Long => Self::Long,
            Self::Fail(deadline) => Self::Fail(deadline.saturating_sub(over)),
            Self::Stream { patience, deadline } => Self::Stream {
                patience: patience.saturating_sub(over),
                deadline: deadline.map(|deadline| deadline.saturating_sub(over)),
            },
        }
    }
}

/// One message of a client over a pipe: a request gives its first reply, whole if that is the response.
pub(crate) async fn over_pipe(
    pipe: &Arc<Pipe>,
    message: &Message,
    asker: Asker,
    wait: Wait,
) -> Result<Arrival, UpstreamFault> {
    let hears = Hears::by(message, &asker);
    on_pipe(pipe, message, asker, hears, wait).await
}

async fn on_pipe(
    pipe: &Arc<Pipe>,
    message: &Message,
    asker: Asker,
    hears: Hears,
    wait: Wait,
) -> Result<Arrival, UpstreamFault> {
    let headers = Box::default();
    if message.kind() != Kind::Request {
        return Ok(match pipe.tell(message, asker).await? {
            Taken::Yes(()) => Arrival::bare(StatusCode::ACCEPTED),
            Taken::No(refusal) => *refusal,
        });
    }
    let mut replies = match pipe.request(message, asker, hears).await? {
        Taken::Yes(replies) => replies,
        Taken::No(refusal) => return Ok(*refusal),
    };
    let began = Instant::now();
    let first = match wait {
        Wait::Long => replies.first().await,
        Wait::Fail(deadline) => {
            tokio::time::timeout(deadline, replies.first()).await.map_err(|_| UpstreamFault::Timeout(deadline))?
        }
        Wait::Stream { patience, deadline } => {
            let Ok(first) = tokio::time::timeout(patience, replies.first()).await else {
                if let Some(deadline) = deadline {
                    replies.due(began, deadline);
                }
                return Ok(Arrival::Stream { headers, source: Source::Pipe(Box::new(replies)) });
            };
            first
        }
    };
    match first? {
        None => Err(pipe.broken().await),
        Some((body, true)) => Ok(Arrival::Whole { status: StatusCode::OK, headers, body }),
        Some((_, false)) => Ok(Arrival::Stream { headers, source: Source::Pipe(Box::new(replies)) }),
    }
}

fn bad_header(_: ::http::header::InvalidHeaderValue) -> UpstreamFault {
    UpstreamFault::Protocol("a method or version that no header can carry".to_owned())
}
