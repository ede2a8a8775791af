//! A gateway that serves well but for one thing that goes wrong, and how it is made to.

use crate::inside::{Inside, Plan};
use gateway::{
    limit::{Allowance, LimitSetting, LimitSettings, Rate},
    settings::{Bounds, CredentialSettings, EraSettings, Place},
    stop::Stage,
};
use guard::{Detector, Guards, Match, Mode, Setting};
use identity::{ClaimPath, IssuerSetting, JwksSource};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};
use tempfile::TempDir;
use testkit::{Agent, Answer, Ask, Issuer, Kind, Upstream, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};
use vocab::{IssuerName, Secret, SecretName};

/// How it is made to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
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
    /// A modern client goes on with a call that a server of the other era never asked about.
    StateIsForged,
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
pub(crate) enum Era {
    Legacy,
    Modern,
}

impl Case {
    /// The eras of clients to whom it can happen.
    pub(crate) fn eras(self) -> &'static [Era] {
        match self {
            // Nobody else goes on with a call.
            Self::StateIsForged => &[Era::Modern],
            _ => &[Era::Modern, Era::Legacy],
        }
    }
}

/// Where a call comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The path of its server.
    One,
    /// The path of all servers.
    All,
    /// The path of a server that is a process.
    Process,
}

/// A process with the tools `$2`, that writes down each call in `$1` before it answers.
const PROCESS: &str = r#"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}; id=${id%%\}*}
  answer() { printf '%s\n' '{"jsonrpc":"2.0","id":'"$id"',"result":'"$1"'}'; }
  case "$line" in
    *'"initialize"'*) answer '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"tools/list"'*) answer '{"tools":'"$2"'}' ;;
    *'"tools/call"'*) echo called >> "$1"; answer '{"content":[{"type":"text","text":"what the server said"}]}' ;;
    *'"id"'*) answer '{}' ;;
  esac
done"#;

impl Door {
    /// Whether a case can be played there: a process has no answer but one, and there is only one of them.
    pub(crate) fn knows(self, stage: Stage, case: Case) -> bool {
        let is_away = matches!(case, Case::ServerIsDown | Case::ServerIsMute);
        self != Self::Process || (stage < Stage::Forward && !is_away)
    }

    /// The path of a server.
    fn path(self, server: &str) -> String {
        match self {
            Self::One | Self::Process => format!("/mcp/{server}"),
            Self::All => "/mcp".to_owned(),
        }
    }

    /// What a tool of a server is called there.
    fn tool(self, server: &str, tool: &str) -> String {
        match self {
            Self::One | Self::Process => tool.to_owned(),
            Self::All => format!("{server}__{tool}"),
        }
    }
}

/// What the server says and nobody may hear where a cell keeps it back.
pub(crate) const SAID: &str = "what the server said";

/// A gateway that serves well but for one case.
pub(crate) struct Scene {
    pub(crate) inside: Inside,
    upstream: Upstream,
    door: Door,
    marks: TempDir,
    _mute: Option<Upstream>,
    legacy: Agent,
    issuer: Option<Issuer>,
    gate: Arc<Gate>,
}

