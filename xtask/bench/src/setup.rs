//! The processes of a measurement and the configuration of each gateway. Ends what it started.

use crate::{churn, message::Era};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use testkit::{Kind, SigningKey};

/// How long a soaked gateway keeps a session that nobody uses.
pub(crate) const SESSION_IDLE: Duration = Duration::from_secs(30);

/// Where what earlier runs left waits to be deleted.
const ASIDE: &str = "before";
const AUDIENCE: &str = "http://127.0.0.1/mcp";
const ISSUER: &str = "https://issuer.example";

/// One thing to measure.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) token: Option<String>,
    /// Where a gateway shows its metrics.
    pub(crate) metrics: Option<SocketAddr>,
    /// Whether its paths name servers, or are those of the upstream.
    pub(crate) is_gateway: bool,
    process: Process,
}

impl Target {
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Where this target has the answers in JSON, in events, and the long list.
    pub(crate) fn path(&self, way: Way) -> &'static str {
        match (way, self.is_gateway) {
            (Way::Json | Way::Long | Way::Across(_), false) => "/mcp",
            (Way::Events, false) => "/events",
            (Way::Json, true) => "/mcp/json",
            (Way::Events, true) => "/mcp/events",
            (Way::Long, true) => "/mcp/long",
            (Way::Across(Era::Legacy), true) => "/mcp/modern",
            (Way::Across(Era::Modern), true) => "/mcp/legacy",
        }
    }
}

/// Which of the upstream's faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Json,
    Events,
    /// A second upstream with a thousand tools
    Long,
    /// For clients of this era, a server that is taken to speak the other one alone
    Across(Era),
}

/// Everything that runs while measuring.
pub(crate) struct Stage {
    pub(crate) targets: Vec<Target>,
    /// The direct and the bare target of the long list.
    pub(crate) long: Vec<Target>,
    pub(crate) upstreams: Vec<Process>,
}

/// A process that ends with this.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// How often a process that was asked to end is looked after, every 50 ms.
const PATIENCE: usize = 100;

impl Drop for Process {
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        let _gone = kill_process(pid, Signal::TERM);
        for _ in 0..PATIENCE {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let _gone = kill_process(pid, Signal::KILL);
        drop(self.child.wait());
    }
}

/// How a gateway is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controls {
    /// Anonymous, one rule, log on
    Bare,
    /// JWT, a hundred rules, limits, schema, secret screening, log on, every tool a read
    All,
    /// The same with every call on disk before it leaves
    Strict,
    /// As bare, with secret screening, more servers and sessions that end soon
    Soak,
}

pub(crate) fn start(folder: &Path, gateway: Option<&Path>, strict: bool) -> Result<Stage> {
    fs::create_dir_all(folder)?;
    let (behind, long_behind) = (free()?, free()?);
    let upstreams = vec![upstream(folder, "upstream", behind, 50)?, upstream(folder, "long", long_behind, 1_000)?];
    let mut targets =
        vec![plain(folder, "direct", free()?, None)?, plain(folder, "bare proxy", free()?, Some(behind))?];
    let long = vec![
        {
            let listen = free()?;
            target("direct", listen, upstream(folder, "long-direct", listen, 1_000)?)
        },
        plain(folder, "long proxy", free()?, Some(long_behind))?,
    ];
    if let Some(binary) = gateway {
        let mut kinds = vec![("durward bare", Controls::Bare), ("durward all", Controls::All)];
        if strict {
            kinds.push(("durward strict", Controls::Strict));
        }
        for (name, controls) in kinds {
            targets.push(durward(folder, binary, name, controls, behind, Some(long_behind), "")?);
        }
    }
    Ok(Stage { targets, long, upstreams })
}

/// Gateways before one server of 50 tools, and what keeps them up.
pub(crate) fn small(folder: &Path, binary: &Path) -> Result<Stage> {
    fs::create_dir_all(folder)?;
    let behind = free()?;
    let upstreams = vec![upstream(folder, "small", behind, 50)?];
    let targets = [("durward bare", Controls::Bare), ("durward all", Controls::All)]
        .into_iter()
        .map(|(name, controls)| durward(folder, binary, name, controls, behind, None, ""))
        .collect::<Result<_>>()?;
    Ok(Stage { targets, long: Vec::new(), upstreams })
}

/// One gateway for a long time, before servers of both eras and every kind.
pub(crate) struct Soaked {
    pub(crate) stage: Stage,
    /// Its configuration, and what it prints.
    pub(crate) configuration: PathBuf,
    pub(crate) log: PathBuf,
    /// The server that comes and goes.
    pub(crate) mortal: Mortal,
}

