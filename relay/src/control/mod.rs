//! The control rendezvous, `trocar-control/1` (docs/CONTROL.md): forwards opaque bytes between a gate and those who speak with it.
//!
//! One thread of its own with its own socket, so that no burst of media delays a command, and nothing that a party does here
//! reaches the media. The relay checks who is let in and to whom each may speak; what is said it neither reads nor decides. What
//! it shows of the register comes from the copies of STATUS that gates send it on purpose, and from nowhere else (HO-V-006).
//!
//! A datagram's way: quinn hands it to the sender's task → `core::Core::forward` replaces the index → quinn takes it. No queue
//! of ours. A tunnel's bytes pass through one buffer of 16 KiB per direction; whoever does not read holds up its own tunnel only.

mod core;
mod figures;
mod frame;
pub(crate) mod rates;
mod serve;
mod tunnel;

#[cfg(test)]
mod tests;

pub use serve::{code, tunnel_code};

use crate::doors::{Door, Doors};
use crate::metrics::LegFigures;
use crate::quic::{self, Identity, QuicError, SteadyWindow};
use core::Core;
use quinn::{IdleTimeout, TransportConfig, VarInt};
use std::cell::RefCell;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use trocar_proto::control::{ALPN, MAX_TUNNELS};
use trocar_proto::session::ids::{CertHash, RealmId, SessionId};

/// Whether a station's token is good for that session and bound to that certificate; the error is told to the station. It is asked on
/// the control thread and must not block.
pub type TokenCheck = Arc<dyn Fn(&str, &SessionId, CertHash) -> Result<(), String> + Send + Sync>;

/// A connection without a packet for this long is dead. Below a tunnel's stall time and above the gate's lease: the lease decides
/// who holds, not this.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Keep-alive, well below [`IDLE_TIMEOUT`].
pub const KEEP_ALIVE: Duration = Duration::from_millis(250);
/// Bytes of datagrams that wait in a connection for the line: a dozen large ones. Loss policy: the oldest is dropped and counted, for
/// an old command is refused by the gate anyway.
pub const DATAGRAM_SEND_BUFFER: usize = 16 << 10;
/// Bytes of datagrams that came and have not been read. Loss policy: quinn drops the oldest.
const DATAGRAM_RECEIVE_BUFFER: usize = 256 << 10;
/// Bytes of one stream that came and were not passed on.
const STREAM_WINDOW: u32 = 16 << 10;
/// Commands that wait for the thread. Loss policy: the asker waits.
const COMMANDS: usize = 16;

/// Bounds of the rendezvous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, established ones.
    pub connections: usize,
    /// How long a party has for its CONNECT, and a tunnel for its first frame.
    pub connect: Duration,
    /// A tunnel whose receiver takes nothing for this long, while there is something for it, is ended.
    pub stall: Duration,
    /// Handshakes under way above which a client must first prove its address (RFC 9000 section 8.1.2); four times as many there
    /// may be.
    pub handshakes: usize,
    /// Datagrams of one party per second; more are dropped. Ten times what a gate takes of a holder.
    pub datagrams_per_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            connect: Duration::from_secs(2),
            stall: Duration::from_secs(5),
            handshakes: 16,
            datagrams_per_second: 10_000,
        }
    }
}

/// Where and for whom the rendezvous is.
pub struct ControlListener {
    /// The realm that certificates have to be of.
    pub realm: RealmId,
    /// UDP address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Other realms, each with a UDP address of its own: stations of that realm come there, and nobody else.
    pub others: Vec<(RealmId, SocketAddr)>,
    /// Own certificate, key, and the trust list for parties.
    pub identity: Identity,
    /// Checks stations' tokens.
    pub tokens: TokenCheck,
    /// Bounds.
    pub limits: Limits,
}

enum Command {
    Figures(oneshot::Sender<Vec<LegFigures>>),
    Shutdown(oneshot::Sender<()>),
}

/// A running rendezvous. Cheap to clone; dropping the last one ends its thread.
#[derive(Clone)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    address: SocketAddr,
    others: Arc<[(RealmId, SocketAddr)]>,
}

impl Control {
    /// Binds the socket and starts the thread.
    ///
    /// # Errors
    /// [`QuicError`] for socket, certificate, key and trust list; an [`std::io::Error`] for thread, runtime and endpoint.
    pub fn start(listener: ControlListener) -> Result<Self, crate::StartError> {
        Self::start_with(listener, None)
    }

