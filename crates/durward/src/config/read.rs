//! The checked tree → [`Settings`], and everything that only several values together can say.
//!
//! What does not parse was reported by `shape` and is passed over here, so that one fault hides no other.

mod address;
mod issuer;
mod listener;
mod server;

use super::{
    fault::{Fault, Faults},
    quantity,
    settings::{
        Agent, Bounds, Detect, DetectMode, Durability, KeySource, Limit, Log, Otlp, Settings, Telemetry, VaultSettings,
    },
    shape,
    tree::{Node, Span, Value},
};
use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};
use url::Url;

/// Reads `root`. Relative paths are joined with `base`. The policies are left to `load`.
pub(super) fn read(root: &Node, base: &Path, faults: &mut Faults) -> Settings {
    let mut settings = Settings::empty(base.join("durward-data"));
    if let Some(data) = text(root, "data") {
        settings.data = base.join(data);
    }
    settings.workers = parsed::<usize>(root, "workers").and_then(NonZeroUsize::new);
    settings.bounds = bounds(root.get("bounds"), faults);
    listener::read(root, base, &mut settings, faults);
    for entry in root.get("servers").map(Node::entries).unwrap_or_default() {
        if let (Ok(name), Some(server)) = (entry.key.parse(), server::read(entry, base, &settings.bounds, faults)) {
            settings.servers.entry(name).or_insert(server);
        }
    }
    for entry in root.get("agents").map(Node::entries).unwrap_or_default() {
        if let Ok(name) = entry.key.parse() {
            settings.agents.entry(name).or_insert_with(|| agent(&entry.node));
        }
    }
    settings.issuers = issuer::read(root, base, settings.public_url.as_ref(), faults);
    settings.limits = limits(root, &settings, faults);
    settings.detect = detect(root, faults);
    if let Some(node) = root.get("log") {
        settings.log = log(node, faults);
    }
    settings.telemetry = Telemetry { otlp: otlp(root, faults) };
    settings.vault = vault(root, base, faults);
    anonymous(root, &mut settings, faults);
    environments(root, &settings, faults);
    if !faults.stop() {
        emptiness(root, &settings, faults);
    }
    settings
}

fn agent(node: &Node) -> Agent {
    Agent {
        roles: names(node, "roles"),
        environments: names(node, "environments"),
        groups: texts(node, "groups"),
        disabled: switch(node, "disabled"),
    }
}

fn log(node: &Node, faults: &mut Faults) -> Log {
    let usual = Log::default();
    if let Some(entry) = node.entry("text_per_day").filter(|_| node.get("keep_text").is_none()) {
        faults.push(
            Fault::at(&entry.span, "`text_per_day` has no use here")
                .because("no texts are kept")
                .fix("say how long they are: `keep_text: 30d`, or remove it")
                .warning(),
        );
    }
    Log {
        durability: if text(node, "durability") == Some("strict") { Durability::Strict } else { usual.durability },
        keep_text: duration(node, "keep_text"),
        text_per_day: text(node, "text_per_day")
            .and_then(|size| quantity::size(size).ok())
            .unwrap_or(usual.text_per_day),
    }
}

fn otlp(root: &Node, faults: &mut Faults) -> Option<Otlp> {
    let otlp = at(root, &["telemetry", "otlp"])?;
    let endpoint = url(otlp, "endpoint")?;
    // A collector is inside, as a rule: plain HTTP and private addresses are allowed.
    faults.found.extend(otlp.get("endpoint").and_then(|node| address::judge(node, &endpoint, true, "collector")));
    Some(Otlp { endpoint })
}

fn limits(root: &Node, settings: &Settings, faults: &mut Faults) -> Vec<Limit> {
    let mut limits = Vec::new();
    for node in root.get("limits").map(Node::each).unwrap_or_default() {
        let whom = node.get("for");
        if let Some(whom) = whom
            && whom.entries().is_empty()
        {
            faults.push(
                Fault::at(&whom.span, "this limit counts nothing")
                    .because("nothing is named")
                    .fix("name what has a bucket of its own: `for: { agent: \"*\" }` limits each agent"),
            );
        }
        let glob = |key| whom.and_then(|whom| text(whom, key)).map(str::to_owned);
        if let Some(whom) = whom {
            reaches_nothing(whom, settings, faults);
        }
        let Some(rate) = text(node, "rate").and_then(|rate| quantity::rate(rate).ok()) else { continue };
        limits.push(Limit {
            agent: glob("agent"),
            tool: glob("tool"),
            server: glob("server"),
            tenant: glob("tenant"),
            rate,
            burst: parsed(node, "burst").unwrap_or(rate.count),
            concurrency: parsed(node, "concurrency"),
        });
    }
    limits
}

