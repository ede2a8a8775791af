//! `durward init`: a configuration, a policy and its tests to start from.

use super::print;
use crate::cli::Exit;
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

const FILES: [(&str, &str); 3] = [
    ("durward.yaml", include_str!("init/durward.yaml")),
    ("policies/start.json", include_str!("init/start.json")),
    ("policies/start.test.json", include_str!("init/start.test.json")),
];

/// Writes the files into `folder`. Overwrites nothing.
pub(crate) fn run(folder: &Path) -> Result<Exit> {
    let there: Vec<_> = FILES.iter().map(|(name, _)| folder.join(name)).filter(|path| path.exists()).collect();
    if !there.is_empty() {
        for path in there {
            print::say(&format!("durward: {} is already there; nothing was written", path.display()));
        }
        return Ok(Exit::Failed);
    }
    for (name, text) in FILES {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        // Whoever wrote it in the meantime keeps it.
        File::create_new(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        print::data(&path.display().to_string())?;
    }
    print::say(
        "next: name your servers in durward.yaml, then\n  \
         durward check\n  \
         durward policy test\n  \
         durward agent key create ci\n  \
         durward up",
    );
    Ok(Exit::Done)
}
