//! The SDP front door: a bounded parser for offers and our own answerer (RFC 8866, RFC 8829, RFC 9725).
//!
//! Only what the relay needs is kept. What is refused is refused by name, with what would be right.

use std::fmt::Write as _;
use std::net::SocketAddr;
use trocar_proto::units::Ssrc;

/// Longest offer, in bytes.
pub const MAX_SDP_LEN: usize = 64 * 1024;
/// Most lines of an offer.
pub const MAX_LINES: usize = 1_000;
/// Most m-lines of an offer.
pub const MAX_MEDIA: usize = 16;

/// Why an offer or a fragment cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Larger than a limit.
    #[error("SDP has {what} of {got}; the limit is {limit}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// How much there was.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// A line that is not `x=…`, or whose value cannot be read.
    #[error("SDP line {line}: {expected}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// What would be right.
        expected: &'static str,
    },
    /// Something that must be there is not.
    #[error("SDP lacks {what}")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// Something that cannot be used.
    #[error("SDP: {0}")]
    Unusable(String),
}

/// A certificate fingerprint (RFC 8122): hash function name in lower case, and the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// `sha-256`, `sha-384` or `sha-512`.
    pub algorithm: String,
    /// The hash.
    pub value: Vec<u8>,
}

/// One payload type of an m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codec {
    /// RTP payload type.
    pub payload_type: u8,
    /// Encoding name as written.
    pub name: String,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Format parameters.
    pub fmtp: String,
}

/// One m-line of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Media {
    /// `video`, `audio`, `application`.
    pub kind: String,
    /// Transport protocol, e.g. `UDP/TLS/RTP/SAVPF`.
    pub protocol: String,
    /// Media identification.
    pub mid: String,
    /// Payload types, in the order of preference.
    pub codecs: Vec<Codec>,
    /// Header extensions: id and URI.
    pub extensions: Vec<(u8, String)>,
    /// `sendrecv`, `recvonly`, `sendonly` or `inactive`.
    pub direction: String,
    /// RTP and RTCP share a port.
    pub rtcp_mux: bool,
}

/// An offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// ICE user fragment.
    pub ufrag: String,
    /// ICE password.
    pub password: String,
    /// Fingerprint of the certificate that DTLS must show.
    pub fingerprint: Fingerprint,
    /// DTLS role offered: `actpass`, `active`.
    pub setup: String,
    /// m-lines, in order.
    pub media: Vec<Media>,
    /// Candidates, as the values of `a=candidate` lines (at most 32).
    pub candidates: Vec<String>,
}

#[derive(Default)]
struct Draft {
    ufrag: Option<String>,
    password: Option<String>,
    fingerprint: Option<Fingerprint>,
    setup: Option<String>,
    candidates: Vec<String>,
    media: Vec<Media>,
}

/// Checks limits and yields `(number, type, value)` of each line.
fn lines(sdp: &str) -> Result<Vec<(usize, char, &str)>, SdpError> {
    if sdp.len() > MAX_SDP_LEN {
        return Err(SdpError::TooLarge { what: "a length", got: sdp.len(), limit: MAX_SDP_LEN });
    }
    let mut out = Vec::new();
    for (i, raw) in sdp.lines().enumerate() {
        if i >= MAX_LINES {
            return Err(SdpError::TooLarge { what: "a number of lines", got: i + 1, limit: MAX_LINES });
        }
        let line = raw.trim_end_matches('\r');
        if line.is_empty() {
            continue;
        }
        let Some((kind, value)) = line.split_once('=') else {
            return Err(SdpError::Line { line: i + 1, expected: "a line is one letter, '=', and a value" });
        };
        let mut letters = kind.chars();
        match (letters.next(), letters.next()) {
            (Some(c), None) if c.is_ascii_lowercase() => out.push((i + 1, c, value)),
            _ => return Err(SdpError::Line { line: i + 1, expected: "a line is one letter, '=', and a value" }),
        }
    }
    Ok(out)
}

impl Offer {
    /// Parses an offer.
    ///
    /// # Errors
    /// See [`SdpError`]; work is bounded by [`MAX_SDP_LEN`] and [`MAX_LINES`].
    pub fn parse(sdp: &str) -> Result<Self, SdpError> {
        let lines = lines(sdp)?;
        if lines.first().is_none_or(|l| l.1 != 'v' || l.2 != "0") {
            return Err(SdpError::Missing { what: "the first line v=0" });
        }
        let mut draft = Draft::default();
        for (number, kind, value) in lines {
            match kind {
                'm' => draft.media_line(number, value)?,
                'a' => draft.attribute(number, value)?,
                _ => {}
            }
        }
        draft.finish()
    }

