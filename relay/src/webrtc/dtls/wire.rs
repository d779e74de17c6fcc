//! What the relay itself reads of DTLS (RFC 6347 section 4): records, fragments of handshake messages put together within
//! bounds, and which SRTP profiles a ClientHello offers.

/// Bytes before a record's body.
const RECORD_HEADER: usize = 13;
/// Bytes before a fragment's body.
const FRAGMENT_HEADER: usize = 12;
/// Longest body of a record (RFC 6347 section 4.1), with what encryption may add.
const MAX_RECORD: usize = (1 << 14) + 2_048;
/// Records of one datagram that are looked at.
const MAX_RECORDS: usize = 32;
/// Longest handshake message taken, in bytes: a ClientHello with post-quantum key shares, or a certificate chain of a few.
pub(super) const MAX_MESSAGE: usize = 8_192;
/// Handshake messages of a client in one handshake, at most: two ClientHello, certificate, key exchange, signature, Finished.
const MAX_MESSAGES: usize = 8;

pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;

pub(super) const CLIENT_HELLO: u8 = 1;
pub(super) const CERTIFICATE: u8 = 11;
pub(super) const CERTIFICATE_VERIFY: u8 = 15;
pub(super) const CLIENT_KEY_EXCHANGE: u8 = 16;

/// The extension `use_srtp` (RFC 5764 section 4.1.1).
const USE_SRTP: u16 = 14;

/// One record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) kind: u8,
    pub(super) epoch: u16,
    /// With its header.
    pub(super) whole: &'a [u8],
    pub(super) body: &'a [u8],
}

impl<'a> Record<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let head = bytes.first_chunk::<RECORD_HEADER>()?;
        let [kind, 0xfe, 0xfd | 0xff, e0, e1, _, _, _, _, _, _, l0, l1] = *head else { return None };
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let whole = bytes.get(..RECORD_HEADER + len).filter(|_| len > 0 && len <= MAX_RECORD)?;
        Some(Self { kind, epoch: u16::from_be_bytes([e0, e1]), whole, body: whole.get(RECORD_HEADER..)? })
    }
}

/// The records of a datagram, up to the first one that is none.
pub(super) fn records(mut datagram: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let next = move || {
        let record = Record::first(datagram)?;
        datagram = datagram.get(record.whole.len()..)?;
        Some(record)
    };
    std::iter::from_fn(next).take(MAX_RECORDS)
}

/// A piece of a handshake message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment<'a> {
    pub(super) kind: u8,
    /// Length of the whole message.
    len: usize,
    pub(super) number: u16,
    offset: usize,
    data: &'a [u8],
}

/// The fragments in the body of a plaintext handshake record. Empty ones, ones that lie about their length and ones of
/// messages longer than [`MAX_MESSAGE`] end the walk.
pub(super) fn fragments(mut body: &[u8]) -> impl Iterator<Item = Fragment<'_>> {
    let next = move || {
        let head = body.first_chunk::<FRAGMENT_HEADER>()?;
        let [kind, a, b, c, n0, n1, d, e, f, g, h, i] = *head;
        let wide = |bytes: [u8; 3]| bytes.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
        let (len, offset, count) = (wide([a, b, c]), wide([d, e, f]), wide([g, h, i]));
        if count == 0 || len > MAX_MESSAGE || offset + count > len {
            return None;
        }
        let data = body.get(FRAGMENT_HEADER..FRAGMENT_HEADER + count)?;
        body = body.get(FRAGMENT_HEADER + count..)?;
        Some(Fragment { kind, len, number: u16::from_be_bytes([n0, n1]), offset, data })
    };
    std::iter::from_fn(next).take(MAX_RECORDS)
}

/// A whole handshake message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) number: u16,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// Appends the message as one fragment.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let len = u32::try_from(self.body.len()).unwrap_or(0).to_be_bytes();
        let [_, len @ ..] = len;
        out.push(self.kind);
        out.extend_from_slice(&len);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&[0; 3]);
        out.extend_from_slice(&len);
        out.extend_from_slice(&self.body);
    }
}

