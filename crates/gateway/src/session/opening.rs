//! Whose turn it is to open a leg: one at a time to each server, and no server waits for another. What was begun comes to
//! its end.

use super::lock;
use crate::upstream::UpstreamFault;
use std::{
    collections::HashMap,
    panic::resume_unwind,
    sync::{Arc, Mutex},
};
use tokio::sync::OwnedMutexGuard;
use vocab::ServerName;

/// The turns of one session.
#[derive(Default)]
pub(crate) struct Openings(Mutex<HashMap<ServerName, Arc<tokio::sync::Mutex<()>>>>);

impl Openings {
    /// Waits until nobody else opens a leg to `server`. The turn is over when the guard is dropped.
    pub(crate) async fn turn(&self, server: &ServerName) -> OwnedMutexGuard<()> {
        self.of(server).lock_owned().await
    }

    /// Those of servers to which nobody opens a leg now are not kept.
    fn of(&self, server: &ServerName) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.0);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(server.clone()).or_default())
    }
}

/// Opens something, though whoever waits for it lets go in the middle: a server that was introduced to a client has a
/// session by then, which is to be kept, or ended there.
pub(crate) async fn to_its_end<T: Send + 'static>(
    opening: impl Future<Output = Result<T, UpstreamFault>> + Send + 'static,
) -> Result<T, UpstreamFault> {
    match tokio::spawn(opening).await {
        Ok(opened) => opened,
        Err(fault) => match fault.try_into_panic() {
            // It is the waiting call's, as it would be without a task.
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(UpstreamFault::Down("the gateway stops".to_owned())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_server_waits_for_itself_alone_and_turns_that_are_over_are_not_kept() {
        let turns = Openings::default();
        let [a, b] = ["a", "b"].map(|name| ServerName::new(name).unwrap());
        let first = turns.turn(&a).await;
        let mut second = Box::pin(turns.turn(&a));
        assert!(second.as_mut().now_or_never().is_none(), "one at a time");
        assert!(turns.turn(&b).now_or_never().is_some(), "another server's is free");
        drop(first);
        drop(second.await);
        drop(turns.turn(&b).await);
        assert_eq!(lock(&turns.0).keys().collect::<Vec<_>>(), [&b]);
    }
}
