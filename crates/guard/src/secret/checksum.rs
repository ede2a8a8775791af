//! Checks that tell a real token from something of the same shape.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// GitHub and npm: the last six characters are the CRC32 of the ones between prefix and checksum, in base 62.
pub(super) fn crc_base62(token: &str) -> bool {
    let body = token.split_once('_').map_or(token, |(_, body)| body);
    let Some((random, sum)) = body.len().checked_sub(6).and_then(|at| body.split_at_checked(at)) else { return false };
    base62(crc32(random.as_bytes())) == sum
}

/// A JSON Web Token: the header decodes to an object that names an algorithm.
pub(super) fn jwt(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    let Ok(header) = URL_SAFE_NO_PAD.decode(header.trim_end_matches('=')) else { return false };
    let Ok(header) = std::str::from_utf8(&header) else { return false };
    header.trim_start().starts_with('{') && header.contains("\"alg\"")
}

/// Discord: the first part is the base64 of the numeric id of the bot.
pub(super) fn discord(token: &str) -> bool {
    let id = token.split('.').next().unwrap_or_default();
    URL_SAFE_NO_PAD.decode(id).is_ok_and(|id| (15..=20).contains(&id.len()) && id.iter().all(u8::is_ascii_digit))
}

pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xEDB8_8320 & (!(c & 1)).wrapping_add(1)))
    };
    !bytes.iter().fold(u32::MAX, step)
}

pub(crate) fn base62(mut number: u32) -> String {
    let digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = [b'0'; 6];
    for place in text.iter_mut().rev() {
        *place = digits.as_bytes().get((number % 62) as usize).copied().unwrap_or(b'0');
        number /= 62;
    }
    text.iter().map(|byte| char::from(*byte)).collect()
}
