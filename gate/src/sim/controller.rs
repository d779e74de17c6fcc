//! The device without its socket: what came goes in with the time, what it does comes out.

use super::{Arm, Fault};
use trocar_proto::handover::device_wire::{self, Actuated, Refusal, Refused, Report, sim};
use trocar_proto::handover::fence::{Effects, Fence, FenceError, Rivals};
use trocar_proto::handover::gate::{DeviceAct, DeviceReport};
use trocar_proto::handover::types::{BootId, Epoch, Selection};
use trocar_proto::units::Micros;

/// What moved within this counts as moving, in microseconds.
const MOVING: u64 = 100_000;
/// Time between two steps of local's slow motion, in microseconds.
const LOCAL_EVERY: u64 = 20_000;
/// One of those steps, in micrometres: 10 mm/s.
const LOCAL_STEP: i16 = 200;
/// A watchdog that never bites, for [`Fault::Watchdog`].
const NEVER: u64 = 3_600_000_000;

/// What a person beside the device would see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whom it obeys.
    pub selected: Selection,
    /// The watchdog's hold is latched, or it has just started.
    pub latched: bool,
    /// The hardware override gave it to local.
    pub overridden: bool,
    /// Remote energy is on.
    pub energy: bool,
    /// Nothing of remote moved since the last hold or selection.
    pub held: bool,
    /// The highest fence.
    pub highest: Epoch,
    /// The gate that it serves.
    pub owner: Option<BootId>,
}

/// What came of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it was taken.
    pub verdict: Result<(), Refused>,
    /// A fence to make durable; then [`Controller::persisted`].
    pub persist: Option<Epoch>,
    /// It moved.
    pub actuated: bool,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Controller {
    fence: Fence,
    watchdog: u32,
    fault: Option<Fault>,
    arm: Arm,
    energy: bool,
    held: bool,
    actuated: Option<Actuated>,
    refusals: u32,
    camera_moves: u32,
    moved: Option<Micros>,
    local_due: Micros,
    /// For [`Fault::Raise`].
    raised: Epoch,
    rivals: Rivals,
}

impl Controller {
    /// A device that starts, with the fence on its disk. `watchdog` in microseconds.
    #[must_use]
    pub fn new(now: Micros, persisted: Epoch, watchdog: u32, fault: Option<Fault>) -> Self {
        let real = match fault {
            Some(Fault::Watchdog) => NEVER,
            Some(Fault::Slow) => 3 * u64::from(watchdog),
            _ => watchdog.into(),
        };
        let mut fence = Fence::new(now, persisted, real);
        if fault == Some(Fault::Restart) {
            fence = unlatched(now, BootId(0), Selection::Nobody, persisted, 0, real);
        }
        Self {
            fence,
            watchdog,
            fault,
            arm: Arm::default(),
            energy: false,
            held: true,
            actuated: None,
            refusals: 0,
            camera_moves: 0,
            moved: None,
            local_due: now,
            raised: Epoch(0),
            rivals: Rivals::default(),
        }
    }

    /// An act came. Call [`Controller::tick`] before it.
    pub fn act(&mut self, now: Micros, act: &DeviceAct) -> Outcome {
        let motion = match self.checked(act) {
            Ok(motion) => motion,
            Err(reason) => return self.refuse(reason),
        };
        let act = &self.bent(now, act);
        if self.fault == Some(Fault::Hold) && matches!(act, DeviceAct::Hold { .. } | DeviceAct::EnergyOff { .. }) {
            return Outcome { verdict: Ok(()), persist: None, actuated: false };
        }
        let (before, result) = self.fence.handle(now, act);
        self.apply(&before);
        let effects = match (result, act) {
            (Ok(effects), _) => effects,
            (Err(error), DeviceAct::Command { energy, .. }) if self.moves_though(error) => {
                Effects { actuate: Some(*energy), ..Effects::default() }
            }
            (Err(error), DeviceAct::KeepAlive { fence, .. } | DeviceAct::Select { fence, .. }) => {
                if self.fault == Some(Fault::Raise) {
                    self.raised = self.raised.max(*fence);
                }
                self.rivals.note(now, act, self.fence.report().owner);
                return self.refuse(error.into());
            }
            (Err(error), _) => return self.refuse(error.into()),
        };
        self.apply(&effects);
        let actuated = match (effects.actuate, act) {
            (Some(permit), DeviceAct::Command { fence, sequence, set, .. }) => {
                self.energy = permit || (self.fault == Some(Fault::Permit) && set.energy);
                self.held = false;
                self.arm.apply(&motion);
                self.moved = Some(now);
                self.actuated = Some(Actuated { fence: *fence, sequence: *sequence });
                true
            }
            _ => false,
        };
        Outcome { verdict: Ok(()), persist: effects.persist, actuated }
    }

