//! Takes secrets from stdin or from a person. Never from an argument, never shown.

use anyhow::{Context, Result, bail};
use std::io::{self, IsTerminal, Read};
use vocab::Secret;

/// More than any secret has.
const LONGEST: u64 = 1 << 20;

/// A secret: typed where stdin is a terminal, read from it otherwise. A line break at the end is not part of it.
pub(crate) fn secret(what: &str) -> Result<Secret<String>> {
    let stdin = io::stdin();
    let text = if stdin.is_terminal() {
        Secret::new(rpassword::prompt_password(format!("{what}: ")).context("nothing could be read")?)
    } else {
        let mut read = String::new();
        stdin.lock().take(LONGEST).read_to_string(&mut read).context("stdin is not text")?;
        let ends = read.strip_suffix('\n').map(|rest| rest.strip_suffix('\r').unwrap_or(rest).len());
        read.truncate(ends.unwrap_or(read.len()));
        Secret::new(read)
    };
    if text.expose().is_empty() {
        bail!("no value came: write it to stdin, or run this in a terminal");
    }
    Ok(text)
}
