//! One viewer: asks for a leg, connects, checks everything that comes, and leaves as it is told. It keeps no packets and asks for
//! none again: what its leg loses it has lost.

use super::access::Access;
use super::check::{Checker, Way, Whole};
use super::figures::{Counts, ViewerRow};
use super::publish::Feed;
use super::scenario::{Incoming, ViewerPlan};
use super::shared::{Shared, lock};
use crate::net::api::{Api, Refused};
use crate::net::road::{Heard, Road};
use crate::rtc::{Bearer, Endpoint, light};
use anyhow::Context as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use trocar_proto::media::roq::{self, FlowPrefix, error_code};
use trocar_proto::media::rtcp::Builder;
use trocar_proto::session::api::{LegRequest, RoqBinding};
use trocar_proto::session::feed::RoqMode;
use trocar_proto::session::ids::FeedId;
use trocar_proto::units::Ssrc;
use trocar_relay::frames::{datagram, read_datagrams};

/// Packets that wait on a leg of streams or of two paths. Loss policy: reading waits, and QUIC drops the oldest datagrams.
const PACKETS: usize = 1_024;
/// Datagrams that are taken before figures are written down.
const BATCH: usize = 64;
/// The relay hears of us this often, and knows where the leg is to go.
const REPORTS: Duration = Duration::from_secs(1);
/// Without a whole frame for so long, a join has failed.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// Who leaves sooner may have seen nothing.
const SHORT_VISIT: Duration = Duration::from_secs(1);
/// A lost connection is tried again so often, and so long after.
const TRIES: usize = 20;
const AGAIN: Duration = Duration::from_millis(300);
/// What was captured so shortly before somebody left may still be under way, in microseconds.
const UNDER_WAY_US: u64 = 300_000;

/// What a viewer is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Stay,
    /// Give the leg back.
    Leave,
    /// Be gone without a word to signaling.
    Kill,
    /// Leave, and everything that was sent has come by now.
    End,
}

/// The visit of one viewer at its place, until it is told to go.
pub(super) async fn watch(shared: Arc<Shared>, access: Arc<Access>, viewer: usize, order: watch::Receiver<Order>) {
    let Some((plan, feed)) = shared.plans.get(viewer).and_then(|p| Some((*p, shared.feeds.get(p.feed)?.clone())))
    else {
        return;
    };
    lock(&shared.joins).asked += 1;
    let mut visit = Visit::new(shared, viewer, plan, feed, order);
    let done = match plan.transport {
        Incoming::Webrtc => visit.by_webrtc(&access).await,
        Incoming::Roq | Incoming::RoqStream => visit.by_quic(&access).await,
    };
    if let Err(error) = done {
        visit.fail(&in_few_words(&error));
        visit.wait_for_the_end().await;
    }
    visit.finish();
}

/// The cause alone, without what differs from viewer to viewer.
fn in_few_words(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Refused>() {
        Some(refused) => refused.to_string(),
        None => error.root_cause().to_string(),
    }
}

struct Visit {
    shared: Arc<Shared>,
    viewer: usize,
    plan: ViewerPlan,
    feed: Arc<Feed>,
    order: watch::Receiver<Order>,
    checker: Checker,
    /// What the place knows already.
    told: Counts,
    /// When its leg was asked for.
    began: Instant,
    last: Option<Instant>,
    /// The join was told to have failed.
    failed: bool,
}

impl Visit {
    fn new(
        shared: Arc<Shared>,
        viewer: usize,
        plan: ViewerPlan,
        feed: Arc<Feed>,
        order: watch::Receiver<Order>,
    ) -> Self {
        let way = Way { ordered: plan.transport != Incoming::RoqStream, copies: plan.paths > 1 };
        let checker = Checker::new(feed.group.codec, &feed.name, feed.tag, way, shared.stale_us);
        if let Some(place) = shared.places.get(viewer) {
            let mut place = lock(place);
            place.taken = true;
            place.row = ViewerRow {
                viewer: u32::try_from(viewer).unwrap_or(u32::MAX),
                feed: feed.name.clone(),
                transport: plan.transport.name().to_owned(),
                ..std::mem::take(&mut place.row)
            };
        }
        let (began, told) = (Instant::now(), Counts::default());
        Self { shared, viewer, plan, feed, order, checker, told, began, last: None, failed: false }
    }

    fn stays(&self) -> bool {
        *self.order.borrow() == Order::Stay
    }

    async fn wait_for_the_end(&mut self) {
        // An error is that nobody is there any more who could say so.
        let _ = self.order.wait_for(|o| *o != Order::Stay).await;
    }

    /// The leg is asked for now. The participant that several share may have been waited for: joining is another figure than a leg's.
    fn ask(&mut self) {
        self.began = Instant::now();
        self.checker.ask(self.shared.clock.now().0);
    }

    fn fail(&mut self, why: &str) {
        if !std::mem::replace(&mut self.failed, true) {
            lock(&self.shared.joins).fail(why);
        }
    }

    /// Takes an RTP packet.
    fn take(&mut self, packet: &[u8]) {
        if let Some(whole) = self.checker.handle_packet(self.shared.clock.now().0, packet) {
            self.note(whole);
        }
    }

