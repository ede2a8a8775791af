//! Any client to any server: every revision of the one at every revision of the other, through both doors.
//!
//! Each cell is a session of an official SDK with the fixture server. What came of it stands in `docs/compatibility.md`,
//! cell by cell; a run that comes to something else fails.

mod cell;
mod page;

use crate::{
    install, ports,
    process::program,
    world::{self, World},
};
use anyhow::{Context, Result, anyhow, bail};
use cell::Cell;
use std::{
    collections::VecDeque,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, PoisonError},
    thread,
};

/// A client: what it is called, whose SDK it is on, how it reaches the gateway, and the newest revision that it speaks.
const CLIENTS: [(&str, Language, &str, &str); 9] = [
    ("2024-11-05, SSE", Language::TypeScript, "sse", "2024-11-05"),
    ("2025-03-26", Language::TypeScript, "http", "2025-03-26"),
    ("2025-06-18", Language::TypeScript, "http", "2025-06-18"),
    ("2025-11-25", Language::TypeScript, "http", "2025-11-25"),
    ("2026-07-28", Language::TypeScript, "http", "2026-07-28"),
    ("stdio, legacy", Language::TypeScript, "stdio", "2025-11-25"),
    ("stdio, modern", Language::TypeScript, "stdio", "2026-07-28"),
    ("2025-11-25, Python", Language::Python, "http", "2025-11-25"),
    ("stdio, modern, Python", Language::Python, "stdio", "2026-07-28"),
];

#[derive(Clone, Copy)]
enum Language {
    TypeScript,
    Python,
}

/// A server: what it is called on the page and at the gateway, how it is reached, and the newest revision that it speaks.
const SERVERS: [(&str, &str, Reach, &str); 6] = [
    ("2025-03-26", "http-2025-03-26", Reach::Http, "2025-03-26"),
    ("2025-06-18", "http-2025-06-18", Reach::Http, "2025-06-18"),
    ("2025-11-25", "http-2025-11-25", Reach::Http, "2025-11-25"),
    ("2026-07-28", "http-2026-07-28", Reach::Http, "2026-07-28"),
    ("stdio, legacy", "stdio-legacy", Reach::Pipes, "2025-11-25"),
    ("stdio, modern", "stdio-modern", Reach::Pipes, "2026-07-28"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Http,
    Pipes,
}

/// How many clients run at one time.
const AT_ONCE: usize = 3;

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only cells whose name contains this, as `2025-06-18 > stdio, modern at /mcp`; compares nothing
    #[arg(long)]
    only: Option<String>,
    /// Writes the page
    #[arg(long)]
    write: bool,
}

/// The two doors of a server.
const DOORS: [Door; 2] = [Door::Own, Door::All];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// `/mcp/NAME`.
    Own,
    /// `/mcp`.
    All,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    install::peers(root)?;
    let mut world = World::new(root, "matrix")?;
    for (_, name, reach, revision) in SERVERS {
        start(root, &mut world, name, reach, revision)?;
    }
    for (client, ..) in CLIENTS {
        world.agent(&agent(client))?;
    }
    let gateway = world.gateway(root)?;
    let cells = visits(root, &world, gateway, options.only.as_deref())?;

    let page = page::Page::of(&cells);
    if options.only.is_some() {
        eprintln!("{}", page.text());
        return Ok(());
    }
    page.settle(root, options.write)
}

fn start(root: &Path, world: &mut World, name: &str, reach: Reach, revision: &str) -> Result<()> {
    let node = install::node(root);
    let script = root.join("tests/js/fixture-server.mjs");
    let told = ["--revision", revision, "--authority", name];
    match reach {
        Reach::Http => {
            let address = ports::free()?;
            let mut command = program(&node);
            command.arg(&script).args(told).args(["--port", &address.port().to_string()]);
            world.http(name, address, "/mcp", &mut command).map(drop)
        }
        Reach::Pipes => {
            let [node, script] = [node.to_string_lossy(), script.to_string_lossy()];
            let mut command = vec![&*node, &*script, "--stdio"];
            command.extend(told);
            world.stdio(name, &command)
        }
    }
}

/// A program that visits several cells, one after the other.
struct Visitor {
    language: Language,
    way: &'static str,
    revision: &'static str,
    key: String,
    /// As the program wants them.
    cells: Vec<String>,
    log: PathBuf,
}

/// All cells, in the order of the page, by a few clients at a time.
fn visits(root: &Path, world: &World, gateway: SocketAddr, only: Option<&str>) -> Result<Vec<Cell>> {
    let connect = world::built(root)?;
    let mut names = Vec::new();
    let mut visitors = VecDeque::new();
    for (client, language, way, newest) in CLIENTS {
        let mut cells = Vec::new();
        for door in DOORS {
            for (server, name, _, revision) in SERVERS {
                // The transport of 2024-11-05 has doors of its own beside those of the others.
                let base = if way == "sse" { "/sse" } else { "/mcp" };
                let (path, prefix) = match door {
                    Door::Own => (format!("{base}/{name}"), String::new()),
                    Door::All => (base.to_owned(), format!("{name}__")),
                };
                let at = (client, server, door);
                if only.is_none_or(|only| words(at).contains(only)) {
                    cells.push(format!("{},{revision},{prefix},http://{gateway}{path}", words(at).replace(',', "")));
                    names.push(at);
                }
            }
        }
        if !cells.is_empty() {
            let key = world.key(root, &agent(client))?;
            let log = world.folder().join(format!("client-{}.log", agent(client)));
            visitors.push_back(Visitor { language, way, revision: newest, key, cells, log });
        }
    }

    let waiting = Mutex::new(visitors);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || {
        let mut told = String::new();
        while let Some(visitor) = next() {
            told += &visit(root, &connect, &visitor)?;
        }
        Ok(told)
    };
    let told: Result<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
    });
    let told = told?;
    names.into_iter().map(|(client, server, door)| Cell::read(client, server, door, &told)).collect()
}

/// Gives what the client told.
fn visit(root: &Path, connect: &Path, visitor: &Visitor) -> Result<String> {
    let Visitor { language, way, revision, key, cells, log } = visitor;
    let (interpreter, script) = match language {
        Language::TypeScript => (install::node(root), "tests/js/matrix.mjs"),
        Language::Python => (install::python_binary(root), "tests/py/matrix.py"),
    };
    let mut command = program(interpreter);
    command.arg(root.join(script)).args([way, revision]).args(cells);
    command.env("DURWARD_CONNECT", connect).env("DURWARD_KEY", key);
    let file = fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    if !command.status().context("a client does not start")?.success() {
        bail!("a client broke down; see {}", log.display());
    }
    Ok(fs::read_to_string(log)?)
}

/// Each client is an agent of its own, so that none sees what is another's: servers in processes are one for an agent.
fn agent(client: &str) -> String {
    format!("client-{}", client.replace(", ", "-"))
}

fn words((client, server, door): (&str, &str, Door)) -> String {
    format!("{client} > {server} at {}", words_of(door))
}

fn words_of(door: Door) -> &'static str {
    match door {
        Door::Own => "/mcp/SERVER",
        Door::All => "/mcp",
    }
}
