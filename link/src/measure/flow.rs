//! What is made of a flow that came: the figures of [`Flow`], from one [`Arrival`] per packet.

use super::Stamp;
use super::clock::ClockModel;
use super::log::{Arrival, Log};
use super::quantiles::{median, quantile, quantiles, thin};
use super::schedule::{Due, Schedule, Shape};
use crate::result::{Flow, Quantiles, Step};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Points of a series over time.
const SERIES_POINTS: usize = 1_000;

/// Which way a flow goes, seen from the end that measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From the measuring end.
    Up,
    /// To it.
    Down,
}

impl Way {
    /// As [`crate::result::Direction::name`] has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What is known besides what came.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Which way it went.
    pub way: Way,
    /// How many packets were really sent.
    pub sent: u32,
    /// The other clock, seen from the measuring end.
    pub clock: ClockModel,
    /// The smallest delay of the same way without load, where it is known.
    pub floor_us: Option<f64>,
    /// Whether series and curves are wanted.
    pub detail: bool,
}

/// What came of a flow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Received {
    /// Its packets.
    pub flow: Flow,
    /// Its frames, where it is shaped like a picture.
    pub frames: Option<Frames>,
    /// As a step of a ramp.
    pub step: Step,
    /// 1 and by how much delay grew per time: a line that is too slow stretches what it carries.
    pub stretch: Option<f64>,
    /// The values of type of service that came, and how often.
    pub tos: Vec<(u8, u64)>,
    /// Arrivals that were not kept: none of the figures holds where it is not 0.
    pub overflow: u64,
}

/// What came of frames.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frames {
    /// All.
    pub frames: u64,
    /// Those of which a packet is missing or damaged.
    pub damaged: u64,
    /// From the first packet's sending to the last one's coming, of whole frames.
    pub delay_us: Option<Quantiles>,
}

