//! What two configurations differ in, line by line, without a secret.

use super::{
    settings::{Reach, Server, Settings, ToolRule},
    show::{HIDDEN, Shown, show, whole},
};
use policy::{Policies, RuleSpec};
use serde_json::Value;
use std::{collections::BTreeMap, fmt};
use vocab::RuleId;

/// What a running gateway cannot change: sockets, threads, the directory and its key, rooms of a fixed size.
const AT_START: [&str; 10] = [
    "listen",
    "socket_access",
    "proxy_protocol",
    "admin",
    "data",
    "workers",
    "vault",
    "bounds.connections",
    "bounds.children",
    "bounds.children_per_principal",
];

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// What it concerns: `servers.github.url`.
    pub(crate) path: String,
    /// What it was; none: it was not there.
    pub(crate) before: Option<String>,
    /// What it is; none: it is gone.
    pub(crate) after: Option<String>,
}

/// What differs from what is in force, and what takes effect at the next start only.
#[derive(Default)]
pub(crate) struct Difference {
    /// What is different from before.
    pub(crate) changes: Vec<String>,
    /// What waits for the next start, and was different before already.
    pub(crate) waits: Vec<String>,
}

impl Difference {
    /// What a reload from `before` to `after` changes in a gateway that was started with `started`.
    pub(crate) fn of(started: &Settings, before: &Settings, after: &Settings) -> Self {
        let (since_start, since) = match (between(started, after), between(before, after)) {
            (Ok(since_start), Ok(since)) => (since_start, since),
            (Err(cause), _) | (_, Err(cause)) => {
                let line = format!("what is different cannot be told: {cause}");
                return Self { changes: vec![line], waits: Vec::new() };
            }
        };
        let mut waiting: BTreeMap<String, String> =
            since_start.iter().filter(|change| change.waits()).map(Change::waiting).collect();
        let mut changes = Vec::new();
        for change in since {
            let waits = waiting.remove(&change.path);
            changes.push(match waits {
                _ if !change.waits() => change.to_string(),
                Some(_) => change.waiting().1,
                None => format!("{change}, as it was at the start: it waits no longer"),
            });
        }
        Self { changes, waits: waiting.into_values().collect() }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) if before == after => write!(f, "~ {path}: changed, not shown"),
            (Some(before), Some(after)) => write!(f, "~ {path}: {before} → {after}"),
            (Some(before), None) => write!(f, "- {path}: {before}"),
            (None, Some(after)) => write!(f, "+ {path}: {after}"),
            (None, None) => write!(f, "  {path}"),
        }
    }
}

impl Change {
    /// Its path, and how it is told while it waits for the next start.
    fn waiting(&self) -> (String, String) {
        (self.path.clone(), format!("at the next start: {self}"))
    }

