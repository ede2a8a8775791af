//! Secrets: values come in, and never go out.

use crate::{
    answer::{Done, Fault, Nothing, Table, name, read},
    desk::Desk,
};
use axum::{
    body::Bytes,
    extract::{Path, State},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use vault::{KeySource, MasterKey, VaultFault};
use vocab::{Secret, SecretName};

/// A value on its way in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    value: String,
}

/// Tokens on their way in, and what opens them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fernet {
    key: String,
    tokens: Vec<Table<FernetToken>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FernetToken {
    name: SecretName,
    token: String,
}

/// A master key on its way in; none means: make one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Master {
    key: Option<String>,
}

pub(crate) async fn list(State(desk): State<Arc<Desk>>) -> Done {
    let secrets: Vec<Value> = desk
        .vault
        .list()
        .into_iter()
        .map(|secret| {
            json!({
                "name": secret.name,
                "version": secret.version,
                "created": secret.created.to_string(),
                "changed": secret.rotated.to_string(),
            })
        })
        .collect();
    Done::json(json!({ "secrets": secrets }))
}

pub(crate) async fn set(State(desk): State<Arc<Desk>>, Path(name): Path<String>, body: Bytes) -> Result<Done, Fault> {
    store(&desk, &name, &body, |desk, name, value| desk.vault.set(name, value, desk.clock.now())).await
}

pub(crate) async fn rotate(
    State(desk): State<Arc<Desk>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Done, Fault> {
    store(&desk, &name, &body, |desk, name, value| desk.vault.rotate(name, value, desk.clock.now())).await
}

pub(crate) async fn rm(State(desk): State<Arc<Desk>>, Path(text): Path<String>, _: Nothing) -> Result<Done, Fault> {
    let secret: SecretName = name(&text)?;
    let removed = secret.clone();
    change(&desk, move |desk| desk.vault.rm(&removed)).await.map_err(|fault| fault.to(&secret))?;
    Ok(Done::json(json!({ "name": secret, "state": "removed" })).to(&secret))
}

pub(crate) async fn import_fernet(State(desk): State<Arc<Desk>>, body: Bytes) -> Result<Done, Fault> {
    let Fernet { key, tokens } = read(&body, "{\"key\": KEY, \"tokens\": [{\"name\": NAME, \"token\": TOKEN}]}")?;
    let key = Secret::new(key);
    let tokens: Vec<FernetToken> = tokens.into_iter().map(|Table(token)| token).collect();
    let names: Vec<String> = tokens.iter().map(|token| token.name.to_string()).collect();
    let tokens: Vec<(SecretName, String)> = tokens.into_iter().map(|token| (token.name, token.token)).collect();
    let replaced = change(&desk, move |desk| desk.vault.import_fernet(&key, &tokens, desk.clock.now())).await?;
    let mut detail = names.join(", ");
    if !replaced.is_empty() {
        let replaced: Vec<&str> = replaced.iter().map(SecretName::as_str).collect();
        detail = format!("{detail}; replaced {}", replaced.join(", "));
    }
    Ok(Done::json(json!({ "imported": names.len(), "names": names, "replaced": replaced })).detail(detail))
}

pub(crate) async fn rotate_master(State(desk): State<Arc<Desk>>, body: Bytes) -> Result<Done, Fault> {
    let Master { key } = read(&body, "{\"key\": KEY}, or nothing")?;
    let given = key.is_some();
    let new = match key {
        // SECURITY: a key that was handed in while the old one lies in a file would be lost with the next start.
        Some(_) if desk.vault.keeps_its_key() => {
            return Err(Fault::conflict("the master key is kept in a file: send no key, one is made there"));
        }
        Some(text) => KeySource::Value(Secret::new(text)).load(&desk.log_dir),
        None => MasterKey::generate(),
    };
    let new = new.map_err(|cause| Fault::bad(cause.to_string()))?;
    change(&desk, move |desk| desk.vault.rotate_master(new)).await?;
    let how = if given { "from where it is kept" } else { "made anew" };
    Ok(Done::json(json!({ "rotated": true, "given": given })).detail(how))
}

async fn store(
    desk: &Arc<Desk>,
    text: &str,
    body: &[u8],
    put: fn(&Desk, &SecretName, &Secret<String>) -> Result<u64, VaultFault>,
) -> Result<Done, Fault> {
    let secret: SecretName = name(text)?;
    let Given { value } = read(body, "{\"value\": TEXT}").map_err(|fault| fault.to(&secret))?;
    let (value, stored) = (Secret::new(value), secret.clone());
    let version = change(desk, move |desk| put(desk, &stored, &value)).await.map_err(|fault| fault.to(&secret))?;
    let detail = format!("version {version}");
    Ok(Done::json(json!({ "name": secret, "version": version })).to(&secret).detail(detail))
}

/// The vault waits for the disk: that is not done on the thread of the listener.
async fn change<T: Send + 'static>(
    desk: &Arc<Desk>,
    change: impl FnOnce(&Desk) -> Result<T, VaultFault> + Send + 'static,
) -> Result<T, Fault> {
    let own = Arc::clone(desk);
    let broken = || Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", "the vault failed to do this");
    let changed = tokio::task::spawn_blocking(move || change(&own)).await.map_err(|_| broken())?;
    changed.map_err(|fault| match &fault {
        VaultFault::Unknown(_) => Fault::missing(fault.to_string()),
        VaultFault::Size(_) | VaultFault::FernetKey | VaultFault::FernetToken(_) | VaultFault::Twice(_) => {
            Fault::bad(fault.to_string())
        }
        VaultFault::NoHome => Fault::conflict(fault.to_string()),
        VaultFault::File { .. }
        | VaultFault::Mode { .. }
        | VaultFault::Key(_)
        | VaultFault::WrongKey { .. }
        | VaultFault::Tampered { .. }
        | VaultFault::Newer { .. }
        | VaultFault::OtherTenant { .. }
        | VaultFault::Gone { .. }
        | VaultFault::Sealed(_)
        | VaultFault::TextKey
        | VaultFault::Crypto => Fault::ours("nothing was changed", &fault),
    })
}
