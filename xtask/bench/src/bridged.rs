//! What the bridge between the eras costs: the same client and the same question, to a server of its own era and to one
//! of the other, in turn. All on one core.

use crate::{
    bars::Fact,
    compare::{Sample, Scenario, measure, median},
    message::Question,
    setup::{ERAS, Stage, Way},
};
use anyhow::Result;

/// What these scenarios are called.
pub(crate) const NAME: &str = "bridged";

/// Measures each gateway for clients of each era.
pub(crate) fn run(stage: &Stage, rounds: usize, seconds: f64) -> Result<Vec<Fact>> {
    let mut facts = Vec::new();
    for era in ERAS {
        let straight = Scenario {
            name: format!("{NAME}, client of {}", era.version()),
            era,
            way: Way::Json,
            question: Question::Echo(100),
            connections: 1,
            is_serial: true,
        };
        let across = Scenario { way: Way::Across(era), ..straight.clone() };
        println!("\n{}", straight.name);
        println!("  {:16} {:>10} {:>10} {:>10} {:>10} {:>9}", "", "p50 us", "bridged", "cpu/call", "bridged", "x");
        for target in stage.of(across.way) {
            let pairs: Vec<(Sample, Sample)> = (0..rounds)
                .map(|_| Ok((measure(stage, target, &straight, seconds)?, measure(stage, target, &across, seconds)?)))
                .collect::<Result<_>>()?;
            let middle = |of: fn(&(Sample, Sample)) -> f64| median(pairs.iter().map(of));
            let bridged_ratio = middle(|(straight, across)| across.cpu / straight.cpu);
            println!(
                "  {:16} {:10.1} {:10.1} {:10.1} {:10.1} {bridged_ratio:9.2}",
                target.name,
                middle(|pair| pair.0.p50),
                middle(|pair| pair.1.p50),
                middle(|pair| pair.0.cpu),
                middle(|pair| pair.1.cpu),
            );
            facts.push(Fact { bridged_ratio, ..Fact::none(target.name, straight.name.clone()) });
        }
    }
    Ok(facts)
}
