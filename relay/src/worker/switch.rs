//! A leg that goes on with another feed of the same source: another view, or another simulcast layer. What it carries goes
//! on until the other feed brings a key frame, so that the viewer sees no gap and nothing that it cannot decode.

use super::cross::Image;
use super::peer::Part;
use super::state::{Core, Resource};
use crate::webrtc::codec::choose_for_viewer;
use crate::webrtc::sdp::Media;
use std::time::Instant;
use trocar_proto::media::feed::SWITCH_FROM_CACHE_US;
use trocar_proto::session::admission::{AdmitError, FeedKey, RelayEvent};
use trocar_proto::session::ids::LegId;
use trocar_proto::units::Micros;

/// A leg that waits for a key frame of another feed.
pub(crate) struct Switching {
    leg: usize,
    /// Names of both: indexes are given again.
    id: LegId,
    to: FeedKey,
    asked: Micros,
}

impl Core {
    /// A WebRTC leg carries that feed from its next key frame on. Asking again changes what it waits for.
    /// `images` says where it lives, where that is another worker.
    pub(crate) fn switch_leg(
        &mut self,
        id: &LegId,
        to: &FeedKey,
        images: Vec<Image>,
        now: Instant,
    ) -> Result<(), AdmitError> {
        let at = self.micros(now);
        let index = self.primary_leg(id)?;
        self.admit_mirrors(images);
        let target = self.find_feed(to)?;
        self.check_switch(index, target)?;
        // What it carries goes on until the other one comes: the larger of both has to fit.
        self.raise_place(index, target)?;
        self.switching.retain(|s| s.leg != index);
        if self.legs.get(index).is_some_and(|l| l.feed == Some(target)) {
            self.settle_place(index);
            self.tell(RelayEvent::Switched { leg: id.clone(), feed: to.clone() });
            return Ok(());
        }
        // One for each leg at most.
        self.switching.push(Switching { leg: index, id: id.clone(), to: to.clone(), asked: at });
        if let Some(f) = self.feeds.get_mut(target) {
            f.feed.handle_key_frame_request();
        }
        self.ask_key_frame(target, now, at);
        Ok(())
    }

    /// What a leg of WHEP is there for.
    fn primary_leg(&self, id: &LegId) -> Result<usize, AdmitError> {
        let peer = match self.leg_by_id.get(id) {
            Some(Resource::Peer(peer)) => self.peers.get(*peer).ok_or(AdmitError::NoSuchLeg)?,
            Some(Resource::Leg(_)) => {
                let detail = "a leg by RTP over QUIC carries one feed: open another leg for the other one";
                return Err(refused(detail.to_owned()));
            }
            None => return Err(AdmitError::NoSuchLeg),
        };
        let primary = |i: &usize| self.legs.get(*i).and_then(|l| l.webrtc()).is_some_and(|w| w.part == Part::Primary);
        let detail = "a leg that carries voices has no feed of its own: the relay chooses the voices";
        peer.legs.iter().copied().find(primary).ok_or_else(|| refused(detail.to_owned()))
    }

    /// The viewer agreed to one payload format, and its sound belongs to one source.
    fn check_switch(&self, leg: usize, target: usize) -> Result<(), AdmitError> {
        let leg = self.legs.get(leg).ok_or(AdmitError::NoSuchLeg)?;
        let way = leg.webrtc().ok_or(AdmitError::NoSuchLeg)?;
        let shown = leg.feed.and_then(|f| self.feeds.get(f)).ok_or(AdmitError::NoSuchFeed)?;
        let wanted = self.feeds.get(target).ok_or(AdmitError::NoSuchFeed)?;
        let (a, b) = (&shown.descriptor, &wanted.descriptor);
        if shown.key.session != wanted.key.session || (a.kind, &a.source) != (b.kind, &b.source) {
            return Err(refused(format!(
                "feed {} is {:?} of source {}; a leg goes on with another view of its own source, which is {}",
                b.feed, b.kind, b.source, a.source
            )));
        }
        let agreed = Media { codecs: vec![way.codec.clone()], ..Media::default() };
        if choose_for_viewer(&agreed, &b.codec, &b.fmtp, b.clock_rate).is_none() {
            let (name, fmtp) = (&way.codec.name, &way.codec.fmtp);
            return Err(refused(format!(
                "feed {} is {} ({}); the leg was opened for {name} ({fmtp}): open another leg",
                b.feed, b.codec, b.fmtp
            )));
        }
        Ok(())
    }

    /// Lets the legs go on with a feed that wait for its key frame, where one has come since they were asked to.
    pub(super) fn complete_switches(&mut self, feed: usize, now: Instant) {
        if self.switching.is_empty() {
            return;
        }
        let at = self.micros(now);
        let Some(entry) = self.feeds.get(feed) else { return };
        let Some((first, _)) = entry.feed.join_point(at, SWITCH_FROM_CACHE_US).and_then(|i| entry.feed.ring().get(i))
        else {
            return;
        };
        let (arrived, key) = (first.arrived, entry.key.clone());
        let (ready, waiting) =
            std::mem::take(&mut self.switching).into_iter().partition(|s| s.to == key && arrived >= s.asked);
        self.switching = waiting;
        for Switching { leg, id, to, .. } in ready {
            if self.give_feed(leg, &id, feed, at) {
                self.settle_place(leg);
                self.tell(RelayEvent::Switched { leg: id, feed: to });
            }
        }
    }

    fn give_feed(&mut self, index: usize, id: &LegId, feed: usize, at: Micros) -> bool {
        let Some(leg) = self.legs.get_mut(index).filter(|l| l.id == *id) else { return false };
        let Some(entry) = self.feeds.get_mut(feed) else { return false };
        leg.leg.switch(&entry.feed, at);
        let before = leg.feed.replace(feed);
        entry.legs.push(index);
        if let Some(before) = before.filter(|b| *b != feed).and_then(|b| self.feeds.get_mut(b)) {
            before.legs.retain(|l| *l != index);
        }
        true
    }

    /// Whether a leg waits for a key frame of that feed.
    pub(in crate::worker) fn is_awaited(&self, feed: &FeedKey) -> bool {
        self.switching.iter().any(|s| s.to == *feed)
    }

    /// Forgets what waits for a feed that has ended, or for a leg that has.
    pub(super) fn forget_switches(&mut self) {
        let Self { switching, legs, feed_by_key, .. } = self;
        let mut stay = Vec::new();
        switching.retain(|s| {
            let is_there = legs.get(s.leg).is_some_and(|l| l.id == s.id);
            let comes = feed_by_key.contains_key(&s.to);
            if is_there && !comes {
                stay.push(s.leg);
            }
            is_there && comes
        });
        stay.into_iter().for_each(|leg| self.settle_place(leg));
    }
}

fn refused(detail: String) -> AdmitError {
    AdmitError::NotAcceptable { detail, alternatives: Vec::new() }
}
