//! The healthy session beside an attack: one publisher and two viewers, by QUIC and by WebRTC, who write down which packet came when.
//!
//! Packets are numbered and carry the time of sending. The same moments go by a plain UDP socket between the same two threads: what
//! that floor sees is the machine, not the relay, and a trial in which the floor itself was late says nothing.

use super::peer::Draft;
use crate::bench::ends::{Participant, connect, identity};
use crate::bench::packet::{CLOCK_RATE, Maker, PAYLOAD_TYPE, Probe, monotonic_ns};
use crate::bench::schedule::{Pattern, Schedule};
use crate::stack::{PATIENCE, Stack};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trocar_proto::media::ext::{ABS_CAPTURE_TIME_URI, ExtensionIds, FRAME_URI};
use trocar_proto::media::roq::{self, FlowPrefix};
use trocar_proto::media::rtcp::Builder;
use trocar_proto::media::rtp::Header;
use trocar_proto::session::api::RoqBinding;
use trocar_proto::units::{Ssrc, WallMicros};

/// Name of the healthy feed.
pub(super) const FEED: &str = "beside";
/// 480 packets a second.
const SCHEDULE: Schedule = Schedule { bits: 4_224_000, pattern: Pattern::Paced };
/// A packet that has not come so long after the last moment of a phase is lost.
const LINGER: Duration = Duration::from_millis(400);
/// Bytes of a datagram on the floor.
const FLOOR_LEN: usize = 16;

/// Numbers of packets that came, with their age in microseconds.
#[derive(Default)]
struct Ledger(Mutex<Vec<(u64, u32)>>);

