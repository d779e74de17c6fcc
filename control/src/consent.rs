//! The patient's consent as a signed document: JSON with the consent, the signer's certificate chain and a signature.
//!
//! Signed are the bytes `trocar-consent-1`, a line feed, and the member `consent` as JSON without spaces in the order of docs/AUDIT.md.
//! The key is that of the chain's first certificate, ECDSA P-256 with SHA-256 (ASN.1) or Ed25519, whose name is
//! `trocar://REALM/consent/NAME` and which the reader's own trust list vouches for. Which of several documents counts is decided by
//! [`trocar_proto::handover::consent`].

use crate::audit::clock::{parse_utc, utc_seconds};
use crate::audit::record::Hash;
use crate::signed::{self, SignedError};
use crate::trust::{CertName, Distrust, Identity, Trust};
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use trocar_proto::handover::consent::{Document, Scope};
use trocar_proto::session::ids::SessionId;
use trocar_proto::units::WallMicros;

/// Longest document that is read, in bytes.
pub const MAX_DOCUMENT: usize = 64 * 1_024;
const LABEL: &[u8] = b"trocar-consent-1\n";

/// Why a document does not count.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Longer than [`MAX_DOCUMENT`].
    #[error("the document is longer than 64 KiB")]
    TooLong,
    /// It is no such JSON.
    #[error("the document does not have the form of a consent: {0}")]
    Form(#[from] serde_json::Error),
    /// A time.
    #[error("{field} = {value:?}: a time as 2026-03-01T10:20:30Z is right")]
    Time {
        /// `from` or `until`.
        field: &'static str,
        /// What it has.
        value: String,
    },
    /// `until` is not after `from`.
    #[error("until is not after from")]
    Order,
    /// The chain is no PEM, empty or too long.
    #[error("certificate: a chain of 1 to 8 certificates as PEM is right")]
    Chain,
    /// The trust list does not vouch for the signer.
    #[error("the signer {signer}: {why}")]
    Distrusted {
        /// Who the certificate says it is.
        signer: String,
        /// What is wrong.
        why: Distrust,
    },
    /// The certificate is not one for consent.
    #[error("the signer's certificate says {0}: role consent (trocar://REALM/consent/NAME) is right")]
    Role(String),
    /// Neither of the two kinds of key.
    #[error("the signer's key is not ECDSA P-256 or Ed25519")]
    Key,
    /// The signature is not that of these words by this key.
    #[error("the signature does not fit: the document was changed, or somebody else signed it")]
    Signature,
}

impl From<SignedError> for DocumentError {
    fn from(error: SignedError) -> Self {
        match error {
            SignedError::Chain => Self::Chain,
            SignedError::NoName => Self::Role("no name".to_owned()),
            SignedError::Distrusted { name, why } => Self::Distrusted { signer: name.to_string(), why },
            SignedError::Key => Self::Key,
            SignedError::Signature => Self::Signature,
        }
    }
}

/// A document whose signature and signer are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What it says.
    pub document: Document,
    /// SHA-256 of what was signed.
    pub hash: Hash,
    /// Who signed.
    pub signer: CertName,
    /// The signer's chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
}

impl Signed {
    /// How records name it.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("serial {} sha256 {}", self.document.serial, self.hash)
    }
}

/// The member `consent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    session: SessionId,
    serial: u64,
    scope: WrittenScope,
    from: String,
    until: String,
    withdrawn: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenScope {
    view: bool,
    record: bool,
    remote_operation: bool,
    secondary_use: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    consent: Written,
    certificate: String,
    signature: String,
}

/// Signs a document. Its times are cut to whole seconds.
///
/// # Errors
/// [`DocumentError`]: a certificate of another role, a key of another kind or of another certificate, times that make no sense.
pub fn sign(document: &Document, signer: &Identity) -> Result<String, DocumentError> {
    if signer.name().role != "consent" {
        return Err(DocumentError::Role(signer.name().to_string()));
    }
    let consent = Written::of(document);
    consent.document()?;
    let words = consent.signed_bytes()?;
    let (certificate, signature) = signed::sign(&words, signer)?;
    let file = File { consent, certificate, signature };
    let mut text = serde_json::to_string_pretty(&file)?;
    text.push('\n');
    Ok(text)
}

/// Reads a document and checks its signature, and its signer against the trust list as of `at`.
///
/// # Errors
/// [`DocumentError`].
pub fn read(bytes: &[u8], trust: &Trust, at: UnixTime) -> Result<Signed, DocumentError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(DocumentError::TooLong);
    }
    let file: File = serde_json::from_slice(bytes)?;
    let (signer, chain) = signed::signer(&file.certificate, trust, at)?;
    if signer.role != "consent" {
        return Err(DocumentError::Role(signer.to_string()));
    }
    let words = file.consent.signed_bytes()?;
    signed::verify(&chain, &words, &file.signature)?;
    Ok(Signed { document: file.consent.document()?, hash: Hash::of(&words), signer, chain })
}

/// What a document says, without a look at its signature: for whoever makes the one that withdraws it.
///
/// # Errors
/// [`DocumentError`] where it has not the form of one.
pub fn peek(bytes: &[u8]) -> Result<Document, DocumentError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(DocumentError::TooLong);
    }
    serde_json::from_slice::<File>(bytes)?.consent.document()
}

/// The document that withdraws this one: the same with the next serial.
#[must_use]
pub fn withdrawal(of: &Document) -> Document {
    Document { serial: of.serial.saturating_add(1), withdrawn: true, ..of.clone() }
}

impl Written {
    fn of(document: &Document) -> Self {
        let Document { session, serial, scope, from, until, withdrawn } = document.clone();
        let Scope { view, record, remote_operation, secondary_use } = scope;
        let scope = WrittenScope { view, record, remote_operation, secondary_use };
        Self { session, serial, scope, from: utc_seconds(from), until: utc_seconds(until), withdrawn }
    }

    fn document(&self) -> Result<Document, DocumentError> {
        let WrittenScope { view, record, remote_operation, secondary_use } = self.scope;
        let (from, until) = (time("from", &self.from)?, time("until", &self.until)?);
        if until <= from {
            return Err(DocumentError::Order);
        }
        Ok(Document {
            session: self.session.clone(),
            serial: self.serial,
            scope: Scope { view, record, remote_operation, secondary_use },
            from,
            until,
            withdrawn: self.withdrawn,
        })
    }

    fn signed_bytes(&self) -> Result<Vec<u8>, DocumentError> {
        let mut out = LABEL.to_vec();
        serde_json::to_writer(&mut out, self)?;
        Ok(out)
    }
}

fn time(field: &'static str, text: &str) -> Result<WallMicros, DocumentError> {
    parse_utc(text).ok_or_else(|| DocumentError::Time { field, value: text.to_owned() })
}

#[cfg(test)]
mod tests;
