//! What came of a run: how much was held against schemas, what was wrong, and what is no longer.

use crate::{
    expected::{Expected, Speaker},
    plan::{Direction, Leg, Plan},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// How much of a message and of a fault is shown, in characters.
const SHOWN: usize = 400;

/// A message that is not what its revision says.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// None where the gateway asks for itself.
    pub(crate) cell: Option<usize>,
    pub(crate) leg: Leg,
    pub(crate) direction: Direction,
    pub(crate) revision: Option<&'static str>,
    /// What the message is.
    pub(crate) what: String,
    /// Shortened.
    pub(crate) message: String,
    /// Each with its pointer.
    pub(crate) faults: Vec<String>,
}

/// How many messages there were: in which cell, on which leg, in which direction.
pub(crate) type Heard = BTreeMap<(Option<usize>, Leg, Direction), u64>;

pub(crate) struct Verdict {
    plan: Plan,
    heard: Heard,
    /// Each kind once, with where it was.
    invalid: BTreeMap<String, Places>,
    /// How many invalid messages were expected.
    excused: usize,
    silent: Vec<String>,
    unneeded: Vec<&'static Expected>,
}

/// Where one kind of fault was, and the first message that had it.
struct Places {
    message: String,
    count: usize,
    cells: BTreeSet<String>,
}

impl Verdict {
    pub(crate) fn of(plan: Plan, heard: Heard, faults: &[Fault], expected: &'static [Expected]) -> Self {
        let said = said(faults, expected);
        let (excused, wrong): (Vec<_>, Vec<_>) = faults.iter().partition(|fault| is_excused(fault, expected, &said));
        let mut invalid = BTreeMap::new();
        for fault in wrong {
            note(&mut invalid, &plan, fault);
        }
        let is_said = |number: &usize| said.iter().any(|(_, known)| known == number);
        let unneeded = expected.iter().enumerate().filter(|(number, _)| plan.is_whole && !is_said(number));
        let unneeded = unneeded.map(|(_, expected)| expected).collect();
        let silent = silent(&plan, &heard);
        Self { plan, heard, invalid, excused: excused.len(), silent, unneeded }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.invalid.is_empty() && self.silent.is_empty() && self.unneeded.is_empty()
    }
}

/// The cells in which somebody says what is expected of them, and what.
fn said(faults: &[Fault], expected: &[Expected]) -> BTreeSet<(Option<usize>, usize)> {
    let mut said = BTreeSet::new();
    for fault in faults {
        for (number, expected) in expected.iter().enumerate() {
            let speaker = match (fault.leg, fault.direction) {
                (Leg::Client(_), Direction::Up) => Some(Speaker::Client),
                (Leg::Server(_), Direction::Down) => Some(Speaker::Server),
                _ => None,
            };
            if speaker == Some(expected.speaker) && fault.faults.iter().any(|text| expected.covers(fault, text)) {
                said.insert((fault.cell, number));
            }
        }
    }
    said
}

/// Whether everything that is wrong with a message is expected of whoever said it first. What the gateway asks servers
/// for itself, it may tell any client.
fn is_excused(fault: &Fault, expected: &[Expected], said: &BTreeSet<(Option<usize>, usize)>) -> bool {
    let speaker = match fault.direction {
        Direction::Up => Speaker::Client,
        Direction::Down => Speaker::Server,
    };
    fault.faults.iter().all(|text| {
        expected.iter().enumerate().any(|(number, expected)| {
            let is_said = said.contains(&(fault.cell, number)) || said.contains(&(None, number));
            is_said && expected.speaker == speaker && expected.covers(fault, text)
        })
    })
}

impl Expected {
    fn covers(&self, fault: &Fault, text: &str) -> bool {
        let is_of_revision = fault.revision.is_some_and(|revision| self.revisions.contains(&revision));
        is_of_revision && self.what == fault.what && text.starts_with(self.fault) && text.contains(self.quoting)
    }
}

fn note(invalid: &mut BTreeMap<String, Places>, plan: &Plan, fault: &Fault) {
    let faults: Vec<String> = fault.faults.iter().map(|text| shortened(text)).collect();
    let server = match fault.leg {
        Leg::Server(number) => plan.servers.get(number).map_or(String::new(), |server| format!(" {}", server.name)),
        Leg::Client(_) | Leg::Carried(_) => String::new(),
    };
    let kind = format!(
        "{}{server}, {}, {}:\n    {}",
        fault.leg.words(fault.direction),
        fault.revision.unwrap_or("no revision"),
        fault.what,
        faults.join("\n    ")
    );
    let cell = fault.cell.and_then(|cell| plan.cell(cell));
    let cell = cell.map_or_else(|| "what the gateway asks for itself".to_owned(), |cell| cell.name.clone());
    let places = invalid.entry(kind).or_insert_with(|| Places {
        message: fault.message.clone(),
        count: 0,
        cells: BTreeSet::new(),
    });
    places.count += 1;
    places.cells.insert(cell);
}

/// The beginning of a long text, and how long it is.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", text.get(..end).unwrap_or_default(), text.len()),
        None => text.to_owned(),
    }
}

/// The cells that have a leg on which somebody said nothing.
fn silent(plan: &Plan, heard: &Heard) -> Vec<String> {
    let mut silent = Vec::new();
    for (number, cell) in plan.cells.iter().enumerate() {
        let mut legs = vec![Leg::Client(number)];
        legs.extend(cell.is_piped.then_some(Leg::Carried(number)));
        // A server that is not in the plan is heard of nowhere.
        legs.push(Leg::Server(plan.server(&cell.server).unwrap_or(usize::MAX)));
        for leg in legs {
            for direction in [Direction::Up, Direction::Down] {
                if !heard.contains_key(&(Some(number), leg, direction)) {
                    silent.push(format!("{}: nothing was heard {}", cell.name, leg.words(direction)));
                }
            }
        }
    }
    silent
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, Places { message, count, cells }) in &self.invalid {
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            writeln!(f, "invalid, {kind}\n    {message}\n    {count} times in: {}", cells.join("; "))?;
        }
        for silent in &self.silent {
            writeln!(f, "{silent}")?;
        }
        for Expected { what, fault, quoting, because, .. } in &self.unneeded {
            writeln!(f, "expected, and nobody says it any more: {what}, {fault}{quoting} ({because})")?;
        }
        let messages: u64 = self.heard.values().sum();
        let legs: BTreeSet<_> = self.heard.keys().map(|(cell, leg, _)| (cell, leg)).collect();
        let cells: BTreeSet<_> = self.heard.keys().filter_map(|(cell, ..)| *cell).collect();
        let own: u64 = self.heard.iter().filter(|((cell, ..), _)| cell.is_none()).map(|(_, count)| count).sum();
        writeln!(
            f,
            "{messages} messages of {} legs in {} of {} cells held against schemas; {own} are of what the gateway asks \
             for itself, {} are expected to be invalid",
            legs.len(),
            cells.len(),
            self.plan.cells.len(),
            self.excused
        )
    }
}
