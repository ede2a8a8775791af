//! Whether the lists became others for whoever listens, and the word that they did.
//!
//! Servers say that their lists changed, and say it often; rights, groups and servers change without anybody saying so.
//! A listener is told at most once in [`WINDOW`], and only if its own view is another than it was. Keeps digests, never
//! lists.

use crate::{
    aggregate::listen::{self, Asker, News},
    authenticate::Caller,
    bridge::Crossing,
    call::Route,
    catalog::{
        Changes,
        view::{Sum, Sums, View},
    },
    forward::Exchange,
    pipeline::Line,
    release::list_action,
    resolve::Target,
    server::{Carriage, Server},
    session::Session,
    snapshot::Snapshot,
};
use bytes::Bytes;
use mcp::{Era, ListKind, Message};
use policy::Subject;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use vocab::ServerName;

/// From the first sign of a change to the word of it. What comes in between is told with it.
const WINDOW: Duration = Duration::from_millis(200);

/// What a server was found to show the listener.
type Found = (ServerName, Changes, Option<Sums>);

/// The lists of a server that are others for one listener than for everybody else.
#[derive(Default)]
struct Own {
    tools: Option<Sum>,
    prompts: Option<Sum>,
    resources: Option<Sum>,
}

impl Own {
    fn learn(&mut self, changes: Changes, found: Sums) {
        for (own, is_found, sum) in [
            (&mut self.tools, changes.tools, found.tools),
            (&mut self.prompts, changes.prompts, found.prompts),
            (&mut self.resources, changes.resources, found.resources),
        ] {
            if is_found {
                *own = Some(sum);
            }
        }
    }

    /// Puts them in place of what everybody sees. One that is no other is forgotten.
    fn apply(&mut self, seen: &mut Sums) {
        for (own, sum) in [
            (&mut self.tools, &mut seen.tools),
            (&mut self.prompts, &mut seen.prompts),
            (&mut self.resources, &mut seen.resources),
        ] {
            *own = own.filter(|own| own != sum);
            *sum = own.unwrap_or(*sum);
        }
    }
}

/// A listener's view, and what may have changed it.
pub(super) struct Watch {
    route: Route,
    era: Era,
    /// The stream is the server's own.
    passes: bool,
    session: Option<Arc<Session>>,
    news: broadcast::Receiver<News>,
    /// The view that the client knows. None as long as nothing is known of the one server.
    view: Option<View>,
    /// The rights that it was seen with.
    rights: (Weak<Snapshot>, Subject),
    /// Rights changed since.
    regranted: bool,
    /// A look found what the server says nothing of.
    unsaid: bool,
    /// When to look.
    due: Option<Instant>,
    /// Servers that lists were without until now.
    back: HashSet<ServerName>,
    /// What servers say changed that cannot be asked what they show this client.
    believed: HashMap<ServerName, Changes>,
    /// Servers that may show this client alone what they say changed.
    told: HashMap<ServerName, Changes>,
    asking: Option<JoinHandle<Vec<Found>>>,
    /// What such servers show, where it is not what they show everybody.
    own: HashMap<ServerName, Own>,
    /// What the client wants to hear of. None until a modern stream has begun.
    wanted: Option<Changes>,
}

impl Watch {
    /// Begins with what the client may know. `None` for a stream that is one server's in the aggregate: it is a rest.
    pub(super) fn begin(line: &Line, exchange: &Exchange, passes: bool) -> Option<Self> {
        let news = line.state.news.subscribe();
        let route = match (&exchange.target, &exchange.call.route) {
            (Target::Many(_), _) => Route::All,
            (Target::One(one), Route::One(_)) => Route::One(one.server.name.clone()),
            (Target::One(_), Route::All) => return None,
        };
        let (era, subject) = (exchange.call.era, exchange.caller.subject.clone());
        let session = exchange.target.session().cloned();
        let known = session.as_ref().and_then(|session| *lock(session));
        let view = known.or_else(|| View::of(line, &subject, era, &route, |_, _| {}));
        if let Some(session) = &session {
            *lock(session) = view;
        }
        Some(Self {
            route,
            era,
            passes,
            session,
            news,
            view,
            rights: (Arc::downgrade(&line.snapshot), subject),
            regranted: known.is_some(),
            unsaid: false,
            // Something may have changed while nobody listened.
            due: known.map(|_| Instant::now() + WINDOW),
            back: HashSet::new(),
            believed: HashMap::new(),
            told: HashMap::new(),
            asking: None,
            own: HashMap::new(),
            wanted: (era == Era::Legacy).then_some(Changes::ALL),
        })
    }

