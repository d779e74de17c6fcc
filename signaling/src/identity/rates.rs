//! How often somebody may try to log in. Codes have six digits: what keeps them from being guessed is that few can be tried.

use crate::config::Rate;
use crate::rate::{Bucket, network_key};
use std::collections::BTreeMap;
use std::net::IpAddr;
use trocar_proto::units::Micros;

/// Tries of one account from one network: so many at once, and so many a *minute*.
const FROM_NETWORK: Rate = Rate { burst: 5, per_second: 1 };
/// Tries of one account from everywhere, likewise: more, so that whoever tries a name from elsewhere does not keep its owner out.
const OF_ACCOUNT: Rate = Rate { burst: 30, per_second: 4 };
/// How many pairs, and how many accounts, are told apart; the rest share one bucket.
const MAX_KEPT: usize = 4096;

/// The tries of everybody.
#[derive(Debug)]
pub(super) struct LoginRates {
    pairs: Kept<(String, IpAddr)>,
    accounts: Kept<String>,
}

impl LoginRates {
    pub(super) fn new(now: Micros) -> Self {
        let now = slow(now);
        Self { pairs: Kept::new(now, FROM_NETWORK), accounts: Kept::new(now, OF_ACCOUNT) }
    }

    /// Takes one try; seconds to wait where there is none left.
    pub(super) fn take(&mut self, now: Micros, account: &str, peer: IpAddr) -> Result<(), u64> {
        let (now, account) = (slow(now), account.to_owned());
        let taken = self.pairs.take(now, (account.clone(), network_key(peer)));
        taken.and_then(|()| self.accounts.take(now, account)).map_err(|s| s.saturating_mul(60))
    }
}

/// Time that goes sixty times slower, which makes a rate for a second one for a minute.
fn slow(now: Micros) -> Micros {
    Micros(now.0 / 60)
}

#[derive(Debug)]
struct Kept<K> {
    rate: Rate,
    buckets: BTreeMap<K, Bucket>,
    others: Bucket,
}

impl<K: Ord> Kept<K> {
    fn new(now: Micros, rate: Rate) -> Self {
        Self { rate, buckets: BTreeMap::new(), others: Bucket::full(now, rate) }
    }

    fn take(&mut self, now: Micros, key: K) -> Result<(), u64> {
        let rate = self.rate;
        if !self.buckets.contains_key(&key) {
            if self.buckets.len() >= MAX_KEPT {
                self.buckets.retain(|_, bucket| !bucket.is_full(now, rate));
            }
            if self.buckets.len() >= MAX_KEPT {
                return self.others.take(now, rate);
            }
        }
        self.buckets.entry(key).or_insert_with(|| Bucket::full(now, rate)).take(now, rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, last, 1])
    }

    #[test]
    fn five_tries_pass_and_then_one_a_minute() {
        let mut rates = LoginRates::new(Micros(0));
        for _ in 0..5 {
            assert_eq!(rates.take(Micros(0), "ada", ip(2)), Ok(()));
        }
        assert_eq!(rates.take(Micros(0), "ada", ip(2)), Err(60));
        assert_eq!(rates.take(Micros(0), "grace", ip(2)), Ok(()), "another account is another matter");
        assert_eq!(rates.take(Micros(0), "ada", ip(3)), Ok(()), "and so is another network");
        assert_eq!(rates.take(Micros(MINUTE), "ada", ip(2)), Ok(()));
        assert_eq!(rates.take(Micros(MINUTE), "ada", ip(2)), Err(60));
    }

    #[test]
    fn an_account_that_is_tried_from_many_networks_is_slowed_down_as_well() {
        let mut rates = LoginRates::new(Micros(0));
        let passed = (0..100).filter(|n| rates.take(Micros(0), "ada", ip(*n)).is_ok()).count();
        assert_eq!(passed, 30);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut rates = LoginRates::new(Micros(0));
        for i in 0..MAX_KEPT + 10 {
            let _ = rates.take(Micros(0), &i.to_string(), ip(2));
        }
        assert!(rates.pairs.buckets.len() <= MAX_KEPT && rates.accounts.buckets.len() <= MAX_KEPT);
    }
}