pub(crate) fn soak(folder: &Path, binary: &Path) -> Result<Soaked> {
    fs::create_dir_all(folder)?;
    let behind = free()?;
    let upstreams = vec![upstream(folder, "soaked", behind, 50)?];
    let mut mortal = Mortal { folder: folder.to_owned(), address: free()?, process: None };
    mortal.comes()?;
    let more = churn::servers(binary, behind, mortal.address);
    let name = "durward soak";
    let targets = vec![durward(folder, binary, name, Controls::Soak, behind, Some(behind), &more)?];
    Ok(Soaked {
        stage: Stage { targets, long: Vec::new(), upstreams },
        configuration: folder_of(folder, name).join("durward.yaml"),
        log: log_of(folder, name),
        mortal,
    })
}

/// A server that stops listening and comes back where it was, knowing nothing of before.
pub(crate) struct Mortal {
    folder: PathBuf,
    pub(crate) address: SocketAddr,
    process: Option<Process>,
}

impl Mortal {
    pub(crate) fn goes(&mut self) {
        self.process = None;
    }

    pub(crate) fn comes(&mut self) -> Result<()> {
        self.process = Some(upstream(&self.folder, "mortal", self.address, 50)?);
        Ok(())
    }
}

fn target(name: &'static str, address: SocketAddr, process: Process) -> Target {
    Target { name, address, token: None, metrics: None, is_gateway: false, process }
}

fn upstream(folder: &Path, name: &str, listen: SocketAddr, tools: usize) -> Result<Process> {
    let arguments = ["upstream", "--listen", &listen.to_string(), "--tools", &tools.to_string()];
    spawn(program(&own()?).args(arguments), folder, name, listen)
}

fn plain(folder: &Path, name: &'static str, listen: SocketAddr, behind: Option<SocketAddr>) -> Result<Target> {
    let process = match behind {
        None => upstream(folder, name, listen, 50)?,
        Some(behind) => {
            let arguments = ["proxy", "--listen", &listen.to_string(), "--upstream", &behind.to_string()];
            spawn(program(&own()?).args(arguments), folder, name, listen)?
        }
    };
    Ok(target(name, listen, process))
}

fn durward(
    folder: &Path,
    binary: &Path,
    name: &'static str,
    controls: Controls,
    behind: SocketAddr,
    long_behind: Option<SocketAddr>,
    more: &str,
) -> Result<Target> {
    let own = folder_of(folder, name);
    put_aside(folder, &own)?;
    fs::create_dir_all(&own)?;
    let (listen, admin) = (free()?, free()?);
    let key = SigningKey::generate(Kind::Rsa, "bench");
    fs::write(own.join("jwks.json"), json!({"keys": [key.jwk()]}).to_string())?;
    fs::write(own.join("policy.json"), policy(controls))?;
    let config = config(controls, listen, admin, behind, long_behind, more);
    fs::write(own.join("durward.yaml"), config)?;
    let mut command = program(binary);
    command.args(["up", "--config", "durward.yaml", "--data", "data"]).current_dir(&own);
    // Logging alike: the bare proxy prints nothing per call. The audit log, which is the product, stays on.
    command.env("DURWARD_LOG", "warn");
    let process = spawn(&mut command, folder, name, admin)?;
    wait(listen, name)?;
    let token = matches!(controls, Controls::All | Controls::Strict).then(|| token(&key)).transpose()?;
    Ok(Target { name, address: listen, token, metrics: Some(admin), is_gateway: true, process })
}

/// Makes room for a gateway. What an earlier run left is deleted behind the measurement: on ext4 whoever makes files within
/// five minutes of that pays for it, and the log does.
fn put_aside(folder: &Path, own: &Path) -> Result<()> {
    if own.exists() {
        let aside = folder.join(ASIDE);
        fs::create_dir_all(&aside)?;
        let place = (0..10_000_u32).map(|number| aside.join(number.to_string())).find(|place| !place.exists());
        fs::rename(own, place.context("no room to put an earlier run aside")?)?;
    }
    Ok(())
}

/// Deletes what was put aside.
pub(crate) fn clear(folder: &Path) -> Result<()> {
    let aside = folder.join(ASIDE);
    if aside.exists() { Ok(fs::remove_dir_all(aside)?) } else { Ok(()) }
}

/// Where a gateway has its configuration and data.
pub(crate) fn folder_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(name.replace(' ', "-"))
}

/// What it prints.
fn log_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{}.log", name.replace(' ', "-")))
}

