//! Case 2: connections without end.

use super::Played;
use super::arena::Arena;
use super::http::is_served;
use super::raw::connect_from;
use anyhow::ensure;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Attempts.
const ATTEMPTS: usize = 10_000;
/// At a time.
const AT_ONCE: usize = 500;

/// Connections of this machine at a time: `limits.connections_loopback`.
const PLACES: usize = 512;
/// From a close to its being read here. Without a bound thousands would stay open: each may be silent for five seconds.
const SETTLES: Duration = Duration::from_secs(1);

/// Ten thousand from a /24 that is not that of the others.
pub(super) fn idle_connections(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let refused = "trocar_signaling_connections_refused_total";
        let before = a.metric(refused).await.unwrap_or(0.0);
        let mut held = Vec::new();
        let mut slowest = Duration::ZERO;
        for wave in 0..ATTEMPTS / AT_ONCE {
            let mut all = JoinSet::new();
            for n in 0..AT_ONCE {
                let from = [127, 1, 0, 1 + ((wave * AT_ONCE + n) % 250) as u8];
                all.spawn(attempt(from, a.page));
            }
            while let Some(done) = all.join_next().await {
                held.extend(done?);
            }
            slowest = slowest.max(is_served(a, Duration::from_secs(1)).await?);
        }
        // Of those that were held, the first have been closed by now; a place may be taken again before this end has read that.
        let (mut open, settles) = (still_open(&held), Instant::now() + SETTLES);
        while open > PLACES && Instant::now() < settles {
            tokio::time::sleep(Duration::from_millis(20)).await;
            open = still_open(&held);
        }
        ensure!(open <= PLACES, "{open} connections of one network are open");
        let count = a.rises(refused, before, (ATTEMPTS - held.len()) as f64 * 0.9).await?;
        drop(held);
        let ms = slowest.as_secs_f64() * 1e3;
        Ok(format!("{open} stayed open, {count:.0} were refused and counted; others were served within {ms:.0} ms"))
    })
}

/// How many the other side has not closed.
fn still_open(held: &[TcpStream]) -> usize {
    let waits = |s: &&TcpStream| matches!(s.try_read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
    held.iter().filter(waits).count()
}

/// A connection that says nothing; none where it is closed at once.
async fn attempt(from: [u8; 4], to: SocketAddr) -> Option<TcpStream> {
    let mut stream = connect_from(from, to).await.ok()?;
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_millis(60), stream.read(&mut byte)).await;
    read.is_err().then_some(stream)
}
