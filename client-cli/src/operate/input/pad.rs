//! From events of a gamepad or pedal to hands and motions. Pure: what the device can say of its axes is asked by the caller.

use super::layout::{Button, Layout, Stick};
use crate::operate::acts::{Act, Hands};
use std::collections::BTreeMap;
use trocar_control::evdev::device::Range;
use trocar_control::evdev::{AxisCode, Held, InputEvent, KeyChange, KeyCode};
use trocar_proto::handover::device_wire::sim;
use trocar_proto::handover::message::{Payload, Pose, Short};
use trocar_proto::handover::types::Clutch;
use trocar_proto::units::Micros;

/// A trigger counts as pulled from this part of its way on, and as let go below the other. Both are above the middle, in which an axis
/// rests that is no trigger.
const PULLED: f64 = 0.75;
const LET_GO: f64 = 0.65;
/// A device whose trigger stands above this part while nobody touches it has none there.
const AT_REST: f64 = 0.25;

/// A trigger that is used as a button.
#[derive(Debug, Clone, Copy, Default)]
struct Pull {
    /// It was seen let go: what is pulled when the device is opened has to be let go and pulled anew.
    seen_free: bool,
    held: bool,
}

/// What is held now.
pub(super) struct State {
    layout: Layout,
    held: Held,
    pulls: BTreeMap<AxisCode, Pull>,
    ranges: BTreeMap<AxisCode, Range>,
    /// Where each axis of a stick stands, -1 to 1.
    sticks: BTreeMap<AxisCode, f64>,
    /// How far the grip's trigger is pulled, 0 to 1.
    grip: f64,
    /// What was last said. Only what changes is said, so that two inputs do not undo each other's word.
    said: Hands,
    sent: Option<Micros>,
    /// What the last steps left over by rounding, so that a slow motion is one.
    left: [f64; 9],
}

impl State {
    /// `ask`: the device's range of an axis, where there is a device to ask.
    pub(super) fn new(layout: Layout, ask: impl Fn(AxisCode) -> Option<Range>) -> Self {
        let buttons = layout.presence.iter().chain(&layout.clutch).chain(&layout.pedal);
        let pulled = buttons.filter_map(|b| if let Button::Pull(axis) = b { Some(*axis) } else { None });
        let mut pulls: BTreeMap<AxisCode, Pull> = pulled.map(|axis| (axis, Pull::default())).collect();
        let axes = pulls.keys().copied().chain(layout.sticks.iter().map(|s| s.axis)).chain(layout.grip);
        let ranges: BTreeMap<AxisCode, Range> =
            axes.map(|axis| (axis, ask(axis).unwrap_or_else(|| Range::usual(axis)))).collect();
        pulls.retain(|axis, _| {
            let rests = ranges.get(axis).is_none_or(|r| r.now.is_none_or(|now| r.part(now) <= AT_REST));
            if !rests {
                tracing::warn!(%axis, "is no trigger, or is pulled already: it is not used as one");
            }
            rests
        });
        let (held, said) = (Held::default(), Hands::released());
        Self { layout, held, pulls, ranges, sticks: BTreeMap::new(), grip: 0.0, said, sent: None, left: [0.0; 9] }
    }

    fn any(&self, buttons: &[Button]) -> bool {
        buttons.iter().any(|button| match button {
            Button::Key(key) => self.held.is_held(*key),
            Button::Pull(axis) => self.pulls.get(axis).is_some_and(|pull| pull.held),
        })
    }

    /// One event, and what it means at once.
    pub(super) fn handle(&mut self, event: InputEvent, now: Micros) -> Vec<Act> {
        self.held.handle(event);
        match event {
            InputEvent::Key(code, KeyChange::Pressed) => self.pressed(code),
            InputEvent::Axis(axis, value) => {
                self.stands(axis, value);
                Vec::new()
            }
            InputEvent::Dropped => {
                self.pulls.values_mut().for_each(|pull| *pull = Pull::default());
                self.sticks.clear();
                (self.grip, self.left) = (0.0, [0.0; 9]);
                self.said = Hands::released();
                vec![Act::Hands(Hands::released())]
            }
            InputEvent::Sync => self.felt(now),
            InputEvent::Key(..) => Vec::new(),
        }
    }

