//! Brings a configuration from its file into [`Settings`] and compiled policies, or says everything that is wrong.
//!
//! Reads files and nothing else: the result is the same however often it runs.

mod case;
mod fit;
mod named;
mod pattern;
mod unknown;

pub(crate) use case::{in_cases, look_at_cases};
pub(crate) use named::Named;
pub(crate) use pattern::{Look, Part, cases, looks};
pub(crate) use unknown::in_rules;

use super::{
    fault::{Fault, Faults, Report, Text},
    key::ROOT,
    read::read,
    settings::{Issuer, PolicyFiles, Settings},
    shape,
    tree::{self, Node, Span},
    veil,
};
use crate::{assemble::chain, certificate};
use named::{Kind, Place};
use policy::{Policies, PolicyFault, PolicyWarning, Source};
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The file that is read when none is named.
pub(crate) const USUAL_FILE: &str = "durward.yaml";

/// Where things are kept, beside the file, unless it says otherwise.
const USUAL_DATA: &str = "durward-data";

/// The largest file that is read.
const LARGEST: u64 = 16 << 20;

/// A configuration without an error.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What it says.
    pub(crate) settings: Settings,
    /// The compiled policies.
    pub(crate) policies: Policies,
    /// Warnings; no errors.
    pub(crate) report: Report,
}

/// The file to read: the one that was named, or the usual one where it exists.
pub(crate) fn find(named: Option<&Path>) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(|| Some(PathBuf::from(USUAL_FILE)).filter(|usual| usual.exists()))
}

/// What holds without a file, with `data` as the data directory.
pub(crate) fn without_file(data: PathBuf) -> Result<Loaded, Report> {
    let faults = Faults::default();
    finish(faults, Settings::empty(data), &[], Text::new("the built-in configuration", ""))
}

/// The data directory that the file at `path` names, whatever is wrong with the rest of it; otherwise the usual one.
pub(crate) fn data_of(path: &Path) -> PathBuf {
    let source = contents(path).unwrap_or_default();
    let own = || tree::parse(source.lines().find(|line| line.starts_with("data:"))?).ok();
    let root = tree::parse(&source).ok().or_else(own);
    let data = root.as_ref().and_then(|root| root.get("data")).and_then(Node::text);
    base_of(path).join(data.unwrap_or(USUAL_DATA))
}

/// The port on which the configuration at `path` listens first, whatever else is wrong with it; `None` where it names none.
pub(crate) fn port_of(path: &Path) -> Option<u16> {
    let source = contents(path).ok()?;
    let own = || tree::parse(source.lines().find(|line| line.starts_with("listen:"))?).ok();
    let root = tree::parse(&source).ok().or_else(own)?;
    let port = |place: &Node| place.text()?.parse::<SocketAddr>().ok().map(|address| address.port());
    root.get("listen")?.each().iter().find_map(port)
}

/// Where relative paths of the file at `path` begin.
fn base_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// What a configuration is read for.
#[derive(Clone, Copy)]
enum Turn<'a> {
    /// To start with it.
    First,
    /// For a gateway that runs, which has a certificate and the keys of these issuers to go on with.
    Again(&'a [Issuer]),
    /// For a command that serves nobody.
    Aside,
}

/// Reads the file at `path`, and the policies it names.
pub(crate) fn load(path: &Path) -> Result<Loaded, Report> {
    load_at(path, Turn::First)
}

/// The same for a gateway that runs with these issuers. A certificate that is unfit is none of the reasons not to take the
/// rest, nor are keys where there are those of before.
pub(crate) fn load_again(path: &Path, issuers: &[Issuer]) -> Result<Loaded, Report> {
    load_at(path, Turn::Again(issuers))
}

/// The same for a command that serves nobody, and needs neither certificate nor keys.
pub(crate) fn load_aside(path: &Path) -> Result<Loaded, Report> {
    load_at(path, Turn::Aside)
}

fn load_at(path: &Path, turn: Turn<'_>) -> Result<Loaded, Report> {
    let shown = path.display().to_string();
    let source = match contents(path) {
        Ok(source) => source,
        Err(cause) => {
            let mut faults = Faults::default();
            let fault = Fault::anywhere(format!("cannot read {shown}")).because(cause.to_string());
            faults.push(match cause.kind() {
                io::ErrorKind::NotFound => fault.fix("`durward init` writes one to start from"),
                _ => fault,
            });
            return Err(faults.report(Text::new(&shown, "")));
        }
    };
    parse_at(&shown, &source, base_of(path), turn)
}

