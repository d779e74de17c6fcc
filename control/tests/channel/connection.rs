use crate::support::{Fault, Pki, Relay};
use std::time::Duration;
use tokio::time::timeout;
use trocar_control::channel::{self, Channel, Reader, SharedDedupe, Writer};
use trocar_control::seal::{SealError, SealKeys};
use trocar_control::transport::{Connect, ControlConnection, Event, Events, TransportError, Tunnel};
use trocar_control::trust::Identity;
use trocar_proto::control::{Index, PartyKind};
use trocar_proto::handover::message::{Beacon, Datagram, FromGate, Heartbeat, Pose, Reason, Short, ToGate, Token};
use trocar_proto::handover::types::{Binding, Counter, Epoch, Nonce, Oid};
use trocar_proto::session::ids::SessionId;

const SOON: Duration = Duration::from_secs(10);
const OID: Oid = Oid(77);

async fn connect(pki: &Pki, relay: &Relay, me: &Identity, kind: PartyKind) -> (ControlConnection, Events) {
    ControlConnection::connect(&to(relay, kind), me, &pki.trust()).await.unwrap()
}

fn to(relay: &Relay, kind: PartyKind) -> Connect {
    let session = SessionId::new("S").unwrap();
    Connect { relay: relay.address, local: None, server_name: "127.0.0.1".to_owned(), session, kind, token: None }
}

async fn event(events: &mut Events) -> Event {
    timeout(SOON, events.next()).await.unwrap()
}

/// Gate and station with a channel between them.
struct Pair {
    gate: ControlConnection,
    station: ControlConnection,
    /// The other's number, as gate and station know it.
    numbers: (Index, Index),
    channels: (Channel<Tunnel>, Channel<Tunnel>),
    events: (Events, Events),
}

async fn pair(pki: &Pki, relay: &Relay) -> Pair {
    let ((gate_id, _), (station_id, _)) = (pki.device("gate", "g"), pki.device("station", "s"));
    let (gate, mut at_gate) = connect(pki, relay, &gate_id, PartyKind::Gate).await;
    let (station, mut at_station) = connect(pki, relay, &station_id, PartyKind::Station).await;
    let Event::Joined { index: there, kind: PartyKind::Gate, certificate } = event(&mut at_station).await else {
        panic!("the station is not told of the gate")
    };
    assert_eq!(certificate, gate_id.hash());
    assert_eq!(there, gate.index());
    let tunnel = station.open_tunnel(there).await.unwrap();
    let trust = pki.trust();
    let accepting = async {
        loop {
            if let Event::Tunnel { from, tunnel } = event(&mut at_gate).await {
                assert_eq!(from, station.index());
                return channel::accept(tunnel, &gate_id, &trust, &["station"]).await.unwrap();
            }
        }
    };
    let (a, b) = tokio::join!(accepting, channel::connect(tunnel, &station_id, &trust, "gate"));
    let numbers = (station.index(), there);
    Pair { gate, station, numbers, channels: (a, b.unwrap()), events: (at_gate, at_station) }
}

fn heartbeat(counter: u64) -> Datagram {
    Datagram::Heartbeat(Heartbeat {
        binding: Binding::Offer(OID),
        counter: Counter(counter),
        beat: 0,
        nonce: Nonce(1),
        echo: None,
        presence: true,
        pedal: false,
        pose: Pose::default(),
    })
}

fn keys(pair: &Pair) -> (SealKeys, SealKeys) {
    let mut keys = (pair.channels.0.seal_keys().unwrap(), pair.channels.1.seal_keys().unwrap());
    keys.0.accept(OID).unwrap();
    keys.1.accept(OID).unwrap();
    keys
}

async fn datagram(connection: &ControlConnection) -> (Index, Vec<u8>) {
    let (from, bytes) = timeout(SOON, connection.datagram()).await.unwrap().unwrap();
    (from, bytes.to_vec())
}

#[tokio::test]
async fn a_message_each_way_and_a_sealed_datagram_each_way_through_a_relay() {
    // HO-C-007
    let pki = Pki::new();
    let relay = Relay::start(&pki);
    let pair = pair(&pki, &relay).await;
    let (mut gate_keys, mut station_keys) = keys(&pair);
    let Pair { gate, station, numbers: (station_no, gate_no), channels: (at_gate, at_station), events: _events } = pair;
    let peer = at_gate.peer.clone();
    let (mut reader, writer): (Reader<ToGate, _>, Writer) = at_gate.start(SharedDedupe::default());
    let (mut back, out): (Reader<FromGate, _>, Writer) = at_station.start(SharedDedupe::default());
    let token = Token::new(pki.token(peer.certificate, "dr-a", "S")).unwrap();
    let hello = ToGate::Hello { capabilities: 0, binds: None, token };
    out.send(1, &hello).unwrap();
    assert_eq!(timeout(SOON, reader.next()).await.unwrap().unwrap(), (1, hello));
    let nack = FromGate::Nack { reason: Reason::BadToken, epoch: Epoch(3) };
    writer.send(1, &nack).unwrap();
    assert_eq!(timeout(SOON, back.next()).await.unwrap().unwrap(), (1, nack));

    let hb = heartbeat(1);
    assert!(station.send_datagram(gate_no, &station_keys.seal(&hb).unwrap()));
    let (from, sealed) = datagram(&gate).await;
    assert_eq!(from, station_no);
    assert_eq!(gate_keys.open(&sealed), Ok(hb));
    let beacon = Datagram::Beacon(Beacon { binding: Binding::Offer(OID), counter: Counter(1), nonce: Nonce(5) });
    assert!(gate.send_datagram(station_no, &gate_keys.seal(&beacon).unwrap()));
    let (from, sealed) = datagram(&station).await;
    assert_eq!(from, gate_no);
    assert_eq!(station_keys.open(&sealed), Ok(beacon));
}

