//! What is on the wire: 40 bytes of header, then a body.
//!
//! | bytes | are |
//! | --- | --- |
//! | 0–3 | `TrLk` |
//! | 4 | version, 1 |
//! | 5 | [`Kind`]; the highest bit is set in what the responder sends |
//! | 6–7 | phase: number of the flow |
//! | 8–15 | session; before there is one, the number that the client drew |
//! | 16–19 | sequence number of the packet in its flow, or of the question |
//! | 20–23 | frame of a picture, otherwise 0 |
//! | 24–31 | when it was sent: microseconds of the sender's clock |
//! | 32–39 | tag: the first 64 bits of HMAC-SHA-256 under the session's key, over the header before it and the body |
//!
//! All numbers are big-endian. **A probe is made so that damage is found and does not hide which packet it was**: the tag covers its
//! header alone, the header stands at its end once more, and between the two is a pattern that both ends know.

use super::Stamp;
use aws_lc_rs::hmac;
use std::sync::LazyLock;
use trocar_proto::link::rng::Rng;

/// Version of the protocol. Another one is refused with both numbers.
pub const VERSION: u8 = 1;
/// A header.
pub const HEADER_BYTES: usize = 40;
/// Smallest probe: two headers.
pub const PROBE_BYTES_MIN: usize = 2 * HEADER_BYTES;
/// Largest packet of ours: an Ethernet jumbo frame of 9,000 bytes less IPv4 and UDP.
pub const PACKET_BYTES_MAX: usize = 8_972;
/// What a client's packet before the cookie is padded to: more than any answer to it.
pub const OPENING_BYTES: usize = 640;
/// A ping is this long at least, so that its pong is no longer.
pub const PING_BYTES_MIN: usize = 96;

const MAGIC: &[u8; 4] = b"TrLk";
const TAGGED: usize = 32;
const FROM_RESPONDER: u8 = 0x80;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// May I? Padded to [`OPENING_BYTES`].
    Hello = 1,
    /// Show me with this cookie that you are there.
    Retry = 2,
    /// Here it is, and what I want.
    Open = 3,
    /// You have a session.
    Accept = 4,
    /// You have none, because.
    Refuse = 5,
    /// A question, JSON.
    Ask = 6,
    /// Its answer, JSON.
    Answer = 7,
    /// What time is it?
    Ping = 8,
    /// This, and so far I see you as.
    Pong = 9,
    /// A numbered packet of a flow.
    Probe = 10,
}

impl Kind {
    const fn read(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Retry,
            3 => Self::Open,
            4 => Self::Accept,
            5 => Self::Refuse,
            6 => Self::Ask,
            7 => Self::Answer,
            8 => Self::Ping,
            9 => Self::Pong,
            10 => Self::Probe,
            _ => return None,
        })
    }
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// Whether the responder sent it: a packet that is thrown back to its sender is not taken.
    pub from_responder: bool,
    /// The flow.
    pub phase: u16,
    /// The session.
    pub session: u64,
    /// Number in the flow.
    pub seq: u32,
    /// Frame of a picture.
    pub frame: u32,
    /// When it was sent, by its sender's clock.
    pub sent: Stamp,
}

/// Why bytes are no packet of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Too short, or without our first four bytes.
    #[error("not a packet of trocar link")]
    Foreign,
    /// Another version of this protocol.
    #[error("protocol version {0}, this program speaks {VERSION}")]
    Version(u8),
    /// A kind that nobody knows.
    #[error("kind {0} of packet is unknown")]
    Kind(u8),
}

/// A key that both ends of a session have.
#[derive(Debug, Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// A key of these bytes. An empty one is a key that everybody knows.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// HMAC-SHA-256 over the parts, one after the other.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut out = [0; 32];
        out.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        out
    }

    /// The key of a session, which never travels: from this one and what both ends drew.
    #[must_use]
    pub fn derive(&self, nonce: u64, session: u64, salt: &[u8]) -> Self {
        Self::new(&self.mac(&[b"trocar link session", &nonce.to_be_bytes(), &session.to_be_bytes(), salt]))
    }

    fn tag(&self, parts: &[&[u8]]) -> [u8; 8] {
        let mut tag = [0; 8];
        tag.iter_mut().zip(self.mac(parts)).for_each(|(to, from)| *to = from);
        tag
    }
}

/// Whether two byte strings are the same, in a time that does not depend on where they differ.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

impl Header {
    /// The 32 bytes that a tag covers.
    fn bytes(&self) -> [u8; TAGGED] {
        let mut out = [0; TAGGED];
        let kind = [VERSION, self.kind as u8 | if self.from_responder { FROM_RESPONDER } else { 0 }];
        let parts: [&[u8]; 7] = [
            MAGIC,
            &kind,
            &self.phase.to_be_bytes(),
            &self.session.to_be_bytes(),
            &self.seq.to_be_bytes(),
            &self.frame.to_be_bytes(),
            &self.sent.to_be_bytes(),
        ];
        out.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        out
    }

