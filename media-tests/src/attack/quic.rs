//! Cases 40 to 46: QUIC.
#![allow(clippy::indexing_slicing, reason = "a play may stop the runner: that is how it fails")]

use super::Played;
use super::arena::Arena;
use super::beside::FEED;
use super::quicraw::{Client, varint};
use crate::bench::ends::{Participant, connect, identity};
use anyhow::{Context as _, ensure};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use trocar_proto::media::roq::FlowPrefix;
use trocar_proto::media::rtcp::Builder;
use trocar_proto::session::api::RoqBinding;
use trocar_proto::units::Ssrc;
use trocar_relay::quic::{Identity, bind_udp};

/// Bytes of a datagram before larger ones were tried (RFC 9000 section 14).
const DATAGRAM: usize = 1_200;

fn me(a: &Arena) -> anyhow::Result<Identity> {
    identity(&std::path::PathBuf::from(a.stack.text("/ca_file")?))
}

fn relay(a: &Arena) -> anyhow::Result<SocketAddr> {
    Ok(a.stack.text("/relay/quic")?.parse()?)
}

/// Transport parameters that are right: the source id and limits.
fn parameters(source: u64) -> Vec<u8> {
    let mut out = vec![0x0f, 8];
    out.extend(source.to_be_bytes());
    out.extend([0x04, 4, 0x80, 0x10, 0, 0]);
    out
}

/// Sends one Initial and waits for the answer: bytes sent, bytes received, and the code of a close.
async fn ask(a: &Arena, client: &mut Client, frames: &[u8]) -> anyhow::Result<(usize, usize, Option<u64>)> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let datagram = client.initial(frames)?;
    socket.send_to(&datagram, relay(a)?).await?;
    let (mut got, mut code, mut buffer) = (0, None, [0; 2_048]);
    let until = tokio::time::Instant::now() + Duration::from_millis(150);
    while let Ok(Ok(len)) = tokio::time::timeout_at(until, socket.recv(&mut buffer)).await {
        got += len;
        let datagram = buffer.get(..len).unwrap_or(&[]);
        code = code.or(client.close_code(datagram).unwrap_or(None));
        if code.is_some() {
            break;
        }
    }
    Ok((datagram.len(), got, code))
}

/// Frames that nobody may send in an Initial, or that are none.
fn bad_frames() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("unknown frame", vec![0x3f]),
        ("unknown long frame", vec![0xff, 1, 2, 3, 4, 5, 6, 7]),
        ("truncated varint", vec![6, 0xc0]),
        ("CRYPTO at 2^62", [vec![6], varint((1 << 62) - 1), vec![1, 0]].concat()),
        ("CRYPTO that lies about its length", vec![6, 0, 0x7f, 0xff]),
        ("STREAM in an Initial", vec![0x08, 0, 1]),
        ("PATH_CHALLENGE in an Initial", vec![0x1a, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("DATAGRAM without an end", vec![0x30]),
        ("PADDING alone", Vec::new()),
    ]
}

pub(super) fn bi_40_bad_initials(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let me = me(a)?;
        let mut codes = BTreeMap::<String, u32>::new();
        let mut number = 0x4000;
        for (what, frames) in bad_frames() {
            number += 1;
            let mut client = Client::new(&me, parameters(number), number)?;
            let (sent, got, code) = ask(a, &mut client, &frames).await.context(what)?;
            ensure!(got <= 3 * sent, "{what}: {got} bytes for {sent}");
            ensure!(code.is_some_and(|c| c != 0) || got == 0, "{what}: {got} bytes, close {code:?}");
            *codes.entry(code.map_or("silence".to_owned(), |c| format!("{c:#x}"))).or_default() += 1;
        }
        let source = |n: u64| parameters(n);
        for (what, bad) in [
            ("max_udp_payload_size 1", vec![0x03, 1, 1]),
            ("ack_delay_exponent 60", vec![0x0a, 1, 60]),
            ("active_connection_id_limit 0", vec![0x0e, 1, 0]),
            ("a parameter twice", vec![0x04, 1, 1, 0x04, 1, 1]),
            ("a server's parameter", [vec![0x02, 16], vec![7; 16]].concat()),
            ("truncated", vec![0x01, 8, 0xff]),
        ] {
            number += 1;
            let mut client = Client::new(&me, [source(number), bad].concat(), number)?;
            let crypto = client.crypto();
            let (sent, got, code) = ask(a, &mut client, &crypto).await.context(what)?;
            ensure!(got <= 3 * sent, "{what}: {got} bytes for {sent}");
            // A close that comes under later keys cannot be read here; it is short, and a handshake is not.
            ensure!(code.is_some_and(|c| c != 0) || got < 1_000, "{what}: {got} bytes, close {code:?}");
            *codes.entry(code.map_or("silence".to_owned(), |c| format!("{c:#x}"))).or_default() += 1;
        }
        let mut client = Client::new(&me, parameters(0x4fff), 0x4fff)?;
        let crypto = client.crypto();
        let (sent, got, code) = ask(a, &mut client, &crypto).await?;
        ensure!(got > 100 && got <= 3 * sent && code.is_none(), "the control: {got} bytes for {sent}, close {code:?}");
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        for n in 0..2_000_usize {
            let bytes: Vec<u8> = (0..n % 64).map(|i| (i * n) as u8 | 0x40).collect();
            socket.send_to(&bytes, relay(a)?).await?;
            if n.is_multiple_of(100) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Ok(format!("closes by code: {codes:?}; 2,000 datagrams of 0 to 63 bytes: nothing; a right one: {got} bytes"))
    })
}

