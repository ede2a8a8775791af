//! Case files: `tests/config/NAME.yaml` must be reported exactly as `NAME.txt` shows.

use super::{
    diff::{self, Difference},
    fault::Report,
    key::{Key, ROOT, Shape},
    load,
    load::parse,
    schema::schema,
    settings::{Reach, Settings},
    tree::{self, Node, Value},
    veil,
};
use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

const CASES: &str = "tests/config";

/// Whatever stands for a secret in the case files.
const CANARIES: [&str; 2] = ["hunter2", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"];

fn cases() -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(CASES)
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 25, "cases went missing");
    files
}

fn report(path: &Path) -> Report {
    match load(path) {
        Ok(loaded) => {
            assert_eq!(loaded.report.errors(), 0, "{} was loaded in spite of errors", path.display());
            loaded.report
        }
        Err(report) => {
            assert!(report.errors() > 0, "{} was refused without a reason", path.display());
            report
        }
    }
}

/// A case without its `.txt` writes it and fails once: read it before you commit it.
#[test]
fn every_case_is_reported_as_written_down() {
    let mut wrong = String::new();
    for path in cases() {
        let seen = report(&path).render(false);
        let expected = path.with_extension("txt");
        match fs::read_to_string(&expected) {
            Ok(text) if text == seen => {}
            Ok(text) => {
                writeln!(wrong, "=== {}\n--- expected\n{text}\n--- seen\n{seen}", path.display()).expect("text");
            }
            Err(_) => {
                fs::write(&expected, &seen).expect("a writable folder");
                writeln!(wrong, "=== {} is new: read it, then run again\n{seen}", expected.display()).expect("text");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn no_report_shows_a_secret() {
    for path in cases() {
        let report = report(&path);
        let texts = [report.render(false), report.render(true), format!("{report:?}")];
        for canary in CANARIES {
            assert!(texts.iter().all(|text| !text.contains(canary)), "{} shows {canary}\n{report}", path.display());
        }
    }
}

fn complete() -> (String, Node) {
    let source = fs::read_to_string(Path::new(CASES).join("01-complete.yaml")).expect("the complete case");
    let root = tree::parse(&source).expect("YAML");
    (source, root)
}

/// Paths of all keys that the operator does not choose, as `servers.*.url`.
fn known(shape: &Shape, path: &str, into: &mut Vec<String>) {
    match shape {
        Shape::Table(keys) => {
            for Key { name, shape, .. } in *keys {
                let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
                known(shape, &path, into);
                into.push(path);
            }
        }
        Shape::Map(_, inner) => known(inner, &format!("{path}.*"), into),
        Shape::List(inner) | Shape::Some(inner) | Shape::Filled(inner, ..) => known(inner, path, into),
        _ => {}
    }
}

fn used(node: &Node, shape: &Shape, path: &str, into: &mut Vec<(String, tree::Span)>) {
    match shape {
        Shape::Table(keys) => {
            for key in *keys {
                if let Some(entry) = node.entry(key.name) {
                    let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
                    used(&entry.node, &key.shape, &path, into);
                    into.push((path, entry.span.clone()));
                }
            }
        }
        Shape::Map(_, inner) => {
            for entry in node.entries() {
                used(&entry.node, inner, &format!("{path}.*"), into);
            }
        }
        Shape::List(inner) | Shape::Some(inner) | Shape::Filled(inner, ..) => {
            for member in node.each() {
                used(member, inner, path, into);
            }
        }
        _ => {}
    }
}

/// The tree without the entry whose key stands at `span`.
fn without(node: &Node, span: &tree::Span) -> Node {
    let value = match &node.value {
        Value::Table(entries) => Value::Table(
            entries
                .iter()
                .filter(|entry| entry.span != *span)
                .map(|entry| tree::Entry { node: without(&entry.node, span), ..entry.clone() })
                .collect(),
        ),
        Value::List(members) => Value::List(members.iter().map(|member| without(member, span)).collect()),
        other => other.clone(),
    };
    Node { span: node.span.clone(), value }
}

fn settings(root: &Node) -> (Settings, usize) {
    let mut faults = super::fault::Faults::default();
    super::shape::check(root, &ROOT, "", &mut faults);
    let settings = super::read::read(root, Path::new(CASES), &mut faults);
    (settings, faults.found.iter().filter(|fault| fault.stops()).count())
}

#[test]
fn every_known_key_changes_what_is_configured() {
    let (_, root) = complete();
    let (before, errors) = settings(&root);
    assert_eq!(errors, 0);

    let (mut all, mut seen) = (Vec::new(), Vec::new());
    known(&ROOT, "", &mut all);
    used(&root, &ROOT, "", &mut seen);
    // One place for the master key: its other places have a case of their own below, and so has TLS, whose key is in no
    // repository. Policies are read by `load`.
    let elsewhere = ["vault.key.file", "vault.key.command", "policies", "tls", "tls.certificate", "tls.key"];
    for path in &all {
        let spans: Vec<_> = seen.iter().filter(|(other, _)| other == path).map(|(_, span)| span).collect();
        assert!(!spans.is_empty() || elsewhere.contains(&path.as_str()), "the complete case lacks `{path}`");
        let read = spans.iter().any(|span| {
            let (after, errors) = settings(&without(&root, span));
            errors > 0 || !diff::between(&before, &after).expect("settings").is_empty()
        });
        assert!(read || elsewhere.contains(&path.as_str()), "nothing reads `{path}`");
    }
}

/// The tree with what stands at `span` replaced.
fn replaced(node: &Node, span: &tree::Span, by: &Value) -> Node {
    let inside = |node: &Node| replaced(node, span, by);
    let value = match &node.value {
        _ if node.span == *span => by.clone(),
        Value::Table(entries) => Value::Table(
            entries.iter().map(|entry| tree::Entry { node: inside(&entry.node), ..entry.clone() }).collect(),
        ),
        Value::List(members) => Value::List(members.iter().map(inside).collect()),
        other => other.clone(),
    };
    Node { span: node.span.clone(), value }
}

/// Every value of the tree.
fn spans(node: &Node, into: &mut Vec<tree::Span>) {
    into.push(node.span.clone());
    for entry in node.entries() {
        spans(&entry.node, into);
    }
    if let Value::List(members) = &node.value {
        for member in members {
            spans(member, into);
        }
    }
}

/// How much of what is chosen freely the file has, and how much was read.
fn counts(root: &Node, settings: &Settings) -> [(usize, usize); 6] {
    let entries = |key: &str| root.get(key).map_or(0, |node| node.entries().len());
    let each = |key: &str| root.get(key).map_or(0, |node| node.each().len());
    let servers = || root.get("servers").map(Node::entries).unwrap_or_default().iter().map(|entry| &entry.node);
    let credentials = servers().filter_map(|server| server.get("credential")).map(|node| node.each().len()).sum();
    let tools = servers().filter_map(|server| server.get("tools")).map(|node| node.entries().len()).sum();
    [
        (entries("servers"), settings.servers.len()),
        (entries("agents"), settings.agents.len()),
        (each("issuers"), settings.issuers.len()),
        (each("limits"), settings.limits.len()),
        (credentials, settings.servers.values().map(|server| server.credentials.len()).sum()),
        (tools, settings.servers.values().map(|server| server.tools.len()).sum()),
    ]
}

#[test]
fn nothing_is_left_out_without_a_fault() {
    let (_, root) = complete();
    let scalar = |text: &str| Value::Scalar { text: text.to_owned(), quoted: true };
    let list = |value: Value| Value::List(vec![Node { span: 0..0, value }]);
    let mut places = Vec::new();
    spans(&root, &mut places);
    let mut good = 0;
    for span in &places {
        for by in
            [Value::Null, Value::List(vec![]), list(Value::Null), list(scalar("")), Value::Table(vec![]), scalar(" ")]
        {
            let root = replaced(&root, span, &by);
            let (settings, errors) = settings(&root);
            good += usize::from(errors == 0);
            for (written, read) in counts(&root, &settings) {
                assert!(errors > 0 || written == read, "{by:?} at {span:?}: {written} are written, {read} were read");
            }
        }
    }
    assert!(good > 50, "{good}");
}

#[test]
fn every_key_has_a_row_among_the_claims() {
    let page = fs::read_to_string("../../docs/claims.md").expect("the page of claims");
    let (_, part) = page.split_once("## What each key of the configuration does").expect("its part on keys");
    let (_, part) = part.split_once("|---|---|---|").expect("a table");
    let cells = part.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let mut named: Vec<String> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    named.sort();
    let mut all = Vec::new();
    known(&ROOT, "", &mut all);
    all.sort();
    assert_eq!(named, all, "docs/claims.md names each key once, with a test");
}

#[test]
fn the_master_key_may_come_from_a_file_or_a_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = folder.path();
    let private = |name: &str, text: &str, mode: u32| {
        fs::write(base.join(name), text).expect("a file");
        fs::set_permissions(base.join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n";
    private("master.key", key, 0o600);
    let file = format!("vault.key.file: {}", base.join("master.key").display());
    for (source, expected) in [
        ("vault: { key: { file: master.key } }", file.as_str()),
        ("vault: { key: { command: [pass, show, durward] } }", "vault.key.command: [pass, show, durward]"),
    ] {
        let loaded = parse("durward.yaml", source, base).expect("a good configuration");
        let empty = Settings::empty(base.join("durward-data"));
        let changes = Difference::of(&empty, &empty, &loaded.settings).changes;
        assert!(changes.contains(&format!("at the next start: + {expected}")), "{changes:?}");
    }
}

#[test]
fn a_master_key_that_would_not_start_is_no_good_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text, mode) in [("short.key", "c2hvcnQ=", 0o600), ("open.key", "", 0o644)] {
        fs::write(folder.path().join(name), text).expect("a file");
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    for (file, expected) in [
        ("missing.key", "this file does not exist"),
        ("short.key", "a master key is exactly 32 bytes"),
        ("open.key", "its mode is 644"),
    ] {
        let source = format!("vault: {{ key: {{ file: {file} }} }}");
        let report = parse("durward.yaml", &source, folder.path()).expect_err("it would not start").render(false);
        assert!(report.contains(expected) && report.contains("help:"), "{file}: {report}");
    }
}

#[test]
fn a_credential_whose_secret_is_not_stored_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = "servers: { wiki: { url: https://wiki.example.com/mcp, credential: { bearer: wiki-token } } }";
    let warnings = || {
        let mut loaded = parse("durward.yaml", source, folder.path()).expect("a good configuration");
        let before = loaded.report.clone();
        loaded.look_for_secrets();
        assert_eq!(loaded.report.errors(), 0);
        loaded.report.warnings_beyond(&before)
    };
    let missing =
        "warning: server `wiki`: there is no secret `wiki-token` in the vault: its calls are refused until there is";
    assert_eq!(warnings(), [missing]);

    let data = folder.path().join("durward-data");
    fs::create_dir(&data).expect("a folder");
    let key = vault::KeySource::File(data.join("master.key")).load(&data).expect("a key");
    let now = vocab::Timestamp::from_micros(0);
    let vault = vault::Vault::open(&data, key, vocab::TenantId::default_tenant(), now).expect("a vault");
    assert_eq!(warnings(), [missing]);
    vault.set(&"wiki-token".parse().expect("a name"), &vocab::Secret::new("hunter2".to_owned()), now).expect("a value");
    assert!(warnings().is_empty());
}

#[test]
fn tls_is_two_files_that_fit_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = |name: &str| {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["gate.test".to_owned()]).expect("a certificate");
        fs::write(folder.path().join(format!("{name}.pem")), cert.pem()).expect("a file");
        let key = folder.path().join(format!("{name}.key"));
        fs::write(&key, signing_key.serialize_pem()).expect("a file");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    };
    made("a");
    made("b");
    fs::write(folder.path().join("open.key"), "").expect("a file");
    fs::set_permissions(folder.path().join("open.key"), fs::Permissions::from_mode(0o640)).expect("a mode");
    fs::write(folder.path().join("empty.pem"), "").expect("a file");
    fs::write(folder.path().join("broken.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .expect("a file");
    for (name, from, to) in [("late", 2001, 2002), ("early", 2990, 2999)] {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["gate.test".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let made = params.self_signed(&key).expect("a certificate");
        fs::write(folder.path().join(format!("{name}.pem")), made.pem()).expect("a file");
        let file = folder.path().join(format!("{name}.key"));
        fs::write(&file, key.serialize_pem()).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    }
    let load = |certificate: &str, key: &str| {
        let text = format!("listen: 0.0.0.0:7420\ntls: {{ certificate: {certificate}, key: {key} }}");
        parse("durward.yaml", &text, folder.path())
    };

    let a = load("a.pem", "a.key").expect("it is TLS: it may listen to everybody").settings;
    let b = load("b.pem", "b.key").expect("another").settings;
    let none = parse("durward.yaml", "listen: 127.0.0.1:7420", folder.path()).expect("plain").settings;
    let lines = |before, after| Difference::of(before, before, after).changes;
    assert!(lines(&a, &b).iter().any(|line| line.starts_with("~ tls.key")), "a file is taken at once");
    assert!(lines(&none, &a).iter().any(|line| line.starts_with("at the next start: + tls.key")), "TLS itself is not");

    for (certificate, key, expected) in [
        ("a.pem", "b.key", "the private key belongs to another certificate"),
        ("a.pem", "open.key", "its mode is 640"),
        ("a.pem", "missing.key", "this file does not exist"),
        ("missing.pem", "a.key", "this file does not exist"),
        ("a.key", "a.key", "there is no certificate in it"),
        ("empty.pem", "a.key", "there is no certificate in it"),
        ("broken.pem", "a.key", "the certificate cannot be used"),
        ("late.pem", "late.key", "the certificate has expired on 2002-01-01T00:00:00"),
        ("early.pem", "early.key", "the certificate is not good before 2990-01-01T00:00:00"),
    ] {
        let report = load(certificate, key).expect_err("nothing of that fits").render(false);
        assert!(report.contains(expected) && report.contains("help:"), "{certificate} {key}: {report}");
    }
    // A key that is missing names itself, and so does a table that lacks one.
    let report = parse("durward.yaml", "tls: { certificate: a.pem }", folder.path()).expect_err("no key").render(false);
    assert!(report.contains("`tls.key` is missing"), "{report}");
}

#[test]
fn the_schema_names_every_key() {
    let schema = schema();
    let text = schema.to_string();
    let mut all = Vec::new();
    known(&ROOT, "", &mut all);
    for path in all {
        let name = path.rsplit('.').next().expect("a name");
        assert!(text.contains(&format!("\"{name}\":{{")), "{path}");
    }
    let server = &schema["properties"]["servers"]["additionalProperties"];
    assert_eq!(server["additionalProperties"], false);
    assert_eq!(server["properties"]["command"]["anyOf"][1]["minItems"], 1);
    assert!(schema["properties"]["listen"]["description"].is_string());
}

#[test]
fn what_waits_for_the_next_start_is_measured_by_what_was_started() {
    let load = |text: &str| parse("durward.yaml", text, Path::new(".")).expect("a good configuration").settings;
    let started = load("listen: 127.0.0.1:7420");
    let moved = load("listen: 127.0.0.1:7430");
    let bounded = load("listen: 127.0.0.1:7430\nbounds: { depth: 32 }");
    let waits = "at the next start: ~ listen: 127.0.0.1:7420 → 127.0.0.1:7430".to_owned();
    let of = |before, after| {
        let Difference { changes, waits } = Difference::of(&started, before, after);
        (changes, waits)
    };
    assert_eq!(of(&started, &moved), (vec![waits.clone()], Vec::new()));
    assert_eq!(of(&moved, &moved), (Vec::new(), vec![waits.clone()]), "nothing changed, and it waits still");
    assert_eq!(of(&moved, &bounded), (vec!["~ bounds.depth: 64 → 32".to_owned()], vec![waits]));
    let back = "~ listen: 127.0.0.1:7430 → 127.0.0.1:7420, as it was at the start: it waits no longer".to_owned();
    assert_eq!(of(&moved, &started), (vec![back], Vec::new()));
}

#[test]
fn what_is_said_of_a_policy_file_holds_its_text_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = r#"{"policy":"p","rules":[{"effect":"deny","target":"a/x"},{"effect":"deny","target":"b/x"}]}"#;
    fs::write(folder.path().join("p.json"), rules).expect("the policies are written");
    let report = parse("durward.yaml", "policies: [p.json]\n", folder.path()).expect_err("no rule has an action");
    let texts: Vec<_> = report.faults().iter().filter_map(|fault| fault.inside.as_ref()).collect();
    let [first, second] = texts[..] else { panic!("two rules are at fault: {report}") };
    assert!(Arc::ptr_eq(first, second));
}

#[test]
fn a_difference_of_policies_names_its_rules() {
    let rule = |id: &str, target: &str| {
        format!("{{\"id\": \"{id}\", \"effect\": \"allow\", \"action\": \"tool.execute\", \"target\": \"{target}\"}}")
    };
    let load = |rules: &[String], space: &str| {
        let text = format!("{space}{{\"policy\": \"p\", \"version\": 1, \"rules\": [{}]}}", rules.join(","));
        policy::Policies::compile(&[policy::Source { name: "a.json".to_owned(), text }]).expect("good policies")
    };
    let before = load(&[rule("one", "a/*"), rule("two", "b/*"), rule("three", "c/*")], "");
    let after = load(&[rule("three", "c/*"), rule("two", "b/x"), rule("four", "d/*")], "");
    let lines = diff::policies(&before, &after);
    assert!(lines[0].starts_with("policies: sha256:"), "{lines:?}");
    assert_eq!(lines[1..], ["- rule one (a.json)", "+ rule four (a.json)", "~ rule two (a.json)"]);
    assert!(diff::policies(&before, &before).is_empty());
    let moved = load(&[rule("one", "a/*"), rule("two", "b/*"), rule("three", "c/*")], "\n");
    let lines = diff::policies(&before, &moved);
    assert!(lines.len() == 1 && lines[0].ends_with(", no rule is another"), "{lines:?}");
    let many: Vec<_> = (0..50).map(|number| rule(&format!("r{number}"), "a/*")).collect();
    assert_eq!(diff::policies(&load(&[], ""), &load(&many, "")).last().expect("a line"), "and 18 rules more");
}

#[test]
fn a_difference_names_what_changed_and_hides_what_is_hidden() {
    let load = |text: &str| parse("durward.yaml", text, Path::new(".")).expect("a good configuration").settings;
    let before = load("servers: { a: { command: run, env: { A: hunter2 } }, b: { url: https://b.example.com/mcp } }");
    let after = load(
        "servers: { a: { command: run, env: { A: hunter3 } }, c: { url: https://c.example.com/mcp, era: both } }\nbounds: { depth: 32, children: 4 }\nadmin: { listen: 127.0.0.1:7431 }",
    );

    let lines = Difference::of(&before, &before, &after).changes;

    assert!(lines.contains(&"~ bounds.depth: 64 → 32".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"at the next start: ~ bounds.children: 64 → 4".to_owned()), "{lines:#?}");
    let share = "at the next start: ~ bounds.children_per_principal: 32 → 2";
    assert!(lines.contains(&share.to_owned()), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("at the next start: ~ admin.listen")), "{lines:#?}");
    assert!(lines.contains(&"~ servers.a.env.A: changed, not shown".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"- servers.b.url: https://b.example.com/mcp".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"+ servers.c.era: both".to_owned()), "{lines:#?}");
    assert!(!lines.concat().contains("hunter"), "{lines:#?}");
    assert!(diff::between(&before, &before.clone()).expect("settings").is_empty());
    assert!(!format!("{before:?}").contains("hunter"));
}

#[test]
fn nothing_that_is_shown_is_a_secret() {
    let load = |secret: &str| {
        let text = format!(
            "servers: {{ a: {{ command: [sleep, 'postgres://user:{secret}@host/db', --token, {secret}, 'API_KEY={secret}'] }} }}"
        );
        parse("durward.yaml", &text, Path::new(".")).expect("a good configuration").settings
    };
    let (before, after) = (load("hunter2"), load("hunter3"));

    let shown = super::show::text(&before).expect("JSON");
    let lines = Difference::of(&before, &before, &after).changes;

    assert!(shown.contains("sleep") && !shown.contains("hunter"), "{shown}");
    let report = parse("durward.yaml", &shown, Path::new(".")).expect_err("no word is to be run as it is shown");
    let missing: Vec<_> = report.faults().iter().map(|fault| fault.what.as_str()).collect();
    for word in [1, 3, 4] {
        assert!(missing.contains(&format!("`servers.a.command[{word}]` was not shown").as_str()), "{report}");
    }
    assert_eq!(lines, ["~ servers.a.command: changed, not shown"]);
}

#[test]
fn a_path_is_shown_whatever_its_folders_are_called() {
    let key = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
    let top = tempfile::tempdir().expect("a folder");
    for name in [
        "550e8400-e29b-41d4-a716-446655440000",
        "0c5b8vw40dy178xlpddw65q9gf1h2186-durward-1.0",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "Xk9vQ2mPz7Lr4Tn8Yw3Bd6",
    ] {
        let folder = top.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        let shown = |place: &str, data: &str, base: &Path| {
            let text = format!(
                "listen: ['unix:{place}/a.sock']\ndata: '{data}'\nservers: {{ a: {{ command: run, directory: '{place}' }} }}"
            );
            let loaded = parse("durward.yaml", &text, base).expect("a good configuration");
            super::show::text(&loaded.settings).expect("JSON")
        };
        let place = folder.to_str().expect("text");
        // From the root, and from the folder of the file.
        for shown in [shown(place, &format!("{place}/state"), Path::new("/etc")), shown(".", "state", &folder)] {
            assert!(!shown.contains("hidden") && shown.matches(place).count() == 3, "{name}: {shown}");
        }
        for secret in [key, "wJalrXUtnFEMI7K7MDENGbPxRfiCYEXAMPLEKEY12", &format!("{place}/{key}")] {
            let shown = shown(".", secret, &folder);
            assert!(shown.contains("\"data\": \"[hidden]\""), "{shown}");
        }
    }
}

#[test]
fn aliases_of_aliases_stay_bounded() {
    let mut source = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        writeln!(source, "a{level}: &a{level} [{}]", [below.as_str(); 10].join(", ")).expect("text");
    }
    let fault = tree::parse(&source).expect_err("it would be 10^12 nodes");
    assert_eq!(fault.what, "the file is too large");
    assert!(tree::parse(&"[".repeat(100_000)).is_err());
    assert!(tree::parse(&"- ".repeat(100_000)).is_err());
}

#[test]
fn what_is_shown_is_a_configuration_that_says_the_same() {
    let folder = fs::canonicalize(CASES).expect("the folder of cases");
    let (source, _) = complete();
    let tls = tempfile::tempdir().expect("a folder");
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["gate.test".to_owned()]).expect("a certificate");
    fs::write(tls.path().join("a.pem"), cert.pem()).expect("a file");
    fs::write(tls.path().join("a.key"), signing_key.serialize_pem()).expect("a file");
    fs::set_permissions(tls.path().join("a.key"), fs::Permissions::from_mode(0o600)).expect("a mode");
    let tls = tls.path().display();
    let tls =
        format!("tls: {{ certificate: {tls}/a.pem, key: {tls}/a.key }}\nvault: {{ key: {{ command: [cat, key] }} }}");
    for source in
        [source.as_str(), "", tls.as_str(), "listen: [127.0.0.1:1, 127.0.0.1:2]\nvault: { key: { env: KEY } }"]
    {
        let before = parse("durward.yaml", source, &folder).expect("a good configuration");
        let shown = super::show::text(&before.settings).expect("JSON");
        let said =
            |report: &Report| -> Vec<String> { report.faults().iter().map(|fault| fault.what.clone()).collect() };
        // What is not shown is to be written again, and is no value.
        if shown.contains(super::show::HIDDEN) {
            let report = parse("durward.yaml", &shown, &folder).expect_err("values are missing");
            assert!(said(&report).contains(&"`servers.files.env.LANGUAGE` was not shown".to_owned()), "{report}");
            assert_eq!(report.errors(), shown.matches(super::show::HIDDEN).count(), "{report}");
        }
        let shown = shown.replace(super::show::HIDDEN, "again");
        let after = parse("durward.yaml", &shown, &folder).unwrap_or_else(|report| panic!("{report}\n{shown}"));
        let few = |what: &String| !what.starts_with("no ");
        let (mut was, is) = (said(&before.report), said(&after.report));
        was.retain(few);
        assert_eq!(is, was, "{shown}");
        let mut settings = after.settings;
        for (name, server) in &mut settings.servers {
            // What is never shown is not compared.
            let Reach::Command { env, .. } = &mut server.reach else { continue };
            let Reach::Command { env: hidden, .. } = &before.settings.servers[name].reach else { panic!("{name}") };
            assert!(env.values().all(|value| value.expose() == "again"));
            env.clone_from(hidden);
        }
        settings.files.clone_from(&before.settings.files);
        assert_eq!(settings, before.settings, "{shown}");
    }
}

