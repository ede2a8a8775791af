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

/// The rules behind one server glob; `rules` runs parallel to the globs.
#[derive(Debug)]
struct Shelf {
    names: Patterns,
    rules: Vec<usize>,
}

impl Index {
    /// Sorts the rules' targets. Every glob has been checked before.
    pub(crate) fn build(rules: &[Rule]) -> Result<Self, PatternError> {
        let mut by_server: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
        for (at, rule) in rules.iter().enumerate() {
            for target in &rule.targets {
                by_server.entry(&target.server).or_default().push((&target.name, at));
            }
        }
        let servers = Patterns::compile(by_server.keys().copied())?;
        let shelves = by_server
            .values()
            .map(|targets| {
                let names = Patterns::compile(targets.iter().map(|(name, _)| *name))?;
                Ok(Shelf { names, rules: targets.iter().map(|(_, at)| *at).collect() })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { servers, shelves })
    }

    /// The positions of the rules with a target that matches, ascending, each once.
    pub(crate) fn find(&self, server: &str, name: &str) -> Vec<usize> {
        let mut found = Vec::new();
        let (mut shelves, mut targets) = (Vec::new(), Vec::new());
        self.servers.positions(server, &mut shelves);
        for shelf in shelves.iter().filter_map(|at| self.shelves.get(*at)) {
            shelf.names.positions(name, &mut targets);
            found.extend(targets.iter().filter_map(|at| shelf.rules.get(*at)));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The positions of the rules with a target on this server, ascending, each once.
    pub(crate) fn on_server(&self, server: &str) -> Vec<usize> {
        let mut shelves = Vec::new();
        self.servers.positions(server, &mut shelves);
        let mut found: Vec<usize> = shelves
            .iter()
            .filter_map(|at| self.shelves.get(*at))
            .flat_map(|shelf| shelf.rules.iter().copied())
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}
