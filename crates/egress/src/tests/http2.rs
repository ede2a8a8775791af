//! HTTP/2 towards servers: chosen, shared, kept apart, and repeated only where nothing was taken.

use super::{LOOPBACK, SOON, authority, call, egress, egress_trusting, post};
use crate::{Egress, EgressFault, Endpoint, FixedNames, Phase, Protocol};
use bytes::Bytes;
use h2::{Reason, server::SendResponse};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// What the server does with one request.
#[derive(Clone, Copy)]
enum Reply {
    /// Answers `ok`.
    Ok,
    /// Begins an answer with this many bytes and leaves it open.
    Open(usize),
    /// Resets it.
    Reset(Reason),
    /// Says nothing.
    Silence,
}

/// Says what becomes of a request by its number, over all connections.
type Script = fn(request: usize) -> Reply;

#[derive(Default)]
struct Seen {
    connections: usize,
    requests: Vec<(Request<()>, usize)>,
}

struct Server {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    reset: mpsc::UnboundedReceiver<Reason>,
}

impl Server {
    async fn start(script: Script, streams: u32, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Seen>>::default();
        let (resets, reset) = mpsc::unbounded_channel();
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, tls, resets) = (Arc::clone(&shared), tls.clone(), resets.clone());
                seen.lock().unwrap().connections += 1;
                tokio::spawn(async move {
                    match tls {
                        None => converse(stream, script, streams, seen, resets).await,
                        Some(tls) => {
                            let stream = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await.unwrap();
                            converse(stream, script, streams, seen, resets).await;
                        }
                    }
                });
            }
        });
        Self { port, seen, reset }
    }

    fn endpoint(&self, scheme: &str, host: &str) -> Endpoint {
        Endpoint::new(&format!("{scheme}://{host}:{}/mcp?a=1", self.port).parse().unwrap(), true, None).unwrap()
    }

    /// Cleartext, by prior knowledge.
    fn known(&self) -> Endpoint {
        self.endpoint("http", "127.0.0.1").speaking(Protocol::Http2)
    }

    fn counts(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.connections, seen.requests.len())
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    script: Script,
    streams: u32,
    seen: Arc<Mutex<Seen>>,
    resets: mpsc::UnboundedSender<Reason>,
) {
    let mut connection = h2::server::Builder::new().max_concurrent_streams(streams).handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, script, Arc::clone(&seen), resets.clone()));
    }
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    script: Script,
    seen: Arc<Mutex<Seen>>,
    resets: mpsc::UnboundedSender<Reason>,
) {
    let (head, mut body) = request.into_parts();
    let mut length = 0;
    while let Some(Ok(data)) = body.data().await {
        length += data.len();
        let _ = body.flow_control().release_capacity(data.len());
    }
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.requests.push((Request::from_parts(head, ()), length));
        seen.requests.len() - 1
    };
    match script(number) {
        Reply::Ok => {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from("ok"), true).unwrap();
        }
        Reply::Open(bytes) => {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from(vec![b'x'; bytes]), false).unwrap();
            let reason = std::future::poll_fn(|context| stream.poll_reset(context)).await;
            let _ = reason.map(|reason| resets.send(reason));
        }
        Reply::Reset(reason) => respond.send_reset(reason),
        Reply::Silence => {
            let reason = std::future::poll_fn(|context| respond.poll_reset(context)).await;
            let _ = reason.map(|reason| resets.send(reason));
        }
    }
}

fn plain() -> Egress {
    egress(FixedNames::default())
}

async fn ok(egress: &Egress, endpoint: &Endpoint, credential: u64) {
    assert_eq!(call(egress, endpoint, credential).await.unwrap(), (StatusCode::OK, Bytes::from("ok")));
}

