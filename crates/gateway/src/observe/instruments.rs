//! Every metric there is. `docs/observability.md` and the dashboard are checked against this list.

use super::meter::{Instrument, Kind};

/// Bounds of whole calls, as the MCP conventions advise.
const CALLS: Kind = Kind::Histogram(&[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0]);
/// Bounds of what the gateway itself takes.
const OWN: Kind = Kind::Histogram(&[
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0, 10.0,
]);

const fn metric(
    name: &'static str,
    unit: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Instrument {
    Instrument { name, unit, kind, labels, help }
}

/// Every metric, in the order in which they are shown.
pub const ALL: [&Instrument; 39] = [
    &OPERATION,
    &UPSTREAM,
    &CALLED,
    &AGENT_CALLED,
    &TOOL_CALLED,
    &BRIDGED,
    &STOPPED,
    &LIMITED,
    &FOUND,
    &STAGE,
    &ADDED,
    &UNDER_WAY,
    &ABSENT,
    &DROPPED,
    &SESSIONS,
    &STREAMS,
    &LEGS,
    &PARKED,
    &CHILDREN,
    &CONNECTIONS,
    &TASKS,
    &SERVER_UP,
    &SERVER_ERA,
    &SERVER_UNDER_WAY,
    &SERVER_TOOLS,
    &SERVER_LOST,
    &LOG_SIZE,
    &LOG_QUEUED,
    &LOG_COMMITS,
    &LOG_COMMIT,
    &LOG_GROUP,
    &LOG_HEALTHY,
    &LOG_SURPLUS,
    &TEXTS_KEPT,
    &TEXTS_DROPPED,
    &LOST,
    &UNOBSERVED,
    &UNEXPORTED,
    &BUILD,
];

pub(crate) static OPERATION: Instrument = metric(
    "mcp.server.operation.duration",
    "s",
    CALLS,
    &["mcp.method.name", "gen_ai.tool.name", "error.type", "mcp.protocol.version"],
    "Time from the arrival of a message to the end of its answer.",
);
pub(crate) static UPSTREAM: Instrument = metric(
    "mcp.client.operation.duration",
    "s",
    CALLS,
    &["mcp.method.name", "durward.server", "error.type"],
    "Time that servers took to begin their answer.",
);
pub(crate) static CALLED: Instrument = metric(
    "durward.calls",
    "",
    Kind::Counter,
    &["server", "method", "outcome", "era"],
    "Closed calls by server, method, outcome and protocol era.",
);
pub(crate) static AGENT_CALLED: Instrument =
    metric("durward.agent.calls", "", Kind::Counter, &["agent", "outcome"], "Closed calls by agent and outcome.");
pub(crate) static TOOL_CALLED: Instrument = metric(
    "durward.tool.calls",
    "",
    Kind::Counter,
    &["server", "tool", "outcome"],
    "Closed calls of tools that exist and may be seen.",
);
pub(crate) static BRIDGED: Instrument = metric(
    "durward.bridged.calls",
    "",
    Kind::Counter,
    &["server", "era"],
    "Closed calls whose server does not speak the client's protocol era, by the era of the client.",
);
pub(crate) static STOPPED: Instrument = metric(
    "durward.stops",
    "",
    Kind::Counter,
    &["outcome", "stage", "reason"],
    "Calls that did not go through, by stage and reason.",
);
pub(crate) static LIMITED: Instrument =
    metric("durward.limited", "", Kind::Counter, &["agent"], "Calls refused by a limit, by agent.");
pub(crate) static FOUND: Instrument =
    metric("durward.findings", "", Kind::Counter, &["kind", "side"], "What detectors found, by kind and direction.");
pub(crate) static STAGE: Instrument =
    metric("durward.stage.duration", "s", OWN, &["stage"], "Time spent in each stage of the line.");
pub(crate) static ADDED: Instrument = metric(
    "durward.added.duration",
    "s",
    OWN,
    &[],
    "Time of a forwarded call that was not spent waiting for its server. Streams are left out.",
);
pub(crate) static UNDER_WAY: Instrument =
    metric("durward.calls.active", "", Kind::Gauge, &[], "Requests being worked on.");
pub(crate) static ABSENT: Instrument = metric(
    "durward.calls.absent",
    "",
    Kind::Gauge,
    &[],
    "Calls of the legacy era that run on although their client went away.",
);
pub(crate) static DROPPED: Instrument = metric(
    "durward.clients.dropped",
    "",
    Kind::Counter,
    &["reason"],
    "Connections and answers that were ended because of the client, or because too many are open.",
);
pub(crate) static SESSIONS: Instrument = metric("durward.sessions", "", Kind::Gauge, &[], "Open legacy sessions.");
pub(crate) static STREAMS: Instrument =
    metric("durward.streams", "", Kind::Gauge, &[], "Streams to clients that are open: long answers, and listeners.");
pub(crate) static LEGS: Instrument = metric(
    "durward.bridge.sessions",
    "",
    Kind::Gauge,
    &[],
    "Sessions with legacy servers that are kept for modern clients.",
);
pub(crate) static PARKED: Instrument = metric(
    "durward.bridge.parked",
    "",
    Kind::Gauge,
    &[],
    "Calls of modern clients whose legacy server waits for an answer of the client.",
);
pub(crate) static CHILDREN: Instrument =
    metric("durward.children", "", Kind::Gauge, &[], "Server processes that are running.");
pub(crate) static CONNECTIONS: Instrument = metric(
    "durward.connections",
    "",
    Kind::Gauge,
    &[],
    "Connections that the gateway has opened, in use or kept for the next call.",
);
pub(crate) static TASKS: Instrument =
    metric("durward.tasks", "", Kind::Gauge, &[], "Tasks of the gateway: each open connection has one or two.");
pub(crate) static SERVER_UP: Instrument = metric(
    "durward.server.up",
    "",
    Kind::Gauge,
    &["server"],
    "1 if the last exchange with the server worked, 0 if not, absent before the first.",
);
pub(crate) static SERVER_ERA: Instrument = metric(
    "durward.server.era",
    "",
    Kind::Gauge,
    &["server", "era"],
    "1 if the server speaks this era, 0 if not, absent while it is not known.",
);
pub(crate) static SERVER_UNDER_WAY: Instrument =
    metric("durward.server.calls.active", "", Kind::Gauge, &["server"], "Calls in flight on the server.");
pub(crate) static SERVER_TOOLS: Instrument =
    metric("durward.server.tools", "", Kind::Gauge, &["server"], "Tools the server offers.");
pub(crate) static SERVER_LOST: Instrument = metric(
    "durward.server.messages.lost",
    "",
    Kind::Counter,
    &["server"],
    "Notifications of the server's processes that were lost because a client reads too slowly.",
);
pub(crate) static LOG_SIZE: Instrument =
    metric("durward.log.leaves", "", Kind::Gauge, &["tree"], "Records on disk, by tree.");
pub(crate) static LOG_QUEUED: Instrument =
    metric("durward.log.queued", "", Kind::Gauge, &[], "Records that wait for the disk.");
pub(crate) static LOG_COMMITS: Instrument =
    metric("durward.log.commits", "", Kind::Counter, &[], "Groups of records written since the start.");
pub(crate) static LOG_COMMIT: Instrument =
    metric("durward.log.commit.last", "s", Kind::Gauge, &[], "Time the last group took to reach the disk.");
pub(crate) static LOG_GROUP: Instrument =
    metric("durward.log.group", "", Kind::Gauge, &[], "Records in the last group.");
pub(crate) static LOG_HEALTHY: Instrument = metric(
    "durward.log.healthy",
    "",
    Kind::Gauge,
    &[],
    "1 if the log can be written and has the salt key of the day. While it is 0, calls stop.",
);
pub(crate) static LOG_SURPLUS: Instrument = metric(
    "durward.log.surplus",
    "",
    Kind::Counter,
    &[],
    "Requests without a principal that were counted and not recorded one by one.",
);
pub(crate) static TEXTS_KEPT: Instrument =
    metric("durward.texts.kept", "", Kind::Counter, &[], "Texts of arguments and results that were kept.");
pub(crate) static TEXTS_DROPPED: Instrument = metric(
    "durward.texts.dropped",
    "",
    Kind::Counter,
    &["reason"],
    "Texts that were to be kept and were not: the day has its share (`day`), too many came at once (`queue`), the disk failed (`disk`), the day was erased (`erased`).",
);
pub(crate) static LOST: Instrument =
    metric("durward.records.lost", "", Kind::Counter, &[], "Records that could not be written.");
pub(crate) static UNOBSERVED: Instrument = metric(
    "durward.calls.unobserved",
    "",
    Kind::Counter,
    &[],
    "Closed calls that these metrics miss because too many came at once. The log has them.",
);
pub(crate) static UNEXPORTED: Instrument = metric(
    "durward.calls.unexported",
    "",
    Kind::Counter,
    &[],
    "Closed calls whose spans were dropped because the collector did not keep up.",
);
pub(crate) static BUILD: Instrument =
    metric("durward.build", "", Kind::Gauge, &["version"], "Always 1; the label is the version that runs.");
