//! Admission from another machine (docs/CLUSTER.md): signaling asks over HTTP with mutual TLS what it asks of a relay in its
//! own process by a call, and hears events on one long answer.
//!
//! The relay needs none of it to keep what runs running: when nobody listens, events are written into the book (`book`)
//! and a signaling that comes (back) is first told all that is there.

mod book;
mod problem;
mod routes;
mod server;
#[cfg(test)]
mod tests;

pub use problem::Refusal;

use crate::Relay;
use crate::link_test::Answering;
use book::Book;
use routes::Shared;
use server::Door;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use trocar_control::trust::{CredentialError, Credentials, TrustError};
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::ids::RealmId;
use trocar_proto::session::remote::RelayHello;

/// How admission is set up.
pub struct AdmissionListener {
    /// TCP address; port 0 takes a free one.
    pub address: SocketAddr,
    /// The relay's certificate, role `relay`, for server and client use, PEM.
    pub cert: PathBuf,
    /// Its key, PEM. Both are looked at again when they change.
    pub key: PathBuf,
    /// Who is trusted: a PEM file of authorities; a `crl.pem` beside it counts. Looked at again when it changes.
    pub trust: PathBuf,
    /// Realms that the relay has listeners for.
    pub realms: Vec<RealmId>,
    /// What answers measurements of the line, where something does.
    pub link_tests: Option<Arc<Answering>>,
    /// Whether somebody operates by the relay's rendezvous ([`watch_operated`](crate::link_test::watch_operated)).
    pub operated: watch::Receiver<bool>,
}

/// Why admission cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Own certificate and trust list.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The own certificate is of something else.
    #[error("{}: role relay is right, this is {role}", file.display())]
    Role {
        /// Which file.
        file: PathBuf,
        /// What it says.
        role: String,
    },
    /// TLS of both.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The address.
    #[error("{0}: cannot listen: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// Admission that is served. Dropping it ends it.
pub struct RemoteAdmission {
    address: SocketAddr,
    hello: RelayHello,
    close: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl RemoteAdmission {
    /// Serves admission to `relay`, whose events come by `events`. To be called on a runtime.
    ///
    /// # Errors
    /// [`RemoteError`] names the file or address.
    pub async fn start(
        listener: AdmissionListener,
        relay: Relay,
        events: mpsc::Receiver<RelayEvent>,
    ) -> Result<Self, RemoteError> {
        let credentials = Credentials::load(&listener.cert, &listener.key, &listener.trust)?;
        let identity = credentials.own();
        let name = identity.name();
        if name.role != "relay" {
            return Err(RemoteError::Role { file: listener.cert, role: name.role.clone() });
        }
        let failed = |e| RemoteError::Listen(listener.address, e);
        let socket = TcpListener::bind(listener.address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let hello = RelayHello {
            name: name.name.clone(),
            instance: instance()?,
            realm: name.realm.clone(),
            realms: listener.realms,
            certificate: identity.hash(),
            control: relay.control_address(),
            link_tests: listener.link_tests.is_some(),
        };
        let (close, closing) = watch::channel(false);
        let shared = Arc::new(Shared { relay, link_tests: listener.link_tests, book: Book::new(hello.clone()) });
        let door = Door { credentials: Arc::new(Mutex::new(credentials)), shared };
        Ok(Self { address, hello, close, tasks: server::start(door, socket, (events, listener.operated), closing) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who the relay says it is.
    #[must_use]
    pub const fn hello(&self) -> &RelayHello {
        &self.hello
    }

    /// Ends listeners and event streams.
    pub async fn shutdown(mut self) {
        let _ = self.close.send(true);
        self.tasks.shutdown().await;
    }
}

fn instance() -> Result<String, RemoteError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| RemoteError::Random)?;
    Ok(hex::encode(bytes))
}
