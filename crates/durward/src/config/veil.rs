//! Keeps secrets out of what is printed about a configuration.
//!
//! A fault shows the line it is in. Whatever on it looks like a secret, or stands where only a secret would stand,
//! is covered by as many asterisks. Covering too much costs a little comfort; too little, a secret.

use super::tree::Span;
use guard::{Detector as _, Secrets};
use std::path::Path;

/// How secrets begin that no detector knows by their beginning alone.
const BEGINNINGS: [&str; 6] = ["dwa_", "eyJ", "xox", "sk_", "-----BEGIN", "gAAAA"];

/// Words in a key that say that its value is a secret.
const TELLING: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "token",
    "secret",
    "apikey",
    "api_key",
    "api-key",
    "private",
    "bearer",
    "authorization",
    "cookie",
];

/// Whether `text` looks like a secret rather than like a name, a path or an address: the detector of traffic finds one
/// in it, or in a part of it, or it is one that was cut.
pub(super) fn looks_secret(text: &str) -> bool {
    let text = text.trim();
    let text = text.strip_prefix("Bearer ").or_else(|| text.strip_prefix("Basic ")).unwrap_or(text);
    // In traffic a path or a digest is one by right. Here it stands in no place that is made for them.
    begins(text)
        || has_password(text)
        || is_found(text)
        || text
            .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '=')))
            .any(|part| dense(part) || is_found(part))
}

/// Whether `text` stands in the place of a path and is a secret. Folders are named by digests and the like: of a path that
/// does not lie in `base`, the folder of the file, only what begins as a secret does is one.
pub(super) fn is_no_path(text: &str, base: &Path) -> bool {
    let path = Path::new(text.strip_prefix("unix:").unwrap_or(text));
    let written = path.strip_prefix(base).unwrap_or(path);
    if !written.has_root() {
        return looks_secret(&written.to_string_lossy());
    }
    has_password(text) || text.split('/').any(begins)
}

fn begins(text: &str) -> bool {
    text.len() >= 16
        && (BEGINNINGS.iter().any(|beginning| text.starts_with(beginning)) || Secrets::begins_like_a_key(text))
}

fn is_found(text: &str) -> bool {
    let mut found = Vec::new();
    Secrets.find(text, &mut found);
    !found.is_empty()
}

/// Whether it is an address with a password: `postgres://user:password@host/`.
fn has_password(text: &str) -> bool {
    words(text).any(|(_, word)| {
        user_information(word).is_some_and(|(from, to)| word.get(from..to).is_some_and(|who| who.contains(':')))
    })
}

/// Whether a run of characters is too dense to be words.
fn dense(run: &str) -> bool {
    let digits = run.bytes().filter(u8::is_ascii_digit).count();
    let upper = run.bytes().filter(u8::is_ascii_uppercase).count();
    let lower = run.bytes().filter(u8::is_ascii_lowercase).count();
    if run.len() >= 32 && digits >= 4 && upper + lower >= 4 && run.bytes().all(|b| b.is_ascii_hexdigit()) {
        return true;
    }
    run.len() >= 20 && digits >= 2 && lower >= 2 && (upper >= 2 || digits >= 5) && entropy(run) > 3.4
}

/// Bits per character.
fn entropy(text: &str) -> f64 {
    let mut counts = [0_u32; 128];
    let mut total = 0_u32;
    for byte in text.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
            total += 1;
        }
    }
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / f64::from(total);
            -share * share.log2()
        })
        .sum()
}

/// Which of a command's words are not to be shown: what looks like a secret, and what an option says is one.
pub(super) fn secret_words<'a>(words: impl Iterator<Item = &'a str>) -> impl Iterator<Item = bool> {
    let mut announced = false;
    words.map(move |word| {
        let is_secret = announced || looks_secret(word);
        announced = word.starts_with('-') && tells(word) && !word.contains('=');
        is_secret || word.split_once('=').is_some_and(|(name, value)| tells(name) && !value.is_empty())
    })
}

/// Whether a key's name says that its value is a secret.
pub(super) fn tells(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    TELLING.iter().any(|word| key.contains(word))
}

/// A text of the file as it may stand in a message.
pub(super) fn quote(text: &str) -> String {
    if looks_secret(text) || text.contains("://") && text.contains('@') {
        return "this value".to_owned();
    }
    let mut short: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(60).collect();
    if short.len() < text.len() && text.chars().count() > 60 {
        short.push('…');
    }
    format!("`{short}`")
}

