//! `trocar ca revoke`: the revocation list of a site's small authority (RFC 5280 section 5).

use crate::ca::Authority;
use crate::consent::replace;
use anyhow::{Context as _, bail};
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use trocar_proto::session::ids::RealmId;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

/// A list is renewed with each revocation; gates go on with an old one, and say so.
const VALID: Duration = Duration::from_secs(30 * 86_400);

/// What is to be taken back.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RevokeArgs {
    /// Directory with ca.pem and ca.key, and the certificates NAME.pem.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Hospital network.
    #[arg(long, default_value = "local")]
    realm: RealmId,
    /// The list, as a gate's trust directory has it: crl.pem. What it names already stays in it. DIR/crl.pem where nothing is said.
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
    /// Names of certificates; the files are NAME.pem.
    #[arg(required = true)]
    names: Vec<String>,
}

impl RevokeArgs {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let list = self.crl.clone().unwrap_or_else(|| self.dir.join("crl.pem"));
        let (number, mut serials) = read(&list)?;
        let now = SystemTime::now();
        for name in &self.names {
            let file = self.dir.join(format!("{name}.pem"));
            serials.entry(serial_of(&file)?).or_insert(now);
        }
        let revoked = serials.into_iter().map(|(serial, at)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&serial),
            revocation_time: at.into(),
            reason_code: Some(RevocationReason::CessationOfOperation),
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: (now - Duration::from_secs(60)).into(),
            next_update: (now + VALID).into(),
            crl_number: SerialNumber::from(number + 1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = Authority::open_or_create(&self.dir, &self.realm)?.revocation_list(&params)?;
        replace(&list, pem.as_bytes())?;
        println!("{}: {} taken back, {} in all", list.display(), self.names.join(", "), params.revoked_certs.len());
        Ok(())
    }
}

fn serial_of(file: &Path) -> anyhow::Result<Vec<u8>> {
    let chain = crate::net::tls::read_chain(file)?;
    let leaf = chain.first().with_context(|| format!("{} has no certificate", file.display()))?;
    let (_, certificate) =
        X509Certificate::from_der(leaf).with_context(|| format!("{} is no certificate", file.display()))?;
    Ok(certificate.raw_serial().to_vec())
}

/// Number of the list and what it names; nothing where there is none yet.
fn read(list: &Path) -> anyhow::Result<(u64, BTreeMap<Vec<u8>, SystemTime>)> {
    let bytes = match std::fs::read(list) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((0, BTreeMap::new())),
        Err(e) => bail!("cannot read {}: {e}", list.display()),
    };
    let no_list = || format!("{} is no revocation list", list.display());
    let (_, pem) = x509_parser::pem::parse_x509_pem(&bytes).map_err(|e| anyhow::anyhow!("{}: {e}", no_list()))?;
    let (_, crl) = CertificateRevocationList::from_der(&pem.contents).with_context(no_list)?;
    let number = crl.crl_number().and_then(|n| n.to_u64_digits().first().copied()).unwrap_or(0);
    let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let named = crl.iter_revoked_certificates().map(|r| (r.raw_serial().to_vec(), at(r.revocation_date.timestamp())));
    Ok((number, named.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Subject, Use};

    #[test]
    fn each_revocation_adds_to_the_list_and_its_number_rises() {
        let dir = tempfile::tempdir().unwrap();
        let realm = RealmId::new("north").unwrap();
        let authority = Authority::open_or_create(dir.path(), &realm).unwrap();
        for name in ["one", "two"] {
            let subject = Subject { realm: &realm, role: "station", name, hosts: &[] };
            authority.identity(name, &subject, Use::Device).unwrap();
        }
        let revoke = |names: &[&str]| RevokeArgs {
            dir: dir.path().to_path_buf(),
            realm: realm.clone(),
            crl: None,
            names: names.iter().map(ToString::to_string).collect(),
        };
        revoke(&["one"]).run().unwrap();
        revoke(&["two"]).run().unwrap();
        revoke(&["two"]).run().unwrap();
        let (number, serials) = read(&dir.path().join("crl.pem")).unwrap();
        assert_eq!((number, serials.len()), (3, 2));
        assert!(revoke(&["three"]).run().unwrap_err().to_string().contains("three.pem"));
        std::fs::write(dir.path().join("crl.pem"), "no list").unwrap();
        assert!(revoke(&["one"]).run().unwrap_err().to_string().contains("is no revocation list"));
    }
}
