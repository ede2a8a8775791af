//! Cases: policies carry their tests.
//!
//! A case file holds `cases`; a policy file may hold the same under `tests`. Running them touches nothing else.

use crate::{
    Decision, Place, Policies, PolicyFault, Question, Resource, Source, Subject,
    document::{self, Datum, Members, Node, Reader},
    nearest::nearest,
    pattern::Target,
};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use vocab::{
    Action, AgentId, Class, Digest, EnvironmentName, Finding, PrincipalId, RoleName, RuleId, ServerName, Side,
    TargetId, TenantId, Timestamp, UserId,
};

/// The keys of a case file. `policy`, `version` and `rules` stand there when it is a policy with tests of its own.
const FILE_KEYS: [&str; 5] = ["cases", "tests", "policy", "version", "rules"];

/// The keys of a case.
const CASE_KEYS: [&str; 19] = [
    "name",
    "agent",
    "user",
    "tenant",
    "roles",
    "groups",
    "scopes",
    "bound_to",
    "action",
    "target",
    "environment",
    "class",
    "labels",
    "arguments",
    "findings",
    "time",
    "expect",
    "rule",
    "visible",
];

/// The keys of a finding.
const FINDING_KEYS: [&str; 3] = ["detector", "kind", "pointer"];

/// What came of one case.
#[derive(Debug, Clone, Serialize)]
pub struct CaseResult {
    /// The case's name, or its position counted from 1.
    pub name: String,
    /// The file it stands in.
    pub file: String,
    /// Where in the file.
    pub place: Option<Place>,
    /// What it expects.
    pub expected: Expected,
    /// What was decided.
    pub decision: Decision,
    /// By which rules.
    pub rules: Vec<RuleId>,
    /// The decision in a sentence.
    pub message: String,
    /// Whether all is as expected.
    pub passed: bool,
}

/// What a case expects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// The decision.
    pub decision: Decision,
    /// A rule that must be among those that decide.
    pub rule: Option<RuleId>,
    /// Whether the target must be visible to the caller.
    pub visible: Option<bool>,
}

/// A case as its file states it.
pub(crate) struct Case {
    name: String,
    place: Option<Place>,
    subject: Subject,
    action: Action,
    resource: Resource,
    arguments: Value,
    findings: Vec<Finding>,
    now: Timestamp,
    expected: Expected,
}

/// Runs the cases of one file, or says everything that is wrong with it.
pub fn run_cases(policies: &Policies, source: &Source) -> Result<Vec<CaseResult>, Vec<PolicyFault>> {
    let cases = cases(source)?;
    Ok(cases.into_iter().map(|case| case.run(policies, &source.name)).collect())
}

/// Says everything that is wrong with the cases of one file. Runs none.
pub fn check_cases(source: &Source) -> Result<(), Vec<PolicyFault>> {
    cases(source).map(drop)
}

/// Reads one file.
fn cases(source: &Source) -> Result<Vec<Case>, Vec<PolicyFault>> {
    let node = document::read(source)?;
    let mut reader = Reader::of(&source.name);
    let mut cases = Vec::new();
    if let Some(members) = reader.members(&node, "a case file", &FILE_KEYS) {
        let list = match members.get("policy") {
            Some(_) => members.get("tests"),
            None => members.require(&mut reader, "cases", "write a list of cases"),
        };
        cases.extend(list.into_iter().flat_map(|list| read(&mut reader, list)));
    }
    if reader.faults.is_empty() { Ok(cases) } else { Err(reader.faults) }
}

/// Reads a list of cases; what is wrong goes to the reader.
pub(crate) fn read(reader: &mut Reader<'_>, node: &Node) -> Vec<Case> {
    let Datum::List(list) = &node.datum else {
        reader.fault(node.place, format!("the cases are {}, not a list", node.kind()), "write a list of cases");
        return Vec::new();
    };
    let mut cases = Vec::new();
    for (at, node) in list.iter().enumerate() {
        reader.case = Some(at + 1);
        cases.extend(case(reader, node, at + 1));
        reader.case = None;
    }
    cases
}