    /// The first m-line of that kind that somebody wants to receive on, with its index.
    #[must_use]
    pub fn receiving(&self, kind: &str) -> Option<(usize, &Media)> {
        self.media
            .iter()
            .enumerate()
            .find(|(_, m)| m.kind == kind && matches!(m.direction.as_str(), "recvonly" | "sendrecv"))
    }
}

impl Draft {
    fn media_line(&mut self, line: usize, value: &str) -> Result<(), SdpError> {
        if self.media.len() >= MAX_MEDIA {
            return Err(SdpError::TooLarge { what: "a number of m-lines", got: MAX_MEDIA + 1, limit: MAX_MEDIA });
        }
        let expected = "m=<media> <port> <protocol> <payload types 0 to 127>";
        let mut words = value.split(' ');
        let (Some(kind), Some(_port), Some(protocol)) = (words.next(), words.next(), words.next()) else {
            return Err(SdpError::Line { line, expected });
        };
        let mut media = Media {
            kind: kind.to_owned(),
            protocol: protocol.to_owned(),
            direction: "sendrecv".to_owned(),
            ..Media::default()
        };
        if protocol.contains("RTP/") {
            for word in words.take(128) {
                let payload_type = word.parse::<u8>().ok().filter(|p| *p < 128);
                let payload_type = payload_type.ok_or(SdpError::Line { line, expected })?;
                media.codecs.push(Codec { payload_type, name: String::new(), clock_rate: 0, fmtp: String::new() });
            }
        }
        self.media.push(media);
        Ok(())
    }

