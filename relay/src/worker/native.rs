//! How a native leg leaves: over one connection or two, by datagrams or by a stream per frame.

use super::out::MAX_QUEUE_US;
use super::state::{Core, Way};
use crate::frames::{FrameCounters, FrameStreams, datagram};
use crate::quic::{self, Seat};
use quinn::Connection;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};
use trocar_proto::media::feed::JOIN_FROM_CACHE_US;
use trocar_proto::media::ring::PacketInfo;
use trocar_proto::media::roq::FlowPrefix;
use trocar_proto::session::api::{LegRequest, MAX_PATHS};
use trocar_proto::session::feed::{FeedDescriptor, RoqMode};
use trocar_proto::session::ids::CertHash;
use trocar_proto::units::{Bitrate, FlowId, Micros, SeqNo};

/// What a packet takes of QUIC's send buffer at most: a slot of a ring, a flow id, and the 32 bytes that quinn counts with it.
const LARGEST: usize = 2_048 + 40;
/// What quinn counts for each datagram beside its bytes, and keeps free for one more: an empty queue has that much less room.
const PER_DATAGRAM: usize = size_of::<bytes::Bytes>();
/// A connection by which the viewer was heard so lately is in use, in microseconds.
const IN_USE_US: u64 = 300_000;
/// Turns of a connection that are remembered, to tell how long its queue is in time.
const TURNS: usize = 512;

/// What is settled when a leg is opened.
pub(crate) struct RoqWayConfig {
    pub(crate) cnf: CertHash,
    pub(crate) rtcp_flow: FlowId,
    pub(crate) prefix: FlowPrefix,
    pub(crate) rtcp_prefix: FlowPrefix,
    pub(crate) asked: LegRequest,
    /// What leaves by it: its place among what else leaves by the same connection.
    pub(crate) feed: FeedDescriptor,
}

/// One native viewer. Its connections are the ones that its RTCP came by last: several stations may show one certificate.
pub(crate) struct RoqWay {
    pub(crate) cnf: CertHash,
    pub(crate) rtcp_flow: FlowId,
    pub(crate) prefix: FlowPrefix,
    pub(crate) rtcp_prefix: FlowPrefix,
    asked: LegRequest,
    feed: FeedDescriptor,
    /// After its arrival here plus this a frame is of no more use.
    budget: Duration,
    lines: Vec<RoqLine>,
    /// What became of frames on lines that are over.
    before: FrameCounters,
}

/// What became of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handed {
    /// A line has it.
    Sent,
    /// No line takes its frame, or the rest of it.
    Refused,
    /// It came late, as a repair of a frame that went before, and no line had room for it.
    Missed,
}

impl RoqWay {
    pub(crate) fn new(c: RoqWayConfig) -> Self {
        Self {
            cnf: c.cnf,
            rtcp_flow: c.rtcp_flow,
            prefix: c.prefix,
            rtcp_prefix: c.rtcp_prefix,
            asked: c.asked,
            budget: Duration::from_millis(u64::from(c.feed.budget_ms)),
            feed: c.feed,
            lines: Vec::with_capacity(MAX_PATHS),
            before: FrameCounters::default(),
        }
    }

