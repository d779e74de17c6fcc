//! Which relay has what. No I/O: what happened comes in, what is to be told and done comes out.
//!
//! A feed has a **home**, the relay that its publisher sends to (two, where a protected feed goes to two relays). Another
//! relay that is to show it **fetches** it: it has a mirror there, and an *upstream leg* at each home, whose name begins with
//! the fetching relay's certificate, so that both find each other again after signaling was away.

mod standing;

use std::collections::{BTreeMap, BTreeSet};
use trocar_proto::session::admission::{FeedKey, FlowBinding, RelayEvent};
use trocar_proto::session::api::{FeedPaths, FeedState};
use trocar_proto::session::event::LegState;
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Purpose};
use trocar_proto::session::ids::{CertHash, LegId, ParticipantId, PublicationId, RealmId, SessionId};
use trocar_proto::session::remote::RelayHello;
use trocar_proto::units::WallMicros;

/// Paths that are to bring a protected feed.
const EXPECTED: u8 = 2;

/// How a relay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its event stream runs.
    Up,
    /// Nothing was heard of it for a while. Its media may run.
    Silent,
    /// Its process is gone, or it was silent for so long that others take its work.
    Gone,
}

/// One relay of the configuration.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: String,
    /// Realms that it is to serve; those of its listeners where empty.
    pub(super) realms: Vec<RealmId>,
    /// Whether publishers are sent to it, and viewers.
    pub(super) takes: (bool, bool),
    pub(super) standing: Standing,
    pub(super) hello: Option<RelayHello>,
    /// Whether an expert operates by its rendezvous, by its last word: one that is not heard any more may have him still.
    operated: bool,
    /// What it could not be told to close while it was not up.
    owed: BTreeSet<Owed>,
}

impl Member {
    pub(super) const fn new(name: String, realms: Vec<RealmId>, takes: (bool, bool)) -> Self {
        Self { name, realms, takes, standing: Standing::Gone, hello: None, operated: false, owed: BTreeSet::new() }
    }

    pub(super) fn is_up(&self) -> bool {
        self.standing == Standing::Up
    }

    fn serves(&self, realm: &RealmId) -> bool {
        let has = self.hello.as_ref().is_some_and(|h| h.realms.contains(realm));
        has && (self.realms.is_empty() || self.realms.contains(realm))
    }
}

/// What a relay still has to close.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owed {
    Feed(FeedKey),
    Leg(LegId),
    Publication(PublicationId),
}

/// What is to be done at a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Close(usize, Owed),
    /// The mirror of a feed at that relay wants its upstream legs anew.
    Mend(FeedKey, usize),
}

/// A feed's copy at a home.
#[derive(Debug, Clone)]
struct Home {
    member: usize,
    /// When it was written down.
    turn: u64,
    state: FeedState,
    /// How many paths bring it; none until the relay said it.
    paths: Option<u8>,
}

#[derive(Debug, Clone)]
struct Placed {
    publisher: ParticipantId,
    descriptor: FeedDescriptor,
    publication: Option<PublicationId>,
    homes: Vec<Home>,
}

impl Placed {
    fn state(&self) -> FeedState {
        let any = |s| self.homes.iter().any(|h| h.state == s);
        [FeedState::Live, FeedState::Stalled].into_iter().find(|s| any(*s)).unwrap_or(FeedState::Waiting)
    }
}

/// A feed's copy at a relay that fetches it.
#[derive(Debug, Clone)]
struct Mirror {
    /// When it was written down.
    turn: u64,
    /// How many homes it comes from there; none until the relay said it.
    paths: Option<u8>,
}

#[derive(Debug, Clone)]
struct PlacedLeg {
    member: usize,
    turn: u64,
}

/// A leg by which one relay fetches from another.
#[derive(Debug, Clone)]
struct Upstream {
    member: usize,
    turn: u64,
    feed: FeedKey,
    /// None where signaling was away when it was opened.
    binding: Option<FlowBinding>,
}

