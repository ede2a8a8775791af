//! One call to a legacy server: what it says in its course, as a modern client reads it. A question of the server ends
//! the client's request and lets the call wait; the client's next request goes on with it.
//!
//! Every wait is cancel-safe: what is under way lies here, not in a future that a `select!` may drop.

use super::{audience, course::Course, parked::Resting};
use crate::{
    ask::{self, Inquiry, Judged, cannot_ask, no_right},
    authenticate::Caller,
    call::Call,
    catalog,
    forward::Passage,
    server::Server,
    session::Way,
    state::State,
    stop::{Stage, Stop},
    trail::Trail,
    upstream::{UpstreamFault, exchange},
};
use bytes::Bytes;
use mcp::{
    Kind, Limits, Message,
    bridge::{self, Client, LogLevel, downward as translate, upward::InputRequest},
    error,
    sse::Event,
};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use sync_wrapper::SyncWrapper;

/// What the client's answer to a question is called in its retry.
pub(super) const QUESTION: &str = "question";

/// How long the head of an answer waits for its first event.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Who calls, and in which request: another one in each round.
pub(super) struct Asker {
    caller: Caller,
    call: Call,
    client: Client,
    level: Option<LogLevel>,
    /// As the client wrote it.
    id: Box<str>,
    /// As the client wrote it.
    token: Option<Box<str>>,
}

impl Asker {
    pub(super) fn of(way: &Passage<'_>, message: &Message) -> Result<Self, UpstreamFault> {
        Ok(Self {
            caller: way.caller.clone(),
            call: way.call.as_cause(message),
            client: super::client(message)?,
            level: LogLevel::wanted(message),
            id: Box::from(message.id().unwrap_or("null")),
            token: message.progress_token().map(Box::from),
        })
    }
}

type Telling = Pin<Box<dyn Future<Output = Result<(), UpstreamFault>> + Send>>;

/// One call, and what is to be said of it.
pub(crate) struct Talk {
    state: Arc<State>,
    asker: Asker,
    limits: Limits,
    /// None once it is over, or waits elsewhere.
    course: Option<Course>,
    /// What the server is being told: it comes first.
    telling: Option<SyncWrapper<Telling>>,
    /// What was read already.
    ahead: Option<Event>,
}

impl Talk {
    pub(super) fn new(state: &Arc<State>, asker: Asker, course: Course) -> Self {
        let limits = state.line().snapshot.answer_limits();
        Self { state: Arc::clone(state), asker, limits, course: Some(course), telling: None, ahead: None }
    }

    /// The answer, where it comes in one piece, or must. `None`: what comes is a stream.
    pub(super) async fn first(&mut self, streams: bool) -> Result<Option<Bytes>, UpstreamFault> {
        loop {
            // Many servers stream every answer, also one that could be a body, and has a status then. Some begin one only after
            // they were answered.
            let came = tokio::time::timeout(AT_ONCE, self.next()).await;
            let is_stream = streams && self.course.as_ref().is_some_and(Course::is_stream);
            let event = match came {
                Err(_) if is_stream => return Ok(None),
                Err(_) => continue,
                Ok(event) => event?,
            };
            let Some(event) = event else { return Err(UpstreamFault::Cut("no response in the stream".to_owned())) };
            if let Some(text) = event.message()
                && exchange::one(text.clone(), &self.limits)?.kind() == Kind::Response
            {
                return Ok(Some(text.clone()));
            }
            // What comes before it has no place in a body.
            if is_stream {
                self.ahead = Some(event);
                return Ok(None);
            }
        }
    }

    /// Whether the server has a deadline for its first word.
    pub(crate) fn is_due(&self) -> bool {
        self.course.as_ref().is_some_and(Course::is_due)
    }