    /// The connection that the viewer was heard by last.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        self.lines.iter().max_by_key(|l| l.heard).map(|l| &l.connection)
    }

    /// The connections that it leaves by.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.lines.iter().map(|l| &l.connection)
    }

    /// Connections that it leaves by now.
    pub(crate) const fn paths(&self) -> usize {
        self.lines.len()
    }

    /// Connections that it is to leave by.
    fn paths_asked(&self) -> usize {
        usize::from(self.asked.paths).clamp(1, MAX_PATHS)
    }

    /// What became of frames that went as streams, on all lines.
    pub(crate) fn frames(&self) -> FrameCounters {
        self.lines.iter().fold(self.before, |sum, l| add(sum, l.streams.counters()))
    }

    /// The viewer was heard by a connection; whether the leg leaves by it already.
    pub(crate) fn hear(&mut self, connection: &Connection, at: Micros) -> bool {
        let id = connection.stable_id();
        let line = self.lines.iter_mut().find(|l| l.connection.stable_id() == id);
        // Said again with each report: a connection that moved to another address begins anew.
        line.map(|l| (l.heard, l.known, ()) = (at, l.known.or(Some(at)), l.grant())).is_some()
    }

    /// The leg leaves by that connection from the next frame on, where it has not enough that are in use. True where that begins
    /// the leg: it had no connection, or has another one now.
    pub(crate) fn attach(&mut self, connection: &Connection, queue: Option<Rc<SendQueue>>, at: Micros) -> bool {
        let is_full = self.lines.len() >= self.paths_asked();
        let begins = self.lines.is_empty() || is_full && self.lines.len() == 1;
        let stalest = self.lines.iter().enumerate().min_by_key(|(_, l)| (l.is_held(at), l.heard));
        if is_full && let Some((stale, line)) = stalest {
            if line.is_held(at) {
                return false;
            }
            let line = self.lines.swap_remove(stale);
            self.before = add(self.before, line.streams.counters());
        }
        let streams = FrameStreams::new(connection.clone(), self.prefix);
        let queue = queue.unwrap_or_default();
        let rate = self.feed.max_bitrate;
        queue.granted.set(queue.granted.get().saturating_add(rate.0));
        let (connection, seat) = (connection.clone(), Seat::take(connection, &self.feed));
        let half = u64::try_from(self.budget.as_micros() / 2).unwrap_or(u64::MAX);
        let longest_us = MAX_QUEUE_US.min(half);
        let (frame, takes, heard, known) = (None, false, at, None);
        let line = RoqLine { connection, queue, seat, rate, longest_us, streams, frame, takes, heard, known };
        line.grant();
        self.lines.push(line);
        begins
    }

    /// A connection is over. True where the leg left by it.
    pub(crate) fn forget(&mut self, id: usize) -> bool {
        let Some(place) = self.lines.iter().position(|l| l.connection.stable_id() == id) else { return false };
        let line = self.lines.swap_remove(place);
        self.before = add(self.before, line.streams.counters());
        true
    }

    /// Whether a frame may be begun, or the one that goes on is taken by a line.
    pub(crate) fn has_room(&mut self, next: Option<u64>, at: Micros) -> bool {
        self.lines.iter_mut().any(|l| {
            let goes_on = next.is_some() && l.frame.map(|(name, _)| name) == next;
            if goes_on { l.takes && l.has_buffer() } else { l.may_begin(self.asked.mode, at) }
        })
    }

    /// Hands a packet to every line that takes its frame; `arrived` is when its budget begins.
    pub(crate) fn send_packet(
        &mut self,
        info: &PacketInfo,
        packet: &[u8],
        (now, at): (Instant, Micros),
        arrived: Micros,
    ) -> Handed {
        let waited = Duration::from_micros(at.since(arrived));
        let deadline = now.checked_sub(waited).unwrap_or(now) + self.budget;
        let (mut datagram_of, mut handed) = (None, Handed::Refused);
        let alone = self.lines.len() == 1;
        for line in &mut self.lines {
            let late = line.is_late(info);
            let sent = match self.asked.mode {
                _ if !line.takes_frame_of(info, self.asked.mode, at, alone) => false,
                RoqMode::Datagram if self.prefix.as_bytes().len() + packet.len() <= line.largest() => {
                    let bytes = datagram_of.get_or_insert_with(|| datagram(self.prefix, packet));
                    if !late && (info.frame.marks.end || info.marker) {
                        // What was too large for a datagram of this frame is complete.
                        line.streams.finish();
                    }
                    line.send_datagram(bytes.clone())
                }
                // What fits no datagram of the path goes with its frame's stream.
                RoqMode::Datagram | RoqMode::Stream => line.send_by_stream(info, packet, deadline),
            };
            if sent {
                line.seat.iter().for_each(|s| s.note_sent(packet.len() as u64));
                handed = Handed::Sent;
            } else if !late {
                // Nobody can use the rest of a torn frame.
                line.takes = false;
            } else if handed == Handed::Refused {
                handed = Handed::Missed;
            }
        }
        handed
    }

    /// So many bytes of the feed have come in all: what the leg would send on a line that takes everything.
    pub(crate) fn note_offered(&mut self, bytes: u64) {
        self.lines.iter_mut().filter_map(|l| l.seat.as_mut()).for_each(|s| s.note_total(bytes));
    }

    /// What was sent in this turn, for the time that it waits.
    pub(crate) fn end_turn(&self, at: Micros) {
        self.lines.iter().for_each(|l| l.queue.end_turn(at));
    }

    /// Resets what is too late. True where the leg must go on at a frame that needs no other: what one path gave up may have
    /// come by the other.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let alone = self.lines.len() == 1;
        let late = self.lines.iter_mut().filter_map(|l| l.streams.expire(now).then_some(())).count();
        late > 0 && alone
    }

    /// A packet that was asked for again: by the line that the viewer was heard by last. What fits no datagram of the path goes by
    /// a stream of its own.
    pub(crate) fn send_again(&mut self, packet: &[u8], now: Instant) -> bool {
        let (prefix, deadline) = (self.prefix, now + self.budget);
        let Some(line) = self.lines.iter_mut().max_by_key(|l| l.heard) else { return false };
        if prefix.as_bytes().len() + packet.len() <= line.largest() {
            line.send_datagram(datagram(prefix, packet))
        } else {
            line.streams.send_late_packet(packet, deadline)
        }
    }

    /// A repair packet, by the same line. Never by a stream: QUIC would repeat what is there so that nothing has to be repeated,
    /// and it would stand before frames.
    pub(crate) fn send_redundancy(&mut self, packet: &[u8]) -> bool {
        let prefix = self.prefix;
        let Some(line) = self.lines.iter_mut().max_by_key(|l| l.heard) else { return false };
        prefix.as_bytes().len() + packet.len() <= line.largest() && line.send_datagram(datagram(prefix, packet))
    }

    /// RTCP to the viewer, by every line: it says the same on each. Loss policy: what a connection does not take is not sent; it
    /// is said again.
    pub(crate) fn send_rtcp(&self, rtcp: &[u8]) {
        let bytes = datagram(self.rtcp_prefix, rtcp);
        for line in &self.lines {
            if line.connection.send_datagram(bytes.clone()).is_ok() {
                line.queue.handed(bytes.len());
            }
        }
    }
}

