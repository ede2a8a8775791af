//! A stream from its first event to its last: what is put into the mailbox goes to the client, until either leaves.

use crate::{
    authenticate::Caller,
    call::Route,
    flow::{KEEP_ALIVE, RECHECK, STALLED, say},
    mailbox::Mailbox,
    rim::UnderWay,
    session::Session,
    state::State,
    stop::{Stage, Stop},
    trail::Trail,
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::StatusCode;
use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// How long the answers of calls under way are waited for once their session is over.
const PARTING: Duration = Duration::from_secs(1);
/// How long a client may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_mins(1);

/// Lets the stream run on a task of its own. The trail closes when it ends, and the session with it, once the calls under
/// way are over.
pub(super) fn begin(
    state: &Arc<State>,
    mailbox: Arc<Mailbox>,
    letters: mpsc::Receiver<Bytes>,
    first: Bytes,
    mut trail: Trail,
) -> mpsc::Receiver<Bytes> {
    let (client, body) = mpsc::channel(1);
    // There is room: the channel is new.
    let _ = client.try_send(first);
    let state = Arc::clone(state);
    let open = state.census.stream();
    tokio::spawn(async move {
        let carried = AssertUnwindSafe(carry(&state, &mailbox, letters, client)).catch_unwind().await;
        state.mailboxes.close(&mailbox);
        trail.facts_mut().session = mailbox.session().borrow().as_ref().map(|session| session.digest);
        match carried {
            Ok(None) => trail.close_answered(StatusCode::OK),
            Ok(Some(stop)) => trail.close_stopped(&stop),
            Err(_) => {
                let stop = trail.panicked();
                trail.close_stopped(&stop);
            }
        }
        drop(open);
        // A client that leaves ends no call of the legacy era.
        mailbox.settled().await;
        let session = mailbox.session().borrow().clone();
        if let Some(session) = session {
            state.end_sessions(|other| std::ptr::eq(other, Arc::as_ptr(&session)));
        }
    });
    body
}

/// Brings letters until the client, the session or the gateway ends, or the right to the stream does, which is given.
async fn carry(
    state: &Arc<State>,
    mailbox: &Arc<Mailbox>,
    mut letters: mpsc::Receiver<Bytes>,
    client: mpsc::Sender<Bytes>,
) -> Option<Box<Stop>> {
    let mut recheck = tokio::time::interval(RECHECK);
    recheck.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let began = Instant::now();
    let mut spoken = began;
    let mut over = pin!(session_over(mailbox));
    let mut stopped = pin!(stopped(state, mailbox));
    loop {
        tokio::select! {
            biased;
            letter = letters.recv() => {
                spoken = Instant::now();
                // The sender is in the mailbox, which is here.
                if !say(&client, letter?, STALLED).await {
                    return None;
                }
            }
            () = client.closed() => return None,
            () = &mut over => return last_words(&mut letters, &client).await,
            () = &mut stopped => return last_words(&mut letters, &client).await,
            _ = recheck.tick() => {
                if let Err(stop) = still_welcome(state, mailbox) {
                    return Some(Box::new(stop));
                }
                if !mailbox.has_begun() && began.elapsed() > INTRODUCTION {
                    return None;
                }
                if spoken.elapsed() > KEEP_ALIVE {
                    spoken = Instant::now();
                    let _ = client.try_send(Bytes::from_static(b": keep-alive\n\n"));
                }
            }
        }
    }
}

/// Brings what was put into the mailbox before the end.
async fn last_words(letters: &mut mpsc::Receiver<Bytes>, client: &mpsc::Sender<Bytes>) -> Option<Box<Stop>> {
    while let Ok(letter) = letters.try_recv() {
        if !say(client, letter, STALLED).await {
            break;
        }
    }
    None
}

/// Waits for the end of the session, and for what its calls say to that. Until then the session is in use.
async fn session_over(mailbox: &Mailbox) {
    let mut sessions = mailbox.session();
    let session: Option<Arc<Session>> = sessions.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
    let Some(session) = session else { return std::future::pending().await };
    let _streaming = session.streaming();
    // The sender is in the session, which is here.
    let _ = session.end().wait_for(|ended| *ended).await;
    let _ = tokio::time::timeout(PARTING, mailbox.settled()).await;
}

/// Waits until the gateway stops and every call of this client has its answer.
async fn stopped(state: &Arc<State>, mailbox: &Mailbox) {
    // A sender that is gone has stopped too.
    let _ = state.stopping.subscribe().wait_for(|stopping| *stopping).await;
    let _under_way = UnderWay::begin(state);
    mailbox.settled().await;
}

/// Whether the holder may still have the stream.
fn still_welcome(state: &Arc<State>, mailbox: &Mailbox) -> Result<(), Stop> {
    let line = state.line();
    let principal = mailbox.holder();
    let principal = line.snapshot.identity.renew(&principal, state.clock.now()).map_err(|fault| {
        Stop::refused(Stage::Authenticate, "revoked", mcp::error::INVALID_REQUEST, fault.public_message())
    })?;
    match &mailbox.route {
        Route::All => Ok(()),
        Route::One(name) => {
            let caller = Caller::of(principal);
            line.door(&caller, name).map(drop)
        }
    }
}
