//! Transport-wide feedback: when each packet of a publisher came, whatever its SSRC
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01). A browser that publishes sets its rate by this.

use super::bytes::be16;
use super::seq::nearest;
use crate::units::Micros;
use std::collections::VecDeque;

/// Time from one feedback to the next, in microseconds.
pub const INTERVAL_US: u64 = 50_000;
/// Numbers remembered. Loss policy: the oldest is forgotten, unreported if it had not been.
pub const MAX_REMEMBERED: usize = 4_096;
/// Arrivals reported by one feedback at most, so that it fits a datagram whatever the pattern of loss.
pub const MAX_ARRIVALS: usize = 230;
/// Packets that one feedback may be about when it is read: what 400 Mbit/s bring in a tenth of a second, three times over.
/// A few bytes can name 65,535.
pub const MAX_REPORTED: usize = 12_288;
/// A jump of more than this many numbers is another beginning.
const MAX_JUMP: i64 = 3_000;
/// Arrival times travel in ticks of 250 µs.
const TICK_US: u64 = 250;
/// The reference time travels in units of 64 ms, which are this many ticks.
const TICKS_OF_REFERENCE: u64 = 256;

/// One feedback packet without its RTCP header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// Transport-wide number of the first packet that it is about.
    pub base: u16,
    /// Reference time, 24 bits, in units of 64 ms since an origin that only the receiver knows.
    pub reference: u32,
    /// Number of this feedback, wrapping.
    pub count: u8,
    /// For each number from the base on: ticks of 250 µs since the arrival before (for the first, since the reference
    /// time), or none where it has not come.
    pub arrivals: Vec<Option<i16>>,
}

/// Why the bytes are no feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FeedbackError {
    /// Shorter than it says.
    #[error("transport-wide feedback is cut short")]
    TooShort,
    /// A two-bit status symbol that means nothing.
    #[error("transport-wide feedback has a reserved status symbol")]
    Symbol,
    /// It is about more packets than anybody reports at once.
    #[error("transport-wide feedback is about {0} packets; at most {MAX_REPORTED} are read")]
    TooMany(usize),
}

/// Two-bit status symbols (section 3.1.1).
const LOST: u8 = 0;
const SMALL: u8 = 1;
const LARGE: u8 = 2;
/// Largest count of a run-length chunk.
const MAX_RUN: usize = 0x1fff;

impl Feedback {
    /// The bytes after the two SSRCs of the RTCP packet, without padding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = u16::try_from(self.arrivals.len()).unwrap_or(u16::MAX);
        let mut out = Vec::with_capacity(8 + 3 * self.arrivals.len());
        out.extend_from_slice(&self.base.to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&((self.reference << 8) | u32::from(self.count)).to_be_bytes());
        let reported = self.arrivals.get(..usize::from(count)).unwrap_or(&[]);
        let symbols: Vec<u8> = reported.iter().map(|a| symbol(*a)).collect();
        write_chunks(&mut out, &symbols);
        for delta in reported.iter().flatten() {
            match u8::try_from(*delta) {
                Ok(small) => out.push(small),
                Err(_) => out.extend_from_slice(&delta.to_be_bytes()),
            }
        }
        out
    }

    /// From those bytes; padding after them is left alone.
    ///
    /// # Errors
    /// See [`FeedbackError`]; never panics.
    pub fn parse(fci: &[u8]) -> Result<Self, FeedbackError> {
        let short = FeedbackError::TooShort;
        let base = be16(fci, 0).ok_or(short)?;
        let count = usize::from(be16(fci, 2).ok_or(short)?);
        let &[a, b, c, number] = fci.get(4..8).and_then(|s| s.first_chunk()).ok_or(short)?;
        let mut rest = fci.get(8..).unwrap_or(&[]);
        if count > MAX_REPORTED {
            return Err(FeedbackError::TooMany(count));
        }
        let mut symbols = Vec::with_capacity(count);
        // Each turn takes two bytes, and at most `count` symbols are kept.
        while symbols.len() < count {
            let chunk = be16(rest, 0).ok_or(short)?;
            rest = rest.get(2..).unwrap_or(&[]);
            read_chunk(chunk, count - symbols.len(), &mut symbols)?;
        }
        let mut arrivals = Vec::with_capacity(symbols.len());
        for s in symbols {
            let len = usize::from(s);
            let delta = match s {
                SMALL => Some(i16::from(*rest.first().ok_or(short)?)),
                LARGE => Some(be16(rest, 0).ok_or(short)?.cast_signed()),
                _ => None,
            };
            rest = rest.get(len..).unwrap_or(&[]);
            arrivals.push(delta);
        }
        Ok(Self { base, reference: u32::from_be_bytes([0, a, b, c]), count: number, arrivals })
    }

    /// For each number: when it came, in ticks of 250 µs since the reference time, or none.
    pub fn times(&self) -> impl Iterator<Item = (u16, Option<i64>)> + '_ {
        let mut at = 0_i64;
        self.arrivals.iter().zip(0_u16..).map(move |(a, i)| {
            let time = a.map(|delta| {
                at += i64::from(delta);
                at
            });
            (self.base.wrapping_add(i), time)
        })
    }
}

