//! Strings that are plainly random, told from the many that only look so.

use super::{Taken, checksum};
use crate::detector::{HIGH_ENTROPY, Match};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::ops::Range;
use std::sync::LazyLock;

const SHORTEST: usize = 20;
/// Longer runs are data, not keys.
const LONGEST: usize = 180;
/// The length of the secret half of an AWS key pair.
const AWS_SECRET: usize = 40;

/// Finds random words that no rule has taken.
pub(super) fn find(text: &str, taken: &Taken) -> Vec<Match> {
    let paired = taken.matches.iter().any(|m| m.kind == "aws-access-key");
    promising(text).filter_map(|run| judge(text, run, taken, paired)).collect()
}

/// Whether a word is worth a closer look.
pub(super) fn may_find(text: &str) -> bool {
    promising(text).next().is_some()
}

/// Words of the right length with digits and letters.
fn promising(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut bytes = text.bytes().chain([b' ']).enumerate();
    let classes = &*CLASSES;
    let (mut start, mut facts) = (0, Facts::default());
    std::iter::from_fn(move || {
        for (at, byte) in bytes.by_ref() {
            let class = classes.get(usize::from(byte)).copied().unwrap_or(0);
            if class != 0 {
                facts.note(class);
                continue;
            }
            let run = std::mem::replace(&mut start, at + 1)..at;
            if std::mem::take(&mut facts).promising() && (SHORTEST..=4 * LONGEST).contains(&run.len()) {
                return Some(run);
            }
        }
        None
    })
}

/// What each byte is to a word: nothing, a sign, a digit or a letter.
static CLASSES: LazyLock<[u8; 256]> = LazyLock::new(|| {
    std::array::from_fn(|byte| match u8::try_from(byte) {
        Ok(b'+' | b'/' | b'_' | b'-' | b'.' | b'~' | b'=') => SIGN,
        Ok(b'0'..=b'9') => DIGIT,
        Ok(b'A'..=b'Z' | b'a'..=b'z') => LETTER,
        _ => 0,
    })
});
const SIGN: u8 = 1;
const DIGIT: u8 = 2;
const LETTER: u8 = 4;

/// What can be said of a word in one cheap pass.
#[derive(Default)]
struct Facts {
    digits: usize,
    letters: usize,
}

impl Facts {
    fn note(&mut self, class: u8) {
        self.digits += usize::from(class == DIGIT);
        self.letters += usize::from(class == LETTER);
    }

    const fn promising(&self) -> bool {
        self.digits >= 2 && self.letters >= 6
    }
}

/// `paired`: the id of an AWS key stands in the same text.
fn judge(text: &str, run: Range<usize>, taken: &Taken, paired: bool) -> Option<Match> {
    // The value of `name=value` starts behind the sign.
    let whole = text.get(run.clone())?;
    let body = whole.trim_end_matches(['=', '.', '-', '_', '/', '~']);
    let skip = body.rfind('=').map_or(0, |sign| sign + 1);
    let word = body.get(skip..)?;
    let word_start = run.start + skip + (word.len() - word.trim_start_matches(['.', '-', '/', '+', '~']).len());
    let span = word_start..run.start + body.len();
    let word = text.get(span.clone())?;
    if taken.overlaps(&span) || !(SHORTEST..=LONGEST).contains(&word.len()) {
        return None;
    }
    let before = text.get(..span.start)?;
    if is_digest_or_data(before, word) || is_path(before, word) {
        return None;
    }
    if word.bytes().filter(|b| *b == b'.').count() == 2 && checksum::discord(word) {
        return Some(Match { kind: "discord-token", span });
    }
    if word.len() == AWS_SECRET && paired && is_random(word) {
        return Some(Match { kind: "aws-secret-key", span });
    }
    is_random(word).then_some(Match { kind: HIGH_ENTROPY, span })
}

/// Checksums of packages and media in `data:` addresses announce themselves.
fn is_digest_or_data(before: &str, word: &str) -> bool {
    let digest = |text: &str| {
        ["sha1-", "sha256-", "sha384-", "sha512-", "sha256_", "md5-"].iter().any(|name| text.starts_with(name))
    };
    let near = before.get(before.ceil_char_boundary(before.len().saturating_sub(12))..).unwrap_or_default();
    let near = near.trim_end_matches(['"', ' ', '-', '=']).to_ascii_lowercase();
    digest(&word.to_ascii_lowercase())
        || [
            "base64,",
            "h1:",
            "sha1:",
            "sha256:",
            "sha384:",
            "sha512:",
            "sha256",
            "sha512",
            "sha1",
            "md5",
            "etag:",
            "integrity:",
            "ssh-rsa",
            "ssh-ed25519",
        ]
        .iter()
        .any(|mark| near.ends_with(mark))
}

/// Part of an address or a file name: parts between slashes that are words.
fn is_path(before: &str, word: &str) -> bool {
    let line = before.get(before.ceil_char_boundary(before.len().saturating_sub(300))..).unwrap_or_default();
    let near = line
        .rsplit(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '(' | '`'))
        .next()
        .unwrap_or_default();
    // An address up to its query: what is secret there has a name or a known shape.
    if near.contains("://") || word.contains("//") || near.ends_with("//") {
        return true;
    }
    // The rest of a file name, of an anchor or of an address with an escape in it.
    if near.contains('/') || near.ends_with('\\') || near.ends_with('#') || near.ends_with('%') {
        return true;
    }
    word.split('/').any(|part| part.len() >= 4 && word.contains('/') && !mixes(part) && is_wordy(part))
}

