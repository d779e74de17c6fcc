//! Who is trusted: a directory with `ca.pem` and, where certificates were revoked, `crl.pem` (RFC 5280, PEM as in RFC 7468).
//!
//! Nobody else's word counts. The files are looked at again when they changed; what cannot be read or parsed leaves the former list
//! in force, so that a half-written file neither lets somebody in nor throws everybody out.

mod credentials;
mod identity;
mod verifier;

pub use credentials::{CredentialError, Credentials, Doubt, LOOK_EVERY, Look, Seen, Times, Watched, times};
pub use identity::{CertName, Identity, IdentityError, PeerIdentity, cert_hash, cert_name};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use verifier::{ByChain, ClientOfRole, ServerOfRole, Telling};

/// Longest trust or revocation list that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Why a trust list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("cannot read {}: {why}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A file has something else in it.
    #[error("{list}: {why}")]
    Content {
        /// `ca.pem`, `crl.pem`, or what was to be built of them.
        list: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

fn content(list: &'static str, why: impl std::fmt::Display) -> TrustError {
    TrustError::Content { list, why: why.to_string() }
}

/// Why a certificate is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// The revocation list names it, or one of those that signed it.
    #[error("the certificate is revoked")]
    Revoked,
    /// No authority of the trust list signed it.
    #[error("no authority of the trust list signed the certificate")]
    UnknownIssuer,
    /// Anything else: time, use, form.
    #[error("the certificate is not valid: time, use or form")]
    Invalid,
}

impl Distrust {
    fn of(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Revoked) => Self::Revoked,
            // A signature that does not fit is that of an authority with the same name and another key.
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                Self::UnknownIssuer
            }
            _ => Self::Invalid,
        }
    }
}

/// Hears of a certificate that was shown and not taken: the leaf, and why. It is called within the handshake and must not block. That
/// the certificate's name is in the log says nothing about who knocked: not before the signature was looked at.
pub type TellRefused = Arc<dyn Fn(&CertificateDer<'_>, Distrust) + Send + Sync>;

/// One state of the trust list: who is trusted and who is revoked. Cheap to share; never changes.
#[derive(Debug)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    /// Chain, time, use as a client and revocation; no host name.
    devices: Arc<dyn ClientCertVerifier>,
    /// The same with a host name, for relays.
    hosts: Arc<WebPkiServerVerifier>,
    revocations: usize,
}

impl Trust {
    /// From the bytes of the two files.
    ///
    /// # Errors
    /// [`TrustError::Content`] where there is no authority, or a list does not parse.
    pub fn from_pem(ca: &[u8], crl: Option<&[u8]>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(ca) {
            roots.add(der.map_err(|e| content("ca.pem", e))?).map_err(|e| content("ca.pem", e))?;
        }
        if roots.is_empty() {
            return Err(content("ca.pem", "has no certificate; it wants those of the authorities as PEM"));
        }
        let mut crls = Vec::new();
        for der in CertificateRevocationListDer::pem_slice_iter(crl.unwrap_or_default()) {
            crls.push(der.map_err(|e| content("crl.pem", e))?);
        }
        if crl.is_some() && crls.is_empty() {
            return Err(content("crl.pem", "has no revocation list; it wants one as PEM (X509 CRL)"));
        }
        Self::build(Arc::new(roots), crls)
    }

    /// The whole chain is looked up in the lists that are there; an authority without a list has revoked nobody. A list past its
    /// `nextUpdate` still counts: an old list is no reason to cut off everybody during an operation.
    fn build(roots: Arc<RootCertStore>, crls: Vec<CertificateRevocationListDer<'static>>) -> Result<Self, TrustError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let revocations = crls.len();
        let devices = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .with_crls(crls.clone())
            .allow_unknown_revocation_status()
            .build()
            .map_err(|e| content("crl.pem", e))?;
        let hosts = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .with_crls(crls)
            .allow_unknown_revocation_status()
            .build()
            .map_err(|e| content("crl.pem", e))?;
        Ok(Self { provider, devices, hosts, revocations })
    }

