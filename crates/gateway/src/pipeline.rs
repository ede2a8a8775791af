//! What happens to a call, top to bottom.
//!
//! One line per stage: the frame, what can say no, what has effects. A new stage is a new line, never a hook, a flag
//! or a hidden layer. Each stage hands on evidence that only its module can make, so leaving one out does not compile.

use crate::{
    admit::Admitted,
    authenticate::Caller,
    call::Call,
    release::Released,
    reply::Reply,
    resolve::Target,
    respond::{self, Asked},
    screen::Screened,
    settle,
    snapshot::Snapshot,
    state::State,
    stop::Stop,
    trail::Trail,
};
use futures_util::FutureExt;
use policy::Permit;
use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc};

/// The line, for one call: one immutable snapshot of what is configured, and what outlives it.
#[derive(Clone)]
pub struct Line {
    /// Configuration, policy, agents and servers as they were when the call came in.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Sessions, processes, counters, log and vault: what a reload must not lose.
    pub(crate) state: Arc<State>,
}

/// A call that nothing forbids, with the proof.
#[must_use]
pub struct Decided {
    pub(crate) caller: Caller,
    pub(crate) target: Target,
    pub(crate) call: Screened,
    pub(crate) permit: Permit,
    pub(crate) slot: Admitted,
    _made: (),
}

impl Line {
    /// Serves one call. Every call leaves exactly one closed record, whatever happens.
    pub async fn serve(&self, call: Box<Call>) -> Reply {
        let mut trail = Trail::open(&call, &self.state);
        let asked = Asked::of(&call);
        // Pinned where it is, here and elsewhere on the line: what wraps a future by value moves all of its room.
        let outcome = AssertUnwindSafe(pin!(self.exchange(call, &mut trail))).catch_unwind().await;
        // A panic ends its own call and nothing else: not the connection, not the record.
        let outcome = outcome.unwrap_or_else(|_| Err(trail.panicked()));
        respond::close(outcome, trail, &asked, self).await
    }

    async fn exchange(&self, call: Box<Call>, trail: &mut Trail) -> Result<Released, Stop> {
        let caller = trail.note(self.authenticate(&call, trail.arrived()).await)?;
        let decided = self.decide(caller, call, trail).await?;
        self.perform(decided, trail).await
    }

    /// Everything that can say no. Has no effect that anyone outside could see.
    pub async fn decide(&self, caller: Caller, mut call: Box<Call>, trail: &mut Trail) -> Result<Box<Decided>, Stop> {
        let mut target = trail.note(self.resolve(&caller, &mut call, trail.passed_at()).await)?;
        let slot = trail.note(self.admit(&caller, &call, &target, trail.passed_at()))?;
        let call = trail.note(self.validate(call, &target))?;
        // Screening comes before policy: rules may ask what it found, and judge what it left.
        let call = trail.note(self.screen(call, &target))?;
        let permit = trail.note(self.authorize(&caller, &mut target, &call, trail.passed_at()))?;
        Ok(Box::new(Decided { caller, target, call, permit, slot, _made: () }))
    }

    /// Everything that has an effect, in the only order that is safe.
    async fn perform(&self, decided: Box<Decided>, trail: &mut Trail) -> Result<Released, Stop> {
        let granted = trail.note(settle::settle(decided))?;
        let intent = self.intend(&granted, trail).await;
        let intent = trail.note(intent)?;
        let sealed = trail.note(self.inject(granted))?;
        let answer = trail.note(self.forward(sealed, intent).await)?;
        trail.note(self.release(answer))
    }
}
