//! Our answer to an offer: the relay is ICE-lite, the DTLS server, and either sends on an m-line or receives.

use super::{Codec, Feedback, Media, Offer, TRANSPORT_CC_URI};
use std::fmt::Write as _;
use std::net::SocketAddr;
use trocar_proto::units::{Bitrate, Ssrc};

/// The rate that a publishing browser is told to begin with, in kbit/s, where its limit allows that much. Left alone it
/// begins at 300.
const START_KBPS: u64 = 2_000;

/// Which way media goes on an m-line, seen from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaDirection {
    /// We send: the peer is a viewer.
    SendOnly,
    /// We receive: the peer publishes.
    RecvOnly,
}

/// An address that we listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CandidateAddress {
    /// The address.
    pub address: SocketAddr,
    /// TCP, where the peer connects to us (RFC 6544), else UDP.
    pub tcp: bool,
}

impl CandidateAddress {
    /// UDP.
    #[must_use]
    pub const fn udp(address: SocketAddr) -> Self {
        Self { address, tcp: false }
    }

    /// TCP, passive.
    #[must_use]
    pub const fn tcp(address: SocketAddr) -> Self {
        Self { address, tcp: true }
    }
}

/// What we send is known by.
#[derive(Debug, Clone, Copy)]
pub struct SendIds<'a> {
    /// SSRC of the media.
    pub ssrc: Ssrc,
    /// SSRC of RTX, where that was agreed.
    pub rtx_ssrc: Option<Ssrc>,
    /// Canonical name: the same for what plays in step (RFC 3550 section 6.5.1).
    pub cname: &'a str,
    /// Name of the stream.
    pub stream: &'a str,
    /// Name of the track.
    pub track: &'a str,
}

/// An m-line that we accept.
#[derive(Debug, Clone)]
pub struct AcceptedMedia<'a> {
    /// Index of the m-line in the offer.
    pub index: usize,
    /// Which way media goes.
    pub direction: MediaDirection,
    /// The payload type that was chosen, with its parameters and its offered feedback.
    pub codec: &'a Codec,
    /// Payload type of RTX for it.
    pub rtx: Option<u8>,
    /// Header extensions that we use: the offer's id, URI.
    pub extensions: Vec<(u8, &'a str)>,
    /// Names of what we send; none where we receive.
    pub send: Option<SendIds<'a>>,
    /// The most that a publisher may send here.
    pub max_bitrate: Option<Bitrate>,
    /// Ids of the simulcast layers that we take (RFC 8853), in the offer's order; empty for none.
    pub layers: Vec<&'a str>,
    /// FlexFEC-03 that we send: payload type and SSRC.
    pub fec: Option<(u8, Ssrc)>,
}

/// What we say to an offer. Every m-line is answered in the offer's order, and what is not accepted is refused with port 0.
#[derive(Debug, Clone)]
pub struct SessionAnswer<'a> {
    /// Our ICE user fragment.
    pub ufrag: &'a str,
    /// Our ICE password.
    pub password: &'a str,
    /// SHA-256 of our DTLS certificate.
    pub fingerprint: &'a [u8],
    /// Where we listen, the preferred first.
    pub candidates: &'a [CandidateAddress],
    /// Session id of the o-line, below 2^63.
    pub session_id: u64,
    /// The m-lines that we accept: all in the offer's BUNDLE group, or one ([`Offer::share_transport`]).
    pub media: &'a [AcceptedMedia<'a>],
}

