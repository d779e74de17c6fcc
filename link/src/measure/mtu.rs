//! The largest packet that comes through whole: packets of several sizes with "don't fragment" set, there and back (RFC 8899 section 5
//! in small; ICMP is not needed).

use super::packet::PACKET_BYTES_MAX;

/// UDP payload that every line for a picture has to carry: less is a tunnel in a tunnel.
const LOWEST: usize = 500;
/// Payload of an Ethernet frame of 1,500 bytes less IPv4 and UDP.
const ETHERNET: usize = 1_472;

/// The search. Sizes are UDP payload.
#[derive(Debug, Clone)]
pub struct MtuSearch {
    good: Option<usize>,
    bad: usize,
    most: usize,
}

impl Default for MtuSearch {
    fn default() -> Self {
        Self { good: None, bad: PACKET_BYTES_MAX + 1, most: PACKET_BYTES_MAX }
    }
}

impl MtuSearch {
    /// The size to try next; none where it is over.
    #[must_use]
    pub const fn next_size(&self) -> Option<usize> {
        let Some(good) = self.good else {
            return if self.bad > ETHERNET {
                Some(ETHERNET)
            } else if self.bad > LOWEST {
                Some(LOWEST)
            } else {
                None
            };
        };
        if good + 1 >= self.bad {
            return None;
        }
        // Most lines are Ethernet's: that one more byte does not pass ends the search, that everything passes too.
        if good == ETHERNET && self.bad > self.most {
            return Some(self.most);
        }
        if good == ETHERNET && self.bad == self.most {
            return Some(ETHERNET + 1);
        }
        Some(usize::midpoint(good, self.bad))
    }

    /// Whether a packet of this size came back.
    pub fn handle(&mut self, size: usize, passed: bool) {
        if passed {
            self.good = Some(self.good.map_or(size, |g| g.max(size)));
        } else {
            self.bad = self.bad.min(size);
        }
    }

    /// The largest that passed.
    #[must_use]
    pub fn largest(&self) -> Option<u32> {
        self.good.map(|g| g as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_size_is_found_exactly_and_soon() {
        for (mtu, most_tries) in [(1_472, 3), (8_972, 2), (1_400, 12), (1_473, 15), (500, 13), (4_000, 16)] {
            let (mut search, mut tries) = (MtuSearch::default(), 0);
            while let Some(size) = search.next_size() {
                search.handle(size, size <= mtu);
                tries += 1;
            }
            assert_eq!(search.largest(), Some(mtu as u32));
            assert!(tries <= most_tries, "{mtu}: {tries}");
        }
    }

    #[test]
    fn where_nothing_passes_nothing_is_said() {
        let mut search = MtuSearch::default();
        while let Some(size) = search.next_size() {
            search.handle(size, false);
        }
        assert_eq!(search.largest(), None);
    }
}
