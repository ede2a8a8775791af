//! The two listeners: TCP, where a key is asked for, and the socket that only its owner opens.
//!
//! Bounds what a peer can hold: connections, time for a head, time for an answer.

use crate::Door;
use axum::Router;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
};

/// Connections at one time, of each listener.
const CONNECTIONS: usize = 128;
/// How long a client may take to send the head of a request; an idle connection ends after as long.
const HEAD: Duration = Duration::from_secs(15);
/// The same where half of the places are taken: whoever holds them all with heads that never end lets others in soon.
const CROWDED_HEAD: Duration = Duration::from_secs(2);
/// How often it is said that no place is left.
const SAY: Duration = Duration::from_mins(1);
/// The head of a request, in bytes.
const HEAD_BYTES: usize = 32 << 10;
/// The longest a connection lives: longer than any action takes.
const LIFE: Duration = Duration::from_mins(10);
/// How long to wait when the system has no more descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Serves the router to the network until told to stop.
pub async fn serve_network(listener: TcpListener, router: Router, stopping: watch::Receiver<bool>) {
    let accept = |context: &mut Context<'_>| {
        listener.poll_accept(context).map_ok(|(stream, peer)| (stream, Door::Network { peer }))
    };
    serve(accept, router, stopping).await;
}

/// Serves the router to whoever may open the socket until told to stop.
pub async fn serve_socket(listener: UnixListener, router: Router, stopping: watch::Receiver<bool>) {
    let accept = |context: &mut Context<'_>| {
        listener.poll_accept(context).map(|accepted| {
            let (stream, _) = accepted?;
            let uid = stream.peer_cred()?.uid();
            Ok((stream, Door::Local { uid }))
        })
    };
    serve(accept, router, stopping).await;
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    accept: impl Fn(&mut Context<'_>) -> Poll<io::Result<(S, Door)>>,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut said: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = poll_fn(&accept) => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok((stream, door)) => {
                // One who finds no room is let go: those who are in finish.
                let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                    if said.is_none_or(|said| said.elapsed() >= SAY) {
                        said = Some(Instant::now());
                        tracing::warn!(
                            ?door,
                            "all {CONNECTIONS} connections of management are taken: new ones are let go, also those that ask \
                             for health and metrics"
                        );
                    }
                    continue;
                };
                let head = if room.available_permits() < CONNECTIONS / 2 { CROWDED_HEAD } else { HEAD };
                let (router, stopping) = (router.clone(), stopping.clone());
                tokio::spawn(async move {
                    connection(stream, router, door, head, stopping).await;
                    drop(place);
                });
            }
            Err(fault) => exhausted(&fault).await,
        }
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    door: Door,
    head: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(door);
        hyper::service::Service::call(&router, request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let told = async {
        // A sender that is gone has stopped too.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    tokio::select! {
        served = serving.as_mut() => {
            if let Err(fault) = served {
                tracing::trace!(?door, %fault, "a connection ended early");
            }
            return;
        }
        () = told => {}
        () = tokio::time::sleep(LIFE) => {}
    }
    // The answer under way is finished.
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(HEAD, serving).await;
}

async fn exhausted(fault: &io::Error) {
    tracing::warn!(%fault, "a management connection cannot be accepted");
    tokio::time::sleep(EXHAUSTED).await;
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a client of the listener under test")]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    #[tokio::test]
    async fn heads_that_never_end_close_management_to_nobody_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stopping) = watch::channel(false);
        let router = Router::new().route("/healthz", get(async || "ok"));
        tokio::spawn(serve_network(listener, router, stopping));
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a").await.unwrap();
            held.push(stream);
        }
        let ask = async || {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, io::Error>(answer.starts_with("HTTP/1.1 200"))
        };
        assert!(!ask().await.unwrap_or(false), "no place is left");
        let soon = async {
            while !ask().await.unwrap_or(false) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(8), soon).await.expect("a place within a moment");
    }
}
