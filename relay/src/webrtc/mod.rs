//! WebRTC without a WebRTC library: ICE by `is`, DTLS by `dimpl` or `rtc-dtls`, SDP and everything after the
//! handshake by us.

pub mod codec;
mod dtls;
pub mod h264;
pub mod layers;
pub mod remote;
pub mod sdp;
pub mod transport;