/// The figures of a flow.
#[must_use]
pub fn evaluate(log: &Log, known: &Known) -> Received {
    let firsts = first_arrivals(log, known.sent);
    let delay = |a: &Arrival| match known.way {
        Way::Up => known.clock.delay_up_us(a.sent, a.arrived),
        Way::Down => known.clock.delay_down_us(a.sent, a.arrived),
    };
    let dues: Vec<Due> = Schedule::new(log.spec).into_iter().flatten().take(known.sent as usize).collect();
    let mut flow = count(log, known.sent, &firsts);
    let mut delays: Vec<f64> = firsts.iter().flatten().map(delay).collect();
    let least = delays.iter().copied().fold(f64::INFINITY, f64::min);
    flow.jitter_us = quantiles(delays.iter().map(|d| d - least).collect());
    flow.delay_us = quantiles(delays.clone());
    let floor = known.floor_us.unwrap_or(least);
    delays.sort_by(f64::total_cmp);
    let step = Step {
        offered_mbit_s: log.spec.mbit_s() / slip(&dues, &firsts),
        received_mbit_s: rate(log, &firsts),
        loss_percent: percent(flow.lost, flow.sent),
        queue_p95_us: quantile(&delays, 0.95).map_or(0.0, |d| (d - floor).max(0.0)),
    };
    if known.detail {
        flow.delay_over_time = delay_series(log, &dues, delay);
        flow.loss_over_time = loss_series(log, &dues, &firsts);
    } else {
        for q in [&mut flow.delay_us, &mut flow.jitter_us].into_iter().flatten() {
            q.cdf.clear();
        }
    }
    let stretch = stretch(&firsts, delay);
    let frames = matches!(log.spec.shape, Shape::Video { .. }).then(|| frames(&dues, &firsts, known, delay));
    Received { flow, frames, step, stretch, tos: marks(log), overflow: log.overflow }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// The first arrival of each packet that was sent.
fn first_arrivals(log: &Log, sent: u32) -> Vec<Option<Arrival>> {
    let mut firsts: Vec<Option<Arrival>> = vec![None; sent as usize];
    for a in log.arrivals() {
        if let Some(slot) = firsts.get_mut(a.seq as usize) {
            slot.get_or_insert(*a);
        }
    }
    firsts
}

fn count(log: &Log, sent: u32, firsts: &[Option<Arrival>]) -> Flow {
    let received = firsts.iter().flatten().count() as u64;
    let inside = log.arrivals().iter().filter(|a| a.seq < sent);
    let (all, corrupted) = inside.fold((0, 0), |(n, c), a| (n + 1, c + u64::from(a.damaged)));
    Flow {
        sent: u64::from(sent),
        received,
        lost: u64::from(sent) - received,
        duplicated: all - received,
        reordered: reordered(log, sent),
        corrupted,
        loss_bursts: loss_bursts(firsts),
        ..Flow::default()
    }
}

/// RFC 4737 section 3.3: a packet whose number is below the next one expected. Of copies only the first to come counts.
fn reordered(log: &Log, sent: u32) -> u64 {
    let mut seen = vec![false; sent as usize];
    let (mut next, mut count) = (0, 0);
    for a in log.arrivals() {
        let Some(seen) = seen.get_mut(a.seq as usize) else { continue };
        if !std::mem::replace(seen, true) {
            count += u64::from(a.seq < next);
            next = next.max(a.seq + 1);
        }
    }
    count
}

/// RFC 3357: how many runs of lost packets have which length.
fn loss_bursts(firsts: &[Option<Arrival>]) -> Vec<(u32, u64)> {
    let mut bursts = BTreeMap::new();
    for run in firsts.chunk_by(|a, b| a.is_none() == b.is_none()).filter(|run| run.iter().all(Option::is_none)) {
        *bursts.entry(run.len() as u32).or_insert(0) += 1;
    }
    bursts.into_iter().collect()
}

/// Rate at which it came, by the span between the first packet and the last, so that the delay itself has no part in it.
fn rate(log: &Log, firsts: &[Option<Arrival>]) -> f64 {
    let came = || firsts.iter().flatten();
    let span = |time: fn(&Arrival) -> Stamp| {
        let (low, high) = came().map(time).fold((Stamp::MAX, Stamp::MIN), |(l, h), t| (l.min(t), h.max(t)));
        if low < high { Some((high - low) as f64) } else { None }
    };
    let bits = |n: usize| n as f64 * f64::from(log.spec.packet_bytes) * 8.0;
    match span(|a| a.sent).zip(span(|a| a.arrived)) {
        // A burst that came squeezed says nothing about the rate: no line is faster than what was sent over the same time.
        Some((sending, coming)) => bits(came().count() - 1) / coming.max(sending),
        None => bits(came().count()) / log.spec.duration_us as f64,
    }
}

/// How fast delay grows, as 1 + microseconds per microsecond: the smallest of the last quarter against the smallest of the first. Where
/// a line is too slow by a share, its queue grows by that share of the time, and nothing overtakes it; what only jitters comes back.
fn stretch(firsts: &[Option<Arrival>], delay: impl Fn(&Arrival) -> f64) -> Option<f64> {
    let came: Vec<&Arrival> = firsts.iter().flatten().collect();
    let quarter = (came.len() / 4).max(1);
    let smallest = |part: &[&Arrival]| {
        let sent = median(part.iter().map(|a| a.sent as f64).collect())?;
        Some((sent, part.iter().map(|a| delay(a)).fold(f64::INFINITY, f64::min)))
    };
    let (t0, d0) = smallest(came.get(..quarter)?)?;
    let (t1, d1) = smallest(came.get(came.len() - quarter..)?)?;
    (t1 > t0).then(|| 1.0 + (d1 - d0) / (t1 - t0))
}

/// How many times as long the sender took as it should have: 1, unless its machine was too slow.
fn slip(dues: &[Due], firsts: &[Option<Arrival>]) -> f64 {
    let mut came = dues.iter().zip(firsts).filter_map(|(d, a)| Some((d.at_us, a.as_ref()?.sent)));
    let (Some(first), Some(last)) = (came.next(), came.next_back()) else { return 1.0 };
    let slip = (last.1 - first.1) as f64 / (last.0.saturating_sub(first.0) as f64).max(1.0);
    // What the kernel's timer does is not worth a word.
    if slip > 1.02 { slip } else { 1.0 }
}

/// When a packet was due, in seconds after the run's beginning.
fn due_s(dues: &[Due], seq: u32) -> f64 {
    dues.get(seq as usize).map_or(0.0, |d| d.at_us as f64 * 1e-6)
}

fn delay_series(log: &Log, dues: &[Due], delay: impl Fn(&Arrival) -> f64) -> Vec<(f64, f64)> {
    let began = log.arrivals().iter().map(|a| a.sent as f64 * 1e-6 - due_s(dues, a.seq)).fold(f64::INFINITY, f64::min);
    let points: Vec<(f64, f64)> =
        log.arrivals().iter().map(|a| (round6(a.sent as f64 * 1e-6 - began), delay(a).round())).collect();
    thin(&points, SERIES_POINTS)
}

fn loss_series(log: &Log, dues: &[Due], firsts: &[Option<Arrival>]) -> Vec<(f64, u32)> {
    let bin_s = log.spec.duration_us as f64 * 1e-6 / SERIES_POINTS as f64;
    let mut bins: BTreeMap<u32, u32> = BTreeMap::new();
    for (seq, _) in firsts.iter().enumerate().filter(|(_, a)| a.is_none()) {
        *bins.entry((due_s(dues, seq as u32) / bin_s) as u32).or_insert(0) += 1;
    }
    bins.into_iter().map(|(bin, lost)| (round6(f64::from(bin) * bin_s), lost)).collect()
}

fn round6(s: f64) -> f64 {
    (s * 1e6).round() * 1e-6
}

fn frames(dues: &[Due], firsts: &[Option<Arrival>], known: &Known, delay: impl Fn(&Arrival) -> f64) -> Frames {
    let (mut all, mut damaged, mut delays) = (0, 0, Vec::new());
    for frame in dues.chunk_by(|a, b| a.frame == b.frame) {
        let packets: Vec<&Arrival> =
            frame.iter().filter_map(|d| firsts.get(d.seq as usize)?.as_ref()).filter(|a| !a.damaged).collect();
        all += 1;
        if packets.len() < frame.len() {
            damaged += 1;
            continue;
        }
        let Some(began) = packets.iter().map(|a| a.sent).min() else { continue };
        let last = packets.iter().map(|a| delay(a) + (a.sent - began) as f64).fold(f64::NEG_INFINITY, f64::max);
        delays.push(last);
    }
    let delay_us = quantiles(delays).map(|mut q| {
        if !known.detail {
            q.cdf.clear();
        }
        q
    });
    Frames { frames: all, damaged, delay_us }
}

fn marks(log: &Log) -> Vec<(u8, u64)> {
    let mut seen = BTreeMap::new();
    for a in log.arrivals() {
        *seen.entry(a.tos).or_insert(0) += 1;
    }
    seen.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::schedule::FlowSpec;

    const SPEC: FlowSpec =
        FlowSpec { shape: Shape::Smooth { pps: 100.0 }, packet_bytes: 200, duration_us: 100_000, tos: 0 };

    fn known(sent: u32) -> Known {
        Known { way: Way::Up, sent, clock: ClockModel::default(), floor_us: None, detail: true }
    }

    /// Packets in this order, one every 10 ms; each takes 5 ms.
    fn log(seqs: &[u32]) -> Log {
        let mut log = Log::new(SPEC);
        for &seq in seqs {
            let sent = i64::from(seq) * 10_000;
            log.handle_arrival(Arrival { seq, damaged: false, tos: 0, sent, arrived: sent + 5_000 });
        }
        log
    }

    #[test]
    fn lost_doubled_and_late_packets_are_counted_as_the_rfcs_say() {
        let r = evaluate(&log(&[0, 1, 4, 3, 3, 4, 7]), &known(10));
        let f = &r.flow;
        assert_eq!((f.sent, f.received, f.lost, f.duplicated, f.reordered), (10, 5, 5, 2, 1));
        assert_eq!(f.loss_bursts, [(1, 1), (2, 2)]);
        assert_eq!(f.loss_over_time.iter().map(|(_, n)| n).sum::<u32>(), 5);
        assert_eq!(f.loss_over_time[0].0, 0.02);
        assert_eq!(f.delay_us.as_ref().unwrap().p50, 5_000.0);
        assert_eq!((r.step.loss_percent, r.step.queue_p95_us, r.stretch), (50.0, 0.0, Some(1.0)));
        // Negative control: a packet that was sent and is not known to have been is not missed.
        assert_eq!(evaluate(&log(&[0, 1, 2, 3, 4]), &known(5)).flow.lost, 0);
    }

    #[test]
    fn a_clock_that_is_ahead_is_taken_out_of_the_delay_in_both_directions() {
        let mut log = Log::new(SPEC);
        let clock = ClockModel { at: 0, offset_us: 1e6, drift_ppm: 0.0 };
        log.handle_arrival(Arrival { seq: 0, damaged: true, tos: 0x8a, sent: 0, arrived: 1_007_000 });
        let r = evaluate(&log, &Known { clock, ..known(1) });
        assert_eq!((r.flow.delay_us.unwrap().min, r.flow.corrupted, r.tos), (7_000.0, 1, vec![(0x8a, 1)]));
        let mut log = Log::new(SPEC);
        log.handle_arrival(Arrival { seq: 0, damaged: false, tos: 0, sent: 1_000_000, arrived: 7_000 });
        let r = evaluate(&log, &Known { clock, way: Way::Down, ..known(1) });
        assert_eq!(r.flow.delay_us.unwrap().min, 7_000.0);
    }

    #[test]
    fn nothing_that_came_gives_no_delay_instead_of_one_that_is_made_up() {
        let r = evaluate(&Log::new(SPEC), &known(10));
        assert_eq!((r.flow.lost, r.flow.delay_us, r.flow.jitter_us, r.stretch), (10, None, None, None));
        assert_eq!(r.flow.loss_bursts, [(10, 1)]);
    }

    #[test]
    fn a_frame_is_whole_or_it_is_damaged() {
        let shape = Shape::Video { mbit_s: 1.0, fps: 50.0, key_every: 10, key_size: 1.0 };
        let spec = FlowSpec { shape, packet_bytes: 500, duration_us: 40_000, tos: 0 };
        let dues: Vec<Due> = Schedule::new(spec).unwrap().collect();
        assert_eq!(dues.iter().map(|d| d.frame).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
        let mut log = Log::new(spec);
        for d in dues.iter().filter(|d| d.seq != 7) {
            let sent = d.at_us as i64 + i64::from(d.seq) * 10;
            log.handle_arrival(Arrival { seq: d.seq, damaged: false, tos: 0, sent, arrived: sent + 1_000 });
        }
        let f = evaluate(&log, &known(10)).frames.unwrap();
        assert_eq!((f.frames, f.damaged, f.delay_us.unwrap().max), (2, 1, 1_040.0));
    }

    #[test]
    fn a_line_that_is_too_slow_stretches_what_it_carries() {
        let spec = FlowSpec::smooth_at(10.0, 1_250, 1_000_000);
        let mut log = Log::new(spec);
        for seq in 0..1_000 {
            let sent = i64::from(seq) * 1_000;
            log.handle_arrival(Arrival { seq, damaged: false, tos: 0, sent, arrived: 3_000 + i64::from(seq) * 1_250 });
        }
        let r = evaluate(&log, &Known { floor_us: Some(1_000.0), ..known(1_000) });
        assert!((r.step.received_mbit_s - 8.0).abs() < 1e-9 && r.stretch == Some(1.25), "{:?}", r.step);
        assert_eq!(r.step.queue_p95_us, 2_000.0 + 949.0 * 250.0);
    }
}
