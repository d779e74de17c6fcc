//! Watching over RTP over QUIC, by one connection or by two that bring the same packets.

use super::origin::Origin;
use super::sink::{Line, PathsOf, Sink};
use super::{Until, WatchArgs};
use crate::net::api::{Api, Refused, wall_now};
use crate::net::events::{self, Events};
use crate::net::link::InvitationLink;
use crate::net::path;
use crate::net::road::{Heard, Road};
use crate::net::roq::Dialer;
use crate::repair::ViewerRepair;
use crate::stop::Stop;
use anyhow::Context;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use trocar_proto::media::ext::{ABS_CAPTURE_TIME_URI, ExtensionIds, FRAME_URI};
use trocar_proto::media::paths::{PathMerge, Seen, silence_us};
use trocar_proto::media::receive::{FrameEvent, FrameReceiver};
use trocar_proto::media::roq::{FlowPrefix, error_code};
use trocar_proto::media::rtcp::{Builder, Compound, Rtcp, ntp_middle};
use trocar_proto::media::rtp::Header;
use trocar_proto::session::api::{FeedInfo, FeedPaths, LegRequest, RoqBinding};
use trocar_proto::session::event::{LegState, ServerEvent};
use trocar_proto::session::feed::RoqMode;
use trocar_proto::units::{FlowId, Micros, Ssrc};
use trocar_relay::frames::datagram;

/// Packets that wait between the connections' tasks and the receiver. Loss policy: reading waits, and QUIC drops the oldest
/// datagrams.
const PACKETS: usize = 4_096;
/// How soon to look again while packets are missing.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

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
    let paths = path::paths(&args.path, "--path")?;
    let how = LegRequest { mode: args.roq_mode.into(), paths: if paths.len() > 1 { 2 } else { 1 } };
    let trust = identity.trust.clone();
    let dialers = Dialer::for_paths(identity, &paths)?;
    let api = Api::join(link, &trust, Some(cnf), &args.name).await?;
    let _fresh = api.keep_fresh();
    let events = events::open(api.clone(), trust, false);
    let mut watcher = Watcher { args, how, until, sink, feed: None, dialers, api, events };
    while watcher.one_leg(stop).await? {}
    for dialer in &watcher.dialers {
        dialer.finish().await;
    }
    Ok(())
}

struct Watcher<'a> {
    args: &'a WatchArgs,
    how: LegRequest,
    until: Until,
    api: Api,
    events: Events,
    sink: &'a mut Sink,
    /// One for each path.
    dialers: Vec<Arc<Dialer>>,
    feed: Option<FeedInfo>,
}

/// The sender's last report, for ours.
type LastReport = Option<(u32, Instant)>;

/// What the roads of a leg say.
type Roads = mpsc::Receiver<(usize, Heard)>;

/// One leg under way.
struct Reading {
    receiver: FrameReceiver,
    merge: PathMerge,
    /// Where the leg comes by datagrams.
    repair: Option<ViewerRepair>,
    /// The connections that are open, by path.
    lines: Vec<Option<quinn::Connection>>,
    /// How many paths have brought packets, where two are to.
    paths: Option<FeedPaths>,
    rtcp_prefix: FlowPrefix,
    last_sr: LastReport,
    clock_rate: u32,
    /// A first connection was there.
    begun: bool,
    since_report: Option<Instant>,
}

