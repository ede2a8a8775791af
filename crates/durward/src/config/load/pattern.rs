//! Finds the files that a pattern names: `policies/*.json`, `policies/**/*.yaml`.

use globset::{GlobBuilder, GlobMatcher};
use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// How deep `**` looks.
const DEEPEST: usize = 16;
/// The most files of one pattern.
const MOST_FILES: usize = 10_000;
/// How the names of files with test cases end.
const CASES: [&str; 3] = [".test.json", ".test.yaml", ".test.yml"];

/// Why there is no saying which files a pattern names.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatternFault {
    /// A part of it is no glob.
    #[error("{0}")]
    Glob(globset::ErrorKind),
    /// There are too many.
    #[error("it matches more than {} files", MOST_FILES)]
    Files,
    /// They would take too long to find.
    #[error("it looks into more than {} folders", MOST_FILES)]
    Folders,
    /// Nobody can say what is in there.
    #[error("cannot read {}", folder.display())]
    Folder {
        folder: PathBuf,
        #[source]
        cause: io::Error,
    },
}

impl PatternFault {
    /// What to do.
    pub(crate) const fn fix(&self) -> &'static str {
        match self {
            Self::Glob(_) => "close each `[` and `{`, or put `\\` before a letter that is meant as such",
            Self::Files | Self::Folders => "begin with a folder that holds policies and little else",
            Self::Folder { .. } => "give whoever runs this the right to read the folder",
        }
    }
}

/// A folder that is looked into, and what counts there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Look {
    pub(crate) folder: PathBuf,
    pub(crate) part: Part,
}

impl Look {
    /// For a file. Where its folder is missing: for what is missing of the way to it.
    pub(crate) fn at(file: &Path) -> Option<Self> {
        file.ancestors().find_map(|wanted| {
            let folder = wanted.parent()?;
            let folder = if folder == Path::new("") { Path::new(".") } else { folder };
            let part = Part::Name(wanted.file_name()?.to_owned());
            folder.is_dir().then(|| Self { folder: folder.to_owned(), part })
        })
    }
}

/// How many links lead on to another before that counts as a circle, as for the system.
const LINKS: usize = 40;

impl Look {
    /// For every link on the way to a file, and what it leads to: that may be another tomorrow.
    pub(crate) fn links_to(file: &Path) -> Vec<Self> {
        let mut looks = Vec::new();
        let mut path = file.to_owned();
        for _ in 0..LINKS {
            let link = path.ancestors().find_map(|way| Some((way, fs::read_link(way).ok()?)));
            let Some((way, target)) = link else { break };
            let rest = path.strip_prefix(way).unwrap_or(Path::new(""));
            let next = way.parent().unwrap_or(Path::new("")).join(target);
            let next = if rest == Path::new("") { next } else { next.join(rest) };
            looks.extend(Self::at(way));
            looks.extend(Self::at(&next));
            path = next;
        }
        looks
    }
}

/// A part of a pattern, between two slashes.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// `**`: any folder, however deep.
    Deeper,
    /// Exactly this.
    Name(OsString),
    /// What a glob matches.
    Glob(GlobMatcher),
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Deeper, Self::Deeper) => true,
            (Self::Name(one), Self::Name(other)) => one == other,
            (Self::Glob(one), Self::Glob(other)) => one.glob() == other.glob(),
            (Self::Deeper | Self::Name(_) | Self::Glob(_), _) => false,
        }
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self, PatternFault> {
        if text == "**" {
            return Ok(Self::Deeper);
        }
        if !text.contains(['*', '?', '[', '{']) {
            return Ok(Self::Name(text.into()));
        }
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        let glob = glob.map_err(|fault| PatternFault::Glob(fault.kind().clone()))?;
        Ok(Self::Glob(glob.compile_matcher()))
    }

    /// Whether it speaks of what is at `path`.
    pub(crate) fn fits(&self, path: &Path) -> bool {
        let Some(name) = path.file_name() else { return false };
        match self {
            Self::Deeper => !is_hidden(path) && path.is_dir(),
            Self::Name(own) => name == own,
            Self::Glob(glob) => !is_hidden(path) && glob.is_match(name),
        }
    }
}

