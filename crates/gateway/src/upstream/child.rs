//! Server processes: started from configuration only, one line per message on standard input and output.
//!
//! Each process leads a process group of its own, and the group ends with it: at its exit, when its handle is dropped,
//! when the room closes, and when the runtime goes. A gateway that is itself killed can do nothing (a parent-death
//! signal would need unsafe code); its processes then see the end of their input, on which servers exit. What leaves the
//! group with `setsid` is out of reach. Knows no message ids and never restarts anything by itself.

mod memory;
mod pipes;
mod room;
#[cfg(test)]
mod tests;
mod unstarted;

use super::pipe::Program;
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    process::Command,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use vocab::{PrincipalId, Secret, ServerName};

pub(crate) use pipes::Line;
pub(crate) use room::FIRST;
pub use room::Room;

/// How long a process that says nothing more may take to end: with its end it closes its output, too.
const LAST: Duration = Duration::from_millis(250);
/// Lines that wait for a process.
const BACKLOG: usize = 16;
/// Lines of a process that wait to be read. Few: each may be as large as an answer.
const UNREAD: usize = 2;

/// Why a process is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildFault {
    /// No program.
    #[error("the command is empty; name a program")]
    Empty,
    /// A variable that no environment can hold.
    #[error("`{0}` cannot be the name of an environment variable")]
    Variable(String),
    /// A memory bound where none can be set.
    #[error("`memory` cannot be bounded on this system; leave it out")]
    Memory,
    /// Too many run.
    #[error("{0} server processes run already; end a session or raise the bound")]
    Full(usize),
    /// Too many of them are the caller's.
    #[error(
        "you have {0} server processes (`bounds.children_per_principal`): those of a session end with it, others when nobody used them for `bounds.session_idle`"
    )]
    Share(usize),
    /// It crashed of late.
    #[error("server `{server}` ended {crashes} times by itself; it is not started for another {retry_in:?}")]
    Backoff {
        /// The server.
        server: ServerName,
        /// How often in a row.
        crashes: u32,
        /// When it may be tried again.
        retry_in: Duration,
    },
    /// The system did not start it.
    #[error("cannot start `{program}`: {why}")]
    Start {
        /// The program.
        program: String,
        /// Why, and what to do.
        why: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// It has ended, or was told to.
    #[error("the process has ended")]
    Ended,
}

/// What a process is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Calls.
    Serve,
    /// One question that it may not know. That it ends on it says that it does not, not that it is broken.
    Probe,
}

/// What is started. Prints nothing: its environment holds secrets.
pub(crate) struct ChildSpec {
    server: ServerName,
    program: String,
    arguments: Vec<String>,
    env: BTreeMap<String, String>,
    secrets: Vec<(String, Secret<String>)>,
    dir: Option<PathBuf>,
    memory: Option<u64>,
    longest_line: usize,
    purpose: Purpose,
}

impl ChildSpec {
    /// Checks what is configured. `memory` bounds each process of the group, and all of them together. A longer line than
    /// `longest_line` is dropped.
    pub(crate) fn new(
        server: ServerName,
        program: &Program,
        secrets: Vec<(String, Secret<String>)>,
        longest_line: usize,
    ) -> Result<Self, ChildFault> {
        let (name, arguments) = program.command.split_first().ok_or(ChildFault::Empty)?;
        let mut names = program.env.keys().chain(secrets.iter().map(|(name, _)| name));
        if let Some(bad) = names.find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return Err(ChildFault::Variable(bad.clone()));
        }
        if program.memory.is_some() && !cfg!(target_os = "linux") {
            return Err(ChildFault::Memory);
        }
        Ok(Self {
            server,
            program: name.clone(),
            arguments: arguments.to_vec(),
            env: program.env.clone(),
            secrets,
            dir: program.dir.clone(),
            memory: program.memory,
            longest_line,
            purpose: Purpose::Serve,
        })
    }

    /// The same for another purpose.
    pub(crate) fn with(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }

    /// The command, with nothing of our environment but what the room hands down.
    fn command(&self, room: &Room) -> Command {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the room of server processes; the program is configured"
        )]
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(room.environment())
            .envs(&self.env)
            .envs(self.secrets.iter().map(|(name, secret)| (name, secret.expose())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }
}

