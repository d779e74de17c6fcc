//! How the other end's clock stands to ours, by exchanges of four timestamps (RFC 5905 section 8), with an error bar that holds
//! whatever the delays are.
//!
//! An exchange says: the offset is at most `t1 − t0` (a packet cannot take less than nothing to go there) and at least `t2 − t3`
//! (nor to come back). The smallest of the one and the largest of the other over the whole run bound it from both sides: half of
//! their distance is at most half of the smallest round trip. Both are taken along a line, whose slope, the drift, comes
//! from a regression over the quickest exchanges of each part of the run (the thought of Paxson, SIGMETRICS 1998, and of Moon,
//! Skelly and Towsley, INFOCOM 1999: only the packets that waited least say something about clocks).
//!
//! What this cannot know: how much of the round trip without any waiting is the way there. Where the ways differ in length, the offset
//! is wrong by half of the difference, which is inside the error bar and cannot be seen from the ends.

use super::Stamp;
use serde::{Deserialize, Serialize};

/// Exchanges that are kept. Loss policy: one more is not taken.
const EXCHANGES_MAX: usize = 100_000;
/// Drift that is reckoned with before it can be measured: what cheap quartz does.
const DRIFT_UNKNOWN_PPM: f64 = 200.0;
/// Shorter runs say nothing about drift, in microseconds.
const SPAN_MIN_US: f64 = 500_000.0;
/// Parts of a run.
const PARTS: (usize, usize) = (6, 48);
/// How much of a run is one part where it is long enough, in microseconds.
const PART_US: f64 = 400_000.0;
/// Standard errors that the error bar of the drift has: a chance of 1 in 1,000 at 6 parts (Student's distribution), less at more.
const SIGMAS: f64 = 7.0;
/// A part is left out where the error bar is so many times as large with it as without it, of at least so many parts: noise that is
/// the same everywhere does that once in 100,000 runs at most.
const ODD_FACTOR: f64 = 20.0;
const ODD_PARTS_MIN: usize = 8;

/// The four timestamps of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// Our clock when the question left.
    pub t0: Stamp,
    /// Their clock when it came.
    pub t1: Stamp,
    /// Their clock when the answer left.
    pub t2: Stamp,
    /// Our clock when the answer came.
    pub t3: Stamp,
}

impl Exchange {
    /// Round trip without the time that the other end had it, in microseconds.
    #[must_use]
    pub const fn rtt_us(&self) -> i64 {
        (self.t3 - self.t0) - (self.t2 - self.t1)
    }
}

/// The other clock as a line over ours.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockModel {
    /// The point of our clock at which `offset_us` holds.
    pub at: Stamp,
    /// Their clock minus ours there.
    pub offset_us: f64,
    /// How fast it runs away from ours.
    pub drift_ppm: f64,
}

impl ClockModel {
    /// Their clock minus ours at a point of ours.
    #[must_use]
    pub fn offset_us(&self, ours: Stamp) -> f64 {
        self.offset_us + self.drift_ppm * 1e-6 * (ours - self.at) as f64
    }

    /// How long a packet took from us to them, by our clock.
    #[must_use]
    pub fn delay_up_us(&self, sent_ours: Stamp, arrived_theirs: Stamp) -> f64 {
        self.in_our_time((arrived_theirs - sent_ours) as f64 - self.offset_us(sent_ours))
    }

    /// How long a packet took from them to us, by our clock.
    #[must_use]
    pub fn delay_down_us(&self, sent_theirs: Stamp, arrived_ours: Stamp) -> f64 {
        self.in_our_time((arrived_ours - sent_theirs) as f64 + self.offset_us(arrived_ours))
    }

    /// The offset is known at our end's stamp, and their stamp is a delay away from it: their clock drifts for that long.
    fn in_our_time(&self, delay_us: f64) -> f64 {
        delay_us / (1.0 + self.drift_ppm * 1e-6)
    }
}

/// What the exchanges say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The line.
    pub model: ClockModel,
    /// The truth lies within ± this over the whole run.
    pub uncertainty_us: f64,
    /// ± of the drift.
    pub drift_uncertainty_ppm: f64,
}

/// Collects exchanges.
#[derive(Debug, Clone, Default)]
pub struct ClockFilter {
    exchanges: Vec<Exchange>,
}

/// An exchange as bounds, relative to the first one.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// When the question left: `upper` holds there.
    sent: f64,
    /// When the answer came: `lower` holds there.
    came: f64,
    upper: f64,
    lower: f64,
}

impl Bounds {
    /// Without a slope.
    fn level(&self, slope: f64) -> Self {
        Self { upper: self.upper - slope * self.sent, lower: self.lower - slope * self.came, ..*self }
    }
}

/// The middle of the bounds of one part of the run.
#[derive(Debug, Clone, Copy)]
struct Middle {
    t: f64,
    value: f64,
    width: f64,
}

