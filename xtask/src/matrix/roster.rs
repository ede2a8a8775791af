//! Who is tried with whom, and at which doors. Starts nothing.

/// Clients that do the same at each of some servers.
pub(super) struct Trial {
    /// What the names of its cells and agents begin with.
    pub(super) name: &'static str,
    /// What the page says of its steps.
    pub(super) of: &'static str,
    /// What its tables say above them, before the door.
    pub(super) title: &'static str,
    pub(super) clients: &'static [Client],
    pub(super) servers: &'static [Server],
}

pub(super) struct Client {
    pub(super) name: &'static str,
    pub(super) program: Program,
    /// How it reaches the gateway, as its program is told.
    pub(super) way: &'static str,
    /// The newest revision that it speaks.
    pub(super) revision: &'static str,
}

pub(super) struct Server {
    pub(super) name: &'static str,
    /// What the gateway calls it.
    pub(super) key: &'static str,
    pub(super) program: Program,
    pub(super) reach: Reach,
    /// The newest revision that it speaks.
    pub(super) revision: &'static str,
}

/// A file below `tests`, with what it is always told.
#[derive(Clone, Copy)]
pub(super) enum Program {
    Node(&'static str, &'static [&'static str]),
    Python(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Http,
    /// HTTP with SSE, as 2024-11-05 has it.
    Sse,
    Pipes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// `/mcp/NAME`.
    Own,
    /// `/mcp`.
    All,
}

/// The two doors of a server.
pub(super) const DOORS: [Door; 2] = [Door::Own, Door::All];

pub(super) static TRIALS: [Trial; 2] = [
    Trial { name: "", of: "of a session", title: "At", clients: &CLIENTS, servers: &SERVERS },
    Trial { name: "tasks ", of: "with tasks", title: "Tasks, at", clients: &TASK_CLIENTS, servers: &TASK_SERVERS },
];

/// The era of sessions is on version 1 of the TypeScript SDK, the other one on version 2.
const SESSION: Program = Program::Node("js/matrix.mjs", &[]);
const SHORT_SESSION: Program = Program::Python("py/matrix.py");

const CLIENTS: [Client; 9] = [
    client("2024-11-05, SSE", SESSION, "sse", "2024-11-05"),
    client("2025-03-26", SESSION, "http", "2025-03-26"),
    client("2025-06-18", SESSION, "http", "2025-06-18"),
    client("2025-11-25", SESSION, "http", "2025-11-25"),
    client("2026-07-28", SESSION, "http", "2026-07-28"),
    client("stdio, legacy", SESSION, "stdio", "2025-11-25"),
    client("stdio, modern", SESSION, "stdio", "2026-07-28"),
    client("2025-11-25, Python", SHORT_SESSION, "http", "2025-11-25"),
    client("stdio, modern, Python", SHORT_SESSION, "stdio", "2026-07-28"),
];

const FIXTURE: Program = Program::Node("js/fixture-server.mjs", &[]);

const SERVERS: [Server; 7] = [
    server("2024-11-05, SSE", "sse-2024-11-05", FIXTURE, Reach::Sse, "2024-11-05"),
    server("2025-03-26", "http-2025-03-26", FIXTURE, Reach::Http, "2025-03-26"),
    server("2025-06-18", "http-2025-06-18", FIXTURE, Reach::Http, "2025-06-18"),
    server("2025-11-25", "http-2025-11-25", FIXTURE, Reach::Http, "2025-11-25"),
    server("2026-07-28", "http-2026-07-28", FIXTURE, Reach::Http, "2026-07-28"),
    server("stdio, legacy", "stdio-legacy", FIXTURE, Reach::Pipes, "2025-11-25"),
    server("stdio, modern", "stdio-modern", FIXTURE, Reach::Pipes, "2026-07-28"),
];

/// Tasks of 2025-11-25 are in version 1 of the TypeScript SDK alone; those of 2026-07-28, an extension, in none: the Python
/// SDK has places for extensions. Not as a process of the gateway: it takes seconds to start.
const LEGACY_TASKS: Program = Program::Node("js/tasks.mjs", &[]);
const MODERN_TASKS: Program = Program::Python("py/tasks.py");

const TASK_CLIENTS: [Client; 4] = [
    client("2025-11-25", LEGACY_TASKS, "http", "2025-11-25"),
    client("2026-07-28, Python", MODERN_TASKS, "http", "2026-07-28"),
    client("stdio, legacy", LEGACY_TASKS, "stdio", "2025-11-25"),
    client("stdio, modern, Python", MODERN_TASKS, "stdio", "2026-07-28"),
];

const LEGACY_TASK_SERVER: Program = Program::Node("js/fixture-server.mjs", &["--tasks"]);
const MODERN_TASK_SERVER: Program = Program::Python("py/task_server.py");

const TASK_SERVERS: [Server; 3] = [
    server("2025-11-25", "tasks-2025-11-25", LEGACY_TASK_SERVER, Reach::Http, "2025-11-25"),
    server("2026-07-28, Python", "tasks-2026-07-28", MODERN_TASK_SERVER, Reach::Http, "2026-07-28"),
    server("stdio, legacy", "tasks-stdio-legacy", LEGACY_TASK_SERVER, Reach::Pipes, "2025-11-25"),
];

const fn client(name: &'static str, program: Program, way: &'static str, revision: &'static str) -> Client {
    Client { name, program, way, revision }
}

const fn server(
    name: &'static str,
    key: &'static str,
    program: Program,
    reach: Reach,
    revision: &'static str,
) -> Server {
    Server { name, key, program, reach, revision }
}

/// Each client is an agent of its own, so that none sees what is another's: servers in processes are one for an agent.
pub(super) fn agent(trial: &Trial, client: &Client) -> String {
    format!("client-{}{}", trial.name, client.name).replace(", ", "-").replace(' ', "-")
}

/// One client at one door of one server.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) trial: &'static Trial,
    pub(super) client: &'static Client,
    pub(super) server: &'static Server,
    pub(super) door: Door,
}

impl Place {
    /// What it is called where it is chosen, and by its client.
    pub(super) fn words(&self) -> String {
        let Self { trial, client, server, door } = self;
        format!("{}{} > {} at {}", trial.name, client.name, server.name, door.words())
    }

    /// The agent that its client is, which is what the client calls itself, too.
    pub(super) fn agent(&self) -> String {
        agent(self.trial, self.client)
    }

    pub(super) fn is(&self, trial: &Trial, client: &Client, server: &Server, door: Door) -> bool {
        let here = (self.trial.name, self.client.name, self.server.name, self.door);
        here == (trial.name, client.name, server.name, door)
    }
}

impl Door {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Own => "/mcp/SERVER",
            Self::All => "/mcp",
        }
    }
}
