//! Servers that are processes, played by the test: each passes what it hears and says through a socket.

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
use testkit::soon;
use tokio::sync::watch;

/// Where the process finds the test.
const AT: &str = "DURWARD_FAULTS_AT";

/// All processes of one server.
pub(crate) struct Processes {
    pub(crate) era: &'static str,
    at: std::net::SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Those that began and may run yet.
    began: Mutex<Vec<Began>>,
    /// Whoever begins ends at once.
    is_dead: AtomicBool,
    /// Calls that wait for the test to answer them, with the process that they came to.
    calls: watch::Sender<Vec<(Value, Line)>>,
    /// How many answers to questions have come.
    answers: watch::Sender<usize>,
    /// The process that began last.
    newest: Mutex<Option<Line>>,
}

/// One process.
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
    pub(crate) async fn start(era: &'static str) -> Self {
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
        Self { era, at, shared }
    }

    /// Its line in the configuration.
    pub(crate) fn line(&self, name: &str) -> String {
        let program = std::env::current_exe().expect("this program");
        let (program, at, era) = (program.display(), self.at, self.era);
        format!(
            "  {name}: {{ command: [\"{program}\", --exact, the_process_itself, --nocapture], env: {{ {AT}: \"{at}\" }}, era: {era} }}\n"
        )
    }

    /// Waits for the call with this number, from 1.
    pub(crate) async fn called(&self, count: usize) -> (Value, Line) {
        let mut calls = self.shared.calls.subscribe();
        let calls = soon(calls.wait_for(|calls| calls.len() >= count)).await.expect("somebody listens");
        calls.get(count - 1).cloned().expect("it came")
    }

    /// How many questions were answered, as it changes.
    pub(crate) fn answers(&self) -> watch::Receiver<usize> {
        self.shared.answers.subscribe()
    }

    /// The process that began last, which is that of the newest session.
    pub(crate) fn newest(&self) -> Line {
        self.shared.newest.lock().expect("nobody failed").clone().expect("one began")
    }

    /// Kills them all, and each that begins from now on.
    pub(crate) fn kill(&self) {
        self.shared.is_dead.store(true, Ordering::SeqCst);
        for began in self.shared.began.lock().expect("nobody failed").iter().filter(|began| began.is_there()) {
            let pid = rustix::process::Pid::from_raw(began.pid).expect("a process");
            // One that has ended meanwhile needs no killing.
            let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
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
    *shared.newest.lock().expect("nobody failed") = Some(line.clone());
    for text in lines {
        let Ok(message) = serde_json::from_str::<Value>(&text) else { continue };
        if message["method"].is_null() {
            shared.answers.send_modify(|answers| *answers += 1);
            continue;
        }
        let honest = match message["method"].as_str() {
            Some("tools/call") if message["params"]["arguments"]["n"].is_null() => {
                shared.calls.send_modify(|calls| calls.push((message.clone(), line.clone())));
                continue;
            }
            Some("initialize") => json!({"protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}}, "serverInfo": {"name": "process", "version": "1"}}),
            Some("server/discover") => json!({"supportedVersions": [testkit::MODERN], "capabilities": {"tools": {}},
                "ttlMs": 0, "cacheScope": "private", "resultType": "complete"}),
            Some("tools/list") => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}], "ttlMs": 0,
                "cacheScope": "private", "resultType": "complete"}),
            _ => json!({"content": [], "resultType": "complete"}),
        };
        if !message["id"].is_null() {
            line.say(&json!({"jsonrpc": "2.0", "id": message["id"], "result": honest}));
        }
    }
}

/// What the process itself does, if this is one: passes everything on, until either side ends.
#[expect(clippy::disallowed_methods, reason = "the gateway says through the environment what this process is")]
pub(crate) fn be_one() {
    let Ok(at) = std::env::var(AT) else { return };
    let mut socket = std::net::TcpStream::connect(at).expect("the test");
    writeln!(socket, "{}", std::process::id()).expect("the test");
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
