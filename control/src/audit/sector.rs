//! A small value on disk in two copies that check themselves (HO-E-010).
//!
//! One copy is 4,096 bytes: magic, kind, sequence, length, content, SHA-256 of all that, zeros. The copies are written in turns, so that a write
//! that tears leaves the other one whole; of the whole ones the one with the higher sequence counts.

use super::record::{Hash, Link};

/// Size of one copy, in bytes.
pub const SIZE: usize = 4_096;
/// Longest content, in bytes.
pub const MAX_CONTENT: usize = SIZE - HEADER - 32;

const MAGIC: [u8; 8] = *b"TROCAR\x01\n";
const HEADER: usize = 8 + 8 + 8 + 4;

/// What a sector is for; one kind is never taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub [u8; 8]);

impl Kind {
    /// The gate's epoch block.
    pub const EPOCHS: Self = Self(*b"epochs\0\0");
    /// The audit chain's head.
    pub const HEAD: Self = Self(*b"head\0\0\0\0");
    /// The highest serials of consent documents.
    pub const CONSENT: Self = Self(*b"consent\0");
}

/// Why a copy does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// Not that many bytes.
    #[error("has {0} bytes instead of 4096")]
    Length(usize),
    /// Not one of ours, or of another version.
    #[error("is not a file of this program and version")]
    Magic,
    /// A copy of something else.
    #[error("is a copy of another file")]
    Kind,
    /// The checksum does not fit.
    #[error("is torn or was changed: its checksum does not fit")]
    Checksum,
    /// Whole, but what it says makes no sense.
    #[error("holds something that this program does not understand")]
    Content,
}

/// The bytes of one copy; nothing where the content is longer than [`MAX_CONTENT`].
#[must_use]
pub fn encode(kind: Kind, sequence: u64, content: &[u8]) -> Option<Vec<u8>> {
    if content.len() > MAX_CONTENT {
        return None;
    }
    let mut out = Vec::with_capacity(SIZE);
    out.extend(MAGIC);
    out.extend(kind.0);
    out.extend(sequence.to_be_bytes());
    out.extend(u32::try_from(content.len()).ok()?.to_be_bytes());
    out.extend(content);
    out.extend(Hash::of(&out).0);
    out.resize(SIZE, 0);
    Some(out)
}

/// Sequence and content of a copy.
///
/// # Errors
/// [`Damaged`].
pub fn decode(kind: Kind, bytes: &[u8]) -> Result<(u64, &[u8]), Damaged> {
    let whole: &[u8; SIZE] = bytes.try_into().map_err(|_| Damaged::Length(bytes.len()))?;
    let (magic, rest) = whole.split_first_chunk::<8>().ok_or(Damaged::Magic)?;
    let (of, rest) = rest.split_first_chunk::<8>().ok_or(Damaged::Magic)?;
    let (sequence, rest) = rest.split_first_chunk::<8>().ok_or(Damaged::Magic)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(Damaged::Magic)?;
    if *magic != MAGIC {
        return Err(Damaged::Magic);
    }
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Damaged::Checksum)?;
    let (content, rest) = rest.split_at_checked(length).ok_or(Damaged::Checksum)?;
    let (sum, zeros) = rest.split_first_chunk::<32>().ok_or(Damaged::Checksum)?;
    let summed = whole.get(..HEADER + length).ok_or(Damaged::Checksum)?;
    if Hash::of(summed).0 != *sum || zeros.iter().any(|b| *b != 0) {
        return Err(Damaged::Checksum);
    }
    if *of != kind.0 {
        return Err(Damaged::Kind);
    }
    Ok((u64::from_be_bytes(*sequence), content))
}

/// The end of the audit chain that is known to be on disk, as a sector's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head(pub Link);

impl Head {
    /// As content.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        [&self.0.seq.to_be_bytes()[..], &self.0.hash.0].concat()
    }

    /// From content.
    ///
    /// # Errors
    /// [`Damaged::Content`].
    pub fn decode(content: &[u8]) -> Result<Self, Damaged> {
        let (seq, hash) = content.split_first_chunk::<8>().ok_or(Damaged::Content)?;
        let hash = hash.try_into().map_err(|_| Damaged::Content)?;
        Ok(Self(Link { seq: u64::from_be_bytes(*seq), hash: Hash(hash) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_changed_bit_and_each_cut_is_found() {
        // HO-E-010
        let good = encode(Kind::EPOCHS, 9, b"content").unwrap();
        assert_eq!(decode(Kind::EPOCHS, &good), Ok((9, &b"content"[..])));
        assert_eq!(decode(Kind::HEAD, &good), Err(Damaged::Kind));
        for at in 0..SIZE {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(decode(Kind::EPOCHS, &bad).is_err(), "byte {at}");
            assert_eq!(decode(Kind::EPOCHS, &good[..at]), Err(Damaged::Length(at)));
        }
    }

    #[test]
    fn content_has_a_bound() {
        let most = vec![7; MAX_CONTENT];
        let bytes = encode(Kind::CONSENT, u64::MAX, &most).unwrap();
        assert_eq!(decode(Kind::CONSENT, &bytes), Ok((u64::MAX, &most[..])));
        assert_eq!(encode(Kind::CONSENT, 1, &vec![7; MAX_CONTENT + 1]), None);
    }

    #[test]
    fn a_head_reads_back() {
        let head = Head(Link { seq: 12, hash: Hash([5; 32]) });
        assert_eq!(Head::decode(&head.encode()), Ok(head));
        assert_eq!(Head::decode(&head.encode()[..39]), Err(Damaged::Content));
    }
}
