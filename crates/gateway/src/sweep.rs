//! Ends what is over: idle sessions and processes, sessions whose key is gone, legs to yesterday's targets.
//!
//! Refuses nothing by itself: a message in time finds its session, one too late finds none.

use crate::{
    bridge::downward,
    revive,
    rim::UnderWay,
    session::{Leg, Session, Way},
    snapshot::Snapshot,
    state::State,
    upstream::exchange::Hop,
};
use identity::{AuthFault, CredentialId, Principal};
use std::sync::{Arc, PoisonError};
use vocab::ServerName;

impl State {
    /// Looks for what is over, and ends it. To be called every now and then.
    pub fn sweep(self: &Arc<Self>) {
        let snapshot = self.snapshot.load_full();
        let idle = self.sessions.idle(self.clock.ticks(), snapshot.settings.bounds.session_idle);
        for session in &idle {
            self.end_session(session);
        }
        self.end_sessions(|session| self.is_forfeit(session, &snapshot));
        let stale = |name: &ServerName, leg: &Leg| {
            snapshot.servers.get(name).is_none_or(|server| server.fingerprint != leg.fingerprint)
        };
        for session in self.sessions.every(|_| true) {
            // A server that is not configured any more, or elsewhere, is told nothing.
            for (name, _) in session.drop_legs(stale) {
                revive::replace(self, &name, &session);
            }
        }
        self.sweep_legs(&snapshot);
        self.tasks.sweep(self.clock.ticks());
        self.journal.record_unheard();
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        pipes.retain(|(name, fingerprint, holder), pipe| {
            let current = snapshot.servers.get(name).is_some_and(|server| server.fingerprint == *fingerprint);
            // What everybody shares stays for whoever comes next.
            let idle = holder.is_some() && pipe.is_idle(snapshot.settings.bounds.session_idle);
            current && pipe.is_alive() && !idle
        });
    }

    /// Ends every session that `wanted` holds for, here and on the servers, and says how many.
    pub fn end_sessions(self: &Arc<Self>, wanted: impl Fn(&Session) -> bool) -> usize {
        let sessions = self.sessions.every(wanted);
        for session in &sessions {
            self.end_session(session);
        }
        sessions.len()
    }

    /// Gives up the calls that wait for an answer of a modern client, and tells their servers.
    pub fn end_parked(&self) {
        self.parked.sweep(0, |_| false);
    }

    /// Ends the sessions with servers that modern clients have no part in.
    pub fn end_links(self: &Arc<Self>) {
        self.part(self.legs.close());
    }

    /// Ends a session, here and on its servers.
    pub(crate) fn end_session(self: &Arc<Self>, session: &Arc<Session>) {
        if let Some(legs) = self.sessions.close(session) {
            self.part(legs);
        }
    }

    /// Ends what modern clients left on legacy servers.
    fn sweep_legs(self: &Arc<Self>, snapshot: &Snapshot) {
        let line = self.line();
        let now = self.clock.ticks();
        self.parked.sweep(now, |resting| {
            let server = line.may_hear(resting.holder(), resting.server()).map(|(_, server)| server);
            server.is_some_and(|server| downward::leads(server, resting.fingerprint()))
        });
        let idle = u64::try_from(snapshot.settings.bounds.session_idle.as_micros()).unwrap_or(u64::MAX);
        // A server that is not configured any more, or elsewhere, is told nothing: nobody need wait for the last call.
        let is_current = |name: &ServerName, leg: &Leg| {
            snapshot.servers.get(name).is_some_and(|now| now.fingerprint == leg.fingerprint)
        };
        self.legs.let_go(is_current);
        let over = self.legs.sweep(|name, link| {
            let leads = snapshot.servers.get(name).is_some_and(|now| downward::leads(now, link.leg.fingerprint));
            leads && link.idle(now) <= idle && !self.is_forfeited(&link.holder(), snapshot)
        });
        self.part(over);
    }

    /// Tells servers that sessions of ours with them are over, without holding anybody up.
    pub(crate) fn part(self: &Arc<Self>, over: Vec<(ServerName, Arc<Leg>)>) {
        if over.iter().any(|(_, leg)| matches!(leg.way, Way::Http(Some(_)))) {
            tokio::spawn(end_legs(Arc::clone(self), over, UnderWay::begin(self)));
        }
    }

    /// Whether the credential that opened a session no longer counts. A token that ran out, or whose key its issuer
    /// replaced, may be renewed.
    fn is_forfeit(&self, session: &Session, snapshot: &Snapshot) -> bool {
        self.is_forfeited(&session.holder(), snapshot)
    }

    fn is_forfeited(&self, holder: &Principal, snapshot: &Snapshot) -> bool {
        match holder.still_valid(&snapshot.identity, self.clock.now()) {
            Ok(()) => false,
            Err(AuthFault::Expired | AuthFault::UnknownSigner(_)) => {
                !matches!(holder.credential_id(), CredentialId::Token(_))
            }
            Err(_) => true,
        }
    }
}

/// Tells servers that their sessions are over. Those that cannot be reached let them expire.
async fn end_legs(state: Arc<State>, legs: Vec<(ServerName, Arc<Leg>)>, _under_way: UnderWay) {
    let line = state.line();
    for (name, leg) in legs {
        let Some(server) = line.snapshot.servers.get(&name).filter(|server| server.fingerprint == leg.fingerprint)
        else {
            continue;
        };
        let Ok(injected) = crate::inject::credentials(&state, server) else { continue };
        let limits = line.snapshot.answer_limits();
        Hop { state: &state, server, injected: &injected, limits }.end(&leg).await;
    }
}
