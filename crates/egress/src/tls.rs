//! Whom TLS trusts. Verification is rustls's; nothing here can switch it off.

use crate::Protocol;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{fmt, sync::Arc};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text is not PEM.
    #[error("the certificates are not readable as PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// The text holds no certificate.
    #[error("there is no certificate in it; a `-----BEGIN CERTIFICATE-----` block is expected")]
    Empty,
    /// A certificate cannot serve as a root.
    #[error("a certificate cannot serve as a root")]
    Root(#[source] rustls::Error),
    /// The protocol versions and the cryptography do not fit together.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// Certificates that may vouch for a server.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// What the system trusts. May be empty: then every TLS connection is refused, with the reason.
    pub fn system() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for fault in &found.errors {
            tracing::debug!(%fault, "a part of the system's trusted certificates cannot be read");
        }
        let mut store = RootCertStore::empty();
        let (added, ignored) = store.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!(
                ignored,
                "no trusted certificates found on this system: https servers cannot be reached unless they name their own `roots`"
            );
        }
        Self(Arc::new(store))
    }

    /// Exactly the certificates in `pem`, and nothing of the system's.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            store.add(certificate.map_err(TlsError::Pem)?).map_err(TlsError::Root)?;
        }
        if store.is_empty() {
            return Err(TlsError::Empty);
        }
        Ok(Self(Arc::new(store)))
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Clients that trust these roots.
    pub(crate) fn clients(&self) -> Result<Clients, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(Arc::clone(&self.0))
            .with_no_client_auth();
        let speaking = |names: &[&[u8]]| {
            let mut client = client.clone();
            client.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
            Arc::new(client)
        };
        Ok(Clients { offered: speaking(&[H2, HTTP1]), http1: speaking(&[HTTP1]), http2: speaking(&[H2]) })
    }
}

/// What ALPN calls the two (RFC 7301).
pub(crate) const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// One client for each protocol that may be wanted.
pub(crate) struct Clients {
    offered: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Clients {
    /// The client that offers a server what it may choose from.
    pub(crate) const fn of(&self, protocol: Protocol) -> &Arc<ClientConfig> {
        match protocol {
            Protocol::Offered => &self.offered,
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        }
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}
