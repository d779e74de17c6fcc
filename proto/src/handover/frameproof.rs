//! The frame proof (HANDOVER.md section 8): what the publisher in the OR tells the gate of each frame, and what a viewer tells the
//! expert's station of each frame that it has shown.
//!
//! Records of fixed length, so that a stream of them needs no frames of its own. Publisher and gate speak over mutual TLS 1.3 with
//! [`ALPN`]: the gate sends a [`Mark`] each 20 ms, the publisher a [`Report`] of each frame with the newest mark that it had when the
//! frame left its encoder. A report whose mark is old was held up on its way, and the gate does not take it: noted late, its frame
//! would look younger than it is. The marks are numbers of the gate's own, so that it believes nothing that anybody says about time.
//!
//! A frame's digest is the first 128 bits of the SHA-256 over its RTP payloads in order, each after its length as [`length_prefix`].

use super::gate::FrameReport;
use super::message::DecodeError;
use super::types::FrameRef;

/// ALPN of the publisher's connection to the gate.
pub const ALPN: &[u8] = b"trocar-frames/1";
/// Version of these records, the first byte of each.
pub const VERSION: u8 = 1;
/// Bytes of a [`Mark`].
pub const MARK_LEN: usize = 10;
/// Bytes of a [`Report`].
pub const REPORT_LEN: usize = 50;
/// Bytes of an echo.
pub const ECHO_LEN: usize = 26;

const MARK: u8 = 0x40;
const REPORT: u8 = 0x41;
const ECHO: u8 = 0x42;

/// Gate to publisher: a number that rises. 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mark(pub u64);

/// Publisher to gate: one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Report {
    /// The newest mark that the publisher had when it made the report.
    pub mark: Mark,
    /// Which frame, and which raw picture it was made from.
    pub frame: FrameReport,
}

/// What stands before a payload in the frame's digest: its length, big endian.
#[must_use]
pub fn length_prefix(payload: &[u8]) -> [u8; 4] {
    u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// The first 128 bits of a SHA-256.
#[must_use]
pub fn first_128(sha256: &[u8; 32]) -> u128 {
    let mut head = [0; 16];
    head.iter_mut().zip(sha256).for_each(|(to, from)| *to = *from);
    u128::from_be_bytes(head)
}

impl Mark {
    /// Version, kind, number.
    #[must_use]
    pub fn encode(self) -> [u8; MARK_LEN] {
        let mut out = Out::<MARK_LEN>::new(MARK);
        out.put(&self.0.to_be_bytes());
        out.bytes
    }

    /// The mark in these bytes.
    ///
    /// # Errors
    /// [`DecodeError`] for another version, kind or length.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = In::new(bytes, MARK)?;
        let mark = Self(u64::from_be_bytes(from.take("mark")?));
        from.end(mark)
    }
}

impl Report {
    /// Version, kind, mark, source, view, frame, digest, raw digest.
    #[must_use]
    pub fn encode(&self) -> [u8; REPORT_LEN] {
        let mut out = Out::<REPORT_LEN>::new(REPORT);
        out.put(&self.mark.0.to_be_bytes());
        out.put_frame(&self.frame.frame);
        out.put(&self.frame.raw.to_be_bytes());
        out.bytes
    }

    /// The report in these bytes.
    ///
    /// # Errors
    /// [`DecodeError`] for another version, kind or length.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = In::new(bytes, REPORT)?;
        let mark = Mark(u64::from_be_bytes(from.take("mark")?));
        let frame = from.take_frame()?;
        let raw = u128::from_be_bytes(from.take("raw digest")?);
        from.end(Self { mark, frame: FrameReport { frame, raw } })
    }
}

/// A viewer's word to the expert's station: this frame is on the screen now. Version, kind, source, view, frame, digest.
#[must_use]
pub fn encode_echo(frame: &FrameRef) -> [u8; ECHO_LEN] {
    let mut out = Out::<ECHO_LEN>::new(ECHO);
    out.put_frame(frame);
    out.bytes
}

/// The frame in such a word.
///
/// # Errors
/// [`DecodeError`] for another version, kind or length.
pub fn decode_echo(bytes: &[u8]) -> Result<FrameRef, DecodeError> {
    let mut from = In::new(bytes, ECHO)?;
    let frame = from.take_frame()?;
    from.end(frame)
}

