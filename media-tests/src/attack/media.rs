//! Cases 31 to 38: RTP, RTCP, SRTP and codec headers, by peers that were let in.
#![allow(clippy::indexing_slicing, reason = "a play may stop the runner: that is how it fails")]

use super::Played;
use super::arena::Arena;
use super::beside::FEED;
use super::ice::{admitted, gets_media, watching};
use super::peer::{Draft, Peer};
use anyhow::ensure;
use std::time::Duration;
use tokio::net::UdpSocket;
use trocar_proto::media::rtcp::Builder;
use trocar_proto::units::Ssrc;

/// Extension ids of a publisher's offer: MID, transport-wide number, capture time, dependency descriptor.
const IDS: [u8; 4] = [1, 3, 4, 6];
/// A pause after so many packets: the flood is to be fast, not to overrun this end's own socket.
const BATCH: u32 = 100;

async fn breathe(n: u32) {
    if n.is_multiple_of(BATCH) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A publisher of that codec, connected, with the address of its resource.
async fn publishing(a: &Arena, codec: &str, query: &str) -> anyhow::Result<(Peer, String)> {
    let draft = Draft::publisher(codec).await?;
    let (code, location, answer) = a.offer(&format!("whip?{query}"), &a.tokens.local, draft.sdp.clone()).await?;
    ensure!(code == 201, "{codec}: {code} {answer}");
    let mut peer = draft.answered(&answer)?;
    peer.connect().await?;
    Ok((peer, location))
}

/// An RTP packet without extensions.
fn packet(seq: u16, timestamp: u32, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, 96];
    out.extend(seq.to_be_bytes());
    out.extend(timestamp.to_be_bytes());
    out.extend(ssrc.to_be_bytes());
    out.extend(payload);
    out
}

/// A slice of an H.264 picture in one packet.
const SLICE: &[u8] = &[0x65, 0x88, 0x84, 0x00, 0x10, 0xff, 0xfe, 0xf6];

pub(super) fn bi_31_srtp_flood(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (mut peer, location) = watching(a).await?;
        let refused = "trocar_worker_refused_srtp_total";
        let before = a.metric(refused).await?;
        for n in 0..10_000_u32 {
            let mut bytes = packet(n as u16, n, 0x1234, &[n as u8; 200]);
            if n % 3 == 0 {
                bytes[1] = 200;
            }
            peer.throw(&bytes).await?;
            breathe(n).await;
        }
        let counted = a.rises(refused, before, 9_000.0).await?;
        gets_media(&mut peer, "after").await?;
        a.hang_up(&location, &a.tokens.observer).await?;
        Ok(format!("{counted:.0} of 10,000 refused and counted, and the session goes on"))
    })
}

pub(super) fn bi_32_plain_rtp(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (mut peer, location) = publishing(a, "H264", "feed=plain").await?;
        let mut stream = peer.claim(7)?;
        for n in 0..100_u16 {
            peer.send(&mut stream, n.into(), &packet(n, 90 * u32::from(n), 7, SLICE), 12).await?;
        }
        let honest = settled(a, "plain").await?;
        let elsewhere = UdpSocket::bind("127.0.0.1:0").await?;
        let refused = a.metric("trocar_worker_refused_srtp_total").await?;
        let unknown = a.metric("trocar_worker_unknown_source_datagrams_total").await?;
        let of_feed = honest;
        let report = Builder::default().receiver_report(Ssrc(7), None).bye(&[Ssrc(7)]).finish();
        for n in 100..1_100_u16 {
            // As it is, and what was sealed for another five-tuple.
            let bytes = packet(n, 90 * u32::from(n), 7, SLICE);
            peer.throw(&bytes).await?;
            elsewhere.send_to(&bytes, peer.remote).await?;
            elsewhere.send_to(&report, peer.remote).await?;
            peer.throw(&report).await?;
            breathe(n.into()).await;
        }
        a.rises("trocar_worker_refused_srtp_total", refused, 1_800.0).await?;
        a.rises("trocar_worker_unknown_source_datagrams_total", unknown, 1_800.0).await?;
        let after = feed_packets(a, "plain").await?;
        ensure!((after - of_feed).abs() < 1.0, "{} of them got into the feed", after - of_feed);
        for n in 100..120_u16 {
            peer.send(&mut stream, n.into(), &packet(n, 90 * u32::from(n), 7, SLICE), 12).await?;
        }
        let until = std::time::Instant::now() + Duration::from_secs(3);
        while feed_packets(a, "plain").await? < after + 20.0 {
            ensure!(std::time::Instant::now() < until, "the publisher was put off");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        a.hang_up(&location, &a.tokens.local).await?;
        Ok(format!(
            "2,000 from the own and 2,000 from another address: none in the feed, which goes on after its {honest:.0}"
        ))
    })
}

