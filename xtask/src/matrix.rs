//! Any client to any server: every revision of the one at every revision of the other, through both doors.
//!
//! Each cell is a session of an official SDK with the fixture server. What came of it stands in `docs/compatibility.md`,
//! cell by cell; a run that comes to something else fails.

mod cell;
mod page;
mod roster;

use crate::{
    install, ports,
    process::program,
    world::{self, World},
};
use anyhow::{Context, Result, anyhow, bail};
use cell::Cell;
use roster::{Client, DOORS, Door, Place, Program, Reach, Server, TRIALS, Trial};
use std::{
    collections::VecDeque,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

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

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    install::peers(root)?;
    let mut world = World::new(root, "matrix")?;
    for trial in &TRIALS {
        for server in trial.servers {
            start(root, &mut world, server)?;
        }
        for client in trial.clients {
            world.agent(&agent(trial, client))?;
        }
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

fn start(root: &Path, world: &mut World, server: &Server) -> Result<()> {
    let mut command = command(root, server.program);
    if let Program::Node(..) = server.program {
        command.args(["--revision", server.revision, "--authority", server.key]);
    }
    match server.reach {
        Reach::Http | Reach::Sse => {
            let address = ports::free()?;
            command.args(["--port", &address.port().to_string()]);
            let path = if server.reach == Reach::Sse { "/sse" } else { "/mcp" };
            if server.reach == Reach::Sse {
                command.arg("--sse");
            }
            world.http(server.key, address, path, &mut command).map(drop)
        }
        Reach::Pipes => {
            command.arg("--stdio");
            let words = [command.get_program()].into_iter().chain(command.get_args());
            let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
            world.stdio(server.key, &words.iter().map(|word| &**word).collect::<Vec<_>>())
        }
    }
}

fn command(root: &Path, what: Program) -> Command {
    let (interpreter, script, told) = match what {
        Program::Node(script, told) => (install::node(root), script, told),
        Program::Python(script) => (install::python_binary(root), script, &[][..]),
    };
    let mut command = program(interpreter);
    command.arg(root.join("tests").join(script)).args(told);
    command
}

/// A program that visits several cells, one after the other.
struct Visitor {
    client: &'static Client,
    key: String,
    /// As the program wants them.
    cells: Vec<String>,
    log: PathBuf,
}

/// All cells, in the order of the page, by a few clients at a time.
fn visits(root: &Path, world: &World, gateway: SocketAddr, only: Option<&str>) -> Result<Vec<Cell>> {
    let connect = world::built(root)?;
    let mut places = Vec::new();
    let mut visitors = VecDeque::new();
    for trial in &TRIALS {
        for client in trial.clients {
            let own: Vec<Place> = DOORS
                .into_iter()
                .flat_map(|door| trial.servers.iter().map(move |server| Place { trial, client, server, door }))
                .filter(|place| only.is_none_or(|only| place.words().contains(only)))
                .collect();
            if own.is_empty() {
                continue;
            }
            let agent = agent(trial, client);
            let key = world.key(root, &agent)?;
            let log = world.folder().join(format!("{agent}.log"));
            let cells = own.iter().map(|place| told(place, gateway)).collect();
            visitors.push_back(Visitor { client, key, cells, log });
            places.extend(own);
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
    places.into_iter().map(|place| Cell::read(place, &told)).collect()
}

/// A cell as its client is told of it.
fn told(place: &Place, gateway: SocketAddr) -> String {
    // The transport of 2024-11-05 has doors of its own beside those of the others.
    let base = if place.client.way == "sse" { "/sse" } else { "/mcp" };
    let Server { key, revision, .. } = place.server;
    let (path, prefix) = match place.door {
        Door::Own => (format!("{base}/{key}"), String::new()),
        Door::All => (base.to_owned(), format!("{key}__")),
    };
    format!("{},{revision},{prefix},http://{gateway}{path}", place.words().replace(',', ""))
}

/// Gives what the client told.
fn visit(root: &Path, connect: &Path, visitor: &Visitor) -> Result<String> {
    let Visitor { client, key, cells, log } = visitor;
    let mut command = command(root, client.program);
    command.args([client.way, client.revision]).args(cells);
    command.env("DURWARD_CONNECT", connect).env("DURWARD_KEY", key);
    let file = fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    if !command.status().context("a client does not start")?.success() {
        bail!("a client broke down; see {}", log.display());
    }
    Ok(fs::read_to_string(log)?)
}

/// Each client is an agent of its own, so that none sees what is another's: servers in processes are one for an agent.
fn agent(trial: &Trial, client: &Client) -> String {
    format!("client-{}{}", trial.name, client.name).replace(", ", "-").replace(' ', "-")
}
