//! What the aggregate answers itself: introductions, lists, levels.

use super::stream::may_tell;
use crate::{
    authenticate::Caller,
    bridge::{self, Crossing},
    call::{Call, Route},
    catalog::{Offer, fits, lists_as_client, look::GLANCE, view::View},
    forward::open_leg,
    inject::Injected,
    pipeline::Line,
    release::list_action,
    resolve::Many,
    server::Server,
    session::{Leg, Session},
    stop::{Stage, Stop},
    task,
    upstream::{
        Arrival, UpstreamFault,
        exchange::{self, Hop},
    },
};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use mcp::{Era, ListKind, Message, Revision, bridge::LogLevel, error};
use serde_json::{Map, Value, json};
use std::{
    collections::HashSet,
    fmt::Write,
    sync::{Arc, PoisonError},
    time::Duration,
};
use vocab::{Action, ServerName};

/// How long servers may take to hear what all of them are told: a level, or that the session is over.
const TOLD: Duration = Duration::from_secs(5);
/// How long a list waits for one server, and for one that is not known to answer.
const LIST: Duration = Duration::from_secs(15);
/// Pages of one server's tasks.
const TASK_PAGES: usize = 100;
/// Instructions of one server, in characters, and of all together.
const INSTRUCTIONS: (usize, usize) = (2_000, 8_000);
/// The extension by which tools have apps (SEP-1865).
const APPS: &str = "io.modelcontextprotocol/ui";
/// Whatever somebody may show as the beginning of a new line.
const BREAKS: [char; 7] = ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];

/// One call on the aggregate.
pub(crate) struct Hand<'a> {
    pub(crate) line: &'a Line,
    pub(crate) caller: &'a Caller,
    pub(crate) many: &'a Many,
    pub(crate) call: &'a Call,
    /// In the order of the members.
    pub(crate) injected: &'a [Injected],
}

