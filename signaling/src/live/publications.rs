//! Publications: WebRTC connections by which somebody publishes (WHIP), with one or two feeds each.

use super::{Closing, Feed, Live, Session};
use crate::error::SessionError;
use std::collections::BTreeSet;
use trocar_proto::session::admission::{FeedKey, FeedOutline, PublicationAnswer, PublicationGrant};
use trocar_proto::session::event::{LegState, ServerEvent};
use trocar_proto::session::feed::MediaKind;
use trocar_proto::session::ids::{FeedId, ParticipantId, PublicationId, SessionId};
use trocar_proto::units::{Micros, WallMicros};

/// One WHIP resource. Its feeds say that they belong to it.
#[derive(Debug)]
pub(super) struct Publication {
    owner: ParticipantId,
    /// Name of the ICE session (RFC 9725 section 4.3.1); none while the relay is being asked.
    ice_session: Option<String>,
    state: LegState,
}

impl Publication {
    /// One that a relay has kept while signaling was away.
    pub(super) const fn adopted(owner: ParticipantId, ice_session: String, state: LegState) -> Self {
        Self { owner, ice_session: Some(ice_session), state }
    }

    pub(super) fn owner(&self) -> &ParticipantId {
        &self.owner
    }

    pub(super) fn is_committed(&self) -> bool {
        self.ice_session.is_some()
    }
}

/// What a WHIP client asks for. At least one of the outlines is there.
#[derive(Debug, Clone)]
pub(crate) struct PublicationOffer {
    pub(crate) session: SessionId,
    pub(crate) publisher: ParticipantId,
    pub(crate) publication: PublicationId,
    pub(crate) video: Option<FeedOutline>,
    /// Smaller simulcast layers of the video.
    pub(crate) layers: Vec<FeedOutline>,
    pub(crate) audio: Option<FeedOutline>,
}

impl PublicationOffer {
    /// All feeds that it may bring.
    fn outlines(&self) -> impl Iterator<Item = (MediaKind, &FeedOutline)> {
        let pictures = self.video.iter().chain(&self.layers).map(|o| (MediaKind::Video, o));
        pictures.chain(self.audio.iter().map(|o| (MediaKind::Audio, o)))
    }
}

impl Live {
    /// Checks an offer and reserves the names of its feeds. From here on the relay's events find its owner. A publication
    /// of the same owner that has the feed's name ends: what the relay has to close first comes with the grant.
    pub(crate) fn reserve_publication(
        &mut self,
        now: Micros,
        wall: WallMicros,
        offer: PublicationOffer,
    ) -> Result<(PublicationGrant, Vec<Closing>), SessionError> {
        let limit = self.limits.feeds_per_session;
        let serial = self.serial();
        let participant = self.participant_mut(&offer.session, &offer.publisher)?;
        participant.absent_since = participant.absent_since.map(|_| now);
        let (realm, clock) = (participant.realm.clone(), participant.clock);
        let replaced = self.session(&offer.session)?.replaced_by(&offer)?;
        let outlines = || offer.outlines().map(|(_, o)| o);
        let wanted = outlines().map(|o| o.max_bitrate.0).fold(0, u64::saturating_add);
        self.check_bitrate(&offer.session, &offer.publisher, replaced.as_ref(), wanted)?;
        let session = self.session_mut(&offer.session)?;
        let freed = replaced.as_ref().map_or(0, |old| session.feeds_of(old).len());
        if session.feeds.len() - freed + outlines().count() > limit {
            return Err(SessionError::Full("feeds"));
        }
        // Nothing is left to refuse: what is there ends only for what takes its place.
        let first = replaced.map(|old| self.end_publication(&offer.session, &old)).unwrap_or_default();
        let session = self.session_mut(&offer.session)?;
        for (kind, outline) in offer.outlines() {
            let publication = offer.publication.clone();
            let feed = Feed::reserved_for((serial, wall), &offer.publisher, clock, publication, (kind, outline));
            session.feeds.insert(outline.feed.clone(), feed);
        }
        let reserved = Publication { owner: offer.publisher.clone(), ice_session: None, state: LegState::Connecting };
        session.publications.insert(offer.publication.clone(), reserved);
        self.publication_index.insert(offer.publication.clone(), offer.session.clone());
        let PublicationOffer { session, publisher, publication, video, layers, audio } = offer;
        Ok((PublicationGrant { publication, session, realm, publisher, video, layers, audio }, first))
    }

