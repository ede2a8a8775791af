//! One request to a modern server, in as many rounds as it has questions: each answer that asks for input becomes
//! requests on the stream of the call, and their answers become the next round.
//!
//! Every wait is cancel-safe: what is under way lies in the step, not in a future that a `select!` may drop.

use super::side::UnderWay;
use crate::{
    bridge::Crossing,
    forward::{Judged, Passage},
    inject,
    server::{Server, Transport},
    session::Session,
    state::State,
    upstream::{
        Arrival, Source, UpstreamFault,
        exchange::{self, Hop, Wait},
        http::{self as wire, Outbound},
    },
};
use bytes::Bytes;
use http::{HeaderMap, Method};
use mcp::{
    Era, Kind, Limits, Message,
    bridge::upward::{self as translate, InputRequired, Introduction},
    sse::Event,
};
use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc};
use sync_wrapper::SyncWrapper;
use tokio::sync::oneshot;
use vocab::PrincipalId;

/// How often a server may ask in the course of one call.
const ROUNDS: usize = 10;

/// A request and what became of it so far.
pub(crate) struct Rounds {
    state: Arc<State>,
    server: Arc<Server>,
    session: Arc<Session>,
    principal: PrincipalId,
    headers: HeaderMap,
    limits: Limits,
    introduction: Introduction,
    /// The client reads streams: it can be asked.
    can_be_asked: bool,
    /// How long a process may say nothing.
    wait: Wait,
    /// The request as the server is to see it, under the client's id.
    request: Message,
    round: usize,
    /// The id of the request that is under way now.
    round_id: Box<str>,
    judged: Arc<Judged>,
    under_way: UnderWay,
    step: Step,
}

type Sending = Pin<Box<dyn Future<Output = Result<Arrival, UpstreamFault>> + Send>>;

enum Step {
    /// On its way.
    Sending(SyncWrapper<Sending>),
    /// The server speaks.
    Reading(Source),
    /// The client is asked.
    Asking(Asking),
    /// The answer was given.
    Over,
}

/// Questions of one round.
struct Asking {
    /// Not put to the client yet.
    unsaid: VecDeque<Bytes>,
    /// Not answered yet.
    waiting: VecDeque<Wanted>,
    answers: Vec<(Box<str>, Box<[u8]>)>,
    /// What the server wants back as it is.
    state: Option<Box<str>>,
    /// How many bytes of answers still fit into a request.
    room: usize,
}

/// One answer that is waited for.
struct Wanted {
    /// Under which name the server wants it.
    key: Box<str>,
    /// What was asked.
    method: Box<str>,
    answer: oneshot::Receiver<Message>,
}

impl Rounds {
    pub(super) fn new(
        way: &Passage<'_>,
        session: &Arc<Session>,
        introduction: Introduction,
        request: Message,
        headers: HeaderMap,
        judged: Arc<Judged>,
    ) -> Self {
        let mut rounds = Self {
            state: Arc::clone(&way.line.state),
            server: Arc::clone(&way.one.server),
            session: Arc::clone(session),
            principal: way.caller.principal.id().clone(),
            headers,
            limits: way.hop().limits,
            introduction,
            can_be_asked: way.reads_streams(),
            wait: way.wait(),
            under_way: session.upward.begin(request.id().unwrap_or_default()),
            round_id: Box::from(request.id().unwrap_or_default()),
            judged,
            request,
            round: 0,
            step: Step::Over,
        };
        rounds.step = Step::Sending(SyncWrapper::new(rounds.sending(rounds.request.clone())));
        rounds
    }

    /// The answer, if it comes in one piece and asks for nothing. `None`: it is a stream.
    pub(super) async fn first(&mut self) -> Result<Option<Bytes>, UpstreamFault> {
        let Step::Sending(sending) = &mut self.step else { return Ok(None) };
        let arrival = tokio::select! {
            biased;
            () = self.under_way.cancelled() => return Ok(Some(self.taken_back())),
            arrival = sending.get_mut() => arrival?,
        };
        self.arrived(arrival)
    }

