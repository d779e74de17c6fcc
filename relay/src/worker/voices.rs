//! Voices of a session: who speaks, and which voice each listener hears on which m-line. The rules are
//! `trocar_proto::media::voices`; here they meet feeds and legs.

use super::peer::Role;
use super::state::Core;
use std::time::Instant;
use trocar_proto::media::voices::{AudioLevel, Slots, Speakers};
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::event::VoiceSlot;
use trocar_proto::session::ids::{FeedId, SessionId};
use trocar_proto::units::Micros;

/// The voices of one session and who listens to them.
pub(crate) struct SessionVoices {
    speakers: Speakers,
    /// Feeds that are voices, in the order in which they came.
    voices: Vec<usize>,
    listeners: Vec<Listener>,
    /// Voices or listeners came or went since the places were given out.
    changed: bool,
}

/// One connection that hears them.
struct Listener {
    peer: usize,
    slots: Slots,
    /// It was told its places once.
    told: bool,
}

impl SessionVoices {
    pub(crate) fn new() -> Self {
        Self { speakers: Speakers::default(), voices: Vec::new(), listeners: Vec::new(), changed: false }
    }

    pub(crate) fn add_voice(&mut self, feed: usize) {
        self.voices.push(feed);
        self.changed = true;
    }

    /// Whether a feed is one of the voices.
    pub(crate) fn has_voice(&self, feed: usize) -> bool {
        self.voices.contains(&feed)
    }

    /// Whether anybody listens.
    pub(crate) const fn has_listeners(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// A packet of a voice came, with the audio level element that it has (RFC 6464).
    pub(crate) fn hear(&mut self, at: Micros, feed: usize, element: Option<&[u8]>) {
        match element.and_then(AudioLevel::from_bytes) {
            Some(level) => self.speakers.handle_level(at, feed, level.dbov_neg),
            None => self.speakers.handle_silent_source(at, feed),
        }
    }

    fn is_empty(&self) -> bool {
        self.voices.is_empty() && self.listeners.is_empty()
    }
}

impl Core {
    /// A peer hears the voices of a session on so many m-lines from now on.
    pub(super) fn add_listener(&mut self, session: &SessionId, peer: usize, places: usize) {
        let voices = self.voices.entry(session.clone()).or_insert_with(SessionVoices::new);
        voices.listeners.push(Listener { peer, slots: Slots::new(places), told: false });
        voices.changed = true;
    }

    pub(super) fn remove_listener(&mut self, session: &SessionId, peer: usize) {
        if let Some(voices) = self.voices.get_mut(session) {
            voices.listeners.retain(|l| l.peer != peer);
            if voices.is_empty() {
                self.voices.remove(session);
            }
        }
    }

    /// A feed ends that may have been a voice. Its legs have lost it already.
    pub(super) fn forget_voice(&mut self, feed: usize) {
        let Some(session) = self.feeds.get(feed).map(|f| f.key.session.clone()) else { return };
        let Some(voices) = self.voices.get_mut(&session) else { return };
        if !voices.has_voice(feed) {
            return;
        }
        voices.voices.retain(|v| *v != feed);
        voices.speakers.remove(feed);
        voices.changed = true;
        if voices.is_empty() {
            self.voices.remove(&session);
        }
    }

    /// Says who speaks, and gives the places of listeners to voices, where something has changed.
    pub(super) fn assign_voices(&mut self, now: Instant, at: Micros) {
        // Walks over at most as many sessions as there are feeds and peers.
        let sessions: Vec<SessionId> = self.voices.keys().cloned().collect();
        for session in sessions {
            let Some(mut voices) = self.voices.remove(&session) else { continue };
            let speaking = voices.speakers.poll(at).map(<[usize]>::to_vec);
            if let Some(speaking) = &speaking {
                let feeds = self.names_of(speaking.iter().copied());
                self.tell(RelayEvent::Speaking { session: session.clone(), feeds });
            }
            if speaking.is_some() || std::mem::take(&mut voices.changed) {
                let SessionVoices { speakers, voices: feeds, listeners, .. } = &mut voices;
                for listener in listeners {
                    self.assign_to(listener, feeds, speakers, now);
                }
            }
            self.voices.insert(session, voices);
        }
    }

    fn names_of(&self, feeds: impl Iterator<Item = usize>) -> Vec<FeedId> {
        feeds.filter_map(|f| self.feeds.get(f)).map(|f| f.key.feed.clone()).collect()
    }

    /// Gives the places of one listener to the voices that it should hear; never its own.
    fn assign_to(&mut self, listener: &mut Listener, feeds: &[usize], speakers: &Speakers, now: Instant) {
        let at = self.micros(now);
        let Some(peer) = self.peers.get(listener.peer) else { return };
        let Role::Listener(who) = &peer.role else { return };
        let (leg, legs) = (who.leg.clone(), peer.legs.clone());
        let others: Vec<usize> =
            feeds.iter().copied().filter(|f| self.feeds.get(*f).is_some_and(|f| f.publisher != who.listener)).collect();
        listener.slots.assign(&others, speakers);
        // Compared with what the legs carry, not with what was assigned before: a feed may have gone in between.
        let mut changed = false;
        for (id, feed) in legs.iter().zip(listener.slots.sources()) {
            if self.legs.get(*id).is_some_and(|l| l.feed != *feed) {
                self.give_voice(*id, *feed, at);
                self.pump_leg(*id, now);
                changed = true;
            }
        }
        if changed || !listener.told {
            listener.told = true;
            let slots = legs.iter().filter_map(|id| self.slot_of(*id)).collect();
            self.tell(RelayEvent::Voices { leg, slots });
        }
    }

    /// Lets a place carry another voice, or none.
    fn give_voice(&mut self, id: usize, feed: Option<usize>, at: Micros) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if let Some(before) = leg.feed.take().and_then(|f| self.feeds.get_mut(f)) {
            before.legs.retain(|l| *l != id);
        }
        if let Some((index, entry)) = feed.and_then(|f| Some((f, self.feeds.get_mut(f)?))) {
            leg.leg.switch(&entry.feed, at);
            leg.feed = Some(index);
            entry.legs.push(id);
        }
    }

    fn slot_of(&self, id: usize) -> Option<VoiceSlot> {
        let leg = self.legs.get(id)?;
        let feed = leg.feed.and_then(|f| self.feeds.get(f)).map(|f| f.key.feed.clone());
        Some(VoiceSlot { mid: leg.webrtc()?.mid.clone(), feed })
    }
}
