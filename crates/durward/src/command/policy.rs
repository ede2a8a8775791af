//! `durward policy`

use super::{
    office::{self, Office, Site},
    print,
};
use crate::{
    assemble,
    cli::{Exit, Output, PolicyCommand, Question, Shared},
    config::{self, Settings, settings::PolicyFiles},
};
use admin::{Asked, Explained};
use anyhow::{Context, Result, bail};
use egress::Egress;
use gateway::clock::{Clock, SystemClock};
use http::Method;
use identity::{JwksCache, Registry};
use policy::{CaseResult, Decision, Policies, PolicyFault, Source};
use serde_json::{Value, json, value::RawValue};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};
use vocab::TenantId;

/// The largest arguments that are read from stdin.
const ARGUMENTS: u64 = 16 << 20;

/// What an answer without the gateway leaves open.
const RULES_ONLY: &str = "judged by the rules alone: whether the agent was switched off (`agent disable`), and whether there is \
    such a tool, only a running gateway knows: --running";

pub(crate) async fn run(shared: &Shared, command: &PolicyCommand) -> Result<Exit> {
    match command {
        PolicyCommand::Check { files } => check(shared, files),
        PolicyCommand::Test { files } => test(shared, files),
        PolicyCommand::Explain(question) => explain(shared, question).await,
    }
}

/// The policies of the configuration, or the files that were named.
fn check(shared: &Shared, files: &[PathBuf]) -> Result<Exit> {
    if files.is_empty() {
        let loaded = configured(shared)?;
        let warnings = warnings(&loaded.policies, Some(&loaded.settings));
        return checked(shared.output, Ok(&loaded.policies), loaded.settings.policies.files.len(), &warnings);
    }
    let sources = files.iter().map(|file| source(file)).collect::<Result<Vec<_>>>()?;
    match Policies::compile(&sources) {
        Ok(policies) => {
            // Files may be judged alone; where a configuration is at hand and good, names are held against it.
            let loaded = config::find(shared.config.as_deref()).and_then(|file| config::load_aside(&file).ok());
            let warnings = warnings(&policies, loaded.as_ref().map(|loaded| &loaded.settings));
            checked(shared.output, Ok(&policies), files.len(), &warnings)
        }
        Err(faults) => checked(shared.output, Err(&faults), files.len(), &[]),
    }
}

fn warnings(policies: &Policies, settings: Option<&Settings>) -> Vec<String> {
    let unknown = settings.map(|settings| config::in_rules(policies, settings)).unwrap_or_default();
    policies.warnings().iter().chain(&unknown).map(ToString::to_string).collect()
}

fn checked(
    output: Output,
    result: Result<&Policies, &[PolicyFault]>,
    files: usize,
    warnings: &[String],
) -> Result<Exit> {
    let (exit, faults, rules) = match result {
        Ok(policies) => (Exit::Done, [].as_slice(), Some(policies.rule_count())),
        Err(faults) => (Exit::Failed, faults, None),
    };
    match output {
        Output::Json => print::json(&json!({
            "files": files,
            "rules": rules,
            "version": result.ok().map(Policies::version),
            "errors": faults,
            "warnings": warnings,
        }))?,
        Output::Table => {
            for fault in faults {
                print::data(&format!("error: {fault}"))?;
            }
            for warning in warnings {
                print::data(&format!("warning: {warning}"))?;
            }
            if let Some(rules) = rules {
                let (rules, files) = (count(rules, "rule"), count(files, "file"));
                print::data(&format!("{rules} in {files}, {}", count(warnings.len(), "warning")))?;
            }
        }
    }
    Ok(exit)
}

