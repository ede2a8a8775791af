//! One immutable picture of what is configured. A call sees one and the same from its first stage to its last.

use crate::{
    limit::Limits,
    server::{Server, ServerFault},
    settings::Settings,
};
use guard::Guards;
use identity::Identity;
use policy::{Policies, Subject};
use std::{collections::BTreeMap, sync::Arc};
use vocab::ServerName;

/// What is configured.
pub struct Snapshot {
    /// Plain settings.
    pub settings: Settings,
    /// The upstreams.
    pub servers: BTreeMap<ServerName, Arc<Server>>,
    /// Who may call. INVARIANT: its own, and no other snapshot's: its generation says which snapshot this is.
    pub identity: Identity,
    /// What they may do.
    pub policies: Policies,
    /// How often.
    pub limits: Arc<Limits>,
    /// What is looked for in texts.
    pub guards: Guards,
}

impl Snapshot {
    /// Builds a snapshot. `before` lends what was learned of servers that stay the same.
    pub fn build(
        settings: Settings,
        identity: Identity,
        policies: Policies,
        limits: Arc<Limits>,
        guards: Guards,
        before: Option<&Self>,
    ) -> Result<Self, Vec<ServerFault>> {
        let mut servers = BTreeMap::new();
        let mut faults = Vec::new();
        for (name, server) in &settings.servers {
            let known = before.and_then(|before| before.servers.get(name));
            match Server::new(name, &settings.tenant, server, settings.bounds.deadline, known) {
                Ok(server) => drop(servers.insert(name.clone(), Arc::new(server))),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(Self { settings, servers, identity, policies, limits, guards }) } else { Err(faults) }
    }

    /// The bounds of scanning.
    pub fn request_limits(&self) -> mcp::Limits {
        mcp::Limits { body: self.settings.bounds.body, depth: self.settings.bounds.depth, ..mcp::Limits::default() }
    }

    /// The bounds of scanning what an upstream says.
    pub fn answer_limits(&self) -> mcp::Limits {
        mcp::Limits { body: self.settings.bounds.answer, depth: self.settings.bounds.depth, ..mcp::Limits::default() }
    }

    /// The servers that `subject` may see anything of.
    pub fn reachable<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = &'a Arc<Server>> {
        self.servers.values().filter(|server| self.policies.reaches(subject, server.root()))
    }
}

/// A principal, as policy knows it.
pub fn subject(principal: &identity::Principal) -> Subject {
    Subject {
        id: principal.id().clone(),
        roles: principal.roles().to_vec(),
        groups: principal.groups().iter().map(ToString::to_string).collect(),
        scopes: principal.scopes().iter().map(ToString::to_string).collect(),
        environments: principal.environments().to_vec(),
    }
}
