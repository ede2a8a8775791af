//! What a call was answered, as events of the one stream that its client hears.

use crate::{
    absent::{Here, Presence},
    aggregate::listen::until_not,
    call::{Call, Route, header},
    mailbox::{Busy, Mailbox},
    manner::Manner,
    pipeline::Line,
    reply::{Reply, ReplyBody},
    respond::{self, Asked},
    rim::UnderWay,
    state::State,
    stop::{Stage, Stop},
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use mcp::{
    Kind, Limits, Message, Revision,
    sse::{Decoder, Event},
};
use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// How long the client's next message waits for the server's listening stream.
const OVERTAKEN: Duration = Duration::from_secs(1);
/// How long after its end a listening stream is asked for again, unless the server says.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest time that a server may have us wait.
const LATEST: Duration = Duration::from_secs(30);
/// The shortest, and how long after a stream that said nothing the next is asked for: each time twice as long.
const LEAST: Duration = Duration::from_millis(500);
/// How long a server is left alone that failed, the first time and at most: each time is twice the one before.
const FAILED: Duration = Duration::from_secs(1);
const FAILED_LONG: Duration = Duration::from_mins(1);
/// How long after one piece of an answer the next is asked for, unless the server says.
const PIECE: Duration = Duration::from_secs(1);
/// How often the rest of an answer is asked for that a server gives in pieces.
const PIECES: usize = 1000;

/// The event that names the address for POSTs.
pub(super) fn endpoint(address: &str) -> Bytes {
    Bytes::from(format!("event: endpoint\ndata: {address}\n\n"))
}

/// A message as this transport has it: without an id, for nothing can be resumed here.
fn letter(message: &[u8]) -> Bytes {
    [b"event: message\n".as_slice(), &mcp::sse::encode(message, None)].concat().into()
}

/// Serves a request on a task of its own. A client that leaves does not end it, but is one that went away from a call.
pub(super) fn answer(line: &Line, mut call: Call, mailbox: Arc<Mailbox>, held: (Busy, UnderWay), introduces: bool) {
    let line = line.clone();
    let presence = Arc::new(Presence::default());
    let here = Here::beside(&presence);
    call.presence = Some(presence);
    tokio::spawn(async move {
        let _held = held;
        let mut over = mailbox.end();
        let mut serving = pin!(answered(&line, call, &mailbox, introduces));
        tokio::select! {
            () = &mut serving => return,
            // Nobody waits for answers on a stream that has ended.
            _ = over.wait_for(|over| *over) => drop(here),
        }
        serving.await;
    });
}

async fn answered(line: &Line, call: Call, mailbox: &Mailbox, introduces: bool) {
    let asked = Asked::of(&call);
    let resumed = call.again();
    let id = call.message().and_then(Message::id).map(Box::from);
    let reply = serve(line, call, &asked).await;
    if introduces {
        begun(&line.state, mailbox, &reply);
    }
    let mut relay = Relay::new(mailbox);
    (relay.introduces, relay.id) = (introduces, id);
    relay.answer(reply).await;
    let mut over = mailbox.end();
    tokio::select! {
        () = relay.rest(&line.state, &resumed, &asked) => {}
        // The session waits for what is under way here: nobody is left to hear the rest.
        _ = over.wait_for(|over| *over) => {}
    }
    if !relay.answered {
        if introduces {
            mailbox.begin_again();
        }
        relay.answer(respond::refusal(&relay.unanswered(), &asked, resumed.id)).await;
    }
}

/// Brings what servers say unasked, for as long as the client is there. Comes back when somebody listens.
pub(super) async fn listen(line: &Line, call: Call, mailbox: &Arc<Mailbox>) {
    let (state, mailbox) = (Arc::clone(&line.state), Arc::clone(mailbox));
    let (opened, begins) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut over = mailbox.end();
        let mut opened = Some(opened);
        let listening = async {
            let mut last: Option<Bytes> = None;
            let (mut failed, mut barren) = (FAILED, LEAST);
            loop {
                let next = last.take().map_or_else(|| call.again(), |after| call.after(&after));
                let asked = Asked::of(&next);
                let line = state.line();
                let (known, reply) = (server(&line, &call.route), serve(&line, next, &asked).await);
                drop((line, opened.take()));
                if reply.status() == StatusCode::METHOD_NOT_ALLOWED {
                    // The server has no such stream. A reload may put one in its place that has.
                    until_not(|| server(&state.line(), &call.route) == known).await;
                    continue;
                }
                if !reply.status().is_success() {
                    // Also where the server no longer knows the last event: the next stream begins anew.
                    tokio::time::sleep(failed).await;
                    failed = failed.saturating_mul(2).min(FAILED_LONG);
                    continue;
                }
                failed = FAILED;
                let mut relay = Relay::new(&mailbox);
                relay.whole(reply).await;
                barren = if relay.said { LEAST } else { barren.saturating_mul(2).min(LATEST) };
                tokio::time::sleep(relay.pause.unwrap_or(AGAIN).clamp(barren, LATEST)).await;
                last = relay.last;
            }
        };
        tokio::select! {
            () = listening => {}
            // The sender is in the mailbox, which is here.
            _ = over.wait_for(|over| *over) => {}
        }
    });
    let _ = tokio::time::timeout(OVERTAKEN, begins).await;
}

