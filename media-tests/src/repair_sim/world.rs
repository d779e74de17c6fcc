//! A publisher, a relay and a viewer on one virtual clock, with the parts that run in the real ones, and lines that lose.

use super::{Cell, Dark, Loss, Outcome};
use std::collections::VecDeque;
use std::rc::Rc;
use trocar_proto::link::config::{Blackout, Delay, Line, Loss as LinkLoss};
use trocar_proto::link::{Link, LinkConfig};
use trocar_proto::media::ext::{ExtensionIds, FrameMark, FrameMarks};
use trocar_proto::media::fec;
use trocar_proto::media::fec::policy::Line as RepairLine;
use trocar_proto::media::fec::receive::{RepairConfig, RepairReceiver, Verdict};
use trocar_proto::media::fec::repeats::History;
use trocar_proto::media::fec::send::{FecStream, RepairSender};
use trocar_proto::media::feed::{Feed, FeedConfig};
use trocar_proto::media::leg::{Leg, Next, Numbering};
use trocar_proto::media::receive::{FrameEvent, FrameReceiver};
use trocar_proto::media::ring::Ring;
use trocar_proto::media::rtp::{Header, HeaderFields, write_header};
use trocar_proto::units::{Bitrate, Micros, Ssrc, WallMicros};

/// The clock moves by this, in microseconds: what happens between is seen at its end.
const STEP_US: u64 = 200;
/// Bytes of a packet.
pub(super) const PACKET: usize = 1_120;
/// Frames before those that are counted: until the line is known.
pub(super) const WARM_UP: u64 = 180;
/// The relay's line to a viewer nearby: round trip in microseconds.
const NEAR_US: u64 = 1_000;
const FEC_TYPE: u8 = 120;

type Packet = Rc<[u8]>;

/// Both directions of one path.
struct Path {
    forth: Link<Packet>,
    back: Link<Packet>,
}

/// Publisher's or relay's end of a hop.
struct Sender {
    repair: RepairSender,
    kept: History<Packet>,
}

/// The world.
pub(super) struct World {
    cell: Cell,
    now: Micros,
    captured: Vec<Micros>,
    seq: u16,
    /// Packets that wait for their time, each with whether it ends its frame.
    paced: VecDeque<(Micros, Packet, bool)>,
    publisher: Sender,
    paths: Vec<Path>,
    feed: Feed,
    leg: Leg,
    relay_in: RepairReceiver,
    relay_out: RepairSender,
    hop: Path,
    viewer: RepairReceiver,
    viewer_kept: History<Packet>,
    frames: FrameReceiver,
    outcome: Outcome,
}

/// One direction of a line of a cell.
pub(super) fn line(cell: &Cell, round_trip_us: u64, bad: bool, extra_us: u64) -> LinkConfig {
    let way = (round_trip_us / 2 + extra_us) as f64 / 1_000.0;
    let mut config = LinkConfig {
        delay: Delay::Uniform { min_ms: way, max_ms: way + 0.5 },
        line: Some(Line { mbit_s: Some(cell.mbit_s * 3.0), queue_ms: Some(50.0), ..Line::default() }),
        ..LinkConfig::default()
    };
    if bad {
        match cell.loss {
            Loss::Random { percent } => config.loss = Some(LinkLoss::Random { percent }),
            // An odd period: the dark moves over the frames.
            Loss::Dark { ms } => {
                config.blackout.push(Blackout { start_ms: 4_000.0, length_ms: ms, every_ms: Some(1_003.7) })
            }
        }
    }
    config
}

fn link(cell: &Cell, round_trip_us: u64, bad: bool, extra_us: u64, number: u64) -> Link<Packet> {
    let mut config = line(cell, round_trip_us, bad, extra_us);
    match cell.dark {
        Dark::Cut { path } if path == number => {
            config.blackout.push(Blackout { start_ms: 5_000.0, length_ms: 1e9, every_ms: None });
        }
        _ => {}
    }
    // The configuration is of constants and of a cell's figures, which the matrix has in range.
    Link::new(&config, cell.seed.wrapping_mul(1_000).wrapping_add(number * 10 + u64::from(bad)))
        .unwrap_or_else(|_| empty())
}

