//! `subscriptions/listen` of a modern client on a legacy server: one stream of the leg, however many listen, and resources
//! that are followed for as long as somebody wants to hear of them.
//!
//! What a server asks on that stream belongs to no call, so nobody is asked: it is told so.

use super::Link;
use crate::{
    aggregate,
    authenticate::Caller,
    inject,
    server::Server,
    session::Way,
    state::State,
    upstream::{
        Source, UpstreamFault,
        exchange::{self, Hop},
    },
};
use bytes::Bytes;
use mcp::{
    Kind, Message,
    bridge::{Filter, downward as translate},
    error,
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
    let wanted = Filter::of(request)?;
    let (sender, told) = mpsc::channel(BACKLOG);
    // From here on nothing is missed, and the one who follows the server finds somebody who listens.
    let news = link.news.subscribe();
    let mut listener = Listener {
        state: Arc::clone(hop.state),
        server: Arc::clone(hop.server),
        caller: caller.clone(),
        link: Arc::clone(link),
        filter: honoured(link, &wanted),
        request: request.clone(),
    };
    listener.filter.uris = subscribe(hop, link, &listener.filter.uris).await?;
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
async fn subscribe(hop: &Hop<'_>, link: &Arc<Link>, uris: &[String]) -> Result<Vec<String>, UpstreamFault> {
    let mut followed = link.followed.lock().await;
    let subscribing = async {
        let mut taken = Vec::new();
        for uri in uris {
            let known = followed.get(uri).copied().unwrap_or_default();
            if known == 0 {
                let text = translate::subscribe(&link.number().to_string(), uri, true);
                let answer = hop.ask(Some(&link.leg), &exchange::one(text, &hop.limits)?).await?;
                if answer.error().is_some() {
                    continue;
                }
            }
            followed.insert(uri.clone(), known + 1);
            taken.push(uri.clone());
        }
        Ok(taken)
    };
    let deadline = hop.server.deadline;
    tokio::time::timeout(deadline, subscribing).await.map_err(|_| UpstreamFault::Timeout(deadline))?
}

struct Listener {
    state: Arc<State>,
    server: Arc<Server>,
    caller: Caller,
    link: Arc<Link>,
    filter: Filter,
    request: Message,
}

impl Listener {
    /// Passes on what is wanted until nobody listens, or the server is another.
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
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => break,
                    },
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
        self.leave().await;
    }

    fn wanted(&self, text: Bytes) -> Option<Bytes> {
        let message = exchange::one(text, &self.state.line().snapshot.answer_limits()).ok()?;
        if !self.filter.wants(&message) {
            return None;
        }
        translate::notification(&message, self.request.id())
    }

    fn is_current(&self) -> bool {
        let line = self.state.line();
        let alive = match &self.link.leg.way {
            Way::Pipe(pipe) => pipe.is_alive(),
            Way::Http(_) => true,
        };
        let server = line.may_hear(&self.caller.principal, &self.server.name).map(|(_, server)| server);
        alive && !self.link.is_ended() && server.is_some_and(|server| server.fingerprint == self.server.fingerprint)
    }

    /// Follows no longer what nobody else wants to hear of.
    async fn leave(self) {
        let Self { state, server, link, filter, .. } = self;
        let mut followed = link.followed.lock().await;
        for uri in filter.uris {
            let left = followed.get(&uri).copied().unwrap_or_default().saturating_sub(1);
            if left > 0 {
                followed.insert(uri, left);
                continue;
            }
            followed.remove(&uri);
            let text = translate::subscribe(&link.number().to_string(), &uri, false);
            if let Err(fault) = super::tell(&state, &server, &link, text).await {
                tracing::debug!(server = %server.name, %fault, "a resource is followed on");
                return;
            }
        }
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
        };
        let line = state.line();
        let still = line.may_hear(&caller.principal, &server.name).is_some() && super::current(&line, &server).is_ok();
        if !goes_on || !still {
            state.legs.forget(&link);
            link.end();
        }
        let mut is_followed = lock(&link);
        if !goes_on || !still || link.news.receiver_count() == 0 {
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
    let Some(mut source) = aggregate::listen::stream_of(&hop, &link.leg).await? else { return Ok(false) };
    while let Some((_, event)) = Box::pin(source.next()).await? {
        let Some(text) = event.message() else { continue };
        let message = exchange::one(text.clone(), &limits)?;
        match message.kind() {
            Kind::Notification => {
                let _ = link.news.send(text.clone());
            }
            Kind::Request => {
                let answer = match message.method() {
                    "ping" => error::result_text(message.id().unwrap_or("null"), b"{}"),
                    _ => mcp::error_text(
                        message.id(),
                        error::METHOD_NOT_FOUND,
                        "nobody can be asked outside of a call: the client has no session",
                        None,
                    ),
                };
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
        if link.news.receiver_count() == 0 {
            return;
        }
    }
}

fn lock(link: &Link) -> MutexGuard<'_, bool> {
    link.is_followed.lock().unwrap_or_else(PoisonError::into_inner)
}
