//! How many datagrams of a kind a holder may send (HO-P-001, HO-P-006).

use crate::units::Micros;

/// A bucket of permits that fills with time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    /// Time that one permit costs, in microseconds.
    cost: u64,
    /// Time that the bucket holds at most.
    most: u64,
    /// When it would have been empty.
    empty_at: Micros,
}

/// Permits that may come in one burst: what a stalled path gives back at once.
const BURST: u64 = 64;

impl Bucket {
    /// Full, with `rate` permits a second.
    pub(super) fn new(now: Micros, rate: u64) -> Self {
        let cost = 1_000_000 / rate.max(1);
        let most = cost.saturating_mul(BURST);
        Self { cost, most, empty_at: Micros(now.0.saturating_sub(most)) }
    }

    /// Takes a permit where there is one.
    pub(super) fn take(&mut self, now: Micros) -> bool {
        let floor = Micros(now.0.saturating_sub(self.most));
        let from = self.empty_at.max(floor);
        if now.since(from) < self.cost {
            return false;
        }
        self.empty_at = from.plus(self.cost);
        true
    }
}

#[cfg(trocar_model)]
impl crate::handover::canon::Canon for Bucket {
    fn canon(&mut self, by: &crate::handover::canon::Ruler) {
        by.full(&mut self.empty_at, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_thousand_a_second_do_not_pass() {
        // HO-P-001
        let start = 10_000_000;
        let mut bucket = Bucket::new(Micros(start), 1_000);
        let passed = (0..4_000_u64).filter(|n| bucket.take(Micros(start + n * 250))).count();
        assert_eq!(passed, 1_000 + 63);
        let steady = (0..1_000_u64).filter(|n| bucket.take(Micros(start + 2_000_000 + n * 1_000))).count();
        assert_eq!(steady, 1_000);
    }
}