impl ClockFilter {
    /// Takes an exchange. One whose round trip would be negative is dropped.
    pub fn handle_exchange(&mut self, e: Exchange) {
        if e.rtt_us() >= 0 && self.exchanges.len() < EXCHANGES_MAX {
            self.exchanges.push(e);
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
    }

    /// What they say together; none where there is none.
    #[must_use]
    pub fn estimate(&self) -> Option<Estimate> {
        let first = self.exchanges.first()?;
        let base = first.t1 - first.t0;
        let bounds: Vec<Bounds> = self
            .exchanges
            .iter()
            .map(|e| Bounds {
                sent: (e.t0 - first.t0) as f64,
                came: (e.t3 - first.t0) as f64,
                upper: (e.t1 - e.t0 - base) as f64,
                lower: (e.t2 - e.t3 - base) as f64,
            })
            .collect();
        let span = bounds.iter().map(|b| b.came).fold(0.0, f64::max);
        let middle_t = span / 2.0;
        let (drift, drift_error) =
            if span < SPAN_MIN_US { (0.0, DRIFT_UNKNOWN_PPM * 1e-6) } else { drift(&bounds, span) };
        let level = || bounds.iter().map(|b| b.level(drift));
        let upper = level().map(|b| b.upper).fold(f64::INFINITY, f64::min);
        let lower = level().map(|b| b.lower).fold(f64::NEG_INFINITY, f64::max);
        let half = ((upper - lower) / 2.0).abs();
        Some(Estimate {
            model: ClockModel {
                at: first.t0 + middle_t as Stamp,
                offset_us: f64::midpoint(upper, lower) + drift * middle_t + base as f64,
                drift_ppm: drift * 1e6,
            },
            // The bounds come from any time of the run, and the line is used at any: half a span of drift each. One for the
            // timestamps' own microsecond.
            uncertainty_us: half + drift_error * span + 1.0,
            drift_uncertainty_ppm: drift_error * 1e6,
        })
    }
}

/// Slope of the offset and ± of it, microseconds per microsecond.
fn drift(bounds: &[Bounds], span: f64) -> (f64, f64) {
    let parts = ((span / PART_US) as usize).clamp(PARTS.0, PARTS.1);
    let (mut slope, mut error) = (0.0, DRIFT_UNKNOWN_PPM * 1e-6);
    // Which exchanges are the quickest depends on the slope: once more with what came out.
    for _ in 0..4 {
        let middles = middles(bounds, span, parts, slope);
        let Some((more, e)) = regress_robustly(&middles, span) else { return (0.0, DRIFT_UNKNOWN_PPM * 1e-6) };
        slope += more;
        error = e;
    }
    with_quartz(slope, error)
}

/// What was measured, and that quartz drifts by so much at most: what both allow. Where they contradict each other, what was measured.
fn with_quartz(slope: f64, error: f64) -> (f64, f64) {
    let most = DRIFT_UNKNOWN_PPM * 1e-6;
    let (low, high) = ((slope - error).max(-most), (slope + error).min(most));
    if low <= high { (f64::midpoint(low, high), (high - low) / 2.0) } else { (slope, error) }
}

fn middles(bounds: &[Bounds], span: f64, parts: usize, slope: f64) -> Vec<Middle> {
    let mut found: Vec<Option<(Bounds, Bounds)>> = vec![None; parts];
    for b in bounds {
        let part = ((b.sent / span * parts as f64) as usize).min(parts - 1);
        let level = b.level(slope);
        let Some(slot) = found.get_mut(part) else { continue };
        let (low, high) = slot.get_or_insert((level, level));
        if level.upper < low.upper {
            *low = level;
        }
        if level.lower > high.lower {
            *high = level;
        }
    }
    let middle = |(low, high): (Bounds, Bounds)| Middle {
        t: f64::midpoint(low.sent, high.came),
        value: f64::midpoint(low.upper, high.lower),
        width: low.upper - high.lower,
    };
    found.into_iter().flatten().map(middle).collect()
}

/// Without the one part that agrees with no other, where there is such a one: a packet that was quicker than all others also went
/// by ways that differ by another length, and its middle says nothing about drift.
fn regress_robustly(middles: &[Middle], span: f64) -> Option<(f64, f64)> {
    let all = regress(middles, span)?;
    if middles.len() < ODD_PARTS_MIN {
        return Some(all);
    }
    let without = |i: usize| {
        let (before, after) = (middles.get(..i)?, middles.get(i + 1..)?);
        regress(&[before, after].concat(), span)
    };
    let best = (0..middles.len()).filter_map(without).min_by(|a, b| a.1.total_cmp(&b.1));
    Some(best.filter(|b| b.1 * ODD_FACTOR < all.1).unwrap_or(all))
}

/// A line through the middles, each weighted by how little its packets waited: slope and ± of it.
fn regress(middles: &[Middle], span: f64) -> Option<(f64, f64)> {
    if middles.len() < 4 {
        return None;
    }
    let narrowest = middles.iter().map(|m| m.width).fold(f64::INFINITY, f64::min);
    let typical = super::quantiles::median(middles.iter().map(|m| m.width - narrowest).collect())?;
    let weigh = |m: &Middle| 1.0 / (m.width - narrowest + typical.max(2.0)).powi(2);
    let sum = |f: &dyn Fn(&Middle) -> f64| middles.iter().map(|m| weigh(m) * f(m)).sum::<f64>();
    let total = sum(&|_| 1.0);
    let (t, value) = (sum(&|m| m.t) / total, sum(&|m| m.value) / total);
    let spread = sum(&|m| (m.t - t).powi(2));
    if spread <= 0.0 {
        return None;
    }
    let slope = sum(&|m| (m.t - t) * (m.value - value)) / spread;
    let rest = sum(&|m| (m.value - value - slope * (m.t - t)).powi(2));
    let error = (rest / (middles.len() as f64 - 2.0) / spread).sqrt();
    // Waits that last for a part of the run, such as those behind a flow, are no noise: by at most half of what a part is wider than
    // the narrowest, its middle is off, and all of them may be so to the same effect.
    let waits = sum(&|m| (m.t - t).abs() * (m.width - narrowest) / 2.0) / spread;
    // Timestamps are whole microseconds: a line through them is not better than one of them over the run.
    Some((slope, (SIGMAS * error).max(waits) + 2.0 / span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::link::rng::Rng;

    /// Exchanges every 20 ms over a line with these delays; the other clock is `offset` ahead and drifts.
    fn run(seconds: u64, offset: f64, ppm: f64, mut delays: impl FnMut(u64) -> (f64, f64)) -> ClockFilter {
        let mut filter = ClockFilter::default();
        let theirs = |ours: f64| (ours + offset + ppm * 1e-6 * ours) as Stamp;
        for i in 0..seconds * 50 {
            let t0 = i as f64 * 20_000.0;
            let (there, back) = delays(i);
            let t3 = t0 + there + 30.0 + back;
            filter.handle_exchange(Exchange {
                t0: t0 as Stamp,
                t1: theirs(t0 + there),
                t2: theirs(t0 + there + 30.0),
                t3: t3 as Stamp,
            });
        }
        filter
    }

    #[test]
    fn offset_and_drift_are_within_their_error_bars_whatever_the_line_does() {
        let mut rng = Rng::new(3);
        for (there, back, jitter) in [(100.0, 100.0, 0.0), (15_000.0, 15_000.0, 3_000.0), (40_000.0, 10_000.0, 500.0)] {
            for (offset, ppm) in [(0.0, 0.0), (7.5e6, 80.0), (-3.2e9, -45.0)] {
                let filter =
                    run(10, offset, ppm, |_| (there + jitter * rng.normal().abs(), back + jitter * rng.normal().abs()));
                let e = filter.estimate().unwrap();
                let truth = |t: Stamp| offset + ppm * 1e-6 * t as f64;
                for t in [0, 5_000_000, 10_000_000] {
                    let off = (e.model.offset_us(t) - truth(t)).abs();
                    assert!(off <= e.uncertainty_us, "{off} > {} at {t}: {e:?}", e.uncertainty_us);
                }
                assert!((e.model.drift_ppm - ppm).abs() <= e.drift_uncertainty_ppm, "{e:?}, truth {ppm}");
                assert!(e.uncertainty_us <= (there + back) / 2.0 + 2.0 * jitter + 40.0, "{e:?}");
            }
        }
    }

    #[test]
    fn the_bar_is_half_of_the_smallest_round_trip_and_not_smaller_where_the_ways_differ() {
        let e =
            run(5, 1_000.0, 0.0, |i| if i == 77 { (3_000.0, 1_000.0) } else { (9_000.0, 9_000.0) }).estimate().unwrap();
        assert!((2_000.0..2_100.0).contains(&e.uncertainty_us), "{e:?}");
        assert!(((e.model.offset_us - 1_000.0).abs() - 1_000.0).abs() < 60.0, "half of the difference: {e:?}");
    }

    #[test]
    fn a_delay_is_by_our_clock_also_where_theirs_drifts_while_the_packet_is_under_way() {
        let model = ClockModel { at: 0, offset_us: 5e6, drift_ppm: -100.0 };
        // 1 s by our clock is 999,900 us by theirs.
        assert!((model.delay_up_us(0, 5_999_900) - 1e6).abs() < 1e-3);
        assert!((model.delay_down_us(5_000_000, 1_000_000) - 1e6).abs() < 1e-3);
    }

    #[test]
    fn few_exchanges_say_little_and_say_so() {
        assert!(ClockFilter::default().estimate().is_none());
        let mut one = ClockFilter::default();
        one.handle_exchange(Exchange { t0: 0, t1: 5_100, t2: 5_100, t3: 200 });
        let e = one.estimate().unwrap();
        assert_eq!((e.model.offset_us, e.drift_uncertainty_ppm.round()), (5_000.0, 200.0));
        // Half of the round trip, a microsecond of the stamps, and what quartz may drift by from question to answer.
        assert!((e.uncertainty_us - (100.0 + 1.0 + 200.0 * 200e-6)).abs() < 1e-6, "{e:?}");
        one.handle_exchange(Exchange { t0: 0, t1: 5_100, t2: 5_400, t3: 200 });
        assert_eq!(one.len(), 1, "an answer before its question is dropped");
    }
}
