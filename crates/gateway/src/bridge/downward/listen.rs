//! `subscriptions/listen` of a modern client on a legacy server: one stream of the leg, however many listen, and resources
//! that are followed for as long as somebody wants to hear of them.
//!
//! What a server asks on that stream belongs to no call, so nobody is asked: it is told so.

use super::Link;
use crate::{
    aggregate,
    authenticate::Caller,
    bridge::malformed,
    inject,
    server::Server,
    session::Way,
    state::State,
    upstream::{
        Source, UpstreamFault,
        exchange::{self, Hop},
        resume::Resumed,
    },
};
use bytes::Bytes;
use mcp::{
    Kind, Message,
    bridge::{Filter, downward as translate},
};
use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{broadcast, mpsc};

/// Messages that wait for a listener.
const BACKLOG: usize = 256;
/// How long to wait before a stream that broke off is opened again.
const AGAIN: Duration = Duration::from_secs(2);

/// One listener's stream, which begins with what is honoured of its wishes.
pub(super) async fn open(
    hop: &Hop<'_>,
    caller: &Caller,
    link: &Arc<Link>,
    request: &Message,
) -> Result<Source, UpstreamFault> {
    let wanted = Filter::of(request).map_err(|fault| malformed(&fault))?;
    let (sender, told) = mpsc::channel(BACKLOG);
    // From here on nothing is missed, and the one who follows the server finds somebody who listens.
    let news = link.news().subscribe();
    let mut filter = honoured(link, &wanted);
    let following = subscribe(hop, link, &filter.uris).await?;
    filter.uris.clone_from(&following.uris);
    let listener = Listener { caller: caller.clone(), filter, request: request.clone(), following };
    begin(hop, caller, link);
    let acknowledged = translate::acknowledged(request, &listener.filter)?;
    // There is room: the channel is new.
    let _ = sender.try_send((None, acknowledged));
    tokio::spawn(listener.listen(news, sender));
    Ok(Source::Told(told))
}

/// What of a filter the server can serve.
fn honoured(link: &Link, wanted: &Filter) -> Filter {
    let changes = |name: &str| link.can(&[name, "listChanged"]);
    Filter {
        tools: wanted.tools && changes("tools"),
        prompts: wanted.prompts && changes("prompts"),
        resources: wanted.resources && changes("resources"),
        uris: if link.can(&["resources", "subscribe"]) { wanted.uris.clone() } else { Vec::new() },
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
        if let Err(fault) = super::tell(&state, &server, &link, text).await {
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
    async fn listen(
        self,
        mut news: broadcast::Receiver<Bytes>,
        sender: mpsc::Sender<(Option<vocab::ServerName>, Bytes)>,
    ) {
        let passing = async {
            let mut look = tokio::time::interval(AGAIN);
            loop {
                tokio::select! {
                    told = news.recv() => match told {
                        Ok(text) => {
                            if let Some(text) = self.wanted(text)
                                && sender.send((None, text)).await.is_err()
                            {
                                return;
                            }
                        }
                        // Nothing is missed without a word: whoever listens again looks anew.
                        Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => break,
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
        alive && now.is_some_and(|now| now.fingerprint == server.fingerprint)
    }
}

/// Reads the stream of a web server, unless somebody does already. A process speaks by itself.
fn begin(hop: &Hop<'_>, caller: &Caller, link: &Arc<Link>) {
    if matches!(link.leg.way, Way::Pipe(_)) {
        return;
    }
    let mut is_followed = lock(link);
    if *is_followed {
        return;
    }
    *is_followed = true;
    drop(is_followed);
    let (state, server) = (Arc::clone(hop.state), Arc::clone(hop.server));
    let (link, caller) = (Arc::clone(link), caller.clone());
    tokio::spawn(follow(state, server, link, caller));
}

/// Reads the stream of a leg until nobody listens.
async fn follow(state: Arc<State>, server: Arc<Server>, link: Arc<Link>, caller: Caller) {
    loop {
        let following = async {
            match follow_once(&state, &server, &link).await {
                Ok(true) => {}
                // It has no such stream, and so nothing to say; whoever listens waits.
                Ok(false) => std::future::pending().await,
                Err(UpstreamFault::Lost) => return false,
                Err(fault) => tracing::debug!(server = %server.name, %fault, "a listening stream broke off"),
            }
            tokio::time::sleep(AGAIN).await;
            true
        };
        let goes_on = tokio::select! {
            goes_on = following => goes_on,
            () = unheard(&link) => true,
            () = link.over() => false,
        };
        let line = state.line();
        let still = line.may_hear(&caller.principal, &server.name).is_some() && super::current(&line, &server).is_ok();
        if !goes_on || !still {
            state.legs.forget(&link);
        }
        let mut is_followed = lock(&link);
        if !goes_on || !still || link.news().receiver_count() == 0 {
            *is_followed = false;
            return;
        }
    }
}

/// One stream, to its end. `false` if the server has none.
async fn follow_once(state: &Arc<State>, server: &Arc<Server>, link: &Arc<Link>) -> Result<bool, UpstreamFault> {
    let injected = inject::credentials(state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
    let limits = state.line().snapshot.answer_limits();
    let hop = Hop { state, server, injected: &injected, limits };
    let Some(source) = aggregate::stream::stream_of(&hop, &link.leg).await? else { return Ok(false) };
    let mut source = Resumed::around(&Arc::downgrade(state), server, &link.leg, source);
    while let Some((_, event)) = Box::pin(source.next()).await? {
        let Some(text) = event.message() else { continue };
        let message = exchange::one(text.clone(), &limits)?;
        match message.kind() {
            Kind::Notification => {
                let _ = link.news().send(text.clone());
            }
            Kind::Request => {
                let why = "nobody can be asked outside of a call: the client has no session";
                let answer = state.journal.unheard(&server.name, &message, why);
                super::tell(state, server, link, answer).await?;
            }
            // Nobody asked anything on this stream.
            Kind::Response => {}
        }
    }
    Ok(true)
}

/// Waits until nobody listens.
async fn unheard(link: &Link) {
    let mut look = tokio::time::interval(Duration::from_millis(500));
    loop {
        look.tick().await;
        if link.news().receiver_count() == 0 {
            return;
        }
    }
}

fn lock(link: &Link) -> MutexGuard<'_, bool> {
    link.is_followed.lock().unwrap_or_else(PoisonError::into_inner)
}
