//! The front door for STUN (RFC 8489): whose message is it? Read before anything else looks at it.

use trocar_proto::media::bytes::{be16, be32};

/// Longest STUN message that is looked at, in bytes; a connectivity check has about 120.
const MAX_LEN: usize = 600;
/// Attributes that are walked at most.
const MAX_ATTRIBUTES: usize = 24;
const MAGIC_COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const USERNAME: u16 = 0x0006;

/// Our user fragment in a binding request: what stands before the colon of USERNAME (RFC 8445 section 7.2.2). None for
/// anything else: an ICE-lite agent sends no requests and so expects no answers.
pub(super) fn local_ufrag(message: &[u8]) -> Option<&str> {
    let whole = usize::from(be16(message, 2)?) + 20;
    if message.len() > MAX_LEN || whole != message.len() || be32(message, 4)? != MAGIC_COOKIE {
        return None;
    }
    if be16(message, 0)? != BINDING_REQUEST {
        return None;
    }
    let mut at = 20;
    for _ in 0..MAX_ATTRIBUTES {
        let kind = be16(message, at)?;
        let len = usize::from(be16(message, at + 2)?);
        let value = message.get(at + 4..at + 4 + len)?;
        if kind == USERNAME {
            return std::str::from_utf8(value).ok()?.split_once(':').map(|(ours, _)| ours);
        }
        at += 4 + len.next_multiple_of(4);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend_from_slice(&kind.to_be_bytes());
            body.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut m = BINDING_REQUEST.to_be_bytes().to_vec();
        m.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        m.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        m.extend_from_slice(&[0; 12]);
        m.extend_from_slice(&body);
        m
    }

    #[test]
    fn our_fragment_stands_before_the_colon() {
        assert_eq!(local_ufrag(&message(&[(0x24, &[0; 4]), (USERNAME, b"ours:theirs")])), Some("ours"));
        assert_eq!(local_ufrag(&message(&[(USERNAME, b"nocolon")])), None);
        assert_eq!(local_ufrag(&message(&[(0x24, &[0; 4])])), None);
    }

    #[test]
    fn floods_of_attributes_and_lies_about_length_end_early() {
        let many: Vec<(u16, &[u8])> = vec![(0x0001, &[]); 140];
        assert_eq!(local_ufrag(&message(&many)), None);
        let mut lie = message(&[(USERNAME, b"a:b")]);
        lie[3] = 200;
        assert_eq!(local_ufrag(&lie), None);
        for n in 0..20 {
            assert_eq!(local_ufrag(&message(&[(USERNAME, b"a:b")])[..n]), None);
        }
    }
}
