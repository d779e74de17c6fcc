//! `trocar watch`: feeds of a session over RoQ, with figures of what really came and how old it was.

use crate::ledger::{Ledger, digest};
use crate::net::api::{Api, wall_now};
use crate::net::events::{self, Events};
use crate::net::link::InvitationLink;
use crate::net::roq::Dialer;
use crate::net::tls::IdentityArgs;
use crate::stop::Stop;
use crate::tally::{Ages, Tally};
use anyhow::{Context, bail};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trocar_proto::media::ext::{ABS_CAPTURE_TIME_URI, ExtensionIds, FRAME_URI};
use trocar_proto::media::receive::{FrameEvent, FrameReceiver};
use trocar_proto::media::roq::{self, FlowPrefix, error_code};
use trocar_proto::media::rtcp::{Builder, Compound, Rtcp, ntp_middle};
use trocar_proto::session::api::{FeedInfo, RoqBinding};
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::ids::FeedId;
use trocar_proto::units::{Micros, Ssrc};

/// Watch a feed and measure it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WatchArgs {
    /// Invitation link.
    #[arg(long, value_name = "LINK")]
    invite: InvitationLink,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Name of the feed; waits for it where it is not published yet.
    #[arg(long, default_value = "scope")]
    feed: FeedId,
    /// Show figures only. (A window comes with a later version; until then this is needed.)
    #[arg(long)]
    headless: bool,
    /// JSON lines instead of text.
    #[arg(long)]
    json: bool,
    /// Stop after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// Stop after so many complete frames.
    #[arg(long, value_name = "N")]
    frames: Option<u64>,
    /// How the viewer is called in the session.
    #[arg(long, default_value = "Native viewer")]
    name: String,
    /// Write one JSON line per complete frame (frame id, SHA-256 of its RTP payloads).
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

/// Watches until a signal, or until what `--duration` and `--frames` say.
pub(crate) async fn run(args: WatchArgs) -> anyhow::Result<()> {
    if !args.headless {
        bail!("a window is not built yet: use --headless, or open the invitation link in a browser");
    }
    let stop = Stop::on_signals()?;
    let identity = args.identity.load()?;
    let cnf = identity.chain.first().map(|c| trocar_relay::quic::cert_hash(c)).context("--cert has no certificate")?;
    let trust = identity.trust.clone();
    let api = Api::join(args.invite.clone(), &trust, cnf, &args.name).await?;
    let _fresh = api.keep_fresh();
    let events = events::open(api.clone(), trust, false);
    let mut watcher = Watcher {
        tally: Tally::new(&args.feed, args.json),
        ledger: args.ledger.as_deref().map(Ledger::create).transpose()?,
        deadline: args.duration.map(Duration::from_secs_f64).map(|d| Instant::now() + d),
        origin: Instant::now(),
        feed: None,
        dialer: None,
        api,
        events,
        args,
    };
    let mut identity = Some(identity);
    while watcher.one_leg(&mut identity, &stop).await? {}
    watcher.tally.print_summary();
    if let Some(d) = &watcher.dialer {
        d.finish().await;
    }
    Ok(())
}

struct Watcher {
    args: WatchArgs,
    api: Api,
    events: Events,
    tally: Tally,
    ledger: Option<Ledger>,
    dialer: Option<Dialer>,
    feed: Option<FeedInfo>,
    deadline: Option<Instant>,
    origin: Instant,
}

/// The sender's last report, for ours.
type LastReport = Option<(u32, Instant)>;

impl Watcher {
    fn micros(&self, at: Instant) -> Micros {
        Micros(u64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(u64::MAX))
    }

