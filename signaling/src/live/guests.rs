//! Guests: WHIP and WHEP clients that know nothing but a URL and a bearer, and show an invitation's secret there. Each
//! resource that one makes is a participant of its own, for as long as the resource is.

use super::{Live, Participant, Session};
use crate::error::SessionError;
use crate::secret::SecretHash;
use trocar_proto::session::ids::{LegId, ParticipantId, PublicationId, RealmId, SessionId};
use trocar_proto::units::Micros;

/// How long a guest may be without a resource, in microseconds: longer than reading a body and asking the relay take.
const IDLE_US: u64 = 30_000_000;

/// An invitation's secret, and by which realm's listener it was shown.
pub(crate) type Secret<'a> = (&'a SecretHash, &'a RealmId);

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
    pub(crate) fn has_guest(&self, session: &SessionId, by: Secret<'_>) -> bool {
        self.sessions.get(session).is_some_and(|s| s.participants.values().any(|p| p.is_guest_of(by)))
    }

    /// The guest of that invitation who has the leg.
    pub(crate) fn guest_with_leg(&self, session: &SessionId, leg: &LegId, by: Secret<'_>) -> Option<ParticipantId> {
        let session = self.sessions.get(session)?;
        session.guest(&session.legs.get(leg)?.owner, by)
    }

    /// The guest of that invitation who has the publication.
    pub(crate) fn guest_with_publication(
        &self,
        session: &SessionId,
        publication: &PublicationId,
        by: Secret<'_>,
    ) -> Option<ParticipantId> {
        let session = self.sessions.get(session)?;
        session.guest(session.publications.get(publication)?.owner(), by)
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
    /// Whoever shows the secret by another realm's listener is another one: what it would be answered names addresses.
    fn is_guest_of(&self, (hash, realm): Secret<'_>) -> bool {
        self.guest.is_some_and(|(own, _)| own == *hash) && &self.realm == realm
    }
}

impl Session {
    /// Whether two participants are one: the same participant, or guests of one invitation in one realm. Each resource of a guest makes
    /// a participant of its own, so an encoder that starts anew is another one than before.
    pub(super) fn is_one_owner(&self, one: &ParticipantId, other: &ParticipantId) -> bool {
        let secret = |id| self.participants.get(id).and_then(|p| p.guest.map(|(hash, _)| (hash, &p.realm)));
        one == other || secret(one).is_some_and(|by| secret(other) == Some(by))
    }

    /// The participant, where it is a guest of that invitation.
    fn guest(&self, id: &ParticipantId, by: Secret<'_>) -> Option<ParticipantId> {
        self.participants.get(id).filter(|p| p.is_guest_of(by)).map(|_| id.clone())
    }
}