    fn attribute(&mut self, line: usize, value: &str) -> Result<(), SdpError> {
        let (name, rest) = value.split_once(':').unwrap_or((value, ""));
        match name {
            "ice-ufrag" => set_once(&mut self.ufrag, rest, line)?,
            "ice-pwd" => set_once(&mut self.password, rest, line)?,
            "setup" => set_once(&mut self.setup, rest, line)?,
            "fingerprint" => {
                let f = parse_fingerprint(rest, line)?;
                match &self.fingerprint {
                    Some(have) if *have != f => {
                        return Err(SdpError::Line { line, expected: "one fingerprint for all bundled m-lines" });
                    }
                    _ => self.fingerprint = Some(f),
                }
            }
            "candidate" if self.candidates.len() < 32 => self.candidates.push(rest.to_owned()),
            _ => {
                if let Some(media) = self.media.last_mut() {
                    media_attribute(media, name, rest, line)?;
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Offer, SdpError> {
        let missing = |what| SdpError::Missing { what };
        let setup = self.setup.ok_or(missing("a=setup"))?;
        if !matches!(setup.as_str(), "actpass" | "active") {
            return Err(SdpError::Unusable(format!(
                "a=setup:{} cannot be used: the relay is the DTLS server, so actpass or active is right",
                printable(&setup)
            )));
        }
        for (i, m) in self.media.iter().enumerate() {
            if m.mid.is_empty() {
                return Err(missing("a=mid of an m-line"));
            }
            if self.media.iter().skip(i + 1).any(|o| o.mid == m.mid) {
                return Err(SdpError::Unusable(format!("a=mid:{} stands twice", printable(&m.mid))));
            }
        }
        if self.media.is_empty() {
            return Err(missing("an m-line"));
        }
        let ufrag = self.ufrag.ok_or(missing("a=ice-ufrag"))?;
        let password = self.password.ok_or(missing("a=ice-pwd"))?;
        // RFC 8839 section 5.4: 4 to 256 and 22 to 256 characters.
        if !(4..=256).contains(&ufrag.len()) || !(22..=256).contains(&password.len()) {
            return Err(SdpError::Unusable(
                "a=ice-ufrag has 4 to 256 characters, a=ice-pwd 22 to 256 (RFC 8839 section 5.4)".to_owned(),
            ));
        }
        Ok(Offer {
            ufrag,
            password,
            fingerprint: self.fingerprint.ok_or(missing("a=fingerprint"))?,
            setup,
            media: self.media,
            candidates: self.candidates,
        })
    }
}

/// With BUNDLE there is one transport: a second, different value means two identities.
fn set_once(slot: &mut Option<String>, value: &str, line: usize) -> Result<(), SdpError> {
    match slot {
        Some(have) if have != value => {
            Err(SdpError::Line { line, expected: "the same value in every bundled m-line (RFC 9143)" })
        }
        _ => {
            *slot = Some(value.to_owned());
            Ok(())
        }
    }
}

fn parse_fingerprint(rest: &str, line: usize) -> Result<Fingerprint, SdpError> {
    let expected = "a=fingerprint:sha-256 (or sha-384, sha-512) and its bytes in hex with colons";
    let bad = SdpError::Line { line, expected };
    let (algorithm, hex) = rest.split_once(' ').ok_or(bad.clone())?;
    let algorithm = algorithm.to_ascii_lowercase();
    let len = match algorithm.as_str() {
        "sha-256" => 32,
        "sha-384" => 48,
        "sha-512" => 64,
        _ => return Err(bad),
    };
    let value: Option<Vec<u8>> = hex.trim().split(':').take(65).map(|b| u8::from_str_radix(b, 16).ok()).collect();
    let value = value.filter(|v| v.len() == len).ok_or(bad)?;
    Ok(Fingerprint { algorithm, value })
}

fn media_attribute(media: &mut Media, name: &str, rest: &str, line: usize) -> Result<(), SdpError> {
    let of_payload = |media: &mut Media, f: &dyn Fn(&mut Codec, &str)| {
        let Some((pt, tail)) = rest.split_once(' ') else { return };
        let Ok(pt) = pt.parse::<u8>() else { return };
        if let Some(c) = media.codecs.iter_mut().find(|c| c.payload_type == pt) {
            f(c, tail);
        }
    };
    match name {
        "mid" => {
            let ok = (1..=32).contains(&rest.len())
                && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !ok {
                return Err(SdpError::Line { line, expected: "a=mid with 1 to 32 letters, digits, '-', '_' or '.'" });
            }
            rest.clone_into(&mut media.mid);
        }
        "sendrecv" | "recvonly" | "sendonly" | "inactive" => name.clone_into(&mut media.direction),
        "rtcp-mux" => media.rtcp_mux = true,
        "rtpmap" => of_payload(media, &|c, tail| {
            let mut parts = tail.split('/');
            parts.next().unwrap_or("").clone_into(&mut c.name);
            c.clock_rate = parts.next().and_then(|r| r.parse().ok()).unwrap_or(0);
        }),
        "fmtp" => of_payload(media, &|c, tail| tail.clone_into(&mut c.fmtp)),
        "extmap" => {
            let (id, uri) = rest.split_once(' ').unwrap_or((rest, ""));
            let id = id.split('/').next().unwrap_or("");
            if let (Ok(id), Some(uri)) = (id.parse::<u8>(), uri.split(' ').next())
                && media.extensions.len() < 64
            {
                media.extensions.push((id, uri.to_owned()));
            }
        }
        _ => {}
    }
    Ok(())
}

fn printable(s: &str) -> String {
    s.chars().take(32).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// The value of a parameter in an fmtp string.
#[must_use]
pub fn fmtp_value<'a>(fmtp: &'a str, key: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|p| {
        let (k, v) = p.trim().split_once('=')?;
        k.eq_ignore_ascii_case(key).then_some(v)
    })
}

/// A trickled fragment or an ICE restart (RFC 8840): new credentials, where there are any, and candidates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    /// User fragment.
    pub ufrag: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Values of `a=candidate` lines.
    pub candidates: Vec<String>,
}

impl Fragment {
    /// Parses `application/trickle-ice-sdpfrag`.
    ///
    /// # Errors
    /// See [`SdpError`].
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        let mut draft = Draft::default();
        for (number, kind, value) in lines(text)? {
            match kind {
                'a' => draft.attribute(number, value)?,
                'm' => draft.media_line(number, value)?,
                _ => {
                    return Err(SdpError::Line {
                        line: number,
                        expected: "a fragment has m= and a= lines only (RFC 8840)",
                    });
                }
            }
        }
        Ok(Self { ufrag: draft.ufrag, password: draft.password, candidates: draft.candidates })
    }
}

/// What the answer to a viewer says.
#[derive(Debug, Clone)]
pub struct Answer<'a> {
    /// Our ICE user fragment.
    pub ufrag: &'a str,
    /// Our ICE password.
    pub password: &'a str,
    /// SHA-256 of our DTLS certificate.
    pub fingerprint: &'a [u8],
    /// Where we listen.
    pub candidates: &'a [SocketAddr],
    /// Index of the m-line that carries the feed; every other is rejected.
    pub media_index: usize,
    /// Payload type, name, clock rate and format parameters that we send.
    pub codec: &'a Codec,
    /// Payload type of RTX, where the viewer offered one for that codec.
    pub rtx: Option<u8>,
    /// Extension ids and URIs that we use.
    pub extensions: &'a [(u8, &'a str)],
    /// Our SSRC for the media.
    pub ssrc: Ssrc,
    /// Our SSRC for RTX.
    pub rtx_ssrc: Ssrc,
    /// Name of the stream.
    pub stream: &'a str,
    /// Session id of the o-line.
    pub session_id: u64,
}

