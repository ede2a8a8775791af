//! `durward audit`: reads the log where it lies, beside a gateway that writes it or without one.

mod lost;
mod text;

use super::{office::Site, print};
use crate::{
    cli::{AuditCommand, Exit, Filter, Outcome, Output, Shared},
    directory,
};
use ::audit::{Checkpoint, Entry, Order, ProveFault, Query, Reader, Tree, Which};
use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use vocab::{CallId, Day, TenantId, Timestamp};

/// How often the end of the log is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// A record is signed a second after its call at the latest: so often a missing one is looked for.
const LOOKS: usize = 8;
/// Records of one step of a search.
const SCAN: u64 = 100_000;

pub(crate) async fn run(shared: &Shared, command: &AuditCommand) -> Result<Exit> {
    let output = shared.output;
    if let AuditCommand::Verify { proof: Some(proof), key, .. } = command {
        return verify_proof(shared, proof, key.as_deref());
    }
    if let AuditCommand::Verify { log, key, checkpoint, proof: None } = command {
        return verify(shared, log.as_deref(), key.as_deref(), checkpoint.as_deref());
    }
    if let AuditCommand::Erase { day, before } = command {
        return text::erase(shared, *day, *before).await;
    }
    let site = Site::find(shared)?;
    let data = site.data.clone();
    let log = existing(directory::log_path(&data))?;
    if let Some(broken) = lost::broken(&log, &data, &read_by(command)).await? {
        print::say(&format!("durward: the log does not hold: {broken}"));
        return Ok(Exit::Broken);
    }
    match command {
        AuditCommand::Tail { lines, follow, system } => tail(output, &log, &tree(*system), *lines, *follow).await?,
        AuditCommand::Search { filter, limit, after, system } => {
            if let Some(target) = filter.target.as_deref().filter(|target| target.contains(['*', '?'])) {
                print::say(&format!("durward: --target takes no globs: `{target}` is looked for as it is written"));
            }
            let found = search(output, &log, &tree(*system), filter, *limit, *after)?;
            // As `show` does: whoever has an id need not know in which tree its record is.
            if !found && !system && after.is_none() && filter.call.is_some() {
                search(output, &log, &tree(true), filter, *limit, None)?;
            }
        }
        AuditCommand::Show { call } => return show(output, &log, *call, &site).await,
        AuditCommand::Prove { call } => return prove(&log, *call).await,
        AuditCommand::Checkpoint => match Reader::open(&log, &tree(false))?.note() {
            Some(note) => print::data(note)?,
            None => bail!("nothing is signed yet"),
        },
        AuditCommand::Key => print::data(&read(&directory::public_key_path(&data))?)?,
        AuditCommand::Verify { .. } | AuditCommand::Erase { .. } => {}
    }
    Ok(Exit::Done)
}

fn tree(system: bool) -> Tree {
    if system { Tree::System } else { Tree::Tenant(TenantId::default_tenant()) }
}

/// The trees that a command reads.
fn read_by(command: &AuditCommand) -> Vec<Tree> {
    match command {
        AuditCommand::Tail { system, .. } | AuditCommand::Search { system, .. } => vec![tree(*system)],
        AuditCommand::Show { .. } | AuditCommand::Prove { .. } => vec![tree(false), tree(true)],
        AuditCommand::Checkpoint => vec![tree(false)],
        AuditCommand::Key | AuditCommand::Verify { .. } | AuditCommand::Erase { .. } => Vec::new(),
    }
}

async fn tail(output: Output, log: &Path, tree: &Tree, lines: usize, follow: bool) -> Result<()> {
    let reader = Reader::open(log, tree)?;
    let mut next = reader.size();
    let query = query(Order::Newest, ::audit::Filter::default(), lines, None);
    let mut newest = reader.page(&query)?.entries;
    newest.reverse();
    entries(output, &newest)?;
    if !follow {
        return Ok(());
    }
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let reader = Reader::open(log, tree)?;
        if reader.size() < next {
            bail!("records that were there are gone; `audit verify` says more");
        }
        while next < reader.size() {
            let page = reader.page(&query_from(next))?;
            entries(output, &page.entries)?;
            next = page.next.unwrap_or_else(|| reader.size());
        }
    }
}

fn query(order: Order, filter: ::audit::Filter, limit: usize, from: Option<u64>) -> Query {
    Query { filter, order, from, limit, scan: SCAN }
}

fn query_from(next: u64) -> Query {
    query(Order::Oldest, ::audit::Filter::default(), 1000, Some(next))
}

