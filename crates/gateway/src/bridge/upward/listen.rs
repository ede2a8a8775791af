//! The listening stream of a legacy session, carried by one `subscriptions/listen` on a modern server. It is opened
//! anew when the set of followed resources changes; the one before speaks until the new one is acknowledged.

use super::{
    followed::Followed,
    rights::{Open, Rights},
    side::Untold,
};
use crate::{
    aggregate::listen::until_not,
    bridge::Crossing,
    call::header,
    inject,
    manner::{self, Manner},
    pipeline::Line,
    server::{Server, Transport},
    session::Session,
    state::State,
    upstream::{
        Arrival, Source, UpstreamFault,
        exchange::{self, Hop, Wait},
        http::{self as wire, Outbound},
        pipe::Asker,
    },
};
use http::{HeaderValue, Method, StatusCode};
use mcp::{
    Era, Kind, Message, Revision,
    bridge::{Filter, upward as translate},
};
use std::{
    borrow::Cow, collections::HashSet, convert::Infallible, future::Future, pin::Pin, sync::Arc, time::Duration,
};
use tokio::sync::watch;
use vocab::ServerName;

/// How long to wait before a stream that broke off is opened again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often it is looked whether somebody listens, may, and to this server: a stream may say nothing for long.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is looked whether somebody follows, while a subscription waits for a word of the server.
const ANEW: Duration = Duration::from_millis(50);

/// Follows a server for a session, unless somebody does already.
pub(crate) fn begin(state: &Arc<State>, server: &ServerName, session: &Arc<Session>) {
    tokio::spawn(follow(Arc::clone(state), server.clone(), Arc::clone(session)));
}

/// Sees to it that somebody follows a server: whoever does may find just now that it has no such stream, and stop without
/// a word to those who came a moment later.
pub(super) async fn keep(state: &Arc<State>, session: &Arc<Session>, name: &ServerName) -> Infallible {
    loop {
        if !session.is_followed(name) {
            begin(state, name, session);
        }
        tokio::time::sleep(ANEW).await;
    }
}

/// Follows a server until the session ends or nobody listens.
async fn follow(state: Arc<State>, name: ServerName, session: Arc<Session>) {
    let mut end = session.end();
    // Looked at once more when it is followed no longer: who came to listen before that left it to us.
    while session.is_heard() {
        let Some(following) = session.follow(&name) else { return };
        let stopped = tokio::select! {
            stopped = follow_on(&state, &name, &session) => stopped,
            _ = end.wait_for(|ended| *ended) => return,
        };
        // Before somebody else may follow it, nobody does.
        drop(following);
        match stopped {
            Stopped::Unheard => {}
            Stopped::ForGood => return,
            Stopped::Other(server) => return manner::go_on(&state, &server, &session),
        }
    }
}

/// Why a server is followed no longer.
enum Stopped {
    /// Nobody listens.
    Unheard,
    /// It may not be followed, or has nothing to say.
    ForGood,
    /// It is heard in another manner by now.
    Other(Arc<Server>),
}

/// A stream that is read to its end.
type Listening = Pin<Box<dyn Future<Output = Result<Ending, UpstreamFault>> + Send>>;

/// How a stream ended.
enum Ending {
    /// The server said all that it had to say.
    Over,
    /// It answers with this error.
    Refused(i64),
    /// It has no such stream.
    Absent,
}

