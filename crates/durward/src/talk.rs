//! What the program says on standard error.

use crate::command::print;
use std::{
    env::VarError,
    error::Error as _,
    fmt::Debug,
    io::{self, IsTerminal, Write},
};
use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::{
        FormatFields,
        format::{Writer, debug_fn},
        layer,
    },
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

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
    let said = layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    let said = said.fmt_fields(fields()).log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(said).init();
    if let Some(fault) = misread {
        tracing::warn!(fault, "DURWARD_LOG is not understood; as much is said as without it");
    }
}

/// How events are written.
///
/// SECURITY: what servers, clients and issuers wrote stands in them, in faults above all. It begins no line, moves no cursor and
/// turns no order of reading, wherever it stands.
fn fields() -> impl for<'w> FormatFields<'w> {
    debug_fn(field).delimited(" ")
}

fn field(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let value = format!("{value:?}");
    match field.name() {
        // Ours have lines where they are many. None begins as an event does.
        "message" => out.write_str(&print::indented(&value)),
        name if out.has_ansi_escapes() => {
            write!(out, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{}", print::in_one_line(&value))
        }
        name => write!(out, "{name}={}", print::in_one_line(&value)),
    }
}

/// Says lines of calls, which come ready.
pub(crate) fn calls(lines: &str) {
    // Who closed standard error wants no word.
    let _ = io::stderr().write_all(lines.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_others_wrote_begins_no_line_and_moves_nothing() {
        let evil = "x\n2026-11-30T00:00:00Z  INFO durward::call: forged\r\u{1b}[2J\u{9b}\u{202e}\u{2028}end";
        let said = Said::default();
        let writer = said.clone();
        let layer = layer().with_ansi(false).without_time().with_writer(move || writer.clone()).fmt_fields(fields());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(fault = %evil, count = 2, why = evil, shown = ?evil, "a server said it");
            tracing::warn!("it said {evil}");
        });
        let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(text.chars().all(|c| c == '\n' || print::safe(&c.to_string()) == c.to_string()), "{text:?}");
        assert_eq!(lines.len(), 3, "{text}");
        let first = r"a server said it fault=x\n2026-11-30T00:00:00Z  INFO durward::call: forged\r\u{1b}[2J\u{9b}\u{202e}\u{2028}end count=2 why=";
        assert!(lines[0].contains(first), "{text}");
        assert!(lines[2].starts_with("    2026-11-30"), "{text}");
    }
}
