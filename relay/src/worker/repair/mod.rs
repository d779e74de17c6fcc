//! Deadline repair of native lines: what publishers' datagrams lost is asked for or restored, and what viewers' lost is sent
//! again or covered by redundancy. Frames that go by streams are repeated by QUIC and have no part in it.

pub(super) mod figures;

use super::native::RoqWay;
use super::state::{Core, FeedEntry, LegEntry, Origin, Way, random_u32};
use std::time::Instant;
use trocar_proto::media::fec::receive::{Due, RepairConfig, RepairReceiver, Verdict};
use trocar_proto::media::fec::send::{FecStream, RepairSender};
use trocar_proto::media::fec::{packet_of, receive};
use trocar_proto::media::rtp::Header;
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, RoqMode, Transport};
use trocar_proto::units::{Micros, Ssrc};

/// How much later a second path may bring a packet than the first, in microseconds: so long it is not asked for.
const SKEW_US: u64 = 50_000;
/// RTCP packets to one publisher in a turn at most: what is left is asked for in the next one.
const MAX_DUE: usize = 64;

/// Why the worker looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// Its clock: reports are due as well.
    Tick,
    /// Somebody waits for this moment.
    Wake,
}

/// Microseconds of a budget.
const fn budget_us(d: &FeedDescriptor) -> u64 {
    d.budget_ms as u64 * 1_000
}

/// Round trip and variation of a connection, in microseconds: quinn tells the first alone.
pub(super) fn round_trip(connection: &quinn::Connection) -> (u64, u64) {
    let us = u64::try_from(connection.rtt().as_micros()).unwrap_or(u64::MAX);
    (us, us / 16 + 250)
}

/// The repair of a feed that comes in by datagrams.
pub(super) fn of_feed(d: &FeedDescriptor, origin: &Origin, is_foreign: bool) -> Option<Box<RepairReceiver>> {
    let datagrams = matches!(d.transport, Transport::Roq { mode: RoqMode::Datagram, .. });
    let by_quic = matches!(origin, Origin::Roq { .. });
    (datagrams && by_quic).then(|| receiver(d, is_foreign))
}

/// The repair of a feed that is fetched from another relay: by datagrams, whatever its publisher sends it by.
pub(super) fn of_cascade(d: &FeedDescriptor) -> Box<RepairReceiver> {
    receiver(d, false)
}

fn receiver(d: &FeedDescriptor, is_foreign: bool) -> Box<RepairReceiver> {
    // What a foreign publisher sends is stored with other extensions than it came with, and so cannot be restored.
    let fec_payload_type = d.fec.filter(|_| !is_foreign).map(|f| f.payload_type);
    Box::new(RepairReceiver::new(RepairConfig { budget_us: budget_us(d), rate: d.max_bitrate, fec_payload_type }))
}

/// The repair of a leg that leaves by datagrams.
pub(super) fn of_leg(d: &FeedDescriptor, mode: RoqMode) -> Option<Box<RepairSender>> {
    let fec = d.fec.map(|f| FecStream {
        ssrc: Ssrc(random_u32()),
        payload_type: f.payload_type,
        first_seq: (random_u32() & 0x7fff) as u16,
    });
    (mode == RoqMode::Datagram).then(|| Box::new(RepairSender::new(d.max_bitrate, budget_us(d), fec)))
}

/// A packet left by a native leg: redundancy for it follows where its block is full.
pub(super) fn note_sent(repair: &mut RepairSender, way: &mut RoqWay, packet: &[u8], ends: bool, at: Micros) {
    repair.handle_sent(at, packet, ends);
    send_redundancy(repair, way);
}

/// When redundancy of a leg is due that waits for small frames.
pub(super) fn next_wakeup(leg: &LegEntry) -> Option<Micros> {
    leg.repair.as_ref()?.next_wakeup()
}

/// Loss policy: redundancy that the connection does not take as a datagram is not sent.
fn send_redundancy(repair: &mut RepairSender, way: &mut RoqWay) {
    while let Some(packet) = repair.poll_repair() {
        way.send_redundancy(packet);
    }
}

