//! The dependency descriptor (AV1 RTP specification, appendix A): which frame a packet belongs to and what that frame
//! depends on, so that a relay need not read the payload, which may be encrypted.
//!
//! A key frame brings the template structure; later packets name a template of it. What is kept is bounded by the format:
//! 64 templates.

use super::codec::bits::Bits;
use super::rising::{Rising, Source};

/// Templates at most: their id has six bits.
const MAX_TEMPLATES: usize = 64;
/// Distances to other frames that one template or frame names at most; the format has no bound of its own.
const MAX_DISTANCES: usize = 64;
/// Bytes that every descriptor has.
const MANDATORY: usize = 3;

/// Why a descriptor cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// Shorter than it says.
    #[error("dependency descriptor is cut short")]
    TooShort,
    /// It names a template that no structure has, or there was no structure yet.
    #[error("dependency descriptor names an unknown template")]
    Template,
    /// More templates or distances than the format can mean.
    #[error("dependency descriptor has too many templates or distances")]
    TooMany,
}

/// What a descriptor says of its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// First packet of its frame.
    pub start: bool,
    /// Last packet of its frame. A picture of several spatial layers is several frames.
    pub end: bool,
    /// Number of the frame, wrapping.
    pub frame_number: u16,
    /// The frame needs no other.
    pub independent: bool,
    /// No decode target needs the frame for others.
    pub discardable: bool,
    /// Spatial layer, from 0.
    pub spatial: u8,
    /// The descriptor brought a template structure: a stream can be joined here.
    pub has_structure: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Template {
    spatial: u8,
    independent: bool,
    discardable: bool,
}

#[derive(Debug, Clone, Copy)]
struct Structure {
    offset: u8,
    targets: u32,
    templates: [Template; MAX_TEMPLATES],
    count: usize,
}

/// Reads the descriptors of one stream.
#[derive(Debug, Clone, Default)]
pub struct DescriptorReader {
    structure: Option<Structure>,
}

impl DescriptorReader {
    /// No structure has come yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { structure: None }
    }

    /// Reads the descriptor of one packet. A structure that it brings counts from then on.
    ///
    /// # Errors
    /// See [`DescriptorError`]; nothing changed then. Never panics.
    pub fn read(&mut self, element: &[u8]) -> Result<Described, DescriptorError> {
        let short = DescriptorError::TooShort;
        let mut b = Bits::new(element);
        let mut flag = || b.bit().ok_or(short);
        let (start, end) = (flag()?, flag()?);
        let template_id = b.bits(6).ok_or(short)? as u8;
        let frame_number = b.bits(16).ok_or(short)? as u16;
        // Structure, active targets, and what is said of this frame alone: dependence on targets, distances, chains.
        let mut flags = [false; 5];
        if element.len() > MANDATORY {
            for f in &mut flags {
                *f = b.bit().ok_or(short)?;
            }
        }
        let [has_structure, has_targets, own_targets, own_distances, _] = flags;
        let brought = if has_structure { Some(read_structure(&mut b)?) } else { None };
        let s = brought.as_ref().or(self.structure.as_ref()).ok_or(DescriptorError::Template)?;
        if has_targets {
            b.skip(s.targets).ok_or(short)?;
        }
        let place = usize::from(template_id.wrapping_sub(s.offset) & 0x3f);
        let mut t = *s.templates.get(..s.count).and_then(|t| t.get(place)).ok_or(DescriptorError::Template)?;
        if own_targets {
            t.discardable = read_targets(&mut b, s.targets)?;
        }
        if own_distances {
            t.independent = !read_own_distances(&mut b)?;
        }
        let described = Described {
            start,
            end,
            frame_number,
            independent: t.independent,
            discardable: t.discardable,
            spatial: t.spatial,
            has_structure,
        };
        self.structure = brought.or(self.structure);
        Ok(described)
    }
}

