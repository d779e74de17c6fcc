//! Cases 1 to 11: HTTP and WebSocket.

use super::arena::Arena;
use super::raw::{connect_from, post_from, read, status, talk};
use super::ws::{CONTINUATION, FIN, PING, Socket, TEXT, head_of, upgrade};
use super::{Played, gatekeeper};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Where floods come from, so that they use up nobody else's credit.
const FLOODER: [u8; 4] = [127, 2, 0, 1];

/// Whether others are served within that time; how long it took.
pub(super) async fn is_served(a: &Arena, within: Duration) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let (answer, _) = talk(a.page, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", within).await?;
    ensure!(status(&answer) == 200, "others are not served within {within:?}: {answer:?}");
    Ok(began.elapsed())
}

pub(super) fn bi_01_header_drip(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let https: SocketAddr = a.stack.text("/https")?.trim_end_matches('/').trim_start_matches("https://").parse()?;
        let drip = |to: SocketAddr, drips: bool| async move {
            let (began, mut stream) = (Instant::now(), TcpStream::connect(to).await?);
            for byte in b"GET / HTTP/1.1\r\nX: ".iter().cycle().take(if drips { 12 } else { 0 }) {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let (_, closed) = read(&mut stream, Duration::from_secs(3)).await;
            let silent = if closed || drips { Duration::ZERO } else { Duration::from_secs(4) };
            let (_, late) = if closed { (Vec::new(), true) } else { read(&mut stream, silent).await };
            ensure!(closed || late, "still open after {:?}", began.elapsed());
            anyhow::Ok(began.elapsed())
        };
        let mut all = Vec::new();
        for n in 0..20 {
            all.push(drip(if n % 2 == 0 { a.page } else { https }, n % 4 < 2));
        }
        let mut longest = Duration::ZERO;
        for took in futures_all(all).await {
            longest = longest.max(took?);
        }
        is_served(a, Duration::from_secs(1)).await?;
        Ok(format!("20 connections, all closed within {:.1} s", longest.as_secs_f64()))
    })
}

/// All of them at once.
async fn futures_all<F: Future>(all: Vec<F>) -> Vec<F::Output> {
    let mut pinned: Vec<_> = all.into_iter().map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        let mut open = false;
        for (future, out) in &mut pinned {
            if out.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *out = Some(value),
                    std::task::Poll::Pending => open = true,
                }
            }
        }
        if open { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    pinned.into_iter().filter_map(|(_, out)| out).collect()
}

pub(super) fn bi_02_idle_connections(a: &Arena) -> Played<'_> {
    gatekeeper::idle_connections(a)
}

pub(super) fn bi_03_endless_body(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let path = format!("/v1/sessions/{}/whip", a.session);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/sdp\r\nConnection: close\r\n",
            a.tokens.local
        );
        let announced = format!("{head}Content-Length: 100000000\r\n\r\nv=0");
        let (answer, _) = talk(a.page, announced.as_bytes(), Duration::from_secs(2)).await?;
        ensure!(status(&answer) == 413, "announced: {answer}");
        let chunk = format!("4000\r\n{}\r\n", "v".repeat(0x4000));
        let endless = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(400));
        let (answer, _) = talk(a.page, endless.as_bytes(), Duration::from_secs(6)).await?;
        ensure!(status(&answer) == 413 || answer.is_empty(), "endless: {answer}");
        is_served(a, Duration::from_secs(1)).await?;
        Ok("100 MB announced: 413 before any was read; 6.5 MB in chunks: 413".to_owned())
    })
}

pub(super) fn bi_04_large_header(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let one = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1_000_000));
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(2_000));
        for request in [one, many] {
            let (answer, _) = talk(a.page, request.as_bytes(), Duration::from_secs(2)).await?;
            // What was not read yet may reset the connection before the answer is seen.
            ensure!(status(&answer) == 431 || answer.is_empty(), "{answer}");
        }
        let (small, _) = talk(
            a.page,
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000)).as_bytes(),
            Duration::from_secs(2),
        )
        .await?;
        ensure!(status(&small) == 431, "20 kB: {small}");
        is_served(a, Duration::from_secs(1)).await?;
        Ok("431 for a header of 1 MB, of 20 kB and for 2000 headers".to_owned())
    })
}

