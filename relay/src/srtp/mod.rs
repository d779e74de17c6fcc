//! SRTP and SRTCP (RFC 3711, RFC 7714), after DTLS has given the keys: AES-GCM, and AES-CM with HMAC-SHA1 for who has
//! nothing better.
//!
//! One owner per SSRC: [`SendKeys::claim`] hands a stream of an SSRC out once, the stream cannot be cloned, and it seals
//! no index twice. With AES-GCM a nonce used twice gives the authentication key away (RFC 7714 section 8.1), and with
//! either the keystream.

mod cipher;

pub use cipher::Profile;

use cipher::{Master, RTCP, RTP, SessionKey};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use trocar_proto::media::bytes::{be32, put};
use trocar_proto::media::rtp::Header;
use trocar_proto::media::seq::SeqExtender;
use trocar_proto::media::window::IndexWindow;
use trocar_proto::units::{SeqNo, Ssrc};

/// Bytes that sealing adds to an RTP packet at most, whatever the profile; [`SendStream::overhead`] says it for the keys in
/// use.
pub const MAX_OVERHEAD: usize = 16;
/// Different SSRCs taken from one peer at most; more are refused (bad-input case 34).
pub const MAX_SSRC: usize = 32;
/// Bits of a packet index: roll-over counter and sequence number (RFC 3711 section 3.3.1).
const INDEX_BITS: u32 = 48;

/// Why a packet was not protected or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// The exporter gave too few bytes, or the library refused the key.
    #[error("keying material cannot be used")]
    Key,
    /// Not RTP or RTCP, or too short for a tag.
    #[error("packet is malformed")]
    Malformed,
    /// The tag does not fit.
    #[error("authentication failed")]
    Authentication,
    /// The index was used before, or is too old to know.
    #[error("packet index was used before or is too old")]
    Replay,
    /// All indexes of these keys are used up: new keys are due (RFC 3711 section 9.2).
    #[error("no packet index is left: new keys are due")]
    Exhausted,
    /// More SSRCs than [`MAX_SSRC`].
    #[error("too many sources")]
    TooManySources,
    /// The SSRC has an owner already.
    #[error("SSRC has an owner already")]
    Claimed,
}

/// Both directions of one peer.
pub struct Srtp {
    /// What we send.
    pub send: SendKeys,
    /// What we receive.
    pub receive: Receiver,
}

impl Srtp {
    /// From the DTLS exporter's bytes (RFC 5764 section 4.2): client key, server key, client salt, server salt.
    ///
    /// # Errors
    /// [`SrtpError::Key`] where there are too few bytes.
    pub fn from_dtls(profile: Profile, material: &[u8], we_are_client: bool) -> Result<Self, SrtpError> {
        let (key_len, salt_len) = (profile.key_len(), profile.salt_len());
        let part = |at: usize, len: usize| material.get(at..at + len).ok_or(SrtpError::Key);
        let master = |first: bool| -> Result<Master, SrtpError> {
            let place = usize::from(!first);
            Master::new(part(place * key_len, key_len)?, part(2 * key_len + place * salt_len, salt_len)?)
        };
        let (ours, theirs) = (master(we_are_client)?, master(!we_are_client)?);
        Ok(Self { send: SendKeys::new(profile, &ours)?, receive: Receiver::new(profile, &theirs)? })
    }
}

/// Keys of the sending direction. Streams are claimed from it.
pub struct SendKeys {
    rtp: Rc<SessionKey>,
    rtcp: SessionKey,
    rtcp_index: u32,
    claimed: BTreeSet<Ssrc>,
}

impl SendKeys {
    fn new(profile: Profile, master: &Master) -> Result<Self, SrtpError> {
        Ok(Self {
            rtp: Rc::new(SessionKey::derive(profile, master, RTP)?),
            rtcp: SessionKey::derive(profile, master, RTCP)?,
            rtcp_index: 0,
            claimed: BTreeSet::new(),
        })
    }

