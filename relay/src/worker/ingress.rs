//! Media that comes in by WebRTC: an RTP packet after SRTP becomes a packet of a feed, what is missing is asked for, and
//! the publisher is told what arrived.

use super::peer::{Peer, Track};
use super::state::{Core, Origin, SCRATCH, wall_now};
use std::time::Instant;
use trocar_proto::media::ext::transport_sequence;
use trocar_proto::media::rtcp::{Builder, Compound, Rtcp, ntp_middle};
use trocar_proto::media::rtp::Header;
use trocar_proto::media::rtx;
use trocar_proto::units::{Micros, Ssrc};

/// REMB goes out this often, in microseconds.
const REMB_SPACING_US: u64 = 1_000_000;

impl Core {
    /// One authentic RTP packet of a publishing peer.
    pub(super) fn handle_media(&mut self, index: usize, now: Instant, packet: &[u8]) {
        let at = self.micros(now);
        let Some(peer) = self.peers.get_mut(index) else { return };
        let Ok(header) = Header::parse(packet) else { return };
        // Whatever it carries counts for the transport: probes of the publisher's bandwidth estimate are among it.
        if let Some(cc) = &mut peer.transport_cc
            && let Some(number) = transport_sequence(&header, packet, cc.id)
        {
            cc.recorder.handle_packet(at, number);
        }
        let of =
            |t: &&mut Track| t.payload_type == header.payload_type || t.rtx_payload_type == Some(header.payload_type);
        let Some(track) = peer.tracks.iter_mut().find(of) else { return };
        let Some(feed) = track.feed else { return };
        if track.payload_type == header.payload_type {
            let another = track.media.is_some_and(|before| before != header.ssrc);
            track.media = Some(header.ssrc);
            if let Some(nack) = &mut track.nack {
                if another {
                    nack.begin_source();
                }
                nack.handle_packet(at, header.seq);
            }
            self.note_source(feed, header.ssrc);
            return self.store(feed, now, packet);
        }
        // RTX before any media has nothing to repair; probes carry no packet.
        let Some(media) = track.media else { return };
        let mut repaired = [0; SCRATCH];
        let Some(len) = rtx::decapsulate(&header, packet, media, track.payload_type, &mut repaired) else { return };
        let repaired = repaired.get(..len).unwrap_or(&[]);
        if let (Some(nack), Ok(h)) = (&mut track.nack, Header::parse(repaired)) {
            nack.handle_packet(at, h.seq);
        }
        self.store(feed, now, repaired);
    }

    /// Remembers which source key frames are to be asked of.
    fn note_source(&mut self, feed: usize, ssrc: Ssrc) {
        if let Some(Origin::Webrtc { media, .. }) = self.feeds.get_mut(feed).map(|f| &mut f.origin) {
            *media = Some(ssrc);
        }
    }

    /// RTCP of a peer, after SRTCP: reports and requests about what leaves by it, sender reports about what comes in.
    pub(super) fn handle_peer_rtcp(&mut self, index: usize, now: Instant, bytes: &[u8]) {
        let at = self.micros(now);
        let middle = ntp_middle(wall_now().to_ntp());
        for part in Compound::new(bytes) {
            match part {
                Rtcp::ReceiverReport(_, blocks) => self.note_reports(index, blocks, middle),
                Rtcp::SenderReport(sr, blocks) => {
                    if let Some(feed) = self.feed_of_source(index, sr.ssrc) {
                        self.note_sender_report(feed, &sr, at);
                    }
                    self.note_reports(index, blocks, middle);
                }
                Rtcp::KeyFrameRequest { media } => {
                    if let Some(leg) = self.leg_of_ssrc(index, media) {
                        self.want_key_frame(leg, now, at);
                    }
                }
                Rtcp::Nack { media, lost } => {
                    if let Some(leg) = self.leg_of_ssrc(index, media) {
                        self.repair(leg, now, lost);
                    }
                }
                _ => {}
            }
        }
    }

    fn note_reports(&mut self, peer: usize, blocks: trocar_proto::media::rtcp::Reports<'_>, middle: u32) {
        for block in blocks {
            if let Some(leg) = self.leg_of_ssrc(peer, block.ssrc) {
                self.note_report(leg, &block, middle);
            }
        }
    }

    /// The leg that a peer knows by that SSRC.
    fn leg_of_ssrc(&self, peer: usize, ssrc: Ssrc) -> Option<usize> {
        let legs = &self.peers.get(peer)?.legs;
        let is_it = |i: &usize| self.legs.get(*i).and_then(|l| l.webrtc()).is_some_and(|w| w.ssrc == ssrc);
        legs.iter().copied().find(is_it)
    }

    fn feed_of_source(&self, peer: usize, ssrc: Ssrc) -> Option<usize> {
        self.peers.get(peer)?.tracks.iter().find(|t| t.media == Some(ssrc))?.feed
    }

    /// What publishing peers are due to be told: packets that are missing, when packets arrived, what they may send.
    pub(super) fn feed_back(&mut self, now: Instant, at: Micros) {
        let publishers = self.peers.iter().filter(|(_, p)| !p.tracks.is_empty());
        for index in publishers.map(|(i, _)| i).collect::<Vec<_>>() {
            let due = self.peers.get_mut(index).map(|p| due_to(p, at)).unwrap_or_default();
            for packet in due {
                self.send_to_peer(index, now, packet);
            }
        }
    }
}

/// RTCP packets that are due to a publishing peer now.
fn due_to(peer: &mut Peer, at: Micros) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for track in &mut peer.tracks {
        let Some(media) = track.media else { continue };
        while let Some(lost) = track.nack.as_mut().and_then(|n| n.poll(at)) {
            let head = Builder::default().receiver_report(peer.ssrc, None);
            out.push(head.nack(peer.ssrc, media, lost).finish());
        }
        if let Some(rate) = track.remb.filter(|_| at.since(peer.last_remb) >= REMB_SPACING_US) {
            peer.last_remb = at;
            let head = Builder::default().receiver_report(peer.ssrc, None);
            out.push(head.remb(peer.ssrc, rate, &[media]).finish());
        }
    }
    let media = peer.tracks.iter().find_map(|t| t.media).unwrap_or(Ssrc(0));
    if let Some(cc) = &mut peer.transport_cc {
        while let Some(feedback) = cc.recorder.poll(at) {
            out.push(Builder::default().transport_feedback(peer.ssrc, media, &feedback).finish());
        }
    }
    out
}
