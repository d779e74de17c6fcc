//! Proof that a client is where its packets say (RFC 9000 section 8.1.2, the same thought as in RFC 4656 section 3.1).
//!
//! A cookie is a MAC under a secret that only the responder has, over the address and the number that the client drew. The
//! responder keeps nothing of a client that has not shown one.

use super::Stamp;
use super::packet::{Key, same};
use std::net::SocketAddr;

/// Its length: 16 bytes of MAC, 8 of time.
pub const COOKIE_BYTES: usize = 24;
/// A cookie is good for this long, in microseconds.
const LIFE_US: Stamp = 15_000_000;

/// Makes a cookie.
#[must_use]
pub fn bake(secret: &Key, now: Stamp, from: SocketAddr, nonce: u64) -> [u8; COOKIE_BYTES] {
    let time = now.to_be_bytes();
    let mut cookie = [0; COOKIE_BYTES];
    cookie.iter_mut().zip(mac(secret, time, from, nonce).into_iter().chain(time)).for_each(|(to, from)| *to = from);
    cookie
}

/// Whether a cookie is one that was given to this address not long ago.
#[must_use]
pub fn is_good(secret: &Key, now: Stamp, from: SocketAddr, nonce: u64, cookie: &[u8]) -> bool {
    let Some((shown, time)) = cookie.split_first_chunk::<16>() else { return false };
    let Ok(time) = <[u8; 8]>::try_from(time) else { return false };
    let age = now.saturating_sub(Stamp::from_be_bytes(time));
    (0..=LIFE_US).contains(&age) && same(&mac(secret, time, from, nonce), shown)
}

fn mac(secret: &Key, time: [u8; 8], from: SocketAddr, nonce: u64) -> [u8; 16] {
    let address = address_bytes(from);
    let whole = secret.mac(&[b"cookie", &time, &address, &nonce.to_be_bytes()]);
    let mut half = [0; 16];
    half.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    half
}

/// An address as 18 bytes: IPv6, or IPv4 mapped into it, and the port.
#[must_use]
pub fn address_bytes(address: SocketAddr) -> [u8; 18] {
    let ip = match address {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
        SocketAddr::V6(v6) => *v6.ip(),
    };
    let mut out = [0; 18];
    out.iter_mut().zip(ip.octets().into_iter().chain(address.port().to_be_bytes())).for_each(|(to, from)| *to = from);
    out
}

/// The reverse of [`address_bytes`]; an address of IPv4 that came mapped is one of IPv4.
#[must_use]
pub fn read_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, rest) = bytes.split_first_chunk::<16>()?;
    let port = rest.first_chunk::<2>()?;
    let ip = std::net::Ipv6Addr::from(*ip).to_canonical();
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_address_its_number_and_fifteen_seconds() {
        let secret = Key::new(b"s");
        let here: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        let cookie = bake(&secret, 1_000, here, 5);
        let good = |secret: &Key, now, from, nonce, cookie: &[u8]| is_good(secret, now, from, nonce, cookie);
        assert!(good(&secret, 1_000, here, 5, &cookie) && good(&secret, 1_000 + LIFE_US, here, 5, &cookie));
        assert!(!good(&secret, 1_001 + LIFE_US, here, 5, &cookie), "too old");
        assert!(!good(&secret, 999, here, 5, &cookie), "of the future");
        assert!(!good(&secret, 1_000, "192.0.2.1:4001".parse().unwrap(), 5, &cookie), "another port");
        assert!(!good(&secret, 1_000, "192.0.2.2:4000".parse().unwrap(), 5, &cookie), "another address");
        assert!(!good(&secret, 1_000, here, 6, &cookie), "another number");
        assert!(!good(&Key::new(b"t"), 1_000, here, 5, &cookie), "another secret");
        assert!(!good(&secret, 1_000, here, 5, &cookie[1..]), "cut");
    }

    #[test]
    fn an_address_comes_back_as_it_went() {
        for text in ["192.0.2.1:4000", "[2001:db8::1]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(read_address(&address_bytes(address)), Some(address));
        }
        assert_eq!(read_address(&[0; 17]), None);
    }
}
