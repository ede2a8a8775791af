//! Has a glob's `?` and `[…]` mean one character. Globset reads globs; its engine would take single bytes.

use globset::Glob;
use regex::{Regex, RegexSet};

/// Whether the glob may hold what globset takes for one byte. The rest means the same either way, and globset is faster.
pub fn by_character(glob: &str) -> bool {
    glob.contains(['?', '['])
}

/// An engine for one glob that goes by characters.
pub fn engine(glob: &Glob) -> Result<Regex, regex::Error> {
    Regex::new(&expression(glob))
}

/// An engine for many.
pub(crate) fn engines(globs: &[Glob]) -> Result<RegexSet, regex::Error> {
    RegexSet::new(globs.iter().map(expression))
}

/// The expression that globset wrote, of characters in place of bytes.
///
/// SECURITY: globset switches Unicode off and spells `é` as `\xc3\xa9`: a `?` then takes half of it, and `[é]` either half,
/// so that a deny misses what it names.
fn expression(glob: &Glob) -> String {
    let bytes = glob.regex();
    let mut rest = bytes.strip_prefix("(?-u)").unwrap_or(bytes);
    let mut out = String::from("(?s)");
    let mut character = Vec::new();
    while let Some(first) = rest.chars().next() {
        let byte = rest.strip_prefix("\\x").and_then(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok());
        let taken = match (byte, first) {
            (Some(byte), _) => {
                character.push(byte);
                if let Ok(whole) = std::str::from_utf8(&character) {
                    out.push_str(whole);
                    character.clear();
                }
                4
            }
            // Whatever is escaped is ASCII.
            (None, '\\') => 2,
            (None, _) => first.len_utf8(),
        };
        let (done, left) = rest.split_at_checked(taken).unwrap_or((rest, ""));
        if byte.is_none() {
            out.push_str(done);
        }
        rest = left;
    }
    out
}
