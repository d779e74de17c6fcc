//! A WebSocket client (RFC 6455) that may break every rule.

use super::raw;
use crate::stack::PATIENCE;
use anyhow::{Context as _, ensure};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Text, continuation, ping, and the bit of the last fragment.
pub(super) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(super) const PING: u8 = 9;
pub(crate) const FIN: u8 = 0x80;

/// An open socket.
pub(crate) struct Socket {
    pub(super) stream: TcpStream,
    /// What the server answered to the upgrade.
    pub(super) head: String,
}

/// The request for an upgrade.
pub(super) fn upgrade(to: SocketAddr, session: &str, more: &str) -> String {
    format!(
        "GET /v1/sessions/{session}/events HTTP/1.1\r\nHost: {to}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: trocar.v1\r\n{more}\r\n"
    )
}

impl Socket {
    /// Opens one and says hello.
    pub(crate) async fn open(to: SocketAddr, session: &str, token: &str) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(to).await?;
        let deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        stream.write_all(upgrade(to, session, deflate).as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < 4_096 {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        ensure!(raw::status(&head) == 101, "{head}");
        let mut socket = Self { stream, head };
        let hello = format!("{{\"type\":\"hello\",\"token\":\"{token}\"}}");
        socket.send(FIN | TEXT, hello.as_bytes()).await?;
        Ok(socket)
    }

    /// A frame with that first byte.
    pub(crate) async fn send(&mut self, first: u8, payload: &[u8]) -> anyhow::Result<()> {
        let head = head_of(first, payload.len() as u64);
        // Masked by zeros, which changes nothing.
        self.stream.write_all(&[head.as_slice(), &[0; 4], payload].concat()).await?;
        Ok(())
    }

    /// The code that the server closes with; none where it just ends or does not close in time.
    pub(super) async fn close_code(&mut self, patience: Duration) -> Option<u16> {
        let closed = tokio::time::timeout(patience, async {
            loop {
                let (first, payload) = self.frame().await.ok()?;
                if first & 0x0f == 8 {
                    return Some(payload.first_chunk().copied().map_or(0, u16::from_be_bytes));
                }
            }
        });
        closed.await.ok().flatten()
    }

    /// Reads until a text is like this, for [`PATIENCE`] at most.
    pub(crate) async fn text(&mut self, like: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let frame = tokio::time::timeout_at(end, self.frame()).await;
            let (first, payload) = frame.context("no such text")??;
            if first & 0x0f == TEXT && like(&String::from_utf8_lossy(&payload)) {
                return Ok(());
            }
        }
    }

    async fn frame(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let (first, short) = (self.stream.read_u8().await?, self.stream.read_u8().await? & 0x7f);
        let len = match short {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            n => n.into(),
        };
        let mut payload = vec![0; usize::try_from(len.min(4 << 20)).unwrap_or(0)];
        self.stream.read_exact(&mut payload).await?;
        Ok((first, payload))
    }
}

/// First byte, mask bit and length.
pub(super) fn head_of(first: u8, len: u64) -> Vec<u8> {
    match len {
        0..=125 => vec![first, 0x80 | len as u8],
        126..=0xffff => [&[first, 0x80 | 126], (len as u16).to_be_bytes().as_slice()].concat(),
        _ => [&[first, 0x80 | 127], len.to_be_bytes().as_slice()].concat(),
    }
}
