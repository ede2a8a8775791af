//! Mixed load with churn, in both eras and across them, for as long as one wants: memory must stay flat, and what is
//! counted must come back to zero. Says nothing about speed.

use crate::{
    compare::median,
    machine,
    setup::{self, Stage, Target},
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use testkit::{Agent, Ask, Reply};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// What must be zero once nobody calls any more.
const COUNTS: [&str; 6] = [
    "durward_calls_active",
    "durward_sessions",
    "durward_streams",
    "durward_bridge_sessions",
    "durward_bridge_parked",
    "durward_children",
];
/// How much more memory the last quarter may take than the second: the first warms up.
const GROWTH: f64 = 1.1;
/// Memory is judged after as long as this: before, caches still fill.
const LONG: Duration = Duration::from_mins(5);
/// How long a call waits in the gateway for a client that was asked something and left.
const PARKED: Duration = Duration::from_mins(5);
/// How long counts may take to come back, beyond the time that calls and idle sessions are kept.
const SETTLE: Duration = Duration::from_mins(1);
/// How often, at most, a question is left without an answer: a principal has room for sixteen calls that wait, and the
/// clients, who are one, have questions of their own.
const LEAVES: Duration = Duration::from_mins(1);
/// How long one step may take. Nothing here waits for more than an answer.
const STEP: Duration = Duration::from_secs(20);
/// How many servers and clients there are besides: so many files come and go, and so many tasks.
const OTHERS: usize = 32;
const OTHER_TASKS: f64 = 32.0;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The gateway
    #[arg(long, default_value = "target/dist/durward")]
    gateway: PathBuf,
    /// How long it is loaded, in minutes
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Clients at one time
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// What each client begins in a second, at most
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// Where logs and data go
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
}

/// What was seen at one moment.
struct Sight {
    resident: f64,
    open_files: usize,
    counts: Vec<f64>,
    /// Tasks, without those of connections to servers, which may be kept.
    tasks: f64,
}

impl Sight {
    /// Whether there are no more files and tasks than there were.
    fn is_small(&self, before: &Self) -> bool {
        self.open_files <= before.open_files + OTHERS && self.tasks <= before.tasks + OTHER_TASKS
    }
}

pub(crate) async fn run(options: Options) -> Result<()> {
    let stage = setup::soak(&std::path::absolute(&options.folder)?, &std::path::absolute(&options.gateway)?)?;
    let target = stage.targets.first().context("a gateway")?;
    let is_over = Arc::new(AtomicBool::new(false));
    let (done, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // Once before anything is counted: a gateway that has served is what the end is compared with.
    for turn in 0..TURNS {
        turn_of(turn, &base(target)).await?;
    }
    let before = look(target).await?;
    print("begin", &before, 0, 0);

    let clients: Vec<_> = (0..options.clients)
        .map(|number| {
            let (base, is_over) = (base(target), Arc::clone(&is_over));
            let (done, failed) = (Arc::clone(&done), Arc::clone(&failed));
            let pause = Duration::from_secs(1) / options.rate.max(1);
            tokio::spawn(async move {
                let mut turns = interval(pause);
                turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut turn = number * 3;
                while !is_over.load(Ordering::Relaxed) {
                    turns.tick().await;
                    if let Err(fault) = turn_of(turn, &base).await {
                        eprintln!("client {number}, turn {}: {fault:#}", turn % TURNS);
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    turn += 1;
                }
            })
        })
        .collect();
    let lasting = Duration::from_secs_f64(options.minutes * 60.0);
    let sights = watch(target, lasting, &done, &failed).await?;
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?;
    }
    judge(&stage, &before, &sights, lasting, (done.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))).await
}

