//! Names that travel: realm, session, participant, feed, leg, publication. All are 1 to 64 characters of `A-Z a-z 0-9 _ -`, so that
//! none can break out of a path, a log line or a header.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest accepted name, in characters.
pub const MAX_ID_LEN: usize = 64;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} is 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'")]
pub struct InvalidId {
    /// What kind of name it was to be, e.g. `session`.
    pub kind: &'static str,
}

fn is_valid(s: &str) -> bool {
    (1..=MAX_ID_LEN).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A text of a fixed form, as a schema of that name.
#[cfg(feature = "openapi")]
macro_rules! text_schema {
    ($name:ident, $pattern:literal, $what:expr) => {
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
                let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
                text.pattern(Some($pattern)).description(Some($what)).into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and takes the name.
            ///
            /// # Errors
            /// [`InvalidId`] where it is empty, too long or has another character.
            pub fn new(s: impl Into<String>) -> Result<Self, InvalidId> {
                let s = s.into();
                if is_valid(&s) { Ok(Self(s)) } else { Err(InvalidId { kind: $kind }) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        #[cfg(feature = "openapi")]
        text_schema!($name, "^[A-Za-z0-9_-]{1,64}$", concat!("Name of a ", $kind, "."));

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(s: String) -> Result<Self, InvalidId> {
                Self::new(s)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                Self::new(s)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type!(
    /// A hospital's network. Addresses never cross realms.
    RealmId, "realm"
);
id_type!(
    /// One consultation or operation.
    SessionId, "session"
);
id_type!(
    /// One person or device in a session.
    ParticipantId, "participant"
);
id_type!(
    /// One published thing: scope, room, audio.
    FeedId, "feed"
);
id_type!(
    /// One viewer's subscription to one feed.
    LegId, "leg"
);
id_type!(
    /// One WHIP resource: a WebRTC connection by which somebody publishes.
    PublicationId, "publication"
);

impl Default for RealmId {
    /// The realm of a node that was given no other name: `local`.
    fn default() -> Self {
        Self("local".to_owned())
    }
}

/// SHA-256 of a certificate's DER, the `x5t#S256` of RFC 8705 section 3.1. Text form: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CertHash(pub [u8; 32]);

#[cfg(feature = "openapi")]
text_schema!(CertHash, "^[0-9A-Fa-f]{64}$", "SHA-256 of a certificate's DER, 64 hex digits.");

impl fmt::Display for CertHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for CertHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertHash({self})")
    }
}

impl From<CertHash> for String {
    fn from(h: CertHash) -> Self {
        h.to_string()
    }
}

impl TryFrom<String> for CertHash {
    type Error = InvalidCertHash;
    fn try_from(s: String) -> Result<Self, InvalidCertHash> {
        s.parse()
    }
}

impl std::str::FromStr for CertHash {
    type Err = InvalidCertHash;
    fn from_str(s: &str) -> Result<Self, InvalidCertHash> {
        if s.len() != 64 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidCertHash);
        }
        let mut out = [0_u8; 32];
        for (byte, pair) in out.iter_mut().zip(s.as_bytes().chunks_exact(2)) {
            let text = std::str::from_utf8(pair).map_err(|_| InvalidCertHash)?;
            *byte = u8::from_str_radix(text, 16).map_err(|_| InvalidCertHash)?;
        }
        Ok(Self(out))
    }
}

/// A certificate hash was not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a certificate hash is the SHA-256 of the certificate's DER as 64 hex digits")]
pub struct InvalidCertHash;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_break_out_are_refused() {
        for bad in ["", "../x", "a b", "a\0", "\u{202e}x", "a/b", "a;b", &"x".repeat(65)] {
            assert!(SessionId::new(bad).is_err(), "{bad:?} was taken");
        }
        assert!(SessionId::new("OR-1_b").is_ok());
    }

    #[test]
    fn certificate_hash_round_trips_as_hex() {
        let h = CertHash([0xab; 32]);
        assert_eq!(h.to_string().parse::<CertHash>(), Ok(h));
        assert!("zz".parse::<CertHash>().is_err());
        assert!("+f".repeat(32).parse::<CertHash>().is_err());
    }
}
