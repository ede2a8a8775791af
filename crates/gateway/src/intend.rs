//! The log's word before the deed: nothing leaves without it.

use crate::{
    pipeline::Line,
    resolve::Target,
    settle::Granted,
    stop::{Stage, Stop},
    trail::{Facts, Noted, Trail},
};
use audit::{Leaf, LogFault};
use mcp::error::LOG_UNAVAILABLE;
use std::time::Duration;

/// How long to leave a full queue alone before looking again.
const FULL: Duration = Duration::from_millis(5);

/// Proof that the log knows of a call: on disk where it may change state, in the queue's order where it only reads.
#[must_use]
pub(crate) struct Intent(());

impl Noted for Intent {
    const STAGE: Stage = Stage::Intend;

    fn note(&self, _: &mut Facts) {}
}

impl Line {
    /// Writes the intent of a call. Waits for the disk if the call may change state, or if the log is `strict`.
    /// When the log cannot be written, or cannot commit to what is said, calls stop.
    pub(crate) async fn intend(&self, granted: &Granted, trail: &mut Trail) -> Result<Intent, Stop> {
        let changes_state = match &granted.decided.target {
            Target::One(one) => one.changes_state(),
            Target::Many(_) => false,
        };
        self.intend_to(changes_state, trail).await
    }

    /// The same for what is known to change something, or not to.
    pub(crate) async fn intend_to(&self, changes_state: bool, trail: &mut Trail) -> Result<Intent, Stop> {
        self.room_in_log().await?;
        // What comes back is committed to with it. By then it is too late to say no.
        trail.salt().map_err(|fault| unavailable(&fault))?;
        if !changes_state && !self.snapshot.settings.strict {
            return Ok(Intent(()));
        }
        trail.commit_arguments();
        let pending =
            self.state.journal.append(Leaf::Intent(record(trail.facts()))).map_err(|fault| unavailable(&fault))?;
        let waiting = tokio::time::timeout(self.snapshot.settings.bounds.deadline, pending.durable());
        let leaf = match waiting.await {
            Ok(Ok(leaf)) => leaf,
            Ok(Err(fault)) => return Err(unavailable(&fault)),
            Err(_) => return Err(too_slow()),
        };
        trail.intended(leaf);
        Ok(Intent(()))
    }
}

impl Line {
    /// Waits while a slow disk works off what is queued. A disk that fails is not waited for.
    async fn room_in_log(&self) -> Result<(), Stop> {
        let log = self.state.journal.log();
        let deadline = self.snapshot.settings.bounds.deadline;
        let waiting = async {
            loop {
                match log.healthy() {
                    Err(LogFault::Full(_)) => tokio::time::sleep(FULL).await,
                    Err(fault) => return Err(unavailable(&fault)),
                    Ok(()) => return Ok(()),
                }
            }
        };
        match log.healthy() {
            Ok(()) => Ok(()),
            Err(_) => Box::pin(tokio::time::timeout(deadline, waiting)).await.unwrap_or_else(|_| Err(too_slow())),
        }
    }
}

fn record(facts: &Facts) -> audit::Intent {
    audit::Intent {
        action: facts.action,
        agent: facts.principal.as_ref().map(|principal| principal.agent.clone()),
        arguments: facts.arguments,
        at: facts.at,
        call: facts.call,
        class: facts.class,
        issuer: facts.principal.as_ref().and_then(|principal| principal.issuer.clone()),
        method: Some(facts.method.to_string()),
        parent: facts.parent,
        policy: facts.policy,
        rules: facts.rules.clone(),
        server: facts.server.clone(),
        target: facts.target.as_deref().map(str::to_owned),
        tenant: facts.tenant.clone(),
        trace: facts.trace.as_ref().map(ToString::to_string),
        user: facts.principal.as_ref().and_then(|principal| principal.user.clone()),
    }
}

fn too_slow() -> Stop {
    Stop::failed(
        Stage::Intend,
        "log",
        LOG_UNAVAILABLE,
        "the audit log did not take the call in time, so nothing was done",
    )
}

pub(crate) fn unavailable(fault: &LogFault) -> Stop {
    Stop::failed(
        Stage::Intend,
        "log",
        LOG_UNAVAILABLE,
        "the audit log cannot be written, so nothing was done; calls go on when it can",
    )
    .detail(fault.to_string())
}
