//! The tour: nine steps through real MCP calls, each judged by what came back and by what the log says.

use super::{
    check::{self, Shown},
    client::{Agent, Answer},
    folder::Folder,
    screen::Screen,
    server::{CUSTOMERS, FILES, LEFT_IN_FILE},
    web::Web,
};
use crate::{
    directory::{Directory, log_path},
    running::Running,
};
use anyhow::{Context, Result};
use audit::{Broken, Entry, Reader, Tree, Verified};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};
use vocab::{Digest, Secret};

/// What no rule allows, or one always denies.
const HIDDEN: [&str; 3] = ["customers__run_sql", "files__delete_file", "files__run_command"];
/// How many exports may come at once.
const BURST: usize = 2;

/// What the tour goes through.
pub(super) struct Tour<'a> {
    pub(super) screen: &'a Screen,
    pub(super) running: &'a Running,
    pub(super) folder: &'a Folder,
    pub(super) web: &'a Web,
    pub(super) token: &'a Secret<String>,
    pub(super) agent: Agent,
}

/// How far it came.
#[derive(Default)]
struct Score {
    steps: usize,
    failed: usize,
}

impl Tour<'_> {
    /// Plays it. Says whether every step did what it says.
    pub(super) async fn play(mut self) -> bool {
        let begun = Instant::now();
        let mut score = Score::default();
        let shown = self.list().await;
        self.show(&mut score, "An agent sees the tools it may use, and no others", shown);
        let shown = self.allowed().await;
        self.show(&mut score, "A call is allowed", shown);
        let (denied, shown) = split(self.denied().await);
        self.show(&mut score, "A call is denied, and the rule is named", shown);
        let shown = self.limited().await;
        self.show(&mut score, "A call is limited, with the time to wait", shown);
        let shown = self.masked().await;
        self.show(&mut score, "A secret in a result comes back masked", shown);
        let shown = self.injected().await;
        self.show(&mut score, "A credential reaches the server that the agent never sees", shown);
        let shown = self.unfit().await;
        self.show(&mut score, "Arguments that do not fit the tool are refused", shown);
        let shown = self.verified().await;
        self.show(&mut score, "The log is verified", shown);
        let shown = self.found_out(denied.as_deref());
        self.show(&mut score, "One byte of a copy is changed, and the verifier names the record", shown);

        let Score { steps, failed } = score;
        let (did, took) = (steps - failed, begun.elapsed().as_millis());
        let said = format!("{did} of {steps} steps did what they say, in {took} ms");
        self.screen.line(format!("\n  {}\n", self.screen.bold(&said)));
        failed == 0
    }

    fn show(&self, score: &mut Score, title: &str, shown: Shown) {
        score.steps += 1;
        let did = shown.is_ok();
        if !did {
            score.failed += 1;
        }
        let lines = shown.unwrap_or_else(|fault| vec![format!("{fault:#}")]);
        self.screen.step(score.steps, title, did, &lines);
    }

    async fn list(&mut self) -> Shown {
        let answer = self.agent.request("tools/list", json!({})).await?;
        let all = [&CUSTOMERS, &FILES]
            .into_iter()
            .flat_map(|server| server.tools.iter().map(|tool| format!("{}__{}", server.name, tool.name)));
        let (hidden, visible): (Vec<_>, Vec<_>) = all.partition(|name| HIDDEN.contains(&name.as_str()));
        check::listed(&answer, &visible, &hidden)
    }

    async fn allowed(&mut self) -> Shown {
        let (answer, asked) = self.call("customers__find_customer", json!({ "id": 7 })).await?;
        self.flush().await?;
        let entry = find(&self.log(), &self.running.directory, &answer.call)?;
        check::allowed(&answer, &asked, "Grace Hopper, New York", &entry.value, "customers")
    }

    /// The id of the denied call comes with it: the last step changes its record.
    async fn denied(&mut self) -> Result<(String, Vec<String>)> {
        let (answer, asked) = self.call("customers__delete_customer", json!({ "id": 7 })).await?;
        let forwarded = self.web.calls_of("delete_customer");
        let shown = check::denied(&answer, &asked, "keep-real-customers", forwarded)?;
        Ok((answer.call, shown))
    }

    async fn limited(&mut self) -> Shown {
        let mut answers = Vec::new();
        let mut asked = String::new();
        for _ in 0..=BURST {
            let (answer, text) = self.call("customers__export_customers", json!({})).await?;
            answers.push(answer);
            asked = text;
        }
        check::limited(&answers, &asked, BURST, self.web.calls_of("export_customers"))
    }

    async fn masked(&mut self) -> Shown {
        let (answer, asked) = self.call("files__read_file", json!({ "path": "settings.env" })).await?;
        let seen = LEFT_IN_FILE.into_iter().any(|secret| self.agent.has_seen(secret));
        check::masked(&answer, &asked, seen)
    }

    async fn injected(&mut self) -> Shown {
        let (answer, _) = self.call("customers__show_connection", json!({})).await?;
        let token = self.token.expose();
        check::injected(&answer, &Digest::of(token.as_bytes()), self.agent.has_seen(token))
    }

    async fn unfit(&mut self) -> Shown {
        let before = self.web.calls_of("find_customer");
        let (answer, asked) = self.call("customers__find_customer", json!({ "id": "seven" })).await?;
        check::unfit(&answer, &asked, "/id", self.web.calls_of("find_customer") > before)
    }

    async fn verified(&self) -> Shown {
        self.flush().await?;
        // Eight tool calls, one list, one introduction with its notification.
        check::verified(verify(&self.log(), &self.running.directory)?, 11)
    }

    fn found_out(&self, denied: Option<&str>) -> Shown {
        let denied = denied.context("there is no denied call whose record could be changed")?;
        let record = find(&self.log(), &self.running.directory, denied)?.index;
        let copy = self.folder.copy();
        copy_tree(&self.log(), &copy)?;
        misdate(&self.tree().path(&copy), denied)?;
        let what = format!("the denied call, record {record}, is dated three years off");
        check::found_out(verify(&copy, &self.running.directory)?, record, &what)
    }

    /// Calls a tool; also gives the call as people write it.
    async fn call(&mut self, tool: &str, arguments: Value) -> Result<(Answer, String)> {
        let asked = format!("{} {arguments}", tool.rsplit("__").next().unwrap_or(tool));
        Ok((self.agent.call(tool, arguments).await?, asked))
    }

    async fn flush(&self) -> Result<()> {
        Ok(self.running.state.journal.log().flush().await?)
    }

    fn log(&self) -> PathBuf {
        log_path(&self.running.directory.path)
    }

    fn tree(&self) -> Tree {
        Tree::Tenant(self.running.directory.tenant.clone())
    }
}

