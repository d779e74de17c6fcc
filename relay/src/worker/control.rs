//! RTCP and everything that happens by the clock.

use super::out::Ways;
use super::repair::Occasion;
use super::state::{Core, Origin, ReportedLoss, Way, wall_now};
use bytes::Bytes;
use std::time::Instant;
use trocar_proto::media::ingest::Ingest;
use trocar_proto::media::roq::FlowPrefix;
use trocar_proto::media::rtcp::{Builder, Compound, ReportBlock, Rtcp, SenderReport, ntp_middle};
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::api::FeedState;
use trocar_proto::session::event::LegState;
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Purpose};
use trocar_proto::units::Micros;

/// Reports go out this often, in microseconds.
pub(super) const REPORT_SPACING_US: u64 = 1_000_000;
/// A native leg that nobody has connected for is dropped after this long, in microseconds.
const UNCONNECTED_US: u64 = 15_000_000;
/// A picture without a packet for this long is stalled, in microseconds, or for three of its frames where that is longer.
const STALL_US: u64 = 300_000;
/// The same of a feed whose pace is not known or not even: sound with pauses, a screen that stands still.
const STALL_UNEVEN_US: u64 = 1_500_000;
/// Viewers are told of a new picture size at most this often, in microseconds: a publisher must not flood them.
const NEWS_SPACING_US: u64 = 1_000_000;

/// How long a feed may be silent before it is said to be stalled.
fn stall_after(feed: &FeedDescriptor) -> u64 {
    if feed.kind != MediaKind::Video || (feed.fps <= 0.0 && feed.purpose == Purpose::Secondary) {
        return STALL_UNEVEN_US;
    }
    let three_frames = if feed.fps > 0.0 { (3e6 / feed.fps) as u64 } else { 0 };
    three_frames.max(STALL_US)
}

