//! Session tokens: EdDSA JSON Web Tokens (RFC 7519, RFC 8037), one algorithm, at most five minutes.

use crate::error::SessionError;
use crate::exchanges::Exchanges;
use crate::secret;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};
use trocar_proto::session::claims::{Claims, Confirmation, MAX_TOKEN_LIFE_S};
use trocar_proto::session::ids::{CertHash, ParticipantId, RealmId, SessionId};
use trocar_proto::session::role::Role;
use trocar_proto::units::WallMicros;

/// How far the clocks of issuer and verifier may be apart, in seconds.
const LEEWAY_S: u64 = 5;
/// Longest token that is looked at, in bytes; ours have about 700.
const MAX_TOKEN_LEN: usize = 4096;

/// The token key is no Ed25519 key in PKCS#8, or none could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token key has to be an Ed25519 private key in PKCS#8 DER")]
pub struct TokenKeyError;

/// A new key for [`crate::Config::token_key_pkcs8`]: Ed25519, PKCS#8 DER.
///
/// # Errors
/// [`TokenKeyError`] where the operating system gives no random bytes.
pub fn generate_token_key() -> Result<Vec<u8>, TokenKeyError> {
    let document = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| TokenKeyError)?;
    Ok(document.as_ref().to_vec())
}

/// The 32 bytes of the public key that belongs to a token key: what relays and gates verify with.
///
/// # Errors
/// [`TokenKeyError`] where the DER is no Ed25519 private key in PKCS#8.
pub fn token_public_key(pkcs8: &[u8]) -> Result<Vec<u8>, TokenKeyError> {
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| TokenKeyError)?;
    Ok(pair.public_key().as_ref().to_vec())
}

/// Whom a token is for.
#[derive(Debug, Clone)]
pub(crate) struct Bearing {
    pub(crate) session: SessionId,
    pub(crate) participant: ParticipantId,
    pub(crate) realm: RealmId,
    pub(crate) role: Role,
    pub(crate) cnf: Option<CertHash>,
}

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// Its time is over.
    Expired,
    /// Anything else. Says what, and for a claim which.
    Invalid { reason: String },
}

/// Signs and verifies.
pub(crate) struct Tokens {
    /// Which were exchanged for fresh ones.
    pub(crate) exchanges: Exchanges,
    keys: RwLock<Keys>,
    validation: Validation,
    issuer: String,
    audiences: Vec<String>,
}

/// The key that signs, and the one before for as long as tokens of it may be about.
struct Keys {
    signing: EncodingKey,
    verifying: DecodingKey,
    public: Vec<u8>,
    former: Option<(DecodingKey, Instant)>,
}

impl Keys {
    fn new(pkcs8: &[u8]) -> Result<Self, TokenKeyError> {
        let public = token_public_key(pkcs8)?;
        let (signing, verifying) = (EncodingKey::from_ed_der(pkcs8), DecodingKey::from_ed_der(&public));
        Ok(Self { signing, verifying, public, former: None })
    }
}

impl Tokens {
    /// `issuer` is added to the audiences: signaling takes its own tokens.
    pub(crate) fn new(pkcs8: &[u8], issuer: &str, audiences: &[String]) -> Result<Self, TokenKeyError> {
        let keys = RwLock::new(Keys::new(pkcs8)?);
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation.set_audience(&[issuer]);
        validation.set_issuer(&[issuer]);
        let mut all = vec![issuer.to_owned()];
        all.extend(audiences.iter().filter(|a| *a != issuer).cloned());
        Ok(Self { exchanges: Exchanges::default(), keys, validation, issuer: issuer.to_owned(), audiences: all })
    }

    /// Signs with that key from now on. Tokens of the former are taken for as long as they live; of one before that no more.
    pub(crate) fn renew(&self, pkcs8: &[u8]) -> Result<(), TokenKeyError> {
        let mut new = Keys::new(pkcs8)?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.public != new.public {
            let over = Instant::now() + Duration::from_secs(MAX_TOKEN_LIFE_S + LEEWAY_S);
            new.former = Some((keys.verifying.clone(), over));
            *keys = new;
        }
        Ok(())
    }

    /// The claims, by the key of now or by the one before.
    fn decode(&self, token: &str) -> Result<Claims, jsonwebtoken::errors::Error> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let by =
            |key: &DecodingKey| jsonwebtoken::decode::<Claims>(token, key, &self.validation).map(|data| data.claims);
        match (by(&keys.verifying), &keys.former) {
            (Err(e), Some((former, over))) if *e.kind() == ErrorKind::InvalidSignature && Instant::now() < *over => {
                by(former)
            }
            (result, _) => result,
        }
    }

    /// A token from `now` on for the longest life that is allowed, and its claims: those of the role, less what `narrow` takes away.
    pub(crate) fn issue(
        &self,
        now: WallMicros,
        bearing: &Bearing,
        narrow: impl FnOnce(&mut Claims),
    ) -> Result<(String, Claims), SessionError> {
        let iat = now.0 / 1_000_000;
        let mut claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audiences.clone(),
            sub: bearing.participant.clone(),
            jti: secret::token_id()?,
            iat,
            nbf: iat,
            exp: iat.saturating_add(MAX_TOKEN_LIFE_S),
            realm: bearing.realm.clone(),
            session: bearing.session.clone(),
            role: bearing.role,
            grade: bearing.role.highest_grade(),
            verbs: bearing.role.verbs().to_vec(),
            cnf: bearing.cnf.map(|x5t_s256| Confirmation { x5t_s256 }),
        };
        narrow(&mut claims);
        Ok((self.sign(&claims)?, claims))
    }

    /// Signs claims as they are.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, SessionError> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &keys.signing).map_err(|_| SessionError::Secret)
    }

    /// Checks signature, times, issuer, audience and the shape of all claims. Nothing in the header is looked at but
    /// `alg`: keys are never fetched or chosen by what a token says.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let invalid = |reason: &str| TokenError::Invalid { reason: reason.to_owned() };
        if token.len() > MAX_TOKEN_LEN {
            return Err(invalid("the token is longer than 4096 bytes"));
        }
        let claims = match self.decode(token) {
            Ok(claims) => claims,
            Err(e) => {
                return Err(match e.kind() {
                    ErrorKind::ExpiredSignature => TokenError::Expired,
                    ErrorKind::InvalidIssuer => invalid("claim iss names another issuer"),
                    ErrorKind::InvalidAudience => invalid("claim aud does not name this server"),
                    ErrorKind::ImmatureSignature => invalid("claim nbf lies in the future"),
                    ErrorKind::MissingRequiredClaim(c) => invalid(&format!("claim {c} is missing or of another type")),
                    ErrorKind::InvalidClaimFormat(c) => invalid(&format!("claim {c} is of another type")),
                    ErrorKind::InvalidSignature => invalid("the signature is not of this server's key"),
                    ErrorKind::InvalidAlgorithm => invalid("alg has to be EdDSA"),
                    _ => invalid("it is no token of this server: EdDSA JSON Web Token with all claims expected"),
                });
            }
        };
        if claims.exp.saturating_sub(claims.nbf) > MAX_TOKEN_LIFE_S {
            return Err(invalid("claim exp is more than 300 s after nbf"));
        }
        self.exchanges.shown(&claims.jti);
        Ok(claims)
    }
}
