//! Sees what is said on either side of a gateway, and holds each message against the schema of its revision.
//!
//! `watch` stands between clients, gateway and servers as plain relays; `pipe` stands between two programs that speak
//! through pipes, and tells `watch` what it saw. Neither changes a byte of a message, nor holds one back.

mod conversation;
mod events;
mod expected;
mod judge;
mod pipe;
mod plan;
mod relay;
mod seen;
mod verdict;

#[cfg(test)]
mod tests;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use expected::EXPECTED;
use judge::Judge;
use plan::Plan;
use std::{
    io::{BufRead, Write, stdin, stdout},
    net::SocketAddr,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

/// How long what still runs at the end may take to say its last.
const LAST_WORDS: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(name = "witness", about = "What is said on either side of a gateway")]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Reads a plan from its input, prints where to connect, and judges what was said when the input ends
    Watch,
    /// Runs a program and hands on its input and output
    Pipe {
        /// Where `watch` wants to be told of it
        #[arg(long)]
        to: SocketAddr,
        /// The name of a server, or the address of a door
        #[arg(long)]
        leg: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        program: Vec<String>,
    },
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().part {
        Part::Watch => watch(),
        Part::Pipe { to, leg, program } => pipe::run(to, &leg, &program),
    }
}

fn watch() -> Result<ExitCode> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).context("cannot read the plan")?;
    let plan: Plan = serde_json::from_str(&line).context("the plan cannot be read")?;
    // No bound: who is judged slowly is not to be held up. What is said in a run fits into memory.
    let (seen, waiting) = mpsc::channel();
    let mut judge = Judge::new(plan.clone());
    let judging = thread::spawn(move || {
        for seen in waiting {
            judge.see(seen);
        }
        judge.verdict(EXPECTED)
    });

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let is_heard_out = runtime.block_on(async {
        let mut pipes = pipe::Listener::open(seen.clone(), &plan).await?;
        let mut relays = relay::Relays::open(&plan, seen).await?;
        let addresses = relays.addresses(pipes.address());
        println!("{}", serde_json::to_string(&addresses)?);
        stdout().flush()?;
        tokio::select! {
            ended = pipes.accept(&addresses.doors) => ended?,
            ended = relays.accept() => ended?,
            ended = tokio::task::spawn_blocking(|| stdin().lock().lines().count()) => drop(ended?),
        }
        // What programs said last may still be on its way here.
        let finished = tokio::time::timeout(LAST_WORDS, pipes.finish(&addresses.doors)).await;
        Ok::<_, anyhow::Error>(match finished {
            Ok(ended) => ended.map(|()| true)?,
            Err(_) => false,
        })
    })?;
    // Ends every task, and with them what they tell the judge.
    runtime.shutdown_timeout(LAST_WORDS);
    let verdict = judging.join().ok().context("the judge panicked")?;
    eprint!("{verdict}");
    if !is_heard_out {
        eprintln!("programs still speak {LAST_WORDS:?} after the end of the run: their last words were not heard");
    }
    Ok(if verdict.is_clean() && is_heard_out { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
