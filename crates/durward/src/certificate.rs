//! The files of the TLS certificate and its key: read at the start, by `check`, and again at each reload.

use crate::config::settings::Tls;
use gateway::{
    clock::{Clock as _, SystemClock},
    rim::{Certificate, CertificateFault},
};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// The largest file that is read, in bytes: a chain of many certificates is far from it.
const LARGEST: u64 = 1 << 20;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// The certificate cannot be read.
    #[error("cannot read the certificate in {}", path.display())]
    Certificate {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// The key cannot be read.
    #[error("cannot read the private key in {}", path.display())]
    Key {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// Others can read the key, too.
    #[error("others may read the private key in {}: its mode is {mode:03o}", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    /// What is read is of no use.
    #[error("{} cannot be used", path.display())]
    Useless {
        path: PathBuf,
        #[source]
        cause: CertificateFault,
    },
}

impl Unfit {
    /// Whether the file of the key is at fault.
    pub(crate) const fn is_of_key(&self) -> bool {
        match self {
            Self::Certificate { .. } => false,
            Self::Key { .. } | Self::Exposed { .. } => true,
            Self::Useless { cause, .. } => cause.is_of_key(),
        }
    }

    /// What to do.
    pub(crate) const fn fix(&self) -> &'static str {
        match self {
            Self::Certificate { .. } | Self::Key { .. } => "name a file in PEM that the gateway's user can read",
            Self::Exposed { .. } => "`chmod 600` it; a key that others have read must be renewed",
            Self::Useless { cause: CertificateFault::Expired(_) | CertificateFault::Early(_), .. } => {
                "name one that is good now; `durward tls renew` makes one for trials"
            }
            Self::Useless { .. } => {
                "name the server's own certificate, followed by those that vouch for it, and its key, as PEM"
            }
        }
    }
}

/// Reads both files.
pub(crate) fn read(files: &Tls) -> Result<Certificate, Unfit> {
    let (chain, _) =
        contents(&files.certificate).map_err(|cause| Unfit::Certificate { path: files.certificate.clone(), cause })?;
    let (key, mode) = contents(&files.key).map_err(|cause| Unfit::Key { path: files.key.clone(), cause })?;
    if mode & 0o077 != 0 {
        return Err(Unfit::Exposed { path: files.key.clone(), mode });
    }
    let read = Certificate::from_pem(&chain, &key);
    let fit = read.and_then(|read| read.check_time(SystemClock::new().now()).map(|()| read));
    fit.map_err(|cause| {
        let path = if cause.is_of_key() { &files.key } else { &files.certificate };
        Unfit::Useless { path: path.clone(), cause }
    })
}

/// What a file holds, and its mode.
fn contents(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    // What grows is copied and leaves its old place behind: the room is there before the key is.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0).saturating_add(1)));
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok((bytes, metadata.permissions().mode() & 0o777))
}
