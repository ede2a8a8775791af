//! One line of the log per call, for people and for whatever collects standard error.
//!
//! SECURITY: names, ids and verdicts only. Never a session handle, an argument, a result or a credential.

use super::metrics::outcome_name;
use crate::journal::Closed;
use audit::Outcome;
use std::fmt::Write;
use tracing::{Level, event};
use vocab::RuleId;

/// Writes the line of a closed call.
pub(crate) fn write(closed: &Closed) {
    if !tracing::enabled!(target: "durward::call", Level::INFO) {
        return;
    }
    let Closed { facts, outcome } = closed;
    let (stage, reason) = match outcome {
        Outcome::Refused { reason, stage }
        | Outcome::Withheld { reason, stage }
        | Outcome::Faulted { reason, stage } => (Some(&**stage), Some(&**reason)),
        Outcome::Answered | Outcome::Failed | Outcome::Abandoned | Outcome::Unknown => (None, None),
    };
    let principal = facts.principal.as_ref();
    event!(
        target: "durward::call",
        Level::INFO,
        call = %facts.call,
        parent = facts.parent.map(tracing::field::display),
        agent = principal.map(|principal| principal.agent.as_str()),
        user = principal.and_then(|principal| principal.user.as_ref()).map(tracing::field::display),
        credential = facts.identity.as_ref().map(tracing::field::display),
        peer = %facts.peer,
        server = facts.server.as_ref().map(vocab::ServerName::as_str),
        target = facts.target.as_deref().map(target),
        method = method(&facts.method),
        era = facts.era.as_str(),
        bridge = facts.bridged.map(mcp::Era::as_str),
        outcome = outcome_name(outcome),
        stage,
        reason,
        rule = rules(&facts.rules),
        findings = (!facts.findings.is_empty()).then_some(facts.findings.len()),
        status = facts.status,
        duration_us = facts.duration_us,
        trace = facts.trace.as_ref().map(tracing::field::display),
    );
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
