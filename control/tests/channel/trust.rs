use crate::support::Pki;
use rustls::pki_types::UnixTime;
use std::fs;
use std::time::Duration;
use trocar_control::trust::{CertName, Distrust, PeerIdentity, Trust, TrustError, TrustList, cert_name};

fn at(offset: i64) -> UnixTime {
    let now = UnixTime::now().as_secs();
    UnixTime::since_unix_epoch(Duration::from_secs(now.saturating_add_signed(offset)))
}

#[test]
fn a_chain_of_the_list_is_good_and_of_another_authority_is_not() {
    let pki = Pki::new();
    let (station, _) = pki.device("station", "a");
    assert_eq!(pki.trust().verify(&station.chain, at(0)), Ok(()));
    assert_eq!(Pki::new().trust().verify(&station.chain, at(0)), Err(Distrust::UnknownIssuer));
    assert_eq!(pki.trust().verify(&station.chain, at(7_200)), Err(Distrust::Invalid));
    assert_eq!(pki.trust().verify(&[], at(0)), Err(Distrust::Invalid));
    assert_eq!(pki.trust().verify(&pki.relay().chain, at(0)), Err(Distrust::Invalid), "for servers only");
}

#[test]
fn a_revocation_list_that_comes_later_takes_back_whom_it_names_and_nobody_else() {
    // HO-M-021
    let pki = Pki::new();
    let mut list = pki.list();
    let (good, _) = pki.device("station", "good");
    let (bad, serial) = pki.device("station", "bad");
    let peers = [&good, &bad].map(|i| PeerIdentity::of(&i.chain, at(0)).unwrap());
    assert!(list.current().taken_back(&peers).is_empty());
    assert_eq!(list.reload(), Ok(false));

    pki.revoke(&[serial]);
    assert_eq!(list.reload(), Ok(true));
    let trust = list.current();
    let taken: Vec<_> = trust.taken_back(&peers).into_iter().map(|p| p.certificate).collect();
    assert_eq!(taken, [bad.hash()]);
    assert_eq!(trust.verify(&bad.chain, at(0)), Err(Distrust::Revoked));
    assert_eq!(trust.verify(&good.chain, at(0)), Ok(()));
    assert_eq!(list.reload(), Ok(false));
}

#[test]
fn a_certificate_that_ran_out_drops_nobody_and_hides_no_revocation() {
    let pki = Pki::new();
    let (station, serial) = pki.short_lived("station", "a", Duration::ZERO);
    let let_in = PeerIdentity::of(&station.chain, at(-30)).unwrap();
    let mut list = pki.list();
    assert_eq!(list.current().verify(&station.chain, at(1)), Err(Distrust::Invalid));
    assert!(list.current().taken_back([&let_in]).is_empty());
    pki.revoke(&[serial]);
    assert_eq!(list.reload(), Ok(true));
    assert_eq!(list.current().taken_back([&let_in]).len(), 1);
}

#[test]
fn a_list_that_cannot_be_used_leaves_the_former_one_in_force() {
    let pki = Pki::new();
    let (station, serial) = pki.device("station", "a");
    pki.revoke(&[serial]);
    let mut list = pki.list();
    let revoked = || Err(Distrust::Revoked);
    assert_eq!(list.current().verify(&station.chain, at(0)), revoked());
    let crl = pki.directory().join("crl.pem");
    let whole = fs::read(&crl).unwrap();

    fs::write(&crl, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(list.reload(), Err(TrustError::Content { list: "crl.pem", .. })));
    assert_eq!(list.current().verify(&station.chain, at(0)), revoked());
    fs::remove_file(&crl).unwrap();
    assert!(list.reload().is_err(), "whoever was revoked stays so");
    assert_eq!(list.current().verify(&station.chain, at(0)), revoked());
    fs::write(&crl, &whole).unwrap();
    assert_eq!(list.reload(), Ok(true));

    fs::write(pki.directory().join("ca.pem"), "").unwrap();
    assert!(matches!(list.reload(), Err(TrustError::Content { list: "ca.pem", .. })));
    assert_eq!(list.current().verify(&station.chain, at(0)), revoked());
}

#[test]
fn a_revocation_list_of_another_authority_takes_nobody_back() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (station, serial) = pki.device("station", "a");
    let (_, same) = other.device("station", "a");
    assert_eq!(serial, same, "the serial number is the same, the issuer is not");
    other.revoke(&[same]);
    let read = |p: &Pki, f: &str| fs::read(p.directory().join(f)).unwrap();
    let trust = Trust::from_pem(&read(&pki, "ca.pem"), Some(&read(&other, "crl.pem"))).unwrap();
    assert_eq!(trust.verify(&station.chain, at(0)), Ok(()));
}

#[test]
fn another_authority_of_the_same_name_is_another_authority() {
    let (old, new) = (Pki::called("CA"), Pki::called("CA"));
    let (station, serial) = old.device("station", "a");
    let let_in = PeerIdentity::of(&station.chain, at(0)).unwrap();
    assert_eq!(new.trust().verify(&station.chain, at(0)), Err(Distrust::UnknownIssuer));
    assert_eq!(new.trust().taken_back([&let_in]).len(), 1, "the authority was given a new key");
    // A revocation list that the authority did not sign lets nobody in and throws nobody out.
    new.revoke(&[serial]);
    let read = |p: &Pki, f: &str| fs::read(p.directory().join(f)).unwrap();
    let trust = Trust::from_pem(&read(&old, "ca.pem"), Some(&read(&new, "crl.pem"))).unwrap();
    assert_eq!(trust.verify(&station.chain, at(0)), Err(Distrust::Invalid));
    assert!(trust.taken_back([&let_in]).is_empty());
}

#[test]
fn what_is_missing_or_something_else_is_named() {
    let empty = tempfile::tempdir().unwrap();
    let e = TrustList::load(empty.path()).unwrap_err().to_string();
    assert!(e.contains("ca.pem") && e.contains("no such file"), "{e}");
    assert!(Trust::from_pem(b"hello", None).unwrap_err().to_string().contains("ca.pem"));
    let pki = Pki::new();
    let ca = fs::read(pki.directory().join("ca.pem")).unwrap();
    assert!(Trust::from_pem(&ca, Some(&ca)).unwrap_err().to_string().contains("crl.pem"));
}

#[test]
fn a_certificates_name_has_three_parts_and_no_surprises() {
    let name: CertName = "trocar://realm-1/gate/or-3".parse().unwrap();
    assert_eq!((name.realm.as_str(), name.role.as_str(), name.name.as_str()), ("realm-1", "gate", "or-3"));
    assert_eq!(name.to_string(), "trocar://realm-1/gate/or-3");
    let long = format!("trocar://r/gate/{}", "x".repeat(65));
    for bad in ["", "trocar://", "trocar://r/gate", "trocar://r/gate/", "trocar://r//n", "trocar://r/gate/n/x", &long]
        .into_iter()
        .chain(["http://r/gate/n", "trocar://r r/gate/n", "trocar://r/ga te/n", "trocar://r/gate/n\u{1b}[2J"])
    {
        assert!(bad.parse::<CertName>().is_err(), "{bad:?} was taken");
    }
    let pki = Pki::new();
    assert_eq!(cert_name(&pki.device("gate", "g").0.chain[0]).unwrap().to_string(), "trocar://test/gate/g");
    assert_eq!(cert_name(b"no certificate"), None);
}
