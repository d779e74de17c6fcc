//! WebRTC by the `webrtc` crate: a WHEP client ([`watch`]) and a WHIP client ([`publish`]). It shares no code with the
//! relay's own stack, so each proves the other in every test run.
//!
//! ```text
//! whep:  POST offer ─► answer ─► tracks ─► frames ─► the same figures and window as over QUIC
//! whip:  source's frames ─► header extensions of the house ─► tracks
//! ```

mod codec;
mod frames;
pub(crate) mod light;
mod link;
mod offered;
mod peer;
mod publish;
mod requests;
mod resource;
mod sockets;
pub(crate) mod watch;
pub(crate) mod whip;

use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use trocar_proto::session::feed::MediaKind;

pub(crate) use offered::Offered;
pub(crate) use resource::{Bearer, Endpoint};

/// The m-line that carries this kind of feed.
const fn kind_of(kind: MediaKind) -> RtpCodecKind {
    match kind {
        MediaKind::Audio => RtpCodecKind::Audio,
        MediaKind::Video | MediaKind::Data => RtpCodecKind::Video,
    }
}

#[cfg(test)]
mod tests;
