//! One cell: what came of each step of a session. Judges nothing.

use super::Place;
use anyhow::{Result, bail};

/// What a client told of a session.
pub(super) struct Cell {
    pub(super) place: Place,
    /// In the order of the session.
    pub(super) steps: Vec<Step>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Works,
    /// It arrives as something else.
    Turned(String),
    /// A revision has no such thing.
    Lacks(String),
    /// Somebody said no, in these words.
    Refused(String),
    Fails(String),
}

impl Cell {
    /// Finds the cell in what all clients printed.
    pub(super) fn read(place: Place, told: &str) -> Result<Self> {
        let name = place.words().replace(',', "");
        let mut lines = told.lines().skip_while(|line| line.strip_prefix("cell ") != Some(&name)).skip(1);
        let mut steps = Vec::new();
        for line in lines.by_ref().take_while(|line| !line.starts_with("cell ")) {
            // What else the client and its program print is in the log.
            steps.extend(Step::read(line));
        }
        if steps.is_empty() {
            bail!("{name}: the client told nothing");
        }
        Ok(Self { place, steps })
    }

    /// The steps that failed, in words.
    pub(super) fn failures(&self) -> impl Iterator<Item = String> {
        self.steps.iter().filter_map(|Step { name, outcome }| match outcome {
            Outcome::Fails(why) => Some(format!("  {}, {name}: {why}", self.place.words())),
            Outcome::Works | Outcome::Turned(_) | Outcome::Lacks(_) | Outcome::Refused(_) => None,
        })
    }
}

impl Step {
    fn read(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        let (name, why) = rest.split_once(": ").unwrap_or((rest, ""));
        let why = why.to_owned();
        let outcome = match word {
            "works" => Outcome::Works,
            "turned" => Outcome::Turned(why),
            "lacks" => Outcome::Lacks(why),
            "refused" => Outcome::Refused(why),
            "fails" => Outcome::Fails(why),
            _ => return None,
        };
        Some(Self { name: name.to_owned(), outcome })
    }
}
