//! One connection of syslog over TLS (RFC 5425), and whether the repository can be believed to have read all of it.
//!
//! RFC 5425 has no acknowledgement, and with TLS 1.3 a client is done before the server has looked at its certificate. So a batch
//! is believed only after all of this:
//!
//! 1. nothing bad was heard in a short wait before the first record: a server that refuses the certificate says so, or goes, at once;
//! 2. everything was written, and `close_notify` as the last;
//! 3. the peer ended the connection after that, without an alert and without a reset;
//! 4. the kernel has every byte acknowledged. An end that was on its way before our records reached a closed socket looks the same to a
//!    reader; the missing acknowledgement tells them apart.
//!
//! A kernel resets a connection whose process goes while bytes wait to be read. So an orderly end says that the process took
//! `close_notify`, and all before it, from its socket. A receiver that is done with what it has read before it reads on then has it;
//! what one that queues in memory loses when it is killed, `reconcile` finds.

use super::Repository;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connecting, and the handshake.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an alert is waited for before the first record. A server that gives session tickets has taken the certificate: no wait.
const HEAR: Duration = Duration::from_millis(250);
/// Writing a batch.
const WRITE: Duration = Duration::from_secs(30);
/// Waiting for the peer's end after `close_notify`, then after the end of our half as well.
const END: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(7)];
/// Waiting for the last acknowledgement.
const ACKNOWLEDGE: Duration = Duration::from_secs(2);

/// Why a batch is not believed to be there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undelivered {
    #[error("{0}")]
    Files(String),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Handshake(io::Error),
    #[error("it ended the connection before the first record, as for a certificate that it does not take: {0}")]
    Refused(String),
    #[error("the connection broke while records were written: {0}")]
    Write(io::Error),
    #[error("the connection did not end in order: {0}")]
    Unclean(String),
}

impl Undelivered {
    /// For the figures.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Files(_) => "files",
            Self::Connect(_) => "connect",
            Self::Handshake(_) => "tls",
            Self::Refused(_) => "refused",
            Self::Write(_) => "write",
            Self::Unclean(_) => "unclean",
        }
    }
}

/// A message with its length in front (RFC 5425 section 4.3).
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    let mut framed = format!("{} ", message.len()).into_bytes();
    framed.extend_from_slice(message);
    framed
}

/// The name that the repository's certificate has to have.
pub(super) fn server_name(repository: &Repository) -> Option<ServerName<'static>> {
    let host = repository.address.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']));
    let name = repository.server_name.as_deref().or(host)?;
    ServerName::try_from(name.to_owned()).ok()
}

/// Sends framed messages on a connection of their own. When it returns, the repository can be believed to have read them.
pub(super) async fn deliver(repository: &Repository, messages: &[Vec<u8>]) -> Result<(), Undelivered> {
    let tls = client_config(repository).map_err(Undelivered::Files)?;
    let name = server_name(repository).ok_or_else(|| Undelivered::Files("server_name is no name".to_owned()))?;
    let late = |what: &str| io::Error::new(io::ErrorKind::TimedOut, what.to_owned());
    let tcp = timeout(CONNECT, TcpStream::connect(&repository.address)).await;
    let tcp = tcp.unwrap_or_else(|_| Err(late("no answer"))).map_err(Undelivered::Connect)?;
    let ends = tcp.local_addr().and_then(|here| Ok((here, tcp.peer_addr()?))).map_err(Undelivered::Connect)?;
    let stream = timeout(CONNECT, TlsConnector::from(Arc::new(tls)).connect(name, tcp)).await;
    let mut stream = stream.unwrap_or_else(|_| Err(late("no handshake"))).map_err(Undelivered::Handshake)?;
    hear(&mut stream).await?;
    let written = timeout(WRITE, write(&mut stream, messages)).await;
    if let Err(error) = written.unwrap_or_else(|_| Err(late("it takes nothing"))) {
        // What it had to say may still be there to be read, and says more than a broken pipe.
        let said = timeout(HEAR, until_end(&mut stream)).await;
        return Err(Undelivered::Write(said.ok().and_then(Result::err).unwrap_or(error)));
    }
    end(&mut stream).await.map_err(|e| Undelivered::Unclean(e.to_string()))?;
    acknowledged(&stream, ends).await
}

/// Waits shortly for a refusal. A session ticket says that there will be none.
async fn hear(stream: &mut TlsStream<TcpStream>) -> Result<(), Undelivered> {
    let heard = timeout(
        HEAR,
        poll_fn(|context| {
            let mut bytes = [0; 256];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Err("it hung up".to_owned())),
                Poll::Ready(Ok(())) => Poll::Ready(Err("it spoke, which no syslog receiver does".to_owned())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.to_string())),
                Poll::Pending if stream.get_ref().1.tls13_tickets_received() > 0 => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            }
        }),
    );
    heard.await.unwrap_or(Ok(())).map_err(Undelivered::Refused)
}

async fn write(stream: &mut TlsStream<TcpStream>, messages: &[Vec<u8>]) -> io::Result<()> {
    for message in messages {
        stream.write_all(message).await?;
    }
    stream.get_mut().1.send_close_notify();
    stream.flush().await
}

