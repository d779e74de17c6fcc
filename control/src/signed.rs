//! Words that the owner of a certificate has signed, for documents that carry the chain (PEM) and the signature (base64) along.
//!
//! The key is that of the chain's first certificate: ECDSA P-256 with SHA-256 (ASN.1) or Ed25519. Whose certificate may sign what is
//! the document's own matter.

use crate::trust::{CertName, Distrust, Identity, Trust, cert_name};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Longest certificate chain that is read.
const MAX_CHAIN: usize = 8;

/// Why a signature does not count.
#[derive(Debug, thiserror::Error)]
pub enum SignedError {
    /// The chain is no PEM, empty or too long.
    #[error("certificate: a chain of 1 to 8 certificates as PEM is right")]
    Chain,
    /// The certificate has no name `trocar://REALM/ROLE/NAME`.
    #[error("the certificate has no name")]
    NoName,
    /// The trust list does not vouch for it.
    #[error("{name}: {why}")]
    Distrusted {
        /// Who the certificate says it is.
        name: CertName,
        /// What is wrong.
        why: Distrust,
    },
    /// Neither of the two kinds of key.
    #[error("the key is not ECDSA P-256 or Ed25519")]
    Key,
    /// The signature is not that of these words by this key.
    #[error("the signature does not fit")]
    Signature,
}

/// Signs words: the signer's chain as PEM, and the signature in base64.
///
/// # Errors
/// [`SignedError`]: a key of another kind, or of another certificate; that is found here and not where the signature is needed.
pub fn sign(words: &[u8], signer: &Identity) -> Result<(String, String), SignedError> {
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&signer.key).map_err(|_| SignedError::Key)?;
    let schemes = [SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256];
    let key = key.choose_scheme(&schemes).ok_or(SignedError::Key)?;
    let signature = key.sign(words).map_err(|_| SignedError::Key)?;
    check(signer.chain.first().ok_or(SignedError::Chain)?, words, &signature)?;
    Ok((signer.chain.iter().map(pem).collect(), STANDARD.encode(signature)))
}

/// A signer's chain, leaf first, and its name, as the trust list has it at `at`.
///
/// # Errors
/// [`SignedError`] where it cannot be read, has no name or is not vouched for.
pub fn signer(
    certificate: &str,
    trust: &Trust,
    at: UnixTime,
) -> Result<(CertName, Vec<CertificateDer<'static>>), SignedError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .take(MAX_CHAIN + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| SignedError::Chain)?;
    let leaf = chain.first().filter(|_| chain.len() <= MAX_CHAIN).ok_or(SignedError::Chain)?;
    let name = cert_name(leaf).ok_or(SignedError::NoName)?;
    match trust.verify(&chain, at) {
        Ok(_) => Ok((name, chain)),
        Err(why) => Err(SignedError::Distrusted { name, why }),
    }
}

/// Checks a signature in base64 with the key of the chain's first certificate.
///
/// # Errors
/// [`SignedError::Key`] and [`SignedError::Signature`].
pub fn verify(chain: &[CertificateDer<'_>], words: &[u8], signature: &str) -> Result<(), SignedError> {
    let signature = STANDARD.decode(signature).map_err(|_| SignedError::Signature)?;
    check(chain.first().ok_or(SignedError::Chain)?, words, &signature)
}

fn check(leaf: &CertificateDer<'_>, words: &[u8], signature: &[u8]) -> Result<(), SignedError> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| SignedError::Chain)?;
    let key = parsed.public_key();
    let algorithm: &'static dyn VerificationAlgorithm = match key.algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.10045.2.1" => &ECDSA_P256_SHA256_ASN1,
        "1.3.101.112" => &ED25519,
        _ => return Err(SignedError::Key),
    };
    let key = UnparsedPublicKey::new(algorithm, key.subject_public_key.data.as_ref());
    key.verify(words, signature).map_err(|_| SignedError::Signature)
}

pub(crate) fn pem(der: &CertificateDer<'_>) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = (0..body.len()).step_by(64).filter_map(|at| body.get(at..body.len().min(at + 64))).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