/// What a mirror needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CascadePlan {
    pub(super) publisher: ParticipantId,
    pub(super) descriptor: FeedDescriptor,
    /// Homes that a leg is to be opened at.
    pub(super) open_at: Vec<usize>,
    /// Bindings of upstream legs that are there.
    pub(super) kept: Vec<FlowBinding>,
    /// The mirror is there, and nothing is to be done.
    pub(super) is_whole: bool,
}

/// The book of signaling.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) members: Vec<Member>,
    feeds: BTreeMap<FeedKey, Placed>,
    /// A leg is at one relay, or at two with the same flows.
    legs: BTreeMap<LegId, Vec<PlacedLeg>>,
    publications: BTreeMap<PublicationId, PlacedLeg>,
    voices: BTreeMap<LegId, SessionId>,
    mirrors: BTreeMap<(FeedKey, usize), Mirror>,
    upstreams: BTreeMap<LegId, Upstream>,
    /// Feeds that a relay is being asked to open, and what it said of them before its answer came.
    asked: BTreeMap<(FeedKey, usize), Option<FeedDescriptor>>,
    turn: u64,
}

/// What came of something.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) tell: Vec<RelayEvent>,
    pub(super) acts: Vec<Act>,
}

/// How the name of an upstream leg begins for the relay with that certificate.
pub(super) fn upstream_prefix(certificate: CertHash) -> String {
    let mut prefix = String::from("up-");
    certificate.0.iter().take(6).for_each(|b| prefix.push_str(&format!("{b:02x}")));
    prefix.push('-');
    prefix
}

impl Places {
    pub(super) fn new(members: Vec<Member>) -> Self {
        Self { members, ..Self::default() }
    }

    /// Counts moments: what is written down after a stream was asked for need not be in its first line.
    pub(super) fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    fn is_up(&self, member: usize) -> bool {
        self.members.get(member).is_some_and(Member::is_up)
    }

    /// Whether any relay is to serve the realm, up or not.
    pub(super) fn knows_realm(&self, realm: &RealmId) -> bool {
        self.members.iter().any(|m| m.hello.is_none() || m.serves(realm))
    }

    /// Relays that a publisher of that realm can be sent to, the first one first.
    pub(super) fn for_feed(&self, realm: &RealmId) -> Vec<usize> {
        let fit = |m: &Member| m.is_up() && m.takes.0 && m.serves(realm);
        self.members.iter().enumerate().filter(|(_, m)| fit(m)).map(|(i, _)| i).collect()
    }

    /// Relays that can show the feed to viewers of that realm: its homes, then those that would have to fetch it.
    pub(super) fn for_leg(&self, key: &FeedKey, realm: &RealmId) -> Vec<usize> {
        let homes = self.homes(key);
        let fit = |m: &Member| m.is_up() && m.takes.1 && m.serves(realm);
        let all: Vec<usize> = self.members.iter().enumerate().filter(|(_, m)| fit(m)).map(|(i, _)| i).collect();
        let (own, others): (Vec<usize>, Vec<usize>) = all.into_iter().partition(|m| homes.contains(m));
        own.into_iter().chain(others).collect()
    }

    /// The relay for the voices of a session: the one with most of them, so that fewest are fetched.
    pub(super) fn for_voices(&self, session: &SessionId, realm: &RealmId) -> Vec<usize> {
        let fit = |m: &Member| m.is_up() && m.takes.1 && m.serves(realm);
        let mut all: Vec<usize> = self.members.iter().enumerate().filter(|(_, m)| fit(m)).map(|(i, _)| i).collect();
        let voices = self.voices_of(session);
        let here = |member: usize| voices.iter().filter(|key| self.homes(key).contains(&member)).count();
        all.sort_by_key(|m| std::cmp::Reverse(here(*m)));
        all
    }

    /// The voices of a session.
    pub(super) fn voices_of(&self, session: &SessionId) -> Vec<FeedKey> {
        let is_voice = |d: &FeedDescriptor| d.kind == MediaKind::Audio && d.purpose == Purpose::Voice;
        let of_it = self.feeds.iter().filter(|(key, f)| &key.session == session && is_voice(&f.descriptor));
        of_it.map(|(key, _)| key.clone()).collect()
    }

