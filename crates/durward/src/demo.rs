//! `durward demo`: a real gateway with two servers of its own, and a short tour through real calls.
//!
//! Owns what is set up for the tour and the end of it. Nothing in the gateway knows that it is a demo.

mod check;
mod client;
mod connect;
mod folder;
mod pipe;
mod screen;
mod server;
mod tour;
mod web;

pub(crate) use pipe::serve;

use crate::{
    cli::{Exit, Output, Shared},
    command::print,
    config::{self, Loaded, Settings},
    directory::Directory,
    running::Running,
    up,
};
use anyhow::{Context, Result, anyhow};
use audit::{AdminRecord, Leaf, Outcome};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use client::Agent;
use folder::Folder;
use gateway::{
    call::new_id,
    clock::{Clock, SystemClock},
};
use identity::{ApiKey, KeyKind};
use screen::Screen;
use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Arc,
};
use store::{KeyRow, KeyUse};
use tokio::runtime::Runtime;
use tour::Tour;
use vocab::{AgentId, Secret};
use web::Web;

/// Where the demo lives unless somebody says otherwise.
const FOLDER: &str = "durward-demo";
const AGENT: &str = "assistant";
const SECRET: &str = "customers-token";

/// Plays the tour, then stays up unless `once`. The runtime ends before the folder goes: the log is closed by then.
pub(crate) fn run(runtime: Runtime, shared: &Shared, once: bool) -> Result<Exit> {
    // What the environment says is meant for other commands.
    let named = shared.config.as_ref().filter(|file| usual_configuration().as_ref() != Some(file));
    if shared.output == Output::Json || named.is_some() {
        print::say(
            "durward: `demo` has a configuration of its own, and a screen for people: leave out --config and --output",
        );
        return Ok(Exit::Usage);
    }
    let screen = Screen::new();
    let mut folder = match &shared.data {
        Some(path) => Folder::at(path)?,
        None if once => Folder::passing()?,
        None => Folder::at(Path::new(FOLDER))?,
    };
    let did = runtime.block_on(play(&screen, &folder, once));
    drop(runtime);
    if !matches!(did, Ok(true)) {
        folder.keep();
        screen.line(format!("  what it left behind: {}\n", folder.path.display()));
    }
    let did = did?;
    screen.written().context("the screen cannot be written")?;
    Ok(if did { Exit::Done } else { Exit::Failed })
}

/// The configuration of commands that are not told which.
#[expect(clippy::disallowed_methods, reason = "the binary reads the environment")]
fn usual_configuration() -> Option<PathBuf> {
    std::env::var_os("DURWARD_CONFIG").map(PathBuf::from)
}

/// Says whether every step of the tour did what it says.
async fn play(screen: &Screen, folder: &Folder, once: bool) -> Result<bool> {
    let token = random()?;
    let web = Web::start(token.clone())?;
    let program = std::env::current_exe().context("this program does not know where it is")?;
    // From the look for a free address until it is taken.
    let turn = folder::turn(&program);
    folder.write(web.address, &program)?;
    let key = furnish(&load(folder)?.settings, &token).await?;
    let running = Running::start(load(folder)?, Some(folder.configuration()), None).await?;
    drop(turn);
    let address = running.address.context("the demo listens on an address")?;
    let url = format!("http://{address}/mcp");

    introduce(screen, &running, &url);
    let agent = Agent::connect(&url, &key).await.context("the agent cannot connect to the gateway")?;
    let tour = Tour { screen, running: &running, folder, web: &web, token: &token, agent };
    let did = tour.play().await;
    let running = Arc::new(running);
    if !once {
        let signals = up::Signals::catch()?;
        settle_in(screen, &running, folder, &url, &key);
        up::until_told(&running, signals).await?;
        eprintln!("durward: stopping; calls in flight may end first");
    }
    Arc::into_inner(running).context("the gateway is still in use")?.stop().await?;
    Ok(did)
}

fn load(folder: &Folder) -> Result<Loaded> {
    let file = folder.configuration();
    config::load(&file).map_err(|report| anyhow!("the demo's own configuration is wrong:\n{report}"))
}

/// Puts what the demo needs into a new data directory, as its commands would: a secret, and a key for the agent.
async fn furnish(settings: &Settings, token: &Secret<String>) -> Result<Secret<String>> {
    let now = SystemClock::new().now();
    let directory = Directory::open(settings, now).await?;
    directory.vault.set(&SECRET.parse()?, token, now)?;
    let key = ApiKey::generate(KeyKind::Agent)?;
    let agent: AgentId = AGENT.parse()?;
    let row = KeyRow {
        id: key.id().to_string(),
        hash: key.hash(),
        tenant: directory.tenant.clone(),
        opens: KeyUse::Agent(agent),
        label: "demo".to_owned(),
        created: now,
        expires: None,
        revoked: None,
    };
    directory.store.add_key(&row).await?;
    let log = directory.log(now)?;
    for (action, target) in [("secret.set", SECRET.to_owned()), ("agent.key.create", format!("{AGENT}/{}", key.id()))] {
        log.append_unwatched(Leaf::Admin(AdminRecord {
            action: Cow::Borrowed(action),
            actor: "demo".to_owned(),
            at: now,
            call: new_id(),
            detail: None,
            outcome: Outcome::Answered,
            peer: None,
            target: Some(target),
            tenant: directory.tenant.clone(),
        }))?;
    }
    log.close()?;
    Ok(key.text().clone())
}

/// 256 random bits as text.
fn random() -> Result<Secret<String>> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the system gave no random bytes"))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

fn introduce(screen: &Screen, running: &Running, url: &str) {
    let note = if running.address.is_some_and(folder::is_usual) { "" } else { " (the usual port is taken)" };
    screen.line(format!("\n  {}\n", screen.bold(&format!("durward {}", env!("CARGO_PKG_VERSION")))));
    screen.line(format!("  gateway  {url}{note}"));
    screen.line("  servers  customers, over HTTP with a credential; files, a process on stdio");
    screen.line(format!("  agent    {AGENT}, with a new key; it knows the gateway and nothing else\n"));
}

/// How to go on with a demo that stays up.
fn settle_in(screen: &Screen, running: &Running, folder: &Folder, url: &str, key: &Secret<String>) {
    screen.line(format!("  {}\n", screen.bold("It stays up. Connect a client:")));
    connect::print(screen, url, key.expose());
    screen.line(format!("  metrics        http://{}/metrics", running.settings().admin.listen));
    screen.line(format!("  configuration  {}", folder.configuration().display()));
    screen.line(format!("  data           {}", running.settings().data.display()));
    screen.line("\n  Ctrl-C stops it.");
}
