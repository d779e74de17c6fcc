//! RTCP that the house reads and writes: SR, RR, SDES, BYE (RFC 3550), generic NACK, PLI (RFC 4585), FIR (RFC 5104), REMB
//! (draft-alvestrand-rmcat-remb-03), transport-wide feedback ([`super::twcc`]).

use super::bytes::{be16, be32, be64};
use super::twcc::Feedback;
use crate::units::{Bitrate, Ssrc};

const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const BYE: u8 = 203;
const RTPFB: u8 = 205;
const PSFB: u8 = 206;
const FMT_NACK: u8 = 1;
const FMT_PLI: u8 = 1;
const FMT_FIR: u8 = 4;
const FMT_TRANSPORT: u8 = 15;
const FMT_APPLICATION: u8 = 15;
const REMB: &[u8; 4] = b"REMB";
/// Sequence numbers named by one NACK at most.
const MAX_NACKED: usize = 128;

/// Sender report (RFC 3550 section 6.4.1), without its report blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// Who sends.
    pub ssrc: Ssrc,
    /// Wall clock as UQ32.32 NTP.
    pub ntp: u64,
    /// The same moment on the RTP clock.
    pub rtp_time: u32,
    /// Packets sent so far.
    pub packets: u32,
    /// Payload bytes sent so far.
    pub octets: u32,
}

/// One report block (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// Source that it is about.
    pub ssrc: Ssrc,
    /// Share lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost in all; negative with duplicates.
    pub cumulative_lost: i32,
    /// Highest sequence number received, with cycles.
    pub highest_seq: u32,
    /// Interarrival jitter in units of the RTP clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last SR; 0 where none came.
    pub last_sr: u32,
    /// Time since then, in 1/65536 s.
    pub delay_since_sr: u32,
}

impl ReportBlock {
    /// Round trip from the reporter, in microseconds, given the middle 32 bits of our NTP clock at arrival
    /// (RFC 3550 section 6.4.1). None where the reporter had no SR yet or the clocks make no sense.
    #[must_use]
    pub fn round_trip_us(&self, now_ntp_middle: u32) -> Option<u64> {
        if self.last_sr == 0 {
            return None;
        }
        let ticks = now_ntp_middle.wrapping_sub(self.last_sr).wrapping_sub(self.delay_since_sr);
        (ticks < 0x8000_0000).then(|| u64::from(ticks) * 1_000_000 / 65_536)
    }
}

/// Middle 32 bits of an NTP timestamp.
#[must_use]
pub const fn ntp_middle(ntp: u64) -> u32 {
    ((ntp >> 16) & 0xffff_ffff) as u32
}

/// One RTCP packet of a compound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rtcp<'a> {
    /// Sender report and its blocks.
    SenderReport(SenderReport, Reports<'a>),
    /// Receiver report.
    ReceiverReport(Ssrc, Reports<'a>),
    /// These sources leave.
    Bye(Sources<'a>),
    /// Packets asked for again.
    Nack {
        /// The source that is to send them.
        media: Ssrc,
        /// What is missing.
        lost: NackList<'a>,
    },
    /// A key frame is asked for (PLI).
    KeyFrameRequest {
        /// Of which source.
        media: Ssrc,
    },
    /// Key frames are asked for in the older way (FIR, RFC 5104 section 4.3.1).
    FullIntraRequest(IntraRequests<'a>),
    /// The receiver's estimate of what the line carries (REMB).
    Estimate {
        /// For all its sources together.
        bitrate: Bitrate,
        /// Which those are.
        sources: Sources<'a>,
    },
    /// Transport-wide feedback, for [`Feedback::parse`].
    TransportFeedback {
        /// A source of the sender.
        media: Ssrc,
        /// What follows the SSRCs.
        fci: &'a [u8],
    },
    /// Something that we do not use.
    Other(u8),
}

/// Report blocks, read as they are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reports<'a>(&'a [u8]);

impl Iterator for Reports<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let b = self.0.get(..24)?;
        self.0 = self.0.get(24..)?;
        let lost = be32(b, 4)?;
        Some(ReportBlock {
            ssrc: Ssrc(be32(b, 0)?),
            fraction_lost: (lost >> 24) as u8,
            cumulative_lost: ((lost << 8).cast_signed()) >> 8,
            highest_seq: be32(b, 8)?,
            jitter: be32(b, 12)?,
            last_sr: be32(b, 16)?,
            delay_since_sr: be32(b, 20)?,
        })
    }
}

/// Sequence numbers of a generic NACK (RFC 4585 section 6.2.1), read as they are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NackList<'a> {
    rest: &'a [u8],
    base: u16,
    mask: u16,
}

