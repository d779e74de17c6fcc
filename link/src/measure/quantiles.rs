//! Distributions. Every value counts: nothing is put into classes, so that the tail is as exact as the data.

use crate::result::Quantiles;

/// Points of the curve.
const CURVE_POINTS: usize = 200;

/// The distribution of some values, in any order; none where there is none. What is no number is left out.
#[must_use]
pub fn quantiles(mut values: Vec<f64>) -> Option<Quantiles> {
    values.retain(|v| v.is_finite());
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let at = |share: f64| quantile(&values, share).unwrap_or(max);
    Some(Quantiles {
        count: values.len() as u64,
        min,
        p50: at(0.5),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        max,
        mean: values.iter().sum::<f64>() / values.len() as f64,
        cdf: curve(&values),
    })
}

/// The smallest of the sorted values that this share of them does not exceed (nearest rank).
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).or(sorted.last()).copied()
}

/// The middle of some values; none where there is none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

fn curve(sorted: &[f64]) -> Vec<(f64, f64)> {
    let n = sorted.len();
    let points = n.min(CURVE_POINTS);
    (1..=points)
        .filter_map(|i| {
            let rank = (i * n).div_ceil(points);
            Some((*sorted.get(rank - 1)?, rank as f64 / n as f64))
        })
        .collect()
}

/// Every n-th of a series, so that at most `most` are left.
#[must_use]
pub fn thin<T: Copy>(series: &[T], most: usize) -> Vec<T> {
    series.iter().step_by(series.len().div_ceil(most.max(1)).max(1)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_nearest_rank_method() {
        let q = quantiles((1..=1_000).rev().map(f64::from).collect()).unwrap();
        assert_eq!(
            (q.count, q.min, q.p50, q.p95, q.p99, q.p999, q.max),
            (1_000, 1.0, 500.0, 950.0, 990.0, 999.0, 1_000.0)
        );
        assert!((q.mean - 500.5).abs() < 1e-9);
        assert_eq!((q.cdf.len(), q.cdf[0], q.cdf[199]), (200, (5.0, 0.005), (1_000.0, 1.0)));
        assert_eq!(quantiles(vec![7.0]).unwrap().p999, 7.0);
        assert!(quantiles(vec![f64::NAN]).is_none());
    }

    #[test]
    fn a_series_is_thinned_evenly_and_never_beyond_what_was_asked() {
        let all: Vec<u32> = (0..10_001).collect();
        assert!(thin(&all, 1_000).len() <= 1_000);
        assert_eq!(thin(&all[..3], 1_000), [0, 1, 2]);
        assert_eq!(thin(&all[..4], 2), [0, 2]);
    }
}
