//! An authority for tests and what it signs. Tests of every crate have it as a dev-dependency; nothing that is shipped has it.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test may stop the process: that is how it fails")]

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Signs certificates and revocation lists.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// One with a name that no other one in this process has.
    #[must_use]
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        Self::called(&format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    /// One of that name.
    #[must_use]
    pub fn called(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate.
    #[must_use]
    pub fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// The same as PEM: what a trust list has.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate with a new key.
    #[must_use]
    pub fn issue(&self, leaf: &Leaf) -> Issued {
        let key = KeyPair::generate_for(if leaf.ed25519 { &PKCS_ED25519 } else { &PKCS_ECDSA_P256_SHA256 }).unwrap();
        let mut params = CertificateParams::new(leaf.hosts.clone()).unwrap();
        params.subject_alt_names.extend(leaf.uri.as_deref().map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.extended_key_usages.clone_from(&leaf.usage);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = leaf.serial.map(SerialNumber::from);
        if let Some((begins, ends)) = leaf.times {
            (params.not_before, params.not_after) = (begins.into(), ends.into());
        }
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { der: certificate.der().clone(), pem: certificate.pem(), key }
    }

    /// A revocation list of these serial numbers, PEM.
    #[must_use]
    pub fn revocation_list(&self, serials: &[u64]) -> String {
        let long_ago = date_time_ymd(2020, 1, 1);
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: long_ago,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: long_ago,
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

/// What a certificate is to say. One of nobody, for any use and for all time, with a random serial number, is where it begins.
#[derive(Debug, Clone, Default)]
pub struct Leaf {
    uri: Option<String>,
    hosts: Vec<String>,
    usage: Vec<ExtendedKeyUsagePurpose>,
    serial: Option<u64>,
    times: Option<(SystemTime, SystemTime)>,
    ed25519: bool,
}

impl Leaf {
    /// Of a device: `trocar://REALM/ROLE/NAME`.
    #[must_use]
    pub fn device(uri: impl Into<String>) -> Self {
        Self { uri: Some(uri.into()), ..Self::default() }
    }

    /// Of a host, by name or address.
    #[must_use]
    pub fn host(host: impl Into<String>) -> Self {
        Self::default().at(host)
    }

    /// Of this host as well.
    #[must_use]
    pub fn at(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// For clients.
    #[must_use]
    pub fn for_clients(mut self) -> Self {
        self.usage.push(ExtendedKeyUsagePurpose::ClientAuth);
        self
    }

    /// For servers.
    #[must_use]
    pub fn for_servers(mut self) -> Self {
        self.usage.push(ExtendedKeyUsagePurpose::ServerAuth);
        self
    }

    /// With that serial number.
    #[must_use]
    pub const fn serial(mut self, serial: u64) -> Self {
        self.serial = Some(serial);
        self
    }

    /// Good between these times alone.
    #[must_use]
    pub const fn good(mut self, from: SystemTime, until: SystemTime) -> Self {
        self.times = Some((from, until));
        self
    }

    /// With a key for Ed25519 in place of one of P-256.
    #[must_use]
    pub const fn ed25519(mut self) -> Self {
        self.ed25519 = true;
        self
    }
}

/// A certificate and its key.
pub struct Issued {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// The same as PEM.
    pub pem: String,
    key: KeyPair,
}

impl Issued {
    /// The key.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    /// The same as PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Writes both to `NAME.pem` and `NAME.key` in that folder, and says where they are.
    #[must_use]
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let files = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&files.0, &self.pem).unwrap();
        std::fs::write(&files.1, self.key_pem()).unwrap();
        files
    }
}
