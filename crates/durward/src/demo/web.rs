//! The demo's server over HTTP, on a thread of its own as a server elsewhere would be. Remembers what it was asked.

use super::server::{CUSTOMERS, called};
use anyhow::{Context, Result};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};
use tokio::{net::TcpListener, sync::oneshot};
use vocab::Secret;

/// The largest request it reads.
const LARGEST: usize = 1 << 20;

/// The server. Stops when dropped.
pub(super) struct Web {
    pub(super) address: SocketAddr,
    desk: Arc<Desk>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What every connection shares.
struct Desk {
    token: Secret<String>,
    asked: Mutex<Vec<String>>,
}

impl Web {
    /// Starts it on a free port of the loopback. It serves whoever brings `token`, and nobody else.
    pub(super) fn start(token: Secret<String>) -> Result<Self> {
        let listener = StdListener::bind("127.0.0.1:0").context("the demo server cannot listen")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let desk = Arc::new(Desk { token, asked: Mutex::default() });
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serving = Arc::clone(&desk);
        let work = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("demo-server".to_owned()).spawn(work)?;
        Ok(Self { address, desk, stop: Some(stop), thread: Some(thread) })
    }

    /// How often a tool was called here.
    pub(super) fn calls_of(&self, tool: &str) -> usize {
        let asked = self.desk.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|name| *name == tool).count()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to report.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: StdListener, desk: Arc<Desk>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(fault) => return tracing::error!(%fault, "the demo server cannot listen"),
    };
    while let Ok((stream, _)) = listener.accept().await {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let serve = service_fn(|request| {
                let desk = Arc::clone(&desk);
                async move { Ok::<_, Infallible>(desk.serve(request).await) }
            });
            // A connection that breaks is the client's business.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
        });
    }
}

impl Desk {
    async fn serve(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        // No stream to listen on and no session to end: every answer is an answer to a POST.
        if request.method() != Method::POST {
            return bare(StatusCode::METHOD_NOT_ALLOWED);
        }
        let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        if token.as_ref() != Some(self.token.expose()) {
            return bare(StatusCode::UNAUTHORIZED);
        }
        let Ok(body) = Limited::new(request.into_body(), LARGEST).collect().await else {
            return bare(StatusCode::BAD_REQUEST);
        };
        let Ok(message) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
            return bare(StatusCode::BAD_REQUEST);
        };
        if let Some(tool) = called(&message) {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(tool.to_owned());
        }
        let Some(answer) = CUSTOMERS.answer(&message, token.as_deref()) else {
            return bare(StatusCode::ACCEPTED);
        };
        let mut response = Response::new(Full::from(answer.to_string()));
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        if answer.pointer("/error/code").and_then(Value::as_i64) == Some(-32601) {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        response
    }
}

fn bare(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
