//! Feeds: announced, bound to a certificate, with what the relay says about their packets.

use super::{ClockReport, Closing, Live, Session};
use crate::error::SessionError;
use crate::webhooks::Happening;
use std::collections::BTreeMap;
use trocar_proto::session::admission::{FeedGrant, FeedKey, FeedOutline, FlowBinding};
use trocar_proto::session::api::{FeedInfo, FeedPaths, FeedState, RoqBinding};
use trocar_proto::session::event::{LegState, ServerEvent};
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Purpose, Transport};
use trocar_proto::session::ids::{CertHash, FeedId, ParticipantId, PublicationId, SessionId};
use trocar_proto::session::remote::{FeedHeld, FeedOrigin};
use trocar_proto::units::{Micros, WallMicros};

/// How far a publisher's clock has to have moved at least before viewers are told, in microseconds: clocks drift by some
/// 30 µs a second, a report comes each second, and nobody sees half a millisecond in the age of a picture.
const OFFSET_STEP_US: u64 = 500;

/// One published thing.
#[derive(Debug)]
pub(super) struct Feed {
    serial: u64,
    /// The descriptor as it was asked for: a publisher that comes back with the same one gets the same feed.
    asked: FeedDescriptor,
    info: FeedInfo,
    way: Way,
}

/// How a feed comes in.
#[derive(Debug)]
enum Way {
    /// RTP over QUIC, on connections that show the certificate. No flows while the relay is being asked.
    Roq { cnf: CertHash, binding: Option<FlowBinding> },
    /// With a publication (WHIP).
    Whip { publication: PublicationId, is_open: bool },
}

impl Feed {
    /// A feed that a publication is to bring; its descriptor says only what is settled before the relay has read the SDP.
    pub(super) fn reserved_for(
        (serial, wall): (u64, WallMicros),
        publisher: &ParticipantId,
        clock: Option<ClockReport>,
        publication: PublicationId,
        (kind, outline): (MediaKind, &FeedOutline),
    ) -> Self {
        let descriptor = sketch(kind, outline);
        let info = FeedInfo {
            descriptor: descriptor.clone(),
            publisher: publisher.clone(),
            state: FeedState::Waiting,
            since: wall,
            paths: None,
            clock_offset_us: clock.map(|c| c.offset_us),
            clock_uncertainty_us: clock.map(|c| c.uncertainty_us),
        };
        Self { serial, asked: descriptor, info, way: Way::Whip { publication, is_open: false } }
    }

    /// One that a relay has kept while signaling was away.
    pub(super) fn adopted(serial: u64, clock: Option<ClockReport>, held: FeedHeld) -> Self {
        let mut descriptor = held.descriptor;
        let (asked, way) = match held.origin {
            FeedOrigin::Roq { grant, binding } => {
                if let Transport::Roq { rtp_flow_id, rtcp_flow_id, .. } = &mut descriptor.transport {
                    (*rtp_flow_id, *rtcp_flow_id) = (Some(binding.rtp_flow_id), Some(binding.rtcp_flow_id));
                }
                (grant.descriptor, Way::Roq { cnf: grant.cnf, binding: Some(binding) })
            }
            FeedOrigin::Whip { publication } => (descriptor.clone(), Way::Whip { publication, is_open: true }),
        };
        let info = FeedInfo {
            descriptor,
            publisher: held.publisher,
            state: held.state,
            since: held.since,
            paths: None,
            clock_offset_us: clock.map(|c| c.offset_us),
            clock_uncertainty_us: clock.map(|c| c.uncertainty_us),
        };
        Self { serial, asked, info, way }
    }

    /// The relay has opened it for that publication, as described.
    pub(super) fn open_for(&mut self, publication: &PublicationId, descriptor: FeedDescriptor) -> Option<FeedInfo> {
        match &mut self.way {
            Way::Whip { publication: own, is_open } if own == publication => *is_open = true,
            _ => return None,
        }
        self.info.descriptor = descriptor;
        self.announced()
    }