    /// The one stream of that SSRC.
    ///
    /// # Errors
    /// [`SrtpError::Claimed`] where it was handed out before.
    pub fn claim(&mut self, ssrc: Ssrc) -> Result<SendStream, SrtpError> {
        if !self.claimed.insert(ssrc) {
            return Err(SrtpError::Claimed);
        }
        Ok(SendStream { keys: Rc::clone(&self.rtp), ssrc, used: IndexWindow::default() })
    }

    /// Seals a compound RTCP packet in place and appends tag and index.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`] below 8 bytes; [`SrtpError::Exhausted`] after 2^31 packets.
    pub fn seal_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let ssrc = Ssrc(be32(packet, 4).ok_or(SrtpError::Malformed)?);
        self.rtcp_index = self.rtcp_index.checked_add(1).filter(|i| i >> 31 == 0).ok_or(SrtpError::Exhausted)?;
        self.rtcp.seal_rtcp(ssrc, self.rtcp_index, packet)
    }
}

/// The right to seal packets of one SSRC. Not `Clone`: whoever has it is the only sender.
///
/// It is given away, never shared:
///
/// ```
/// use trocar_relay::srtp::SendStream;
/// fn hand_over(stream: SendStream) -> SendStream {
///     stream
/// }
/// ```
///
/// There is no second one of it,
///
/// ```compile_fail,E0599
/// use trocar_relay::srtp::SendStream;
/// fn twice(stream: SendStream) -> (SendStream, SendStream) {
///     (stream.clone(), stream)
/// }
/// ```
///
/// who gave it away has it no more,
///
/// ```compile_fail,E0382
/// use trocar_relay::srtp::SendStream;
/// fn keep(stream: SendStream) -> (SendStream, SendStream) {
///     let given = stream;
///     (given, stream)
/// }
/// ```
///
/// and nobody makes one but [`SendKeys::claim`]:
///
/// ```compile_fail,E0451
/// use trocar_relay::srtp::SendStream;
/// fn forge(stream: SendStream) -> SendStream {
///     SendStream { ssrc: trocar_proto::units::Ssrc(1), ..stream }
/// }
/// ```
pub struct SendStream {
    keys: Rc<SessionKey>,
    ssrc: Ssrc,
    used: IndexWindow,
}

impl SendStream {
    /// The SSRC that it seals for.
    #[must_use]
    pub const fn ssrc(&self) -> Ssrc {
        self.ssrc
    }

    /// Bytes that sealing adds to each packet.
    #[must_use]
    pub fn overhead(&self) -> usize {
        self.keys.profile().tag_len()
    }

    /// Seals `packet` (header, payload, then [`Self::overhead`] bytes of room for the tag) in place, under the 48-bit index
    /// ROC ‖ SEQ.
    ///
    /// # Errors
    /// [`SrtpError::Replay`] where the index was sealed before or is older than the window; [`SrtpError::Exhausted`] where
    /// it has more than 48 bits; [`SrtpError::Malformed`] where the packet is shorter than its parts.
    pub fn seal(&mut self, index: SeqNo, packet: &mut [u8], header_len: usize) -> Result<(), SrtpError> {
        let (head, rest) = packet.split_at_mut_checked(header_len).ok_or(SrtpError::Malformed)?;
        let body_len = rest.len().checked_sub(self.overhead()).ok_or(SrtpError::Malformed)?;
        let (body, tag_room) = rest.split_at_mut_checked(body_len).ok_or(SrtpError::Malformed)?;
        // Beyond, nonces begin again.
        if index.0 >> INDEX_BITS != 0 {
            return Err(SrtpError::Exhausted);
        }
        if !self.used.take(index.0) {
            return Err(SrtpError::Replay);
        }
        self.keys.seal_rtp(self.ssrc, index, head, body, tag_room)
    }
}

