//! Session keys: what turns a packet into a protected one and back, by profile. No state; who calls sees to it that no
//! index is used twice.

use super::SrtpError;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use trocar_proto::media::bytes::{be32, put};
use trocar_proto::units::{SeqNo, Ssrc};
use zeroize::Zeroizing;

/// Longest salt: the 112 bits of AES-CM. AES-GCM's 96 bits stand left in it.
const MAX_SALT_LEN: usize = 14;
const GCM_TAG_LEN: usize = 16;
const HMAC_TAG_LEN: usize = 10;
const HMAC_KEY_LEN: usize = 20;
/// Bytes of an RTCP packet that stay in the clear: its first header and SSRC.
const RTCP_CLEAR: usize = 8;
/// The E flag: the packet is encrypted.
const ENCRYPTED: u32 = 0x8000_0000;

/// Protection profile (RFC 5764 section 4.1.2, RFC 7714 section 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// AEAD_AES_128_GCM.
    Aes128Gcm,
    /// AEAD_AES_256_GCM.
    Aes256Gcm,
    /// AES128_CM_HMAC_SHA1_80.
    Aes128CmSha1,
}

impl Profile {
    /// Bytes of a master key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes128CmSha1 => 16,
            Self::Aes256Gcm => 32,
        }
    }

    /// Bytes of a master salt.
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 12,
            Self::Aes128CmSha1 => MAX_SALT_LEN,
        }
    }

    /// Bytes that sealing adds to an RTP packet.
    #[must_use]
    pub const fn tag_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => GCM_TAG_LEN,
            Self::Aes128CmSha1 => HMAC_TAG_LEN,
        }
    }

    /// Bytes that sealing adds to an RTCP packet: tag, and the E flag with the index.
    #[must_use]
    pub const fn rtcp_overhead(self) -> usize {
        self.tag_len() + 4
    }

    /// None for AES-CM.
    fn aead(self) -> Option<&'static Algorithm> {
        match self {
            Self::Aes128Gcm => Some(&AES_128_GCM),
            Self::Aes256Gcm => Some(&AES_256_GCM),
            Self::Aes128CmSha1 => None,
        }
    }
}

/// Labels of the keys that are derived for RTP or for RTCP (RFC 3711 section 4.3).
#[derive(Clone, Copy)]
pub(super) struct Labels {
    key: u8,
    authentication: u8,
    salt: u8,
}

pub(super) const RTP: Labels = Labels { key: 0, authentication: 1, salt: 2 };
pub(super) const RTCP: Labels = Labels { key: 3, authentication: 4, salt: 5 };

/// Master key and salt of one direction.
pub(super) struct Master {
    key: Zeroizing<Vec<u8>>,
    salt: [u8; MAX_SALT_LEN],
}

impl Master {
    pub(super) fn new(key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        let mut wide = [0; MAX_SALT_LEN];
        if !put(&mut wide, 0, salt) {
            return Err(SrtpError::Key);
        }
        Ok(Self { key: Zeroizing::new(key.to_vec()), salt: wide })
    }

    /// Key derivation of RFC 3711 section 4.3.1 with key derivation rate 0 (section 11 of RFC 7714 for AES-GCM).
    fn derive(&self, label: u8, out: &mut [u8]) -> Result<(), SrtpError> {
        let mut x = [0_u8; 16];
        x.iter_mut().zip(self.salt).for_each(|(a, b)| *a = b);
        if let Some(b) = x.get_mut(7) {
            *b ^= label;
        }
        out.fill(0);
        counter_key(&self.key)?.apply(x, out)
    }
}

/// AES in counter mode; the same function both ways.
struct CounterKey(EncryptingKey);

fn counter_key(key: &[u8]) -> Result<CounterKey, SrtpError> {
    let algorithm = if key.len() == 32 { &cipher::AES_256 } else { &cipher::AES_128 };
    let key = UnboundCipherKey::new(algorithm, key).map_err(|_| SrtpError::Key)?;
    EncryptingKey::ctr(key).map(CounterKey).map_err(|_| SrtpError::Key)
}

impl CounterKey {
    fn apply(&self, iv: [u8; 16], data: &mut [u8]) -> Result<(), SrtpError> {
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        self.0.less_safe_encrypt(data, context).map(drop).map_err(|_| SrtpError::Key)
    }
}

