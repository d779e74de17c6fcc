//! A publisher's side: what went out is kept for a round trip and the feed's budget, and goes again where the relay asks.

use super::{micros, round_trip};
use bytes::Bytes;
use std::time::Instant;
use trocar_proto::media::fec::repeats::History;
use trocar_proto::media::fec::send::{FecStream, RepairSender};
use trocar_proto::media::roq::FlowPrefix;
use trocar_proto::media::rtp::Header;
use trocar_proto::session::feed::FeedDescriptor;
use trocar_proto::units::Ssrc;
use trocar_relay::frames::datagram;

/// Room in QUIC's send buffer that a repeat leaves free: a full one would push out what waits.
const ROOM: usize = 64 << 10;

/// Keeps and repeats the packets of one feed that goes by datagrams.
pub(crate) struct Repeater {
    repair: RepairSender,
    /// Datagrams as they went, with their flow id.
    kept: History<Bytes>,
    source: Option<Ssrc>,
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
            prefix,
            origin: Instant::now(),
        }
    }

    /// A packet went, behind its flow id; `ends`: it is the last of its frame.
    pub(crate) fn note(&mut self, datagram: &Bytes, ends: bool) {
        let now = micros(self.origin);
        let packet = datagram.get(self.prefix.as_bytes().len()..).unwrap_or(&[]);
        let Ok(h) = Header::parse(packet) else { return };
        if self.source.replace(h.ssrc).is_some_and(|before| before != h.ssrc) {
            self.kept.clear();
        }
        self.kept.push(now, h.seq, datagram.clone());
        self.repair.handle_sent(now, packet, ends);
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
