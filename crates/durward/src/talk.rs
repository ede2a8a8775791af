//! What the program says on standard error.

use std::{
    env::VarError,
    error::Error as _,
    io::{self, IsTerminal, Write},
};
use tracing_subscriber::{EnvFilter, fmt::layer, layer::SubscriberExt, util::SubscriberInitExt};

/// From here on, what is said goes to standard error: as much as `DURWARD_LOG` asks for, or else as is `usual`.
pub(crate) fn begin(usual: &str) {
    let asked = EnvFilter::try_from_env("DURWARD_LOG");
    let misread = asked.as_ref().err().filter(|fault| {
        let cause = fault.source().and_then(|cause| cause.downcast_ref::<VarError>());
        cause != Some(&VarError::NotPresent)
    });
    let misread = misread.map(ToString::to_string);
    let filter = asked.unwrap_or_else(|_| EnvFilter::new(usual));
    // A stderr that nobody reads any more must not stop anything.
    let said = layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(said).init();
    if let Some(fault) = misread {
        tracing::warn!(fault, "DURWARD_LOG is not understood; as much is said as without it");
    }
}

/// Says lines of calls, which come ready.
pub(crate) fn calls(lines: &str) {
    // Who closed standard error wants no word.
    let _ = io::stderr().write_all(lines.as_bytes());
}
