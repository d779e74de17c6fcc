//! One RTP packet on its way into the batch: header, extensions, payload, seal.

use super::line::Line;
use crate::srtp::SendStream;
use crate::worker::egress::{Batch, Outlet};
use crate::worker::peer::LegExtensions;
use crate::worker::state::LegSent;
use trocar_proto::media::bytes::put;
use trocar_proto::media::codec::pictures::Pictures;
use trocar_proto::media::dd::Renumber;
use trocar_proto::media::ext::{ABS_CAPTURE_TIME_LONG, ExtensionIds, element, forward_capture_time, playout_delay};
use trocar_proto::media::ring::PacketInfo;
use trocar_proto::media::rising::Source;
use trocar_proto::media::rtp::{FIXED_HEADER, Header, HeaderFields, header_len, write_header};
use trocar_proto::units::{Micros, SeqNo};

/// Bytes that a packet has besides its payload, about: header, extensions, tag.
pub(super) const OVERHEAD: u32 = 48;

/// Elements of one packet: transport-wide number, playout delay, media identification, capture time, audio level,
/// dependency descriptor.
const MAX_ELEMENTS: usize = 6;

/// Header extensions of one packet, on the stack.
struct Elements<'a> {
    all: [(u8, &'a [u8]); MAX_ELEMENTS],
    count: usize,
}

impl<'a> Elements<'a> {
    const fn new() -> Self {
        Self { all: [(0, &[]); MAX_ELEMENTS], count: 0 }
    }

    /// Adds an element, where the viewer agreed to it and there is something to say.
    fn add(&mut self, id: Option<u8>, data: &'a [u8]) {
        if let (Some(id), Some(slot)) = (id.filter(|_| !data.is_empty()), self.all.get_mut(self.count)) {
            *slot = (id, data);
            self.count += 1;
        }
    }

    fn get(&self) -> &[(u8, &'a [u8])] {
        self.all.get(..self.count).unwrap_or(&[])
    }
}

/// One packet on its way out.
pub(super) struct Outgoing<'a> {
    pub(super) header: HeaderFields,
    pub(super) number: SeqNo,
    pub(super) info: &'a PacketInfo,
    pub(super) packet: &'a [u8],
    /// The original sequence number, which goes before the payload of a repeat (RFC 4588 section 4).
    pub(super) osn: Option<[u8; 2]>,
    pub(super) what: What<'a>,
}

/// What a leg says in the headers of its packets.
#[derive(Clone, Copy)]
pub(super) struct What<'a> {
    /// What the viewer agreed to.
    pub(super) ext: LegExtensions,
    /// Media identification of the m-line.
    pub(super) mid: &'a str,
    /// The publisher's clock minus ours, where that is known.
    pub(super) clock_offset: Option<i64>,
    /// What the feed's stored packets have.
    pub(super) stored: ExtensionIds,
    /// Which of the feeds that the leg has had it is.
    pub(super) feed_count: u32,
}

/// What a packet takes of its connection and its leg.
pub(super) struct Takes<'a> {
    /// Its transport-wide number, as of `now`.
    pub(super) line: &'a mut Line,
    pub(super) now: Micros,
    /// The frame number of its dependency descriptor.
    pub(super) renumber: Option<&'a mut Renumber>,
    /// The picture numbers in its payload.
    pub(super) pictures: Option<&'a mut Pictures>,
}

/// Capture time of a packet as it is sent on.
type Capture = Option<([u8; ABS_CAPTURE_TIME_LONG], usize)>;

