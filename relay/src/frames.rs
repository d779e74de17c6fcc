//! A stream per frame (draft-ietf-avtcore-rtp-over-quic-14): each frame of a feed goes by a unidirectional stream of its own,
//! older frames first, and the stream is reset when the frame's deadline has passed. Used by the relay's legs and by our
//! publishers. Nothing here waits: what QUIC does not take at once is given up.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use quinn::{Connection, ConnectionError, SendStream, VarInt};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use trocar_proto::media::roq::{self, FlowPrefix, error_code, put_on_stream};

/// Frames of one feed under way at a time. Loss policy: beyond, a frame is left out whole.
pub const MAX_FRAMES: usize = 64;

/// Round trip for which windows are sized, in milliseconds.
const WINDOW_RTT_MS: u64 = 150;
/// Bounds of a connection's receive window, in bytes.
const WINDOW_BOUNDS: (u64, u64) = (1 << 20, 32 << 20);

/// Bytes of streams that the other side may have under way to us, for a feed of this grant in bits per second: twice what comes
/// in a round trip and a budget.
#[must_use]
pub fn receive_window(bits_per_second: u64, budget_ms: u32) -> VarInt {
    let bytes = bits_per_second / 8 * 2 * (WINDOW_RTT_MS + u64::from(budget_ms)) / 1_000;
    VarInt::from_u64(bytes.clamp(WINDOW_BOUNDS.0, WINDOW_BOUNDS.1)).unwrap_or(VarInt::MAX)
}

/// Waits for a datagram and takes it and those that wait behind it, `most` in all, to the end of `batch`. What is not taken stays
/// where it is: may be cancelled. Datagrams that wait are ready at once, so a loop over this has to yield by itself.
///
/// # Errors
/// The connection has ended. Nothing was taken.
pub async fn read_datagrams(
    connection: &Connection,
    batch: &mut Vec<Bytes>,
    most: usize,
) -> Result<(), ConnectionError> {
    batch.push(connection.read_datagram().await?);
    for _ in 1..most {
        // That it has ended is said again by the next call.
        let Some(Ok(more)) = connection.read_datagram().now_or_never() else { break };
        batch.push(more);
    }
    Ok(())
}

/// What became of frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounters {
    /// Frames that were begun.
    pub begun: u64,
    /// Frames whose last byte the other side has acknowledged.
    pub delivered: u64,
    /// Frames whose stream was reset because their deadline had passed.
    pub late: u64,
    /// Frames that QUIC did not take whole: no stream free, a window full, or stopped by the other side.
    pub refused: u64,
}

struct Flying {
    stream: SendStream,
    /// After this moment it is of no more use to the other side.
    deadline: Instant,
    /// It needs no other frame.
    independent: bool,
}

/// The frames of one feed on one connection.
pub struct FrameStreams {
    connection: Connection,
    prefix: FlowPrefix,
    /// The frame that packets are being written to, by the caller's name for it.
    open: Option<(u64, Flying)>,
    /// The frame of that name was given up: the rest of it is left out.
    torn: Option<u64>,
    /// Finished and not yet acknowledged, oldest first.
    flying: VecDeque<Flying>,
    /// Single packets that came after their frames' streams had ended, each with its deadline: nothing goes by what becomes of
    /// one, for the frames behind it may do without.
    late: VecDeque<(SendStream, Instant)>,
    counters: FrameCounters,
}

impl FrameStreams {
    /// For the flow of this prefix.
    #[must_use]
    pub fn new(connection: Connection, prefix: FlowPrefix) -> Self {
        Self {
            connection,
            prefix,
            open: None,
            torn: None,
            flying: VecDeque::with_capacity(MAX_FRAMES),
            late: VecDeque::new(),
            counters: FrameCounters::default(),
        }
    }

    /// What became of frames.
    #[must_use]
    pub const fn counters(&self) -> FrameCounters {
        self.counters
    }

