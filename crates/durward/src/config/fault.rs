//! What is wrong with a configuration, and how it is shown: line, caret, cause, fix.

use super::{tree::Span, veil};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::{fmt, sync::Arc};

/// One thing that is wrong, or that deserves a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What is wrong, in one sentence without a full stop.
    pub(crate) what: String,
    /// What stands beside the caret.
    label: String,
    /// What to do.
    fix: Option<String>,
    /// Where; none: in no place of this file.
    span: Option<Span>,
    /// The file that the place is in; none: the configuration itself.
    pub(super) inside: Option<Arc<Text>>,
    /// It does not stop the start.
    warning: bool,
}

/// A file and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    path: String,
    source: String,
}

impl Text {
    /// The file `path`, which says `source`.
    pub(super) fn new(path: &str, source: &str) -> Self {
        Self { path: path.to_owned(), source: source.to_owned() }
    }
}

impl Fault {
    /// A fault at a place.
    pub(super) fn at(span: &Span, what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            label: String::new(),
            fix: None,
            span: Some(span.clone()),
            inside: None,
            warning: false,
        }
    }

    /// A fault of no place in this file.
    pub(super) fn anywhere(what: impl Into<String>) -> Self {
        Self { what: what.into(), label: String::new(), fix: None, span: None, inside: None, warning: false }
    }

    /// Says beside the caret why.
    pub(super) fn because(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says what to do.
    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Says that the place is in another file than the configuration. Its text must hide what is secret.
    pub(super) fn inside(mut self, text: Arc<Text>) -> Self {
        self.inside = Some(text);
        self
    }

    /// Makes it a warning.
    pub(super) fn warning(mut self) -> Self {
        self.warning = true;
        self
    }

    /// Whether it stops the start.
    pub(crate) fn stops(&self) -> bool {
        !self.warning
    }

    /// Why, where that is said.
    pub(crate) fn cause(&self) -> Option<&str> {
        Some(self.label.as_str()).filter(|label| !label.is_empty())
    }

    /// What to do, where that is known.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.fix.as_deref()
    }
}

/// Faults while they are being collected.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// What was found, in any order.
    pub(super) found: Vec<Fault>,
    /// Places whose text may be secret.
    pub(super) veiled: Vec<Span>,
}

impl Faults {
    /// Takes one more.
    pub(super) fn push(&mut self, fault: Fault) {
        self.found.push(fault);
    }

    /// Whether something stops the start.
    pub(super) fn stop(&self) -> bool {
        self.found.iter().any(Fault::stops)
    }

    /// Ends collecting. Faults come in the order of the file.
    pub(super) fn report(mut self, text: Text) -> Report {
        let place = |fault: &Fault| match (&fault.inside, &fault.span) {
            (None, Some(span)) => (0, String::new(), span.start),
            (None, None) => (1, String::new(), 0),
            (Some(text), span) => (2, text.path.clone(), span.as_ref().map_or(0, |span| span.start)),
        };
        self.found.sort_by_cached_key(place);
        self.found.dedup();
        let source = veil::cover(&text.source, &self.veiled);
        Report { text: Text { path: text.path, source }, faults: self.found }
    }
}

/// Files that a summary names.
const FILES: usize = 8;

/// Everything that was found in one configuration. Holds no secret: its source is covered where one may be.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    text: Text,
    faults: Vec<Fault>,
}

impl Report {
    /// Faults and warnings, in the order of the file.
    pub(crate) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Takes one more, of no place in the file.
    pub(super) fn push(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// How many stop the start.
    pub(crate) fn errors(&self) -> usize {
        self.faults.iter().filter(|fault| fault.stops()).count()
    }

    /// How many do not.
    pub(crate) fn warnings(&self) -> usize {
        self.faults.len() - self.errors()
    }

    /// Warnings that `before` has not, or not as often: one line each.
    pub(crate) fn warnings_beyond(&self, before: &Self) -> Vec<String> {
        let count = |report: &Self, wanted: &Fault| {
            let same = |fault: &&Fault| report.subject(fault) == self.subject(wanted);
            report.faults.iter().filter(same).count()
        };
        let new = self.faults.iter().filter(|fault| fault.warning && count(self, fault) > count(before, fault));
        new.map(|fault| self.line(fault)).collect()
    }

    /// The first fault that stops the start in one line, and how many more do.
    pub(crate) fn first(&self) -> Option<String> {
        let first = self.faults.iter().find(|fault| fault.stops())?;
        let more = self.errors().saturating_sub(1);
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        Some(format!("{}{more}", self.line(first)))
    }

    /// What a fault says, and of which words: its place may be another tomorrow.
    fn subject<'a>(&'a self, fault: &'a Fault) -> [&'a str; 4] {
        let text = self.text_of(fault);
        let words = fault.span.clone().and_then(|span| text.source.get(span)).unwrap_or_default();
        [&fault.what, &fault.label, &text.path, words]
    }