/// Packets that one feed took, once that stands still: figures are taken twice a second.
async fn settled(a: &Arena, feed: &str) -> anyhow::Result<f64> {
    let until = std::time::Instant::now() + Duration::from_secs(5);
    let mut before = 0.0;
    loop {
        tokio::time::sleep(Duration::from_millis(600)).await;
        let now = feed_packets(a, feed).await?;
        if now > 0.0 && (now - before).abs() < 0.5 {
            return Ok(now);
        }
        ensure!(std::time::Instant::now() < until, "{feed} took {now} packets");
        before = now;
    }
}

/// Packets that one feed took.
async fn feed_packets(a: &Arena, feed: &str) -> anyhow::Result<f64> {
    labelled(a, "trocar_feed_packets_total", feed).await
}

/// A figure of one feed; 0 where it is not there yet.
async fn labelled(a: &Arena, name: &str, feed: &str) -> anyhow::Result<f64> {
    let text = a.http.get(a.stack.text("/metrics")?).send().await?.text().await?;
    let label = format!("feed=\"{feed}\"");
    let line = text.lines().find(|l| l.starts_with(name) && l.contains(&label));
    Ok(line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0))
}

pub(super) fn bi_33_replay(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (mut peer, location) = publishing(a, "H264", "feed=replay").await?;
        let mut stream = peer.claim(9)?;
        let mut sealed = Vec::new();
        for n in 0..50_u16 {
            sealed = peer.send(&mut stream, n.into(), &packet(n, 90 * u32::from(n), 9, SLICE), 12).await?;
        }
        let honest = settled(a, "replay").await?;
        let refused = "trocar_worker_refused_srtp_total";
        let before = a.metric(refused).await?;
        for n in 0..1_000 {
            peer.throw(&sealed).await?;
            breathe(n).await;
        }
        for len in 1..=12_usize {
            for first in [0x80_u8, 0x90, 0xb0, 0x81, 0xbf] {
                let mut bytes = vec![first; len];
                if let Some(b) = bytes.get_mut(1) {
                    *b = 200;
                }
                peer.throw(&bytes).await?;
                peer.throw(&vec![first; len]).await?;
            }
        }
        // A jump of the roll-over counter by half of all there are: sealed well, under an index that the other end does not guess.
        let far = peer.send(&mut stream, (1_u64 << 31 << 16) + 60, &packet(60, 1, 9, SLICE), 12).await?;
        ensure!(far.len() > 12, "nothing was sealed");
        let counted = a.rises(refused, before, 1_000.0).await?;
        let now = settled(a, "replay").await?;
        ensure!((now - honest).abs() < 1.0, "the feed has {now} packets of {honest}");
        a.hang_up(&location, &a.tokens.local).await?;
        Ok(format!("{counted:.0} repeats, stumps and jumps refused; the feed has its {now:.0} of 50"))
    })
}

