//! Limits on a clock we hold.

use super::{Allowance, LimitError, LimitSetting, LimitSettings, Limited, Limits, Rate, Slot, table};
use proptest::prelude::*;
use std::{
    sync::{Arc, Barrier, Mutex},
    time::Duration,
};
use vocab::{Action, AgentId, IssuerName, PrincipalId, ServerName, TargetId, TenantId, UserId};

const SECOND: u64 = 1_000_000;

fn who(agent: &str) -> PrincipalId {
    PrincipalId { tenant: TenantId::default_tenant(), agent: AgentId::new(agent).unwrap(), user: None, issuer: None }
}

fn what(tool: &str) -> TargetId {
    let (server, name) = tool.split_once('/').unwrap();
    TargetId { tenant: TenantId::default_tenant(), server: ServerName::new(server).unwrap(), name: Arc::from(name) }
}

fn allowance(count: u32, per: u64, burst: u32) -> Allowance {
    Allowance { rate: Rate { count, per: Duration::from_secs(per) }, burst }
}

/// `agent tool server tenant`, `-` where the rule says nothing.
fn rule(of: &str, allowance: Allowance) -> LimitSetting {
    let mut words = of.split(' ').map(|word| (word != "-").then(|| word.to_owned()));
    let mut next = || words.next().flatten();
    LimitSetting { agent: next(), tool: next(), server: next(), tenant: next(), allowance, concurrency: None }
}

fn settings(rules: &[LimitSetting]) -> LimitSettings {
    LimitSettings { rules: rules.to_vec(), ..LimitSettings::default() }
}

fn limits(rules: &[LimitSetting]) -> Limits {
    Limits::new(&settings(rules), None).unwrap()
}

/// Admits and sends one call.
fn send(limits: &Limits, agent: &str, tool: &str, now: u64) -> Result<(), Limited> {
    limits.admit(&who(agent), Action::ToolExecute, &what(tool), now).map(|slot| drop(slot.spend()))
}

/// How many of `calls` go through at one instant.
fn admitted(limits: &Limits, agent: &str, tool: &str, calls: usize, now: u64) -> usize {
    (0..calls).filter(|_| send(limits, agent, tool, now).is_ok()).count()
}

/// How many of the calls that 64 threads make at one instant go through; each makes one per target.
fn admitted_in_parallel(limits: &Limits, calls: &[(&str, &str)], now: u64) -> Vec<usize> {
    let counts = Mutex::new(vec![0; calls.len()]);
    let start = Barrier::new(64);
    std::thread::scope(|scope| {
        for thread in 0..64 {
            let (counts, start) = (&counts, &start);
            scope.spawn(move || {
                start.wait();
                for turn in 0..calls.len() {
                    let at = (turn + thread) % calls.len();
                    let (agent, tool) = calls[at];
                    if send(limits, agent, tool, now).is_ok() {
                        counts.lock().unwrap()[at] += 1;
                    }
                }
            });
        }
    });
    counts.into_inner().unwrap()
}

#[test]
fn ten_per_minute_is_ten_at_once_and_then_one_every_six_seconds() {
    let limits = limits(&[rule("* files/* - -", allowance(10, 60, 10))]);
    let start = 77 * SECOND;
    assert_eq!(admitted_in_parallel(&limits, &[("ci", "files/read")], start), [10]);
    for turn in 1..=20 {
        let now = start + turn * 6 * SECOND;
        assert_eq!(admitted_in_parallel(&limits, &[("ci", "files/read")], now - 1), [0]);
        assert_eq!(admitted_in_parallel(&limits, &[("ci", "files/read")], now), [1]);
    }
    assert_eq!(admitted(&limits, "other", "files/read", 20, start), 10, "another agent has its own");
    assert_eq!(admitted(&limits, "ci", "files/write", 20, start), 10, "another tool has its own");
    assert_eq!(admitted(&limits, "ci", "wiki/read", 20, start), 20, "the rule is not about this one");
}

