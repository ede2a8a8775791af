//! `durward secret`

use super::{
    agent::told,
    office::{Office, Site},
    print, prompt,
};
use crate::{
    cli::{Exit, Output, SecretCommand, Shared},
    config::settings::KeySource,
};
use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};

pub(crate) async fn run(shared: &Shared, command: &SecretCommand) -> Result<Exit> {
    let site = Site::find(shared)?;
    // Values are read first: nobody holds the directory while a person types.
    let body = match command {
        SecretCommand::Set { name } | SecretCommand::Rotate { name } => {
            Some(json!({ "value": prompt::secret(&format!("value of {name}"))?.expose() }))
        }
        SecretCommand::ImportFernet { file } => {
            let tokens = tokens(file)?;
            Some(json!({ "key": prompt::secret("Fernet key")?.expose(), "tokens": tokens }))
        }
        SecretCommand::RotateMaster => match site.load()?.settings.vault.key {
            KeySource::Data | KeySource::File(_) => None,
            KeySource::Env(_) | KeySource::Command(_) => {
                Some(json!({ "key": prompt::secret("new master key")?.expose() }))
            }
        },
        SecretCommand::List | SecretCommand::Rm { .. } => None,
    };
    let makes = matches!(command, SecretCommand::Set { .. } | SecretCommand::ImportFernet { .. });
    let office = Office::open(&site, makes).await?;
    let result = ask(&office, shared.output, command, body.as_ref()).await;
    office.close().await?;
    result.map(|()| Exit::Done)
}

async fn ask(office: &Office, output: Output, command: &SecretCommand, body: Option<&Value>) -> Result<()> {
    match command {
        SecretCommand::Set { name } => {
            let done = office.ask(Method::PUT, &format!("/api/secrets/{name}"), body).await?.value()?;
            told(output, &done, &format!("secret {name} is stored, version {}", print::text(&done, "version")))
        }
        SecretCommand::Rotate { name } => {
            let done = office.ask(Method::POST, &format!("/api/secrets/{name}/rotate"), body).await?.value()?;
            told(output, &done, &format!("secret {name} has version {}", print::text(&done, "version")))
        }
        SecretCommand::Rm { name } => {
            let done = office.ask(Method::DELETE, &format!("/api/secrets/{name}"), None).await?.value()?;
            told(output, &done, &format!("secret {name} is removed"))
        }
        SecretCommand::List => {
            let secrets = office.ask(Method::GET, "/api/secrets", None).await?.value()?;
            print::list(output, &secrets, "secrets", ["name", "version", "created", "changed"], |secret| {
                let [name, version] = ["name", "version"].map(|member| print::text(secret, member));
                [name, version, print::time(secret, "created"), print::time(secret, "changed")]
            })
        }
        SecretCommand::ImportFernet { .. } => {
            let done = office.ask(Method::POST, "/api/vault/import-fernet", body).await?.value()?;
            let mut text = format!("imported {} secrets", print::text(&done, "imported"));
            let replaced: Vec<&str> = done
                .get("replaced")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            if !replaced.is_empty() {
                text = format!("{text}, of which these were there and are replaced: {}", replaced.join(", "));
            }
            told(output, &done, &text)
        }
        SecretCommand::RotateMaster => {
            let done = office.ask(Method::POST, "/api/vault/rotate-master", body).await?.value()?;
            let text = match body {
                None => "the secrets are under a new master key",
                Some(_) => "the secrets are under the new master key; put it where `vault:` says before the next start",
            };
            told(output, &done, text)
        }
    }
}

/// One secret a line, `NAME TOKEN`. SECURITY: faults name the line, never what stands in it.
fn tokens(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut tokens = Vec::new();
    let mut lines = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(name), Some(token), None) if name.parse::<vocab::SecretName>().is_ok() => {
                if let Some(first) = lines.insert(name, number + 1) {
                    bail!(
                        "{}: lines {first} and {} both name {name}; nothing was imported",
                        file.display(),
                        number + 1
                    );
                }
                tokens.push(json!({ "name": name, "token": token }));
            }
            _ => bail!("{}:{}: write NAME TOKEN", file.display(), number + 1),
        }
    }
    if tokens.is_empty() {
        bail!("{} holds no secret", file.display());
    }
    Ok(tokens)
}
