//! What must hold for any bytes at all: one function per target, each of which panics when it does not.
//!
//! The same functions serve libFuzzer (`fuzz_targets/`) and the smoke run of CI (`src/bin/smoke.rs`).
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a target says with a panic that a promise does not hold"
)]

mod bridge;
mod gateway;
mod log;
mod protocol;
pub mod seed;

pub use bridge::bridge;
pub use gateway::{configuration, policy};
pub use log::log;
pub use protocol::{envelope, event_stream, headers};

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 7] = [
    ("envelope", envelope),
    ("event_stream", event_stream),
    ("headers", headers),
    ("bridge", bridge),
    ("configuration", configuration),
    ("policy", policy),
    ("log", log),
];
