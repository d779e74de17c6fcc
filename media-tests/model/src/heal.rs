//! From every situation: TAKE at once (HO-I-007), and by a fixed script back to REMOTE and to motion (HO-I-018).

use crate::acts::Act;
use crate::handover::checks::Checks;
use crate::handover::gate::{Alarms, Gate};
use crate::handover::message::Mode;
use crate::handover::types::{Colours, GrantedSet};
use crate::parts::{Budget, Video};
use crate::scopes::Scope;
use crate::world::World;

/// Reliable messages that are delivered in one go at most.
const MESSAGES: usize = 64;

impl<C: Checks> World<C> {
    /// Whether local can take now, with no link and no disk; true where the gate is dead or stopped, or TAKE is refused for good
    /// reason.
    #[must_use]
    pub fn take_works(&self) -> bool {
        if matches!(self.mode(), None | Some(Mode::Estop | Mode::Closed)) {
            return true;
        }
        let mut world = self.clone();
        world.broken = 0;
        world.step(Act::Take);
        world.broken == 0
    }

    /// Whether a healed world leads to REMOTE and to motion again.
    #[must_use]
    pub fn heals(&self, scope: &Scope) -> bool {
        self.healed(scope).is_some()
    }

    fn healed(&self, scope: &Scope) -> Option<()> {
        let mut world = self.clone();
        world.broken = 0;
        world.mend(scope);
        if world.mode() == Some(Mode::Estop) {
            world.step(Act::Reset);
        }
        // Also in LOCAL: it ends a hardware override.
        world.step(Act::Take);
        world.tick(scope);
        world.deliver_all();
        world.step(Act::Offer(0, GrantedSet::CAMERA));
        world.deliver_all();
        world.step(Act::Accept(0));
        world.deliver_all();
        for _ in 0..3 {
            world.tick(scope);
        }
        world.step(Act::Confirm);
        world.deliver_all();
        (world.mode() == Some(Mode::Remote)).then_some(())?;
        world.tick(scope);
        world.deliver_all();
        let (before, _) = world.truth.newest;
        world.step(Act::Motion(0));
        world.tick(scope);
        world.step(Act::Motion(0));
        let (after, _) = world.truth.newest;
        (before < after && world.broken == 0).then_some(())
    }

    /// Lines stand, programs run, the disk writes, the store can be read, the picture lives, consent is active.
    fn mend(&mut self, scope: &Scope) {
        self.left = Budget { offers: 1, motions: 2, ..Budget::default() };
        self.relay = crate::parts::Relay::default();
        (self.device_link, self.reports, self.console, self.consent) = (true, true, true, true);
        self.video = Video::Live;
        self.colours = Colours::GREEN;
        self.pool.clear();
        self.hosts.truncate(1);
        for desk in &mut self.desks {
            (desk.cut, desk.paused, desk.let_go, desk.pedal) = (false, false, false, false);
        }
        self.hosts[0].paused = false;
        // A session that is over, or that refuses remote for its rest, is followed by another.
        let over = |gate: &Gate<C>| gate.mode() == Mode::Closed || gate.alarms().has(Alarms::STORE);
        for _ in 0..2 {
            if self.gate().is_none_or(over) {
                self.kill();
                self.on_disk = self.on_disk.max(self.fence.highest().0 + 1);
                self.start(true);
            }
            self.step(Act::Consent(true));
            for _ in 0..4 {
                self.tick(scope);
            }
        }
        for n in 0..self.desks.len() {
            if !self.desks[n].connected {
                self.step(Act::Connect(n));
            }
        }
        self.deliver_all();
    }

    fn deliver_all(&mut self) {
        for _ in 0..MESSAGES {
            let to_gate = self.desks.iter().position(|d| !d.to_gate.is_empty());
            let to_desk = self.desks.iter().position(|d| !d.from_gate.is_empty());
            let act = match (to_gate, to_desk) {
                _ if !self.disk.is_empty() => Act::DiskDone,
                (Some(n), _) => Act::ToGate(n),
                (None, Some(n)) => Act::ToDesk(n),
                (None, None) => break,
            };
            self.step(act);
        }
    }
}