impl<'a> Hand<'a> {
    /// Servers with what reaches them.
    pub(crate) fn hops(&self) -> impl Iterator<Item = Hop<'a>> + use<'a, '_> {
        let limits = self.line.snapshot.answer_limits();
        let state = &self.line.state;
        self.many.members.iter().zip(self.injected).map(move |(server, injected)| Hop {
            state,
            server,
            injected,
            limits,
        })
    }

    /// What can be said of all servers now.
    async fn known(&self) -> Offers<'a> {
        let members = &self.many.members;
        let offers = super::glances(self.line, self.call.era, members.iter()).await;
        Offers { all: offers.len() == members.len() && self.many.unavailable.is_empty(), offers }
    }

    /// `initialize`: a session of ours; the servers' sessions are opened when they are needed.
    pub(crate) async fn initialize(&self, request: &Message) -> Result<(Arrival, Option<Arc<Session>>), Stop> {
        let asked = request.param(&["protocolVersion"]).and_then(|member| member.text());
        let revision = asked
            .and_then(|text| Revision::parse(&text))
            .filter(|revision| revision.era() == Era::Legacy)
            .unwrap_or(Revision::V2025_11_25);
        let session =
            self.line.open_session(self.caller, self.call, request, revision).map_err(|fault| fault.stop_here())?;
        let offers = self.known().await;
        let mut result = json!({
            "protocolVersion": revision.as_str(),
            "capabilities": offers.capabilities(self, revision),
            "serverInfo": { "name": "durward", "version": env!("CARGO_PKG_VERSION") },
        });
        offers.add_instructions(&mut result);
        // From here on the client may know the lists.
        let view = View::of(self.line, &self.caller.subject, Era::Legacy, &Route::All, |_, _| {});
        *session.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
        Ok((result_of(request, &result.to_string()), Some(session)))
    }

    /// `server/discover`: what can truly be delivered to this caller.
    pub(crate) async fn discover(&self, request: &Message) -> Arrival {
        let offers = self.known().await;
        let versions: Vec<&str> = Revision::MODERN.iter().map(|revision| revision.as_str()).collect();
        let mut result = json!({
            "resultType": "complete",
            "supportedVersions": versions,
            "capabilities": offers.capabilities(self, Revision::V2026_07_28),
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": { (mcp::key::SERVER_INFO): { "name": "durward", "version": env!("CARGO_PKG_VERSION") } },
        });
        offers.add_instructions(&mut result);
        result_of(request, &result.to_string())
    }

    /// One list of every server, all pages, narrowed to what the caller may see.
    pub(crate) async fn list(&self, request: &Message, kind: ListKind) -> Result<Arrival, Stop> {
        one_page(request)?;
        let meta = request.param(&["_meta"]).map(|member| String::from_utf8_lossy(member.raw).into_owned());
        let meta = meta.as_deref();
        let reading = self.hops().map(|hop| async move { (hop.server, self.pages(&hop, kind, meta).await) });
        let mut elements: Vec<Bytes> = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        let mut unavailable: Vec<Value> = self
            .many
            .unavailable
            .iter()
            .chain(&self.many.apart)
            .map(|(server, reason)| json!({ "server": server.as_str(), "reason": reason }))
            .collect();
        for (server, pages) in join_all(reading).await {
            if pages.is_err() || server.state.fault.load().is_some() {
                // A look tells whoever listens when it is back.
                self.line.look_after(server);
            }
            match pages.and_then(|pages| self.visible(server, kind, &pages, &mut seen)) {
                Ok(entries) => elements.extend(entries),
                Err(fault) => {
                    tracing::warn!(server = %server.name, %fault, "the server is missing from a list");
                    let stop = fault.stop(&server.name);
                    let mut reason = stop.message.clone();
                    if let UpstreamFault::List { said, .. } = &fault {
                        reason = format!("{reason}: {said}");
                    }
                    unavailable.push(json!({ "server": server.name.as_str(), "reason": reason }));
                }
            }
        }
        let mut members: Vec<String> = Vec::new();
        if self.call.era == Era::Modern {
            members.push(r#""resultType":"complete","ttlMs":0,"cacheScope":"private""#.to_owned());
        }
        if !unavailable.is_empty() {
            members.push(format!("\"_meta\":{}", json!({ "durward/unavailable": unavailable })));
        }
        let members = (!members.is_empty()).then(|| members.join(","));
        Ok(whole(mcp::list::compose(request.id().unwrap_or("null"), kind, elements, None, members.as_deref())))
    }

    /// Every page of one server, in bounded time: one that hangs must not hold up the others.
    async fn pages(&self, hop: &Hop<'_>, kind: ListKind, meta: Option<&str>) -> Result<Vec<Message>, UpstreamFault> {
        // One call more for that server, as on its own door.
        let _in_flight = hop.server.state.enter(hop.server.calls_in_flight).ok_or(UpstreamFault::Busy)?;
        let reading = async {
            if let (Crossing::Upward, Some(session)) =
                (Crossing::between(self.call.era, hop.server), &self.many.session)
            {
                return bridge::upward::pages(hop, self.line, self.caller, session, kind).await;
            }
            if let (Crossing::Downward, Some(request)) =
                (Crossing::between(self.call.era, hop.server), self.call.message())
            {
                return bridge::downward::pages(hop, self.caller, request, kind).await;
            }
            let leg = self.leg(hop).await?;
            match (hop.pages(leg.as_deref(), kind, self.call.era, meta).await, &self.many.session) {
                (Err(UpstreamFault::Lost), Some(session)) => {
                    if let Some(lost) = &leg {
                        session.lose_leg(&hop.server.name, lost);
                        self.line.look_for_missed(hop.server, hop.state.clock.ticks());
                    }
                    let leg = self.leg(hop).await?;
                    hop.pages(leg.as_deref(), kind, self.call.era, meta).await
                }
                (pages, _) => pages,
            }
        };
        let state = &hop.server.state;
        let known = state.catalog.load().is_some() && state.fault.load().is_none();
        let deadline = if known { LIST } else { GLANCE }.min(hop.server.deadline);
        tokio::time::timeout(deadline, reading).await.map_err(|_| UpstreamFault::Timeout(deadline))?
    }

    /// How this call reaches a server: through the session's leg, or a process of the principal's.
    pub(crate) async fn leg(&self, hop: &Hop<'_>) -> Result<Option<Arc<Leg>>, UpstreamFault> {
        match &self.many.session {
            Some(session) => match hop.leg_of(session) {
                Some(leg) => Ok(Some(leg)),
                None => open_leg(hop, session).await.map(Some),
            },
            None => self.line.state.modern_leg(hop, self.caller.principal.id()).await,
        }
    }

    fn visible(
        &self,
        server: &Arc<Server>,
        kind: ListKind,
        pages: &[Message],
        seen: &mut HashSet<String>,
    ) -> Result<Vec<Bytes>, UpstreamFault> {
        let (crossing, spoken) = (Crossing::between(self.call.era, server), bridge::spoken(self.call.era, server));
        let is_carried_down = kind == ListKind::Tools && crossing == Crossing::Downward;
        let mut kept = Vec::new();
        for page in pages {
            let entries = mcp::list::entries(page, kind).map_err(|fault| UpstreamFault::Protocol(fault.to_string()))?;
            for entry in entries {
                if spoken == Era::Modern && !lists_as_client(server, kind, &entry) {
                    continue;
                }
                let resource = server.resource(&entry.name);
                let policies = &self.line.snapshot.policies;
                if !policies.visible(&self.caller.subject, list_action(kind), &resource) {
                    continue;
                }
                // One that its client refuses a list for would cost it the lists of all servers.
                if !fits(kind, &entry, spoken) {
                    continue;
                }
                // Two names that are shortened alike: the first one is the one that is found.
                let (shown, entry) = mcp::address::entry(&entry, kind, server.name.as_str());
                if seen.insert(shown) {
                    kept.push(if is_carried_down { mcp::bridge::downward::tool(&entry) } else { entry });
                }
            }
        }
        Ok(kept)
    }

    /// `tasks/list`: the tasks that the caller began, of every server that has such a list.
    pub(crate) async fn tasks(&self, request: &Message) -> Result<Arrival, Stop> {
        one_page(request)?;
        let lists = |server: &Server| {
            let catalog = server.state.catalog.load();
            let offer = catalog.as_ref().map(|catalog| catalog.spoken(Era::Legacy));
            let listed = offer.and_then(|offer| offer.capabilities.get("tasks")?.get("list"));
            listed.is_some() && self.may_list_tasks(server)
        };
        let hops: Vec<Hop<'_>> =
            self.hops().filter(|hop| carries_tasks(Era::Legacy, hop.server) && lists(hop.server)).collect();
        if hops.is_empty() {
            return Err(super::unknown("tasks/list", Era::Legacy));
        }
        let owner = self.caller.principal.id();
        let reading = hops.iter().map(|hop| async move { (hop.server, self.tasks_of(hop).await) });
        let (mut own, mut unavailable) = (Vec::new(), Vec::new());
        for (server, tasks) in join_all(reading).await {
            match tasks {
                Ok(tasks) => {
                    for mut task in tasks {
                        let is_own = self.line.is_own(self.caller, server, &task);
                        let Some(id) = task.get_mut("taskId") else { continue };
                        let Some(known) = id.as_str() else { continue };
                        if is_own && let Ok(shown) = self.line.shown_task(owner, server, known) {
                            *id = shown.into();
                            own.push(task);
                        }
                    }
                }
                Err(fault) => {
                    tracing::warn!(server = %server.name, %fault, "the server is missing from a list of tasks");
                    let stop = fault.stop(&server.name);
                    unavailable.push(json!({ "server": server.name.as_str(), "reason": stop.message }));
                }
            }
        }
        let result = if unavailable.is_empty() {
            json!({ "tasks": own })
        } else {
            json!({ "tasks": own, "_meta": { "durward/unavailable": unavailable } })
        };
        Ok(result_of(request, &result.to_string()))
    }

    /// Whether policy lets the caller list tasks of a server.
    fn may_list_tasks(&self, server: &Server) -> bool {
        let question = policy::Question {
            subject: &self.caller.subject,
            action: Action::TaskManage,
            resource: &server.resource("tasks/list"),
            arguments: &json!({}),
            digest: vocab::Digest::of(b"{}"),
            findings: &[],
            now: self.line.state.clock.now(),
        };
        self.line.snapshot.policies.authorize(&question).is_ok()
    }

    /// Every page of one server's tasks.
    async fn tasks_of(&self, hop: &Hop<'_>) -> Result<Vec<Value>, UpstreamFault> {
        let _in_flight = hop.server.state.enter(hop.server.calls_in_flight).ok_or(UpstreamFault::Busy)?;
        let deadline = LIST.min(hop.server.deadline);
        let reading = async {
            let leg = self.leg(hop).await?;
            let (mut tasks, mut cursor, mut size) = (Vec::new(), None::<String>, 0);
            for number in 0..TASK_PAGES {
                let params = cursor.as_ref().map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
                let id = format!("durward-tasks-{number}");
                let text = json!({ "jsonrpc": "2.0", "id": id, "method": "tasks/list", "params": params }).to_string();
                let page = hop.ask(leg.as_deref(), &exchange::one(text.into(), &hop.limits)?).await?;
                size += page.bytes().len();
                if size > exchange::LIST_SIZE {
                    return Err(UpstreamFault::TooBig(exchange::LIST_SIZE));
                }
                let listed = page.outcome_member(&["tasks"]).and_then(|member| member.value().ok());
                let Some(Value::Array(listed)) = listed else {
                    return Err(UpstreamFault::Protocol("`tasks/list` gave no list".to_owned()));
                };
                tasks.extend(listed);
                let next = mcp::list::next_cursor(&page).map(|cursor| cursor.map(std::borrow::Cow::into_owned));
                match next.map_err(|fault| UpstreamFault::Protocol(format!("`tasks/list`: {fault}")))? {
                    None => return Ok(tasks),
                    Some(next) if cursor.as_ref() == Some(&next) => {
                        return Err(UpstreamFault::Protocol("`tasks/list` gave one cursor twice".to_owned()));
                    }
                    Some(next) => cursor = Some(next),
                }
            }
            Err(UpstreamFault::Protocol(format!("`tasks/list` has more than {TASK_PAGES} pages")))
        };
        tokio::time::timeout(deadline, reading).await.map_err(|_| UpstreamFault::Timeout(deadline))?
    }

    /// The level holds for every server of the session, those opened later too.
    pub(crate) async fn set_level(&self, request: &Message) -> Arrival {
        let Some(level) = LogLevel::named(request) else {
            let text = error::error_text(request.id(), error::INVALID_PARAMS, "`level` is no log level", None);
            return whole(text);
        };
        if let Some(session) = &self.many.session {
            session.set_log_level(level);
            self.to_legs(session, request).await;
        }
        result_of(request, "{}")
    }

    /// A notification of the client for whoever it may concern.
    pub(crate) async fn notify(&self, message: &Message, method: &str) -> Arrival {
        // The servers' sessions begin on their own; progress and cancellation belong to single requests.
        if method == "notifications/roots/list_changed"
            && let Some(session) = &self.many.session
        {
            self.to_legs(session, message).await;
        }
        Arrival::bare(StatusCode::ACCEPTED)
    }

    /// Tells all servers of the session at once: one that hangs must not hold up the others, nor the client for long.
    async fn to_legs(&self, session: &Arc<Session>, message: &Message) {
        let telling = self.hops().map(|hop| async move {
            let Some(leg) = session.leg(hop.server) else { return };
            let telling = async {
                match message.id() {
                    Some(_) => hop.ask(Some(&leg), message).await.map(drop),
                    None => hop.send(Some(&leg), message).await.map(drop),
                }
            };
            let told = tokio::time::timeout(TOLD, telling).await;
            let sent = told.unwrap_or(Err(UpstreamFault::Timeout(TOLD)));
            if let Err(fault) = sent {
                tracing::debug!(server = %hop.server.name, %fault, "a server did not take a message for all");
            }
        });
        join_all(telling).await;
    }

    /// Ends the session here and, as far as they can be reached, on the servers.
    pub(crate) async fn end(&self) -> Arrival {
        let legs = self.many.session.as_ref().and_then(|session| self.line.state.sessions.close(session));
        if let Some(legs) = &legs {
            let ends = self.hops().map(|hop| async move {
                let of_server = |(name, leg): &&(ServerName, Arc<Leg>)| {
                    *name == hop.server.name && leg.fingerprint == hop.server.fingerprint
                };
                let Some((_, leg)) = legs.iter().find(of_server) else { return };
                if tokio::time::timeout(TOLD, hop.end(leg)).await.is_err() {
                    tracing::warn!(server = %hop.server.name, "a server did not hear in time that its session is over");
                }
            });
            join_all(ends).await;
        }
        Arrival::bare(StatusCode::OK)
    }
}

