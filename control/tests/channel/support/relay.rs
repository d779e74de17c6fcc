//! A relay for tests: knows parties by number, splices tunnels, forwards datagrams, and can be told to misbehave.

use super::Pki;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, SendStream};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use trocar_control::transport::{limits, read_frame, write_frame};
use trocar_control::trust::cert_hash;
use trocar_proto::control::{
    ALPN, FromRelay, Index, PartyKind, ToRelay, TunnelFrom, TunnelTo, join_datagram, split_datagram,
};
use trocar_proto::session::ids::CertHash;

/// What the relay does to datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Flips one bit of the byte with this number, counted from the end.
    Flip(usize),
    /// Each goes twice.
    Twice,
}

struct Party {
    kind: PartyKind,
    certificate: CertHash,
    connection: Connection,
    say: mpsc::Sender<FromRelay>,
}

struct Inner {
    parties: Mutex<BTreeMap<u16, Party>>,
    fault: Mutex<Fault>,
    statuses: mpsc::Sender<String>,
}

/// One relay on loopback.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    /// STATUS copies as they came.
    pub(crate) statuses: tokio::sync::Mutex<mpsc::Receiver<String>>,
    endpoint: Endpoint,
    inner: Arc<Inner>,
}

impl Relay {
    pub(crate) fn start(pki: &Pki) -> Self {
        let tls = pki.trust().server_config(&pki.relay(), ALPN).unwrap();
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        config.transport_config(Arc::new(limits()));
        let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let (statuses, received) = mpsc::channel(64);
        let inner = Arc::new(Inner { parties: Mutex::default(), fault: Mutex::new(Fault::None), statuses });
        let address = endpoint.local_addr().unwrap();
        tokio::spawn(listen(endpoint.clone(), Arc::clone(&inner)));
        Self { address, statuses: tokio::sync::Mutex::new(received), endpoint, inner }
    }

    pub(crate) fn fault(&self, fault: Fault) {
        *self.inner.fault.lock().unwrap() = fault;
    }

    /// Asks a party, as a relay asks a gate.
    pub(crate) fn probe(&self, nonce: u64) {
        for party in self.inner.parties.lock().unwrap().values().filter(|p| p.kind == PartyKind::Gate) {
            party.say.try_send(FromRelay::Probe { nonce }).unwrap();
        }
    }

    /// Cuts all connections; the listener stays.
    pub(crate) fn cut(&self) {
        for party in std::mem::take(&mut *self.inner.parties.lock().unwrap()).into_values() {
            party.connection.close(7_u32.into(), b"cut");
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.endpoint.close(0_u32.into(), b"");
    }
}

async fn listen(endpoint: Endpoint, inner: Arc<Inner>) {
    let mut next = 0;
    while let Some(incoming) = endpoint.accept().await {
        next += 1;
        let inner = Arc::clone(&inner);
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                party(connection, Index(next), inner).await;
            }
        });
    }
}

/// One party, until its connection ends.
async fn party(connection: Connection, me: Index, inner: Arc<Inner>) {
    let Ok((mut send, mut receive)) = connection.accept_bi().await else { return };
    let Ok(ToRelay::Connect { session, kind, .. }) = read_frame(&mut receive).await else { return };
    if session.as_str() != "S" {
        let reason = "no such session".to_owned();
        let _ = write_frame(&mut send, &FromRelay::Refused { reason }).await;
        let _ = send.finish();
        let _ = connection.closed().await;
        return;
    }
    let (say, mut words) = mpsc::channel(64);
    let chain =
        connection.peer_identity().unwrap().downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().unwrap();
    let mine = Party { kind, certificate: cert_hash(&chain[0]), connection: connection.clone(), say };
    enter(&inner, me, mine);
    tokio::spawn(async move {
        while let Some(word) = words.recv().await {
            if write_frame(&mut send, &word).await.is_err() {
                return;
            }
        }
    });
    let copies = inner.statuses.clone();
    tokio::spawn(async move {
        while let Ok(ToRelay::Status { bytes }) = read_frame(&mut receive).await {
            let _ = copies.try_send(bytes);
        }
    });
    tokio::select! {
        () = datagrams(&connection, me, &inner) => {}
        () = tunnels(&connection, me, &inner) => {}
    }
    inner.parties.lock().unwrap().remove(&me.0);
}

fn enter(inner: &Inner, me: Index, mine: Party) {
    let mut parties = inner.parties.lock().unwrap();
    mine.say.try_send(FromRelay::Connected { index: me }).unwrap();
    for (n, other) in parties.iter() {
        let joined = |index, p: &Party| FromRelay::Joined { index, kind: p.kind, certificate: p.certificate };
        mine.say.try_send(joined(Index(*n), other)).unwrap();
        let _ = other.say.try_send(joined(me, &mine));
    }
    parties.insert(me.0, mine);
}

fn connection_of(inner: &Inner, to: Index) -> Option<Connection> {
    inner.parties.lock().unwrap().get(&to.0).map(|p| p.connection.clone())
}

async fn datagrams(connection: &Connection, me: Index, inner: &Inner) {
    while let Ok(datagram) = connection.read_datagram().await {
        let Some((to, opaque)) = split_datagram(&datagram) else { continue };
        let fault = *inner.fault.lock().unwrap();
        let mut opaque = opaque.to_vec();
        if let Fault::Flip(back) = fault
            && let Some(at) = opaque.len().checked_sub(1 + back)
        {
            opaque[at] ^= 1;
        }
        let Some(other) = connection_of(inner, to) else { continue };
        for _ in 0..if fault == Fault::Twice { 2 } else { 1 } {
            let _ = other.send_datagram(join_datagram(me, &opaque).into());
        }
    }
}

async fn tunnels(connection: &Connection, me: Index, inner: &Arc<Inner>) {
    while let Ok((send, mut receive)) = connection.accept_bi().await {
        let inner = Arc::clone(inner);
        tokio::spawn(async move {
            let Ok(TunnelTo { to }) = read_frame(&mut receive).await else { return };
            let Some(other) = connection_of(&inner, to) else { return };
            let Ok((mut there, back)) = other.open_bi().await else { return };
            if write_frame(&mut there, &TunnelFrom { from: me }).await.is_ok() {
                tokio::spawn(copy(receive, there));
                copy(back, send).await;
            }
        });
    }
}

async fn copy(mut from: quinn::RecvStream, mut to: SendStream) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}
