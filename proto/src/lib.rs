//! The rules of Trocar: values in, values out.
//!
//! Nothing here opens a socket, starts a task, reads a clock or draws a random number. What the rest of the house
//! needs to agree on is written down here once:
//!
//! - [`units`]: one type for each kind of number.
//! - [`session`]: who may do what (roles, verbs, token claims), what a feed is, what travels on the event WebSocket and
//!   between signaling and relay.
//! - [`media`]: RTP and RTCP as bytes, the feed ring, the leg that decides what a viewer gets, the marks in a test picture.
//! - [`link`]: a line between two places and what goes wrong on it, for tests and for `trocar impair`.
//! - [`handover`]: who may operate (`proto/HANDOVER.md`). [`control`]: how expert and gate find each other at a relay.
//!
//! # Driving contract
//! `handle_*` takes something in, `poll_*` gives something out, getters only look. Time is always an argument: `now` is
//! [`units::Micros`] of a monotonic clock, [`units::WallMicros`] is for tokens, audit, capture times and display.
#![forbid(unsafe_code)]

pub mod control;
pub mod handover;
pub mod link;
pub mod media;
pub mod session;
pub mod units;
