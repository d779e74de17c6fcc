//! What follows when a relay is there, falls silent or is gone.

use super::{Act, Member, Outcome, Owed, Placed, PlacedLeg, Places, Standing, Upstream};
use std::collections::BTreeSet;
use trocar_proto::session::admission::{FeedKey, RelayEvent};
use trocar_proto::session::api::FeedState;
use trocar_proto::session::event::LegState;
use trocar_proto::session::ids::{LegId, PublicationId};
use trocar_proto::session::remote::{FeedHeld, FeedOrigin, LegShape, RelayHello, RelayState};
use trocar_proto::units::WallMicros;

impl Places {
    /// A relay is (again) there, with all that it has; its stream was asked for at `turn`.
    pub(in crate::relays) fn rise(
        &mut self,
        member: usize,
        turn: u64,
        hello: RelayHello,
        mut state: RelayState,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(m) = self.members.get_mut(member) else { return outcome };
        let same = m.hello.as_ref().is_some_and(|h| h.instance == hello.instance);
        m.standing = Standing::Up;
        m.hello = Some(hello);
        m.operated = state.operated;
        let owed = std::mem::take(&mut m.owed);
        if same {
            // What was to be closed meanwhile is not taken up again.
            state.feeds.retain(|f| !owed.contains(&Owed::Feed(f.key.clone())));
            state.legs.retain(|l| !owed.contains(&Owed::Leg(l.leg().clone())));
            let whip = |p: &PublicationId| owed.contains(&Owed::Publication(p.clone()));
            state.publications.retain(|p| !whip(&p.grant.publication));
            state.feeds.retain(|f| !matches!(&f.origin, FeedOrigin::Whip { publication } if whip(publication)));
            outcome.acts.extend(owed.into_iter().map(|o| Act::Close(member, o)));
        }
        self.bury(member, turn, &state, &mut outcome);
        self.take_up(member, state, &mut outcome);
        outcome
    }

    /// What was known of a relay before that turn, and it has no more.
    fn bury(&mut self, member: usize, turn: u64, state: &RelayState, outcome: &mut Outcome) {
        let feeds: BTreeSet<&FeedKey> = state.feeds.iter().map(|f| &f.key).collect();
        let legs: BTreeSet<&LegId> = state.legs.iter().map(|l| l.leg()).collect();
        let publications: BTreeSet<&PublicationId> = state.publications.iter().map(|p| &p.grant.publication).collect();
        let lost = |m: usize, at: u64| m == member && at < turn;
        let dead: Vec<FeedKey> = self
            .feeds
            .iter()
            .filter(|(key, f)| f.homes.iter().any(|h| lost(h.member, h.turn)) && !feeds.contains(key))
            .map(|(key, _)| key.clone())
            .collect();
        let mirrors: Vec<FeedKey> = self
            .mirrors
            .iter()
            .filter(|((key, m), at)| lost(*m, at.turn) && !state.cascades.contains(key))
            .map(|((key, _), _)| key.clone())
            .collect();
        let ended =
            self.legs.iter().filter(|(leg, at)| at.iter().any(|l| lost(l.member, l.turn)) && !legs.contains(leg));
        let ended: Vec<LegId> = ended.map(|(leg, _)| leg.clone()).collect();
        let up: Vec<LegId> = self
            .upstreams
            .iter()
            .filter(|(leg, u)| lost(u.member, u.turn) && !legs.contains(leg))
            .map(|(leg, _)| leg.clone())
            .collect();
        let gone: Vec<PublicationId> = self
            .publications
            .iter()
            .filter(|(name, p)| lost(p.member, p.turn) && !publications.contains(name))
            .map(|(name, _)| name.clone())
            .collect();
        self.end(member, Ended { feeds: dead, mirrors, legs: ended, upstreams: up, publications: gone }, outcome);
    }

    /// These of a relay are no more.
    fn end(&mut self, member: usize, ended: Ended, outcome: &mut Outcome) {
        for leg in ended.legs {
            outcome.tell.extend(self.hear_leg(member, leg, LegState::Closed));
        }
        for publication in ended.publications {
            outcome.acts.extend(self.drop_publication(&publication));
            self.publications.remove(&publication);
            outcome.tell.push(RelayEvent::Publication { publication, state: LegState::Closed });
        }
        for key in ended.feeds {
            let Some(placed) = self.feeds.get_mut(&key) else { continue };
            placed.homes.retain(|h| h.member != member);
            if placed.homes.is_empty() {
                outcome.acts.extend(self.close_feed(&key));
                outcome.tell.push(RelayEvent::FeedClosed { key });
            } else {
                let (state, since) = (placed.state(), crate::app::wall_clock());
                outcome.tell.extend(self.paths_now(&key, since));
                outcome.tell.push(RelayEvent::FeedState { key, state, since });
            }
        }
        for key in ended.mirrors {
            outcome.acts.extend(self.forget_mirror(&key, member));
            outcome.tell.extend(self.paths_now(&key, crate::app::wall_clock()));
        }
        for leg in ended.upstreams {
            outcome.acts.extend(self.lose_upstream(&leg));
        }
    }

