//! What a closed call adds to the metrics, and what is read off when somebody asks.

use super::{
    instruments as all,
    meter::{Counted, Family, Fixed, Names, OTHER, Series, Value, level},
};
use crate::{
    journal::Closed,
    server::Server,
    state::State,
    stop::Stage,
    trail::{Facts, Mark},
};
use audit::Outcome;
use mcp::{Era, ListKind};
use std::{borrow::Cow, collections::HashMap, sync::atomic::Ordering};
use vocab::{Action, ServerName, Side};

/// Distinct servers in labels.
const SERVERS: usize = 200;
/// Distinct agents in labels.
const AGENTS: usize = 500;
/// Distinct tools in labels, over all servers.
const TOOLS: usize = 1000;
/// Distinct kinds of findings in labels.
const KINDS: usize = 300;
/// Distinct types of errors in labels: servers choose codes as they like.
const ERRORS: usize = 50;

/// What was counted of all closed calls.
#[derive(Debug)]
pub(crate) struct Metrics {
    servers: Names,
    agents: Names,
    tools: Names,
    kinds: Names,
    errors: Names,
    operation: Counted,
    upstream: Counted,
    called: Counted,
    agent_called: Counted,
    tool_called: Counted,
    bridged: Counted,
    stopped: Counted,
    limited: Counted,
    found: Counted,
    stage: Fixed<{ Stage::BY_NAME.len() }>,
    added: Counted,
    /// Whether the last call to a server reached it. What is configured bounds what is shown.
    reached: HashMap<ServerName, bool>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            servers: Names::new(SERVERS),
            agents: Names::new(AGENTS),
            tools: Names::new(TOOLS),
            kinds: Names::new(KINDS),
            errors: Names::new(ERRORS),
            operation: Counted::new(&all::OPERATION),
            upstream: Counted::new(&all::UPSTREAM),
            called: Counted::new(&all::CALLED),
            agent_called: Counted::new(&all::AGENT_CALLED),
            tool_called: Counted::new(&all::TOOL_CALLED),
            bridged: Counted::new(&all::BRIDGED),
            stopped: Counted::new(&all::STOPPED),
            limited: Counted::new(&all::LIMITED),
            found: Counted::new(&all::FOUND),
            stage: Fixed::new(&all::STAGE, Stage::BY_NAME.map(Stage::as_str)),
            added: Counted::new(&all::ADDED),
            reached: HashMap::new(),
        }
    }
}

impl Metrics {
    /// Counts a closed call.
    pub(crate) fn count(&mut self, closed: &Closed) {
        let Closed { facts, outcome } = closed;
        let plain = facts.server.as_ref().map_or("", ServerName::as_str);
        let server = self.servers.bound("", plain);
        let method = method(facts);
        let verdict = outcome_name(outcome);
        let named = tool(facts, outcome);
        let tool = self.tools.bound(plain, &named);
        self.called.count(&[server, method, verdict, facts.era.as_str()]);
        if facts.bridged.is_some() {
            self.bridged.count(&[server, facts.era.as_str()]);
        }
        if let Some(principal) = &facts.principal {
            // What issuers sign for those who are not registered here takes no room from those who are.
            let agent = if is_unregistered(outcome) { OTHER } else { self.agents.bound("", principal.agent.as_str()) };
            self.agent_called.count(&[agent, verdict]);
            if matches!(outcome, Outcome::Refused { stage, .. } if *stage == Stage::Limit.as_str()) {
                self.limited.count(&[agent]);
            }
        }
        if !tool.is_empty() {
            self.tool_called.count(&[server, tool, verdict]);
        }
        if let Outcome::Refused { reason, stage }
        | Outcome::Withheld { reason, stage }
        | Outcome::Faulted { reason, stage } = outcome
        {
            self.stopped.count(&[verdict, stage, reason]);
        }
        for finding in &facts.findings {
            let side = match finding.side {
                Side::Arguments => "arguments",
                Side::Result => "result",
            };
            self.found.count(&[self.kinds.bound("", &finding.kind), side]);
        }
        let error = error_type(facts, outcome);
        let revision = facts.revision.map_or("", mcp::Revision::as_str);
        let error = self.errors.bound("", &error);
        self.operation.observe(&[method, tool, error, revision], seconds(facts.duration_us));
        self.time(facts, server, method, error);
        self.reach(facts, outcome);
    }

