//! Real sockets, scripted names: what is dialled, what is refused, what is reused.

mod http2;

use crate::{Egress, EgressFault, Endpoint, EndpointFault, FixedNames, Phase, Resolver, Roots, Settings};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use url::Url;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
const SOON: Duration = Duration::from_secs(20);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server that answers each request with what the script says, `None` closing the connection.
struct Server {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    closed: mpsc::UnboundedReceiver<()>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    requests: Vec<String>,
}

type Script = fn(request: usize) -> Option<&'static str>;

impl Server {
    async fn start(script: Script) -> Self {
        Self::start_with(script, None).await
    }

    async fn start_with(script: Script, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (closing, closed) = mpsc::unbounded_channel();
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, tls, closing) = (Arc::clone(&shared), tls.clone(), closing.clone());
                seen.lock().unwrap().connections += 1;
                tokio::spawn(async move {
                    match tls {
                        None => converse(stream, script, &seen).await,
                        Some(tls) => match tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                            Ok(stream) => converse(stream, script, &seen).await,
                            Err(_) => return,
                        },
                    }
                    let _ = closing.send(());
                });
            }
        });
        Self { port, seen, closed }
    }

    fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().requests.clone()
    }

    fn url(&self, scheme: &str, host: &str) -> Url {
        format!("{scheme}://{host}:{}/mcp?a=1", self.port).parse().unwrap()
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: Script, seen: &Mutex<Seen>) {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        while let Some(length) = whole(&text) {
            let request: Vec<u8> = text.drain(..length).collect();
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.requests.push(String::from_utf8(request).unwrap());
                seen.requests.len() - 1
            };
            let Some(answer) = script(number) else { return };
            let (answer, close) = answer.strip_suffix("<close>").map_or((answer, false), |answer| (answer, true));
            if stream.write_all(answer.as_bytes()).await.is_err() || close {
                let _ = stream.shutdown().await;
                return;
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => text.extend_from_slice(&chunk[..read]),
        }
    }
}

/// The length of the request at the start of `text`, if it is all there.
fn whole(text: &[u8]) -> Option<usize> {
    let head = text.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let lines = String::from_utf8_lossy(&text[..head]).to_lowercase();
    let body =
        lines.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    (text.len() >= head + body).then_some(head + body)
}

fn egress(names: FixedNames) -> Egress {
    egress_trusting(names, Roots::system())
}

fn egress_trusting(names: FixedNames, roots: Roots) -> Egress {
    let resolver = Resolver::Fixed(names);
    Egress::new(Settings { roots, resolver, connect_deadline: SOON }).unwrap()
}

fn post(endpoint: &Endpoint, body: &'static str) -> Box<Request<Full<Bytes>>> {
    let mut request = Request::post(endpoint.uri().clone()).body(Full::from(body)).unwrap();
    request.headers_mut().insert("x-test", HeaderValue::from_static("1"));
    Box::new(request)
}

/// Sends one request and reads its answer to the end.
async fn call(egress: &Egress, endpoint: &Endpoint, credential: u64) -> Result<(StatusCode, Bytes), EgressFault> {
    let (head, body) = egress.send(endpoint, credential, post(endpoint, "{}"), SOON).await?.into_parts();
    Ok((head.status, body.collect().await.unwrap().to_bytes()))
}

fn inside(url: &Url) -> Endpoint {
    Endpoint::new(url, true, None).unwrap()
}

