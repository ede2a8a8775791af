//! `durward tls`: an authority of one's own, and clients that trust it.

use crate::{dial, echo, is_answer, unlaid, world};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio, sync::Arc};
use testkit::{Upstream, soon};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
};
use tokio_rustls::TlsConnector;
use world::{World, http};

#[expect(clippy::disallowed_methods, reason = "a test starts the product")]
fn durward(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durward"));
    command.args(words).current_dir(folder).kill_on_drop(true);
    command
}

async fn run(folder: &Path, words: &[&str]) -> (Option<i32>, String) {
    let ended = soon(durward(folder, words).output()).await.unwrap();
    (ended.status.code(), String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned())
}

/// A client that trusts the authority in this file.
fn trusting(authority: &Path) -> TlsConnector {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(client))
}

#[tokio::test]
async fn an_authority_of_ones_own_serves_connects_and_renews() {
    let upstream = Upstream::start().await;
    let tls = "tls: { certificate: data/tls/certificate.pem, key: data/tls/certificate.key }";
    let (folder, alice, bob) = unlaid(&format!("{tls}\nservers:\n{}", http("files", &upstream))).await;
    // The configuration names what is not there yet.
    let (code, said) = run(folder.path(), &["tls", "init", "--data", "data"]).await;
    assert_eq!(code, Some(0), "{said}");
    for word in ["tls: {", "--ca-file", "NODE_EXTRA_CA_CERTS=", "SSL_CERT_FILE=", "update-ca-certificates", "90 days"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains("PRIVATE KEY"), "{said}");
    let files = folder.path().join("data/tls");
    for file in fs::read_dir(&files).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let authority = files.join("authority.pem");
    let before = fs::read_to_string(&authority).unwrap();
    let (code, said) = run(folder.path(), &["tls", "init", "--data", "data"]).await;
    assert!(code == Some(1) && said.contains("nothing was written"), "{said}");
    assert_eq!(fs::read_to_string(&authority).unwrap(), before, "nothing is overwritten");

    let world = World::launch(folder, alice, bob).await;
    let connector = trusting(&authority);
    let over = async |name: &'static str| connector.connect(name.try_into().unwrap(), dial(&world).await).await;
    for name in ["localhost", "127.0.0.1", "::1"] {
        let stream = over(name).await.unwrap();
        assert!(is_answer(&echo(&world, 1).over(stream).await.unwrap().json().await), "{name}");
    }
    assert!(over("gate.lan").await.is_err(), "nobody vouches for that name");

    // The next one bears another name beside the old ones, and is vouched for by the same authority.
    let (code, said) = run(world.folder(), &["tls", "renew", "localhost", "gate.lan", "--data", "data"]).await;
    assert_eq!(code, Some(0), "{said}");
    world.says("another certificate is shown").await;
    assert!(over("gate.lan").await.is_ok());
    let (code, said) = run(world.folder(), &["tls", "renew", "--data", "data"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read_to_string(files.join("names")).unwrap(), "localhost\ngate.lan\n", "names are kept");
}

#[tokio::test]
async fn connect_trusts_the_authority_that_it_is_told_of_and_no_other() {
    let upstream = Upstream::start().await;
    let tls = "tls: { certificate: tls/certificate.pem, key: tls/certificate.key }";
    let (folder, alice, bob) = unlaid(&format!("{tls}\nservers:\n{}", http("files", &upstream))).await;
    let (code, said) = run(folder.path(), &["tls", "init", "--folder", "tls"]).await;
    assert_eq!(code, Some(0), "{said}");
    let world = World::launch(folder, alice, bob).await;
    let url = format!("https://localhost:{}/mcp/files", world.address.port());
    let asked = async |more: &[&str]| {
        let mut command = durward(world.folder(), &[&["connect", url.as_str()], more].concat());
        command.env("DURWARD_KEY", &world.alice);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
        let mut input = process.stdin.take().unwrap();
        input.write_all(format!("{hello}\n").as_bytes()).await.unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(std::time::Duration::from_secs(30), lines.next_line()).await.unwrap();
        serde_json::from_str::<serde_json::Value>(&line.unwrap().unwrap()).unwrap()
    };
    let answer = asked(&["--ca-file", "tls/authority.pem"]).await;
    assert!(answer["result"]["serverInfo"].is_object(), "{answer}");
    let answer = asked(&[]).await;
    assert!(answer["error"].is_object(), "the system trusts no such authority: {answer}");
    let (code, said) = run(world.folder(), &["connect", &url, "--ca-file", "tls/none.pem"]).await;
    assert!(code == Some(1) && said.contains("--ca-file"), "{said}");
}

#[tokio::test]
async fn the_address_to_try_is_that_of_the_configuration() {
    for (configuration, names, address) in [
        ("listen: 127.0.0.1:9443\n", &[][..], "https://localhost:9443/mcp\n"),
        // The certificates are not there yet, and that is no matter.
        (
            "listen: [\"unix:a.sock\", \"[::]:9444\"]\ntls: { certificate: a.pem, key: a.key }\n",
            &["::1"],
            "https://[::1]:9444/mcp\n",
        ),
        ("servers: {}\n", &["gate.lan"], "https://gate.lan:7420/mcp\n    (where `listen` names another port: that)\n"),
        (
            "listen: 127.0.0.1:0\n",
            &["gate.lan"],
            "https://gate.lan:PORT/mcp\n    (PORT: `listen` leaves it to the system,",
        ),
        ("", &["gate.lan"], "https://gate.lan:7420/mcp\n    (where `listen` names another port: that)\n"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        if !configuration.is_empty() {
            fs::write(folder.path().join("durward.yaml"), configuration).unwrap();
        }
        let (code, said) = run(folder.path(), &[&["tls", "init", "--folder", "tls"], names].concat()).await;
        assert!(code == Some(0) && said.contains(address), "{configuration}: {said}");
    }
}
