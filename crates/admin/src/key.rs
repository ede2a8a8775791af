//! Keys of agents and of administrators, and tokens that are refused before they expire.
//!
//! A key is in one answer, when it is made. Only its digest is kept.

use crate::{
    agent::registered,
    answer::{Done, Fault, Nothing, name, read},
    desk::Desk,
};
use axum::{
    body::Bytes,
    extract::{Path, State},
};
use identity::{AdminRole, ApiKey, CredentialId, KeyHolder, KeyId, KeyKind};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::{KeyRow, KeyUse, RevokedToken, StoreFault};
use vocab::{AgentId, Digest, Timestamp};

/// How long a revoked token is remembered unless told: longer than tokens live.
const REMEMBERED: Duration = Duration::from_hours(30 * 24);
/// The longest that a key lives, or that a revocation is remembered, in seconds: a hundred years.
const LONGEST: u64 = 36_500 * 24 * 60 * 60;
/// Two random ids that are the same are improbable; three in a row are a broken generator.
const DRAWS: usize = 3;
/// The longest label.
const LABEL: usize = 128;

/// What makes a key of an agent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Seconds until it ends.
    expires_in: Option<u64>,
    label: Option<String>,
    /// Of a management key only.
    role: Option<String>,
}

/// Which token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    /// Its digest, as records name it.
    token: Digest,
    /// Seconds until it would have expired by itself.
    expires_in: Option<u64>,
}

pub(crate) async fn list_agent_keys(State(desk): State<Arc<Desk>>) -> Result<Done, Fault> {
    list(&desk, |key| matches!(key.opens, KeyUse::Agent(_))).await
}

pub(crate) async fn list_admin_keys(State(desk): State<Arc<Desk>>) -> Result<Done, Fault> {
    list(&desk, |key| matches!(key.opens, KeyUse::Admin(_))).await
}

pub(crate) async fn create_agent_key(
    State(desk): State<Arc<Desk>>,
    Path(agent): Path<String>,
    body: Bytes,
) -> Result<Done, Fault> {
    let agent: AgentId = name(&agent)?;
    let expected = "{\"expires_in\": SECONDS, \"label\": TEXT}, or nothing";
    let wanted: Wanted = read(&body, expected).map_err(|fault| fault.to(&agent))?;
    if wanted.role.is_some() {
        return Err(Fault::bad("the roles of an agent are those of the configuration").to(&agent));
    }
    registered(&desk, &agent)?;
    create(&desk, KeyHolder::Agent(agent), wanted).await
}

pub(crate) async fn create_admin_key(State(desk): State<Arc<Desk>>, body: Bytes) -> Result<Done, Fault> {
    let wanted: Wanted = read(&body, "{\"role\": ROLE, \"expires_in\": SECONDS, \"label\": TEXT}")?;
    let role = wanted.role.as_deref().ok_or_else(|| Fault::bad("name a role: viewer, operator or owner"))?;
    let role: AdminRole = name(role)?;
    create(&desk, KeyHolder::Admin(role), wanted).await
}

pub(crate) async fn revoke_agent_key(
    State(desk): State<Arc<Desk>>,
    Path(id): Path<String>,
    _: Nothing,
) -> Result<Done, Fault> {
    revoke(&desk, &id, true).await
}

pub(crate) async fn revoke_admin_key(
    State(desk): State<Arc<Desk>>,
    Path(id): Path<String>,
    _: Nothing,
) -> Result<Done, Fault> {
    revoke(&desk, &id, false).await
}

pub(crate) async fn revoke_token(State(desk): State<Arc<Desk>>, body: Bytes) -> Result<Done, Fault> {
    let Token { token, expires_in } = read(&body, "{\"token\": \"sha256:…\", \"expires_in\": SECONDS}")?;
    let now = desk.clock.now();
    let until = now.plus(expires_in.map(lifetime).transpose().map_err(|fault| fault.to(&token))?.unwrap_or(REMEMBERED));
    desk.store
        .revoke_token(RevokedToken { hash: token, until }, now)
        .await
        .map_err(|cause| Fault::ours("the token was not revoked", &cause).to(&token))?;
    desk.store
        .forget_expired_tokens(now)
        .await
        .map_err(|cause| Fault::ours("expired tokens were not forgotten", &cause).to(&token))?;
    desk.registry.revoke_token(token, until, now);
    desk.end_sessions(|holder| *holder.credential_id() == CredentialId::Token(token));
    let detail = format!("refused until {until}");
    Ok(Done::json(json!({ "token": token, "until": until.to_string() })).to(&token).detail(detail))
}

/// How long something is good. Beyond what a time can say it would be good for ever, and be shown with no date.
fn lifetime(seconds: u64) -> Result<Duration, Fault> {
    if seconds > LONGEST {
        return Err(Fault::bad(format!("`expires_in` is at most {LONGEST} seconds, which is 100 years")));
    }
    Ok(Duration::from_secs(seconds))
}