    /// How many revocation lists are in it.
    #[must_use]
    pub const fn revocation_lists(&self) -> usize {
        self.revocations
    }

    /// Whether a device's chain, leaf first, is good at that time.
    ///
    /// # Errors
    /// [`Distrust`] says why not.
    pub fn verify(&self, chain: &[CertificateDer<'_>], at: UnixTime) -> Result<(), Distrust> {
        let (leaf, rest) = chain.split_first().ok_or(Distrust::Invalid)?;
        match self.devices.verify_client_cert(leaf, rest, at) {
            Ok(_) => Ok(()),
            Err(why) => Err(Distrust::of(&why)),
        }
    }

    /// Which of these peers this list takes back: revoked, or signed by an authority that is not in it any more. Judged at the time
    /// at which each was let in, so that a certificate that ran out since then hides nothing and drops nobody.
    pub fn taken_back<'p>(&self, peers: impl IntoIterator<Item = &'p PeerIdentity>) -> Vec<&'p PeerIdentity> {
        let gone = |p: &&PeerIdentity| {
            matches!(self.verify(&p.chain, p.since), Err(Distrust::Revoked | Distrust::UnknownIssuer))
        };
        peers.into_iter().filter(gone).collect()
    }

    /// TLS 1.3 as server towards devices: a certificate is required, no session is resumed, no early data.
    ///
    /// # Errors
    /// [`TrustError::Content`] where certificate and key do not fit together.
    pub fn server_config(&self, identity: &Identity, alpn: &[u8]) -> Result<rustls::ServerConfig, TrustError> {
        self.server_config_with(Arc::clone(&self.devices), identity, alpn)
    }

    /// The same towards devices of one role alone (`trocar://REALM/ROLE/NAME`): others do not get through the handshake.
    ///
    /// # Errors
    /// As [`Self::server_config`].
    pub fn server_config_for(
        &self,
        role: &'static str,
        identity: &Identity,
        alpn: &[u8],
    ) -> Result<rustls::ServerConfig, TrustError> {
        let usual = Arc::clone(&self.devices);
        self.server_config_with(Arc::new(ClientOfRole { usual, role }), identity, alpn)
    }

    /// The same towards all devices; `tell` hears of each certificate that is not taken.
    ///
    /// # Errors
    /// As [`Self::server_config`].
    pub fn server_config_telling(
        &self,
        tell: TellRefused,
        identity: &Identity,
        alpn: &[u8],
    ) -> Result<rustls::ServerConfig, TrustError> {
        let usual = Arc::clone(&self.devices);
        self.server_config_with(Arc::new(Telling { usual, tell }), identity, alpn)
    }

    fn server_config_with(
        &self,
        verifier: Arc<dyn ClientCertVerifier>,
        identity: &Identity,
        alpn: &[u8],
    ) -> Result<rustls::ServerConfig, TrustError> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| content("TLS", e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|e| content("own certificate", e))?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    /// TLS 1.3 as client towards a device: its chain is verified as in [`Trust::verify`]. Devices have no host names; whoever
    /// connects has to look at the name in the certificate.
    ///
    /// # Errors
    /// [`TrustError::Content`] where certificate and key do not fit together.
    pub fn device_client_config(&self, identity: &Identity, alpn: &[u8]) -> Result<rustls::ClientConfig, TrustError> {
        let verifier = Arc::new(ByChain(Arc::clone(&self.devices)));
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| content("TLS", e))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|e| content("own certificate", e))?;
        let mut config = one_protocol(config, alpn);
        config.enable_sni = false;
        Ok(config)
    }

    /// TLS 1.3 as client towards a relay, which is verified by its host name or address as well.
    ///
    /// # Errors
    /// [`TrustError::Content`] where certificate and key do not fit together.
    pub fn host_client_config(&self, identity: &Identity, alpn: &[u8]) -> Result<rustls::ClientConfig, TrustError> {
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| content("TLS", e))?
            .with_webpki_verifier(Arc::clone(&self.hosts))
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|e| content("own certificate", e))?;
        Ok(one_protocol(config, alpn))
    }

    /// The same, towards a server of that role alone (`trocar://REALM/ROLE/NAME`): nothing is said to another one.
    ///
    /// # Errors
    /// As [`Self::host_client_config`].
    pub fn host_client_config_for(
        &self,
        role: &'static str,
        identity: &Identity,
        alpn: &[u8],
    ) -> Result<rustls::ClientConfig, TrustError> {
        let mut config = self.host_client_config(identity, alpn)?;
        let usual = Arc::clone(&self.hosts);
        config.dangerous().set_certificate_verifier(Arc::new(ServerOfRole { usual, role }));
        Ok(config)
    }
}

