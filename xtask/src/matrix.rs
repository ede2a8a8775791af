//! Any client to any server: every revision of the one at every revision of the other, through both doors.
//!
//! Each cell is a session of an official SDK with the fixture server. What came of it stands in `docs/compatibility.md`,
//! cell by cell; a run that comes to something else fails. So does one in which somebody says what the schema of the
//! revision denies: a witness hears every message between client, gateway and server.

mod cell;
mod page;
mod roster;
mod witness;

use crate::{
    install, ports,
    process::program,
    world::{self, World},
};
use anyhow::{Context, Result, anyhow, bail};
use cell::Cell;
use roster::{Client, DOORS, Door, Place, Program, Reach, Server, TRIALS, agent};
use std::{
    collections::VecDeque,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};
use witness::Witness;

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
    let places = places(options.only.as_deref());
    let mut servers = Vec::new();
    for server in TRIALS.iter().flat_map(|trial| trial.servers) {
        servers.push((server, start(root, &mut world, server)?));
    }
    for trial in &TRIALS {
        for client in trial.clients {
            world.agent(&agent(trial, client))?;
        }
    }
    let gateway = ports::free()?;
    let witness = Witness::start(root, gateway, &places, &servers, options.only.is_none())?;
    for (number, (server, _)) in servers.iter().enumerate() {
        match witness.server(number) {
            Some(address) => world.behind(server.key, &format!("http://{address}{}", path(server)))?,
            None => world.stdio(server.key, &witness.process(server, &words(&piped(root, server))))?,
        }
    }
    world.gateway_at(gateway, root)?;
    let cells = visits(root, &world, &witness, &places)?;
    // Whoever still runs may say something that is to be judged, too.
    drop(world);
    let judged = witness.judge();

    let page = page::Page::of(&cells);
    if options.only.is_some() {
        eprintln!("{}", page.text());
        return judged;
    }
    page.settle(root, options.write).and(judged)
}

/// All places, in the order of the page, or those whose name contains `only`.
fn places(only: Option<&str>) -> Vec<Place> {
    let mut places = Vec::new();
    for trial in &TRIALS {
        for client in trial.clients {
            for door in DOORS {
                places.extend(trial.servers.iter().map(|server| Place { trial, client, server, door }));
            }
        }
    }
    places.retain(|place| only.is_none_or(|only| place.words().contains(only)));
    places
}

/// Starts a server that listens, and says where. The others are started by the gateway.
fn start(root: &Path, world: &mut World, server: &Server) -> Result<Option<SocketAddr>> {
    let mut command = served(root, server);
    match server.reach {
        Reach::Http => {}
        Reach::Sse => drop(command.arg("--sse")),
        Reach::Pipes => return Ok(None),
    }
    let address = ports::free()?;
    command.args(["--port", &address.port().to_string()]);
    world.beside(server.key, address, path(server), &mut command)?;
    Ok(Some(address))
}

fn path(server: &Server) -> &'static str {
    match server.reach {
        Reach::Sse => "/sse",
        Reach::Http | Reach::Pipes => "/mcp",
    }
}

fn piped(root: &Path, server: &Server) -> Command {
    let mut command = served(root, server);
    command.arg("--stdio");
    command
}

fn served(root: &Path, server: &Server) -> Command {
    let mut command = command(root, server.program);
    if let Program::Node(..) = server.program {
        command.args(["--revision", server.revision, "--authority", server.key]);
    }
    command
}

fn words(command: &Command) -> Vec<String> {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect()
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
    agent: String,
    key: String,
    /// As the program wants them.
    cells: Vec<String>,
    log: PathBuf,
}

/// All cells, by a few clients at a time.
fn visits(root: &Path, world: &World, witness: &Witness, places: &[Place]) -> Result<Vec<Cell>> {
    let connect = witness.connector(world.folder(), &world::built(root)?)?;
    let mut visitors: VecDeque<Visitor> = VecDeque::new();
    for (number, place) in places.iter().enumerate() {
        let (agent, told) = (place.agent(), told(place, witness.door(number)?));
        match visitors.back_mut() {
            Some(visitor) if visitor.agent == agent => visitor.cells.push(told),
            _ => {
                let (key, log) = (world.key(root, &agent)?, world.folder().join(format!("{agent}.log")));
                visitors.push_back(Visitor { client: place.client, agent, key, cells: vec![told], log });
            }
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
    places.iter().map(|place| Cell::read(*place, &told)).collect()
}

/// A cell as its client is told of it.
fn told(place: &Place, door: SocketAddr) -> String {
    // The transport of 2024-11-05 has doors of its own beside those of the others.
    let base = if place.client.way == "sse" { "/sse" } else { "/mcp" };
    let Server { key, revision, .. } = place.server;
    let (path, prefix) = match place.door {
        Door::Own => (format!("{base}/{key}"), String::new()),
        Door::All => (base.to_owned(), format!("{key}__")),
    };
    format!("{},{revision},{prefix},http://{door}{path}", place.words().replace(',', ""))
}

/// Gives what the client told.
fn visit(root: &Path, connect: &Path, visitor: &Visitor) -> Result<String> {
    let Visitor { client, agent, key, cells, log } = visitor;
    let mut command = command(root, client.program);
    command.args([client.way, client.revision]).args(cells);
    command.env("DURWARD_CONNECT", connect).env("DURWARD_KEY", key).env("DURWARD_CLIENT", agent);
    let file = fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    if !command.status().context("a client does not start")?.success() {
        bail!("a client broke down; see {}", log.display());
    }
    Ok(fs::read_to_string(log)?)
}
