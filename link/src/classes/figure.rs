//! The figure that a limit is held against, with its error bar.

use super::{Limit, Measure, Way};
use crate::result::{Direction, Flow, LinkResult, NOT_OFFERED, Quantiles, Rung, Step};

/// Fewer values than that have no 99th percentile: it would be the largest of them, whatever it is.
const VALUES_MIN: u64 = 100;
/// With n packets sent and none lost, up to 3 / n may be lost on such a line all the same (95 %; the rule of three).
const RULE_OF_THREE_PERCENT: f64 = 300.0;
/// A step of the ramp that is so much above the rate that is needed says what happens there.
const STEP_ABOVE: f64 = 1.05;

/// A measured value; the truth lies between `low` and `high`.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// In the limit's unit.
    pub value: f64,
    /// Smallest that it can be.
    pub low: f64,
    /// Largest that it can be; infinite where the sample says nothing about it.
    pub high: f64,
    /// Of what it was taken, or what makes it uncertain.
    pub note: String,
}

impl Figure {
    fn exact(value: f64, note: impl Into<String>) -> Self {
        Self { value, low: value, high: value, note: note.into() }
    }

    fn around(value: f64, uncertainty: f64, note: impl Into<String>) -> Self {
        Self { value, low: value - uncertainty, high: value + uncertainty, note: note.into() }
    }

    /// ±, where it has an end: the longer side.
    #[must_use]
    pub fn uncertainty(&self) -> Option<f64> {
        let longer = (self.value - self.low).max(self.high - self.value);
        longer.is_finite().then_some(longer)
    }

    /// A value that is no number is none.
    fn sound(self) -> Option<Self> {
        (self.value.is_finite() && !self.low.is_nan() && !self.high.is_nan()).then_some(self)
    }
}

/// What the result says about a limit; none where it was not measured. `rate` is what the class needs in the limit's
/// direction, in Mbit/s, `any` the rungs that it can live with.
#[must_use]
pub fn figure(result: &LinkResult, limit: Limit, rate: Option<f64>, any: &[String]) -> Option<Figure> {
    let way = limit.way.and_then(|w| direction(result, w));
    let second = result.second_path.as_ref();
    let found = match limit.measure {
        Measure::Rungs => rungs(result, any),
        Measure::Mtu => result.path.mtu_payload_bytes.map(|b| Figure::exact(f64::from(b), "")),
        Measure::Rate => way.and_then(capacity),
        Measure::Delay => {
            let (flow, note) = busiest(way?)?;
            one_way(result, flow.delay_us.as_ref()?, note)
        }
        Measure::FrameDelay => one_way(result, way?.video.as_ref()?.frame_delay_us.as_ref()?, UNDER_VIDEO),
        Measure::Rtt => result.path.rtt_idle_us.as_ref().map(|q| p99(q, "")),
        Measure::RttLoaded => result.path.rtt_loaded_us.as_ref().map(|q| p99(q, "")),
        Measure::Jitter => {
            let (flow, note) = busiest(way?)?;
            Some(p99(flow.jitter_us.as_ref()?, note))
        }
        Measure::Loss => {
            let (flow, note) = busiest(way?)?;
            share(flow.lost, flow.sent, "packets", note)
        }
        Measure::Burst => {
            let (flow, note) = busiest(way?)?;
            burst(flow, note)
        }
        Measure::FramesDamaged => {
            let video = way?.video.as_ref()?;
            share(video.frames_damaged, video.frames, "frames", UNDER_VIDEO)
        }
        Measure::Reordered => {
            let (flow, note) = busiest(way?)?;
            share(flow.reordered, flow.received, "packets", note)
        }
        Measure::Queue => queue(&way?.ramp, rate),
        Measure::BothPathsLoss => second.map(|s| Figure::exact(s.both_loss_percent, "")),
        Measure::PathSkew => second.map(|s| Figure::exact(s.skew_us.abs() / 1_000.0, "")),
        Measure::PathDependence => second.and_then(dependence),
    };
    found.and_then(Figure::sound)
}

/// The direction of a name.
pub(crate) fn direction(result: &LinkResult, way: Way) -> Option<&Direction> {
    result.directions.iter().find(|d| d.name == way.name())
}

const UNDER_VIDEO: &str = "under video";

/// The flow that is most like a procedure: video where it was run, else the quiet one.
pub(crate) fn busiest(way: &Direction) -> Option<(&Flow, &'static str)> {
    let video = way.video.as_ref().map(|v| (&v.flow, UNDER_VIDEO));
    video.or_else(|| way.idle.as_ref().map(|f| (f, "idle line")))
}