    /// Checks that an owner's feeds by WHIP, without those of a publication that is to end, leave room for so many bit/s
    /// more.
    pub(super) fn check_bitrate(
        &self,
        session: &SessionId,
        owner: &ParticipantId,
        without: Option<&PublicationId>,
        wanted: u64,
    ) -> Result<(), SessionError> {
        let counts = |f: &Feed| f.publication().is_some_and(|p| without != Some(p));
        self.check_room(session, owner, counts, (self.limits.bitrate_per_participant, wanted))
    }

    /// The same of a device's native feeds.
    pub(super) fn check_native_bitrate(
        &self,
        session: &SessionId,
        owner: &ParticipantId,
        wanted: u64,
    ) -> Result<(), SessionError> {
        let counts = |f: &Feed| f.publication().is_none();
        self.check_room(session, owner, counts, (self.limits.native_bitrate_per_participant, wanted))
    }

    /// Whether the owner's feeds that count leave room for what is wanted under the limit.
    fn check_room(
        &self,
        session: &SessionId,
        owner: &ParticipantId,
        counts: impl Fn(&Feed) -> bool,
        (limit, wanted): (u64, u64),
    ) -> Result<(), SessionError> {
        let session = self.session(session)?;
        let own = session.feeds.values().filter(|f| session.is_one_owner(f.publisher(), owner) && counts(f));
        let granted = own.map(|f| f.descriptor().max_bitrate.0).fold(0, u64::saturating_add);
        let left = limit.saturating_sub(granted);
        if wanted > left { Err(SessionError::Bitrate { limit, left }) } else { Ok(()) }
    }

    /// The relay has opened the publication with these feeds: they are announced, and the names of the others are free
    /// again. On an error they stay reserved: the caller has the relay close the publication, and then abandons it.
    pub(crate) fn commit_publication(
        &mut self,
        wall: WallMicros,
        publication: &PublicationId,
        answer: &PublicationAnswer,
    ) -> Result<(), SessionError> {
        let session_id = self.publication_index.get(publication).cloned().ok_or(SessionError::NoPublication)?;
        let session = self.session_mut(&session_id)?;
        let found = session.publications.get_mut(publication).ok_or(SessionError::NoPublication)?;
        if !session.participants.contains_key(&found.owner) {
            return Err(SessionError::ParticipantGone);
        }
        let mut opened = Vec::new();
        for descriptor in &answer.feeds {
            let feed = session.feeds.get_mut(&descriptor.feed);
            opened.extend(feed.and_then(|f| f.open_for(publication, descriptor.clone())));
        }
        if opened.is_empty() {
            return Err(SessionError::NothingSent);
        }
        found.ice_session = Some(answer.ice_session.clone());
        let owner = found.owner.clone();
        session.feeds.retain(|_, f| f.publication() != Some(publication) || f.is_committed());
        // Who publishes is known before what.
        self.note_present(wall, &session_id, &owner);
        for feed in opened {
            self.announce(&session_id, feed);
        }
        Ok(())
    }

    /// The relay has not opened the publication, or has closed it: the names of its feeds are free again.
    pub(crate) fn abandon_publication(&mut self, publication: &PublicationId) {
        let Some(session_id) = self.publication_index.remove(publication) else { return };
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        session.publications.remove(publication);
        session.feeds.retain(|_, f| f.publication() != Some(publication));
    }

    /// The ICE session of the owner's own publication. Somebody else's does not exist for it.
    pub(crate) fn publication_ice(
        &self,
        session: &SessionId,
        publication: &PublicationId,
        owner: &ParticipantId,
    ) -> Result<String, SessionError> {
        let found: Option<&Publication> = self.session(session)?.publications.get(publication);
        let own = found.filter(|p| &p.owner == owner).and_then(|p| p.ice_session.clone());
        own.ok_or(SessionError::NoPublication)
    }

    /// Notes the new ICE session after a restart.
    pub(crate) fn restart_publication(
        &mut self,
        session: &SessionId,
        publication: &PublicationId,
        ice_session: String,
    ) -> Result<(), SessionError> {
        let found = self.session_mut(session)?.publications.get_mut(publication);
        found.ok_or(SessionError::NoPublication)?.ice_session = Some(ice_session);
        Ok(())
    }

    /// Ends a publication of the participant, its feeds and the legs that show them.
    pub(crate) fn remove_publication(
        &mut self,
        session: &SessionId,
        publication: &PublicationId,
        by: &ParticipantId,
    ) -> Result<Vec<Closing>, SessionError> {
        self.publication_ice(session, publication, by)?;
        Ok(self.end_publication(session, publication))
    }

