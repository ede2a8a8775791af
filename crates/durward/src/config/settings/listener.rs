//! Where agents connect, and what they are shown there.

use serde::Serialize;
use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// One place where agents connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// On the network.
    Network(SocketAddr),
    /// In the file system.
    Unix(PathBuf),
}

impl Listen {
    /// The address, if this is one of the network.
    pub(crate) const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Network(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl FromStr for Listen {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("unix:") {
            Some("") => Err(()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Network).map_err(drop),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Who on this machine may connect to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SocketAccess {
    /// The gateway's own user.
    Owner,
    /// Its group, too.
    Group,
    /// Everybody.
    Everyone,
}

impl SocketAccess {
    /// Nothing else is said.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference to the field")]
    pub(super) const fn is_owner(&self) -> bool {
        matches!(self, Self::Owner)
    }

    /// The mode of the socket.
    pub(crate) const fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o660,
            Self::Everyone => 0o666,
        }
    }
}

/// The files of the certificate that clients are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Tls {
    /// The certificate and those that vouch for it.
    #[serde(serialize_with = "super::written::path")]
    pub(crate) certificate: PathBuf,
    /// Its private key.
    #[serde(serialize_with = "super::written::path")]
    pub(crate) key: PathBuf,
}
