//! Accepts connections: one current-thread runtime per worker, each with its own accept sockets.

use super::{
    certificate, connection,
    lasting::Rest,
    listen::{self, Left, ListenFault, Socket, Taken},
    serve::stopped,
    tally::Ended,
};
use crate::{
    settings::{Listener, Listening},
    state::State,
};
use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

/// How long to wait when the system has no more descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// The listening side.
pub struct Rim {
    places: Vec<Listener>,
    workers: Vec<JoinHandle<()>>,
    _files: Vec<Left>,
}

/// Why it does not listen.
#[derive(Debug, thiserror::Error)]
pub enum RimFault {
    /// A place cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenFault),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// A worker cannot be started.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
}

/// What is the same for every connection.
pub(super) struct Door {
    pub(super) state: Arc<State>,
    /// How TLS begins, where it does.
    pub(super) tls: Option<TlsAcceptor>,
    /// A proxy says first who connected to it.
    pub(super) proxied: bool,
    /// Open connections.
    open: Arc<AtomicUsize>,
    /// How many there may be.
    most: usize,
}

impl Rim {
    /// Takes every place and starts the workers.
    pub fn start(state: &Arc<State>, listening: &Listening) -> Result<Self, RimFault> {
        let tls = listening.tls.as_ref().map(certificate::acceptor).transpose().map_err(RimFault::Tls)?;
        let Taken { places, workers: sockets, files } = listen::take(listening)?;
        let open = Arc::new(AtomicUsize::new(0));
        let door = Arc::new(Door {
            state: Arc::clone(state),
            tls,
            proxied: listening.proxied,
            open,
            most: listening.connections,
        });
        let mut workers = Vec::with_capacity(sockets.len());
        for (number, sockets) in sockets.into_iter().enumerate() {
            let door = Arc::clone(&door);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RimFault::Worker)?;
            let work = move || {
                runtime.block_on(work(door, sockets));
                runtime.shutdown_timeout(Duration::from_millis(100));
            };
            let thread =
                std::thread::Builder::new().name(format!("worker-{number}")).spawn(work).map_err(RimFault::Worker)?;
            workers.push(thread);
        }
        Ok(Self { places, workers, _files: files })
    }

    /// Where it listens.
    pub fn places(&self) -> &[Listener] {
        &self.places
    }

    /// The first address of the network that is listened on.
    pub fn address(&self) -> Option<SocketAddr> {
        self.places.iter().find_map(Listener::address)
    }

    /// Waits until every worker has ended.
    pub fn join(self) {
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }
}

/// What one worker does.
async fn work(door: Arc<Door>, sockets: Vec<Socket>) {
    door.state.census.join();
    for socket in sockets {
        tokio::spawn(accept(Arc::clone(&door), socket));
    }
    stopped(&mut door.state.stopping.subscribe()).await;
    // Calls under way end by themselves or at the deadline of the drain; processes end on the runtime they began on.
    while !door.state.cut.load(Ordering::Acquire) {
        let _ = tokio::time::timeout(EXHAUSTED, door.state.ended.notified()).await;
    }
    // What was said last is on its way to its connection.
    tokio::time::sleep(EXHAUSTED).await;
}

/// Accepts on one socket until the gateway stops.
async fn accept(door: Arc<Door>, socket: Socket) {
    let mut stopping = door.state.stopping.subscribe();
    let accepting = async {
        match socket {
            Socket::Network(socket) => {
                let listener = TcpListener::from_std(socket)?;
                loop {
                    match listener.accept().await {
                        Ok((stream, peer)) => {
                            door.take(peer, |door| async move { connection::network(&door, stream, peer).await });
                        }
                        Err(fault) => exhausted(&fault).await,
                    }
                }
            }
            Socket::Unix(socket) => {
                let listener = UnixListener::from_std(socket)?;
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            door.take("a local socket", |door| async move { connection::local(&door, stream).await });
                        }
                        Err(fault) => exhausted(&fault).await,
                    }
                }
            }
        }
    };
    let ended: io::Result<Infallible> = tokio::select! {
        ended = accepting => ended,
        () = stopped(&mut stopping) => return,
    };
    let Err(fault) = ended;
    tracing::error!(%fault, "a worker cannot listen");
}

async fn exhausted(fault: &io::Error) {
    tracing::warn!(%fault, "a connection cannot be accepted");
    tokio::time::sleep(EXHAUSTED).await;
}

impl Door {
    /// Carries one more connection, unless too many are open.
    fn take<F>(self: &Arc<Self>, from: impl fmt::Display, carry: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = Option<Rest>> + Send + 'static,
    {
        let open = Open(Arc::clone(&self.open));
        if self.open.fetch_add(1, Ordering::AcqRel) >= self.most {
            if let Some(times) = self.state.tally.note(Ended::Full, self.state.clock.ticks()) {
                let most = self.most;
                tracing::warn!(peer = %from, most, times, "a connection was closed: too many are open");
            }
            return;
        }
        let carrying = carry(Arc::clone(self));
        tokio::spawn(async move {
            if let Some(rest) = carrying.await {
                // What lasts does not keep the task of a connection that may have many requests.
                tokio::spawn(async move {
                    let _open = open;
                    rest.await;
                });
            }
        });
    }
}

/// Counts an open connection until it is dropped, by whatever ends it.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
