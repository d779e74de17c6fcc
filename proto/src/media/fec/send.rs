//! The sending end of a native line: answers questions, puts redundancy in as the receiver's reports ask for it.

use super::block::{BlockEncoder, EncoderCounters};
use super::policy::{Line, LossMeter, Plan};
use super::repeats::{RepeatCounters, Repeats};
use super::went::Went;
use super::xr;
use crate::media::rtcp::{Compound, NackList, Rtcp};
use crate::units::{Bitrate, Micros, Ssrc};

/// Round trip until one is known, in microseconds.
const FIRST_ROUND_TRIP_US: u64 = 10_000;
/// A larger frame is forgotten by this share of the difference with each smaller one.
const FORGET: u32 = 64;
/// Reports without extended ones after which the plain ones are taken.
const RR_ALONE: u8 = 3;

/// The stream of repair packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FecStream {
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Its payload type.
    pub payload_type: u8,
    /// Its first sequence number: random.
    pub first_seq: u16,
}

/// Counters since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendCounters {
    /// Packets sent again.
    pub repeats: RepeatCounters,
    /// Repair packets.
    pub fec: EncoderCounters,
}

/// The sending end of a line.
#[derive(Debug)]
pub struct RepairSender {
    budget_us: u64,
    repeats: Repeats,
    went: Went,
    meter: LossMeter,
    encoder: Option<BlockEncoder>,
    plan: Plan,
    round_trip: (u64, u64),
    /// Packets of the frame that goes out, and of a large one.
    frame: u32,
    frame_packets: u32,
    /// The receiver tells what it lost (RFC 3611): it knows repair packets, too.
    extended: bool,
    /// Receiver reports since the last extended one.
    plain_reports: u8,
    since_report: u64,
}

impl RepairSender {
    /// For a feed of that rate and that budget from capture to display; without a stream for repair packets there is no
    /// redundancy, nor before the receiver has sent an extended report.
    #[must_use]
    pub fn new(rate: Bitrate, budget_us: u64, fec: Option<FecStream>) -> Self {
        Self {
            budget_us,
            repeats: Repeats::new(rate, budget_us),
            went: Went::new(budget_us),
            meter: LossMeter::new(),
            encoder: fec.map(|f| BlockEncoder::new(f.ssrc, f.payload_type, f.first_seq)),
            plan: Plan { rtx: true, fec_percent: 0, interleave: 1 },
            round_trip: (FIRST_ROUND_TRIP_US, FIRST_ROUND_TRIP_US / 8),
            frame: 0,
            frame_packets: 1,
            extended: false,
            plain_reports: 0,
            since_report: 0,
        }
    }

    /// What the transport measures, in microseconds.
    pub fn set_round_trip(&mut self, now: Micros, round_trip_us: u64, variation_us: u64) {
        self.round_trip = (round_trip_us, variation_us);
        self.repeats.set_round_trip(round_trip_us);
        self.plan_anew(now);
    }