    /// The same; the listener's certificate and trust list are kept up to date by those doors.
    pub(crate) fn start_with(listener: ControlListener, doors: Option<Arc<Doors>>) -> Result<Self, crate::StartError> {
        let ControlListener { realm, address, others, identity, tokens, limits } = listener;
        let server = server_config(identity)?;
        let (mut sockets, mut bound) = (Vec::new(), Vec::new());
        for (realm, address) in std::iter::once((realm.clone(), address)).chain(others) {
            let socket = quic::bind_udp(address)?;
            bound.push((realm.clone(), socket.local_addr()?));
            sockets.push((realm, socket));
        }
        let address = bound.remove(0).1;
        let core = move || Core::new(realm, tokens, limits, doors);
        Ok(Self { commands: spawn(sockets, server, core)?, address, others: bound.into() })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where stations of other realms come.
    #[must_use]
    pub fn others(&self) -> &[(RealmId, SocketAddr)] {
        &self.others
    }

    /// What it measures now; nothing where the thread does not answer.
    pub async fn figures(&self) -> Vec<LegFigures> {
        self.ask(Command::Figures).await.unwrap_or_default()
    }

    /// Closes all connections and ends the thread.
    pub async fn shutdown(&self) {
        let _ = self.ask(Command::Shutdown).await;
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(make(reply)).await.ok()?;
        answer.await.ok()
    }
}

fn server_config(identity: Identity) -> Result<quinn::ServerConfig, QuicError> {
    Ok(bounded(quic::server_config_for(identity, ALPN)?))
}

/// The same with TLS that is ready.
pub(crate) fn server_config_of(tls: rustls::ServerConfig) -> Result<quinn::ServerConfig, QuicError> {
    Ok(bounded(quic::with_tls(tls)?))
}

fn bounded(mut server: quinn::ServerConfig) -> quinn::ServerConfig {
    server.transport_config(Arc::new(transport_config()));
    server.max_incoming(256);
    server.incoming_buffer_size_total(1 << 20);
    server
}

/// Limits of a control connection. The congestion window does not shrink with loss: what is lost must not hold back what is newer, and
/// the windows of streams and the datagram buffer bound what a party can have under way.
fn transport_config() -> TransportConfig {
    // The rendezvous stream and the tunnels.
    let streams = u32::try_from(MAX_TUNNELS).unwrap_or(u32::MAX).saturating_add(1);
    let mut t = TransportConfig::default();
    t.max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        // Room for each stream in full: one tunnel that stands still must not hold up the others of its connection. Twice, since
        // tunnels that others open towards a party are streams of that connection too.
        .receive_window(VarInt::from_u32(STREAM_WINDOW.saturating_mul(2 * streams)))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_window(u64::from(STREAM_WINDOW) * 16)
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER)
        .congestion_controller_factory(Arc::new(SteadyWindow));
    t
}

type Endpoints = Vec<(RealmId, quinn::Endpoint)>;

fn serve_on(sockets: Vec<(RealmId, UdpSocket)>, server: &quinn::ServerConfig) -> std::io::Result<Endpoints> {
    let endpoint = |(realm, socket)| {
        let (config, runtime) = (quinn::EndpointConfig::default(), Arc::new(quinn::TokioRuntime));
        Ok((realm, quinn::Endpoint::new(config, Some(server.clone()), socket, runtime)?))
    };
    sockets.into_iter().map(endpoint).collect()
}

fn spawn(
    sockets: Vec<(RealmId, UdpSocket)>,
    server: quinn::ServerConfig,
    core: impl FnOnce() -> Core + Send + 'static,
) -> std::io::Result<mpsc::Sender<Command>> {
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let (started, start) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name("trocar-control".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(r) => r,
            Err(e) => return drop(started.send(Err(e))),
        };
        LocalSet::new().block_on(&runtime, async move {
            match serve_on(sockets, &server) {
                Ok(endpoints) => {
                    let core = core();
                    if let Some(doors) = &core.doors {
                        endpoints.iter().for_each(|(realm, e)| doors.add(Door::Control, realm, e.clone()));
                    }
                    let _ = started.send(Ok(()));
                    run(Rc::new(RefCell::new(core)), endpoints, receiver).await;
                }
                Err(e) => drop(started.send(Err(e))),
            }
        });
    })?;
    start.recv().map_err(|_| std::io::Error::other("the control thread ended at its start"))??;
    Ok(commands)
}

async fn run(core: Rc<RefCell<Core>>, endpoints: Endpoints, mut commands: mpsc::Receiver<Command>) {
    for (realm, endpoint) in &endpoints {
        tokio::task::spawn_local(serve::accept(Rc::clone(&core), endpoint.clone(), realm.clone()));
    }
    tokio::task::spawn_local(serve::probe(Rc::clone(&core)));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Figures(reply) => drop(reply.send(core.borrow().figures())),
            Command::Shutdown(reply) => {
                close(&endpoints).await;
                let _ = reply.send(());
                return;
            }
        }
    }
    close(&endpoints).await;
}

async fn close(endpoints: &Endpoints) {
    endpoints.iter().for_each(|(_, endpoint)| endpoint.close(code::OK, b"the relay stops"));
    let idle = futures_util::future::join_all(endpoints.iter().map(|(_, endpoint)| endpoint.wait_idle()));
    let _ = tokio::time::timeout(Duration::from_secs(1), idle).await;
}
