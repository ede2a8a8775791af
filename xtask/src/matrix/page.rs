//! The page: tables of cells, with a number for each exception, and the exceptions in words.

use super::{
    cell::{Cell, Outcome},
    roster::{DOORS, Door, TRIALS, Trial},
};
use anyhow::{Context, Result, bail};
use std::{fs, path::Path};

const PAGE: &str = "docs/compatibility.md";
const BEGIN: &str = "<!-- cargo xtask matrix --write -->\n";
const END: &str = "<!-- end -->\n";

/// The part of the page that is written by a run.
pub(super) struct Page(String);

impl Page {
    pub(super) fn of(cells: &[Cell]) -> Self {
        let mut notes = Notes::default();
        let mut text = String::new();
        for trial in &TRIALS {
            text += &steps(trial, cells);
            text.extend(DOORS.into_iter().map(|door| table(trial, door, cells, &mut notes)));
        }
        Self(text + &notes.text())
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Writes the page, or holds it against this one.
    pub(super) fn settle(&self, root: &Path, is_written: bool) -> Result<()> {
        let path = root.join(PAGE);
        let old = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
        let (head, rest) = old.split_once(BEGIN).with_context(|| format!("{PAGE} has no line {BEGIN}"))?;
        let (written, tail) = rest.split_once(END).with_context(|| format!("{PAGE} has no line {END}"))?;
        if written == self.0 {
            return Ok(());
        }
        if is_written {
            return fs::write(&path, format!("{head}{BEGIN}{}{END}{tail}", self.0)).context("cannot write the page");
        }
        for line in written.lines().filter(|line| !self.0.lines().any(|new| new == *line)) {
            eprintln!("- {line}");
        }
        for line in self.0.lines().filter(|line| !written.lines().any(|old| old == *line)) {
            eprintln!("+ {line}");
        }
        bail!("{PAGE} (-) says something else than this run (+); `cargo xtask matrix --write` writes what is so now")
    }
}

/// What a session of a trial tries, as its first cell has it.
fn steps(trial: &Trial, cells: &[Cell]) -> String {
    let first = cells.iter().find(|cell| cell.place.trial.name == trial.name);
    let steps: Vec<&str> = first.into_iter().flat_map(|cell| &cell.steps).map(|step| &*step.name).collect();
    format!("The steps {}: {}.\n\n", trial.of, steps.join(", "))
}

fn table(trial: &Trial, door: Door, cells: &[Cell], notes: &mut Notes) -> String {
    let servers: Vec<&str> = trial.servers.iter().map(|server| server.name).collect();
    let mut lines = vec![
        format!("### {} `{}`", trial.title, door.words()),
        String::new(),
        format!("| client \\ server | {} |", servers.join(" | ")),
        format!("|---|{}", "---|".repeat(servers.len())),
    ];
    for client in trial.clients {
        let row = trial.servers.iter().map(|server| {
            let cell = cells.iter().find(|cell| cell.place.is(trial, client, server, door));
            cell.map_or_else(|| "not run".to_owned(), |cell| notes.shorten(cell))
        });
        let row: Vec<String> = row.collect();
        lines.push(format!("| **{}** | {} |", client.name, row.join(" | ")));
    }
    lines.join("\n") + "\n\n"
}

/// Exceptions, numbered as they come: the step, and what came of it.
#[derive(Default)]
struct Notes(Vec<(String, Outcome)>);

impl Notes {
    /// What a table says of a cell.
    fn shorten(&mut self, cell: &Cell) -> String {
        let works = cell.steps.iter().filter(|step| step.outcome == Outcome::Works).count();
        let exceptions: Vec<String> = cell
            .steps
            .iter()
            .filter(|step| step.outcome != Outcome::Works)
            .map(|step| self.number(&step.name, &step.outcome).to_string())
            .collect();
        if exceptions.is_empty() { format!("all {works}") } else { format!("{works}, see {}", exceptions.join(" ")) }
    }

    fn number(&mut self, name: &str, outcome: &Outcome) -> usize {
        let known = self.0.iter().position(|(step, of)| step == name && of == outcome);
        known.unwrap_or_else(|| {
            self.0.push((name.to_owned(), outcome.clone()));
            self.0.len() - 1
        }) + 1
    }

    fn text(&self) -> String {
        let mut lines: Vec<String> =
            ["### What is not as it is within one revision", "", "| | step | what comes of it |", "|---:|---|---|"]
                .map(str::to_owned)
                .into();
        for (index, (step, outcome)) in self.0.iter().enumerate() {
            let what = match outcome {
                Outcome::Works => "works".to_owned(),
                Outcome::Turned(into) => into.clone(),
                Outcome::Lacks(why) => format!("not tried: {why}"),
                Outcome::Refused(why) => format!("refused: {why}"),
                Outcome::Fails(why) => format!("**fails**: {why}"),
            };
            lines.push(format!("| {} | {step} | {} |", index + 1, what.replace('|', "\\|")));
        }
        lines.join("\n") + "\n"
    }
}