/// Reads `source`, which stands in the file `shown`; relative paths in it begin at `base`.
#[cfg(test)]
pub(super) fn parse(shown: &str, source: &str, base: &Path) -> Result<Loaded, Report> {
    parse_at(shown, source, base, Turn::First)
}

fn parse_at(shown: &str, source: &str, base: &Path, turn: Turn<'_>) -> Result<Loaded, Report> {
    let mut faults = Faults::default();
    let root = match tree::parse(source) {
        Ok(root) => root,
        Err(syntax) => {
            faults.veiled = veil::suspicious_lines(source);
            faults.push(Fault::at(&syntax.span, syntax.what).fix(syntax.fix));
            return Err(faults.report(Text::new(shown, source)));
        }
    };
    shape::check(&root, &ROOT, "", &mut faults);
    let mut settings = read(&root, base, &mut faults);
    settings.files = named::files(&root, base);
    files(&root, &settings, base, turn, &mut faults);
    let sources = policies(&root, base, &mut settings, &mut faults);
    finish(faults, settings, &sources, Text::new(shown, source))
}

/// Compiles the policies and ends.
fn finish(mut faults: Faults, settings: Settings, sources: &[Source], text: Text) -> Result<Loaded, Report> {
    let shown: Vec<Shown<'_>> = sources.iter().map(Shown::of).collect();
    let policies = match Policies::compile(sources) {
        Ok(policies) => {
            for warning in policies.warnings().iter().chain(&in_rules(&policies, &settings)) {
                faults.push(policy_warning(warning, &shown));
            }
            Some(policies)
        }
        Err(found) => {
            for fault in &found {
                faults.push(policy_fault(fault, &shown));
            }
            None
        }
    };
    let stop = faults.stop();
    let report = faults.report(text);
    match policies {
        Some(policies) if !stop => Ok(Loaded { settings, policies, report }),
        Some(_) | None => Err(report),
    }
}

/// Finds and reads the policies.
fn policies(root: &Node, base: &Path, settings: &mut Settings, faults: &mut Faults) -> Vec<Source> {
    let mut files = Vec::new();
    let mut patterns = Vec::new();
    for (node, pattern) in named::patterns(root) {
        patterns.push(pattern.to_owned());
        match pattern::expand(base, pattern) {
            Ok(found) if found.is_empty() => {
                let base = base.display();
                faults.push(Fault::at(&node.span, "no policy matches this").because("no such file").fix(format!(
                    "paths begin at the folder of this file, {base}; `*.test.json` and `*.test.yaml` are test cases"
                )));
            }
            Ok(found) => files.extend(found),
            Err(why) => faults
                .push(Fault::at(&node.span, "this is no pattern of files").because(why.to_string()).fix(why.fix())),
        }
    }
    files.sort();
    files.dedup();
    if root.get("policies").is_none() && root.get("servers").is_some() && !faults.stop() {
        faults.push(
            Fault::anywhere("no policy is configured, so every call is refused")
                .fix("add `policies: [policies/*.json]` and a rule; docs/policies.md shows how")
                .warning(),
        );
    }
    let mut sources = Vec::new();
    for file in &files {
        let name = file.display().to_string();
        match contents(file) {
            Ok(text) => sources.push(Source { name, text }),
            Err(cause) => faults.push(unreadable(&name, &cause)),
        }
    }
    settings.policies = PolicyFiles { base: base.to_owned(), patterns, files };
    sources
}

/// A file of policies or of their test cases that is there and cannot be read.
fn unreadable(name: &str, cause: &io::Error) -> Fault {
    Fault::anywhere(format!("cannot read {name}")).because(cause.to_string()).inside(Arc::new(Text::new(name, "")))
}