impl Watcher<'_> {
    /// Waits for the feed, fetches it, and reads it to its end. False when the watching is over.
    async fn one_leg(&mut self, stop: &Stop) -> anyhow::Result<bool> {
        if !self.await_feed(stop).await? {
            return Ok(false);
        }
        let binding = match self.api.view(&self.args.feed, self.how).await {
            Ok(b) => b,
            Err(error) => return self.again_after(&error, stop).await,
        };
        let result = self.receive(&binding, stop).await;
        // Whatever became of it: a leg that is kept counts against the relay's limit.
        self.give_back(&binding).await;
        let (mut reading, result) = match result {
            Ok((reading, go_on)) => (Some(reading), go_on),
            Err(error) => (None, Err(error)),
        };
        for connection in reading.iter_mut().flat_map(|r| r.lines.drain(..)).flatten() {
            connection.close(error_code::NO_ERROR.into(), b"the viewer leaves");
        }
        match result {
            Err(error) => self.again_after(&error, stop).await,
            go_on => go_on,
        }
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

    /// Reads the leg's connections and adds them to the figures. With what is left of the leg comes false when the watching is
    /// over, true when the leg ended and another may follow.
    async fn receive(&mut self, binding: &RoqBinding, stop: &Stop) -> anyhow::Result<(Reading, anyhow::Result<bool>)> {
        let d = &binding.feed;
        let ids = ExtensionIds {
            frame: d.extension_id(FRAME_URI).unwrap_or(0),
            abs_capture_time: d.extension_id(ABS_CAPTURE_TIME_URI).unwrap_or(0),
            ..ExtensionIds::default()
        };
        let mut reading = Reading {
            receiver: FrameReceiver::new(ids, d.clock_rate),
            merge: PathMerge::default(),
            repair: ViewerRepair::new(d, self.how.mode, self.how.paths),
            lines: vec![None; self.dialers.len()],
            paths: None,
            rtcp_prefix: FlowPrefix::new(binding.rtcp_flow_id).context("rtcp_flow_id is above 2^62")?,
            last_sr: None,
            clock_rate: d.clock_rate,
            begun: false,
            since_report: None,
        };
        if self.how.mode == RoqMode::Stream {
            // Nothing is asked for again: QUIC repeats it, or resets the frame when this is over.
            reading.receiver.set_budget(u64::from(d.budget_ms) * 1_000);
        }
        self.sink.show_as(&d.codec, &d.fmtp, d.clock_rate)?;
        let (out, mut heard) = mpsc::channel(PACKETS);
        let dialers = self.dialers.iter().enumerate();
        let _roads: Vec<Road> =
            dialers.map(|(path, d)| Road::open(path, Arc::clone(d), binding.clone(), out.clone())).collect();
        // Has no way out but its value, so that the leg is counted exactly once.
        let go_on = self.read(&mut heard, binding, &mut reading, stop).await;
        let again = !matches!(go_on, Ok(false));
        if again {
            reading.receiver.give_up_pending();
        } else {
            reading.receiver.leave();
        }
        self.take_frames(&mut reading);
        if let Some(c) = reading.repair.as_ref().map(ViewerRepair::counters) {
            let (nack, fec) = (c.nack, c.fec);
            tracing::info!(nack.asked, nack.recovered, nack.given_up, fec.restored, fec.useless, c.late, "repair");
        }
        if reading.begun {
            self.sink.end_leg(reading.receiver.counters(), again.then_some("the leg ended"));
        }
        Ok((reading, go_on))
    }

    /// The loop of [`Self::receive`], with its answer.
    async fn read(
        &mut self,
        heard: &mut Roads,
        binding: &RoqBinding,
        reading: &mut Reading,
        stop: &Stop,
    ) -> anyhow::Result<bool> {
        let mut tick = tokio::time::interval(Sink::TICK);
        let mut failed = vec![false; self.dialers.len()];
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(false),
                Some((path, heard)) = heard.recv() => match heard {
                    Heard::Packet(flow, packet) => {
                        self.handle_packet(path, flow, &packet, binding, reading);
                        if self.sink.is_done() {
                            return Ok(false);
                        }
                    }
                    Heard::Up(connection) => self.handle_up(path, connection, binding, reading),
                    Heard::Lost(error) => {
                        tracing::warn!(path = self.path_name(path), %error, "connection to the relay lost");
                        reading.set_line(path, None);
                        if reading.lines.iter().all(Option::is_none) {
                            return Ok(true);
                        }
                    }
                    Heard::Failed(error) => {
                        failed.iter_mut().skip(path).take(1).for_each(|f| *f = true);
                        if failed.iter().all(|f| *f) && reading.lines.iter().all(Option::is_none) {
                            return Err(error);
                        }
                        let error = format!("{error:#}");
                        tracing::warn!(path = self.path_name(path), error, "no connection by this path");
                    }
                },
                event = self.events.events.recv() => {
                    let event = event.flatten();
                    let is_closed = is_closed(event.as_ref(), binding);
                    self.handle_event(event);
                    if is_closed || self.feed.is_none() {
                        return Ok(true);
                    }
                }
                _ = tick.tick() => if self.tick(reading) {
                    return Ok(false);
                },
                () = tokio::time::sleep(LOOK_AGAIN), if reading.is_waiting() => self.repair(reading),
                () = self.until.reached() => return Ok(false),
            }
        }
    }

    fn path_name(&self, path: usize) -> &str {
        self.dialers.get(path).map_or("", |d| d.name())
    }

    /// A connection is open: our report tells the relay that the leg is to go there.
    fn handle_up(&mut self, path: usize, connection: quinn::Connection, binding: &RoqBinding, reading: &mut Reading) {
        if !std::mem::replace(&mut reading.begun, true) {
            let first = binding.leg.clone().map(|leg| self.events.first_shown(leg));
            self.sink.begin_leg(first);
        }
        reading.merge.begin(path);
        reading.set_line(path, Some(connection));
        reading.send_report();
    }

    /// What comes by the clock; true where the watching is over.
    fn tick(&mut self, reading: &mut Reading) -> bool {
        let rtt = reading.line().map(quinn::Connection::rtt);
        let line = Line {
            jitter_us: reading.begun.then(|| reading.jitter_us()),
            rtt_us: rtt.and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
        };
        let second = reading.since_report.is_none_or(|t: Instant| t.elapsed() >= Duration::from_millis(990));
        if second && reading.begun {
            reading.send_report();
        }
        self.watch_paths(reading);
        self.sink.tick(reading.receiver.counters(), self.feed.as_ref(), line, second);
        self.sink.is_done()
    }

    /// Says how many paths bring the leg, where two are to; a feed that stands still has an alarm of its own.
    fn watch_paths(&mut self, reading: &mut Reading) {
        if self.how.paths < 2 || reading.merge.freshest().is_none() {
            return;
        }
        let fps = self.feed.as_ref().map_or(0.0, |f| f.descriptor.fps);
        let told = reading.merge.alive_to_tell(self.sink.now(), silence_us(fps), self.how.paths);
        let Some(alive) = told else { return };
        if alive > 0 && reading.paths.is_none_or(|p| p.alive != alive) {
            let paths = FeedPaths { expected: self.how.paths, alive, since: wall_now() };
            reading.paths = Some(paths);
            self.sink.paths(PathsOf::Leg, paths);
        }
    }

    fn handle_packet(&mut self, path: usize, flow: FlowId, packet: &[u8], binding: &RoqBinding, reading: &mut Reading) {
        if flow == binding.rtcp_flow_id {
            for part in Compound::new(packet) {
                match part {
                    Rtcp::SenderReport(sr, _) => reading.last_sr = Some((ntp_middle(sr.ntp), Instant::now())),
                    // What is still on its way by the other path is waited for until the feed is said to be gone.
                    Rtcp::Bye(sources) => {
                        tracing::info!(sources = ?sources.collect::<Vec<_>>(), "the source says goodbye")
                    }
                    _ => {}
                }
            }
        } else if flow == binding.rtp_flow_id && reading.take_redundancy(self.sink.now(), packet) {
            self.take_frames(reading);
        } else if flow == binding.rtp_flow_id && self.is_first(path, packet, reading) {
            let now = self.sink.now();
            let Reading { receiver, repair, .. } = reading;
            match repair {
                Some(repair) => repair.handle_packet(packet, |p| receiver.handle_packet(now, p)),
                None => receiver.handle_packet(now, packet),
            }
            self.repair(reading);
        }
    }

    /// Asks for what is missing, and gives up what is late.
    fn repair(&mut self, reading: &mut Reading) {
        reading.ask();
        reading.receiver.handle_timeout(self.sink.now());
        self.take_frames(reading);
    }

    /// Whether a packet is for the receiver: on a leg of two paths the first copy alone.
    fn is_first(&self, path: usize, packet: &[u8], reading: &mut Reading) -> bool {
        let Ok(h) = Header::parse(packet) else { return true };
        let seen = reading.merge.handle_packet(self.sink.now(), path, h.ssrc, h.seq);
        self.how.paths < 2 || seen == Seen::First
    }

    fn take_frames(&mut self, reading: &mut Reading) {
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
                FrameEvent::Skipped { .. } => self.sink.skipped(),
            }
        }
        if self.sink.wants_key_frame(false) {
            reading.request_key_frame();
        }
    }
}