/// A running process. Dropping it stops the process: end of input, then `SIGTERM`, then `SIGKILL` to its group.
#[derive(Debug)]
pub(crate) struct Child {
    // In this order: a process whose input ends before anybody knows that it was told to would count as crashed.
    _stop: oneshot::Sender<()>,
    input: mpsc::Sender<Bytes>,
    ended: watch::Receiver<Option<Exit>>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was told to.
    Stopped,
    /// It closed its output and stayed: whoever waits for it would wait for ever.
    Mute,
    /// By itself; none means that the system does not say how.
    ByItself(Option<ExitStatus>),
    /// It took more memory than it may have, and was ended.
    Greedy {
        /// What it took, with the others of its group.
        used: u64,
        /// What it may have.
        most: u64,
    },
}

impl Child {
    /// Starts a process for `holder`, or for nobody in particular. Its lines arrive at the receiver until it has ended; dropping the receiver stops it, too.
    /// Must run inside a tokio runtime, on which everything about this process then happens.
    pub(crate) fn spawn(
        spec: ChildSpec,
        room: &Room,
        holder: Option<&PrincipalId>,
    ) -> Result<(Self, mpsc::Receiver<Line>), ChildFault> {
        let place = room.enter(&spec.server, holder)?;
        let start = |cause| {
            let why = unstarted::why(&spec.program, spec.dir.as_deref(), &cause);
            ChildFault::Start { program: spec.program.clone(), why, cause }
        };
        let mut process = spec.command(room).spawn().map_err(start)?;
        let missing = || start(io::Error::other("its pipes are missing"));
        let pid = process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).ok_or_else(missing)?;
        let group = Group(pid);
        memory::bound(pid, spec.memory).map_err(|cause| ChildFault::Start {
            program: spec.program.clone(),
            why: unstarted::unbounded(&cause),
            cause,
        })?;
        let (stdin, stdout) = process.stdin.take().zip(process.stdout.take()).ok_or_else(missing)?;
        let stderr = process.stderr.take().ok_or_else(missing)?;

        let (input, to_write) = mpsc::channel(BACKLOG);
        let (read, lines) = mpsc::channel(UNREAD);
        let (said, ended) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let spoke = Arc::new(AtomicBool::new(false));
        let (server, heard) = (spec.server.clone(), Arc::clone(&spoke));
        let deaf = read.clone();
        let attended = Attended {
            server: spec.server.clone(),
            writer: tokio::spawn(pipes::write(stdin, to_write)),
            readers: [
                tokio::spawn(pipes::read(stdout, read, spec.longest_line, server, heard)),
                tokio::spawn(pipes::complain(stderr, spec.server, spec.secrets)),
            ],
            place,
            spoke,
            memory: spec.memory,
            purpose: spec.purpose,
            group,
            process,
        };
        tokio::spawn(async move {
            // With it goes the last but the reader's own that keeps the lines open.
            let stop = async move {
                tokio::select! {
                    _ = stopped => {}
                    () = deaf.closed() => {}
                }
            };
            let exit = attended.attend(stop).await;
            said.send_replace(Some(exit));
        });
        Ok((Self { input, ended, _stop: stop }, lines))
    }

    /// Queues one line, without its line break. Waits while the process does not read; giving up the wait loses the line
    /// whole, never half of it.
    pub(crate) async fn send(&self, line: Bytes) -> Result<(), ChildFault> {
        self.input.send(line).await.map_err(|_| ChildFault::Ended)
    }

    /// Waits until the process and its group have ended.
    pub(crate) async fn exited(&self) -> Exit {
        let mut ended = self.ended.clone();
        ended.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(Exit::Stopped)
    }
}

