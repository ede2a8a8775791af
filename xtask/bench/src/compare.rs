//! Rounds of A B C D, A B C D …, so that a slow minute of the machine hits all. Differences and ratios are formed
//! inside each round; what is printed is their median.

use crate::{
    bars::{self, Fact},
    bridged,
    load::{self, Load, Outcome, quantile},
    machine,
    message::{Era, Question},
    places,
    setup::{self, ERAS, Stage, Target, Way},
};
use anyhow::{Context, Result, ensure};
use std::{
    cell::Cell,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The gateway; without it only the server and the bare proxy are measured
    #[arg(long, default_value = "target/dist/durward")]
    gateway: PathBuf,
    /// Measures no gateway
    #[arg(long)]
    without_gateway: bool,
    /// How many rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// A short look: one round of half a second
    #[arg(long, visible_alias = "once")]
    quick: bool,
    /// Only scenarios whose names contain this
    #[arg(long)]
    only: Option<String>,
    /// Measures the gateway with every call on disk before it leaves, too
    #[arg(long)]
    strict: bool,
    /// Fails where a bar is missed
    #[arg(long)]
    gate: bool,
    /// The factor by which a bar may be missed: for builds and machines other than those that the bars are for
    #[arg(long, default_value_t = 1.0, requires = "gate")]
    slack: f64,
    /// Where logs and data of the measured programs go
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
}

/// What is done to every target.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) era: Era,
    pub(crate) way: Way,
    pub(crate) question: Question,
    pub(crate) connections: usize,
    /// Everything on one core: no wake-ups between cores, so what is left is the length of the path.
    pub(crate) is_serial: bool,
}

/// One target in one round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) first: f64,
    pub(crate) cpu: f64,
    pub(crate) resident: f64,
}

/// How long the disk is left alone before anything is measured.
const REST: Duration = Duration::from_secs(20);

pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = std::path::absolute(&options.folder)?;
    let gateway = std::path::absolute(&options.gateway)?;
    let gateway = (!options.without_gateway).then_some(gateway.as_path());
    let (rounds, seconds) = if options.quick { (1, 0.5) } else { (options.rounds, options.seconds) };
    if !options.quick {
        rest()?;
    }
    let mut facts = gateway.map_or_else(|| Ok(Vec::new()), |gateway| idle(&folder, gateway))?;
    let stage = setup::start(&folder, gateway, options.strict)?;
    for scenario in scenarios() {
        if options.only.as_ref().is_some_and(|only| !scenario.name.contains(only.as_str())) {
            continue;
        }
        let targets = stage.of(scenario.way);
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); targets.len()];
        for _ in 0..rounds {
            for (target, samples) in targets.iter().zip(&mut samples) {
                let sample = measure(&stage, target, &scenario, seconds);
                samples.push(sample.with_context(|| format!("{} in {}", target.name, scenario.name))?);
            }
        }
        facts.extend(print(&scenario, &targets, &samples));
    }
    if options.only.as_ref().is_none_or(|only| bridged::NAME.contains(only.as_str())) {
        facts.extend(bridged::run(&stage, rounds, seconds)?);
    }
    if let Some(gateway) = gateway
        && options.only.as_ref().is_none_or(|only| places::NAME.contains(only.as_str()))
    {
        places::run(&stage, &folder, gateway, f64::max(seconds, 1.0))?;
    }
    drop(stage);
    setup::clear(&folder)?;
    let missed = bars::print(&facts, gateway.is_some() && options.only.is_none(), options.slack);
    ensure!(!options.gate || missed == 0, "{missed} bars are missed");
    Ok(())
}

/// Lets the system bring to disk what was written before: that slows down whoever writes meanwhile, and the log does.
fn rest() -> Result<()> {
    println!("waits {} s for the disk to come to rest", REST.as_secs());
    let synced = setup::program("sync".as_ref()).status().context("cannot start `sync`")?;
    ensure!(synced.success(), "`sync` ended with {synced}");
    thread::sleep(REST);
    Ok(())
}

/// What gateways hold before one server of 50 tools, each listed and called, when nobody asks any more.
fn idle(folder: &Path, gateway: &Path) -> Result<Vec<Fact>> {
    let stage = setup::small(folder, gateway)?;
    let used = Scenario {
        name: "idle".to_owned(),
        era: Era::Modern,
        way: Way::Json,
        question: Question::List(50),
        connections: 1,
        is_serial: false,
    };
    let called = Scenario { question: Question::Echo(100), ..used.clone() };
    let resident = |target: &Target| {
        measure(&stage, target, &used, 0.1)?;
        let resident = measure(&stage, target, &called, 0.1)?.resident;
        println!("  {:16} idle {resident:9.1} MiB", target.name);
        Ok(Fact::idle(target.name, resident))
    };
    stage.targets.iter().map(resident).collect()
}

