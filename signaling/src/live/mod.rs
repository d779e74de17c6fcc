//! Everything that is true now: open sessions, who is in them, what is published and who views it. One value behind one
//! mutex; each method is quick and does no I/O. Times are arguments.
//!
//! What a change means for the relay comes back as a list of [`Closing`]: the caller carries it out after it has let go of
//! the lock. Opening goes in two steps, since the relay is asked in between: `reserve_*` checks and takes the name, then
//! `commit_*` or `abandon_*`. A reservation that is overtaken (its session closed meanwhile) makes `commit_*` fail, and
//! the caller closes what the relay has opened.

mod adopt;
mod chat;
mod consent;
mod control;
mod emergency;
mod feeds;
mod guests;
mod legs;
mod presence;
mod publications;
mod record;
mod sockets;

pub(crate) use feeds::{Announced, FeedOffer, FeedTicket, feed_path};
pub(crate) use guests::Secret;
pub(crate) use legs::{CapturePoint, LegKind};
pub(crate) use publications::PublicationOffer;
pub(crate) use sockets::{Ending, Outbound};

use crate::audit::Journal;
use crate::config::Limits;
use crate::error::SessionError;
use crate::figures::Figures;
use crate::rate::Bucket;
use crate::secret::SecretHash;
use crate::store::{Stored, StoredParticipant};
use crate::traces::Traces;
use crate::webhooks::{Happening, Hooks};
use chat::Chat;
use consent::Given;
use feeds::Feed;
use legs::Leg;
use publications::Publication;
use sockets::Socket;
use std::collections::BTreeMap;
use std::sync::Arc;
use trocar_proto::session::admission::FeedKey;
use trocar_proto::session::api::SessionInfo;
use trocar_proto::session::break_glass::BrokenGlass;
use trocar_proto::session::claims::MAX_TOKEN_LIFE_S;
use trocar_proto::session::event::{ControlInfo, LegState, ServerEvent};
use trocar_proto::session::ids::{CertHash, FeedId, LegId, ParticipantId, PublicationId, RealmId, SessionId};
use trocar_proto::session::role::Role;
use trocar_proto::units::{Micros, WallMicros};

/// How long a participant is remembered after its last token has ended, in seconds: leeway of the verifiers.
const FORGET_AFTER_S: u64 = 10;

/// Something that the relay is to close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Closing {
    Feed(FeedKey),
    Leg(LegId),
    Publication(PublicationId),
}

/// What a sweep found.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    pub(crate) closings: Vec<Closing>,
    pub(crate) forgotten: Vec<(SessionId, ParticipantId)>,
}

/// An invitation that has not expired.
#[derive(Debug, Clone)]
struct Invited {
    session: SessionId,
    role: Role,
    expires: WallMicros,
}

#[derive(Debug)]
struct Participant {
    name: String,
    organisation: Option<String>,
    role: Role,
    realm: RealmId,
    /// The invitation, and since when, where a WHIP or WHEP client showed that instead of a token.
    guest: Option<(SecretHash, Micros)>,
    /// Why, and for how long, where it came in by break-glass.
    broken_glass: Option<BrokenGlass>,
    sockets: Vec<Socket>,
    /// Whether others see it: it has an event socket, a leg or a publication.
    is_present: bool,
    /// Since when they do.
    since: WallMicros,
    /// Since when there is no socket, where there was one before. Ordinary WHEP clients never open one.
    absent_since: Option<Micros>,
    clock: Option<ClockReport>,
    token_ends: WallMicros,
    requests: Bucket,
    /// What it may write, over all of its sockets.
    chat: Bucket,
    /// Which certificate its tokens are bound to, where they are.
    cnf: Option<CertHash>,
    /// What it may ask of the gate, over all of its sockets.
    control_requests: Bucket,
    /// When its last ESTOP went to the gate.
    estop_at: Option<Micros>,
}

/// A participant's word about its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockReport {
    /// Server clock minus participant's clock, in microseconds.
    pub(crate) offset_us: i64,
    /// Half round trip, in microseconds.
    pub(crate) uncertainty_us: u64,
}

