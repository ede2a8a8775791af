//! What else happens while a gateway is soaked: reloads, processes that are killed, a web server that goes and comes back,
//! programs that connect through pipes. Each in its turn, each bounded, each counted.
//!
//! Owns the servers that this concerns, and what their clients may get: an answer or a refusal, and never nothing.

mod piped;

use crate::setup::{Mortal, Soaked, Target};
use anyhow::{Context, Result, bail, ensure};
use piped::Piped;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use testkit::{Agent, LEGACY, meta};
use tokio::time::{interval, sleep, timeout};

/// How long nothing happens between one thing and the next.
const PAUSE: Duration = Duration::from_millis(700);
/// How long one thing may take, or until a server that is back is served from again.
const BOUND: Duration = Duration::from_secs(20);
/// The variable by which processes of this soak are known.
const MARK: &str = "DURWARD_SOAKED";

/// What is counted here, and in the turns of clients. Each must have happened.
pub(crate) const RELOADS: &str = "reloads";
pub(crate) const KILLED: &str = "processes killed";
pub(crate) const RETURNED: &str = "servers gone and back";
pub(crate) const CONNECTED: &str = "programs connected";
pub(crate) const TASKS: &str = "tasks";
pub(crate) const OLD_CLIENTS: &str = "clients of 2024";
pub(crate) const OLD_SERVERS: &str = "sessions with a server of 2024";
/// Calls of servers that were disturbed, and how many of them were refused.
pub(crate) const DISTURBED: &str = "calls amid all that";
pub(crate) const REFUSED: &str = "of them refused";
const KINDS: [&str; 8] = [RELOADS, KILLED, RETURNED, CONNECTED, TASKS, OLD_CLIENTS, OLD_SERVERS, DISTURBED];

/// How often each thing has happened.
#[derive(Default)]
pub(crate) struct Tally(Mutex<BTreeMap<&'static str, usize>>);

impl Tally {
    pub(crate) fn note(&self, what: &'static str, times: usize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += times;
    }

    fn of(&self, what: &str) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(what).copied().unwrap_or_default()
    }

    /// All of it in words.
    pub(crate) fn words(&self) -> String {
        let all = KINDS.iter().chain([&REFUSED]);
        all.map(|what| format!("{} {what}", self.of(what))).collect::<Vec<_>>().join(", ")
    }

    /// A soak in which something never happened says nothing of it.
    pub(crate) fn is_whole(&self) -> Result<()> {
        for what in KINDS {
            ensure!(self.of(what) > 0, "no {what}");
        }
        ensure!(self.of(REFUSED) < self.of(DISTURBED), "every call of a server that is disturbed was refused");
        Ok(())
    }
}

/// The lines of the servers that the churn is about. Addresses tell the processes of one soak from another's.
pub(crate) fn servers(binary: &Path, web: SocketAddr, mortal: SocketAddr) -> String {
    let process = |name: &str, more: &str| {
        let binary = binary.display();
        format!(
            "  {name}: {{ command: [\"{binary}\", demo-server], env: {{ {MARK}: \"{name} {mortal}\" }}, calls_in_flight: 4096{more} }}\n"
        )
    };
    let http = |name: &str, url: &str, more: &str| {
        format!(
            "  {name}: {{ url: \"{url}\", internal: true, calls_in_flight: 4096, tools: {{ \"*\": {{ class: read }} }}{more} }}\n"
        )
    };
    [
        process("pipe", ""),
        process("frail", ""),
        process("common", ", shared: true"),
        http("mortal", &format!("http://{mortal}/mcp"), ""),
        http("changing", &format!("http://{web}/{}", FACES[0]), ""),
        http("lasting", &format!("http://{web}/sse"), ", transport: sse"),
    ]
    .concat()
}

/// What a reload makes of the server `changing`, and of it again.
const FACES: [&str; 2] = ["mcp", "events"];

