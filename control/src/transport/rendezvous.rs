//! The rendezvous stream: frames of a `u32` length and JSON.

use super::{Event, TransportError};
use quinn::{Connection, RecvStream, SendStream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use trocar_proto::control::{FromRelay, MAX_FRAME, ToRelay};

/// Longest text of a relay that is shown, in characters.
const MAX_WORDS: usize = 200;

/// Writes a frame.
///
/// # Errors
/// [`TransportError::Frame`] for a value that is too long, [`TransportError::Stream`] where the stream is gone.
pub async fn write_frame(stream: &mut SendStream, value: &impl Serialize) -> Result<(), TransportError> {
    let body = serde_json::to_vec(value).map_err(|e| TransportError::Frame(e.to_string()))?;
    let len = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_FRAME);
    let len = len.ok_or_else(|| TransportError::Frame(format!("{} bytes are more than {MAX_FRAME}", body.len())))?;
    let frame: Vec<u8> = len.to_be_bytes().into_iter().chain(body).collect();
    stream.write_all(&frame).await.map_err(|e| TransportError::Stream(e.to_string()))
}

/// Reads a frame. What comes behind it stays in the stream.
///
/// # Errors
/// [`TransportError::Frame`] where it is too long or something else, [`TransportError::Stream`] where the stream is gone.
pub async fn read_frame<T: DeserializeOwned>(stream: &mut RecvStream) -> Result<T, TransportError> {
    let gone = |e: quinn::ReadExactError| TransportError::Stream(e.to_string());
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(gone)?;
    let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if len > MAX_FRAME {
        return Err(TransportError::Frame(format!("a frame of {len} bytes, at most {MAX_FRAME} are right")));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.map_err(gone)?;
    serde_json::from_slice(&body).map_err(|e| TransportError::Frame(e.to_string()))
}

/// A text of the relay for people: short, and nothing that moves a terminal's cursor.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect()
}

/// What the relay says, until the stream or the connection ends.
pub(super) async fn read_events(connection: Connection, mut stream: RecvStream, events: mpsc::Sender<Event>) {
    let why = loop {
        let event = match read_frame::<FromRelay>(&mut stream).await {
            Ok(FromRelay::Joined { index, kind, certificate }) => Event::Joined { index, kind, certificate },
            Ok(FromRelay::Left { index }) => Event::Left(index),
            Ok(FromRelay::Probe { nonce }) => Event::Probe(nonce),
            Ok(FromRelay::Refused { reason }) => break TransportError::Refused(plain(&reason)),
            Ok(FromRelay::Connected { .. }) => break TransportError::Frame("a second Connected".to_owned()),
            Err(TransportError::Stream(why)) => {
                break connection.close_reason().map_or(TransportError::Stream(why), TransportError::Connection);
            }
            Err(e) => break e,
        };
        if events.send(event).await.is_err() {
            return;
        }
    };
    connection.close(quinn::VarInt::from_u32(0), b"");
    let _ = events.send(Event::Closed(why)).await;
}

/// STATUS copies, until the connection or its user is gone.
pub(super) async fn write_statuses(mut stream: SendStream, mut waiting: mpsc::Receiver<ToRelay>) {
    while let Some(frame) = waiting.recv().await {
        if let Err(e) = write_frame(&mut stream, &frame).await {
            tracing::debug!(error = %e, "the relay takes no more STATUS copies");
            return;
        }
    }
}