/// Which server is behind a door, and how it is heard. None behind the door of all.
fn server(line: &Line, route: &Route) -> Option<(u64, Manner)> {
    let Route::One(name) = route else { return None };
    line.snapshot.servers.get(name).map(|server| (server.fingerprint, Manner::of(server)))
}

/// A panic ends its own call, and nothing else.
async fn serve(line: &Line, call: Call, asked: &Asked) -> Reply {
    let id = call.id;
    let served = AssertUnwindSafe(line.serve(Box::new(call))).catch_unwind().await;
    served.unwrap_or_else(|_| respond::refusal(&Stop::panicked(Stage::Receive), asked, id))
}

/// Keeps the session that `initialize` opened.
fn begun(state: &State, mailbox: &Mailbox, reply: &Reply) {
    let handle = reply.headers().get(&header::SESSION);
    let session =
        handle.and_then(|handle| state.sessions.find(handle, &mailbox.holder(), &mailbox.route, state.clock.ticks()));
    mailbox.keep(session);
}

/// How far a stream is read.
#[derive(Clone, Copy)]
enum Until {
    /// To its end.
    Closed,
    /// To the answer. Silence is bounded elsewhere.
    Answered,
    /// To the answer, unless nothing is said for so long: the line takes the rest of an answer for listening, which has
    /// no such bound.
    Silent(Duration),
}

impl Until {
    /// When silence that begins now has lasted too long.
    fn silent(self) -> Option<Instant> {
        match self {
            Self::Closed | Self::Answered => None,
            Self::Silent(idle) => Instant::now().checked_add(idle),
        }
    }
}

/// Waits until then, or for ever.
async fn pause_until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

/// One answer on its way onto the stream.
struct Relay<'a> {
    mailbox: &'a Mailbox,
    introduces: bool,
    /// Of the request that is answered.
    id: Option<Box<str>>,
    /// The client is there.
    heard: bool,
    /// There was a message.
    said: bool,
    /// The response has gone.
    answered: bool,
    /// With which status HTTP failed, if it did.
    failed: Option<StatusCode>,
    /// The last event's id, where the server gives any.
    last: Option<Bytes>,
    /// How long the server wants us to wait.
    pause: Option<Duration>,
}

impl<'a> Relay<'a> {
    const fn new(mailbox: &'a Mailbox) -> Self {
        Self {
            mailbox,
            introduces: false,
            id: None,
            heard: true,
            said: false,
            answered: false,
            failed: None,
            last: None,
            pause: None,
        }
    }

    /// What the server says until it has answered. A client that is gone does not end it.
    async fn answer(&mut self, reply: Reply) {
        self.read(reply, Until::Answered).await;
    }

    /// All that is said on a stream.
    async fn whole(&mut self, reply: Reply) {
        self.read(reply, Until::Closed).await;
    }

    /// The rest of an answer.
    async fn rest(&mut self, state: &Arc<State>, call: &Call, asked: &Asked) {
        for _ in 0..PIECES {
            // SPEC: a server may end a stream that it gave ids for; the rest is asked for by id.
            let Some(after) = self.last.take().filter(|_| !self.answered && self.heard) else { break };
            tokio::time::sleep(self.pause.unwrap_or(PIECE).clamp(LEAST, LATEST)).await;
            // What is allowed now, which is not what was when the call came.
            let line = state.line();
            let idle = line.snapshot.settings.bounds.stream_idle;
            let Ok(reply) = tokio::time::timeout(idle, serve(&line, call.after(&after), asked)).await else { break };
            if !reply.status().is_success() {
                break;
            }
            self.read(reply, Until::Silent(idle)).await;
        }
    }

