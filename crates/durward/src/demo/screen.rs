//! What the demo prints, on standard output. Colours are for terminals; nobody reading is no fault.

use std::{
    cell::RefCell,
    fmt::Display,
    io::{self, IsTerminal, Write},
};

/// The screen.
pub(super) struct Screen {
    has_colours: bool,
    /// What came of writing so far.
    written: RefCell<io::Result<()>>,
}

impl Screen {
    /// Colours where somebody looks and did not decline them (`NO_COLOR`), or asked for them (`CLICOLOR_FORCE`).
    #[expect(clippy::disallowed_methods, reason = "the binary reads the environment")]
    pub(super) fn new() -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        let wanted = io::stdout().is_terminal() && !is_set("NO_COLOR");
        Self { has_colours: wanted || is_set("CLICOLOR_FORCE"), written: RefCell::new(Ok(())) }
    }

    /// A line as it is.
    pub(super) fn line(&self, text: impl Display) {
        match writeln!(io::stdout(), "{text}") {
            // A pipe that nobody reads any more is no reason to end.
            Err(fault) if fault.kind() != io::ErrorKind::BrokenPipe => *self.written.borrow_mut() = Err(fault),
            Ok(()) | Err(_) => {}
        }
    }

    /// Whether everything could be written that somebody reads.
    pub(super) fn written(&self) -> io::Result<()> {
        self.written.replace(Ok(()))
    }

    pub(super) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// A step: what it is, whether it did that, and what it has to show.
    pub(super) fn step(&self, number: usize, title: &str, did: bool, lines: &[String]) {
        let mark = if did { self.paint("32", "✓") } else { self.paint("31", "✗") };
        self.line(format!("  {mark} {number} {}", self.bold(title)));
        for line in lines {
            self.line(format!("      {}", self.dim(line)));
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.has_colours { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