struct Part {
    kind: u8,
    body: Vec<u8>,
    have: Vec<bool>,
}

/// Puts handshake messages together: at most [`MAX_MESSAGES`] of [`MAX_MESSAGE`] bytes at a time. Where two fragments
/// disagree about the message they belong to, the newer begins it anew.
#[derive(Default)]
pub(super) struct Assembler {
    parts: [Option<Part>; MAX_MESSAGES],
}

impl Assembler {
    /// Takes a fragment; returns the message that it completes.
    pub(super) fn handle_fragment(&mut self, f: &Fragment<'_>) -> Option<Message> {
        let slot = self.parts.get_mut(usize::from(f.number))?;
        if slot.as_ref().is_none_or(|p| p.kind != f.kind || p.body.len() != f.len) {
            *slot = Some(Part { kind: f.kind, body: vec![0; f.len], have: vec![false; f.len] });
        }
        let part = slot.as_mut()?;
        let place = f.offset..f.offset + f.data.len();
        part.body.get_mut(place.clone())?.copy_from_slice(f.data);
        part.have.get_mut(place)?.fill(true);
        if !part.have.iter().all(|b| *b) {
            return None;
        }
        slot.take().map(|p| Message { kind: p.kind, number: f.number, body: p.body })
    }
}

/// Which protection profiles a client offers (RFC 5764, RFC 7714).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Offered {
    /// AEAD_AES_128_GCM or AEAD_AES_256_GCM.
    pub(super) gcm: bool,
    /// SRTP_AES128_CM_HMAC_SHA1_80.
    pub(super) cm: bool,
}

/// What the body of a ClientHello offers. None where it is malformed.
pub(super) fn offered(hello: &[u8]) -> Option<Offered> {
    // Version and random.
    let mut rest = hello.get(34..)?;
    for width in [1, 1, 2, 1] {
        // Session id, cookie, cipher suites, compression methods.
        take(&mut rest, width)?;
    }
    if rest.is_empty() {
        return Some(Offered::default());
    }
    let mut extensions = take(&mut rest, 2)?;
    while !extensions.is_empty() {
        let kind = u16::from_be_bytes(*extensions.first_chunk()?);
        extensions = extensions.get(2..)?;
        let mut body = take(&mut extensions, 2)?;
        if kind == USE_SRTP {
            let (profiles, _) = take(&mut body, 2)?.as_chunks::<2>();
            let has = |p: u16| profiles.contains(&p.to_be_bytes());
            return Some(Offered { gcm: has(7) || has(8), cm: has(1) });
        }
    }
    Some(Offered::default())
}

