//! Frames inside the channel: a `u16` length and one reliable message, both ways.

use super::{ChannelError, MAX_MESSAGE, WRITER_QUEUE};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsStream;
use trocar_proto::handover::message::{
    DecodeError, Dedupe, FromGate, ToGate, decode_from_gate, decode_to_gate, encode_from_gate, encode_to_gate,
};

/// A reliable message of one way.
pub trait Message: Sized + Send + 'static {
    /// Its bytes, with the sender's id.
    fn encode(&self, id: u64) -> Vec<u8>;
    /// From bytes, with the sender's id.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`Message::encode`] does not make.
    fn decode(bytes: &[u8]) -> Result<(u64, Self), DecodeError>;
}

impl Message for ToGate {
    fn encode(&self, id: u64) -> Vec<u8> {
        encode_to_gate(id, self)
    }
    fn decode(bytes: &[u8]) -> Result<(u64, Self), DecodeError> {
        decode_to_gate(bytes)
    }
}

impl Message for FromGate {
    fn encode(&self, id: u64) -> Vec<u8> {
        encode_from_gate(id, self)
    }
    fn decode(bytes: &[u8]) -> Result<(u64, Self), DecodeError> {
        decode_from_gate(bytes)
    }
}

/// The ids that one sender used, over all its tunnels (HO-C-006).
#[derive(Debug, Clone, Default)]
pub struct SharedDedupe(Arc<Mutex<Dedupe>>);

impl SharedDedupe {
    fn is_first(&self, id: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_first(id)
    }
}

/// What comes by a channel.
pub struct Reader<I, S> {
    half: ReadHalf<TlsStream<S>>,
    buffer: Vec<u8>,
    seen: SharedDedupe,
    closing: watch::Receiver<bool>,
    incoming: PhantomData<fn() -> I>,
}

impl<I, S> std::fmt::Debug for Reader<I, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl<I: Message, S: AsyncRead + AsyncWrite + Unpin> Reader<I, S> {
    /// The next message, with its id, that did not come by another tunnel before. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ChannelError`] where the channel is at its end; anything that is no message ends it.
    pub async fn next(&mut self) -> Result<(u64, I), ChannelError> {
        loop {
            while let Some(frame) = self.take_frame()? {
                let (id, message) = I::decode(&frame)?;
                if self.seen.is_first(id) {
                    return Ok((id, message));
                }
            }
            let Self { half, buffer, closing, .. } = self;
            let read = tokio::select! {
                biased;
                _ = closing.wait_for(|closed| *closed) => return Err(ChannelError::Closed),
                read = half.read_buf(buffer) => read?,
            };
            if read == 0 {
                return Err(ChannelError::Closed);
            }
        }
    }

    /// A whole frame from the buffer, which so never holds more than a frame and what TLS gave at once.
    fn take_frame(&mut self) -> Result<Option<Vec<u8>>, ChannelError> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<2>() else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes(*head));
        if len > MAX_MESSAGE {
            return Err(ChannelError::Frame(len));
        }
        let Some(frame) = rest.get(..len) else { return Ok(None) };
        let frame = frame.to_vec();
        self.buffer.drain(..len + 2);
        Ok(Some(frame))
    }
}

/// Where messages are handed to a channel; cloned freely. The channel closes when [`Writer::close`] is called or all are dropped.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Vec<u8>>,
    closing: Arc<watch::Sender<bool>>,
}

impl Writer {
    /// Puts a message into the queue; never waits.
    ///
    /// # Errors
    /// [`ChannelError::Full`] where [`WRITER_QUEUE`] wait, [`ChannelError::Closed`] where the channel is at its end, and
    /// [`ChannelError::Frame`] for a message that fits no frame.
    pub fn send(&self, id: u64, message: &impl Message) -> Result<(), ChannelError> {
        let body = message.encode(id);
        let len = u16::try_from(body.len()).ok().filter(|_| body.len() <= MAX_MESSAGE);
        let len = len.ok_or(ChannelError::Frame(body.len()))?;
        let frame = len.to_be_bytes().into_iter().chain(body).collect();
        self.queue.try_send(frame).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => ChannelError::Full,
            mpsc::error::TrySendError::Closed(_) => ChannelError::Closed,
        })
    }

    /// Closes the channel at once; what waits is dropped.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Whether it is at its end.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed() || *self.closing.borrow()
    }
}

pub(super) fn start<I: Message, S>(stream: TlsStream<S>, seen: SharedDedupe) -> (Reader<I, S>, Writer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (half, out) = tokio::io::split(stream);
    let (queue, frames) = mpsc::channel(WRITER_QUEUE);
    let (closing, closed) = watch::channel(false);
    let closing = Arc::new(closing);
    tokio::spawn(write(out, frames, closed.clone(), Arc::downgrade(&closing)));
    let reader = Reader { half, buffer: Vec::with_capacity(MAX_MESSAGE), seen, closing: closed, incoming: PhantomData };
    (reader, Writer { queue, closing })
}

/// Writes until the queue's other ends are gone, the channel is closed, or the tunnel breaks.
async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    mut out: WriteHalf<TlsStream<S>>,
    mut frames: mpsc::Receiver<Vec<u8>>,
    mut closed: watch::Receiver<bool>,
    closing: std::sync::Weak<watch::Sender<bool>>,
) {
    let work = async {
        while let Some(frame) = frames.recv().await {
            out.write_all(&frame).await?;
            // More that waits goes with it into one packet.
            while let Ok(frame) = frames.try_recv() {
                out.write_all(&frame).await?;
            }
            out.flush().await?;
        }
        out.shutdown().await
    };
    let ended = tokio::select! {
        biased;
        _ = closed.wait_for(|closed| *closed) => Ok(()),
        ended = work => ended,
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "channel: the tunnel took no more");
    }
    if let Some(closing) = closing.upgrade() {
        closing.send_replace(true);
    }
}
