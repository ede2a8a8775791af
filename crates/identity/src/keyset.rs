//! One published key set: which keys in it are ours to use, and which one fits a token.
//!
//! Only public keys are taken in, each for the algorithms of its own kind: a shared secret in a set is passed over.

use crate::{Algorithm, token::Token};
use jsonwebtoken::{DecodingKey, jwk::Jwk};
use serde::Deserialize;
use serde_json::Value;
use vocab::Digest;

/// The members of a key that decide over a token (RFC 7517, RFC 7518). A new certificate for the same key is no other key.
const DECIDES: [&str; 10] = ["kty", "crv", "n", "e", "x", "y", "alg", "use", "key_ops", "kid"];

/// Most keys that are kept of one set.
const MOST_KEYS: usize = 64;

/// Why a key set cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeySetFault {
    #[error("it is not readable")]
    Unreadable(#[source] serde_json::Error),
    #[error("it holds no public key that can verify a token")]
    NoKey,
}

/// The keys an issuer publishes.
#[derive(Debug)]
pub(crate) struct KeySet {
    keys: Vec<PublicKey>,
    digest: Digest,
    /// Grows with each change, from 1.
    pub(crate) version: u64,
}

/// A key of a set, as it was published.
#[derive(Debug)]
pub(crate) struct PublicKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(crate) key: DecodingKey,
    /// Of what decides over a token.
    pub(crate) digest: Digest,
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<Value>,
}

impl KeySet {
    /// A set without any key is one; whether it can be meant depends on whose it is.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, KeySetFault> {
        let raw: RawSet = serde_json::from_slice(bytes).map_err(KeySetFault::Unreadable)?;
        let none_published = raw.keys.is_empty();
        // One key that we cannot read must not cost the others.
        let keys: Vec<PublicKey> = raw.keys.into_iter().filter_map(PublicKey::parse).take(MOST_KEYS).collect();
        if keys.is_empty() && !none_published {
            return Err(KeySetFault::NoKey);
        }
        Ok(Self { keys, digest: Digest::of(bytes), version: 1 })
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key that a token was verified with is in it.
    pub(crate) fn holds(&self, signer: &Digest) -> bool {
        self.keys.iter().any(|key| key.digest == *signer)
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// Makes this the successor of `before`.
    pub(crate) fn follow(&mut self, before: &Self) {
        self.version = before.version + 1;
    }

    /// The keys that may have signed `token`: those with its key id, or without one the only one that fits.
    pub(crate) fn candidates(&self, token: &Token<'_>) -> Vec<&PublicKey> {
        let fitting = self.keys.iter().filter(|key| key.algorithms.contains(&token.algorithm));
        if let Some(id) = &token.key_id {
            return fitting.filter(|key| key.id.as_ref() == Some(id)).take(2).collect();
        }
        let fitting: Vec<&PublicKey> = fitting.collect();
        if fitting.len() == 1 { fitting } else { Vec::new() }
    }
}

impl PublicKey {
    fn parse(value: Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        if text("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        if let Some(Value::Array(operations)) = value.get("key_ops")
            && !operations.iter().any(|operation| operation == "verify")
        {
            return None;
        }
        // SECURITY: the kind of key decides which algorithms it serves; the token's header has no say in it.
        let algorithms: &[Algorithm] = match (text("kty")?, text("crv")) {
            ("RSA", None) => &[
                Algorithm::Rs256,
                Algorithm::Rs384,
                Algorithm::Rs512,
                Algorithm::Ps256,
                Algorithm::Ps384,
                Algorithm::Ps512,
            ],
            ("EC", Some("P-256")) => &[Algorithm::Es256],
            ("EC", Some("P-384")) => &[Algorithm::Es384],
            ("OKP", Some("Ed25519")) => &[Algorithm::EdDsa],
            _ => return None,
        };
        let algorithms: Vec<Algorithm> = match text("alg") {
            None => algorithms.to_vec(),
            Some(only) => algorithms.iter().copied().filter(|algorithm| only.parse() == Ok(*algorithm)).collect(),
        };
        if algorithms.is_empty() {
            return None;
        }
        let id = text("kid").map(str::to_owned);
        let digest = Digest::of(&serde_json::to_vec(&DECIDES.map(|name| value.get(name))).ok()?);
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        Some(Self { id, algorithms, key: DecodingKey::from_jwk(&jwk).ok()?, digest })
    }
}
