//! From configuration to what the data plane runs on.

use crate::config::settings::{DetectMode, Durability, EraChoice, Jwks, Listen, Place, Reach, Server, Settings};
use anyhow::{Context, Result, anyhow};
use gateway::{
    limit::{Allowance, LimitSetting, LimitSettings, Limits, Rate},
    rim::Certificates,
    settings::{self as plane, CredentialSettings, EraSettings, ServerSettings, ToolSettings, TransportSettings},
    snapshot::Snapshot,
};
use guard::{Guards, Mode, Setting};
use identity::{AgentSetting, Identity, IssuerSetting, JwksCache, JwksSource, Registry};
use policy::Policies;
use std::{collections::BTreeMap, sync::Arc, thread};
use vocab::{AgentId, Class, IssuerName, TenantId};

/// Builds a snapshot. `before` is the one it replaces.
pub(crate) fn snapshot(
    settings: &Settings,
    policies: Policies,
    tenant: &TenantId,
    registry: &Arc<Registry>,
    jwks: &Arc<JwksCache>,
    before: Option<&Snapshot>,
) -> Result<Snapshot> {
    let identity = Identity::new(identity_settings(settings, tenant)?, Arc::clone(registry), Arc::clone(jwks))
        .map_err(|faults| anyhow!(list(&faults)))?;
    let limits = Limits::new(&limit_settings(settings), before.map(|before| &*before.limits))
        .map_err(|faults| anyhow!(list(&faults)))?;
    let secrets =
        Setting { results: mode(settings.detect.secrets.results), arguments: mode(settings.detect.secrets.arguments) };
    Snapshot::build(
        plane::Settings {
            // What is listened with does not change before the next start, and neither does what clients are told.
            tls: before.map_or(settings.tls.is_some(), |before| before.settings.tls),
            ..plane_settings(settings, tenant)?
        },
        identity,
        policies,
        Arc::new(limits),
        Guards::new(secrets),
        before,
    )
    .map_err(|faults| anyhow!(list(&faults)))
}

/// How texts are kept beside the log.
pub(crate) fn keeping(settings: &Settings) -> Option<audit::Keeping> {
    let log = settings.log;
    log.keep_text.map(|time| audit::Keeping { time, per_day: log.text_per_day })
}

/// Where the data plane listens.
pub(crate) fn listening(settings: &Settings, tls: Option<Arc<Certificates>>) -> plane::Listening {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    plane::Listening {
        listeners: settings.listen.iter().map(|place| listener(place, settings)).collect(),
        tls,
        proxied: settings.proxy_protocol,
        workers: settings.workers.map_or(cores, std::num::NonZero::get),
        connections: settings.bounds.connections,
    }
}

fn listener(place: &Listen, settings: &Settings) -> plane::Listener {
    match place {
        Listen::Network(address) => plane::Listener::Network(*address),
        Listen::Unix(path) => plane::Listener::Unix { path: path.clone(), mode: settings.socket_access.mode() },
    }
}

fn plane_settings(settings: &Settings, tenant: &TenantId) -> Result<plane::Settings> {
    let mut servers = BTreeMap::new();
    for (name, server) in &settings.servers {
        servers.insert(name.clone(), server_settings(server).with_context(|| format!("server `{name}`"))?);
    }
    Ok(plane::Settings {
        tenant: tenant.clone(),
        public_url: settings.public_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
        tls: settings.tls.is_some(),
        hosts: settings.hosts.clone(),
        origins: settings.origins.clone(),
        trusted_proxies: settings
            .trusted_proxies
            .iter()
            .map(|network| ipnet::IpNet::new(network.address, network.prefix))
            .collect::<Result<_, _>>()
            .context("trusted_proxies")?,
        servers,
        traces: settings.telemetry.otlp.is_some(),
        strict: match settings.log.durability {
            Durability::ByRisk => false,
            Durability::Strict => true,
        },
        bounds: settings.bounds.of_plane(),
        issuers: settings.issuers.iter().map(|issuer| issuer.url.clone()).collect(),
    })
}