    /// RTCP of the receiver: what it tells of loss. Gives what it asks for, to be answered by [`Self::admit`].
    pub fn handle_rtcp<'a>(&mut self, now: Micros, compound: &'a [u8]) -> impl Iterator<Item = u16> + use<'a> {
        let mut extended = false;
        let Self { went, meter, .. } = self;
        for run in xr::runs(compound) {
            extended = true;
            went.in_turn(&run, |packets| meter.handle_run(now, run.lost, packets));
        }
        if extended {
            (self.plain_reports, self.extended) = (0, true);
        } else if let Some(fraction) = Compound::new(compound).find_map(fraction_lost) {
            self.plain_reports = self.plain_reports.saturating_add(1);
            if self.plain_reports > RR_ALONE {
                self.meter.handle_report(now, fraction, self.since_report);
                extended = true;
            }
            self.since_report = 0;
        }
        if extended {
            self.plan_anew(now);
        }
        Compound::new(compound).filter_map(nacked).flatten()
    }

    fn plan_anew(&mut self, now: Micros) {
        let (round_trip_us, variation_us) = self.round_trip;
        self.plan = Plan::of(&Line {
            round_trip_us,
            variation_us,
            repair_us: Line::repair_time(self.budget_us, round_trip_us),
            loss: self.meter.loss(now),
            burst: self.meter.burst(now),
            frame_packets: self.frame_packets,
        });
        // Another one would take repair packets for a second source.
        if let Some(e) = self.encoder.as_mut().filter(|_| self.extended) {
            e.set_plan(self.plan);
        }
    }

    /// How many copies to send of the packet of that number and length, which was there to be sent at `since`. Where it went
    /// later, as to a joiner what came before it, it is neither late for that nor lost while it is on its way.
    pub fn admit(&mut self, now: Micros, seq: u16, since: Micros, len: usize) -> u8 {
        let sent = self.went.sent_at(seq).map_or(since, |at| at.max(since));
        self.repeats.admit(now, seq, sent, len)
    }

    /// A number was asked for whose packet is not there any more.
    pub const fn count_gone(&mut self) {
        self.repeats.count_gone();
    }

    /// A packet leaves for the first time. Then drain [`Self::poll_repair`].
    pub fn handle_sent(&mut self, now: Micros, packet: &[u8], frame_end: bool) {
        self.went.note(now, packet);
        self.frame += 1;
        self.since_report += 1;
        if frame_end {
            let smaller = self.frame_packets - self.frame_packets.saturating_sub(self.frame).div_ceil(FORGET);
            self.frame_packets = smaller.max(self.frame);
            self.frame = 0;
        }
        if let Some(e) = &mut self.encoder {
            e.handle_packet(now, packet, frame_end);
        }
    }

    /// The next repair packet, to go where the packets go.
    pub fn poll_repair(&mut self) -> Option<&[u8]> {
        self.encoder.as_mut()?.poll_repair()
    }

    /// When to call [`Self::handle_timeout`].
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Micros> {
        self.encoder.as_ref()?.next_wakeup()
    }

    /// Small frames have waited for others long enough. Then drain [`Self::poll_repair`].
    pub fn handle_timeout(&mut self, now: Micros) {
        if let Some(e) = &mut self.encoder {
            e.handle_timeout(now);
        }
    }

    /// How the line is repaired now.
    #[must_use]
    pub const fn plan(&self) -> Plan {
        self.plan
    }

    /// Share of the packets lost on the line, before repair.
    #[must_use]
    pub fn loss(&self, now: Micros) -> f64 {
        self.meter.loss(now)
    }

    /// Counters.
    #[must_use]
    pub fn counters(&self) -> SendCounters {
        SendCounters {
            repeats: self.repeats.counters(),
            fec: self.encoder.as_ref().map(BlockEncoder::counters).unwrap_or_default(),
        }
    }
}

fn fraction_lost(part: Rtcp<'_>) -> Option<u8> {
    match part {
        Rtcp::ReceiverReport(_, mut blocks) => blocks.next().map(|b| b.fraction_lost),
        _ => None,
    }
}

