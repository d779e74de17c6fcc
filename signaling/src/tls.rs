//! TLS 1.3 for the public listener, and 1.2 where it is asked for; aws-lc as the one provider.

use crate::config::TlsIdentity;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

/// Why the TLS identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The chain is no PEM.
    #[error("the certificate chain cannot be read: {0}")]
    Chain(rustls::pki_types::pem::Error),
    /// There is no certificate in it.
    #[error("the certificate chain is empty")]
    NoCertificate,
    /// The key is no PEM, or has no private key in it.
    #[error("the private key cannot be read: {0}")]
    Key(rustls::pki_types::pem::Error),
    /// Its time has not begun, or is over.
    #[error("the certificate is not good now: its time is {0} to {1}")]
    Time(String, String),
    /// The leaf is no certificate.
    #[error("the first certificate of the chain cannot be read")]
    Leaf,
    /// Certificate and key do not fit each other or the versions.
    #[error("certificate and key cannot be used: {0}")]
    Identity(#[from] rustls::Error),
}

/// The listener's configuration: no client certificates, HTTP/1.1. With `tls12` TLS 1.2 beside 1.3, with forward secrecy and authenticated
/// encryption, which is all that the provider has for it (RFC 9325 section 4.2), and only with the extended master secret (RFC 7627),
/// without which one connection may be taken for another.
pub(crate) fn server_config(identity: &TlsIdentity, tls12: bool) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&identity.cert_chain_pem).collect::<Result<_, _>>().map_err(TlsError::Chain)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(&identity.key_pem).map_err(TlsError::Key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions: &[_] =
        if tls12 { &[&rustls::version::TLS13, &rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.require_ems = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Whether the leaf is good now, by its times.
pub(crate) fn check_time(identity: &TlsIdentity) -> Result<(), TlsError> {
    let leaf = CertificateDer::from_pem_slice(&identity.cert_chain_pem).map_err(TlsError::Chain)?;
    let times = trocar_control::trust::times(&leaf).ok_or(TlsError::Leaf)?;
    if times.is_now { Ok(()) } else { Err(TlsError::Time(times.from, times.until)) }
}
