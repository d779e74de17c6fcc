//! The publishers: feeds of synthetic packets by the same sender that `trocar publish` has, from one thread that keeps the pace.

use super::access::Access;
use super::figures::{Fault, Named};
use super::payload::{self, CLOCK_RATE, Head, MAX_PAYLOAD, MIN_PAYLOAD, Proof};
use super::scenario::{Inject, Publishers};
use super::shared::{Shared, lock};
use crate::media::{Frame, Raw};
use crate::net::api::wall_now;
use crate::net::road::{Heard, Road};
use crate::sender::Sender;
use anyhow::Context as _;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use trocar_proto::media::roq::error_code;
use trocar_proto::media::rtcp::{Compound, Rtcp};
use trocar_proto::session::api::RoqBinding;
use trocar_proto::units::{Ssrc, WallMicros};

/// A feed that is not connected by then has failed.
const CONNECT: Duration = Duration::from_secs(10);
/// A pace that is further behind leaves frames out instead of sending them all at once.
const FAR_BEHIND: Duration = Duration::from_millis(250);
/// What comes from the relay and waits. Loss policy: reading waits, and QUIC drops the oldest datagrams.
const FROM_RELAY: usize = 64;
/// How much older than the limit an injected stale frame is, in microseconds.
const STALER_US: u64 = 100_000;

/// One feed.
pub(super) struct Feed {
    pub(super) name: String,
    pub(super) tag: u64,
    pub(super) group: Publishers,
    /// Whether it is published from here; others watch it from here too.
    pub(super) mine: bool,
    pub(super) sender: Sender,
    /// Somebody asks for a key frame.
    key_wanted: AtomicBool,
    /// Nothing is to be made now.
    quiet: AtomicBool,
    /// Id of the frame that comes next.
    pub(super) next: AtomicU32,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed({})", self.name)
    }
}

impl Feed {
    pub(super) fn new(run: u64, name: &str, group: Publishers, mine: bool) -> anyhow::Result<Self> {
        let sender = Sender::new(None)?;
        sender.begin(CLOCK_RATE);
        Ok(Self {
            name: name.to_owned(),
            tag: payload::tag(run, name),
            group,
            mine,
            sender,
            key_wanted: AtomicBool::new(true),
            quiet: AtomicBool::new(true),
            next: AtomicU32::new(0),
        })
    }
}

