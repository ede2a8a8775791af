//! Tools that a legacy server shows in one session alone, as one does that shows more once the client asked for it: the
//! session is asked where the catalog has no tool of a name, and what it shows is kept with its leg.
//!
//! INVARIANT: never part of the catalog, and nobody's who has another session. Never decides what a caller may see.

use super::{Tool, look::FRESH, micros};
use crate::{
    authenticate::Caller,
    bridge::{self, Crossing},
    call::Call,
    inject,
    pipeline::Line,
    server::Server,
    session::{Leg, Session},
    upstream::{UpstreamFault, exchange::Hop},
    verdict::PAUSE,
};
use mcp::{Era, ListKind, Message};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::time::timeout;

/// Tools that are kept of one session.
const MOST: usize = 256;
/// Bytes of their names and definitions.
const MOST_BYTES: usize = 512 << 10;

/// What one session shows beyond the catalog.
#[derive(Default)]
pub(crate) struct Apart {
    /// One asks, the others wait for what it finds.
    asking: tokio::sync::Mutex<()>,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    tools: HashMap<Box<str>, Definition>,
    /// As of when these are.
    seen: Moment,
    /// When the session was last asked, whatever came of it.
    asked: Moment,
}

/// When a session was asked.
#[derive(Default, Clone, Copy)]
struct Moment {
    /// In ticks; 0 for never.
    at: u64,
    /// How often the server had said by then that its tools changed.
    told: u64,
}

impl Moment {
    fn now(hop: &Hop<'_>) -> Self {
        Self { at: hop.state.clock.ticks().max(1), told: hop.server.state.tools_told.load(Ordering::Acquire) }
    }

    /// Whether this is so long ago, or less, and nothing was said since.
    fn is_within(self, time: Duration, now: Self) -> bool {
        self.at != 0 && self.told == now.told && now.at.saturating_sub(self.at) <= micros(time)
    }
}

/// A tool is read when it is called: most never are.
enum Definition {
    Text(Box<[u8]>),
    Tool(Arc<Tool>),
}

impl Apart {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tool of this name, as it was shown last.
    fn tool(&self, name: Option<&str>) -> Option<Arc<Tool>> {
        self.shown().tools.get_mut(name?).map(Definition::read)
    }

    /// The same, where nothing says that it may be another by now.
    fn fresh_tool(&self, name: Option<&str>, now: Moment) -> Option<Arc<Tool>> {
        self.tool(name).filter(|_| self.is_fresh(now))
    }

    fn is_fresh(&self, now: Moment) -> bool {
        self.shown().seen.is_within(FRESH, now)
    }

    /// Whether the session may be asked: what clients ask for must not hammer a server.
    fn may_ask(&self, now: Moment) -> bool {
        let mut shown = self.shown();
        let may = !shown.asked.is_within(PAUSE, now);
        if may {
            shown.asked = now;
        }
        may
    }

    fn keep(&self, tools: HashMap<Box<str>, Definition>, seen: Moment) {
        let mut shown = self.shown();
        (shown.tools, shown.seen) = (tools, seen);
    }
}

impl Definition {
    fn read(&mut self) -> Arc<Tool> {
        match self {
            Self::Tool(tool) => Arc::clone(tool),
            Self::Text(text) => {
                let tool = Arc::new(Tool::new(text));
                *self = Self::Tool(Arc::clone(&tool));
                tool
            }
        }
    }
}

impl Line {
    /// The tool that a legacy server shows in the caller's session, where it has one. Who may not see a name gives none: then
    /// the session is asked as for a name that it does not show.
    pub(crate) async fn tool_apart(
        &self,
        server: &Arc<Server>,
        session: Option<&Arc<Session>>,
        (caller, call): (&Caller, &Call),
        name: Option<&str>,
    ) -> Result<Option<Arc<Tool>>, UpstreamFault> {
        let crossing = Crossing::to(call.era, server);
        let (session, request) = match (call.era, crossing) {
            (Era::Legacy, Some(Crossing::None)) => (session, None),
            (Era::Modern, Some(Crossing::Downward)) => (None, call.message()),
            _ => (None, None),
        };
        // SECURITY: what its rules keep the caller from asking is not asked for it.
        let (method, policies) = (ListKind::Tools.method(), &self.snapshot.policies);
        let may_list = policies.authorize_open(&caller.subject, method, &[server.resource(method)]).is_ok();
        if !may_list || (session.is_none() && request.is_none()) {
            return Ok(None);
        }
        let injected =
            inject::credentials(&self.state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
        let hop = Hop { state: &self.state, server, injected: &injected, limits: self.snapshot.answer_limits() };
        let leg = session
            .and_then(|session| hop.leg_of(session))
            .or_else(|| bridge::downward::known_leg(&hop, caller, request?));
        match leg {
            Some(leg) => Box::pin(hop.tool_apart(&leg, name)).await,
            None => Ok(None),
        }
    }
}

impl Hop<'_> {
    async fn tool_apart(&self, leg: &Leg, name: Option<&str>) -> Result<Option<Arc<Tool>>, UpstreamFault> {
        if let Some(tool) = leg.apart.fresh_tool(name, Moment::now(self)) {
            return Ok(Some(tool));
        }
        // Who waits for somebody else's question waits no longer than for one of its own.
        let deadline = self.server.deadline;
        let asking = self.tool_asked_for(leg, name);
        timeout(deadline, asking).await.map_err(|_| UpstreamFault::Timeout(deadline))?
    }

