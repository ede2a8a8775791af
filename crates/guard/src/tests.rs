//! Canaries of every kind, in every place where a text can hide.

use crate::secret::checksum::{base62, crc32};
use crate::{Carry, Detector, Guards, HIGH_ENTROPY, Match, Mode, Screening, Secrets, Setting, Verdict};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use vocab::Side;

const HEX: &str = "0123456789abcdef";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ALNUM: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A text with a secret in it.
struct Canary {
    kind: &'static str,
    text: String,
    secret: String,
}

/// The same canaries in every run.
struct Aviary(u64);

impl Aviary {
    fn run(&mut self, alphabet: &str, length: usize) -> String {
        let step = |_| {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            char::from(alphabet.as_bytes()[(self.0 >> 11) as usize % alphabet.len()])
        };
        (0..length).map(step).collect()
    }

    fn bare(&mut self, kind: &'static str, prefix: &str, alphabet: &str, length: usize) -> Canary {
        let secret = format!("{prefix}{}", self.run(alphabet, length));
        Canary { kind, text: secret.clone(), secret }
    }

    fn summed(&mut self, kind: &'static str, prefix: &str) -> Canary {
        let body = self.run(ALNUM, 30);
        let secret = format!("{prefix}{body}{}", base62(crc32(body.as_bytes())));
        Canary { kind, text: secret.clone(), secret }
    }

    fn within(&mut self, kind: &'static str, before: &str, alphabet: &str, length: usize, after: &str) -> Canary {
        let secret = self.run(alphabet, length);
        Canary { kind, text: format!("{before}{secret}{after}"), secret }
    }

    fn all() -> Vec<Canary> {
        let mut a = Self(0x9E37_79B9_7F4A_7C15);
        let jwt = format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#),
            URL_SAFE_NO_PAD.encode(r#"{"sub":"canary","exp":1900000000}"#),
            a.run(ALNUM, 86)
        );
        let discord =
            format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(a.run("123456789", 18)), a.run(ALNUM, 6), a.run(ALNUM, 38));
        let sendgrid = format!("SG.{}.{}", a.run(ALNUM, 22), a.run(ALNUM, 43));
        let lines: Vec<String> = (0..26).map(|_| a.run(ALNUM, 64)).collect();
        let body = lines.join("\n");
        let pem = format!("-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----");
        let key_id = a.run(UPPER, 16);
        let whole = |kind, text: String| Canary { kind, secret: text.clone(), text };
        vec![
            a.summed("github-token", "ghp_"),
            a.summed("github-token", "gho_"),
            a.summed("github-token", "ghs_"),
            a.bare("github-token", "github_pat_", ALNUM, 82),
            a.summed("npm-token", "npm_"),
            a.bare("durward-key", "dwk_", ALNUM, 43),
            a.bare("aws-access-key", "AKIA", UPPER, 16),
            a.bare("aws-access-key", "ASIA", UPPER, 16),
            a.within("aws-secret-key", &format!("AKIA{key_id} "), ALNUM, 40, ""),
            a.bare("google-api-key", "AIza", ALNUM, 35),
            whole("private-key", pem),
            a.bare("slack-token", "xoxb-123456789012-", ALNUM, 24),
            a.within("slack-webhook", "https://hooks.slack.com/services/", ALNUM, 44, ""),
            a.bare("stripe-key", "sk_live_", ALNUM, 24),
            a.bare("stripe-key", "rk_live_", ALNUM, 24),
            a.bare("openai-key", "sk-proj-", ALNUM, 48),
            a.bare("openai-key", "sk-", ALNUM, 48),
            a.bare("anthropic-key", "sk-ant-api03-", ALNUM, 95),
            a.bare("gitlab-token", "glpat-", ALNUM, 20),
            a.bare("twilio-key", "SK", HEX, 32),
            whole("sendgrid-key", sendgrid),
            whole("jwt", jwt),
            a.within("azure-storage-key", "DefaultEndpointsProtocol=https;AccountKey=", ALNUM, 86, "==;x"),
            a.within("url-password", "postgres://app:", ALNUM, 18, "@db.internal:5432/main"),
            a.within("url-password", "mysql://root:", ALNUM, 12, "@10.0.0.3/x"),
            a.within("url-password", "mongodb+srv://u:", ALNUM, 12, "@cluster.example.net"),
            a.within("url-password", "redis://:", ALNUM, 24, "@cache:6379/0"),
            a.within("url-password", "amqp://guest:", ALNUM, 12, "@mq/%2f"),
            a.bare("pypi-token", "pypi-AgEIcHlwaS5vcmc", ALNUM, 120),
            a.bare("huggingface-token", "hf_", ALNUM, 34),
            a.bare("digitalocean-token", "dop_v1_", HEX, 64),
            a.bare("shopify-token", "shpat_", HEX, 32),
            a.within("telegram-token", "7312345678", ":", 1, ""),
            whole("discord-token", discord),
            a.bare("mailgun-key", "key-", HEX, 32),
            a.bare("databricks-token", "dapi", HEX, 32),
            a.bare("vault-token", "hvs.", ALNUM, 90),
            a.bare("age-secret-key", "AGE-SECRET-KEY-1", UPPER, 58),
            a.within("password", "password=\"", ALNUM, 12, "\""),
            a.within("assigned-secret", "api_key: ", HEX, 40, ""),
            a.within("bearer-token", "Authorization: Bearer ", ALNUM, 40, ""),
        ]
        .into_iter()
        .map(|canary| match canary.kind {
            "telegram-token" => {
                let secret = format!(":AA{}", a.run(ALNUM, 33));
                Canary { text: format!("7312345678{secret}"), secret, ..canary }
            }
            _ => canary,
        })
        .collect()
    }
}

