//! The receiving end of a native line: what is missing is asked for or restored, what comes too late is kept out, and the
//! sender is told what was lost.

use super::block::{BlockDecoder, DecoderCounters};
use super::policy::Line;
use super::xr::LossRecorder;
use crate::media::nack::{Arrival, NackCounters, NackGenerator};
use crate::media::rtcp::Builder;
use crate::media::rtp::Header;
use crate::units::{Bitrate, Micros, Ssrc};

/// The sender is told what was lost this often, in microseconds.
pub const REPORT_SPACING_US: u64 = 100_000;
/// How often a question is sent: it is small, and a lost one costs a round trip.
pub const QUESTIONS: usize = 2;
/// How soon to look again while something is missing, in microseconds.
const LOOK_AGAIN_US: u64 = 1_000;
/// Packets of another source in a row after which it is the source.
const PROBATION: u8 = 2;

/// How a line is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairConfig {
    /// Capture to display, in microseconds.
    pub budget_us: u64,
    /// Most that the feed sends.
    pub rate: Bitrate,
    /// Payload type of repair packets, where there are any.
    pub fec_payload_type: Option<u8>,
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Take,
    /// It came after its time: whoever waits for its frame has given it up.
    Late,
    /// It is no packet of the feed but redundancy: [`RepairReceiver::handle_repair`] takes it.
    Repair,
}

/// RTCP that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The compound packet.
    pub rtcp: Vec<u8>,
    /// How often to send it.
    pub copies: usize,
}

/// Counters since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RepairCounters {
    /// Asked for, come, given up.
    pub nack: NackCounters,
    /// Restored from redundancy.
    pub fec: DecoderCounters,
    /// Packets that came after their time and were kept out.
    pub late: u64,
}

/// The receiving end of a line. Drive it: each packet, then [`Self::poll_restored`] until none, then [`Self::poll_rtcp`] until
/// none; again at [`Self::next_wakeup`].
#[derive(Debug)]
pub struct RepairReceiver {
    config: RepairConfig,
    source: Option<Ssrc>,
    /// Another source, and how many packets in a row came of it.
    other: (Ssrc, u8),
    nack: NackGenerator,
    decoder: BlockDecoder,
    recorder: LossRecorder,
    reported: Option<Micros>,
    given_up: u64,
    late: u64,
}

impl RepairReceiver {
    /// A line of which nothing has come.
    #[must_use]
    pub fn new(config: RepairConfig) -> Self {
        Self {
            config,
            source: None,
            other: (Ssrc(0), 0),
            nack: NackGenerator::sized(config.budget_us, config.rate.0 / 8_000),
            decoder: BlockDecoder::new(),
            recorder: LossRecorder::default(),
            reported: None,
            given_up: 0,
            late: 0,
        }
    }

    /// What the transport measures, in microseconds. What the way itself takes is not left for repair.
    pub const fn set_round_trip(&mut self, round_trip_us: u64, variation_us: u64) {
        self.nack.set_round_trip(round_trip_us, variation_us);
        self.nack.set_budget(Line::repair_time(self.config.budget_us, round_trip_us));
    }

    /// How long what is missing is left to come by another path before it is asked for, in microseconds.
    pub fn set_patience(&mut self, us: u64) {
        self.nack.set_patience(us);
        self.recorder.set_patience((self.config.rate.0 / 8_000).saturating_mul(us) / 1_000_000);
    }

    /// Whether a packet is redundancy and none of the feed.
    #[must_use]
    pub fn is_repair(&self, h: &Header) -> bool {
        self.config.fec_payload_type == Some(h.payload_type)
    }

    /// Whether the number goes on from the highest that came.
    #[must_use]
    pub fn is_newest(&self, seq: u16) -> bool {
        self.nack.is_ahead(seq)
    }

