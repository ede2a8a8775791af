//! The manner in which a legacy session hears what a server says unasked. A reload may change it, and so may a look at the
//! server: whoever follows it in one manner hands over here when it is another.

use crate::{
    aggregate::{
        self,
        listen::{News, is_current, until_not},
    },
    bridge::{self, Crossing},
    call::{Call, Route},
    pipeline::Line,
    revive,
    server::{Carriage, Server},
    session::{Session, replay::Found},
    state::State,
    upstream::{Arrival, Source},
};
use mcp::Era;
use std::{sync::Arc, time::Duration};

/// How long it may take until it is known what a server is.
const RECOGNISED: Duration = Duration::from_secs(10);

/// How a server is heard, as far as is known now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// A modern server is asked by `subscriptions/listen`.
    Subscription,
    /// A web server has a listening stream, which is asked for.
    Stream,
    /// A process, or a server of 2024-11-05, speaks by itself as long as it lives.
    Pipe,
}

impl Manner {
    pub(crate) fn of(server: &Server) -> Self {
        match (Crossing::between(Era::Legacy, server), server.carriage()) {
            (Crossing::Upward, _) => Self::Subscription,
            (Crossing::None | Crossing::Downward, Carriage::Requests) => Self::Stream,
            (Crossing::None | Crossing::Downward, Carriage::Pipe { .. }) => Self::Pipe,
        }
    }
}

/// The listening stream of a session that is ours: a new one, or the rest of the one that was cut.
pub(crate) fn listen(session: &Arc<Session>, call: &Call) -> Arrival {
    session.is_listened_by(call);
    let place = match call.last_event().map(|id| session.find_event(id)) {
        Some(Found::Listening(place)) => Some(place),
        Some(Found::Call(..) | Found::Nothing) | None => None,
    };
    let mut reader = session.listen(place);
    if !session.knows_ids(call) {
        reader.without_ids();
    }
    Arrival::Stream { headers: Box::default(), source: Source::Kept(reader) }
}

/// Sees to it that a session that begins to listen hears a server. A process that it has not used yet is not started.
pub(crate) fn begin(state: &Arc<State>, server: &Server, session: &Arc<Session>) {
    match Manner::of(server) {
        Manner::Subscription => bridge::upward::listen::begin(state, &server.name, session),
        Manner::Stream => aggregate::listen::begin(state, &server.name, session),
        Manner::Pipe => revive::begin(state, &server.name, session),
    }
}

/// Sees to it that a session that heard a server goes on to hear it, without a call of its client.
pub(crate) fn go_on(state: &Arc<State>, server: &Server, session: &Arc<Session>) {
    match Manner::of(server) {
        Manner::Subscription => bridge::upward::listen::begin(state, &server.name, session),
        Manner::Stream => aggregate::listen::go_on(state, &server.name, session),
        Manner::Pipe => revive::replace(state, &server.name, session),
    }
}

/// What a server was taken for, by clients of both eras.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken(Manner, Option<Crossing>);

impl Taken {
    pub(crate) fn of(server: &Server) -> Self {
        Self(Manner::of(server), Crossing::to(Era::Modern, server))
    }
}

/// A look found that a server is another than it was taken for. Whoever hears it finds out, and whoever gave it up, for it
/// had nothing to say as what it was, is told here. Nothing is started that a session has not used.
pub(crate) fn choose_anew(state: &Arc<State>, server: &Server) {
    let leads = |session: &Session| match &session.route {
        Route::All => true,
        Route::One(name) => *name == server.name,
    };
    for session in state.sessions.every(|session| leads(session) && session.is_heard()) {
        if Manner::of(server) == Manner::Pipe && !session.is_served_by(&server.name) {
            begin(state, server, &session);
        } else {
            go_on(state, server, &session);
        }
    }
    let _ = state.news.send(News { server: server.name.clone(), back: false, unsaid: false });
}

/// Waits until it is known what a server is that was not looked at yet, but not long, nor for one that was moved meanwhile.
/// Until then it is taken for what it seems, and whoever follows it finds out.
pub(crate) async fn recognise(line: &Line, server: &Arc<Server>, session: &Session) {
    if !server.is_unrecognised() {
        return;
    }
    let is_current = || session.is_heard() && is_current(&line.state.line(), &session.holder(), server);
    tokio::select! {
        _ = tokio::time::timeout(RECOGNISED, line.catalog(server)) => {}
        () = until_not(is_current) => {}
    }
}