/// Reports files and folders that must be there and are not.
fn files(root: &Node, settings: &Settings, base: &Path, turn: Turn<'_>, faults: &mut Faults) {
    let weighed = |fault: Fault| match turn {
        Turn::First => fault,
        Turn::Again(_) | Turn::Aside => fault.warning(),
    };
    let kept = match turn {
        Turn::Again(issuers) => fit::kept_keys(root, settings, issuers),
        Turn::First | Turn::Aside => Vec::new(),
    };
    for Place { node, path, kind } in named::places(root, base) {
        // What is meant by a variable nobody knows.
        if node.text().is_some_and(|text| text.contains("${")) || fit::holds(&kept, node) {
            continue;
        }
        let (there, what) = match kind {
            Kind::Certificate | Kind::File => (path.is_file(), "this file does not exist"),
            Kind::Folder => (path.is_dir(), "this folder does not exist"),
        };
        if !there {
            let fix = format!("paths begin at the folder of this file: {}", path.display());
            let fault = Fault::at(&node.span, what).fix(fix);
            faults.push(if kind == Kind::Certificate { weighed(fault) } else { fault });
        }
    }
    let tls = root.get("tls");
    let (certificate, key) = (tls.and_then(|tls| tls.get("certificate")), tls.and_then(|tls| tls.get("key")));
    if let (Some(files), Some(certificate), Some(key)) = (&settings.tls, certificate, key)
        && files.certificate.is_file()
        && files.key.is_file()
        && let Err(unfit) = certificate::read(files)
    {
        let node = if unfit.is_of_key() { key } else { certificate };
        faults.push(weighed(Fault::at(&node.span, chain(&unfit)).fix(unfit.fix())));
    }
    fit::roots(root, base, faults);
    match turn {
        Turn::First | Turn::Again(_) => fit::key_sets(root, base, &kept, faults),
        Turn::Aside => {}
    }
    faults.found.extend(fit::master_key(root, settings).map(weighed));
    if settings.data.is_file()
        && let Some(node) = root.get("data")
    {
        faults.push(
            Fault::at(&node.span, "the data directory is a file")
                .fix("name a directory; it is made where it does not exist"),
        );
    }
}

/// A policy file, and how it may be shown: one text for all that is said of it, for that may be much.
struct Shown<'a> {
    source: &'a Source,
    text: Arc<Text>,
}

impl<'a> Shown<'a> {
    fn of(source: &'a Source) -> Self {
        Self { source, text: Arc::new(Text::new(&source.name, &veil::cover(&source.text, &[]))) }
    }
}

fn policy_fault(fault: &PolicyFault, shown: &[Shown<'_>]) -> Fault {
    policy_place(fault.what(), &fault.file, fault.place, shown).fix(fault.fix.as_str())
}

fn policy_warning(warning: &PolicyWarning, shown: &[Shown<'_>]) -> Fault {
    let what = format!("rule `{}`: {}", warning.rule, warning.text);
    policy_place(what, &warning.file, warning.place, shown).warning()
}

fn policy_place(what: String, file: &str, place: Option<policy::Place>, shown: &[Shown<'_>]) -> Fault {
    let shown = shown.iter().find(|shown| shown.source.name == file);
    match (shown, place) {
        (Some(shown), Some(place)) => {
            let span = token(&shown.source.text, place.line, place.column);
            Fault::at(&span, what).inside(Arc::clone(&shown.text))
        }
        (Some(shown), None) => Fault::anywhere(format!("{file}: {what}")).inside(Arc::clone(&shown.text)),
        (None, Some(place)) => Fault::anywhere(format!("{file}:{}:{}: {what}", place.line, place.column)),
        (None, None) => Fault::anywhere(format!("{file}: {what}")),
    }
}

/// The word at a line and column, both from 1.
fn token(source: &str, line: u64, column: u64) -> Span {
    let mut lines = source.split_inclusive('\n');
    let skip = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let start: usize = lines.by_ref().take(skip).map(str::len).sum();
    let text = lines.next().unwrap_or_default().trim_end();
    let column = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let at: usize = text.chars().take(column).map(char::len_utf8).sum();
    let rest = text.get(at..).unwrap_or_default();
    let length = match rest.strip_prefix('"').and_then(|inner| inner.find('"')) {
        Some(end) => end + 2,
        None => rest.find([',', ' ', '}', ']', ':']).unwrap_or(rest.len()),
    };
    start + at..start + at + length
}

/// The text of a file that is not larger than a file of ours ever is.
fn contents(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > LARGEST {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    fs::read_to_string(path)
}
