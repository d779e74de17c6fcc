//! What one viewer makes of the packets that come: whether each frame is whole, right, in order and young enough. Holds no
//! packets; of each of the newest frames it knows which packets came.

use super::figures::{Counts, Fault, Named};
use super::payload::{self, Broken, Codec, Proof};
use std::collections::VecDeque;
use trocar_proto::media::rtp::Header;
use trocar_proto::media::seq::SeqExtender;

/// Frames that may be incomplete at a time; one more gives the oldest up.
const WINDOW: usize = 32;
/// Packets of one frame at most: 8K without compression has more, and is not what is generated here.
const MAX_PACKETS: usize = 8_192;
/// A frame id that jumps by more is no loss but a corrupted or foreign packet.
const MAX_JUMP: u32 = 100_000;

/// One frame under way.
#[derive(Debug, Default)]
struct Frame {
    id: u32,
    /// Packets that it has; 0 as long as none came.
    of: u16,
    came: u16,
    /// A bit for each packet that came.
    seen: Vec<u64>,
    /// A packet of it was corrupted.
    broken: bool,
    capture_us: u64,
    /// Whole, and told.
    done: bool,
}

impl Frame {
    /// Marks a packet; false where it was there.
    fn take(&mut self, index: u16) -> bool {
        let (word, bit) = (usize::from(index / 64), 1_u64 << (index % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let Some(w) = self.seen.get_mut(word) else { return false };
        let fresh = *w & bit == 0;
        *w |= bit;
        self.came += u16::from(fresh);
        fresh
    }

    fn has(&self, index: u16) -> bool {
        self.seen.get(usize::from(index / 64)).is_some_and(|w| w & (1 << (index % 64)) != 0)
    }
}

/// A frame came whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole {
    /// Frame id.
    pub(super) frame: u32,
    /// Now minus capture, on the clock of the test, in microseconds; none where it was captured before the leg was asked for: the
    /// relay had it in store, and how long it lay there is no delay.
    pub(super) age_us: Option<i64>,
}

/// How a leg brings its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// In the order of their numbers, one after the other. Streams have an order within each alone.
    pub(super) ordered: bool,
    /// By two paths: each packet may come twice.
    pub(super) copies: bool,
}

/// Checks one leg.
#[derive(Debug)]
pub(super) struct Checker {
    codec: Codec,
    feed: String,
    tag: u64,
    way: Way,
    stale_us: u64,
    /// When the leg was asked for, on the clock of the test.
    asked_us: u64,
    numbers: SeqExtender,
    frames: VecDeque<Frame>,
    /// The first frame that counts: a viewer may come within one.
    begun: Option<u32>,
    pub(super) counts: Counts,
    /// Faults since they were fetched; bounded by what one packet can tell.
    faults: Vec<Named>,
}

impl Checker {
    /// For a leg of that feed; frames older than `stale_us` are stale. All ages count, until [`Self::ask`] says from when on.
    pub(super) fn new(codec: Codec, feed: &str, tag: u64, way: Way, stale_us: u64) -> Self {
        Self {
            codec,
            feed: feed.to_owned(),
            tag,
            way,
            stale_us,
            asked_us: 0,
            numbers: SeqExtender::default(),
            frames: VecDeque::with_capacity(WINDOW + 1),
            begun: None,
            counts: Counts::default(),
            faults: Vec::new(),
        }
    }

    /// The leg is asked for now. A joiner first gets what the relay has in store: frames captured before count as whole, but have
    /// no age and are not stale.
    pub(super) const fn ask(&mut self, now_us: u64) {
        self.asked_us = now_us;
    }

    /// Faults that were found since the last call.
    pub(super) fn take_faults(&mut self) -> Vec<Named> {
        std::mem::take(&mut self.faults)
    }

    /// Takes an RTP packet that came at `now_us` of the clock of the test.
    pub(super) fn handle_packet(&mut self, now_us: u64, packet: &[u8]) -> Option<Whole> {
        let Ok(h) = Header::parse(packet) else {
            self.counts.packets_corrupted += 1;
            return None;
        };
        self.handle_payload(now_us, h.seq, h.payload(packet), packet.len())
    }