    /// The publication that brings it, where one does.
    pub(super) fn publication(&self) -> Option<&PublicationId> {
        match &self.way {
            Way::Whip { publication, .. } => Some(publication),
            Way::Roq { .. } => None,
        }
    }

    pub(super) fn descriptor(&self) -> &FeedDescriptor {
        &self.info.descriptor
    }

    pub(super) fn publisher(&self) -> &ParticipantId {
        &self.info.publisher
    }

    /// Whether nothing of it has come for the grace period. A shorter standstill is no end: packets are missing for 300 ms
    /// wherever a cable is moved.
    pub(super) fn is_idle(&self, wall: WallMicros, grace_us: u64) -> bool {
        self.info.state != FeedState::Live && wall.0.saturating_sub(self.info.since.0) >= grace_us
    }

    /// Whether it is the other feed's twin: of one participant, of guests of one invitation, or of one device.
    pub(super) fn is_of_one_hand(&self, other: &Self, session: &Session) -> bool {
        let device = |f: &Self| match f.way {
            Way::Roq { cnf, .. } => Some(cnf),
            Way::Whip { .. } => None,
        };
        session.is_one_owner(self.publisher(), other.publisher())
            || device(self).is_some_and(|own| device(other) == Some(own))
    }

    /// Whether the relay's word is about this feed. One that has ended may still be spoken of when another has got its name:
    /// what no feed changes has to fit.
    fn is_described_by(&self, told: &FeedDescriptor) -> bool {
        let known = &self.info.descriptor;
        let is_webrtc = |d: &FeedDescriptor| d.transport == Transport::Webrtc;
        // What a publication brings is described by the relay's answer first.
        let is_asked = self.is_committed() || !is_webrtc(known);
        is_asked
            && is_webrtc(known) == is_webrtc(told)
            && known.kind == told.kind
            && known.codec.eq_ignore_ascii_case(&told.codec)
            && (known.clock_rate, known.payload_type) == (told.clock_rate, told.payload_type)
            && (&known.source, &known.view, known.purpose) == (&told.source, &told.view, told.purpose)
    }

    pub(super) fn is_committed(&self) -> bool {
        match &self.way {
            Way::Roq { binding, .. } => binding.is_some(),
            Way::Whip { is_open, .. } => *is_open,
        }
    }

    /// What others see; none while the relay is being asked.
    pub(super) fn announced(&self) -> Option<FeedInfo> {
        self.is_committed().then(|| self.info.clone())
    }

    /// Notes what the publisher found about its clock; whether it changed enough to tell anybody: an offset that moved
    /// by more than half of the uncertainty that viewers were told, or an uncertainty twice or half as large.
    pub(super) fn set_clock(&mut self, report: ClockReport) -> bool {
        let us = report.uncertainty_us;
        let told = self.info.clock_offset_us.zip(self.info.clock_uncertainty_us);
        let enough = told.is_none_or(|(offset, before)| {
            us > before.saturating_mul(2)
                || us.saturating_mul(2) < before
                || offset.abs_diff(report.offset_us) > (before / 2).max(OFFSET_STEP_US)
        });
        if enough {
            self.info.clock_offset_us = Some(report.offset_us);
            self.info.clock_uncertainty_us = Some(us);
        }
        enough
    }
}

/// What a publisher asks for.
#[derive(Debug, Clone)]
pub(crate) struct FeedOffer {
    pub(crate) session: SessionId,
    pub(crate) publisher: ParticipantId,
    pub(crate) cnf: CertHash,
    pub(crate) descriptor: FeedDescriptor,
}

/// A name that was reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FeedTicket {
    pub(crate) key: FeedKey,
    serial: u64,
}

/// What became of an offer.
#[derive(Debug)]
pub(crate) enum Announced {
    /// The name is reserved: the relay is to close these first, and then to be asked.
    New(FeedTicket, FeedGrant, Vec<Closing>),
    /// The same device has come back for the same feed: it goes on as it was.
    Resumed(RoqBinding),
}

