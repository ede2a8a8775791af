//! A streamed answer: each message is judged by the snapshot of its moment, then passed on as it came.
//!
//! The flow runs on a task of its own. A client that goes away means what its era says: in the legacy era the call
//! goes on, in the modern era it is cancelled by letting go of the server's stream.

use crate::{
    ask::{Ask, Verdict},
    call::Route,
    catalog,
    forward::Exchange,
    pipeline::Line,
    release,
    rim::UnderWay,
    server::Server,
    state::State,
    stop::{Cause, Stop},
    trail::Trail,
    upstream::{self, Source, UpstreamFault},
};
use bytes::Bytes;
use futures_util::FutureExt;
use guard::Carry;
use http::StatusCode;
use mcp::{Era, Kind, Message, sse::Event};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use vocab::{Action, ServerName};

/// Events that wait for a client. Few: each may be as large as an answer.
const BACKLOG: usize = 16;
/// How long a stream may be silent before a comment keeps it alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often the right to listen is looked at again.
const RECHECK: Duration = Duration::from_millis(500);
/// How long a client that does not read holds a stream.
pub(crate) const STALLED: Duration = Duration::from_mins(1);

/// A stream on its way to the client.
pub(crate) struct Flow {
    source: Source,
    exchange: Box<Exchange>,
    carry: Carry,
    /// The client was given a place from which it can go on elsewhere.
    resumable: bool,
}

/// Why a flow ended.
enum End {
    /// The server said all it had to say.
    Complete,
    /// The client is gone, and its era says that this cancels the call.
    Cancelled,
    /// Something stopped it.
    Stopped(Box<Stop>),
}

impl Flow {
    pub(crate) fn new(source: Source, exchange: Box<Exchange>) -> Self {
        Self { source, exchange, carry: Carry::default(), resumable: false }
    }

