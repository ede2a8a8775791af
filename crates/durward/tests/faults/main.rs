//! Faults in the middle: whatever breaks, at each moment of each flow, everybody has an end in time, nothing is left
//! behind, and every request has exactly one closed record.
//!
//! What is expected stands as a table with each flow (`flow/*.rs`). A few cells of a flow go through one gateway, one after
//! the other, each with a server, an agent and a key of its own; many gateways go side by side, for most cells wait.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod cell;
mod flow;
mod hear;
mod process;
mod script;
mod stage;
mod table;

#[path = "../rig/mod.rs"]
mod rig;
#[path = "../world/mod.rs"]
mod world;

use futures_util::{FutureExt, future::join_all};
use stage::Stage;
use std::{fmt::Write as _, panic::AssertUnwindSafe};
use table::{Case, Flow};
use tokio::sync::Semaphore;

/// Not a test unless the gateway starts it: then it is a server until either side ends.
#[test]
fn the_process_itself() {
    process::be_one();
}

/// Cells that go through one gateway, at most.
const CELLS: usize = 6;
/// Gateways at once.
const GATEWAYS: usize = 20;

/// Goes through some cells of a flow, and says which were not as the table has them.
async fn goes(flow: &'static Flow, cases: Vec<Case>, turns: &Semaphore) -> Vec<String> {
    let _turn = turns.acquire().await.expect("it is never closed");
    let (stage, cells) = Stage::set(flow, cases.len()).await;
    let mut wrong = Vec::new();
    for (mut cell, case) in cells.into_iter().zip(cases) {
        let name = format!("{}: {:?} at {:?}", flow.name, case.fault, case.moment);
        let before = stage.said().len();
        let gone_through = AssertUnwindSafe(cell::run(&stage, &mut cell, flow, case)).catch_unwind().await;
        // What went wrong was said where it went wrong.
        let faults = gone_through.unwrap_or_else(|_| vec!["the test panicked".to_owned()]);
        if !faults.is_empty() {
            let mut text = format!("{name}\n");
            for fault in faults {
                let _ = writeln!(text, "    {fault}");
            }
            for line in stage.said().iter().skip(before).filter(|line| line.contains(&cell.agent)) {
                let _ = writeln!(text, "      {line}");
            }
            wrong.push(text);
        }
    }
    wrong
}

async fn go(flows: &[&'static Flow]) {
    let turns = Semaphore::new(GATEWAYS);
    let mut gateways = Vec::new();
    for flow in flows {
        let cells = flow.cells();
        let count = cells.len().div_ceil(CELLS);
        // Neighbours wait for the same: each gateway has some of everything.
        for first in 0..count {
            let cases = cells.iter().skip(first).step_by(count).copied().collect();
            gateways.push(goes(flow, cases, &turns));
        }
    }
    let wrong = join_all(gateways).await.concat();
    assert!(wrong.is_empty(), "{} cells are not as the table has them:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_end_whatever_breaks_at_whatever_moment() {
    go(&[
        &flow::PLAIN_MODERN,
        &flow::PLAIN_LEGACY,
        &flow::STREAM_MODERN,
        &flow::STREAM_LEGACY,
        &flow::CALL_ALL_MODERN,
        &flow::CALL_ALL_LEGACY,
        &flow::TASK,
        &flow::TASK_MODERN,
        &flow::TASK_ALL,
        &flow::TASK_ALL_MODERN,
        &flow::STREAM_UPWARD,
        &flow::STREAM_DOWNWARD,
        &flow::CALL_ALL_UPWARD,
        &flow::CALL_ALL_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_ask_end_whatever_breaks_at_whatever_moment() {
    go(&[
        &flow::QUESTION_LEGACY,
        &flow::QUESTION_MODERN,
        &flow::QUESTION_ALL_LEGACY,
        &flow::QUESTION_ALL_MODERN,
        &flow::QUESTION_UPWARD,
        &flow::QUESTION_DOWNWARD,
        &flow::QUESTION_ALL_UPWARD,
        &flow::QUESTION_ALL_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_end_whatever_breaks_at_whatever_moment() {
    go(&[
        &flow::LISTEN_LEGACY,
        &flow::LISTEN_MODERN,
        &flow::ALL_LEGACY,
        &flow::ALL_MODERN,
        &flow::LISTEN_UPWARD,
        &flow::LISTEN_DOWNWARD,
        &flow::ALL_UPWARD,
        &flow::ALL_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_and_lasting_streams_end_whatever_breaks_at_whatever_moment() {
    go(&[
        &flow::PROCESS_MODERN,
        &flow::PROCESS_LEGACY,
        &flow::PROCESS_UPWARD,
        &flow::PROCESS_DOWNWARD,
        &flow::QUESTION_PROCESS,
        &flow::QUESTION_PROCESS_DOWNWARD,
        &flow::LISTEN_PROCESS,
        &flow::CLIENT_OF_2024,
        &flow::SERVER_OF_2024,
    ])
    .await;
}
