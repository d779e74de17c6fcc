//! The gates that the device hears, and what tells a datagram of now from a recorded one.

use std::net::SocketAddr;
use trocar_proto::handover::device_wire::{Head, Refusal};
use trocar_proto::units::Micros;

/// Gates that are remembered. The one that was silent longest makes room; should it come back, it is addressed by a new number, so
/// that nothing recorded before counts.
const MOST: usize = 16;
/// Reports go to gates that were heard within this, in microseconds.
const LISTENS: u64 = 2_000_000;

/// One run of a gate's adapter.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// How it calls itself.
    pub(super) run: u64,
    /// How it has to call the device.
    pub(super) number: u64,
    /// The newest counter that came from it.
    pub(super) newest: u64,
    /// Where the newest came from.
    pub(super) address: SocketAddr,
    /// Its newest act that was refused.
    pub(super) refused: Option<Refusal>,
    heard: Micros,
    sent: u64,
}

impl Peer {
    /// The head of the next report to it.
    pub(super) const fn next_head(&mut self) -> Head {
        self.sent += 1;
        Head { sender: self.number, counter: self.sent, peer: self.run }
    }
}

/// What the table says of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// New, and addressed to this run of the device: it counts.
    Counts,
    /// New, but the gate does not know its number yet: a report tells it.
    Stranger,
    /// Came before, or later than a newer one.
    Old,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Peers(Vec<Peer>);

impl Peers {
    /// Takes note of an authentic datagram. `number` is random and used for a run that is new.
    pub(super) fn hear(&mut self, now: Micros, head: &Head, address: SocketAddr, number: u64) -> Heard {
        if !self.0.iter().any(|peer| peer.run == head.sender) {
            if self.0.len() >= MOST {
                let oldest = self.0.iter().enumerate().min_by_key(|(_, peer)| peer.heard).map(|(n, _)| n);
                oldest.map(|n| self.0.swap_remove(n));
            }
            let (run, refused) = (head.sender, None);
            self.0.push(Peer { run, number, newest: 0, address, refused, heard: now, sent: 0 });
        }
        let Some(peer) = self.of(head.sender) else { return Heard::Old };
        if head.counter <= peer.newest {
            return Heard::Old;
        }
        (peer.newest, peer.address, peer.heard) = (head.counter, address, now);
        if head.peer == peer.number { Heard::Counts } else { Heard::Stranger }
    }

    pub(super) fn of(&mut self, run: u64) -> Option<&mut Peer> {
        self.0.iter_mut().find(|peer| peer.run == run)
    }

    /// Those who get reports.
    pub(super) fn listening(&mut self, now: Micros) -> impl Iterator<Item = &mut Peer> {
        self.0.iter_mut().filter(move |peer| now.since(peer.heard) < LISTENS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> SocketAddr {
        "127.0.0.1:9".parse().unwrap()
    }

    #[test]
    fn a_datagram_counts_once_and_only_with_the_number_of_this_run() {
        let mut peers = Peers::default();
        let head = |counter, peer| Head { sender: 5, counter, peer };
        assert_eq!(peers.hear(Micros(0), &head(1, 0), at(), 77), Heard::Stranger);
        assert_eq!(peers.hear(Micros(0), &head(2, 66), at(), 78), Heard::Stranger, "of an earlier run of the device");
        assert_eq!(peers.hear(Micros(0), &head(3, 77), at(), 79), Heard::Counts);
        assert_eq!(peers.hear(Micros(0), &head(3, 77), at(), 79), Heard::Old);
        assert_eq!(peers.hear(Micros(0), &head(2, 77), at(), 79), Heard::Old);
    }

    #[test]
    fn a_gate_that_was_forgotten_gets_a_new_number_so_that_its_recording_is_worth_nothing() {
        let mut peers = Peers::default();
        let head = |sender, peer| Head { sender, counter: 1, peer };
        assert_eq!(peers.hear(Micros(0), &head(5, 0), at(), 77), Heard::Stranger);
        for n in 0..100 {
            peers.hear(Micros(1 + n), &head(100 + n, 0), at(), 1_000 + n);
            assert!(peers.0.len() <= MOST);
        }
        assert_eq!(peers.hear(Micros(200), &head(5, 77), at(), 78), Heard::Stranger);
    }
}
