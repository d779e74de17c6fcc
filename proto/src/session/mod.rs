//! Who may do what, what a feed is, and the messages that signaling, relay, publishers, viewers and the page exchange.

pub mod admission;
pub mod api;
pub mod break_glass;
pub mod claims;
pub mod clock;
pub mod event;
pub mod feed;
pub mod ids;
pub mod link_test;
pub mod problem;
pub mod remote;
pub mod role;
