//! Opening and closing of feeds and native legs, as signaling asks for it, and the states that it is told of. What
//! signaling asks for browsers is in `negotiate`.

use super::native::{RoqWay, RoqWayConfig};
use super::peer::Part;
use super::police::FeedPolice;
use super::repair;
use super::state::{Core, FeedEntry, Flow, LegEntry, Origin, ReportedLoss, Resource, Way, random_u32, wall_now};
use super::voices::SessionVoices;
use crate::metrics::DelayHistogram;
use std::time::Instant;
use trocar_proto::media::codec::Codec;
use trocar_proto::media::ext::{
    ABS_CAPTURE_TIME_URI, AUDIO_LEVEL_URI, DEPENDENCY_DESCRIPTOR_URI, ExtensionIds, FRAME_URI,
};
use trocar_proto::media::feed::{Feed, FeedConfig};
use trocar_proto::media::ingest::{Ingest, IngestConfig};
use trocar_proto::media::leg::{Leg, Numbering};
use trocar_proto::media::lipsync::SourceClock;
use trocar_proto::media::ring::Ring;
use trocar_proto::media::roq::FlowPrefix;
use trocar_proto::media::rtcp::Builder;
use trocar_proto::session::admission::{
    AdmitError, CHOSEN_FLOWS, FeedGrant, FeedKey, FlowBinding, LegGrant, RelayEvent,
};
use trocar_proto::session::api::FeedState;
use trocar_proto::session::event::LegState;
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Purpose};
use trocar_proto::session::ids::{CertHash, LegId, ParticipantId, RealmId};
use trocar_proto::units::{FlowId, Micros, Ssrc};

/// Bytes of a ring slot: our publishers make packets of at most 1,120 bytes, foreign ones of at most one Ethernet frame.
const SLOT_SIZE: usize = 2_048;

/// What native viewers are told when a feed is over (RFC 3550 section 6.6): a compound packet begins with a report.
fn goodbye_from(ssrc: Ssrc, key: &FeedKey) -> Vec<u8> {
    Builder::default().receiver_report(ssrc, None).cname(ssrc, key.feed.as_str()).bye(&[ssrc]).finish()
}

impl Core {
    pub(crate) fn listener_of(&self, realm: &RealmId) -> Result<usize, AdmitError> {
        self.listeners.iter().position(|l| &l.realm == realm).ok_or_else(|| AdmitError::NoSuchRealm(realm.clone()))
    }

    /// The flows that signaling chose, else two that are free.
    fn flows_for(&mut self, chosen: Option<(FlowId, FlowId)>) -> Result<(FlowId, FlowId), AdmitError> {
        let Some((rtp, rtcp)) = chosen else { return Ok(self.new_flows()) };
        let is_free = |flow: FlowId| CHOSEN_FLOWS.contains(&flow.0) && !self.flows.contains_key(&flow);
        if rtp != rtcp && is_free(rtp) && is_free(rtcp) {
            return Ok((rtp, rtcp));
        }
        Err(AdmitError::Full("the flows that signaling chose are in use".to_owned()))
    }

    pub(super) fn new_flows(&mut self) -> (FlowId, FlowId) {
        let rtp = self.next_flow;
        self.next_flow += self.flow_step;
        (FlowId(rtp), FlowId(rtp + 1))
    }

    fn binding(&self, listener: usize, rtp: FlowId, rtcp: FlowId) -> Result<FlowBinding, AdmitError> {
        let l = self.listeners.get(listener).ok_or(AdmitError::Unavailable)?;
        Ok(FlowBinding {
            relay: l.quic_address.clone(),
            relay_alternates: l.quic_alternates.clone(),
            also: Vec::new(),
            server_name: l.server_name.clone(),
            rtp_flow_id: rtp,
            rtcp_flow_id: rtcp,
        })
    }

