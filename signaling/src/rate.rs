//! Token buckets, and how peers are told apart for limits.

use crate::config::Rate;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use trocar_proto::units::Micros;

/// One token bucket. Its credit is time: each take costs the time after which the rate grants another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    credit_us: u64,
    at: Micros,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn full(now: Micros, rate: Rate) -> Self {
        Self { credit_us: cap_us(rate), at: now }
    }

    /// Takes one. Where there is none, the answer is how many whole seconds it takes until there is one, at least 1.
    pub(crate) fn take(&mut self, now: Micros, rate: Rate) -> Result<(), u64> {
        self.fill(now, rate);
        let cost = cost_us(rate);
        match self.credit_us.checked_sub(cost) {
            Some(rest) => {
                self.credit_us = rest;
                Ok(())
            }
            None => Err((cost - self.credit_us).div_ceil(1_000_000)),
        }
    }

    fn fill(&mut self, now: Micros, rate: Rate) {
        self.credit_us = self.credit_us.saturating_add(now.since(self.at)).min(cap_us(rate));
        self.at = now;
    }

    fn is_full(&mut self, now: Micros, rate: Rate) -> bool {
        self.fill(now, rate);
        self.credit_us == cap_us(rate)
    }
}

fn cost_us(rate: Rate) -> u64 {
    1_000_000 / u64::from(rate.per_second.max(1))
}

fn cap_us(rate: Rate) -> u64 {
    cost_us(rate).saturating_mul(u64::from(rate.burst.max(1)))
}

/// How many keys are told apart; the rest share one bucket.
pub(crate) const MAX_KEYS: usize = 4096;

/// One bucket for each key.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    kept: BTreeMap<K, Bucket>,
    others: Bucket,
}

impl<K: Ord> Buckets<K> {
    pub(crate) fn new(now: Micros, rate: Rate) -> Self {
        Self { rate, kept: BTreeMap::new(), others: Bucket::full(now, rate) }
    }

    /// Takes one from the key's bucket; seconds to wait where it is empty.
    pub(crate) fn take(&mut self, now: Micros, key: K) -> Result<(), u64> {
        let rate = self.rate;
        if !self.kept.contains_key(&key) {
            if self.kept.len() >= MAX_KEYS {
                self.kept.retain(|_, bucket| !bucket.is_full(now, rate));
            }
            if self.kept.len() >= MAX_KEYS {
                return self.others.take(now, rate);
            }
        }
        self.kept.entry(key).or_insert_with(|| Bucket::full(now, rate)).take(now, rate)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}

/// One bucket for each peer.
#[derive(Debug)]
pub(crate) struct PeerRates(Buckets<IpAddr>);

impl PeerRates {
    pub(crate) fn new(now: Micros, rate: Rate) -> Self {
        Self(Buckets::new(now, rate))
    }

    /// Takes one from the peer's bucket; seconds to wait where it is empty.
    pub(crate) fn take(&mut self, now: Micros, peer: IpAddr) -> Result<(), u64> {
        self.0.take(now, peer_key(peer))
    }
}

/// Who counts as one peer: an IPv4 address, or an IPv6 /64, since one machine has all of the addresses in that.
pub(crate) fn peer_key(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(a) => IpAddr::V4(a),
        IpAddr::V6(a) if a.is_loopback() => IpAddr::V6(a),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Who counts as one network: an IPv4 /24, or an IPv6 /48, which is what one site has.
pub(crate) fn network_key(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & !0xff)),
        IpAddr::V6(a) if a.is_loopback() => IpAddr::V6(a),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & !(u128::MAX >> 48))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 2, per_second: 1 };

    #[test]
    fn a_burst_passes_and_then_one_a_second() {
        let mut b = Bucket::full(Micros(0), RATE);
        assert_eq!(b.take(Micros(0), RATE), Ok(()));
        assert_eq!(b.take(Micros(0), RATE), Ok(()));
        assert_eq!(b.take(Micros(0), RATE), Err(1));
        assert_eq!(b.take(Micros(1_000_000), RATE), Ok(()));
        assert_eq!(b.take(Micros(1_000_000), RATE), Err(1));
    }

    #[test]
    fn peers_do_not_spend_each_others_credit() {
        let mut p = PeerRates::new(Micros(0), RATE);
        let (a, b) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert!(p.take(Micros(0), a).is_ok() && p.take(Micros(0), a).is_ok() && p.take(Micros(0), a).is_err());
        assert!(p.take(Micros(0), b).is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_subnet_are_one_peer() {
        let (a, b): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::ffff:2".parse().unwrap());
        assert_eq!(peer_key(a), peer_key(b));
        assert_eq!(peer_key("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn neighbours_are_one_network() {
        let key = |a: &str| network_key(a.parse().unwrap());
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.200"));
        assert_ne!(key("192.0.2.1"), key("192.0.3.1"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:ffff::1"));
        assert_ne!(key("2001:db8:1::1"), key("2001:db8:2::1"));
    }

    #[test]
    fn the_table_of_peers_is_bounded() {
        let mut p = PeerRates::new(Micros(0), RATE);
        for i in 0..u32::try_from(MAX_KEYS).unwrap() + 100 {
            let _ = p.take(Micros(0), IpAddr::from(i.to_be_bytes()));
        }
        assert!(p.0.len() <= MAX_KEYS);
    }
}