/// Keys of RTP or of RTCP in one direction.
pub(super) enum SessionKey {
    Gcm { profile: Profile, key: Box<LessSafeKey>, salt: [u8; 12] },
    Cm { key: Box<CmKey>, authentication: Box<hmac::Key> },
}

/// Encryption of AES-CM.
pub(super) struct CmKey {
    key: CounterKey,
    salt: [u8; MAX_SALT_LEN],
}

impl CmKey {
    /// IV of RFC 3711 section 4.1.1: salt · 2^16 ⊕ SSRC · 2^64 ⊕ index · 2^16.
    fn apply(&self, ssrc: Ssrc, index: u64, data: &mut [u8]) -> Result<(), SrtpError> {
        let [a, b, c, d] = ssrc.0.to_be_bytes();
        let [_, _, e, f, g, h, i, j] = index.to_be_bytes();
        let mut iv = [0, 0, 0, 0, a, b, c, d, e, f, g, h, i, j, 0, 0];
        iv.iter_mut().zip(self.salt).for_each(|(x, s)| *x ^= s);
        self.key.apply(iv, data)
    }
}

/// IV of RFC 7714 section 8.1 (RTP: the index is ROC ‖ SEQ) and 9.1 (RTCP: the index is the packet's).
fn gcm_nonce(salt: [u8; 12], ssrc: Ssrc, index: u64) -> Nonce {
    let [a, b, c, d] = ssrc.0.to_be_bytes();
    let [_, _, e, f, g, h, i, j] = index.to_be_bytes();
    let mut iv = [0, 0, a, b, c, d, e, f, g, h, i, j];
    iv.iter_mut().zip(salt).for_each(|(x, s)| *x ^= s);
    Nonce::assume_unique_for_key(iv)
}

/// The first 80 bits of HMAC-SHA1 over `parts` (RFC 3711 section 4.2.1).
fn hmac_tag(key: &hmac::Key, parts: [&[u8]; 3]) -> [u8; HMAC_TAG_LEN] {
    let mut context = hmac::Context::with_key(key);
    parts.into_iter().for_each(|p| context.update(p));
    let mut tag = [0; HMAC_TAG_LEN];
    tag.iter_mut().zip(context.sign().as_ref()).for_each(|(t, b)| *t = *b);
    tag
}

/// Additional data of SRTCP under AES-GCM: the clear part, then E flag and index (RFC 7714 section 9.2).
fn rtcp_aad(clear: &[u8], word: u32) -> Result<[u8; RTCP_CLEAR + 4], SrtpError> {
    let mut aad = [0; RTCP_CLEAR + 4];
    let built = put(&mut aad, 0, clear) && put(&mut aad, RTCP_CLEAR, &word.to_be_bytes());
    if built { Ok(aad) } else { Err(SrtpError::Malformed) }
}

impl SessionKey {
    pub(super) fn derive(profile: Profile, master: &Master, labels: Labels) -> Result<Self, SrtpError> {
        let mut key = Zeroizing::new([0_u8; 32]);
        let key = key.get_mut(..profile.key_len()).ok_or(SrtpError::Key)?;
        master.derive(labels.key, key)?;
        let mut salt = [0_u8; MAX_SALT_LEN];
        master.derive(labels.salt, salt.get_mut(..profile.salt_len()).ok_or(SrtpError::Key)?)?;
        let mut authentication = Zeroizing::new([0_u8; HMAC_KEY_LEN]);
        master.derive(labels.authentication, authentication.as_mut_slice())?;
        Self::new(profile, key, salt, &authentication)
    }

