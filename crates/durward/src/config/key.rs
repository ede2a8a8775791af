//! Every key of the configuration: its name, what it holds, what it is for, what holds without it.
//!
//! The one table behind the check of the file, the suggestion for a misspelled key and the schema for editors.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where agents connect unless told otherwise.
pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
/// Its port.
pub(crate) const PORT: u16 = 7420;
/// Where management listens unless told otherwise.
pub(super) const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7421);

/// One key of a table.
#[derive(Debug)]
pub(super) struct Key {
    /// Its name.
    pub(super) name: &'static str,
    /// What it holds.
    pub(super) shape: Shape,
    /// What it is for.
    pub(super) about: &'static str,
    /// It must be there.
    pub(super) required: bool,
}

/// What a value must look like.
#[derive(Debug)]
pub(super) enum Shape {
    /// `true` or `false`.
    Switch,
    /// A whole number within bounds.
    Count(u64, u64),
    /// Bytes within bounds, `4MiB`.
    Size(u64, u64),
    /// `30s`
    Duration,
    /// `10/min`
    Rate,
    /// An address and a port.
    Address,
    /// The same, or `unix:PATH`.
    Listen,
    /// `https://…`; with `true` also `http://…`.
    Url,
    /// `10.0.0.0/8`
    Network,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A name that is checked.
    Word(Word),
    /// Any text that is not empty.
    Text,
    /// A value that is never shown.
    Hidden,
    /// `claim:path`
    Claim,
    /// `[a, b]`
    List(&'static Shape),
    /// `a` or `[a, b]`
    Some(&'static Shape),
    /// Either of the two, and never `[]`, of which the rest says what it would do and what to write.
    Filled(&'static Shape, &'static str, &'static str),
    /// Names that the operator chooses, each with a value.
    Map(Word, &'static Shape),
    /// These keys and no other.
    Table(&'static [Key]),
}

/// Names that are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Agent,
    Server,
    Role,
    Environment,
    Secret,
    /// The name of an HTTP header.
    Header,
    /// The name of an environment variable.
    Variable,
    /// A glob without a server, `get_*`.
    Glob,
    /// A glob over `server/name`.
    Target,
}

/// A key that may be left out.
const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, about, required: false }
}

/// A key that must be there.
const fn must(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, about, required: true }
}

/// The whole file.
pub(super) const ROOT: Shape = Shape::Table(&[
    key(
        "listen",
        Shape::Filled(&Shape::Some(&Shape::Listen), "nobody could connect", "name a place: `127.0.0.1:7420`"),
        "Where agents connect, one place or several. Default: 127.0.0.1:7420.",
    ),
    key(
        "socket_access",
        Shape::Choice(&["owner", "group", "everyone"]),
        "Who on this machine may connect to a socket of `listen` (mode 0600, 0660, 0666). Default: owner.",
    ),
    key(
        "public_url",
        Shape::Url,
        "What clients dial, where it differs from `listen`: the address of the proxy in front.",
    ),
    key("tls", Shape::Table(TLS), "TLS on the addresses of `listen`; sockets have none. Default: plain HTTP."),
    key("admin", Shape::Table(ADMIN), "Management, health and metrics."),
    key("data", Shape::Text, "The data directory: log, keys, secrets. Default: durward-data beside this file."),
    key("workers", Shape::Count(1, 1024), "Worker threads of the data plane. Default: one per core."),
    key("servers", Shape::Map(Word::Server, &Shape::Table(SERVER)), "Upstream MCP servers by name."),
    key("agents", Shape::Map(Word::Agent, &Shape::Table(AGENT)), "The registry of agents: no other may call."),
    key("issuers", Shape::List(&Shape::Table(ISSUER)), "Issuers whose tokens are accepted."),
    key("policies", Shape::Some(&Shape::Text), "Files of policy rules, as globs. Without a rule nothing is allowed."),
    key("limits", Shape::List(&Shape::Table(LIMIT)), "Limits of rate and concurrency. All that apply must have room."),
    key("detect", Shape::Table(DETECT), "What detectors do."),
    key("log", Shape::Table(LOG), "The log."),
    key("telemetry", Shape::Table(TELEMETRY), "Telemetry that leaves the machine. Off unless configured."),
    key("bounds", Shape::Table(BOUNDS), "Bounds of everything that could grow."),
    key("vault", Shape::Table(VAULT), "Secrets at rest."),
    key("trusted_proxies", Shape::List(&Shape::Network), "Proxies whose forwarding headers are believed."),
    key(
        "proxy_protocol",
        Shape::Switch,
        "Connections to the addresses of `listen` come from `trusted_proxies` and begin with a header of the PROXY protocol, version 1 or 2. Default: false.",
    ),
    key(
        "origins",
        Shape::List(&Shape::Text),
        "Origins that browsers may call from, beside loopback ones and that of `public_url`.",
    ),
    key(
        "hosts",
        Shape::List(&Shape::Text),
        "Host names that are served, beside loopback names and that of `public_url`.",
    ),
    key(
        "danger_allow_anonymous",
        Shape::Word(Word::Agent),
        "Take calls without a credential for this agent. For trials.",
    ),
    key("danger_plain_http", Shape::Switch, "Listen off loopback without TLS or a proxy that has it."),
]);

const ADMIN: &[Key] = &[key("listen", Shape::Address, "Where management listens. Default: 127.0.0.1:7421.")];

const TLS: &[Key] = &[
    must("certificate", Shape::Text, "A file in PEM: the gateway's own certificate, then those that vouch for it."),
    must("key", Shape::Text, "A file in PEM, of mode 0600, that holds its private key."),
];

/// A program and its arguments.
const COMMAND: Shape =
    Shape::Filled(&Shape::Some(&Shape::Text), "there is nothing to run", "name a program: `[npx, -y, some-server]`");

const SERVER: &[Key] = &[
    key("url", Shape::Url, "Its endpoint, for a server over HTTP. Either this or `command`."),
    key("command", COMMAND, "Program and arguments, for a server over stdin and stdout."),
    key("environment", Shape::Word(Word::Environment), "The environment it belongs to: dev, staging, prod."),
    key("internal", Shape::Switch, "Allow private and loopback addresses, and plain HTTP. Default: false."),
    key(
        "transport",
        Shape::Choice(&["auto", "sse"]),
        "HTTP with SSE of 2024-11-05: `sse`. Default: auto, which asks the server.",
    ),
    key("credential", Shape::Some(&Shape::Table(CREDENTIAL)), "Secrets its calls are given, by name. One or a list."),
    key("headers", Shape::List(&Shape::Word(Word::Header)), "Client headers that travel on to it. Default: none."),
    key(
        "tools",
        Shape::Map(Word::Glob, &Shape::Table(TOOL)),
        "What its tools do, by glob; the first that matches counts.",
    ),
    key("deadline", Shape::Duration, "The longest until an answer begins. Default: that of `bounds`."),
    key("calls_in_flight", Shape::Count(1, 1_000_000), "The most calls under way at one time. Default: 256."),
    key("era", Shape::Choice(&["auto", "legacy", "modern", "both"]), "Protocol revisions it speaks. Default: auto."),
    key("bridge", Shape::Switch, "Carry clients of an era that it does not speak over to it. Default: true."),
    key("ca", Shape::Text, "A file of trusted roots (PEM) instead of the system's."),
    key("socket", Shape::Text, "A Unix socket that is dialled in place of the host of `url`. Wants `internal: true`."),
    key(
        "http2",
        Shape::Switch,
        "Only HTTP/2, or only HTTP/1.1. Default: what the server chooses, with TLS; without it HTTP/1.1.",
    ),
    key("env", Shape::Map(Word::Variable, &Shape::Hidden), "Plain variables of a command's environment; no secrets."),
    key("directory", Shape::Text, "A command's working directory. Default: the folder of this file."),
    key("shared", Shape::Switch, "One process serves every caller, instead of one per session. Default: false."),
    key(
        "memory",
        Shape::Size(16 << 20, 1 << 40),
        "The most memory of a command's processes, of each and of all together (Linux). Default: 2GiB.",
    ),
];

const CREDENTIAL: &[Key] = &[
    key("bearer", Shape::Word(Word::Secret), "The secret goes into `Authorization: Bearer …`."),
    key("header", Shape::Word(Word::Header), "The header that the secret goes into."),
    key("query", Shape::Text, "The parameter of the query that the secret goes into."),
    key("env", Shape::Word(Word::Variable), "The variable of a command's environment that the secret goes into."),
    key("secret", Shape::Word(Word::Secret), "The secret's name in the vault, with `header`, `query` and `env`."),
];

const TOOL: &[Key] = &[
    key("class", Shape::Choice(CLASSES), "What it does. What the server says of that counts for nothing."),
    key("labels", Shape::List(&Shape::Text), "Labels that policies may ask for."),
    key("danger_skip_schema", Shape::Switch, "Do not check its arguments against its schema. Default: false."),
];

/// The printed forms of `vocab::Class`.
pub(super) const CLASSES: &[&str] = &["read", "write", "destructive", "unclassified"];

const AGENT: &[Key] = &[
    key("roles", Shape::List(&Shape::Word(Word::Role)), "Roles it has by itself; those of its token are added."),
    key(
        "environments",
        Shape::Filled(
            &Shape::List(&Shape::Word(Word::Environment)),
            "an agent without an environment could reach none, and one that is bound to none reaches all",
            "remove the key for any, name those it may reach, or write `disabled: true`",
        ),
        "Environments it may reach. Default: any.",
    ),
    key("groups", Shape::List(&Shape::Text), "Groups it is in."),
    key("disabled", Shape::Switch, "Refuse its calls. Default: false."),
];

const ISSUER: &[Key] = &[
    must("url", Shape::Url, "The `iss` of its tokens."),
    must(
        "audience",
        Shape::Filled(
            &Shape::Some(&Shape::Text),
            "an issuer without an audience would open the gateway to every token it ever signed",
            "name the gateway's own address, usually its `public_url`",
        ),
        "The `aud` its tokens must carry: usually the `public_url`.",
    ),
    must("agent", Shape::Claim, "The claim that names the agent: claim:azp."),
    key("user", Shape::Claim, "The claim that names the user: claim:sub."),
    key("roles", Shape::Claim, "The claim that lists roles: claim:groups, claim:realm_access.roles."),
    key("groups", Shape::Claim, "The claim that lists groups."),
    key("scopes", Shape::Claim, "The claim that lists scopes. Default: claim:scope."),
    key("jwks", Shape::Table(JWKS), "Where its keys are. Default: OpenID Connect discovery at `url`."),
    key(
        "algorithms",
        Shape::Filled(
            &Shape::List(&Shape::Choice(ALGORITHMS)),
            "no algorithm is accepted",
            "remove the key, or name one: `[ES256]`",
        ),
        "Accepted algorithms. Default: RS256, PS256, ES256, ES384, EdDSA.",
    ),
    key(
        "type",
        Shape::Filled(
            &Shape::Some(&Shape::Text),
            "no type of token is accepted",
            "remove the key for the usual ones, or name one: `at+jwt`",
        ),
        "Accepted `typ` headers of its tokens. Default: at+jwt, JWT.",
    ),
    key("leeway", Shape::Duration, "Tolerated difference of clocks, at most 5m. Default: 30s."),
    key("internal", Shape::Switch, "Its keys may come from a private address and over plain HTTP. Default: false."),
];

const JWKS: &[Key] =
    &[key("url", Shape::Url, "The address of its key set."), key("file", Shape::Text, "A file with its key set.")];

/// Accepted names of algorithms: no symmetric one, and never `none`.
pub(super) const ALGORITHMS: &[&str] =
    &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

const LIMIT: &[Key] = &[
    must("for", Shape::Table(FOR), "What it counts: each distinct match of the named globs has a bucket of its own."),
    must("rate", Shape::Rate, "The lasting rate: 10/min."),
    key("burst", Shape::Count(1, 4_000_000_000), "Calls that may come at once. Default: the count of `rate`."),
    key("concurrency", Shape::Count(1, 1_000_000), "Calls that may be under way at one time. Default: no bound."),
];

const FOR: &[Key] = &[
    key("agent", Shape::Word(Word::Glob), "Agents, as a glob."),
    key("tool", Shape::Word(Word::Target), "Tools, resources and prompts, as a glob over server/name."),
    key("server", Shape::Word(Word::Glob), "Servers, as a glob."),
    key("tenant", Shape::Word(Word::Glob), "Tenants, as a glob."),
];

const DETECT: &[Key] = &[key("secrets", Shape::Table(DETECT_SECRETS), "Keys, tokens and passwords.")];

const DETECT_SECRETS: &[Key] = &[
    key("results", Shape::Choice(&["off", "report", "mask"]), "In what servers send. Default: mask."),
    key("arguments", Shape::Choice(&["off", "report", "mask", "refuse"]), "In what agents send. Default: report."),
];

const LOG: &[Key] = &[
    key(
        "durability",
        Shape::Choice(&["by-risk", "strict"]),
        "Calls wait until their intent is on disk: those that change state, or every one. Default: by-risk.",
    ),
    key(
        "keep_text",
        Shape::Duration,
        "Texts of arguments and results are kept for so long, sealed: 30d. Default: none are kept.",
    ),
    key(
        "text_per_day",
        Shape::Size(1 << 20, 1 << 40),
        "Kept texts of one day on disk; what comes after them is not kept. Default: 1GiB.",
    ),
];

const TELEMETRY: &[Key] = &[key("otlp", Shape::Table(OTLP), "OpenTelemetry over HTTP.")];

const OTLP: &[Key] = &[must("endpoint", Shape::Url, "The collector's base address: http://127.0.0.1:4318.")];

const BOUNDS: &[Key] = &[
    key("body", Shape::Size(1 << 10, 1 << 30), "One request body. Default: 4MiB."),
    key("answer", Shape::Size(1 << 10, 1 << 30), "One answer, or one event of a stream. Default: 16MiB."),
    key("depth", Shape::Count(4, 128), "Depth of JSON. Default: 64."),
    key("deadline", Shape::Duration, "The longest until an answer begins. Default: 60s."),
    key("stream_idle", Shape::Duration, "The longest silence of a stream. Default: 5m."),
    key("sessions_per_principal", Shape::Count(1, 1_000_000), "Sessions of one principal. Default: 64."),
    key("session_idle", Shape::Duration, "The longest a session is kept without a message. Default: 30m."),
    key("connections", Shape::Count(1, 10_000_000), "Open client connections. Default: 16384."),
    key("children", Shape::Count(1, 100_000), "Child processes at one time. Default: 64."),
    key("children_per_principal", Shape::Count(1, 100_000), "Those of one principal. Default: half of `children`."),
];

const VAULT: &[Key] = &[key("key", Shape::Table(MASTER), "Where the master key is. Default: a file in `data`.")];

const MASTER: &[Key] = &[
    key("file", Shape::Text, "A file of mode 0600 that holds it."),
    key("env", Shape::Word(Word::Variable), "The environment variable that holds it."),
    key("command", COMMAND, "Program and arguments that print it."),
];