fn symbol(arrival: Option<i16>) -> u8 {
    match arrival {
        None => LOST,
        Some(0..=255) => SMALL,
        Some(_) => LARGE,
    }
}

/// Runs of seven and more as one chunk, everything else as vectors of seven two-bit symbols.
fn write_chunks(out: &mut Vec<u8>, mut symbols: &[u8]) {
    while let Some(&first) = symbols.first() {
        let run = symbols.iter().take(MAX_RUN).take_while(|s| **s == first).count();
        let (chunk, taken) = if run >= 7 {
            ((u16::from(first) << 13) | u16::try_from(run).unwrap_or(0), run)
        } else {
            let seven = symbols.iter().copied().chain(std::iter::repeat(LOST)).take(7);
            (seven.fold(0b11, |c, s| (c << 2) | u16::from(s)), 7)
        };
        out.extend_from_slice(&chunk.to_be_bytes());
        symbols = symbols.get(taken..).unwrap_or(&[]);
    }
}

/// Adds the symbols of a chunk, at most `wanted`.
fn read_chunk(chunk: u16, wanted: usize, symbols: &mut Vec<u8>) -> Result<(), FeedbackError> {
    let mut add = |s: u16, count: usize| {
        if s > u16::from(LARGE) {
            return Err(FeedbackError::Symbol);
        }
        symbols.resize(symbols.len() + count, s as u8);
        Ok(())
    };
    if chunk & 0x8000 == 0 {
        return add((chunk >> 13) & 3, usize::from(chunk & 0x1fff).min(wanted));
    }
    let (each, held) = if chunk & 0x4000 == 0 { (1_u16, 14_u16) } else { (2, 7) };
    for i in (0..held).rev().take(wanted) {
        add((chunk >> (i * each)) & ((1 << each) - 1), 1)?;
    }
    Ok(())
}

/// Remembers when packets came and reports it.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Number of the first entry of `arrivals`.
    oldest: u64,
    arrivals: VecDeque<Option<Micros>>,
    /// Where the next feedback begins.
    next: u64,
    /// Something came that has not been reported; since then a feedback is due.
    due: Option<Micros>,
    last: Option<Micros>,
    count: u8,
}

impl Recorder {
    /// Takes the transport-wide number of a packet that came at `now`, probes and repairs included.
    pub fn handle_packet(&mut self, now: Micros, transport_seq: u16) {
        let seq = self.place(transport_seq);
        // A number from before what is remembered is forgotten, a second copy changes nothing.
        let Some(at) = seq.checked_sub(self.oldest).and_then(|d| usize::try_from(d).ok()) else { return };
        while self.arrivals.len() <= at {
            self.arrivals.push_back(None);
        }
        match self.arrivals.get_mut(at) {
            Some(slot @ None) => *slot = Some(now),
            _ => return,
        }
        // What was reported as lost is reported again.
        self.next = self.next.min(seq);
        let due = self.last.map_or(now.plus(INTERVAL_US), |l| l.plus(INTERVAL_US).max(now));
        self.due.get_or_insert(due);
        while self.arrivals.len() > MAX_REMEMBERED {
            self.arrivals.pop_front();
            self.oldest += 1;
        }
        self.next = self.next.max(self.oldest);
    }

    /// Widens the number; begins anew after a long jump.
    fn place(&mut self, transport_seq: u16) -> u64 {
        let highest = (self.oldest + self.arrivals.len() as u64).checked_sub(1);
        if let Some(highest) = highest.filter(|_| !self.arrivals.is_empty()) {
            let seq = nearest(highest, transport_seq);
            if seq.cast_signed().wrapping_sub(highest.cast_signed()).abs() <= MAX_JUMP {
                return seq;
            }
        }
        // A few numbers below, so that packets from before the first have a place.
        let seq = 0x1_0000 + u64::from(transport_seq);
        self.arrivals.clear();
        // All at once: on a packet's way nothing is to grow later.
        self.arrivals.reserve(MAX_REMEMBERED + 1);
        self.oldest = seq - 64;
        self.next = seq;
        seq
    }