    /// Whether it takes effect at the next start only.
    fn waits(&self) -> bool {
        let of = |key: &&str| self.path.strip_prefix(*key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        // Another certificate is shown at once; TLS itself begins and ends with the listener.
        let turns = of(&"tls") && (self.before.is_none() || self.after.is_none());
        turns || AT_START.iter().any(of)
    }
}

/// Rules that are told one by one.
const RULES: usize = 32;

/// What two sets of policies differ in, rule by rule.
pub(crate) fn policies(before: &Policies, after: &Policies) -> Vec<String> {
    if before.version() == after.version() {
        return Vec::new();
    }
    let (old, new) = (rules(before), rules(after));
    let gone = old.iter().filter(|(id, _)| !new.contains_key(*id)).map(|(_, rule)| ("-", rule));
    let others = new.iter().filter_map(|(id, rule)| match old.get(id) {
        None => Some(("+", rule)),
        Some(was) if was != rule => Some(("~", rule)),
        Some(_) => None,
    });
    let mut lines: Vec<_> =
        gone.chain(others).map(|(sign, rule)| format!("{sign} rule {} ({})", rule.id, rule.file)).collect();
    let mut heading = format!("policies: {} → {}", before.version(), after.version());
    if lines.is_empty() {
        heading.push_str(", no rule is another");
    }
    let more = lines.len().saturating_sub(RULES);
    lines.truncate(RULES);
    if more > 0 {
        lines.push(format!("and {more} rules more"));
    }
    lines.insert(0, heading);
    lines
}

/// What each rule says, wherever it stands in its file.
fn rules(policies: &Policies) -> BTreeMap<&RuleId, RuleSpec> {
    policies.rules().map(|rule| (&rule.id, RuleSpec { place: None, ..rule.clone() })).collect()
}

/// Everything in which `after` differs from `before`, by path.
pub(crate) fn between(before: &Settings, after: &Settings) -> serde_json::Result<Vec<Change>> {
    let (old, new) = (lines(&show(before)?), lines(&show(after)?));
    let mut changes: Vec<Change> = old
        .iter()
        .filter(|(path, value)| new.get(*path) != Some(value))
        .map(|(path, value)| Change { path: path.clone(), before: Some(value.clone()), after: new.get(path).cloned() })
        .collect();
    for (path, value) in new.iter().filter(|(path, _)| !old.contains_key(*path)) {
        changes.push(Change { path: path.clone(), before: None, after: Some(value.clone()) });
    }
    changes.extend(hidden(before, after));
    changes.extend(orders(before, after));
    // What is not shown and is another than before reads alike.
    let (was, is) = (lines(&whole(before)?), lines(&whole(after)?));
    for (path, value) in new.iter().filter(|(path, value)| old.get(*path) == Some(value)) {
        if was.get(path) != is.get(path) {
            changes.push(Change { path: path.clone(), before: Some(value.clone()), after: Some(value.clone()) });
        }
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// Differences of values that look alike when printed: plain variables of commands.
fn hidden(before: &Settings, after: &Settings) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, server) in &after.servers {
        let (Some(Reach::Command { env: old, .. }), Reach::Command { env: new, .. }) =
            (before.servers.get(name).map(|server| &server.reach), &server.reach)
        else {
            continue;
        };
        for (variable, _) in new.iter().filter(|(variable, value)| old.get(*variable).is_some_and(|old| old != *value))
        {
            let same = Some(HIDDEN.to_owned());
            let path = format!("servers.{name}.env.{variable}");
            changes.push(Change { path, before: same.clone(), after: same });
        }
    }
    changes
}

/// Tools whose order became another: of the globs that match a name the first counts.
fn orders(before: &Settings, after: &Settings) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, server) in &after.servers {
        let Some(was) = before.servers.get(name) else { continue };
        let common = |one: &Server, other: &Server| -> Vec<String> {
            let known = |tool: &&ToolRule| other.tools.iter().any(|known| known.glob == tool.glob);
            one.tools.iter().filter(known).map(|tool| tool.glob.clone()).collect()
        };
        let (old, new) = (common(was, server), common(server, was));
        if old != new {
            let path = format!("servers.{name}.tools");
            changes.push(Change { path, before: Some(old.join(", ")), after: Some(new.join(", ")) });
        }
    }
    changes
}

/// Every value by its path.
fn lines(settings: &Shown) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    flatten("", settings, &mut lines);
    lines
}

fn flatten(path: &str, shown: &Shown, lines: &mut BTreeMap<String, String>) {
    match shown {
        Shown::Table(entries) if entries.is_empty() && !path.is_empty() => {
            lines.insert(path.to_owned(), "{}".to_owned());
        }
        Shown::Table(entries) => {
            for (key, member) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, member, lines);
            }
        }
        Shown::List(members) if members.iter().any(|member| matches!(member, Shown::Table(_))) => {
            for (index, member) in members.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), member, lines);
            }
        }
        Shown::List(_) | Shown::One(_) => {
            lines.insert(path.to_owned(), leaf(shown));
        }
    }
}

fn leaf(shown: &Shown) -> String {
    match shown {
        Shown::One(Value::String(text)) => text.clone(),
        Shown::One(value) => value.to_string(),
        Shown::List(members) => format!("[{}]", members.iter().map(leaf).collect::<Vec<_>>().join(", ")),
        Shown::Table(_) => "{}".to_owned(),
    }
}
