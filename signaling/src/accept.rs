//! Taking connections, and bounding them before anything is read: in total, per peer, in time.

use crate::app::App;
use crate::figures::ReasonLabels;
use crate::guard::Peer;
use crate::rate::{network_key, peer_key};
use crate::realms::CameBy;
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Headers in one request head.
const MAX_HEADERS: usize = 64;
/// How long to wait after an error of `accept`, which is mostly "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Counts connections, in total and per peer, over all listeners.
#[derive(Debug)]
pub(crate) struct Gatekeeper {
    total: Arc<Semaphore>,
    per_ip: u32,
    per_network: u32,
    per_loopback: u32,
    places: Mutex<Places>,
}

/// Connections by peer and by network.
#[derive(Debug, Default)]
struct Places {
    peers: BTreeMap<IpAddr, u32>,
    networks: BTreeMap<IpAddr, u32>,
}

/// One more under that key, where there are fewer than so many.
fn take(counts: &mut BTreeMap<IpAddr, u32>, key: IpAddr, limit: u32) -> bool {
    let count = counts.get(&key).copied().unwrap_or(0);
    if count < limit {
        counts.insert(key, count + 1);
    }
    count < limit
}

fn give_back(counts: &mut BTreeMap<IpAddr, u32>, key: IpAddr) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// One connection's place, given back when the last copy is dropped. Travels with each request, so that a WebSocket keeps
/// the place of the connection that it came from.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionSlot(#[allow(dead_code, reason = "held, not read")] Arc<Place>);

#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    peer: IpAddr,
    keeper: Arc<Gatekeeper>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.keeper.places.lock().unwrap_or_else(PoisonError::into_inner);
        give_back(&mut places.peers, self.peer);
        give_back(&mut places.networks, network_key(self.peer));
    }
}

impl Gatekeeper {
    pub(crate) fn new(limits: &crate::Limits) -> Arc<Self> {
        Arc::new(Self {
            total: Arc::new(Semaphore::new(limits.connections)),
            per_ip: limits.connections_per_ip,
            per_network: limits.connections_per_network,
            per_loopback: limits.connections_loopback,
            places: Mutex::default(),
        })
    }

    /// A place for a connection from there, or which limit is reached.
    fn admit(self: &Arc<Self>, from: IpAddr) -> Result<ConnectionSlot, &'static str> {
        let peer = peer_key(from);
        let is_here = peer.is_loopback();
        let (each, together) =
            if is_here { (self.per_loopback, self.per_loopback) } else { (self.per_ip, self.per_network) };
        let permit = self.total.clone().try_acquire_owned().map_err(|_| "total")?;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if !take(&mut places.peers, peer, each) {
            return Err("address");
        }
        if !take(&mut places.networks, network_key(peer), together) {
            give_back(&mut places.peers, peer);
            return Err("network");
        }
        Ok(ConnectionSlot(Arc::new(Place { _permit: permit, peer, keeper: self.clone() })))
    }

    /// Waits until all connections have ended.
    pub(crate) async fn drained(&self, limits: &crate::Limits) {
        if let Ok(all) = u32::try_from(limits.connections) {
            let _ = self.total.acquire_many(all).await;
        }
    }
}

/// What all connections of a listener share.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) app: Arc<App>,
    pub(crate) router: Router,
    pub(crate) keeper: Arc<Gatekeeper>,
    /// What whoever connects now is shown; none on plain loopback listeners.
    pub(crate) tls: Option<watch::Receiver<Arc<rustls::ServerConfig>>>,
    /// Whose network it is for; the node's own where left out.
    pub(crate) came_by: Option<CameBy>,
    /// Turns true when the server shuts down.
    pub(crate) closing: watch::Receiver<bool>,
}

impl Door {
    /// Accepts until shutdown. Connections above a limit are closed at once: a queue would only make everyone wait.
    pub(crate) async fn serve(mut self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = closed(&mut self.closing) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => match self.keeper.admit(from.ip()) {
                    Ok(slot) => {
                        tokio::spawn(self.clone().connection(stream, from, slot));
                    }
                    Err(reason) => self.count_refused(reason),
                },
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream, from: SocketAddr, slot: ConnectionSlot) {
        self.app.figures.connections.inc();
        // Signaling messages are small and each is waited for.
        let _ = stream.set_nodelay(true);
        let limits = &self.app.limits;
        let peer = Peer::new(from, stream.local_addr().ok());
        let stream = Stalling::new(stream, limits.write_stall);
        let tls = self.tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.borrow())));
        match tls {
            None => self.clone().http(stream, peer, slot).await,
            Some(tls) => match timeout(limits.header_timeout, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.clone().http(stream, peer, slot).await,
                Ok(Err(_)) => self.count_refused("tls"),
                Err(_) => self.count_refused("tls-timeout"),
            },
        }
        self.app.figures.connections.dec();
    }

    async fn http<S>(mut self, stream: S, peer: Peer, slot: ConnectionSlot)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, came_by) = (self.router.clone(), self.came_by.clone());
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(slot.clone());
            if let Some(realm) = came_by.clone() {
                request.extensions_mut().insert(realm);
            }
            tower_call(router.clone(), request.map(Body::new))
        });
        let limits = &self.app.limits;
        let connection = http1::Builder::new()
            // Without a timer the header timeout does nothing.
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_header_size(limits.header_bytes)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            () = closed(&mut self.closing) => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, ?peer, "connection ended");
                }
            }
        }
    }

    fn count_refused(&self, reason: &'static str) {
        self.app.figures.connections_refused.get_or_create(&ReasonLabels { reason }).inc();
    }
}

/// Until the server shuts down, or its handle is gone.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn tower_call(
    router: Router,
    request: axum::http::Request<Body>,
) -> Result<axum::response::Response, std::convert::Infallible> {
    use hyper_util::service::TowerToHyperService;
    hyper::service::Service::call(&TowerToHyperService::new(router), request).await
}

/// A stream whose writes fail when none makes progress for some time: hyper waits without end for a client that does not
/// read its answer.
struct Stalling<S> {
    inner: S,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalling<S> {
    fn new(inner: S, patience: Duration) -> Self {
        Self { inner, patience, stalled: None }
    }

    /// Passes the outcome of a write on; one that waits longer than `patience` becomes an error.
    fn judge<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_leaves_places_to_the_others() {
        let keeper = Gatekeeper::new(&crate::Limits::default());
        let admit = |a: u8, b: u8| keeper.admit(IpAddr::from([198, 51, a, b]));
        let mut held = Vec::new();
        let mut refused = BTreeMap::new();
        for n in 0..10_000_u32 {
            match admit(100, (n % 250) as u8) {
                Ok(slot) => held.push(slot),
                Err(reason) => *refused.entry(reason).or_insert(0) += 1,
            }
        }
        assert_eq!((held.len(), refused.get("network")), (256, Some(&9_744)));
        let mut neighbours: Vec<_> = (0..65).map(|_| admit(101, 1)).collect();
        assert_eq!(neighbours.pop().map(|last| last.err()), Some(Some("address")));
        assert!(neighbours.iter().all(Result::is_ok), "another network has places");
        held.pop();
        assert!(admit(100, 251).is_ok(), "a place that was given back is free");
        drop((held, neighbours));
        let places = keeper.places.lock().unwrap();
        assert!(places.peers.is_empty() && places.networks.is_empty());
    }
}