    /// A publisher may send.
    pub(crate) fn open_feed(&mut self, grant: FeedGrant) -> Result<FlowBinding, AdmitError> {
        let listener = self.listener_of(&grant.realm)?;
        self.check_feed(&grant.key)?;
        let (rtp_flow, rtcp_flow) = self.flows_for(grant.flows)?;
        // A publisher that marks frames itself is not read beyond its headers: its payload may be encrypted.
        let foreign = grant.descriptor.extension_id(FRAME_URI).is_none();
        let ingest = foreign.then(|| {
            Ingest::new(IngestConfig {
                codec: Codec::from_encoding_name(&grant.descriptor.codec),
                payload_type: grant.descriptor.payload_type,
                abs_capture_time: grant.descriptor.extension_id(ABS_CAPTURE_TIME_URI).unwrap_or(0),
                audio_level: grant.descriptor.extension_id(AUDIO_LEVEL_URI).unwrap_or(0),
                dependency_descriptor: grant.descriptor.extension_id(DEPENDENCY_DESCRIPTOR_URI).unwrap_or(0),
            })
        });
        let (key, cnf) = (grant.key, grant.cnf);
        let level_id = grant.descriptor.extension_id(AUDIO_LEVEL_URI).unwrap_or(0);
        let origin = Origin::Roq { rtp_flow, rtcp_flow, paths: Box::default() };
        let mut descriptor = grant.descriptor;
        if foreign {
            // What ingest writes is marked by the ids of the house, and viewers are told so.
            let ours =
                [(FRAME_URI, ExtensionIds::OURS.frame), (ABS_CAPTURE_TIME_URI, ExtensionIds::OURS.abs_capture_time)];
            let kept = [
                (AUDIO_LEVEL_URI, ExtensionIds::OURS.audio_level),
                (DEPENDENCY_DESCRIPTOR_URI, ExtensionIds::OURS.dependency_descriptor),
            ];
            let kept = kept.into_iter().filter(|(uri, _)| descriptor.extension_id(uri).is_some());
            let all = ours.into_iter().chain(kept).map(|(uri, id)| (uri.to_owned(), id));
            descriptor.header_extensions = all.collect();
            self.tell(RelayEvent::Descriptor { key: key.clone(), descriptor: descriptor.clone() });
        }
        let index = self.insert_feed(key, grant.publisher, descriptor, origin, ingest);
        if let Some(entry) = self.feeds.get_mut(index) {
            entry.level_id = level_id;
        }
        self.flows.insert(rtp_flow, (cnf, Flow::FeedRtp(index)));
        self.flows.insert(rtcp_flow, (cnf, Flow::FeedRtcp(index)));
        self.binding(listener, rtp_flow, rtcp_flow)
    }

    /// Whether a feed of that name can be opened.
    pub(crate) fn check_feed(&self, key: &FeedKey) -> Result<(), AdmitError> {
        if self.feed_by_key.contains_key(key) {
            return Err(AdmitError::FeedExists);
        }
        let own = self.feeds.iter().filter(|(_, f)| !matches!(f.origin, Origin::Mirror { .. })).count();
        if own >= self.limits.max_feeds {
            return Err(AdmitError::Full(format!("{own} feeds are open")));
        }
        Ok(())
    }