    fn time(&mut self, facts: &Facts, server: &str, method: &str, error: &str) {
        for mark in &facts.stages {
            self.stage.observe(mark.stage.place(), seconds(mark.us.into()));
        }
        let waited = facts.stages.iter().find(|mark| mark.stage == Stage::Forward).map(|mark| mark.us);
        if let Some(waited) = waited {
            self.upstream.observe(&[method, server, error], seconds(waited.into()));
            // What a stream takes after its begin is the server's time.
            if !facts.streamed {
                self.added.observe(&[], seconds(facts.duration_us.saturating_sub(waited.into())));
            }
        }
    }

    fn reach(&mut self, facts: &Facts, outcome: &Outcome) {
        let Some(server) = &facts.server else { return };
        let Some(Mark { verdict, .. }) = facts.stages.iter().find(|mark| mark.stage == Stage::Forward) else { return };
        let reached = match (*verdict, outcome) {
            ("ok", Outcome::Faulted { reason, .. }) => !reason.starts_with("upstream-"),
            ("ok", _) => true,
            // Our own bounds say nothing of the server.
            ("upstream-busy" | "sessions" | "credential" | "session", _) => return,
            _ => false,
        };
        match self.reached.get_mut(server) {
            Some(known) => *known = reached,
            None => drop(self.reached.insert(server.clone(), reached)),
        }
    }

    /// What was counted so far.
    pub(crate) fn counted(&self) -> Vec<Family> {
        let counted = [
            &self.operation,
            &self.upstream,
            &self.called,
            &self.agent_called,
            &self.tool_called,
            &self.bridged,
            &self.stopped,
            &self.limited,
            &self.found,
        ];
        counted.into_iter().map(Counted::family).chain([self.stage.family(), self.added.family()]).collect()
    }

    /// What was counted, and what can be read off now.
    pub(crate) fn families(&mut self, state: &State) -> Vec<Family> {
        let snapshot = state.snapshot.load();
        self.reached.retain(|server, _| snapshot.servers.contains_key(server));
        let mut families = self.counted();
        families.extend([
            Family::read(&all::UNDER_WAY, [([], state.under_way.load(Ordering::Relaxed) as u64)]),
            Family::read(&all::ABSENT, [([], state.absences.count() as u64)]),
            Family::read(&all::DROPPED, state.tally.counts()),
            Family::read(&all::SESSIONS, [([], state.sessions.count() as u64)]),
            Family::read(&all::STREAMS, [([], state.census.streams() as u64)]),
            Family::read(&all::LEGS, [([], state.leg_count() as u64)]),
            Family::read(&all::PARKED, [([], state.parked_count() as u64)]),
            Family::read(&all::CHILDREN, [([], state.children.running() as u64)]),
            Family::read(&all::CONNECTIONS, [([], state.egress.connections() as u64)]),
            Family::read(&all::TASKS, [([], state.census.tasks() as u64)]),
        ]);
        families.extend(self.servers(snapshot.servers.values().map(|server| &**server)));
        families.extend(journal(state));
        families.extend(texts(state));
        families.push(Family::read(&all::BUILD, [([env!("CARGO_PKG_VERSION")], 1)]));
        families
    }

    /// What is known of the servers. The configuration bounds their number.
    fn servers<'a>(&self, servers: impl Iterator<Item = &'a Server>) -> [Family; 5] {
        let (mut up, mut eras, mut active, mut tools) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut lost = Vec::new();
        for server in servers {
            let name = server.name.as_str();
            let looked = match (server.state.fault.load().is_some(), server.state.catalog.load().as_ref()) {
                (true, _) => Some(false),
                (false, Some(_)) => Some(true),
                (false, None) => None,
            };
            if let Some(works) = self.reached.get(&server.name).copied().or(looked) {
                up.push(point(&[name], u8::from(works).into()));
            }
            for era in [Era::Legacy, Era::Modern] {
                if let Some(speaks) = server.speaks(era) {
                    eras.push(point(&[name, era.as_str()], u8::from(speaks).into()));
                }
            }
            active.push(point(&[name], level(server.state.in_flight.load(Ordering::Relaxed) as u64)));
            let count = Value::Count(server.state.lost.load(Ordering::Relaxed));
            lost.push(Series { labels: [Box::from(name)].into(), value: count });
            if let Some(catalog) = server.state.catalog.load().as_ref() {
                tools.push(point(&[name], level(catalog.count(ListKind::Tools) as u64)));
            }
        }
        [
            Family { instrument: &all::SERVER_UP, series: up },
            Family { instrument: &all::SERVER_ERA, series: eras },
            Family { instrument: &all::SERVER_UNDER_WAY, series: active },
            Family { instrument: &all::SERVER_TOOLS, series: tools },
            Family { instrument: &all::SERVER_LOST, series: lost },
        ]
    }
}

