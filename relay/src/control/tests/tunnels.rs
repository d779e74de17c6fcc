//! Tunnels: spliced both ways, bounded, and ended as their ends end them.

use super::super::frame;
use super::*;
use quinn::{RecvStream, SendStream, VarInt};
use trocar_proto::control::MAX_TUNNELS;

/// Opens a tunnel and takes it at the other end.
async fn tunnel(from: &Raw, to: &Raw) -> ((SendStream, RecvStream), (SendStream, RecvStream)) {
    let mut near = from.connection.open_bi().await.unwrap();
    frame::write(&mut near.0, &TunnelTo { to: to.index() }).await.unwrap();
    let mut far = tokio::time::timeout(SOON, to.connection.accept_bi()).await.expect("a tunnel came").unwrap();
    let head: TunnelFrom = frame::read(&mut far.1).await.unwrap();
    assert_eq!(head.from, from.index());
    (near, far)
}

/// The code that a read ends with.
async fn reset_code(recv: &mut RecvStream) -> VarInt {
    let mut buffer = [0; 4_096];
    loop {
        match tokio::time::timeout(SOON, recv.read(&mut buffer)).await.expect("the stream ends") {
            Ok(Some(_)) => {}
            Err(quinn::ReadError::Reset(code)) => return code,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn bytes_pass_both_ways_in_order_and_an_end_is_an_end() {
    let world = World::new();
    let (gate, station) = pair(&world).await;
    for (a, b) in [(&station, &gate), (&gate, &station)] {
        let (mut near, mut far) = tunnel(a, b).await;
        let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_be_bytes).collect();
        let (sent, expected) = (bytes.clone(), bytes.len());
        let send = async {
            near.0.write_all(&sent).await.unwrap();
            near.0.finish().unwrap();
        };
        let echo = async {
            let got = far.1.read_to_end(expected).await.unwrap();
            far.0.write_all(&got).await.unwrap();
            far.0.finish().unwrap();
        };
        let back = async { near.1.read_to_end(expected).await.unwrap() };
        let ((), (), back) = tokio::time::timeout(SOON, async { tokio::join!(send, echo, back) }).await.unwrap();
        assert_eq!(back, bytes);
        world.until("trocar_control_tunnels", &[], 0.0).await;
    }
}

#[tokio::test]
async fn tunnels_lead_to_the_gate_of_the_own_session_only() {
    let world = World::new();
    let (gate, station) = pair(&world).await;
    let other_station = world.station("s1", "expert-2").await;
    let other_gate = world.gate("s2").await;
    for to in [other_station.index(), other_gate.index(), station.index(), Index(60_000)] {
        let (mut send, mut recv) = station.connection.open_bi().await.unwrap();
        frame::write(&mut send, &TunnelTo { to }).await.unwrap();
        assert_eq!(reset_code(&mut recv).await, tunnel_code::NO_SUCH_PARTY);
    }
    let (mut send, mut recv) = station.connection.open_bi().await.unwrap();
    send.write_all(&[0xff; 16]).await.unwrap();
    assert_eq!(reset_code(&mut recv).await, tunnel_code::MALFORMED);
    // The negative control.
    tunnel(&station, &gate).await;
}

#[tokio::test]
async fn a_reset_and_a_stop_arrive_as_they_were_sent() {
    let world = World::new();
    let (gate, station) = pair(&world).await;
    let (mut near, mut far) = tunnel(&station, &gate).await;
    near.0.reset(VarInt::from_u32(77)).unwrap();
    assert_eq!(reset_code(&mut far.1).await, VarInt::from_u32(77));
    near.1.stop(VarInt::from_u32(78)).unwrap();
    let stopped = tokio::time::timeout(SOON, far.0.stopped()).await.expect("the stop came").unwrap();
    assert_eq!(stopped, Some(VarInt::from_u32(78)), "without a byte written");
    world.until("trocar_control_tunnels", &[], 0.0).await;
}

#[tokio::test]
async fn tunnels_end_with_the_party_at_their_other_end() {
    let world = World::new();
    let (gate, station) = pair(&world).await;
    let (mut near, _far) = tunnel(&station, &gate).await;
    gate.connection.close(0_u32.into(), b"");
    assert_eq!(reset_code(&mut near.1).await, tunnel_code::GONE);
    world.until("trocar_control_tunnels", &[], 0.0).await;
    assert!(station.connection.close_reason().is_none());
}

#[tokio::test]
async fn a_slow_reader_holds_up_its_own_tunnel_only_and_memory_does_not_grow() {
    let world = World::with(Limits { stall: Duration::from_millis(500), ..Limits::default() });
    let (gate, station) = pair(&world).await;
    let other = world.station("s1", "expert-2").await;
    let (mut near, mut far) = tunnel(&station, &gate).await;
    let (mut theirs, mut at_gate) = tunnel(&other, &gate).await;
    // Nobody reads `far`: what is taken from the writer is what the windows on the way hold.
    let mut taken = 0;
    let chunk = [7; 4_096];
    while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(200), near.0.write(&chunk)).await {
        taken += n;
        assert!(taken < 256 << 10, "{taken} bytes are somewhere on the way");
    }
    // The others go on meanwhile, in their own tunnel and by datagram.
    theirs.0.write_all(b"take back").await.unwrap();
    let mut got = [0; 9];
    tokio::time::timeout(SOON, at_gate.1.read_exact(&mut got)).await.expect("it is not held up").unwrap();
    assert_eq!(&got, b"take back");
    station.connection.send_datagram(join_datagram(gate.index(), b"hb").into()).unwrap();
    tokio::time::timeout(SOON, gate.connection.read_datagram()).await.expect("nor are datagrams").unwrap();
    // The tunnel that stood still is ended, by both ends.
    let stopped = tokio::time::timeout(SOON, near.0.stopped()).await.expect("the writer is told").unwrap();
    assert_eq!(stopped, Some(tunnel_code::STALLED));
    assert_eq!(reset_code(&mut far.1).await, tunnel_code::STALLED);
}

#[tokio::test]
async fn whoever_has_all_tunnels_to_a_gate_gives_one_to_whoever_has_none() {
    let world = World::new();
    let (gate, station) = pair(&world).await;
    let other = world.station("s1", "expert-2").await;
    let mut all = Vec::new();
    for _ in 0..MAX_TUNNELS {
        all.push(tunnel(&station, &gate).await);
    }
    world.until("trocar_control_tunnels", &[], MAX_TUNNELS as f64).await;
    let (mut near, mut far) = tunnel(&other, &gate).await;
    near.0.write_all(b"estop").await.unwrap();
    let mut got = [0; 5];
    tokio::time::timeout(SOON, far.1.read_exact(&mut got)).await.unwrap().unwrap();
    let mut newest = all.pop().unwrap();
    assert_eq!(reset_code(&mut newest.0.1).await, tunnel_code::GONE);
    // QUIC itself lets nobody open more than that.
    let mut open = Vec::new();
    let more = async {
        loop {
            open.push(other.connection.open_bi().await.unwrap());
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(100), more).await.is_err());
    assert_eq!(open.len(), MAX_TUNNELS - 1);
}