#[tokio::test]
async fn a_relay_that_changes_a_datagram_gets_nothing_opened_and_one_that_repeats_it_the_same_bytes() {
    // HO-C-007, HO-C-008
    let pki = Pki::new();
    let relay = Relay::start(&pki);
    let pair = pair(&pki, &relay).await;
    let (gate_keys, mut station_keys) = keys(&pair);
    let sealed = station_keys.seal(&heartbeat(1)).unwrap();
    for (back, why) in
        [(0, SealError::Broken), (sealed.len() - 13, SealError::Broken), (sealed.len() - 2, SealError::NoKey)]
    {
        relay.fault(Fault::Flip(back));
        assert!(pair.station.send_datagram(pair.numbers.1, &sealed));
        assert_eq!(gate_keys.open(&datagram(&pair.gate).await.1), Err(why), "{back} from the end");
    }
    relay.fault(Fault::Twice);
    assert!(pair.station.send_datagram(pair.numbers.1, &sealed));
    let (first, second) = (datagram(&pair.gate).await.1, datagram(&pair.gate).await.1);
    assert_eq!(first, sealed);
    assert_eq!(first, second);
    assert!(gate_keys.open(&first).is_ok());
}

#[tokio::test]
async fn a_relay_of_another_authority_or_name_and_a_refused_session_give_no_connection() {
    let (pki, other) = (Pki::new(), Pki::new());
    let relay = Relay::start(&pki);
    let (me, _) = pki.device("gate", "g");
    let wanted = to(&relay, PartyKind::Gate);
    let stranger = ControlConnection::connect(&wanted, &me, &other.trust()).await.unwrap_err();
    assert!(matches!(stranger, TransportError::Connection(_)), "{stranger}");
    let misnamed = Connect { server_name: "relay.example".to_owned(), ..wanted.clone() };
    let misnamed = ControlConnection::connect(&misnamed, &me, &pki.trust()).await.unwrap_err();
    assert!(matches!(misnamed, TransportError::Connection(_)), "{misnamed}");
    let (impostor, _) = other.device("gate", "g");
    assert!(ControlConnection::connect(&wanted, &impostor, &pki.trust()).await.is_err());
    let nowhere = Connect { session: SessionId::new("T").unwrap(), ..wanted.clone() };
    let refused = ControlConnection::connect(&nowhere, &me, &pki.trust()).await.unwrap_err();
    assert_eq!(refused.to_string(), "the relay refuses: no such session");
    assert!(ControlConnection::connect(&wanted, &me, &pki.trust()).await.is_ok());
}

#[tokio::test]
async fn joining_leaving_probes_and_the_end_are_told_and_a_status_copy_arrives() {
    // HO-V-006
    let pki = Pki::new();
    let relay = Relay::start(&pki);
    let mut pair = pair(&pki, &relay).await;
    relay.probe(42);
    let probe = event(&mut pair.events.0).await;
    assert!(matches!(probe, Event::Probe(42)), "{probe:?}");
    let copy = FromGate::Withdraw { oid: Oid(1) };
    assert!(pair.gate.status(5, &copy));
    let hex = timeout(SOON, relay.statuses.lock().await.recv()).await.unwrap().unwrap();
    let bytes = hex::decode(hex).unwrap();
    assert_eq!(trocar_proto::handover::message::decode_from_gate(&bytes).unwrap(), (5, copy));
    relay.cut();
    for events in [&mut pair.events.0, &mut pair.events.1] {
        let end = loop {
            if let Event::Closed(why) = event(events).await {
                break why;
            }
        };
        assert!(matches!(end, TransportError::Connection(_)), "{end}");
        assert!(matches!(event(events).await, Event::Closed(_)));
    }
    assert!(!pair.gate.send_datagram(Index(1), b"x"));
    assert!(pair.gate.datagram().await.is_err());
    assert!(pair.gate.open_tunnel(Index(1)).await.is_err());
    let (_, mut reader) = (Short::default(), pair.channels.1.start::<FromGate>(SharedDedupe::default()).0);
    assert!(timeout(SOON, reader.next()).await.unwrap().is_err());
}