pub(super) fn bi_34_ssrc_flood(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (mut peer, location) = publishing(a, "H264", "feed=sources").await?;
        let refused = "trocar_worker_refused_srtp_total";
        let before = a.metric(refused).await?;
        for n in 0..10_000_u32 {
            let mut stream = peer.claim(0x1_0000 + n)?;
            let mid = [0xbe, 0xde, 0, 2, 0x16, b'a' + (n % 26) as u8, (n >> 8) as u8 | 1, 1, 1, 1, 1, 1];
            let mut bytes = packet(1, n, 0x1_0000 + n, &[&mid, SLICE].concat());
            bytes[0] |= 0x10;
            peer.send(&mut stream, 1, &bytes, 24).await?;
            breathe(n).await;
        }
        let refused = a.rises(refused, before, 9_000.0).await?;
        let took = feed_packets(a, "sources").await?;
        ensure!(took <= 32.0, "{took} sources got into the feed");
        a.hang_up(&location, &a.tokens.local).await?;
        Ok(format!("of 10,000 sources {took:.0} got anywhere, {refused:.0} were refused"))
    })
}

pub(super) fn bi_35_header_extensions(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (mut peer, location) = publishing(a, "H264", "feed=extensions").await?;
        let mut stream = peer.claim(11)?;
        let mut index = 0_u64;
        let mut shapes: Vec<Vec<u8>> = vec![
            vec![0xbe, 0xde, 0xff, 0xff],
            vec![0xbe, 0xde, 0, 1, 0xff, 0xff, 0xff, 0xff],
            vec![0xbe, 0xde, 0, 1, 0xf0, 0, 0, 0],
            vec![0xbe, 0xde, 0, 1, 0x0f, 1, 2, 3],
            vec![0x10, 0x00, 0, 1, 1, 0xff, 0, 0],
            vec![0x10, 0x0f, 0, 2, 0, 0, 1, 0, 6, 250, 0, 0],
            vec![0, 0, 0, 0],
            vec![0xab, 0xcd, 0, 64],
        ];
        // Every id there is, each with nothing in it.
        let all: Vec<u8> = (0..=255_u8).flat_map(|id| [id, 0]).collect();
        shapes.push([&[0x10, 0, 0, 128], all.as_slice()].concat());
        for id in IDS {
            for len in 0..16_u8 {
                let element = [&[id << 4 | len], vec![0xff; usize::from(len) + 1].as_slice()].concat();
                let words = element.len().div_ceil(4);
                let mut shape = vec![0xbe, 0xde, 0, words as u8];
                shape.extend(&element);
                shape.resize(4 + 4 * words, 0);
                shapes.push(shape);
            }
        }
        for round in 0..8_u8 {
            for shape in &shapes {
                index += 1;
                let payload = [shape.as_slice(), SLICE].concat();
                let mut bytes = packet(index as u16, index as u32, 11, &payload);
                bytes[0] |= 0x10 | (round & 1) << 5 | round & 0x0e;
                if let Some(last) = bytes.last_mut() {
                    *last = [0, 0xff, 200, 4][usize::from(round / 2) % 4];
                }
                // What stays readable is as long as this end says; the other end finds out for itself.
                peer.send(&mut stream, index, &bytes, 12).await?;
                let declared = shape.get(2..4).map_or(0, |b| usize::from(b[0]) << 8 | usize::from(b[1]));
                let header = 16 + 4 * declared;
                if header <= bytes.len() {
                    index += 1;
                    bytes[2..4].copy_from_slice(&(index as u16).to_be_bytes());
                    peer.send(&mut stream, index, &bytes, header).await?;
                }
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        goes_on(a, "extensions", &peer, &mut stream, 11, index).await?;
        a.hang_up(&location, &a.tokens.local).await?;
        Ok(format!("{index} packets with {} kinds of extensions and paddings: the feed goes on", shapes.len()))
    })
}

