//! The listening side of the real binary: TLS, HTTP/2, and what comes in front of both.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod full;
mod http2;
mod proxy;
mod tls;
mod trial;
mod unix;

#[path = "../rig/mod.rs"]
mod rig;
#[path = "../world/mod.rs"]
mod world;

use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use testkit::{Ask, Upstream, soon};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use world::{ALL, World, http};

/// A certificate that vouches for itself, and its key.
pub(crate) struct Identity {
    certificate: String,
    key: String,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// Writes both files into a folder, the key first.
    pub(crate) fn lay(&self, folder: &Path) {
        let key = folder.join("tls.key");
        fs::write(&key, &self.key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(folder.join("tls.pem"), &self.certificate).unwrap();
    }

    /// A client that trusts nothing else, and offers these protocols.
    pub(crate) fn trusted(&self, alpn: &[&[u8]]) -> TlsConnector {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(client))
    }
}

/// A gateway with TLS, and the lines of its configuration after `listen` and `tls`.
pub(crate) async fn behind_tls(identity: &Identity, upstream: &Upstream, more: &str) -> World {
    let tls = "tls: { certificate: tls.pem, key: tls.key }";
    let listen = "listen: [127.0.0.1:0, \"unix:agents.sock\"]";
    let body = format!("{listen}\n{tls}\n{more}servers:\n{}", http("files", upstream));
    let (folder, alice, bob) = unlaid(&body).await;
    identity.lay(folder.path());
    World::launch(folder, alice, bob).await
}

pub(crate) async fn unlaid(body: &str) -> (TempDir, String, String) {
    rig::prepared(body, ALL, &[]).await
}

#[expect(clippy::disallowed_methods, reason = "a test dials what it is told to")]
pub(crate) async fn dial(world: &World) -> TcpStream {
    TcpStream::connect(world.address).await.unwrap()
}

pub(crate) async fn over_tls(world: &World, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    connector.connect("localhost".try_into().unwrap(), dial(world).await).await
}

/// A call of Alice's that is answered with its own arguments.
pub(crate) fn echo(world: &World, n: usize) -> Ask {
    world.calling("/mcp/files", Some(&world.alice), "echo", &json!({ "n": n }))
}

/// Where management is.
async fn management(world: &World) -> String {
    let management = world.says("management  ").await;
    let (_, rest) = management.split_once("http://").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

/// What the gateway counts.
pub(crate) async fn metrics(world: &World) -> String {
    Ask::get(&format!("http://{}/metrics", management(world).await)).send().await.text().await
}

/// Whether this answers a call.
pub(crate) fn is_answer(answer: &Value) -> bool {
    answer["result"]["content"].is_array()
}

/// Dials until there is no room for one more. Whoever was here before may take a moment to go: what is let in instead
/// keeps its place.
async fn until_full<S: AsyncRead + Unpin>(dial: impl AsyncFn() -> S) {
    let mut held = Vec::new();
    soon(async {
        loop {
            let mut more = dial().await;
            match timeout(Duration::from_millis(300), more.read(&mut [0])).await {
                Ok(read) if read.as_ref().is_ok_and(|read| *read == 0) => return,
                Ok(_) => {}
                Err(_) => held.push(more),
            }
        }
    })
    .await;
}
