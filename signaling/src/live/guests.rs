//! Guests: WHIP and WHEP clients that know nothing but a URL and a bearer, and show an invitation's secret there. Each
//! resource that one makes is a participant of its own, for as long as the resource is.

use super::{Live, Participant, Session};
use crate::error::SessionError;
use crate::secret::SecretHash;
use trocar_proto::session::ids::{LegId, ParticipantId, PublicationId, SessionId};
use trocar_proto::units::Micros;

/// How long a guest may be without a resource, in microseconds: longer than reading a body and asking the relay take.
const IDLE_US: u64 = 30_000_000;

impl Live {
    /// Notes that a participant is the guest of an invitation.
    pub(crate) fn make_guest(
        &mut self,
        now: Micros,
        session: &SessionId,
        id: &ParticipantId,
        hash: SecretHash,
    ) -> Result<(), SessionError> {
        self.participant_mut(session, id)?.guest = Some((hash, now));
        Ok(())
    }

    /// Whether a guest of that invitation is in the session: then the secret is good for what the guest made, even when
    /// the invitation has ended meanwhile.
    pub(crate) fn has_guest(&self, session: &SessionId, hash: &SecretHash) -> bool {
        self.sessions.get(session).is_some_and(|s| s.participants.values().any(|p| p.is_guest_of(hash)))
    }

    /// The guest of that invitation who has the leg.
    pub(crate) fn guest_with_leg(&self, session: &SessionId, leg: &LegId, hash: &SecretHash) -> Option<ParticipantId> {
        let session = self.sessions.get(session)?;
        session.guest(&session.legs.get(leg)?.owner, hash)
    }

    /// The guest of that invitation who has the publication.
    pub(crate) fn guest_with_publication(
        &self,
        session: &SessionId,
        publication: &PublicationId,
        hash: &SecretHash,
    ) -> Option<ParticipantId> {
        let session = self.sessions.get(session)?;
        session.guest(session.publications.get(publication)?.owner(), hash)
    }

    /// Forgets guests that have nothing, or have nothing any more.
    pub(super) fn forget_guests(&mut self, now: Micros) -> Vec<(SessionId, ParticipantId)> {
        let mut idle = Vec::new();
        for (session_id, session) in &self.sessions {
            let guests = session.participants.iter().filter_map(|(id, p)| Some((id, p.guest?.1)));
            for (id, since) in guests {
                if now.since(since) >= IDLE_US && self.has_nothing(session_id, id) {
                    idle.push((session_id.clone(), id.clone()));
                }
            }
        }
        for (session, id) in &idle {
            if let Some(session) = self.sessions.get_mut(session) {
                session.participants.remove(id);
            }
        }
        idle
    }
}

impl Participant {
    fn is_guest_of(&self, hash: &SecretHash) -> bool {
        self.guest.is_some_and(|(own, _)| own == *hash)
    }
}

impl Session {
    /// Whether two participants are one: the same participant, or guests of one invitation. Each resource of a guest makes
    /// a participant of its own, so an encoder that starts anew is another one than before.
    pub(super) fn is_one_owner(&self, one: &ParticipantId, other: &ParticipantId) -> bool {
        let invitation = |id| self.participants.get(id).and_then(|p| p.guest).map(|(hash, _)| hash);
        one == other || invitation(one).is_some_and(|hash| invitation(other) == Some(hash))
    }

    /// The participant, where it is a guest of that invitation.
    fn guest(&self, id: &ParticipantId, hash: &SecretHash) -> Option<ParticipantId> {
        self.participants.get(id).filter(|p| p.is_guest_of(hash)).map(|_| id.clone())
    }
}
