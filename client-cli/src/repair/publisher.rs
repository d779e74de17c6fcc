//! A publisher's side: what went out is kept for a round trip and the feed's budget, and goes again where the relay asks.

use super::{micros, round_trip};
use bytes::Bytes;
use std::time::Instant;
use trocar_proto::media::fec::repeats::History;
use trocar_proto::media::fec::send::{FecStream, RepairSender};
use trocar_proto::media::roq::FlowPrefix;
use trocar_proto::media::rtp::Header;
use trocar_proto::session::feed::FeedDescriptor;
use trocar_proto::units::{Micros, Ssrc};
use trocar_relay::frames::datagram;

/// Room in QUIC's send buffer that a repeat leaves free: a full one would push out what waits.
const ROOM: usize = 64 << 10;

/// Keeps and repeats the packets of one feed that goes by datagrams.
pub(crate) struct Repeater {
    repair: RepairSender,
    /// Datagrams as they went, with their flow id.
    kept: History<Bytes>,
    source: Option<Ssrc>,
    /// When the frame before was over.
    ended: Option<Micros>,
    prefix: FlowPrefix,
    origin: Instant,
}

impl Repeater {
    /// For a feed of that descriptor on that flow.
    pub(crate) fn new(d: &FeedDescriptor, prefix: FlowPrefix) -> Self {
        let budget_us = u64::from(d.budget_ms) * 1_000;
        let mut random = [0; 6];
        // A failing system source leaves zeros, which are an SSRC and a number as well.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let [a, b, c, e, f, g] = random;
        let fec = d.fec.map(|offered| FecStream {
            ssrc: Ssrc(u32::from_be_bytes([a, b, c, e])),
            payload_type: offered.payload_type,
            first_seq: u16::from_be_bytes([f, g]),
        });
        Self {
            repair: RepairSender::new(d.max_bitrate, budget_us, fec),
            kept: History::new(d.max_bitrate, budget_us),
            source: None,
            ended: None,
            prefix,
            origin: Instant::now(),
        }
    }

    /// A packet went, behind its flow id; `ends`: it is the last of its frame.
    pub(crate) fn note(&mut self, datagram: &Bytes, ends: bool) {
        self.note_at(micros(self.origin), datagram, ends);
    }

    fn note_at(&mut self, now: Micros, datagram: &Bytes, ends: bool) {
        let packet = datagram.get(self.prefix.as_bytes().len()..).unwrap_or(&[]);
        let Ok(h) = Header::parse(packet) else { return };
        if self.source.replace(h.ssrc).is_some_and(|before| before != h.ssrc) {
            self.kept.clear();
        }
        self.kept.push(now, h.seq, datagram.clone());
        self.repair.handle_sent(now, packet, ends);
        if !ends {
            return;
        }
        // Redundancy of a small frame waits for another one. Where that comes too late, nobody calls before: it goes at once.
        let apart = self.ended.replace(now).map_or(u64::MAX, |before| now.since(before));
        if let Some(due) = self.repair.next_wakeup().filter(|due| *due <= now.plus(apart)) {
            self.repair.handle_timeout(due);
        }
    }

    /// The next repair packet, behind the flow id.
    pub(crate) fn poll_repair(&mut self) -> Option<Bytes> {
        let prefix = self.prefix;
        self.repair.poll_repair().map(|packet| datagram(prefix, packet))
    }

    /// RTCP of the relay that came by that connection: what is asked for goes again by it. Loss policy: what the connection has
    /// no room for is not sent.
    pub(crate) fn answer(&mut self, connection: &quinn::Connection, rtcp: &[u8]) {
        let now = micros(self.origin);
        let (round_trip_us, variation_us) = round_trip(connection);
        self.repair.set_round_trip(now, round_trip_us, variation_us);
        for seq in self.repair.handle_rtcp(now, rtcp) {
            let Some((sent, datagram)) = self.kept.get(seq) else {
                self.repair.count_gone();
                continue;
            };
            if connection.datagram_send_buffer_space() < ROOM {
                return;
            }
            for _ in 0..self.repair.admit(now, seq, sent, datagram.len()) {
                let _ = connection.send_datagram(datagram.clone());
            }
        }
    }

    /// Packets sent again, and repair packets.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let c = self.repair.counters();
        (c.repeats.repeated, c.fec.repairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::media::fec::xr::LossRecorder;
    use trocar_proto::media::rtp::{HeaderFields, write_header};
    use trocar_proto::units::FlowId;

    fn packet(seq: u16) -> Bytes {
        let fields = HeaderFields { marker: true, payload_type: 96, seq, timestamp: 5, ssrc: Ssrc(5) };
        let mut b = vec![0; 20];
        write_header(&mut b, fields, &[]).unwrap();
        datagram(FlowPrefix::new(FlowId(4)).unwrap(), &b)
    }

    /// A feed whose line is too long for questions; the relay has told that one of its first 1,000 packets in 50 is lost.
    fn repeater() -> Repeater {
        let d: FeedDescriptor = serde_json::from_value(serde_json::json!({
            "feed": "scope", "source": "scope", "view": "overview", "kind": "video", "purpose": "scope", "codec": "H264",
            "clock_rate": 90_000, "payload_type": 96, "max_bitrate": 4_000_000, "budget_ms": 200,
            "fec": { "scheme": "rs16", "payload_type": 127 },
            "transport": { "roq": { "mode": "datagram" } },
        }))
        .unwrap();
        let mut r = Repeater::new(&d, FlowPrefix::new(FlowId(4)).unwrap());
        r.repair.set_round_trip(Micros(0), 190_000, 1_000);
        let mut recorder = LossRecorder::default();
        for seq in 0..1_000 {
            r.note_at(Micros(0), &packet(seq), true);
            if seq % 50 != 7 {
                recorder.handle_packet(Ssrc(5), seq);
            }
        }
        r.repair.handle_rtcp(Micros(0), &recorder.poll_report(Ssrc(2)).unwrap()).for_each(drop);
        assert!(r.repair.plan().fec_percent > 0 && r.poll_repair().is_none());
        r
    }

    #[test]
    fn redundancy_of_a_small_frame_goes_with_it_where_the_next_one_comes_too_late_for_it() {
        let mut r = repeater();
        // Sixty pictures a second.
        for frame in 1..10_u16 {
            r.note_at(Micros(u64::from(frame) * 16_667), &packet(1_000 + frame), true);
            assert!(r.poll_repair().is_some(), "{frame}");
            while r.poll_repair().is_some() {}
        }
        // A thousand a second: four of them share theirs.
        let begin = 10 * 16_667;
        r.note_at(Micros(begin), &packet(1_010), true);
        while r.poll_repair().is_some() {}
        let with: Vec<u64> = (1..=8)
            .filter(|ms| {
                r.note_at(Micros(begin + ms * 1_000), &packet(1_010 + *ms as u16), true);
                let some = r.poll_repair().is_some();
                while r.poll_repair().is_some() {}
                some
            })
            .collect();
        assert_eq!(with, [4, 8]);
    }
}
