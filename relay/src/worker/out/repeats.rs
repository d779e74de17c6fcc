//! Packets that go to a browser again, by RTX: what it asked for, and what its feedback shows to be missing though no question came.

use super::Ways;
use super::packet::{OVERHEAD, Outgoing, Takes, What, push};
use crate::worker::peer::{RECENT_REPEATS, WebrtcWay};
use crate::worker::state::{Core, FeedEntry, LegEntry, Way};
use std::time::{Duration, Instant};
use trocar_proto::media::rtp::HeaderFields;
use trocar_proto::media::twcc::Feedback;
use trocar_proto::units::{Micros, SeqNo};

/// Packets of one question that go twice. Loss policy: those beyond go once.
const TWICE: usize = 32;

/// Why packets go again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// By NACK.
    Asked,
    /// By transport-wide feedback: the question was lost, or is yet to come.
    Missed,
}

/// What became of a packet that is to go again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Sent,
    /// It is no longer stored.
    Gone,
    /// The leg's budget for repeats is used up.
    Refused,
}

impl Core {
    /// Sends packets again that a browser lost, each at most once a round trip.
    pub(crate) fn repair(&mut self, index: usize, now: Instant, lost: impl Iterator<Item = u16>) {
        // A NACK packet names at most a few hundred numbers; more than a window's worth is not looked at.
        self.repeat(index, now, Why::Asked, lost.take(RECENT_REPEATS));
    }

    /// A viewer tells when packets of its connection came. What is missing goes again where nobody asked for it: the question
    /// is lost as easily as the packet, and a browser asks again only after what it takes for a round trip, 100 ms where it
    /// knows none.
    pub(in crate::worker) fn handle_line_feedback(&mut self, peer: usize, at: Micros, feedback: &Feedback) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let line = entry.line.get_mut();
        line.handle_feedback(at, feedback);
        let missed = line.missed(feedback);
        let now = self.origin + Duration::from_micros(at.0);
        for (ssrc, seq) in missed.into_iter().flatten() {
            let is_it = |id: &usize| self.legs.get(*id).and_then(LegEntry::webrtc).is_some_and(|w| w.ssrc == ssrc);
            if let Some(leg) = self.peers.get(peer).and_then(|p| p.legs.iter().copied().find(is_it)) {
                self.repeat(leg, now, Why::Missed, std::iter::once(seq));
            }
        }
    }

    /// Each packet goes twice: the answer is lost as easily as the packet was, and what is lost again comes too late.
    fn repeat(&mut self, index: usize, now: Instant, why: Why, lost: impl Iterator<Item = u16>) {
        let at = self.micros(now);
        let Self { feeds, legs, peers, listeners, tcp_out, batch, .. } = self;
        let Some(LegEntry { leg, way: Way::Webrtc(way), sent, feed, viewer, .. }) = legs.get_mut(index) else { return };
        let Some(FeedEntry { feed, descriptor, .. }) = feed.and_then(|f| feeds.get(f)) else { return };
        let ways = Ways { peers, listeners, tcp_out };
        let (Some(outlet), Some(line)) = (ways.of(way.peer, now), ways.line(way.peer)) else { return };
        let Ok(mut line) = line.try_borrow_mut() else { return };
        let Some(payload_type) = way.rtx_payload_type else { return };
        let feed_count = leg.feed_count();
        let WebrtcWay {
            streams,
            recent_repeats,
            next_rtx,
            rtx_ssrc,
            repair,
            ext,
            mid,
            clock_offset,
            flex,
            renumber,
            pictures,
            ..
        } = &mut **way;
        let Some(streams) = streams else { return };
        let what = What { ext: *ext, mid, clock_offset: *clock_offset, stored: feed.extensions(), feed_count };
        let spacing = viewer.round_trip_us.unwrap_or(10_000).clamp(5_000, 200_000);
        let budget_us = u64::from(descriptor.budget_ms) * 1_000;
        let mut twice: [Option<(u16, u64, HeaderFields)>; TWICE] = [None; TWICE];
        let mut room = twice.iter_mut();
        batch.clear();
        let mut send = |(seq, stored, header): (u16, u64, HeaderFields)| {
            let Some((info, packet)) = feed.ring().get(stored) else { return Again::Gone };
            if !repair.take(at, packet.len() as u64) {
                sent.unrepaired += 1;
                return Again::Refused;
            }
            let header = HeaderFields { payload_type, seq: next_rtx.low16(), ssrc: *rtx_ssrc, ..header };
            let number = *next_rtx;
            *next_rtx = SeqNo(number.0 + 1);
            let o = Outgoing { header, number, info, packet, osn: Some(seq.to_be_bytes()), what };
            // Repeats do not wait for the pace, what comes after them does.
            let _ = line.take(at, u32::from(info.payload_len) + OVERHEAD);
            let (renumber, pictures) = (renumber.as_deref_mut(), pictures.as_mut());
            let takes = Takes { line: &mut line, now: at, renumber, pictures };
            push(batch, outlet, sent, &mut streams.rtx, takes, &o, |_| {});
            Again::Sent
        };
        for seq in lost {
            let Some(recent) = recent_repeats.get_mut(usize::from(seq) % RECENT_REPEATS) else { continue };
            let went_again = recent.0 == seq && recent.1 != Micros(0);
            if went_again && (why == Why::Missed || at.since(recent.1) < spacing) {
                continue;
            }
            if why == Why::Asked {
                flex.iter_mut().for_each(|f| f.note_lost(seq));
            }
            let Some((stored, header, _)) = leg.handle_nack(feed, seq) else { continue };
            let is_old =
                |(info, _): (&trocar_proto::media::ring::PacketInfo, &[u8])| at.since(info.arrived) > budget_us;
            if why == Why::Missed && feed.ring().get(stored).is_none_or(is_old) {
                continue;
            }
            match send((seq, stored, header)) {
                Again::Sent => {
                    *recent = (seq, at);
                    room.next().into_iter().for_each(|slot| *slot = Some((seq, stored, header)));
                }
                Again::Gone => {}
                // Whoever asks for all of it, over and over, takes no time from the others: the rest is not looked up.
                Again::Refused => break,
            }
        }
        // Behind the others, so that a burst of losses is less likely to take both.
        for packet in twice.into_iter().flatten() {
            if send(packet) == Again::Refused {
                break;
            }
        }
        sent.note_repeats(batch.flush(outlet));
    }
}
