//! The management API: who may do what to the gateway, over TCP with a key or over a socket that only its owner opens.
//!
//! Start with [`route`](mod@route): every route, the least role that may use it, and whether it leaves a record, on one page. The same
//! router serves the gateway's two listeners and, in process, the commands that work on a directory nobody holds.
//! Reads handles of the data plane, never the reverse. No request body ever starts a process.

mod route;

mod desk;
mod gate;
mod serve;

mod agent;
mod audit_log;
mod explain;
mod key;
mod secret;
mod server;
mod status;
mod text;

mod answer;

#[cfg(test)]
mod tests;

pub use answer::CALL;
pub use axum::Router;
pub use desk::{Desk, Plane, Reload, Reloaded};
pub use explain::{Asked, Explained, Schema, explain};
pub use gate::Door;
pub use route::router;
pub use serve::{serve_network, serve_socket};
