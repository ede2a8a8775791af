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
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What this scenario is called.
pub(crate) const NAME: &str = "where it goes";

/// How many records are looked at.
const RECORDS: usize = 2_000;

/// How often the log is looked at until so many are of this scenario, every half second: a slow disk still writes those
/// of the one before.
const LOOKS: usize = 20;

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
        let begun = now()?;
        threads.push(cpu(stage, target, &scenario, seconds)?);
        let own = setup::folder_of(folder, target.name);
        clocks.push(clock(&recorded(&own, gateway, begun)?).with_context(|| format!("the log in {}", own.display()))?);
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

/// Microseconds of the wall clock, as records have them.
#[expect(clippy::disallowed_methods, reason = "records tell when they began by this clock")]
fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}

/// The newest records of what has begun since, as soon as there are as many as are looked at.
fn recorded(folder: &Path, gateway: &Path, begun: u64) -> Result<Vec<Value>> {
    let mut looks = 1..=LOOKS;
    loop {
        let told = setup::output(
            setup::program(gateway)
                .args(["audit", "tail", "--output", "json", "--lines", &RECORDS.to_string(), "--data", "data"])
                .current_dir(folder),
        )?;
        let newest: Vec<Value> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let count = newest.len();
        let own = since(newest, begun);
        if own.len() == count || looks.next().is_none() {
            return Ok(own);
        }
        std::thread::park_timeout(Duration::from_millis(500));
    }
}

/// The records of what has begun since.
fn since(lines: Vec<Value>, begun: u64) -> Vec<Value> {
    let records = lines.into_iter().filter_map(|mut line| Some(line.get_mut("record")?.take()));
    records.filter(|record| record["at"].as_u64().is_some_and(|at| at >= begun)).collect()
}

/// The mean time of each stage in these records. Single times are whole microseconds of one running clock, so that their
/// means are finer.
fn clock(records: &[Value]) -> Result<Places> {
    // An intent knows no durations yet.
    let is_closed = |record: &&Value| record["method"] == "tools/call" && record["duration_us"].is_number();
    let calls: Vec<&Value> = records.iter().filter(is_closed).collect();
    ensure!(!calls.is_empty(), "it has no call of this scenario");
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

#[cfg(test)]
mod tests {
    use super::{clock, since};
    use serde_json::{Value, json};

    fn line(at: u64, record: &Value) -> Value {
        let mut record = record.clone();
        record["at"] = at.into();
        json!({ "kind": "call", "record": record })
    }

    #[test]
    fn calls_of_the_scenario_before_do_not_count() {
        let call = |forward: u64| json!({ "method": "tools/call", "duration_us": forward + 10, "stages": { "limit": 4, "forward": forward } });
        let intent = json!({ "method": "tools/call" });
        let list = json!({ "method": "tools/list", "duration_us": 5000, "stages": { "forward": 5000 } });
        let lines = vec![
            line(998, &call(9_000)),
            line(999, &call(9_000)),
            line(1_000, &intent),
            line(1_000, &call(100)),
            line(1_001, &list),
            line(1_002, &call(300)),
        ];
        let records = since(lines.clone(), 1_000);
        assert_eq!(records.len(), 4);
        let places = clock(&records).unwrap();
        let mean = |name: &str| places.get(name).copied().unwrap();
        let means = ["limit", "forward", "after it", "altogether"].map(mean);
        for (mean, expected) in means.into_iter().zip([4.0, 200.0, 6.0, 210.0]) {
            assert!((mean - expected).abs() < 1e-6, "{means:?}");
        }
        // A log that is far behind is no measurement.
        assert!(clock(&since(lines, 1_003)).is_err());
    }
}