fn add(a: FrameCounters, b: FrameCounters) -> FrameCounters {
    FrameCounters {
        begun: a.begun + b.begun,
        delivered: a.delivered + b.delivered,
        late: a.late + b.late,
        refused: a.refused + b.refused,
    }
}

/// The name of a packet's frame on a leg: its source and its time.
pub(crate) fn frame_name(info: &PacketInfo) -> u64 {
    u64::from(info.generation) << 32 | u64::from(info.timestamp)
}

/// One connection that a leg leaves by.
struct RoqLine {
    connection: Connection,
    queue: Rc<SendQueue>,
    /// Its place among what else leaves by the connection.
    seat: Option<Seat>,
    /// What this leg may send.
    rate: Bitrate,
    /// What may wait in the connection when a frame is begun, in microseconds: what has waited for half of its budget there is
    /// of no more use at the viewer.
    longest_us: u64,
    streams: FrameStreams,
    /// The newest frame and the number of its first packet here; packets of older ones come late.
    frame: Option<(u64, SeqNo)>,
    /// Whether that frame goes by this line.
    takes: bool,
    heard: Micros,
    /// When the viewer was first heard by it; none where it is only thought to be the viewer's.
    known: Option<Micros>,
}

impl Drop for RoqLine {
    fn drop(&mut self) {
        self.queue.granted.set(self.queue.granted.get().saturating_sub(self.rate.0));
        // Without a leg the connection keeps what it has learnt of its line.
        if self.queue.granted.get() > 0 {
            self.grant();
        }
    }
}

impl RoqLine {
    /// Tells the connection's rate control what all legs together may send by it.
    fn grant(&self) {
        quic::set_granted(&self.connection, Bitrate(self.queue.granted.get()));
    }

    /// Whether it is not given up for another one: each new one is sent what a joiner is sent.
    fn is_held(&self, at: Micros) -> bool {
        let in_use = |known| at.since(known) < JOIN_FROM_CACHE_US || at.since(self.heard) < IN_USE_US;
        self.known.is_some_and(in_use) && self.connection.close_reason().is_none()
    }

    fn largest(&self) -> usize {
        self.connection.max_datagram_size().unwrap_or(0)
    }

    fn has_buffer(&self) -> bool {
        self.connection.datagram_send_buffer_space() > LARGEST
    }

    fn may_begin(&mut self, mode: RoqMode, at: Micros) -> bool {
        let has_room = match mode {
            RoqMode::Stream => self.streams.has_room(),
            RoqMode::Datagram => {
                let longest_us = self.longest_us / self.seat.as_ref().map_or(1, Seat::patience);
                self.has_buffer() && self.queue.waited_us(&self.connection, at) <= longest_us
            }
        };
        has_room && self.seat.as_mut().is_none_or(Seat::may_begin)
    }

