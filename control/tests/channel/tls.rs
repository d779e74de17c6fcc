use crate::support::Pki;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use trocar_control::channel::{self, Channel, ChannelError, MAX_MESSAGE, Reader, SharedDedupe, WRITER_QUEUE, Writer};
use trocar_control::trust::{Identity, Trust};
use trocar_proto::handover::message::{FromGate, Reason, ToGate};
use trocar_proto::handover::types::{Epoch, Nonce};

const ROLES: [&str; 2] = ["station", "signaling"];

type Ends = (Result<Channel<DuplexStream>, ChannelError>, Result<Channel<DuplexStream>, ChannelError>);

/// Gate's end, station's end.
async fn handshake(gate: (&Identity, &Trust), station: (&Identity, &Trust)) -> Ends {
    let (a, b) = duplex(64 << 10);
    tokio::join!(channel::accept(a, gate.0, gate.1, &ROLES), channel::connect(b, station.0, station.1, "gate"))
}

async fn open(pki: &Pki) -> (Channel<DuplexStream>, Channel<DuplexStream>) {
    let trust = pki.trust();
    let ((gate, _), (station, _)) = (pki.device("gate", "g"), pki.device("station", "s"));
    let (gate, station) = handshake((&gate, &trust), (&station, &trust)).await;
    (gate.unwrap(), station.unwrap())
}

fn probe(nonce: u64) -> ToGate {
    ToGate::Probe { nonce: Nonce(nonce) }
}

#[tokio::test]
async fn both_ends_know_each_other_and_share_secrets_that_no_other_channel_has() {
    let pki = Pki::new();
    let (gate, station) = open(&pki).await;
    assert_eq!(gate.peer.name.to_string(), "trocar://test/station/s");
    assert_eq!(station.peer.name.to_string(), "trocar://test/gate/g");
    assert_eq!(gate.peer.serial, "02");
    assert_eq!(gate.tunnel, station.tunnel);
    let (another, _) = open(&pki).await;
    assert_ne!(gate.tunnel, another.tunnel);
}

#[tokio::test]
async fn another_authority_a_revoked_certificate_and_a_wrong_role_get_no_channel_either_way() {
    let (pki, other) = (Pki::new(), Pki::new());
    let trust = pki.trust();
    let ((gate, gate_serial), (station, serial)) = (pki.device("gate", "g"), pki.device("station", "s"));
    let (stranger, _) = other.device("station", "s");
    let (impostor, _) = other.device("gate", "g");
    let (browser, _) = pki.device("publisher", "p");

    // The station is a stranger's, or has no role that may come.
    let (at_gate, _) = handshake((&gate, &trust), (&stranger, &trust)).await;
    assert!(matches!(at_gate, Err(ChannelError::Handshake(_))), "{at_gate:?}");
    let (at_gate, _) = handshake((&gate, &trust), (&browser, &trust)).await;
    assert!(matches!(&at_gate, Err(ChannelError::Role { got, .. }) if got == "publisher"), "{at_gate:?}");
    // The gate is a stranger's, or is no gate.
    let (_, at_station) = handshake((&impostor, &trust), (&station, &trust)).await;
    assert!(matches!(at_station, Err(ChannelError::Handshake(_))), "{at_station:?}");
    let (_, at_station) = handshake((&browser, &trust), (&station, &trust)).await;
    assert!(matches!(&at_station, Err(ChannelError::Role { got, .. }) if got == "publisher"), "{at_station:?}");
    // Negative control: with the same trust list the right ones get through.
    let (at_gate, at_station) = handshake((&gate, &trust), (&station, &trust)).await;
    assert!(at_gate.is_ok() && at_station.is_ok());

    pki.revoke(&[serial]);
    let (at_gate, _) = handshake((&gate, &pki.trust()), (&station, &trust)).await;
    assert!(matches!(at_gate, Err(ChannelError::Handshake(_))), "{at_gate:?}");
    pki.revoke(&[gate_serial]);
    let (_, at_station) = handshake((&gate, &trust), (&station, &pki.trust())).await;
    assert!(matches!(at_station, Err(ChannelError::Handshake(_))), "{at_station:?}");
}