    /// Time passes. True where the watchdog held just now.
    pub fn tick(&mut self, now: Micros) -> bool {
        let effects = self.fence.tick(now);
        self.apply(&effects);
        let report = self.fence.report();
        if self.fault == Some(Fault::Local) && report.selected == Selection::Local && report.owner.is_none() {
            self.fence = Fence::new(now, report.highest, self.watchdog.into());
        }
        effects.hold
    }

    /// Local's own console moves the arm, where local is selected. True where it did.
    pub fn local_motion(&mut self, now: Micros) -> bool {
        let due = self.fence.selected() == Selection::Local && now >= self.local_due;
        if due {
            self.local_due = now.plus(LOCAL_EVERY);
            self.arm.local_step(LOCAL_STEP);
            self.moved = Some(now);
        }
        due
    }

    /// This fence is on disk.
    pub fn persisted(&mut self, fence: Epoch) {
        self.fence.persisted(fence);
    }

    /// The switch that needs no gate (HO-D-011).
    pub fn override_to_local(&mut self) {
        let effects = self.fence.override_to_local();
        self.apply(&effects);
    }

    /// Somebody pushes the camera.
    pub fn push_camera(&mut self) {
        self.arm.push_camera();
        self.camera_moves = self.camera_moves.saturating_add(1);
    }

    /// A datagram was refused before it was an act.
    pub const fn count_refusal(&mut self) {
        self.refusals = self.refusals.saturating_add(1);
    }

    /// For a gate that has `echo` as its newest counter and `refused` as its newest refusal.
    #[must_use]
    pub fn report(&self, now: Micros, echo: u64, refused: Option<Refusal>) -> Report {
        let moving = self.moved.is_some_and(|at| now.since(at) < MOVING);
        let device = self.fence.report();
        let held = self.held && self.fault != Some(Fault::Unsaid);
        let device = DeviceReport {
            highest: device.highest.max(self.raised),
            energy: self.energy,
            held,
            rival: self.rivals.is_near(now),
            ..device
        };
        let Arm { axes, camera, grip, .. } = self.arm;
        let state = sim::State { moving, orientation: self.arm.orientation(), grip, axes, camera };
        Report {
            device,
            moving,
            watchdog: self.watchdog,
            camera_moves: self.camera_moves,
            echo,
            actuated: self.actuated,
            refusals: self.refusals,
            refused,
            state: device_wire::State::new(state.encode()).unwrap_or_default(),
        }
    }

    /// See [`Status`].
    #[must_use]
    pub fn status(&self) -> Status {
        let report = self.fence.report();
        let (energy, held) = (self.energy, self.held);
        let (selected, latched, overridden) = (report.selected, report.latched, report.overridden);
        Status { selected, latched, overridden, energy, held, highest: report.highest, owner: report.owner }
    }

    /// Where everything is.
    #[must_use]
    pub const fn arm(&self) -> &Arm {
        &self.arm
    }

    /// The newest command that moved.
    #[must_use]
    pub const fn actuated(&self) -> Option<Actuated> {
        self.actuated
    }

    /// How many were refused.
    #[must_use]
    pub const fn refusals(&self) -> u32 {
        self.refusals
    }

    fn refuse(&mut self, reason: Refused) -> Outcome {
        self.count_refusal();
        Outcome { verdict: Err(reason), persist: None, actuated: false }
    }

    fn apply(&mut self, effects: &Effects) {
        if effects.energy_off && self.fault != Some(Fault::Energy) {
            self.energy = false;
        }
        self.held |= effects.hold || effects.obey.is_some(); // HO-D-021
    }

    /// What a command moves, where it may (HO-S-016).
    fn checked(&self, act: &DeviceAct) -> Result<sim::Motion, Refused> {
        let DeviceAct::Command { set, energy, payload, .. } = act else { return Ok(sim::Motion::default()) };
        let motion = sim::Motion::decode(payload.as_bytes()).map_err(|_| Refused::Payload)?;
        let granted = motion.is_within(*set) && (set.energy || !*energy);
        if granted || self.fault == Some(Fault::Set) { Ok(motion) } else { Err(Refused::OutsideSet) }
    }

    /// A wrong device actuates a command that its rule refused.
    fn moves_though(&self, error: FenceError) -> bool {
        matches!(
            (self.fault, error),
            (Some(Fault::Again), FenceError::OldSequence) | (Some(Fault::Anyone), FenceError::NotSelected)
        )
    }

