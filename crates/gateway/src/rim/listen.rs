//! Takes the places that are listened on: addresses of the network, and sockets in the file system.

use crate::settings::{Listener, Listening};
use rustix::{
    fs::{FlockOperation, Mode, flock},
    process::umask,
};
use socket2::{Domain, Protocol, SockAddr, Socket as Raw, Type};
use std::{
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

/// How long the turn at a folder of sockets is waited for.
const TURN: Duration = Duration::from_secs(5);

/// Connections the system keeps for us before we accept them.
const BACKLOG: i32 = 1024;

/// A socket that listens.
pub(super) enum Socket {
    /// On the network.
    Network(TcpListener),
    /// In the file system.
    Unix(UnixListener),
}

/// Why a place cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenFault {
    /// The address cannot be had.
    #[error("cannot listen on {place}; {}", remedy(cause))]
    Bind {
        /// Which.
        place: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// We have it ourselves, by another name.
    #[error(
        "cannot listen on {place}: `listen` has {own}, which takes it, too; keep one of them, or choose another port"
    )]
    Own {
        /// Which.
        place: SocketAddr,
        /// What was taken before it.
        own: SocketAddr,
    },
    /// Somebody listens on the socket.
    #[error("another process listens on unix:{}; stop it, or choose another path", .0.display())]
    Taken(PathBuf),
    /// What lies there is no socket.
    #[error("{} is there already and is no socket; remove it, or choose another path", .0.display())]
    Other(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on unix:{}; its folder must be there, be ours to write, and the path not be longer than 107 bytes", path.display())]
    Unix {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// What to do about an address that the system does not give.
pub fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "stop what listens there, or choose another port",
        io::ErrorKind::AddrNotAvailable => "name an address that this machine has",
        io::ErrorKind::PermissionDenied => {
            "choose a port from 1024 on, or grant the right to lower ones (CAP_NET_BIND_SERVICE)"
        }
        _ => "choose another address",
    }
}

/// All places, taken.
pub(super) struct Taken {
    /// Where that is: a port that was free has its number.
    pub(super) places: Vec<Listener>,
    /// The sockets of each worker.
    pub(super) workers: Vec<Vec<Socket>>,
    /// Files to remove at the end.
    pub(super) files: Vec<Left>,
}

/// Takes every place, once for each worker.
pub(super) fn take(listening: &Listening) -> Result<Taken, ListenFault> {
    let mut taken = Taken { places: Vec::new(), workers: Vec::new(), files: Vec::new() };
    taken.workers.resize_with(listening.workers.max(1), Vec::new);
    for listener in &listening.listeners {
        match listener {
            Listener::Network(address) => {
                let own = taken.places.iter().filter_map(Listener::address).find(|own| meet(*own, *address));
                let bind = |address, place| {
                    bind(address, place).map_err(|cause| match own {
                        Some(own) if cause.kind() == io::ErrorKind::AddrInUse => {
                            ListenFault::Own { place: address, own }
                        }
                        _ => ListenFault::Bind { place: address.to_string(), cause },
                    })
                };
                // Port 0 takes a free port; the other workers share it.
                let mut place = (*address, Place::Ours);
                for worker in &mut taken.workers {
                    let socket = bind(place.0, place.1)?;
                    let own = socket.local_addr();
                    place =
                        (own.map_err(|cause| ListenFault::Bind { place: address.to_string(), cause })?, Place::Shared);
                    worker.push(Socket::Network(socket));
                }
                taken.places.push(Listener::Network(place.0));
            }
            Listener::Unix { path, mode } => {
                let fault = |cause| ListenFault::Unix { path: path.clone(), cause };
                let socket = unix(path, *mode)?;
                taken.files.push(Left::at(path).map_err(fault)?);
                for worker in &mut taken.workers {
                    // One socket for all: whoever is free takes the next connection.
                    worker.push(Socket::Unix(socket.try_clone().map_err(fault)?));
                }
                taken.places.push(listener.clone());
            }
        }
    }
    Ok(taken)
}

