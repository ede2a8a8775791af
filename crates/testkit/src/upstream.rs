//! A scripted MCP server in this process, on a real socket. Remembers every request it got.
//!
//! Unscripted, it is a small honest server of both eras: `initialize` (with a session), `server/discover`, `ping`,
//! `tools/list`, `tools/call` (echoes its arguments), empty lists, 202 for notifications, 405 for GET, 200 for DELETE.

use crate::{
    agent::{LEGACY, MODERN},
    answer::{Answer, AnswerBody},
    schema, soon,
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::pending,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// The HTTP method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The headers, duplicates included.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
}

impl Received {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// What scripts call this request: its JSON-RPC method, `response`, `batch`, or the HTTP method without a body.
    pub fn name(&self) -> String {
        let json = self.json();
        match (&json, json.get("method").and_then(Value::as_str)) {
            (_, Some(method)) => method.to_owned(),
            (Value::Object(_), None) => "response".to_owned(),
            (Value::Array(_), None) => "batch".to_owned(),
            _ => self.method.to_string(),
        }
    }

    /// The JSON-RPC id; null where there is none.
    pub fn id(&self) -> Value {
        self.json().get("id").cloned().unwrap_or(Value::Null)
    }

    /// A header as text, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

type Script = Box<dyn Fn(&Received) -> Answer + Send + Sync>;

struct State {
    tools: Mutex<Vec<Value>>,
    queued: Mutex<HashMap<String, VecDeque<Answer>>>,
    scripts: Mutex<HashMap<String, Arc<Script>>>,
    received: Mutex<Vec<Received>>,
    arrivals: watch::Sender<usize>,
    abandoned: watch::Sender<usize>,
    open: Arc<AtomicUsize>,
    connections: AtomicUsize,
    /// The revision of requests that name none.
    spoken: Mutex<Option<&'static str>>,
}

/// The server. Stops, connections included, when dropped.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    accepting: tokio::task::JoinHandle<()>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Upstream {
    /// Starts one on a free port with a single tool, `echo`.
    pub async fn start() -> Self {
        Self::with_tools(["echo"]).await
    }

