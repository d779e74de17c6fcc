//! Picture numbers of VP8 and VP9 on a leg whose source changes.
//!
//! Both number their pictures (PictureID) and the pictures of the base layer (TL0PICIDX) in the payload descriptor, each encoder from a
//! beginning of its own: RFC 7741 section 4.2, RFC 9628 section 4.2. A receiver finds out by them what a picture refers to. Where a viewer
//! goes from one layer or view to another, the numbers jump, and a receiver may take what comes for pictures of long ago: Chromium then
//! shows nothing until the next key frame. Here both go on rising by one.

use super::super::bytes;
use super::super::rising::{Number, Rising, Source};
use super::Codec;

/// PictureID has 15 bits, or 7.
const WIDE: u16 = 0x7fff;
const NARROW: u16 = 0x7f;

/// Where the numbers stand in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Places {
    /// Of PictureID, and whether it has two bytes.
    picture: Option<(usize, bool)>,
    /// Of TL0PICIDX.
    base: Option<usize>,
}

impl Places {
    fn of(codec: Codec, payload: &[u8]) -> Option<Self> {
        match codec {
            Codec::Vp8 => Self::vp8(payload),
            Codec::Vp9 => Self::vp9(payload),
            _ => None,
        }
    }

    fn vp8(payload: &[u8]) -> Option<Self> {
        if payload.first()? & 0x80 == 0 {
            return None;
        }
        let bits = payload.get(1)?;
        let (picture, next) = picture_at(payload, 2, bits & 0x80 != 0)?;
        Some(Self { picture, base: (bits & 0x40 != 0).then_some(next) })
    }

    fn vp9(payload: &[u8]) -> Option<Self> {
        let bits = payload.first()?;
        let (picture, next) = picture_at(payload, 1, bits & 0x80 != 0)?;
        // A byte of layer indices comes before it; in flexible mode there is none.
        Some(Self { picture, base: (bits & 0x20 != 0 && bits & 0x10 == 0).then_some(next + 1) })
    }

    fn read(self, payload: &[u8]) -> Option<Numbers> {
        let picture = match self.picture {
            Some((at, true)) => bytes::be16(payload, at)? & WIDE,
            Some((at, false)) => u16::from(payload.get(at)? & 0x7f),
            None => 0,
        };
        let base = self.base.map_or(Some(0), |at| payload.get(at).copied())?;
        Some(Numbers { picture, base })
    }

    /// The places have been read: they are there.
    fn write(self, payload: &mut [u8], numbers: Numbers) {
        let mut put = |at: usize, value: &[u8]| {
            let _ = bytes::put(payload, at, value);
        };
        match self.picture {
            Some((at, true)) => put(at, &(numbers.picture | 0x8000).to_be_bytes()),
            Some((at, false)) => put(at, &[(numbers.picture & NARROW) as u8]),
            None => {}
        }
        if let Some(at) = self.base {
            put(at, &[numbers.base]);
        }
    }
}

/// Where PictureID stands, if there is one, and what comes after it.
fn picture_at(payload: &[u8], at: usize, there: bool) -> Option<(Option<(usize, bool)>, usize)> {
    if !there {
        return Some((None, at));
    }
    let wide = payload.get(at)? & 0x80 != 0;
    Some((Some((at, wide)), at + 1 + usize::from(wide)))
}

/// PictureID and TL0PICIDX; 0 where a descriptor has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Numbers {
    picture: u16,
    base: u8,
}

impl Number for Numbers {
    fn plus(self, offset: Self) -> Self {
        Self { picture: self.picture.wrapping_add(offset.picture) & WIDE, base: self.base.wrapping_add(offset.base) }
    }

    fn offset_of_next(self, first: Self) -> Self {
        Self {
            picture: self.picture.wrapping_add(1).wrapping_sub(first.picture) & WIDE,
            base: self.base.wrapping_add(1).wrapping_sub(first.base),
        }
    }

    fn raise(&mut self, to: Self) {
        if to.picture.wrapping_sub(self.picture) & WIDE <= WIDE / 2 {
            self.picture = to.picture;
        }
        if to.base.wrapping_sub(self.base) < 0x80 {
            self.base = to.base;
        }
    }
}

/// Keeps the picture numbers of a leg rising where its source changes. Everything else of a payload goes on untouched.
#[derive(Debug, Clone)]
pub struct Pictures {
    codec: Codec,
    numbers: Rising<Numbers>,
}

impl Pictures {
    /// For a leg of that codec; none where its payloads have no such numbers.
    #[must_use]
    pub fn of(codec: Codec) -> Option<Self> {
        matches!(codec, Codec::Vp8 | Codec::Vp9).then(|| Self { codec, numbers: Rising::default() })
    }

    /// Gives a payload the numbers that its picture has on the leg.
    pub fn write(&mut self, source: Source, payload: &mut [u8]) {
        if let Some((places, numbers)) = self.find(payload) {
            places.write(payload, self.numbers.number(source, numbers));
        }
    }

    /// Gives a payload that goes again the numbers that it had: it changes nothing. One whose source is older than the one before stays
    /// as it came.
    pub fn write_again(&self, source: Source, payload: &mut [u8]) {
        let found = self.find(payload);
        if let Some((places, had)) = found.and_then(|(p, n)| Some((p, self.numbers.number_again(source, n)?))) {
            places.write(payload, had);
        }
    }