    /// What comes next on the client's stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, UpstreamFault> {
        loop {
            let Self { under_way, step, .. } = self;
            let came = tokio::select! {
                biased;
                () = under_way.cancelled(), if !matches!(step, Step::Over) => {
                    return Ok(Some(Event::of(self.taken_back())));
                }
                came = step.wait() => came?,
            };
            match came {
                Came::Nothing => return Ok(None),
                Came::Comment => {}
                Came::Question(text) => return Ok(Some(Event::of(text))),
                Came::Text(text) => {
                    if let Some(text) = self.read(text)? {
                        return Ok(Some(Event::of(text)));
                    }
                }
                Came::Arrival(arrival) => {
                    if let Some(text) = self.arrived(*arrival)? {
                        return Ok(Some(Event::of(text)));
                    }
                }
                Came::Answers => self.go_on()?,
            }
        }
    }

    fn taken_back(&mut self) -> Bytes {
        // Letting go of the stream is what cancels a modern request.
        self.step = Step::Over;
        let why = "the client cancelled the request";
        mcp::error_text(self.request.id(), mcp::error::INTERNAL, why, None)
    }

    fn arrived(&mut self, arrival: Arrival) -> Result<Option<Bytes>, UpstreamFault> {
        match arrival {
            Arrival::Whole { body, .. } => {
                // Nothing follows it; where it asks, the next round does.
                self.step = Step::Over;
                self.read(body)
            }
            Arrival::Stream { source, .. } => {
                self.step = Step::Reading(source);
                Ok(None)
            }
            Arrival::Bare { status, .. } => Err(UpstreamFault::Protocol(format!("HTTP {status} without a message"))),
        }
    }

    /// One message of the server, as the client is to read it. `None`: nothing yet.
    fn read(&mut self, text: Bytes) -> Result<Option<Bytes>, UpstreamFault> {
        let message = exchange::one(text, &self.limits)?;
        match message.kind() {
            Kind::Notification => Ok(translate::notification(&message)),
            Kind::Request => Err(UpstreamFault::Protocol("a modern server sends no requests".to_owned())),
            Kind::Response => {
                // An error that names no request is one of this exchange, which carries no other.
                let named = message.id().filter(|id| *id != "null").map(mcp::id_key);
                if named.map_or(message.error().is_none(), |named| named != mcp::id_key(&self.round_id)) {
                    return Err(UpstreamFault::Protocol("the server answered another request".to_owned()));
                }
                if let Some(wanted) = InputRequired::of(&message)? {
                    return self.ask(&wanted).map(|()| None);
                }
                self.step = Step::Over;
                let message = self.under_own_id(message)?;
                Ok(Some(translate::answer(&message, self.request.method(), self.session.revision)?))
            }
        }
    }

    /// Later rounds have ids of their own; the client knows the first.
    fn under_own_id(&self, message: Message) -> Result<Message, UpstreamFault> {
        match (message.id_member(), self.request.id()) {
            (Some(member), Some(id)) if self.round > 0 => {
                let text = mcp::splice(message.bytes(), &mut [(member.span, id.as_bytes().to_vec())]);
                exchange::one(text, &self.limits)
            }
            _ => Ok(message),
        }
    }

    /// What is answered takes time: rights, rules and servers may be others now, and what is sent next has the effect.
    fn still_right(&mut self) -> Result<(), UpstreamFault> {
        let withdrawn = || UpstreamFault::Bridge("the right to this call was withdrawn in the course of it".to_owned());
        let line = self.state.line();
        let (caller, server) = line.may_hear(&self.session.holder(), &self.server.name).ok_or_else(withdrawn)?;
        let same = server.fingerprint == self.server.fingerprint;
        if !same || Crossing::between(Era::Legacy, server) != Crossing::Upward {
            let why = "the server was configured anew in the course of the call";
            return Err(UpstreamFault::Bridge(why.to_owned()));
        }
        let judged = &self.judged;
        let question = policy::Question {
            subject: &caller.subject,
            // What needs no rule is never asked about.
            action: judged.action.ok_or_else(withdrawn)?,
            resource: &server.resource(&judged.name),
            arguments: &judged.arguments,
            digest: judged.digest,
            findings: &judged.findings,
            now: self.state.clock.now(),
        };
        let permit = line.snapshot.policies.authorize(&question).map_err(|_| withdrawn())?;
        drop(permit);
        self.server = Arc::clone(server);
        Ok(())
    }

    fn ask(&mut self, wanted: &InputRequired<'_>) -> Result<(), UpstreamFault> {
        if !self.can_be_asked {
            let why = "it asks the client something, and the client's `Accept` has no `text/event-stream`";
            return Err(UpstreamFault::Bridge(why.to_owned()));
        }
        self.round += 1;
        if self.round > ROUNDS {
            return Err(UpstreamFault::Bridge(format!("the server asks more than {ROUNDS} times in one call")));
        }
        let state = wanted.state.map(Box::from);
        let mut asking = Asking {
            unsaid: VecDeque::new(),
            waiting: VecDeque::new(),
            answers: Vec::new(),
            state,
            room: self.limits.body,
        };
        for request in &wanted.requests {
            let id = format!("\"durward-{}\"", self.session.question_id());
            let text = translate::question(&id, request, &self.introduction)?;
            asking.unsaid.push_back(text);
            let (key, method) = (Box::from(&*request.key), Box::from(&*request.method));
            let answer = self.session.upward.wait(&self.server.name, &id);
            asking.waiting.push_back(Wanted { key, method, answer });
        }
        self.step = Step::Asking(asking);
        Ok(())
    }

    /// The next round.
    fn go_on(&mut self) -> Result<(), UpstreamFault> {
        self.still_right()?;
        let Step::Asking(asking) = &mut self.step else { return Ok(()) };
        let id = format!("\"durward-round-{}-{}\"", self.round, self.session.question_id());
        let answers: Vec<(&str, &[u8])> = asking.answers.iter().map(|(key, answer)| (&**key, &**answer)).collect();
        let retry = translate::retry(&self.request, &id, &answers, asking.state.as_deref())?;
        let retry = exchange::one(retry, &self.limits)?;
        self.round_id = id.into_boxed_str();
        self.step = Step::Sending(SyncWrapper::new(self.sending(retry)));
        Ok(())
    }

    /// One request on its way, with the credential of this moment.
    fn sending(&self, request: Message) -> Sending {
        let (state, server) = (Arc::clone(&self.state), Arc::clone(&self.server));
        let (headers, limits, principal, wait) = (self.headers.clone(), self.limits, self.principal.clone(), self.wait);
        Box::pin(async move {
            let injected =
                inject::credentials(&state, &server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
            match &server.transport {
                Transport::Http(_) => {
                    let outbound = Outbound { method: Method::POST, headers, body: request.bytes().clone() };
                    Ok(wire::send(&state, &server, &injected, outbound, limits.body).await?.0)
                }
                Transport::Stdio(program) => {
                    let hop = Hop { state: &state, server: &server, injected: &injected, limits };
                    let pipe = state.modern_pipe(&hop, &principal, program.shared)?;
                    let arrival = exchange::over_pipe(&pipe, &request, None, wait).await;
                    state.doubt_process(&server, &arrival);
                    arrival
                }
            }
        })
    }
}

