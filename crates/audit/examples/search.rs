//! Measures what a search costs: a log of a million calls, and the questions that people ask.
//!
//! ```sh
//! cargo run --release -p audit --example search
//! ```
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends")]

use audit::{CallRecord, Commitment, Filter, Leaf, Log, Options, Order, Outcome, Query, Reader, Signer, Stage, Tree};
use std::{
    io::{self, Write},
    time::{Duration, Instant},
};
use vocab::{Action, AgentId, CallId, Class, Digest, RuleId, ServerName, TenantId, Timestamp, UserId};

const CALLS: u64 = 1_000_000;
const BEGIN: i64 = 1_795_000_000_000_000;

fn main() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let signer = Signer { name: "example/log".into(), public: [0; 32], sign: Box::new(|_| [0; 64]) };
    let tenant = TenantId::default_tenant();
    let options =
        Options::new(dir.path().to_owned(), "example/default".into(), tenant.clone(), Timestamp::from_micros(BEGIN));
    let log = Log::open(options, signer).unwrap();
    let mut out = io::stdout().lock();

    let began = Instant::now();
    for n in 0..CALLS {
        while log.append_unwatched(Leaf::Call(call(n, &tenant))).is_err() {
            std::thread::yield_now();
        }
    }
    log.close().unwrap();
    writeln!(out, "{CALLS} records written in {:.1} s", began.elapsed().as_secs_f64())?;

    let reader = Reader::open(dir.path(), &Tree::Tenant(tenant)).unwrap();
    let some = |text: &str| Some(text.to_owned());
    let late = Timestamp::from_micros(BEGIN + i64::try_from(CALLS).unwrap() - 1000);
    let questions = [
        ("everything, the newest 100", Filter::default()),
        ("an agent of fifty, the newest 100", Filter { agent: some("agent-7"), ..Filter::default() }),
        ("one outcome in a thousand", Filter { outcome: some("refused"), ..Filter::default() }),
        ("an agent that called once, long ago", Filter { agent: some("rare"), ..Filter::default() }),
        ("a call by its id, the oldest", Filter { call: Some(id(0)), ..Filter::default() }),
        ("a trace, the oldest", Filter { trace: some(&trace(0)), ..Filter::default() }),
        ("a user that never called", Filter { user: some("nobody"), ..Filter::default() }),
        ("the last thousandth of the time", Filter { since: Some(late), ..Filter::default() }),
        ("before the first", Filter { until: Some(Timestamp::from_micros(BEGIN)), ..Filter::default() }),
    ];
    for (what, filter) in questions {
        let mut fastest = Duration::MAX;
        let mut found = 0;
        for _ in 0..3 {
            let began = Instant::now();
            let query = Query { filter: filter.clone(), order: Order::Newest, from: None, limit: 100, scan: u64::MAX };
            found = reader.page(&query).unwrap().entries.len();
            fastest = fastest.min(began.elapsed());
        }
        writeln!(out, "{:>9.1} ms  {found:>4} found  {what}", fastest.as_secs_f64() * 1e3)?;
    }
    Ok(())
}

fn id(n: u64) -> CallId {
    let digest = Digest::of(&n.to_be_bytes());
    CallId::from_bytes(*digest.as_bytes().first_chunk().unwrap())
}

fn trace(n: u64) -> String {
    format!("00-{}-00f067aa0ba902b7-01", id(n + CALLS))
}

/// A record as the gateway writes them, about a kilobyte.
fn call(n: u64, tenant: &TenantId) -> CallRecord {
    let agent = if n == 10 { "rare".to_owned() } else { format!("agent-{}", n % 50) };
    let outcome = match n % 1000 {
        1 => Outcome::Refused { reason: "denied".into(), stage: "authorize".into() },
        _ => Outcome::Answered,
    };
    let stages = ["authenticate", "resolve", "limit", "validate", "screen", "authorize", "settle", "intend", "inject"];
    let text = Commitment { bytes: 211, digest: Digest::of(&n.to_le_bytes()) };
    CallRecord {
        action: Some(Action::ToolExecute),
        agent: Some(AgentId::new(&agent).unwrap()),
        arguments: Some(text),
        class: Some(Class::Read),
        duration_us: n % 5000,
        era: Some("modern".into()),
        http_status: Some(200),
        identity: Some("key:8f3k2m9p".into()),
        method: Some("tools/call".into()),
        peer: Some(std::net::IpAddr::from([10, 0, 0, 7])),
        policy: Some(Digest::of(b"policy")),
        result: Some(text),
        rules: [RuleId::new("read-files").unwrap()].into(),
        server: Some(ServerName::new("files").unwrap()),
        stages: stages.iter().map(|name| Stage { name, us: 17 }).collect(),
        target: Some(format!("tool_{}", n % 200)),
        trace: Some(trace(n)),
        user: Some(UserId::new(&format!("u-{}", n % 1000)).unwrap()),
        ..CallRecord::new(id(n), tenant.clone(), Timestamp::from_micros(BEGIN + i64::try_from(n).unwrap()), outcome)
    }
}