fn server_settings(server: &Server) -> Result<ServerSettings> {
    let transport = match &server.reach {
        Reach::Http { url, internal, ca, http2, socket, sse } => TransportSettings::Http {
            url: url.to_string(),
            internal: *internal,
            ca: match ca {
                Some(path) => {
                    Some(std::fs::read(path).with_context(|| format!("cannot read the roots in {}", path.display()))?)
                }
                None => None,
            },
            http2: *http2,
            socket: socket.clone(),
            lasting: *sse,
        },
        Reach::Command { program, arguments, directory, env, shared, memory } => TransportSettings::Stdio {
            command: std::iter::once(program.clone()).chain(arguments.iter().cloned()).collect(),
            env: env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
            dir: Some(directory.clone()),
            shared: *shared,
            memory: *memory,
        },
    };
    Ok(ServerSettings {
        transport,
        environment: server.environment.clone(),
        credentials: server
            .credentials
            .iter()
            .map(|credential| {
                let place = match &credential.place {
                    Place::Bearer => plane::Place::Bearer,
                    Place::Header(name) => plane::Place::Header(name.parse()?),
                    Place::Query(name) => plane::Place::Query(name.clone()),
                    Place::Env(name) => plane::Place::Environment(name.clone()),
                };
                Ok(CredentialSettings { secret: credential.secret.clone(), place })
            })
            .collect::<Result<_>>()?,
        headers: server.headers.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
        tools: server
            .tools
            .iter()
            .map(|tool| ToolSettings {
                tools: tool.glob.clone(),
                class: tool.class.unwrap_or(Class::Unclassified),
                labels: tool.labels.clone(),
                danger_skip_schema: tool.danger_skip_schema,
            })
            .collect(),
        deadline: Some(server.deadline),
        calls_in_flight: server.calls_in_flight,
        era: match server.era {
            EraChoice::Auto => None,
            EraChoice::Legacy => Some(EraSettings::Legacy),
            EraChoice::Modern => Some(EraSettings::Modern),
            EraChoice::Both => Some(EraSettings::Both),
        },
        bridged: server.bridge,
    })
}

/// What identity is built from; also what `check` looks at.
pub(crate) fn identity_settings(settings: &Settings, tenant: &TenantId) -> Result<identity::Settings> {
    let issuers = settings.issuers.iter().map(|issuer| {
        Ok(IssuerSetting {
            url: IssuerName::new(&issuer.url)?,
            audiences: issuer.audiences.clone(),
            jwks: match &issuer.jwks {
                Jwks::Discovery => JwksSource::Discovery,
                Jwks::Url(url) => JwksSource::Url(url.clone()),
                Jwks::File(path) => JwksSource::File(path.clone()),
            },
            internal: issuer.internal,
            algorithms: issuer.algorithms.clone(),
            token_types: issuer.token_types.clone(),
            agent: issuer.agent.clone(),
            user: issuer.user.clone(),
            roles: issuer.roles.clone(),
            groups: issuer.groups.clone(),
            scopes: issuer.scopes.clone(),
            leeway: issuer.leeway,
        })
    });
    Ok(identity::Settings {
        tenant: tenant.clone(),
        agents: agents(settings),
        issuers: issuers.collect::<Result<_>>()?,
        anonymous: settings.danger_allow_anonymous.clone(),
    })
}

/// The registered agents.
pub(crate) fn agents(settings: &Settings) -> BTreeMap<AgentId, AgentSetting> {
    let agents = settings.agents.iter().map(|(name, agent)| {
        let setting = AgentSetting {
            roles: agent.roles.clone(),
            environments: agent.environments.clone(),
            groups: agent.groups.iter().map(|group| Arc::from(group.as_str())).collect(),
            disabled: agent.disabled,
        };
        (name.clone(), setting)
    });
    agents.collect()
}

fn limit_settings(settings: &Settings) -> LimitSettings {
    let rules = settings.limits.iter().map(|limit| LimitSetting {
        agent: limit.agent.clone(),
        tool: limit.tool.clone(),
        server: limit.server.clone(),
        tenant: limit.tenant.clone(),
        allowance: Allowance { rate: Rate { count: limit.rate.count, per: limit.rate.per }, burst: limit.burst },
        concurrency: limit.concurrency,
    });
    LimitSettings { rules: rules.collect(), ..LimitSettings::default() }
}

const fn mode(mode: DetectMode) -> Mode {
    match mode {
        DetectMode::Off => Mode::Off,
        DetectMode::Report => Mode::Report,
        DetectMode::Mask => Mode::Mask,
        DetectMode::Refuse => Mode::Refuse,
    }
}

fn list<T: std::error::Error + 'static>(faults: &[T]) -> String {
    faults.iter().map(|fault| chain(fault)).collect::<Vec<_>>().join("\n")
}

/// An error with its causes.
pub(crate) fn chain(fault: &dyn std::error::Error) -> String {
    let mut text = fault.to_string();
    let mut cause = fault.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