struct Out<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> Out<N> {
    fn new(kind: u8) -> Self {
        let mut out = Self { bytes: [0; N], used: 0 };
        out.put(&[VERSION, kind]);
        out
    }

    fn put(&mut self, field: &[u8]) {
        self.bytes.iter_mut().skip(self.used).zip(field).for_each(|(to, from)| *to = *from);
        self.used += field.len();
    }

    fn put_frame(&mut self, f: &FrameRef) {
        self.put(&f.source.to_be_bytes());
        self.put(&f.view.to_be_bytes());
        self.put(&f.frame.to_be_bytes());
        self.put(&f.digest.to_be_bytes());
    }
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn new(bytes: &'a [u8], kind: u8) -> Result<Self, DecodeError> {
        let mut from = Self(bytes);
        match from.take::<1>("version")? {
            [VERSION] => {}
            [other] => return Err(DecodeError::Version(other)),
        }
        match from.take::<1>("kind")? {
            [k] if k == kind => Ok(from),
            [other] => Err(DecodeError::Kind(other)),
        }
    }

    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short { field })?;
        self.0 = rest;
        Ok(*head)
    }

    fn take_frame(&mut self) -> Result<FrameRef, DecodeError> {
        Ok(FrameRef {
            source: u16::from_be_bytes(self.take("source")?),
            view: u16::from_be_bytes(self.take("view")?),
            frame: u32::from_be_bytes(self.take("frame")?),
            digest: u128::from_be_bytes(self.take("digest")?),
        })
    }

    fn end<T>(&self, value: T) -> Result<T, DecodeError> {
        if self.0.is_empty() { Ok(value) } else { Err(DecodeError::Trailing(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: FrameRef =
        FrameRef { source: 1, view: 2, frame: 0x0304_0506, digest: 0x0708_090a_0b0c_0d0e_0f10_1112_1314_1516 };

    #[test]
    fn the_bytes_are_these() {
        // HO-F-001, HO-C-004
        let head = "00010002030405060708090a0b0c0d0e0f10111213141516";
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let report = Report { mark: Mark(7), frame: FrameReport { frame: FRAME, raw: 9 } };
        assert_eq!(hex(&report.encode()), format!("0141{:016x}{head}{:032x}", 7, 9));
        assert_eq!(hex(&encode_echo(&FRAME)), format!("0142{head}"));
        assert_eq!(hex(&Mark(0x0102).encode()), "01400000000000000102");
        assert_eq!(Report::decode(&report.encode()), Ok(report));
        assert_eq!(decode_echo(&encode_echo(&FRAME)), Ok(FRAME));
        assert_eq!(Mark::decode(&Mark(5).encode()), Ok(Mark(5)));
    }

    #[test]
    fn another_version_kind_or_length_is_refused() {
        // HO-C-001, HO-C-002, HO-C-003
        let echo = encode_echo(&FRAME);
        let changed = |at: usize| {
            let mut bytes = echo.to_vec();
            bytes[at] ^= 0x80;
            decode_echo(&bytes)
        };
        assert_eq!(changed(0), Err(DecodeError::Version(0x81)));
        assert_eq!(changed(1), Err(DecodeError::Kind(ECHO ^ 0x80)));
        assert_eq!(Mark::decode(&echo), Err(DecodeError::Kind(ECHO)));
        assert_eq!(decode_echo(&[&echo[..], &[0]].concat()), Err(DecodeError::Trailing(1)));
        for len in 0..ECHO_LEN {
            assert!(matches!(decode_echo(&echo[..len]), Err(DecodeError::Short { .. })), "{len}");
        }
        let report = Report { mark: Mark(7), frame: FrameReport { frame: FRAME, raw: 9 } }.encode();
        for len in 0..REPORT_LEN {
            assert!(matches!(Report::decode(&report[..len]), Err(DecodeError::Short { .. })), "{len}");
        }
    }

    #[test]
    fn where_a_payload_ends_is_part_of_the_digest() {
        assert_eq!(length_prefix(&[0; 258]), [0, 0, 1, 2]);
        let mut sha = [0xff; 32];
        sha[..16].copy_from_slice(&5_u128.to_be_bytes());
        assert_eq!(first_128(&sha), 5);
    }
}
