//! A gamepad or a foot pedal by its event device (`/dev/input/eventN`). Presence is a button that is held: a device that is gone, or
//! that lost events, lets everything go.

use super::source::{Look, Source};
use crate::operate::acts::{Act, Hands};
use crate::operate::inbox::Inbox;
use crate::operate::now;
use anyhow::Context as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trocar_control::evdev::{AxisCode, Held, InputEvent, KeyChange, KeyCode, Parser, RECORD};
use trocar_proto::handover::device_wire::sim;
use trocar_proto::handover::message::{Payload, Pose, Short};
use trocar_proto::handover::types::Clutch;
use trocar_proto::units::Micros;

/// A device that is gone is tried again this often.
const AGAIN: Duration = Duration::from_millis(500);
/// Commands of a stick, at most this often; microseconds.
const EVERY: u64 = 10_000;
/// A stick within this part of the way is at rest.
const REST: f64 = 0.15;
/// Micrometres of a step with the stick at its end: 10 cm/s at 100 steps a second.
const STEP: f64 = 1_000.0;

/// Which buttons do what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    presence: &'static [u16],
    clutch: &'static [u16],
    pedal: &'static [u16],
    accept: &'static [u16],
    decline: &'static [u16],
    give_back: &'static [u16],
    estop: &'static [u16],
    sticks: bool,
}

/// Left trigger: presence. Right trigger: clutch. Right shoulder: energy pedal. South: accept. East: decline. North: return.
/// Select: stop. Left stick: x and y; right stick: z and yaw. (Codes of linux/input-event-codes.h.)
pub(super) const GAMEPAD: Layout = Layout {
    presence: &[0x138],
    clutch: &[0x139],
    pedal: &[0x137],
    accept: &[0x130],
    decline: &[0x131],
    give_back: &[0x133],
    estop: &[0x13a],
    sticks: true,
};

/// What foot switches send as keyboards: A or BTN_0 presence, B or BTN_1 clutch, C or BTN_2 energy.
pub(super) const PEDAL: Layout = Layout {
    presence: &[30, 0x100],
    clutch: &[48, 0x101],
    pedal: &[46, 0x102],
    accept: &[],
    decline: &[],
    give_back: &[],
    estop: &[],
    sticks: false,
};

/// An event device.
#[derive(Debug)]
pub(in crate::operate) struct Controls {
    path: PathBuf,
    layout: Layout,
    file: Option<File>,
}

impl Controls {
    /// Opens it.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn open(path: &Path, layout: Layout) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| {
            format!("{}: an event device that this user may read is right (group input)", path.display())
        })?;
        Ok(Self { path: path.to_owned(), layout, file: Some(file) })
    }

    /// Reads until the process ends.
    pub(super) fn run(mut self, inbox: &Inbox) {
        loop {
            if let Some(file) = self.file.take().or_else(|| File::open(&self.path).ok()) {
                follow(State::new(self.layout), Source::new(file), inbox);
                inbox.act(now(), Act::Hands(Hands::released()));
                tracing::error!(device = %self.path.display(), "the input is gone: everything is let go");
            }
            std::thread::sleep(AGAIN);
        }
    }
}

/// From events to acts, until the device is gone. A stick that is held still says nothing and moves on.
fn follow(mut state: State, mut source: Source<File>, inbox: &Inbox) {
    let (mut bytes, mut parser) = ([0; RECORD * 64], Parser::default());
    loop {
        let mut acts = Vec::new();
        let at = match source.look(&mut bytes) {
            Ok(Look::Nothing(at)) => {
                acts = state.felt(at);
                at
            }
            Ok(Look::Bytes(n @ 1.., at)) => {
                parser.handle(bytes.get(..n).unwrap_or_default(), |e| acts.extend(state.handle(e, at)));
                at
            }
            Ok(Look::Bytes(..)) | Err(_) => return,
        };
        for act in acts {
            inbox.act(at, act);
        }
    }
}

/// What is held now.
struct State {
    layout: Layout,
    held: Held,
    /// What was last said. Only what changes is said, so that two inputs do not undo each other's word.
    said: Hands,
    /// X, Y, RX, RY from -1 to 1.
    sticks: [f64; 4],
    sent: Option<Micros>,
}

impl State {
    fn new(layout: Layout) -> Self {
        Self { layout, held: Held::default(), said: Hands::released(), sticks: [0.0; 4], sent: None }
    }

    fn any(&self, keys: &[u16]) -> bool {
        keys.iter().any(|k| self.held.is_held(KeyCode(*k)))
    }