fn split(denied: Result<(String, Vec<String>)>) -> (Option<String>, Shown) {
    match denied {
        Ok((call, lines)) => (Some(call), Ok(lines)),
        Err(fault) => (None, Err(fault)),
    }
}

fn find(log: &Path, directory: &Directory, call: &str) -> Result<Entry> {
    let reader = Reader::open(log, &Tree::Tenant(directory.tenant.clone()))?;
    let mut entries = reader.find(&call.parse()?)?;
    entries.pop().with_context(|| format!("the log has no record of call {call}"))
}

/// What anybody can check who has the log and its public key.
fn verify(log: &Path, directory: &Directory) -> Result<Result<Verified, Broken>> {
    let public = directory.vault.audit_signer()?.public;
    Ok(audit::verify(log, &public, None, None))
}

/// Changes one digit of the time in the record of a call.
fn misdate(tree: &Path, call: &str) -> Result<()> {
    let mut found = None;
    each_file(&tree.join("tile/entries"), &mut |path| {
        let bytes = fs::read(path)?;
        if let Some(at) = digit(&bytes, call) {
            found = Some((path.to_owned(), bytes, at));
        }
        Ok(())
    })?;
    let (path, mut bytes, at) = found.with_context(|| format!("no record of call {call} in {}", tree.display()))?;
    if let Some(digit) = bytes.get_mut(at) {
        *digit = if *digit == b'0' { b'1' } else { *digit - 1 };
    }
    Ok(fs::write(path, bytes)?)
}

/// Where the second digit of the time is in the closing record of a call: 10^14 microseconds, three years and some.
fn digit(bytes: &[u8], call: &str) -> Option<usize> {
    const TIME: &[u8] = b"\"at\":";
    let named = bytes.windows(call.len()).rposition(|part| part == call.as_bytes())?;
    let before = bytes.get(..named)?.windows(TIME.len()).rposition(|part| part == TIME)?;
    Some(before + TIME.len() + 1)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    each_file(from, &mut |path| {
        let target = to.join(path.strip_prefix(from)?);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(path, &target)?;
        Ok(())
    })
}

fn each_file(folder: &Path, act: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot look into {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            each_file(&entry.path(), act)?;
        } else {
            act(&entry.path())?;
        }
    }
    Ok(())
}
