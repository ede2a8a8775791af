//! What a server offers: fed by looking at it, kept per server and credential, refreshed when it is stale.

use crate::{
    pipeline::Line,
    server::{Server, Verdict},
    session::Leg,
    settings::EraSettings,
    snapshot::Snapshot,
    state::State,
    upstream::{
        UpstreamFault,
        exchange::{Hop, OWN_INTRODUCTION, OWN_META, one},
    },
};
use bytes::Bytes;
use mcp::{Era, ListKind, Message, Revision, param::Binding};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use vocab::Digest;

/// How long a look holds.
const FRESH: Duration = Duration::from_mins(5);
/// How long after a look caused by a missing name the next one may be.
const MISSES: Duration = Duration::from_secs(2);
/// How long after a look that failed the next one may be.
const FAILED: Duration = Duration::from_secs(1);
/// How long a process may take to answer in an era it may not know.
const PROBE: Duration = Duration::from_secs(5);

/// What a server offers.
pub struct Catalog {
    /// Tools by name.
    pub tools: HashMap<Box<str>, Arc<Tool>>,
    /// Names of prompts.
    pub prompts: HashSet<Box<str>>,
    /// URIs of resources.
    pub resources: HashSet<Box<str>>,
    /// URI templates.
    pub templates: Vec<Box<str>>,
    /// What the server says it can, in the era it was asked in.
    pub capabilities: Value,
    /// What it says about its use. Untrusted.
    pub instructions: Option<String>,
    /// When it was looked at, in ticks.
    pub looked_at: u64,
}

/// One tool.
pub struct Tool {
    /// The digest of its definition: the schema is compiled once for it.
    pub digest: Digest,
    /// Whether its calls can be checked.
    pub fitness: Fitness,
    /// Arguments that headers mirror.
    pub bindings: Vec<Binding>,
}

/// Whether the arguments of a tool can be checked.
pub enum Fitness {
    /// It has no schema.
    Free,
    /// It has one that compiles.
    Fit(Box<jsonschema::Validator>),
    /// It has one that does not: its calls are refused.
    Unfit(String),
}

impl Tool {
    fn new(definition: &[u8]) -> Self {
        let digest = Digest::of(definition);
        let schema = mcp::value(definition).ok().and_then(|mut tool| tool.get_mut("inputSchema").map(Value::take));
        let Some(schema) = schema else { return Self { digest, fitness: Fitness::Free, bindings: Vec::new() } };
        // Formats are annotations in 2020-12; patterns run on the linear engine; `$ref` never leaves the schema.
        let compiled = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .with_pattern_options(jsonschema::PatternOptions::regex())
            .build(&schema);
        let (fitness, bindings) = match (compiled, mcp::param::bindings(&schema)) {
            (Ok(validator), Ok(bindings)) => (Fitness::Fit(Box::new(validator)), bindings),
            (Err(fault), _) => (Fitness::Unfit(fault.to_string()), Vec::new()),
            (Ok(_), Err(fault)) => (Fitness::Unfit(fault.to_string()), Vec::new()),
        };
        Self { digest, fitness, bindings }
    }
}

impl Catalog {
    /// Whether `uri` is one of the server's resources, listed or by template.
    pub fn has_resource(&self, uri: &str) -> bool {
        self.resources.contains(uri) || self.templates.iter().any(|template| matches_template(template, uri))
    }
}

/// Whether a URI could come from a template (RFC 6570), by the literal parts around its expressions.
fn matches_template(template: &str, uri: &str) -> bool {
    let mut rest = uri;
    let mut first = true;
    for part in template.split('}') {
        let (literal, has_more) = match part.split_once('{') {
            Some((literal, _)) => (literal, true),
            None => (part, false),
        };
        let found = if first {
            rest.starts_with(literal).then_some(0)
        } else if has_more || !literal.is_empty() {
            rest.rfind(literal)
        } else {
            Some(rest.len())
        };
        let Some(at) = found else { return false };
        rest = rest.get(at + literal.len()..).unwrap_or_default();
        first = false;
    }
    rest.is_empty() || template.ends_with('}')
}