/// Lists for all servers come as one page, so that no server that leaves or joins can shift a place in them. A cursor is
/// that of another list.
fn one_page(request: &Message) -> Result<(), Stop> {
    if request.param(&["cursor"]).is_none_or(|cursor| cursor.raw == b"null") {
        return Ok(());
    }
    let why = "`cursor` is not from this list: all of it comes as one page, without a cursor";
    Err(Stop::refused(Stage::Forward, "cursor", error::INVALID_PARAMS, why))
}

/// Whether tasks of this server are carried on the aggregate: not across a bridge.
fn carries_tasks(era: Era, server: &Server) -> bool {
    Crossing::between(era, server) == Crossing::None
}

/// A result of ours as an arrival.
pub(crate) fn result_of(request: &Message, result: &str) -> Arrival {
    whole(error::result_text(request.id().unwrap_or("null"), result.as_bytes()))
}

/// One JSON message as an arrival.
pub(crate) fn whole(body: Bytes) -> Arrival {
    let mut headers = Box::new(HeaderMap::with_capacity(1));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Arrival::Whole { status: StatusCode::OK, headers, body }
}

/// Whether extensions have this one.
fn has(extension: &str) -> impl Fn(&Value) -> bool {
    move |extensions| extensions.get(extension).is_some()
}