    /// AES-GCM has no key of its own for authentication, and passes over this one.
    pub(super) fn new(
        profile: Profile,
        key: &[u8],
        salt: [u8; MAX_SALT_LEN],
        authentication: &[u8; HMAC_KEY_LEN],
    ) -> Result<Self, SrtpError> {
        let Some(aead) = profile.aead() else {
            let authentication = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, authentication);
            let key = Box::new(CmKey { key: counter_key(key)?, salt });
            return Ok(Self::Cm { key, authentication: Box::new(authentication) });
        };
        let key = LessSafeKey::new(UnboundKey::new(aead, key).map_err(|_| SrtpError::Key)?);
        let [salt @ .., _, _] = salt;
        Ok(Self::Gcm { profile, key: Box::new(key), salt })
    }

    pub(super) const fn profile(&self) -> Profile {
        match self {
            Self::Gcm { profile, .. } => *profile,
            Self::Cm { .. } => Profile::Aes128CmSha1,
        }
    }

    /// Encrypts `body` in place and writes the tag.
    pub(super) fn seal_rtp(
        &self,
        ssrc: Ssrc,
        index: SeqNo,
        header: &[u8],
        body: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), SrtpError> {
        match self {
            Self::Gcm { key, salt, .. } => {
                let nonce = gcm_nonce(*salt, ssrc, index.0);
                let got = key.seal_in_place_separate_tag(nonce, Aad::from(header), body).map_err(|_| SrtpError::Key)?;
                copy_tag(tag, got.as_ref())
            }
            Self::Cm { key, authentication } => {
                key.apply(ssrc, index.0, body)?;
                copy_tag(tag, &hmac_tag(authentication, [header, body, &index.roc().to_be_bytes()]))
            }
        }
    }

    /// Checks the tag, then decrypts in place; returns the length of the RTP packet.
    pub(super) fn open_rtp(
        &self,
        ssrc: Ssrc,
        index: SeqNo,
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<usize, SrtpError> {
        let (header, rest) = packet.split_at_mut_checked(header_len).ok_or(SrtpError::Malformed)?;
        match self {
            Self::Gcm { key, salt, .. } => {
                let nonce = gcm_nonce(*salt, ssrc, index.0);
                let plain = key.open_in_place(nonce, Aad::from(&*header), rest);
                Ok(header_len + plain.map_err(|_| SrtpError::Authentication)?.len())
            }
            Self::Cm { key, authentication } => {
                let body_len = rest.len().checked_sub(HMAC_TAG_LEN).ok_or(SrtpError::Malformed)?;
                let (body, tag) = rest.split_at_mut_checked(body_len).ok_or(SrtpError::Malformed)?;
                check_tag(&hmac_tag(authentication, [header, body, &index.roc().to_be_bytes()]), tag)?;
                key.apply(ssrc, index.0, body)?;
                Ok(header_len + body_len)
            }
        }
    }

    /// Encrypts a compound packet in place and appends tag and index, which AES-GCM and AES-CM order differently.
    pub(super) fn seal_rtcp(&self, ssrc: Ssrc, index: u32, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let word = index | ENCRYPTED;
        let (clear, body) = packet.split_at_mut_checked(RTCP_CLEAR).ok_or(SrtpError::Malformed)?;
        match self {
            Self::Gcm { key, salt, .. } => {
                let aad = Aad::from(rtcp_aad(clear, word)?);
                let nonce = gcm_nonce(*salt, ssrc, u64::from(index));
                let tag = key.seal_in_place_separate_tag(nonce, aad, body).map_err(|_| SrtpError::Key)?;
                packet.extend_from_slice(tag.as_ref());
                packet.extend_from_slice(&word.to_be_bytes());
            }
            Self::Cm { key, authentication } => {
                key.apply(ssrc, u64::from(index), body)?;
                packet.extend_from_slice(&word.to_be_bytes());
                let tag = hmac_tag(authentication, [packet, &[], &[]]);
                packet.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// The index that a sealed compound packet carries. Unencrypted SRTCP is refused.
    pub(super) fn rtcp_index(&self, packet: &[u8]) -> Result<u32, SrtpError> {
        let profile = self.profile();
        let behind_word = match self {
            Self::Gcm { .. } => 0,
            Self::Cm { .. } => HMAC_TAG_LEN,
        };
        let at = packet.len().checked_sub(behind_word + 4).ok_or(SrtpError::Malformed)?;
        let word = be32(packet, at).ok_or(SrtpError::Malformed)?;
        if word & ENCRYPTED == 0 || packet.len() < RTCP_CLEAR + profile.rtcp_overhead() {
            return Err(SrtpError::Malformed);
        }
        Ok(word & !ENCRYPTED)
    }

    /// Checks the tag, then decrypts in place; returns the length of the RTCP packet.
    pub(super) fn open_rtcp(&self, ssrc: Ssrc, index: u32, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let end = packet.len().checked_sub(self.profile().rtcp_overhead()).ok_or(SrtpError::Malformed)?;
        match self {
            Self::Gcm { key, salt, .. } => {
                let aad = Aad::from(rtcp_aad(packet.get(..RTCP_CLEAR).unwrap_or(&[]), index | ENCRYPTED)?);
                let nonce = gcm_nonce(*salt, ssrc, u64::from(index));
                let sealed = packet.get_mut(RTCP_CLEAR..end + GCM_TAG_LEN).ok_or(SrtpError::Malformed)?;
                key.open_in_place(nonce, aad, sealed).map_err(|_| SrtpError::Authentication)?;
            }
            Self::Cm { key, authentication } => {
                let (signed, tag) = packet.split_at_mut_checked(end + 4).ok_or(SrtpError::Malformed)?;
                check_tag(&hmac_tag(authentication, [signed, &[], &[]]), tag)?;
                let body = signed.get_mut(RTCP_CLEAR..end).ok_or(SrtpError::Malformed)?;
                key.apply(ssrc, u64::from(index), body)?;
            }
        }
        Ok(end)
    }
}

fn copy_tag(room: &mut [u8], tag: &[u8]) -> Result<(), SrtpError> {
    if room.len() != tag.len() {
        return Err(SrtpError::Malformed);
    }
    room.copy_from_slice(tag);
    Ok(())
}

/// Takes the same time wherever the first difference is.
fn check_tag(want: &[u8], got: &[u8]) -> Result<(), SrtpError> {
    verify_slices_are_equal(want, got).map_err(|_| SrtpError::Authentication)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(s: &str) -> Vec<u8> {
        hex::decode(s.replace(char::is_whitespace, "")).unwrap()
    }

    #[test]
    fn rfc_3711_appendix_b_2_keystream_of_aes_cm() {
        let key = CmKey {
            key: counter_key(&bytes("2b7e151628aed2a6abf7158809cf4f3c")).unwrap(),
            salt: bytes("f0f1f2f3f4f5f6f7f8f9fafbfcfd").try_into().unwrap(),
        };
        // The appendix shows blocks 0 to 2 and 0xfeff to 0xff01.
        let mut out = vec![0; 0xff02 * 16];
        key.apply(Ssrc(0), 0, &mut out).unwrap();
        let head = "e03ead0935c95e80e166b16dd92b4eb4 d23513162b02d0f72a43a2fe4a5f97ab 41e95b3bb0a2e8dd477901e4fca894c0";
        let tail = "ec8cdf7398607cb0f2d21675ea9ea1e4 362b7c3c6773516318a077d7fc5073ae 6a2cc3787889374fbeb4c81b17ba6c44";
        assert_eq!(out[..48], bytes(head));
        assert_eq!(out[0xfeff * 16..0xff02 * 16], bytes(tail));
    }

    #[test]
    fn rfc_3711_appendix_b_3_key_derivation() {
        let master =
            Master::new(&bytes("e1f97a0d3e018be0d64fa32c06de4139"), &bytes("0ec675ad498afeebb6960b3aabe6")).unwrap();
        let derived = |label, len| {
            let mut out = vec![0xff; len];
            master.derive(label, &mut out).unwrap();
            out
        };
        assert_eq!(derived(RTP.key, 16), bytes("c61e7a93744f39ee10734afe3ff7a087"));
        assert_eq!(derived(RTP.salt, 14), bytes("30cbbc08863d8c85d49db34a9ae1"));
        // The appendix goes on for 94 bytes; HMAC-SHA1 uses the first 20.
        assert_eq!(derived(RTP.authentication, HMAC_KEY_LEN), bytes("cebe321f6ff7716b6fd4ab49af256a156d38baa4"));
    }

    #[test]
    fn hmac_sha1_has_the_value_of_rfc_2202_and_is_cut_to_80_bits() {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[0x0b; 20]);
        assert_eq!(hex::encode(hmac_tag(&key, [b"Hi", b" ", b"There"])), "b617318655057264e28b");
    }
}