fn one_protocol(mut config: rustls::ClientConfig, alpn: &[u8]) -> rustls::ClientConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// What tells two versions of a file apart without reading it: device, inode, length, times of change.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// The files, and what was read from them last.
#[derive(Debug)]
pub struct TrustList {
    ca: PathBuf,
    crl: PathBuf,
    stamps: (Stamp, Stamp),
    current: Arc<Trust>,
    had_crl: bool,
}

impl TrustList {
    /// `ca.pem` and, where it is there, `crl.pem` of a directory.
    ///
    /// # Errors
    /// [`TrustError`] names the file and what it wants.
    pub fn load(directory: &Path) -> Result<Self, TrustError> {
        Self::of_file(&directory.join("ca.pem"))
    }

    /// That file of authorities, and the `crl.pem` beside it where there is one.
    ///
    /// # Errors
    /// [`TrustError`] names the file and what it wants.
    pub fn of_file(ca: &Path) -> Result<Self, TrustError> {
        let crl = ca.with_file_name("crl.pem");
        let stamps = (stamp(ca), stamp(&crl));
        let (trust, had_crl) = read(ca, &crl)?;
        Ok(Self { ca: ca.to_owned(), crl, stamps, current: Arc::new(trust), had_crl })
    }

    /// What holds now.
    #[must_use]
    pub fn current(&self) -> Arc<Trust> {
        Arc::clone(&self.current)
    }

    /// Looks whether a file changed and reads both then; true where a new list is in force. Cheap when nothing changed; meant to be
    /// called four times a second.
    ///
    /// # Errors
    /// [`TrustError`] where the new files cannot be used; the former list stays in force, and they are tried again at the next call.
    pub fn reload(&mut self) -> Result<bool, TrustError> {
        let stamps = (stamp(&self.ca), stamp(&self.crl));
        if stamps == self.stamps {
            return Ok(false);
        }
        if self.had_crl && stamps.1.is_none() {
            // Whoever was revoked stays so while this process runs.
            return Err(content("crl.pem", "is gone; what it said stays in force"));
        }
        let (trust, had_crl) = read(&self.ca, &self.crl)?;
        self.current = Arc::new(trust);
        self.had_crl = had_crl;
        self.stamps = stamps;
        Ok(true)
    }
}

fn read(ca: &Path, crl: &Path) -> Result<(Trust, bool), TrustError> {
    let authorities =
        bounded(ca)?.ok_or_else(|| TrustError::Read { file: ca.to_owned(), why: "no such file".into() })?;
    let revoked = bounded(crl)?;
    Ok((Trust::from_pem(&authorities, revoked.as_deref())?, revoked.is_some()))
}

/// The file's bytes; nothing where there is none.
fn bounded(file: &Path) -> Result<Option<Vec<u8>>, TrustError> {
    let failed = |why: String| TrustError::Read { file: file.to_owned(), why };
    match fs::metadata(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e.to_string())),
        Ok(m) if m.len() > MAX_FILE => return Err(failed(format!("it is longer than {MAX_FILE} bytes"))),
        Ok(_) => {}
    }
    fs::read(file).map(Some).map_err(|e| failed(e.to_string()))
}

fn stamp(file: &Path) -> Stamp {
    let m = fs::metadata(file).ok()?;
    Some((m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))
}