/// `template_dependency_structure()` up to the chains: what follows says nothing that a relay needs.
fn read_structure(b: &mut Bits<'_>) -> Result<Structure, DescriptorError> {
    let short = DescriptorError::TooShort;
    let offset = b.bits(6).ok_or(short)? as u8;
    let targets = b.bits(5).ok_or(short)? + 1;
    let mut s = Structure { offset, targets, templates: [Template::default(); MAX_TEMPLATES], count: 0 };
    let mut spatial = 0_u8;
    loop {
        *s.templates.get_mut(s.count).ok_or(DescriptorError::TooMany)? = Template { spatial, ..Template::default() };
        s.count += 1;
        match b.bits(2).ok_or(short)? {
            2 => spatial = spatial.saturating_add(1),
            3 => break,
            _ => {}
        }
    }
    for t in s.templates.iter_mut().take(s.count) {
        t.discardable = read_targets(b, targets)?;
    }
    for t in s.templates.iter_mut().take(s.count) {
        t.independent = !read_distances(b)?;
    }
    skip_chains(b, targets, s.count)?;
    if b.bit().ok_or(short)? {
        b.skip(32 * (u32::from(spatial) + 1)).ok_or(short)?;
    }
    Ok(s)
}

/// Two bits for each decode target: not there, discardable, switch, required. Whether it is needed by none.
fn read_targets(b: &mut Bits<'_>, targets: u32) -> Result<bool, DescriptorError> {
    let mut discardable = true;
    for _ in 0..targets {
        discardable &= b.bits(2).ok_or(DescriptorError::TooShort)? <= 1;
    }
    Ok(discardable)
}

/// `template_fdiffs()` of one template: whether there are any.
fn read_distances(b: &mut Bits<'_>) -> Result<bool, DescriptorError> {
    let short = DescriptorError::TooShort;
    for n in 0..MAX_DISTANCES {
        if !b.bit().ok_or(short)? {
            return Ok(n > 0);
        }
        b.skip(4).ok_or(short)?;
    }
    Err(DescriptorError::TooMany)
}

/// `frame_fdiffs()`: whether there are any.
fn read_own_distances(b: &mut Bits<'_>) -> Result<bool, DescriptorError> {
    let short = DescriptorError::TooShort;
    for n in 0..MAX_DISTANCES {
        let size = b.bits(2).ok_or(short)?;
        if size == 0 {
            return Ok(n > 0);
        }
        b.skip(4 * size).ok_or(short)?;
    }
    Err(DescriptorError::TooMany)
}

fn skip_chains(b: &mut Bits<'_>, targets: u32, templates: usize) -> Result<(), DescriptorError> {
    let short = DescriptorError::TooShort;
    let chains = read_ns(b, targets + 1).ok_or(short)?;
    if chains == 0 {
        return Ok(());
    }
    for _ in 0..targets {
        read_ns(b, chains).ok_or(short)?;
    }
    let templates = u32::try_from(templates).unwrap_or(0);
    b.skip(4 * chains * templates).ok_or(short)
}

/// ns(n) of the AV1 specification, section 4.10.7: a number below `n`.
fn read_ns(b: &mut Bits<'_>, n: u32) -> Option<u32> {
    let width = 32 - n.leading_zeros();
    let below = (1_u32 << width).checked_sub(n)?;
    let value = b.bits(width.saturating_sub(1))?;
    if value < below {
        return Some(value);
    }
    Some((value << 1) - below + u32::from(b.bit()?))
}

/// Bytes of the longest descriptor that is written again: what an element of the two-byte form holds.
const MAX_LEN: usize = 255;

/// Keeps the frame numbers of a leg rising where its source changes: a receiver drops a key frame whose number is lower than
/// that of the one before. Everything else of a descriptor goes on untouched.
#[derive(Debug, Clone)]
pub struct Renumber {
    numbers: Rising<u16>,
    bytes: [u8; MAX_LEN],
}

impl Default for Renumber {
    fn default() -> Self {
        Self { numbers: Rising::default(), bytes: [0; MAX_LEN] }
    }
}

impl Renumber {
    /// The descriptor with the frame number that it has on the leg; none where it is none.
    pub fn write(&mut self, source: Source, element: &[u8]) -> Option<&[u8]> {
        let moved = self.numbers.number(source, super::bytes::be16(element, 1)?);
        self.moved(element, moved)
    }

