//! Ids of calls, callers and targets.

use crate::{AgentId, IssuerName, ServerName, TenantId, UserId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr, sync::Arc};

/// One call, unguessable: 128 random bits, printed as 32 hexadecimal digits.
///
/// The same value is the call's W3C trace id where the caller brought none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId([u8; 16]);

impl CallId {
    /// Takes 16 random bytes. Drawing them is the caller's duty.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The 32 digits, in ASCII.
    pub fn hex(&self) -> [u8; 32] {
        crate::digest::hex(&self.0)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::digest::write_hex(f, &self.hex())
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a call id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a call id is 32 hexadecimal digits")]
pub struct CallIdError;

impl FromStr for CallId {
    type Err = CallIdError;
    fn from_str(text: &str) -> Result<Self, CallIdError> {
        crate::digest::read_hex(text).map(Self).ok_or(CallIdError)
    }
}

impl Serialize for CallId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CallId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who called: an agent of a tenant, for a user or for itself.
///
/// SECURITY: whatever belongs to a principal (sessions, processes, sealed states, tasks) is told apart by all of it.
/// SPEC: RFC 7519 §4.1.2: a subject is unique within its issuer alone, so that one name of two issuers is two users.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PrincipalId {
    /// The agent.
    pub agent: AgentId,
    /// Its tenant.
    pub tenant: TenantId,
    /// The user it acts for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<UserId>,
    /// Who says so: the issuer of its token. `None` where a key or nothing does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub issuer: Option<IssuerName>,
}

impl fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.agent)?;
        if let Some(user) = &self.user {
            write!(f, "+{user}")?;
        }
        match &self.issuer {
            Some(issuer) => write!(f, " of {issuer}"),
            None => Ok(()),
        }
    }
}

/// What is called. Identity is always (tenant, server, name): never a display name, never an alias.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TargetId {
    /// The tool's, prompt's or method's name, or the resource's URI, as the server knows it.
    pub name: Arc<str>,
    /// The server.
    pub server: ServerName,
    /// The tenant the server belongs to.
    pub tenant: TenantId,
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.server, self.name)
    }
}