    /// A home says that it has no such feed. It is over there, unless it was opened anew since that turn: its publisher is
    /// told, and announces it again.
    pub(in crate::relays) fn lose_home(&mut self, key: &FeedKey, member: usize, since: u64) -> Outcome {
        let mut outcome = Outcome::default();
        if self.home_since(key, member) == Some(since) {
            self.end(member, Ended { feeds: vec![key.clone()], ..Ended::default() }, &mut outcome);
        }
        outcome
    }

    /// What a relay has and was not known.
    fn take_up(&mut self, member: usize, state: RelayState, outcome: &mut Outcome) {
        let mut told = RelayState::default();
        for held in state.publications {
            let turn = self.next_turn();
            self.publications.insert(held.grant.publication.clone(), PlacedLeg { member, turn });
            told.publications.push(held);
        }
        for held in state.feeds {
            match self.take_up_feed(member, held) {
                Ok(held) => told.feeds.push(held),
                Err(key) => outcome.acts.push(Act::Close(member, Owed::Feed(key))),
            }
        }
        for held in state.legs {
            let (leg, turn) = (held.leg().clone(), self.next_turn());
            match (&held.shape, held.viewer()) {
                (LegShape::Roq(grant), None) => {
                    let binding = self.upstreams.get(&leg).and_then(|u| u.binding.clone());
                    self.upstreams.insert(leg, Upstream { member, turn, feed: grant.feed.clone(), binding });
                }
                (shape, _) => {
                    if let LegShape::Voices(grant, _) = shape
                        && grant.relay.is_none()
                    {
                        self.voices.insert(leg.clone(), grant.session.clone());
                    }
                    let at = self.legs.entry(leg).or_default();
                    at.retain(|l| l.member != member);
                    at.push(PlacedLeg { member, turn });
                    told.legs.push(held);
                }
            }
        }
        for key in state.cascades {
            self.note_mirror(key, member);
        }
        outcome.tell.push(RelayEvent::State(Box::new(told)));
    }

    /// A feed that another relay has as well is this one's only where it is protected: else it is a copy that was left behind.
    fn take_up_feed(&mut self, member: usize, held: FeedHeld) -> Result<FeedHeld, FeedKey> {
        let others = self.homes(&held.key).into_iter().any(|m| m != member);
        if others && !held.descriptor.protected {
            return Err(held.key);
        }
        let publication = match &held.origin {
            FeedOrigin::Whip { publication } => Some(publication.clone()),
            FeedOrigin::Roq { .. } => None,
        };
        self.note_feed(member, &held.key, &held.publisher, &held.descriptor, publication.as_ref());
        let placed = self.feeds.get_mut(&held.key);
        let home = placed.and_then(|p| p.homes.iter_mut().find(|h| h.member == member));
        if let Some(home) = home {
            home.state = held.state;
        }
        let state = self.feeds.get(&held.key).map_or(held.state, Placed::state);
        Ok(FeedHeld { state, ..held })
    }

    /// Nothing was heard of a relay for a while: what it has may run or not. None where that is no news.
    pub(in crate::relays) fn fall_silent(&mut self, member: usize, since: WallMicros) -> Option<Outcome> {
        let mut outcome = Outcome::default();
        match self.members.get_mut(member) {
            Some(m) if m.standing == Standing::Up => m.standing = Standing::Silent,
            _ => return None,
        }
        for (key, placed) in &mut self.feeds {
            let Some(home) = placed.homes.iter_mut().find(|h| h.member == member) else { continue };
            if home.state == FeedState::Live {
                home.state = FeedState::Stalled;
                outcome.tell.push(RelayEvent::FeedState { key: key.clone(), state: placed.state(), since });
            }
        }
        let of_it = self.legs.iter().filter(|(_, at)| at.iter().all(|l| l.member == member));
        outcome.tell.extend(of_it.map(|(leg, _)| RelayEvent::Leg { leg: leg.clone(), state: LegState::Connecting }));
        Some(outcome)
    }

    /// Whether another relay could take the work of one that does not answer.
    pub(in crate::relays) fn has_stand_in(&self, member: usize) -> bool {
        let Some(m) = self.members.get(member) else { return false };
        let realms = m.hello.as_ref().map(|h| h.realms.clone()).unwrap_or_default();
        let takes = |other: &Member| (other.takes.0 || !m.takes.0) && (other.takes.1 || !m.takes.1);
        let stands_in = |(i, other): (usize, &Member)| {
            i != member && other.is_up() && takes(other) && realms.iter().all(|r| other.serves(r))
        };
        self.members.iter().enumerate().any(stands_in)
    }

    /// A relay is gone with all that it had. None where that is no news.
    pub(in crate::relays) fn fall(&mut self, member: usize) -> Option<Outcome> {
        let mut outcome = Outcome::default();
        match self.members.get_mut(member) {
            Some(m) if m.standing != Standing::Gone => m.standing = Standing::Gone,
            _ => return None,
        }
        let turn = self.next_turn();
        self.bury(member, turn, &RelayState::default(), &mut outcome);
        Some(outcome)
    }
}

#[derive(Default)]
struct Ended {
    feeds: Vec<FeedKey>,
    mirrors: Vec<FeedKey>,
    legs: Vec<LegId>,
    upstreams: Vec<LegId>,
    publications: Vec<PublicationId>,
}