/// Runs the cases beside the policies, or in the files that were named.
fn test(shared: &Shared, files: &[PathBuf]) -> Result<Exit> {
    let loaded = configured(shared)?;
    let files = if files.is_empty() { cases_of(&loaded.settings.policies)? } else { files.to_vec() };
    let mut results: Vec<CaseResult> = Vec::new();
    let mut broken = Vec::new();
    for file in &files {
        let source = source(file)?;
        match policy::run_cases(&loaded.policies, &source) {
            Ok(found) => results.extend(found),
            Err(faults) => {
                print::say(&config::in_cases(&source, &faults).to_string());
                broken.push(source.name);
            }
        }
    }
    if !broken.is_empty() {
        bail!("no result is shown before these files are correct: {}", broken.join(", "));
    }
    let failed = results.iter().filter(|case| !case.passed).count();
    match shared.output {
        Output::Json => print::json(&json!({ "cases": results, "failed": failed }))?,
        Output::Table => {
            for case in &results {
                print::data(&line(case))?;
            }
            print::data(&format!("{}, {failed} failed", count(results.len(), "case")))?;
        }
    }
    if results.is_empty() {
        // A check that checks nothing must not look like one that passed.
        bail!("there are no test cases: write some into a *.test.json beside the policies");
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
}

/// `1 rule`, `2 rules`
fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// Which part of a rule is about something else.
fn missed(part: &str) -> &str {
    match part {
        "action" => "it is about another action",
        "target" => "it is about another target",
        "agents" => "it is about other agents",
        "roles" => "the agent has none of its roles",
        "tenants" => "it is about other tenants",
        "environments" => "the server is in none of its environments",
        "classes" => "the target is of another class",
        "labels" => "the target has none of its labels",
        other => other,
    }
}

/// `agent ci, roles developer; on files/erase, environment dev, class destructive`
fn inputs(policy: &Value) -> Option<String> {
    let inputs = policy.get("inputs")?;
    let text = |name: &str| match inputs.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Array(list) if !list.is_empty() => Some(
            list.iter()
                .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
                .collect::<Vec<_>>()
                .join(" "),
        ),
        _ => None,
    };
    let named = [
        ("roles", "roles"),
        ("groups", "groups"),
        ("scopes", "scopes"),
        ("bound to", "environments"),
        ("action", "action"),
        ("environment", "environment"),
        ("class", "class"),
        ("labels", "labels"),
        ("time", "now"),
        ("conditions read", "read"),
    ];
    let named: Vec<String> = named.iter().filter_map(|(word, name)| Some(format!("{word} {}", text(name)?))).collect();
    Some(format!("made from: {}", named.join("; ")))
}

fn line(case: &CaseResult) -> String {
    let word = |decision| match decision {
        Decision::Allow => "allow",
        Decision::Deny => "deny",
    };
    let place = case.place.map(|place| format!(":{}", place.line)).unwrap_or_default();
    if case.passed {
        return format!("ok    {}: {}", case.name, case.message);
    }
    let expected = &case.expected;
    let mut wanted = word(expected.decision).to_owned();
    if let Some(rule) = &expected.rule {
        wanted = format!("{wanted} by rule `{rule}`");
    }
    match expected.visible {
        Some(true) => wanted.push_str(", visible"),
        Some(false) => wanted.push_str(", hidden"),
        None => {}
    }
    let got = word(case.decision);
    format!("FAIL  {}: expected {wanted}; got {got}: {} ({}{place})", case.name, case.message, case.file)
}

/// Files of cases wherever policies are looked for, and the policies themselves, which may hold some.
fn cases_of(policies: &PolicyFiles) -> Result<Vec<PathBuf>> {
    let mut files: BTreeSet<PathBuf> = policies.files.iter().cloned().collect();
    for pattern in &policies.patterns {
        files.extend(config::cases(&policies.base, pattern)?);
    }
    Ok(files.into_iter().collect())
}

/// What would be decided, by the policies of the configuration or by those that the running gateway has.
async fn explain(shared: &Shared, question: &Question) -> Result<Exit> {
    let asked = asked(question)?;
    let explained: Value = if question.running {
        let site = Site::find(shared)?;
        if !Office::is_running(&site).await {
            return Err(office::Unreachable::new("the gateway is not running; leave out --running").into());
        }
        let office = Office::open(&site, false).await?;
        office.ask(Method::POST, "/api/policy/explain", Some(&serde_json::to_value(&asked)?)).await?.value()?
    } else {
        serde_json::to_value(&offline(shared, &asked)?)?
    };
    let obstacles = explained.get("obstacles").and_then(Value::as_array).cloned().unwrap_or_default();
    let allowed = explained.pointer("/policy/decision").and_then(Value::as_str) == Some("allow");
    match shared.output {
        Output::Json => print::json(&explained)?,
        Output::Table => {
            print::data(&sentences(&explained, allowed, &obstacles))?;
            if !question.running {
                print::data(RULES_ONLY)?;
            }
        }
    }
    Ok(if allowed && obstacles.is_empty() { Exit::Done } else { Exit::Failed })
}