    async fn read(&mut self, reply: Reply, until: Until) {
        let status = reply.status();
        self.failed = (!status.is_success()).then_some(status);
        let is = |kind: &str| reply.headers().get(CONTENT_TYPE).is_some_and(|own| own == kind);
        let (is_stream, is_message) = (is("text/event-stream"), is("application/json"));
        // What comes here was bounded on its way.
        let mut decoder = Decoder::new(usize::MAX);
        match reply.into_body() {
            ReplyBody::Whole(Some(body)) if is_stream => {
                self.events(&mut decoder, body).await;
            }
            ReplyBody::Whole(Some(body)) if is_message => self.message(&body).await,
            // A text is nothing to a client of this stream.
            ReplyBody::Whole(_) => {}
            ReplyBody::Stream(mut pieces) => {
                let mut silent = until.silent();
                loop {
                    let piece = tokio::select! {
                        piece = pieces.recv() => piece,
                        () = pause_until(silent) => {
                            // Whoever says nothing here says nothing on the next stream either.
                            self.last = None;
                            break;
                        }
                    };
                    let Some(piece) = piece else { break };
                    if self.events(&mut decoder, piece).await {
                        silent = until.silent();
                    }
                    if self.answered && !matches!(until, Until::Closed) {
                        break;
                    }
                }
            }
        }
    }

    /// Whether there was a message among them: what keeps a stream alive is none.
    async fn events(&mut self, decoder: &mut Decoder, piece: Bytes) -> bool {
        let mut said = false;
        let mut events: Vec<Event> = Vec::new();
        if decoder.push(piece, &mut events).is_err() {
            return said;
        }
        for event in events {
            if let Some(retry) = event.retry {
                self.pause = Some(Duration::from_millis(retry));
            }
            if event.id.is_some() {
                self.last.clone_from(&event.id);
            }
            if let Some(message) = event.message() {
                self.message(message).await;
                said = true;
            }
        }
        said
    }

    async fn message(&mut self, text: &Bytes) {
        // Bounded and well-formed already: by the line, which made or judged it.
        let limits = Limits { body: usize::MAX, depth: Limits::DEEPEST, ..Limits::default() };
        let mut text = text.clone();
        if let Ok(mcp::Body::Single(message)) = mcp::scan(text.clone(), &limits)
            && message.kind() == Kind::Response
        {
            self.answered = true;
            if self.introduces {
                self.introduced(&message);
            }
            // On this stream nothing but its id says what an error answers. The body of an HTTP error answers the request
            // of its POST, whatever it names: servers that have not read that write an id of their own.
            if let Some(id) = &self.id
                && (self.failed.is_some() || matches!(message.id(), None | Some("null")))
            {
                text = message.under_id(id);
            }
        } else if self.failed.is_some() {
            // What an HTTP error says of itself in another form is nothing to a client of this stream: the status is.
            return;
        }
        self.said = true;
        self.heard = self.heard && self.mailbox.put(letter(&text)).await;
    }

    /// What is said in place of an answer.
    fn unanswered(&self) -> Stop {
        let (reason, why) = match self.failed {
            Some(status) => ("upstream-protocol", format!("the server answered HTTP {status}, without a message")),
            None => ("upstream-cut", "the server broke off in the middle of its answer".to_owned()),
        };
        Stop::failed(Stage::Forward, reason, mcp::error::UPSTREAM_DOWN, why)
    }

    fn introduced(&self, message: &Message) {
        let version = message.outcome_member(&["protocolVersion"]).and_then(|member| member.text());
        match version {
            Some(version) => self.mailbox.agree(Revision::parse(&version)),
            // It was refused: it may come again.
            None => self.mailbox.begin_again(),
        }
    }
}

impl Call {
    /// The same as another call, to listen with.
    fn again(&self) -> Self {
        Self {
            id: crate::call::new_id(),
            parent: None,
            batch: None,
            presence: None,
            route: self.route.clone(),
            operation: crate::call::Operation::Listen,
            era: self.era,
            headers: self.headers.clone(),
            peer: self.peer,
        }
    }

    /// The same, for what comes after an event.
    fn after(&self, event: &[u8]) -> Self {
        let mut call = self.again();
        if let Ok(event) = HeaderValue::from_bytes(event) {
            call.headers.insert(header::LAST_EVENT.clone(), event);
        }
        call
    }
}
