//! What is wrong with files of test cases. They take no part in running: whoever checks or tests is told of it, and it keeps no
//! gateway from starting or reloading.

use super::{
    Named, Shown, contents,
    pattern::{self, PatternFault},
    policy_fault, unreadable,
};
use crate::config::{
    fault::{Fault, Faults, Report, Text},
    settings::PolicyFiles,
};
use policy::{PolicyFault, Source};
use std::{collections::BTreeSet, path::Path};

/// What was found in one file of cases, as faults of a configuration are shown.
pub(crate) fn in_cases(source: &Source, found: &[PolicyFault]) -> Report {
    let shown = [Shown::of(source)];
    let mut faults = Faults::default();
    for fault in found {
        faults.push(policy_fault(fault, &shown));
    }
    faults.report(Text::new(&source.name, ""))
}

/// Looks at every file of cases that is beside the policies of the configuration at `path`, whatever else is wrong with it.
pub(crate) fn look_at_cases(path: &Path, report: &mut Report) {
    let PolicyFiles { base, patterns, .. } = Named::at(path).policies;
    let mut files = BTreeSet::new();
    for pattern in &patterns {
        match pattern::cases(&base, pattern) {
            Ok(found) => files.extend(found),
            Err(fault @ PatternFault::Folder { .. }) => report.push(
                Fault::anywhere("test cases cannot be looked for")
                    .because(crate::assemble::chain(&fault))
                    .fix(fault.fix())
                    .warning(),
            ),
            // Said where the pattern stands.
            Err(PatternFault::Glob(_) | PatternFault::Files | PatternFault::Folders) => {}
        }
    }
    for file in &files {
        let name = file.display().to_string();
        let text = match contents(file) {
            Ok(text) => text,
            Err(cause) => {
                report.push(
                    unreadable(&name, &cause)
                        .fix("its name says that it holds test cases: mend it, or give it another name"),
                );
                continue;
            }
        };
        let source = Source { name, text };
        if let Err(found) = policy::check_cases(&source) {
            for fault in in_cases(&source, &found).faults() {
                report.push(fault.clone());
            }
        }
    }
}
