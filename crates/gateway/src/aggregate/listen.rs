//! What servers say unasked: to a legacy session, as one stream, and of their lists, to whoever listens.

use super::{answer::Hand, stream::stream_of};
use crate::{
    authenticate::Caller,
    bridge,
    call::Route,
    catalog::{Changes, fits, view::Sums},
    forward, inject,
    manner::{self, Manner},
    own::{self, Own},
    pipeline::Line,
    release::list_action,
    server::Server,
    session::{Ahead, Leg, Session},
    state::State,
    stop::{Stage, Stop},
    upstream::{
        Arrival, Source, UpstreamFault,
        exchange::{self, Hop},
        resume::Resumed,
    },
};
use identity::Principal;
use mcp::{Era, Kind, ListKind, Message, error};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};
use vocab::ServerName;

/// How long to wait before a stream that broke off is opened again.
pub(super) const AGAIN: Duration = Duration::from_secs(2);
/// How often it is looked whether a stream still has its reason: it may say nothing for long.
const LOOK: Duration = Duration::from_millis(500);
/// Where a stream that is let go says nothing for so long, all that its server said before was handed on.
pub(super) const QUIET: Duration = Duration::from_millis(100);
/// How long that may take.
pub(super) const LEAVING: Duration = Duration::from_secs(2);

/// The GET stream of an aggregate session: one stream from every leg.
pub(crate) fn legacy(hand: &Hand<'_>) -> Result<Arrival, Stop> {
    let Some(session) = &hand.many.session else {
        return Err(Stop::failed(Stage::Forward, "session", error::INTERNAL, "no session to listen in"));
    };
    let arrival = manner::listen(session, hand.call);
    for server in &hand.many.members {
        manner::begin(&hand.line.state, server, session);
    }
    Ok(arrival)
}

/// On whose account a stream is opened first. Opened again, it always is on the gateway's own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Account {
    /// Of a client's call.
    Call,
    /// The gateway's own.
    Own,
}

/// Follows the stream of one leg in the course of a call, unless somebody does already.
pub(crate) fn begin(state: &Arc<State>, server: &ServerName, session: &Arc<Session>) {
    tokio::spawn(follow(Arc::clone(state), server.clone(), Arc::clone(session), Account::Call));
}

/// The same where no client asks for it.
pub(crate) fn go_on(state: &Arc<State>, server: &ServerName, session: &Arc<Session>) {
    tokio::spawn(follow(Arc::clone(state), server.clone(), Arc::clone(session), Account::Own));
}

/// Follows the stream of one leg until the session ends or nobody listens. However often it is opened again, that is one
/// call of the gateway's own.
async fn follow(state: Arc<State>, name: ServerName, session: Arc<Session>, account: Account) {
    let (mut over, mut own) = (session.end(), None);
    let end = tokio::select! {
        end = follow_on(&state, &name, &session, account, &mut own) => end,
        _ = over.wait_for(|over| *over) => Ok(()),
    };
    if let Some(own) = own {
        own.close(end);
    }
}

