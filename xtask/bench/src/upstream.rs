//! A minimal MCP server: strict where a proxy could cheat, and otherwise as little work as can be.
//!
//! `/mcp` answers in JSON, `/events` in an event stream with one event, `/sse` is HTTP with SSE of 2024-11-05. The tool
//! `ask` asks its client something first; a call whose client wants a task of it becomes one.

mod lasting;
mod task;

use crate::{
    answer::AnswerBody,
    message::{Era, filler, tools},
};
use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc, oneshot},
};

struct Server {
    list: String,
    sessions: Mutex<HashSet<String>>,
    questions: AtomicUsize,
    /// Questions that wait for their answers, by id.
    asked: Mutex<HashMap<String, oneshot::Sender<()>>>,
    streams: lasting::Streams,
    tasks: AtomicUsize,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    /// Empty in an answer.
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Params<'a>,
}

#[derive(Deserialize, Default)]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    arguments: Option<Arguments<'a>>,
    /// The wish for a task, in the legacy era.
    #[serde(borrow)]
    task: Option<&'a RawValue>,
    #[serde(borrow, rename = "taskId")]
    task_id: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize, Default)]
struct Arguments<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    bytes: Option<usize>,
    events: Option<usize>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "io.modelcontextprotocol/clientCapabilities", default)]
    can: Capabilities<'a>,
}

#[derive(Deserialize, Default)]
struct Capabilities<'a> {
    #[serde(borrow, default)]
    extensions: HashMap<Cow<'a, str>, &'a RawValue>,
}

pub(crate) async fn serve(listen: SocketAddr, count: usize) -> Result<()> {
    accept(TcpListener::bind(listen).await?, count).await
}

pub(crate) async fn accept(listener: TcpListener, count: usize) -> Result<()> {
    let server = Arc::new(Server {
        list: tools(count),
        sessions: Mutex::default(),
        questions: AtomicUsize::new(0),
        asked: Mutex::default(),
        streams: lasting::Streams::default(),
        tasks: AtomicUsize::new(0),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let server = Arc::clone(&server);
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            });
            let serving =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            drop(serving.await);
        });
    }
}

impl Server {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<AnswerBody> {
        let (head, body) = request.into_parts();
        if head.method == Method::GET && head.uri.path() == "/sse" {
            return self.streams.open().await;
        }
        if head.method != Method::POST {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        let Ok(body) = body.collect().await else { return status(StatusCode::BAD_REQUEST) };
        let body = body.to_bytes();
        let Ok(message) = serde_json::from_slice::<Message<'_>>(&body) else { return status(StatusCode::BAD_REQUEST) };
        if let Some(stream) = lasting::stream_of(&head.uri) {
            return self.beside(stream, &message).await;
        }
        let era = match &message.params.meta {
            Some(Meta { version: Some(_), .. }) => Era::Modern,
            _ => Era::Legacy,
        };
        if let Some(refused) = self.refused(era, &head.headers, &message).await {
            return status(refused);
        }
        let Some(id) = message.id else { return status(StatusCode::ACCEPTED) };
        if message.method.is_empty() {
            return self.answered(id.get()).await;
        }
        let in_events = head.uri.path() == "/events";
        self.result(era, id.get(), &message, in_events).await
    }

    /// Session and headers must be what the era demands.
    async fn refused(&self, era: Era, headers: &HeaderMap, message: &Message<'_>) -> Option<StatusCode> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let is_admitted = match era {
            Era::Modern => {
                header("mcp-protocol-version") == Some(era.version())
                    && header("mcp-method") == Some(&message.method)
                    && message.is_named(header("mcp-name"))
            }
            Era::Legacy if message.method == "initialize" => true,
            Era::Legacy => match header("mcp-session-id") {
                Some(session) if self.sessions.lock().await.contains(session) => true,
                // It was of the server that was here before this one.
                Some(_) => return Some(StatusCode::NOT_FOUND),
                None => false,
            },
        };
        (!is_admitted).then_some(StatusCode::BAD_REQUEST)
    }

