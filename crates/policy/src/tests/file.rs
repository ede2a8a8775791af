//! Files: what is refused, what is warned about, and how it is said.

use super::{policies, source};
use crate::{Policies, Source};

fn faults(text: &str) -> Vec<String> {
    Policies::compile(&[source(text)]).unwrap_err().iter().map(ToString::to_string).collect()
}

/// The faults of one rule with these keys.
fn rule_faults(keys: &str) -> Vec<String> {
    faults(&format!("# YAML\npolicy: p\nrules:\n  - {{action: '*', target: '*/*', effect: deny, {keys}}}\n"))
}

/// The faults of one condition.
fn when_faults(when: &str) -> String {
    rule_faults(&format!("when: '{}'", when.replace('\'', "''"))).join("\n")
}

#[test]
fn every_fault_is_told_at_once_with_place_and_fix() {
    let text = "policy: p\nrules:\n  - acton: tool.execute\n    target: database\n    effect: alow\n  \
                - {action: tool.exec, target: 'a/[', effect: ask}\n";
    assert_eq!(
        faults(text),
        [
            "test.yaml:3:5: rule `p#1`: a rule has no key `acton` (did you mean `action`?)",
            "test.yaml:3:5: rule `p#1`: `action` is missing (name what the rule is about, such as `tool.execute`, or `*`)",
            "test.yaml:4:13: rule `p#1`: target `database` has no `/` between server and name (write `database/*` or `*/database`)",
            "test.yaml:5:13: rule `p#1`: `alow` is not an effect (did you mean `allow`?)",
            "test.yaml:6:14: rule `p#2`: `tool.exec` is not an action (did you mean `tool.execute`?)",
            "test.yaml:6:33: rule `p#2`: `[` is not a glob: unclosed character class; missing ']' \
             (put `\\` before a letter that is meant as such)",
            "test.yaml:6:48: rule `p#2`: `ask` needs somebody to ask, and approvals do not exist yet (write `deny` until they do)",
        ]
    );
}

