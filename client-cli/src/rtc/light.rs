//! A WHEP leg whose packets are handed on as they come, for a load test.

use super::codec;
use super::peer::{Peer, PeerEvent};
use super::resource::Endpoint;
use bytes::Bytes;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use std::sync::Arc;
use tokio::sync::mpsc;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::RTCPeerConnectionState;

/// Packets between the connection and us. Loss policy: the connection's queue fills, and it drops.
const PACKETS: usize = 4_096;

/// One RTP packet.
pub(crate) struct Packet {
    /// Sequence number, the leg's own.
    pub(crate) seq: u16,
    /// Payload.
    pub(crate) payload: Bytes,
    /// Bytes with the fixed header.
    pub(crate) len: usize,
}

/// The leg. [`Leg::close`] it: dropping says nothing to the other side.
pub(crate) struct Leg {
    peer: Peer,
    packets: mpsc::Receiver<Packet>,
}

impl Leg {
    /// Asks for the picture there, and returns when the connection stands.
    ///
    /// # Errors
    /// What the server answered, or that no connection came about.
    pub(crate) async fn open(endpoint: &Endpoint) -> anyhow::Result<Self> {
        let (sender, packets) = mpsc::channel(PACKETS);
        let read = move |track| drop(tokio::spawn(follow(track, sender.clone())));
        let mut peer = Peer::new(&endpoint.url, codec::all()?, read).await?;
        peer.receive(RtpCodecKind::Video).await?;
        if let Err(error) = peer.open(endpoint).await {
            peer.close().await;
            return Err(error);
        }
        Ok(Self { peer, packets })
    }

    /// The next packet; none when the connection is over.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        use RTCPeerConnectionState::{Closed, Disconnected, Failed};
        loop {
            tokio::select! {
                biased;
                packet = self.packets.recv() => return packet,
                event = self.peer.next_event() => match event {
                    Some(PeerEvent::State(Failed | Disconnected | Closed)) | None => return None,
                    Some(_) => {}
                },
            }
        }
    }

    /// Hangs up; with `goodbye` the resource is deleted first.
    pub(crate) async fn close(mut self, goodbye: bool) {
        if !goodbye {
            self.peer.resource = None;
        }
        self.peer.close().await;
    }
}

/// Hands a track's packets on until nobody wants them.
async fn follow(track: Arc<dyn TrackRemote>, sender: mpsc::Sender<Packet>) {
    while let Some(event) = track.poll().await {
        let TrackRemoteEvent::OnRtpPacket(p) = event else { continue };
        let len = 12 + p.payload.len();
        let packet = Packet { seq: p.header.sequence_number, payload: p.payload, len };
        if sender.send(packet).await.is_err() {
            return;
        }
    }
}
