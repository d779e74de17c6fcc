//! A small certificate authority for a site without one: `ca.pem` is the trust list, `ca.key` signs.
//!
//! Devices and servers get a URI SAN `trocar://REALM/ROLE/NAME`; servers also the names and addresses they are reached at.

use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use trocar_proto::session::ids::RealmId;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Validity of the authority itself, in days.
const CA_DAYS: u64 = 3_650;
/// Validity of a device's or server's certificate, in days.
const LEAF_DAYS: u64 = 397;

/// A certificate is made anew when fewer days than this are left.
const RENEW_DAYS: u64 = 30;

/// Names of files that the node itself keeps in its directory.
const RESERVED: [&str; 6] = ["ca", "relay", "relay-any", "signaling", "signaling-control", "token"];
/// How files of the listeners for other realms begin: of signaling, and of the relay.
pub(crate) const OF_REALMS: [&str; 2] = ["signaling-realm-", "relay-realm-"];

/// Whether files of that name are the node's own.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || OF_REALMS.iter().any(|prefix| name.starts_with(prefix))
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// A listener.
    Server,
    /// A publisher, station, gate.
    Device,
    /// A relay: a listener, and a client of other relays.
    Relay,
}

/// Whom a certificate names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// Hospital network.
    pub(crate) realm: &'a RealmId,
    /// Role of the device: `publisher`, `station`, `relay`, `signaling`.
    pub(crate) role: &'a str,
    /// Its name.
    pub(crate) name: &'a str,
    /// DNS names and addresses; for servers.
    pub(crate) hosts: &'a [String],
}

impl Subject<'_> {
    fn uri(&self) -> String {
        format!("trocar://{}/{}/{}", self.realm, self.role, self.name)
    }
}

/// Paths of a certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct IdentityFiles {
    /// PEM chain, leaf first.
    pub(crate) cert: PathBuf,
    /// PEM key.
    pub(crate) key: PathBuf,
}

