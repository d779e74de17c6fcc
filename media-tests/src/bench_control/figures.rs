//! Times of one way.

use crate::sentinel::Trials;

/// Times, without those that fell into a moment at which the machine stood still; and the longest with them.
#[derive(Debug, Default)]
pub struct Figures {
    /// Microseconds.
    pub trials: Trials,
    /// The longest of all, void or not.
    pub longest: u64,
}

impl Figures {
    /// Notes one, boot clock; `stalled` where the machine stood still in it.
    pub fn note(&mut self, stalled: bool, from: u64, to: u64) {
        let us = to.saturating_sub(from);
        self.longest = self.longest.max(us);
        if stalled { self.trials.void += 1 } else { self.trials.values.push(us) }
    }

    /// The value that so many of a thousand do not exceed; nothing without values.
    #[must_use]
    pub fn permille(&self, p: usize) -> Option<u64> {
        self.trials.permille(p)
    }
}
