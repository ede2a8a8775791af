//! Room for one more process of a principal: where there is none, its own process that was not used for longest makes it.
//!
//! Ends nothing that a call or a listener has a hand in, and nothing of anybody else.

use super::{exchange::Hop, pipe::Pipe};
use crate::{call::Route, server::Transport, state::State};
use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::time::timeout;
use vocab::PrincipalId;

/// How long the end of a process is waited for: it is given two seconds before each measure.
const ENDING: Duration = Duration::from_secs(5);

impl Hop<'_> {
    /// To be called before a process of `holder` is started. Where nothing can be ended, its start is refused.
    pub(crate) async fn vacate(&self, holder: &PrincipalId) {
        if !matches!(self.server.transport, Transport::Stdio(_)) || self.state.children.has_room(holder) {
            return;
        }
        let Some(idle) = self.state.take_idle(holder) else { return };
        tracing::debug!(server = %idle.server(), "an idle process makes room for another of its principal");
        let ended = idle.ended();
        drop(idle);
        let _ = timeout(ENDING, ended).await;
    }
}

impl State {
    /// Takes out the process of `holder` that was not used for longest, of those that nobody has a hand in.
    fn take_idle(&self, holder: &PrincipalId) -> Option<Arc<Pipe>> {
        let sessions = self.sessions.every(|session| session.owner == *holder && session.route == Route::All);
        let of_sessions = sessions.iter().filter_map(|session| Some((session.idle_since()?, session)));
        let of_session = of_sessions.min_by_key(|(since, _)| *since);
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = pipes.iter().filter(|((_, _, owner), _)| owner == holder);
        let idle = idle.filter_map(|(key, pipe)| Some((pipe.idle_since()?, key)));
        let of_modern = idle.min_by_key(|(since, _)| *since).map(|(since, key)| (since, key.clone()));
        let of_link = self.legs.idle_since(holder);
        let earliest = [of_session.map(|(since, _)| since), of_modern.as_ref().map(|(since, _)| *since), of_link];
        let earliest = earliest.into_iter().flatten().min()?;
        if let Some((_, key)) = of_modern.filter(|(since, _)| *since == earliest) {
            return pipes.remove(&key);
        }
        drop(pipes);
        match of_session {
            Some((since, session)) if since == earliest => session.take_idle(),
            Some(_) | None => self.legs.take_idle(holder),
        }
    }
}
