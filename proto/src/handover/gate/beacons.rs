//! The nonces that the gate issued, and when: the only clock that ages are counted from (HO-A-002).

use crate::handover::types::{Counter, Nonce};
use crate::units::Micros;
use std::collections::VecDeque;

/// Nonces kept: 1.28 s at 50 Hz, more than twice the loop age that ends REMOTE at once.
const KEPT: usize = 64;

/// What was issued to the present addressee or holder (HO-A-004).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Beacons {
    issued: VecDeque<(Nonce, Micros)>,
    counter: Counter,
    due: Micros,
}

impl Beacons {
    /// None issued; the first is due at once.
    pub(super) const fn new(now: Micros) -> Self {
        Self { issued: VecDeque::new(), counter: Counter(0), due: now }
    }

    /// The same nonces under a new binding, whose counter starts anew.
    pub(super) fn rebound(self, now: Micros) -> Self {
        Self { counter: Counter(0), due: now, ..self }
    }

    /// Issues the nonce when one is due.
    pub(super) fn issue(&mut self, now: Micros, nonce: Nonce, every: u64) -> Option<Counter> {
        if now < self.due {
            return None;
        }
        if self.issued.len() >= KEPT {
            self.issued.pop_front();
        }
        self.issued.push_back((nonce, now));
        self.counter = Counter(self.counter.0.saturating_add(1));
        self.due = now.plus(every);
        Some(self.counter)
    }

    /// When this nonce was issued; the newest time where chance issued it twice, which only makes an age too small by less than
    /// the table's span and has a probability below 2^-57.
    #[must_use]
    pub fn issued_at(&self, nonce: Nonce) -> Option<Micros> {
        self.issued.iter().rev().find(|(each, _)| *each == nonce).map(|(_, at)| *at)
    }
}

#[cfg(trocar_model)]
impl Beacons {
    /// The newest number, and nothing of nonces older than `limit`.
    pub(super) fn canon(
        &mut self,
        binding: crate::handover::types::Binding,
        limit: u64,
        by: &crate::handover::canon::Ruler,
    ) {
        let limit = limit.saturating_add(by.tick);
        self.issued.retain(|(_, at)| by.now.since(*at) <= limit);
        for (nonce, at) in &mut self.issued {
            by.nonce(nonce);
            by.past(at, limit);
        }
        by.due(&mut self.due);
        by.beacon(binding, &mut self.counter);
    }

    pub(super) const fn newest(&self) -> Counter {
        self.counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_counted_from_the_gates_own_issue_and_the_table_is_bounded() {
        // HO-A-001, HO-A-002, HO-A-004
        let mut beacons = Beacons::new(Micros(0));
        for n in 0..100 {
            assert_eq!(beacons.issue(Micros(n * 20), Nonce(n), 20), Some(Counter(n + 1)));
            assert_eq!(beacons.issue(Micros(n * 20 + 19), Nonce(n), 20), None);
        }
        assert_eq!(beacons.issued.len(), KEPT);
        assert_eq!(beacons.issued_at(Nonce(99)), Some(Micros(1_980)));
        assert_eq!(beacons.issued_at(Nonce(35)), None);
        assert_eq!(beacons.issued_at(Nonce(1_000)), None);
    }
}