fn config(
    controls: Controls,
    listen: SocketAddr,
    admin: SocketAddr,
    json: SocketAddr,
    long: Option<SocketAddr>,
    more: &str,
) -> String {
    // A tool that nobody classified counts as state-changing, and waits for the disk: `--strict` measures that.
    let class = ", tools: { \"*\": { class: read } }";
    let long = long.map_or_else(String::new, |long| {
        format!("  long: {{ url: \"http://{long}/mcp\", internal: true, calls_in_flight: 4096{class} }}\n")
    });
    let across: String = ["legacy", "modern"]
        .map(|era| {
            format!(
                "  {era}: {{ url: \"http://{json}/mcp\", era: {era}, internal: true, calls_in_flight: 4096{class} }}\n"
            )
        })
        .concat();
    // Idle memory is measured before one server.
    let across = if long.is_empty() { String::new() } else { across };
    let shared = format!(
        "listen: {listen}\nadmin: {{ listen: \"{admin}\" }}\nworkers: 1\npolicies: [policy.json]\nagents: {{ bench: {{}} }}\n\
         servers:\n  json: {{ url: \"http://{json}/mcp\", internal: true, calls_in_flight: 4096{class} }}\n  \
         events: {{ url: \"http://{json}/events\", internal: true, calls_in_flight: 4096{class} }}\n{long}{across}"
    );
    let own = match controls {
        Controls::Bare => {
            "danger_allow_anonymous: bench\ndetect: { secrets: { results: off, arguments: off } }\n".to_owned()
        }
        Controls::Soak => format!("{more}danger_allow_anonymous: bench\n"),
        Controls::All | Controls::Strict => format!(
            "issuers:\n  - {{ url: \"{ISSUER}\", audience: \"{AUDIENCE}\", jwks: {{ file: jwks.json }}, agent: \"claim:azp\", user: \"claim:sub\" }}\n\
             limits:\n  - {{ for: {{ agent: \"*\" }}, rate: 1000000/s }}\n  - {{ for: {{ tool: \"*/*\" }}, rate: 1000000/s }}\n\
             detect: {{ secrets: {{ results: mask, arguments: refuse }} }}\nlog: {{ durability: {} }}\n",
            if controls == Controls::Strict { "strict" } else { "by-risk" }
        ),
    };
    // Limits on sessions are not what is measured.
    let idle =
        if controls == Controls::Soak { format!(", session_idle: {}s", SESSION_IDLE.as_secs()) } else { String::new() };
    format!("{shared}{own}bounds: {{ sessions_per_principal: 100000{idle} }}\n")
}

/// A rule for the bench, among as many others as the target should carry.
fn policy(controls: Controls) -> String {
    let mut rules = vec![json!({"action": "*", "target": "*/*", "effect": "allow"})];
    if matches!(controls, Controls::All | Controls::Strict) {
        rules.extend((1..100).map(|index| {
            let effect = if index % 10 == 0 { "deny" } else { "allow" };
            json!({"action": "tool.execute", "target": format!("server-{index}/tool_{index}_*"), "effect": effect})
        }));
    }
    json!({"policy": "bench", "rules": rules}).to_string()
}

#[expect(clippy::disallowed_methods, reason = "a token is issued now")]
fn token(key: &SigningKey) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(key.token(&json!({
        "iss": ISSUER, "aud": AUDIENCE, "azp": "bench", "sub": "ada", "iat": now, "nbf": now - 5, "exp": now + 86_400,
    })))
}

fn own() -> Result<PathBuf> {
    std::env::current_exe().context("where this program is")
}

#[expect(clippy::disallowed_methods, reason = "a measurement starts what it measures")]
pub(crate) fn program(path: &Path) -> Command {
    Command::new(path)
}

/// What a program that ends well prints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let said = command.stdin(Stdio::null()).output().context("a program does not start")?;
    if !said.status.success() {
        bail!("{} says: {}", command.get_program().display(), String::from_utf8_lossy(&said.stderr));
    }
    Ok(String::from_utf8(said.stdout)?)
}

fn spawn(command: &mut Command, folder: &Path, name: &str, listen: SocketAddr) -> Result<Process> {
    let log = File::create(log_of(folder, name))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().with_context(|| format!("{name} does not start"))?;
    let process = Process { child };
    wait(listen, name).with_context(|| format!("see {}", folder.display()))?;
    Ok(process)
}

#[expect(clippy::disallowed_methods, reason = "a measurement asks its own children whether they listen")]
fn wait(address: SocketAddr, name: &str) -> Result<()> {
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        if begun.elapsed() > Duration::from_secs(20) {
            bail!("{name} does not listen on {address}");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Eras in the order in which they are measured.
pub(crate) const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];
