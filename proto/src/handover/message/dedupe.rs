//! Copies that came over another tunnel are dropped by id (HO-C-006).

/// The ids of one sender's reliable messages: a window of 64 behind the newest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Dedupe {
    newest: u64,
    /// Bit n: `newest` − n was seen.
    seen: u64,
}

impl Dedupe {
    /// True the first time that `id` comes; false for copies and for ids that fell out of the window. Ids begin at 1.
    pub fn is_first(&mut self, id: u64) -> bool {
        if id > self.newest {
            let step = id - self.newest;
            self.seen = if step < 64 { self.seen << step } else { 0 } | 1;
            self.newest = id;
            return true;
        }
        let back = self.newest - id;
        if id == 0 || back >= 64 || self.seen & (1 << back) != 0 {
            return false;
        }
        self.seen |= 1 << back;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_came_by_another_tunnel_is_dropped_and_one_that_overtook_is_not() {
        // HO-C-006
        let mut ids = Dedupe::default();
        let taken: Vec<bool> = [1, 3, 1, 2, 3, 2, 70, 4, 69, 0, 70].iter().map(|id| ids.is_first(*id)).collect();
        assert_eq!(taken, [true, true, false, true, false, false, true, false, true, false, false]);
        assert!(ids.is_first(u64::MAX));
        assert!(!ids.is_first(u64::MAX));
    }
}
