//! Which button and which axis of an event device does what. The defaults are those of a common gamepad; `--gamepad KEY=VALUE` changes one.

use std::str::FromStr;
use trocar_control::evdev::{AxisCode, KeyCode};

/// What can be moved, in the order of the `sim` format: the first six are the instrument's axes, the last three the camera's.
const MOVES: [&str; 9] = ["x", "y", "z", "roll", "pitch", "yaw", "pan", "tilt", "insertion"];
/// Of these, the ones that are lengths; the others are angles.
const LENGTHS: [bool; 9] = [true, true, true, false, false, false, false, false, true];
/// Every key of `--gamepad`, for messages.
const KEYS: &str = "presence, clutch, pedal, accept, decline, return, estop, x, y, z, roll, pitch, yaw, pan, tilt, insertion, grip, speed, \
                    turn, dead-zone and rate";

/// Something that is held: a button, or a trigger that is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Button {
    Key(KeyCode),
    Pull(AxisCode),
}

/// A stick's axis, and what it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stick {
    /// Place in the motion, 0 to 8.
    pub(super) moves: usize,
    pub(super) axis: AxisCode,
    pub(super) inverted: bool,
}

impl Stick {
    /// Whether it moves by lengths, not by angles.
    pub(super) fn is_length(self) -> bool {
        LENGTHS.get(self.moves).is_some_and(|is| *is)
    }
}

/// Which buttons do what.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::operate) struct Layout {
    pub(super) presence: Vec<Button>,
    pub(super) clutch: Vec<Button>,
    pub(super) pedal: Vec<Button>,
    pub(super) accept: Vec<KeyCode>,
    pub(super) decline: Vec<KeyCode>,
    pub(super) give_back: Vec<KeyCode>,
    pub(super) estop: Vec<KeyCode>,
    pub(super) sticks: Vec<Stick>,
    /// A trigger that closes the grip as far as it is pulled.
    pub(super) grip: Option<AxisCode>,
    /// Millimetres per second with a stick at its end.
    pub(super) speed: f64,
    /// Degrees per second with a stick at its end.
    pub(super) turn: f64,
    /// A stick within this part of its way is at rest.
    pub(super) dead: f64,
    /// Commands per second at most.
    pub(super) rate: u32,
}

fn keys(codes: &[u16]) -> Vec<KeyCode> {
    codes.iter().map(|code| KeyCode(*code)).collect()
}

fn held(codes: &[u16]) -> Vec<Button> {
    codes.iter().map(|code| Button::Key(KeyCode(*code))).collect()
}

impl Layout {
    /// Left trigger: presence. Right trigger: clutch. Right shoulder: energy pedal. South: accept. East: decline. North: return.
    /// Select: stop. Left stick: x and y; right stick: yaw and z; cross: camera. Triggers count as buttons and as axes, as the driver has
    /// them.
    pub(in crate::operate) fn gamepad() -> Self {
        let stick = |moves, axis| Stick { moves, axis: AxisCode(axis), inverted: false };
        let trigger = |key, axis| vec![Button::Key(KeyCode(key)), Button::Pull(AxisCode(axis))];
        Self {
            presence: trigger(0x138, 0x02),
            clutch: trigger(0x139, 0x05),
            pedal: held(&[0x137]),
            accept: keys(&[0x130]),
            decline: keys(&[0x131]),
            give_back: keys(&[0x133]),
            estop: keys(&[0x13a]),
            sticks: vec![stick(0, 0), stick(1, 1), stick(5, 3), stick(2, 4), stick(6, 0x10), stick(7, 0x11)],
            grip: None,
            speed: 20.0,
            turn: 30.0,
            dead: 0.15,
            rate: 100,
        }
    }

    /// What foot switches send as keyboards: A or BTN_0 presence, B or BTN_1 clutch, C or BTN_2 energy.
    pub(in crate::operate) fn pedal() -> Self {
        Self {
            presence: held(&[30, 0x100]),
            clutch: held(&[48, 0x101]),
            pedal: held(&[46, 0x102]),
            accept: Vec::new(),
            decline: Vec::new(),
            give_back: Vec::new(),
            estop: Vec::new(),
            sticks: Vec::new(),
            ..Self::gamepad()
        }
    }