    /// Reads a header, without looking at its tag.
    ///
    /// # Errors
    /// Where it is none of ours.
    pub fn read(bytes: &[u8]) -> Result<Self, PacketError> {
        let head: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(PacketError::Foreign)?;
        let [m0, m1, m2, m3, version, kind, p0, p1, rest @ ..] = head;
        if [*m0, *m1, *m2, *m3] != *MAGIC {
            return Err(PacketError::Foreign);
        }
        if *version != VERSION {
            return Err(PacketError::Version(*version));
        }
        let number = |at: usize, len: usize| {
            rest.get(at..at + len).unwrap_or_default().iter().fold(0_u64, |n, b| (n << 8) | u64::from(*b))
        };
        Ok(Self {
            kind: Kind::read(kind & !FROM_RESPONDER).ok_or(PacketError::Kind(*kind))?,
            from_responder: kind & FROM_RESPONDER != 0,
            phase: u16::from_be_bytes([*p0, *p1]),
            session: number(0, 8),
            seq: number(8, 4) as u32,
            frame: number(12, 4) as u32,
            sent: number(16, 8).cast_signed(),
        })
    }

    /// A packet: header, tag over header and body, body.
    #[must_use]
    pub fn seal(&self, key: &Key, body: &[u8]) -> Vec<u8> {
        let head = self.bytes();
        [&head[..], &key.tag(&[&head, body]), body].concat()
    }

    /// The body of a packet whose tag is right.
    #[must_use]
    pub fn open<'a>(key: &Key, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (head, rest) = bytes.split_first_chunk::<TAGGED>()?;
        let (tag, body) = rest.split_first_chunk::<8>()?;
        same(&key.tag(&[head, body]), tag).then_some(body)
    }

    /// Writes a probe of `len` bytes (at least [`PROBE_BYTES_MIN`]) over `out`.
    pub fn write_probe(&self, key: &Key, len: usize, out: &mut Vec<u8>) {
        let head = self.bytes();
        let tag = key.tag(&[&head]);
        let inside = len.clamp(PROBE_BYTES_MIN, PACKET_BYTES_MAX) - PROBE_BYTES_MIN;
        out.clear();
        out.extend_from_slice(&head);
        out.extend_from_slice(&tag);
        out.extend_from_slice(PATTERN.get(..inside).unwrap_or_default());
        out.extend_from_slice(&head);
        out.extend_from_slice(&tag);
    }
}

/// What both ends know that a probe has between its headers.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = Rng::new(0x7472_6f63_6172);
    (0..PACKET_BYTES_MAX.div_ceil(8)).flat_map(|_| rng.next_u64().to_be_bytes()).collect()
});

/// A probe that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Its header: the one of the two whose tag is right.
    pub header: Header,
    /// Whether any bit of it is another than was sent.
    pub damaged: bool,
}

/// Reads a probe; `key` knows the sessions. None where neither of its headers is one of ours: which packet it was cannot be said, and
/// anybody may have sent it.
pub fn read_probe<'k>(bytes: &[u8], key: impl Fn(u64) -> Option<&'k Key>) -> Option<Probe> {
    let inside = bytes.len().checked_sub(PROBE_BYTES_MIN)?;
    let (first, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let (pattern, last) = rest.split_at_checked(inside)?;
    let header = [first, last].into_iter().find_map(|copy| {
        let header = Header::read(copy).ok().filter(|h| h.kind == Kind::Probe)?;
        Header::open(key(header.session)?, copy).map(|_| header)
    })?;
    let damaged = first != last || PATTERN.get(..inside) != Some(pattern);
    Some(Probe { header, damaged })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: Kind) -> Header {
        Header { kind, from_responder: true, phase: 7, session: 0x0102_0304_0506_0708, seq: 9, frame: 10, sent: -11 }
    }

    #[test]
    fn a_packet_comes_back_as_it_was_made_and_no_other_key_opens_it() {
        let (key, other) = (Key::new(b"a"), Key::new(b"b"));
        let packet = header(Kind::Ask).seal(&key, b"body");
        assert_eq!(Header::read(&packet), Ok(header(Kind::Ask)));
        assert_eq!(Header::open(&key, &packet), Some(&b"body"[..]));
        assert_eq!(Header::open(&other, &packet), None);
        for at in 0..packet.len() {
            let mut turned = packet.clone();
            turned[at] ^= 1;
            assert_eq!(Header::open(&key, &turned), None, "byte {at} is covered");
        }
    }

    #[test]
    fn each_turned_bit_of_a_probe_is_found_and_its_number_is_still_known() {
        let key = Key::new(b"k");
        let mut probe = Vec::new();
        for len in [80, 81, 300] {
            header(Kind::Probe).write_probe(&key, len, &mut probe);
            assert_eq!(probe.len(), len);
            let read = |bytes: &[u8]| read_probe(bytes, |_| Some(&key));
            assert_eq!(read(&probe), Some(Probe { header: header(Kind::Probe), damaged: false }));
            for bit in 0..len * 8 {
                let mut turned = probe.clone();
                turned[bit / 8] ^= 0x80 >> (bit % 8);
                assert_eq!(read(&turned), Some(Probe { header: header(Kind::Probe), damaged: true }), "bit {bit}");
            }
            assert_eq!(read_probe(&probe, |_| None), None, "a session that nobody knows");
        }
    }

    #[test]
    fn what_is_none_of_ours_is_said_to_be() {
        assert_eq!(Header::read(b"short"), Err(PacketError::Foreign));
        assert_eq!(Header::read(&[0; 60]), Err(PacketError::Foreign));
        let mut packet = header(Kind::Ask).seal(&Key::new(b""), b"");
        packet[4] = 9;
        assert_eq!(Header::read(&packet).unwrap_err().to_string(), "protocol version 9, this program speaks 1");
        packet[4] = VERSION;
        packet[5] = 77;
        assert_eq!(Header::read(&packet), Err(PacketError::Kind(77)));
    }
}
