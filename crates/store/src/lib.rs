//! Rows and queries. The only SQL.
//!
//! Holds what must survive a restart and is not a secret, a record or configuration: keys (as digests), what was
//! decided about agents at run time, revoked tokens. Never sees a key, a token or a secret. Nothing on the call path
//! waits for it: who needs rows there keeps them in memory and changes both.

mod agent;
mod fault;
mod key;
mod open;
mod token;

#[cfg(test)]
mod tests;

pub use agent::AgentRow;
pub use fault::StoreFault;
pub use key::{KeyRow, KeyUse};
pub use open::{FILE, Store};
pub use token::RevokedToken;
