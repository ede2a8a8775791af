//! Mixed load with churn, in both eras and across them, for as long as one wants: memory must stay flat, and what is
//! counted must come back to zero. Says nothing about speed.

use crate::{
    churn::{self, Tally},
    compare::median,
    machine,
    setup::{self, Target},
    turn::{self, STEP, TURNS},
};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use testkit::Ask;
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
    /// Processes of servers, as the system counts them.
    processes: usize,
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
    let binary = std::path::absolute(&options.gateway)?;
    let folder = std::path::absolute(&options.folder)?;
    let mut soaked = setup::soak(&folder, &binary)?;
    setup::clear(&folder)?;
    let mortal = soaked.mortal.address;
    let (base, gateway) = {
        let target = soaked.stage.targets.first().context("a gateway")?;
        (base(target), Gateway { pid: target.pid(), metrics: target.metrics.context("where the metrics are")?, mortal })
    };
    let (is_over, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
    let (done, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // Once before anything is counted: a gateway that has served is what the end is compared with.
    for turn in 0..TURNS {
        turn::go(turn, &base, &tally).await?;
    }
    let before = look(&gateway).await?;
    print("begin", &before, 0, 0);

    let clients: Vec<_> = (0..options.clients)
        .map(|number| {
            let (base, is_over, tally) = (base.clone(), Arc::clone(&is_over), Arc::clone(&tally));
            let (done, failed) = (Arc::clone(&done), Arc::clone(&failed));
            let pause = Duration::from_secs(1) / options.rate.max(1);
            tokio::spawn(async move {
                let mut turns = interval(pause);
                turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut turn = number * 3;
                while !is_over.load(Ordering::Relaxed) {
                    turns.tick().await;
                    if let Err(fault) = turn::go(turn, &base, &tally).await {
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
    let (sights, wrong) = tokio::join!(
        async {
            let sights = watch(&gateway, lasting, &done, &failed).await;
            is_over.store(true, Ordering::Relaxed);
            sights
        },
        churn::go(&mut soaked, &binary, &base, &is_over, &tally)
    );
    for client in clients {
        client.await?;
    }
    failed.fetch_add(wrong, Ordering::Relaxed);
    println!("   churn: {}", tally.words());
    let steps = (done.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    judge(&gateway, &before, &sights?, lasting, steps).await?;
    tally.is_whole()
}

/// Where to look.
struct Gateway {
    pid: u32,
    metrics: SocketAddr,
    mortal: SocketAddr,
}

/// Looks at the gateway for as long as it is loaded.
async fn watch(gateway: &Gateway, lasting: Duration, done: &AtomicUsize, failed: &AtomicUsize) -> Result<Vec<Sight>> {
    let (begun, mut sights, mut said) = (Instant::now(), Vec::new(), Instant::now());
    let pause = (lasting / 40).clamp(Duration::from_millis(250), Duration::from_secs(10));
    while begun.elapsed() < lasting {
        sleep(pause).await;
        let sight = look(gateway).await?;
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
    gateway: &Gateway,
    before: &Sight,
    sights: &[Sight],
    lasting: Duration,
    (done, failed): (usize, usize),
) -> Result<()> {
    let begun = Instant::now();
    let after = loop {
        let after = look(gateway).await?;
        let is_back = after.counts.iter().all(|count| *count == 0.0) && after.processes == 0 && after.is_small(before);
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
    ensure!(after.processes == 0, "{} processes of servers are left", after.processes);
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

async fn look(gateway: &Gateway) -> Result<Sight> {
    let metrics = format!("http://{}/metrics", gateway.metrics);
    let text = timeout(STEP, async { Ask::get(&metrics).send().await.text().await }).await?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).with_context(|| format!("no metric {name}"))
    };
    Ok(Sight {
        resident: machine::resident(gateway.pid)?,
        open_files: fs::read_dir(Path::new("/proc").join(gateway.pid.to_string()).join("fd"))?.count(),
        counts: COUNTS.iter().map(|name| value(name)).collect::<Result<_>>()?,
        processes: churn::processes(gateway.mortal)?,
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
        "{when:>8}: {:.1} MiB, {} files, {} tasks, {} processes, {}; {done} steps done, {failed} failed",
        sight.resident,
        sight.open_files,
        sight.tasks,
        sight.processes,
        counts.join(", ")
    );
}
