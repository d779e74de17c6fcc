//! RTCP and everything that happens by the clock.

use super::state::{Core, FeedEntry, LegEntry, ReportedLoss, Way, wall_now};
use bytes::Bytes;
use std::time::Instant;
use trocar_proto::media::rtcp::{Builder, Compound, ReportBlock, Rtcp, SenderReport, ntp_middle};
use trocar_proto::session::api::FeedState;
use trocar_proto::session::event::LegState;
use trocar_proto::units::{Micros, Ssrc};

/// Reports go out this often, in microseconds.
const REPORT_SPACING_US: u64 = 1_000_000;
/// A native leg that nobody has connected for is dropped after this long, in microseconds.
const UNCONNECTED_US: u64 = 15_000_000;
/// A feed without a packet for this long is stalled, in microseconds.
const STALL_US: u64 = 300_000;

impl Core {
    /// RTCP of a publisher: its sender reports are echoed in our receiver reports.
    pub(crate) fn handle_publisher_rtcp(&mut self, index: usize, at: Micros, bytes: &[u8]) {
        let Some(entry) = self.feeds.get_mut(index) else { return };
        for part in Compound::new(bytes) {
            if let Rtcp::SenderReport(sr, _) = part {
                entry.last_sr = Some((ntp_middle(sr.ntp), at));
            }
        }
    }

    /// RTCP of a viewer, after SRTCP or from QUIC.
    pub(crate) fn handle_viewer_rtcp(&mut self, index: usize, now: Instant, bytes: &[u8]) {
        let at = self.micros(now);
        let middle = ntp_middle(wall_now().to_ntp());
        let mut wants_key = false;
        for part in Compound::new(bytes) {
            match part {
                Rtcp::ReceiverReport(_, blocks) | Rtcp::SenderReport(_, blocks) => {
                    for block in blocks {
                        self.note_report(index, &block, middle);
                    }
                }
                Rtcp::KeyFrameRequest { .. } => wants_key = true,
                Rtcp::Nack { media, lost } if self.is_media_of(index, media) => self.repair(index, now, lost),
                _ => {}
            }
        }
        let feed_index = self.legs.get(index).map(|l| l.feed);
        if let Some(feed_index) = feed_index.filter(|_| wants_key) {
            if let Some(f) = self.feeds.get_mut(feed_index) {
                f.feed.handle_key_frame_request();
            }
            self.ask_key_frame(feed_index, at);
        }
    }

    fn is_media_of(&self, index: usize, ssrc: Ssrc) -> bool {
        matches!(self.legs.get(index), Some(LegEntry { way: Way::Webrtc(w), .. }) if w.ssrc == ssrc)
    }

    fn note_report(&mut self, index: usize, block: &ReportBlock, now_middle: u32) {
        let Some(leg) = self.legs.get_mut(index) else { return };
        if let Way::Webrtc(w) = &leg.way
            && w.ssrc != block.ssrc
        {
            return;
        }
        let v = &mut leg.viewer;
        v.fraction_lost = block.fraction_lost;
        v.cumulative_lost = block.cumulative_lost;
        v.jitter = block.jitter;
        v.round_trip_us = block.round_trip_us(now_middle).or(v.round_trip_us);
    }

    /// Asks the publisher for a key frame where one is wanted and the budget allows it.
    pub(crate) fn ask_key_frame(&mut self, index: usize, at: Micros) {
        let Some(entry) = self.feeds.get_mut(index) else { return };
        if entry.publisher.is_none() {
            return;
        }
        if let Some(media) = entry.feed.poll_key_frame_request(at) {
            let from = entry.receiver_ssrc;
            let bytes = Builder::default().receiver_report(from, None).pli(from, media).finish();
            send_upstream(entry, &bytes);
        }
    }

    /// Everything that is due by the clock. In this order: peers' handshakes and consent, reports to viewers, reports
    /// to publishers, feeds that went silent.
    pub(crate) fn tick(&mut self, now: Instant) {
        let at = self.micros(now);
        self.tell_untold();
        let legs: Vec<usize> = self.legs.iter().map(|(i, _)| i).collect();
        for index in legs {
            if let Some(LegEntry { way: Way::Webrtc(way), .. }) = self.legs.get_mut(index) {
                way.transport.handle_timeout(now);
                self.drain_transport(index, now);
            }
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
            self.report_to_publisher(index, at);
            self.ask_key_frame(index, at);
            let silent = self.feeds.get(index).is_some_and(|f| {
                f.state == FeedState::Live && f.feed.last_arrival().is_some_and(|t| at.since(t) > STALL_US)
            });
            if silent {
                self.set_feed_state(index, FeedState::Stalled);
            }
        }
    }

    fn report_to_viewer(&mut self, index: usize, now: Instant, at: Micros) {
        let Some(leg) = self.legs.get_mut(index) else { return };
        if at.since(leg.last_sr) < REPORT_SPACING_US {
            return;
        }
        leg.last_sr = at;
        let Some((timestamp, arrived)) = leg.leg.last_sent() else { return };
        let Some(FeedEntry { feed, key, .. }) = self.feeds.get(leg.feed) else { return };
        let elapsed = at.since(arrived).saturating_mul(u64::from(feed.clock_rate())) / 1_000_000;
        let counters = leg.leg.counters();
        let ssrc = match &leg.way {
            Way::Webrtc(w) => w.ssrc,
            Way::Roq(_) => feed.highest().map_or(Ssrc(0), |(s, _)| s),
        };
        let report = SenderReport {
            ssrc,
            ntp: wall_now().to_ntp(),
            rtp_time: timestamp.wrapping_add((elapsed & 0xffff_ffff) as u32),
            packets: (counters.packets & 0xffff_ffff) as u32,
            octets: (counters.octets & 0xffff_ffff) as u32,
        };
        let mut bytes = Builder::default().sender_report(&report).cname(ssrc, key.feed.as_str()).finish();
        match &mut leg.way {
            Way::Webrtc(w) => {
                let (Some(keys), Some(to)) = (&mut w.keys, w.transport.egress(now)) else { return };
                let socket = self.listeners.get(w.listener).map(|l| &l.webrtc);
                if let (Ok(()), Some(socket)) = (keys.send.seal_rtcp(&mut bytes), socket) {
                    // Loss policy: a report that the socket does not take is not sent; the next one follows in a second.
                    let _ = socket.send(to, &bytes);
                }
            }
            Way::Roq(w) => {
                if let Some(c) = &w.connection {
                    let _ = c.send_datagram([w.rtcp_prefix.as_bytes(), &bytes].concat().into());
                }
            }
        }
    }

    fn report_to_publisher(&mut self, index: usize, at: Micros) {
        let Some(entry) = self.feeds.get_mut(index) else { return };
        if entry.publisher.is_none() || at.since(entry.last_report) < REPORT_SPACING_US {
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
        let bytes = Builder::default().receiver_report(entry.receiver_ssrc, Some(&block)).finish();
        send_upstream(entry, &bytes);
    }
}

/// RTCP to the publisher. Loss policy: what the connection does not take is not sent; reports and requests come again.
fn send_upstream(entry: &FeedEntry, rtcp: &[u8]) {
    let Some(prefix) = trocar_proto::media::roq::FlowPrefix::new(entry.rtcp_flow) else { return };
    if let Some(c) = &entry.publisher {
        let _ = c.send_datagram(Bytes::from([prefix.as_bytes(), rtcp].concat()));
    }
}
