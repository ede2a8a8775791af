//! From a credential to a principal.
//!
//! Keys and known tokens are settled without waiting; only a token whose issuer's keys are missing or old waits for
//! them. The cost of a wrong credential is bounded by two digests, or one parse and two signature checks.

use crate::{
    Administrator, AgentSetting, AuthFault, Credential, CredentialId, IssuerSetting, JwksCache, KeyHolder, KeyKind,
    Principal, Refused, Registry, Reread, Settings, SettingsFault,
    cache::{Tokens, Verified},
    claim::{ClaimPath, Unusable},
    jwks::{IssuerKeys, Need},
    key::{self, Shape},
    principal::{Bearer, Facts, Granted},
    registry::KeyRow,
    token::{self, Token, Validity},
};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use vocab::{AgentId, Digest, IssuerName, PrincipalId, RoleName, TenantId, Timestamp, UserId};

/// One snapshot of who may call.
pub struct Identity {
    tenant: TenantId,
    agents: HashMap<AgentId, Agent>,
    issuers: Vec<Issuer>,
    anonymous: Option<AgentId>,
    registry: Arc<Registry>,
    jwks: Arc<JwksCache>,
    /// Lives as long as the snapshot: what is known of a token comes of its settings.
    tokens: Tokens<Arc<Verified>>,
    /// Why tokens that were let in before are not any more.
    over: Tokens<Verdict>,
    generation: u64,
    /// How many signatures were looked at.
    #[cfg(test)]
    signatures: std::sync::atomic::AtomicUsize,
}

/// Why a token is refused, where that holds as long as the snapshot, or as long as its issuer publishes the same keys.
#[derive(Clone)]
struct Verdict {
    refused: Refused,
    /// Position of the issuer, and the version of the keys that the signature does not fit. Others may.
    keys: Option<(usize, u64)>,
}

struct Agent {
    setting: AgentSetting,
    /// What is known of the agent when it comes with a key; shared by all its calls.
    facts: Arc<Facts>,
}

struct Issuer {
    setting: Arc<IssuerSetting>,
    keys: Arc<IssuerKeys>,
}

/// Why no principal came out yet.
enum Stop {
    Refused(Refused),
    /// The keys of the issuer at this position are needed first.
    Fetch(usize, Need),
}

impl From<AuthFault> for Stop {
    fn from(fault: AuthFault) -> Self {
        Self::Refused(fault.into())
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Identity {
    /// Builds a snapshot, or says everything that is wrong with the settings.
    pub fn new(settings: Settings, registry: Arc<Registry>, jwks: Arc<JwksCache>) -> Result<Self, Vec<SettingsFault>> {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        let faults = settings.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let Settings { tenant, agents, issuers, anonymous } = settings;
        let agents = agents
            .into_iter()
            .map(|(name, setting)| {
                let id = PrincipalId { agent: name.clone(), tenant: tenant.clone(), user: None, issuer: None };
                let facts = Arc::new(facts(id, &setting, &Granted::default()));
                (name, Agent { setting, facts })
            })
            .collect();
        let keys = jwks.keys_of(&issuers);
        let issuers =
            issuers.into_iter().zip(keys).map(|(setting, keys)| Issuer { setting: Arc::new(setting), keys }).collect();
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            tenant,
            agents,
            issuers,
            anonymous,
            registry,
            jwks,
            tokens: Tokens::default(),
            over: Tokens::default(),
            generation,
            #[cfg(test)]
            signatures: std::sync::atomic::AtomicUsize::default(),
        })
    }

    /// Which snapshot this is; grows with each one built. What is the same for a caller of the same generation is looked at
    /// once.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The issuers whose tokens are accepted, for RFC 9728 metadata.
    pub fn issuers(&self) -> impl Iterator<Item = &IssuerName> {
        self.issuers.iter().map(|issuer| &issuer.setting.url)
    }

    /// Reads the keys of issuers that are in files again, now. What there is to say of them; nothing of those that are
    /// good and what they were.
    pub fn reread(&self, now: Timestamp) -> Vec<(IssuerName, Reread)> {
        let again = |issuer: &Issuer| Some((issuer.setting.url.clone(), issuer.keys.look_again(now)?));
        self.issuers.iter().filter_map(again).collect()
    }

