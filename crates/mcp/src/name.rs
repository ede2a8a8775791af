//! Names of tools and prompts in the aggregate: `server__tool`.
//!
//! A name has at most 64 characters of `[A-Za-z0-9_.-]`, the least that model APIs take. A pair that fits is joined
//! plainly and [`split`] takes it apart. Any other pair is shortened, its odd characters become `_`, and `_` with eight
//! hexadecimal digits of the pair's SHA-256 is appended: the same pair always gives the same name.
//!
//! INVARIANT: plain names never collide with each other (a server in one has no `__` and does not end in `_`, so the
//! first `__` is the separator) nor with shortened ones (a tool that itself ends like a shortened name is shortened too).
//! Two shortened names meet with a chance of 2⁻³² where the text before the digits is the same. Whoever keeps the
//! catalog maps names to pairs, so it must refuse a name that another pair already has.

use vocab::Digest;

/// Model APIs refuse longer tool names.
pub const LONGEST: usize = 64;
/// Stands between server and tool.
pub const SEPARATOR: &str = "__";
/// `_` and eight digits.
const SUFFIX: usize = 9;
/// What a shortened name keeps of the server.
const SERVER_KEPT: usize = 24;

/// The name of `tool` of `server` in the aggregate.
pub fn join(server: &str, tool: &str) -> String {
    if is_plain(server, tool) {
        return format!("{server}{SEPARATOR}{tool}");
    }
    let length = (server.len() as u64).to_be_bytes();
    let digest = Digest::of_parts(&[&length, server.as_bytes(), tool.as_bytes()]);
    let mut name = String::with_capacity(LONGEST);
    name.extend(server.chars().map(tame).take(SERVER_KEPT));
    name.push_str(SEPARATOR);
    let room = LONGEST - SUFFIX - name.len();
    name.extend(tool.chars().map(tame).take(room));
    name.push('_');
    for byte in digest.as_bytes().iter().take(4) {
        for nibble in [byte >> 4, byte & 15] {
            name.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    name
}

/// Server and tool of a plain name. A shortened one, which only the catalog can resolve, has none.
pub fn split(name: &str) -> Option<(&str, &str)> {
    let (server, tool) = name.split_once(SEPARATOR)?;
    is_plain(server, tool).then_some((server, tool))
}

fn is_plain(server: &str, tool: &str) -> bool {
    let fits = server.len() + SEPARATOR.len() + tool.len() <= LONGEST;
    let server_ends = !server.is_empty() && !server.ends_with('_') && !server.contains(SEPARATOR);
    let tame = server.chars().chain(tool.chars()).all(|letter| tame(letter) == letter);
    fits && server_ends && tame && !tool.is_empty() && !looks_shortened(tool)
}

/// Whether a text ends as shortened names do.
fn looks_shortened(text: &str) -> bool {
    let Some((_, digits)) = text.rsplit_once('_') else { return false };
    digits.len() == SUFFIX - 1 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn tame(letter: char) -> char {
    if letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-') { letter } else { '_' }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_fit_are_joined_and_others_shortened() {
        assert_eq!(join("github", "get_me"), "github__get_me");
        assert_eq!(join("a", "_b"), "a___b");
        assert_eq!(split("a___b"), Some(("a", "_b")));
        assert_ne!(join("a_", "b"), "a___b");
        assert_eq!(split("nothing"), None);
        assert_eq!(split("__tool"), None);
        assert_eq!(split("server__"), None);
        // Shortened names are kept by clients and policies: they never change.
        assert_eq!(join("wiki", "read page"), "wiki__read_page_f0a3fb33");
    }

    #[test]
    fn a_tool_cannot_take_the_shortened_name_of_another() {
        let shortened = join("wiki", "read page");
        let tool = shortened.strip_prefix("wiki__").unwrap();
        assert_ne!(join("wiki", tool), shortened);
        assert_eq!(split(&shortened), None);
    }

    proptest! {
        #[test]
        fn every_name_is_short_tame_and_its_own(
            one in ("[a-z_.-]{1,40}", ".{0,80}"),
            other in ("[a-z_.-]{1,40}", ".{0,80}"),
        ) {
            let (name, second) = (join(&one.0, &one.1), join(&other.0, &other.1));
            prop_assert!(name.len() <= LONGEST && name.chars().all(|c| tame(c) == c));
            prop_assert_eq!(name == second, one == other);
            if let Some((server, tool)) = split(&name) {
                prop_assert_eq!((server, tool), (one.0.as_str(), one.1.as_str()));
            }
        }

        #[test]
        fn close_pairs_stay_apart(a in "[a_]{1,4}", b in "[a_]{1,6}", c in "[a_]{1,4}", d in "[a_]{1,6}") {
            prop_assert_eq!(join(&a, &b) == join(&c, &d), (a, b) == (c, d));
        }
    }
}
