//! A native viewer's side: what its leg lost is asked for, or restored where redundancy comes.

use super::{micros, round_trip};
use std::time::Instant;
use trocar_proto::media::fec::policy::Line;
use trocar_proto::media::fec::receive::{RepairConfig, RepairCounters, RepairReceiver, Verdict};
use trocar_proto::media::fec::repeats::History;
use trocar_proto::media::rtp::Header;
use trocar_proto::session::feed::{FeedDescriptor, RoqMode};
use trocar_proto::units::{Micros, Ssrc};

/// RTCP packets in a turn at most; what is left is asked for in the next.
const MAX_DUE: usize = 64;
/// How much later a second path may bring a packet than the first, in microseconds: so long it is not asked for.
const SKEW_US: u64 = 50_000;

/// Repairs one leg.
pub(crate) struct ViewerRepair {
    repair: RepairReceiver,
    /// What came, for redundancy; none where the feed has none.
    kept: Option<History<Vec<u8>>>,
    budget_us: u64,
    origin: Instant,
}

impl ViewerRepair {
    /// For a leg of a feed of that descriptor; none where its frames come by streams, which QUIC repeats.
    pub(crate) fn new(d: &FeedDescriptor, mode: RoqMode, paths: u8) -> Option<Self> {
        let budget_us = u64::from(d.budget_ms) * 1_000;
        let fec_payload_type = d.fec.map(|f| f.payload_type);
        let mut repair = RepairReceiver::new(RepairConfig { budget_us, rate: d.max_bitrate, fec_payload_type });
        repair.set_patience(if paths > 1 || d.protected { SKEW_US } else { 0 });
        let kept = d.fec.map(|_| History::new(d.max_bitrate, budget_us));
        (mode == RoqMode::Datagram).then(|| Self { repair, kept, budget_us, origin: Instant::now() })
    }

    /// Whether it is a repair packet, and no packet of the feed: then it was taken.
    pub(crate) fn take_redundancy(&mut self, packet: &[u8], out: impl FnMut(&[u8])) -> bool {
        let Some(h) = Header::parse(packet).ok().filter(|h| self.repair.is_repair(h)) else { return false };
        let now = self.now();
        let Self { repair, kept, .. } = self;
        if repair.handle_packet(now, &h) == Verdict::Repair {
            repair.handle_repair(now, packet, |s| kept.as_ref()?.get(s).map(|(_, p)| p.as_slice()));
        }
        self.restore(now, out);
        true
    }

    /// A packet of the feed came. Gives to `out` what goes on: itself, and what it helped to bring back.
    pub(crate) fn handle_packet(&mut self, packet: &[u8], mut out: impl FnMut(&[u8])) {
        let now = self.now();
        let Ok(h) = Header::parse(packet) else { return out(packet) };
        let newest = self.repair.is_newest(h.seq);
        if self.repair.handle_packet(now, &h) == Verdict::Late {
            return;
        }
        out(packet);
        let Self { repair, kept: Some(kept), .. } = self else { return };
        kept.push(now, h.seq, packet.to_vec());
        if !newest {
            repair.handle_stored(h.seq, |s| kept.get(s).map(|(_, p)| p.as_slice()));
            self.restore(now, out);
        }
    }

    fn restore(&mut self, now: Micros, mut out: impl FnMut(&[u8])) {
        // At most what one packet brings back.
        while let Some(packet) = self.repair.poll_restored(now) {
            out(&packet);
            if let (Some(kept), Ok(h)) = (&mut self.kept, Header::parse(&packet)) {
                kept.push(now, h.seq, packet);
            }
        }
    }

    /// Gives to `send` what the relay is to be told now.
    pub(crate) fn poll(&mut self, connection: Option<&quinn::Connection>, from: Ssrc, mut send: impl FnMut(&[u8])) {
        let now = self.now();
        if let Some(connection) = connection {
            let (round_trip_us, variation_us) = round_trip(connection);
            self.repair.set_round_trip(round_trip_us, variation_us);
        }
        for _ in 0..MAX_DUE {
            let Some(due) = self.repair.poll_rtcp(now, from) else { return };
            (0..due.copies).for_each(|_| send(&due.rtcp));
        }
    }

    /// How long a frame is waited for from its first packet on, in microseconds.
    pub(crate) fn patience_us(&self, connection: Option<&quinn::Connection>) -> u64 {
        Line::repair_time(self.budget_us, connection.map_or(0, |c| round_trip(c).0))
    }

    /// Whether something is missing: then [`Self::poll`] is due every millisecond or two.
    pub(crate) fn is_waiting(&self) -> bool {
        self.repair.next_wakeup(self.now()).is_some()
    }

    fn now(&self) -> Micros {
        micros(self.origin)
    }

    /// Counters.
    pub(crate) fn counters(&self) -> RepairCounters {
        self.repair.counters()
    }
}
