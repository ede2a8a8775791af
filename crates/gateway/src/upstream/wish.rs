//! What a legacy server was asked to tell modern clients: log messages from a level on, and changes of resources. It holds
//! for all of a session with the server, and a process that several share has one session for all of them. What legacy
//! clients ask of such a process themselves is not counted here.
//!
//! Asks nobody by itself.

use mcp::bridge::LogLevel;
use std::collections::HashMap;
use tokio::sync::Mutex;

/// The wishes of all modern clients in one session. Locked until the server knows of a change, so that none of them undoes it
/// meanwhile.
#[derive(Default)]
pub(crate) struct Wishes {
    /// The least level that anybody asked for.
    pub(crate) level: Mutex<Option<LogLevel>>,
    /// Resources that are followed, and by how many listeners.
    pub(crate) followed: Mutex<HashMap<String, usize>>,
}
