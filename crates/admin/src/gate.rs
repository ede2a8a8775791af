//! Between a listener and a route: who asks, may they, and the record of it.
//!
//! INVARIANT: an action that is recorded leaves exactly one record, whatever happens to the client or the handler.

use crate::{
    answer::{CALL, Fault, Memo},
    desk::{Desk, Plane},
    route::{Access, Recorded, Rule},
};
use audit::{AdminRecord, Leaf, LogFault, Outcome, SystemRecord};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE},
};
use identity::{AdminRole, AuthFault, Credential};
use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use vocab::{AgentId, CallId, PrincipalId};

/// How long an action may take.
const DEADLINE: Duration = Duration::from_mins(2);
/// How long the answer waits for its record to be signed too.
const SIGNED: Duration = Duration::from_secs(2);
/// How long the answer waits for its record to be on disk.
const DURABLE: Duration = Duration::from_secs(10);

/// Where a request came in. Whoever serves the router puts it into the request's extensions.
#[derive(Debug, Clone, Copy)]
pub enum Door {
    /// The socket in the data directory, or the directory itself: only its owner gets there.
    Local {
        /// The user of the process at the other end.
        uid: u32,
    },
    /// The network.
    Network {
        /// The other end.
        peer: SocketAddr,
    },
}

/// The gate of one route.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) desk: Arc<Desk>,
    pub(crate) rule: Rule,
}

/// Who asks, proven.
struct Actor {
    name: String,
    role: AdminRole,
    peer: Option<IpAddr>,
}

/// Lets a request through, or not.
pub(crate) async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    // A client that goes away must not leave a change without its record: the work has a task of its own.
    match tokio::spawn(gate.serve(request, next)).await {
        Ok(response) => response,
        Err(_) => broken().into_response(),
    }
}

impl Gate {
    async fn serve(self, request: Request, next: Next) -> Response {
        let Some(door) = request.extensions().get::<Door>().copied() else {
            return broken().into_response();
        };
        let call = match draw() {
            Ok(call) => call,
            Err(fault) => return fault.into_response(),
        };
        if self.rule.access == Access::Open {
            return match door {
                // Health says nothing that a page could use; the metrics name agents and servers.
                Door::Network { .. } if self.rule.path == "/metrics" => match self.addressed(request.headers()) {
                    Ok(()) => next.run(request).await,
                    Err(fault) => fault.into_response(),
                },
                Door::Local { .. } | Door::Network { .. } => next.run(request).await,
            };
        }
        let actor = match self.actor(door, request.headers()) {
            Ok(actor) => actor,
            Err(stop) => return self.stopped(stop, call, door),
        };
        let response = match self.may(&actor) {
            Ok(()) => run(request, next).await,
            Err(fault) => fault.into_response(),
        };
        self.record(response, call, actor).await
    }

    /// Who asks.
    fn actor(&self, door: Door, headers: &HeaderMap) -> Result<Actor, Stopped> {
        let peer = match door {
            Door::Local { uid } => {
                return Ok(Actor { name: format!("local:{uid}"), role: AdminRole::Owner, peer: None });
            }
            Door::Network { peer } => peer.ip(),
        };
        let plane = self.desk.plane.as_ref().ok_or_else(|| Stopped::of(broken(), "no gateway"))?;
        self.addressed(headers)
            .map_err(|fault| Stopped::of(fault, "addressed to another host or by another origin"))?;
        let ticks = self.desk.clock.ticks();
        let identity = &plane.state.snapshot.load().identity;
        let proven = Credential::of(headers)
            .and_then(|credential| identity.authenticate_admin(credential, self.desk.clock.now()));
        // A key costs one digest and cannot be guessed: whoever shares an address with a guesser goes on working.
        let administrator = proven.map_err(|fault| {
            if fault != AuthFault::Missing {
                if let Err(limited) = plane.limits.failed_authentication(peer, ticks) {
                    return Stopped::limited(&limited, "address");
                }
                plane.limits.note_failure(peer, ticks);
            }
            let message = "a valid management key is required; `durward admin key create` makes one";
            Stopped::of(Fault::new(StatusCode::UNAUTHORIZED, "unauthenticated", message), fault.code())
        })?;
        let name = format!("admin:{}", administrator.key());
        limited_as(plane, administrator.key().as_str(), &self.desk, ticks)?;
        Ok(Actor { name, role: administrator.role(), peer: Some(peer) })
    }

