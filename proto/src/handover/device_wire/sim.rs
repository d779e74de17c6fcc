//! What `trocar-sim-device` understands: a motion in a CMD, the pose of the expert's controls in an HB, and the device's own pose in a
//! report. Stations, the gate's adapter and the device share this file; docs/DEVICES.md has the tables.
//!
//! Lengths are micrometres, angles hundredths of a degree, the grip ten-thousandths (0 open, 10,000 closed). Orientations are unit
//! quaternions w, x, y, z, each part times 32,767; `q` and `-q` are the same orientation.

use super::DecodeError;
use crate::handover::gate::Judgement;
use crate::handover::types::GrantedSet;

/// The first byte of each of the three.
pub const FORMAT: u8 = 1;
/// A closed grip.
pub const CLOSED: u16 = 10_000;
/// No rotation.
pub const UPRIGHT: [i16; 4] = [i16::MAX, 0, 0, 0];
/// Grips closer than this are matched: 5 % of the way.
const GRIP_NEAR: u16 = 500;

/// One step of motion: payload of a CMD, 22 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Motion {
    /// Change of x, y, z (micrometres), roll, pitch, yaw (0.01°) of the instrument.
    pub axes: [i16; 6],
    /// Change of the camera's pan, tilt (0.01°) and insertion (micrometres).
    pub camera: [i16; 3],
    /// Where the grip shall be, nothing to leave it.
    pub grip: Option<u16>,
}

impl Motion {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT, u8::from(self.grip.is_some())];
        self.axes.iter().chain(&self.camera).for_each(|delta| out.extend(delta.to_be_bytes()));
        out.extend(self.grip.unwrap_or(0).to_be_bytes());
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`Motion::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Fields::begin(bytes)?;
        let has_grip = from.flag()?;
        let axes = from.many(Fields::i16)?;
        let camera = from.many(Fields::i16)?;
        let grip = from.grip()?;
        if !has_grip && grip != 0 {
            return Err(DecodeError::Value { field: "grip", value: grip.into() });
        }
        from.end(Self { axes, camera, grip: has_grip.then_some(grip) })
    }

    /// Whether it moves nothing that is not granted (HO-S-016).
    #[must_use]
    pub fn is_within(&self, set: GrantedSet) -> bool {
        let instruments = self.grip.is_some() || self.axes.iter().any(|delta| *delta != 0);
        let camera = self.camera.iter().any(|delta| *delta != 0);
        (set.instruments || !instruments) && (set.camera || !camera)
    }
}

/// The expert's controls: pose of an HB, 12 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pose {
    /// No motion is commanded.
    pub motion_zero: bool,
    /// How the controls are turned.
    pub orientation: [i16; 4],
    /// How far they are closed.
    pub grip: u16,
}

impl Pose {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT, u8::from(self.motion_zero)];
        self.orientation.iter().for_each(|part| out.extend(part.to_be_bytes()));
        out.extend(self.grip.to_be_bytes());
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`Pose::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Fields::begin(bytes)?;
        let pose = Self { motion_zero: from.flag()?, orientation: from.many(Fields::i16)?, grip: from.grip()? };
        from.end(pose)
    }
}

/// The device's own pose: state of a report, 48 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// Something moves.
    pub moving: bool,
    /// How the instrument is turned.
    pub orientation: [i16; 4],
    /// How far the grip is closed.
    pub grip: u16,
    /// x, y, z (micrometres), roll, pitch, yaw (0.01°).
    pub axes: [i32; 6],
    /// The camera's pan, tilt (0.01°) and insertion (micrometres).
    pub camera: [i32; 3],
}

impl State {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT, u8::from(self.moving)];
        self.orientation.iter().for_each(|part| out.extend(part.to_be_bytes()));
        out.extend(self.grip.to_be_bytes());
        self.axes.iter().chain(&self.camera).for_each(|place| out.extend(place.to_be_bytes()));
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`State::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Fields::begin(bytes)?;
        let (moving, orientation, grip) = (from.flag()?, from.many(Fields::i16)?, from.grip()?);
        let (axes, camera) = (from.many(Fields::i32)?, from.many(Fields::i32)?);
        from.end(Self { moving, orientation, grip, axes, camera })
    }
}

/// What [`judge`] says of what nobody can judge: as far away as it can be.
pub const UNJUDGED: Judgement = Judgement { orientation: 180_000, grip_matched: false, motion_zero: false };

/// How well the controls match the device (HO-R-004).
#[must_use]
pub fn judge(pose: &Pose, state: &State) -> Judgement {
    Judgement {
        orientation: angle_between(pose.orientation, state.orientation).unwrap_or(UNJUDGED.orientation),
        grip_matched: pose.grip.abs_diff(state.grip) <= GRIP_NEAR,
        motion_zero: pose.motion_zero,
    }
}

/// The angle by which one orientation has to be turned to be the other, in thousandths of a degree; nothing where one of them is all
/// zero. By atan2, since acos knows no small angles.
#[must_use]
pub fn angle_between(a: [i16; 4], b: [i16; 4]) -> Option<u32> {
    let [aw, ax, ay, az] = a.map(f64::from);
    let [bw, bx, by, bz] = b.map(f64::from);
    // The product of the conjugate of a with b: what turns a into b.
    let w = aw * bw + ax * bx + ay * by + az * bz;
    let x = aw * bx - ax * bw - ay * bz + az * by;
    let y = aw * by + ax * bz - ay * bw - az * bx;
    let z = aw * bz - ax * by + ay * bx - az * bw;
    let turned = (x * x + y * y + z * z).sqrt();
    if w == 0.0 && turned == 0.0 {
        return None;
    }
    let degrees = 2.0 * turned.atan2(w.abs()).to_degrees();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 180,000")]
    Some((degrees * 1_000.0).round() as u32)
}

/// The orientation that roll, pitch and yaw (0.01° each, turned about x, then y, then z of the room) lead to.
#[must_use]
pub fn orientation(roll: i32, pitch: i32, yaw: i32) -> [i16; 4] {
    let half = |angle: i32| (f64::from(angle) / 100.0).to_radians() / 2.0;
    let ((sr, cr), (sp, cp), (sy, cy)) = (half(roll).sin_cos(), half(pitch).sin_cos(), half(yaw).sin_cos());
    let parts = [
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    ];
    #[allow(clippy::cast_possible_truncation, reason = "between -32,767 and 32,767")]
    parts.map(|part| (part * f64::from(i16::MAX)).round() as i16)
}

/// What is still to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn begin(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Self(bytes);
        match from.u8("format")? {
            FORMAT => Ok(from),
            other => Err(DecodeError::Value { field: "format", value: other.into() }),
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short { field })?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(u8::from_be_bytes)
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8("flags")? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Value { field: "flags", value: other.into() }),
        }
    }

    fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array("numbers").map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array("numbers").map(i32::from_be_bytes)
    }

    fn grip(&mut self) -> Result<u16, DecodeError> {
        let grip = self.array("grip").map(u16::from_be_bytes)?;
        if grip > CLOSED { Err(DecodeError::Value { field: "grip", value: grip.into() }) } else { Ok(grip) }
    }

    fn many<T: Default + Copy, const N: usize>(
        &mut self,
        one: fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<[T; N], DecodeError> {
        let mut all = [T::default(); N];
        for each in &mut all {
            *each = one(self)?;
        }
        Ok(all)
    }

    fn end<T>(self, value: T) -> Result<T, DecodeError> {
        if self.0.is_empty() { Ok(value) } else { Err(DecodeError::Trailing(self.0.len())) }
    }
}
