//! What would be decided for a call, and why: the same decision function as for calls, asked by somebody else.

use crate::{
    answer::{Done, Fault, read},
    desk::Desk,
    status::no_gateway,
};
use axum::{body::Bytes, extract::State};
use gateway::{catalog::Fitness, snapshot::Snapshot};
use identity::AgentSetting;
use policy::{Decision, Explanation, Question, Resource, Subject};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{sync::Arc, time::Duration};
use vocab::{
    Action, AgentId, Class, Digest, EnvironmentName, PrincipalId, RoleName, ServerName, TargetId, Timestamp, UserId,
};

/// How long a server that is down or not known yet may take to show itself.
const LOOK: Duration = Duration::from_secs(5);
/// What neither form of the question looks at.
const SKIPPED: [&str; 2] = ["limits", "detectors"];

/// The call that is asked about.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Who would call.
    pub agent: AgentId,
    /// What would be called: `server/name`.
    pub tool: String,
    /// What would be done; `tool.execute` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// For whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// Roles beside those of the registration, as a token would bring them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleName>,
    /// Groups, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Scopes, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Instead of the server's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// Instead of the tool's class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// Beside the tool's labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The arguments; `{}` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Box<RawValue>>,
    /// When, as RFC 3339; now unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// What policy says, and why.
    pub policy: Explanation,
    /// What else would stop the call before it is forwarded.
    pub obstacles: Vec<String>,
    /// Whether the arguments fit.
    pub schema: Schema,
    /// Stages that were not asked.
    pub skipped: [&'static str; 2],
}

/// Whether arguments fit a tool's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schema {
    /// They do.
    Fits,
    /// They do not.
    Differs,
    /// There is none, or it was waived.
    None,
    /// It cannot be used: every call of the tool is refused.
    Unusable,
    /// Nobody knows: the server was not asked what it offers.
    Unknown,
}

impl Explained {
    /// Whether the call would be refused.
    pub fn refused(&self) -> bool {
        self.policy.decision == Decision::Deny || !self.obstacles.is_empty()
    }
}

/// Decides like the line does, on `snapshot`. `agent` is its registration; `disabled`: it was switched off at run time.
pub fn explain(
    snapshot: &Snapshot,
    agent: Option<&AgentSetting>,
    disabled: bool,
    asked: &Asked,
    now: Timestamp,
) -> Result<Explained, String> {
    let (server, name) = match asked.tool.split_once('/') {
        Some((server, name)) if !name.is_empty() => (server, name),
        Some(_) | None => return Err("`tool` is server/name, as files/read_file".to_owned()),
    };
    let server: ServerName = server.parse().map_err(|fault: vocab::NameError| fault.to_string())?;
    let now = match &asked.at {
        Some(text) => text.parse().map_err(|fault: vocab::TimestampError| fault.to_string())?,
        None => now,
    };
    let text = asked.arguments.as_ref().map_or("{}", |raw| raw.get());
    let arguments = mcp::value(text.as_bytes()).map_err(|fault| format!("arguments: {fault}"))?;
    let tenant = &snapshot.settings.tenant;
    let mut obstacles = Vec::new();
    match agent {
        None => obstacles.push(format!("agent `{}` is not in the configuration", asked.agent)),
        Some(setting) if setting.disabled => {
            obstacles.push(format!("agent `{}` is disabled in the configuration", asked.agent));
        }
        Some(_) if disabled => obstacles.push(format!("agent `{}` is disabled", asked.agent)),
        Some(_) => {}
    }
    let registered = agent.cloned().unwrap_or_default();
    let subject = Subject {
        id: PrincipalId { agent: asked.agent.clone(), tenant: tenant.clone(), user: asked.user.clone(), issuer: None },
        roles: joined(&registered.roles, &asked.roles),
        groups: joined(&registered.groups.iter().map(ToString::to_string).collect::<Vec<_>>(), &asked.groups),
        scopes: joined(&asked.scopes, &[]),
        environments: registered.environments,
    };
    let known = snapshot.servers.get(&server);
    let mut resource = if let Some(server) = known {
        server.resource(name)
    } else {
        obstacles.push(format!("server `{server}` is not in the configuration"));
        let id = TargetId { tenant: tenant.clone(), server, name: Arc::from(name) };
        Resource { id, environment: None, class: Class::Unclassified, labels: Vec::new() }
    };
    resource.environment = asked.environment.clone().or(resource.environment);
    resource.class = asked.class.unwrap_or(resource.class);
    resource.labels.extend(asked.labels.iter().cloned());
    let action = asked.action.unwrap_or(Action::ToolExecute);
    let catalog = known.and_then(|server| server.state.catalog.load_full());
    let tool = catalog.as_ref().filter(|_| action == Action::ToolExecute).map(|catalog| catalog.tool(name));
    let schema = match tool {
        None => Schema::Unknown,
        Some(None) => {
            obstacles.push(format!("server `{}` has no tool `{name}`", resource.id.server));
            Schema::Unknown
        }
        Some(Some(_)) if known.is_some_and(|server| server.skips_schema(name)) => Schema::None,
        Some(Some((tool, era))) => match (tool.refused(era), &tool.fitness) {
            (Some(why), _) => {
                obstacles.push(format!("the tool's schema cannot be used: {why}"));
                Schema::Unusable
            }
            (None, Fitness::Unfit(_)) => Schema::None,
            (None, Fitness::Fit(schema)) if schema.is_valid(&arguments) => Schema::Fits,
            (None, Fitness::Fit(_)) => {
                obstacles.push("the arguments do not fit the tool's schema".to_owned());
                Schema::Differs
            }
        },
    };
    let question = Question {
        subject: &subject,
        action,
        resource: &resource,
        arguments: &arguments,
        digest: Digest::of(text.as_bytes()),
        findings: &[],
        now,
    };
    Ok(Explained { policy: snapshot.policies.explain(&question), obstacles, schema, skipped: SKIPPED })
}

pub(crate) async fn route(State(desk): State<Arc<Desk>>, body: Bytes) -> Result<Done, Fault> {
    let plane = desk.plane.as_ref().ok_or_else(no_gateway)?;
    let asked: Asked = read(&body, "{\"agent\": NAME, \"tool\": \"server/name\", \"arguments\": {…}, …}")?;
    let rows = desk.store.agents().await.map_err(|cause| Fault::ours("the rows cannot be read", &cause))?;
    let disabled = rows.iter().any(|row| row.agent == asked.agent && row.disabled.is_some());
    let agents = (desk.agents)();
    let snapshot = plane.state.snapshot.load_full();
    let asked_of = asked.tool.split_once('/').and_then(|(server, _)| snapshot.servers.get(server));
    if let Some(server) = asked_of
        && (server.state.catalog.load().is_none() || server.state.fault.load().is_some())
    {
        // As a call would. What comes of it is kept with the server.
        let _ = tokio::time::timeout(LOOK, plane.state.line().look(server)).await;
    }
    let mut explained =
        explain(&snapshot, agents.get(&asked.agent), disabled, &asked, desk.clock.now()).map_err(Fault::bad)?;
    if let Some(server) = asked_of
        && let Some(fault) = server.state.fault.load_full()
    {
        explained.obstacles.push(format!("server `{}` is down: {fault}", server.name));
    }
    let value =
        serde_json::to_value(&explained).map_err(|cause| Fault::ours("the answer cannot be written", &cause))?;
    Ok(Done::json(value))
}

fn joined<T: Clone + Ord>(one: &[T], other: &[T]) -> Vec<T> {
    let mut all = [one, other].concat();
    all.sort_unstable();
    all.dedup();
    all
}
