use super::*;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jsonwebtoken::{EncodingKey, Header};
use trocar_proto::session::claims::Confirmation;
use trocar_proto::session::ids::{ParticipantId, RealmId};
use trocar_proto::session::role::{Grade, Role};

const PEER: CertHash = CertHash([7; 32]);

struct Issuer(Vec<u8>);

impl Issuer {
    fn new() -> Self {
        let pair = Ed25519KeyPair::generate_pkcs8v1(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        Self(pair.as_ref().to_vec())
    }

    fn public(&self) -> IssuerKey {
        let pair = Ed25519KeyPair::from_pkcs8(&self.0).unwrap();
        IssuerKey(pair.public_key().as_ref().try_into().unwrap())
    }

    fn sign(&self, claims: &Claims) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &EncodingKey::from_ed_der(&self.0)).unwrap()
    }

    fn verifier(&self) -> TokenVerifier {
        TokenVerifier::new("signaling-1", &self.public(), SessionId::new("S").unwrap())
    }
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Claims {
    Claims {
        iss: "signaling-1".to_owned(),
        aud: vec!["relay-1".to_owned(), "trocar-gate".to_owned()],
        sub: ParticipantId::new("dr-a").unwrap(),
        jti: "j".to_owned(),
        iat: now(),
        nbf: now(),
        exp: now() + 300,
        realm: RealmId::default(),
        session: SessionId::new("S").unwrap(),
        role: Role::Expert,
        grade: Grade::Instruments,
        verbs: Vec::new(),
        cnf: Some(Confirmation { x5t_s256: PEER }),
    }
}

fn refused(issuer: &Issuer, change: impl FnOnce(&mut Claims)) -> String {
    let mut claims = claims();
    change(&mut claims);
    issuer.verifier().verify(&issuer.sign(&claims), PEER).unwrap_err().to_string()
}

#[test]
fn a_token_of_the_pinned_issuer_for_this_certificate_says_who_and_how_far() {
    // HO-M-005
    let issuer = Issuer::new();
    let verified = issuer.verifier().verify(&issuer.sign(&claims()), PEER).unwrap();
    let person = Short::new("dr-a").unwrap();
    let expected = Verified { expert: ExpertId([7; 32]), person, role: Role::Expert, grade: Grade::Instruments };
    assert_eq!(verified, expected);
}

#[test]
fn each_claim_that_is_not_right_is_refused_by_its_name() {
    // HO-M-005: what holds in the test above, changed in one place each.
    let issuer = Issuer::new();
    assert!(refused(&issuer, |c| c.iss = "signaling-2".to_owned()).contains("iss"));
    assert!(refused(&issuer, |c| c.aud = vec!["relay-1".to_owned()]).contains("aud"));
    assert!(refused(&issuer, |c| c.session = SessionId::new("T").unwrap()).contains("session"));
    assert!(refused(&issuer, |c| c.cnf = None).contains("cnf"));
    let other = Confirmation { x5t_s256: CertHash([8; 32]) };
    assert!(refused(&issuer, |c| c.cnf = Some(other)).contains("cnf"));
    assert!(refused(&issuer, |c| c.exp = now() + 301).contains("300 s"));
    assert!(refused(&issuer, |c| (c.nbf, c.exp) = (now() - 400, now() + 100)).contains("300 s"));
    assert!(refused(&issuer, |c| c.iat = now() - 200).contains("300 s"));
    assert!(refused(&issuer, |c| (c.iat, c.nbf, c.exp) = (now() - 60, now() - 60, now() - 7)).contains("exp"));
    assert!(refused(&issuer, |c| (c.nbf, c.exp) = (now() + 60, now() + 120)).contains("nbf"));
}

#[test]
fn clocks_may_be_five_seconds_apart() {
    let issuer = Issuer::new();
    let mut behind = claims();
    (behind.iat, behind.nbf, behind.exp) = (now() - 60, now() - 60, now() - 2);
    assert!(issuer.verifier().verify(&issuer.sign(&behind), PEER).is_ok());
    let mut ahead = claims();
    (ahead.iat, ahead.nbf, ahead.exp) = (now() + 3, now() + 3, now() + 60);
    assert!(issuer.verifier().verify(&issuer.sign(&ahead), PEER).is_ok());
}

#[test]
fn no_token_carries_more_than_its_role_may_hold() {
    let issuer = Issuer::new();
    let mut observer = claims();
    (observer.role, observer.grade) = (Role::Observer, Grade::Energy);
    let verified = issuer.verifier().verify(&issuer.sign(&observer), PEER).unwrap();
    assert_eq!((verified.role, verified.grade), (Role::Observer, Grade::Observe));
}

#[test]
fn another_key_another_algorithm_and_no_algorithm_are_refused() {
    let issuer = Issuer::new();
    let verify = |token: &str| issuer.verifier().verify(token, PEER).unwrap_err().to_string();
    assert!(verify(&Issuer::new().sign(&claims())).contains("signature"));
    // The public key as an HMAC secret: the classical confusion of algorithms.
    let hmac = EncodingKey::from_secret(&issuer.public().0);
    let confused = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &hmac).unwrap();
    assert!(verify(&confused).contains("EdDSA"));
    let good = issuer.sign(&claims());
    let (_, rest) = good.split_once('.').unwrap();
    let (body, _) = rest.split_once('.').unwrap();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    assert!(issuer.verifier().verify(&format!("{none}.{body}."), PEER).is_err());
    let mut cut = good.clone();
    cut.pop();
    assert!(issuer.verifier().verify(&cut, PEER).is_err());
    for junk in ["", "a", "..", "a.b.c", &"x".repeat(5_000)] {
        assert!(issuer.verifier().verify(junk, PEER).is_err(), "{junk:.10} was taken");
    }
    assert!(issuer.verifier().verify(&good, PEER).is_ok());
}

#[test]
fn an_issuers_key_is_read_from_pem_and_from_one_line() {
    let key = Issuer::new().public();
    let line = URL_SAFE_NO_PAD.encode(key.0);
    assert_eq!(IssuerKey::parse(&format!("{line}\n")), Some(key));
    let der = [SPKI_PREFIX.as_slice(), &key.0].concat();
    let pem = base64::engine::general_purpose::STANDARD.encode(der);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n");
    assert_eq!(IssuerKey::parse(&pem), Some(key));
    for bad in ["", "AAAA", &line[1..], "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        assert_eq!(IssuerKey::parse(bad), None, "{bad:?} was taken");
    }
}
