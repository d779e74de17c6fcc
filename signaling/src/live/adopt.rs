//! What a relay in another process still has when signaling connects to it: media went on without us, and people find
//! their feeds and legs again. The store is the judge: what belongs to a session that is open and to a participant that is
//! in it is taken over, anything else is closed at once.

use super::{Closing, Feed, Leg, Live, Publication};
use trocar_proto::session::admission::FeedKey;
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::ids::{ParticipantId, SessionId};
use trocar_proto::session::remote::{FeedHeld, FeedOrigin, LegHeld, PublicationHeld, RelayState};
use trocar_proto::units::WallMicros;

impl Live {
    /// Takes over what is not known here and notes the states of what is; what the relay is to close comes back. A name
    /// that is reserved or taken by something else stays with that.
    pub(crate) fn adopt(&mut self, wall: WallMicros, state: RelayState) -> Vec<Closing> {
        let mut closings = Vec::new();
        for held in state.publications {
            let name = held.grant.publication.clone();
            if !self.adopt_publication(wall, held) {
                closings.push(Closing::Publication(name));
            }
        }
        for held in state.feeds {
            let (key, bare) = (held.key.clone(), matches!(held.origin, FeedOrigin::Roq { .. }));
            if !self.adopt_feed(held) && bare {
                closings.push(Closing::Feed(key));
            }
        }
        for held in state.legs {
            let name = held.leg().clone();
            if !self.adopt_leg(wall, held) {
                closings.push(Closing::Leg(name));
            }
        }
        closings
    }

    fn is_in(&self, session: &SessionId, participant: &ParticipantId) -> bool {
        self.participant(session, participant).is_ok()
    }

    fn adopt_publication(&mut self, wall: WallMicros, held: PublicationHeld) -> bool {
        let PublicationHeld { grant, ice_session, state } = held;
        if self.publication_index.contains_key(&grant.publication) {
            self.handle_publication_state(&grant.publication, state);
            return true;
        }
        if !self.is_in(&grant.session, &grant.publisher) {
            return false;
        }
        let Ok(session) = self.session_mut(&grant.session) else { return false };
        let adopted = Publication::adopted(grant.publisher.clone(), ice_session, state);
        session.publications.insert(grant.publication.clone(), adopted);
        self.publication_index.insert(grant.publication, grant.session.clone());
        self.note_present(wall, &grant.session, &grant.publisher);
        true
    }

    fn adopt_feed(&mut self, held: FeedHeld) -> bool {
        let FeedKey { session: id, feed: name } = held.key.clone();
        let known = self.sessions.get(&id).is_some_and(|s| s.feeds.contains_key(&name));
        if known {
            self.handle_feed_state(&held.key, held.state, held.since);
            return true;
        }
        if !self.is_in(&id, &held.publisher) {
            return false;
        }
        let serial = self.serial();
        let Ok(session) = self.session_mut(&id) else { return false };
        let clock = session.participants.get(&held.publisher).and_then(|p| p.clock);
        let feed = Feed::adopted(serial, clock, held);
        let told = feed.announced();
        session.feeds.insert(name, feed);
        if let Some(feed) = told {
            self.broadcast(&id, &ServerEvent::Feed { feed });
        }
        true
    }

    /// The relay that the feed comes from may be heard later than the one that shows it: a leg is taken over without its feed.
    fn adopt_leg(&mut self, wall: WallMicros, held: LegHeld) -> bool {
        if self.leg_index.contains_key(held.leg()) {
            self.handle_leg_state(held.leg(), held.state);
            return true;
        }
        let (leg, id) = (held.leg().clone(), held.session().clone());
        let Some(owner) = held.viewer().cloned().filter(|owner| self.is_in(&id, owner)) else { return false };
        let slots = held.slots.clone();
        let Ok(session) = self.session_mut(&id) else { return false };
        session.legs.insert(leg.clone(), Leg::adopted(owner.clone(), held, wall));
        self.leg_index.insert(leg.clone(), id.clone());
        self.note_present(wall, &id, &owner);
        if !slots.is_empty() {
            self.handle_voices(&leg, slots);
        }
        true
    }
}
