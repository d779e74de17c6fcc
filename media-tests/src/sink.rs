//! A light WebRTC viewer that stands for many: WHEP, ICE, DTLS, and every SRTP packet opened and counted. It decodes nothing.

pub mod door;
pub(crate) mod dtls;
mod flood;
mod wire;

use crate::attack::ws::Socket;
use anyhow::{Context, bail, ensure};
use dtls::{DtlsClient, Out, fingerprint};
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceCreds, Protocol};
use reqwest::Method;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use trocar_proto::media::rtp;
use trocar_relay::srtp::Srtp;
use trocar_relay::webrtc::transport::dtls_certificate;
use wire::Wire;

pub use flood::Flood;

/// From the offer to the first packet.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a sink has seen, read from outside while it runs.
#[derive(Debug, Default)]
pub struct Counts {
    /// SRTP packets that opened.
    pub packets: AtomicU64,
    /// Their bytes on the wire, without UDP and IP.
    pub bytes: AtomicU64,
    /// SRTP packets that did not open.
    pub refused: AtomicU64,
    /// Sequence numbers that were skipped.
    pub gaps: AtomicU64,
}

/// Somebody who may ask for feeds.
pub struct Viewer {
    http: reqwest::Client,
    base: String,
    session: String,
    participant: String,
    token: String,
    tcp: bool,
}

impl Viewer {
    /// Redeems an invitation.
    ///
    /// # Errors
    /// Where signaling refuses.
    pub async fn join(base: &str, invitation: &str) -> anyhow::Result<Self> {
        let http = crate::http_client()?;
        let body = json!({ "invitation": invitation, "name": "Sink" });
        let response = http.post(format!("{base}v1/join")).json(&body).send().await?.error_for_status()?;
        let grant: Value = response.json().await?;
        let text = |k: &str| grant.get(k).and_then(Value::as_str).map(ToOwned::to_owned).context("join");
        let (session, participant, token) = (text("session")?, text("participant")?, text("token")?);
        Ok(Self { http, base: base.to_owned(), session, participant, token, tcp: false })
    }

    /// Gives the place in the session back.
    ///
    /// # Errors
    /// Where signaling refuses.
    pub async fn leave(self) -> anyhow::Result<()> {
        self.ask(Method::DELETE, &format!("participants/{}", self.participant), None).await.map(drop)
    }

