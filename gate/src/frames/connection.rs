//! One publisher's connection.

use super::claims::Holder;
use super::marks::{EVERY, Judged, Marks};
use super::{Shared, count};
use crate::core::{Lane, now};
use crate::doors::Place;
use rustls::pki_types::UnixTime;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use trocar_control::trust::{PeerIdentity, TrustError};
use trocar_proto::handover::frameproof::{ALPN, REPORT_LEN, Report};
use trocar_proto::handover::gate::Input;
use trocar_proto::handover::message::DecodeError;

/// The handshake is over by then: both ends are on one network.
const HANDSHAKE_WITHIN: Duration = Duration::from_millis(500);
/// A publisher that takes no mark for so long is gone.
const STUCK: Duration = Duration::from_secs(2);
/// What a publisher's certificate says it is.
const ROLE: &str = "station";
/// Reports per second and connection; more are left out, so that no publisher crowds out local's network lane.
const RATE: u64 = 300;

type Stream = TlsStream<TcpStream>;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("TLS: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("no handshake within 500 ms")]
    Handshake,
    #[error("there are as many publishers as there can be")]
    Full,
    #[error("its certificate has no name trocar://REALM/station/NAME that frames.publishers lets in: {0}")]
    Stranger(String),
    #[error("another publisher reports source {0}, or this connection reports another one")]
    Taken(u16),
    #[error("another connection of the same publisher took its place")]
    Replaced,
    #[error("its certificate is revoked")]
    Revoked,
    #[error("it takes no marks")]
    Stuck,
    #[error("{0}")]
    Malformed(#[from] DecodeError),
    #[error("it names a mark that was never sent")]
    UnknownMark,
}

/// From the handshake, which `place` is for, to the end.
pub(super) async fn serve(tcp: TcpStream, place: Place<IpAddr>, shared: &Shared) -> Result<(), Ended> {
    let welcomed = welcome(tcp, shared).await;
    drop(place);
    let room = Arc::clone(&shared.room).try_acquire_owned().map_err(|_| Ended::Full);
    let ((stream, peer), _room) = match welcomed.and_then(|welcomed| Ok((welcomed, room?))) {
        Ok(welcomed) => welcomed,
        Err(error) => {
            count(&shared.counters.refused);
            return Err(error);
        }
    };
    count(&shared.counters.connections);
    tracing::info!(publisher = %peer.name, "frames: a publisher is there");
    let me = Arc::new(Holder { certificate: peer.certificate, replaced: Notify::new() });
    let (reader, writer) = tokio::io::split(stream);
    let marks = Mutex::new(Marks::default());
    let ended = tokio::select! {
        ended = read(reader, shared, &me, &marks) => ended,
        ended = send_marks(writer, &marks) => ended,
        () = me.replaced.notified() => Err(Ended::Replaced),
        () = taken_back(shared, &peer) => Err(Ended::Revoked),
    };
    shared.claims.release(&me);
    if matches!(ended, Err(Ended::Malformed(_) | Ended::UnknownMark)) {
        count(&shared.counters.malformed);
    }
    if matches!(ended, Err(Ended::Taken(_) | Ended::Revoked)) {
        count(&shared.counters.refused);
    }
    ended
}

/// The handshake, and whether the peer may report.
async fn welcome(tcp: TcpStream, shared: &Shared) -> Result<(Stream, PeerIdentity), Ended> {
    tcp.set_nodelay(true)?;
    let since = UnixTime::now();
    let config = shared.trust.borrow().server_config(&shared.identity, ALPN)?;
    let handshake = TlsAcceptor::from(Arc::new(config)).accept(tcp);
    let stream = timeout(HANDSHAKE_WITHIN, handshake).await.map_err(|_| Ended::Handshake)??;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = PeerIdentity::of(chain, since).ok_or_else(|| Ended::Stranger("no name".to_owned()))?;
    let wanted = &shared.config.publishers;
    if peer.name.role != ROLE || !(wanted.is_empty() || wanted.contains(&peer.name)) {
        return Err(Ended::Stranger(peer.name.to_string()));
    }
    Ok((stream, peer))
}

/// Returns when the trust list does not let the peer in any more.
async fn taken_back(shared: &Shared, peer: &PeerIdentity) {
    let mut trust = shared.trust.clone();
    let is_gone = |t: &Arc<trocar_control::trust::Trust>| !t.taken_back([peer]).is_empty();
    if trust.wait_for(is_gone).await.is_err() {
        // Nobody changes the list any more.
        std::future::pending::<()>().await;
    }
}

async fn send_marks(mut writer: WriteHalf<Stream>, marks: &Mutex<Marks>) -> Result<(), Ended> {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mark = marks.lock().unwrap_or_else(PoisonError::into_inner).next(now());
        let write = async {
            writer.write_all(&mark.encode()).await?;
            writer.flush().await
        };
        timeout(STUCK, write).await.map_err(|_| Ended::Stuck)??;
    }
}

async fn read(
    mut reader: ReadHalf<Stream>,
    shared: &Shared,
    me: &Arc<Holder>,
    marks: &Mutex<Marks>,
) -> Result<(), Ended> {
    let mut bytes = [0; REPORT_LEN];
    let lag = u64::try_from(shared.config.max_lag.as_micros()).unwrap_or(u64::MAX);
    let (mut second, mut in_second) = (now(), 0_u64);
    loop {
        match reader.read_exact(&mut bytes).await {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let Report { mark, frame } = Report::decode(&bytes)?;
        let source = frame.frame.source;
        if !shared.claims.take(source, me) {
            return Err(Ended::Taken(source));
        }
        let now = now();
        if now.since(second) >= 1_000_000 {
            (second, in_second) = (now, 0);
        }
        in_second += 1;
        if in_second > RATE {
            count(&shared.counters.too_fast);
            continue;
        }
        match marks.lock().unwrap_or_else(PoisonError::into_inner).judge(now, mark) {
            Judged::Within(age) if age <= lag => {}
            Judged::Within(_) | Judged::Old => {
                count(&shared.counters.late);
                continue;
            }
            Judged::Unknown => return Err(Ended::UnknownMark),
        }
        count(&shared.counters.taken);
        shared.inbox.input(Lane::Network, Input::Frame(frame));
    }
}
