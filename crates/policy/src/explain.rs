//! Why a decision is what it is: every rule that matched or nearly did, and what each says.
//!
//! Offline and off the call path. Holds no argument values: explanations are shown and kept.

use crate::{Effect, Part, Place, Policies, Question, Reason, condition::Outcome, fact::Facts, rule::Rule};
use serde::Serialize;
use std::{collections::BTreeSet, sync::Arc};
use vocab::{Action, Class, Digest, EnvironmentName, Finding, PrincipalId, RoleName, RuleId, TargetId};

/// A decision and how it came about.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// What was decided.
    pub decision: Decision,
    /// Why not, if it was a no.
    pub reason: Option<Reason>,
    /// The decision in a sentence.
    pub message: String,
    /// Whether the target is hidden from the subject: the caller is told that there is no such thing.
    pub hidden: bool,
    /// The rules that decided.
    pub rules: Vec<RuleId>,
    /// The rules that matched or missed by one part only, in the order of the files.
    pub considered: Vec<Considered>,
    /// What the decision is made from.
    pub inputs: Inputs,
    /// The version of the policies.
    pub version: Digest,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The call may go on.
    Allow,
    /// It may not.
    Deny,
}

/// One rule, and how it stands to the question.
#[derive(Debug, Clone, Serialize)]
pub struct Considered {
    /// Its id.
    pub rule: RuleId,
    /// Its policy.
    pub policy: Arc<str>,
    /// The file it stands in.
    pub file: Arc<str>,
    /// Where in the file.
    pub place: Option<Place>,
    /// What it does to the calls it matches.
    pub effect: Effect,
    /// Its condition.
    pub when: Option<Arc<str>>,
    /// How it stands.
    pub standing: Standing,
}

/// How a rule stands to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "is")]
pub enum Standing {
    /// It applies.
    Matched,
    /// It would apply, but for its condition.
    Unmet,
    /// It would apply, but its condition cannot be evaluated: the call is denied.
    Failed {
        /// What failed.
        why: Arc<str>,
    },
    /// It would apply, but for one part.
    Missed {
        /// The part.
        part: Part,
    },
}

/// What a decision is made from.
#[derive(Debug, Clone, Serialize)]
pub struct Inputs {
    /// Who asks.
    pub principal: PrincipalId,
    /// Its roles.
    pub roles: Vec<RoleName>,
    /// Its groups.
    pub groups: Vec<String>,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// The environments its agent is bound to; empty means any.
    pub environments: Vec<EnvironmentName>,
    /// What it wants to do.
    pub action: Action,
    /// On what.
    pub target: TargetId,
    /// The target's environment.
    pub environment: Option<EnvironmentName>,
    /// The target's class.
    pub class: Class,
    /// The target's labels.
    pub labels: Vec<String>,
    /// The digest of the arguments.
    pub arguments: Digest,
    /// What screening found.
    pub findings: Vec<Finding>,
    /// When, as RFC 3339.
    pub now: String,
    /// The paths that the conditions of the considered rules read.
    pub read: BTreeSet<String>,
}

impl Policies {
    /// Decides like [`Policies::authorize`], and says why.
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        let facts = Facts::of(question);
        let target = &question.resource.id;
        let on_target = self.index.find(target.server.as_str(), &target.name);
        let mut considered = Vec::new();
        let mut read = BTreeSet::new();
        for (at, rule) in self.rules.iter().enumerate() {
            let Some(standing) = standing(rule, on_target.binary_search(&at).is_ok(), question, &facts) else {
                continue;
            };
            read.extend(rule.condition.iter().flat_map(|condition| condition.scanned().reads.iter().cloned()));
            considered.push(Considered {
                rule: rule.spec.id.clone(),
                policy: Arc::clone(&rule.spec.policy),
                file: Arc::clone(&rule.spec.file),
                place: rule.spec.place,
                effect: rule.spec.effect,
                when: rule.spec.when.clone(),
                standing,
            });
        }
        let inputs = inputs(question, read);
        let version = *self.version();
        match self.authorize(question) {
            Ok(permit) => Explanation {
                decision: Decision::Allow,
                reason: None,
                message: permit.because().first().map_or_else(String::new, |rule| format!("allowed by rule `{rule}`")),
                hidden: false,
                rules: permit.because().to_vec(),
                considered,
                inputs,
                version,
            },
            Err(refusal) => Explanation {
                decision: Decision::Deny,
                reason: Some(refusal.reason),
                message: refusal.to_string(),
                hidden: refusal.hidden,
                rules: refusal.rules,
                considered,
                inputs,
                version,
            },
        }
    }
}

/// How the rule stands, if it matched or missed by one part only.
fn standing(rule: &Rule, on_target: bool, question: &Question<'_>, facts: &Facts<'_>) -> Option<Standing> {
    let mut misses = rule.misses(question.subject, question.action, question.resource);
    if !on_target {
        misses.push(Part::Target);
    }
    match misses.as_slice() {
        [] => Some(match rule.judge(facts) {
            Outcome::Met => Standing::Matched,
            Outcome::Unmet => Standing::Unmet,
            Outcome::Fails(why) => Standing::Failed { why },
        }),
        [part] => Some(Standing::Missed { part: *part }),
        [..] => None,
    }
}

fn inputs(question: &Question<'_>, read: BTreeSet<String>) -> Inputs {
    let Question { subject, action, resource, digest, findings, now, .. } = *question;
    Inputs {
        principal: subject.id.clone(),
        roles: subject.roles.clone(),
        groups: subject.groups.clone(),
        scopes: subject.scopes.clone(),
        environments: subject.environments.clone(),
        action,
        target: resource.id.clone(),
        environment: resource.environment.clone(),
        class: resource.class,
        labels: resource.labels.clone(),
        arguments: digest,
        findings: findings.to_vec(),
        now: now.to_string(),
        read,
    }
}
