//! A server on standard input and output: many requests share one pipe, each gets its own answer back.
//!
//! Ids are ours on the pipe and the client's off it, exact JSON type and all. Decides nothing about calls.

mod backlog;
mod deliver;
mod early;
mod hold;
mod listener;
mod patience;
mod replies;
mod roots;
mod send;
mod waiting;

pub(crate) use backlog::Backlogs;
pub(crate) use replies::Replies;
pub(crate) use waiting::{Asker, Hears};

use super::{
    Arrival, UpstreamFault,
    child::{Child, ChildFault, ChildSpec, Exit, Line, Purpose},
    lasting::Lasting,
    turn::Turns,
    wish::Wishes,
};
use crate::{journal::Journal, origin::Origin, server::Server, state::State, stop::Stop, veil::Veil};
use bytes::Bytes;
use early::Early;
use guard::Carry;
use listener::Listeners;
use mcp::{Body, Limits, Skim};
use roots::Roots;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicU64},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};
use vocab::{PrincipalId, Secret, ServerName};
use waiting::Waiting;

/// How long a process may take to accept one line.
const WRITE: Duration = Duration::from_secs(10);

/// How long it may take until it is known how a process ended.
const ENDING: Duration = Duration::from_secs(1);

/// Nobody knows whose it is.
pub(crate) const UNCLEAR: &str =
    "several calls are under way, and the question does not say in the course of which it is: make the call again";
/// The call in whose course it is has ended.
pub(crate) const TOO_LATE: &str = "its call is over";

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// Plain environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub dir: Option<PathBuf>,
    /// One process for everybody.
    pub shared: bool,
    /// Memory of the process and of what it starts, in bytes.
    pub memory: Option<u64>,
}

/// Whether the server took a message. One of 2024-11-05 may say by its status that it did not.
pub(crate) enum Taken<T> {
    Yes(T),
    No(Box<Arrival>),
}

/// What carries the messages.
enum Carrier {
    Process(Child),
    Stream(Lasting),
}

/// A server at the other end of a connection that lasts, with requests in flight.
pub(crate) struct Pipe {
    server: ServerName,
    origin: Origin,
    carrier: Carrier,
    /// How long it may take to accept one message.
    patience: Duration,
    /// Several sessions share it.
    shared: bool,
    /// Which credentials it was started with.
    dressed: u64,
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    listeners: Listeners,
    /// What was said before anybody could hear it.
    early: Mutex<Early>,
    /// What its first calls wait for.
    roots: Roots,
    /// A request is over, or its client was asked or has answered.
    moved: Notify,
    used: Mutex<Instant>,
    /// When the server last asked something that somebody heard.
    asked: Mutex<Option<Instant>>,
    /// The turns of its calls that are made over the bridge.
    turns: Arc<Turns>,
    /// What those who share it want to be told.
    wishes: Arc<Wishes>,
    /// Since when the server says nothing more.
    over: OnceLock<Instant>,
    /// Where questions are noted that nobody hears.
    journal: Arc<Journal>,
    limits: Limits,
    /// What waits for the clients of all requests.
    backlogs: Arc<Backlogs>,
    /// What of the server's messages found no room before a client that reads slowly: how many, and when that was said last.
    lost: Arc<AtomicU64>,
    lost_said: Mutex<Option<Instant>>,
}

/// What whoever listens is told.
pub(crate) enum Word {
    /// Something that the server said.
    Said(Bytes),
    /// Nothing: it is to say whether it would hear something.
    Nothing,
    /// The server says nothing more: its process has ended, or its stream.
    Over,
}

/// What became of something said unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Somebody listens.
    Taken,
    /// Nobody listens now.
    Missed,
    /// Whoever listens reads too slowly.
    Full,
    /// Nobody will ever listen.
    Gone,
}

/// Somebody who reads has no room yet for what was said: it is to be handed over again in a moment.
struct NoRoomYet;

