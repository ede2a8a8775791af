//! What the configuration says about callers, and what makes it unacceptable.

use crate::{Algorithm, ClaimPath};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use url::Url;
use vocab::{AgentId, EnvironmentName, IssuerName, RoleName, TenantId};

/// Everything [`crate::Identity`] is built from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The tenant all of it belongs to.
    pub tenant: TenantId,
    /// The registered agents.
    pub agents: BTreeMap<AgentId, AgentSetting>,
    /// Whose tokens are accepted.
    pub issuers: Vec<IssuerSetting>,
    /// `danger_allow_anonymous`: the agent that a caller without a credential becomes.
    pub anonymous: Option<AgentId>,
}

/// One registered agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentSetting {
    /// Its roles.
    pub roles: Vec<RoleName>,
    /// Environments it may enter.
    pub environments: Vec<EnvironmentName>,
    /// Its groups.
    pub groups: Vec<Arc<str>>,
    /// Switched off in the configuration.
    pub disabled: bool,
}

/// One accepted issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSetting {
    /// Its identifier: exactly what the `iss` claim says.
    pub url: IssuerName,
    /// Who the token must be for; one of these is enough. Never empty.
    pub audiences: Vec<String>,
    /// Where its signing keys are.
    pub jwks: JwksSource,
    /// Whether its addresses may be private.
    pub internal: bool,
    /// Accepted signature algorithms. Never empty.
    pub algorithms: Vec<Algorithm>,
    /// Accepted `typ` headers, without `application/`; a token without one counts as `JWT`. Never empty.
    pub token_types: Vec<String>,
    /// Where the agent's name stands.
    pub agent: ClaimPath,
    /// Where the user stands.
    pub user: Option<ClaimPath>,
    /// Where roles stand. They are added to those of the agent's registration.
    pub roles: Option<ClaimPath>,
    /// Where groups stand.
    pub groups: Option<ClaimPath>,
    /// Where scopes stand.
    pub scopes: Option<ClaimPath>,
    /// How far clocks may differ.
    pub leeway: Duration,
}

impl IssuerSetting {
    /// An issuer found by discovery, with the usual algorithms, types and leeway.
    pub fn new(url: IssuerName, audiences: Vec<String>, agent: ClaimPath) -> Self {
        Self {
            url,
            audiences,
            jwks: JwksSource::Discovery,
            internal: false,
            algorithms: Algorithm::DEFAULT.to_vec(),
            token_types: vec!["at+jwt".to_owned(), "JWT".to_owned()],
            agent,
            user: None,
            roles: None,
            groups: None,
            scopes: None,
            leeway: Duration::from_secs(30),
        }
    }
}

/// Where an issuer's signing keys are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JwksSource {
    /// Named by the issuer's metadata (`/.well-known/openid-configuration`).
    Discovery,
    /// At this address.
    Url(Url),
    /// In this file.
    File(PathBuf),
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsFault {
    /// SECURITY: without an audience every token of the issuer would open this door, whoever it was made for.
    #[error("issuer {0} has no audience: name what its tokens must be issued for, usually the public_url")]
    NoAudience(IssuerName),
    /// No algorithm is allowed.
    #[error("issuer {0} allows no signature algorithm")]
    NoAlgorithm(IssuerName),
    /// No token type is accepted.
    #[error("issuer {0} accepts no token type")]
    NoTokenType(IssuerName),
    /// Two issuers have the same identifier.
    #[error("issuer {0} is configured twice")]
    Duplicate(IssuerName),
    /// The identifier is not an address that discovery could use.
    #[error("issuer {0} is not an http(s) address; use an address, or name its keys with jwks")]
    Address(IssuerName),
    /// Keys that anybody on the way could replace.
    #[error("issuer {0} publishes its keys over plain http: use https, or mark it internal")]
    PlainHttp(IssuerName),
    /// More than ten minutes.
    #[error("issuer {0} has a leeway of more than 10 minutes")]
    Leeway(IssuerName),
    /// Nobody would know what the anonymous caller may do.
    #[error("the anonymous agent `{0}` is not among the agents")]
    Anonymous(AgentId),
}

impl Settings {
    /// Every fault at once.
    pub fn faults(&self) -> Vec<SettingsFault> {
        let mut faults = Vec::new();
        for (position, issuer) in self.issuers.iter().enumerate() {
            let name = || issuer.url.clone();
            if issuer.audiences.is_empty() || issuer.audiences.iter().any(|audience| audience.trim().is_empty()) {
                faults.push(SettingsFault::NoAudience(name()));
            }
            if issuer.algorithms.is_empty() {
                faults.push(SettingsFault::NoAlgorithm(name()));
            }
            if issuer.token_types.is_empty() {
                faults.push(SettingsFault::NoTokenType(name()));
            }
            if self.issuers.iter().take(position).any(|other| other.url == issuer.url) {
                faults.push(SettingsFault::Duplicate(name()));
            }
            if issuer.leeway > Duration::from_mins(10) {
                faults.push(SettingsFault::Leeway(name()));
            }
            faults.extend(address_fault(issuer));
        }
        if let Some(agent) = &self.anonymous
            && !self.agents.contains_key(agent)
        {
            faults.push(SettingsFault::Anonymous(agent.clone()));
        }
        faults
    }
}

fn address_fault(issuer: &IssuerSetting) -> Option<SettingsFault> {
    let url = match &issuer.jwks {
        JwksSource::File(_) => return None,
        JwksSource::Url(url) => url.clone(),
        JwksSource::Discovery => match Url::parse(issuer.url.as_str()) {
            Ok(url) => url,
            Err(_) => return Some(SettingsFault::Address(issuer.url.clone())),
        },
    };
    match url.scheme() {
        "https" => None,
        "http" if issuer.internal => None,
        "http" => Some(SettingsFault::PlainHttp(issuer.url.clone())),
        _ => Some(SettingsFault::Address(issuer.url.clone())),
    }
}
