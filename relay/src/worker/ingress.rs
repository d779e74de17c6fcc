//! Media that comes in by WebRTC: an RTP packet after SRTP becomes a packet of a feed, what is missing is asked for, and
//! the publisher is told what arrived.

use super::peer::{Peer, Track};
use super::state::{Core, Origin, SCRATCH, Way, wall_now};
use crate::webrtc::layers::Belongs;
use std::time::Instant;
use trocar_proto::media::ext::transport_sequence;
use trocar_proto::media::rtcp::{Builder, Compound, Rtcp, ntp_middle};
use trocar_proto::media::rtp::Header;
use trocar_proto::media::rtx;
use trocar_proto::media::twcc::Feedback;
use trocar_proto::session::api::FeedState;
use trocar_proto::units::{Bitrate, Micros, Ssrc};

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
        match peer.demux.find(&header, packet) {
            Some(Belongs::Media { lane, another }) => {
                let Some(Track { feed: Some(feed), nack, .. }) = peer.tracks.get_mut(lane) else { return };
                if let Some(nack) = nack {
                    if another {
                        nack.begin_source();
                    }
                    nack.handle_packet(at, header.seq);
                }
                let feed = *feed;
                self.note_source(feed, header.ssrc);
                self.store(feed, now, packet);
            }
            Some(Belongs::Repair { lane }) => self.handle_repair(index, lane, now, &header, packet),
            None => {}
        }
    }

    /// A packet that came again on the publisher's RTX stream.
    fn handle_repair(&mut self, index: usize, lane: usize, now: Instant, header: &Header, packet: &[u8]) {
        let at = self.micros(now);
        let Some(Peer { demux, tracks, .. }) = self.peers.get_mut(index) else { return };
        // RTX before any media has nothing to repair; probes carry no packet.
        let Some((media, payload_type)) = demux.lane(lane).and_then(|l| Some((demux.media(lane)?, l.payload_type)))
        else {
            return;
        };
        let Some(Track { feed: Some(feed), nack, .. }) = tracks.get_mut(lane) else { return };
        let mut repaired = [0; SCRATCH];
        let Some(len) = rtx::decapsulate(header, packet, media, payload_type, &mut repaired) else { return };
        let repaired = repaired.get(..len).unwrap_or(&[]);
        if let (Some(nack), Ok(h)) = (nack, Header::parse(repaired)) {
            nack.handle_packet(at, h.seq);
        }
        let feed = *feed;
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
                Rtcp::ReceiverReport(_, blocks) => self.note_reports(index, blocks, middle, at),
                Rtcp::SenderReport(sr, blocks) => {
                    if let Some(feed) = self.feed_of_source(index, sr.ssrc) {
                        self.note_sender_report(feed, &sr, at);
                    }
                    self.note_reports(index, blocks, middle, at);
                }
                Rtcp::KeyFrameRequest { media } => {
                    if let Some(leg) = self.leg_of_ssrc(index, media) {
                        self.want_key_frame(leg, now, at);
                    }
                }
                Rtcp::FullIntraRequest(asked) => asked.for_each(|(media, number)| {
                    if let Some(leg) = self.leg_of_ssrc(index, media)
                        && self.is_new_command(leg, number)
                    {
                        self.want_key_frame(leg, now, at);
                    }
                }),
                Rtcp::Bye(sources) => sources.for_each(|ssrc| {
                    if let Some(feed) = self.feed_of_source(index, ssrc) {
                        self.set_feed_state(feed, FeedState::Stalled);
                    }
                }),
                Rtcp::Nack { media, lost } => {
                    if let Some(leg) = self.leg_of_ssrc(index, media) {
                        self.repair(leg, now, lost);
                    }
                }
                Rtcp::TransportFeedback { fci, .. } => match Feedback::parse(fci) {
                    Ok(feedback) => self.handle_line_feedback(index, at, &feedback),
                    Err(error) => tracing::debug!(%error, "transport feedback of a viewer"),
                },
                _ => {}
            }
        }
    }

    fn note_reports(&mut self, peer: usize, blocks: trocar_proto::media::rtcp::Reports<'_>, middle: u32, at: Micros) {
        for block in blocks {
            if let Some(leg) = self.leg_of_ssrc(peer, block.ssrc) {
                self.note_report(leg, &block, middle);
                self.plan_redundancy(leg, at);
            }
        }
    }

    /// Whether a FIR of a leg's viewer is not the last one again (RFC 5104 section 4.3.1.1).
    fn is_new_command(&mut self, leg: usize, number: u8) -> bool {
        let Some(Way::Webrtc(way)) = self.legs.get_mut(leg).map(|l| &mut l.way) else { return false };
        way.last_fir.replace(number) != Some(number)
    }

    /// The leg that a peer knows by that SSRC.
    fn leg_of_ssrc(&self, peer: usize, ssrc: Ssrc) -> Option<usize> {
        let legs = &self.peers.get(peer)?.legs;
        let is_it = |i: &usize| self.legs.get(*i).and_then(|l| l.webrtc()).is_some_and(|w| w.ssrc == ssrc);
        legs.iter().copied().find(is_it)
    }

    fn feed_of_source(&self, peer: usize, ssrc: Ssrc) -> Option<usize> {
        let peer = self.peers.get(peer)?;
        peer.tracks.get(peer.demux.lane_of(ssrc)?)?.feed
    }

    /// What publishing peers are due to be told: packets that are missing, when packets arrived, what they may send.
    pub(super) fn feed_back(&mut self, now: Instant, at: Micros) {
        // By number, so that nothing is collected: the list changes while something is sent.
        for index in 0..self.peers.capacity() {
            let Some(peer) = self.peers.get_mut(index).filter(|p| !p.tracks.is_empty()) else { continue };
            for packet in due_to(peer, at) {
                self.send_to_peer(index, now, packet);
            }
        }
    }
}

/// RTCP packets that are due to a publishing peer now.
fn due_to(peer: &mut Peer, at: Micros) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let Peer { tracks, demux, last_remb, transport_cc, ssrc, .. } = peer;
    let from = *ssrc;
    for (lane, track) in tracks.iter_mut().enumerate() {
        let Some(media) = demux.media(lane) else { continue };
        while let Some(lost) = track.nack.as_mut().and_then(|n| n.poll(at)) {
            let head = Builder::default().receiver_report(from, None);
            out.push(head.nack(from, media, lost).finish());
        }
    }
    let estimated = || tracks.iter().enumerate().filter_map(|(lane, t)| Some((demux.media(lane)?, t.remb?)));
    if estimated().next().is_some() && at.since(*last_remb) >= REMB_SPACING_US {
        *last_remb = at;
        // One estimate for all that the connection brings.
        let rate = estimated().map(|(_, rate)| rate.0).fold(0, u64::saturating_add);
        let sources: Vec<Ssrc> = estimated().map(|(media, _)| media).collect();
        let head = Builder::default().receiver_report(from, None);
        out.push(head.remb(from, Bitrate(rate), &sources).finish());
    }
    let media = (0..tracks.len()).find_map(|lane| demux.media(lane)).unwrap_or(Ssrc(0));
    if let Some(cc) = transport_cc {
        while let Some(feedback) = cc.recorder.poll(at) {
            out.push(Builder::default().transport_feedback(from, media, &feedback).finish());
        }
    }
    out
}
