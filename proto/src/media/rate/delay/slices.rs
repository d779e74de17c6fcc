//! Packets in slices of time, and what a row of slices says: rates, the trend of the delay, the smallest delay of late.

use crate::media::rate::PacketResult;
use std::collections::VecDeque;

/// A slice is closed when its packets were sent over this long, or came over [`ARRIVAL_US`].
const SENT_US: u64 = 25_000;
/// A line that is far too slow stretches a slice: what came over this long is told of without waiting for the rest.
const ARRIVAL_US: i64 = 50_000;
/// Slices remembered: 1.6 s at least on a line that keeps up.
const KEPT: usize = 64;
/// A trend is looked at over this long, and over so many slices at most.
const TREND_US: u64 = 300_000;
const TREND_SLICES: usize = 12;
/// Packets sent this long before the newest, or further apart, are of another time.
const STALE_US: u64 = 2_000_000;

/// Packets that were sent one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) first_sent: u64,
    last_sent: u64,
    /// All that is known of, lost or not.
    bytes: u64,
    lost: u64,
    /// Smallest delay, receiver's clock minus ours, and when that packet was sent.
    pub(super) delay: Option<(i64, u64)>,
    arrivals: Option<(i64, i64)>,
}

impl Slice {
    const fn new(at: u64) -> Self {
        Self { first_sent: at, last_sent: at, bytes: 0, lost: 0, delay: None, arrivals: None }
    }

    fn take(&mut self, r: &PacketResult) {
        self.last_sent = self.last_sent.max(r.sent.0);
        self.bytes += u64::from(r.bytes);
        let Some(at) = r.arrived else {
            self.lost += u64::from(r.bytes);
            return;
        };
        let delay = at.wrapping_sub(r.sent.0.cast_signed());
        if self.delay.is_none_or(|(d, _)| delay < d) {
            self.delay = Some((delay, r.sent.0));
        }
        self.arrivals = Some(self.arrivals.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
    }

    /// Whether a packet belongs to the next slice.
    fn ends_before(&self, r: &PacketResult) -> bool {
        let stretched = self.arrivals.is_some_and(|(first, last)| last.saturating_sub(first) >= ARRIVAL_US);
        r.sent.0 > self.last_sent && (stretched || r.sent.0 >= self.first_sent + SENT_US)
    }
}

/// How the delay goes, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trend {
    /// Microseconds of delay per microsecond sent: the share by which the rate is above what the line takes.
    pub(super) slope: f64,
    /// By how much the delay grew over what was looked at.
    pub(super) growth: f64,
    /// Median distance from the line through it all.
    pub(super) noise: f64,
    /// Slices looked at.
    pub(super) slices: usize,
}

/// Slices that a step is seen by, before it and after it at least.
const STEP_BEFORE: usize = 2;
const STEP_AFTER: usize = 3;
/// Delays of either side are within this share of the step, or within the noise where there is more: of a slope that is as wide as the
/// step, never.
const STEP_FLAT: f64 = 0.12;
const STEP_NOISE: f64 = 3.0;
const STEP_FLAT_MAX: f64 = 0.3;

/// The newest slices, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Slices {
    open: Option<Slice>,
    closed: VecDeque<Slice>,
}

impl Slices {
    /// Takes a result; true where that closed a slice.
    pub(super) fn take(&mut self, r: &PacketResult) -> bool {
        let Some(open) = &mut self.open else {
            self.open.insert(Slice::new(r.sent.0)).take(r);
            return false;
        };
        let ends = open.ends_before(r);
        if ends {
            let pause = r.sent.0 - open.last_sent > STALE_US;
            if self.closed.len() >= KEPT {
                self.closed.pop_front();
            }
            self.closed.push_back(*open);
            if pause {
                self.closed.clear();
            }
            *open = Slice::new(r.sent.0);
        }
        open.take(r);
        ends
    }

    pub(super) fn newest(&self) -> Option<&Slice> {
        self.closed.back()
    }

    /// Forgets what was sent before.
    pub(super) fn forget_before(&mut self, sent: u64) {
        self.closed.retain(|s| s.first_sent >= sent);
    }

    /// Smallest delay of the slices that were sent over the last `us`, of two slices at least.
    pub(super) fn low(&self, us: u64) -> Option<i64> {
        let newest = self.newest()?.first_sent;
        let recent = |(i, s): &(usize, &Slice)| *i < 2 || s.first_sent.saturating_add(us) >= newest;
        let of = |s: &Slice| s.delay.map(|d| d.0);
        self.closed.iter().rev().enumerate().take_while(recent).filter_map(|(_, s)| of(s)).min()
    }

    /// What arrived, in bits per second of the receiver's clock, over about `us`; none without enough slices.
    pub(super) fn delivered(&self, us: i64) -> Option<f64> {
        let mut with = self.closed.iter().rev().filter_map(|s| s.arrivals.map(|a| (s, a.1)));
        let (newest, end) = with.next()?;
        let mut bytes = newest.bytes - newest.lost;
        let mut rate = None;
        for (slice, last) in with {
            let span = end.saturating_sub(last);
            if span > 0 {
                rate = Some(bytes as f64 * 8e6 / span as f64);
            }
            if span >= us {
                break;
            }
            bytes += slice.bytes - slice.lost;
        }
        rate
    }

    /// What was sent, in bits per second of our clock, over about `us`.
    pub(super) fn sent(&self, us: u64) -> Option<f64> {
        let mut all = self.closed.iter().rev();
        let end = all.next()?.first_sent;
        let (mut bytes, mut rate) = (0, None);
        for s in all {
            bytes += s.bytes;
            let span = end.saturating_sub(s.first_sent);
            if span > 0 {
                rate = Some(bytes as f64 * 8e6 / span as f64);
            }
            if span >= us {
                break;
            }
        }
        rate
    }