#[test]
fn a_bucket_is_per_value_of_what_the_rule_names() {
    let limits = limits(&[
        rule("- - github -", allowance(3, 60, 3)),
        rule("bot-* - - -", allowance(4, 60, 4)),
        rule("- wiki/get_* - -", allowance(1, 60, 1)),
    ]);
    assert_eq!(admitted(&limits, "a", "github/x", 2, 0) + admitted(&limits, "b", "github/y", 2, 0), 3);
    assert_eq!(admitted(&limits, "bot-1", "files/x", 3, 0) + admitted(&limits, "bot-1", "files/y", 3, 0), 4);
    assert_eq!(admitted(&limits, "bot-2", "files/x", 9, 0), 4);
    assert_eq!(admitted(&limits, "a", "wiki/get_a", 9, 0) + admitted(&limits, "a", "wiki/get_b", 9, 0), 2);
    assert_eq!(admitted(&limits, "a", "wiki/put", 9, 0), 9);
}

#[test]
fn what_is_no_tool_has_one_bucket_whatever_it_is_called() {
    let limits = limits(&[rule("* files/* - -", allowance(3, 60, 3)), rule("- files/file:* - -", allowance(2, 60, 2))]);
    let read = |agent: &str, action, name: &str| {
        limits.admit(&who(agent), action, &what(name), 0).map(|slot| drop(slot.spend())).is_ok()
    };
    let spellings = ["file:///a", "file:///./a", "file:///%61", "file:///a?", "file:///a#", "file:///A"];
    let admitted =
        |agent| spellings.iter().filter(|uri| read(agent, Action::ResourceRead, &format!("files/{uri}"))).count();
    assert_eq!(admitted("ci"), 2, "the narrower rule has one bucket for everybody");
    assert!(read("ci", Action::PromptGet, "files/greet") && !read("ci", Action::PromptGet, "files/greet"));
    assert!(!read("ci", Action::MethodCall, "files/x/anything"));
    assert_eq!(admitted("other"), 0);
    assert!(read("other", Action::PromptGet, "files/greet"), "each agent has a bucket of the wider rule");
    assert!(read("ci", Action::ResourceRead, "wiki/file:///a"), "the rules are not about this server");
    assert!(read("ci", Action::ToolExecute, "files/greet"), "tools have their own");
}

#[test]
fn whoever_reads_much_may_take_a_task_back() {
    let limits = limits(&[rule("* files/* - -", allowance(1, 60, 1))]);
    let may = |action, name: &str| {
        limits.admit(&who("ci"), action, &what(&format!("files/{name}")), 0).map(|slot| drop(slot.spend())).is_ok()
    };
    assert!(may(Action::ResourceRead, "file:///a") && !may(Action::PromptGet, "greet"));
    for method in ["tasks/get", "tasks/cancel", "tasks/result", "tasks/list", "tasks/update"] {
        assert!(may(Action::TaskManage, method) && !may(Action::TaskManage, method), "{method} counts for itself");
    }
    let invented = (0..9).filter(|turn| may(Action::TaskManage, &format!("tasks/{turn}")));
    assert_eq!(invented.count(), 0, "a method that a client invents has no bucket of its own");
}

#[test]
fn whoever_fills_the_table_is_in_nobody_elses_way() {
    let limits = limits(&[rule("* files/* - -", allowance(1, 3600, 1))]);
    for turn in 0..200_000 {
        let _ = send(&limits, "greedy", &format!("files/tool{turn}"), 0);
    }
    assert!(limits.calls.count() < 132_000, "{}", limits.calls.count());
    for turn in 0..100 {
        assert_eq!(admitted(&limits, &format!("agent{turn}"), "files/read", 2, 0), 1, "as if it were alone");
    }
    let of_greedy = (0..10_000).filter(|turn| send(&limits, "greedy", &format!("files/new{turn}"), 0).is_ok());
    assert_eq!(of_greedy.count(), 0, "whoever fills it has one bucket for what is new");
}

