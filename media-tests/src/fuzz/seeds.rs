//! What the corpora begin with: one good input of each kind, from which mutations find their way.

use crate::bench::packet::Maker;
use anyhow::Context as _;
use serde_json::json;
use std::path::Path;
use trocar_proto::media::fec::xr;
use trocar_proto::media::roq::{FlowPrefix, put_on_stream};
use trocar_proto::media::rtcp::{Builder, ReportBlock, SenderReport};
use trocar_proto::media::twcc::Recorder;
use trocar_proto::units::{Bitrate, FlowId, Micros, Ssrc, WallMicros};

type Seeds = Vec<(&'static str, Vec<u8>)>;

/// All of them; `offers` holds offers of real clients.
pub(super) fn all(offers: &Path) -> anyhow::Result<Seeds> {
    let mut all = Vec::new();
    packets(&mut all);
    reports(&mut all);
    headers(&mut all);
    streams(&mut all);
    texts(&mut all);
    for entry in std::fs::read_dir(offers).with_context(|| offers.display().to_string())? {
        all.push(("sdp", std::fs::read(entry?.path())?));
    }
    Ok(all)
}

fn packets(all: &mut Seeds) {
    let mut maker = Maker::new(3);
    for n in 0..4 {
        let packet = maker.next(n, WallMicros(1_790_000_000_000_000));
        all.push(("rtp", packet.get(..120).unwrap_or(&[]).to_vec()));
    }
    let fixed = [0x80, 96, 0, 1, 0, 0, 0, 9, 0, 0, 0, 7];
    let with = |first: u8, more: &[u8]| {
        let mut packet = [fixed.as_slice(), more].concat();
        if let Some(b) = packet.first_mut() {
            *b |= first;
        }
        packet
    };
    for (first, more) in [
        (0, &[][..]),
        (0, &[1, 2, 3]),
        (0x20, &[9, 9, 9, 2]),
        (0x03, &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 5]),
        (0x10, &[0xbe, 0xde, 0, 1, 0x12, 1, 2, 3, 4]),
        (0x10, &[0x10, 0, 0, 2, 1, 2, 9, 9, 3, 1, 8, 0, 4]),
        (0x10, &[0xbe, 0xde, 0, 0]),
        (0x30, &[0xbe, 0xde, 0, 1, 0xf0, 0, 0, 0, 7, 1]),
    ] {
        all.push(("rtp", with(first, more)));
    }
    let elements: [&[u8]; 9] = [
        &[3, 0x80, 0, 1],
        &[3, 0x40, 0xff, 0xff],
        &[8, 0, 0, 0, 1, 0, 0, 0, 2],
        &[16, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9],
        &[4, 1, 2, 3, 4],
        // A dependency descriptor with its structure, as libwebrtc sends it for three temporal layers.
        &[
            21, 0x80, 0, 1, 0x80, 0, 0x1c, 0x50, 0x07, 0x68, 0x90, 0x58, 0x14, 0x81, 0x24, 0x4a, 0x24, 0x92, 0x80, 0,
            0, 0,
        ],
        &[3, 0xc4, 0, 2],
        &[255],
        &[1, 0, 1, 0, 1, 0],
    ];
    all.extend(elements.map(|e| ("extensions", e.to_vec())));
    let mut story = Vec::new();
    for frame in 0..6_u8 {
        for n in 0..3_u8 {
            let flags = [
                u8::from(n == 2) << 7,
                frame * 3 + n,
                frame,
                0,
                u8::from(n == 0) << 7 | u8::from(n == 2) << 6 | 0x20,
                0,
                frame,
            ];
            story.extend([0, 12]);
            story.extend(flags);
            story.extend([0x65; 5]);
        }
        story.extend([7, 6, 4, 16]);
    }
    all.push(("relay", story.clone()));
    for turn in [4_u8, 5, 6, 7] {
        all.push(("relay", story.chunks(20).flat_map(|c| [c, &[turn, c.len() as u8]].concat()).collect()));
        all.push(("relay", vec![turn; 40]));
    }
    all.push(("relay", story.iter().rev().copied().collect()));
}

fn reports(all: &mut Seeds) {
    let (one, two) = (Ssrc(1), Ssrc(2));
    let block = ReportBlock {
        ssrc: two,
        fraction_lost: 3,
        cumulative_lost: 4,
        highest_seq: 70_000,
        jitter: 5,
        last_sr: 6,
        delay_since_sr: 7,
    };
    let sender = SenderReport { ssrc: one, ntp: 1 << 40, rtp_time: 9, packets: 1, octets: 100 };
    let head = || Builder::default().receiver_report(one, Some(&block));
    let mut recorder = Recorder::default();
    for n in [1_u16, 2, 3, 5, 8, 13, 100, 101] {
        recorder.handle_packet(Micros(u64::from(n) * 1_500), n);
    }
    let feedback = recorder.poll(Micros(10_000_000));
    let mut compounds = vec![
        Builder::default().sender_report(&sender).cname(one, "seed").finish(),
        head().finish(),
        head().pli(one, two).finish(),
        head().fir(one, two, 3).finish(),
        head().nack(one, two, &[1, 2, 3, 17, 18, 400]).finish(),
        head().remb(one, Bitrate(5_000_000), &[one, two]).finish(),
        head().bye(&[one, two]).finish(),
        vec![0x80, 201, 0, 1, 0, 0, 0, 1, 0x80, 207, 0, 4, 0, 0, 0, 1, 1, 0, 0, 2, 0, 0, 0, 1, 0, 10, 0, 20],
    ];
    if let Some(feedback) = &feedback {
        compounds.push(head().transport_feedback(one, two, feedback).finish());
        compounds.push(feedback.to_bytes());
    }
    assert_eq!(xr::runs(&[]).count(), 0, "nothing has no runs");
    all.extend(compounds.into_iter().map(|c| ("rtcp", c)));
}