    /// `warning: this can never match: … (durward.yaml:7:5)`, or `error: …`
    fn line(&self, fault: &Fault) -> String {
        let why = fault.cause().map(|why| format!(": {why}")).unwrap_or_default();
        let place = self.place(fault).map(|(file, line, column)| format!(" ({file}:{line}:{column})"));
        let level = if fault.warning { "warning" } else { "error" };
        format!("{level}: {}{why}{}", fault.what, place.unwrap_or_default())
    }

    /// The configuration's own file.
    pub(crate) fn path(&self) -> &str {
        &self.text.path
    }

    /// File, line and column of a fault; the latter from 1.
    pub(crate) fn place<'a>(&'a self, fault: &'a Fault) -> Option<(&'a str, usize, usize)> {
        let text = self.text_of(fault);
        let before = text.source.get(..fault.span.as_ref()?.start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some((&text.path, line, column))
    }

    fn text_of<'a>(&'a self, fault: &'a Fault) -> &'a Text {
        fault.inside.as_deref().unwrap_or(&self.text)
    }

    /// Shows everything, in colour or without.
    pub(crate) fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for fault in &self.faults {
            text.push_str(&renderer.render(&[self.group(fault)]));
            text.push_str("\n\n");
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }

    /// `2 errors, 1 warning in durward.yaml`, or of the files that they are in.
    fn summary(&self) -> String {
        let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        let path = self.path();
        match (self.errors(), self.warnings()) {
            (0, 0) => format!("{path} is good"),
            (0, warnings) => {
                let files = self.files();
                let place = if files == path { String::new() } else { format!(" in {files}") };
                format!("{path} is good, with {}{place}", count(warnings, "warning"))
            }
            (errors, 0) => format!("{} in {}", count(errors, "error"), self.files()),
            (errors, warnings) => {
                format!("{}, {} in {}", count(errors, "error"), count(warnings, "warning"), self.files())
            }
        }
    }

    /// The files that the faults are in.
    fn files(&self) -> String {
        let mut files: Vec<&str> = Vec::new();
        for fault in &self.faults {
            let path = self.text_of(fault).path.as_str();
            if !files.contains(&path) {
                files.push(path);
            }
        }
        let more = files.len().saturating_sub(FILES);
        files.truncate(FILES);
        let named = files.join(", ");
        if more == 0 { named } else { format!("{named} and {more} more") }
    }

    fn group<'a>(&'a self, fault: &'a Fault) -> Group<'a> {
        let level = if fault.warning { Level::WARNING } else { Level::ERROR };
        let title = level.primary_title(&fault.what);
        let text = self.text_of(fault);
        let group = match &fault.span {
            Some(span) => {
                let mut caret = AnnotationKind::Primary.span(visible(&text.source, span));
                if !fault.label.is_empty() {
                    caret = caret.label(&fault.label);
                }
                title.element(Snippet::source(&text.source).path(&text.path).annotation(caret))
            }
            None if fault.label.is_empty() => Group::with_title(title),
            None => title.element(Level::NOTE.message(&fault.label)),
        };
        match &fault.fix {
            Some(fix) => group.element(Level::HELP.message(fix)),
            None => group,
        }
    }
}

/// The part of a place that is on its first line.
fn visible(source: &str, span: &Span) -> Span {
    let end = span.end.min(source.len());
    let start = span.start.min(end);
    let text = source.get(start..end).unwrap_or_default();
    let first = text.split('\n').next().unwrap_or_default().trim_end().len();
    start..start + first
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Report {}