    /// The stream has begun, for what this acknowledgement says.
    pub(super) fn acknowledged(&mut self, message: &Message) {
        let wants = |filter: &str| {
            message.param(&["notifications", filter]).is_some_and(|member| member.raw.trim_ascii() == b"true")
        };
        self.wanted = Some(Changes {
            tools: wants("toolsListChanged"),
            prompts: wants("promptsListChanged"),
            resources: wants("resourcesListChanged"),
        });
    }

    /// A server says that lists changed. `false` if its word is to be passed on as it is: on its own door, to a caller who
    /// sees all of it, it speaks for itself.
    pub(super) fn hear(&mut self, line: &Line, subject: &Subject, server: &Server, changes: Changes) -> bool {
        if matches!(self.route, Route::One(_)) && sees_all(line, subject, server, changes) {
            return false;
        }
        match (Crossing::between(self.era, server), self.era) {
            // What it shows in a session, it may show there alone.
            (Crossing::None, Era::Legacy) if self.session.is_some() => self.doubt(&server.name, changes),
            (Crossing::Downward, _) => self.doubt(&server.name, changes),
            // A process that serves one caller alone shows it what nobody else sees.
            (Crossing::None | Crossing::Upward, _) if server.carriage() == Carriage::Pipe { shared: false } => {
                self.believe(&server.name, changes);
            }
            // A modern server shows the same to everybody, and is being looked at: there will be news.
            (Crossing::None | Crossing::Upward, _) => {}
        }
        true
    }

    /// Will ask a server what it shows this caller.
    fn doubt(&mut self, server: &ServerName, changes: Changes) {
        let told = self.told.entry(server.clone()).or_default();
        *told = *told | changes;
        self.stir();
    }

    /// Takes a server's word for it that it shows this caller something else.
    fn believe(&mut self, server: &ServerName, changes: Changes) {
        let believed = self.believed.entry(server.clone()).or_default();
        *believed = *believed | changes;
        self.stir();
    }

    /// Looks whether the rights are still those of the view.
    pub(super) fn check(&mut self, line: &Line, subject: &Subject) {
        let (snapshot, seen_as) = &self.rights;
        if std::ptr::eq(snapshot.as_ptr(), Arc::as_ptr(&line.snapshot)) && same(seen_as, subject) {
            return;
        }
        self.rights = (Arc::downgrade(&line.snapshot), subject.clone());
        self.regranted = true;
        // What a server showed alone was narrowed by other rights.
        self.own.clear();
        self.stir();
    }