/// A feed that is published.
pub(super) struct Publisher {
    pub(super) feed: Arc<Feed>,
    /// Whether it is to be connected.
    alive: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Publisher {
    /// Announces the feed and connects.
    ///
    /// # Errors
    /// What signaling said, or that no connection came about.
    pub(super) async fn start(feed: Arc<Feed>, access: &Arc<Access>, index: usize) -> anyhow::Result<Self> {
        let descriptor = feed.group.descriptor(&feed.name)?;
        let api = access.publisher(index).await?;
        let binding = api.publish(&descriptor).await.with_context(|| format!("feed {}", feed.name))?;
        let (alive, wanted) = watch::channel(true);
        let (up, connected) = tokio::sync::oneshot::channel();
        let serving = Serving { feed: Arc::clone(&feed), access: Arc::clone(access), binding, index };
        let task = tokio::spawn(serving.run(wanted, up));
        let waited = tokio::time::timeout(CONNECT, connected).await;
        waited.ok().and_then(Result::ok).with_context(|| format!("feed {}: no connection to the relay", feed.name))?;
        Ok(Self { feed, alive, task })
    }

    /// The connection is gone without a word to signaling, or back.
    pub(super) fn set_alive(&self, alive: bool) {
        if !alive {
            self.feed.quiet.store(true, Ordering::Relaxed);
        }
        self.alive.send_replace(alive);
    }

    /// Withdraws the feed.
    pub(super) async fn finish(self, access: &Access, index: usize) {
        self.feed.sender.finish();
        self.task.abort();
        if let (Ok(api), Ok(descriptor)) = (access.publisher(index).await, self.feed.group.descriptor(&self.feed.name))
            && let Err(error) = api.withdraw(&descriptor.feed).await
        {
            tracing::debug!(error = format!("{error:#}"), "the feed was not withdrawn");
        }
    }
}

/// Keeps the connections of one feed.
struct Serving {
    feed: Arc<Feed>,
    access: Arc<Access>,
    binding: RoqBinding,
    index: usize,
}

impl Serving {
    async fn run(self, mut wanted: watch::Receiver<bool>, up: tokio::sync::oneshot::Sender<()>) {
        let mut up = Some(up);
        let mut report = tokio::time::interval(Duration::from_secs(1));
        loop {
            // Each life has a queue of its own: what an earlier one still says is not heard.
            let (out, mut heard) = mpsc::channel(FROM_RELAY);
            let dialers = self.access.dialers(self.index).iter().take(self.feed.group.paths as usize).enumerate();
            let open = |(path, d): (usize, &Arc<_>)| Road::open(path, Arc::clone(d), self.binding.clone(), out.clone());
            let roads: Vec<Road> = dialers.map(open).collect();
            let mut connections: Vec<quinn::Connection> = Vec::new();
            while *wanted.borrow() {
                tokio::select! {
                    Some((path, heard)) = heard.recv() => {
                        if let Heard::Up(connection) = &heard {
                            connections.push(connection.clone());
                        }
                        let is_up = self.handle(path, heard);
                        if is_up && connections.len() >= self.feed.group.paths as usize {
                            let _ = up.take().map(|u| u.send(()));
                        }
                    }
                    _ = report.tick() => drop(self.feed.sender.report(wall_now())),
                    changed = wanted.changed() => if changed.is_err() { return },
                }
            }
            drop(roads);
            for (path, connection) in connections.iter().enumerate() {
                self.feed.sender.disconnect(path);
                connection.close(error_code::GENERAL_ERROR.into(), b"killed");
            }
            while !*wanted.borrow() {
                if wanted.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// Takes what a road says; whether it is open.
    fn handle(&self, path: usize, heard: Heard) -> bool {
        let feed = &self.feed;
        match heard {
            Heard::Up(connection) => match feed.sender.connect(path, connection, &self.binding) {
                Ok(()) => {
                    feed.key_wanted.store(true, Ordering::Relaxed);
                    feed.quiet.store(false, Ordering::Relaxed);
                    return true;
                }
                Err(error) => tracing::error!(feed = feed.name, error = format!("{error:#}"), "flow"),
            },
            Heard::Packet(flow, packet) if flow == self.binding.rtcp_flow_id => {
                feed.sender.handle_rtcp(path, &packet);
                if Compound::new(&packet).any(|part| matches!(part, Rtcp::KeyFrameRequest { .. })) {
                    feed.key_wanted.store(true, Ordering::Relaxed);
                }
            }
            Heard::Packet(..) => {}
            Heard::Lost(error) => {
                tracing::warn!(feed = feed.name, %error, "connection to the relay lost");
                feed.sender.disconnect(path);
            }
            Heard::Failed(error) => tracing::warn!(feed = feed.name, error = format!("{error:#}"), "no connection"),
        }
        false
    }
}

/// The thread that makes the frames. Ends when it is dropped.
pub(super) struct Pacer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Pacer {
    /// Begins with all feeds that are published from here, each at another moment of its interval.
    pub(super) fn start(shared: &Arc<Shared>, inject: Option<Inject>) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mine: Vec<Arc<Feed>> = shared.feeds.iter().filter(|f| f.mine).cloned().collect();
        let (asked, shared) = (Arc::clone(&stop), Arc::clone(shared));
        let work = move || pace(&mine, &shared, inject, &asked);
        let thread =
            std::thread::Builder::new().name("pace".to_owned()).spawn(work).context("cannot start a thread")?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// No more frames.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn pace(feeds: &[Arc<Feed>], shared: &Shared, inject: Option<Inject>, stop: &AtomicBool) {
    let begin = Instant::now();
    let mut makers: Vec<Maker<'_>> = feeds.iter().map(|f| Maker::new(f, inject)).collect();
    let count = makers.len().max(1) as u32;
    let first = |i: usize, m: &Maker<'_>| begin + m.interval * u32::try_from(i).unwrap_or(0) / count;
    let mut due: BinaryHeap<_> = makers.iter().enumerate().map(|(i, m)| Reverse((first(i, m), i))).collect();
    while let Some(Reverse((at, index))) = due.pop() {
        let mut now = Instant::now();
        while now < at && !stop.load(Ordering::Relaxed) {
            std::thread::sleep((at - now).min(Duration::from_millis(50)));
            now = Instant::now();
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Some(maker) = makers.get_mut(index) else { return };
        let mut next = at + maker.interval;
        let late = now.saturating_duration_since(at);
        if late > FAR_BEHIND {
            let missed = late.as_nanos() / maker.interval.as_nanos().max(1);
            shared.slipped.fetch_add(u64::try_from(missed).unwrap_or(u64::MAX), Ordering::Relaxed);
            next = now + maker.interval;
        }
        if !maker.feed.quiet.load(Ordering::Relaxed) {
            let us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
            lock(&shared.late).record(us);
            lock(&shared.late_second).record(us);
            maker.make(shared);
        }
        due.push(Reverse((next, index)));
    }
}

/// Makes the frames of one feed.
struct Maker<'a> {
    feed: &'a Feed,
    interval: Duration,
    /// Bytes of a frame that is no key frame.
    delta: usize,
    /// A key frame after so many others.
    key_every: u32,
    since_key: u32,
    seq: u16,
    inject: Option<Inject>,
}

impl<'a> Maker<'a> {
    fn new(feed: &'a Feed, inject: Option<Inject>) -> Self {
        let g = &feed.group;
        Self {
            feed,
            interval: Duration::from_secs_f64(1.0 / g.fps),
            delta: g.delta_bytes(),
            key_every: (g.fps.round() as u32).max(1),
            since_key: u32::MAX,
            seq: 0,
            inject,
        }
    }

    /// Makes the next frame and sends it.
    fn make(&mut self, shared: &Shared) {
        let feed = self.feed;
        let id = feed.next.load(Ordering::Relaxed);
        let wanted = feed.key_wanted.swap(false, Ordering::Relaxed);
        let key = wanted || self.since_key >= self.key_every - 1;
        self.since_key = if key { 0 } else { self.since_key.saturating_add(1) };
        let bytes = if key { (self.delta as f64 * feed.group.profile.key_factor()) as usize } else { self.delta };
        let fault = self.inject.filter(|i| id % i.every == i.every - 1).map(|i| i.fault);
        let now = shared.clock.now();
        let claimed = if fault == Some(Fault::Stale) { WallMicros(now.0 - shared.stale_us - STALER_US) } else { now };
        let timestamp = payload::timestamp(now);
        let mut packets = self.packets(id, bytes.max(MIN_PAYLOAD), key, claimed, timestamp);
        if let Some(fault) = fault {
            let packet = break_on_purpose(fault, &mut packets);
            shared.note_injected(Named { fault, feed: feed.name.clone(), frame: id, packet });
        }
        let packets = packets.into_iter().map(Into::into).collect();
        let frame = Frame {
            frame_id: id,
            key,
            capture: wall_now(),
            rtp_timestamp: timestamp,
            audio_level: None,
            raw: Raw::NotAsked,
            packets,
        };
        feed.sender.send(&frame);
        feed.next.store(id.wrapping_add(1), Ordering::Relaxed);
    }

    fn packets(&mut self, frame: u32, bytes: usize, key: bool, capture: WallMicros, timestamp: u32) -> Vec<Vec<u8>> {
        let feed = self.feed;
        let of = u16::try_from(bytes.div_ceil(MAX_PAYLOAD)).unwrap_or(u16::MAX).max(1);
        let each = bytes.div_ceil(usize::from(of));
        let ssrc = Ssrc((feed.tag & 0xffff_ffff) as u32);
        let one = |index: u16| {
            let head = Head { seq: self.seq.wrapping_add(index), timestamp, ssrc };
            let proof = Proof { feed: feed.tag, frame, index, of, capture };
            payload::packet(feed.group.codec, proof, key, head, each)
        };
        let packets = (0..of).map(one).collect();
        self.seq = self.seq.wrapping_add(of);
        packets
    }
}

/// Makes a fault in a frame; which packet has it, where it is not the whole frame.
fn break_on_purpose(fault: Fault, packets: &mut Vec<Vec<u8>>) -> Option<u16> {
    let at = if fault == Fault::Corrupt { packets.len() / 2 } else { 1 };
    match fault {
        Fault::Corrupt => packets.get_mut(at).into_iter().for_each(|p| payload::corrupt(p)),
        Fault::Missing if packets.len() > 2 => drop(packets.remove(at)),
        Fault::Reorder if packets.len() > 3 => packets.swap(at, at + 1),
        _ => return None,
    }
    u16::try_from(at).ok()
}
