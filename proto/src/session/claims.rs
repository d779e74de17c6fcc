//! What a token says: an EdDSA JSON Web Token (RFC 7519, RFC 8037) of at most five minutes, refreshed while in use.

use super::ids::{CertHash, ParticipantId, RealmId, SessionId};
use super::role::{Grade, Role, Verb};
use serde::{Deserialize, Serialize};

/// Longest life of a token, in seconds.
pub const MAX_TOKEN_LIFE_S: u64 = 300;

/// Proof-of-possession key of the bearer (RFC 7800): the hash of its client certificate (RFC 8705 section 3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// SHA-256 of the client certificate's DER, base64url without padding.
    #[serde(rename = "x5t#S256", with = "thumbprint")]
    pub x5t_s256: CertHash,
}

/// A certificate hash as RFC 8705 section 3.1 writes it.
mod thumbprint {
    use super::CertHash;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &CertHash, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&URL_SAFE_NO_PAD.encode(hash.0))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<CertHash, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|b| b.try_into().ok());
        bytes.map(CertHash).ok_or_else(|| D::Error::custom("x5t#S256 is a SHA-256 in base64url without padding"))
    }
}

/// The claims of a session token. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer: the signaling node's id.
    pub iss: String,
    /// Audience: ids of the relay, the signaling node and the gate that the token is for.
    pub aud: Vec<String>,
    /// The participant.
    pub sub: ParticipantId,
    /// Unique id of this token.
    pub jti: String,
    /// Issued at.
    pub iat: u64,
    /// Not before.
    pub nbf: u64,
    /// Expires at.
    pub exp: u64,
    /// The participant's hospital network.
    pub realm: RealmId,
    /// The session; a token is good for one.
    pub session: SessionId,
    /// What the participant is.
    pub role: Role,
    /// The highest grade the bearer may ever hold at a gate.
    pub grade: Grade,
    /// What the bearer may do.
    pub verbs: Vec<Verb>,
    /// Client certificate that must be shown; required for QUIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
}

impl Claims {
    /// Whether the bearer may do `verb`: the token and the role's row must both say so.
    #[must_use]
    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb) && self.role.verbs().contains(&verb)
    }
}
