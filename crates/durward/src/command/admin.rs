//! `durward admin`

use super::{
    agent,
    office::{Office, Site},
    print,
};
use crate::cli::{AdminCommand, AdminKeyCommand, Exit, Output, Shared};
use anyhow::Result;
use http::Method;
use serde_json::json;

pub(crate) async fn run(shared: &Shared, command: &AdminCommand) -> Result<Exit> {
    let AdminCommand::Key(command) = command;
    let site = Site::find(shared)?;
    let office = Office::open(&site, matches!(command, AdminKeyCommand::Create { .. })).await?;
    let result = ask(&office, shared.output, command).await;
    office.close().await?;
    result.map(|()| Exit::Done)
}

async fn ask(office: &Office, output: Output, command: &AdminKeyCommand) -> Result<()> {
    match command {
        AdminKeyCommand::Create { role, expires, label } => {
            let body = json!({ "role": role.as_str(), "expires_in": expires.map(agent::seconds), "label": label });
            let made = office.ask(Method::POST, "/api/admin-keys", Some(&body)).await?.value()?;
            agent::shown_once(output, &made, &format!("with the role {role}"))
        }
        AdminKeyCommand::List => {
            let keys = office.ask(Method::GET, "/api/admin-keys", None).await?.value()?;
            agent::list_keys(output, &keys, "role")
        }
        AdminKeyCommand::Revoke { id } => {
            let done = office.ask(Method::DELETE, &format!("/api/admin-keys/{id}"), None).await?.value()?;
            agent::told(output, &done, &format!("key {} is revoked", print::text(&done, "id")))
        }
    }
}