/// Prints what fits. Whether there was anything.
fn search(output: Output, log: &Path, tree: &Tree, filter: &Filter, limit: usize, after: Option<u64>) -> Result<bool> {
    let reader = Reader::open(log, tree)?;
    let wanted = wanted(filter);
    // Newest first: what comes after a record is older.
    let mut from = match after.map(|after| after.checked_sub(1)) {
        Some(None) => return Ok(false),
        Some(from) => from,
        None => None,
    };
    let (mut left, mut last) = (limit, None);
    loop {
        let page = reader.page(&query(Order::Newest, wanted.clone(), left, from))?;
        entries(output, &page.entries)?;
        left = left.saturating_sub(page.entries.len());
        last = page.entries.last().map(|entry| entry.index).or(last);
        match (page.next, last) {
            (Some(next), _) if left > 0 => from = Some(next),
            (Some(_), Some(last)) => {
                print::say(&format!("the newest {limit}; --after {last} goes on from there"));
                return Ok(true);
            }
            (Some(_), None) | (None, _) => return Ok(last.is_some()),
        }
    }
}

fn wanted(filter: &Filter) -> ::audit::Filter {
    let (server, target) = match filter.target.as_deref().map(|target| target.split_once('/')) {
        None => (None, None),
        Some(None) => (filter.target.clone(), None),
        Some(Some((server, target))) => (Some(server.to_owned()), Some(target.to_owned())),
    };
    ::audit::Filter {
        agent: filter.agent.as_ref().map(ToString::to_string),
        user: filter.user.as_ref().map(ToString::to_string),
        issuer: filter.issuer.as_ref().map(ToString::to_string),
        server,
        target,
        outcome: filter.outcome.map(|outcome| word(outcome).to_owned()),
        call: filter.call,
        trace: filter.trace.clone(),
        since: filter.since,
        until: filter.until,
        ..::audit::Filter::default()
    }
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "answered",
        Outcome::Failed => "failed",
        Outcome::Refused => "refused",
        Outcome::Withheld => "withheld",
        Outcome::Faulted => "faulted",
        Outcome::Abandoned => "abandoned",
        Outcome::Unknown => "unknown",
    }
}

async fn show(output: Output, log: &Path, call: CallId, site: &Site) -> Result<Exit> {
    let mut found = Vec::new();
    // An intent alone is waited beyond, too: the closing comes soon, or the call is still under way.
    let is_closed = |found: &[Entry]| found.iter().any(|entry| print::text(&entry.value, "kind") != "intent");
    soon(|| {
        let own = Reader::open(log, &tree(false))?.find(&call)?;
        found = if own.is_empty() { Reader::open(log, &tree(true))?.find(&call)? } else { own };
        Ok(is_closed(&found).then_some(()))
    })
    .await?;
    if found.is_empty() {
        print::say(&format!("durward: no record of call {call} is signed"));
        return Ok(Exit::Failed);
    }
    match output {
        Output::Json => entries(output, &found)?,
        Output::Table => {
            for entry in &found {
                print::json(&readable(&entry.value))?;
            }
        }
    }
    // What never called has no texts, and where none were kept that day nobody needs to be asked.
    let called = found.iter().any(|entry| matches!(print::text(&entry.value, "kind").as_str(), "intent" | "call"));
    let at = found.first().and_then(|entry| entry.value.pointer("/record/at")).and_then(Value::as_i64);
    let day = Day::of(at.map(Timestamp::from_micros).unwrap_or_default());
    if !called || !text::are_kept(log, day) {
        return Ok(Exit::Done);
    }
    match text::show(output, site, call).await {
        Ok(exit) => Ok(exit),
        // The records are shown, and hold without them.
        Err(fault) => {
            print::say(&format!("durward: texts of that day are kept, but cannot be shown: {fault:#}"));
            Ok(Exit::Done)
        }
    }
}

/// The record with its time in words.
fn readable(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(at) = value.pointer_mut("/record/at")
        && let Some(micros) = at.as_i64()
    {
        *at = Value::String(Timestamp::from_micros(micros).to_string());
    }
    value
}

async fn prove(log: &Path, call: CallId) -> Result<Exit> {
    let proof = soon(|| {
        for tree in [tree(false), tree(true)] {
            match ::audit::prove(log, &tree, Which::Call(call)) {
                Ok(proof) => return Ok(Some(proof)),
                Err(ProveFault::Missing) => {}
                Err(fault @ (ProveFault::Read(_) | ProveFault::Disk(_))) => return Err(fault.into()),
            }
        }
        Ok(None)
    })
    .await?;
    let Some(proof) = proof else {
        print::say(&format!("durward: no record of call {call} is signed"));
        return Ok(Exit::Failed);
    };
    print::data(&proof)?;
    Ok(Exit::Done)
}

