//! Native legs: packets go to QUIC bit for bit, by datagram, or by stream where they fit none.

use crate::quic;
use crate::worker::state::{LegSent, RoqWay};
use bytes::BytesMut;
use futures_util::FutureExt as _;
use trocar_proto::media::feed::Feed;
use trocar_proto::media::leg::{Leg, Next};
use trocar_proto::media::roq;

/// Hands all that a native leg returns to QUIC, bit for bit; true where it waits for a key frame. What is too large for a
/// datagram of the path goes by a stream of its own.
pub(super) fn send(leg: &mut Leg, way: &mut RoqWay, sent: &mut LegSent, feed: &Feed) -> bool {
    let Some(connection) = &way.connection else { return false };
    let prefix = way.prefix.as_bytes();
    let waiting = quic::DATAGRAM_SEND_BUFFER.saturating_sub(connection.datagram_send_buffer_space());
    let mut space = way.max_queue.min(quic::DATAGRAM_SEND_BUFFER).saturating_sub(waiting);
    let largest = connection.max_datagram_size().unwrap_or(0);
    let mut large = Large::default();
    let need_key = loop {
        // A packet is at most one slot; quinn counts 32 bytes of its own with each.
        match leg.poll(feed, space > 2_048 + 40) {
            Next::Send { index, .. } => {
                let Some((_, packet)) = feed.ring().get(index) else { continue };
                let len = prefix.len() + packet.len();
                space = space.saturating_sub(len + 32);
                if len > largest {
                    large.push(prefix, packet);
                    continue;
                }
                let mut datagram = BytesMut::with_capacity(len);
                datagram.extend_from_slice(prefix);
                datagram.extend_from_slice(packet);
                match connection.send_datagram(datagram.freeze()) {
                    Ok(()) => sent.packets += 1,
                    Err(quinn::SendDatagramError::TooLarge) => sent.too_large += 1,
                    Err(_) => sent.dropped += 1,
                }
            }
            Next::Idle => break false,
            Next::NeedKeyFrame => break true,
        }
    };
    large.send(connection, sent);
    need_key
}

/// Packets of one turn that fit no datagram of the path.
#[derive(Default)]
struct Large {
    bytes: Vec<u8>,
    packets: u64,
}

impl Large {
    fn push(&mut self, prefix: &[u8], packet: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(prefix);
        }
        roq::put_on_stream(&mut self.bytes, packet);
        self.packets += 1;
    }

    /// Sends them by one stream. Loss policy: where no stream is free or its window is full they are dropped and counted;
    /// waiting would hold up every other leg.
    fn send(self, connection: &quinn::Connection, sent: &mut LegSent) {
        if self.packets == 0 {
            return;
        }
        let Some(Ok(mut stream)) = connection.open_uni().now_or_never() else {
            sent.dropped += self.packets;
            return;
        };
        if let Some(Ok(())) = stream.write_all(&self.bytes).now_or_never() {
            let _ = stream.finish();
            sent.packets += self.packets;
        } else {
            let _ = stream.reset(roq::error_code::INTERNAL_ERROR.into());
            sent.dropped += self.packets;
        }
    }
}
