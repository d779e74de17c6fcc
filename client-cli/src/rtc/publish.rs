//! Publishing by WHIP (RFC 9725): a source's frames, packets as they are, to any server that takes them.

use super::codec;
use super::peer::{Peer, PeerEvent};
use super::requests::is_request;
use super::resource::Endpoint;
use crate::stop::Stop;
use anyhow::Context;
use bytes::Bytes;
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp::Packet;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RTCRtpRtxParameters, RtpCodecKind,
};
use rtc::shared::marshal::Unmarshal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinSet;
use trocar_proto::media::ext::ABS_CAPTURE_TIME_URI;
use trocar_proto::units::WallMicros;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_local::{TrackLocal, TrackLocalEvent};
use webrtc::peer_connection::RTCPeerConnectionState;
use webrtc::rtp_transceiver::RtpSender;

/// Frames that wait for the connection. Loss policy: a frame that finds no room is left out whole, and counted.
const FRAMES: usize = 32;
/// First and longest wait before a connection is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// What a source sends on one track.
#[derive(Debug, Clone)]
pub(crate) struct TrackSpec {
    /// Sound or pictures.
    pub(crate) sound: bool,
    /// Encoding name of the RTP payload format, e.g. `H264`.
    pub(crate) codec: String,
    /// `a=fmtp`.
    pub(crate) fmtp: String,
    /// RTP clock rate in Hz.
    pub(crate) clock_rate: u32,
    /// Channels of sound; 0 for pictures.
    pub(crate) channels: u16,
    /// Payload type of the packets, 35 to 63 or 96 to 127.
    pub(crate) payload_type: u8,
}

/// A frame: whole RTP packets that leave together or not at all.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// RTP packets, header included. Source, payload type and extensions are written anew.
    pub(crate) packets: Vec<Bytes>,
    /// When it was captured, by this machine's clock.
    pub(crate) capture: WallMicros,
}

/// What was sent since the start, over all connections.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Frames handed to the connection.
    pub(crate) frames: AtomicU64,
    /// Frames left out: no connection, or no room.
    pub(crate) dropped: AtomicU64,
}

/// The way in for one track's frames. Never blocks.
#[derive(Clone)]
pub(crate) struct Inlet {
    queue: mpsc::Sender<Outgoing>,
    sent: Arc<Sent>,
}

impl Inlet {
    /// Takes a frame, or leaves it out.
    pub(crate) fn send(&self, frame: Outgoing) {
        let counter = match self.queue.try_send(frame) {
            Ok(()) => &self.sent.frames,
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => &self.sent.dropped,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What was sent.
    pub(crate) fn sent(&self) -> &Sent {
        &self.sent
    }
}

/// The tracks of a publication, before and between connections.
pub(crate) struct Publication {
    tracks: Vec<(TrackSpec, Arc<tokio::sync::Mutex<mpsc::Receiver<Outgoing>>>)>,
}

/// What the other side wants or what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The connection stands, at this address: frames flow.
    Connected(String),
    /// A key frame on the track with this number.
    KeyFrame(usize),
}

impl Publication {
    /// A publication of these tracks, with an inlet for each.
    pub(crate) fn new(tracks: Vec<TrackSpec>) -> (Self, Vec<Inlet>) {
        let (tracks, inlets) = tracks
            .into_iter()
            .map(|spec| {
                let (queue, frames) = mpsc::channel(FRAMES);
                let inlet = Inlet { queue, sent: Arc::default() };
                ((spec, Arc::new(tokio::sync::Mutex::new(frames))), inlet)
            })
            .unzip();
        (Self { tracks }, inlets)
    }