    async fn until_deadline(deadline: Option<Instant>) {
        match deadline {
            Some(t) => tokio::time::sleep_until(t.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Waits for the feed, fetches it, and reads it to its end. False when the watching is over.
    async fn one_leg(
        &mut self,
        identity: &mut Option<trocar_relay::quic::Identity>,
        stop: &Stop,
    ) -> anyhow::Result<bool> {
        if !self.await_feed(stop).await? {
            return Ok(false);
        }
        let binding = match self.api.view(&self.args.feed).await {
            Ok(b) => b,
            Err(error) => return self.again_after(&error, stop).await,
        };
        if let Some(identity) = identity.take() {
            self.dialer = Some(Dialer::new(identity, &binding)?);
        }
        let dialer = self.dialer.as_ref().context("no dialer")?;
        match dialer.connect(&binding).await {
            Ok(connection) => {
                let go_on = self.receive(&connection, &binding, stop).await?;
                if let Some(leg) = &binding.leg
                    && let Err(error) = self.api.leave(leg).await
                {
                    tracing::debug!(error = format!("{error:#}"), "the leg was not given back");
                }
                connection.close(error_code::NO_ERROR.into(), b"the viewer leaves");
                Ok(go_on)
            }
            Err(error) => self.again_after(&error, stop).await,
        }
    }

    /// After a failure: says so, waits a moment, and joins anew where signaling has forgotten us.
    async fn again_after(&self, error: &anyhow::Error, stop: &Stop) -> anyhow::Result<bool> {
        tracing::warn!(error = format!("{error:#}"), "not watching");
        if error.downcast_ref::<crate::net::api::Refused>().is_some_and(|r| r.0.status == 401) {
            self.api.rejoin().await?;
        }
        tokio::select! {
            () = stop.requested() => Ok(false),
            () = Self::until_deadline(self.deadline) => Ok(false),
            () = tokio::time::sleep(Duration::from_millis(300)) => Ok(true),
        }
    }

    /// Returns true when the feed is announced, false when the watching is over.
    async fn await_feed(&mut self, stop: &Stop) -> anyhow::Result<bool> {
        while self.feed.is_none() {
            tokio::select! {
                () = stop.requested() => return Ok(false),
                () = Self::until_deadline(self.deadline) => return Ok(false),
                event = self.events.events.recv() => self.handle_event(event.flatten()),
            }
        }
        Ok(true)
    }

    fn handle_event(&mut self, event: Option<ServerEvent>) {
        let wanted = &self.args.feed;
        match event {
            Some(ServerEvent::Welcome { session, .. }) => self.feed = session.feed(wanted).cloned(),
            Some(ServerEvent::Feed { feed }) if &feed.descriptor.feed == wanted => self.feed = Some(feed),
            Some(ServerEvent::FeedRemoved { feed }) if &feed == wanted => self.feed = None,
            _ => {}
        }
    }

    /// Reads one connection. False when the watching is over, true when the leg ended and another may follow.
    async fn receive(
        &mut self,
        connection: &quinn::Connection,
        binding: &RoqBinding,
        stop: &Stop,
    ) -> anyhow::Result<bool> {
        let d = &binding.feed;
        let ids = ExtensionIds {
            frame: d.extension_id(FRAME_URI).unwrap_or(0),
            abs_capture_time: d.extension_id(ABS_CAPTURE_TIME_URI).unwrap_or(0),
        };
        let mut receiver = FrameReceiver::new(ids, d.clock_rate);
        let rtcp_prefix = FlowPrefix::new(binding.rtcp_flow_id).context("rtcp_flow_id is above 2^62")?;
        let mut last_sr: LastReport = None;
        self.tally.begin_leg();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(false),
                datagram = connection.read_datagram() => match datagram {
                    Ok(d) => {
                        self.handle_datagram(&d, binding, &mut receiver, &mut last_sr);
                        if self.args.frames.is_some_and(|n| self.tally.frames() >= n) {
                            self.tally.end_leg(receiver.counters());
                            return Ok(false);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "connection to the relay lost");
                        break;
                    }
                },
                event = self.events.events.recv() => {
                    self.handle_event(event.flatten());
                    if self.feed.is_none() {
                        break;
                    }
                }
                // The first tick comes at once: our report tells the relay which connection the leg is to go to.
                _ = tick.tick() => {
                    send_report(connection, rtcp_prefix, &mut receiver, last_sr);
                    self.tally.print_second(receiver.counters(), self.feed.as_ref());
                }
                () = Self::until_deadline(self.deadline) => {
                    self.tally.end_leg(receiver.counters());
                    return Ok(false);
                }
            }
        }
        self.tally.end_leg(receiver.counters());
        self.tally.gap("the leg ended");
        Ok(true)
    }

    fn handle_datagram(
        &mut self,
        d: &[u8],
        binding: &RoqBinding,
        receiver: &mut FrameReceiver,
        last_sr: &mut LastReport,
    ) {
        let Some((flow, packet)) = roq::split(d) else { return };
        let now = Instant::now();
        if flow == binding.rtcp_flow_id {
            for part in Compound::new(packet) {
                if let Rtcp::SenderReport(sr, _) = part {
                    *last_sr = Some((ntp_middle(sr.ntp), now));
                }
            }
        } else if flow == binding.rtp_flow_id {
            receiver.handle_packet(self.micros(now), packet);
            while let Some(event) = receiver.poll_event() {
                match event {
                    FrameEvent::Complete(f) => {
                        let age = f.capture.and_then(|c| self.age_of(c));
                        if let Some(l) = &mut self.ledger {
                            l.write(f.frame_id, &digest(f.payloads.iter().map(Vec::as_slice)));
                        }
                        self.tally.complete(&f, age);
                    }
                    FrameEvent::Lost { frame_id, packets } => self.tally.lost(frame_id, packets),
                }
            }
        }
    }

    /// Age of a capture time now, in microseconds with its uncertainty; none while one of the two clocks is unknown.
    fn age_of(&self, capture: trocar_proto::units::WallMicros) -> Option<Ages> {
        let ours = (*self.events.clock.borrow())?;
        let feed = self.feed.as_ref()?;
        let on_server = capture.offset(feed.clock_offset_us?);
        let now = wall_now().offset(ours.offset_us);
        Some(Ages {
            age_us: now.signed_since(on_server),
            uncertainty_us: ours.uncertainty_us + feed.clock_uncertainty_us.unwrap_or(0),
        })
    }
}

fn send_report(connection: &quinn::Connection, prefix: FlowPrefix, receiver: &mut FrameReceiver, last_sr: LastReport) {
    let (sr, delay) = last_sr.map_or((0, 0), |(sr, at)| {
        (sr, u32::try_from(at.elapsed().as_micros() * 65_536 / 1_000_000).unwrap_or(u32::MAX))
    });
    let block = receiver.poll_report(sr, delay);
    let rtcp = Builder::default().receiver_report(Ssrc(1), block.as_ref()).finish();
    // Loss policy: a report that does not go out is followed by another in a second.
    let _ = connection.send_datagram([prefix.as_bytes(), &rtcp].concat().into());
}