    /// The next feedback where one is due. To be called until none: what does not fit one packet (too many arrivals, or
    /// two that are more than 8 s apart) goes into another.
    pub fn poll(&mut self, now: Micros) -> Option<Feedback> {
        if self.due.is_none_or(|d| d > now) {
            return None;
        }
        let Some(feedback) = self.build() else {
            self.due = None;
            self.last = Some(now);
            return None;
        };
        self.count = self.count.wrapping_add(1);
        Some(feedback)
    }

    /// Of what has not been reported, as much as fits. Ends with an arrival; none where there is none.
    fn build(&mut self) -> Option<Feedback> {
        let base = self.next;
        let skip = usize::try_from(base.saturating_sub(self.oldest)).ok()?;
        let mut arrivals = Vec::new();
        let (mut reference, mut last, mut came) = (0, 0, 0);
        let mut kept = 0;
        for arrival in self.arrivals.iter().skip(skip) {
            let Some(at) = arrival else {
                arrivals.push(None);
                continue;
            };
            let ticks = at.0 / TICK_US;
            if came == 0 {
                reference = ticks / TICKS_OF_REFERENCE;
                last = reference * TICKS_OF_REFERENCE;
            }
            let delta = ticks.cast_signed().wrapping_sub(last.cast_signed());
            let Some(delta) = i16::try_from(delta).ok().filter(|_| came < MAX_ARRIVALS) else { break };
            arrivals.push(Some(delta));
            last = ticks;
            came += 1;
            kept = arrivals.len();
        }
        arrivals.truncate(kept);
        if arrivals.is_empty() {
            return None;
        }
        self.next = base + arrivals.len() as u64;
        let reference = (reference & 0x00ff_ffff) as u32;
        Some(Feedback { base: (base & 0xffff) as u16, reference, count: self.count, arrivals })
    }
}

#[cfg(test)]
mod tests {
    use super::super::rtcp::{Builder, Compound, Rtcp};
    use super::*;
    use crate::link::rng::Rng;
    use crate::units::Ssrc;
    use std::collections::BTreeMap;

    fn through_rtcp(f: &Feedback) -> Feedback {
        let bytes = Builder::default().transport_feedback(Ssrc(1), Ssrc(2), f).finish();
        assert!(bytes.len() <= 1_400, "{} bytes", bytes.len());
        assert_eq!(bytes.len() % 4, 0);
        let parts: Vec<_> = Compound::new(&bytes).collect();
        let [Rtcp::TransportFeedback { media: Ssrc(2), fci }] = parts[..] else { panic!("{parts:?}") };
        Feedback::parse(fci).unwrap()
    }

    fn all(r: &mut Recorder, now: Micros) -> Vec<Feedback> {
        std::iter::from_fn(|| r.poll(now)).collect()
    }

    #[test]
    fn the_bytes_are_those_of_the_draft() {
        let arrivals = vec![Some(4), None, Some(-1), Some(256), Some(0), Some(0), Some(0), Some(0)];
        let f = Feedback { base: 0xfffe, reference: 0x01_0203, count: 9, arrivals };
        let head = [0xff, 0xfe, 0, 8, 1, 2, 3, 9];
        // Seven symbols 1 0 2 2 1 1 1, then one that is 1.
        let chunks = [0b1101_0010, 0b1001_0101, 0b1101_0000, 0];
        let deltas = [4, 0xff, 0xff, 1, 0, 0, 0, 0, 0];
        assert_eq!(f.to_bytes(), [&head[..], &chunks, &deltas].concat());
        assert_eq!(Feedback::parse(&f.to_bytes()), Ok(f.clone()));
        let times: Vec<_> = f.times().take(4).collect();
        assert_eq!(times, vec![(0xfffe, Some(4)), (0xffff, None), (0, Some(3)), (1, Some(259))]);
    }

    #[test]
    fn one_bit_vectors_and_runs_of_others_are_read() {
        // Fourteen one-bit symbols, of which twelve count, then a run of 3 losses and one of 2 large deltas.
        let p = [0, 7, 0, 5, 0, 0, 0, 0, 0x00, 0x03, 0x40, 0x02, 0x01, 0x00, 0xff, 0x00];
        assert_eq!(Feedback::parse(&p).unwrap().arrivals, vec![None, None, None, Some(256), Some(-256)]);
        let p = [0, 7, 0, 12, 0, 0, 0, 0, 0b1010_0000, 0b0000_0111, 5, 6];
        let a = Feedback::parse(&p).unwrap().arrivals;
        assert_eq!((a.len(), a[0], a[11]), (12, Some(5), Some(6)));
    }