/// Warns about a limit whose plain names (globs may wait for what comes) name nothing that exists.
fn reaches_nothing(whom: &Node, settings: &Settings, faults: &mut Faults) {
    let plain = |text: &str| !text.contains(['*', '?', '[', '{']);
    let mut warn = |node: &Node, kind: &str, name: &str, known: Vec<&str>| {
        if plain(name) && !known.contains(&name) {
            faults.push(not_there(&node.span, kind, name, known.into_iter()).warning());
        }
    };
    if let Some((node, name)) = whom.get("agent").and_then(|node| Some((node, node.text()?)))
        && settings.issuers.is_empty()
    {
        warn(node, "agent", name, settings.agents.keys().map(AsRef::as_ref).collect());
    }
    for key in ["server", "tool"] {
        if let Some((node, text)) = whom.get(key).and_then(|node| Some((node, node.text()?))) {
            let server = text.split('/').next().unwrap_or_default();
            warn(node, "server", server, settings.servers.keys().map(AsRef::as_ref).collect());
        }
    }
}

fn detect(root: &Node, faults: &mut Faults) -> Detect {
    let mut detect = Settings::empty(PathBuf::new()).detect;
    let mode = |key| match at(root, &["detect", "secrets", key])?.text()? {
        "off" => Some(DetectMode::Off),
        "report" => Some(DetectMode::Report),
        "mask" => Some(DetectMode::Mask),
        "refuse" => Some(DetectMode::Refuse),
        _ => None,
    };
    if let Some(results) = mode("results") {
        detect.secrets.results = results;
    }
    if let Some(arguments) = mode("arguments") {
        detect.secrets.arguments = arguments;
    }
    for (key, whence) in [("results", "what servers send"), ("arguments", "what agents send")] {
        if let Some(node) = at(root, &["detect", "secrets", key]).filter(|node| node.text() == Some("off")) {
            faults.push(
                Fault::at(&node.span, format!("nobody looks for secrets in {whence}"))
                    .because("the detector is off")
                    .warning(),
            );
        }
    }
    detect
}

fn bounds(node: Option<&Node>, faults: &mut Faults) -> Bounds {
    let stated = Bounds::default();
    let Some(node) = node else { return stated };
    let bytes = |key| text(node, key).and_then(|text| quantity::size(text).ok()).and_then(|size| size.try_into().ok());
    let children = parsed(node, "children").unwrap_or(stated.children);
    if let Some(at) = node.get("children_per_principal")
        && parsed::<usize>(node, "children_per_principal").is_some_and(|own| own > children)
    {
        faults.push(
            Fault::at(&at.span, "one principal may have more processes than there may be")
                .because(format!("`children` is {children}"))
                .fix(format!("write at most {children}, or fewer, so that something is left for others"))
                .warning(),
        );
    }
    Bounds {
        body: bytes("body").unwrap_or(stated.body),
        answer: bytes("answer").unwrap_or(stated.answer),
        depth: parsed(node, "depth").unwrap_or(stated.depth),
        deadline: duration(node, "deadline").unwrap_or(stated.deadline),
        stream_idle: duration(node, "stream_idle").unwrap_or(stated.stream_idle),
        sessions_per_principal: parsed(node, "sessions_per_principal").unwrap_or(stated.sessions_per_principal),
        session_idle: duration(node, "session_idle").unwrap_or(stated.session_idle),
        connections: parsed(node, "connections").unwrap_or(stated.connections),
        children,
        // Whatever one takes, as much is left for others.
        children_per_principal: parsed(node, "children_per_principal").unwrap_or(children.div_ceil(2)),
    }
}

fn vault(root: &Node, base: &Path, faults: &mut Faults) -> VaultSettings {
    let Some(node) = at(root, &["vault", "key"]) else { return VaultSettings { key: KeySource::Data } };
    one_of(node, &["file", "env", "command"], "the master key has one place", faults);
    let key = if let Some(file) = text(node, "file") {
        KeySource::File(base.join(file))
    } else if let Some(variable) = text(node, "env") {
        KeySource::Env(variable.to_owned())
    } else if node.get("command").is_some() {
        KeySource::Command(texts(node, "command"))
    } else {
        KeySource::Data
    };
    VaultSettings { key }
}

