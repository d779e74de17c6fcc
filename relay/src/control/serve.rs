//! Connections: who it is, what it says on its rendezvous stream, and its datagrams.

use super::core::{Core, Newcomer};
use super::rates::Connects;
use super::{frame, tunnel};
use crate::doors::Door;
use crate::frames::read_datagrams;
use rustls::pki_types::CertificateDer;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use trocar_control::trust::{CertName, cert_hash, cert_name};
use trocar_proto::control::{FromRelay, Index, PartyKind, ToRelay};
use trocar_proto::session::ids::{CertHash, RealmId};

/// Codes that connections are closed with (docs/CONTROL.md).
pub mod code {
    use quinn::VarInt;

    /// Nothing is wrong: one side goes away.
    pub const OK: VarInt = VarInt::from_u32(0);
    /// Not let in; the reason says why.
    pub const REFUSED: VarInt = VarInt::from_u32(1);
    /// Something that the protocol does not allow.
    pub const PROTOCOL: VarInt = VarInt::from_u32(2);
    /// The party does not read what it is told.
    pub const SLOW: VarInt = VarInt::from_u32(3);
    /// A newer connection took its place.
    pub const REPLACED: VarInt = VarInt::from_u32(4);
}

/// Codes that tunnels are reset and stopped with (docs/CONTROL.md). What the two ends say themselves passes as it is.
pub mod tunnel_code {
    use quinn::VarInt;

    /// There is no such party in the session, or a tunnel to it is not allowed.
    pub const NO_SUCH_PARTY: VarInt = VarInt::from_u32(0x101);
    /// Too many tunnels lead to that party.
    pub const FULL: VarInt = VarInt::from_u32(0x102);
    /// The first frame cannot be used, or did not come in time.
    pub const MALFORMED: VarInt = VarInt::from_u32(0x103);
    /// The other end is gone, or gave its place to somebody who had none.
    pub const GONE: VarInt = VarInt::from_u32(0x104);
    /// The receiver took nothing for too long.
    pub const STALLED: VarInt = VarInt::from_u32(0x105);
}

/// A TLS handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often each gate is asked for its STATUS: 5 Hz.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// Frames that wait for one party: everybody joins at once, and some.
const FRAMES: usize = 256;
/// How long a refused party may take to read why.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);
/// Datagrams taken from a connection before the others get their turn.
const BATCH: usize = 16;

type Shared = Rc<RefCell<Core>>;

/// Accepts connections of one realm's listener until the endpoint is closed.
pub(super) async fn accept(core: Shared, endpoint: quinn::Endpoint, realm: RealmId) {
    // By listener: two realms may have the same addresses.
    let mut connects = Connects::default();
    while let Some(incoming) = endpoint.accept().await {
        let (established, limit) = (core.borrow().established, core.borrow().limits.connections);
        let handshakes = core.borrow().limits.handshakes;
        let open = endpoint.open_connections();
        let is_proved = incoming.remote_address_validated();
        let now = core.borrow().now();
        if established >= limit || open >= limit + 4 * handshakes {
            incoming.refuse();
        } else if !is_proved && open > established + handshakes {
            // An error means that it was validated after all; either way nothing is owed to the client.
            let _ = incoming.retry();
        } else if connects.take(now, incoming.remote_address().ip(), is_proved) {
            tokio::task::spawn_local(serve(Rc::clone(&core), incoming, realm.clone()));
        } else if is_proved {
            core.borrow_mut().counters.refused += 1;
            incoming.refuse();
        } else {
            let _ = incoming.retry();
        }
    }
}

/// Asks the gates for their STATUS, for as long as the thread runs.
pub(super) async fn probe(core: Shared) {
    let mut ticks = interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        core.borrow_mut().probe();
        core.borrow().tell_holders();
    }
}

async fn serve(core: Shared, incoming: quinn::Incoming, realm: RealmId) {
    let connection = match timeout(HANDSHAKE_TIMEOUT, incoming).await {
        Ok(Ok(c)) => c,
        // Anybody can make a handshake fail, so it is no line of an ordinary log.
        Ok(Err(error)) => return tracing::debug!(%error, "control handshake failed"),
        Err(_) => return tracing::debug!("control handshake took too long"),
    };
    core.borrow_mut().established += 1;
    let doors = core.borrow().doors.clone();
    let _guest = doors.and_then(|doors| doors.enter(Door::Control, &connection));
    match introduce(&core, &connection, &realm).await {
        Ok(arrival) => attend(&core, &connection, arrival).await,
        Err(refusal) => {
            core.borrow_mut().counters.refused += 1;
            tracing::debug!(address = %connection.remote_address(), reason = %refusal.reason, "control party refused");
            refuse(&connection, refusal).await;
        }
    }
    core.borrow_mut().established -= 1;
}

/// A party that was let in.
struct Arrival {
    index: Index,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    told: mpsc::Receiver<FromRelay>,
}

/// One that was not; told on its rendezvous stream where it has one.
struct Refusal {
    reason: String,
    stream: Option<quinn::SendStream>,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, stream: None }
    }
}