/// The source with everything covered that may be secret: `marked` places, and what looks like it. Same length.
pub(super) fn cover(source: &str, marked: &[Span]) -> String {
    let mut covered = vec![false; source.len()];
    let mut hide = |span: Span| {
        if let Some(range) = covered.get_mut(span) {
            range.fill(true);
        }
    };
    for span in marked {
        hide(span.clone());
    }
    for (start, word) in words(source) {
        let (from, to) = user_information(word).unwrap_or_default();
        hide(start + from..start + to);
        // Of an address the rest stays, unless that is secret, too.
        if word.get(to..).is_some_and(looks_secret) {
            hide(start..start + word.len());
        }
    }
    source
        .char_indices()
        .map(
            |(at, c)| {
                if covered.get(at) == Some(&true) && c != '\n' { "*".repeat(c.len_utf8()) } else { c.to_string() }
            },
        )
        .collect()
}

/// Places that may hold secrets in a text that could not be read: values of telling keys and all of `env:`.
pub(super) fn suspicious_lines(source: &str) -> Vec<Span> {
    let mut marked = Vec::new();
    let mut start = 0;
    let mut inside: Option<usize> = None;
    for line in source.split_inclusive('\n') {
        let body = line.trim_start();
        let indent = line.len() - body.len();
        if inside.is_some_and(|outer| indent <= outer && !body.is_empty()) {
            inside = None;
        }
        let mut from = 0;
        while let Some(colon) = line.get(from..).and_then(|rest| rest.find(':')).map(|found| from + found) {
            let key = line.get(from..colon).unwrap_or_default();
            let key = key.rsplit([' ', '{', ',', '\t']).next().unwrap_or_default();
            let key = key.trim_matches(|c| matches!(c, '"' | '\''));
            if inside.is_some() || tells(key) || key == "env" {
                marked.push(start + colon + 1..start + line.trim_end().len().max(colon + 1));
                if key == "env" {
                    inside = inside.or(Some(indent));
                }
                break;
            }
            from = colon + 1;
        }
        start += line.len();
    }
    marked
}

/// Words of the source with their places.
fn words(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let separator = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '{' | '}' | '[' | ']' | '`');
    let mut start = 0;
    source.split_inclusive(separator).map(move |piece| {
        let at = start;
        start += piece.len();
        (at, piece.trim_end_matches(|c| separator(c) || c == ':'))
    })
}

/// Where `user:password` of an address is.
fn user_information(word: &str) -> Option<(usize, usize)> {
    let after_scheme = word.find("://")? + 3;
    let authority = word.get(after_scheme..)?.split(['/', '?', '#']).next()?;
    let at = authority.rfind('@')?;
    Some((after_scheme, after_scheme + at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_look_like_secrets() {
        for secret in [
            "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "sk-proj-abcdefghijklmnop",
            "Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
            "wJalrXUtnFEMI7K7MDENGbPxRfiCYEXAMPLEKEY12",
            "dwk_0a1b2c3d_abcdefghijklmnopqrstuvwxyz",
            "dwa_0a1b2c3d_abcdefghijklmnopqrstuvwxyz",
            "postgres://user:S3cretPassw0rd@host/db",
            // Known to the detector alone.
            "lin_api_0123456789abcdefghijklmnopqrstuvwxyzABCD",
        ] {
            assert!(looks_secret(secret), "{secret}");
        }
    }

    #[test]
    fn names_paths_and_addresses_do_not() {
        for plain in [
            "github-token",
            "https://mcp.example.com/v1/some/long/path/to/an/endpoint",
            "@modelcontextprotocol/server-filesystem",
            "/etc/ssl/certs/ca-certificates.crt",
            "claim:realm_access.roles",
            "policies/production/*.json",
            "127.0.0.1:7420",
            "PRODUCTION_DATABASE_ADMINISTRATORS",
            "git+ssh://git@example.com/team/server.git",
            "secret_of_the_wiki_server",
            "key-for-the-production-wiki",
        ] {
            assert!(!looks_secret(plain), "{plain}");
        }
    }

    #[test]
    fn an_option_says_that_the_next_word_is_a_secret() {
        let words = ["serve", "--api-key", "hunter2", "--verbose", "--token=hunter2", "--port", "80"];
        let secret: Vec<_> = secret_words(words.into_iter()).collect();
        assert_eq!(secret, [false, false, true, false, true, false, false]);
    }

    #[test]
    fn covering_keeps_every_place() {
        let source = "a: ghp_16C7e42F292c6912E7710c838347Ae178B4a # ä\nb: https://me:pass@example.com/x\nc: hunter2\n";
        let hunter = source.find("hunter2").expect("it is there");
        let covered = cover(source, std::slice::from_ref(&(hunter..hunter + 7)));
        assert_eq!(
            covered,
            "a: **************************************** # ä\nb: https://*******@example.com/x\nc: *******\n"
        );
    }

    #[test]
    fn a_text_that_cannot_be_read_hides_environments_and_telling_keys() {
        let source =
            "servers:\n  x:\n    env:\n      A: canary\n    era: auto\npassword: canary\ny: { env: { B: canary } }\n";
        let covered = cover(source, &suspicious_lines(source));
        assert!(!covered.contains("canary"), "{covered}");
        assert!(covered.contains("era: auto"), "{covered}");
    }
}