impl Answer<'_> {
    /// The answer to `offer` as text.
    #[must_use]
    pub fn render(&self, offer: &Offer) -> String {
        let mut out = String::with_capacity(2_048);
        let mid = offer.media.get(self.media_index).map_or("0", |m| m.mid.as_str());
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "v=0\r\no=- {} 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mid}\r\na=ice-lite\r\n\
             a=msid-semantic: WMS *\r\n",
            self.session_id
        );
        for (i, m) in offer.media.iter().enumerate() {
            if i == self.media_index {
                self.render_media(&mut out, m);
            } else {
                let pt = m.codecs.first().map_or(0, |c| c.payload_type);
                let _ = write!(
                    out,
                    "m={} 0 {} {pt}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na=inactive\r\n",
                    m.kind, m.protocol, m.mid
                );
            }
        }
        out
    }

    fn render_media(&self, out: &mut String, m: &Media) {
        let pt = self.codec.payload_type;
        let rtx = self.rtx.map_or(String::new(), |p| format!(" {p}"));
        let fingerprint: Vec<String> = self.fingerprint.iter().map(|b| format!("{b:02X}")).collect();
        let _ = write!(
            out,
            "m={} 9 {} {pt}{rtx}\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n\
             a=fingerprint:sha-256 {}\r\na=setup:passive\r\na=mid:{}\r\na=sendonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n",
            m.kind,
            m.protocol,
            self.ufrag,
            self.password,
            fingerprint.join(":"),
            m.mid
        );
        let _ = write!(out, "a=rtpmap:{pt} {}/{}\r\n", self.codec.name, self.codec.clock_rate);
        if !self.codec.fmtp.is_empty() {
            let _ = write!(out, "a=fmtp:{pt} {}\r\n", self.codec.fmtp);
        }
        let _ = write!(out, "a=rtcp-fb:{pt} nack\r\na=rtcp-fb:{pt} nack pli\r\na=rtcp-fb:{pt} ccm fir\r\n");
        if let Some(rtx) = self.rtx {
            let _ = write!(out, "a=rtpmap:{rtx} rtx/{}\r\na=fmtp:{rtx} apt={pt}\r\n", self.codec.clock_rate);
            let _ = write!(out, "a=ssrc-group:FID {} {}\r\n", self.ssrc.0, self.rtx_ssrc.0);
        }
        for (id, uri) in self.extensions {
            let _ = write!(out, "a=extmap:{id} {uri}\r\n");
        }
        let _ = write!(out, "a=msid:{0} {0}\r\na=ssrc:{1} cname:{0}\r\n", self.stream, self.ssrc.0);
        if self.rtx.is_some() {
            let _ = write!(out, "a=ssrc:{} cname:{}\r\n", self.rtx_ssrc.0, self.stream);
        }
        render_candidates(out, self.candidates);
    }
}

fn render_candidates(out: &mut String, candidates: &[SocketAddr]) {
    for (i, c) in candidates.iter().enumerate() {
        // Host candidates of one component; the first has the highest priority (RFC 8445 section 5.1.2).
        let priority = (126_u32 << 24) | ((65_535 - i.min(65_535) as u32) << 8) | 255;
        let _ = write!(out, "a=candidate:{} 1 udp {priority} {} {} typ host\r\n", i + 1, c.ip(), c.port());
    }
    out.push_str("a=end-of-candidates\r\n");
}