pub(super) fn bi_41_initial_flood(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (me, to) = (me(a)?, relay(a)?);
        let mut sockets = Vec::new();
        let (mut sent, mut number) = (0, 0x8000);
        for _ in 0..300 {
            number += 1;
            let mut client = Client::new(&me, parameters(number), number)?;
            let crypto = client.crypto();
            let datagram = client.initial(&crypto)?;
            // Whoever spoofs addresses never answers: each from a port of its own, and nothing after it.
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            socket.send_to(&datagram, to).await?;
            sent += datagram.len();
            sockets.push((socket, datagram.len()));
            if number % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let (mut got, mut retries, mut worst, mut buffer) = (0, 0, (0, 0), [0; 2_048]);
        for (socket, brought) in &sockets {
            let mut own = 0;
            while let Ok(len) = socket.try_recv(&mut buffer) {
                own += len;
                retries += usize::from(buffer[0] & 0xf0 == 0xf0);
            }
            got += own;
            // A datagram that begins below three times is sent whole (quinn's reading of RFC 9000 section 8.1).
            ensure!(own < 3 * brought + DATAGRAM, "one address got {own} bytes for {brought}");
            worst = worst.max((own, *brought));
        }
        ensure!(got <= 3 * sent, "{got} bytes for {sent}");
        ensure!(retries >= 150, "{retries} of 300 had to prove their address");
        let binding = leg(a).await?;
        let began = Instant::now();
        let (_kept, connection) = connect(me, &binding).await.context("an honest client during the flood")?;
        let took = began.elapsed();
        connection.close(0_u32.into(), b"");
        // Handshakes that never go on are given up; the place is there again for what comes next.
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(format!(
            "{retries} of 300 got a Retry, at most {} bytes for {}; an honest client is in after {took:?}",
            worst.0, worst.1
        ))
    })
}

/// A native leg of the healthy feed.
async fn leg(a: &Arena) -> anyhow::Result<RoqBinding> {
    let participant = Participant::join(&a.base, &a.stack.text("/tokens/observer")?, Some(&me(a)?)).await?;
    participant.post(&format!("feeds/{FEED}/legs"), None).await
}

/// How many datagrams come in that time, after the report that says where the leg is.
async fn fetch(connection: &quinn::Connection, binding: &RoqBinding, time: Duration) -> anyhow::Result<u64> {
    let prefix = FlowPrefix::new(binding.rtcp_flow_id).context("flow")?;
    let report = Builder::default().receiver_report(Ssrc(1), None).finish();
    connection.send_datagram([prefix.as_bytes(), &report].concat().into())?;
    let (until, mut count) = (tokio::time::Instant::now() + time, 0);
    while let Ok(Ok(_)) = tokio::time::timeout_at(until, connection.read_datagram()).await {
        count += 1;
    }
    Ok(count)
}

pub(super) fn bi_42_streams(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let binding = leg(a).await?;
        let (_kept, connection) = connect(me(a)?, &binding).await?;
        let bidirectional = tokio::time::timeout(Duration::from_millis(200), connection.open_bi()).await;
        ensure!(bidirectional.is_err(), "a bidirectional stream may be opened");
        let (mut streams, mut written) = (Vec::new(), 0_usize);
        while let Ok(Ok(mut stream)) = tokio::time::timeout(Duration::from_millis(100), connection.open_uni()).await {
            // A flow that is the sender's own, the beginning of a packet, and then never the rest of it.
            let mut bytes = varint(binding.rtcp_flow_id.0);
            bytes.extend(varint(1_400));
            bytes.extend([0x80; 1_024]);
            if let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(2), stream.write(&bytes)).await {
                written += n;
            }
            streams.push(stream);
            if streams.len() > 2_000 {
                break;
            }
        }
        ensure!((1..=2_000).contains(&streams.len()), "{} streams were open at a time", streams.len());
        let own = fetch(&connection, &binding, Duration::from_millis(300)).await;
        let count = streams.len();
        for mut stream in streams {
            let _ = stream.reset(0_u32.into());
        }
        // The leg of the same connection is its own affair; the process and the others are not.
        let own = own.map_or("closed".to_owned(), |n| format!("{n} packets"));
        Ok(format!(
            "{count} streams with {} KiB that never end, bidirectional ones none; the own leg: {own}",
            written >> 10
        ))
    })
}

