//! The generator as a browser publishes: WHIP, then SRTP from a socket of its own. It answers no NACK: on loopback nothing is lost
//! on the way in, and where something is, the relay says so.

use super::super::ends::Participant;
use super::super::packet::{HEADER, Maker, PACKET, SOURCE, monotonic_ns};
use super::super::peer::Peer;
use super::super::schedule::Schedule;
use super::super::words::{Made, Order, Word, say};
use super::{FEED, SEGMENTS, Turns, granted, is_over, wall_now};
use anyhow::{Context as _, ensure};
use quinn_udp::{Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use trocar_proto::media::bytes::put;
use trocar_proto::units::SeqNo;
use trocar_relay::quic::bind_udp;
use trocar_relay::srtp::SendStream;

/// The relay has so long to connect.
const PATIENCE: Duration = Duration::from_secs(10);
/// Handshakes go on this often.
const TICK: Duration = Duration::from_millis(5);
/// Room for what comes back: reports and checks.
const BUFFER: usize = 2_048;

pub(super) fn run(base: &str, invitation: &str, schedule: Schedule, orders: &Receiver<Order>) -> anyhow::Result<Made> {
    let socket = bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let (mut peer, offer) = Peer::publisher(socket.local_addr()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let participant = Participant::join(base, invitation, None).await?;
        participant.whip(FEED, granted(schedule), offer).await
    })?;
    peer.handle_answer(&answer)?;
    let stream = connect(&mut peer, &socket)?;
    say(&Word::Ready)?;
    send(peer, stream, &socket, schedule, orders)
}

/// ICE and DTLS, until there are keys.
fn connect(peer: &mut Peer, socket: &UdpSocket) -> anyhow::Result<SendStream> {
    let (began, tick) = (Instant::now(), Timespec::try_from(TICK)?);
    loop {
        read(peer, socket);
        peer.tick(Instant::now(), socket)?;
        if let Some(stream) = peer.stream(SOURCE)? {
            return Ok(stream);
        }
        ensure!(began.elapsed() < PATIENCE, "the relay does not connect");
        poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&tick))?;
    }
}

/// What came back.
fn read(peer: &mut Peer, socket: &UdpSocket) {
    let mut buffer = [0; BUFFER];
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        if let Some(data) = buffer.get_mut(..len) {
            peer.handle_control(from, data, socket);
        }
    }
}

fn send(
    mut peer: Peer,
    mut stream: SendStream,
    socket: &UdpSocket,
    schedule: Schedule,
    orders: &Receiver<Order>,
) -> anyhow::Result<Made> {
    let destination = peer.remote().context("no address")?;
    let state = UdpSocketState::new(socket.into())?;
    let sealed = PACKET + stream.overhead();
    let (mut maker, mut refused) = (Maker::new(schedule.packets_per_frame()), 0);
    let mut batch = vec![0; SEGMENTS * sealed];
    let mut turns = Turns::default();
    let mut failed = Ok(());
    schedule.run(|due| {
        let (began, capture) = (monotonic_ns(), wall_now());
        let mut left = due;
        while left > 0 {
            let count = left.min(SEGMENTS as u64);
            let contents = batch.get_mut(..count as usize * sealed).unwrap_or(&mut []);
            for room in contents.chunks_exact_mut(sealed) {
                let number = SeqNo(maker.made());
                let written = put(room, 0, maker.next(monotonic_ns(), capture));
                refused += u64::from(!written || stream.seal(number, room, HEADER).is_err());
            }
            let t = Transmit { destination, ecn: None, contents, segment_size: Some(sealed), src_ip: None };
            refused += if state.try_send(socket.into(), &t).is_ok() { 0 } else { count };
            left -= count;
        }
        turns.end(began, || true);
        read(&mut peer, socket);
        // The relay is to know that we are there (RFC 7675).
        failed = peer.tick(Instant::now(), socket);
        failed.is_ok() && !is_over(orders)
    });
    failed?;
    Ok(Made { packets: maker.made(), refused, turn_us: turns.median_us() })
}
