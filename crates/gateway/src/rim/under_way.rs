//! A call from its first step to its answer, whatever becomes of its client.

use crate::{
    absent::Presence,
    call::{Call, header},
    pipeline::Line,
    reply::Reply,
    state::State,
};
use mcp::Era;
use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};
use tokio::runtime::Handle;

/// Counts a call under way, so that a stop can wait for it.
pub(crate) struct UnderWay {
    state: Arc<State>,
    /// Whether the client waits for it.
    pub(super) presence: Option<Arc<Presence>>,
}

impl UnderWay {
    pub(crate) fn begin(state: &Arc<State>) -> Self {
        state.under_way.fetch_add(1, Ordering::AcqRel);
        Self { state: Arc::clone(state), presence: None }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.state.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.state.ended.notify_waiters();
        }
    }
}

/// What may go on elsewhere.
pub(super) type Serving = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Runs one call. In the legacy era a client that goes away does not end it.
pub(super) async fn run(line: &Line, mut call: Box<Call>, mut under_way: UnderWay) -> Reply {
    let (line, era, state) = (line.clone(), call.era, Arc::clone(&line.state));
    call.presence = under_way.presence.take().filter(|_| era == Era::Legacy);
    // Boxed once: a legacy call may have to go elsewhere.
    let serving = Box::pin(async move {
        let _under_way = under_way;
        line.serve(call).await
    });
    match era {
        Era::Modern => serving.await,
        Era::Legacy => steadfast(&state, serving).await,
    }
}

/// Comes to its end, and is not ended by whoever waits for it.
pub(super) async fn steadfast(state: &Arc<State>, serving: Serving) -> Reply {
    let state = Arc::clone(state);
    Steadfast { serving: Some((serving, move |reply| unheard(&reply, &state))) }.await
}

/// A call on its client's connection. If the connection lets go of it, it comes to its end on a task of its own, and its
/// answer goes where nobody hears it.
struct Steadfast<Unheard: FnOnce(Reply) + Send + Unpin + 'static> {
    serving: Option<(Serving, Unheard)>,
}

impl<Unheard: FnOnce(Reply) + Send + Unpin + 'static> Future for Steadfast<Unheard> {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let this = self.get_mut();
        // Taken out: what panics is over, and goes on nowhere.
        let Some((mut serving, unheard)) = this.serving.take() else { return Poll::Pending };
        let reply = serving.as_mut().poll(context);
        if reply.is_pending() {
            this.serving = Some((serving, unheard));
        }
        reply
    }
}

impl<Unheard: FnOnce(Reply) + Send + Unpin + 'static> Drop for Steadfast<Unheard> {
    fn drop(&mut self) {
        // Where no runtime is any more, the gateway has stopped, and so does the call: its record says `abandoned`.
        if let (Some((serving, unheard)), Ok(runtime)) = (self.serving.take(), Handle::try_current()) {
            runtime.spawn(async move { unheard(serving.await) });
        }
    }
}

/// Nobody is there for this answer: a session that it opens is nobody's, and ends.
fn unheard(reply: &Reply, state: &Arc<State>) {
    if let Some(handle) = reply.headers().get(&header::SESSION) {
        state.end_sessions(|session| session.handle() == handle);
    }
}

#[cfg(test)]
mod tests;