    async fn result(
        self: &Arc<Self>,
        era: Era,
        id: &str,
        message: &Message<'_>,
        in_events: bool,
    ) -> Response<AnswerBody> {
        let kind = match era {
            Era::Legacy => "",
            Era::Modern => r#","resultType":"complete""#,
        };
        let caching = match era {
            Era::Legacy => "",
            Era::Modern => r#","ttlMs":60000,"cacheScope":"private""#,
        };
        let none = Arguments::default();
        let given = message.params.arguments.as_ref().unwrap_or(&none);
        let text = |text: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":{text}}}]{kind}}}}}"#)
        };
        let body = match (&*message.method, message.params.name.as_deref()) {
            ("initialize", _) => return self.hello(id).await,
            ("server/discover", _) => format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"supportedVersions":["2026-07-28"],"capabilities":{{"tools":{{}}}}{caching}{kind}}}}}"#
            ),
            ("ping", _) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#),
            ("tools/list", _) => {
                let list = &self.list;
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tools":[{list}]{caching}{kind}}}}}"#)
            }
            ("tools/call", Some(_)) if message.params.wants_task(era) => self.begun(era, id),
            ("tasks/get" | "tasks/cancel" | "tasks/result", _) => task::told(era, id, message),
            ("tools/call", Some("echo")) => text(given.text.map_or("null", RawValue::get)),
            ("tools/call", Some("sized")) => text(&format!("\"{}\"", filler(given.bytes.unwrap_or(0)))),
            ("tools/call", Some("stream")) => return streamed(given.events.unwrap_or(0), text("\"streamed\"")),
            ("tools/call", Some("ask")) if era == Era::Legacy => return self.ask(text("\"answered\"")).await,
            _ => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"method not found"}}}}"#),
        };
        if in_events { whole("text/event-stream", event(&body)) } else { whole("application/json", body) }
    }

    /// Asks the client something on the stream of its call, and answers the call once it has said something.
    async fn ask(self: &Arc<Self>, answer: String) -> Response<AnswerBody> {
        let id = format!(r#""bench-question-{}""#, self.questions.fetch_add(1, Ordering::Relaxed));
        let question = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create","params":{{"message":"Who?","requestedSchema":{{"type":"object","properties":{{"name":{{"type":"string"}}}}}}}}}}"#
        );
        let (said, is_said) = oneshot::channel();
        self.asked.lock().await.insert(id.clone(), said);
        let (sender, receiver) = mpsc::channel(2);
        let server = Arc::clone(self);
        tokio::spawn(async move {
            // There is room: the channel is new.
            drop(sender.try_send(Bytes::from(event(&question))));
            tokio::select! {
                _ = is_said => drop(sender.try_send(Bytes::from(event(&answer)))),
                () = sender.closed() => drop(server.asked.lock().await.remove(&id)),
            }
        });
        typed("text/event-stream", AnswerBody::Fed(receiver))
    }

    /// Takes the answer to a question.
    async fn answered(&self, id: &str) -> Response<AnswerBody> {
        let asked = self.asked.lock().await.remove(id);
        match asked.map(|said| said.send(())) {
            Some(Ok(())) => status(StatusCode::ACCEPTED),
            Some(Err(())) | None => status(StatusCode::BAD_REQUEST),
        }
    }

    async fn hello(&self, id: &str) -> Response<AnswerBody> {
        let mut sessions = self.sessions.lock().await;
        let session = format!("bench-session-{}", sessions.len());
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"2025-11-25","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"bench","version":"1"}}}}}}"#
        );
        let mut response = whole("application/json", body);
        if let Ok(value) = HeaderValue::from_str(&session) {
            response.headers_mut().insert("mcp-session-id", value);
        }
        sessions.insert(session);
        response
    }
}

fn event(json: &str) -> String {
    format!("event: message\ndata: {json}\n\n")
}

fn status(status: StatusCode) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(None));
    *response.status_mut() = status;
    response
}

fn whole(kind: &'static str, body: String) -> Response<AnswerBody> {
    typed(kind, AnswerBody::Whole(Some(Bytes::from(body))))
}

fn typed(kind: &'static str, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn streamed(events: usize, answer: String) -> Response<AnswerBody> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        for progress in 0..events {
            let json = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":1,"progress":{progress}}}}}"#
            );
            if sender.send(Bytes::from(event(&json))).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Nobody may be left to hear it.
        drop(sender.send(Bytes::from(event(&answer))).await);
    });
    typed("text/event-stream", AnswerBody::Fed(receiver))
}
