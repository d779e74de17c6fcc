//! From a source's frames to RoQ, on the source's own thread: header extensions are put in, and each frame goes by every line
//! (one QUIC connection, or two), by datagrams or by a stream per frame. Whole frames are left out where a line has no room;
//! one line never waits for another. Where a connection takes less than all feeds that leave by it, voices go before scopes and
//! scopes before the rest.

use crate::ledger::{Ledger, digest};
use crate::media::Frame;
use crate::publish::proof::{ProofCounts, Tap};
use crate::repair::Repeater;
use anyhow::Context;
use bytes::{Bytes, BytesMut};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use trocar_proto::media::ext::{ExtensionIds, FrameMark, FrameMarks};
use trocar_proto::media::roq::{FlowPrefix, MAX_RTP_PACKET, error_code};
use trocar_proto::media::rtcp::{Builder, SenderReport};
use trocar_proto::media::rtp::{Header, HeaderFields, write_header};
use trocar_proto::session::api::{MAX_PATHS, RoqBinding};
use trocar_proto::session::feed::{RoqMode, Transport};
use trocar_proto::units::{Ssrc, WallMicros};
use trocar_relay::frames::{FrameStreams, datagram};
use trocar_relay::quic;

/// What a packet takes of QUIC's send buffer beyond its own length: 32 bytes that quinn charges for each datagram, about
/// 22 of header extensions, up to 8 of flow id.
const OVERHEAD: usize = 64;
/// Room in QUIC's send buffer that pictures leave free for sound on the same connection, in bytes.
const KEPT_FOR_SOUND: usize = 64 << 10;
/// Client-to-mixer audio level (RFC 6464).
pub(crate) const AUDIO_LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// Id of [`AUDIO_LEVEL_URI`], beside [`ExtensionIds::OURS`].
pub(crate) const AUDIO_LEVEL_ID: u8 = 3;

/// What was sent since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    /// Frames handed to QUIC whole, by one line at least.
    pub(crate) frames: u64,
    /// Packets handed to QUIC, those of torn frames too: the other side counts them as well.
    pub(crate) packets: u64,
    /// Payload bytes of those.
    pub(crate) octets: u64,
    /// Frames that went whole by no line: no connection, no room in it, or QUIC refused one of their packets.
    pub(crate) frames_dropped: u64,
    /// Frames left out or torn on a line while another one took them.
    pub(crate) copies_dropped: u64,
    /// Streams of frames that were reset because the feed's budget had passed.
    pub(crate) frames_late: u64,
}

/// One connection that a feed's packets go by.
struct Line {
    connection: quinn::Connection,
    /// The feed's place among those that leave by the same connection.
    seat: Option<quic::Seat>,
    rtcp_prefix: FlowPrefix,
    /// Where each frame goes by a stream of its own.
    streams: Option<FrameStreams>,
    /// Of the frame under way: whether it goes by this line.
    takes: bool,
}

impl Line {
    /// Decides whether a frame goes by this line.
    fn begin_frame(&mut self, frame: &Frame, budget: Duration) {
        let patience = u32::try_from(self.seat.as_ref().map_or(1, quic::Seat::patience)).unwrap_or(1);
        let has_room = match &mut self.streams {
            Some(streams) => {
                // Another frame follows: what is late has no part in it, for viewers ask for a key frame where they need one.
                let _ = streams.expire(Instant::now());
                streams.has_room()
            }
            None => {
                let space = self.connection.datagram_send_buffer_space();
                // A picture behind which half of its budget would pass is left out: it would only make the next ones late.
                let in_time = frame.audio_level.is_some() || self.waits(space) <= budget / 2 / patience;
                space >= needed(frame) && in_time
            }
        };
        let bytes = frame.bytes() as u64;
        self.takes = has_room;
        if let Some(seat) = &mut self.seat {
            // What does not leave is wanted as well.
            seat.note_offered(bytes);
            self.takes = seat.may_begin() && has_room;
            seat.note_sent(if self.takes { bytes } else { 0 });
        }
    }

    /// How long a datagram that is handed over now waits for those before it, at the pace of the line.
    fn waits(&self, space: usize) -> Duration {
        // quinn keeps room for one more datagram's own bytes free.
        let waiting = quic::DATAGRAM_SEND_BUFFER.saturating_sub(space + size_of::<Bytes>());
        let pace = quic::line_figures(&self.connection).map_or(u64::MAX, |f| f.pace.0.max(1));
        Duration::from_micros((waiting as u64).saturating_mul(8_000_000) / pace)
    }

