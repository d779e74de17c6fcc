//! The rendezvous against raw QUIC clients.

mod mirror;
mod party;
mod tunnels;
mod who;

use super::*;
use party::{Pki, Raw};
use std::sync::atomic::{AtomicUsize, Ordering};
use trocar_proto::control::{FromRelay, Index, PartyKind, TunnelFrom, TunnelTo, join_datagram, split_datagram};

/// Longest wait for something that has to come.
const SOON: Duration = Duration::from_secs(5);

/// A running rendezvous and who may connect to it.
struct World {
    control: Control,
    pki: Pki,
}

impl World {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    /// Takes `token:SESSION:HASH` as a station's token.
    fn with(limits: Limits) -> Self {
        let pki = Pki::new();
        let tokens: TokenCheck = Arc::new(|token, session, certificate| {
            let right = format!("token:{session}:{certificate}");
            if token == right { Ok(()) } else { Err("the token is of another session or certificate".to_owned()) }
        });
        let listener = ControlListener {
            realm: RealmId::new("north").unwrap(),
            address: "127.0.0.1:0".parse().unwrap(),
            others: vec![(RealmId::new("south").unwrap(), "127.0.0.1:0".parse().unwrap())],
            identity: pki.identity("relay", "relay-1"),
            tokens,
            limits,
        };
        Self { control: Control::start(listener).unwrap(), pki }
    }

    /// Connects with a certificate of that role, without a word.
    async fn dial(&self, role: &str, name: &str) -> Raw {
        Raw::dial(self.control.address(), self.pki.identity(role, name)).await
    }

    async fn gate(&self, session: &str) -> Raw {
        let mut raw = self.dial("gate", "or-1").await;
        raw.join(session, PartyKind::Gate).await;
        raw
    }

    async fn station(&self, session: &str, name: &str) -> Raw {
        let mut raw = self.dial("station", name).await;
        raw.join(session, PartyKind::Station).await;
        raw
    }

    /// The value of a figure, summed over rows that have all these labels.
    async fn figure(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let rows = self.control.figures().await;
        let has = |row: &&LegFigures| labels.iter().all(|(k, v)| row.labels.iter().any(|(a, b)| a == k && b == v));
        rows.iter().filter(has).flat_map(|r| &r.values).filter(|v| v.metric.name == name).map(|v| v.value).sum()
    }

    /// Waits until a figure is this.
    async fn until(&self, name: &str, labels: &[(&str, &str)], wanted: f64) {
        let reached = async {
            while self.figure(name, labels).await != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, reached).await.unwrap_or_else(|_| panic!("{name} does not become {wanted}"));
    }
}

/// A gate and a station of one session that know of each other: the gate, the station, and the station's number at the gate.
async fn pair(world: &World) -> (Raw, Raw) {
    let gate = world.gate("s1").await;
    let station = world.station("s1", "expert-1").await;
    (gate, station)
}

#[tokio::test]
async fn a_gate_and_a_station_hear_of_each_other_and_of_each_others_end() {
    let world = World::new();
    let (mut gate, mut station) = pair(&world).await;
    let mut signaling = world.dial("signaling", "signaling").await;
    signaling.join("s1", PartyKind::Signaling).await;
    let (g, s, b) = (gate.index(), station.index(), signaling.index());
    assert_eq!(gate.heard().await, FromRelay::Joined { index: s, kind: PartyKind::Station, certificate: station.hash });
    assert_eq!(
        gate.heard().await,
        FromRelay::Joined { index: b, kind: PartyKind::Signaling, certificate: signaling.hash }
    );
    let of_gate = FromRelay::Joined { index: g, kind: PartyKind::Gate, certificate: gate.hash };
    assert_eq!(station.heard().await, of_gate);
    assert_eq!(signaling.heard().await, of_gate);
    world.until("trocar_control_parties", &[("session", "s1")], 3.0).await;
    station.connection.close(0_u32.into(), b"");
    assert_eq!(gate.heard().await, FromRelay::Left { index: s });
    gate.connection.close(0_u32.into(), b"");
    assert_eq!(signaling.heard().await, FromRelay::Left { index: g }, "of the station it was never told");
    world.until("trocar_control_parties", &[("session", "s1")], 1.0).await;
    assert_eq!(world.figure("trocar_control_parties", &[("kind", "signaling")]).await, 1.0);
}

