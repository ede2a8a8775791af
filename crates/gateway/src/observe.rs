//! What the gateway shows of its work: metrics, one log line per call, spans. All of it follows from closed trails.
//!
//! Never on the call path: a call leaves its facts in a queue, one task takes them from there. Decides nothing, and
//! what goes wrong here concerns no call.

pub mod instruments;
mod line;
pub mod meter;
pub mod metrics;
pub mod text;

#[cfg(test)]
mod tests;

use crate::{journal::Closed, state::State};
use line::Lines;
use meter::Family;
use metrics::Metrics;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::MissedTickBehavior,
};
use vocab::Timestamp;

/// How often closed calls are looked at.
const EVERY: Duration = Duration::from_millis(50);
/// Closed calls looked at before other tasks of the thread have their turn.
const AT_ONCE: usize = 256;

/// Looks at closed calls.
pub struct Observer {
    state: Arc<State>,
    began: Timestamp,
    /// Says the lines of calls, many at once.
    say: fn(&str),
    metrics: Mutex<Metrics>,
    /// Whoever exports spans gets the closed calls after they were counted.
    export: Mutex<Option<mpsc::Sender<Closed>>>,
    unexported: AtomicU64,
    stopping: Notify,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Observer {
    /// Starts looking at the closed calls of `state`, and hands the lines of some to `say`, each with its end. Needs a
    /// tokio runtime; only one observer sees each call.
    pub fn start(state: Arc<State>, say: fn(&str)) -> Arc<Self> {
        let observer = Arc::new(Self {
            began: state.clock.now(),
            state,
            say,
            metrics: Mutex::default(),
            export: Mutex::default(),
            unexported: AtomicU64::new(0),
            stopping: Notify::new(),
            task: Mutex::default(),
        });
        let task = tokio::spawn(Arc::clone(&observer).run());
        *lock(&observer.task) = Some(task);
        observer
    }

    /// Since when it counts.
    pub const fn began(&self) -> Timestamp {
        self.began
    }

    /// Hands closed calls on from now, or no longer. Where the receiver does not keep up, they are dropped and counted.
    pub fn export(&self, to: Option<mpsc::Sender<Closed>>) {
        *lock(&self.export) = to;
    }

    /// Closed calls that were not handed on because their receiver did not keep up.
    pub fn unexported(&self) -> u64 {
        self.unexported.load(Ordering::Relaxed)
    }

    /// All metrics, as `OpenMetrics` text of the media type [`text::MEDIA_TYPE`].
    pub fn metrics_text(&self) -> String {
        text::render(&self.families())
    }

    /// All metrics.
    pub fn families(&self) -> Vec<Family> {
        let mut families = lock(&self.metrics).families(&self.state);
        families.push(Family::read(&instruments::UNEXPORTED, [([], self.unexported())]));
        families
    }

    /// Looks at what is left, and ends.
    pub async fn stop(&self) {
        self.stopping.notify_one();
        let task = lock(&self.task).take();
        if let Some(task) = task {
            let _ = task.await;
        }
        self.export(None);
    }

    async fn run(self: Arc<Self>) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stop = tokio::select! {
                _ = every.tick() => false,
                () = self.stopping.notified() => true,
            };
            while self.look() == AT_ONCE {
                tokio::task::yield_now().await;
            }
            if stop {
                return;
            }
        }
    }

    /// Looks at some closed calls. Returns how many there were.
    fn look(&self) -> usize {
        let export = lock(&self.export).clone();
        let mut closed = std::iter::from_fn(|| self.state.journal.next_closed()).take(AT_ONCE).peekable();
        if closed.peek().is_none() {
            return 0;
        }
        let mut lines = Lines::at(self.state.clock.now());
        let looked = closed.map(|closed| self.look_at(closed, lines.as_mut(), export.as_ref())).count();
        if let Some(lines) = lines {
            (self.say)(lines.text());
        }
        looked
    }

    fn look_at(&self, closed: Closed, lines: Option<&mut Lines>, export: Option<&mpsc::Sender<Closed>>) {
        lock(&self.metrics).count(&closed);
        if let Some(lines) = lines {
            lines.add(&closed);
        }
        if export.is_some_and(|export| export.try_send(closed).is_err()) {
            self.unexported.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
