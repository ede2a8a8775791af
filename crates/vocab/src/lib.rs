//! The words every record uses: names, ids, digests, timestamps, secrets, actions.
//!
//! No behaviour beyond parsing and printing. Everything here is cheap to clone, and
//! every printed form is stable: records, metrics and error texts carry it.

mod action;
mod digest;
mod finding;
mod id;
mod name;
mod secret;
mod time;

pub use action::{Action, Class};
pub use digest::Digest;
pub use finding::{Finding, Side};
pub use id::{CallId, PrincipalId, TargetId};
pub use name::{
    AgentId, EnvironmentName, IssuerName, NameError, RoleName, RuleId, SecretName, ServerName, TenantId, UserId,
};
pub use secret::Secret;
pub use time::{Day, DayError, Timestamp, TimestampError};
