//! What moves: places, without mass.

use trocar_proto::handover::device_wire::sim::{self, Motion};

/// Half of the way that x, y, z and the camera's insertion have, in micrometres.
const REACH: i32 = 150_000;
/// Half a turn, in 0.01°.
const HALF_TURN: i32 = 18_000;
/// How far local's slow motion goes from the middle, in micrometres.
const LOCAL_REACH: i32 = 20_000;

/// An arm with a grip and a camera. Units as in `device_wire::sim`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arm {
    /// x, y, z, roll, pitch, yaw.
    pub axes: [i32; 6],
    /// Pan, tilt, insertion.
    pub camera: [i32; 3],
    /// 0 open to 10,000 closed.
    pub grip: u16,
    /// Local's slow motion goes back.
    backwards: bool,
}

impl Arm {
    /// Moves by the step, within its reach.
    pub fn apply(&mut self, motion: &Motion) {
        let [x, y, z, roll, pitch, yaw] = &mut self.axes;
        let [dx, dy, dz, dr, dp, dw] = motion.axes.map(i32::from);
        for (place, delta) in [(x, dx), (y, dy), (z, dz)] {
            *place = (*place + delta).clamp(-REACH, REACH);
        }
        for (angle, delta) in [(roll, dr), (pitch, dp), (yaw, dw)] {
            *angle = turned(*angle + delta);
        }
        let [pan, tilt, insertion] = &mut self.camera;
        let [dpan, dtilt, din] = motion.camera.map(i32::from);
        (*pan, *tilt) = (turned(*pan + dpan), turned(*tilt + dtilt));
        *insertion = (*insertion + din).clamp(-REACH, REACH);
        self.grip = motion.grip.unwrap_or(self.grip).min(sim::CLOSED);
    }

    /// One step of local's own slow motion: to and fro along x. `step` in micrometres.
    pub fn local_step(&mut self, step: i16) {
        let x = self.axes.first().copied().unwrap_or(0);
        self.backwards = if self.backwards { x > -LOCAL_REACH } else { x >= LOCAL_REACH };
        let delta = if self.backwards { step.saturating_neg() } else { step };
        self.apply(&Motion { axes: [delta, 0, 0, 0, 0, 0], ..Motion::default() });
    }

    /// Somebody pushes the camera.
    pub fn push_camera(&mut self) {
        self.apply(&Motion { camera: [100, 0, 0], ..Motion::default() });
    }

    /// How the instrument is turned.
    #[must_use]
    pub fn orientation(&self) -> [i16; 4] {
        let [.., roll, pitch, yaw] = self.axes;
        sim::orientation(roll, pitch, yaw)
    }
}

/// Within -180° and 180°.
const fn turned(angle: i32) -> i32 {
    (angle + HALF_TURN).rem_euclid(2 * HALF_TURN) - HALF_TURN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up_and_end_at_the_reach() {
        let mut arm = Arm::default();
        let step = Motion { axes: [30_000, -1, 0, 0, 0, 17_000], camera: [-5, 0, 0], grip: Some(10_000) };
        for _ in 0..10 {
            arm.apply(&step);
        }
        assert_eq!((arm.axes[0], arm.axes[1], arm.camera[0], arm.grip), (REACH, -10, -50, 10_000));
        assert_eq!(arm.axes[5], 170_000 - 5 * 36_000, "five whole turns back");
    }

    #[test]
    fn locals_motion_goes_to_and_fro() {
        let mut arm = Arm::default();
        let places: Vec<i32> = (0..1_000)
            .map(|_| {
                arm.local_step(200);
                arm.axes[0]
            })
            .collect();
        assert_eq!((places.iter().min(), places.iter().max()), (Some(&-LOCAL_REACH), Some(&LOCAL_REACH)));
    }
}