#[derive(Debug)]
struct Session {
    title: String,
    /// Whom it is about, for the audit chain alone.
    patient: Option<String>,
    participants: BTreeMap<ParticipantId, Participant>,
    feeds: BTreeMap<FeedId, Feed>,
    legs: BTreeMap<LegId, Leg>,
    publications: BTreeMap<PublicationId, Publication>,
    chat: Chat,
    /// Voices that were heard to speak, as was told last: it is told when it changes, and a later comer has missed that.
    speaking: Vec<FeedId>,
    control: Register,
    /// Whether an expert operates, as far as is known: what was said last, also while the gate is lost.
    may_be_operated: bool,
    given: Given,
}

/// What is known here of who operates.
#[derive(Debug, Clone, Default)]
enum Register {
    /// No gate was ever heard: it is a session without one, as far as anybody knows.
    #[default]
    NoGate,
    /// What the gate said last.
    Said(Box<ControlInfo>),
    /// There was a gate, and now there is none, or no way to it; or there are two that contradict each other.
    Lost,
}

impl Register {
    /// What a later comer is told.
    fn event(&self) -> Option<ServerEvent> {
        match self {
            Self::NoGate => None,
            Self::Said(control) => Some(ServerEvent::Control { control: ControlInfo::clone(control) }),
            Self::Lost => Some(ServerEvent::ControlGone),
        }
    }
}

impl Session {
    fn new(id: &SessionId, title: String, patient: Option<String>) -> Self {
        Self {
            title,
            patient,
            participants: BTreeMap::new(),
            feeds: BTreeMap::new(),
            legs: BTreeMap::new(),
            publications: BTreeMap::new(),
            chat: Chat::default(),
            speaking: Vec::new(),
            control: Register::default(),
            may_be_operated: false,
            given: Given::new(id.clone()),
        }
    }

    fn info(&self, id: &SessionId) -> SessionInfo {
        SessionInfo {
            session: id.clone(),
            title: self.title.clone(),
            participants: self.participants.iter().filter_map(|(id, p)| p.info(id)).collect(),
            feeds: self.feeds.values().filter_map(Feed::announced).collect(),
        }
    }
}

/// What is live.
#[derive(Debug)]
pub(crate) struct Live {
    sessions: BTreeMap<SessionId, Session>,
    invitations: BTreeMap<SecretHash, Invited>,
    /// Which session a leg belongs to.
    leg_index: BTreeMap<LegId, SessionId>,
    /// Which session a publication belongs to.
    publication_index: BTreeMap<PublicationId, SessionId>,
    limits: Limits,
    figures: Arc<Figures>,
    hooks: Hooks,
    journal: Journal,
    requires_consent: bool,
    traces: Option<Traces>,
    /// Numbers sockets and reservations, so that an old one is never taken for a new one.
    next_serial: u64,
}

impl Live {
    /// From what the store had. Participants keep their place for as long as a token of theirs may still be good.
    pub(crate) fn new(
        limits: Limits,
        (figures, hooks, journal): (Arc<Figures>, Hooks, Journal),
        stored: Stored,
        now: Micros,
        wall: WallMicros,
    ) -> Self {
        let mut live = Self {
            sessions: BTreeMap::new(),
            invitations: BTreeMap::new(),
            leg_index: BTreeMap::new(),
            publication_index: BTreeMap::new(),
            limits,
            figures,
            hooks,
            journal,
            requires_consent: false,
            traces: None,
            next_serial: 0,
        };
        for (session, title, patient) in stored.sessions {
            let opened = Session::new(&session, title, patient);
            live.sessions.insert(session, opened);
        }
        for (hash, session, role, expires) in stored.invitations {
            live.invitations.insert(hash, Invited { session, role, expires });
        }
        for p in stored.participants {
            // A participant of a session that the store does not call open has nothing to come back to.
            let _ = live.add_participant(now, wall, p);
        }
        live
    }

    /// From now on joins and handovers are traced.
    pub(crate) fn trace_with(&mut self, traces: Traces) {
        self.traces = Some(traces);
    }

    /// Tells the traces, where there are any.
    pub(crate) fn trace(&mut self, tell: impl FnOnce(&mut Traces, WallMicros)) {
        if let Some(traces) = &mut self.traces {
            tell(traces, crate::app::wall_clock());
        }
    }