    pub(crate) const fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Lets the stream run on a task of its own. The trail closes when it ends.
    pub(crate) fn start(self, state: Arc<State>, trail: Trail) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        // A stop of the gateway waits for answers, not for those who listen.
        let under_way = if self.listens() { None } else { Some(UnderWay::begin(&state)) };
        tokio::spawn(async move {
            self.run(state, trail, sender).await;
            drop(under_way);
        });
        receiver
    }

    async fn run(mut self, state: Arc<State>, mut trail: Trail, client: mpsc::Sender<Bytes>) {
        let _streaming = self.exchange.target.session().map(crate::session::Session::streaming);
        let end = AssertUnwindSafe(self.pump(&state, &mut trail, &client)).catch_unwind().await;
        let end = end.unwrap_or_else(|_| End::Stopped(Box::new(trail.panicked())));
        match end {
            End::Complete => trail.close_answered(StatusCode::OK),
            End::Stopped(stop) => {
                // The stream has begun: what is left to say is said as its last message. The record waits for nobody.
                let word = self.last_word(&stop, &trail);
                trail.close_stopped(&stop);
                say(&client, word, STALLED).await;
            }
            // Unclosed: it records itself abandoned.
            End::Cancelled => drop(trail),
        }
    }

    async fn pump(&mut self, state: &Arc<State>, trail: &mut Trail, client: &mpsc::Sender<Bytes>) -> End {
        let modern = self.exchange.call.era == Era::Modern;
        let mut gone = false;
        let mut recheck = tokio::time::interval(RECHECK);
        recheck.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ended = self.exchange.target.session().map(|session| session.end());
        let mut stopping = Some(state.stopping.subscribe());
        let idle = state.line().snapshot.settings.bounds.stream_idle;
        let listens = self.listens();
        let (mut heard, mut spoken) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                biased;
                event = self.source.next() => {
                    heard = Instant::now();
                    spoken = heard;
                    match event {
                        Ok(None) => return self.complete(listens),
                        Ok(Some((from, event))) => {
                            // A server that never pauses must not keep the other branches from their turn.
                            if let Err(stop) = self.still_allowed(state) {
                                return End::Stopped(Box::new(stop));
                            }
                            if ended.as_ref().is_some_and(|ended| *ended.borrow()) {
                                return left(listens);
                            }
                            match self.pass(state, trail, from, event).await {
                                Ok(None) => {}
                                Ok(Some(bytes)) => {
                                    if !gone && !say(client, bytes, STALLED).await {
                                        if modern || listens {
                                            return left(listens);
                                        }
                                        gone = true;
                                    }
                                }
                                Err(stop) => return End::Stopped(Box::new(stop)),
                            }
                        }
                        Err(fault) => return self.broken(&fault),
                    }
                }
                () = client.closed(), if !gone => {
                    if modern || listens {
                        return left(listens);
                    }
                    gone = true;
                }
                _ = recheck.tick() => {
                    if let Err(stop) = self.still_allowed(state) {
                        return End::Stopped(Box::new(stop));
                    }
                    if !listens && heard.elapsed() > idle {
                        return self.broken(&UpstreamFault::Timeout(idle));
                    }
                    if spoken.elapsed() > KEEP_ALIVE {
                        spoken = Instant::now();
                        let _ = client.try_send(Bytes::from_static(b": keep-alive\n\n"));
                    }
                }
                true = over(&mut ended) => return left(listens),
                true = over(&mut stopping), if listens => return End::Complete,
            }
        }
    }

    /// A stream that lasts as long as the client wants: GET, and `subscriptions/listen`.
    fn listens(&self) -> bool {
        self.exchange.call.message().is_none_or(|message| message.method() == "subscriptions/listen")
    }

    fn complete(&self, listens: bool) -> End {
        let answered = self.exchange.answered;
        // SPEC: a server may close a stream it gave an id for; the client asks for the rest with `Last-Event-ID`.
        if listens || answered || self.resumable || !self.exchange.call.wants_answer() {
            End::Complete
        } else {
            self.broken(&UpstreamFault::Cut("the stream ended without a response".to_owned()))
        }
    }

    fn broken(&self, fault: &UpstreamFault) -> End {
        match self.exchange.target.one() {
            Some(one) => End::Stopped(Box::new(fault.stop(&one.server.name))),
            None => End::Complete,
        }
    }

    /// One event, judged and passed on. `None` if it is not for the client.
    async fn pass(
        &mut self,
        state: &Arc<State>,
        trail: &mut Trail,
        from: Option<ServerName>,
        event: Event,
    ) -> Result<Option<Bytes>, Stop> {
        if !self.has_share(&state.line(), from.as_ref()) {
            return Ok(None);
        }
        self.resumable |= event.id.is_some() && self.exchange.call.era == Era::Legacy;
        let event = self.addressed(event);
        let Some(data) = event.message() else { return Ok(Some(event.raw)) };
        let line = state.line();
        let message =
            upstream::exchange::one(data.clone(), &line.snapshot.answer_limits()).map_err(|fault| self.stop(&fault))?;
        match message.kind() {
            Kind::Request => Box::pin(self.question(&line, trail, from.as_ref(), &event, &message)).await,
            // SECURITY: nobody asked these servers anything on their common stream. What looks like an answer here could
            // be passed off as that of another server.
            Kind::Response if self.exchange.target.one().is_none() => Ok(None),
            Kind::Response if !release::answers(&self.exchange, &message) && !self.is_replay() => {
                Err(Stop::withheld("answer-id", mcp::error::INTERNAL, "the server answered another request"))
            }
            Kind::Response | Kind::Notification => {
                if let Some(server) = self.server(&line, from.as_ref()) {
                    catalog::notice(&line, server, &message);
                    if !self.concerns(&line, server, &message) {
                        return Ok(None);
                    }
                }
                let (text, said) = line.release_message(&message, &self.exchange, &mut self.carry)?;
                let Some(text) = self.renamed(from.as_ref(), &message, text)? else { return Ok(None) };
                said.note(trail.facts_mut());
                if message.kind() == Kind::Response {
                    self.exchange.answered = true;
                    trail.committed(&said.fingerprint());
                }
                Ok(Some(rewritten(&event, &message, &text)))
            }
        }
    }

    /// In the aggregate an event's id says whose it is, so that whoever asks for the rest finds that server.
    fn addressed(&self, event: Event) -> Event {
        match self.exchange.target.one() {
            Some(one) if event.id.is_some() && self.exchange.call.route == Route::All => {
                mcp::sse::prefix_id(&event, &format!("{}/", one.server.name))
            }
            Some(_) | None => event,
        }
    }

    /// Whether the caller may still hear of the server that speaks on a merged stream.
    fn has_share(&self, line: &Line, from: Option<&ServerName>) -> bool {
        let (None, Some(name)) = (self.exchange.target.one(), from) else { return true };
        let subject = &self.exchange.caller.subject;
        let server = line.snapshot.servers.get(name);
        server.is_some_and(|server| line.snapshot.policies.reaches(subject, server.root()))
    }

    /// Whether the caller may hear of it: news of a resource that it cannot see are none of its business.
    fn concerns(&self, line: &Line, server: &Server, message: &Message) -> bool {
        if message.method() != "notifications/resources/updated" {
            return true;
        }
        let uri = message.param(&["uri"]).and_then(|uri| uri.text().map(std::borrow::Cow::into_owned));
        let subject = &self.exchange.caller.subject;
        uri.is_some_and(|uri| line.snapshot.policies.visible(subject, Action::ResourceRead, &server.resource(&uri)))
    }

    /// A server that takes back a question names it by its own id; in the aggregate the client knows another. `None` if
    /// this server has no such question: what it names belongs to somebody else.
    fn renamed(&self, from: Option<&ServerName>, message: &Message, text: Bytes) -> Result<Option<Bytes>, Stop> {
        if self.exchange.call.route != Route::All || message.method() != "notifications/cancelled" {
            return Ok(Some(text));
        }
        let server = from.or_else(|| self.exchange.target.one().map(|one| &one.server.name));
        let session = self.exchange.target.session();
        let again = upstream::exchange::one(text, &mcp::Limits::default()).map_err(|fault| self.stop(&fault))?;
        let shown = again.param(&["requestId"]).zip(server.zip(session)).and_then(|(id, (server, session))| {
            let shown = session.shown_question(server, &String::from_utf8_lossy(id.raw))?;
            Some((id.span, shown.into_bytes()))
        });
        Ok(shown.map(|edit| mcp::splice(again.bytes(), &mut [edit])))
    }

    /// A GET stream may replay responses of earlier requests (resumption).
    fn is_replay(&self) -> bool {
        self.exchange.call.message().is_none()
    }

    /// A question of the server is a call of its own.
    async fn question(
        &self,
        line: &Line,
        trail: &Trail,
        from: Option<&ServerName>,
        event: &Event,
        message: &Message,
    ) -> Result<Option<Bytes>, Stop> {
        // A server that is not configured any more has nothing to ask.
        let Some(server) = self.server(line, from) else { return Ok(None) };
        let ask = Ask { exchange: &self.exchange, server, parent: trail.facts().call, message };
        match line.ask(ask).await {
            Verdict::Passed(text) => Ok(Some(rewritten(event, message, &text))),
            Verdict::Declined => Ok(None),
        }
    }

    /// The server that speaks, as it is configured now.
    fn server<'l>(&self, line: &'l Line, from: Option<&ServerName>) -> Option<&'l Arc<Server>> {
        let name = from.or_else(|| self.exchange.target.one().map(|one| &one.server.name))?;
        line.snapshot.servers.get(name)
    }

    fn still_allowed(&mut self, state: &Arc<State>) -> Result<(), Stop> {
        let line = state.line();
        line.still_allowed(&mut self.exchange)
    }

    fn stop(&self, fault: &UpstreamFault) -> Stop {
        match self.exchange.target.one() {
            Some(one) => fault.stop(&one.server.name),
            None => Stop::withheld("upstream-protocol", mcp::error::UPSTREAM_DOWN, "a server's answer is not MCP"),
        }
    }

    /// The error that ends a stream, as an event.
    fn last_word(&self, stop: &Stop, trail: &Trail) -> Bytes {
        let id = self.exchange.call.message().and_then(Message::id);
        if id.is_none() || self.exchange.answered || (self.resumable && stop.cause == Cause::Failed) {
            return Bytes::from_static(b": the stream ends\n\n");
        }
        let mut data = stop.data.clone();
        data.insert("call".to_owned(), trail.facts().call.to_string().into());
        let text = mcp::error_text(id, stop.code, &stop.message, Some(&data.into()));
        mcp::sse::encode(&text, None)
    }
}