#[tokio::test]
async fn a_server_that_offers_http_2_gets_it_and_calls_share_a_connection_per_credential() {
    let (roots, tls) = authority("files.test");
    let mut offering = rustls::ServerConfig::clone(&tls);
    offering.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = Server::start(|_| Reply::Ok, 100, Some(Arc::new(offering))).await;
    let egress = egress_trusting(FixedNames::default().answer("files.test", &[LOOPBACK]), roots.clone());
    let endpoint = server.endpoint("https", "files.test");
    ok(&egress, &endpoint, 1).await;
    futures_util::future::join_all((0..50).map(|_| ok(&egress, &endpoint, 1))).await;
    assert_eq!(server.counts(), (1, 51));
    ok(&egress, &endpoint, 2).await;
    assert_eq!(server.counts(), (2, 52), "nobody travels with the credential of another");
    // Who wants HTTP/1.1 does not offer the other, and who wants HTTP/2 takes nothing else.
    let old = super::Server::start_with(|_| Some(super::OK), Some(tls)).await;
    let url = old.url("https", "files.test");
    ok(&egress, &Endpoint::new(&url, true, None).unwrap(), 1).await;
    let fault = call(&egress, &Endpoint::new(&url, true, None).unwrap().speaking(Protocol::Http2), 1).await;
    assert!(matches!(fault, Err(EgressFault::Http { .. }) if old.requests().len() == 1), "{fault:?}");
    let url = format!("https://files.test:{}/mcp", server.port).parse().unwrap();
    let fetched = egress.fetch(&url, true, 2, SOON).await.unwrap();
    assert_eq!(fetched, (StatusCode::OK, Bytes::from("ok")));
}

#[tokio::test]
async fn what_belongs_to_the_connection_is_decided_here() {
    let server = Server::start(|_| Reply::Ok, 100, None).await;
    let (egress, endpoint) = (plain(), server.known());
    let mut request =
        Request::post("http://elsewhere.example/other?b=2").body(Full::from(vec![b'x'; 1 << 20])).unwrap();
    for (name, value) in
        [("host", "elsewhere.example"), ("content-length", "9"), ("connection", "x-test"), ("keep-alive", "timeout=9")]
    {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    request.headers_mut().insert("mcp-method", HeaderValue::from_static("tools/call"));
    let response = egress.send(&endpoint, 0, Box::new(request), SOON).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    let (head, length) = server.seen.lock().unwrap().requests.remove(0);
    assert_eq!(head.uri().to_string(), format!("http://127.0.0.1:{}/other?b=2", server.port));
    assert_eq!((length, head.headers()["mcp-method"].as_bytes()), (1 << 20, &b"tools/call"[..]));
    for name in ["host", "connection", "keep-alive", "content-length"] {
        assert!(head.headers().get(name).is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_stream_that_stays_open_holds_up_no_other_call() {
    // A server that takes one request at a time on a connection gets another connection for the next one.
    let narrow = Server::start(|request| if request == 1 { Reply::Open(2) } else { Reply::Ok }, 1, None).await;
    let (egress, endpoint) = (plain(), narrow.known());
    ok(&egress, &endpoint, 0).await;
    let listening = egress.send(&endpoint, 0, post(&endpoint, "{}"), SOON).await.unwrap();
    for _ in 0..3 {
        ok(&egress, &endpoint, 0).await;
    }
    assert_eq!(narrow.counts(), (2, 5));
    drop(listening);
    // One that nobody reads takes no more than its own share of what may be on the way.
    let wide = Server::start(|request| if request == 1 { Reply::Open(1 << 20) } else { Reply::Ok }, 100, None).await;
    let endpoint = wide.known();
    ok(&egress, &endpoint, 0).await;
    let mut unread = egress.send(&endpoint, 0, post(&endpoint, "{}"), SOON).await.unwrap().into_body();
    assert!(!unread.frame().await.unwrap().unwrap().into_data().unwrap().is_empty());
    for _ in 0..3 {
        ok(&egress, &endpoint, 0).await;
    }
    assert_eq!(wide.counts(), (1, 5));
}

#[tokio::test]
async fn dropping_the_body_ends_its_stream_and_no_other() {
    let mut server = Server::start(|request| if request == 1 { Reply::Open(2) } else { Reply::Ok }, 100, None).await;
    let (egress, endpoint) = (plain(), server.known());
    ok(&egress, &endpoint, 0).await;
    let mut body = egress.send(&endpoint, 0, post(&endpoint, "{}"), SOON).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "xx");
    drop(body);
    assert_eq!(tokio::time::timeout(SOON, server.reset.recv()).await.unwrap(), Some(Reason::CANCEL));
    ok(&egress, &endpoint, 0).await;
    assert_eq!(server.counts(), (1, 3));
}

#[tokio::test]
async fn a_server_that_says_nothing_meets_the_deadline_and_gets_a_new_connection() {
    let mut server = Server::start(|request| if request == 1 { Reply::Silence } else { Reply::Ok }, 100, None).await;
    let (egress, endpoint) = (plain(), server.known());
    ok(&egress, &endpoint, 0).await;
    let fault = egress.send(&endpoint, 0, post(&endpoint, "{}"), Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Timeout { phase: Phase::Head, .. }) && fault.may_have_arrived(), "{fault:?}");
    assert_eq!(server.reset.recv().await, Some(Reason::CANCEL), "it is told");
    ok(&egress, &endpoint, 0).await;
    assert_eq!(server.counts(), (2, 3));
}

#[tokio::test]
async fn what_a_server_refused_is_sent_once_more_and_nothing_else_is() {
    let refusing = |request| if request == 1 { Reply::Reset(Reason::REFUSED_STREAM) } else { Reply::Ok };
    let server = Server::start(refusing, 100, None).await;
    let (egress, endpoint) = (plain(), server.known());
    ok(&egress, &endpoint, 0).await;
    ok(&egress, &endpoint, 0).await;
    assert_eq!(server.counts(), (2, 3), "on a new connection");
    // Not a second time.
    let server =
        Server::start(|request| if request == 0 { Reply::Ok } else { Reply::Reset(Reason::REFUSED_STREAM) }, 100, None)
            .await;
    let endpoint = server.known();
    ok(&egress, &endpoint, 0).await;
    let fault = call(&egress, &endpoint, 0).await.unwrap_err();
    assert!(matches!(fault, EgressFault::Unsent { .. }) && !fault.may_have_arrived(), "{fault:?}");
    assert_eq!(server.counts(), (2, 3));
    // Whatever else ends a request may have had an effect before.
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL] {
        let script = match reason {
            Reason::CANCEL => |request| if request == 1 { Reply::Reset(Reason::CANCEL) } else { Reply::Ok },
            _ => |request| if request == 1 { Reply::Reset(Reason::INTERNAL_ERROR) } else { Reply::Ok },
        };
        let server = Server::start(script, 100, None).await;
        let endpoint = server.known();
        ok(&egress, &endpoint, 0).await;
        let fault = call(&egress, &endpoint, 0).await.unwrap_err();
        assert!(matches!(fault, EgressFault::Closed { .. }) && fault.may_have_arrived(), "{fault:?}");
        assert_eq!(server.counts(), (1, 2));
    }
}

/// A server that takes the first request of its first connection, and says with the second that it goes away: it took
/// requests up to `last`.
async fn going_away(last: u8) -> (u16, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::<Mutex<usize>>::default();
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap();
        let _gone = go_away(first, last, &counted).await;
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::<Mutex<Seen>>::default();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                converse(stream, |_| Reply::Ok, 100, Arc::clone(&seen), mpsc::unbounded_channel().0).await;
                *counted.lock().unwrap() += seen.lock().unwrap().requests.len();
            });
        }
    });
    (port, requests)
}