fn empty() -> Link<Packet> {
    // Without anything to check, nothing is refused.
    loop {
        if let Ok(link) = Link::new(&LinkConfig::default(), 0) {
            return link;
        }
    }
}

impl World {
    pub(super) fn new(cell: Cell) -> Self {
        let (rate, budget_us) = (Bitrate((cell.mbit_s * cell.granted * 1e6) as u64), cell.budget_us);
        let first = cell.round_trip_us;
        let config = RepairConfig { budget_us, rate, fec_payload_type: Some(FEC_TYPE) };
        let fec = |ssrc| cell.fec.then_some(FecStream { ssrc: Ssrc(ssrc), payload_type: FEC_TYPE, first_seq: 7 });
        let second = if cell.both_hops { cell.round_trip_us } else { NEAR_US };
        let path = |number: u64, us, bad, extra| Path {
            forth: link(&cell, us, bad, extra, number),
            back: link(&cell, us, bad, extra, number + 50),
        };
        let mut paths = vec![path(1, first, true, 0)];
        if let Some(skew_us) = cell.second_path_us {
            paths.push(path(2, first, false, skew_us));
        }
        let feed = Feed::new(FeedConfig {
            clock_rate: 90_000,
            payload_type: 96,
            extensions: ExtensionIds::OURS,
            slots: Ring::slots_for(rate.0),
            slot_size: 2_048,
        });
        let leg = Leg::new(Numbering::Verbatim, &feed, Micros(0));
        let mut world = Self {
            now: Micros(0),
            captured: Vec::new(),
            seq: 65_000,
            paced: VecDeque::new(),
            publisher: Sender {
                repair: RepairSender::new(rate, budget_us, fec(2)),
                kept: History::new(rate, budget_us),
            },
            paths,
            feed,
            leg,
            relay_in: RepairReceiver::new(config),
            relay_out: RepairSender::new(rate, budget_us, fec(3)),
            hop: path(3, second, cell.both_hops, 0),
            viewer: RepairReceiver::new(config),
            viewer_kept: History::new(rate, budget_us),
            frames: FrameReceiver::new(ExtensionIds::OURS, 90_000),
            outcome: Outcome::default(),
            cell,
        };
        let jitter = 500;
        world.publisher.repair.set_round_trip(Micros(0), first + jitter, jitter / 2);
        world.relay_in.set_round_trip(first + jitter, jitter / 2);
        world.relay_out.set_round_trip(Micros(0), second + jitter, jitter / 2);
        world.viewer.set_round_trip(second + jitter, jitter / 2);
        if let Some(skew_us) = world.cell.second_path_us {
            world.relay_in.set_patience(skew_us + 2 * jitter);
        }
        // A frame's first packet has been under way for half of both round trips.
        world.frames.set_budget(RepairLine::repair_time(budget_us, first + second + jitter) - STEP_US);
        world
    }

    pub(super) fn run(mut self) -> Outcome {
        let frames = self.cell.frames + WARM_UP;
        let end = frames * self.cell.frame_us + 4 * self.cell.budget_us;
        while self.now.0 < end {
            if (self.captured.len() as u64) < frames && self.now.0 >= self.captured.len() as u64 * self.cell.frame_us {
                self.capture();
            }
            self.publish();
            self.at_relay();
            self.at_viewer();
            self.at_publisher();
            self.now = self.now.plus(STEP_US);
        }
        self.outcome.frames = self.cell.frames;
        self.outcome.sent = self.publisher.repair.counters();
        self.outcome.relay = self.relay_in.counters();
        self.outcome.leg_sent = self.relay_out.counters();
        self.outcome.viewer = self.viewer.counters();
        self.outcome.plan = self.publisher.repair.plan();
        self.outcome
    }

