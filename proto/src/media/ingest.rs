//! The door for packets of foreign publishers: what comes by WebRTC or plain RTP goes out as the relay's feeds want it.
//!
//! Sequence number, timestamp, SSRC, marker and payload stay what they are. The payload type becomes the feed's, padding
//! goes, and the header extensions become two of ours ([`ExtensionIds::OURS`]): the frame mark, learnt from the codec's
//! payload headers, and the capture time where the packet has one. Nothing is allocated per packet.

use super::codec::{Codec, Malformed, Seen, inspect};
use super::ext::{ExtensionIds, FrameMark, FrameMarks};
use super::rtp::{Header, HeaderFields, RtpError, write_header};
use crate::units::Ssrc;

/// How many frames are remembered, so that a late packet is given the id of its frame.
pub const FRAMES: usize = 64;
/// A jump of more than this many sequence numbers is a publisher's new start, not loss (as in [`super::feed`]).
const MAX_JUMP: i16 = 3_000;

/// How an ingest is set up.
#[derive(Debug, Clone, Copy)]
pub struct IngestConfig {
    /// How payloads are read.
    pub codec: Codec,
    /// Payload type of the feed, which the packets are given.
    pub payload_type: u8,
    /// Id of abs-capture-time on the way in; 0 where it was not negotiated.
    pub abs_capture_time: u8,
}

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// Its payload does not follow the codec's payload format.
    #[error("malformed payload: {0}")]
    Malformed(#[from] Malformed),
    /// It cannot be written.
    #[error(transparent)]
    Rtp(#[from] RtpError),
    /// It comes late, and nothing is remembered from before it: its frame may have had an id long ago.
    #[error("packet is older than the frames that are remembered")]
    TooOld,
}

/// What is remembered of a frame. Its packets share source and timestamp.
#[derive(Debug, Clone, Copy)]
struct Frame {
    ssrc: Ssrc,
    timestamp: u32,
    id: u32,
    /// Lowest sequence number so far.
    lowest: u16,
    independent: bool,
    /// It has parameter sets, as far as packets came.
    parameters: bool,
}

/// Where the present source is.
#[derive(Debug, Clone, Copy)]
struct Source {
    ssrc: Ssrc,
    highest: u16,
    timestamp: u32,
}

/// A packet's place after the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The very next number.
    Next,
    /// That many numbers were skipped.
    After(u16),
    /// It comes late.
    Late,
    /// Another source, or the same one far from where it was.
    New,
}

/// Rewrites the packets of one publisher for one feed.
#[derive(Debug)]
pub struct Ingest {
    config: IngestConfig,
    frames: [Option<Frame>; FRAMES],
    /// Frames begun so far; the newest is at the place before this.
    begun: usize,
    next_id: u32,
    source: Option<Source>,
    /// Ticks of the RTP clock from one frame to the next, as last seen without loss.
    interval: u32,
    size: Option<(u32, u32)>,
    refresh_is_entry: bool,
    /// The last key frame that began without a gap had its parameter sets with it.
    keys_have_parameters: bool,
}

impl Ingest {
    /// Nothing has come yet.
    #[must_use]
    pub const fn new(config: IngestConfig) -> Self {
        Self {
            config,
            frames: [None; FRAMES],
            begun: 0,
            next_id: 0,
            source: None,
            interval: 0,
            size: None,
            refresh_is_entry: false,
            keys_have_parameters: false,
        }
    }

    /// Whether a picture from which gradual refresh begins is marked as independent too. A viewer that begins there sees
    /// pictures that are not whole for a while, so this is for a publisher that was asked for a key frame and sends none
    /// ([`super::feed::Feed::key_frame_overdue`]).
    pub const fn take_refresh_as_entry(&mut self, yes: bool) {
        self.refresh_is_entry = yes;
    }

    /// Last picture size learnt, in pixels.
    #[must_use]
    pub const fn size(&self) -> Option<(u32, u32)> {
        self.size
    }

