//! The bridges between the eras: cases that say what becomes of a message, checked against the schema of the revision
//! that its reader speaks, and what holds for any message.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a case that cannot be read, or a message that cannot be judged, fails the test"
)]

mod property;
mod schema;

use bytes::Bytes;
use mcp::{
    Message, Revision,
    bridge::{
        BridgeFault, Client, Filter, LogLevel, check_answer, downward,
        upward::{self, InputRequired, Introduction},
    },
};
use schema::message;

const UPWARD: &str = include_str!("../cases/upward.case");
const DOWNWARD: &str = include_str!("../cases/downward.case");

#[test]
fn legacy_clients_and_modern_servers_understand_each_other_as_the_cases_say() {
    check(UPWARD, upward_case);
}

#[test]
fn modern_clients_and_legacy_servers_understand_each_other_as_the_cases_say() {
    check(DOWNWARD, downward_case);
}

#[test]
fn what_is_kept_and_carried_is_bounded() {
    let hello = |capabilities: &str, info: &str| {
        let params = format!(r#"{{"protocolVersion":"2025-11-25","capabilities":{capabilities},"clientInfo":{info}}}"#);
        let text = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{params}}}"#);
        Introduction::of(&message(text.as_bytes()))
    };
    let many =
        |count: usize| (0..count).map(|n| format!(r#""{n}":{{"method":"roots/list"}}"#)).collect::<Vec<_>>().join(",");

    let info = format!(r#"{{"name":"{}","version":"1","icons":"{}"}}"#, "ü".repeat(200), "x".repeat(5000));
    let kept = hello("{}", &info).unwrap();
    assert_eq!(kept.client().info().unwrap(), format!(r#"{{"name":"{}","version":"1"}}"#, "ü".repeat(128)));
    let large = format!(r#"{{"experimental":{{"a":{{"b":"{}"}}}}}}"#, "x".repeat(Client::MOST_CAPABILITIES));
    assert!(matches!(hello(&large, "{}"), Err(BridgeFault::TooLarge { .. })));

    for (count, fits) in [(64, true), (65, false)] {
        let result = format!(r#"{{"resultType":"input_required","inputRequests":{{{}}}}}"#, many(count));
        let answer = message(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#).as_bytes());
        assert_eq!(InputRequired::of(&answer).is_ok(), fits, "{count}");
    }
    for (count, fits) in [(Filter::MOST_URIS, true), (Filter::MOST_URIS + 1, false)] {
        let uris = vec!["\"a:b\""; count].join(",");
        let params = format!(r#"{{"notifications":{{"resourceSubscriptions":[{uris}]}}}}"#);
        let listen = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{params}}}"#);
        assert_eq!(Filter::of(&message(listen.as_bytes())).is_ok(), fits, "{count}");
    }
}

/// One case: what is done, and with what.
struct Case<'a> {
    action: &'a str,
    lines: Vec<(&'a str, &'a str)>,
}

/// What comes of a case.
enum Outcome {
    /// A message, who reads it, and what it answers.
    Message(Bytes, Revision, String),
    /// Something else that the case spells out.
    Text(String),
}

impl<'a> Case<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let action = lines.next()?;
        let lines = lines.map(|line| line.split_once(": ").unwrap_or_else(|| panic!("not `name: value`: {line}")));
        Some(Self { action, lines: lines.collect() })
    }

    fn all(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter(move |(own, _)| *own == name).map(|(_, value)| *value)
    }

    fn maybe(&self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    fn get(&self, name: &'a str) -> &'a str {
        self.maybe(name).unwrap_or_else(|| panic!("`{}` needs `{name}`", self.action))
    }

    fn input(&self) -> Message {
        message(self.get("in").as_bytes())
    }

    fn id(&self) -> &'a str {
        self.maybe("id").unwrap_or("1")
    }

    fn revision(&self) -> Revision {
        self.maybe("revision").map_or(Revision::V2025_11_25, |text| text.parse().unwrap())
    }

    /// The legacy client: `client` holds the capabilities in `initialize`.
    fn introduction(&self) -> Introduction {
        let capabilities = self.maybe("client").unwrap_or("{}");
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{}","capabilities":{capabilities},"clientInfo":{{"name":"c","version":"1"}}}}}}"#,
            self.revision()
        );
        let mut introduction = Introduction::of(&message(text.as_bytes())).unwrap();
        if let Some(level) = self.maybe("level") {
            introduction.set_level(LogLevel::parse(level).unwrap());
        }
        introduction
    }

    /// The modern client: `client` holds the capabilities in its request.
    fn client(&self) -> Client {
        let capabilities = self.maybe("client").unwrap_or("{}");
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"tools/call","params":{{"name":"t","_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{capabilities}}}}}}}"#
        );
        Client::of_request(&message(text.as_bytes())).unwrap()
    }
}

type Found = Result<Vec<Outcome>, BridgeFault>;

/// A message that the modern side reads.
fn modern(text: Bytes, method: &str) -> Vec<Outcome> {
    vec![Outcome::Message(text, Revision::V2026_07_28, method.to_owned())]
}

/// A message that the legacy side reads.
fn legacy(text: Bytes, revision: Revision, method: &str) -> Vec<Outcome> {
    vec![Outcome::Message(text, revision, method.to_owned())]
}

fn text(text: impl Into<String>) -> Vec<Outcome> {
    vec![Outcome::Text(text.into())]
}

fn upward_case(case: &Case<'_>) -> Found {
    let (revision, method) = (case.revision(), case.maybe("method").unwrap_or_default());
    Ok(match case.action {
        "introduce" => {
            let found = Introduction::of(&case.input())?;
            let capabilities = mcp::value(found.client().capabilities().as_bytes()).unwrap();
            let wrong = testkit::schema::definition_faults("2026-07-28", "ClientCapabilities", &capabilities);
            assert_eq!(wrong, Vec::<String>::new());
            let info = found.client().info().unwrap_or("nobody");
            text(format!("{} {} {info}", found.revision(), found.client().capabilities()))
        }
        "discover" => modern(upward::discover(case.id(), &case.introduction()), ""),
        "initialize" => {
            let answer = upward::initialize_result(&case.input(), &case.introduction(), case.id())?;
            legacy(answer, revision, "initialize")
        }
        "request" => modern(upward::request(&case.input(), &case.introduction())?, ""),
        "answer" => legacy(upward::answer(&case.input(), method, revision)?, revision, method),
        "notification" => match upward::notification(&case.input()) {
            Some(found) => legacy(found, revision, ""),
            None => text("nothing"),
        },
        "asks" => match InputRequired::of(&case.input())? {
            Some(found) => text(format!("{} state {}", found.requests.len(), found.state.unwrap_or("none"))),
            None => text("nothing"),
        },
        "question" => {
            let input = case.input();
            let found = InputRequired::of(&input)?.unwrap();
            let ask = |asked| upward::question(case.id(), asked, &case.introduction());
            let questions: Result<Vec<_>, _> = found.requests.iter().map(ask).collect();
            questions?.into_iter().flat_map(|question| legacy(question, revision, "")).collect()
        }
        "response" => text(String::from_utf8_lossy(&upward::input_response(&case.input(), method)?)),
        "retry" => {
            let responses: Vec<_> = case.all("response").map(|line| line.split_once('=').unwrap()).collect();
            let responses: Vec<_> = responses.iter().map(|(key, raw)| (*key, raw.as_bytes())).collect();
            modern(upward::retry(&case.input(), case.id(), &responses, case.maybe("state"))?, "")
        }
        "listen" => modern(upward::listen(case.id(), &case.introduction(), &Filter::of(&case.input())?), ""),
        other => panic!("no such action: {other}"),
    })
}

fn downward_case(case: &Case<'_>) -> Found {
    let (revision, method) = (case.revision(), case.maybe("method").unwrap_or_default());
    let newest = Revision::V2025_11_25;
    Ok(match case.action {
        "initialize" => legacy(downward::initialize(case.id(), &Client::of_request(&case.input())?), newest, ""),
        "key" => {
            let keys: Vec<_> =
                case.all("in").map(|line| Client::of_request(&message(line.as_bytes())).unwrap().key()).collect();
            text(if keys.windows(2).all(|pair| pair[0] == pair[1]) { "same" } else { "different" })
        }
        "initialized" => legacy(downward::initialized(), newest, ""),
        "negotiated" => text(downward::negotiated(&case.input())?.to_string()),
        "discover" => modern(downward::discover_result(&case.input(), case.id())?, "server/discover"),
        "request" => legacy(downward::request(&case.input())?, revision, ""),
        "answer" => {
            let (uri, server) = (case.maybe("uri").map(str::as_bytes), case.maybe("server").map(str::as_bytes));
            modern(downward::answer(&case.input(), method, uri, server)?, method)
        }
        "notification" => match downward::notification(&case.input(), case.maybe("subscription")) {
            Some(found) => modern(found, ""),
            None => text("nothing"),
        },
        "set level" => {
            let level = LogLevel::wanted(&case.input()).map(|level| downward::set_level(case.id(), level));
            level.map_or_else(|| text("nothing"), |found| legacy(found, newest, ""))
        }
        "subscribe" => {
            let messages = Filter::of(&case.input())?
                .uris
                .into_iter()
                .flat_map(|uri| [true, false].map(|on| downward::subscribe(case.id(), &uri, on)));
            messages.flat_map(|found| legacy(found, newest, "")).collect()
        }
        "acknowledge" => {
            let mut found = modern(downward::acknowledged(&case.input(), &Filter::of(&case.input())?)?, "");
            found.extend(modern(downward::listen_result(&case.input())?, "subscriptions/listen"));
            found.extend(modern(downward::listen_again(&case.input())?, "subscriptions/listen"));
            found
        }
        "wants" => {
            let filter = Filter::of(&case.input())?;
            let wants = case.all("heard").map(|line| filter.wants(&message(line.as_bytes())).to_string());
            text(wants.collect::<Vec<_>>().join(" "))
        }
        "ask" => {
            let found =
                downward::input_required(case.id(), case.get("key"), &case.input(), &case.client(), case.get("state"))?;
            modern(found, method)
        }
        "pages" => match downward::pages_required(case.id(), &case.input(), &case.client())? {
            Some(found) => modern(found, method),
            None => text("nothing"),
        },
        "retried" => {
            let input = case.input();
            let raw = |raw: Option<&[u8]>| raw.map_or("none".into(), |raw| String::from_utf8_lossy(raw).into_owned());
            let response = raw(downward::input_response(&input, case.get("key")));
            text(format!("{response} state {}", raw(downward::request_state(&input).map(|member| member.raw))))
        }
        "given" => {
            let given = case.get("response").as_bytes();
            let found = check_answer(method, given);
            let named = match method {
                "elicitation/create" => "ElicitResult",
                "sampling/createMessage" => "CreateMessageResult",
                "roots/list" => "ListRootsResult",
                other => panic!("nobody is asked `{other}`"),
            };
            let faults = testkit::schema::definition_faults("2026-07-28", named, &mcp::value(given).unwrap());
            assert!(found.is_ok() || !faults.is_empty(), "the schema takes {}", case.get("response"));
            found.map(|()| text("an answer"))?
        }
        "answer to" => {
            legacy(downward::answer_to(case.id(), method, case.get("response").as_bytes(), revision), revision, method)
        }
        other => panic!("no such action: {other}"),
    })
}

fn check(file: &str, run: impl Fn(&Case<'_>) -> Found) {
    let mut wrong = Vec::new();
    for text in file.split("\n---\n") {
        let Some(case) = Case::read(text) else { continue };
        let found: Vec<String> = match run(&case) {
            Err(fault) => vec![format!("fault: {fault}")],
            Ok(outcomes) => outcomes.into_iter().map(|outcome| judged(&case, outcome)).collect(),
        };
        let expected: Vec<String> = case
            .lines
            .iter()
            .filter(|(name, _)| matches!(*name, "out" | "fault"))
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        if found != expected {
            wrong.push(format!("{text}\n>>> found:\n{}", found.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "these came out otherwise:\n{}", wrong.join("\n<<<\n"));
}

/// What came of a case as the case says it. A message must be valid where it is read.
fn judged(case: &Case<'_>, outcome: Outcome) -> String {
    match outcome {
        Outcome::Text(found) => format!("out: {found}"),
        Outcome::Message(found, reader, method) => {
            let found_text = String::from_utf8(found.to_vec()).unwrap();
            let faults = schema::faults(reader, &found, &method);
            assert!(
                faults.is_empty(),
                "{} makes an invalid message of {reader}: {faults:#?}\n{found_text}",
                case.action
            );
            format!("out: {found_text}")
        }
    }
}
