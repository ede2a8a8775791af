//! Asks policy. The decision itself is made in the `policy` crate.

use crate::{
    authenticate::Caller,
    clock::Moment,
    pipeline::Line,
    question::Taken,
    resolve::{self, Target},
    screen::Screened,
    server::Server,
    stop::{Stage, Stop},
    trail::{Facts, Noted},
};
use mcp::error::REFUSED_POLICY;
use policy::{Permit, Policies, Question, Refusal};
use serde_json::Value;
use vocab::{Action, Digest, Finding};

impl Noted for Permit {
    const STAGE: Stage = Stage::Authorize;

    fn note(&self, facts: &mut Facts) {
        facts.decided_by(self.because());
        facts.policy = Some(*self.version());
    }
}

impl Line {
    /// Decides on the final arguments.
    pub(crate) fn authorize(
        &self,
        caller: &Caller,
        target: &mut Target,
        call: &Screened,
        now: Moment,
    ) -> Result<Permit, Stop> {
        let policies = &self.snapshot.policies;
        let era = call.valid.call.era;
        match target {
            Target::Many(many) => {
                // One that cannot be used at this moment counts: policy has no part in that.
                let away = many.unavailable.iter().filter_map(|(name, _)| self.snapshot.servers.get(name));
                let servers = many.members.iter().chain(away);
                let resources: Vec<_> = servers.map(|server| server.resource(&many.method)).collect();
                policies
                    .authorize_open(&caller.subject, &many.method, &resources)
                    .map_err(|refusal| denied(policies, refusal, None, era))
            }
            Target::One(one) => {
                // The answer to a question travels under the permit for asking it.
                if let Some(permit) = one.answers.as_deref_mut().and_then(Taken::permit) {
                    return Ok(permit);
                }
                let Some(action) = one.action else {
                    let method = one.resource.id.name.to_string();
                    return policies
                        .authorize_open(&caller.subject, &method, std::slice::from_ref(&one.resource))
                        .map_err(|refusal| denied(policies, refusal, None, era));
                };
                let question = Question {
                    subject: &caller.subject,
                    action,
                    resource: &one.resource,
                    arguments: &call.valid.arguments,
                    digest: call.valid.digest,
                    findings: &call.findings,
                    now: now.at,
                };
                let shown = Some((action, one.shown.as_deref().unwrap_or(&one.resource.id.name)));
                policies.authorize(&question).map_err(|refusal| denied(policies, refusal, shown, era))
            }
        }
    }
}

impl Line {
    /// Whether the caller may follow a resource, by what was said when it was asked for; if not, why.
    pub(crate) fn may_subscribe(
        &self,
        caller: &Caller,
        server: &Server,
        uri: &str,
        arguments: &Value,
        findings: &[Finding],
    ) -> Result<(), Refusal> {
        let question = Question {
            subject: &caller.subject,
            action: Action::ResourceSubscribe,
            resource: &server.resource(uri),
            arguments,
            digest: Digest::of(uri.as_bytes()),
            findings,
            now: self.state.clock.now(),
        };
        self.snapshot.policies.authorize(&question).map(drop)
    }
}

/// What a refusal looks like from outside: named if the caller may know of the thing, else as if there were none.
pub(crate) fn denied(policies: &Policies, refusal: Refusal, shown: Option<(Action, &str)>, era: mcp::Era) -> Stop {
    let text = refusal.to_string();
    match shown {
        // SECURITY: a hidden thing answers exactly like a missing one.
        Some((action, name)) if refusal.hidden => {
            resolve::missing(action, name, era, "hidden").decided(policies, refusal.rules).detail(text)
        }
        Some(_) | None => {
            let rules: Vec<String> = refusal.rules.iter().map(ToString::to_string).collect();
            Stop::refused(Stage::Authorize, "denied", REFUSED_POLICY, format!("policy: {text}"))
                .data("rules", rules)
                .decided(policies, refusal.rules)
        }
    }
}
