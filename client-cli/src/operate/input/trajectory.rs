//! Motion by a formula, up to 1,000 commands a second: for demonstrations and tests.

use anyhow::bail;
use std::f64::consts::TAU;
use trocar_proto::handover::device_wire::sim;
use trocar_proto::handover::message::Payload;
use trocar_proto::units::Micros;

/// What is moved along.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::operate) enum Shape {
    /// Around, in x and y, beginning and ending where it is.
    Circle,
    /// There and back in x.
    Line,
    /// Commands that move nothing.
    Still,
    /// Around with the camera, in pan and tilt; the radius is in hundredths of a degree.
    Camera,
}

/// A motion that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::operate) struct Trajectory {
    pub(in crate::operate) shape: Shape,
    /// Commands per second.
    pub(in crate::operate) hz: u32,
    pub(in crate::operate) seconds: f64,
    /// Micrometres.
    radius: f64,
    /// Seconds of one round.
    period: f64,
}

impl Trajectory {
    /// With what was left out filled in: 100 commands a second, 10 s, 5 mm, 2 s a round.
    ///
    /// # Errors
    /// Names the key, and what would be right.
    pub(super) fn new(
        name: &str,
        hz: Option<u32>,
        seconds: Option<f64>,
        radius_um: Option<u32>,
        period_s: Option<f64>,
    ) -> anyhow::Result<Self> {
        let shape = match name {
            "circle" => Shape::Circle,
            "line" => Shape::Line,
            "still" => Shape::Still,
            "camera" => Shape::Camera,
            other => bail!("trajectory: {other:?} is none; circle, line, still and camera are"),
        };
        let hz = hz.unwrap_or(100);
        if !(1..=1_000).contains(&hz) {
            bail!("hz is 1 to 1000, not {hz}");
        }
        let (seconds, period) = (seconds.unwrap_or(10.0), period_s.unwrap_or(2.0));
        if !(seconds > 0.0 && seconds <= 86_400.0) {
            bail!("seconds is above 0 and at most 86400, not {seconds}");
        }
        let radius = radius_um.unwrap_or(5_000);
        // One step has to fit 16 bits of micrometres.
        let fastest = TAU * f64::from(radius) / (period * f64::from(hz));
        if !(0.1..=3_600.0).contains(&period) || radius > 100_000 || fastest > f64::from(i16::MAX) {
            bail!("period_s is 0.1 to 3600, radius_um at most 100000, and a step at most 32767 µm");
        }
        Ok(Self { shape, hz, seconds, radius: f64::from(radius), period })
    }

    /// Where it is after `n` commands.
    fn place(&self, n: u64) -> (f64, f64) {
        let angle = TAU * (n as f64 / f64::from(self.hz)) / self.period;
        match self.shape {
            Shape::Circle | Shape::Camera => (self.radius * (1.0 - angle.cos()), self.radius * angle.sin()),
            Shape::Line => (self.radius * angle.sin(), 0.0),
            Shape::Still => (0.0, 0.0),
        }
    }

    fn motion(&self, x: i16, y: i16) -> sim::Motion {
        match self.shape {
            Shape::Camera => sim::Motion { camera: [x, y, 0], ..sim::Motion::default() },
            _ => sim::Motion { axes: [x, y, 0, 0, 0, 0], ..sim::Motion::default() },
        }
    }
}

/// A motion under way. While the controls are free it stands still and goes on from there: nothing is made up for.
#[derive(Debug, Clone)]
pub(in crate::operate) struct Running {
    what: Trajectory,
    until: Micros,
    due: Micros,
    commands: u64,
    /// Where the whole steps have led, so that rounding does not add up.
    led: (i64, i64),
}

impl Running {
    pub(in crate::operate) fn begin(what: Trajectory, now: Micros) -> Self {
        let until = now.plus((what.seconds * 1e6) as u64);
        Self { what, until, due: now, commands: 0, led: (0, 0) }
    }

    /// When the next command is due.
    pub(in crate::operate) const fn due(&self) -> Micros {
        self.due
    }

    pub(in crate::operate) fn is_over(&self, now: Micros) -> bool {
        now >= self.until
    }

    /// The next command where it is due. One that could not be sent in time is left out, not sent late.
    pub(in crate::operate) fn step(&mut self, now: Micros, coupled: bool) -> Option<Payload> {
        if now < self.due || self.is_over(now) {
            return None;
        }
        let interval = 1_000_000 / u64::from(self.what.hz);
        let next = self.due.plus(interval);
        // Where this thread slept, the schedule moves.
        self.due = if now.since(next) > interval * 4 { now.plus(interval) } else { next };
        if !coupled {
            return None;
        }
        self.commands += 1;
        let (x, y) = self.what.place(self.commands);
        let (x, y) = (x.round() as i64, y.round() as i64);
        let step = |to: i64, from: i64| i16::try_from(to - from).unwrap_or(0);
        let motion = self.what.motion(step(x, self.led.0), step(y, self.led.1));
        self.led = (x, y);
        Payload::new(motion.encode()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, hz: u32, seconds: f64, coupled: impl Fn(u64) -> bool) -> Vec<sim::Motion> {
        let what = Trajectory::new(name, Some(hz), Some(seconds), Some(5_000), Some(seconds)).unwrap();
        let mut running = Running::begin(what, Micros(0));
        let steps = (0..(seconds * 1e6) as u64).step_by(500).filter_map(|us| running.step(Micros(us), coupled(us)));
        steps.map(|payload| sim::Motion::decode(payload.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn a_circle_at_one_kilohertz_has_a_thousand_steps_a_second_and_ends_where_it_began() {
        let steps = run("circle", 1_000, 2.0, |_| true);
        assert_eq!(steps.len(), 2_000);
        let sum = |i: usize| steps.iter().map(|m| i64::from(m.axes[i])).sum::<i64>();
        assert_eq!((sum(0), sum(1)), (0, 0));
        let farthest = steps.iter().scan(0, |x, m| {
            *x += i64::from(m.axes[0]);
            Some(*x)
        });
        assert_eq!(farthest.max(), Some(10_000));
    }

    #[test]
    fn free_controls_send_nothing_and_nothing_is_made_up_for() {
        let steps = run("line", 100, 1.0, |us| us < 500_000);
        assert_eq!(steps.len(), 50);
        assert!(steps.iter().all(|m| m.axes[0].abs() < 400), "no jump");
        assert!(run("camera", 100, 1.0, |_| true).iter().all(|m| m.axes == [0; 6]));
        assert!(run("still", 100, 1.0, |_| true).iter().all(|m| *m == sim::Motion::default()));
    }

    #[test]
    fn a_thread_that_slept_sends_no_burst() {
        let what = Trajectory::new("line", Some(1_000), Some(10.0), None, None).unwrap();
        let mut running = Running::begin(what, Micros(0));
        assert!(running.step(Micros(0), true).is_some());
        let burst = (0..100).filter(|_| running.step(Micros(5_000_000), true).is_some()).count();
        assert_eq!(burst, 1);
    }
}
