//! What viewers are told about the clocks of what they see and hear, and that it ends.

use super::control::REPORT_SPACING_US;
use super::state::{Core, FeedEntry, LegEntry, Way, wall_now};
use std::time::Instant;
use trocar_proto::media::rtcp::{Builder, SenderReport};
use trocar_proto::units::{Micros, Ssrc};

/// A mapping that is further than this from what arrival says is no mapping, in seconds: a publisher may report nonsense.
const BELIEVABLE_S: u32 = 2;

impl Core {
    /// The publisher's clock of a feed: ours minus the publisher's, in units of 2^-32 s. Sound and picture of one source have
    /// one clock, of which the quickest report says most.
    fn clock_offset(&self, feed: usize) -> Option<i64> {
        let of = self.feeds.get(feed)?;
        let same = |f: &&FeedEntry| {
            f.key.session == of.key.session
                && f.publisher == of.publisher
                && f.descriptor.source == of.descriptor.source
        };
        self.feeds.iter().map(|(_, f)| f).filter(same).filter_map(|f| f.clock.offset()).min()
    }

    /// Tells a viewer once a second which moment the leg's timestamps mean: by the publisher's reports, where there are any,
    /// so that sound and picture stay as they were captured; else by the arrival of the last packet.
    pub(super) fn report_to_viewer(&mut self, index: usize, now: Instant, at: Micros) {
        let Some(leg) = self.legs.get(index).filter(|l| at.since(l.last_sr) >= REPORT_SPACING_US) else { return };
        let offset = leg.feed.and_then(|f| self.clock_offset(f));
        let Some(leg) = self.legs.get_mut(index) else { return };
        leg.last_sr = at;
        let Some(FeedEntry { feed, key, clock, .. }) = leg.feed.and_then(|f| self.feeds.get(f)) else { return };
        let Some((timestamp, arrived)) = leg.leg.last_sent() else { return };
        let elapsed = at.since(arrived).saturating_mul(u64::from(feed.clock_rate())) / 1_000_000;
        let by_arrival = timestamp.wrapping_add((elapsed & 0xffff_ffff) as u32);
        let ntp = wall_now().to_ntp();
        let mapped = offset.zip(feed.highest()).and_then(|(offset, (ssrc, _))| {
            let theirs = clock.timestamp_at(ssrc, ntp, offset, feed.clock_rate(), at)?;
            let newest = feed.ring().head().checked_sub(1).and_then(|i| feed.ring().get(i)).map(|(info, _)| info)?;
            // Native legs have the publisher's own timestamps.
            let moved = match leg.way {
                Way::Webrtc(_) => leg.leg.timestamp_on_leg(newest)?.wrapping_sub(newest.timestamp),
                Way::Roq(_) => 0,
            };
            Some(theirs.wrapping_add(moved))
        });
        let limit = feed.clock_rate().saturating_mul(BELIEVABLE_S);
        let believable = |t: &u32| t.wrapping_sub(by_arrival).wrapping_add(limit) <= 2 * limit;
        let ssrc = match &mut leg.way {
            Way::Webrtc(w) => {
                w.clock_offset = offset.map(i64::wrapping_neg);
                w.ssrc
            }
            Way::Roq(_) => feed.highest().map_or(Ssrc(0), |(s, _)| s),
        };
        let counters = leg.leg.counters();
        let report = SenderReport {
            ssrc,
            ntp,
            rtp_time: mapped.filter(believable).unwrap_or(by_arrival),
            packets: (counters.packets & 0xffff_ffff) as u32,
            octets: (counters.octets & 0xffff_ffff) as u32,
        };
        let name = match &leg.way {
            Way::Webrtc(w) => self.peers.get(w.peer).map_or("", |p| p.cname.as_str()),
            Way::Roq(_) => key.feed.as_str(),
        };
        let bytes = Builder::default().sender_report(&report).cname(ssrc, name).finish();
        self.send_to_viewer(index, now, bytes);
    }

    /// RTCP to the viewer of a leg.
    fn send_to_viewer(&mut self, index: usize, now: Instant, rtcp: Vec<u8>) {
        match self.legs.get(index).map(|l| &l.way) {
            Some(Way::Webrtc(w)) => {
                let peer = w.peer;
                self.send_to_peer(peer, now, rtcp);
            }
            Some(Way::Roq(w)) => w.send_rtcp(&rtcp),
            None => {}
        }
    }

    /// Says that the sources of a WebRTC connection leave, before it goes.
    pub(super) fn say_goodbye(&mut self, peer: usize, now: Instant) {
        let Some(p) = self.peers.get(peer) else { return };
        let ways = p.legs.iter().filter_map(|id| self.legs.get(*id)).filter_map(LegEntry::webrtc);
        let gone: Vec<Ssrc> = ways.flat_map(|w| [w.ssrc, w.rtx_ssrc]).collect();
        let Some(first) = gone.first().copied() else { return };
        let head = Builder::default().receiver_report(first, None).cname(first, &p.cname);
        // One packet names at most 31 sources.
        let bytes = gone.chunks(31).fold(head, Builder::bye).finish();
        self.send_to_peer(peer, now, bytes);
    }
}
