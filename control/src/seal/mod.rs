//! HB, CMD and BEACON as sealed datagrams (HO-C-007, HO-C-008; docs/CONTROL.md).
//!
//! The secret comes from the exporter of the channel's TLS (RFC 8446 section 7.5). For each direction and binding HKDF-Expand with
//! SHA-256 (RFC 5869 section 2.3) gives key, IV and key id; the seal is AES-256-GCM (RFC 5116 section 5.2). A datagram is
//!
//! ```text
//! version and kind (1) | key id (4) | counter (8) | ciphertext | tag (16)
//! ```
//!
//! in network order. The nonce is the IV with the counter xored into its last 8 bytes, as in RFC 8446 section 5.3; the first 13 bytes
//! are authenticated. Which bindings are live is said by the user of this module, never by the peer.

mod keys;

#[cfg(test)]
mod tests;

use keys::{Direction, Key, Live};
use trocar_proto::handover::message::{Datagram, VERSION, decode_datagram, encode_datagram};
use trocar_proto::handover::types::{Binding, Counter, Epoch, Oid};
use zeroize::Zeroizing;

/// Label for the TLS exporter; the context is absent.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-trocar-handover-1";
/// Bytes of the exported secret.
pub const SECRET_LEN: usize = 32;
/// Bytes ahead of the ciphertext.
pub const HEADER_LEN: usize = 13;
/// Bytes behind it.
pub const TAG_LEN: usize = 16;
/// Longest sealed datagram, in bytes: a CMD with the longest payload has less.
pub const MAX_SEALED: usize = 1_150;
/// Offers that one channel may accept in its life. An honest station stays far below; one that does not has to open a new channel.
pub const MAX_OFFERS: usize = 256;

/// Why something was not sealed or not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It cannot be a sealed datagram of this version.
    #[error("not a sealed datagram of this version")]
    Form,
    /// Such datagrams do not go this way.
    #[error("no such datagram goes this way")]
    Kind,
    /// No key for it is live.
    #[error("no key for this binding is live")]
    NoKey,
    /// The seal is broken: changed, forged, or of other keys.
    #[error("the seal does not open")]
    Broken,
    /// Header and plain text say different things, or the plain text is no message.
    #[error("header and message do not agree")]
    Disagrees,
    /// The counter was used before under this key: sealing twice with one nonce would give the key away.
    #[error("counter not above the last one that was sealed")]
    OldCounter,
    /// A binding that cannot become live: an offer that was live before, an epoch that is not above the last one, or one too many.
    #[error("binding was live before, is not above the last one, or is one too many")]
    Binding,
    /// The library refused; does not happen with lengths as they are here.
    #[error("cryptography failed")]
    Crypto,
}

/// Which end of the channel this is: decides which way each key is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Seals BEACON, opens HB and CMD.
    Gate,
    /// Seals HB and CMD, opens BEACON.
    Station,
}

/// The keys of one channel, for both directions: at most the offer that was accepted last, the present epoch and the one before it.
///
/// The keys outlive the channel where the value does: a second tunnel of the same station may carry what they seal.
pub struct SealKeys {
    secret: Zeroizing<[u8; SECRET_LEN]>,
    end: End,
    offer: Option<Live>,
    epoch: Option<Live>,
    previous: Option<Live>,
    /// Offers that were live; none is twice, since its counters would begin again under the same key.
    used: Vec<Oid>,
    highest: Option<Epoch>,
}

impl std::fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealKeys").field("end", &self.end).field("live", &self.bindings()).finish_non_exhaustive()
    }
}

impl SealKeys {
    /// From the channel's exported secret.
    #[must_use]
    pub const fn new(secret: Zeroizing<[u8; SECRET_LEN]>, end: End) -> Self {
        Self { secret, end, offer: None, epoch: None, previous: None, used: Vec::new(), highest: None }
    }

    /// The offer is accepted by this channel: its keys are live, and those of an offer before it are dropped. Again for the live one
    /// changes nothing.
    ///
    /// # Errors
    /// [`SealError::Binding`] for an offer whose keys were dropped, and beyond [`MAX_OFFERS`].
    pub fn accept(&mut self, oid: Oid) -> Result<(), SealError> {
        let binding = Binding::Offer(oid);
        if self.offer.as_ref().is_some_and(|l| l.binding == binding) {
            return Ok(());
        }
        if self.used.contains(&oid) || self.used.len() >= MAX_OFFERS {
            return Err(SealError::Binding);
        }
        self.offer = Some(Live::derive(&self.secret, binding)?);
        self.used.push(oid);
        Ok(())
    }

    /// The epoch is granted to this channel's station: its keys are live, those of the epoch before it stay for what is under way,
    /// older ones are dropped. Again for the live one changes nothing.
    ///
    /// # Errors
    /// [`SealError::Binding`] for an epoch that is not above every one before it.
    pub fn grant(&mut self, epoch: Epoch) -> Result<(), SealError> {
        let binding = Binding::Epoch(epoch);
        if self.epoch.as_ref().is_some_and(|l| l.binding == binding) {
            return Ok(());
        }
        if self.highest.is_some_and(|h| epoch <= h) {
            return Err(SealError::Binding);
        }
        let live = Live::derive(&self.secret, binding)?;
        self.previous = self.epoch.replace(live);
        self.highest = Some(epoch);
        Ok(())
    }