/// An honest picture after everything: its packets get into the feed.
async fn goes_on(
    a: &Arena,
    feed: &str,
    peer: &Peer,
    stream: &mut trocar_relay::srtp::SendStream,
    ssrc: u32,
    index: u64,
) -> anyhow::Result<()> {
    let before = feed_packets(a, feed).await?;
    for n in index + 1..index + 31 {
        let mut bytes = packet(n as u16, 3_000 * n as u32, ssrc, SLICE);
        bytes[1] |= 0x80;
        peer.send(stream, n, &bytes, 12).await?;
    }
    let until = std::time::Instant::now() + Duration::from_secs(3);
    while feed_packets(a, feed).await? < before + 20.0 {
        ensure!(std::time::Instant::now() < until, "honest packets are not taken any more");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

pub(super) fn bi_36_rtcp(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (mut peer, location) = watching(a).await?;
        let mut ssrc = None;
        while ssrc.is_none() {
            peer.step(true, |p| ssrc = p.get(8..12).map(|b| Ssrc(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))))
                .await?;
        }
        let media = ssrc.unwrap_or(Ssrc(0));
        let asked = labelled(a, "trocar_feed_key_frame_requests_total", FEED).await?;
        let began = std::time::Instant::now();
        for n in 0..5_000_u32 {
            let request = if n % 2 == 0 {
                Builder::default().receiver_report(Ssrc(1), None).pli(Ssrc(1), media).finish()
            } else {
                Builder::default().receiver_report(Ssrc(1), None).fir(Ssrc(1), media, n as u8).finish()
            };
            peer.send_rtcp(request).await?;
            breathe(n).await;
        }
        // What no builder makes: 65,535 packets asked for, and lengths that lie.
        let mut nack = vec![0x81, 205, 0, 0];
        nack.extend(Ssrc(1).0.to_be_bytes());
        nack.extend(media.0.to_be_bytes());
        for pid in (0..=65_535_u32).step_by(17).take(300) {
            nack.extend([(pid >> 8) as u8, pid as u8, 0xff, 0xff]);
        }
        let words = (nack.len() / 4 - 1) as u16;
        nack[2..4].copy_from_slice(&words.to_be_bytes());
        let head = |kind: u8, count: u8, words: u16, body: &[u8]| {
            [&[0x80 | count, kind], words.to_be_bytes().as_slice(), &[0, 0, 0, 1], body].concat()
        };
        let own = media.0.to_be_bytes();
        let broken = [
            nack,
            head(202, 31, 1, &[]),
            head(202, 1, 9, &[1, 255, b'x']),
            head(207, 0, 200, &[4, 0, 0, 9]),
            head(206, 15, 4, &[&own[..], b"REMB", &[255, 255, 255, 255]].concat()),
            head(205, 15, 5, &[&own[..], &[0, 0, 255, 255, 255, 255, 255, 0, 0xff, 0xff, 0xff, 0xff]].concat()),
            head(205, 15, 4, &[&own[..], &[0, 0, 0, 1, 0, 0, 0, 0]].concat()),
            head(201, 31, 65_535, &[0; 20]),
            head(200, 0, 6, &[0xff; 20]),
            head(203, 31, 1, &[]),
            head(0, 0, 0, &[]),
        ];
        for n in 0..300_u32 {
            for bytes in &broken {
                peer.send_rtcp(bytes.clone()).await?;
            }
            if n.is_multiple_of(10) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let requests = labelled(a, "trocar_feed_key_frame_requests_total", FEED).await? - asked;
        ensure!(requests <= 2.0 * seconds + 2.0, "{requests} key frames were asked for in {seconds:.1} s");
        gets_media(&mut peer, "after").await?;
        a.hang_up(&location, &a.tokens.observer).await?;
        Ok(format!(
            "5,000 PLI and FIR: {requests:.0} requests upstream in {seconds:.1} s; 3,300 broken ones: media goes on"
        ))
    })
}

