//! Cases 20 to 27: SDP, STUN, ICE and DTLS.

use super::Played;
use super::arena::Arena;
use super::beside::FEED;
use super::peer::{Draft, Peer};
use anyhow::{Context as _, ensure};
use reqwest::Method;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// Where viewers ask.
pub(super) fn whep() -> String {
    format!("feeds/{FEED}/whep")
}

/// A viewer that was let in and is not connected yet, with the address of its resource.
pub(super) async fn admitted(a: &Arena) -> anyhow::Result<(Peer, String)> {
    let draft = Draft::viewer().await?;
    let (code, location, answer) = a.offer(&whep(), &a.tokens.observer, draft.sdp.clone()).await?;
    ensure!(code == 201, "{code} {answer}");
    Ok((draft.answered(&answer)?, location))
}

/// A viewer that gets media.
pub(super) async fn watching(a: &Arena) -> anyhow::Result<(Peer, String)> {
    let (mut peer, location) = admitted(a).await?;
    peer.connect().await?;
    peer.begin().await?;
    gets_media(&mut peer, "before").await?;
    Ok((peer, location))
}

/// Media comes now: what came while the case looked elsewhere does not count.
pub(super) async fn gets_media(peer: &mut Peer, when: &str) -> anyhow::Result<u64> {
    peer.watch(Duration::from_millis(100)).await?;
    let count = peer.watch(Duration::from_millis(300)).await?;
    ensure!(count > 50, "{count} packets in 0.3 s {when}: the session was affected");
    Ok(count)
}

pub(super) fn bi_20_monstrous_sdp(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let good = Draft::viewer().await?.sdp;
        let m_line = format!("m=video{}", good.split("m=video").nth(1).context("m-line")?);
        let bandwidth = "b=AS:1\r\n";
        let offers = [
            ("10 MB", format!("{good}a=x:{}\r\n", "x".repeat(10_000_000)), 413),
            ("100,000 lines", format!("{good}{}", bandwidth.repeat(100_000)), 413),
            ("6,000 lines", format!("{good}{}", bandwidth.repeat(6_000)), 400),
            ("1,000 m-lines", format!("{good}{}", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n".repeat(1_000)), 400),
            ("17 m-lines", format!("{good}{}", m_line.repeat(16)), 400),
            ("payload type 200", good.replace("SAVPF 96 97", "SAVPF 200 97").replace(":96 ", ":200 "), 400),
            ("payload type 2^64", good.replace("SAVPF 96 97", "SAVPF 18446744073709551616"), 400),
            ("NUL", good.replace("s=-", "s=\0"), 400),
            ("ptime 10^20", format!("{good}a=ptime:99999999999999999999\r\n"), 400),
            ("nothing", String::new(), 400),
        ];
        let mut seen = Vec::new();
        for (what, sdp, want) in offers {
            let began = Instant::now();
            match a.offer(&whep(), &a.tokens.observer, sdp).await {
                Ok((code, _, text)) => {
                    let fits = code == want || want == 400 && matches!(code, 406 | 422);
                    ensure!(fits, "{what}: {code} {text}");
                    ensure!(text.len() < 2_000, "{what}: an answer of {} bytes", text.len());
                }
                // The refusal of what is too large may overtake the end of the request.
                Err(_) if want == 413 => {}
                Err(e) => return Err(e.context(what)),
            }
            let took = began.elapsed();
            ensure!(took < Duration::from_millis(250), "{what} took {took:?}");
            seen.push(format!("{what} {want}"));
        }
        // These are no reason to refuse; what is too many is passed over.
        let candidates: String = (0..900)
            .map(|n| format!("a=candidate:{n} 1 udp 1 192.0.2.{} {} typ host\r\n", n % 250, 1_024 + n))
            .collect();
        for (what, more) in [("900 candidates", candidates.as_str()), ("a ptime of 20", "a=ptime:20\r\n")] {
            let (code, location, text) = a.offer(&whep(), &a.tokens.observer, format!("{good}{more}")).await?;
            ensure!(code == 201, "{what}: {code} {text}");
            ensure!(text.len() < 8_000, "{what}: an answer of {} bytes", text.len());
            a.hang_up(&location, &a.tokens.observer).await?;
            seen.push(format!("{what} 201, bounded"));
        }
        Ok(seen.join(", "))
    })
}