    /// Takes a feed in, with nothing in it.
    pub(crate) fn insert_feed(
        &mut self,
        key: FeedKey,
        publisher: ParticipantId,
        descriptor: FeedDescriptor,
        origin: Origin,
        ingest: Option<Ingest>,
    ) -> usize {
        let d = &descriptor;
        let given = |uri| d.extension_id(uri).unwrap_or(0);
        let marked = ExtensionIds {
            frame: given(FRAME_URI),
            abs_capture_time: given(ABS_CAPTURE_TIME_URI),
            audio_level: given(AUDIO_LEVEL_URI),
            dependency_descriptor: given(DEPENDENCY_DESCRIPTOR_URI),
        };
        let config = FeedConfig {
            clock_rate: d.clock_rate,
            payload_type: d.payload_type,
            // What ingest writes is marked by the ids of the house.
            extensions: if ingest.is_some() { ExtensionIds::OURS } else { marked },
            slots: Ring::slots_for(d.max_bitrate.0),
            slot_size: SLOT_SIZE,
        };
        // A place for a voice is Opus at its listener: anything else would be played as noise.
        let is_opus = d.codec.eq_ignore_ascii_case("opus") && d.clock_rate == 48_000;
        let is_voice = is_opus && d.kind == MediaKind::Audio && d.purpose == Purpose::Voice;
        // Voices are given out where they live.
        let is_voice = is_voice && !matches!(origin, Origin::Mirror { .. });
        let session = key.session.clone();
        let police = FeedPolice::new(descriptor.max_bitrate);
        let repair = repair::of_feed(&descriptor, &origin, ingest.is_some());
        let index = self.feeds.insert(FeedEntry {
            key: key.clone(),
            descriptor,
            publisher,
            origin,
            ingest,
            level_id: 0,
            feed: Feed::new(config),
            legs: Vec::new(),
            mirrors: Vec::new(),
            state: FeedState::Waiting,
            delay: DelayHistogram::default(),
            last_sr: None,
            clock: SourceClock::default(),
            last_report: Micros(0),
            frame_end: None,
            last_news: Micros(0),
            reported: ReportedLoss::default(),
            receiver_ssrc: Ssrc(random_u32()),
            police,
            repair,
        });
        self.feed_by_key.insert(key, index);
        if is_voice {
            self.voices.entry(session).or_insert_with(SessionVoices::new).add_voice(index);
        }
        index
    }

    /// A feed ends, and what shows it ends with it. A connection that publishes goes on with its other feed.
    pub(crate) fn close_feed(&mut self, key: &FeedKey) {
        let Some(index) = self.feed_by_key.remove(key) else { return };
        let Some(entry) = self.feeds.get(index) else { return };
        let goodbye = entry.feed.highest().map(|(ssrc, _)| goodbye_from(ssrc, key));
        for leg in entry.legs.clone() {
            if let (Some(Way::Roq(way)), Some(goodbye)) = (self.legs.get(leg).map(|l| &l.way), &goodbye) {
                way.send_rtcp(goodbye);
            }
            self.lose_feed(leg);
        }
        self.forget_voice(index);
        let Some(entry) = self.feeds.try_remove(index) else { return };
        self.close_mirrors(key, &entry.mirrors);
        self.cascades.forget(index);
        match entry.origin {
            Origin::Mirror { home, serial } => self.end_at_home(&entry, home, serial),
            Origin::Roq { rtp_flow, rtcp_flow, .. } => {
                self.flows.remove(&rtp_flow);
                self.flows.remove(&rtcp_flow);
            }
            Origin::Webrtc { peer, .. } => {
                let tracks = self.peers.get_mut(peer).map(|p| p.tracks.iter_mut()).into_iter().flatten();
                tracks.filter(|t| t.feed == Some(index)).for_each(|t| t.feed = None);
            }
        }
    }

    /// The feed of a leg is gone.
    fn lose_feed(&mut self, index: usize) {
        let Some(leg) = self.legs.get_mut(index) else { return };
        let Some((peer, part)) = leg.webrtc().map(|w| (w.peer, w.part)) else { return self.drop_leg(index) };
        match part {
            Part::Voice => leg.feed = None,
            Part::Primary => self.drop_peer(peer),
            Part::Companion => {
                self.legs.try_remove(index);
                if let Some(p) = self.peers.get_mut(peer) {
                    p.legs.retain(|l| *l != index);
                }
            }
        }
    }