async fn follow_on(
    state: &Arc<State>,
    name: &ServerName,
    session: &Arc<Session>,
    mut account: Account,
    own: &mut Option<Own>,
) -> Result<(), Stop> {
    // A server that forgets each session at once has no listening stream.
    let (mut was_lost, mut past) = (false, Past::default());
    let mut end = Ok(());
    while session.is_heard() {
        let Some(following) = session.follow(name) else { return end };
        let now = state.line();
        let Some((caller, server)) = now.may_hear(&session.holder(), name) else {
            // Should it be heard again, it is reached over a new leg, whose stream is followed anew.
            drop(session.drop_leg(name));
            return Err(own::withdrawn());
        };
        if Manner::of(server) != Manner::Stream {
            // Before somebody else may follow it, nobody does.
            drop(following);
            manner::go_on(state, server, session);
            return end;
        }
        if bridge::is_out_of_reach(Era::Legacy, server) {
            // It is heard again when a reload lets a bridge lead there.
            let barred = || {
                let now = state.line();
                now.snapshot.servers.get(name).is_some_and(|now| bridge::is_out_of_reach(Era::Legacy, now))
            };
            until_not(|| session.is_heard() && barred()).await;
            continue;
        }
        if session.has_renounced_stream(server) {
            return end;
        }
        if account == Account::Own {
            own.get_or_insert_with(|| Own::begin(&now, session, server));
        }
        account = Account::Own;
        let heard = || session.is_heard() && is_streamed(&state.line(), &session.holder(), server);
        let followed = follow_once(&now, &caller, server, session, own.as_mut(), &mut past, heard).await;
        end = followed.as_ref().map(drop).map_err(|fault| fault.stop(name));
        if matches!(followed, Ok(Followed::Over) | Err(_)) {
            past.lost_at.get_or_insert_with(|| state.clock.ticks());
        }
        match followed {
            // Sessions do not get lost that fast: those that are opened from now on are not asked for it.
            Err(UpstreamFault::Lost) if was_lost => {
                session.renounce_stream(server);
                return end;
            }
            // After a lost session another is opened: nobody else may ask for one for long.
            Err(UpstreamFault::Lost) => was_lost = true,
            Err(UpstreamFault::Stopped(stop)) if stop.stage == Stage::Authorize => return end,
            Ok(Followed::Over) => was_lost = false,
            Ok(Followed::Absent) => {
                was_lost = false;
                // Whoever moves the server from here on finds that nobody follows it; who did before left it to this.
                drop(following);
                if heard() {
                    if past.had_stream {
                        // It had one: it may be another server by now.
                        state.look_at_misfit(server, Era::Legacy);
                    }
                    return end;
                }
                continue;
            }
            Ok(Followed::Elsewhere) => {
                was_lost = false;
                continue;
            }
            Err(fault) => {
                was_lost = false;
                tracing::debug!(server = %server.name, %fault, "a listening stream broke off");
                // It may have no such stream, and speak by itself.
                manner::recognise(&now, server, session).await;
                if Manner::of(server) != Manner::Stream {
                    continue;
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
    end
}

/// Whether whoever listens may hear of this very server.
pub(crate) fn is_current(line: &Line, holder: &Principal, server: &Server) -> bool {
    line.may_hear(holder, &server.name).is_some_and(|(_, now)| now.fingerprint == server.fingerprint)
}

/// The same, where it is heard on its listening stream.
fn is_streamed(line: &Line, holder: &Principal, server: &Server) -> bool {
    let now = line.snapshot.servers.get(&server.name);
    now.is_some_and(|now| Manner::of(now) == Manner::Stream) && is_current(line, holder, server)
}

/// Waits until something is no longer so.
pub(crate) async fn until_not(so: impl Fn() -> bool) {
    let mut look = tokio::time::interval(LOOK);
    while so() {
        look.tick().await;
    }
}

/// The streams of a leg before the one that is followed.
#[derive(Default)]
struct Past {
    /// There was one.
    had_stream: bool,
    /// When it was lost, in ticks, if none was opened since.
    lost_at: Option<u64>,
}

/// How it went with one stream.
enum Followed {
    /// It came to its end.
    Over,
    /// It is let go: the session has another with this server by now, the server is another, or nobody hears it.
    Elsewhere,
    /// The server has no such stream.
    Absent,
}

async fn follow_once(
    line: &Line,
    caller: &Caller,
    server: &Arc<Server>,
    session: &Arc<Session>,
    own: Option<&mut Own>,
    past: &mut Past,
    heard: impl Fn() -> bool,
) -> Result<Followed, UpstreamFault> {
    let injected = match own {
        Some(own) => own.inject(line, caller, server).map_err(UpstreamFault::Stopped)?,
        // In the course of a call that was permitted.
        None => inject::credentials(&line.state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?,
    };
    let hop = Hop { state: &line.state, server, injected: &injected, limits: line.snapshot.answer_limits() };
    let opened = tokio::select! {
        opened = open(&hop, session) => opened?,
        () = until_not(&heard) => return Ok(Followed::Elsewhere),
    };
    let Some((leg, source)) = opened else { return Ok(Followed::Absent) };
    past.had_stream = true;
    if let Some(since) = past.lost_at.take() {
        line.look_for_missed(server, since);
    }
    // The rest of a stream may be waited for while the server already speaks on that of another session.
    let heard = || heard() && session.has_leg(&server.name, &leg);
    tell_all(&hop, &leg, session, source, heard).await
}

/// The stream of a leg, if its server has one.
async fn open(hop: &Hop<'_>, session: &Arc<Session>) -> Result<Option<(Arc<Leg>, Source)>, UpstreamFault> {
    let leg: Arc<Leg> = match hop.leg_of(session) {
        Some(leg) => leg,
        None => forward::open_leg(hop, session).await?,
    };
    let stream = match session.take_stream(&hop.server.name) {
        Some(Ahead::Open(stream)) => Some(*stream),
        Some(Ahead::Absent) => None,
        None => match stream_of(hop, &leg).await {
            Err(UpstreamFault::Lost) => {
                session.lose_leg(&hop.server.name, &leg);
                return Err(UpstreamFault::Lost);
            }
            stream => stream?,
        },
    };
    Ok(stream.map(|stream| {
        let stream = Resumed::around(&Arc::downgrade(hop.state), hop.server, &leg, stream);
        (leg, stream)
    }))
}

/// Passes on what a server says to the end of its stream; where that is let go, to the end of what was said before.
async fn tell_all(
    hop: &Hop<'_>,
    leg: &Leg,
    session: &Arc<Session>,
    mut source: Source,
    heard: impl Fn() -> bool,
) -> Result<Followed, UpstreamFault> {
    let name = &hop.server.name;
    let mut let_go = pin!(until_not(heard));
    let mut until: Option<Instant> = None;
    while until.is_none_or(|until| Instant::now() < until) {
        let said = tokio::select! {
            biased;
            () = &mut let_go, if until.is_none() => {
                until = Some(Instant::now() + LEAVING);
                continue;
            }
            said = source.next() => said?,
            () = tokio::time::sleep(QUIET), if until.is_some() => break,
        };
        let Some((_, event)) = said else { return Ok(Followed::Over) };
        let Some(data) = event.message() else { continue };
        let line = hop.state.line();
        let may_hear = line.may_hear(&session.holder(), name).is_some();
        if may_hear && session.tell(name, Some(leg.origin), data) {
            continue;
        }
        let Some(message) = exchange::unasked(data, &hop.limits, hop.server) else { continue };
        // SECURITY: one that was taken out or moved is told nothing more.
        let is_there = line.snapshot.servers.get(name).is_some_and(|now| now.fingerprint == hop.server.fingerprint);
        if is_there && message.kind() == Kind::Request {
            let mut declining = pin!(hop.decline(Some(leg), &message, "nobody is listening who could answer"));
            if until.is_none() {
                tokio::select! {
                    declined = &mut declining => return declined.map(|()| Followed::Over),
                    () = &mut let_go => {}
                }
            }
            // A stream that is let go waits for its server no longer than for what that says.
            let _late = timeout_at(until.unwrap_or_else(|| Instant::now() + LEAVING), declining).await;
        }
        return Ok(Followed::Over);
    }
    Ok(Followed::Elsewhere)
}

/// A server's lists are others than they were.
#[derive(Clone)]
pub(crate) struct News {
    pub(crate) server: ServerName,
    /// Lists were without it until now.
    pub(crate) back: bool,
    /// It does not say so itself: on its own door, too, the gateway does.
    pub(crate) unsaid: bool,
}

/// Tells whoever listens that the lists of a server changed. Whom it concerns, and whether, each stream finds out.
pub(crate) fn announce(state: &State, news: News, changes: Changes) {
    if changes.any() {
        let _ = state.news.send(news);
    }
}

/// How long a server is asked what it shows a session.
const SHOWN: Duration = Duration::from_secs(15);

/// As whom a listener asks a server what that shows it.
#[derive(Clone)]
pub(crate) enum Asker {
    /// In a session of its own.
    Session(Arc<Session>),
    /// Over a bridge, as this request introduces it.
    Request(Message),
}

impl Asker {
    async fn pages(&self, hop: &Hop<'_>, caller: &Caller, kind: ListKind) -> Result<Vec<Message>, UpstreamFault> {
        match self {
            Self::Session(session) => {
                let leg = hop.leg_of(session).ok_or(UpstreamFault::Lost)?;
                hop.pages(Some(&leg), kind, Era::Legacy, None).await
            }
            Self::Request(request) => bridge::downward::pages(hop, caller, request, kind).await,
        }
    }
}

/// What a legacy server shows a caller through a door, of the lists that it says changed.
pub(crate) async fn shown(
    line: &Line,
    caller: &Caller,
    server: &Arc<Server>,
    (asker, route): (&Asker, &Route),
    changes: Changes,
) -> Result<Sums, UpstreamFault> {
    let injected = inject::credentials(&line.state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
    let hop = Hop { state: &line.state, server, injected: &injected, limits: line.snapshot.answer_limits() };
    let _in_flight = server.state.enter(server.calls_in_flight).ok_or(UpstreamFault::Busy)?;
    let reading = async {
        let mut sums = Sums::default();
        for kind in ListKind::ALL {
            if !changes.has(kind) {
                continue;
            }
            for page in asker.pages(&hop, caller, kind).await? {
                let entries =
                    mcp::list::entries(&page, kind).map_err(|fault| UpstreamFault::Protocol(fault.to_string()))?;
                for entry in entries {
                    if *route == Route::All && !fits(kind, &entry, Era::Legacy) {
                        continue;
                    }
                    let resource = server.resource(&entry.name);
                    if line.snapshot.policies.visible(&caller.subject, list_action(kind), &resource) {
                        sums.of(kind).add(&vocab::Digest::of(entry.raw));
                    }
                }
            }
        }
        Ok(sums)
    };
    tokio::time::timeout(SHOWN, reading).await.map_err(|_| UpstreamFault::Timeout(SHOWN))?
}
