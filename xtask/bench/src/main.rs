//! Measures what Durward costs: against the server alone, and against the least that any proxy must do.
//!
//! `compare` is the command to run; `upstream` and `proxy` are what it starts. Loopback only.

mod answer;
mod bars;
mod bridged;
mod churn;
mod compare;
mod load;
mod machine;
mod message;
mod places;
mod proxy;
mod setup;
mod soak;
mod turn;
mod upstream;
mod wire;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::{future::Future, net::SocketAddr};

#[derive(Parser)]
#[command(name = "bench", about = "What Durward costs")]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Runs every target in turn, round after round, and prints what each costs
    Compare(compare::Options),
    /// Loads a gateway for long, with churn, and looks whether it grows or forgets to let go
    Soak(soak::Options),
    /// A minimal MCP server of both eras
    Upstream {
        #[arg(long)]
        listen: SocketAddr,
        /// How many tools it lists
        #[arg(long, default_value_t = 50)]
        tools: usize,
    },
    /// The least that a proxy must do: end HTTP, find method and tool, pass on
    Proxy {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        upstream: SocketAddr,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().part {
        Part::Compare(options) => compare::run(&options),
        Part::Soak(options) => on_one_thread(soak::run(options)),
        Part::Upstream { listen, tools } => on_one_thread(upstream::serve(listen, tools)),
        Part::Proxy { listen, upstream } => on_one_thread(proxy::serve(listen, upstream)),
    }
}

fn on_one_thread<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
