//! Which rates are tried, and what the line carries by what came of them.

use crate::result::Step;

/// Loss above this stops the rise, percent.
pub const LOSS_MAX_PERCENT: f64 = 1.0;
/// Delay that builds up beyond this stops the rise, in microseconds.
pub const QUEUE_MAX_US: f64 = 50_000.0;
/// A step whose delay grows by more than 2 % of the time is more than the line carries.
pub const STRETCH_MAX: f64 = 1.02;
/// A rate is believed to be too much where chance makes so many tries in a row unclean less often than this.
const CHANCE_MAX: f64 = 0.02;
/// Tries of one rate agree where what the line did not carry differs by less than this share of itself and what jitter adds.
const AGREE: f64 = 0.25;
/// What jitter may add to that.
const AGREE_NOISE_MAX: f64 = 0.01;
/// Growth of the delay that is less than this is not told from the timestamps' and the clocks' errors.
const STRETCH_NONE: f64 = 1.001;
/// The search ends where the answer is known to within this share of it.
const CLOSE_ENOUGH: f64 = 0.04;

/// Doubles the rate until a step is not clean, then closes in.
#[derive(Debug, Clone)]
pub struct Ramp {
    max: f64,
    left: u32,
    next: Option<f64>,
    idle: Idle,
    noise: f64,
    tries: Vec<Try>,
    steps: Vec<Step>,
}

/// What is remembered of a step.
#[derive(Debug, Clone, Copy)]
struct Try {
    rate: f64,
    stretch: f64,
    clean: bool,
    /// As how many tries it counts: what is far off is chance less often.
    weight: u32,
    /// Which share of what was offered the line did not carry in time.
    over: f64,
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
    /// By how much jitter alone may stretch a step of this length: the smallest of its quarters differ by less than the jitter does.
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
    /// ± of it. Of a line that is not steady it reaches up to the highest rate that was to be tried.
    pub uncertainty: f64,
    /// No rate that was tried was too much: it may carry more. `mbit_s` is then less what delay grew by.
    pub at_least: bool,
}

impl Ramp {
    /// From `start` to at most `max` Mbit/s, in at most so many steps.
    #[must_use]
    pub fn new(start: f64, max: f64, steps: u32, idle: Idle) -> Self {
        let next = Some(start.min(max));
        Self { max, left: steps, next, idle, noise: 0.0, tries: Vec::new(), steps: Vec::new() }
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
        let far = stretch.unwrap_or(f64::INFINITY) - noise;
        let weight = 1 + u32::from(far > 1.1) + u32::from(far > 1.5);
        let stretch = stretch.unwrap_or(1.0);
        let over = 1.0 - (1.0 - step.loss_percent / 100.0) / stretch.max(1.0);
        self.tries.push(Try { rate, stretch, clean, weight, over });
        self.next = self.after(&step, clean);
        self.steps.push(step);
    }

    fn after(&self, step: &Step, clean: bool) -> Option<f64> {
        let (good, bad) = (self.good().map(|g| g.rate), self.bad());
        // A radio that changes its cell in this second says nothing about the rate: it is tried again.
        let unsure = self.unclean_above_good().filter(|r| bad.is_none_or(|b| *r < b)).fold(f64::INFINITY, f64::min);
        match (good, bad) {
            (Some(good), Some(bad)) if bad - good <= CLOSE_ENOUGH * good => None,
            _ if unsure.is_finite() => Some(unsure),
            (Some(good), None) if good >= self.max * 0.999 => None,
            (Some(good), None) => Some((good * 2.0).min(self.max)),
            (None, Some(bad)) if bad < 0.1 => None,
            // What came through a line that was too full is what it carries: just below is the best next guess.
            (None, Some(bad)) => Some((step.received_mbit_s * 0.97).clamp(bad / 8.0, bad / 1.5)),
            (Some(good), Some(bad)) => {
                let hint = step.received_mbit_s * 0.98;
                let useful = !clean && hint > good * 1.01 && hint < bad * 0.99;
                Some(if useful { hint } else { f64::midpoint(good, bad) })
            }
            (None, None) => None,
        }
    }

    /// The highest rate that was clean.
    fn good(&self) -> Option<Try> {
        self.tries.iter().filter(|t| t.clean).copied().max_by(|a, b| a.rate.total_cmp(&b.rate))
    }

    fn unclean_above_good(&self) -> impl Iterator<Item = f64> {
        let good = self.good().map_or(0.0, |g| g.rate);
        self.tries.iter().filter(move |t| t.rate > good * 1.000_001).map(|t| t.rate)
    }