    /// The same for a packet that was taken apart already; `len` with its header.
    pub(super) fn handle_payload(&mut self, now_us: u64, seq: u16, payload: &[u8], len: usize) -> Option<Whole> {
        if payload.is_empty() {
            // Padding alone, which is nobody's.
            return None;
        }
        let late = self.way.ordered && self.numbers.highest().is_some_and(|h| self.numbers.peek(seq) < h);
        let (proof, right) = match payload::read(self.codec, payload) {
            Ok(proof) => (proof, true),
            Err(Broken::Corrupt(guess)) => (guess, false),
            Err(Broken::NoProof) => {
                self.counts.packets_corrupted += 1;
                return None;
            }
        };
        if proof.feed != self.tag {
            // A corrupted name is not another feed's.
            self.counts.packets_foreign += u64::from(right);
            self.counts.packets_corrupted += u64::from(!right);
            let fault = if right { Fault::Foreign } else { Fault::Corrupt };
            self.tell(fault, proof.frame, Some(proof.index));
            return None;
        }
        let Some(place) = self.place(proof) else {
            self.handle_outside(proof, right);
            return None;
        };
        let fresh = self.frames.get_mut(place).is_some_and(|f| {
            if right || f.of == 0 {
                (f.of, f.capture_us) = (proof.of, proof.capture.0);
            }
            f.broken |= !right;
            f.take(proof.index)
        });
        if !fresh {
            if !self.way.copies {
                self.counts.packets_duplicated += 1;
                self.tell(Fault::Duplicate, proof.frame, Some(proof.index));
            }
            return None;
        }
        self.numbers.extend(seq);
        self.counts.packets += 1;
        self.counts.bytes += len as u64;
        if !right {
            self.counts.packets_corrupted += 1;
            self.tell(Fault::Corrupt, proof.frame, Some(proof.index));
        }
        if late && !self.way.copies {
            self.counts.packets_reordered += 1;
            self.tell(Fault::Reorder, proof.frame, Some(proof.index));
        }
        self.complete(now_us, place)
    }

    /// A packet of a frame that is over, or from before the first that counts.
    fn handle_outside(&mut self, proof: Proof, right: bool) {
        if !right {
            self.counts.packets_corrupted += 1;
            self.tell(Fault::Corrupt, proof.frame, Some(proof.index));
        }
    }

    /// Where the frame of a packet stands in the window; none where it does not count.
    fn place(&mut self, p: Proof) -> Option<usize> {
        if p.index >= p.of || usize::from(p.of) > MAX_PACKETS {
            return None;
        }
        let Some(newest) = self.frames.back().map(|f| f.id) else {
            // A leg begins with the first packet of a frame.
            if p.index == 0 && self.begun.is_none() {
                self.begun = Some(p.frame);
                self.frames.push_back(Frame { id: p.frame, ..Frame::default() });
                return Some(0);
            }
            return None;
        };
        if p.frame > newest {
            if p.frame - newest > MAX_JUMP {
                return None;
            }
            let first = newest + 1;
            // Of a wide gap only the end has a place; the rest is lost at once.
            let kept = p.frame.saturating_sub(WINDOW as u32 - 1).max(first);
            for id in first..kept {
                self.give_up(&Frame { id, ..Frame::default() });
            }
            for id in kept..=p.frame {
                self.frames.push_back(Frame { id, ..Frame::default() });
            }
            while self.frames.len() > WINDOW {
                if let Some(oldest) = self.frames.pop_front() {
                    self.give_up(&oldest);
                }
            }
        }
        let oldest = self.frames.front()?.id;
        usize::try_from(p.frame.checked_sub(oldest)?).ok().filter(|i| *i < self.frames.len())
    }

    /// Tells of a frame whose last packet came.
    fn complete(&mut self, now_us: u64, place: usize) -> Option<Whole> {
        let f = self.frames.get_mut(place).filter(|f| f.came == f.of && !f.done)?;
        f.done = true;
        let (frame, broken, capture_us) = (f.id, f.broken, f.capture_us);
        if broken {
            self.counts.frames_lost += 1;
            return None;
        }
        self.counts.frames += 1;
        let age_us = (capture_us >= self.asked_us).then(|| now_us.wrapping_sub(capture_us).cast_signed());
        if age_us.is_some_and(|age| age > self.stale_us.cast_signed()) {
            self.counts.frames_stale += 1;
            self.tell(Fault::Stale, frame, None);
        }
        Some(Whole { frame, age_us })
    }

    /// A frame leaves the window.
    fn give_up(&mut self, f: &Frame) {
        // By streams the packets of the first frame may have come before the one that the viewer begins with.
        let excused = !self.way.ordered && self.begun == Some(f.id);
        if f.done || excused {
            return;
        }
        self.counts.frames_lost += 1;
        if f.of == 0 {
            self.tell(Fault::Missing, f.id, None);
        }
        for index in (0..f.of).filter(|i| !f.has(*i)) {
            self.counts.packets_missing += 1;
            self.tell(Fault::Missing, f.id, Some(index));
        }
    }