    /// SECURITY: against pages in browsers. The host must be an address, a loopback name or one that the operator
    /// named, so that no name of somebody else's can be bound to us; and a page must be one of ours.
    fn addressed(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let forbidden = |message: &str| Fault::new(StatusCode::FORBIDDEN, "origin", message);
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(Ok(host)), None) = (hosts.next().map(HeaderValue::to_str), hosts.next()) else {
            return Err(Fault::bad("send one Host header"));
        };
        let bare = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let bare = bare.map_or(host, |(name, _)| name);
        let address = bare.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        let named = bare.eq_ignore_ascii_case("localhost")
            || self.desk.plane.as_ref().is_some_and(|plane| {
                let known = &plane.state.snapshot.load().settings.hosts;
                known.iter().any(|known| known.eq_ignore_ascii_case(host) || known.eq_ignore_ascii_case(bare))
            });
        if !address && !named {
            return Err(forbidden("this host is not known here: name it under `hosts:`"));
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        let own = |origin: &HeaderValue| {
            origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(|(_, from)| from == host)
        };
        if origins.all(own) { Ok(()) } else { Err(forbidden("requests from pages elsewhere are not taken")) }
    }

    fn may(&self, actor: &Actor) -> Result<(), Fault> {
        match self.rule.access {
            Access::Open => {}
            Access::Least(least) if actor.role >= least => {}
            Access::Least(least) => {
                let message = format!("this needs the role {least}; the key has {}", actor.role);
                return Err(Fault::new(StatusCode::FORBIDDEN, "role", message));
            }
        }
        // Nothing happens without a record.
        if self.rule.recorded == Recorded::Always
            && let Err(fault) = self.desk.log.healthy()
        {
            let message = format!("nothing is done that cannot be recorded: {fault}");
            return Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, "log", message));
        }
        Ok(())
    }

    /// A request that nobody is known to have sent: the system's tree takes a bounded number of them.
    fn stopped(&self, stop: Stopped, call: CallId, door: Door) -> Response {
        let desk = &self.desk;
        let mut response = stop.fault.into_response();
        let memo = response.extensions().get::<Memo>().cloned().unwrap_or_default();
        let peer = match door {
            Door::Local { .. } => None,
            Door::Network { peer } => Some(peer.ip().to_string()),
        };
        let record = SystemRecord {
            call: Some(call),
            detail: Some(stop.detail),
            http_status: Some(response.status().as_u16()),
            method: Some(self.rule.action.to_owned()),
            outcome: Some(Outcome::Refused {
                reason: Cow::Borrowed(memo.reason.unwrap_or("refused")),
                stage: Cow::Borrowed("authenticate"),
            }),
            peer,
            ..SystemRecord::new(Cow::Borrowed("admin-refused"), desk.tenant.clone(), desk.clock.now())
        };
        if let Err(fault) = desk.log.append_system(record) {
            tracing::error!(%fault, action = self.rule.action, "a refusal could not be recorded");
        }
        let headers = response.headers_mut();
        if let Some(retry) = stop.retry {
            headers.insert(RETRY_AFTER, HeaderValue::from(retry));
        }
        if memo.reason == Some("unauthenticated") {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        marked(response, call)
    }

    async fn record(&self, response: Response, call: CallId, actor: Actor) -> Response {
        let status = response.status();
        if self.rule.recorded == Recorded::WhenRefused && status.is_success() {
            return marked(response, call);
        }
        let memo = response.extensions().get::<Memo>().cloned().unwrap_or_default();
        let reason = Cow::Borrowed(memo.reason.unwrap_or("refused"));
        let stage = Cow::Borrowed(if memo.reason == Some("role") { "authorize" } else { "perform" });
        let outcome = match status {
            _ if status.is_success() => Outcome::Answered,
            _ if status.is_client_error() => Outcome::Refused { reason, stage },
            _ => Outcome::Faulted { reason, stage },
        };
        let record = AdminRecord {
            action: Cow::Borrowed(self.rule.action),
            actor: actor.name,
            at: self.desk.clock.now(),
            call,
            detail: memo.detail,
            outcome,
            peer: actor.peer.map(|peer| peer.to_string()),
            target: memo.target,
            tenant: self.desk.tenant.clone(),
        };
        let why = record.detail.clone();
        let stored = self.store(record).await;
        if stored.is_ok() && self.rule.method != "GET" {
            // Whoever looks into the log next finds it: records are read as far as they are signed. It is on disk
            // already, so a slow signature is not waited for.
            let _ = tokio::time::timeout(SIGNED, self.desk.log.flush()).await;
        }
        match stored {
            Ok(()) => marked(response, call),
            // The answer says already that the log cannot be written, and that nothing was done.
            Err(_) if memo.reason == Some("log") => marked(response, call),
            Err(fault) => {
                tracing::error!(%fault, action = self.rule.action, "an action is not recorded yet");
                let (status, what) = match why {
                    _ if status.is_success() => (StatusCode::INTERNAL_SERVER_ERROR, "it was done".to_owned()),
                    Some(why) => (status, format!("it was not done ({why})")),
                    None => (status, "it was not done".to_owned()),
                };
                let message = format!("{what}, {fault}");
                marked(Fault::new(status, "log", message).into_response(), call)
            }
        }
    }
}

