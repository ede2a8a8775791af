//! What a process, or a server of 2024-11-05, says unasked to a legacy client that listens. One that ended meanwhile is
//! started again: who only listens asks for nothing that would start it.
//!
//! So is one that a reload put in its place; where that is no process, it is heard in its own manner.
//!
//! The rules of processes hold: how many there may be, and how long one that fell is left alone (`upstream/child/room.rs`).
//! One that falls again and again is given up, until a request starts it.

use crate::{
    aggregate::listen::until_not,
    forward::open_leg,
    manner::{self, Manner},
    own::Own,
    server::Server,
    session::{Leg, Session, Way},
    state::State,
    stop::Stage,
    upstream::{
        UpstreamFault,
        exchange::Hop,
        pipe::{Heard, Pipe, Word},
    },
};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use vocab::ServerName;

/// How long a server is left alone before it is started again; the next times twice as long each.
const FIRST: Duration = Duration::from_millis(200);
/// The longest.
const LONGEST: Duration = Duration::from_secs(30);
/// How often it is started in a row.
const TRIES: u32 = 10;
/// One that lived so long did not fall in a row.
const LIVED: Duration = Duration::from_mins(1);

/// What a process says unasked goes to the session's listening stream. Whoever listens there hears the next process, too.
pub(crate) fn hear(state: &Arc<State>, pipe: &Arc<Pipe>, session: &Arc<Session>) {
    let (state, session) = (Arc::downgrade(state), Arc::downgrade(session));
    let (server, origin) = (pipe.server().clone(), Some(pipe.origin()));
    pipe.hear(move |word| {
        let Some(session) = session.upgrade().filter(|session| !session.is_over()) else { return Heard::Gone };
        match word {
            Word::Said(message) if session.tell(&server, origin, &message) => Heard::Taken,
            Word::Said(_) if session.is_read() => Heard::Full,
            Word::Said(_) | Word::Nothing => Heard::Missed,
            Word::Over => {
                if let Some(state) = state.upgrade() {
                    begin(&state, &server, &session);
                }
                Heard::Gone
            }
        }
    });
}

/// Sees to it that a session hears the next process of a server, if it listens and the one before has ended.
pub(crate) fn begin(state: &Arc<State>, server: &ServerName, session: &Arc<Session>) {
    if session.is_bereft_of(server) {
        replace(state, server, session);
    }
}

/// The same where the session let go of that process. Does nothing where somebody does it already. Whoever finds out may be
/// the sweep of a reload: the process begins, and lives, where the session does.
pub(crate) fn replace(state: &Arc<State>, server: &ServerName, session: &Arc<Session>) {
    if session.is_heard() {
        session.home.spawn(keep(Arc::clone(state), server.clone(), Arc::clone(session)));
    }
}

async fn keep(state: Arc<State>, name: ServerName, session: Arc<Session>) {
    let (mut end, mut stopping) = (session.end(), state.stopping.subscribe());
    let keeping = async {
        loop {
            let Some(following) = session.follow(&name) else { return };
            let stopped = revive(&state, &name, &session).await;
            // Before somebody else may follow it, nobody does.
            drop(following);
            match stopped {
                Stopped::Done => {}
                Stopped::ForGood => return,
                Stopped::Other(server) => return manner::go_on(&state, &server, &session),
            }
            // What ended, or came to listen, in the last moment was left to this.
            if !session.is_heard() || session.is_served_by(&name) {
                return;
            }
        }
    };
    tokio::select! {
        () = keeping => {}
        _ = end.wait_for(|ended| *ended) => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

/// Why a server is not started any more.
enum Stopped {
    /// It stays, or nobody listens.
    Done,
    /// It is left alone until a request starts it, or the right to it has ended.
    ForGood,
    /// It is heard in another manner.
    Other(Arc<Server>),
}

/// What came of a start.
enum Started {
    /// The session has a leg to it.
    Leg(Arc<Leg>),
    Failed(UpstreamFault),
    /// It is reached in another way.
    Other(Arc<Server>),
    /// The right to it has ended.
    Barred,
}

/// Starts a server until it stays, or nobody listens.
async fn revive(state: &Arc<State>, name: &ServerName, session: &Arc<Session>) -> Stopped {
    let lost_at = state.clock.ticks();
    for wait in waits() {
        sleep(wait).await;
        if !session.is_heard() {
            return Stopped::Done;
        }
        match start(state, name, session, lost_at).await {
            Started::Leg(leg) if stays(name, session, &leg).await => return Stopped::Done,
            Started::Leg(_) => {}
            Started::Failed(fault) => {
                tracing::debug!(server = %name, %fault, "a server that a client listens to could not be started again");
            }
            Started::Other(server) => return Stopped::Other(server),
            Started::Barred => return Stopped::ForGood,
        }
    }
    tracing::warn!(server = %name, tries = TRIES, "a server that a client listens to does not stay; the next request starts it");
    Stopped::ForGood
}

fn waits() -> impl Iterator<Item = Duration> {
    (0..TRIES).map(|turn| FIRST.saturating_mul(1 << turn).min(LONGEST))
}

/// Opens a leg of the session, unless a request has done so meanwhile.
async fn start(state: &Arc<State>, name: &ServerName, session: &Arc<Session>, lost_at: u64) -> Started {
    let line = state.line();
    let Some((caller, server)) = line.may_hear(&session.holder(), name) else { return Started::Barred };
    manner::recognise(&line, server, session).await;
    if Manner::of(server) != Manner::Pipe {
        return Started::Other(Arc::clone(server));
    }
    if let Some(leg) = session.leg(server).filter(|leg| matches!(leg.way, Way::Pipe(_))) {
        line.look_for_missed(server, lost_at);
        return Started::Leg(leg);
    }
    let mut own = Own::begin(&line, session, server);
    let opening = async {
        let injected = own.inject(&line, &caller, server).map_err(UpstreamFault::Stopped)?;
        let hop = Hop { state, server, injected: &injected, limits: line.snapshot.answer_limits() };
        open_leg(&hop, session).await
    };
    let opened = opening.await;
    own.close(opened.as_ref().map(drop).map_err(|fault| fault.stop(name)));
    match opened {
        Ok(leg) => {
            line.look_for_missed(server, lost_at);
            Started::Leg(leg)
        }
        Err(UpstreamFault::Stopped(stop)) if stop.stage == Stage::Authorize => Started::Barred,
        Err(fault) => Started::Failed(fault),
    }
}

/// Whether it lives long enough. Waits until it has ended, or the session has let go of it for another.
async fn stays(name: &ServerName, session: &Arc<Session>, leg: &Arc<Leg>) -> bool {
    let living = until_not(|| session.has_leg(name, leg) && !session.is_bereft_of(name));
    tokio::time::timeout(LIVED, living).await.is_err()
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, waits};
    use std::time::Duration;

    #[test]
    fn a_server_that_does_not_stay_is_started_ever_more_rarely_and_not_for_ever() {
        let waits: Vec<Duration> = waits().collect();
        assert!(waits.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(LONGEST)), "{waits:?}");
        assert!(waits.iter().sum::<Duration>() < Duration::from_mins(3), "{waits:?}");
    }
}
