//! Which packets were sent when, until the receiver tells what became of them.

use super::PacketResult;
use crate::media::seq::nearest;
use crate::media::twcc::Feedback;
use crate::units::{Bitrate, Micros};
use std::ops::Range;

/// A feedback comes this long after a packet at most, in microseconds: a round trip and an interval.
const REMEMBERED_US: u64 = 600_000;
/// Packets remembered, whatever the rate.
const SLOTS_MIN: usize = 256;
const SLOTS_MAX: usize = 16_384;
/// Packets counted with this many bytes where only a rate is known.
const PACKET_BYTES: u64 = 1_000;
/// A tick of the feedback, in microseconds, and ticks of its reference time.
const TICK_US: i64 = 250;
const REFERENCE_TICKS: i64 = 256;
/// The reference time has so many bits.
const REFERENCE_BITS: u32 = 24;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Number plus one, low bits; 0: empty.
    tag: u32,
    bytes: u32,
    sent: Micros,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Unknown,
    /// Not there by the newest feedback. It is lost if the next one does not know it either.
    Missing,
    /// Told as lost.
    Lost,
    /// Told as arrived.
    Arrived,
}

/// Remembers packets by their transport-wide number. Loss policy: what is older than the slots is forgotten untold.
#[derive(Debug)]
pub struct SentLog {
    slots: Box<[Slot]>,
    /// Number after the highest noted.
    next: u64,
    /// Numbers from here on may be missing in the feedback before.
    unsettled: u64,
    /// Number after the last that a feedback was about.
    reported: u64,
    reference: Option<i64>,
    /// Of the packet told last.
    delay: Option<i64>,
    results: Vec<PacketResult>,
}

impl SentLog {
    /// Room for what a line of that rate has under way.
    #[must_use]
    pub fn new(rate: Bitrate) -> Self {
        let packets = rate.0 / (8 * PACKET_BYTES) * REMEMBERED_US / 1_000_000;
        let slots = usize::try_from(packets).unwrap_or(SLOTS_MAX).clamp(SLOTS_MIN, SLOTS_MAX).next_power_of_two();
        Self {
            slots: vec![Slot::default(); slots].into_boxed_slice(),
            next: 0,
            unsettled: 0,
            reported: 0,
            reference: None,
            delay: None,
            results: Vec::with_capacity(slots / 4),
        }
    }

    /// A packet with that transport-wide number (widened, its low 16 bits travel) leaves now.
    pub fn note(&mut self, seq: u64, bytes: u32, now: Micros) {
        if let Some(slot) = self.slot(seq) {
            *slot = Slot { tag: tag(seq), bytes, sent: now, fate: Fate::Unknown };
        }
        self.next = self.next.max(seq + 1);
    }

    /// What a feedback tells, packet by packet. A packet that it misses is lost only when the feedback after it misses it as
    /// well, so that one out of order is not taken for lost; one that comes after all is told as arrived. What no
    /// feedback was about (the feedback was lost) is told as arrived with the delay of its neighbours, so that rates stay
    /// right.
    pub fn handle_feedback(&mut self, feedback: &Feedback) -> &[PacketResult] {
        self.results.clear();
        let Some(highest) = self.next.checked_sub(1) else { return &self.results };
        let first = nearest(highest, feedback.base);
        if first > highest || first + (self.slots.len() as u64) < self.next {
            return &self.results;
        }
        let reference = self.widen(feedback.reference);
        let settled = self.reported;
        let mut end = first;
        // Numbers between the feedback before and this one.
        let mut unknown = if self.reported > 0 { self.reported..first } else { 0..0 };
        for (offset, (_, ticks)) in feedback.times().enumerate() {
            let seq = first + offset as u64;
            if seq > highest {
                break;
            }
            end = seq + 1;
            let arrived = ticks.map(|t| (reference * REFERENCE_TICKS + t) * TICK_US);
            if let Some(at) = arrived {
                self.fill(seq, at, &mut unknown);
            }
            self.tell(seq, arrived);
        }
        self.settle(settled);
        self.reported = self.reported.max(end);
        &self.results
    }

