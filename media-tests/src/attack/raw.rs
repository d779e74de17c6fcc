//! Bytes over TCP, as no library would send them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Longest answer that is kept.
const MAX_ANSWER: usize = 64 << 10;

/// Sends bytes and reads until the other side closes or the time is over; the answer, and whether it was closed.
pub(super) async fn talk(to: SocketAddr, bytes: &[u8], patience: Duration) -> anyhow::Result<(String, bool)> {
    let mut stream = TcpStream::connect(to).await?;
    // A refusal may come before all of it is sent.
    let _ = tokio::time::timeout(patience, stream.write_all(bytes)).await;
    let (answer, closed) = read(&mut stream, patience).await;
    Ok((String::from_utf8_lossy(&answer).into_owned(), closed))
}

/// Reads until the other side closes or the time is over.
pub(super) async fn read(stream: &mut TcpStream, patience: Duration) -> (Vec<u8>, bool) {
    let until = Instant::now() + patience;
    let (mut all, mut chunk) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, stream.read(&mut chunk)).await {
            Err(_) => return (all, false),
            Ok(Ok(0) | Err(_)) => return (all, true),
            Ok(Ok(n)) => all.extend(chunk.iter().take(n.min(MAX_ANSWER.saturating_sub(all.len())))),
        }
    }
}

/// The status of an HTTP answer; 0 where there is none.
pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// A connection from that address of this machine.
pub(super) async fn connect_from(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(to).await
}

/// A request with a body of JSON, from that address; the whole answer.
pub(super) async fn post_from(from: [u8; 4], to: SocketAddr, path: &str, body: &str) -> anyhow::Result<String> {
    let mut stream = connect_from(from, to).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await?;
    let (answer, _) = read(&mut stream, Duration::from_secs(5)).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