#[test]
fn a_difference_tells_that_tools_are_in_another_order() {
    let load = |tools: &str| {
        let text = format!("servers: {{ a: {{ url: https://a.example.com/mcp, tools: {{ {tools} }} }} }}");
        parse("durward.yaml", &text, Path::new(".")).expect("a good configuration").settings
    };
    let (read, write) = ("\"get_*\": { class: read }", "\"*_all\": { class: write }");
    let before = load(&format!("{read}, {write}"));
    let after = load(&format!("raw: {{ class: read }}, {write}, {read}"));
    let lines = Difference::of(&before, &before, &after).changes;
    assert!(lines.contains(&"~ servers.a.tools: get_*, *_all → *_all, get_*".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"+ servers.a.tools.raw.class: read".to_owned()), "{lines:#?}");
    assert_eq!(lines.len(), 4, "{lines:#?}");
}

#[test]
fn any_text_is_read_or_refused() {
    let (source, _) = complete();
    for cut in (0..source.len()).step_by(7) {
        let Some(text) = source.get(..cut) else { continue };
        let _ = parse("durward.yaml", text, Path::new(CASES)).map_err(|report| report.render(true));
    }
    for at in (0..source.len()).step_by(11).filter(|at| source.is_char_boundary(*at)) {
        for insert in ["{", "]", ":", "\n", "*", "&a ", "'", "\u{0}", "- ", "ä", "|\n", "? ", "!x "] {
            let mut text = source.clone();
            text.insert_str(at, insert);
            let _ = parse("durward.yaml", &text, Path::new(CASES)).map_err(|report| report.render(true));
        }
    }
    for text in [
        "\u{0}",
        "\u{feff}listen: x",
        "ä: ö\n? [a]\n: b",
        "{",
        "&a *a",
        "%YAML 1.2\n---\n",
        "? a",
        "--- |\n x\n...\n---",
    ] {
        let _ = parse("durward.yaml", text, Path::new(CASES)).map_err(|report| report.render(true));
    }
}

#[test]
fn paths_begin_at_the_folder_of_the_file() {
    let loaded = load(&Path::new(CASES).join("01-complete.yaml")).expect("the complete case");
    assert_eq!(loaded.settings.data, Path::new("tests/config/./state"));
    assert_eq!(loaded.settings.policies.files, [Path::new("tests/config/policies/allow.json")]);
    assert_eq!(loaded.policies.rule_count(), 1);
    // Files whose contents count, once, and not the working directory of a command.
    let files = ["tests/config/roots.pem", "tests/config/keys.json"].map(Path::new);
    assert_eq!(loaded.settings.files, files);
    let Reach::Http { ca, .. } = &loaded.settings.servers["github"].reach else { panic!("it is reached over HTTP") };
    assert_eq!(ca.as_deref(), Some(Path::new("tests/config/roots.pem")));
    assert!(!veil::looks_secret("github-token"));
}