fn guards() -> Guards {
    Guards::new(Setting { results: Mode::Mask, arguments: Mode::Refuse })
}

fn release(json: &str) -> Screening {
    guards().release(json.as_bytes(), &mut Carry::default())
}

#[track_caller]
fn masked(seen: &Screening) -> String {
    let Verdict::Masked(bytes) = &seen.verdict else { panic!("{seen:?}") };
    let text = String::from_utf8(bytes.clone()).unwrap();
    serde_json::from_str::<Value>(&text).unwrap_or_else(|fault| panic!("{fault}: {text}"));
    text
}

#[track_caller]
fn gone(canary: &Canary, place: &str, json: &str) {
    let seen = release(json);
    let Verdict::Masked(bytes) = &seen.verdict else { panic!("{} in {place}: {seen:?} {json}", canary.kind) };
    let value: Value = serde_json::from_slice(bytes).unwrap();
    let text = value.to_string();
    let piece = canary.secret.split_at(canary.secret.len() / 2).1;
    assert!(!text.contains(piece), "{} in {place}: {text}", canary.kind);
    assert!(text.contains(&format!("[redacted:{}]", canary.kind)), "{} in {place}: {text}", canary.kind);
    assert!(seen.findings.iter().all(|finding| !finding.pointer.contains(piece)), "{} told in {place}", canary.kind);
}

fn every_character_escaped(text: &str) -> String {
    text.chars().fold(String::new(), |text, c| text + &format!("\\u{:04X}", u32::from(c)))
}

