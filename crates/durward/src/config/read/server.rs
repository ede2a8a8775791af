//! One upstream server: how it is reached, what it is given, what its tools do.

use super::{
    super::{
        fault::{Fault, Faults},
        quantity,
        settings::{Bounds, Credential, EraChoice, Hidden, Place, Reach, Server, ToolRule},
        tree::{Entry, Node},
        veil,
    },
    address, duration, names, one_of, parsed, switch, text, texts, url,
};
use std::path::Path;
use url::Url;
use vocab::Class;

/// Keys that only a server over HTTP has.
const HTTP_ONLY: [&str; 6] = ["internal", "ca", "headers", "http2", "socket", "transport"];
/// Keys that only a command has.
const COMMAND_ONLY: [&str; 4] = ["env", "directory", "shared", "memory"];
/// The most memory of a command's processes where nothing else is said. It can be bounded on Linux alone.
const MEMORY: Option<u64> = if cfg!(target_os = "linux") { Some(2 << 30) } else { None };
/// Client headers that are never handed on, whatever the file says.
const NEVER_HANDED_ON: [&str; 2] = ["authorization", "x-api-key"];

/// Reads one server; none if it cannot be told how it is reached.
pub(super) fn read(entry: &Entry, base: &Path, bounds: &Bounds, faults: &mut Faults) -> Option<Server> {
    let node = &entry.node;
    let why = format!("server `{}` needs either a URL or a command", entry.key);
    let placed = Node { span: entry.span.clone(), value: node.value.clone() };
    let alone = one_of(&placed, &["url", "command"], &why, faults);
    if alone {
        let (kind, foreign) = match node.entry("url") {
            Some(_) => ("over HTTP", COMMAND_ONLY.as_slice()),
            None => ("a command", HTTP_ONLY.as_slice()),
        };
        for entry in node.entries().iter().filter(|entry| foreign.contains(&entry.key.as_str())) {
            faults.push(
                Fault::at(&entry.span, format!("`{}` has no meaning for this server", entry.key))
                    .because(format!("the server is {kind}"))
                    .fix("remove it"),
            );
        }
    }
    let credentials = credentials(node, faults);
    let headers = headers(node, &credentials, faults);
    Some(Server {
        reach: reach(node, base, faults)?,
        environment: parsed(node, "environment"),
        credentials,
        headers,
        tools: tools(node, faults),
        deadline: duration(node, "deadline").unwrap_or(bounds.deadline),
        calls_in_flight: parsed(node, "calls_in_flight").unwrap_or(256),
        era: match text(node, "era") {
            Some("legacy") => EraChoice::Legacy,
            Some("modern") => EraChoice::Modern,
            Some("both") => EraChoice::Both,
            _ => EraChoice::Auto,
        },
        bridge: node.get("bridge").is_none() || switch(node, "bridge"),
    })
}

fn reach(node: &Node, base: &Path, faults: &mut Faults) -> Option<Reach> {
    if let Some(url) = url(node, "url") {
        let internal = switch(node, "internal");
        if let Some(at) = node.get("url") {
            faults.found.extend(address::judge(at, &url, internal, "server"));
            query(at, &url, faults);
        }
        if let Some(at) = node.get("socket").filter(|_| !internal) {
            faults.push(
                Fault::at(&at.span, "this is a socket of this machine")
                    .because("not reached unless marked")
                    .fix("if this server is your own, add `internal: true`"),
            );
        }
        let ca = text(node, "ca").map(|ca| base.join(ca));
        let socket = text(node, "socket").map(|socket| base.join(socket));
        let http2 = node.get("http2").is_some().then(|| switch(node, "http2"));
        let sse = text(node, "transport") == Some("sse");
        return Some(Reach::Http { url, internal, ca, http2, socket, sse });
    }
    let words = node.get("command").map(Node::each).unwrap_or_default();
    let secret = veil::secret_words(words.iter().map(|word| word.text().unwrap_or_default()));
    for (argument, is_secret) in words.iter().zip(secret) {
        if is_secret {
            faults.veiled.push(argument.span.clone());
            faults.push(
                Fault::at(&argument.span, "this argument looks like a secret")
                    .because("everyone on the machine can read it")
                    .fix("store it with `durward secret set NAME` and write `credential: { env: VARIABLE, secret: NAME }`")
                    .warning(),
            );
        }
    }
    let mut words = texts(node, "command").into_iter();
    Some(Reach::Command {
        program: words.next()?,
        arguments: words.collect(),
        directory: text(node, "directory").map_or_else(|| base.to_owned(), |directory| base.join(directory)),
        env: node
            .get("env")
            .map(Node::entries)
            .unwrap_or_default()
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), Hidden::new(entry.node.text()?.to_owned()))))
            .collect(),
        shared: switch(node, "shared"),
        memory: text(node, "memory").and_then(|memory| quantity::size(memory).ok()).or(MEMORY),
    })
}

/// Reports a secret that stands in the address.
fn query(node: &Node, url: &Url, faults: &mut Faults) {
    if let Some((name, _)) = url.query_pairs().find(|(name, value)| veil::tells(name) || veil::looks_secret(value)) {
        faults.veiled.push(node.span.clone());
        faults.push(Fault::at(&node.span, "this address carries a secret").because("it would stand in logs").fix(
            format!("write `credential: {{ query: {name}, secret: NAME }}` and store it: `durward secret set NAME`"),
        ));
    }
}

