//! A connection to the relay over one path, which is opened again whenever it is lost.

use super::roq::Dialer;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use trocar_proto::media::roq::{self, StreamReader, error_code};
use trocar_proto::session::api::RoqBinding;
use trocar_proto::units::FlowId;

/// First and longest wait before a path is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Bytes taken from a stream at a time.
const STREAM_CHUNK: usize = 64 << 10;
/// A stream that brings nothing for this long is given up.
const STREAM_SILENCE: Duration = Duration::from_secs(2);

/// What a road says.
pub(crate) enum Heard {
    /// It is open.
    Up(quinn::Connection),
    /// A packet of a flow came, by datagram or by stream.
    Packet(FlowId, Bytes),
    /// It was lost.
    Lost(quinn::ConnectionError),
    /// It could not be opened.
    Failed(anyhow::Error),
}

/// Keeps the connection. Dropping it ends that; the connection is closed by whoever holds it.
pub(crate) struct Road {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Road {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Road {
    /// Opens a road and keeps it open; `out` hears of it under this key. Loss policy: where `out` is full, reading waits, and QUIC
    /// drops the oldest datagrams that came.
    pub(crate) fn open<K: Clone + Send + Sync + 'static>(
        key: K,
        dialer: Arc<Dialer>,
        to: RoqBinding,
        out: mpsc::Sender<(K, Heard)>,
    ) -> Self {
        Self { task: tokio::spawn(keep(key, dialer, to, out)) }
    }
}

async fn keep<K: Clone + Send + Sync + 'static>(
    key: K,
    dialer: Arc<Dialer>,
    to: RoqBinding,
    out: mpsc::Sender<(K, Heard)>,
) {
    let mut wait = BACKOFF.0;
    for attempt in 0_usize.. {
        let last = match dialer.connect(&to, attempt).await {
            Ok(connection) => {
                wait = BACKOFF.0;
                if out.send((key.clone(), Heard::Up(connection.clone()))).await.is_err() {
                    return;
                }
                let streams = tokio::spawn(accept(key.clone(), connection.clone(), out.clone()));
                let error = read(&key, &connection, &out).await;
                streams.abort();
                Heard::Lost(error)
            }
            Err(error) => Heard::Failed(error),
        };
        if out.send((key.clone(), last)).await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(BACKOFF.1);
    }
}

/// Reads datagrams until the connection ends.
async fn read<K: Clone + Sync>(
    key: &K,
    connection: &quinn::Connection,
    out: &mpsc::Sender<(K, Heard)>,
) -> quinn::ConnectionError {
    loop {
        match connection.read_datagram().await {
            Ok(datagram) => {
                let Some((flow, packet)) = roq::split(&datagram) else { continue };
                let packet = datagram.slice_ref(packet);
                if out.send((key.clone(), Heard::Packet(flow, packet))).await.is_err() {
                    return quinn::ConnectionError::LocallyClosed;
                }
            }
            Err(error) => return error,
        }
    }
}

/// Takes streams until the connection ends. QUIC bounds how many there are at a time.
async fn accept<K: Clone + Send + Sync + 'static>(
    key: K,
    connection: quinn::Connection,
    out: mpsc::Sender<(K, Heard)>,
) {
    while let Ok(stream) = connection.accept_uni().await {
        tokio::spawn(read_stream(key.clone(), stream, out.clone()));
    }
}

/// Reads the packets of one stream. One that its sender resets (its frame is late) is forgotten where it is.
async fn read_stream<K: Clone>(key: K, mut stream: quinn::RecvStream, out: mpsc::Sender<(K, Heard)>) {
    let mut reader = StreamReader::default();
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(STREAM_SILENCE, stream.read_chunk(STREAM_CHUNK, true)).await {
        reader.handle_bytes(&chunk.bytes);
        loop {
            match reader.poll_packet() {
                Ok(Some((flow, packet))) => {
                    let packet = Bytes::copy_from_slice(packet);
                    if out.send((key.clone(), Heard::Packet(flow, packet))).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "stream of the relay");
                    let _ = stream.stop(error_code::PACKET_ERROR.into());
                    return;
                }
            }
        }
    }
}
