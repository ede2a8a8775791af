//! Values that are given to a secret-like name: `password = "…"`, `"api_key": "…"`, `TOKEN=…`.
//!
//! The name says that a secret may follow; whether the value is one depends on how strong the name is.

use super::entropy;
use crate::detector::Match;
use std::ops::Range;

/// How much a name says about its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strength {
    /// People choose it: `password`.
    Chosen,
    /// Machines make it: `token`.
    Made,
    /// Short for a password where it is a whole word: `pw`.
    Short,
    /// Often something else: `key`.
    Weak,
}

use Strength::{Chosen, Made, Short, Weak};

/// The names, found inside longer ones too.
pub(super) static NAMES: [(&str, Strength); 36] = [
    ("password", Chosen),
    ("passwd", Chosen),
    ("passphrase", Chosen),
    ("passcode", Chosen),
    ("pwd", Chosen),
    ("_pass", Chosen),
    ("dbpass", Chosen),
    ("secret", Made),
    ("token", Made),
    ("api_key", Made),
    ("apikey", Made),
    ("api-key", Made),
    ("api key", Made),
    ("access_key", Made),
    ("access-key", Made),
    ("accesskey", Made),
    ("access key", Made),
    ("private_key", Made),
    ("privatekey", Made),
    ("private-key", Made),
    ("auth_key", Made),
    ("authkey", Made),
    ("account_key", Made),
    ("accountkey", Made),
    ("app_key", Made),
    ("appkey", Made),
    ("encryption_key", Made),
    ("encryptionkey", Made),
    ("signing_key", Made),
    ("credential", Made),
    ("license_key", Made),
    ("key", Weak),
    ("auth", Weak),
    ("pswd", Chosen),
    ("pass", Short),
    ("pw", Short),
];

const LONGEST_VALUE: usize = 512;
const LONGEST_TAIL: usize = 32;
/// So many names in one unbroken value are judged; what follows one more is taken for a secret.
const MOST_NAMES: usize = 8;

/// The unquoted value that was read last. Names inside it have values that end where it ends: it is neither searched again
/// for its end nor judged for each of them, or a text of names alone would cost its length times that of a value.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Nothing ends a value in here.
    free: Range<usize>,
    /// Something does right behind it.
    ended: bool,
    /// Names inside it that were judged.
    names: usize,
}

impl Seen {
    /// Where the value from `start` on ends, within `window`, a beginning of the text. Windows only grow.
    fn end(&mut self, window: &str, start: usize) -> Option<usize> {
        if !(self.free.start..=self.free.end).contains(&start) {
            *self = Self { free: start..start, ended: false, names: 0 };
        }
        if !self.ended {
            let rest = window.get(self.free.end..)?;
            let end = rest.find(ends_value);
            self.ended = end.is_some();
            self.free.end += end.unwrap_or(rest.len());
        }
        Some(self.free.end)
    }
}

fn ends_value(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';' | '<' | '>' | '&' | '\\' | ')' | ']' | '}' | '|')
}

/// What stands behind the name makes it the name of something else.
const OTHER_ENDS: [&str; 40] = [
    "count",
    "type",
    "name",
    "url",
    "uri",
    "path",
    "file",
    "endpoint",
    "id",
    "field",
    "length",
    "expir",
    "ttl",
    "limit",
    "arn",
    "policy",
    "label",
    "placeholder",
    "regex",
    "pattern",
    "hint",
    "format",
    "version",
    "izer",
    "ize",
    "board",
    "word",
    "usage",
    "store",
    "vault",
    "manager",
    "s_used",
    "validator",
    "provider",
    "param",
    "header",
    "address",
    "_at",
    "date",
    "time",
];

/// What stands before it does too.
const OTHER_STARTS: [&str; 13] = [
    "public",
    "page",
    "next",
    "continuation",
    "sync",
    "max",
    "prev",
    "previous",
    "cancel",
    "cancellation",
    "primary",
    "foreign",
    "partition",
];

