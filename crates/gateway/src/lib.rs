//! The data plane: sockets, the line, sessions, catalogs, servers.
//!
//! Start with [`pipeline`]: everything that happens to a call is on that page, top to bottom. Its stages are modules
//! of their own, in the order of the line: `authenticate`, `resolve`, `admit`, `validate`, `screen`, `authorize`,
//! `settle`, `intend`, `inject`, `forward`, `release`, `respond`.

mod absent;
mod admit;
mod aggregate;
mod ask;
mod authenticate;
mod authorize;
mod bridge;
pub mod call;
pub mod catalog;
pub mod census;
pub mod clock;
mod deadline;
mod flow;
mod forward;
mod inject;
mod inspect;
mod intend;
pub mod journal;
mod known;
pub mod label;
pub mod limit;
mod mailbox;
mod manner;
mod metadata;
pub mod observe;
mod origin;
mod own;
mod pattern;
pub mod pipeline;
mod promise;
mod question;
mod release;
pub mod reply;
mod resolve;
mod respond;
mod revive;
pub mod rim;
mod screen;
pub mod server;
pub mod session;
pub mod settings;
mod settle;
mod shown;
pub mod snapshot;
mod standing;
pub mod state;
pub mod stop;
mod sweep;
mod task;
pub mod text;
pub mod trace;
pub mod trail;
mod unheard;
mod upstream;
mod validate;
mod veil;
pub mod verdict;

pub use upstream::{child::Room, pipe::Program};
