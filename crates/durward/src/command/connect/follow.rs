//! The stream of what the gateway says unasked, kept open as long as the session lasts.
//!
//! Never ends a session; begins one again where the gateway has forgotten it.

use super::{
    bridge::Bridge,
    carry::is_event_stream,
    credential::Behalf,
    stream::{Cursor, Pause, Stream},
};
use http::{HeaderValue, StatusCode};
use std::sync::Arc;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// Follows one session after the other.
pub(super) async fn follow(bridge: Arc<Bridge>) {
    let mut ready = bridge.session.ready.subscribe();
    loop {
        let Ok(number) = ready.wait_for(|number| *number > 0).await.map(|number| *number) else { return };
        tokio::select! {
            () = session(&bridge, number) => {}
            _ = ready.wait_for(|now| *now != number) => continue,
        }
        // Nothing more can be heard in this session.
        if ready.wait_for(|now| *now != number).await.is_err() {
            return;
        }
    }
}

/// Listens in one session until there is nothing to listen to.
async fn session(bridge: &Bridge, number: u64) {
    let mut cursor = Cursor::default();
    let mut pause = Pause::default();
    // A gateway that forgot the session says 404; so does one that never had such a stream.
    let mut was_there = false;
    let mut accepted = bridge.tell.accepted.subscribe();
    loop {
        let begun = Instant::now();
        let credential = bridge.credential.header();
        accepted.mark_unchanged();
        match bridge.listen(&cursor, Behalf::Ours).await {
            Ok(response) if response.status().is_success() && is_event_stream(response.headers()) => {
                was_there = true;
                let mut stream = Stream::unasked(response.into_body());
                while let Ok(Some(event)) = stream.next().await {
                    cursor.note(&event);
                    let Some(message) = event.message() else { continue };
                    if let Err(fault) = bridge.deliver(message, None, None).await {
                        tracing::warn!(%fault, "the gateway sent an event that is no message");
                    }
                }
                sleep(cursor.wait()).await;
            }
            Ok(response) if response.status() == StatusCode::NOT_FOUND && was_there => {
                // The next round tries again, or another session is followed.
                if let Err(failure) = bridge.introduce_again(number, Behalf::Ours).await {
                    tracing::debug!("not introduced again yet: {}", failure.text());
                }
            }
            Ok(response) if is_for_good(response.status()) => {
                let status = response.status();
                let failure = bridge.unfit(response).await;
                tracing::debug!(%status, "no stream of what is said unasked: {}", failure.text());
                return;
            }
            // A token is renewed, a key given again, a configuration reloaded: who is refused now may be heard later. What
            // became of the session meanwhile is not known.
            Ok(response) => {
                let status = response.status();
                let failure = bridge.unfit(response).await;
                tracing::debug!(%status, "not listening yet: {}", failure.text());
                was_there = true;
                if status == StatusCode::UNAUTHORIZED {
                    pause.after(begun).await;
                    hope(bridge, credential.as_ref(), &mut accepted).await;
                    continue;
                }
            }
            Err(_) => was_there = true,
        }
        pause.after(begun).await;
    }
}

/// Waits until a credential that was refused is worth another try: there is another one, or something was accepted since.
/// Whoever asks on and on with one that is good no longer is a guesser to the gateway, and locks out its neighbours.
async fn hope(bridge: &Bridge, refused: Option<&HeaderValue>, accepted: &mut watch::Receiver<u64>) {
    let mut pause = Pause::default();
    while !bridge.credential.renew(refused, Behalf::Ours).await {
        tokio::select! {
            // The sender lives as long as the bridge.
            _ = accepted.changed() => return,
            () = pause.after(Instant::now()) => {}
        }
    }
}

/// Whether there is no such stream: a gateway says so, does not know the session, or answers with something else.
fn is_for_good(status: StatusCode) -> bool {
    matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND) || status.is_success()
}