    /// Publishes until it is told to stop: opens the connection, and again where it is lost. `wish` hears what the other
    /// side asks for.
    ///
    /// # Errors
    /// What the server answered to the first offer; later ones are tried again.
    pub(crate) async fn publish(
        &self,
        endpoint: &Endpoint,
        stop: &Stop,
        mut wish: impl FnMut(Wish),
    ) -> anyhow::Result<()> {
        let (mut wait, mut first) = (BACKOFF.0, true);
        loop {
            match self.once(endpoint, stop, &mut wish, &mut first).await {
                Ok(()) => return Ok(()),
                Err(error) if first => return Err(error),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "not publishing"),
            }
            tokio::select! {
                () = stop.requested() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// One connection. An error where it broke; clears `first` when it stood.
    async fn once(
        &self,
        endpoint: &Endpoint,
        stop: &Stop,
        wish: &mut impl FnMut(Wish),
        first: &mut bool,
    ) -> anyhow::Result<()> {
        let codecs: Vec<_> = self.tracks.iter().map(|(t, _)| (t.kind(), t.codec(), t.payload_type)).collect();
        let mut peer = Peer::new(&endpoint.url, codec::only(&codecs)?, |_| ()).await?;
        let (tell, mut told) = mpsc::channel(8);
        let mut tasks = JoinSet::new();
        let opened = tokio::select! {
            opened = self.open(&mut peer, endpoint, &mut tasks, &tell) => opened,
            () = stop.requested() => {
                peer.close().await;
                return Ok(());
            }
        };
        if let Err(error) = opened {
            peer.close().await;
            return Err(error);
        }
        *first = false;
        wish(Wish::Connected(endpoint.url.to_string()));
        for track in 0..self.tracks.len() {
            wish(Wish::KeyFrame(track));
        }
        let result = loop {
            tokio::select! {
                () = stop.requested() => break Ok(()),
                Some(track) = told.recv() => wish(Wish::KeyFrame(track)),
                event = peer.next_event() => match event {
                    Some(PeerEvent::State(s @ (RTCPeerConnectionState::Failed | RTCPeerConnectionState::Disconnected
                        | RTCPeerConnectionState::Closed))) => break Err(anyhow::anyhow!("the WebRTC connection is {s}")),
                    Some(_) => {}
                    None => break Err(anyhow::anyhow!("the WebRTC connection ended")),
                },
            }
        };
        tasks.shutdown().await;
        peer.close().await;
        result
    }

    async fn open(
        &self,
        peer: &mut Peer,
        endpoint: &Endpoint,
        tasks: &mut JoinSet<()>,
        tell: &mpsc::Sender<usize>,
    ) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for (number, (spec, frames)) in self.tracks.iter().enumerate() {
            let track = Arc::new(TrackLocalStaticRTP::new(spec.track(number)?));
            let sender = peer.send(track.clone()).await?;
            lines.push((number, track, sender, Arc::clone(frames)));
        }
        peer.open(endpoint).await?;
        for ((number, track, sender, frames), (spec, _)) in lines.into_iter().zip(&self.tracks) {
            let line = Line::negotiated(&track, sender.as_ref(), &spec.codec).await;
            let line = line.with_context(|| format!("the other side does not take the {}", spec.codec))?;
            let feedback = Arc::clone(&track);
            let tell = tell.clone();
            tasks.spawn(async move { pump(&line, &track, &frames).await });
            tasks.spawn(async move { listen(number, &feedback, &tell).await });
        }
        Ok(())
    }
}

impl TrackSpec {
    const fn kind(&self) -> RtpCodecKind {
        if self.sound { RtpCodecKind::Audio } else { RtpCodecKind::Video }
    }

    fn codec(&self) -> rtc::rtp_transceiver::rtp_sender::RTCRtpCodec {
        codec::codec(self.kind(), &self.codec, &self.fmtp, self.clock_rate, self.channels)
    }

    pub(super) fn track(&self, number: usize) -> anyhow::Result<MediaStreamTrack> {
        let rtx = if self.sound { None } else { Some(RTCRtpRtxParameters { ssrc: random_ssrc()? }) };
        let coding = RTCRtpCodingParameters { ssrc: Some(random_ssrc()?), rtx, ..RTCRtpCodingParameters::default() };
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: coding,
            active: true,
            codec: self.codec(),
            ..RTCRtpEncodingParameters::default()
        };
        let name = if self.sound { "audio" } else { "video" };
        Ok(MediaStreamTrack::new(
            "trocar".to_owned(),
            format!("{name}{number}"),
            name.to_owned(),
            self.kind(),
            vec![encoding],
        ))
    }
}

fn random_ssrc() -> anyhow::Result<u32> {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).ok().context("no random numbers")?;
    Ok(u32::from_be_bytes(bytes))
}

/// What was agreed on for one track.
pub(super) struct Line {
    ssrc: u32,
    payload_type: u8,
    /// Extension id of the capture time, where the other side takes it.
    capture: Option<u8>,
}