pub(super) fn bi_37_codec_headers(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let heads: [(&str, &[&[u8]]); 4] = [
            (
                "H264",
                &[
                    &[24, 0, 0],
                    &[24, 255, 255, 1],
                    &[24, 0, 1],
                    &[28],
                    &[28, 0x80],
                    &[28, 0xc0, 1],
                    &[29, 0x40],
                    &[25, 0],
                    &[0x67],
                    &[0x67, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                    &[0x67, 66, 0, 31, 0, 0, 0, 0, 0, 0, 0],
                    &[31],
                ],
            ),
            (
                "AV1",
                &[
                    &[0x08],
                    &[0x18, 0x80, 0x80, 0x80, 0x80, 0x80],
                    &[0x10, 0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
                    &[0xff],
                    &[0x20, 0xff, 1],
                ],
            ),
            (
                "VP9",
                &[
                    &[0x8f, 0xff],
                    &[0x0a, 0xff, 0xff],
                    &[0x9b, 0x80, 0x80],
                    &[0x0a, 0x18, 0xff],
                    &[0xff; 3],
                    &[0x02, 0xf8, 0, 0],
                ],
            ),
            (
                "H265",
                &[
                    &[0x64, 1],
                    &[0x64, 1, 0xff, 0xff],
                    &[0x60, 1, 0, 0],
                    &[0x62, 1, 0xc0],
                    &[0x42, 1, 0xff],
                    &[0x62],
                    &[0x44, 1],
                ],
            ),
        ];
        let mut seen = Vec::new();
        for (codec, heads) in heads {
            let feed = format!("codec-{}", codec.to_lowercase());
            let Ok((mut peer, location)) = publishing(a, codec, &format!("feed={feed}")).await else {
                seen.push(format!("{codec} not offered this way"));
                continue;
            };
            let mut stream = peer.claim(13)?;
            let mut index = 0_u64;
            for round in 0..20_u32 {
                for head in heads {
                    for len in [head.len(), head.len() + 1, 100, 1_180] {
                        index += 1;
                        let mut payload = head.to_vec();
                        payload.resize(len.max(head.len()), (round * 37) as u8);
                        // The clock wraps, and runs back.
                        let timestamp = u32::MAX.wrapping_add(round.wrapping_mul(0x7000_0000));
                        peer.send(&mut stream, index, &packet(index as u16, timestamp, 13, &payload), 12).await?;
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            index += 1;
            peer.send(&mut stream, index, &packet(index as u16, 0, 13, &[]), 12).await?;
            a.hang_up(&location, &a.tokens.local).await?;
            seen.push(format!("{codec} {index}"));
        }
        ensure!(seen.iter().filter(|s| !s.contains("not")).count() >= 2, "{}", seen.join(", "));
        let (_, location) = admitted(a).await?;
        a.hang_up(&location, &a.tokens.observer).await?;
        Ok(format!("packets with broken heads: {}", seen.join(", ")))
    })
}

pub(super) fn bi_38_above_the_grant(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (mut peer, location) = publishing(a, "H264", "feed=greedy&max_bitrate=1000000").await?;
        let mut stream = peer.claim(15)?;
        let mut index = 0_u64;
        // 10 Mbit/s for two seconds: 30 frames a second of 35 packets, every frame a key frame.
        for frame in 0..60_u32 {
            for n in 0..35_u8 {
                index += 1;
                let unit = [0x7c, u8::from(n == 0) << 7 | u8::from(n == 34) << 6 | 5];
                let mut bytes = packet(index as u16, 3_000 * frame, 15, &[&unit, [n | 1; 1_150].as_slice()].concat());
                bytes[1] |= u8::from(n == 34) << 7;
                peer.send(&mut stream, index, &bytes, 12).await?;
            }
            tokio::time::sleep(Duration::from_millis(31)).await;
        }
        let until = std::time::Instant::now() + Duration::from_secs(2);
        let mut policed = 0.0;
        while policed < index as f64 * 0.6 {
            ensure!(std::time::Instant::now() < until, "{policed} of {index} packets were policed");
            tokio::time::sleep(Duration::from_millis(100)).await;
            policed = labelled(a, "trocar_feed_policed_packets_total", "greedy").await?;
        }
        a.hang_up(&location, &a.tokens.local).await?;
        Ok(format!("{policed:.0} of {index} packets at ten times the grant were dropped, whole frames"))
    })
}
