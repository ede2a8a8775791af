//! The listening stream of a session with a server, and what it means that there is none.

use crate::{
    bridge::Crossing,
    server::{Carriage, Server},
    session::{Leg, Way},
    upstream::{
        Arrival, Source, UpstreamFault,
        exchange::{self, Hop},
        http::{self as wire, Outbound},
    },
};
use bytes::Bytes;
use http::{Method, StatusCode};
use mcp::Era;
use std::sync::atomic::{AtomicU64, Ordering};

/// The listening stream of a leg, if its server has one. `Lost` if the server does not know the session any more.
pub(crate) async fn stream_of(hop: &Hop<'_>, leg: &Leg) -> Result<Option<Source>, UpstreamFault> {
    let mut headers = wire::own_stream();
    exchange::address(leg, &mut headers);
    let outbound = Outbound::new(Method::GET, headers, Bytes::new());
    let (arrival, _) = wire::send(hop.state, hop.server, hop.injected, outbound, hop.limits.body).await?;
    let stream = match arrival {
        Arrival::Stream { source, .. } => Some(source),
        other => none_of(hop, Some(leg), other.status()).await.map(|()| None)?,
    };
    hop.server.state.has_no_stream.store(stream.is_none(), Ordering::Relaxed);
    Ok(stream)
}

/// Whether a server has a way to tell a client of `era` that a resource was updated, as far as is known now.
pub(super) fn may_tell(era: Era, server: &Server) -> bool {
    let takes_subscriptions = match Crossing::between(era, server) {
        Crossing::Upward => true,
        Crossing::None => era == Era::Modern,
        Crossing::Downward => false,
    };
    takes_subscriptions
        || match server.carriage() {
            // It speaks by itself.
            Carriage::Pipe { .. } => true,
            Carriage::Requests => !server.state.has_no_stream.load(Ordering::Relaxed),
        }
}

/// What a status means that came in place of a listening stream: that there is none, that there is none at this moment, or
/// that the session is gone.
pub(super) async fn none_of(hop: &Hop<'_>, leg: Option<&Leg>, status: StatusCode) -> Result<(), UpstreamFault> {
    match (status, leg) {
        // SPEC: 404 says that the session is gone. A server without such streams may say so with 404, too, and some answer
        // unknown sessions with 400: the session itself is asked.
        (StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST, Some(leg)) if matches!(leg.way, Way::Http(Some(_))) => {
            is_known(hop, leg).await
        }
        (status, _) if exchange::is_passing(status) => {
            Err(UpstreamFault::Down(format!("HTTP {status} in place of a listening stream")))
        }
        _ => Ok(()),
    }
}

/// Numbers of pings, each of which has an id of its own.
static PINGS: AtomicU64 = AtomicU64::new(0);

/// Whether a server still knows a session: `Lost` if it does not.
pub(crate) async fn is_known(hop: &Hop<'_>, leg: &Leg) -> Result<(), UpstreamFault> {
    let number = PINGS.fetch_add(1, Ordering::Relaxed);
    let ping = format!(r#"{{"jsonrpc":"2.0","id":"durward-ping-{number}","method":"ping"}}"#);
    let ping = exchange::one(ping.into(), &hop.limits)?;
    let deadline = hop.server.deadline;
    let asking = tokio::time::timeout(deadline, hop.send(Some(leg), &ping));
    let (arrival, _) = asking.await.map_err(|_| UpstreamFault::Timeout(deadline))??;
    // With 400 a server may say something to this very request: then it knows in whose session.
    let is_answer = |body: &Bytes| {
        let answer = exchange::one(body.clone(), &hop.limits);
        answer.is_ok_and(|answer| answer.id() == ping.id())
    };
    match (arrival.status(), &arrival) {
        (StatusCode::BAD_REQUEST, Arrival::Whole { body, .. }) if is_answer(body) => Ok(()),
        (StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST, _) => Err(UpstreamFault::Lost),
        (status, _) if status.is_success() => Ok(()),
        (status, _) => Err(UpstreamFault::Down(format!("HTTP {status} to a ping"))),
    }
}
