//! Which epoch it is, and up to where the disk covers them (HANDOVER.md section 4).

use crate::handover::types::Epoch;
use crate::units::Micros;

/// What the gate found in its store when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Store {
    /// A new block, on disk before the gate starts: `first` is above every epoch of earlier runs, `end` is not part of it.
    Block {
        /// The epoch of this start.
        first: Epoch,
        /// The first epoch that is not covered.
        end: Epoch,
    },
    /// Neither copy can be read, or nothing can be written (HO-E-005).
    Unreadable,
}

/// A reservation that failed or was lost is asked for again after so long.
const ASK_AGAIN: u64 = 1_000_000;

/// The gate's epochs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Epochs {
    /// The present one; nothing before an unreadable store learned the device's fence.
    current: Option<Epoch>,
    /// The first one that is not covered.
    end: Epoch,
    /// Whether remote may be granted in this session.
    trusted: bool,
    /// The end that the disk was asked for, and when.
    asked: Option<(Epoch, Micros)>,
}

impl Epochs {
    pub(super) const fn new(store: Store) -> Self {
        match store {
            Store::Block { first, end } => Self { current: Some(first), end, trusted: true, asked: None },
            Store::Unreadable => Self { current: None, end: Epoch(0), trusted: false, asked: None },
        }
    }

    /// The present epoch as the device is told it; nothing can be selected before it is known.
    pub(super) const fn fence(&self) -> Option<Epoch> {
        self.current
    }

    /// The present epoch as messages carry it.
    pub(super) fn current(&self) -> Epoch {
        self.current.unwrap_or(Epoch(0))
    }

    pub(super) const fn end(&self) -> Epoch {
        self.end
    }

    pub(super) const fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The epoch of the next grant, where remote may be granted at all (HO-E-005, HO-E-009).
    pub(super) fn next_grant(&self) -> Option<Epoch> {
        let granted = self.current?.next()?;
        let _after = granted.next()?.next()?;
        self.trusted.then_some(granted)
    }

    /// Entering or leaving REMOTE (HO-E-001). Leaving was covered before entering.
    pub(super) fn advance(&mut self) {
        self.current = self.current.map(|e| e.next().unwrap_or(e));
    }

    /// The device's fence is above ours, or ours is unknown: the one after it, for local and nobody (HO-E-005, HO-E-006).
    pub(super) fn adopt(&mut self, highest: Epoch) {
        self.trusted = false;
        self.current = Some(highest.next().unwrap_or(highest));
    }

    /// The end to ask the disk for, where it is time to (HO-E-007): less than three grants are left.
    pub(super) fn ask(&mut self, now: Micros, block: u64) -> Option<Epoch> {
        let current = self.current.filter(|_| self.trusted)?;
        let left = self.end.0.saturating_sub(current.0);
        let waits = self.asked.is_some_and(|(_, at)| now.since(at) < ASK_AGAIN);
        if left > 6 || waits {
            return None;
        }
        let end = Epoch(current.0.checked_add(block)?.checked_add(1)?);
        self.asked = Some((end, now));
        Some(end)
    }

    /// The disk holds a block up to `end`; counts when it was asked for.
    pub(super) fn reserved(&mut self, end: Epoch) {
        if self.asked.is_some_and(|(asked, _)| asked == end) {
            self.end = self.end.max(end);
            self.asked = None;
        }
    }
}

#[cfg(trocar_model)]
impl crate::handover::canon::Canon for Epochs {
    fn canon(&mut self, by: &crate::handover::canon::Ruler) {
        if let Some((_, at)) = &mut self.asked {
            by.past(at, ASK_AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Store = Store::Block { first: Epoch(10), end: Epoch(14) };

    #[test]
    fn the_next_block_is_asked_for_in_time_and_counts_only_when_it_was_asked_for() {
        // HO-E-003, HO-E-007
        let mut epochs = Epochs::new(BLOCK);
        assert_eq!(epochs.ask(Micros(0), 16), Some(Epoch(27)));
        assert_eq!(epochs.ask(Micros(1), 16), None);
        epochs.reserved(Epoch(99));
        assert_eq!(epochs.end(), Epoch(14));
        epochs.reserved(Epoch(27));
        assert_eq!(epochs.end(), Epoch(27));
        assert_eq!(epochs.ask(Micros(2), 16), None);
        assert_eq!(Epochs::new(BLOCK).ask(Micros(0), 16), Some(Epoch(27)));
    }

    #[test]
    fn a_lost_reservation_is_asked_for_again() {
        // HO-E-007, HO-E-008
        let mut epochs = Epochs::new(BLOCK);
        assert!(epochs.ask(Micros(0), 16).is_some());
        assert!(epochs.ask(Micros(ASK_AGAIN), 16).is_some());
    }

    #[test]
    fn without_a_store_there_is_no_grant_and_the_fence_is_the_devices_plus_one() {
        // HO-E-005, HO-E-006, HO-R-010
        let mut epochs = Epochs::new(Store::Unreadable);
        assert_eq!((epochs.fence(), epochs.next_grant()), (None, None));
        epochs.adopt(Epoch(41));
        assert_eq!((epochs.fence(), epochs.next_grant()), (Some(Epoch(42)), None));
        assert_eq!(epochs.ask(Micros(0), 16), None);
    }

    #[test]
    fn where_the_numbers_end_nothing_is_granted_and_nothing_wraps() {
        // HO-E-009
        let at = |n| Epochs::new(Store::Block { first: Epoch(n), end: Epoch(u64::MAX) });
        assert_eq!(at(u64::MAX - 2).next_grant(), None);
        assert_eq!(at(u64::MAX - 3).next_grant(), Some(Epoch(u64::MAX - 2)));
        let mut last = at(u64::MAX);
        last.advance();
        assert_eq!(last.current(), Epoch(u64::MAX));
    }
}