    /// Whether there are traces.
    pub(crate) fn is_traced(&self) -> bool {
        self.traces.is_some()
    }

    /// Whether one more session may be opened.
    pub(crate) fn may_open_session(&self) -> Result<(), SessionError> {
        if self.sessions.len() >= self.limits.sessions { Err(SessionError::Full("sessions")) } else { Ok(()) }
    }

    /// Opens a session.
    pub(crate) fn open_session(&mut self, session: SessionId, title: String, patient: Option<String>) {
        self.call(Happening::session("session.opened", &session, &title));
        let opened = Session::new(&session, title, patient);
        self.sessions.insert(session, opened);
    }

    /// Closes a session: everyone is told and everything of it ends.
    pub(crate) fn close_session(&mut self, id: &SessionId, reason: &str) -> Result<Vec<Closing>, SessionError> {
        self.session(id)?;
        self.broadcast(id, &ServerEvent::Goodbye { reason: reason.to_owned() });
        self.note_all_views_end(id);
        let Some(mut session) = self.sessions.remove(id) else { return Ok(Vec::new()) };
        self.trace(|t, now| t.ended(now, id, "session closed"));
        self.call(Happening::session("session.closed", id, &session.title));
        for participant in session.participants.values_mut() {
            participant.sockets.iter_mut().for_each(|s| s.end(Ending::Going));
        }
        self.invitations.retain(|_, i| &i.session != id);
        self.leg_index.retain(|_, s| s != id);
        self.publication_index.retain(|_, s| s != id);
        let legs = session.legs.into_keys().map(Closing::Leg);
        let publications = session.publications.into_keys().map(Closing::Publication);
        let feeds = session.feeds.into_iter().filter(|(_, f)| f.publication().is_none());
        let feeds = feeds.map(|(feed, _)| Closing::Feed(FeedKey { session: id.clone(), feed }));
        Ok(legs.chain(publications).chain(feeds).collect())
    }

    /// Says goodbye on all event sockets and ends them. Sessions, feeds and legs stay as they are: the relay goes on.
    pub(crate) fn say_goodbye(&mut self, reason: &str) {
        let ids: Vec<SessionId> = self.sessions.keys().cloned().collect();
        for id in ids {
            self.broadcast(&id, &ServerEvent::Goodbye { reason: reason.to_owned() });
        }
        let participants = self.sessions.values_mut().flat_map(|s| s.participants.values_mut());
        participants.flat_map(|p| p.sockets.iter_mut()).for_each(|s| s.end(Ending::Going));
    }

    /// The session as it is now.
    pub(crate) fn session_info(&self, id: &SessionId) -> Result<SessionInfo, SessionError> {
        Ok(self.session(id)?.info(id))
    }

    /// Whether one more invitation into the session may be written.
    pub(crate) fn may_invite(&self, session: &SessionId) -> Result<(), SessionError> {
        self.session(session)?;
        let open = self.invitations.values().filter(|i| &i.session == session).count();
        if open >= self.limits.invitations_per_session { Err(SessionError::Full("invitations")) } else { Ok(()) }
    }

    /// Takes an invitation that the store has.
    pub(crate) fn add_invitation(&mut self, hash: SecretHash, session: SessionId, role: Role, expires: WallMicros) {
        self.invitations.insert(hash, Invited { session, role, expires });
    }

    /// What an invitation's secret is good for, where it still is. It stays: a dropped surgeon comes back with the same
    /// link.
    pub(crate) fn redeem(&self, hash: &SecretHash, wall: WallMicros) -> Result<(SessionId, Role), SessionError> {
        let found = self.invitations.get(hash).filter(|i| i.expires > wall).ok_or(SessionError::InvitationInvalid)?;
        if self.session(&found.session)?.participants.len() >= self.limits.participants_per_session {
            return Err(SessionError::Full("participants"));
        }
        Ok((found.session.clone(), found.role))
    }

