//! Our FlexFEC-03 against a decoder that nobody here wrote (`rtc-interceptor`).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop the process: that is how it fails")]

use rtc_interceptor::FlexFec03Decoder;
use rtc_rtp::packet::Packet;
use rtc_shared::marshal::Unmarshal as _;
use std::collections::BTreeMap;
use trocar_proto::link::rng::Rng;
use trocar_proto::media::fec::flexfec::{Encoder, EncoderConfig};
use trocar_proto::media::rtp::{HeaderFields, write_header};
use trocar_proto::units::Ssrc;

const MEDIA: u32 = 0x1234_5678;
const REPAIR: u32 = 0x9abc_def0;

fn read(bytes: &[u8]) -> Packet {
    Packet::unmarshal(&mut &bytes[..]).unwrap()
}

/// Frames of `packets` packets go through a line that loses bursts; what the decoder has in the end, and how many packets
/// were lost on the line.
fn pass(percent: u8, interleave: u8, burst: usize, every: usize) -> (usize, usize) {
    let mut rng = Rng::new(u64::from(percent) * 7 + burst as u64);
    let config =
        EncoderConfig { media: Ssrc(MEDIA), ssrc: Ssrc(REPAIR), payload_type: 118, transport_cc: None, first_seq: 100 };
    let mut encoder = Encoder::new(config);
    encoder.set_plan(percent, interleave);
    let mut decoder = FlexFec03Decoder::new(REPAIR, MEDIA);
    let mut sent = BTreeMap::new();
    let (mut seq, mut lost, mut back) = (65_000_u16, 0, 0);
    for frame in 0..200_u32 {
        for i in 0..20_u32 {
            let mut packet = vec![0; 64];
            let fields =
                HeaderFields { marker: i == 19, payload_type: 96, seq, timestamp: frame * 3_000, ssrc: Ssrc(MEDIA) };
            let n = write_header(&mut packet, fields, &[(5, &[7; 3])]).unwrap();
            packet.truncate(n);
            packet.extend((0..rng.below(1_100)).map(|_| rng.next_u64() as u8));
            encoder.protect(&packet);
            sent.insert(seq, packet.clone());
            let nth = (frame * 20 + i) as usize;
            // The first frames teach the encoder how large they are.
            let is_lost = frame > 2 && nth % every < burst;
            lost += usize::from(is_lost);
            let mut came = if is_lost { vec![] } else { vec![packet] };
            let mut repair = [0; 1_600];
            while let Some((n, _)) = encoder.poll_repair(&mut repair) {
                came.push(repair[..n].to_vec());
            }
            for p in came.iter().flat_map(|p| decoder.decode(read(p))) {
                assert_eq!(p, read(&sent[&p.header.sequence_number]), "bit for bit");
                back += 1;
            }
            seq = seq.wrapping_add(1);
        }
    }
    (back, lost)
}

#[test]
fn another_implementation_has_every_packet_back_that_the_plan_covers() {
    for (percent, interleave, burst, every) in [(10, 1, 1, 37), (20, 4, 4, 53), (50, 8, 6, 61)] {
        let (back, lost) = pass(percent, interleave, burst, every);
        assert!(lost > 60, "{lost}");
        // A burst at the end of one block and the beginning of the next meets either half as often.
        assert!(back == lost, "{percent} % over {interleave}: {back} of {lost} came back");
    }
}

#[test]
fn without_redundancy_nothing_comes_back() {
    let (back, lost) = pass(0, 1, 1, 37);
    assert!(lost > 60 && back == 0, "{back} of {lost}");
}
