//! Session tokens as the gate takes them: EdDSA JSON Web Tokens (RFC 7519, RFC 8037) of one pinned issuer.
//!
//! The gate's configuration names the issuer and its key; nothing in a token chooses either. A token is looked at in HELLO and ACCEPT
//! only: one that runs out later blinds nobody and drops nobody (HO-M-019).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::{Path, PathBuf};
use trocar_proto::handover::gate::Verified;
use trocar_proto::handover::message::Short;
use trocar_proto::handover::types::ExpertId;
use trocar_proto::session::claims::{Claims, MAX_TOKEN_LIFE_S};
use trocar_proto::session::ids::{CertHash, SessionId};

/// The audience that gates take.
pub const GATE_AUDIENCE: &str = "trocar-gate";
/// How far the clocks of issuer and gate may be apart, in seconds.
const LEEWAY_S: u64 = 5;
/// Longest token that is looked at, in bytes.
const MAX_TOKEN_LEN: usize = 4_096;
/// What stands before the 32 bytes of an Ed25519 key in SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IssuerKey(pub [u8; 32]);

impl std::fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IssuerKey({})", hex::encode(self.0))
    }
}

/// Why an issuer's key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", file.display())]
pub struct IssuerKeyError {
    /// Which file.
    pub file: PathBuf,
    /// What it wants.
    pub why: String,
}

impl IssuerKey {
    /// From a file: PEM (`PUBLIC KEY`), or one line of base64url, as `trocar up` writes it to `token-key.pub`.
    ///
    /// # Errors
    /// [`IssuerKeyError`] where it is neither.
    pub fn from_file(file: &Path) -> Result<Self, IssuerKeyError> {
        let failed = |why: String| IssuerKeyError { file: file.to_owned(), why };
        let text = std::fs::read_to_string(file).map_err(|e| failed(format!("cannot read it: {e}")))?;
        Self::parse(&text).ok_or_else(|| {
            failed(
                "it has to be an Ed25519 public key: PEM (PUBLIC KEY), or its 32 bytes as one line of base64url".into(),
            )
        })
    }

    /// From the text of such a file.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = if text.contains("-----BEGIN") {
            let spki = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).ok()?;
            spki.strip_prefix(SPKI_PREFIX.as_slice())?.to_vec()
        } else {
            URL_SAFE_NO_PAD.decode(text.trim()).ok()?
        };
        bytes.try_into().ok().map(Self)
    }
}

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TokenError(pub &'static str);

/// Verifies the tokens of one issuer for one session.
pub struct TokenVerifier {
    key: DecodingKey,
    validation: Validation,
    session: SessionId,
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenVerifier").field("session", &self.session).finish_non_exhaustive()
    }
}

impl TokenVerifier {
    /// For tokens of `issuer` that name [`GATE_AUDIENCE`] and `session`.
    #[must_use]
    pub fn new(issuer: &str, key: &IssuerKey, session: SessionId) -> Self {
        // One algorithm: what the header says is compared with it and chooses nothing.
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation.set_audience(&[GATE_AUDIENCE]);
        validation.set_issuer(&[issuer]);
        Self { key: DecodingKey::from_ed_der(&key.0), validation, session }
    }

    /// What a token says of the peer whose certificate has that hash.
    ///
    /// # Errors
    /// [`TokenError`] names the claim that is not right.
    pub fn verify(&self, token: &str, peer: CertHash) -> Result<Verified, TokenError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(TokenError("the token is longer than 4096 bytes"));
        }
        let data = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).map_err(|e| {
            TokenError(match e.kind() {
                ErrorKind::ExpiredSignature => "claim exp: the token ran out",
                ErrorKind::ImmatureSignature => "claim nbf lies in the future",
                ErrorKind::InvalidIssuer => "claim iss names another issuer than the gate's configuration",
                ErrorKind::InvalidAudience => "claim aud does not name trocar-gate",
                ErrorKind::InvalidSignature => "the signature is not of the issuer's key",
                ErrorKind::InvalidAlgorithm => "alg has to be EdDSA",
                ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
                    "a claim is missing or of another type"
                }
                _ => "it is no session token: EdDSA JSON Web Token with all claims expected",
            })
        })?;
        self.judge(&data.claims, peer)
    }

    fn judge(&self, claims: &Claims, peer: CertHash) -> Result<Verified, TokenError> {
        if claims.exp.saturating_sub(claims.nbf.min(claims.iat)) > MAX_TOKEN_LIFE_S {
            return Err(TokenError("claim exp is more than 300 s after nbf or iat"));
        }
        if claims.session != self.session {
            return Err(TokenError("claim session names another session"));
        }
        let bound =
            claims.cnf.as_ref().ok_or(TokenError("claim cnf is missing: the token is bound to no certificate"))?;
        if bound.x5t_s256 != peer {
            return Err(TokenError("claim cnf names another certificate than the one shown"));
        }
        let person = Short::new(claims.sub.as_str()).map_err(|_| TokenError("claim sub is too long"))?;
        Ok(Verified {
            expert: ExpertId(bound.x5t_s256.0),
            person,
            role: claims.role,
            grade: claims.grade.min(claims.role.highest_grade()),
        })
    }
}

#[cfg(test)]
mod tests;
