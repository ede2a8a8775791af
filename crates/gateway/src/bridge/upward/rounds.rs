//! One request to a modern server, in as many rounds as it has questions: each answer that asks for input becomes
//! requests on the stream of the call, and their answers become the next round.
//!
//! Every wait is cancel-safe: what is under way lies in the step, not in a future that a `select!` may drop.

use super::{
    round::{self, Cause, Leaving},
    side::{Given, UnderWay},
};
use crate::{
    bridge::is_out_of_reach,
    catalog::lists_as_client,
    flow::RECHECK,
    forward::{Judged, Passage},
    inject,
    limit::Slot,
    server::{Server, Transport},
    session::Session,
    state::State,
    stop::Stop,
    trail::Trail,
    upstream::{
        Arrival, Source, UpstreamFault,
        exchange::{self, Hop, Wait},
        http::{self as wire, Outbound},
        pipe::Asker,
    },
};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use mcp::{
    Era, Kind, Limits, ListKind, Message,
    bridge::upward::{self as translate, InputRequest, InputRequired, Introduction},
    sse::Event,
};
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use sync_wrapper::SyncWrapper;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::sleep,
};
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
    cause: Cause,
    /// How far the call has come, and had when this round began.
    progress: Progress,
    /// The record of the round that is under way, unless it is the first, whose record is the call's.
    trail: Option<Trail>,
    under_way: UnderWay,
    step: Step,
    /// What is said before the last word.
    farewell: VecDeque<Bytes>,
    last: Option<Result<Option<Event>, UpstreamFault>>,
}

type Sending = Pin<Box<dyn Future<Output = Result<Arrival, UpstreamFault>> + Send>>;

type Intending = Pin<Box<dyn Future<Output = Result<Leaving, UpstreamFault>> + Send>>;

enum Step {
    /// On its way.
    Sending(SyncWrapper<Sending>),
    /// The server speaks.
    Reading(Source),
    /// The client is asked.
    Asking(Asking),
    /// The log is told of this round, which will leave under these headers.
    Intending(SyncWrapper<Intending>, Box<(Message, HeaderMap)>),
    /// The answer was given.
    Over,
}

/// Waits until no bridge leads to the server any more: what its client would answer could not reach it.
async fn parted(state: &Arc<State>, server: &Server) {
    loop {
        let line = state.line();
        let now = line.snapshot.servers.get(&server.name);
        // Of an era that is being found out nothing is known, and who has no server any more is told so with the right to it.
        if now.is_some_and(|now| now.speaks(Era::Legacy) == Some(true) || is_out_of_reach(Era::Legacy, now)) {
            return;
        }
        sleep(RECHECK).await;
    }
}

/// SPEC: progress must increase (2025-11-25, basic/utilities/progress). To the client all rounds are one request; a server
/// begins each anew.
#[derive(Default)]
struct Progress {
    told: Option<f64>,
    before: Option<f64>,
}

impl Progress {
    /// A round begins.
    const fn begin(&mut self) {
        self.before = self.told;
    }

    /// Whether the client may be told: all but progress that does not go beyond what earlier rounds had reached.
    fn grows(&mut self, message: &Message) -> bool {
        if message.method() != "notifications/progress" {
            return true;
        }
        let now = message.param(&["progress"]).and_then(|now| std::str::from_utf8(now.raw).ok()?.parse::<f64>().ok());
        let Some(now) = now else { return true };
        let grows = self.before.is_none_or(|before| now > before);
        if grows {
            self.told = Some(self.told.map_or(now, |told| told.max(now)));
        }
        grows
    }
}

/// Questions of one round.
struct Asking {
    /// In the order in which they are put.
    wanted: Vec<Wanted>,
    /// What the server wants back as it is.
    state: Option<Box<str>>,
    /// How many bytes of answers still fit into a request.
    room: usize,
}