    /// The lowest rate that was too much. That a line was not clean once does not say so: how often it was not clean at rates that it
    /// carries (Laplace's rule of succession) is the chance that the rate has nothing to do with it.
    fn bad(&self) -> Option<f64> {
        let good = self.good().map_or(0.0, |g| g.rate);
        let (all, unclean) = self
            .tries
            .iter()
            .filter(|t| t.rate <= good * 1.000_001)
            .fold((0, 0), |(all, unclean), t| (all + 1, unclean + u32::from(!t.clean)));
        let chance = f64::from(unclean + 1) / f64::from(all + 2);
        let weight = |rate: f64| {
            let same = self.tries.iter().filter(|t| (t.rate / rate - 1.0).abs() < 1e-6);
            same.map(|t| t.weight).sum::<u32>()
        };
        self.unclean_above_good()
            .filter(|rate| chance.powf(f64::from(weight(*rate))) <= CHANCE_MAX)
            .min_by(f64::total_cmp)
    }

    /// Whether it was the rate that made this one unclean. A line that is too slow misses the same share each time; one that loses
    /// or holds packets back without load, or was unclean at a rate that it carries, may have done so here.
    fn is_steady(&self, bad: f64) -> bool {
        let good = self.good().map_or(0.0, |g| g.rate);
        let carried = self.tries.iter().filter(|t| t.rate <= good * 1.000_001).all(|t| t.clean);
        let same = || self.tries.iter().filter(|t| (t.rate / bad - 1.0).abs() < 1e-6).map(|t| t.over);
        let (low, high) = same().fold((f64::INFINITY, 0.0_f64), |(l, h), o| (l.min(o), h.max(o)));
        carried && self.idle.loss_percent <= 0.0 && high - low <= AGREE * high + self.noise.min(AGREE_NOISE_MAX)
    }

    /// The steps so far.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What came out; none where not even the lowest rate was clean.
    #[must_use]
    pub fn capacity(&self) -> Option<Capacity> {
        let good = self.good()?;
        // A step is clean up to 2 % above what the line carries, by the stretch that is allowed, and by what jitter may add.
        let allowed = good.rate * (STRETCH_MAX - 1.0 + self.noise);
        if self.unclean_above_good().next().is_none() {
            // By as much as delay grew the line was too slow, be it within what is allowed.
            let grew = if good.stretch > STRETCH_NONE { good.stretch } else { 1.0 };
            return Some(Capacity { mbit_s: good.rate / grew, uncertainty: allowed, at_least: true });
        }
        // Where no rate is known to be too much, the line may carry any that was to be tried.
        let above = self.bad().filter(|bad| self.is_steady(*bad)).unwrap_or(self.max) - good.rate;
        Some(Capacity { mbit_s: good.rate, uncertainty: above.max(0.0) + allowed, at_least: false })
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
            // The search closes in to 4 %, and 2 % of growth is clean.
            assert!(c.uncertainty <= (CLOSE_ENOUGH + STRETCH_MAX - 1.0) * c.mbit_s * 1.000_001, "{line}: {c:?}");
            // What is less than 2 % below the highest rate is not told from it, and not said to carry it.
            assert_eq!(c.at_least, line * STRETCH_MAX >= 100.0, "{line}: {c:?}");
            assert!(!c.at_least || c.mbit_s <= line * 1.000_001, "{line}: {c:?}");
            assert!(ramp.steps().len() < 20 && ramp.next_rate().is_none(), "it ends by itself: {}", ramp.steps().len());
        }
    }

    #[test]
    fn a_line_that_carries_everything_is_said_to_carry_at_least_that() {
        let c = climb(1_000.0, 2.0, 100.0).capacity().unwrap();
        assert_eq!((c.mbit_s, c.at_least), (100.0, true));
    }

    #[test]
    fn of_a_line_that_is_unclean_now_and_then_no_highest_rate_is_said() {
        let mut ramp = Ramp::new(2.0, 100.0, 20, Idle::default());
        let mut i = 0;
        while let Some(rate) = ramp.next_rate() {
            let loss_percent = if i % 3 == 2 { 0.0 } else { 1.5 };
            ramp.handle_step(
                Step { offered_mbit_s: rate, received_mbit_s: rate, loss_percent, queue_p95_us: 0.0 },
                Some(1.0),
                0.0,
            );
            i += 1;
        }
        let c = ramp.capacity().unwrap();
        assert!(!c.at_least && c.mbit_s + c.uncertainty >= 100.0, "{c:?}");
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