#[test]
fn what_is_no_yaml_is_told_in_words_of_its_own() {
    let nested = format!("policy: p\nrules: {}{}", "[".repeat(4_000), "]".repeat(4_000));
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}", level - 1);
        aliases = format!("{aliases}a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", "));
    }
    let cases = [
        ("policy: p\npolicy: q\nrules: []", "2:1: `policy` is written twice", "keep one of them"),
        ("policy: p\nrules:\n\t- {}", "3:2: a tab stands here", "indent with spaces"),
        ("policy: p\nrules:\n  - a: 1\n   b: 2", "4:4: this stands neither in", "indent what belongs together alike"),
        ("policy: p\nrules: [{ target: 'a }]", "2:19: a quote is not closed", "close it with the quote"),
        ("policy: \"p\nrules: []", "2:1: a quote is not closed, here or above", "close it with the quote"),
        ("policy: 'p\n", "a quote is not closed", "close it with the quote"),
        ("policy: 'p\n\trules: []", "2:1: a quote is not closed, here or above", "close it with the quote"),
        ("policy: p\nrules: [{ agents: [*] }]", "2:20: `*` and `&` are signs of YAML", "in quotes"),
        ("policy: p\nrules: *x", "2:8: there is no such anchor", "in quotes"),
        ("policy: p\nrules: []\n---\npolicy: q", "a second document begins here", "keep everything in one document"),
        ("policy: p\nrules: !<a []", "2:8: tags have no meaning here", "remove the word"),
        ("policy: p\nrules: !secret []", "2:8: tags have no meaning here", "in quotes"),
        ("policy: p\nrules:\n  - !deny { id: a }", "3:5: tags have no meaning here", "in quotes"),
        ("policy: !p x\nrules: []", "1:9: tags have no meaning here", "in quotes"),
        (aliases.as_str(), "aliases counted as what they stand for", "use fewer"),
        (nested.as_str(), "nested too deep", "write it less deep"),
    ];
    let mut wrong = Vec::new();
    for (text, cause, fix) in cases {
        let told = faults(text).join("\n");
        if !(told.contains(cause) && told.contains(fix)) {
            wrong.push(format!("{cause}: {told}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn faults_of_all_files_come_together() {
    let file = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    let rule = r#"{"id": "same", "action": "*", "target": "*/*", "effect": "deny"}"#;
    let faults = Policies::compile(&[
        file("a.json", &format!(r#"{{"policy": "a", "rules": [{rule}]}}"#)),
        file("b.json", &format!(r#"{{"policy": "b", "rules": [{rule}]}}"#)),
        file("c.json", "policy: c\nrules: []"),
        file("d.yaml", "policy: d\npolicy: e\nrules: []"),
        file("e.json", r#"{"policy": "e", "rule": []}"#),
    ])
    .unwrap_err();
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 5, "{told:#?}");
    assert!(told[0].starts_with("c.json:1:") && told[0].contains("not JSON"), "{told:#?}");
    assert!(told[1].starts_with("d.yaml:2:"), "{told:#?}");
    assert!(told[2].contains("did you mean `rules`?") && told[3].contains("`rules` is missing"), "{told:#?}");
    assert!(told[4].starts_with("b.json:1:") && told[4].contains("used before, in a.json line 1"), "{told:#?}");
}

#[test]
fn lists_say_what_they_take() {
    assert!(rule_faults("roles: []")[0].contains("empty list"));
    assert!(rule_faults("roles: junior")[0].contains("`roles` is a text, not a list"));
    assert!(rule_faults("classes: [reads]")[0].contains("did you mean `read`?"));
    assert!(rule_faults("environments: ['pr*']")[0].contains("exact names"));
    assert!(rule_faults("agents: ['{a']")[0].contains("is not a glob"));
    assert!(rule_faults("id: agent-environment")[0].contains("built-in"));
    assert!(
        faults("{policy: p, rules: [{action: '*', target: '*', effect: deny}]}".replace('\'', "\"").as_str()).len()
            == 1
    );
}

#[test]
fn conditions_name_only_what_exists() {
    assert!(when_faults("agrs.x == 1").contains("did you mean `args`?"));
    assert!(when_faults("principal.role == 'x'").contains("did you mean `roles`?"));
    assert!(when_faults("target.sever == 'x'").contains("did you mean `server`?"));
    assert!(when_faults("args.x.lowerAscii() == 'x'").contains("no function `lowerAscii`"));
    assert!(when_faults("args.x ==").contains("is not CEL"));
    assert!(when_faults("@clock0 == 1").contains("is not CEL"));
    assert!(when_faults("hour('Europe/Berlni') == 1").contains("no time zone"));
    assert!(when_faults("hour(args.zone) == 1").contains("takes the name of one time zone"));
    assert!(when_faults("now < time('tomorrow')").contains("RFC 3339"));
    assert!(when_faults("args.x.matches(args.y)").contains("not written out"));
    assert!(when_faults("args.x.matches('(')").contains("not a regular expression"));
}

#[test]
fn the_cost_of_a_condition_is_bounded_at_load() {
    assert!(when_faults("args.a.all(x, args.b.exists(y, y == x))").contains("inside another"));
    assert!(when_faults("args.a.map(x, x + x).map(x, x + x) == []").contains("inside another"));
    assert!(when_faults(&format!("args.a == '{}'", "x".repeat(4096))).contains("at most 4096"));
    policies(
        "{policy: p, rules: [{action: '*', target: '*/*', effect: deny, when: 'args.a.all(x, x == 1) || args.b.exists(x, x == 2)'}]}",
    );
}

#[test]
fn warnings_tell_what_is_probably_not_meant() {
    let loaded = policies(
        "# YAML\npolicy: p\nrules:\n  - {id: a, action: '*', target: '*/*', effect: deny, when: 'args.x.y == 1 && has(args.z) && args.z == 1'}\n  \
         - {id: b, action: '*', target: '*/*', effect: deny, when: '1 == 2'}\n  \
         - {id: c, action: tool.execute, target: s/read, effect: allow}\n  \
         - {id: d, action: '*', target: 's/*', effect: deny}\n  \
         - {id: e, action: tool.execute, target: t/read, effect: allow}\n",
    );
    let told: Vec<String> = loaded.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "test.yaml:4:5: rule `a`: `args.x` is read without `has(args.x)`: a call without it is denied",
            "test.yaml:4:5: rule `a`: `args.x.y` is read without `has(args.x.y)`: a call without it is denied",
            "test.yaml:5:5: rule `b`: the condition is never met, so the rule never matches",
            "test.yaml:6:5: rule `c`: rule `d` denies all that this rule allows, so it never matches",
        ]
    );
}

#[test]
fn the_version_is_that_of_the_texts() {
    let version = |parts: &[(&str, &str)]| {
        let sources: Vec<Source> =
            parts.iter().map(|(name, text)| Source { name: (*name).to_owned(), text: (*text).to_owned() }).collect();
        *Policies::compile(&sources).unwrap().version()
    };
    let (one, other) = ("policy: a\nrules: []", "policy: b\nrules: []");
    assert_eq!(version(&[("a", one)]), version(&[("a", one)]));
    assert_ne!(version(&[("a", one)]), version(&[("a", other)]));
    assert_ne!(version(&[("a", one), ("b", other)]), version(&[("a", one)]));
    // Wherever they lie, however they are named there, and in whatever order they are found.
    assert_eq!(version(&[("policy.yaml", one)]), version(&[("/etc/durward/policy.yaml", one)]));
    assert_eq!(version(&[("a", one), ("b", other)]), version(&[("copy/b", one), ("copy/a", other)]));
    assert_eq!(version(&[("a", one), ("b", other)]), version(&[("a", other), ("b", one)]));
}

#[test]
fn json_with_escapes_and_yaml_say_the_same() {
    let json = r#"{"policy":"p","rules":[{"id":"\ud83d\ude00\u00e4\/","action":"*","target":"a\/*","effect":"deny"}]}"#;
    let loaded = Policies::compile(&[Source { name: String::from("p.json"), text: json.to_owned() }]).unwrap();
    let rule = loaded.rules().next().unwrap();
    assert_eq!((rule.id.as_str(), rule.targets.as_slice()), ("😀ä/", [String::from("a/*")].as_slice()));
}
