//! Fail closed, as a table: every stage of the line with everything that can go wrong in it.
//!
//! Each cell is made to happen in both eras, or says why it cannot. Whatever happens, nothing reaches the server that
//! was not sent already, what it said is kept back, and exactly one closed record tells how the call ended.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod inside;

use audit::Tree;
use futures_util::future::join_all;
use gateway::{
    limit::{Allowance, LimitSetting, LimitSettings, Rate},
    settings::{Bounds, CredentialSettings, Place},
    stop::Stage,
};
use guard::{Detector, Guards, Match, Mode, Setting};
use identity::{ClaimPath, IssuerSetting, JwksSource};
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};
use testkit::{Agent, Answer, Ask, Issuer, Kind, Upstream, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};
use vocab::{IssuerName, Secret, SecretName};

/// What goes wrong in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It says no.
    Refusal,
    /// What it stands on fails.
    Error,
    /// What it waits for does not come.
    Timeout,
    /// It breaks.
    Panic,
}

const FAULTS: [Fault; 4] = [Fault::Refusal, Fault::Error, Fault::Timeout, Fault::Panic];

/// One stage with one fault.
enum Cell {
    /// What happens, each with how the record ends.
    Ends(&'static [(Case, &'static str)]),
    /// Why it cannot happen.
    Never(&'static str),
}

use Cell::{Ends, Never};

#[rustfmt::skip]
const TABLE: [(Stage, [Cell; 4]); 12] = [
    (Stage::Receive, [
        Ends(&[(Case::BodyIsNoJson, "refused body receive")]),
        Ends(&[(Case::BodyIsCut, "faulted cut receive")]),
        Ends(&[(Case::BodyIsSlow, "refused slow receive")]),
        Ends(&[(Case::ClockBreaksAt(Stage::Receive), "faulted panic receive")]),
    ]),
    (Stage::Authenticate, [
        Ends(&[(Case::NoCredential, "refused missing authenticate")]),
        Ends(&[(Case::IssuerFails, "refused unavailable authenticate")]),
        Ends(&[(Case::IssuerHangs, "refused unavailable authenticate")]),
        Ends(&[(Case::ClockBreaksAt(Stage::Authenticate), "faulted panic authenticate")]),
    ]),
    (Stage::Resolve, [
        Ends(&[(Case::UnknownTool, "refused unknown resolve"), (Case::HiddenTool, "refused hidden resolve")]),
        Ends(&[(Case::ServerIsDown, "faulted upstream-down resolve")]),
        Ends(&[(Case::ServerIsMute, "faulted upstream-timeout resolve")]),
        Ends(&[(Case::ClockBreaksAt(Stage::Resolve), "faulted panic resolve")]),
    ]),
    (Stage::Limit, [
        Ends(&[(Case::TooMany, "refused rate limit")]),
        Never("counts in memory: there is nothing that could fail"),
        Never("takes or refuses at once, and waits for nothing"),
        Ends(&[(Case::ClockBreaksAt(Stage::Limit), "faulted panic limit")]),
    ]),
    (Stage::Validate, [
        Ends(&[(Case::WrongArguments, "refused arguments validate")]),
        Ends(&[(Case::BrokenSchema, "refused schema-unusable validate")]),
        Never("pure, on schemas that were compiled before; patterns are linear in the text"),
        Ends(&[(Case::ClockBreaksAt(Stage::Validate), "faulted panic validate")]),
    ]),
    (Stage::Screen, [
        Ends(&[(Case::DetectorRefuses, "refused guard screen")]),
        Ends(&[(Case::DetectorMangles, "faulted mask screen")]),
        Never("pure and linear; what is too large to be looked into is refused"),
        Ends(&[(Case::DetectorPanics, "faulted panic screen"), (Case::ClockBreaksAt(Stage::Screen), "faulted panic screen")]),
    ]),
    (Stage::Authorize, [
        Ends(&[(Case::Denied, "refused denied authorize")]),
        Ends(&[(Case::ConditionFails, "refused denied authorize")]),
        Never("pure; what conditions may cost is bounded when they are loaded"),
        Ends(&[(Case::ClockBreaksAt(Stage::Authorize), "faulted panic authorize")]),
    ]),
    (Stage::Settle, [
        Never("nobody is asked yet: a policy that asks does not load, and a permit has nothing left open"),
        Never("does nothing that could fail while nobody is asked"),
        Never("waits for nobody while nobody is asked"),
        Ends(&[(Case::ClockBreaksAt(Stage::Settle), "faulted panic settle")]),
    ]),
    (Stage::Intend, [
        Never("the log decides nothing: it takes the word or cannot"),
        Ends(&[(Case::LogCannotBeWritten, "faulted log intend")]),
        Ends(&[(Case::LogHangs, "faulted log intend")]),
        Ends(&[(Case::ClockBreaksAt(Stage::Intend), "faulted panic intend")]),
    ]),
    (Stage::Inject, [
        Never("a permit for another call cannot be had: only `authorize` makes one, and it names this call"),
        Ends(&[(Case::SecretIsGone, "faulted credential inject")]),
        Never("the vault is in memory; a key from a command is asked for when it opens"),
        Ends(&[(Case::ClockBreaksAt(Stage::Inject), "faulted panic inject")]),
    ]),
    (Stage::Forward, [
        Never("decides nothing: all that can say no is over"),
        Ends(&[(Case::AnswerIsCut, "faulted upstream-cut forward"), (Case::StreamIsCut, "faulted upstream-cut forward")]),
        Ends(&[(Case::AnswerHangs, "faulted upstream-timeout forward")]),
        Ends(&[(Case::ClockBreaksAt(Stage::Forward), "faulted panic forward")]),
    ]),
    (Stage::Release, [
        Ends(&[(Case::ResultIsRefused, "withheld guard release"), (Case::EventIsRefused, "withheld guard release")]),
        Ends(&[(Case::ResultIsNoMessage, "withheld upstream-protocol release")]),
        Ends(&[(Case::StreamFallsSilent, "faulted upstream-timeout forward")]),
        Ends(&[
            (Case::ResultPanics, "withheld panic release"),
            (Case::EventPanics, "withheld panic release"),
            (Case::ClockBreaksAt(Stage::Release), "withheld panic release"),
        ]),
    ]),
];

