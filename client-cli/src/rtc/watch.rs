//! Watching by WHEP.

use super::frames::{Assembler, Packet};
use super::peer::{Peer, PeerEvent};
use super::resource::{Bearer, Endpoint};
use super::{codec, kind_of};
use crate::net::api::{Api, Refused};
use crate::net::events::{self, Events};
use crate::net::link::InvitationLink;
use crate::stop::Stop;
use crate::watch::origin::{CaptureMap, Point};
use crate::watch::sink::{Line, Sink};
use crate::watch::{Until, WatchArgs};
use anyhow::{Context, bail};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use trocar_proto::media::receive::{FrameEvent, ReceiveCounters};
use trocar_proto::session::api::{FeedInfo, FeedState};
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::ids::LegId;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::RTCPeerConnectionState;

/// Packets between the connection and us. Loss policy: the connection's queue fills, and it drops; the figures show it.
const PACKETS: usize = 4_096;
/// Between a leg that ended and the next try.
const AGAIN: Duration = Duration::from_millis(300);

/// A packet of a track, with what the track carries.
struct Arrival {
    track: Arc<dyn TrackRemote>,
    codec: Option<(String, String, u32)>,
    packet: rtc::rtp::Packet,
}

/// Watches what a WHEP address gives, with no session around it: nobody tells capture times, so the age is unknown.
pub(crate) async fn by_address(endpoint: &Endpoint, sink: &mut Sink, until: Until, stop: &Stop) -> anyhow::Result<()> {
    let kinds = [RtpCodecKind::Video, RtpCodecKind::Audio];
    let mut leg = Leg::open(endpoint, &kinds).await?;
    let mut session = None;
    let go_on = leg.read(sink, &mut session, until, stop).await;
    leg.close(sink, None).await;
    match go_on? {
        Ended::Wanted => Ok(()),
        Ended::Lost(why) => bail!("{why}"),
    }
}

/// Watches a feed of the session that the link leads into: over its event socket come the capture times.
pub(crate) async fn by_invitation(
    args: &WatchArgs,
    link: InvitationLink,
    trust: Vec<CertificateDer<'static>>,
    sink: &mut Sink,
    until: Until,
    stop: &Stop,
) -> anyhow::Result<()> {
    let base = link.base.clone();
    let api = Api::join(link, &trust, None, &args.name).await?;
    let _fresh = api.keep_fresh();
    let events = events::open(api.clone(), trust.clone(), false);
    let mut session = Some(Session { args, events, feed: None, map: CaptureMap::default(), leg: None });
    let mut tries = tokio::time::interval(AGAIN);
    tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.requested() => return Ok(()),
            () = until.reached() => return Ok(()),
            found = wait_for_feed(session.as_mut(), sink) => found?,
        }
        // Each announcement is tried at once, and then three times a second.
        tries.tick().await;
        let path = format!("v1/sessions/{}/feeds/{}/whep", api.grant().session, args.feed);
        let endpoint = Endpoint::new(base.join(&path)?, Bearer::Joined(api.clone()), &trust)?;
        let feed = session.as_ref().and_then(|s| s.feed.as_ref());
        let kind = feed.map_or(RtpCodecKind::Video, |f| kind_of(f.descriptor.kind));
        let ended = match Leg::open(&endpoint, &[kind]).await {
            Ok(mut leg) => {
                let ended = leg.read(sink, &mut session, until, stop).await;
                leg.close(sink, (!matches!(ended, Ok(Ended::Wanted))).then_some("the leg ended")).await;
                ended
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(Ended::Wanted) => return Ok(()),
            Ok(Ended::Lost(why)) => tracing::warn!("{why}"),
            Err(error) => match error.downcast_ref::<Refused>().map(|r| r.0.status) {
                Some(401 | 403) => api.rejoin().await?,
                // Nothing that can be offered would do.
                Some(406) => return Err(error),
                _ => tracing::warn!(error = format!("{error:#}"), "not watching"),
            },
        }
    }
}

/// What the session tells.
struct Session<'a> {
    args: &'a WatchArgs,
    events: Events,
    feed: Option<FeedInfo>,
    map: CaptureMap,
    leg: Option<LegId>,
}

