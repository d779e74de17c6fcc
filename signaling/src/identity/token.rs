//! What a browser holds after a login: a signed statement who it is (EdDSA JSON Web Token). Its audience and its type are its own, so it
//! opens no session, and a token of a session says nothing about who somebody is.

use super::Person;
use crate::error::SessionError;
use crate::token::{TokenKeyError, token_public_key};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use trocar_proto::units::WallMicros;

/// The `typ` of these tokens (RFC 8725 section 3.11).
const TYPE: &str = "trocar-identity+jwt";
/// Longest token that is looked at, in bytes; ours have about 500.
const MAX_TOKEN_LEN: usize = 2048;
/// How far clocks may be apart, in seconds.
const LEEWAY_S: u64 = 5;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityClaims {
    pub(super) iss: String,
    pub(super) aud: String,
    pub(super) sub: String,
    /// The login that it belongs to.
    pub(super) jti: String,
    pub(super) iat: u64,
    pub(super) nbf: u64,
    pub(super) exp: u64,
    pub(super) name: String,
    /// When all factors were shown.
    pub(super) auth_time: u64,
    pub(super) second_factor: bool,
}

/// Signs and verifies.
pub(super) struct IdentityTokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
    issuer: String,
    audience: String,
}

impl IdentityTokens {
    pub(super) fn new(pkcs8: &[u8], issuer: &str) -> Result<Self, TokenKeyError> {
        let public = token_public_key(pkcs8)?;
        let audience = format!("{issuer}#identity");
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation.set_audience(&[&audience]);
        validation.set_issuer(&[issuer]);
        Ok(Self {
            signing: EncodingKey::from_ed_der(pkcs8),
            verifying: DecodingKey::from_ed_der(&public),
            validation,
            issuer: issuer.to_owned(),
            audience,
        })
    }

    /// A token for a login that ends at `exp`.
    pub(super) fn issue(&self, now: WallMicros, exp: u64, jti: &str, person: &Person) -> Result<String, SessionError> {
        let iat = now.0 / 1_000_000;
        let claims = IdentityClaims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: person.account.clone(),
            jti: jti.to_owned(),
            iat,
            nbf: iat,
            exp,
            name: person.name.clone(),
            auth_time: person.at.0 / 1_000_000,
            second_factor: person.second_factor,
        };
        self.sign(&claims, Some(TYPE))
    }

    fn sign(&self, claims: &IdentityClaims, typ: Option<&str>) -> Result<String, SessionError> {
        let header = Header { typ: typ.map(ToOwned::to_owned), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.signing).map_err(|_| SessionError::Secret)
    }

    /// What a token says, where it is one of these and its time has not come to an end.
    pub(super) fn verify(&self, token: &str) -> Option<IdentityClaims> {
        let fits = token.len() <= MAX_TOKEN_LEN;
        let data = fits.then(|| jsonwebtoken::decode::<IdentityClaims>(token, &self.verifying, &self.validation))?;
        data.ok().filter(|d| d.header.typ.as_deref() == Some(TYPE)).map(|d| d.claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::wall_clock;
    use crate::token::{Bearing, Tokens, generate_token_key};
    use trocar_proto::session::ids::{ParticipantId, RealmId, SessionId};
    use trocar_proto::session::role::Role;

    fn ada() -> Person {
        Person { account: "ada".into(), name: "Ada".into(), at: wall_clock(), second_factor: true }
    }

    #[test]
    fn neither_kind_of_token_passes_for_the_other() {
        let key = generate_token_key().unwrap();
        let (own, sessions) = (IdentityTokens::new(&key, "s-1").unwrap(), Tokens::new(&key, "s-1", &[]).unwrap());
        let now = wall_clock();
        let identity = own.issue(now, now.0 / 1_000_000 + 600, "j1", &ada()).unwrap();
        assert_eq!(own.verify(&identity).unwrap().sub, "ada");
        assert!(sessions.verify(&identity).is_err());
        let bearing = Bearing {
            session: SessionId::new("s1").unwrap(),
            participant: ParticipantId::new("p1").unwrap(),
            realm: RealmId::default(),
            role: Role::Expert,
            cnf: None,
        };
        assert!(own.verify(&sessions.issue(now, &bearing, |_| ()).unwrap().0).is_none());
    }

    #[test]
    fn another_type_key_audience_or_time_is_refused() {
        let key = generate_token_key().unwrap();
        let own = IdentityTokens::new(&key, "s-1").unwrap();
        let now = wall_clock();
        let end = now.0 / 1_000_000 + 600;
        let good = own.verify(&own.issue(now, end, "j1", &ada()).unwrap()).unwrap();
        assert!(own.verify(&own.sign(&good, Some(TYPE)).unwrap()).is_some());
        assert!(own.verify(&own.sign(&good, Some("JWT")).unwrap()).is_none());
        assert!(own.verify(&own.sign(&good, None).unwrap()).is_none());
        let changes: [fn(&mut IdentityClaims); 4] =
            [|c| c.aud = "s-1".into(), |c| c.iss = "s-2".into(), |c| c.exp -= 610, |c| c.nbf += 60];
        for change in changes {
            let mut claims = good.clone();
            change(&mut claims);
            assert!(own.verify(&own.sign(&claims, Some(TYPE)).unwrap()).is_none(), "{claims:?} was taken");
        }
        let other = IdentityTokens::new(&generate_token_key().unwrap(), "s-1").unwrap();
        assert!(own.verify(&other.issue(now, end, "j1", &ada()).unwrap()).is_none());
    }
}