#[test]
fn a_rule_for_all_agents_together_allows_no_more_when_the_table_is_full() {
    let limits = limits(&[rule("* files/* - -", allowance(1, 3600, 1)), rule("- - wiki -", allowance(3, 3600, 3))]);
    for turn in 0..200_000 {
        let _ = send(&limits, "greedy", &format!("files/tool{turn}"), 0);
    }
    let of_all = (0..100).map(|turn| admitted(&limits, &format!("agent{turn}"), "wiki/read", 1, 0));
    assert_eq!(of_all.sum::<usize>(), 3);
}

#[test]
fn tenants_have_their_own_buckets() {
    let limits = limits(&[rule("- - - *", allowance(2, 60, 2))]);
    let other = PrincipalId { tenant: TenantId::new("other").unwrap(), ..who("ci") };
    assert_eq!(admitted(&limits, "ci", "files/read", 9, 0), 2);
    assert_eq!(admitted(&limits, "cd", "files/read", 9, 0), 0);
    assert!(limits.admit(&other, Action::ToolExecute, &what("files/read"), 0).is_ok());
}

#[test]
fn the_strictest_rule_wins_and_the_others_lose_nothing() {
    let limits = limits(&[rule("* - - -", allowance(10, 60, 10)), rule("- files/erase - -", allowance(2, 3600, 2))]);
    assert_eq!(admitted(&limits, "ci", "files/erase", 50, 0), 2);
    let limited = send(&limits, "ci", "files/erase", 0).unwrap_err();
    assert_eq!((limited.rule.as_str(), limited.retry_in), ("limits[1]", Duration::from_mins(30)));
    assert_eq!(admitted(&limits, "ci", "files/read", 50, 0), 8, "48 refusals took nothing from the agent");
}

#[test]
fn all_or_none_holds_in_parallel() {
    let rules = [rule("* - - -", allowance(5, 60, 5)), rule("- - files -", allowance(8, 60, 8))];
    for round in 0..50 {
        let limits = limits(&rules);
        let now = round * SECOND;
        let counts = admitted_in_parallel(&limits, &[("a", "files/x"), ("b", "files/x")], now);
        assert_eq!(counts.iter().sum::<usize>(), 8, "a refused call never keeps another from a token");
        assert!(counts.iter().all(|count| *count <= 5), "{counts:?}");
        assert_eq!(admitted(&limits, "a", "wiki/x", 9, now), 5 - counts[0]);
        assert_eq!(admitted(&limits, "b", "wiki/x", 9, now), 5 - counts[1]);
    }
}

#[test]
fn a_reload_forgives_nobody_and_its_order_does_not_matter() {
    let (one, two) = (rule("* - - -", allowance(3, 60, 3)), rule("- - files -", allowance(5, 60, 5)));
    let before = limits(&[one.clone(), two.clone()]);
    assert_eq!(admitted(&before, "ci", "files/x", 9, 0), 3);
    let after = Limits::new(&settings(&[two, one]), Some(&before)).unwrap();
    assert_eq!(admitted(&after, "ci", "files/x", 9, 0), 0);
    assert_eq!(admitted(&after, "cd", "files/x", 9, 0), 2);
    // Both snapshots are in use for a while. They share buckets, so they must lock them in the same order.
    std::thread::scope(|scope| {
        for limits in [&before, &after, &before, &after] {
            scope.spawn(move || admitted(limits, "ci", "files/x", 5000, 0));
        }
    });
}

#[test]
fn equal_rules_do_not_share_a_bucket() {
    let twice = rule("* - - -", allowance(4, 60, 4));
    assert_eq!(admitted(&limits(&[twice.clone(), twice]), "ci", "files/x", 9, 0), 4);
}

#[test]
fn concurrency_ends_with_the_answer() {
    let mut setting = rule("- - files -", allowance(1000, 1, 1000));
    setting.concurrency = Some(2);
    let limits = limits(&[setting]);
    let admit = || limits.admit(&who("ci"), Action::ToolExecute, &what("files/x"), 0);
    let unsent = admit().unwrap();
    let under_way = admit().unwrap().spend();
    let limited = admit().unwrap_err();
    assert_eq!(limited.concurrency, Some(2));
    assert_eq!(limited.headers(), None, "of the rate much is left: that is not what refused");
    assert_eq!(limited.to_string(), "limits[0] allows 2 calls under way at one time; try again in 1 s");
    drop(unsent);
    let second = admit().unwrap().spend();
    assert!(admit().is_err());
    drop(under_way);
    assert!(admit().is_ok(), "a slot that was dropped at once is free again");
    assert!(admit().is_ok());
    drop(second);
}

