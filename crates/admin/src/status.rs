//! Whether the gateway lives, whether it can serve, and what it is doing.

use crate::{
    answer::{Done, Fault, Nothing},
    desk::{Desk, Plane, Reloaded},
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::json;
use std::sync::{Arc, atomic::Ordering};

/// The format of Prometheus and its kin.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process answers.
pub(crate) async fn health() -> Done {
    Done::json(json!({ "healthy": true }))
}

/// Calls can be served: the log can be written and has a salt key, the gateway is not stopping, and a server is reached, if there is any.
pub(crate) async fn ready(State(desk): State<Arc<Desk>>) -> Response {
    let Some(plane) = &desk.plane else { return no_gateway().into_response() };
    let (up, down) = servers(plane);
    let log = desk.log.takes_calls(desk.clock.now()).is_ok();
    let stopping = *plane.state.stopping.borrow();
    let ready = log && !stopping && (up > 0 || down == 0);
    // Open to whoever reaches the listener: counts, no names.
    let body = json!({ "ready": ready, "log": log, "stopping": stopping, "servers": { "up": up, "down": down } });
    let mut response = Done::json(body).into_response();
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// What there is to measure.
pub(crate) async fn metrics(State(desk): State<Arc<Desk>>) -> Result<Done, Fault> {
    let plane = desk.plane.as_ref().ok_or_else(no_gateway)?;
    Ok(Done::typed(METRICS, (plane.metrics)()))
}

/// What the gateway is doing.
pub(crate) async fn status(State(desk): State<Arc<Desk>>) -> Result<Done, Fault> {
    let plane = desk.plane.as_ref().ok_or_else(no_gateway)?;
    let state = &plane.state;
    let snapshot = state.snapshot.load_full();
    let (up, down) = servers(plane);
    let stats = desk.log.stats();
    let log = desk.log.takes_calls(desk.clock.now());
    Ok(Done::json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "tenant": desk.tenant,
        "policy": { "version": snapshot.policies.version(), "rules": snapshot.policies.rule_count() },
        "servers": { "configured": snapshot.servers.len(), "up": up, "down": down },
        "calls_under_way": state.under_way.load(Ordering::Acquire),
        "sessions": state.sessions.count(),
        "processes": state.children.running(),
        "secrets": desk.vault.list().len(),
        "log": {
            "records": stats.size,
            "system_records": stats.system_size,
            "waiting": stats.queued,
            "last_commit_us": stats.last_commit_us,
            "signed": desk.log.checkpoint().map(|checkpoint| checkpoint.size()),
            "fault": log.err().map(|fault| fault.to_string()),
        },
    })))
}

/// Reads the configuration again.
pub(crate) async fn reload(State(desk): State<Arc<Desk>>, _: Nothing) -> Result<Done, Fault> {
    if desk.plane.is_none() {
        return Err(no_gateway());
    }
    let own = Arc::clone(&desk);
    let reloaded = tokio::task::spawn_blocking(move || own.plane.as_ref().map(|plane| (plane.reload)())).await;
    match reloaded {
        Ok(Some(Ok(Reloaded { changes, still }))) => {
            let detail = if changes.is_empty() { "nothing changed".to_owned() } else { changes.join("\n") };
            Ok(Done::json(json!({ "changes": changes, "still": still })).detail(detail))
        }
        Ok(Some(Err(why))) => Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, "configuration", why)),
        Ok(None) => Err(no_gateway()),
        Err(_) => Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", "the gateway failed to reload")),
    }
}

/// There is no such route.
pub(crate) async fn nothing() -> Fault {
    Fault::missing("there is no such route")
}

pub(crate) fn no_gateway() -> Fault {
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, "not-running", "the gateway is not running")
}

/// How many servers were reached and how many were not. One that nobody looked at yet is neither.
fn servers(plane: &Plane) -> (usize, usize) {
    let snapshot = plane.state.snapshot.load();
    let down = snapshot.servers.values().filter(|server| server.state.fault.load().is_some()).count();
    let up = snapshot
        .servers
        .values()
        .filter(|server| server.state.fault.load().is_none() && server.state.catalog.load().is_some())
        .count();
    (up, down)
}