async fn follow_on(state: &Arc<State>, name: &ServerName, session: &Arc<Session>) -> Stopped {
    let mut followed = session.upward.followed();
    let rights = Arc::new(Rights::on(name));
    // What was acknowledged speaks on until what replaces it is.
    let mut before: Option<Listening> = None;
    // When a stream was lost, until the next is acknowledged.
    let mut lost_at: Option<u64> = None;
    'following: while session.is_heard() {
        let now = state.line();
        let Some((_, server)) = now.may_hear(&session.holder(), name) else { return Stopped::ForGood };
        if Manner::of(server) != Manner::Subscription {
            return Stopped::Other(Arc::clone(server));
        }
        // What changes from here on is looked at again.
        followed.mark_unchanged();
        let open = rights.now(&now, session);
        let version = open.version;
        let (acknowledge, mut acknowledged) = watch::channel(false);
        let wish = Wish {
            state: Arc::clone(state),
            server: Arc::clone(server),
            session: Arc::clone(session),
            rights: Arc::clone(&rights),
            open: Arc::clone(&open),
        };
        let mut listening: Listening = Box::pin(wish.listen(acknowledge));
        let mut is_acknowledged = false;
        let heard = loop {
            tokio::select! {
                heard = &mut listening => break Some(heard),
                said = acknowledged.wait_for(|said| *said), if !is_acknowledged => {
                    if said.is_ok() {
                        before = None;
                        if let Some(since) = lost_at.take() {
                            now.look_for_missed(server, since);
                        }
                    }
                    is_acknowledged = true;
                }
                () = over(&mut before), if before.is_some() => before = None,
                changed = followed.changed() => {
                    if changed.is_err() {
                        return Stopped::ForGood;
                    }
                    // By the rights of this moment: a new one may be what lets a resource be followed.
                    if rights.now(&state.line(), session).uris != open.uris {
                        break None;
                    }
                }
                other = until_other(state, session, server, &rights, &open) => match other {
                    Other::Rights => break None,
                    Other::Over => {
                        before = None;
                        continue 'following;
                    }
                }
            }
        };
        if matches!(heard, Some(Ok(Ending::Over) | Err(_))) {
            lost_at.get_or_insert_with(|| state.clock.ticks());
        }
        match heard {
            None if *acknowledged.borrow() => before = Some(listening),
            None => {}
            Some(Ok(Ending::Over)) => {
                if !*acknowledged.borrow() {
                    let fault = UpstreamFault::Cut("the listening stream ended without a word".to_owned());
                    session.upward.hear(name, version, Err(Untold::Fault(fault)));
                }
                wait(&mut before, &mut followed).await;
            }
            Some(Ok(Ending::Refused(code))) => {
                let why = format!("it answers `subscriptions/listen` with error {code}");
                session.upward.hear(name, version, Err(Untold::Refused(why)));
                wait(&mut before, &mut followed).await;
            }
            Some(Ok(Ending::Absent)) => {
                let why = "it has no `subscriptions/listen`".to_owned();
                session.upward.hear(name, version, Err(Untold::Refused(why)));
                return Stopped::ForGood;
            }
            Some(Err(fault)) => {
                tracing::debug!(server = %name, %fault, "a stream broke off");
                session.upward.hear(name, version, Err(Untold::Fault(fault)));
                wait(&mut before, &mut followed).await;
            }
        }
    }
    Stopped::Unheard
}

/// Leaves a server alone for a moment, unless something else is to be asked of it.
async fn wait(before: &mut Option<Listening>, followed: &mut watch::Receiver<Followed>) {
    let moment = tokio::time::sleep(AGAIN);
    tokio::pin!(moment);
    loop {
        tokio::select! {
            () = &mut moment => return,
            _ = followed.changed() => return,
            () = over(before), if before.is_some() => *before = None,
        }
    }
}

/// Waits for the end of a stream.
async fn over(listening: &mut Option<Listening>) {
    if let Some(listening) = listening {
        // Why it ended is told where the one after it ends.
        let _ = listening.await;
    }
}

/// Why a stream does not go on as it is.
enum Other {
    /// It has lost its reason.
    Over,
    /// The caller may follow more by now, or less.
    Rights,
}

/// Waits until a stream is no longer what it should be.
async fn until_other(
    state: &Arc<State>,
    session: &Arc<Session>,
    server: &Server,
    rights: &Rights,
    open: &Open,
) -> Other {
    let mut look = tokio::time::interval(LOOK);
    loop {
        let line = state.line();
        if !session.is_heard() || !is_current(&line, session, server) {
            return Other::Over;
        }
        if rights.now(&line, session).uris != open.uris {
            return Other::Rights;
        }
        look.tick().await;
    }
}

/// Waits until a resource is followed no more, or may not be.
pub(super) async fn until_given_up(state: &Arc<State>, session: &Session, name: &ServerName, uri: &str) {
    until_not(|| {
        let (line, asked) = (state.line(), session.upward.asked(name, uri));
        let now = line.may_hear(&session.holder(), name);
        now.zip(asked).is_some_and(|((caller, server), asked)| asked.judge(&line, &caller, server, uri).is_ok())
    })
    .await;
}

/// Whether the session may hear of this very server, over a bridge.
fn is_current(line: &Line, session: &Session, server: &Server) -> bool {
    let now = line.may_hear(&session.holder(), &server.name).map(|(_, now)| now);
    now.is_some_and(|now| {
        now.fingerprint == server.fingerprint && Crossing::between(Era::Legacy, now) == Crossing::Upward
    })
}

/// What is to be heard of a server, and for whom.
struct Wish {
    state: Arc<State>,
    server: Arc<Server>,
    session: Arc<Session>,
    rights: Arc<Rights>,
    /// Of which resources it is asked to tell. What the caller may not follow is not asked for.
    open: Arc<Open>,
}

