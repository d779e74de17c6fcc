//! The admission listener: TLS 1.3, a client certificate of role `signaling`, bounded in connections, sizes and time.

use super::routes::{Shared, router};
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::UnixTime;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use trocar_control::trust::{Credentials, LOOK_EVERY, PeerIdentity};
use trocar_proto::session::admission::RelayEvent;

/// Largest request body, in bytes: signaling takes offers of 64 KiB, and JSON writes some bytes as six.
pub(super) const BODY_BYTES: usize = 512 << 10;
/// Longest wait for a whole body.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for TLS and for a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at a time. Loss policy: one more is closed at once.
const CONNECTIONS: usize = 64;
/// After an error of `accept`, which is mostly "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a listener to events hears that the relay is there.
const ALIVE_EVERY: Duration = Duration::from_millis(500);
/// Who asks here: the role in the certificate, which is looked at in the handshake.
const ROLE: &str = "signaling";
/// Protocol by ALPN.
const ALPN: &[u8] = b"http/1.1";

/// Who asks, and the list that it is judged by: what was let in yesterday may be revoked today.
#[derive(Clone)]
pub(super) struct Asker {
    peer: Option<Arc<PeerIdentity>>,
    realm: trocar_proto::session::ids::RealmId,
    credentials: Arc<Mutex<Credentials>>,
}

impl Asker {
    /// Whether it may ask; the error says why not.
    pub(super) fn judge(&self) -> Result<(), String> {
        let peer = self.peer.as_ref().ok_or("the certificate has no name trocar://REALM/signaling/NAME")?;
        let name = &peer.name;
        if name.role != ROLE || name.realm != self.realm {
            return Err(format!("the certificate is of {name}: trocar://{}/{ROLE}/NAME is right", self.realm));
        }
        let trust = self.credentials.lock().unwrap_or_else(PoisonError::into_inner).trust();
        if trust.taken_back([peer.as_ref()]).is_empty() { Ok(()) } else { Err(format!("{name} is revoked")) }
    }
}

/// What the tasks of the listener share.
pub(super) struct Door {
    pub(super) credentials: Arc<Mutex<Credentials>>,
    pub(super) shared: Arc<Shared>,
}

/// Listens until `close` turns true.
pub(super) fn start(
    door: Door,
    listener: TcpListener,
    (events, operated): (mpsc::Receiver<RelayEvent>, watch::Receiver<bool>),
    close: watch::Receiver<bool>,
) -> JoinSet<()> {
    let door = Arc::new(door);
    let mut tasks = JoinSet::new();
    tasks.spawn(hear(Arc::clone(&door.shared), events));
    tasks.spawn(tell_operated(Arc::clone(&door.shared), operated));
    tasks.spawn(keep(Arc::clone(&door.credentials), Arc::clone(&door.shared)));
    tasks.spawn(accept(door, listener, close));
    tasks
}

/// Takes events off the relay's hands, whether anybody listens or not.
async fn hear(shared: Arc<Shared>, mut events: mpsc::Receiver<RelayEvent>) {
    let mut ticks = interval(ALIVE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(event) => shared.book.hear(event),
                None => return tracing::error!("the media worker has ended"),
            },
            _ = ticks.tick() => shared.book.alive(),
        }
    }
}

/// Tells whoever listens, and writes down for whoever comes, that somebody operates or that nobody does any more.
async fn tell_operated(shared: Arc<Shared>, mut operated: watch::Receiver<bool>) {
    let mut told = false;
    loop {
        let operated_now = *operated.borrow_and_update();
        if std::mem::replace(&mut told, operated_now) != operated_now {
            shared.book.hear(RelayEvent::Operated { operated: operated_now });
        }
        if operated.changed().await.is_err() {
            return;
        }
    }
}

/// Takes new certificates and trust lists into force. Whoever listens is told the relay's new certificate on a new stream.
async fn keep(credentials: Arc<Mutex<Credentials>>, shared: Arc<Shared>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (look, own) = {
            let mut credentials = credentials.lock().unwrap_or_else(PoisonError::into_inner);
            (credentials.look(), credentials.own())
        };
        if look.own {
            tracing::info!(certificate = %own.hash(), "admission: the relay's certificate has changed");
            shared.book.show(own.hash());
        }
        if look.trust {
            tracing::info!("admission: the trust list has changed");
        }
        for error in look.failed {
            tracing::error!(%error, "admission: new files cannot be used; the former stay in force");
        }
    }
}

async fn accept(door: Arc<Door>, listener: TcpListener, mut close: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let router = router(Arc::clone(&door.shared));
    loop {
        let accepted = tokio::select! {
            biased;
            _ = close.wait_for(|close| *close) => return,
            accepted = listener.accept() => accepted,
            // Ended connections give their memory back.
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, from)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let (door, router) = (Arc::clone(&door), router.clone());
                    connections.spawn(async move {
                        serve(&door, router, stream, from).await;
                        drop(place);
                    });
                }
                Err(_) => tracing::warn!(%from, "admission: too many connections"),
            },
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(door: &Door, router: Router, stream: TcpStream, from: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let (own, trust) = {
        let credentials = door.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        (credentials.own(), credentials.trust())
    };
    let config = match trust.server_config_for(ROLE, &own, ALPN) {
        Ok(config) => config,
        Err(error) => return tracing::error!(%error, "admission: TLS"),
    };
    let tls = match timeout(HEAD_TIMEOUT, TlsAcceptor::from(Arc::new(config)).accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            return tracing::warn!(%from, %error, "admission: no TLS with a certificate of signaling that is trusted");
        }
        Err(_) => return tracing::debug!(%from, "admission: TLS took too long"),
    };
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = PeerIdentity::of(chain, UnixTime::now()).map(Arc::new);
    let realm = own.name().realm.clone();
    let asker = Asker { peer, realm, credentials: Arc::clone(&door.credentials) };
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(asker.clone());
        TowerToHyperService::new(router.clone()).call(request.map(Body::new))
    });
    let served = http1::Builder::new()
        // Without a timer the header timeout does nothing.
        .timer(TokioTimer::new())
        .header_read_timeout(Some(HEAD_TIMEOUT * 6))
        .max_headers(32)
        .serve_connection(TokioIo::new(tls), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%from, %error, "admission connection ended");
    }
}
