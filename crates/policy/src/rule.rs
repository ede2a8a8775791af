//! One rule: what it says, and whether it speaks about a question.

use crate::{
    Place, Resource, Subject,
    condition::{Condition, Outcome, Prospect},
    fact::Facts,
    pattern::{Patterns, Target},
};
use serde::Serialize;
use std::sync::Arc;
use vocab::{Action, Class, RuleId};

/// What a rule does to the calls it matches. There is no `ask` until people can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Lets them through, unless another rule denies.
    Allow,
    /// Stops them, whatever other rules say.
    Deny,
}

/// A rule as its file states it. A list that is absent is empty here and restricts nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleSpec {
    /// Its own id, or `policy#index`, counted from 1.
    pub id: RuleId,
    /// The name of its policy.
    pub policy: Arc<str>,
    /// The file it stands in.
    pub file: Arc<str>,
    /// Where in the file it begins.
    pub place: Option<Place>,
    /// What it does.
    pub effect: Effect,
    /// The actions it is about.
    pub actions: Vec<Action>,
    /// Globs over `server/name`.
    pub targets: Vec<String>,
    /// Globs over agents.
    pub agents: Vec<String>,
    /// Roles, one of which the subject must have.
    pub roles: Vec<String>,
    /// Tenants of the subject.
    pub tenants: Vec<String>,
    /// Environments of the target.
    pub environments: Vec<String>,
    /// Classes of the target.
    pub classes: Vec<Class>,
    /// Labels, one of which the target must carry.
    pub labels: Vec<String>,
    /// The condition, in CEL.
    pub when: Option<Arc<str>>,
    /// What a caller is told when the rule stops a call.
    pub reason: Option<Arc<str>>,
}

/// A rule that is ready to be asked.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) spec: RuleSpec,
    pub(crate) targets: Vec<Target>,
    pub(crate) agents: Option<Patterns>,
    pub(crate) condition: Option<Condition>,
}

/// The part of a rule that a question does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The action is another one.
    Action,
    /// No target glob matches.
    Target,
    /// No agent glob matches.
    Agents,
    /// The subject has none of the roles.
    Roles,
    /// The subject is of another tenant.
    Tenants,
    /// The target is in another environment.
    Environments,
    /// The target has another class.
    Classes,
    /// The target has none of the labels.
    Labels,
}

impl Rule {
    /// Whether the rule is about this action, by this subject.
    pub(crate) fn fits_subject(&self, subject: &Subject, action: Action) -> bool {
        self.has_action(action) && self.has_subject(subject)
    }

    /// Whether the rule is about this subject.
    pub(crate) fn has_subject(&self, subject: &Subject) -> bool {
        self.has_agent(subject) && self.has_role(subject) && self.has_tenant(subject)
    }

    /// Whether the rule is about such a resource, its name aside.
    pub(crate) fn fits_resource(&self, resource: &Resource) -> bool {
        self.has_environment(resource) && self.has_class(resource) && self.has_label(resource)
    }

    /// Every part that does not meet the question, `target` excepted: the index knows that.
    pub(crate) fn misses(&self, subject: &Subject, action: Action, resource: &Resource) -> Vec<Part> {
        [
            (Part::Action, self.has_action(action)),
            (Part::Agents, self.has_agent(subject)),
            (Part::Roles, self.has_role(subject)),
            (Part::Tenants, self.has_tenant(subject)),
            (Part::Environments, self.has_environment(resource)),
            (Part::Classes, self.has_class(resource)),
            (Part::Labels, self.has_label(resource)),
        ]
        .into_iter()
        .filter_map(|(part, met)| (!met).then_some(part))
        .collect()
    }

    /// What the condition says about these facts.
    pub(crate) fn judge(&self, facts: &Facts<'_>) -> Outcome {
        self.condition.as_ref().map_or(Outcome::Met, |condition| condition.evaluate(facts))
    }

    /// What the condition could say, whatever the arguments, findings and time.
    pub(crate) fn prospect(&self, facts: &Facts<'_>) -> Prospect {
        self.condition.as_ref().map_or(Prospect::Always, |condition| condition.prospect(facts))
    }

    fn has_action(&self, action: Action) -> bool {
        self.spec.actions.contains(&action)
    }

    fn has_agent(&self, subject: &Subject) -> bool {
        self.agents.as_ref().is_none_or(|agents| agents.matches(subject.id.agent.as_str()))
    }

    fn has_role(&self, subject: &Subject) -> bool {
        self.spec.roles.is_empty()
            || subject.roles.iter().any(|role| self.spec.roles.iter().any(|name| name == role.as_str()))
    }

    fn has_tenant(&self, subject: &Subject) -> bool {
        self.spec.tenants.is_empty() || self.spec.tenants.iter().any(|name| name == subject.id.tenant.as_str())
    }

    pub(crate) fn has_environment(&self, resource: &Resource) -> bool {
        let among = |name: &vocab::EnvironmentName| self.spec.environments.iter().any(|one| one == name.as_str());
        self.spec.environments.is_empty() || resource.environment.as_ref().is_some_and(among)
    }

    fn has_class(&self, resource: &Resource) -> bool {
        self.spec.classes.is_empty() || self.spec.classes.contains(&resource.class)
    }

    fn has_label(&self, resource: &Resource) -> bool {
        self.spec.labels.is_empty() || self.spec.labels.iter().any(|label| resource.labels.contains(label))
    }
}
