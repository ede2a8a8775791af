//! Listens: one current-thread runtime per worker, each with its own accept socket.

use super::receive;
use crate::{settings::Listening, state::State};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
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
use tokio::net::{TcpListener, TcpStream};

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(15);
/// The head of a request, in bytes.
const HEAD_BYTES: usize = 64 << 10;
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
    /// A worker cannot be started.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
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
        let open = Arc::new(AtomicUsize::new(0));
        let mut workers = Vec::with_capacity(sockets.len());
        for (number, socket) in sockets.into_iter().enumerate() {
            let (state, open, most) = (Arc::clone(state), Arc::clone(&open), listening.connections);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RimFault::Worker)?;
            let work = move || {
                runtime.block_on(accept(state, socket, open, most));
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

async fn accept(state: Arc<State>, socket: StdListener, open: Arc<AtomicUsize>, most: usize) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(fault) => return tracing::error!(%fault, "a worker cannot listen"),
    };
    let mut stopping = state.stopping.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if open.fetch_add(1, Ordering::AcqRel) >= most {
                        open.fetch_sub(1, Ordering::AcqRel);
                        tracing::warn!(%peer, most, "a connection was closed: too many are open");
                        continue;
                    }
                    let (state, open) = (Arc::clone(&state), Open(Arc::clone(&open)));
                    tokio::spawn(async move {
                        let _open = open;
                        connection(state, stream, peer).await;
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
    while !state.cut.load(Ordering::Acquire) {
        let _ = tokio::time::timeout(EXHAUSTED, state.ended.notified()).await;
    }
}

/// Counts an open connection until it is dropped, by whatever ends it.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn connection(state: Arc<State>, stream: TcpStream, peer: SocketAddr) {
    // Small answers must not wait for the next one.
    let _ = stream.set_nodelay(true);
    let dialled = stream.local_addr().ok().map(|own| own.ip());
    let mut stopping = state.stopping.subscribe();
    // Boxed: a connection that waits for its next request keeps no room for the whole line.
    let service = service_fn(move |request| Box::pin(receive::answer(Arc::clone(&state), request, peer.ip(), dialled)));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        served = serving.as_mut() => {
            if let Err(fault) = served {
                tracing::trace!(%peer, %fault, "a connection ended early");
            }
        }
        () = stopped(&mut stopping) => {
            // Answers under way are finished, new requests on this connection are not taken.
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

/// Waits until the gateway stops.
async fn stopped(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    // A sender that is gone has stopped too.
    let _ = stopping.wait_for(|stopping| *stopping).await;
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
