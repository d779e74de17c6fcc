//! Keys of one binding, one for each direction.

use super::{End, SECRET_LEN, SealError};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use trocar_proto::handover::types::{Binding, Epoch, Oid};
use zeroize::Zeroizing;

/// Begins the `info` of HKDF-Expand; direction and binding follow.
const LABEL: &[u8] = b"trocar-handover-1 seal";
/// Key, IV, key id.
const KEY_LEN: usize = 32;
const MATERIAL_LEN: usize = KEY_LEN + NONCE_LEN + 4;

/// Which way a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// HB and CMD.
    ToGate,
    /// BEACON.
    FromGate,
}

impl Direction {
    pub(super) const fn sealed_by(end: End) -> Self {
        match end {
            End::Gate => Self::FromGate,
            End::Station => Self::ToGate,
        }
    }

    pub(super) const fn opened_by(end: End) -> Self {
        match end {
            End::Gate => Self::ToGate,
            End::Station => Self::FromGate,
        }
    }

    pub(super) const fn carries(self, kind: u8) -> bool {
        match self {
            Self::ToGate => matches!(kind, 1 | 2),
            Self::FromGate => kind == 3,
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::ToGate => 0,
            Self::FromGate => 1,
        }
    }
}

/// A binding whose keys are held.
pub(super) struct Live {
    pub(super) binding: Binding,
    to_gate: Key,
    from_gate: Key,
    /// The highest counter that this end sealed.
    pub(super) sealed: u64,
}

impl Live {
    pub(super) fn derive(secret: &[u8; SECRET_LEN], binding: Binding) -> Result<Self, SealError> {
        let to_gate = Key::derive(secret, Direction::ToGate, binding)?;
        let from_gate = Key::derive(secret, Direction::FromGate, binding)?;
        Ok(Self { binding, to_gate, from_gate, sealed: 0 })
    }

    pub(super) const fn key(&self, direction: Direction) -> &Key {
        match direction {
            Direction::ToGate => &self.to_gate,
            Direction::FromGate => &self.from_gate,
        }
    }
}

/// One direction of one binding.
pub(super) struct Key {
    aead: LessSafeKey,
    iv: Zeroizing<[u8; NONCE_LEN]>,
    pub(super) id: [u8; 4],
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        MATERIAL_LEN
    }
}

impl Key {
    /// The exported secret is uniformly random, so that HKDF's extract step is not needed (RFC 5869 section 3.3).
    fn derive(secret: &[u8; SECRET_LEN], direction: Direction, binding: Binding) -> Result<Self, SealError> {
        let context = context(binding);
        let direction = [direction.byte()];
        let info: [&[u8]; 3] = [LABEL, &direction, &context];
        let mut material = Zeroizing::new([0; MATERIAL_LEN]);
        Prk::new_less_safe(HKDF_SHA256, secret)
            .expand(&info, Length)
            .and_then(|okm| okm.fill(material.as_mut_slice()))
            .map_err(|_| SealError::Crypto)?;
        let (key, rest) = material.split_at_checked(KEY_LEN).ok_or(SealError::Crypto)?;
        let (iv, rest) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Crypto)?;
        let id = rest.first_chunk::<4>().ok_or(SealError::Crypto)?;
        let unbound = UnboundKey::new(&AES_256_GCM, key).map_err(|_| SealError::Crypto)?;
        Ok(Self { aead: LessSafeKey::new(unbound), iv: Zeroizing::new(*iv), id: *id })
    }

    fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = *self.iv;
        nonce.iter_mut().skip(4).zip(counter.to_be_bytes()).for_each(|(n, c)| *n ^= c);
        Nonce::assume_unique_for_key(nonce)
    }

    pub(super) fn seal(&self, counter: u64, aad: &[u8], body: &mut Vec<u8>) -> Result<(), SealError> {
        let sealed = self.aead.seal_in_place_append_tag(self.nonce(counter), Aad::from(aad), body);
        sealed.map_err(|_| SealError::Crypto)
    }

    pub(super) fn open<'b>(&self, counter: u64, aad: &[u8], body: &'b mut [u8]) -> Result<&'b [u8], SealError> {
        let plain = self.aead.open_in_place(self.nonce(counter), Aad::from(aad), body);
        plain.map(|p| &*p).map_err(|_| SealError::Broken)
    }
}

/// The binding as datagrams write it: one byte for which, then the number.
fn context(binding: Binding) -> Vec<u8> {
    match binding {
        Binding::Offer(Oid(oid)) => [0].into_iter().chain(oid.to_be_bytes()).collect(),
        Binding::Epoch(Epoch(epoch)) => [1].into_iter().chain(epoch.to_be_bytes()).collect(),
    }
}
