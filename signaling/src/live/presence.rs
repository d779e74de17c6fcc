//! Presence: who is seen by everybody in a session. That is whoever has an event socket, and whoever sends or receives by a
//! leg or a publication without one: nobody watches an operation unseen.

use super::{Live, Participant, Session};
use crate::app::wall_clock;
use crate::audit::Entry;
use crate::webhooks::Happening;
use trocar_proto::session::api::ParticipantInfo;
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::ids::{ParticipantId, SessionId};
use trocar_proto::units::WallMicros;

impl Participant {
    /// How others see it; none while it is not present.
    pub(super) fn info(&self, id: &ParticipantId) -> Option<ParticipantInfo> {
        self.is_present.then(|| ParticipantInfo {
            participant: id.clone(),
            name: self.name.clone(),
            role: self.role,
            realm: self.realm.clone(),
            organisation: self.organisation.clone(),
            guest: self.guest.is_some(),
            break_glass: self.broken_glass.clone(),
            since: self.since,
        })
    }
}

impl Live {
    /// A participant got an event socket, a leg or a publication: others are told where it had none.
    pub(super) fn note_present(&mut self, wall: WallMicros, session: &SessionId, id: &ParticipantId) {
        let Ok(participant) = self.participant_mut(session, id) else { return };
        if participant.is_present {
            return;
        }
        participant.is_present = true;
        participant.since = wall;
        if let Some(participant) = participant.info(id) {
            self.note(self.entry("participant.joined", session, id));
            self.call(Happening::participant("participant.joined", session, &participant));
            self.broadcast_but(session, Some(id), &ServerEvent::ParticipantJoined { participant });
        }
    }

    /// A participant lost one of these: others are told where it was the last.
    pub(super) fn note_absent(&mut self, session_id: &SessionId, id: &ParticipantId) {
        let Some(session) = self.sessions.get_mut(session_id) else { return };
        if session.has_resource(id) {
            return;
        }
        let Some(participant) = session.participants.get_mut(id).filter(|p| p.sockets.is_empty()) else { return };
        let info = participant.info(id);
        participant.is_present = false;
        self.tell_left(session_id, info);
    }

    /// Tells everyone that a participant has gone; `info` is how they saw it, none where they did not.
    pub(super) fn tell_left(&mut self, session: &SessionId, info: Option<ParticipantInfo>) {
        let Some(info) = info else { return };
        self.note(Entry {
            name: Some(info.name.clone()),
            role: Some(info.role),
            realm: Some(info.realm.clone()),
            patient: self.patient_of(session),
            duration_us: Some(wall_clock().0.saturating_sub(info.since.0)),
            ..Entry::now("participant.left").of(session).by(&info.participant)
        });
        self.call(Happening::participant("participant.left", session, &info));
        self.broadcast(session, &ServerEvent::ParticipantLeft { participant: info.participant });
    }
}

impl Session {
    /// Whether a leg or a publication of that participant is open.
    fn has_resource(&self, id: &ParticipantId) -> bool {
        self.legs.values().any(|l| &l.owner == id && l.is_committed())
            || self.publications.values().any(|p| p.owner() == id && p.is_committed())
    }
}
