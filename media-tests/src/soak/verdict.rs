//! Whether what was looked at again and again has grown: a function of the figures alone.
//!
//! The first third of the looks is warm-up: caches fill, allocators take their arenas. Of the rest the first quarter is compared with the
//! last. Memory by its median, because single looks are noise on either side. Descriptors and threads by their least, because what comes and
//! goes only ever adds to them, and they have to be back at what they were.

use anyhow::ensure;

/// Looks at least: below, a quarter is a single look.
pub const LOOKS: usize = 9;

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Memory that is the process's own, in KiB.
    Memory,
    /// Open file descriptors.
    Descriptors,
    /// Threads.
    Threads,
}

impl Measure {
    /// By how much it may have grown in all, however long it took: the longer the soak, the smaller the leak that shows.
    #[must_use]
    pub const fn allowance(self) -> u64 {
        match self {
            // An allocator takes and keeps pages as its threads' turns fall; none of the processes swings by more at rest.
            Self::Memory => 2_048,
            Self::Descriptors => 0,
            // Tokio's pool for what blocks has as many threads as had to wait at once in the last ten seconds.
            Self::Threads => 2,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Descriptors => "descriptors",
            Self::Threads => "threads",
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Memory => " KiB",
            Self::Descriptors | Self::Threads => "",
        }
    }
}

/// What it was after the warm-up, and at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trend {
    /// Of which process.
    pub of: String,
    /// What.
    pub measure: Measure,
    /// In the first quarter after the warm-up.
    pub before: u64,
    /// In the last one.
    pub after: u64,
    /// Looks from the middle of the one to the middle of the other.
    pub rounds: u64,
}

impl Trend {
    /// Of figures in the order in which they were taken, one a round.
    ///
    /// # Errors
    /// Where there are fewer than [`LOOKS`].
    pub fn of(process: &str, measure: Measure, figures: &[u64]) -> anyhow::Result<Self> {
        ensure!(figures.len() >= LOOKS, "{} looks at {process}: {LOOKS} at least are right", figures.len());
        let warm = figures.get(figures.len() / 3..).unwrap_or_default();
        let quarter = warm.len() / 4;
        let middle = |part: &[u64]| match measure {
            Measure::Memory => median(part),
            Measure::Descriptors | Measure::Threads => part.iter().min().copied().unwrap_or(0),
        };
        let before = middle(warm.get(..quarter.max(2)).unwrap_or_default());
        let after = middle(warm.get(warm.len() - quarter.max(2)..).unwrap_or_default());
        Ok(Self { of: process.to_owned(), measure, before, after, rounds: (warm.len() - quarter.max(2)) as u64 })
    }

    /// By how much it grew.
    #[must_use]
    pub const fn growth(&self) -> u64 {
        self.after.saturating_sub(self.before)
    }

    /// Growth a round that would just not have been found, in thousandths of the unit.
    #[must_use]
    pub const fn resolution(&self) -> u64 {
        self.measure.allowance() * 1_000 / if self.rounds == 0 { 1 } else { self.rounds }
    }

    /// What has grown, in words; nothing where it is flat.
    #[must_use]
    pub fn leak(&self) -> Option<String> {
        let (growth, may) = (self.growth(), self.measure.allowance());
        (growth > may).then(|| {
            let (name, unit) = (self.measure.name(), self.measure.unit());
            format!(
                "{name} of {} grew by {growth}{unit}, from {} to {} in {} rounds; {may}{unit} at most are right",
                self.of, self.before, self.after, self.rounds
            )
        })
    }
}

/// The upper one of two middles: growth is not to be hidden by it.
fn median(part: &[u64]) -> u64 {
    let mut sorted = part.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leak(measure: Measure, figures: impl IntoIterator<Item = u64>) -> Option<String> {
        Trend::of("it", measure, &figures.into_iter().collect::<Vec<_>>()).unwrap().leak()
    }

    /// Noise of up to 4 MiB, the same in every run.
    fn noise(round: u64) -> u64 {
        round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52
    }

    #[test]
    fn what_stays_and_what_is_noisy_and_what_only_warmed_up_is_flat() {
        assert_eq!(leak(Measure::Memory, [20_000; 12]), None);
        assert_eq!(leak(Measure::Memory, (0..200).map(|r| 20_000 + noise(r))), None);
        // Caches fill in the first third, and one allocator's step comes later.
        assert_eq!(
            leak(Measure::Memory, (0..30).map(|r| 20_000 + 900 * r.min(9) + if r > 20 { 1_500 } else { 0 })),
            None
        );
        assert_eq!(leak(Measure::Memory, (0..30).map(|r| 40_000 - 500 * r)), None);
        // One look that fell into somebody's visit.
        assert_eq!(leak(Measure::Memory, (0..30).map(|r| if r == 29 { 90_000 } else { 20_000 })), None);
        assert_eq!(leak(Measure::Descriptors, (0..30).map(|r| 40 + r % 3)), None);
        assert_eq!(leak(Measure::Threads, (0..30).map(|r| 12 + noise(r) % 5)), None);
    }

    #[test]
    fn stairs_and_a_slow_leak_and_one_in_noise_are_found_with_their_figures() {
        let stairs = leak(Measure::Memory, (0..40).map(|r| 20_000 + 2_048 * (r / 8)));
        assert!(stairs.as_ref().is_some_and(|s| s.contains("memory of it grew by 4096 KiB")), "{stairs:?}");
        // Twenty KiB a round do not show in a dozen of rounds, and do in three hundred.
        let slow = |rounds| leak(Measure::Memory, (0..rounds).map(|r| 20_000 + 20 * r));
        assert_eq!(slow(12), None);
        assert!(slow(300).is_some_and(|s| s.contains("in 150 rounds")), "{:?}", slow(300));
        assert!(leak(Measure::Memory, (0..300).map(|r| 20_000 + 40 * r + noise(r))).is_some());
    }

    #[test]
    fn one_descriptor_more_is_found_and_is_named_with_its_process() {
        let said = leak(Measure::Descriptors, (0..12).map(|r| 40 + r / 6));
        assert_eq!(said.unwrap(), "descriptors of it grew by 1, from 40 to 41 in 6 rounds; 0 at most are right");
        assert!(leak(Measure::Descriptors, (0..12).map(|r| 40 + r)).is_some());
        assert!(leak(Measure::Threads, (0..12).map(|r| 12 + r)).is_some());
    }

    #[test]
    fn too_few_looks_are_no_verdict_and_a_longer_soak_sees_smaller_leaks() {
        let said = Trend::of("it", Measure::Memory, &[1; LOOKS - 1]).unwrap_err().to_string();
        assert!(said.contains("8 looks at it") && said.contains("9 at least"), "{said}");
        let sees = |looks| Trend::of("it", Measure::Memory, &vec![1; looks]).unwrap().resolution();
        assert!(sees(LOOKS) / sees(300) > 30, "{} {}", sees(LOOKS), sees(300));
    }
}
