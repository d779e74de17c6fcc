//! The SDP front door: a bounded parser for offers and our own answerer.
//!
//! RFC 8866 (SDP), RFC 8829 (what browsers offer), RFC 9143 (BUNDLE), RFC 8839 and 8840 (ICE), RFC 5761 and 5506 (RTCP),
//! RFC 9725 and draft-ietf-wish-whep. Only what the relay needs is kept. What is refused is refused by name, with what
//! would be right.

mod answer;
mod fragment;
mod parse;

pub use answer::{AcceptedMedia, CandidateAddress, MediaDirection, SendIds, SessionAnswer};
pub use fragment::{Fragment, FragmentAnswer};

use trocar_proto::units::Ssrc;

/// Longest offer, in bytes.
pub const MAX_SDP_LEN: usize = 64 * 1024;
/// Most lines of an offer.
pub const MAX_LINES: usize = 1_000;
/// Most m-lines of an offer.
pub const MAX_MEDIA: usize = 16;
/// Most candidates that are kept; further ones are passed over, since the peer's checks teach us its addresses.
pub const MAX_CANDIDATES: usize = 32;
/// Most simulcast layers that are kept of an m-line.
pub const MAX_RIDS: usize = 3;
/// Most header extensions that are kept of an m-line.
pub const MAX_EXTENSIONS: usize = 64;
/// Most SSRCs that are kept of an m-line.
pub const MAX_SSRCS: usize = 16;

/// URI of the transport-wide sequence number, without which `transport-cc` says nothing.
pub const TRANSPORT_CC_URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

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

/// RTCP feedback that the relay knows (RFC 4585, RFC 5104).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feedback {
    /// `nack`: lost packets are named.
    Nack,
    /// `nack pli`: a key frame is asked for.
    NackPli,
    /// `ccm fir`: the same, in the older way.
    CcmFir,
    /// `transport-cc`: arrival times of all packets of the transport.
    TransportCc,
    /// `goog-remb`: the receiver's estimate of the rate.
    GoogRemb,
}

impl Feedback {
    /// All of them, with the words of the attribute.
    const ALL: [(Self, &'static str); 5] = [
        (Self::Nack, "nack"),
        (Self::NackPli, "nack pli"),
        (Self::CcmFir, "ccm fir"),
        (Self::TransportCc, "transport-cc"),
        (Self::GoogRemb, "goog-remb"),
    ];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, t)| *t == text.trim_end()).map(|(f, _)| *f)
    }

    fn text(self) -> &'static str {
        Self::ALL.iter().find(|(f, _)| *f == self).map_or("", |(_, t)| t)
    }
}

/// One payload type of an m-line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Codec {
    /// RTP payload type.
    pub payload_type: u8,
    /// Encoding name as written.
    pub name: String,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Audio channels, where the rtpmap names them.
    pub channels: Option<u8>,
    /// Format parameters.
    pub fmtp: String,
    /// Feedback that was offered, as far as the relay knows it.
    pub feedback: Vec<Feedback>,
}

/// What ICE and DTLS of one transport need to know of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTransport {
    /// ICE user fragment.
    pub ufrag: String,
    /// ICE password.
    pub password: String,
    /// Fingerprint of the certificate that DTLS must show: of several, the one with the longest hash.
    pub fingerprint: Fingerprint,
    /// DTLS role offered: `actpass` or `active`.
    pub setup: String,
}

/// One m-line of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Media {
    /// `video`, `audio`, `application`.
    pub kind: String,
    /// Transport protocol, e.g. `UDP/TLS/RTP/SAVPF`.
    pub protocol: String,
    /// First word after the protocol: a payload type, or e.g. `webrtc-datachannel`.
    pub format: String,
    /// Media identification; empty where there is none.
    pub mid: String,
    /// Port 0 without `a=bundle-only`: the offerer does not want it, so it is answered with port 0 (RFC 3264 section 6).
    pub disabled: bool,
    /// Payload types, in the order of preference.
    pub codecs: Vec<Codec>,
    /// Header extensions: id and URI.
    pub extensions: Vec<(u8, String)>,
    /// `sendrecv`, `recvonly`, `sendonly` or `inactive`.
    pub direction: String,
    /// RTP and RTCP share a port (RFC 5761).
    pub rtcp_mux: bool,
    /// Reduced-size RTCP was offered (RFC 5506).
    pub rtcp_rsize: bool,
    /// One- and two-byte header extensions may be mixed (RFC 8285 section 6), said for this m-line.
    pub extmap_allow_mixed: bool,
    /// Stream and track of the first `a=msid` (RFC 8830).
    pub msid: Option<(String, String)>,
    /// Ids of the layers that the offerer can send (RFC 8851), in its order; at most [`MAX_RIDS`].
    pub rids: Vec<String>,
    /// Ids of the layers that `a=simulcast:send` names (RFC 8853 section 5.1), in its order, of those in `rids`; of
    /// alternatives the first. Empty or a single one: no simulcast.
    pub simulcast: Vec<String>,
    /// SSRCs of `a=ssrc` lines (RFC 5576); at most [`MAX_SSRCS`].
    pub ssrcs: Vec<Ssrc>,
    /// Media and RTX SSRC of `a=ssrc-group:FID` lines; at most [`MAX_SSRCS`].
    pub rtx_ssrcs: Vec<(Ssrc, Ssrc)>,
    /// What ICE and DTLS of this m-line use; none where the offer does not say it anywhere.
    pub transport: Option<PeerTransport>,
}