pub(super) fn bi_21_munged_sdp(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let good = Draft::viewer().await?.sdp;
        let fingerprint = good.lines().find(|l| l.starts_with("a=fingerprint")).context("fingerprint")?;
        let section = good.split("m=video").nth(1).context("m-line")?;
        let other_password = section.replace("a=ice-pwd:", "a=ice-pwd:other").replace("a=mid:0", "a=mid:1");
        let offers = [
            ("setup:passive", good.replace("a=setup:actpass", "a=setup:passive")),
            ("setup:holdconn", good.replace("a=setup:actpass", "a=setup:holdconn")),
            ("two setups", good.replace("a=setup:actpass", "a=setup:actpass\r\na=setup:active")),
            ("ice-lite", good.replace("a=mid:0", "a=ice-lite\r\na=mid:0")),
            ("no fingerprint", good.replace(fingerprint, "a=x")),
            ("fingerprint of MD5", good.replace("a=fingerprint:sha-256", "a=fingerprint:md5")),
            ("short fingerprint", good.replace(fingerprint, "a=fingerprint:sha-256 AB:CD")),
            ("RTP/AVP", good.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP")),
            ("no rtcp-mux", good.replace("a=rtcp-mux\r\n", "")),
            (
                "crypto of SDES",
                good.replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF").replace(
                    fingerprint,
                    "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
                ),
            ),
            ("one mid twice", format!("{good}m=video{section}")),
            ("two identities, one ufrag", format!("{}m=video{other_password}", good.replace("BUNDLE 0", "BUNDLE 0 1"))),
            ("bundle of what is not there", good.replace("BUNDLE 0", "BUNDLE 7 8")),
            ("a short password", good.replace("a=ice-pwd:", "a=ice-pwd:x\r\na=y:")),
        ];
        let mut codes = std::collections::BTreeMap::<u16, u32>::new();
        for (what, sdp) in offers {
            ensure!(sdp != good, "{what} changes nothing");
            let (code, location, text) = a.offer(&whep(), &a.tokens.observer, sdp).await?;
            let is_harmless = what.starts_with("bundle") || what.starts_with("two identities");
            ensure!(matches!(code, 400 | 406 | 422) || is_harmless && code == 201, "{what}: {code} {text}");
            if code == 201 {
                a.hang_up(&location, &a.tokens.observer).await?;
            }
            *codes.entry(code).or_default() += 1;
        }
        let (code, location, text) = a.offer(&whep(), &a.tokens.observer, good).await?;
        ensure!(code == 201, "the control: {code} {text}");
        a.hang_up(&location, &a.tokens.observer).await?;
        Ok(format!("status and how often: {codes:?}; unchanged: 201"))
    })
}

pub(super) fn bi_22_other_certificate(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let mut draft = Draft::viewer().await?;
        let fingerprint = draft.sdp.lines().find(|l| l.starts_with("a=fingerprint")).context("fingerprint")?.to_owned();
        let wrong = format!("a=fingerprint:sha-256 {}", ["5A"; 32].join(":"));
        draft.sdp = draft.sdp.replace(&fingerprint, &wrong);
        let (code, _, answer) = a.offer(&whep(), &a.tokens.observer, draft.sdp.clone()).await?;
        ensure!(code == 201, "{code} {answer}");
        let mut peer = draft.answered(&answer)?;
        let until = Instant::now() + Duration::from_millis(1_200);
        let mut media = 0;
        while Instant::now() < until {
            // Whatever keys this end believes to have, nothing may come that they open.
            if peer.step(true, |_| media += 1).await.is_err() {
                break;
            }
        }
        ensure!(media == 0, "{media} packets came for a certificate that is not the one of the offer");
        Ok("the handshake ends without media; the relay is never the client".to_owned())
    })
}

