//! The door for packets of foreign publishers: what comes by WebRTC or plain RTP goes out as the relay's feeds want it.
//!
//! Sequence number, timestamp, SSRC, marker and payload stay what they are. The payload type becomes the feed's, padding
//! goes, and the header extensions become ours ([`ExtensionIds::OURS`]): the frame mark, learnt from the dependency
//! descriptor or else from the codec's payload headers, and capture time, audio level and dependency descriptor where the
//! packet has them, untouched. Nothing is allocated per packet.

use super::codec::{Codec, Malformed, Seen, inspect};
use super::dd::DescriptorReader;
use super::ext::{ExtensionIds, FrameMark, FrameMarks, element};
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
    /// Id of abs-capture-time on the way in; 0 where it was not negotiated. The others likewise.
    pub abs_capture_time: u8,
    /// Id of the audio level.
    pub audio_level: u8,
    /// Id of the dependency descriptor.
    pub dependency_descriptor: u8,
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
    descriptors: DescriptorReader,
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
            descriptors: DescriptorReader::new(),
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

    /// Takes one packet with its header and writes it to `out` (at least 32 bytes longer than the packet) as the feed wants
    /// it; returns its length. A packet of nothing but padding becomes one without payload: dropped, it would look lost.
    ///
    /// # Errors
    /// Why the packet is to be dropped; nothing changed then.
    pub fn handle_packet(&mut self, h: &Header, packet: &[u8], out: &mut [u8]) -> Result<usize, IngestError> {
        let payload = h.payload(packet);
        let mark = if payload.is_empty() {
            self.mark_of_nothing(h)
        } else {
            let seen = self.look(h, packet)?;
            let mark = self.mark(h, seen)?;
            self.size = seen.size.or(self.size);
            mark
        };
        let frame_bytes = mark.to_bytes();
        let mut elements = [(ExtensionIds::OURS.frame, &frame_bytes[..]); 4];
        let mut count = 1;
        for (ours, data) in self.kept(h, packet) {
            if let (Some(data), Some(place)) = (data, elements.get_mut(count)) {
                *place = (ours, data);
                count += 1;
            }
        }
        let elements = elements.get(..count).unwrap_or(&[]);
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

    /// What the packet shows. Where a dependency descriptor can be read it counts, and the payload, which then may be
    /// encrypted, only tells the size.
    fn look(&mut self, h: &Header, packet: &[u8]) -> Result<Seen, IngestError> {
        let payload = h.payload(packet);
        let described =
            element(h, packet, self.config.dependency_descriptor).and_then(|e| self.descriptors.read(e).ok());
        let Some(d) = described else { return Ok(inspect(self.config.codec, payload)?) };
        let size = inspect(self.config.codec, payload).ok().and_then(|seen| seen.size);
        // The layers of a picture are frames of their own there; here they are one.
        let base = d.spatial == 0;
        Ok(Seen {
            start: d.start && base,
            independent: d.independent && base,
            refresh: false,
            discardable: d.discardable,
            size,
        })
    }

    /// The extensions that are kept as they came, with our ids.
    fn kept<'a>(&self, h: &Header, packet: &'a [u8]) -> [(u8, Option<&'a [u8]>); 3] {
        let (c, ours) = (&self.config, ExtensionIds::OURS);
        let capture = element(h, packet, c.abs_capture_time).filter(|data| matches!(data.len(), 8 | 16));
        let level = element(h, packet, c.audio_level).filter(|data| data.len() == 1);
        let descriptor = element(h, packet, c.dependency_descriptor).filter(|data| !data.is_empty());
        [(ours.abs_capture_time, capture), (ours.audio_level, level), (ours.dependency_descriptor, descriptor)]
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
pub(crate) mod tests;
