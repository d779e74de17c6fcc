//! The line to the gate's frames listener: mutual TLS 1.3 over TCP, marks one way, reports the other.

use super::{Proof, Tap};
use anyhow::{Context as _, bail};
use rustls::pki_types::ServerName;
use socket2::SockRef;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trocar_control::trust::{Identity, PeerIdentity, TrustList};
use trocar_proto::handover::frameproof::{ALPN, MARK_LEN, Mark};

/// First and longest wait before the gate is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Connecting and the handshake are over by then.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A gate that sends no mark, or takes no report, for so long is gone.
const SILENCE: Duration = Duration::from_secs(1);
/// What the gate's certificate has to say it is.
const ROLE: &str = "gate";

type Stream = TlsStream<TcpStream>;

/// Keeps the line of one feed.
pub(super) struct Line {
    proof: Proof,
    feed: String,
    identity: Identity,
    trust: TrustList,
}

impl Line {
    pub(super) const fn new(proof: Proof, feed: String, identity: Identity, trust: TrustList) -> Self {
        Self { proof, feed, identity, trust }
    }

    /// Connects, reports, and connects again, for ever.
    pub(super) async fn keep(mut self, tap: Arc<Tap>) {
        let mut wait = BACKOFF.0;
        let mut outage = None::<Instant>;
        loop {
            let error = match self.connect().await {
                Ok(stream) => {
                    let gone =
                        outage.take().map_or(String::new(), |s| format!(" after {:.1} s", s.elapsed().as_secs_f64()));
                    println!("{}: frames are reported to the gate at {}{gone}", self.feed, self.proof.gate);
                    wait = BACKOFF.0;
                    carry(stream, &tap, self.proof.source).await
                }
                Err(error) => error,
            };
            tap.disconnect();
            if outage.is_none() {
                outage = Some(Instant::now());
                let (feed, gate) = (&self.feed, &self.proof.gate);
                println!("{feed}: frames are NOT reported to the gate at {gate}: {error:#}; trying again");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    async fn connect(&mut self) -> anyhow::Result<Stream> {
        // A list that cannot be used now leaves the former in force.
        if let Err(error) = self.trust.reload() {
            tracing::warn!(%error, "trust list");
        }
        let config = self.trust.current().device_client_config(&self.identity, ALPN)?;
        let work = async {
            let tcp = TcpStream::connect(self.proof.gate.resolve().await?).await?;
            tcp.set_nodelay(true)?;
            // A gate that does not acknowledge is gone, however long the kernel would try.
            SockRef::from(&tcp).set_tcp_user_timeout(Some(SILENCE))?;
            // Devices have no host names; who it is stands in its certificate.
            let nobody = ServerName::try_from("trocar.invalid")?;
            anyhow::Ok(TlsConnector::from(Arc::new(config)).connect(nobody, tcp).await?)
        };
        let stream = timeout(CONNECT_WITHIN, work).await.context("no answer within 2 s")??;
        let (_, tls) = stream.get_ref();
        let peer = PeerIdentity::of(tls.peer_certificates().unwrap_or_default(), rustls::pki_types::UnixTime::now());
        match peer {
            Some(peer) if peer.name.role == ROLE && tls.alpn_protocol() == Some(ALPN) => Ok(stream),
            Some(peer) if peer.name.role == ROLE => bail!("{} does not speak trocar-frames/1", peer.name),
            Some(peer) => bail!("{} answers: a certificate of role gate is right", peer.name),
            None => bail!("the certificate there has no name trocar://REALM/gate/NAME"),
        }
    }
}

/// Reports until the line breaks; why it did.
async fn carry(stream: Stream, tap: &Tap, source: u16) -> anyhow::Error {
    let (reader, writer) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = read_marks(reader, tap) => ended,
        ended = write_reports(writer, tap, source) => ended,
    };
    match ended {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

async fn read_marks(mut reader: ReadHalf<Stream>, tap: &Tap) -> anyhow::Result<std::convert::Infallible> {
    let mut bytes = [0; MARK_LEN];
    loop {
        let read = timeout(SILENCE, reader.read_exact(&mut bytes)).await.context("the gate is silent")?;
        read.context(
            "the gate closed the line: it may refuse this certificate, or have another publisher of this source",
        )?;
        tap.set_mark(Mark::decode(&bytes).context("not a gate's mark")?);
    }
}

async fn write_reports(
    mut writer: WriteHalf<Stream>,
    tap: &Tap,
    source: u16,
) -> anyhow::Result<std::convert::Infallible> {
    loop {
        let report = tap.next_report(source).await;
        let write = async {
            writer.write_all(&report.encode()).await?;
            writer.flush().await
        };
        timeout(SILENCE, write).await.context("the gate takes nothing")??;
    }
}