#[tokio::test]
async fn a_thousand_datagrams_arrive_in_order_each_way_under_the_senders_number() {
    let world = World::new();
    let (gate, station) = pair(&world).await;
    for (from, to) in [(&station, &gate), (&gate, &station)] {
        for n in 0..1_000_u32 {
            from.connection.send_datagram(join_datagram(to.index(), &n.to_be_bytes()).into()).unwrap();
            let got = tokio::time::timeout(SOON, to.connection.read_datagram()).await.expect("it came").unwrap();
            assert_eq!(split_datagram(&got), Some((from.index(), n.to_be_bytes().as_slice())));
        }
    }
    assert_eq!(world.figure("trocar_control_datagrams", &[("direction", "to_gate")]).await, 1_000.0);
    assert_eq!(world.figure("trocar_control_datagrams", &[("direction", "from_gate")]).await, 1_000.0);
    assert_eq!(world.figure("trocar_control_dropped", &[]).await, 0.0);
}

#[tokio::test]
async fn datagrams_reach_nobody_but_the_gate_of_the_own_session() {
    let world = World::new();
    let (gate, station) = pair(&world).await;
    let other_station = world.station("s1", "expert-2").await;
    let other_gate = world.gate("s2").await;
    let nobody = Index(60_000);
    for to in [other_station.index(), other_gate.index(), nobody, station.index()] {
        station.connection.send_datagram(join_datagram(to, b"x").into()).unwrap();
    }
    station.connection.send_datagram(vec![1].into()).unwrap();
    world.until("trocar_control_dropped", &[("reason", "no_receiver")], 5.0).await;
    // The negative control: what is allowed comes, and is all that came.
    station.connection.send_datagram(join_datagram(gate.index(), b"y").into()).unwrap();
    let got = tokio::time::timeout(SOON, gate.connection.read_datagram()).await.unwrap().unwrap();
    assert_eq!(split_datagram(&got), Some((station.index(), b"y".as_slice())));
    assert_eq!(world.figure("trocar_control_datagrams", &[]).await, 1.0);
}

#[tokio::test]
async fn a_flood_of_datagrams_is_cut_to_its_senders_rate_and_disturbs_nobody() {
    let world = World::with(Limits { datagrams_per_second: 100, ..Limits::default() });
    let (gate, station) = pair(&world).await;
    let other = world.station("s1", "expert-2").await;
    for n in 0..2_000_u32 {
        let _ = station.connection.send_datagram(join_datagram(gate.index(), &n.to_be_bytes()).into());
        if n % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    other.connection.send_datagram(join_datagram(gate.index(), b"other").into()).unwrap();
    let others = async {
        loop {
            let got = gate.connection.read_datagram().await.unwrap();
            if split_datagram(&got) == Some((other.index(), b"other".as_slice())) {
                break;
            }
        }
    };
    tokio::time::timeout(SOON, others).await.expect("the other's datagram came");
    assert!(world.figure("trocar_control_dropped", &[("reason", "too_fast")]).await > 0.0);
}

#[tokio::test]
async fn one_certificate_has_four_connections_and_the_newest_stay() {
    let world = World::new();
    let gate = world.gate("s1").await;
    let mut all = Vec::new();
    let identity = world.pki.identity("station", "expert-1");
    for _ in 0..5 {
        let mut raw = Raw::dial(world.control.address(), party::copy(&identity)).await;
        raw.join("s1", PartyKind::Station).await;
        all.push(raw);
    }
    let reason = all[0].closed().await;
    assert!(reason.contains("newer connection"), "{reason}");
    world.until("trocar_control_parties", &[("kind", "station")], 4.0).await;
    assert!(gate.connection.close_reason().is_none());
    let indices: std::collections::BTreeSet<Index> = all.iter().map(Raw::index).collect();
    assert_eq!(indices.len(), 5, "no number is given twice");
}

#[tokio::test]
async fn a_session_that_is_full_of_stations_still_takes_a_gate() {
    let world = World::new();
    let mut stations = Vec::new();
    for n in 0..24 {
        stations.push(world.station("s1", &format!("expert-{n}")).await);
    }
    let mut late = world.dial("station", "late").await;
    let reason = late.refused("s1", PartyKind::Station, late.token("s1")).await;
    assert!(reason.contains("full"), "{reason}");
    let gate = world.gate("s1").await;
    assert!(gate.connection.close_reason().is_none());
    world.station("s2", "late").await;
}

#[tokio::test]
async fn shutting_down_tells_everybody() {
    let world = World::new();
    let (gate, station) = pair(&world).await;
    world.control.shutdown().await;
    for raw in [&gate, &station] {
        assert!(raw.closed().await.contains("the relay stops"));
    }
    assert!(world.control.figures().await.is_empty(), "its thread is gone");
}
