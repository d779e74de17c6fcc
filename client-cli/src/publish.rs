//! `trocar publish`: pictures from a source over RoQ to the relay, until it is told to stop.

use crate::media::{self, EncodeSettings, Frame, Geometry, Running, SourceEvent, SourceInfo, SourceSpec};
use crate::net::api::{Api, wall_now};
use crate::net::events::{self, Events};
use crate::net::link::InvitationLink;
use crate::net::roq::Dialer;
use crate::net::tls::IdentityArgs;
use crate::sender::Sender;
use crate::stop::Stop;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use trocar_proto::media::ext::{ABS_CAPTURE_TIME_URI, ExtensionIds, FRAME_URI};
use trocar_proto::media::roq;
use trocar_proto::media::rtcp::{Compound, Rtcp};
use trocar_proto::session::api::RoqBinding;
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Purpose, RoqMode, Transport};
use trocar_proto::session::ids::FeedId;
use trocar_proto::units::Bitrate;

/// Publish a picture into a session.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PublishArgs {
    /// Invitation link of role local or expert.
    #[arg(long, value_name = "LINK")]
    invite: InvitationLink,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Where the picture comes from: `test`, `test:1920x1080@60` or `file:PATH`.
    #[arg(long, default_value = "test")]
    source: SourceSpec,
    /// Size of a `test` source: auto (the largest that this machine encodes live), 720p, 1080p, 2160p or WIDTHxHEIGHT@FPS.
    #[arg(long, value_name = "SIZE")]
    size: Option<Size>,
    /// Begin a file again at its end.
    #[arg(long = "loop")]
    looped: bool,
    /// Send a file's H.264 as it is, without decoding it.
    #[arg(long)]
    passthrough: bool,
    /// Bit rate of the encoder, in Mbit/s; by size where left out.
    #[arg(long, value_name = "MBPS")]
    bitrate: Option<f64>,
    /// Name of the feed.
    #[arg(long, default_value = "scope")]
    feed: FeedId,
    /// What it shows: scope, room or secondary.
    #[arg(long, default_value = "scope")]
    purpose: PurposeArg,
    /// How the publisher is called in the session.
    #[arg(long, default_value = "Operating room")]
    name: String,
    /// Write one JSON line per frame (frame id, SHA-256 of its RTP payloads), to be compared with a viewer's.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PurposeArg {
    Scope,
    Room,
    Secondary,
}

/// What `--size` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Auto,
    Fixed(Geometry),
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let fixed = |width, height, fps| Ok(Self::Fixed(Geometry { width, height, fps }));
        match s {
            "auto" => Ok(Self::Auto),
            "720p" => fixed(1280, 720, 30),
            "1080p" => fixed(1920, 1080, 60),
            "2160p" => fixed(3840, 2160, 30),
            other => other
                .parse()
                .map(Self::Fixed)
                .map_err(|e| format!("{e}; a size is auto, 720p, 1080p, 2160p or WIDTHxHEIGHT@FPS")),
        }
    }
}

/// The source as it will run: options applied, sizes probed.
fn resolve(args: &PublishArgs) -> anyhow::Result<(SourceSpec, EncodeSettings)> {
    let spec = match (&args.source, args.size) {
        (SourceSpec::Test(_), Some(Size::Auto)) => SourceSpec::Test(media::probe_largest_live_size()?),
        (SourceSpec::Test(_), Some(Size::Fixed(g))) => SourceSpec::Test(g),
        (SourceSpec::File { .. }, Some(_)) => bail!("--size goes with --source test; a file has its own size"),
        (s, None) => s.clone().with_file_options(args.looped, args.passthrough),
    };
    let mut settings = EncodeSettings::default();
    if let SourceSpec::Test(g) = &spec {
        // A tenth of a bit per pixel is visually clean for this scene; bounded to what one line carries.
        settings.bitrate_bps = u32::try_from(g.pixel_rate() / 10).unwrap_or(u32::MAX).clamp(2_000_000, 40_000_000);
    }
    if let Some(mbps) = args.bitrate {
        if !(0.1..=400.0).contains(&mbps) {
            bail!("--bitrate is 0.1 to 400 Mbit/s, not {mbps}");
        }
        settings.bitrate_bps = (mbps * 1e6) as u32;
    }
    Ok((spec, settings))
}

