//! The keyring of the system: the Secret Service of a desktop (GNOME Keyring, `KWallet`), through `secret-tool` of
//! libsecret.
//!
//! The only place of this command that starts a program. A key passes through its pipes, never through an argument,
//! and is kept for one gateway: no other is given it.

use super::credential::LONGEST;
use anyhow::{Context, Result, bail, ensure};
use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};
use vocab::{AgentId, Secret};

/// The program.
const TOOL: &str = "secret-tool";
/// How long it may take: a person may have to open the keyring.
const PATIENCE: Duration = Duration::from_mins(1);
/// How much of what it complains of is shown, in bytes.
const SHOWN: u64 = 500;
/// What else there is.
const OTHERWISE: &str = "the key can also come from the variable DURWARD_KEY, or from a file with --key-file";

/// One place in the keyring.
pub(super) struct Keyring {
    gateway: String,
    name: AgentId,
}

/// What the program said.
struct Answer {
    status: ExitStatus,
    said: Secret<String>,
    complaint: String,
}

impl Keyring {
    /// The place of the key for a gateway.
    pub(super) fn new(gateway: String, name: &AgentId) -> Self {
        Self { gateway, name: name.clone() }
    }

    /// What lies there.
    pub(super) async fn read(&self) -> Result<Secret<String>> {
        let Answer { status, said, complaint } = self.ask(&["lookup"], None).await?;
        if status.success() {
            return Ok(said);
        }
        Self::succeeded(status, &complaint)?;
        bail!("{}; `durward connect --keyring --save` puts one there, and {OTHERWISE}", self.nothing());
    }

    /// Puts a key there, in place of the one before.
    pub(super) async fn keep(&self, key: &Secret<String>) -> Result<()> {
        let label = format!("--label=Durward: {} ({})", self.gateway, self.name);
        let Answer { status, complaint, .. } = self.ask(&["store", &label], Some(key)).await?;
        Self::succeeded(status, &complaint)?;
        ensure!(status.success(), "the keyring did not take the key: {TOOL} ended with {status}; {OTHERWISE}");
        Ok(())
    }

    /// Takes it out.
    pub(super) async fn forget(&self) -> Result<()> {
        let Answer { status, complaint, .. } = self.ask(&["clear"], None).await?;
        Self::succeeded(status, &complaint)?;
        ensure!(status.success(), "{}", self.nothing());
        Ok(())
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> String {
        format!("the key for {} (named {})", self.gateway, self.name)
    }

    fn nothing(&self) -> String {
        format!("the keyring holds nothing as {}, or it is locked and nobody opened it", self.place())
    }

    /// The program says nothing where there is nothing; where it says something, the keyring could not be asked.
    fn succeeded(status: ExitStatus, complaint: &str) -> Result<()> {
        ensure!(
            status.success() || complaint.is_empty(),
            "the keyring cannot be asked ({TOOL}: {complaint}); it wants a session with a Secret Service, such as GNOME \
             Keyring or KWallet; {OTHERWISE}"
        );
        Ok(())
    }

    async fn ask(&self, words: &[&str], key: Option<&Secret<String>>) -> Result<Answer> {
        #[expect(clippy::disallowed_methods, reason = "the room in which the keyring of the system is asked")]
        let mut command = Command::new(TOOL);
        command.args(words).args(["service", "durward", "gateway", &self.gateway, "name", self.name.as_str()]);
        // The pipes of this program are the client's.
        let input = if key.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let talking = async {
            let mut child = command.spawn()?;
            if let Some((key, mut input)) = key.zip(child.stdin.take()) {
                // One that does not read says why by itself.
                let _ = input.write_all(key.expose().as_bytes()).await;
            }
            let (said, complaint) = (child.stdout.take(), child.stderr.take());
            let (said, complaint) = tokio::try_join!(text(said, LONGEST + 1), text(complaint, SHOWN))?;
            let status = child.wait().await?;
            Ok::<_, io::Error>(Answer { status, said: Secret::new(said), complaint: shown(&complaint) })
        };
        match timeout(PATIENCE, talking).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(cause)) if cause.kind() == io::ErrorKind::NotFound => bail!(
                "this system has no `{TOOL}`, which asks its keyring; it comes with libsecret (Debian, Ubuntu: `apt \
                 install libsecret-tools`, Fedora: `dnf install libsecret`); {OTHERWISE}"
            ),
            Ok(Err(cause)) => Err(cause).with_context(|| format!("cannot run {TOOL}; {OTHERWISE}")),
            Err(_) => bail!("the keyring was not opened within {} s; {OTHERWISE}", PATIENCE.as_secs()),
        }
    }
}

/// What is said there, no more than `most`. What comes beyond it is read, so that nobody waits for a reader.
async fn text(from: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<String> {
    let Some(mut from) = from else { return Ok(String::new()) };
    let mut read = Vec::new();
    (&mut from).take(most).read_to_end(&mut read).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&read).into_owned())
}

/// A complaint as one line.
fn shown(complaint: &str) -> String {
    let own = concat!("secret-tool", ": ");
    let lines = complaint.lines().map(|line| line.trim().trim_start_matches(own)).filter(|line| !line.is_empty());
    let line = lines.collect::<Vec<_>>().join("; ");
    line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
