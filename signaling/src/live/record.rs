//! What goes into the audit chain of what happens here: who saw which feed, of whose operation, from when on and how long.

use super::Live;
use crate::app::wall_clock;
use crate::audit::Entry;
use trocar_proto::session::api::FeedInfo;
use trocar_proto::session::ids::{LegId, ParticipantId, SessionId};

impl Live {
    /// Has it written soon.
    pub(crate) fn note(&self, entry: Entry) {
        self.journal.note(entry);
    }

    /// The patient that a session is about, where that is known.
    pub(crate) fn patient_of(&self, session: &SessionId) -> Option<String> {
        self.sessions.get(session)?.patient.clone()
    }

    /// A participant's act, with everything that is known of who that is.
    pub(super) fn entry(&self, kind: &'static str, session: &SessionId, id: &ParticipantId) -> Entry {
        let found = self.participant(session, id).ok();
        Entry {
            patient: self.patient_of(session),
            name: found.map(|p| p.name.clone()),
            role: found.map(|p| p.role),
            realm: found.map(|p| p.realm.clone()),
            ..Entry::now(kind).of(session).by(id)
        }
    }

    /// A view begins, goes to another feed, or ends. A leg that was never opened is no view.
    pub(super) fn note_view(&self, kind: &'static str, session: &SessionId, leg: &LegId) {
        let Some(found) = self.sessions.get(session).and_then(|s| s.legs.get(leg)) else { return };
        if !found.is_committed() {
            return;
        }
        let lasted = (kind == "view-ended").then(|| wall_clock().0.saturating_sub(found.since.0));
        let what = if found.feed.is_some() { "" } else { "voices" };
        let entry = self.entry(kind, session, &found.owner).saying(what);
        self.note(Entry { feed: found.feed.clone(), leg: Some(leg.clone()), duration_us: lasted, ..entry });
    }

    /// All views of a session end.
    pub(super) fn note_all_views_end(&self, session: &SessionId) {
        let legs = self.sessions.get(session).into_iter().flat_map(|s| s.legs.keys());
        legs.for_each(|leg| self.note_view("view-ended", session, leg));
    }

    /// A feed comes or goes.
    pub(super) fn note_feed(&self, kind: &'static str, session: &SessionId, feed: &FeedInfo) {
        let d = &feed.descriptor;
        let said = format!("{} {} from {}", d.codec, d.view, d.source);
        let entry = self.entry(kind, session, &feed.publisher).saying(said);
        self.note(Entry { feed: Some(d.feed.clone()), ..entry });
    }
}