    /// Takes one packet with its header and writes it to `out` (at least 44 bytes longer than the payload) as the feed wants
    /// it; returns its length. A packet of nothing but padding becomes one without payload: dropped, it would look lost.
    ///
    /// # Errors
    /// Why the packet is to be dropped; nothing changed then.
    pub fn handle_packet(&mut self, h: &Header, packet: &[u8], out: &mut [u8]) -> Result<usize, IngestError> {
        let payload = h.payload(packet);
        let mark = if payload.is_empty() {
            self.mark_of_nothing(h)
        } else {
            let seen = inspect(self.config.codec, payload)?;
            let mark = self.mark(h, seen)?;
            self.size = seen.size.or(self.size);
            mark
        };
        let capture = self.capture_time(h, packet);
        let frame_bytes = mark.to_bytes();
        let ours = ExtensionIds::OURS;
        let elements = [(ours.frame, &frame_bytes[..]), (ours.abs_capture_time, capture.unwrap_or(&[]))];
        let elements = if capture.is_some() { &elements[..] } else { elements.get(..1).unwrap_or(&[]) };
        let fields = HeaderFields {
            marker: h.marker,
            payload_type: self.config.payload_type,
            seq: h.seq,
            timestamp: h.timestamp,
            ssrc: h.ssrc,
        };
        let at = write_header(out, fields, elements)?;
        let end = at + payload.len();
        out.get_mut(at..end).ok_or(RtpError::NoRoom)?.copy_from_slice(payload);
        Ok(end)
    }

