//! Linux input events (`struct input_event` of linux/input.h): foot pedals, buttons, gamepads. Pure: bytes in, events out, whether they
//! come from `/dev/input/eventN`, a pipe or a recording. Reading the file is the caller's matter; [`device`] asks the kernel about it.
//!
//! ```
//! use trocar_control::evdev::{InputEvent, KeyChange, KeyCode, Parser, encode};
//! let mut parser = Parser::default();
//! let mut seen = Vec::new();
//! parser.handle(&encode(1, 0x130, 1), |e| seen.push(e));
//! assert_eq!(seen, [InputEvent::Key(KeyCode(0x130), KeyChange::Pressed)]);
//! assert_eq!("BTN_SOUTH".parse(), Ok(KeyCode(0x130)));
//! ```

pub mod device;
mod names;

pub use names::{AxisCode, KeyCode, UnknownName};

use std::collections::BTreeSet;

/// Bytes of one record where `long` has 64 bits: seconds and microseconds (8 each), type, code (2 each), value (4), in the machine's own
/// byte order.
pub const RECORD: usize = 24;

const EV_SYN: u16 = 0;
const EV_KEY: u16 = 1;
const EV_ABS: u16 = 3;
const SYN_REPORT: u16 = 0;
const SYN_DROPPED: u16 = 3;

/// What a key or button did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyChange {
    /// Went down.
    Pressed,
    /// Came up.
    Released,
    /// Is held, and the kernel says so again: never an act.
    Repeated,
}

/// One event. What is neither key nor absolute axis is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InputEvent {
    /// A key or button.
    Key(KeyCode, KeyChange),
    /// An absolute axis stands at this value, in the device's own range (mostly −32768…32767 or 0…255).
    Axis(AxisCode, i32),
    /// What came before belongs together (SYN_REPORT).
    Sync,
    /// The kernel's buffer ran over and events are missing, a release perhaps (SYN_DROPPED): whatever was held is in doubt.
    Dropped,
}

/// Cuts a stream of bytes into records. Keeps less than one record between two calls.
#[derive(Debug, Clone, Default)]
pub struct Parser {
    partial: [u8; RECORD],
    len: usize,
}

impl Parser {
    /// Takes bytes as they came, in pieces of any length, and hands on each event that is complete.
    pub fn handle(&mut self, mut bytes: &[u8], mut each: impl FnMut(InputEvent)) {
        while !bytes.is_empty() {
            let Some(room) = self.partial.get_mut(self.len..) else { return self.reset() };
            let n = room.len().min(bytes.len());
            let Some((now, later)) = bytes.split_at_checked(n) else { return };
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            (self.len, bytes) = (self.len + n, later);
            if self.len == RECORD {
                self.len = 0;
                if let Some(event) = decode(&self.partial) {
                    each(event);
                }
            }
        }
    }

    /// Forgets the beginning of a record: after the device was opened anew.
    pub const fn reset(&mut self) {
        self.len = 0;
    }
}

/// One record as an event; nothing where it is of no use here.
#[must_use]
pub fn decode(record: &[u8; RECORD]) -> Option<InputEvent> {
    let [.., t0, t1, c0, c1, v0, v1, v2, v3] = *record;
    let (kind, code) = (u16::from_ne_bytes([t0, t1]), u16::from_ne_bytes([c0, c1]));
    let value = i32::from_ne_bytes([v0, v1, v2, v3]);
    match (kind, code, value) {
        (EV_KEY, code, 0) => Some(InputEvent::Key(KeyCode(code), KeyChange::Released)),
        (EV_KEY, code, 1) => Some(InputEvent::Key(KeyCode(code), KeyChange::Pressed)),
        (EV_KEY, code, 2) => Some(InputEvent::Key(KeyCode(code), KeyChange::Repeated)),
        (EV_ABS, code, value) => Some(InputEvent::Axis(AxisCode(code), value)),
        (EV_SYN, SYN_REPORT, _) => Some(InputEvent::Sync),
        (EV_SYN, SYN_DROPPED, _) => Some(InputEvent::Dropped),
        _ => None,
    }
}

/// A record at time 0, for recordings and tests.
#[must_use]
pub fn encode(kind: u16, code: u16, value: i32) -> [u8; RECORD] {
    let mut out = [0; RECORD];
    let tail = kind.to_ne_bytes().into_iter().chain(code.to_ne_bytes()).chain(value.to_ne_bytes());
    out.iter_mut().skip(16).zip(tail).for_each(|(to, from)| *to = from);
    out
}

/// Which keys are held: for a dead-man input. In doubt a key counts as released, and has to be pressed anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    keys: BTreeSet<KeyCode>,
    /// Between SYN_DROPPED and the SYN_REPORT that follows.
    in_doubt: bool,
}

impl Held {
    /// Most keys at a time; more are not noted, so that they count as released.
    const MOST: usize = 64;