    /// A picture: its packets are paced at twice the rate.
    fn capture(&mut self) {
        let id = self.captured.len() as u32;
        self.captured.push(self.now);
        let frame_us = self.cell.frame_us;
        let packets = self.cell.sources(1) as u64;
        for i in 0..packets {
            let marks = FrameMarks {
                start: i == 0,
                end: i + 1 == packets,
                independent: id.is_multiple_of(60),
                discardable: false,
            };
            let fields = HeaderFields {
                marker: marks.end,
                payload_type: 96,
                seq: self.seq,
                timestamp: id.wrapping_mul(1_500),
                ssrc: Ssrc(1),
            };
            self.seq = self.seq.wrapping_add(1);
            let mut b = vec![(i & 0xff) as u8; PACKET];
            let capture = WallMicros(self.now.0).to_ntp().to_be_bytes();
            let mark = FrameMark { frame_id: id, marks }.to_bytes();
            let written = write_header(&mut b, fields, &[(1, &mark), (2, &capture)]);
            debug_assert!(written.is_ok());
            let at = self.now.plus(i * frame_us / 2 / packets);
            self.paced.push_back((at, b.into(), marks.end));
        }
    }

    fn publish(&mut self) {
        while let Some((_, packet, end)) = self.paced.pop_front_if(|(at, ..)| *at <= self.now) {
            let Sender { repair, kept } = &mut self.publisher;
            if let Ok(h) = Header::parse(&packet) {
                kept.push(self.now, h.seq, Rc::clone(&packet));
            }
            repair.handle_sent(self.now, &packet, end);
            for path in &mut self.paths {
                path.forth.handle_packet(self.now, packet.len() as u32, Rc::clone(&packet));
            }
        }
        self.publisher.repair.handle_timeout(self.now);
        while let Some(p) = self.publisher.repair.poll_repair() {
            for path in &mut self.paths {
                path.forth.handle_packet(self.now, p.len() as u32, p.into());
            }
        }
    }

    /// What the relay asks for goes again, by the first path.
    fn at_publisher(&mut self) {
        let Sender { repair, kept } = &mut self.publisher;
        for i in 0..self.paths.len() {
            let Some(path) = self.paths.get_mut(i) else { return };
            while let Some(d) = path.back.poll_departure(self.now) {
                let asked: Vec<u16> = repair.handle_rtcp(self.now, &d.payload).collect();
                for seq in asked.into_iter().filter(|_| self.cell.rtx) {
                    let Some((sent, packet)) = kept.get(seq) else { continue };
                    for _ in 0..repair.admit(self.now, seq, sent, packet.len()) {
                        path.forth.handle_packet(self.now, packet.len() as u32, Rc::clone(packet));
                    }
                }
            }
        }
    }

    fn at_relay(&mut self) {
        for i in 0..self.paths.len() {
            while let Some(d) = self.paths.get_mut(i).and_then(|p| p.forth.poll_departure(self.now)) {
                self.take_at_relay(&d.payload);
            }
        }
        while let Some(due) = self.relay_in.poll_rtcp(self.now, Ssrc(4)) {
            for _ in 0..due.copies {
                // The connection that the newest packet came by; a cut one takes nothing.
                for path in &mut self.paths {
                    path.back.handle_packet(self.now, due.rtcp.len() as u32, due.rtcp.as_slice().into());
                }
            }
        }
        self.fan_out();
        self.answer_viewer();
    }