    /// Takes the header of a packet that came, for the first time or again.
    pub fn handle_packet(&mut self, now: Micros, h: &Header) -> Verdict {
        if self.is_repair(h) {
            return Verdict::Repair;
        }
        if self.source == Some(h.ssrc) {
            // Packets of another one between those of this are strays, however many come.
            self.other.1 = 0;
        } else if !self.is_new_source(h.ssrc) {
            return Verdict::Take;
        }
        match self.nack.handle_packet(now, h.seq) {
            Arrival::Newest | Arrival::Reordered => self.recorder.handle_packet(h.ssrc, h.seq),
            Arrival::Late => {
                self.late += 1;
                return Verdict::Late;
            }
            Arrival::Recovered | Arrival::Other => {}
        }
        Verdict::Take
    }

    /// Whether that source takes over: at once where there is none, or with its second packet in a row.
    fn is_new_source(&mut self, ssrc: Ssrc) -> bool {
        let in_row = if self.other.0 == ssrc { self.other.1.saturating_add(1) } else { 1 };
        self.other = (ssrc, in_row);
        if self.source.is_some() && in_row < PROBATION {
            return false;
        }
        if self.source.is_some() {
            self.nack.begin_source();
        }
        self.source = Some(ssrc);
        true
    }

    /// Takes a repair packet. `find` gives the packets of the feed that are here, as they came, by their numbers.
    pub fn handle_repair<'a>(&mut self, now: Micros, packet: &[u8], find: impl Fn(u16) -> Option<&'a [u8]>) {
        self.decoder.forget_before(Micros(now.0.saturating_sub(self.config.budget_us)));
        self.decoder.handle_repair(now, packet, find);
    }

    /// A packet of the feed went where `find` finds it: it may be what a block lacked. To be called for packets that were not
    /// the newest.
    pub fn handle_stored<'a>(&mut self, seq: u16, find: impl Fn(u16) -> Option<&'a [u8]>) {
        self.decoder.handle_late(seq, find);
    }

    /// The next packet that redundancy brought back in time. It goes on like one that came.
    pub fn poll_restored(&mut self, now: Micros) -> Option<Vec<u8>> {
        // At most as many turns as packets wait.
        while let Some(packet) = self.decoder.poll_restored() {
            let Ok(h) = Header::parse(&packet) else { continue };
            if self.source != Some(h.ssrc) {
                continue;
            }
            // The last packets of a frame are back before a number behind them shows that they are missing.
            if self.nack.handle_restored(h.seq) || self.nack.is_ahead(h.seq) {
                if self.nack.is_ahead(h.seq) {
                    self.nack.handle_packet(now, h.seq);
                }
                return Some(packet);
            }
        }
        None
    }

    /// RTCP that is due to the sender: questions, and what was lost.
    pub fn poll_rtcp(&mut self, now: Micros, from: Ssrc) -> Option<Due> {
        let media = self.source?;
        if let Some(lost) = self.nack.poll(now) {
            let rtcp = Builder::default().receiver_report(from, None).nack(from, media, lost).finish();
            return Some(Due { rtcp, copies: QUESTIONS });
        }
        if self.reported.is_some_and(|t| now.since(t) < REPORT_SPACING_US) {
            return None;
        }
        let report = self.recorder.poll_report(from)?;
        self.reported = Some(now);
        let mut rtcp = Builder::default().receiver_report(from, None).finish();
        rtcp.extend_from_slice(&report);
        Some(Due { rtcp, copies: 1 })
    }

    /// Whether frames were given up since the last call: what depends on them cannot be decoded.
    pub const fn poll_given_up(&mut self) -> bool {
        let given_up = self.nack.counters().given_up;
        let more = given_up > self.given_up;
        self.given_up = given_up;
        more
    }

    /// When to look again; none where nothing is missing.
    #[must_use]
    pub fn next_wakeup(&self, now: Micros) -> Option<Micros> {
        (self.nack.missing() > 0).then(|| now.plus(LOOK_AGAIN_US))
    }

    /// Counters.
    #[must_use]
    pub const fn counters(&self) -> RepairCounters {
        RepairCounters { nack: self.nack.counters(), fec: self.decoder.counters(), late: self.late }
    }
}
