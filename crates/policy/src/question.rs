//! What policy is asked: plain data about who, what, on what, and when.
//!
//! Nothing here decides. The data plane turns its evidence into these facts.

use serde_json::Value;
use vocab::{Action, Class, Digest, EnvironmentName, Finding, PrincipalId, RoleName, TargetId, Timestamp};

/// Who asks, as far as rules may know.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The agent, its tenant, and the user it acts for.
    pub id: PrincipalId,
    /// Roles from the registry or the token.
    pub roles: Vec<RoleName>,
    /// Groups of the user, as the identity provider names them.
    pub groups: Vec<String>,
    /// Scopes of the token.
    pub scopes: Vec<String>,
    /// The environments the agent is bound to; empty means any.
    pub environments: Vec<EnvironmentName>,
}

/// What is asked for, as the operator describes it.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Tenant, server and name.
    pub id: TargetId,
    /// The environment of the server.
    pub environment: Option<EnvironmentName>,
    /// The operator's classification.
    pub class: Class,
    /// The operator's labels.
    pub labels: Vec<String>,
}

/// One call to decide.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// Who asks.
    pub subject: &'a Subject,
    /// What it wants to do.
    pub action: Action,
    /// On what.
    pub resource: &'a Resource,
    /// The final arguments, as the server will see them.
    pub arguments: &'a Value,
    /// The digest of the raw arguments: the permit is bound to it.
    pub digest: Digest,
    /// What screening found in the parameters; pointers into a tool's arguments start with `/arguments`.
    pub findings: &'a [Finding],
    /// When.
    pub now: Timestamp,
}
