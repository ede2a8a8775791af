//! A decision against a call, and why.

use crate::rule::Rule;
use serde::Serialize;
use std::{fmt, sync::Arc};
use vocab::RuleId;

/// Why policy said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// No rule allows it.
    NoMatch,
    /// A rule denies it, or it would cross a tenant boundary.
    Denied,
    /// The condition of a rule that applies could not be evaluated.
    Condition,
    /// The agent is bound to other environments than the target's.
    Environment,
}

/// Policy's no. Its `Display` is the public message for whoever may know that the target exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The rules that say so; for [`Reason::NoMatch`] the rules that would allow it if their condition were met.
    pub rules: Vec<RuleId>,
    /// SECURITY: the target is not visible to the subject, so the answer must look exactly like that for a missing one.
    pub hidden: bool,
    detail: Option<Arc<str>>,
}

impl Refusal {
    /// A refusal by `rules`; the first text that one of them has for the occasion is shown.
    pub(crate) fn by_rules(reason: Reason, rules: &[&Rule], hidden: bool) -> Self {
        let detail = rules.iter().find_map(|rule| rule.spec.reason.clone());
        Self { reason, rules: rules.iter().map(|rule| rule.spec.id.clone()).collect(), hidden, detail }
    }

    /// A refusal because a condition failed, with what failed.
    pub(crate) fn by_condition(rules: &[&Rule], hidden: bool, why: Arc<str>) -> Self {
        Self { detail: Some(why), ..Self::by_rules(Reason::Condition, rules, hidden) }
    }

    /// A refusal by what no rule can change. Always hidden.
    pub(crate) fn by_boundary(reason: Reason, id: &str) -> Self {
        Self { reason, rules: RuleId::new(id).into_iter().collect(), hidden: true, detail: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reason, self.rules.first()) {
            (Reason::NoMatch, None) => f.write_str("no rule allows it")?,
            (Reason::NoMatch, Some(rule)) => write!(f, "no rule allows it: the condition of rule `{rule}` is not met")?,
            (Reason::Denied, None) => f.write_str("denied")?,
            (Reason::Denied, Some(rule)) => write!(f, "denied by rule `{rule}`")?,
            (Reason::Condition, None) => f.write_str("a condition could not be evaluated")?,
            (Reason::Condition, Some(rule)) => write!(f, "the condition of rule `{rule}` could not be evaluated")?,
            (Reason::Environment, _) => f.write_str("the agent is bound to other environments")?,
        }
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}