    /// The descriptor of a packet that goes again, with the number that it had: it changes nothing. None where its source is
    /// older than the one before.
    pub fn write_again(&mut self, source: Source, element: &[u8]) -> Option<&[u8]> {
        let had = self.numbers.number_again(source, super::bytes::be16(element, 1)?)?;
        self.moved(element, had)
    }

    fn moved(&mut self, element: &[u8], number: u16) -> Option<&[u8]> {
        let room = self.bytes.get_mut(..element.len())?;
        room.copy_from_slice(element);
        super::bytes::put(room, 1, &number.to_be_bytes()).then_some(&*room)
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::bits::BitWriter;
    use super::*;
    use crate::link::rng::Rng;

    /// L1T2 as an encoder sends it: two decode targets, templates for the key frame, T0 and T1, one chain.
    fn key_frame(number: u32, template: u32) -> Vec<u8> {
        let w = BitWriter::default().bits(1, 1).bits(1, 1).bits(6, template).bits(16, number);
        // A structure, and nothing of this frame's own.
        let w = w.bits(5, 0b10000).bits(6, 10).bits(5, 1);
        // Layers: the same, the next temporal one, the end.
        let w = w.bits(2, 0).bits(2, 1).bits(2, 3);
        // Targets: switch and switch; switch and required; not there and discardable.
        let w = w.bits(4, 0b1010).bits(4, 0b1011).bits(4, 0b0001);
        // Distances: none; 2; 1.
        let w = w.bits(1, 0).bits(1, 1).bits(4, 1).bits(1, 0).bits(1, 1).bits(4, 0).bits(1, 0);
        // One chain for both targets: ns(3) of 1 is two bits, ns(1) none; then four bits for each template.
        let w = w.bits(2, 0b10).bits(4, 0).bits(4, 2).bits(4, 1);
        // The picture's size.
        w.bits(1, 1).bits(16, 1919).bits(16, 1079).finish()
    }

    fn mandatory(start: bool, end: bool, template: u8, number: u16) -> Vec<u8> {
        let first = (u8::from(start) << 7) | (u8::from(end) << 6) | template;
        [&[first][..], &number.to_be_bytes()].concat()
    }

    #[test]
    fn a_key_frame_brings_the_templates_that_later_frames_name() {
        let mut r = DescriptorReader::default();
        assert_eq!(r.read(&mandatory(true, true, 10, 1)), Err(DescriptorError::Template), "no structure yet");
        let key = r.read(&key_frame(65_535, 10)).unwrap();
        let all = |d: Described| (d.start, d.end, d.frame_number, d.independent, d.discardable, d.has_structure);
        assert_eq!(all(key), (true, true, 65_535, true, false, true));
        let t1 = r.read(&mandatory(true, false, 12, 0)).unwrap();
        assert_eq!(all(t1), (true, false, 0, false, true, false));
        let t0 = r.read(&mandatory(false, true, 11, 1)).unwrap();
        assert_eq!(all(t0), (false, true, 1, false, false, false));
        assert_eq!(r.read(&mandatory(true, true, 13, 2)), Err(DescriptorError::Template));
        assert_eq!(r.read(&mandatory(true, true, 9, 2)), Err(DescriptorError::Template));
    }

    #[test]
    fn what_a_frame_says_of_itself_counts_more_than_its_template() {
        let mut r = DescriptorReader::default();
        r.read(&key_frame(1, 10)).unwrap();
        let head = || BitWriter::default().bits(2, 0b11).bits(6, 11).bits(16, 2);
        // Own targets, all discardable, and own distances, of which there are none.
        let own = head().bits(5, 0b00110).bits(4, 0b0101).bits(2, 0).finish();
        let d = r.read(&own).unwrap();
        assert_eq!((d.independent, d.discardable), (true, true));
        // Two distances of four and eight bits, after a mask of active targets.
        let own =
            head().bits(5, 0b01010).bits(2, 0b11).bits(2, 1).bits(4, 3).bits(2, 2).bits(8, 200).bits(2, 0).finish();
        assert!(!r.read(&own).unwrap().independent);
    }

    #[test]
    fn spatial_layers_are_counted() {
        let w = BitWriter::default().bits(2, 0b11).bits(6, 1).bits(16, 7).bits(5, 0b10000).bits(6, 0).bits(5, 0);
        let w = w.bits(2, 2).bits(2, 3).bits(4, 0b1010).bits(1, 0).bits(1, 0).bits(1, 0).bits(1, 0);
        let d = DescriptorReader::default().read(&w.finish()).unwrap();
        assert_eq!((d.spatial, d.independent), (1, true));
    }

    #[test]
    fn a_descriptor_that_is_cut_short_or_runs_on_is_refused_and_changes_nothing() {
        let whole = key_frame(1, 10);
        for n in 0..whole.len() {
            let mut r = DescriptorReader::default();
            let refused = r.read(&whole[..n]);
            assert!(refused.is_err(), "{n} bytes: {refused:?}");
            assert!(r.structure.is_none());
        }
        // Templates without end.
        let w = BitWriter::default().bits(2, 0b11).bits(6, 1).bits(16, 7).bits(5, 0b10000).bits(11, 0);
        let endless = (0..100).fold(w, |w, _| w.bits(2, 1)).finish();
        assert_eq!(DescriptorReader::default().read(&endless), Err(DescriptorError::TooMany));
    }

    #[test]
    fn no_random_descriptor_is_a_panic() {
        let mut rng = Rng::new(6);
        let mut r = DescriptorReader::default();
        let mut read = 0;
        for _ in 0..200_000 {
            let p: Vec<u8> = (0..rng.below(40)).map(|_| rng.next_u64() as u8).collect();
            read += u32::from(r.read(&p).is_ok());
            if rng.chance(0.01) {
                let mut changed = key_frame(1, 10);
                let at = rng.below(changed.len() as u32) as usize;
                changed[at] ^= 1 << rng.below(8);
                let _ = r.read(&changed);
            }
        }
        assert!(read > 1_000, "{read}");
    }

    #[test]
    fn numbers_go_on_over_another_source_and_nothing_else_is_touched() {
        let mut n = Renumber::default();
        let mut write = |source, element: &[u8]| n.write(source, element).map(<[u8]>::to_vec).unwrap();
        assert_eq!(write((1, 0), &key_frame(65_534, 10)), key_frame(65_534, 10));
        assert_eq!(write((1, 0), &mandatory(true, false, 11, 0)), mandatory(true, false, 11, 0));
        // A late packet does not move the numbers back.
        assert_eq!(write((1, 0), &mandatory(false, true, 11, 65_535)), mandatory(false, true, 11, 65_535));
        assert_eq!(write((2, 0), &key_frame(500, 10)), key_frame(1, 10), "the next one after 0");
        assert_eq!(write((2, 0), &mandatory(true, true, 11, 501)), mandatory(true, true, 11, 2));
        assert_eq!(write((2, 1), &key_frame(9, 10)), key_frame(3, 10));
        assert_eq!(n.write((2, 1), &[0; 2]), None);
        assert_eq!(n.write((2, 1), &[0; 256]), None);
    }

    #[test]
    fn a_packet_that_goes_again_has_the_number_that_it_had_and_moves_none() {
        let mut n = Renumber::default();
        n.write((0, 0), &mandatory(true, true, 11, 7)).unwrap();
        n.write((0, 1), &mandatory(true, true, 11, 100)).unwrap();
        let again = |n: &mut Renumber, source, number| {
            n.write_again(source, &mandatory(true, true, 11, number)).map(<[u8]>::to_vec)
        };
        assert_eq!(again(&mut n, (0, 1), 100), Some(mandatory(true, true, 11, 8)));
        assert_eq!(again(&mut n, (0, 0), 6), Some(mandatory(true, true, 11, 6)));
        assert_eq!(n.write((0, 1), &mandatory(true, true, 11, 101)).unwrap(), mandatory(true, true, 11, 9));
        n.write((1, 0), &mandatory(true, true, 11, 3)).unwrap();
        assert_eq!(again(&mut n, (0, 0), 6), None, "two sources ago");
        // The control: written as if it were new, it would take the place of the source.
        assert_eq!(n.write((0, 1), &mandatory(true, true, 11, 100)).unwrap(), mandatory(true, true, 11, 11));
    }
}