    /// Decides at a frame's first packet whether it goes by this line, whole or not at all.
    fn takes_frame_of(&mut self, info: &PacketInfo, mode: RoqMode, at: Micros, alone: bool) -> bool {
        let name = frame_name(info);
        if self.is_late(info) {
            return self.has_buffer();
        }
        if self.frame.is_none_or(|(now, _)| now != name) {
            // A path that came in the middle of a frame leaves that one to the other path.
            let from_its_start = alone || self.frame.is_some() || info.frame.marks.start;
            self.takes = from_its_start && self.may_begin(mode, at);
            self.frame = Some((name, info.seq));
        }
        self.takes
    }

    fn is_late(&self, info: &PacketInfo) -> bool {
        self.frame.is_some_and(|(name, first)| {
            name != frame_name(info) && name >> 32 == u64::from(info.generation) && info.seq < first
        })
    }

    fn send_datagram(&self, bytes: bytes::Bytes) -> bool {
        let len = bytes.len();
        let sent = self.has_buffer() && self.connection.send_datagram(bytes).is_ok();
        if sent {
            self.queue.handed(len);
        }
        sent
    }

    fn send_by_stream(&mut self, info: &PacketInfo, packet: &[u8], deadline: Instant) -> bool {
        if self.is_late(info) {
            return self.streams.send_late_packet(packet, deadline);
        }
        let marks = info.frame.marks;
        let sent = self.streams.send_packet(frame_name(info), packet, deadline, marks.independent);
        if marks.end || info.marker {
            self.streams.finish();
        }
        self.takes &= sent;
        sent
    }
}

/// How long what a connection was handed as datagrams waits in it: shared by all legs of the connection.
#[derive(Default)]
pub(crate) struct SendQueue {
    handed: Cell<u64>,
    /// Bits per second that the legs of the connection may send.
    granted: Cell<u64>,
    /// Bytes handed over up to the end of a turn, and when that was.
    turns: RefCell<VecDeque<(u64, Micros)>>,
}

impl SendQueue {
    fn handed(&self, len: usize) {
        self.handed.set(self.handed.get() + (len + PER_DATAGRAM) as u64);
    }

    fn end_turn(&self, at: Micros) {
        let Ok(mut turns) = self.turns.try_borrow_mut() else { return };
        let handed = self.handed.get();
        if turns.back().is_some_and(|(bytes, _)| *bytes == handed) {
            return;
        }
        if turns.len() >= TURNS {
            turns.pop_front();
        }
        turns.push_back((handed, at));
    }

    /// How long the oldest datagram has waited that the connection has not sent, in microseconds.
    fn waited_us(&self, connection: &Connection, at: Micros) -> u64 {
        let most = quic::DATAGRAM_SEND_BUFFER - PER_DATAGRAM;
        let waiting = most.saturating_sub(connection.datagram_send_buffer_space());
        self.waited_for(waiting as u64, at)
    }

    fn waited_for(&self, waiting: u64, at: Micros) -> u64 {
        if waiting == 0 {
            return 0;
        }
        let left = self.handed.get().saturating_sub(waiting);
        let Ok(mut turns) = self.turns.try_borrow_mut() else { return 0 };
        while turns.front().is_some_and(|(bytes, _)| *bytes <= left) {
            turns.pop_front();
        }
        turns.front().map_or(0, |(_, when)| at.since(*when))
    }
}

impl Core {
    /// Resets what is too late on native legs, and lets them go on where they can.
    pub(super) fn expire_frames(&mut self, now: Instant) {
        for (_, leg) in &mut self.legs {
            let Way::Roq(way) = &mut leg.way else { continue };
            if way.expire(now)
                && let Some(f) = leg.feed.and_then(|f| self.feeds.get_mut(f))
            {
                leg.leg.skip_to_now(&f.feed);
                f.feed.handle_key_frame_request();
            }
        }
    }

