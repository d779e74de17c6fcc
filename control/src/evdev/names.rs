//! Names of codes as linux/input-event-codes.h has them: the few that pedals, buttons and gamepads send. Others are given as numbers.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Code of a key or button (`KEY_*`, `BTN_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyCode(pub u16);

/// Code of an absolute axis (`ABS_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AxisCode(pub u16);

/// Neither a name that is known nor a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no {kind}: a name like {example}, or a number up to 0xffff (`evtest` shows them) is right")]
pub struct UnknownName {
    given: String,
    kind: &'static str,
    example: &'static str,
}

const KEYS: &[(&str, u16)] = &[
    ("KEY_ESC", 1),
    ("KEY_1", 2),
    ("KEY_2", 3),
    ("KEY_3", 4),
    ("KEY_4", 5),
    ("KEY_5", 6),
    ("KEY_6", 7),
    ("KEY_7", 8),
    ("KEY_8", 9),
    ("KEY_9", 10),
    ("KEY_0", 11),
    ("KEY_TAB", 15),
    ("KEY_Q", 16),
    ("KEY_W", 17),
    ("KEY_E", 18),
    ("KEY_R", 19),
    ("KEY_T", 20),
    ("KEY_Y", 21),
    ("KEY_U", 22),
    ("KEY_I", 23),
    ("KEY_O", 24),
    ("KEY_P", 25),
    ("KEY_ENTER", 28),
    ("KEY_LEFTCTRL", 29),
    ("KEY_A", 30),
    ("KEY_S", 31),
    ("KEY_D", 32),
    ("KEY_F", 33),
    ("KEY_G", 34),
    ("KEY_H", 35),
    ("KEY_J", 36),
    ("KEY_K", 37),
    ("KEY_L", 38),
    ("KEY_LEFTSHIFT", 42),
    ("KEY_Z", 44),
    ("KEY_X", 45),
    ("KEY_C", 46),
    ("KEY_V", 47),
    ("KEY_B", 48),
    ("KEY_N", 49),
    ("KEY_M", 50),
    ("KEY_LEFTALT", 56),
    ("KEY_SPACE", 57),
    ("KEY_F1", 59),
    ("KEY_F2", 60),
    ("KEY_F3", 61),
    ("KEY_F4", 62),
    ("KEY_F5", 63),
    ("KEY_F6", 64),
    ("KEY_F7", 65),
    ("KEY_F8", 66),
    ("KEY_F9", 67),
    ("KEY_F10", 68),
    ("KEY_F11", 87),
    ("KEY_F12", 88),
    ("KEY_UP", 103),
    ("KEY_PAGEUP", 104),
    ("KEY_LEFT", 105),
    ("KEY_RIGHT", 106),
    ("KEY_DOWN", 108),
    ("KEY_PAGEDOWN", 109),
    ("KEY_STOP", 128),
    ("BTN_0", 0x100),
    ("BTN_1", 0x101),
    ("BTN_2", 0x102),
    ("BTN_3", 0x103),
    ("BTN_4", 0x104),
    ("BTN_5", 0x105),
    ("BTN_6", 0x106),
    ("BTN_7", 0x107),
    ("BTN_8", 0x108),
    ("BTN_9", 0x109),
    ("BTN_LEFT", 0x110),
    ("BTN_RIGHT", 0x111),
    ("BTN_MIDDLE", 0x112),
    ("BTN_TRIGGER", 0x120),
    ("BTN_THUMB", 0x121),
    ("BTN_THUMB2", 0x122),
    ("BTN_TOP", 0x123),
    ("BTN_TOP2", 0x124),
    ("BTN_PINKIE", 0x125),
    ("BTN_BASE", 0x126),
    ("BTN_SOUTH", 0x130),
    ("BTN_A", 0x130),
    ("BTN_EAST", 0x131),
    ("BTN_B", 0x131),
    ("BTN_NORTH", 0x133),
    ("BTN_X", 0x133),
    ("BTN_WEST", 0x134),
    ("BTN_Y", 0x134),
    ("BTN_TL", 0x136),
    ("BTN_TR", 0x137),
    ("BTN_TL2", 0x138),
    ("BTN_TR2", 0x139),
    ("BTN_SELECT", 0x13a),
    ("BTN_START", 0x13b),
    ("BTN_MODE", 0x13c),
    ("BTN_THUMBL", 0x13d),
    ("BTN_THUMBR", 0x13e),
    ("BTN_DPAD_UP", 0x220),
    ("BTN_DPAD_DOWN", 0x221),
    ("BTN_DPAD_LEFT", 0x222),
    ("BTN_DPAD_RIGHT", 0x223),
];

