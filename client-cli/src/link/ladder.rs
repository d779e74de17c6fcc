//! The rungs of the ladder in words.

use super::ice::Reached;
use super::show::{Show, ms};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use trocar_link::measure::message::QuicDoor;
use trocar_link::result::Rung;

/// Latency classes.
pub(super) const AS_LINE: &str = "as the line";
pub(super) const TCP: &str = "waits for retransmissions (TCP)";
pub(super) const DETOUR: &str = "as the line, and the way round by TURN";
pub(super) const TCP_DETOUR: &str = "waits for retransmissions (TCP), and the way round by TURN";

/// A rung that was tried; none: it is not offered.
pub(super) fn offered(name: &str, class: &str, detail: &str, reached: Option<anyhow::Result<Reached>>) -> Rung {
    let tried = reached.as_ref().map(Result::is_ok);
    let came = reached.as_ref().and_then(|r| r.as_ref().ok()).copied();
    let why = reached.and_then(Result::err).map_or_else(String::new, |e| format!(": {e:#}"));
    Rung {
        name: name.to_owned(),
        reachable: tried,
        connect_us: came.map(|r| r.connect_us),
        rtt_us: came.map(|r| r.rtt_us),
        latency_class: class.to_owned(),
        detail: format!("{detail}{why}"),
    }
}

/// What a peer answers to: QUIC where it has it, this measurement, TCP. `rtt` is the line's.
pub(super) fn of_peer(to: SocketAddr, door: Option<&QuicDoor>, rtt: Option<f64>) -> Vec<Rung> {
    let mut ladder = Vec::new();
    if let Some(door) = door {
        let quic_to = SocketAddr::new(to.ip(), door.port);
        let asked = Instant::now();
        let reached = super::quic::reach(quic_to, door);
        let connect_us = asked.elapsed().as_secs_f64() * 1e6;
        let reached = reached.map(|rtt_us| Reached { connect_us, rtt_us });
        ladder.push(offered("quic-udp", AS_LINE, &format!("a QUIC connection to {quic_to}"), Some(reached)));
    }
    ladder.push(Rung {
        name: "udp".to_owned(),
        reachable: Some(true),
        connect_us: None,
        rtt_us: rtt,
        latency_class: AS_LINE.to_owned(),
        detail: format!("this measurement, to {to}"),
    });
    let asked = Instant::now();
    let tcp = TcpStream::connect_timeout(&to, Duration::from_secs(3)).map_err(anyhow::Error::from);
    let connect_us = asked.elapsed().as_secs_f64() * 1e6;
    let reached = tcp.map(|_| Reached { connect_us, rtt_us: connect_us });
    ladder.push(offered("tcp", TCP, &format!("a connection to {to}"), Some(reached)));
    ladder
}

/// One line for whoever watches, and the one that says what remains where UDP is blocked.
pub(super) fn say(ladder: &[Rung], show: &mut Show) {
    let words = |r: &Rung| match (r.reachable, r.rtt_us) {
        (Some(true), Some(us)) => format!("{} {}", r.name, ms(us)),
        (Some(true), None) => format!("{} works", r.name),
        (Some(false), _) => format!("{} BLOCKED", r.name),
        (None, _) => format!("{} {}", r.name, r.latency_class),
    };
    show.line("ladder", &ladder.iter().map(words).collect::<Vec<_>>().join(", "));
    if let Some(remains) = trocar_link::result::remains(ladder) {
        show.line("ladder", &remains);
    }
}