impl Session<'_> {
    fn handle_event(&mut self, event: Option<ServerEvent>) {
        let wanted = &self.args.feed;
        match event {
            Some(ServerEvent::Welcome { session, .. }) => self.feed = session.feed(wanted).cloned(),
            Some(ServerEvent::Feed { feed }) if &feed.descriptor.feed == wanted => self.feed = Some(feed),
            Some(ServerEvent::FeedRemoved { feed }) if &feed == wanted => self.feed = None,
            Some(ServerEvent::Capture { leg, rtp, clock_rate, capture, uncertainty_us, .. })
                if self.leg.as_ref() == Some(&leg) =>
            {
                self.map.handle_point(Point { rtp, clock_rate, capture, uncertainty_us });
            }
            _ => {}
        }
    }

    /// The next event of the session is taken.
    async fn turn(&mut self) {
        let event = self.events.events.recv().await.flatten();
        self.handle_event(event);
    }
}

/// Returns when the feed is announced.
async fn wait_for_feed(session: Option<&mut Session<'_>>, sink: &mut Sink) -> anyhow::Result<()> {
    let session = session.context("no session")?;
    let mut tick = tokio::time::interval(Sink::TICK);
    let mut ticks = 0_u64;
    while session.feed.is_none() {
        tokio::select! {
            () = session.turn() => {}
            _ = tick.tick() => {
                ticks += 1;
                sink.tick_as(ReceiveCounters::default(), None, Line::default(), ticks.is_multiple_of(4));
            }
        }
    }
    Ok(())
}

/// Why a leg ended.
enum Ended {
    /// As was asked for.
    Wanted,
    /// For this reason; another one may follow.
    Lost(String),
}

/// One connection and what comes by it.
struct Leg {
    peer: Peer,
    packets: mpsc::Receiver<Arrival>,
    assembler: Option<Assembler>,
    track: Option<Arc<dyn TrackRemote>>,
    ssrc: u32,
    clock_rate: u32,
}

impl Leg {
    async fn open(endpoint: &Endpoint, kinds: &[RtpCodecKind]) -> anyhow::Result<Self> {
        let (sender, packets) = mpsc::channel(PACKETS);
        let read = move |track| drop(tokio::spawn(follow(track, sender.clone())));
        let mut peer = Peer::new(&endpoint.url, codec::all()?, read).await?;
        for kind in kinds {
            peer.receive(*kind).await?;
        }
        if let Err(error) = peer.open(endpoint).await {
            peer.close().await;
            return Err(error);
        }
        Ok(Self { peer, packets, assembler: None, track: None, ssrc: 0, clock_rate: 90_000 })
    }

    async fn close(self, sink: &mut Sink, gap: Option<&str>) {
        let counters = self.assembler.as_ref().map_or_else(ReceiveCounters::default, Assembler::counters);
        sink.end_leg(counters, gap);
        self.peer.close().await;
    }

