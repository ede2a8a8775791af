//! What is open at this moment, for whoever looks for leaks. Decides nothing.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use tokio::runtime::Handle;

/// Counts of what has no table of its own.
#[derive(Default)]
pub struct Census {
    streams: Arc<AtomicUsize>,
    runtimes: Mutex<Vec<Handle>>,
}

/// A stream to a client, counted until it is dropped by whatever ends it.
pub(crate) struct Stream(Arc<AtomicUsize>);

impl Census {
    /// Counts the tasks of the runtime that this is called on.
    pub fn join(&self) {
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).push(Handle::current());
    }

    /// One more stream to a client.
    pub(crate) fn stream(&self) -> Stream {
        self.streams.fetch_add(1, Ordering::AcqRel);
        Stream(Arc::clone(&self.streams))
    }

    /// How many streams to clients are open.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Acquire)
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        let runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        runtimes.iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