impl State {
    /// The tool called `name`. A name that is not known causes one look, at most one in [`MISSES`].
    pub(crate) async fn tool(
        &self,
        server: &Arc<Server>,
        name: &str,
        snapshot: &Snapshot,
    ) -> Result<Option<Arc<Tool>>, UpstreamFault> {
        let catalog = self.catalog(server, snapshot).await?;
        if let Some(tool) = catalog.tools.get(name) {
            return Ok(Some(Arc::clone(tool)));
        }
        let now = self.clock.ticks();
        let last = server.state.missed_at.load(Ordering::Acquire);
        let due = last == 0 || now.saturating_sub(last) > micros(MISSES);
        if !due
            || server.state.missed_at.compare_exchange(last, now.max(1), Ordering::AcqRel, Ordering::Acquire).is_err()
        {
            return Ok(None);
        }
        let catalog = Box::pin(self.look(server, snapshot, catalog.looked_at)).await?;
        Ok(catalog.tools.get(name).map(Arc::clone))
    }

    /// What a server offers, from the last look or a new one.
    pub(crate) async fn catalog(
        &self,
        server: &Arc<Server>,
        snapshot: &Snapshot,
    ) -> Result<Arc<Catalog>, UpstreamFault> {
        match server.state.catalog.load_full() {
            Some(catalog) if self.clock.ticks().saturating_sub(catalog.looked_at) < micros(FRESH) => Ok(catalog),
            // What is stale serves until it is known better.
            Some(catalog) => Ok(Box::pin(self.look(server, snapshot, catalog.looked_at)).await.unwrap_or(catalog)),
            None => Box::pin(self.look(server, snapshot, 0)).await,
        }
    }

    /// Looks at a server unless somebody did since `before`. One look at a time.
    pub(crate) async fn look(
        &self,
        server: &Arc<Server>,
        snapshot: &Snapshot,
        before: u64,
    ) -> Result<Arc<Catalog>, UpstreamFault> {
        let _one = server.state.looking.lock().await;
        if let Some(catalog) = server.state.catalog.load_full()
            && catalog.looked_at > before
        {
            return Ok(catalog);
        }
        // Those who waited for a look that failed have their answer.
        let failed_at = server.state.failed_at.load(Ordering::Acquire);
        if let Some(fault) = server.state.fault.load_full()
            && self.clock.ticks().saturating_sub(failed_at) < micros(FAILED)
        {
            return Err(UpstreamFault::Down(fault.to_string()));
        }
        match self.look_now(server, snapshot).await {
            Ok(catalog) => {
                let catalog = Arc::new(catalog);
                server.state.catalog.store(Some(Arc::clone(&catalog)));
                if server.state.fault.swap(None).is_some() {
                    self.journal.system("upstream-up", Some(server.name.to_string()));
                }
                Ok(catalog)
            }
            Err(fault) => {
                tracing::warn!(server = %server.name, %fault, "the server cannot be looked at");
                server.state.failed_at.store(self.clock.ticks(), Ordering::Release);
                if server.state.fault.swap(Some(Arc::new(fault.to_string()))).is_none() {
                    self.journal.system("upstream-down", Some(format!("{}: {fault}", server.name)));
                }
                Err(fault)
            }
        }
    }

    /// Looks at a server that was never looked at.
    pub(crate) async fn look_once(&self, server: &Arc<Server>, snapshot: &Snapshot) {
        if server.state.catalog.load().is_none() {
            // The fault is kept with the server; whoever needs the server will meet it.
            let _ = self.look(server, snapshot, 0).await;
        }
    }

