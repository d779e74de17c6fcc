//! Watching over RTP over QUIC.

use super::origin::Origin;
use super::sink::{Line, Sink};
use super::{Until, WatchArgs};
use crate::net::api::{Api, Refused};
use crate::net::events::{self, Events};
use crate::net::link::InvitationLink;
use crate::net::roq::Dialer;
use crate::stop::Stop;
use anyhow::Context;
use std::time::{Duration, Instant};
use trocar_proto::media::ext::{ABS_CAPTURE_TIME_URI, ExtensionIds, FRAME_URI};
use trocar_proto::media::receive::{FrameEvent, FrameReceiver};
use trocar_proto::media::roq::{self, FlowPrefix, error_code};
use trocar_proto::media::rtcp::{Builder, Compound, Rtcp, ntp_middle};
use trocar_proto::session::api::{FeedInfo, RoqBinding};
use trocar_proto::session::event::ServerEvent;
use trocar_proto::units::Ssrc;

/// Watches a feed of the session that the link leads into.
pub(super) async fn watch(
    args: &WatchArgs,
    link: InvitationLink,
    sink: &mut Sink,
    until: Until,
    stop: &Stop,
) -> anyhow::Result<()> {
    let identity = args.identity()?.load()?;
    let cnf =
        identity.chain.first().map(|c| trocar_control::trust::cert_hash(c)).context("--cert has no certificate")?;
    let trust = identity.trust.clone();
    let api = Api::join(link, &trust, Some(cnf), &args.name).await?;
    let _fresh = api.keep_fresh();
    let events = events::open(api.clone(), trust, false);
    let mut watcher = Watcher { args, until, sink, feed: None, dialer: None, api, events };
    let mut identity = Some(identity);
    while watcher.one_leg(&mut identity, stop).await? {}
    if let Some(d) = &watcher.dialer {
        d.finish().await;
    }
    Ok(())
}

struct Watcher<'a> {
    args: &'a WatchArgs,
    until: Until,
    api: Api,
    events: Events,
    sink: &'a mut Sink,
    dialer: Option<Dialer>,
    feed: Option<FeedInfo>,
}

/// The sender's last report, for ours.
type LastReport = Option<(u32, Instant)>;

/// One leg under way.
struct Reading {
    receiver: FrameReceiver,
    rtcp_prefix: FlowPrefix,
    last_sr: LastReport,
    clock_rate: u32,
}