    /// The element's 8 or 16 bytes as they came.
    fn capture_time<'a>(&self, h: &Header, packet: &'a [u8]) -> Option<&'a [u8]> {
        let id = self.config.abs_capture_time;
        let mut elements = h.extensions(packet).filter(|(i, data)| *i == id && matches!(data.len(), 8 | 16));
        if id == 0 { None } else { elements.next().map(|(_, data)| data) }
    }

    /// Padding belongs to no picture: it takes the id of its timestamp, or of the newest frame, and begins and ends nothing.
    fn mark_of_nothing(&mut self, h: &Header) -> FrameMark {
        if self.place(h) != Place::Late {
            let timestamp = self.source.filter(|s| s.ssrc == h.ssrc).map_or(h.timestamp, |s| s.timestamp);
            self.source = Some(Source { ssrc: h.ssrc, highest: h.seq, timestamp });
        }
        let newest = self.next_id.wrapping_sub(u32::from(self.begun > 0));
        let frame_id = self.find(h).and_then(|at| *self.frames.get(at)?).map_or(newest, |f| f.id);
        FrameMark { frame_id, marks: FrameMarks::default() }
    }

    fn mark(&mut self, h: &Header, seen: Seen) -> Result<FrameMark, IngestError> {
        let place = self.place(h);
        if place == Place::New && self.source.is_some_and(|s| s.ssrc == h.ssrc) {
            // Its timestamps begin anew as well, and could meet the old ones.
            self.frames.iter_mut().for_each(|f| *f = f.filter(|f| f.ssrc != h.ssrc));
        }
        let (at, begins) = match self.find(h) {
            Some(at) => (at, false),
            None => (self.begin_frame(h, place)?, true),
        };
        if place != Place::Late {
            self.source = Some(Source { ssrc: h.ssrc, highest: h.seq, timestamp: h.timestamp });
        }
        let whole = self.config.codec == Codec::Opus;
        let Some(Some(f)) = self.frames.get_mut(at) else { return Ok(FrameMark::default()) };
        let before = !begins && distance(f.lowest, h.seq) < 0;
        if begins || before {
            f.lowest = h.seq;
        }
        f.parameters |= seen.refresh;
        // A picture that follows a gap where its parameter sets should be does not start its frame.
        let headless = seen.independent && !f.parameters && self.keys_have_parameters;
        if seen.independent && !f.independent && place == Place::Next {
            self.keys_have_parameters = f.parameters;
        }
        f.independent |= seen.independent || (seen.refresh && self.refresh_is_entry);
        // The first packet of a frame, by the numbers or by the codec. That the frame is independent may first show in a
        // later packet, after delimiter, parameter sets and SEI: the feed finds the start from there.
        let start =
            if begins { place == Place::Next || (seen.start && !headless) } else { before && seen.start && !headless };
        let marks =
            FrameMarks { start, end: h.marker || whole, independent: f.independent, discardable: seen.discardable };
        Ok(FrameMark { frame_id: f.id, marks })
    }

    fn place(&self, h: &Header) -> Place {
        let Some(s) = self.source.filter(|s| s.ssrc == h.ssrc) else { return Place::New };
        match distance(s.highest, h.seq) {
            1 => Place::Next,
            d @ 2..=MAX_JUMP => Place::After(d.unsigned_abs() - 1),
            d if (-MAX_JUMP..=0).contains(&d) => Place::Late,
            _ => Place::New,
        }
    }

    /// Where the packet's frame is remembered. Nearly always it is the newest.
    fn find(&self, h: &Header) -> Option<usize> {
        (1..=FRAMES).map(|back| self.begun.wrapping_sub(back) % FRAMES).find(|at| {
            self.frames.get(*at).is_some_and(|f| f.is_some_and(|f| f.ssrc == h.ssrc && f.timestamp == h.timestamp))
        })
    }

    /// Remembers a new frame in the place of the oldest and returns that place.
    fn begin_frame(&mut self, h: &Header, place: Place) -> Result<usize, IngestError> {
        let id = match place {
            Place::Late => self.id_between(h)?,
            Place::New => self.take_id(),
            Place::Next => {
                self.interval = self.step(h).unwrap_or(self.interval);
                self.take_id()
            }
            Place::After(gap) => {
                // Frames of which every packet is missing: as many as the time allows, at most one per packet.
                let step = self.step(h).unwrap_or(0);
                if self.interval == 0 {
                    self.interval = step;
                }
                let frames = rounded(step, self.interval).saturating_sub(1);
                self.next_id = self.next_id.wrapping_add(frames.min(u32::from(gap)).min(FRAMES as u32 - 1));
                self.take_id()
            }
        };
        let at = self.begun % FRAMES;
        if let Some(slot) = self.frames.get_mut(at) {
            let (ssrc, timestamp) = (h.ssrc, h.timestamp);
            *slot = Some(Frame { ssrc, timestamp, id, lowest: h.seq, independent: false, parameters: false });
        }
        self.begun = self.begun.wrapping_add(1);
        Ok(at)
    }

    /// Ticks since the last frame. With B-frames the timestamps also go back: those steps say nothing.
    fn step(&self, h: &Header) -> Option<u32> {
        let step = h.timestamp.wrapping_sub(self.source?.timestamp);
        (1..1 << 31).contains(&step).then_some(step)
    }

    const fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }

    /// The id of a frame that comes late as a whole: one that was kept free between its neighbours by number, at the place
    /// that its timestamp says. Without a free one it is numbered as if it were new; without an older neighbour it may be a
    /// copy of what came long ago, and takes none.
    fn id_between(&mut self, h: &Header) -> Result<u32, IngestError> {
        let of_source = || self.frames.iter().flatten().filter(|f| f.ssrc == h.ssrc);
        let before = of_source().filter(|f| distance(h.seq, f.lowest) < 0).max_by_key(|f| distance(h.seq, f.lowest));
        let after = of_source().filter(|f| distance(h.seq, f.lowest) > 0).min_by_key(|f| distance(h.seq, f.lowest));
        let before = before.ok_or(IngestError::TooOld)?;
        if let Some(after) = after {
            let free = after.id.wrapping_sub(before.id).wrapping_sub(1);
            if (1..FRAMES as u32).contains(&free) {
                let frames = rounded(h.timestamp.wrapping_sub(before.timestamp), self.interval);
                return Ok(before.id.wrapping_add(frames.clamp(1, free)));
            }
        }
        Ok(self.take_id())
    }
}