    /// What comes next on the client's stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, UpstreamFault> {
        if let Some(event) = self.ahead.take() {
            return Ok(Some(event));
        }
        loop {
            if let Some(telling) = &mut self.telling {
                let told = telling.get_mut().await;
                self.telling = None;
                told?;
            }
            let Some(course) = &mut self.course else { return Ok(None) };
            let Some(event) = course.next().await? else {
                self.course = None;
                return Ok(None);
            };
            match event.message() {
                Some(text) => {
                    if let Some(text) = self.read(text.clone())? {
                        return Ok(Some(Event::of(text)));
                    }
                }
                // The client cannot come back for more under the server's ids, and events of other types are none of MCP.
                None if event.id.is_some() || event.data.is_some() => {}
                None => return Ok(Some(event)),
            }
        }
    }

    /// One message of the server, as the client is to read it. `None`: nothing of it.
    fn read(&mut self, text: Bytes) -> Result<Option<Bytes>, UpstreamFault> {
        let message = exchange::one(text, &self.limits)?;
        match message.kind() {
            Kind::Notification => Ok(self.notified(&message)),
            Kind::Request => Ok(self.asked(&message)),
            Kind::Response => self.answered(&message).map(Some),
        }
    }

    fn answered(&mut self, message: &Message) -> Result<Bytes, UpstreamFault> {
        let Some(mut course) = self.course.take() else { return Err(ended()) };
        // An error about a message that could not be read has no id, or `null` (JSON-RPC 2.0 §5).
        let nameless = message.error().is_some() && matches!(message.id(), None | Some("null"));
        if !nameless && !course.is_answered_by(message) {
            return Err(UpstreamFault::Protocol("the server answered another request".to_owned()));
        }
        course.is_over();
        let restored = exchange::one(message.under_id(&self.asker.id), &self.limits)?;
        if let Some(text) = self.pages(&course, &restored)? {
            return Ok(text);
        }
        let info = translate::server_info(&course.link.answer);
        // As the server knows it.
        let uri = self.asker.call.message().and_then(|asked| asked.param(&["uri"]));
        Ok(translate::answer(&restored, &course.method, uri.map(|uri| uri.raw), info)?)
    }

    /// Pages that must be visited before the call is made again: the server's way to ask in an error. `None` where it has
    /// none, or where the error stays one.
    fn pages(&self, course: &Course, answer: &Message) -> Result<Option<Bytes>, UpstreamFault> {
        // SECURITY: they are questions like others, and judged like them, whatever the client reads them as.
        self.judge_pages(&course.server, answer).map_err(UpstreamFault::Stopped)?;
        if !bridge::may_ask(&course.method) {
            return Ok(None);
        }
        Ok(translate::pages_required(&self.asker.id, answer, &self.asker.client).ok().flatten())
    }

    fn judge_pages(&self, server: &Arc<Server>, answer: &Message) -> Result<(), Stop> {
        let pages = InputRequest::pages_of(answer).map_err(|fault| ask::not_asked(fault.to_string()))?;
        if pages.is_empty() {
            return Ok(());
        }
        let line = self.state.line();
        let Asker { caller, call, .. } = &self.asker;
        // The rights of this moment.
        let now = line.may_hear(&caller.principal, &server.name).map(|(caller, _)| caller);
        line.judge_all(&pages, now.as_ref().unwrap_or(caller), call, server, |_| now.is_none().then(no_right))
    }

    fn notified(&self, message: &Message) -> Option<Bytes> {
        let course = self.course.as_ref()?;
        match message.method() {
            "notifications/progress" => {
                let token = message.param(&["progressToken"])?;
                if token.raw != course.number().to_string().as_bytes() {
                    return None;
                }
                let own = self.asker.token.as_ref()?;
                let text = mcp::splice(message.bytes(), &mut [(token.span, own.as_bytes().to_vec())]);
                translate::notification(&exchange::one(text, &self.limits).ok()?, None)
            }
            "notifications/message" => {
                // The level of a session is the least of all that were asked for.
                let wanted = self.asker.level?;
                let fits = LogLevel::named(message).is_some_and(|level| level >= wanted);
                fits.then(|| translate::notification(message, None))?
            }
            _ => {
                // SPEC: the modern era says these on `subscriptions/listen` only.
                course.link.audience.announce(message.bytes());
                let line = self.state.line();
                if let Some(server) = line.snapshot.servers.get(&course.server.name) {
                    catalog::notice(&line, server, message);
                }
                None
            }
        }
    }

    /// A question of the server: the client is asked, or the server is told why not.
    fn asked(&mut self, question: &Message) -> Option<Bytes> {
        let course = self.course.as_ref()?;
        if question.method() == "ping" {
            self.tell(error::result_text(question.id().unwrap_or("null"), b"{}"));
            return None;
        }
        if matches!(course.link.leg.way, Way::Pipe(_)) {
            course.is_asked();
        }
        let server = Arc::clone(&course.server);
        match self.put(&server, question) {
            Ok(text) => Some(text),
            Err(stop) => {
                self.tell(mcp::error_text(question.id(), stop.code, &stop.message, None));
                None
            }
        }
    }

    fn put(&mut self, server: &Arc<Server>, question: &Message) -> Result<Bytes, Stop> {
        let method = self.course.as_ref().map(|course| course.method.clone()).unwrap_or_default();
        let client = self.asker.client.clone();
        let (judged, trail) = self.judged(server, question, |question| {
            if !bridge::may_ask(&method) {
                return Err(cannot_ask(format!("nobody can be asked anything in the course of `{method}`")));
            }
            client.can_answer(question.method(), question.params()).map_err(|fault| cannot_ask(fault.to_string()))
        });
        // Only what waits for its answer was asked.
        let put = judged.and_then(|judged| self.park(judged));
        close(trail, &put);
        put
    }

    /// Judges a question, as a call of its own with a record of its own, which is still to be closed.
    fn judged(
        &self,
        server: &Arc<Server>,
        question: &Message,
        fits: impl FnOnce(&Message) -> Result<(), Stop>,
    ) -> (Result<Judged, Stop>, Trail) {
        let line = self.state.line();
        let Asker { caller, call, .. } = &self.asker;
        // The rights of this moment.
        let now = line.may_hear(&caller.principal, &server.name).map(|(caller, _)| caller);
        let inquiry =
            Inquiry { caller: now.as_ref().unwrap_or(caller), call, server, parent: call.id, message: question };
        let mut trail = Trail::open(&inquiry.as_call(), &self.state);
        inquiry.note(trail.facts_mut());
        let judged = match &now {
            None => Err(no_right()),
            Some(_) => fits(question).and_then(|()| line.judge_inquiry(&inquiry, &mut trail)),
        };
        (judged, trail)
    }

    /// Lets the call wait for the client's next request. What the client reads now.
    fn park(&mut self, judged: Judged) -> Result<Bytes, Stop> {
        let Judged { text, permit, .. } = judged;
        let broken = |why: String| Stop::failed(Stage::Release, "park", error::INTERNAL, why);
        let question = exchange::one(text, &self.limits).map_err(|fault| broken(fault.to_string()))?;
        let Some(mut course) = self.course.take() else { return Err(broken("the call is over".to_owned())) };
        let sealed = super::ticket(&self.state, course.bound);
        let id = question.id().map(Box::from);
        let asking = sealed.zip(id).map(|((number, until, sealed), id)| {
            let state = mcp::quote(&sealed);
            let asking = translate::input_required(&self.asker.id, QUESTION, &question, &self.asker.client, &state);
            (number, until, id, asking)
        });
        let (number, until, id, asking) = match asking {
            Some((number, until, id, Ok(asking))) => (number, until, id, asking),
            Some((_, _, _, Err(fault))) => {
                self.course = Some(course);
                return Err(cannot_ask(fault.to_string()));
            }
            None => {
                self.course = Some(course);
                return Err(broken("the call cannot wait".to_owned()));
            }
        };
        let holder = self.asker.caller.principal.clone();
        let method = Box::from(question.method());
        course.stage(audience::Stage::Resting);
        // Others have theirs once it waits.
        let turn = course.turn.take();
        match self.state.parked.park(number, Box::new(Resting { course, question: id, method, permit, holder, until }))
        {
            Ok(()) => Ok(asking),
            Err(mut resting) => {
                resting.course.stage(audience::Stage::Running);
                resting.course.turn = turn;
                self.course = Some(resting.course);
                let why = "too many calls wait for an answer of their client";
                Err(Stop::full("parked", why))
            }
        }
    }

    /// Tells the server something before it is read on.
    fn tell(&mut self, text: Bytes) {
        let Some(course) = &self.course else { return };
        let (state, server, leg) = (Arc::clone(&self.state), Arc::clone(&course.server), Arc::clone(&course.link.leg));
        self.telling = Some(SyncWrapper::new(Box::pin(async move { super::tell(&state, &server, &leg, text).await })));
    }
}

fn close<T>(trail: Trail, outcome: &Result<T, Stop>) {
    match outcome {
        Ok(_) => trail.close_answered(http::StatusCode::OK),
        Err(stop) => trail.close_stopped(stop),
    }
}

fn ended() -> UpstreamFault {
    UpstreamFault::Protocol("the call is over".to_owned())
}
