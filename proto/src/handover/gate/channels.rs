//! Who is connected, and what they said of themselves (HANDOVER.md section 5.2).

use super::output::{Peer, Verified};
use crate::handover::message::{MAX_ANSWERS, Reason, Short};
use crate::handover::types::{ChannelId, ExpertId, Nonce};
use crate::units::Micros;
use std::collections::VecDeque;

/// Channels at most (HO-M-023).
const MOST: usize = 16;
/// Senders of ESTOP remembered, and senders muted, at most.
const PEOPLE: usize = 32;
/// ESTOPs by way of signaling, of all people together, within the time in which one person's counts once.
const OF_SIGNALING: usize = 10;
/// Bytes of a name.
const SHORT: usize = 128;

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

/// Who pressed ESTOP, as it is counted and muted: what its sender cannot change by joining again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Sender {
    /// A station is its certificate, whoever its token names.
    Station(ExpertId),
    /// Of signaling, the person on whose behalf it speaks, as shown.
    Person(Short),
}

impl Sender {
    /// The sender, and how it is shown to local: a station as person and certificate, by which MUTE finds it again.
    pub(super) fn of(peer: Peer, person: &Short) -> (Self, Short) {
        match peer {
            Peer::Station(expert) => (Self::Station(expert), with_certificate(person.as_str(), expert)),
            Peer::Signaling => {
                // What looks like a station's certificate is not taken over from anybody's name.
                let shown = short(&person.as_str().replace('[', "(").replace(']', ")"));
                (Self::Person(shown.clone()), shown)
            }
        }
    }

    /// Whether that is how it is, or was under another name, shown.
    fn is_shown_as(&self, shown: &Short) -> bool {
        match self {
            Self::Station(expert) => shown.as_str().ends_with(&certificate(*expert)),
            Self::Person(person) => person == shown,
        }
    }
}

/// A certificate in the name of a sender: the first 16 of its 64 digits.
fn certificate(ExpertId(hash): ExpertId) -> String {
    let digits: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!(" [{digits}]")
}

fn with_certificate(person: &str, expert: ExpertId) -> Short {
    let certificate = certificate(expert);
    short(&format!("{}{certificate}", cut(person, SHORT.saturating_sub(certificate.len()))))
}

fn short(text: &str) -> Short {
    // What is cut to the bound fits.
    Short::new(cut(text, SHORT)).unwrap_or_default()
}

/// As much of the text as fits into so many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// Who pressed ESTOP lately, and whom local does not hear (HO-M-017).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Estops {
    last: Vec<(Sender, Micros)>,
    muted: Vec<Short>,
}

impl Estops {
    /// Whether this one counts. The oldest sender is forgotten where there are too many: an ESTOP too many does no harm.
    pub(super) fn take(&mut self, now: Micros, sender: &Sender, every: u64) -> bool {
        self.last.retain(|(_, at)| now.since(*at) < every);
        if self.muted.iter().any(|shown| sender.is_shown_as(shown)) || self.last.iter().any(|(each, _)| each == sender)
        {
            return false;
        }
        let of_signaling = self.last.iter().filter(|(each, _)| matches!(each, Sender::Person(_))).count();
        if matches!(sender, Sender::Person(_)) && of_signaling >= OF_SIGNALING {
            return false;
        }
        if self.last.len() >= PEOPLE {
            self.last.remove(0);
        }
        self.last.push((sender.clone(), now));
        true
    }

    /// Hears no more ESTOP of whoever was shown by that name.
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
        let [(a, _), (b, shown)] = ["a", "b"].map(|s| Sender::of(Peer::Signaling, &short(s)));
        assert!(estops.take(Micros(0), &a, 10));
        assert!(!estops.take(Micros(9), &a, 10));
        assert!(estops.take(Micros(9), &b, 10));
        assert!(estops.take(Micros(10), &a, 10));
        estops.mute(shown).unwrap();
        assert!(!estops.take(Micros(99), &b, 10));
    }

    #[test]
    fn a_station_is_its_certificate_under_every_name() {
        // HO-M-017: whoever joins again has another subject in the token.
        let (one, other) = (Peer::Station(ExpertId([0xab; 32])), Peer::Station(ExpertId([0xcd; 32])));
        let mut estops = Estops::default();
        let (sender, shown) = Sender::of(one, &short("p-1"));
        assert_eq!(shown.as_str(), "p-1 [abababababababab]");
        assert!(estops.take(Micros(0), &sender, 10));
        assert!(!estops.take(Micros(1), &Sender::of(one, &short("p-2")).0, 10));
        estops.mute(shown.clone()).unwrap();
        assert!(!estops.take(Micros(99), &Sender::of(one, &short("p-3")).0, 10));
        assert!(estops.take(Micros(99), &Sender::of(other, &short("p-1")).0, 10));
        // Nobody's name at signaling is a certificate, and a long name leaves room for it.
        let (person, as_shown) = Sender::of(Peer::Signaling, &shown);
        assert_eq!(as_shown.as_str(), "p-1 (abababababababab)");
        assert!(estops.take(Micros(99), &person, 10));
        let long = Sender::of(one, &short(&"林".repeat(50))).1;
        assert!(long.as_str().len() <= SHORT && long.as_str().ends_with("林 [abababababababab]"), "{long}");
    }

    #[test]
    fn ten_estops_of_signaling_count_whatever_names_it_gives_and_a_stations_still_does() {
        // HO-M-017
        let mut estops = Estops::default();
        let taken = (0..40).filter(|n| {
            let (sender, _) = Sender::of(Peer::Signaling, &short(&format!("p-{n}")));
            estops.take(Micros(0), &sender, 10)
        });
        assert_eq!(taken.count(), OF_SIGNALING);
        let (station, _) = Sender::of(Peer::Station(ExpertId([1; 32])), &short("x"));
        assert!(estops.take(Micros(0), &station, 10));
        let (late, _) = Sender::of(Peer::Signaling, &short("late"));
        assert!(!estops.take(Micros(9), &late, 10) && estops.take(Micros(10), &late, 10));
    }

    #[test]
    fn a_seventeenth_channel_is_refused() {
        // HO-M-023
        let mut channels = Channels::default();
        assert!((0..16).all(|n| channels.open(ChannelId(n), Peer::Signaling).is_ok()));
        assert_eq!(channels.open(ChannelId(16), Peer::Signaling), Err(Reason::Full));
    }
}