    fn stands(&mut self, axis: AxisCode, value: i32) {
        let Some(range) = self.ranges.get(&axis) else { return };
        let part = range.part(value);
        if let Some(pull) = self.pulls.get_mut(&axis) {
            pull.seen_free |= part < LET_GO;
            pull.held = pull.seen_free && part >= if pull.held { LET_GO } else { PULLED };
        }
        if self.layout.sticks.iter().any(|stick| stick.axis == axis) {
            self.sticks.insert(axis, range.deflection(value, self.layout.dead));
        }
        if self.layout.grip == Some(axis) {
            self.grip = part;
        }
    }

    fn pressed(&self, code: KeyCode) -> Vec<Act> {
        let l = &self.layout;
        let act = if l.accept.contains(&code) {
            Act::Accept
        } else if l.decline.contains(&code) {
            Act::Decline(Short::default())
        } else if l.give_back.contains(&code) {
            Act::Return
        } else if l.estop.contains(&code) {
            Act::Estop(Short::default())
        } else {
            return Vec::new();
        };
        vec![act]
    }

    /// How far that stick is pushed, -1 to 1.
    fn pushed(&self, stick: Stick) -> f64 {
        let way = self.sticks.get(&stick.axis).copied().unwrap_or(0.0);
        if stick.inverted { -way } else { way }
    }

    /// What belongs together came, or time passed: hands, and a motion where a stick is away from its rest.
    pub(super) fn felt(&mut self, now: Micros) -> Vec<Act> {
        let l = &self.layout;
        let (presence, clutch) = (self.any(&l.presence), self.any(&l.clutch));
        let moving = l.sticks.iter().any(|stick| self.pushed(*stick) != 0.0);
        let pose = sim::Pose { motion_zero: !moving, orientation: sim::UPRIGHT, grip: self.closed() };
        let has_pose = !(l.sticks.is_empty() && l.grip.is_none());
        let hands = Hands {
            presence: (!l.presence.is_empty()).then_some(presence),
            pedal: (!l.pedal.is_empty()).then(|| self.any(&l.pedal)),
            clutch: (!l.clutch.is_empty()).then_some(if clutch { Clutch::Closed } else { Clutch::Open }),
            pose: has_pose.then(|| Pose::new(pose.encode()).unwrap_or_default()),
        };
        // A pad without a dead-man button of its own leaves that to another input.
        let may_move = clutch && (presence || l.presence.is_empty());
        let changed = self.said.changed(&hands);
        self.said.take(&hands);
        let mut acts: Vec<Act> = changed.map(Act::Hands).into_iter().collect();
        acts.extend(self.step(now, moving, may_move).map(Act::Motion));
        acts
    }

    fn closed(&self) -> u16 {
        (self.grip * f64::from(sim::CLOSED)).round() as u16
    }

    /// The next step where one is due. What could not be sent in time is left out, not sent late.
    fn step(&mut self, now: Micros, moving: bool, may_move: bool) -> Option<Payload> {
        if !(moving && may_move) {
            self.left = [0.0; 9];
        }
        // The grip follows its trigger while the controls are coupled, whether or not a stick is pushed.
        if !(may_move && (moving || self.layout.grip.is_some())) {
            return None;
        }
        let rate = self.layout.rate.max(1);
        // A tick that comes a little early is not put off to the next.
        let every = u64::from(1_000_000 / rate);
        if self.sent.is_some_and(|at| now.since(at) < every) {
            return None;
        }
        self.sent = Some(now);
        for stick in &self.layout.sticks {
            // Micrometres, hundredths of a degree.
            let most = if stick.is_length() { self.layout.speed * 1e3 } else { self.layout.turn * 1e2 };
            let way = self.pushed(*stick) * most / f64::from(rate);
            if let Some(left) = self.left.get_mut(stick.moves) {
                *left += way;
            }
        }
        let mut whole = [0_i16; 9];
        for (step, left) in whole.iter_mut().zip(&mut self.left) {
            *step = left.trunc() as i16;
            *left -= f64::from(*step);
        }
        let [x, y, z, roll, pitch, yaw, pan, tilt, insertion] = whole;
        let grip = self.layout.grip.map(|_| self.closed());
        let motion = sim::Motion { axes: [x, y, z, roll, pitch, yaw], camera: [pan, tilt, insertion], grip };
        Payload::new(motion.encode()).ok()
    }
}

#[cfg(test)]
#[path = "pad/tests.rs"]
mod tests;
