//! From files to rules: every fault of every file in one go, and what looks wrong besides.

use crate::{
    Place, PolicyFault, PolicyWarning, Source, case,
    condition::{Condition, Prospect},
    document::{self, Datum, Members, Node, Reader},
    nearest::nearest,
    pattern::{self, Patterns, Target},
    permit::BOUNDARIES,
    rule::{Effect, Rule, RuleSpec},
    view::covers,
};
use std::{collections::HashMap, sync::Arc};
use vocab::{Action, Class, EnvironmentName, RoleName, RuleId, TenantId};

/// The keys of a policy file.
const POLICY_KEYS: [&str; 4] = ["policy", "version", "rules", "tests"];

/// The keys of a rule.
const RULE_KEYS: [&str; 12] = [
    "id",
    "action",
    "target",
    "effect",
    "agents",
    "roles",
    "tenants",
    "environments",
    "classes",
    "labels",
    "when",
    "reason",
];

/// The classes a rule may name.
const CLASSES: [Class; 4] = [Class::Read, Class::Write, Class::Destructive, Class::Unclassified];

/// Rules that loaded, and what looks wrong with them.
pub(crate) struct Loaded {
    pub(crate) rules: Vec<Rule>,
    pub(crate) warnings: Vec<PolicyWarning>,
}

/// Loads the rules of all files, or says everything that is wrong.
pub(crate) fn rules(sources: &[Source]) -> Result<Loaded, Vec<PolicyFault>> {
    let mut rules = Vec::new();
    let mut faults = Vec::new();
    for source in sources {
        match document::read(source) {
            Ok(node) => {
                let mut reader = Reader::of(&source.name);
                policy(&mut reader, &node, &mut rules);
                faults.append(&mut reader.faults);
            }
            Err(found) => faults.extend(found),
        }
    }
    duplicates(&rules, &mut faults);
    if faults.is_empty() {
        let warnings = warnings(&rules);
        Ok(Loaded { rules, warnings })
    } else {
        Err(faults)
    }
}

fn policy(reader: &mut Reader<'_>, node: &Node, rules: &mut Vec<Rule>) {
    let Some(members) = reader.members(node, "a policy", &POLICY_KEYS) else { return };
    let name = members.require(reader, "policy", "give the policy a name").and_then(|node| reader.text(node, "policy"));
    if let Some(version) = members.get("version")
        && !matches!(version.datum, Datum::Number(_))
    {
        reader.text(version, "version");
    }
    if let Some(tests) = members.get("tests") {
        case::read(reader, tests);
    }
    let list = members.require(reader, "rules", "write a list of rules; it may be empty");
    let list = match list.map(|node| (&node.datum, node)) {
        Some((Datum::List(list), _)) => list.as_slice(),
        Some((_, node)) => {
            reader.fault(node.place, format!("`rules` is {}, not a list", node.kind()), "write a list of rules");
            &[]
        }
        None => &[],
    };
    let name: Arc<str> = Arc::from(name.unwrap_or("policy"));
    for (at, node) in list.iter().enumerate() {
        let default_id = format!("{name}#{}", at + 1);
        reader.rule = Some(default_id.clone());
        rules.extend(rule(reader, node, &name, &default_id));
        reader.rule = None;
    }
}

fn rule(reader: &mut Reader<'_>, node: &Node, policy: &Arc<str>, default_id: &str) -> Option<Rule> {
    let before = reader.faults.len();
    let members = reader.members(node, "a rule", &RULE_KEYS)?;
    let id = id(reader, &members, default_id);
    let actions = actions(reader, &members);
    let (target_texts, targets) = targets(reader, &members);
    let effect = effect(reader, &members);
    let (agent_texts, agents) = agents(reader, &members);
    let spec = RuleSpec {
        id: id?,
        policy: Arc::clone(policy),
        file: Arc::from(reader.file),
        place: node.place,
        effect: effect.unwrap_or(Effect::Deny),
        actions,
        targets: target_texts,
        agents: agent_texts,
        roles: names(reader, &members, "roles", |text| RoleName::new(text).err().map(|error| error.to_string())),
        tenants: names(reader, &members, "tenants", |text| TenantId::new(text).err().map(|error| error.to_string())),
        environments: names(reader, &members, "environments", |text| {
            EnvironmentName::new(text).err().map(|error| error.to_string())
        }),
        classes: classes(reader, &members),
        labels: names(reader, &members, "labels", |_| None),
        when: text(reader, &members, "when"),
        reason: text(reader, &members, "reason"),
    };
    let condition = spec.when.as_ref().and_then(|when| condition(reader, &members, when));
    // A rule with any fault is no rule; the faults have been noted.
    (reader.faults.len() == before && effect.is_some()).then_some(Rule { spec, targets, agents, condition })
}