    /// A whole frame came.
    fn note(&mut self, whole: Whole) {
        let now = Instant::now();
        // Made and received by clocks of two machines, a frame may seem to come before it was made.
        let age_us = whole.age_us.map(|age| u64::try_from(age).unwrap_or(0));
        age_us.into_iter().for_each(|age| lock(&self.shared.second).record(age));
        let Some(place) = self.shared.places.get(self.viewer) else { return };
        let mut place = lock(place);
        if let Some(age_us) = age_us {
            place.row.ages.record(age_us);
            if let Some((age, _)) = place.second(self.shared.elapsed().as_secs() as usize) {
                *age = (*age).max(i32::try_from(age_us / 1_000).unwrap_or(i32::MAX));
            }
        }
        match self.last.replace(now) {
            Some(last) => place.row.gap_ms = place.row.gap_ms.max((now - last).as_secs_f64() * 1e3),
            None => {
                // Who was killed had no picture until now, either.
                if let Some(killed) = place.last_before_kill.take() {
                    place.row.gap_ms = place.row.gap_ms.max((now - killed).as_secs_f64() * 1e3);
                }
                let took = now - self.began;
                place.row.first_frame_ms.get_or_insert(took.as_secs_f64() * 1e3);
                lock(&self.shared.joins).first_frame.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            }
        }
    }

    /// Writes down what was found since the last time.
    fn tell(&mut self) {
        let news = self.checker.counts.since(self.told);
        self.told = self.checker.counts;
        if let Some(place) = self.shared.places.get(self.viewer) {
            let mut place = lock(place);
            place.row.counts.add(news);
            let lost = u32::try_from(news.frames_lost).unwrap_or(u32::MAX);
            if lost > 0
                && let Some((_, sum)) = place.second(self.shared.elapsed().as_secs() as usize)
            {
                *sum = sum.saturating_add(lost);
            }
        }
        let found = self.checker.take_faults();
        if !found.is_empty() {
            let mut faults = lock(&self.shared.faults);
            let viewer = u32::try_from(self.viewer).unwrap_or(u32::MAX);
            found.into_iter().for_each(|f| faults.note(f, viewer));
        }
    }

    /// Once a second.
    fn tick(&mut self) {
        if self.last.is_none() && self.began.elapsed() > FIRST_FRAME {
            self.fail("no whole frame within 5 s");
        }
        self.tell();
    }

    fn disconnected(&self) {
        if let Some(place) = self.shared.places.get(self.viewer) {
            lock(place).row.disconnects += 1;
        }
    }

    fn finish(mut self) {
        let order = *self.order.borrow();
        let last = if order == Order::End {
            lock(&self.shared.last_frames).get(self.plan.feed).copied().flatten()
        } else {
            None
        };
        let until = if order == Order::End { u64::MAX } else { self.shared.clock.now().0.saturating_sub(UNDER_WAY_US) };
        self.checker.finish(last, until);
        if self.last.is_none() && self.began.elapsed() > SHORT_VISIT {
            self.fail("no whole frame before it was over");
        }
        self.tell();
        if let Some(place) = self.shared.places.get(self.viewer) {
            let mut place = lock(place);
            place.taken = false;
            // At the end nothing is sent any more, so that waiting for it is no gap.
            if let Some(last) = self.last.filter(|_| order != Order::End) {
                place.row.gap_ms = place.row.gap_ms.max(last.elapsed().as_secs_f64() * 1e3);
            }
            place.last_before_kill = self.last.filter(|_| order == Order::Kill);
            place.row.disconnects += u64::from(order == Order::Kill);
        }
        lock(&self.shared.joins).leaves += u64::from(order == Order::Leave);
    }

    async fn by_quic(&mut self, access: &Access) -> anyhow::Result<()> {
        let api = access.viewer(self.viewer, self.plan.feed).await?;
        let mode = if self.plan.transport == Incoming::RoqStream { RoqMode::Stream } else { RoqMode::Datagram };
        let feed = FeedId::new(self.feed.name.as_str())?;
        self.ask();
        let binding = api.view(&feed, LegRequest { mode, paths: self.plan.paths }).await?;
        let read = if mode == RoqMode::Datagram && self.plan.paths == 1 {
            self.read_datagrams(access, &binding).await
        } else {
            self.read_roads(access, &binding).await
        };
        // At the end everybody's participant leaves, and with it the legs.
        let leaves = *self.order.borrow() == Order::Leave;
        if let Some(leg) = binding.leg.as_ref().filter(|_| leaves) {
            give_back(&api, leg).await;
        }
        read
    }