/// Hands bytes to a client. `false` if it is gone, or reads nothing for as long as `patience`.
pub(crate) async fn say(client: &mpsc::Sender<Bytes>, bytes: Bytes, patience: Duration) -> bool {
    matches!(tokio::time::timeout(patience, client.send(bytes)).await, Ok(Ok(())))
}

/// The event with another message in it, or as it came if nothing changed.
fn rewritten(event: &Event, message: &Message, text: &Bytes) -> Bytes {
    if text == message.bytes() { event.raw.clone() } else { mcp::sse::replace_data(event, text) }
}

/// The client let go: of a stream that is its normal end, of an answer it is not.
const fn left(listens: bool) -> End {
    if listens { End::Complete } else { End::Cancelled }
}

/// Waits for the end of the session, or of the gateway.
async fn over(ended: &mut Option<tokio::sync::watch::Receiver<bool>>) -> bool {
    match ended {
        Some(ended) => ended.wait_for(|ended| *ended).await.is_ok(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::say;
    use bytes::Bytes;
    use std::time::Duration;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn a_client_that_reads_nothing_holds_up_nobody_for_ever() {
        let (client, reads) = mpsc::channel(1);
        assert!(say(&client, Bytes::from_static(b"one"), Duration::ZERO).await);
        assert!(!say(&client, Bytes::from_static(b"two"), Duration::ZERO).await);
        drop(reads);
        assert!(!say(&client, Bytes::from_static(b"three"), Duration::MAX).await);
    }
}
