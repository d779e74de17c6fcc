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
use trocar_proto::session::clock::Offset;
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::ids::FeedId;
use trocar_proto::units::{Micros, Ssrc, WallMicros};

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
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_hyphen_values = true)]
    duration: Option<Duration>,
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

/// Longest `--duration`.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3_600);

/// What `--duration` may say.
fn seconds(s: &str) -> Result<Duration, String> {
    let parsed = s.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    parsed
        .filter(|d| !d.is_zero() && *d <= LONGEST)
        .ok_or_else(|| format!("seconds above 0 and at most {} (30 days) are right", LONGEST.as_secs()))
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
    let after = |d| Instant::now().checked_add(d).context("--duration ends later than this machine can count");
    let deadline = args.duration.map(after).transpose()?;
    let api = Api::join(args.invite.clone(), &trust, cnf, &args.name).await?;
    let _fresh = api.keep_fresh();
    let events = events::open(api.clone(), trust, false);
    let mut watcher = Watcher {
        tally: Tally::new(&args.feed, args.json),
        ledger: args.ledger.as_deref().map(Ledger::create).transpose()?,
        deadline,
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
        let (connection, result) = match self.connect(identity, &binding).await {
            Ok(connection) => {
                let result = self.receive(&connection, &binding, stop).await;
                (Some(connection), result)
            }
            Err(error) => (None, Err(error)),
        };
        // Whatever became of it: a leg that is kept counts against the relay's limit.
        self.give_back(&binding).await;
        if let Some(connection) = connection {
            connection.close(error_code::NO_ERROR.into(), b"the viewer leaves");
        }
        match result {
            // Without a dialer there is nothing to try again with.
            Err(error) if self.dialer.is_some() => self.again_after(&error, stop).await,
            other => other,
        }
    }

    async fn connect(
        &mut self,
        identity: &mut Option<trocar_relay::quic::Identity>,
        binding: &RoqBinding,
    ) -> anyhow::Result<quinn::Connection> {
        if let Some(identity) = identity.take() {
            self.dialer = Some(Dialer::new(identity, binding)?);
        }
        self.dialer.as_ref().context("no dialer")?.connect(binding).await
    }

    async fn give_back(&self, binding: &RoqBinding) {
        if let Some(leg) = &binding.leg
            && let Err(error) = self.api.leave(leg).await
        {
            tracing::debug!(error = format!("{error:#}"), "the leg was not given back");
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

    /// Reads one connection and adds it to the figures. False when the watching is over, true when the leg ended and
    /// another may follow.
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
        self.tally.begin_leg();
        // Has no way out but its value, so that the leg is counted exactly once.
        let go_on = self.read(connection, binding, rtcp_prefix, &mut receiver, stop).await;
        self.tally.end_leg(receiver.counters());
        if go_on {
            self.tally.gap("the leg ended");
        }
        Ok(go_on)
    }

    /// The loop of [`Self::receive`], with its answer.
    async fn read(
        &mut self,
        connection: &quinn::Connection,
        binding: &RoqBinding,
        rtcp_prefix: FlowPrefix,
        receiver: &mut FrameReceiver,
        stop: &Stop,
    ) -> bool {
        let mut last_sr: LastReport = None;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return false,
                datagram = connection.read_datagram() => match datagram {
                    Ok(d) => {
                        self.handle_datagram(&d, binding, receiver, &mut last_sr);
                        if self.args.frames.is_some_and(|n| self.tally.frames() >= n) {
                            return false;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "connection to the relay lost");
                        return true;
                    }
                },
                event = self.events.events.recv() => {
                    self.handle_event(event.flatten());
                    if self.feed.is_none() {
                        return true;
                    }
                }
                // The first tick comes at once: our report tells the relay which connection the leg is to go to.
                _ = tick.tick() => {
                    send_report(connection, rtcp_prefix, receiver, last_sr);
                    self.tally.print_second(receiver.counters(), self.feed.as_ref());
                }
                () = Self::until_deadline(self.deadline) => return false,
            }
        }
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

    /// Age of a capture time now.
    fn age_of(&self, capture: WallMicros) -> Option<Ages> {
        age_between(capture, self.feed.as_ref()?, wall_now(), (*self.events.clock.borrow())?)
    }
}

/// Age of a capture time by the publisher's clock at `now` by ours, in microseconds with its uncertainty; none while one of
/// the two clocks is unknown, or how well the publisher knows its own.
fn age_between(capture: WallMicros, feed: &FeedInfo, now: WallMicros, ours: Offset) -> Option<Ages> {
    let on_server = capture.offset(feed.clock_offset_us?);
    Some(Ages {
        age_us: now.offset(ours.offset_us).signed_since(on_server),
        uncertainty_us: ours.uncertainty_us.saturating_add(feed.clock_uncertainty_us?),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        watch: WatchArgs,
    }

    #[test]
    fn a_duration_is_above_zero_and_at_most_thirty_days_and_what_is_not_is_told_what_would_be() {
        let secret = "x".repeat(43);
        let invite = format!("https://127.0.0.1:8000/#invitation={secret}");
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("2592000"), Ok(LONGEST));
        for bad in ["-1", "-0", "0", "nan", "inf", "-inf", "1e30", "1e-30", "2592001", "", "1s"] {
            let e = Line::try_parse_from(["t", "--invite", &invite, "--duration", bad]).unwrap_err().to_string();
            assert!(e.contains("above 0 and at most 2592000 (30 days)"), "{bad}: {e}");
        }
    }

    fn feed(clock_offset_us: Option<i64>, clock_uncertainty_us: Option<u64>) -> FeedInfo {
        serde_json::from_value(serde_json::json!({
            "publisher": "p",
            "state": "live",
            "since": 0,
            "clock_offset_us": clock_offset_us,
            "clock_uncertainty_us": clock_uncertainty_us,
            "descriptor": {
                "feed": "scope", "source": "s", "view": "v", "kind": "video", "purpose": "scope", "codec": "H264",
                "clock_rate": 90_000, "payload_type": 96, "max_bitrate": 1_000_000, "budget_ms": 200,
                "transport": "webrtc",
            },
        }))
        .unwrap()
    }

    #[test]
    fn an_age_has_both_uncertainties_and_is_unknown_while_one_of_them_is() {
        let (capture, now) = (WallMicros(1_000_000), WallMicros(1_050_000));
        let ours = Offset { offset_us: 2_000, uncertainty_us: 300 };
        let age = |feed: &FeedInfo| age_between(capture, feed, now, ours).map(|a| (a.age_us, a.uncertainty_us));
        assert_eq!(age(&feed(Some(-1_000), Some(200))), Some((53_000, 500)));
        assert_eq!(age(&feed(Some(-1_000), None)), None);
        assert_eq!(age(&feed(None, Some(200))), None);
        assert_eq!(age(&feed(Some(-1_000), Some(u64::MAX))), Some((53_000, u64::MAX)));
    }
}
