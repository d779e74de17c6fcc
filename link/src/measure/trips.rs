//! Round trips of pings.

use super::Stamp;
use super::quantiles::quantiles;
use crate::result::Quantiles;

/// Round trips that are kept. Loss policy: one more is not kept.
const TRIPS_MAX: usize = 200_000;
/// A copy comes no more pings than that behind the first.
const COPIES_BEHIND: usize = 1_000;

/// A ping that came back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trip {
    /// Its number.
    pub seq: u32,
    /// When it left.
    pub sent: Stamp,
    /// How long it took, without the time that the other end had it.
    pub rtt_us: f64,
    /// UDP payload, in bytes.
    pub len: usize,
}

/// Those of a session, in the order in which they came back.
#[derive(Debug, Clone, Default)]
pub struct Trips {
    all: Vec<Trip>,
}

impl Trips {
    /// Takes a ping that came back. Of copies the first counts (RFC 2681 section 2.4).
    pub fn handle_pong(&mut self, trip: Trip) {
        let copy = self.all.iter().rev().take(COPIES_BEHIND).any(|t| t.seq == trip.seq);
        if !copy && self.all.len() < TRIPS_MAX {
            self.all.push(trip);
        }
    }

    /// Those that left from `since` on.
    pub fn since(&self, since: Stamp) -> impl Iterator<Item = &Trip> {
        self.all.iter().filter(move |t| t.sent >= since)
    }

    /// The slowest of the newest `count`, in microseconds; 0 where there is none.
    #[must_use]
    pub fn slowest_of_newest(&self, count: usize) -> f64 {
        self.all.iter().rev().take(count).map(|t| t.rtt_us).fold(0.0, f64::max)
    }

    /// Of those that left between two times, and have this length.
    #[must_use]
    pub fn quantiles(&self, from: Stamp, until: Stamp, len: usize) -> Option<Quantiles> {
        quantiles(self.since(from).filter(|t| t.sent <= until && t.len == len).map(|t| t.rtt_us).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ping_counts_once_in_its_time_and_at_its_length() {
        let mut trips = Trips::default();
        for (seq, sent, rtt_us, len) in
            [(1, 100, 9.0, 80), (2, 200, 5.0, 80), (1, 100, 70.0, 80), (3, 200, 1.0, 900), (4, 300, 7.0, 80)]
        {
            trips.handle_pong(Trip { seq, sent, rtt_us, len });
        }
        assert_eq!(trips.since(200).map(|t| t.seq).collect::<Vec<_>>(), [2, 3, 4]);
        let q = trips.quantiles(100, 200, 80).unwrap();
        assert_eq!((q.count, q.min, q.max), (2, 5.0, 9.0), "not the copy's 70, not what left later, not the large one");
        assert_eq!(trips.quantiles(301, 400, 80), None);
        assert_eq!(
            (trips.slowest_of_newest(2), trips.slowest_of_newest(9), Trips::default().slowest_of_newest(9)),
            (7.0, 9.0, 0.0)
        );
    }
}