    /// Takes note of an event.
    pub fn handle(&mut self, event: InputEvent) {
        match event {
            InputEvent::Dropped => {
                self.keys.clear();
                self.in_doubt = true;
            }
            InputEvent::Sync => self.in_doubt = false,
            InputEvent::Key(key, KeyChange::Released) => {
                self.keys.remove(&key);
            }
            InputEvent::Key(key, KeyChange::Pressed) if !self.in_doubt && self.keys.len() < Self::MOST => {
                self.keys.insert(key);
            }
            // A repetition is no press: after a doubt the hand has to come up and go down again.
            InputEvent::Key(..) | InputEvent::Axis(..) => {}
        }
    }

    /// Whether it is down.
    #[must_use]
    pub fn is_held(&self, key: KeyCode) -> bool {
        self.keys.contains(&key)
    }

    /// The device is gone, or is opened anew.
    pub fn release_all(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: KeyCode = KeyCode(57);

    fn events(bytes: &[u8], piece: usize) -> Vec<InputEvent> {
        let (mut parser, mut out) = (Parser::default(), Vec::new());
        bytes.chunks(piece).for_each(|c| parser.handle(c, |e| out.push(e)));
        out
    }

    /// A press, a repetition and a release of the space key as a keyboard sent them, little endian: MSC_SCAN, EV_KEY, SYN_REPORT.
    #[cfg(target_endian = "little")]
    const RECORDED: &str = "\
        2cf01a6800000000b1c5060000000000040004002c000700\
        2cf01a6800000000b1c50600000000000100390001000000\
        2cf01a6800000000b1c50600000000000000000000000000\
        2cf01a6800000000d6980a00000000000100390002000000\
        2cf01a6800000000d6980a00000000000000000001000000\
        2cf01a6800000000f70a0b0000000000040004002c000700\
        2cf01a6800000000f70a0b00000000000100390000000000\
        2cf01a6800000000f70a0b00000000000000000000000000";

    #[test]
    #[cfg(target_endian = "little")]
    fn recorded_bytes_are_the_same_events_in_pieces_of_any_length() {
        let bytes = hex::decode(RECORDED).unwrap();
        let key = |change| InputEvent::Key(SPACE, change);
        let expected = [
            key(KeyChange::Pressed),
            InputEvent::Sync,
            key(KeyChange::Repeated),
            InputEvent::Sync,
            key(KeyChange::Released),
            InputEvent::Sync,
        ];
        for piece in 1..=bytes.len() {
            assert_eq!(events(&bytes, piece), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_encoded_decodes_and_other_types_are_left_out() {
        assert_eq!(decode(&encode(EV_ABS, 2, -7)), Some(InputEvent::Axis(AxisCode(2), -7)));
        assert_eq!(decode(&encode(EV_SYN, SYN_DROPPED, 0)), Some(InputEvent::Dropped));
        for kind in [2, 4, 5, 0x11, 0x15, u16::MAX] {
            assert_eq!(decode(&encode(kind, 57, 1)), None);
        }
        assert_eq!(decode(&encode(EV_KEY, 57, 3)), None);
        assert_eq!(decode(&encode(EV_KEY, 57, i32::MIN)), None);
    }

    #[test]
    fn a_record_that_was_cut_off_is_forgotten_when_the_device_is_opened_anew() {
        let mut parser = Parser::default();
        let mut seen = Vec::new();
        parser.handle(&encode(EV_KEY, 57, 1)[..23], |e| seen.push(e));
        parser.reset();
        parser.handle(&encode(EV_KEY, 30, 1), |e| seen.push(e));
        assert_eq!(seen, [InputEvent::Key(KeyCode(30), KeyChange::Pressed)]);
    }

    #[test]
    fn after_lost_events_nothing_is_held_until_it_is_pressed_anew() {
        // A lost release must not leave a dead-man input pressed.
        let mut held = Held::default();
        let key = |change| InputEvent::Key(SPACE, change);
        held.handle(key(KeyChange::Pressed));
        assert!(held.is_held(SPACE));
        held.handle(InputEvent::Dropped);
        assert!(!held.is_held(SPACE));
        held.handle(key(KeyChange::Pressed)); // of the packet that is not whole
        held.handle(InputEvent::Sync);
        held.handle(key(KeyChange::Repeated));
        assert!(!held.is_held(SPACE));
        held.handle(key(KeyChange::Released));
        held.handle(key(KeyChange::Pressed));
        assert!(held.is_held(SPACE));
        held.release_all();
        assert!(!held.is_held(SPACE));
    }

    #[test]
    fn the_number_of_keys_that_are_noted_is_bounded() {
        let mut held = Held::default();
        (0..1_000).for_each(|n| held.handle(InputEvent::Key(KeyCode(n), KeyChange::Pressed)));
        assert!(held.is_held(KeyCode(63)) && !held.is_held(KeyCode(64)));
    }
}
