//! Whether the other family of addresses gets through as well.

use super::route::Route;
use super::session::{TRY_EVERY, drawn};
use anyhow::bail;
use std::time::Instant;
use trocar_link::measure::packet::{Header, Key, Kind};
use trocar_link::measure::responder::opening;
use trocar_link::sockets::{Clock, Nothing, Socket};

/// Whether a `trocar link serve` answers at an address at all: a hello and its cookie.
pub(super) fn answers(route: Route, clock: Clock) -> anyhow::Result<()> {
    let socket = Socket::connect(route.from, route.to, clock)?;
    let hello = opening(Kind::Hello, drawn()?, &Key::new(&[]), &[]);
    let mut buffer = [0; 2_048];
    for _ in 0..4 {
        socket.send(&hello, route.to, 0)?;
        let asked = Instant::now();
        while asked.elapsed() < TRY_EVERY {
            match socket.receive(&mut buffer) {
                Ok(came) if buffer.get(..came.len).is_some_and(|b| Header::read(b).is_ok()) => return Ok(()),
                Err(Nothing::Refused) => bail!("nobody listens at {}", route.to),
                _ => {}
            }
        }
    }
    bail!("no answer from {}", route.to)
}
