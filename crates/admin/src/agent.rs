//! Agents: who is registered, and switching them off and on.

use crate::{
    answer::{Done, Fault, Nothing, name, read},
    desk::Desk,
};
use axum::{
    body::Bytes,
    extract::{Path, State},
};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use store::KeyUse;
use vocab::AgentId;

/// What `disable` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    reason: Option<String>,
}

pub(crate) async fn list(State(desk): State<Arc<Desk>>) -> Result<Done, Fault> {
    let stored = |cause| Fault::ours("the rows cannot be read", &cause);
    let configured = (desk.agents)();
    let rows = desk.store.agents().await.map_err(stored)?;
    let keys = desk.store.keys().await.map_err(stored)?;
    let now = desk.clock.now();
    let mut agents = Vec::new();
    let known = rows.iter().filter(|row| row.disabled.is_some()).map(|row| &row.agent);
    let mut names: Vec<&AgentId> = configured.keys().chain(known).collect();
    names.sort_unstable();
    names.dedup();
    for agent in names {
        let setting = configured.get(agent);
        let row = rows.iter().find(|row| row.agent == *agent);
        let disabled = row.and_then(|row| row.disabled);
        let state = match (setting, disabled) {
            (None, _) => "not configured",
            (Some(_), Some(_)) => "disabled",
            (Some(setting), None) if setting.disabled => "disabled in the configuration",
            (Some(_), None) => "enabled",
        };
        let valid = keys.iter().filter(|key| {
            key.opens == KeyUse::Agent(agent.clone())
                && key.revoked.is_none()
                && key.expires.is_none_or(|expires| expires > now)
        });
        agents.push(json!({
            "agent": agent,
            "state": state,
            "roles": setting.map(|setting| &setting.roles),
            "environments": setting.map(|setting| &setting.environments),
            "groups": setting.map(|setting| setting.groups.iter().map(|group| &**group).collect::<Vec<_>>()),
            "keys": valid.count(),
            "disabled_at": disabled.map(|at| at.to_string()),
            "reason": row.and_then(|row| row.reason.as_deref()).filter(|reason| !reason.is_empty()),
        }));
    }
    Ok(Done::json(json!({ "agents": agents })))
}

pub(crate) async fn disable(
    State(desk): State<Arc<Desk>>,
    Path(agent): Path<String>,
    body: Bytes,
) -> Result<Done, Fault> {
    let agent: AgentId = name(&agent)?;
    let Why { reason } = read(&body, "{\"reason\": TEXT}, or nothing").map_err(|fault| fault.to(&agent))?;
    registered(&desk, &agent)?;
    let why = reason.unwrap_or_default();
    desk.store
        .disable_agent(&desk.tenant, &agent, &why, desk.clock.now())
        .await
        .map_err(|cause| Fault::ours("the agent was not disabled", &cause).to(&agent))?;
    desk.registry.disable_agent(&agent);
    desk.end_sessions(|holder| holder.id().agent == agent);
    let done = Done::json(json!({ "agent": agent, "state": "disabled" })).to(&agent);
    Ok(if why.is_empty() { done } else { done.detail(why) })
}

pub(crate) async fn enable(
    State(desk): State<Arc<Desk>>,
    Path(agent): Path<String>,
    _: Nothing,
) -> Result<Done, Fault> {
    let agent: AgentId = name(&agent)?;
    let was_off = desk
        .store
        .enable_agent(&desk.tenant, &agent)
        .await
        .map_err(|cause| Fault::ours("the agent was not enabled", &cause).to(&agent))?;
    desk.registry.enable_agent(&agent);
    if !was_off {
        registered(&desk, &agent)?;
    }
    let configured = (desk.agents)().get(&agent).map(|setting| setting.disabled);
    let state = match configured {
        Some(false) => "enabled",
        Some(true) => "disabled in the configuration",
        None => "not configured",
    };
    let done = Done::json(json!({ "agent": agent, "state": state, "was_disabled": was_off })).to(&agent);
    Ok(if was_off { done } else { done.detail("it was not disabled") })
}

/// SECURITY: a mistyped name must not look as if something had been done to an agent.
pub(crate) fn registered(desk: &Desk, agent: &AgentId) -> Result<(), Fault> {
    if (desk.agents)().contains_key(agent) {
        return Ok(());
    }
    let message = format!("there is no agent `{agent}`: the configuration names none under `agents:`");
    Err(Fault::missing(message).to(agent))
}
