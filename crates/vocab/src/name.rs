//! Names that people choose. Each kind has its own type, so that a role can never be passed for a server.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {why}")]
pub struct NameError {
    kind: &'static str,
    text: String,
    why: &'static str,
}

/// Upper bound of every name, in bytes.
const LONGEST: usize = 256;

/// Names that operators write into files: also parts of paths, tool prefixes and metric labels.
fn plain(kind: &'static str, text: &str) -> Result<(), NameError> {
    let fault = |why| Err(NameError { kind, text: text.chars().take(80).collect(), why });
    if text.is_empty() {
        return fault("it is empty");
    }
    if text.len() > 64 {
        return fault("it is longer than 64 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return fault("only letters, digits, `-`, `_` and `.` may occur");
    }
    // Every request names a server: a searcher for a text costs more than a walk over so few bytes.
    if text.as_bytes().windows(2).any(|pair| pair == b"__") {
        return fault("`__` separates server and tool and may not occur in it");
    }
    Ok(())
}

/// Names that other systems give (users, rules, issuers): any printable text.
fn printable(kind: &'static str, text: &str) -> Result<(), NameError> {
    let fault = |why| Err(NameError { kind, text: text.chars().take(80).collect(), why });
    if text.is_empty() {
        return fault("it is empty");
    }
    if text.len() > LONGEST {
        return fault("it is longer than 256 bytes");
    }
    if text.chars().any(char::is_control) {
        return fault("it contains a control character");
    }
    Ok(())
}

/// One newtype over shared text; `$check` is what it accepts.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and makes it a name.
            pub fn new(text: &str) -> Result<Self, NameError> {
                $check($kind, text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// An organisation whose data and rules are kept apart from every other.
    TenantId, "tenant", plain
);
name!(
    /// A registered agent: what a key or token is issued to.
    AgentId, "agent", plain
);
name!(
    /// A person an agent acts for, as the identity provider names them.
    UserId, "user", printable
);
name!(
    /// An upstream MCP server, as the configuration names it.
    ServerName, "server", plain
);
name!(
    /// A role, from the agent registry or mapped from a token's claims.
    RoleName, "role", printable
);
name!(
    /// An environment: `dev`, `staging`, `prod`.
    EnvironmentName, "environment", plain
);
name!(
    /// A secret in the vault.
    SecretName, "secret", plain
);
name!(
    /// A policy rule, `policy-name#3` unless the rule has an id of its own.
    RuleId, "rule", printable
);
name!(
    /// A token issuer, by its URL.
    IssuerName, "issuer", printable
);

impl TenantId {
    /// The tenant of an installation that has only one.
    pub fn default_tenant() -> Self {
        Self(Arc::from("default"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_take_what_paths_and_prefixes_can_carry() {
        assert!(ServerName::new("git-hub_2.eu").is_ok());
        for bad in ["", "a b", "a/b", "a__b", "ä", &"x".repeat(65)] {
            assert!(ServerName::new(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn printable_names_refuse_control_characters() {
        assert!(UserId::new("auth0|5f7 ü@example.com").is_ok());
        assert!(UserId::new("a\nb").is_err());
    }
}
