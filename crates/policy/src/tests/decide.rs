//! Permits, refusals, open methods, explanations.

use super::{call, policies, question, resource, subject};
use crate::{Decision, Part, Policies, Reason, Source, Standing};
use serde_json::{Value, json};
use vocab::{Action, Digest, EnvironmentName, PrincipalId, TenantId};

const NOTHING: Value = Value::Null;

#[test]
fn a_permit_is_for_one_call() {
    let policies = policies("{policy: p, rules: [{action: tool.execute, target: 'a/*', effect: allow}]}");
    let arguments = json!({"path": "/tmp"});
    let permit = call(&policies, "x", "a/read", &arguments).unwrap();
    let (x, target, digest) =
        (subject("x", &[]).id, resource("a/read").id, Digest::of(arguments.to_string().as_bytes()));

    assert!(permit.covers(&x, &target, &digest));
    assert!(!permit.covers(&subject("y", &[]).id, &target, &digest));
    assert!(!permit.covers(&PrincipalId { user: Some("eve".parse().unwrap()), ..x.clone() }, &target, &digest));
    assert!(!permit.covers(&x, &resource("a/write").id, &digest));
    assert!(!permit.covers(&x, &resource("b/read").id, &digest));
    assert!(!permit.covers(&x, &target, &Digest::of(b"{}")));
    assert_eq!(permit.because().iter().map(ToString::to_string).collect::<Vec<_>>(), ["p#1"]);
    assert_eq!(
        (permit.action(), permit.version(), permit.arguments()),
        (Action::ToolExecute, policies.version(), Some(&digest))
    );
}

#[test]
fn no_files_deny_everything() {
    let policies = Policies::compile(&[]).unwrap();
    let refusal = call(&policies, "x", "a/b", &NOTHING).unwrap_err();
    assert_eq!((refusal.reason, refusal.hidden), (Reason::NoMatch, true));
    assert_eq!(
        policies.authorize_open(&subject("x", &[]), "initialize", &[resource("a/")]).unwrap_err().reason,
        Reason::NoMatch
    );
}

#[test]
fn another_tenant_is_out_of_reach_of_any_rule() {
    let policies = policies("{policy: p, rules: [{action: '*', target: '*/*', effect: allow}]}");
    let (x, mut theirs) = (subject("x", &[]), resource("a/b"));
    theirs.id.tenant = TenantId::new("other").unwrap();
    let refusal = policies.authorize(&question(&x, Action::ToolExecute, &theirs, &NOTHING)).unwrap_err();
    assert_eq!((refusal.reason, refusal.hidden), (Reason::Denied, true));
    assert!(!policies.visible(&x, Action::ToolExecute, &theirs) && !policies.reaches(&x, &theirs));
    assert_eq!(
        policies.authorize_open(&x, "tools/list", &[theirs.clone(), resource("a/")]).unwrap().targets(),
        [resource("a/").id]
    );
    assert!(policies.authorize_open(&x, "tools/list", &[theirs]).unwrap_err().hidden);
}

#[test]
fn a_bound_agent_sees_no_other_environment() {
    let policies = policies("{policy: p, rules: [{action: '*', target: '*/*', effect: allow}]}");
    let (mut x, mut prod) = (subject("x", &["lead"]), resource("a/b"));
    x.environments = vec![EnvironmentName::new("dev").unwrap()];
    prod.environment = Some(EnvironmentName::new("prod").unwrap());
    let refusal = policies.authorize(&question(&x, Action::ToolExecute, &prod, &NOTHING)).unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.hidden, refusal.rules[0].as_str()),
        (Reason::Environment, true, "agent-environment")
    );
    assert!(!policies.visible(&x, Action::ToolExecute, &prod) && !policies.reaches(&x, &prod));
}