/// Takes a vector with a length of `width` bytes before it.
fn take<'a>(rest: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let len = rest.get(..width)?.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
    let vector = rest.get(width..width + len)?;
    *rest = rest.get(width + len..)?;
    Some(vector)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A ClientHello with these profiles, as one message.
    pub(in crate::webrtc::dtls) fn hello(profiles: &[u16]) -> Message {
        let mut body = vec![0xfe, 0xfd];
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&[0, 0, 0, 2, 0xc0, 0x2b, 1, 0]);
        let list: Vec<u8> = profiles.iter().flat_map(|p| p.to_be_bytes()).collect();
        let mut extensions = vec![0, 23, 0, 0, 0, 14];
        extensions.extend_from_slice(&u16::try_from(list.len() + 3).unwrap().to_be_bytes());
        extensions.extend_from_slice(&u16::try_from(list.len()).unwrap().to_be_bytes());
        extensions.extend_from_slice(&list);
        extensions.push(0);
        body.extend_from_slice(&u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend_from_slice(&extensions);
        Message { kind: CLIENT_HELLO, number: 0, body }
    }

    /// A plaintext handshake record around that body.
    pub(in crate::webrtc::dtls) fn record(number: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![HANDSHAKE, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, number];
        out.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    /// A fragment of a message, with header.
    pub(in crate::webrtc::dtls) fn piece(m: &Message, place: std::ops::Range<usize>) -> Vec<u8> {
        let wide = |n: usize| u32::try_from(n).unwrap().to_be_bytes()[1..].to_vec();
        let mut out = vec![m.kind];
        out.extend(wide(m.body.len()));
        out.extend(m.number.to_be_bytes());
        out.extend(wide(place.start));
        out.extend(wide(place.len()));
        out.extend(&m.body[place]);
        out
    }

    #[test]
    fn the_profiles_of_a_client_hello_are_read_and_a_cut_one_is_malformed() {
        let of = |profiles: &[u16]| offered(&hello(profiles).body);
        assert_eq!(of(&[8, 7, 1]), Some(Offered { gcm: true, cm: true }));
        assert_eq!(of(&[7]), Some(Offered { gcm: true, cm: false }));
        assert_eq!(of(&[1, 2]), Some(Offered { gcm: false, cm: true }));
        assert_eq!(of(&[2]), Some(Offered::default()));
        let whole = hello(&[1]).body;
        for n in 0..whole.len() {
            // Without extensions at all it is well formed and offers nothing.
            assert!(offered(&whole[..n]).is_none_or(|o| o == Offered::default()), "{n}");
        }
    }

    #[test]
    fn fragments_come_together_in_any_order_and_overlap() {
        let m = hello(&[1]);
        let n = m.body.len();
        for pieces in [&[(0, n)][..], &[(20, n), (0, 20)], &[(0, 30), (10, 40), (39, n)], &[(0, 1), (0, 1), (1, n)]] {
            let mut a = Assembler::default();
            let mut out = Vec::new();
            for (from, to) in pieces {
                let body = piece(&m, *from..*to);
                out.extend(fragments(&body).filter_map(|f| a.handle_fragment(&f)));
            }
            assert_eq!(out, std::slice::from_ref(&m));
        }
    }

    #[test]
    fn fragments_that_are_empty_or_lie_or_never_end_are_not_kept() {
        let m = hello(&[1]);
        let good = piece(&m, 0..10);
        let with = |at: usize, bytes: &[u8]| {
            let mut p = good.clone();
            p[at..at + bytes.len()].copy_from_slice(bytes);
            p
        };
        let bad = [with(9, &[0, 0, 0]), with(1, &[0xff, 0xff, 0xff]), with(6, &[0, 0xff, 0]), with(9, &[0, 0, 200])];
        for b in &bad {
            assert_eq!(fragments(b).count(), 0, "{b:?}");
        }
        let far = with(4, &[0, 8]);
        let mut a = Assembler::default();
        assert!(fragments(&far).all(|f| a.handle_fragment(&f).is_none()));
        assert!(a.parts.iter().all(Option::is_none), "a number past the end of any handshake");
    }

    #[test]
    fn the_newer_of_two_contradictory_fragments_begins_the_message_anew() {
        let (m, other) = (hello(&[1]), hello(&[8, 7, 1]));
        let mut a = Assembler::default();
        let mut put = |bytes: Vec<u8>| fragments(&bytes).filter_map(|f| a.handle_fragment(&f)).last();
        assert_eq!(put(piece(&other, 0..10)), None);
        assert_eq!(put(piece(&m, 0..10)), None);
        assert_eq!(put(piece(&m, 10..m.body.len())), Some(m));
    }

    #[test]
    fn records_end_at_the_first_that_is_none() {
        let mut datagram = record(0, &[1, 2, 3]);
        datagram.extend(record(1, &[4]));
        assert_eq!(records(&datagram).map(|r| r.body.len()).collect::<Vec<_>>(), [3, 1]);
        for n in 0..datagram.len() {
            assert_eq!(records(&datagram[..n]).count(), usize::from(n >= 16), "{n}");
        }
        assert_eq!(records(&record(0, &[])).count(), 0, "an empty record");
        let mut tls = record(0, &[1]);
        tls[1] = 3;
        assert_eq!(records(&tls).count(), 0, "not DTLS");
    }
}