    /// Waits until it is time to look. Nothing is lost where the wait is given up.
    pub(super) async fn due(&mut self) {
        loop {
            if let Some(due) = self.due {
                sleep_until(due).await;
                self.due = None;
                return;
            }
            tokio::select! {
                news = self.news.recv() => match news {
                    Ok(news) => self.take(news),
                    Err(RecvError::Lagged(_)) => self.stir(),
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                found = answered(&mut self.asking) => {
                    self.asking = None;
                    for (server, changes, sums) in found {
                        match sums {
                            Some(sums) => self.own.entry(server).or_default().learn(changes, sums),
                            // Nobody knows: better told for nothing than not at all.
                            None => self.believe(&server, changes),
                        }
                    }
                    return;
                }
            }
        }
    }

    /// What the client is to be told now, and what it knows from then on.
    pub(super) fn look(&mut self, line: &Line, caller: &Caller, request: Option<&Message>) -> Vec<Bytes> {
        // Whatever woke it, what follows is seen with the rights of this moment: that they are others must be known first.
        self.check(line, &caller.subject);
        while let Ok(news) = self.news.try_recv() {
            self.take(news);
        }
        self.due = None;
        let Some(wanted) = self.wanted else {
            self.stir();
            return Vec::new();
        };
        self.ask(line, caller, request);
        let (subject, own) = (&caller.subject, &mut self.own);
        let mut shown = Changes::default();
        let (back, is_back) = (std::mem::take(&mut self.back), self.route == Route::All || self.view.is_some());
        let believed = std::mem::take(&mut self.believed);
        let mut quiet = Changes::default();
        let (regranted, unsaid) = (std::mem::take(&mut self.regranted), std::mem::take(&mut self.unsaid));
        let now = View::of(line, subject, self.era, &self.route, |server, sums| {
            if let Some(found) = own.get_mut(&server.name) {
                found.apply(sums);
            }
            if back.contains(&server.name) {
                shown = shown | sums.present();
            }
            if let Some(said) = believed.get(&server.name) {
                shown = shown | sums.present().within(*said);
            }
            if matches!(self.route, Route::One(_)) && !regranted && !unsaid {
                quiet = spoken_for(line, subject, server);
            }
        });
        let changes = match (now, self.view) {
            (Some(now), Some(before)) => now.since(before),
            (Some(_) | None, _) => Changes::default(),
        };
        let back = if is_back { shown } else { Changes::default() };
        self.view = now.or(self.view);
        if let Some(session) = &self.session {
            *lock(session) = self.view;
        }
        let told = (changes | back).without(quiet).within(wanted);
        told.news().map(|method| text(method, self.era, request)).collect()
    }

    fn take(&mut self, news: News) {
        let is_behind = match &self.route {
            Route::All => true,
            Route::One(name) => *name == news.server,
        };
        if is_behind {
            if news.unsaid {
                // What it showed alone, it may show no more. Where its own stream passes, it speaks for itself.
                self.own.remove(&news.server);
                self.unsaid |= !self.passes;
            }
            // On its own door nothing was listed without it.
            if news.back && self.route == Route::All {
                self.back.insert(news.server);
            }
            self.stir();
        }
    }

    fn stir(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + WINDOW);
    }

    /// Asks the servers that spoke to this client what they show it. One round at a time.
    fn ask(&mut self, line: &Line, caller: &Caller, request: Option<&Message>) {
        if self.asking.is_some() || self.told.is_empty() {
            return;
        }
        let asker = match (&self.session, request) {
            (Some(session), _) => Asker::Session(Arc::clone(session)),
            (None, Some(request)) => Asker::Request(request.clone()),
            (None, None) => return,
        };
        let told = std::mem::take(&mut self.told);
        let (line, caller, route) = (line.clone(), caller.clone(), self.route.clone());
        self.asking = Some(tokio::spawn(async move {
            let mut found = Vec::with_capacity(told.len());
            for (name, changes) in told {
                let Some(server) = line.snapshot.servers.get(&name) else { continue };
                let sums = listen::shown(&line, &caller, server, (&asker, &route), changes).await;
                found.push((name, changes, sums.ok()));
            }
            found
        }));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(asking) = &self.asking {
            asking.abort();
        }
    }
}

/// What the servers that were asked show. Nothing where nobody was asked.
async fn answered(asking: &mut Option<JoinHandle<Vec<Found>>>) -> Vec<Found> {
    match asking {
        Some(asking) => asking.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

/// The lists of which a server tells this caller by itself.
fn spoken_for(line: &Line, subject: &Subject, server: &Server) -> Changes {
    let sees = |kind| line.snapshot.policies.sees_all(subject, list_action(kind), server.root());
    Changes { tools: sees(ListKind::Tools), prompts: sees(ListKind::Prompts), resources: sees(ListKind::Resources) }
}

fn sees_all(line: &Line, subject: &Subject, server: &Server, changes: Changes) -> bool {
    !changes.without(spoken_for(line, subject, server)).any()
}

fn same(one: &Subject, other: &Subject) -> bool {
    one.id == other.id
        && one.roles == other.roles
        && one.groups == other.groups
        && one.scopes == other.scopes
        && one.environments == other.environments
}

/// The word of a change.
fn text(method: &str, era: Era, request: Option<&Message>) -> Bytes {
    let text = match (era, request.and_then(Message::id)) {
        (Era::Modern, Some(id)) => {
            let key = mcp::key::SUBSCRIPTION_ID;
            format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"_meta":{{"{key}":{id}}}}}}}"#)
        }
        (Era::Modern | Era::Legacy, _) => format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#),
    };
    text.into()
}

fn lock(session: &Session) -> std::sync::MutexGuard<'_, Option<View>> {
    session.view.lock().unwrap_or_else(PoisonError::into_inner)
}
