//! What holds for every set of rules.

use super::{question, resource, subject};
use crate::{Policies, Reason, Resource, Source, Subject};
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};
use vocab::{Action, Class, EnvironmentName};

const AGENTS: [&str; 3] = ["x", "y", "xy"];
const TARGETS: [&str; 5] = ["a/read", "a/write", "b/read", "b/x/read", "c/tool"];

fn list(values: &'static [&'static str]) -> impl Strategy<Value = Option<Vec<&'static str>>> {
    prop::option::weighted(0.3, prop::sample::subsequence(values, 1..=values.len()))
}

prop_compose! {
    /// A rule without a condition.
    fn rule()(
        action in select(vec!["*", "tool.execute", "prompt.get"]),
        target in select(vec!["*/*", "a/*", "*/read", "a/read", "b/*", "b/x*", "?/*e*", "c/tool"]),
        effect in select(vec!["allow", "allow", "deny"]),
        agents in list(&["x", "y", "x*"]),
        roles in list(&["junior", "lead"]),
        environments in list(&["dev", "prod"]),
        classes in list(&["read", "write"]),
        labels in list(&["pii"]),
    ) -> Value {
        let mut rule = json!({"action": action, "target": target, "effect": effect});
        let lists = [("agents", agents), ("roles", roles), ("environments", environments), ("classes", classes), ("labels", labels)];
        for (key, list) in lists {
            if let Some(list) = list {
                rule[key] = json!(list);
            }
        }
        rule
    }
}

prop_compose! {
    /// A rule that may have a condition.
    fn conditional()(rule in rule(), when in prop::option::of(select(vec![
        "has(args.t) && args.t == 1", "args.t == 1", "'lead' in principal.roles", "target.class == 'read' || args.t == 1",
        "!('lead' in principal.roles && has(args.t))", "target.environment == 'dev'", "principal.roles.exists(r, r == 'lead') && now > 5",
    ]))) -> Value {
        let mut rule = rule;
        if let Some(when) = when {
            rule["when"] = json!(when);
        }
        rule
    }
}

prop_compose! {
    fn caller()(agent in select(&AGENTS[..]), roles in prop::sample::subsequence(vec!["junior", "lead"], 0..=2), bound in any::<bool>()) -> Subject {
        let mut subject = subject(agent, &roles);
        if bound {
            subject.environments = vec![EnvironmentName::new("dev").unwrap()];
        }
        subject
    }
}

prop_compose! {
    fn called()(
        target in select(&TARGETS[..]),
        environment in prop::option::of(select(vec!["dev", "prod"])),
        class in select(vec![Class::Read, Class::Write]),
        label in any::<bool>(),
    ) -> Resource {
        let labels = if label { vec![String::from("pii")] } else { Vec::new() };
        Resource { environment: environment.map(|name| EnvironmentName::new(name).unwrap()), class, labels, ..resource(target) }
    }
}

fn action() -> impl Strategy<Value = Action> {
    select(vec![Action::ToolExecute, Action::PromptGet, Action::MethodCall])
}

fn arguments() -> impl Strategy<Value = Value> {
    select(vec![json!({}), json!({"t": 1}), json!({"t": "1"}), json!(null)])
}

fn load(rules: &[Value]) -> Policies {
    let text = json!({"policy": "p", "rules": rules}).to_string();
    Policies::compile(&[Source { name: String::from("p.json"), text }]).unwrap()
}

fn allowed(policies: &Policies, subject: &Subject, action: Action, resource: &Resource, arguments: &Value) -> bool {
    policies.authorize(&question(subject, action, resource, arguments)).is_ok()
}

/// The answer without who gave it.
fn answer(
    policies: &Policies,
    subject: &Subject,
    action: Action,
    resource: &Resource,
    arguments: &Value,
) -> Option<(Reason, bool)> {
    policies
        .authorize(&question(subject, action, resource, arguments))
        .err()
        .map(|refusal| (refusal.reason, refusal.hidden))
}

