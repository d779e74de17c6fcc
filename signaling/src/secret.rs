//! Random names and secrets, from the operating system's generator by way of aws-lc.

use crate::error::SessionError;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use trocar_proto::session::ids::{LegId, ParticipantId, PublicationId, SessionId};

/// SHA-256 of an invitation's secret: what is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SecretHash(pub(crate) [u8; 32]);

impl SecretHash {
    /// The hash of a secret as it stands in the link.
    pub(crate) fn of(secret: &str) -> Self {
        Self::of_bytes(secret.as_bytes())
    }

    /// The hash of anything.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(out)
    }

    /// Its first 64 bits, in hex: enough to tell keys of one's own apart.
    pub(crate) fn short(&self) -> String {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// `N` random bytes as base64url (RFC 4648 section 5) without padding.
fn random<const N: usize>() -> Result<String, SessionError> {
    let mut bytes = [0_u8; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SessionError::Secret)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// An invitation's secret: 192 bits.
pub(crate) fn invitation() -> Result<String, SessionError> {
    random::<24>()
}

/// A value of a login at an issuer (`state`, `nonce`, the PKCE verifier): 256 bits.
pub(crate) fn login_value() -> Result<String, SessionError> {
    random::<32>()
}

/// A token's `jti`: 128 bits.
pub(crate) fn token_id() -> Result<String, SessionError> {
    random::<16>()
}

// Each name begins with a letter, so that none looks like an option on a command line.

/// A new session's name: 96 random bits after `s`.
pub(crate) fn session_id() -> Result<SessionId, SessionError> {
    SessionId::new(format!("s{}", random::<12>()?)).map_err(|_| SessionError::Secret)
}

/// A new participant's name: 72 random bits after `p`.
pub(crate) fn participant_id() -> Result<ParticipantId, SessionError> {
    ParticipantId::new(format!("p{}", random::<9>()?)).map_err(|_| SessionError::Secret)
}

/// A new leg's name: 128 random bits after `l`, since it stands in a resource's URL.
pub(crate) fn leg_id() -> Result<LegId, SessionError> {
    LegId::new(format!("l{}", random::<16>()?)).map_err(|_| SessionError::Secret)
}

/// A new publication's name: 128 random bits after `w`, as for a leg.
pub(crate) fn publication_id() -> Result<PublicationId, SessionError> {
    PublicationId::new(format!("w{}", random::<16>()?)).map_err(|_| SessionError::Secret)
}

/// A number that nobody can guess; none where the operating system gives no random bytes.
pub(crate) fn nonce() -> Option<u64> {
    let mut bytes = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(u64::from_be_bytes(bytes))
}

/// The id of a webhook message: 128 random bits after `msg_`.
pub(crate) fn message_id() -> Result<String, SessionError> {
    Ok(format!("msg_{}", random::<16>()?))
}
