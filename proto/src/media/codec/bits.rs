//! Bits of untrusted headers, most significant first. Every read ends with the bytes.

/// A reader of bits.
#[derive(Debug, Clone)]
pub(in crate::media) struct Bits<'a> {
    rest: &'a [u8],
    byte: u8,
    left: u8,
    /// Zero bytes in a row, where emulation prevention bytes are skipped.
    zeros: Option<u8>,
}

impl<'a> Bits<'a> {
    /// Of plain bytes.
    pub(in crate::media) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, byte: 0, left: 0, zeros: None }
    }

    /// Of a NAL unit's bytes: the 3 after two zeros is not part of the content (H.264 section 7.4.1, H.265 section 7.4.2).
    pub(in crate::media) const fn of_nal(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, byte: 0, left: 0, zeros: Some(0) }
    }

    fn next_byte(&mut self) -> Option<u8> {
        let (&b, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(b)
    }

    fn refill(&mut self) -> Option<()> {
        let mut b = self.next_byte()?;
        if let Some(zeros) = self.zeros {
            let mut zeros = zeros;
            if zeros >= 2 && b == 3 {
                b = self.next_byte()?;
                zeros = 0;
            }
            self.zeros = Some(if b == 0 { zeros.saturating_add(1) } else { 0 });
        }
        self.byte = b;
        self.left = 8;
        Some(())
    }

    /// One bit.
    pub(in crate::media) fn bit(&mut self) -> Option<bool> {
        if self.left == 0 {
            self.refill()?;
        }
        self.left -= 1;
        Some((self.byte >> self.left) & 1 == 1)
    }

    /// Up to 32 bits.
    pub(in crate::media) fn bits(&mut self, count: u32) -> Option<u32> {
        if count > 32 {
            return None;
        }
        let mut value = 0_u64;
        for _ in 0..count {
            value = (value << 1) | u64::from(self.bit()?);
        }
        u32::try_from(value).ok()
    }

    /// Passes over that many bits.
    pub(in crate::media) fn skip(&mut self, count: u32) -> Option<()> {
        for _ in 0..count {
            self.bit()?;
        }
        Some(())
    }

    /// An unsigned exponential-Golomb number of at most 32 bits: ue(v) of H.264 and H.265, uvlc() of AV1.
    pub(in crate::media) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let tail = self.bits(zeros)?;
        ((1_u32 << zeros) - 1).checked_add(tail)
    }

    /// Type or size of an SEI message: bytes are added up to the first that is not 255.
    fn sei_number(&mut self) -> Option<u32> {
        let mut sum = 0_u32;
        loop {
            let byte = self.bits(8)?;
            sum = sum.checked_add(byte)?;
            if byte < 255 {
                return Some(sum);
            }
        }
    }

    /// A signed exponential-Golomb number: se(v) of H.264.
    pub(in crate::media) fn se(&mut self) -> Option<i32> {
        let k = self.ue()?;
        let half = i32::try_from(k.div_ceil(2)).ok()?;
        Some(if k % 2 == 1 { half } else { -half })
    }
}

/// First bits of the recovery point message (H.264 section D.1.8, H.265 section D.2.8) of an SEI unit's bytes, where it has
/// one. `body` is what follows the unit's header, emulation prevention included.
pub(in crate::media) fn recovery_point(body: &[u8]) -> Option<Bits<'_>> {
    const RECOVERY_POINT: u32 = 6;
    let mut b = Bits::of_nal(body);
    // Each turn takes at least two bytes.
    loop {
        let kind = b.sei_number()?;
        let size = b.sei_number()?;
        if kind == RECOVERY_POINT {
            return Some(b);
        }
        b.skip(size.checked_mul(8)?)?;
    }
}

/// Writes bits for tests.
#[cfg(test)]
#[derive(Debug, Default)]
pub(in crate::media) struct BitWriter(Vec<bool>);

#[cfg(test)]
impl BitWriter {
    pub(in crate::media) fn bits(mut self, count: u32, value: u32) -> Self {
        self.0.extend((0..count).rev().map(|i| (value >> i) & 1 == 1));
        self
    }

    pub(in crate::media) fn ue(self, value: u32) -> Self {
        let length = 32 - (value + 1).leading_zeros();
        self.bits(length - 1, 0).bits(length, value + 1)
    }

    /// The bytes, with a stop bit.
    pub(in crate::media) fn finish(mut self) -> Vec<u8> {
        self.0.push(true);
        self.0.chunks(8).map(|c| c.iter().enumerate().fold(0, |b, (i, on)| b | (u8::from(*on) << (7 - i)))).collect()
    }

    /// The bytes as a NAL unit carries them.
    pub(in crate::media) fn finish_nal(self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut zeros = 0;
        for b in self.finish() {
            if zeros >= 2 && b <= 3 {
                out.push(3);
                zeros = 0;
            }
            zeros = if b == 0 { zeros + 1 } else { 0 };
            out.push(b);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_kind_are_read_back() {
        let bytes = BitWriter::default().bits(3, 5).ue(0).ue(1).ue(254).ue(65_534).bits(32, 0xdead_beef).finish();
        let mut b = Bits::new(&bytes);
        assert_eq!(b.bits(3), Some(5));
        assert_eq!([b.ue(), b.ue(), b.ue(), b.ue()], [Some(0), Some(1), Some(254), Some(65_534)]);
        assert_eq!(b.bits(32), Some(0xdead_beef));
        assert_eq!(b.bits(33), None);
    }

    #[test]
    fn signed_numbers_alternate() {
        let bytes = (0..5).fold(BitWriter::default(), BitWriter::ue).finish();
        let mut b = Bits::new(&bytes);
        let got: Vec<_> = (0..5).filter_map(|_| b.se()).collect();
        assert_eq!(got, vec![0, 1, -1, 2, -2]);
    }

    #[test]
    fn emulation_prevention_is_skipped_in_nal_units_only() {
        let bytes = [0, 0, 3, 1, 0, 0, 3];
        assert_eq!(Bits::of_nal(&bytes).bits(24), Some(1));
        assert_eq!(Bits::new(&bytes).bits(24), Some(3));
        let mut b = Bits::of_nal(&bytes);
        assert_eq!((b.skip(40), b.bit()), (Some(()), None), "ends with the escape");
    }

    #[test]
    fn the_recovery_point_is_found_behind_other_messages_and_only_where_it_is() {
        // Messages of type 1 (two bytes), of type 5 with 258 bytes, of which escapes are no part, and of type 6.
        let long = [&[5, 255, 3][..], &[0, 0, 3, 0, 0, 3].repeat(64), &[0, 0], &[6, 1, 0x84]].concat();
        let unit = [&[1, 2, 9, 9][..], &long].concat();
        assert_eq!(recovery_point(&unit).and_then(|mut b| b.ue()), Some(0));
        assert_eq!(recovery_point(&[6, 1, 0x48]).and_then(|mut b| b.ue()), Some(1));
        for (n, other) in
            [&[][..], &[6], &[255; 40], &[5, 255], &[5, 9, 6, 1, 0x84], &[1, 1, 6, 0x80]].iter().enumerate()
        {
            assert!(recovery_point(other).is_none(), "{n}");
        }
    }

    #[test]
    fn a_number_that_never_ends_is_none() {
        assert_eq!(Bits::new(&[0; 40]).ue(), None);
        assert_eq!(Bits::new(&[0, 1]).ue(), None);
    }
}
