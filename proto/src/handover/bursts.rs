//! Refused datagrams, told once a burst: one NACK and one audit record, however many there were (HO-M-014, HO-U-006).

use super::message::Reason;
use super::types::ChannelId;
use crate::units::Micros;

/// Bursts under way at most; beyond it the quietest is closed early.
const MOST: usize = 64;

/// A burst that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Burst {
    /// From which channel.
    pub channel: ChannelId,
    /// Why they were refused.
    pub reason: Reason,
    /// How many.
    pub count: u64,
    /// The first.
    pub first: Micros,
    /// The last.
    pub last: Micros,
}

/// Beside the gate, not in it: nothing is decided by these figures.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bursts {
    pause: u64,
    open: Vec<Burst>,
}

impl Bursts {
    /// Bursts are apart when nothing is refused for `pause` microseconds.
    #[must_use]
    pub const fn new(pause: u64) -> Self {
        Self { pause, open: Vec::new() }
    }

    /// Notes one. True for the first of a burst: NACK it.
    pub fn note(&mut self, now: Micros, channel: ChannelId, reason: Reason) -> bool {
        let same = |b: &Burst| b.channel == channel && b.reason == reason && now.since(b.last) <= self.pause;
        if let Some(burst) = self.open.iter_mut().find(|b| same(b)) {
            burst.count = burst.count.saturating_add(1);
            burst.last = now;
            return false;
        }
        self.open.push(Burst { channel, reason, count: 1, first: now, last: now });
        true
    }

    /// A burst that is over: write its record.
    pub fn poll(&mut self, now: Micros) -> Option<Burst> {
        let over = self.open.iter().position(|b| now.since(b.last) > self.pause);
        let crowded = || self.open.iter().enumerate().min_by_key(|(_, b)| b.last).map(|(n, _)| n);
        let which = over.or_else(|| if self.open.len() > MOST { crowded() } else { None })?;
        Some(self.open.remove(which))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_late_commands_leave_one_nack_and_one_record_with_their_number() {
        // HO-M-014, HO-U-006, HO-X-005
        let mut bursts = Bursts::new(1_000_000);
        let late = |bursts: &mut Bursts, at| bursts.note(Micros(at), ChannelId(1), Reason::WrongEpoch);
        let nacks = (0..10_000).filter(|n| late(&mut bursts, n * 100)).count();
        assert_eq!(nacks, 1);
        assert_eq!(bursts.poll(Micros(1_000_000)), None);
        let burst = bursts.poll(Micros(3_000_000)).unwrap();
        assert_eq!((burst.count, burst.first, burst.last), (10_000, Micros(0), Micros(999_900)));
        assert!(late(&mut bursts, 3_000_000));
    }

    #[test]
    fn a_crowd_of_bursts_is_closed_early_and_not_kept() {
        // HO-U-006
        let mut bursts = Bursts::new(1_000_000);
        for n in 0..200 {
            bursts.note(Micros(n.into()), ChannelId(n), Reason::OldCounter);
            while bursts.poll(Micros(n.into())).is_some() {}
        }
        assert_eq!(bursts.open.len(), MOST);
    }
}
