//! `durward agent`

use super::{
    office::{Office, Site},
    print, prompt,
};
use crate::{
    cli::{AgentCommand, AgentKeyCommand, Exit, Output, Shared},
    config::Lifetime,
};
use anyhow::{Context, Result};
use http::Method;
use identity::Identity;
use serde_json::{Value, json};
use vocab::Digest;

pub(crate) async fn run(shared: &Shared, command: &AgentCommand) -> Result<Exit> {
    let site = Site::find(shared)?;
    let makes = matches!(command, AgentCommand::Key(AgentKeyCommand::Create { .. }));
    let office = Office::open(&site, makes).await?;
    let result = ask(&office, shared.output, command).await;
    office.close().await?;
    result.map(|()| Exit::Done)
}

async fn ask(office: &Office, output: Output, command: &AgentCommand) -> Result<()> {
    match command {
        AgentCommand::List => {
            let agents = office.ask(Method::GET, "/api/agents", None).await?.value()?;
            let header = ["agent", "state", "roles", "environments", "keys", "reason"];
            print::list(output, &agents, "agents", header, |agent| header.map(|member| print::text(agent, member)))
        }
        AgentCommand::Disable { name, reason } => {
            let path = format!("/api/agents/{name}/disable");
            let body = json!({ "reason": reason });
            let done = office.ask(Method::POST, &path, Some(&body)).await?.value()?;
            told(output, &done, &format!("agent {name} is disabled; its next message is refused"))
        }
        AgentCommand::Enable { name } => {
            let done = office.ask(Method::POST, &format!("/api/agents/{name}/enable"), None).await?.value()?;
            told(output, &done, &format!("agent {name}: {}", print::text(&done, "state")))
        }
        AgentCommand::Key(AgentKeyCommand::Create { name, expires, label }) => {
            let body = json!({ "expires_in": expires.map(seconds), "label": label });
            let path = format!("/api/agents/{name}/keys");
            let made = office.ask(Method::POST, &path, Some(&body)).await?.value()?;
            shown_once(output, &made, &format!("of agent {name}"))
        }
        AgentCommand::Key(AgentKeyCommand::List) => {
            let keys = office.ask(Method::GET, "/api/agent-keys", None).await?.value()?;
            list_keys(output, &keys, "agent")
        }
        AgentCommand::Key(AgentKeyCommand::Revoke { id }) => {
            let done = office.ask(Method::DELETE, &format!("/api/agent-keys/{id}"), None).await?.value()?;
            told(output, &done, &format!("key {id} of agent {} is revoked", print::text(&done, "agent")))
        }
        AgentCommand::RevokeToken { token, expires } => {
            let digest = token.map_or_else(digest_of_token, Ok)?;
            let body = json!({ "token": digest, "expires_in": expires.map(seconds) });
            let done = office.ask(Method::POST, "/api/revoked-tokens", Some(&body)).await?.value()?;
            let which = match token {
                None => format!("the token (token:{digest})"),
                // Nobody can say whether there is one.
                Some(_) => format!("a token whose text before its last dot has the digest {digest}"),
            };
            told(output, &done, &format!("{which} is refused until {}", print::time(&done, "until")))
        }
    }
}

/// The digest that names the token on stdin.
fn digest_of_token() -> Result<Digest> {
    let token = prompt::secret("token")?;
    Identity::token_digest(token.expose().trim())
        .context("what came is no token of an issuer (`header.claims.signature`)")
}

/// What was done: as data for programs, as talk for people.
pub(crate) fn told(output: Output, done: &Value, text: &str) -> Result<()> {
    match output {
        Output::Json => print::json(done),
        Output::Table => {
            print::say(text);
            Ok(())
        }
    }
}

/// A new key: the key on stdout, the rest on stderr.
pub(crate) fn shown_once(output: Output, made: &Value, whose: &str) -> Result<()> {
    match output {
        Output::Json => print::json(made),
        Output::Table => {
            let until = match print::time(made, "expires") {
                none if none == "-" => "valid until it is revoked".to_owned(),
                time => format!("valid until {time}"),
            };
            print::say(&format!("key {} {whose}, {until}; it is not shown again:", print::text(made, "id")));
            print::data(&print::text(made, "key"))
        }
    }
}

/// Keys without the keys.
pub(crate) fn list_keys(output: Output, keys: &Value, holder: &str) -> Result<()> {
    print::list(output, keys, "keys", ["id", holder, "state", "label", "created", "expires"], |key| {
        let [id, whose, state, label] = ["id", holder, "state", "label"].map(|member| print::text(key, member));
        [id, whose, state, label, print::time(key, "created"), print::time(key, "expires")]
    })
}

/// A lifetime in seconds, never none at all.
pub(crate) fn seconds(lifetime: Lifetime) -> u64 {
    lifetime.0.as_secs().max(1)
}