/// A DTLS record of a ClientHello that offers the NULL cipher alone.
fn null_hello(sequence: u8) -> Vec<u8> {
    let mut body = vec![0xfe, 0xfd];
    body.extend([7; 32]);
    body.extend([0, 0, 0, 2, 0, 0, 1, 0]);
    handshake(sequence, body.len(), 0, &body)
}

/// A handshake record: length of the message that it claims to be a part of, and where the part begins.
fn handshake(sequence: u8, length: usize, offset: usize, part: &[u8]) -> Vec<u8> {
    let three = |n: usize| [(n >> 16) as u8, (n >> 8) as u8, n as u8];
    let mut message = vec![1];
    message.extend(three(length));
    message.extend([0, sequence]);
    message.extend(three(offset));
    message.extend(three(part.len()));
    message.extend(part);
    record(22, sequence, &message)
}

fn record(kind: u8, sequence: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, sequence];
    out.extend((content.len() as u16).to_be_bytes());
    out.extend(content);
    out
}

pub(super) fn bi_23_null_cipher(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let unknown = "trocar_worker_unknown_source_datagrams_total";
        let before = a.metric(unknown).await?;
        let (mut peer, location) = admitted(a).await?;
        peer.validate().await?;
        let elsewhere = UdpSocket::bind("127.0.0.1:0").await?;
        for n in 0..50 {
            elsewhere.send_to(&null_hello(n), peer.remote).await?;
        }
        // During the handshake, from the address that is validated.
        for n in 0..3 {
            peer.throw(&null_hello(n)).await?;
        }
        let during = peer.connect().await;
        if during.is_err() {
            // Whoever can send from the peer's own address before it does can keep it from connecting; it comes again.
            let (again, _) = admitted(a).await?;
            peer = again;
            peer.connect().await?;
        }
        peer.begin().await?;
        gets_media(&mut peer, "before").await?;
        for n in 0..50 {
            elsewhere.send_to(&null_hello(n), peer.remote).await?;
            peer.throw(&null_hello(n)).await?;
            peer.throw(&record(21, n, &[2, 40])).await?;
        }
        gets_media(&mut peer, "after 50 of them and 50 alerts").await?;
        let counted = a.rises(unknown, before, 100.0).await?;
        let mut byte = [0; 64];
        ensure!(elsewhere.try_recv(&mut byte).is_err(), "an unvalidated address was answered");
        let _ = a.hang_up(&location, &a.tokens.observer).await;
        let during = if during.is_ok() { "went on" } else { "had to be begun again" };
        Ok(format!("{counted:.0} from elsewhere dropped; a handshake with 3 among it {during}; media goes on"))
    })
}

pub(super) fn bi_24_dtls_fragments(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (mut peer, _) = admitted(a).await?;
        peer.validate().await?;
        for n in 0..200_u8 {
            peer.throw(&handshake(0, 0xff_ffff, usize::from(n) * 1_000, &[n; 1_000])).await?;
            peer.throw(&handshake(n, 300, 0, &[])).await?;
            peer.throw(&handshake(1, 300, 100, &[n; 200])).await?;
            peer.throw(&handshake(1, 300, 50, &[n; 100])).await?;
            peer.throw(&record(22, n, &[])).await?;
        }
        let half = peer.connect().await;
        // Ten thousand that never go on, from addresses that nobody validated.
        let unknown = "trocar_worker_unknown_source_datagrams_total";
        let before = a.metric(unknown).await?;
        let mut answered = 0;
        for n in 0..50 {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            for i in 0..200 {
                socket.send_to(&null_hello(i), peer.remote).await?;
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
            answered += usize::from(n > 0 && socket.try_recv(&mut [0; 64]).is_ok());
        }
        ensure!(answered == 0, "{answered} were answered");
        let counted = a.rises(unknown, before, 9_000.0).await?;
        let (mut healthy, location) = watching(a).await?;
        gets_media(&mut healthy, "after").await?;
        a.hang_up(&location, &a.tokens.observer).await?;
        let half = if half.is_ok() { "connects all the same" } else { "is given up" };
        Ok(format!("a handshake among 1,000 pieces {half}; {counted:.0} half-open ones dropped, none answered"))
    })
}