#[tokio::test]
async fn messages_go_both_ways_once_each_and_the_end_is_seen() {
    // HO-C-006
    let (gate, station) = open(&Pki::new()).await;
    let (mut at_gate, from_gate): (Reader<ToGate, _>, Writer) = gate.start(SharedDedupe::default());
    let (mut at_station, from_station): (Reader<FromGate, _>, Writer) = station.start(SharedDedupe::default());
    for id in [1, 2, 2, 1, 3] {
        from_station.send(id, &probe(id)).unwrap();
    }
    for id in [1, 2, 3] {
        assert_eq!(at_gate.next().await.unwrap(), (id, probe(id)));
    }
    let nack = FromGate::Nack { reason: Reason::NoHello, epoch: Epoch(1) };
    from_gate.send(9, &nack).unwrap();
    assert_eq!(at_station.next().await.unwrap(), (9, nack));
    from_station.close();
    assert!(matches!(at_station.next().await, Err(ChannelError::Closed)));
    drop(at_station);
    assert!(at_gate.next().await.is_err());
}

#[tokio::test]
async fn copies_that_come_by_a_second_tunnel_are_dropped_where_both_share_the_count() {
    // HO-C-006
    let pki = Pki::new();
    let ((gate1, station1), (gate2, station2)) = (open(&pki).await, open(&pki).await);
    let seen = SharedDedupe::default();
    let (mut first, _w1): (Reader<ToGate, _>, Writer) = gate1.start(seen.clone());
    let (mut second, _w2): (Reader<ToGate, _>, Writer) = gate2.start(seen);
    let (_r1, by_first): (Reader<FromGate, _>, Writer) = station1.start(SharedDedupe::default());
    let (_r2, by_second): (Reader<FromGate, _>, Writer) = station2.start(SharedDedupe::default());
    by_first.send(1, &probe(1)).unwrap();
    assert_eq!(first.next().await.unwrap().0, 1);
    by_second.send(1, &probe(1)).unwrap();
    by_second.send(2, &probe(2)).unwrap();
    assert_eq!(second.next().await.unwrap().0, 2);
}

#[tokio::test]
async fn what_is_no_message_of_this_way_ends_the_channel() {
    for bytes in [b"".as_slice(), b"\x01\x21\0\0\0\0\0\0\0\x01", b"\xff\x02", &[0; 64]] {
        let (gate, station) = open(&Pki::new()).await;
        let (mut at_gate, _w): (Reader<ToGate, _>, Writer) = gate.start(SharedDedupe::default());
        let mut raw = station.into_stream();
        raw.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes()).await.unwrap();
        raw.write_all(bytes).await.unwrap();
        raw.flush().await.unwrap();
        assert!(matches!(at_gate.next().await, Err(ChannelError::Message(_))), "{bytes:?}");
    }
    let (gate, station) = open(&Pki::new()).await;
    let (mut at_gate, _w): (Reader<ToGate, _>, Writer) = gate.start(SharedDedupe::default());
    let mut raw = station.into_stream();
    raw.write_all(&u16::try_from(MAX_MESSAGE + 1).unwrap().to_be_bytes()).await.unwrap();
    raw.flush().await.unwrap();
    assert!(matches!(at_gate.next().await, Err(ChannelError::Frame(n)) if n == MAX_MESSAGE + 1));
}

#[tokio::test]
async fn a_channel_whose_other_end_does_not_read_fills_up_and_waits_for_nobody() {
    let (gate, station) = open(&Pki::new()).await;
    let (_reader, writer): (Reader<ToGate, _>, Writer) = gate.start(SharedDedupe::default());
    let token = trocar_proto::handover::message::Token::new("x".repeat(4_096)).unwrap();
    let hello = ToGate::Hello { capabilities: 0, binds: None, token };
    let mut sent = 0;
    let full = loop {
        match writer.send(1, &hello) {
            Ok(()) => sent += 1,
            Err(e) => break e,
        }
        assert!(sent < 10_000, "nothing bounds the queue");
        tokio::task::yield_now().await;
    };
    assert!(matches!(full, ChannelError::Full));
    assert!(sent >= WRITER_QUEUE);
    drop(station);
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_given_up() {
    let pki = Pki::new();
    let (gate, _) = pki.device("gate", "g");
    let (a, _silent) = duplex(1_024);
    let given_up = channel::accept(a, &gate, &pki.trust(), &ROLES).await;
    assert!(matches!(given_up, Err(ChannelError::TimedOut)), "{given_up:?}");
}
