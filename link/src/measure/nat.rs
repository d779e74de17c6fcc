//! What a NAT between the two ends does, by the addresses that the responder sees (RFC 4787, RFC 5780).

use std::net::SocketAddr;

/// How our address is mapped: what [`crate::result::Path::nat_mapping`] says. `second` is what the responder saw at another port of
/// its own. Another port of the same machine cannot tell a mapping by address from one that depends on nothing.
#[must_use]
pub fn mapping(local: SocketAddr, first: SocketAddr, second: Option<SocketAddr>) -> Option<&'static str> {
    if first == local {
        return Some("none");
    }
    Some(if second? == first { "endpoint-independent" } else { "address-and-port-dependent" })
}

/// Pauses to try, each twice the one before, up to `most` seconds.
#[must_use]
pub fn pauses(most: f64) -> Vec<f64> {
    let mut all = Vec::new();
    let mut pause = 1.0;
    while pause < most && all.len() < 16 {
        all.push(pause);
        pause *= 2.0;
    }
    all.push(most);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_named_by_what_two_ports_saw() {
        let a = |s: &str| s.parse().unwrap();
        let (local, out, other) = (a("10.0.0.2:5000"), a("192.0.2.1:7000"), a("192.0.2.1:7001"));
        assert_eq!(mapping(local, local, None), Some("none"));
        assert_eq!(mapping(local, out, Some(out)), Some("endpoint-independent"));
        assert_eq!(mapping(local, out, Some(other)), Some("address-and-port-dependent"));
        assert_eq!(mapping(local, out, None), None, "one port says nothing about the other");
    }

    #[test]
    fn pauses_grow_and_the_longest_is_the_one_asked_for() {
        assert_eq!(pauses(10.0), [1.0, 2.0, 4.0, 8.0, 10.0]);
        assert_eq!(pauses(0.5), [0.5]);
        assert_eq!(pauses(1e9).len(), 17);
    }
}
