//! Whole frames of RTP packets: put together from a payloader's output, stamped anew where a recording is played again.

use super::codec::Codec;
use super::error::MediaError;
use super::keyframe;
use super::raw::Raw;
use bytes::Bytes;
use gstreamer as gst;
use trocar_proto::units::WallMicros;

/// Bytes of an RTP header without contributing sources and extensions (RFC 3550 section 5.1).
const RTP_HEADER: usize = 12;
/// A frame beyond this size is given up: the marker of its last packet is missing.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// One frame, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// Rises by one from frame to frame, from 0, over all rounds of a loop.
    pub(crate) frame_id: u32,
    /// Can be decoded by itself; carries its parameter sets.
    pub(crate) key: bool,
    /// When the picture was captured; of a recording, when it was released; of a network stream, when it arrived.
    pub(crate) capture: WallMicros,
    /// The RTP timestamp of all its packets, in units of the codec's clock.
    pub(crate) rtp_timestamp: u32,
    /// Of sound: the byte of the audio level extension (RFC 6464 section 3), voice flag and level.
    pub(crate) audio_level: Option<u8>,
    /// What is known of the picture before the encoder, for the frame proof.
    pub(crate) raw: Raw,
    /// Whole RTP packets of at most [`super::MTU`] bytes, 12-byte header included, in order; the last has the marker.
    pub(crate) packets: Vec<Bytes>,
}

impl Frame {
    /// Bytes of all packets.
    pub(crate) fn bytes(&self) -> usize {
        self.packets.iter().map(Bytes::len).sum()
    }
}

/// Takes whole frames, on the thread that makes them: it must not block, or the source falls behind.
pub(crate) type FrameSink = Box<dyn FnMut(Frame) + Send>;

/// The packets of one frame in one buffer.
#[derive(Debug, Clone, Default)]
pub(super) struct RawFrame {
    data: Vec<u8>,
    /// Where each packet ends.
    ends: Vec<usize>,
    pub(super) key: bool,
    /// Presentation and decoding time of the payloader's buffers in nanoseconds.
    pub(super) pts: Option<u64>,
    pub(super) dts: Option<u64>,
}

impl RawFrame {
    /// Bytes of all packets.
    pub(super) const fn len(&self) -> usize {
        self.data.len()
    }

    /// Sequence number and timestamp of the first packet.
    pub(super) fn first_header(&self) -> (u16, u32) {
        let field = |at: usize| self.data.get(at).copied().unwrap_or(0);
        let sequence = u16::from_be_bytes([field(2), field(3)]);
        (sequence, u32::from_be_bytes([field(4), field(5), field(6), field(7)]))
    }

    /// Gives the packets sequence numbers from `sequence` on and one timestamp; returns the next free sequence number.
    pub(super) fn restamp(&mut self, mut sequence: u16, timestamp: u32) -> u16 {
        let mut start = 0;
        for end in &self.ends {
            if let Some([_, _, a, b, c, d, e, f, ..]) = self.data.get_mut(start..*end) {
                [*a, *b] = sequence.to_be_bytes();
                [*c, *d, *e, *f] = timestamp.to_be_bytes();
            }
            start = *end;
            sequence = sequence.wrapping_add(1);
        }
        sequence
    }

    /// The packets, each a view into one shared buffer.
    pub(super) fn into_packets(self) -> Vec<Bytes> {
        let data = Bytes::from(self.data);
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends.iter()).map(|(start, end)| data.slice(start..*end)).collect()
    }

    /// `a=fmtp` of its parameter sets, which an encoder or parser puts into the first packets.
    pub(super) fn fmtp(&self, codec: Codec) -> Option<String> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let mut payloads =
            starts.zip(self.ends.iter()).filter_map(|(start, end)| self.data.get(start + RTP_HEADER..*end));
        payloads.find_map(|payload| keyframe::fmtp(codec, payload))
    }
}

/// Puts the packets of a payloader together until the marker.
#[derive(Debug)]
pub(super) struct Assembler {
    codec: Codec,
    open: RawFrame,
    expected: usize,
}