impl Iterator for NackList<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.mask == 0 {
            self.base = be16(self.rest, 0)?;
            let following = be16(self.rest, 2)?;
            self.rest = self.rest.get(4..)?;
            self.mask = following;
            return Some(self.base);
        }
        let bit = self.mask.trailing_zeros() as u16;
        self.mask &= self.mask - 1;
        Some(self.base.wrapping_add(bit + 1))
    }
}

/// Sources of a FIR with the numbers of its commands, read as they are walked. A command that is sent again has the number
/// that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntraRequests<'a>(&'a [u8]);

impl Iterator for IntraRequests<'_> {
    type Item = (Ssrc, u8);

    fn next(&mut self) -> Option<(Ssrc, u8)> {
        let entry = self.0.get(..8)?;
        self.0 = self.0.get(8..)?;
        Some((Ssrc(be32(entry, 0)?), *entry.get(4)?))
    }
}

/// SSRCs, read as they are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sources<'a>(&'a [u8]);

impl Iterator for Sources<'_> {
    type Item = Ssrc;

    fn next(&mut self) -> Option<Ssrc> {
        let ssrc = be32(self.0, 0)?;
        self.0 = self.0.get(4..)?;
        Some(Ssrc(ssrc))
    }
}

/// Walks a compound packet. Ends at the first part that is malformed.
#[derive(Debug, Clone)]
pub struct Compound<'a>(&'a [u8]);

impl<'a> Compound<'a> {
    /// From the bytes of a datagram, after SRTCP.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Rtcp<'a>;

    fn next(&mut self) -> Option<Rtcp<'a>> {
        let b0 = *self.0.first()?;
        let kind = *self.0.get(1)?;
        let len = 4 + 4 * usize::from(be16(self.0, 2)?);
        if b0 >> 6 != 2 {
            self.0 = &[];
            return None;
        }
        let Some(p) = self.0.get(..len) else {
            self.0 = &[];
            return None;
        };
        self.0 = self.0.get(len..).unwrap_or(&[]);
        Some(parse_one(b0 & 0x1f, kind, p).unwrap_or(Rtcp::Other(kind)))
    }
}

fn parse_one(count: u8, kind: u8, p: &[u8]) -> Option<Rtcp<'_>> {
    let blocks = |at: usize| Some(Reports(p.get(at..at + 24 * usize::from(count))?));
    if (kind, count) == (BYE, 0) {
        return Some(Rtcp::Bye(Sources(&[])));
    }
    let ssrc = Ssrc(be32(p, 4)?);
    match (kind, count) {
        (SR, _) => {
            let sr = SenderReport {
                ssrc,
                ntp: be64(p, 8)?,
                rtp_time: be32(p, 16)?,
                packets: be32(p, 20)?,
                octets: be32(p, 24)?,
            };
            Some(Rtcp::SenderReport(sr, blocks(28)?))
        }
        (RR, _) => Some(Rtcp::ReceiverReport(ssrc, blocks(8)?)),
        (BYE, _) => Some(Rtcp::Bye(Sources(p.get(4..4 + 4 * usize::from(count))?))),
        (RTPFB, FMT_NACK) => {
            Some(Rtcp::Nack { media: Ssrc(be32(p, 8)?), lost: NackList { rest: p.get(12..)?, base: 0, mask: 0 } })
        }
        (PSFB, FMT_PLI) => Some(Rtcp::KeyFrameRequest { media: Ssrc(be32(p, 8)?) }),
        (PSFB, FMT_FIR) => Some(Rtcp::FullIntraRequest(IntraRequests(p.get(12..)?))),
        (PSFB, FMT_APPLICATION) => remb(p),
        (RTPFB, FMT_TRANSPORT) => Some(Rtcp::TransportFeedback { media: Ssrc(be32(p, 8)?), fci: p.get(12..)? }),
        _ => None,
    }
}

/// Section 2.2: the name, the number of sources, 6 bits of exponent and 18 of mantissa, the sources.
fn remb(p: &[u8]) -> Option<Rtcp<'_>> {
    if p.get(12..16)? != REMB {
        return None;
    }
    let word = be32(p, 16)?;
    let sources = p.get(20..20 + 4 * (word >> 24) as usize)?;
    let rate = u128::from(word & 0x3_ffff) << ((word >> 18) & 0x3f);
    let bitrate = Bitrate(u64::try_from(rate).unwrap_or(u64::MAX));
    Some(Rtcp::Estimate { bitrate, sources: Sources(sources) })
}

