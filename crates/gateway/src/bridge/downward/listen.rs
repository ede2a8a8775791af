//! `subscriptions/listen` of a modern client on a legacy server: one stream of the leg, however many listen, and resources
//! that are followed for as long as somebody wants to hear of them.
//!
//! What a server asks on that stream belongs to the one call under way, which reads it, too ([`for_call`]). Where there is
//! more than one it is held until there is not. Where there is none, or the server gives no session ids, nobody is asked, and
//! the server is told so.

use super::{
    Link,
    audience::{Audience, News, Stream},
};
use crate::{
    aggregate::{self, stream::is_known},
    authenticate::Caller,
    bridge::malformed,
    inject,
    pipeline::Line,
    server::Server,
    session::{Leg, Way},
    state::State,
    upstream::{
        Source, UpstreamFault,
        exchange::{self, Hop},
        pipe::UNCLEAR,
        resume::Resumed,
        turn::Kept,
    },
};
use bytes::Bytes;
use identity::Principal;
use mcp::{
    Era, Message,
    bridge::{self, Filter, downward as translate},
};
use std::{
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// How long to wait before a stream that broke off is opened again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long a call, or a listener's first word, waits for the stream to be open.
const OVERTAKEN: Duration = Duration::from_secs(1);

/// One listener's stream, which begins with what is honoured of its wishes.
pub(super) async fn open(
    hop: &Hop<'_>,
    caller: &Caller,
    link: &Arc<Link>,
    request: &Message,
) -> Result<Source, UpstreamFault> {
    let wanted = Filter::of(request).map_err(|fault| malformed(&fault))?;
    // What waits is kept and counted before this.
    let (sender, told) = mpsc::channel(1);
    // From here on nothing is missed, and the one who follows the server finds somebody who listens.
    let news = link.audience.listen();
    begin(hop, link);
    // What a server has no stream for is not promised.
    link.audience.opened(OVERTAKEN).await;
    // It had none in this session. One that has forgotten the session may be another by now, and have one.
    if link.audience.has_no_stream()
        && link.audience.knows_pings()
        && link.is_told_apart()
        && matches!(is_known(hop, &link.leg).await, Err(UpstreamFault::Lost))
    {
        return Err(UpstreamFault::Lost);
    }
    let mut filter = honoured(link, &wanted);
    let following = subscribe(hop, link, &filter.uris).await?;
    filter.uris.clone_from(&following.uris);
    let listener = Listener { caller: caller.clone(), filter, request: request.clone(), following };
    let acknowledged = translate::acknowledged(request, &listener.filter)?;
    // There is room: the channel is new.
    let _ = sender.try_send((None, acknowledged));
    tokio::spawn(listener.listen(news, sender));
    Ok(Source::Told(told))
}

/// What of a filter the server can serve.
fn honoured(link: &Link, wanted: &Filter) -> Filter {
    let speaks = !link.audience.has_no_stream();
    let changes = |name: &str| speaks && link.can(&[name, "listChanged"]);
    Filter {
        tools: wanted.tools && changes("tools"),
        prompts: wanted.prompts && changes("prompts"),
        resources: wanted.resources && changes("resources"),
        uris: if speaks && link.can(&["resources", "subscribe"]) { wanted.uris.clone() } else { Vec::new() },
    }
}

/// Follows resources, as far as the server lets us.
async fn subscribe(hop: &Hop<'_>, link: &Arc<Link>, uris: &[String]) -> Result<Following, UpstreamFault> {
    // Whatever ends this half-way, a fault or a client that is gone, leaves nothing counted.
    let mut following = Following::nothing(hop, link);
    let subscribing = async {
        let mut followed = link.wishes.followed.lock().await;
        for uri in uris {
            let known = followed.get(uri).copied().unwrap_or_default();
            followed.insert(uri.clone(), known + 1);
            following.uris.push(uri.clone());
            if known > 0 {
                continue;
            }
            let text = translate::subscribe(&link.number().to_string(), uri, true);
            let answer = hop.ask(Some(&link.leg), &exchange::one(text, &hop.limits)?).await?;
            if answer.error().is_some() {
                followed.remove(uri);
                following.uris.pop();
            }
        }
        Ok::<(), UpstreamFault>(())
    };
    let deadline = hop.server.deadline;
    tokio::time::timeout(deadline, subscribing).await.map_err(|_| UpstreamFault::Timeout(deadline))??;
    Ok(following)
}

/// Resources that one listener follows, until it is dropped.
struct Following {
    state: Arc<State>,
    server: Arc<Server>,
    link: Arc<Link>,
    uris: Vec<String>,
}

impl Following {
    fn nothing(hop: &Hop<'_>, link: &Arc<Link>) -> Self {
        let (state, server) = (Arc::clone(hop.state), Arc::clone(hop.server));
        Self { state, server, link: Arc::clone(link), uris: Vec::new() }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // Where the runtime is gone, so are the servers.
        if let (false, Ok(runtime)) = (self.uris.is_empty(), tokio::runtime::Handle::try_current()) {
            let (state, server, link) = (Arc::clone(&self.state), Arc::clone(&self.server), Arc::clone(&self.link));
            runtime.spawn(unfollow(state, server, link, std::mem::take(&mut self.uris)));
        }
    }
}

/// Follows no longer what nobody else wants to hear of.
async fn unfollow(state: Arc<State>, server: Arc<Server>, link: Arc<Link>, uris: Vec<String>) {
    let mut is_told = true;
    for uri in uris {
        // One by one: others who share the process wait for one answer of the server, and no longer.
        let mut followed = link.wishes.followed.lock().await;
        let left = followed.get(&uri).copied().unwrap_or_default().saturating_sub(1);
        if left > 0 {
            followed.insert(uri, left);
            continue;
        }
        followed.remove(&uri);
        if !is_told {
            continue;
        }
        // Locked until the server knows: whoever wants to follow it meanwhile asks after that.
        let text = translate::subscribe(&link.number().to_string(), &uri, false);
        if let Err(fault) = super::tell(&state, &server, &link.leg, text).await {
            // It is not asked for the rest: each may take as long.
            tracing::debug!(server = %server.name, %fault, "resources are followed on");
            is_told = false;
        }
    }
}

struct Listener {
    caller: Caller,
    filter: Filter,
    request: Message,
    following: Following,
}

impl Listener {
    /// Passes on what is wanted until nobody listens, the session is over, the server is another, or the client reads so
    /// slowly that it would miss something.
    async fn listen(self, mut news: mpsc::Receiver<News>, sender: mpsc::Sender<(Option<vocab::ServerName>, Bytes)>) {
        let passing = async {
            let mut look = tokio::time::interval(AGAIN);
            loop {
                tokio::select! {
                    told = news.recv() => match told {
                        Some(news) => {
                            if let Some(text) = self.wanted(news.text.clone())
                                && sender.send((None, text)).await.is_err()
                            {
                                return;
                            }
                        }
                        // Nothing is missed without a word: whoever listens again looks anew.
                        None => break,
                    },
                    () = self.following.link.over() => break,
                    _ = look.tick() => if !self.is_current() { break },
                }
            }
            // The client may listen again: to the server as it is then.
            if let Ok(text) = translate::listen_result(&self.request) {
                let _ = sender.send((None, text)).await;
            }
        };
        tokio::select! {
            () = passing => {}
            () = sender.closed() => {}
        }
    }

    fn wanted(&self, text: Bytes) -> Option<Bytes> {
        let message = exchange::one(text, &self.following.state.line().snapshot.answer_limits()).ok()?;
        if !self.filter.wants(&message) {
            return None;
        }
        translate::notification(&message, self.request.id())
    }

    fn is_current(&self) -> bool {
        let Following { state, server, link, .. } = &self.following;
        let line = state.line();
        let alive = match &link.leg.way {
            Way::Pipe(pipe) => pipe.is_alive(),
            Way::Http(_) => true,
        };
        let now = line.may_hear(&self.caller.principal, &server.name).map(|(_, now)| now);
        alive && now.is_some_and(|now| super::leads(now, server.fingerprint))
    }
}

/// Sees to it that what the server says beside its answers is read in the course of a call, where it may concern the call:
/// a question that nobody hears keeps server and client waiting.
pub(super) async fn for_call(hop: &Hop<'_>, link: &Arc<Link>, request: &Message) {
    if !bridge::may_ask(request.method()) || !link.is_told_apart() {
        return;
    }
    begin(hop, link);
    link.audience.opened(OVERTAKEN).await;
}

/// Reads the stream of a web server, unless it is known to have none or somebody does already. A process speaks by itself.
fn begin(hop: &Hop<'_>, link: &Arc<Link>) {
    if matches!(link.leg.way, Way::Pipe(_)) || link.audience.has_no_stream() || !link.audience.follow() {
        return;
    }
    let holder = link.watch_holder();
    let follower = Follower {
        state: Arc::clone(hop.state),
        server: Arc::clone(hop.server),
        link: Arc::downgrade(link),
        leg: Arc::clone(&link.leg),
        audience: Arc::clone(&link.audience),
        lost: Arc::clone(&link.lost),
        had_stream: AtomicBool::new(false),
        lost_at: AtomicU64::new(0),
    };
    tokio::spawn(follower.follow(link.over(), holder));
}

/// Refuses what was held and nobody hears.
async fn settle(state: Arc<State>, server: Arc<Server>, leg: Arc<Leg>, audience: Arc<Audience>) {
    for question in audience.turns.settle(|| audience.put()).await {
        let answer = state.journal.unheard(&server.name, &question, UNCLEAR);
        if let Err(fault) = super::tell(&state, &server, &leg, answer).await {
            tracing::debug!(server = %server.name, %fault, "a question could not be refused");
        }
    }
}

/// Reads the stream of a leg.
struct Follower {
    state: Arc<State>,
    server: Arc<Server>,
    // A session in which nobody does anything may end: whoever reads its stream has no hand in it.
    link: Weak<Link>,
    leg: Arc<Leg>,
    audience: Arc<Audience>,
    /// How many sessions in a row turned out to be lost where their stream was asked for.
    lost: Arc<AtomicU32>,
    had_stream: AtomicBool,
    /// When it was lost, in ticks; 0 where it was not, or is open again.
    lost_at: AtomicU64,
}

impl Follower {
    /// Reads until nobody is there who could hear it.
    async fn follow(self, over: impl Future<Output = ()> + Send, holder: impl Fn() -> Principal + Send + Sync) {
        let Self { state, server, audience, lost, .. } = &self;
        let leads = |line: &Line| {
            let now = line.snapshot.servers.get(&server.name);
            now.is_some_and(|now| super::leads(now, server.fingerprint))
        };
        let is_current = || leads(&state.line());
        // Of several keys that use the session one may have gone.
        let may = || state.line().may_hear(&holder(), &server.name).is_some();
        let mut over = pin!(over);
        loop {
            let following = async {
                match self.follow_once().await {
                    Ok(true) => {
                        audience.note(Stream::Late);
                        self.lost_at.store(state.clock.ticks(), Ordering::Relaxed);
                    }
                    // It has nothing to say; whoever listens waits.
                    Ok(false) => {
                        audience.note(Stream::Absent);
                        if self.had_stream.load(Ordering::Relaxed) {
                            // It had one: it may be another server by now.
                            state.look_at_misfit(server, Era::Legacy);
                        }
                        std::future::pending::<()>().await;
                    }
                    Err(UpstreamFault::Lost) => {
                        lost.fetch_add(1, Ordering::Relaxed);
                        return false;
                    }
                    Err(fault) => {
                        audience.note(Stream::Late);
                        self.lost_at.store(state.clock.ticks(), Ordering::Relaxed);
                        tracing::debug!(server = %server.name, %fault, "a listening stream broke off");
                    }
                }
                tokio::time::sleep(AGAIN).await;
                true
            };
            let goes_on = tokio::select! {
                goes_on = following => goes_on,
                () = aggregate::listen::until_not(|| audience.is_there() && is_current()) => true,
                () = &mut over => false,
            };
            let is_over = !goes_on || !is_current();
            if is_over && let Some(link) = self.link.upgrade() {
                state.legs.forget(&link);
                if goes_on {
                    // The server knows it still, where it is the same one.
                    state.part(vec![(server.name.clone(), Arc::clone(&self.leg))]);
                }
            }
            // A token that ran out may be renewed: when that session ends is not decided here.
            if audience.may_stop(is_over || !may()) {
                return;
            }
        }
    }

    /// One stream, to its end. `false` if the server has none.
    async fn follow_once(&self) -> Result<bool, UpstreamFault> {
        let Self { state, server, leg, audience, .. } = self;
        let injected = inject::credentials(state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
        let limits = state.line().snapshot.answer_limits();
        let hop = Hop { state, server, injected: &injected, limits };
        let Some(source) = aggregate::stream::stream_of(&hop, leg).await? else { return Ok(false) };
        audience.note(Stream::Open);
        self.had_stream.store(true, Ordering::Relaxed);
        self.lost.store(0, Ordering::Relaxed);
        let lost_at = self.lost_at.swap(0, Ordering::Relaxed);
        if lost_at > 0 {
            state.line().look_for_missed(server, lost_at);
        }
        let mut source = Resumed::around(&Arc::downgrade(state), server, leg, source);
        while let Some((_, event)) = Box::pin(source.next()).await? {
            let Some(text) = event.message() else { continue };
            let Some(message) = exchange::unasked(text, &limits, server) else { continue };
            // A ping asks nobody.
            match audience.keep(&message, &limits) {
                Kept::No => {}
                Kept::First => {
                    tokio::spawn(settle(Arc::clone(state), Arc::clone(server), Arc::clone(leg), Arc::clone(audience)));
                    continue;
                }
                Kept::Behind => continue,
            }
            let heard = if message.method() == "ping" { Err("a ping") } else { audience.hand(&message) };
            if let Err(why) = heard {
                let answer = state.journal.unheard(&server.name, &message, why);
                super::tell(state, server, leg, answer).await?;
            }
        }
        Ok(true)
    }
}