    /// Takes a participant that the store has.
    pub(crate) fn add_participant(
        &mut self,
        now: Micros,
        wall: WallMicros,
        p: StoredParticipant,
    ) -> Result<(), SessionError> {
        let (requests, chat) = (Bucket::full(now, self.limits.requests), Bucket::full(now, self.limits.chat));
        let participant = Participant {
            name: p.name,
            organisation: p.organisation,
            role: p.role,
            guest: None,
            broken_glass: p.broken_glass,
            realm: p.realm,
            sockets: Vec::new(),
            is_present: false,
            since: wall,
            absent_since: None,
            clock: None,
            token_ends: token_end(wall),
            requests,
            chat,
            cnf: p.cnf,
            control_requests: Bucket::full(now, control::REQUESTS),
            estop_at: None,
        };
        self.session_mut(&p.session)?.participants.insert(p.participant, participant);
        Ok(())
    }

    /// Removes a participant for good: its sockets, feeds and legs end, its tokens are refused.
    pub(crate) fn remove_participant(
        &mut self,
        session_id: &SessionId,
        id: &ParticipantId,
        reason: &str,
    ) -> Result<Vec<Closing>, SessionError> {
        self.participant(session_id, id)?;
        self.send_to(session_id, id, &ServerEvent::Goodbye { reason: reason.to_owned() });
        let closings = self.remove_belongings(session_id, id, |_| true, |_| true);
        let Some(mut gone) = self.session_mut(session_id)?.participants.remove(id) else { return Ok(closings) };
        self.trace(|t, _| t.left(id));
        gone.sockets.iter_mut().for_each(|s| s.end(Ending::Removed));
        let info = gone.info(id);
        self.tell_left(session_id, info);
        Ok(closings)
    }

    /// The bearer's name, where the session is open and the bearer still in it.
    pub(crate) fn name_of(&self, session: &SessionId, id: &ParticipantId) -> Result<String, SessionError> {
        Ok(self.participant(session, id)?.name.clone())
    }

    /// Counts a request of a participant; in the inner result, the seconds to wait where it asks too often.
    pub(crate) fn take_request(
        &mut self,
        now: Micros,
        session: &SessionId,
        id: &ParticipantId,
    ) -> Result<Result<(), u64>, SessionError> {
        let rate = self.limits.requests;
        Ok(self.participant_mut(session, id)?.requests.take(now, rate))
    }

    /// Notes that the participant got a token now.
    pub(crate) fn note_token(
        &mut self,
        session: &SessionId,
        id: &ParticipantId,
        wall: WallMicros,
        token: &str,
    ) -> Result<(), SessionError> {
        self.participant_mut(session, id)?.token_ends = token_end(wall);
        self.note(self.entry("token-granted", session, id).saying(token));
        Ok(())
    }

    /// Ends what has been left behind.
    ///
    /// 1. Participants whose last event socket has gone for the grace period lose their feeds and legs.
    /// 2. Those without a socket whose last token has ended lose what carries no media, and are forgotten when nothing of
    ///    theirs is left. What carries media stays, as does what is connected or has stood still for less than the grace
    ///    period: expiry must not blind anybody. The relay says itself when a connection is gone.
    /// 3. Guests that have nothing are forgotten: whoever shows an invitation in place of a token is a participant for as
    ///    long as the resource that it made.
    /// 4. Invitations end.
    pub(crate) fn sweep(&mut self, now: Micros, wall: WallMicros) -> Swept {
        let mut swept = Swept::default();
        let grace_us = u64::try_from(self.limits.grace.as_micros()).unwrap_or(u64::MAX);
        let mut absent = Vec::new();
        let mut ended = Vec::new();
        for (session_id, session) in &self.sessions {
            for (id, p) in session.participants.iter().filter(|(_, p)| p.sockets.is_empty()) {
                if p.absent_since.is_some_and(|since| now.since(since) >= grace_us) {
                    absent.push((session_id.clone(), id.clone()));
                }
                if wall.0 > p.token_ends.0.saturating_add(FORGET_AFTER_S * 1_000_000) {
                    ended.push((session_id.clone(), id.clone()));
                }
            }
        }
        for (session, id) in &absent {
            swept.closings.extend(self.remove_belongings(session, id, |_| true, |_| true));
        }
        for (session, id) in ended {
            let connected = self.connected_publications(&session, &id);
            let idle_feed = |f: &Feed| {
                f.is_idle(wall, grace_us) && f.publication().is_none_or(|publication| !connected.contains(publication))
            };
            let idle_leg = |l: &Leg| l.state != LegState::Connected;
            swept.closings.extend(self.remove_belongings(&session, &id, idle_feed, idle_leg));
            if self.has_nothing(&session, &id)
                && self.sessions.get_mut(&session).is_some_and(|s| s.participants.remove(&id).is_some())
            {
                swept.forgotten.push((session, id));
            }
        }
        swept.closings.extend(self.end_without_consent(wall));
        swept.forgotten.extend(self.forget_guests(now));
        self.invitations.retain(|_, i| i.expires > wall);
        self.trace(|t, now| t.sweep(now));
        self.count();
        swept
    }

