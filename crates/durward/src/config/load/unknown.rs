//! Names that name nothing of what is configured. What they name may come later, so none of them stops the start.

use super::{Fault, Loaded, Settings};
use policy::{Policies, PolicyWarning, nearest_name};
use std::collections::BTreeSet;
use vocab::TenantId;

/// Rules that speak of what nobody has configured. A rule that denies it denies nothing.
pub(crate) fn in_rules(policies: &Policies, settings: &Settings) -> Vec<PolicyWarning> {
    let servers: BTreeSet<&str> = settings.servers.keys().map(AsRef::as_ref).collect();
    let agents: BTreeSet<&str> = settings.agents.keys().map(AsRef::as_ref).collect();
    let environments: BTreeSet<&str> =
        settings.servers.values().filter_map(|server| server.environment.as_ref()).map(AsRef::as_ref).collect();
    let tools = || settings.servers.values().flat_map(|server| &server.tools);
    let labels: BTreeSet<&str> = tools().flat_map(|tool| &tool.labels).map(String::as_str).collect();
    let tenant = TenantId::default_tenant();
    let tenants = BTreeSet::from([tenant.as_str()]);
    let mut warnings = Vec::new();
    for rule in policies.rules() {
        let targets = rule.targets.iter().map(|target| target.split('/').next().unwrap_or_default());
        let named = named(targets, "server", &servers)
            .chain(named(rule.agents.iter().map(String::as_str), "agent", &agents))
            .chain(named(rule.environments.iter().map(String::as_str), "environment", &environments))
            .chain(named(rule.labels.iter().map(String::as_str), "label", &labels))
            .chain(named(rule.tenants.iter().map(String::as_str), "tenant", &tenants));
        for text in named.collect::<BTreeSet<_>>() {
            warnings.push(PolicyWarning {
                file: rule.file.to_string(),
                rule: rule.id.to_string(),
                place: rule.place,
                text,
            });
        }
    }
    warnings
}

/// What there is to say of names that are not `known`. Globs may wait for what comes.
fn named<'a>(
    names: impl Iterator<Item = &'a str>,
    kind: &'a str,
    known: &'a BTreeSet<&'a str>,
) -> impl Iterator<Item = String> {
    names.filter(move |name| !name.contains(['*', '?', '[', '{', '\\']) && !known.contains(name)).map(move |name| {
        let meant = nearest_name(name, known.iter().copied());
        let meant = meant.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        format!("no {kind} `{name}` is configured{meant}")
    })
}

impl Loaded {
    /// Warns of credentials whose secret is not in the vault of the data directory: their server's calls would stop.
    pub(crate) fn look_for_secrets(&mut self) {
        // Whatever is wrong with the vault is said where it is opened.
        let Ok(stored) = vault::names(&self.settings.data) else { return };
        for (server, settings) in &self.settings.servers {
            for credential in settings.credentials.iter().filter(|credential| !stored.contains(&credential.secret)) {
                let secret = &credential.secret;
                self.report.push(
                    Fault::anywhere(format!("server `{server}`: there is no secret `{secret}` in the vault"))
                        .because("its calls are refused until there is")
                        .fix(format!("`durward secret set {secret}`, or correct the name"))
                        .warning(),
                );
            }
        }
    }
}