/// Lets things happen until it is over. Says how many of them went wrong.
pub(crate) async fn go(soaked: &mut Soaked, binary: &Path, base: &str, is_over: &AtomicBool, tally: &Tally) -> usize {
    let mut churn = Churn {
        configuration: soaked.configuration.clone(),
        log: soaked.log.clone(),
        gateway: soaked.stage.targets.first().map_or(0, Target::pid),
        binary: binary.to_owned(),
        base: base.to_owned(),
    };
    let (mut failed, mut turn) = (0, 0);
    // A round is gone to its end: what went comes back.
    while !is_over.load(Ordering::Relaxed) || turn % TURNS != 0 {
        let done = timeout(BOUND, churn.step(turn % TURNS, &mut soaked.mortal, tally)).await;
        if !matches!(done, Ok(Ok(()))) {
            eprintln!("churn, turn {}: {done:?}", turn % TURNS);
            failed += 1;
        }
        turn += 1;
        sleep(PAUSE).await;
    }
    // One process for everybody stays for whoever comes next, until nobody can come.
    let gone =
        timeout(BOUND, churn.reload(|line| if is_of("common", line) { String::new() } else { line.to_owned() })).await;
    if !matches!(gone, Ok(Ok(()))) {
        eprintln!("churn, at its end: {gone:?}");
        failed += 1;
    }
    failed
}

/// How many different things happen.
const TURNS: usize = 7;

/// Whether a line of the configuration is a server's.
fn is_of(server: &str, line: &str) -> bool {
    line.trim_start().strip_prefix(server).is_some_and(|rest| rest.starts_with(':'))
}

struct Churn {
    configuration: PathBuf,
    log: PathBuf,
    gateway: u32,
    binary: PathBuf,
    base: String,
}

impl Churn {
    async fn step(&mut self, turn: usize, mortal: &mut Mortal, tally: &Tally) -> Result<()> {
        match turn {
            0 => self.moved(FACES[0], FACES[1], tally).await,
            1 => {
                let killed = kill(&[format!("frail {}", mortal.address), format!("common {}", mortal.address)])?;
                tally.note(KILLED, killed);
                for server in ["frail", "common"] {
                    self.serves(server, ("list_files", json!({}))).await?;
                }
                Ok(())
            }
            2 => {
                mortal.goes();
                Ok(())
            }
            3 => self.connected(false, tally).await,
            4 => {
                mortal.comes()?;
                self.serves("mortal", ("echo", json!({"text": "a"}))).await?;
                tally.note(RETURNED, 1);
                Ok(())
            }
            5 => self.connected(true, tally).await,
            _ => self.moved(FACES[1], FACES[0], tally).await,
        }
    }

    /// Leads a server elsewhere, until it is served from there.
    async fn moved(&self, from: &str, to: &str, tally: &Tally) -> Result<()> {
        let (from, to) = (format!("/{from}\""), format!("/{to}\""));
        self.reload(|line| if is_of("changing", line) { line.replace(&from, &to) } else { line.to_owned() }).await?;
        self.serves("changing", ("echo", json!({"text": "a"}))).await?;
        tally.note(RELOADS, 1);
        Ok(())
    }

    /// Changes lines of the configuration, and waits until that is in force.
    async fn reload(&self, change: impl Fn(&str) -> String) -> Result<()> {
        let before = self.reloads()?;
        let text = fs::read_to_string(&self.configuration)?;
        let changed = text.lines().map(|line| change(line) + "\n").collect::<String>();
        ensure!(changed != text, "nothing is to be changed");
        // All of it at once: the gateway may look at any moment.
        let draft = self.configuration.with_extension("draft");
        fs::write(&draft, changed)?;
        fs::rename(&draft, &self.configuration)?;
        signal(self.gateway, Signal::HUP)?;
        let mut looks = interval(Duration::from_millis(50));
        while self.reloads()? == before {
            looks.tick().await;
        }
        Ok(())
    }

    /// How often the gateway has said that it has another configuration.
    fn reloads(&self) -> Result<usize> {
        Ok(fs::read_to_string(&self.log)?.matches("durward: reloaded").count())
    }

