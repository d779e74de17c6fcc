//! A viewer that asks for packets and key frames as fast as it can.

use super::wire::Wire;
use super::{PATIENCE, Sink, Viewer};
use anyhow::{Context, bail};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use trocar_proto::media::rtcp::Builder;
use trocar_proto::media::rtp::is_rtcp;
use trocar_proto::units::Ssrc;

/// Requests between two looks at what has come, and looks at a time.
const REQUESTS: usize = 16;
const READS: usize = 256;
/// Numbers that one request names: the newest ones.
const NUMBERS: u16 = 256;
/// Connectivity checks are looked at this often.
const CHECKS: Duration = Duration::from_millis(50);

/// What a flood has done, read from outside while it runs.
#[derive(Debug, Default)]
pub struct Flood {
    /// Requests sent: each one names 256 packets and asks for a key frame.
    pub requests: AtomicU64,
    /// Packets of the stream that came.
    pub packets: AtomicU64,
    /// Repeats that came.
    pub repeats: AtomicU64,
    /// To be set when it is to end.
    pub ended: AtomicBool,
}

impl Viewer {
    /// Fetches a feed and asks for all of it again, and for a key frame, as fast as it can until it is to end.
    ///
    /// # Errors
    /// Where signaling refuses, the transport does not come up, or the viewer connects by TCP.
    pub async fn flood(&self, feed: &str, flood: &Flood) -> anyhow::Result<()> {
        let (mut sink, _) = self.open(feed).await?;
        tokio::time::timeout(PATIENCE, sink.connect()).await.context("no keys in time")??;
        let mut buffer = vec![0; 2_048];
        let mut newest: Option<(Ssrc, u16)> = None;
        let mut checked = Instant::now();
        while !flood.ended.load(Ordering::Relaxed) {
            sink.take(&mut buffer, &mut newest, flood)?;
            if checked.elapsed() >= CHECKS {
                checked = Instant::now();
                sink.check(checked)?;
            }
            if let Some((media, seq)) = newest {
                sink.ask(media, seq, flood)?;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

impl Sink {
    fn socket(&self) -> anyhow::Result<&UdpSocket> {
        match &self.wire {
            Wire::Udp(socket) => Ok(socket),
            Wire::Tcp { .. } => bail!("a flood goes by UDP"),
        }
    }

    /// Reads what has come, up to a bound.
    fn take(&mut self, buffer: &mut [u8], newest: &mut Option<(Ssrc, u16)>, flood: &Flood) -> anyhow::Result<()> {
        for _ in 0..READS {
            let Ok((len, from)) = self.socket()?.try_recv_from(buffer) else { return Ok(()) };
            let data = buffer.get_mut(..len).unwrap_or(&mut []);
            let is_media = data.first().is_some_and(|b| (128..192).contains(b)) && !is_rtcp(data);
            if !is_media {
                self.handle(from, data);
                continue;
            }
            // The header is not encrypted. Payload type 97 is that of repeats in our offer.
            let Some([_, kind, a, b, _, _, _, _, c, d, e, f]) = data.first_chunk::<12>() else { continue };
            if kind & 0x7f == 97 {
                flood.repeats.fetch_add(1, Ordering::Relaxed);
            } else {
                flood.packets.fetch_add(1, Ordering::Relaxed);
                *newest = Some((Ssrc(u32::from_be_bytes([*c, *d, *e, *f])), u16::from_be_bytes([*a, *b])));
            }
        }
        Ok(())
    }

    fn check(&mut self, now: Instant) -> anyhow::Result<()> {
        self.ice.handle_timeout(now);
        while let Some(t) = self.ice.poll_transmit() {
            let bytes: Vec<u8> = t.contents.into();
            // What the socket does not take is sent again by the agent.
            let _ = self.socket()?.try_send_to(&bytes, t.destination);
        }
        while self.ice.poll_event().is_some() {}
        Ok(())
    }

    fn ask(&mut self, media: Ssrc, newest: u16, flood: &Flood) -> anyhow::Result<()> {
        let lost: Vec<u16> = (0..NUMBERS).rev().map(|back| newest.wrapping_sub(back)).collect();
        let request = Builder::default().receiver_report(Ssrc(1), None).nack(Ssrc(1), media, &lost).pli(Ssrc(1), media);
        let request = request.finish();
        for _ in 0..REQUESTS {
            let mut sealed = request.clone();
            self.srtp.as_mut().context("no keys")?.send.seal_rtcp(&mut sealed)?;
            if self.socket()?.try_send_to(&sealed, self.remote).is_ok() {
                flood.requests.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}