/// What the servers offer, as far as they are known.
struct Offers<'a> {
    offers: Vec<(&'a Arc<Server>, Arc<Offer>)>,
    /// None is left out.
    all: bool,
}

impl Offers<'_> {
    /// What at least one server can do, the gateway carries and the caller may ask for. Servers that are not known yet may
    /// have everything that is listed; that lists change the gateway says itself where no server does. A list may be empty,
    /// and rights may come that fill it. What a revision does not have is not said in it.
    fn capabilities(&self, hand: &Hand<'_>, revision: Revision) -> Value {
        let any = |name: &str| self.offers.iter().any(|(_, offer)| offer.capabilities.get(name).is_some());
        let (policies, subject) = (&hand.line.snapshot.policies, &hand.caller.subject);
        let open = |pointer: &str, action, carries: &dyn Fn(&Server) -> bool| {
            self.offers.iter().any(|(server, offer)| {
                let stated = offer.capabilities.pointer(pointer);
                stated.is_some_and(|stated| stated.is_object() || *stated == Value::Bool(true))
                    && policies.reaches_with(subject, action, server.root())
                    && carries(server)
            })
        };
        let mut capabilities = Map::new();
        for name in ["tools", "prompts", "resources"] {
            if any(name) || !self.all {
                capabilities.insert(name.to_owned(), json!({ "listChanged": true }));
            }
        }
        let tells = |server: &Server| may_tell(revision.era(), server);
        if open("/resources/subscribe", Action::ResourceSubscribe, &tells)
            && let Some(Value::Object(resources)) = capabilities.get_mut("resources")
        {
            resources.insert("subscribe".to_owned(), Value::Bool(true));
        }
        if revision >= Revision::V2025_03_26 && open("/completions", Action::CompletionComplete, &|_| true) {
            capabilities.insert("completions".to_owned(), json!({}));
        }
        let carriers: Vec<&Value> = self
            .offers
            .iter()
            .filter(|(server, _)| revision >= Revision::V2025_11_25 && carries_tasks(revision.era(), server))
            .map(|(_, offer)| &offer.capabilities)
            .collect();
        let mut extensions = Map::new();
        // Its addresses are carried; which content a server has, its entries say.
        if self.offers.iter().any(|(_, offer)| offer.capabilities.pointer("/extensions").is_some_and(has(APPS))) {
            extensions.insert(APPS.to_owned(), json!({}));
        }
        match revision.era() {
            Era::Legacy => {
                let parts = carriers.iter().filter_map(|capabilities| capabilities.get("tasks"));
                let mut tasks = Map::new();
                for of in parts.filter(|tasks| tasks.pointer("/requests/tools/call").is_some()) {
                    tasks.insert("requests".to_owned(), json!({ "tools": { "call": {} } }));
                    for name in ["list", "cancel"].into_iter().filter(|name| of.get(*name).is_some()) {
                        tasks.insert(name.to_owned(), json!({}));
                    }
                }
                if !tasks.is_empty() {
                    capabilities.insert("tasks".to_owned(), Value::Object(tasks));
                }
            }
            Era::Modern => {
                let mut carried = carriers.iter().filter_map(|capabilities| capabilities.get("extensions"));
                if carried.any(has(task::EXTENSION)) {
                    extensions.insert(task::EXTENSION.to_owned(), json!({}));
                }
            }
        }
        if revision >= Revision::V2025_11_25 && !extensions.is_empty() {
            capabilities.insert("extensions".to_owned(), Value::Object(extensions));
        }
        if any("logging") {
            capabilities.insert("logging".to_owned(), json!({}));
        }
        Value::Object(capabilities)
    }

    /// Instructions of the servers, each attributed and bounded: they are text of strangers.
    fn add_instructions(&self, result: &mut Value) {
        let mut text = String::new();
        for (server, offer) in &self.offers {
            let Some(instructions) = &offer.instructions else { continue };
            let mut part = format!("[server {} says]\n", server.name);
            // SECURITY: marked line by line, so that no server can put words into the mouth of another.
            let said: String = instructions.chars().take(INSTRUCTIONS.0).collect();
            for line in said.split(BREAKS).filter(|line| !line.is_empty()) {
                // Writing into a text cannot fail.
                let _ = writeln!(part, "> {line}");
            }
            if said.len() < instructions.len() {
                part.push_str("> […]\n");
            }
            // A shorter one of another server may still have room.
            if text.chars().count() + part.chars().count() <= INSTRUCTIONS.1 {
                text.push_str(&part);
            }
        }
        if let (false, Value::Object(result)) = (text.is_empty(), result) {
            result.insert("instructions".to_owned(), Value::String(text));
        }
    }
}