/// Looks at the gateway for as long as it is loaded.
async fn watch(target: &Target, lasting: Duration, done: &AtomicUsize, failed: &AtomicUsize) -> Result<Vec<Sight>> {
    let (begun, mut sights, mut said) = (Instant::now(), Vec::new(), Instant::now());
    let pause = (lasting / 40).clamp(Duration::from_millis(250), Duration::from_secs(10));
    while begun.elapsed() < lasting {
        sleep(pause).await;
        let sight = look(target).await?;
        if said.elapsed() > Duration::from_mins(1) {
            said = Instant::now();
            let minute = format!("{} min", begun.elapsed().as_secs() / 60);
            print(&minute, &sight, done.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
        }
        sights.push(sight);
    }
    Ok(sights)
}

/// Whether memory was flat and everything came back.
async fn judge(
    stage: &Stage,
    before: &Sight,
    sights: &[Sight],
    lasting: Duration,
    (done, failed): (usize, usize),
) -> Result<()> {
    let target = stage.targets.first().context("a gateway")?;
    let begun = Instant::now();
    let after = loop {
        let after = look(target).await?;
        let is_back = after.counts.iter().all(|count| *count == 0.0) && after.is_small(before);
        if is_back || begun.elapsed() > PARKED.max(setup::SESSION_IDLE) + SETTLE {
            break after;
        }
        sleep(Duration::from_secs(1)).await;
    };
    print("end", &after, done, failed);
    let quarter = sights.len() / 4;
    let middle = |sights: &[Sight]| median(sights.iter().map(|sight| sight.resident));
    let second = middle(sights.get(quarter..quarter * 2).unwrap_or_default());
    let last = middle(sights.get(quarter * 3..).unwrap_or_default());
    println!("memory: {second:.1} MiB in the second quarter, {last:.1} MiB in the last ({:.2} x)", last / second);
    ensure!(failed == 0, "{failed} steps failed");
    for (name, count) in COUNTS.iter().zip(&after.counts) {
        ensure!(*count == 0.0, "{name} is {count} once nobody calls any more");
    }
    ensure!(
        after.is_small(before),
        "{} files are open and {} tasks run; {} and {} before",
        after.open_files,
        after.tasks,
        before.open_files,
        before.tasks
    );
    ensure!(lasting < LONG || last <= second * GROWTH, "memory grew by more than {GROWTH} x");
    Ok(())
}

fn base(target: &Target) -> String {
    format!("http://{}", target.address)
}

async fn look(target: &Target) -> Result<Sight> {
    let metrics = target.metrics.context("where the metrics are")?;
    let text = timeout(STEP, Ask::get(&format!("http://{metrics}/metrics")).send()).await?.text().await;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).with_context(|| format!("no metric {name}"))
    };
    Ok(Sight {
        resident: machine::resident(target.pid())?,
        open_files: fs::read_dir(Path::new("/proc").join(target.pid().to_string()).join("fd"))?.count(),
        counts: COUNTS.iter().map(|name| value(name)).collect::<Result<_>>()?,
        tasks: value("durward_tasks")? - value("durward_connections")?,
    })
}

fn print(when: &str, sight: &Sight, done: usize, failed: usize) {
    let counts: Vec<String> = COUNTS
        .iter()
        .zip(&sight.counts)
        .map(|(name, count)| format!("{} {count}", name.trim_start_matches("durward_")))
        .collect();
    println!(
        "{when:>8}: {:.1} MiB, {} files, {} tasks, {}; {done} steps done, {failed} failed",
        sight.resident,
        sight.open_files,
        sight.tasks,
        counts.join(", ")
    );
}

/// How many different turns there are.
const TURNS: usize = 12;

/// One thing that a client does.
async fn turn_of(turn: usize, base: &str) -> Result<()> {
    timeout(STEP, step(turn % TURNS, base)).await.context("it takes too long")?
}

