//! The floor: what any MCP proxy must do, and nothing more. It ends HTTP, reads the body, finds method and tool in the
//! envelope, sends it on over a pooled connection, and streams the answer back.

use crate::answer::AnswerBody;
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, cell::RefCell, collections::VecDeque, convert::Infallible, net::SocketAddr, rc::Rc};
use tokio::{
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

const BODY_LIMIT: usize = 4 << 20;

struct Proxy {
    upstream: SocketAddr,
    host: HeaderValue,
    idle: RefCell<VecDeque<SendRequest<Full<Bytes>>>>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
}

pub(crate) async fn serve(listen: SocketAddr, upstream: SocketAddr) -> Result<()> {
    accept(TcpListener::bind(listen).await?, upstream).await
}

pub(crate) async fn accept(listener: TcpListener, upstream: SocketAddr) -> Result<()> {
    let host = HeaderValue::from_str(&upstream.to_string())?;
    let proxy = Rc::new(Proxy { upstream, host, idle: RefCell::default() });
    let connections = LocalSet::new();
    let accepting = async {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let proxy = Rc::clone(&proxy);
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| {
                    let proxy = Rc::clone(&proxy);
                    async move {
                        let answer = proxy.pass(request).await;
                        Ok::<_, Infallible>(answer.unwrap_or_else(|_fault| {
                            let mut response = Response::new(AnswerBody::Whole(None));
                            *response.status_mut() = StatusCode::BAD_GATEWAY;
                            response
                        }))
                    }
                });
                let mut server = http1::Builder::new();
                drop(server.header_read_timeout(None).serve_connection(TokioIo::new(stream), service).await);
            });
        }
    };
    connections.run_until(accepting).await
}

impl Proxy {
    async fn pass(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>> {
        let (mut head, body) = request.into_parts();
        let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        if !body.is_empty() {
            look(&body)?;
        }
        strip(&mut head.headers);
        head.headers.remove(header::CONTENT_LENGTH);
        head.headers.insert(header::HOST, self.host.clone());
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = path.parse()?;
        let mut sender = self.connection().await?;
        let response = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
        // Back at once: it says it is not ready until this answer's body is done.
        self.idle.borrow_mut().push_back(sender);
        let (mut head, body) = response.into_parts();
        strip(&mut head.headers);
        Ok(Response::from_parts(head, AnswerBody::Passed(body)))
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>> {
        {
            // The oldest is the likeliest to be done.
            let mut idle = self.idle.borrow_mut();
            let ready = idle.iter().position(SendRequest::is_ready);
            if let Some(sender) = ready.and_then(|ready| idle.remove(ready)) {
                return Ok(sender);
            }
        }
        let stream = dial(self.upstream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        Ok(sender)
    }
}

#[expect(clippy::disallowed_methods, reason = "the bare proxy is what the gateway is measured against")]
async fn dial(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A router must know these two; the floor finds them and does nothing with them.
fn look(body: &[u8]) -> Result<()> {
    let envelope: Envelope<'_> = serde_json::from_slice(body)?;
    let method = envelope.method.context("no method")?;
    if method == "tools/call" {
        let params: Named<'_> = serde_json::from_str(envelope.params.context("no params")?.get())?;
        std::hint::black_box(params.name.context("no name")?);
    }
    Ok(())
}

fn strip(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::TRAILER] {
        headers.remove(name);
    }
}