async fn introduce(core: &Shared, connection: &quinn::Connection, realm: &RealmId) -> Result<Arrival, Refusal> {
    let named = identify(connection).filter(|(name, _)| &name.realm == realm);
    let (name, certificate) = named.ok_or_else(|| format!("the certificate has no name trocar://{realm}/ROLE/NAME"))?;
    let wait = core.borrow().limits.connect;
    let late = || format!("CONNECT did not come within {} ms", wait.as_millis());
    let deadline = tokio::time::Instant::now() + wait;
    let opened = tokio::time::timeout_at(deadline, connection.accept_bi()).await.map_err(|_| late())?;
    let (send, mut recv) = opened.map_err(|e| e.to_string())?;
    let refused = |reason: String, send| Refusal { reason, stream: Some(send) };
    let first = match tokio::time::timeout_at(deadline, frame::read::<ToRelay>(&mut recv)).await {
        Err(_) => return Err(refused(late(), send)),
        Ok(Err(e)) => return Err(refused(e.to_string(), send)),
        Ok(Ok(first)) => first,
    };
    let ToRelay::Connect { session, kind, token } = first else {
        return Err(refused("the first frame has to be CONNECT".to_owned(), send));
    };
    let (tokens, is_own) = (core.borrow().tokens.clone(), &core.borrow().realm == realm);
    let of_realm = || match kind {
        PartyKind::Gate | PartyKind::Signaling if !is_own => Err(format!("realm {realm} has stations alone here")),
        _ => Ok(()),
    };
    let checked = check_role(&name, kind).and_then(|()| of_realm()).and_then(|()| match (kind, token) {
        (PartyKind::Station, Some(token)) => tokens(&token, &session, certificate),
        (PartyKind::Station, None) => Err("a station shows its session token in CONNECT".to_owned()),
        _ => Ok(()),
    });
    if let Err(reason) = checked {
        return Err(refused(reason, send));
    }
    let (tell, told) = mpsc::channel(FRAMES);
    let who = Newcomer { kind, session, certificate, name, connection: connection.clone() };
    match core.borrow_mut().join(who, tell) {
        Ok(index) => Ok(Arrival { index, send, recv, told }),
        Err(reason) => Err(refused(reason, send)),
    }
}

fn identify(connection: &quinn::Connection) -> Option<(CertName, CertHash)> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let leaf = chain.first()?;
    Some((cert_name(leaf)?, cert_hash(leaf)))
}

/// Whether a certificate of that role may be a party of that kind.
fn check_role(name: &CertName, kind: PartyKind) -> Result<(), String> {
    let (said, role) = match kind {
        PartyKind::Gate => ("gate", "gate"),
        PartyKind::Station => ("station", "station"),
        PartyKind::Signaling => ("signaling", "signaling"),
    };
    if name.role == role {
        return Ok(());
    }
    Err(format!("kind {said} needs a certificate of role {role}, this one has role {:.32}", name.role))
}

async fn refuse(connection: &quinn::Connection, refusal: Refusal) {
    let Refusal { reason, stream } = refusal;
    if let Some(mut send) = stream {
        let told = async {
            frame::write(&mut send, &FromRelay::Refused { reason: reason.clone() }).await.ok()?;
            send.finish().ok()?;
            send.stopped().await.ok()
        };
        let _ = timeout(REFUSAL_WAIT, told).await;
    }
    connection.close(code::REFUSED, reason.as_bytes());
}

/// A party from its arrival to its end.
async fn attend(core: &Shared, connection: &quinn::Connection, arrival: Arrival) {
    let Arrival { index, send, recv, told } = arrival;
    tokio::task::spawn_local(say(connection.clone(), send, told));
    tokio::task::spawn_local(listen(Rc::clone(core), connection.clone(), recv, index));
    tokio::task::spawn_local(tunnel::accept(Rc::clone(core), connection.clone(), index));
    let mut batch = Vec::with_capacity(BATCH);
    while read_datagrams(connection, &mut batch, BATCH).await.is_ok() {
        let more_may_wait = batch.len() == BATCH;
        batch.drain(..).for_each(|datagram| core.borrow_mut().forward(index, datagram));
        // Datagrams that wait are ready at once: without this the others would get no turn.
        if more_may_wait {
            tokio::task::yield_now().await;
        }
    }
    core.borrow_mut().leave(index);
}

/// Writes what the party is told.
async fn say(connection: quinn::Connection, mut send: quinn::SendStream, mut told: mpsc::Receiver<FromRelay>) {
    while let Some(message) = told.recv().await {
        if frame::write(&mut send, &message).await.is_err() {
            return connection.close(code::PROTOCOL, b"the rendezvous stream was stopped");
        }
    }
}

/// Reads what the party says after its CONNECT.
async fn listen(core: Shared, connection: quinn::Connection, mut recv: quinn::RecvStream, index: Index) {
    let reason = loop {
        match frame::read::<ToRelay>(&mut recv).await {
            Ok(ToRelay::Status { bytes }) => {
                if let Err(reason) = core.borrow_mut().take_status(index, &bytes) {
                    break reason.to_owned();
                }
                core.borrow().tell_holders();
            }
            Ok(ToRelay::Connect { .. }) => break "one CONNECT is enough".to_owned(),
            Err(frame::FrameError::Ended) => break "the rendezvous stream ended".to_owned(),
            Err(e) => break e.to_string(),
        }
    };
    connection.close(code::PROTOCOL, reason.as_bytes());
}
