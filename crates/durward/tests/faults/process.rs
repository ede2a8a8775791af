//! Servers that are processes, played by the test: each passes what it hears and says through a socket.

use crate::{
    flow::listen::{acknowledged, told, updated},
    table::Manner,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use testkit::{schema::Told, soon};
use tokio::sync::watch;

/// Where the process finds the test.
const AT: &str = "DURWARD_FAULTS_AT";
/// What goes on when the program in it has ended: for a while, lest it outlive a test that breaks.
const STUBBORN: &str = r#"trap "" TERM; "$0" "$@"; exec >&-; sleep 20"#;

/// What the call of somebody else counts as.
pub(crate) const BESIDE: &str = "beside";

/// All processes of one server.
pub(crate) struct Processes {
    pub(crate) era: &'static str,
    pub(crate) manner: Manner,
    at: std::net::SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Those that began and may run yet.
    began: Mutex<Vec<Began>>,
    /// Whoever begins ends at once.
    is_dead: AtomicBool,
    /// Whoever listens hears of a resource at once.
    greets: AtomicBool,
    /// The next `initialize` is the test's to answer.
    holds: AtomicBool,
    /// Requests that the test knows of, with the process that they came to.
    asked: watch::Sender<Vec<(Value, Line)>>,
    /// How many answers to questions have come.
    answers: watch::Sender<usize>,
}

/// One process, which leads a group.
struct Began {
    pid: i32,
    /// Another one may get the same number, and not the same moment.
    at: String,
}

impl Began {
    /// The process that has this number now.
    fn now(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, in which anything may stand: the state, and eighteen more before the moment of its start.
        let at = stat.rsplit(')').next()?.split_whitespace().nth(19)?.to_owned();
        Some(Self { pid, at })
    }

    /// Whether it is there, be it that nobody has noticed its end.
    fn is_there(&self) -> bool {
        Self::now(self.pid).is_some_and(|now| now.at == self.at)
    }
}

/// What a process says.
#[derive(Clone)]
pub(crate) struct Line(Arc<Mutex<std::net::TcpStream>>);

impl Line {
    pub(crate) fn say(&self, message: &Value) {
        // The process may be gone.
        let _gone = writeln!(self.0.lock().expect("nobody failed"), "{message}");
    }

    /// The process says no more, and ends.
    pub(crate) fn close(&self) {
        let _gone = self.0.lock().expect("nobody failed").shutdown(std::net::Shutdown::Both);
    }
}

impl Processes {
    #[expect(clippy::unused_async, reason = "as every server is started")]
    pub(crate) async fn start(era: &'static str, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free address");
        let at = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&own);
                std::thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self { era, manner, at, shared }
    }

    /// Its line in the configuration.
    pub(crate) fn line(&self, name: &str) -> String {
        let program = std::env::current_exe().expect("this program");
        let (program, at, era) = (program.display(), self.at, self.era);
        let program = format!("\"{program}\", --exact, the_process_itself, --nocapture");
        let (command, more) = match self.manner {
            Manner::Own => (program, ""),
            Manner::Shared => (program, ", shared: true"),
            Manner::Stubborn => (format!("sh, -c, '{STUBBORN}', {program}"), ""),
        };
        format!("  {name}: {{ command: [{command}], env: {{ {AT}: \"{at}\" }}, era: {era}{more} }}\n")
    }

    /// Waits for the request of this method with this number, from 1.
    pub(crate) async fn asked(&self, method: &str, count: usize) -> (Value, Line) {
        let mut asked = self.shared.asked.subscribe();
        let meant = |asked: &Vec<(Value, Line)>| {
            asked.iter().filter(|(request, _)| request["method"] == method).nth(count - 1).cloned()
        };
        let asked = soon(asked.wait_for(|asked| meant(asked).is_some())).await.expect("somebody listens");
        meant(&asked).expect("it came")
    }

    /// Waits for the answer to a question.
    pub(crate) async fn answered(&self) {
        let mut answers = self.shared.answers.subscribe();
        let _come = soon(answers.wait_for(|count| *count > 0)).await.expect("somebody listens");
    }

    /// Kills them all, and each that begins from now on.
    pub(crate) fn kill(&self) {
        self.shared.is_dead.store(true, Ordering::SeqCst);
        for began in self.shared.began.lock().expect("nobody failed").iter().filter(|began| began.is_there()) {
            let pid = rustix::process::Pid::from_raw(began.pid).expect("a process");
            // One that has ended meanwhile needs no killing.
            let _ended = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }

    /// Whoever listens from now on hears of a resource at once.
    pub(crate) fn greets(&self) {
        self.shared.greets.store(true, Ordering::SeqCst);
    }

    /// The next process that is introduced to somebody does not answer by itself.
    pub(crate) fn holds(&self) {
        self.shared.holds.store(true, Ordering::SeqCst);
    }

    /// Whoever begins from now on lives.
    pub(crate) fn revive(&self) {
        self.shared.is_dead.store(false, Ordering::SeqCst);
    }

    /// How many there are, also where the gateway has forgotten them.
    pub(crate) fn running(&self) -> usize {
        let mut began = self.shared.began.lock().expect("nobody failed");
        began.retain(Began::is_there);
        began.len()
    }
}

/// Plays one process, until it ends.
fn serve(stream: &std::net::TcpStream, shared: &Shared) {
    let Ok(writer) = stream.try_clone() else { return };
    let line = Line(Arc::new(Mutex::new(writer)));
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(pid) = lines.next().and_then(|pid| pid.parse().ok()) else { return };
    shared.began.lock().expect("nobody failed").extend(Began::now(pid));
    if shared.is_dead.load(Ordering::SeqCst) {
        return line.close();
    }
    let mut told = Told::default();
    for text in lines {
        told.line(&text);
        let Ok(mut message) = serde_json::from_str::<Value>(&text) else { continue };
        let Some(method) = message["method"].as_str() else {
            shared.answers.send_modify(|answers| *answers += 1);
            continue;
        };
        if message["params"]["arguments"]["beside"] == true {
            // It is counted apart from those of the cell.
            message["method"] = BESIDE.into();
            shared.asked.send_modify(|asked| asked.push((message, line.clone())));
            continue;
        }
        let greets = shared.greets.load(Ordering::SeqCst);
        // A call without arguments, what became of a task, and a stream, are the test's to answer.
        let is_answered = match method {
            "tools/call" => !message["params"]["arguments"]["n"].is_null(),
            "tasks/get" | "tasks/result" => false,
            "subscriptions/listen" => greets,
            "initialize" => !shared.holds.swap(false, Ordering::SeqCst),
            _ => true,
        };
        if !is_answered || method == "resources/subscribe" {
            shared.asked.send_modify(|asked| asked.push((message.clone(), line.clone())));
        }
        if is_answered && !message["id"].is_null() {
            for said in &honest(method, &message, greets) {
                line.say(said);
            }
        }
    }
}

/// What an honest server says to a request.
pub(crate) fn honest(method: &str, message: &Value, greets: bool) -> Vec<Value> {
    let id = &message["id"];
    let answer = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
    let fleeting = |mut result: Value| {
        result["ttlMs"] = 0.into();
        result["cacheScope"] = "private".into();
        result["resultType"] = "complete".into();
        vec![answer(result)]
    };
    let can = json!({"tools": {}, "resources": {"subscribe": true}});
    match method {
        "initialize" => {
            let (version, name) = (&message["params"]["protocolVersion"], json!({"name": "process", "version": "1"}));
            vec![answer(json!({"protocolVersion": version, "capabilities": can, "serverInfo": name}))]
        }
        "server/discover" => fleeting(json!({"supportedVersions": [testkit::MODERN], "capabilities": can})),
        "tools/list" => fleeting(json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})),
        "prompts/list" => fleeting(json!({"prompts": []})),
        "resources/list" => fleeting(json!({"resources": []})),
        "resources/templates/list" => fleeting(json!({"resourceTemplates": []})),
        "tools/call" => vec![answer(json!({"content": [], "resultType": "complete"}))],
        "subscriptions/listen" => vec![told(id, acknowledged()), told(id, updated())],
        "resources/subscribe" if greets => vec![answer(json!({})), updated()],
        _ => vec![answer(json!({}))],
    }
}

/// What the process itself does, if this is one: passes everything on, until either side ends.
#[expect(clippy::disallowed_methods, reason = "the gateway says through the environment what this process is")]
pub(crate) fn be_one() {
    let Ok(at) = std::env::var(AT) else { return };
    let mut socket = std::net::TcpStream::connect(at).expect("the test");
    writeln!(socket, "{}", rustix::process::getpgrp()).expect("the test");
    let mut said = BufReader::new(socket.try_clone().expect("a socket"));
    std::thread::spawn(move || {
        let _ended = std::io::copy(&mut std::io::stdin().lock(), &mut socket);
        std::process::exit(0);
    });
    let mut text = String::new();
    while said.read_line(&mut text).is_ok_and(|read| read > 0) {
        let mut out = std::io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            break;
        }
        text.clear();
    }
    std::process::exit(0);
}
