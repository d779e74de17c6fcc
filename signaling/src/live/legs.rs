//! Legs: who views which feed, how, and which moment their pictures show.

use super::{Closing, Live};
use crate::error::SessionError;
use trocar_proto::session::admission::{FeedKey, FlowBinding, LegGrant, VoicesGrant};
use trocar_proto::session::api::{LegRequest, RoqBinding};
use trocar_proto::session::event::{LegState, ServerEvent, VoiceSlot};
use trocar_proto::session::feed::MediaKind;
use trocar_proto::session::ids::{FeedId, LegId, ParticipantId, RealmId, SessionId};
use trocar_proto::session::remote::{LegHeld, LegShape};
use trocar_proto::units::{Micros, WallMicros};

/// How a leg is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LegKind {
    /// RTP over QUIC.
    Roq,
    /// WebRTC by WHEP, of a feed or of the voices, with the name of its ICE session (RFC 9725 section 4.3.1).
    Whep { ice_session: String },
}

/// One viewer's subscription to one feed, or one listener's to the voices of the session.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) owner: ParticipantId,
    /// None where it carries voices.
    pub(super) feed: Option<FeedId>,
    pub(super) state: LegState,
    /// None while the relay is being asked.
    kind: Option<LegKind>,
    /// When it was opened.
    pub(super) since: WallMicros,
}

impl Leg {
    /// One that a relay has kept while signaling was away.
    pub(super) fn adopted(owner: ParticipantId, held: LegHeld, since: WallMicros) -> Self {
        let feed = held.feed().map(|f| f.feed.clone());
        let kind = match held.shape {
            LegShape::Roq(_) => LegKind::Roq,
            LegShape::Webrtc(_, ice_session) | LegShape::Voices(_, ice_session) => LegKind::Whep { ice_session },
        };
        Self { owner, feed, state: held.state, kind: Some(kind), since }
    }

    pub(super) fn is_committed(&self) -> bool {
        self.kind.is_some()
    }
}

/// One point of a leg's map from RTP time to capture time, as the relay has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CapturePoint {
    pub(crate) rtp: u32,
    pub(crate) clock_rate: u32,
    pub(crate) capture: Option<WallMicros>,
    pub(crate) received: WallMicros,
}

impl Live {
    /// Checks that the feed can be viewed and reserves the leg. From here on the relay's events find its owner.
    pub(crate) fn reserve_leg(
        &mut self,
        now: Micros,
        leg: LegId,
        key: &FeedKey,
        owner: &ParticipantId,
    ) -> Result<LegGrant, SessionError> {
        self.feed_info(key)?;
        let realm = self.insert_leg(now, &leg, &key.session, Some(key.feed.clone()), owner)?;
        let companion = self.companion_of(key, owner);
        let roq = LegRequest::default();
        Ok(LegGrant { leg, feed: key.clone(), viewer: Some(owner.clone()), realm, companion, roq, flows: None })
    }

    /// Reserves a leg for the voices of a session, at the relay of that name where one is given.
    pub(crate) fn reserve_voices(
        &mut self,
        now: Micros,
        leg: LegId,
        session: &SessionId,
        owner: &ParticipantId,
        relay: Option<String>,
    ) -> Result<VoicesGrant, SessionError> {
        let realm = self.insert_leg(now, &leg, session, None, owner)?;
        Ok(VoicesGrant { leg, session: session.clone(), realm, listener: owner.clone(), relay })
    }

    fn insert_leg(
        &mut self,
        now: Micros,
        leg: &LegId,
        session_id: &SessionId,
        feed: Option<FeedId>,
        owner: &ParticipantId,
    ) -> Result<RealmId, SessionError> {
        self.may_view(crate::app::wall_clock(), session_id, owner)?;
        let (per_session, per_participant) = (self.limits.legs_per_session, self.limits.legs_per_participant);
        let participant = self.participant_mut(session_id, owner)?;
        participant.absent_since = participant.absent_since.map(|_| now);
        let realm = participant.realm.clone();
        let session = self.session_mut(session_id)?;
        if session.legs.len() >= per_session
            || session.legs.values().filter(|l| &l.owner == owner).count() >= per_participant
        {
            return Err(SessionError::Full("legs"));
        }
        let (since, is_picture) = (WallMicros(0), feed.is_some());
        let reserved = Leg { owner: owner.clone(), feed, state: LegState::Connecting, kind: None, since };
        session.legs.insert(leg.clone(), reserved);
        self.leg_index.insert(leg.clone(), session_id.clone());
        if is_picture {
            self.trace(|t, now| t.leg_asked(now, leg, owner));
        }
        Ok(realm)
    }