fn id(reader: &mut Reader<'_>, members: &Members<'_>, default_id: &str) -> Option<RuleId> {
    let node = members.get("id");
    let text = match node {
        Some(node) => reader.text(node, "id")?,
        None => default_id,
    };
    let place = node.map_or(members.place, |node| node.place);
    if BOUNDARIES.contains(&text) {
        reader.fault(place, format!("`{text}` is the id of a built-in rule"), "choose another id");
        return None;
    }
    match RuleId::new(text) {
        Ok(id) => {
            reader.rule = Some(text.to_owned());
            Some(id)
        }
        Err(error) => {
            reader.fault(place, error.to_string(), "give the rule a short `id`");
            None
        }
    }
}

fn actions(reader: &mut Reader<'_>, members: &Members<'_>) -> Vec<Action> {
    let Some(node) = members.require(reader, "action", "name what the rule is about, such as `tool.execute`, or `*`")
    else {
        return Vec::new();
    };
    let mut actions = Vec::new();
    for (text, place) in reader.text_or_texts(node, "action") {
        match text.parse::<Action>() {
            Ok(action) => actions.push(action),
            Err(_) if text == "*" => actions.extend(Action::ALL),
            Err(error) => reader.fault(place, error.to_string(), nearest(text, Action::ALL.map(Action::as_str))),
        }
    }
    actions.sort_unstable();
    actions.dedup();
    actions
}

fn targets(reader: &mut Reader<'_>, members: &Members<'_>) -> (Vec<String>, Vec<Target>) {
    let Some(node) = members.require(reader, "target", "name `server/tool`; `*/*` means everything") else {
        return (Vec::new(), Vec::new());
    };
    let mut texts = Vec::new();
    let mut targets = Vec::new();
    for (text, place) in reader.text_or_texts(node, "target") {
        let Some(target) = Target::split(text) else {
            let fix = if text == "*" { String::from("write `*/*`") } else { format!("write `{text}/*` or `*/{text}`") };
            reader.fault(place, format!("target `{text}` has no `/` between server and name"), fix);
            continue;
        };
        for half in [&target.server, &target.name] {
            if let Err(error) = pattern::compile(half) {
                reader.fault(place, error.to_string(), "put `\\` before a letter that is meant as such");
            }
        }
        texts.push(text.to_owned());
        targets.push(target);
    }
    (texts, targets)
}

fn effect(reader: &mut Reader<'_>, members: &Members<'_>) -> Option<Effect> {
    let node = members.require(reader, "effect", "write `allow` or `deny`")?;
    match reader.text(node, "effect")? {
        "allow" => Some(Effect::Allow),
        "deny" => Some(Effect::Deny),
        "ask" => {
            let cause = "`ask` needs somebody to ask, and approvals do not exist yet";
            reader.fault(node.place, cause, "write `deny` until they do");
            None
        }
        other => {
            reader.fault(node.place, format!("`{other}` is not an effect"), nearest(other, ["allow", "deny"]));
            None
        }
    }
}

fn agents(reader: &mut Reader<'_>, members: &Members<'_>) -> (Vec<String>, Option<Patterns>) {
    let Some(node) = members.get("agents") else { return (Vec::new(), None) };
    let mut texts = Vec::new();
    for (text, place) in reader.texts(node, "agents") {
        match pattern::compile(text) {
            Ok(_) => texts.push(text.to_owned()),
            Err(error) => reader.fault(place, error.to_string(), "put `\\` before a letter that is meant as such"),
        }
    }
    match Patterns::compile(texts.iter().map(String::as_str)) {
        Ok(patterns) => (texts, Some(patterns)),
        Err(error) => {
            reader.fault(node.place, error.to_string(), "use fewer or simpler globs");
            (texts, None)
        }
    }
}

fn classes(reader: &mut Reader<'_>, members: &Members<'_>) -> Vec<Class> {
    let Some(node) = members.get("classes") else { return Vec::new() };
    let mut classes = Vec::new();
    for (text, place) in reader.texts(node, "classes") {
        match CLASSES.into_iter().find(|class| class.as_str() == text) {
            Some(class) => classes.push(class),
            None => reader.fault(place, format!("`{text}` is not a class"), nearest(text, CLASSES.map(Class::as_str))),
        }
    }
    classes
}