impl Live {
    /// Checks an offer and reserves its name.
    pub(crate) fn reserve_feed(
        &mut self,
        now: Micros,
        wall: WallMicros,
        offer: FeedOffer,
    ) -> Result<Announced, SessionError> {
        let limit = self.limits.feeds_per_session;
        let serial = self.serial();
        let participant = self.participant_mut(&offer.session, &offer.publisher)?;
        // Whoever publishes without an event socket has the grace period from now on to open one (again).
        participant.absent_since = participant.absent_since.map(|_| now);
        let (realm, clock) = (participant.realm.clone(), participant.clock);
        let key = FeedKey { session: offer.session.clone(), feed: offer.descriptor.feed.clone() };
        let mut first = Vec::new();
        if self.session(&key.session)?.feeds.contains_key(&key.feed) {
            let binding = self.may_resume(&key, &offer)?;
            if (offer.descriptor.kind, offer.descriptor.purpose) != (MediaKind::Audio, Purpose::Voice) {
                return self.resume_feed(&key, &offer, &binding).map(Announced::Resumed);
            }
            // The relay knows each voice's owner, to whom it is not sent: it has to be told the new one.
            first = self.remove_feed(&key)?;
        } else {
            self.check_native_bitrate(&key.session, &offer.publisher, offer.descriptor.max_bitrate.0)?;
        }
        let session = self.session_mut(&key.session)?;
        if session.feeds.len() >= limit {
            return Err(SessionError::Full("feeds"));
        }
        let info = FeedInfo {
            descriptor: offer.descriptor.clone(),
            publisher: offer.publisher.clone(),
            state: FeedState::Waiting,
            since: wall,
            paths: None,
            clock_offset_us: clock.map(|c| c.offset_us),
            clock_uncertainty_us: clock.map(|c| c.uncertainty_us),
        };
        let feed =
            Feed { serial, asked: offer.descriptor.clone(), info, way: Way::Roq { cnf: offer.cnf, binding: None } };
        session.feeds.insert(key.feed.clone(), feed);
        let grant = FeedGrant {
            key: key.clone(),
            realm,
            publisher: offer.publisher,
            cnf: offer.cnf,
            descriptor: offer.descriptor,
            flows: None,
        };
        Ok(Announced::New(FeedTicket { key, serial }, grant, first))
    }

    /// Whether the offer is of a new participant that is the same device (the same certificate) with the same descriptor,
    /// and the one that has the feed has no event socket left.
    fn may_resume(&self, key: &FeedKey, offer: &FeedOffer) -> Result<FlowBinding, SessionError> {
        let session = self.session(&key.session)?;
        let feed: &Feed = session.feeds.get(&key.feed).ok_or(SessionError::FeedExists)?;
        let left = session.participants.get(&feed.info.publisher).is_none_or(|p| p.sockets.is_empty());
        match &feed.way {
            Way::Roq { cnf, binding: Some(binding) }
                if left
                    && *cnf == offer.cnf
                    && feed.asked == offer.descriptor
                    && feed.info.publisher != offer.publisher =>
            {
                Ok(binding.clone())
            }
            _ => Err(SessionError::FeedExists),
        }
    }

    /// Hands a picture to the new participant: a publisher that dropped and joined again goes on without a break.
    fn resume_feed(
        &mut self,
        key: &FeedKey,
        offer: &FeedOffer,
        binding: &FlowBinding,
    ) -> Result<RoqBinding, SessionError> {
        let session = self.session_mut(&key.session)?;
        let feed = session.feeds.get_mut(&key.feed).ok_or(SessionError::FeedExists)?;
        let clock = session.participants.get(&offer.publisher).and_then(|p| p.clock);
        feed.info.publisher = offer.publisher.clone();
        feed.info.clock_offset_us = clock.map(|c| c.offset_us);
        feed.info.clock_uncertainty_us = clock.map(|c| c.uncertainty_us);
        let info = feed.info.clone();
        let answer = roq_binding(binding, &info.descriptor);
        self.broadcast(&key.session, &ServerEvent::Feed { feed: info });
        Ok(answer)
    }

