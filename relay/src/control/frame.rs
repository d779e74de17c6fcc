//! Frames of the rendezvous stream, and the first one of a tunnel: a length of 32 bits, network byte order, and that much JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use trocar_proto::control::MAX_FRAME;

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame has at most {MAX_FRAME} bytes, this one says {0}")]
    TooLong(u32),
    #[error("a frame cannot be used: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the stream ended")]
    Ended,
}

/// The next frame. What comes is bounded before it is read.
///
/// # Errors
/// [`FrameError`].
pub(super) async fn read<T: DeserializeOwned>(stream: &mut quinn::RecvStream) -> Result<T, FrameError> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(|_| FrameError::Ended)?;
    let length = u32::from_be_bytes(head);
    let size = usize::try_from(length).ok().filter(|n| *n <= MAX_FRAME).ok_or(FrameError::TooLong(length))?;
    let mut body = vec![0; size];
    stream.read_exact(&mut body).await.map_err(|_| FrameError::Ended)?;
    Ok(serde_json::from_slice(&body)?)
}

/// Writes a frame.
///
/// # Errors
/// [`FrameError::Ended`] where the other side takes no more.
pub(super) async fn write<T: Serialize>(stream: &mut quinn::SendStream, message: &T) -> Result<(), FrameError> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    stream.write_all(&frame).await.map_err(|_| FrameError::Ended)
}