/// A list of exact names; `wrong` says why a text cannot be one.
fn names(
    reader: &mut Reader<'_>,
    members: &Members<'_>,
    key: &str,
    wrong: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let Some(node) = members.get(key) else { return Vec::new() };
    let mut names = Vec::new();
    for (text, place) in reader.texts(node, key) {
        match wrong(text) {
            Some(cause) => reader.fault(place, cause, format!("`{key}` are exact names, not globs")),
            None => names.push(text.to_owned()),
        }
    }
    names
}

fn text(reader: &mut Reader<'_>, members: &Members<'_>, key: &str) -> Option<Arc<str>> {
    reader.text(members.get(key)?, key).map(Arc::from)
}

fn condition(reader: &mut Reader<'_>, members: &Members<'_>, when: &str) -> Option<Condition> {
    let place = members.get("when").and_then(|node| node.place);
    match Condition::compile(when) {
        Ok(condition) => Some(condition),
        Err(faults) => {
            for fault in faults {
                reader.fault(place, fault.cause, fault.fix);
            }
            None
        }
    }
}

/// Two rules of one id could not be told apart in a record.
fn duplicates(rules: &[Rule], faults: &mut Vec<PolicyFault>) {
    let mut first: HashMap<&str, &RuleSpec> = HashMap::new();
    for Rule { spec, .. } in rules {
        if let Some(other) = first.insert(spec.id.as_str(), spec) {
            faults.push(PolicyFault {
                file: spec.file.to_string(),
                rule: Some(spec.id.to_string()),
                case: None,
                place: spec.place,
                cause: format!("the id `{}` is used before, in {}{}", spec.id, other.file, line(other.place)),
                fix: String::from("give each rule its own `id`, and each policy its own name"),
            });
        }
    }
}

fn line(place: Option<Place>) -> String {
    place.map_or_else(String::new, |place| format!(" line {}", place.line))
}

fn warnings(rules: &[Rule]) -> Vec<PolicyWarning> {
    let mut warnings = Vec::new();
    let denies: Vec<&Rule> = rules.iter().filter(|rule| denies_everyone(rule)).collect();
    for rule in rules {
        let mut warn = |text: String| {
            warnings.push(PolicyWarning {
                file: rule.spec.file.to_string(),
                rule: rule.spec.id.to_string(),
                place: rule.spec.place,
                text,
            });
        };
        if let Some(condition) = &rule.condition {
            for path in &condition.scanned().unguarded {
                warn(format!("`{path}` is read without `has({path})`: a call without it is denied"));
            }
            if condition.scanned().constant {
                match condition.constant() {
                    Prospect::Never => warn(String::from("the condition is never met, so the rule never matches")),
                    Prospect::Fails => warn(String::from(
                        "the condition cannot be evaluated, so every call it is asked about is denied",
                    )),
                    Prospect::Always => warn(String::from("the condition is always met; leave `when` out")),
                    Prospect::Maybe => {}
                }
            }
            if rule.spec.effect == Effect::Deny && rule.spec.actions == [Action::MethodCall] && condition.reads_call() {
                warn(String::from(
                    "handshakes, lists and streams carry nothing that this condition reads: it closes none of them",
                ));
            }
        }
        if rule.spec.effect == Effect::Allow
            && let Some(deny) = denies.iter().find(|deny| overrules(deny, rule))
        {
            warn(format!("rule `{}` denies all that this rule allows, so it never matches", deny.spec.id));
        }
    }
    warnings
}

/// Whether a rule denies its targets to everyone, always.
fn denies_everyone(rule: &Rule) -> bool {
    let spec = &rule.spec;
    spec.effect == Effect::Deny
        && rule.condition.is_none()
        && rule.agents.is_none()
        && [&spec.roles, &spec.tenants, &spec.environments, &spec.labels].into_iter().all(Vec::is_empty)
        && spec.classes.is_empty()
}

fn overrules(deny: &Rule, allow: &Rule) -> bool {
    allow.spec.actions.iter().all(|action| deny.spec.actions.contains(action))
        && allow.targets.iter().all(|narrow| {
            deny.targets.iter().any(|wide| covers(&wide.server, &narrow.server) && covers(&wide.name, &narrow.name))
        })
}
