//! Opens the sessions that a session of ours has with servers.

use super::SILENCE;
use crate::{
    aggregate, resolve, revive,
    server::Carriage,
    session::{Leg, Session, Way, to_its_end},
    standing,
    stop::Stage,
    upstream::{UpstreamFault, exchange::Hop},
};
use std::sync::Arc;

/// Opens a leg of a session, unless somebody else does. Whoever waits may let go: the next call finds the leg.
pub(crate) async fn open_leg(hop: &Hop<'_>, session: &Arc<Session>) -> Result<Arc<Leg>, UpstreamFault> {
    let turn = session.opening.turn(&hop.server.name).await;
    if let Some(leg) = hop.leg_of(session) {
        return Ok(leg);
    }
    let (kept, session) = (hop.kept(), Arc::clone(session));
    to_its_end(async move {
        let _turn = turn;
        open(&kept.hop(), &session).await
    })
    .await
}

/// Introduces the client as it introduced itself.
async fn open(hop: &Hop<'_>, session: &Arc<Session>) -> Result<Arc<Leg>, UpstreamFault> {
    let pipe = match hop.server.carriage() {
        Carriage::Pipe { shared: true } => Some(hop.state.shared_pipe(hop).await?),
        Carriage::Pipe { shared: false } => Some(hop.start(Some(&session.owner)).await?),
        Carriage::Requests => None,
    };
    let (leg, _) = hop.open(&session.introduction, pipe).await?;
    if let Way::Pipe(pipe) = &leg.way {
        revive::hear(hop.state, pipe, session);
    }
    let leg = Arc::new(leg);
    // What a server asks in the course of a call may come on its listening stream, and is lost where there is none: a
    // leg is not used before its stream is open.
    let may_stream = matches!(leg.way, Way::Http(_)) && !session.has_renounced_stream(hop.server);
    if may_stream
        && session.is_heard()
        && let Ok(Ok(stream)) = tokio::time::timeout(SILENCE, aggregate::stream::stream_of(hop, &leg)).await
    {
        session.keep_stream(&hop.server.name, stream);
    }
    if !session.keep_leg(&hop.server.name, &leg) {
        drop(session.take_stream(&hop.server.name));
        hop.state.part(vec![(hop.server.name.clone(), leg)]);
        return Err(UpstreamFault::Stopped(resolve::no_such_session().at(Stage::Forward)));
    }
    if matches!(leg.way, Way::Pipe(_)) {
        // One that fell before its leg was kept was nobody's to replace.
        revive::begin(hop.state, &hop.server.name, session);
    } else if may_stream && session.is_heard() {
        // Whoever followed before may have stopped, and a server that joined after the client began to listen has nobody.
        aggregate::listen::begin(hop.state, &hop.server.name, session);
    }
    standing::follow(hop.state, &hop.server.name, session, &leg);
    standing::level(hop, session, &leg).await?;
    Ok(leg)
}