    fn find(&self, payload: &[u8]) -> Option<(Places, Numbers)> {
        let places = Places::of(self.codec, payload).filter(|p| *p != Places::default())?;
        Some((places, places.read(payload)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::rng::Rng;

    const FIRST: Source = (0, 0);
    const SECOND: Source = (1, 0);

    /// A VP8 packet with both numbers and a temporal layer.
    fn vp8(picture: u16, base: u8) -> Vec<u8> {
        [&[0x90, 0xe0][..], &(picture | 0x8000).to_be_bytes(), &[base, 0x20, 0x31, 7]].concat()
    }

    /// A VP9 packet in non-flexible mode with both numbers.
    fn vp9(picture: u16, base: u8) -> Vec<u8> {
        [&[0xa8][..], &(picture | 0x8000).to_be_bytes(), &[0x10, base, 0x82, 7]].concat()
    }

    fn moved(p: &mut Pictures, source: Source, mut packet: Vec<u8>) -> Vec<u8> {
        p.write(source, &mut packet);
        packet
    }

    #[test]
    fn the_first_source_is_untouched_and_the_next_one_goes_on_by_one() {
        for (codec, packet) in [(Codec::Vp8, vp8 as fn(u16, u8) -> Vec<u8>), (Codec::Vp9, vp9)] {
            let mut p = Pictures::of(codec).unwrap();
            for n in 0..3 {
                assert_eq!(moved(&mut p, FIRST, packet(0x7ffe, 254)), packet(0x7ffe, 254), "{n}");
            }
            assert_eq!(moved(&mut p, FIRST, packet(0, 0)), packet(0, 0), "both have come round");
            // Lower numbers, then what follows them, one picture that came late, and one that goes again.
            assert_eq!(moved(&mut p, SECOND, packet(500, 90)), packet(1, 1), "{codec:?}");
            assert_eq!(moved(&mut p, SECOND, packet(502, 91)), packet(3, 2));
            assert_eq!(moved(&mut p, SECOND, packet(501, 90)), packet(2, 1));
            let mut again = packet(500, 90);
            p.write_again(SECOND, &mut again);
            assert_eq!(again, packet(1, 1));
            let mut again = packet(0x7ffe, 254);
            p.write_again(FIRST, &mut again);
            assert_eq!(again, packet(0x7ffe, 254));
            // Back again: another count of the leg's feeds.
            assert_eq!(moved(&mut p, (2, 0), packet(3_000, 7)), packet(4, 3));
            let mut old = packet(9, 9);
            p.write_again(FIRST, &mut old);
            assert_eq!(old, packet(9, 9), "two sources ago");
        }
    }

    #[test]
    fn what_has_one_of_the_numbers_or_none_keeps_the_rest() {
        let mut p = Pictures::of(Codec::Vp8).unwrap();
        for plain in [&[0x10, 0x31][..], &[0x90, 0x20, 0x20, 0x31], &[0x90, 0x10, 0x01, 0x31]] {
            assert_eq!(moved(&mut p, FIRST, plain.to_vec()), plain, "nothing to number");
        }
        assert_eq!(moved(&mut p, FIRST, vec![0x90, 0x80, 0x7f, 0x31]), [0x90, 0x80, 0x7f, 0x31], "seven bits");
        assert_eq!(moved(&mut p, SECOND, vec![0x90, 0x80, 0x05, 0x31]), [0x90, 0x80, 0x00, 0x31], "128, in seven bits");
        assert_eq!(moved(&mut p, SECOND, vec![0x90, 0x80, 0x06, 0x31]), [0x90, 0x80, 0x01, 0x31]);
        let mut p = Pictures::of(Codec::Vp9).unwrap();
        // Flexible mode has no TL0PICIDX; layers without a picture id have.
        assert_eq!(moved(&mut p, FIRST, vec![0xb8, 0x05, 0x10, 7]), [0xb8, 0x05, 0x10, 7]);
        assert_eq!(moved(&mut p, SECOND, vec![0xb8, 0x44, 0x10, 7]), [0xb8, 0x06, 0x10, 7]);
        assert_eq!(moved(&mut p, SECOND, vec![0x28, 0x10, 0x55, 7])[..2], [0x28, 0x10]);
        assert!(
            [Codec::H264, Codec::H265, Codec::Av1, Codec::Opus, Codec::Other]
                .map(Pictures::of)
                .iter()
                .all(Option::is_none)
        );
    }

    #[test]
    fn bytes_of_any_kind_keep_their_length_and_are_no_panic() {
        let mut rng = Rng::new(7);
        for codec in [Codec::Vp8, Codec::Vp9] {
            let mut p = Pictures::of(codec).unwrap();
            for round in 0..20_000 {
                let len = rng.below(8) as usize;
                let before: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
                let mut after = before.clone();
                p.write((round / 50, 0), &mut after);
                assert_eq!(after.len(), before.len());
                assert_eq!(after.first(), before.first(), "what the descriptor has in it stays");
                p.write_again((round / 50, 0), &mut after);
            }
        }
    }
}