impl Watcher<'_> {
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
        if error.downcast_ref::<Refused>().is_some_and(|r| r.0.status == 401) {
            self.api.rejoin().await?;
        }
        tokio::select! {
            () = stop.requested() => Ok(false),
            () = self.until.reached() => Ok(false),
            () = tokio::time::sleep(Duration::from_millis(300)) => Ok(true),
        }
    }

    /// Returns true when the feed is announced, false when the watching is over.
    async fn await_feed(&mut self, stop: &Stop) -> anyhow::Result<bool> {
        while self.feed.is_none() {
            tokio::select! {
                () = stop.requested() => return Ok(false),
                () = self.until.reached() => return Ok(false),
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
        let mut reading = Reading {
            receiver: FrameReceiver::new(ids, d.clock_rate),
            rtcp_prefix: FlowPrefix::new(binding.rtcp_flow_id).context("rtcp_flow_id is above 2^62")?,
            last_sr: None,
            clock_rate: d.clock_rate,
        };
        self.sink.show_as(&d.codec, &d.fmtp, d.clock_rate)?;
        self.sink.begin_leg();
        // Has no way out but its value, so that the leg is counted exactly once.
        let go_on = self.read(connection, binding, &mut reading, stop).await;
        if go_on {
            reading.receiver.give_up_pending();
        } else {
            reading.receiver.leave();
        }
        self.take_frames(connection, &mut reading);
        self.sink.end_leg(reading.receiver.counters(), go_on.then_some("the leg ended"));
        Ok(go_on)
    }

    /// The loop of [`Self::receive`], with its answer.
    async fn read(
        &mut self,
        connection: &quinn::Connection,
        binding: &RoqBinding,
        reading: &mut Reading,
        stop: &Stop,
    ) -> bool {
        let mut tick = tokio::time::interval(Sink::TICK);
        let mut since_report = None;
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return false,
                datagram = connection.read_datagram() => match datagram {
                    Ok(d) => {
                        self.handle_datagram(connection, &d, binding, reading);
                        if self.sink.is_done() {
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
                    let line = Line {
                        jitter_us: Some(reading.jitter_us()),
                        rtt_us: u64::try_from(connection.rtt().as_micros()).ok(),
                    };
                    let second = since_report.is_none_or(|t: Instant| t.elapsed() >= Duration::from_millis(990));
                    if second {
                        since_report = Some(Instant::now());
                        reading.send_report(connection);
                    }
                    self.sink.tick(reading.receiver.counters(), self.feed.as_ref(), line, second);
                    if self.sink.is_done() {
                        return false;
                    }
                }
                () = self.until.reached() => return false,
            }
        }
    }

    fn handle_datagram(
        &mut self,
        connection: &quinn::Connection,
        d: &[u8],
        binding: &RoqBinding,
        reading: &mut Reading,
    ) {
        let Some((flow, packet)) = roq::split(d) else { return };
        if flow == binding.rtcp_flow_id {
            for part in Compound::new(packet) {
                if let Rtcp::SenderReport(sr, _) = part {
                    reading.last_sr = Some((ntp_middle(sr.ntp), Instant::now()));
                }
            }
        } else if flow == binding.rtp_flow_id {
            reading.receiver.handle_packet(self.sink.now(), packet);
            self.take_frames(connection, reading);
        }
    }

    fn take_frames(&mut self, connection: &quinn::Connection, reading: &mut Reading) {
        while let Some(event) = reading.receiver.poll_event() {
            match event {
                FrameEvent::Complete(f) => {
                    let ours = *self.events.clock.borrow();
                    let origin = f
                        .capture
                        .zip(ours)
                        .zip(self.feed.as_ref())
                        .and_then(|((capture, ours), feed)| Origin::by_publisher(capture, feed, ours));
                    self.sink.complete(&f, origin);
                }
                FrameEvent::Lost { frame_id, packets } => self.sink.lost(frame_id, packets),
            }
        }
        if self.sink.wants_key_frame() {
            reading.request_key_frame(connection);
        }
    }
}

impl Reading {
    fn jitter_us(&self) -> u64 {
        let ticks = u64::from(self.receiver.jitter());
        (ticks * 1_000_000).checked_div(u64::from(self.clock_rate)).unwrap_or(0)
    }

    fn send_report(&mut self, connection: &quinn::Connection) {
        let (sr, delay) = self.last_sr.map_or((0, 0), |(sr, at)| {
            (sr, u32::try_from(at.elapsed().as_micros() * 65_536 / 1_000_000).unwrap_or(u32::MAX))
        });
        let block = self.receiver.poll_report(sr, delay);
        let rtcp = Builder::default().receiver_report(Ssrc(1), block.as_ref()).finish();
        self.send(connection, &rtcp);
    }

    fn request_key_frame(&self, connection: &quinn::Connection) {
        let Some(media) = self.receiver.source() else { return };
        let rtcp = Builder::default().receiver_report(Ssrc(1), None).pli(Ssrc(1), media).finish();
        self.send(connection, &rtcp);
    }

    /// Loss policy: a report that does not go out is followed by another in a second, a request by another half a second
    /// later.
    fn send(&self, connection: &quinn::Connection, rtcp: &[u8]) {
        let _ = connection.send_datagram([self.rtcp_prefix.as_bytes(), rtcp].concat().into());
    }
}
