//! SHA-256 digests and their hexadecimal form.

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, io::Write, str::FromStr};

/// Parts that are together as long as this are joined before they are hashed.
const SHORT: usize = 128;

/// A SHA-256 digest, printed as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::taken(&digest(&SHA256, bytes))
    }

    /// The digest of the concatenation of `parts`. Whoever joins fields adds their lengths.
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        // A context is allocated, wiped twice and freed: for what is short that costs more than the digest.
        let mut joined = [0; SHORT];
        let mut room = joined.as_mut_slice();
        let fits = parts.iter().all(|part| room.write_all(part).is_ok());
        let length = SHORT - room.len();
        match joined.get(..length) {
            Some(joined) if fits => Self::of(joined),
            _ => Self::of_long(parts),
        }
    }

    fn of_long(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        Self::taken(&context.finish())
    }

    fn taken(digest: &aws_lc_rs::digest::Digest) -> Self {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }

    /// Takes 32 bytes that are a digest already.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 digits, in ASCII.
    pub fn hex(&self) -> [u8; 64] {
        hex(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        write_hex(f, &self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 hexadecimal digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.strip_prefix("sha256:").and_then(read_hex).map(Self).ok_or(DigestError)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The two digits of each byte.
#[expect(clippy::indexing_slicing, reason = "what would panic here does not compile")]
static PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let (mut pairs, mut byte) = ([[0; 2]; 256], 0);
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Lower-case hexadecimal digits, two for each of `bytes`. Ids are printed on every call, so nothing is formatted.
pub(crate) fn hex<const N: usize, const DIGITS: usize>(bytes: &[u8; N]) -> [u8; DIGITS] {
    const { assert!(DIGITS == N * 2) };
    let mut text = [0_u8; DIGITS];
    let (pairs, _) = text.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        *pair = PAIRS.get(usize::from(*byte)).copied().unwrap_or_default();
    }
    text
}

/// Prints digits that [`hex()`] made.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, digits: &[u8]) -> fmt::Result {
    f.write_str(std::str::from_utf8(digits).unwrap_or_default())
}

/// Reads exactly `N` bytes of hexadecimal digits.
pub(crate) fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_abc_is_the_one_of_fips_180() {
        let printed = Digest::of(b"abc").to_string();
        assert_eq!(printed, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(printed.parse::<Digest>(), Ok(Digest::of_parts(&[b"a", b"bc"])));
        assert!("sha256:ba78".parse::<Digest>().is_err());
    }

    #[test]
    fn parts_are_hashed_as_one_text_however_long_they_are() {
        let text = [7; 3 * SHORT];
        for length in [0, 1, SHORT - 1, SHORT, SHORT + 1, text.len()] {
            for cut in [0, length / 2, length] {
                let (whole, (left, right)) = (&text[..length], text[..length].split_at(cut));
                assert_eq!(Digest::of_parts(&[left, &[], right]), Digest::of(whole), "{length} cut at {cut}");
                assert_eq!(Digest::of_long(&[left, right]), Digest::of(whole), "{length} cut at {cut}");
            }
        }
    }
}