/// Builds one compound packet. Parts are added in the order that RFC 3550 section 6.1 wants: a report first.
#[derive(Debug, Default)]
pub struct Builder(Vec<u8>);

impl Builder {
    fn part(mut self, count: u8, kind: u8, body: &[u8]) -> Self {
        // Every body here is a whole number of words and far below 2^16 of them.
        let words = u16::try_from(body.len() / 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&[0x80 | count, kind]);
        self.0.extend_from_slice(&words.to_be_bytes());
        self.0.extend_from_slice(body);
        self
    }

    /// Adds a sender report without blocks.
    #[must_use]
    pub fn sender_report(self, sr: &SenderReport) -> Self {
        let mut b = Vec::with_capacity(24);
        b.extend_from_slice(&sr.ssrc.0.to_be_bytes());
        b.extend_from_slice(&sr.ntp.to_be_bytes());
        b.extend_from_slice(&sr.rtp_time.to_be_bytes());
        b.extend_from_slice(&sr.packets.to_be_bytes());
        b.extend_from_slice(&sr.octets.to_be_bytes());
        self.part(0, SR, &b)
    }

    /// Adds a receiver report with at most one block.
    #[must_use]
    pub fn receiver_report(self, from: Ssrc, block: Option<&ReportBlock>) -> Self {
        let mut b = from.0.to_be_bytes().to_vec();
        if let Some(r) = block {
            b.extend_from_slice(&r.ssrc.0.to_be_bytes());
            let lost = (u32::from(r.fraction_lost) << 24) | (r.cumulative_lost.cast_unsigned() & 0x00ff_ffff);
            for word in [lost, r.highest_seq, r.jitter, r.last_sr, r.delay_since_sr] {
                b.extend_from_slice(&word.to_be_bytes());
            }
        }
        self.part(u8::from(block.is_some()), RR, &b)
    }

    /// Adds a source description with a canonical name of at most 255 bytes (RFC 3550 section 6.5.1).
    #[must_use]
    pub fn cname(self, ssrc: Ssrc, name: &str) -> Self {
        let name = name.as_bytes().get(..name.len().min(255)).unwrap_or(&[]);
        let mut b = ssrc.0.to_be_bytes().to_vec();
        b.push(1);
        b.push(u8::try_from(name.len()).unwrap_or(255));
        b.extend_from_slice(name);
        b.push(0);
        while !b.len().is_multiple_of(4) {
            b.push(0);
        }
        self.part(1, SDES, &b)
    }

    /// Adds a picture loss indication (RFC 4585 section 6.3.1).
    #[must_use]
    pub fn pli(self, from: Ssrc, media: Ssrc) -> Self {
        let mut b = from.0.to_be_bytes().to_vec();
        b.extend_from_slice(&media.0.to_be_bytes());
        self.part(FMT_PLI, PSFB, &b)
    }

    /// Adds a full intra request for one source (RFC 5104 section 4.3.1). A new command has the next number.
    #[must_use]
    pub fn fir(self, from: Ssrc, media: Ssrc, number: u8) -> Self {
        let mut b = from.0.to_be_bytes().to_vec();
        // The media source of a FIR is in its entries.
        b.extend_from_slice(&[0; 4]);
        b.extend_from_slice(&media.0.to_be_bytes());
        b.extend_from_slice(&[number, 0, 0, 0]);
        self.part(FMT_FIR, PSFB, &b)
    }

    /// Adds a generic NACK (RFC 4585 section 6.2.1) for up to 128 sequence numbers. Where they are in order, those within
    /// sixteen of one another share an entry.
    #[must_use]
    pub fn nack(self, from: Ssrc, media: Ssrc, lost: &[u16]) -> Self {
        let mut b = from.0.to_be_bytes().to_vec();
        b.extend_from_slice(&media.0.to_be_bytes());
        let mut entry: Option<(u16, u16)> = None;
        let mut write = |(base, mask): (u16, u16)| {
            b.extend_from_slice(&base.to_be_bytes());
            b.extend_from_slice(&mask.to_be_bytes());
        };
        for &seq in lost.iter().take(MAX_NACKED) {
            match &mut entry {
                Some((base, mask)) if (1..=16).contains(&seq.wrapping_sub(*base)) => {
                    *mask |= 1 << (seq.wrapping_sub(*base) - 1);
                }
                _ => {
                    entry.replace((seq, 0)).into_iter().for_each(&mut write);
                }
            }
        }
        entry.into_iter().for_each(&mut write);
        self.part(FMT_NACK, RTPFB, &b)
    }