pub(super) fn bi_05_http2(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let (answer, closed) = talk(a.page, preface, Duration::from_secs(6)).await?;
        ensure!(closed && status(&answer) != 200 && !answer.starts_with("\0\0"), "the preface was answered {answer:?}");
        Ok("the preface ends the connection".to_owned())
    })
}

pub(super) fn bi_06_websocket_frames(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let second = Duration::from_secs(2);
        let open = || Socket::open(a.page, &a.session, &a.tokens.observer);
        let mut s = open().await?;
        ensure!(!s.head.to_ascii_lowercase().contains("permessage-deflate"), "compression was agreed: {}", s.head);
        s.stream.write_all(&[head_of(FIN | TEXT, 16 << 20).as_slice(), &[0; 4], &[b'x'; 1_024]].concat()).await?;
        let large = s.close_code(second).await;
        ensure!(large == Some(1009), "a frame of 16 MiB: closed with {large:?}");
        let mut s = open().await?;
        s.send(TEXT, &[b'x'; 1_024]).await?;
        for _ in 0..2_000 {
            if s.send(CONTINUATION, &[b'x'; 1_024]).await.is_err() {
                break;
            }
        }
        let endless = s.close_code(second).await;
        ensure!(matches!(endless, Some(1009) | None), "endless fragments: closed with {endless:?}");
        let mut s = open().await?;
        for _ in 0..10_000 {
            if s.send(FIN | PING, b"ping").await.is_err() {
                break;
            }
        }
        let pings = s.close_code(second).await;
        ensure!(matches!(pings, Some(1008) | None), "10,000 pings: closed with {pings:?}");
        let mut s = open().await?;
        s.send(FIN | 0x40 | TEXT, b"{}").await?;
        let bomb = s.close_code(second).await;
        ensure!(matches!(bomb, Some(1002) | None), "a compressed frame that was not agreed: {bomb:?}");
        Ok(format!("16 MiB: {large:?}; endless fragments: {endless:?}; ping flood: {pings:?}; compressed: {bomb:?}"))
    })
}

pub(super) fn bi_07_foreign_origin(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let foreign = "Origin: https://evil.example\r\nCookie: session=1\r\n";
        let request = upgrade(a.page, &a.session, foreign);
        let (answer, _) = talk(a.page, request.as_bytes(), Duration::from_millis(500)).await?;
        ensure!(status(&answer) == 403, "{answer}");
        let own = format!("Origin: http://{}\r\n", a.page);
        let (answer, _) =
            talk(a.page, upgrade(a.page, &a.session, &own).as_bytes(), Duration::from_millis(200)).await?;
        ensure!(status(&answer) == 101, "the control, the page's own origin: {answer}");
        Ok("403; the page's own origin: 101".to_owned())
    })
}

pub(super) fn bi_08_client_that_never_reads(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let mut deaf = Vec::new();
        for _ in 0..8 {
            let mut stream = connect_from(FLOODER, a.page).await?;
            socket2::SockRef::from(&stream).set_recv_buffer_size(4_096)?;
            let many = b"GET /app.js HTTP/1.1\r\nHost: x\r\n\r\n".repeat(400);
            let _ = tokio::time::timeout(Duration::from_millis(300), stream.write_all(&many)).await;
            deaf.push(stream);
        }
        is_served(a, Duration::from_secs(1)).await?;
        // The stack's `write_stall_ms` is 2000; whoever was cut off gets a reset at the next write.
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        let mut cut = 0;
        for mut stream in deaf {
            let mut broken = false;
            for _ in 0..20 {
                let request = stream.write_all(b"GET / HTTP/1.1\r\n");
                broken |= !matches!(tokio::time::timeout(Duration::from_millis(20), request).await, Ok(Ok(())));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            cut += usize::from(broken || read(&mut stream, Duration::from_secs(2)).await.1);
        }
        ensure!(cut == 8, "{cut} of 8 were cut off");
        Ok("8 connections with 400 requests each and no reading: all cut off, others served".to_owned())
    })
}