impl Ledger {
    fn note(&self, probe: Probe) {
        let age = u32::try_from(monotonic_ns().saturating_sub(probe.sent_ns) / 1_000).unwrap_or(u32::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((probe.number, age));
    }

    fn phase(&self, from: u64, to: u64) -> Ages {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let within: Vec<(u64, u32)> = all.iter().filter(|(n, _)| (from..to).contains(n)).copied().collect();
        let came: BTreeSet<u64> = within.iter().map(|(n, _)| *n).collect();
        let mut ages: Vec<u32> = within.into_iter().map(|(_, age)| age).collect();
        ages.sort_unstable();
        let place = (ages.len() * 99 / 100).min(ages.len().saturating_sub(1));
        let p99_us = ages.get(place).copied().unwrap_or(u32::MAX);
        Ages { lost: (to - from).saturating_sub(came.len() as u64), p99_us }
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// What one viewer saw of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// Packets that were sent and did not come.
    pub lost: u64,
    /// Age that 99 of 100 packets did not exceed, in microseconds.
    pub p99_us: u32,
}

/// What both viewers and the floor saw of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// By RTP over QUIC.
    pub native: Ages,
    /// By WebRTC.
    pub browser: Ages,
    /// By a plain socket between the same threads.
    pub floor: Ages,
}

#[derive(Default)]
struct Shared {
    made: AtomicU64,
    over: AtomicBool,
    native: Ledger,
    browser: Ledger,
    floor: Ledger,
    broken: Mutex<Option<String>>,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// A running healthy session. Dropping it ends it.
pub struct Beside {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Where it goes.
struct Places {
    base: String,
    publish: String,
    view: String,
    ca: PathBuf,
    /// The native viewer goes by this address instead of the relay's own.
    by: Option<SocketAddr>,
}

impl Beside {
    /// Starts it and waits until both viewers get packets. With `by`, the native viewer reaches the relay through that address.
    ///
    /// # Errors
    /// What did not come up.
    pub fn start(stack: &Stack, by: Option<SocketAddr>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let places = Places {
            base: stack.text("/page")?,
            publish: stack.text("/tokens/local")?,
            view: stack.text("/tokens/observer")?,
            ca: stack.text("/ca_file")?.into(),
            by,
        };
        let mine = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("beside".to_owned()).spawn(move || {
            if let Err(error) = run(&places, &mine) {
                *mine.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
            }
        })?;
        let beside = Self { shared, thread: Some(thread) };
        let until = Instant::now() + PATIENCE;
        while beside.shared.native.len() < 100 || beside.shared.browser.len() < 100 {
            beside.check()?;
            ensure!(Instant::now() < until, "the session beside does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(beside)
    }

    /// Number of the packet that comes next: a phase begins or ends here.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.shared.made.load(Ordering::Relaxed)
    }

    /// What was seen of the packets between two marks, once the last of them had time to come.
    ///
    /// # Errors
    /// Where the session itself has ended.
    pub async fn phase(&self, from: u64, to: u64) -> anyhow::Result<Phase> {
        tokio::time::sleep(LINGER).await;
        self.check()?;
        let Shared { native, browser, floor, .. } = &*self.shared;
        Ok(Phase { native: native.phase(from, to), browser: browser.phase(from, to), floor: floor.phase(from, to) })
    }

    fn check(&self) -> anyhow::Result<()> {
        let broken = self.shared.broken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        broken.map_or(Ok(()), |why| Err(anyhow::anyhow!("the session beside ended: {why}")))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(places: &Places, shared: &Arc<Shared>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let set = tokio::task::LocalSet::new();
    set.block_on(&runtime, async {
        let floor = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
        let to = floor.local_addr()?;
        let source = publish(places, Arc::clone(shared), to).await?;
        tokio::task::spawn_local(read_floor(floor, Arc::clone(shared)));
        let native = view_native(places, Arc::clone(shared)).await?;
        let browser = view_browser(places, shared);
        let over = async {
            while !shared.is_over() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ended = browser => ended?,
            ended = native => ended??,
            () = over => {}
        }
        let _ = source.join();
        Ok(())
    })
}

async fn read_floor(socket: tokio::net::UdpSocket, shared: Arc<Shared>) {
    let mut buffer = [0; FLOOR_LEN];
    while let Ok((FLOOR_LEN, _)) = socket.recv_from(&mut buffer).await {
        let (number, sent) = buffer.split_at(8);
        let read = |b: &[u8]| b.try_into().map_or(0, u64::from_be_bytes);
        shared.floor.note(Probe { number: read(number), sent_ns: read(sent) });
    }
}

/// Announces the feed and sends from a thread of its own, as a camera does.
async fn publish(
    places: &Places,
    shared: Arc<Shared>,
    floor: SocketAddr,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let me = identity(&places.ca)?;
    let participant = Participant::join(&places.base, &places.publish, Some(&me)).await?;
    let binding: RoqBinding = participant.post("feeds", Some(&descriptor())).await?;
    let (endpoint, connection) = connect(me, &binding).await?;
    let prefix = FlowPrefix::new(binding.rtp_flow_id).context("rtp_flow_id is above 2^62")?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let send = move || {
        let mut maker = Maker::new(SCHEDULE.packets_per_frame());
        SCHEDULE.run(|due| {
            for _ in 0..due {
                let (now, number) = (monotonic_ns(), maker.made());
                let _ = socket.send_to(&[number.to_be_bytes(), now.to_be_bytes()].concat(), floor);
                let packet = maker.next(now, wall_now());
                let _ = connection.send_datagram(Bytes::from([prefix.as_bytes(), packet].concat()));
                shared.made.store(maker.made(), Ordering::Relaxed);
            }
            !shared.is_over() && connection.close_reason().is_none()
        });
        drop((endpoint, participant));
    };
    Ok(std::thread::Builder::new().name("camera".to_owned()).spawn(send)?)
}

fn wall_now() -> WallMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

fn descriptor() -> serde_json::Value {
    let ids = ExtensionIds::OURS;
    json!({
        "feed": FEED, "source": FEED, "view": "overview", "kind": "video", "purpose": "scope", "codec": "H264",
        "fmtp": "packetization-mode=1;profile-level-id=42e01f", "clock_rate": CLOCK_RATE, "payload_type": PAYLOAD_TYPE,
        "width": 1280, "height": 720, "fps": 60.0, "max_bitrate": 6_000_000, "budget_ms": 100,
        "header_extensions": { FRAME_URI: ids.frame, ABS_CAPTURE_TIME_URI: ids.abs_capture_time },
        "transport": { "roq": { "mode": "datagram" } },
    })
}

type Task = tokio::task::JoinHandle<anyhow::Result<()>>;

async fn view_native(places: &Places, shared: Arc<Shared>) -> anyhow::Result<Task> {
    let me = identity(&places.ca)?;
    let participant = Participant::join(&places.base, &places.view, Some(&me)).await?;
    let mut binding: RoqBinding = participant.post(&format!("feeds/{FEED}/legs"), None).await?;
    if let Some(by) = places.by {
        binding.relay = by.to_string();
    }
    let (endpoint, connection) = connect(me, &binding).await?;
    let report = Builder::default().receiver_report(Ssrc(1), None).finish();
    let prefix = FlowPrefix::new(binding.rtcp_flow_id).context("rtcp_flow_id is above 2^62")?;
    connection.send_datagram([prefix.as_bytes(), &report].concat().into())?;
    Ok(tokio::task::spawn_local(async move {
        let _kept = (endpoint, participant);
        loop {
            let datagram = connection.read_datagram().await.context("the native viewer")?;
            if let Some((_, packet)) = roq::split(&datagram).filter(|(f, _)| *f == binding.rtp_flow_id) {
                note(&shared.native, packet);
            }
        }
    }))
}

async fn view_browser(places: &Places, shared: &Shared) -> anyhow::Result<()> {
    let participant = Participant::join(&places.base, &places.view, None).await?;
    let draft = Draft::viewer().await?;
    let answer = participant.whep(FEED, draft.sdp.clone()).await?;
    let mut peer = draft.answered(&answer)?;
    peer.connect().await.context("the WebRTC viewer")?;
    loop {
        peer.step(true, |packet| note(&shared.browser, packet)).await?;
    }
}

fn note(ledger: &Ledger, packet: &[u8]) {
    let probe = Header::parse(packet).ok().and_then(|h| Probe::read(h.payload(packet)));
    if let Some(probe) = probe {
        ledger.note(probe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_did_not_come_is_lost_and_a_late_hundredth_is_the_p99() {
        let ledger = Ledger::default();
        let fill = |n: u64| (n, if n.is_multiple_of(50) { 9_000 } else { 300 });
        ledger.0.lock().unwrap().extend((0..1_000).filter(|n| *n != 500).map(fill));
        assert_eq!(ledger.phase(0, 1_000), Ages { lost: 1, p99_us: 9_000 });
        assert_eq!(ledger.phase(1, 50), Ages { lost: 0, p99_us: 300 });
        assert_eq!(ledger.phase(2_000, 2_010), Ages { lost: 10, p99_us: u32::MAX });
    }
}