    /// Adds an estimate for up to 255 sources (REMB). The rate is rounded down to 18 significant bits.
    #[must_use]
    pub fn remb(self, from: Ssrc, bitrate: Bitrate, sources: &[Ssrc]) -> Self {
        let sources = sources.get(..sources.len().min(255)).unwrap_or(&[]);
        let exponent = (64 - bitrate.0.leading_zeros()).saturating_sub(18);
        let mantissa = ((bitrate.0 >> exponent) & 0x3_ffff) as u32;
        let count = u32::try_from(sources.len()).unwrap_or(0);
        let mut b = from.0.to_be_bytes().to_vec();
        b.extend_from_slice(&[0; 4]);
        b.extend_from_slice(REMB);
        b.extend_from_slice(&((count << 24) | (exponent << 18) | mantissa).to_be_bytes());
        for s in sources {
            b.extend_from_slice(&s.0.to_be_bytes());
        }
        self.part(FMT_APPLICATION, PSFB, &b)
    }

    /// Adds transport-wide feedback. It can have padding, so nothing may follow it (RFC 3550 section 6.4.1).
    #[must_use]
    pub fn transport_feedback(self, from: Ssrc, media: Ssrc, feedback: &Feedback) -> Self {
        let mut b = from.0.to_be_bytes().to_vec();
        b.extend_from_slice(&media.0.to_be_bytes());
        b.extend_from_slice(&feedback.to_bytes());
        let padding = b.len().next_multiple_of(4) - b.len();
        if padding == 0 {
            return self.part(FMT_TRANSPORT, RTPFB, &b);
        }
        b.resize(b.len() + padding - 1, 0);
        b.push(u8::try_from(padding).unwrap_or(0));
        self.part(FMT_TRANSPORT | 0x20, RTPFB, &b)
    }

    /// Adds a goodbye of up to 31 sources.
    #[must_use]
    pub fn bye(self, sources: &[Ssrc]) -> Self {
        let sources = sources.get(..sources.len().min(31)).unwrap_or(&[]);
        let b: Vec<u8> = sources.iter().flat_map(|s| s.0.to_be_bytes()).collect();
        self.part(u8::try_from(sources.len()).unwrap_or(0), BYE, &b)
    }

