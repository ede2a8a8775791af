//! What a TLS client is shown: one certificate with its key, which is replaced without touching an open connection.
//!
//! Reads no file. Decides nothing about who may connect.

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::{
    CertificateError, InconsistentKeys, RootCertStore, ServerConfig,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::aws_lc_rs as provider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use std::{fmt::Write as _, sync::Arc, time::Duration};
use tokio_rustls::TlsAcceptor;
use vocab::Timestamp;

/// What is spoken over TLS, by ALPN, the better one first.
const SPOKEN: [&[u8]; 2] = [HTTP2, b"http/1.1"];
/// The name of HTTP/2 in ALPN.
pub(super) const HTTP2: &[u8] = b"h2";

/// A certificate, the ones that vouch for it, and its private key. They fit together.
#[derive(Debug, Clone)]
pub struct Certificate(Arc<CertifiedKey>);

/// Why a certificate and a key are none.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFault {
    /// The certificates are not PEM.
    #[error("the certificate is not readable as PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// There is no certificate.
    #[error("there is no certificate in it; a `-----BEGIN CERTIFICATE-----` block is expected")]
    Empty,
    /// The certificate is no certificate.
    #[error("the certificate cannot be used")]
    Certificate(#[source] rustls::Error),
    /// There is no key.
    #[error("there is no private key in it; a `-----BEGIN PRIVATE KEY-----` block without a password is expected")]
    Key(#[source] rustls::pki_types::pem::Error),
    /// The key is of a kind that is not supported.
    #[error("the private key cannot be used; RSA, ECDSA and Ed25519 can")]
    Kind(#[source] rustls::Error),
    /// The key belongs to another certificate.
    #[error("the private key belongs to another certificate; the server's own must be the first in its file")]
    Mismatch,
    /// Clients refuse it by now.
    #[error("the certificate has expired on {0}")]
    Expired(Timestamp),
    /// Clients refuse it for now.
    #[error("the certificate is not good before {0}; is the clock of this machine right?")]
    Early(Timestamp),
}

impl CertificateFault {
    /// Whether it is the key that is at fault, and not the certificate.
    pub const fn is_of_key(&self) -> bool {
        match self {
            Self::Pem(_) | Self::Empty | Self::Certificate(_) | Self::Expired(_) | Self::Early(_) => false,
            Self::Key(_) | Self::Kind(_) | Self::Mismatch => true,
        }
    }
}

impl Certificate {
    /// Takes PEM: the server's own certificate first, then those that vouch for it, and the key.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, CertificateFault> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(CertificateFault::Pem)?;
        if chain.is_empty() {
            return Err(CertificateFault::Empty);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateFault::Key)?;
        let key = provider::sign::any_supported_type(&key).map_err(CertificateFault::Kind)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => Ok(Self(Arc::new(certified))),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(CertificateFault::Mismatch),
            Err(fault) => Err(CertificateFault::Certificate(fault)),
        }
    }

    /// Whether the server's own certificate is good at this time, as a client would judge it. Who vouches for it is for
    /// clients to say.
    pub fn check_time(&self, now: Timestamp) -> Result<(), CertificateFault> {
        let seconds = u64::try_from(now.as_micros()).unwrap_or_default() / 1_000_000;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let moment = |time: UnixTime| {
            Timestamp::from_micros(i64::try_from(time.as_secs().saturating_mul(1_000_000)).unwrap_or(i64::MAX))
        };
        let Some(own) = self.0.cert.first().and_then(|own| ParsedCertificate::try_from(own).ok()) else {
            return Ok(());
        };
        // Time is looked at first: with nobody who could vouch for it, that is all that is looked at.
        let nobody = RootCertStore::empty();
        match verify_server_cert_signed_by_trust_anchor(&own, &nobody, &[], at, &[]) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                Err(CertificateFault::Expired(moment(not_after)))
            }
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                Err(CertificateFault::Early(moment(not_before)))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The SHA-256 of the server's own certificate, as other tools print it.
    pub fn fingerprint(&self) -> String {
        let own = self.0.cert.first().map(AsRef::as_ref).unwrap_or_default();
        digest(&SHA256, own).as_ref().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// The certificate that is shown now.
#[derive(Debug)]
pub struct Certificates(ArcSwap<CertifiedKey>);

impl Certificates {
    /// Shows this one.
    pub fn new(certificate: Certificate) -> Self {
        Self(ArcSwap::new(certificate.0))
    }

    /// Shows this one to whoever connects from now on. Whether it is another one.
    pub fn show(&self, certificate: &Certificate) -> bool {
        let before = self.0.swap(Arc::clone(&certificate.0));
        before.cert != certificate.0.cert
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// How TLS begins: version 1.2 or 1.3, and what is shown at that moment.
pub(super) fn acceptor(certificates: &Arc<Certificates>) -> Result<TlsAcceptor, rustls::Error> {
    let mut server = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(certificates) as Arc<dyn ResolvesServerCert>);
    server.alpn_protocols = SPOKEN.map(<[u8]>::to_vec).to_vec();
    Ok(TlsAcceptor::from(Arc::new(server)))
}