    /// The sound that belongs to a picture, or the picture that belongs to a sound: a feed of the other kind with the same
    /// source and out of the same hand, since a source is but a name that anybody may use. Never the viewer's own.
    fn companion_of(&self, key: &FeedKey, viewer: &ParticipantId) -> Option<FeedKey> {
        let session = self.sessions.get(&key.session)?;
        let shown = session.feeds.get(&key.feed)?;
        let other = match shown.descriptor().kind {
            MediaKind::Video => MediaKind::Audio,
            MediaKind::Audio => MediaKind::Video,
            MediaKind::Data => return None,
        };
        let belongs = |f: &&super::Feed| {
            f.is_committed()
                && f.descriptor().kind == other
                && f.descriptor().source == shown.descriptor().source
                && f.publisher() != viewer
                && f.is_of_one_hand(shown, session)
        };
        // What came with it goes first.
        let twin = |f: &&super::Feed| f.publisher() == shown.publisher() && f.publication() == shown.publication();
        let found: Vec<_> = session.feeds.values().filter(belongs).collect();
        let feed = found.iter().copied().find(twin).or_else(|| found.first().copied())?.descriptor().feed.clone();
        Some(FeedKey { session: key.session.clone(), feed })
    }

    /// The relay has opened the leg. On an error it stays reserved: the caller has the relay close it, and then abandons it.
    pub(crate) fn commit_leg(&mut self, wall: WallMicros, leg: &LegId, kind: LegKind) -> Result<(), SessionError> {
        let session_id = self.leg_index.get(leg).cloned().ok_or(SessionError::NoLeg)?;
        let session = self.session_mut(&session_id)?;
        let found = session.legs.get_mut(leg).ok_or(SessionError::NoLeg)?;
        if !session.participants.contains_key(&found.owner) {
            return Err(SessionError::ParticipantGone);
        }
        if found.feed.as_ref().is_some_and(|feed| !session.feeds.contains_key(feed)) {
            return Err(SessionError::NoFeed);
        }
        found.kind = Some(kind);
        found.since = wall;
        let owner = found.owner.clone();
        self.trace(|t, now| t.leg_answered(now, leg));
        self.note_view("view-started", &session_id, leg);
        self.note_present(wall, &session_id, &owner);
        Ok(())
    }

    /// The relay has not opened the leg, or has closed it.
    pub(crate) fn abandon_leg(&mut self, leg: &LegId) {
        let Some(session_id) = self.leg_index.remove(leg) else { return };
        self.trace(|t, _| t.leg_gone(leg));
        self.note_view("view-ended", &session_id, leg);
        if let Some(session) = self.sessions.get_mut(&session_id) {
            session.legs.remove(leg);
        }
    }

    /// What a viewer is told about an RTP over QUIC leg.
    pub(crate) fn leg_binding(
        &self,
        leg: &LegId,
        key: &FeedKey,
        binding: &FlowBinding,
    ) -> Result<RoqBinding, SessionError> {
        let mut answer = super::feeds::roq_binding(binding, &self.feed_info(key)?.descriptor);
        answer.leg = Some(leg.clone());
        Ok(answer)
    }

    /// The ICE session of the owner's own WHEP leg. Somebody else's does not exist for it.
    pub(crate) fn ice_session(
        &self,
        session: &SessionId,
        leg: &LegId,
        owner: &ParticipantId,
    ) -> Result<String, SessionError> {
        let found: Option<&Leg> = self.session(session)?.legs.get(leg);
        match found.filter(|l| &l.owner == owner).and_then(|l| l.kind.as_ref()) {
            Some(LegKind::Whep { ice_session }) => Ok(ice_session.clone()),
            _ => Err(SessionError::NoLeg),
        }
    }

    /// Notes the new ICE session after a restart.
    pub(crate) fn restart_ice(
        &mut self,
        session: &SessionId,
        leg: &LegId,
        ice_session: String,
    ) -> Result<(), SessionError> {
        let found = self.session_mut(session)?.legs.get_mut(leg).ok_or(SessionError::NoLeg)?;
        found.kind = Some(LegKind::Whep { ice_session });
        Ok(())
    }

