//! Every route, the least role that may use it, and whether it leaves a record.

use crate::{agent, audit_log, desk::Desk, explain, gate, key, secret, server, status, text};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{MethodRouter, delete, get, post, put},
};
use identity::AdminRole::{self, Operator, Owner, Viewer};
use std::sync::Arc;

/// The largest request body.
const BODY: usize = 4 << 20;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever reaches the listener.
    Open,
    /// Whoever has this role or a higher one.
    Least(AdminRole),
}

/// When the use of a route is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// Always: it changes something, or reads what others did.
    Always,
    /// When it was refused: looking changes nothing.
    WhenRefused,
}
use Recorded::{Always, WhenRefused};

/// What the gate knows of a route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// `GET`, `POST`, …
    pub(crate) method: &'static str,
    /// Its path, with `{…}` for names.
    pub(crate) path: &'static str,
    /// Who may.
    pub(crate) access: Access,
    /// What the record calls it.
    pub(crate) action: &'static str,
    /// Whether there is one.
    pub(crate) recorded: Recorded,
}

type Served = MethodRouter<Arc<Desk>>;

const fn least(
    role: AdminRole,
    method: &'static str,
    path: &'static str,
    action: &'static str,
    recorded: Recorded,
) -> Rule {
    Rule { method, path, access: Access::Least(role), action, recorded }
}

const fn open(path: &'static str, action: &'static str) -> Rule {
    Rule { method: "GET", path, access: Access::Open, action, recorded: WhenRefused }
}

/// The table.
#[rustfmt::skip]
pub(crate) fn routes() -> Vec<(Rule, Served)> {
    vec![
        (open("/healthz", "health"), get(status::health)),
        (open("/readyz", "ready"), get(status::ready)),
        (open("/metrics", "metrics"), get(status::metrics)),

        (least(Viewer, "GET", "/api/status", "status", WhenRefused), get(status::status)),
        (least(Operator, "POST", "/api/reload", "reload", Always), post(status::reload)),

        (least(Viewer, "GET", "/api/agents", "agent.list", WhenRefused), get(agent::list)),
        (least(Operator, "POST", "/api/agents/{agent}/disable", "agent.disable", Always), post(agent::disable)),
        (least(Operator, "POST", "/api/agents/{agent}/enable", "agent.enable", Always), post(agent::enable)),
        (least(Owner, "POST", "/api/agents/{agent}/keys", "agent.key.create", Always), post(key::create_agent_key)),
        (least(Viewer, "GET", "/api/agent-keys", "agent.key.list", WhenRefused), get(key::list_agent_keys)),
        (least(Operator, "DELETE", "/api/agent-keys/{id}", "agent.key.revoke", Always), delete(key::revoke_agent_key)),
        (least(Operator, "POST", "/api/revoked-tokens", "agent.token.revoke", Always), post(key::revoke_token)),

        (least(Viewer, "GET", "/api/admin-keys", "admin.key.list", WhenRefused), get(key::list_admin_keys)),
        (least(Owner, "POST", "/api/admin-keys", "admin.key.create", Always), post(key::create_admin_key)),
        (least(Owner, "DELETE", "/api/admin-keys/{id}", "admin.key.revoke", Always), delete(key::revoke_admin_key)),

        (least(Viewer, "GET", "/api/secrets", "secret.list", WhenRefused), get(secret::list)),
        (least(Owner, "PUT", "/api/secrets/{name}", "secret.set", Always), put(secret::set)),
        (least(Owner, "POST", "/api/secrets/{name}/rotate", "secret.rotate", Always), post(secret::rotate)),
        (least(Owner, "DELETE", "/api/secrets/{name}", "secret.rm", Always), delete(secret::rm)),
        (least(Owner, "POST", "/api/vault/import-fernet", "secret.import-fernet", Always), post(secret::import_fernet)),
        (least(Owner, "POST", "/api/vault/rotate-master", "secret.rotate-master", Always), post(secret::rotate_master)),

        (least(Viewer, "GET", "/api/servers", "server.list", WhenRefused), get(server::list)),
        (least(Operator, "POST", "/api/servers/look", "server.look", Always), post(server::look)),
        (least(Viewer, "POST", "/api/policy/explain", "policy.explain", WhenRefused), post(explain::route)),

        (least(Viewer, "GET", "/api/audit/records", "audit.search", Always), get(audit_log::search)),
        (least(Viewer, "GET", "/api/audit/calls/{call}", "audit.show", Always), get(audit_log::show)),
        (least(Viewer, "GET", "/api/audit/calls/{call}/proof", "audit.prove", Always), get(audit_log::prove)),
        (least(Operator, "GET", "/api/audit/calls/{call}/texts", "audit.texts", Always), get(text::show)),
        (least(Owner, "POST", "/api/audit/erase", "audit.erase", Always), post(text::erase)),
        (least(Operator, "POST", "/api/audit/verify", "audit.verify", Always), post(audit_log::verify)),
        (least(Viewer, "GET", "/api/audit/checkpoint", "audit.checkpoint", WhenRefused), get(audit_log::checkpoint)),
        (least(Viewer, "GET", "/api/audit/key", "audit.key", WhenRefused), get(audit_log::key)),
    ]
}

/// The routes over `desk`, each behind the gate. Every request must carry a [`crate::Door`].
pub fn router(desk: &Arc<Desk>) -> Router {
    let mut router = Router::new();
    for (rule, served) in routes() {
        let gate = gate::Gate { desk: Arc::clone(desk), rule };
        router = router.route(rule.path, served.layer(middleware::from_fn_with_state(gate, gate::pass)));
    }
    router.fallback(status::nothing).layer(DefaultBodyLimit::max(BODY)).with_state(Arc::clone(desk))
}