impl Core {
    /// RTCP of a native publisher: its sender reports are echoed in our receiver reports.
    pub(crate) fn handle_publisher_rtcp(&mut self, index: usize, at: Micros, bytes: &[u8]) {
        for part in Compound::new(bytes) {
            match part {
                Rtcp::SenderReport(sr, _) => self.note_sender_report(index, &sr, at),
                Rtcp::Bye(mut sources) => {
                    let present = self.feeds.get(index).and_then(|f| f.feed.highest()).map(|(ssrc, _)| ssrc);
                    if sources.any(|s| Some(s) == present) {
                        self.set_feed_state(index, FeedState::Stalled);
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn note_sender_report(&mut self, feed: usize, sr: &SenderReport, at: Micros) {
        if let Some(entry) = self.feeds.get_mut(feed) {
            entry.last_sr = Some((ntp_middle(sr.ntp), at));
            entry.clock.handle_report(sr, wall_now().to_ntp(), at);
        }
    }

    /// RTCP of a native viewer.
    pub(crate) fn handle_viewer_rtcp(&mut self, index: usize, now: Instant, bytes: &[u8]) {
        let at = self.micros(now);
        if self.legs.get_mut(index).is_some_and(|l| !l.rtcp.admit(at)) {
            self.counters.rtcp_dropped += 1;
            return;
        }
        self.answer_native(index, now, bytes);
        let middle = ntp_middle(wall_now().to_ntp());
        for part in Compound::new(bytes) {
            match part {
                Rtcp::ReceiverReport(_, blocks) | Rtcp::SenderReport(_, blocks) => {
                    for block in blocks {
                        self.note_report(index, &block, middle);
                    }
                }
                Rtcp::KeyFrameRequest { .. } | Rtcp::FullIntraRequest(_) => self.want_key_frame(index, now, at),
                _ => {}
            }
        }
    }

    /// A leg's viewer needs a key frame.
    pub(super) fn want_key_frame(&mut self, leg: usize, now: Instant, at: Micros) {
        let Some(feed) = self.legs.get(leg).and_then(|l| l.feed) else { return };
        if let Some(f) = self.feeds.get_mut(feed) {
            f.feed.handle_key_frame_request();
        }
        self.ask_key_frame(feed, now, at);
    }

    pub(super) fn note_report(&mut self, index: usize, block: &ReportBlock, now_middle: u32) {
        let Some(leg) = self.legs.get_mut(index) else { return };
        let v = &mut leg.viewer;
        v.fraction_lost = block.fraction_lost;
        v.cumulative_lost = block.cumulative_lost;
        v.jitter = block.jitter;
        v.round_trip_us = block.round_trip_us(now_middle).or(v.round_trip_us);
    }

    /// Asks the publisher for a key frame where one is wanted and the budget allows it.
    pub(crate) fn ask_key_frame(&mut self, index: usize, now: Instant, at: Micros) {
        let Some(entry) = self.feeds.get_mut(index) else { return };
        if entry.descriptor.kind != MediaKind::Video || !entry.origin.is_connected() {
            return;
        }
        if let Some(media) = entry.feed.poll_key_frame_request(at) {
            if let Origin::Mirror { .. } = entry.origin {
                return self.ask_home(index);
            }
            let from = entry.receiver_ssrc;
            let head = Builder::default().receiver_report(from, None);
            let asked = match self.take_fir_number(index) {
                Some(number) => head.fir(from, media, number),
                None => head.pli(from, media),
            };
            self.send_upstream(index, now, asked.finish());
        }
    }

    /// The number of the next FIR to a feed's publisher, where it knows no PLI.
    fn take_fir_number(&mut self, feed: usize) -> Option<u8> {
        let Origin::Webrtc { peer, .. } = self.feeds.get(feed)?.origin else { return None };
        let track = self.peers.get_mut(peer)?.tracks.iter_mut().find(|t| t.feed == Some(feed))?;
        let number = track.fir?;
        track.fir = Some(number.wrapping_add(1));
        Some(number)
    }

    /// Everything that is due by the clock. In this order: peers' handshakes and consent, what publishing peers are to
    /// repair, voices, reports to viewers, reports to publishers, feeds that went silent.
    pub(crate) fn tick(&mut self, now: Instant) {
        let at = self.micros(now);
        self.tell_untold();
        self.keep_crossings(at);
        self.keep_cascades(at);
        let peers: Vec<usize> = self.peers.iter().map(|(i, _)| i).collect();
        for index in peers {
            if let Some(peer) = self.peers.get_mut(index) {
                peer.transport.handle_timeout(now);
                self.drain_transport(index, now);
            }
        }
        self.feed_back(now, at);
        self.poll_repairs(now, at, Occasion::Tick);
        self.assign_voices(now, at);
        self.watch_paths(at);
        self.keep_grants(at);
        self.keep_uplinks();
        self.expire_frames(now);
        self.forget_switches();
        let legs: Vec<usize> = self.legs.iter().map(|(i, _)| i).collect();
        for index in legs {
            self.report_to_viewer(index, now, at);
            let forgotten = self.legs.get(index).is_some_and(|l| {
                matches!(l.way, Way::Roq(_))
                    && l.state == LegState::Connecting
                    && at.since(l.unconnected_since) > UNCONNECTED_US
            });
            if forgotten {
                self.drop_leg(index);
            }
        }
        let feeds: Vec<usize> = self.feeds.iter().map(|(i, _)| i).collect();
        for index in feeds {
            self.points(index, now, at);
            self.report_to_publisher(index, now, at);
            self.ask_key_frame(index, now, at);
            self.tell_size(index, at);
            let silent = self.feeds.get(index).is_some_and(|f| {
                f.state == FeedState::Live
                    && f.feed.last_arrival().is_some_and(|t| at.since(t) > stall_after(&f.descriptor))
            });
            if silent {
                self.set_feed_state(index, FeedState::Stalled);
            }
        }
    }

    /// The size of a feed's pictures was read from its stream: viewers are told the newest one.
    fn tell_size(&mut self, index: usize, at: Micros) {
        let Some(entry) = self.feeds.get_mut(index) else { return };
        let Some((width, height)) = entry.ingest.as_ref().and_then(Ingest::size) else { return };
        let d = &mut entry.descriptor;
        if (d.width, d.height) == (width, height) || at.since(entry.last_news) < NEWS_SPACING_US {
            return;
        }
        (d.width, d.height) = (width, height);
        entry.last_news = at;
        let (key, descriptor) = (entry.key.clone(), entry.descriptor.clone());
        self.tell(RelayEvent::Descriptor { key, descriptor });
    }

    fn report_to_publisher(&mut self, index: usize, now: Instant, at: Micros) {
        let Some(entry) = self.feeds.get_mut(index) else { return };
        if !entry.origin.is_connected() || at.since(entry.last_report) < REPORT_SPACING_US {
            return;
        }
        let Some((ssrc, highest)) = entry.feed.highest() else { return };
        entry.last_report = at;
        let c = entry.feed.counters();
        let lost = c.missing.saturating_sub(entry.reported.missing);
        let expected = c.packets.saturating_sub(entry.reported.packets) + lost;
        entry.reported = ReportedLoss { packets: c.packets, missing: c.missing };
        let fraction = (lost * 256).checked_div(expected).unwrap_or(0).min(255);
        let (last_sr, delay_since_sr) = entry.last_sr.map_or((0, 0), |(sr, t)| {
            (sr, u32::try_from(at.since(t).saturating_mul(65_536) / 1_000_000).unwrap_or(u32::MAX))
        });
        let block = ReportBlock {
            ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(255),
            cumulative_lost: i32::try_from(c.missing.min(0x7f_ffff)).unwrap_or(i32::MAX),
            highest_seq: (highest.0 & 0xffff_ffff) as u32,
            jitter: entry.feed.jitter(),
            last_sr,
            delay_since_sr,
        };
        let from = entry.receiver_ssrc;
        let bytes = Builder::default().receiver_report(from, Some(&block)).cname(from, "relay").finish();
        self.send_upstream(index, now, bytes);
    }

    /// RTCP to the publisher. Loss policy: what its connection does not take is not sent; reports and requests come again.
    pub(super) fn send_upstream(&mut self, index: usize, now: Instant, rtcp: Vec<u8>) {
        match self.feeds.get(index).map(|f| &f.origin) {
            Some(Origin::Roq { paths, rtcp_flow, .. }) => {
                let Some(c) = paths.connection() else { return };
                // Another relay has flows of its own.
                let flow = self.cascades.rtcp_flow(c).unwrap_or(*rtcp_flow);
                if let Some(prefix) = FlowPrefix::new(flow) {
                    let _ = c.send_datagram(Bytes::from([prefix.as_bytes(), &rtcp].concat()));
                }
            }
            Some(Origin::Webrtc { peer, .. }) => self.send_to_peer(*peer, now, rtcp),
            _ => {}
        }
    }

    /// RTCP to a peer. Loss policy: what the socket does not take is not sent; what it says is said again.
    pub(super) fn send_to_peer(&mut self, index: usize, now: Instant, mut rtcp: Vec<u8>) {
        let Some(keys) = self.peers.get_mut(index).and_then(|p| p.keys.as_mut()) else { return };
        if keys.send.seal_rtcp(&mut rtcp).is_err() {
            return;
        }
        let Self { peers, listeners, tcp_out, .. } = self;
        if let Some(outlet) = (Ways { peers, listeners, tcp_out }).of(index, now) {
            outlet.send(&rtcp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_picture_and_sound_with_pauses_are_not_called_stalled_between_two_packets() {
        let mut d: FeedDescriptor = serde_json::from_str(
            r#"{"feed":"a","source":"a","view":"overview","kind":"video","purpose":"scope","codec":"H264",
                "clock_rate":90000,"payload_type":96,"max_bitrate":1000000,"budget_ms":200,"transport":"webrtc"}"#,
        )
        .unwrap();
        assert_eq!(stall_after(&d), STALL_US, "an endoscope whose rate is unknown");
        d.fps = 60.0;
        assert_eq!(stall_after(&d), STALL_US);
        d.fps = 2.0;
        assert_eq!(stall_after(&d), 1_500_000);
        (d.fps, d.purpose) = (0.0, Purpose::Secondary);
        assert_eq!(stall_after(&d), STALL_UNEVEN_US, "a screen");
        (d.kind, d.purpose) = (MediaKind::Audio, Purpose::Voice);
        assert_eq!(stall_after(&d), STALL_UNEVEN_US);
    }
}
