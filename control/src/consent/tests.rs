use super::*;
use crate::signed::pem;
use std::time::Duration;
use trocar_testpki::{Authority, Leaf};

/// A certificate with that name, for whoever signs.
fn leaf(name: &str) -> Leaf {
    Leaf::device(name).for_clients().serial(77)
}

fn identity(ca: &Authority, leaf: &Leaf) -> Identity {
    let own = ca.issue(leaf);
    let key = own.key();
    Identity::new(vec![own.der], key).unwrap()
}

fn trust(ca: &Authority) -> Trust {
    Trust::from_pem(ca.pem().as_bytes(), None).unwrap()
}

/// A trust list that has revoked every [`leaf`].
fn revoking(ca: &Authority) -> Trust {
    Trust::from_pem(ca.pem().as_bytes(), Some(ca.revocation_list(&[77]).as_bytes())).unwrap()
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
    let ca = Authority::new();
    for kind in [leaf(NAME), leaf(NAME).ed25519()] {
        let signer = identity(&ca, &kind);
        let text = sign(&document(), &signer).unwrap();
        let signed = read(text.as_bytes(), &trust(&ca), now()).unwrap();
        assert_eq!(signed.document, document());
        assert_eq!(signed.signer.to_string(), NAME);
        assert!(signed.reference().starts_with("serial 3 sha256 "));
        assert_eq!(peek(text.as_bytes()).unwrap(), document());
        // Spaces are nobody's business.
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read(value.to_string().as_bytes(), &trust(&ca), now()).unwrap().hash, signed.hash);
    }
}

#[test]
fn each_changed_value_is_found() {
    let ca = Authority::new();
    let text = sign(&document(), &identity(&ca, &leaf(NAME))).unwrap();
    for (from, to) in [
        ("\"or-1\"", "\"or-2\""),
        ("\"serial\": 3", "\"serial\": 4"),
        ("\"record\": false", "\"record\": true"),
        ("2027-01-16", "2027-01-17"),
        ("\"withdrawn\": false", "\"withdrawn\": true"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        assert!(matches!(read(changed.as_bytes(), &trust(&ca), now()), Err(DocumentError::Signature)), "{from}");
    }
}

#[test]
fn a_signer_whom_nobody_vouches_for_or_of_another_role_does_not_count() {
    let (ca, other) = (Authority::new(), Authority::new());
    let text = sign(&document(), &identity(&ca, &leaf(NAME))).unwrap();
    let distrust = |trust: &Trust, at| match read(text.as_bytes(), trust, at) {
        Err(DocumentError::Distrusted { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(distrust(&trust(&other), now()), Distrust::UnknownIssuer);
    assert_eq!(distrust(&revoking(&ca), now()), Distrust::Revoked);
    let year_5000 = UnixTime::since_unix_epoch(Duration::from_secs(95_617_584_000));
    assert_eq!(distrust(&trust(&ca), year_5000), Distrust::Invalid);
    let station = identity(&ca, &leaf("trocar://north/station/desk-1"));
    assert!(matches!(sign(&document(), &station), Err(DocumentError::Role(_))));
    // Signed all the same, with somebody else's certificate in place of the signer's.
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut forged = file.clone();
    forged["certificate"] = pem(&station.chain[0]).into();
    assert!(matches!(read(forged.to_string().as_bytes(), &trust(&ca), now()), Err(DocumentError::Role(_))));
    forged["certificate"] = pem(&identity(&ca, &leaf(NAME)).chain[0]).into();
    assert!(matches!(read(forged.to_string().as_bytes(), &trust(&ca), now()), Err(DocumentError::Signature)));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let ca = Authority::new();
    let signer = identity(&ca, &leaf(NAME).ed25519());
    let backwards = Document { until: document().from, ..document() };
    assert!(matches!(sign(&backwards, &signer), Err(DocumentError::Order)));
    let text = sign(&document(), &signer).unwrap();
    let reads = |text: &str| read(text.as_bytes(), &trust(&ca), now()).unwrap_err().to_string();
    assert!(reads(&text.replacen("2027-01-16T00:00:00Z", "tomorrow", 1)).contains("signature"));
    assert!(reads(&text.replacen("\"serial\": 3", "\"serial\": 3, \"more\": 1", 1)).contains("unknown field `more`"));
    assert!(reads(&text.replacen("BEGIN", "", 1)).contains("certificate"));
    assert!(reads("{}").contains("missing field"));
    assert!(reads(&" ".repeat(MAX_DOCUMENT + 1)).contains("64 KiB"));
    let other = identity(&ca, &leaf(NAME).ed25519());
    let mixed = Identity::new(signer.chain.clone(), other.key.clone_key()).unwrap();
    assert!(matches!(sign(&document(), &mixed), Err(DocumentError::Signature)), "key of another certificate");
}

#[test]
fn a_withdrawal_is_the_same_with_the_next_serial() {
    let withdrawn = withdrawal(&document());
    assert_eq!(withdrawn, Document { serial: 4, withdrawn: true, ..document() });
}