/// Whether signaling says that the leg is over: its relay is gone, or somebody took it away.
fn is_closed(event: Option<&ServerEvent>, binding: &RoqBinding) -> bool {
    matches!(event, Some(ServerEvent::Leg { leg, state: LegState::Closed }) if binding.leg.as_ref() == Some(leg))
}

impl Reading {
    /// Whether something is due sooner than the tick.
    fn is_waiting(&self) -> bool {
        self.repair.as_ref().is_some_and(ViewerRepair::is_waiting) || self.receiver.next_wakeup().is_some()
    }

    /// Whether the packet is redundancy; what it brings back is received.
    fn take_redundancy(&mut self, now: Micros, packet: &[u8]) -> bool {
        let Self { receiver, repair: Some(repair), .. } = self else { return false };
        repair.take_redundancy(packet, |p| receiver.handle_packet(now, p))
    }

    /// Sends what the relay is to be told now, by the path that lives.
    fn ask(&mut self) {
        let line = self.line().cloned();
        let Self { receiver, repair: Some(repair), rtcp_prefix, .. } = self else { return };
        receiver.set_budget(repair.patience_us(line.as_ref()));
        repair.poll(line.as_ref(), Ssrc(1), |rtcp| {
            if let Some(line) = &line {
                // Loss policy: what is not taken is asked for again a round trip later.
                let _ = line.send_datagram(datagram(*rtcp_prefix, rtcp));
            }
        });
    }