    async fn look_now(&self, server: &Arc<Server>, snapshot: &Snapshot) -> Result<Catalog, UpstreamFault> {
        let injected =
            crate::inject::credentials(self, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
        let hop = Hop { state: self, server, injected: &injected, limits: snapshot.answer_limits() };
        let modern = match server.era {
            Some(EraSettings::Legacy) => Ok(None),
            Some(EraSettings::Modern | EraSettings::Both) | None => hop.discover().await,
        };
        let legacy = match server.era {
            Some(EraSettings::Modern) => Ok(None),
            Some(EraSettings::Legacy | EraSettings::Both) | None => hop.introduce().await,
        };
        let verdict = Verdict {
            legacy: legacy.as_ref().ok().map(Option::is_some),
            modern: modern.as_ref().ok().map(Option::is_some),
        };
        let catalog = match (modern, legacy) {
            (Ok(Some((leg, identity))), other) => {
                if let Ok(Some((leg, _))) = &other {
                    hop.end(leg).await;
                }
                hop.read(leg.as_ref(), Era::Modern, &identity, self.clock.ticks()).await
            }
            (_, Ok(Some((leg, identity)))) => {
                let catalog = hop.read(Some(&leg), Era::Legacy, &identity, self.clock.ticks()).await;
                hop.end(&leg).await;
                catalog
            }
            (Err(fault), Ok(None) | Err(_)) | (Ok(None), Err(fault)) => Err(fault),
            (Ok(None), Ok(None)) => {
                Err(UpstreamFault::Protocol("it answers neither `server/discover` nor `initialize`".to_owned()))
            }
        }?;
        server.state.verdict.store(Arc::new(verdict));
        Ok(catalog)
    }
}

impl Hop<'_> {
    /// Asks in the modern era. `None` if the server does not speak it.
    async fn discover(&self) -> Result<Option<(Option<Leg>, Message)>, UpstreamFault> {
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{{"_meta":{}}}}}"#, *OWN_META);
        let question = one(Bytes::from(text), &self.limits)?;
        // A process is asked beside the one that serves: old ones exit on what comes before `initialize`.
        let leg = match &self.server.transport {
            crate::server::Transport::Http(_) => None,
            crate::server::Transport::Stdio(_) => Some(Leg {
                fingerprint: self.server.fingerprint,
                revision: Revision::V2026_07_28,
                way: crate::session::Way::Pipe(self.start()?),
                own: true,
            }),
        };
        let asked = tokio::time::timeout(PROBE, self.ask_again(leg.as_ref(), &question)).await;
        let answer = match (asked, &leg) {
            (Ok(Ok(answer)), _) => answer,
            // SPEC: silence means legacy on a pipe, and an outage on HTTP.
            (Ok(Err(_)) | Err(_), Some(_)) | (Ok(Err(UpstreamFault::Protocol(_))), None) => return Ok(None),
            (Ok(Err(fault)), None) => return Err(fault),
            (Err(_), None) => return Err(UpstreamFault::Timeout(PROBE)),
        };
        let speaks = answer
            .outcome_member(&["supportedVersions"])
            .and_then(|member| member.value().ok())
            .is_some_and(|versions| has_modern(&versions));
        Ok(speaks.then_some((leg, answer)))
    }

    /// Asks, and asks once more where the server refuses the version and names it as one that it speaks.
    async fn ask_again(&self, leg: Option<&Leg>, question: &Message) -> Result<Message, UpstreamFault> {
        let answer = self.ask(leg, question).await?;
        let named = answer.error_code() == Some(mcp::error::UNSUPPORTED_VERSION)
            && answer.error_member().and_then(|error| error.value().ok()).is_some_and(|error| {
                has_modern(error.get("data").and_then(|data| data.get("supported")).unwrap_or(&Value::Null))
            });
        if named { self.ask(leg, question).await } else { Ok(answer) }
    }

    /// Asks in the legacy era. `None` if the server does not speak it.
    async fn introduce(&self) -> Result<Option<(Leg, Message)>, UpstreamFault> {
        let introduction = one(Bytes::from_static(OWN_INTRODUCTION.as_bytes()), &self.limits)?;
        // A process is asked beside the one that serves.
        let pipe = match &self.server.transport {
            crate::server::Transport::Http(_) => None,
            crate::server::Transport::Stdio(_) => Some(self.start()?),
        };
        match self.open(&introduction, pipe).await {
            Ok((leg, answer)) => Ok(Some((leg, answer))),
            Err(UpstreamFault::Protocol(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Reads every list.
    async fn read(&self, leg: Option<&Leg>, era: Era, identity: &Message, now: u64) -> Result<Catalog, UpstreamFault> {
        let capabilities =
            identity.outcome_member(&["capabilities"]).and_then(|member| member.value().ok()).unwrap_or(Value::Null);
        let instructions = identity
            .outcome_member(&["instructions"])
            .and_then(|member| member.text().map(std::borrow::Cow::into_owned));
        let before = self.server.state.catalog.load_full();
        let mut tools = HashMap::new();
        let (mut prompts, mut resources, mut templates) = (HashSet::new(), HashSet::new(), Vec::new());
        for kind in ListKind::ALL {
            if capabilities.get(capability(kind)).is_none() {
                continue;
            }
            for page in self.pages(leg, kind, era, None).await? {
                let entries =
                    mcp::list::entries(&page, kind).map_err(|fault| UpstreamFault::Protocol(fault.to_string()))?;
                for entry in entries {
                    let name: Box<str> = Box::from(&*entry.name);
                    match kind {
                        ListKind::Tools => {
                            let known = before.as_ref().and_then(|before| before.tools.get(&name));
                            let tool = match known {
                                Some(tool) if tool.digest == Digest::of(entry.raw) => Arc::clone(tool),
                                _ => Arc::new(Tool::new(entry.raw)),
                            };
                            tools.insert(name, tool);
                        }
                        ListKind::Prompts => drop(prompts.insert(name)),
                        ListKind::Resources => drop(resources.insert(name)),
                        ListKind::Templates => templates.push(name),
                    }
                }
            }
        }
        Ok(Catalog { tools, prompts, resources, templates, capabilities, instructions, looked_at: now.max(1) })
    }
}

/// Whether a list of versions holds the one that the gateway asks in.
fn has_modern(versions: &Value) -> bool {
    versions.as_array().is_some_and(|versions| versions.iter().any(|version| version == Revision::V2026_07_28.as_str()))
}

/// A server says that a list changed: the next who needs it looks again.
pub(crate) fn notice(line: &Line, server: &Arc<Server>, message: &Message) {
    let changed = matches!(
        message.method(),
        "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
    );
    if !changed {
        return;
    }
    let (state, server) = (Arc::clone(&line.state), Arc::clone(server));
    let before = server.state.catalog.load().as_ref().map_or(0, |catalog| catalog.looked_at);
    tokio::spawn(async move {
        let line = state.line();
        // A fault is kept with the server.
        let _ = state.look(&server, &line.snapshot, before).await;
    });
}

/// A modern list whose cache scope is `private`, whatever the server said: this one is the caller's own.
pub(crate) fn private(list: &Message) -> Bytes {
    match list.outcome_member(&["cacheScope"]) {
        Some(scope) => mcp::splice(list.bytes(), &mut [(scope.span.clone(), b"\"private\"".to_vec())]),
        None => list.bytes().clone(),
    }
}

/// The capability that stands for a list.
pub(crate) const fn capability(kind: ListKind) -> &'static str {
    match kind {
        ListKind::Tools => "tools",
        ListKind::Prompts => "prompts",
        ListKind::Resources | ListKind::Templates => "resources",
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::matches_template;

    #[test]
    fn templates_match_by_their_literal_parts() {
        for (template, uri, expected) in [
            ("file:///{path}", "file:///a/b", true),
            ("db://{table}/rows/{id}", "db://users/rows/7", true),
            ("db://{table}/rows", "db://users/rows", true),
            ("db://{table}/rows", "db://users/cols", false),
            ("file:///{path}", "http://a", false),
            ("test://static", "test://static", true),
            ("test://static", "test://static2", false),
        ] {
            assert_eq!(matches_template(template, uri), expected, "{template} {uri}");
        }
    }
}