async fn list(desk: &Desk, wanted: impl Fn(&KeyRow) -> bool) -> Result<Done, Fault> {
    let rows = desk.store.keys().await.map_err(|cause| Fault::ours("the rows cannot be read", &cause))?;
    let now = desk.clock.now();
    let keys: Vec<Value> = rows.iter().filter(|row| wanted(row)).map(|row| describe(row, now)).collect();
    Ok(Done::json(json!({ "keys": keys })))
}

fn describe(row: &KeyRow, now: Timestamp) -> Value {
    let state = match (row.revoked, row.expires) {
        (Some(_), _) => "revoked",
        (None, Some(expires)) if expires <= now => "expired",
        (None, _) => "valid",
    };
    let (holder, whose) = match &row.opens {
        KeyUse::Agent(agent) => ("agent", agent.as_str()),
        KeyUse::Admin(role) => ("role", role.as_str()),
    };
    json!({
        "id": row.id,
        holder: whose,
        "state": state,
        "label": Some(&row.label).filter(|label| !label.is_empty()),
        "created": row.created.to_string(),
        "expires": row.expires.map(|at| at.to_string()),
        "revoked": row.revoked.map(|at| at.to_string()),
    })
}

async fn create(desk: &Desk, holder: KeyHolder, wanted: Wanted) -> Result<Done, Fault> {
    let label = wanted.label.unwrap_or_default();
    if label.len() > LABEL || label.contains(char::is_control) {
        return Err(Fault::bad("a label has at most 128 characters, none of them a control character"));
    }
    if wanted.expires_in == Some(0) {
        return Err(Fault::bad("a key that ends at once opens nothing"));
    }
    let created = desk.clock.now();
    let expires = wanted.expires_in.map(lifetime).transpose()?.map(|lifetime| created.plus(lifetime));
    let (kind, opens) = match &holder {
        KeyHolder::Agent(agent) => (KeyKind::Agent, KeyUse::Agent(agent.clone())),
        KeyHolder::Admin(role) => (KeyKind::Admin, KeyUse::Admin(role.as_str().to_owned())),
    };
    let whose = match &holder {
        KeyHolder::Agent(agent) => agent.to_string(),
        KeyHolder::Admin(role) => role.to_string(),
    };
    let failed = |cause: &dyn std::error::Error| Fault::ours("the key was not made", cause).to(&whose);
    for _ in 0..DRAWS {
        let key = ApiKey::generate(kind).map_err(|cause| failed(&cause))?;
        let row = KeyRow {
            id: key.id().to_string(),
            hash: key.hash(),
            tenant: desk.tenant.clone(),
            opens: opens.clone(),
            label: label.clone(),
            created,
            expires,
            revoked: None,
        };
        match desk.store.add_key(&row).await {
            Ok(()) => {}
            Err(StoreFault::Duplicate) => continue,
            Err(cause) => return Err(failed(&cause)),
        }
        let (id, hash) = (key.id().clone(), key.hash());
        desk.registry.insert_key(identity::KeyRow { id, hash, holder, expires, revoked: false });
        let mut body = describe(&row, created);
        // SECURITY: the one time the key is shown.
        if let Value::Object(members) = &mut body {
            members.insert("key".to_owned(), Value::String(key.text().expose().clone()));
        }
        let until = expires.map_or_else(|| "for ever".to_owned(), |at| format!("until {at}"));
        return Ok(Done::json(body).to(&whose).detail(format!("key {} {until}", row.id)));
    }
    Err(Fault::new(http::StatusCode::INTERNAL_SERVER_ERROR, "fault", "the key was not made: no id is free").to(&whose))
}

async fn revoke(desk: &Desk, id: &str, of_agent: bool) -> Result<Done, Fault> {
    let id: KeyId = name(id)?;
    let failed = |cause: StoreFault| Fault::ours("the key was not revoked", &cause).to(&id);
    let row = desk.store.key(id.as_str()).await.map_err(failed)?;
    let agent = match row.map(|row| row.opens) {
        Some(KeyUse::Agent(agent)) if of_agent => Some(agent),
        Some(KeyUse::Admin(_)) if !of_agent => None,
        Some(KeyUse::Admin(_)) => {
            return Err(Fault::missing(format!("{id} is a management key: `durward admin key revoke`")).to(&id));
        }
        Some(KeyUse::Agent(_)) => {
            return Err(Fault::missing(format!("{id} is the key of an agent: `durward agent key revoke`")).to(&id));
        }
        None => return Err(Fault::missing(format!("there is no key {id}")).to(&id)),
    };
    let revoked = desk.store.revoke_key(id.as_str(), desk.clock.now()).await.map_err(failed)?;
    desk.registry.revoke_key(&id);
    desk.end_sessions(|holder| *holder.credential_id() == CredentialId::Key(id.clone()));
    let detail = match (&agent, revoked) {
        (_, false) => "it was revoked before".to_owned(),
        (Some(agent), true) => format!("of agent {agent}"),
        (None, true) => "of an administrator".to_owned(),
    };
    Ok(Done::json(json!({ "id": id.as_str(), "state": "revoked", "agent": agent })).to(&id).detail(detail))
}