#[derive(Default)]
struct ReceiveStream {
    numbers: SeqExtender,
    seen: IndexWindow,
}

/// The receiving direction of one peer.
pub struct Receiver {
    rtp: SessionKey,
    rtcp: SessionKey,
    streams: BTreeMap<Ssrc, ReceiveStream>,
    rtcp_seen: BTreeMap<Ssrc, IndexWindow>,
}

impl Receiver {
    fn new(profile: Profile, master: &Master) -> Result<Self, SrtpError> {
        Ok(Self {
            rtp: SessionKey::derive(profile, master, RTP)?,
            rtcp: SessionKey::derive(profile, master, RTCP)?,
            streams: BTreeMap::new(),
            rtcp_seen: BTreeMap::new(),
        })
    }

    /// Opens an SRTP packet in place; returns the length of the RTP packet and its index. State changes only for a
    /// packet that is authentic and fresh.
    ///
    /// # Errors
    /// See [`SrtpError`].
    pub fn open(&mut self, packet: &mut [u8]) -> Result<(usize, SeqNo), SrtpError> {
        // The padding length is encrypted, so the header is read as if there was none.
        let header = parse_encrypted_header(packet, self.rtp.profile().tag_len())?;
        let known = self.streams.get(&header.ssrc);
        if known.is_none() && self.streams.len() >= MAX_SSRC {
            return Err(SrtpError::TooManySources);
        }
        // A receiver begins with a roll-over counter of 0 (RFC 3711 section 3.3.1).
        let index = match known.and_then(|s| s.numbers.highest().map(|_| s.numbers.peek(header.seq))) {
            Some(wide) => SeqNo(wide.0.saturating_sub(0x1_0000)),
            None => SeqNo(u64::from(header.seq)),
        };
        if index.0 >> INDEX_BITS != 0 {
            return Err(SrtpError::Exhausted);
        }
        if known.is_some_and(|s| !s.seen.is_fresh(index.0)) {
            return Err(SrtpError::Replay);
        }
        let len = self.rtp.open_rtp(header.ssrc, index, packet, header.payload_offset)?;
        let stream = self.streams.entry(header.ssrc).or_default();
        stream.numbers.extend(header.seq);
        stream.seen.take(index.0);
        Ok((len, index))
    }

    /// Opens an SRTCP packet in place; returns the length of the RTCP packet. Unencrypted SRTCP is refused.
    ///
    /// # Errors
    /// See [`SrtpError`].
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let index = self.rtcp.rtcp_index(packet)?;
        let ssrc = Ssrc(be32(packet, 4).ok_or(SrtpError::Malformed)?);
        let known = self.rtcp_seen.get(&ssrc);
        if known.is_some_and(|w| !w.is_fresh(u64::from(index))) {
            return Err(SrtpError::Replay);
        }
        if known.is_none() && self.rtcp_seen.len() >= MAX_SSRC {
            return Err(SrtpError::TooManySources);
        }
        let len = self.rtcp.open_rtcp(ssrc, index, packet)?;
        self.rtcp_seen.entry(ssrc).or_default().take(u64::from(index));
        Ok(len)
    }
}

/// Parses the header of an SRTP packet, whose last byte is part of the tag and no padding length.
fn parse_encrypted_header(packet: &[u8], tag_len: usize) -> Result<Header, SrtpError> {
    let mut fixed = [0_u8; 256];
    let n = packet.len().min(fixed.len());
    if !put(&mut fixed, 0, packet.get(..n).unwrap_or(&[])) {
        return Err(SrtpError::Malformed);
    }
    if let Some(b) = fixed.first_mut() {
        *b &= !0x20;
    }
    let h = Header::parse(fixed.get(..n).unwrap_or(&[])).map_err(|_| SrtpError::Malformed)?;
    if h.payload_offset + tag_len > packet.len() { Err(SrtpError::Malformed) } else { Ok(h) }
}

#[cfg(test)]
mod tests;