/// The files that `pattern` names from `base` on, sorted. Test cases and hidden files are passed over.
pub(super) fn expand(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, PatternFault> {
    let mut found = walk(base, pattern, |_, _| {})?;
    found.retain(|path| !is_test_case(path));
    if found.len() > MOST_FILES {
        return Err(PatternFault::Files);
    }
    Ok(found)
}

/// The test cases of the policies that `pattern` names: those that it names itself, and those beside policies that are
/// there or could be.
pub(crate) fn cases(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, PatternFault> {
    let mut folders = Vec::new();
    let mut found = walk(base, pattern, |last, _| folders = last.to_vec())?;
    found.retain(|path| is_test_case(path));
    let is_case = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        CASES.iter().any(|end| name.ends_with(end))
    };
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        // A case that cannot be read has not passed.
        let entries = fs::read_dir(folder);
        let entries = entries.map_err(|cause| PatternFault::Folder { folder: folder.clone(), cause })?;
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        found.extend(paths.filter(|path| !is_hidden(path) && is_case(path)).map(|path| plain(&path)));
    }
    Ok(found)
}

/// Every folder that `pattern` looks into from `base` on. Where that cannot be said, those of its beginning.
pub(crate) fn looks(base: &Path, pattern: &str) -> Vec<Look> {
    let mut looks = Vec::new();
    let _ = walk(base, pattern, |folders, part| {
        looks.extend(folders.iter().map(|folder| Look { folder: folder.clone(), part: part.clone() }));
    });
    looks
}