fn describe(args: &PublishArgs, info: &SourceInfo) -> FeedDescriptor {
    let ids = ExtensionIds::OURS;
    FeedDescriptor {
        feed: args.feed.clone(),
        source: args.feed.to_string(),
        view: "overview".to_owned(),
        kind: MediaKind::Video,
        purpose: match args.purpose {
            PurposeArg::Scope => Purpose::Scope,
            PurposeArg::Room => Purpose::Room,
            PurposeArg::Secondary => Purpose::Secondary,
        },
        codec: "H264".to_owned(),
        fmtp: info.fmtp(),
        clock_rate: media::CLOCK_RATE,
        payload_type: media::PAYLOAD_TYPE,
        width: info.width,
        height: info.height,
        fps: info.fps,
        // Twice the mean: key frames come in bursts, and the grant is what the relay sizes its ring by.
        max_bitrate: Bitrate(info.bits_per_second.saturating_mul(2).max(1_000_000)),
        budget_ms: 200,
        header_extensions: BTreeMap::from([
            (FRAME_URI.to_owned(), ids.frame),
            (ABS_CAPTURE_TIME_URI.to_owned(), ids.abs_capture_time),
        ]),
        priority: 0,
        protected: false,
        replay: info.replay,
        transport: Transport::Roq { mode: RoqMode::Datagram, rtp_flow_id: None, rtcp_flow_id: None },
    }
}

/// Publishes until a signal or the end of a file.
pub(crate) async fn run(args: PublishArgs) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    let identity = args.identity.load()?;
    let cnf = identity.chain.first().map(|c| trocar_relay::quic::cert_hash(c)).context("--cert has no certificate")?;
    let trust = identity.trust.clone();
    let for_source = args.clone();
    let prepared = tokio::task::spawn_blocking(move || {
        let (spec, settings) = resolve(&for_source)?;
        Ok::<_, anyhow::Error>(media::prepare(&spec, &settings)?)
    })
    .await??;
    let descriptor = describe(&args, prepared.info());

    let api = Api::join(args.invite.clone(), &trust, cnf, &args.name).await?;
    let _fresh = api.keep_fresh();
    let binding = api.publish(&descriptor).await.context("the feed was not accepted")?;
    // After the feed: what the socket first says is to have it.
    let events = events::open(api.clone(), trust, true);
    let dialer = Dialer::new(identity, &binding)?;

    let sender = Arc::new(Sender::new(args.ledger.as_deref())?);
    let sink = Arc::clone(&sender);
    let running = prepared.start(Box::new(move |frame: Frame| sink.send(&frame)))?;
    let mut publisher = Publisher { api, descriptor, binding, dialer, sender, running, events, announced: false };
    let result = publisher.serve(&stop).await;
    publisher.finish().await;
    result
}

struct Publisher {
    api: Api,
    descriptor: FeedDescriptor,
    binding: RoqBinding,
    dialer: Dialer,
    sender: Arc<Sender>,
    running: Running,
    events: Events,
    announced: bool,
}

/// Why one connection ended.
#[derive(PartialEq, Eq)]
enum Ended {
    /// For good.
    Done,
    /// The connection is gone, or signaling no longer has the feed.
    Lost,
}

impl Publisher {
    async fn serve(&mut self, stop: &Stop) -> anyhow::Result<()> {
        let mut wait = Duration::from_millis(100);
        loop {
            let ended = match self.dialer.connect(&self.binding).await {
                Ok(connection) => {
                    wait = Duration::from_millis(100);
                    self.carry(&connection, stop).await?
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "no connection to the relay");
                    Ended::Lost
                }
            };
            if ended == Ended::Done {
                // The sender keeps the connection: finish closes it, with the reason.
                return Ok(());
            }
            self.sender.disconnect();
            tokio::select! {
                () = stop.requested() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(Duration::from_secs(2));
            if let Err(error) = self.announce_again().await {
                tracing::warn!(error = format!("{error:#}"), "the feed is not announced");
            }
        }
    }