impl<'a> Outgoing<'a> {
    fn payload(&self) -> &'a [u8] {
        let start = usize::from(self.info.payload_offset);
        self.packet.get(start..start + usize::from(self.info.payload_len)).unwrap_or(&[])
    }

    /// The stored packet's header, where something of it goes on.
    fn stored(&self) -> Option<Header> {
        let What { ext, stored, .. } = &self.what;
        let level = ext.audio_level.is_some() && stored.audio_level != 0;
        let descriptor = ext.dependency_descriptor.is_some() && stored.dependency_descriptor != 0;
        let capture = ext.abs_capture_time.is_some() && self.has_capture();
        (level || descriptor || capture).then(|| Header::parse(self.packet).ok()).flatten()
    }

    /// Capture time goes with the last packet of its frame: that one is the shorter one anyway, and ends a batch.
    const fn has_capture(&self) -> bool {
        self.info.capture.is_some() && self.header.marker
    }

    fn capture(&self, stored: Option<&Header>) -> Capture {
        let h = stored.filter(|_| self.has_capture())?;
        forward_capture_time(element(h, self.packet, self.what.stored.abs_capture_time)?, self.what.clock_offset)
    }

    /// Which of the leg's sources it comes from.
    const fn source(&self) -> Source {
        (self.what.feed_count, self.info.generation)
    }

    /// The dependency descriptor with the leg's frame number; empty where there is none.
    fn descriptor<'r>(&self, stored: Option<&Header>, renumber: Option<&'r mut Renumber>) -> &'r [u8] {
        let moved = stored.zip(renumber).and_then(|(h, renumber)| {
            let element = element(h, self.packet, self.what.stored.dependency_descriptor)?;
            let source = self.source();
            if self.osn.is_some() { renumber.write_again(source, element) } else { renumber.write(source, element) }
        });
        moved.unwrap_or(&[])
    }

    fn elements<'b>(
        &self,
        stored: Option<&Header>,
        number: &'b [u8],
        capture: &'b Capture,
        no_delay: &'b [u8],
        descriptor: &'b [u8],
    ) -> Elements<'b>
    where
        'a: 'b,
    {
        let What { ext, mid, stored: ids, .. } = self.what;
        let mut out = Elements::new();
        out.add(ext.transport_cc, number);
        // Key frames tell the browser to show pictures as soon as they are decoded, and whose they are.
        if self.info.frame.marks.independent {
            out.add(ext.playout_delay, no_delay);
            if self.info.frame.marks.start {
                out.add(ext.mid, mid.as_bytes());
            }
        }
        if let Some((bytes, len)) = capture {
            out.add(ext.abs_capture_time, bytes.get(..*len).unwrap_or(&[]));
        }
        if let Some(h) = stored {
            out.add(ext.audio_level, element(h, self.packet, ids.audio_level).unwrap_or(&[]));
        }
        out.add(ext.dependency_descriptor, descriptor);
        out
    }
}

/// Writes a packet into the batch, sealed; the batch leaves first where it has no room. Shows the packet as it was before it
/// was sealed to `seen`.
pub(super) fn push(
    batch: &mut Batch,
    outlet: Outlet<'_>,
    sent: &mut LegSent,
    stream: &mut SendStream,
    takes: Takes<'_>,
    o: &Outgoing<'_>,
    mut seen: impl FnMut(&[u8]),
) {
    let payload = o.payload();
    let osn = o.osn.as_ref().map_or(&[] as &[u8], |b| b);
    let size = u32::from(o.info.payload_len) + OVERHEAD;
    let Takes { line, now, renumber, pictures } = takes;
    let went = o.osn.is_none().then_some((o.header.ssrc, o.header.seq));
    let number = o.what.ext.transport_cc.map_or([0; 2], |_| line.number(now, size, went).to_be_bytes());
    let (stored, no_delay) = (o.stored(), playout_delay(0, 0));
    let capture = o.capture(stored.as_ref());
    let descriptor = o.descriptor(stored.as_ref(), renumber);
    let elements = o.elements(stored.as_ref(), &number, &capture, &no_delay, descriptor);
    let head = header_len(elements.get());
    let plain = head + osn.len() + payload.len();
    let len = plain + stream.overhead();
    if !batch.has_room(len, outlet) {
        let flushed = batch.flush(outlet);
        if o.osn.is_some() { sent.note_repeats(flushed) } else { sent.note(flushed) }
    }
    let Some(room) = batch.push(len) else {
        sent.too_large += 1;
        return;
    };
    let written = write_header(room, o.header, elements.get()).is_ok_and(|n| n == head);
    let copied = put(room, head, osn) && put(room, head + osn.len(), payload);
    if let Some((pictures, payload)) = pictures.zip(room.get_mut(head + osn.len()..plain)) {
        let source = o.source();
        if o.osn.is_some() { pictures.write_again(source, payload) } else { pictures.write(source, payload) }
    }
    seen(room.get(..plain).unwrap_or(&[]));
    if !(written && copied && stream.seal(o.number, room, head).is_ok()) {
        batch.retract(len);
        sent.dropped += 1;
    }
}

/// Puts a packet into the batch that is there as a whole but for its seal: a repair packet.
pub(super) fn push_whole(
    batch: &mut Batch,
    outlet: Outlet<'_>,
    sent: &mut LegSent,
    stream: &mut SendStream,
    number: SeqNo,
    packet: &[u8],
) {
    let len = packet.len() + stream.overhead();
    if !batch.has_room(len, outlet) {
        let flushed = batch.flush(outlet);
        sent.note(flushed);
    }
    let Some(room) = batch.push(len) else {
        sent.too_large += 1;
        return;
    };
    if !(put(room, 0, packet) && stream.seal(number, room, FIXED_HEADER).is_ok()) {
        batch.retract(len);
        sent.dropped += 1;
    }
}