impl Scene {
    pub(crate) async fn set(case: Case, door: Door) -> Self {
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
        if case == Case::StateIsForged {
            plan.era = EraSettings::Legacy;
        }
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
            let place = match door {
                Door::Process => Place::Environment("TOKEN".to_owned()),
                Door::One | Door::All => Place::Bearer,
            };
            plan.credentials.push(CredentialSettings { secret: name.clone(), place });
        }
        let marks = tempfile::tempdir().unwrap();
        if door == Door::Process {
            let (calls, tools) = (marks.path().join("calls"), Value::Array(tools()).to_string());
            let command = ["/bin/sh", "-c", PROCESS, "server", &calls.to_string_lossy(), &tools];
            plan.command = Some(command.map(str::to_owned).to_vec());
            plan.era = EraSettings::Legacy;
        }
        let gate = Arc::new(Gate::default());
        let watched = Arc::clone(&gate);
        plan.signing = Arc::new(move || watched.pass());
        let inside = Inside::start(plan).await;
        let vault = &inside.state.vault;
        if case == Case::SecretIsGone {
            vault.set(&name, &Secret::new("value".to_owned()), inside.now()).unwrap();
        }
        let legacy = inside.legacy(&door.path("files"), &inside.alice).await;
        let scene = Self { inside, upstream, door, marks, _mute: mute, legacy, issuer, gate };
        // The server is known before anything goes wrong.
        let first = scene.ask(Era::Modern, "rare", &json!({})).send().await.json().await;
        assert!(first["result"].is_object(), "{first}");
        assert_eq!(scene.sent(), 1, "what reaches it is seen");
        if case == Case::SecretIsGone {
            scene.inside.state.vault.rm(&name).unwrap();
        }
        scene
    }

    /// Makes the case happen. What the caller reads of it, if there is still anybody to read.
    pub(crate) async fn play(&self, case: Case, era: Era) -> Option<String> {
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
            Case::ServerIsDown | Case::ServerIsMute => {
                // What an earlier look at it found counts no more.
                self.inside.clock.advance(Duration::from_mins(1));
                self.said(self.away(era)).await
            }
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
            Case::StateIsForged => {
                let extra = [("requestState", json!("AAAA")), ("inputResponses", json!({}))];
                self.said(self.modern("files", &self.door.tool("files", "echo"), &json!({}), &extra)).await
            }
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
        let tool = self.door.tool("files", tool);
        match era {
            Era::Modern => self.modern("files", &tool, arguments, &[]),
            Era::Legacy => self.legacy.ask("tools/call", &legacy_call(&tool, arguments)),
        }
    }

    /// A call of the server that is not there.
    fn away(&self, era: Era) -> Ask {
        let tool = self.door.tool("away", "echo");
        match (era, self.door) {
            (Era::Modern, _) => self.modern("away", &tool, &json!({}), &[]),
            (Era::Legacy, Door::All) => self.legacy.ask("tools/call", &legacy_call(&tool, &json!({}))),
            // No session can be had there.
            (Era::Legacy, Door::One | Door::Process) => {
                let url = self.inside.url(&self.door.path("away"));
                let ask = Ask::post(&url, legacy_call(&tool, &json!({})).to_string()).bearer(&self.inside.alice);
                ask.header("mcp-protocol-version", testkit::LEGACY)
            }
        }
    }

    fn modern(&self, server: &str, tool: &str, arguments: &Value, extra: &[(&str, Value)]) -> Ask {
        let agent = self.inside.modern(&self.door.path(server), &self.inside.alice);
        let mut params = json!({"name": tool, "arguments": arguments, "_meta": testkit::meta()});
        for (member, value) in extra {
            params[member] = value.clone();
        }
        agent.ask("tools/call", &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))
    }

    /// A body of which half is sent; after it the client is gone, or says nothing more.
    #[expect(clippy::disallowed_methods, reason = "a test dials what it is told to")]
    async fn raw(&self, leaves: bool) -> Option<String> {
        let mut stream = TcpStream::connect(self.inside.address()).await.unwrap();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: 100\r\n\r\n{{",
            self.door.path("files"),
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

    async fn without_log(&self, era: Era) -> Option<String> {
        let broken = self.inside.break_log().await;
        let said = self.said(self.ask(era, "echo", &json!({}))).await;
        broken.mend().await;
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
    pub(crate) fn sent(&self) -> usize {
        match self.door {
            Door::One | Door::All => self.upstream.seen("tools/call").len(),
            Door::Process => {
                std::fs::read_to_string(self.marks.path().join("calls")).map_or(0, |calls| calls.lines().count())
            }
        }
    }

    /// Every closed record of a call, of whomever.
    pub(crate) async fn closed(&self) -> Vec<Value> {
        let mut records = self.inside.records().await;
        records.extend(self.inside.strangers().await);
        records
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A log that is to close must be able to.
        self.gate.open();
    }
}

fn legacy_call(tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

fn result(word: &str) -> Value {
    json!({"content": [{"type": "text", "text": format!("{SAID}: {word}")}], "resultType": "complete"})
}

fn tools() -> Vec<Value> {
    let object = json!({"type": "object"});
    let mut tools: Vec<Value> = ["echo", "erase", "pay", "rare", "hidden"]
        .into_iter()
        .map(|name| json!({"name": name, "inputSchema": object}))
        .collect();
    tools.push(json!({"name": "broken", "inputSchema": {"type": "object", "properties": {"a": {"type": "nonsense"}}}}));
    tools.push(json!({"name": "strict", "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}}}));
    tools
}

async fn upstream() -> Upstream {
    let upstream = Upstream::at("127.0.0.1:0".parse().unwrap(), tools()).await;
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
