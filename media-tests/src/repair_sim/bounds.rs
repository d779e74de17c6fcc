//! Confidence bounds of a share.

/// Standard normal quantile for 95 % between two bounds.
const Z: f64 = 1.959_963_985;
/// Above this many failures the exact bound is that of Wilson to all printed digits.
const EXACT: u64 = 2_000;

/// Bounds of Wilson (1927) at 95 %, as shares.
#[must_use]
pub fn wilson(good: u64, all: u64) -> (f64, f64) {
    if all == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (all as f64, good as f64 / all as f64);
    let z2 = Z * Z;
    let middle = p + z2 / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    (((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0))
}

/// Lower bound of Clopper and Pearson (1934) at 97.5 % for the share of the good: no share below it makes so few failures
/// likelier than 2.5 %.
#[must_use]
pub fn at_least(good: u64, all: u64) -> f64 {
    let bad = all.saturating_sub(good);
    if all == 0 || good == 0 {
        return 0.0;
    }
    if bad > EXACT {
        return wilson(good, all).0;
    }
    let (mut low, mut high) = (bad as f64 / all as f64, 1.0);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if at_most(bad, all, middle) > 0.025 {
            low = middle;
        } else {
            high = middle;
        }
    }
    1.0 - high
}

/// P(X ≤ k) for `n` trials with chance `q`.
fn at_most(k: u64, n: u64, q: f64) -> f64 {
    if q >= 1.0 {
        return 0.0;
    }
    let (mut log, mut sum) = (n as f64 * (1.0 - q).ln(), 0.0);
    for i in 0..=k {
        sum += log.exp();
        log += ((n - i) as f64 / (i + 1) as f64).ln() + q.ln() - (1.0 - q).ln();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_those_of_the_tables() {
        // None of n failed: the bound is the n-th root of 0.025.
        assert!((at_least(30_000, 30_000) - 0.025_f64.powf(1.0 / 30_000.0)).abs() < 1e-9);
        // 1 of 10 failed: 0.5550 (Clopper and Pearson's chart; R: binom.test(9, 10)).
        assert!((at_least(9, 10) - 0.554_984).abs() < 1e-5, "{}", at_least(9, 10));
        // Wilson for 9 of 10: 0.5958 to 0.9821.
        let (low, high) = wilson(9, 10);
        assert!((low - 0.595_85).abs() < 1e-4 && (high - 0.982_12).abs() < 1e-4, "{low} {high}");
        assert!(at_least(0, 10).abs() < 1e-12 && wilson(0, 0) == (0.0, 1.0));
    }
}
