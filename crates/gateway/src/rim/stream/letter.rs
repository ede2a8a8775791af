//! What a call was answered, as events of the one stream that its client hears.

use crate::{
    call::{Call, header},
    mailbox::{Busy, Mailbox},
    pipeline::Line,
    reply::{Reply, ReplyBody},
    respond::{self, Asked},
    rim::UnderWay,
    state::State,
    stop::{Stage, Stop},
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, header::CONTENT_TYPE};
use mcp::{
    Kind, Limits, Message, Revision,
    sse::{Decoder, Event},
};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// How long the client's next message waits for the server's listening stream.
const OVERTAKEN: Duration = Duration::from_secs(1);
/// How long after its end a listening stream is asked for again, unless the server says.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest time that a server may have us wait.
const LATEST: Duration = Duration::from_secs(30);
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

/// Serves a request on a task of its own. A client that leaves does not end it.
pub(super) fn answer(line: &Line, call: Call, mailbox: Arc<Mailbox>, held: (Busy, UnderWay), introduces: bool) {
    let line = line.clone();
    tokio::spawn(async move {
        let _held = held;
        let asked = Asked::of(&call);
        let resumed = call.again();
        let reply = serve(&line, call, &asked).await;
        if introduces {
            begun(&line.state, &mailbox, &reply);
        }
        let mut relay = Relay { mailbox: &mailbox, introduces, heard: true, answered: false, last: None, pause: None };
        relay.whole(reply).await;
        for _ in 0..PIECES {
            // SPEC: a server may end a stream that it gave ids for; the rest is asked for by id.
            let Some(after) = relay.last.take().filter(|_| !relay.answered && relay.heard) else { break };
            tokio::time::sleep(relay.pause.unwrap_or_default().min(LATEST)).await;
            let reply = serve(&line, resumed.after(&after), &asked).await;
            if !reply.status().is_success() {
                break;
            }
            relay.whole(reply).await;
        }
        if !relay.answered {
            if introduces {
                mailbox.begin_again();
            }
            let stop = Stop::failed(
                Stage::Forward,
                "upstream-cut",
                mcp::error::UPSTREAM_DOWN,
                "the server broke off in the middle of its answer",
            );
            relay.whole(respond::refusal(&stop, &asked, resumed.id)).await;
        }
    });
}

/// Brings what servers say unasked, for as long as the client is there. Comes back when somebody listens.
pub(super) async fn listen(line: &Line, call: Call, mailbox: &Arc<Mailbox>) {
    let (state, mailbox) = (Arc::clone(&line.state), Arc::clone(mailbox));
    let (opened, begins) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut over = mailbox.end();
        let mut opened = Some(opened);
        let listening = async {
            let mut next = call.again();
            loop {
                let asked = Asked::of(&next);
                let reply = serve(&state.line(), next, &asked).await;
                drop(opened.take());
                if !reply.status().is_success() {
                    break;
                }
                let mut relay = Relay {
                    mailbox: &mailbox,
                    introduces: false,
                    heard: true,
                    answered: false,
                    last: None,
                    pause: None,
                };
                relay.whole(reply).await;
                tokio::time::sleep(relay.pause.unwrap_or(AGAIN).min(LATEST)).await;
                next = match relay.last.take() {
                    Some(after) => call.after(&after),
                    None => call.again(),
                };
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

/// One answer on its way onto the stream.
struct Relay<'a> {
    mailbox: &'a Mailbox,
    introduces: bool,
    /// The client is there.
    heard: bool,
    /// The response has gone.
    answered: bool,
    /// The last event's id, where the server gives any.
    last: Option<Bytes>,
    /// How long the server wants us to wait.
    pause: Option<Duration>,
}

impl Relay<'_> {
    /// All of an answer. A client that is gone does not end it: it is read on to its end.
    async fn whole(&mut self, reply: Reply) {
        let is_stream = reply.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
        // What comes here was bounded on its way.
        let mut decoder = Decoder::new(usize::MAX);
        match reply.into_body() {
            ReplyBody::Whole(None) => {}
            ReplyBody::Whole(Some(body)) if is_stream => self.events(&mut decoder, body).await,
            ReplyBody::Whole(Some(body)) => self.message(&body).await,
            ReplyBody::Stream(mut pieces) => {
                while let Some(piece) = pieces.recv().await {
                    self.events(&mut decoder, piece).await;
                }
            }
        }
    }

    async fn events(&mut self, decoder: &mut Decoder, piece: Bytes) {
        let mut events: Vec<Event> = Vec::new();
        if decoder.push(piece, &mut events).is_err() {
            return;
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
            }
        }
    }

    async fn message(&mut self, text: &Bytes) {
        // Bounded and well-formed already: by the line, which made or judged it.
        let limits = Limits { body: usize::MAX, ..Limits::default() };
        if let Ok(mcp::Body::Single(message)) = mcp::scan(text.clone(), &limits)
            && message.kind() == Kind::Response
        {
            self.answered = true;
            if self.introduces {
                self.introduced(&message);
            }
        }
        self.heard = self.heard && self.mailbox.put(letter(text)).await;
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
            in_batch: false,
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
