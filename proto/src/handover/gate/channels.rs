//! Who is connected, and what they said of themselves (HANDOVER.md section 5.2).

use super::output::{Peer, Verified};
use crate::handover::message::{MAX_ANSWERS, Reason, Short};
use crate::handover::types::{ChannelId, ExpertId, Nonce};
use crate::units::Micros;
use std::collections::VecDeque;

/// Channels at most (HO-M-023).
const MOST: usize = 16;
/// Senders of ESTOP remembered, and people muted, at most.
const PEOPLE: usize = 32;

/// One tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Channel {
    pub(super) id: ChannelId,
    pub(super) peer: Peer,
    /// HELLO was said.
    pub(super) hello: bool,
    pub(super) token: Option<Verified>,
    probes: VecDeque<Nonce>,
}

impl Channel {
    pub(super) const fn new(id: ChannelId, peer: Peer) -> Self {
        Self { id, peer, hello: false, token: None, probes: VecDeque::new() }
    }

    /// The oldest is dropped where a screen asks too often.
    pub(super) fn probe(&mut self, nonce: Nonce) {
        if self.probes.len() >= MAX_ANSWERS {
            self.probes.pop_front();
        }
        self.probes.push_back(nonce);
    }

    /// The probes to answer.
    pub(super) fn answers(&mut self) -> Vec<Nonce> {
        self.probes.drain(..).collect()
    }

    /// The station's identity.
    pub(super) const fn expert(&self) -> Option<ExpertId> {
        match self.peer {
            Peer::Station(expert) => Some(expert),
            Peer::Signaling => None,
        }
    }
}

/// All tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Channels(Vec<Channel>);

impl Channels {
    pub(super) fn open(&mut self, id: ChannelId, peer: Peer) -> Result<(), Reason> {
        if self.0.len() >= MOST || self.get(id).is_some() {
            return Err(Reason::Full);
        }
        self.0.push(Channel::new(id, peer));
        Ok(())
    }

    pub(super) fn close(&mut self, id: ChannelId) {
        self.0.retain(|c| c.id != id);
    }

    pub(super) fn get(&self, id: ChannelId) -> Option<&Channel> {
        self.0.iter().find(|c| c.id == id)
    }

    pub(super) fn get_mut(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.0.iter_mut().find(|c| c.id == id)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Channel> {
        self.0.iter_mut()
    }

    /// The expert's channels that said HELLO.
    pub(super) fn of(&self, expert: ExpertId) -> impl Iterator<Item = &Channel> {
        self.0.iter().filter(move |c| c.hello && c.expert() == Some(expert))
    }

    /// All that said HELLO.
    pub(super) fn greeted(&self) -> impl Iterator<Item = ChannelId> {
        self.0.iter().filter(|c| c.hello).map(|c| c.id)
    }
}

/// Who pressed ESTOP lately, and whom local does not hear (HO-M-017).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Estops {
    last: Vec<(Short, Micros)>,
    muted: Vec<Short>,
}

impl Estops {
    /// Whether this one counts. The oldest sender is forgotten where there are too many: an ESTOP too many does no harm.
    pub(super) fn take(&mut self, now: Micros, person: &Short, every: u64) -> bool {
        self.last.retain(|(_, at)| now.since(*at) < every);
        if self.muted.contains(person) || self.last.iter().any(|(each, _)| each == person) {
            return false;
        }
        if self.last.len() >= PEOPLE {
            self.last.remove(0);
        }
        self.last.push((person.clone(), now));
        true
    }

    pub(super) fn mute(&mut self, person: Short) -> Result<(), Reason> {
        if self.muted.len() >= PEOPLE {
            return Err(Reason::Full);
        }
        if !self.muted.contains(&person) {
            self.muted.push(person);
        }
        Ok(())
    }
}

#[cfg(trocar_model)]
impl Estops {
    pub(super) fn canon(&mut self, every: u64, by: &crate::handover::canon::Ruler) {
        self.last.retain(|(_, at)| by.now.since(*at) < every);
        self.last.iter_mut().for_each(|(_, at)| by.past(at, every));
    }
}

#[cfg(trocar_model)]
impl Channels {
    pub(super) fn canon(&mut self, by: &crate::handover::canon::Ruler) {
        self.0.iter_mut().flat_map(|c| c.probes.iter_mut()).for_each(|nonce| by.nonce(nonce));
        self.0.sort_by_key(|c| c.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_estop_counts_per_ten_seconds_and_sender_and_none_of_whom_local_muted() {
        // HO-M-017
        let mut estops = Estops::default();
        let [a, b] = ["a", "b"].map(|s| Short::new(s).unwrap());
        assert!(estops.take(Micros(0), &a, 10));
        assert!(!estops.take(Micros(9), &a, 10));
        assert!(estops.take(Micros(9), &b, 10));
        assert!(estops.take(Micros(10), &a, 10));
        estops.mute(b.clone()).unwrap();
        assert!(!estops.take(Micros(99), &b, 10));
    }

    #[test]
    fn a_seventeenth_channel_is_refused() {
        // HO-M-023
        let mut channels = Channels::default();
        assert!((0..16).all(|n| channels.open(ChannelId(n), Peer::Signaling).is_ok()));
        assert_eq!(channels.open(ChannelId(16), Peer::Signaling), Err(Reason::Full));
    }
}
