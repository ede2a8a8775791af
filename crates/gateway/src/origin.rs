//! Who asks: one process, or one session with a web server. What it is answered is not for whoever comes in its place, which
//! may have asked something else under the same id.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers them. Never written down.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// One that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin(u64);

impl Origin {
    /// Another than all before.
    pub(crate) fn new() -> Self {
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
