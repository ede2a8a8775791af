//! A fake identity provider: discovery, a key set that rotates, and tokens signed with generated keys.

use crate::{
    answer::Answer,
    upstream::{Received, Upstream},
};
use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use serde_json::{Value, json};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Which kind of signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `EdDSA` with Ed25519
    Ed25519,
    /// `ES256`
    P256,
    /// `RS256`, 2048 bits
    Rsa,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A generated key that signs tokens.
pub struct SigningKey {
    id: String,
    pair: Pair,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).field("alg", &self.algorithm()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Makes a new one.
    pub fn generate(kind: Kind, id: &str) -> Self {
        let pair = match kind {
            Kind::Ed25519 => Pair::Ed25519(Ed25519KeyPair::generate().expect("a key")),
            Kind::P256 => Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")),
            Kind::Rsa => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")),
        };
        Self { id: id.to_owned(), pair }
    }

    /// Its `kid`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its `alg`.
    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Ed25519(_) => "EdDSA",
            Pair::P256(_) => "ES256",
            Pair::Rsa(_) => "RS256",
        }
    }

    /// A token with these claims and an honest header.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.id});
        compact(&header, claims, |text| self.sign(text))
    }

    /// The bare signature of `text`.
    pub fn sign(&self, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ed25519(pair) => pair.sign(text).as_ref().to_vec(),
            Pair::P256(pair) => pair.sign(&random, text).expect("a signature").as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature).expect("a signature");
                signature
            }
        }
    }

    /// The public half as a member of a key set.
    pub fn jwk(&self) -> Value {
        let common = |mut key: Value| {
            if let Some(members) = key.as_object_mut() {
                members.insert("kid".to_owned(), json!(self.id));
                members.insert("alg".to_owned(), json!(self.algorithm()));
                members.insert("use".to_owned(), json!("sig"));
            }
            key
        };
        common(match &self.pair {
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key().as_ref())})
            }
            Pair::P256(pair) => {
                let (x, y) = pair.public_key().as_ref().get(1..).expect("an uncompressed point").split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y)})
            }
            Pair::Rsa(pair) => {
                let (modulus, exponent) = rsa_numbers(pair.public_key().as_ref()).expect("an RSA public key");
                json!({"kty": "RSA", "n": encoded(modulus), "e": encoded(exponent)})
            }
        })
    }

    /// The public half as the bytes that a key-confusion attack would use as an HMAC key.
    pub fn public_bytes(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Pair::P256(pair) => pair.public_key().as_der().expect("a public key").as_ref().to_vec(),
            Pair::Rsa(pair) => pair.public_key().as_der().expect("a public key").as_ref().to_vec(),
        }
    }
}

/// A compact token with any header and any signature; an empty one makes it unsigned.
pub fn compact(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let text = format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
    let signature = encoded(&sign(text.as_bytes()));
    format!("{text}.{signature}")
}

/// The provider: an HTTP server with discovery and a key set.
#[derive(Debug)]
pub struct Issuer {
    server: Upstream,
    keys: Arc<Mutex<Vec<Value>>>,
    key: SigningKey,
}

impl Issuer {
    /// Starts one that publishes a single key.
    pub async fn start(kind: Kind) -> Self {
        let server = Upstream::with_tools([]).await;
        let key = SigningKey::generate(kind, "key-1");
        let keys = Arc::new(Mutex::new(vec![key.jwk()]));
        let url = format!("http://{}", server.address());
        let published = Arc::clone(&keys);
        server.always("GET", move |request| answer(&url, &published, request));
        Self { server, keys, key }
    }

    /// The issuer identifier.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Where the key set is.
    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.url())
    }

    /// The key it signs with.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// A token of this issuer: `iss` is set, the other claims are the caller's.
    pub fn token(&self, mut claims: Value) -> String {
        if let Some(members) = claims.as_object_mut() {
            members.entry("iss").or_insert_with(|| json!(self.url()));
        }
        self.key.token(&claims)
    }

    /// Signs with a new key from now on; `keep` says whether the old one stays published.
    pub fn rotate(&mut self, kind: Kind, id: &str, keep: bool) {
        self.key = SigningKey::generate(kind, id);
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !keep {
            keys.clear();
        }
        keys.push(self.key.jwk());
    }

    /// The server behind it, to script outages with and to count what was fetched.
    pub fn server(&self) -> &Upstream {
        &self.server
    }
}

fn answer(url: &str, keys: &Mutex<Vec<Value>>, request: &Received) -> Answer {
    match request.path.as_str() {
        "/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server" => Answer::json(
            json!({"issuer": url, "jwks_uri": format!("{url}/jwks"), "authorization_endpoint": format!("{url}/authorize"),
                "token_endpoint": format!("{url}/token"), "response_types_supported": ["code"]})
            .to_string(),
        ),
        "/jwks" => {
            let keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
            Answer::json(json!({"keys": *keys}).to_string())
        }
        _ => Answer::status(StatusCode::NOT_FOUND),
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Modulus and exponent of a DER `RSAPublicKey`.
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = der_element(der, 0x30)?;
    let (modulus, rest) = der_element(sequence, 0x02)?;
    let (exponent, _) = der_element(rest, 0x02)?;
    Some((modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent))
}

fn der_element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = if *length < 0x80 {
        (usize::from(*length), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        (digits.iter().fold(0, |length, digit| length * 256 + usize::from(*digit)), rest)
    };
    (*first == tag).then(|| rest.split_at_checked(length))?
}