    /// Sets the gauges.
    pub(crate) fn count(&self) {
        let sum = |f: fn(&Session) -> usize| i64::try_from(self.sessions.values().map(f).sum::<usize>()).unwrap_or(0);
        self.figures.sessions.set(sum(|_| 1));
        self.figures.participants.set(sum(|s| s.participants.values().filter(|p| p.is_present).count()));
        self.figures.break_glass.set(sum(|s| s.participants.values().filter(|p| p.broken_glass.is_some()).count()));
        self.figures.feeds.set(sum(|s| s.feeds.len()));
        self.figures.legs.set(sum(|s| s.legs.len()));
        self.figures.publications.set(sum(|s| s.publications.len()));
    }

    fn has_nothing(&self, session: &SessionId, id: &ParticipantId) -> bool {
        self.sessions.get(session).is_none_or(|s| {
            s.feeds.values().all(|f| f.publisher() != id)
                && s.legs.values().all(|l| &l.owner != id)
                && s.publications.values().all(|p| p.owner() != id)
        })
    }

    /// Ends the feeds and legs of one participant that the two conditions pick. Reservations are left alone: whoever made
    /// one finds out when it commits.
    fn remove_belongings(
        &mut self,
        session_id: &SessionId,
        id: &ParticipantId,
        feed_picked: impl Fn(&Feed) -> bool,
        leg_picked: impl Fn(&Leg) -> bool,
    ) -> Vec<Closing> {
        let Some(session) = self.sessions.get(session_id) else { return Vec::new() };
        let feeds: Vec<FeedId> = session
            .feeds
            .iter()
            .filter(|(_, f)| f.publisher() == id && f.is_committed() && feed_picked(f))
            .map(|(name, _)| name.clone())
            .collect();
        let legs: Vec<LegId> = session
            .legs
            .iter()
            .filter(|(_, l)| &l.owner == id && l.is_committed() && leg_picked(l))
            .map(|(name, _)| name.clone())
            .collect();
        let mut closings = Vec::new();
        for feed in feeds {
            closings.extend(self.remove_feed(&FeedKey { session: session_id.clone(), feed }).unwrap_or_default());
        }
        for leg in legs {
            closings.extend(self.drop_leg(&leg));
        }
        closings
    }

    /// Has those called who asked to be called on events.
    fn call(&self, happening: Happening) {
        self.hooks.call(&self.figures, happening);
    }

    fn session(&self, id: &SessionId) -> Result<&Session, SessionError> {
        self.sessions.get(id).ok_or(SessionError::SessionClosed)
    }

    fn session_mut(&mut self, id: &SessionId) -> Result<&mut Session, SessionError> {
        self.sessions.get_mut(id).ok_or(SessionError::SessionClosed)
    }

    fn participant(&self, session: &SessionId, id: &ParticipantId) -> Result<&Participant, SessionError> {
        self.session(session)?.participants.get(id).ok_or(SessionError::ParticipantGone)
    }

    fn participant_mut(&mut self, session: &SessionId, id: &ParticipantId) -> Result<&mut Participant, SessionError> {
        self.session_mut(session)?.participants.get_mut(id).ok_or(SessionError::ParticipantGone)
    }

    fn serial(&mut self) -> u64 {
        self.next_serial = self.next_serial.wrapping_add(1);
        self.next_serial
    }
}

fn token_end(issued: WallMicros) -> WallMicros {
    WallMicros(issued.0.saturating_add(MAX_TOKEN_LIFE_S * 1_000_000))
}
