//! Who speaks with whom, as whoever starts the witness tells it, and where the witness listens for them.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Plan {
    pub(crate) gateway: SocketAddr,
    pub(crate) cells: Vec<Cell>,
    pub(crate) servers: Vec<Server>,
    /// Whether these are all cells that there are: then whatever is expected must come.
    pub(crate) is_whole: bool,
}

/// A session of one client at one door of one server.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Cell {
    pub(crate) name: String,
    /// What the client calls itself. One client visits its cells one after the other.
    pub(crate) client: String,
    pub(crate) server: String,
    /// Whether the client speaks through pipes with a program that speaks with the gateway.
    pub(crate) is_piped: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Server {
    pub(crate) name: String,
    /// Where it listens. A process of the gateway does not.
    pub(crate) address: Option<SocketAddr>,
}

/// Where to connect, in place of the gateway and of each server.
#[derive(Debug, Serialize)]
pub(crate) struct Addresses {
    pub(crate) pipes: SocketAddr,
    /// One for each cell.
    pub(crate) doors: Vec<SocketAddr>,
    /// One for each server that listens.
    pub(crate) servers: Vec<Option<SocketAddr>>,
}

/// A place between two who speak, by its number in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Leg {
    /// A client and the gateway, or the program that the client takes for it.
    Client(usize),
    /// That program and the gateway.
    Carried(usize),
    /// The gateway and a server.
    Server(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    /// Towards the server.
    Up,
    /// Towards the client.
    Down,
}

impl Direction {
    pub(crate) const fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

impl Leg {
    /// The two ends, in the direction of a message.
    pub(crate) const fn words(self, direction: Direction) -> &'static str {
        match (self, direction) {
            (Self::Client(_), Direction::Up) => "client → gateway",
            (Self::Client(_), Direction::Down) => "gateway → client",
            (Self::Carried(_), Direction::Up) => "durward connect → gateway",
            (Self::Carried(_), Direction::Down) => "gateway → durward connect",
            (Self::Server(_), Direction::Up) => "gateway → server",
            (Self::Server(_), Direction::Down) => "server → gateway",
        }
    }
}

impl Plan {
    pub(crate) fn cell(&self, number: usize) -> Option<&Cell> {
        self.cells.get(number)
    }

    /// The server of this name, by number.
    pub(crate) fn server(&self, name: &str) -> Option<usize> {
        self.servers.iter().position(|server| server.name == name)
    }
}