    #[test]
    fn a_run_longer_than_the_packets_is_cut() {
        let p = [0, 7, 0, 2, 0, 0, 0, 0, 0x3f, 0xff, 5, 6];
        assert_eq!(Feedback::parse(&p).unwrap().arrivals, vec![Some(5), Some(6)]);
    }

    #[test]
    fn unknown_symbols_and_truncated_packets_are_refused() {
        for chunk in [[0x60, 0x01], [0b1111_0000, 0], [0b1100_0000, 0b0000_0011]] {
            let p = [&[0, 7, 0, 7, 0, 0, 0, 0][..], &chunk, &[0; 20]].concat();
            let want = if chunk[0] == 0x60 { 1 } else { 7 };
            assert_eq!(Feedback::parse(&p), Err(FeedbackError::Symbol), "{want}");
        }
        let f = Feedback { base: 1, reference: 2, count: 3, arrivals: vec![Some(300), None, Some(1), Some(2)] };
        let whole = f.to_bytes();
        for n in 0..whole.len() {
            assert_eq!(Feedback::parse(&whole[..n]), Err(FeedbackError::TooShort), "{n} bytes");
        }
        // Ten bytes that are about more packets than anybody sends meanwhile.
        let many = (MAX_REPORTED + 1) as u16;
        let p = [&[0, 7][..], &many.to_be_bytes(), &[0, 0, 0, 0, 0x1f, 0xff]].concat();
        assert_eq!(Feedback::parse(&p), Err(FeedbackError::TooMany(MAX_REPORTED + 1)));
        // Chunks of nothing, to the end of the packet.
        assert_eq!(Feedback::parse(&[0, 7, 0x2f, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]), Err(FeedbackError::TooShort));
    }

    #[test]
    fn no_random_feedback_is_a_panic_and_what_parses_round_trips() {
        let mut rng = Rng::new(3);
        let mut parsed = 0;
        for _ in 0..50_000 {
            let mut p: Vec<u8> = (0..rng.below(60)).map(|_| rng.next_u64() as u8).collect();
            if let Some(high) = p.get_mut(2) {
                *high = 0;
            }
            if let Ok(f) = Feedback::parse(&p) {
                parsed += 1;
                assert_eq!(Feedback::parse(&f.to_bytes()), Ok(f));
            }
        }
        assert!(parsed > 1_000, "{parsed}");
    }

    #[test]
    fn feedback_comes_every_fifty_milliseconds_and_not_where_nothing_came() {
        let mut r = Recorder::default();
        let mut times = vec![];
        for t in 0..1_000_u64 {
            if t < 500 && t % 10 == 0 {
                r.handle_packet(Micros(t * 1_000), (t / 10) as u16);
            }
            times.extend(all(&mut r, Micros(t * 1_000)).iter().map(|f| (t, f.count)));
        }
        let want: Vec<_> = (1..=10).map(|n| (n * 50, n as u8 - 1)).collect();
        assert_eq!(times, want);
    }

    #[test]
    fn every_arrival_is_reported_to_a_tick_over_wraps_loss_and_reordering() {
        let mut r = Recorder::default();
        let mut rng = Rng::new(5);
        let mut came = BTreeMap::new();
        let mut got = BTreeMap::new();
        // The reference time wraps at 2^24 × 64 ms.
        let start = (1_u64 << 24) * 64_000 - 2_000_000;
        let mut held: Option<u64> = None;
        for n in 0..70_000_u64 {
            let now = Micros(start + n * 100);
            let seq = 65_000 + n;
            let mut take = |r: &mut Recorder, s: u64| {
                r.handle_packet(now, (s % 65_536) as u16);
                came.insert(s, now.0 / 250);
            };
            match held.take() {
                _ if rng.chance(0.05) => held = None,
                None if rng.chance(0.02) => held = Some(seq),
                before => {
                    take(&mut r, seq);
                    before.into_iter().for_each(|s| take(&mut r, s));
                }
            }
            for f in all(&mut r, now) {
                let f = through_rtcp(&f);
                let cycle = (now.0 / 64_000) & !0xff_ffff;
                let wrapped = (u64::from(f.reference) > (now.0 / 64_000) & 0xff_ffff) as u64;
                let reference = (cycle + u64::from(f.reference) - (wrapped << 24)) * 256;
                for (s, time) in f.times() {
                    let wide = nearest(seq, s);
                    if let Some(t) = time {
                        got.insert(wide, reference.saturating_add_signed(t));
                    }
                }
            }
        }
        for f in all(&mut r, Micros(u64::MAX)) {
            assert!(f.arrivals.len() < 1_000);
            got.extend(f.times().filter(|t| t.1.is_some()).map(|(s, _)| (nearest(135_000, s), 0)));
        }
        assert_eq!(got.len(), came.len());
        let wrong = got.iter().filter(|(s, t)| **t != 0 && came[*s] != **t).count();
        assert_eq!(wrong, 0);
    }