    /// The relay has opened the feed: it is announced to everyone. On an error the name stays reserved: the caller has the
    /// relay close the feed, and then abandons it.
    pub(crate) fn commit_feed(
        &mut self,
        ticket: &FeedTicket,
        binding: FlowBinding,
    ) -> Result<RoqBinding, SessionError> {
        let session = self.session_mut(&ticket.key.session)?;
        let feed = session.feeds.get_mut(&ticket.key.feed).filter(|f| f.serial == ticket.serial);
        let feed = feed.ok_or(SessionError::NoFeed)?;
        if !session.participants.contains_key(&feed.info.publisher) {
            return Err(SessionError::ParticipantGone);
        }
        if let Transport::Roq { rtp_flow_id, rtcp_flow_id, .. } = &mut feed.info.descriptor.transport {
            *rtp_flow_id = Some(binding.rtp_flow_id);
            *rtcp_flow_id = Some(binding.rtcp_flow_id);
        }
        let answer = roq_binding(&binding, &feed.info.descriptor);
        if let Way::Roq { binding: given, .. } = &mut feed.way {
            *given = Some(binding);
        }
        let info = feed.info.clone();
        self.announce(&ticket.key.session, info);
        Ok(answer)
    }

    /// The relay has not opened the feed, or has closed it: its name is free again.
    pub(crate) fn abandon_feed(&mut self, ticket: &FeedTicket) {
        let Ok(session) = self.session_mut(&ticket.key.session) else { return };
        if session.feeds.get(&ticket.key.feed).is_some_and(|f| f.serial == ticket.serial) {
            session.feeds.remove(&ticket.key.feed);
        }
    }

    /// The feed as it is now.
    pub(crate) fn feed_info(&self, key: &FeedKey) -> Result<FeedInfo, SessionError> {
        let feed: Option<&Feed> = self.session(&key.session)?.feeds.get(&key.feed);
        feed.and_then(Feed::announced).ok_or(SessionError::NoFeed)
    }

    /// All feeds of a session.
    pub(crate) fn feed_infos(&self, session: &SessionId) -> Result<Vec<FeedInfo>, SessionError> {
        Ok(self.session(session)?.feeds.values().filter_map(Feed::announced).collect())
    }

    /// Tells everyone in the session, and whoever is called on events, of a feed that has just been opened.
    pub(super) fn announce(&mut self, session: &SessionId, feed: FeedInfo) {
        self.note_feed("feed.announced", session, &feed);
        self.call(Happening::feed("feed.announced", session, &feed));
        self.broadcast(session, &ServerEvent::Feed { feed });
    }

    /// Ends a feed and the legs that show it; with the last feed of a publication, the publication.
    pub(crate) fn remove_feed(&mut self, key: &FeedKey) -> Result<Vec<Closing>, SessionError> {
        let session = self.session_mut(&key.session)?;
        if !session.feeds.get(&key.feed).is_some_and(Feed::is_committed) {
            return Err(SessionError::NoFeed);
        }
        let Some(gone) = session.feeds.remove(&key.feed) else { return Err(SessionError::NoFeed) };
        let shows = |l: &super::Leg| l.feed.as_ref() == Some(&key.feed) && l.is_committed();
        let legs: Vec<_> = session.legs.iter().filter(|(_, l)| shows(l)).map(|(n, _)| n.clone()).collect();
        let mut closings = Vec::new();
        for leg in legs {
            closings.extend(self.drop_leg(&leg));
        }
        self.note_feed("feed.removed", &key.session, &gone.info);
        self.call(Happening::feed("feed.removed", &key.session, &gone.info));
        self.broadcast(&key.session, &ServerEvent::FeedRemoved { feed: key.feed.clone() });
        match gone.publication() {
            // The relay ends the feeds of a publication with it.
            Some(publication) if self.is_bare(&key.session, publication) => {
                closings.extend(self.drop_publication(publication));
            }
            _ => closings.push(Closing::Feed(key.clone())),
        }
        Ok(closings)
    }

