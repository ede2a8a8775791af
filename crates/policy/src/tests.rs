//! The behaviour of whole policies, from text to decision.

mod cases;
mod decide;
mod file;
mod property;

use crate::{Permit, Policies, Question, Refusal, Resource, Source, Subject};
use serde_json::Value;
use std::sync::Arc;
use vocab::{Action, AgentId, Class, Digest, PrincipalId, RoleName, ServerName, TargetId, TenantId, Timestamp};

pub(crate) fn source(text: &str) -> Source {
    Source { name: String::from("test.yaml"), text: text.to_owned() }
}

pub(crate) fn policies(text: &str) -> Policies {
    match Policies::compile(&[source(text)]) {
        Ok(policies) => policies,
        Err(faults) => panic!("{}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

pub(crate) fn subject(agent: &str, roles: &[&str]) -> Subject {
    Subject {
        id: PrincipalId {
            agent: AgentId::new(agent).unwrap(),
            tenant: TenantId::default_tenant(),
            user: None,
            issuer: None,
        },
        roles: roles.iter().map(|role| RoleName::new(role).unwrap()).collect(),
        groups: Vec::new(),
        scopes: Vec::new(),
        environments: Vec::new(),
    }
}

pub(crate) fn resource(target: &str) -> Resource {
    let (server, name) = target.split_once('/').unwrap();
    let id = TargetId {
        name: Arc::from(name),
        server: ServerName::new(server).unwrap(),
        tenant: TenantId::default_tenant(),
    };
    Resource { id, environment: None, class: Class::Unclassified, labels: Vec::new() }
}

pub(crate) fn question<'a>(
    subject: &'a Subject,
    action: Action,
    resource: &'a Resource,
    arguments: &'a Value,
) -> Question<'a> {
    let digest = Digest::of(arguments.to_string().as_bytes());
    Question { subject, action, resource, arguments, digest, findings: &[], now: Timestamp::from_seconds(0) }
}

pub(crate) fn call(policies: &Policies, agent: &str, target: &str, arguments: &Value) -> Result<Permit, Refusal> {
    policies.authorize(&question(&subject(agent, &[]), Action::ToolExecute, &resource(target), arguments))
}