    /// Asks for the keys of every issuer. Returns those that cannot be had.
    #[cfg(test)]
    pub(crate) async fn warm(&self, now: Timestamp) -> Vec<IssuerName> {
        let mut missing = Vec::new();
        for issuer in &self.issuers {
            self.jwks.refresh(&issuer.keys, Need::Missing, now).await;
            if issuer.keys.current(now).is_none() {
                missing.push(issuer.setting.url.clone());
            }
        }
        missing
    }

    /// Whether this is a token that was verified before, under whatever settings. It may be good no longer, but whoever
    /// sends it does not guess.
    pub fn has_seen(&self, credential: Credential<'_>) -> bool {
        match credential {
            Credential::Bearer(text) if credential.is_token() => self.registry.has_seen(&Digest::of(text.as_bytes())),
            Credential::None | Credential::ApiKey(_) | Credential::Bearer(_) => false,
        }
    }

    /// Settles what needs no waiting. `None`: call [`Identity::authenticate`].
    pub fn try_authenticate(&self, credential: Credential<'_>, now: Timestamp) -> Option<Result<Principal, Refused>> {
        match self.judge(credential, now, true) {
            Ok(principal) => Some(Ok(principal)),
            Err(Stop::Refused(refused)) => Some(Err(refused)),
            Err(Stop::Fetch(..)) => None,
        }
    }

    /// Who sent this credential. Waits for the keys of an issuer if they are missing, unknown or old.
    pub async fn authenticate(&self, credential: Credential<'_>, now: Timestamp) -> Result<Principal, Refused> {
        let (position, need) = match self.judge(credential, now, true) {
            Ok(principal) => return Ok(principal),
            Err(Stop::Refused(refused)) => return Err(refused),
            Err(Stop::Fetch(position, need)) => (position, need),
        };
        if let Some(issuer) = self.issuers.get(position) {
            self.jwks.refresh(&issuer.keys, need, now).await;
        }
        self.judge(credential, now, false).map_err(|stop| match stop {
            Stop::Refused(refused) => refused,
            Stop::Fetch(..) => AuthFault::Issuer.into(),
        })
    }

    /// Who calls the management API: only a `dwa_…` key opens it.
    pub fn authenticate_admin(&self, credential: Credential<'_>, now: Timestamp) -> Result<Administrator, AuthFault> {
        let text = match credential {
            Credential::None => return Err(AuthFault::Missing),
            Credential::Bearer(text) | Credential::ApiKey(text) => text,
        };
        let row = self.key(text, KeyKind::Admin)?;
        in_force(&row, now)?;
        match row.holder {
            KeyHolder::Admin(role) => Ok(Administrator { key: row.id.clone(), role }),
            KeyHolder::Agent(_) => Err(AuthFault::UnknownKey),
        }
    }

    /// The same caller under this snapshot: current rights, or why it may no longer call.
    ///
    /// A token whose issuer is configured differently now is refused: its claims would have to be read again. So is one
    /// whose key the issuer does not publish any more.
    pub fn renew(&self, principal: &Principal, now: Timestamp) -> Result<Principal, AuthFault> {
        if principal.expires.is_some_and(|expires| now >= expires) {
            return Err(AuthFault::Expired);
        }
        let agent = self.registered(&principal.facts.id.agent)?;
        match &principal.credential {
            CredentialId::Key(id) => {
                let row = self.registry.key(id.as_str()).ok_or(AuthFault::Revoked)?;
                in_force(&row, now)?;
                if row.holder != KeyHolder::Agent(principal.facts.id.agent.clone()) {
                    return Err(AuthFault::UnknownKey);
                }
            }
            CredentialId::Token(digest) if self.registry.is_revoked(digest) => return Err(AuthFault::Revoked),
            CredentialId::Token(_) => {}
            CredentialId::Anonymous if self.anonymous.as_ref() == Some(&principal.facts.id.agent) => {}
            CredentialId::Anonymous => return Err(AuthFault::Missing),
        }
        if let Some(bearer) = &principal.bearer {
            self.vouched_for(bearer)?;
        }
        if principal.generation == self.generation {
            return Ok(principal.clone());
        }
        let facts = match &principal.bearer {
            None => Arc::clone(&agent.facts),
            Some(bearer) => Arc::new(facts(principal.facts.id.clone(), &agent.setting, &bearer.granted)),
        };
        Ok(Principal { facts, generation: self.generation, ..principal.clone() })
    }