    #[test]
    fn arrivals_far_apart_and_many_arrivals_are_split() {
        let mut r = Recorder::default();
        r.handle_packet(Micros(0), 65_535);
        r.handle_packet(Micros(8_000_000), 0);
        r.handle_packet(Micros(17_000_000), 2);
        let f = all(&mut r, Micros(17_000_000));
        assert_eq!(f.len(), 2);
        assert_eq!((f[0].base, f[0].arrivals.len(), f[0].count), (65_535, 2, 0));
        assert_eq!((f[1].base, f[1].arrivals.len(), f[1].count), (1, 2, 1));
        assert_eq!(u64::from(f[1].reference), 17_000_000 / 64_000);
        for n in 0..1_000_u64 {
            r.handle_packet(Micros(18_000_000 + n), 3 + n as u16);
        }
        let f = all(&mut r, Micros(19_000_000));
        assert_eq!(f.iter().map(|f| f.arrivals.len()).collect::<Vec<_>>(), vec![230, 230, 230, 230, 80]);
    }

    #[test]
    fn the_worst_pattern_of_loss_fits_a_datagram() {
        let mut r = Recorder::default();
        // Large deltas, each between losses.
        for n in 0..300_u64 {
            r.handle_packet(Micros(n * 70_000), (n * 8) as u16);
        }
        let f = all(&mut r, Micros(100_000_000));
        assert_eq!(f.iter().map(|f| f.arrivals.iter().flatten().count()).sum::<usize>(), 300);
        f.iter().for_each(|f| assert_eq!(&through_rtcp(f), f));
    }

    #[test]
    fn a_late_packet_is_reported_though_it_was_reported_lost() {
        let mut r = Recorder::default();
        r.handle_packet(Micros(0), 10);
        r.handle_packet(Micros(0), 12);
        assert_eq!(all(&mut r, Micros(50_000))[0].arrivals, vec![Some(0), None, Some(0)]);
        r.handle_packet(Micros(60_000), 11);
        let f = all(&mut r, Micros(100_000));
        assert_eq!((f[0].base, f[0].arrivals.len()), (11, 2));
        assert!(f[0].arrivals.iter().all(Option::is_some));
    }

    #[test]
    fn memory_is_bounded_and_a_long_jump_begins_anew() {
        let mut r = Recorder::default();
        for n in 0..100_000_u64 {
            r.handle_packet(Micros(n), (n * 2_999 % 65_536) as u16);
            assert!(r.arrivals.len() <= MAX_REMEMBERED);
        }
        r.handle_packet(Micros(200_000), 5_000);
        r.handle_packet(Micros(200_000), 40_000);
        let f = all(&mut r, Micros(900_000));
        assert_eq!((f.len(), f[0].base, f[0].arrivals.len()), (1, 40_000, 1));
    }

    #[test]
    fn the_count_of_feedbacks_wraps_with_the_numbers_and_what_is_older_than_the_memory_changes_nothing() {
        let mut r = Recorder::default();
        let mut feedbacks = vec![];
        // Over the wrap of the numbers twice and of the count more often.
        for n in 0..140_000_u64 {
            let at = Micros(n * 1_000);
            r.handle_packet(at, (n & 0xffff) as u16);
            feedbacks.extend(all(&mut r, at));
        }
        assert!(feedbacks.len() > 2_560, "{}", feedbacks.len());
        let mut next = 0_u64;
        for (n, f) in feedbacks.iter().enumerate() {
            assert_eq!((f.count, u64::from(f.base)), ((n & 0xff) as u8, next & 0xffff));
            assert!(f.arrivals.iter().all(Option::is_some));
            next += f.arrivals.len() as u64;
        }
        // Numbers that are forgotten, and numbers that came: nothing is due because of them.
        let newest = 139_999_u64;
        let mut now = newest * 1_000 + 200_000;
        all(&mut r, Micros(now));
        for back in [1, MAX_REMEMBERED as u64 / 2, MAX_JUMP.unsigned_abs() - 1] {
            r.handle_packet(Micros(now), ((newest - back) & 0xffff) as u16);
            now += 200_000;
            assert_eq!(all(&mut r, Micros(now)), vec![], "{back} numbers ago");
        }
    }
}
