//! What the kernel knows of an event device: the range of an axis (EVIOCGABS), and that nobody else gets its events (EVIOCGRAB).
//!
//! A pipe or a recording stands for a device in tests: there is nothing to ask and nothing to grab, and [`Source::Replay`] says so. Only
//! where the path is no character device is that no error.

use super::AxisCode;
use input_linux::{AbsoluteAxis, EvdevHandle};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;

/// What stands behind a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An event device, grabbed: its keys type into no terminal and press no button elsewhere, until the file is closed.
    Device,
    /// A pipe or an ordinary file.
    Replay,
}

/// Why a device is not ours.
#[derive(Debug, thiserror::Error)]
pub enum GrabError {
    /// Somebody has grabbed it.
    #[error("another program has grabbed it (EVIOCGRAB): end that program, or name another device")]
    Busy,
    /// It is a character device and no event device.
    #[error("it is no event device: /dev/input/eventN or a link to one in /dev/input/by-id is right")]
    NoEventDevice,
    /// The system's own words.
    #[error("cannot grab it (EVIOCGRAB): {0}")]
    Refused(io::Error),
}

/// Makes sure that the events of a device go nowhere else. Closing the file gives it back.
///
/// # Errors
/// [`GrabError`]: it is a device, and cannot be had alone.
pub fn grab(file: &File) -> Result<Source, GrabError> {
    let kind = file.metadata().map_err(GrabError::Refused)?.file_type();
    if !kind.is_char_device() {
        return Ok(Source::Replay);
    }
    EvdevHandle::new(file.as_fd()).grab(true).map(|()| Source::Device).map_err(why)
}

fn why(error: io::Error) -> GrabError {
    match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => GrabError::Busy,
        Some(Errno::NOTTY | Errno::INVAL) => GrabError::NoEventDevice,
        _ => GrabError::Refused(error),
    }
}

/// The range of an axis in the device's own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Its lowest value.
    pub min: i32,
    /// Its highest value.
    pub max: i32,
    /// Within this of the middle it is at rest, says the driver.
    pub flat: i32,
    /// Where it stands now, where a device was asked.
    pub now: Option<i32>,
}

impl Range {
    /// A stick of 16 bits.
    pub const STICK: Self = Self { min: -32_768, max: 32_767, flat: 0, now: None };
    /// A trigger of 8 bits.
    pub const TRIGGER: Self = Self { min: 0, max: 255, flat: 0, now: None };
    /// A cross of four directions.
    pub const HAT: Self = Self { min: -1, max: 1, flat: 0, now: None };

    /// Of that axis as the device says; nothing where it has none, or is no device. A range without extent is none.
    #[must_use]
    pub fn of(file: &File, axis: AxisCode) -> Option<Self> {
        let axis = AbsoluteAxis::from_code(axis.0).ok()?;
        let info = EvdevHandle::new(file.as_fd()).absolute_info(axis).ok()?;
        let (min, max) = (info.minimum, info.maximum);
        (min < max).then_some(Self { min, max, flat: info.flat.max(0), now: Some(info.value) })
    }

    /// What an axis of that code has where nobody can be asked.
    #[must_use]
    pub const fn usual(axis: AxisCode) -> Self {
        match axis.0 {
            // ABS_Z, ABS_RZ, ABS_GAS, ABS_BRAKE
            0x02 | 0x05 | 0x09 | 0x0a => Self::TRIGGER,
            0x10..=0x17 => Self::HAT,
            _ => Self::STICK,
        }
    }

    /// From 0 at the lowest to 1 at the highest value.
    #[must_use]
    pub fn part(&self, value: i32) -> f64 {
        let (min, max) = (f64::from(self.min), f64::from(self.max));
        ((f64::from(value) - min) / (max - min)).clamp(0.0, 1.0)
    }

    /// From -1 to 1, 0 in the middle and in the dead zone around it: the larger one of `dead` (0 to below 1) and what the driver calls
    /// flat. Beyond it the way begins at 0, so that nothing jumps.
    #[must_use]
    pub fn deflection(&self, value: i32, dead: f64) -> f64 {
        let whole = 2.0 * self.part(value) - 1.0;
        let flat = 2.0 * f64::from(self.flat) / (f64::from(self.max) - f64::from(self.min));
        let dead = dead.max(flat).clamp(0.0, 0.99);
        let beyond = (whole.abs() - dead).max(0.0) / (1.0 - dead);
        beyond.copysign(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_and_a_recording_are_replays_and_another_character_device_is_refused() {
        let (reader, _writer) = io::pipe().unwrap();
        assert_eq!(grab(&File::from(std::os::fd::OwnedFd::from(reader))).unwrap(), Source::Replay);
        assert_eq!(grab(&tempfile::tempfile().unwrap()).unwrap(), Source::Replay);
        let null = File::open("/dev/null").unwrap();
        let error = grab(&null).unwrap_err();
        assert!(matches!(error, GrabError::NoEventDevice), "{error}");
        assert!(Range::of(&null, AxisCode(0)).is_none());
    }

    #[test]
    fn who_holds_a_device_is_told_from_what_is_none() {
        let of = |errno: Errno| why(errno.into()).to_string();
        assert!(of(Errno::BUSY).contains("another program"));
        assert!(of(Errno::NOTTY).contains("/dev/input/event"));
        assert!(of(Errno::NODEV).contains("No such device"));
    }

    #[test]
    fn a_stick_at_rest_is_zero_and_beyond_the_dead_zone_it_begins_at_zero() {
        let stick = Range::STICK;
        for (value, wanted) in [(0, 0.0), (4_000, 0.0), (-4_000, 0.0), (32_767, 1.0), (-32_768, -1.0), (100_000, 1.0)] {
            assert!((stick.deflection(value, 0.15) - wanted).abs() < 1e-9, "{value}");
        }
        let just = stick.deflection(5_000, 0.15);
        assert!((0.0..0.01).contains(&just), "no jump: {just}");
        // The driver's own dead zone, and a stick of 8 bits whose rest is in the middle.
        let byte = Range { min: 0, max: 255, flat: 15, now: None };
        assert!(byte.deflection(127, 0.0).abs() < 1e-9 && byte.deflection(141, 0.0).abs() < 1e-9);
        assert!(byte.deflection(0, 0.0) < -0.99);
        assert!((Range::HAT.deflection(-1, 0.15) + 1.0).abs() < 1e-9);
        assert!((Range::TRIGGER.part(255) - 1.0).abs() < 1e-9);
    }
}
