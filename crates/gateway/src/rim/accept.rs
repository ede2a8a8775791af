//! Listens: one current-thread runtime per worker, each with its own accept socket.

use super::{certificate, connection, serve::stopped};
use crate::{settings::Listening, state::State};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Connections the system keeps for us before we accept them.
const BACKLOG: i32 = 1024;
/// How long to wait when the system has no more descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// The listening side.
pub struct Rim {
    address: SocketAddr,
    workers: Vec<JoinHandle<()>>,
}

/// Why it does not listen.
#[derive(Debug, thiserror::Error)]
pub enum RimFault {
    /// The address cannot be had.
    #[error("cannot listen on {address}; is something else running there?")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
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
    /// Open connections.
    open: Arc<AtomicUsize>,
    /// How many there may be.
    most: usize,
}

impl Rim {
    /// Binds one socket per worker and starts them.
    pub fn start(state: &Arc<State>, listening: &Listening) -> Result<Self, RimFault> {
        let bind = |address, place| bind(address, place).map_err(|cause| RimFault::Bind { address, cause });
        let first = bind(listening.address, Place::Ours)?;
        // Port 0 took a free port; the other workers share it.
        let address = first.local_addr().map_err(|cause| RimFault::Bind { address: listening.address, cause })?;
        let mut sockets = vec![first];
        for _ in 1..listening.workers {
            sockets.push(bind(address, Place::Shared)?);
        }
        let tls = listening.tls.as_ref().map(certificate::acceptor).transpose().map_err(RimFault::Tls)?;
        let open = Arc::new(AtomicUsize::new(0));
        let door = Arc::new(Door { state: Arc::clone(state), tls, open, most: listening.connections });
        let mut workers = Vec::with_capacity(sockets.len());
        for (number, socket) in sockets.into_iter().enumerate() {
            let door = Arc::clone(&door);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RimFault::Worker)?;
            let work = move || {
                runtime.block_on(accept(door, socket));
                runtime.shutdown_timeout(Duration::from_millis(100));
            };
            let thread =
                std::thread::Builder::new().name(format!("worker-{number}")).spawn(work).map_err(RimFault::Worker)?;
            workers.push(thread);
        }
        Ok(Self { address, workers })
    }

    /// The address that is listened on.
    pub const fn address(&self) -> SocketAddr {
        self.address
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

/// How an address is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nobody else may have it.
    Ours,
    /// Beside our own first socket.
    Shared,
}

fn bind(address: SocketAddr, place: Place) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // A socket that may share its port would also share it with another gateway, which would get half of the calls:
    // the first one takes the port alone, and opens it to the other workers afterwards.
    socket.set_reuse_port(place == Place::Shared)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn accept(door: Arc<Door>, socket: StdListener) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(fault) => return tracing::error!(%fault, "a worker cannot listen"),
    };
    let mut stopping = door.state.stopping.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Some(open) = door.enter() else {
                        tracing::warn!(%peer, most = door.most, "a connection was closed: too many are open");
                        continue;
                    };
                    let door = Arc::clone(&door);
                    tokio::spawn(async move {
                        let _open = open;
                        connection::network(&door, stream, peer).await;
                    });
                }
                Err(fault) => {
                    tracing::warn!(%fault, "a connection cannot be accepted");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            },
            () = stopped(&mut stopping) => break,
        }
    }
    drop(listener);
    // Calls under way end by themselves or at the deadline of the drain; processes end on the runtime they began on.
    while !door.state.cut.load(Ordering::Acquire) {
        let _ = tokio::time::timeout(EXHAUSTED, door.state.ended.notified()).await;
    }
}

impl Door {
    /// Counts one more connection, unless too many are open.
    fn enter(&self) -> Option<Open> {
        let open = Open(Arc::clone(&self.open));
        (self.open.fetch_add(1, Ordering::AcqRel) < self.most).then_some(open)
    }
}

/// Counts an open connection until it is dropped, by whatever ends it.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, bind};
    use std::io::ErrorKind;

    #[test]
    fn workers_share_a_port_that_no_other_gateway_can_take() {
        let first = bind("127.0.0.1:0".parse().unwrap(), Place::Ours).unwrap();
        let address = first.local_addr().unwrap();
        let second = bind(address, Place::Shared).unwrap();
        assert_eq!(second.local_addr().unwrap(), address);
        assert_eq!(bind(address, Place::Ours).unwrap_err().kind(), ErrorKind::AddrInUse);
    }
}