/// A STUN message of that type with these attributes; lengths as they should be.
fn stun(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend(kind.to_be_bytes());
        body.extend((value.len() as u16).to_be_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut out = kind.to_be_bytes().to_vec();
    out.extend((body.len() as u16).to_be_bytes());
    out.extend(0x2112_a442_u32.to_be_bytes());
    out.extend([5; 12]);
    out.extend(body);
    out
}

pub(super) fn bi_25_stun(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (mut peer, location) = watching(a).await?;
        let username = format!("{}:x", peer.ufrag);
        let (name, integrity, priority) = ((6, username.as_bytes()), (8, &[7; 20][..]), (0x24, &[1, 2, 3, 4][..]));
        let controlling = (0x802a, &[1; 8][..]);
        let mut overrun = stun(1, &[name, priority]);
        if let Some(len) = overrun.get_mut(23) {
            *len = 0xff;
        }
        let mut lying = stun(1, &[name, priority, integrity]);
        if let Some(len) = lying.get_mut(3) {
            *len = 0xf0;
        }
        let narrow = stun(1, &[name, (0x24, &[1]), (0x802a, &[1]), (0x8028, &[1, 2]), (8, &[1, 2, 3])]);
        let many: Vec<(u16, &[u8])> = vec![(0x8022, &[0; 4]); 60];
        let all = [
            stun(1, &[]),
            stun(1, &[name]),
            stun(1, &[name, priority, controlling, integrity]),
            stun(0x11, &[name, integrity]),
            stun(0x101, &[name, integrity]),
            stun(3, &[name, (0x19, &[17, 0, 0, 0])]),
            overrun,
            lying,
            narrow,
            stun(1, &many),
            stun(1, &[(6, &[0xff; 500])]),
            vec![0; 20],
            vec![0, 1],
            vec![1],
        ];
        let refused = "trocar_worker_refused_stun_total";
        let before = a.metric(refused).await?;
        let elsewhere = UdpSocket::bind("127.0.0.1:0").await?;
        let mut sent = 0;
        for round in 0..150 {
            for message in &all {
                elsewhere.send_to(message, peer.remote).await?;
                sent += 1;
            }
            if round % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let counted = a.rises(refused, before, f64::from(sent) * 0.9).await?;
        let mut byte = [0; 64];
        ensure!(elsewhere.try_recv(&mut byte).is_err(), "what is not authentic was answered");
        gets_media(&mut peer, "after").await?;
        ensure!(peer.stun_in <= peer.stun_out, "{} bytes of answers to {} bytes", peer.stun_in, peer.stun_out);
        a.hang_up(&location, &a.tokens.observer).await?;
        Ok(format!(
            "{counted:.0} of {sent} refused and counted, no answer; to authentic ones {} bytes for {}",
            peer.stun_in, peer.stun_out
        ))
    })
}

