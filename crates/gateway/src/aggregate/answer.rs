//! What the aggregate answers itself: introductions, lists, levels.

use crate::{
    authenticate::Caller,
    bridge::{self, Crossing},
    call::Call,
    catalog::{Catalog, look::GLANCE},
    forward::open_leg,
    inject::Injected,
    pipeline::Line,
    release::list_action,
    resolve::Many,
    server::Server,
    session::{Leg, Session},
    stop::Stop,
    task,
    upstream::{Arrival, UpstreamFault, exchange::Hop},
};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use mcp::{Era, ListKind, Message, Revision};
use serde_json::{Map, Value, json};
use std::{collections::HashSet, fmt::Write, sync::Arc, time::Duration};

/// How long servers may take to hear that a session is over.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long a list waits for one server, and for one that is not known to answer.
const LIST: Duration = Duration::from_secs(15);
/// Instructions of one server, in characters, and of all together.
const INSTRUCTIONS: (usize, usize) = (2_000, 8_000);

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
        let catalogs = super::glances(self.line, members.iter()).await;
        Offers { all: catalogs.len() == members.len() && self.many.unavailable.is_empty(), catalogs }
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
            "capabilities": offers.capabilities(Era::Legacy),
            "serverInfo": { "name": "durward", "version": env!("CARGO_PKG_VERSION") },
        });
        offers.add_instructions(&mut result);
        Ok((result_of(request, &result.to_string()), Some(session)))
    }

    /// `server/discover`: what can truly be delivered to this caller.
    pub(crate) async fn discover(&self, request: &Message) -> Arrival {
        let offers = self.known().await;
        let versions: Vec<&str> = Revision::MODERN.iter().map(|revision| revision.as_str()).collect();
        let mut result = json!({
            "resultType": "complete",
            "supportedVersions": versions,
            "capabilities": offers.capabilities(Era::Modern),
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": { (mcp::key::SERVER_INFO): { "name": "durward", "version": env!("CARGO_PKG_VERSION") } },
        });
        offers.add_instructions(&mut result);
        result_of(request, &result.to_string())
    }

    /// One list of every server, all pages, narrowed to what the caller may see.
    pub(crate) async fn list(&self, request: &Message, kind: ListKind) -> Arrival {
        // What cannot be said without what servers must not hear is not said at all.
        let untold = task::untold(request, &self.line.snapshot.answer_limits()).ok();
        let meta = untold.as_ref().and_then(|request| request.param(&["_meta"]));
        let meta = meta.map(|member| String::from_utf8_lossy(member.raw).into_owned());
        let meta = meta.as_deref();
        let reading = self.hops().map(|hop| async move { (hop.server, self.pages(&hop, kind, meta).await) });
        let mut elements: Vec<Bytes> = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        let mut unavailable: Vec<Value> = self
            .many
            .unavailable
            .iter()
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
                    let stop = fault.stop(&server.name);
                    tracing::warn!(server = %server.name, %fault, "the server is missing from a list");
                    unavailable.push(json!({ "server": server.name.as_str(), "reason": stop.message }));
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
        whole(mcp::list::compose(request.id().unwrap_or("null"), kind, elements, None, members.as_deref()))
    }

    /// Every page of one server, in bounded time: one that hangs must not hold up the others.
    async fn pages(&self, hop: &Hop<'_>, kind: ListKind, meta: Option<&str>) -> Result<Vec<Message>, UpstreamFault> {
        // One call more for that server, as on its own door.
        let _in_flight = hop.server.state.enter(hop.server.calls_in_flight).ok_or(UpstreamFault::Busy)?;
        let reading = async {
            if let (Crossing::Upward, Some(session)) =
                (Crossing::between(self.call.era, hop.server), &self.many.session)
            {
                let meta = bridge::upward::introduction(session)?.metadata();
                let meta = String::from_utf8_lossy(&meta);
                let leg = self.line.state.modern_leg(hop, self.caller.principal.id())?;
                return hop.pages(leg.as_deref(), kind, Era::Modern, Some(&meta)).await;
            }
            if let (Crossing::Downward, Some(request)) =
                (Crossing::between(self.call.era, hop.server), self.call.message())
            {
                return bridge::downward::pages(hop, self.caller, request, kind).await;
            }
            let leg = self.leg(hop).await?;
            match (hop.pages(leg.as_deref(), kind, self.call.era, meta).await, &self.many.session) {
                (Err(UpstreamFault::Lost), Some(session)) => {
                    session.drop_leg(&hop.server.name);
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
            None => self.line.state.modern_leg(hop, self.caller.principal.id()),
        }
    }

    fn visible(
        &self,
        server: &Arc<Server>,
        kind: ListKind,
        pages: &[Message],
        seen: &mut HashSet<String>,
    ) -> Result<Vec<Bytes>, UpstreamFault> {
        let mut kept = Vec::new();
        for page in pages {
            let entries = mcp::list::entries(page, kind).map_err(|fault| UpstreamFault::Protocol(fault.to_string()))?;
            for entry in entries {
                let resource = server.resource(&entry.name);
                let policies = &self.line.snapshot.policies;
                if !policies.visible(&self.caller.subject, list_action(kind), &resource) {
                    continue;
                }
                let shown = match kind {
                    ListKind::Tools | ListKind::Prompts => mcp::name::join(server.name.as_str(), &entry.name),
                    ListKind::Resources | ListKind::Templates => entry.name.to_string(),
                };
                // The same URI on two servers: the first one is the one that will be read.
                if seen.insert(shown.clone()) {
                    kept.push(if shown == *entry.name {
                        Bytes::copy_from_slice(entry.raw)
                    } else {
                        entry.renamed(&shown)
                    });
                }
            }
        }
        Ok(kept)
    }

    /// The level holds for every server of the session, those opened later too.
    pub(crate) async fn set_level(&self, request: &Message) -> Arrival {
        if let Some(session) = &self.many.session {
            session.set_log_level(request.bytes().clone());
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
        Arrival::Bare { status: StatusCode::ACCEPTED, headers: HeaderMap::new() }
    }

    async fn to_legs(&self, session: &Arc<Session>, message: &Message) {
        for hop in self.hops() {
            let Some(leg) = session.leg(hop.server) else { continue };
            let sent = match message.id() {
                Some(_) => hop.ask(Some(&leg), message).await.map(drop),
                None => hop.send(Some(&leg), message).await.map(drop),
            };
            if let Err(fault) = sent {
                tracing::debug!(server = %hop.server.name, %fault, "a server did not take a message for all");
            }
        }
    }

    /// Ends the session here and, as far as they can be reached, on the servers.
    pub(crate) async fn end(&self) -> Arrival {
        if let Some(session) = &self.many.session {
            let ends = self.hops().map(|hop| async move {
                if let Some(leg) = session.leg(hop.server) {
                    hop.end(&leg).await;
                }
            });
            let _ = tokio::time::timeout(FAREWELL, join_all(ends)).await;
            self.line.state.sessions.close(session);
        }
        Arrival::Bare { status: StatusCode::OK, headers: HeaderMap::new() }
    }
}

/// A result of ours as an arrival.
pub(crate) fn result_of(request: &Message, result: &str) -> Arrival {
    whole(mcp::error::result_text(request.id().unwrap_or("null"), result.as_bytes()))
}

/// One JSON message as an arrival.
pub(crate) fn whole(body: Bytes) -> Arrival {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Arrival::Whole { status: StatusCode::OK, headers, body }
}

/// What the servers offer, as far as they are known.
struct Offers<'a> {
    catalogs: Vec<(&'a Arc<Server>, Arc<Catalog>)>,
    /// None is left out.
    all: bool,
}

impl Offers<'_> {
    /// What at least one server can do and the gateway carries. Servers that are not known yet may have everything that
    /// is listed; that lists change the gateway says itself where no server does.
    fn capabilities(&self, era: Era) -> Value {
        let any = |name: &str| self.catalogs.iter().any(|(_, catalog)| catalog.capabilities.get(name).is_some());
        let subscribes = self.catalogs.iter().any(|(_, catalog)| {
            catalog.capabilities.get("resources").and_then(|resources| resources.get("subscribe"))
                == Some(&Value::Bool(true))
        });
        let mut capabilities = Map::new();
        for name in ["tools", "prompts", "resources"] {
            if any(name) || !self.all {
                capabilities.insert(name.to_owned(), json!({ "listChanged": true }));
            }
        }
        if subscribes && let Some(Value::Object(resources)) = capabilities.get_mut("resources") {
            resources.insert("subscribe".to_owned(), Value::Bool(true));
        }
        if any("completions") {
            capabilities.insert("completions".to_owned(), json!({}));
        }
        if era == Era::Legacy && any("logging") {
            capabilities.insert("logging".to_owned(), json!({}));
        }
        Value::Object(capabilities)
    }

    /// Instructions of the servers, each attributed and bounded: they are text of strangers.
    fn add_instructions(&self, result: &mut Value) {
        let mut text = String::new();
        for (server, catalog) in &self.catalogs {
            let Some(instructions) = &catalog.instructions else { continue };
            let part: String = instructions.chars().take(INSTRUCTIONS.0).collect();
            if text.len() + part.len() > INSTRUCTIONS.1 {
                break;
            }
            // Writing into a text cannot fail.
            let _ = writeln!(text, "[server {} says]\n{part}", server.name);
        }
        if let (false, Value::Object(result)) = (text.is_empty(), result) {
            result.insert("instructions".to_owned(), Value::String(text));
        }
    }
}