    /// The bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compound_of_every_kind_parses_back() {
        let sr = SenderReport { ssrc: Ssrc(1), ntp: 0x0123_4567_89ab_cdef, rtp_time: 9, packets: 10, octets: 11 };
        let block = ReportBlock {
            ssrc: Ssrc(1),
            fraction_lost: 12,
            cumulative_lost: -3,
            highest_seq: 0x1_0002,
            jitter: 5,
            last_sr: 6,
            delay_since_sr: 7,
        };
        let bytes = Builder::default()
            .sender_report(&sr)
            .receiver_report(Ssrc(2), Some(&block))
            .cname(Ssrc(1), "scope")
            .pli(Ssrc(2), Ssrc(1))
            .nack(Ssrc(2), Ssrc(1), &[7, 65_535])
            .fir(Ssrc(2), Ssrc(1), 255)
            .bye(&[Ssrc(1), Ssrc(3)])
            .finish();
        let parts: Vec<_> = Compound::new(&bytes).collect();
        assert_eq!(parts.len(), 7);
        assert!(matches!(parts[0], Rtcp::SenderReport(s, _) if s == sr));
        let Rtcp::ReceiverReport(Ssrc(2), mut blocks) = parts[1] else { panic!("{:?}", parts[1]) };
        assert_eq!(blocks.next(), Some(block));
        assert_eq!(parts[2], Rtcp::Other(SDES));
        assert_eq!(parts[3], Rtcp::KeyFrameRequest { media: Ssrc(1) });
        let Rtcp::Nack { media: Ssrc(1), lost } = parts[4] else { panic!("{:?}", parts[4]) };
        assert_eq!(lost.collect::<Vec<_>>(), vec![7, 65_535]);
        let Rtcp::FullIntraRequest(asked) = parts[5] else { panic!("{:?}", parts[5]) };
        assert_eq!(asked.collect::<Vec<_>>(), vec![(Ssrc(1), 255)]);
        let Rtcp::Bye(gone) = parts[6] else { panic!("{:?}", parts[6]) };
        assert_eq!(gone.collect::<Vec<_>>(), vec![Ssrc(1), Ssrc(3)]);
        // A goodbye of nobody, and one of more than are there, with a reason behind.
        assert!(matches!(Compound::new(&[0x80, BYE, 0, 0]).next(), Some(Rtcp::Bye(s)) if s.eq([])));
        assert_eq!(Compound::new(&[0x82, BYE, 0, 1, 0, 0, 0, 1]).next(), Some(Rtcp::Other(BYE)));
        let reason = [0x81, BYE, 0, 2, 0, 0, 0, 7, 3, b'e', b'n', b'd'];
        assert!(matches!(Compound::new(&reason).next(), Some(Rtcp::Bye(s)) if s.eq([Ssrc(7)])));
    }

    #[test]
    fn the_bit_mask_of_a_nack_names_the_sixteen_numbers_after_its_base() {
        let p = [0x81, RTPFB, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0x80, 0x01];
        let Some(Rtcp::Nack { lost, .. }) = Compound::new(&p).next() else { panic!("no NACK") };
        assert_eq!(lost.collect::<Vec<_>>(), vec![65_535, 0, 15]);
    }

    #[test]
    fn numbers_close_together_share_an_entry_of_a_nack() {
        let lost = [65_530, 65_531, 10, 11, 100, 117, 116];
        let bytes = Builder::default().nack(Ssrc(2), Ssrc(1), &lost).finish();
        let Some(Rtcp::Nack { lost: read, .. }) = Compound::new(&bytes).next() else { panic!("no NACK") };
        assert_eq!(read.collect::<Vec<_>>(), lost);
        // 10 lies sixteen after 65,530.
        assert_eq!(bytes.len(), 12 + 4 * 5);
        let many: Vec<u16> = (0..200).map(|n| n * 40).collect();
        let bytes = Builder::default().nack(Ssrc(2), Ssrc(1), &many).finish();
        let Some(Rtcp::Nack { lost: read, .. }) = Compound::new(&bytes).next() else { panic!("no NACK") };
        assert_eq!(read.collect::<Vec<_>>(), &many[..128]);
    }

    #[test]
    fn estimates_parse_back_to_eighteen_bits() {
        for rate in [0, 1, 262_143, 262_144, 2_500_000, 1_000_000_007, u64::MAX] {
            let bytes = Builder::default().remb(Ssrc(1), Bitrate(rate), &[Ssrc(7), Ssrc(8)]).finish();
            let Some(Rtcp::Estimate { bitrate, sources }) = Compound::new(&bytes).next() else { panic!("no REMB") };
            assert_eq!(sources.collect::<Vec<_>>(), vec![Ssrc(7), Ssrc(8)]);
            assert!(bitrate.0 <= rate && rate - bitrate.0 <= rate >> 17, "{rate} became {}", bitrate.0);
        }
    }

    #[test]
    fn an_estimate_with_more_sources_than_bytes_is_not_one() {
        let mut bytes = Builder::default().remb(Ssrc(1), Bitrate(9), &[Ssrc(7)]).finish();
        for count in 2..=255 {
            bytes[16] = count;
            assert_eq!(Compound::new(&bytes).next(), Some(Rtcp::Other(PSFB)));
        }
        bytes[16] = 1;
        bytes[19] = 1;
        bytes[17] = 0xff;
        assert!(matches!(Compound::new(&bytes).next(), Some(Rtcp::Estimate { bitrate: Bitrate(u64::MAX), .. })));
        bytes[12] = b'X';
        assert_eq!(Compound::new(&bytes).next(), Some(Rtcp::Other(PSFB)));
    }

    #[test]
    fn truncated_and_lying_packets_end_the_walk() {
        for p in [&[0x80][..], &[0x80, SR, 0, 9, 0, 0], &[0x9f, RR, 0, 1, 0, 0, 0, 1], &[0x40, RR, 0, 0]] {
            let parts: Vec<_> = Compound::new(p).collect();
            assert!(parts.iter().all(|r| matches!(r, Rtcp::Other(_))), "{p:?} gave {parts:?}");
        }
    }

    #[test]
    fn round_trip_is_now_minus_last_report_minus_the_wait() {
        let b = ReportBlock {
            ssrc: Ssrc(1),
            fraction_lost: 0,
            cumulative_lost: 0,
            highest_seq: 0,
            jitter: 0,
            last_sr: 0x1000_0000,
            delay_since_sr: 0x8000,
        };
        assert_eq!(b.round_trip_us(0x1000_0000 + 0x8000 + 0x1_0000 / 100), Some(9_994));
        assert_eq!(b.round_trip_us(0x0fff_0000), None);
        assert_eq!(ReportBlock { last_sr: 0, ..b }.round_trip_us(1), None);
    }
}