#[test]
fn a_denial_names_its_rule_and_reason() {
    let policies = policies(
        "{policy: p, rules: [{action: '*', target: 'a/*', effect: allow},
          {id: no-drop, action: '*', target: a/drop, effect: deny, when: 'has(args.force)', reason: ask Anna}]}",
    );
    let refusal = call(&policies, "x", "a/drop", &json!({"force": 1})).unwrap_err();
    assert_eq!((refusal.reason, refusal.hidden), (Reason::Denied, false));
    assert_eq!(refusal.to_string(), "denied by rule `no-drop`: ask Anna");
}

#[test]
fn a_condition_that_fails_denies_whatever_its_effect() {
    for effect in ["allow", "deny"] {
        let policies = policies(&format!(
            "{{policy: p, rules: [{{action: '*', target: 'a/*', effect: allow}},
              {{id: odd, action: '*', target: 'a/*', effect: {effect}, when: 'args.table == \"canary-text\"'}}]}}"
        ));
        let refusal = call(&policies, "x", "a/b", &json!({"other": 1})).unwrap_err();
        assert_eq!((refusal.reason, refusal.rules[0].as_str(), refusal.hidden), (Reason::Condition, "odd", false));
        assert_eq!(refusal.to_string(), "the condition of rule `odd` could not be evaluated: there is no `table`");
    }
}

#[test]
fn what_fails_for_every_call_is_not_visible() {
    let policies = policies(
        "# YAML\npolicy: p\nrules:\n  - {action: '*', target: 'a/*', effect: allow}\n  \
         - {action: '*', target: a/hers, effect: deny, when: 'principal.user != \"ann\"'}\n",
    );
    let (nobody, target) = (subject("x", &[]), resource("a/hers"));
    let mut ann = nobody.clone();
    ann.id.user = Some("ann".parse().unwrap());
    assert!(!policies.visible(&nobody, Action::ToolExecute, &target));
    assert!(policies.visible(&ann, Action::ToolExecute, &target));
    let refusal = policies.authorize(&question(&nobody, Action::ToolExecute, &target, &NOTHING)).unwrap_err();
    assert_eq!((refusal.reason, refusal.hidden), (Reason::Condition, true));
    assert!(policies.authorize(&question(&ann, Action::ToolExecute, &target, &NOTHING)).is_ok());
}

#[test]
fn messages_hold_nothing_of_the_arguments() {
    for when in ["args.a < 3", "args.a", "args.a.b", "args.m[args.a] == 1", "args.a.exists(x, x)", "args.a + 1 == 2"] {
        let text = format!("# YAML\npolicy: p\nrules: [{{action: '*', target: '*/*', effect: allow, when: '{when}'}}]");
        let refusal = call(&policies(&text), "x", "a/b", &json!({"a": "canary-7391", "m": {}})).unwrap_err();
        assert_eq!(refusal.reason, Reason::Condition, "{when}");
        assert!(!refusal.to_string().contains("canary"), "{refusal}");
    }
}

#[test]
fn a_condition_that_is_not_boolean_denies() {
    let policies = policies("{policy: p, rules: [{action: '*', target: '*/*', effect: allow, when: 'args.yes'}]}");
    assert!(call(&policies, "x", "a/b", &json!({"yes": true})).is_ok());
    assert_eq!(call(&policies, "x", "a/b", &json!({"yes": 1})).unwrap_err().reason, Reason::Condition);
}

#[test]
fn long_lists_are_refused_where_a_condition_goes_through_one() {
    let policies = policies(
        "# YAML\npolicy: p\nrules:\n  - {action: '*', target: a/one, effect: allow, when: 'args.l.all(x, x == 1)'}\n  \
         - {action: '*', target: a/none, effect: allow, when: 'size(args.l) > 0'}\n  \
         - {action: '*', target: a/two, effect: allow, when: 'args.l.all(x, x in args.l)'}\n",
    );
    let list = |length: usize| json!({"l": vec![1; length]});
    assert!(call(&policies, "x", "a/one", &list(10_000)).is_ok());
    assert_eq!(call(&policies, "x", "a/one", &list(10_001)).unwrap_err().reason, Reason::Condition);
    assert!(call(&policies, "x", "a/none", &list(10_001)).is_ok());
    assert!(call(&policies, "x", "a/two", &list(1_000)).is_ok());
    assert_eq!(call(&policies, "x", "a/two", &list(10_000)).unwrap_err().reason, Reason::Condition);
}

