//! The bars: what the project promises about its own cost, as ratios inside one run.

use crate::bridged;

/// What was measured of one target in one scenario; NaN where it was not.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) target: &'static str,
    pub(crate) scenario: String,
    /// CPU per call over that of the bare proxy
    pub(crate) cpu_ratio: f64,
    /// Added p50 over what the bare proxy adds
    pub(crate) added_ratio: f64,
    /// Throughput over that of the bare proxy
    pub(crate) rate_ratio: f64,
    /// Microseconds to the first byte of a body, more than direct
    pub(crate) first_event: f64,
    /// MiB resident
    pub(crate) resident: f64,
    /// CPU per call over that of a call that crosses no bridge
    pub(crate) bridged_ratio: f64,
}

impl Fact {
    /// Nothing is known yet.
    pub(crate) fn none(target: &'static str, scenario: String) -> Self {
        Self {
            target,
            scenario,
            cpu_ratio: f64::NAN,
            added_ratio: f64::NAN,
            rate_ratio: f64::NAN,
            first_event: f64::NAN,
            resident: f64::NAN,
            bridged_ratio: f64::NAN,
        }
    }

    /// A target that has served nothing yet.
    pub(crate) fn idle(target: &'static str, resident: f64) -> Self {
        Self { resident, ..Self::none(target, "idle".to_owned()) }
    }
}

/// A promise: of whom, where, how much.
struct Bar {
    target: &'static str,
    scenario: &'static str,
    what: &'static str,
    value: fn(&Fact) -> f64,
    limit: f64,
    /// Whether more is better.
    at_least: bool,
}

const fn at_most(
    target: &'static str,
    scenario: &'static str,
    what: &'static str,
    value: fn(&Fact) -> f64,
    limit: f64,
) -> Bar {
    Bar { target, scenario, what, value, limit, at_least: false }
}

const BARS: [Bar; 8] = [
    at_most("durward bare", "serial", "CPU per call, x bare proxy", |fact| fact.cpu_ratio, 1.6),
    at_most("durward all", "serial", "CPU per call, x bare proxy", |fact| fact.cpu_ratio, 2.2),
    at_most("durward all", "serial", "added p50, x bare proxy", |fact| fact.added_ratio, 2.5),
    Bar {
        target: "durward all",
        scenario: "32 ",
        what: "throughput, x bare proxy",
        value: |fact| fact.rate_ratio,
        limit: 0.45,
        at_least: true,
    },
    at_most("durward all", "first event", "first event, us later than direct", |fact| fact.first_event, 1_000.0),
    // 25 MB.
    at_most("durward", "idle", "resident MiB", |fact| fact.resident, 23.8),
    at_most("durward", "list of 1000", "CPU per list, x bare proxy", |fact| fact.cpu_ratio, 3.0),
    at_most("durward", bridged::NAME, "CPU per call, x without a bridge", |fact| fact.bridged_ratio, 1.6),
];

/// Prints every bar with what was measured, and says how many are missed: of a `whole` run also those of which nothing was
/// measured. `slack` is the factor by which they may be.
pub(crate) fn print(facts: &[Fact], whole: bool, slack: f64) -> usize {
    println!("\nbars{}", if slack > 1.0 { format!(", {slack} x as wide as promised") } else { String::new() });
    let mut missed = 0;
    for bar in &BARS {
        if whole && !facts.iter().any(|fact| applies(bar, fact)) {
            missed += 1;
            println!("  MISSED {:14} {:24} {}: not measured", bar.target, bar.scenario, bar.what);
        }
        for fact in facts.iter().filter(|fact| applies(bar, fact)) {
            let value = (bar.value)(fact);
            let limit = if bar.at_least { bar.limit / slack } else { bar.limit * slack };
            let is_met = if bar.at_least { value >= limit } else { value <= limit };
            missed += usize::from(!is_met);
            let (verdict, sign) = (if is_met { "met   " } else { "MISSED" }, if bar.at_least { ">=" } else { "<=" });
            let what = bar.what;
            println!("  {verdict} {:14} {:24} {what}: {value:.2} ({sign} {limit:.2})", fact.target, fact.scenario);
        }
    }
    missed
}

fn applies(bar: &Bar, fact: &Fact) -> bool {
    // The strict log waits for the disk: it is reported, and no bar is set for it.
    fact.target.starts_with(bar.target) && fact.target != "durward strict" && fact.scenario.starts_with(bar.scenario)
}

#[cfg(test)]
mod tests {
    use super::{BARS, Bar, Fact, print};

    #[test]
    fn a_bar_is_missed_on_its_wrong_side_only() {
        let fact = |rate_ratio: f64, cpu_ratio: f64| {
            let scenario = "32 json".to_owned();
            Fact { scenario, cpu_ratio, rate_ratio, ..Fact::idle("durward all", f64::NAN) }
        };
        assert_eq!(print(&[fact(0.5, 9.0)], false, 1.0), 0);
        assert_eq!(print(&[fact(0.4, 1.0)], false, 1.0), 1);
        assert_eq!(print(&[Fact::idle("durward bare", 23.7), Fact::idle("durward all", 23.9)], false, 1.0), 1);
        assert_eq!(print(&[fact(f64::NAN, 1.0)], false, 1.0), 1, "what was not measured is not met");
    }

    #[test]
    fn slack_widens_a_bar_on_its_right_side() {
        let fact = |rate_ratio: f64, resident: f64| {
            let scenario = |name: &str| name.to_owned();
            [
                Fact { rate_ratio, ..Fact::none("durward all", scenario("32 json")) },
                Fact { resident, ..Fact::none("durward bare", scenario("idle")) },
            ]
        };
        assert_eq!(print(&fact(0.23, 47.0), false, 1.0), 2);
        assert_eq!(print(&fact(0.23, 47.0), false, 2.0), 0);
        assert_eq!(print(&fact(0.22, 48.0), false, 2.0), 2);
    }

    #[test]
    fn a_bar_of_which_nothing_was_measured_is_missed_where_all_was_to_be() {
        assert_eq!(print(&[], false, 1.0), 0);
        assert_eq!(print(&[], true, 1.0), BARS.len());
        let good = |bar: &Bar| Fact {
            cpu_ratio: 1.0,
            added_ratio: 1.0,
            rate_ratio: 1.0,
            first_event: 1.0,
            resident: 1.0,
            bridged_ratio: 1.0,
            ..Fact::none(if bar.target == "durward" { "durward all" } else { bar.target }, bar.scenario.to_owned())
        };
        let mut facts: Vec<Fact> = BARS.iter().map(good).collect();
        assert_eq!(print(&facts, true, 1.0), 0);
        // A scenario that was renamed, and its bar was not.
        facts.retain(|fact| fact.scenario != "first event");
        assert_eq!(print(&facts, true, 1.0), 1);
    }
}