#[test]
fn no_spelling_of_a_private_address_passes() {
    let hosts = "127.0.0.1 2130706433 0x7f000001 0x7f.1 017700000001 0177.0.0.1 127.1 127.0.0.1. 0 10.1.2.3 0xa010203 192.168.257 \
        [::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [0:0:0:0:0:ffff:10.0.0.1] [64:ff9b::10.0.0.1] [2002:7f00:1::] [fd12::1] [fe80::1] \
        %31%32%37.0.0.1 １２７.0.0.1 127。0。0。1 169.254.169.254 2852039166 0xa9fea9fe [::ffff:a9fe:a9fe] [fd00:ec2::254]";
    for host in hosts.split_whitespace() {
        let url: Url = format!("https://{host}/").parse().unwrap();
        let refused = Endpoint::new(&url, false, None);
        assert!(matches!(refused, Err(EndpointFault::Blocked { .. })), "{host} gave {refused:?}");
    }
    for host in "169.254.169.254 2852039166 [::ffff:a9fe:a9fe] [64:ff9b::a9fe:a9fe] [2002:a9fe:a9fe::] [fd00:ec2::254]"
        .split_whitespace()
    {
        let url: Url = format!("https://{host}/").parse().unwrap();
        for internal in [true, false] {
            let refused = Endpoint::new(&url, internal, None).unwrap_err();
            assert!(matches!(refused, EndpointFault::Blocked { never: true, .. }), "{host} gave {refused:?}");
            // Nobody is told to open what nothing opens.
            assert!(!refused.to_string().contains("internal: true"), "{refused}");
        }
    }
}

#[test]
fn what_a_url_must_not_carry_is_named() {
    let refused = |text: &str| Endpoint::new(&text.parse().unwrap(), false, None).unwrap_err().to_string();
    assert!(refused("https://user@example.com/").contains("vault"));
    assert!(refused("https://:pass@example.com/").contains("vault"));
    assert!(refused("https://example.com/#x").contains("fragment"));
    assert!(refused("https://example.com:0/").contains("port 0"));
    assert!(refused("http://example.com/").contains("internal: true"));
    assert!(refused("ftp://example.com/").contains("`ftp`"));
    assert!(refused("https://127.0.0.1/").contains("a loopback address; mark the server `internal: true`"));
}

#[test]
fn what_is_no_url_shows_no_credential() {
    let refused = |text: &str| Endpoint::parse(text, false, None).unwrap_err().to_string();
    assert_eq!(
        refused("https://me:canary@host:x/?k=canary"),
        "`…@host:x/` is not a URL such as https://example.com/mcp"
    );
    assert!(refused("example.com").contains("`example.com` is not a URL"));
    let missing = Endpoint::parse("https://example.com", false, Some("/nowhere/ca.pem".as_ref())).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read the trusted certificates in /nowhere/ca.pem");
}

#[test]
fn an_endpoint_prints_no_path() {
    let endpoint = Endpoint::new(&"https://example.com/mcp?key=canary".parse().unwrap(), false, None).unwrap();
    assert_eq!(format!("{endpoint:?}"), "Endpoint(https://example.com:443)");
    assert_eq!(
        (endpoint.authority(), endpoint.uri().to_string()),
        (&HeaderValue::from_static("example.com"), "/mcp?key=canary".into())
    );
}

#[tokio::test]
async fn a_name_that_leads_inside_is_never_dialled() {
    let server = Server::start(|_| Some(OK)).await;
    for host in ["evil.example", "evil.example.", "localhost"] {
        let egress = egress(FixedNames::default().answer(host, &[LOOPBACK, "10.0.0.1".parse().unwrap()]));
        let endpoint = Endpoint::new(&server.url("https", host), false, None).unwrap();
        let fault = call(&egress, &endpoint, 0).await.unwrap_err();
        assert!(matches!(fault, EgressFault::Blocked { address: LOOPBACK, never: false, .. }), "{fault:?}");
        assert!(!fault.may_have_arrived());
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn metadata_is_skipped_even_inside() {
    let server = Server::start(|_| Some(OK)).await;
    let egress = egress(FixedNames::default().answer("mixed", &[METADATA, LOOPBACK]).answer("meta", &[METADATA]));
    let answer = call(&egress, &inside(&server.url("http", "mixed")), 0).await.unwrap();
    assert_eq!(answer, (StatusCode::OK, Bytes::from("ok")));
    let fault = call(&egress, &inside(&server.url("http", "meta")), 0).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Blocked { address: METADATA, never: true, .. }), "{fault:?}");
}

#[tokio::test]
async fn a_name_is_asked_once_per_connection_and_judged_each_time() {
    let server =
        Server::start(|_| Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n<close>")).await;
    let egress = egress(FixedNames::default().answer("rebind", &[LOOPBACK]).answer("rebind", &[METADATA]));
    let endpoint = inside(&server.url("http", "rebind"));
    assert!(call(&egress, &endpoint, 0).await.is_ok(), "the first answer was judged, and it is the one dialled");
    let fault = call(&egress, &endpoint, 0).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Blocked { address: METADATA, .. }), "{fault:?}");
}

