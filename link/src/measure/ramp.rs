//! Which rates are tried, and what the line carries by what came of them.

use crate::result::Step;

/// Loss above this stops the rise, percent.
pub const LOSS_MAX_PERCENT: f64 = 1.0;
/// Delay that builds up beyond this stops the rise, in microseconds.
pub const QUEUE_MAX_US: f64 = 50_000.0;
/// A step whose delay grows by more than 2 % of the time is more than the line carries.
pub const STRETCH_MAX: f64 = 1.02;
/// How often a rate that was not clean by little is tried again.
const AGAIN_MAX: u32 = 1;
/// The search ends where the answer is known to within this share of it.
const CLOSE_ENOUGH: f64 = 0.04;

/// Doubles the rate until a step is not clean, then closes in.
#[derive(Debug, Clone)]
pub struct Ramp {
    max: f64,
    left: u32,
    next: Option<f64>,
    good: Option<f64>,
    bad: Option<f64>,
    idle: Idle,
    /// The rate that was not clean by little, and how often it was tried again.
    again: (f64, u32),
    noise: f64,
    steps: Vec<Step>,
}

/// What the line does without load: that is there anyhow and does not stop the rise.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Idle {
    /// Loss, percent.
    pub loss_percent: f64,
    /// 95th percentile of the jitter.
    pub jitter_us: f64,
}

impl Idle {
    /// By how much jitter alone may stretch a step of this length: the middles of its quarters differ by less than the jitter does.
    #[must_use]
    pub fn noise(&self, step_us: u64) -> f64 {
        (0.25 * self.jitter_us / step_us.max(1) as f64).min(0.1)
    }
}

/// What the line carries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// The highest rate that was clean, Mbit/s of UDP payload.
    pub mbit_s: f64,
    /// ± of it.
    pub uncertainty: f64,
    /// The line carried the highest rate that was to be tried: it may carry more.
    pub at_least: bool,
}

impl Ramp {
    /// From `start` to at most `max` Mbit/s, in at most so many steps.
    #[must_use]
    pub fn new(start: f64, max: f64, steps: u32, idle: Idle) -> Self {
        let next = Some(start.min(max));
        Self { max, left: steps, next, good: None, bad: None, idle, again: (0.0, 0), noise: 0.0, steps: Vec::new() }
    }

    /// The next rate to try, in Mbit/s; none where it is over.
    #[must_use]
    pub fn next_rate(&self) -> Option<f64> {
        self.next.filter(|_| self.left > 0)
    }

    /// Takes what came of the rate that was last given out. `stretch` is that of [`super::flow::Received`]; `noise` is by how much
    /// jitter alone may stretch a step.
    pub fn handle_step(&mut self, step: Step, stretch: Option<f64>, noise: f64) {
        let rate = step.offered_mbit_s;
        let clean = step.loss_percent <= LOSS_MAX_PERCENT + self.idle.loss_percent * 1.5
            && step.queue_p95_us <= QUEUE_MAX_US + self.idle.jitter_us
            && stretch.is_some_and(|s| s <= STRETCH_MAX + noise);
        self.left = self.left.saturating_sub(1);
        self.noise = self.noise.max(noise);
        // A radio that changes its cell in this second says nothing about the rate: what is not far off is tried again.
        let far_off = stretch.is_none_or(|s| s > 1.1 + noise);
        let tries = if self.again.0 == rate { self.again.1 } else { 0 };
        if !clean && !far_off && tries < AGAIN_MAX {
            self.again = (rate, tries + 1);
            self.steps.push(step);
            return;
        }
        if clean {
            self.good = Some(self.good.map_or(rate, |g| g.max(rate)));
        } else {
            self.bad = Some(self.bad.map_or(rate, |b| b.min(rate)));
        }
        self.next = match (self.good, self.bad) {
            (Some(good), None) if good >= self.max * 0.999 => None,
            (Some(good), None) => Some((good * 2.0).min(self.max)),
            (None, Some(bad)) if bad < 0.1 => None,
            // What came through a line that was too full is what it carries: just below is the best next guess.
            (None, Some(bad)) => Some((step.received_mbit_s * 0.97).clamp(bad / 8.0, bad / 1.5)),
            (Some(good), Some(bad)) if bad - good <= CLOSE_ENOUGH * good => None,
            (Some(good), Some(bad)) => {
                let hint = step.received_mbit_s * 0.98;
                let useful = !clean && hint > good * 1.01 && hint < bad * 0.99;
                Some(if useful { hint } else { f64::midpoint(good, bad) })
            }
            (None, None) => None,
        };
        self.steps.push(step);
    }