    /// The issuer is configured as it was, and publishes the key that verified the token. An issuer that cannot be
    /// asked takes nothing back.
    fn vouched_for(&self, bearer: &Bearer) -> Result<(), AuthFault> {
        let same = |setting: &Arc<IssuerSetting>| Arc::ptr_eq(setting, &bearer.issuer) || *setting == bearer.issuer;
        let issuer = self.issuers.iter().find(|issuer| same(&issuer.setting)).ok_or(AuthFault::Issuer)?;
        if issuer.keys.publishes(&bearer.signer) {
            Ok(())
        } else {
            Err(AuthFault::UnknownSigner(issuer.setting.url.clone()))
        }
    }

    /// The digest that names a token in records; what `Registry::revoke_token` takes.
    pub fn token_digest(token: &str) -> Option<Digest> {
        token::split(token).map(|(signed, _)| token::digest(signed))
    }

    #[cfg(test)]
    pub(crate) fn known_tokens(&self) -> usize {
        self.tokens.len()
    }

    #[cfg(test)]
    pub(crate) fn signatures(&self) -> usize {
        self.signatures.load(Ordering::SeqCst)
    }

    fn judge(&self, credential: Credential<'_>, now: Timestamp, may_fetch: bool) -> Result<Principal, Stop> {
        match credential {
            Credential::None => Ok(self.nobody()?),
            Credential::ApiKey(text) => Ok(self.agent_key(text, now)?),
            Credential::Bearer(text) => match key::recognise(text) {
                Shape::Key { .. } | Shape::Broken => Ok(self.agent_key(text, now)?),
                Shape::Other => self.token(text, now, may_fetch),
            },
        }
    }

    fn nobody(&self) -> Result<Principal, AuthFault> {
        let agent = self.anonymous.as_ref().ok_or(AuthFault::Missing)?;
        let facts = Arc::clone(&self.registered(agent)?.facts);
        Ok(Principal {
            facts,
            credential: CredentialId::Anonymous,
            expires: None,
            generation: self.generation,
            bearer: None,
        })
    }

    fn agent_key(&self, text: &str, now: Timestamp) -> Result<Principal, Refused> {
        let row = self.key(text, KeyKind::Agent)?;
        let KeyHolder::Agent(name) = &row.holder else { return Err(AuthFault::UnknownKey.into()) };
        let agent = in_force(&row, now).and_then(|()| self.registered(name)).map_err(|fault| {
            let id = PrincipalId { agent: name.clone(), tenant: self.tenant.clone(), user: None, issuer: None };
            fault.to(id, CredentialId::Key(row.id.clone()))
        })?;
        Ok(Principal {
            facts: Arc::clone(&agent.facts),
            credential: CredentialId::Key(row.id.clone()),
            expires: row.expires,
            generation: self.generation,
            bearer: None,
        })
    }

    /// A key with its secret; whether it is in force is another question.
    ///
    /// SECURITY: the secret is compared before anything is said about the key, in constant time, and an unknown id
    /// costs the same as a wrong secret.
    fn key(&self, text: &str, wanted: KeyKind) -> Result<Arc<KeyRow>, AuthFault> {
        let (id, kind) = match key::recognise(text) {
            Shape::Key { id, kind } => (id, kind),
            Shape::Broken => return Err(AuthFault::Malformed("it begins like an API key but is none")),
            Shape::Other => return Err(AuthFault::Malformed("it is no API key")),
        };
        let row = self.registry.key(id);
        let stored = row.as_ref().map_or(Digest::from_bytes([0; 32]), |row| row.hash);
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(
            Digest::of(text.as_bytes()).as_bytes(),
            stored.as_bytes(),
        );
        match (row, same) {
            (Some(row), Ok(())) if kind == wanted => Ok(row),
            _ => Err(AuthFault::UnknownKey),
        }
    }

    fn registered(&self, name: &AgentId) -> Result<&Agent, AuthFault> {
        let agent = self.agents.get(name).ok_or_else(|| AuthFault::UnregisteredAgent(name.clone()))?;
        // *Disabled* in the registry beats the configuration, and the other way round: off is off.
        if agent.setting.disabled || self.registry.is_disabled(name) {
            return Err(AuthFault::DisabledAgent(name.clone()));
        }
        Ok(agent)
    }