/// The value that is assigned to the name at a hit.
pub(super) fn at(text: &str, hit: &Range<usize>, strength: Strength, seen: &mut Seen) -> Option<Match> {
    let end = text.floor_char_boundary(hit.end.saturating_add(LONGEST_VALUE + 64));
    let rest = text.get(hit.end..end)?;
    let tail = rest.bytes().take(LONGEST_TAIL + 1).take_while(|b| is_name(char::from(*b))).count();
    if tail > LONGEST_TAIL {
        return None;
    }
    let behind = rest.get(..tail)?.to_ascii_lowercase();
    let start = text.ceil_char_boundary(hit.start.saturating_sub(24));
    let before = text.get(start..hit.start)?.rsplit(|c| !is_name(c)).next()?;
    let stem = before.trim_end_matches(['_', '-', '.']).to_ascii_lowercase();
    let other_end = !behind.is_empty() && OTHER_ENDS.iter().any(|end| behind.contains(end));
    if other_end || (!stem.is_empty() && OTHER_STARTS.iter().any(|start| stem.ends_with(start))) {
        return None;
    }
    // A weak name must be a whole word: `monkey` and `authors` are none.
    let word_before = before.ends_with(|c: char| c.is_ascii_lowercase())
        && !text.get(hit.clone())?.starts_with(|c: char| c.is_ascii_uppercase());
    if matches!(strength, Weak | Short) && (word_before || behind.starts_with(|c: char| c.is_ascii_alphabetic())) {
        return None;
    }
    let given = Given::read(text.get(..end)?, hit.end + tail, seen)?;
    let from = hit.end + tail + given.at;
    let value = given.value;
    let many = !given.quoted && {
        seen.names += 1;
        seen.names > MOST_NAMES
    };
    (many || judge(value, strength, &given)).then(|| Match { kind: kind(strength), span: from..from + value.len() })
}

const fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

const fn kind(strength: Strength) -> &'static str {
    match strength {
        Chosen | Short => "password",
        Made | Weak => "assigned-secret",
    }
}

/// How a value is given.
struct Given<'t> {
    at: usize,
    value: &'t str,
    sign: bool,
    /// The sign is a comma: a list may be meant as well.
    comma: bool,
    quoted: bool,
}

impl<'t> Given<'t> {
    /// Reads it at `start` of `window`, a beginning of the text.
    fn read(window: &'t str, start: usize, seen: &mut Seen) -> Option<Self> {
        let rest = window.get(start..)?;
        let mut reader = Reader { rest, at: 0 };
        reader.skip(|c| matches!(c, '\\' | '"' | '\'' | '`' | ']' | ')' | '*'), 4);
        let spaces = reader.skip(|c| c == ' ' || c == '\t', 8);
        let sign = ["=>", "::=", "?=", ":=", "->", "==", "=", ":", ",", "is ", "\u{ff1a}"]
            .iter()
            .any(|sign| reader.take(sign));
        let comma = rest.get(..reader.at).is_some_and(|read| read.ends_with(','));
        if !sign && spaces == 0 {
            return None;
        }
        reader.skip(|c| c == ' ' || c == '\t', 8);
        if sign && reader.take("\n") {
            reader.skip(|c| c == ' ' || c == '\t', 8);
        }
        for prefix in ["Bearer ", "bearer ", "Basic ", "basic ", "Token ", "token ", "@", "b", "r", "u", "f", "L", "("]
        {
            let after = reader.rest.get(reader.at..).and_then(|rest| rest.strip_prefix(prefix));
            let opens = after.is_some_and(|after| after.starts_with(['"', '\'']));
            if (opens || prefix.len() > 1) && reader.take(prefix) {
                break;
            }
        }
        let opening = reader.at;
        reader.skip(|c| c == '\\', 4);
        let quote = reader.rest.get(reader.at..)?.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'));
        if quote.is_some() {
            reader.at += 1;
        } else {
            reader.at = opening;
        }
        let at = reader.at;
        let value = reader.rest.get(at..)?;
        let end = match quote {
            Some(quote) => value.find([quote, '\\', '\n', '\r'])?,
            None => seen.end(window, start + at)? - (start + at),
        };
        let value = value.get(..end).filter(|value| value.len() <= LONGEST_VALUE)?;
        Some(Self { at, value, sign, comma, quoted: quote.is_some() })
    }
}

struct Reader<'t> {
    rest: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn skip(&mut self, what: fn(char) -> bool, most: usize) -> usize {
        let rest = self.rest.get(self.at..).unwrap_or_default();
        let length: usize = rest.chars().take(most).take_while(|c| what(*c)).map(char::len_utf8).sum();
        self.at += length;
        length
    }

    fn take(&mut self, what: &str) -> bool {
        let there = self.rest.get(self.at..).is_some_and(|rest| rest.starts_with(what));
        self.at += if there { what.len() } else { 0 };
        there
    }
}

