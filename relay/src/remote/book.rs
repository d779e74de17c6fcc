//! What signaling was granted and what became of it, so that a signaling that starts again learns what is there; and who
//! listens to events.
//!
//! The worker says nothing twice, so this is written from what passes by: grants and answers on their way to the asker,
//! events on their way to the listeners. It is as large as what the relay admits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use trocar_proto::session::admission::{
    FeedGrant, FeedKey, FlowBinding, PublicationAnswer, PublicationGrant, RelayEvent,
};
use trocar_proto::session::api::FeedState;
use trocar_proto::session::event::LegState;
use trocar_proto::session::feed::FeedDescriptor;
use trocar_proto::session::ids::{CertHash, LegId, PublicationId};
use trocar_proto::session::remote::{FeedHeld, FeedOrigin, LegHeld, LegShape, PublicationHeld, RelayHello, RelayState};
use trocar_proto::session::remote::{StreamLine, Word};
use trocar_proto::units::WallMicros;

/// Event streams at a time: a signaling node, its successor, and somebody who looks.
const LISTENERS: usize = 4;
/// Lines that wait for one listener. Loss policy: points of the time map are left out from half of it on; when it is full
/// the stream ends, and the listener learns all anew from the next one.
const LINES: usize = 4_096;

/// One listener.
struct Listener {
    lines: mpsc::Sender<StreamLine>,
    seq: u64,
}

impl Listener {
    /// Whether it is still there.
    fn say(&mut self, word: Word) -> bool {
        let is_point = matches!(word, Word::Event(RelayEvent::Capture { .. }));
        if is_point && self.lines.capacity() < self.lines.max_capacity() / 2 {
            return true;
        }
        let line = StreamLine { seq: self.seq, word };
        self.seq += 1;
        self.lines.try_send(line).is_ok()
    }
}

struct Written {
    hello: RelayHello,
    feeds: BTreeMap<FeedKey, FeedHeld>,
    legs: BTreeMap<LegId, LegHeld>,
    publications: BTreeMap<PublicationId, PublicationHeld>,
    cascades: BTreeSet<FeedKey>,
    operated: bool,
    /// Legs and publications that are being asked for, and what their transports became meanwhile.
    asked: BTreeMap<String, LegState>,
    /// Feeds that are being asked for, and what the worker said of them meanwhile.
    asked_feeds: BTreeMap<FeedKey, Option<FeedDescriptor>>,
    listeners: Vec<Listener>,
}

/// The book.
pub(super) struct Book {
    written: Mutex<Written>,
}

impl Book {
    pub(super) fn new(hello: RelayHello) -> Self {
        Self { written: Mutex::new(Written::new(hello)) }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A feed is being asked for: the worker may describe it before it answers.
    pub(super) fn ask_feed(&self, key: &FeedKey) {
        self.written().asked_feeds.insert(key.clone(), None);
    }

    /// It was refused.
    pub(super) fn refused_feed(&self, key: &FeedKey) {
        self.written().asked_feeds.remove(key);
    }

    /// Notes a feed that was opened, after [`Self::ask_feed`].
    pub(super) fn note_feed(&self, grant: FeedGrant, binding: FlowBinding) {
        let mut written = self.written();
        let said = written.asked_feeds.remove(&grant.key).flatten();
        let held = FeedHeld {
            key: grant.key.clone(),
            publisher: grant.publisher.clone(),
            descriptor: said.unwrap_or_else(|| grant.descriptor.clone()),
            origin: FeedOrigin::Roq { grant: Box::new(grant), binding },
            state: FeedState::Waiting,
            since: crate::worker::wall_now(),
        };
        written.feeds.insert(held.key.clone(), held);
    }

    pub(super) fn forget_feed(&self, key: &FeedKey) {
        self.written().close_feed(key);
    }

    /// A leg or publication of that name is being asked for: events about it may come before the answer.
    pub(super) fn ask(&self, name: &str) {
        self.written().asked.insert(name.to_owned(), LegState::Connecting);
    }

    /// It was refused.
    pub(super) fn refused(&self, name: &str) {
        self.written().asked.remove(name);
    }

    /// Notes a leg that was opened, after [`Self::ask`].
    pub(super) fn note_leg(&self, shape: LegShape) {
        let held = LegHeld { shape, state: LegState::Connecting, slots: Vec::new() };
        let mut written = self.written();
        let leg = held.leg().clone();
        if let Some(state) = written.asked.remove(leg.as_str()).filter(|s| *s != LegState::Closed) {
            written.legs.insert(leg, LegHeld { state, ..held });
        }
    }

    pub(super) fn note_ice(&self, leg: &LegId, session: &str) {
        if let Some(LegShape::Webrtc(_, ice) | LegShape::Voices(_, ice)) =
            self.written().legs.get_mut(leg).map(|l| &mut l.shape)
        {
            session.clone_into(ice);
        }
    }

    pub(super) fn forget_leg(&self, leg: &LegId) {
        self.written().legs.remove(leg);
    }

    pub(super) fn note_publication(&self, grant: PublicationGrant, answer: &PublicationAnswer) {
        let mut written = self.written();
        let name = grant.publication.clone();
        let state = written.asked.remove(name.as_str()).filter(|s| *s != LegState::Closed);
        let Some(state) = state else { return };
        for descriptor in &answer.feeds {
            let held = FeedHeld {
                key: FeedKey { session: grant.session.clone(), feed: descriptor.feed.clone() },
                publisher: grant.publisher.clone(),
                origin: FeedOrigin::Whip { publication: name.clone() },
                descriptor: descriptor.clone(),
                state: FeedState::Waiting,
                since: crate::worker::wall_now(),
            };
            written.feeds.insert(held.key.clone(), held);
        }
        written.publications.insert(name, PublicationHeld { grant, ice_session: answer.ice_session.clone(), state });
    }

    pub(super) fn note_publication_ice(&self, publication: &PublicationId, session: &str) {
        if let Some(held) = self.written().publications.get_mut(publication) {
            session.clone_into(&mut held.ice_session);
        }
    }

    pub(super) fn forget_publication(&self, publication: &PublicationId) {
        self.written().close_publication(publication);
    }

    pub(super) fn note_cascade(&self, key: FeedKey) {
        self.written().cascades.insert(key);
    }

    pub(super) fn forget_cascade(&self, key: &FeedKey) {
        self.written().cascades.remove(key);
    }

    /// Writes an event down and passes it on.
    pub(super) fn hear(&self, event: RelayEvent) {
        let mut written = self.written();
        written.note(&event);
        written.say(&Word::Event(event));
    }

    /// Says that there is nothing to say.
    pub(super) fn alive(&self) {
        self.written().say(&Word::Alive);
    }

    /// A new listener, which first hears all that is there; none where there are too many.
    pub(super) fn listen(&self) -> Option<mpsc::Receiver<StreamLine>> {
        let mut written = self.written();
        written.listeners.retain(|l| !l.lines.is_closed());
        if written.listeners.len() >= LISTENERS {
            return None;
        }
        let (lines, receiver) = mpsc::channel(LINES);
        let mut listener = Listener { lines, seq: 0 };
        listener.say(Word::Hello(Box::new(written.hello.clone()), Box::new(written.state())));
        written.listeners.push(listener);
        Some(receiver)
    }

    /// The relay shows another certificate from now on. Streams that stand end: each begins with who the relay is.
    pub(super) fn show(&self, certificate: CertHash) {
        let mut written = self.written();
        written.hello.certificate = certificate;
        written.listeners.clear();
    }

    /// All that is there.
    #[cfg(test)]
    pub(super) fn state(&self) -> RelayState {
        self.written().state()
    }
}

impl Written {
    fn new(hello: RelayHello) -> Self {
        Self {
            hello,
            feeds: BTreeMap::new(),
            legs: BTreeMap::new(),
            publications: BTreeMap::new(),
            cascades: BTreeSet::new(),
            operated: false,
            asked: BTreeMap::new(),
            asked_feeds: BTreeMap::new(),
            listeners: Vec::new(),
        }
    }