    /// Makes what a datagram of the gate's own machine is bound to live: [`SealKeys::accept`] or [`SealKeys::grant`].
    ///
    /// # Errors
    /// As these.
    pub fn bind(&mut self, binding: Binding) -> Result<(), SealError> {
        match binding {
            Binding::Offer(oid) => self.accept(oid),
            Binding::Epoch(epoch) => self.grant(epoch),
        }
    }

    /// Drops the keys of a binding that ended.
    pub fn end(&mut self, binding: Binding) {
        for slot in [&mut self.offer, &mut self.epoch, &mut self.previous] {
            if slot.as_ref().is_some_and(|l| l.binding == binding) {
                *slot = None;
            }
        }
    }

    /// Drops all keys; what was live does not become live again.
    pub fn end_all(&mut self) {
        (self.offer, self.epoch, self.previous) = (None, None, None);
    }

    /// What is live: offer, present epoch, the one before.
    #[must_use]
    pub fn bindings(&self) -> Vec<Binding> {
        [&self.offer, &self.epoch, &self.previous].into_iter().flatten().map(|l| l.binding).collect()
    }

    /// Seals once; the identical bytes go on every path (HO-C-008). Counters have to rise under each binding.
    ///
    /// # Errors
    /// [`SealError`] where it goes the other way, its binding is not live, or its counter is not above the last one.
    pub fn seal(&mut self, datagram: &Datagram) -> Result<Vec<u8>, SealError> {
        let (kind, binding, Counter(counter)) = facts(datagram);
        let direction = Direction::sealed_by(self.end);
        if !direction.carries(kind) {
            return Err(SealError::Kind);
        }
        let slots = [&mut self.offer, &mut self.epoch, &mut self.previous];
        let live = slots.into_iter().flatten().find(|l| l.binding == binding).ok_or(SealError::NoKey)?;
        if counter <= live.sealed {
            return Err(SealError::OldCounter);
        }
        let key = live.key(direction);
        let mut out = header(kind, key.id, counter).to_vec();
        let aad = header(kind, key.id, counter);
        let mut body = encode_datagram(datagram);
        key.seal(counter, &aad, &mut body)?;
        out.append(&mut body);
        live.sealed = counter;
        Ok(out)
    }

    /// Opens what the other end sealed. Whether its counter is new is for the machine to judge (HO-A-005); what comes out here is
    /// what the other end sealed under a live binding of this channel, and nothing else.
    ///
    /// # Errors
    /// [`SealError`] for anything else. Never panics, whatever the bytes are.
    pub fn open(&self, sealed: &[u8]) -> Result<Datagram, SealError> {
        if sealed.len() > MAX_SEALED || sealed.len() < HEADER_LEN + TAG_LEN {
            return Err(SealError::Form);
        }
        let (head, body) = sealed.split_first_chunk::<HEADER_LEN>().ok_or(SealError::Form)?;
        let (kind, id, counter) = read_header(head).ok_or(SealError::Form)?;
        let direction = Direction::opened_by(self.end);
        if !direction.carries(kind) {
            return Err(SealError::Kind);
        }
        let mut result = Err(SealError::NoKey);
        for live in [&self.offer, &self.epoch, &self.previous].into_iter().flatten() {
            let key = live.key(direction);
            if key.id != id {
                continue;
            }
            result = open_with(key, live.binding, (kind, counter), head, body);
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

fn open_with(
    key: &Key,
    binding: Binding,
    said: (u8, u64),
    head: &[u8; HEADER_LEN],
    body: &[u8],
) -> Result<Datagram, SealError> {
    let mut body = body.to_vec();
    let plain = key.open(said.1, head, &mut body)?;
    let datagram = decode_datagram(plain).map_err(|_| SealError::Disagrees)?;
    let (kind, bound, Counter(counter)) = facts(&datagram);
    if (kind, counter) == said && bound == binding { Ok(datagram) } else { Err(SealError::Disagrees) }
}

/// HB 1, CMD 2, BEACON 3.
const fn facts(datagram: &Datagram) -> (u8, Binding, Counter) {
    match datagram {
        Datagram::Heartbeat(hb) => (1, hb.binding, hb.counter),
        Datagram::Command(cmd) => (2, Binding::Epoch(cmd.epoch), cmd.counter),
        Datagram::Beacon(beacon) => (3, beacon.binding, beacon.counter),
    }
}

/// Version in the upper half of the first byte, kind in the lower.
fn header(kind: u8, id: [u8; 4], counter: u64) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    let bytes = [VERSION << 4 | kind].into_iter().chain(id).chain(counter.to_be_bytes());
    out.iter_mut().zip(bytes).for_each(|(o, b)| *o = b);
    out
}

fn read_header(head: &[u8; HEADER_LEN]) -> Option<(u8, [u8; 4], u64)> {
    let (first, rest) = head.split_first()?;
    let (id, rest) = rest.split_first_chunk::<4>()?;
    let counter = rest.first_chunk::<8>()?;
    (first >> 4 == VERSION).then_some((first & 0x0f, *id, u64::from_be_bytes(*counter)))
}