async fn step(turn: usize, base: &str) -> Result<()> {
    let modern = |path: &str| Agent::modern(&format!("{base}{path}"), None);
    let url = |path: &str| format!("{base}{path}");
    match turn {
        // Calls of each era, and across.
        0 => called(&modern("/mcp/json"), "echo").await,
        1 => called(&modern("/mcp/legacy"), "echo").await,
        2 => session(&Agent::legacy(&url("/mcp/json"), None).await, "echo").await,
        3 => session(&Agent::legacy(&url("/mcp/modern"), None).await, "echo").await,
        // Everything at once, with a stream that is left open when the session ends.
        4 => {
            let agent = Agent::legacy(&url("/mcp"), None).await;
            let stream = agent.listen().await;
            called(&agent, "events__echo").await?;
            drop(stream);
            session(&agent, "json__echo").await
        }
        // Whoever goes without a word.
        5 => {
            let agent = Agent::legacy(&url("/mcp"), None).await;
            drop(agent.listen().await);
            called(&agent, "modern__echo").await
        }
        6 => {
            let listen = json!({"notifications": {"toolsListChanged": true}});
            drop(modern("/mcp").request("subscriptions/listen", listen).await);
            Ok(())
        }
        // A stream that is left in the middle.
        7 => {
            let mut stream = streamed(&modern("/mcp/json")).await;
            ensure!(stream.event().await.is_some(), "no event");
            drop(stream);
            Ok(())
        }
        8 => {
            let agent = Agent::legacy(&url("/mcp/json"), None).await;
            let mut stream = streamed(&agent).await;
            ensure!(stream.event().await.is_some(), "no event");
            drop(stream);
            left(&agent).await
        }
        // A server that asks over the bridge, and is answered; or its client goes and never comes back.
        10 if may_leave() => asked(&modern("/mcp/legacy")).await.map(drop),
        9 | 10 => answered(&modern("/mcp/legacy")).await,
        // A process of its own.
        _ => {
            let agent = Agent::legacy(&url("/mcp/pipe"), None).await;
            ensure!(!agent.tools().await.is_empty(), "no tools");
            left(&agent).await
        }
    }
}

async fn session(agent: &Agent, tool: &str) -> Result<()> {
    ensure!(!agent.tools().await.is_empty(), "no tools");
    called(agent, tool).await?;
    left(agent).await
}

async fn left(agent: &Agent) -> Result<()> {
    let status = agent.leave().await.status;
    // A server need not let its sessions be ended; then they end when they have been idle long enough.
    ensure!(status.is_success() || status == 405, "the session was left with {status}");
    Ok(())
}

async fn called(agent: &Agent, tool: &str) -> Result<()> {
    let answer = agent.call(tool, json!({"text": "a"})).await;
    match answer.pointer("/result/content/0/text").and_then(Value::as_str) {
        Some("a") => Ok(()),
        _ => bail!("{tool}: {answer}"),
    }
}

/// Calls a tool that asks first, and gives the question: what the client gets in place of an answer.
async fn asked(agent: &Agent) -> Result<Value> {
    let answer = agent.call("ask", json!({"text": "a"})).await;
    let is_question = answer.pointer("/result/resultType").is_some_and(|kind| kind == "input_required");
    ensure!(is_question, "no question: {answer}");
    Ok(answer)
}

/// The same, and answers.
async fn answered(agent: &Agent) -> Result<()> {
    let question = asked(agent).await?;
    let requests = question.pointer("/result/inputRequests").and_then(Value::as_object);
    let name = requests.and_then(|requests| requests.keys().next()).context("nothing is asked")?;
    let said = json!({"action": "accept", "content": {"name": "a"}});
    let state = question.pointer("/result/requestState");
    let again =
        json!({"name": "ask", "arguments": {"text": "a"}, "requestState": state, "inputResponses": {name: said}});
    let answer = agent.request("tools/call", again).await.json().await;
    match answer.pointer("/result/content/0/text").and_then(Value::as_str) {
        Some("answered") => Ok(()),
        _ => bail!("ask: {answer}"),
    }
}

/// Whether the last question that was left without an answer is long enough ago, or the beginning: a call that waits for
/// its client is given up after minutes, which a short run need not wait for.
fn may_leave() -> bool {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let is_time = last.get_or_insert_with(Instant::now).elapsed() > LEAVES;
    if is_time {
        *last = Some(Instant::now());
    }
    is_time
}

async fn streamed(agent: &Agent) -> Reply {
    agent.request("tools/call", json!({"name": "stream", "arguments": {"events": 5}})).await
}
