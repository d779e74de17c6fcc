//! Two ways at the same time: the same numbers leave on both, and what each loses is compared packet by packet.

use super::log::Log;
use super::quantiles::median;
use crate::result::SecondPath;
use serde::{Deserialize, Serialize};

/// What came of the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Packets on each.
    pub sent: u64,
    /// Lost on the first.
    pub lost: u64,
    /// Lost on the second.
    pub second_lost: u64,
    /// Lost on both.
    pub both_lost: u64,
    /// How much later the second brought a packet, in the middle, in microseconds.
    pub skew_us: Option<f64>,
}

/// Compares two flows of the same schedule that began together, of which each sent `sent` packets. Both were sent by one clock and taken
/// down by one, so that the skew needs none in common.
#[must_use]
pub fn compare(first: &Log, second: &Log, sent: u32) -> Pair {
    let times = |log: &Log| {
        let mut t: Vec<Option<i64>> = vec![None; sent as usize];
        for a in log.arrivals() {
            if let Some(slot) = t.get_mut(a.seq as usize) {
                slot.get_or_insert(a.arrived - a.sent);
            }
        }
        t
    };
    let (a, b) = (times(first), times(second));
    let lost = |t: &[Option<i64>]| t.iter().filter(|t| t.is_none()).count() as u64;
    let pairs = || a.iter().zip(&b);
    Pair {
        sent: u64::from(sent),
        lost: lost(&a),
        second_lost: lost(&b),
        both_lost: pairs().filter(|(a, b)| a.is_none() && b.is_none()).count() as u64,
        skew_us: median(pairs().filter_map(|(a, b)| Some(((*b)? - (*a)?) as f64)).collect()),
    }
}

/// Both directions together.
#[must_use]
pub fn second_path(name: &str, pairs: &[Pair]) -> Option<SecondPath> {
    let sum = |f: fn(&Pair) -> u64| pairs.iter().map(f).sum::<u64>() as f64;
    let sent = sum(|p| p.sent);
    let skews: Vec<f64> = pairs.iter().filter_map(|p| p.skew_us).collect();
    if sent == 0.0 || skews.is_empty() {
        return None;
    }
    let (a, b, both) = (sum(|p| p.lost) / sent, sum(|p| p.second_lost) / sent, sum(|p| p.both_lost) / sent);
    Some(SecondPath {
        name: name.to_owned(),
        skew_us: skews.iter().sum::<f64>() / skews.len() as f64,
        loss_percent: a * 100.0,
        second_loss_percent: b * 100.0,
        both_loss_percent: both * 100.0,
        dependence: (a > 0.0 && b > 0.0).then(|| both / (a * b)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::log::Arrival;
    use crate::measure::schedule::FlowSpec;

    fn log(lost: impl Fn(u32) -> bool, delay: i64) -> Log {
        let mut log = Log::new(FlowSpec::smooth_at(0.8, 100, 1_000_000));
        for seq in (0..1_000).filter(|s| !lost(*s)) {
            let sent = i64::from(seq) * 1_000;
            log.handle_arrival(Arrival { seq, damaged: false, tos: 0, sent, arrived: sent + delay });
        }
        log
    }

    #[test]
    fn ways_that_fail_apart_and_ways_that_fail_together_are_told_apart() {
        let apart = compare(&log(|s| s % 10 == 0, 5_000), &log(|s| s / 10 % 10 == 0, 9_000), 1_000);
        assert_eq!(apart, Pair { sent: 1_000, lost: 100, second_lost: 100, both_lost: 10, skew_us: Some(4_000.0) });
        let s = second_path("b", &[apart, apart]).unwrap();
        assert!((s.dependence.unwrap() - 1.0).abs() < 1e-9 && s.both_loss_percent == 1.0, "{s:?}");
        let together = compare(&log(|s| s < 50, 9_000), &log(|s| s < 50, 5_000), 1_000);
        let s = second_path("b", &[together]).unwrap();
        assert!((s.dependence.unwrap() - 20.0).abs() < 1e-9 && s.skew_us == -4_000.0, "{s:?}");
        let clean = second_path("b", &[compare(&log(|_| false, 1), &log(|_| false, 1), 1_000)]).unwrap();
        assert_eq!(clean.dependence, None);
    }
}
