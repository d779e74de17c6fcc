//! A second independent implementation (libsrtp, by vectors), and the ends of everything that counts: windows, roll-over
//! counters, 48-bit and 31-bit indexes.

use super::*;

/// See `relay/src/srtp/vectors/libsrtp.py`.
const LIBSRTP: &str = include_str!("../vectors/libsrtp.txt");

/// One line of the vectors.
struct Vector {
    profile: Profile,
    is_client: bool,
    is_rtcp: bool,
    index: u64,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

fn vectors() -> Vec<Vector> {
    let read = |line: &str| {
        let [profile, who, kind, index, plain, sealed] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let profile = match profile {
            "gcm128" => Profile::Aes128Gcm,
            "gcm256" => Profile::Aes256Gcm,
            "cm-sha1-80" => Profile::Aes128CmSha1,
            other => panic!("{other}"),
        };
        let index = index.parse().unwrap();
        let (is_client, is_rtcp) = (who == "client", kind == "rtcp");
        Vector { profile, is_client, is_rtcp, index, plain: bytes(plain), sealed: bytes(sealed) }
    };
    LIBSRTP.lines().map(read).collect()
}

/// What we make of a vector's packet under its keys.
fn sealed_by_us(v: &Vector) -> Vec<u8> {
    let (client, server) = pair(v.profile);
    let mut us = if v.is_client { client } else { server };
    let mut p = v.plain.clone();
    if v.is_rtcp {
        us.send.rtcp_index = u32::try_from(v.index).unwrap() - 1;
        us.send.seal_rtcp(&mut p).unwrap();
    } else {
        let mut stream = us.send.claim(Ssrc(7)).unwrap();
        p.resize(v.plain.len() + stream.overhead(), 0);
        stream.seal(SeqNo(v.index), &mut p, 24).unwrap();
    }
    p
}

#[test]
fn what_we_seal_is_bit_for_bit_what_libsrtp_seals() {
    let all = vectors();
    assert_eq!(all.len(), 3 * 2 * 16);
    for v in &all {
        let what = format!("{:?} {} {}", v.profile, v.is_client, v.index);
        assert_eq!(hex::encode(sealed_by_us(v)), hex::encode(&v.sealed), "{what}");
        // The control: under the other key it is something else.
        let other = Vector { is_client: !v.is_client, plain: v.plain.clone(), sealed: vec![], ..*v };
        assert_ne!(sealed_by_us(&other), v.sealed, "{what}");
    }
}

#[test]
fn we_open_what_libsrtp_sealed_over_two_roll_overs_with_packets_missing_at_each() {
    for profile in PROFILES {
        for is_client in [true, false] {
            let (client, server) = pair(profile);
            let mut us = if is_client { server } else { client };
            for v in vectors().iter().filter(|v| v.profile == profile && v.is_client == is_client) {
                let mut p = v.sealed.clone();
                if v.is_rtcp {
                    let n = us.receive.open_rtcp(&mut p).unwrap();
                    assert_eq!(p[..n], v.plain);
                } else {
                    assert_eq!(us.receive.open(&mut p), Ok((v.plain.len(), SeqNo(v.index))), "{profile:?}");
                    assert_eq!(p[..v.plain.len()], v.plain);
                }
            }
        }
    }
}

#[test]
fn rfc_7714_sections_16_1_2_and_16_2_2_decrypt() {
    for profile in [Profile::Aes128Gcm, Profile::Aes256Gcm] {
        let sealed = bytes(&seal_sample(profile));
        let mut salt = [0; 14];
        salt[..12].copy_from_slice(&bytes(SALT));
        let keys = SessionKey::new(profile, &bytes(KEY)[..profile.key_len()], salt, &[0; 20]).unwrap();
        let mut p = sealed.clone();
        let n = keys.open_rtp(Ssrc(0x5501_a0b2), SeqNo(0xf17b), &mut p, 12).unwrap();
        assert_eq!(p[..n], bytes(RTP));
        // Another roll-over counter is another packet.
        let moved = keys.open_rtp(Ssrc(0x5501_a0b2), SeqNo(0x1_f17b), &mut sealed.clone(), 12);
        assert_eq!(moved, Err(SrtpError::Authentication));
    }
}

#[test]
fn the_roll_over_is_followed_whatever_is_lost_around_it() {
    for profile in PROFILES {
        for lost in 0..1_u32 << 8 {
            let (mut a, mut b) = pair(profile);
            let mut s = a.send.claim(Ssrc(7)).unwrap();
            b.receive.open(&mut sealed(&mut s, 65_000)).unwrap();
            for n in (0..8).filter(|n| lost >> n & 1 == 0) {
                let index = 65_532 + n;
                let mut p = sealed(&mut s, index);
                assert_eq!(b.receive.open(&mut p).map(|(_, i)| i), Ok(SeqNo(index)), "{profile:?} without {lost:08b}");
            }
            // A late one from before the wrap still finds its counter.
            let mut late = sealed(&mut s, 65_531);
            assert_eq!(b.receive.open(&mut late).map(|(_, i)| i), Ok(SeqNo(65_531)));
        }
    }
}

#[test]
fn an_outage_of_less_than_half_the_numbers_is_survived_and_a_longer_one_is_not_taken_for_something_else() {
    let (mut a, mut b) = pair(Profile::Aes128Gcm);
    let mut s = a.send.claim(Ssrc(7)).unwrap();
    b.receive.open(&mut sealed(&mut s, 1_000)).unwrap();
    b.receive.open(&mut sealed(&mut s, 1_000 + 0x7fff)).unwrap();
    let far = 1_000 + 0x7fff + 0x8001;
    // By its number alone it is nearest to one that is long past.
    assert_eq!(b.receive.open(&mut sealed(&mut s, far)), Err(SrtpError::Replay));
}

#[test]
fn the_windows_are_as_wide_as_they_say_on_both_sides() {
    let width = trocar_proto::media::window::WINDOW;
    let (mut a, mut b) = pair(Profile::Aes256Gcm);
    let mut s = a.send.claim(Ssrc(7)).unwrap();
    let (oldest, too_old) = (10_000 - (width - 1), 10_000 - width);
    let late = sealed(&mut s, oldest);
    let older = sealed(&mut s, too_old);
    let newest = sealed(&mut s, 10_000);
    for (packet, want) in [(newest, Ok(10_000)), (late, Ok(oldest)), (older, Err(SrtpError::Replay))] {
        assert_eq!(b.receive.open(&mut packet.clone()).map(|(_, i)| i.0), want);
        assert_eq!(b.receive.open(&mut packet.clone()), Err(SrtpError::Replay), "once at most");
    }
    let mut p = vec![0x80; 12 + s.overhead()];
    assert_eq!(s.seal(SeqNo(too_old + 1), &mut p, 12), Err(SrtpError::Replay), "the sender's own");
    assert_eq!(s.seal(SeqNo(too_old), &mut p, 12), Err(SrtpError::Replay));
}

#[test]
fn the_last_of_all_indexes_is_sealed_and_then_nothing_more() {
    const LAST: u64 = (1 << 48) - 1;
    for profile in PROFILES {
        let (mut a, mut b) = pair(profile);
        let mut s = a.send.claim(Ssrc(7)).unwrap();
        let first = sealed(&mut s, 0);
        let mut p = vec![0x80; 40];
        for beyond in [LAST + 1, LAST + 2, 1 << 63, u64::MAX] {
            // Its nonce would be that of an index long used.
            assert_eq!(s.seal(SeqNo(beyond), &mut p, 12), Err(SrtpError::Exhausted));
        }
        sealed(&mut s, LAST);
        assert_eq!(s.seal(SeqNo(LAST + 1), &mut p, 12), Err(SrtpError::Exhausted));
        // A receiver at the end does not begin again at zero.
        b.receive.open(&mut first.clone()).unwrap();
        let stream = b.receive.streams.get_mut(&Ssrc(7)).unwrap();
        stream.numbers = SeqExtender::starting_at(SeqNo(LAST + 0x1_0000));
        stream.seen.take(LAST);
        assert_eq!(b.receive.open(&mut first.clone()).err(), Some(SrtpError::Exhausted));
    }
}

#[test]
fn the_last_rtcp_index_is_sealed_and_then_new_keys_are_due() {
    for profile in PROFILES {
        let (mut a, mut b) = pair(profile);
        let plain = trocar_proto::media::rtcp::Builder::default().pli(Ssrc(1), Ssrc(2)).finish();
        a.send.rtcp_index = (1 << 31) - 2;
        let mut p = plain.clone();
        a.send.seal_rtcp(&mut p).unwrap();
        let n = b.receive.open_rtcp(&mut p).unwrap();
        assert_eq!(p[..n], plain);
        for _ in 0..3 {
            assert_eq!(a.send.seal_rtcp(&mut plain.clone()), Err(SrtpError::Exhausted));
        }
    }
}

/// Compiles only as long as the right to send cannot be copied: with `Clone` there would be two implementations to choose
/// from. The documentation of [`SendStream`] shows the same with code that must not compile.
mod one_owner {
    use super::*;

    struct Copied;
    trait Owned<A> {
        const ONE: bool = true;
    }
    impl<T: ?Sized> Owned<()> for T {}
    impl<T: Clone> Owned<Copied> for T {}

    const _: () = assert!(<SendStream as Owned<_>>::ONE && <SendKeys as Owned<_>>::ONE && <Srtp as Owned<_>>::ONE);
}
