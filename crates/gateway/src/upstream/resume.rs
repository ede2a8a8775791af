//! A stream of a legacy server that ends before its answer is there. Where the gateway is the client, it asks for the
//! rest, as the specification wants (2025-11-25, basic/transports, "Resumability and Redelivery").
//!
//! Asks only servers that gave ids, and waits as long between as they want. Every wait is cancel-safe.

use super::{
    Arrival, Source, UpstreamFault, exchange,
    http::{self as wire, Outbound},
};
use crate::{call::header, inject, server::Server, session::Leg, state::State};
use ::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use mcp::sse::Event;
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};
use sync_wrapper::SyncWrapper;

/// How long to wait before asking for the rest, unless the server says so itself: at least, usually, at most.
const WAIT: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(1), Duration::from_mins(1)];
/// How often a server that cannot be reached is asked in a row.
const TRIES: u32 = 5;

type Asking = Pin<Box<dyn Future<Output = Result<Source, UpstreamFault>> + Send>>;

/// A stream, and what it takes to go on with it elsewhere.
pub(crate) struct Resumed {
    // Not the state itself: a call that waits lies in it, with its stream.
    state: Weak<State>,
    server: Arc<Server>,
    /// Of the session.
    headers: HeaderMap,
    source: Source,
    /// The rest is asked for.
    asking: Option<SyncWrapper<Asking>>,
    /// The last event that had an id.
    last: Option<HeaderValue>,
    wait: Duration,
    failed: u32,
}

impl Resumed {
    /// A stream of a session. Only those over HTTP can end early and go on.
    pub(crate) fn around(state: &Weak<State>, server: &Arc<Server>, leg: &Leg, source: Source) -> Source {
        if !matches!(source, Source::Http(_)) {
            return source;
        }
        let mut headers = wire::own_stream();
        exchange::address(leg, &mut headers);
        let [_, wait, _] = WAIT;
        let (state, server) = (Weak::clone(state), Arc::clone(server));
        Source::Resumed(Box::new(Self { state, server, headers, source, asking: None, last: None, wait, failed: 0 }))
    }

    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, UpstreamFault> {
        loop {
            if let Some(asking) = &mut self.asking {
                let came = asking.get_mut().await;
                self.asking = None;
                match came {
                    Ok(source) => (self.source, self.failed) = (source, 0),
                    Err(UpstreamFault::Down(_) | UpstreamFault::Timeout(_)) if self.failed < TRIES => {
                        self.failed += 1;
                        self.ask();
                        continue;
                    }
                    Err(fault) => return Err(fault),
                }
            }
            match Box::pin(self.source.next()).await {
                Ok(Some((_, event))) => {
                    self.note(&event);
                    return Ok(Some(event));
                }
                Ok(None) | Err(UpstreamFault::Cut(_)) if self.last.is_some() => self.ask(),
                Ok(None) => return Ok(None),
                Err(fault) => return Err(fault),
            }
        }
    }

    fn note(&mut self, event: &Event) {
        if let Some(id) = &event.id {
            // An empty id takes the last one back (WHATWG HTML §9.2.6).
            self.last = HeaderValue::from_bytes(id).ok().filter(|id| !id.is_empty());
        }
        if let Some(retry) = event.retry {
            let [least, _, most] = WAIT;
            self.wait = Duration::from_millis(retry).clamp(least, most);
        }
    }

    fn ask(&mut self) {
        let (state, server, wait) = (Weak::clone(&self.state), Arc::clone(&self.server), self.wait);
        let mut headers = self.headers.clone();
        if let Some(last) = &self.last {
            headers.insert(header::LAST_EVENT.clone(), last.clone());
        }
        self.asking = Some(SyncWrapper::new(Box::pin(async move {
            tokio::time::sleep(wait).await;
            let state = state.upgrade().ok_or_else(|| UpstreamFault::Cut("the gateway stops".to_owned()))?;
            rest(&state, &server, headers).await
        })));
    }
}

/// The rest of a stream.
async fn rest(state: &Arc<State>, server: &Server, headers: HeaderMap) -> Result<Source, UpstreamFault> {
    let line = state.line();
    // SECURITY: one that was taken out or moved is asked nothing more, least of all with its successor's credential.
    let current = line.snapshot.servers.get(&server.name).filter(|current| current.fingerprint == server.fingerprint);
    let current =
        current.ok_or_else(|| UpstreamFault::Bridge("it was configured anew in the course of the call".to_owned()))?;
    let injected = inject::credentials(state, current).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
    let outbound = Outbound::new(Method::GET, headers, Bytes::new());
    match wire::send(state, current, &injected, outbound, line.snapshot.settings.bounds.answer).await?.0 {
        Arrival::Stream { source, .. } => Ok(source),
        other => Err(UpstreamFault::Cut(format!("HTTP {} to the question for the rest of a stream", other.status()))),
    }
}
