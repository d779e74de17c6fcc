//! What the feeds of one command share: the session, one QUIC connection to each relay, and the clock.

use super::plan::Plan;
use super::supervise::{Link, News};
use crate::media::MediaError;
use crate::net::api::{Api, Refused, wall_now};
use crate::net::events::Events;
use crate::net::roq::Dialer;
use crate::sender::Sender;
use crate::stop::Stop;
use anyhow::Context;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use trocar_proto::media::roq;
use trocar_proto::media::rtcp::{Compound, Rtcp};
use trocar_proto::session::api::RoqBinding;
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::feed::FeedDescriptor;
use trocar_relay::quic::Identity;

/// First and longest wait before signaling and relay are tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Datagrams from the relays that wait. Loss policy: what comes then is dropped; a key frame that is wanted is asked for
/// again.
const FROM_RELAYS: usize = 64;

/// Address and TLS name of a relay.
type RelayName = (String, String);

enum FromRelay {
    Datagram(RelayName, Bytes),
    Lost(RelayName, quinn::ConnectionError),
}

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
    /// The relay that the sender sends to.
    attached: Option<RelayName>,
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
            attached: None,
            begin: None,
            shown: false,
            over: false,
        }
    }

    /// Whether there is something to be done for it at signaling or relay.
    const fn is_unsettled(&self) -> bool {
        !self.over && self.descriptor.is_some() && (self.unsure || self.binding.is_none() || self.attached.is_none())
    }

    fn detach(&mut self) {
        self.sender.disconnect();
        self.attached = None;
    }

    fn forget(&mut self) {
        self.detach();
        self.binding = None;
    }
}

/// The publisher.
pub(super) struct Hub {
    api: Api,
    slots: Vec<Slot>,
    pub(super) news: mpsc::Receiver<News>,
    identity: Identity,
    dialer: Option<Dialer>,
    events: Option<Events>,
    connections: BTreeMap<RelayName, quinn::Connection>,
    relays: (mpsc::Sender<FromRelay>, mpsc::Receiver<FromRelay>),
    failed: Option<anyhow::Error>,
}

impl Hub {
    pub(super) fn new(api: Api, identity: Identity, slots: Vec<Slot>, news: mpsc::Receiver<News>) -> Self {
        Self {
            api,
            slots,
            news,
            identity,
            dialer: None,
            events: None,
            connections: BTreeMap::new(),
            relays: mpsc::channel(FROM_RELAYS),
            failed: None,
        }
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
                heard = self.relays.1.recv() => if let Some(heard) = heard { self.handle_relay(heard) },
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
                if !slot.is_unsettled() {
                    let _ = slot.begin.take().map(|b| b.send(()));
                }
            }
            News::Over { index, error } => {
                let Some(slot) = self.slots.get_mut(index) else { return };
                let feed = slot.plan.feed.clone();
                slot.over = true;
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

    fn handle_relay(&mut self, heard: FromRelay) {
        match heard {
            FromRelay::Datagram(relay, datagram) => {
                let Some((flow, packet)) = roq::split(&datagram) else { return };
                let slot = self.slots.iter().find(|s| {
                    s.attached.as_ref() == Some(&relay) && s.binding.as_ref().is_some_and(|b| b.rtcp_flow_id == flow)
                });
                let Some(slot) = slot else { return };
                if Compound::new(packet).any(|part| matches!(part, Rtcp::KeyFrameRequest { .. })) {
                    slot.link.key_frame.notify_one();
                }
            }
            FromRelay::Lost(relay, error) => {
                tracing::warn!(relay = relay.0, %error, "connection to the relay lost");
                self.connections.remove(&relay);
                for slot in self.slots.iter_mut().filter(|s| s.attached.as_ref() == Some(&relay)) {
                    slot.detach();
                    slot.unsure = true;
                }
            }
        }
    }

    fn handle_event(&mut self, event: Option<ServerEvent>) {
        for slot in self.slots.iter_mut().filter(|s| s.binding.is_some()) {
            let feed = &slot.plan.feed;
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

    async fn settle_one(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(slot) = self.slots.get(index).filter(|s| s.is_unsettled()) else { return Ok(()) };
        let Some(descriptor) = slot.descriptor.clone() else { return Ok(()) };
        let binding = match slot.binding.clone() {
            Some(binding) => binding,
            None => self.announce(&descriptor, slot.shown).await?,
        };
        let relay = (binding.relay.clone(), binding.server_name.clone());
        if let Some(slot) = self.slots.get_mut(index) {
            slot.binding = Some(binding.clone());
        }
        let connection = self.connection(&relay, &binding).await?;
        let Some(slot) = self.slots.get_mut(index) else { return Ok(()) };
        slot.sender.connect(connection, &binding)?;
        slot.attached = Some(relay);
        slot.link.key_frame.notify_one();
        let _ = slot.begin.take().map(|b| b.send(()));
        // After the first feed: what the socket first says is to have it.
        if self.events.is_none() {
            self.events = Some(crate::net::events::open(self.api.clone(), self.identity.trust.clone(), true));
        }
        Ok(())
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

    /// The connection to a relay, opened where there is none.
    async fn connection(&mut self, relay: &RelayName, to: &RoqBinding) -> anyhow::Result<quinn::Connection> {
        if let Some(connection) = self.connections.get(relay) {
            return Ok(connection.clone());
        }
        if self.dialer.is_none() {
            let Identity { chain, key, trust } = &self.identity;
            let identity = Identity { chain: chain.clone(), key: key.clone_key(), trust: trust.clone() };
            self.dialer = Some(Dialer::new(identity, to)?);
        }
        let dialer = self.dialer.as_ref().context("no socket")?;
        let connection = dialer.connect(to).await?;
        self.connections.insert(relay.clone(), connection.clone());
        tokio::spawn(listen(connection.clone(), relay.clone(), self.relays.0.clone()));
        Ok(connection)
    }

    /// Once a second: sender reports, and what was sent.
    fn report(&mut self) {
        for slot in self.slots.iter_mut().filter(|s| !s.over) {
            let sent = slot.sender.report(wall_now());
            if let (Some(d), Some(b), true, false) = (&slot.descriptor, &slot.binding, sent.frames > 0, slot.shown) {
                slot.shown = true;
                println!("publishing {} to {}", summary(d), b.relay);
            }
            tracing::info!(
                feed = %slot.plan.feed,
                frames = sent.frames,
                packets = sent.packets,
                not_sent = sent.frames_dropped,
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
        if let Some(dialer) = &self.dialer {
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

/// Reads what a relay says until the connection ends.
async fn listen(connection: quinn::Connection, relay: RelayName, out: mpsc::Sender<FromRelay>) {
    let error = loop {
        match connection.read_datagram().await {
            Ok(datagram) => drop(out.try_send(FromRelay::Datagram(relay.clone(), datagram))),
            Err(error) => break error,
        }
    };
    // Without a publisher there is nobody to tell.
    let _ = out.send(FromRelay::Lost(relay, error)).await;
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