    /// A native viewer may fetch.
    pub(crate) fn open_roq_leg(
        &mut self,
        grant: LegGrant,
        cnf: CertHash,
        now: Instant,
    ) -> Result<FlowBinding, AdmitError> {
        let listener = self.listener_of(&grant.realm)?;
        let feed_index = self.find_feed(&grant.feed)?;
        self.check_room(1)?;
        let (rtp_flow, rtcp_flow) = self.flows_for(grant.flows)?;
        let prefix = FlowPrefix::new(rtp_flow).ok_or(AdmitError::Unavailable)?;
        let rtcp_prefix = FlowPrefix::new(rtcp_flow).ok_or(AdmitError::Unavailable)?;
        let d = self.feeds.get(feed_index).map(|f| &f.descriptor).ok_or(AdmitError::NoSuchFeed)?;
        let way = Way::Roq(RoqWay::new(RoqWayConfig {
            cnf,
            rtcp_flow,
            prefix,
            rtcp_prefix,
            asked: grant.roq,
            feed: d.clone(),
        }));
        let repair = repair::of_leg(d, grant.roq.mode);
        // Last: others may have to go for it, and nothing is refused any more after that.
        self.admit_leg(listener, &grant.leg, &[feed_index])?;
        let index = self.insert_leg(&grant.leg, feed_index, Numbering::Verbatim, way, now)?;
        if let Some(leg) = self.legs.get_mut(index) {
            leg.repair = repair;
        }
        self.leg_by_id.insert(grant.leg, Resource::Leg(index));
        self.flows.insert(rtcp_flow, (cnf, Flow::LegRtcp(index)));
        self.binding(listener, rtp_flow, rtcp_flow)
    }

    /// A leg ends, and the connection that it is.
    pub(crate) fn close_leg(&mut self, id: &LegId) {
        match self.leg_by_id.get(id).copied() {
            Some(Resource::Leg(index)) => self.drop_leg(index),
            Some(Resource::Peer(index)) => self.drop_peer(index),
            None => {}
        }
    }

    /// Whether there is room for so many more legs.
    pub(crate) fn check_room(&self, more: usize) -> Result<(), AdmitError> {
        if self.legs.len() + more > self.limits.max_legs {
            return Err(AdmitError::Full(format!("{} legs are open", self.legs.len())));
        }
        Ok(())
    }

    /// The feed of that name.
    pub(crate) fn find_feed(&self, key: &FeedKey) -> Result<usize, AdmitError> {
        self.feed_by_key.get(key).copied().ok_or(AdmitError::NoSuchFeed)
    }

    /// Takes a leg in.
    pub(crate) fn insert_leg(
        &mut self,
        id: &LegId,
        feed_index: usize,
        numbering: Numbering,
        way: Way,
        now: Instant,
    ) -> Result<usize, AdmitError> {
        let at = self.micros(now);
        let entry = self.feeds.get_mut(feed_index).ok_or(AdmitError::NoSuchFeed)?;
        let leg = Leg::new(numbering, &entry.feed, at);
        let index = self.legs.insert(LegEntry::new(id.clone(), Some(feed_index), leg, way, at));
        entry.legs.push(index);
        Ok(index)
    }

    /// Removes a native leg and everything that leads to it.
    pub(crate) fn drop_leg(&mut self, index: usize) {
        let Some(leg) = self.legs.try_remove(index) else { return };
        if let Some(feed) = leg.feed.and_then(|f| self.feeds.get_mut(f)) {
            feed.legs.retain(|l| *l != index);
        }
        if let Way::Roq(way) = leg.way {
            self.flows.remove(&way.rtcp_flow);
        }
        self.leg_by_id.remove(&leg.id);
        self.tell(RelayEvent::Leg { leg: leg.id, state: LegState::Closed });
    }

    /// Puts a feed into a state and says so.
    pub(crate) fn set_feed_state(&mut self, index: usize, state: FeedState) {
        let Some(f) = self.feeds.get_mut(index).filter(|f| f.state != state) else { return };
        f.state = state;
        let key = f.key.clone();
        self.tell(RelayEvent::FeedState { key, state, since: wall_now() });
    }

    /// Puts a native leg into a state and says so.
    pub(crate) fn set_leg_state(&mut self, index: usize, state: LegState) {
        let Some(l) = self.legs.get_mut(index).filter(|l| l.state != state) else { return };
        l.state = state;
        let leg = l.id.clone();
        self.tell(RelayEvent::Leg { leg, state });
    }
}