    /// The relay says that a publication's transport changed. A closed one is gone with its feeds.
    pub(crate) fn handle_publication_state(&mut self, publication: &PublicationId, state: LegState) {
        let Some(session_id) = self.publication_index.get(publication).cloned() else { return };
        if state == LegState::Closed {
            // What these closings are about, the relay has ended already.
            self.end_publication(&session_id, publication);
            return;
        }
        let found = self.sessions.get_mut(&session_id).and_then(|s| s.publications.get_mut(publication));
        if let Some(found) = found {
            found.state = state;
        }
        self.tell_owner(&session_id, publication, state);
    }

    /// The publications of a participant over which media can flow.
    pub(super) fn connected_publications(&self, session: &SessionId, owner: &ParticipantId) -> BTreeSet<PublicationId> {
        let all = self.sessions.get(session).map(|s| s.publications.iter()).into_iter().flatten();
        let connected = all.filter(|(_, p)| &p.owner == owner && p.state == LegState::Connected);
        connected.map(|(name, _)| name.clone()).collect()
    }

    /// Ends all feeds of a publication, and with the last of them the publication.
    fn end_publication(&mut self, session_id: &SessionId, publication: &PublicationId) -> Vec<Closing> {
        let feeds: Vec<FeedId> = self.sessions.get(session_id).map(|s| s.feeds_of(publication)).unwrap_or_default();
        let mut closings = Vec::new();
        for feed in feeds {
            let key = FeedKey { session: session_id.clone(), feed };
            closings.extend(self.remove_feed(&key).unwrap_or_default());
        }
        // Only a reservation has no feed that could be removed.
        closings.extend(self.drop_publication(publication));
        // One closing ends all of it at the relay.
        closings.retain(|c| !matches!(c, Closing::Feed(_)));
        closings
    }

    /// Whether none of a publication's feeds are left.
    pub(super) fn is_bare(&self, session: &SessionId, publication: &PublicationId) -> bool {
        self.sessions.get(session).is_none_or(|s| s.feeds_of(publication).is_empty())
    }

    /// Forgets a publication, with what is reserved for it, and tells its owner.
    pub(super) fn drop_publication(&mut self, publication: &PublicationId) -> Option<Closing> {
        let session_id = self.publication_index.get(publication).cloned()?;
        let owner = self.tell_owner(&session_id, publication, LegState::Closed);
        self.abandon_publication(publication);
        if let Some(owner) = owner {
            self.note_absent(&session_id, &owner);
        }
        Some(Closing::Publication(publication.clone()))
    }

    /// Tells the owner, and says who that is.
    fn tell_owner(
        &mut self,
        session_id: &SessionId,
        publication: &PublicationId,
        state: LegState,
    ) -> Option<ParticipantId> {
        let owner = self.sessions.get(session_id)?.publications.get(publication)?.owner.clone();
        let event = ServerEvent::Publication { publication: publication.clone(), state };
        self.send_to(session_id, &owner, &event);
        Some(owner)
    }
}

impl Session {
    /// The publication that a new one takes the place of: one of the same owner that has the name of its picture, or of its
    /// sound where it has no picture. An encoder that crashed comes back so before its old connection has timed out.
    fn replaced_by(&self, offer: &PublicationOffer) -> Result<Option<PublicationId>, SessionError> {
        let named = |outline: &Option<FeedOutline>| outline.as_ref().and_then(|o| self.feeds.get(&o.feed));
        let own = |feed: &Feed| {
            let name = feed.publication().filter(|_| feed.is_committed())?;
            self.is_one_owner(feed.publisher(), &offer.publisher).then(|| name.clone())
        };
        let replaced = match (named(&offer.video), named(&offer.audio)) {
            (Some(feed), _) => Some(own(feed).ok_or(SessionError::FeedExists)?),
            (None, Some(feed)) if offer.video.is_none() => Some(own(feed).ok_or(SessionError::AudioFeedExists)?),
            _ => None,
        };
        let taken = |o: &FeedOutline| {
            self.feeds.get(&o.feed).is_some_and(|f| f.publication() != replaced.as_ref() || replaced.is_none())
        };
        if offer.layers.iter().any(taken) {
            return Err(SessionError::FeedExists);
        }
        match named(&offer.audio) {
            Some(feed) if feed.publication() != replaced.as_ref() || replaced.is_none() => {
                Err(SessionError::AudioFeedExists)
            }
            _ => Ok(replaced),
        }
    }

    /// The feeds that a publication has or reserves.
    fn feeds_of(&self, publication: &PublicationId) -> Vec<FeedId> {
        let own = self.feeds.iter().filter(|(_, f)| f.publication() == Some(publication));
        own.map(|(name, _)| name.clone()).collect()
    }
}