/// How many `interval`s fit in `step`, to the nearest; 0 where the interval is not known.
fn rounded(step: u32, interval: u32) -> u32 {
    step.saturating_add(interval / 2).checked_div(interval).unwrap_or(0)
}

/// Signed steps from one sequence number to another, the shorter way round.
const fn distance(from: u16, to: u16) -> i16 {
    to.wrapping_sub(from).cast_signed()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::codec::tests::XorShift;
    use super::super::ext::read_marks;
    use super::super::feed::Feed;
    use super::super::feed::tests::CONFIG;
    use super::super::leg::{Leg, Next, Numbering};
    use super::*;
    use crate::units::{Micros, WallMicros};

    const SPS: [u8; 2] = [0x67, 0];
    const PPS: [u8; 2] = [0x68, 0xce];
    const IDR: [u8; 3] = [0x65, 0x88, 0x84];
    const DELTA: [u8; 3] = [0x41, 0x9a, 0x02];
    const DELIMITER: [u8; 2] = [0x09, 0xf0];
    const LATER_SLICE: [u8; 3] = [0x41, 0x1a, 0x02];

    pub(crate) fn ingest(codec: Codec) -> Ingest {
        Ingest::new(IngestConfig { codec, payload_type: 96, abs_capture_time: 0 })
    }

    /// A packet as a browser sends it.
    pub(crate) fn packet(ssrc: u32, seq: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut b = vec![0; 32];
        let fields = HeaderFields { marker, payload_type: 109, seq, timestamp, ssrc: Ssrc(ssrc) };
        let n = write_header(&mut b, fields, &[(4, &[0, 7])]).unwrap();
        b.truncate(n);
        b.extend_from_slice(payload);
        b
    }

    pub(crate) fn pass(i: &mut Ingest, p: &[u8]) -> Result<Vec<u8>, IngestError> {
        let mut out = [0; 2048];
        let n = i.handle_packet(&Header::parse(p).unwrap(), p, &mut out)?;
        Ok(out[..n].to_vec())
    }

    fn mark(i: &mut Ingest, seq: u16, timestamp: u32, marker: bool, payload: &[u8]) -> (u32, bool, bool, bool) {
        let p = pass(i, &packet(1, seq, timestamp, marker, payload)).unwrap();
        let f = read_marks(&Header::parse(&p).unwrap(), &p, ExtensionIds::OURS).frame.unwrap();
        (f.frame_id, f.marks.start, f.marks.end, f.marks.independent)
    }

    #[test]
    fn a_packet_keeps_what_it_is_and_gets_our_extensions() {
        let mut i = Ingest::new(IngestConfig { codec: Codec::H264, payload_type: 96, abs_capture_time: 7 });
        let mut b = [0; 64];
        let captured = WallMicros(1_700_000_000_000_000);
        let ntp = captured.to_ntp().to_be_bytes();
        let fields =
            HeaderFields { marker: true, payload_type: 109, seq: 65_535, timestamp: u32::MAX, ssrc: Ssrc(0xfeed_beef) };
        let n = write_header(&mut b, fields, &[(3, b"0"), (7, &ntp), (5, &[1, 2])]).unwrap();
        b[0] |= 0x20;
        b[n..n + 3].copy_from_slice(&IDR);
        b[n + 7] = 5;
        let out = pass(&mut i, &b[..n + 8]).unwrap();
        let h = Header::parse(&out).unwrap();
        assert_eq!((h.marker, h.seq, h.timestamp, h.ssrc), (true, 65_535, u32::MAX, Ssrc(0xfeed_beef)));
        assert_eq!((h.payload_type, h.padding, h.payload(&out)), (96, 0, &IDR[..]));
        assert_eq!(h.extensions(&out).map(|e| e.0).collect::<Vec<_>>(), vec![1, 2]);
        let marks = read_marks(&h, &out, ExtensionIds::OURS);
        assert_eq!(marks.capture, Some(captured));
        let all = FrameMarks { start: true, end: true, independent: true, discardable: false };
        assert_eq!(marks.frame, Some(FrameMark { frame_id: 0, marks: all }));
    }

    #[test]
    fn the_long_form_of_the_capture_time_passes_and_other_lengths_do_not() {
        for (len, ids) in [(16, vec![1, 2]), (8, vec![1, 2]), (7, vec![1]), (9, vec![1])] {
            let mut i = Ingest::new(IngestConfig { codec: Codec::Other, payload_type: 96, abs_capture_time: 9 });
            let mut b = [0; 64];
            let fields = HeaderFields { marker: false, payload_type: 1, seq: 0, timestamp: 0, ssrc: Ssrc(1) };
            let n = write_header(&mut b, fields, &[(9, &[0xe0; 16][..len])]).unwrap();
            let out = pass(&mut i, &b[..=n]).unwrap();
            let h = Header::parse(&out).unwrap();
            assert_eq!(h.extensions(&out).map(|e| e.0).collect::<Vec<_>>(), ids);
        }
    }

    #[test]
    fn frames_are_counted_and_their_packets_marked() {
        let mut i = ingest(Codec::H264);
        assert_eq!(mark(&mut i, 10, 0, false, &SPS), (0, true, false, false));
        assert_eq!(mark(&mut i, 11, 0, false, &PPS), (0, false, false, false));
        assert_eq!(mark(&mut i, 12, 0, true, &IDR), (0, false, true, true));
        assert_eq!(mark(&mut i, 13, 3000, false, &DELTA), (1, true, false, false));
        assert_eq!(mark(&mut i, 14, 3000, true, &LATER_SLICE), (1, false, true, false));
        // By the numbers a frame begins here, whatever the slice says.
        assert_eq!(mark(&mut i, 15, 6000, true, &LATER_SLICE), (2, true, true, false));
    }

    #[test]
    fn a_key_frame_that_a_delimiter_announces_starts_there_and_is_independent_from_its_picture_on() {
        let mut i = ingest(Codec::H264);
        assert_eq!(mark(&mut i, 1, 0, false, &DELIMITER), (0, true, false, false));
        assert_eq!(mark(&mut i, 2, 0, false, &SPS), (0, false, false, false));
        assert_eq!(mark(&mut i, 3, 0, false, &PPS), (0, false, false, false));
        assert_eq!(mark(&mut i, 4, 0, true, &IDR), (0, false, true, true));
    }

    #[test]
    fn a_late_packet_from_before_all_that_is_remembered_is_refused_and_takes_no_id() {
        use super::super::codec::tests::sps;
        let mut i = ingest(Codec::Opus);
        for n in 0..=FRAMES as u16 {
            assert_eq!(mark(&mut i, n, 960 * u32::from(n), false, &[1]).0, u32::from(n));
        }
        // Of frames 0 to 64 the first is forgotten; the second is not, and keeps its id.
        assert_eq!(pass(&mut i, &packet(1, 0, 0, false, &[1])), Err(IngestError::TooOld));
        assert_eq!(mark(&mut i, 1, 960, false, &[1]).0, 1);
        assert_eq!(mark(&mut i, 65, 960 * 65, false, &[1]).0, 65, "no id was taken");
        // The same for a picture, whose size is not taken either.
        let mut i = ingest(Codec::H264);
        for n in 0..100_u16 {
            mark(&mut i, n, 3000 * u32::from(n), true, &DELTA);
        }
        assert_eq!(pass(&mut i, &packet(1, 3, 9000, true, &sps(120, 68, 8))), Err(IngestError::TooOld));
        assert_eq!((i.size(), mark(&mut i, 100, 300_000, true, &DELTA).0), (None, 100));
    }

    #[test]
    fn the_rest_of_a_key_frame_whose_start_is_lost_is_no_entry() {
        let mut i = ingest(Codec::H264);
        mark(&mut i, 1, 0, true, &DELTA);
        // The parameter sets and the first fragment (2, 3) are missing.
        assert_eq!(mark(&mut i, 4, 3000, false, &[0x7c, 0x05, 1]), (1, false, false, true));
        assert_eq!(mark(&mut i, 5, 3000, true, &[0x7c, 0x45, 1]), (1, false, true, true));
        // Sent again, they are part of it.
        assert_eq!(mark(&mut i, 3, 3000, false, &[0x7c, 0x85, 0x88]), (1, true, false, true));
        assert_eq!(mark(&mut i, 2, 3000, false, &SPS), (1, true, false, true));
    }

    #[test]
    fn late_packets_get_the_id_of_their_frame() {
        let mut i = ingest(Codec::Vp8);
        let vp8 = |start: bool| [if start { 0x10 } else { 0 }, 0x31];
        for n in 0..60_u16 {
            mark(&mut i, 2 * n, 3000 * u32::from(n), false, &vp8(true));
        }
        for n in 0..59_u16 {
            assert_eq!(mark(&mut i, 2 * n + 1, 3000 * u32::from(n), true, &vp8(false)), (n.into(), false, true, false));
        }
    }

    #[test]
    fn frames_that_are_late_as_a_whole_get_the_ids_that_were_kept_for_them() {
        let mut i = ingest(Codec::Opus);
        let mut ids = vec![];
        let order = [0, 1, 2, 6, 4, 3, 5, 7, 9, 8, 10];
        for n in order {
            let (id, start, end, independent) =
                mark(&mut i, 65_533_u16.wrapping_add(n), 960 * u32::from(n), false, &[1]);
            assert!(start && end && independent);
            ids.push(id);
        }
        assert_eq!(ids, order.map(u32::from), "the id is the frame's number in every order");
    }

    #[test]
    fn ids_are_kept_only_for_as_many_frames_as_the_time_allows() {
        let mut i = ingest(Codec::H264);
        mark(&mut i, 0, 0, true, &IDR);
        mark(&mut i, 1, 3000, true, &DELTA);
        // Eight packets missing, but no more than one frame's time.
        assert_eq!(mark(&mut i, 10, 6000, true, &DELTA).0, 2);
        // Two packets missing and ten frames' time: at most two frames.
        assert_eq!(mark(&mut i, 13, 36_000, true, &DELTA).0, 5);
    }

    #[test]
    fn padding_leaves_no_gap_and_begins_no_frame() {
        let mut i = ingest(Codec::H264);
        mark(&mut i, 1, 0, true, &IDR);
        let mut p = packet(1, 2, 0, false, &[0, 0, 0, 4]);
        p[0] |= 0x20;
        let out = pass(&mut i, &p).unwrap();
        let h = Header::parse(&out).unwrap();
        assert_eq!((h.seq, h.payload(&out).len(), h.padding), (2, 0, 0));
        let f = read_marks(&h, &out, ExtensionIds::OURS).frame.unwrap();
        assert_eq!((f.frame_id, f.marks), (0, FrameMarks::default()));
        assert_eq!(mark(&mut i, 3, 3000, true, &LATER_SLICE), (1, true, true, false), "the next number, so its start");
    }

    #[test]
    fn malformed_payloads_are_dropped_and_change_nothing() {
        let mut i = ingest(Codec::H264);
        mark(&mut i, 1, 0, true, &IDR);
        for p in [&[0x78, 0, 0][..], &[0x7c], &[0x1f]] {
            assert!(matches!(pass(&mut i, &packet(1, 2, 9000, true, p)), Err(IngestError::Malformed(_))));
        }
        assert_eq!(mark(&mut i, 2, 3000, true, &DELTA).0, 1);
        let p = packet(1, 3, 6000, true, &DELTA);
        let short = i.handle_packet(&Header::parse(&p).unwrap(), &p, &mut [0; 20]);
        assert_eq!(short, Err(IngestError::Rtp(RtpError::NoRoom)));
    }

    #[test]
    fn the_picture_size_is_that_of_the_last_key_frame() {
        use super::super::codec::tests::sps;
        let mut i = ingest(Codec::H264);
        assert_eq!(i.size(), None);
        for (seq, (mbs, crop, want)) in [(1, (120, 8, (1920, 1080))), (2, (240, 0, (3840, 1088)))] {
            mark(&mut i, seq, u32::from(seq), false, &sps(mbs, 68, crop));
            assert_eq!(i.size(), Some(want));
        }
        mark(&mut i, 3, 9, true, &DELTA);
        assert_eq!(i.size(), Some((3840, 1088)));
    }

    #[test]
    fn a_joiner_begins_before_the_parameter_sets_and_gets_the_whole_key_frame() {
        let mut i = ingest(Codec::H264);
        let mut f = Feed::new(CONFIG);
        let mut seq = 65_530_u16;
        let mut send = |f: &mut Feed, timestamp: u32, payloads: &[&[u8]]| {
            for (n, payload) in payloads.iter().enumerate() {
                let p = packet(1, seq, timestamp, n + 1 == payloads.len(), payload);
                seq = seq.wrapping_add(1);
                f.handle_packet(Micros(0), &pass(&mut i, &p).unwrap()).unwrap();
            }
        };
        send(&mut f, 0, &[&DELTA, &LATER_SLICE]);
        let own = Numbering::Own { ssrc: Ssrc(9), payload_type: 102, first_seq: 5 };
        let mut leg = Leg::new(own, &f, Micros(0));
        assert_eq!(leg.poll(&f, true), Next::NeedKeyFrame);
        send(&mut f, 3000, &[&DELIMITER, &SPS, &PPS, &IDR]);
        send(&mut f, 6000, &[&DELIMITER, &DELTA]);
        let sent: Vec<_> = std::iter::from_fn(|| match leg.poll(&f, true) {
            Next::Send { index, header, .. } => Some((header.seq, f.ring().get(index).unwrap().1.to_vec())),
            Next::Idle | Next::NeedKeyFrame => None,
        })
        .collect();
        let payloads: Vec<_> = sent.iter().map(|(_, p)| Header::parse(p).unwrap().payload(p).to_vec()).collect();
        let want: [&[u8]; 6] = [&DELIMITER, &SPS, &PPS, &IDR, &DELIMITER, &DELTA];
        assert_eq!(payloads, want);
        assert_eq!(sent.iter().map(|s| s.0).collect::<Vec<_>>(), vec![5, 6, 7, 8, 9, 10]);
        assert_eq!((f.counters().frames, f.counters().missing), (3, 0));
    }

    #[test]
    fn no_stream_of_random_packets_is_a_panic_and_each_parses_again() {
        let mut x = XorShift(7);
        for codec in [Codec::H264, Codec::H265, Codec::Av1, Codec::Vp8, Codec::Vp9, Codec::Opus, Codec::Other] {
            let mut i = ingest(codec);
            let mut passed = 0;
            for _ in 0..20_000 {
                let payload: Vec<u8> = (0..x.next() % 12).map(|_| (x.next() >> 40) as u8).collect();
                let r = x.next();
                // Small steps, so that frames are found again, and now and then a leap.
                let seq = if r.is_multiple_of(50) { (r >> 8) as u16 } else { (r >> 8) as u16 & 0x1f };
                let p = packet((r >> 30) as u32 & 1, seq, (r >> 32) as u32 & 0xff, r & 1 == 0, &payload);
                if let Ok(out) = pass(&mut i, &p) {
                    passed += 1;
                    let h = Header::parse(&out).unwrap();
                    assert_eq!((h.seq, h.payload(&out)), (seq, &payload[..]));
                    assert!(read_marks(&h, &out, ExtensionIds::OURS).frame.is_some());
                }
            }
            assert!(passed > 1_000, "{codec:?} {passed}");
        }
    }
}