/// One question.
struct Wanted {
    /// The question, until it is put to the client.
    unsaid: Option<Bytes>,
    /// Its id.
    id: Box<str>,
    /// Under which name the server wants it.
    key: Box<str>,
    /// What was asked.
    method: Box<str>,
    answer: oneshot::Receiver<Given>,
    /// What the server is told, once the client has answered.
    response: Option<Box<[u8]>>,
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
            can_be_asked: way.call.reads_streams(),
            wait: way.wait(),
            under_way: session.upward.begin(request.id().unwrap_or_default()),
            round_id: Box::from(request.id().unwrap_or_default()),
            cause: Cause::of(way, &request, judged),
            progress: Progress::default(),
            trail: None,
            request,
            round: 0,
            step: Step::Over,
            farewell: VecDeque::new(),
            last: None,
        };
        // What the call took from the limits is spent.
        let (request, headers) = (rounds.request.clone(), rounds.headers.clone());
        rounds.step = Step::Sending(SyncWrapper::new(rounds.sending(request, headers, None)));
        rounds
    }

    /// The answer, if it comes in one piece and asks for nothing. `None`: it is a stream.
    pub(super) async fn first(&mut self) -> Result<Option<Bytes>, UpstreamFault> {
        let Step::Sending(sending) = &mut self.step else { return Ok(None) };
        let arrival = tokio::select! {
            biased;
            () = self.under_way.cancelled() => return Err(self.taken_back()),
            arrival = sending.get_mut() => arrival?,
        };
        self.arrived(arrival)
    }

    /// What comes next on the client's stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, UpstreamFault> {
        if let Some(word) = self.farewell.pop_front() {
            return Ok(Some(Event::of(word)));
        }
        if let Some(last) = self.last.take() {
            return last;
        }
        let came = self.go().await;
        if let Err(fault) = &came {
            self.withdraw();
            if let Some(trail) = self.trail.take() {
                round::broken(trail, fault.stop(&self.server.name));
            }
        }
        match self.farewell.pop_front() {
            None => came,
            Some(word) => {
                self.last = Some(came);
                Ok(Some(Event::of(word)))
            }
        }
    }

    /// Whether the server has a deadline for its first word.
    pub(crate) fn is_due(&self) -> bool {
        matches!(&self.step, Step::Reading(source) if source.is_due())
    }

    /// Takes back what the client was asked and has not answered, for the call is over.
    fn withdraw(&mut self) {
        let Step::Asking(asking) = std::mem::replace(&mut self.step, Step::Over) else { return };
        for mut wanted in asking.wanted.into_iter().filter(|wanted| wanted.response.is_none()) {
            if wanted.unsaid.is_none() && matches!(wanted.answer.try_recv(), Err(TryRecvError::Empty)) {
                self.farewell.push_back(translate::withdrawn(&wanted.id));
            }
        }
    }

    /// What takes back the questions that are open where somebody else ends the call.
    pub(crate) fn withdrawn(&mut self) -> VecDeque<Bytes> {
        self.withdraw();
        std::mem::take(&mut self.farewell)
    }

    async fn go(&mut self) -> Result<Option<Event>, UpstreamFault> {
        loop {
            let is_asking = matches!(self.step, Step::Asking(_));
            let Self { under_way, step, state, server, .. } = self;
            let came = tokio::select! {
                biased;
                () = under_way.cancelled(), if !matches!(step, Step::Over) => {
                    return Err(self.taken_back());
                }
                came = step.wait() => came?,
                () = parted(state, server), if is_asking => return Err(round::parted()),
            };
            match came {
                Came::Nothing if matches!(self.step, Step::Over) => return Ok(None),
                Came::Nothing => return Err(UpstreamFault::Cut("the stream ended without a response".to_owned())),
                Came::Comment => {}
                Came::Question(text) => return Ok(Some(Event::of(text))),
                Came::Text(text) => {
                    if let Some(text) = self.read(text)? {
                        return Ok(Some(Event::of(text)));
                    }
                }
                Came::Arrival(arrival) => {
                    if let Some(trail) = &mut self.trail {
                        round::arrived(trail, &arrival);
                    }
                    if let Some(text) = self.arrived(*arrival)? {
                        return Ok(Some(Event::of(text)));
                    }
                }
                Came::Answers => self.go_on()?,
                Came::Intended(leaving) => self.leave(*leaving),
            }
        }
    }

    fn taken_back(&mut self) -> UpstreamFault {
        self.withdraw();
        // Letting go of the stream is what cancels a modern request.
        self.step = Step::Over;
        UpstreamFault::Stopped(Stop::taken_back())
    }

    fn arrived(&mut self, arrival: Arrival) -> Result<Option<Bytes>, UpstreamFault> {
        match arrival {
            Arrival::Whole { status, body, .. } => {
                // Nothing follows it; where it asks, the next round does.
                self.step = Step::Over;
                self.read(if status.is_success() { body } else { self.failed(status, body)? })
            }
            Arrival::Stream { source, .. } => {
                self.step = Step::Reading(source);
                Ok(None)
            }
            Arrival::Bare { status, .. } if !status.is_success() => Err(UpstreamFault::Status(status)),
            Arrival::Bare { status, .. } => Err(UpstreamFault::Protocol(format!("HTTP {status} without a message"))),
        }
    }

    /// What an HTTP error says. It is about this request, whatever it names: a server that has not read that writes an id
    /// of its own.
    fn failed(&self, status: StatusCode, body: Bytes) -> Result<Bytes, UpstreamFault> {
        let said = exchange::one(body, &self.limits).ok().filter(|said| said.error().is_some());
        let said = said.ok_or(UpstreamFault::Status(status))?;
        Ok(said.under_id(&self.round_id))
    }

    /// One message of the server, as the client is to read it. `None`: nothing yet.
    fn read(&mut self, text: Bytes) -> Result<Option<Bytes>, UpstreamFault> {
        let message = exchange::one(text, &self.limits)?;
        match message.kind() {
            Kind::Notification if !self.progress.grows(&message) => Ok(None),
            Kind::Notification => Ok(translate::notification(&message)),
            Kind::Request => Err(UpstreamFault::Protocol("a modern server sends no requests".to_owned())),
            Kind::Response => {
                // An error that names no request is one of this exchange, which carries no other.
                let named = message.id().filter(|id| *id != "null").map(mcp::id_key);
                if named.map_or(message.error().is_none(), |named| named != mcp::id_key(&self.round_id)) {
                    return Err(UpstreamFault::Protocol("the server answered another request".to_owned()));
                }
                if let Some(trail) = self.trail.take() {
                    round::answered(trail, &message);
                }
                match InputRequired::of(&message) {
                    Ok(None) => {}
                    Ok(Some(wanted)) => return self.ask(&message, &wanted).map(|()| None),
                    Err(fault) => {
                        self.leave_unasked(&message, Some(&fault.to_string()));
                        return Err(fault.into());
                    }
                }
                self.step = Step::Over;
                let message = self.with_what_can_be_called(self.under_own_id(message)?)?;
                Ok(Some(translate::answer(&message, self.request.method(), self.session.revision())?))
            }
        }
    }

    /// Later rounds have ids of their own, and errors may have none; the client knows the first.
    fn under_own_id(&self, message: Message) -> Result<Message, UpstreamFault> {
        match self.request.id() {
            Some(id) if message.id() != Some(id) => exchange::one(message.under_id(id), &self.limits),
            Some(_) | None => Ok(message),
        }
    }

    /// A list of tools without those that the gateway could not call as their server wants.
    fn with_what_can_be_called(&self, message: Message) -> Result<Message, UpstreamFault> {
        let kind = ListKind::Tools;
        if self.request.method() != kind.method() {
            return Ok(message);
        }
        let narrowed = mcp::list::narrow(&message, kind, |entry| lists_as_client(&self.server, kind, entry));
        match narrowed {
            Ok(narrowed) if narrowed.len() < message.bytes().len() => exchange::one(narrowed, &self.limits),
            // What is no list is released as any other answer.
            Ok(_) | Err(_) => Ok(message),
        }
    }

    fn ask(&mut self, answer: &Message, wanted: &InputRequired<'_>) -> Result<(), UpstreamFault> {
        self.round += 1;
        let why = if !self.can_be_asked {
            let why = "it asks the client something, and the client's `Accept` has no `text/event-stream`";
            Some(why.to_owned())
        } else if self.round > ROUNDS {
            Some(format!("the server asks more than {ROUNDS} times in one call"))
        } else {
            None
        };
        if let Some(why) = why {
            self.leave_unasked(answer, Some(&why));
            return Err(UpstreamFault::Bridge(why));
        }
        let asking = self.asking(wanted).inspect_err(|_| self.leave_unasked(answer, None))?;
        self.step = Step::Asking(asking);
        Ok(())
    }

    /// Writes down what the client is not asked, for a reason that concerns all of it or for one of each question's own.
    fn leave_unasked(&self, answer: &Message, why: Option<&str>) {
        let asked = InputRequest::of_message(answer, Era::Modern, false).unwrap_or_default();
        self.cause.unasked(&self.state, &self.session, &self.server, &asked, |asked| match why {
            Some(why) => Some(why.to_owned()),
            None => translate::question("0", asked, &self.introduction).err().map(|fault| fault.to_string()),
        });
    }

    fn asking(&self, wanted: &InputRequired<'_>) -> Result<Asking, UpstreamFault> {
        let state = wanted.state.map(Box::from);
        let mut asking = Asking { wanted: Vec::new(), state, room: self.limits.body };
        for request in &wanted.requests {
            let id = format!("\"durward-{}\"", self.session.question_id());
            let unsaid = Some(translate::question(&id, request, &self.introduction)?);
            let (key, method) = (Box::from(&*request.key), Box::from(&*request.method));
            let answer = self.session.upward.wait(&self.server.name, &id);
            asking.wanted.push(Wanted { unsaid, id: id.into_boxed_str(), key, method, answer, response: None });
        }
        Ok(asking)
    }

    /// The next round, if it may still be sent.
    fn go_on(&mut self) -> Result<(), UpstreamFault> {
        let Step::Asking(asking) = &mut self.step else { return Ok(()) };
        let id = format!("\"durward-round-{}-{}\"", self.round, self.session.question_id());
        let answers: Vec<(&str, &[u8])> = asking
            .wanted
            .iter()
            .filter_map(|wanted| wanted.response.as_ref().map(|response| (&*wanted.key, &**response)))
            .collect();
        let retry = translate::retry(&self.request, &id, &answers, asking.state.as_deref())?;
        let retry = exchange::one(retry, &self.limits)?;
        let (server, round) = self.cause.decide(&self.state, &self.session, &self.server, &retry)?;
        self.server = server;
        self.round_id = id.into_boxed_str();
        let headers = self.cause.headers(&self.headers, &round);
        self.step = Step::Intending(SyncWrapper::new(Box::pin(round.intend())), Box::new((retry, headers)));
        Ok(())
    }

    /// The log knows of the next round.
    fn leave(&mut self, leaving: Leaving) {
        let Step::Intending(_, next) = &self.step else { return };
        let (retry, headers) = (**next).clone();
        let (trail, slot) = leaving.leave();
        self.trail = Some(trail);
        self.progress.begin();
        self.step = Step::Sending(SyncWrapper::new(self.sending(retry, headers, Some(slot))));
    }

    /// One request on its way, with the credential of this moment.
    fn sending(&self, request: Message, headers: HeaderMap, slot: Option<Slot>) -> Sending {
        let (state, server) = (Arc::clone(&self.state), Arc::clone(&self.server));
        let (limits, principal, wait) = (self.limits, self.principal.clone(), self.wait);
        Box::pin(async move {
            let injected =
                inject::credentials(&state, &server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
            // It leaves now. A round holds no place of its own.
            drop(slot.map(Slot::spend));
            match &server.transport {
                Transport::Http(_) => {
                    let outbound = Outbound::new(Method::POST, headers, request.bytes().clone());
                    Ok(wire::send(&state, &server, &injected, outbound, limits.body).await?.0)
                }
                Transport::Stdio(program) => {
                    let hop = Hop { state: &state, server: &server, injected: &injected, limits };
                    let pipe = state.modern_pipe(&hop, &principal, program.shared).await?;
                    let arrival = exchange::over_pipe(&pipe, &request, Asker::Gateway, wait).await;
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
    Intended(Box<Leaving>),
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
            Self::Asking(asking) => poll_fn(|context| asking.poll(context)).await,
            Self::Intending(intending, ..) => {
                intending.get_mut().await.map(|leaving| Came::Intended(Box::new(leaving)))
            }
            Self::Over => Ok(Came::Nothing),
        }
    }
}

impl Asking {
    /// What comes first: a no that ends the call, whichever question it is to; the next question; the last of the answers.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Came, UpstreamFault>> {
        for wanted in self.wanted.iter_mut().filter(|wanted| wanted.response.is_none()) {
            let Poll::Ready(answer) = Pin::new(&mut wanted.answer).poll(context) else { continue };
            let given = answer.map_err(|_| UpstreamFault::Bridge("a question was given up".to_owned()))?;
            let response: Box<[u8]> = match given {
                Ok(answer) => {
                    let response = translate::input_response(&answer, &wanted.method);
                    Box::from(&*response.map_err(round::unanswered)?)
                }
                // What can be said without an answer is said, and the server decides.
                Err(fault) => Box::from(translate::no_response(&wanted.method).ok_or(fault)?),
            };
            self.room = self.room.checked_sub(response.len()).ok_or(UpstreamFault::TooBig(response.len()))?;
            wanted.response = Some(response);
        }
        if let Some(text) = self.wanted.iter_mut().find_map(|wanted| wanted.unsaid.take()) {
            return Poll::Ready(Ok(Came::Question(text)));
        }
        if self.wanted.iter().all(|wanted| wanted.response.is_some()) {
            return Poll::Ready(Ok(Came::Answers));
        }
        Poll::Pending
    }
}