    /// Hands over one packet of that frame, which stands behind its flow id in `datagram`; false where it does not go.
    fn send_packet(&mut self, datagram: &Bytes, prefix: FlowPrefix, frame: &SendingFrame) -> bool {
        self.takes = self.takes
            && match &mut self.streams {
                Some(streams) => {
                    let packet = datagram.get(prefix.as_bytes().len()..).unwrap_or(&[]);
                    streams.send_packet(frame.name, packet, frame.deadline, frame.key)
                }
                None => self.connection.send_datagram(datagram.clone()).is_ok(),
            };
        self.takes
    }

    fn late(&self) -> u64 {
        self.streams.as_ref().map_or(0, |s| s.counters().late)
    }

    /// Loss policy: what the connection does not take is not sent; it is said again in a second.
    fn send_rtcp(&self, rtcp: &[u8]) {
        let _ = self.connection.send_datagram(datagram(self.rtcp_prefix, rtcp));
    }
}

/// The frame under way.
#[derive(Debug, Clone, Copy)]
struct SendingFrame {
    name: u64,
    key: bool,
    deadline: Instant,
}

type Newest = Option<(Ssrc, u32, WallMicros)>;

#[derive(Default)]
struct State {
    /// By path.
    lines: [Option<Line>; MAX_PATHS],
    /// Flow of the packets, the same on every line.
    prefix: Option<FlowPrefix>,
    /// Of a feed that goes by datagrams.
    repair: Option<Repeater>,
    /// How long after its sending a frame may be under way.
    budget: Duration,
    /// Late frames of lines that are over.
    late_before: u64,
    sent: Sent,
    /// RTP clock rate in Hz.
    clock_rate: u32,
    /// Added to the source's frame ids, so that they rise over its restarts.
    frame_base: u32,
    next_frame: u32,
    /// SSRC, RTP timestamp and capture time of the newest frame.
    newest: Newest,
    ledger: Option<Ledger>,
    /// Where frames are reported to a gate.
    proof: Option<Arc<Tap>>,
}

/// The way out. One lock per frame, taken by the source's thread and once a second by the reporter.
pub(crate) struct Sender {
    state: Mutex<State>,
}

impl Sender {
    /// Without a connection yet; frames before it are counted as dropped.
    pub(crate) fn new(ledger: Option<&Path>) -> anyhow::Result<Self> {
        let ledger = ledger.map(Ledger::create).transpose()?;
        Ok(Self { state: Mutex::new(State { ledger, clock_rate: 90_000, ..State::default() }) })
    }

    /// Frames are reported there too, from the next one on.
    pub(crate) fn report_to(&self, proof: Arc<Tap>) {
        self.state().proof = Some(proof);
    }

    /// What became of the reports; none where nothing is reported.
    pub(crate) fn proofs(&self) -> Option<ProofCounts> {
        self.state().proof.as_ref().map(|p| p.counts())
    }