    fn take_at_relay(&mut self, packet: &[u8]) {
        let Ok(h) = Header::parse(packet) else { return };
        match self.relay_in.handle_packet(self.now, &h) {
            Verdict::Take => self.store(h.seq, packet),
            Verdict::Late => {}
            Verdict::Repair => {
                let feed = &self.feed;
                self.relay_in.handle_repair(self.now, packet, |s| fec::packet_of(feed, s).map(|(.., p)| p));
            }
        }
        while let Some(restored) = self.relay_in.poll_restored(self.now) {
            let _ = self.feed.handle_packet(self.now, &restored);
        }
    }

    fn store(&mut self, seq: u16, packet: &[u8]) {
        let newest = self.feed.highest().is_none_or(|(_, n)| n.low16().wrapping_add(1) == seq);
        let _ = self.feed.handle_packet(self.now, packet);
        if !newest {
            let feed = &self.feed;
            self.relay_in.handle_stored(seq, |s| fec::packet_of(feed, s).map(|(.., p)| p));
        }
    }

    fn fan_out(&mut self) {
        while let Next::Send { index, .. } = self.leg.poll(&self.feed, true) {
            let Some((info, packet)) = self.feed.ring().get(index) else { continue };
            self.relay_out.handle_sent(self.now, packet, info.frame.marks.end);
            self.hop.forth.handle_packet(self.now, packet.len() as u32, packet.into());
        }
        self.relay_out.handle_timeout(self.now);
        while let Some(p) = self.relay_out.poll_repair() {
            self.hop.forth.handle_packet(self.now, p.len() as u32, p.into());
        }
    }

    fn answer_viewer(&mut self) {
        while let Some(d) = self.hop.back.poll_departure(self.now) {
            let asked: Vec<u16> = self.relay_out.handle_rtcp(self.now, &d.payload).collect();
            for seq in asked.into_iter().filter(|_| self.cell.rtx) {
                let Some(index) = self.leg.handle_verbatim_nack(&self.feed, seq) else { continue };
                let Some((info, packet)) = self.feed.ring().get(index) else { continue };
                for _ in 0..self.relay_out.admit(self.now, seq, info.arrived, packet.len()) {
                    self.hop.forth.handle_packet(self.now, packet.len() as u32, packet.into());
                }
            }
        }
    }

    fn at_viewer(&mut self) {
        while let Some(d) = self.hop.forth.poll_departure(self.now) {
            let Ok(h) = Header::parse(&d.payload) else { continue };
            let kept = &self.viewer_kept;
            match self.viewer.handle_packet(self.now, &h) {
                Verdict::Take => {
                    self.viewer_kept.push(self.now, h.seq, Rc::clone(&d.payload));
                    let kept = &self.viewer_kept;
                    self.viewer.handle_stored(h.seq, |s| kept.get(s).map(|(_, p)| &**p));
                    self.frames.handle_packet(self.now, &d.payload);
                }
                Verdict::Late => {}
                Verdict::Repair => {
                    self.viewer.handle_repair(self.now, &d.payload, |s| kept.get(s).map(|(_, p)| &**p));
                }
            }
            while let Some(restored) = self.viewer.poll_restored(self.now) {
                self.frames.handle_packet(self.now, &restored);
                if let Ok(h) = Header::parse(&restored) {
                    self.viewer_kept.push(self.now, h.seq, restored.into());
                }
            }
        }
        while let Some(due) = self.viewer.poll_rtcp(self.now, Ssrc(5)) {
            for _ in 0..due.copies {
                self.hop.back.handle_packet(self.now, due.rtcp.len() as u32, due.rtcp.as_slice().into());
            }
        }
        self.frames.handle_timeout(self.now);
        while let Some(event) = self.frames.poll_event() {
            if let FrameEvent::Complete(f) = event
                && u64::from(f.frame_id) >= WARM_UP
                && let Some(captured) = self.captured.get(f.frame_id as usize)
            {
                let age = self.now.since(*captured);
                self.outcome.in_time += u64::from(age <= self.cell.budget_us);
                self.outcome.oldest_us = self.outcome.oldest_us.max(age);
            }
        }
    }
}
