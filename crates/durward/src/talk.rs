//! What the program says on standard error.
//!
//! Every call says a line, so its line is written as plainly as it can be, and lines of calls that were closed
//! together leave together. They read as all others do.

use std::{
    env::VarError,
    error::Error as _,
    fmt,
    io::{self, IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{Format, Writer},
        layer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// The target of the lines of calls.
const CALL: &str = "durward::call";
/// Bytes of gathered lines from which on they leave by themselves.
const ENOUGH: usize = 16 << 10;

/// Lines that were said and not written yet.
static GATHERED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

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
    let said = layer()
        .with_ansi(io::stderr().is_terminal())
        .event_format(Line(Format::default()))
        .with_writer(Stderr)
        .log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(said).init();
    if let Some(fault) = misread {
        tracing::warn!(fault, "DURWARD_LOG is not understood; as much is said as without it");
    }
}

/// Writes the lines of calls that wait for others.
pub(crate) fn flush() {
    // Who closed standard error wants no word.
    let _ = leave(&mut gathered());
}

fn gathered() -> MutexGuard<'static, Vec<u8>> {
    GATHERED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn leave(lines: &mut Vec<u8>) -> io::Result<()> {
    let written = if lines.is_empty() { Ok(()) } else { io::stderr().write_all(lines) };
    lines.clear();
    written
}

/// Where lines go: those of calls wait, any other takes with it what waits, so that the order is kept.
struct Stderr;

impl MakeWriter<'_> for Stderr {
    type Writer = Gathering;

    fn make_writer(&self) -> Gathering {
        Gathering { is_call: false }
    }

    fn make_writer_for(&self, said: &Metadata<'_>) -> Gathering {
        Gathering { is_call: said.target() == CALL }
    }
}

struct Gathering {
    is_call: bool,
}

impl Write for Gathering {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = gathered();
        lines.extend_from_slice(line);
        if !self.is_call || lines.len() >= ENOUGH {
            leave(&mut lines)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines of calls without colours by itself, to the byte as the library's format would, which asks for the
/// colour of each part.
struct Line(Format);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, said: &Event<'_>) -> fmt::Result {
        let about = said.metadata();
        if to.has_ansi_escapes() || about.target() != CALL || *about.level() != Level::INFO {
            return self.0.format_event(context, to, said);
        }
        SystemTime.format_time(&mut to)?;
        to.write_str("  INFO durward::call:")?;
        let mut fields = Fields { to: to.by_ref(), written: Ok(()) };
        said.record(&mut fields);
        fields.written?;
        to.write_char('\n')
    }
}

/// ` name="value"` after each other.
struct Fields<'a> {
    to: Writer<'a>,
    written: fmt::Result,
}

impl Fields<'_> {
    fn name(&mut self, field: &Field) -> fmt::Result {
        self.to.write_char(' ')?;
        self.to.write_str(field.name())?;
        self.to.write_char('=')
    }

    fn text(&mut self, field: &Field, value: &str) -> fmt::Result {
        self.name(field)?;
        if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            self.to.write_char('"')?;
            self.to.write_str(value)?;
            self.to.write_char('"')
        } else {
            write!(self.to, "{value:?}")
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if self.written.is_ok() {
            self.written = self.text(field, value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.written.is_ok() {
            self.written = self.name(field).and_then(|()| write!(self.to, "{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CALL, Line};
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };
    use tracing::{Level, event};
    use tracing_subscriber::fmt::{Subscriber, format::Format};

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn say() {
        let (text, none) = ("a \"quoted\" \\ line\n\u{1b}[31m und \u{fc}", None::<&str>);
        event!(target: CALL, Level::INFO, call = %"7b0c", server = Some("files"), text, none, status = 200_u16, at = 1.5);
        event!(target: CALL, Level::WARN, call = %"7b0c", "words");
        event!(target: "durward::other", Level::INFO, call = "7b0c", "words");
    }

    /// The lines, without their times.
    fn lines(said: &Said) -> Vec<String> {
        let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn a_line_of_a_call_reads_as_any_other_line() {
        let (ours, usual) = (Said::default(), Said::default());
        let (to_ours, to_usual) = (ours.clone(), usual.clone());
        let subscriber = Subscriber::builder().with_ansi(false);
        let own = subscriber.event_format(Line(Format::default())).with_writer(move || to_ours.clone());
        tracing::subscriber::with_default(own.finish(), say);
        let library = Subscriber::builder().with_ansi(false).with_writer(move || to_usual.clone());
        tracing::subscriber::with_default(library.finish(), say);
        assert_eq!(lines(&ours), lines(&usual));
        assert!(lines(&ours)[0].contains(r#"server="files""#), "{:?}", lines(&ours));
    }
}