pub(super) fn bi_26_ice_storms(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let inside = UdpSocket::bind("127.0.0.1:0").await?;
        let port = inside.local_addr()?.port();
        let mut draft = Draft::viewer().await?;
        for (n, host) in ["127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "224.0.0.1", "10.0.0.1"].iter().enumerate()
        {
            draft.sdp += &format!("a=candidate:{n} 1 udp 2130706431 {host} {port} typ host\r\n");
        }
        for n in 0..200 {
            draft.sdp += &format!("a=candidate:9{n} 1 udp 1 {n}.local {port} typ host\r\n");
        }
        let token = super::arena::join(&a.http, &a.stack, "observer").await?;
        let (code, location, answer) = a.offer(&whep(), &token, draft.sdp.clone()).await?;
        ensure!(code == 201, "{code} {answer}");
        let mut peer = draft.answered(&answer)?;
        peer.connect().await?;
        let url = format!("{}{location}", a.base.trim_end_matches('/'));
        let (mut taken, mut told) = (0, 0);
        for n in 0..300 {
            let fragment = format!("a=ice-ufrag:storm{n:03}\r\na=ice-pwd:0123456789012345678901{n:03}\r\n");
            let request = a.http.request(Method::PATCH, &url).bearer_auth(&token).header("If-Match", "*");
            let response =
                request.header("Content-Type", "application/trickle-ice-sdpfrag").body(fragment).send().await?;
            match response.status().as_u16() {
                200 => taken += 1,
                429 => told += 1,
                other => anyhow::bail!("{other}: {}", response.text().await?),
            }
        }
        ensure!(told > 100, "{taken} of 300 restarts were taken");
        let mut byte = [0; 64];
        ensure!(inside.try_recv(&mut byte).is_err(), "a candidate of the offer was sent to");
        is_still_there(a).await?;
        Ok(format!("{taken} restarts taken, {told} got 429; nothing was sent to any candidate of the offer"))
    })
}

async fn is_still_there(a: &Arena) -> anyhow::Result<()> {
    let (_, location) = watching(a).await?;
    a.hang_up(&location, &a.tokens.observer).await
}

pub(super) fn bi_27_consent_lost(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let (peer, location) = watching(a).await?;
        let gone = Instant::now();
        // The socket stays; what comes is counted without a word in return.
        let (mut last, mut count) = (gone, 0_u64);
        let mut buffer = [0; 2_048];
        let until = tokio::time::Instant::now() + Duration::from_secs(9);
        while let Ok(Ok(_)) = tokio::time::timeout_at(until, peer.socket.recv_from(&mut buffer)).await {
            (last, count) = (Instant::now(), count + 1);
        }
        let stopped: Duration = last - gone;
        ensure!(count > 100, "the control: {count} packets came while there was consent");
        ensure!(stopped < Duration::from_millis(5_600), "media came for {stopped:?} after the last check");
        let _ = a.hang_up(&location, &a.tokens.observer).await;
        Ok(format!("{count} packets, the last {:.1} s after the last check", stopped.as_secs_f64()))
    })
}

/// The address of the relay's WebRTC socket.
pub(super) fn webrtc(a: &Arena) -> anyhow::Result<SocketAddr> {
    Ok(a.stack.text("/relay/webrtc")?.parse()?)
}

pub(super) fn bi_28_turn(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        for kind in [0x0003, 0x0004, 0x0008, 0x0009, 0x000a] {
            let request = stun(kind, &[(0x19, &[17, 0, 0, 0]), (0x12, &[0, 1, 0, 80, 127, 0, 0, 1])]);
            socket.send_to(&request, webrtc(a)?).await?;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        ensure!(
            socket.try_recv(&mut [0; 64]).is_err(),
            "Allocate, Refresh, CreatePermission or ChannelBind is answered"
        );
        Ok("Allocate, Refresh, CreatePermission, ChannelBind and Connect get no answer".to_owned())
    })
}

pub(super) fn bi_39_sctp(a: &Arena) -> Played<'_> {
    Box::pin(async move {
        let mut draft = Draft::viewer().await?;
        draft.sdp +=
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sctp-port:5000\r\n";
        draft.sdp = draft.sdp.replace("BUNDLE 0", "BUNDLE 0 1");
        let (code, location, answer) = a.offer(&whep(), &a.tokens.observer, draft.sdp.clone()).await?;
        ensure!(code == 201, "{code} {answer}");
        ensure!(answer.contains("m=application 0 ") && answer.contains("a=group:BUNDLE 0\r\n"), "{answer}");
        a.hang_up(&location, &a.tokens.observer).await?;
        Ok("an m-line for a data channel is answered with port 0".to_owned())
    })
}