impl Gate {
    /// Waits until a record is on disk, or says what became of it.
    async fn store(&self, record: AdminRecord) -> Result<(), String> {
        let lost = |fault: LogFault| format!("but its record could not be written: {fault}");
        let pending = self.desk.log.append(Leaf::Admin(record)).map_err(lost)?;
        match tokio::time::timeout(DURABLE, pending.durable()).await {
            Ok(Ok(_)) => Ok(()),
            // What was taken stays queued.
            Ok(Err(fault @ LogFault::Disk(_))) => Err(format!("and its record waits to be written: {fault}")),
            Ok(Err(fault)) => Err(lost(fault)),
            Err(_) => Err("and its record still waits: the disk is slow".to_owned()),
        }
    }
}

/// Why nobody is known to ask.
struct Stopped {
    fault: Fault,
    detail: String,
    retry: Option<u64>,
}

impl Stopped {
    fn of(fault: Fault, detail: impl Into<String>) -> Self {
        Self { fault, detail: detail.into(), retry: None }
    }

    fn limited(limited: &gateway::limit::Limited, whose: &str) -> Self {
        let retry = limited.retry_in.as_secs() + 1;
        let message = format!("too many requests; try again in {retry} s");
        let fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, "limited", message);
        Self { fault, detail: format!("limit of the {whose}"), retry: Some(retry) }
    }
}

/// Each key has a bucket of its own.
fn limited_as(plane: &Plane, key: &str, desk: &Desk, ticks: u64) -> Result<(), Stopped> {
    let agent = AgentId::new(key).map_err(|_| Stopped::of(broken(), "key id"))?;
    let principal = PrincipalId { agent, tenant: desk.tenant.clone(), user: None, issuer: None };
    plane.limits.attempt(&principal, ticks).map_err(|limited| Stopped::limited(&limited, "key"))
}

/// Runs the handler on a task of its own: a panic ends the request, not its record.
async fn run(request: Request, next: Next) -> Response {
    match tokio::spawn(tokio::time::timeout(DEADLINE, next.run(request))).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            let message = "it took too long; whether it was done must be looked up";
            Fault::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message).into_response()
        }
        Err(_) => broken().into_response(),
    }
}

fn marked(mut response: Response, call: CallId) -> Response {
    if let Ok(value) = HeaderValue::from_str(&call.to_string()) {
        response.headers_mut().insert(CALL, value);
    }
    response
}

fn draw() -> Result<CallId, Fault> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| broken())?;
    Ok(CallId::from_bytes(bytes))
}

fn broken() -> Fault {
    Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", "the gateway failed to do this")
}
