//! Where a call's time goes: CPU by thread, as the kernel counts it, and the clock from stage to stage, as the gateway's
//! own records tell it. All on one core, one call in flight.

use crate::{
    compare::{Scenario, measure},
    machine,
    message::{Era, Question},
    setup::{self, Stage, Target, Way},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// What this scenario is called.
pub(crate) const NAME: &str = "where it goes";

/// How many records are looked at.
const RECORDS: usize = 2_000;

/// The line, in its order; what a record does not name comes after it.
const STAGES: [&str; 11] = [
    "authenticate",
    "resolve",
    "limit",
    "validate",
    "screen",
    "authorize",
    "settle",
    "intend",
    "inject",
    "forward",
    "release",
];

/// Microseconds of a call by name, of one target.
type Places = BTreeMap<String, f64>;

/// Measures each gateway once and prints where its calls' time went.
pub(crate) fn run(stage: &Stage, folder: &Path, gateway: &Path, seconds: f64) -> Result<()> {
    let scenario = Scenario {
        name: NAME.to_owned(),
        era: Era::Modern,
        way: Way::Json,
        question: Question::Echo(100),
        connections: 1,
        is_serial: true,
    };
    let targets: Vec<_> = stage.of(Way::Json).into_iter().filter(|target| target.is_gateway).collect();
    let (mut threads, mut clocks) = (Vec::new(), Vec::new());
    for target in &targets {
        threads.push(cpu(stage, target, &scenario, seconds)?);
        clocks.push(clock(&setup::folder_of(folder, target.name), gateway)?);
    }
    println!("\n{NAME}: serial json {}, microseconds of a call", Era::Modern.version());
    print("CPU by thread", &targets, &threads, names(&threads, |_| true));
    let line = STAGES.map(str::to_owned).into_iter().collect();
    print("the clock, stage by stage", &targets, &clocks, line);
    print("", &targets, &clocks, names(&clocks, |name| !STAGES.contains(&name)));
    Ok(())
}

/// Each thread's share of what a call costs.
fn cpu(stage: &Stage, target: &Target, scenario: &Scenario, seconds: f64) -> Result<Places> {
    let before = machine::threads(target.pid())?;
    let sample = measure(stage, target, scenario, seconds)?;
    let mut spent: Vec<(String, f64)> = Vec::new();
    for (thread, after) in machine::threads(target.pid())? {
        let begun = before.get(&thread).cloned().unwrap_or_default();
        spent.push((format!("{}, in the program", after.name), after.user - begun.user));
        spent.push((format!("{}, in the kernel", after.name), after.system - begun.system));
    }
    let all: f64 = spent.iter().map(|(_, spent)| spent).sum();
    ensure!(all > 0.0, "{} was measured for so short a time that no CPU was counted", target.name);
    let mut places = Places::new();
    for (name, spent) in spent.into_iter().filter(|(_, spent)| *spent > 0.0) {
        *places.entry(name).or_default() += spent / all * sample.cpu;
    }
    Ok(places)
}

/// The mean time of each stage in the newest records. Single times are whole microseconds of one running clock, so that
/// their means are finer.
fn clock(folder: &Path, gateway: &Path) -> Result<Places> {
    let told = setup::output(
        setup::program(gateway)
            .args(["audit", "tail", "--output", "json", "--lines", &RECORDS.to_string(), "--data", "data"])
            .current_dir(folder),
    )?;
    let records: Vec<Value> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    // An intent knows no durations yet.
    let is_closed = |record: &&Value| record["method"] == "tools/call" && record["duration_us"].is_number();
    let calls: Vec<&Value> = records.iter().map(|line| &line["record"]).filter(is_closed).collect();
    ensure!(!calls.is_empty(), "the log in {} has no calls", folder.display());
    let count = f64::from(u32::try_from(calls.len())?);
    let mut places = Places::new();
    for call in calls {
        let stages = call["stages"].as_object().context("a record without stages")?;
        let mut left = call["duration_us"].as_f64().context("a record without a duration")?;
        for (stage, took) in stages {
            let took = took.as_f64().context("a stage without a time")?;
            *places.entry(stage.clone()).or_default() += took / count;
            left -= took;
        }
        *places.entry("after it".to_owned()).or_default() += left / count;
        *places.entry("altogether".to_owned()).or_default() += call["duration_us"].as_f64().unwrap_or(f64::NAN) / count;
    }
    Ok(places)
}

fn names(places: &[Places], of: impl Fn(&str) -> bool) -> Vec<String> {
    let mut names: Vec<String> = places.iter().flat_map(BTreeMap::keys).filter(|name| of(name)).cloned().collect();
    names.sort();
    names.dedup();
    names
}

fn print(title: &str, targets: &[&Target], places: &[Places], names: Vec<String>) {
    if !title.is_empty() {
        print!("  {title:32}");
        for target in targets {
            print!(" {:>15}", target.name);
        }
        println!();
    }
    for name in names {
        print!("    {name:30}");
        for places in places {
            print!(" {:15.1}", places.get(&name).copied().unwrap_or_default());
        }
        println!();
    }
}
