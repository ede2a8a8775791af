//! The folder of the demo: a configuration and a policy as anybody would write them, and the data directory.
//!
//! Nothing is written outside it. It is made anew each time; a folder that no demo made is left alone.

use anyhow::{Context, Result, bail};
use std::{
    fs::{self, DirBuilder, File},
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The first line of the configuration: what tells a folder of the demo from any other.
const MARK: &str = "# Written by `durward demo`, which makes this folder anew each time: copy what you want to keep.";
/// Where agents connect, and where metrics are, if nobody else is there.
const USUAL: [&str; 2] = ["127.0.0.1:7420", "127.0.0.1:7421"];

/// The policy of the demo.
const POLICY: &str = r#"# What agents with the role `support` may do. Deny beats allow; what no rule allows is refused.
policy: demo
rules:
  - { id: customers, roles: [support], action: tool.execute, target: "customers/*", effect: allow }
  - { id: read-files, roles: [support], action: tool.execute, target: "files/read_file", effect: allow }
  - { id: list-files, roles: [support], action: tool.execute, target: "files/list_files", effect: allow }
  # Always denied, so agents do not even see it.
  - { id: no-sql, action: tool.execute, target: "*/run_sql", effect: deny }
  # Denied for some arguments, so agents see it and are told why.
  - id: keep-real-customers
    action: tool.execute
    target: customers/delete_customer
    effect: deny
    when: "!has(args.id) || args.id < 9000"
    reason: only test customers, from 9000 on, may be deleted
"#;

/// The folder.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    passing: bool,
}

impl Folder {
    /// A folder that stays when the demo ends.
    pub(super) fn at(path: &Path) -> Result<Self> {
        clear(path)?;
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self { path: fs::canonicalize(path)?, passing: false })
    }

    /// A folder that goes when the demo ends.
    pub(super) fn passing() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("durward-demo-{}", std::process::id()));
        // SECURITY: fails where the name exists, so nobody can have laid out a folder or link for us.
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, passing: true })
    }

    /// Keeps the folder, for somebody to look at.
    pub(super) const fn keep(&mut self) {
        self.passing = false;
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.path.join("durward.yaml")
    }

    /// Where a copy of the log goes that is about to be changed.
    pub(super) fn copy(&self) -> PathBuf {
        self.path.join("log-changed")
    }

    /// Writes configuration and policy, with addresses that are free now. `web` is where the server over HTTP listens,
    /// `program` what the one on stdio is started from.
    pub(super) fn write(&self, web: SocketAddr, program: &Path) -> Result<()> {
        let program = program.to_str().context("the path of this program is no text")?;
        let [listen, admin] = USUAL.map(free);
        let text = configuration(listen?, admin?, web, program);
        fs::write(self.configuration(), text)?;
        let policies = self.path.join("policies");
        fs::create_dir(&policies)?;
        fs::write(policies.join("demo.yaml"), POLICY)?;
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.passing
            && let Err(fault) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(folder = %self.path.display(), %fault, "the folder of the demo stays behind");
        }
    }
}

/// Removes what an earlier demo left. Touches nothing else.
fn clear(path: &Path) -> Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries.count(),
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(cause).with_context(|| format!("cannot look into {}", path.display())),
    };
    let shown = path.display();
    let configuration = fs::read_to_string(path.join("durward.yaml")).unwrap_or_default();
    if entries == 0 {
        return Ok(());
    }
    if !configuration.starts_with(MARK) {
        bail!("{shown} holds something that no demo wrote: name another folder with --data");
    }
    if let Ok(lock) = File::open(path.join("data/lock"))
        && rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
    {
        bail!("a demo runs in {shown}: stop it, or name another folder with --data");
    }
    fs::remove_dir_all(path).with_context(|| format!("cannot clear {shown}"))
}

/// Lets one demo after the other look for free addresses, so that two that begin at once do not find the same. The lock
/// is on the program itself: nothing is written for it. Where there is none to be had, one of the two says so and ends.
pub(super) fn turn(program: &Path) -> Option<File> {
    let program = File::open(program).ok()?;
    rustix::fs::flock(&program, rustix::fs::FlockOperation::LockExclusive).ok()?;
    Some(program)
}

/// The usual address, or a free one if somebody is there already.
fn free(usual: &str) -> Result<SocketAddr> {
    let listener = TcpListener::bind(usual).or_else(|_| TcpListener::bind("127.0.0.1:0"));
    Ok(listener.context("no free port on the loopback")?.local_addr()?)
}

/// Whether the gateway got the address that it usually has.
pub(super) fn is_usual(listen: SocketAddr) -> bool {
    USUAL.first().is_some_and(|usual| listen.to_string() == *usual)
}

fn configuration(listen: SocketAddr, admin: SocketAddr, web: SocketAddr, program: &str) -> String {
    let program = serde_json::Value::from(program);
    format!(
        r#"{MARK}
listen: {listen}
admin: {{ listen: {admin} }}
data: data
workers: 2
servers:
  customers:
    url: http://{web}/mcp
    internal: true # private addresses are dialled only where marked
    credential: {{ bearer: customers-token }} # a name in the vault; agents never see the value
    tools:
      "find_*": {{ class: read }}
      "show_*": {{ class: read }}
      "delete_*": {{ class: destructive }}
  files:
    command: [{program}, demo-server] # a process that the gateway starts and stops
    tools:
      "list_*": {{ class: read }}
      "read_*": {{ class: read }}
agents:
  assistant: {{ roles: [support] }}
policies: [policies/*.yaml]
limits:
  - {{ for: {{ agent: "*", tool: "customers/export_*" }}, rate: 2/min, burst: 2 }}
detect: {{ secrets: {{ results: mask, arguments: refuse }} }}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn write(folder: &Folder) {
        folder.write("127.0.0.1:9".parse().unwrap(), Path::new("/usr/bin/durward")).unwrap();
    }

    #[test]
    fn the_configuration_is_one_that_anybody_could_have_written() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::at(&home.path().join("demo")).unwrap();
        write(&folder);
        let loaded = config::load(&folder.configuration()).unwrap_or_else(|report| panic!("{report}"));
        let report = loaded.report.to_string();
        assert!(report.ends_with("durward.yaml is good"), "not even a warning: {report}");
        assert_eq!(loaded.settings.servers.len(), 2);
        assert!(loaded.settings.data.starts_with(&folder.path));
    }

    #[test]
    fn only_what_a_demo_wrote_is_cleared() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("demo");
        let folder = Folder::at(&path).unwrap();
        write(&folder);
        fs::write(path.join("old"), "").unwrap();
        assert!(Folder::at(&path).is_ok());
        assert!(!path.join("old").exists());

        fs::write(path.join("mine"), "").unwrap();
        assert!(Folder::at(&path).is_err());
        assert!(path.join("mine").exists());
    }

    #[test]
    fn a_running_demo_is_not_cleared_away() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("demo");
        let folder = Folder::at(&path).unwrap();
        write(&folder);
        fs::create_dir(path.join("data")).unwrap();
        let lock = File::create(path.join("data/lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(Folder::at(&path).is_err());
        assert!(folder.configuration().exists());
    }

    #[test]
    fn a_passing_folder_goes_with_its_owner() {
        let folder = Folder::passing().unwrap();
        let path = folder.path.clone();
        fs::write(path.join("file"), "").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