fn credentials(server: &Node, faults: &mut Faults) -> Vec<Credential> {
    let command = server.get("command").is_some() && server.get("url").is_none();
    let mut credentials: Vec<Credential> = Vec::new();
    for node in server.get("credential").map(Node::each).unwrap_or_default() {
        if node.text().is_some() {
            faults.veiled.push(node.span.clone());
            continue;
        }
        let why = "a credential goes to one place";
        if !one_of(node, &["bearer", "header", "query", "env"], why, faults) {
            continue;
        }
        if let Some(secret) = node.entry("secret").filter(|_| node.entry("bearer").is_some()) {
            faults.push(
                Fault::at(&secret.span, "`bearer` names the secret already")
                    .fix("remove `secret`, or write `header:` for another header"),
            );
        }
        if node.entry("bearer").is_none() && node.entry("secret").is_none() {
            faults.push(
                Fault::at(&node.span, "this credential does not say which secret")
                    .because("`secret` is missing")
                    .fix("add `secret: NAME`, a name of `durward secret list`"),
            );
        }
        if let Some(entry) = node.entries().iter().find(|entry| match entry.key.as_str() {
            "bearer" | "header" | "query" => command,
            "env" => !command && server.get("url").is_some(),
            _ => false,
        }) {
            let (what, fix) = if command {
                ("a command takes secrets from its environment", "write `{ env: VARIABLE, secret: NAME }`")
            } else {
                (
                    "a server over HTTP has no environment",
                    "write `{ bearer: NAME }` or `{ header: NAME, secret: NAME }`",
                )
            };
            faults.push(Fault::at(&entry.span, what).fix(fix));
        }
        let place = if node.get("bearer").is_some() {
            Place::Bearer
        } else if let Some(header) = text(node, "header") {
            Place::Header(header.to_ascii_lowercase())
        } else if let Some(parameter) = text(node, "query") {
            Place::Query(parameter.to_owned())
        } else if let Some(variable) = text(node, "env") {
            Place::Env(variable.to_owned())
        } else {
            continue;
        };
        let header = |place: &Place| match place {
            Place::Bearer => Some("authorization".to_owned()),
            Place::Header(name) => Some(name.clone()),
            Place::Query(_) | Place::Env(_) => None,
        };
        if credentials
            .iter()
            .any(|other| other.place == place || header(&place).is_some_and(|h| header(&other.place) == Some(h)))
        {
            faults.push(
                Fault::at(&node.span, "two credentials go to the same place")
                    .because("this is the second")
                    .fix("keep one"),
            );
        }
        let plain_variable = match &place {
            Place::Env(variable) => server.get("env").and_then(|env| env.entry(variable)),
            Place::Bearer | Place::Header(_) | Place::Query(_) => None,
        };
        if let Some(entry) = plain_variable {
            faults.push(
                Fault::at(&entry.span, "this variable is given a secret of the vault too")
                    .because("which of the two?")
                    .fix("remove it here"),
            );
        }
        if let Some(secret) = parsed(node, "bearer").or_else(|| parsed(node, "secret")) {
            credentials.push(Credential { secret, place });
        }
    }
    for entry in server.get("env").map(Node::entries).unwrap_or_default() {
        if entry.node.text().is_some_and(veil::looks_secret) {
            faults.push(
                Fault::at(&entry.node.span, format!("the value of `{}` looks like a secret", entry.key))
                    .because("secrets belong into the vault")
                    .fix(format!(
                        "write `credential: {{ env: {}, secret: NAME }}` and store it: `durward secret set NAME`",
                        entry.key
                    )),
            );
        }
    }
    credentials
}

fn headers(node: &Node, credentials: &[Credential], faults: &mut Faults) -> Vec<String> {
    let mut headers: Vec<String> = Vec::new();
    for member in node.get("headers").map(Node::each).unwrap_or_default() {
        let Some(name) = member.text().map(str::to_ascii_lowercase) else { continue };
        let given = credentials.iter().any(|credential| credential.place == Place::Header(name.clone()));
        if NEVER_HANDED_ON.contains(&name.as_str()) {
            faults.push(
                Fault::at(&member.span, "a client's credential never travels on")
                    .because("it was issued for the gateway")
                    .fix("give the server its own by `credential:`"),
            );
        } else if given {
            faults.push(
                Fault::at(&member.span, "this header carries the server's credential")
                    .because("a client could replace it")
                    .fix("remove it here"),
            );
        } else if headers.contains(&name) {
            faults.push(Fault::at(&member.span, "this header is named twice").fix("remove it").warning());
        } else {
            headers.push(name);
        }
    }
    headers
}

fn tools(node: &Node, faults: &mut Faults) -> Vec<ToolRule> {
    let mut tools: Vec<ToolRule> = Vec::new();
    for entry in node.get("tools").map(Node::entries).unwrap_or_default() {
        if tools.iter().any(|earlier| earlier.glob == "*") {
            faults.push(
                Fault::at(&entry.span, "this can never match")
                    .because("`*` above matches everything first")
                    .fix("move `*` to the end")
                    .warning(),
            );
        }
        if switch(&entry.node, "danger_skip_schema") {
            faults.push(
                Fault::at(&entry.span, "arguments of these tools are not checked")
                    .because("`danger_skip_schema` is set")
                    .warning(),
            );
        }
        tools.push(ToolRule {
            glob: entry.key.clone(),
            class: text(&entry.node, "class").and_then(class),
            labels: names(&entry.node, "labels"),
            danger_skip_schema: switch(&entry.node, "danger_skip_schema"),
        });
    }
    tools
}

fn class(text: &str) -> Option<Class> {
    [Class::Read, Class::Write, Class::Destructive, Class::Unclassified]
        .into_iter()
        .find(|class| class.as_str() == text)
}