pub(super) fn bi_09_json(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let long = "x".repeat(60_000);
        let bodies = [
            ("depth", format!("{{\"invitation\":{}", "[".repeat(10_000)), ""),
            ("twice", "{\"invitation\":\"a\",\"invitation\":\"b\",\"name\":\"x\"}".to_owned(), "invitation"),
            ("NaN", "{\"invitation\":NaN,\"name\":\"x\"}".to_owned(), "invitation"),
            ("lone surrogate", "{\"invitation\":\"\\ud800\",\"name\":\"x\"}".to_owned(), "invitation"),
            ("unknown key", "{\"invitation\":\"a\",\"name\":\"x\",\"role\":\"admin\"}".to_owned(), "role"),
            ("null", "{\"invitation\":null,\"name\":\"x\"}".to_owned(), "invitation"),
            ("number", "{\"invitation\":1e308,\"name\":\"x\"}".to_owned(), "invitation"),
            ("array", "[\"a\",\"x\"]".to_owned(), "body"),
            ("null alone", "null".to_owned(), "body"),
            ("nothing", String::new(), "body"),
            ("long name", format!("{{\"invitation\":\"a\",\"name\":\"{long}\"}}"), ""),
        ];
        let (mut seen, from) = (Vec::new(), [127, 2, 0, 9]);
        for (what, body, field) in bodies {
            let answer = post_from(from, a.page, "/v1/join", &body).await?;
            let problem: Value =
                serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap_or("")).unwrap_or_default();
            let code = status(&answer);
            ensure!((400..500).contains(&code), "{what}: {answer}");
            let named = problem.get("field").and_then(Value::as_str).unwrap_or("");
            ensure!(
                field.is_empty() || named == field || named.starts_with(field),
                "{what}: {field} is not named: {answer}"
            );
            ensure!(answer.len() < 2_000, "{what}: an answer of {} bytes", answer.len());
            seen.push(code.to_string());
        }
        let megabyte = format!("{{\"invitation\":\"{}\"}}", "y".repeat(1 << 20));
        let answer = post_from(from, a.page, "/v1/join", &megabyte).await.unwrap_or_default();
        ensure!(status(&answer) == 413 || answer.is_empty(), "1 MB: {answer}");
        Ok(format!("{}; 1 MB: 413", seen.join(" ")))
    })
}

pub(super) fn bi_10_join_flood(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let body = json!({ "invitation": "none-of-this-is-an-invitation-at-all", "name": "Flood" }).to_string();
        let (mut told, mut through) = (0, 0);
        for _ in 0..1_000 {
            let answer = post_from(FLOODER, a.page, "/v1/join", &body).await?;
            match status(&answer) {
                429 => {
                    ensure!(answer.to_ascii_lowercase().contains("retry-after:"), "429 without Retry-After");
                    told += 1;
                }
                400 | 403 => through += 1,
                other => anyhow::bail!("{other}: {answer}"),
            }
        }
        ensure!(told > 800, "{told} of 1000 were told to wait");
        super::arena::join(&a.http, &a.stack, "observer").await.context("others can join")?;
        Ok(format!("{told} of 1000 got 429 with Retry-After, {through} an answer; others join"))
    })
}

pub(super) fn bi_11_names(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let long = "n".repeat(10_000);
        let names = [
            "../../etc/passwd",
            "a\0b",
            "\u{202e}gpj",
            long.as_str(),
            "$(reboot)",
            "a;rm -rf",
            "a b",
            "",
            "\u{1b}[31m",
        ];
        for name in names {
            let feed = json!({
                "feed": name, "source": "x", "view": "v", "kind": "video", "purpose": "room", "codec": "H264", "fmtp": "",
                "clock_rate": 90_000, "payload_type": 96, "width": 1, "height": 1, "fps": 1.0, "max_bitrate": 1_000,
                "budget_ms": 100, "header_extensions": {}, "transport": { "roq": { "mode": "datagram" } },
            });
            let response = a.request(reqwest::Method::POST, "feeds", &a.tokens.bound).json(&feed).send().await?;
            let (code, text) = (response.status().as_u16(), response.text().await?);
            ensure!(code == 400 && text.contains("feed"), "{name:?} as a feed: {code} {text}");
            ensure!(!text.contains('\u{202e}') && !text.contains('\u{1b}'), "{name:?} is echoed: {text}");
        }
        for path in ["..%2f..%2fetc", "%00", "%e2%80%aegpj", "a%20b", "%1b%5b31m", "%ff%fe"] {
            let request = format!(
                "DELETE /v1/sessions/{}/feeds/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
                a.session, a.tokens.local
            );
            let (answer, _) = talk(a.page, request.as_bytes(), Duration::from_secs(2)).await?;
            ensure!(matches!(status(&answer), 400 | 404), "{path}: {answer}");
        }
        Ok(format!("{} names in a body and 6 in a path: 400", names.len()))
    })
}
