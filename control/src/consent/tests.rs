use super::*;
use crate::signed::pem;
use rcgen::{BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair};
use rcgen::{RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use std::time::Duration;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { issuer: Issuer::new(params, key), pem }
}

impl Authority {
    fn identity(&self, name: &str, algorithm: &'static SignatureAlgorithm) -> Identity {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(77_u64));
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Identity::new(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap()
    }

    fn trust(&self) -> Trust {
        Trust::from_pem(self.pem.as_bytes(), None).unwrap()
    }

    /// A trust list that has revoked [`Authority::identity`]'s.
    fn revoking(&self) -> Trust {
        let crl = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(77_u64),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = crl.signed_by(&self.issuer).unwrap().pem().unwrap();
        Trust::from_pem(self.pem.as_bytes(), Some(crl.as_bytes())).unwrap()
    }
}

const NAME: &str = "trocar://north/consent/desk-1";

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000))
}

fn document() -> Document {
    Document {
        session: SessionId::new("or-1").unwrap(),
        serial: 3,
        scope: Scope { view: true, remote_operation: true, ..Scope::default() },
        from: parse_utc("2027-01-15T00:00:00Z").unwrap(),
        until: parse_utc("2027-01-16T00:00:00Z").unwrap(),
        withdrawn: false,
    }
}

#[test]
fn what_was_signed_is_read_back_with_either_kind_of_key() {
    let ca = authority();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
        let signer = ca.identity(NAME, algorithm);
        let text = sign(&document(), &signer).unwrap();
        let signed = read(text.as_bytes(), &ca.trust(), now()).unwrap();
        assert_eq!(signed.document, document());
        assert_eq!(signed.signer.to_string(), NAME);
        assert!(signed.reference().starts_with("serial 3 sha256 "));
        assert_eq!(peek(text.as_bytes()).unwrap(), document());
        // Spaces are nobody's business.
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read(value.to_string().as_bytes(), &ca.trust(), now()).unwrap().hash, signed.hash);
    }
}

#[test]
fn each_changed_value_is_found() {
    let ca = authority();
    let text = sign(&document(), &ca.identity(NAME, &rcgen::PKCS_ECDSA_P256_SHA256)).unwrap();
    for (from, to) in [
        ("\"or-1\"", "\"or-2\""),
        ("\"serial\": 3", "\"serial\": 4"),
        ("\"record\": false", "\"record\": true"),
        ("2027-01-16", "2027-01-17"),
        ("\"withdrawn\": false", "\"withdrawn\": true"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        assert!(matches!(read(changed.as_bytes(), &ca.trust(), now()), Err(DocumentError::Signature)), "{from}");
    }
}

#[test]
fn a_signer_whom_nobody_vouches_for_or_of_another_role_does_not_count() {
    let (ca, other) = (authority(), authority());
    let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
    let text = sign(&document(), &ca.identity(NAME, p256)).unwrap();
    let distrust = |trust: &Trust, at| match read(text.as_bytes(), trust, at) {
        Err(DocumentError::Distrusted { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(distrust(&other.trust(), now()), Distrust::UnknownIssuer);
    assert_eq!(distrust(&ca.revoking(), now()), Distrust::Revoked);
    let year_5000 = UnixTime::since_unix_epoch(Duration::from_secs(95_617_584_000));
    assert_eq!(distrust(&ca.trust(), year_5000), Distrust::Invalid);
    let station = ca.identity("trocar://north/station/desk-1", p256);
    assert!(matches!(sign(&document(), &station), Err(DocumentError::Role(_))));
    // Signed all the same, with somebody else's certificate in place of the signer's.
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut forged = file.clone();
    forged["certificate"] = pem(&station.chain[0]).into();
    assert!(matches!(read(forged.to_string().as_bytes(), &ca.trust(), now()), Err(DocumentError::Role(_))));
    forged["certificate"] = pem(&ca.identity(NAME, p256).chain[0]).into();
    assert!(matches!(read(forged.to_string().as_bytes(), &ca.trust(), now()), Err(DocumentError::Signature)));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let ca = authority();
    let signer = ca.identity(NAME, &rcgen::PKCS_ED25519);
    let backwards = Document { until: document().from, ..document() };
    assert!(matches!(sign(&backwards, &signer), Err(DocumentError::Order)));
    let text = sign(&document(), &signer).unwrap();
    let reads = |text: &str| read(text.as_bytes(), &ca.trust(), now()).unwrap_err().to_string();
    assert!(reads(&text.replacen("2027-01-16T00:00:00Z", "tomorrow", 1)).contains("signature"));
    assert!(reads(&text.replacen("\"serial\": 3", "\"serial\": 3, \"more\": 1", 1)).contains("unknown field `more`"));
    assert!(reads(&text.replacen("BEGIN", "", 1)).contains("certificate"));
    assert!(reads("{}").contains("missing field"));
    assert!(reads(&" ".repeat(MAX_DOCUMENT + 1)).contains("64 KiB"));
    let other = ca.identity(NAME, &rcgen::PKCS_ED25519);
    let mixed = Identity::new(signer.chain.clone(), other.key.clone_key()).unwrap();
    assert!(matches!(sign(&document(), &mixed), Err(DocumentError::Signature)), "key of another certificate");
}

#[test]
fn a_withdrawal_is_the_same_with_the_next_serial() {
    let withdrawn = withdrawal(&document());
    assert_eq!(withdrawn, Document { serial: 4, withdrawn: true, ..document() });
}
