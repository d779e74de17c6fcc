//! What the feeds of one command share: the session, one QUIC connection to each relay over each path, and the clock.

use super::plan::Plan;
use super::supervise::{Link, News};
use crate::media::MediaError;
use crate::net::api::{Api, Refused, protection, wall_now};
use crate::net::events::Events;
use crate::net::path::PathSpec;
use crate::net::road::{Heard, Road};
use crate::net::roq::Dialer;
use crate::sender::Sender;
use crate::stop::Stop;
use rustls::pki_types::CertificateDer;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use trocar_proto::media::roq::error_code;
use trocar_proto::media::rtcp::{Compound, Rtcp};
use trocar_proto::session::api::{FeedPaths, RoqBinding};
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::feed::FeedDescriptor;
use trocar_proto::units::Bitrate;
use trocar_relay::quic::{self, Identity};

/// First and longest wait before signaling is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Packets from the relays that wait. Loss policy: reading waits, and QUIC drops the oldest datagrams; a key frame that is
/// wanted is asked for again.
const FROM_RELAYS: usize = 64;

/// A relay that refuses a certificate has said so by then, or after three round trips where those take longer.
const REFUSAL: Duration = Duration::from_millis(100);

/// Address and TLS name of a relay.
type RelayName = (String, String);

/// A relay, and the path to it.
type RoadName = (RelayName, usize);

/// One feed as the hub has it.
pub(super) struct Slot {
    pub(super) plan: Arc<Plan>,
    pub(super) sender: Arc<Sender>,
    pub(super) link: Arc<Link>,
    /// What it was announced as, or is to be.
    descriptor: Option<FeedDescriptor>,
    binding: Option<RoqBinding>,
    /// Signaling may have forgotten it.
    unsure: bool,
    /// The paths that the sender sends by.
    attached: BTreeSet<usize>,
    /// When the first of them was there, and how long a relay takes to refuse it.
    since: Option<(Instant, Duration)>,
    /// What the relay last said of its paths.
    paths: Option<FeedPaths>,
    /// The supervisor that waits for its word.
    begin: Option<oneshot::Sender<()>>,
    /// The line on standard output was written.
    shown: bool,
    over: bool,
}

impl Slot {
    pub(super) fn new(plan: Arc<Plan>, sender: Arc<Sender>, link: Arc<Link>) -> Self {
        Self {
            plan,
            sender,
            link,
            descriptor: None,
            binding: None,
            unsure: false,
            attached: BTreeSet::new(),
            since: None,
            paths: None,
            begin: None,
            shown: false,
            over: false,
        }
    }

    /// Whether there is something to be done for it at signaling.
    const fn is_unsettled(&self) -> bool {
        !self.over && self.descriptor.is_some() && (self.unsure || self.binding.is_none())
    }

    /// Whether it is announced and has a way to the relay.
    fn is_ready(&self) -> bool {
        !self.is_unsettled() && !self.attached.is_empty()
    }

    /// Whether the relay has taken its connection. With TLS 1.3 a client may send before the server has looked at its certificate,
    /// and hears one round trip later that it is refused.
    fn is_taken(&self) -> bool {
        !self.attached.is_empty() && self.since.is_some_and(|(since, refusal)| since.elapsed() >= refusal)
    }

    fn relay(&self) -> Option<RelayName> {
        self.binding.as_ref().map(|b| (b.relay.clone(), b.server_name.clone()))
    }

    fn detach(&mut self) {
        for path in std::mem::take(&mut self.attached) {
            self.sender.disconnect(path);
        }
    }

    /// Sends by this connection from now on.
    fn attach(&mut self, path: usize, connection: quinn::Connection) {
        let Some(binding) = self.binding.as_ref().filter(|_| !self.over) else { return };
        let refusal = (connection.rtt() * 3).max(REFUSAL);
        if let Err(error) = self.sender.connect(path, connection, binding) {
            tracing::error!(feed = %self.plan.feed, error = format!("{error:#}"), "the relay's flow cannot be used");
            return;
        }
        if self.attached.is_empty() {
            self.since = Some((Instant::now(), refusal));
            self.link.key_frame.notify_one();
        }
        self.attached.insert(path);
        let _ = self.begin.take().map(|b| b.send(()));
    }

    fn forget(&mut self) {
        self.detach();
        self.binding = None;
    }
}

/// What relays say, and by which road.
type Heards = (mpsc::Sender<(RoadName, Heard)>, mpsc::Receiver<(RoadName, Heard)>);