impl IdentityFiles {
    /// `NAME.pem` and `NAME.key` in a directory.
    pub(crate) fn named(dir: &Path, name: &str) -> Self {
        Self { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
    }
}

/// The authority of a directory.
pub(crate) struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The authority in `dir`, made where there is none.
    pub(crate) fn open_or_create(dir: &Path, realm: &RealmId) -> anyhow::Result<Self> {
        let private = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        private.with_context(|| format!("cannot make the directory {}", dir.display()))?;
        let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        match (cert.exists(), key.exists()) {
            (true, true) => {}
            (false, false) => create(realm, &cert, &key)?,
            (true, false) => bail!("{} is missing beside {}", key.display(), cert.display()),
            (false, true) => bail!("{} is missing beside {}", cert.display(), key.display()),
        }
        let cert_pem = fs::read_to_string(&cert).with_context(|| format!("cannot read {}", cert.display()))?;
        let key_pem = fs::read_to_string(&key).with_context(|| format!("cannot read {}", key.display()))?;
        let key_pair =
            KeyPair::from_pem(&key_pem).with_context(|| format!("{} is not a private key", key.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key_pair)
            .with_context(|| format!("{} is not a certificate", cert.display()))?;
        Ok(Self { dir: dir.to_path_buf(), issuer })
    }

    /// Path of the trust list.
    pub(crate) fn trust_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A certificate for `subject` in `NAME.pem`, `NAME.key`. One that is there is kept where it says the same and does not
    /// end soon.
    pub(crate) fn identity(&self, file: &str, subject: &Subject<'_>, usage: Use) -> anyhow::Result<IdentityFiles> {
        let files = IdentityFiles::named(&self.dir, file);
        if files.key.exists() && still_fits(&files.cert, subject, usage) {
            return Ok(files);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(subject.hosts.to_vec())?;
        params.subject_alt_names.push(SanType::URI(subject.uri().as_str().try_into()?));
        params.distinguished_name = name(&format!("{} {}", subject.role, subject.name));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match usage {
            Use::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Use::Device => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Use::Relay => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        self.issue(params, &key, &files)?;
        Ok(files)
    }

    /// The certificate in `NAME.pem` made anew with another key, and else as it is: name, hosts and use.
    pub(crate) fn renew(&self, file: &str) -> anyhow::Result<IdentityFiles> {
        let files = IdentityFiles::named(&self.dir, file);
        let chain = crate::net::tls::read_chain(&files.cert)?;
        let leaf = chain.first().and_then(|der| X509Certificate::from_der(der).ok());
        let (_, former) = leaf.with_context(|| format!("{} is no certificate", files.cert.display()))?;
        let usage = former.extended_key_usage()?.with_context(|| format!("{} has no use", files.cert.display()))?;
        let names = former.subject_alternative_name()?.map(|san| &san.value.general_names);
        let (mut uris, mut hosts) = (Vec::new(), Vec::new());
        for name in names.into_iter().flatten() {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                other => hosts.extend(san_text(other)),
            }
        }
        let mut params = CertificateParams::new(hosts)?;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        let common = former.subject().iter_common_name().next().and_then(|n| n.as_str().ok());
        params.distinguished_name = name(common.unwrap_or(file));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let uses = [
            (usage.value.server_auth, ExtendedKeyUsagePurpose::ServerAuth),
            (usage.value.client_auth, ExtendedKeyUsagePurpose::ClientAuth),
        ];
        params.extended_key_usages = uses.into_iter().filter_map(|(is, usage)| is.then_some(usage)).collect();
        self.issue(params, &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?, &files)?;
        Ok(files)
    }

    /// Signs, and writes the key first: whoever watches the files takes them when they fit each other.
    fn issue(&self, mut params: CertificateParams, key: &KeyPair, files: &IdentityFiles) -> anyhow::Result<()> {
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, LEAF_DAYS);
        let cert = params.signed_by(key, &self.issuer)?;
        write_secret(&files.key, key.serialize_pem().as_bytes())?;
        crate::consent::replace(&files.cert, cert.pem().as_bytes())
    }

    /// Signs a revocation list; PEM.
    pub(crate) fn revocation_list(&self, list: &rcgen::CertificateRevocationListParams) -> anyhow::Result<String> {
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// A directory that has the trust list alone, as gates want it: whoever reads that learns no key.
    pub(crate) fn trust_directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
        let (from, to) = (self.trust_file(), dir.join("ca.pem"));
        let list = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        // A gate that watches the file sees no change where there is none.
        if fs::read(&to).ok().as_ref() != Some(&list) {
            fs::write(&to, &list).with_context(|| format!("cannot write {}", to.display()))?;
        }
        Ok(dir)
    }
}

/// Whether the certificate in that file names exactly this subject, serves this use and is good for another month.
fn still_fits(file: &Path, subject: &Subject<'_>, usage: Use) -> bool {
    let Ok(chain) = crate::net::tls::read_chain(file) else { return false };
    let Some((_, cert)) = chain.first().and_then(|der| X509Certificate::from_der(der).ok()) else { return false };
    let month = i64::try_from(RENEW_DAYS * 86_400).unwrap_or(i64::MAX);
    let left = cert.validity().time_to_expiration().map_or(0, |d| d.whole_seconds());
    let for_use = cert.extended_key_usage().ok().flatten().is_some_and(|e| match usage {
        Use::Server => e.value.server_auth,
        Use::Device => e.value.client_auth,
        Use::Relay => e.value.server_auth && e.value.client_auth,
    });
    let names: BTreeSet<String> = match cert.subject_alternative_name() {
        Ok(Some(san)) => san.value.general_names.iter().filter_map(san_text).collect(),
        _ => BTreeSet::new(),
    };
    let wanted: BTreeSet<String> = subject.hosts.iter().cloned().chain([subject.uri()]).collect();
    left > month && for_use && names == wanted
}

fn san_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::URI(s) | GeneralName::DNSName(s) => Some((*s).to_owned()),
        GeneralName::IPAddress(b) => match b.len() {
            4 => <[u8; 4]>::try_from(*b).ok().map(|a| IpAddr::from(a).to_string()),
            _ => <[u8; 16]>::try_from(*b).ok().map(|a| IpAddr::from(a).to_string()),
        },
        _ => None,
    }
}