    fn token(&self, text: &str, now: Timestamp, may_fetch: bool) -> Result<Principal, Stop> {
        let whole = Digest::of(text.as_bytes());
        if let Some(known) = self.tokens.get(&whole)
            && let Some(issuer) = self.issuers.get(known.issuer)
            && issuer.keys.current(now).is_some_and(|keys| keys.version == known.keys)
        {
            if may_fetch && issuer.keys.wants_refresh(now) {
                return Err(Stop::Fetch(known.issuer, Need::Newer));
            }
            return Ok(self.let_in(&known, now)?);
        }
        if let Some(stop) = self.verdict(&whole, now, may_fetch) {
            return Err(stop);
        }
        let token = token::parse(text)?;
        let verified = self.verify(&token, whole, now, may_fetch).inspect_err(|stop| {
            if let Stop::Refused(refused) = stop
                && refused.fault.is_final()
            {
                self.keep_verdict(whole, &Verdict { refused: refused.clone(), keys: None }, now);
            }
        });
        let verified = Arc::new(verified?);
        // Kept also if it was revoked: no signature is looked at twice to say so.
        self.tokens.insert(whole, verified.validity.until, &verified, now);
        self.registry.see_token(whole, verified.validity.until, now);
        Ok(self.let_in(&verified, now)?)
    }

    /// The bearer of a token whose signature the keys of the moment verified, if it may call now. If not, it is known who
    /// that is all the same.
    fn let_in(&self, verified: &Verified, now: Timestamp) -> Result<Principal, Refused> {
        let Verified { principal, validity, .. } = verified;
        let renewed = validity.check(now).and_then(|()| self.renew(principal, now));
        renewed.map_err(|fault| fault.to(principal.facts.id.clone(), principal.credential.clone()))
    }

    /// What was found out of a token before, where it still holds.
    fn verdict(&self, whole: &Digest, now: Timestamp, may_fetch: bool) -> Option<Stop> {
        let Verdict { refused, keys } = self.over.get(whole)?;
        if let Some((position, version)) = keys {
            let issuer = self.issuers.get(position)?;
            issuer.keys.current(now).filter(|keys| keys.version == version)?;
            if may_fetch && issuer.keys.wants_refresh(now) {
                return Some(Stop::Fetch(position, Need::Newer));
            }
        }
        Some(refused.into())
    }

    /// Whoever sends what was let in before does not guess, and is not counted: that it is not any more is found out once.
    /// So it is with what an issuer signed for an agent that is not registered, which counts as no failure.
    fn keep_verdict(&self, whole: Digest, verdict: &Verdict, now: Timestamp) {
        if self.registry.has_seen(&whole) || matches!(verdict.refused.fault, AuthFault::UnregisteredAgent(_)) {
            // Of more than have room the oldest verdicts go.
            self.over.insert(whole, now, verdict, now);
        }
    }

    fn verify(&self, token: &Token<'_>, whole: Digest, now: Timestamp, may_fetch: bool) -> Result<Verified, Stop> {
        let name = token.issuer().ok_or(AuthFault::Issuer)?;
        let (position, issuer) = self
            .issuers
            .iter()
            .enumerate()
            .find(|(_, issuer)| issuer.setting.url.as_str() == name)
            .ok_or(AuthFault::Issuer)?;
        let setting = &issuer.setting;
        if !setting.algorithms.contains(&token.algorithm) {
            return Err(AuthFault::Algorithm.into());
        }
        if may_fetch && issuer.keys.wants_refresh(now) {
            return Err(Stop::Fetch(position, Need::Newer));
        }
        let fetch_or = |fault: AuthFault| {
            if may_fetch && issuer.keys.may_come(now) { Stop::Fetch(position, Need::Missing) } else { fault.into() }
        };
        let Some(keys) = issuer.keys.current(now) else {
            return Err(fetch_or(AuthFault::Unavailable(setting.url.clone())));
        };
        let candidates = keys.candidates(token);
        if candidates.is_empty() {
            return Err(fetch_or(AuthFault::UnknownSigner(setting.url.clone())));
        }
        let signer = candidates.into_iter().find(|key| {
            #[cfg(test)]
            self.signatures.fetch_add(1, Ordering::SeqCst);
            let (signed, algorithm) = (token.signed.as_bytes(), token.algorithm.to_jws());
            matches!(jsonwebtoken::crypto::verify(token.signature, signed, &key.key, algorithm), Ok(true))
        });
        let Some(signer) = signer else {
            let fault = AuthFault::Signature(setting.url.clone());
            // Another key may have come under the id of the one that signed it.
            let refused = Refused::from(fault);
            self.keep_verdict(whole, &Verdict { refused: refused.clone(), keys: Some((position, keys.version)) }, now);
            return Err(refused.into());
        };
        let validity = token.check(setting)?;
        let bearer = self.bearer(token, setting, signer.digest, &validity);
        if let Err(fault) = validity.check(now) {
            // Whose token it was is known, if it is somebody whom the configuration knows.
            let Ok(known) = bearer else { return Err(fault.into()) };
            return Err(fault.to(known.facts.id.clone(), known.credential).into());
        }
        let principal = bearer?;
        Ok(Verified { principal, validity, issuer: position, keys: keys.version })
    }