/// All of one case and without digits, or a capitalised word.
fn is_wordy(part: &str) -> bool {
    let rest = part.trim_start_matches(|c: char| c.is_ascii_uppercase());
    part.len() - rest.len() <= 1 && rest.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'.' | b'-' | b'_'))
}

fn mixes(part: &str) -> bool {
    part.bytes().any(|b| b.is_ascii_digit())
}

/// Random by the measure of its alphabet.
pub(super) fn is_random(word: &str) -> bool {
    if repeats(word) || is_uuid(word) || is_host(word) || is_made_of_words(word) || is_encoded_text(word) {
        return false;
    }
    let core: String = word.chars().filter(char::is_ascii_alphanumeric).collect();
    if core.bytes().all(|b| b.is_ascii_hexdigit()) {
        return false;
    }
    let (upper, lower) = (core.bytes().any(|b| b.is_ascii_uppercase()), core.bytes().any(|b| b.is_ascii_lowercase()));
    let digits = core.bytes().filter(u8::is_ascii_digit).count();
    let (least, changes) = match (upper, lower) {
        (true, true) => (if word.len() >= 32 { 4.2 } else { 3.8 }, 0.42),
        _ => (if word.len() >= 32 { 3.9 } else { 3.6 }, 0.26),
    };
    let enough = if upper && lower { 1 } else { 4 };
    digits >= enough && shannon(&core) >= least && changing(&core) >= changes
}

/// Bits per character.
pub(super) fn shannon(word: &str) -> f64 {
    let mut counts = [0_u16; 256];
    for byte in word.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count = count.saturating_add(1);
        }
    }
    let total = f64::from(u16::try_from(word.len()).unwrap_or(u16::MAX));
    let share = |count: &u16| {
        let part = f64::from(*count) / total;
        -part * part.log2()
    };
    counts.iter().filter(|count| **count > 0).map(share).sum()
}

/// A placeholder: few characters, again and again.
pub(super) fn repeats(word: &str) -> bool {
    let mut seen = 0_u128;
    for byte in word.bytes() {
        seen |= 1_u128 << (byte & 0x7F);
    }
    let distinct = seen.count_ones() as usize;
    distinct < 3 || (word.len() >= 16 && distinct < 5)
}

/// Base64 of `user:password`.
pub(super) fn holds_credentials(encoded: &str) -> bool {
    let decoded =
        STANDARD_NO_PAD.decode(encoded.trim_end_matches('=')).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.is_some_and(|text| text.contains(':') && text.chars().all(|c| !c.is_control()))
}

fn is_uuid(word: &str) -> bool {
    let parts: Vec<usize> = word.split('-').map(str::len).collect();
    parts.windows(5).any(|five| five == [8, 4, 4, 4, 12])
}

fn is_host(word: &str) -> bool {
    let last = word.rsplit('.').next().unwrap_or_default();
    word.split('.').count() > 2 && last.len() <= 6 && last.bytes().all(|b| b.is_ascii_lowercase())
}

/// Made of parts that are words, numbers or hexadecimal: `my-long-name-2024-01-31`, `someVeryLongIdentifier2`.
fn is_made_of_words(word: &str) -> bool {
    let mut parts = word.split(['-', '_', '.', '/', '+', '~']).filter(|part| !part.is_empty());
    parts.all(|part| {
        let digits = part.bytes().filter(u8::is_ascii_digit).count();
        digits == 0 && changing(part) < 0.42
            || digits == part.len()
            || part.len() <= 6
            || part.bytes().all(|b| b.is_ascii_hexdigit())
            || (part.len() < 16 && changing(part) < 0.4)
            || trailing_number(part)
    })
}

fn trailing_number(part: &str) -> bool {
    let stem = part.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = stem.trim_start_matches(|c: char| c.is_ascii_digit());
    !stem.bytes().any(|b| b.is_ascii_digit()) && changing(stem) < 0.4
}

/// Base64 of a text: a cursor, an encoded argument.
fn is_encoded_text(word: &str) -> bool {
    let word = word.trim_end_matches('=');
    let decoded = URL_SAFE_NO_PAD.decode(word).or_else(|_| STANDARD_NO_PAD.decode(word));
    decoded.is_ok_and(|bytes| bytes.iter().all(|b| matches!(b, b' '..=b'~' | b'\n' | b'\r' | b'\t')))
}

/// How often the class of the character changes, per step. Random text changes often, names do not.
fn changing(word: &str) -> f64 {
    let class = |b: u8| (b.is_ascii_lowercase(), b.is_ascii_uppercase());
    let steps = word.len().saturating_sub(1);
    let changes = word.bytes().zip(word.bytes().skip(1)).filter(|(a, b)| class(*a) != class(*b)).count();
    f64::from(u32::try_from(changes).unwrap_or(u32::MAX)) / f64::from(u32::try_from(steps.max(1)).unwrap_or(u32::MAX))
}