impl Wish {
    /// One stream, to its end.
    async fn listen(self, acknowledge: watch::Sender<bool>) -> Result<Ending, UpstreamFault> {
        let Self { state, server, session, open, .. } = &self;
        let injected = inject::credentials(state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
        let limits = state.line().snapshot.answer_limits();
        let id = format!("\"durward-listen-{}\"", session.question_id());
        let uris = open.uris.keys().map(ToString::to_string).collect();
        let wanted = Filter { tools: true, prompts: true, resources: true, uris };
        let line = state.line();
        let Some((caller, now)) = line.may_hear(&session.holder(), &server.name) else { return Ok(Ending::Over) };
        let introduction = super::introduction(&line, &caller, now, session)?;
        let request = translate::listen(&id, &introduction, &wanted);
        let request = exchange::one(request, &limits)?;
        let arrival = match &server.transport {
            Transport::Http(_) => {
                let mut headers = wire::own();
                headers.insert(header::VERSION.clone(), HeaderValue::from_static(Revision::V2026_07_28.as_str()));
                headers.insert(header::METHOD.clone(), HeaderValue::from_static("subscriptions/listen"));
                let outbound = Outbound::new(Method::POST, headers, request.bytes().clone());
                wire::send(state, server, &injected, outbound, limits.body).await?.0
            }
            Transport::Stdio(program) => {
                let hop = Hop { state, server, injected: &injected, limits };
                let pipe = state.modern_pipe(&hop, &session.owner, program.shared).await?;
                let wait = Wait::Stream { patience: Duration::ZERO, deadline: None };
                exchange::over_pipe(&pipe, &request, Asker::Gateway, wait).await?
            }
        };
        match arrival {
            Arrival::Stream { mut source, .. } => self.told(&mut source, &acknowledge).await,
            Arrival::Bare { status, .. } | Arrival::Whole { status, .. }
                if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) =>
            {
                Ok(Ending::Absent)
            }
            Arrival::Whole { body, .. } => Ok(match self.heard(&exchange::one(body, &limits)?, &acknowledge) {
                Heard::More => Ending::Over,
                Heard::Enough(ending) => ending,
            }),
            Arrival::Bare { status, .. } => {
                Err(UpstreamFault::Protocol(format!("HTTP {status} to `subscriptions/listen`")))
            }
        }
    }

    /// Passes on what is said, to the end of the stream.
    async fn told(&self, source: &mut Source, acknowledge: &watch::Sender<bool>) -> Result<Ending, UpstreamFault> {
        while let Some((_, event)) = Box::pin(source.next()).await? {
            let Some(text) = event.message() else { continue };
            let limits = self.state.line().snapshot.answer_limits();
            let Some(message) = exchange::unasked(text, &limits, &self.server) else { continue };
            match self.heard(&message, acknowledge) {
                Heard::More => {}
                Heard::Enough(ending) => return Ok(ending),
            }
        }
        Ok(Ending::Over)
    }

    /// One message.
    fn heard(&self, message: &Message, acknowledge: &watch::Sender<bool>) -> Heard {
        let Self { state, server, session, open, .. } = self;
        match (message.kind(), message.error_code()) {
            (Kind::Notification, _) => {}
            (_, Some(mcp::error::METHOD_NOT_FOUND)) => return Heard::Enough(Ending::Absent),
            (_, Some(code)) => return Heard::Enough(Ending::Refused(code)),
            (_, None) => return Heard::More,
        }
        if message.method() == "notifications/subscriptions/acknowledged" {
            let answers = match Filter::of(message) {
                Ok(honoured) => Ok(self.answers(honoured.uris)),
                Err(fault) => Err(Untold::Fault(fault.into())),
            };
            session.upward.hear(&server.name, open.version, answers);
            acknowledge.send_replace(true);
        }
        if !self.may_tell(message) {
            return Heard::More;
        }
        let Some(text) = translate::notification(message) else { return Heard::More };
        let passes = is_current(&state.line(), session, server) && session.tell(&server.name, None, &text);
        if passes { Heard::More } else { Heard::Enough(Ending::Over) }
    }
}

impl Wish {
    /// Which of those that were asked for the server will tell of.
    fn answers(&self, honoured: Vec<String>) -> Vec<(String, bool)> {
        let honoured: HashSet<String> = honoured.into_iter().collect();
        self.open.uris.keys().map(|uri| (uri.to_string(), honoured.contains(&**uri))).collect()
    }

    /// Whether the caller may still hear of it. A stream speaks on until the one that is asked for less is acknowledged.
    fn may_tell(&self, message: &Message) -> bool {
        let Self { state, session, rights, open, .. } = self;
        if message.method() != "notifications/resources/updated" {
            return true;
        }
        let told = message.param(&["uri"]).and_then(|uri| uri.text().map(Cow::into_owned)).unwrap_or_default();
        rights.now(&state.line(), session).tells(&told, open)
    }
}

/// What a message means for its stream.
enum Heard {
    More,
    /// It is the last.
    Enough(Ending),
}
