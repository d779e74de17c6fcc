//! Widening of 16-bit sequence numbers (RFC 3550 appendix A.1, RFC 3711 section 3.3.1).

use crate::units::SeqNo;

/// Widens sequence numbers of one source to 64 bits. Starts in cycle 1, so that a packet from before the first one that
/// came still has a number.
#[derive(Debug, Clone, Copy, Default)]
pub struct SeqExtender {
    highest: Option<u64>,
}

impl SeqExtender {
    /// One that has seen that number last.
    #[must_use]
    pub const fn starting_at(highest: SeqNo) -> Self {
        Self { highest: Some(highest.0) }
    }

    /// The 64-bit number nearest to the highest seen, without taking it in.
    #[must_use]
    pub const fn peek(&self, seq: u16) -> SeqNo {
        let Some(highest) = self.highest else { return SeqNo(0x1_0000 + seq as u64) };
        SeqNo(nearest(highest, seq))
    }

    /// Takes the number in and returns it widened.
    pub fn extend(&mut self, seq: u16) -> SeqNo {
        let s = self.peek(seq);
        self.highest = Some(self.highest.map_or(s.0, |h| h.max(s.0)));
        s
    }

    /// The highest number so far.
    #[must_use]
    pub fn highest(&self) -> Option<SeqNo> {
        self.highest.map(SeqNo)
    }
}

/// The number with the low 16 bits `seq` that is nearest to `reference`.
#[must_use]
pub const fn nearest(reference: u64, seq: u16) -> u64 {
    let delta = seq.wrapping_sub((reference & 0xffff) as u16).cast_signed();
    reference.saturating_add_signed(delta as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_rising_over_the_wrap_and_late_ones_stay_behind() {
        let mut e = SeqExtender::default();
        let a = e.extend(65_534);
        let b = e.extend(1);
        assert_eq!(b.0 - a.0, 3);
        assert_eq!(e.extend(65_535).0, a.0 + 1);
        assert_eq!(e.highest(), Some(b));
    }

    #[test]
    fn a_packet_from_before_the_first_has_a_number() {
        let mut e = SeqExtender::default();
        let a = e.extend(0);
        assert_eq!(e.extend(65_535).0, a.0 - 1);
    }
}