    /// The queue of a connection that some leg leaves by already.
    pub(super) fn queue_of(&self, id: usize) -> Option<Rc<SendQueue>> {
        self.legs.iter().find_map(|(_, l)| match &l.way {
            Way::Roq(w) => w.lines.iter().find(|l| l.connection.stable_id() == id).map(|l| Rc::clone(&l.queue)),
            Way::Webrtc(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_as_long_as_its_oldest_datagram_has_waited_whatever_the_rate() {
        let q = SendQueue::default();
        for turn in 0..10_u64 {
            for _ in 0..5 {
                q.handed(1_000 - 32);
            }
            q.end_turn(Micros(turn * 10_000));
        }
        assert_eq!(q.waited_for(0, Micros(100_000)), 0, "all has left");
        assert_eq!(q.waited_for(1_000, Micros(100_000)), 10_000, "one of the newest turn");
        assert_eq!(q.waited_for(5_001, Micros(100_000)), 10_000, "what was asked before is forgotten");
        for turn in 10..20_u64 {
            q.handed(1_000 - 32);
            q.end_turn(Micros(turn * 10_000));
        }
        assert_eq!(q.waited_for(10_000, Micros(200_000)), 100_000);
        assert_eq!(q.waited_for(4_000, Micros(200_000)), 40_000);
    }

    fn way() -> RoqWay {
        RoqWay::new(RoqWayConfig {
            cnf: CertHash([1; 32]),
            rtcp_flow: FlowId(71),
            prefix: FlowPrefix::new(FlowId(70)).unwrap(),
            rtcp_prefix: FlowPrefix::new(FlowId(71)).unwrap(),
            asked: LegRequest::default(),
            feed: crate::worker::tests::descriptor(10_000_000, 400),
        })
    }

    #[tokio::test]
    async fn what_fits_no_datagram_of_the_path_goes_by_stream_and_redundancy_does_not_go_at_all() {
        let pair = crate::frames::tests::pair_taking(Some(900)).await;
        let (mut way, now) = (way(), Instant::now());
        way.attach(&pair.sender, None, Micros(0));
        let largest = way.lines[0].largest();
        assert!((500..=900).contains(&largest), "{largest}");
        let (large, small) = ([7; 1_000], [8; 400]);
        let info = |seq: u64, end| {
            let mut info = crate::worker::tests::packet_info(seq, 5);
            (info.frame.marks.start, info.frame.marks.end) = (seq == 1, end);
            info
        };
        // A frame whose packets are of both sizes, a repeat, and redundancy of both sizes.
        assert_eq!(way.send_packet(&info(1, false), &large, (now, Micros(0)), Micros(0)), Handed::Sent);
        assert_eq!(way.send_packet(&info(2, true), &small, (now, Micros(0)), Micros(0)), Handed::Sent);
        assert!(way.send_again(&large, now));
        assert!(!way.send_redundancy(&large));
        assert!(way.send_redundancy(&[9; 400]), "the control: what fits goes");
        let first = |d: bytes::Bytes| (d.len(), d.last().copied());
        for byte in [8, 9] {
            let came = pair.receiver.read_datagram().await.unwrap();
            assert_eq!(first(came), (400 + way.prefix.as_bytes().len(), Some(byte)));
        }
        for _ in 0..2 {
            let mut stream = pair.receiver.accept_uni().await.unwrap();
            let bytes = stream.read_to_end(4_096).await.unwrap();
            assert!(bytes.len() > 1_000 && bytes.ends_with(&large), "{}", bytes.len());
        }
        let more = tokio::time::timeout(Duration::from_millis(200), pair.receiver.accept_uni()).await;
        assert!(more.is_err(), "redundancy went by a stream");
    }

    #[tokio::test]
    async fn a_queue_of_quic_that_is_empty_is_empty_however_long_ago_something_was_sent() {
        let pair = crate::frames::tests::pair().await;
        let mut way = way();
        let prefix = way.prefix;
        way.attach(&pair.sender, None, Micros(0));
        assert!(way.send_again(&[7; 1_000], Instant::now()));
        way.end_turn(Micros(0));
        // It has left when the other side has it.
        let came = pair.receiver.read_datagram().await.unwrap();
        assert_eq!(came.len(), 1_000 + prefix.as_bytes().len());
        for at in [1_000, MAX_QUEUE_US + 1, 60_000_000] {
            assert!(way.has_room(None, Micros(at)), "{at} µs later");
        }
        // What does wait is seen, and for how long.
        let line = &way.lines[0];
        line.queue.handed(5_000);
        way.end_turn(Micros(70_000_000));
        assert_eq!(line.queue.waited_for(5_000, Micros(70_300_000)), 300_000);
    }
}
