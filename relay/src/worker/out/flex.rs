//! FlexFEC of one WebRTC leg: how much, by what its viewer reports, and the encoder.

use crate::worker::peer::FecStream;
use trocar_proto::media::fec::flexfec::{Encoder, EncoderConfig};
use trocar_proto::media::fec::policy::{self, LossMeter, Plan};
use trocar_proto::units::{Micros, SeqNo, Ssrc};

/// Redundancy for a viewer that agreed to it. Nothing is sent while its line is clean, or repeats come in time.
#[derive(Debug)]
pub(in crate::worker) struct Flex {
    encoder: Encoder,
    meter: LossMeter,
    /// Packets sent at the last report.
    reported: u64,
    /// Losses by NACK since a while, and how many began a run.
    lost: u64,
    runs: u64,
    last: Option<u16>,
}

/// What a report is about.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Report {
    pub(in crate::worker) fraction_lost: u8,
    pub(in crate::worker) packets_sent: u64,
    pub(in crate::worker) round_trip_us: u64,
    pub(in crate::worker) budget_us: u64,
    pub(in crate::worker) frame_packets: u32,
}

impl Flex {
    /// For the media of that SSRC.
    pub(in crate::worker) fn new(media: Ssrc, fec: FecStream, transport_cc: Option<u8>, first_seq: u16) -> Self {
        let FecStream { ssrc, payload_type } = fec;
        let config = EncoderConfig { media, ssrc, payload_type, transport_cc, first_seq };
        Self { encoder: Encoder::new(config), meter: LossMeter::new(), reported: 0, lost: 0, runs: 0, last: None }
    }

    /// The viewer asked for that packet: losses in a row are seen by it.
    pub(super) fn note_lost(&mut self, seq: u16) {
        self.lost += 1;
        self.runs += u64::from(self.last.is_none_or(|last| seq != last.wrapping_add(1)));
        self.last = Some(seq);
    }

    /// The viewer's receiver report: the plan is made anew.
    pub(in crate::worker) fn note_report(&mut self, at: Micros, r: &Report) -> Plan {
        let packets = r.packets_sent.saturating_sub(self.reported);
        self.reported = r.packets_sent;
        self.meter.handle_report(at, r.fraction_lost, packets);
        let burst = if self.runs == 0 { 1.0 } else { self.lost as f64 / self.runs as f64 };
        // Old ones count half at each report.
        (self.lost, self.runs) = (self.lost / 2, self.runs / 2);
        let plan = Plan::of(&policy::Line {
            round_trip_us: r.round_trip_us,
            variation_us: r.round_trip_us / 8,
            repair_us: policy::Line::repair_time(r.budget_us, r.round_trip_us),
            loss: self.meter.loss(at),
            burst: burst.max(1.0),
            frame_packets: r.frame_packets,
        });
        self.encoder.set_plan(plan.fec_percent, plan.interleave);
        plan
    }

    pub(super) fn protect(&mut self, plain: &[u8]) {
        self.encoder.protect(plain);
    }

    pub(super) fn poll(&mut self, out: &mut [u8]) -> Option<(usize, SeqNo)> {
        self.encoder.poll_repair(out)
    }
}
