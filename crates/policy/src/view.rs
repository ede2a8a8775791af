//! What a subject may see: the things on which some call could be allowed.
//!
//! INVARIANT: whatever [`Policies::authorize`] allows is visible, and whatever is visible is on a server that is reached.
//! Visibility knows no arguments, findings or time; where a condition depends on them it says maybe, and
//! a maybe hides nothing.

use crate::{
    Policies, Resource, Subject,
    condition::Prospect,
    fact::Facts,
    index::Place,
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
        let places = self.index.on_server(server.id.server.as_str());
        for (rule, here) in self.by_rule(&places) {
            if !rule.fits_subject(subject, action) || !rule.has_environment(server) {
                continue;
            }
            // A condition, a class or a label may hide single things, and so may any deny.
            let plain = rule.condition.is_none() && rule.spec.classes.is_empty() && rule.spec.labels.is_empty();
            match rule.spec.effect {
                Effect::Deny => return false,
                Effect::Allow if rule.condition.is_some() => return false,
                Effect::Allow => all |= plain && targets(rule, here).any(|target| target.name == "*"),
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
        let places = self.index.on_server(server.id.server.as_str());
        let here: Vec<(&Rule, &[Place])> = self
            .by_rule(&places)
            .filter(|(rule, _)| rule.has_subject(subject) && rule.has_environment(server))
            .collect();
        let closed: Vec<(&Rule, &[Place])> = here.iter().copied().filter(|(rule, _)| closes(rule, &facts)).collect();
        here.iter()
            .filter(|(rule, _)| rule.spec.effect == Effect::Allow && may_hold(rule, &facts))
            .flat_map(|(rule, here)| targets(rule, here).map(move |target| (rule, target)))
            .any(|(allow, target)| {
                let covering = self.covering(&closed, server, target);
                let denied = |action: &Action| covering.iter().any(|deny| deny.spec.actions.contains(action));
                allow.spec.actions.iter().filter(|action| wanted(action)).any(|action| !denied(action))
            })
    }

    /// Those of some rules, with their places on a server, that cover all that a target there names.
    fn covering<'p>(&self, rules: &[(&'p Rule, &[Place])], server: &Resource, target: &Target) -> Vec<&'p Rule> {
        if rules.is_empty() {
            return Vec::new();
        }
        // The index knows who matches a name. No glob is compiled here, where every call comes by.
        let by_name =
            pattern::is_literal(&target.name).then(|| self.index.find(server.id.server.as_str(), &target.name));
        let is_covering = |rule: &Rule, here: &[Place]| match &by_name {
            Some(matching) => here.first().is_some_and(|place| matching.binary_search(&place.rule).is_ok()),
            None => targets(rule, here).any(|of| covers(&of.name, &target.name)),
        };
        rules.iter().filter(|(rule, here)| is_covering(rule, here)).map(|(rule, _)| *rule).collect()
    }

    /// Each rule once, with its places among these, which ascend.
    fn by_rule<'p>(&'p self, places: &'p [Place]) -> impl Iterator<Item = (&'p Rule, &'p [Place])> {
        places.chunk_by(|one, next| one.rule == next.rule).filter_map(|of_one| {
            let rule = self.rules.get(of_one.first()?.rule)?;
            Some((rule, of_one))
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

/// The targets of a rule that stand at `places`.
fn targets<'r>(rule: &'r Rule, places: &[Place]) -> impl Iterator<Item = &'r Target> {
    places.iter().filter_map(|place| rule.targets.get(place.target))
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