/// Whether two addresses have one in common, which only one socket can have. Port 0 takes a free port. `[::]` is every
/// address of IPv4, too, unless the system keeps them apart; `[::ffff:127.0.0.1]` is 127.0.0.1 in other words.
pub fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let within =
        |all: IpAddr, address: IpAddr| all == address || all.is_unspecified() && (all.is_ipv6() || address.is_ipv4());
    let [x, y] = [one, other].map(|address| address.ip().to_canonical());
    one.port() != 0 && one.port() == other.port() && (within(x, y) || within(y, x))
}

/// How an address is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nobody else may have it.
    Ours,
    /// Beside our own first socket.
    Shared,
}

fn bind(address: SocketAddr, place: Place) -> io::Result<TcpListener> {
    let socket = Raw::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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

/// Makes a socket in the file system. What a dead process left behind is replaced, what a living one holds is not.
fn unix(path: &Path, mode: u32) -> Result<UnixListener, ListenFault> {
    let fault = |cause| ListenFault::Unix { path: path.to_owned(), cause };
    // Until it is bound: of two that start at once, one must see what the other has made.
    // Anybody who may read the folder may hold its lock: that must keep no gateway down.
    let _turn = Turn::take(path)
        .inspect_err(
            |fault| tracing::warn!(path = %path.display(), %fault, "no turn at the folder of a socket; going on"),
        )
        .ok();
    match fs::symlink_metadata(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(fault(cause)),
        Ok(there) if !there.file_type().is_socket() => return Err(ListenFault::Other(path.to_owned())),
        Ok(_) => {
            if !is_dead(path).map_err(fault)? {
                return Err(ListenFault::Taken(path.to_owned()));
            }
            fs::remove_file(path).map_err(fault)?;
        }
    }
    let socket = own_socket(path).map_err(fault)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(fault)?;
    socket.set_nonblocking(true).map_err(fault)?;
    Ok(socket)
}

/// Makes a socket that nobody but its owner may connect to, mode 0700. SECURITY: whoever else may is let in afterwards; a mode that
/// is taken back later would come too late for whoever was quick.
pub fn own_socket(path: &Path) -> io::Result<UnixListener> {
    /// The umask is one for the whole process. What else is made in this moment is for its owner alone anyway.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = umask(Mode::RWXG | Mode::RWXO);
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

/// The turn of one of those that want a socket in the same folder. The lock is the folder's own: no file stays behind.
struct Turn(File);

impl Turn {
    /// Takes it, or waits a little: whoever has it needs it for a moment.
    fn take(path: &Path) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = File::open(folder)?;
        let (taken, turn) = mpsc::channel();
        // On a thread of its own: a lock cannot be waited for in time, and nobody knows who else locks this folder.
        thread::Builder::new().name("turn".to_owned()).spawn(move || {
            let locked = flock(&folder, FlockOperation::LockExclusive).map(|()| Self(folder));
            // If it came too late, it is given back here.
            let _ = taken.send(locked);
        })?;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock of its folder");
        Ok(turn.recv_timeout(TURN).map_err(late)??)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A process that is started meanwhile may hold the same file a little longer.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Whether nobody listens on a socket any more. A full one is alive.
fn is_dead(path: &Path) -> io::Result<bool> {
    let probe = Raw::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(false),
        Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// The file of a socket, which is removed at the end unless somebody has put another in its place.
#[derive(Debug)]
pub(super) struct Left {
    path: PathBuf,
    file: (u64, u64),
}

impl Left {
    fn at(path: &Path) -> io::Result<Self> {
        let there = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), file: (there.dev(), there.ino()) })
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.file);
        if is_ours && let Err(fault) = fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %fault, "the socket stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Left, ListenFault, Place, bind, own_socket, take, unix};
    use crate::settings::{Listener, Listening};
    use std::{
        fs,
        io::ErrorKind,
        os::unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
        sync::Barrier,
        thread,
    };

    #[test]
    fn workers_share_a_port_that_no_other_gateway_can_take() {
        let first = bind("127.0.0.1:0".parse().unwrap(), Place::Ours).unwrap();
        let address = first.local_addr().unwrap();
        let second = bind(address, Place::Shared).unwrap();
        assert_eq!(second.local_addr().unwrap(), address);
        assert_eq!(bind(address, Place::Ours).unwrap_err().kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn a_place_that_one_of_our_own_takes_is_not_blamed_on_somebody_else() {
        for (first, second) in [("127.0.0.1", "[::ffff:127.0.0.1]"), ("[::]", "0.0.0.0"), ("[::]", "127.0.0.1")] {
            let port = testkit::free_port();
            let places = [first, second].map(|address| format!("{address}:{port}").parse().unwrap());
            let listeners = places.map(Listener::Network).to_vec();
            let listening = Listening { listeners, tls: None, proxied: false, workers: 2, connections: 1 };
            let fault = take(&listening).err().unwrap();
            let [of, by] = places;
            assert!(matches!(fault, ListenFault::Own { place, own } if (place, own) == (by, of)), "{fault}");
        }
        let held = bind("127.0.0.1:0".parse().unwrap(), Place::Ours).unwrap();
        let listeners = vec![Listener::Network(held.local_addr().unwrap())];
        let listening = Listening { listeners, tls: None, proxied: false, workers: 1, connections: 1 };
        let fault = take(&listening).err().unwrap();
        assert!(matches!(fault, ListenFault::Bind { .. }));
        let place = held.local_addr().unwrap();
        assert_eq!(
            fault.to_string(),
            format!("cannot listen on {place}; stop what listens there, or choose another port")
        );
    }

    #[test]
    fn what_to_do_goes_by_what_is_wrong_with_an_address() {
        for (kind, told) in [
            (ErrorKind::AddrInUse, "stop what listens there"),
            (ErrorKind::AddrNotAvailable, "that this machine has"),
            (ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (ErrorKind::InvalidInput, "another address"),
        ] {
            let told_of = ListenFault::Bind { place: "192.0.2.1:443".to_owned(), cause: kind.into() }.to_string();
            assert!(told_of.starts_with("cannot listen on 192.0.2.1:443; ") && told_of.contains(told), "{told_of}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test dials what it listens on")]
    fn a_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let first = unix(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(unix(&path, 0o600), Err(ListenFault::Taken(_))));
        let old = Left::at(&path).unwrap();
        drop(first);

        let second = unix(&path, 0o660).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        // The inode may be the same again; what is removed is never somebody else's living socket by name alone.
        let new = Left::at(&path).unwrap();
        if old.file != new.file {
            drop(old);
            UnixStream::connect(&path).unwrap();
        }
        drop((second, new));
        assert!(!path.exists(), "the end removes it");

        fs::write(&path, "precious").unwrap();
        assert!(matches!(unix(&path, 0o600), Err(ListenFault::Other(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert!(matches!(unix(&folder.path().join("no/a.sock"), 0o600), Err(ListenFault::Unix { .. })));
    }

    #[test]
    fn a_socket_is_its_owners_from_its_first_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let _socket = own_socket(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test dials what it listens on")]
    fn of_many_that_start_at_once_one_has_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        for round in 0..50 {
            // What a dead process left behind.
            drop(UnixListener::bind(&path).unwrap());
            let start = Barrier::new(8);
            let taken: Vec<_> = thread::scope(|scope| {
                let begin = || {
                    start.wait();
                    unix(&path, 0o600)
                };
                let begun: Vec<_> = (0..8).map(|_| scope.spawn(begin)).collect();
                begun.into_iter().map(|one| one.join().unwrap()).collect()
            });
            assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 1, "round {round}: {taken:?}");
            assert!(taken.iter().all(|taken| matches!(taken, Ok(_) | Err(ListenFault::Taken(_)))), "{taken:?}");
            UnixStream::connect(&path).unwrap();
            drop(taken);
            fs::remove_file(&path).unwrap();
        }
    }
}
