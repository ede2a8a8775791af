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
pub(super) struct Page {
    text: String,
    /// What failed, with its cell: nothing that a page may say is so.
    failures: Vec<String>,
}

impl Page {
    pub(super) fn of(cells: &[Cell]) -> Self {
        let mut notes = Notes::default();
        let mut text = String::new();
        for trial in &TRIALS {
            text += &steps(trial, cells);
            text.extend(DOORS.into_iter().map(|door| table(trial, door, cells, &mut notes)));
        }
        Self { text: text + &notes.text(), failures: cells.iter().flat_map(Cell::failures).collect() }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Writes the page, or holds it against this one. What failed is neither written nor accepted.
    pub(super) fn settle(&self, root: &Path, is_written: bool) -> Result<()> {
        if !self.failures.is_empty() {
            bail!("{} steps failed, which no page makes right:\n{}", self.failures.len(), self.failures.join("\n"));
        }
        let path = root.join(PAGE);
        let old = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
        let (head, rest) = old.split_once(BEGIN).with_context(|| format!("{PAGE} has no line {BEGIN}"))?;
        let (written, tail) = rest.split_once(END).with_context(|| format!("{PAGE} has no line {END}"))?;
        if written == self.text {
            return Ok(());
        }
        if is_written {
            return fs::write(&path, format!("{head}{BEGIN}{}{END}{tail}", self.text)).context("cannot write the page");
        }
        for line in written.lines().filter(|line| !self.text.lines().any(|new| new == *line)) {
            eprintln!("- {line}");
        }
        for line in self.text.lines().filter(|line| !written.lines().any(|old| old == *line)) {
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

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, PAGE, Page};
    use crate::matrix::{
        cell::{Cell, Outcome, Step},
        roster::{Door, Place, TRIALS},
    };
    use std::fs;

    fn page_of(outcome: Outcome) -> Page {
        let trial = &TRIALS[0];
        let place = Place { trial, client: &trial.clients[0], server: &trial.servers[0], door: Door::Own };
        Page::of(&[Cell { place, steps: vec![Step { name: "session".to_owned(), outcome }] }])
    }

    #[test]
    fn what_failed_is_neither_written_nor_accepted() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("docs")).unwrap();
        let empty = format!("before\n{BEGIN}{END}after\n");
        fs::write(root.path().join(PAGE), &empty).unwrap();
        let read = || fs::read_to_string(root.path().join(PAGE)).unwrap();

        let failed = page_of(Outcome::Fails("-32603 “internal error”".to_owned()));
        let why = failed.settle(root.path(), true).unwrap_err().to_string();
        assert!(why.contains("session: -32603"), "{why}");
        assert_eq!(read(), empty);
        // A page that has it already is none the better for it.
        fs::write(root.path().join(PAGE), format!("before\n{BEGIN}{}{END}after\n", failed.text())).unwrap();
        assert!(failed.settle(root.path(), false).is_err());

        let refused = page_of(Outcome::Refused("-32602 “no”".to_owned()));
        refused.settle(root.path(), true).unwrap();
        assert!(read().contains("refused: -32602"), "{}", read());
        refused.settle(root.path(), false).unwrap();
    }
}
