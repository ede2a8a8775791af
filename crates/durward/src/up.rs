//! `durward up`: starts the gateway and says what to do next.

use crate::{
    cli::{Exit, Shared},
    command::print::say,
    config,
    directory::Held,
    running::{self, Reload, Reloaded, Running},
    watch::Watched,
};
use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::Instant,
};

/// Where things are kept unless somebody says otherwise.
pub(crate) const DATA: &str = "durward-data";
/// Editors write files in several steps: a reload waits until they are done.
const SETTLE: Duration = Duration::from_millis(200);

/// Runs the gateway until it is told to stop.
pub(crate) async fn run(shared: &Shared) -> Result<Exit> {
    let file = config::find(shared.config.as_deref());
    let loaded = match &file {
        Some(file) => config::load(file),
        None => config::without_file(shared.data.clone().unwrap_or_else(|| PathBuf::from(DATA))),
    };
    let loaded = match loaded {
        Ok(mut loaded) => {
            if let Some(data) = &shared.data {
                loaded.settings.data.clone_from(data);
            }
            loaded.look_for_secrets();
            loaded
        }
        Err(report) => {
            say(report.to_string().trim_end());
            return Ok(Exit::Failed);
        }
    };
    if loaded.report.warnings() > 0 {
        let warnings = loaded.report.to_string();
        if !warnings.is_empty() {
            say(warnings.trim_end());
        }
    }
    if !tracing::enabled!(tracing::Level::WARN) {
        say("durward: DURWARD_LOG leaves out warnings, also those of what weakens safety");
    }
    let signals = Signals::catch()?;
    let running = match Running::start(loaded, file.clone(), shared.data.clone()).await {
        Ok(running) => Arc::new(running),
        Err(fault) if fault.is::<Held>() => {
            say(&format!("durward: {fault}; stop it, or give this one another --data"));
            return Ok(Exit::Unreachable);
        }
        Err(fault) => return Err(fault),
    };
    greet(&running, file.as_deref());
    running::tell_of_anonymous(&running.settings());
    until_told(&running, signals).await?;
    say("durward: stopping; calls in flight may end first");
    let running = Arc::into_inner(running).context("the gateway is still in use")?;
    running.stop().await?;
    Ok(Exit::Done)
}

/// What tells a gateway to stop or to look again.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches them from now on. To be called before anybody learns that the gateway is there: whoever sends SIGHUP
    /// then must not end it.
    pub(crate) fn catch() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

fn greet(running: &Running, file: Option<&Path>) {
    let settings = running.settings();
    say(&format!("durward {} is ready", env!("CARGO_PKG_VERSION")));
    for (number, place) in running.places().enumerate() {
        let what = if number == 0 { "agents connect to" } else { "and to" };
        say(&format!("  {what:<17}  {place}"));
    }
    say(&format!("  management         http://{}  (health, metrics, API)", running.management()));
    say(&format!("  data directory     {}", settings.data.display()));
    match file {
        Some(file) => say(&format!("  configuration      {}", file.display())),
        None => say("  configuration      none yet: `durward init` writes one to start from, then start again\n\
             \x20                    until then there are no servers, no agents, and every call is refused"),
    }
    if file.is_some() && settings.agents.is_empty() {
        say("  next               name an agent under `agents:`, then `durward agent key create NAME`");
    }
}

/// Waits for SIGTERM or SIGINT; reloads on SIGHUP and when a file changes.
pub(crate) async fn until_told(running: &Arc<Running>, signals: Signals) -> Result<()> {
    let Signals { mut terminate, mut interrupt, mut hangup } = signals;
    let (changed, mut changes) = mpsc::channel(1);
    let mut watched = Arc::new(Watched::default());
    let mut watcher = None;
    let mut due = None;
    let mut has_changed = false;
    let mut refused: Option<String> = None;
    loop {
        if due.is_none() {
            // What is configured now may lie elsewhere, and folders come and go.
            let now = Arc::new(running.watched());
            if now != watched {
                // The one before it ends first: nothing is told twice.
                drop(watcher.take());
                watcher = now.begin(&changed);
                watched = now;
                // Nobody tells what came before it was watched.
                due = Some(Instant::now() + SETTLE);
            }
        }
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => {
                let Told { outcome, still, record } = reload(running);
                if let Some(why) = record {
                    running.record_refused(why);
                }
                // Whoever asks is answered.
                let told = match &outcome {
                    Ok(Some(told)) | Err(told) => told,
                    Ok(None) => "durward: configuration reloaded, nothing changed",
                };
                say(told);
                for line in still {
                    say(&format!("  as before: {line}"));
                }
                refused = outcome.err();
            }
            Some(()) = changes.recv() => {
                has_changed = true;
                due = due.or_else(|| Some(Instant::now() + SETTLE));
            }
            () = until(due) => {
                due = None;
                let Told { outcome, record, .. } = reload(running);
                match &outcome {
                    // A file that was touched, and no more, is no news. Nor is what was refused just now.
                    Ok(None) => {}
                    Err(told) if !has_changed && refused.as_ref() == Some(told) => {}
                    Ok(Some(told)) | Err(told) => {
                        if let Some(why) = record {
                            running.record_refused(why);
                        }
                        say(told);
                    }
                }
                refused = outcome.err();
                has_changed = false;
            }
        }
    }
}

/// Waits for a moment, if there is one.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What there is to say of a reload.
struct Told {
    /// What is new, or why nothing was taken over.
    outcome: Result<Option<String>, String>,
    /// What was told before and is still so: for whoever asks.
    still: Vec<String>,
    /// What the log is told of a refusal, once each time that it is told at all.
    record: Option<String>,
}

/// Reads the configuration again.
fn reload(running: &Running) -> Told {
    let Reloaded { outcome, still } = running.reload();
    let record = outcome.as_ref().err().map(Reload::brief);
    let outcome = match outcome {
        Ok(changes) if changes.is_empty() => Ok(None),
        Ok(changes) => Ok(Some(format!("durward: reloaded\n  {}", changes.join("\n  ")))),
        Err(Reload::Faults(report)) => {
            let report = report.to_string();
            Err(format!("{}\ndurward: not reloaded; what was in force before goes on", report.trim_end()))
        }
        Err(Reload::Other(fault)) => {
            Err(format!("durward: not reloaded ({fault:#}); what was in force before goes on"))
        }
    };
    Told { outcome, still, record }
}
