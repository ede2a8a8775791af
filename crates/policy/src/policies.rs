//! Compiled policies: what was loaded, under which version, and which rules speak about a question.

use crate::{
    PolicyFault, PolicyWarning, Resource, RuleSpec, Subject, condition::Condition, index::Index, load, rule::Rule,
};
use std::collections::BTreeSet;
use vocab::{Action, Digest};

/// One policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file's name, for messages. One that ends in `.json` holds JSON, in `.yaml` or `.yml` YAML;
    /// otherwise a text that begins with `{` is JSON.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Rules that are ready to decide. Never changes: a reload compiles anew and swaps.
#[derive(Debug)]
pub struct Policies {
    pub(crate) rules: Vec<Rule>,
    pub(crate) index: Index,
    version: Digest,
    warnings: Vec<PolicyWarning>,
    /// What some rule decides by the time.
    timed: BTreeSet<Action>,
}

impl Policies {
    /// Compiles all files together, or says everything that is wrong with any of them.
    ///
    /// No files at all are policies too: they deny everything.
    pub fn compile(sources: &[Source]) -> Result<Self, Vec<PolicyFault>> {
        let loaded = load::rules(sources)?;
        let index = Index::build(&loaded.rules).map_err(|error| {
            vec![PolicyFault {
                file: sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", "),
                rule: None,
                case: None,
                place: None,
                cause: error.to_string(),
                fix: String::from("use fewer or simpler globs"),
            }]
        })?;
        let timed = loaded.rules.iter().filter(|rule| rule.condition.as_ref().is_some_and(Condition::reads_clock));
        let timed = timed.flat_map(|rule| rule.spec.actions.iter().copied()).collect();
        Ok(Self { rules: loaded.rules, index, version: version(sources), warnings: loaded.warnings, timed })
    }

    /// Whether some rule decides such an action by the time: then an answer is good for the second that it was given in.
    /// Else one that was given stands for as long as the question is the same.
    pub fn reads_clock(&self, action: Action) -> bool {
        self.timed.contains(&action)
    }

    /// The digest of the texts of all files, in whatever order and under whatever names.
    pub const fn version(&self) -> &Digest {
        &self.version
    }

    /// What loads, but hardly says what its author means.
    pub fn warnings(&self) -> &[PolicyWarning] {
        &self.warnings
    }

    /// How many rules there are.
    pub const fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Every rule, as its file states it.
    pub fn rules(&self) -> impl Iterator<Item = &RuleSpec> {
        self.rules.iter().map(|rule| &rule.spec)
    }

    /// The rules that speak about such a question, conditions aside.
    pub(crate) fn applicable<'p, 'q>(
        &'p self,
        subject: &'q Subject,
        action: Action,
        resource: &'q Resource,
    ) -> impl Iterator<Item = &'p Rule> + use<'p, 'q> {
        self.named(resource.id.server.as_str(), &resource.id.name)
            .filter(move |rule| rule.fits_subject(subject, action) && rule.fits_resource(resource))
    }

    /// The rules that have a target for `server/name`.
    pub(crate) fn named<'p>(&'p self, server: &str, name: &str) -> impl Iterator<Item = &'p Rule> + use<'p> {
        self.index.find(server, name).into_iter().filter_map(|at| self.rules.get(at))
    }
}

/// The texts, wherever they lie: a copy elsewhere, or one named by another way, decides alike and is the same version. Rules
/// have no order, so neither have files. A digest of each has one length, so that no two sets of texts have one version.
fn version(sources: &[Source]) -> Digest {
    let mut texts: Vec<Digest> = sources.iter().map(|source| Digest::of(source.text.as_bytes())).collect();
    texts.sort_unstable();
    Digest::of_parts(&texts.iter().map(|text| text.as_bytes().as_slice()).collect::<Vec<_>>())
}