#[test]
fn many_groups_times_a_long_text_is_too_much_work() {
    let policies = policies(
        "{policy: p, rules: [{action: '*', target: '*/*', effect: allow, when: 'principal.groups.exists(g, args.t.contains(g))'}]}",
    );
    let (mut x, target, arguments) = (subject("x", &[]), resource("a/b"), json!({"t": "a".repeat(100_000) + "g1"}));
    x.groups = vec![String::from("g1")];
    assert!(policies.authorize(&question(&x, Action::ToolExecute, &target, &arguments)).is_ok());
    x.groups = (0..1000).map(|at| format!("g{at}")).collect();
    let refusal = policies.authorize(&question(&x, Action::ToolExecute, &target, &arguments)).unwrap_err();
    assert_eq!(refusal.reason, Reason::Condition);
}

#[test]
fn open_methods_follow_what_is_reached() {
    let policies = policies(
        "{policy: p, rules: [{agents: [x], action: tool.execute, target: 'a/*', effect: allow},
          {agents: [x], action: prompt.get, target: 'b/hello', effect: allow},
          {agents: [x], action: tool.execute, target: 'c/*', effect: allow}, {action: '*', target: 'c/*', effect: deny},
          {agents: [x], action: tool.execute, target: 'd/*', effect: allow},
          {id: no-lists, action: method.call, target: d/tools/list, effect: deny},
          {action: method.call, target: a/tools/list, effect: deny, when: 'hour(\"UTC\") < 25'}]}",
    );
    let servers = ["a/", "b/", "c/", "d/", "e/"].map(resource);
    let x = subject("x", &[]);
    let open = |method: &str| -> Vec<String> {
        let permit = policies.authorize_open(&x, method, &servers).unwrap();
        permit.targets().iter().map(|target| target.server.to_string()).collect()
    };
    assert_eq!(open("initialize"), ["a", "b", "d"]);
    assert_eq!(open("tools/list"), ["a", "b"]);

    let [_, _, c, d, _] = servers.clone();
    let denied = policies.authorize_open(&x, "tools/list", &[d]).unwrap_err();
    assert_eq!((denied.reason, denied.hidden, denied.rules[0].as_str()), (Reason::Denied, false, "no-lists"));
    assert!(policies.authorize_open(&x, "tools/list", &[c]).unwrap_err().hidden);
    assert!(policies.authorize_open(&subject("y", &[]), "initialize", &servers).unwrap_err().hidden);

    let permit = policies.authorize_open(&x, "initialize", &servers).unwrap();
    assert!(permit.covers(&x.id, &resource("a/").id, &Digest::of(b"{}")));
    assert!(!permit.covers(&x.id, &resource("e/").id, &Digest::of(b"{}")));
    assert!(!permit.covers(&subject("y", &[]).id, &resource("a/").id, &Digest::of(b"{}")));
}

#[test]
fn a_server_is_reached_by_what_no_deny_covers() {
    let allow = json!({"action": ["tool.execute", "prompt.get"], "target": ["git*/read_all", "git*/read_*", "other/*"], "effect": "allow"});
    let github = resource("github/");
    for (denied, reached) in [
        (json!(["github/read_*"]), false),
        (json!(["*/*"]), false),
        (json!(["g?thub/*all", "github/read_*"]), false),
        // A glob that is another covers only names, and one elsewhere covers nothing here.
        (json!(["github/read*"]), true),
        (json!(["github/*all", "other/*"]), true),
        (json!(["gitlab/*"]), true),
    ] {
        for (action, stays) in [(json!("*"), reached), (json!("tool.execute"), true)] {
            let deny = json!({"action": action, "target": denied, "effect": "deny"});
            let rules = json!({"policy": "p", "rules": [allow, deny]});
            let policies = policies(&rules.to_string());
            assert_eq!(policies.reaches(&subject("x", &[]), &github), stays, "{deny}");
        }
    }
}