    async fn tool_asked_for(&self, leg: &Leg, name: Option<&str>) -> Result<Option<Arc<Tool>>, UpstreamFault> {
        let apart = &leg.apart;
        let _turn = apart.asking.lock().await;
        // What the server says from here on is newer than what it shows.
        let now = Moment::now(self);
        if let Some(tool) = apart.fresh_tool(name, now) {
            return Ok(Some(tool));
        }
        let _in_flight = self.server.state.enter(self.server.calls_in_flight).ok_or(UpstreamFault::Busy)?;
        if apart.may_ask(now) {
            let pages = match self.pages(Some(leg), ListKind::Tools, Era::Legacy, None).await {
                // Whoever calls finds the session gone, and is told so.
                Err(UpstreamFault::Lost) => return Ok(apart.tool(name)),
                // One that lists nothing shows nothing.
                Err(UpstreamFault::List { .. }) => Vec::new(),
                pages => pages?,
            };
            let catalog = self.server.state.catalog.load_full();
            let is_everybodys = |name: &str| {
                catalog.as_ref().is_some_and(|catalog| catalog.spoken(Era::Legacy).tools.contains_key(name))
            };
            apart.keep(beyond(&pages, is_everybodys)?, now);
        } else if !apart.is_fresh(now) {
            return Err(UpstreamFault::Down("its tools could not be listed in this session a moment ago".to_owned()));
        }
        Ok(apart.tool(name))
    }
}

/// The tools in a list that not everybody is shown, as far as there is room.
fn beyond(
    pages: &[Message],
    is_everybodys: impl Fn(&str) -> bool,
) -> Result<HashMap<Box<str>, Definition>, UpstreamFault> {
    let mut tools: HashMap<Box<str>, Definition> = HashMap::new();
    let mut room = MOST_BYTES;
    for page in pages {
        let entries =
            mcp::list::entries(page, ListKind::Tools).map_err(|fault| UpstreamFault::Protocol(fault.to_string()))?;
        for entry in entries {
            let left = room.checked_sub(entry.name.len() + entry.raw.len());
            if let (false, Some(left), true) = (is_everybodys(&entry.name), left, tools.len() < MOST) {
                room = left;
                let definition = match tools.get_mut(&*entry.name) {
                    Some(first) => Definition::Tool(Tool::and(&Definition::read(first), entry.raw)),
                    None => Definition::Text(Box::from(entry.raw)),
                };
                tools.insert(Box::from(&*entry.name), definition);
            }
        }
    }
    Ok(tools)
}

#[cfg(test)]
mod tests {
    use super::{MOST, MOST_BYTES, beyond};
    use crate::upstream::exchange;
    use mcp::Limits;
    use serde_json::{Value, json};

    fn kept(tools: &[Value]) -> Vec<String> {
        let page = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).to_string();
        let page = exchange::one(page.into(), &Limits { body: usize::MAX, depth: 64, batch: 1 }).unwrap();
        let mut names: Vec<String> =
            beyond(&[page], |name| name == "everybody's").unwrap().into_keys().map(String::from).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_tool_that_a_session_defines_in_two_ways_is_refused() {
        let tools =
            json!([{"name": "a", "inputSchema": {"type": "object"}}, {"name": "a", "inputSchema": {"required": []}}]);
        let page = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).to_string();
        let page = exchange::one(page.into(), &Limits::default()).unwrap();
        let tool = beyond(&[page], |_| false).unwrap().get_mut("a").unwrap().read();
        assert!(tool.refused(mcp::Era::Legacy).unwrap().contains("twice"));
    }

    #[test]
    fn what_is_kept_of_a_session_is_bounded() {
        let tool = |name: &str, length: usize| json!({"name": name, "description": "x".repeat(length)});
        assert_eq!(kept(&[tool("everybody's", 1), tool("own", 1)]), ["own"]);
        let many: Vec<Value> = (0..MOST + 10).map(|number| tool(&number.to_string(), 1)).collect();
        assert_eq!(kept(&many).len(), MOST);
        // What is too large leaves room for others.
        assert_eq!(kept(&[tool("a", MOST_BYTES / 2), tool("b", MOST_BYTES / 2), tool("c", 1)]), ["a", "c"]);
    }
}
