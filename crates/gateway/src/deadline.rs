//! Waiting for so long and no longer.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};
use tokio::time::{error::Elapsed, timeout};

/// What comes of a step, unless it takes longer. Most steps that wait for bytes find them there already: for those no timer
/// is made and no clock is read.
pub(crate) async fn within<F: Future>(time: Duration, mut step: Pin<&mut F>) -> Result<F::Output, Elapsed> {
    match poll_fn(|context| Poll::Ready(step.as_mut().poll(context))).await {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => timeout(time, step).await,
    }
}

#[cfg(test)]
mod tests {
    use super::within;
    use std::{
        future::{pending, ready},
        pin::pin,
        time::Duration,
    };
    use tokio::sync::oneshot;

    #[test]
    fn what_is_there_needs_no_timer() {
        // Outside of a runtime there is none to be had.
        let there = futures_util::FutureExt::now_or_never(within(Duration::ZERO, pin!(ready(7))));
        assert_eq!(there.map(Result::ok), Some(Some(7)));
    }

    #[tokio::test]
    async fn what_comes_is_waited_for_and_what_does_not_come_no_longer_than_that() {
        let (send, receive) = oneshot::channel();
        let receive = pin!(receive);
        let sending = async { send.send(7) };
        let (received, sent) = tokio::join!(within(Duration::from_mins(1), receive), sending);
        assert_eq!((received.ok(), sent), (Some(Ok(7)), Ok(())));
        assert!(within(Duration::from_millis(1), pin!(pending::<()>())).await.is_err());
    }
}