const AXES: &[(&str, u16)] = &[
    ("ABS_X", 0x00),
    ("ABS_Y", 0x01),
    ("ABS_Z", 0x02),
    ("ABS_RX", 0x03),
    ("ABS_RY", 0x04),
    ("ABS_RZ", 0x05),
    ("ABS_THROTTLE", 0x06),
    ("ABS_RUDDER", 0x07),
    ("ABS_WHEEL", 0x08),
    ("ABS_GAS", 0x09),
    ("ABS_BRAKE", 0x0a),
    ("ABS_HAT0X", 0x10),
    ("ABS_HAT0Y", 0x11),
    ("ABS_PRESSURE", 0x18),
];

fn code(table: &[(&str, u16)], given: &str) -> Option<u16> {
    let named = table.iter().find(|(name, _)| name.eq_ignore_ascii_case(given)).map(|(_, code)| *code);
    named.or_else(|| match given.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u16::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None if given.bytes().all(|b| b.is_ascii_digit()) => given.parse().ok(),
        None => None,
    })
}

fn name(table: &[(&'static str, u16)], code: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match table.iter().find(|(_, c)| *c == code) {
        Some((name, _)) => f.write_str(name),
        None => write!(f, "{code:#05x}"),
    }
}

impl FromStr for KeyCode {
    type Err = UnknownName;

    fn from_str(given: &str) -> Result<Self, UnknownName> {
        let unknown = || UnknownName { given: given.to_owned(), kind: "key", example: "BTN_SOUTH or KEY_SPACE" };
        code(KEYS, given).map(Self).ok_or_else(unknown)
    }
}

impl FromStr for AxisCode {
    type Err = UnknownName;

    fn from_str(given: &str) -> Result<Self, UnknownName> {
        let unknown = || UnknownName { given: given.to_owned(), kind: "axis", example: "ABS_RX" };
        code(AXES, given).map(Self).ok_or_else(unknown)
    }
}

impl fmt::Display for KeyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        name(KEYS, self.0, f)
    }
}

impl fmt::Display for AxisCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        name(AXES, self.0, f)
    }
}

impl Serialize for KeyCode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyCode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for AxisCode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AxisCode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_codes_and_codes_are_shown_by_name() {
        assert_eq!("BTN_SOUTH".parse(), Ok(KeyCode(0x130)));
        assert_eq!("btn_a".parse(), Ok(KeyCode(0x130)));
        assert_eq!("0x2c0".parse(), Ok(KeyCode(0x2c0)));
        assert_eq!("57".parse(), Ok(KeyCode(57)));
        assert_eq!("ABS_RZ".parse(), Ok(AxisCode(5)));
        assert_eq!((KeyCode(57).to_string(), KeyCode(0x2c0).to_string()), ("KEY_SPACE".to_owned(), "0x2c0".to_owned()));
        for (name, code) in KEYS {
            let shown = KeyCode(*code).to_string();
            assert_eq!(shown.parse(), Ok(KeyCode(*code)), "{name}");
        }
    }

    #[test]
    fn what_is_no_code_is_refused_with_an_example() {
        for bad in ["", "KEY_", "SPACE", "0x", "0x10000", "65536", "-1", "+1", "0x+1"] {
            let error = bad.parse::<KeyCode>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{bad}` is no key: a name like BTN_SOUTH")), "{error}");
        }
        assert!("BTN_SOUTH".parse::<AxisCode>().is_err());
    }
}
