//! A gateway with servers behind it, each a real process, with their output in one folder.

use crate::{
    ports,
    process::{self, Running},
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    fmt::Write,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const ALLOW_ALL: &str = r#"{"policy":"all","rules":[{"action":"*","target":"*/*","effect":"allow"}]}"#;

/// Everything stops when it is dropped: the gateway first, then the servers.
pub(crate) struct World {
    running: Vec<Running>,
    folder: PathBuf,
    servers: String,
    agents: String,
    /// The member `tls` of the configuration, or nothing.
    tls: String,
}

impl World {
    /// An empty world whose files are in `target/proof/NAME`.
    pub(crate) fn new(root: &Path, name: &str) -> Result<Self> {
        let folder = root.join("target/proof").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(Self { running: Vec::new(), folder, servers: String::new(), agents: String::new(), tls: String::new() })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a server that listens on `address`, and puts it behind the gateway to come.
    pub(crate) fn http(
        &mut self,
        name: &str,
        address: SocketAddr,
        path: &str,
        command: &mut Command,
    ) -> Result<String> {
        let url = self.beside(name, address, path, command)?;
        self.behind(name, &url)?;
        Ok(url)
    }

    /// Puts what listens there behind the gateway to come.
    pub(crate) fn behind(&mut self, name: &str, url: &str) -> Result<()> {
        writeln!(self.servers, "  {name}: {{ url: \"{url}\", internal: true }}")?;
        Ok(())
    }

    /// Lets the gateway to come speak TLS, by a certificate that `durward tls init` put into `folder`.
    pub(crate) fn secure(&mut self, folder: &Path) {
        let [certificate, key] = ["certificate.pem", "certificate.key"].map(|name| folder.join(name));
        self.tls = format!("tls: {}\n", serde_json::json!({ "certificate": certificate, "key": key }));
    }

    /// Starts a server that listens on `address` over TLS, and puts it behind the gateway to come, which trusts `ca`.
    pub(crate) fn https(&mut self, name: &str, address: SocketAddr, command: &mut Command, ca: &Path) -> Result<()> {
        self.beside(name, address, "/mcp", command)?;
        let ca = serde_json::to_string(&ca.to_string_lossy())?;
        writeln!(self.servers, "  {name}: {{ url: \"https://{address}/mcp\", internal: true, ca: {ca} }}")?;
        Ok(())
    }

    /// Starts a program that listens on `address`, and that the gateway does not know.
    pub(crate) fn beside(
        &mut self,
        name: &str,
        address: SocketAddr,
        path: &str,
        command: &mut Command,
    ) -> Result<String> {
        let mut running = Running::start(command, &self.folder.join(format!("{name}.log")))?;
        ports::wait(&mut running, address, None).with_context(|| format!("program {name}"))?;
        self.running.push(running);
        Ok(format!("http://{address}{path}"))
    }

    /// Puts a server behind the gateway to come that the gateway itself starts.
    pub(crate) fn stdio(&mut self, name: &str, command: &[impl Serialize]) -> Result<()> {
        writeln!(self.servers, "  {name}: {{ command: {} }}", serde_json::to_string(command)?)?;
        Ok(())
    }

    /// Lets an agent in, beside the anonymous one, once the gateway is there.
    pub(crate) fn agent(&mut self, name: &str) -> Result<()> {
        writeln!(self.agents, "  {name}: {{}}")?;
        Ok(())
    }

    /// A key for an agent of the running gateway.
    pub(crate) fn key(&self, root: &Path, agent: &str) -> Result<String> {
        let mut command = process::program(built(root)?);
        command.args(["agent", "key", "create", agent, "--config", "durward.yaml", "--data", "data"]);
        command.stderr(Stdio::null());
        Ok(process::output(command.current_dir(&self.folder))?.trim().to_owned())
    }

    /// Starts the gateway with one rule that allows everything to an anonymous caller. Gives its address.
    pub(crate) fn gateway(&mut self, root: &Path) -> Result<SocketAddr> {
        let listen = ports::free()?;
        self.gateway_at(listen, root)?;
        Ok(listen)
    }

    /// The same at an address that was chosen before.
    pub(crate) fn gateway_at(&mut self, listen: SocketAddr, root: &Path) -> Result<()> {
        let admin = ports::free()?;
        fs::write(self.folder.join("policy.json"), ALLOW_ALL)?;
        let config = format!(
            "listen: {listen}\nadmin: {{ listen: {admin} }}\ndanger_allow_anonymous: trial\nagents:\n  trial: {{}}\n{}{}\
             policies: [policy.json]\nservers:\n{}",
            self.agents, self.tls, self.servers
        );
        fs::write(self.folder.join("durward.yaml"), config)?;
        let mut command = process::program(built(root)?);
        command.args(["up", "--config", "durward.yaml", "--data", "data"]).current_dir(&self.folder);
        let mut running = Running::start(&mut command, &self.folder.join("gateway.log"))?;
        ports::wait(&mut running, admin, Some("/readyz")).with_context(|| {
            let log = fs::read_to_string(self.folder.join("gateway.log")).unwrap_or_default();
            format!("the gateway, which said:\n{log}")
        })?;
        self.running.insert(0, running);
        Ok(())
    }
}

/// The gateway, up to date, in the profile in which it was built last; the one for debugging where none was built.
pub(crate) fn built(root: &Path) -> Result<PathBuf> {
    let [debug, release] = ["debug/durward", "release/durward"].map(|binary| target(root).join(binary));
    let age = |binary: &Path| fs::metadata(binary).and_then(|about| about.modified()).ok();
    let mut build = process::cargo(root);
    build.args(["build", "--quiet", "--package", "durward", "--bins"]);
    if age(&release) > age(&debug) {
        process::succeed(build.arg("--release"))?;
        return Ok(release);
    }
    process::succeed(&mut build)?;
    Ok(debug)
}

/// Where cargo puts what it builds.
#[expect(clippy::disallowed_methods, reason = "cargo takes the folder of its output from the environment")]
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}