#[test]
fn attempts_are_counted_per_principal() {
    let settings = LimitSettings { attempts: allowance(2, 2, 2), ..LimitSettings::default() };
    let limits = Limits::new(&settings, None).unwrap();
    let user = PrincipalId { user: Some(UserId::new("eve").unwrap()), ..who("ci") };
    assert_eq!((0..9).filter(|_| limits.attempt(&who("ci"), 0).is_ok()).count(), 2);
    assert_eq!((0..9).filter(|_| limits.attempt(&user, 0).is_ok()).count(), 2);
    // The same name, said by others.
    for issuer in ["https://a.example", "https://b.example"] {
        let other = PrincipalId { issuer: Some(IssuerName::new(issuer).unwrap()), ..user.clone() };
        assert_eq!((0..9).filter(|_| limits.attempt(&other, 0).is_ok()).count(), 2);
    }
    assert!(limits.attempt(&who("ci"), SECOND).is_ok());
    assert_eq!(limits.attempt(&who("ci"), SECOND).unwrap_err().rule, "attempts");
}

#[test]
fn failures_are_counted_per_address() {
    let settings = LimitSettings { failures: allowance(1, 10, 3), ..LimitSettings::default() };
    let limits = Limits::new(&settings, None).unwrap();
    let blocked = |address: &str, now| limits.failed_authentication(address.parse().unwrap(), now).is_err();
    for _ in 0..3 {
        assert!(!blocked("192.0.2.1", 0));
        limits.note_failure("192.0.2.1".parse().unwrap(), 0);
        limits.note_failure("2001:db8:0:1::1".parse().unwrap(), 0);
    }
    assert!(blocked("192.0.2.1", 0) && blocked("::ffff:192.0.2.1", 0));
    assert!(blocked("2001:db8:0:1:ffff::2", 0), "the same /64");
    assert!(!blocked("192.0.2.2", 0) && !blocked("2001:db8:0:2::1", 0));
    assert!(blocked("192.0.2.1", 10 * SECOND - 1) && !blocked("192.0.2.1", 10 * SECOND));
    // Guesses in parallel run up a debt, but not for ever.
    for _ in 0..100 {
        limits.note_failure("192.0.2.1".parse().unwrap(), 0);
    }
    assert!(blocked("192.0.2.1", 40 * SECOND - 1) && !blocked("192.0.2.1", 40 * SECOND));
}

#[test]
fn a_refusal_tells_machines_when_to_come_back() {
    let limits = limits(&[rule("* - - -", allowance(10, 60, 10))]);
    assert_eq!(admitted(&limits, "ci", "files/x", 10, 0), 10);
    let limited = send(&limits, "ci", "files/x", 500_000).unwrap_err();
    assert_eq!(limited.retry_in, Duration::from_millis(5500));
    assert_eq!((limited.remaining, limited.reset), (0, Duration::from_millis(59_500)));
    assert_eq!(limited.to_string(), "limits[0] allows 10 per minute, 10 at once; try again in 6 s");
    let headers = limited.headers().unwrap().map(|(name, value)| format!("{name}: {value}"));
    assert_eq!(headers, ["ratelimit-policy: \"limits[0]\";q=10;w=60", "ratelimit: \"limits[0]\";r=0;t=6"]);
}

#[test]
fn what_cannot_be_enforced_is_refused_all_at_once() {
    let zero = rule("* - - -", allowance(0, 60, 10));
    let faults = Limits::new(
        &settings(&[rule("[ - - -", allowance(1, 1, 1)), rule("- read - -", allowance(1, 1, 1)), zero]),
        None,
    );
    let faults = faults.err().unwrap();
    assert!(
        matches!(
            faults.as_slice(),
            [LimitError::Glob { rule: 0, .. }, LimitError::NoServer { rule: 1, .. }, LimitError::Zero { .. }]
        ),
        "{faults:?}"
    );
}

