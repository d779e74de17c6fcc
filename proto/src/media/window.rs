//! A sliding window over 48-bit packet indices: against replay on the way in (RFC 3711 section 3.3.2), and against
//! sealing one index twice on the way out (with AES-GCM that would give the key away, RFC 7714 section 8.1).

/// How many indices below the highest are remembered.
pub const WINDOW: u64 = 1024;

/// Which of the newest [`WINDOW`] indices were used.
pub type IndexWindow = Window<{ (WINDOW / 64) as usize }>;

/// Which of the newest `64 * WORDS` indices were used.
#[derive(Debug, Clone)]
pub struct Window<const WORDS: usize> {
    highest: Option<u64>,
    bits: [u64; WORDS],
}

impl<const WORDS: usize> Default for Window<WORDS> {
    fn default() -> Self {
        Self { highest: None, bits: [0; WORDS] }
    }
}

impl<const WORDS: usize> Window<WORDS> {
    const SIZE: u64 = 64 * WORDS as u64;

    fn bit(index: u64) -> (usize, u64) {
        (((index % Self::SIZE) / 64) as usize, 1 << (index % 64))
    }

    /// Whether the index is neither used nor too old to know.
    #[must_use]
    pub fn is_fresh(&self, index: u64) -> bool {
        match self.highest {
            Some(h) if index <= h => {
                let (word, bit) = Self::bit(index);
                h - index < Self::SIZE && self.bits.get(word).is_some_and(|w| w & bit == 0)
            }
            _ => true,
        }
    }

    /// Marks the index as used; false, and nothing changes, where it is not fresh.
    pub fn take(&mut self, index: u64) -> bool {
        // The very next index is by far the most frequent; its bit may be set from a window ago, and is set anyway.
        if self.highest.is_some_and(|h| index == h + 1) {
            self.highest = Some(index);
            let (word, bit) = Self::bit(index);
            self.bits.get_mut(word).into_iter().for_each(|w| *w |= bit);
            return true;
        }
        if !self.is_fresh(index) {
            return false;
        }
        match self.highest {
            Some(h) if index > h => {
                // Indices between enter the window unused; a jump past the window clears it whole.
                for i in (h + 1..=index).rev().take(64 * WORDS) {
                    let (word, bit) = Self::bit(i);
                    if let Some(w) = self.bits.get_mut(word) {
                        *w &= !bit;
                    }
                }
                self.highest = Some(index);
            }
            Some(_) => {}
            None => self.highest = Some(index),
        }
        let (word, bit) = Self::bit(index);
        if let Some(w) = self.bits.get_mut(word) {
            *w |= bit;
        }
        true
    }

    /// The highest index used.
    #[must_use]
    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_plain_set_over_a_shuffled_walk() {
        let mut w = IndexWindow::default();
        let mut used = BTreeSet::new();
        let mut x = 12_345_u64;
        let mut base = 70_000_u64;
        for _ in 0..20_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            base += (x >> 33) % 3;
            if (x >> 40).is_multiple_of(997) {
                base += 5_000;
            }
            let index = base.saturating_sub((x >> 20) % 1_500);
            let high = used.last().copied().unwrap_or(0);
            let expect = !used.contains(&index) && (used.is_empty() || index + WINDOW > high);
            assert_eq!(w.take(index), expect, "index {index}, highest {high}");
            if expect {
                used.insert(index);
            }
        }
    }
}
