//! Times of the pure parts of a packet's road: `make bench-micro`. What they cost in instructions is kept within a budget by
//! the tests (`trocar_media_tests::bench::road`).
#![allow(missing_docs, clippy::unwrap_used, reason = "criterion's macros write functions; a benchmark may stop")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use trocar_media_tests::bench::packet::{HEADER, Maker, PACKET, PAYLOAD_TYPE};
use trocar_media_tests::bench::road::{UNIT, feed, stream};
use trocar_proto::media::codec::Codec;
use trocar_proto::media::ext::{ExtensionIds, read_marks};
use trocar_proto::media::fec::block::BlockEncoder;
use trocar_proto::media::fec::policy::Plan;
use trocar_proto::media::ingest::{Ingest, IngestConfig};
use trocar_proto::media::leg::{Leg, Next, Numbering};
use trocar_proto::media::nack::NackGenerator;
use trocar_proto::media::rtp::{FIXED_HEADER, Header, HeaderFields, write_header};
use trocar_proto::units::{Micros, SeqNo, Ssrc, WallMicros};
use trocar_relay::srtp::{Profile, Srtp};

const CAPTURE: WallMicros = WallMicros(1_790_000_000_000_000);

fn header(c: &mut Criterion) {
    let packet = *Maker::new(100).next(0, CAPTURE);
    c.bench_function("rtp: parse header and marks", |b| {
        b.iter(|| {
            let h = Header::parse(black_box(&packet)).unwrap();
            read_marks(&h, &packet, ExtensionIds::OURS)
        });
    });
    let fields = HeaderFields { marker: false, payload_type: PAYLOAD_TYPE, seq: 1, timestamp: 2, ssrc: Ssrc(3) };
    let mut room = [0; 64];
    c.bench_function("rtp: write a fixed header", |b| {
        b.iter(|| write_header(black_box(&mut room), black_box(fields), &[]).unwrap());
    });
}

fn road(c: &mut Criterion) {
    let mut group = c.benchmark_group("per packet");
    group.throughput(Throughput::Elements(1));
    let (mut maker, mut f, mut n) = (Maker::new(100), feed(), 0);
    group.bench_function("feed: handle_packet", |b| {
        b.iter(|| {
            n += 1;
            f.handle_packet(Micros(n * 167), maker.next(n, CAPTURE)).unwrap()
        });
    });
    let numbering = Numbering::Own { ssrc: Ssrc(9), payload_type: 102, first_seq: 5 };
    let mut leg = Leg::new(numbering, &f, Micros(n * 167));
    group.bench_function("feed: handle_packet, and leg: poll", |b| {
        b.iter(|| {
            n += 1;
            f.handle_packet(Micros(n * 167), maker.next(n, CAPTURE)).unwrap();
            while let Next::Send { index, .. } = leg.poll(&f, true) {
                black_box(index);
            }
        });
    });
    let config = IngestConfig {
        codec: Codec::H264,
        payload_type: PAYLOAD_TYPE,
        abs_capture_time: 2,
        audio_level: 0,
        dependency_descriptor: 0,
    };
    let (mut ingest, mut room) = (Ingest::new(config), vec![0; 2_048]);
    group.bench_function("ingest: H.264", |b| {
        b.iter(|| {
            let packet = maker.next(0, CAPTURE);
            let h = Header::parse(packet).unwrap();
            ingest.handle_packet(&h, packet, &mut room).unwrap()
        });
    });
    let (mut nack, mut at, mut seq) = (NackGenerator::new(100_000), 0, 0_u16);
    group.bench_function("nack: one packet in a hundred lost", |b| {
        b.iter(|| {
            at += 167;
            seq = seq.wrapping_add(if seq.is_multiple_of(100) { 2 } else { 1 });
            nack.handle_packet(Micros(at), seq);
            nack.poll(Micros(at)).map(<[u16]>::len)
        });
    });
    group.finish();
}

fn srtp(c: &mut Criterion) {
    let mut group = c.benchmark_group("SRTP");
    group.throughput(Throughput::Bytes(PACKET as u64));
    for (name, profile) in
        [("AES-128-GCM", Profile::Aes128Gcm), ("AES-256-GCM", Profile::Aes256Gcm), ("AES-CM", Profile::Aes128CmSha1)]
    {
        let mut sender = stream(profile, Ssrc(9)).unwrap();
        let mut room = vec![0; PACKET - HEADER + FIXED_HEADER + sender.overhead()];
        let mut index = 0;
        let mut seal = move || {
            index += 1;
            let seq = SeqNo(index).low16();
            let fields = HeaderFields { marker: false, payload_type: 102, seq, timestamp: 0, ssrc: Ssrc(9) };
            write_header(&mut room, fields, &[]).unwrap();
            sender.seal(SeqNo(index), &mut room, FIXED_HEADER).unwrap();
            room.clone()
        };
        group.bench_function(format!("seal, {name}"), |b| b.iter(&mut seal));
        // What one side sealed, the other opens; each packet once.
        let mut receiver = Srtp::from_dtls(profile, &[7; 128], true).unwrap().receive;
        group.bench_function(format!("open, {name}"), |b| {
            b.iter_batched(&mut seal, |mut p| receiver.open(&mut p).unwrap(), BatchSize::NumIterations(UNIT));
        });
    }
    group.finish();
}

/// Redundancy over a frame of 744 packets, an eighth of a second at 50 Mbit/s, at 20 %.
fn redundancy(c: &mut Criterion) {
    let mut maker = Maker::new(744);
    let frame: Vec<Vec<u8>> = (0..744).map(|n| maker.next(n, WallMicros(0)).to_vec()).collect();
    let mut group = c.benchmark_group("Reed-Solomon");
    group.throughput(Throughput::Elements(744));
    let mut encoder = BlockEncoder::new(Ssrc(77), 127, 0);
    encoder.set_plan(Plan { rtx: false, fec_percent: 20, interleave: 1 });
    group.bench_function("protect a frame", |b| {
        b.iter(|| {
            for (n, packet) in frame.iter().enumerate() {
                encoder.handle_packet(Micros(0), packet, n == 743);
            }
            std::iter::from_fn(|| encoder.poll_repair().map(<[u8]>::len)).count()
        });
    });
    group.finish();
}

criterion_group!(benches, header, road, srtp, redundancy);
criterion_main!(benches);