    /// Whether another frame may be begun.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.flying.len() + self.late.len() + usize::from(self.open.is_some()) < MAX_FRAMES
    }

    /// Writes a packet to the stream of frame `name`; the first one opens it, and ends the frame before. False where the
    /// frame is given up: nobody can use a torn one.
    pub fn send_packet(&mut self, name: u64, packet: &[u8], deadline: Instant, independent: bool) -> bool {
        if self.torn == Some(name) {
            return false;
        }
        let is_new = self.open.as_ref().is_none_or(|(open, _)| *open != name);
        if is_new {
            self.finish();
            if !self.begin(name, deadline, independent) {
                return self.tear(name);
            }
        }
        let Some((_, flying)) = &mut self.open else { return false };
        flying.independent |= independent;
        let prefix: &[u8] = if is_new { self.prefix.as_bytes() } else { &[] };
        if write(&mut flying.stream, prefix, packet) {
            return true;
        }
        if let Some((_, mut flying)) = self.open.take() {
            let _ = flying.stream.reset(error_code::FRAME_CANCELLED.into());
        }
        self.tear(name)
    }

    fn tear(&mut self, name: u64) -> bool {
        self.torn = Some(name);
        self.counters.refused += 1;
        false
    }

    fn begin(&mut self, name: u64, deadline: Instant, independent: bool) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some(Ok(stream)) = self.connection.open_uni().now_or_never() else { return false };
        let _ = stream.set_priority(roq::stream_priority(self.counters.begun));
        self.counters.begun += 1;
        self.open = Some((name, Flying { stream, deadline, independent }));
        true
    }

    /// The frame that was being written is whole.
    pub fn finish(&mut self) {
        if let Some((_, mut flying)) = self.open.take() {
            let _ = flying.stream.finish();
            self.flying.push_back(flying);
        }
    }

    /// A packet that came after its frame's stream had ended goes by a stream of its own; false where QUIC does not take it.
    pub fn send_late_packet(&mut self, packet: &[u8], deadline: Instant) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some(Ok(mut stream)) = self.connection.open_uni().now_or_never() else { return false };
        // Before every frame: it is what the oldest one waits for.
        let _ = stream.set_priority(i32::MAX);
        if !write(&mut stream, self.prefix.as_bytes(), packet) {
            let _ = stream.reset(error_code::FRAME_CANCELLED.into());
            return false;
        }
        let _ = stream.finish();
        self.late.push_back((stream, deadline));
        true
    }

    /// Forgets what the other side has acknowledged, and resets what is too late. True where a frame was given up that the ones
    /// after it need: those are given up with it, up to the next frame that needs no other; where there is none, the next one
    /// to be sent has to be such a one.
    pub fn expire(&mut self, now: Instant) -> bool {
        // An acknowledgement takes half a round trip: what came in time is not reset for that.
        let grace = self.connection.rtt() / 2;
        self.expire_late_packets(now, grace);
        let mut broken = false;
        while let Some(oldest) = self.flying.front_mut() {
            // A stream of which everything was acknowledged has no priority any more. One that the other side has stopped ends at
            // its deadline like any other.
            if oldest.stream.priority().is_err() {
                self.counters.delivered += 1;
            } else if broken && !oldest.independent || now > oldest.deadline + grace {
                let _ = oldest.stream.reset(error_code::FRAME_CANCELLED.into());
                self.counters.late += 1;
                broken = true;
            } else {
                break;
            }
            self.flying.pop_front();
        }
        let goes_on = self.flying.front().is_some_and(|f| f.independent);
        let is_late =
            self.open.as_ref().is_some_and(|(_, f)| now > f.deadline + grace || broken && !goes_on && !f.independent);
        if is_late && let Some((name, mut flying)) = self.open.take() {
            let _ = flying.stream.reset(error_code::FRAME_CANCELLED.into());
            self.counters.late += 1;
            self.torn = Some(name);
            return true;
        }
        broken && !goes_on && self.open.as_ref().is_none_or(|(_, f)| !f.independent)
    }

    /// The same for single packets: whether the other side can do without one is for it to say.
    fn expire_late_packets(&mut self, now: Instant, grace: Duration) {
        let counters = &mut self.counters;
        self.late.retain_mut(|(stream, deadline)| {
            let delivered = stream.priority().is_err();
            let is_late = !delivered && now > *deadline + grace;
            if is_late {
                let _ = stream.reset(error_code::FRAME_CANCELLED.into());
            }
            counters.delivered += u64::from(delivered);
            counters.late += u64::from(is_late);
            !delivered && !is_late
        });
    }
}

/// Writes a packet whole; what is written of it in part is of no use.
fn write(stream: &mut SendStream, prefix: &[u8], packet: &[u8]) -> bool {
    let mut bytes = Vec::with_capacity(prefix.len() + packet.len() + 8);
    bytes.extend_from_slice(prefix);
    put_on_stream(&mut bytes, packet);
    matches!(stream.write_all_chunks(&mut [Bytes::from(bytes)]).now_or_never(), Some(Ok(())))
}

/// Puts a packet into a datagram of its flow.
#[must_use]
pub fn datagram(prefix: FlowPrefix, packet: &[u8]) -> Bytes {
    let mut datagram = BytesMut::with_capacity(prefix.as_bytes().len() + packet.len());
    datagram.extend_from_slice(prefix.as_bytes());
    datagram.extend_from_slice(packet);
    datagram.freeze()
}

#[cfg(test)]
pub(crate) mod tests;