impl Core {
    /// A packet of a native publisher, which goes to its feed where it is one and in time.
    pub(super) fn take_native(&mut self, index: usize, now: Instant, packet: &[u8]) {
        let at = self.micros(now);
        let (Some(FeedEntry { feed, repair: Some(repair), .. }), Ok(h)) =
            (self.feeds.get_mut(index), Header::parse(packet))
        else {
            return self.store(index, now, packet);
        };
        match repair.handle_packet(at, &h) {
            Verdict::Late => return,
            Verdict::Repair => {
                repair.handle_repair(at, packet, |s| packet_of(feed, s).map(|(.., p)| p));
            }
            Verdict::Take => {
                let newest = feed.highest().is_none_or(|(_, n)| n.low16().wrapping_add(1) == h.seq);
                self.store(index, now, packet);
                if !newest && let Some(FeedEntry { feed, repair: Some(repair), .. }) = self.feeds.get_mut(index) {
                    repair.handle_stored(h.seq, |s| packet_of(feed, s).map(|(.., p)| p));
                }
            }
        }
        // At most what one repair packet or one late packet brings back.
        while let Some(restored) = self.repair_of(index).and_then(|r| r.poll_restored(at)) {
            self.store(index, now, &restored);
        }
        if let Some(when) = self.repair_of(index).and_then(|r| r.next_wakeup(at)) {
            self.wake_by(when);
        }
    }

    fn repair_of(&mut self, feed: usize) -> Option<&mut RepairReceiver> {
        self.feeds.get_mut(feed)?.repair.as_deref_mut()
    }

    /// What publishers are asked for now, and redundancy that waits for small frames no longer. Between ticks only of those that
    /// wait for something.
    pub(super) fn poll_repairs(&mut self, now: Instant, at: Micros, by: Occasion) {
        for index in 0..self.feeds.capacity() {
            let repair = self.feeds.get(index).and_then(|f| f.repair.as_ref());
            if repair.is_some_and(|r| by == Occasion::Tick || r.next_wakeup(at).is_some()) {
                self.ask_publisher(index, now, at);
            }
        }
        let mut next: Option<Micros> = None;
        for (_, leg) in &mut self.legs {
            let LegEntry { repair: Some(repair), way: Way::Roq(way), .. } = leg else { continue };
            if repair.next_wakeup().is_some_and(|t| t <= at) {
                repair.handle_timeout(at);
                send_redundancy(repair, way);
            }
            next = repair.next_wakeup().into_iter().chain(next).min();
        }
        if let Some(when) = next {
            self.wake_by(when);
        }
    }

    fn ask_publisher(&mut self, index: usize, now: Instant, at: Micros) {
        let Some(FeedEntry { origin: Origin::Roq { paths, .. }, repair: Some(repair), .. }) = self.feeds.get_mut(index)
        else {
            return;
        };
        let Some(connection) = paths.connection() else { return };
        let (round_trip_us, variation_us) = round_trip(connection);
        repair.set_round_trip(round_trip_us, variation_us);
        repair.set_patience(if paths.count() > 1 { SKEW_US } else { 0 });
        for _ in 0..MAX_DUE {
            let Some(entry) = self.feeds.get_mut(index) else { return };
            let Some(Due { rtcp, copies }) = entry.repair.as_mut().and_then(|r| r.poll_rtcp(at, entry.receiver_ssrc))
            else {
                break;
            };
            for _ in 0..copies.min(receive::QUESTIONS) {
                self.send_upstream(index, now, rtcp.clone());
            }
        }
        let Some(entry) = self.feeds.get_mut(index) else { return };
        let Some(repair) = &mut entry.repair else { return };
        let wanted = repair.poll_given_up() && entry.descriptor.kind == MediaKind::Video && !entry.legs.is_empty();
        let next = repair.next_wakeup(at);
        if wanted {
            // What depends on the frame that was given up cannot be decoded. Spaced like every request.
            entry.feed.handle_key_frame_request();
            self.ask_key_frame(index, now, at);
        }
        if let Some(when) = next {
            self.wake_by(when);
        }
    }

    /// RTCP of a native viewer: what it lost is sent again where that comes in time, and what it tells of loss is noted.
    pub(super) fn answer_native(&mut self, index: usize, now: Instant, rtcp: &[u8]) {
        let at = self.micros(now);
        let Self { feeds, legs, .. } = self;
        let Some(LegEntry { leg, repair: Some(repair), way: Way::Roq(way), feed, .. }) = legs.get_mut(index) else {
            return;
        };
        let Some(FeedEntry { feed, .. }) = feed.and_then(|f| feeds.get(f)) else { return };
        if let Some(connection) = way.connection() {
            let (round_trip_us, variation_us) = round_trip(connection);
            repair.set_round_trip(at, round_trip_us, variation_us);
        }
        for seq in repair.handle_rtcp(at, rtcp) {
            let stored = leg.handle_verbatim_nack(feed, seq).and_then(|stored| feed.ring().get(stored));
            let Some((info, packet)) = stored else {
                repair.count_gone();
                continue;
            };
            for _ in 0..repair.admit(at, seq, info.arrived, packet.len()) {
                way.send_again(packet, now);
            }
        }
    }
}
