//! JSON strings: where they end, what they say, how one is written.

use std::borrow::Cow;

/// How many leading bytes can stand in a JSON string as they are: no quote, no backslash, no control character.
pub(crate) fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut run = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        // A byte of `x - ONES & !x & HIGHS` is set where a byte of `x` is zero; lower false positives never come first.
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5c);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let hit = (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash) | control;
        let hit = hit & HIGHS;
        if hit != 0 {
            return run + (hit.trailing_zeros() / 8) as usize;
        }
        run += 8;
    }
    run + rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count()
}

/// How many leading bytes are before a line feed or carriage return.
pub(crate) fn line_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut run = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let feed = word ^ (ONES * 0x0a);
        let carriage = word ^ (ONES * 0x0d);
        let hit = ((feed.wrapping_sub(ONES) & !feed) | (carriage.wrapping_sub(ONES) & !carriage)) & HIGHS;
        if hit != 0 {
            return run + (hit.trailing_zeros() / 8) as usize;
        }
        run += 8;
    }
    run + rest.iter().take_while(|byte| !matches!(byte, b'\n' | b'\r')).count()
}

/// The value of four hexadecimal digits.
pub(crate) fn hex4(digits: &[u8]) -> Option<u32> {
    let digits: &[u8; 4] = digits.first_chunk()?;
    let mut code = 0;
    for digit in digits {
        code = code << 4 | char::from(*digit).to_digit(16)?;
    }
    Some(code)
}

/// What stands between the quotes of a JSON string, unescaped. `None` if it is not valid, which a scanned text is not.
#[inline(never)]
pub(crate) fn unescape(inner: &[u8]) -> Option<Cow<'_, str>> {
    if plain_run(inner) == inner.len() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while !rest.is_empty() {
        let run = plain_run(rest);
        let (plain, tail) = rest.split_at_checked(run)?;
        text.push_str(std::str::from_utf8(plain).ok()?);
        rest = match tail {
            [] => tail,
            [b'\\', b'u', tail @ ..] => {
                let (code, tail) = unicode_escape(tail)?;
                text.push(code);
                tail
            }
            [b'\\', letter, tail @ ..] => {
                text.push(short_escape(*letter)?);
                tail
            }
            _ => return None,
        };
    }
    Some(Cow::Owned(text))
}

/// What `\b`, `\f`, `\n`, `\r`, `\t`, `\"`, `\\` and `\/` stand for (RFC 8259 §7).
pub(crate) const fn short_escape(letter: u8) -> Option<char> {
    match letter {
        b'"' => Some('"'),
        b'\\' => Some('\\'),
        b'/' => Some('/'),
        b'b' => Some('\u{8}'),
        b'f' => Some('\u{c}'),
        b'n' => Some('\n'),
        b'r' => Some('\r'),
        b't' => Some('\t'),
        _ => None,
    }
}

/// The character of an escape whose `\u` is already read, and what follows. A lone surrogate is no character.
pub(crate) fn unicode_escape(digits: &[u8]) -> Option<(char, &[u8])> {
    let (first, rest) = (hex4(digits)?, digits.get(4..)?);
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first)?, rest));
    }
    let [b'\\', b'u', rest @ ..] = rest else { return None };
    let second = hex4(rest)?;
    if !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    Some((char::from_u32(code)?, rest.get(4..)?))
}

/// Appends `text` as a JSON string literal.
pub(crate) fn write_quoted(out: &mut String, text: &str) {
    out.push('"');
    for part in text.chars() {
        match part {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' => {
                out.push_str("\\u00");
                for nibble in [u32::from(part) >> 4, u32::from(part) & 15] {
                    out.push(char::from_digit(nibble, 16).unwrap_or('0'));
                }
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_plain_run_ends_where_a_byte_by_byte_reader_ends_it(
            bytes in proptest::collection::vec(prop_oneof![Just(b'a'), 0_u8..0x60, any::<u8>()], 0..40),
        ) {
            let naive = bytes.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count();
            prop_assert_eq!(plain_run(&bytes), naive);
            let naive = bytes.iter().take_while(|byte| !matches!(byte, b'\n' | b'\r')).count();
            prop_assert_eq!(line_run(&bytes), naive);
        }

        #[test]
        fn unescaping_agrees_with_serde(text in "(\\\\u[0-9a-fA-D]{4}|\\\\[\"\\\\/bfnrtux]|[a-zü\"]){0,8}") {
            let quoted = format!("\"{text}\"");
            let serde = serde_json::from_str::<String>(&quoted).ok();
            // Quotes that end the string early are the scanner's to find.
            if serde.is_some() {
                prop_assert_eq!(unescape(text.as_bytes()).map(Cow::into_owned), serde);
            }
        }
    }
}