impl SessionAnswer<'_> {
    /// The answer to `offer` as text.
    #[must_use]
    pub fn render(&self, offer: &Offer) -> String {
        let accepted: Vec<usize> = self.media.iter().map(|m| m.index).collect();
        let mut out = String::with_capacity(2_048);
        // Writing to a String cannot fail.
        let _ = write!(out, "v=0\r\no=- {} 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n", self.session_id);
        let group: Vec<&str> = offer
            .bundle
            .iter()
            .filter(|i| accepted.contains(i))
            .filter_map(|i| offer.media.get(*i))
            .map(|m| m.mid.as_str())
            .collect();
        if !group.is_empty() {
            let _ = write!(out, "a=group:BUNDLE {}\r\n", group.join(" "));
        }
        out.push_str("a=ice-lite\r\n");
        if offer.trickle {
            out.push_str("a=ice-options:trickle\r\n");
        }
        if offer.extmap_allow_mixed {
            out.push_str("a=extmap-allow-mixed\r\n");
        }
        out.push_str("a=msid-semantic: WMS *\r\n");
        let tagged = offer.tagged(&accepted);
        for (i, m) in offer.media.iter().enumerate() {
            match self.media.iter().find(|a| a.index == i) {
                Some(a) => {
                    self.render_media(&mut out, m, a);
                    if tagged == Some(i) {
                        render_candidates(&mut out, self.candidates);
                    }
                }
                None => refuse(&mut out, m),
            }
        }
        out
    }

    fn render_media(&self, out: &mut String, m: &Media, a: &AcceptedMedia<'_>) {
        let pt = a.codec.payload_type;
        let further = a.rtx.into_iter().chain(a.fec.map(|(p, _)| p));
        let further: String = further.map(|p| format!(" {p}")).collect();
        let _ = write!(out, "m={} 9 {} {pt}{further}\r\nc=IN IP4 0.0.0.0\r\n", m.kind, m.protocol);
        if let Some(limit) = a.max_bitrate {
            // AS counts in kbit/s with IP and UDP, TIAS in bit/s without (RFC 3890): the first is rounded up.
            let _ = write!(out, "b=AS:{}\r\nb=TIAS:{}\r\n", limit.0.div_ceil(1_000), limit.0);
        }
        let fingerprint: Vec<String> = self.fingerprint.iter().map(|b| format!("{b:02X}")).collect();
        let _ = write!(
            out,
            "a=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:passive\r\n",
            self.ufrag,
            self.password,
            fingerprint.join(":"),
        );
        mid_line(out, m);
        let direction = match a.direction {
            MediaDirection::SendOnly => "sendonly",
            MediaDirection::RecvOnly => "recvonly",
        };
        let _ = write!(out, "a={direction}\r\na=rtcp-mux\r\n");
        if m.rtcp_rsize {
            out.push_str("a=rtcp-rsize\r\n");
        }
        if m.extmap_allow_mixed {
            out.push_str("a=extmap-allow-mixed\r\n");
        }
        for (id, uri) in &a.extensions {
            let _ = write!(out, "a=extmap:{id} {uri}\r\n");
        }
        render_codec(out, m, a);
        render_layers(out, &a.layers);
        if let Some(ids) = &a.send {
            render_ids(out, ids, a.fec.map(|(_, ssrc)| ssrc));
        }
    }
}

fn render_codec(out: &mut String, m: &Media, a: &AcceptedMedia<'_>) {
    let c = a.codec;
    let pt = c.payload_type;
    let channels = c.channels.map_or(String::new(), |n| format!("/{n}"));
    let _ = write!(out, "a=rtpmap:{pt} {}/{}{channels}\r\n", c.name, c.clock_rate);
    let mut fmtp = c.fmtp.clone();
    if let Some(limit) = a.max_bitrate.filter(|_| m.kind == "video") {
        let separator = if fmtp.is_empty() { "" } else { ";" };
        let _ = write!(fmtp, "{separator}x-google-start-bitrate={}", START_KBPS.min(limit.0 / 1_000));
    }
    if !fmtp.is_empty() {
        let _ = write!(out, "a=fmtp:{pt} {fmtp}\r\n");
    }
    for feedback in &c.feedback {
        if is_useful(*feedback, a) {
            let _ = write!(out, "a=rtcp-fb:{pt} {}\r\n", feedback.text());
        }
    }
    if let Some(rtx) = a.rtx {
        let _ = write!(out, "a=rtpmap:{rtx} rtx/{}\r\na=fmtp:{rtx} apt={pt}\r\n", c.clock_rate);
    }
    if let Some((fec, _)) = a.fec {
        // The window is Chromium's own; a packet of repair protects far less.
        let _ = write!(out, "a=rtpmap:{fec} flexfec-03/{}\r\na=fmtp:{fec} repair-window=10000000\r\n", c.clock_rate);
    }
}