impl Pipe {
    /// Starts the process for `holder` and reads what it says until it ends.
    pub(crate) fn start(
        (server, program): (&Server, &Program),
        holder: Option<&PrincipalId>,
        secrets: Vec<(String, Secret<String>)>,
        dress: (u64, Option<Arc<Veil>>),
        state: &State,
        limits: Limits,
        purpose: Purpose,
    ) -> Result<Arc<Self>, UpstreamFault> {
        let down = |fault: ChildFault| match fault {
            // The server is as well as before.
            ChildFault::Share(_) => UpstreamFault::Stopped(Stop::full("processes", fault.to_string()).again_in(60)),
            ChildFault::Backoff { retry_in, .. } => UpstreamFault::Resting { why: fault.to_string(), retry_in },
            fault => UpstreamFault::Down(fault.to_string()),
        };
        let spec = ChildSpec::new(server.name.clone(), program, secrets, limits.body).map_err(down)?.with(purpose);
        let (child, lines) = Child::spawn(spec, &state.children, holder).map_err(down)?;
        let carrier = Carrier::Process(child);
        Ok(Self::begin(server, carrier, lines, (program.shared, WRITE), dress, limits, state))
    }

    /// Opens a stream of 2024-11-05 and reads what is said on it until it ends.
    pub(crate) fn open(
        state: &Arc<State>,
        server: &Arc<Server>,
        dressed: u64,
        limits: Limits,
    ) -> Result<Arc<Self>, UpstreamFault> {
        let (stream, messages) = Lasting::open(state, server, limits.body)?;
        let terms = (false, server.deadline);
        let carrier = Carrier::Stream(stream);
        // Its events come without what the server was given.
        Ok(Self::begin(server, carrier, messages, terms, (dressed, None), limits, state))
    }

    fn begin(
        server: &Server,
        carrier: Carrier,
        lines: mpsc::Receiver<Line>,
        (shared, patience): (bool, Duration),
        (dressed, veil): (u64, Option<Arc<Veil>>),
        limits: Limits,
        state: &State,
    ) -> Arc<Self> {
        let pipe = Arc::new(Self {
            server: server.name.clone(),
            origin: Origin::new(),
            carrier,
            patience,
            shared,
            dressed,
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            listeners: Listeners::default(),
            early: Mutex::default(),
            roots: Roots::default(),
            moved: Notify::new(),
            used: Mutex::new(Instant::now()),
            asked: Mutex::default(),
            turns: Arc::new(Turns::new(&server.state.asking)),
            wishes: Arc::default(),
            over: OnceLock::new(),
            journal: Arc::clone(&state.journal),
            limits,
            backlogs: Arc::clone(&state.backlogs),
            lost: Arc::clone(&server.state.lost),
            lost_said: Mutex::default(),
        });
        tokio::spawn(read(Arc::downgrade(&pipe), lines, limits, server.name.clone(), veil));
        pipe
    }

    /// Whose process it is.
    pub(crate) const fn server(&self) -> &ServerName {
        &self.server
    }