/// The files that `pattern` names, sorted. `look` is told which folders each part is looked for in.
fn walk(base: &Path, pattern: &str, mut look: impl FnMut(&[PathBuf], &Part)) -> Result<Vec<PathBuf>, PatternFault> {
    let mut found = vec![if pattern.starts_with('/') { PathBuf::from("/") } else { base.to_owned() }];
    for text in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let part = Part::parse(text)?;
        let next = step(&found, &part)?;
        match part {
            // New folders may come into any of them.
            Part::Deeper => look(&next, &part),
            Part::Name(_) | Part::Glob(_) => look(&found, &part),
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    found.sort();
    found.dedup();
    Ok(found.iter().map(|path| plain(path)).collect())
}

/// Whether a file holds test cases of policies rather than policies.
fn is_test_case(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| Path::new(stem).extension().is_some_and(|end| end == "test"))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// A path as people write it.
fn plain(path: &Path) -> PathBuf {
    path.strip_prefix("./").map_or_else(|_| path.to_owned(), Path::to_owned)
}

/// What `part` of a pattern makes of the paths found so far.
fn step(from: &[PathBuf], part: &Part) -> Result<Vec<PathBuf>, PatternFault> {
    match part {
        Part::Deeper => {
            let mut all = from.to_vec();
            let mut level = from.to_vec();
            for _ in 0..DEEPEST {
                level = level.iter().flat_map(|folder| members(folder)).filter(|path| path.is_dir()).collect();
                all.extend(level.iter().cloned());
                if all.len() > MOST_FILES {
                    return Err(PatternFault::Folders);
                }
            }
            Ok(all)
        }
        Part::Name(name) => Ok(from.iter().map(|folder| folder.join(name)).filter(|path| path.exists()).collect()),
        Part::Glob(_) => Ok(from.iter().flat_map(|folder| members(folder)).filter(|path| part.fits(path)).collect()),
    }
}

/// What is in a folder, hidden things left out; nothing where it cannot be read.
fn members(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| !is_hidden(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with policies and cases.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("policies/deep/deeper")).expect("folders");
        fs::create_dir_all(folder.path().join("policies/tests")).expect("folders");
        for file in [
            "a.json",
            "a.test.json",
            "b.yaml",
            ".c.json",
            "deep/deeper/d.json",
            "deep/e.test.policy",
            "tests/f.test.yml",
            "tests/.g.test.yml",
        ] {
            fs::write(folder.path().join("policies").join(file), "{}").expect("a file");
        }
        folder
    }

    fn names(found: Result<Vec<PathBuf>, PatternFault>) -> Vec<String> {
        let found = found.expect("a pattern");
        found.iter().map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn patterns_find_policies_and_pass_over_their_tests() {
        let folder = folder();
        let names = |pattern: &str| names(expand(folder.path(), pattern));

        assert_eq!(names("policies/*.json"), ["a.json"]);
        assert_eq!(names("./policies/*"), ["a.json", "b.yaml"]);
        assert_eq!(names("policies/**/*.json"), ["a.json", "d.json"]);
        assert_eq!(names("policies/b.yaml"), ["b.yaml"]);
        assert_eq!(names("policies/*.{json,yaml}"), ["a.json", "b.yaml"]);
        assert!(names("no/such/*.json").is_empty());
        assert!(expand(folder.path(), "policies/[").is_err());
    }

    #[test]
    fn every_link_on_the_way_to_a_file_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        for release in ["releases/1", "releases/2"] {
            fs::create_dir_all(at(release)).expect("folders");
            fs::write(at(release).join("keys.json"), "{}").expect("a file");
        }
        std::os::unix::fs::symlink("releases/1", at("current")).expect("a link");
        std::os::unix::fs::symlink("current/keys.json", at("keys.json")).expect("a link");
        let looks = Look::links_to(&at("keys.json"));
        let counts = |path: &str| {
            let same = |look: &Look| {
                look.folder.canonicalize().ok() == at(path).parent().and_then(|own| own.canonicalize().ok())
            };
            looks.iter().any(|look| same(look) && look.part.fits(&at(path)))
        };
        for path in ["keys.json", "current", "releases/1/keys.json"] {
            assert!(counts(path), "{path}: {looks:?}");
        }
        assert!(!counts("releases/2/keys.json"), "{looks:?}");
        std::os::unix::fs::symlink("b", at("a")).expect("a link");
        std::os::unix::fs::symlink("a", at("b")).expect("a link");
        assert!(!Look::links_to(&at("a")).is_empty(), "a circle ends");
    }

    #[test]
    fn cases_are_found_wherever_policies_are_looked_for() {
        let folder = folder();
        let names = |pattern: &str| {
            let mut names = names(cases(folder.path(), pattern));
            names.sort();
            names.dedup();
            names
        };

        assert_eq!(names("policies/a.json"), ["a.test.json"]);
        assert_eq!(names("policies/*.yaml"), ["a.test.json"]);
        assert_eq!(names("policies/**/*.yaml"), ["a.test.json", "f.test.yml"]);
        assert_eq!(names("policies/**/*"), ["a.test.json", "e.test.policy", "f.test.yml"]);
        assert!(names("no/such/*.json").is_empty());
    }

    #[test]
    fn folders_that_are_looked_into_are_told_with_what_counts_there() {
        let folder = folder();
        let counts = |pattern: &str, path: &str| {
            let path = folder.path().join(path);
            let looks = looks(folder.path(), pattern);
            looks.iter().any(|look| Some(look.folder.as_path()) == path.parent() && look.part.fits(&path))
        };

        for (pattern, path) in [
            ("policies/*", "policies/new.policy"),
            ("policies/*.json", "policies"),
            ("no/such/*.json", "no"),
            ("policies/**/*.json", "policies/deep/deeper/new.json"),
            ("policies/**/*.json", "policies/tests"),
            ("policies/b.yaml", "policies/b.yaml"),
        ] {
            assert!(counts(pattern, path), "{path} counts for {pattern}");
        }
        for (pattern, path) in [
            ("policies/*", "said.log"),
            ("policies/*.json", "policies/said.log"),
            ("policies/*.json", "policies/.new.json"),
            ("policies/*.json", "policies/deep/new.json"),
            ("policies/**/*.json", "policies/deep/said.log"),
            ("policies/b.yaml", "policies/new.yaml"),
        ] {
            assert!(!counts(pattern, path), "{path} does not count for {pattern}");
        }
    }
}