fn nacked(part: Rtcp<'_>) -> Option<NackList<'_>> {
    match part {
        Rtcp::Nack { lost, .. } => Some(lost),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::receive::{RepairConfig, RepairReceiver, Verdict};
    use super::*;
    use crate::link::rng::Rng;
    use crate::media::rtp::{Header, HeaderFields, write_header};
    use std::collections::BTreeMap;

    const RATE: Bitrate = Bitrate(50_000_000);
    const FEC: FecStream = FecStream { ssrc: Ssrc(77), payload_type: 120, first_seq: 9 };

    fn packet(seq: u16) -> Vec<u8> {
        let fields = HeaderFields { marker: false, payload_type: 96, seq, timestamp: 5, ssrc: Ssrc(9) };
        let mut b = vec![seq as u8; 1_000];
        write_header(&mut b, fields, &[]).unwrap();
        b
    }

    struct Pair {
        send: RepairSender,
        receive: RepairReceiver,
        here: BTreeMap<u16, Vec<u8>>,
        rng: Rng,
    }

    impl Pair {
        fn new(round_trip_us: u64) -> Self {
            let config = RepairConfig { budget_us: 100_000, rate: RATE, fec_payload_type: Some(120) };
            let mut pair = Self {
                send: RepairSender::new(RATE, 100_000, Some(FEC)),
                receive: RepairReceiver::new(config),
                here: BTreeMap::new(),
                rng: Rng::new(1),
            };
            pair.send.set_round_trip(Micros(0), round_trip_us, 500);
            pair.receive.set_round_trip(round_trip_us, 500);
            pair
        }

        fn come(&mut self, now: Micros, packet: &[u8]) {
            let h = Header::parse(packet).unwrap();
            if self.receive.handle_packet(now, &h) == Verdict::Repair {
                self.receive.handle_repair(now, packet, |s| self.here.get(&s).map(Vec::as_slice));
            } else {
                self.here.insert(h.seq, packet.to_vec());
            }
            while let Some(p) = self.receive.poll_restored(now) {
                self.here.insert(Header::parse(&p).unwrap().seq, p);
            }
        }

        /// Frames of 90 packets each 16 ms; what is asked for is not answered. Returns how many were asked for.
        fn run(&mut self, frames: u16, loss: f64) -> usize {
            let mut asked = 0;
            for i in 0..frames * 90 {
                let now = Micros(u64::from(i) * 16_000 / 90);
                self.send.handle_sent(now, &packet(i), i % 90 == 89);
                let mut out = vec![packet(i)];
                out.extend(std::iter::from_fn(|| self.send.poll_repair().map(<[u8]>::to_vec)));
                for p in out {
                    if !self.rng.chance(loss) {
                        self.come(now, &p);
                    }
                }
                while let Some(due) = self.receive.poll_rtcp(now, Ssrc(1)) {
                    asked += self.send.handle_rtcp(now, &due.rtcp).count();
                }
            }
            asked
        }
    }

    #[test]
    fn a_line_too_long_for_questions_is_covered_by_redundancy_as_soon_as_loss_is_known() {
        let mut p = Pair::new(100_000);
        assert_eq!(p.run(200, 0.02), 0, "an answer would come too late");
        let plan = p.send.plan();
        assert!(!plan.rtx && plan.fec_percent > 10, "{plan:?}");
        let missing = (9_000_u16..17_900).filter(|s| !p.here.contains_key(s)).count();
        assert_eq!(missing, 0, "of the second half; 178 were lost");
        assert!((p.send.loss(Micros(3_200_000)) - 0.02).abs() < 0.005);
        assert!(p.receive.counters().fec.restored > 150);
    }

    #[test]
    fn a_short_line_asks_and_gets_no_redundancy_for_a_little_loss() {
        let mut p = Pair::new(5_000);
        let asked = p.run(100, 0.003);
        assert!(asked > 10);
        assert_eq!(p.send.counters().fec.repairs, 0);
    }

    #[test]
    fn a_clean_line_has_nothing_of_it_all() {
        for round_trip in [1_000, 100_000] {
            let mut p = Pair::new(round_trip);
            assert_eq!(p.run(50, 0.0), 0);
            assert_eq!(p.send.counters(), SendCounters::default());
            assert_eq!(p.receive.next_wakeup(Micros(0)), None);
        }
    }

    #[test]
    fn what_comes_after_its_time_is_late_and_what_was_given_up_is_said_once() {
        let mut p = Pair::new(20_000);
        for s in [0, 1, 2, 4, 5, 6, 7] {
            p.come(Micros(0), &packet(s));
        }
        assert!(p.receive.poll_rtcp(Micros(1_500), Ssrc(1)).is_some());
        assert!(!p.receive.poll_given_up());
        let after = Micros(90_100);
        while p.receive.poll_rtcp(after, Ssrc(1)).is_some() {}
        assert_eq!((p.receive.poll_given_up(), p.receive.poll_given_up()), (true, false));
        let h = Header::parse(&packet(3)).unwrap();
        assert_eq!(p.receive.handle_packet(after, &h), Verdict::Late);
        assert_eq!(p.receive.counters().late, 1);
    }

    #[test]
    fn one_packet_of_another_source_changes_nothing_and_two_begin_it() {
        let mut p = Pair::new(20_000);
        for s in [0, 1, 2] {
            p.come(Micros(0), &packet(s));
        }
        let other = |seq| Header { ssrc: Ssrc(5), seq, ..Header::parse(&packet(0)).unwrap() };
        p.receive.handle_packet(Micros(0), &other(600));
        for s in [3, 5, 6, 7] {
            p.come(Micros(0), &packet(s));
        }
        assert_eq!(p.receive.counters().nack.missing, 1);
        for s in [601, 602] {
            p.receive.handle_packet(Micros(0), &other(s));
        }
        assert_eq!(p.receive.counters().nack.given_up, 1);
    }

    #[test]
    fn strays_of_another_source_do_not_begin_it_however_many_come() {
        let mut p = Pair::new(20_000);
        p.come(Micros(0), &packet(0));
        for s in [2, 3, 4, 5] {
            let stray = Header { ssrc: Ssrc(5), seq: 600 + s, ..Header::parse(&packet(0)).unwrap() };
            p.receive.handle_packet(Micros(0), &stray);
            p.come(Micros(0), &packet(s));
        }
        let nack = p.receive.counters().nack;
        assert_eq!((nack.missing, nack.given_up), (1, 0));
        assert!(p.receive.poll_rtcp(Micros(6_000), Ssrc(1)).is_some(), "it is still asked for");
    }

    #[test]
    fn what_was_lost_before_the_line_or_left_out_is_no_loss_of_the_line() {
        let mut p = Pair::new(20_000);
        // Each twentieth comes late here, and a thousand are left out; of what goes, one of 50 is lost.
        let late = |i: u16| i % 20 == 3;
        for i in (0..1_000_u16).chain(2_000..4_000) {
            let now = Micros(u64::from(i) * 200);
            let again = i.checked_sub(10).filter(|i| late(*i));
            for s in Some(i).filter(|i| !late(*i)).into_iter().chain(again) {
                p.send.handle_sent(now, &packet(s), false);
                if i % 50 != 10 {
                    p.come(now, &packet(s));
                }
            }
            while p.send.poll_repair().is_some() {}
            while let Some(due) = p.receive.poll_rtcp(now, Ssrc(1)) {
                p.send.handle_rtcp(now, &due.rtcp).for_each(drop);
            }
        }
        let loss = p.send.loss(Micros(800_000));
        assert!((loss - 0.02).abs() < 0.004, "{loss}");
    }

    #[test]
    fn a_joiner_is_sent_again_what_it_lost_of_the_past() {
        let mut s = RepairSender::new(RATE, 100_000, None);
        let ms = |n: u64| Micros(n * 1_000);
        s.set_round_trip(ms(1_500), 20_000, 500);
        (0..100).for_each(|i| s.handle_sent(ms(1_500), &packet(i), false));
        let copies: Vec<u8> = [1_510, 1_520, 1_592].map(|t| s.admit(ms(t), 40, ms(0), 1_000)).to_vec();
        assert_eq!(copies, [0, 1, 0], "on its way, in time, too late");
        let c = s.counters().repeats;
        assert_eq!((c.too_soon, c.repeated, c.too_late), (1, 1, 1));
        // One that came late to be sent has its time from then.
        assert_eq!(s.admit(ms(1_592), 41, ms(1_570), 1_000), 1);
    }
}