    /// With what was said on the command line.
    ///
    /// # Errors
    /// [`InvalidSetting`]; none for settings that were read from text.
    pub(in crate::operate) fn with(mut self, settings: &[Setting]) -> Result<Self, InvalidSetting> {
        settings.iter().try_for_each(|s| self.set(&s.key, &s.value))?;
        Ok(self)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), InvalidSetting> {
        let wrong = |right: String| InvalidSetting { key: key.to_owned(), value: value.to_owned(), right };
        let number = |from: f64, to: f64, unit: &str| {
            let n = value.parse().ok().filter(|n: &f64| (from..=to).contains(n));
            n.ok_or_else(|| wrong(format!("{from} to {to} {unit} is right")))
        };
        match key {
            "presence" => self.presence = buttons(value).map_err(wrong)?,
            "clutch" => self.clutch = buttons(value).map_err(wrong)?,
            "pedal" => self.pedal = buttons(value).map_err(wrong)?,
            "accept" => self.accept = names(value).map_err(wrong)?,
            "decline" => self.decline = names(value).map_err(wrong)?,
            "return" => self.give_back = names(value).map_err(wrong)?,
            "estop" => self.estop = names(value).map_err(wrong)?,
            "grip" => self.grip = axis(value).map_err(wrong)?.map(|(axis, _)| axis),
            "speed" => self.speed = number(0.1, 200.0, "mm/s")?,
            "turn" => self.turn = number(0.1, 180.0, "degrees per second")?,
            "dead-zone" => self.dead = number(0.0, 0.5, "of the way")?,
            "rate" => self.rate = number(10.0, 1_000.0, "commands per second")? as u32,
            _ => {
                let moves = MOVES.iter().position(|name| *name == key);
                let moves = moves.ok_or_else(|| wrong(format!("{KEYS} are the keys")))?;
                self.sticks.retain(|stick| stick.moves != moves);
                let found = axis(value).map_err(wrong)?;
                self.sticks.extend(found.map(|(axis, inverted)| Stick { moves, axis, inverted }));
            }
        }
        Ok(())
    }
}

/// Names of keys joined by `|`, or `none`.
fn names(value: &str) -> Result<Vec<KeyCode>, String> {
    if value == "none" {
        return Ok(Vec::new());
    }
    value.split('|').map(|name| name.parse().map_err(|e: trocar_control::evdev::UnknownName| e.to_string())).collect()
}

/// Names of keys and triggers joined by `|`, or `none`.
fn buttons(value: &str) -> Result<Vec<Button>, String> {
    if value == "none" {
        return Ok(Vec::new());
    }
    let one = |name: &str| match name.parse::<AxisCode>() {
        Ok(axis) if name.to_ascii_uppercase().starts_with("ABS_") => Ok(Button::Pull(axis)),
        _ => name.parse().map(Button::Key).map_err(|e| e.to_string()),
    };
    value.split('|').map(one).collect()
}

/// An axis, with `-` in front where it goes the other way; or `none`.
fn axis(value: &str) -> Result<Option<(AxisCode, bool)>, String> {
    if value == "none" {
        return Ok(None);
    }
    let (name, inverted) = value.strip_prefix('-').map_or((value, false), |name| (name, true));
    name.parse().map(|axis| Some((axis, inverted))).map_err(|e: trocar_control::evdev::UnknownName| e.to_string())
}

/// One `--gamepad KEY=VALUE`, which was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    key: String,
    value: String,
}

/// What is wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}={value}: {right}")]
pub(crate) struct InvalidSetting {
    key: String,
    value: String,
    right: String,
}

impl FromStr for Setting {
    type Err = InvalidSetting;

    fn from_str(s: &str) -> Result<Self, InvalidSetting> {
        let (key, value) = s.split_once('=').unwrap_or((s, ""));
        Layout::gamepad().set(key, value)?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_changes_one_thing_and_none_takes_it_away() {
        let settings: Vec<Setting> = [
            "presence=BTN_TL|ABS_BRAKE",
            "x=-ABS_RX",
            "yaw=none",
            "grip=ABS_GAS",
            "speed=7.5",
            "rate=1000",
            "estop=none",
        ]
        .map(|s| s.parse().unwrap())
        .to_vec();
        let layout = Layout::gamepad().with(&settings).unwrap();
        assert_eq!(layout.presence, [Button::Key(KeyCode(0x136)), Button::Pull(AxisCode(0x0a))]);
        assert!(layout.sticks.contains(&Stick { moves: 0, axis: AxisCode(3), inverted: true }));
        assert!(layout.sticks.iter().all(|stick| stick.moves != 5));
        assert_eq!((layout.grip, layout.rate), (Some(AxisCode(9)), 1_000));
        assert!((layout.speed - 7.5).abs() < 1e-9 && layout.estop.is_empty());
        assert_eq!(layout.clutch, Layout::gamepad().clutch);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (text, part) in [
            ("presense=BTN_TL", "presence, clutch"),
            ("presence", "presence=: "),
            ("presence=ABS_BTN", "is no key"),
            ("accept=ABS_Z", "is no key"),
            ("x=BTN_TL", "is no axis"),
            ("speed=0", "0.1 to 200 mm/s"),
            ("speed=NaN", "mm/s"),
            ("dead-zone=0.9", "0 to 0.5"),
            ("rate=2000", "10 to 1000"),
        ] {
            let error = text.parse::<Setting>().unwrap_err().to_string();
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}
