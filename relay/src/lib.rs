//! The process that owns the media sockets.
pub mod srtp;
pub mod webrtc;
