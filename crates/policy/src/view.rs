//! What a subject may see: the things on which some call could be allowed.
//!
//! INVARIANT: whatever [`Policies::authorize`] allows is visible, and whatever is visible is on a server that is reached.
//! Visibility knows no arguments, findings or time; where a condition depends on them it says maybe, and
//! a maybe hides nothing.

use crate::{
    Policies, Resource, Subject,
    condition::Prospect,
    fact::Facts,
    pattern::{self, Patterns, Target},
    permit::boundary,
    rule::{Effect, Rule},
};
use vocab::Action;

impl Policies {
    /// Whether some call of this kind could be allowed, for some arguments, findings or time.
    pub fn visible(&self, subject: &Subject, action: Action, resource: &Resource) -> bool {
        if boundary(subject, resource).is_err() {
            return false;
        }
        let facts = Facts::standing(subject, resource);
        let mut possible = false;
        for rule in self.applicable(subject, action, resource) {
            match (rule.prospect(&facts), rule.spec.effect) {
                (Prospect::Always, Effect::Deny) | (Prospect::Fails, Effect::Allow | Effect::Deny) => return false,
                (Prospect::Always | Prospect::Maybe, Effect::Allow) => possible = true,
                (Prospect::Never, Effect::Allow) | (Prospect::Never | Prospect::Maybe, Effect::Deny) => {}
            }
        }
        possible
    }

    /// Whether everything on the server is visible for this action, without a look at single names. `false` is no
    /// answer: then each name has to be asked for.
    pub fn sees_all(&self, subject: &Subject, action: Action, server: &Resource) -> bool {
        if boundary(subject, server).is_err() {
            return false;
        }
        let mut all = false;
        for at in self.index.on_server(server.id.server.as_str()) {
            let Some(rule) = self.rules.get(at) else { continue };
            if !rule.fits_subject(subject, action) || !rule.has_environment(server) {
                continue;
            }
            // A condition, a class or a label may hide single things, and so may any deny.
            let plain = rule.condition.is_none() && rule.spec.classes.is_empty() && rule.spec.labels.is_empty();
            match rule.spec.effect {
                Effect::Deny => return false,
                Effect::Allow if rule.condition.is_some() => return false,
                Effect::Allow => all |= plain && targets_on(rule, server).any(|(_, target)| target.name == "*"),
            }
        }
        all
    }

    /// Whether an allow could match something on that server. Its name, class and labels are not looked at.
    pub fn reaches(&self, subject: &Subject, server: &Resource) -> bool {
        self.reaches_by(subject, server, |_| true)
    }

    /// Whether an allow of this action could.
    pub fn reaches_with(&self, subject: &Subject, action: Action, server: &Resource) -> bool {
        self.reaches_by(subject, server, |allowed| *allowed == action)
    }

    fn reaches_by(&self, subject: &Subject, server: &Resource, wanted: impl Fn(&Action) -> bool) -> bool {
        if boundary(subject, server).is_err() {
            return false;
        }
        let facts = Facts::standing(subject, server);
        let here: Vec<&Rule> = self
            .index
            .on_server(server.id.server.as_str())
            .into_iter()
            .filter_map(|at| self.rules.get(at))
            .filter(|rule| rule.has_subject(subject) && rule.has_environment(server))
            .collect();
        let closed: Vec<(&Rule, &Target)> =
            here.iter().filter(|rule| closes(rule, &facts)).flat_map(|rule| targets_on(rule, server)).collect();
        here.iter()
            .filter(|rule| rule.spec.effect == Effect::Allow && may_hold(rule, &facts))
            .flat_map(|rule| targets_on(rule, server))
            .any(|(allow, target)| {
                let denied = |action: &Action| {
                    closed.iter().any(|(deny, of)| deny.spec.actions.contains(action) && covers(&of.name, &target.name))
                };
                allow.spec.actions.iter().filter(|action| wanted(action)).any(|action| !denied(action))
            })
    }

    /// The rule that closes an open method on a server, if one does.
    pub(crate) fn closing(&self, subject: &Subject, method: &str, server: &Resource) -> Option<&Rule> {
        let facts = Facts::standing(subject, server);
        self.named(server.id.server.as_str(), method)
            .filter(|rule| rule.spec.effect == Effect::Deny)
            .filter(|rule| rule.fits_subject(subject, Action::MethodCall) && rule.fits_resource(server))
            .find(|rule| matches!(rule.prospect(&facts), Prospect::Always | Prospect::Fails))
    }
}

/// The targets of a rule that are on this server.
fn targets_on<'r>(rule: &'r Rule, server: &Resource) -> impl Iterator<Item = (&'r Rule, &'r Target)> {
    let on = |target: &&Target| covers(&target.server, server.id.server.as_str());
    rule.targets.iter().filter(on).map(move |target| (rule, target)).collect::<Vec<_>>().into_iter()
}

/// Whether an allow could hold for something on the server: what it asks of the target is not known yet.
fn may_hold(rule: &Rule, facts: &Facts<'_>) -> bool {
    asks_of_target(rule) || matches!(rule.prospect(facts), Prospect::Always | Prospect::Maybe)
}

/// Whether a deny holds for everything its targets name on the server.
fn closes(rule: &Rule, facts: &Facts<'_>) -> bool {
    rule.spec.effect == Effect::Deny
        && rule.spec.classes.is_empty()
        && rule.spec.labels.is_empty()
        && !asks_of_target(rule)
        && rule.prospect(facts) == Prospect::Always
}

/// Whether the condition asks for what differs from one thing on a server to the next.
fn asks_of_target(rule: &Rule) -> bool {
    rule.condition
        .as_ref()
        .is_some_and(|condition| condition.scanned().reads.iter().any(|path| path.starts_with("target")))
}

/// Whether the glob `wide` certainly matches all that `narrow` does.
pub(crate) fn covers(wide: &str, narrow: &str) -> bool {
    if wide == "*" || wide == narrow {
        return true;
    }
    pattern::is_literal(narrow)
        && pattern::may_match(wide, narrow)
        && Patterns::compile([wide]).is_ok_and(|glob| glob.matches(narrow))
}
