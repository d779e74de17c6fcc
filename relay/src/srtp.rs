//! SRTP and SRTCP with AES-GCM (RFC 3711, RFC 7714), after DTLS has given the keys.
//!
//! One owner per SSRC: [`SendKeys::claim`] hands a stream of an SSRC out once, the stream cannot be cloned, and it seals
//! no index twice. With AES-GCM a nonce used twice gives the authentication key away (RFC 7714 section 8.1).

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use trocar_proto::media::bytes::{be32, put};
use trocar_proto::media::rtp::Header;
use trocar_proto::media::seq::SeqExtender;
use trocar_proto::media::window::IndexWindow;
use trocar_proto::units::{SeqNo, Ssrc};
use zeroize::Zeroizing;

/// Bytes that sealing adds to an RTP packet.
pub const TAG_LEN: usize = 16;
/// Bytes that sealing adds to an RTCP packet: tag, then the E flag with the index.
pub const SRTCP_OVERHEAD: usize = TAG_LEN + 4;
/// Different SSRCs taken from one peer at most; more are refused (bad-input case 34).
pub const MAX_SSRC: usize = 32;

const SALT_LEN: usize = 12;
const LABEL_RTP_KEY: u8 = 0;
const LABEL_RTP_SALT: u8 = 2;
const LABEL_RTCP_KEY: u8 = 3;
const LABEL_RTCP_SALT: u8 = 5;

/// Protection profile (RFC 7714 section 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// AEAD_AES_128_GCM.
    Aes128Gcm,
    /// AEAD_AES_256_GCM.
    Aes256Gcm,
}

impl Profile {
    /// Bytes of a master key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm => 32,
        }
    }

    fn aead(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
        }
    }
}

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
    /// More SSRCs than [`MAX_SSRC`].
    #[error("too many sources")]
    TooManySources,
    /// The SSRC has an owner already.
    #[error("SSRC has an owner already")]
    Claimed,
}

struct SessionKey {
    key: LessSafeKey,
    salt: [u8; SALT_LEN],
}

impl SessionKey {
    fn derive(profile: Profile, master: &Master, key_label: u8, salt_label: u8) -> Result<Self, SrtpError> {
        let mut key = Zeroizing::new([0_u8; 32]);
        let key = key.get_mut(..profile.key_len()).ok_or(SrtpError::Key)?;
        derive(profile, master, key_label, key)?;
        let mut salt = [0_u8; SALT_LEN];
        derive(profile, master, salt_label, &mut salt)?;
        Self::new(profile, key, salt)
    }

    fn new(profile: Profile, key: &[u8], salt: [u8; SALT_LEN]) -> Result<Self, SrtpError> {
        let key = UnboundKey::new(profile.aead(), key).map_err(|_| SrtpError::Key)?;
        Ok(Self { key: LessSafeKey::new(key), salt })
    }

    /// IV of RFC 7714 section 8.1 (RTP: `tail` = ROC ‖ SEQ) and 9.1 (RTCP: `tail` = 00 00 ‖ index).
    fn nonce(&self, ssrc: Ssrc, tail: [u8; 6]) -> Nonce {
        let [a, b, c, d] = ssrc.0.to_be_bytes();
        let [e, f, g, h, i, j] = tail;
        let mut iv = [0, 0, a, b, c, d, e, f, g, h, i, j];
        iv.iter_mut().zip(self.salt).for_each(|(x, s)| *x ^= s);
        Nonce::assume_unique_for_key(iv)
    }
}

struct Master {
    key: Zeroizing<Vec<u8>>,
    salt: [u8; SALT_LEN],
}