/// Everything that belongs to one process.
struct Attended {
    server: ServerName,
    writer: JoinHandle<()>,
    readers: [JoinHandle<()>; 2],
    spoke: Arc<AtomicBool>,
    memory: Option<u64>,
    purpose: Purpose,
    // In this order: the group is signalled before its leader's number can be given to another process.
    group: Group,
    process: tokio::process::Child,
    place: room::Place,
}

impl Attended {
    /// Waits for the end, whoever brings it about, and leaves nothing behind.
    async fn attend(mut self, stop: impl Future<Output = ()>) -> Exit {
        let closing = self.place.closed();
        let looks = self.place.looks();
        let [lines, _] = &mut self.readers;
        let exit = tokio::select! {
            // One that was told to end may have ended by the time we look: that is no crash.
            biased;
            () = stop => Exit::Stopped,
            () = closing => Exit::Stopped,
            status = self.process.wait() => Exit::ByItself(status.ok()),
            used = memory::exceeded(&looks, self.group.0, self.memory) => {
                Exit::Greedy { used, most: self.memory.unwrap_or_default() }
            }
            _ = lines => Exit::Mute,
        };
        let exit = match exit {
            Exit::Mute => match timeout(LAST, self.process.wait()).await {
                Ok(status) => Exit::ByItself(status.ok()),
                Err(_) => Exit::Mute,
            },
            exit => exit,
        };
        match exit {
            Exit::Stopped => self.stop().await,
            Exit::Mute => {
                // Whoever asks meanwhile waits as after any fall.
                if self.purpose == Purpose::Serve {
                    self.fell();
                }
                self.stop().await;
            }
            Exit::Greedy { .. } => self.kill().await,
            Exit::ByItself(_) => {}
        }
        self.writer.abort();
        self.group.signal(Signal::KILL);
        // What it wrote before it ended still counts. Somebody who left the group may hold the pipe open for ever.
        for reader in self.readers.iter_mut().filter(|reader| !reader.is_finished()) {
            if timeout(self.place.patience(), &mut *reader).await.is_err() {
                reader.abort();
            }
        }
        match exit {
            Exit::Stopped => tracing::debug!(server = %self.server, "server process stopped"),
            Exit::ByItself(_) | Exit::Mute if self.purpose == Purpose::Probe => {
                tracing::debug!(server = %self.server, "server process ended on a question of another era");
            }
            Exit::ByItself(status) => {
                let status = status.map_or_else(|| "unknown status".to_owned(), |status| status.to_string());
                tracing::warn!(server = %self.server, status, "server process ended by itself");
                self.fell();
            }
            Exit::Mute => tracing::warn!(server = %self.server, "server process closed its output and was ended"),
            Exit::Greedy { used, most } => {
                tracing::warn!(server = %self.server, used, most, "server processes took too much memory and were ended");
                self.fell();
            }
        }
        exit
    }

    /// Delays the next start.
    fn fell(&self) {
        self.place.crashed(&self.server, self.spoke.load(Ordering::Acquire));
    }

    /// End of input, then a request, then force.
    async fn stop(&mut self) {
        self.writer.abort();
        let patience = self.place.patience();
        if timeout(patience, self.process.wait()).await.is_err() {
            self.group.signal(Signal::TERM);
            if timeout(patience, self.process.wait()).await.is_err() {
                self.kill().await;
            }
        }
    }

    /// Force.
    async fn kill(&mut self) {
        self.group.signal(Signal::KILL);
        if let Err(fault) = self.process.wait().await {
            tracing::warn!(server = %self.server, %fault, "cannot wait for a server process");
        }
    }
}

/// The process group of one child. Killed when dropped.
struct Group(Pid);

impl Group {
    /// Signals everybody in the group. That nobody is left is what we want.
    fn signal(&self, signal: Signal) {
        if let Err(fault) = kill_process_group(self.0, signal) {
            tracing::trace!(%fault, "no process left to signal");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
