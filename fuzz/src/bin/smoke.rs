//! Runs every target over its seeds and over changes of them, for a while. Needs no nightly.
//!
//! Says the seed it began with, and the input that broke a promise.

use anyhow::{Result, bail};
use clap::Parser;
use fuzz::{
    TARGETS,
    seed::{Mutator, seeds},
};
use std::{
    panic,
    time::{Duration, Instant},
};

#[derive(Parser)]
#[command(name = "smoke", about = "A short run of every fuzz target")]
struct Arguments {
    /// Seconds for each target
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Where the changes begin; the same one repeats a run
    #[arg(long, default_value_t = 20_261_121)]
    seed: u64,
    /// Only targets whose names contain this
    #[arg(long)]
    only: Option<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut broken = 0;
    for (name, target) in TARGETS {
        if arguments.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let seeds = seeds(name);
        let mut mutator = Mutator::new(arguments.seed);
        let (begun, mut count) = (Instant::now(), 0_u64);
        let mut inputs = seeds.clone().into_iter();
        while begun.elapsed() < Duration::from_secs(arguments.seconds) {
            let input = inputs.next().unwrap_or_else(|| mutator.next(&seeds));
            count += 1;
            if panic::catch_unwind(|| target(&input)).is_err() {
                eprintln!("{name}, seed {}, input {count}: {}", arguments.seed, input.escape_ascii());
                broken += 1;
                break;
            }
        }
        println!("{name:14} {count:9} inputs");
    }
    if broken > 0 {
        bail!("{broken} targets broke a promise");
    }
    Ok(())
}
