//! A gate's seal: up to which record its chain goes and with which head, signed with the gate's certificate.
//!
//! A gate's chain has no secret: whoever may write its file can make another one that fits. The seal is made on the gate's machine, from
//! the file alone (`trocar audit seal`): the gate itself knows nothing of it and waits for nothing.

use crate::audit::chain::hex;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use std::path::Path;
use trocar_control::audit as gate;
use trocar_control::audit::clock::utc_seconds;
use trocar_control::trust::{Distrust, Identity, Trust, cert_name};
use trocar_proto::units::WallMicros;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What the signature covers begins so.
const LABEL: &str = "trocar-gate-audit-1\n";
/// Longest chain of certificates.
const MAX_CHAIN: usize = 8;
/// Longest seal, in bytes.
const MAX_SEAL: usize = 64 * 1_024;
/// The role in a gate's certificate.
const ROLE: &str = "gate";

/// What is wrong with a seal.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It is no seal.
    #[error("it does not have the form of a seal: {0}")]
    Form(#[from] serde_json::Error),
    /// It is longer than any.
    #[error("it is longer than 64 KiB")]
    TooLong,
    /// The certificate cannot be read, or is longer than any chain.
    #[error("certificate: a chain of 1 to 8 certificates as PEM is right")]
    Certificate,
    /// The certificate is not a gate's, or of another one than the seal names.
    #[error("the certificate says {0}: trocar://REALM/gate/NAME is right, the same as in the seal")]
    Role(String),
    /// The trust list does not vouch for it.
    #[error("the certificate of {gate}: {why}")]
    Distrusted {
        /// Whose.
        gate: String,
        /// Why not.
        why: Distrust,
    },
    /// Its key is of another kind.
    #[error("the certificate's key is not ECDSA P-256 or Ed25519")]
    Key,
    /// The signature is not of that certificate.
    #[error("the signature does not fit")]
    Signature,
    /// The chain to be sealed is not whole.
    #[error(transparent)]
    Chain(#[from] gate::Bad),
}

/// What is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// The gate, as its certificate names it.
    pub gate: String,
    /// The newest record.
    pub seq: u64,
    /// Its hash, in hex.
    pub hash: String,
    /// When this was made, by the gate's wall clock.
    pub at: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    seal: Seal,
    certificate: String,
    signature: String,
}

/// Checks a gate's chain and seals it, as a file of JSON. `chain` is its store or the file alone.
///
/// # Errors
/// Names the first bad record, or what is wrong with the certificate.
pub fn seal(chain: &Path, identity: &Identity, at: WallMicros) -> Result<String, SealError> {
    if identity.name().role != ROLE {
        return Err(SealError::Role(identity.name().to_string()));
    }
    let head = gate::verify(chain)?.head;
    let seal = Seal { gate: identity.name().to_string(), seq: head.seq, hash: hex(&head.hash.0), at: utc_seconds(at) };
    let words = signed_bytes(&seal)?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&identity.key).map_err(|_| SealError::Key)?;
    let schemes = [SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256];
    let key = key.choose_scheme(&schemes).ok_or(SealError::Key)?;
    let signature = key.sign(&words).map_err(|_| SealError::Key)?;
    check(identity.chain.first().ok_or(SealError::Certificate)?, &words, &signature)?;
    let certificate = identity.chain.iter().map(|c| pem(c)).collect();
    let mut text = serde_json::to_string_pretty(&File { seal, certificate, signature: STANDARD.encode(signature) })?;
    text.push('\n');
    Ok(text)
}

/// Reads a seal and checks who made it.
///
/// # Errors
/// [`SealError`] says what is wrong with it.
pub(super) fn read(bytes: &[u8], trust: &Trust, at: UnixTime) -> Result<Seal, SealError> {
    if bytes.len() > MAX_SEAL {
        return Err(SealError::TooLong);
    }
    let file: File = serde_json::from_slice(bytes)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(file.certificate.as_bytes())
        .take(MAX_CHAIN + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| SealError::Certificate)?;
    let leaf = chain.first().filter(|_| chain.len() <= MAX_CHAIN).ok_or(SealError::Certificate)?;
    let name = cert_name(leaf).ok_or_else(|| SealError::Role("no name".to_owned()))?;
    trust.verify(&chain, at).map_err(|why| SealError::Distrusted { gate: name.to_string(), why })?;
    if name.role != ROLE || name.to_string() != file.seal.gate {
        return Err(SealError::Role(name.to_string()));
    }
    let signature = STANDARD.decode(&file.signature).map_err(|_| SealError::Signature)?;
    check(leaf, &signed_bytes(&file.seal)?, &signature)?;
    Ok(file.seal)
}

fn signed_bytes(seal: &Seal) -> Result<Vec<u8>, SealError> {
    let mut out = LABEL.as_bytes().to_vec();
    serde_json::to_writer(&mut out, seal)?;
    Ok(out)
}

fn check(leaf: &CertificateDer<'_>, words: &[u8], signature: &[u8]) -> Result<(), SealError> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| SealError::Certificate)?;
    let key = parsed.public_key();
    let algorithm: &'static dyn VerificationAlgorithm = match key.algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.10045.2.1" => &ECDSA_P256_SHA256_ASN1,
        "1.3.101.112" => &ED25519,
        _ => return Err(SealError::Key),
    };
    let key = UnparsedPublicKey::new(algorithm, key.subject_public_key.data.as_ref());
    key.verify(words, signature).map_err(|_| SealError::Signature)
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = (0..body.len()).step_by(64).filter_map(|at| body.get(at..body.len().min(at + 64))).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
