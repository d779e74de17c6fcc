//! What was begun here and is finished elsewhere, at an issuer or by an authenticator: logins, and passkeys that are being registered.
//!
//! Loss policy: what is not finished within [`LIFE_US`] is forgotten. One network (IPv4 /24, IPv6 /48) has [`MAX_OF_NETWORK`] of a kind, the oldest of
//! which goes for a new one, so that nobody takes the places of others; where all have [`MAX_PENDING`], a new one is refused.

use crate::rate::network_key;
use crate::secret::SecretHash;
use std::collections::BTreeMap;
use std::net::IpAddr;
use trocar_proto::units::Micros;

/// How long somebody may take.
pub(super) const LIFE_US: u64 = 300_000_000;
/// Of a kind at a time.
const MAX_PENDING: usize = 1024;
/// Of a kind at a time, of one network.
const MAX_OF_NETWORK: usize = 64;

/// All of one kind, by the hash of the secret that finishes it.
pub(super) struct Pending<T>(BTreeMap<SecretHash, Begun<T>>);

struct Begun<T> {
    what: T,
    at: Micros,
    network: IpAddr,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Pending<T> {
    /// Whether there is room for it.
    pub(super) fn add(&mut self, now: Micros, peer: IpAddr, secret: SecretHash, what: T) -> bool {
        self.0.retain(|_, b| now.since(b.at) < LIFE_US);
        let network = network_key(peer);
        let own = self.0.iter().filter(|(_, b)| b.network == network);
        if own.clone().count() >= MAX_OF_NETWORK
            && let Some(oldest) = own.min_by_key(|(_, b)| b.at).map(|(secret, _)| *secret)
        {
            self.0.remove(&oldest);
        }
        let has_room = self.0.len() < MAX_PENDING;
        if has_room {
            self.0.insert(secret, Begun { what, at: now, network });
        }
        has_room
    }

    /// What was begun with that secret, which is used up by it.
    pub(super) fn take(&mut self, now: Micros, secret: &SecretHash) -> Option<T> {
        self.0.remove(secret).filter(|b| now.since(b.at) < LIFE_US).map(|b| b.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(logins: &mut Pending<()>, now: u64, peer: [u8; 4], state: &str) -> bool {
        logins.add(Micros(now), peer.into(), SecretHash::of(state), ())
    }

    fn take(logins: &mut Pending<()>, now: u64, state: &str) -> bool {
        logins.take(Micros(now), &SecretHash::of(state)).is_some()
    }

    #[test]
    fn a_secret_is_taken_once_and_for_five_minutes() {
        let mut logins = Pending::default();
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
        let mut logins = Pending::default();
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