    /// What tells it from those before and after it.
    pub(crate) const fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether the process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.over.get().is_none()
    }

    /// How it came to say nothing more, for the log.
    pub(crate) async fn ending(&self) -> String {
        let child = match &self.carrier {
            Carrier::Process(child) => child,
            Carrier::Stream(stream) => return stream.ending(),
        };
        // Whoever waits for this may begin anew as often as rights are looked at: what counts is the end itself.
        let since = self.over.get().copied().unwrap_or_else(Instant::now);
        match timeout_at(since + ENDING, child.exited()).await {
            Ok(Exit::ByItself(Some(status))) => format!("the process ended by itself: {status}"),
            Ok(Exit::ByItself(None)) => "the process ended by itself".to_owned(),
            Ok(Exit::Stopped) => "the process was stopped".to_owned(),
            Ok(Exit::Greedy { used, most }) => {
                let mib = |bytes: u64| bytes.div_ceil(1 << 20);
                let (used, most) = (mib(used), mib(most));
                format!("the process took {used} MiB of memory, more than the {most} MiB of `memory`, and was ended")
            }
            Ok(Exit::Mute) | Err(_) => "the process closed its output".to_owned(),
        }
    }

    /// What becomes of whoever waits when it says nothing more.
    pub(crate) async fn broken(&self) -> UpstreamFault {
        if let Carrier::Stream(stream) = &self.carrier
            && let Some(fault @ UpstreamFault::TooBig(_)) = stream.fault()
        {
            return fault;
        }
        UpstreamFault::Cut(self.ending().await)
    }

    /// What becomes of a message that was not sent, now that it says nothing more.
    fn unsent(&self) -> UpstreamFault {
        UpstreamFault::Down(match &self.carrier {
            Carrier::Process(_) => "the process has ended".to_owned(),
            Carrier::Stream(stream) => stream.ending(),
        })
    }

    /// Which credentials it was started with.
    pub(crate) const fn dressed(&self) -> u64 {
        self.dressed
    }

    /// Whether nobody has asked it anything for longer than `after`.
    pub(crate) fn is_idle(&self, after: Duration) -> bool {
        lock(&self.waiting).is_empty() && lock(&self.used).elapsed() > after
    }

    /// The turns of its calls that are made over the bridge.
    pub(crate) const fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// What those who share it want to be told.
    pub(crate) const fn wishes(&self) -> &Arc<Wishes> {
        &self.wishes
    }

    /// Somebody will hear what the server says unasked, once its session is open.
    pub(crate) fn will_be_heard(&self) {
        lock(&self.early).is_awaited();
    }

    /// Adds somebody who hears what the server says unasked. Where it says nothing more, that is told at once.
    pub(crate) fn hear(&self, listener: impl Fn(Word) -> Heard + Send + Sync + 'static) {
        lock(&self.early).begins();
        self.listeners.add(Arc::new(listener));
    }

    /// When somebody was last asked something that may have been in the course of this request.
    fn asked_of(&self, number: u64) -> Option<Instant> {
        let own = lock(&self.waiting).get(&number).map(|waiting| (waiting.asker == Asker::Gateway, waiting.asked.last));
        match own {
            Some((true, asked)) => asked,
            _ => *lock(&self.asked),
        }
    }
}

/// Reads the process until it ends; then everyone who waits learns it.
async fn read(
    pipe: std::sync::Weak<Pipe>,
    mut lines: mpsc::Receiver<Line>,
    limits: Limits,
    server: ServerName,
    veil: Option<Arc<Veil>>,
) {
    let mut carry = Carry::default();
    let too_big = || UpstreamFault::TooBig(limits.body);
    // A line that is too long has ended its request before its own end.
    let mut is_failed = false;
    while let Some(line) = lines.recv().await {
        let Some(pipe) = pipe.upgrade() else { return };
        let line = match line {
            Line::Whole(line) => match &veil {
                Some(veil) => veil.message(line, &mut carry),
                None => line,
            },
            Line::Cut(unread) => {
                is_failed = pipe.fail(&unread, too_big());
                continue;
            }
            Line::Over(unread) => {
                if !std::mem::take(&mut is_failed) {
                    pipe.fail(&unread, too_big());
                }
                continue;
            }
        };
        let messages = match mcp::scan(line.clone(), &limits) {
            Ok(Body::Single(message)) => vec![message],
            Ok(Body::Batch(messages)) => messages,
            Err(fault) => {
                let is_answer = pipe.fail(&Skim::of(&line), UpstreamFault::Protocol(fault.to_string()));
                tracing::warn!(%server, %fault, is_answer, "the server wrote a line that is no MCP message; it is ignored");
                continue;
            }
        };
        drop(line);
        for message in &messages {
            let Some(answer) = pipe.take(message).await else { continue };
            if let Err(fault) = pipe.write(answer).await {
                tracing::warn!(%server, %fault, "the server does not read");
            }
            pipe.is_answered(message.id().unwrap_or_default());
        }
    }
    if let Some(pipe) = pipe.upgrade() {
        let _first = pipe.over.set(Instant::now());
        pipe.roots.are_over();
        for waiting in std::mem::take(&mut *lock(&pipe.waiting)).into_values().filter(|waiting| !waiting.is_sent) {
            waiting.speaker.end(Err(pipe.unsent()));
        }
        pipe.moved.notify_waiters();
        pipe.listeners.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