impl Case {
    fn run(self, policies: &Policies, file: &str) -> CaseResult {
        let question = Question {
            subject: &self.subject,
            action: self.action,
            resource: &self.resource,
            arguments: &self.arguments,
            digest: Digest::of(self.arguments.to_string().as_bytes()),
            findings: &self.findings,
            now: self.now,
        };
        let (decision, rules, message) = match policies.authorize(&question) {
            Ok(permit) => (Decision::Allow, permit.because().to_vec(), String::from("allowed")),
            Err(refusal) => {
                let message = refusal.to_string();
                (Decision::Deny, refusal.rules, message)
            }
        };
        let visible = policies.visible(&self.subject, self.action, &self.resource);
        let Expected { decision: wanted, rule, visible: seen } = &self.expected;
        let passed = decision == *wanted
            && rule.as_ref().is_none_or(|rule| rules.contains(rule))
            && seen.is_none_or(|seen| seen == visible);
        CaseResult {
            name: self.name,
            file: file.to_owned(),
            place: self.place,
            expected: self.expected,
            decision,
            rules,
            message,
            passed,
        }
    }
}

fn case(reader: &mut Reader<'_>, node: &Node, number: usize) -> Option<Case> {
    let before = reader.faults.len();
    let members = reader.members(node, "a case", &CASE_KEYS)?;
    let name = members.get("name").and_then(|node| reader.text(node, "name")).map(str::to_owned);
    let agent = members.require(reader, "agent", "name the agent that calls");
    let agent = agent.and_then(|node| parse::<AgentId>(reader, node, "agent"));
    let tenant = optional(reader, &members, "tenant").unwrap_or_else(TenantId::default_tenant);
    let user = optional::<UserId>(reader, &members, "user");
    let roles = many::<RoleName>(reader, &members, "roles");
    let groups = texts(reader, &members, "groups");
    let scopes = texts(reader, &members, "scopes");
    let environments = many::<EnvironmentName>(reader, &members, "bound_to");
    let action = members.get("action").map_or(Some(Action::ToolExecute), |node| action(reader, node));
    let target = members.require(reader, "target", "name what is called, as `server/tool`");
    let target = target.and_then(|node| target_of(reader, node));
    let environment = optional::<EnvironmentName>(reader, &members, "environment");
    let class = members.get("class").map_or(Some(Class::Unclassified), |node| class(reader, node));
    let labels = texts(reader, &members, "labels");
    let arguments = members.get("arguments").map_or_else(|| Value::Object(serde_json::Map::new()), Node::to_json);
    let findings = findings(reader, &members);
    let now = optional::<Timestamp>(reader, &members, "time").unwrap_or_default();
    let expected = expected(reader, &members);
    if reader.faults.len() > before {
        return None;
    }
    let (server, rest) = target?;
    Some(Case {
        name: name.unwrap_or_else(|| number.to_string()),
        place: node.place,
        subject: Subject {
            id: PrincipalId { agent: agent?, tenant: tenant.clone(), user, issuer: None },
            roles,
            groups,
            scopes,
            environments,
        },
        action: action?,
        resource: Resource {
            id: TargetId { name: Arc::from(rest), server, tenant },
            environment,
            class: class?,
            labels,
        },
        arguments,
        findings,
        now,
        expected: expected?,
    })
}

fn expected(reader: &mut Reader<'_>, members: &Members<'_>) -> Option<Expected> {
    let node = members.require(reader, "expect", "write `allow` or `deny`")?;
    let decision = match reader.text(node, "expect")? {
        "allow" => Decision::Allow,
        "deny" => Decision::Deny,
        other => {
            reader.fault(node.place, format!("`{other}` is not a decision"), nearest(other, ["allow", "deny"]));
            return None;
        }
    };
    let visible = match members.get("visible").map(|node| (&node.datum, node)) {
        Some((Datum::Bool(visible), _)) => Some(*visible),
        Some((_, node)) => {
            reader.fault(node.place, format!("`visible` is {}", node.kind()), "write `true` or `false`");
            None
        }
        None => None,
    };
    Some(Expected { decision, rule: optional(reader, members, "rule"), visible })
}