#[test]
fn canaries_are_masked_wherever_they_sit() {
    let canaries = Aviary::all();
    let kinds: std::collections::HashSet<_> = canaries.iter().map(|canary| canary.kind).collect();
    assert!(kinds.len() >= 25, "{}", kinds.len());
    for canary in &canaries {
        let text = &canary.text;
        gone(canary, "text", &json!({"content": [{"type": "text", "text": format!("see {text} there")}]}).to_string());
        gone(canary, "structured content", &json!({"structuredContent": {"rows": [{"note": text}]}}).to_string());
        gone(canary, "resource", &json!({"contents": [{"uri": "file:///a", "text": text}]}).to_string());
        let embedded = json!({"wrapped": {"note": text}}).to_string();
        gone(canary, "embedded json", &json!({"content": [{"type": "text", "text": embedded}]}).to_string());
        let twice = json!({"again": embedded}).to_string();
        gone(canary, "json in json", &json!({"content": [{"type": "text", "text": twice}]}).to_string());
        let escaped = every_character_escaped(text);
        gone(canary, "escapes", &format!(r#"{{"content":[{{"type":"text","text":"{escaped}"}}]}}"#));
        let inner = json!({ "text": format!("{{\"note\":\"{escaped}\"}}") }).to_string();
        gone(canary, "escapes in json", &inner);
        gone(canary, "object key", &json!({"structuredContent": {text.clone(): 1, "other": 2}}).to_string());
        gone(canary, "error", &json!({"code": -32000, "message": text, "data": {"why": text}}).to_string());
    }
}

#[test]
fn a_secret_split_over_two_events_is_masked_in_the_second() {
    for canary in Aviary::all() {
        // The second half of a pair is only known by its first.
        let inside = canary.text.find(&canary.secret).unwrap() + canary.secret.len() / 2;
        let (head, tail) = canary.text.split_at(inside);
        let (guards, mut carry) = (guards(), Carry::default());
        let event = |message: &str| json!({"progressToken": 1, "message": message}).to_string().into_bytes();
        let _ = guards.release(&event(head), &mut carry);
        let seen = guards.release(&event(&format!("{tail} and on")), &mut carry);
        let text = masked(&seen);
        let piece = canary.secret.split_at(canary.secret.len() / 2).1;
        assert!(!text.contains(piece.lines().last().unwrap()), "{}: {text}", canary.kind);
        assert!(text.contains(&format!("[redacted:{}]", canary.kind)), "{}: {text}", canary.kind);
        assert!(text.contains(" and on"), "{}: {text}", canary.kind);
    }
}

/// A message of a server that says a text.
type Saying = fn(&str) -> Value;

/// The ways in which a server says something on a stream, each with a place for it.
const SAYINGS: [(&str, Saying); 6] = [
    ("progress", |text| json!({"progressToken": 1, "progress": 3, "message": text})),
    ("a log message", |text| json!({"level": "info", "logger": "tool", "data": text})),
    ("a log object", |text| json!({"level": "info", "data": {"count": 7, "line": text}, "logger": "tool"})),
    ("a result", |text| json!({"content": [{"type": "text", "text": text, "annotations": {"audience": ["user"]}}]})),
    ("structured content", |text| json!({"content": [], "structuredContent": {"rows": [{"line": text}]}})),
    ("an error", |text| json!({"code": -32000, "message": text})),
];

#[test]
fn a_secret_split_over_two_events_of_two_sorts_is_masked_in_the_second() {
    for canary in Aviary::all() {
        let inside = canary.text.find(&canary.secret).unwrap() + canary.secret.len() / 2;
        let (head, tail) = canary.text.split_at(inside);
        let piece = canary.secret.split_at(canary.secret.len() / 2).1;
        for (one, first) in SAYINGS {
            for (other, second) in SAYINGS {
                let (guards, mut carry) = (guards(), Carry::default());
                let _ = guards.release(first(&format!("key {head}")).to_string().as_bytes(), &mut carry);
                // What says nothing does not come between them.
                let _ = guards.release(br#"{"progressToken":1,"progress":2}"#, &mut carry);
                let seen = guards.release(second(&format!("{tail} and on")).to_string().as_bytes(), &mut carry);
                let text = masked(&seen);
                let place = format!("{} from {one} to {other}: {text}", canary.kind);
                assert!(!text.contains(piece.lines().last().unwrap()), "{place}");
                assert!(text.contains(&format!("[redacted:{}]", canary.kind)), "{place}");
                assert!(text.contains(" and on"), "{place}");
            }
        }
    }
}

#[test]
fn a_secret_split_over_events_of_three_sorts_is_masked_in_the_last() {
    let (guards, mut carry) = (guards(), Carry::default());
    let _ = guards.release(br#"{"progressToken":1,"message":"key AKIAQ3E"}"#, &mut carry);
    let _ = guards.release(br#"{"level":"info","data":"GWVZ7R5"}"#, &mut carry);
    let seen = guards.release(br#"{"content":[{"type":"text","text":"TXN2BC end"}]}"#, &mut carry);
    assert_eq!(masked(&seen), r#"{"content":[{"type":"text","text":"[redacted:aws-access-key] end"}]}"#);
}

#[test]
fn what_follows_a_whole_secret_at_another_place_is_its_rest_only_once() {
    let (guards, mut carry) = (guards(), Carry::default());
    let _ = guards.release(br#"{"level":"info","data":"password=hunter2xy"}"#, &mut carry);
    let said = r#"{"content":[{"type":"text","text":"zz and"},{"type":"text","text":"found"}],"_meta":{"who":"bob"}}"#;
    let seen = guards.release(said.as_bytes(), &mut carry);
    assert_eq!(masked(&seen), said.replace("zz", "[redacted:password]"));
    assert_eq!(guards.release(said.as_bytes(), &mut carry).verdict, Verdict::Clean);
}

#[test]
fn of_a_token_in_many_pieces_only_the_beginning_is_shown() {
    for kind in ["github-token", "aws-access-key"] {
        let token = Aviary::all().into_iter().find(|canary| canary.kind == kind).unwrap().secret;
        let (prefix, rest) = token.split_at(4);
        let known = prefix.len() + rest.find(|c: char| c.is_ascii_digit()).unwrap().max(7);
        for size in [1, 4] {
            let (guards, mut carry) = (guards(), Carry::default());
            let mut shown = String::new();
            for piece in format!("key {token}, and on").as_bytes().chunks(size) {
                let message = json!({ "message": std::str::from_utf8(piece).unwrap() }).to_string();
                let seen = guards.release(message.as_bytes(), &mut carry);
                shown += &if seen.verdict == Verdict::Clean { message } else { masked(&seen) };
            }
            let shown =
                shown.replace("{\"message\":\"", "").replace("\"}", "").replace(&format!("[redacted:{kind}]"), "");
            let left = shown.strip_prefix("key ").and_then(|shown| shown.strip_suffix(", and on"));
            let left = left.unwrap_or_else(|| panic!("{kind} by {size}: {shown}"));
            assert!(token.starts_with(left) && left.len() <= known, "{kind} by {size}: {shown}");
        }
    }
    // Words that begin like one go on as they are, and so does what is longer than one.
    for words in [["hf_tran", "sfer", "_enabled"], ["npm_c", "onfigregis", "try "], ["see AKIA", "20260101", " and"]] {
        let (guards, mut carry) = (guards(), Carry::default());
        for (at, piece) in words.into_iter().enumerate() {
            let seen = guards.release(json!({ "message": piece }).to_string().as_bytes(), &mut carry);
            assert!(seen.verdict == Verdict::Clean || (at == 1 && piece.starts_with('2')), "{piece}");
        }
    }
}

#[test]
fn a_long_key_is_followed_through_many_events() {
    let pem = Aviary::all().into_iter().find(|canary| canary.kind == "private-key").unwrap().text;
    let (guards, mut carry) = (guards(), Carry::default());
    for (number, piece) in pem.as_bytes().chunks(200).enumerate() {
        let piece = std::str::from_utf8(piece).unwrap();
        let seen = guards.release(json!({ "message": piece }).to_string().as_bytes(), &mut carry);
        assert_eq!(masked(&seen), r#"{"message":"[redacted:private-key]"}"#, "piece {number}");
    }
    let after = guards.release(br#"{"message":" done"}"#, &mut carry);
    assert_eq!(after.verdict, Verdict::Clean);
}

#[test]
fn the_carry_of_one_stream_says_nothing_to_another() {
    let guards = guards();
    let _ = guards.release(br#"{"message":"AKIAIOSFODN"}"#, &mut Carry::default());
    assert_eq!(guards.release(br#"{"message":"N7EXAMPLE"}"#, &mut Carry::default()).verdict, Verdict::Clean);
}

#[test]
fn the_value_of_a_secret_name_is_masked_in_structured_content() {
    let seen = release(r#"{"structuredContent":{"password":"hunter2!x","id":7}}"#);
    assert_eq!(masked(&seen), r#"{"structuredContent":{"password":"[redacted:password]","id":7}}"#);
    assert_eq!(&*seen.findings[0].pointer, "/structuredContent/password");
    assert_eq!((&*seen.findings[0].detector, &*seen.findings[0].kind), ("secrets", "password"));
}

#[test]
fn masked_names_stay_apart_and_are_told_without_the_secret() {
    let json = r#"{"AKIAIOSFODNN7EXAMPLE":{"x":"AKIAIOSFODNN7EXAMPLE"},"AKIAIOSFODNN7EXAMPLF":2,"z":[{"AKIAIOSFODNN7EXAMPLE":3}]}"#;
    let seen = release(json);
    let mask = "[redacted:aws-access-key]";
    let expected = format!(r#"{{"{mask}":{{"x":"{mask}"}},"{mask}#2":2,"z":[{{"{mask}":3}}]}}"#);
    assert_eq!(masked(&seen), expected);
    assert_eq!(&*seen.findings[1].pointer, "/[redacted:aws-access-key]/x");
}

#[test]
fn arguments_are_refused_and_told() {
    let seen = guards().screen(br#"{"body":{"text":["a","AKIAIOSFODNN7EXAMPLE"]}}"#);
    assert_eq!(seen.verdict, Verdict::Refused);
    assert_eq!((&*seen.findings[0].pointer, seen.findings[0].side), ("/body/text/1", Side::Arguments));
    assert_eq!(guards().screen(br#"{"body":"nothing"}"#).verdict, Verdict::Clean);
}

#[test]
fn report_tells_and_lets_pass() {
    let guards = Guards::new(Setting { results: Mode::Report, arguments: Mode::Off });
    let seen = guards.release(br#"{"t":"AKIAIOSFODNN7EXAMPLE"}"#, &mut Carry::default());
    assert_eq!((seen.findings.len(), seen.verdict), (1, Verdict::Clean));
    assert!(guards.is_off(Side::Arguments) && !guards.is_off(Side::Result) && Guards::none().is_off(Side::Result));
    assert_eq!(guards.screen(br#"{"t":"AKIAIOSFODNN7EXAMPLE"}"#).findings, []);
}

#[test]
fn protocol_values_are_never_touched() {
    let mut a = Aviary(7);
    let (token, random) = (a.bare("", "sk_live_", ALNUM, 24).secret, a.run(ALNUM, 40));
    let opaque = json!({
        "nextCursor": token, "requestState": token, "taskId": token,
        "_meta": {"progressToken": token, "io.modelcontextprotocol/subscriptionId": token},
        "task": {"taskId": token},
        "content": [{"type": "tool_use", "id": random, "uri": format!("x:{random}")}, {"type": "image", "data": random}],
    });
    assert_eq!(release(&opaque.to_string()).verdict, Verdict::Clean, "{:?}", release(&opaque.to_string()));
    // Ids of questions, of pages to visit, of tasks and resources that a listener follows.
    let page = json!({"mode": "url", "elicitationId": random, "url": "https://a.example/"});
    let ids = [
        json!({"inputRequests": {token.clone(): {"method": "elicitation/create", "params": page}, random.clone(): {}}}),
        json!({"inputResponses": {token.clone(): {"action": "accept"}, random.clone(): {}}}),
        json!({"elicitationId": token}),
        json!({"code": -32042, "message": "visit", "data": {"elicitations": [page]}}),
        json!({"notifications": {"taskIds": [token, random], "resourceSubscriptions": [format!("memo:{random}")]}}),
    ];
    for ids in ids {
        let seen = release(&ids.to_string());
        assert_eq!(seen.verdict, Verdict::Clean, "{seen:?} {ids}");
        assert_eq!(guards().screen(ids.to_string().as_bytes()).verdict, Verdict::Clean, "{ids}");
    }
    // What such a key leads to is looked into, and what only has that name elsewhere is.
    let said = [
        json!({"inputRequests": {random.clone(): {"params": {"message": token}}}}),
        json!({"inputResponses": {random.clone(): {"content": {"v": token}}}}),
        json!({"structuredContent": {"inputRequests": {random.clone(): 1}}}),
        json!({"content": [{"inputRequests": {random.clone(): 1}}]}),
        json!({"notifications": {"note": token}, "data": {"elicitationId": token}}),
    ];
    assert_eq!(said.map(|said| release(&said.to_string()).findings.len()), [1, 1, 1, 1, 2]);
    // A tool's own names mean nothing to the protocol, and a known key is one wherever it stands.
    let own = json!({"structuredContent": {"cursor": token, "id": token}, "content": [{"type": "text", "uri": token}]});
    assert_eq!(release(&own.to_string()).findings.len(), 3);
}

#[test]
fn a_blob_that_is_a_text_is_masked_inside() {
    let text = "region = eu\nkey = AKIAIOSFODNN7EXAMPLE\n";
    let blob = json!({"contents": [{"blob": STANDARD.encode(text), "mimeType": "text/plain", "uri": "file:///c"}]});
    let seen: Value = serde_json::from_str(&masked(&release(&blob.to_string()))).unwrap();
    let inside = STANDARD.decode(seen["contents"][0]["blob"].as_str().unwrap()).unwrap();
    assert_eq!(inside, text.replace("AKIAIOSFODNN7EXAMPLE", "[redacted:aws-access-key]").as_bytes());
    let picture = json!({"contents": [{"blob": STANDARD.encode([0xFF, 0xD8, 0xFF, 0xE0, 1, 2, 3].repeat(9)), "mimeType": "image/jpeg"}]});
    assert_eq!(release(&picture.to_string()).verdict, Verdict::Clean);
}

#[test]
fn what_cannot_be_judged_does_not_pass() {
    for broken in ["{\"key", "{\"a\":\"AKIA", "[1,]://", "\"\\", "{\"token\" 1}", "a1b2c3d4e5f6g7h8i9j0]", "{\"blob\"x"]
    {
        let seen = release(broken);
        assert_eq!((seen.verdict, &*seen.findings[0].kind), (Verdict::Refused, "unreadable"), "{broken}");
    }
    assert_eq!(release("{").verdict, Verdict::Clean, "nothing is in it, however it is read");
    assert_eq!(guards().release(b"\"\xFF\"", &mut Carry::default()).verdict, Verdict::Refused);
    let large = format!(r#"{{"text":"{}"}}"#, " ".repeat(4 * 1024 * 1024 + 1));
    let seen = release(&large);
    assert_eq!((seen.verdict, &*seen.findings[0].kind), (Verdict::Refused, "too-large"));
}

#[test]
fn what_only_looks_secret_stays() {
    let clean = [
        "550e8400-e29b-41d4-a716-446655440000",
        "commit 5ddbffd0f364ecd073f4d42a56109950b1421a57",
        "sha256:44e58a9104ec189bf42e76b3a7fe91e2b2879d96d48e9a77e5e32ff699c9204e",
        "sha512-ykRMW8PjVAn+RS6ww5cmK9U2CyH9p4Q88YJwvUslfuMmN98w/2rdGRLPqJYObapBCdzBVeDgYWdJnFPFb7qzpg==",
        "https://github.com/acme/a-long-repository-name/blob/main/src/SomeVeryLongFileName2.java?ref=abc123",
        "/usr/share/java/org.eclipse.jdt.core_3.12.2.v20161117-1814/META-INF",
        "AbstractSingletonProxyFactoryBean2InternalFrameInternalFrameTitlePane",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
        "eyJvZmZzZXQiOjEwMCwibGltaXQiOjUwLCJhZnRlciI6MTIzNDV9",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "password: ${DB_PASSWORD}, token = get_token(user), secret: <your-secret>",
        "max_tokens: 4096, next_page_token: \"abc123def456ghi7\", token_type: \"bearer\"",
        "postgres://user:${PASSWORD}@host/db",
    ];
    for text in clean {
        let mut found = Vec::new();
        Secrets.find(text, &mut found);
        assert_eq!(found, [], "{text}");
    }
}

#[test]
fn a_wrong_checksum_is_no_token() {
    let token = Aviary(3).summed("github-token", "ghp_").secret;
    let mut wrong = token.clone();
    wrong.pop();
    wrong.push(if token.ends_with('x') { 'y' } else { 'x' });
    for (text, kind) in [(token, "github-token"), (wrong, HIGH_ENTROPY)] {
        let mut found = Vec::new();
        Secrets.find(&text, &mut found);
        assert_eq!(found.iter().map(|m| m.kind).collect::<Vec<_>>(), [kind], "{text}");
    }
}

#[test]
fn a_secret_name_is_known_by_its_words() {
    let cases = [
        ("admin_password: Tr0ub4dor&3", true),
        ("NEXTAUTH_SECRET=9f8a7b6c5d4e3f2a1b0c", true),
        ("nextPageToken: \"9f8a7b6c5d4e3f2a1b0c\"", false),
        ("{\\\"password\\\":\\\"Tr0ub4dor3\\\"}", true),
        ("password_file: /run/secrets/db1", false),
        ("CREATE USER x IDENTIFIED BY 'S3cure!pw'", true),
    ];
    for (text, expected) in cases {
        let mut found = Vec::new();
        Secrets.find(text, &mut found);
        assert_eq!(!found.is_empty(), expected, "{text} {found:?}");
    }
}

#[test]
fn a_value_is_masked_whole_where_rules_overlap() {
    let seen = release(r#"{"password":"ab!AKIAQW3RT5YU7IO6PAS2!cd9"}"#);
    assert_eq!(masked(&seen), r#"{"password":"[redacted:aws-access-key]"}"#);
}

/// Finds one word.
struct Word(&'static str, &'static str);

impl Detector for Word {
    fn family(&self) -> &'static str {
        "words"
    }

    fn find(&self, text: &str, found: &mut Vec<Match>) {
        found.extend(text.match_indices(self.0).map(|(at, _)| Match { kind: self.1, span: at..at + self.0.len() }));
    }
}

#[test]
fn detectors_stand_in_order_and_are_bounded() {
    let mask = Setting { results: Mode::Mask, arguments: Mode::Mask };
    let two = Guards::none().with(Arc::new(Word("ab", "first")), mask).unwrap();
    let two = two.with(Arc::new(Word("bc", "second")), mask).unwrap();
    let seen = two.release(br#"{"t":"abc bc"}"#, &mut Carry::default());
    assert_eq!(masked(&seen), r#"{"t":"[redacted:first] [redacted:second]"}"#);
    let full = (0..16).try_fold(Guards::none(), |guards, _| guards.with(Arc::new(Word("x", "x")), mask)).unwrap();
    assert!(full.with(Arc::new(Word("x", "x")), mask).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = || "[a-z \\\\\"/\\né✓]{0,12}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        text().prop_map(Value::from),
        text().prop_map(|before| Value::from(format!("{before} CANARY {before}"))),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let object = proptest::collection::btree_map(text(), inner.clone(), 0..4);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn masking_changes_the_secret_and_no_other_byte(value in any_json(), pretty: bool) {
        let template = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let token = Aviary(11).summed("github-token", "ghp_").secret;
        let seen = release(&template.replace("CANARY", &token));
        if template.contains("CANARY") {
            prop_assert_eq!(masked(&seen), template.replace("CANARY", "[redacted:github-token]"));
        } else {
            prop_assert_eq!(seen.verdict, Verdict::Clean);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = guards().release(&bytes, &mut Carry::default());
    }

    #[test]
    fn any_almost_json_is_survived(text in "[\\[\\]{}\",:\\\\uU0-9a-fnt \u{e9}]{0,80}", more in "[\\[\\]{}\",:\\\\u0-9a-f ]{0,40}") {
        let mut carry = Carry::default();
        for json in [&text, &more, &text] {
            let seen = guards().release(json.as_bytes(), &mut carry);
            if serde_json::from_str::<Value>(json).is_ok() {
                prop_assert!(!seen.findings.iter().any(|finding| &*finding.kind == "unreadable"), "{}", json);
            }
        }
    }

    #[test]
    fn spans_lie_in_the_text(text in "(password|token|key|://|eyJ|AKIA|-----BEGIN PRIVATE KEY-----|basic |bearer|[ =:\"'\\\\é✓\u{1F511}a-zA-Z0-9_@./+-]{1,24}){0,12}") {
        let mut found = Vec::new();
        Secrets.find(&text, &mut found);
        for m in found {
            prop_assert!(text.get(m.span.clone()).is_some_and(|part| !part.is_empty()), "{:?}", m);
        }
    }
}

/// The secrets family, without its glance.
struct Thorough;

impl Detector for Thorough {
    fn family(&self) -> &'static str {
        "secrets"
    }

    fn find(&self, text: &str, found: &mut Vec<Match>) {
        Secrets.find(text, found);
    }
}

proptest! {
    /// What is clean at a glance is clean: names, values and their neighbours in every mixture, over two messages.
    #[test]
    fn a_glance_misses_nothing(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "password", "pw", "name", "uri", "blob", "data", "type", "image", "hunter2hunter2", "eyJ", "bearer", " -u",
                "a:b", ":AA", "key", "sig=", "://u:p4ssw0rd@h", "dGhpcyBpcyBhIHBhc3N3b3JkPWh1bnRlcjI=", "text", "x", "",
                "Zk9qX2v8Lr4TgB1nYw7Pc3Ha", "api", "-----BEGIN", "AKIA", "IOSFODNN7EXAMPLE",
            ]),
            12,
        ),
    ) {
        let setting = Setting { results: Mode::Mask, arguments: Mode::Refuse };
        let glancing = Guards::new(setting);
        let thorough = Guards::none().with(Arc::new(Thorough), setting).unwrap();
        let (mut one, mut other) = (Carry::default(), Carry::default());
        for half in words.chunks(6) {
            let [a, b, c, d, e, f] = half else { unreachable!() };
            let json = format!(r#"{{"{a}1":"{b}{c}","content":[{{"type":"text","text":"{d}"}}],"{e}2":["{f}",12345678]}}"#);
            prop_assert_eq!(glancing.screen(json.as_bytes()), thorough.screen(json.as_bytes()), "{}", json);
            let (left, right) = (glancing.release(json.as_bytes(), &mut one), thorough.release(json.as_bytes(), &mut other));
            prop_assert_eq!(left, right, "{}", json);
        }
    }
}

#[test]
fn what_a_glance_relies_on_holds() {
    assert!(crate::secret::keywords().all(|word| !word.contains('"') && !word.contains('\\')));
}

#[test]
fn a_secret_is_not_hidden_behind_many_names() {
    for decoys in [0, 1, 7, 8, 9, 100] {
        let text = format!("{}password=hunter2hunter2 and on", "$pw=".repeat(decoys));
        let mut found = Vec::new();
        Secrets.find(&text, &mut found);
        let secret = text.find("hunter2").unwrap();
        let covers = found.iter().any(|m| m.span.start <= secret && m.span.end >= secret + "hunter2hunter2".len());
        assert!(covers, "{decoys}: {found:?}");
    }
}

#[test]
fn of_other_secrets_in_many_pieces_so_much_is_shown_as_the_guide_says() {
    let random = format!("see {} and on", "q7Zt2LmX9vBn4KsW8yRc3HdJ6pFg5TqA1uEo0iNx");
    let url = "see postgres://user:Zq8vLw3xTn5kPwR7@db.example.com/x, and on";
    let own = |text: &str, secret: &str| Canary { kind: "own", text: text.to_owned(), secret: secret.to_owned() };
    let of = |kind: &str| Aviary::all().into_iter().find(|canary| canary.kind == kind).expect("a canary");
    // Whoever makes one of these fewer says so in docs/detection.md.
    for (canary, most) in [
        (of("jwt"), 40),
        (of("bearer-token"), 16),
        (of("private-key"), 56),
        (own("api_key: Zq8vLw3xTn5kPwZq8vLw3xTn5kPw and on", "Zq8vLw3xTn5kPwZq8vLw3xTn5kPw"), 12),
        (own("password=hunter2xyAB9hunter2xyAB9 and on", "hunter2xyAB9hunter2xyAB9"), 12),
        (own(url, "Zq8vLw3xTn5kPwR7"), 16),
        (own(&random, "q7Zt2LmX9vBn4KsW8yRc3HdJ6pFg5TqA1uEo0iNx"), 40),
    ] {
        let mut shown = 0;
        for size in [1, 4] {
            let (guards, mut carry) = (guards(), Carry::default());
            let mut said = String::new();
            for piece in canary.text.as_bytes().chunks(size) {
                let message = json!({ "message": std::str::from_utf8(piece).unwrap() }).to_string();
                let seen = guards.release(message.as_bytes(), &mut carry);
                let message = if seen.verdict == Verdict::Clean { message } else { masked(&seen) };
                said += serde_json::from_str::<Value>(&message).unwrap()["message"].as_str().unwrap();
            }
            let is_said = |end: &usize| canary.secret.get(..*end).is_some_and(|part| said.contains(part));
            shown = shown.max((0..=canary.secret.len()).rev().find(is_said).unwrap());
        }
        assert!(shown <= most && shown + 12 >= most, "{}: {shown} of {}", canary.text, canary.secret.len());
    }
}