fn point(labels: &[&str], level: f64) -> Series {
    Series { labels: labels.iter().map(|label| Box::from(*label)).collect(), value: Value::Level(level) }
}

/// What the log says of itself.
fn journal(state: &State) -> [Family; 9] {
    let log = state.journal.log();
    let stats = log.stats();
    let (unobserved, lost) = state.journal.losses();
    [
        Family::read(&all::LOG_SIZE, [(["system"], stats.system_size), (["tenant"], stats.size)]),
        Family::read(&all::LOG_QUEUED, [([], stats.queued as u64)]),
        Family::read(&all::LOG_COMMITS, [([], stats.commits)]),
        Family { instrument: &all::LOG_COMMIT, series: vec![point(&[], seconds(stats.last_commit_us))] },
        Family::read(&all::LOG_GROUP, [([], stats.last_group)]),
        Family::read(&all::LOG_HEALTHY, [([], log.takes_calls(state.clock.now()).is_ok().into())]),
        Family::read(&all::LOG_SURPLUS, [([], stats.surplus)]),
        Family::read(&all::LOST, [([], lost)]),
        Family::read(&all::UNOBSERVED, [([], unobserved)]),
    ]
}

/// What became of the texts of calls.
fn texts(state: &State) -> [Family; 2] {
    let stats = state.journal.log().texts().map(audit::Texts::stats).unwrap_or_default();
    let dropped = [("day", stats.full), ("disk", stats.failed), ("erased", stats.late), ("queue", stats.crowded)];
    [
        Family::read(&all::TEXTS_KEPT, [([], stats.kept)]),
        Family::read(&all::TEXTS_DROPPED, dropped.map(|(reason, count)| ([reason], count))),
    ]
}

/// Microseconds as seconds.
fn seconds(us: u64) -> f64 {
    level(us) / 1e6
}

/// The tool that was called, if there is one and its caller may see it. What does not exist is called what callers like, and
/// would use up the names that a label may have.
/// What moves a cursor where it is read is written as escapes.
fn tool<'a>(facts: &'a Facts, outcome: &Outcome) -> Cow<'a, str> {
    let is_hidden = matches!(outcome, Outcome::Refused { reason, .. } if *reason == "hidden");
    // Tools that were found have a class.
    let found = facts.class.filter(|_| !is_hidden && facts.action == Some(Action::ToolExecute));
    let name = found.and(facts.target.as_deref()).unwrap_or_default();
    if name.chars().any(char::is_control) { Cow::Owned(name.escape_debug().to_string()) } else { Cow::Borrowed(name) }
}

/// The method, as a label: methods of MCP by name, what anybody may invent as one.
pub fn method(facts: &Facts) -> &str {
    let method = &*facts.method;
    let known = matches!(method, "GET" | "DELETE" | "response" | "unread")
        || mcp::method::action(method).is_some()
        || mcp::method::is_open(method)
        || mcp::method::is_known_notification(method);
    if known { method } else { OTHER }
}

/// Whether somebody is refused who has proven a name that the configuration does not know.
fn is_unregistered(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused { reason, .. } if reason == "unregistered_agent")
}

/// `error.type` by the MCP conventions: the JSON-RPC code of the answer, `tool_error` where a tool says so itself.
/// Empty where nothing went wrong.
pub fn error_type(facts: &Facts, outcome: &Outcome) -> Cow<'static, str> {
    match (outcome, facts.code) {
        (Outcome::Answered, _) => Cow::Borrowed(""),
        (Outcome::Failed, None) => Cow::Borrowed("tool_error"),
        (Outcome::Abandoned, _) => Cow::Borrowed("abandoned"),
        (Outcome::Unknown, _) => Cow::Borrowed("unknown"),
        (_, Some(code)) => Cow::Owned(code.to_string()),
        (
            Outcome::Refused { reason, .. } | Outcome::Withheld { reason, .. } | Outcome::Faulted { reason, .. },
            None,
        ) => reason.clone(),
    }
}

/// The outcome, in one word.
pub const fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "answered",
        Outcome::Failed => "failed",
        Outcome::Refused { .. } => "refused",
        Outcome::Withheld { .. } => "withheld",
        Outcome::Faulted { .. } => "faulted",
        Outcome::Abandoned => "abandoned",
        Outcome::Unknown => "unknown",
    }
}
