//! Those who came in by break-glass: what is known of it, and who has been here long enough.

use super::Live;
use crate::audit::Entry;
use crate::store::StoredParticipant;
use crate::webhooks::Happening;
use trocar_proto::session::break_glass::BrokenGlass;
use trocar_proto::session::ids::{ParticipantId, SessionId};
use trocar_proto::units::WallMicros;

impl Live {
    /// How that participant came in, where it was by break-glass.
    pub(crate) fn broken_glass_of(&self, session: &SessionId, id: &ParticipantId) -> Option<BrokenGlass> {
        self.participant(session, id).ok()?.broken_glass.clone()
    }

    /// Those whose time is over. While an expert operates, or may operate as far as is known here, nobody is: who moves must not lose the
    /// picture, and who watches over it not the voice.
    pub(crate) fn broken_glass_over(&self, wall: WallMicros) -> Vec<(SessionId, ParticipantId)> {
        let mut over = Vec::new();
        for (session, s) in self.sessions.iter().filter(|(_, s)| !s.may_be_operated) {
            let ended = |glass: &BrokenGlass| glass.until <= wall;
            let those = s.participants.iter().filter(|(_, p)| p.broken_glass.as_ref().is_some_and(ended));
            over.extend(those.map(|(id, _)| (session.clone(), id.clone())));
        }
        over
    }

    /// Calls whoever is to be called when somebody came in so.
    pub(crate) fn tell_break_glass(&self, joined: &StoredParticipant) {
        self.call(Happening::break_glass(joined));
    }

    /// A participant's act, with everything that is known of who that is.
    pub(crate) fn participant_entry(&self, kind: &'static str, session: &SessionId, id: &ParticipantId) -> Entry {
        self.entry(kind, session, id)
    }
}