    /// The principal a verified token stands for.
    fn bearer(
        &self,
        token: &Token<'_>,
        issuer: &Arc<IssuerSetting>,
        signer: Digest,
        validity: &Validity,
    ) -> Result<Principal, Refused> {
        let name = one(token, &issuer.agent)?.ok_or_else(|| unusable(&issuer.agent))?;
        let agent = AgentId::new(name).map_err(|_| unusable(&issuer.agent))?;
        let user = match &issuer.user {
            None => None,
            Some(path) => one(token, path)?.map(UserId::new).transpose().map_err(|_| unusable(path))?,
        };
        let mut granted = Granted {
            roles: Vec::new(),
            groups: texts(token, issuer.groups.as_ref())?,
            scopes: texts(token, issuer.scopes.as_ref())?,
        };
        if let Some(path) = &issuer.roles {
            for role in path.many(&token.claims).map_err(|Unusable| unusable(path))? {
                granted.roles.push(RoleName::new(role).map_err(|_| unusable(path))?);
            }
        }
        let id = PrincipalId { agent, tenant: self.tenant.clone(), user, issuer: Some(issuer.url.clone()) };
        // Whether it is disabled is asked at each use, also of a token that is known.
        let credential = CredentialId::Token(token::digest(token.signed));
        let Some(agent) = self.agents.get(&id.agent) else {
            return Err(AuthFault::UnregisteredAgent(id.agent.clone()).to(id, credential));
        };
        let facts = Arc::new(facts(id, &agent.setting, &granted));
        Ok(Principal {
            facts,
            credential,
            expires: Some(validity.until),
            generation: self.generation,
            bearer: Some(Arc::new(Bearer { issuer: Arc::clone(issuer), signer, granted })),
        })
    }
}

impl Principal {
    /// Whether the caller may still call; for streams that stay open.
    pub fn still_valid(&self, identity: &Identity, now: Timestamp) -> Result<(), AuthFault> {
        identity.renew(self, now).map(drop)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("tenant", &self.tenant)
            .field("generation", &self.generation)
            .field("agents", &self.agents.len())
            .field("issuers", &self.issuers.len())
            .finish_non_exhaustive()
    }
}

fn in_force(row: &KeyRow, now: Timestamp) -> Result<(), AuthFault> {
    if row.revoked {
        return Err(AuthFault::Revoked);
    }
    if row.expires.is_some_and(|expires| now >= expires) {
        return Err(AuthFault::Expired);
    }
    Ok(())
}

fn facts(id: PrincipalId, agent: &AgentSetting, granted: &Granted) -> Facts {
    Facts {
        id,
        roles: union(&agent.roles, &granted.roles),
        groups: union(&agent.groups, &granted.groups),
        scopes: union(&granted.scopes, &[]),
        environments: union(&agent.environments, &[]),
    }
}

fn union<T: Clone + Ord>(one: &[T], other: &[T]) -> Vec<T> {
    let mut all = [one, other].concat();
    all.sort_unstable();
    all.dedup();
    all
}

fn one<'t>(token: &'t Token<'_>, path: &ClaimPath) -> Result<Option<&'t str>, AuthFault> {
    path.one(&token.claims).map_err(|Unusable| unusable(path))
}

fn texts(token: &Token<'_>, path: Option<&ClaimPath>) -> Result<Vec<Arc<str>>, AuthFault> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let values = path.many(&token.claims).map_err(|Unusable| unusable(path))?;
    if values.iter().any(|value| value.is_empty() || value.len() > 256 || value.contains(char::is_control)) {
        return Err(unusable(path));
    }
    Ok(values.into_iter().map(Arc::from).collect())
}

fn unusable(path: &ClaimPath) -> AuthFault {
    AuthFault::Claim(path.to_string())
}