/// How it is made to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    BodyIsNoJson,
    BodyIsCut,
    BodyIsSlow,
    NoCredential,
    IssuerFails,
    IssuerHangs,
    UnknownTool,
    HiddenTool,
    ServerIsDown,
    ServerIsMute,
    TooMany,
    WrongArguments,
    BrokenSchema,
    DetectorRefuses,
    DetectorMangles,
    DetectorPanics,
    Denied,
    ConditionFails,
    LogCannotBeWritten,
    LogHangs,
    SecretIsGone,
    AnswerIsCut,
    StreamIsCut,
    AnswerHangs,
    ResultIsRefused,
    EventIsRefused,
    ResultIsNoMessage,
    StreamFallsSilent,
    ResultPanics,
    EventPanics,
    /// The clock panics, at the first of its readings that is made in this stage.
    ClockBreaksAt(Stage),
}

/// The eras of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    Legacy,
    Modern,
}

/// What the server says and nobody may hear where a cell keeps it back.
const SAID: &str = "what the server said";

#[test]
fn no_cell_of_the_table_is_missing() {
    let mut stage = Stage::Receive;
    for (place, (named, cells)) in TABLE.iter().enumerate() {
        assert_eq!(*named, stage, "row {place}");
        for (fault, cell) in FAULTS.iter().zip(cells) {
            match cell {
                Ends(cases) => assert!(!cases.is_empty(), "{named:?} x {fault:?} has no case"),
                Never(why) => assert!(why.len() > 20, "{named:?} x {fault:?} says no reason"),
            }
        }
        stage = stage.next();
    }
    assert_eq!(TABLE.last().map(|(last, _)| *last), Some(stage), "the table ends where the line ends");
    // What the rows of `settle` and of `inject` stand on.
    let asks = json!({"policy": "p", "rules": [{"id": "r", "action": "*", "target": "*/*", "effect": "ask"}]});
    let source = policy::Source { name: "ask.json".to_owned(), text: asks.to_string() };
    assert!(policy::Policies::compile(&[source]).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stage_fails_closed_whatever_goes_wrong() {
    let mut slow = Vec::new();
    for (stage, cells) in TABLE {
        for (fault, cell) in FAULTS.into_iter().zip(cells) {
            let Ends(cases) = cell else { continue };
            for (case, expected) in cases {
                for era in [Era::Modern, Era::Legacy] {
                    let check = async move {
                        println!("{stage:?} x {fault:?} ({case:?}, {era:?}): {expected}");
                        check(stage, *case, era, expected).await;
                    };
                    // What waits for half a minute waits beside the others.
                    if matches!(case, Case::BodyIsSlow | Case::IssuerHangs) {
                        slow.push(tokio::spawn(check));
                    } else {
                        check.await;
                    }
                }
            }
        }
    }
    for ended in join_all(slow).await {
        ended.expect("it fails closed");
    }
}

/// One case, from an untouched gateway to the one record it leaves.
async fn check(stage: Stage, case: Case, era: Era, expected: &str) {
    let scene = Scene::set(case).await;
    let mut reading = 0;
    loop {
        let (before, sent_before) = (scene.closed().await, scene.sent());
        if let Case::ClockBreaksAt(_) = case {
            reading += 1;
            assert!(reading < 60, "the clock is never read in {stage:?}");
            scene.inside.clock.fail_at(reading);
        }
        let answer = scene.play(case, era).await;
        scene.inside.clock.disarm();
        let records: Vec<Value> = scene.closed().await.into_iter().filter(|record| !before.contains(record)).collect();
        let [record] = records.as_slice() else { panic!("{case:?}, {era:?}: not one record: {records:#?} {answer:?}") };
        let ended = outcome(record);
        // A reading of another stage: whatever it was, it was recorded, and the next one is tried.
        if matches!(case, Case::ClockBreaksAt(_)) && ended != expected {
            continue;
        }
        assert_eq!(ended, expected, "{case:?}, {era:?}: {record:#} {answer:?}");
        let sent = scene.sent() - sent_before;
        match stage {
            Stage::Forward | Stage::Release => {
                assert_eq!(sent, 1, "{case:?}, {era:?}: sent once");
                assert!(record["intent"].is_u64(), "{case:?}, {era:?}: what was sent was intended: {record:#}");
            }
            _ => assert_eq!(sent, 0, "{case:?}, {era:?}: nothing may reach the server"),
        }
        if let Some(answer) = answer {
            assert!(!answer.contains(SAID), "{case:?}, {era:?}: {answer}");
            let error: Value = serde_json::from_str(&answer).unwrap_or_default();
            assert!(error["error"]["code"].is_i64(), "{case:?}, {era:?}: {answer}");
            assert_eq!(error["error"]["data"]["call"], record["call"], "{case:?}, {era:?}: {answer}");
        }
        return;
    }
}

/// A gateway that serves well but for one case.
struct Scene {
    inside: Inside,
    upstream: Upstream,
    _mute: Option<Upstream>,
    legacy: Agent,
    issuer: Option<Issuer>,
    gate: Arc<Gate>,
}

impl Scene {
    async fn set(case: Case) -> Self {
        let upstream = upstream().await;
        let mut plan = Plan::of(&upstream);
        plan.policy = json!({"policy": "test", "rules": [
            {"id": "all", "action": "*", "target": "*/*", "effect": "allow"},
            {"id": "no-force", "action": "tool.execute", "target": "files/erase", "effect": "deny", "when": "has(args.force)"},
            {"id": "cap", "action": "tool.execute", "target": "files/pay", "effect": "deny", "when": "args.amount > 5"},
            {"id": "secret", "action": "*", "target": "files/hidden", "effect": "deny"},
        ]});
        let (results, arguments, kind) = match case {
            Case::DetectorRefuses => (Mode::Off, Mode::Refuse, "word"),
            Case::DetectorMangles => (Mode::Off, Mode::Mask, "wo\"rd"),
            Case::DetectorPanics => (Mode::Off, Mode::Mask, "panic"),
            Case::ResultIsRefused | Case::EventIsRefused => (Mode::Refuse, Mode::Off, "word"),
            Case::ResultPanics | Case::EventPanics => (Mode::Mask, Mode::Off, "panic"),
            _ => (Mode::Off, Mode::Off, "word"),
        };
        plan.guards = Guards::none().with(Arc::new(Word(kind)), Setting { results, arguments }).unwrap();
        let mute = match case {
            Case::ServerIsMute => {
                let mute = Upstream::start().await;
                for method in ["server/discover", "initialize", "tools/list"] {
                    mute.always(method, |_| Answer::hang());
                }
                Some(mute)
            }
            _ => None,
        };
        let away = mute.as_ref().map_or_else(|| "http://127.0.0.1:9/mcp".to_owned(), Upstream::url);
        plan.servers.push(("away", away));
        if matches!(case, Case::ServerIsMute | Case::AnswerHangs | Case::LogHangs) {
            plan.bounds.deadline = Duration::from_millis(300);
        }
        plan.bounds = Bounds { stream_idle: Duration::from_millis(300), ..plan.bounds };
        if case == Case::TooMany {
            plan.limits = one_an_hour();
        }
        let issuer = match case {
            Case::IssuerFails | Case::IssuerHangs => {
                let issuer = Issuer::start(Kind::Ed25519).await;
                issuer.server().always("GET", move |_| match case {
                    Case::IssuerHangs => Answer::hang(),
                    _ => Answer::status(http::StatusCode::INTERNAL_SERVER_ERROR),
                });
                plan.issuers.push(setting(&issuer));
                Some(issuer)
            }
            _ => None,
        };
        let name = SecretName::new("upstream-token").unwrap();
        if case == Case::SecretIsGone {
            plan.credentials.push(CredentialSettings { secret: name.clone(), place: Place::Bearer });
        }
        let gate = Arc::new(Gate::default());
        let watched = Arc::clone(&gate);
        plan.signing = Arc::new(move || watched.pass());
        let inside = Inside::start(plan).await;
        let vault = &inside.state.vault;
        if case == Case::SecretIsGone {
            vault.set(&name, &Secret::new("value".to_owned()), inside.now()).unwrap();
        }
        let legacy = inside.legacy("/mcp/files", &inside.alice).await;
        // The server is known before anything goes wrong.
        assert!(inside.call(&inside.alice, "rare", &json!({})).send().await.json().await["result"].is_object());
        if case == Case::SecretIsGone {
            vault.rm(&name).unwrap();
        }
        Self { inside, upstream, _mute: mute, legacy, issuer, gate }
    }

    /// Makes the case happen. What the caller reads of it, if there is still anybody to read.
    async fn play(&self, case: Case, era: Era) -> Option<String> {
        match case {
            Case::BodyIsNoJson => {
                let ask = self.ask(era, "echo", &json!({}));
                Some(ask.body("{").send().await.text().await)
            }
            Case::BodyIsCut => self.raw(true).await,
            Case::BodyIsSlow => self.raw(false).await,
            Case::NoCredential => self.said(self.ask(era, "echo", &json!({})).without("authorization")).await,
            Case::IssuerFails | Case::IssuerHangs => {
                let claims = json!({"aud": "here", "azp": "alice", "exp": 4_000_000_000_u64});
                let token = self.issuer.as_ref().unwrap().token(claims);
                self.said(self.ask(era, "echo", &json!({})).bearer(&token)).await
            }
            Case::UnknownTool => self.said(self.ask(era, "nothing", &json!({}))).await,
            Case::HiddenTool => self.said(self.ask(era, "hidden", &json!({}))).await,
            Case::ServerIsDown | Case::ServerIsMute => self.said(self.away(era)).await,
            Case::TooMany => self.said(self.ask(era, "rare", &json!({}))).await,
            Case::WrongArguments => self.said(self.ask(era, "strict", &json!({"n": "seven"}))).await,
            Case::BrokenSchema => self.said(self.ask(era, "broken", &json!({"a": 1}))).await,
            Case::DetectorRefuses | Case::DetectorMangles | Case::DetectorPanics => {
                self.said(self.ask(era, "echo", &json!({"deep": ["boom"]}))).await
            }
            Case::Denied => self.said(self.ask(era, "erase", &json!({"force": true}))).await,
            Case::ConditionFails => self.said(self.ask(era, "pay", &json!({"amount": "much"}))).await,
            Case::LogCannotBeWritten => self.without_log(era).await,
            Case::LogHangs => self.with_hung_log(era).await,
            Case::SecretIsGone | Case::ClockBreaksAt(_) => self.said(self.ask(era, "echo", &json!({}))).await,
            Case::AnswerIsCut => self.answered(era, Answer::cut_off(format!("{{\"a\":\"{SAID}"))).await,
            Case::StreamIsCut => self.answered(era, Answer::event_text(": nothing more\n\n")).await,
            Case::AnswerHangs => self.answered(era, Answer::hang()).await,
            Case::ResultIsNoMessage => self.answered(era, Answer::json(format!("{{\"a\":\"{SAID}\"}}"))).await,
            Case::ResultIsRefused | Case::ResultPanics => {
                self.upstream.always("tools/call", |request| Answer::result(&request.id(), &result("boom")));
                self.said(self.ask(era, "echo", &json!({}))).await
            }
            Case::EventIsRefused | Case::EventPanics => {
                self.upstream.always("tools/call", |request| {
                    let message = json!({"jsonrpc": "2.0", "id": request.id(), "result": result("boom")});
                    Answer::event_text(format!("data: {message}\n\n"))
                });
                self.said(self.ask(era, "echo", &json!({}))).await
            }
            Case::StreamFallsSilent => {
                let (answer, feed) = Answer::events();
                let said = self.answered(era, answer).await;
                drop(feed);
                said
            }
        }
    }

    async fn answered(&self, era: Era, answer: Answer) -> Option<String> {
        self.upstream.next("tools/call", answer);
        self.said(self.ask(era, "echo", &json!({}))).await
    }

    async fn said(&self, ask: Ask) -> Option<String> {
        // As long as a gateway may wait for an issuer, and a little.
        let reply = tokio::time::timeout(Duration::from_secs(20), async { ask.send().await.json().await });
        Some(reply.await.expect("the caller is told, not kept waiting").to_string())
    }

    fn ask(&self, era: Era, tool: &str, arguments: &Value) -> Ask {
        match era {
            Era::Modern => self.inside.call(&self.inside.alice, tool, arguments),
            Era::Legacy => self.legacy.ask("tools/call", &legacy_call(tool, arguments)),
        }
    }

    /// A call of the server that is not there.
    fn away(&self, era: Era) -> Ask {
        let url = self.inside.url("/mcp/away");
        match era {
            Era::Modern => {
                let params = json!({"name": "echo", "arguments": {}, "_meta": testkit::meta()});
                let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
                Agent::modern(&url, Some(&self.inside.alice)).ask("tools/call", &call)
            }
            // No session can be had there.
            Era::Legacy => {
                let ask = Ask::post(&url, legacy_call("echo", &json!({})).to_string()).bearer(&self.inside.alice);
                ask.header("mcp-protocol-version", testkit::LEGACY)
            }
        }
    }

    /// A body of which half is sent; after it the client is gone, or says nothing more.
    #[expect(clippy::disallowed_methods, reason = "a test dials what it is told to")]
    async fn raw(&self, leaves: bool) -> Option<String> {
        let mut stream = TcpStream::connect(self.inside.address()).await.unwrap();
        let head = format!(
            "POST /mcp/files HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: 100\r\n\r\n{{",
            self.inside.address(),
            self.inside.alice
        );
        let before = self.closed().await.len();
        stream.write_all(head.as_bytes()).await.unwrap();
        if leaves {
            drop(stream);
            // Nobody reads an answer; the record is there all the same.
            soon(async { while self.closed().await.len() == before {} }).await;
            return None;
        }
        let mut text = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(45), stream.read_to_end(&mut text)).await;
        read.expect("a slow client is let go").unwrap();
        let text = String::from_utf8(text).unwrap();
        Some(text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// The directory of a tree is gone, as when a disk is.
    async fn without_log(&self, era: Era) -> Option<String> {
        let log = self.inside.state.journal.log();
        let tree = Tree::System.path(&self.inside.log());
        let aside = self.inside.log().join("aside");
        // Everything before is in the tree, so that what fails now is what comes now.
        log.flush().await.unwrap();
        std::fs::rename(&tree, &aside).unwrap();
        std::fs::write(&tree, "no directory").unwrap();
        let flushing = tokio::spawn({
            let state = Arc::clone(&self.inside.state);
            async move {
                state.journal.system("a word", None);
                state.journal.log().flush().await
            }
        });
        soon(async {
            while log.healthy().is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let said = self.said(self.ask(era, "echo", &json!({}))).await;
        std::fs::remove_file(&tree).unwrap();
        std::fs::rename(&aside, &tree).unwrap();
        soon(flushing).await.unwrap().unwrap();
        said
    }

    /// The log's thread hangs where it signs: nothing that comes now gets to the disk.
    async fn with_hung_log(&self, era: Era) -> Option<String> {
        let log = self.inside.state.journal.log();
        self.gate.shut();
        let flushing = tokio::spawn({
            let state = Arc::clone(&self.inside.state);
            async move {
                state.journal.system("a word", None);
                state.journal.log().flush().await
            }
        });
        soon(self.gate.somebody_waits()).await;
        assert!(log.healthy().is_ok(), "nobody knows that it hangs");
        let said = self.said(self.ask(era, "echo", &json!({}))).await;
        self.gate.open();
        soon(flushing).await.unwrap().unwrap();
        said
    }

    /// How many calls the server got.
    fn sent(&self) -> usize {
        self.upstream.seen("tools/call").len()
    }

    /// Every closed record of a call, of whomever.
    async fn closed(&self) -> Vec<Value> {
        let mut records = self.inside.records().await;
        records.extend(self.inside.strangers().await);
        records
    }
}

fn legacy_call(tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

fn result(word: &str) -> Value {
    json!({"content": [{"type": "text", "text": format!("{SAID}: {word}")}], "resultType": "complete"})
}

async fn upstream() -> Upstream {
    let object = json!({"type": "object"});
    let mut tools: Vec<Value> = ["echo", "erase", "pay", "rare", "hidden"]
        .into_iter()
        .map(|name| json!({"name": name, "inputSchema": object}))
        .collect();
    tools.push(json!({"name": "broken", "inputSchema": {"type": "object", "properties": {"a": {"type": "nonsense"}}}}));
    tools.push(json!({"name": "strict", "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}}}));
    let upstream = Upstream::at("127.0.0.1:0".parse().unwrap(), tools).await;
    upstream.always("tools/call", |request| Answer::result(&request.id(), &result("fine")));
    upstream
}

fn one_an_hour() -> LimitSettings {
    let rule = LimitSetting {
        agent: Some("*".to_owned()),
        tool: Some("files/rare".to_owned()),
        server: None,
        tenant: None,
        allowance: Allowance { rate: Rate { count: 1, per: Duration::from_hours(1) }, burst: 1 },
        concurrency: None,
    };
    LimitSettings { rules: vec![rule], ..LimitSettings::default() }
}

fn setting(issuer: &Issuer) -> IssuerSetting {
    let name = IssuerName::new(&issuer.url()).unwrap();
    let agent = "claim:azp".parse::<ClaimPath>().unwrap();
    let jwks = JwksSource::Url(issuer.jwks_url().parse().unwrap());
    IssuerSetting { internal: true, jwks, ..IssuerSetting::new(name, vec!["here".to_owned()], agent) }
}

/// Finds a word, and names it so. One that is to panic does.
struct Word(&'static str);

impl Detector for Word {
    fn family(&self) -> &'static str {
        "words"
    }

    fn find(&self, text: &str, found: &mut Vec<Match>) {
        if let Some(at) = text.find("boom") {
            assert!(self.0 != "panic", "the detector breaks, as the test wants");
            found.push(Match { kind: self.0, span: at..at + 4 });
        }
    }
}

/// A door that the log's thread goes through when it signs.
#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
    waits: Notify,
}

impl Gate {
    fn pass(&self) {
        let mut shut = self.locked();
        while *shut {
            self.waits.notify_one();
            shut = self.opened.wait(shut).unwrap();
        }
    }

    fn shut(&self) {
        *self.locked() = true;
    }

    fn open(&self) {
        *self.locked() = false;
        self.opened.notify_all();
    }

    async fn somebody_waits(&self) {
        self.waits.notified().await;
    }

    fn locked(&self) -> MutexGuard<'_, bool> {
        self.shut.lock().unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A log that is to close must be able to.
        self.gate.open();
    }
}