/// Waits for the peer's end. One that waits for the end of our half is given it after a while.
async fn end(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    if let Ok(ended) = timeout(END[0], until_end(stream)).await {
        return ended;
    }
    stream.shutdown().await?;
    let late = || io::Error::new(io::ErrorKind::TimedOut, "it does not end the connection");
    timeout(END[1], until_end(stream)).await.unwrap_or_else(|_| Err(late()))
}

async fn until_end(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let mut bytes = [0; 256];
    loop {
        match stream.read(&mut bytes).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // Without a `close_notify` of its own: rsyslog with GnuTLS ends so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Waits until the kernel has nothing left that the peer has not acknowledged.
async fn acknowledged(stream: &TlsStream<TcpStream>, ends: (SocketAddr, SocketAddr)) -> Result<(), Undelivered> {
    let tcp = stream.get_ref().0;
    let deadline = Instant::now() + ACKNOWLEDGE;
    let unclean = |what: &str| Err(Undelivered::Unclean(what.to_owned()));
    loop {
        match tcp.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Err(Undelivered::Unclean(error.to_string())),
        }
        let table = if ends.0.is_ipv4() { "tcp" } else { "tcp6" };
        let table = tokio::fs::read_to_string(format!("/proc/self/net/{table}")).await;
        match table.map(|t| unacknowledged(&t, ends)) {
            Ok(Some(0)) => return Ok(()),
            Ok(Some(_)) if Instant::now() < deadline => sleep(Duration::from_millis(5)).await,
            Ok(Some(_)) => return unclean("it has not acknowledged every byte"),
            Ok(None) => return unclean("it was reset"),
            Err(error) => return Err(Undelivered::Unclean(format!("/proc/self/net cannot be read: {error}"))),
        }
    }
}

/// Bytes that wait or are not acknowledged, by the kernel's table of connections; none where the connection is not in it.
fn unacknowledged(table: &str, (here, there): (SocketAddr, SocketAddr)) -> Option<u64> {
    let wanted = (in_table(here), in_table(there));
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) = (fields.next()?, fields.next()?);
        let queue = fields.nth(1)?.split_once(':')?.0;
        (local == wanted.0 && remote == wanted.1).then(|| u64::from_str_radix(queue, 16).ok())?
    })
}

/// An address as that table has it: words of four bytes in the machine's own order, then the port.
fn in_table(at: SocketAddr) -> String {
    let bytes = match at.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = bytes.chunks_exact(4).map(|w| u32::from_ne_bytes(w.try_into().unwrap_or_default()));
    format!("{}:{:04X}", words.map(|w| format!("{w:08X}")).collect::<String>(), at.port())
}

/// TLS 1.3, aws-lc, this node's certificate where it has one.
fn client_config(repository: &Repository) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&repository.ca, "ca")? {
        roots.add(certificate).map_err(|e| format!("audit.export.ca: {}: {e}", repository.ca.display()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    let mut config = match &repository.identity {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let read = PrivateKeyDer::from_pem_file(key);
            let private = read.map_err(|e| format!("audit.export.key: {}: {e}", key.display()))?;
            let chain = certificates(cert, "cert")?;
            let identity = config.with_client_auth_cert(chain, private);
            identity.map_err(|e| format!("audit.export.cert: {}: {e}", cert.display()))?
        }
    };
    // Each connection shows its certificate anew: one that is taken back is noticed at the next batch.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn certificates(file: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bad = |e: rustls::pki_types::pem::Error| format!("audit.export.{key}: {}: {e}", file.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(file).map_err(bad)?.collect::<Result<_, _>>().map_err(bad)?;
    if found.is_empty() {
        Err(format!("audit.export.{key}: {}: has no certificate", file.display()))
    } else {
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_in_bytes_in_front() {
        assert_eq!(frame("é".as_bytes()), "2 é".as_bytes());
    }

    #[test]
    fn the_kernels_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n\
            1: 0100007F:C350 0100007F:1972 08 0000001F:00000000 00:00000000 00000000     0        0 2 1\n";
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(unacknowledged(table, (at(50_000), at(6_514))), Some(31));
        assert_eq!(unacknowledged(table, (at(50_001), at(6_514))), None, "gone");
        assert_eq!(in_table("[::1]:80".parse().unwrap()), "00000000000000000000000001000000:0050");
    }

    /// What the reader alone would not find: the kernel tells the end of a peer that is gone from one that has read everything.
    #[tokio::test]
    async fn an_end_that_came_before_our_bytes_is_not_taken_for_an_answer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let ends = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let (server, _) = listener.accept().await.unwrap();
        drop(server);
        client.write_all(b"too late").await.unwrap();
        let mut bytes = [0; 8];
        let end = client.read(&mut bytes).await;
        assert!(matches!(end, Ok(0)) || end.is_err());
        let deadline = Instant::now() + Duration::from_secs(5);
        while unacknowledged(&std::fs::read_to_string("/proc/self/net/tcp").unwrap(), ends) == Some(8) {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(1)).await;
        }
        let after = unacknowledged(&std::fs::read_to_string("/proc/self/net/tcp").unwrap(), ends);
        assert!(after != Some(0), "{after:?}");
    }
}
