//! An authority in a directory, as the trust list wants it.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use trocar_control::trust::{Identity, Trust, TrustList};
use trocar_proto::session::claims::{Claims, Confirmation};
use trocar_proto::session::ids::{CertHash, ParticipantId, RealmId, SessionId};
use trocar_proto::session::role::{Grade, Role};
use trocar_testpki::{Authority, Leaf};

/// One authority, and the key of one token issuer.
pub(crate) struct Pki {
    directory: tempfile::TempDir,
    authority: Authority,
    next: std::cell::Cell<u64>,
    tokens: Vec<u8>,
}

impl Pki {
    /// With `ca.pem`, `issuer.pub` and no revocation list.
    pub(crate) fn new() -> Self {
        Self::of(Authority::new())
    }

    /// The same under a name of one's choice.
    pub(crate) fn called(name: &str) -> Self {
        Self::of(Authority::called(name))
    }

    fn of(authority: Authority) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        let pair = Ed25519KeyPair::generate_pkcs8v1(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let tokens = pair.as_ref().to_vec();
        let public = Ed25519KeyPair::from_pkcs8(&tokens).unwrap();
        let text =
            base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, public.public_key().as_ref());
        fs::write(directory.path().join("issuer.pub"), text + "\n").unwrap();
        Self { directory, authority, next: std::cell::Cell::new(1), tokens }
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
        self.issue(Leaf::device(uri).for_clients(), file, Duration::from_secs(3_600))
    }

    /// A device's identity and its serial number.
    pub(crate) fn device(&self, role: &str, name: &str) -> (Identity, u64) {
        self.short_lived(role, name, Duration::from_secs(3_600))
    }

    /// A device's identity that runs out in so long.
    pub(crate) fn short_lived(&self, role: &str, name: &str, life: Duration) -> (Identity, u64) {
        let leaf = Leaf::device(format!("trocar://test/{role}/{name}")).for_clients();
        let (cert, key, serial) = self.issue(leaf, name, life);
        (Identity::from_pem_files(&cert, &key).unwrap(), serial)
    }

    /// A relay on 127.0.0.1.
    pub(crate) fn relay(&self) -> Identity {
        let leaf = Leaf::device("trocar://test/relay/r").at("127.0.0.1").for_servers();
        let (cert, key, _) = self.issue(leaf, "r", Duration::from_secs(3_600));
        Identity::from_pem_files(&cert, &key).unwrap()
    }

    fn issue(&self, leaf: Leaf, file: &str, life: Duration) -> (PathBuf, PathBuf, u64) {
        let (serial, now) = (self.next.replace(self.next.get() + 1), SystemTime::now());
        let leaf = leaf.serial(serial).good(now - Duration::from_secs(60), now + life);
        let (cert, key) = self.authority.issue(&leaf).write(self.directory(), file);
        (cert, key, serial)
    }

    /// Writes `crl.pem` with these serial numbers, as one act.
    pub(crate) fn revoke(&self, serials: &[u64]) {
        let temporary = self.directory().join("crl.tmp");
        fs::write(&temporary, self.authority.revocation_list(serials)).unwrap();
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