impl Media {
    /// Whether the relay can speak this m-line's transport at all.
    ///
    /// # Errors
    /// [`SdpError::Unusable`] names the m-line and what would be right.
    pub fn check(&self) -> Result<(), SdpError> {
        let unusable = |what: &str| SdpError::Unusable(format!("m={}: {what}", printable(&self.kind)));
        if !self.protocol.contains("RTP/SAVP") {
            return Err(unusable("the protocol is UDP/TLS/RTP/SAVPF (RFC 5764)"));
        }
        if !self.rtcp_mux {
            return Err(unusable("a=rtcp-mux is needed (RFC 8834)"));
        }
        if self.disabled {
            return Err(unusable("it has port 0, so it cannot be accepted"));
        }
        if self.transport.is_none() {
            return Err(unusable("it lacks a=ice-ufrag, a=ice-pwd, a=fingerprint or a=setup"));
        }
        Ok(())
    }

    /// The codec with that payload type.
    #[must_use]
    pub fn codec(&self, payload_type: u8) -> Option<&Codec> {
        self.codecs.iter().find(|c| c.payload_type == payload_type)
    }

    /// The id of that header extension (RFC 8285).
    #[must_use]
    pub fn extension_id(&self, uri: &str) -> Option<u8> {
        self.extensions.iter().find(|(_, u)| u == uri).map(|(id, _)| *id)
    }
}

/// An offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// m-lines, in order.
    pub media: Vec<Media>,
    /// m-lines of the BUNDLE group, as indexes, in the group's order; empty where none was offered (RFC 9143).
    pub bundle: Vec<usize>,
    /// One- and two-byte header extensions may be mixed, said for the session.
    pub extmap_allow_mixed: bool,
    /// The offerer trickles candidates (RFC 8840).
    pub trickle: bool,
    /// Candidates, as the values of `a=candidate` lines; at most [`MAX_CANDIDATES`]. Names (mDNS) and TCP are among them.
    pub candidates: Vec<String>,
}

impl Offer {
    /// Parses an offer.
    ///
    /// # Errors
    /// See [`SdpError`]; work is bounded by [`MAX_SDP_LEN`], [`MAX_LINES`] and [`MAX_MEDIA`].
    pub fn parse(sdp: &str) -> Result<Self, SdpError> {
        parse::offer(sdp)
    }

    /// The first m-line of that kind that somebody wants to receive on, with its index.
    #[must_use]
    pub fn receiving(&self, kind: &str) -> Option<(usize, &Media)> {
        self.receivers(kind).next()
    }

    /// All m-lines of that kind that somebody wants to receive on, with their indexes.
    pub fn receivers(&self, kind: &str) -> impl Iterator<Item = (usize, &Media)> {
        self.of_kind(kind, ["recvonly", "sendrecv"])
    }

    /// All m-lines of that kind that somebody wants to send on, with their indexes.
    pub fn senders(&self, kind: &str) -> impl Iterator<Item = (usize, &Media)> {
        self.of_kind(kind, ["sendonly", "sendrecv"])
    }

    fn of_kind(&self, kind: &str, directions: [&'static str; 2]) -> impl Iterator<Item = (usize, &Media)> {
        self.media
            .iter()
            .enumerate()
            .filter(move |(_, m)| m.kind == kind && !m.disabled && directions.contains(&m.direction.as_str()))
    }

    /// Whether these m-lines can be accepted together: all in the BUNDLE group, or a single one with a transport of its
    /// own. The relay gives each peer one transport.
    #[must_use]
    pub fn share_transport(&self, accepted: &[usize]) -> bool {
        accepted.len() == 1 || accepted.iter().all(|i| self.bundle.contains(i))
    }

    /// The transport that these m-lines, accepted together, use: that of the first one in the BUNDLE group's order (RFC
    /// 9143 section 7.3.1). A browser may offer different user fragments per m-line, so it depends on what is accepted.
    #[must_use]
    pub fn transport(&self, accepted: &[usize]) -> Option<&PeerTransport> {
        if !self.share_transport(accepted) {
            return None;
        }
        self.media.get(self.tagged(accepted)?)?.transport.as_ref()
    }

    /// The accepted m-line that the transport belongs to.
    fn tagged(&self, accepted: &[usize]) -> Option<usize> {
        self.bundle.iter().find(|i| accepted.contains(i)).or(accepted.first()).copied()
    }
}

/// The value of a parameter in an fmtp string.
#[must_use]
pub fn fmtp_value<'a>(fmtp: &'a str, key: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|p| {
        let (k, v) = p.trim().split_once('=')?;
        k.trim_end().eq_ignore_ascii_case(key).then_some(v.trim())
    })
}

/// What of a peer's text may stand in a message: short, and without control characters.
fn printable(s: &str) -> String {
    s.chars().take(32).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests;
