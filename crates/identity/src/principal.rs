//! Who was let in. Only `authenticate` makes one.

use crate::{AdminRole, IssuerSetting, KeyId};
use std::{borrow::Cow, fmt, sync::Arc};
use vocab::{Digest, EnvironmentName, PrincipalId, RoleName, Timestamp};

/// Which credential let a caller in. Never the credential itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CredentialId {
    /// An API key.
    Key(KeyId),
    /// A token, by the digest of what its signature is over: the text before its last dot.
    Token(Digest),
    /// None: `danger_allow_anonymous`.
    Anonymous,
}

impl CredentialId {
    /// As records and logs name it.
    pub fn text(&self) -> Cow<'static, str> {
        match self {
            Self::Anonymous => Cow::Borrowed("anonymous"),
            Self::Key(_) | Self::Token(_) => Cow::Owned(self.to_string()),
        }
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(f, "key:{id}"),
            Self::Token(digest) => write!(f, "token:{digest}"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

/// What a token says about its bearer, beyond which agent it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) roles: Vec<RoleName>,
    pub(crate) groups: Vec<Arc<str>>,
    pub(crate) scopes: Vec<Arc<str>>,
}

/// What is known of a caller, shared by all its calls.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) id: PrincipalId,
    pub(crate) roles: Vec<RoleName>,
    pub(crate) groups: Vec<Arc<str>>,
    pub(crate) scopes: Vec<Arc<str>>,
    pub(crate) environments: Vec<EnvironmentName>,
}

/// What a token brought, so that its principal can be renewed under a new snapshot.
#[derive(Debug)]
pub(crate) struct Bearer {
    pub(crate) issuer: Arc<IssuerSetting>,
    /// The issuer's key that verified it ([`crate::keyset::PublicKey`]).
    pub(crate) signer: Digest,
    pub(crate) granted: Granted,
}

/// An authenticated caller. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Principal {
    pub(crate) facts: Arc<Facts>,
    pub(crate) credential: CredentialId,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) generation: u64,
    pub(crate) bearer: Option<Arc<Bearer>>,
}

impl Principal {
    /// Agent, tenant, user and issuer.
    pub fn id(&self) -> &PrincipalId {
        &self.facts.id
    }

    /// Roles of the agent's registration and of the token, sorted, each once.
    pub fn roles(&self) -> &[RoleName] {
        &self.facts.roles
    }

    /// Groups of the agent's registration and of the token, sorted, each once.
    pub fn groups(&self) -> &[Arc<str>] {
        &self.facts.groups
    }

    /// Scopes of the token, sorted, each once.
    pub fn scopes(&self) -> &[Arc<str>] {
        &self.facts.scopes
    }

    /// Environments the agent may enter.
    pub fn environments(&self) -> &[EnvironmentName] {
        &self.facts.environments
    }

    /// Which credential let it in.
    pub const fn credential_id(&self) -> &CredentialId {
        &self.credential
    }

    /// From when on the credential is no longer accepted.
    pub const fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// The snapshot ([`crate::Identity::generation`]) whose configuration this principal reflects.
    pub const fn generation(&self) -> u64 {
        self.generation
    }
}

/// Who calls the management API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Administrator {
    pub(crate) key: KeyId,
    pub(crate) role: AdminRole,
}

impl Administrator {
    /// The key it came with.
    pub const fn key(&self) -> &KeyId {
        &self.key
    }

    /// What it may do.
    pub const fn role(&self) -> AdminRole {
        self.role
    }
}
