//! From a source's frames to RoQ datagrams, on the source's own thread: header extensions are put in, whole frames are left
//! out where the connection has no room.

use crate::ledger::{Ledger, digest};
use crate::media::Frame;
use anyhow::Context;
use bytes::{Bytes, BytesMut};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use trocar_proto::media::ext::{ExtensionIds, FrameMark, FrameMarks};
use trocar_proto::media::roq::{FlowPrefix, MAX_RTP_PACKET, error_code};
use trocar_proto::media::rtcp::{Builder, SenderReport};
use trocar_proto::media::rtp::{Header, HeaderFields, write_header};
use trocar_proto::session::api::RoqBinding;
use trocar_proto::units::{Ssrc, WallMicros};

/// What was sent since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    /// Frames handed to QUIC.
    pub(crate) frames: u64,
    /// Packets of those.
    pub(crate) packets: u64,
    /// Payload bytes of those.
    pub(crate) octets: u64,
    /// Frames left out whole: no connection, or no room in it.
    pub(crate) frames_dropped: u64,
}

struct Line {
    connection: quinn::Connection,
    prefix: FlowPrefix,
    rtcp_prefix: FlowPrefix,
}

#[derive(Default)]
struct State {
    line: Option<Line>,
    sent: Sent,
    /// SSRC, RTP timestamp and capture time of the newest frame.
    newest: Option<(Ssrc, u32, WallMicros)>,
    ledger: Option<Ledger>,
}

/// The way out. One lock per frame, taken by the source's thread and once a second by the reporter.
pub(crate) struct Sender {
    state: Mutex<State>,
}

impl Sender {
    /// Without a connection yet; frames before it are counted as dropped.
    pub(crate) fn new(ledger: Option<&Path>) -> anyhow::Result<Self> {
        let ledger = ledger.map(Ledger::create).transpose()?;
        Ok(Self { state: Mutex::new(State { ledger, ..State::default() }) })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends over this connection from the next frame on.
    pub(crate) fn connect(&self, connection: quinn::Connection, binding: &RoqBinding) -> anyhow::Result<()> {
        let prefix = FlowPrefix::new(binding.rtp_flow_id).context("rtp_flow_id is above 2^62")?;
        let rtcp_prefix = FlowPrefix::new(binding.rtcp_flow_id).context("rtcp_flow_id is above 2^62")?;
        self.state().line = Some(Line { connection, prefix, rtcp_prefix });
        Ok(())
    }

    /// Frames are dropped from now on.
    pub(crate) fn disconnect(&self) {
        self.state().line = None;
    }

    /// Sends one frame, whole or not at all.
    pub(crate) fn send(&self, frame: &Frame) {
        let mut guard = self.state();
        let State { line, sent, newest, ledger } = &mut *guard;
        // Extensions and flow id come on top of each packet.
        let needed = frame.bytes() + frame.packets.len() * 32;
        let Some(line) = line.as_ref().filter(|l| l.connection.datagram_send_buffer_space() >= needed) else {
            sent.frames_dropped += 1;
            return;
        };
        let last = frame.packets.len().saturating_sub(1);
        for (i, packet) in frame.packets.iter().enumerate() {
            let marks = FrameMarks { start: i == 0, end: i == last, independent: frame.key, discardable: false };
            let mark = FrameMark { frame_id: frame.frame_id, marks };
            let Some((datagram, header)) = pack(packet, mark, frame.capture, line.prefix) else { continue };
            *newest = Some((header.ssrc, frame.rtp_timestamp, frame.capture));
            let octets = packet.len().saturating_sub(header.payload_offset) as u64;
            if line.connection.send_datagram(datagram).is_ok() {
                sent.packets += 1;
                sent.octets += octets;
            }
        }
        sent.frames += 1;
        if let Some(l) = ledger {
            l.write(frame.frame_id, &digest(frame.packets.iter().map(|p| payload(p))));
        }
    }

    /// Sends a sender report and returns what was sent.
    pub(crate) fn report(&self, now: WallMicros) -> Sent {
        let state = self.state();
        if let (Some(line), Some((ssrc, timestamp, capture))) = (&state.line, state.newest) {
            let elapsed =
                now.0.saturating_sub(capture.0).saturating_mul(u64::from(crate::media::CLOCK_RATE)) / 1_000_000;
            let report = SenderReport {
                ssrc,
                ntp: now.to_ntp(),
                rtp_time: timestamp.wrapping_add((elapsed & 0xffff_ffff) as u32),
                packets: (state.sent.packets & 0xffff_ffff) as u32,
                octets: (state.sent.octets & 0xffff_ffff) as u32,
            };
            let rtcp = Builder::default().sender_report(&report).cname(ssrc, "trocar").finish();
            // Loss policy: a report that does not go out is followed by another in a second.
            let _ = line.connection.send_datagram([line.rtcp_prefix.as_bytes(), &rtcp].concat().into());
        }
        state.sent
    }

    /// Says goodbye and closes the connection and the ledger.
    pub(crate) fn finish(&self) {
        let mut state = self.state();
        if let (Some(line), Some((ssrc, ..))) = (&state.line, state.newest) {
            let rtcp = Builder::default().receiver_report(ssrc, None).bye(ssrc).finish();
            let _ = line.connection.send_datagram([line.rtcp_prefix.as_bytes(), &rtcp].concat().into());
            line.connection.close(error_code::NO_ERROR.into(), b"the publisher stops");
        }
        state.line = None;
        state.ledger = None;
    }
}

fn payload(packet: &[u8]) -> &[u8] {
    Header::parse(packet).map_or(&[], |h| h.payload(packet))
}

/// Puts the extensions of the house into a packet and the flow id before it.
fn pack(packet: &Bytes, mark: FrameMark, capture: WallMicros, prefix: FlowPrefix) -> Option<(Bytes, Header)> {
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
    let elements: [(u8, &[u8]); 2] =
        [(ids.frame, &mark.to_bytes()), (ids.abs_capture_time, &capture.to_ntp().to_be_bytes())];
    let len = write_header(&mut header, fields, &elements).ok()?;
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
    use trocar_proto::media::ext::read_marks;
    use trocar_proto::media::roq;
    use trocar_proto::units::FlowId;

    #[test]
    fn a_packet_keeps_its_header_and_payload_and_gains_the_marks() {
        let mut p = vec![0x80, 96 | 0x80, 0, 9, 0, 0, 0, 7, 0, 0, 0, 5];
        p.extend_from_slice(&[0xab; 1_088]);
        let mark = FrameMark { frame_id: 77, marks: FrameMarks { start: true, end: true, ..FrameMarks::default() } };
        let capture = WallMicros(1_790_000_000_123_456);
        let (d, _) = pack(&p.into(), mark, capture, FlowPrefix::new(FlowId(300)).unwrap()).unwrap();
        let (flow, packet) = roq::split(&d).unwrap();
        assert_eq!((flow, packet.len()), (FlowId(300), MAX_RTP_PACKET));
        let h = Header::parse(packet).unwrap();
        assert_eq!((h.marker, h.seq, h.timestamp, h.ssrc), (true, 9, 7, Ssrc(5)));
        assert_eq!(h.payload(packet), &[0xab; 1_088]);
        let marks = read_marks(&h, packet, ExtensionIds::OURS);
        assert_eq!((marks.frame, marks.capture), (Some(mark), Some(capture)));
    }
}
