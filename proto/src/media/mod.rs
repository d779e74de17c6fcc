//! RTP and RTCP as bytes, the feed ring, and the leg that decides what a viewer gets.
//!
//! A packet's way through the relay: [`feed::Feed::handle_packet`] stores it in the [`ring`], then for each viewer
//! [`leg::Leg::poll`] returns what to send. Nothing here copies a packet twice or waits.

pub mod bytes;
pub mod codec;
pub mod dd;
pub mod ext;
pub mod fec;
pub mod feed;
pub mod ingest;
pub mod jitter;
pub mod leg;
pub mod lipsync;
pub mod nack;
pub mod paths;
pub mod pixelmark;
pub mod rate;
pub mod receive;
pub mod ring;
pub mod rising;
pub mod roq;
pub mod rtcp;
pub mod rtp;
pub mod rtx;
pub mod seq;
pub mod twcc;
pub mod voices;
pub mod window;

#[cfg(test)]
mod wraps;
