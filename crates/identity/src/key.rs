//! API keys: how they are made, written and recognised. Whether one is valid is the registry's business.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};
use vocab::{Digest, Secret};
use zeroize::Zeroizing;

/// Characters of an id: 32 of them, none that looks like another.
const ID_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const ID_LENGTH: usize = 8;
/// 32 bytes in base64url without padding.
const SECRET_LENGTH: usize = 43;

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// The data plane, as an agent: `dwk_…`
    Agent,
    /// The management API: `dwa_…`
    Admin,
}

impl KeyKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Agent => "dwk_",
            Self::Admin => "dwa_",
        }
    }
}

/// What an administrator may do. Each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AdminRole {
    /// Looks.
    Viewer,
    /// Runs the installation.
    Operator,
    /// Gives and takes rights.
    Owner,
}

impl AdminRole {
    /// The name in rows, records and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for AdminRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a management role: viewer, operator or owner")]
pub struct AdminRoleError(String);

impl FromStr for AdminRole {
    type Err = AdminRoleError;
    fn from_str(text: &str) -> Result<Self, AdminRoleError> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "owner" => Ok(Self::Owner),
            _ => Err(AdminRoleError(text.chars().take(32).collect())),
        }
    }
}

/// The public part of a key: what lists, records and revocations name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

/// A text that is not the id of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key id is 8 lower-case letters and digits")]
pub struct KeyIdError;

impl KeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = KeyIdError;
    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        if is_id(text) { Ok(Self(Arc::from(text))) } else { Err(KeyIdError) }
    }
}

impl Borrow<str> for KeyId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// The system gave no random bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct RandomFault;

/// A new API key. Its text is shown once; only its digest is stored.
#[derive(Debug)]
pub struct ApiKey {
    id: KeyId,
    kind: KeyKind,
    text: Secret<String>,
}

impl ApiKey {
    /// Draws a key of 256 random bits.
    pub fn generate(kind: KeyKind) -> Result<Self, RandomFault> {
        let mut id_bytes = [0_u8; ID_LENGTH];
        let mut secret = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(&mut id_bytes).map_err(|_| RandomFault)?;
        aws_lc_rs::rand::fill(secret.as_mut()).map_err(|_| RandomFault)?;
        let id: String = id_bytes
            .iter()
            .filter_map(|byte| ID_ALPHABET.get(usize::from(byte & 31)))
            .map(|byte| char::from(*byte))
            .collect();
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_ref()));
        let text = Secret::new(format!("{}{id}_{}", kind.prefix(), *encoded));
        Ok(Self { id: KeyId(Arc::from(id)), kind, text })
    }

    /// The public part.
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// What the key opens.
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The whole key, to be shown once.
    pub const fn text(&self) -> &Secret<String> {
        &self.text
    }

    /// What is stored in place of the key. It holds 256 random bits, so a plain digest cannot be searched.
    pub fn hash(&self) -> Digest {
        Digest::of(self.text.expose().as_bytes())
    }
}

/// What a credential looks like.
pub(crate) enum Shape<'a> {
    /// A key of ours; whether it exists is another question.
    Key { id: &'a str, kind: KeyKind },
    /// It begins like one of ours but is none.
    Broken,
    /// Something else, a token perhaps.
    Other,
}

/// Looks at a credential without judging it.
pub(crate) fn recognise(text: &str) -> Shape<'_> {
    let Some((kind, rest)) =
        [KeyKind::Agent, KeyKind::Admin].into_iter().find_map(|kind| Some((kind, text.strip_prefix(kind.prefix())?)))
    else {
        return Shape::Other;
    };
    match rest.split_once('_') {
        Some((id, secret)) if is_id(id) && is_secret(secret) => Shape::Key { id, kind },
        _ => Shape::Broken,
    }
}

fn is_secret(text: &str) -> bool {
    text.len() == SECRET_LENGTH && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
