//! Why it is safe: the only place where a permit is made.
//!
//! [`Policies::authorize`] and [`Policies::authorize_open`] are the two ways to a [`Permit`], and the combination
//! rule is written here once: deny beats allow, a condition that fails is a no, and nothing matching is a no.
//! Knows nothing of files, globs or condition texts; never reads a clock.

use crate::{
    Policies, Question, Reason, Refusal, Resource, Subject,
    condition::Outcome,
    fact::Facts,
    rule::{Effect, Rule},
};
use std::sync::Arc;
use vocab::{Action, Digest, PrincipalId, RuleId, TargetId};

/// Proof that policy allowed one call. Only `authorize` and `authorize_open` make one.
///
/// A permit names what it is for: whoever acts on it asks [`Permit::covers`] first.
#[must_use]
#[derive(Debug)]
pub struct Permit {
    principal: PrincipalId,
    targets: Vec<TargetId>,
    action: Action,
    arguments: Option<Digest>,
    because: Arc<[RuleId]>,
    obligations: Vec<Obligation>,
    version: Digest,
}

/// What must be done about a call that is allowed. Native rules impose nothing, so there is no variant yet:
/// whoever matches on this by name is asked for a decision when the first one comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obligation {}

impl Permit {
    /// Whether this permit is for that call: the same principal, one of its targets, the very same arguments.
    ///
    /// The permit of an open method has no arguments that a rule could read, and covers any.
    pub fn covers(&self, principal: &PrincipalId, target: &TargetId, digest: &Digest) -> bool {
        self.principal == *principal
            && self.targets.contains(target)
            && self.arguments.as_ref().is_none_or(|arguments| arguments == digest)
    }

    /// Who may.
    pub const fn principal(&self) -> &PrincipalId {
        &self.principal
    }

    /// On what: one target, or for an open method the servers that remain.
    pub fn targets(&self) -> &[TargetId] {
        &self.targets
    }

    /// Do what.
    pub const fn action(&self) -> Action {
        self.action
    }

    /// With which arguments; none for an open method.
    pub const fn arguments(&self) -> Option<&Digest> {
        self.arguments.as_ref()
    }

    /// By which rules; none for an open method.
    pub const fn because(&self) -> &Arc<[RuleId]> {
        &self.because
    }

    /// What must be done about it.
    pub fn obligations(&self) -> &[Obligation] {
        &self.obligations
    }

    /// The version of the policies that decided.
    pub const fn version(&self) -> &Digest {
        &self.version
    }
}

impl Policies {
    /// Decides one call.
    ///
    /// Every rule that applies is heard, so the order of rules and files changes nothing:
    /// one deny decides; else one condition that cannot be evaluated; else one allow; else the answer is no.
    pub fn authorize(&self, question: &Question<'_>) -> Result<Permit, Refusal> {
        let Question { subject, action, resource, .. } = *question;
        boundary(subject, resource)?;

        let heard = self.hear(question);
        let hidden = || !self.visible(subject, action, resource);
        if !heard.denying.is_empty() {
            return Err(Refusal::by_rules(Reason::Denied, &heard.denying, hidden()));
        }
        if let Some(why) = heard.failure {
            return Err(Refusal::by_condition(&heard.failing, hidden(), why));
        }
        if heard.allowing.is_empty() {
            return Err(Refusal::by_rules(Reason::NoMatch, &heard.unmet, hidden()));
        }
        Ok(Permit {
            principal: subject.id.clone(),
            targets: vec![resource.id.clone()],
            action,
            arguments: Some(question.digest),
            because: heard.allowing.iter().map(|rule| rule.spec.id.clone()).collect(),
            obligations: Vec::new(),
            version: *self.version(),
        })
    }

    /// Decides a handshake, ping, list, stream or notification, which need no rule: they are open on every server where
    /// the subject could be allowed something, unless a rule denies `method.call` on `server/method`.
    ///
    /// The permit names the servers that remain; when none does, the answer is no. These methods carry nothing that a
    /// condition on arguments, findings or time could read, so such a deny closes nothing here.
    pub fn authorize_open(&self, subject: &Subject, method: &str, targets: &[Resource]) -> Result<Permit, Refusal> {
        let mut open = Vec::with_capacity(targets.len());
        let mut denying: Vec<&Rule> = Vec::new();
        let mut crossing = None;
        for server in targets {
            if let Err(refusal) = boundary(subject, server) {
                crossing = Some(refusal);
            } else if self.reaches(subject, server) {
                match self.closing(subject, method, server) {
                    Some(rule) => denying.push(rule),
                    None => open.push(server.id.clone()),
                }
            }
        }
        if !open.is_empty() {
            return Ok(Permit {
                principal: subject.id.clone(),
                targets: open,
                action: Action::MethodCall,
                arguments: None,
                because: Arc::default(),
                obligations: Vec::new(),
                version: *self.version(),
            });
        }
        match (denying.is_empty(), crossing) {
            (false, _) => Err(Refusal::by_rules(Reason::Denied, &denying, false)),
            (true, Some(refusal)) => Err(refusal),
            (true, None) => Err(Refusal::by_rules(Reason::NoMatch, &[], true)),
        }
    }

    /// Hears every rule that applies to the question.
    fn hear(&self, question: &Question<'_>) -> Heard<'_> {
        let facts = Facts::of(question);
        let mut heard = Heard::default();
        for rule in self.applicable(question.subject, question.action, question.resource) {
            match (rule.judge(&facts), rule.spec.effect) {
                (Outcome::Met, Effect::Deny) => heard.denying.push(rule),
                (Outcome::Met, Effect::Allow) => heard.allowing.push(rule),
                (Outcome::Unmet, Effect::Allow) => heard.unmet.push(rule),
                (Outcome::Unmet, Effect::Deny) => {}
                // SECURITY: whatever the rule's effect, a condition that nobody can evaluate allows nothing.
                (Outcome::Fails(why), Effect::Allow | Effect::Deny) => {
                    heard.failing.push(rule);
                    heard.failure.get_or_insert(why);
                }
            }
        }
        heard
    }
}

/// The rules that apply to a question, by what they say.
#[derive(Default)]
struct Heard<'p> {
    denying: Vec<&'p Rule>,
    failing: Vec<&'p Rule>,
    failure: Option<Arc<str>>,
    allowing: Vec<&'p Rule>,
    unmet: Vec<&'p Rule>,
}

/// The rule ids that name a [`boundary`]. No file may use them.
pub(crate) const BOUNDARIES: [&str; 2] = ["tenant-boundary", "agent-environment"];

/// What no rule can allow: another tenant's server, or a server outside the environments the agent is bound to.
pub(crate) fn boundary(subject: &Subject, resource: &Resource) -> Result<(), Refusal> {
    let [tenant, environment] = BOUNDARIES;
    if subject.id.tenant != resource.id.tenant {
        return Err(Refusal::by_boundary(Reason::Denied, tenant));
    }
    match &resource.environment {
        Some(name) if !subject.environments.is_empty() && !subject.environments.contains(name) => {
            Err(Refusal::by_boundary(Reason::Environment, environment))
        }
        Some(_) | None => Ok(()),
    }
}
