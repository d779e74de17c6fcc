//! Passwords as they are kept: Argon2id (RFC 9106) with the parameters that OWASP names, which stand beside each hash so that
//! they can be raised later.

use crate::error::SessionError;
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time;

/// Shortest password, in characters: a second factor stands beside it.
pub(super) const MIN_PASSWORD: usize = 12;
/// Longest password, in bytes.
pub(super) const MAX_PASSWORD: usize = 256;
/// KiB of memory, passes and lanes of a new hash.
const COST: Cost = Cost { memory_kib: 19_456, passes: 2, lanes: 1 };

/// What a hash costs to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
}

/// A password as it is kept.
#[derive(Clone)]
pub(super) struct Hashed {
    pub(super) cost: Cost,
    pub(super) salt: [u8; 16],
    pub(super) hash: [u8; 32],
}

impl Hashed {
    /// Of a new password. Takes some 30 ms and 19 MiB.
    pub(super) fn new(password: &str) -> Result<Self, SessionError> {
        let mut salt = [0_u8; 16];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| SessionError::Secret)?;
        let hash = hash(password, &salt, COST).ok_or(SessionError::Secret)?;
        Ok(Self { cost: COST, salt, hash })
    }

    /// Of no password that anybody knows: checking it takes as long as checking any other, and says no.
    pub(super) const fn of_nobody() -> Self {
        Self { cost: COST, salt: [0; 16], hash: [0; 32] }
    }

    /// Whether it is this password. As costly as making it.
    pub(super) fn is(&self, password: &str) -> bool {
        hash(password, &self.salt, self.cost)
            .is_some_and(|h| constant_time::verify_slices_are_equal(&h, &self.hash).is_ok())
    }
}

fn hash(password: &str, salt: &[u8], cost: Cost) -> Option<[u8; 32]> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).ok()?;
    let mut out = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut out)
        .ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_no_other_one() {
        let hashed = Hashed::new("correct horse battery").unwrap();
        assert!(hashed.is("correct horse battery"));
        assert!(!hashed.is("correct horse batterz") && !hashed.is(""));
        assert_ne!(hashed.salt, Hashed::new("correct horse battery").unwrap().salt, "each has a salt of its own");
        assert!(!Hashed::of_nobody().is(""));
    }

    #[test]
    fn the_cost_is_at_least_what_owasp_names() {
        let made = Hashed::new("correct horse battery").unwrap().cost;
        assert!(made.memory_kib >= 19 * 1024 && made.passes >= 2 && made.lanes == 1);
    }
}