proptest! {
    #[test]
    fn nothing_is_allowed_without_an_allow(rules in prop::collection::vec(conditional(), 0..8), subject in caller(), resource in called(), action in action(), arguments in arguments()) {
        let denies: Vec<Value> = rules.into_iter().filter(|rule| rule["effect"] == "deny").collect();
        prop_assert!(!allowed(&load(&denies), &subject, action, &resource, &arguments));
    }

    #[test]
    fn a_deny_beats_every_allow(mut rules in prop::collection::vec(conditional(), 0..8), at in any::<prop::sample::Index>(), subject in caller(), resource in called(), action in action(), arguments in arguments()) {
        let at = at.index(rules.len() + 1);
        rules.insert(at, json!({"action": "*", "target": resource.id.to_string(), "effect": "deny"}));
        let policies = load(&rules);
        prop_assert!(!allowed(&policies, &subject, action, &resource, &arguments));
        prop_assert!(!policies.visible(&subject, action, &resource));
    }

    #[test]
    fn a_rule_for_x_changes_nothing_for_y(rules in prop::collection::vec(conditional(), 0..8), mut added in conditional(), subject in caller(), resource in called(), action in action(), arguments in arguments()) {
        prop_assume!(subject.id.agent.as_str() != "x");
        added["agents"] = json!(["x"]);
        let before = load(&rules);
        let after = load(&[rules, vec![added]].concat());
        prop_assert_eq!(answer(&before, &subject, action, &resource, &arguments), answer(&after, &subject, action, &resource, &arguments));
        prop_assert_eq!(before.visible(&subject, action, &resource), after.visible(&subject, action, &resource));
        prop_assert_eq!(before.reaches(&subject, &resource), after.reaches(&subject, &resource));
    }

    #[test]
    fn a_rule_for_one_tool_changes_nothing_for_another(rules in prop::collection::vec(conditional(), 0..8), mut added in conditional(), other in select(&TARGETS[..]), subject in caller(), resource in called(), action in action(), arguments in arguments()) {
        prop_assume!(resource.id.to_string() != other);
        added["target"] = json!(other);
        let before = load(&rules);
        let after = load(&[rules, vec![added]].concat());
        prop_assert_eq!(answer(&before, &subject, action, &resource, &arguments), answer(&after, &subject, action, &resource, &arguments));
        prop_assert_eq!(before.visible(&subject, action, &resource), after.visible(&subject, action, &resource));
    }

    #[test]
    fn a_rule_for_one_server_changes_nothing_for_another(rules in prop::collection::vec(conditional(), 0..8), mut added in conditional(), other in select(&TARGETS[..]), name in select(vec!["*", "r*"]), subject in caller(), resource in called(), action in action(), arguments in arguments()) {
        let (server, _) = other.split_once('/').unwrap();
        prop_assume!(resource.id.server.as_str() != server);
        added["target"] = json!(format!("{server}/{name}"));
        let before = load(&rules);
        let after = load(&[rules, vec![added]].concat());
        prop_assert_eq!(answer(&before, &subject, action, &resource, &arguments), answer(&after, &subject, action, &resource, &arguments));
        prop_assert_eq!(before.visible(&subject, action, &resource), after.visible(&subject, action, &resource));
        prop_assert_eq!(before.reaches(&subject, &resource), after.reaches(&subject, &resource));
    }

    #[test]
    fn the_order_of_rules_changes_nothing(rules in prop::collection::vec(conditional(), 0..8), turn in any::<prop::sample::Index>(), subject in caller(), resource in called(), action in action(), arguments in arguments()) {
        let mut turned = rules.clone();
        turned.rotate_left(turn.index(rules.len().max(1)).min(rules.len()));
        turned.reverse();
        let (one, other) = (load(&rules), load(&turned));
        prop_assert_eq!(answer(&one, &subject, action, &resource, &arguments), answer(&other, &subject, action, &resource, &arguments));
    }

    #[test]
    fn without_conditions_visible_is_callable(rules in prop::collection::vec(rule(), 0..8), subject in caller(), resource in called(), action in action(), arguments in arguments()) {
        let policies = load(&rules);
        prop_assert_eq!(policies.visible(&subject, action, &resource), allowed(&policies, &subject, action, &resource, &arguments));
    }

    #[test]
    fn callable_is_visible_and_visible_is_reached(rules in prop::collection::vec(conditional(), 0..8), subject in caller(), resource in called(), action in action(), arguments in arguments()) {
        let policies = load(&rules);
        let visible = policies.visible(&subject, action, &resource);
        prop_assert!(visible || !allowed(&policies, &subject, action, &resource, &arguments));
        // A server is asked for without what is particular to one of its tools.
        let server = Resource { environment: resource.environment.clone(), ..super::resource(&format!("{}/", resource.id.server)) };
        prop_assert!(policies.reaches_with(&subject, action, &server) || !visible);
        prop_assert!(policies.reaches(&subject, &server) || !policies.reaches_with(&subject, action, &server));
        prop_assert!(visible || !policies.sees_all(&subject, action, &server));
        let open = policies.authorize_open(&subject, "initialize", std::slice::from_ref(&server)).is_ok();
        prop_assert!(open || !policies.reaches(&subject, &server) || rules.iter().any(|rule| rule["effect"] == "deny"));
    }

    #[test]
    fn one_plain_allow_shows_all_of_a_server(resource in called(), action in action()) {
        let subject = subject("x", &[]);
        let server = super::resource(&format!("{}/", resource.id.server));
        let plain = json!({"action": "*", "target": "*/*", "effect": "allow"});
        prop_assert!(load(std::slice::from_ref(&plain)).sees_all(&subject, action, &server));
        let closed = json!({"action": "*", "target": format!("{}/other", resource.id.server), "effect": "deny"});
        prop_assert!(!load(&[plain, closed]).sees_all(&subject, action, &server));
    }

    #[test]
    fn an_explanation_decides_like_the_decision(rules in prop::collection::vec(conditional(), 0..8), subject in caller(), resource in called(), action in action(), arguments in arguments()) {
        let policies = load(&rules);
        let explanation = policies.explain(&question(&subject, action, &resource, &arguments));
        prop_assert_eq!(explanation.decision == crate::Decision::Allow, allowed(&policies, &subject, action, &resource, &arguments));
        prop_assert!(explanation.rules.iter().all(|rule| rule.as_str() == "agent-environment" || explanation.considered.iter().any(|one| one.rule == *rule)));
    }

    #[test]
    fn any_text_is_loaded_or_refused(text in "[a-z{}\\[\\]:,\"' \\n*/-]{0,60}") {
        let loaded = Policies::compile(&[super::source(&text)]);
        prop_assert!(loaded.is_ok() || loaded.is_err_and(|faults| !faults.is_empty()));
    }
}
