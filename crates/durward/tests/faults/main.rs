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
mod neighbour;
mod process;
mod script;
mod server;
mod stage;
mod table;

#[path = "../rig/mod.rs"]
mod rig;
#[path = "../world/mod.rs"]
mod world;

use flow::{call, lasting, listen, question};
use futures_util::{FutureExt, future::join_all};
use stage::Stage;
use std::{fmt::Write as _, panic::AssertUnwindSafe};
use table::{Case, Flow, Manner, Speaks};
use tokio::sync::Semaphore;

/// Not a test unless the gateway starts it: then it is a server until either side ends.
#[test]
fn the_process_itself() {
    process::be_one();
}

/// Cells that go through one gateway, at most, and of those that wait longest.
const CELLS: usize = 4;
const STUBBORN_CELLS: usize = 2;
/// Gateways at once.
const GATEWAYS: usize = 60;

/// Goes through some cells of a flow, and says which were not as the table has them.
async fn goes(flow: &'static Flow, cases: Vec<Case>, turns: &Semaphore) -> Vec<String> {
    let _turn = turns.acquire().await.expect("it is never closed");
    let (stage, cells) = Stage::set(flow, &cases).await;
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
        let is_stubborn = matches!(flow.server, Speaks::Process(_, Manner::Stubborn));
        let count = cells.len().div_ceil(if is_stubborn { STUBBORN_CELLS } else { CELLS });
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
        &call::PLAIN_MODERN,
        &call::PLAIN_LEGACY,
        &call::STREAM_MODERN,
        &call::STREAM_LEGACY,
        &call::ALL_MODERN,
        &call::ALL_LEGACY,
        &call::TASK,
        &call::TASK_MODERN,
        &call::TASK_ALL,
        &call::TASK_ALL_MODERN,
        &call::STREAM_UPWARD,
        &call::STREAM_DOWNWARD,
        &call::ALL_UPWARD,
        &call::ALL_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_ask_end_whatever_breaks_at_whatever_moment() {
    go(&[
        &question::QUESTION_LEGACY,
        &question::QUESTION_MODERN,
        &question::ALL_LEGACY,
        &question::ALL_MODERN,
        &question::QUESTION_UPWARD,
        &question::QUESTION_DOWNWARD,
        &question::ALL_UPWARD,
        &question::ALL_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_end_whatever_breaks_at_whatever_moment() {
    go(&[
        &listen::LISTEN_LEGACY,
        &listen::LISTEN_MODERN,
        &listen::ALL_LEGACY,
        &listen::ALL_MODERN,
        &listen::LISTEN_UPWARD,
        &listen::LISTEN_DOWNWARD,
        &listen::ALL_UPWARD,
        &listen::ALL_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_processes_end_whatever_breaks_at_whatever_moment() {
    go(&[
        &flow::process::CALL_LEGACY,
        &flow::process::CALL_MODERN,
        &flow::process::CALL_UPWARD,
        &flow::process::CALL_DOWNWARD,
        &flow::process::CALL_ALL_LEGACY,
        &flow::process::CALL_ALL_MODERN,
        &flow::process::CALL_ALL_UPWARD,
        &flow::process::CALL_ALL_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_of_processes_end_whatever_breaks_at_whatever_moment() {
    go(&[
        &flow::process::QUESTION_LEGACY,
        &flow::process::QUESTION_MODERN,
        &flow::process::QUESTION_UPWARD,
        &flow::process::QUESTION_DOWNWARD,
        &flow::process::QUESTION_ALL_LEGACY,
        &flow::process::QUESTION_ALL_MODERN,
        &flow::process::QUESTION_ALL_UPWARD,
        &flow::process::QUESTION_ALL_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_to_processes_end_whatever_breaks_at_whatever_moment() {
    go(&[
        &flow::process::LISTEN_LEGACY,
        &flow::process::LISTEN_MODERN,
        &flow::process::LISTEN_UPWARD,
        &flow::process::LISTEN_DOWNWARD,
        &flow::process::LISTEN_ALL_LEGACY,
        &flow::process::LISTEN_ALL_MODERN,
        &flow::process::LISTEN_ALL_UPWARD,
        &flow::process::LISTEN_ALL_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_processes_end_whatever_breaks_at_whatever_moment() {
    go(&[&flow::process::TASK, &flow::process::TASK_MODERN, &flow::process::TASK_ALL, &flow::process::TASK_ALL_MODERN])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_shares_a_process_ends_whatever_breaks_at_whatever_moment() {
    go(&[
        &flow::shared::CALL_LEGACY,
        &flow::shared::CALL_MODERN,
        &flow::shared::CALL_UPWARD,
        &flow::shared::CALL_DOWNWARD,
        &flow::shared::QUESTION_LEGACY,
        &flow::shared::QUESTION_MODERN,
        &flow::shared::QUESTION_UPWARD,
        &flow::shared::QUESTION_DOWNWARD,
        &flow::shared::LISTEN_LEGACY,
        &flow::shared::LISTEN_MODERN,
        &flow::shared::LISTEN_UPWARD,
        &flow::shared::LISTEN_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_shares_a_process_among_all_ends_whatever_breaks_at_whatever_moment() {
    go(&[
        &flow::shared::CALL_ALL_LEGACY,
        &flow::shared::CALL_ALL_MODERN,
        &flow::shared::CALL_ALL_UPWARD,
        &flow::shared::CALL_ALL_DOWNWARD,
        &flow::shared::QUESTION_ALL_LEGACY,
        &flow::shared::QUESTION_ALL_MODERN,
        &flow::shared::QUESTION_ALL_UPWARD,
        &flow::shared::QUESTION_ALL_DOWNWARD,
        &flow::shared::LISTEN_ALL_LEGACY,
        &flow::shared::LISTEN_ALL_MODERN,
        &flow::shared::LISTEN_ALL_UPWARD,
        &flow::shared::LISTEN_ALL_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_stubborn_processes_end_whatever_breaks_at_whatever_moment() {
    go(&[
        &flow::stubborn::CALL_LEGACY,
        &flow::stubborn::CALL_MODERN,
        &flow::stubborn::CALL_UPWARD,
        &flow::stubborn::CALL_DOWNWARD,
        &flow::stubborn::CALL_ALL_LEGACY,
        &flow::stubborn::CALL_ALL_MODERN,
        &flow::stubborn::CALL_ALL_UPWARD,
        &flow::stubborn::CALL_ALL_DOWNWARD,
        &flow::stubborn::OPENING_LEGACY,
        &flow::stubborn::OPENING_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_stubborn_processes_ends_whatever_breaks_at_whatever_moment() {
    go(&[
        &flow::stubborn::QUESTION_LEGACY,
        &flow::stubborn::QUESTION_ALL_LEGACY,
        &flow::stubborn::QUESTION_MODERN,
        &flow::stubborn::QUESTION_ALL_MODERN,
        &flow::stubborn::QUESTION_UPWARD,
        &flow::stubborn::QUESTION_ALL_UPWARD,
        &flow::stubborn::QUESTION_DOWNWARD,
        &flow::stubborn::QUESTION_ALL_DOWNWARD,
        &flow::stubborn::LISTEN_LEGACY,
        &flow::stubborn::LISTEN_ALL_LEGACY,
        &flow::stubborn::LISTEN_MODERN,
        &flow::stubborn::LISTEN_ALL_MODERN,
        &flow::stubborn::LISTEN_UPWARD,
        &flow::stubborn::LISTEN_ALL_UPWARD,
        &flow::stubborn::LISTEN_DOWNWARD,
        &flow::stubborn::LISTEN_ALL_DOWNWARD,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lasts_as_in_2024_ends_whatever_breaks_at_whatever_moment() {
    go(&[
        &lasting::CLIENT_OF_2024,
        &lasting::CALL_LEGACY,
        &lasting::CALL_DOWNWARD,
        &lasting::CALL_ALL_LEGACY,
        &lasting::CALL_ALL_DOWNWARD,
        &lasting::QUESTION_LEGACY,
        &lasting::QUESTION_DOWNWARD,
        &lasting::QUESTION_ALL_LEGACY,
        &lasting::QUESTION_ALL_DOWNWARD,
        &lasting::LISTEN_LEGACY,
        &lasting::LISTEN_DOWNWARD,
        &lasting::LISTEN_ALL_LEGACY,
        &lasting::LISTEN_ALL_DOWNWARD,
    ])
    .await;
}