    /// The act as a wrong device would take it; as it is for a right one.
    fn bent(&mut self, now: Micros, act: &DeviceAct) -> DeviceAct {
        let report = self.fence.report();
        let mut act = act.clone();
        match (self.fault, &mut act) {
            (
                Some(Fault::Fence),
                DeviceAct::KeepAlive { fence, .. }
                | DeviceAct::Select { fence, .. }
                | DeviceAct::Hold { fence, .. }
                | DeviceAct::EnergyOff { fence, .. }
                | DeviceAct::Command { fence, .. },
            ) => *fence = report.highest.max(*fence),
            (Some(Fault::Owner), DeviceAct::KeepAlive { boot, .. } | DeviceAct::Select { boot, .. }) => {
                *boot = report.owner.unwrap_or(*boot);
            }
            (Some(Fault::Select), DeviceAct::Select { fence, sequence, .. }) if *fence == report.highest => {
                *sequence = report.sequence.saturating_add(1).max(*sequence);
            }
            (Some(Fault::Latch), DeviceAct::KeepAlive { boot, .. })
            | (Some(Fault::Repeat), DeviceAct::Select { boot, .. })
                if report.latched && report.selected == Selection::Remote =>
            {
                let wait = self.watchdog.into();
                self.fence = unlatched(now, *boot, Selection::Remote, report.highest, report.sequence, wait);
            }
            (Some(Fault::Override), DeviceAct::Select { boot, to, .. }) if report.overridden => {
                let wait = self.watchdog.into();
                self.fence = unlatched(now, *boot, *to, report.highest, report.sequence, wait);
            }
            _ => {}
        }
        act
    }
}

/// What no right device is ever in: unlatched without a higher fence.
fn unlatched(now: Micros, boot: BootId, to: Selection, highest: Epoch, sequence: u64, watchdog: u64) -> Fence {
    let mut fence = Fence::new(now, Epoch(highest.0.saturating_sub(1)), watchdog);
    let _ = fence.handle(now, &DeviceAct::Select { boot, to, fence: highest, sequence });
    fence.persisted(highest);
    fence
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::handover::message::Payload;
    use trocar_proto::handover::types::{Counter, GrantedSet};

    const GATE: BootId = BootId(1);

    fn command(sequence: u64, set: GrantedSet, energy: bool, motion: sim::Motion) -> DeviceAct {
        let payload = Payload::new(motion.encode()).unwrap();
        DeviceAct::Command { fence: Epoch(6), sequence, counter: Counter(sequence), set, energy, payload }
    }

    fn tool() -> sim::Motion {
        sim::Motion { axes: [100, 0, 0, 0, 0, 0], ..sim::Motion::default() }
    }

    /// Remote selected with fence 6, durable.
    fn remote() -> Controller {
        let mut device = Controller::new(Micros(0), Epoch(5), 150_000, None);
        let select = DeviceAct::Select { boot: GATE, to: Selection::Remote, fence: Epoch(6), sequence: 1 };
        assert_eq!(device.act(Micros(0), &select).persist, Some(Epoch(6)));
        device.persisted(Epoch(6));
        device
    }

    #[test]
    fn a_command_moves_the_arm_once_and_what_is_outside_the_set_moves_nothing() {
        // HO-S-016, HO-D-010
        let mut device = remote();
        let good = command(2, GrantedSet::INSTRUMENTS, false, tool());
        assert!(device.act(Micros(1), &good).actuated);
        assert_eq!(device.act(Micros(2), &good).verdict, Err(Refused::OldSequence));
        let outside = command(3, GrantedSet::CAMERA, false, tool());
        assert_eq!(device.act(Micros(2), &outside).verdict, Err(Refused::OutsideSet));
        assert_eq!(device.arm().axes[0], 100);
    }

    #[test]
    fn energy_is_on_only_with_a_permit_and_off_with_the_first_command_without_one() {
        // HO-D-014
        let mut device = remote();
        assert_eq!(
            device.act(Micros(1), &command(2, GrantedSet::INSTRUMENTS, true, tool())).verdict,
            Err(Refused::OutsideSet)
        );
        device.act(Micros(1), &command(2, GrantedSet::ENERGY, true, tool()));
        assert!(device.status().energy);
        device.act(Micros(1), &command(3, GrantedSet::ENERGY, false, tool()));
        assert!(!device.status().energy);
        device.act(Micros(1), &command(4, GrantedSet::ENERGY, true, tool()));
        assert!(device.tick(Micros(150_001)), "the watchdog");
        assert!(!device.status().energy && device.status().held && device.status().latched);
    }

    #[test]
    fn local_moves_the_arm_only_while_local_is_selected() {
        let mut device = remote();
        assert!(!device.local_motion(Micros(1)));
        device.override_to_local();
        assert!(device.local_motion(Micros(1)) && !device.local_motion(Micros(2)));
        assert!(device.local_motion(Micros(20_001)));
        assert_eq!(device.arm().axes[0], 400);
    }
}
