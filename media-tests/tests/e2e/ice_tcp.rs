//! A viewer whose network lets no UDP out, and callers at the same door who have no business there.

use crate::runtime;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use trocar_media_tests::http_client;
use trocar_media_tests::sink::{Viewer, some_offer};
use trocar_media_tests::stack::Stack;

/// A connection that proves nothing is closed after 5 s; the rest is for a machine under load.
const CLOSED_WITHIN: Duration = Duration::from_secs(7);
/// Packets that must come: several seconds of the picture.
const PACKETS: u64 = 300;

#[test]
fn a_viewer_gets_every_packet_by_tcp_alone() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test", "--size", "320x240@30"])?;
    LocalSet::new().block_on(&runtime(), async {
        let viewer = Viewer::join(&stack.text("/page")?, &stack.text("/tokens/observer")?).await?.over_tcp();
        let (counts, task) = viewer.fetch("scope").await?;
        let until = Instant::now() + Duration::from_secs(20);
        while counts.packets.load(Ordering::Relaxed) < PACKETS && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        task.abort();
        let seen = [&counts.packets, &counts.refused, &counts.gaps].map(|c| c.load(Ordering::Relaxed));
        ensure!(seen[0] >= PACKETS, "{counts:?}");
        ensure!(seen[1..] == [0, 0], "TCP loses nothing: {counts:?}");
        Ok(())
    })
}

#[test]
fn a_connection_without_the_password_gets_nothing_and_is_closed() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test", "--size", "320x240@30"])?;
    runtime().block_on(async {
        let ufrag = ufrag_of_a_leg(&stack).await?;
        let relay: SocketAddr = stack.text("/relay/webrtc")?.parse()?;
        let strangers = [
            ("silent", Vec::new()),
            ("half a frame", vec![0, 100, 0, 1]),
            ("unknown user fragment", framed(&check("nobody:x"))),
            ("wrong password", framed(&check(&format!("{ufrag}:x")))),
            ("a frame of 2049 bytes", vec![8, 1, 0, 1]),
        ];
        let mut all = JoinSet::new();
        for (name, bytes) in strangers {
            all.spawn(async move {
                let left = Instant::now();
                let mut stream = TcpStream::connect(relay).await?;
                stream.write_all(&bytes).await?;
                let mut got = Vec::new();
                let end = tokio::time::timeout(CLOSED_WITHIN, stream.read_to_end(&mut got)).await;
                ensure!(end.is_ok(), "{name}: still open after {:?}", left.elapsed());
                ensure!(got.is_empty(), "{name}: was answered {got:?}");
                Ok::<_, anyhow::Error>(())
            });
        }
        while let Some(done) = all.join_next().await {
            done??;
        }
        Ok(())
    })
}

/// Our user fragment of a leg that was admitted and that nobody ever connects to.
async fn ufrag_of_a_leg(stack: &Stack) -> anyhow::Result<String> {
    let (http, base) = (http_client()?, stack.text("/page")?);
    let body = json!({ "invitation": stack.text("/tokens/observer")?, "name": "Somebody" });
    let grant: Value = http.post(format!("{base}v1/join")).json(&body).send().await?.error_for_status()?.json().await?;
    let answer = http
        .post(format!("{base}v1/sessions/{}/feeds/scope/whep", stack.text("/session")?))
        .bearer_auth(grant["token"].as_str().context("token")?)
        .header("Content-Type", "application/sdp")
        .body(some_offer())
        .send()
        .await?
        .error_for_status()?
        .text()
        .await?;
    let found = answer.lines().find_map(|l| l.strip_prefix("a=ice-ufrag:"));
    found.map(ToOwned::to_owned).context("no ice-ufrag")
}

/// A connectivity check whose integrity is nobody's.
fn check(username: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in [(0x0006_u16, username.as_bytes()), (0x0024, &[0x6e, 0, 1, 0xff]), (0x0008, &[7; 20])] {
        body.extend(kind.to_be_bytes());
        body.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut out = vec![0, 1];
    out.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    out.extend(0x2112_a442_u32.to_be_bytes());
    out.extend([5; 12]);
    out.extend(body);
    out
}

fn framed(packet: &[u8]) -> Vec<u8> {
    [&u16::try_from(packet.len()).unwrap().to_be_bytes(), packet].concat()
}
