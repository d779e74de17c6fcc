//! Who may connect how often, and send how much.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use trocar_proto::units::Micros;

/// A token bucket whose credit is time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    credit_us: u64,
    at: Micros,
}

/// So many at once, and so many a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) burst: u64,
    pub(crate) per_second: u64,
}

impl Rate {
    const fn cost_us(self) -> u64 {
        1_000_000 / if self.per_second == 0 { 1 } else { self.per_second }
    }

    const fn cap_us(self) -> u64 {
        self.cost_us().saturating_mul(self.burst)
    }
}

impl Bucket {
    pub(crate) const fn full(now: Micros, rate: Rate) -> Self {
        Self { credit_us: rate.cap_us(), at: now }
    }

    /// Takes one, and leaves `reserve` for others; whether there was one.
    pub(crate) fn take(&mut self, now: Micros, rate: Rate, reserve: u64) -> bool {
        self.fill(now, rate);
        let left = self.credit_us.checked_sub(rate.cost_us()).filter(|l| *l >= rate.cost_us().saturating_mul(reserve));
        self.credit_us = left.unwrap_or(self.credit_us);
        left.is_some()
    }

    fn fill(&mut self, now: Micros, rate: Rate) {
        self.credit_us = self.credit_us.saturating_add(now.since(self.at)).min(rate.cap_us());
        self.at = now;
    }
}

/// Connections of one peer, and of loopback, behind which whole test fleets sit.
const PEER: Rate = Rate { burst: 64, per_second: 16 };
const LOOPBACK: Rate = Rate { burst: 1_024, per_second: 512 };
/// Peers that are told apart; the rest share one bucket.
const MAX_PEERS: usize = 1_024;

/// Credit for connections, by peer: an IPv4 address, or an IPv6 /64.
#[derive(Debug, Default)]
pub(super) struct Connects {
    peers: BTreeMap<IpAddr, Bucket>,
    others: Option<Bucket>,
}

impl Connects {
    /// Takes one. A peer that has not proved its address takes only from the first half of the credit: whoever forges
    /// an address cannot lock its owner out, who gets in by proving it.
    pub(super) fn take(&mut self, now: Micros, ip: IpAddr, is_proved: bool) -> bool {
        let key = network(ip);
        let rate = if key.is_loopback() { LOOPBACK } else { PEER };
        let reserve = if is_proved { 0 } else { rate.burst / 2 };
        if !self.peers.contains_key(&key) && self.peers.len() >= MAX_PEERS {
            self.peers.retain(|_, b| now.since(b.at) < rate.cap_us());
            if self.peers.len() >= MAX_PEERS {
                return self.others.get_or_insert(Bucket::full(now, rate)).take(now, rate, reserve);
            }
        }
        self.peers.entry(key).or_insert(Bucket::full(now, rate)).take(now, rate, reserve)
    }
}

fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(a) if !a.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & !u128::from(u64::MAX))),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn whoever_forges_an_address_cannot_lock_its_owner_out() {
        let mut c = Connects::default();
        let forged = (0..1_000).filter(|_| c.take(Micros(0), A, false)).count();
        assert_eq!(forged, 32);
        assert!(c.take(Micros(0), A, true), "the owner, which proved its address, gets in");
        let more = (0..1_000).filter(|_| c.take(Micros(0), A, true)).count();
        assert_eq!(more, 31);
        assert!(c.take(Micros(0), B, false), "others are not concerned");
        assert!(c.take(Micros(1_000_000), A, true), "credit comes back");
    }

    #[test]
    fn addresses_of_one_ipv6_subnet_are_one_peer_and_the_table_is_bounded() {
        let (a, b): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::ffff:2".parse().unwrap());
        assert_eq!(network(a), network(b));
        let mut c = Connects::default();
        for n in 0..5_000u32 {
            let _ = c.take(Micros(0), IpAddr::from((n + 1_000).to_be_bytes()), true);
        }
        assert!(c.peers.len() <= MAX_PEERS);
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate { burst: 10, per_second: 100 };
        let mut b = Bucket::full(Micros(0), rate);
        assert_eq!((0..50).filter(|_| b.take(Micros(0), rate, 0)).count(), 10);
        assert_eq!((0..50).filter(|_| b.take(Micros(50_000), rate, 0)).count(), 5);
    }
}
