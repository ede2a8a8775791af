//! Undoes JSON escapes and remembers where each character came from.

/// A text with its escapes undone.
pub(crate) struct Plain {
    /// The text.
    pub(crate) text: String,
    /// For each byte of the text the offset of its character in the source, then the length of the source.
    origins: Vec<u32>,
}

impl Plain {
    /// Undoes the escapes. Total: what is no escape stays, a lone surrogate becomes U+FFFD.
    pub(crate) fn of(source: &str) -> Self {
        let mut plain =
            Self { text: String::with_capacity(source.len()), origins: Vec::with_capacity(source.len() + 1) };
        let mut at = 0;
        while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
            let run = rest.find('\\').unwrap_or(rest.len());
            plain.text.push_str(rest.get(..run).unwrap_or_default());
            plain.origins.extend((at..at + run).map(offset));
            at += run;
            let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) else { break };
            let (character, length) = escape(rest);
            plain.text.push(character);
            plain.origins.extend(std::iter::repeat_n(offset(at), character.len_utf8()));
            at += length;
        }
        plain.origins.push(offset(source.len()));
        plain
    }

    /// Where a byte of the text came from. Past the end means the end.
    pub(crate) fn origin(&self, at: usize) -> usize {
        self.origins.get(at).or(self.origins.last()).map_or(0, |origin| *origin as usize)
    }
}

// INVARIANT: texts above 4 MiB are never unescaped, so an offset fits.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// The character that an escape stands for, and the length of the escape. `rest` starts with a backslash.
fn escape(rest: &str) -> (char, usize) {
    let simple = match rest.as_bytes().get(1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode(rest),
        _ => return ('\\', 1),
    };
    (simple, 2)
}

fn unicode(rest: &str) -> (char, usize) {
    let Some(high) = unit(rest, 2) else { return ('\\', 1) };
    let low = rest.get(6..8).filter(|mark| *mark == "\\u").and_then(|_| unit(rest, 8));
    if let (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) = (high, low) {
        let point = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
        return (char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}

fn unit(rest: &str, at: usize) -> Option<u32> {
    let digits = rest.get(at..at + 4)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}