    /// Tells what no feedback was about, given the arrival of the first packet after it: once.
    fn fill(&mut self, seq: u64, arrived: i64, unknown: &mut Range<u64>) {
        if unknown.is_empty() || (unknown.end - unknown.start) > self.slots.len() as u64 / 2 {
            return;
        }
        let Some(sent) = self.slot(seq).filter(|s| s.tag == tag(seq)).map(|s| s.sent) else { return };
        let delay = arrived.wrapping_sub(sent.0.cast_signed());
        let delay = self.delay.map_or(delay, |before| before.midpoint(delay));
        for n in std::mem::take(unknown) {
            if let Some(s) = self.slot(n).filter(|s| s.tag == tag(n)) {
                let at = s.sent.0.cast_signed().wrapping_add(delay);
                self.tell(n, Some(at));
            }
        }
    }

    fn tell(&mut self, seq: u64, arrived: Option<i64>) {
        let Some(slot) = self.slot(seq).filter(|s| s.tag == tag(seq)) else { return };
        match (arrived, slot.fate) {
            (Some(_), Fate::Unknown | Fate::Missing | Fate::Lost) => {
                slot.fate = Fate::Arrived;
                let result = PacketResult { bytes: slot.bytes, sent: slot.sent, arrived };
                self.delay = arrived.map(|a| a.wrapping_sub(slot.sent.0.cast_signed()));
                self.results.push(result);
            }
            (None, Fate::Unknown) => slot.fate = Fate::Missing,
            _ => {}
        }
    }

    /// What the feedback before this one missed, and this one as well, is lost.
    fn settle(&mut self, until: u64) {
        let oldest = self.next.saturating_sub(self.slots.len() as u64);
        for seq in self.unsettled.max(oldest)..until {
            let Some(slot) = self.slot(seq).filter(|s| s.tag == tag(seq) && s.fate == Fate::Missing) else { continue };
            slot.fate = Fate::Lost;
            let result = PacketResult { bytes: slot.bytes, sent: slot.sent, arrived: None };
            self.results.push(result);
        }
        self.unsettled = self.unsettled.max(until);
    }

    /// The reference time without its wrap.
    fn widen(&mut self, reference: u32) -> i64 {
        let narrow = i64::from(reference & ((1 << REFERENCE_BITS) - 1));
        let wide = self.reference.map_or(narrow, |last| {
            let span = 1_i64 << REFERENCE_BITS;
            let step = (narrow - last).rem_euclid(span);
            last + if step >= span / 2 { step - span } else { step }
        });
        self.reference = Some(wide);
        wide
    }

    fn slot(&mut self, seq: u64) -> Option<&mut Slot> {
        let mask = self.slots.len() as u64 - 1;
        self.slots.get_mut((seq & mask) as usize)
    }
}

