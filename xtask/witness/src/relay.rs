//! Passes HTTP on, and tells the judge of it first: bodies as they come, disconnects both ways.
//!
//! Changes the `Host` and what belongs to a connection, and nothing else. Each request has a connection of its own, so
//! that one that is given up is given up on the other side, too.

use crate::{
    plan::{Addresses, Leg, Plan},
    seen::{About, Content, End, Exchange, Seen},
};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header, response::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1 as client, server::conn::http1 as server, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::mpsc::Sender,
    task::{Context, Poll},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The longest request, in bytes.
const BODY: usize = 16 << 20;

/// One for each cell and each server that listens.
pub(crate) struct Relays {
    doors: Vec<SocketAddr>,
    servers: Vec<Option<SocketAddr>>,
    accepting: JoinSet<Result<()>>,
}

impl Relays {
    pub(crate) async fn open(plan: &Plan, seen: Sender<Seen>) -> Result<Self> {
        let mut relays = Self { doors: Vec::new(), servers: Vec::new(), accepting: JoinSet::new() };
        for (number, cell) in plan.cells.iter().enumerate() {
            let leg = if cell.is_piped { Leg::Carried(number) } else { Leg::Client(number) };
            let address = relays.add(leg, plan.gateway, seen.clone()).await?;
            relays.doors.push(address);
        }
        for (number, server) in plan.servers.iter().enumerate() {
            let address = match server.address {
                Some(target) => Some(relays.add(Leg::Server(number), target, seen.clone()).await?),
                None => None,
            };
            relays.servers.push(address);
        }
        Ok(relays)
    }

    async fn add(&mut self, leg: Leg, target: SocketAddr, seen: Sender<Seen>) -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let relay = Relay { leg, target, host: HeaderValue::from_str(&target.to_string())?, seen };
        self.accepting.spawn(relay.accept(listener));
        Ok(address)
    }

    /// Where they listen, and nothing else.
    pub(crate) fn addresses(&self, pipes: SocketAddr) -> Addresses {
        Addresses { pipes, doors: self.doors.clone(), servers: self.servers.clone() }
    }

    /// Runs until one of them breaks.
    pub(crate) async fn accept(&mut self) -> Result<()> {
        self.accepting.join_next().await.context("there is nobody to accept")??
    }
}

#[derive(Clone)]
struct Relay {
    leg: Leg,
    target: SocketAddr,
    host: HeaderValue,
    seen: Sender<Seen>,
}

impl Relay {
    async fn accept(self, listener: TcpListener) -> Result<()> {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let relay = self.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| relay.clone().pass(request));
                // It breaks where one of the two sides does, which is theirs to tell.
                drop(server::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
            while connections.try_join_next().is_some() {}
        }
    }

    /// What fails breaks the connection, as it would without a relay.
    async fn pass(self, request: Request<Incoming>) -> Result<Response<Passed>> {
        let exchange = Exchange::new();
        let (mut head, body) = request.into_parts();
        let body = Limited::new(body, BODY).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let about = About {
            session: text(&head.headers, "mcp-session-id"),
            revision: text(&head.headers, "mcp-protocol-version"),
            path: path.clone(),
        };
        self.seen.send(Seen::Asked { exchange, leg: self.leg, about, body: body.clone() })?;

        strip(&mut head.headers);
        head.headers.remove(header::CONTENT_LENGTH);
        head.headers.insert(header::HOST, self.host.clone());
        head.uri = path.parse()?;
        let mut sender = dial(self.target).await?;
        let (mut head, body) = sender.send_request(Request::from_parts(head, Full::new(body))).await?.into_parts();
        let session = text(&head.headers, "mcp-session-id");
        self.seen.send(Seen::Answered { exchange, session, content: content(&head), status: head.status })?;
        strip(&mut head.headers);
        Ok(Response::from_parts(head, Passed { exchange, body, end: End::Left, seen: self.seen }))
    }
}

#[expect(clippy::disallowed_methods, reason = "a relay leads to one address that it was told")]
async fn dial(address: SocketAddr) -> Result<client::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    // It ends with the body of its answer, or with whoever waits for that.
    tokio::spawn(connection);
    Ok(sender)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn content(head: &Parts) -> Content {
    let kind = text(&head.headers, "content-type").unwrap_or_default();
    let content = match kind.split(';').next().unwrap_or_default().trim() {
        "text/event-stream" => Content::Events,
        "application/json" => Content::Json,
        _ => return Content::Other,
    };
    if head.headers.contains_key(header::CONTENT_ENCODING) { Content::Sealed } else { content }
}

/// What belongs to a connection and not to a message.
fn strip(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::TRAILER] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// A body on its way: told of before it is handed on.
struct Passed {
    exchange: Exchange,
    body: Incoming,
    end: End,
    seen: Sender<Seen>,
}

impl Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            // Nobody listens any more only where the run is over.
            drop(self.seen.send(Seen::Piece { exchange: self.exchange, bytes: bytes.clone() }));
        }
        match &frame {
            Poll::Ready(None) => self.end = End::Whole,
            Poll::Ready(Some(Err(_))) => self.end = End::Broken,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        let end = if self.body.is_end_stream() { End::Whole } else { self.end };
        drop(self.seen.send(Seen::Ended { exchange: self.exchange, end }));
    }
}
