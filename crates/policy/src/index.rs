//! Finds the rules whose target matches, among thousands, without asking each.

use crate::{
    pattern::{PatternError, Patterns},
    rule::Rule,
};
use std::collections::BTreeMap;

/// Rules by server glob, then by name glob.
#[derive(Debug)]
pub(crate) struct Index {
    servers: Patterns,
    shelves: Vec<Shelf>,
}

/// The targets behind one server glob; `places` runs parallel to the globs.
#[derive(Debug)]
struct Shelf {
    names: Patterns,
    places: Vec<Place>,
}

/// Where a target stands: the position of its rule, and its own in that rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) rule: usize,
    pub(crate) target: usize,
}

impl Index {
    /// Sorts the rules' targets. Every glob has been checked before.
    pub(crate) fn build(rules: &[Rule]) -> Result<Self, PatternError> {
        let mut by_server: BTreeMap<&str, Vec<(&str, Place)>> = BTreeMap::new();
        for (at, rule) in rules.iter().enumerate() {
            for (place, target) in rule.targets.iter().enumerate() {
                let place = Place { rule: at, target: place };
                by_server.entry(&target.server).or_default().push((&target.name, place));
            }
        }
        let servers = Patterns::compile(by_server.keys().copied())?;
        let shelves = by_server
            .values()
            .map(|targets| {
                let names = Patterns::compile(targets.iter().map(|(name, _)| *name))?;
                Ok(Shelf { names, places: targets.iter().map(|(_, place)| *place).collect() })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { servers, shelves })
    }

    /// The positions of the rules with a target that matches, ascending, each once. Not inlined: each call asks twice.
    #[inline(never)]
    pub(crate) fn find(&self, server: &str, name: &str) -> Vec<usize> {
        let mut found = Vec::new();
        for shelf in self.shelves(server) {
            found.extend(shelf.names.positions(name).filter_map(|at| shelf.places.get(at)).map(|place| place.rule));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The targets on this server, ascending.
    pub(crate) fn on_server(&self, server: &str) -> Vec<Place> {
        let mut found = Vec::new();
        for shelf in self.shelves(server) {
            found.extend_from_slice(&shelf.places);
        }
        found.sort_unstable();
        found
    }

    fn shelves(&self, server: &str) -> impl Iterator<Item = &Shelf> {
        self.servers.positions(server).filter_map(|at| self.shelves.get(at))
    }
}