    /// The steps so far.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What came out; none where not even the lowest rate was clean.
    #[must_use]
    pub fn capacity(&self) -> Option<Capacity> {
        let good = self.good?;
        // A step is clean up to 2 % above what the line carries, by the stretch that is allowed, and by what jitter may add.
        let allowed = good * (STRETCH_MAX - 1.0 + self.noise);
        let uncertainty = self.bad.map_or(allowed, |bad| (bad - good).max(0.0) + allowed);
        Some(Capacity { mbit_s: good, uncertainty, at_least: self.bad.is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of so many Mbit/s that loses what it cannot hold.
    fn climb(line: f64, start: f64, max: f64) -> Ramp {
        let mut ramp = Ramp::new(start, max, 20, Idle::default());
        while let Some(rate) = ramp.next_rate() {
            let over = (rate / line).max(1.0);
            let step = Step {
                offered_mbit_s: rate,
                received_mbit_s: rate.min(line),
                loss_percent: 0.0,
                queue_p95_us: (over - 1.0) * 1e6,
            };
            ramp.handle_step(step, Some(over), 0.0);
        }
        ramp
    }

    #[test]
    fn the_rate_of_a_line_is_found_within_its_error_bar() {
        for line in [0.7, 3.3, 10.0, 47.0, 99.0] {
            let ramp = climb(line, 2.0, 100.0);
            let c = ramp.capacity().unwrap();
            assert!((c.mbit_s - line).abs() <= c.uncertainty, "{line}: {c:?}");
            assert!(c.uncertainty <= 0.07 * line && !c.at_least, "{line}: {c:?}");
            assert!(ramp.steps().len() <= 16, "{}", ramp.steps().len());
        }
    }

    #[test]
    fn a_line_that_carries_everything_is_said_to_carry_at_least_that() {
        let c = climb(1_000.0, 2.0, 100.0).capacity().unwrap();
        assert_eq!((c.mbit_s, c.at_least), (100.0, true));
    }

    #[test]
    fn each_of_loss_queue_and_stretch_stops_the_rise() {
        let clean = Step { offered_mbit_s: 2.0, received_mbit_s: 2.0, loss_percent: 1.0, queue_p95_us: 50_000.0 };
        let after = |step: Step, stretch, loss_percent| {
            let mut ramp = Ramp::new(2.0, 100.0, 20, Idle { loss_percent, jitter_us: 0.0 });
            while ramp.next_rate() == Some(2.0) {
                ramp.handle_step(step.clone(), stretch, 0.0);
            }
            ramp.capacity().is_some()
        };
        assert!(after(clean.clone(), Some(1.02), 0.0), "the control: exactly at the limits");
        assert!(!after(Step { loss_percent: 1.01, ..clean.clone() }, Some(1.0), 0.0));
        assert!(after(Step { loss_percent: 3.0, ..clean.clone() }, Some(1.0), 2.0), "the line loses that anyhow");
        assert!(!after(Step { queue_p95_us: 50_001.0, ..clean.clone() }, Some(1.0), 0.0));
        assert!(!after(clean.clone(), Some(1.021), 0.0));
        assert!(!after(clean, None, 0.0), "nothing came");
    }
}