    fn handle(&mut self, event: InputEvent, now: Micros) -> Vec<Act> {
        self.held.handle(event);
        match event {
            InputEvent::Key(KeyCode(code), KeyChange::Pressed) => self.pressed(code),
            InputEvent::Axis(AxisCode(code @ (0 | 1 | 3 | 4)), value) if self.layout.sticks => {
                let i = usize::from(if code < 3 { code } else { code - 1 });
                let part = f64::from(value) / 32_768.0;
                if let Some(stick) = self.sticks.get_mut(i) {
                    *stick = if part.abs() < REST { 0.0 } else { part.clamp(-1.0, 1.0) };
                }
                Vec::new()
            }
            InputEvent::Dropped => {
                self.sticks = [0.0; 4];
                self.said = Hands::released();
                vec![Act::Hands(Hands::released())]
            }
            InputEvent::Sync => self.felt(now),
            InputEvent::Key(..) | InputEvent::Axis(..) => Vec::new(),
        }
    }

    fn pressed(&self, code: u16) -> Vec<Act> {
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

    /// What belongs together came: hands, and a motion where a stick is away from its rest.
    fn felt(&mut self, now: Micros) -> Vec<Act> {
        let moving = self.sticks.iter().any(|s| *s != 0.0);
        let pose = sim::Pose { motion_zero: !moving, orientation: sim::UPRIGHT, grip: 0 };
        let hands = Hands {
            presence: (!self.layout.presence.is_empty()).then(|| self.any(self.layout.presence)),
            pedal: (!self.layout.pedal.is_empty()).then(|| self.any(self.layout.pedal)),
            clutch: (!self.layout.clutch.is_empty())
                .then(|| if self.any(self.layout.clutch) { Clutch::Closed } else { Clutch::Open }),
            pose: self.layout.sticks.then(|| Pose::new(pose.encode()).unwrap_or_default()),
        };
        let changed = self.said.changed(&hands);
        self.said.take(&hands);
        let mut acts: Vec<Act> = changed.map(Act::Hands).into_iter().collect();
        let due = self.sent.is_none_or(|at| now.since(at) >= EVERY);
        if moving && due && self.any(self.layout.clutch) {
            self.sent = Some(now);
            let [x, y, rx, ry] = self.sticks.map(|s| (s * STEP) as i16);
            let motion = sim::Motion { axes: [x, y, ry, 0, 0, rx / 10], ..sim::Motion::default() };
            acts.extend(Payload::new(motion.encode()).ok().map(Act::Motion));
        }
        acts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: InputEvent = InputEvent::Sync;

    fn key(code: u16, change: KeyChange) -> InputEvent {
        InputEvent::Key(KeyCode(code), change)
    }

    fn after(state: &mut State, events: &[InputEvent]) -> Vec<Act> {
        let now = Micros(1);
        events.iter().flat_map(|e| state.handle(*e, now)).collect()
    }

    #[test]
    fn presence_lasts_as_long_as_the_trigger_is_held_and_ends_where_events_are_lost() {
        let mut state = State::new(GAMEPAD);
        let presence = |acts: Vec<Act>| match acts.into_iter().next_back() {
            Some(Act::Hands(hands)) => hands.presence,
            None => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(presence(after(&mut state, &[key(0x138, KeyChange::Pressed), SYNC])), Some(true));
        // Not said again, so that another input's word stands.
        assert_eq!(presence(after(&mut state, &[key(0x139, KeyChange::Pressed), SYNC])), None);
        assert_eq!(presence(after(&mut state, &[InputEvent::Dropped])), Some(false));
        // In doubt it stays released until the hand comes up and goes down again.
        assert_eq!(presence(after(&mut state, &[SYNC, key(0x138, KeyChange::Repeated), SYNC])), None);
        assert_eq!(presence(after(&mut state, &[key(0x138, KeyChange::Pressed), SYNC])), Some(true));
        assert_eq!(presence(after(&mut state, &[key(0x138, KeyChange::Released), SYNC])), Some(false));
    }

    #[test]
    fn a_stick_moves_only_with_the_clutch_held_and_at_rest_nothing_moves() {
        let mut state = State::new(GAMEPAD);
        let moves = |acts: &[Act]| acts.iter().filter(|a| matches!(a, Act::Motion(_))).count();
        let push = InputEvent::Axis(AxisCode(0), 32_767);
        assert_eq!(moves(&after(&mut state, &[push, SYNC])), 0);
        let acts = after(&mut state, &[key(0x139, KeyChange::Pressed), SYNC, SYNC]);
        assert_eq!(moves(&acts), 1, "at most one in 10 ms");
        let rest = after(&mut State::new(GAMEPAD), &[InputEvent::Axis(AxisCode(0), 3_000), SYNC]);
        let Some(Act::Hands(Hands { pose: Some(pose), .. })) = rest.first() else { panic!("{rest:?}") };
        assert!(sim::Pose::decode(pose.as_bytes()).unwrap().motion_zero);
    }

    #[test]
    fn a_pedal_knows_nothing_of_what_other_inputs_do() {
        let acts = after(&mut State::new(PEDAL), &[key(46, KeyChange::Pressed), SYNC]);
        let [Act::Hands(hands)] = &acts[..] else { panic!("{acts:?}") };
        assert_eq!(*hands, Hands { pedal: Some(true), ..Hands::default() });
        assert_eq!(after(&mut State::new(GAMEPAD), &[key(0x130, KeyChange::Pressed)]), [Act::Accept]);
    }
}
