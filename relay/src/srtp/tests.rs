//! The vectors of RFC 7714, our two ends against each other, and each against an independent implementation (`rtc-srtp`).

mod proofs;

use super::*;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

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
    let mut salt = [0; 14];
    salt[..12].copy_from_slice(&bytes(SALT));
    let keys = SessionKey::new(profile, &key[..profile.key_len()], salt, &[0; 20]).unwrap();
    SendStream { keys: Rc::new(keys), ssrc: Ssrc(0x5501_a0b2), used: IndexWindow::default() }
}

fn seal_sample(profile: Profile) -> String {
    let mut p = bytes(RTP);
    p.extend_from_slice(&[0; 16]);
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

/// RFC 7714 section 17, as its four examples have it: "Mars", index 0x5d4.
const RTCP_SAMPLE: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
                           deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";
const RTCP_INDEX: u32 = 0x5d4;

fn rtcp_keys(profile: Profile) -> SessionKey {
    let (key, mut salt) = (bytes(KEY), [0; 14]);
    salt[..12].copy_from_slice(&bytes(SALT));
    SessionKey::new(profile, &key[..profile.key_len()], salt, &[0; 20]).unwrap()
}

/// The example's packet is sealed as it is there, and comes back out of it.
fn rtcp_is(profile: Profile, want: &str) {
    let (keys, plain, mars) = (rtcp_keys(profile), bytes(RTCP_SAMPLE), Ssrc(0x4d61_7273));
    let mut p = plain.clone();
    keys.seal_rtcp(mars, RTCP_INDEX, &mut p).unwrap();
    assert_eq!(hex::encode(&p), want.replace(' ', ""));
    assert_eq!(keys.rtcp_index(&p).unwrap(), RTCP_INDEX);
    let end = keys.open_rtcp(mars, RTCP_INDEX, &mut p).unwrap();
    assert_eq!(p[..end], plain);
    // The control: another index, another packet.
    let mut other = plain.clone();
    keys.seal_rtcp(mars, RTCP_INDEX + 1, &mut other).unwrap();
    assert_ne!(hex::encode(&other), want.replace(' ', ""));
    assert!(keys.open_rtcp(mars, RTCP_INDEX, &mut other).is_err());
}

#[test]
fn rfc_7714_section_17_1_aes_128() {
    rtcp_is(
        Profile::Aes128Gcm,
        "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9275b\
         c84aa45896cf4d2fc5abf87245d9eade800005d4",
    );
}

#[test]
fn rfc_7714_section_17_2_aes_256() {
    rtcp_is(
        Profile::Aes256Gcm,
        "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658c61de0476f1b6fad\
         1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
    );
}

/// Sections 17.3 and 17.4 only sign. Nobody who speaks DTLS-SRTP sends that, and it is refused, whatever its tag.
#[test]
fn rfc_7714_section_17_3_what_is_not_encrypted_is_refused() {
    let tagged = format!("{RTCP_SAMPLE}841dd9683dd78ec92ae58790125f62b3000005d4");
    assert!(matches!(rtcp_keys(Profile::Aes128Gcm).rtcp_index(&bytes(&tagged)), Err(SrtpError::Malformed)));
}

const PROFILES: [Profile; 3] = [Profile::Aes128Gcm, Profile::Aes256Gcm, Profile::Aes128CmSha1];

fn pair(profile: Profile) -> (Srtp, Srtp) {
    let material: Vec<u8> = (0..120).collect();
    (Srtp::from_dtls(profile, &material, true).unwrap(), Srtp::from_dtls(profile, &material, false).unwrap())
}

fn sealed(stream: &mut SendStream, index: u64) -> Vec<u8> {
    let mut p = vec![0x80, 96, 0, 0, 0, 0, 0, 9, 0, 0, 0, 7];
    p[2..4].copy_from_slice(&SeqNo(index).low16().to_be_bytes());
    p.extend_from_slice(b"tissue");
    p.resize(p.len() + stream.overhead(), 0);
    stream.seal(SeqNo(index), &mut p, 12).unwrap();
    p
}

#[test]
fn what_one_end_seals_the_other_opens_over_the_roll_over() {
    for profile in PROFILES {
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
    for profile in PROFILES {
        let (mut a, mut b) = pair(profile);
        let mut s = a.send.claim(Ssrc(7)).unwrap();
        let p = sealed(&mut s, 100);
        b.receive.open(&mut p.clone()).unwrap();
        assert_eq!(b.receive.open(&mut p.clone()), Err(SrtpError::Replay));
        let mut forged = sealed(&mut s, 101);
        let copy = forged.clone();
        forged[14] ^= 1;
        assert_eq!(b.receive.open(&mut forged), Err(SrtpError::Authentication));
        assert!(b.receive.open(&mut copy.clone()).is_ok(), "the honest packet still opens");
    }
}

#[test]
fn an_index_is_sealed_once_and_an_ssrc_has_one_owner() {
    for profile in PROFILES {
        let (mut a, _) = pair(profile);
        let mut s = a.send.claim(Ssrc(7)).unwrap();
        assert_eq!(a.send.claim(Ssrc(7)).err(), Some(SrtpError::Claimed));
        sealed(&mut s, 5);
        let mut p = vec![0; 12 + s.overhead()];
        assert_eq!(s.seal(SeqNo(5), &mut p, 12), Err(SrtpError::Replay));
    }
}

#[test]
fn rtcp_goes_both_ways_and_is_not_replayed() {
    for profile in PROFILES {
        let (mut a, mut b) = pair(profile);
        let plain = trocar_proto::media::rtcp::Builder::default().pli(Ssrc(1), Ssrc(2)).finish();
        let mut p = plain.clone();
        a.send.seal_rtcp(&mut p).unwrap();
        assert_eq!(p.len(), plain.len() + profile.rtcp_overhead());
        let again = p.clone();
        let n = b.receive.open_rtcp(&mut p).unwrap();
        assert_eq!(&p[..n], &plain[..]);
        assert_eq!(b.receive.open_rtcp(&mut again.clone()), Err(SrtpError::Replay));
    }
}

#[test]
fn a_peer_with_too_many_sources_is_refused() {
    let (mut a, mut b) = pair(Profile::Aes128Gcm);
    for i in 0..=MAX_SSRC as u32 {
        let mut q = vec![0x80, 96, 0, 2, 0, 0, 0, 9];
        q.extend_from_slice(&i.to_be_bytes());
        q.extend_from_slice(&[1; 4 + MAX_OVERHEAD]);
        a.send.claim(Ssrc(i)).unwrap().seal(SeqNo(2), &mut q, 12).unwrap();
        let r = b.receive.open(&mut q);
        assert_eq!(r.is_ok(), (i as usize) < MAX_SSRC, "source {i}: {r:?}");
    }
}

#[test]
fn short_packets_and_unencrypted_rtcp_are_refused_without_harm() {
    for profile in PROFILES {
        let (mut a, mut b) = pair(profile);
        for n in 0..40 {
            assert!(b.receive.open(&mut vec![0x80; n]).is_err());
            assert!(b.receive.open_rtcp(&mut vec![0x80; n]).is_err());
            assert!(b.receive.open(&mut vec![0xff; n]).is_err());
            assert!(b.receive.open_rtcp(&mut vec![0xff; n]).is_err());
        }
        let mut s = a.send.claim(Ssrc(7)).unwrap();
        for n in 0..12 + s.overhead() {
            assert_eq!(s.seal(SeqNo(1), &mut vec![0x80; n], 12), Err(SrtpError::Malformed), "{n} bytes");
        }
        assert_eq!(a.send.seal_rtcp(&mut vec![0x80; 7]), Err(SrtpError::Malformed));
        let mut p = trocar_proto::media::rtcp::Builder::default().pli(Ssrc(1), Ssrc(2)).finish();
        a.send.seal_rtcp(&mut p).unwrap();
        for i in 0..p.len() {
            for bit in [0x01, 0x80] {
                let mut changed = p.clone();
                changed[i] ^= bit;
                assert!(b.receive.open_rtcp(&mut changed).is_err(), "{profile:?}: byte {i} is not protected");
            }
        }
        assert!(b.receive.open_rtcp(&mut p).is_ok(), "the honest packet still opens");
    }
}

#[test]
fn every_bit_of_an_rtp_packet_is_protected_and_so_is_the_roll_over() {
    for profile in PROFILES {
        let (mut a, mut b) = pair(profile);
        let mut s = a.send.claim(Ssrc(7)).unwrap();
        let p = sealed(&mut s, 100);
        for i in 0..p.len() {
            let mut changed = p.clone();
            changed[i] ^= 0x10;
            assert!(b.receive.open(&mut changed).is_err(), "{profile:?}: byte {i} is not protected");
        }
        // Same sequence number, another roll-over counter than a receiver begins with.
        let far = sealed(&mut s, 0x3_0000 + 101);
        assert_eq!(b.receive.open(&mut far.clone()), Err(SrtpError::Authentication));
    }
}

#[test]
fn a_profile_says_what_it_adds_and_too_little_keying_material_is_refused() {
    let added: Vec<(usize, usize)> = PROFILES.iter().map(|p| (p.tag_len(), p.rtcp_overhead())).collect();
    assert_eq!(added, [(16, 20), (16, 20), (10, 14)]);
    for profile in PROFILES {
        let need = 2 * (profile.key_len() + profile.salt_len());
        assert_eq!(Srtp::from_dtls(profile, &vec![1; need - 1], true).err(), Some(SrtpError::Key));
        assert!(Srtp::from_dtls(profile, &vec![1; need], true).is_ok());
        assert!(profile.tag_len() <= MAX_OVERHEAD);
    }
}

/// The other implementation, in one direction of the keys that [`pair`] uses.
fn foreign(profile: Profile, client: bool) -> Context {
    let material: Vec<u8> = (0..120).collect();
    let (n, s) = (profile.key_len(), profile.salt_len());
    let (key_at, salt_at) = if client { (0, 2 * n) } else { (n, 2 * n + s) };
    let same = match profile {
        Profile::Aes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::Aes256Gcm => ProtectionProfile::AeadAes256Gcm,
        Profile::Aes128CmSha1 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    let provider = rtc_srtp::crypto::default_provider().expect("the feature that names a provider is on");
    let (key, salt) = (&material[key_at..key_at + n], &material[salt_at..salt_at + s]);
    Context::new(key, salt, same, None, None, provider.crypto()).unwrap()
}

/// RTP with a header extension and one CSRC, so that the header is longer than its fixed part.
fn rtp(index: u64) -> (Vec<u8>, usize) {
    let mut p = vec![0x91, 0xe0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 7, 0, 0, 0, 9, 0xbe, 0xde, 0, 1, 0x10, 0xaa, 0, 0];
    p[2..4].copy_from_slice(&SeqNo(index).low16().to_be_bytes());
    let header_len = p.len();
    p.extend((0..index % 1_400).map(|i| i as u8));
    (p, header_len)
}

/// Over two roll-overs, out of order at the first, each step below the 2^15 that a receiver can follow.
const INDEXES: [u64; 10] = [65_000, 65_534, 65_535, 65_536, 65_533, 65_600, 98_000, 130_000, 131_071, 131_072];

#[test]
fn an_independent_implementation_opens_our_rtp_and_rtcp() {
    for profile in PROFILES {
        let (mut us, _) = pair(profile);
        let mut them = foreign(profile, true);
        let mut stream = us.send.claim(Ssrc(7)).unwrap();
        for index in INDEXES {
            let (plain, header_len) = rtp(index);
            let mut p = plain.clone();
            p.resize(plain.len() + stream.overhead(), 0);
            stream.seal(SeqNo(index), &mut p, header_len).unwrap();
            assert_eq!(them.decrypt_rtp(&p).unwrap(), plain, "{profile:?} {index}");
        }
        for n in 1..5 {
            let plain = trocar_proto::media::rtcp::Builder::default().pli(Ssrc(n), Ssrc(2)).finish();
            let mut p = plain.clone();
            us.send.seal_rtcp(&mut p).unwrap();
            assert_eq!(them.decrypt_rtcp(&p).unwrap(), plain, "{profile:?}");
        }
    }
}

#[test]
fn we_open_the_rtp_and_rtcp_of_an_independent_implementation() {
    for profile in PROFILES {
        let (mut us, _) = pair(profile);
        let mut them = foreign(profile, false);
        for index in INDEXES {
            let (plain, _) = rtp(index);
            let mut p = them.encrypt_rtp(&plain).unwrap().to_vec();
            assert_eq!(p.len(), plain.len() + profile.tag_len());
            let (n, got) = us.receive.open(&mut p).unwrap();
            assert_eq!((&p[..n], got), (&plain[..], SeqNo(index)), "{profile:?}");
        }
        for n in 1..5 {
            let plain = trocar_proto::media::rtcp::Builder::default().pli(Ssrc(n), Ssrc(2)).finish();
            let mut p = them.encrypt_rtcp(&plain).unwrap().to_vec();
            let again = p.clone();
            let len = us.receive.open_rtcp(&mut p).unwrap();
            assert_eq!(p[..len], plain, "{profile:?}");
            assert_eq!(us.receive.open_rtcp(&mut again.clone()), Err(SrtpError::Replay));
        }
        // Negative control: keys of the other direction open nothing.
        let mut p = foreign(profile, true).encrypt_rtp(&rtp(5).0).unwrap().to_vec();
        assert_eq!(us.receive.open(&mut p), Err(SrtpError::Authentication));
    }
}