    /// Makes sure that signaling has the feed; after a restart it has neither the feed nor us.
    async fn announce_again(&mut self) -> anyhow::Result<()> {
        let me = self.api.grant().participant;
        match self.api.session().await {
            Ok(s) if s.feed(&self.descriptor.feed).is_some_and(|f| f.publisher == me) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.is::<crate::net::api::Refused>() => self.api.rejoin().await?,
            Err(e) => return Err(e),
        }
        if let Err(first) = self.api.publish(&self.descriptor).await.map(|b| self.binding = b) {
            tracing::debug!(error = format!("{first:#}"), "announcing as a new participant");
            self.api.rejoin().await?;
            self.binding = self.api.publish(&self.descriptor).await?;
        }
        Ok(())
    }

    /// Sends over one connection until it ends.
    async fn carry(&mut self, connection: &quinn::Connection, stop: &Stop) -> anyhow::Result<Ended> {
        self.sender.connect(connection.clone(), &self.binding)?;
        self.running.request_key_frame();
        let mut report = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(Ended::Done),
                datagram = connection.read_datagram() => match datagram {
                    Ok(d) => self.handle_rtcp(&d),
                    Err(error) => {
                        tracing::warn!(%error, "connection to the relay lost");
                        return Ok(Ended::Lost);
                    }
                },
                event = self.running.next_event() => match event {
                    Some(SourceEvent::Error(error)) => return Err(error.into()),
                    Some(SourceEvent::EndOfStream) | None => return Ok(Ended::Done),
                    Some(SourceEvent::Restarted { rounds }) => tracing::info!(rounds, "the file begins again"),
                },
                event = self.events.events.recv() => {
                    if self.is_forgotten(event.flatten()) {
                        tracing::warn!("signaling no longer has the feed; announcing it again");
                        return Ok(Ended::Lost);
                    }
                }
                _ = report.tick() => self.report(),
            }
        }
    }

    fn handle_rtcp(&self, datagram: &[u8]) {
        let Some((flow, packet)) = roq::split(datagram) else { return };
        if flow != self.binding.rtcp_flow_id {
            return;
        }
        for part in Compound::new(packet) {
            if matches!(part, Rtcp::KeyFrameRequest { .. }) && !self.running.request_key_frame() {
                tracing::debug!("a key frame is wanted; this source has them only where it has them");
            }
        }
    }

    fn is_forgotten(&self, event: Option<ServerEvent>) -> bool {
        let feed = &self.descriptor.feed;
        match event {
            Some(ServerEvent::Welcome { participant, session, .. }) => {
                session.feed(feed).is_none_or(|f| f.publisher != participant)
            }
            Some(ServerEvent::FeedRemoved { feed: gone }) => &gone == feed,
            _ => false,
        }
    }

    /// Once a second: a sender report, and what was sent.
    fn report(&mut self) {
        let source = self.running.stats();
        let sent = self.sender.report(wall_now());
        if sent.frames > 0 && !self.announced {
            self.announced = true;
            let d = &self.descriptor;
            println!(
                "publishing {} {}x{}@{:.3} H.264 {:.1} Mbit/s{} to {}",
                d.feed,
                d.width,
                d.height,
                d.fps,
                d.max_bitrate.0 as f64 / 2e6,
                if d.replay { " (replay)" } else { "" },
                self.binding.relay
            );
        }
        tracing::info!(
            frames = sent.frames,
            packets = sent.packets,
            not_sent = sent.frames_dropped,
            skipped = source.skipped,
            late = source.slips,
            "sent"
        );
    }

    async fn finish(&mut self) {
        self.running.stop();
        let feed = self.descriptor.feed.clone();
        if let Err(error) = self.api.withdraw(&feed).await {
            tracing::debug!(error = format!("{error:#}"), "the feed was not withdrawn");
        }
        self.sender.finish();
        self.dialer.finish().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_names_or_numbers_and_what_is_neither_is_told_what_would_be() {
        assert_eq!("auto".parse(), Ok(Size::Auto));
        assert_eq!("2160p".parse(), Ok(Size::Fixed(Geometry { width: 3840, height: 2160, fps: 30 })));
        assert_eq!("640x360@25".parse(), Ok(Size::Fixed(Geometry { width: 640, height: 360, fps: 25 })));
        let e = "8k".parse::<Size>().unwrap_err();
        assert!(e.contains("auto, 720p, 1080p, 2160p or WIDTHxHEIGHT@FPS"), "{e}");
    }
}