/// Frame by frame, for libraries go politely: settings, an answer to stream 1, a good-bye on stream 3.
async fn go_away(mut stream: TcpStream, last: u8, requests: &Mutex<usize>) -> io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [high, mid, low, kind, flags, .., id] = head;
        let mut payload = vec![0; (usize::from(high) << 16) | (usize::from(mid) << 8) | usize::from(low)];
        stream.read_exact(&mut payload).await?;
        match (kind, flags, id) {
            (4, 0, _) => stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await?,
            // The end of the request's body: `:status: 200` is number 8 of the static table.
            (0, 1, 1) => {
                *requests.lock().unwrap() += 1;
                stream.write_all(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88]).await?;
                stream.write_all(&[0, 0, 2, 0, 1, 0, 0, 0, 1, b'o', b'k']).await?;
            }
            (0, 1, 3) => {
                *requests.lock().unwrap() += 1;
                stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0]).await?;
                return stream.shutdown().await;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_good_bye_says_which_requests_were_taken() {
    let egress = plain();
    let endpoint = |port: u16| {
        let url = format!("http://127.0.0.1:{port}/mcp").parse().unwrap();
        Endpoint::new(&url, true, None).unwrap().speaking(Protocol::Http2)
    };
    // The last one that it took was the first: the second is sent again.
    let (port, _) = going_away(1).await;
    let untaken = endpoint(port);
    ok(&egress, &untaken, 0).await;
    ok(&egress, &untaken, 0).await;
    // It took the second, too, and left without an answer.
    let (port, requests) = going_away(3).await;
    let taken = endpoint(port);
    ok(&egress, &taken, 0).await;
    let fault = call(&egress, &taken, 0).await.unwrap_err();
    assert!(fault.may_have_arrived(), "{fault:?}");
    assert_eq!(*requests.lock().unwrap(), 2);
    ok(&egress, &taken, 0).await;
}