    /// The relay learnt more about a feed. How it comes in and what it is called stay as they are.
    pub(crate) fn handle_descriptor(&mut self, key: &FeedKey, descriptor: FeedDescriptor) {
        let Some(feed) = self.sessions.get_mut(&key.session).and_then(|s| s.feeds.get_mut(&key.feed)) else { return };
        if !feed.is_described_by(&descriptor) {
            return;
        }
        let known = &mut feed.info.descriptor;
        let (name, transport) = (known.feed.clone(), known.transport.clone());
        *known = FeedDescriptor { feed: name, transport, ..descriptor };
        if let Some(feed) = feed.announced() {
            self.broadcast(&key.session, &ServerEvent::Feed { feed });
        }
    }

    /// The relay says whether packets of a feed arrive. While it is being asked for one, nobody can send that: then the
    /// word is about one that has ended. Such a word that comes later still is wrong until the relay's next.
    pub(crate) fn handle_feed_state(&mut self, key: &FeedKey, state: FeedState, since: WallMicros) {
        let Some(feed) = self.sessions.get_mut(&key.session).and_then(|s| s.feeds.get_mut(&key.feed)) else { return };
        if !feed.is_committed() {
            return;
        }
        let changed = feed.info.state != state;
        feed.info.state = state;
        feed.info.since = since;
        if let Some(feed) = feed.announced() {
            match state {
                FeedState::Live if changed => self.call(Happening::feed("feed.live", &key.session, &feed)),
                FeedState::Stalled if changed => self.call(Happening::feed("feed.stalled", &key.session, &feed)),
                _ => {}
            }
            self.broadcast(&key.session, &ServerEvent::Feed { feed });
        }
    }

    /// Another number of paths brings a protected feed.
    pub(crate) fn handle_paths(&mut self, key: &FeedKey, paths: FeedPaths) {
        let Some(feed) = self.sessions.get_mut(&key.session).and_then(|s| s.feeds.get_mut(&key.feed)) else { return };
        feed.info.paths = Some(paths);
        if let Some(feed) = feed.announced() {
            self.broadcast(&key.session, &ServerEvent::Feed { feed });
        }
    }

    /// Ends a leg and tells its owner.
    pub(super) fn drop_leg(&mut self, leg: &trocar_proto::session::ids::LegId) -> Option<Closing> {
        let session_id = self.leg_index.remove(leg)?;
        self.trace(|t, _| t.leg_gone(leg));
        self.note_view("view-ended", &session_id, leg);
        let gone = self.sessions.get_mut(&session_id)?.legs.remove(leg)?;
        self.send_to(&session_id, &gone.owner, &ServerEvent::Leg { leg: leg.clone(), state: LegState::Closed });
        self.note_absent(&session_id, &gone.owner);
        Some(Closing::Leg(leg.clone()))
    }
}

/// What is known of a feed before the relay has read the SDP.
fn sketch(kind: MediaKind, outline: &FeedOutline) -> FeedDescriptor {
    FeedDescriptor {
        feed: outline.feed.clone(),
        source: outline.source.clone(),
        view: outline.view.clone(),
        kind,
        purpose: outline.purpose,
        codec: String::new(),
        fmtp: String::new(),
        clock_rate: 0,
        payload_type: 0,
        width: 0,
        height: 0,
        fps: 0.0,
        max_bitrate: outline.max_bitrate,
        budget_ms: outline.budget_ms,
        header_extensions: BTreeMap::new(),
        priority: outline.priority,
        protected: false,
        replay: outline.replay,
        fec: None,
        transport: Transport::Webrtc,
    }
}

/// The answer to a publisher.
pub(super) fn roq_binding(binding: &FlowBinding, descriptor: &FeedDescriptor) -> RoqBinding {
    RoqBinding {
        also: binding.also.clone(),
        relay: binding.relay.clone(),
        relay_alternates: binding.relay_alternates.clone(),
        server_name: binding.server_name.clone(),
        rtp_flow_id: binding.rtp_flow_id,
        rtcp_flow_id: binding.rtcp_flow_id,
        leg: None,
        feed: descriptor.clone(),
    }
}

/// Where a feed stands in the API.
pub(crate) fn feed_path(session: &SessionId, feed: &FeedId) -> String {
    format!("/v1/sessions/{session}/feeds/{feed}")
}