    /// Relays where somebody listens to the voices of a session.
    pub(super) fn listened_at(&self, session: &SessionId) -> BTreeSet<usize> {
        let legs = self.voices.iter().filter(|(_, s)| *s == session);
        legs.filter_map(|(leg, _)| self.of_leg(leg)).collect()
    }

    /// Relays that the feed's publisher sends to.
    pub(super) fn homes(&self, key: &FeedKey) -> Vec<usize> {
        self.feeds.get(key).map(|f| f.homes.iter().map(|h| h.member).collect()).unwrap_or_default()
    }

    /// Whether a relay has the feed, at home or fetched.
    pub(super) fn has_feed_at(&self, key: &FeedKey, member: usize) -> bool {
        self.home_since(key, member).is_some() || self.is_mirrored(key, member)
    }

    /// The turn at which a relay became a home of the feed.
    pub(super) fn home_since(&self, key: &FeedKey, member: usize) -> Option<u64> {
        self.feeds.get(key)?.homes.iter().find(|h| h.member == member).map(|h| h.turn)
    }

    /// The relay of that name.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|m| m.name == name)
    }

    /// Relays through which somebody operates, in words, whether they are heard now or not.
    pub(super) fn operated(&self) -> BTreeMap<usize, String> {
        let operated = self.members.iter().enumerate().filter(|(_, m)| m.operated);
        let words = |m: &Member| {
            let lost = if m.is_up() { "" } else { " (which was the last that was heard of it)" };
            format!("relay {}{lost}", m.name)
        };
        operated.map(|(i, m)| (i, words(m))).collect()
    }

    /// The relay of a leg.
    pub(super) fn of_leg(&self, leg: &LegId) -> Option<usize> {
        self.legs.get(leg).and_then(|at| at.first()).map(|l| l.member)
    }

    /// The relay of a publication.
    pub(super) fn of_publication(&self, publication: &PublicationId) -> Option<usize> {
        self.publications.get(publication).map(|p| p.member)
    }

    /// A relay is being asked to open a feed. What it says of it comes by another way than its answer, and may be first.
    pub(super) fn ask_feed(&mut self, member: usize, key: &FeedKey) {
        self.asked.insert((key.clone(), member), None);
    }

    /// It has not opened it.
    pub(super) fn refuse_feed(&mut self, member: usize, key: &FeedKey) {
        self.asked.remove(&(key.clone(), member));
    }

    /// A relay has opened a feed.
    pub(super) fn note_feed(
        &mut self,
        member: usize,
        key: &FeedKey,
        publisher: &ParticipantId,
        descriptor: &FeedDescriptor,
        publication: Option<&PublicationId>,
    ) {
        let turn = self.next_turn();
        let home = Home { member, turn, state: FeedState::Waiting, paths: None };
        let said = self.asked.remove(&(key.clone(), member)).flatten();
        let placed = self.feeds.entry(key.clone()).or_insert_with(|| Placed {
            publisher: publisher.clone(),
            descriptor: descriptor.clone(),
            publication: publication.cloned(),
            homes: Vec::new(),
        });
        if let Some(said) = said {
            placed.descriptor = said;
        }
        placed.homes.retain(|h| h.member != member);
        placed.homes.push(home);
    }

    /// A relay has opened a leg; `voices` names the session where it carries those.
    pub(super) fn note_leg(&mut self, member: usize, leg: &LegId, voices: Option<&SessionId>) {
        let turn = self.next_turn();
        self.legs.entry(leg.clone()).or_default().push(PlacedLeg { member, turn });
        if let Some(session) = voices {
            self.voices.insert(leg.clone(), session.clone());
        }
    }

    /// A relay has opened a publication.
    pub(super) fn note_publication(&mut self, member: usize, publication: &PublicationId) {
        let turn = self.next_turn();
        self.publications.insert(publication.clone(), PlacedLeg { member, turn });
    }

    /// A relay lets another one fetch a feed.
    pub(super) fn note_upstream(&mut self, member: usize, leg: LegId, feed: FeedKey, binding: FlowBinding) {
        let turn = self.next_turn();
        self.upstreams.insert(leg, Upstream { member, turn, feed, binding: Some(binding) });
    }

    /// An upstream leg was opened for nothing; what is to be done.
    pub(super) fn give_up_upstream(&mut self, leg: LegId) -> Option<Act> {
        let gone = self.upstreams.remove(&leg)?;
        self.owe(gone.member, Owed::Leg(leg))
    }

    /// A relay fetches a feed.
    pub(super) fn note_mirror(&mut self, key: FeedKey, member: usize) {
        let turn = self.next_turn();
        let place = (key, member);
        // One that is mended is the one that it was.
        let paths = self.mirrors.get(&place).and_then(|m| m.paths);
        self.mirrors.insert(place, Mirror { turn, paths });
    }

    /// A relay says that it has no mirror where one was thought to be.
    pub(super) fn forget_mirror(&mut self, key: &FeedKey, member: usize) -> Vec<Act> {
        self.mirrors.remove(&(key.clone(), member));
        self.drop_upstreams(key, member)
    }

    /// Whether a relay fetches the feed.
    pub(super) fn is_mirrored(&self, key: &FeedKey, member: usize) -> bool {
        self.mirrors.contains_key(&(key.clone(), member))
    }

    /// What has to be done so that `member` shows the feed; none where it is not known, or at home there.
    pub(super) fn plan_cascade(&self, key: &FeedKey, member: usize) -> Option<CascadePlan> {
        let placed = self.feeds.get(key)?;
        if placed.homes.iter().any(|h| h.member == member) {
            return None;
        }
        let certificate = self.members.get(member)?.hello.as_ref()?.certificate;
        let prefix = upstream_prefix(certificate);
        let legs = self.upstreams.iter().filter(|(leg, u)| leg.as_str().starts_with(&prefix) && &u.feed == key);
        let legs: Vec<(usize, Option<FlowBinding>)> = legs.map(|(_, u)| (u.member, u.binding.clone())).collect();
        let has = |home: usize| legs.iter().any(|(m, _)| *m == home);
        let is_mirrored = self.is_mirrored(key, member);
        let up = placed.homes.iter().map(|h| h.member).filter(|m| self.is_up(*m));
        // A mirror from before signaling was away runs on legs whose flows are not known any more: good as it is.
        let known = |home: usize| legs.iter().any(|(m, b)| *m == home && (b.is_some() || is_mirrored));
        let open_at: Vec<usize> = up.filter(|home| !has(*home) || !known(*home)).collect();
        let kept = legs.into_iter().filter_map(|(_, b)| b).collect();
        let (publisher, descriptor) = (placed.publisher.clone(), placed.descriptor.clone());
        Some(CascadePlan { publisher, descriptor, is_whole: is_mirrored && open_at.is_empty(), open_at, kept })
    }

    /// A feed ends everywhere; where it has to be closed.
    pub(super) fn close_feed(&mut self, key: &FeedKey) -> Vec<Act> {
        let homes = self.homes(key);
        let is_known = self.feeds.remove(key).is_some();
        let mirrored: Vec<usize> = self.mirrors.keys().filter(|(k, _)| k == key).map(|(_, m)| *m).collect();
        self.mirrors.retain(|(k, _), _| k != key);
        self.upstreams.retain(|_, u| &u.feed != key);
        let everywhere = if is_known { homes } else { self.all_up() };
        let at = everywhere.into_iter().chain(mirrored);
        at.filter_map(|m| self.owe(m, Owed::Feed(key.clone()))).collect()
    }

    /// A leg ends; where it has to be closed.
    pub(super) fn close_leg(&mut self, leg: &LegId) -> Vec<Act> {
        self.voices.remove(leg);
        let placed = self.legs.remove(leg);
        let at = placed.map_or_else(|| self.all_up(), |at| at.iter().map(|l| l.member).collect());
        at.into_iter().filter_map(|m| self.owe(m, Owed::Leg(leg.clone()))).collect()
    }

    /// A publication ends with its feeds; where it has to be closed.
    pub(super) fn close_publication(&mut self, publication: &PublicationId) -> Vec<Act> {
        let mut acts: Vec<Act> = self.drop_publication(publication);
        let at = self.publications.remove(publication).map_or_else(|| self.all_up(), |p| vec![p.member]);
        acts.extend(at.into_iter().filter_map(|m| self.owe(m, Owed::Publication(publication.clone()))));
        acts
    }

    /// A relay that never heard of something closes it for nothing; one that opened it after the time was up, for good.
    fn all_up(&self) -> Vec<usize> {
        self.members.iter().enumerate().filter(|(_, m)| m.is_up()).map(|(i, _)| i).collect()
    }

    /// What a relay is to close now, or when it comes back.
    fn owe(&mut self, member: usize, owed: Owed) -> Option<Act> {
        let m = self.members.get_mut(member)?;
        if m.is_up() {
            return Some(Act::Close(member, owed));
        }
        m.owed.insert(owed);
        None
    }

    /// The feeds of a publication are no more: their mirrors end.
    fn drop_publication(&mut self, publication: &PublicationId) -> Vec<Act> {
        let of_it = |f: &Placed| f.publication.as_ref() == Some(publication);
        let keys: Vec<FeedKey> = self.feeds.iter().filter(|(_, f)| of_it(f)).map(|(k, _)| k.clone()).collect();
        let mut acts = Vec::new();
        for key in keys {
            let homes = self.homes(&key);
            let close = self.close_feed(&key);
            // At home it ends with the publication.
            acts.extend(close.into_iter().filter(|a| !matches!(a, Act::Close(m, _) if homes.contains(m))));
        }
        acts
    }

    fn drop_upstreams(&mut self, key: &FeedKey, member: usize) -> Vec<Act> {
        let Some(hello) = self.members.get(member).and_then(|m| m.hello.as_ref()) else { return Vec::new() };
        let prefix = upstream_prefix(hello.certificate);
        let is_its = |leg: &LegId, u: &Upstream| leg.as_str().starts_with(&prefix) && &u.feed == key;
        let gone: Vec<(LegId, usize)> =
            self.upstreams.iter().filter(|(l, u)| is_its(l, u)).map(|(l, u)| (l.clone(), u.member)).collect();
        let mut acts = Vec::new();
        for (leg, at) in gone {
            self.upstreams.remove(&leg);
            acts.extend(self.owe(at, Owed::Leg(leg)));
        }
        acts
    }

    /// An upstream leg is no more: the relay that it led to, where that still has a mirror.
    fn lose_upstream(&mut self, leg: &LegId) -> Option<Act> {
        let gone = self.upstreams.remove(leg)?;
        let fetches =
            |m: &Member| m.hello.as_ref().is_some_and(|h| leg.as_str().starts_with(&upstream_prefix(h.certificate)));
        let member = self.members.iter().position(fetches)?;
        let mirrored = self.mirrors.contains_key(&(gone.feed.clone(), member));
        (mirrored && self.feeds.contains_key(&gone.feed)).then_some(Act::Mend(gone.feed, member))
    }

    /// Something happened at a relay.
    pub(super) fn hear(&mut self, member: usize, event: RelayEvent) -> Outcome {
        let mut outcome = Outcome::default();
        match event {
            RelayEvent::FeedState { key, state, since } => {
                if let Some(placed) = self.feeds.get_mut(&key)
                    && let Some(home) = placed.homes.iter_mut().find(|h| h.member == member)
                {
                    home.state = state;
                    let state = placed.state();
                    outcome.tell.push(RelayEvent::FeedState { key, state, since });
                }
            }
            RelayEvent::Paths { key, paths } => outcome.tell.extend(self.hear_paths(member, key, paths)),
            RelayEvent::Descriptor { key, descriptor } => {
                if let Some(placed) = self.feeds.get_mut(&key).filter(|p| p.homes.iter().any(|h| h.member == member)) {
                    placed.descriptor = descriptor.clone();
                    outcome.tell.push(RelayEvent::Descriptor { key, descriptor });
                } else if let Some(said) = self.asked.get_mut(&(key.clone(), member)) {
                    // Whoever asked has written the name down already.
                    *said = Some(descriptor.clone());
                    outcome.tell.push(RelayEvent::Descriptor { key, descriptor });
                }
            }
            RelayEvent::Leg { leg, state } => {
                if self.upstreams.contains_key(&leg) {
                    if state == LegState::Closed {
                        outcome.acts.extend(self.lose_upstream(&leg));
                    }
                } else {
                    outcome.tell.extend(self.hear_leg(member, leg, state));
                }
            }
            RelayEvent::Publication { publication, state } => {
                if state == LegState::Closed {
                    outcome.acts.extend(self.drop_publication(&publication));
                    self.publications.remove(&publication);
                }
                outcome.tell.push(RelayEvent::Publication { publication, state });
            }
            RelayEvent::CascadeClosed { key } => {
                outcome.acts.extend(self.forget_mirror(&key, member));
                outcome.tell.extend(self.paths_now(&key, crate::app::wall_clock()));
            }
            RelayEvent::Operated { operated } => {
                if let Some(m) = self.members.get_mut(member) {
                    m.operated = operated;
                }
            }
            RelayEvent::State(_) | RelayEvent::FeedClosed { .. } => {}
            other => outcome.tell.push(other),
        }
        outcome
    }

    /// A leg at two relays is over when both have closed it, and goes on while one is connected.
    fn hear_leg(&mut self, member: usize, leg: LegId, state: LegState) -> Option<RelayEvent> {
        let others = self.legs.get(&leg).is_some_and(|at| at.iter().any(|l| l.member != member));
        match (state, others) {
            (LegState::Closed, true) => {
                if let Some(at) = self.legs.get_mut(&leg) {
                    at.retain(|l| l.member != member);
                }
                None
            }
            (LegState::Closed, false) => {
                self.legs.remove(&leg);
                self.voices.remove(&leg);
                Some(RelayEvent::Leg { leg, state })
            }
            (LegState::Connecting, true) => None,
            _ => Some(RelayEvent::Leg { leg, state }),
        }
    }

    /// What a home says of its paths counts, and what a relay says that fetches: where one of two ways to it is gone, its viewers are
    /// as unprotected as if it were the publisher's.
    fn hear_paths(&mut self, member: usize, key: FeedKey, paths: FeedPaths) -> Option<RelayEvent> {
        let placed = self.feeds.get_mut(&key)?;
        if let Some(home) = placed.homes.iter_mut().find(|h| h.member == member) {
            home.paths = Some(paths.alive);
        } else {
            self.mirrors.get_mut(&(key.clone(), member))?.paths = Some(paths.alive);
        }
        self.paths_now(&key, paths.since)
    }

    /// How many paths bring a protected feed. One at two homes has one path to each, and a relay that fetches it one from each; from a
    /// single home it is fetched once, which is no loss. None where no home said anything: it is not protected.
    fn paths_now(&self, key: &FeedKey, since: WallMicros) -> Option<RelayEvent> {
        let placed = self.feeds.get(key)?;
        let brought = placed.homes.iter().filter_map(|h| h.paths).reduce(u8::saturating_add)?;
        let fetched = self.mirrors.iter().filter(|((k, _), _)| k == key && placed.homes.len() > 1);
        let alive = fetched.filter_map(|(_, m)| m.paths).fold(brought.min(EXPECTED), u8::min);
        Some(RelayEvent::Paths { key: key.clone(), paths: FeedPaths { expected: EXPECTED, alive, since } })
    }
}
