//! Finds the files that a pattern names: `policies/*.json`, `policies/**/*.yaml`.

use globset::{GlobBuilder, GlobMatcher};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How deep `**` looks.
const DEEPEST: usize = 16;
/// The most files of one pattern.
const MOST_FILES: usize = 10_000;

/// The files that `pattern` names from `base` on, sorted. Test cases and hidden files are passed over.
pub(super) fn expand(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![if pattern.starts_with('/') { PathBuf::from("/") } else { base.to_owned() }];
    for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
        found = step(&found, part)?;
    }
    found.retain(|path| path.is_file() && !is_test_case(path));
    found.sort();
    found.dedup();
    if found.len() > MOST_FILES {
        return Err(format!("it matches more than {MOST_FILES} files"));
    }
    Ok(found.iter().map(|path| path.strip_prefix("./").map_or_else(|_| path.clone(), Path::to_owned)).collect())
}

/// Whether a file holds test cases of policies rather than policies.
pub(crate) fn is_test_case(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| Path::new(stem).extension().is_some_and(|end| end == "test"))
}

/// What `part` of a pattern makes of the paths found so far.
fn step(from: &[PathBuf], part: &str) -> Result<Vec<PathBuf>, String> {
    if part == "**" {
        let mut all = from.to_vec();
        let mut level = from.to_vec();
        for _ in 0..DEEPEST {
            level = level.iter().flat_map(|folder| members(folder)).filter(|path| path.is_dir()).collect();
            all.extend(level.iter().cloned());
            if all.len() > MOST_FILES {
                return Err(format!("it looks into more than {MOST_FILES} folders"));
            }
        }
        return Ok(all);
    }
    if !part.contains(['*', '?', '[', '{']) {
        return Ok(from.iter().map(|folder| folder.join(part)).filter(|path| path.exists()).collect());
    }
    let glob = matcher(part)?;
    let fits = |path: &PathBuf| path.file_name().is_some_and(|name| glob.is_match(name));
    Ok(from.iter().flat_map(|folder| members(folder)).filter(fits).collect())
}

fn matcher(part: &str) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(part).literal_separator(true).build().map_err(|fault| fault.kind().to_string())?;
    Ok(glob.compile_matcher())
}

/// What is in a folder, hidden things left out; nothing where it cannot be read.
fn members(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_policies_and_pass_over_their_tests() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("policies/deep/deeper");
        fs::create_dir_all(&deep).expect("folders");
        for file in ["policies/a.json", "policies/a.test.json", "policies/b.yaml", "policies/.c.json"] {
            fs::write(folder.path().join(file), "{}").expect("a file");
        }
        fs::write(deep.join("d.json"), "{}").expect("a file");
        let names = |pattern: &str| -> Vec<String> {
            let found = expand(folder.path(), pattern).expect("a pattern");
            found.iter().map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
        };

        assert_eq!(names("policies/*.json"), ["a.json"]);
        assert_eq!(names("./policies/*"), ["a.json", "b.yaml"]);
        assert_eq!(names("policies/**/*.json"), ["a.json", "d.json"]);
        assert_eq!(names("policies/b.yaml"), ["b.yaml"]);
        assert_eq!(names("policies/*.{json,yaml}"), ["a.json", "b.yaml"]);
        assert!(names("no/such/*.json").is_empty());
        assert!(expand(folder.path(), "policies/[").is_err());
    }
}