impl Line {
    pub(super) async fn negotiated(
        track: &TrackLocalStaticRTP,
        sender: &dyn RtpSender,
        name: &str,
    ) -> anyhow::Result<Self> {
        use webrtc::media_stream::Track as _;
        let ssrc = track.ssrcs().await.first().copied().context("a track without SSRC")?;
        let parameters = sender.get_parameters().await?.rtp_parameters;
        let ours = |c: &&RTCRtpCodecParameters| {
            c.rtp_codec.mime_type.rsplit('/').next().is_some_and(|n| n.eq_ignore_ascii_case(name))
        };
        let codec = parameters.codecs.iter().find(ours).context("its answer does not name it")?;
        let capture = parameters.header_extensions.iter().find(|e| e.uri == ABS_CAPTURE_TIME_URI);
        Ok(Self { ssrc, payload_type: codec.payload_type, capture: capture.and_then(|e| u8::try_from(e.id).ok()) })
    }

    /// The packet as it goes out.
    pub(super) fn write(&self, bytes: &Bytes, capture: WallMicros) -> Option<Packet> {
        let mut packet = Packet::unmarshal(&mut bytes.clone()).ok()?;
        packet.header.ssrc = self.ssrc;
        packet.header.payload_type = self.payload_type;
        packet.header.extension = false;
        packet.header.extensions.clear();
        if let Some(id) = self.capture {
            let time = Bytes::copy_from_slice(&capture.to_ntp().to_be_bytes());
            packet.header.set_extension(id, time).ok()?;
        }
        Some(packet)
    }
}

/// Carries a track's frames into the connection, which makes us wait where it is slow.
async fn pump(line: &Line, track: &TrackLocalStaticRTP, frames: &tokio::sync::Mutex<mpsc::Receiver<Outgoing>>) {
    let mut frames = frames.lock().await;
    // What waited while there was no connection is old.
    while frames.try_recv().is_ok() {}
    while let Some(frame) = frames.recv().await {
        for packet in frame.packets.iter().filter_map(|p| line.write(p, frame.capture)) {
            if let Err(error) = track.write_rtp(packet).await {
                tracing::debug!(%error, "the connection takes no packets");
                return;
            }
        }
    }
}

/// Tells when the other side asks for a key frame.
async fn listen(number: usize, track: &TrackLocalStaticRTP, tell: &mpsc::Sender<usize>) {
    while let Some(event) = track.poll().await {
        let TrackLocalEvent::OnRtcpPacket(packets) = event else { continue };
        let wanted = packets.iter().any(|p| is_request(p.as_ref()));
        // Loss policy: a request that finds no room is one of several, and the others are told.
        if wanted && matches!(tell.try_send(number), Err(TrySendError::Closed(_))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_goes_out_with_the_agreed_source_type_and_capture_time_and_its_own_payload() {
        let line = Line { ssrc: 7, payload_type: 101, capture: Some(3) };
        let mut bytes = vec![0x80, 0x80 | 96, 0, 9, 0, 0, 0, 5, 1, 2, 3, 4];
        bytes.extend_from_slice(b"payload");
        let capture = WallMicros(1_790_000_000_123_456);
        let p = line.write(&bytes.into(), capture).unwrap();
        assert_eq!((p.header.ssrc, p.header.payload_type, p.header.marker), (7, 101, true));
        assert_eq!((p.header.sequence_number, p.header.timestamp), (9, 5));
        assert_eq!(p.header.get_extension(3).unwrap(), capture.to_ntp().to_be_bytes()[..]);
        assert_eq!(&p.payload[..], b"payload");
        assert!(line.write(&Bytes::from_static(b"short"), capture).is_none());
    }

    #[test]
    fn a_frame_that_finds_no_room_is_left_out_whole_and_counted() {
        let spec = TrackSpec {
            sound: false,
            codec: "H264".to_owned(),
            fmtp: String::new(),
            clock_rate: 90_000,
            channels: 0,
            payload_type: 96,
        };
        let (_publication, inlets) = Publication::new(vec![spec]);
        for _ in 0..FRAMES + 3 {
            inlets[0].send(Outgoing { packets: Vec::new(), capture: WallMicros(0) });
        }
        let sent = inlets[0].sent();
        assert_eq!((sent.frames.load(Ordering::Relaxed), sent.dropped.load(Ordering::Relaxed)), (FRAMES as u64, 3));
    }
}