#[test]
fn an_explanation_tells_what_matched_and_what_nearly_did() {
    let policies = policies(
        "{policy: p, rules: [{id: fits, action: tool.execute, target: 'a/*', effect: allow, when: 'has(args.t) && args.t == 1'},
          {id: role, roles: [lead], action: tool.execute, target: 'a/*', effect: allow},
          {id: far, roles: [lead], agents: [y], action: tool.execute, target: 'a/*', effect: allow},
          {id: elsewhere, action: tool.execute, target: 'b/*', effect: allow},
          {id: broken, action: tool.execute, target: 'a/*', effect: deny, when: 'args.u == 1'}]}",
    );
    let (x, target, arguments) = (subject("x", &[]), resource("a/b"), json!({"t": "canary-2"}));
    let asked = question(&x, Action::ToolExecute, &target, &arguments);
    let explanation = policies.explain(&asked);
    let told: Vec<_> = explanation.considered.iter().map(|one| (one.rule.as_str(), one.standing.clone())).collect();
    let why = std::sync::Arc::from("there is no `u`");
    assert_eq!(
        told,
        [
            ("fits", Standing::Unmet),
            ("role", Standing::Missed { part: Part::Roles }),
            ("elsewhere", Standing::Missed { part: Part::Target }),
            ("broken", Standing::Failed { why }),
        ]
    );
    assert_eq!(
        (explanation.decision, explanation.reason, explanation.hidden),
        (Decision::Deny, Some(Reason::Condition), false)
    );
    assert_eq!(explanation.inputs.read.iter().map(String::as_str).collect::<Vec<_>>(), ["args", "args.t", "args.u"]);
    assert!(!serde_json::to_string(&explanation).unwrap().contains("canary"));
}

#[test]
fn a_thousand_rules_decide_right() {
    let rules: Vec<Value> = (0..1000)
        .map(|at| {
            let effect = if at % 10 == 0 { "deny" } else { "allow" };
            json!({"id": format!("r{at}"), "action": "tool.execute", "target": format!("s{}/tool_{at}_*", at % 50), "effect": effect})
        })
        .collect();
    let text = json!({"policy": "many", "rules": rules}).to_string();
    let policies = Policies::compile(&[Source { name: String::from("many.json"), text }]).unwrap();
    assert_eq!(policies.rule_count(), 1000);
    for at in 0..1000 {
        let decided = call(&policies, "x", &format!("s{}/tool_{at}_a", at % 50), &NOTHING);
        let rules = match decided {
            Ok(permit) => permit.because().to_vec(),
            Err(refusal) => refusal.rules,
        };
        assert_eq!(rules.iter().map(ToString::to_string).collect::<Vec<_>>(), [format!("r{at}")]);
    }
    assert!(call(&policies, "x", "s1/tool_2_a", &NOTHING).unwrap_err().rules.is_empty());
}

#[test]
fn what_a_rule_decides_by_the_time_is_known() {
    let reads = |when: &str| {
        let rule =
            format!("policy: p\nrules: [{{ effect: allow, action: tool.execute, target: '*/*', when: '{when}' }}]");
        let policies = policies(&rule);
        assert!(!policies.reads_clock(Action::ResourceSubscribe), "{when}: no rule is about it");
        policies.reads_clock(Action::ToolExecute)
    };
    for when in ["now < 1", "args.a == 1 || now % 60 == 0", r#"hour("UTC") < 18"#, "args.all.exists(each, each > now)"]
    {
        assert!(reads(when), "{when}");
    }
    for when in ["args.now == 1", "true", "args.all.exists(now, now > 1)"] {
        assert!(!reads(when), "{when}");
    }
}
