//! A gate's seal: up to which record its chain goes and with which head, signed with the gate's certificate.
//!
//! A gate's chain has no secret: whoever may write its file can make another one that fits. The seal is made on the gate's machine, from
//! the file alone (`trocar audit seal`): the gate itself knows nothing of it and waits for nothing.

use rustls::pki_types::UnixTime;
use serde::{Deserialize, Serialize};
use std::path::Path;
use trocar_control::audit as gate;
use trocar_control::audit::clock::utc_seconds;
use trocar_control::signed::{self, SignedError};
use trocar_control::trust::{Distrust, Identity, Trust};
use trocar_proto::units::WallMicros;

/// What the signature covers begins so.
const LABEL: &str = "trocar-gate-audit-1\n";
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

impl From<SignedError> for SealError {
    fn from(error: SignedError) -> Self {
        match error {
            SignedError::Chain => Self::Certificate,
            SignedError::NoName => Self::Role("no name".to_owned()),
            SignedError::Distrusted { name, why } => Self::Distrusted { gate: name.to_string(), why },
            SignedError::Key => Self::Key,
            SignedError::Signature => Self::Signature,
        }
    }
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
    let seal =
        Seal { gate: identity.name().to_string(), seq: head.seq, hash: hex::encode(head.hash.0), at: utc_seconds(at) };
    let (certificate, signature) = signed::sign(&signed_bytes(&seal)?, identity)?;
    let mut text = serde_json::to_string_pretty(&File { seal, certificate, signature })?;
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
    let (name, chain) = signed::signer(&file.certificate, trust, at)?;
    if name.role != ROLE || name.to_string() != file.seal.gate {
        return Err(SealError::Role(name.to_string()));
    }
    signed::verify(&chain, &signed_bytes(&file.seal)?, &file.signature)?;
    Ok(file.seal)
}

fn signed_bytes(seal: &Seal) -> Result<Vec<u8>, SealError> {
    let mut out = LABEL.as_bytes().to_vec();
    serde_json::to_writer(&mut out, seal)?;
    Ok(out)
}