fn asked(question: &Question) -> Result<Asked> {
    let arguments = match question.arguments.as_str() {
        "-" => {
            let mut text = String::new();
            io::stdin().lock().take(ARGUMENTS).read_to_string(&mut text).context("stdin is not text")?;
            text
        }
        text => text.to_owned(),
    };
    Ok(Asked {
        agent: question.agent.clone(),
        tool: question.tool.clone(),
        action: Some(question.action),
        user: question.user.clone(),
        roles: question.roles.clone(),
        groups: question.groups.clone(),
        scopes: question.scopes.clone(),
        environment: question.environment.clone(),
        class: question.class,
        labels: question.labels.clone(),
        arguments: Some(RawValue::from_string(arguments).context("--arguments is not JSON")?),
        at: question.at.map(|at| at.to_string()),
    })
}

fn offline(shared: &Shared, asked: &Asked) -> Result<Explained> {
    let loaded = configured(shared)?;
    let settings = loaded.settings;
    let egress = Arc::new(Egress::new(egress::Settings::default()).context("TLS cannot be set up")?);
    let jwks = Arc::new(JwksCache::new(egress));
    let registry = Arc::new(Registry::default());
    let tenant = TenantId::default_tenant();
    let snapshot = assemble::snapshot(&settings, loaded.policies, &tenant, &registry, &jwks, None)?;
    let agents = assemble::agents(&settings);
    // What was switched off at run time is the running gateway's to know: --running asks it.
    admin::explain(&snapshot, agents.get(&asked.agent), false, asked, SystemClock::new().now())
        .map_err(anyhow::Error::msg)
}

fn sentences(explained: &Value, allowed: bool, obstacles: &[Value]) -> String {
    let policy = explained.get("policy").unwrap_or(&Value::Null);
    let mut lines = Vec::new();
    let verdict = if allowed { "allowed" } else { "refused" };
    lines.push(format!("policy: {verdict}: {}", print::text(policy, "message")));
    if policy.get("hidden").and_then(Value::as_bool) == Some(true) {
        lines.push("the target is hidden: the caller is told that there is no such thing".to_owned());
    }
    for obstacle in obstacles.iter().filter_map(Value::as_str) {
        lines.push(format!("refused all the same: {obstacle}"));
    }
    let considered = policy.get("considered").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for rule in considered {
        let standing = rule.get("standing").unwrap_or(&Value::Null);
        let how = match standing.get("is").and_then(Value::as_str) {
            Some("matched") => "applies".to_owned(),
            Some("unmet") => format!("its condition is not met: {}", print::text(rule, "when")),
            Some("failed") => format!("its condition cannot be evaluated: {}", print::text(standing, "why")),
            Some("missed") => format!("does not apply: {}", missed(&print::text(standing, "part"))),
            Some(_) | None => "?".to_owned(),
        };
        let place = rule.pointer("/place/line").map(|line| format!(":{line}")).unwrap_or_default();
        let (id, effect, file) = (print::text(rule, "rule"), print::text(rule, "effect"), print::text(rule, "file"));
        lines.push(format!("  {effect} `{id}` ({file}{place}): {how}"));
    }
    lines.extend(inputs(policy));
    let schema = print::text(explained, "schema");
    if schema != "unknown" {
        lines.push(format!("schema: {schema}"));
    }
    let skipped = print::text(explained, "skipped").replace(',', " and ");
    let skipped = if schema == "unknown" { format!("{skipped}, nor the tool's schema") } else { skipped };
    lines.push(format!("not asked: {skipped}"));
    lines.push(format!("policy version: {}", print::text(policy, "version")));
    lines.join("\n")
}

fn configured(shared: &Shared) -> Result<config::Loaded> {
    let Some(file) = config::find(shared.config.as_deref()) else {
        bail!("there is no {}; `durward init` writes one to start from", config::USUAL_FILE);
    };
    office::loaded(config::load(&file))
}

fn source(file: &Path) -> Result<Source> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    Ok(Source { name, text })
}