fn headers(all: &mut Seeds) {
    let payloads: [(u8, &[&[u8]]); 6] = [
        (
            0,
            &[
                &[0x67, 0x42, 0xc0, 0x1f, 0xda, 1, 0x40, 0x16, 0xe8],
                &[0x65, 0x88, 0x84],
                &[24, 0, 2, 0x67, 1, 0, 2, 0x68, 1],
                &[0x7c, 0x85, 1],
                &[0x7c, 0x45, 1],
            ],
        ),
        (
            1,
            &[
                &[0x40, 1, 0x0c],
                &[0x26, 1, 0xaf],
                &[0x62, 1, 0x93, 1],
                &[0x60, 1, 0, 2, 0x40, 1, 0, 2, 0x42, 1],
                &[0x64, 1, 0, 0x26, 1],
            ],
        ),
        (2, &[&[0x18, 0x0a, 11, 0, 0, 0, 0x24, 0xf8], &[0x10, 0x32, 1, 0x10], &[0x50, 0x30], &[0x80, 0x30]]),
        (3, &[&[0x10, 0x9d, 1, 0x2a, 0x40, 1, 0xf0, 0], &[0x90, 0x80, 1, 0x11], &[0xff, 0xff, 0x81, 0, 0, 0, 0]]),
        (4, &[&[0x0a, 0x01, 0x18, 2, 0x80, 1, 0x68], &[0x8c, 0x80, 1, 0x20, 0], &[0x9c, 1, 2, 0x18, 0]]),
        (5, &[&[0xfc, 0xff, 0xfe], &[0x78, 1, 2, 3]]),
    ];
    for (kind, list) in payloads {
        let mut stream = vec![kind];
        for payload in list {
            let one = [&[0x09, 0x80, payload.len() as u8], *payload].concat();
            all.push(("headers", [&[kind], one.as_slice()].concat()));
            stream.extend(one);
        }
        all.push(("headers", stream));
    }
}

fn streams(all: &mut Seeds) {
    for flow in [0, 63, 64, 16_383, 16_384, 1 << 40, (1 << 62) - 1] {
        let Some(prefix) = FlowPrefix::new(FlowId(flow)) else { continue };
        all.push(("roq", [prefix.as_bytes(), &[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 5]].concat()));
        let mut stream = prefix.as_bytes().to_vec();
        for n in 0..4_u8 {
            put_on_stream(&mut stream, &vec![n; 20 + usize::from(n) * 30]);
        }
        all.push(("roq", stream));
    }
}

fn texts(all: &mut Seeds) {
    let ids = json!({ "urn:x": 1 });
    let descriptor = json!({
        "feed": "scope", "source": "scope", "view": "overview", "kind": "video", "purpose": "scope", "codec": "H264", "fmtp": "a=1",
        "clock_rate": 90_000, "payload_type": 96, "width": 1, "height": 1, "fps": 60.0, "max_bitrate": 1_000, "budget_ms": 100,
        "header_extensions": ids, "transport": { "roq": { "mode": "datagram" } },
    });
    for value in [
        json!({ "invitation": "secret", "name": "Dr. X", "organisation": "Y", "cnf": "00".repeat(32) }),
        json!({ "role": "observer", "ttl_s": 60 }),
        json!({ "mode": "stream", "paths": 2 }),
        descriptor,
        json!({ "type": "hello", "token": "a.b.c" }),
        json!({ "type": "chat", "text": "hello \u{202e}" }),
        json!({ "type": "clock", "t0": 1 }),
        json!({ "type": "clock_report", "offset_us": -5, "uncertainty_us": 10 }),
        json!({ "type": "control_request", "set": "instruments", "reason": "x" }),
        json!([[[[{}]]]]),
    ] {
        all.push(("json", value.to_string().into_bytes()));
    }
    let claims = json!({
        "iss": "signaling.local", "aud": ["signaling.local", "trocar-gate"], "sub": "pabc", "jti": "x", "iat": 1_790_000_000_u64,
        "nbf": 1_790_000_000_u64, "exp": 1_790_000_300_u64, "realm": "local", "session": "s", "role": "observer",
        "grade": "none", "verbs": ["view"], "cnf": { "x5t#S256": "A".repeat(43) },
    });
    let text = claims.to_string();
    for claims in [
        text.clone(),
        text.replace("1790000300", "\"1790000300\""),
        text.replace("1790000300", "1e308"),
        text.replace("1790000300", "-1"),
        text.replace("\"cnf\"", "\"cnf\":null,\"x\""),
        text.replace("[\"view\"]", "null"),
        "eyJhbGciOiJub25lIn0.e30.".to_owned(),
        "eyJhbGciOiJFZERTQSIsImtpZCI6Ii4uLy4uL3gifQ.e30.AAAA".to_owned(),
        "..".to_owned(),
    ] {
        all.push(("token", claims.into_bytes()));
    }
    all.push(("sdp", b"a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\na=end-of-candidates\r\n".to_vec()));
    all.push(("sdp", crate::sink::some_offer().into_bytes()));
}
