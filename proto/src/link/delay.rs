//! How long a packet is under way: four shapes, each within a smallest and a largest value.

use super::config::{Delay, micros};
use super::rng::Rng;

/// Draws from the normal distribution that may fall outside its cut. [`Delay::check`](super::config) sees to it that each
/// falls inside with a chance of at least a third: 64 misses in a row have a chance below 10^-11.
const NORMAL_TRIES: u32 = 64;

impl Delay {
    /// One delay in microseconds.
    pub(super) fn draw(&self, rng: &mut Rng) -> u64 {
        micros(match *self {
            Self::Constant { ms } => ms,
            Self::Uniform { min_ms, max_ms } => min_ms + (max_ms - min_ms) * rng.unit(),
            Self::Normal { mean_ms, sd_ms, min_ms, max_ms } => {
                let max_ms = max_ms.unwrap_or(mean_ms + 4.0 * sd_ms);
                let mut tries = (0..NORMAL_TRIES).map(|_| mean_ms + sd_ms * rng.normal());
                tries.find(|ms| (min_ms..=max_ms).contains(ms)).unwrap_or(mean_ms)
            }
            Self::Pareto { base_ms, scale_ms, alpha, max_ms } => {
                // The inverse of the distribution function, cut where the excess reaches its largest value.
                let excess = max_ms - base_ms;
                let inside = 1.0 - (1.0 + excess / scale_ms).powf(-alpha);
                base_ms + scale_ms * ((1.0 - inside * rng.unit()).powf(-1.0 / alpha) - 1.0)
            }
        })
    }

    /// Smallest and largest delay in microseconds.
    #[must_use]
    pub fn range(&self) -> (u64, u64) {
        let (min, max) = match *self {
            Self::Constant { ms } => (ms, ms),
            Self::Uniform { min_ms, max_ms } => (min_ms, max_ms),
            Self::Normal { mean_ms, sd_ms, min_ms, max_ms } => (min_ms, max_ms.unwrap_or(mean_ms + 4.0 * sd_ms)),
            Self::Pareto { base_ms, max_ms, .. } => (base_ms, max_ms),
        };
        (micros(min), micros(max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: u32 = 100_000;

    fn draws(delay: &Delay) -> Vec<f64> {
        let mut rng = Rng::new(11);
        let mut all: Vec<f64> = (0..N).map(|_| delay.draw(&mut rng) as f64 / 1_000.0).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// The largest distance to a distribution function stays below the bound of Dvoretzky, Kiefer, Wolfowitz and Massart
    /// for a chance of 10^-6; another function, the control, does not.
    fn follows(delay: &Delay, cdf: impl Fn(f64) -> f64, other: impl Fn(f64) -> f64) {
        let all = draws(delay);
        let (min, max) = delay.range();
        assert!(all[0] >= min as f64 / 1_000.0 && all[all.len() - 1] <= max as f64 / 1_000.0, "{delay:?}");
        let distance = |f: &dyn Fn(f64) -> f64| {
            let at = |(i, x): (usize, &f64)| (f(*x) - (i as f64 + 0.5) / f64::from(N)).abs();
            all.iter().enumerate().map(at).fold(0.0, f64::max)
        };
        let bound = ((2.0_f64 / 1e-6).ln() / (2.0 * f64::from(N))).sqrt() + 0.001;
        assert!(distance(&cdf) < bound, "{delay:?}: {} is not below {bound}", distance(&cdf));
        assert!(distance(&other) > bound, "{delay:?}: the bound {bound} sees nothing");
    }

    /// The normal distribution function by Simpson's rule.
    fn phi(z: f64) -> f64 {
        let (n, from) = (400, -9.0);
        let h = (z - from) / f64::from(n);
        let f = |i: i32| (-(from + h * f64::from(i)).powi(2) / 2.0).exp();
        let inner: f64 = (1..n).map(|i| f(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
        (f(0) + inner + f(n)) * h / 3.0 / std::f64::consts::TAU.sqrt()
    }

    #[test]
    fn constant_is_constant() {
        let all = draws(&Delay::Constant { ms: 12.345 });
        assert!(all.iter().all(|ms| *ms == 12.345));
    }

    #[test]
    fn uniform_follows_its_distribution() {
        let d = Delay::Uniform { min_ms: 10.0, max_ms: 30.0 };
        follows(&d, |x| (x - 10.0) / 20.0, |x| (x - 10.0) / 21.0);
    }

    #[test]
    fn normal_follows_its_distribution_also_where_the_cut_bites() {
        let d = Delay::Normal { mean_ms: 20.0, sd_ms: 5.0, min_ms: 18.0, max_ms: Some(40.0) };
        let cut = |x: f64, sd: f64| {
            let z = |v: f64| phi((v - 20.0) / sd);
            (z(x) - z(18.0)) / (z(40.0) - z(18.0))
        };
        follows(&d, |x| cut(x, 5.0), |x| cut(x, 6.0));
    }

    #[test]
    fn pareto_follows_its_distribution_up_to_its_cut() {
        let d = Delay::Pareto { base_ms: 20.0, scale_ms: 2.0, alpha: 1.5, max_ms: 500.0 };
        let tail = |x: f64, alpha: f64| 1.0 - (1.0 + x / 2.0).powf(-alpha);
        let cut = |x: f64, alpha: f64| tail(x - 20.0, alpha) / tail(480.0, alpha);
        follows(&d, |x| cut(x, 1.5), |x| cut(x, 1.7));
    }
}