fn create(realm: &RealmId, cert_path: &Path, key_path: &Path) -> anyhow::Result<()> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = name(&format!("Trocar CA of realm {realm}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, CA_DAYS);
    let cert = params.self_signed(&key)?;
    write_secret(key_path, key.serialize_pem().as_bytes())?;
    fs::write(cert_path, cert.pem()).with_context(|| format!("cannot write {}", cert_path.display()))
}

fn name(common: &str) -> DistinguishedName {
    let mut n = DistinguishedName::new();
    n.push(DnType::OrganizationName, "Trocar");
    n.push(DnType::CommonName, common);
    n
}

/// From an hour ago, so that a clock a little behind still takes it.
fn set_validity(params: &mut CertificateParams, days: u64) {
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3_600)).into();
    params.not_after = (now + Duration::from_secs(days * 86_400)).into();
}

/// Writes a file that only its owner can read.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("tmp");
    let _ = fs::remove_file(&temporary);
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
    let mut file = open.with_context(|| format!("cannot write {}", temporary.display()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use trocar_control::trust::{cert_hash, cert_name};

    #[test]
    fn a_device_gets_a_name_that_the_relay_reads_and_a_key_that_only_its_owner_does() {
        let dir = tempfile::tempdir().unwrap();
        let realm = RealmId::new("demo").unwrap();
        let ca = Authority::open_or_create(dir.path(), &realm).unwrap();
        let subject = Subject { realm: &realm, role: "publisher", name: "or-1", hosts: &[] };
        let files = ca.identity("publisher", &subject, Use::Device).unwrap();
        let der = crate::net::tls::read_chain(&files.cert).unwrap();
        let n = cert_name(&der[0]).unwrap();
        assert_eq!((n.realm, n.role.as_str(), n.name.as_str()), (realm.clone(), "publisher", "or-1"));
        assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Authority::open_or_create(dir.path(), &realm).unwrap().identity("publisher", &subject, Use::Device);
        let kept = crate::net::tls::read_chain(&again.unwrap().cert).unwrap();
        assert_eq!(cert_hash(&kept[0]), cert_hash(&der[0]), "an identity that fits is kept");
        let other = Subject { role: "station", ..subject };
        let anew = crate::net::tls::read_chain(&ca.identity("publisher", &other, Use::Device).unwrap().cert).unwrap();
        assert_eq!(cert_name(&anew[0]).unwrap().role, "station", "one that says something else is not");
        assert!(ca.renew("nobody").is_err());
        let renewed = crate::net::tls::read_chain(&ca.renew("publisher").unwrap().cert).unwrap();
        assert_ne!(cert_hash(&renewed[0]), cert_hash(&anew[0]));
        let kept = ca.identity("publisher", &other, Use::Device).unwrap();
        let kept = crate::net::tls::read_chain(&kept.cert).unwrap();
        assert_eq!(cert_hash(&kept[0]), cert_hash(&renewed[0]), "one that was made anew says the same");
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let server = Subject { role: "relay", hosts: &hosts, ..subject };
        let first = crate::net::tls::read_chain(&ca.identity("server", &server, Use::Server).unwrap().cert).unwrap();
        let second = crate::net::tls::read_chain(&ca.identity("server", &server, Use::Server).unwrap().cert).unwrap();
        assert_eq!(first, second, "names and addresses are compared as what they are");
        let renewed = crate::net::tls::read_chain(&ca.renew("server").unwrap().cert).unwrap();
        let third = crate::net::tls::read_chain(&ca.identity("server", &server, Use::Server).unwrap().cert).unwrap();
        assert!(renewed != first && renewed == third, "hosts and use stay");
    }

    #[test]
    fn half_an_authority_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let realm = RealmId::new("demo").unwrap();
        drop(Authority::open_or_create(dir.path(), &realm).unwrap());
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        let e = Authority::open_or_create(dir.path(), &realm).err().unwrap().to_string();
        assert!(e.contains("ca.key is missing"), "{e}");
    }
}
