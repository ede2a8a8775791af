//! The running gateway's management: its listener on the network, its socket in the data directory.

use crate::directory::{self, Directory};
use admin::{Desk, Plane};
use anyhow::{Context, Error, Result, anyhow};
use gateway::{
    clock::Clock,
    rim::{meet, remedy},
    settings::Listener,
};
use identity::AgentSetting;
use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixListener as StdListener},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinHandle,
};
use vocab::AgentId;

/// Both listeners, while they listen.
pub(crate) struct Control {
    /// Where the network listener listens.
    pub(crate) address: SocketAddr,
    socket: PathBuf,
    stopping: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
}

impl Control {
    /// Begins to listen. `taken`: where agents connect.
    pub(crate) async fn start(
        desk: Desk,
        listen: SocketAddr,
        taken: &[Listener],
        directory: &Directory,
    ) -> Result<Self> {
        let network = TcpListener::bind(listen).await.map_err(|cause| {
            let what = format!("management cannot listen on {listen} (`admin: {{ listen: … }}`)");
            let remedy = remedy(&cause);
            let own = taken.iter().filter_map(Listener::address).find(|own| meet(*own, listen));
            match own.filter(|_| cause.kind() == io::ErrorKind::AddrInUse) {
                Some(own) => anyhow!("{what}: `listen` has {own}, which takes it, too; choose another port"),
                None => Error::new(cause).context(format!("{what}; {remedy}")),
            }
        })?;
        let address = network.local_addr()?;
        let socket = directory::socket_path(&directory.path);
        let local = bind(&socket)?;
        let router = admin::router(&Arc::new(desk));
        let (stopping, told) = watch::channel(false);
        let listeners = vec![
            tokio::spawn(admin::serve_network(network, router.clone(), told.clone())),
            tokio::spawn(admin::serve_socket(local, router, told)),
        ];
        Ok(Self { address, socket, stopping, listeners })
    }

    /// Ends both listeners. Requests under way are finished.
    pub(crate) async fn stop(self) {
        self.stopping.send_replace(true);
        for listener in self.listeners {
            if let Err(fault) = listener.await {
                tracing::error!(%fault, "a management listener ended by a panic");
            }
        }
        if let Err(fault) = fs::remove_file(&self.socket) {
            tracing::warn!(socket = %self.socket.display(), %fault, "the socket stays behind");
        }
    }
}

/// Binds the socket. The directory is locked: what lies there was left behind.
fn bind(socket: &Path) -> Result<UnixListener> {
    let shown = socket.display();
    let listener = made(socket)?;
    // Nothing is to be searched or run there.
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {shown}"))?;
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener)?)
}

fn made(socket: &Path) -> Result<StdListener> {
    let shown = socket.display();
    match fs::remove_file(socket) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
            return Err(fault).with_context(|| format!("cannot remove the old {shown}"));
        }
        Ok(()) | Err(_) => {}
    }
    // The directory is its owner's alone; so is the socket, from its first moment.
    gateway::rim::own_socket(socket)
        .with_context(|| format!("commands cannot be taken at {shown}; a shorter path of the data directory may help"))
}

/// The desk over an open directory; with a plane while the gateway runs.
pub(crate) fn desk(
    directory: &Directory,
    log: Arc<audit::Log>,
    clock: Arc<dyn Clock>,
    agents: Box<dyn Fn() -> BTreeMap<AgentId, AgentSetting> + Send + Sync>,
    plane: Option<Plane>,
) -> Result<Desk> {
    let public = directory.vault.audit_signer()?.public;
    Ok(Desk {
        tenant: directory.tenant.clone(),
        store: directory.store.clone(),
        vault: Arc::clone(&directory.vault),
        registry: Arc::clone(&directory.registry),
        log,
        log_dir: directory::log_path(&directory.path),
        log_key: audit::verifier_key(&directory::origin(&directory.tenant), &public),
        log_public: public,
        clock,
        agents,
        plane,
    })
}

#[cfg(test)]
mod tests {
    use super::made;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn the_socket_of_commands_is_its_owners_from_its_first_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        // The second time in place of what a dead process left.
        for _ in 0..2 {
            let _socket = made(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        }
    }
}