    fn tell(&mut self, fault: Fault, frame: u32, packet: Option<u16>) {
        self.faults.push(Named { fault, feed: self.feed.clone(), frame, packet });
    }

    /// The leg is over. Frames up to `last` should have come, those captured after `until_us` need not have.
    pub(super) fn finish(&mut self, last: Option<u32>, until_us: u64) {
        let newest = self.frames.back().map(|f| f.id);
        for f in std::mem::take(&mut self.frames) {
            // Of a frame of which nothing came it is known that a later one did.
            if f.of == 0 || f.capture_us <= until_us {
                self.give_up(&f);
            }
        }
        if let (Some(newest), Some(last)) = (newest, last) {
            for id in newest.saturating_add(1)..=last.min(newest.saturating_add(MAX_JUMP)) {
                self.give_up(&Frame { id, ..Frame::default() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::{Head, tag};
    use super::*;
    use trocar_proto::units::{Ssrc, WallMicros};

    const DATAGRAMS: Way = Way { ordered: true, copies: false };
    const PACKETS: u16 = 5;

    fn frame(id: u32, capture: u64) -> Vec<Vec<u8>> {
        let make = |index| {
            let proof = Proof { feed: tag(1, "f"), frame: id, index, of: PACKETS, capture: WallMicros(capture) };
            let seq = (id * u32::from(PACKETS) + u32::from(index)) as u16;
            payload::packet(Codec::H264, proof, id == 0, Head { seq, timestamp: id, ssrc: Ssrc(1) }, 300)
        };
        (0..PACKETS).map(make).collect()
    }

    /// Gives all packets of 100 frames, 10 ms apart and 5 ms old, to a viewer, as `change` makes them.
    fn run(way: Way, mut change: impl FnMut(u32, &mut Vec<Vec<u8>>)) -> (Counts, Vec<Named>) {
        let mut checker = Checker::new(Codec::H264, "f", tag(1, "f"), way, 50_000);
        let mut whole = 0;
        for id in 0..100 {
            let at = 1_000_000 + u64::from(id) * 10_000;
            let mut packets = frame(id, at);
            change(id, &mut packets);
            whole += packets.iter().filter_map(|p| checker.handle_packet(at + 5_000, p)).count();
        }
        checker.finish(Some(99), u64::MAX);
        assert_eq!(checker.counts.frames, whole as u64);
        (checker.counts, checker.take_faults())
    }

    fn named(fault: Fault, frame: u32, packet: Option<u16>) -> Named {
        Named { fault, feed: "f".to_owned(), frame, packet }
    }

    #[test]
    fn a_stream_without_faults_has_none() {
        let (counts, faults) = run(DATAGRAMS, |_, _| {});
        assert_eq!((counts.frames, counts.packets, faults), (100, 500, vec![]));
        assert_eq!(counts, Counts { frames: 100, packets: 500, bytes: 500 * 312, ..Counts::default() });
    }

    #[test]
    fn each_fault_is_counted_once_and_named() {
        let at = |id: u32| id == 50;
        let (c, faults) = run(DATAGRAMS, |id, p| drop(at(id).then(|| p.remove(2))));
        assert_eq!((c.frames_lost, c.packets_missing, faults), (1, 1, vec![named(Fault::Missing, 50, Some(2))]));
        let (c, faults) = run(DATAGRAMS, |id, p| {
            if at(id) {
                payload::corrupt(&mut p[3])
            }
        });
        assert_eq!((c.frames_lost, c.packets_corrupted, faults), (1, 1, vec![named(Fault::Corrupt, 50, Some(3))]));
        let (c, faults) = run(DATAGRAMS, |id, p| {
            if at(id) {
                p.swap(1, 2)
            }
        });
        assert_eq!((c.frames_lost, c.packets_reordered, faults), (0, 1, vec![named(Fault::Reorder, 50, Some(1))]));
        let (c, faults) = run(DATAGRAMS, |id, p| {
            if at(id) {
                *p = frame(50, 1)
            }
        });
        assert_eq!((c.frames_lost, c.frames_stale, faults), (0, 1, vec![named(Fault::Stale, 50, None)]));
        let (c, faults) = run(DATAGRAMS, |id, p| {
            if at(id) {
                p.push(p[4].clone())
            }
        });
        assert_eq!((c.packets_duplicated, faults), (1, vec![named(Fault::Duplicate, 50, Some(4))]));
        let (c, faults) = run(DATAGRAMS, |id, p| {
            if at(id) {
                p.clear()
            }
        });
        assert_eq!((c.frames_lost, c.packets_missing, faults), (1, 0, vec![named(Fault::Missing, 50, None)]));
    }

    #[test]
    fn a_packet_of_another_feed_is_told_from_a_corrupted_one() {
        let other = Proof { feed: tag(1, "g"), frame: 7, index: 0, of: 1, capture: WallMicros(1) };
        let stray = payload::packet(Codec::H264, other, true, Head { seq: 3, timestamp: 3, ssrc: Ssrc(1) }, 300);
        let (c, faults) = run(DATAGRAMS, |id, p| {
            if id == 50 {
                p.push(stray.clone())
            }
        });
        assert_eq!((c.packets_foreign, c.frames, faults), (1, 100, vec![named(Fault::Foreign, 7, Some(0))]));
    }

    #[test]
    fn what_is_lost_at_the_end_or_in_a_row_is_lost_and_what_came_before_the_first_frame_is_not() {
        let (c, faults) = run(DATAGRAMS, |id, p| {
            if id >= 98 {
                p.clear()
            }
        });
        assert_eq!((c.frames, c.frames_lost, faults.len()), (98, 2, 2));
        let (c, _) = run(DATAGRAMS, |id, p| {
            if (20..80).contains(&id) {
                p.clear()
            }
        });
        assert_eq!((c.frames, c.frames_lost), (40, 60));
        let (c, faults) = run(DATAGRAMS, |id, p| {
            if id == 0 {
                drop(p.remove(0))
            }
        });
        assert_eq!((c.frames, c.frames_lost, faults.len()), (99, 0, 0), "came within a frame");
    }

    #[test]
    fn what_the_relay_had_in_store_when_the_leg_was_asked_for_is_whole_and_neither_old_nor_stale() {
        // Frames from 1.00 s to 1.09 s that all come at 1.20 s: each is older than the limit of 50 ms.
        let ages = |asked_us: Option<u64>| {
            let mut checker = Checker::new(Codec::H264, "f", tag(1, "f"), DATAGRAMS, 50_000);
            asked_us.into_iter().for_each(|at| checker.ask(at));
            let packets = (0..10_u32).flat_map(|id| frame(id, 1_000_000 + u64::from(id) * 10_000));
            let whole: Vec<Whole> = packets.filter_map(|p| checker.handle_packet(1_200_000, &p)).collect();
            let stale = checker.take_faults().iter().filter(|f| f.fault == Fault::Stale).count();
            let counts = checker.counts;
            assert_eq!((whole.len(), counts.frames, counts.frames_stale), (10, 10, stale as u64));
            whole.iter().filter_map(|w| w.age_us).collect::<Vec<_>>()
        };
        assert_eq!(ages(Some(1_070_000)), [130_000, 120_000, 110_000], "the first one in the moment of asking");
        assert!(ages(Some(1_100_000)).is_empty());
        assert_eq!(ages(None).len(), 10, "the negative control");
    }

    #[test]
    fn a_viewer_that_leaves_has_not_lost_what_is_still_under_way() {
        let mut checker = Checker::new(Codec::H264, "f", tag(1, "f"), DATAGRAMS, 50_000);
        for id in 0..10_u32 {
            let packets = frame(id, 1_000_000 + u64::from(id) * 10_000);
            let came = if id == 9 || id == 3 { &packets[..2] } else { &packets[..] };
            assert!(came.iter().filter_map(|p| checker.handle_packet(1_200_000, p)).count() <= 1);
        }
        checker.finish(None, 1_080_000);
        assert_eq!((checker.counts.frames, checker.counts.frames_lost), (8, 1));
    }

    #[test]
    fn copies_of_a_second_path_and_the_order_of_streams_are_no_faults() {
        let both = Way { ordered: true, copies: true };
        let (c, faults) = run(both, |_, p| *p = [p.clone(), p.clone()].concat());
        assert_eq!((c.frames, c.packets, faults.len()), (100, 500, 0));
        let streams = Way { ordered: false, copies: false };
        let (c, faults) = run(streams, |_, p| p.reverse());
        assert_eq!((c.frames, faults.len()), (99, 0), "the first frame began without its first packet");
        assert!(run(DATAGRAMS, |_, p| p.reverse()).1.len() > 300, "the negative control");
    }
}
