//! Why a caller was not let in: what the caller is told, and what the record says.

use crate::CredentialId;
use http::StatusCode;
use std::{fmt, sync::Arc};
use vocab::{AgentId, IssuerName, PrincipalId};

/// A caller that is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub fault: AuthFault,
    /// Who it is, where that was shown before: a key with its secret, a token that its issuer signed for this gateway. For
    /// the record. It lets nobody in, and what is not shown names nobody.
    pub proven: Option<Arc<Proven>>,
}

/// Who has shown who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Agent, tenant, user and issuer.
    pub id: PrincipalId,
    /// By which credential.
    pub credential: CredentialId,
}

impl AuthFault {
    /// Said to whoever has shown who it is.
    pub(crate) fn to(self, id: PrincipalId, credential: CredentialId) -> Refused {
        Refused { fault: self, proven: Some(Arc::new(Proven { id, credential })) }
    }
}

impl From<AuthFault> for Refused {
    fn from(fault: AuthFault) -> Self {
        Self { fault, proven: None }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}

impl std::error::Error for Refused {}

/// A credential that does not lead to a principal.
///
/// The printed form is for the log. SECURITY: it holds nothing of the credential but names that the configuration
/// or a verified signature vouch for. What the caller may read is [`AuthFault::public_message`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthFault {
    /// No credential came.
    #[error("no credential was sent")]
    Missing,
    /// The credential is neither one of our keys nor a signed token, or its token has an unacceptable shape.
    #[error("the credential is malformed: {0}")]
    Malformed(&'static str),
    /// No such key, or not its secret, or not a key for this door.
    #[error("the API key is unknown")]
    UnknownKey,
    /// The token is signed by an issuer that is not configured.
    #[error("the token's issuer is not configured")]
    Issuer,
    /// The token is signed by a key its issuer does not publish.
    #[error("the token of issuer {0} is signed by a key that the issuer does not publish")]
    UnknownSigner(IssuerName),
    /// The token is signed with an algorithm that is not allowed.
    #[error("the token's signature algorithm is not allowed")]
    Algorithm,
    /// The signature does not fit.
    #[error("the token's signature of issuer {0} is wrong")]
    Signature(IssuerName),
    /// The token was made for someone else.
    #[error("the token of issuer {0} is for another audience")]
    Audience(IssuerName),
    /// The token is of another type, an id token for example.
    #[error("the token of issuer {0} has a type that is not accepted")]
    Type(IssuerName),
    /// A claim is missing or unusable.
    #[error("the token's claim `{0}` is missing or unusable")]
    Claim(String),
    /// The credential has expired.
    #[error("the credential has expired")]
    Expired,
    /// The token is not valid yet.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The credential was revoked.
    #[error("the credential was revoked")]
    Revoked,
    /// The credential is good, but its agent is not registered.
    #[error("agent `{0}` is not registered")]
    UnregisteredAgent(AgentId),
    /// The credential is good, but its agent is switched off.
    #[error("agent `{0}` is disabled")]
    DisabledAgent(AgentId),
    /// The signing keys of the issuer cannot be had, so nobody knows.
    #[error("the signing keys of issuer {0} cannot be fetched")]
    Unavailable(IssuerName),
}

impl AuthFault {
    /// The HTTP status of the refusal.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::UnregisteredAgent(_) | Self::DisabledAgent(_) => StatusCode::FORBIDDEN,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Missing
            | Self::Malformed(_)
            | Self::UnknownKey
            | Self::Issuer
            | Self::UnknownSigner(_)
            | Self::Algorithm
            | Self::Signature(_)
            | Self::Audience(_)
            | Self::Type(_)
            | Self::Claim(_)
            | Self::Expired
            | Self::NotYetValid
            | Self::Revoked => StatusCode::UNAUTHORIZED,
        }
    }

    /// What the caller may read. SECURITY: it must not tell a wrong credential from a revoked one.
    pub fn public_message(&self) -> &'static str {
        match self.status() {
            StatusCode::FORBIDDEN => "this agent may not call",
            StatusCode::SERVICE_UNAVAILABLE => "the credential cannot be checked right now, try again later",
            _ => "a valid credential is required",
        }
    }

    /// The `error` parameter of `WWW-Authenticate`. A request without a credential gets none (RFC 6750 §3.1).
    pub fn challenge(&self) -> Option<&'static str> {
        match (self, self.status()) {
            (Self::Missing, _) => None,
            (_, StatusCode::UNAUTHORIZED) => Some("error=\"invalid_token\""),
            _ => None,
        }
    }

    /// Whether a token that it was said of will hear it for as long as the configuration is the same: neither keys of
    /// issuers, nor the registry, nor time can change it.
    pub(crate) const fn is_final(&self) -> bool {
        match self {
            Self::Audience(_)
            | Self::Type(_)
            | Self::Claim(_)
            | Self::Expired
            | Self::Issuer
            | Self::Algorithm
            | Self::UnregisteredAgent(_) => true,
            Self::Missing
            | Self::Malformed(_)
            | Self::UnknownKey
            | Self::UnknownSigner(_)
            | Self::Signature(_)
            | Self::NotYetValid
            | Self::Revoked
            | Self::DisabledAgent(_)
            | Self::Unavailable(_) => false,
        }
    }

    /// A stable word for records and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Issuer => "issuer",
            Self::UnknownSigner(_) => "unknown_signer",
            Self::Algorithm => "algorithm",
            Self::Signature(_) => "signature",
            Self::Audience(_) => "audience",
            Self::Type(_) => "type",
            Self::Claim(_) => "claim",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::UnregisteredAgent(_) => "unregistered_agent",
            Self::DisabledAgent(_) => "disabled_agent",
            Self::Unavailable(_) => "unavailable",
        }
    }
}