impl Assembler {
    /// For packets of a payloader of this codec.
    pub(super) fn new(codec: Codec) -> Self {
        Self { codec, open: RawFrame::default(), expected: 0 }
    }

    /// Takes the next packet; gives the frame that it completes.
    ///
    /// # Errors
    /// [`MediaError::Pipeline`] for a buffer that cannot be read and for a frame without an end.
    pub(super) fn handle(&mut self, buffer: &gst::BufferRef) -> Result<Option<RawFrame>, MediaError> {
        let start = self.open.data.len();
        if start == 0 {
            self.open.data.reserve(self.expected);
            self.open.pts = buffer.pts().map(gst::ClockTime::nseconds);
            self.open.dts = buffer.dts().map(gst::ClockTime::nseconds);
        }
        for memory in buffer.iter_memories() {
            let map = memory.map_readable().map_err(|e| MediaError::pipeline("payloader", e))?;
            self.open.data.extend_from_slice(map.as_slice());
        }
        let end = self.open.data.len();
        self.open.ends.push(end);
        let packet = self.open.data.get(start..end).unwrap_or_default();
        // The marker ends a picture; of sound each packet is a frame, and the marker begins a talkspurt (RFC 7587 section 4.2).
        let last = self.codec == Codec::Opus || packet.get(1).is_some_and(|flags| flags & 0x80 != 0);
        self.open.key |= keyframe::is_independent(self.codec, packet.get(RTP_HEADER..).unwrap_or_default());
        if end > MAX_FRAME_BYTES {
            self.open = RawFrame::default();
            return Err(MediaError::pipeline("payloader", "a frame of more than 64 MiB, or one without a last packet"));
        }
        if !last {
            return Ok(None);
        }
        // The next frame is likely as large: one allocation instead of many.
        self.expected = end + end / 8;
        Ok(Some(std::mem::take(&mut self.open)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(marker: bool, payload: &[u8]) -> gst::Buffer {
        let mut bytes = vec![0x80, if marker { 0xe0 } else { 0x60 }, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4];
        bytes.extend_from_slice(payload);
        gst::Buffer::from_slice(bytes)
    }

    #[test]
    fn packets_up_to_the_marker_are_a_frame() {
        gst::init().unwrap();
        let mut assembler = Assembler::new(Codec::H264);
        let parameters = [24, 0, 5, 0x67, 0x42, 0xc0, 0x1f, 9, 0, 2, 0x68, 1];
        assert!(assembler.handle(&packet(false, &parameters)).unwrap().is_none());
        assert!(assembler.handle(&packet(false, &[28, 0x85, 1, 2])).unwrap().is_none());
        let mut frame = assembler.handle(&packet(true, &[28, 0x45, 3])).unwrap().unwrap();
        assert!(frame.key);
        assert_eq!(frame.fmtp(Codec::H264), Some(keyframe::h264_fmtp("42c01f")));
        assert_eq!(frame.first_header(), (7, 9));
        assert_eq!(frame.restamp(u16::MAX, 0x0102_0304), 2);
        let packets = frame.into_packets();
        let headers: Vec<_> = packets.iter().map(|p| p[2..8].to_vec()).collect();
        assert_eq!(headers, [[255, 255, 1, 2, 3, 4], [0, 0, 1, 2, 3, 4], [0, 1, 1, 2, 3, 4]]);
        assert_eq!(packets.iter().map(Bytes::len).collect::<Vec<_>>(), [24, 16, 15]);
        let next = assembler.handle(&packet(true, &[0x41, 1])).unwrap().unwrap();
        assert!(!next.key && next.len() == 14);
    }

    #[test]
    fn each_packet_of_sound_is_a_frame() {
        gst::init().unwrap();
        let mut assembler = Assembler::new(Codec::Opus);
        assert!(assembler.handle(&packet(false, &[1, 2])).unwrap().is_some_and(|f| f.key));
        // Negative control: of a picture it is not the last packet.
        assert!(Assembler::new(Codec::Vp8).handle(&packet(false, &[1, 2])).unwrap().is_none());
    }
}
