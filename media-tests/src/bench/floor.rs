//! The floors: the least that a relay of this kind can do, written as tightly as we know how.
//!
//! *Sealed*: read the datagrams of one socket with `recvmmsg` and `UDP_GRO`; for each viewer, write a fixed RTP header and the
//! payload, seal it with AES-256-GCM under the viewer's own key, and send batches of at most [`BATCH`] packets by
//! `UDP_SEGMENT`. *Clear*: the same without the seal. Neither keeps a packet, knows frames, loss or addresses that change, or
//! answers anything.

use super::BATCH;
use super::packet::{HEADER, PACKET};
use super::words::{Order, Word, orders, say};
use anyhow::Context as _;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use trocar_relay::quic::bind_udp;

/// Bytes of an RTP header without extensions.
pub const FIXED: usize = 12;
/// Bytes of a tag.
const TAG: usize = 16;
/// Buffers of one read.
const READS: usize = 8;
const READ_SIZE: usize = 65_536;

/// The key of a viewer's packets, by its place in the list of viewers.
///
/// # Errors
/// Never with a key of the right length.
pub fn key_of(viewer: usize) -> anyhow::Result<LessSafeKey> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &viewer.to_be_bytes());
    let key = UnboundKey::new(&AES_256_GCM, digest.as_ref()).map_err(|_| anyhow::anyhow!("key"))?;
    Ok(LessSafeKey::new(key))
}

/// The nonce of a packet: its fixed header, which no other packet under the same key has for a long while.
#[must_use]
pub fn nonce_of(header: [u8; FIXED]) -> Nonce {
    Nonce::assume_unique_for_key(header)
}

/// Forwards until its standard input ends. `seals` is the difference between the two floors; `lose` leaves one packet in so
/// many out on purpose, which a benchmark has to notice.
///
/// # Errors
/// Where a socket fails.
pub fn run(seals: bool, lose: Option<u64>) -> anyhow::Result<()> {
    let orders = orders();
    let socket = bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let out = bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    say(&Word::Ingress(socket.local_addr()?))?;
    let Ok(Order::Viewers(addresses)) = orders.recv() else { return Ok(()) };
    let keyed = |(i, a)| Ok((a, if seals { Some(key_of(i)?) } else { None }));
    let viewers: Vec<(SocketAddr, Option<LessSafeKey>)> =
        addresses.into_iter().enumerate().map(keyed).collect::<anyhow::Result<_>>()?;
    say(&Word::Ready)?;
    std::thread::spawn(move || {
        // The end of standard input is the end of the one who measures.
        while orders.recv().is_ok() {}
        std::process::exit(0);
    });
    let mut floor = Floor { out: UdpSocketState::new((&out).into())?, socket: out, viewers, batch: Vec::new() };
    floor.batch.reserve_exact(BATCH * (PACKET + TAG));
    forward(&socket, &mut floor, lose)
}

struct Floor {
    socket: UdpSocket,
    out: UdpSocketState,
    viewers: Vec<(SocketAddr, Option<LessSafeKey>)>,
    batch: Vec<u8>,
}

fn forward(socket: &UdpSocket, floor: &mut Floor, lose: Option<u64>) -> anyhow::Result<()> {
    let state = UdpSocketState::new(socket.into())?;
    let mut bytes = vec![0_u8; READS * READ_SIZE];
    let mut meta = [RecvMeta::default(); READS];
    let mut count = 0_u64;
    loop {
        let mut chunks = bytes.chunks_exact_mut(READ_SIZE);
        let mut slices: [IoSliceMut<'_>; READS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or(&mut [])));
        let read = match state.recv(socket.into(), &mut slices, &mut meta) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(socket, PollFlags::IN)], None)?;
                continue;
            }
            read => read?,
        };
        let filled = meta.iter().zip(bytes.chunks_exact(READ_SIZE)).take(read);
        let packets = filled.flat_map(|(m, b)| b.get(..m.len).unwrap_or(&[]).chunks(m.stride.max(1)));
        let kept = |_: &&[u8]| {
            count += 1;
            lose.is_none_or(|n| !count.is_multiple_of(n))
        };
        let all: Vec<&[u8]> = packets.filter(kept).collect();
        for batch in all.chunks(BATCH) {
            floor.send(batch).context("send")?;
        }
    }
}

impl Floor {
    fn send(&mut self, packets: &[&[u8]]) -> anyhow::Result<()> {
        for (to, key) in &self.viewers {
            self.batch.clear();
            let mut size = 0;
            for packet in packets {
                size = append(&mut self.batch, packet, key.as_ref()).unwrap_or(0);
            }
            let segment_size = (packets.len() > 1).then_some(size);
            let t = Transmit { destination: *to, ecn: None, contents: &self.batch, segment_size, src_ip: None };
            // Loss policy: what the socket does not take is lost, and the viewers miss it.
            let _ = self.out.try_send((&self.socket).into(), &t);
        }
        Ok(())
    }
}

/// Appends what one viewer gets of a packet; its length, or none where it is no packet of the generator.
fn append(batch: &mut Vec<u8>, packet: &[u8], key: Option<&LessSafeKey>) -> Option<usize> {
    let start = batch.len();
    let mut header: [u8; FIXED] = packet.get(..FIXED)?.try_into().ok()?;
    // No extensions.
    header[0] = 0x80;
    batch.extend_from_slice(&header);
    batch.extend_from_slice(packet.get(HEADER..)?);
    if let Some(key) = key {
        let body = batch.get_mut(start + FIXED..)?;
        let tag = key.seal_in_place_separate_tag(nonce_of(header), Aad::from(header), body).ok()?;
        batch.extend_from_slice(tag.as_ref());
    }
    Some(batch.len() - start)
}