    fn jitter_us(&self) -> u64 {
        let ticks = u64::from(self.receiver.jitter());
        (ticks * 1_000_000).checked_div(u64::from(self.clock_rate)).unwrap_or(0)
    }

    fn set_line(&mut self, path: usize, line: Option<quinn::Connection>) {
        if let Some(slot) = self.lines.get_mut(path) {
            *slot = line;
        }
    }

    /// The connection that brought something last.
    fn line(&self) -> Option<&quinn::Connection> {
        let fresh = self.merge.freshest().and_then(|p| self.lines.get(p)?.as_ref());
        fresh.or_else(|| self.lines.iter().flatten().next())
    }

    /// Our report, by every line: the leg goes to the connections that we are heard by.
    fn send_report(&mut self) {
        self.since_report = Some(Instant::now());
        let (sr, delay) = self.last_sr.map_or((0, 0), |(sr, at)| {
            (sr, u32::try_from(at.elapsed().as_micros() * 65_536 / 1_000_000).unwrap_or(u32::MAX))
        });
        let block = self.receiver.poll_report(sr, delay);
        let rtcp = Builder::default().receiver_report(Ssrc(1), block.as_ref()).finish();
        for line in self.lines.iter().flatten() {
            // Loss policy: a report that does not go out is followed by another in a second.
            let _ = line.send_datagram(datagram(self.rtcp_prefix, &rtcp));
        }
    }

    fn request_key_frame(&self) {
        let Some(media) = self.receiver.source() else { return };
        let rtcp = Builder::default().receiver_report(Ssrc(1), None).pli(Ssrc(1), media).finish();
        self.send(&rtcp);
    }

    /// By the path that lives. Loss policy: what is not taken is asked for again half a second later.
    fn send(&self, rtcp: &[u8]) {
        if let Some(line) = self.line() {
            let _ = line.send_datagram(datagram(self.rtcp_prefix, rtcp));
        }
    }
}