const fn tag(seq: u64) -> u32 {
    // Never 0, which is an empty slot; numbers so far apart are never in one log.
    (seq as u32) | 0x8000_0000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::twcc::Recorder;

    const RATE: Bitrate = Bitrate(20_000_000);

    /// Sends packets each millisecond, of which some are lost and some come late, and feeds back what a receiver records;
    /// (number, result) by the size that each packet has alone.
    fn run(
        first: u64,
        n: u64,
        arrives: impl Fn(u64) -> Option<u64>,
        feedback_lost: impl Fn(u64) -> bool,
    ) -> Vec<(u64, PacketResult)> {
        let (mut log, mut recorder) = (SentLog::new(RATE), Recorder::default());
        let mut under_way: Vec<(u64, u64)> = Vec::new();
        let (mut told, mut feedbacks) = (Vec::new(), 0);
        for t in 0..n + 300 {
            let now = Micros(7_000_000 + t * 1_000);
            if t < n {
                log.note(first + t, 100 + t as u32, now);
                under_way.extend(arrives(t).map(|delay_ms| (t + delay_ms, t)));
            }
            under_way.sort_unstable();
            while under_way.first().is_some_and(|(at, _)| *at <= t) {
                recorder.handle_packet(now, (first + under_way.remove(0).1) as u16);
            }
            while let Some(f) = recorder.poll(now) {
                feedbacks += 1;
                if !feedback_lost(feedbacks) {
                    told.extend(log.handle_feedback(&f).iter().map(|r| (u64::from(r.bytes) - 100, *r)));
                }
            }
        }
        told
    }

    #[test]
    fn every_packet_is_told_once_with_its_times_over_the_wrap_of_the_numbers() {
        let told = run(65_000, 2_000, |t| (t % 10 != 3).then_some(20), |_| false);
        // The last ones have no feedback after them that would settle them.
        let mut numbers: Vec<u64> = told.iter().map(|t| t.0).filter(|t| *t < 1_900).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..1_900));
        for (t, r) in told {
            assert_eq!(r.sent, Micros(7_000_000 + t * 1_000));
            assert_eq!(r.arrived, (t % 10 != 3).then_some(7_000_000 + (t as i64 + 20) * 1_000));
        }
    }

    #[test]
    fn a_packet_out_of_order_is_not_lost_and_one_far_too_late_is_told_as_lost_and_then_as_arrived() {
        let told = run(0, 1_000, |t| Some(if t == 500 { 35 } else { 5 }), |_| false);
        assert!(told.iter().all(|(_, r)| r.arrived.is_some()) && told.len() == 1_000);
        let told = run(0, 1_000, |t| Some(if t == 500 { 205 } else { 5 }), |_| false);
        let late: Vec<bool> = told.iter().filter(|t| t.0 == 500).map(|t| t.1.arrived.is_some()).collect();
        assert_eq!(late, vec![false, true]);
    }

    #[test]
    fn what_a_lost_feedback_was_about_is_told_as_arrived_with_the_delay_of_its_neighbours() {
        let told = run(0, 1_000, |t| (t % 10 != 3).then_some(5), |n| n % 3 == 0);
        assert!(told.iter().filter_map(|(_, r)| Some((r.arrived?, r.sent))).all(|(a, s)| a - s.0 as i64 == 5_000));
        let lost = told.iter().filter(|(_, r)| r.arrived.is_none()).count();
        assert!(told.len() > 930 && (55..75).contains(&lost), "{} told, {lost} lost", told.len());
    }

    #[test]
    fn feedback_about_what_was_never_sent_or_is_forgotten_tells_nothing() {
        let mut log = SentLog::new(RATE);
        let f = |base| Feedback { base, reference: 5, count: 0, arrivals: vec![Some(1), None, Some(2)] };
        assert!(log.handle_feedback(&f(3)).is_empty());
        for seq in 0..60_000 {
            log.note(seq, 1, Micros(seq));
        }
        assert!(log.handle_feedback(&f(60_010)).is_empty(), "not sent yet");
        assert!(log.handle_feedback(&f(40_000)).is_empty(), "forgotten");
        assert_eq!(log.handle_feedback(&f(59_000)).len(), 2, "the control");
    }

    #[test]
    fn the_reference_time_goes_on_over_its_wrap() {
        let mut log = SentLog::new(RATE);
        let mut arrived = Vec::new();
        for (seq, reference) in [(0, 0x00ff_fffe_u32), (1, 1), (2, 0x00ff_ffff)] {
            log.note(seq, 1, Micros(0));
            let f = Feedback { base: seq as u16, reference, count: 0, arrivals: vec![Some(0)] };
            arrived.extend(log.handle_feedback(&f).iter().filter_map(|r| r.arrived));
        }
        let gaps: Vec<i64> = arrived.windows(2).map(|w| w[1] - w[0]).collect();
        assert_eq!(gaps, vec![3 * 64_000, -2 * 64_000]);
    }
}
