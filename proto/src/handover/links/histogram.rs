//! Counts in steps of one width: bounded whatever comes, and never flattering, since a percentile is the upper edge of its step.

/// `bins` steps of `step` microseconds; one more for everything above.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Histogram {
    step: u64,
    counts: Vec<u32>,
}

impl Histogram {
    pub(super) fn new(step: u64, bins: usize) -> Self {
        Self { step, counts: vec![0; bins + 1] }
    }

    pub(super) fn add(&mut self, value: u64) {
        let last = self.counts.len().saturating_sub(1);
        let bin = usize::try_from(value / self.step.max(1)).unwrap_or(last).min(last);
        if let Some(count) = self.counts.get_mut(bin) {
            *count = count.saturating_add(1);
        }
    }

    /// Adds another of the same shape.
    pub(super) fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours = ours.saturating_add(*theirs);
        }
    }

    /// The upper edge of the step in which `percent` of the values are reached; far above everything where that is the last step;
    /// nothing where there are no values.
    pub(super) fn percentile(&self, percent: u64) -> Option<u64> {
        let total: u64 = self.counts.iter().map(|c| u64::from(*c)).sum();
        let wanted = (total * percent).div_ceil(100).max(1);
        let mut sum = 0;
        for (bin, count) in (0_u64..).zip(&self.counts) {
            sum += u64::from(*count);
            if sum >= wanted && total > 0 {
                let above = usize::try_from(bin).is_ok_and(|bin| bin + 1 == self.counts.len());
                return Some(if above { u64::MAX } else { (bin + 1) * self.step });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_never_below_the_true_one() {
        // HO-K-007
        let mut h = Histogram::new(10, 5);
        assert_eq!(h.percentile(95), None);
        (0..100).for_each(|v| h.add(v % 40));
        assert_eq!((h.percentile(50), h.percentile(95), h.percentile(1)), (Some(20), Some(40), Some(10)));
        (0..10).for_each(|_| h.add(u64::MAX));
        assert_eq!(h.percentile(95), Some(u64::MAX));
        assert_eq!(h.counts.len(), 6);
    }
}