    /// Ends a leg of the participant; with `any`, of anybody in the session.
    pub(crate) fn remove_leg(
        &mut self,
        session: &SessionId,
        leg: &LegId,
        by: &ParticipantId,
        any: bool,
    ) -> Result<Vec<Closing>, SessionError> {
        let found: Option<&Leg> = self.session(session)?.legs.get(leg);
        if !found.is_some_and(|l| l.is_committed() && (any || &l.owner == by)) {
            return Err(SessionError::NoLeg);
        }
        Ok(self.drop_leg(leg).into_iter().collect())
    }

    /// Whether the owner's own WHEP leg may go on with that feed; the relay knows whether it can.
    pub(crate) fn check_switch(&self, leg: &LegId, to: &FeedKey, owner: &ParticipantId) -> Result<(), SessionError> {
        let found: Option<&Leg> = self.session(&to.session)?.legs.get(leg);
        let own = found.filter(|l| &l.owner == owner && l.is_committed() && l.feed.is_some());
        own.ok_or(SessionError::NoLeg)?;
        self.feed_info(to).map(drop)
    }

    /// The relay says that a leg carries another feed now.
    pub(crate) fn handle_switched(&mut self, leg: &LegId, feed: FeedId) {
        let Some(session_id) = self.leg_index.get(leg).cloned() else { return };
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        let Some(found) = session.legs.get_mut(leg).filter(|l| l.feed.is_some()) else { return };
        found.feed = Some(feed.clone());
        let owner = found.owner.clone();
        self.note_view("view-switched", &session_id, leg);
        self.send_to(&session_id, &owner, &ServerEvent::Switched { leg: leg.clone(), feed });
    }

    /// The relay says that a leg's transport changed. A closed leg is gone.
    pub(crate) fn handle_leg_state(&mut self, leg: &LegId, state: LegState) {
        let Some(session_id) = self.leg_index.get(leg).cloned() else { return };
        if state == LegState::Closed {
            self.drop_leg(leg);
            return;
        }
        let Some(found) = self.sessions.get_mut(&session_id).and_then(|s| s.legs.get_mut(leg)) else { return };
        found.state = state;
        let owner = found.owner.clone();
        let is_native = matches!(found.kind, Some(LegKind::Roq));
        if state == LegState::Connected {
            self.trace(|t, now| t.leg_connected(now, leg, is_native));
        }
        self.send_to(&session_id, &owner, &ServerEvent::Leg { leg: leg.clone(), state });
    }

    /// What a listener hears, where.
    pub(crate) fn handle_voices(&mut self, leg: &LegId, slots: Vec<VoiceSlot>) {
        let Some(session_id) = self.leg_index.get(leg).cloned() else { return };
        let Some(found) = self.sessions.get(&session_id).and_then(|s| s.legs.get(leg)) else { return };
        let owner = found.owner.clone();
        self.send_to(&session_id, &owner, &ServerEvent::Voices { leg: leg.clone(), slots });
    }

    /// Who speaks.
    pub(crate) fn handle_speaking(&mut self, session: &SessionId, feeds: Vec<FeedId>) {
        if let Ok(found) = self.session_mut(session) {
            found.speaking.clone_from(&feeds);
        }
        self.broadcast(session, &ServerEvent::Speaking { feeds });
    }

    /// One point of a leg's map: the publisher's capture time, moved to the server's clock by the publisher's last clock
    /// report, goes to the leg's owner alone. Without a report the capture time is not known. Points of a companion are left
    /// out: the owner's map is of the feed that it asked for.
    pub(crate) fn handle_capture(&mut self, leg: &LegId, feed: &FeedId, point: CapturePoint) {
        let Some(session_id) = self.leg_index.get(leg) else { return };
        let Some(session) = self.sessions.get(session_id) else { return };
        let Some(found) = session.legs.get(leg) else { return };
        if found.feed.as_ref() != Some(feed) {
            return;
        }
        let publisher = session.feeds.get(feed).map(super::Feed::publisher);
        let clock = publisher.and_then(|p| session.participants.get(p)).and_then(|p| p.clock);
        let known = point.capture.zip(clock);
        let event = ServerEvent::Capture {
            leg: leg.clone(),
            rtp: point.rtp,
            clock_rate: point.clock_rate,
            capture: known.map(|(capture, clock)| capture.offset(clock.offset_us)),
            received: point.received,
            uncertainty_us: known.map_or(0, |(_, clock)| clock.uncertainty_us),
        };
        let (session_id, owner) = (session_id.clone(), found.owner.clone());
        self.trace(|t, now| t.leg_sent(now, leg));
        self.send_lossy(&session_id, &owner, &event);
    }
}
