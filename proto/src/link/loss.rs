//! Loss as a chain of two states (Gilbert 1960, Elliott 1963, both Bell System Technical Journal).
//!
//! The chain steps once per packet. With `p` from good to bad, `r` from bad to good, and the probabilities of loss `g` in
//! good and `b` in bad (Hasslinger and Hohlfeld, MMB 2008, write 1 − k and 1 − h):
//!
//! ```text
//! share of packets in bad    B = p / (p + r)
//! mean loss                  L = B b + (1 − B) g
//! two in a row lost         P2 = B b ((1 − r) b + r g) + (1 − B) g ((1 − p) g + p b)
//! mean burst of lost packets   = L / (L − P2)        which is 1 / r where b = 1 and g = 0
//! ```

use super::config::Loss;
use super::rng::Rng;

/// The four probabilities, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GilbertElliott {
    /// From good to bad, per packet.
    pub p: f64,
    /// From bad to good, per packet.
    pub r: f64,
    /// That a packet is lost in good.
    pub good: f64,
    /// That a packet is lost in bad.
    pub bad: f64,
}

impl GilbertElliott {
    /// Without loss.
    pub const NONE: Self = Self { p: 0.0, r: 1.0, good: 0.0, bad: 0.0 };

    /// Share of packets that meet the bad state.
    #[must_use]
    pub fn share_in_bad(&self) -> f64 {
        if self.p + self.r > 0.0 { self.p / (self.p + self.r) } else { 0.0 }
    }

    /// Expected share of packets lost, 0 to 1.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        let bad = self.share_in_bad();
        bad * self.bad + (1.0 - bad) * self.good
    }

    /// Expected number of packets lost in a row, given that one is lost; 0 without loss, infinite where all is lost.
    #[must_use]
    pub fn mean_burst(&self) -> f64 {
        let (loss, bad) = (self.mean_loss(), self.share_in_bad());
        if loss <= 0.0 {
            return 0.0;
        }
        let after_bad = (1.0 - self.r) * self.bad + self.r * self.good;
        let after_good = (1.0 - self.p) * self.good + self.p * self.bad;
        loss / (loss - bad * self.bad * after_bad - (1.0 - bad) * self.good * after_good)
    }

    /// Standard error of the loss counted over `n` packets: the autocovariance of the chain falls as (1 − p − r)^k.
    #[must_use]
    pub fn standard_error(&self, n: f64) -> f64 {
        let (loss, bad, memory) = (self.mean_loss(), self.share_in_bad(), 1.0 - self.p - self.r);
        let step = self.bad - self.good;
        let tail = if memory < 1.0 { 2.0 * step * step * bad * (1.0 - bad) * memory / (1.0 - memory) } else { 0.0 };
        ((loss * (1.0 - loss) + tail) / n).sqrt()
    }
}

impl From<&Loss> for GilbertElliott {
    fn from(loss: &Loss) -> Self {
        match *loss {
            Loss::Random { percent } => Self { good: percent / 100.0, ..Self::NONE },
            Loss::Bursts { percent, burst_packets } => {
                let (mean, r) = (percent / 100.0, 1.0 / burst_packets);
                Self { p: r * mean / (1.0 - mean), r, good: 0.0, bad: 1.0 }
            }
            Loss::GilbertElliott { to_bad_percent, to_good_percent, good_percent, bad_percent } => Self {
                p: to_bad_percent / 100.0,
                r: to_good_percent / 100.0,
                good: good_percent / 100.0,
                bad: bad_percent / 100.0,
            },
        }
    }
}

/// The chain on its way. Its first state is drawn by the share of each, so that the first packet is like any other.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    model: GilbertElliott,
    bad: bool,
    rng: Rng,
}

impl Chain {
    pub(super) fn new(model: GilbertElliott, mut rng: Rng) -> Self {
        let bad = rng.chance(model.share_in_bad());
        Self { model, bad, rng }
    }

    /// Whether the next packet is lost. Draws two numbers.
    pub(super) fn next_is_lost(&mut self) -> bool {
        let lost = self.rng.chance(if self.bad { self.model.bad } else { self.model.good });
        let turns = self.rng.chance(if self.bad { self.model.r } else { self.model.p });
        self.bad ^= turns;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: [GilbertElliott; 4] = [
        GilbertElliott { good: 0.01, ..GilbertElliott::NONE },
        GilbertElliott { p: 0.01, r: 0.25, good: 0.0, bad: 1.0 },
        GilbertElliott { p: 0.02, r: 0.1, good: 0.005, bad: 0.6 },
        GilbertElliott { p: 0.3, r: 0.9, good: 0.1, bad: 0.9 },
    ];

    /// Share lost and mean burst over `n` packets.
    fn count(model: GilbertElliott, seed: u64, n: u32) -> (f64, f64) {
        let mut chain = Chain::new(model, Rng::new(seed));
        let (mut lost, mut bursts, mut before) = (0_u32, 0_u32, false);
        for _ in 0..n {
            let now = chain.next_is_lost();
            lost += u32::from(now);
            bursts += u32::from(now && !before);
            before = now;
        }
        (f64::from(lost) / f64::from(n), f64::from(lost) / f64::from(bursts.max(1)))
    }

    #[test]
    fn the_share_lost_is_within_its_computed_bounds() {
        const N: u32 = 400_000;
        for (i, model) in MODELS.into_iter().enumerate() {
            let (loss, _) = count(model, 100 + i as u64, N);
            let bound = 4.5 * model.standard_error(f64::from(N));
            let want = model.mean_loss();
            assert!((loss - want).abs() < bound, "{model:?}: {loss} is not {want} ± {bound}");
            // The control: the bound is tight enough to notice a tenth more.
            assert!((loss - want * 1.1).abs() > bound, "{model:?}: the bound {bound} sees nothing");
        }
    }

    #[test]
    fn bursts_have_their_expected_length() {
        const RUNS: u32 = 40;
        for model in MODELS {
            let means: Vec<f64> = (0..RUNS).map(|seed| count(model, u64::from(seed), 50_000).1).collect();
            let mean = means.iter().sum::<f64>() / f64::from(RUNS);
            let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / f64::from(RUNS - 1);
            let error = (variance / f64::from(RUNS)).sqrt();
            let want = model.mean_burst();
            assert!((mean - want).abs() < 4.5 * error, "{model:?}: {mean} is not {want} ± 4.5 × {error}");
            assert!(error < 0.01 * want, "{model:?}: {error} sees too little");
        }
    }

    #[test]
    fn bursts_by_mean_and_length_are_the_simple_gilbert_model() {
        let model = GilbertElliott::from(&Loss::Bursts { percent: 2.0, burst_packets: 8.0 });
        assert!((model.mean_loss() - 0.02).abs() < 1e-12 && (model.mean_burst() - 8.0).abs() < 1e-9, "{model:?}");
    }

    #[test]
    fn none_loses_nothing_and_all_loses_everything() {
        assert_eq!(count(GilbertElliott::NONE, 1, 10_000).0, 0.0);
        assert_eq!(count(GilbertElliott { good: 1.0, ..GilbertElliott::NONE }, 1, 10_000).0, 1.0);
    }
}
