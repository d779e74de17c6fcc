//! Logins that were begun and are not back yet.
//!
//! Loss policy: a login that is not finished within [`LIFE_US`] is forgotten. One network (IPv4 /24, IPv6 /48) has [`MAX_OF_NETWORK`], the oldest of
//! which goes for a new one, so that nobody takes the places of others; where all have [`MAX_PENDING`], a new one is refused.

use crate::rate::network_key;
use crate::secret::SecretHash;
use std::collections::BTreeMap;
use std::net::IpAddr;
use trocar_proto::units::{Micros, WallMicros};
use zeroize::Zeroizing;

/// How long somebody may take at the issuer.
pub(super) const LIFE_US: u64 = 300_000_000;
/// Logins at a time.
const MAX_PENDING: usize = 1024;
/// Logins at a time of one network.
const MAX_OF_NETWORK: usize = 64;

/// A login that was begun.
pub(super) struct Pending {
    /// Which of the issuers it was begun at: an answer of another one does not finish it.
    pub(super) issuer: usize,
    pub(super) nonce: String,
    /// The PKCE verifier (RFC 7636), which only this node knows.
    pub(super) verifier: Zeroizing<String>,
    /// SHA-256 of what only the tab knows that began it.
    pub(super) tab: [u8; 32],
    pub(super) step_up: bool,
    pub(super) since: WallMicros,
    begun: Micros,
    network: IpAddr,
}

impl Pending {
    pub(super) fn new(issuer: usize, (nonce, verifier): (String, String), tab: [u8; 32], step_up: bool) -> Self {
        let (begun, network) = (Micros(0), IpAddr::from([0, 0, 0, 0]));
        let verifier = Zeroizing::new(verifier);
        Self { issuer, nonce, verifier, tab, step_up, since: crate::app::wall_clock(), begun, network }
    }
}

/// All of them, by the hash of their `state`.
#[derive(Default)]
pub(super) struct PendingLogins(BTreeMap<SecretHash, Pending>);

impl PendingLogins {
    /// Whether there is room for it.
    pub(super) fn add(&mut self, now: Micros, peer: IpAddr, state: SecretHash, pending: Pending) -> bool {
        self.0.retain(|_, p| now.since(p.begun) < LIFE_US);
        let network = network_key(peer);
        let own = self.0.iter().filter(|(_, p)| p.network == network);
        if own.clone().count() >= MAX_OF_NETWORK
            && let Some(oldest) = own.min_by_key(|(_, p)| p.begun).map(|(state, _)| *state)
        {
            self.0.remove(&oldest);
        }
        let has_room = self.0.len() < MAX_PENDING;
        if has_room {
            self.0.insert(state, Pending { begun: now, network, ..pending });
        }
        has_room
    }

    /// The login of that state, which is used up by it.
    pub(super) fn take(&mut self, now: Micros, state: &SecretHash) -> Option<Pending> {
        self.0.remove(state).filter(|p| now.since(p.begun) < LIFE_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(logins: &mut PendingLogins, now: u64, peer: [u8; 4], state: &str) -> bool {
        let pending = Pending::new(0, ("n".into(), "v".into()), [0; 32], false);
        logins.add(Micros(now), peer.into(), SecretHash::of(state), pending)
    }

    fn take(logins: &mut PendingLogins, now: u64, state: &str) -> bool {
        logins.take(Micros(now), &SecretHash::of(state)).is_some()
    }

    #[test]
    fn a_state_is_taken_once_and_for_five_minutes() {
        let mut logins = PendingLogins::default();
        for state in ["a", "b", "c"] {
            assert!(add(&mut logins, 7, [192, 0, 2, 1], state));
        }
        assert!(take(&mut logins, 8, "a"));
        assert!(!take(&mut logins, 8, "a"), "taken twice");
        assert!(!take(&mut logins, 8, "x"), "nobody began it");
        assert!(take(&mut logins, 6 + LIFE_US, "b"));
        assert!(!take(&mut logins, 7 + LIFE_US, "c"), "too late");
    }

    #[test]
    fn whoever_begins_many_loses_their_own_and_all_together_are_bounded() {
        let mut logins = PendingLogins::default();
        assert!(add(&mut logins, 0, [198, 51, 100, 1], "other"));
        for n in 0..2 * MAX_OF_NETWORK {
            assert!(add(&mut logins, n as u64, [192, 0, 2, (n % 200) as u8], &n.to_string()));
        }
        assert_eq!(logins.0.len(), MAX_OF_NETWORK + 1);
        assert!(take(&mut logins, 200, "other") && take(&mut logins, 200, "64") && !take(&mut logins, 200, "63"));
        for n in 0..2 * MAX_PENDING {
            add(&mut logins, 300, [10, (n / 200) as u8, (n % 200) as u8, 1], &format!("x{n}"));
        }
        assert_eq!(logins.0.len(), MAX_PENDING);
        assert!(!add(&mut logins, 301, [203, 0, 113, 1], "late"));
        assert!(add(&mut logins, 300 + LIFE_US, [203, 0, 113, 1], "later"), "places come back");
        assert_eq!(logins.0.len(), 1);
    }
}