/// How many of the rungs work. Against a peer there is no ladder: what got through to it went by UDP.
fn rungs(result: &LinkResult, any: &[String]) -> Option<Figure> {
    let ladder = &result.ladder;
    let arrived = |d: &Direction| busiest(d).is_some_and(|(f, _)| f.received > 0);
    if ladder.is_empty() && any.iter().any(|r| r.ends_with("-udp")) && result.directions.iter().any(arrived) {
        return Some(Figure::exact(1.0, "UDP to the other end; a relay's own ports were not tried"));
    }
    let ours = || ladder.iter().filter(|r| any.contains(&r.name));
    let working: Vec<String> =
        ours().filter(|r| r.reachable == Some(true)).map(|r| format!("{} ({})", r.name, r.latency_class)).collect();
    let untried = |r: &Rung| r.reachable.is_none() && r.latency_class != NOT_OFFERED;
    if working.is_empty() && (ours().any(untried) || ours().count() < any.len()) {
        return None;
    }
    Some(Figure::exact(working.len() as f64, working.join(", ")))
}

fn capacity(way: &Direction) -> Option<Figure> {
    Some(Figure::around(way.capacity_mbit_s?, way.capacity_uncertainty_mbit_s.unwrap_or(0.0), "UDP payload"))
}

fn p99(q: &Quantiles, note: &str) -> Figure {
    let ms = q.p99 / 1_000.0;
    if q.count >= VALUES_MIN {
        return Figure::exact(ms, note);
    }
    let note = format!("{} values only, {VALUES_MIN} make a p99", q.count);
    Figure { value: ms, low: ms, high: f64::INFINITY, note }
}

/// A delay between two clocks is as right as they are known.
fn one_way(result: &LinkResult, q: &Quantiles, note: &str) -> Option<Figure> {
    let clocks = result.clock?.uncertainty_us.abs() / 1_000.0;
    let Figure { value, low, high, note } = p99(q, note);
    Some(Figure { value, low: low - clocks, high: high + clocks, note })
}

fn share(part: u64, of: u64, what: &str, note: &str) -> Option<Figure> {
    if of == 0 {
        return None;
    }
    let percent = 100.0 * part as f64 / of as f64;
    let high = percent.max(RULE_OF_THREE_PERCENT / of as f64);
    Some(Figure { value: percent, low: percent, high, note: format!("{part} of {of} {what}, {note}") })
}

fn burst(flow: &Flow, note: &str) -> Option<Figure> {
    if flow.sent == 0 {
        return None;
    }
    let longest = flow.loss_bursts.iter().filter(|(_, times)| *times > 0).map(|(length, _)| *length).max();
    Some(Figure::exact(f64::from(longest.unwrap_or(0)), note))
}

/// The queue at the rate that the class needs: the worst step up to there. Where the ramp has no step near that rate, the truth
/// lies between the steps below and above. Without a rate, the worst step of all.
fn queue(ramp: &[Step], rate: Option<f64>) -> Option<Figure> {
    let worst = |steps: &[&Step]| steps.iter().map(|s| s.queue_p95_us / 1_000.0).reduce(f64::max);
    let mut steps: Vec<&Step> = ramp.iter().collect();
    steps.sort_by(|a, b| a.offered_mbit_s.total_cmp(&b.offered_mbit_s));
    let Some(rate) = rate else {
        return worst(&steps).map(|v| Figure::exact(v, "at any rate of the ramp"));
    };
    let above = *steps.iter().find(|s| s.offered_mbit_s >= rate)?;
    let upto: Vec<&Step> = steps.iter().copied().filter(|s| s.offered_mbit_s <= above.offered_mbit_s).collect();
    let value = worst(&upto)?;
    let below: Vec<&Step> = upto.iter().copied().filter(|s| s.offered_mbit_s < rate).collect();
    let low = if above.offered_mbit_s > rate * STEP_ABOVE { worst(&below).unwrap_or(0.0) } else { value };
    Some(Figure { value, low, high: value, note: format!("at {:.0} Mbit/s", above.offered_mbit_s) })
}

fn dependence(s: &crate::result::SecondPath) -> Option<Figure> {
    match s.dependence {
        Some(d) => Some(Figure::exact(d, "1 is independent")),
        // Where one of the two lost nothing, nothing speaks for a common cause.
        None if s.both_loss_percent == 0.0 => Some(Figure::exact(0.0, "nothing lost together")),
        None => None,
    }
}
