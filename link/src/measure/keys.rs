//! The keys that a responder lets clients measure with: one for everybody, or one for each measurement that was asked for elsewhere
//! (the API of a relay). Which of those a client means is the upper half of the number that it draws.

use super::Stamp;
use super::packet::Key;
use std::collections::BTreeMap;

/// Measurements that were asked for and are not over. Loss policy: one more is not let in.
pub const GRANTS_MAX: usize = 16;

/// The number that a client draws: the grant's in its upper half, where it has one.
#[must_use]
pub const fn nonce_of(grant: Option<u32>, drawn: u64) -> u64 {
    match grant {
        Some(grant) => ((grant as u64) << 32) | (drawn & 0xffff_ffff),
        None => drawn,
    }
}

/// The keys.
#[derive(Debug)]
pub(super) enum Keys {
    /// One that all clients have.
    Shared(Box<Key>),
    /// One for each grant, and until when.
    Granted(BTreeMap<u32, (Key, Stamp)>),
}

impl Keys {
    /// Lets one measurement in; whether there was room.
    pub(super) fn grant(&mut self, id: u32, key: &[u8], now: Stamp, until: Stamp) -> bool {
        let Self::Granted(grants) = self else { return false };
        grants.retain(|_, (_, until)| *until > now);
        if grants.len() >= GRANTS_MAX || grants.contains_key(&id) {
            return false;
        }
        grants.insert(id, (Key::new(key), until));
        true
    }

    /// The key of whoever drew that number.
    pub(super) fn of(&self, nonce: u64, now: Stamp) -> Option<&Key> {
        match self {
            Self::Shared(key) => Some(key),
            Self::Granted(grants) => {
                grants.get(&((nonce >> 32) as u32)).filter(|(_, until)| *until > now).map(|(key, _)| key)
            }
        }
    }

    /// The grant that a number names, where there are grants.
    pub(super) const fn grant_of(&self, nonce: u64) -> Option<u32> {
        match self {
            Self::Shared(_) => None,
            Self::Granted(_) => Some((nonce >> 32) as u32),
        }
    }

    /// What a refusal is sealed with: a key that its reader has, or that everybody has.
    pub(super) fn for_refusal(&self) -> Key {
        match self {
            Self::Shared(key) => (**key).clone(),
            Self::Granted(_) => Key::new(&[]),
        }
    }

    /// No measurement that was let in begins any more.
    pub(super) fn forget(&mut self) {
        if let Self::Granted(grants) = self {
            grants.clear();
        }
    }
}
