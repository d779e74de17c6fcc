//! Certificates: one's own, and who a peer's says it is.

use aws_lc_rs::digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::path::{Path, PathBuf};
use trocar_proto::handover::types::ExpertId;
use trocar_proto::session::ids::{CertHash, RealmId};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Longest role or name in a certificate, in characters.
const MAX_PART: usize = 64;

/// Why an own certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read, or has something else in it.
    #[error("{}: {why}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What it wants.
        why: String,
    },
    /// The leaf does not say who it is.
    #[error("the certificate has no name trocar://REALM/ROLE/NAME among its subject alternative names (URI)")]
    NoName,
}

/// Own certificate chain and key.
#[derive(Debug)]
pub struct Identity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Key of the leaf.
    pub key: PrivateKeyDer<'static>,
    name: CertName,
    hash: CertHash,
}

impl Identity {
    /// Takes chain, leaf first, and the leaf's key.
    ///
    /// # Errors
    /// [`IdentityError::NoName`] where the leaf has no name.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::NoName)?;
        let (name, hash) = (cert_name(leaf).ok_or(IdentityError::NoName)?, cert_hash(leaf));
        Ok(Self { chain, key, name, hash })
    }

    /// From two PEM files.
    ///
    /// # Errors
    /// [`IdentityError`] names the file and what it wants.
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let failed = |file: &Path, why: String| IdentityError::File { file: file.to_owned(), why };
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(|e| failed(certificate, format!("it has to be a certificate chain as PEM: {e}")))?;
        if chain.is_empty() {
            return Err(failed(certificate, "it has no certificate as PEM".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(key)
            .map_err(|e| failed(key, format!("it has to be a private key as PEM: {e}")))?;
        Self::new(chain, key)
    }

    /// SHA-256 of the leaf: what a token's `cnf` names.
    #[must_use]
    pub const fn hash(&self) -> CertHash {
        self.hash
    }

    /// Who it says it is.
    #[must_use]
    pub const fn name(&self) -> &CertName {
        &self.name
    }

    /// As the handover names an expert.
    #[must_use]
    pub const fn expert(&self) -> ExpertId {
        ExpertId(self.hash.0)
    }
}

/// Who is at the other end, by the certificate that it showed and that was verified.
#[derive(Debug, Clone)]
pub struct PeerIdentity {
    /// SHA-256 of the leaf.
    pub certificate: CertHash,
    /// Its name.
    pub name: CertName,
    /// Its serial number as hexadecimal digits, for records.
    pub serial: String,
    /// Who signed it, for records.
    pub issuer: String,
    /// The chain that it showed, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it was let in, by the wall clock.
    pub since: UnixTime,
}

impl PeerIdentity {
    /// Of a chain that was verified; nothing where the leaf has no name.
    #[must_use]
    pub fn of(chain: &[CertificateDer<'_>], since: UnixTime) -> Option<Self> {
        let leaf = chain.first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        Some(Self {
            certificate: cert_hash(leaf),
            name: cert_name(leaf)?,
            serial: hex::encode(parsed.raw_serial()),
            issuer: parsed.issuer().to_string(),
            chain: chain.iter().map(|c| c.clone().into_owned()).collect(),
            since,
        })
    }

    /// As the handover names an expert.
    #[must_use]
    pub const fn expert(&self) -> ExpertId {
        ExpertId(self.certificate.0)
    }
}

/// SHA-256 of a certificate's DER.
#[must_use]
pub fn cert_hash(der: &[u8]) -> CertHash {
    let mut out = [0; 32];
    out.iter_mut().zip(digest::digest(&digest::SHA256, der).as_ref()).for_each(|(o, d)| *o = *d);
    CertHash(out)
}

/// Who a certificate says it is: its URI SAN `trocar://REALM/ROLE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertName {
    /// Hospital network.
    pub realm: RealmId,
    /// Role of the device.
    pub role: String,
    /// Name of the device.
    pub name: String,
}

impl std::fmt::Display for CertName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "trocar://{}/{}/{}", self.realm, self.role, self.name)
    }
}

impl std::str::FromStr for CertName {
    type Err = IdentityError;
    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let rest = uri.strip_prefix("trocar://").ok_or(IdentityError::NoName)?;
        let mut parts = rest.split('/');
        let (Some(realm), Some(role), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::NoName);
        };
        let realm = RealmId::new(realm).map_err(|_| IdentityError::NoName)?;
        // What ends up on a surgeon's screen and in records has no surprises in it.
        let plain = |s: &str| (1..=MAX_PART).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic());
        if !plain(role) || !plain(name) {
            return Err(IdentityError::NoName);
        }
        Ok(Self { realm, role: role.to_owned(), name: name.to_owned() })
    }
}

/// Reads the name from a certificate; none where it has no such SAN, more than one, or one that does not parse.
#[must_use]
pub fn cert_name(der: &[u8]) -> Option<CertName> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let san = certificate.subject_alternative_name().ok()??;
    let mut names = san.value.general_names.iter().filter_map(|n| match n {
        GeneralName::URI(uri) if uri.starts_with("trocar://") => Some(uri.parse().ok()),
        _ => None,
    });
    match (names.next(), names.next()) {
        (Some(name), None) => name,
        _ => None,
    }
}