#[tokio::test]
async fn an_address_that_refuses_is_passed_over() {
    let server = Server::start(|_| Some(OK)).await;
    let nobody: IpAddr = "127.77.77.77".parse().unwrap();
    let egress = egress(FixedNames::default().answer("two", &[nobody, LOOPBACK]).answer("none", &[]));
    assert!(call(&egress, &inside(&server.url("http", "two")), 0).await.is_ok());
    let fault = call(&egress, &inside(&server.url("http", "none")), 0).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Resolve { .. }), "{fault:?}");
    let fault = call(&egress, &inside(&server.url("http", "127.77.77.77")), 0).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Connect { .. }) && !fault.may_have_arrived(), "{fault:?}");
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let server =
        Server::start(|_| Some("HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"))
            .await;
    let egress = egress(FixedNames::default());
    let url = server.url("http", "127.0.0.1");
    assert_eq!(call(&egress, &inside(&url), 0).await.unwrap().0, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(egress.fetch(&url, true, 10, SOON).await.unwrap().0, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn connections_are_shared_per_endpoint_and_credential() {
    let server = Server::start(|_| Some(OK)).await;
    let egress = egress(FixedNames::default());
    let endpoint = inside(&server.url("http", "127.0.0.1"));
    for _ in 0..5 {
        call(&egress, &endpoint, 7).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    call(&egress, &endpoint, 8).await.unwrap();
    assert_eq!(server.connections(), 2, "another credential has its own");
    call(&egress, &inside(&server.url("http", "127.0.0.1")), 7).await.unwrap();
    assert_eq!(server.connections(), 3, "a reloaded endpoint starts afresh");
}

#[tokio::test]
async fn a_connection_in_use_is_not_shared() {
    let server = Server::start(|_| Some(OK)).await;
    let egress = egress(FixedNames::default());
    let endpoint = inside(&server.url("http", "127.0.0.1"));
    let unread = egress.send(&endpoint, 0, post(&endpoint, "{}"), SOON).await.unwrap();
    call(&egress, &endpoint, 0).await.unwrap();
    assert_eq!(server.connections(), 2);
    drop(unread);
}

#[tokio::test]
async fn many_calls_at_once_find_the_connections_of_those_before() {
    let server = Server::start(|_| Some(OK)).await;
    let egress = Arc::new(egress(FixedNames::default()));
    let endpoint = Arc::new(inside(&server.url("http", "127.0.0.1")));
    for _ in 0..3 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..256 {
            let (egress, endpoint) = (Arc::clone(&egress), Arc::clone(&endpoint));
            calls.spawn(async move { call(&egress, &endpoint, 0).await.unwrap() });
        }
        calls.join_all().await;
    }
    assert!(server.connections() <= 256, "{} connections", server.connections());
}

#[tokio::test]
async fn a_connection_is_left_before_the_server_would_drop_it() {
    let server = Server::start(|_| Some("HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 0\r\n\r\n")).await;
    let egress = egress(FixedNames::default());
    let endpoint = inside(&server.url("http", "127.0.0.1"));
    for _ in 0..3 {
        call(&egress, &endpoint, 0).await.unwrap();
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn an_idle_connection_that_died_costs_nothing() {
    let mut server = Server::start(|_| Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok<close>")).await;
    let egress = egress(FixedNames::default());
    let endpoint = inside(&server.url("http", "127.0.0.1"));
    for round in 1..=3 {
        call(&egress, &endpoint, 0).await.unwrap();
        server.closed.recv().await.unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!((server.connections(), server.requests().len()), (round, round));
    }
}

#[tokio::test]
async fn nothing_is_ever_sent_twice() {
    // The server drops every connection right after its answer, so that requests race with the closing.
    let server = Server::start(|_| Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok<close>")).await;
    let egress = egress(FixedNames::default());
    let endpoint = inside(&server.url("http", "127.0.0.1"));
    let mut answered = 0;
    for number in 0..300 {
        let mut request = post(&endpoint, "{}");
        request.headers_mut().insert("x-number", HeaderValue::from(number));
        let outcome = egress.send(&endpoint, 0, request, SOON).await;
        let line = format!("x-number: {number}\r\n");
        let received = server.requests().iter().filter(|request| request.contains(&line)).count();
        match outcome {
            Ok(response) => {
                answered += 1;
                assert_eq!(received, 1);
                let _ = response.into_body().collect().await;
            }
            Err(fault) if fault.may_have_arrived() => assert!(received <= 1),
            Err(fault) => assert_eq!(received, 0, "{fault:?}"),
        }
    }
    assert!(answered > 0);
}

#[tokio::test]
async fn a_request_that_may_have_arrived_is_not_repeated() {
    let server = Server::start(|request| (request == 0).then_some(OK)).await;
    let egress = egress(FixedNames::default());
    let endpoint = inside(&server.url("http", "127.0.0.1"));
    call(&egress, &endpoint, 0).await.unwrap();
    let fault = call(&egress, &endpoint, 0).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Closed { .. }) && fault.may_have_arrived(), "{fault:?}");
    assert_eq!((server.connections(), server.requests().len()), (1, 2));
}

#[tokio::test]
async fn dropping_the_body_closes_the_connection() {
    let mut server = Server::start(|_| Some("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")).await;
    let egress = egress(FixedNames::default());
    let endpoint = inside(&server.url("http", "127.0.0.1"));
    let response = egress.send(&endpoint, 0, post(&endpoint, "{}"), SOON).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
    drop(body);
    server.closed.recv().await.unwrap();
}

#[tokio::test]
async fn a_silent_server_meets_the_deadline() {
    let server = Server::start(|_| Some("")).await;
    let egress = egress(FixedNames::default());
    let endpoint = inside(&server.url("http", "127.0.0.1"));
    let fault = egress.send(&endpoint, 0, post(&endpoint, "{}"), Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Timeout { phase: Phase::Head, .. }) && fault.may_have_arrived(), "{fault:?}");
    assert_eq!(fault.to_string(), "`127.0.0.1` gave no answer within 50ms");
}

#[tokio::test]
async fn the_connection_decides_host_and_length() {
    let server = Server::start(|_| Some(OK)).await;
    let egress = egress(FixedNames::default());
    let endpoint = inside(&server.url("http", "127.0.0.1"));
    let mut request = post(&endpoint, "{}");
    *request.uri_mut() = "http://elsewhere.example/other?b=2".parse().unwrap();
    for (name, value) in [("host", "elsewhere.example"), ("content-length", "999"), ("transfer-encoding", "chunked")] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    egress.send(&endpoint, 0, request, SOON).await.unwrap();
    let seen = server.requests().remove(0);
    assert!(seen.starts_with("POST /other?b=2 HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("host: 127.0.0.1:{}\r\n", server.port)), "{seen}");
    assert!(seen.contains("content-length: 2\r\n") && !seen.contains("transfer-encoding"), "{seen}");
}

#[tokio::test]
async fn what_is_not_http_is_said() {
    let server = Server::start(|_| Some("SSH-2.0-OpenSSH_9.6\r\n\r\n")).await;
    let egress = egress(FixedNames::default());
    let fault = call(&egress, &inside(&server.url("http", "127.0.0.1")), 0).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Http { .. }), "{fault:?}");
}

#[tokio::test]
async fn a_connection_whose_other_end_is_gone_does_not_last_for_ever() {
    let server = Server::start(|_| Some(OK)).await;
    let stream = crate::connect::connect((LOOPBACK, server.port).into()).await.unwrap();
    let socket = socket2::SockRef::from(&stream);
    assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
}

#[tokio::test]
async fn a_socket_of_this_machine_is_dialled_only_inside_and_not_by_the_name_in_the_url() {
    let folder = tempfile::tempdir().unwrap();
    let (path, seen) = (folder.path().join("files.sock"), Arc::<Mutex<Seen>>::default());
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            shared.lock().unwrap().connections += 1;
            let seen = Arc::clone(&shared);
            tokio::spawn(async move { converse(stream, |_| Some(OK), &seen).await });
        }
    });
    let egress = egress(FixedNames::default());
    let endpoint = inside(&"http://files/mcp".parse().unwrap()).through(&path).unwrap();
    for _ in 0..2 {
        assert_eq!(call(&egress, &endpoint, 0).await.unwrap(), (StatusCode::OK, Bytes::from("ok")));
    }
    call(&egress, &endpoint, 1).await.unwrap();
    {
        let seen = seen.lock().unwrap();
        assert!(seen.requests[0].contains("host: files\r\n"), "{:?}", seen.requests);
        assert_eq!((seen.connections, seen.requests.len()), (2, 3), "one for each credential");
    }
    let outside = Endpoint::new(&"https://example.com/mcp".parse().unwrap(), false, None).unwrap();
    assert!(matches!(outside.through(&path), Err(EndpointFault::Socket(_))));
    let nowhere = inside(&"http://files/mcp".parse().unwrap()).through(&folder.path().join("none.sock")).unwrap();
    let fault = call(&egress, &nowhere, 0).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Socket { .. }) && !fault.may_have_arrived(), "{fault:?}");
    assert!(fault.to_string().contains("none.sock"));
}