#[test]
fn a_full_table_forgets_only_what_is_full_again() {
    let table = table::Table::bounded(1);
    let terms = super::bucket::Terms::new(allowance(1, 10, 1), None).unwrap();
    let key = |address| table::Key { rule: 1, of: table::Of::Address(address) };
    let mut taken = 0;
    for address in 0..5000 {
        taken += usize::from(table.bucket(&key(address), 0).take(&terms, 0).is_ok());
    }
    assert!(table.count() <= 257, "{} buckets", table.count());
    assert!(taken <= 257, "strangers share one bucket, and only one of them got its token");
    let again =
        (0..5000).filter(|address| table.bucket(&key(*address), 5_000_000_000).take(&terms, 5_000_000_000).is_ok());
    assert_eq!(again.count(), 0, "no bucket came back before its time");
    let later = 20_000_000_000;
    let fresh = (5000..5200).filter(|address| table.bucket(&key(*address), later).take(&terms, later).is_ok()).count();
    assert!(fresh > 50, "{fresh} found room");
}

proptest! {
    /// Whoever asks all the time gets burst + rate × time, within 1 %; nobody ever gets more.
    #[test]
    fn burst_and_refill_follow_the_rule(count in 1_u32..2000, per in 1_u64..100, burst in 1_u32..200, steps in prop::collection::vec(0_u64..3_000_000, 1..200)) {
        let limits = limits(&[rule("* - - -", allowance(count, per, burst))]);
        let (mut now, mut got) = (0, 0_u32);
        for step in steps {
            now += step;
            // Ask until refused, so that no token overflows unseen between two steps.
            let mut here = 0;
            while send(&limits, "ci", "files/x", now).is_ok() {
                here += 1;
                prop_assert!(here <= burst);
            }
            got += here;
            let seconds = Duration::from_micros(now).as_secs_f64();
            let most = f64::from(burst) + seconds * f64::from(count) / Duration::from_secs(per).as_secs_f64();
            prop_assert!(f64::from(got) <= most * 1.01, "{} of {}", got, most);
        }
        let limited = send(&limits, "ci", "files/x", now).unwrap_err();
        let next = now + u64::try_from(limited.retry_in.as_nanos().div_ceil(1000)).unwrap();
        prop_assert!(send(&limits, "ci", "files/x", next - 1).is_err());
        prop_assert!(send(&limits, "ci", "files/x", next).is_ok());
    }

    /// A greedy caller gets no less than promised.
    #[test]
    fn nobody_gets_less(count in 1_u32..2000, burst in 1_u32..200) {
        let limits = limits(&[rule("* - - -", allowance(count, 1, burst))]);
        let step = SECOND / u64::from(count) / 2 + 1;
        let mut got = 0_u32;
        let mut now = 0;
        for _ in 0..2000 {
            while send(&limits, "ci", "files/x", now).is_ok() {
                got += 1;
            }
            now += step;
        }
        let least = f64::from(burst) + Duration::from_micros(now - step).as_secs_f64() * f64::from(count);
        prop_assert!(f64::from(got) >= least * 0.99 - 1.0, "{} of {}", got, least);
    }

    /// A call that was admitted and given back leaves no trace.
    #[test]
    fn giving_back_is_exact(steps in prop::collection::vec((0_u64..4_000_000, any::<bool>()), 1..200)) {
        let rules = [rule("* - - -", allowance(10, 60, 5)), rule("- - files -", allowance(3, 7, 4))];
        let (with, without) = (limits(&rules), limits(&rules));
        let mut now = 0;
        for (step, give_back) in steps {
            now += step;
            if give_back {
                let slot: Result<Slot, Limited> = with.admit(&who("ci"), Action::ToolExecute, &what("files/x"), now);
                drop(slot);
            } else {
                prop_assert_eq!(send(&with, "ci", "files/x", now), send(&without, "ci", "files/x", now));
            }
        }
    }
}