    /// By how much the delay grew from one slice to the next, in microseconds, where it was even before and has been even since: a queue
    /// grows and goes, another route is there at once. `noise` is the usual one of the delay.
    pub(super) fn step(&self, noise: f64) -> Option<f64> {
        let mut delays = [0.0; TREND_SLICES];
        let mut n = 0;
        for (slot, delay) in delays.iter_mut().zip(self.recent()) {
            *slot = delay.0 as f64;
            n += 1;
        }
        // Newest first.
        let delays = delays.get(..n)?;
        (STEP_AFTER..=n.checked_sub(STEP_BEFORE)?).find_map(|at| {
            let (after, before) = delays.split_at_checked(at)?;
            let (after, before) = (Span::of(after), Span::of(before.get(..STEP_BEFORE)?));
            let step = (after.low - before.low).max(0.0);
            let flat = (STEP_NOISE * noise).clamp(STEP_FLAT * step, STEP_FLAT_MAX * step);
            (step > flat && after.width() <= flat && before.width() <= flat).then_some(step)
        })
    }

    /// Smallest delay of each slice within [`TREND_US`] of the newest, and when that packet was sent; newest first.
    fn recent(&self) -> impl Iterator<Item = (i64, u64)> {
        let newest = self.newest().map_or(0, |s| s.first_sent);
        let within = self.closed.iter().rev().take_while(move |s| s.first_sent + TREND_US >= newest);
        within.filter_map(|s| s.delay)
    }

    /// The line through the smallest delays of the newest slices, by the median of all slopes between two of them
    /// (Theil 1950, Sen 1968): up to 29 % of outliers do not move it.
    pub(super) fn trend(&self) -> Trend {
        let newest = self.newest().map_or(0, |s| s.first_sent);
        let mut points = [(0.0, 0.0); TREND_SLICES];
        let mut n = 0;
        for (p, d) in points.iter_mut().zip(self.recent()) {
            *p = (d.1 as f64 - newest as f64, d.0 as f64);
            n += 1;
        }
        let points = points.get(..n).unwrap_or(&[]);
        let mut slopes = [0.0; TREND_SLICES * (TREND_SLICES - 1) / 2];
        let mut m = 0;
        for (i, a) in points.iter().enumerate() {
            for b in points.get(i + 1..).unwrap_or(&[]) {
                if let Some(s) = slopes.get_mut(m).filter(|_| (a.0 - b.0).abs() > 1.0) {
                    *s = (a.1 - b.1) / (a.0 - b.0);
                    m += 1;
                }
            }
        }
        let slope = median(slopes.get_mut(..m).unwrap_or(&mut []));
        let mut rest = [0.0; TREND_SLICES];
        let left = |p: &(f64, f64)| p.1 - slope * p.0;
        rest.iter_mut().zip(points).for_each(|(r, p)| *r = left(p));
        let rest = rest.get_mut(..n).unwrap_or(&mut []);
        let middle = median(rest);
        rest.iter_mut().for_each(|r| *r = (*r - middle).abs());
        let noise = median(rest);
        let span = points.first().zip(points.last()).map_or(0.0, |(a, b)| (a.0 - b.0).abs());
        Trend { slope, growth: slope * span, noise, slices: n }
    }
}

/// Between which values some are.
struct Span {
    low: f64,
    high: f64,
}

impl Span {
    fn of(values: &[f64]) -> Self {
        let fold = |s: Self, v: &f64| Self { low: s.low.min(*v), high: s.high.max(*v) };
        values.iter().fold(Self { low: f64::INFINITY, high: f64::NEG_INFINITY }, fold)
    }

    fn width(&self) -> f64 {
        self.high - self.low
    }
}

/// The middle value; 0 of nothing.
fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Micros;

    /// A packet a millisecond for 400 ms, each as late as this says.
    fn with(delay_us: impl Fn(u64) -> u64) -> Slices {
        let mut slices = Slices::default();
        for at in (0..400_000).step_by(1_000) {
            let arrived = Some((at + delay_us(at)).cast_signed());
            slices.take(&PacketResult { bytes: 1_200, sent: Micros(at), arrived });
        }
        slices
    }

    #[test]
    fn a_step_is_one_that_is_even_before_and_since() {
        let step = |delay: &dyn Fn(u64) -> u64, noise| with(delay).step(noise);
        let longer = |at: u64| if at < 280_000 { 15_000 } else { 35_000 };
        assert_eq!(step(&longer, 0.0), Some(20_000.0));
        let noisy = |at: u64| longer(at) + at % 7 * 500;
        assert!(step(&noisy, 700.0).is_some_and(|s| (18_000.0..22_000.0).contains(&s)));
        for (name, delay) in [
            ("nothing", &(|_| 15_000_u64) as &dyn Fn(u64) -> u64),
            ("a queue that grows", &|at| 15_000 + at / 10),
            ("one that grows fast", &|at| 15_000 + at.saturating_sub(280_000)),
            ("one that came at once and goes", &|at| if at < 280_000 { 15_000 } else { 35_000 - (at - 280_000) / 5 }),
            ("a shorter way", &|at| if at < 280_000 { 35_000 } else { 15_000 }),
            ("too new to be known", &|at| if at < 360_000 { 15_000 } else { 35_000 }),
        ] {
            assert_eq!(step(delay, 0.0), None, "{name}");
        }
        assert_eq!(Slices::default().step(0.0), None);
    }
}