    /// A source begins, whose frame ids count from 0.
    pub(crate) fn begin(&self, clock_rate: u32) {
        let mut state = self.state();
        (state.clock_rate, state.frame_base) = (clock_rate, state.next_frame);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends over this connection too, from the next frame on, in place of the one that this path had before.
    pub(crate) fn connect(
        &self,
        path: usize,
        connection: quinn::Connection,
        binding: &RoqBinding,
    ) -> anyhow::Result<()> {
        let prefix = FlowPrefix::new(binding.rtp_flow_id).context("rtp_flow_id is above 2^62")?;
        let rtcp_prefix = FlowPrefix::new(binding.rtcp_flow_id).context("rtcp_flow_id is above 2^62")?;
        let streamed = matches!(binding.feed.transport, Transport::Roq { mode: RoqMode::Stream, .. });
        let streams = streamed.then(|| FrameStreams::new(connection.clone(), prefix));
        quic::add_granted(&connection, binding.feed.max_bitrate);
        let seat = quic::Seat::take(&connection, &binding.feed);
        let mut state = self.state();
        state.disconnect(path);
        if state.lines.iter().all(Option::is_none) {
            state.repair = (!streamed).then(|| Repeater::new(&binding.feed, prefix));
        }
        state.prefix = Some(prefix);
        state.budget = Duration::from_millis(u64::from(binding.feed.budget_ms));
        if let Some(slot) = state.lines.get_mut(path) {
            *slot = Some(Line { connection, seat, rtcp_prefix, streams, takes: false });
        }
        Ok(())
    }

    /// That path takes nothing any more. Without any, frames are dropped.
    pub(crate) fn disconnect(&self, path: usize) {
        self.state().disconnect(path);
    }

    /// Sends one frame, by each line whole or not at all where the room shows it beforehand.
    pub(crate) fn send(&self, frame: &Frame) {
        let mut guard = self.state();
        let state = &mut *guard;
        let frame_id = state.frame_base.wrapping_add(frame.frame_id);
        state.next_frame = frame_id.wrapping_add(1);
        let sending =
            SendingFrame { name: u64::from(frame_id), key: frame.key, deadline: Instant::now() + state.budget };
        let mut lines: [Option<&mut Line>; MAX_PATHS] = state.lines.each_mut().map(Option::as_mut);
        lines.iter_mut().flatten().for_each(|l| l.begin_frame(frame, state.budget));
        let taken = lines.iter().flatten().any(|l| l.takes);
        let whole = match state.prefix {
            Some(prefix) if taken => {
                // First: a frame that the gate does not know when its echo comes proves nothing.
                if let Some(proof) = &state.proof {
                    proof.note(frame_id, frame);
                }
                let (mut repair, mut left) = (state.repair.as_mut(), frame.packets.len());
                let out = |datagram: Bytes| {
                    left = left.saturating_sub(1);
                    // Every line that takes the frame, not the first one alone.
                    let send = |any, l: &mut &mut Line| l.send_packet(&datagram, prefix, &sending) || any;
                    let sent = lines.iter_mut().flatten().fold(false, send);
                    if let Some(repair) = repair.as_mut().filter(|_| sent) {
                        repair.note(&datagram, left == 0);
                    }
                    sent
                };
                send_packets(frame, frame_id, prefix, &mut state.sent, &mut state.newest, out)
            }
            _ => false,
        };
        while let Some(redundancy) = state.repair.as_mut().and_then(Repeater::poll_repair) {
            // Loss policy: a line that has no room for it does without.
            let room = |l: &&mut Line| l.takes && l.connection.datagram_send_buffer_space() > KEPT_FOR_SOUND;
            lines
                .iter_mut()
                .flatten()
                .filter(|l| room(l))
                .for_each(|l| drop(l.connection.send_datagram(redundancy.clone())));
        }
        for line in lines.into_iter().flatten() {
            line.streams.iter_mut().for_each(FrameStreams::finish);
            state.sent.copies_dropped += u64::from(whole && !line.takes);
        }
        if !whole {
            state.sent.frames_dropped += 1;
            return;
        }
        state.sent.frames += 1;
        if let Some(l) = &mut state.ledger {
            l.write(frame_id, &digest(frame.packets.iter().map(|p| payload(p))));
        }
    }

    /// RTCP of the relay, by that path: what it asks for goes again by it.
    pub(crate) fn handle_rtcp(&self, path: usize, rtcp: &[u8]) {
        let mut guard = self.state();
        let State { lines, repair, .. } = &mut *guard;
        if let (Some(Some(line)), Some(repair)) = (lines.get(path), repair) {
            repair.answer(&line.connection, rtcp);
        }
    }

    /// Packets sent again, and repair packets, since the first connection.
    pub(crate) fn repaired(&self) -> (u64, u64) {
        self.state().repair.as_ref().map_or((0, 0), Repeater::counts)
    }

    /// Sends a sender report and returns what was sent.
    pub(crate) fn report(&self, now: WallMicros) -> Sent {
        let mut state = self.state();
        for streams in state.lines.iter_mut().flatten().filter_map(|l| l.streams.as_mut()) {
            let _ = streams.expire(Instant::now());
        }
        state.sent.frames_late = state.late_before + state.lines.iter().flatten().map(Line::late).sum::<u64>();
        if let Some((ssrc, timestamp, capture)) = state.newest {
            let elapsed = now.0.saturating_sub(capture.0).saturating_mul(u64::from(state.clock_rate)) / 1_000_000;
            let report = SenderReport {
                ssrc,
                ntp: now.to_ntp(),
                rtp_time: timestamp.wrapping_add((elapsed & 0xffff_ffff) as u32),
                packets: (state.sent.packets & 0xffff_ffff) as u32,
                octets: (state.sent.octets & 0xffff_ffff) as u32,
            };
            let rtcp = Builder::default().sender_report(&report).cname(ssrc, "trocar").finish();
            state.lines.iter().flatten().for_each(|l| l.send_rtcp(&rtcp));
        }
        state.sent
    }

    /// The source is over and the connections go on: the relay is told (RFC 3550 section 6.6).
    pub(crate) fn bye(&self) {
        let state = self.state();
        if let Some((ssrc, ..)) = state.newest {
            let rtcp = Builder::default().receiver_report(ssrc, None).cname(ssrc, "trocar").bye(&[ssrc]).finish();
            state.lines.iter().flatten().for_each(|l| l.send_rtcp(&rtcp));
        }
    }

    /// Nothing more is written to the ledger.
    pub(crate) fn close_ledger(&self) {
        self.state().ledger = None;
    }

    /// Closes the connection and the ledger. Without an RTCP BYE: closing discards what is queued, a BYE too, and is the
    /// better word, since QUIC repeats it to a peer that missed it and it ends every flow of the connection at once.
    pub(crate) fn finish(&self) {
        let mut state = self.state();
        for line in state.lines.iter_mut().filter_map(Option::take) {
            line.connection.close(error_code::NO_ERROR.into(), b"the publisher stops");
        }
        state.ledger = None;
    }
}

impl State {
    fn disconnect(&mut self, path: usize) {
        if let Some(line) = self.lines.get_mut(path).and_then(Option::take) {
            self.late_before += line.late();
        }
    }
}

/// Room that a frame takes in QUIC's send buffer, at most.
fn needed(frame: &Frame) -> usize {
    let kept = if frame.audio_level.is_some() { 0 } else { KEPT_FOR_SOUND };
    frame.bytes() + frame.packets.len() * OVERHEAD + kept
}

/// Hands a frame's packets to `out` and counts them; whether all of them went. Ends at the first that does not: nobody can
/// use a torn frame, and what is left of it would take room from the next.
fn send_packets(
    frame: &Frame,
    frame_id: u32,
    prefix: FlowPrefix,
    sent: &mut Sent,
    newest: &mut Newest,
    mut out: impl FnMut(Bytes) -> bool,
) -> bool {
    let last = frame.packets.len().saturating_sub(1);
    for (i, packet) in frame.packets.iter().enumerate() {
        let marks = FrameMarks { start: i == 0, end: i == last, independent: frame.key, discardable: false };
        let mark = FrameMark { frame_id, marks };
        let Some((datagram, header)) = pack(packet, mark, frame, prefix) else { return false };
        if !out(datagram) {
            return false;
        }
        *newest = Some((header.ssrc, frame.rtp_timestamp, frame.capture));
        sent.packets += 1;
        sent.octets += packet.len().saturating_sub(header.payload_offset) as u64;
    }
    true
}

fn payload(packet: &[u8]) -> &[u8] {
    Header::parse(packet).map_or(&[], |h| h.payload(packet))
}

/// Puts the extensions of the house into a packet and the flow id before it.
fn pack(packet: &Bytes, mark: FrameMark, frame: &Frame, prefix: FlowPrefix) -> Option<(Bytes, Header)> {
    let h = Header::parse(packet).ok()?;
    let fields = HeaderFields {
        marker: h.marker,
        payload_type: h.payload_type,
        seq: h.seq,
        timestamp: h.timestamp,
        ssrc: h.ssrc,
    };
    let ids = ExtensionIds::OURS;
    let mut header = [0_u8; 40];
    let (mark, capture) = (mark.to_bytes(), frame.capture.to_ntp().to_be_bytes());
    let level = [frame.audio_level.unwrap_or(0)];
    let all: [(u8, &[u8]); 3] = [(ids.frame, &mark), (ids.abs_capture_time, &capture), (AUDIO_LEVEL_ID, &level)];
    let used = all.get(..if frame.audio_level.is_some() { 3 } else { 2 })?;
    let len = write_header(&mut header, fields, used).ok()?;
    let payload = h.payload(packet);
    debug_assert!(len + payload.len() <= MAX_RTP_PACKET, "a packet of {} bytes", len + payload.len());
    let mut out = BytesMut::with_capacity(prefix.as_bytes().len() + len + payload.len());
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(header.get(..len)?);
    out.extend_from_slice(payload);
    Some((out.freeze(), h))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Raw;
    use trocar_proto::media::ext::read_marks;
    use trocar_proto::media::roq;
    use trocar_proto::units::FlowId;

    fn frame(packets: usize) -> Frame {
        let mut p = vec![0x80, 96, 0, 9, 0, 0, 0, 7, 0, 0, 0, 5];
        p.extend_from_slice(&[0xab; 1_088]);
        Frame {
            frame_id: 1,
            key: true,
            capture: WallMicros(1_790_000_000_123_456),
            rtp_timestamp: 7,
            audio_level: None,
            raw: Raw::NotAsked,
            packets: vec![p.into(); packets],
        }
    }

    #[test]
    fn the_room_asked_for_is_enough_for_what_quic_charges() {
        const CHARGED: usize = 32;
        // The largest flow id has the longest prefix.
        let prefix = FlowPrefix::new(FlowId((1 << 62) - 1)).unwrap();
        let (f, mut taken) = (frame(40), 0);
        let out = |d: Bytes| {
            taken += d.len() + CHARGED;
            true
        };
        assert!(send_packets(&f, 1, prefix, &mut Sent::default(), &mut None, out));
        assert!(taken <= needed(&f), "{taken} > {}", needed(&f));
    }

    #[test]
    fn a_frame_of_which_a_packet_is_refused_is_not_sent_and_its_rest_stays_behind() {
        let prefix = FlowPrefix::new(FlowId(2)).unwrap();
        let (mut sent, mut newest, mut asked) = (Sent::default(), None, 0);
        let out = |_| {
            asked += 1;
            asked < 3
        };
        assert!(!send_packets(&frame(5), 1, prefix, &mut sent, &mut newest, out));
        assert_eq!((asked, sent.packets, sent.octets), (3, 2, 2 * 1_088));
        assert_eq!(newest, Some((Ssrc(5), 7, WallMicros(1_790_000_000_123_456))));
    }

    #[test]
    fn a_frame_without_a_connection_is_dropped_and_not_in_the_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let sender = Sender::new(Some(&path)).unwrap();
        sender.send(&frame(1));
        let sent = sender.report(WallMicros(0));
        assert_eq!((sent.frames, sent.frames_dropped), (0, 1));
        sender.finish();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_packet_keeps_its_header_and_payload_and_gains_the_marks() {
        let mut p = vec![0x80, 96 | 0x80, 0, 9, 0, 0, 0, 7, 0, 0, 0, 5];
        p.extend_from_slice(&[0xab; 1_088]);
        let mark = FrameMark { frame_id: 77, marks: FrameMarks { start: true, end: true, ..FrameMarks::default() } };
        let (f, prefix) = (frame(1), FlowPrefix::new(FlowId(300)).unwrap());
        let (d, _) = pack(&p.into(), mark, &f, prefix).unwrap();
        let (flow, packet) = roq::split(&d).unwrap();
        assert_eq!((flow, packet.len()), (FlowId(300), MAX_RTP_PACKET));
        let h = Header::parse(packet).unwrap();
        assert_eq!((h.marker, h.seq, h.timestamp, h.ssrc), (true, 9, 7, Ssrc(5)));
        assert_eq!(h.payload(packet), &[0xab; 1_088]);
        let marks = read_marks(&h, packet, ExtensionIds::OURS);
        assert_eq!((marks.frame, marks.capture), (Some(mark), Some(f.capture)));
    }

    #[test]
    fn sound_carries_its_level_and_pictures_leave_room_for_it() {
        let mut f = frame(1);
        assert_eq!(needed(&f), 1_100 + OVERHEAD + KEPT_FOR_SOUND);
        f.audio_level = Some(0x80 | 20);
        assert_eq!(needed(&f), 1_100 + OVERHEAD);
        f.packets = vec![f.packets[0].slice(..200)];
        let (d, _) = pack(&f.packets[0], FrameMark::default(), &f, FlowPrefix::new(FlowId(3)).unwrap()).unwrap();
        let (_, packet) = roq::split(&d).unwrap();
        let h = Header::parse(packet).unwrap();
        let level = h.extensions(packet).find(|(id, _)| *id == AUDIO_LEVEL_ID).map(|(_, data)| data.to_vec());
        assert_eq!(level, Some(vec![0x80 | 20]));
        assert_eq!(read_marks(&h, packet, ExtensionIds::OURS).capture, Some(f.capture));
    }

    #[test]
    fn frame_ids_rise_over_restarts_of_the_source() {
        let sender = Sender::new(None).unwrap();
        for (frame_id, next) in [(0, 1), (1, 2)] {
            sender.send(&Frame { frame_id, ..frame(1) });
            assert_eq!(sender.state().next_frame, next);
        }
        sender.begin(48_000);
        sender.send(&Frame { frame_id: 0, ..frame(1) });
        let state = sender.state();
        assert_eq!((state.next_frame, state.clock_rate), (3, 48_000));
    }
}