    /// Asks for a path of the session, the session itself where it is empty; the answer, null where it has no body.
    ///
    /// # Errors
    /// Where signaling refuses, in its words.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.ask_api(method, format!("sessions/{}/{path}", self.session).trim_end_matches('/'), body).await
    }

    /// Takes a fresh token.
    ///
    /// # Errors
    /// Where signaling refuses.
    pub async fn refresh(&mut self) -> anyhow::Result<()> {
        let grant = self.ask_api(Method::POST, "token", None).await?;
        self.token = grant.get("token").and_then(Value::as_str).context("no token")?.to_owned();
        Ok(())
    }

    /// Opens its event socket and waits to be welcome. The page is plain HTTP on this machine.
    ///
    /// # Errors
    /// Where it is not.
    pub(crate) async fn events(&self) -> anyhow::Result<Socket> {
        let at = self.base.trim_start_matches("http://").trim_end_matches('/').parse()?;
        let mut socket = Socket::open(at, &self.session, &self.token).await?;
        socket.text(|text| text.contains("welcome")).await?;
        Ok(socket)
    }

    async fn ask_api(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut request = self.http.request(method, format!("{}v1/{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }

    /// The same viewer where no UDP gets through: its sinks connect by TCP (RFC 6544).
    #[must_use]
    pub fn over_tcp(self) -> Self {
        Self { tcp: true, ..self }
    }

    /// Offers by WHEP or WHIP at that path of the session; answer and address of the resource.
    async fn offer(&self, path: &str, offer: String) -> anyhow::Result<(String, String)> {
        let url = format!("{}v1/sessions/{}/{path}", self.base, self.session);
        let request =
            self.http.post(url).bearer_auth(&self.token).header("Content-Type", "application/sdp").body(offer);
        let response = request.send().await?;
        if !response.status().is_success() {
            bail!("{path}: {} {}", response.status(), response.text().await?);
        }
        let location = response.headers().get("location").and_then(|l| l.to_str().ok()).context("no Location")?;
        let location = location.to_owned();
        Ok((response.text().await?, location))
    }

    /// Comes for a feed, waits for its first packet, and leaves again; how long the first packet took.
    ///
    /// # Errors
    /// Where signaling refuses, the transport does not come up, or no packet comes.
    pub async fn visit(&self, feed: &str) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let (mut sink, location) = self.open(feed).await?;
        let first = tokio::time::timeout(PATIENCE, async {
            sink.connect().await?;
            let mut buffer = vec![0; 2_048];
            while sink.counts.packets.load(Ordering::Relaxed) == 0 {
                sink.step(&mut buffer).await?;
            }
            Ok::<_, anyhow::Error>(began.elapsed())
        });
        let first = first.await.context("no packet in time");
        let url = format!("{}{}", self.base.trim_end_matches('/'), location);
        self.http.delete(url).bearer_auth(&self.token).send().await?.error_for_status()?;
        first?
    }

    /// Fetches a feed. The sink runs on the present `LocalSet` until the returned task is aborted.
    ///
    /// # Errors
    /// Where signaling refuses or the transport does not come up.
    pub async fn fetch(&self, feed: &str) -> anyhow::Result<(Arc<Counts>, tokio::task::JoinHandle<()>)> {
        let (mut sink, _) = self.open(feed).await?;
        tokio::time::timeout(PATIENCE, sink.connect()).await.context("no keys in time")??;
        let counts = Arc::clone(&sink.counts);
        let task = tokio::task::spawn_local(async move {
            // Ends when the socket does; the caller sees counters that stand still.
            let _ = sink.serve().await;
        });
        Ok((counts, task))
    }

    async fn open(&self, feed: &str) -> anyhow::Result<(Sink, String)> {
        let certificate = dtls_certificate()?;
        let local = IceCreds::new();
        let (answer, location) =
            self.offer(&format!("feeds/{feed}/whep"), offer(&local, &fingerprint(&certificate))).await?;
        let remote = candidate(&answer, if self.tcp { "tcp" } else { "udp" })?;
        let wire = if self.tcp { Wire::tcp(remote).await? } else { Wire::udp().await? };
        Ok((Sink::new(wire, remote, local, &answer, certificate)?, location))
    }
}

/// The first candidate of an answer with that protocol.
pub(crate) fn candidate(answer: &str, protocol: &str) -> anyhow::Result<SocketAddr> {
    let words = |line: &str| line.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
    let mut all = answer.lines().filter_map(|l| l.strip_prefix("a=candidate:")).map(words);
    let found = all.find(|w| w.get(2).is_some_and(|p| p == protocol));
    let found = found.with_context(|| format!("answer without a {protocol} candidate"))?;
    let (Some(ip), Some(port)) = (found.get(4), found.get(5)) else { bail!("candidate {}", found.join(" ")) };
    Ok(SocketAddr::new(ip.parse()?, port.parse()?))
}

/// An offer as a viewer of H.264 makes it, with random credentials and a fingerprint of nobody: for tests of the HTTP side.
#[must_use]
pub fn some_offer() -> String {
    offer(&IceCreds::new(), &["AB"; 32].join(":"))
}

/// An offer of somebody who receives H.264 with RTX.
pub(crate) fn offer(local: &IceCreds, fingerprint: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n\
         c=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\n\
         a=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:96 H264/90000\r\n\
         a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\na=rtpmap:97 rtx/90000\r\n\
         a=fmtp:97 apt=96\r\n",
        local.ufrag, local.pass
    )
}

/// A value of an answer's attribute.
pub(crate) fn attribute(answer: &str, name: &str) -> anyhow::Result<String> {
    let prefix = format!("a={name}:");
    let found = answer.lines().find_map(|l| l.strip_prefix(&prefix)).map(|v| v.trim().to_owned());
    found.with_context(|| format!("answer without {name}"))
}

