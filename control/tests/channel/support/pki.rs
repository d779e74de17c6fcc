//! An authority in a directory, as the trust list wants it.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SanType, SerialNumber,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use trocar_control::trust::{Identity, Trust, TrustList};
use trocar_proto::session::claims::{Claims, Confirmation};
use trocar_proto::session::ids::{CertHash, ParticipantId, RealmId, SessionId};
use trocar_proto::session::role::{Grade, Role};

/// One authority, and the key of one token issuer.
pub(crate) struct Pki {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    next: std::cell::Cell<u64>,
    tokens: Vec<u8>,
}

impl Pki {
    /// With `ca.pem`, `issuer.pub` and no revocation list.
    pub(crate) fn new() -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self::called(&format!("authority {number}"))
    }

    /// The same under a name of one's choice.
    pub(crate) fn called(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).unwrap();
        fs::write(directory.path().join("ca.pem"), cert.pem()).unwrap();
        let pair = Ed25519KeyPair::generate_pkcs8v1(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let tokens = pair.as_ref().to_vec();
        let public = Ed25519KeyPair::from_pkcs8(&tokens).unwrap();
        let text =
            base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, public.public_key().as_ref());
        fs::write(directory.path().join("issuer.pub"), text + "\n").unwrap();
        let issuer = Issuer::new(params, key);
        Self { directory, issuer, next: std::cell::Cell::new(1), tokens }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn list(&self) -> TrustList {
        TrustList::load(self.directory()).unwrap()
    }

    pub(crate) fn trust(&self) -> std::sync::Arc<Trust> {
        self.list().current()
    }

    /// `NAME.pem` and `NAME.key` with that URI name, and the serial number.
    pub(crate) fn files(&self, uri: &str, file: &str) -> (PathBuf, PathBuf, u64) {
        self.issue(uri, file, &[], ExtendedKeyUsagePurpose::ClientAuth, Duration::from_secs(3_600))
    }

    /// A device's identity and its serial number.
    pub(crate) fn device(&self, role: &str, name: &str) -> (Identity, u64) {
        let (cert, key, serial) = self.files(&format!("trocar://test/{role}/{name}"), name);
        (Identity::from_pem_files(&cert, &key).unwrap(), serial)
    }

    /// A device's identity that runs out in so long.
    pub(crate) fn short_lived(&self, role: &str, name: &str, life: Duration) -> (Identity, u64) {
        let uri = format!("trocar://test/{role}/{name}");
        let (cert, key, serial) = self.issue(&uri, name, &[], ExtendedKeyUsagePurpose::ClientAuth, life);
        (Identity::from_pem_files(&cert, &key).unwrap(), serial)
    }

    /// A relay on 127.0.0.1.
    pub(crate) fn relay(&self) -> Identity {
        let hosts = ["127.0.0.1".to_owned()];
        let life = Duration::from_secs(3_600);
        let (cert, key, _) =
            self.issue("trocar://test/relay/r", "r", &hosts, ExtendedKeyUsagePurpose::ServerAuth, life);
        Identity::from_pem_files(&cert, &key).unwrap()
    }

    fn issue(
        &self,
        uri: &str,
        file: &str,
        hosts: &[String],
        usage: ExtendedKeyUsagePurpose,
        life: Duration,
    ) -> (PathBuf, PathBuf, u64) {
        let serial = self.next.replace(self.next.get() + 1);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(hosts.to_vec()).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(SerialNumber::from(serial));
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + life).into();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| self.directory().join(format!("{file}.{end}"));
        fs::write(path("pem"), cert.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("pem"), path("key"), serial)
    }

    /// Writes `crl.pem` with these serial numbers, as one act.
    pub(crate) fn revoke(&self, serials: &[u64]) {
        let now = SystemTime::now();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: (now - Duration::from_secs(60)).into(),
            next_update: (now + Duration::from_secs(3_600)).into(),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).unwrap();
        let temporary = self.directory().join("crl.tmp");
        fs::write(&temporary, signed.pem().unwrap()).unwrap();
        fs::rename(&temporary, self.directory().join("crl.pem")).unwrap();
    }

    /// A token of an expert with that certificate, good for a minute.
    pub(crate) fn token(&self, cnf: CertHash, person: &str, session: &str) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let claims = Claims {
            iss: "signaling-test".to_owned(),
            aud: vec!["signaling-test".to_owned(), trocar_control::token::GATE_AUDIENCE.to_owned()],
            sub: ParticipantId::new(person).unwrap(),
            jti: "1".to_owned(),
            iat: now,
            nbf: now,
            exp: now + 60,
            realm: RealmId::default(),
            session: SessionId::new(session).unwrap(),
            role: Role::Expert,
            grade: Grade::Energy,
            verbs: Vec::new(),
            cnf: Some(Confirmation { x5t_s256: cnf }),
        };
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
        jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_ed_der(&self.tokens)).unwrap()
    }
}