    fn state(&self) -> RelayState {
        RelayState {
            feeds: self.feeds.values().cloned().collect(),
            legs: self.legs.values().cloned().collect(),
            publications: self.publications.values().cloned().collect(),
            cascades: self.cascades.iter().cloned().collect(),
            operated: self.operated,
        }
    }

    fn say(&mut self, word: &Word) {
        self.listeners.retain_mut(|l| l.say(word.clone()));
    }

    fn close_feed(&mut self, key: &FeedKey) {
        self.feeds.remove(key);
    }

    fn close_publication(&mut self, publication: &PublicationId) {
        self.publications.remove(publication);
        let of_it = |f: &FeedHeld| matches!(&f.origin, FeedOrigin::Whip { publication: own } if own == publication);
        self.feeds.retain(|_, f| !of_it(f));
    }

    fn note_early(&mut self, name: &str, state: LegState) {
        if let Some(asked) = self.asked.get_mut(name) {
            *asked = state;
        }
    }

    fn note(&mut self, event: &RelayEvent) {
        match event {
            RelayEvent::FeedState { key, state, since } => self.note_feed_state(key, *state, *since),
            RelayEvent::Descriptor { key, descriptor } => {
                if let Some(held) = self.feeds.get_mut(key) {
                    held.descriptor = descriptor.clone();
                } else if let Some(said) = self.asked_feeds.get_mut(key) {
                    *said = Some(descriptor.clone());
                }
            }
            RelayEvent::Leg { leg, state } => match (state, self.legs.get_mut(leg)) {
                (LegState::Closed, Some(_)) => drop(self.legs.remove(leg)),
                (_, Some(held)) => held.state = *state,
                (_, None) => self.note_early(leg.as_str(), *state),
            },
            RelayEvent::Publication { publication, state } => match (state, self.publications.get_mut(publication)) {
                (LegState::Closed, Some(_)) => self.close_publication(publication),
                (_, Some(held)) => held.state = *state,
                (_, None) => self.note_early(publication.as_str(), *state),
            },
            RelayEvent::Voices { leg, slots } => {
                if let Some(held) = self.legs.get_mut(leg) {
                    held.slots.clone_from(slots);
                }
            }
            RelayEvent::Switched { leg, feed } => {
                if let Some(LegShape::Roq(grant) | LegShape::Webrtc(grant, _)) =
                    self.legs.get_mut(leg).map(|l| &mut l.shape)
                {
                    grant.feed.clone_from(feed);
                }
            }
            RelayEvent::CascadeClosed { key } => drop(self.cascades.remove(key)),
            RelayEvent::Operated { operated } => self.operated = *operated,
            _ => {}
        }
    }

    fn note_feed_state(&mut self, key: &FeedKey, state: FeedState, since: WallMicros) {
        if let Some(held) = self.feeds.get_mut(key) {
            (held.state, held.since) = (state, since);
        }
    }
}