    /// Starts one that lists these tools, each with an open schema.
    pub async fn with_tools<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let tools = names.into_iter().map(
            |name| json!({"name": name, "description": format!("Does {name}."), "inputSchema": {"type": "object"}}),
        );
        Self::at("127.0.0.1:0".parse().expect("an address"), tools.collect()).await
    }

    /// Starts one at `address` that lists exactly these tool definitions.
    pub async fn at(address: SocketAddr, tools: Vec<Value>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free address");
        let address = listener.local_addr().expect("a bound address");
        let state = Arc::new(State {
            tools: Mutex::new(tools),
            queued: Mutex::default(),
            scripts: Mutex::default(),
            received: Mutex::default(),
            arrivals: watch::Sender::new(0),
            abandoned: watch::Sender::new(0),
            open: Arc::default(),
            connections: AtomicUsize::new(0),
            spoken: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, accepting }
    }

    /// Where to dial: `http://127.0.0.1:PORT/mcp`.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers the next request of this name so. Queued answers are used up in order, before any other.
    pub fn next(&self, name: &str, answer: Answer) -> &Self {
        locked(&self.state.queued).entry(name.to_owned()).or_default().push_back(answer);
        self
    }

    /// Answers every further request of this name with what `script` makes of it.
    pub fn always(&self, name: &str, script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> &Self {
        let script: Script = Box::new(script);
        locked(&self.state.scripts).insert(name.to_owned(), Arc::new(script));
        self
    }

    /// Answers every further request of this name as an honest server does: forgets its script.
    pub fn honestly(&self, name: &str) -> &Self {
        locked(&self.state.scripts).remove(name);
        self
    }

    /// Forgets the answers that are queued.
    pub fn unqueue(&self) -> &Self {
        locked(&self.state.queued).clear();
        self
    }

    /// Dies: takes no connection any more and breaks those it has.
    pub fn kill(&self) {
        self.accepting.abort();
    }

    /// Waits until one that was killed has given its address back.
    pub async fn dead(&self) {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(1));
        soon(async {
            while !self.accepting.is_finished() {
                looks.tick().await;
            }
        })
        .await;
    }

    /// What it is told is of this revision, where that is not said: in the era of 2024-11-05 it is said nowhere.
    pub fn speaks(&self, revision: &'static str) -> &Self {
        *locked(&self.state.spoken) = Some(revision);
        self
    }

    /// How many requests are being answered at this moment, streams included.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Replaces the listed tools.
    pub fn set_tools(&self, tools: Vec<Value>) -> &Self {
        *locked(&self.state.tools) = tools;
        self
    }

    /// How many requests arrived, whatever they were.
    pub fn received(&self) -> usize {
        locked(&self.state.received).len()
    }

    /// Every request of this name, in order of arrival.
    pub fn seen(&self, name: &str) -> Vec<Received> {
        locked(&self.state.received).iter().filter(|received| received.name() == name).cloned().collect()
    }

    /// Every request, in order of arrival.
    pub fn requests(&self) -> Vec<Received> {
        locked(&self.state.received).clone()
    }

    /// How many connections were opened to it.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests of this name have arrived, and gives the last of them.
    pub async fn arrived(&self, name: &str, count: usize) -> Received {
        let mut arrivals = self.state.arrivals.subscribe();
        soon(async {
            loop {
                arrivals.borrow_and_update();
                if let Some(received) = self.seen(name).into_iter().nth(count.saturating_sub(1)) {
                    return received;
                }
                arrivals.changed().await.expect("the upstream is alive");
            }
        })
        .await
    }

    /// Waits until the other side has left `count` exchanges before their end.
    pub async fn abandoned(&self, count: usize) {
        let mut abandoned = self.state.abandoned.subscribe();
        soon(abandoned.wait_for(|seen| *seen >= count)).await.expect("the upstream is alive");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| exchange(Arc::clone(&state), request));
            // A broken connection is the script's doing, or the other side's: neither is a fault here.
            let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn exchange(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Watched>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let received = Received { method: head.method, path, headers: head.headers, body };
    schema::note_request(&received, *locked(&state.spoken));
    locked(&state.received).push(received.clone());
    state.arrivals.send_modify(|count| *count += 1);

    let mut watch = Watch::begin(&state);
    let mut answer = state.answer(&received);
    let is_event_stream = answer.is_event_stream();
    answer.released().await?;
    let Some((status, headers)) = answer.head else { return pending().await };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    // A whole JSON answer is the connection's to deliver; only streams can be left in the middle.
    watch.done = !is_event_stream && matches!(answer.body, AnswerBody::Whole(_));
    Ok(response.map(|()| Watched { body: answer.body, watch }))
}

impl State {
    fn answer(&self, received: &Received) -> Answer {
        let name = received.name();
        if let Some(answer) = locked(&self.queued).get_mut(&name).and_then(VecDeque::pop_front) {
            return answer;
        }
        let script = locked(&self.scripts).get(&name).cloned();
        match script {
            Some(script) => script(received),
            None => self.honest(received, &name),
        }
    }

    fn honest(&self, received: &Received, name: &str) -> Answer {
        let id = received.id();
        let result = match name {
            "GET" => return Answer::status(StatusCode::METHOD_NOT_ALLOWED).header("allow", "POST, DELETE"),
            "DELETE" => return Answer::status(StatusCode::OK),
            _ if id.is_null() || name == "response" => return Answer::status(StatusCode::ACCEPTED),
            "initialize" => {
                let version = received.json().pointer("/params/protocolVersion").cloned().unwrap_or(json!(LEGACY));
                let result = json!({
                    "protocolVersion": version,
                    "capabilities": {"tools": {"listChanged": true}, "prompts": {}, "resources": {"subscribe": true}},
                    "serverInfo": {"name": "fake", "version": "1.0.0"},
                });
                let session = format!("fake-session-{}", self.arrivals.borrow().to_owned());
                return Answer::result(&id, &result).header("mcp-session-id", &session);
            }
            "server/discover" => json!({
                "supportedVersions": [MODERN],
                "capabilities": {"tools": {"listChanged": true}, "prompts": {}, "resources": {"subscribe": true}},
                "ttlMs": 0, "cacheScope": "private",
            }),
            "ping" => json!({}),
            "tools/list" => json!({"tools": *locked(&self.tools), "ttlMs": 0, "cacheScope": "private"}),
            "prompts/list" => json!({"prompts": [], "ttlMs": 0, "cacheScope": "private"}),
            "resources/list" => json!({"resources": [], "ttlMs": 0, "cacheScope": "private"}),
            "resources/templates/list" => json!({"resourceTemplates": [], "ttlMs": 0, "cacheScope": "private"}),
            "tools/call" => {
                let arguments = received.json().pointer("/params/arguments").cloned().unwrap_or(json!({}));
                json!({"content": [{"type": "text", "text": arguments.to_string()}]})
            }
            _ => return Answer::error(&id, -32601, "method not found").with_status(not_found(received)),
        };
        Answer::result(&id, &with_result_type(result, received))
    }
}

fn is_modern(received: &Received) -> bool {
    received.header("mcp-protocol-version").is_some_and(|version| version >= MODERN)
}

fn not_found(received: &Received) -> StatusCode {
    if is_modern(received) { StatusCode::NOT_FOUND } else { StatusCode::OK }
}

fn with_result_type(mut result: Value, received: &Received) -> Value {
    if is_modern(received)
        && let Some(members) = result.as_object_mut()
    {
        members.insert("resultType".to_owned(), json!("complete"));
    }
    result
}

/// Counts an exchange as open until it is dropped, and as abandoned when that is before its end.
struct Watch {
    abandoned: watch::Sender<usize>,
    open: Arc<AtomicUsize>,
    done: bool,
}

impl Watch {
    fn begin(state: &State) -> Self {
        state.open.fetch_add(1, Ordering::SeqCst);
        Self { abandoned: state.abandoned.clone(), open: Arc::clone(&state.open), done: false }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        if !self.done {
            self.abandoned.send_modify(|count| *count += 1);
        }
    }
}

struct Watched {
    body: AnswerBody,
    watch: Watch,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream() {
            self.watch.done = true;
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