/// What was just done is signed within a second: it is looked for a few times.
async fn soon<T>(mut look: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let mut looks = tokio::time::interval(LOOK);
    for _ in 0..LOOKS {
        looks.tick().await;
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn verify(shared: &Shared, log: Option<&Path>, key: Option<&Path>, checkpoint: Option<&Path>) -> Result<Exit> {
    // With both given nothing else is needed: no configuration, no data directory.
    let data = if log.is_none() || key.is_none() { Some(Site::find(shared)?.data) } else { None };
    let own = |given: Option<&Path>, usual: fn(&Path) -> PathBuf| match (given, &data) {
        (Some(given), _) => given.to_owned(),
        (None, Some(data)) => usual(data),
        (None, None) => PathBuf::new(),
    };
    // Beside a log that lies somewhere else nobody kept anything.
    let anchor = data.as_deref().filter(|_| log.is_none()).map(directory::newest_path);
    let log = existing(own(log, directory::log_path))?;
    let public = public_key_in(&own(key, directory::public_key_path))?;
    let against = checkpoint
        .map(|file| {
            let note = read(file)?;
            Checkpoint::open(&note, &public).with_context(|| format!("{} cannot be used", file.display()))
        })
        .transpose()?;
    match ::audit::verify(&log, &public, against.as_ref(), anchor.as_deref()) {
        Ok(verified) => {
            let trees: Vec<Value> = verified
                .trees
                .iter()
                .map(|tree| {
                    json!({
                        "tree": tree.tree.to_string(),
                        "origin": tree.origin,
                        "records": tree.size,
                        "root": BASE64.encode(tree.root),
                        "unsigned": tree.unsigned,
                        "open": tree.open.len(),
                    })
                })
                .collect();
            let records = verified.records();
            let body = json!({ "holds": true, "records": records, "anchored": verified.anchored, "trees": trees });
            let header = ["tree", "records", "unsigned", "open"];
            print::list(shared.output, &body, "trees", header, |tree| header.map(|member| print::text(tree, member)))?;
            if shared.output == Output::Table {
                print::data(&format!("the log holds: {records} records, each as it was written"))?;
                if !verified.anchored && against.is_none() {
                    let what =
                        "nothing says how long it was: neither `log.newest` beside it, nor a checkpoint kept elsewhere";
                    print::data(what)?;
                }
            }
            Ok(Exit::Done)
        }
        Err(broken) => {
            match shared.output {
                Output::Json => print::json(&json!({
                    "holds": false,
                    "tree": broken.tree,
                    "record": broken.index,
                    "what": format!("{:?}", broken.what).to_lowercase(),
                    "why": broken.explanation,
                }))?,
                Output::Table => print::data(&print::safe(&format!("the log does not hold: {broken}")))?,
            }
            Ok(Exit::Broken)
        }
    }
}

/// Checks one proof with the public key alone.
fn verify_proof(shared: &Shared, proof: &Path, key: Option<&Path>) -> Result<Exit> {
    let key =
        key.map_or_else(|| Ok(directory::public_key_path(&Site::find(shared)?.data)), |key| anyhow::Ok(key.to_owned()));
    let public = public_key_in(&key?)?;
    match (::audit::verify_proof(&read(proof)?, None, &public), shared.output) {
        (Ok(proven), Output::Json) => {
            let record: Value = serde_json::from_slice(&proven.leaf).context("what was proven is no record")?;
            let (origin, records) = (proven.checkpoint.origin(), proven.checkpoint.size());
            print::json(&json!({ "holds": true, "origin": origin, "records": records, "record": record }))?;
        }
        (Ok(proven), Output::Table) => {
            let record: Value = serde_json::from_slice(&proven.leaf).context("what was proven is no record")?;
            print::json(&readable(&record))?;
            let (origin, records) = (proven.checkpoint.origin(), proven.checkpoint.size());
            print::data(&format!(
                "the proof holds: this is record {} of the {records} that `{origin}` signed",
                proven.index
            ))?;
        }
        (Err(fault), output) => {
            match output {
                Output::Json => print::json(&json!({ "holds": false, "why": fault.to_string() }))?,
                Output::Table => print::data(&format!("the proof does not hold: {fault}"))?,
            }
            return Ok(Exit::Broken);
        }
    }
    Ok(Exit::Done)
}

fn public_key_in(file: &Path) -> Result<[u8; 32]> {
    public_key(&read(file)?).with_context(|| format!("{} is not the key of a log", file.display()))
}

/// The key as `name+id+base64`.
fn public_key(text: &str) -> Result<[u8; 32]> {
    let text = text.trim();
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(_), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
        bail!("write it as `name+id+base64`");
    };
    let bytes = BASE64.decode(encoded).context("its last part is not base64")?;
    let public: [u8; 32] = match bytes.split_first() {
        Some((1, key)) => key.try_into().map_err(|_| anyhow!("an Ed25519 key has 32 bytes"))?,
        Some(_) | None => bail!("it is not an Ed25519 key"),
    };
    if ::audit::verifier_key(name, &public) != text {
        bail!("its id is not that of its key");
    }
    Ok(public)
}

/// One record a line.
fn entries(output: Output, entries: &[Entry]) -> Result<()> {
    let mut text = String::new();
    for entry in entries {
        match output {
            Output::Json => text.push_str(&print::escaped(&String::from_utf8_lossy(&entry.leaf))),
            Output::Table => text.push_str(&line(entry)),
        }
        text.push('\n');
    }
    if text.is_empty() { Ok(()) } else { print::data(&text) }
}

/// `TIME  CALL  KIND  WHO  WHAT  OUTCOME`
fn line(entry: &Entry) -> String {
    let kind = print::text(&entry.value, "kind");
    let record = entry.value.get("record").unwrap_or(&Value::Null);
    let member = |name: &str| record.get(name).and_then(Value::as_str);
    let at = record.get("at").and_then(Value::as_i64).map(|at| Timestamp::from_micros(at).to_string());
    let who = member("agent").or_else(|| member("actor")).unwrap_or("-");
    let what = match (member("server"), member("target")) {
        (Some(server), Some(target)) => format!("{server}/{target}"),
        (Some(server), None) => format!("{server} {}", member("method").unwrap_or_default()),
        (None, target) => {
            let what = member("action").or_else(|| member("event")).or_else(|| member("method")).unwrap_or("-");
            target.map_or_else(|| what.to_owned(), |target| format!("{what} {target}"))
        }
    };
    // What happened to the gateway itself has neither server nor target: its words say to whom.
    let what = match member("detail").filter(|_| kind == "system").and_then(|detail| detail.lines().next()) {
        Some(detail) => format!("{what} {detail}"),
        None => what,
    };
    let outcome = record.pointer("/outcome/is").and_then(Value::as_str).unwrap_or("-");
    let why = [record.pointer("/outcome/stage"), record.pointer("/outcome/reason")];
    let why: Vec<&str> = why.into_iter().flatten().filter_map(Value::as_str).collect();
    let rules = record.get("rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rules: Vec<&str> = rules.iter().filter_map(Value::as_str).collect();
    let mut end = if kind == "intent" { "intent".to_owned() } else { outcome.to_owned() };
    if !why.is_empty() {
        end = format!("{end} ({})", why.join(": "));
    }
    if !rules.is_empty() {
        end = format!("{end} by {}", rules.join(", "));
    }
    let (at, call) = (at.unwrap_or_default(), member("call").unwrap_or("-"));
    format!("{at:<27}  {call:<32}  {:<16}  {:<32}  {}", print::safe(who), print::safe(&what), print::safe(&end))
}

fn existing(log: PathBuf) -> Result<PathBuf> {
    if log.is_dir() { Ok(log) } else { bail!("there is no log at {}", log.display()) }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_printed() {
        let key = ::audit::verifier_key("durward/default", &[7; 32]);
        assert_eq!(public_key(&format!("{key}\n")).expect("a key"), [7; 32]);
        let other = key.replacen("durward", "another", 1);
        for bad in ["", "a+b", "durward/default+00000000+AQ==", &other] {
            assert!(public_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_line_says_who_did_what_and_why_not() {
        let value = json!({ "kind": "call", "record": {
            "at": 1_795_000_000_123_456_i64, "agent": "ci", "call": "4bf92f3577b34da6a3ce929d0e0e4736", "server": "files",
            "target": "era\u{1b}[2Jse", "outcome": { "is": "refused", "stage": "authorize", "reason": "denied" },
            "rules": ["nobody-deletes"],
        }});
        let line = line(&Entry { index: 0, leaf: Vec::new(), value });
        assert!(line.starts_with("2026-11-18T11:06:40.123456Z  4bf92f3577b34da6a3ce929d0e0e4736  ci "), "{line}");
        assert!(line.ends_with("refused (authorize: denied) by nobody-deletes"), "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }

    #[test]
    fn a_line_of_the_gateway_itself_says_whom_it_is_about() {
        let detail = "files: the server cannot be reached\nmore";
        let value = json!({ "kind": "system", "record": { "at": 1, "event": "upstream-down", "detail": detail } });
        let line = line(&Entry { index: 0, leaf: Vec::new(), value });
        assert!(line.contains("  upstream-down files: the server cannot be reached  "), "{line}");
        assert!(!line.contains("more"), "{line}");
    }
}
