//! Puts credentials into a granted call.
//!
//! SECURITY: secrets enter here and nowhere else. Never logs, never retries; refuses a permit that is for another call.

use crate::{
    pipeline::Decided,
    pipeline::Line,
    resolve::Target,
    server::{Server, Transport},
    settings::Place,
    settle::Granted,
    state::State,
    stop::{Stage, Stop},
    trail::{Facts, Noted},
    upstream::UpstreamFault,
    veil::Veil,
};
use http::{HeaderName, HeaderValue, Uri, header::AUTHORIZATION, uri::PathAndQuery};
use mcp::error::INTERNAL;
use policy::Permit;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};
use vault::VaultFault;
use vocab::{Secret, SecretName};

/// Who may share a connection that bears no credential: everybody. Not 0, which is no credential at all.
const EVERYBODY: u64 = 1;

/// What one server is given.
#[derive(Clone, Default)]
pub(crate) struct Injected {
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    query: Option<Secret<String>>,
    pub(crate) env: Vec<(String, Secret<String>)>,
    /// Who may share a connection.
    pub(crate) pool: u64,
    /// Hides all of it from what the server says.
    pub(crate) veil: Option<Arc<Veil>>,
    name: Option<SecretName>,
}

impl Injected {
    /// The address with its secret query parameters.
    pub(crate) fn uri(&self, base: &Uri) -> Result<Uri, UpstreamFault> {
        let Some(query) = &self.query else { return Ok(base.clone()) };
        let joint = if base.query().is_some() { '&' } else { '?' };
        let text = format!("{}{joint}{}", base.path_and_query().map_or("/", PathAndQuery::as_str), query.expose());
        // The cause would quote the secret.
        text.parse().map_err(|_| UpstreamFault::Protocol("the credential does not fit into a query".to_owned()))
    }
}

/// Why a server has no credential.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InjectFault {
    /// The vault does not give it.
    #[error(transparent)]
    Vault(#[from] VaultFault),
    /// No header can carry it. SECURITY: the cause would quote it.
    #[error("the secret contains what no header can carry")]
    Unprintable,
}

/// A call ready to leave: decided, granted, with its credentials, under a permit that names it.
#[must_use]
pub(crate) struct Sealed {
    pub(crate) decided: Box<Decided>,
    /// One per server the permit names, in the order of its targets.
    pub(crate) injected: Vec<Injected>,
    _made: (),
}

impl Noted for Sealed {
    const STAGE: Stage = Stage::Inject;

    fn note(&self, facts: &mut Facts) {
        facts.credential = self.injected.iter().find_map(|injected| injected.name.clone());
    }
}

impl Noted for Injected {
    const STAGE: Stage = Stage::Inject;

    fn note(&self, facts: &mut Facts) {
        facts.credential.clone_from(&self.name);
    }
}

impl Line {
    /// Seals a granted call.
    pub(crate) fn inject(&self, granted: Granted) -> Result<Sealed, Stop> {
        let mut decided = granted.decided;
        if !covered(&decided) {
            return Err(Stop::failed(Stage::Inject, "permit", INTERNAL, "the permit is for another call"));
        }
        let mut injected = Vec::new();
        match &mut decided.target {
            Target::One(one) => {
                injected.push(credentials(&self.state, &one.server).map_err(|fault| missing(&one.server, &fault))?);
            }
            Target::Many(many) => {
                // What policy closed is left out; what has no credential costs its own entries.
                let permit = &decided.permit;
                many.members.retain(|server| permit.targets().iter().any(|target| target.server == server.name));
                let mut members = Vec::with_capacity(many.members.len());
                for server in std::mem::take(&mut many.members) {
                    match credentials(&self.state, &server) {
                        Ok(credentials) => {
                            injected.push(credentials);
                            members.push(server);
                        }
                        Err(fault) => {
                            many.unavailable.push((server.name.clone(), missing(&server, &fault).message.clone()));
                        }
                    }
                }
                many.members = members;
            }
        }
        Ok(Sealed { decided, injected, _made: () })
    }
}

/// INVARIANT: a permit names principal, target and argument digest; it seals nothing else.
fn covered(decided: &Decided) -> bool {
    let Decided { caller, target, call, permit, .. } = decided;
    match target {
        Target::One(one) => {
            let digest = one.answers.as_ref().map_or(call.valid.digest, |question| question.digest);
            permit.covers(caller.principal.id(), &one.resource.id, &digest)
        }
        Target::Many(_) => permit.principal() == caller.principal.id(),
    }
}

/// The credentials of a server, for its own discovery and for calls.
pub(crate) fn credentials(state: &State, server: &Server) -> Result<Injected, InjectFault> {
    if server.credentials.is_empty() {
        return Ok(Injected { pool: EVERYBODY, ..Injected::default() });
    }
    let mut injected = Injected::default();
    let mut pool = DefaultHasher::new();
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let mut has_query = false;
    let mut given = Vec::with_capacity(server.credentials.len());
    for credential in &server.credentials {
        let secret = state.vault.get(&credential.secret)?;
        credential.hash(&mut pool);
        state.vault.generation().hash(&mut pool);
        injected.name = Some(credential.secret.clone());
        given.push(secret.clone());
        match &credential.place {
            Place::Bearer => injected.headers.push((AUTHORIZATION, sensitive(&format!("Bearer {}", secret.expose()))?)),
            Place::Header(name) => injected.headers.push((name.clone(), sensitive(secret.expose())?)),
            Place::Query(name) => {
                query.append_pair(name, secret.expose());
                has_query = true;
            }
            Place::Environment(name) => injected.env.push((name.clone(), secret)),
        }
    }
    if has_query {
        injected.query = Some(Secret::new(query.finish()));
    }
    injected.pool = pool.finish();
    injected.veil = Veil::of(given.iter());
    debug_assert!(injected.env.is_empty() || matches!(server.transport, Transport::Stdio(_)));
    Ok(injected)
}

/// The same for a call of the gateway's own, under the permit that names its server.
pub(crate) fn own(state: &State, server: &Server, permit: &Permit) -> Result<Injected, Stop> {
    if !permit.targets().iter().any(|target| target.server == server.name) {
        return Err(Stop::failed(Stage::Inject, "permit", INTERNAL, "the permit is for another call"));
    }
    credentials(state, server).map_err(|fault| missing(server, &fault))
}

fn sensitive(text: &str) -> Result<HeaderValue, InjectFault> {
    let mut value = HeaderValue::from_str(text).map_err(|_| InjectFault::Unprintable)?;
    value.set_sensitive(true);
    Ok(value)
}

fn missing(server: &Server, fault: &InjectFault) -> Stop {
    Stop::failed(
        Stage::Inject,
        "credential",
        INTERNAL,
        format!("the credential of server `{}` cannot be used; ask the operator", server.name),
    )
    .detail(fault.to_string())
}