/// RFC 8853 section 5.2 and RFC 8851: what the offerer sends, we receive.
fn render_layers(out: &mut String, layers: &[&str]) {
    if layers.is_empty() {
        return;
    }
    for rid in layers {
        let _ = write!(out, "a=rid:{rid} recv\r\n");
    }
    let _ = write!(out, "a=simulcast:recv {}\r\n", layers.join(";"));
}

fn is_useful(feedback: Feedback, a: &AcceptedMedia<'_>) -> bool {
    match feedback {
        // A viewer's NACK is answered by RTX only; without it the viewer would wait for what never comes.
        Feedback::Nack => a.direction == MediaDirection::RecvOnly || a.rtx.is_some(),
        Feedback::TransportCc => a.extensions.iter().any(|(_, uri)| *uri == TRANSPORT_CC_URI),
        Feedback::NackPli | Feedback::CcmFir | Feedback::GoogRemb => true,
    }
}

fn render_ids(out: &mut String, ids: &SendIds<'_>, fec: Option<Ssrc>) {
    let (cname, stream, track) = (token(ids.cname), token(ids.stream), token(ids.track));
    let _ = write!(out, "a=msid:{stream} {track}\r\n");
    if let Some(rtx) = ids.rtx_ssrc {
        let _ = write!(out, "a=ssrc-group:FID {} {}\r\n", ids.ssrc.0, rtx.0);
    }
    if let Some(fec) = fec {
        let _ = write!(out, "a=ssrc-group:FEC-FR {} {}\r\n", ids.ssrc.0, fec.0);
    }
    for ssrc in std::iter::once(ids.ssrc).chain(ids.rtx_ssrc).chain(fec) {
        let _ = write!(out, "a=ssrc:{0} cname:{cname}\r\na=ssrc:{0} msid:{stream} {track}\r\n", ssrc.0);
    }
}

/// A name as an SDP token (RFC 8830 section 2): 1 to 64 characters.
fn token(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.+".contains(c) { c } else { '-' };
    let out: String = name.chars().take(64).map(plain).collect();
    if out.is_empty() { "-".to_owned() } else { out }
}

fn mid_line(out: &mut String, m: &Media) {
    if !m.mid.is_empty() {
        let _ = write!(out, "a=mid:{}\r\n", m.mid);
    }
}

/// Port 0 is a refusal (RFC 3264 section 6); one format stands there because the line needs one.
fn refuse(out: &mut String, m: &Media) {
    let _ = write!(out, "m={} 0 {} {}\r\nc=IN IP4 0.0.0.0\r\n", m.kind, m.protocol, m.format);
    mid_line(out, m);
    out.push_str("a=inactive\r\n");
}

/// Host candidates of one component with the priorities of RFC 8445 section 5.1.2 and RFC 6544 section 4.2: all UDP ones
/// before all TCP ones, each kind in the order given.
pub(super) fn render_candidates(out: &mut String, candidates: &[CandidateAddress]) {
    for (i, c) in candidates.iter().enumerate() {
        let place = u32::try_from(i.min(8_191)).unwrap_or(8_191);
        let (type_preference, local_preference) =
            if c.tcp { (90, (4 << 13) + 8_191 - place) } else { (126, 65_535 - place) };
        let priority = (type_preference << 24) | (local_preference << 8) | 255;
        let (protocol, tail) = if c.tcp { ("tcp", " tcptype passive") } else { ("udp", "") };
        let (ip, port) = (c.address.ip(), c.address.port());
        let _ = write!(out, "a=candidate:{} 1 {protocol} {priority} {ip} {port} typ host{tail}\r\n", i + 1);
    }
    out.push_str("a=end-of-candidates\r\n");
}