/// The publisher.
pub(super) struct Hub {
    api: Api,
    slots: Vec<Slot>,
    pub(super) news: mpsc::Receiver<News>,
    trust: Vec<CertificateDer<'static>>,
    /// One for each path.
    dialers: Vec<Arc<Dialer>>,
    events: Option<Events>,
    roads: BTreeMap<RoadName, Road>,
    connections: BTreeMap<RoadName, quinn::Connection>,
    relays: Heards,
    failed: Option<anyhow::Error>,
}

impl Hub {
    pub(super) fn new(
        api: Api,
        identity: Identity,
        paths: &[PathSpec],
        slots: Vec<Slot>,
        news: mpsc::Receiver<News>,
    ) -> anyhow::Result<Self> {
        let trust = identity.trust.clone();
        Ok(Self {
            api,
            slots,
            news,
            trust,
            dialers: Dialer::for_paths(identity, paths)?,
            events: None,
            roads: BTreeMap::new(),
            connections: BTreeMap::new(),
            relays: mpsc::channel(FROM_RELAYS),
            failed: None,
        })
    }

    /// Publishes until a signal, or until every source is over.
    pub(super) async fn serve(&mut self, stop: &Stop) -> anyhow::Result<()> {
        let (mut wait, mut due) = (BACKOFF.0, Instant::now());
        let mut report = tokio::time::interval(Duration::from_secs(1));
        loop {
            if self.slots.iter().all(|s| s.over) {
                return self.failed.take().map_or(Ok(()), Err);
            }
            let unsettled = self.slots.iter().any(Slot::is_unsettled);
            if unsettled && Instant::now() >= due {
                let settled = tokio::select! {
                    () = stop.requested() => return Ok(()),
                    settled = self.settle() => settled,
                };
                match settled {
                    Ok(()) => wait = BACKOFF.0,
                    Err(error) if self.refused_at_once(&error) => return Err(error),
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "not everything is announced and connected");
                        wait = (wait * 2).min(BACKOFF.1);
                    }
                }
                due = Instant::now() + wait;
                continue;
            }
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                news = self.news.recv() => match news {
                    Some(news) => self.handle_news(news).await,
                    None => return Ok(()),
                },
                heard = self.relays.1.recv() => if let Some((road, heard)) = heard { self.handle_relay(&road, heard) },
                event = next_event(&mut self.events) => self.handle_event(event),
                _ = report.tick() => self.report(),
                () = tokio::time::sleep_until(due.into()), if unsettled => {}
            }
        }
    }

    /// A single feed that was never announced and is refused will not be taken later either.
    fn refused_at_once(&self, error: &anyhow::Error) -> bool {
        error.is::<Refused>() && self.slots.len() == 1 && self.slots.iter().all(|s| s.begin.is_some() && !s.shown)
    }

    async fn handle_news(&mut self, news: News) {
        match news {
            News::Ready { index, info, begin } => {
                let Some(slot) = self.slots.get_mut(index) else { return };
                let descriptor = slot.plan.describe(&info);
                if slot.descriptor.as_ref().is_some_and(|d| *d != descriptor) && slot.binding.is_some() {
                    tracing::info!(feed = %slot.plan.feed, "the source is another than before: announcing the feed anew");
                    slot.forget();
                    if let Err(error) = self.api.withdraw(&descriptor.feed).await {
                        tracing::debug!(error = format!("{error:#}"), "the feed was not withdrawn");
                    }
                }
                slot.descriptor = Some(descriptor);
                slot.begin = Some(begin);
                if slot.is_ready() {
                    let _ = slot.begin.take().map(|b| b.send(()));
                }
            }
            News::Over { index, error } => {
                let Some(slot) = self.slots.get_mut(index) else { return };
                let feed = slot.plan.feed.clone();
                slot.over = true;
                slot.sender.bye();
                slot.detach();
                slot.sender.close_ledger();
                if let Some(error) = error {
                    println!("{feed}: {error}");
                    self.failed = Some(describe_failure(&slot.plan, error));
                }
                if slot.binding.take().is_some()
                    && let Err(error) = self.api.withdraw(&feed).await
                {
                    tracing::debug!(error = format!("{error:#}"), "the feed was not withdrawn");
                }
            }
        }
    }

    fn handle_relay(&mut self, road: &RoadName, heard: Heard) {
        let (relay, path) = road;
        match heard {
            Heard::Up(connection) => {
                for slot in self.slots.iter_mut().filter(|s| s.relay().as_ref() == Some(relay)) {
                    slot.attach(*path, connection.clone());
                }
                self.connections.insert(road.clone(), connection);
                self.grant();
                self.open_events();
            }
            Heard::Packet(flow, packet) => {
                let slot = self.slots.iter().find(|s| {
                    s.relay().as_ref() == Some(relay) && s.binding.as_ref().is_some_and(|b| b.rtcp_flow_id == flow)
                });
                let Some(slot) = slot else { return };
                slot.sender.handle_rtcp(*path, &packet);
                if Compound::new(&packet).any(|part| matches!(part, Rtcp::KeyFrameRequest { .. })) {
                    slot.link.key_frame.notify_one();
                }
            }
            Heard::Lost(error) => {
                tracing::warn!(relay = relay.0, path = self.path_name(*path), %error, "connection to the relay lost");
                self.connections.remove(road);
                for slot in self.slots.iter_mut().filter(|s| s.relay().as_ref() == Some(relay)) {
                    slot.sender.disconnect(*path);
                    // By the other path it goes on, and signaling has nothing to be asked.
                    slot.unsure |= slot.attached.remove(path) && slot.attached.is_empty();
                }
                self.leave_roads();
            }
            Heard::Failed(error) => {
                let error = format!("{error:#}");
                tracing::warn!(path = self.path_name(*path), error, "not everything is announced and connected");
            }
        }
    }

    fn path_name(&self, path: usize) -> &str {
        self.dialers.get(path).map_or("", |d| d.name())
    }

    /// After the first feed: what the socket first says is to have it.
    fn open_events(&mut self) {
        if self.events.is_none() && self.slots.iter().any(|s| !s.attached.is_empty()) {
            self.events = Some(crate::net::events::open(self.api.clone(), self.trust.clone(), true));
        }
    }

    fn handle_event(&mut self, event: Option<ServerEvent>) {
        for slot in self.slots.iter_mut().filter(|s| s.binding.is_some()) {
            let feed = &slot.plan.feed;
            let told = match &event {
                Some(ServerEvent::Welcome { session, .. }) => session.feed(feed).and_then(|f| f.paths),
                Some(ServerEvent::Feed { feed: told }) if told.descriptor.feed == *feed => told.paths,
                _ => None,
            };
            if let Some(paths) = told.filter(|p| slot.paths != Some(*p)) {
                slot.paths = Some(paths);
                println!("{feed}: {}", protection(paths));
            }
            let forgotten = match &event {
                Some(ServerEvent::Welcome { participant, session, .. }) => {
                    session.feed(feed).is_none_or(|f| f.publisher != *participant)
                }
                Some(ServerEvent::FeedRemoved { feed: gone }) => gone == feed,
                _ => false,
            };
            slot.unsure |= forgotten;
        }
    }

    /// Brings every feed to where it is announced and connected. What works for one does not wait for another.
    async fn settle(&mut self) -> anyhow::Result<()> {
        if self.slots.iter().any(|s| s.unsure && !s.over) {
            self.make_sure().await?;
        }
        let mut trouble = None;
        for index in 0..self.slots.len() {
            if let Err(error) = self.settle_one(index).await {
                trouble.get_or_insert(error);
            }
        }
        self.leave_roads();
        trouble.map_or(Ok(()), Err)
    }

    /// Asks signaling which feeds it still has of ours; after a restart it has neither the feeds nor us.
    async fn make_sure(&mut self) -> anyhow::Result<()> {
        let me = self.api.grant().participant;
        let session = match self.api.session().await {
            Ok(session) => Some(session),
            Err(e) if e.is::<Refused>() => {
                self.api.rejoin().await?;
                None
            }
            Err(e) => return Err(e),
        };
        for slot in self.slots.iter_mut().filter(|s| !s.over) {
            let has = session.as_ref().and_then(|s| s.feed(&slot.plan.feed)).is_some_and(|f| f.publisher == me);
            if !has && slot.binding.is_some() {
                tracing::warn!(feed = %slot.plan.feed, "signaling no longer has the feed; announcing it again");
                slot.forget();
            }
            slot.unsure = false;
        }
        Ok(())
    }

    /// A relay that is gone is not called for ever where every feed went elsewhere.
    fn leave_roads(&mut self) {
        let wanted: BTreeSet<RelayName> = self.slots.iter().filter_map(Slot::relay).collect();
        let (connections, unsettled) = (&self.connections, self.slots.iter().any(Slot::is_unsettled));
        self.roads.retain(|road, _| unsettled || wanted.contains(&road.0) || connections.contains_key(road));
    }

    async fn settle_one(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(slot) = self.slots.get(index).filter(|s| s.is_unsettled()) else { return Ok(()) };
        let Some(descriptor) = slot.descriptor.clone() else { return Ok(()) };
        let binding = match slot.binding.clone() {
            Some(binding) => binding,
            None => self.announce(&descriptor, slot.shown).await?,
        };
        let Some(slot) = self.slots.get_mut(index) else { return Ok(()) };
        slot.binding = Some(binding.clone());
        let Some(relay) = slot.relay() else { return Ok(()) };
        for (path, dialer) in self.dialers.iter().enumerate() {
            let road = (relay.clone(), path);
            match self.connections.get(&road) {
                Some(connection) => slot.attach(path, connection.clone()),
                None => {
                    let (dialer, out) = (Arc::clone(dialer), self.relays.0.clone());
                    let open = || Road::open(road.clone(), dialer, binding.clone(), out);
                    self.roads.entry(road.clone()).or_insert_with(open);
                }
            }
        }
        if slot.is_ready() {
            let _ = slot.begin.take().map(|b| b.send(()));
        }
        self.open_events();
        self.grant();
        Ok(())
    }

    /// Tells each connection's rate control what the feeds that go by it were granted. Said again each second: a connection that
    /// moved to another address begins anew.
    fn grant(&self) {
        for ((relay, _), connection) in &self.connections {
            let mine = self.slots.iter().filter(|s| !s.over && s.relay().as_ref() == Some(relay));
            let sum = mine.filter_map(|s| s.descriptor.as_ref()).map(|d| d.max_bitrate.0).sum();
            quic::set_granted(connection, Bitrate(sum));
        }
    }

    async fn announce(&mut self, descriptor: &FeedDescriptor, again: bool) -> anyhow::Result<RoqBinding> {
        let first = match self.api.publish(descriptor).await {
            Ok(binding) => return Ok(binding),
            Err(first) => first,
        };
        if again {
            tracing::debug!(error = format!("{first:#}"), "announcing as a new participant");
            self.api.rejoin().await?;
            for slot in &mut self.slots {
                slot.unsure |= slot.binding.is_some();
            }
            return self.api.publish(descriptor).await;
        }
        Err(first.context("the feed was not accepted"))
    }

    /// Once a second: sender reports, and what was sent.
    fn report(&mut self) {
        self.grant();
        for slot in self.slots.iter_mut().filter(|s| !s.over) {
            let sent = slot.sender.report(wall_now());
            let runs = sent.frames > 0 && slot.is_taken();
            if let (Some(d), Some(b), true, false) = (&slot.descriptor, &slot.binding, runs, slot.shown) {
                slot.shown = true;
                println!("publishing {} to {}", summary(d), b.relay);
            }
            tracing::info!(
                feed = %slot.plan.feed,
                frames = sent.frames,
                packets = sent.packets,
                not_sent = sent.frames_dropped,
                copies_not_sent = sent.copies_dropped,
                reset_late = sent.frames_late,
                repeated = slot.sender.repaired().0,
                redundancy = slot.sender.repaired().1,
                skipped = slot.link.skipped.load(Ordering::Relaxed),
                late = slot.link.slips.load(Ordering::Relaxed),
                "sent"
            );
            if let Some(proofs) = slot.sender.proofs() {
                tracing::info!(feed = %slot.plan.feed, proofs.reported, proofs.left_out, "reported to the gate");
            }
        }
    }

    /// Withdraws what is published, closes connections and ledgers.
    pub(super) async fn finish(&mut self) {
        for slot in self.slots.iter_mut().filter(|s| s.binding.is_some()) {
            if let Err(error) = self.api.withdraw(&slot.plan.feed).await {
                tracing::debug!(error = format!("{error:#}"), "the feed was not withdrawn");
            }
        }
        for slot in &self.slots {
            slot.sender.finish();
        }
        self.roads.clear();
        for connection in self.connections.values() {
            connection.close(error_code::NO_ERROR.into(), b"the publisher stops");
        }
        for dialer in &self.dialers {
            dialer.finish().await;
        }
    }
}

async fn next_event(events: &mut Option<Events>) -> Option<ServerEvent> {
    match events {
        Some(events) => events.events.recv().await.flatten(),
        None => std::future::pending().await,
    }
}

fn describe_failure(plan: &Plan, error: MediaError) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("{} {}", plan.option, plan.place()))
}

/// A feed in one line.
fn summary(d: &FeedDescriptor) -> String {
    let mbps = d.max_bitrate.0 as f64 / 1e6;
    let replay = if d.replay { " (replay)" } else { "" };
    match d.codec.as_str() {
        "opus" => format!("{} Opus{replay}", d.feed),
        "raw" | "jpeg2000" => {
            format!("{} {}x{}@{:.3} {} up to {mbps:.1} Mbit/s{replay}", d.feed, d.width, d.height, d.fps, d.codec)
        }
        codec => {
            let codec = match codec {
                "H264" => "H.264",
                "H265" => "H.265",
                other => other,
            };
            format!("{} {}x{}@{:.3} {codec} {:.1} Mbit/s{replay}", d.feed, d.width, d.height, d.fps, mbps / 2.0)
        }
    }
}