/// Key derivation of RFC 3711 section 4.3.1 with key derivation rate 0; the 96-bit salt of RFC 7714 stands left.
fn derive(profile: Profile, master: &Master, label: u8, out: &mut [u8]) -> Result<(), SrtpError> {
    let mut x = [0_u8; 16];
    x.iter_mut().zip(master.salt).for_each(|(a, b)| *a = b);
    if let Some(b) = x.get_mut(7) {
        *b ^= label;
    }
    let algorithm = match profile {
        Profile::Aes128Gcm => &cipher::AES_128,
        Profile::Aes256Gcm => &cipher::AES_256,
    };
    let key = UnboundCipherKey::new(algorithm, &master.key).map_err(|_| SrtpError::Key)?;
    let key = EncryptingKey::ctr(key).map_err(|_| SrtpError::Key)?;
    out.fill(0);
    key.less_safe_encrypt(out, EncryptionContext::Iv128(FixedLength::from(x))).map_err(|_| SrtpError::Key)?;
    Ok(())
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
        let n = profile.key_len();
        let part = |at: usize, len: usize| material.get(at..at + len).ok_or(SrtpError::Key);
        let master = |first: bool| -> Result<Master, SrtpError> {
            let (key_at, salt_at) = if first { (0, 2 * n) } else { (n, 2 * n + SALT_LEN) };
            let salt = part(salt_at, SALT_LEN)?.try_into().map_err(|_| SrtpError::Key)?;
            Ok(Master { key: Zeroizing::new(part(key_at, n)?.to_vec()), salt })
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
            rtp: Rc::new(SessionKey::derive(profile, master, LABEL_RTP_KEY, LABEL_RTP_SALT)?),
            rtcp: SessionKey::derive(profile, master, LABEL_RTCP_KEY, LABEL_RTCP_SALT)?,
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
    /// [`SrtpError::Malformed`] below 8 bytes; [`SrtpError::Replay`] after 2^31 packets, when new keys are due.
    pub fn seal_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let ssrc = Ssrc(be32(packet, 4).ok_or(SrtpError::Malformed)?);
        self.rtcp_index = self.rtcp_index.checked_add(1).filter(|i| i >> 31 == 0).ok_or(SrtpError::Replay)?;
        let word = (self.rtcp_index | 0x8000_0000).to_be_bytes();
        let (head, body) = packet.split_at_mut_checked(8).ok_or(SrtpError::Malformed)?;
        let mut aad = [0_u8; 12];
        let built = put(&mut aad, 0, head) && put(&mut aad, 8, &word);
        debug_assert!(built);
        let nonce = self.rtcp.nonce(ssrc, rtcp_tail(self.rtcp_index));
        let tag = self.rtcp.key.seal_in_place_separate_tag(nonce, Aad::from(aad), body).map_err(|_| SrtpError::Key)?;
        packet.extend_from_slice(tag.as_ref());
        packet.extend_from_slice(&word);
        Ok(())
    }
}

fn rtcp_tail(index: u32) -> [u8; 6] {
    let [a, b, c, d] = index.to_be_bytes();
    [0, 0, a, b, c, d]
}

fn rtp_tail(index: SeqNo) -> [u8; 6] {
    let [_, _, a, b, c, d, e, f] = index.0.to_be_bytes();
    [a, b, c, d, e, f]
}

