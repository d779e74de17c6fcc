//! The measurement with real sockets, clocks and threads: what both of its ends stand on, and the end that is measured against.

mod clock;
mod quic;
mod responding;
mod sender;
mod socket;

pub use clock::Clock;
pub use quic::{NAME as QUIC_NAME, open as open_quic, serve as serve_quic};
pub use responding::{Grant, Opened, Responding, Who};
pub use sender::{Flow, Progress};
pub use socket::{Came, Nothing, Socket};
