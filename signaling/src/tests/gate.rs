//! The whole way to a gate: event socket, signaling, a relay's rendezvous, mutual TLS in a tunnel, and back.

use super::serving::Running;
use super::sockets::Socket;
use super::*;
use crate::ControlConfig;
use std::path::PathBuf;
use std::sync::OnceLock;
use tempfile::TempDir;
use tokio::time::timeout;
use trocar_control::channel::{self, SharedDedupe};
use trocar_control::transport::{Connect, ControlConnection, Event, TransportError};
use trocar_control::trust::{Identity, TrustList};
use trocar_proto::control::PartyKind;
use trocar_proto::handover::message::{Figures, FromGate, Mode, Status, ToGate};
use trocar_proto::handover::types::{Colours, Epoch, GrantedSet};
use trocar_relay::control::{Control, ControlListener};
use trocar_testpki::{Authority, Leaf};

const SOON: Duration = Duration::from_secs(5);

/// A site: an authority with its directory, and a relay.
struct Site {
    dir: TempDir,
    ca: Authority,
    relay: Control,
    /// What the relay asks about tokens, once signaling is up.
    tokens: Arc<OnceLock<crate::TokenCheck>>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::new();
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        let own = write_identity(&dir, &ca, "relay");
        let own = Identity::from_pem_files(&own.0, &own.1).unwrap();
        let tokens = Arc::new(OnceLock::<crate::TokenCheck>::new());
        let asked = tokens.clone();
        let relay = Control::start(ControlListener {
            realm: RealmId::new("north").unwrap(),
            address: "127.0.0.1:0".parse().unwrap(),
            others: Vec::new(),
            identity: trocar_relay::quic::Identity { chain: own.chain, key: own.key, trust: vec![ca.der()] },
            tokens: Arc::new(move |token, session, hash| asked.get().unwrap()(token, session, hash)),
            limits: trocar_relay::control::Limits::default(),
        })
        .unwrap();
        Self { dir, ca, relay, tokens }
    }

    fn identity(&self, role: &str) -> Identity {
        let (cert, key) = write_identity(&self.dir, &self.ca, role);
        Identity::from_pem_files(&cert, &key).unwrap()
    }

    fn control(&self) -> ControlConfig {
        let (cert, key) = write_identity(&self.dir, &self.ca, "signaling");
        let trust = self.dir.path().join("ca.pem");
        ControlConfig { relay: self.relay.address(), server_name: "localhost".into(), cert, key, trust }
    }

    async fn connect(
        &self,
        me: &Identity,
        session: &SessionId,
        kind: PartyKind,
        token: Option<String>,
    ) -> Result<(ControlConnection, trocar_control::transport::Events), TransportError> {
        let trust = TrustList::load(self.dir.path()).unwrap().current();
        let to = Connect {
            relay: self.relay.address(),
            local: None,
            server_name: "localhost".into(),
            session: session.clone(),
            kind,
            token,
        };
        ControlConnection::connect(&to, me, &trust).await
    }
}

fn write_identity(dir: &TempDir, ca: &Authority, role: &str) -> (PathBuf, PathBuf) {
    let leaf = Leaf::device(format!("trocar://north/{role}/one")).at("localhost");
    ca.issue(&leaf).write(dir.path(), role)
}

fn status(answers: Vec<trocar_proto::handover::types::Nonce>) -> FromGate {
    FromGate::Status(Status {
        epoch: Epoch(4),
        mode: Mode::Local,
        expert: None,
        set: GrantedSet::default(),
        since_ms: 0,
        stopped: 0,
        alarms: 0,
        colours: Colours::default(),
        figures: Figures::default(),
        answers,
        paths: trocar_proto::handover::paths::Protection::default(),
        timers: trocar_proto::handover::message::Timers::default(),
    })
}

#[tokio::test]
async fn a_browser_asks_and_stops_through_relay_and_channel_and_learns_of_the_gates_end() {
    let site = Site::new();
    let world = Running::with(|c| c.control = Some(site.control())).await;
    site.tokens.set(world.handle.token_check()).ok();
    let (_, mut socket) = {
        let grant = world.join(Role::Observer).await;
        let (socket, welcome) = Socket::open(&world, &grant).await;
        (welcome, socket)
    };
    let me = site.identity("gate");
    let (gate, mut events) = site.connect(&me, &world.session, PartyKind::Gate, None).await.unwrap();
    let tunnel = loop {
        match timeout(SOON, events.next()).await.expect("signaling comes") {
            Event::Tunnel { tunnel, .. } => break tunnel,
            Event::Closed(why) => panic!("{why}"),
            _ => {}
        }
    };
    let trust = TrustList::load(site.dir.path()).unwrap().current();
    let channel = channel::accept(tunnel, &me, &trust, &["signaling"]).await.unwrap();
    assert_eq!(channel.peer.name.role, "signaling");
    let (mut reader, writer) = channel.start::<ToGate>(SharedDedupe::default());
    let (_, hello) = timeout(SOON, reader.next()).await.unwrap().unwrap();
    assert!(matches!(hello, ToGate::Hello { .. }), "{hello:?}");
    socket.say(&json!({"type": "control_probe", "nonce": "0123456789abcdef"})).await;
    let (_, probe) = timeout(SOON, reader.next()).await.unwrap().unwrap();
    let ToGate::Probe { nonce } = probe else { panic!("{probe:?}") };
    writer.send(1, &status(vec![nonce])).unwrap();
    let control = socket.next_of("control").await["control"].clone();
    assert_eq!((&control["mode"], &control["answers"]), (&json!("local"), &json!(["0123456789abcdef"])));
    socket.say(&json!({"type": "control_estop", "reason": "stop"})).await;
    let (_, estop) = timeout(SOON, reader.next()).await.unwrap().unwrap();
    assert!(matches!(estop, ToGate::Estop { .. }), "{estop:?}");
    gate.close();
    socket.next_of("control_gone").await;
}

#[tokio::test]
async fn a_relay_lets_a_station_in_by_signalings_word_and_by_nobody_elses() {
    let site = Site::new();
    let world = Running::with(|c| c.control = Some(site.control())).await;
    site.tokens.set(world.handle.token_check()).ok();
    let me = site.identity("station");
    let invitation = world.handle.invite(&world.session, Role::Expert, Duration::from_secs(3600)).await.unwrap();
    let grant = world.redeem_with(&invitation.invitation, &me.hash().to_string()).await;
    let (station, _events) =
        site.connect(&me, &world.session, PartyKind::Station, Some(grant.token.clone())).await.unwrap();
    assert_ne!(station.index().0, 0);
    let other = site.identity("station");
    for (identity, token, why) in [
        (&other, Some(grant.token), "claim cnf"),
        (&me, None, "shows its session token"),
        (&me, Some("x".into()), "token"),
    ] {
        let refused = site.connect(identity, &world.session, PartyKind::Station, token).await.err().unwrap();
        assert!(refused.to_string().contains(why), "{refused}");
    }
}

#[tokio::test]
async fn an_identity_that_is_not_signalings_is_refused_at_the_start() {
    let site = Site::new();
    let (cert, key) = write_identity(&site.dir, &site.ca, "gate");
    let mut config = config();
    config.control = Some(ControlConfig { cert, key, ..site.control() });
    let (_, events) = tokio::sync::mpsc::channel(1);
    let refused = crate::Server::start(config, Arc::new(FakeRelay::default()), events).await.err().unwrap();
    assert!(refused.to_string().contains("role signaling is right, this is gate"), "{refused}");
}