fn action(reader: &mut Reader<'_>, node: &Node) -> Option<Action> {
    let text = reader.text(node, "action")?;
    let action = text.parse::<Action>();
    if let Err(error) = &action {
        reader.fault(node.place, error.to_string(), nearest(text, Action::ALL.map(Action::as_str)));
    }
    action.ok()
}

fn class(reader: &mut Reader<'_>, node: &Node) -> Option<Class> {
    let text = reader.text(node, "class")?;
    let classes = [Class::Read, Class::Write, Class::Destructive, Class::Unclassified];
    let class = classes.into_iter().find(|class| class.as_str() == text);
    if class.is_none() {
        reader.fault(node.place, format!("`{text}` is not a class"), nearest(text, classes.map(Class::as_str)));
    }
    class
}

fn target_of(reader: &mut Reader<'_>, node: &Node) -> Option<(ServerName, String)> {
    let text = reader.text(node, "target")?;
    let Some(Target { server, name }) = Target::split(text) else {
        reader.fault(node.place, format!("`{text}` has no `/` between server and name"), "write `server/tool`");
        return None;
    };
    match ServerName::new(&server) {
        Ok(server) => Some((server, name)),
        Err(error) => {
            reader.fault(node.place, error.to_string(), "name one server, without globs");
            None
        }
    }
}

fn findings(reader: &mut Reader<'_>, members: &Members<'_>) -> Vec<Finding> {
    let Some(node) = members.get("findings") else { return Vec::new() };
    let Datum::List(list) = &node.datum else {
        reader.fault(node.place, format!("`findings` is {}, not a list", node.kind()), "write a list of findings");
        return Vec::new();
    };
    let mut findings = Vec::new();
    for node in list {
        let Some(members) = reader.members(node, "a finding", &FINDING_KEYS) else { continue };
        let mut member = |key| {
            let node = members.require(reader, key, "a finding has `detector`, `kind` and `pointer`")?;
            reader.text(node, key).map(Arc::from)
        };
        if let (Some(detector), Some(kind), Some(pointer)) = (member("detector"), member("kind"), member("pointer")) {
            findings.push(Finding { detector, kind, pointer, side: Side::Arguments });
        }
    }
    findings
}

fn texts(reader: &mut Reader<'_>, members: &Members<'_>, key: &str) -> Vec<String> {
    let Some(node) = members.get(key) else { return Vec::new() };
    reader.texts(node, key).into_iter().map(|(text, _)| text.to_owned()).collect()
}

fn optional<T: std::str::FromStr<Err: std::error::Error>>(
    reader: &mut Reader<'_>,
    members: &Members<'_>,
    key: &str,
) -> Option<T> {
    parse(reader, members.get(key)?, key)
}

fn many<T: std::str::FromStr<Err: std::error::Error>>(
    reader: &mut Reader<'_>,
    members: &Members<'_>,
    key: &str,
) -> Vec<T> {
    let Some(node) = members.get(key) else { return Vec::new() };
    let mut values = Vec::new();
    for (text, place) in reader.texts(node, key) {
        match text.parse() {
            Ok(value) => values.push(value),
            Err(error) => reader.fault(place, T::Err::to_string(&error), format!("correct `{key}`")),
        }
    }
    values
}

fn parse<T: std::str::FromStr<Err: std::error::Error>>(reader: &mut Reader<'_>, node: &Node, key: &str) -> Option<T> {
    match reader.text(node, key)?.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            reader.fault(node.place, T::Err::to_string(&error), format!("correct `{key}`"));
            None
        }
    }
}
