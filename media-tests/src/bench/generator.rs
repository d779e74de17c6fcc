//! The generator: one stream of packets, as plain UDP to a floor, or by QUIC or SRTP to a relay that has admitted it.

mod srtp;

use super::ends::{Participant, connect, identity};
use super::figures::quantile;
use super::packet::{CLOCK_RATE, Maker, PACKET, PAYLOAD_TYPE, monotonic_ns};
use super::schedule::Schedule;
use super::words::{GeneratorSettings, Made, Order, Target, Word, orders, say};
use anyhow::Context as _;
use bytes::Bytes;
use quinn_udp::{Transmit, UdpSocketState};
use serde_json::json;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trocar_proto::media::ext::{ABS_CAPTURE_TIME_URI, ExtensionIds, FRAME_URI};
use trocar_proto::media::roq::FlowPrefix;
use trocar_proto::session::api::RoqBinding;
use trocar_proto::units::WallMicros;
use trocar_relay::quic::SOCKET_BUFFER;

/// Name of the feed.
pub const FEED: &str = "bench";
/// Packets of one segmented datagram: as many as quinn puts into one.
const SEGMENTS: usize = 10;

/// One turn in so many is timed.
pub const LOOK_EVERY: u64 = 30;
/// A turn that takes longer is not waited for.
const LONGEST_TURN_NS: u64 = 5_000_000;
/// From the last packet until the process ends.
const LINGER: Duration = Duration::from_millis(200);

/// Sends until it is told to stop.
///
/// # Errors
/// Where it cannot connect, or nobody reads what it says.
pub fn run(settings: &GeneratorSettings) -> anyhow::Result<()> {
    let orders = orders();
    let schedule = settings.schedule;
    let made = match &settings.target {
        Target::Udp(to) => by_udp(*to, schedule, &orders)?,
        Target::Roq { base, invitation, ca } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let me = identity(ca)?;
                let participant = Participant::join(base, invitation, Some(&me)).await?;
                let binding: RoqBinding = participant.post("feeds", Some(&descriptor(schedule))).await?;
                let (_endpoint, connection) = connect(me, &binding).await?;
                // The source has a thread of its own, as cameras have; this one drives QUIC.
                let source = tokio::task::spawn_blocking(move || by_quic(&connection, &binding, schedule, &orders));
                source.await?
            })?
        }
        Target::Whip { base, invitation } => srtp::run(base, invitation, schedule, &orders)?,
    };
    say(&Word::Made(made))
}

/// How long turns take.
#[derive(Default)]
struct Turns {
    count: u64,
    took_us: Vec<u32>,
}

impl Turns {
    /// A turn that began at `began_ns` was handed over; `is_out` says whether it has left.
    fn end(&mut self, began_ns: u64, is_out: impl Fn() -> bool) {
        self.count += 1;
        if !self.count.is_multiple_of(LOOK_EVERY) {
            return;
        }
        while !is_out() && monotonic_ns() - began_ns < LONGEST_TURN_NS {
            std::thread::sleep(Duration::from_micros(10));
        }
        self.took_us.push(u32::try_from((monotonic_ns() - began_ns) / 1_000).unwrap_or(u32::MAX));
    }

    fn median_us(mut self) -> u32 {
        self.took_us.sort_unstable();
        quantile(&self.took_us, 0.5)
    }
}

/// What the relay is asked for: a little room for what rounding to whole packets a frame adds.
const fn granted(schedule: Schedule) -> u64 {
    schedule.bits + schedule.bits / 10
}

/// As `trocar publish` announces a file of H.264.
fn descriptor(schedule: Schedule) -> serde_json::Value {
    let ids = ExtensionIds::OURS;
    json!({
        "feed": FEED, "source": FEED, "view": "overview", "kind": "video", "purpose": "scope", "codec": "H264",
        "fmtp": "packetization-mode=1;profile-level-id=42e01f", "clock_rate": CLOCK_RATE, "payload_type": PAYLOAD_TYPE,
        "width": 3840, "height": 2160, "fps": 60.0, "max_bitrate": granted(schedule), "budget_ms": 100,
        "header_extensions": { FRAME_URI: ids.frame, ABS_CAPTURE_TIME_URI: ids.abs_capture_time },
        "transport": { "roq": { "mode": "datagram" } },
    })
}

fn wall_now() -> WallMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Whether the order to stop has come, or nobody is there any more who could give it.
fn is_over(orders: &Receiver<Order>) -> bool {
    matches!(orders.try_recv(), Ok(Order::Stop) | Err(TryRecvError::Disconnected))
}

fn by_udp(to: SocketAddr, schedule: Schedule, orders: &Receiver<Order>) -> anyhow::Result<Made> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket2::SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER)?;
    let state = UdpSocketState::new((&socket).into())?;
    // A full buffer makes the sender wait, as a network card does.
    socket.set_nonblocking(false)?;
    say(&Word::Ready)?;
    let (mut maker, mut refused) = (Maker::new(schedule.packets_per_frame()), 0);
    let mut batch = Vec::with_capacity(SEGMENTS * PACKET);
    let mut turns = Turns::default();
    schedule.run(|due| {
        let (began, capture) = (monotonic_ns(), wall_now());
        let mut left = due;
        while left > 0 {
            batch.clear();
            let count = left.min(SEGMENTS as u64);
            (0..count).for_each(|_| batch.extend_from_slice(maker.next(monotonic_ns(), capture)));
            let segment_size = (count > 1).then_some(PACKET);
            let t = Transmit { destination: to, ecn: None, contents: &batch, segment_size, src_ip: None };
            refused += if state.try_send((&socket).into(), &t).is_ok() { 0 } else { count };
            left -= count;
        }
        turns.end(began, || true);
        !is_over(orders)
    });
    Ok(Made { packets: maker.made(), refused, turn_us: turns.median_us() })
}

fn by_quic(
    connection: &quinn::Connection,
    binding: &RoqBinding,
    schedule: Schedule,
    orders: &Receiver<Order>,
) -> anyhow::Result<Made> {
    let prefix = FlowPrefix::new(binding.rtp_flow_id).context("rtp_flow_id is above 2^62")?;
    let mut maker = Maker::new(schedule.packets_per_frame());
    let mut refused = 0;
    let mut turns = Turns::default();
    let empty = connection.datagram_send_buffer_space();
    say(&Word::Ready)?;
    schedule.run(|due| {
        let (began, capture) = (monotonic_ns(), wall_now());
        for _ in 0..due {
            let packet = maker.next(monotonic_ns(), capture);
            let datagram = Bytes::from([prefix.as_bytes(), packet].concat());
            // Where the buffer is full quinn would drop the oldest one and say nothing.
            let room = connection.datagram_send_buffer_space() > datagram.len() + 64;
            refused += u64::from(!room || connection.send_datagram(datagram).is_err());
        }
        turns.end(began, || connection.datagram_send_buffer_space() >= empty);
        !is_over(orders) && connection.close_reason().is_none()
    });
    // What was handed to QUIC has to leave before the process does.
    std::thread::sleep(LINGER);
    Ok(Made { packets: maker.made(), refused, turn_us: turns.median_us() })
}