    /// Waits until a server answers a call of either era: it may take a look or two.
    async fn serves(&self, server: &str, (tool, arguments): (&str, Value)) -> Result<()> {
        let url = format!("{}/mcp/{server}", self.base);
        let mut looks = interval(Duration::from_millis(100));
        for era in [Some(LEGACY), None] {
            while !called(&url, era, (tool, &arguments)).await.with_context(|| server.to_owned())? {
                looks.tick().await;
            }
        }
        Ok(())
    }

    /// A program that has only pipes, which ends when its input does, or is killed while it listens.
    async fn connected(&self, is_killed: bool, tally: &Tally) -> Result<()> {
        let mut program = Piped::start(&self.binary, &format!("{}/mcp", self.base))?;
        let client = json!({"name": "piped", "version": "1"});
        program.ask("initialize", json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client})).await?;
        program.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        let call = json!({"name": "json__echo", "arguments": {"text": "a"}});
        program.ask("tools/call", call).await?;
        program.ask("tools/list", json!({})).await?;
        if !is_killed {
            let modern = json!({"name": "json__echo", "arguments": {"text": "a"}, "_meta": meta()});
            program.ask("tools/call", modern).await?;
        }
        program.end(is_killed).await?;
        tally.note(CONNECTED, 1);
        Ok(())
    }
}

/// Sends a signal to a process.
fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process")?;
    Ok(kill_process(pid, signal)?)
}

/// Kills the processes with these marks, and says how many there were.
fn kill(marks: &[String]) -> Result<usize> {
    let mut killed = 0;
    for pid in marked(|mark| marks.iter().any(|one| one == mark))? {
        // One that has ended meanwhile needs no killing.
        killed += usize::from(signal(pid, Signal::KILL).is_ok());
    }
    Ok(killed)
}

/// How many processes of this soak there are, also where the gateway has forgotten them.
pub(crate) fn processes(mortal: SocketAddr) -> Result<usize> {
    let mortal = mortal.to_string();
    Ok(marked(|mark| mark.ends_with(&mortal))?.len())
}

/// Processes whose mark is meant.
fn marked(is_meant: impl Fn(&str) -> bool) -> Result<Vec<u32>> {
    let is_marked = |pid: u32| {
        // Processes of others cannot be read, and those of ours may end meanwhile.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let variables = environment.split(|byte| *byte == 0);
        let mut marks = variables.filter_map(|variable| std::str::from_utf8(variable).ok()?.strip_prefix(MARK));
        marks.any(|mark| is_meant(mark.trim_start_matches('=')))
    };
    let numbers = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(numbers.filter(|pid| is_marked(*pid)).collect())
}

/// Calls a tool of a server that something happens to meanwhile: whether it was answered. What is refused has a reason.
async fn called(url: &str, era: Option<&str>, (tool, arguments): (&str, &Value)) -> Result<bool> {
    let Some(revision) = era else { return is_answer(&Agent::modern(url, None).call(tool, arguments.clone()).await) };
    let agent = match Agent::tried(revision, url, None).await {
        Ok(agent) => agent,
        Err(refused) => return is_answer(&refused),
    };
    // Heard or not: the session has a stream while something happens to its server.
    let stream = agent.listen().await;
    let first = is_answer(&agent.call(tool, arguments.clone()).await)?;
    let second = is_answer(&agent.call(tool, arguments.clone()).await)?;
    drop(stream);
    // It may be over by itself.
    drop(agent.leave().await);
    Ok(first && second)
}

/// The same as a turn of a client.
pub(crate) async fn disturbed(url: &str, era: Option<&str>, tool: (&str, &Value), tally: &Tally) -> Result<()> {
    let is_answered = called(url, era, tool).await?;
    tally.note(DISTURBED, 1);
    tally.note(REFUSED, usize::from(!is_answered));
    Ok(())
}

fn is_answer(answer: &Value) -> Result<bool> {
    match (answer.get("result"), answer.pointer("/error/message")) {
        (Some(_), None) => Ok(true),
        (None, Some(_)) => Ok(false),
        _ => bail!("neither an answer nor a refusal: {answer}"),
    }
}