#[tokio::test]
async fn a_fetch_is_bounded() {
    let server = Server::start(|_| Some(OK)).await;
    let egress = egress(FixedNames::default());
    let url = server.url("http", "127.0.0.1");
    assert_eq!(egress.fetch(&url, true, 2, SOON).await.unwrap(), (StatusCode::OK, Bytes::from("ok")));
    let fault = egress.fetch(&url, true, 1, SOON).await.unwrap_err();
    assert!(matches!(fault, EgressFault::TooLarge { limit: 1, .. }), "{fault:?}");
    let fault = egress.fetch(&url, false, 2, SOON).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Endpoint(EndpointFault::Blocked { .. })), "{fault:?}");
}

/// A certificate authority, and a server that it vouches for under one name.
fn authority(name: &str) -> (Roots, Arc<rustls::ServerConfig>) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    (Roots::from_pem(pem.as_bytes()).unwrap(), Arc::new(server))
}

#[tokio::test]
async fn tls_wants_the_right_name_from_the_right_authority() {
    let (roots, tls) = authority("files.test");
    let server = Server::start_with(|_| Some(OK), Some(tls)).await;
    let names = || FixedNames::default().answer("files.test", &[LOOPBACK]).answer("other.test", &[LOOPBACK]);
    let (right, wrong) = (server.url("https", "files.test"), server.url("https", "other.test"));

    let trusting = egress_trusting(names(), roots.clone());
    let endpoint = inside(&right);
    for _ in 0..3 {
        assert_eq!(call(&trusting, &endpoint, 0).await.unwrap().0, StatusCode::OK);
    }
    assert_eq!(server.connections(), 1, "TLS connections are reused too");
    let fault = call(&trusting, &inside(&wrong), 0).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Tls { .. }), "a wrong name gave {fault:?}");

    let doubting = egress_trusting(names(), authority("files.test").0);
    let fault = call(&doubting, &inside(&right), 0).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Tls { .. }), "an unknown authority gave {fault:?}");
    let own = Endpoint::new(&right, true, Some(&roots)).unwrap();
    assert!(call(&doubting, &own, 0).await.is_ok(), "an endpoint can bring its own roots");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_port_that_wants_tls_is_told_from_one_that_speaks_no_http() {
    let server = Server::start_with(|_| Some(OK), Some(authority("files.test").1)).await;
    let egress = egress(FixedNames::default());
    let url = server.url("http", "127.0.0.1");
    let fault = call(&egress, &inside(&url), 0).await.unwrap_err();
    assert!(matches!(fault, EgressFault::InTls { .. }), "{fault:?}");
    assert!(!fault.may_have_arrived() && fault.to_string().contains("write https"), "{fault}");
    let fault = egress.fetch(&url, true, 1024, SOON).await.unwrap_err();
    assert!(matches!(fault, EgressFault::InTls { .. }), "{fault:?}");
}

#[test]
fn roots_must_be_certificates() {
    assert!(Roots::from_pem(b"nothing here").is_err());
    assert!(Roots::from_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
}