/// The ICE agent of a client that sends from that address and got that answer.
pub(crate) fn agent(
    own: IceCreds,
    (address, protocol): (SocketAddr, Protocol),
    relay: SocketAddr,
    answer: &str,
) -> anyhow::Result<IceAgent> {
    let mut ice = IceAgent::new(own);
    ice.set_controlling(true);
    ice.set_remote_credentials(IceCreds {
        ufrag: attribute(answer, "ice-ufrag")?,
        pass: attribute(answer, "ice-pwd")?,
    });
    ice.add_local_candidate(Candidate::host(address, protocol)?);
    ice.add_remote_candidate(Candidate::host(relay, protocol)?);
    ice.handle_timeout(Instant::now());
    Ok(ice)
}

struct Sink {
    wire: Wire,
    address: SocketAddr,
    ice: IceAgent,
    dtls: DtlsClient,
    remote: SocketAddr,
    srtp: Option<Srtp>,
    last: Option<u64>,
    counts: Arc<Counts>,
}

impl Sink {
    fn new(
        wire: Wire,
        remote: SocketAddr,
        local: IceCreds,
        answer: &str,
        certificate: dimpl::DtlsCertificate,
    ) -> anyhow::Result<Self> {
        let (address, now) = (wire.address()?, Instant::now());
        let ice = agent(local, (address, wire.protocol()), remote, answer)?;
        let dtls = DtlsClient::new(certificate, now)?;
        Ok(Self { wire, address, ice, dtls, remote, srtp: None, last: None, counts: Arc::default() })
    }

    /// Runs until there are keys.
    async fn connect(&mut self) -> anyhow::Result<()> {
        let mut buffer = vec![0; 2_048];
        while self.srtp.is_none() {
            self.step(&mut buffer).await?;
        }
        Ok(())
    }

    async fn serve(&mut self) -> anyhow::Result<()> {
        let mut buffer = vec![0; 2_048];
        loop {
            self.step(&mut buffer).await?;
        }
    }

    /// Sends what is due, then reads what has come, for at most 50 ms.
    async fn step(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        let now = Instant::now();
        self.ice.handle_timeout(now);
        while let Some(t) = self.ice.poll_transmit() {
            let bytes: Vec<u8> = t.contents.into();
            self.wire.send_to(&bytes, t.destination).await?;
        }
        while self.ice.poll_event().is_some() {}
        if self.srtp.is_none() && self.ice.state().is_connected() {
            self.drive_dtls(now).await?;
        }
        let until = tokio::time::Instant::now() + Duration::from_millis(50);
        while let Ok(read) = tokio::time::timeout_at(until, self.wire.recv_from(buffer)).await {
            let (len, from) = read?;
            let data = buffer.get_mut(..len).unwrap_or(&mut []);
            if !self.handle(from, data) {
                // A handshake is under way: answer at once.
                break;
            }
        }
        Ok(())
    }

    /// Returns whether reading may go on.
    fn handle(&mut self, from: SocketAddr, data: &mut [u8]) -> bool {
        let now = Instant::now();
        match data.first() {
            Some(0..=1) => {
                if let Ok(message) = StunMessage::parse(data) {
                    let packet =
                        StunPacket { proto: self.wire.protocol(), source: from, destination: self.address, message };
                    self.ice.handle_packet(now, packet);
                }
                false
            }
            Some(20..=63) => {
                self.dtls.handle_packet(now, data);
                false
            }
            Some(128..=191) if !rtp::is_rtcp(data) => {
                self.count(data);
                true
            }
            _ => true,
        }
    }

    fn count(&mut self, data: &mut [u8]) {
        let len = data.len() as u64;
        match self.srtp.as_mut().map(|s| s.receive.open(data)) {
            Some(Ok((_, index))) => {
                if let Some(last) = self.last {
                    self.counts.gaps.fetch_add(index.0.saturating_sub(last + 1), Ordering::Relaxed);
                }
                self.last = Some(index.0);
                self.counts.packets.fetch_add(1, Ordering::Relaxed);
                self.counts.bytes.fetch_add(len, Ordering::Relaxed);
            }
            _ => drop(self.counts.refused.fetch_add(1, Ordering::Relaxed)),
        }
    }

    async fn drive_dtls(&mut self, now: Instant) -> anyhow::Result<()> {
        for out in self.dtls.drive(now)? {
            match out {
                Out::Packet(p) => drop(self.wire.send_to(&p, self.remote).await?),
                Out::Keys(profile, material) => self.srtp = Some(Srtp::from_dtls(profile, &material, true)?),
            }
        }
        Ok(())
    }
}