impl Stage {
    pub(crate) fn of(&self, way: Way) -> Vec<&Target> {
        let gateways = self.targets.iter().filter(|target| target.is_gateway);
        match way {
            Way::Long => self.long.iter().chain(gateways).collect(),
            Way::Json | Way::Events => self.targets.iter().collect(),
            Way::Across(_) => gateways.collect(),
        }
    }
}

fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    let mut add = |name: &str, era: Era, way, question, connections, is_serial| {
        let name = format!("{name} {}", era.version());
        scenarios.push(Scenario { name, era, way, question, connections, is_serial });
    };
    for era in ERAS {
        add("serial json", era, Way::Json, Question::Echo(100), 1, true);
        add("serial events", era, Way::Events, Question::Echo(100), 1, true);
    }
    for era in ERAS {
        for connections in [8, 32, 256] {
            add(&format!("{connections} json"), era, Way::Json, Question::Echo(100), connections, false);
            add(&format!("{connections} events"), era, Way::Events, Question::Echo(100), connections, false);
        }
    }
    add("10 KB serial", Era::Modern, Way::Json, Question::Sized(10_000), 1, true);
    add("first event", Era::Modern, Way::Json, Question::Stream(3), 4, false);
    add("list of 1000", Era::Modern, Way::Long, Question::List(1_000), 1, true);
    scenarios
}

/// Core 0 carries what is measured; load and server share core 1, or core 0 too where the scenario is serial.
pub(crate) fn measure(stage: &Stage, target: &Target, scenario: &Scenario, seconds: f64) -> Result<Sample> {
    let others = usize::from(!scenario.is_serial && thread::available_parallelism()?.get() > 1);
    machine::pin(target.pid(), 0)?;
    for upstream in &stage.upstreams {
        machine::pin(upstream.pid(), others)?;
    }
    let load = Load {
        address: target.address,
        path: target.path(scenario.way),
        token: target.token.clone(),
        era: scenario.era,
        question: scenario.question,
        connections: scenario.connections,
        warmup: Duration::from_secs_f64((seconds / 4.0).min(0.5)),
        window: Duration::from_secs_f64(seconds),
    };
    let pid = target.pid();
    // A thread of its own, so that its core is its own affair.
    let (outcome, spent) = thread::scope(|scope| {
        scope
            .spawn(|| -> Result<(Outcome, f64)> {
                machine::pin_self(others)?;
                let (before, after) = (Cell::new(0.0), Cell::new(0.0));
                let note = |cell: &Cell<f64>| cell.set(machine::cpu(pid).unwrap_or(f64::NAN));
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let outcome = runtime.block_on(load::run(&load, || note(&before), || note(&after)))?;
                Ok((outcome, after.get() - before.get()))
            })
            .join()
    })
    .map_err(|_panic| anyhow::anyhow!("the load generator panicked"))??;
    Ok(Sample {
        rate: outcome.rate(),
        p50: outcome.time(500),
        p99: outcome.time(990),
        first: outcome.first_byte(500),
        cpu: spent / f64::from(outcome.calls),
        resident: machine::resident(pid)?,
    })
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    quantile(&values, 500)
}

/// The first target is direct, the second the bare proxy.
fn print(scenario: &Scenario, targets: &[&Target], samples: &[Vec<Sample>]) -> Vec<Fact> {
    let [direct, bare, ..] = samples else { return Vec::new() };
    println!("\n{}", scenario.name);
    println!(
        "  {:16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>8} {:>7}",
        "", "calls/s", "p50 us", "p99 us", "+p50 us", "+p99 us", "cpu/call", "x bare", "MiB"
    );
    let mut facts = Vec::new();
    for (target, own) in targets.iter().zip(samples) {
        let paired = |of: fn(&Sample, &Sample) -> f64, to: &[Sample]| median(own.iter().zip(to).map(|(a, b)| of(a, b)));
        let added = paired(|own, direct| own.p50 - direct.p50, direct);
        let bare_added = median(bare.iter().zip(direct).map(|(bare, direct)| bare.p50 - direct.p50));
        let cpu_ratio = paired(|own, bare| own.cpu / bare.cpu, bare);
        println!(
            "  {:16} {:9.0} {:9.1} {:9.1} {:9.1} {:9.1} {:10.1} {:8.2} {:7.1}",
            target.name,
            median(own.iter().map(|sample| sample.rate)),
            median(own.iter().map(|sample| sample.p50)),
            median(own.iter().map(|sample| sample.p99)),
            added,
            paired(|own, direct| own.p99 - direct.p99, direct),
            median(own.iter().map(|sample| sample.cpu)),
            cpu_ratio,
            median(own.iter().map(|sample| sample.resident)),
        );
        if target.is_gateway {
            facts.push(Fact {
                cpu_ratio,
                added_ratio: added / bare_added,
                rate_ratio: paired(|own, bare| own.rate / bare.rate, bare),
                first_event: paired(|own, direct| own.first - direct.first, direct),
                ..Fact::none(target.name, scenario.name.clone())
            });
        }
    }
    facts
}