/// The right to seal packets of one SSRC. Not `Clone`: whoever has it is the only sender.
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

    /// Seals `packet` (header, payload, then [`TAG_LEN`] bytes of room for the tag) in place, under the 48-bit index
    /// ROC ‖ SEQ.
    ///
    /// # Errors
    /// [`SrtpError::Replay`] where the index was sealed before or is older than the window; [`SrtpError::Malformed`]
    /// where the packet is shorter than its parts.
    pub fn seal(&mut self, index: SeqNo, packet: &mut [u8], header_len: usize) -> Result<(), SrtpError> {
        let (head, rest) = packet.split_at_mut_checked(header_len).ok_or(SrtpError::Malformed)?;
        let body_len = rest.len().checked_sub(TAG_LEN).ok_or(SrtpError::Malformed)?;
        let (body, tag_room) = rest.split_at_mut_checked(body_len).ok_or(SrtpError::Malformed)?;
        if !self.used.take(index.0) {
            return Err(SrtpError::Replay);
        }
        let nonce = self.keys.nonce(self.ssrc, rtp_tail(index));
        let tag =
            self.keys.key.seal_in_place_separate_tag(nonce, Aad::from(&*head), body).map_err(|_| SrtpError::Key)?;
        tag_room.copy_from_slice(tag.as_ref());
        Ok(())
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
            rtp: SessionKey::derive(profile, master, LABEL_RTP_KEY, LABEL_RTP_SALT)?,
            rtcp: SessionKey::derive(profile, master, LABEL_RTCP_KEY, LABEL_RTCP_SALT)?,
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
        let header = parse_encrypted_header(packet)?;
        let known = self.streams.get(&header.ssrc);
        if known.is_none() && self.streams.len() >= MAX_SSRC {
            return Err(SrtpError::TooManySources);
        }
        // A receiver begins with a roll-over counter of 0 (RFC 3711 section 3.3.1).
        let index = match known.and_then(|s| s.numbers.highest().map(|_| s.numbers.peek(header.seq))) {
            Some(wide) => SeqNo(wide.0.saturating_sub(0x1_0000)),
            None => SeqNo(u64::from(header.seq)),
        };
        if known.is_some_and(|s| !s.seen.is_fresh(index.0)) {
            return Err(SrtpError::Replay);
        }
        let nonce = self.rtp.nonce(header.ssrc, rtp_tail(index));
        let (head, body) = packet.split_at_mut_checked(header.payload_offset).ok_or(SrtpError::Malformed)?;
        let plain =
            self.rtp.key.open_in_place(nonce, Aad::from(&*head), body).map_err(|_| SrtpError::Authentication)?.len();
        let stream = self.streams.entry(header.ssrc).or_default();
        stream.numbers.extend(header.seq);
        stream.seen.take(index.0);
        Ok((header.payload_offset + plain, index))
    }

    /// Opens an SRTCP packet in place; returns the length of the RTCP packet. Unencrypted SRTCP is refused.
    ///
    /// # Errors
    /// See [`SrtpError`].
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let end = packet.len().checked_sub(4).ok_or(SrtpError::Malformed)?;
        let word = be32(packet, end).ok_or(SrtpError::Malformed)?;
        let ssrc = Ssrc(be32(packet, 4).ok_or(SrtpError::Malformed)?);
        if word >> 31 == 0 || end < 8 + TAG_LEN {
            return Err(SrtpError::Malformed);
        }
        let index = word & 0x7fff_ffff;
        let known = self.rtcp_seen.get(&ssrc);
        if known.is_some_and(|w| !w.is_fresh(u64::from(index))) {
            return Err(SrtpError::Replay);
        }
        if known.is_none() && self.rtcp_seen.len() >= MAX_SSRC {
            return Err(SrtpError::TooManySources);
        }
        let mut aad = [0_u8; 12];
        let built = put(&mut aad, 0, packet.get(..8).unwrap_or(&[])) && put(&mut aad, 8, &word.to_be_bytes());
        debug_assert!(built);
        let nonce = self.rtcp.nonce(ssrc, rtcp_tail(index));
        let body = packet.get_mut(8..end).ok_or(SrtpError::Malformed)?;
        let plain =
            self.rtcp.key.open_in_place(nonce, Aad::from(aad), body).map_err(|_| SrtpError::Authentication)?.len();
        self.rtcp_seen.entry(ssrc).or_default().take(u64::from(index));
        Ok(8 + plain)
    }
}

