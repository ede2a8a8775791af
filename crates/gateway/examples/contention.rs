//! What the two shared things of the decision cost, and how they share two cores: limits with ten thousand keys, and a
//! decision on the snapshot in force. `cargo run --release -p gateway --example contention`; `cargo xtask bench` ends
//! with it.

use arc_swap::ArcSwap;
use gateway::limit::{Allowance, LimitSetting, LimitSettings, Limits, Rate};
use policy::{Policies, Question, Resource, Source, Subject};
use serde_json::{Value, json};
use std::{
    error::Error,
    hint::black_box,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};
use vocab::{Action, Class, Digest, PrincipalId, ServerName, TargetId, TenantId, Timestamp};

/// Agents, each with buckets of its own.
const KEYS: usize = 10_000;
/// How long each figure is measured.
const LONG: Duration = Duration::from_secs(2);
/// Rules of the policy, as in `all controls` of the other measurements.
const RULES: usize = 100;
/// How many operations one reading of the clock covers where a single one is too short to be read.
const BATCH: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    limits()?;
    decisions()
}

/// The limit stage: one rule per agent and tool, one for the server as a whole, ten thousand agents.
fn limits() -> Result<(), Box<dyn Error>> {
    let allowance = Allowance { rate: Rate { count: u32::MAX, per: Duration::from_secs(1) }, burst: u32::MAX };
    let rule = |agent: Option<&str>, tool: Option<&str>, server: Option<&str>| LimitSetting {
        agent: agent.map(str::to_owned),
        tool: tool.map(str::to_owned),
        server: server.map(str::to_owned),
        tenant: None,
        allowance,
        concurrency: None,
    };
    let own = vec![rule(Some("*"), Some("*/*"), None)];
    let common = vec![rule(Some("*"), Some("*/*"), None), rule(None, None, Some("files"))];
    let callers = (0..KEYS).map(|number| principal(&format!("agent-{number}"))).collect::<Result<Vec<_>, _>>()?;
    let target = target("read")?;
    println!("\nlimit stage, {KEYS} keys      1 thread            2 threads           p50        p99");
    for (name, rules) in [("a bucket per agent and tool", own), ("and one for everybody", common)] {
        let settings = LimitSettings { rules, ..LimitSettings::default() };
        let limits = Limits::new(&settings, None).map_err(|faults| format!("{faults:?}"))?;
        let began = Instant::now();
        let take = |number: usize| {
            let now = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            // Strides of a prime: neighbours in time are no neighbours in the table.
            if let Some(caller) = callers.get(number.wrapping_mul(7919) % KEYS)
                && let Ok(slot) = limits.admit(caller, Action::ToolExecute, &target, now)
            {
                drop(black_box(slot.spend()));
            }
        };
        (0..KEYS).for_each(take);
        print(name, &take);
    }
    Ok(())
}

/// A decision: the snapshot's pointer, and a hundred rules.
fn decisions() -> Result<(), Box<dyn Error>> {
    let rules: Vec<Value> = (0..RULES)
        .map(|number| {
            let target = if number == 0 { "files/*".to_owned() } else { format!("other-{number}/*") };
            json!({"id": format!("r{number}"), "action": "tool.execute", "target": target, "effect": "allow"})
        })
        .collect();
    let text = json!({"policy": "bench", "rules": rules}).to_string();
    let policies =
        Policies::compile(&[Source { name: "bench.json".to_owned(), text }]).map_err(|faults| format!("{faults:?}"))?;
    let snapshot = ArcSwap::from_pointee(policies);
    let subject = Subject {
        id: principal("agent")?,
        roles: Vec::new(),
        groups: Vec::new(),
        scopes: Vec::new(),
        environments: Vec::new(),
    };
    let resource = Resource { id: target("read")?, environment: None, class: Class::Read, labels: Vec::new() };
    let arguments = json!({"path": "/tmp/a", "depth": 3});
    let digest = Digest::of(arguments.to_string().as_bytes());
    let decide = |_: usize| {
        // As the line does it: one load for the whole call.
        let policies = snapshot.load_full();
        let permit = policies.authorize(&Question {
            subject: &subject,
            action: Action::ToolExecute,
            resource: &resource,
            arguments: &arguments,
            digest,
            findings: &[],
            now: Timestamp::from_seconds(1_795_248_000),
        });
        drop(black_box(permit));
    };
    println!("\ndecision, {RULES} rules        1 thread            2 threads           p50        p99");
    print("one snapshot for all", &decide);
    Ok(())
}

fn print(name: &str, work: &(impl Fn(usize) + Sync)) {
    let (one, two) = (throughput(1, work), throughput(2, work));
    let (p50, p99) = quantiles(work);
    println!("{name:<28}{:>9.0}/s {:>12.0}/s = {:.2} x {p50:>8.0} ns {p99:>8.0} ns", one, two, two / one);
}

/// Operations per second of so many threads together.
fn throughput(threads: usize, work: &(impl Fn(usize) + Sync)) -> f64 {
    let ready = Barrier::new(threads);
    let total: f64 = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|thread| {
                let ready = &ready;
                scope.spawn(move || {
                    ready.wait();
                    let (began, mut done) = (Instant::now(), 0_usize);
                    while began.elapsed() < LONG {
                        for _ in 0..BATCH {
                            work(done * threads + thread);
                            done += 1;
                        }
                    }
                    rate(done, began.elapsed())
                })
            })
            .collect();
        started.into_iter().filter_map(|thread| thread.join().ok()).sum()
    });
    total
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn rate(done: usize, took: Duration) -> f64 {
    done as f64 / took.as_secs_f64()
}

/// Median and 99th percentile of one operation, on one thread, in nanoseconds. Single ones: what is rare must show.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn quantiles(work: &impl Fn(usize)) -> (f64, f64) {
    let mut times: Vec<u128> = (0..200_000)
        .map(|number| {
            let began = Instant::now();
            work(number);
            began.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default() as f64;
    (at(50), at(99))
}

fn principal(agent: &str) -> Result<PrincipalId, Box<dyn Error>> {
    Ok(PrincipalId { agent: agent.parse()?, tenant: TenantId::default_tenant(), user: None, issuer: None })
}

fn target(name: &str) -> Result<TargetId, Box<dyn Error>> {
    Ok(TargetId { name: Arc::from(name), server: ServerName::new("files")?, tenant: TenantId::default_tenant() })
}