pub(super) fn bi_43_migration(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let binding = leg(a).await?;
        let (endpoint, connection) = connect(me(a)?, &binding).await?;
        // A key frame comes once a second: before it a viewer that joins late in a second gets nothing.
        let before = fetch(&connection, &binding, Duration::from_millis(1_500)).await?;
        ensure!(before > 50, "the control: {before} packets");
        let began = Instant::now();
        for _ in 0..60 {
            endpoint.rebind(bind_udp(SocketAddr::from(([0, 0, 0, 0], 0)))?)?;
            let _ = connection.send_datagram(bytes::Bytes::from_static(&[0x40]));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let storm = began.elapsed();
        let after = fetch(&connection, &binding, Duration::from_millis(1_500)).await;
        let state = match (&after, connection.close_reason()) {
            (Ok(n), None) if *n > 100 => format!("{n} packets after it"),
            (_, reason) => format!("closed: {reason:?}"),
        };
        Ok(format!("60 addresses in {storm:?}: {state}"))
    })
}

pub(super) fn bi_44_ack_of_unsent(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let me = me(a)?;
        let mut seen = Vec::new();
        let ack = |largest: u64, ranges: u64, first: u64| {
            let mut frame = vec![2];
            for n in [largest, 0, ranges, first] {
                frame.extend(varint(n));
            }
            frame
        };
        let mut bomb = ack(4_000_000, 500, 0);
        bomb.extend([1, 0].repeat(500));
        let frames = [
            ("of packet 1000", ack(1_000, 0, 0)),
            ("of 2^62", ack((1 << 62) - 1, 0, 0)),
            ("that counts below 0", ack(5, 0, 9)),
            ("of 500 ranges", bomb),
        ];
        for (i, (what, frame)) in frames.into_iter().enumerate() {
            let number = 0xa000 + i as u64;
            let mut client = Client::new(&me, parameters(number), number)?;
            let crypto = client.crypto();
            let (sent, got, code) = ask(a, &mut client, &[crypto, frame].concat()).await?;
            ensure!(got <= 3 * sent, "{what}: {got} bytes for {sent}");
            ensure!(code.is_some_and(|c| c != 0) || got < 1_000, "an ACK {what}: {got} bytes, close {code:?}");
            seen.push(format!("{what} {:#x}", code.unwrap_or_default()));
        }
        Ok(format!("ACK {}", seen.join(", ")))
    })
}

pub(super) fn bi_45_early_data(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut seen = Vec::new();
        for (what, to, alpn) in [
            ("media", relay(a)?, trocar_proto::media::roq::ALPN),
            ("control", a.stack.text("/relay/control")?.parse()?, trocar_proto::control::ALPN),
        ] {
            let me = me(a)?;
            let mut roots = rustls::RootCertStore::empty();
            for c in &me.trust {
                roots.add(c.clone())?;
            }
            let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_root_certificates(roots)
                .with_client_auth_cert(me.chain, me.key)?;
            config.alpn_protocols = vec![alpn.to_vec()];
            config.enable_early_data = true;
            let config = quinn::crypto::rustls::QuicClientConfig::try_from(config)?;
            let config = quinn::ClientConfig::new(Arc::new(config));
            let socket = bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            let endpoint =
                quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, Arc::new(quinn::TokioRuntime))?;
            for round in 0..2 {
                let connecting = endpoint.connect_with(config.clone(), to, "localhost")?;
                let connection = match connecting.into_0rtt() {
                    Ok(_) => anyhow::bail!("{what} takes early data in round {round}"),
                    Err(connecting) => connecting.await?,
                };
                // A ticket, where there is one, comes after the handshake.
                let _ = tokio::time::timeout(Duration::from_millis(100), connection.closed()).await;
                connection.close(0_u32.into(), b"");
            }
            seen.push(what);
        }
        Ok(format!("no early data at {}, with a ticket or without", seen.join(" and ")))
    })
}