/// Parses the header of an SRTP packet, whose last byte is part of the tag and no padding length.
fn parse_encrypted_header(packet: &[u8]) -> Result<Header, SrtpError> {
    let mut fixed = [0_u8; 256];
    let n = packet.len().min(fixed.len());
    if !put(&mut fixed, 0, packet.get(..n).unwrap_or(&[])) {
        return Err(SrtpError::Malformed);
    }
    if let Some(b) = fixed.first_mut() {
        *b &= !0x20;
    }
    let h = Header::parse(fixed.get(..n).unwrap_or(&[])).map_err(|_| SrtpError::Malformed)?;
    if h.payload_offset + TAG_LEN > packet.len() { Err(SrtpError::Malformed) } else { Ok(h) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7714 section 16: "Quid pro quo" and its packet.
    const SALT: &str = "517569642070726f2071756f";
    const RTP: &str = "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e697320646976697361\
                       20696e207061727465732074726573";
    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn bytes(s: &str) -> Vec<u8> {
        hex::decode(s.replace(char::is_whitespace, "")).unwrap()
    }

    fn stream(profile: Profile) -> SendStream {
        let key = bytes(KEY);
        let keys = SessionKey::new(profile, &key[..profile.key_len()], bytes(SALT).try_into().unwrap()).unwrap();
        SendStream { keys: Rc::new(keys), ssrc: Ssrc(0x5501_a0b2), used: IndexWindow::default() }
    }

    fn seal_sample(profile: Profile) -> String {
        let mut p = bytes(RTP);
        p.extend_from_slice(&[0; TAG_LEN]);
        stream(profile).seal(SeqNo(0xf17b), &mut p, 12).unwrap();
        hex::encode(p)
    }

    #[test]
    fn rfc_7714_section_16_1_1_aes_128() {
        let want = "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833\
                    899d7f27beb16a9152cf765ee4390cce";
        assert_eq!(seal_sample(Profile::Aes128Gcm), want.replace(' ', ""));
    }

    #[test]
    fn rfc_7714_section_16_2_1_aes_256() {
        let want = "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b\
                    7aa3db36dfffd6b0f9bb7878d7a76c13";
        assert_eq!(seal_sample(Profile::Aes256Gcm), want.replace(' ', ""));
    }

    #[test]
    fn rfc_3711_appendix_b_3_key_derivation() {
        // The appendix uses a 112-bit salt, of which `derive` takes the first 96; the other 16 are put in by hand.
        let full = bytes("0ec675ad498afeebb6960b3aabe6");
        let key = bytes("e1f97a0d3e018be0d64fa32c06de4139");
        let with_label = |label: u8| {
            let mut x = [0_u8; 16];
            x[..14].copy_from_slice(&full);
            x[7] ^= label;
            let k = EncryptingKey::ctr(UnboundCipherKey::new(&cipher::AES_128, &key).unwrap()).unwrap();
            let mut out = [0_u8; 16];
            k.less_safe_encrypt(&mut out, EncryptionContext::Iv128(FixedLength::from(x))).unwrap();
            hex::encode(out)
        };
        assert_eq!(with_label(LABEL_RTP_KEY), "c61e7a93744f39ee10734afe3ff7a087");
        assert!(with_label(LABEL_RTP_SALT).starts_with("30cbbc08863d8c85d49db34a9ae1"));
        // With the two bytes zero, `derive` is that same function.
        let master = Master { key: Zeroizing::new(key.clone()), salt: full[..12].try_into().unwrap() };
        let mut x = [0_u8; 16];
        x[..12].copy_from_slice(&full[..12]);
        x[7] ^= LABEL_RTCP_KEY;
        let k = EncryptingKey::ctr(UnboundCipherKey::new(&cipher::AES_128, &key).unwrap()).unwrap();
        let mut want = [0_u8; 16];
        k.less_safe_encrypt(&mut want, EncryptionContext::Iv128(FixedLength::from(x))).unwrap();
        let mut got = [0_u8; 16];
        derive(Profile::Aes128Gcm, &master, LABEL_RTCP_KEY, &mut got).unwrap();
        assert_eq!(got, want);
    }

    fn pair(profile: Profile) -> (Srtp, Srtp) {
        let material: Vec<u8> = (0..120).collect();
        (Srtp::from_dtls(profile, &material, true).unwrap(), Srtp::from_dtls(profile, &material, false).unwrap())
    }

    fn sealed(stream: &mut SendStream, index: u64) -> Vec<u8> {
        let mut p = vec![0x80, 96, 0, 0, 0, 0, 0, 9, 0, 0, 0, 7];
        p[2..4].copy_from_slice(&SeqNo(index).low16().to_be_bytes());
        p.extend_from_slice(b"tissue");
        p.extend_from_slice(&[0; TAG_LEN]);
        stream.seal(SeqNo(index), &mut p, 12).unwrap();
        p
    }

    #[test]
    fn what_one_end_seals_the_other_opens_over_the_roll_over() {
        for profile in [Profile::Aes128Gcm, Profile::Aes256Gcm] {
            let (mut a, mut b) = pair(profile);
            let mut s = a.send.claim(Ssrc(7)).unwrap();
            for index in [65_530_u64, 65_535, 65_536, 65_534, 65_540] {
                let mut p = sealed(&mut s, index);
                let (n, got) = b.receive.open(&mut p).unwrap();
                assert_eq!((&p[12..n], got), (&b"tissue"[..], SeqNo(index)));
            }
        }
    }

    #[test]
    fn replays_and_forgeries_are_refused_and_leave_the_state_alone() {
        let (mut a, mut b) = pair(Profile::Aes256Gcm);
        let mut s = a.send.claim(Ssrc(7)).unwrap();
        let p = sealed(&mut s, 100);
        b.receive.open(&mut p.clone()).unwrap();
        assert_eq!(b.receive.open(&mut p.clone()), Err(SrtpError::Replay));
        let mut forged = sealed(&mut s, 101);
        let copy = forged.clone();
        forged[14] ^= 1;
        assert_eq!(b.receive.open(&mut forged), Err(SrtpError::Authentication));
        assert!(b.receive.open(&mut copy.clone()).is_ok(), "the honest packet still opens");
        for n in 0..28 {
            assert!(b.receive.open(&mut vec![0x80; n]).is_err());
            assert!(b.receive.open_rtcp(&mut vec![0x80; n]).is_err());
        }
    }

    #[test]
    fn an_index_is_sealed_once_and_an_ssrc_has_one_owner() {
        let (mut a, _) = pair(Profile::Aes128Gcm);
        let mut s = a.send.claim(Ssrc(7)).unwrap();
        assert_eq!(a.send.claim(Ssrc(7)).err(), Some(SrtpError::Claimed));
        sealed(&mut s, 5);
        let mut p = vec![0; 12 + TAG_LEN];
        assert_eq!(s.seal(SeqNo(5), &mut p, 12), Err(SrtpError::Replay));
    }

    #[test]
    fn rtcp_goes_both_ways_and_is_not_replayed() {
        let (mut a, mut b) = pair(Profile::Aes256Gcm);
        let plain = trocar_proto::media::rtcp::Builder::default().pli(Ssrc(1), Ssrc(2)).finish();
        let mut p = plain.clone();
        a.send.seal_rtcp(&mut p).unwrap();
        assert_eq!(p.len(), plain.len() + SRTCP_OVERHEAD);
        let again = p.clone();
        let n = b.receive.open_rtcp(&mut p).unwrap();
        assert_eq!(&p[..n], &plain[..]);
        assert_eq!(b.receive.open_rtcp(&mut again.clone()), Err(SrtpError::Replay));
    }

    #[test]
    fn a_peer_with_too_many_sources_is_refused() {
        let (mut a, mut b) = pair(Profile::Aes128Gcm);
        for i in 0..=MAX_SSRC as u32 {
            let mut q = vec![0x80, 96, 0, 2, 0, 0, 0, 9];
            q.extend_from_slice(&i.to_be_bytes());
            q.extend_from_slice(&[1; 4 + TAG_LEN]);
            a.send.claim(Ssrc(i)).unwrap().seal(SeqNo(2), &mut q, 12).unwrap();
            let r = b.receive.open(&mut q);
            assert_eq!(r.is_ok(), (i as usize) < MAX_SSRC, "source {i}: {r:?}");
        }
    }
}