/// The answer to an ICE restart (RFC 8840, RFC 9725 section 4.3.3).
#[must_use]
pub fn render_restart(ufrag: &str, password: &str, mid: &str, candidates: &[SocketAddr]) -> String {
    let mut out = format!(
        "a=ice-lite\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{mid}\r\n"
    );
    render_candidates(&mut out, candidates);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
        a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
        a=setup:actpass\r\na=mid:0\r\na=recvonly\r\na=rtpmap:111 opus/48000/2\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\n\
        a=mid:1\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
        a=rtpmap:98 H264/90000\r\na=fmtp:98 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
        a=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\na=extmap:4/recvonly urn:x\r\n";

    #[test]
    fn an_offer_of_a_browser_is_read() {
        let o = Offer::parse(OFFER).unwrap();
        assert_eq!((o.ufrag.as_str(), o.media.len()), ("abcd", 2));
        let (index, v) = o.receiving("video").unwrap();
        assert_eq!(index, 1);
        assert_eq!((v.mid.as_str(), v.codecs.len(), v.rtcp_mux), ("1", 4, true));
        assert_eq!(v.codecs[2].name, "H264");
        assert_eq!(fmtp_value(&v.codecs[2].fmtp, "profile-level-id"), Some("42e01f"));
        assert_eq!(v.extensions, vec![(4, "urn:x".to_owned())]);
        assert_eq!(o.fingerprint.value.len(), 32);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (OFFER.replace("a=setup:actpass", "a=setup:passive"), "a=setup:passive"),
            (OFFER.replacen("a=ice-ufrag:abcd", "a=ice-ufrag:efgh", 1), "same value"),
            (OFFER.replace("a=mid:1", "a=mid:0"), "a=mid:0 stands twice"),
            (OFFER.replace("a=fingerprint:sha-256 00", "a=fingerprint:md5 00"), "sha-256"),
            (OFFER.replace("SAVPF 111", "SAVPF 300"), "payload types 0 to 127"),
            (OFFER.replace("a=ice-pwd:0123456789012345678901\r\n", ""), "a=ice-pwd"),
            ("hello".to_owned(), "one letter"),
            (String::new(), "v=0"),
            ("v=0\r\n".repeat(MAX_LINES + 1), "number of lines"),
            (format!("v=0\r\n{}", "m=video 9 X 1\r\n".repeat(MAX_MEDIA + 1)), "m-lines"),
            ("x".repeat(MAX_SDP_LEN + 1), "length"),
        ];
        for (sdp, want) in cases {
            let e = Offer::parse(&sdp).unwrap_err().to_string();
            assert!(e.contains(want), "{want:?} is not in {e:?}");
        }
    }

    #[test]
    fn the_answer_rejects_what_it_does_not_use_and_keeps_the_order() {
        let o = Offer::parse(OFFER).unwrap();
        let codec = o.media[1].codecs[2].clone();
        let a = Answer {
            ufrag: "u",
            password: "p",
            fingerprint: &[0xab; 32],
            candidates: &["127.0.0.1:5000".parse().unwrap()],
            media_index: 1,
            codec: &codec,
            rtx: Some(99),
            extensions: &[(4, "urn:x")],
            ssrc: Ssrc(5),
            rtx_ssrc: Ssrc(6),
            stream: "scope",
            session_id: 1,
        };
        let text = a.render(&o);
        let audio = text.find("m=audio 0 ").unwrap();
        let video = text.find("m=video 9 UDP/TLS/RTP/SAVPF 98 99").unwrap();
        assert!(audio < video);
        assert!(text.contains("a=setup:passive\r\n") && text.contains("a=ice-lite\r\n"));
        assert!(text.contains("a=candidate:1 1 udp") && text.contains("127.0.0.1 5000 typ host"));
        assert!(text.lines().all(|l| lines(l).is_ok()));
    }

    #[test]
    fn fragments_carry_candidates_or_a_restart() {
        let f = Fragment::parse("a=ice-ufrag:abcd\r\na=ice-pwd:x\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n").unwrap();
        assert_eq!((f.ufrag.as_deref(), f.candidates.len()), (Some("abcd"), 1));
        assert!(Fragment::parse("v=0\r\n").is_err());
    }
}
