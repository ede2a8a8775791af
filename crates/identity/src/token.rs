//! Signed tokens: taking one apart, and checking what it claims. Knows no keys and no clock.

use crate::{Algorithm, AuthFault, IssuerSetting};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};
use std::fmt;
use vocab::{Digest, Timestamp};

/// Longest token that is looked at.
const LONGEST: usize = 16 * 1024;

/// A token taken apart. SECURITY: nothing in it is verified.
pub(crate) struct Token<'a> {
    /// What the signature is over.
    pub(crate) signed: &'a str,
    pub(crate) signature: &'a str,
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    kind: Option<String>,
    pub(crate) claims: Map<String, Value>,
}

/// The members of the header that are read. A key or an address of one in it is never used.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
}

/// Claims with each name once: of two `aud`, nobody knows which one the issuer meant.
struct Claims(Map<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Claims;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Claims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name occurs twice"));
                    }
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

/// The digest that names a token in records and revocations.
///
/// SECURITY: it is over the signed part only. An ECDSA signature can be rewritten into a second valid one by anybody
/// who holds the token; over the whole text, that would be a way around a revocation.
pub(crate) fn digest(signed: &str) -> Digest {
    Digest::of(signed.as_bytes())
}

/// Splits a token into the signed part and the signature.
pub(crate) fn split(text: &str) -> Option<(&str, &str)> {
    let (signed, signature) = text.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let whole = !header.is_empty() && !claims.is_empty() && !signature.is_empty() && !claims.contains('.');
    (whole && text.len() <= LONGEST).then_some((signed, signature))
}

/// Takes a token apart. Work is bounded by the length of the text.
pub(crate) fn parse(text: &str) -> Result<Token<'_>, AuthFault> {
    let (signed, signature) = split(text).ok_or(AuthFault::Malformed("it is no key and no signed token"))?;
    let (header, claims) = signed.split_once('.').ok_or(AuthFault::Malformed("it is no signed token"))?;
    let header: Header = decode(header).ok_or(AuthFault::Malformed("the token's header is unreadable"))?;
    if header.crit.is_some() {
        // SPEC: RFC 7515 §4.1.11. We understand no extension, so none may be critical.
        return Err(AuthFault::Malformed("the token's header has critical extensions"));
    }
    let algorithm = header.alg.parse().map_err(|_| AuthFault::Algorithm)?;
    let Claims(claims) = decode(claims).ok_or(AuthFault::Malformed("the token's claims are unreadable"))?;
    Ok(Token { signed, signature, algorithm, key_id: header.kid, kind: header.typ, claims })
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// When a token is good.
#[derive(Debug)]
pub(crate) struct Validity {
    /// Not before this, the leeway taken off.
    pub(crate) from: Option<Timestamp>,
    /// Strictly before this, the leeway added.
    pub(crate) until: Timestamp,
}

impl Token<'_> {
    /// The `iss` claim.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// Checks type and audience, and reads when the token is good. The signature must be good already.
    pub(crate) fn check(&self, issuer: &IssuerSetting) -> Result<Validity, AuthFault> {
        let kind = self.kind.as_deref().unwrap_or("JWT");
        let kind = strip_media_type(kind);
        if !issuer.token_types.iter().any(|accepted| accepted.eq_ignore_ascii_case(kind)) {
            return Err(AuthFault::Type(issuer.url.clone()));
        }
        if !self.is_for(&issuer.audiences) {
            return Err(AuthFault::Audience(issuer.url.clone()));
        }
        let until = self.time("exp")?.ok_or_else(|| AuthFault::Claim("exp".to_owned()))?.plus(issuer.leeway);
        let leeway = i64::try_from(issuer.leeway.as_micros()).unwrap_or(0);
        let from = self.time("nbf")?.map(|time| Timestamp::from_micros(time.as_micros().saturating_sub(leeway)));
        Ok(Validity { from, until })
    }

    fn is_for(&self, audiences: &[String]) -> bool {
        match self.claims.get("aud") {
            Some(Value::String(audience)) => audiences.contains(audience),
            Some(Value::Array(items)) => {
                items.iter().all(Value::is_string)
                    && items.iter().filter_map(Value::as_str).any(|item| audiences.iter().any(|wanted| wanted == item))
            }
            _ => false,
        }
    }

    /// A `NumericDate`: seconds, perhaps with a fraction.
    fn time(&self, claim: &'static str) -> Result<Option<Timestamp>, AuthFault> {
        /// The year 9999: later than any date that is meant, early enough for exact arithmetic.
        const LATEST: f64 = 253_402_300_799.0;
        match self.claims.get(claim) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(seconds) if (0.0..=LATEST).contains(&seconds) =>
                {
                    #[expect(clippy::cast_possible_truncation, reason = "the range was checked, microseconds fit 2^63")]
                    Ok(Some(Timestamp::from_micros((seconds * 1e6) as i64)))
                }
                _ => Err(AuthFault::Claim(claim.to_owned())),
            },
        }
    }
}

impl Validity {
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), AuthFault> {
        if now >= self.until {
            return Err(AuthFault::Expired);
        }
        if self.from.is_some_and(|from| now < from) {
            return Err(AuthFault::NotYetValid);
        }
        Ok(())
    }
}

/// SPEC: RFC 7515 §4.1.9: `application/` may be left out.
fn strip_media_type(kind: &str) -> &str {
    const PREFIX: &str = "application/";
    match kind.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => kind,
    }
}