fn judge(value: &str, strength: Strength, given: &Given<'_>) -> bool {
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let letters = value.bytes().filter(u8::is_ascii_alphabetic).count();
    let signs = value.len() - digits - letters;
    let mixed = digits >= 1 && letters >= 2;
    // Cheap questions first: every `key:` of a text comes here.
    if (digits == 0 && strength != Chosen) || (given.comma && !(given.quoted && mixed)) {
        return false;
    }
    if placeholder(value) || value.contains(char::is_whitespace) || is_code(value, given.quoted) {
        return false;
    }
    let odd = signs > 0 && letters >= 3 && !is_identifier(value);
    match strength {
        Chosen if !given.sign => value.len() >= 6 && mixed && (given.quoted || signs > 0 || digits >= 2),
        Chosen if given.quoted => value.len() >= 4 && (mixed || odd || digits >= 4 || is_chosen_word(value)),
        Chosen => value.len() >= 4 && (mixed || odd),
        Short => given.sign && value.len() >= 6 && mixed,
        Made if !given.sign => value.len() >= 16 && mixed && digits >= 2 && entropy::shannon(value) >= 3.0,
        Made => value.len() >= 10 && mixed && entropy::shannon(value) >= 2.8 && !is_slug(value),
        Weak => given.sign && value.len() >= 16 && (entropy::is_random(value) || is_hex_key(value)),
    }
}

fn is_hex_key(value: &str) -> bool {
    (32..=128).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_hexdigit()) && entropy::shannon(value) >= 3.0
}

fn is_chosen_word(value: &str) -> bool {
    value.len() >= 6 && value.bytes().all(|b| b.is_ascii_alphabetic())
}

/// Words with signs between them: `my-secret-name-2`.
fn is_slug(value: &str) -> bool {
    let mut parts = value.split(['-', '_', '.', '/', ':']);
    value.contains(['-', '_', '.', '/', ':'])
        && parts.all(|part| {
            let stem = part.trim_end_matches(|c: char| c.is_ascii_digit());
            stem.bytes().all(|b| b.is_ascii_alphabetic()) && (part.len() - stem.len() <= 4)
        })
}

fn is_identifier(value: &str) -> bool {
    value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b':' | b'/' | b'*'))
}

/// Something that a program computes, not the value itself.
fn is_code(value: &str, quoted: bool) -> bool {
    if value.contains("://") {
        return true;
    }
    if quoted {
        return value.contains("${") || value.contains("{{") || value.starts_with('$') || value.starts_with("%(");
    }
    value.contains('(')
        || value.contains('[')
        || value.starts_with(['$', '%', '{', '*', '/', '.', '-', '@', '=', '?'])
        || value.contains("::")
        || value.contains("->")
        || value.contains("==")
        || value.split('.').count() > 1
            && value.split('.').all(|part| {
                part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                    && part.bytes().filter(u8::is_ascii_digit).count() <= 1
            })
}

/// Stands for a secret, is none.
pub(super) fn placeholder(value: &str) -> bool {
    const WORDS: [&str; 14] = [
        "example",
        "changeme",
        "change_me",
        "change-me",
        "your",
        "placeholder",
        "redacted",
        "insert",
        "dummy",
        "null",
        "undefined",
        "not_a_real",
        "sample",
        "fixme",
    ];
    const WHOLE: [&str; 19] = [
        "none", "true", "false", "string", "str", "optional", "required", "test", "admin", "user", "token", "pass",
        "passwd", "value", "text", "bytes", "any", "object", "todo",
    ];
    let lower = value.to_ascii_lowercase();
    let plain = lower.bytes().all(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'-'));
    let digits = lower.bytes().filter(u8::is_ascii_digit).count();
    // Long ones with digits are keys even where a word happens to stand in them.
    let short = lower.len() < 32 && digits < 4;
    stands_in(value)
        || WHOLE.contains(&lower.as_str())
        || (plain && (lower.contains("password") || lower.contains("secret")))
        || ((short || plain) && WORDS.iter().any(|word| lower.contains(word)))
}

/// A template, a variable, a row of one character.
pub(super) fn stands_in(value: &str) -> bool {
    const MARKS: [&str; 13] = [
        "xxxx",
        "XXXX",
        "****",
        "...",
        "${",
        "{{",
        "process.env",
        "os.environ",
        "getenv",
        "<",
        "[redacted",
        "____",
        "----",
    ];
    value.len() < 3
        || value.starts_with('$')
        || MARKS.iter().any(|mark| value.contains(mark))
        || value.bytes().all(|b| value.as_bytes().first() == Some(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_searched_once_and_judged_a_few_times_however_many_names_stand_in_it() {
        let text = "pw=".repeat(10_000);
        let (mut seen, mut searched) = (Seen::default(), 0);
        for start in (0..text.len()).step_by(3) {
            let before = seen.free.end.max(start);
            let hit = start..start + 2;
            let found = at(&text, &hit, Short, &mut seen);
            searched += seen.free.end.saturating_sub(before);
            // Nobody judges what is taken for a secret without a look.
            assert_eq!(found.is_some(), seen.names > MOST_NAMES, "{start}");
        }
        assert!(searched <= text.len(), "{searched} of {}", text.len());
        assert!(seen.names > MOST_NAMES);
    }
}