    /// Reads until something ends it.
    async fn read(
        &mut self,
        sink: &mut Sink,
        session: &mut Option<Session<'_>>,
        until: Until,
        stop: &Stop,
    ) -> anyhow::Result<Ended> {
        if let Some(s) = session.as_mut() {
            s.map.clear();
            s.leg = self.peer.resource.as_ref().and_then(super::resource::Resource::leg);
        }
        let first = session.as_ref().and_then(|s| Some(s.events.first_shown(s.leg.clone()?)));
        sink.begin_leg(first);
        let mut tick = tokio::time::interval(Sink::TICK);
        let mut second = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(Ended::Wanted),
                () = until.reached() => return Ok(Ended::Wanted),
                _ = tick.tick() => {
                    let over = second.elapsed() >= Duration::from_millis(990);
                    if over {
                        second = Instant::now();
                    }
                    self.tick(sink, session.as_ref(), over);
                    if sink.is_done() {
                        return Ok(Ended::Wanted);
                    }
                }
                event = self.peer.next_event() => match event {
                    Some(PeerEvent::State(s @ (RTCPeerConnectionState::Failed | RTCPeerConnectionState::Disconnected
                        | RTCPeerConnectionState::Closed))) => {
                        return Ok(Ended::Lost(format!("the WebRTC connection is {s}")));
                    }
                    Some(_) => {}
                    None => return Ok(Ended::Lost("the WebRTC connection ended".to_owned())),
                },
                () = next_turn(session) => {
                    if session.as_ref().is_some_and(|s| s.feed.is_none()) {
                        return Ok(Ended::Lost("the feed is gone".to_owned()));
                    }
                }
                arrival = self.packets.recv() => {
                    let Some(arrival) = arrival else { return Ok(Ended::Lost("the tracks ended".to_owned())) };
                    self.take(arrival, sink, session.as_ref())?;
                    if sink.is_done() {
                        return Ok(Ended::Wanted);
                    }
                    self.request_missing(sink).await;
                    if sink.wants_key_frame(self.assembler.as_ref().is_some_and(Assembler::waits_for_key_frame)) {
                        self.request_key_frame().await;
                    }
                }
            }
        }
    }

    fn tick(&self, sink: &mut Sink, session: Option<&Session<'_>>, second: bool) {
        let counters = self.assembler.as_ref().map_or_else(ReceiveCounters::default, Assembler::counters);
        let jitter_us = self
            .assembler
            .as_ref()
            .and_then(|a| (u64::from(a.jitter()) * 1_000_000).checked_div(u64::from(self.clock_rate)));
        // The crate measures no round trip of its connectivity checks.
        let line = Line { jitter_us, rtt_us: None };
        match session {
            Some(s) => sink.tick(counters, s.feed.as_ref(), line, second),
            // Nobody says what the feed does: it is live as long as something comes.
            None => sink.tick_as(counters, Some(FeedState::Live), line, second),
        }
    }

    fn take(&mut self, arrival: Arrival, sink: &mut Sink, session: Option<&Session<'_>>) -> anyhow::Result<()> {
        if let Some((name, fmtp, clock_rate)) = arrival.codec
            && self.assembler.is_none()
        {
            sink.show_as(&name, &fmtp, clock_rate)?;
            self.assembler = Some(Assembler::new(&name, clock_rate));
            self.clock_rate = clock_rate;
            self.track = Some(Arc::clone(&arrival.track));
        }
        // One track is measured, the first that comes; sound beside a picture is not.
        let Some(assembler) =
            self.assembler.as_mut().filter(|_| self.track.as_ref().is_some_and(|t| Arc::ptr_eq(t, &arrival.track)))
        else {
            return Ok(());
        };
        let header = &arrival.packet.header;
        self.ssrc = header.ssrc;
        let packet = Packet {
            ssrc: header.ssrc,
            seq: header.sequence_number,
            timestamp: header.timestamp,
            marker: header.marker,
            payload: arrival.packet.payload.to_vec(),
        };
        assembler.handle(sink.now(), packet);
        while let Some(event) = assembler.poll_event() {
            match event {
                FrameEvent::Complete(f) => {
                    let ours = session.and_then(|s| *s.events.clock.borrow());
                    let origin = session.zip(ours).and_then(|(s, ours)| s.map.origin(f.timestamp, ours));
                    sink.complete(&f, origin);
                }
                FrameEvent::Lost { frame_id, packets } => sink.lost(frame_id, packets),
                FrameEvent::Skipped { .. } => sink.skipped(),
            }
        }
        Ok(())
    }

    /// Asks for what came to the connection and not to us.
    async fn request_missing(&mut self, sink: &Sink) {
        let missing = self.assembler.as_mut().map_or_else(Vec::new, |a| a.overdue(sink.now()));
        let Some(track) = self.track.as_ref().filter(|_| !missing.is_empty()) else { return };
        let nacks = nack_pairs_from_sequence_numbers(&missing);
        let request = TransportLayerNack { sender_ssrc: 0, media_ssrc: self.ssrc, nacks };
        if let Err(error) = track.write_rtcp(vec![Box::new(request)]).await {
            tracing::debug!(%error, "missing packets could not be asked for");
        }
    }

    async fn request_key_frame(&self) {
        let Some(track) = &self.track else { return };
        let request = PictureLossIndication { sender_ssrc: 0, media_ssrc: self.ssrc };
        if let Err(error) = track.write_rtcp(vec![Box::new(request)]).await {
            tracing::debug!(%error, "a key frame could not be asked for");
        }
    }
}

/// Reads a track into the one queue.
async fn follow(track: Arc<dyn TrackRemote>, sender: mpsc::Sender<Arrival>) {
    let mut known = None;
    while let Some(event) = track.poll().await {
        let TrackRemoteEvent::OnRtpPacket(packet) = event else { continue };
        let codec = if known == Some(packet.header.ssrc) {
            None
        } else {
            let found = track.codec(packet.header.ssrc).await;
            known = found.as_ref().map(|_| packet.header.ssrc);
            found.map(|c| (encoding_name(&c.mime_type), c.sdp_fmtp_line, c.clock_rate))
        };
        if sender.send(Arrival { track: Arc::clone(&track), codec, packet }).await.is_err() {
            return;
        }
    }
}

/// The session's next event; never where there is no session.
async fn next_turn(session: &mut Option<Session<'_>>) {
    match session {
        Some(s) => s.turn().await,
        None => std::future::pending().await,
    }
}

/// `video/H264` without its family.
fn encoding_name(mime_type: &str) -> String {
    mime_type.rsplit('/').next().unwrap_or_default().to_owned()
}