    /// The light way: one connection, whose datagrams are read where they are checked.
    async fn read_datagrams(&mut self, access: &Access, binding: &RoqBinding) -> anyhow::Result<()> {
        let dialer = access.dialers(self.viewer).first().context("no dialer")?;
        let rtcp = FlowPrefix::new(binding.rtcp_flow_id).context("rtcp_flow_id is above 2^62")?;
        for attempt in 0..TRIES {
            let connection = match dialer.connect(binding, attempt).await {
                Ok(connection) => connection,
                // The first one is the join.
                Err(error) if attempt == 0 => return Err(error),
                Err(_) => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            self.read_connection(&connection, binding, rtcp).await;
            if !self.stays() {
                connection.close(error_code::NO_ERROR.into(), b"the viewer leaves");
                return Ok(());
            }
            self.disconnected();
            tokio::time::sleep(AGAIN).await;
        }
        self.wait_for_the_end().await;
        Ok(())
    }

    /// Reads until the connection is lost or the viewer is to go.
    async fn read_connection(&mut self, connection: &quinn::Connection, binding: &RoqBinding, rtcp: FlowPrefix) {
        let mut reports = tokio::time::interval(REPORTS);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                read = read_datagrams(connection, &mut batch, BATCH) => {
                    if read.is_err() {
                        return;
                    }
                    let packets = batch.iter().filter_map(|d| roq::split(d));
                    packets.filter(|(flow, _)| *flow == binding.rtp_flow_id).for_each(|(_, packet)| self.take(packet));
                    batch.clear();
                    self.tell();
                }
                _ = reports.tick() => {
                    report(connection, rtcp);
                    self.tick();
                }
                changed = self.order.changed() => if changed.is_err() || !self.stays() { return },
            }
        }
    }

    /// Streams, or two paths.
    async fn read_roads(&mut self, access: &Access, binding: &RoqBinding) -> anyhow::Result<()> {
        let rtcp = FlowPrefix::new(binding.rtcp_flow_id).context("rtcp_flow_id is above 2^62")?;
        let (out, mut heard) = mpsc::channel(PACKETS);
        let dialers = access.dialers(self.viewer).iter().take(usize::from(self.plan.paths)).enumerate();
        let _roads: Vec<Road> =
            dialers.map(|(p, d)| Road::open(p, Arc::clone(d), binding.clone(), out.clone())).collect();
        let mut lines: Vec<Option<quinn::Connection>> = vec![None; usize::from(self.plan.paths)];
        let mut reports = tokio::time::interval(REPORTS);
        let mut done = Ok(());
        loop {
            tokio::select! {
                Some((path, what)) = heard.recv() => match what {
                    Heard::Packet(flow, packet) if flow == binding.rtp_flow_id => {
                        self.take(&packet);
                        if self.checker.counts.packets.is_multiple_of(BATCH as u64) {
                            self.tell();
                        }
                    }
                    Heard::Packet(..) => {}
                    Heard::Up(connection) => {
                        report(&connection, rtcp);
                        lines.iter_mut().skip(path).take(1).for_each(|l| *l = Some(connection.clone()));
                    }
                    Heard::Lost(_) => {
                        self.disconnected();
                        lines.iter_mut().skip(path).take(1).for_each(|l| *l = None);
                    }
                    Heard::Failed(error) => {
                        if self.last.is_none() && lines.iter().all(Option::is_none) {
                            done = Err(error);
                            break;
                        }
                    }
                },
                _ = reports.tick() => {
                    lines.iter().flatten().for_each(|l| report(l, rtcp));
                    self.tick();
                }
                changed = self.order.changed() => if changed.is_err() || !self.stays() { break },
            }
        }
        for line in lines.into_iter().flatten() {
            line.close(error_code::NO_ERROR.into(), b"the viewer leaves");
        }
        done
    }

    async fn by_webrtc(&mut self, access: &Access) -> anyhow::Result<()> {
        let api = access.viewer(self.viewer, self.plan.feed).await?;
        let path = format!("v1/sessions/{}/feeds/{}/whep", api.grant().session, self.feed.name);
        let endpoint = Endpoint::new(api.base().join(&path)?, Bearer::Joined(api.clone()), &access.trust)?;
        self.ask();
        let mut leg = light::Leg::open(&endpoint).await?;
        let mut reports = tokio::time::interval(REPORTS);
        loop {
            tokio::select! {
                packet = leg.next() => {
                    let Some(p) = packet else {
                        self.disconnected();
                        break;
                    };
                    let now = self.shared.clock.now().0;
                    if let Some(whole) = self.checker.handle_payload(now, p.seq, &p.payload, p.len) {
                        self.note(whole);
                        self.tell();
                    }
                }
                _ = reports.tick() => self.tick(),
                changed = self.order.changed() => if changed.is_err() || !self.stays() { break },
            }
        }
        let goodbye = *self.order.borrow() != Order::Kill;
        leg.close(goodbye).await;
        if self.stays() {
            self.wait_for_the_end().await;
        }
        Ok(())
    }
}

/// Tells the relay which connection the leg is to go by. Loss policy: what is not taken is said again a second later.
fn report(connection: &quinn::Connection, rtcp: FlowPrefix) {
    let report = Builder::default().receiver_report(Ssrc(1), None).finish();
    let _ = connection.send_datagram(datagram(rtcp, &report));
}

async fn give_back(api: &Api, leg: &trocar_proto::session::ids::LegId) {
    if let Err(error) = api.leave(leg).await {
        tracing::debug!(error = format!("{error:#}"), "the leg was not given back");
    }
}
