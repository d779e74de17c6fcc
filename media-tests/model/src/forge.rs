//! What a hostile participant makes up under its own key, and the relay without any.

use crate::acts::Act;
use crate::handover::checks::Checks;
use crate::handover::gate::{Gate, Input};
use crate::handover::message::{Beacon, Command, Datagram, Heartbeat, Mode, Payload, Pose, ToGate, Token};
use crate::handover::station::{self, Station};
use crate::handover::types::{Binding, ChannelId, Clutch, Counter, Epoch, Nonce, Oid};
use crate::parts::{EXPERTS, Sealed, config, token};
use crate::truth::payload;
use crate::world::World;

/// A channel that no gate ever had.
const FORGED: ChannelId = ChannelId(99);

impl<C: Checks> World<C> {
    /// What needs no key of another: a participant's own, or none.
    pub(crate) fn forgeries(&self, acts: &mut Vec<Act>) {
        let mode = self.mode();
        let holder = self.gate().and_then(Gate::offer).and_then(|o| EXPERTS.iter().position(|e| *e == o.expert));
        for (n, desk) in self.desks.iter().enumerate() {
            if mode == Some(Mode::Offered) && holder != Some(n) && desk.connected {
                acts.push(Act::ForgeAccept(n));
            }
            if mode == Some(Mode::Remote) && desk.connected {
                if holder == Some(n) {
                    acts.extend([Act::WrongEpoch(n), Act::Jump(n)]);
                } else {
                    acts.extend([Act::ForgeCommand(n), Act::ForgeHeartbeat(n)]);
                }
            }
            if desk.station.as_ref().is_some_and(|s| s.next().is_some()) {
                acts.push(Act::ForgeBeacon(n));
            }
        }
    }

    /// A hostile participant's message under its own key, or the relay's without any.
    pub(crate) fn forge(&mut self, act: Act) {
        self.left.forges -= 1;
        let open = self.gate().and_then(Gate::offer).map(|o| o.oid);
        let newest = self.gate().and_then(Gate::newest);
        let theirs = self.desks.iter().filter_map(|d| d.station.as_ref()).filter(|s| s.held().is_some());
        let nonce = theirs.filter_map(Station::next).next().map_or(Nonce(0), |(.., nonce)| nonce);
        let (now, channel_of) = (self.now(), |w: &Self, n: usize| w.desks[n].channel);
        let next = Counter(newest.map_or(1, |(_, n, _)| n + 1));
        let epoch = self.gate().map_or(Epoch(0), Gate::epoch);
        let command = |by: usize, epoch: Epoch, counter: Counter| Command {
            epoch,
            counter,
            nonce,
            echo: None,
            clutch: Clutch::Closed,
            payload: Payload::new(payload(by, epoch)).unwrap_or_default(),
        };
        let (n, datagram) = match act {
            Act::ForgeAccept(n) => {
                let (channel, oid) = (channel_of(self, n), open.unwrap_or(Oid(0)));
                let message = ToGate::Accept { oid, token: Token::default() };
                self.input(0, Input::Message { channel, message, token: Some(token(n)) });
                return;
            }
            Act::ForgeBeacon(n) => {
                let Some((binding, counter)) = self.desks[n].station.as_ref().and_then(Station::heard) else { return };
                let beacon = Beacon { binding, counter: Counter(counter.0 + 1), nonce: Nonce(0xff << 32) };
                let _ = self.at_desk(n, station::Input::Beacon(FORGED, beacon));
                return;
            }
            Act::ForgeCommand(n) => (n, Datagram::Command(command(n, epoch, next))),
            Act::WrongEpoch(n) => (n, Datagram::Command(command(n, Epoch(epoch.0 - 1), next))),
            Act::Jump(n) => (n, Datagram::Command(command(n, epoch, Counter(next.0 + config().window)))),
            Act::ForgeHeartbeat(n) => {
                let (binding, counter) = (Binding::Epoch(epoch), next);
                let (presence, pedal, pose) = (true, true, Pose::default());
                let hb = Heartbeat { binding, counter, beat: 0, nonce, echo: None, presence, pedal, pose };
                (n, Datagram::Heartbeat(hb))
            }
            _ => return,
        };
        let channel = channel_of(self, n);
        let again = !matches!(act, Act::WrongEpoch(_) | Act::Jump(_));
        self.deliver(Sealed { down: None, channel, datagram, by: n, at: now, sees: now, again });
    }
}
