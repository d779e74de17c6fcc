//! One WebRTC connection of the relay: whose it is, what leaves by it (legs) and what comes in by it (tracks).

use super::out::{Flex, Line};
use super::police::RtcpPolice;
use crate::srtp::{Receiver, SendKeys, SendStream};
use crate::webrtc::layers::Demux;
use crate::webrtc::remote::Remote;
use crate::webrtc::sdp::Codec;
use crate::webrtc::transport::Transport;
use std::cell::RefCell;
use trocar_proto::media::codec::pictures::Pictures;
use trocar_proto::media::dd::Renumber;
use trocar_proto::media::nack::NackGenerator;
use trocar_proto::media::twcc::Recorder;
use trocar_proto::session::ids::{LegId, ParticipantId, PublicationId, SessionId};
use trocar_proto::units::{Bitrate, Micros, SeqNo, Ssrc};

/// What a connection is for. Signaling knows it by the name in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// Somebody views a feed, and hears the sound that belongs to it.
    Viewer(LegId),
    /// Somebody hears the voices of a session.
    Listener(Listening),
    /// Somebody publishes.
    Publisher(PublicationId),
}

/// Who hears which session's voices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listening {
    pub(crate) leg: LegId,
    pub(crate) session: SessionId,
    pub(crate) listener: ParticipantId,
}

/// One WebRTC connection.
pub(crate) struct Peer {
    pub(crate) role: Role,
    pub(crate) transport: Transport,
    /// What its connection takes, for all that leaves by it.
    pub(crate) line: RefCell<Line>,
    pub(crate) listener: usize,
    /// Media identification and kind of the m-line that the transport belongs to; an ICE restart answers for it.
    pub(crate) mid: String,
    pub(crate) kind: String,
    /// Canonical name of what leaves by it: it is to be played in step.
    pub(crate) cname: String,
    pub(crate) ufrags: Vec<String>,
    pub(crate) addresses: Vec<Remote>,
    pub(crate) keys: Option<Keys>,
    /// What leaves by it.
    pub(crate) legs: Vec<usize>,
    /// What comes in by it: one for each kind, and for each layer of a picture that is simulcast.
    pub(crate) tracks: Vec<Track>,
    /// Which packet belongs to which track; its lanes are the tracks, in the same order.
    pub(crate) demux: Demux,
    /// Who we are in reports about what comes in.
    pub(crate) ssrc: Ssrc,
    pub(crate) transport_cc: Option<TransportCc>,
    /// When REMB was last sent.
    pub(crate) last_remb: Micros,
    /// How much of its RTCP is looked at.
    pub(crate) rtcp: RtcpPolice,
}

/// SRTP of one peer. Streams that send are claimed from it by the legs, once for each SSRC.
pub(crate) struct Keys {
    pub(crate) send: SendKeys,
    pub(crate) receive: Receiver,
}

/// Transport-wide feedback to a publisher.
pub(crate) struct TransportCc {
    /// Id of the header extension with the transport-wide sequence number.
    pub(crate) id: u8,
    pub(crate) recorder: Recorder,
}

/// One m-line that a peer publishes on, or one layer of it.
pub(crate) struct Track {
    /// None once the feed was closed while the connection lives on.
    pub(crate) feed: Option<usize>,
    /// Asks for what is missing, where the publisher agreed to generic NACK.
    pub(crate) nack: Option<NackGenerator>,
    /// Number of the next FIR, for a publisher that agreed to FIR and not to PLI.
    pub(crate) fir: Option<u8>,
    /// What its feed may send, for a publisher that wants REMB and knows no transport-wide feedback.
    pub(crate) remb: Option<Bitrate>,
}

/// How a leg leaves by a peer.
pub(crate) struct WebrtcWay {
    pub(crate) peer: usize,
    /// Media identification of its m-line.
    pub(crate) mid: String,
    pub(crate) part: Part,
    /// The peer's consent had run out: what it missed is not sent late.
    pub(crate) paused: bool,
    pub(crate) repair: RepairBudget,
    /// The streams are the only ones of their SSRCs; none before the handshake.
    pub(crate) streams: Option<Streams>,
    /// What the viewer agreed to; another feed of the leg has to fit it.
    pub(crate) codec: Codec,
    pub(crate) rtx_payload_type: Option<u8>,
    /// Header extensions that the viewer agreed to.
    pub(crate) ext: LegExtensions,
    /// Frame numbers of the dependency descriptor, where the viewer agreed to that extension.
    pub(crate) renumber: Option<Box<Renumber>>,
    /// Picture numbers in the payloads, where the codec has them there.
    pub(crate) pictures: Option<Pictures>,
    /// Where FlexFEC goes, if the viewer agreed to it.
    pub(crate) fec: Option<FecStream>,
    /// Its encoder, from the first report on.
    pub(crate) flex: Option<Box<Flex>>,
    pub(crate) ssrc: Ssrc,
    pub(crate) rtx_ssrc: Ssrc,
    /// The publisher's clock minus ours, in units of 2^-32 s, for the capture times that are sent on; as of the last report.
    pub(crate) clock_offset: Option<i64>,
    /// Number of the viewer's last FIR command: the same one again is no new one.
    pub(crate) last_fir: Option<u8>,
    pub(crate) recent_repeats: Box<[(u16, Micros); RECENT_REPEATS]>,
    pub(crate) next_rtx: SeqNo,
}

/// The ids of header extensions that a viewer agreed to; none where it did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LegExtensions {
    pub(crate) playout_delay: Option<u8>,
    /// Transport-wide sequence number, one sequence for the whole connection.
    pub(crate) transport_cc: Option<u8>,
    pub(crate) abs_capture_time: Option<u8>,
    pub(crate) mid: Option<u8>,
    pub(crate) audio_level: Option<u8>,
    pub(crate) dependency_descriptor: Option<u8>,
}

/// A FlexFEC-03 stream of a leg. Its SSRC has an owner of its own, like that of the media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FecStream {
    pub(crate) ssrc: Ssrc,
    pub(crate) payload_type: u8,
}

/// Which part of its connection a leg is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// What the connection is there for; it ends with the feed.
    Primary,
    /// What goes along with it.
    Companion,
    /// A place for a voice, which may be silent.
    Voice,
}

/// SRTP of one leg.
pub(crate) struct Streams {
    pub(crate) media: SendStream,
    pub(crate) rtx: SendStream,
    /// FlexFEC, where it was agreed.
    pub(crate) fec: Option<SendStream>,
}

/// How many repeats are remembered, so that a NACK is answered at most once a round trip.
pub(crate) const RECENT_REPEATS: usize = 256;

/// What repeats may cost, over all NACKs of a leg: a quarter of the feed's rate, with a burst of a quarter of a second.
/// Whoever asks for more is not answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RepairBudget {
    bytes_per_s: u64,
    left: u64,
    at: Micros,
}

impl RepairBudget {
    pub(crate) fn new(rate: Bitrate) -> Self {
        let bytes_per_s = (rate.0 / 32).max(32_000);
        Self { bytes_per_s, left: bytes_per_s / 4, at: Micros(0) }
    }

    /// Takes `bytes` where they are there.
    pub(crate) fn take(&mut self, now: Micros, bytes: u64) -> bool {
        let earned = now.since(self.at).saturating_mul(self.bytes_per_s) / 1_000_000;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(self.bytes_per_s / 4);
            self.at = now;
        }
        let enough = self.left >= bytes;
        if enough {
            self.left -= bytes;
        }
        enough
    }
}
