//! One line of the log per call, for people and for whatever collects standard error.
//!
//! SECURITY: names, ids and verdicts only. Never a session handle, an argument, a result or a credential.

use super::metrics::outcome_name;
use crate::journal::Closed;
use audit::Outcome;
use std::fmt::{Display, Write};
use tracing::Level;
use vocab::{IssuerName, RuleId, ServerName, Timestamp, UserId};

/// The target that these lines have beside what the program says otherwise.
const TARGET: &str = "durward::call";

/// Lines of calls that were closed together. Every call says one, so they are written as plainly as can be: the library
/// asks each field what it is, which costs more than the metrics.
pub(crate) struct Lines {
    /// What each begins with: all of them are said at one time.
    head: String,
    text: String,
}

impl Lines {
    /// Lines that are said at `now`. `None` if nobody wants them.
    pub(crate) fn at(now: Timestamp) -> Option<Self> {
        let wanted = tracing::enabled!(target: TARGET, Level::INFO);
        wanted.then(|| Self { head: format!("{now}  INFO {TARGET}:"), text: String::new() })
    }

    /// All of them.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Writes the line of a closed call.
    pub(crate) fn add(&mut self, closed: &Closed) {
        let Closed { facts, outcome } = closed;
        let (stage, reason) = match outcome {
            Outcome::Refused { reason, stage }
            | Outcome::Withheld { reason, stage }
            | Outcome::Faulted { reason, stage } => (Some(&**stage), Some(&**reason)),
            Outcome::Answered | Outcome::Failed | Outcome::Abandoned | Outcome::Unknown => (None, None),
        };
        let principal = facts.principal.as_ref();
        self.text.push_str(&self.head);
        self.plain("call", Some(facts.call));
        self.plain("parent", facts.parent);
        self.quoted("agent", principal.map(|principal| principal.agent.as_str()));
        self.quoted("user", principal.and_then(|principal| principal.user.as_ref()).map(UserId::as_str));
        self.quoted("issuer", principal.and_then(|principal| principal.issuer.as_ref()).map(IssuerName::as_str));
        self.plain("credential", facts.identity.as_ref());
        self.plain("peer", Some(facts.peer));
        self.quoted("server", facts.server.as_ref().map(ServerName::as_str));
        self.quoted("target", facts.target.as_deref().map(target));
        self.quoted("method", Some(method(&facts.method)));
        self.quoted("era", Some(facts.era.as_str()));
        self.quoted("bridge", facts.bridged.map(mcp::Era::as_str));
        self.quoted("outcome", Some(outcome_name(outcome)));
        self.quoted("stage", stage);
        self.quoted("reason", reason);
        self.quoted("rule", rules(&facts.rules).as_deref());
        self.plain("findings", (!facts.findings.is_empty()).then_some(facts.findings.len()));
        self.plain("status", Some(facts.status));
        self.plain("duration_us", Some(facts.duration_us));
        self.plain("trace", facts.trace.as_ref());
        self.text.push('\n');
    }

    /// What has a form of its own.
    fn plain(&mut self, name: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.name(name);
            let _ = write!(self.text, "{value}");
        }
    }

    /// What may hold anything. INVARIANT: one call is one line, whatever names its server chose.
    fn quoted(&mut self, name: &'static str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.name(name);
        if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            self.text.push('"');
            self.text.push_str(value);
            self.text.push('"');
        } else {
            let _ = write!(self.text, "{value:?}");
        }
    }

    fn name(&mut self, name: &'static str) {
        self.text.push(' ');
        self.text.push_str(name);
        self.text.push('=');
    }
}

/// Methods are whatever clients write.
fn method(method: &str) -> &str {
    method.get(..method.len().min(64)).unwrap_or("other")
}

/// A name on a server. Of an address only what says where, not what was asked of it.
fn target(target: &str) -> &str {
    let short = if target.contains(':') { target.split(['?', '#']).next().unwrap_or_default() } else { target };
    short.get(..short.len().min(256)).unwrap_or("other")
}

fn rules(rules: &[RuleId]) -> Option<String> {
    let (first, rest) = rules.split_first()?;
    Some(rest.iter().fold(first.to_string(), |mut text, rule| {
        let _ = write!(text, ",{rule}");
        text
    }))
}
