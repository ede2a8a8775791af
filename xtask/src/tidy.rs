//! The rules of the source that no compiler checks. Reports every breach at once; changes nothing.

mod edges;
mod pages;
mod source;

use crate::process::{self, program};
use anyhow::{Context, Result, bail};
use std::{fs, path::Path};

/// A file of the repository: its path from the root, and its text.
#[derive(Debug)]
pub(crate) struct Page {
    path: String,
    text: String,
}

impl Page {
    /// Whether the file's name ends so.
    fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|own| own == extension)
    }
}

/// What one rule found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    faults: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    fn fault(&mut self, page: &str, line: usize, what: &str) {
        self.faults.push(format!("{page}:{line}: {what}"));
    }
}

pub(crate) fn run(root: &Path) -> Result<()> {
    let pages = pages(root)?;
    let mut findings = Findings::default();
    edges::check(root, &mut findings)?;
    source::check(&pages, &mut findings)?;
    pages::check(&pages, &|path| root.join(path).exists(), &mut findings)?;
    for warning in &findings.warnings {
        eprintln!("warning: {warning}");
    }
    for fault in &findings.faults {
        eprintln!("error: {fault}");
    }
    eprintln!("{} files, {} warnings, {} errors", pages.len(), findings.warnings.len(), findings.faults.len());
    if findings.faults.is_empty() { Ok(()) } else { bail!("the tree is not tidy") }
}

/// Every text file that is committed or about to be.
fn pages(root: &Path) -> Result<Vec<Page>> {
    let mut git = program("git");
    git.current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let list = process::output(&mut git).context("tidy needs git")?;
    let mut pages = Vec::new();
    for path in list.lines() {
        // Gone from the tree, or not text: neither is read.
        let Ok(bytes) = fs::read(root.join(path)) else { continue };
        if let Ok(text) = String::from_utf8(bytes) {
            pages.push(Page { path: path.to_owned(), text });
        }
    }
    Ok(pages)
}
