//! How often somebody may try to log in. Codes have six digits: what keeps them from being guessed is that few can be tried.

use crate::config::Rate;
use crate::rate::{Buckets, network_key};
use std::net::IpAddr;
use trocar_proto::units::Micros;

/// Tries of one account from one network: so many at once, and so many a *minute*.
const FROM_NETWORK: Rate = Rate { burst: 5, per_second: 1 };
/// Tries of one account from everywhere, likewise: more, so that whoever tries a name from elsewhere does not keep its owner out.
const OF_ACCOUNT: Rate = Rate { burst: 30, per_second: 4 };

/// The tries of everybody.
#[derive(Debug)]
pub(super) struct LoginRates {
    pairs: Buckets<(String, IpAddr)>,
    accounts: Buckets<String>,
}

impl LoginRates {
    pub(super) fn new(now: Micros) -> Self {
        let now = slow(now);
        Self { pairs: Buckets::new(now, FROM_NETWORK), accounts: Buckets::new(now, OF_ACCOUNT) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::MAX_KEYS;

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
        for i in 0..MAX_KEYS + 10 {
            let _ = rates.take(Micros(0), &i.to_string(), ip(2));
        }
        assert!(rates.pairs.len() <= MAX_KEYS && rates.accounts.len() <= MAX_KEYS);
    }
}
