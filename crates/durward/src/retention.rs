//! How long texts beside the log stay: looked at when the gateway starts, when it is told another time, and every hour.
//!
//! What goes is on record. Never touches a record.

use crate::{assemble, config::Settings};
use anyhow::{Context, Result};
use audit::Erasure;
use gateway::state::State;
use std::{sync::Arc, time::Duration};

/// How often it is looked for what has been kept long enough.
const EVERY: Duration = Duration::from_hours(1);

/// Keeps texts as configured from now on. Where that cannot be, they are kept as before.
pub(crate) fn apply(state: &Arc<State>, settings: &Settings) -> Result<()> {
    let Some(texts) = state.journal.log().texts() else { return Ok(()) };
    let keeping = assemble::keeping(settings);
    let forgotten = match keeping {
        Some(_) => 0,
        None => texts.days().context("the kept texts cannot be listed")?.len(),
    };
    texts.set(keeping).context("texts cannot be kept (`log: { keep_text: … }`)")?;
    if forgotten > 0 {
        tracing::warn!(
            days = forgotten,
            "texts of earlier calls are kept and nothing erases them any more: `durward audit erase` does, or \
             `log: {{ keep_text: … }}`"
        );
    }
    tokio::task::spawn_blocking({
        let state = Arc::clone(state);
        move || expire(&state)
    });
    Ok(())
}

/// Looks every hour.
pub(crate) async fn watch(state: Arc<State>) {
    let mut turns = tokio::time::interval(EVERY);
    // The first is at once, and was when the gateway started.
    turns.tick().await;
    loop {
        turns.tick().await;
        let state = Arc::clone(&state);
        if tokio::task::spawn_blocking(move || expire(&state)).await.is_err() {
            tracing::error!("the look for what is kept too long panicked");
        }
    }
}

/// Erases what was kept long enough.
fn expire(state: &State) {
    let log = state.journal.log();
    // What goes is on record, or stays for now. It is tried again in an hour.
    if let Err(fault) = log.healthy() {
        tracing::error!(%fault, "nothing that was kept long enough is erased while the log cannot be written");
        return;
    }
    let Erasure { days, fault } = log.expire(state.clock.now());
    let days: Vec<String> = days.iter().map(|erased| erased.day.to_string()).collect();
    let mut parts = Vec::new();
    if !days.is_empty() {
        parts.push(format!("texts that were kept long enough: {}", days.join(", ")));
    }
    if let Some(cause) = fault {
        tracing::error!(%cause, "texts that were kept long enough cannot be erased, or not all");
        parts.push(format!("not all could be erased: {cause}"));
    }
    if !parts.is_empty() {
        state.journal.system("erased", Some(parts.join("; ")));
    }
}