fn anonymous(root: &Node, settings: &mut Settings, faults: &mut Faults) {
    let Some(node) = root.get("danger_allow_anonymous") else { return };
    let Some(name) = node.text() else { return };
    settings.danger_allow_anonymous = name.parse().ok();
    if settings.agents.contains_key(name) {
        faults.push(
            Fault::at(&node.span, "calls without a credential are allowed")
                .because(format!("they are taken for the agent `{name}`"))
                .warning(),
        );
    } else if settings.danger_allow_anonymous.is_some() {
        faults.push(not_there(&node.span, "agent", name, settings.agents.keys().map(AsRef::as_ref)));
    }
}

/// Warns about an agent bound to an environment that no server belongs to.
fn environments(root: &Node, settings: &Settings, faults: &mut Faults) {
    let known: Vec<&str> =
        settings.servers.values().filter_map(|server| server.environment.as_ref()).map(AsRef::as_ref).collect();
    for agent in root.get("agents").map(Node::entries).unwrap_or_default() {
        for node in agent.node.get("environments").map(Node::each).unwrap_or_default() {
            if let Some(name) = node.text()
                && !known.contains(&name)
            {
                faults.push(
                    not_there(&node.span, "environment", name, known.iter().copied())
                        .because("no server belongs to it")
                        .warning(),
                );
            }
        }
    }
}

/// Warns about what makes a gateway useless.
fn emptiness(root: &Node, settings: &Settings, faults: &mut Faults) {
    if root.get("servers").is_none() {
        faults.push(
            Fault::anywhere("no server is configured")
                .fix("add one: `servers: { wiki: { url: https://wiki.example.com/mcp } }`")
                .warning(),
        );
    } else if settings.agents.is_empty() && root.get("agents").is_none() {
        faults.push(
            Fault::anywhere("no agent is registered, so nobody can call")
                .fix("add one: `agents: { my-agent: {} }`, then `durward agent key create my-agent`")
                .warning(),
        );
    }
}

// Reading single values. Whatever does not parse was reported by `shape`.

/// The node at a path of keys.
fn at<'a>(node: &'a Node, path: &[&str]) -> Option<&'a Node> {
    path.iter().try_fold(node, |node, key| node.get(key))
}

fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.get(key)?.text()
}

fn texts(node: &Node, key: &str) -> Vec<String> {
    node.get(key).map(Node::each).unwrap_or_default().iter().filter_map(Node::text).map(str::to_owned).collect()
}

fn names<N: FromStr>(node: &Node, key: &str) -> Vec<N> {
    let members = node.get(key).map(Node::each).unwrap_or_default();
    members.iter().filter_map(|member| member.text()?.parse().ok()).collect()
}

fn parsed<T: FromStr>(node: &Node, key: &str) -> Option<T> {
    text(node, key)?.parse().ok()
}

fn switch(node: &Node, key: &str) -> bool {
    node.get(key).is_some_and(|node| node.value == Value::Scalar { text: "true".to_owned(), quoted: false })
}

fn duration(node: &Node, key: &str) -> Option<Duration> {
    quantity::duration(text(node, key)?).ok().filter(|duration| !duration.is_zero())
}

fn url(node: &Node, key: &str) -> Option<Url> {
    shape::url(text(node, key)?).ok()
}

/// Reports unless exactly one of `keys` is in `node`. Returns whether it is.
fn one_of(node: &Node, keys: &[&str], why: &str, faults: &mut Faults) -> bool {
    let given: Vec<_> = node.entries().iter().filter(|entry| keys.contains(&entry.key.as_str())).collect();
    let choice = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    match given.as_slice() {
        [_] => true,
        [] => {
            if matches!(node.value, Value::Table(_) | Value::Null) {
                faults.push(Fault::at(&node.span, why).because("none is given").fix(format!("write one of {choice}")));
            }
            false
        }
        [_, second, ..] => {
            // The same key twice was reported as such.
            if given.iter().any(|entry| entry.key != second.key) {
                faults.push(
                    Fault::at(&second.span, why).because("this is one more").fix(format!("keep one of {choice}")),
                );
            }
            false
        }
    }
}

/// A name that names nothing.
fn not_there<'a>(span: &Span, kind: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Fault {
    let fault = Fault::at(span, format!("there is no {kind} {}", super::veil::quote(name)));
    match policy::nearest_name(name, known) {
        Some(near) => fault.because(format!("did you mean `{near}`?")).fix(format!("write `{near}`")),
        None => fault.fix(format!(
            "add it, or name {} {kind} of this file",
            if kind.starts_with(['a', 'e']) { "an" } else { "a" }
        )),
    }
}