/// What a step brought.
enum Came {
    Arrival(Box<Arrival>),
    Text(Bytes),
    Comment,
    Question(Bytes),
    Answers,
    Nothing,
}

impl Step {
    async fn wait(&mut self) -> Result<Came, UpstreamFault> {
        match self {
            Self::Sending(sending) => sending.get_mut().await.map(|arrival| Came::Arrival(Box::new(arrival))),
            Self::Reading(source) => match Box::pin(source.next()).await? {
                None => Ok(Came::Nothing),
                Some((_, event)) => Ok(match event.message() {
                    Some(text) => Came::Text(text.clone()),
                    // Its id is a place in a stream of the server's, where no client of the bridge can go on.
                    None => Came::Comment,
                }),
            },
            Self::Asking(asking) => asking.wait().await,
            Self::Over => Ok(Came::Nothing),
        }
    }
}

impl Asking {
    async fn wait(&mut self) -> Result<Came, UpstreamFault> {
        if let Some(text) = self.unsaid.pop_front() {
            return Ok(Came::Question(text));
        }
        while let Some(wanted) = self.waiting.front_mut() {
            let answer = (&mut wanted.answer).await;
            let answer = answer.map_err(|_| UpstreamFault::Bridge("a question was given up".to_owned()))?;
            let response = translate::input_response(&answer, &wanted.method)?;
            self.room = self.room.checked_sub(response.len()).ok_or(UpstreamFault::TooBig(response.len()))?;
            self.answers.push((wanted.key.clone(), Box::from(&*response)));
            self.waiting.pop_front();
        }
        Ok(Came::Answers)
    }
}
